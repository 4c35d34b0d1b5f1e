//! Revisions that get no new calls keep those they have.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::invariants::check;
use super::specs::*;
use super::world::World;
use crate::api::VoiceRolloutSpec;
use crate::api::action::Verb;
use crate::api::common::seconds;
use crate::api::sessions::{ActiveCalls, Drain, OnMaxDrain, Sessions};
use crate::api::status::{Phase, Role};
use crate::core::intent::Intent;
use crate::core::observe::BudgetSeen;

pub(super) fn counted(steps: Vec<crate::api::rollout::Step>) -> VoiceRolloutSpec {
    let http = serde_json::from_value(serde_json::json!({})).unwrap();
    let active_calls = ActiveCalls { http: Some(http), prometheus: None };
    VoiceRolloutSpec { replicas: 4, sessions: Some(Sessions { active_calls, interval: seconds(5) }), ..spec(Some(steps), None) }
}

pub(super) fn revision(w: &World, n: u32) -> &crate::api::status::RevisionStatus {
    w.status.revisions.iter().find(|r| r.hash == hash(n)).unwrap()
}

pub(super) fn wanted(w: &World, n: u32) -> i32 {
    w.seen.replica_set(&hash(n)).map_or(0, |s| s.wanted)
}

/// Every pod of version 1 talks; version 2 is stable.
fn promoted_over(calls: u64) -> World {
    let mut w = World::deployed(counted(vec![weight(50)]));
    for agent in &mut w.agents {
        agent.calls = calls;
    }
    w.apply_version(2);
    w.until("version 2 is stable", |w| w.status.stable_revision == Some(hash(2)));
    w
}

#[test]
fn pods_go_when_their_calls_have_ended_and_not_before() {
    let mut w = promoted_over(1);
    w.run(600);
    assert_eq!((wanted(&w, 1), revision(&w, 1).role, revision(&w, 1).live_calls), (4, Role::Draining, Some(4)), "{}", w.describe());
    assert_eq!(w.status.live_calls, "v2 0, v1 4");
    w.agents.iter_mut().filter(|a| a.hash == hash(1)).take(3).for_each(|a| a.calls = 0);
    w.run(120);
    assert_eq!((wanted(&w, 1), w.calls_of(&hash(1))), (1, 1), "the three idle ones are gone: {}", w.describe());
    w.hang_up(0);
    w.settle();
    assert_eq!((wanted(&w, 1), revision(&w, 1).role, w.status.live_calls.as_str()), (0, Role::Retired, ""), "{}", w.describe());
    assert!(w.gone_pods.iter().all(|g| g.calls == 0) && revision(&w, 1).calls_cut == 0);
}

#[test]
fn pods_that_cannot_be_read_stay_until_max_drain() {
    let mut w = promoted_over(0);
    for agent in &mut w.agents {
        agent.readable = agent.hash != hash(1);
    }
    w.run(3000);
    assert_eq!((wanted(&w, 1), revision(&w, 1).unread_pods), (4, 4), "{}", w.describe());
    let condition = w.status.conditions.iter().find(|c| c.type_ == "CallsReadable").unwrap();
    assert_eq!((condition.status.as_str(), condition.message.contains("no answer")), ("False", true));
    w.run(700);
    assert_eq!((wanted(&w, 1), w.decided("DrainOverdue")), (0, 1), "{}", w.describe());
}

#[test]
fn calls_that_outlive_max_drain_are_ended_and_counted_or_kept_as_the_spec_says() {
    let mut w = promoted_over(2);
    w.run(4000);
    assert_eq!(
        (wanted(&w, 1), revision(&w, 1).calls_cut, w.decided("DrainOverdue"), w.decided("CallsCut")),
        (0, 8, 1, 1),
        "{}",
        w.describe()
    );
    assert_eq!(w.told.iter().filter(|t| *t == "CallsCut").count(), 1);

    let mut w = World::deployed(VoiceRolloutSpec {
        drain: Drain { on_max_drain: OnMaxDrain::Keep, ..Drain::default() },
        ..counted(vec![weight(50)])
    });
    w.agents.iter_mut().for_each(|a| a.calls = 2);
    w.apply_version(2);
    w.run(8000);
    assert_eq!((wanted(&w, 1), revision(&w, 1).overdue, w.decided("DrainOverdue")), (4, true, 1), "{}", w.describe());
    w.agents.iter_mut().for_each(|a| a.calls = 0);
    w.run(200);
    assert_eq!((wanted(&w, 1), revision(&w, 1).calls_cut), (0, 0), "{}", w.describe());
}

