//! Verbs that look at releases and change them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Connection, duration};

/// An object as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// How a list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GetOutput {
    /// With live calls and message
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// `voicerollout.voicerollout.dev/NAME`, one a line
    Name,
}

/// `get`
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// Names of VoiceRollouts; left out: all of the namespace
    pub names: Vec<String>,
    /// Those of every namespace
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub all_namespaces: bool,
    /// Those with these labels, as in `team=voice,tier!=test`
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// Go on showing them as they change
    #[arg(short, long)]
    pub watch: bool,
    /// How to show them; left out: a table
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<GetOutput>,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `status`
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// Go on showing it as it changes, until the release is over; the exit code says how it ended
    #[arg(short, long)]
    pub watch: bool,
    /// With --watch: how long to wait for the end
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "watch")]
    pub timeout: Option<Duration>,
    /// The exit code says where the release stands, without --watch too
    #[arg(long)]
    pub exit_code: bool,
    /// The object as it is, in place of the view
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `history`
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// Every decision that is kept, with its reason
    #[arg(long)]
    pub decisions: bool,
    /// As data, in place of a table
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// A command of a person.
#[derive(Clone, Debug, Args)]
pub struct OrderArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// Why; kept with the record of the command
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long to wait for the operator's answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `promote`
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// Skip every remaining step and analysis
    #[arg(long, conflicts_with = "skip_step")]
    pub full: bool,
    /// End the current pause or analysis although it is not over; refused while a gate has failed
    #[arg(long)]
    pub skip_step: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// As for the other commands.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `undo`
#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// Number of the revision to go back to, as `history` shows it; left out: the one that was stable before
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    pub to_revision: Option<i64>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `set`
#[derive(Clone, Debug, Subcommand)]
pub enum SetVerb {
    /// Release other images
    Image(ImageArgs),
}

/// `set image`
#[derive(Clone, Debug, Args)]
pub struct ImageArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// The new images
    #[arg(value_name = "CONTAINER=IMAGE", required = true, value_parser = image)]
    pub images: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

/// `restart`
#[derive(Clone, Debug, Args)]
pub struct RestartArgs {
    /// Name of the VoiceRollout
    pub name: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,
}

fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((container, image)) if !container.is_empty() && !image.is_empty() => Ok((container.into(), image.into())),
        _ => Err("write CONTAINER=IMAGE, as in agent=registry.example/voice-agent:v2".into()),
    }
}
