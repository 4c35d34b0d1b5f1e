//! The command line as data.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::exit;
use crate::telemetry::LogOptions;

mod files;
mod release;
#[cfg(test)]
mod tests;

pub use files::{CompletionArgs, CompletionShell, Findings, LintArgs, PlanArgs, VersionArgs};
pub use release::{
    ExplainArgs, GetArgs, GetOutput, HistoryArgs, ImageArgs, OrderArgs, Output, PromoteArgs, RestartArgs, SetVerb, StatusArgs, UndoArgs,
};

/// Name of the file that kubectl finds as its plugin.
const PLUGIN: &str = "kubectl-voicerollout";

/// Releases new versions of LLM voice agents step by step, behind real analysis.
#[derive(Clone, Debug, Parser)]
#[command(name = "voicerollout", version, arg_required_else_help = true, after_help = exit::HELP)]
pub struct Cli {
    /// How the program was called, for hints: `voicerollout` or `kubectl voicerollout`.
    #[arg(skip)]
    pub program: String,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// List releases
    Get(GetArgs),
    /// Show where a release stands
    Status(StatusArgs),
    /// Say in plain words why a release is where it is, and what you can do
    Explain(ExplainArgs),
    /// List the revisions of a release
    History(HistoryArgs),
    /// End a pause; a failed gate is never overridden
    Promote(PromoteArgs),
    /// Send all new calls back to the stable revision at once
    Abort(OrderArgs),
    /// Start an aborted release again from its first step
    Retry(OrderArgs),
    /// Stop the steps where they are; gates go on and may still abort
    Pause(OrderArgs),
    /// End a `pause`
    Resume(OrderArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Change the pod template
    #[command(subcommand)]
    Set(SetVerb),
    /// Release the same version again, in new pods
    Restart(RestartArgs),
    /// Check manifests without a cluster
    Lint(LintArgs),
    /// Show how long a release takes, and the pods, calls and money that it needs, without a cluster
    Plan(PlanArgs),
    /// Write the script that completes commands in a shell
    Completion(CompletionArgs),
    /// Show the version of this program, and of the operator where it can be seen
    Version(VersionArgs),
    /// Try out a gate that counts calls, without a cluster
    #[command(subcommand)]
    Gate(GateVerb),
    /// Show rollouts in a browser, with your own rights
    Dashboard(DashboardArgs),
    /// Run the operator
    Run(RunArgs),
    /// Write the CustomResourceDefinitions
    Crd(CrdArgs),
    /// Answer what may come next on the command line
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far; the last one is being typed
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Find out how good a judge is
    Judge(super::judge::JudgeArgs),
    /// Play releases against an API server in this process, without a cluster
    Demo(DemoArgs),
}

/// Which cluster and namespace.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// Namespace; left out: that of the context
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; left out: the current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Path of the kubeconfig; left out: KUBECONFIG, ~/.kube/config, or the account of the pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `gate`
#[derive(Clone, Debug, Subcommand)]
pub enum GateVerb {
    /// Feed recorded ticks to a gate, and print its evidence and verdict after each
    Replay(ReplayArgs),
    /// Play imagined releases: how often a gate aborts a canary that is no worse, how soon it finds one that is
    Simulate(SimulateArgs),
}

/// `gate replay`
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The gate: one entry of gates[] in YAML
    #[arg(long, value_name = "FILE")]
    pub gate: PathBuf,
    /// The ticks, a JSON object on each line: {"t": seconds, "weight": 5, "canary": {"n": 12, "bad": 1}, "stable": {...}},
    /// or with "buckets": {"0.7": n, ...} in place of "bad"; `-` for standard input
    #[arg(value_name = "TICKS")]
    pub ticks: PathBuf,
    /// Print {"t", "logE", "logEPass", "verdict"} for each tick, in place of a table
    #[arg(long)]
    pub json: bool,
}

/// `gate simulate`
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// The gate: one entry of gates[] in YAML; without falseAbort it has the whole of the default, 0.01
    #[arg(long, value_name = "FILE")]
    pub gate: PathBuf,
    /// Calls a minute of both versions together; turns, where the gate's metric counts them
    #[arg(long, visible_alias = "turns-per-minute", value_name = "NUMBER")]
    pub calls_per_minute: f64,
    /// Weight of the canary, in percent; of several, the next one comes when the gate passes
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "5")]
    pub weight: Vec<f64>,
    /// How many times worse a bad canary is: its bad calls, or the values of its histogram; several play one after the other
    #[arg(long, value_name = "FACTOR", value_delimiter = ',', default_value = "1.3")]
    pub regression: Vec<f64>,
    /// Gates on counters: share of calls that are bad on stable, such as 0.08
    #[arg(long, value_name = "SHARE")]
    pub bad_rate: Option<f64>,
    /// Gates on a histogram: stable's median, in the unit of the buckets; values are lognormal, by two of these three
    #[arg(long, value_name = "VALUE")]
    pub median: Option<f64>,
    /// Gates on a histogram: stable's 95th percentile
    #[arg(long, value_name = "VALUE")]
    pub p95: Option<f64>,
    /// Gates on a histogram: standard deviation of the values' logarithm
    #[arg(long, value_name = "NUMBER")]
    pub sigma: Option<f64>,
    /// Gates on a histogram: stable's buckets in place of the three, cumulative: 0.7=850,0.9=940,1.2=985,+Inf=1000
    #[arg(long, value_name = "BOUND=COUNT", value_delimiter = ',')]
    pub buckets: Vec<String>,
    /// Time that the gate may take, after warm-up
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub duration: Duration,
    /// Time from look to look; left out: the gate's interval
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub tick: Option<Duration>,
    /// How many releases to play of each kind
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rollouts: u32,
    /// The same seed gives the same releases
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object, in place of a table
    #[arg(long)]
    pub json: bool,
}

