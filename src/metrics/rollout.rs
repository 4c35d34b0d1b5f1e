//! Series of the rollouts: written from their latest states at each scrape, so that nothing of an older state stays.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;

use crate::api::run::{ArmCalls, Comparison, RunKind, RunPhase, Verdict, VoiceAnalysisRunStatus};
use crate::api::status::{Phase, VoiceRolloutStatus};
use crate::api::{VoiceAnalysisRun, VoiceRollout};

/// Namespace and name.
pub(super) type Id = (String, String);

/// Latest states of the rollouts.
#[derive(Debug, Default)]
pub struct RolloutMetrics {
    states: Mutex<BTreeMap<Id, State>>,
    /// What gates that count calls have found, by gate.
    counts: Mutex<BTreeMap<Id, BTreeMap<String, Comparison>>>,
}

#[derive(Debug)]
struct State {
    phase: &'static str,
    step: Option<i32>,
    desired: i32,
    applied: i32,
    gates: BTreeMap<String, GateState>,
    /// Findings of the preflight, by code.
    findings: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct GateState {
    value: Option<f64>,
    verdict: Option<&'static str>,
}

impl RolloutMetrics {
    /// Takes over what the status of `rollout` says.
    pub fn observe(&self, rollout: &VoiceRollout) {
        let metadata = &rollout.metadata;
        let id = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let state = rollout.status.as_ref().map_or_else(|| State::of(&VoiceRolloutStatus::default()), State::of);
        self.states.lock().insert(id, state);
    }

    /// The rollout is gone, and so are its series.
    pub fn forget(&self, namespace: &str, name: &str) {
        let id = (namespace.to_owned(), name.to_owned());
        self.states.lock().remove(&id);
        self.counts.lock().remove(&id);
    }

    /// Takes over what the gates of a run have counted; those of a run that has ended go.
    pub fn observe_run(&self, run: &VoiceAnalysisRun, status: &VoiceAnalysisRunStatus) {
        let id = (run.metadata.namespace.clone().unwrap_or_default(), run.spec.rollout.clone());
        let mut counts = self.counts.lock();
        let of = counts.entry(id.clone()).or_default();
        for gate in &status.gates {
            match gate.comparison.as_ref().filter(|_| status.phase == RunPhase::Running) {
                Some(known) => drop(of.insert(gate.name.clone(), Comparison { pass: Vec::new(), ..known.clone() })),
                None => drop(of.remove(&gate.name)),
            }
        }
        if of.is_empty() {
            counts.remove(&id);
        }
    }
}

impl State {
    fn of(status: &VoiceRolloutStatus) -> Self {
        let mut gates = BTreeMap::new();
        // Where a step's gate is called like one in the background, the step's is shown.
        for kind in [RunKind::Background, RunKind::Step] {
            for gate in status.gates.iter().filter(|gate| gate.kind == kind) {
                let state = GateState { value: gate.value.as_deref().and_then(number), verdict: gate.verdict.map(verdict_name) };
                gates.insert(gate.name.clone(), state);
            }
        }
        let mut findings = BTreeMap::new();
        for finding in &status.preflight {
            *findings.entry(finding.code.clone()).or_default() += 1;
        }
        Self {
            phase: phase_name(status.phase),
            step: step_shown(status),
            desired: status.weights.desired,
            applied: status.weights.applied,
            gates,
            findings,
        }
    }
}

/// The step as the STEP column shows it.
fn step_shown(status: &VoiceRolloutStatus) -> Option<i32> {
    let shown = status.step_display.split('/').next().and_then(|n| n.trim().parse().ok());
    shown.or(status.current_step.map(|step| step.saturating_add(1)))
}

fn number(value: &str) -> Option<f64> {
    value.trim().parse().ok().filter(|v: &f64| v.is_finite())
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Initializing => "Initializing",
        Phase::Invalid => "Invalid",
        Phase::Healthy => "Healthy",
        Phase::Progressing => "Progressing",
        Phase::Paused => "Paused",
        Phase::Promoting => "Promoting",
        Phase::Reverting => "Reverting",
        Phase::Degraded => "Degraded",
    }
}

pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "Pass",
        Verdict::Fail => "Fail",
        Verdict::Inconclusive => "Inconclusive",
        Verdict::Error => "Error",
    }
}

impl Collector for RolloutMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let states = self.states.lock();
        let mut gauge = |name: &str, help: &str, write: &dyn Fn(&mut MetricEncoder, &Id, &State) -> fmt::Result| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            states.iter().try_for_each(|(id, state)| write(&mut metric, id, state))
        };
        gauge("phase", "1 for the phase that the rollout is in", &|m, (namespace, name), state| {
            sample(m, &[("namespace", namespace), ("rollout", name), ("phase", state.phase)], &1)
        })?;
        gauge("step", "Current step, counting from 1", &|m, (namespace, name), state| match state.step {
            Some(step) => sample(m, &[("namespace", namespace), ("rollout", name)], &step),
            None => Ok(()),
        })?;
        gauge("weight_desired", "Canary weight that the routes should have, in percent", &|m, (namespace, name), state| {
            sample(m, &[("namespace", namespace), ("rollout", name)], &state.desired)
        })?;
        gauge("weight_applied", "Highest canary weight that a route was seen to have, in percent", &|m, (namespace, name), state| {
            sample(m, &[("namespace", namespace), ("rollout", name)], &state.applied)
        })?;
        gauge("gate_value", "Latest value of the gate", &|m, (namespace, name), state| {
            state
                .gates
                .iter()
                .filter_map(|(gate, s)| Some((gate, s.value?)))
                .try_for_each(|(gate, value)| sample(m, &[("namespace", namespace), ("rollout", name), ("gate", gate)], &value))
        })?;
        gauge("gate_verdict", "1 for the verdict of the gate", &|m, (namespace, name), state| {
            state.gates.iter().filter_map(|(gate, s)| Some((gate, s.verdict?))).try_for_each(|(gate, verdict)| {
                sample(m, &[("namespace", namespace), ("rollout", name), ("gate", gate), ("verdict", verdict)], &1)
            })
        })?;
        gauge("preflight_findings", "Things found that would cut live calls", &|m, (namespace, name), state| {
            state.findings.iter().try_for_each(|(code, n)| sample(m, &[("namespace", namespace), ("rollout", name), ("code", code)], n))
        })?;
        drop(states);
        self.encode_counts(&mut encoder)
    }
}

/// Namespace, rollout and gate.
type GateLabels<'a> = [(&'a str, &'a str); 3];
/// Writes a gate's sample.
type WriteOne<'f> = dyn Fn(&mut MetricEncoder, GateLabels<'_>, &Comparison) -> fmt::Result + 'f;

impl RolloutMetrics {
    fn encode_counts(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let counts = self.counts.lock();
        let mut gauge = |name: &str, help: &str, write: &WriteOne<'_>| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            counts.iter().try_for_each(|((namespace, rollout), gates)| {
                gates
                    .iter()
                    .try_for_each(|(gate, c)| write(&mut metric, [("namespace", namespace), ("rollout", rollout), ("gate", gate)], c))
            })
        };
        let arms = |m: &mut MetricEncoder, [a, b, c]: GateLabels<'_>, known: &Comparison, of: fn(&ArmCalls) -> i64| {
            sample(m, &[a, b, c, ("arm", "canary")], &of(&known.canary))?;
            known.stable.iter().try_for_each(|stable| sample(m, &[a, b, c, ("arm", "stable")], &of(stable)))
        };
        gauge("gate_calls", "Calls that the gate has counted", &|m, labels, c| arms(m, labels, c, |a| a.calls))?;
        gauge("gate_bad_calls", "Bad ones among them", &|m, labels, c| arms(m, labels, c, |a| a.bad))?;
        gauge("gate_log_evidence", "Natural logarithm of the evidence against the canary", &|m, labels, c| {
            sample(m, &labels, &c.log_evidence)
        })?;
        gauge("gate_log_abort_line", "Where that evidence fails the gate", &|m, labels, c| sample(m, &labels, &c.log_abort_line))?;
        gauge("gate_odds_ratio", "Odds of a bad call on the canary, divided by stable's", &|m, labels, c| {
            let ratio = c.estimate.filter(|_| c.stable.is_some());
            ratio.iter().try_for_each(|ratio| sample(m, &labels, ratio))
        })
    }
}

