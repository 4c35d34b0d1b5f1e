//! The promises, on imagined traffic through the shipped gates: the error rates hold at every number of looks and under
//! hostile conditions, and regressions are found as soon as they should be.
//!
//! The short form plays the same few rollouts each time; `PROPTEST_CASES` plays many, with a new seed, and more kinds.

use std::time::Duration;

use serde_json::json;

use super::{compare, gate, with};
use crate::api::analysis::Gate;
use crate::api::run::{Memory, Verdict};
use crate::core::gates::calls::simulate::Simulation;
use crate::core::gates::calls::{Moment, PodSample, Question, Snapshot, look};
use crate::core::stats::evidence::{Design, Evidence};
use crate::core::stats::fnch::Tick;
use crate::core::stats::sampling::Dice;
use crate::core::stats::simulate::{Outcome, SimulateError, Typical};
use crate::core::stats::tests::{asked, close};
use crate::core::stats::traffic::{Incident, Lognormal, Regression, Signal, Spread, Step, Traffic};

/// More calls than there will be: the gate never passes.
const NEVER: u64 = 1_000_000;
/// Bad rate of stable.
const BAD: f64 = 0.08;

/// Rollouts to play: a few, or more than `PROPTEST_CASES` asks for cases of a costlier kind.
fn many(few: u32) -> u32 {
    asked().map_or(few, |cases| few.max(cases / 10))
}

fn seed() -> u64 {
    if asked().is_some() { fastrand::u64(..) } else { 1 }
}

fn play(gate: &Gate, traffic: &Traffic, few: u32) -> Outcome {
    Simulation::new(gate).unwrap().run(traffic, many(few), seed()).unwrap()
}

/// The same releases for each gate.
fn play_the_same(gate: &Gate, traffic: &Traffic) -> Outcome {
    Simulation::new(gate).unwrap().run(traffic, 30, 1).unwrap()
}

/// Three standard errors above a promised rate.
fn at_most(promised: f64, rollouts: u32) -> f64 {
    promised + 3.0 * (promised * (1.0 - promised) / f64::from(rollouts)).sqrt()
}

/// A gate on bad calls that only aborts.
fn aborting(alpha: f64) -> Gate {
    with(compare(json!({ "minCanary": NEVER })), alpha)
}

/// A gate on bad calls that passes below an odds ratio too, at any weight.
fn passing(alpha: f64, margin: f64) -> Gate {
    with(compare(json!({ "minCanary": 1, "passIf": { "oddsRatioBelow": { "0": margin } } })), alpha)
}

/// A gate on first tokens.
fn first_token(alpha: f64, fields: serde_json::Value) -> Gate {
    let mut base = json!({ "metric": "first_token_seconds_bucket", "edges": [0.7, 0.9, 1.2], "minCanary": NEVER });
    base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    with(gate("compareHistogram", base), alpha)
}

fn calls(per_minute: f64, share: f64, minutes: f64, rate: f64) -> Traffic {
    Traffic::steady(per_minute, share, minutes, Signal::BadRate(rate))
}

/// Lognormal first tokens at the bounds that a gate needs.
fn turns(per_minute: f64, bounds: &[f64]) -> Traffic {
    let spread = Spread::Lognormal(Lognormal { p95: 0.943, sigma: 0.45 });
    Traffic::steady(per_minute, 0.05, 30.0, Signal::Latency { spread, bounds: bounds.to_vec() })
}

fn worse(traffic: Traffic, factor: f64) -> Traffic {
    Traffic { regression: Regression::Factor(factor), ..traffic }
}

const EDGES: [f64; 3] = [0.7, 0.9, 1.2];

#[track_caller]
fn keeps_its_promise(gate: &Gate, traffic: &Traffic, few: u32) {
    let outcome = play(gate, traffic, few);
    assert!(outcome.aborted <= at_most(gate.false_abort.unwrap(), outcome.rollouts), "{outcome:?}");
}

/// A share within three standard errors and three points, and a median within 30 %, of what was found elsewhere.
#[track_caller]
fn as_tabled(what: &str, found: (f64, Option<Typical>), share: f64, minute: f64, rollouts: u32) {
    let error = 0.03 + 3.0 * (share * (1.0 - share) / f64::from(rollouts)).sqrt();
    assert!((found.0 - share).abs() <= error, "{what}: {found:?}, not {share}");
    if minute > 0.0 {
        let median = found.1.map_or(0.0, |t| t.minutes);
        // A tick more or less, where there are few.
        assert!((median - minute).abs() <= (0.3 * minute).max(1.0), "{what}: {median}, not {minute}");
    }
}

