//! The rules of other tools beside ours, on the same imagined traffic.
//!
//! Every rule sees the same latency histograms, minute by minute, and has 30 minutes at 5 %. The others' rules are our own
//! implementations of what their documentation and sources say; thresholds and edges were set once, near the true 95th
//! percentile, and not tuned. Calls are independent within an arm.

use std::fmt;

use super::evidence::{Design, Evidence};
use super::fnch::Tick;
use super::kayenta::{self, Label};
use super::sampling::{Dice, median};
use super::traffic::Lognormal;

/// Bounds of the latency buckets, seconds; one more is open above.
const BOUNDS: [f64; 15] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0];
/// Latencies of first tokens; the true p95 lies well inside a bucket.
const FIRST_TOKEN: Lognormal = Lognormal { p95: 0.943, sigma: 0.45 };
/// Minutes of a rollout.
const MINUTES: usize = 30;
/// Canary's share of turns.
const SHARE: f64 = 0.05;
/// Minutes in which both arms suffer, in the shared incident.
const INCIDENT: std::ops::Range<usize> = 10..20;
/// Turns a minute.
pub const RATES: [f64; 3] = [60.0, 300.0, 1500.0];

/// Calls of a minute that were slower than each bound; before them, all calls.
type Slower = [u64; BOUNDS.len() + 1];

/// Both arms in one minute.
#[derive(Clone, Copy, Debug)]
pub struct Minute {
    canary: Slower,
    stable: Slower,
}

/// What happens during a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scenario {
    /// The canary is the same.
    Null,
    /// The canary is the same, and both slow down by this factor for ten minutes.
    Shared(f64),
    /// The canary is slower by this factor.
    Slower(f64),
}

/// What is compared.
pub const SCENARIOS: [Scenario; 4] = [Scenario::Null, Scenario::Shared(1.3), Scenario::Slower(1.15), Scenario::Slower(1.3)];

/// A rule that aborts a canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Argo Rollouts: each minute the p95 over five minutes must lie below a limit; aborted at the fourth failure.
    Argo(f64),
    /// Flagger: each minute the p95 of that minute must lie below a limit, no data being a failure; aborted at the fifth.
    Flagger(f64),
    /// Kayenta's judge on the p95 of each minute, after 10, 20 and 30 minutes.
    Kayenta,
    /// Ours at this false-abort rate, on the shares above 0.7, 0.9 and 1.2 s.
    Ours(f64),
    /// Ours at this false-abort rate with a tolerance of 1.2: canary above 0.6 and 1.2 s, stable above 0.5 and 1.0 s.
    Tolerant(f64),
}

/// What is compared.
pub const RULES: [Rule; 8] = [
    Rule::Argo(1.0),
    Rule::Argo(1.2),
    Rule::Argo(1.5),
    Rule::Flagger(1.2),
    Rule::Kayenta,
    Rule::Ours(0.05),
    Rule::Ours(0.01),
    Rule::Tolerant(0.05),
];

impl Rule {
    /// The minute, from 1, at whose end the rule aborts.
    pub fn aborts(self, rollout: &[Minute]) -> Option<usize> {
        match self {
            Self::Argo(limit) => failures(rollout, 5, limit, 4),
            Self::Flagger(limit) => failures(rollout, 1, limit, 5),
            Self::Kayenta => {
                let p95 = |arm: fn(&Minute) -> Slower| rollout.iter().map(|minute| quantile(0.95, &arm(minute))).collect::<Vec<_>>();
                let (canary, stable) = (p95(|m| m.canary), p95(|m| m.stable));
                let high = |end: &usize| kayenta::judge(&canary[..*end], &stable[..*end]) == Label::High;
                (1..=rollout.len()).filter(|end| end % 10 == 0).find(high)
            }
            Self::Ours(alpha) => crosses(rollout, &[(0.7, 0.7), (0.9, 0.9), (1.2, 1.2)], alpha),
            Self::Tolerant(alpha) => crosses(rollout, &[(0.6, 0.5), (1.2, 1.0)], alpha),
        }
    }
}

/// The minute of the `limit`-th failure of a threshold on p95 over a window. What is no number fails.
fn failures(rollout: &[Minute], window: usize, threshold: f64, limit: usize) -> Option<usize> {
    let fails = |end: &usize| {
        let seen = &rollout[end.saturating_sub(window)..*end];
        let sum = seen.iter().fold(Slower::default(), |sum, minute| std::array::from_fn(|i| sum[i] + minute.canary[i]));
        let p95 = quantile(0.95, &sum);
        p95.is_nan() || p95 >= threshold
    };
    (1..=rollout.len()).filter(fails).nth(limit - 1)
}

/// The minute in which our evidence reaches its line. Edges are those of the canary and of stable.
fn crosses(rollout: &[Minute], edges: &[(f64, f64)], alpha: f64) -> Option<usize> {
    let design = Design { display: false, ..Design::new(edges.len(), 1.0, &[]).ok()? };
    let mut evidence = Evidence::new(design).ok()?;
    let above = |arm: &Slower, edge: f64| arm[1 + BOUNDS.iter().position(|bound| *bound == edge).unwrap_or(0)];
    rollout
        .iter()
        .position(|Minute { canary, stable }| {
            let pair = |edge: &(f64, f64)| Tick::new(above(canary, edge.0), canary[0], above(stable, edge.1), stable[0]);
            let added = evidence.add(&edges.iter().map(pair).collect::<Vec<_>>());
            added.is_ok() && evidence.log_e_abort() >= -alpha.ln()
        })
        .map(|minute| minute + 1)
}

