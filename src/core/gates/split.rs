//! The gate that counts started calls, for the proof of the split. It only counts: what the weight is, the release knows.

use std::time::Duration;

use super::calls::{Snapshot, Taken, size, take};
use crate::api::proof::{Split, SplitCounts};
use crate::api::run::Verdict;

/// Counters that a pod has.
pub fn columns(gate: &Split) -> usize {
    1 + usize::from(gate.without_bucket.is_some())
}

/// Takes counters in. `others` is what the run's other gates remember, in bytes. Pass means that calls were counted.
pub fn look(gate: &Split, state: &mut Option<SplitCounts>, seen: &Snapshot, others: usize) -> (Verdict, String) {
    let before = state.clone().unwrap_or_default();
    let mut now = before.clone();
    let taken = take(&mut now.memory, seen, columns(gate), Duration::ZERO, false);
    let bytes = size(&now.memory).saturating_add(others);
    if bytes > super::calls::MAX_MEMORY {
        let message = format!(
            "the counters of {} pods make this run remember {} kB, and {} kB is the most: use a podLabel with fewer values",
            now.memory.pods.len(),
            bytes / 1000,
            super::calls::MAX_MEMORY / 1000
        );
        return (Verdict::Error, message);
    }
    let said = match taken {
        Taken::Skipped(reason) => return (Verdict::Inconclusive, reason),
        Taken::Baseline => (Verdict::Inconclusive, "counts calls from here on".to_owned()),
        Taken::Tick(sums) => {
            let calls = &mut now.calls;
            let of = |column: usize| {
                let sum = |arm: &[u64]| arm.get(column).map_or(0, |n| i64::try_from(*n).unwrap_or(i64::MAX));
                (sum(&sums.canary), sum(&sums.stable))
            };
            let (canary, stable) = of(0);
            (calls.canary, calls.stable) = (calls.canary.saturating_add(canary), calls.stable.saturating_add(stable));
            if gate.without_bucket.is_some() {
                let (canary, stable) = of(1);
                let known = calls.without_bucket.unwrap_or(0);
                calls.without_bucket = Some(known.saturating_add(canary).saturating_add(stable));
            }
            (Verdict::Pass, format!("{} calls of the canary, {} of stable since the run began", calls.canary, calls.stable))
        }
    };
    now.at.clone_from(&now.memory.at);
    *state = Some(now);
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::gates::calls::PodSample;

    fn gate(without_bucket: bool) -> Split {
        serde_json::from_value(serde_json::json!({
            "prometheus": {"address": "http://p"}, "started": "s", "withoutBucket": without_bucket.then_some("w"),
        }))
        .unwrap()
    }

    fn snapshot(at: i64, pods: &[(&str, bool, u64, u64)]) -> Snapshot {
        let pod = |(pod, canary, calls, without): &(&str, bool, u64, u64)| PodSample {
            pod: (*pod).into(),
            canary: *canary,
            scraped: at as f64 - 1.0,
            counts: vec![Some(*calls), Some(*without)],
        };
        Snapshot { at, pods: pods.iter().map(pod).collect(), buckets: Vec::new() }
    }

    #[test]
    fn calls_are_counted_from_the_first_look_on_through_restarts_and_new_pods() {
        let (gate, mut state) = (gate(true), None);
        let mut look = |at, pods: &[_]| {
            let said = look(&gate, &mut state, &snapshot(at, pods), 0);
            (said, state.clone().unwrap().calls)
        };
        let ((verdict, _), calls) = look(100, &[("s", false, 500, 50), ("c", true, 9, 1)]);
        assert_eq!((verdict, calls.canary, calls.stable), (Verdict::Inconclusive, 0, 0));
        let ((verdict, _), calls) = look(130, &[("s", false, 520, 51), ("c", true, 10, 1)]);
        assert_eq!((verdict, calls.canary, calls.stable, calls.without_bucket), (Verdict::Pass, 1, 20, Some(1)));
        // The canary's process began anew, and there is another pod.
        let (_, calls) = look(160, &[("s", false, 520, 51), ("c", true, 3, 2), ("d", true, 4, 0)]);
        assert_eq!((calls.canary, calls.stable, calls.without_bucket), (8, 20, Some(3)));
        // The same moment once more, and an arm that is gone, change nothing.
        let ((verdict, message), calls) = look(160, &[("s", false, 900, 51), ("c", true, 30, 2)]);
        assert_eq!((verdict, calls.canary), (Verdict::Inconclusive, 8), "{message}");
        let ((verdict, message), calls) = look(190, &[("s", false, 900, 51)]);
        assert!(verdict == Verdict::Inconclusive && calls.stable == 20 && message.contains("the canary has no counters"), "{message}");
    }

    #[test]
    fn a_memory_that_the_server_would_not_keep_is_refused() {
        let (gate, mut state) = (gate(false), None);
        let (verdict, message) = look(&gate, &mut state, &snapshot(100, &[("s", false, 1, 0), ("c", true, 1, 0)]), 300_000);
        assert!(verdict == Verdict::Error && message.contains("200 kB is the most") && state.is_none(), "{message}");
    }
}
