//! What a gate would do: many imagined rollouts under one traffic.
//!
//! It answers how often a gate aborts a canary that is no worse, how often and how soon it finds one that is, and how many
//! calls that takes. The gate is whatever plays: the shipped ones do. Calls are independent within an arm; real ones are
//! less so.

use super::fnch::Tick as Counts;
use super::sampling::{Dice, median};
use super::traffic::{Traffic, TrafficError};

/// Standard normal quantile of 0.975.
const Z975: f64 = 1.959_963_984_540_054;

/// A gate in one rollout: what it remembers, and what it says of it.
pub trait Player: Clone {
    /// Pairs of bad counts that it takes in each tick.
    fn edges(&self) -> usize;
    /// Takes in a tick.
    fn add(&mut self, counts: &[Counts]);
    /// Canary calls so far.
    fn canary_calls(&self) -> u64;
    /// Whether it aborts now.
    fn aborts(&self) -> bool;
    /// Whether it passes now, at a step of the traffic (from 0), so many minutes after the start.
    fn passes(&self, step: usize, minutes: f64) -> bool;
}

/// Medians over the rollouts that came to one verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typical {
    /// Minutes from the start.
    pub minutes: f64,
    /// Canary calls seen by then.
    pub canary_calls: f64,
}

/// What became of the rollouts. The three shares sum to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// How many there were.
    pub rollouts: u32,
    /// Share that was aborted.
    pub aborted: f64,
    /// Share that passed.
    pub passed: f64,
    /// Share without a verdict at the end.
    pub inconclusive: f64,
    /// When it aborted.
    pub abort: Option<Typical>,
    /// When it passed.
    pub pass: Option<Typical>,
}

impl Outcome {
    /// How far a share of the rollouts is off, as a standard error.
    pub fn standard_error(&self, share: f64) -> f64 {
        (share * (1.0 - share) / f64::from(self.rollouts)).sqrt()
    }

    /// 95 % confidence interval of a chance that came out as this share of the rollouts; also of one that came out as 0
    /// (Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927).
    pub fn interval(&self, share: f64) -> (f64, f64) {
        let (n, z2) = (f64::from(self.rollouts), Z975 * Z975);
        let middle = share + z2 / (2.0 * n);
        let half = Z975 * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        let end = |x: f64| (x / (1.0 + z2 / n)).clamp(0.0, 1.0);
        (end(middle - half), end(middle + half))
    }
}

/// Why nothing is simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SimulateError {
    /// The traffic.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// They do not fit.
    #[error("the gate takes {gate} pairs of counts, the traffic has {traffic}")]
    Edges {
        /// Edges of the gate.
        gate: usize,
        /// Edges of the traffic.
        traffic: usize,
    },
    /// None.
    #[error("rollouts is 0: play at least one")]
    NoRollouts,
}

/// Plays so many rollouts, each with a fresh copy of the gate. The same seed gives the same outcome.
///
/// # Errors
/// Traffic that makes no sense, or that the gate cannot take.
pub fn simulate(gate: &impl Player, traffic: &Traffic, rollouts: u32, seed: u64) -> Result<Outcome, SimulateError> {
    traffic.check()?;
    if traffic.edges() != gate.edges() {
        return Err(SimulateError::Edges { gate: gate.edges(), traffic: traffic.edges() });
    }
    if rollouts == 0 {
        return Err(SimulateError::NoRollouts);
    }
    let (mut aborts, mut passes) = (Vec::new(), Vec::new());
    for run in 0..rollouts {
        match play(gate.clone(), traffic, Dice::new(seed, run)) {
            Some((Verdict::Abort, when)) => aborts.push(when),
            Some((Verdict::Pass, when)) => passes.push(when),
            None => {}
        }
    }
    let share = |count: usize| count as f64 / f64::from(rollouts);
    Ok(Outcome {
        rollouts,
        aborted: share(aborts.len()),
        passed: share(passes.len()),
        inconclusive: share(rollouts as usize - aborts.len() - passes.len()),
        abort: typical(&aborts),
        pass: typical(&passes),
    })
}

fn typical(all: &[Typical]) -> Option<Typical> {
    let of = |value: fn(&Typical) -> f64| median(all.iter().map(value).collect());
    Some(Typical { minutes: of(|t| t.minutes)?, canary_calls: of(|t| t.canary_calls)? })
}

enum Verdict {
    Abort,
    Pass,
}

fn play(mut gate: impl Player, traffic: &Traffic, mut dice: Dice) -> Option<(Verdict, Typical)> {
    let mut step = 0;
    for at in 0..traffic.ticks() {
        let begin = at as f64 * traffic.tick_seconds / 60.0;
        if !traffic.by_passing {
            step = traffic.step_at(begin);
        }
        gate.add(&traffic.tick(step, begin, &mut dice));
        let now = Typical { minutes: begin + traffic.tick_seconds / 60.0, canary_calls: gate.canary_calls() as f64 };
        if gate.aborts() {
            return Some((Verdict::Abort, now));
        }
        if gate.passes(step, now.minutes) {
            step += 1;
            if !traffic.by_passing || step == traffic.steps.len() {
                return Some((Verdict::Pass, now));
            }
        }
    }
    None
}
