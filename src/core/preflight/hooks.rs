//! Signals in preStop hooks. The kubelet sends SIGTERM itself when a hook has ended; an agent that drains at the first
//! signal, such as a LiveKit worker, exits at once at the second.

use k8s_openapi::api::core::v1::Container;

use super::{Finding, codes, sidecar};
use crate::api::VoiceRolloutSpec;

/// Commands that send a signal.
const SENDERS: [&str; 3] = ["kill", "pkill", "killall"];
/// Words that may stand before a command.
const PREFIXES: [&str; 20] = [
    "if", "then", "else", "elif", "while", "until", "do", "!", "exec", "sudo", "nohup", "command", "xargs", "env", "timeout", "sh", "bash",
    "ash", "dash", "tini",
];
/// Signals that end a process, by name and number.
const ENDING: [(&str, &str); 3] = [("TERM", "15"), ("INT", "2"), ("KILL", "9")];

pub(super) fn findings(spec: &VoiceRolloutSpec) -> Vec<Finding> {
    let Some(pod) = &spec.template.spec else { return Vec::new() };
    let all = pod.init_containers.iter().flatten().chain(&pod.containers).filter(|c| c.name != sidecar::PROXY);
    all.filter_map(finding).collect()
}

fn finding(container: &Container) -> Option<Finding> {
    let hook = container.lifecycle.as_ref()?.pre_stop.as_ref()?.exec.as_ref()?;
    let (command, signal) = sent(&hook.command.clone().unwrap_or_default().join(" "))?;
    let name = &container.name;
    Some(Finding {
        code: codes::PRE_STOP_SIGNAL,
        sentence: format!(
            "the preStop hook of container {name} sends SIG{signal} ({command}), and the kubelet sends SIGTERM after it: an agent that drains \
             at the first signal exits at the second, and every call with it."
        ),
        fix: format!(
            "take the signal out of the preStop hook of container {name}: the kubelet's own starts the drain; a wait before it is \
             preStop: {{sleep: {{seconds: 10}}}}."
        ),
    })
}

/// The first command of a script that sends an ending signal, and the signal's name.
fn sent(script: &str) -> Option<(String, &'static str)> {
    let ends = |c: char| matches!(c, ';' | '&' | '|' | '\n' | '(' | ')' | '{' | '}' | '`' | '"' | '\'');
    script.split(ends).find_map(|command| {
        let words: Vec<&str> = command.split_whitespace().collect();
        // `sh -c kill 1` is one line of words here: the command may stand anywhere among them, after these.
        let at = words.iter().enumerate().position(|(i, word)| SENDERS.contains(&base(word)) && words[..i].iter().all(|w| leads(w)))?;
        Some((words[at..].join(" "), signal(&words[at + 1..])?))
    })
}

/// A word that does not make what follows it an argument.
fn leads(word: &str) -> bool {
    let number = word.trim_end_matches(['s', 'm']).parse::<f64>().is_ok();
    PREFIXES.contains(&base(word)) || word.starts_with('-') || word.contains('=') || number
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The ending signal that these arguments of `kill` ask for.
fn signal(arguments: &[&str]) -> Option<&'static str> {
    let mut rest = arguments.iter().copied();
    while let Some(argument) = rest.next() {
        let name = match argument {
            "-l" | "-L" | "--list" => return None,
            // Processes follow.
            "--" => break,
            "-s" | "--signal" | "-n" => rest.next()?,
            _ => match argument.strip_prefix("--signal=").or_else(|| argument.strip_prefix('-')) {
                Some(name) => name,
                None => continue,
            },
        };
        let upper = name.to_ascii_uppercase();
        let upper = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((found, _)) = ENDING.iter().find(|(name, number)| upper == *name || upper == *number) {
            return Some(found);
        }
        // Another signal; options such as -f of pkill are lower-case words of one letter, and say nothing about it.
        let option = name.len() == 1 && name.chars().all(|c| c.is_ascii_lowercase());
        if !option && name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return None;
        }
    }
    Some("TERM")
}
