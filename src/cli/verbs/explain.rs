//! `explain`: why a release is where it is.

use std::io::Write;

use jiff::Timestamp;

use super::{Session, say};
use crate::cli::error::CliError;
use crate::cli::explain_view::{self, Typed};

impl Session {
    /// Says in plain words why a release is where it is, what it waits for, what comes next and what a person can do.
    ///
    /// # Errors
    /// No such rollout, or no answer.
    pub async fn explain(&self, name: &str, out: &mut impl Write) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        let runs = self.runs(&rollout).await;
        let typed = Typed { program: &self.program, namespace: &self.namespace };
        say(out, &explain_view::render(&rollout, &runs, Timestamp::now(), self.paint, typed))
    }
}