#[test]
fn an_equal_canary_is_kept_at_any_number_of_looks() {
    for (looks, few) in [(10.0, 300), (100.0, 100), (1000.0, 12)] {
        keeps_its_promise(&aborting(0.2), &calls(40.0, 0.25, looks, 0.1), few);
    }
    for (looks, few) in [(10.0, 100), (100.0, 30)] {
        let traffic = Traffic { minutes: looks, ..turns(60.0, &EDGES) };
        keeps_its_promise(&first_token(0.2, json!({})), &traffic, few);
    }
}

#[test]
fn what_both_arms_suffer_aborts_nothing() {
    let mut traffic = turns(60.0, &EDGES);
    traffic.incident = Some(Incident { from: 10.0, minutes: 10.0, factor: 1.3 });
    keeps_its_promise(&first_token(0.1, json!({})), &traffic, 60);
}

#[test]
fn base_rates_that_change_with_the_weight_abort_nothing() {
    let mut traffic = calls(200.0, 0.05, 30.0, 0.05);
    let step = |from, share, base| Step { from, share, base };
    traffic.steps = vec![step(0.0, 0.05, 1.0), step(10.0, 0.25, 2.0), step(20.0, 0.5, 4.0)];
    keeps_its_promise(&aborting(0.1), &traffic, 60);
    // Pooled over the steps the same counts would abort nearly always.
    let mut dice = Dice::new(3, 0);
    let tick = |minute: u32, dice: &mut Dice| traffic.tick((minute / 10) as usize, f64::from(minute), dice)[0];
    let sum = (0..30).fold(Tick::default(), |sum, minute| {
        let t = tick(minute, &mut dice);
        let [a, b] = [sum, t];
        Tick::new(
            a.bad_canary + b.bad_canary,
            a.calls_canary + b.calls_canary,
            a.bad_stable + b.bad_stable,
            a.calls_stable + b.calls_stable,
        )
    });
    let mut pooled = Evidence::new(Design::new(1, 1.0, &[]).unwrap()).unwrap();
    pooled.add(&[sum]).unwrap();
    assert!(pooled.log_e_abort() > 1000f64.ln(), "{sum:?}");
}

/// A pod whose counters are read: all calls, bad ones.
struct Pod {
    name: String,
    canary: bool,
    counts: [u64; 2],
    gone: bool,
}

/// One release as counters tell it: pods that begin anew, that come and go, that are not seen, arms that are not scraped,
/// looks that come twice or late. Whether it is aborted.
fn aborted_through_counters(gate: &Gate, looks: u32, canary_bad: f64, dice: &mut Dice) -> bool {
    let question = Question::of(gate).unwrap().unwrap();
    let happens = |chance: f64, dice: &mut Dice| dice.binomial(1, chance) == 1;
    let new = |name: String, canary: bool| Pod { name, canary, counts: [0, 0], gone: false };
    let mut pods: Vec<Pod> = (0..5).map(|i| new(format!("p{i}"), i < 2)).collect();
    let (mut memory, mut known, mut before) = (Memory::default(), None, None::<Snapshot>);
    let start: jiff::Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
    for look_no in 1..=looks {
        let at = start.as_second() + 30 * i64::from(look_no);
        for i in 0..pods.len() {
            if happens(0.03, dice) {
                pods[i].gone = true;
                pods.push(new(format!("p{}-{look_no}", pods.len()), pods[i].canary));
            }
        }
        pods.retain(|pod| !pod.gone);
        let stale = happens(0.15, dice).then(|| happens(0.5, dice));
        let mut seen = Vec::new();
        for pod in &mut pods {
            if happens(0.05, dice) {
                pod.counts = [0, 0];
            }
            let n = dice.poisson(8.0);
            // Both arms get worse together, and better again.
            let rate = if (look_no / 10) % 2 == 0 { 1.0 } else { 2.0 };
            pod.counts[0] += n;
            pod.counts[1] += dice.binomial(n, (if pod.canary { canary_bad } else { BAD }) * rate);
            let scraped = if stale == Some(pod.canary) { 0.0 } else { at as f64 };
            if !happens(0.05, dice) {
                seen.push(PodSample { pod: pod.name.clone(), canary: pod.canary, scraped, counts: pod.counts.map(Some).to_vec() });
            }
        }
        let now = Snapshot { at, pods: seen, buckets: Vec::new() };
        // This look, twice now and then, and sometimes one that was delayed.
        let late = before.clone().filter(|_| happens(0.2, dice));
        let twice = happens(0.3, dice).then(|| now.clone());
        for seen in std::iter::once(now.clone()).chain(twice).chain(late) {
            let moment = Moment {
                started_at: jiff::Timestamp::from_second(at).unwrap(),
                first_at: start,
                traffic_since: Some(start),
                min_duration: Duration::ZERO,
                others: 0,
            };
            let looked = look(&question, &memory, known.as_ref(), &seen, &moment);
            (memory, known) = (looked.memory, looked.comparison);
            if looked.verdict == Verdict::Fail {
                return true;
            }
        }
        before = Some(now);
    }
    false
}

