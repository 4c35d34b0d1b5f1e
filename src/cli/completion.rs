//! `completion`: scripts that complete commands in a shell.

use std::io::Write;

use clap_complete::Shell;

use super::args::{self, CompletionArgs, CompletionShell};
use super::error::CliError;

/// kubectl runs this file with the words so far, asks it what may come next, and reads the answers one a line.
const HELPER: &str = r#"#!/bin/sh
# kubectl asks this program what may come after `kubectl voicerollout`. Put it on your PATH as
# kubectl_complete-voicerollout, and make it executable.
exec kubectl-voicerollout __complete "$@"
"#;

/// Writes the script.
///
/// # Errors
/// Nothing can be printed.
pub fn completion(args: &CompletionArgs, out: &mut impl Write) -> Result<(), CliError> {
    let printing = |source| CliError::Io { what: "print the script".into(), source };
    let shell = match args.shell {
        CompletionShell::Kubectl => return out.write_all(HELPER.as_bytes()).map_err(printing),
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
        CompletionShell::Powershell => Shell::PowerShell,
        CompletionShell::Elvish => Shell::Elvish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(false), "voicerollout", &mut script);
    out.write_all(&script).map_err(printing)
}

/// What may come after these words, the last of which is being typed; one a line, and last what the shell should do with
/// them, as kubectl's own commands say it: `:4`, no files.
pub fn next_words(words: &[String]) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut command = args::command(true);
    let mut command = &mut command;
    command.build();
    for word in before {
        // A word that is no verb is a name, or the value of an option.
        if command.find_subcommand(word).is_some() {
            command = command.find_subcommand_mut(word).expect("it was found");
        }
    }
    let mut all: Vec<String> = Vec::new();
    if typed.starts_with('-') {
        all.extend(command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long()).map(|long| format!("--{long}")));
    } else {
        let verbs = command.get_subcommands().filter(|c| !c.is_hide_set());
        all.extend(verbs.map(|c| format!("{}\t{}", c.get_name(), c.get_about().map(ToString::to_string).unwrap_or_default())));
    }
    all.retain(|word| word.starts_with(typed));
    let files = before.iter().any(|w| matches!(w.as_str(), "lint" | "plan")) && !typed.starts_with('-');
    all.push(if files { ":0".into() } else { ":4".into() });
    all.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        next_words(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).lines().map(Into::into).collect()
    }

    #[test]
    fn kubectl_is_told_verbs_and_options_and_when_files_may_come() {
        assert_eq!(words(&["prom"]), ["promote\tEnd a pause; a failed gate is never overridden", ":4"]);
        assert!(words(&[""]).iter().any(|w| w.starts_with("explain\t")) && !words(&[""]).iter().any(|w| w.starts_with("run\t")));
        assert_eq!(words(&["set", "i"]), ["image\tRelease other images", ":4"]);
        assert_eq!(words(&["promote", "agent", "--s"]), ["--skip-step", ":4"]);
        assert_eq!(words(&["lint", "exa"]), [":0"]);
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_verbs() {
        use clap::ValueEnum;
        for shell in CompletionShell::value_variants() {
            let mut out = Vec::new();
            completion(&CompletionArgs { shell: *shell }, &mut out).unwrap();
            let script = String::from_utf8(out).unwrap();
            let known = if *shell == CompletionShell::Kubectl { "kubectl-voicerollout __complete" } else { "explain" };
            assert!(script.contains(known), "{shell:?}");
        }
    }
}
