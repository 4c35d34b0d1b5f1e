//! What the exit code says to a script. The only place where the numbers stand, with the README's table of them.

use crate::api::VoiceRollout;
use crate::api::status::Phase;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; of a release: its newest revision is stable.
    Done,
    /// 1: refused, not there, not allowed, no connection; of files: there are errors in them.
    Failed,
    /// 2: a wrong command line.
    Usage,
    /// 3: the release was aborted, all new calls go to stable.
    Aborted,
    /// 4: not known in time: the release is still under way, or the operator has not answered.
    Unfinished,
    /// 5: the spec cannot be carried out.
    Invalid,
}

/// The table, as `--help` shows it.
pub const HELP: &str = "\
Exit codes:
  0  done; of a release: its newest revision is stable
  1  refused, not there, not allowed, or no connection; of files: errors in them
  2  a wrong command line
  3  the release was aborted
  4  not known in time: still under way, or no answer of the operator
  5  the spec of the release cannot be carried out";

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Aborted => 3,
            Self::Unfinished => 4,
            Self::Invalid => 5,
        }
    }

    /// What a release says. One whose newest spec the operator has not looked at is under way.
    pub fn of(rollout: &VoiceRollout) -> Self {
        let Some(status) = &rollout.status else { return Self::Unfinished };
        if status.observed_generation != rollout.metadata.generation {
            return Self::Unfinished;
        }
        match status.phase {
            Phase::Healthy => Self::Done,
            Phase::Degraded => Self::Aborted,
            Phase::Invalid => Self::Invalid,
            _ => Self::Unfinished,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: [Exit; 6] = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Aborted, Exit::Unfinished, Exit::Invalid];

    #[test]
    fn help_and_readme_list_every_code() {
        let readme = include_str!("../../README.md");
        for exit in ALL {
            let code = exit.code();
            assert!(HELP.contains(&format!("\n  {code}  ")), "{exit:?} in the help");
            assert!(readme.contains(&format!("| {code} | ")), "{exit:?} in the README");
        }
    }

    #[test]
    fn a_spec_that_the_operator_has_not_seen_is_under_way_whatever_the_phase() {
        let rollout = |status: serde_json::Value| -> VoiceRollout {
            serde_json::from_value(json!({
                "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": "a", "generation": 2},
                "spec": {"selector": {}, "template": {}, "traffic": {}}, "status": status,
            }))
            .unwrap()
        };
        let of = |generation: i64, phase: &str| Exit::of(&rollout(json!({"observedGeneration": generation, "phase": phase})));
        assert_eq!(["Healthy", "Degraded", "Invalid"].map(|p| of(2, p)), [Exit::Done, Exit::Aborted, Exit::Invalid]);
        for phase in ["Pending", "Initializing", "Progressing", "Paused", "Promoting", "Reverting"] {
            assert_eq!(of(2, phase), Exit::Unfinished, "{phase}");
        }
        assert_eq!(of(1, "Healthy"), Exit::Unfinished);
    }
}
