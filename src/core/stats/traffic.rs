//! Imagined traffic for one gate: what both arms would count, tick by tick.

use super::fnch::Tick;
use super::plan::shifted;
use super::sampling::Dice;
use super::special::{normal_quantile, normal_tail};

/// Standard normal quantile of 0.95.
const Z95: f64 = 1.644_853_626_951_472_2;

/// Calls in a tick beyond which nothing is simulated: well within what evidence takes in.
const MOST_CALLS: f64 = 100_000.0;

/// What is counted as bad.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Calls that fail, at this rate on the stable version.
    BadRate(f64),
    /// Calls above bounds of a histogram's buckets: latencies, or whatever it holds.
    Latency {
        /// How the stable version's values are spread.
        spread: Spread,
        /// Bounds above which a call is bad, rising, in the unit of the spread.
        bounds: Vec<f64>,
    },
}

/// How values are spread.
#[derive(Clone, Debug, PartialEq)]
pub enum Spread {
    /// By two numbers.
    Lognormal(Lognormal),
    /// As they were counted.
    Measured(Measured),
}

impl Spread {
    /// Share of calls above a bound, when all values are this many times as large.
    pub fn above(&self, bound: f64, factor: f64) -> f64 {
        match self {
            Self::Lognormal(spread) => spread.slower_than(bound, factor),
            Self::Measured(spread) => spread.above(bound, factor),
        }
    }
}

/// Values known at the bounds of buckets. Between them, and beyond, they are taken to be lognormal: the normal quantile
/// of the share up to a value is a line in its logarithm.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured(Vec<(f64, f64)>);

impl Measured {
    /// From cumulative counts at rising bounds, of so many in all. `None` when fewer than two bounds above 0 have some
    /// values below them and some above.
    pub fn new(counts: &[(f64, u64)], all: u64) -> Option<Self> {
        let telling = counts.iter().filter(|(bound, count)| *bound > 0.0 && bound.is_finite() && *count > 0 && *count < all);
        let points: Vec<_> = telling.map(|(bound, count)| (bound.ln(), normal_quantile(*count as f64 / all as f64))).collect();
        (points.len() > 1).then_some(Self(points))
    }

    fn above(&self, bound: f64, factor: f64) -> f64 {
        let (points, x) = (&self.0, (bound / factor).ln());
        let after = points.partition_point(|point| point.0 <= x).clamp(1, points.len() - 1);
        let ((x0, z0), (x1, z1)) = (points[after - 1], points[after]);
        normal_tail(z0 + (x - x0) * (z1 - z0) / (x1 - x0))
    }
}

/// Lognormal latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lognormal {
    /// 95th percentile, in any unit.
    pub p95: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
}

impl Lognormal {
    /// By the share of values above a bound, and the standard deviation of the logarithm.
    pub fn of_share_above(bound: f64, share: f64, sigma: f64) -> Self {
        Self::of_median(bound / (sigma * normal_quantile(1.0 - share)).exp(), sigma)
    }

    /// By the median, in any unit, and the standard deviation of the logarithm.
    pub fn of_median(median: f64, sigma: f64) -> Self {
        Self { p95: median * (Z95 * sigma).exp(), sigma }
    }

    /// By two quantiles.
    pub fn of_quantiles(median: f64, p95: f64) -> Self {
        Self { p95, sigma: (p95 / median).ln() / Z95 }
    }

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
    /// First minute; of no account where steps are reached by passing.
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
    /// Weights, in order, the first from minute 0.
    pub steps: Vec<Step>,
    /// A step begins when the gate passes at the one before it, as in a release, and not at its minute.
    pub by_passing: bool,
    /// What both arms suffer.
    pub incident: Option<Incident>,
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
        Self { calls_per_minute, tick_seconds: 60.0, minutes, signal, regression, steps, by_passing: false, incident: None }
    }

    /// Whether all numbers make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), TrafficError> {
        const POSITIVE: &str = "use a number above 0";
        let positive = |field, value: f64| (field, value, value.is_finite() && value > 0.0, POSITIVE);
        let mut rules = vec![
            positive("calls a minute", self.calls_per_minute),
            positive("seconds of a tick", self.tick_seconds),
            positive("minutes", self.minutes),
            ("ticks", self.minutes * 60.0 / self.tick_seconds, self.ticks() > 0, "use more minutes, or shorter ticks"),
            ("calls in a tick", self.calls_in_a_tick(), self.calls_in_a_tick() <= MOST_CALLS, "no gate takes more than 100000"),
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
            Signal::Latency { spread, bounds } => {
                if let Spread::Lognormal(spread) = spread {
                    rules.push(positive("p95", spread.p95));
                    rules.push(positive("sigma", spread.sigma));
                }
                rules.extend(bounds.iter().map(|bound| positive("bound", *bound)));
                let falls = bounds.windows(2).find(|pair| pair[1] <= pair[0]);
                rules.extend(falls.map(|pair| ("bound", pair[1], false, "bounds must rise")));
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
            Signal::Latency { bounds, .. } => bounds.len(),
        }
    }

    /// Ticks of a rollout.
    pub fn ticks(&self) -> u32 {
        (self.minutes * 60.0 / self.tick_seconds).round() as u32
    }

    /// Calls of both arms that a tick is expected to have.
    pub fn calls_in_a_tick(&self) -> f64 {
        self.calls_per_minute * self.tick_seconds / 60.0
    }

    /// Share of bad calls at an edge, when nothing else is the matter.
    pub fn rate(&self, edge: usize, canary: bool) -> f64 {
        if canary { self.bad_canary(edge, 1.0) } else { self.bad(edge, 1.0) }
    }

    /// The step that a minute belongs to, by the clock.
    pub(super) fn step_at(&self, minute: f64) -> usize {
        self.steps.iter().rposition(|step| step.from <= minute).unwrap_or(0)
    }

    /// Counts of the tick that begins at this minute, in this step: one pair an edge.
    pub(in crate::core) fn tick(&self, step: usize, minute: f64, dice: &mut Dice) -> Vec<Tick> {
        let step = self.steps[step];
        let arrivals = self.calls_in_a_tick();
        let (calls_canary, calls_stable) = (dice.poisson(arrivals * step.share), dice.poisson(arrivals * (1.0 - step.share)));
        let base = step.base * self.incident.map_or(1.0, |i| if (i.from..i.from + i.minutes).contains(&minute) { i.factor } else { 1.0 });
        let canary: Vec<u64> = dice.nested(calls_canary, (0..self.edges()).map(|edge| self.bad_canary(edge, base))).collect();
        let stable = dice.nested(calls_stable, (0..self.edges()).map(|edge| self.bad(edge, base)));
        canary.into_iter().zip(stable).map(|(c, s)| Tick::new(c, calls_canary, s, calls_stable)).collect()
    }

    fn bad_canary(&self, edge: usize, base: f64) -> f64 {
        match self.regression {
            Regression::None => self.bad(edge, base),
            Regression::OddsRatio(size) => shifted(self.bad(edge, base), size),
            Regression::Factor(size) => self.bad(edge, base * size),
        }
    }

    fn bad(&self, edge: usize, base: f64) -> f64 {
        match &self.signal {
            Signal::BadRate(rate) => (rate * base).min(1.0),
            Signal::Latency { spread, bounds } => spread.above(bounds[edge], base),
        }
    }
}