#[test]
fn resets_missed_and_repeated_looks_abort_nothing() {
    let (gate, rollouts, seed) = (aborting(0.1), many(24), seed());
    let share = |canary_bad: f64| {
        let aborted = (0..rollouts).filter(|run| aborted_through_counters(&gate, 40, canary_bad, &mut Dice::new(seed, *run))).count();
        aborted as f64 / f64::from(rollouts)
    };
    let same = share(BAD);
    assert!(same <= at_most(0.1, rollouts), "{same}, seed {seed}");
    assert!(share(3.0 * BAD) > 0.8, "seed {seed}: what is worse is found all the same");
}

#[test]
fn a_better_canary_never_aborts() {
    assert_eq!(play(&aborting(0.05), &worse(calls(200.0, 0.25, 60.0, 0.1), 0.5), 40).aborted, 0.0);
    assert_eq!(play(&first_token(0.05, json!({})), &worse(turns(300.0, &EDGES), 0.8), 20).aborted, 0.0);
}

#[test]
fn a_canary_at_the_margin_does_not_pass() {
    for share in [0.05, 0.25, 0.5] {
        let traffic = Traffic { regression: Regression::OddsRatio(2.0), ..calls(200.0, share, 30.0, BAD) };
        let outcome = play(&passing(1e-9, 2.0), &traffic, 40);
        assert!(outcome.passed <= at_most(0.05, outcome.rollouts), "{outcome:?}");
        close(outcome.passed + outcome.inconclusive + outcome.aborted, 1.0, 1e-12);
    }
}

#[test]
fn a_limit_keeps_its_promises() {
    let fields = json!({ "bad": "b", "total": "t", "maxRate": 0.05, "minCanary": 1, "falsePromote": 0.1 });
    let limit = with(gate("absolute", fields), 0.1);
    let at = |rate: f64| calls(100.0, 0.2, 60.0, rate);
    let outcome = play(&limit, &at(0.05), 100);
    assert!(outcome.aborted <= at_most(0.1, outcome.rollouts), "{outcome:?}");
    // The pass line is twice the limit.
    let outcome = play(&with(limit.clone(), 1e-9), &at(0.1), 100);
    assert!(outcome.passed <= at_most(0.1, outcome.rollouts), "{outcome:?}");
    assert!(play(&limit, &at(0.15), 40).aborted > 0.9);
    assert!(play(&limit, &at(0.01), 40).passed > 0.9);
}

/// Bad calls on 5 % of the traffic, 60 minutes: share and median minute of aborts and passes at an odds ratio of 2.
#[test]
fn verdicts_come_when_they_should() {
    let gate = passing(0.05, 2.0);
    let short =
        [(200.0, 0.08, 0.025, 0.97, 15.0), (200.0, 0.15, 0.97, 0.03, 14.0), (200.0, 0.20, 1.0, 0.0, 6.0), (50.0, 0.20, 0.94, 0.002, 19.0)];
    let long = [
        (10.0, 0.08, 0.002, 0.01, 0.0),
        (10.0, 0.20, 0.27, 0.0, 38.0),
        (50.0, 0.08, 0.015, 0.54, 32.0),
        (50.0, 0.15, 0.58, 0.02, 28.0),
        (200.0, 0.12, 0.66, 0.29, 26.0),
    ];
    let long = asked().map_or(&[][..], |_| &long);
    for (per_minute, canary, aborted, passed, minute) in short.iter().chain(long).copied() {
        let outcome = play(&gate, &worse(calls(per_minute, 0.05, 60.0, BAD), canary / BAD), 60);
        let (abort, pass) = if aborted > passed { (minute, 0.0) } else { (0.0, minute) };
        let what = format!("{per_minute} a minute, {canary}: {outcome:?}");
        as_tabled(&what, (outcome.aborted, outcome.abort), aborted, abort, outcome.rollouts);
        as_tabled(&what, (outcome.passed, outcome.pass), passed, pass, outcome.rollouts);
        if let Some(typical) = if aborted > passed { outcome.abort } else { outcome.pass } {
            let expected = per_minute * 0.05 * typical.minutes;
            close(typical.canary_calls, expected, 0.3 * expected);
        }
    }
}

