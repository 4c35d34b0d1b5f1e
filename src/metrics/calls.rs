//! Series of live calls: how many there are, and how many were cut.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::rollout::{Id, Labels, sample};
use crate::api::VoiceRolloutStatus;

/// Live calls of the rollouts.
#[derive(Debug, Default)]
pub struct CallMetrics(Mutex<BTreeMap<Id, Calls>>);

#[derive(Debug, Default)]
struct Calls {
    /// By revision, at the last reading.
    live: BTreeMap<String, u64>,
    /// What the status says of each revision; it forgets revisions, and the total must not.
    told: BTreeMap<String, u64>,
    cut: u64,
}

impl CallMetrics {
    /// Takes over a reading of live calls, by revision.
    pub fn observe_live(&self, namespace: &str, name: &str, live: BTreeMap<String, u64>) {
        self.0.lock().entry((namespace.to_owned(), name.to_owned())).or_default().live = live;
    }

    /// Takes over what a status says of cut calls.
    pub fn observe_cut(&self, namespace: &str, name: &str, status: &VoiceRolloutStatus) {
        let mut all = self.0.lock();
        let calls = all.entry((namespace.to_owned(), name.to_owned())).or_default();
        let now: BTreeMap<String, u64> =
            status.revisions.iter().map(|r| (r.hash.clone(), u64::try_from(r.calls_cut).unwrap_or(0))).collect();
        calls.cut += now.iter().map(|(hash, n)| n.saturating_sub(calls.told.get(hash).copied().unwrap_or(0))).sum::<u64>();
        calls.told = now;
    }

    /// The rollout is gone, and so are its series.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.0.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }
}

impl Collector for CallMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.0.lock();
        let mut live = encoder.encode_descriptor("live_calls", "Live calls at the last reading", None, MetricType::Gauge)?;
        for ((namespace, rollout), calls) in all.iter() {
            for (revision, n) in &calls.live {
                sample(&mut live, &[("namespace", namespace), ("rollout", rollout), ("revision", revision)], n)?;
            }
        }
        let mut cut = encoder.encode_descriptor("calls_cut", "Calls that were live when their pod ended", None, MetricType::Counter)?;
        for ((namespace, rollout), calls) in all.iter() {
            let labels = [("namespace", namespace.as_str()), ("rollout", rollout)];
            cut.encode_family(&Labels(&labels))?.encode_counter::<super::rollout::NoLabels, _, u64>(&calls.cut, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::api::VoiceRolloutStatus;
    use crate::api::status::RevisionStatus;
    use crate::metrics::Metrics;

    fn status(cut: &[(&str, i64)]) -> VoiceRolloutStatus {
        let revision = |(hash, n): &(&str, i64)| RevisionStatus { hash: (*hash).into(), calls_cut: *n, ..RevisionStatus::default() };
        VoiceRolloutStatus { revisions: cut.iter().map(revision).collect(), ..VoiceRolloutStatus::default() }
    }

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.encode().unwrap();
        text.lines()
            .filter(|l| l.starts_with("voicerollout_live_calls{") || l.starts_with("voicerollout_calls_cut"))
            .map(String::from)
            .collect()
    }

    #[test]
    fn the_total_of_cut_calls_outlives_the_revisions() {
        let metrics = Metrics::new();
        metrics.calls.observe_cut("n", "r", &status(&[("a", 2), ("b", 1)]));
        metrics.calls.observe_cut("n", "r", &status(&[("b", 3)]));
        metrics.calls.observe_cut("n", "r", &status(&[("b", 3), ("c", 1)]));
        metrics.calls.observe_live("n", "r", [("c".to_string(), 7)].into());
        let live = r#"voicerollout_live_calls{namespace="n",rollout="r",revision="c"} 7"#;
        assert_eq!(series(&metrics), [live, r#"voicerollout_calls_cut_total{namespace="n",rollout="r"} 6"#]);
        metrics.calls.forget("n", "r");
        assert!(series(&metrics).is_empty());
    }

    #[test]
    fn series_do_not_grow_with_the_revisions_that_a_rollout_had() {
        let metrics = Metrics::new();
        for rollout in 0..1000 {
            let name = format!("agent-{rollout}");
            for revision in 0..100 {
                let hash = format!("hash-{revision}");
                metrics.calls.observe_live("voice", &name, [(hash.clone(), 3)].into());
                metrics.calls.observe_cut("voice", &name, &status(&[(&hash, 1)]));
            }
        }
        let all = series(&metrics);
        assert_eq!(all.len(), 2000, "one revision each, and one total");
        assert!(all.contains(&r#"voicerollout_calls_cut_total{namespace="voice",rollout="agent-999"} 100"#.to_owned()));
    }
}
