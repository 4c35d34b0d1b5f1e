//! Random stories: the invariants hold after every pass, and when faults stop a release comes to rest.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::events::{Event, Story, event};
use super::invariants::check;
use super::world::World;
use crate::api::status::Phase;

fn tell(events: &[Event], mut story: Story) -> Result<World, String> {
    story.run(120)?;
    for event in events {
        story.happen(event).map_err(|e| format!("at {event:?}: {e}"))?;
    }
    story.faults_stop();
    comes_to_rest(&mut story)?;
    Ok(story.world)
}

/// I9.
fn comes_to_rest(story: &mut Story) -> Result<(), String> {
    for _ in 0..60 {
        story.run(4000)?;
        let w = &story.world;
        let decision = w.decide();
        let rest = matches!(w.status.phase, Phase::Healthy | Phase::Paused | Phase::Degraded);
        if rest && decision.wake_at.is_none() && decision.intents.is_empty() && decision.urgent.is_empty() && decision.events.is_empty() {
            let same = decision.counts_only.is_some() || super::world::stored(&decision.status) == w.status;
            return if w.owes() {
                Err(format!("at rest with canary traffic on a route that is not named\n{}", w.describe()))
            } else if same {
                Ok(())
            } else {
                Err(format!("I9: at rest and still writing\n{}", w.describe()))
            };
        }
    }
    Err(format!("I9: never comes to rest\n{}", story.world.describe()))
}

/// What traces show fits together.
fn traced(world: World) -> Result<World, String> {
    super::spans::check(&world.spans).map_err(|e| format!("{e}\n{}", world.describe()))?;
    Ok(world)
}

/// After any story the deletion leaves stable at 100.
fn leaves(mut world: World) -> Result<(), String> {
    world.seen.deleting = true;
    for _ in 0..50 {
        world.step(world.later(10));
    }
    if world.gone && world.applied() == 0 && !world.owes() { Ok(()) } else { Err(format!("deletion\n{}", world.describe())) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_invariants_hold_in_every_story_and_it_comes_to_rest(events in prop::collection::vec(event(), 1..80)) {
        let end = tell(&events, Story::new(check)).and_then(traced).and_then(leaves);
        prop_assert!(end.is_ok(), "{}", end.unwrap_err());
    }

}

proptest! {
    // Most of the machine is the same: fewer stories do.
    #![proptest_config(ProptestConfig { cases: config().cases.min(64).max(config().cases / 4), ..config() })]

    #[test]
    fn the_invariants_hold_in_every_story_of_workers_that_pull_their_jobs(events in prop::collection::vec(event(), 1..80)) {
        let end = tell(&events, Story::of_workers(check)).and_then(traced).and_then(leaves);
        prop_assert!(end.is_ok(), "{}", end.unwrap_err());
    }
}

/// The same 256 stories each time; with `PROPTEST_CASES` that many new ones.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig { cases: asked.unwrap_or(256), rng_seed, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() }
}