/// First tokens on 5 % of the traffic, 30 minutes: share and median minute of aborts.
#[test]
fn slow_first_tokens_are_found_when_they_should_be() {
    let edges = |alpha: f64| first_token(alpha, json!({}));
    let tolerant = || first_token(0.05, json!({ "edges": [0.5, 1.0], "tolerance": 1.2, "passIf": { "oddsRatioBelow": { "0": 2 } } }));
    let shifted = &[0.5, 0.6, 1.0, 1.2][..];
    let all = [
        (edges(0.05), &EDGES[..], 300.0, 1.3, 1.0, 3.0),
        (edges(0.05), &EDGES, 60.0, 1.3, 0.89, 13.0),
        (tolerant(), shifted, 300.0, 1.6, 1.0, 3.0),
        (edges(0.05), &EDGES, 300.0, 1.15, 0.965, 11.0),
        (edges(0.05), &EDGES, 1500.0, 1.15, 1.0, 3.0),
        (edges(0.01), &EDGES, 60.0, 1.3, 0.73, 17.0),
        (edges(0.01), &EDGES, 300.0, 1.15, 0.89, 15.0),
        (edges(0.01), &EDGES, 300.0, 1.3, 1.0, 5.0),
        (edges(0.01), &EDGES, 1500.0, 1.15, 1.0, 4.0),
        (tolerant(), shifted, 60.0, 1.3, 0.11, 15.0),
        (tolerant(), shifted, 60.0, 1.6, 0.99, 10.0),
        (tolerant(), shifted, 300.0, 1.15, 0.005, 0.0),
        (tolerant(), shifted, 300.0, 1.3, 0.54, 15.0),
        (tolerant(), shifted, 1500.0, 1.15, 0.0, 0.0),
        (tolerant(), shifted, 1500.0, 1.3, 1.0, 6.0),
    ];
    let some = if asked().is_some() { all.len() } else { 3 };
    for (gate, bounds, per_minute, factor, aborted, minute) in &all[..some] {
        let outcome = play(gate, &worse(turns(*per_minute, bounds), *factor), 30);
        let what = format!("{per_minute} a minute, x{factor}, falseAbort {:?}", gate.false_abort);
        as_tabled(&what, (outcome.aborted, outcome.abort), *aborted, *minute, outcome.rollouts);
    }
}

/// First tokens of arms of one size, 5 % of the traffic each: share and median minute of aborts.
#[test]
fn arms_of_one_size_are_told_apart_as_soon_as_they_should() {
    let short = [(300.0, 1.3, 1.0, 7.0), (60.0, 1.6, 0.995, 12.0)];
    let long = [
        (60.0, 1.15, 0.09, 0.0),
        (60.0, 1.3, 0.458, 20.0),
        (300.0, 1.15, 0.69, 15.0),
        (300.0, 1.6, 1.0, 3.0),
        (1500.0, 1.15, 1.0, 5.0),
        (1500.0, 1.3, 1.0, 2.0),
        (1500.0, 1.6, 1.0, 1.0),
    ];
    let long = asked().map_or(&[][..], |_| &long);
    for (per_minute, factor, aborted, minute) in short.iter().chain(long).copied() {
        // A tenth of all calls, halved.
        let mut traffic = worse(turns(per_minute / 10.0, &EDGES), factor);
        traffic.steps[0].share = 0.5;
        let outcome = play(&first_token(0.05, json!({})), &traffic, 40);
        as_tabled(&format!("{per_minute} a minute, x{factor}"), (outcome.aborted, outcome.abort), aborted, minute, outcome.rollouts);
    }
}

/// A canary is shown to be less than 1.2 times slower: share and median minute of passes.
#[test]
fn a_canary_that_is_as_fast_is_shown_to_be() {
    let bounds = [0.5, 0.6, 1.0, 1.2];
    let fields = json!({ "edges": [0.5, 1.0], "minCanary": 1, "passIf": { "slowdownBelow": { "0": 1.2 } } });
    let gate = with(first_token(0.01, fields), 0.01);
    let same = play(&gate, &Traffic { minutes: 60.0, ..turns(1500.0, &bounds) }, 20);
    assert!(same.passed > 0.95, "{same:?}");
    let slower = play(&with(gate.clone(), 1e-12), &worse(Traffic { minutes: 60.0, ..turns(300.0, &bounds) }, 1.2), 40);
    assert!(slower.passed <= at_most(0.05, slower.rollouts), "{slower:?}");
}