#[test]
fn an_aborted_version_drains_and_a_retry_takes_it_back_at_once() {
    let mut w = World::releasing(counted(vec![weight(50), pause(None)]));
    w.until_phase(Phase::Paused);
    w.agents.iter_mut().filter(|a| a.hash == hash(2)).for_each(|a| a.calls = 1);
    assert!(w.command(Verb::Abort).0);
    w.run(600);
    assert_eq!((wanted(&w, 2), w.status.phase, revision(&w, 2).role), (2, Phase::Degraded, Role::Draining), "{}", w.describe());
    assert!(w.agents.iter().filter(|a| a.hash == hash(2)).all(|a| a.mark.is_some()), "evictions are held off");
    let made = w.pods_made;
    assert!(w.command(Verb::Retry).0);
    w.until_weight(50);
    assert_eq!((w.pods_made, wanted(&w, 2)), (made, 2), "the same pods: {}", w.describe());
    assert!(w.agents.iter().all(|a| a.mark.is_none()), "and they are as they were");
    assert!(w.seen.budgets.is_empty());
}

#[test]
fn a_revision_that_drains_has_a_budget_unless_the_user_has_one() {
    let mut w = promoted_over(1);
    w.run(60);
    assert_eq!(w.seen.budgets, [BudgetSeen { name: format!("{SET}-{}-drain", hash(1)), ours: true, covers: vec![hash(1)] }]);
    w.seen.budgets.push(BudgetSeen { name: "theirs".into(), ours: false, covers: vec![hash(1), hash(2)] });
    w.run(60);
    assert_eq!(w.seen.budgets.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["theirs"], "two on one pod make evictions fail");
    w.seen.budgets.clear();
    w.run(60);
    assert_eq!(w.seen.budgets.len(), 1);
    w.agents.iter_mut().for_each(|a| a.calls = 0);
    w.settle();
    assert!(w.seen.budgets.is_empty(), "{}", w.describe());
}

#[test]
fn a_release_waits_while_as_many_revisions_live_as_may() {
    let mut w = promoted_over(1);
    w.agents.iter_mut().for_each(|a| a.calls = 1);
    w.apply_version(3);
    w.until("version 3 is stable", |w| w.status.stable_revision == Some(hash(3)));
    w.agents.iter_mut().for_each(|a| a.calls = 1);
    w.apply_version(4);
    w.run(300);
    assert_eq!(wanted(&w, 4), 0, "{}", w.describe());
    assert!(w.status.waiting_for.contains("maxLiveRevisions") && w.status.waiting_for.contains(&hash(1)), "{}", w.status.waiting_for);
    w.agents.iter_mut().filter(|a| a.hash == hash(1)).for_each(|a| a.calls = 0);
    w.until("version 4 is stable", |w| w.status.stable_revision == Some(hash(4)));
    assert_eq!((wanted(&w, 2), wanted(&w, 3)), (4, 4), "those drain on");
}

#[test]
fn fewer_replicas_of_stable_take_idle_pods_and_wait_for_the_others() {
    let mut w = World::deployed(counted(vec![weight(50)]));
    w.agents.iter_mut().take(3).for_each(|a| a.calls = 1);
    w.read_pods();
    w.edit(|s| s.replicas = 1);
    w.run(300);
    assert_eq!((wanted(&w, 1), w.gone_pods.iter().map(|g| g.calls).sum::<u64>()), (3, 0), "{}", w.describe());
    w.agents.iter_mut().filter(|a| a.out.is_some()).for_each(|a| a.calls = 0);
    w.run(300);
    assert_eq!((wanted(&w, 1), w.calls_of(&hash(1))), (1, 1), "{}", w.describe());
    w.settle();
    assert!(w.agents.iter().all(|a| a.mark.is_none() && a.out.is_none()), "{}", w.describe());
}

/// The marks say which pods go: without them the newest would, whoever talks on it.
#[test]
fn marks_stay_until_the_replica_set_controller_has_picked_its_pods() {
    let mut w = World::deployed(counted(vec![weight(50)]));
    w.agents.iter_mut().take(3).for_each(|a| a.calls = 1);
    w.read_pods();
    w.edit(|s| s.replicas = 3);
    w.until("asked to be smaller", |w| wanted(w, 1) == 3);
    let unmarked = |w: &World| w.decide().intents.iter().filter(|i| matches!(i, Intent::MarkPod { mark: None, .. })).count();
    assert!(!w.seen.replica_sets[0].current && unmarked(&w) == 0, "not seen by its controller: {}", w.describe());
    w.seen.replica_sets[0].current = true;
    assert!(w.seen.replica_sets[0].exist == 4 && unmarked(&w) == 0, "seen, and no pod is gone: {}", w.describe());
    w.settle();
    assert!(w.agents.len() == 3 && w.agents.iter().all(|a| a.mark.is_none()), "{}", w.describe());
}

