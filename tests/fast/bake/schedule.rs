//! What goes wrong when, drawn from a seed.

use std::time::Duration;

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// The container of a pod crashes: the pod is given by a number, taken modulo how many there are.
    Crash(usize),
    /// A pod is not Ready for a while, and its calls go on.
    Unready(usize, Duration),
    /// A pod is gone, as with its node.
    Lose(usize),
    /// A node is gone with all its pods, and comes back empty.
    LoseNode(usize),
    /// A node takes no new pods.
    Cordon(usize),
    /// Its pods are asked to leave, through the eviction API.
    Evict(usize),
    /// It takes pods again.
    Uncordon(usize),
    /// An autoscaler asks for so many pods.
    Scale(i64),
    /// The operator's process ends.
    Kill,
    /// It starts again.
    Start,
    /// Routes take so long to reach the proxies, and controllers so long to react.
    Slow(Duration, Duration),
    /// Gauges do not answer: of all pods, or of those of one revision.
    Silence(bool),
    /// They answer again.
    Speak,
    /// The eval harness is down, or up again.
    Evals(bool),
    /// Somebody gives the canary so many percent.
    EditWeights(u32),
    /// Somebody edits another field of the route.
    EditRoute(u32),
    /// Somebody makes an analysis run that says that the canary failed.
    Forge,
    /// The API server fails requests of the operator now and then, or does not any more.
    Faults(bool),
    /// All watches break.
    BreakWatches,
    /// A version is to be released.
    Release(&'static str),
    /// A person says something.
    Say(&'static str),
}

/// What happens from a time on, in seconds.
type Make<'a> = &'a mut dyn FnMut(&mut fastrand::Rng, f64) -> Vec<(f64, Trouble)>;

const HOUR: f64 = 3600.0;
/// How many times rarer everything is than is written below: about 80 troubles in 72 hours, each of which has consequences
/// for minutes.
const CALM: f64 = 1.7;

/// Everything that happens in 72 hours, by time.
pub fn of(dice: &mut fastrand::Rng) -> Vec<(Duration, Trouble)> {
    let mut all = Vec::new();
    story(dice, &mut all);
    let mut often = |dice: &mut fastrand::Rng, hours: f64, make: Make<'_>| {
        let mut at = 0.0;
        loop {
            at += -dice.f64().max(1e-9).ln() * hours * CALM * HOUR;
            if at > 71.0 * HOUR {
                return;
            }
            all.extend(make(dice, at).into_iter().map(|(at, trouble)| (Duration::from_secs_f64(at), trouble)));
        }
    };
    let span = |dice: &mut fastrand::Rng, least: f64, most: f64| least + dice.f64() * (most - least);
    often(dice, 9.0, &mut |dice, at| vec![(at, Trouble::Crash(dice.usize(..)))]);
    often(dice, 8.0, &mut |dice, at| vec![(at, Trouble::Unready(dice.usize(..), Duration::from_secs(dice.u64(1..60))))]);
    often(dice, 10.0, &mut |dice, at| vec![(at, Trouble::Lose(dice.usize(..)))]);
    often(dice, 36.0, &mut |dice, at| vec![(at, Trouble::LoseNode(dice.usize(..)))]);
    often(dice, 18.0, &mut |dice, at| {
        let node = dice.usize(..);
        let rounds = 1 + dice.usize(0..6);
        let mut drain = vec![(at, Trouble::Cordon(node)), (at + 60.0 * rounds as f64 + 30.0, Trouble::Uncordon(node))];
        drain.extend((0..rounds).map(|round| (at + 60.0 * round as f64, Trouble::Evict(node))));
        drain
    });
    often(dice, 4.0, &mut |dice, at| vec![(at, Trouble::Scale(dice.i64(1..=5)))]);
    often(dice, 9.0, &mut |dice, at| {
        let down = if dice.bool() { span(dice, 0.1, 5.0) } else { span(dice, 30.0, 900.0) };
        vec![(at, Trouble::Kill), (at + down, Trouble::Start)]
    });
    often(dice, 15.0, &mut |dice, at| {
        let slow = Trouble::Slow(Duration::from_secs(dice.u64(5..40)), Duration::from_millis(dice.u64(20..5000)));
        vec![(at, slow), (at + span(dice, 600.0, 3600.0), Trouble::Slow(Duration::from_secs(2), Duration::from_millis(20)))]
    });
    often(dice, 12.0, &mut |dice, at| vec![(at, Trouble::Silence(dice.bool())), (at + span(dice, 120.0, 5400.0), Trouble::Speak)]);
    often(dice, 18.0, &mut |dice, at| vec![(at, Trouble::Evals(false)), (at + span(dice, 60.0, 3600.0), Trouble::Evals(true))]);
    often(dice, 12.0, &mut |dice, at| vec![(at, Trouble::EditWeights(dice.u32(0..=100)))]);
    often(dice, 15.0, &mut |dice, at| vec![(at, Trouble::EditRoute(dice.u32(..)))]);
    often(dice, 20.0, &mut |_, at| vec![(at, Trouble::Forge)]);
    often(dice, 15.0, &mut |dice, at| vec![(at, Trouble::Faults(true)), (at + span(dice, 60.0, 900.0), Trouble::Faults(false))]);
    often(dice, 12.0, &mut |_, at| vec![(at, Trouble::BreakWatches)]);
    all.sort_by_key(|(at, _)| *at);
    all
}

/// One release with another version in the middle, an abort, another attempt, and a person at the end.
fn story(dice: &mut fastrand::Rng, all: &mut Vec<(Duration, Trouble)>) {
    let mut at = |hours: f64, trouble: Trouble| all.push((Duration::from_secs_f64(hours * HOUR), trouble));
    at(0.1, Trouble::Release("agent:v2"));
    at(4.0 + dice.f64() * 14.0, Trouble::Release("agent:v3"));
    let abort = 20.0 + dice.f64() * 24.0;
    at(abort, Trouble::Say("abort"));
    at(abort + 0.2 + dice.f64() * 4.0, Trouble::Say("retry"));
    if dice.bool() {
        let pause = 50.0 + dice.f64() * 5.0;
        at(pause, Trouble::Say("pause"));
        at(pause + 1.0, Trouble::Say("resume"));
    }
}