/// Median calls of an equal canary until it is shown to stay below a margin, at three weights.
#[test]
fn passing_takes_as_many_calls_as_it_should() {
    let all = [
        (0.05, 4.0, 40.0, 40.0),
        (0.05, 3.0, 55.0, 65.0),
        (0.25, 4.0, 65.0, 91.0),
        (0.25, 3.0, 98.0, 114.0),
        (0.25, 2.0, 202.0, 249.0),
        (0.50, 4.0, 118.0, 184.0),
        (0.50, 3.0, 162.0, 206.0),
        (0.50, 2.0, 348.0, 469.0),
    ];
    for (share, margin, least, most) in all.into_iter().step_by(if asked().is_some() { 1 } else { 4 }) {
        let outcome = play(&passing(1e-9, margin), &calls(50.0, share, 120.0, BAD), 30);
        let found = outcome.pass.unwrap().canary_calls;
        assert!((0.7 * least..=1.3 * most).contains(&found), "{share} {margin}: {found}, not {least} to {most}");
    }
}

/// Evidence that is carried from weight to weight: ten minutes each, 50 calls a minute.
#[test]
fn evidence_is_carried_from_weight_to_weight() {
    let step = |from, share| Step { from, share, base: 1.0 };
    let steps = vec![step(0.0, 0.05), step(10.0, 0.25), step(20.0, 0.5)];
    for (canary, aborted, minute) in [(0.08, 0.007, 0.0), (0.15, 0.8, 0.0), (0.2, 1.0, 13.0)] {
        let traffic = Traffic { steps: steps.clone(), ..worse(calls(50.0, 0.05, 30.0, BAD), canary / BAD) };
        let outcome = play(&aborting(0.05), &traffic, 60);
        as_tabled(&format!("{canary}"), (outcome.aborted, outcome.abort), aborted, minute, outcome.rollouts);
    }
}

#[test]
fn a_release_goes_from_weight_to_weight_as_the_gate_passes() {
    let gate = with(compare(json!({ "minCanary": 1 })), 0.05);
    let mut traffic = calls(100.0, 0.05, 120.0, BAD);
    let one = play_the_same(&gate, &traffic).pass.unwrap();
    traffic.by_passing = true;
    assert_eq!(play_the_same(&gate, &traffic).pass.unwrap(), one, "one weight is a ladder too");
    traffic.steps.extend([0.25, 0.5].map(|share| Step { from: 0.0, share, base: 1.0 }));
    let outcome = play_the_same(&gate, &traffic);
    let all = outcome.pass.unwrap();
    assert!(outcome.passed > 0.8 && all.minutes > one.minutes && all.canary_calls > 4.0 * one.canary_calls, "{one:?} {outcome:?}");
    traffic.minutes = one.minutes;
    assert!(play_the_same(&gate, &traffic).passed < 0.3, "no time for three weights");
}

#[test]
fn with_too_few_calls_or_too_little_time_there_is_no_pass() {
    let outcome = play(&passing(0.05, 2.0), &calls(10.0, 0.05, 60.0, BAD), 60);
    assert!(outcome.inconclusive > 0.9, "{outcome:?}");
    assert_eq!(play(&aborting(0.05), &calls(200.0, 0.05, 30.0, BAD), 20).passed, 0.0);
    let baked = with(compare(json!({ "minCanary": 1, "minBake": "25m" })), 0.05);
    let pass = play(&baked, &calls(1000.0, 0.25, 30.0, BAD), 20).pass.unwrap();
    assert_eq!(pass.minutes, 25.0);
}

#[test]
fn good_calls_are_counted_as_bad_ones_the_other_way_round() {
    let good = with(gate("compare", json!({ "good": "ok_total", "total": "t", "minCanary": 1 })), 0.05);
    let traffic = worse(calls(100.0, 0.2, 30.0, BAD), 1.5);
    assert_eq!(play_the_same(&good, &traffic), play_the_same(&with(compare(json!({ "minCanary": 1 })), 0.05), &traffic));
}

