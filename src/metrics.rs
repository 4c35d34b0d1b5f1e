//! Prometheus metrics of the operator.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `voicerollout_phase` | namespace, rollout, phase | 1 for the phase that the rollout is in |
//! | `voicerollout_step` | namespace, rollout | current step, counting from 1; absent when no release is under way |
//! | `voicerollout_weight_desired` | namespace, rollout | canary weight that the routes should have, in percent |
//! | `voicerollout_weight_applied` | namespace, rollout | highest canary weight that a route was seen to have, in percent |
//! | `voicerollout_gate_value` | namespace, rollout, gate | latest value of the gate, where it is a number |
//! | `voicerollout_gate_verdict` | namespace, rollout, gate, verdict | 1 for the gate's verdict; absent while undecided |
//! | `voicerollout_gate_calls`, `voicerollout_gate_bad_calls` | namespace, rollout, gate, arm | calls that a gate has counted, and bad ones among them |
//! | `voicerollout_gate_log_evidence` | namespace, rollout, gate | natural logarithm of its evidence against the canary |
//! | `voicerollout_gate_log_abort_line` | namespace, rollout, gate | where that evidence fails the gate |
//! | `voicerollout_gate_odds_ratio` | namespace, rollout, gate | odds of a bad call on the canary, divided by stable's |
//! | `voicerollout_live_calls` | namespace, rollout, revision | live calls at the last reading, where they are counted |
//! | `voicerollout_calls_cut_total` | namespace, rollout | calls that were live when their pod ended |
//! | `voicerollout_reconcile_total` | controller, outcome | reconciles |
//! | `voicerollout_reconcile_seconds` | controller | how long they took |
//! | `voicerollout_api_requests_total` | verb, resource, code | requests to the API server; `code` is `error` without an answer and `abandoned` when it was not waited for |
//! | `voicerollout_measurements_total` | provider, verdict | measurements of gates |
//! | `voicerollout_judge_votes_total` | vote | votes of judges: pass, fail, unsure, invalid |
//! | `voicerollout_judge_tokens_total` | direction | tokens that judges read (input) and wrote (output) |
//! | `voicerollout_judge_micro_dollars_total` | | what judges cost by the prices of their budgets, in millionths of a US dollar |
//! | `voicerollout_notifications_total` | kind, outcome | messages to people: sent, failed (and tried again), dropped, unknown |
//! | `voicerollout_leader` | | 1 when this process may write |
//! | `voicerollout_build_info` | version | 1 |
//! | `process_resident_memory_bytes` | | memory of this process, on Linux |
//!
//! Labels are bounded: series of a rollout go when it is forgotten, those of a gate when it is not in the status any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::judge::{JudgeRecord, Vote};
use crate::api::run::Verdict;

mod api;
mod calls;
mod rollout;

pub use api::{ApiMetrics, ApiMetricsLayer};
pub use calls::CallMetrics;
pub use rollout::RolloutMetrics;

