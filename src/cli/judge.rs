//! `judge eval`: how often a judge is right about cases whose answer is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::CliError;
use crate::api::analysis::{Gate, Judge};
use crate::api::common::SecretKeyRef;
use crate::api::judge::{EvalRecord, Vote};
use crate::api::run::Verdict;
use crate::core::judge::agreement::{Agreement, agreement};
use crate::core::judge::{Judgement, requires, short_hash};
use crate::core::resolve::validate_gate;
use crate::sources::egress::Egress;
use crate::sources::judge::logs::{LogQuery, LogReader};
use crate::sources::secrets::SecretReader;
use crate::sources::{ArgValue, Progress, Request, SourceError, Sources, SourcesConfig};

/// Cases that are asked about at the same time.
const AT_ONCE: usize = 4;
/// How often a case is asked about when the vendor asks to wait.
const TRIES: usize = 4;
/// Longest wait between them.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Holds the API key.
const KEY: &str = "VOICEROLLOUT_JUDGE_KEY";

/// `judge`
#[derive(Clone, Debug, Args)]
pub struct JudgeArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: JudgeVerb,
}

/// What to do with a judge.
#[derive(Clone, Debug, Subcommand)]
pub enum JudgeVerb {
    /// Ask it about cases whose answer is known; its API key is taken from VOICEROLLOUT_JUDGE_KEY
    Eval(EvalArgs),
}

/// `judge eval`
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// The gate: one entry of `gates`, in YAML
    #[arg(long, value_name = "FILE")]
    pub gate: PathBuf,
    /// Cases, one JSON object a line: {"name": .., "evidence": {..}, "expected": "PASS"}
    #[arg(value_name = "CASES")]
    pub cases: PathBuf,
    /// An argument of the prompt: NAME=VALUE
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = pair)]
    pub args: Vec<(String, String)>,
    /// Write one JSON object
    #[arg(long)]
    pub json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write NAME=VALUE".into())
}

/// A case whose answer is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// For the table.
    #[serde(default)]
    name: String,
    /// As the judge is shown it, with `stable` and `canary`.
    evidence: serde_json::Map<String, Value>,
    /// The right answer.
    expected: Vote,
}

/// What came of a case.
struct Answered {
    name: String,
    expected: Vote,
    given: Vote,
    judgement: Option<Judgement>,
    message: String,
}

/// Runs the cases and prints what they say about the judge.
///
/// # Errors
/// A file that cannot be read or is wrong; a floor in the gate's `requires` that was not reached.
pub async fn eval(args: &EvalArgs, out: &mut impl Write) -> Result<(), CliError> {
    let gate = read_gate(&args.gate, &args.args)?;
    let cases = read_cases(&args.cases)?;
    let Some(judge) = gate.judge.clone() else { return Err(wrong(&args.gate, "the gate is no judge")) };
    let key = std::env::var(KEY).ok().filter(|k| !k.is_empty());
    let egress = Egress { allow: ["0.0.0.0/0", "::/0"].iter().filter_map(|n| n.parse().ok()).collect(), deny_extra: Vec::new() };
    let config =
        SourcesConfig { egress, operator_namespace: String::new(), user_agent: concat!("voicerollout/", env!("CARGO_PKG_VERSION")).into() };
    let sources = Sources::new(config, Arc::new(KeyFromEnvironment(key)), Arc::new(NoLogs));
    let answered: Vec<Answered> = stream::iter(cases.into_iter().enumerate())
        .map(|(n, case)| ask(&sources, &gate, &args.args, n, case))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let figures = agreement(&answered.iter().map(|a| (a.expected, a.given)).collect::<Vec<_>>());
    let record = record(&judge, &figures);
    let text = if args.json { format!("{}\n", as_json(&answered, &figures, &record)) } else { table(&answered, &figures, &record) };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|source| CliError::Io { what: "print".into(), source })?;
    match floor(judge, record) {
        Some(why) => Err(CliError::Differs(format!("the floor is not reached: {why}"))),
        None => Ok(()),
    }
}

