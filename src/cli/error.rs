//! Why a command did not do what it was asked.

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
    /// 1: refused, or not there. 2: could not be found out.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownRollout { .. } | Self::NotObserved { .. } | Self::Refused { .. } | Self::Api { .. } | Self::Differs(_) => 1,
            Self::Connect { .. } | Self::Unknown { .. } | Self::Io { .. } | Self::NotBuilt(_) => 2,
        }
    }

    /// Sorts an error of the client: an answer of the API server, or none.
    pub fn of_kube(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => Self::Api { what, message: status.message.clone() },
            other => Self::Connect { what, message: chain(&other) },
        }
    }
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
