//! The evidence bundle: built by us, the same for the same facts, equal shares for both arms.

use futures::future::{try_join, try_join_all};
use serde_json::{Value, json};

use super::digest::{self, Digest};
use super::logs::{LogQuery, LogReader};
use super::shares::{clip, first, newest, newest_of_all, size};
use super::traces;
use crate::api::analysis::{Evidence, EvidenceLogs, EvidenceMetric};
use crate::api::run::Explains;
use crate::core::judge::metrics;
use crate::sources::http::Http;
use crate::sources::prometheus::{self, Reading};
use crate::sources::redact::{self, Known};
use crate::sources::secrets::Vault;
use crate::sources::{ArgValue, OtherGate, Request, SourceError};

/// Longest log line that is shown, in bytes.
const MAX_LINE: usize = 2000;
/// Longest text of another gate that is shown.
const MAX_TEXT: usize = 300;
/// Room that is kept for what the letters of a vote add.
const SLACK: usize = 1000;

/// One side of the comparison.
#[derive(Clone, Copy)]
struct Arm<'a> {
    name: &'static str,
    revision: &'a str,
}

/// Lines by pod.
type Pods = Vec<(String, Vec<String>)>;

/// What came of the logs, before it is cut to fit.
#[derive(Default)]
struct Logs {
    /// Newest lines by pod, stable and canary.
    newest: Option<[Pods; 2]>,
    /// Kinds of lines and transcripts.
    digest: Option<digest::Summary>,
}

/// Collects what the gate asks for, in at most `room` bytes. Anything of it that is missing is an error: a judge without
/// evidence would guess.
pub(super) async fn collect(
    http: &Http,
    vault: &Vault<'_>,
    logs: &dyn LogReader,
    request: &Request,
    wanted: &Evidence,
    room: usize,
) -> Result<Value, SourceError> {
    let arms = [Arm { name: "stable", revision: &request.stable_revision }, Arm { name: "canary", revision: &request.revision }];
    let asked = metrics::metrics(wanted);
    let comparing = !asked.is_empty() || wanted.logs.is_some() || wanted.traces.is_some();
    if comparing && arms.iter().any(|a| a.revision.is_empty()) {
        return Err(SourceError::new("judge evidence: there is no stable revision to compare with"));
    }
    let metrics = try_join_all(asked.iter().map(|m| metric(http, vault, request, m, arms))).await?;
    let found = match &wanted.logs {
        None => Logs::default(),
        Some(l) => both_logs(logs, vault, request, l, arms).await?,
    };
    let traced = match &wanted.traces {
        None => None,
        Some(t) => {
            let arm = async |a: Arm<'_>| {
                let read = traces::arm(http, vault, request, t, a.revision).await;
                read.map_err(|e| SourceError {
                    message: format!("judge evidence: traces of the {} revision {}: {e}", a.name, a.revision),
                    ..e
                })
            };
            let [stable, canary] = arms;
            let (stable, canary) = try_join(arm(stable), arm(canary)).await?;
            Some((t, [stable, canary]))
        }
    };
    let known = vault.known();
    let gates: Vec<Value> = request.others.iter().map(|g| gate(g, &known)).collect();
    let mut base = json!({
        "revisions": {"stable": request.stable_revision, "canary": request.revision},
        "metrics": metrics,
        "gates": gates,
    });
    if let Some(explains) = &request.explains {
        base["abort"] = abort(explains, &known);
    }
    if let Some((wanted, arms)) = traced {
        // What is left of the room goes to log lines.
        let most = room.saturating_sub(size(&base) + SLACK) * 3 / 10;
        base["traces"] = traces::shown(wanted, &arms, &known, most);
    }
    fit(base, found, wanted.logs.as_ref(), room)
}