#[test]
fn expected_calls_are_near_those_that_it_takes() {
    let plan = |gate: &Gate, traffic: &Traffic| Simulation::new(gate).unwrap().plan(traffic)[0];
    let gate = with(compare(json!({ "minCanary": 1 })), 0.05);
    let bad = worse(calls(50.0, 0.05, 120.0, BAD), 2.5);
    let abort = plan(&gate, &bad).to_abort.unwrap();
    close(abort.low, 45.0, 1.0);
    close(abort.high, 69.0, 1.0);
    let found = play(&gate, &bad, 40).abort.unwrap().canary_calls;
    assert!((0.7 * abort.low..1.3 * abort.high).contains(&found), "{found} {abort:?}");
    let same = plan(&gate, &calls(50.0, 0.05, 120.0, BAD));
    assert_eq!(same.to_abort, None);
    let found = play(&gate, &calls(50.0, 0.05, 120.0, BAD), 40).pass.unwrap().canary_calls;
    let pass = same.to_pass.unwrap();
    assert!((0.7 * pass.low..1.3 * pass.high).contains(&found), "{found} {pass:?}");
    // A slowdown within the tolerance is no reason to abort; one beyond it is.
    let tolerant =
        first_token(0.05, json!({ "edges": [0.5, 1.0], "tolerance": 1.2, "minCanary": 1, "passIf": { "slowdownBelow": { "0": 1.2 } } }));
    let slowed = |factor: f64| worse(turns(300.0, &[0.5, 0.6, 1.0, 1.2]), factor);
    assert_eq!((plan(&tolerant, &slowed(1.1)).to_abort, plan(&tolerant, &slowed(1.3)).to_pass), (None, None));
    let abort = plan(&tolerant, &slowed(1.6)).to_abort.unwrap();
    let found = play(&tolerant, &slowed(1.6), 30).abort.unwrap().canary_calls;
    assert!((0.5 * abort.low..1.3 * abort.high).contains(&found), "{found} {abort:?}");
    let pass = plan(&tolerant, &slowed(1.0)).to_pass.unwrap();
    let found = play(&tolerant, &Traffic { minutes: 120.0, ..slowed(1.0) }, 20).pass.unwrap().canary_calls;
    assert!((0.7 * pass.low..1.3 * pass.high).contains(&found), "{found} {pass:?}");
    let limit = gate_with_limit();
    let at = |rate: f64| plan(&limit, &calls(50.0, 0.05, 60.0, rate));
    assert!(at(0.15).to_abort.is_some() && at(0.15).to_pass.is_none() && at(0.02).to_abort.is_none() && at(0.02).to_pass.is_some());
}

fn gate_with_limit() -> Gate {
    with(gate("absolute", json!({ "bad": "b", "total": "t", "maxRate": 0.05 })), 0.05)
}

#[test]
fn what_cannot_be_played_says_why() {
    let threshold: Gate = serde_json::from_value(json!({ "name": "t", "threshold": { "successCondition": "result > 1",
        "provider": { "web": { "url": "http://h" } } } }))
    .unwrap();
    assert!(Simulation::new(&threshold).unwrap_err().contains("only compare, compareHistogram and absolute gates"));
    assert!(Simulation::new(&with(compare(json!({})), 0.7)).unwrap_err().contains("falseAbort: 0.7 is not a chance"));
    let gate = first_token(0.05, json!({}));
    let run = |traffic: &Traffic, rollouts| Simulation::new(&gate).unwrap().run(traffic, rollouts, 1);
    assert_eq!(run(&turns(60.0, &[0.7, 0.9]), 1), Err(SimulateError::Edges { gate: 3, traffic: 2 }));
    assert_eq!(run(&turns(60.0, &EDGES), 0), Err(SimulateError::NoRollouts));
    assert!(run(&turns(f64::NAN, &EDGES), 1).is_err());
}

#[test]
fn chances_come_with_how_far_they_are_off() {
    let outcome = |rollouts| Outcome { rollouts, aborted: 0.0, passed: 0.0, inconclusive: 1.0, abort: None, pass: None };
    close(outcome(400).standard_error(0.2), 0.02, 1e-12);
    // Wilson's interval, as in Brown, Cai, DasGupta (Statistical Science 16, 2001): none of 20, and 5 of 10.
    let (low, high) = outcome(20).interval(0.0);
    close(low, 0.0, 1e-12);
    close(high, 0.161_125, 1e-6);
    let (low, high) = outcome(10).interval(0.5);
    close(low, 0.236_593, 1e-6);
    close(high, 0.763_407, 1e-6);
}
