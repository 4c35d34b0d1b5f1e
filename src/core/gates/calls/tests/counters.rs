use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::api::run::Memory;
use crate::core::gates::calls::counters::{PodSample, Snapshot, Sums, Taken, take};

fn pod(name: &str, canary: bool, scraped: f64, counts: &[i64]) -> PodSample {
    let counts = counts.iter().map(|n| u64::try_from(*n).ok()).collect();
    PodSample { pod: name.into(), canary, scraped, counts }
}

/// Canary pod `c` and stable pod `s`, all calls and bad ones; -1 for a series that does not exist.
fn seen(at: i64, pods: &[(&str, [i64; 2])]) -> Snapshot {
    let pods = pods.iter().map(|(name, counts)| pod(name, name.starts_with('c'), at as f64, counts)).collect();
    Snapshot { at, pods, buckets: Vec::new() }
}

fn after(snapshots: &[Snapshot], warmup: u64) -> Vec<Taken> {
    let mut memory = Memory::default();
    snapshots.iter().map(|s| take(&mut memory, s, 2, Duration::from_secs(warmup), false)).collect()
}

fn tick(canary: [u64; 2], stable: [u64; 2]) -> Taken {
    Taken::Tick(Sums { canary: canary.to_vec(), stable: stable.to_vec() })
}

#[test]
fn what_is_counted_between_two_looks() {
    let base = seen(0, &[("c1", [10, 1]), ("s1", [1000, 50])]);
    for (what, second, expected) in [
        ("both grew", seen(30, &[("c1", [14, 2]), ("s1", [1100, 55])]), tick([4, 1], [100, 5])),
        ("nothing happened", seen(30, &[("c1", [10, 1]), ("s1", [1000, 50])]), tick([0, 0], [0, 0])),
        ("a pod began anew", seen(30, &[("c1", [3, 0]), ("s1", [1100, 55])]), tick([3, 0], [100, 5])),
        ("only the bad counter shows that it began anew", seen(30, &[("c1", [12, 0]), ("s1", [1100, 55])]), tick([12, 0], [100, 5])),
        ("a new pod", seen(30, &[("c1", [10, 1]), ("c2", [5, 2]), ("s1", [1000, 50])]), tick([5, 2], [0, 0])),
        ("a pod is gone", seen(30, &[("c2", [5, 2]), ("s1", [1001, 50])]), tick([5, 2], [1, 0])),
        ("a series is gone", seen(30, &[("c1", [12, -1]), ("s1", [1000, 50])]), tick([2, 0], [0, 0])),
    ] {
        assert_eq!(after(&[base.clone(), second], 0), [Taken::Baseline, expected], "{what}");
    }
    let new_series = [seen(0, &[("c1", [10, -1]), ("s1", [1000, 50])]), seen(30, &[("c1", [14, 3]), ("s1", [1000, 50])])];
    assert_eq!(after(&new_series, 0)[1], tick([4, 3], [0, 0]), "a new series of a pod that was there counts in full");
    let back = [base, seen(30, &[("c2", [1, 0]), ("s1", [1000, 50])]), seen(60, &[("c1", [15, 2]), ("c2", [1, 0]), ("s1", [1000, 50])])];
    assert_eq!(after(&back, 0)[2], tick([5, 1], [0, 0]), "a pod that comes back goes on where it was");
}

