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