/// Adds what fits: kinds of lines get up to four tenths of the room that metrics and gates leave, transcripts up to half
/// of what is left then, and the newest lines the rest, both arms the same.
fn fit(mut bundle: Value, found: Logs, wanted: Option<&EvidenceLogs>, room: usize) -> Result<Value, SourceError> {
    let taken = size(&bundle) + SLACK;
    let Some(mut left) = room.checked_sub(taken) else {
        return Err(SourceError::new(format!(
            "judge evidence: metrics, traces and gates alone have {taken} bytes, more than maxInputTokens leaves ({room}); raise it"
        )));
    };
    let Some(wanted) = wanted else { return Ok(bundle) };
    if let Some(digest) = found.digest {
        if let Some(templates) = &wanted.templates {
            let calls = calls(&bundle["metrics"]);
            let most = left * 4 / 10;
            let shown = digest.templates(calls, usize::try_from(templates.show).unwrap_or(0));
            let (kept, left_out) = first(shown.kinds, most.saturating_sub(200));
            let lines = json!({"stable": shown.lines[0], "canary": shown.lines[1]});
            bundle["logTemplates"] = json!({"countedBy": shown.per, "lines": lines, "differing": kept, "leftOut": left_out});
            left = left.saturating_sub(size(&bundle["logTemplates"]));
        }
        if wanted.transcripts.is_some() {
            let [stable, canary] = digest.transcripts();
            let each = (left / 4).saturating_sub(50);
            let (stable, canary) = (first(stable, each).0, first(canary, each).0);
            bundle["transcripts"] = json!({"stable": stable, "canary": canary});
            left = left.saturating_sub(size(&bundle["transcripts"]));
        }
    }
    if let Some([stable, canary]) = found.newest {
        // Frames of the pods' lists.
        let frames = 100 + 16 * (stable.len() + canary.len());
        let each = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left.saturating_sub(frames) / 2);
        bundle["logs"] = json!({"stable": newest_of_all(stable, each), "canary": newest_of_all(canary, each)});
    }
    Ok(bundle)
}

/// Numbers of calls of stable and canary, from the first metric that has them.
fn calls(metrics: &Value) -> Option<[f64; 2]> {
    let of = |m: &Value| Some([m["stable"]["calls"].as_f64()?, m["canary"]["calls"].as_f64()?]);
    metrics.as_array()?.iter().find_map(of).filter(|c| c.iter().all(|n| *n > 0.0))
}

