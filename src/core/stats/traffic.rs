//! Imagined traffic for one gate: what both arms would count, tick by tick.

use super::fnch::Tick;
use super::plan::shifted;
use super::sampling::Dice;
use super::special::normal_tail;

/// Standard normal quantile of 0.95.
const Z95: f64 = 1.644_853_626_951_472_2;

/// What is counted as bad.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Calls that fail, at this rate on the stable version.
    BadRate(f64),
    /// Calls slower than an edge, with lognormal latencies.
    Latency {
        /// How the stable version's latencies are spread.
        spread: Lognormal,
        /// Seconds above which a canary call and a stable call are bad, one pair an edge; both rise.
        edges: Vec<(f64, f64)>,
    },
}

/// Lognormal latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lognormal {
    /// 95th percentile, seconds.
    pub p95: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
}

impl Lognormal {
    /// Share of calls slower than `seconds`, when all take `slowdown` times as long.
    pub fn slower_than(&self, seconds: f64, slowdown: f64) -> f64 {
        normal_tail((seconds / (self.p95 * slowdown)).ln() / self.sigma + Z95)
    }
}

/// What is wrong with the canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Regression {
    /// Nothing.
    None,
    /// The odds of each bad outcome are multiplied.
    OddsRatio(f64),
    /// The bad rate is multiplied, or the latency.
    Factor(f64),
}

/// From a minute on, this share of calls goes to the canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// First minute.
    pub from: f64,
    /// Canary's share of calls, between 0 and 1.
    pub share: f64,
    /// Both arms' bad rate or latency, as a multiple of the signal's.
    pub base: f64,
}

/// Something that both arms suffer alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Incident {
    /// First minute.
    pub from: f64,
    /// Minutes that it lasts.
    pub minutes: f64,
    /// Both arms' bad rate or latency is multiplied.
    pub factor: f64,
}

/// Traffic of one rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Calls a minute, both arms together; they arrive as a Poisson process.
    pub calls_per_minute: f64,
    /// Seconds from tick to tick.
    pub tick_seconds: f64,
    /// Minutes that the gate may take.
    pub minutes: f64,
    /// What is counted.
    pub signal: Signal,
    /// What is wrong with the canary.
    pub regression: Regression,
    /// Weights over time, the first from minute 0.
    pub steps: Vec<Step>,
    /// What both arms suffer.
    pub incident: Option<Incident>,
    /// Chance that a tick is missed; its counts come with the next one.
    pub missed: f64,
    /// Chance that a tick is delivered twice.
    pub repeated: f64,
}

/// A number that traffic cannot have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}: {need}")]
pub struct TrafficError {
    /// Name of the field.
    pub field: &'static str,
    /// What it was set to.
    pub value: f64,
    /// What it must be.
    pub need: &'static str,
}

impl Traffic {
    /// Steady traffic at one weight with ticks of a minute: an equal canary, no faults.
    pub fn steady(calls_per_minute: f64, share: f64, minutes: f64, signal: Signal) -> Self {
        let steps = vec![Step { from: 0.0, share, base: 1.0 }];
        let regression = Regression::None;
        Self { calls_per_minute, tick_seconds: 60.0, minutes, signal, regression, steps, incident: None, missed: 0.0, repeated: 0.0 }
    }

    /// Whether all numbers make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), TrafficError> {
        const POSITIVE: &str = "use a number above 0";
        const CHANCE: &str = "use a number from 0 to less than 1";
        let positive = |field, value: f64| (field, value, value.is_finite() && value > 0.0, POSITIVE);
        let chance = |field, value: f64| (field, value, (0.0..1.0).contains(&value), CHANCE);
        let mut rules = vec![
            positive("calls a minute", self.calls_per_minute),
            positive("seconds of a tick", self.tick_seconds),
            positive("minutes", self.minutes),
            chance("chance of a missed tick", self.missed),
            chance("chance of a repeated tick", self.repeated),
            ("number of steps", self.steps.len() as f64, !self.steps.is_empty(), "name at least one weight"),
        ];
        for step in &self.steps {
            rules.push(("share of the canary", step.share, step.share > 0.0 && step.share < 1.0, "use a number between 0 and 1"));
            rules.push(positive("base of a step", step.base));
        }
        if let Regression::OddsRatio(size) | Regression::Factor(size) = self.regression {
            rules.push(positive("size of the regression", size));
        }
        if let Some(incident) = self.incident {
            rules.push(positive("factor of the incident", incident.factor));
        }
        match &self.signal {
            Signal::BadRate(rate) => rules.push(("bad rate", *rate, *rate > 0.0 && *rate < 1.0, "use a number between 0 and 1")),
            Signal::Latency { spread, edges } => {
                rules.push(positive("p95", spread.p95));
                rules.push(positive("sigma", spread.sigma));
                rules.extend(edges.iter().map(|edge| positive("edge", edge.0.min(edge.1))));
                let falls = edges.windows(2).find(|pair| pair[1].0 <= pair[0].0 || pair[1].1 <= pair[0].1);
                rules.extend(falls.map(|pair| ("edge", pair[1].0, false, "edges must rise")));
            }
        }
        match rules.into_iter().find(|rule| !rule.2) {
            Some((field, value, _, need)) => Err(TrafficError { field, value, need }),
            None => Ok(()),
        }
    }

    /// Pairs of bad counts in a tick.
    pub fn edges(&self) -> usize {
        match &self.signal {
            Signal::BadRate(_) => 1,
            Signal::Latency { edges, .. } => edges.len(),
        }
    }

    /// Counts of the tick that begins at this minute, one pair an edge.
    pub(super) fn tick(&self, minute: f64, dice: &mut Dice) -> Vec<Tick> {
        let step = self.step(minute);
        let arrivals = self.calls_per_minute * self.tick_seconds / 60.0;
        let (calls_canary, calls_stable) = (dice.poisson(arrivals * step.share), dice.poisson(arrivals * (1.0 - step.share)));
        let base = step.base * self.incident.map_or(1.0, |i| if (i.from..i.from + i.minutes).contains(&minute) { i.factor } else { 1.0 });
        let canary: Vec<u64> = dice.nested(calls_canary, (0..self.edges()).map(|edge| self.bad_canary(edge, base))).collect();
        let stable = dice.nested(calls_stable, (0..self.edges()).map(|edge| self.bad(edge, base, false)));
        canary.into_iter().zip(stable).map(|(c, s)| Tick::new(c, calls_canary, s, calls_stable)).collect()
    }

    fn step(&self, minute: f64) -> Step {
        let past = self.steps.iter().rev().find(|step| step.from <= minute);
        past.or(self.steps.first()).copied().unwrap_or(Step { from: 0.0, share: 0.5, base: 1.0 })
    }

    fn bad_canary(&self, edge: usize, base: f64) -> f64 {
        match self.regression {
            Regression::None => self.bad(edge, base, true),
            Regression::OddsRatio(size) => shifted(self.bad(edge, base, true), size),
            Regression::Factor(size) => self.bad(edge, base * size, true),
        }
    }

    fn bad(&self, edge: usize, base: f64, canary: bool) -> f64 {
        match &self.signal {
            Signal::BadRate(rate) => (rate * base).min(1.0),
            Signal::Latency { spread, edges } => spread.slower_than(if canary { edges[edge].0 } else { edges[edge].1 }, base),
        }
    }
}