/// A quantile as Prometheus' `histogram_quantile` computes it: evenly spread within a bucket, the last bound when above
/// all, not a number without calls.
pub fn quantile(q: f64, slower: &[u64]) -> f64 {
    let total = slower[0] as f64;
    let rank = q * total;
    let up_to = |bucket: usize| total - slower.get(bucket).map_or(0.0, |count| *count as f64);
    if total == 0.0 {
        return f64::NAN;
    }
    match (1..slower.len()).find(|bucket| up_to(*bucket) >= rank) {
        None => BOUNDS[BOUNDS.len() - 1],
        Some(bucket) => {
            let start = if bucket > 1 { BOUNDS[bucket - 2] } else { 0.0 };
            let below = up_to(bucket - 1);
            start + (BOUNDS[bucket - 1] - start) * (rank - below) / (up_to(bucket) - below)
        }
    }
}

/// Imagined minutes of one rollout.
pub fn rollout(turns_per_minute: f64, scenario: Scenario, seed: u64, run: u32) -> Vec<Minute> {
    let mut dice = Dice::new(seed, run);
    let mut arm = |share: f64, slowdown: f64| {
        let turns = dice.poisson(turns_per_minute * share);
        let mut slower = Slower::default();
        slower[0] = turns;
        let counts = dice.nested(turns, BOUNDS.iter().map(|bound| FIRST_TOKEN.slower_than(*bound, slowdown)));
        slower[1..].iter_mut().zip(counts).for_each(|(place, count)| *place = count);
        slower
    };
    let both = |minute: usize| match scenario {
        Scenario::Shared(factor) if INCIDENT.contains(&minute) => (factor, factor),
        Scenario::Slower(factor) => (factor, 1.0),
        Scenario::Shared(_) | Scenario::Null => (1.0, 1.0),
    };
    (0..MINUTES).map(|minute| Minute { canary: arm(SHARE, both(minute).0), stable: arm(1.0 - SHARE, both(minute).1) }).collect()
}

/// What a rule did in many rollouts of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Share of rollouts that it aborted.
    pub aborted: f64,
    /// Median minute of the aborts.
    pub minute: Option<f64>,
}

/// What each rule did, on the same rollouts.
pub fn compare(rules: &[Rule], turns_per_minute: f64, scenario: Scenario, rollouts: u32, seed: u64) -> Vec<Cell> {
    let mut aborts = vec![Vec::new(); rules.len()];
    for run in 0..rollouts {
        let rollout = rollout(turns_per_minute, scenario, seed, run);
        for (rule, minutes) in rules.iter().zip(&mut aborts) {
            minutes.extend(rule.aborts(&rollout).map(|minute| minute as f64));
        }
    }
    let cell = |minutes: Vec<f64>| Cell { aborted: minutes.len() as f64 / f64::from(rollouts.max(1)), minute: median(minutes) };
    aborts.into_iter().map(cell).collect()
}

/// The whole comparison: rules by traffic and scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Rollouts behind each cell.
    pub rollouts: u32,
    /// Turns a minute and scenario of each column, and its cells in the order of [`RULES`].
    pub columns: Vec<(f64, Scenario, Vec<Cell>)>,
}

/// Plays all of [`RATES`] and [`SCENARIOS`].
pub fn head_to_head(rollouts: u32, seed: u64) -> Table {
    let kinds = RATES.iter().flat_map(|rate| SCENARIOS.iter().map(move |scenario| (*rate, *scenario)));
    let columns = kinds.map(|(rate, scenario)| (rate, scenario, compare(&RULES, rate, scenario, rollouts, seed))).collect();
    Table { rollouts, columns }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("same"),
            Self::Shared(factor) => write!(f, "both x{factor}"),
            Self::Slower(factor) => write!(f, "canary x{factor}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argo(limit) => write!(f, "Argo Rollouts, p95 < {limit:.1} s over 5 min, failureLimit 3"),
            Self::Flagger(limit) => write!(f, "Flagger, p95 < {limit:.1} s over 1 min, threshold 5"),
            Self::Kayenta => f.write_str("Kayenta's judge on p95 of each minute, at 10, 20, 30 min"),
            Self::Ours(alpha) => write!(f, "VoiceRollout, falseAbort {alpha}"),
            Self::Tolerant(alpha) => write!(f, "VoiceRollout, falseAbort {alpha}, tolerance 1.2x"),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minute {
            Some(minute) => write!(f, "{:.1} % [{minute:.0}]", 100.0 * self.aborted),
            None => f.write_str("0 %"),
        }
    }
}

/// As Markdown: share of rollouts aborted, and in brackets the median minute.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| rule |")?;
        for (rate, scenario, _) in &self.columns {
            write!(f, " {rate}/min {scenario} |")?;
        }
        write!(f, "\n|---|{}", "---|".repeat(self.columns.len()))?;
        for (row, rule) in RULES.iter().enumerate() {
            write!(f, "\n| {rule} |")?;
            for (_, _, cells) in &self.columns {
                write!(f, " {} |", cells[row])?;
            }
        }
        writeln!(f)
    }
}
