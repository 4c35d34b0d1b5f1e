//! What can go wrong with the stack.

use std::path::PathBuf;
use std::time::Duration;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with the stack; the text says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A component is not on this machine.
    #[error("the {name} of the test stack is missing: run tests/stack/components.sh, or set {variable}=/path/to/it")]
    Missing {
        /// What is missing.
        name: &'static str,
        /// The environment variable that gives its path.
        variable: &'static str,
    },
    /// Something awaited did not come.
    #[error("waited {deadline:?} for: {what}\n  last seen: {last}")]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        deadline: Duration,
        /// The last state that was seen.
        last: String,
    },
    /// A component did not get ready.
    #[error("{name} is not ready: {reason}\n  end of {}:\n{tail}", log.display())]
    NotReady {
        /// The component.
        name: String,
        /// What was awaited.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The end of its log.
        tail: String,
    },
    /// A command failed.
    #[error("{command}: {status}\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// The Kubernetes API refused something.
    #[error("Kubernetes API: {}", kube_text(.0))]
    Kube(#[from] kube::Error),
    /// A kubeconfig that cannot be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// An HTTP request failed.
    #[error("HTTP: {0:?}")]
    Http(#[from] reqwest::Error),
    /// A file or a process failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An error in words.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}

/// True for the API server's "no such object".
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The API server's own words, without the whole answer behind them.
fn kube_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