/// Upper bounds of the reconcile histogram's buckets, in seconds.
const RECONCILE_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MeasurementLabels {
    provider: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VoteLabels {
    vote: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// What judges have done.
#[derive(Clone, Debug, Default)]
struct JudgeMetrics {
    votes: Family<VoteLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    micro_dollars: Counter,
}

type Histograms = Family<ControllerLabels, Histogram, fn() -> Histogram>;

/// All metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Metrics of rollouts.
    pub rollouts: Arc<RolloutMetrics>,
    /// Metrics of live calls.
    pub calls: Arc<CallMetrics>,
    reconciles: Family<ReconcileLabels, Counter>,
    seconds: Histograms,
    requests: ApiMetricsLayer,
    measurements: Family<MeasurementLabels, Counter>,
    judges: JudgeMetrics,
    notifications: Family<NotificationLabels, Counter>,
    leader: Gauge,
    /// End of the claim on the Lease.
    claim: Arc<parking_lot::Mutex<Option<watch::Receiver<Option<Instant>>>>>,
    memory: Option<Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics at zero.
    pub fn new() -> Self {
        let rollouts = Arc::new(RolloutMetrics::default());
        let calls = Arc::new(CallMetrics::default());
        let reconciles = Family::default();
        let seconds = Histograms::new_with_constructor(|| Histogram::new(RECONCILE_BUCKETS));
        let requests = ApiMetricsLayer::default();
        let measurements = Family::default();
        let judges = JudgeMetrics::default();
        let notifications = Family::default();
        let leader = Gauge::default();
        let memory = resident_memory().map(|_| Gauge::default());

        let mut registry = Registry::default();
        if let Some(memory) = &memory {
            registry.register("process_resident_memory_bytes", "Memory of this process", memory.clone());
        }
        let ours = registry.sub_registry_with_prefix("voicerollout");
        ours.register_collector(Box::new(rollouts.clone()));
        ours.register_collector(Box::new(calls.clone()));
        ours.register("reconcile", "Reconciles", reconciles.clone());
        ours.register("reconcile_seconds", "Duration of reconciles", seconds.clone());
        ours.register("api_requests", "Requests to the Kubernetes API server", requests.family());
        ours.register("measurements", "Measurements of gates", measurements.clone());
        ours.register("judge_votes", "Votes of judges", judges.votes.clone());
        ours.register("judge_tokens", "Tokens of judges", judges.tokens.clone());
        ours.register("judge_micro_dollars", "Cost of judges in millionths of a US dollar", judges.micro_dollars.clone());
        ours.register("notifications", "Messages to people", notifications.clone());
        ours.register("leader", "1 when this process may write", leader.clone());
        ours.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry: Arc::new(registry),
            rollouts,
            calls,
            reconciles,
            seconds,
            requests,
            measurements,
            judges,
            notifications,
            leader,
            claim: Arc::default(),
            memory,
        }
    }

    /// Counts a reconcile. Names are constants, so that there are not many.
    pub fn reconcile(&self, controller: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, outcome }).inc();
        self.seconds.get_or_create(&ControllerLabels { controller }).observe(took.as_secs_f64());
    }

    /// Counts a measurement.
    pub fn measurement(&self, provider: &'static str, verdict: Verdict) {
        self.measurements.get_or_create(&MeasurementLabels { provider, verdict: rollout::verdict_name(verdict) }).inc();
    }

    /// Counts what became of a message, or of an attempt that is repeated. Names are constants.
    pub fn notification(&self, kind: &'static str, outcome: &'static str) {
        self.notifications.get_or_create(&NotificationLabels { kind, outcome }).inc();
    }

    /// Counts what a judge's verdict took.
    pub fn judged(&self, record: &JudgeRecord) {
        for vote in &record.votes {
            let vote = match vote {
                Vote::Pass => "pass",
                Vote::Fail => "fail",
                Vote::Unsure => "unsure",
                Vote::Invalid => "invalid",
            };
            self.judges.votes.get_or_create(&VoteLabels { vote }).inc();
        }
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        for (direction, tokens) in [("input", record.tokens.input), ("output", record.tokens.output)] {
            self.judges.tokens.get_or_create(&TokenLabels { direction }).inc_by(count(tokens));
        }
        self.judges.micro_dollars.inc_by(count(record.micro_dollars.unwrap_or(0)));
    }

    /// A layer for [`kube::client::ClientBuilder`] that counts requests.
    pub fn api_layer(&self) -> ApiMetricsLayer {
        self.requests.clone()
    }

    /// Shows the claim that `until` follows ([`crate::operator::leadership::Leadership::changes`]).
    pub fn follow_leader(&self, until: watch::Receiver<Option<Instant>>) {
        *self.claim.lock() = Some(until);
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Errors
    /// Only when a metric cannot be written down, which none of these can fail at.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let now = Instant::now();
        let leads = self.claim.lock().as_ref().is_some_and(|claim| claim.borrow().is_some_and(|until| until > now));
        self.leader.set(leads.into());
        if let (Some(gauge), Some(bytes)) = (&self.memory, resident_memory()) {
            gauge.set(bytes);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Resident memory of this process in bytes, where the system says so.
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_histograms_carry_their_documented_names() {
        let metrics = Metrics::new();
        metrics.reconcile("rollout", "ok", Duration::from_millis(3));
        metrics.reconcile("rollout", "conflict", Duration::from_millis(700));
        metrics.measurement("prometheus", Verdict::Inconclusive);
        let votes = vec![Vote::Pass, Vote::Invalid, Vote::Pass];
        let tokens = crate::api::run::Tokens { input: 4500, output: 120 };
        metrics.judged(&JudgeRecord { votes, tokens, micro_dollars: Some(5100), ..JudgeRecord::default() });
        let text = metrics.encode().unwrap();
        for line in [
            "voicerollout_reconcile_total{controller=\"rollout\",outcome=\"ok\"} 1",
            "voicerollout_reconcile_total{controller=\"rollout\",outcome=\"conflict\"} 1",
            "voicerollout_reconcile_seconds_bucket{le=\"0.005\",controller=\"rollout\"} 1",
            "voicerollout_reconcile_seconds_count{controller=\"rollout\"} 2",
            "voicerollout_judge_votes_total{vote=\"pass\"} 2",
            "voicerollout_judge_votes_total{vote=\"invalid\"} 1",
            "voicerollout_judge_tokens_total{direction=\"input\"} 4500",
            "voicerollout_judge_tokens_total{direction=\"output\"} 120",
            "voicerollout_judge_micro_dollars_total 5100",
            "voicerollout_measurements_total{provider=\"prometheus\",verdict=\"Inconclusive\"} 1",
            concat!("voicerollout_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "voicerollout_leader 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_that_of_a_process() {
        let text = Metrics::new().encode().unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!((1 << 20..1 << 34).contains(&line.parse::<i64>().unwrap()), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_has_ended_does_not_lead() {
        let metrics = Metrics::new();
        let (claim, until) = watch::channel(None);
        metrics.follow_leader(until);
        let leads = || metrics.encode().unwrap().lines().any(|l| l == "voicerollout_leader 1");
        assert!(!leads());
        claim.send_replace(Some(Instant::now() + Duration::from_secs(14)));
        assert!(leads());
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!leads());
    }
}