/// `dashboard`
#[derive(Clone, Debug, Args)]
pub struct DashboardArgs {
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Port on this machine; 0: one that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Print the address, and open no browser
    #[arg(long)]
    pub no_open: bool,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The operator's own namespace: its Lease, and the Secrets of cluster-wide templates
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Namespaces to manage, separated by commas; left out: all
    #[arg(long, env = "VOICEROLLOUT_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMES")]
    pub watch_namespaces: Vec<String>,
    /// Address of health, readiness and metrics
    #[arg(long, env = "VOICEROLLOUT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Name of the Lease
    #[arg(long, env = "VOICEROLLOUT_LEASE_NAME", default_value = "voicerollout")]
    pub lease_name: String,
    /// A leader that is gone is replaced after this long
    #[arg(long, env = "VOICEROLLOUT_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// How often the leader renews the Lease, and the others look at it
    #[arg(long, env = "VOICEROLLOUT_LEASE_RENEW_PERIOD", default_value = "5s", value_parser = duration)]
    pub lease_renew_period: Duration,
    /// Name of this process in the Lease; left out: host name and process id
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Hosts and CIDRs that gates may reach although they are loopback, link-local, metadata or API-server addresses
    #[arg(long, env = "VOICEROLLOUT_EGRESS_ALLOW", value_delimiter = ',', value_name = "LIST")]
    pub egress_allow: Vec<String>,
    /// File with notifications of every rollout: {link, notifications: [...]}; their Secrets lie in the operator's namespace
    #[arg(long, env = "VOICEROLLOUT_NOTIFICATIONS", value_name = "FILE")]
    pub notifications: Option<PathBuf>,
    /// Send traces of releases to the OpenTelemetry collector at this address, over OTLP/HTTP; OTEL_EXPORTER_OTLP_HEADERS and
    /// the other standard variables count, too
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The chart's admission policy is in force: the name in an action is the caller's own
    #[arg(long, env = "VOICEROLLOUT_ACTIONS_VERIFIED")]
    pub actions_verified: bool,
    /// Serve the dashboard, too
    #[arg(long, env = "VOICEROLLOUT_DASHBOARD")]
    pub dashboard: bool,
    /// Address of the dashboard; on a loopback address it answers to names of this machine only
    #[arg(long, env = "VOICEROLLOUT_DASHBOARD_LISTEN", default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    pub dashboard_listen: SocketAddr,
    /// Commands may be given in the dashboard, by those who may create VoiceRolloutActions
    #[arg(long, env = "VOICEROLLOUT_DASHBOARD_ACTIONS", requires = "dashboard")]
    pub dashboard_actions: bool,
    /// The log level stays what it is; otherwise, PUT /log-level from this machine (kubectl port-forward) changes it
    #[arg(long, env = "VOICEROLLOUT_FIXED_LOG_LEVEL")]
    pub fixed_log_level: bool,
    /// Logging.
    #[command(flatten)]
    pub log: LogOptions,
}

/// `crd`
#[derive(Clone, Debug, Args)]
pub struct CrdArgs {
    /// Folder to write to, or with --check to compare with; left out: all go to standard output
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Write nothing; fail when a file differs
    #[arg(long, requires = "dir")]
    pub check: bool,
}

/// `demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// How many times faster than real time; left out: as fast as the terminal can be read
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    pub speed: Option<f64>,
    /// Play the built-in scenario of this name, or the one of this file
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "list")]
    pub scenario: Option<PathBuf>,
    /// Play these manifests: a release with nothing wrong, and for each gate one that it has to stop
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["list", "scenario"])]
    pub manifest: Vec<PathBuf>,
    /// List the built-in scenarios
    #[arg(long)]
    pub list: bool,
}

/// Parses a command line, the program's own name first.
///
/// # Errors
/// What clap says about a wrong one; help and version are errors of this kind too.
pub fn parse<T: Into<OsString>>(words: impl IntoIterator<Item = T>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let plugin = words.first().is_some_and(|word| is_plugin(Path::new(word)));
    let matches = command(plugin).try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.program = program(plugin).into();
    Ok(cli)
}

/// The command line's grammar. As a plugin it goes by kubectl's name and shows the users' verbs only.
pub fn command(plugin: bool) -> clap::Command {
    let command = Cli::command().bin_name(program(plugin));
    if !plugin {
        return command;
    }
    ["run", "crd", "demo"].into_iter().fold(command, |command, verb| command.mut_subcommand(verb, |verb| verb.hide(true)))
}

fn program(plugin: bool) -> &'static str {
    if plugin { "kubectl voicerollout" } else { "voicerollout" }
}

/// kubectl takes `kubectl-voicerollout` and, on Windows, the same with `.exe`.
fn is_plugin(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name == PLUGIN)
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text.parse().map_err(|e| format!("{e}; write 30s or 1h30m"))?;
    if parsed.is_negative() || parsed == kube::core::Duration::from(Duration::ZERO) {
        return Err("it has to be longer than nothing".into());
    }
    Ok(parsed.into())
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if f64::is_finite(factor) && factor > 0.0 => Ok(factor),
        Ok(_) => Err("it has to be above 0".into()),
        Err(error) => Err(error.to_string()),
    }
}
