//! What a spec comes to: weights, pods, and every mistake at once.

use super::specs::*;
use super::world::World;
use crate::api::VoiceRolloutSpec;
use crate::api::analysis::Mode;
use crate::api::common::seconds;
use crate::api::rollout::{CanaryScale, Pause, Step};
use crate::core::plan::Plan;

fn plan(spec: VoiceRolloutSpec) -> Plan {
    World::new(spec).plan()
}

/// Paths of what is wrong.
fn wrong(change: impl FnOnce(&mut VoiceRolloutSpec)) -> Vec<String> {
    let mut s = spec(Some(vec![weight(5), analysis(&["p95"])]), None);
    change(&mut s);
    plan(s).errors.into_iter().map(|e| e.path).collect()
}

#[test]
fn pods_follow_the_weight_upwards_and_any_traffic_has_one() {
    let mut s = spec(Some(vec![weight(0)]), None);
    for (replicas, percent, pods) in
        [(10, 1, 1), (10, 25, 3), (10, 0, 0), (3, 50, 2), (1, 1, 1), (0, 50, 1), (10_000, 33, 3300), (10, 100, 10)]
    {
        s.replicas = replicas;
        assert_eq!(plan(s.clone()).canary_pods_at(0, percent), pods, "{percent} % of {replicas}");
    }
}

#[test]
fn a_canary_scale_holds_until_the_next_one() {
    let percent = Step { set_canary_scale: Some(CanaryScale { weight: Some(50), ..CanaryScale::default() }), ..Step::default() };
    let follow =
        Step { set_canary_scale: Some(CanaryScale { match_traffic_weight: Some(true), ..CanaryScale::default() }), ..Step::default() };
    let p = plan(spec(Some(vec![scale(2), weight(5), percent, weight(20), follow, weight(30)]), None));
    let pods: Vec<i32> = (0..6).map(|i| p.canary_pods_at(i, p.weight_at(i))).collect();
    assert_eq!(pods, [2, 2, 5, 5, 2, 3]);
    assert_eq!((0..7).map(|i| p.weight_at(i)).collect::<Vec<_>>(), [0, 5, 5, 20, 20, 30, 30]);
}

#[test]
fn every_mistake_is_found_with_its_path() {
    assert_eq!(wrong(|_| ()), [""; 0]);
    let both = Step { set_weight: Some(5), pause: Some(Pause::default()), ..Step::default() };
    let paths = wrong(|s| {
        s.steps = Some(vec![
            weight(101),
            Step::default(),
            both,
            require(&["nobody"]),
            Step { set_canary_scale: Some(CanaryScale::default()), ..Step::default() },
        ]);
        s.traffic.istio.as_mut().unwrap().canary_service = Some("agent-stable".into());
        s.selector.match_labels = Some([("app".to_string(), "other".to_string())].into());
        s.progress_deadline = seconds(10);
        s.min_ready_seconds = 10;
    });
    let expected = [
        "spec.progressDeadline",
        "spec.steps[0].setWeight",
        "spec.steps[1]",
        "spec.steps[2]",
        "spec.steps[3].analysis.require[0]",
        "spec.steps[4].setCanaryScale",
        "spec.template.metadata.labels",
        "spec.traffic.istio.canaryService",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn mistakes_of_the_background_gates() {
    assert_eq!(wrong(|s| s.steps = Some(vec![])), ["spec.steps"]);
    assert_eq!(wrong(|s| (s.steps, s.analysis) = (None, None)), ["spec.analysis"]);
    let mut dry = gate("live");
    dry.mode = Mode::DryRun;
    assert_eq!(wrong(|s| (s.steps, s.analysis) = (None, Some(gates(vec![dry])))), ["spec.analysis"]);
    let (mut once, mut ends, mut signal) = (gate("once"), gate("ends"), gate("signal"));
    once.threshold.as_mut().unwrap().interval = None;
    ends.threshold.as_mut().unwrap().consecutive_success_limit = 3;
    (signal.threshold.as_mut().unwrap().count, signal.mode) = (Some(3), Mode::Signal);
    assert_eq!(
        wrong(|s| s.analysis = Some(gates(vec![once, ends, signal]))),
        ["spec.analysis gate 0 (once)", "spec.analysis gate 1 (ends)"]
    );
}