pub(super) fn sample(metric: &mut MetricEncoder, labels: &[(&str, &str)], value: &impl EncodeGaugeValue) -> fmt::Result {
    metric.encode_family(&Labels(labels))?.encode_gauge(value)
}

/// Labels of one sample.
#[derive(Debug)]
pub(super) struct Labels<'a>(pub(super) &'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// No labels: an exemplar has none.
pub(super) type NoLabels = Vec<(String, String)>;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::metrics::Metrics;

    fn observe(metrics: &Metrics, name: &str, status: Value) {
        let rollout = json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout",
            "metadata": {"namespace": "voice", "name": name},
            "spec": {"selector": {}, "template": {}, "traffic": {}},
            "status": status,
        });
        metrics.rollouts.observe(&serde_json::from_value(rollout).unwrap());
    }

    /// Samples of rollouts, without the namespace.
    fn samples(metrics: &Metrics) -> Vec<String> {
        let text = metrics.encode().unwrap();
        text.lines().filter(|l| l.contains("rollout=")).map(|l| l.replace("namespace=\"voice\",", "")).collect()
    }

    #[test]
    fn a_state_replaces_the_one_before_it() {
        let metrics = Metrics::new();
        let found = |code: &str| json!({"code": code, "sentence": "it cuts calls.", "fix": "take it out."});
        observe(
            &metrics,
            "agent",
            json!({
                "phase": "Progressing", "currentStep": 2, "stepDisplay": "3/10", "weights": {"desired": 25, "applied": 5},
                "gates": [
                    {"name": "p95", "kind": "Background", "value": "812.5", "verdict": "Fail"},
                    {"name": "judge", "kind": "Step", "value": "UNSURE", "verdict": "Inconclusive"},
                    {"name": "evals", "kind": "Step", "value": "NaN"},
                ],
                "preflight": [found("RouteTimeout"), found("UnmanagedRoute"), found("RouteTimeout")],
            }),
        );
        assert_eq!(
            samples(&metrics),
            [
                "voicerollout_phase{rollout=\"agent\",phase=\"Progressing\"} 1",
                "voicerollout_step{rollout=\"agent\"} 3",
                "voicerollout_weight_desired{rollout=\"agent\"} 25",
                "voicerollout_weight_applied{rollout=\"agent\"} 5",
                "voicerollout_gate_value{rollout=\"agent\",gate=\"p95\"} 812.5",
                "voicerollout_gate_verdict{rollout=\"agent\",gate=\"judge\",verdict=\"Inconclusive\"} 1",
                "voicerollout_gate_verdict{rollout=\"agent\",gate=\"p95\",verdict=\"Fail\"} 1",
                "voicerollout_preflight_findings{rollout=\"agent\",code=\"RouteTimeout\"} 2",
                "voicerollout_preflight_findings{rollout=\"agent\",code=\"UnmanagedRoute\"} 1",
            ]
        );

        observe(&metrics, "agent", json!({"phase": "Healthy", "gates": [{"name": "p95", "kind": "Step", "value": "none"}]}));
        assert_eq!(
            samples(&metrics),
            [
                "voicerollout_phase{rollout=\"agent\",phase=\"Healthy\"} 1",
                "voicerollout_weight_desired{rollout=\"agent\"} 0",
                "voicerollout_weight_applied{rollout=\"agent\"} 0",
            ]
        );
    }

    #[test]
    fn counts_of_a_run_go_with_it() {
        let metrics = Metrics::new();
        let known = json!({"canary": {"calls": 41, "bad": 7}, "stable": {"calls": 902, "bad": 31}, "estimate": 5.8,
            "logEvidence": 3.5, "logAbortLine": 4.6});
        let limit = json!({"canary": {"calls": 41, "bad": 7}, "estimate": 0.17, "logEvidence": 1.5, "logAbortLine": 4.6});
        let mut run: crate::api::VoiceAnalysisRun = serde_json::from_value(json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun", "metadata": {"namespace": "voice", "name": "r"},
            "spec": {"rollout": "agent", "rolloutUid": "u", "kind": "Background", "revision": "b", "attempt": 1, "gates": []},
            "status": {"gates": [{"name": "calls", "comparison": known}, {"name": "slo", "comparison": limit}, {"name": "p95"}]},
        }))
        .unwrap();
        let mut status = run.status.take().unwrap();
        metrics.rollouts.observe_run(&run, &status);
        assert_eq!(
            samples(&metrics),
            [
                "voicerollout_gate_calls{rollout=\"agent\",gate=\"calls\",arm=\"canary\"} 41",
                "voicerollout_gate_calls{rollout=\"agent\",gate=\"calls\",arm=\"stable\"} 902",
                "voicerollout_gate_calls{rollout=\"agent\",gate=\"slo\",arm=\"canary\"} 41",
                "voicerollout_gate_bad_calls{rollout=\"agent\",gate=\"calls\",arm=\"canary\"} 7",
                "voicerollout_gate_bad_calls{rollout=\"agent\",gate=\"calls\",arm=\"stable\"} 31",
                "voicerollout_gate_bad_calls{rollout=\"agent\",gate=\"slo\",arm=\"canary\"} 7",
                "voicerollout_gate_log_evidence{rollout=\"agent\",gate=\"calls\"} 3.5",
                "voicerollout_gate_log_evidence{rollout=\"agent\",gate=\"slo\"} 1.5",
                "voicerollout_gate_log_abort_line{rollout=\"agent\",gate=\"calls\"} 4.6",
                "voicerollout_gate_log_abort_line{rollout=\"agent\",gate=\"slo\"} 4.6",
                "voicerollout_gate_odds_ratio{rollout=\"agent\",gate=\"calls\"} 5.8",
            ]
        );
        status.phase = crate::api::run::RunPhase::Stopped;
        metrics.rollouts.observe_run(&run, &status);
        assert_eq!(samples(&metrics), Vec::<String>::new());
    }

    #[test]
    fn series_go_with_their_rollout() {
        let metrics = Metrics::new();
        for i in 0..100 {
            observe(&metrics, &format!("agent-{i}"), json!({"gates": [{"name": format!("gate-{i}"), "kind": "Step", "value": "1"}]}));
            metrics.rollouts.forget("voice", &format!("agent-{i}"));
        }
        assert_eq!(samples(&metrics), Vec::<String>::new());
        observe(&metrics, "kept", Value::Null);
        metrics.rollouts.forget("other", "kept");
        assert_eq!(samples(&metrics).len(), 3);
    }

    #[test]
    fn one_series_where_a_step_and_the_background_share_a_name() {
        let metrics = Metrics::new();
        observe(
            &metrics,
            "agent",
            json!({"gates": [{"name": "p95", "kind": "Step", "value": "2"}, {"name": "p95", "kind": "Background", "value": "1"}]}),
        );
        let values: Vec<String> = samples(&metrics).into_iter().filter(|l| l.contains("gate_value")).collect();
        assert_eq!(values, ["voicerollout_gate_value{rollout=\"agent\",gate=\"p95\"} 2.0"]);
    }
}
