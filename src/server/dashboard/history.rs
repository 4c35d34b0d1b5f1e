//! What charts show of the recent past: a bounded number of points a rollout, in memory only.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::VoiceAnalysisRun;
use crate::api::run::{ArmCalls, GateStatus, RunKind};
use crate::api::status::{Phase, Role, VoiceRolloutStatus};

/// Most points of a series. When it is full, every second one goes: the whole release stays visible.
const POINTS: usize = 240;
/// Most series of gates a rollout.
const SERIES: usize = 12;

/// Points in the order of their times, in seconds of Unix time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<T> {
    points: Vec<(i64, T)>,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self { points: Vec::new() }
    }
}

impl<T: PartialEq> Series<T> {
    /// Adds a point. One that says the same as the two before it moves the newer of them; one that is not newer than the
    /// newest takes its place.
    pub fn add(&mut self, at: i64, point: T) {
        if self.points.last().is_some_and(|(last, _)| at <= *last) {
            self.points.pop();
        }
        let same = self.points.iter().rev().take(2).filter(|(_, old)| *old == point).count();
        if same == 2 {
            self.points.pop();
        }
        if self.points.len() >= POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.points.push((at, point));
    }
}

/// Weights and live calls at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    weight: i32,
    /// Revision number, role, live calls; `None`: not counted.
    live: Vec<(i64, Role, Option<i64>)>,
}

/// What a gate has counted up to a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Calls of both arms, and the evidence against the canary (natural logarithms).
    Counts {
        /// The canary's.
        canary: ArmCalls,
        /// Stable's, where the gate looks at them.
        stable: Option<ArmCalls>,
        /// Evidence, and where it aborts.
        evidence: [f32; 2],
    },
    /// A number against conditions.
    Value(f64),
}

/// The recent past of one rollout. It begins anew with each revision and attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    release: (String, i32),
    moments: Series<Moment>,
    gates: BTreeMap<String, Series<Found>>,
}

impl History {
    /// Whether there is something to follow: a release, or calls that drain.
    pub fn wanted(status: &VoiceRolloutStatus) -> bool {
        let draining = status.revisions.iter().any(|r| r.role == Role::Draining && r.replicas > 0);
        draining || !matches!(status.phase, Phase::Healthy | Phase::Pending | Phase::Initializing)
    }

    /// Takes in a status.
    pub fn see(&mut self, at: i64, status: &VoiceRolloutStatus) {
        let release = (status.canary_revision.clone().unwrap_or_default(), status.attempt);
        if self.release != release {
            *self = Self { release, ..Self::default() };
        }
        let live = |r: &crate::api::status::RevisionStatus| (r.number, r.role, r.live_calls);
        let live = status.revisions.iter().filter(|r| r.role != Role::Retired).map(live).collect();
        self.moments.add(at, Moment { weight: status.weights.applied, live });
    }

    /// Takes in a run of the same release.
    pub fn take(&mut self, at: i64, run: &VoiceAnalysisRun) {
        let ours = self.release == (run.spec.revision.clone(), run.spec.attempt) && run.spec.kind != RunKind::Explanation;
        let gates = run.status.as_ref().filter(|_| ours).map(|status| status.gates.as_slice()).unwrap_or_default();
        for gate in gates {
            let Some((at, found)) = found(gate, at) else { continue };
            if self.gates.len() < SERIES || self.gates.contains_key(&gate.name) {
                let series = self.gates.entry(gate.name.clone()).or_default();
                if series.points.last().is_none_or(|(last, old)| at > *last && *old != found) {
                    series.add(at, found);
                }
            }
        }
    }

    /// As the page reads it.
    pub fn json(&self) -> Value {
        let moment = |(at, m): &(i64, Moment)| {
            let live: Vec<_> = m.live.iter().map(|(number, role, calls)| json!([number, role, calls])).collect();
            json!({"t": at, "weight": m.weight, "live": live})
        };
        let gates: Vec<_> = self
            .gates
            .iter()
            .map(|(name, series)| json!({"name": name, "points": series.points.iter().map(point).collect::<Vec<_>>()}))
            .collect();
        json!({"moments": self.moments.points.iter().map(moment).collect::<Vec<_>>(), "gates": gates})
    }
}

fn point((at, found): &(i64, Found)) -> Value {
    match found {
        Found::Counts { canary, stable, evidence } => {
            json!({"t": at, "canary": canary, "stable": stable, "evidence": evidence[0], "line": evidence[1]})
        }
        Found::Value(value) => json!({"t": at, "value": value}),
    }
}

#[allow(clippy::cast_possible_truncation)] // for a picture
fn found(gate: &GateStatus, at: i64) -> Option<(i64, Found)> {
    if let Some(c) = &gate.comparison {
        let at = c.data_at.as_ref().map_or(at, |t| t.0.as_second());
        let evidence = [c.log_evidence as f32, c.log_abort_line as f32];
        return Some((at, Found::Counts { canary: c.canary, stable: c.stable, evidence }));
    }
    let newest = gate.measurements.last()?;
    let value = newest.value.as_deref()?.trim_matches(['[', ']']).parse::<f64>().ok().filter(|v| v.is_finite())?;
    Some((newest.finished_at.0.as_second(), Found::Value(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_stays_within_its_bound_and_keeps_both_ends() {
        let mut series = Series::default();
        for at in 0..10_000 {
            series.add(at, at);
        }
        assert!(series.points.len() <= POINTS && series.points.len() >= POINTS / 2, "{}", series.points.len());
        assert_eq!((series.points[0], series.points.last()), ((0, 0), Some(&(9999, 9999))));
        assert!(series.points.is_sorted());
    }

    #[test]
    fn what_stays_the_same_takes_two_points() {
        let mut series = Series::default();
        for (at, value) in [(0, 5), (1, 5), (2, 5), (3, 25), (3, 50), (4, 50), (5, 50)] {
            series.add(at, value);
        }
        assert_eq!(series.points, [(0, 5), (2, 5), (3, 50), (5, 50)]);
    }
}
