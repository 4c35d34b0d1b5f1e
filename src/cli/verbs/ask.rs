//! Asking before calls are at stake. Only somebody at a terminal is asked; a script has said what it wants.

use std::io::{BufRead, Write};

use super::Session;
use crate::cli::error::CliError;

/// Puts a question to a person; an error is anything but yes.
pub type Asker = Box<dyn Fn(&str) -> Result<(), CliError> + Send + Sync>;

/// Asks at the terminal: on standard error, so that standard output stays clean.
pub fn terminal() -> Asker {
    Box::new(|question| answered(question, &mut std::io::stdin().lock(), &mut std::io::stderr()))
}

impl Session {
    /// Asks, unless `yes` was said or nobody is there.
    ///
    /// # Errors
    /// Anything but yes.
    pub(super) fn confirm(&self, yes: bool, question: &str) -> Result<(), CliError> {
        if yes || !self.interactive {
            return Ok(());
        }
        (self.asker)(question)
    }
}

fn answered(question: &str, input: &mut impl BufRead, out: &mut impl Write) -> Result<(), CliError> {
    let io = |source| CliError::Io { what: "ask".into(), source };
    write!(out, "{question} [y/N] ").and_then(|()| out.flush()).map_err(io)?;
    let mut line = String::new();
    input.read_line(&mut line).map_err(io)?;
    if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(CliError::Declined) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (said, goes_on) in [("y\n", true), ("YES\n", true), ("\n", false), ("no\n", false), ("", false), ("yep\n", false)] {
            let mut out = Vec::new();
            let result = answered("Go?", &mut said.as_bytes(), &mut out);
            assert_eq!((result.is_ok(), String::from_utf8(out).unwrap().as_str()), (goes_on, "Go? [y/N] "), "{said:?}");
        }
    }
}
