//! Proof of the split: started calls by version since the last change of the weight, against the weight.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::analysis::Gate;
use crate::api::common::std_duration;
use crate::api::proof::{Proof, Split, SplitCalls, SplitVerdict};
use crate::api::rollout::Traffic;
use crate::api::run::RunGate;
use crate::core::stats::srm::log_evidence_outside;
use crate::core::window::clock;

/// Name of the gate that counts started calls.
pub const GATE: &str = "observed-split";
/// How closely the alternatives lie around the weight: as if 100 calls had been seen. A release has hundreds of calls, not
/// the hundreds of thousands that the usual 10,000 are for.
pub const CONCENTRATION: f64 = 100.0;
/// With all calls on the canary, so many percentage points may still be others: calls that were on their way.
const ALL: f64 = 1.0;
/// Weights nearer to 0 or 100 % have their alternatives around this share.
const EDGE: f64 = 0.005;

/// What is asked of the split.
#[derive(Clone, Debug, PartialEq)]
pub struct ProofPlan {
    /// The settings.
    pub proof: Proof,
    /// Time from a change of the weight until a look at the counter has all calls from before it.
    pub settle: Duration,
    /// Callers are split by buckets.
    buckets: bool,
    /// Some callers stay on stable whatever the weight.
    pinned: bool,
}

/// Calls since the weight is what it is.
#[derive(Clone, Copy, Debug)]
pub struct Since<'a> {
    /// The weight, in percent.
    pub weight: i32,
    /// Which one of the attempt it is, from 1.
    pub number: i32,
    /// When the first of the calls began, or later.
    pub since: Timestamp,
    /// The calls.
    pub calls: &'a SplitCalls,
    /// The share differed at the look before.
    pub differed: bool,
}

impl ProofPlan {
    /// Of a rollout's traffic.
    pub fn of(traffic: &Traffic) -> Option<Self> {
        let proof = traffic.proof.clone()?;
        let istio = traffic.istio.as_ref();
        let propagation = istio.map_or(Duration::ZERO, |i| std_duration(i.propagation_delay));
        let buckets = istio.and_then(|i| i.stickiness.as_ref()).and_then(|s| s.header_buckets.as_ref());
        Some(Self {
            settle: propagation.saturating_add(std_duration(proof.prometheus.scrape_interval)),
            buckets: buckets.is_some(),
            pinned: buckets.is_some_and(|b| !b.always_stable.is_empty()),
            proof,
        })
    }

    /// The gate that counts.
    pub fn gate(&self) -> RunGate {
        let split =
            Split { counted: self.proof.counted(), started: self.proof.started.clone(), without_bucket: self.proof.without_bucket.clone() };
        RunGate { gate: Gate::that_counts(GATE, split), args: Vec::new(), from_cluster_template: false }
    }

    /// Whether calls are compared with this weight. Callers that are always stable keep it from ever being all.
    pub fn looks_at(&self, weight: i32) -> bool {
        weight > 0 && !(weight >= 100 && self.pinned)
    }

    /// Percentage points that the share may be off.
    fn tolerance(&self, weight: f64) -> f64 {
        let usual = if self.buckets { weight.min(100.0 - weight) / 5.0 } else { 0.0 };
        let tolerance = self.proof.tolerance.unwrap_or(usual);
        if weight >= 100.0 { tolerance.max(ALL) } else { tolerance }
    }

    /// Judges the calls of one weight. Each weight of an attempt spends a part of `falseAlarm`: 1/2, 1/6, 1/12, ..., which
    /// is less than the whole however many there are.
    pub fn judge(&self, at: &Since<'_>) -> (SplitVerdict, String) {
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let (canary, stable) = (count(at.calls.canary), count(at.calls.stable));
        let total = canary + stable;
        let weight = f64::from(at.weight);
        if total == 0 {
            return (SplitVerdict::NoData, format!("no call has begun since the weight is {} %", at.weight));
        }
        let off = self.tolerance(weight);
        let range = ((weight - off).max(0.0) / 100.0, (weight + off).min(100.0) / 100.0);
        let evidence = log_evidence_outside(canary, stable, (weight / 100.0).clamp(EDGE, 1.0 - EDGE), range, CONCENTRATION);
        let number = f64::from(at.number.max(1));
        let line = (number * (number + 1.0) / self.proof.false_alarm).ln();
        let verdict = if evidence >= line || (at.differed && evidence > 0.0) {
            SplitVerdict::Differs
        } else if total < u64::try_from(self.proof.min_calls).unwrap_or(0) {
            SplitVerdict::TooFew
        } else {
            SplitVerdict::Agrees
        };
        (verdict, self.sentence(at, total))
    }

