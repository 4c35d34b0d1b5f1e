//! The evidence bundle: built by us, the same for the same facts, equal shares for both arms.

use futures::future::{try_join, try_join_all};
use serde_json::{Value, json};

use super::logs::LogReader;
use crate::api::analysis::{Evidence, EvidenceLogs, EvidenceMetric};
use crate::sources::http::Http;
use crate::sources::prometheus::{self, Reading};
use crate::sources::redact::{self, Known};
use crate::sources::secrets::Vault;
use crate::sources::{ArgValue, OtherGate, Request, SourceError};

/// Longest log line that is shown, in bytes.
const MAX_LINE: usize = 2000;
/// Longest text of another gate that is shown.
const MAX_TEXT: usize = 300;

/// One side of the comparison.
#[derive(Clone, Copy)]
struct Arm<'a> {
    name: &'static str,
    revision: &'a str,
}

/// Collects what the gate asks for. Anything of it that is missing is an error: a judge without evidence would guess.
pub(super) async fn collect(
    http: &Http,
    vault: &Vault<'_>,
    logs: &dyn LogReader,
    request: &Request,
    wanted: &Evidence,
) -> Result<Value, SourceError> {
    let stable = Arm { name: "stable", revision: &request.stable_revision };
    let canary = Arm { name: "canary", revision: &request.revision };
    let comparing = !wanted.metrics.is_empty() || wanted.logs.is_some();
    if comparing && (stable.revision.is_empty() || canary.revision.is_empty()) {
        return Err(SourceError::new("judge evidence: there is no stable revision to compare with"));
    }
    let metrics = try_join_all(wanted.metrics.iter().map(|m| metric(http, vault, request, m, stable, canary))).await?;
    let lines = match &wanted.logs {
        None => None,
        Some(l) => Some(try_join(arm_logs(logs, vault, request, l, stable), arm_logs(logs, vault, request, l, canary)).await?),
    };
    let known = vault.known();
    let gates: Vec<Value> = request.others.iter().map(|g| gate(g, &known)).collect();
    let mut bundle = json!({
        "revisions": {"stable": stable.revision, "canary": canary.revision},
        "metrics": metrics,
        "gates": gates,
    });
    if let Some((stable, canary)) = lines {
        bundle["logs"] = json!({"stable": stable, "canary": canary});
    }
    Ok(bundle)
}

/// Both arms' values of a metric, and what lies between them.
async fn metric(
    http: &Http,
    vault: &Vault<'_>,
    request: &Request,
    metric: &EvidenceMetric,
    stable: Arm<'_>,
    canary: Arm<'_>,
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
    let change = canary - stable;
    if change.is_finite() {
        out["change"] = prometheus::number(change);
        let percent = (1000.0 * change / stable.abs()).round() / 10.0;
        if percent.is_finite() {
            out["changePercent"] = prometheus::number(percent);
        }
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
    json!({
        "name": gate.name,
        "verdict": gate.verdict.map_or_else(|| json!("undecided"), |v| json!(v)),
        "value": gate.value.as_deref().map(clean),
        "message": clean(&gate.message),
        "measurements": gate.measurements,
    })
}

/// One arm's redacted log lines by pod.
async fn arm_logs(
    logs: &dyn LogReader,
    vault: &Vault<'_>,
    request: &Request,
    wanted: &EvidenceLogs,
    arm: Arm<'_>,
) -> Result<Value, SourceError> {
    let place = format!("judge evidence: logs of the {} revision {}", arm.name, arm.revision);
    let found = logs
        .pod_logs(&request.namespace, &request.rollout, arm.revision, wanted.container.as_deref(), i64::from(wanted.tail_lines))
        .await
        .map_err(|e| SourceError { message: format!("{place}: {e}"), ..e })?;
    if found.is_empty() {
        return Err(SourceError::new(format!("{place}: no pod with a started container")));
    }
    let known = vault.known();
    let budget = usize::try_from(wanted.max_bytes).unwrap_or(0);
    let pods: Vec<(String, Vec<String>)> = found
        .into_iter()
        .map(|(pod, text)| {
            // No pod can fill more than the whole budget.
            let clean = redact::redact(newest(&text, budget), &known);
            (pod, clean.lines().filter(|l| !l.trim().is_empty()).map(|l| clip(l, MAX_LINE)).collect())
        })
        .collect();
    Ok(share(pods, budget))
}

/// Keeps the newest lines of all pods, in turns, until `budget` bytes are used.
fn share(mut pods: Vec<(String, Vec<String>)>, budget: usize) -> Value {
    pods.sort();
    let total: usize = pods.iter().map(|(_, lines)| lines.len()).sum();
    let mut keep = vec![0_usize; pods.len()];
    let mut left = budget;
    let mut more = true;
    while more {
        more = false;
        for (i, (_, lines)) in pods.iter().enumerate() {
            let Some(line) = lines.len().checked_sub(keep[i] + 1).and_then(|at| lines.get(at)) else { continue };
            if line.len() < left {
                left -= line.len() + 1;
                keep[i] += 1;
                more = true;
            }
        }
    }
    let kept: usize = keep.iter().sum();
    let shown: Vec<Value> =
        pods.iter().zip(&keep).map(|((pod, lines), keep)| json!({"pod": pod, "lines": &lines[lines.len() - keep..]})).collect();
    json!({"pods": shown, "linesLeftOut": total - kept})
}

/// The last lines of a text that begin within its last `max` bytes; a longer last line is given whole.
fn newest(text: &str, max: usize) -> &str {
    let from = (0..=text.len().saturating_sub(max)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    match text[from..].trim_end().find('\n') {
        Some(end) if from > 0 => &text[from + end + 1..],
        _ => &text[text[..from].rfind('\n').map_or(0, |i| i + 1)..],
    }
}

/// A line of at most `max` bytes.
fn clip(line: &str, max: usize) -> String {
    if line.len() <= max {
        return line.to_owned();
    }
    let end = (0..=max).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    format!("{}…", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(n: usize, text: &str) -> Vec<String> {
        (0..n).map(|i| format!("{text}{i}")).collect()
    }

    #[test]
    fn the_newest_lines_of_every_pod_share_the_budget() {
        let pods = vec![("b".to_owned(), lines(100, "busy ")), ("a".to_owned(), lines(2, "calm "))];
        let shown = share(pods.clone(), 60);
        assert_eq!(shown["pods"][0], json!({"pod": "a", "lines": ["calm 0", "calm 1"]}));
        let busy: Vec<&str> = shown["pods"][1]["lines"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        assert_eq!(busy.last(), Some(&"busy 99"));
        let used: usize = busy.iter().map(|l| l.len() + 1).sum::<usize>() + 14;
        assert!(used <= 60 && used > 50, "{used}");
        assert_eq!(shown["linesLeftOut"], 102 - 2 - busy.len());
        let mut reversed = pods;
        reversed.reverse();
        assert_eq!(share(reversed, 60), shown, "the order of the pods does not matter");
        assert_eq!(share(vec![("a".into(), lines(3, "x"))], 1)["linesLeftOut"], 3);
    }

    #[test]
    fn only_whole_lines_are_taken() {
        assert_eq!(newest("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(newest("one\ntwo\nthree\n", 8), "three\n");
        assert_eq!(newest("one\nlonger\n", 3), "longer\n");
    }

    #[test]
    fn long_lines_are_clipped_between_characters() {
        assert_eq!(clip("ééé", 3), "é…");
        assert_eq!(clip("abc", 3), "abc");
    }
}
