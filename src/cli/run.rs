//! `run`: the operator.

use super::args::RunArgs;
use super::error::CliError;

/// Runs the operator until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
#[allow(clippy::unused_async)] // controllers are tasks
pub async fn run(_args: RunArgs) -> Result<(), CliError> {
    Err(CliError::NotBuilt("the operator"))
}