#[test]
fn looks_that_are_not_taken_in() {
    let skipped = |taken: &Taken, part: &str| matches!(taken, Taken::Skipped(why) if why.contains(part));
    let base = seen(100, &[("c1", [10, 1]), ("s1", [1000, 50])]);
    let all = after(
        &[
            seen(70, &[("s1", [990, 50])]),
            base.clone(),
            base.clone(),
            seen(90, &[("c1", [99, 9]), ("s1", [9999, 99])]),
            Snapshot { at: 130, pods: vec![pod("c1", true, 100.0, &[10, 1]), pod("s1", false, 130.0, &[1100, 55])], buckets: Vec::new() },
            seen(160, &[("c1", [14, 2]), ("s1", [1200, 60])]),
        ],
        0,
    );
    assert!(skipped(&all[0], "the canary has no counters yet"), "{all:?}");
    assert_eq!(all[1], Taken::Baseline);
    assert!(skipped(&all[2], "taken in already") && skipped(&all[3], "taken in already"), "{all:?}");
    assert!(skipped(&all[4], "the canary was not scraped since the last look"), "{all:?}");
    assert_eq!(all[5], tick([4, 1], [200, 10]), "the next look covers both");
    let mut memory = Memory::default();
    assert_eq!(take(&mut memory, &seen(0, &[("c1", [1, 0])]), 2, Duration::ZERO, true), Taken::Baseline, "one arm is enough for a limit");
}

#[test]
fn a_pod_that_warms_up_does_not_count() {
    let at = |t: i64, c1: i64, c2: i64| {
        let late = if c2 < 0 { vec![] } else { vec![("c2", [c2, 0])] };
        seen(t, &[vec![("c1", [c1, 0]), ("s1", [100 + t, 0])], late].concat())
    };
    let looks = [at(0, 0, -1), at(30, 1, -1), at(60, 3, 1), at(90, 6, 2), at(120, 10, 4), at(150, 15, 8)];
    let counted: Vec<u64> = after(&looks, 60).iter().map(|t| if let Taken::Tick(s) = t { s.canary[0] } else { 0 }).collect();
    // c1 is warm at 60 and counts from there; c2, first seen at 60, at 120.
    assert_eq!(counted, [0, 0, 0, 3, 4, 5 + 4]);
}

#[test]
fn a_pod_that_is_gone_for_long_is_forgotten() {
    let mut memory = Memory::default();
    let mut go = |at: i64, pods: &[(&str, [i64; 2])]| {
        take(&mut memory, &seen(at, pods), 2, Duration::ZERO, false);
        memory.pods.len()
    };
    assert_eq!(go(0, &[("c1", [1, 0]), ("s1", [1, 0]), ("s2", [1, 0])]), 3);
    assert_eq!(go(3599, &[("c1", [1, 0]), ("s1", [1, 0])]), 3);
    assert_eq!(go(7300, &[("c1", [1, 0]), ("s1", [1, 0])]), 3, "nobody looked in between");
    assert_eq!(go(7330, &[("c1", [1, 0]), ("s1", [1, 0])]), 2);
}

/// A pod as it really is.
#[derive(Clone, Debug, Default)]
struct Real {
    now: [i64; 2],
    /// As it was last taken in.
    known: Option<[i64; 2]>,
    /// Counted by nobody yet.
    pending: [i64; 2],
    restarted: bool,
}

/// What happens to one pod before a look.
#[derive(Clone, Debug)]
struct Event {
    pod: usize,
    calls: i64,
    bad: i64,
    restart: bool,
}