#[test]
fn a_busy_stable_gets_smaller_though_calls_come_all_the_while() {
    let mut w = World::deployed(counted(vec![weight(50)]));
    w.agents.iter_mut().for_each(|a| a.calls = 2);
    w.edit(|s| s.replicas = 2);
    for i in 0..60 {
        w.run(10);
        w.call(i);
        if i % 2 == 0 {
            w.hang_up(i / 2);
        }
    }
    w.agents.iter_mut().filter(|a| a.out.is_some()).for_each(|a| a.calls = 0);
    let talking = w.agents.iter().filter(|a| a.out.is_none()).map(|a| a.calls).sum::<u64>();
    assert!(talking > 20, "{}", w.describe());
    w.run(120);
    assert_eq!((wanted(&w, 1), w.calls_of(&hash(1)), w.gone_pods.iter().map(|g| g.calls).sum()), (2, talking, 0), "{}", w.describe());
    w.edit(|s| s.replicas = 1);
    w.run(30);
    assert_eq!(w.agents.iter().filter(|a| a.out.is_some()).count(), 1);
    w.edit(|s| s.replicas = 2);
    w.run(30);
    assert!(w.agents.iter().all(|a| a.mark.is_none() && a.out.is_none()), "it is wanted again: {}", w.describe());
}

#[test]
fn a_busy_stable_that_should_be_smaller_is_told_once_and_ends_or_waits_as_the_spec_says() {
    for (on_max_drain, left) in [(OnMaxDrain::Terminate, 1), (OnMaxDrain::Keep, 4)] {
        let drain = Drain { on_max_drain, ..Drain::default() };
        let mut w = World::deployed(VoiceRolloutSpec { drain, ..counted(vec![weight(50)]) });
        w.agents.iter_mut().for_each(|a| a.calls = 1);
        w.edit(|s| s.replicas = 1);
        w.run(3500);
        assert_eq!((wanted(&w, 1), w.decided("DrainOverdue")), (4, 0), "{}", w.describe());
        w.run(600);
        assert_eq!((wanted(&w, 1), w.decided("DrainOverdue")), (left, 1), "{on_max_drain:?}: {}", w.describe());
    }
}

#[test]
fn stable_gets_its_pods_back_however_many_revisions_live() {
    let mut w = promoted_over(1);
    w.agents.iter_mut().for_each(|a| a.calls = 1);
    w.apply_version(3);
    w.until("version 3 is stable", |w| w.status.stable_revision == Some(hash(3)));
    w.edit(|s| (s.replicas, s.max_live_revisions) = (0, 2));
    w.run(200);
    assert_eq!(wanted(&w, 3), 0, "{}", w.describe());
    w.edit(|s| s.replicas = 4);
    w.run(60);
    assert_eq!((wanted(&w, 3), w.status.phase), (4, Phase::Healthy), "{}", w.describe());
}

#[derive(Clone, Debug)]
pub(super) enum Happens {
    Calls(usize),
    HangUps(usize),
    Unreadable(usize, bool),
    Unready(usize, bool),
    Crash(usize),
    OtherCosts(usize),
    Version(u32),
    Abort,
    Retry,
    Replicas(i32),
    Wait(i64),
}

pub(super) fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1usize..20).prop_map(Happens::Calls),
        3 => (1usize..20).prop_map(Happens::HangUps),
        1 => (0usize..40, any::<bool>()).prop_map(|(n, yes)| Happens::Unreadable(n, yes)),
        1 => (0usize..40, any::<bool>()).prop_map(|(n, yes)| Happens::Unready(n, yes)),
        1 => (0usize..40).prop_map(Happens::Crash),
        1 => (0usize..40).prop_map(Happens::OtherCosts),
        1 => (1u32..5).prop_map(Happens::Version),
        1 => Just(Happens::Abort),
        1 => Just(Happens::Retry),
        1 => (1i32..6).prop_map(Happens::Replicas),
        4 => (1i64..200).prop_map(Happens::Wait),
    ]
}

impl World {
    fn happens(&mut self, what: &Happens) {
        let all = self.agents.len().max(1);
        match what {
            Happens::Calls(n) => (0..*n).for_each(|i| self.call(i * 7 + n)),
            Happens::HangUps(n) => (0..*n).for_each(|i| self.hang_up(i * 5 + n)),
            Happens::Unreadable(n, yes) => self.agents.iter_mut().skip(n % all).take(1).for_each(|a| a.readable = !*yes),
            Happens::Unready(n, yes) => self.agents.iter_mut().skip(n % all).take(1).for_each(|a| a.ready = !*yes),
            // Nobody can help it: a new one takes its place.
            Happens::Crash(_) if self.agents.is_empty() => {}
            Happens::Crash(n) => {
                let crashed = self.agents.remove(n % all);
                self.gone_pods.push(crashed.end());
            }
            Happens::OtherCosts(n) => self.agents.iter_mut().skip(n % all).take(1).for_each(|a| a.cost = 7),
            Happens::Version(n) => self.apply_version(*n),
            Happens::Abort => drop(self.ask(Verb::Abort)),
            Happens::Retry => drop(self.ask(Verb::Retry)),
            Happens::Replicas(n) => self.edit(|s| s.replicas = *n),
            Happens::Wait(_) => {}
        }
        self.follow_sets();
        self.read_pods();
    }

