//! What a gate would do: many imagined rollouts under one traffic.
//!
//! It answers how often a gate aborts a canary that is no worse, how often and how soon it finds one that is, and how many
//! calls that takes. It runs the gates' own code. Calls are independent within an arm; real ones are less so.

use super::absolute::Absolute;
use super::evidence::{Design, DesignError, Evidence};
use super::fnch::Tick as Counts;
use super::sampling::{Dice, median};
use super::traffic::{Traffic, TrafficError};

/// How a gate tests.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Canary against stable.
    Compare {
        /// What evidence is collected for.
        design: Design,
        /// Margin that passing is asked for, one of the design's; `None`: the gate only aborts.
        pass: Option<f64>,
    },
    /// Canary against a limit.
    Absolute(Absolute),
}

/// A gate and its promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// How it tests.
    pub method: Method,
    /// Chance of aborting a canary within the abort margin, at most; over the whole rollout.
    pub false_abort: f64,
    /// Chance of passing a canary beyond the pass margin, at most.
    pub false_promote: f64,
    /// Canary calls before it may pass.
    pub min_canary: u64,
    /// Minutes before it may pass.
    pub min_minutes: f64,
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

/// Why nothing is simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SimulateError {
    /// The traffic.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// The gate.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// They do not fit.
    #[error("the gate compares {gate} pairs of counts, the traffic has {traffic}")]
    Edges {
        /// Edges of the gate.
        gate: usize,
        /// Edges of the traffic.
        traffic: usize,
    },
}

/// Plays so many rollouts. The same seed gives the same outcome.
///
/// # Errors
/// Traffic or a gate that makes no sense.
pub fn simulate(gate: &Gate, traffic: &Traffic, rollouts: u32, seed: u64) -> Result<Outcome, SimulateError> {
    traffic.check()?;
    let state = State::new(gate)?;
    if traffic.edges() != state.edges() {
        return Err(SimulateError::Edges { gate: state.edges(), traffic: traffic.edges() });
    }
    let (mut aborts, mut passes) = (Vec::new(), Vec::new());
    for run in 0..rollouts {
        match play(gate, state.clone(), traffic, Dice::new(seed, run)) {
            Some((Verdict::Abort, when)) => aborts.push(when),
            Some((Verdict::Pass, when)) => passes.push(when),
            None => {}
        }
    }
    let share = |count: usize| count as f64 / f64::from(rollouts.max(1));
    let undecided = (rollouts as usize).saturating_sub(aborts.len() + passes.len());
    Ok(Outcome {
        rollouts,
        aborted: share(aborts.len()),
        passed: share(passes.len()),
        inconclusive: share(undecided),
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

fn play(gate: &Gate, mut state: State, traffic: &Traffic, mut dice: Dice) -> Option<(Verdict, Typical)> {
    let ticks = (traffic.minutes * 60.0 / traffic.tick_seconds).round() as i64;
    let mut waiting: Vec<Counts> = vec![Counts::default(); state.edges()];
    for at in 0..ticks {
        let begin = at as f64 * traffic.tick_seconds / 60.0;
        let counts = traffic.tick(begin, &mut dice);
        waiting.iter_mut().zip(&counts).for_each(|(sum, counts)| *sum = sum.plus(counts));
        if dice.happens(traffic.missed) {
            continue;
        }
        let times = if dice.happens(traffic.repeated) { 2 } else { 1 };
        (0..times).for_each(|_| state.add(at, &waiting));
        waiting.fill(Counts::default());
        let now = Typical { minutes: begin + traffic.tick_seconds / 60.0, canary_calls: state.canary_calls() as f64 };
        if state.log_e_abort() >= -gate.false_abort.ln() {
            return Some((Verdict::Abort, now));
        }
        let may_pass = state.canary_calls() >= gate.min_canary && now.minutes >= gate.min_minutes;
        if may_pass && state.log_e_pass().is_some_and(|log_e| log_e >= -gate.false_promote.ln()) {
            return Some((Verdict::Pass, now));
        }
    }
    None
}

/// A gate's memory.
#[derive(Clone)]
enum State {
    Compare(Evidence, Option<f64>),
    Absolute(Absolute, Counts, i64),
}

impl State {
    fn new(gate: &Gate) -> Result<Self, DesignError> {
        match &gate.method {
            Method::Absolute(test) => Ok(Self::Absolute(*test, Counts::default(), -1)),
            Method::Compare { design, pass } => Ok(Self::Compare(Evidence::new(Design { display: false, ..design.clone() })?, *pass)),
        }
    }

    fn edges(&self) -> usize {
        match self {
            Self::Compare(evidence, _) => evidence.design().edges,
            Self::Absolute(..) => 1,
        }
    }

    fn add(&mut self, at: i64, counts: &[Counts]) {
        match self {
            // Counts of the simulation always fit.
            Self::Compare(evidence, _) => _ = evidence.add_once(at, counts),
            Self::Absolute(_, sum, last) => {
                if at > *last {
                    (*sum, *last) = (sum.plus(&counts[0]), at);
                }
            }
        }
    }

    fn canary_calls(&self) -> u64 {
        match self {
            Self::Compare(evidence, _) => evidence.totals().next().map_or(0, |sum| sum.calls_canary),
            Self::Absolute(_, sum, _) => sum.calls_canary,
        }
    }

    fn log_e_abort(&self) -> f64 {
        match self {
            Self::Compare(evidence, _) => evidence.log_e_abort(),
            Self::Absolute(test, sum, _) => test.log_e_abort(sum.bad_canary, sum.calls_canary),
        }
    }

    fn log_e_pass(&self) -> Option<f64> {
        match self {
            Self::Compare(evidence, pass) => evidence.log_e_pass((*pass)?),
            Self::Absolute(test, sum, _) => Some(test.log_e_pass(sum.bad_canary, sum.calls_canary)),
        }
    }
}
