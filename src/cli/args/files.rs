//! Verbs that need no cluster.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Connection, Output};

/// How findings are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Findings {
    /// One a line, FILE:LINE first
    #[default]
    Text,
    /// A JSON list
    Json,
}

/// `lint`
#[derive(Clone, Debug, Args)]
pub struct LintArgs {
    /// Manifests; templates that a rollout names are looked for in all of them; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to show what is found
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Findings,
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
}

/// `plan`
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Manifests: VoiceRollouts, and the templates that they name; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Calls a minute of both versions together, to say how long gates that count calls take
    #[arg(long, value_name = "NUMBER", value_parser = above_zero)]
    pub calls_per_minute: Option<f64>,
    /// Share of calls that are bad on stable; of a histogram, the share above its lowest edge
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share)]
    pub bad_rate: f64,
    /// How many times worse the canary is whose abort is foretold
    #[arg(long, value_name = "FACTOR", default_value = "1.5", value_parser = above_one)]
    pub regression: f64,
}

/// `completion`
#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// The shell; `kubectl`: the program that kubectl asks what comes next, to be put on the PATH as kubectl_complete-voicerollout
    pub shell: CompletionShell,
}

/// What completion is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// PowerShell
    Powershell,
    /// Elvish
    Elvish,
    /// kubectl's own completion of `kubectl voicerollout`
    Kubectl,
}

/// `version`
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Do not ask a cluster
    #[arg(long)]
    pub client: bool,
    /// As data
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

fn above_zero(text: &str) -> Result<f64, String> {
    in_range(text, |x| x > 0.0, "above 0")
}

fn above_one(text: &str) -> Result<f64, String> {
    in_range(text, |x| x > 1.0, "above 1")
}

fn share(text: &str) -> Result<f64, String> {
    in_range(text, |x| x > 0.0 && x < 1.0, "between 0 and 1")
}

fn in_range(text: &str, holds: impl Fn(f64) -> bool, range: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && holds(x) => Ok(x),
        Ok(_) => Err(format!("it has to be {range}")),
        Err(error) => Err(error.to_string()),
    }
}
