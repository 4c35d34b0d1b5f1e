//! `get`: VoiceRollouts as a table.

use jiff::Timestamp;
use kube::ResourceExt;

use super::status_view::span;
use super::table::{Cell, Ink, Paint, rows};
use crate::api::VoiceRollout;
use crate::api::status::Phase;

/// Which columns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// The namespace, first.
    pub namespace: bool,
    /// Stable revision, live calls and message.
    pub wide: bool,
}

/// A line of titles, and one for each rollout.
pub fn render(rollouts: &[&VoiceRollout], columns: Columns, now: Timestamp, paint: Paint) -> Vec<String> {
    let titles = titles(columns).into_iter().map(|t| Cell::new(Ink::Bold, t)).collect();
    let table: Vec<Vec<Cell>> = std::iter::once(titles).chain(rollouts.iter().map(|r| row(r, columns, now))).collect();
    rows(paint, &table.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn titles(columns: Columns) -> Vec<&'static str> {
    let mut all = vec!["NAME", "PHASE", "STEP", "WEIGHT", "CANARY", "AGE", "WAITS FOR"];
    if columns.wide {
        all.splice(5..5, ["STABLE", "CALLS"]);
        all.push("MESSAGE");
    }
    if columns.namespace {
        all.insert(0, "NAMESPACE");
    }
    all
}

/// The colour of a phase.
pub fn phase_ink(phase: Phase) -> Ink {
    match phase {
        Phase::Healthy => Ink::Green,
        Phase::Degraded | Phase::Invalid => Ink::Red,
        Phase::Paused | Phase::Reverting => Ink::Yellow,
        Phase::Pending | Phase::Initializing | Phase::Progressing | Phase::Promoting => Ink::Cyan,
    }
}

fn row(rollout: &VoiceRollout, columns: Columns, now: Timestamp) -> Vec<Cell> {
    let status = rollout.status.clone().unwrap_or_default();
    let dash = |text: Option<String>| Cell::from(text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".into()));
    let phase = if rollout.status.is_some() { format!("{:?}", status.phase) } else { "-".into() };
    let age = rollout.creation_timestamp().map(|at| span(now.duration_since(at.0)));
    let mut all = vec![
        rollout.name_any().into(),
        Cell::new(phase_ink(status.phase), phase),
        dash(Some(status.step_display)),
        format!("{} %", status.weights.applied).into(),
        dash(status.canary_revision),
        dash(age),
    ];
    if columns.wide {
        all.splice(5..5, [dash(status.stable_revision), dash(Some(status.live_calls))]);
        // A cell of its own that may be empty, so that the message does not move.
        all.push(dash(Some(status.waiting_for)));
        all.push(status.message.into());
    } else {
        all.push(status.waiting_for.into());
    }
    if columns.namespace {
        all.insert(0, rollout.namespace().unwrap_or_default().into());
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollouts() -> Vec<VoiceRollout> {
        let rollout = |name: &str, status: serde_json::Value| -> VoiceRollout {
            serde_json::from_value(json!({
                "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout",
                "metadata": {"name": name, "namespace": "voice", "creationTimestamp": "2026-02-27T12:00:00Z"},
                "spec": {"selector": {}, "template": {}, "traffic": {}}, "status": status,
            }))
            .unwrap()
        };
        let fine = json!({"phase": "Healthy", "stepDisplay": "10/10", "stableRevision": "5b7c9d2e11", "canaryRevision": "5b7c9d2e11"});
        let waits = "gate p95-first-token: data since the weight change, 2m20s of 5m15s";
        let mut new = rollout("new", json!({}));
        new.status = None;
        vec![
            rollout("billing-agent", fine),
            rollout(
                "voice-agent",
                json!({"phase": "Progressing", "stepDisplay": "3/10", "weights": {"desired": 5, "applied": 5}, "waitingFor": waits,
                    "stableRevision": "5b7c9d2e11", "canaryRevision": "6d5f8c0a42", "liveCalls": "v7: 3, v6: 40", "message": "analysis runs"}),
            ),
            new,
        ]
    }

    fn shown(columns: Columns, width: Option<usize>) -> String {
        let (all, now) = (rollouts(), crate::cli::samples::now());
        render(&all.iter().collect::<Vec<_>>(), columns, now, Paint { colour: false, width }).join("\n")
    }

    #[test]
    fn the_list_fits_narrow_and_wide_terminals() {
        insta::assert_snapshot!("list_140", shown(Columns::default(), Some(140)));
        insta::assert_snapshot!("list_60", shown(Columns::default(), Some(60)));
        insta::assert_snapshot!("list_of_all_namespaces_wide", shown(Columns { namespace: true, wide: true }, None));
    }
}