/// Both arms' values of a metric.
async fn metric(
    http: &Http,
    vault: &Vault<'_>,
    request: &Request,
    metric: &EvidenceMetric,
    [stable, canary]: [Arm<'_>; 2],
) -> Result<Value, SourceError> {
    let arm = |arm| arm_metric(http, vault, request, metric, arm);
    let ((stable, stable_calls), (canary, canary_calls)) = try_join(arm(stable), arm(canary)).await?;
    let mut out = json!({
        "name": redact::line(&metric.name, 63),
        "stable": {"value": prometheus::number(stable)},
        "canary": {"value": prometheus::number(canary)},
    });
    if let Some(unit) = &metric.unit {
        out["unit"] = redact::line(unit, 32).into();
    }
    if let (Some(s), Some(c)) = (stable_calls, canary_calls) {
        out["stable"]["calls"] = prometheus::number(s);
        out["canary"]["calls"] = prometheus::number(c);
    }
    Ok(out)
}

/// One arm's value of a metric and the number of calls behind it.
async fn arm_metric(
    http: &Http,
    vault: &Vault<'_>,
    request: &Request,
    metric: &EvidenceMetric,
    arm: Arm<'_>,
) -> Result<(f64, Option<f64>), SourceError> {
    let mut args = request.args.clone();
    args.insert("revision".into(), ArgValue { text: arm.revision.to_owned(), secret: false });
    let ask = async |what: &str, promql: &str| {
        let place = format!("judge evidence: {what} of metric {:?}, {} revision {}", metric.name, arm.name, arm.revision);
        match prometheus::query(http, vault, &metric.prometheus, promql, &args, false).await {
            Ok(Reading::Numbers(numbers)) => numbers.first().copied().ok_or_else(|| SourceError::new(format!("{place}: no number"))),
            Ok(Reading::NoData(why)) => Err(SourceError::new(format!("{place}: {why}"))),
            Err(e) => Err(SourceError { message: format!("{place}: {e}"), ..e }),
        }
    };
    let value = ask("value", &metric.prometheus.query).await?;
    let calls = match &metric.count_query {
        None => None,
        Some(query) => Some(ask("countQuery", query).await?),
    };
    Ok((value, calls))
}

/// What another gate found.
fn gate(gate: &OtherGate, known: &Known) -> Value {
    let clean = |text: &str| redact::line(&redact::redact(text, known), MAX_TEXT);
    let mut out = json!({
        "name": redact::line(&gate.name, 63),
        "verdict": gate.verdict.map_or_else(|| json!("undecided"), |v| json!(v)),
        "value": gate.value.as_deref().map(clean),
        "message": clean(&gate.message),
    });
    if let Some(n) = gate.measurements {
        out["measurements"] = n.into();
    }
    out
}

/// What is to be explained.
fn abort(explains: &Explains, known: &Known) -> Value {
    let clean = |text: &str| redact::line(&redact::redact(text, known), MAX_TEXT);
    json!({"gate": redact::line(&explains.gate, 63), "reason": clean(&explains.reason)})
}

/// Newest lines of both arms, and what the digest makes of more of them.
async fn both_logs(
    logs: &dyn LogReader,
    vault: &Vault<'_>,
    request: &Request,
    wanted: &EvidenceLogs,
    [stable, canary]: [Arm<'_>; 2],
) -> Result<Logs, SourceError> {
    let newest = try_join(arm_logs(logs, vault, request, wanted, stable), arm_logs(logs, vault, request, wanted, canary)).await?;
    let Some((mut digest, tail, bytes)) = Digest::new(wanted, vault.known()) else {
        return Ok(Logs { newest: Some([newest.0, newest.1]), digest: None });
    };
    // One after the other: what becomes of a line depends on those before it.
    for (index, arm) in [stable, canary].into_iter().enumerate() {
        let query = query(request, wanted, arm, tail);
        let mut sink = |line: &str| digest.line(index, line);
        let read = logs.stream(query, bytes, &mut sink).await.map_err(|e| named(e, arm))?;
        digest.read(read);
    }
    Ok(Logs { newest: Some([newest.0, newest.1]), digest: Some(digest.finish()?) })
}

fn query<'a>(request: &'a Request, wanted: &'a EvidenceLogs, arm: Arm<'a>, tail: i32) -> LogQuery<'a> {
    LogQuery {
        namespace: &request.namespace,
        rollout: &request.rollout,
        revision: arm.revision,
        container: wanted.container.as_deref(),
        tail: i64::from(tail),
    }
}

fn named(e: SourceError, arm: Arm<'_>) -> SourceError {
    SourceError { message: format!("judge evidence: logs of the {} revision {}: {e}", arm.name, arm.revision), ..e }
}

/// One arm's redacted log lines by pod.
async fn arm_logs(
    logs: &dyn LogReader,
    vault: &Vault<'_>,
    request: &Request,
    wanted: &EvidenceLogs,
    arm: Arm<'_>,
) -> Result<Pods, SourceError> {
    let found = logs.pod_logs(query(request, wanted, arm, wanted.tail_lines)).await.map_err(|e| named(e, arm))?;
    if found.is_empty() {
        return Err(named(SourceError::new("no pod with a started container"), arm));
    }
    let known = vault.known();
    let budget = usize::try_from(wanted.max_bytes).unwrap_or(0);
    let clean = |(pod, text): (String, String)| {
        // No pod can fill more than the whole budget.
        let clean = redact::redact(newest(&text, budget), &known);
        (pod, clean.lines().filter(|l| !l.trim().is_empty()).map(|l| clip(l, MAX_LINE)).collect())
    };
    Ok(found.into_iter().map(clean).collect())
}
