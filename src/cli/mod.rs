//! What people type: the operator itself, and the verbs of its users (also as `kubectl voicerollout`).

pub mod args;
pub mod completion;
pub mod connect;
pub mod crd;
pub mod dashboard;
pub mod demo;
pub mod error;
pub mod exit;
pub mod explain_view;
pub mod gate;
pub mod history_view;
pub mod judge;
pub mod lint;
pub mod list_view;
pub mod plan;
pub mod run;
#[cfg(test)]
mod samples;
pub mod status_view;
pub mod table;
pub mod verbs;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use args::{Cli, Connection, GateVerb, Verb};
use error::CliError;
use exit::Exit;
use table::Paint;
use verbs::Session;

use crate::memory;

/// Most threads that tasks run on.
const MAX_THREADS: usize = 4;

/// Parses the command line, does what it says, and gives the exit code: see [`exit::Exit`].
pub fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    if let Some(result) = offline(&cli) {
        return exit(result);
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

fn exit(result: Result<Exit, CliError>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        // A reader that has seen enough, such as head, is no error to talk about.
        if !error.is_closed_pipe() {
            let _ = writeln!(std::io::stderr(), "error: {error}");
        }
        error.exit()
    });
    ExitCode::from(exit.code())
}

/// Does what needs neither a cluster nor a runtime; `None` for the others.
fn offline(cli: &Cli) -> Option<Result<Exit, CliError>> {
    let out = &mut std::io::stdout();
    let done = match &cli.verb {
        Verb::Demo(args) => demo::demo(args),
        Verb::Gate(verb) => try_out(verb),
        Verb::Crd(args) => crd::crd(args),
        Verb::Completion(args) => completion::completion(args, out),
        Verb::Complete { words } => write!(out, "{}", completion::next_words(words)).map_err(printing),
        Verb::Version(args) if args.client => verbs::client_version(args.output, None, out),
        Verb::Lint(args) => return Some(lint::lint(args, paint(), out)),
        Verb::Plan(args) => return Some(plan::plan(args, paint(), out)),
        _ => return None,
    };
    Some(done.map(|()| Exit::Done))
}

fn printing(source: std::io::Error) -> CliError {
    CliError::Io { what: "print".into(), source }
}

async fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let Cli { program, verb } = cli;
    let out = &mut std::io::stdout();
    let done = match verb {
        Verb::Run(args) => run::run(args).await,
        Verb::Dashboard(args) => dashboard::dashboard(&args, out).await,
        Verb::Judge(judge::JudgeArgs { verb: judge::JudgeVerb::Eval(args) }) => judge::eval(&args, out).await,
        Verb::Get(args) => session(&args.connection, program).await?.get(&args, out).await,
        Verb::Status(args) => {
            let how = verbs::Follow { watch: args.watch, timeout: args.timeout, exit_code: args.exit_code, output: args.output };
            return session(&args.connection, program).await?.status(&args.name, how, out).await;
        }
        Verb::Explain(args) => session(&args.connection, program).await?.explain(&args.name, out).await,
        Verb::History(args) => session(&args.connection, program).await?.history(&args.name, args.decisions, args.output, out).await,
        Verb::Promote(args) => {
            let verb = match (args.full, args.skip_step) {
                (true, _) => verbs::Action::PromoteFull,
                (_, true) => verbs::Action::SkipStep,
                _ => verbs::Action::Promote,
            };
            order(&args.order, verb, args.yes, program).await
        }
        Verb::Abort(args) => order(&args, verbs::Action::Abort, false, program).await,
        Verb::Retry(args) => order(&args, verbs::Action::Retry, false, program).await,
        Verb::Pause(args) => order(&args, verbs::Action::Pause, false, program).await,
        Verb::Resume(args) => order(&args, verbs::Action::Resume, false, program).await,
        Verb::Undo(args) => session(&args.connection, program).await?.undo(&args.name, args.to_revision, args.yes, out).await,
        Verb::Set(args::SetVerb::Image(args)) => {
            session(&args.connection, program).await?.set_image(&args.name, &args.images, args.yes, out).await
        }
        Verb::Restart(args) => session(&args.connection, program).await?.restart(&args.name, args.yes, out).await,
        Verb::Version(args) => match session(&args.connection, program).await {
            Ok(session) => session.version(args.output, out).await,
            Err(error) => verbs::client_version(args.output, Some(error.to_string()), out),
        },
        // Carried out before.
        Verb::Crd(_) | Verb::Demo(_) | Verb::Gate(_) | Verb::Lint(_) | Verb::Plan(_) | Verb::Completion(_) | Verb::Complete { .. } => {
            Ok(())
        }
    };
    done.map(|()| Exit::Done)
}

fn try_out(verb: &GateVerb) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match verb {
        GateVerb::Replay(args) => gate::replay(args, paint(), &mut out),
        GateVerb::Simulate(args) => gate::simulate(args, paint(), &mut out),
    }
}

async fn order(args: &args::OrderArgs, verb: verbs::Action, yes: bool, program: String) -> Result<(), CliError> {
    let session = session(&args.connection, program).await?;
    let given = verbs::Given { timeout: args.timeout, yes };
    session.order(&args.name, verb, args.reason.clone(), given, &mut std::io::stdout()).await
}

async fn session(connection: &Connection, program: String) -> Result<Session, CliError> {
    let (client, namespace) = connect::connect(connection).await?;
    let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let (paint, terminal) = (paint(), std::io::stdout().is_terminal());
    Ok(Session { client, namespace, program, paint, terminal, interactive, asker: verbs::terminal() })
}

/// Of a terminal its width, and colours unless `NO_COLOR` is set; of anything else neither.
fn paint() -> Paint {
    let terminal = std::io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let width = terminal.then(terminal_size::terminal_size).flatten().map(|(width, _)| usize::from(width.0));
    Paint { colour, width }
}