    fn sentence(&self, at: &Since<'_>, total: u64) -> String {
        let percent = |n: i64| (n as f64 / total as f64 * 1000.0).round() / 10.0;
        let canary = at.calls.canary;
        let mut text = format!(
            "{canary} of {total} calls since {} began on the canary ({} %), and the weight is {} %",
            clock(at.since),
            percent(canary),
            at.weight
        );
        if let Some(without) = at.calls.without_bucket.filter(|_| self.buckets) {
            text.push_str(&format!("; {without} of them without a bucket ({} %)", percent(without)));
        }
        text
    }
}

/// Calls that came since an earlier count.
pub fn between(before: &SplitCalls, now: &SplitCalls) -> SplitCalls {
    let without = now.without_bucket.map(|n| n - before.without_bucket.unwrap_or(0));
    SplitCalls { canary: now.canary - before.canary, stable: now.stable - before.stable, without_bucket: without }
}

/// The share in percent, to a tenth.
pub fn share(calls: &SplitCalls) -> Option<f64> {
    let total = calls.canary + calls.stable;
    (total > 0).then(|| (calls.canary as f64 / total as f64 * 1000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::stats::sampling::Dice;

    fn plan(more: serde_json::Value) -> ProofPlan {
        let mut traffic = json!({
            "istio": {"stableService": "s", "canaryService": "c", "virtualServices": [{"name": "v"}]},
            "proof": {"prometheus": {"address": "http://p"}, "started": "voice_calls_started_total"},
        });
        json_patch::merge(&mut traffic, &more);
        ProofPlan::of(&serde_json::from_value(traffic).unwrap()).unwrap()
    }

    fn said(plan: &ProofPlan, weight: i32, canary: i64, stable: i64, differed: bool) -> (SplitVerdict, String) {
        let calls = SplitCalls { canary, stable, without_bucket: None };
        plan.judge(&Since { weight, number: 1, since: "2026-01-01T12:00:05Z".parse().unwrap(), calls: &calls, differed })
    }

    #[test]
    fn counts_become_a_verdict_and_a_sentence() {
        let plan = plan(json!({}));
        let verdict = |weight, canary, stable| said(&plan, weight, canary, stable, false).0;
        assert_eq!(verdict(25, 0, 0), SplitVerdict::NoData);
        assert_eq!(verdict(25, 5, 15), SplitVerdict::TooFew);
        assert_eq!(verdict(25, 30, 70), SplitVerdict::Agrees);
        assert_eq!(verdict(25, 0, 100), SplitVerdict::Differs);
        assert_eq!(verdict(25, 100, 0), SplitVerdict::Differs);
        assert_eq!(verdict(5, 20, 20), SplitVerdict::Differs);
        assert_eq!(verdict(100, 1000, 0), SplitVerdict::Agrees);
        assert_eq!(verdict(100, 1000, 3), SplitVerdict::Agrees, "calls that were on their way");
        assert_eq!(verdict(100, 500, 100), SplitVerdict::Differs);
        let (_, text) = said(&plan, 25, 3, 309, false);
        assert_eq!(text, "3 of 312 calls since 12:00:05Z began on the canary (1 %), and the weight is 25 %");
    }

    #[test]
    fn a_mismatch_ends_when_the_evidence_for_it_is_gone() {
        let plan = plan(json!({}));
        assert_eq!(said(&plan, 25, 60, 440, true).0, SplitVerdict::Differs);
        assert_eq!(said(&plan, 25, 250, 750, true).0, SplitVerdict::Agrees);
    }

    #[test]
    fn buckets_are_given_room_and_callers_that_stay_are_no_mismatch() {
        let buckets = |more| json!({"istio": {"stickiness": {"headerBuckets": {"header": "x-b", "alwaysStable": more}}}});
        let plain = plan(json!({}));
        let sticky = plan(buckets(json!([])));
        assert_eq!(
            (said(&plain, 25, 210, 790, false).0, said(&sticky, 25, 210, 790, false).0),
            (SplitVerdict::Agrees, SplitVerdict::Agrees)
        );
        assert_eq!(
            (said(&plain, 25, 1900, 8100, false).0, said(&sticky, 25, 2100, 7900, false).0),
            (SplitVerdict::Differs, SplitVerdict::Agrees)
        );
        assert_eq!(said(&sticky, 25, 500, 9500, false).0, SplitVerdict::Differs);
        let exact = plan(json!({"istio": buckets(json!([]))["istio"], "proof": {"tolerance": 0.0}}));
        assert_eq!(said(&exact, 25, 1900, 8100, false).0, SplitVerdict::Differs);
        let pinned = plan(buckets(json!([{"header": "x-t", "values": ["a"]}])));
        assert!(sticky.looks_at(100) && !pinned.looks_at(100) && pinned.looks_at(50) && !plain.looks_at(0));
        let calls = SplitCalls { canary: 25, stable: 75, without_bucket: Some(40) };
        let since = Since { weight: 25, number: 1, since: Timestamp::UNIX_EPOCH, calls: &calls, differed: false };
        assert!(sticky.judge(&since).1.ends_with("; 40 of them without a bucket (40 %)"), "{:?}", sticky.judge(&since));
    }

    /// Releases of 5, 25, 50 and 100 %, 20 calls a look and 40 looks a weight, whose calls are shared as `share` says.
    fn alarms(plan: &ProofPlan, seed: u64, releases: u32, share: impl Fn(f64) -> f64) -> (u32, Vec<i64>) {
        let (mut alarms, mut calls_needed) = (0, Vec::new());
        for release in 0..releases {
            let mut dice = Dice::new(seed, release);
            let mut found = None;
            for (number, weight) in [5, 25, 50].into_iter().enumerate() {
                let mut calls = SplitCalls::default();
                for _ in 0..40 {
                    let canary = i64::try_from(dice.binomial(20, share(f64::from(weight) / 100.0))).unwrap();
                    (calls.canary, calls.stable) = (calls.canary + canary, calls.stable + 20 - canary);
                    let number = i32::try_from(number).unwrap() + 1;
                    let since = Since { weight, number, since: Timestamp::UNIX_EPOCH, calls: &calls, differed: false };
                    if plan.judge(&since).0 == SplitVerdict::Differs {
                        found.get_or_insert(calls.canary + calls.stable);
                    }
                }
            }
            alarms += u32::from(found.is_some());
            calls_needed.extend(found);
        }
        calls_needed.sort_unstable();
        (alarms, calls_needed)
    }

    /// The promise, for a chance that few releases can show: at most so many of them are held.
    #[test]
    fn a_split_that_is_kept_holds_no_more_releases_than_promised() {
        const RELEASES: u32 = 400;
        let alpha = 0.05;
        // Beyond this lie less than one in a million of all outcomes, if the chance is just what is promised.
        let most = 44;
        for (more, factor) in [(json!({"tolerance": 0.0}), 1.0), (json!({"tolerance": 4.0}), 1.0)] {
            let mut proof = json!({"falseAlarm": alpha});
            json_patch::merge(&mut proof, &more);
            let plan = plan(json!({"proof": proof}));
            let (held, _) = alarms(&plan, 7, RELEASES, |share| share * factor);
            println!("{held} of {RELEASES} held, promised {alpha}");
            assert!(held <= most, "{held} of {RELEASES} with {more}");
        }
        // At the edge of what is tolerated.
        let plan = plan(json!({"proof": {"falseAlarm": alpha, "tolerance": 4.0}}));
        let (held, _) = alarms(&plan, 8, RELEASES, |share| share + 0.04);
        println!("{held} of {RELEASES} held at the edge");
        assert!(held <= most, "{held} of {RELEASES} at the edge");
    }

    #[test]
    fn a_split_that_is_not_kept_is_found_soon() {
        let plan = plan(json!({}));
        for (what, share, within) in [("none", 0.0, 400), ("half", 0.5, 40), ("all", 1.0, 20)] {
            let (held, calls) = alarms(&plan, 9, 100, |_| share);
            println!("{what}: {held} of 100 found, median after {} calls", calls[calls.len() / 2]);
            assert!(held == 100 && calls[50] <= within, "{what}: {held}, {calls:?}");
        }
        // A third too many calls for the canary at every weight: found in most releases.
        let (held, _) = alarms(&plan, 10, 100, |share| share * 4.0 / 3.0);
        println!("a third too many: {held} of 100 found");
        assert!(held >= 90, "{held}");
    }
}
