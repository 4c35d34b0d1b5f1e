use serde_json::json;

use super::{compare, gate, with};
use crate::api::analysis::Gate;
use crate::api::run::Verdict;
use crate::core::gates::calls::replay::{Replay, Said};

/// Ticks of (canary bad, canary calls, stable bad, stable calls), a minute apart.
fn play(gate: &Gate, weight: i32, ticks: &[(u64, u64, u64, u64)]) -> Vec<Said> {
    let mut replay = Replay::new(gate).unwrap();
    let said = ticks.iter().enumerate().map(|(i, (yc, nc, ys, ns))| {
        let tick = json!({ "t": 60 * i, "weight": weight, "canary": { "n": nc, "bad": yc }, "stable": { "n": ns, "bad": ys } });
        replay.tick(&serde_json::from_value(tick).unwrap()).unwrap()
    });
    said.collect()
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-8), "{found:?} {expected:?}");
}

#[test]
fn the_mixture_of_seven_ticks() {
    let gate = with(compare(json!({})), 0.05);
    let ticks = [(1, 3, 4, 57), (0, 2, 5, 60), (2, 3, 3, 55), (1, 4, 6, 61), (2, 2, 4, 58), (0, 0, 3, 56), (1, 3, 5, 59)];
    let said = play(&gate, 5, &ticks);
    let logs: Vec<f64> = said.iter().map(|s| s.log_e).collect();
    near(&logs, &[0.491763741, 0.245942643, 1.785721230, 2.054621350, 4.161397882, 4.161397882, 4.783770072]);
    let verdicts: Vec<Verdict> = said.iter().map(|s| s.verdict).collect();
    assert_eq!(verdicts[..4], [Verdict::Inconclusive; 4]);
    assert_eq!(verdicts[4..], [Verdict::Fail; 3], "ln 20 is crossed at the fifth tick, and output goes on");
    let last = said.last().unwrap();
    assert_eq!(((last.known.canary.bad, last.known.canary.calls), last.known.stable.unwrap().calls), ((7, 17), 406));
}

#[test]
fn evidence_for_the_canary_at_a_margin_of_two() {
    let gate = with(compare(json!({ "passIf": { "oddsRatioBelow": { "0": 2 } } })), 0.05);
    let said = play(&gate, 5, &[(0, 10, 9, 110), (1, 12, 8, 108), (0, 9, 10, 111), (1, 11, 9, 109)]);
    near(&[said[3].log_e_pass], &[1.675448152]);
}

#[test]
fn a_weight_takes_the_margin_of_the_next_lower_one() {
    let gate = compare(json!({}));
    let ticks = [(0, 40, 60, 700)];
    let at = |weight| play(&gate, weight, &ticks)[0].log_e_pass;
    assert_eq!((at(1), at(24)), (at(5), at(5)));
    assert_eq!((at(25), at(49), at(100)), (at(30), at(25), at(50)));
    assert!(at(5) > at(25) && at(25) > at(50), "a wider margin is easier to keep");
}

#[test]
fn it_passes_with_enough_calls_and_time_only() {
    let ticks: Vec<_> = (0..20).map(|_| (0, 10, 8, 100)).collect();
    let first_pass = |gate: &Gate| play(gate, 5, &ticks).iter().position(|s| s.verdict == Verdict::Pass);
    let soon = first_pass(&compare(json!({ "minCanary": 1 }))).unwrap();
    assert!(soon < 8, "{soon}");
    assert_eq!(first_pass(&compare(json!({ "minCanary": 120 }))), Some(11));
    assert_eq!(first_pass(&compare(json!({ "minBake": "15m" }))), Some(15));
    let mut late = compare(json!({ "minBake": "5m" }));
    late.min_duration = Some(crate::api::common::seconds(1080));
    assert_eq!(first_pass(&late), Some(18));
    assert_eq!(first_pass(&compare(json!({ "minCanary": 1000 }))), None);
}

#[test]
fn buckets_and_their_edges() {
    let edges = json!({ "metric": "first_token_ms_bucket", "edges": [700, 900] });
    let tick = |canary: [u64; 3], stable: [u64; 3]| {
        let arm = |c: [u64; 3]| json!({ "n": 100, "buckets": { "700": c[0], "900": c[1], "1080.0": c[2], "+Inf": 100 } });
        serde_json::from_value(json!({ "t": 1, "weight": 5, "canary": arm(canary), "stable": arm(stable) })).unwrap()
    };
    let plain = gate("compareHistogram", edges.clone());
    let said = Replay::new(&plain).unwrap().tick(&tick([60, 80, 90], [70, 92, 97])).unwrap();
    assert_eq!((said.known.edge, said.known.canary.bad, said.known.stable.unwrap().bad), (Some(900.0), 20, 8));
    let mut counts = compare(json!({}));
    counts.false_abort = None;
    let of = |bad: (u64, u64, u64, u64)| play(&counts, 5, &[bad])[0].log_e;
    let mean = ((of((40, 100, 30, 100)).exp() + of((20, 100, 8, 100)).exp()) / 2.0).ln();
    near(&[said.log_e], &[mean]);

    // 1.2 times 900 is 1080: the canary's calls above that are compared with stable's above 900.
    let mut tolerant = edges;
    tolerant["edges"] = json!([900]);
    tolerant["tolerance"] = json!(1.2);
    let said = Replay::new(&gate("compareHistogram", tolerant.clone())).unwrap().tick(&tick([60, 80, 90], [70, 92, 97])).unwrap();
    assert_eq!((said.known.canary.bad, said.known.stable.unwrap().bad), (10, 8));
    near(&[said.log_e], &[of((10, 100, 8, 100))]);

    // Passing by slowdown looks at the same shifted edges.
    tolerant["tolerance"] = json!(null);
    tolerant["passIf"] = json!({ "slowdownBelow": { "5": 1.2 } });
    let slow: Gate = gate("compareHistogram", tolerant);
    let mut replay = Replay::new(&slow).unwrap();
    let same = replay.tick(&tick([70, 92, 97], [70, 92, 97])).unwrap();
    assert!(same.log_e_pass > 0.0 && same.known.pass[0].below == "1.2 times slower", "{same:?}");
    let slower = Replay::new(&slow).unwrap().tick(&tick([50, 70, 90], [70, 92, 97])).unwrap();
    assert!(slower.log_e_pass < 0.0 && slower.log_e > 0.0, "{slower:?}");
}