    fn go_on(&mut self, secs: i64) -> Result<(), String> {
        let end = self.later(secs);
        loop {
            let pass = self.pass();
            check(self, &pass)?;
            if self.seen.now >= end {
                return Ok(());
            }
            // Gauges are read whatever else happens.
            self.wait_after(&pass, self.later(15).min(end));
        }
    }
}

pub(super) fn story(events: &[Happens], traffic: Option<crate::api::rollout::Traffic>) -> Result<(), String> {
    let steps = vec![weight(25), pause(Some(60)), weight(50), pause(Some(60))];
    let mut spec =
        VoiceRolloutSpec { drain: Drain { max_drain: seconds(900), zero_for: seconds(20), ..Drain::default() }, ..counted(steps) };
    spec.traffic = traffic.unwrap_or(spec.traffic);
    let mut w = World::deployed(spec);
    for event in events {
        w.happens(event);
        let secs = if let Happens::Wait(secs) = event { *secs } else { 5 };
        w.go_on(secs).map_err(|e| format!("at {event:?}: {e}"))?;
    }
    for agent in &mut w.agents {
        (agent.calls, agent.ready, agent.readable) = (0, true, true);
    }
    w.go_on(1200)?;
    let lost: u64 = w.gone_pods.iter().filter(|g| g.ledger.cut_at_end() > 0).map(|g| g.ledger.cut_at_end()).sum();
    let told: i64 = w.status.revisions.iter().map(|r| r.calls_cut).sum();
    let known = |g: &&super::pods::Gone| w.status.revisions.iter().any(|r| r.hash == g.hash);
    let of_known: u64 = w.gone_pods.iter().filter(known).map(|g| g.ledger.cut_at_end()).sum();
    if told < 0 || u64::try_from(told).unwrap_or(0) != of_known {
        return Err(format!("{told} calls told as cut, {of_known} of {lost} were\n{}", w.describe()));
    }
    let draining = w.status.revisions.iter().filter(|r| r.role == Role::Draining).count();
    if draining > 0 { Err(format!("still draining\n{}", w.describe())) } else { Ok(()) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_pod_with_a_call_goes_in_any_story(events in prop::collection::vec(happens(), 1..25)) {
        let end = story(&events, None);
        prop_assert!(end.is_ok(), "{}", end.unwrap_err());
    }
}

/// The same 20 stories each time; with `PROPTEST_CASES` that many new ones.
pub(super) fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig { cases: asked.unwrap_or(20), rng_seed, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn settings_that_cannot_work_are_named() {
    let errors = |change: fn(&mut VoiceRolloutSpec)| {
        let mut s = counted(vec![weight(50)]);
        change(&mut s);
        let errors: Vec<String> = World::new(s).plan().errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    };
    assert_eq!(errors(|_| ()), "");
    let short = errors(|s| s.drain.max_drain = seconds(10));
    assert!(short.starts_with("spec.drain.maxDrain: is shorter than zeroFor (30 s)"), "{short}");
    let blind = errors(|s| (s.sessions, s.drain.on_max_drain) = (None, OnMaxDrain::Keep));
    assert!(blind.starts_with("spec.drain.onMaxDrain: Keep waits") && blind.contains("spec.sessions.activeCalls"), "{blind}");
    let hasty = errors(|s| s.sessions.as_mut().unwrap().interval = Duration::from_millis(10).into());
    assert!(hasty.starts_with("spec.sessions.interval"), "{hasty}");
    let path = errors(|s| s.sessions.as_mut().unwrap().active_calls.http.as_mut().unwrap().json_path = "active jobs".into());
    assert!(path.starts_with("spec.sessions.activeCalls.http.jsonPath: `active jobs` is not a JSONPath"), "{path}");
    let query = errors(|s| {
        let prometheus = serde_json::json!({"address": "prometheus:9090", "query": "sum by (pod) (up{job=\"{{args.nobody}}\"})"});
        s.sessions.as_mut().unwrap().active_calls.prometheus = Some(serde_json::from_value(prometheus).unwrap());
    });
    assert!(query.contains("activeCalls.prometheus.address: ") && query.contains("activeCalls.prometheus.query: "), "{query}");
    let nothing = errors(|s| s.sessions.as_mut().unwrap().active_calls.http = None);
    assert!(nothing.starts_with("spec.sessions.activeCalls: set http"), "{nothing}");
}
