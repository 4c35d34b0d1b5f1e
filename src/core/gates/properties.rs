//! Properties that hold for every run, whatever providers, clock and crashes do.

use proptest::prelude::*;
use serde_json::json;

use super::world::{World, of, start, threshold, with};
use super::*;
use crate::api::run::Verdict;
use crate::api::run::{RunGate, RunKind};
use crate::core::window::add;

/// Something that happens to a run.
#[derive(Clone, Debug)]
enum Event {
    /// Seconds pass.
    Wait(u64),
    /// Fractions of a second pass.
    Blink(u64),
    /// The `n`th measurement under way ends so.
    Answer(usize, char),
    /// A provider begins to work on it.
    Begin(usize),
    /// A result with a key of the past arrives.
    Late(char),
    /// The process dies before it has acted: nothing but the status is left, as the API server keeps it.
    Crash,
    /// The release ends the run.
    Stop,
}

fn events(answers: &'static [char]) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..4_usize, prop::sample::select(answers)).prop_map(|(n, c)| Event::Answer(n, c)),
        6 => prop_oneof![1..20_u64, 20..400_u64, Just(4000)].prop_map(Event::Wait),
        2 => (1..1000_u64).prop_map(Event::Blink),
        1 => (0..4_usize).prop_map(Event::Begin),
        1 => prop::sample::select(answers).prop_map(Event::Late),
        1 => Just(Event::Crash),
    ];
    (prop::collection::vec(event, 1..60), prop::option::weighted(0.3, 0..60_usize)).prop_map(|(mut events, stop)| {
        if let Some(at) = stop.filter(|at| *at < events.len()) {
            events.insert(at, Event::Stop);
        }
        events
    })
}

fn gate(name: &'static str) -> impl Strategy<Value = serde_json::Value> {
    let limits = (prop::option::of(1..4_i32), -1..3_i32, -1..3_i32, -1..3_i32, 0..3_i32);
    let flags = (any::<bool>(), any::<bool>(), prop::option::of(1..90_u64));
    let modes = (
        prop::sample::select(vec!["enforce", "dryRun", "signal"]),
        prop::sample::select(vec!["Abort", "Pause"]),
        prop::sample::select(vec!["Abort", "Pause", "Extend"]),
        prop::sample::select(vec![0, 60, 300_u64]),
        prop::option::of(1..200_u64),
    );
    (limits, flags, modes).prop_map(
        move |((count, fails, undecided, errors, row), (argo, sentinel, interval), (mode, on, hold, budget, min))| {
            let mut fields = json!({ "failureLimit": fails, "inconclusiveLimit": undecided, "consecutiveErrorLimit": errors,
            "consecutiveSuccessLimit": row, "counting": if argo { "argo" } else { "hold" }, "sentinel": sentinel });
            if let Some(count) = count {
                // A count below the row that is asked for is refused before a run is made.
                fields["count"] = json!(count.max(row));
            }
            if let Some(interval) = interval {
                fields["interval"] = json!(format!("{interval}s"));
            }
            let mut common = json!({ "name": name, "mode": mode, "onFail": on, "onError": on, "onInconclusive": hold,
            "errorBudget": format!("{budget}s"), "maxDuration": "10m" });
            if let Some(min) = min {
                common["minDuration"] = json!(format!("{min}s"));
            }
            with(threshold(fields), common)
        },
    )
}

fn worlds() -> impl Strategy<Value = World> {
    (any::<bool>(), gate("a"), gate("b"), any::<bool>()).prop_map(|(step, a, b, two)| {
        let kind = if step { RunKind::Step } else { RunKind::Background };
        World::new(kind, if two { vec![a, b] } else { vec![a] })
    })
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", serde_json::to_string(&self.spec).unwrap_or_default())
    }
}

/// One pass of a controller, with the checks that hold for every pass.
fn pass(world: &mut World, finished: &[Finished]) -> Result<Plan, TestCaseError> {
    let before = world.status.clone();
    let plan = advance(&world.spec, &before, finished, world.now, &mut |_| true);
    let again = next(&world.spec, &plan.status, world.now, &mut |_| true);
    prop_assert_eq!(&again.status, &plan.status, "planning again changes nothing");
    prop_assert_eq!(&again.measure, &plan.measure);
    prop_assert!(plan.wake_at.is_none_or(|t| t > world.now), "the next look lies ahead");
    let text = serde_json::to_string(&plan.status).unwrap();
    let read: VoiceAnalysisRunStatus = serde_json::from_str(&text).unwrap();
    prop_assert_eq!(&read, &plan.status, "what is read back is what was written");
    if before.phase != RunPhase::Running {
        prop_assert_eq!(&before, &plan.status, "what is over stays as it is");
    }
    prop_assert!(world.spec.stop <= (plan.status.phase != RunPhase::Running), "stop ends a run at once");
    for (gate, (old, new)) in world.spec.gates.iter().zip(before.gates.iter().zip(&plan.status.gates)) {
        check_gate(gate, old, new)?;
    }
    let passed = plan.status.gates.iter().filter(|g| g.verdict == Some(Verdict::Pass));
    prop_assert!(passed.clone().all(|g| g.counts.pass > 0 && g.last_pass_at.is_some()), "I4: nothing passes without evidence");
    if plan.status.phase == RunPhase::Pass {
        prop_assert!(passed.clone().any(|g| g.mode == crate::api::analysis::Mode::Enforce), "I4: a run passes by a gate that passed");
    }
    world.status = plan.status.clone();
    Ok(plan)
}

