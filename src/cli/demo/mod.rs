//! `demo`: releases of the sample agent against an API server in this process, in virtual time.

mod play;
mod table;

use std::io::{IsTerminal, Write};
use std::path::Path;

use super::args::DemoArgs;
use super::error::CliError;
use super::table::Paint;
use crate::sim::scenario::{Scenario, ScenarioError};

/// Plays a scenario on a runtime of its own, whose clock runs as fast as there is nothing to do.
///
/// # Errors
/// A scenario that cannot be read, or an outcome that is not the right one.
pub fn demo(args: &DemoArgs) -> Result<(), CliError> {
    let mut out = std::io::stdout();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    show(args, colour, &mut out)
}

/// The same, written to `out`.
///
/// # Errors
/// As [`demo`].
pub fn show(args: &DemoArgs, colour: bool, out: &mut impl Write) -> Result<(), CliError> {
    if args.list {
        return list(out);
    }
    let scenario = match &args.scenario {
        None if !args.manifest.is_empty() => Scenario::of_files(&args.manifest).map_err(wrong)?,
        Some(path) => match Scenario::built_in().map_err(wrong)?.into_iter().find(|s| Path::new(&s.name) == path) {
            Some(built_in) => built_in,
            None => Scenario::read(path).map_err(wrong)?,
        },
        None => Scenario::built_in().map_err(wrong)?.swap_remove(0),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "start the async runtime".into(), source })?;
    runtime.block_on(play::play(scenario, args.speed, Paint { colour, width: None }, out))
}

fn list(out: &mut impl Write) -> Result<(), CliError> {
    for scenario in Scenario::built_in().map_err(wrong)? {
        let names: Vec<&str> = scenario.releases.iter().map(|r| r.name.as_str()).collect();
        writeln!(out, "{}\n  {}\n  releases: {}", scenario.name, scenario.description, names.join("; ")).map_err(printing)?;
    }
    Ok(())
}

fn wrong(error: ScenarioError) -> CliError {
    match error {
        ScenarioError::Read { path, source } => CliError::Io { what: format!("read {path}"), source },
        other => CliError::Differs(other.to_string()),
    }
}

fn printing(source: std::io::Error) -> CliError {
    CliError::Io { what: "print".into(), source }
}