/// Why the judge does not reach the gate's own floor by what was measured now.
fn floor(judge: Judge, record: EvalRecord) -> Option<String> {
    let mut measured = judge;
    measured.requires.as_mut()?.record = Some(record);
    requires::unmet(&measured, crate::api::analysis::Mode::Enforce)
}

fn wrong(path: &Path, message: &str) -> CliError {
    CliError::Differs(format!("{}: {message}", path.display()))
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|source| CliError::Io { what: format!("read {}", path.display()), source })
}

fn read_gate(path: &Path, args: &[(String, String)]) -> Result<Gate, CliError> {
    let gate: Gate = serde_yaml::from_str(&read(path)?).map_err(|e| wrong(path, &format!("not one entry of gates: {e}")))?;
    let mut checked = gate.clone();
    if let Some(judge) = &mut checked.judge {
        // That is what is measured here.
        judge.requires = None;
    }
    let known: BTreeSet<String> = arguments(args).into_keys().collect();
    match validate_gate(&checked, "gate", &known).first() {
        Some(error) => Err(wrong(path, &error.to_string())),
        None => Ok(gate),
    }
}

fn read_cases(path: &Path) -> Result<Vec<Case>, CliError> {
    let text = read(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(n, line): (usize, &str)| {
        let case = serde_json::from_str::<Case>(line).map_err(|e| wrong(path, &format!("line {}: {e}", n + 1)))?;
        if case.expected == Vote::Invalid {
            return Err(wrong(path, &format!("line {}: expected is PASS, FAIL or UNSURE", n + 1)));
        }
        let name = if case.name.is_empty() { format!("line {}", n + 1) } else { case.name };
        Ok(Case { name, ..case })
    };
    let cases: Vec<Case> = lines.map(parse).collect::<Result<_, _>>()?;
    if cases.is_empty() { Err(wrong(path, "there are no cases")) } else { Ok(cases) }
}

fn arguments(given: &[(String, String)]) -> BTreeMap<String, ArgValue> {
    let own = [("canary-hash", "canary-hash"), ("stable-hash", "stable-hash"), ("weight", "5"), ("step", "1"), ("attempt", "1")];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), ArgValue::plain(value)));
    own.chain(given.iter().map(|(name, value)| (name.clone(), ArgValue::plain(value.clone())))).collect()
}

async fn ask(sources: &Sources, gate: &Gate, args: &[(String, String)], n: usize, case: Case) -> Answered {
    let request = Request {
        key: short_hash(&format!("case {n} {}", case.name)),
        namespace: String::new(),
        rollout: String::new(),
        revision: "canary-hash".into(),
        stable_revision: "stable-hash".into(),
        // Cases have their evidence with them: nothing is looked up as of a time.
        started_at: jiff::Timestamp::UNIX_EPOCH,
        gate: gate.clone(),
        args: arguments(args),
        from_cluster_template: false,
        others: Vec::new(),
        earlier: Vec::new(),
        explains: None,
    };
    let evidence = Value::Object(case.evidence);
    let mut answer = sources.judge(&request, &evidence).await;
    for _ in 1..TRIES {
        let Ok(Progress::Votes(judgement)) = &answer else { break };
        let Some(wait) = judgement.retry_after else { break };
        tokio::time::sleep(wait.min(MAX_WAIT)).await;
        answer = sources.judge(&request, &evidence).await;
    }
    let (given, judgement, message) = match answer {
        Ok(Progress::Votes(j)) => (vote(j.verdict), Some(*j.clone()), j.message),
        Ok(_) => (Vote::Invalid, None, "no verdict".into()),
        Err(error) => (Vote::Invalid, None, error.message),
    };
    Answered { name: case.name, expected: case.expected, given, judgement, message }
}

fn vote(verdict: Verdict) -> Vote {
    match verdict {
        Verdict::Pass => Vote::Pass,
        Verdict::Fail => Vote::Fail,
        Verdict::Inconclusive => Vote::Unsure,
        Verdict::Error => Vote::Invalid,
    }
}