#[derive(Clone, Debug)]
struct Step {
    events: Vec<Event>,
    /// Pods that this look does not see.
    unseen: Vec<bool>,
    /// An arm that was not scraped.
    stale: Option<bool>,
    twice: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = (0..5_usize, 0..9_i64, 0..9_i64, prop::bool::weighted(0.15));
    let event = event.prop_map(|(pod, calls, bad, restart)| Event { pod, calls, bad: bad.min(calls), restart });
    let step = (
        prop::collection::vec(event, 0..8),
        prop::collection::vec(prop::bool::weighted(0.15), 5),
        prop::option::weighted(0.2, any::<bool>()),
        any::<bool>(),
    );
    let step = step.prop_map(|(events, unseen, stale, twice)| Step { events, unseen, stale, twice });
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever resets, gaps, new pods, missed scrapes and repeated looks do: everything that happened is counted once,
    /// but for what a process took with it that ended unseen.
    #[test]
    fn every_call_is_counted_once(steps in steps()) {
        // Pods 0 and 1 are the canary's.
        let mut pods: BTreeMap<usize, Real> = BTreeMap::new();
        for p in [0, 2] {
            pods.insert(p, Real { now: [1000, 100], ..Real::default() });
        }
        let (mut memory, mut counted, mut happened, mut lost) = (Memory::default(), [[0_i64; 2]; 2], [[0_i64; 2]; 2], [[0_i64; 2]; 2]);
        let mut began = false;
        for (i, step) in steps.iter().enumerate() {
            let at = 30 * (i as i64 + 1);
            for e in &step.events {
                let arm = usize::from(e.pod >= 2);
                let real = pods.entry(e.pod).or_default();
                if e.restart && real.known.is_some() {
                    (0..2).for_each(|k| lost[arm][k] += real.pending[k]);
                    (real.now, real.pending, real.restarted) = ([0, 0], [0, 0], true);
                }
                for (k, more) in [e.calls, e.bad].into_iter().enumerate() {
                    real.now[k] += more;
                    real.pending[k] += more;
                    happened[arm][k] += more;
                }
            }
            let visible: Vec<usize> = pods.keys().copied().filter(|p| !step.unseen[*p]).collect();
            let arm_of = |canary: bool| visible.iter().any(|p| (*p < 2) == canary);
            let scraped = |canary: bool| if step.stale == Some(canary) && began { 0.0 } else { at as f64 };
            let samples = visible.iter().map(|p| pod(&format!("p{p}"), *p < 2, scraped(*p < 2), &pods[p].now));
            let snapshot = Snapshot { at, pods: samples.collect(), buckets: Vec::new() };
            let good = arm_of(true) && arm_of(false) && (step.stale.is_none() || !began);
            for _ in 0..if step.twice { 2 } else { 1 } {
                match take(&mut memory, &snapshot, 2, Duration::ZERO, false) {
                    Taken::Tick(sums) => {
                        prop_assert!(good && began);
                        for (arm, sums) in [sums.canary, sums.stable].iter().enumerate() {
                            (0..2).for_each(|k| counted[arm][k] += i64::try_from(sums[k]).unwrap());
                        }
                    }
                    Taken::Baseline => {
                        prop_assert!(good && !began);
                        (counted, happened, lost) = ([[0; 2]; 2], [[0; 2]; 2], [[0; 2]; 2]);
                        // Pods that exist but were not seen are new at the next look, and count in full.
                        for (p, real) in &pods {
                            if step.unseen[*p] {
                                (0..2).for_each(|k| happened[usize::from(*p >= 2)][k] += real.now[k]);
                            }
                        }
                        began = true;
                    }
                    Taken::Skipped(_) => prop_assert!(!good || step.twice),
                }
                let text = serde_json::to_string(&memory).unwrap();
                memory = serde_json::from_str(&text).unwrap();
            }
            if good {
                for p in &visible {
                    let real = pods.get_mut(p).unwrap();
                    // A process that began anew and passed every old value looks as if it had gone on.
                    if let (true, Some(old)) = (real.restarted, real.known)
                        && old.iter().zip(&real.now).all(|(old, now)| now >= old)
                    {
                        (0..2).for_each(|k| lost[usize::from(*p >= 2)][k] += old[k]);
                    }
                    (real.known, real.pending, real.restarted) = (Some(real.now), [0, 0], false);
                }
            }
        }
        if began {
            for (arm, pending) in [(0, [0, 1].as_slice()), (1, [2, 3, 4].as_slice())] {
                for k in 0..2 {
                    let open: i64 = pending.iter().filter_map(|p| pods.get(p)).map(|r| if r.known.is_none() { r.now[k] } else { r.pending[k] }).sum();
                    prop_assert_eq!(counted[arm][k] + lost[arm][k] + open, happened[arm][k], "arm {} column {}", arm, k);
                }
            }
        }
    }
}
