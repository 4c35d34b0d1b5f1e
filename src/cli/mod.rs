//! What people type: the operator itself, and the verbs of its users (also as `kubectl voicerollout`).

pub mod args;
pub mod connect;
pub mod crd;
pub mod dashboard;
pub mod demo;
pub mod error;
pub mod gate;
pub mod judge;
pub mod run;
pub mod status_view;
pub mod table;
pub mod verbs;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use args::{Cli, Connection, GateVerb, Verb};
use error::CliError;
use table::Paint;
use verbs::Session;

use crate::memory;

/// Most threads that tasks run on.
const MAX_THREADS: usize = 4;

/// Parses the command line, does what it says, and gives the exit code: 0 done; 1 refused, or what was asked for
/// is not there; 2 a wrong command line, or the outcome is not known.
pub fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Verb::Demo(args) = &cli.verb {
        return exit(demo::demo(args));
    }
    if let Verb::Gate(verb) = &cli.verb {
        return exit(try_out(verb));
    }
    memory::in_one_place();
    // The work is waiting for servers; each thread more costs memory, and nodes may have a hundred processors.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let result = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
        Err(source) => Err(CliError::Io { what: "start the async runtime".into(), source }),
    };
    exit(result)
}

fn exit(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let Cli { program, verb } = cli;
    match verb {
        Verb::Run(args) => run::run(args).await,
        Verb::Dashboard(args) => dashboard::dashboard(&args, &mut std::io::stdout()).await,
        Verb::Crd(args) => crd::crd(&args),
        Verb::Demo(args) => demo::demo(&args),
        Verb::Gate(verb) => try_out(&verb),
        Verb::Judge(judge::JudgeArgs { verb: judge::JudgeVerb::Eval(args) }) => judge::eval(&args, &mut std::io::stdout()).await,
        Verb::Status(args) => {
            let session = session(&args.connection, program).await?;
            session.status(&args.name, args.watch, &mut std::io::stdout()).await
        }
        Verb::Promote(args) => {
            let verb = if args.full { verbs::Action::PromoteFull } else { verbs::Action::Promote };
            order(&args.order, verb, program).await
        }
        Verb::Abort(args) => order(&args, verbs::Action::Abort, program).await,
        Verb::Retry(args) => order(&args, verbs::Action::Retry, program).await,
        Verb::Pause(args) => order(&args, verbs::Action::Pause, program).await,
        Verb::Resume(args) => order(&args, verbs::Action::Resume, program).await,
    }
}

fn try_out(verb: &GateVerb) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match verb {
        GateVerb::Replay(args) => gate::replay(args, paint(), &mut out),
        GateVerb::Simulate(args) => gate::simulate(args, paint(), &mut out),
    }
}

async fn order(args: &args::OrderArgs, verb: verbs::Action, program: String) -> Result<(), CliError> {
    let session = session(&args.connection, program).await?;
    session.order(&args.name, verb, args.reason.clone(), args.timeout, &mut std::io::stdout()).await
}

async fn session(connection: &Connection, program: String) -> Result<Session, CliError> {
    let (client, namespace) = connect::connect(connection).await?;
    Ok(Session { client, namespace, program, paint: paint(), terminal: std::io::stdout().is_terminal() })
}

/// Colours on a terminal, unless `NO_COLOR` is set.
fn paint() -> Paint {
    Paint { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) }
}