#[test]
fn ticks_that_cannot_be() {
    let histogram = gate("compareHistogram", json!({ "metric": "x_bucket", "edges": [0.7] }));
    let limit = gate("absolute", json!({ "bad": "b", "total": "t", "maxRate": 0.1 }));
    let counts = compare(json!({}));
    for (gate, tick, part) in [
        (
            &counts,
            json!({ "t": 1, "weight": 5, "canary": { "n": 1, "bad": 2 }, "stable": { "n": 1, "bad": 0 } }),
            "canary: 2 bad calls are more than n 1",
        ),
        (&counts, json!({ "t": 1, "weight": 101, "canary": { "n": 1, "bad": 0 }, "stable": { "n": 1, "bad": 0 } }), "weight 101"),
        (&counts, json!({ "t": 1, "weight": 5, "canary": { "n": 1, "bad": 0 } }), "`stable` is missing"),
        (&counts, json!({ "t": 1, "weight": 5, "canary": { "n": 1, "buckets": {} }, "stable": { "n": 1, "bad": 0 } }), "give n and bad"),
        (&histogram, json!({ "t": 1, "weight": 5, "canary": { "n": 1, "bad": 0 }, "stable": { "n": 1, "bad": 0 } }), "give n and buckets"),
        (
            &histogram,
            json!({ "t": 1, "weight": 5, "canary": { "n": 2, "buckets": { "0.5": 1, "1": 2 } }, "stable": { "n": 1, "buckets": {} } }),
            "0.7 is not the bound of a bucket; there are 0.5, 1",
        ),
        (
            &histogram,
            json!({ "t": 1, "weight": 5, "canary": { "n": 2, "buckets": { "0.7": 2, "1": 1 } }, "stable": { "n": 1, "buckets": {} } }),
            "buckets are cumulative",
        ),
        (
            &histogram,
            json!({ "t": 1, "weight": 5, "canary": { "n": 2, "buckets": { "0.7": 3 } }, "stable": { "n": 1, "buckets": {} } }),
            "more than n 2",
        ),
    ] {
        let stable = Replay::new(gate).unwrap().tick(&serde_json::from_value(tick.clone()).unwrap()).unwrap_err();
        // Arms are read one after the other, stable first.
        let mut turned = tick.clone();
        if let Some(stable) = turned.get("stable").cloned() {
            turned["canary"] = stable.clone();
            turned["stable"] = tick["canary"].clone();
        }
        let canary = Replay::new(gate).unwrap().tick(&serde_json::from_value(turned).unwrap()).unwrap_err();
        assert!(
            [stable.as_str(), canary.as_str()].iter().any(|e| e.contains(part.trim_start_matches("canary: "))),
            "{part}: {stable} {canary}"
        );
    }
    let mut replay = Replay::new(&limit).unwrap();
    let tick = |t: f64| serde_json::from_value(json!({ "t": t, "weight": 5, "canary": { "n": 1, "bad": 0 } })).unwrap();
    assert!(replay.tick(&tick(1.5)).is_ok(), "a limit needs no stable arm");
    assert!(replay.tick(&tick(1.5)).unwrap_err().contains("does not come after"));
    let threshold: Gate = serde_json::from_value(json!({ "name": "t", "threshold": { "successCondition": "result > 1",
        "provider": { "web": { "url": "http://h" } } } }))
    .unwrap();
    assert!(Replay::new(&threshold).unwrap_err().contains("can be replayed"));
}

/// The recipe for an error budget: with an objective of 99.9 % and a burn rate of 14.4, two hours of which use up a tenth
/// of a month's budget, more than 1.44 % of calls may not fail.
#[test]
fn a_burn_rate_is_a_limit() {
    let burn = with(gate("absolute", json!({ "good": "ok_total", "total": "ended_total", "maxRate": 0.0144, "minCanary": 100 })), 0.01);
    let run = |bad_each: &[u64]| {
        let mut replay = Replay::new(&burn).unwrap();
        let tick = |i: usize, bad: u64| json!({ "t": 30 * i, "weight": 5, "canary": { "n": 100, "bad": bad } });
        let said = bad_each.iter().enumerate().map(|(i, bad)| replay.tick(&serde_json::from_value(tick(i, *bad)).unwrap()).unwrap());
        said.collect::<Vec<_>>()
    };
    // 5 % failed: 50 times the objective, caught soon; within the objective: never, and it passes.
    let burning = run(&[5; 30]);
    let caught = burning.iter().position(|s| s.verdict == Verdict::Fail).unwrap();
    assert!(caught < 12, "{caught}");
    let healthy = run(&[0, 0, 0, 0, 1].repeat(20));
    assert!(healthy.iter().all(|s| s.verdict != Verdict::Fail));
    assert_eq!(healthy.last().unwrap().verdict, Verdict::Pass);
}
