//! Why a command did not do what it was asked.

use kube::core::Status;
use kube::runtime::watcher;

use super::exit::Exit;
use crate::sim::PATCH_FAILED;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// There is no such rollout.
    #[error("there is no VoiceRollout {name} in namespace {namespace}{}", near(.similar))]
    UnknownRollout {
        /// The name.
        name: String,
        /// The namespace.
        namespace: String,
        /// Names there that look like it.
        similar: Vec<String>,
    },
    /// The operator has not looked at the rollout.
    #[error("the operator has not looked at VoiceRollout {name} yet, so there is no release to command; is it running?")]
    NotObserved {
        /// The name.
        name: String,
    },
    /// The operator refused a command.
    #[error("{verb} {name}: refused: {message}")]
    Refused {
        /// The command.
        verb: String,
        /// Name of the rollout.
        name: String,
        /// The operator's reason.
        message: String,
    },
    /// The API server said that the caller may not.
    #[error("{what}: {message}; {hint}")]
    Forbidden {
        /// What was being done, to which object.
        what: String,
        /// The API server's words: who, which right, where.
        message: String,
        /// Where the right is to be had.
        hint: String,
    },
    /// The cluster does not know our kinds.
    #[error("{what}: this cluster has no such resource: is VoiceRollout installed there? (helm install, see the README)")]
    NotInstalled {
        /// What was being done.
        what: String,
    },
    /// A revision that does not exist, or not any more.
    #[error("VoiceRollout {name} has no revision {wanted}{}; {}", .why, revisions(.there))]
    NoRevision {
        /// Name of the rollout.
        name: String,
        /// Which.
        wanted: String,
        /// Why it is not there, beginning with a comma or a colon; empty when it never was.
        why: String,
        /// What there is, one line a revision.
        there: Vec<String>,
    },
    /// What was read is not what is there any more.
    #[error("{what}: somebody changed it at the same moment; nothing was done: try again")]
    Overtaken {
        /// What was being done, to which object.
        what: String,
    },
    /// The person was asked, and did not say yes.
    #[error("nothing was done")]
    Declined,
    /// The API server said no.
    #[error("{what}: {message}")]
    Api {
        /// What was being done, to which object.
        what: String,
        /// The API server's reason.
        message: String,
    },
    /// There is no usable kubeconfig or no connection.
    #[error("{what}: {message}")]
    Connect {
        /// What was being done.
        what: String,
        /// Why it failed.
        message: String,
    },
    /// It is not known whether the command was carried out.
    #[error("{what}; {hint}")]
    Unknown {
        /// What is known.
        what: String,
        /// How to find out more.
        hint: String,
    },
    /// Files differ from what they should be.
    #[error("{0}")]
    Differs(String),
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to which file.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Something that this build does not hold.
    #[error("{0} is not part of this build")]
    NotBuilt(&'static str),
}

impl CliError {
    /// The exit code: see [`Exit`].
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unknown { .. } | Self::NotObserved { .. } => Exit::Unfinished,
            _ => Exit::Failed,
        }
    }

    /// Whoever reads what is printed has gone.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Sorts an error of the client: an answer of the API server, or none.
    pub fn of_kube(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => Self::of_status(what, &status),
            other => Self::Connect { what, message: chain(&other) },
        }
    }

    fn of_status(what: String, status: &Status) -> Self {
        let message = status.message.clone();
        // The API server's own page for a path that it does not serve.
        let unserved = message.contains("could not find the requested resource") || message.contains("page not found");
        match status.code {
            403 if message.contains(" cannot ") => {
                let hint = right_hint(&message);
                Self::Forbidden { what, message, hint }
            }
            401 => Self::Api { what, message: format!("the API server does not accept these credentials ({message}); log in again") },
            404 if unserved => Self::NotInstalled { what },
            // Our patches say what the object has to be; nothing else of theirs can fail.
            422 if message == PATCH_FAILED => Self::Overtaken { what },
            _ => Self::Api { what, message },
        }
    }

    /// What ends a watch for good; others are started again by themselves.
    pub fn of_watch(what: &str, error: &watcher::Error) -> Option<Self> {
        match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status)
                if matches!(status.code, 401 | 403 | 404) =>
            {
                Some(Self::of_status(what.into(), status))
            }
            _ => None,
        }
    }
}

/// Which of the chart's roles has the right that the API server says is missing.
fn right_hint(message: &str) -> String {
    let cannot = |verb: &str| message.contains(&format!(" cannot {verb} "));
    let (role, what) = if message.contains("\"deployments\"") {
        return "Kubernetes' own ClusterRole view has this right".into();
    } else if message.contains("\"voicerolloutactions\"") && cannot("create") {
        ("command", "gives commands")
    } else if cannot("patch") || cannot("update") {
        ("edit", "writes rollouts")
    } else {
        ("view", "looks at rollouts")
    };
    format!("the chart's ClusterRole <release>-{role} {what} and has this right: have it bound to you")
}

fn revisions(there: &[String]) -> String {
    if there.is_empty() { "there is none to go back to".into() } else { format!("there are:\n  {}", there.join("\n  ")) }
}

/// An error with its causes: the outermost alone often says "client error" and no more.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn near(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!("; did you mean {}?", similar.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, message: &str) -> CliError {
        let status = Status { code, message: message.into(), ..Status::default() };
        CliError::of_kube("abort a", kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_missing_right_comes_with_the_role_that_has_it() {
        for (verb, resource, role) in [
            ("create", "voicerolloutactions", "-command"),
            ("patch", "voicerollouts", "-edit"),
            ("list", "voicerollouts", "-view"),
            ("list", "replicasets", "-view"),
            ("list", "deployments", "ClusterRole view"),
        ] {
            let message =
                format!("forbidden: User \"jane\" cannot {verb} resource \"{resource}\" in API group \"g\" in the namespace \"n\"");
            let error = of(403, &message);
            assert!(error.to_string().starts_with(&format!("abort a: {message}; ")), "{error}");
            assert!(error.to_string().contains(role), "{error}");
            assert_eq!(error.exit(), Exit::Failed);
        }
        // An admission policy's refusal is no missing right.
        assert_eq!(of(403, "requestedBy must be your own").to_string(), "abort a: requestedBy must be your own");
    }

    #[test]
    fn a_cluster_without_our_kinds_is_told_from_a_name_that_is_wrong() {
        assert!(of(404, "the server could not find the requested resource").to_string().contains("is VoiceRollout installed there?"));
        assert!(of(404, "404 page not found").to_string().contains("is VoiceRollout installed there?"));
        assert_eq!(
            of(404, "voicerollouts.voicerollout.dev \"a\" not found").to_string(),
            "abort a: voicerollouts.voicerollout.dev \"a\" not found"
        );
    }
}
