//! `demo`: releases of the sample agent against an API server in this process.

use super::args::DemoArgs;
use super::error::CliError;

/// Plays the demo.
///
/// # Errors
/// A scenario that cannot be read, or an outcome that is not the right one.
#[allow(clippy::unused_async)] // the players of the demo are tasks
pub async fn demo(_args: DemoArgs) -> Result<(), CliError> {
    Err(CliError::NotBuilt("the demo"))
}