fn check_gate(gate: &RunGate, old: &GateStatus, new: &GateStatus) -> Result<(), TestCaseError> {
    if rules::is_final(&gate.gate, old) {
        prop_assert_eq!((old.verdict, old.consequence, old.counts), (new.verdict, new.consequence, new.counts), "finals stay final");
        prop_assert!(new.in_flight.is_none() && new.next_at.is_none());
    }
    let grown = finished_count(new) - finished_count(old);
    prop_assert!((0..=2).contains(&grown) && new.measurements.len() <= MAX_MEASUREMENTS);
    let kept = usize::try_from(finished_count(new)).unwrap().min(MAX_MEASUREMENTS);
    prop_assert_eq!(new.measurements.len(), kept, "counts and measurements agree");
    let open = !rules::is_final(&gate.gate, new);
    prop_assert!(new.consequence.is_none() || new.verdict.is_some());
    prop_assert!(new.failing_since.is_some() == (new.counts.consecutive_error > 0));
    prop_assert!(!open || new.passing <= (new.counts.consecutive_pass > 0));
    Ok(())
}

/// Lets everything happen that happens; every key that was ever measured comes back.
fn live(world: &mut World, events: &[Event]) -> Result<Vec<String>, TestCaseError> {
    let mut answered: Vec<String> = Vec::new();
    for event in events {
        let plan = pass(world, &[])?;
        let pick = |n: usize| plan.measure.get(n % plan.measure.len().max(1));
        match event {
            Event::Wait(s) => world.now = add(world.now, Duration::from_secs(*s)),
            Event::Blink(ms) => world.now = add(world.now, Duration::from_millis(*ms)),
            Event::Stop => world.spec.stop = true,
            Event::Crash => world.status = serde_json::from_str(&serde_json::to_string(&world.status).unwrap()).unwrap(),
            Event::Begin(n) => {
                let Some(w) = pick(*n) else { continue };
                pass(
                    world,
                    &[Finished { gate: w.gate, key: w.key.clone(), outcome: Outcome::Running { handle: "h".into(), trouble: None } }],
                )?;
            }
            Event::Answer(n, c) => {
                let Some(w) = pick(*n) else { continue };
                prop_assert!(!answered.contains(&w.key), "a key is answered once");
                answered.push(w.key.clone());
                pass(world, &[Finished { gate: w.gate, key: w.key.clone(), outcome: of(*c) }])?;
            }
            Event::Late(c) => {
                let Some(key) = answered.last().cloned() else { continue };
                let before = world.status.clone();
                for gate in 0..world.spec.gates.len() {
                    pass(world, &[Finished { gate, key: key.clone(), outcome: of(*c) }])?;
                }
                prop_assert_eq!(&before, &world.status, "a late result changes nothing");
            }
        }
    }
    pass(world, &[])?;
    Ok(answered)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_keeps_its_promises(mut world in worlds(), events in events(&['P', 'F', 'I', 'E'])) {
        live(&mut world, &events)?;
    }

    #[test]
    fn nothing_passes_without_a_pass(mut world in worlds(), events in events(&['F', 'I', 'E'])) {
        live(&mut world, &events)?;
        prop_assert_ne!(world.status.phase, RunPhase::Pass);
        prop_assert!(world.status.gates.iter().all(|g| g.verdict != Some(Verdict::Pass) && !g.passing));
    }

    /// A step whose provider only ever passes comes to an end, and it is a Pass.
    #[test]
    fn only_passes_pass(a in gate("a"), b in gate("b"), early in prop::collection::vec(1..5000_u64, 0..20)) {
        let mut world = World::new(RunKind::Step, vec![with(a, json!({ "mode": "enforce" })), b]);
        let mut early = early.into_iter();
        for _ in 0..2000 {
            let plan = pass(&mut world, &[])?;
            let finished: Vec<_> = plan.measure.iter().map(|w| Finished { gate: w.gate, key: w.key.clone(), outcome: of('P') }).collect();
            if plan.status.phase != RunPhase::Running {
                break;
            }
            if finished.is_empty() {
                let by = early.next().map_or(plan.wake_at, |ms| Some(add(world.now, Duration::from_millis(ms))));
                prop_assert!(by.is_some(), "a run that waits for nothing");
                world.now = by.unwrap_or(world.now);
            } else {
                pass(&mut world, &finished)?;
            }
        }
        prop_assert_eq!(world.status.phase, RunPhase::Pass);
        prop_assert!(world.now < add(start(), Duration::from_secs(3600)));
    }
}
