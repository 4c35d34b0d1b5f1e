//! Whole releases that go well.

use super::specs::*;
use super::world::World;
use crate::api::status::Phase;

#[test]
fn default_steps_go_5_25_50_100_each_behind_the_background_gates() {
    let mut w = World::releasing(spec(None, Some(gates(vec![gate("p95")]))));
    let mut weights = vec![];
    w.until("promoted", |w| w.status.phase == Phase::Healthy && w.status.stable_revision == Some(hash(2)));
    for d in &w.status.decisions {
        if d.decision == "WeightApplied" {
            weights.push(d.reason.split(' ').next().unwrap().to_string());
        }
    }
    assert_eq!(weights, ["5", "25", "50", "100"], "{}", w.describe());
}