fn record(judge: &Judge, figures: &Agreement) -> EvalRecord {
    EvalRecord {
        hash: requires::judge_hash(judge),
        cases: i32::try_from(figures.cases).unwrap_or(i32::MAX),
        agreement: rounded(figures.share()),
        false_pass: rounded(figures.false_pass()),
    }
}

fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

fn word(vote: Vote) -> &'static str {
    match vote {
        Vote::Pass => "PASS",
        Vote::Fail => "FAIL",
        Vote::Unsure => "UNSURE",
        Vote::Invalid => "error",
    }
}

fn table(answered: &[Answered], figures: &Agreement, record: &EvalRecord) -> String {
    let mut text = String::new();
    let width = answered.iter().map(|a| a.name.chars().count()).max().unwrap_or(0).clamp(4, 40);
    let _ = writeln!(text, "{:width$}  EXPECTED  GIVEN   MESSAGE", "CASE");
    for a in answered {
        let mark = if a.expected == a.given { ' ' } else { '!' };
        let _ = writeln!(text, "{:width$}  {:8}  {:6}{mark} {}", a.name, word(a.expected), word(a.given), a.message);
    }
    let (low, high) = figures.false_pass_interval();
    let kappa = figures.kappa.map_or("-".into(), |k| format!("{k:.3}"));
    let _ = writeln!(text, "\nagreement    {:.3} ({} of {} cases)", figures.share(), figures.agreed, figures.cases);
    let _ = writeln!(text, "kappa        {kappa}");
    let _ = match figures.must_not_pass {
        0 => writeln!(text, "false pass   not known: no case expects FAIL or UNSURE"),
        n => writeln!(
            text,
            "false pass   {:.3} ({} of {n}; 95 % interval {low:.3} to {high:.3})",
            figures.false_pass(),
            figures.false_passes
        ),
    };
    let _ = writeln!(
        text,
        "\nrequires:\n  record: {{hash: \"{}\", cases: {}, agreement: {}, falsePass: {}}}",
        record.hash, record.cases, record.agreement, record.false_pass
    );
    text
}

fn as_json(answered: &[Answered], figures: &Agreement, record: &EvalRecord) -> Value {
    let (low, high) = figures.false_pass_interval();
    let judged = || answered.iter().filter_map(|a| a.judgement.as_ref());
    let cases: Vec<Value> = answered
        .iter()
        .map(|a| json!({"name": a.name, "expected": a.expected, "given": a.given, "message": a.message, "record": a.judgement.as_ref().map(|j| &j.record)}))
        .collect();
    json!({
        "cases": cases,
        "agreement": figures.share(),
        "kappa": figures.kappa,
        "falsePass": {"rate": figures.false_pass(), "count": figures.false_passes, "of": figures.must_not_pass, "low": low, "high": high},
        "errors": answered.iter().filter(|a| a.given == Vote::Invalid).count(),
        "tokens": {"input": judged().map(|j| j.record.tokens.input).sum::<i64>(), "output": judged().map(|j| j.record.tokens.output).sum::<i64>()},
        "microDollars": judged().filter_map(|j| j.record.micro_dollars).sum::<i64>(),
        "record": record,
    })
}

/// The API key, whatever Secret the gate names.
struct KeyFromEnvironment(Option<String>);

impl SecretReader for KeyFromEnvironment {
    fn read<'a>(&'a self, _namespace: &'a str, _secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        let key = self.0.clone().ok_or_else(|| SourceError::new(format!("the gate has an apiKey: put it into the variable {KEY}")));
        Box::pin(std::future::ready(key))
    }
}

/// Cases bring their evidence along.
struct NoLogs;

impl LogReader for NoLogs {
    fn pod_logs<'a>(&'a self, _query: LogQuery<'a>) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        Box::pin(std::future::ready(Err(SourceError::new("there are no pods here"))))
    }
}

#[cfg(test)]
mod tests;
