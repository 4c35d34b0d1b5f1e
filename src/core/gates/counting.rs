//! Gates that count calls, in a run.

use serde_json::json;

use super::world::{World, start, with};
use super::*;
use crate::api::run::Verdict;
use crate::api::run::{Consequence, RunKind};
use crate::core::window::add;

const RUNNING: (RunPhase, Option<Verdict>, Option<Consequence>) = (RunPhase::Running, None, None);
const PASSED: (RunPhase, Option<Verdict>, Option<Consequence>) = (RunPhase::Pass, Some(Verdict::Pass), None);
const ABORTED: (RunPhase, Option<Verdict>, Option<Consequence>) = (RunPhase::Fail, Some(Verdict::Fail), Some(Consequence::Abort));

/// Answers `times` measurements of the first gate with counters that grow by so many calls and bad ones, canary's and
/// stable's.
fn count(world: &mut World, times: usize, canary: [u64; 2], stable: [u64; 2]) {
    for _ in 0..times {
        let memory = world.status.gates.first().and_then(|g| g.memory.clone()).unwrap_or_default();
        let pod = |name: &str, more: [u64; 2]| {
            let known = memory.pods.iter().find(|p| p.pod == name).map_or([0, 0], |p| [p.counts[0], p.counts[1]]);
            let counts = known.iter().zip(more).map(|(n, more)| Some(u64::try_from(*n).unwrap() + more)).collect();
            let scraped = memory.at.as_ref().map_or(0, |t| t.0.as_second()) as f64 + 1.0;
            calls::PodSample { pod: name.into(), canary: name == "c", scraped, counts }
        };
        let pods = vec![pod("c", canary), pod("s", stable)];
        let at = memory.at.map_or(start().as_second(), |t| t.0.as_second() + 30);
        world.answer(0, &Outcome::Counted(calls::Snapshot { at, pods, buckets: vec![] }));
        if world.status.phase != RunPhase::Running {
            return;
        }
    }
}

fn counting(kind: &str, fields: serde_json::Value) -> serde_json::Value {
    let mut gate = json!({ "prometheus": { "address": "http://p" }, "bad": "b", "total": "t", "warmup": "0s" });
    gate.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "name": "calls", kind: gate })
}

#[test]
fn a_comparison_runs_through_the_whole_release() {
    let mut world = World::one(RunKind::Background, counting("compare", json!({})));
    let plan = world.plan();
    assert_eq!(plan.wake_at, Some(add(start(), Duration::from_secs(15))), "the baseline is of the time with traffic");
    count(&mut world, 20, [10, 4], [200, 8]);
    assert_eq!(world.state(), ABORTED);
    assert!(world.gate().memory.is_some() && world.gate().value.is_some());
    assert!(world.status.message.starts_with("calls: ") && world.status.message.contains("abort line 100x"), "{}", world.status.message);

    let mut world = World::one(RunKind::Background, counting("compare", json!({})));
    count(&mut world, 3, [10, 1], [190, 19]);
    assert_eq!((world.state(), world.gate().passing), (RUNNING, false));
    count(&mut world, 20, [10, 0], [190, 19]);
    assert_eq!((world.state(), world.gate().passing), (RUNNING, true), "it ends with the promotion only");
    assert!(world.gate().counts.pass > 0 && world.gate().last_pass_at.is_some());

    // Without calls nothing is decided, also not by time: that is the release's to say, which knows the weight.
    let mut world = World::one(RunKind::Background, counting("compare", json!({})));
    count(&mut world, 200, [0, 0], [190, 19]);
    assert_eq!((world.state(), world.gate().passing, world.gate().counts.pass), (RUNNING, false, 0));
    world.spec.stop = true;
    world.plan();
    assert_eq!((world.status.phase, world.gate().verdict), (RunPhase::Stopped, None));
}

#[test]
fn a_limit_in_a_step_ends_with_its_verdict() {
    let limit = || counting("absolute", json!({ "maxRate": 0.05, "minCanary": 30 }));
    let mut world = World::one(RunKind::Step, limit());
    count(&mut world, 40, [20, 0], [0, 0]);
    world.plan();
    assert_eq!(world.state(), PASSED);
    let mut world = World::one(RunKind::Step, limit());
    count(&mut world, 40, [20, 6], [0, 0]);
    assert_eq!(world.state(), ABORTED);
    // A limit that nobody comes near is undecided for as long as there are no calls.
    let mut world = World::one(RunKind::Step, with(limit(), json!({ "maxDuration": "10m" })));
    count(&mut world, 25, [0, 0], [0, 0]);
    assert_eq!(world.state(), (RunPhase::Running, Some(Verdict::Inconclusive), Some(Consequence::Pause)));
}

#[test]
fn an_outage_leaves_the_evidence_as_it_was() {
    let mut world = World::one(RunKind::Background, counting("compare", json!({})));
    count(&mut world, 3, [10, 1], [190, 19]);
    let (memory, comparison) = (world.gate().memory.clone(), world.gate().comparison.clone());
    world.answers("EIE");
    assert_eq!((&world.gate().memory, &world.gate().comparison), (&memory, &comparison));
    assert_eq!(world.gate().counts.error, 2);
    // What came in between counts once the provider answers again.
    count(&mut world, 1, [30, 3], [600, 60]);
    assert_eq!(world.gate().comparison.as_ref().unwrap().canary.calls, 50);
}
