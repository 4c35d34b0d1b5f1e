//! What a gate that counts calls asks for and tests: its fields, checked and with defaults.

use std::collections::BTreeMap;

use super::counters::Sums;
use super::selector::Selector;
use crate::api::analysis::{self, Compare, CompareHistogram, Gate};
use crate::api::common::std_duration;
use crate::api::compare::{Certainty, Counted, GRID, PASS_MARGINS};
use crate::core::SpecError;
use crate::core::stats::absolute::Absolute;
use crate::core::stats::evidence::{Design, PASS_BETS, Test};
use crate::core::stats::fnch::Tick;

/// Bounds that differ by less than this share are the same.
const SAME: f64 = 1e-9;

/// Calls of the canary at which a limit on its rate is told from others soonest.
pub(super) const TUNED_CALLS: f64 = 500.0;

/// Series that a gate needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Needs<'a> {
    /// Two counters.
    Counters {
        /// Selector of the bad (or good) calls.
        part: &'a str,
        /// They are the good ones.
        good: bool,
        /// Selector of all calls.
        total: &'a str,
    },
    /// Buckets of a histogram.
    Histogram {
        /// Selector of the buckets.
        metric: &'a str,
        /// Bounds, rising.
        bounds: Vec<f64>,
    },
}

/// Columns that a pair of bad counts comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Stable's edge, where there is one.
    pub edge: Option<f64>,
    pub(super) canary: usize,
    pub(super) stable: usize,
}

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub enum Tested {
    /// Both arms, by odds ratio; `turned` swaps them, to show that the canary is better than shifted edges say.
    Odds {
        /// What evidence is collected for.
        design: Design,
        /// The arms are swapped.
        turned: bool,
    },
    /// The canary's rate against limits.
    Rate {
        /// The limit above which it fails.
        max: Absolute,
        /// The limit below which it passes.
        below: Absolute,
    },
}

/// A margin from a weight on.
#[derive(Clone, Debug, PartialEq)]
pub struct Margin {
    /// Weight in percent; 0 for every one.
    pub weight: i32,
    /// In words.
    pub below: String,
    /// Index of the test that it is read from.
    pub test: usize,
    /// Odds ratio, where the test has several.
    pub odds_ratio: f64,
}

/// What a gate asks for and tests.
#[derive(Clone, Debug, PartialEq)]
pub struct Question<'a> {
    /// How calls are counted.
    pub counted: &'a Counted,
    /// Series.
    pub needs: Needs<'a>,
    /// The test against the canary first; then one for each slowdown that passing is asked for.
    pub tests: Vec<(Tested, Vec<Pair>)>,
    /// Margins for the canary, lowest weight first.
    pub margins: Vec<Margin>,
    /// Chance of a false abort.
    pub false_abort: f64,
    /// Chance of a false pass.
    pub false_promote: f64,
}

impl<'a> Question<'a> {
    /// Reads a gate; `None` for one that does not count calls.
    ///
    /// # Errors
    /// Everything that is wrong; paths are relative to the gate.
    pub fn of(gate: &'a Gate) -> Option<Result<Self, Vec<SpecError>>> {
        let mut reader = Reader { errors: Vec::new() };
        let false_abort = reader.chance("falseAbort", gate.false_abort.unwrap_or(crate::api::compare::FALSE_ABORT));
        let mut question = match (&gate.compare, &gate.compare_histogram, &gate.absolute) {
            (Some(compare), None, None) => reader.compare(compare),
            (None, Some(histogram), None) => reader.histogram(histogram),
            (None, None, Some(absolute)) => reader.absolute(absolute, false_abort),
            _ => return None,
        };
        question.false_abort = false_abort;
        Some(if reader.errors.is_empty() { Ok(question) } else { Err(reader.errors) })
    }

    /// Counters that a pod has: all calls, then the rest.
    pub fn columns(&self) -> usize {
        match &self.needs {
            Needs::Counters { .. } => 2,
            Needs::Histogram { bounds, .. } => bounds.len() + 1,
        }
    }

    /// Only the canary is looked at.
    pub fn one_arm(&self) -> bool {
        self.tests.iter().all(|(tested, _)| matches!(tested, Tested::Rate { .. }))
    }

    /// Place of the margin that counts at a weight in percent: that of the next lower weight, or the lowest.
    pub fn margin_at(&self, weight: i32) -> usize {
        self.margins.iter().rposition(|margin| margin.weight <= weight).unwrap_or(0)
    }

    /// Time from the first look before which its gate does not pass.
    pub(super) fn waits(&self, gate: &Gate) -> std::time::Duration {
        [gate.min_duration, self.counted.min_bake].into_iter().flatten().map(std_duration).max().unwrap_or_default()
    }

    /// The counts of one pair, as its test takes them.
    pub(super) fn tick(&self, pair: &Pair, sums: &Sums, turned: bool) -> Tick {
        let bad = |counts: &[u64], column: usize| {
            let (all, part) = (counts.first().copied().unwrap_or(0), counts.get(column).copied().unwrap_or(0));
            match &self.needs {
                Needs::Counters { good: false, .. } => part.min(all),
                Needs::Counters { .. } | Needs::Histogram { .. } => all.saturating_sub(part),
            }
        };
        let calls = |counts: &[u64]| counts.first().copied().unwrap_or(0);
        let (canary, stable) = (bad(&sums.canary, pair.canary), bad(&sums.stable, pair.stable));
        match turned {
            false => Tick::new(canary, calls(&sums.canary), stable, calls(&sums.stable)),
            true => Tick::new(stable, calls(&sums.stable), canary, calls(&sums.canary)),
        }
    }

    /// Identifies what evidence is collected for.
    pub(super) fn fingerprint(&self) -> String {
        let text = format!("{:?}{:?}", self.needs, self.tests);
        super::super::key::short(text.as_bytes())
    }
}

struct Reader {
    errors: Vec<SpecError>,
}

impl Reader {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(SpecError::new(path, message));
    }

    fn chance(&mut self, path: &str, chance: f64) -> f64 {
        if !(chance > 0.0 && chance < 0.5) {
            self.error(
                path,
                format!("{chance} is not a chance between 0 and 0.5 (both excluded): write 0.01 for one release in a hundred"),
            );
        }
        chance
    }

    fn compare<'a>(&mut self, c: &'a Compare) -> Question<'a> {
        self.counted(&c.counted, "compare");
        let (path, part, good) = self.part("compare", c.bad.as_deref(), c.good.as_deref());
        self.selector(&path, part, &c.counted);
        self.selector("compare.total", &c.total, &c.counted);
        let margins = self.odds_margins("compare.passIf.oddsRatioBelow", c.pass_if.as_ref().map(|p| &p.odds_ratio_below));
        let pairs = vec![Pair { edge: None, canary: 1, stable: 1 }];
        let needs = Needs::Counters { part, good, total: &c.total };
        self.question(&c.counted, "compare", needs, &c.certainty, (c.abort_if.odds_ratio_above, margins, pairs))
    }

    fn histogram<'a>(&mut self, c: &'a CompareHistogram) -> Question<'a> {
        let at = "compareHistogram";
        self.counted(&c.counted, at);
        self.selector(&format!("{at}.metric"), &c.metric, &c.counted);
        for (i, edge) in c.edges.iter().enumerate() {
            if !edge.is_finite() {
                self.error(format!("{at}.edges[{i}]"), "is not a number: name the bound of a bucket");
            } else if c.edges[..i].iter().any(|other| same(*other, *edge)) {
                self.error(format!("{at}.edges[{i}]"), format!("{edge} stands twice"));
            }
        }
        if c.edges.is_empty() {
            self.error(format!("{at}.edges"), "name at least one bound of a bucket, above which a call is bad");
        }
        let tolerance = c.tolerance.unwrap_or(1.0);
        if !(tolerance >= 1.0 && tolerance.is_finite()) {
            self.error(format!("{at}.tolerance"), format!("{tolerance} asks the canary to be faster than stable: write 1 or more"));
        }
        let empty = BTreeMap::new();
        let (odds, slowdown) = c.pass_if.as_ref().map_or((&empty, &empty), |p| (&p.odds_ratio_below, &p.slowdown_below));
        let slowdown = self.margins(&format!("{at}.passIf.slowdownBelow"), slowdown);
        let odds = if slowdown.is_empty() { self.odds_margins(&format!("{at}.passIf.oddsRatioBelow"), Some(odds)) } else { Vec::new() };
        let times = std::iter::once(tolerance).chain(slowdown.iter().map(|(_, s)| *s));
        let shifted = times.flat_map(|times| c.edges.iter().map(move |edge| edge * times));
        let bounds = sorted(c.edges.iter().copied().chain(shifted));
        let column = |bound: f64| bounds.iter().position(|b| same(*b, bound)).map_or(0, |i| i + 1);
        let pairs = |times: f64| -> Vec<Pair> {
            c.edges.iter().map(|e| Pair { edge: Some(*e), canary: column(e * times), stable: column(*e) }).collect()
        };
        let slow: Vec<(i32, f64, Vec<Pair>)> = slowdown.iter().map(|(w, s)| (*w, *s, pairs(*s))).collect();
        let main = pairs(tolerance);
        let needs = Needs::Histogram { metric: &c.metric, bounds };
        let mut question = self.question(&c.counted, at, needs, &c.certainty, (c.abort_if.odds_ratio_above, odds, main));
        for (weight, times, pairs) in slow {
            question.margins.push(Margin { weight, below: format!("{times} times slower"), test: question.tests.len(), odds_ratio: 1.0 });
            let bets = PASS_BETS.iter().map(|bet| 1.0 / bet).collect();
            let design = Design { edges: pairs.len(), abort: Test { margin: 1.0, bets }, pass: Vec::new(), display: false };
            question.tests.push((Tested::Odds { design, turned: true }, pairs));
        }
        question
    }

    fn absolute<'a>(&mut self, a: &'a analysis::Absolute, false_abort: f64) -> Question<'a> {
        let at = "absolute";
        self.counted(&a.counted, at);
        let needs = match (&a.metric, a.above, &a.total) {
            (Some(metric), Some(above), None) => {
                self.selector(&format!("{at}.metric"), metric, &a.counted);
                Needs::Histogram { metric, bounds: vec![above] }
            }
            (None, None, Some(total)) => {
                let (path, part, good) = self.part(at, a.bad.as_deref(), a.good.as_deref());
                self.selector(&path, part, &a.counted);
                self.selector(&format!("{at}.total"), total, &a.counted);
                Needs::Counters { part, good, total }
            }
            _ => {
                self.error(at, "has either total with one of bad, good, or metric with above");
                Needs::Counters { part: "", good: false, total: "" }
            }
        };
        let max = a.max_rate;
        let below = a.pass_if.map_or_else(|| (2.0 * max).min((1.0 + max) / 2.0), |p| p.rate_below);
        if !(max > 0.0 && max < 1.0) {
            self.error(format!("{at}.maxRate"), format!("{max} is not a share between 0 and 1 (both excluded)"));
        } else if !(below > max && below < 1.0) {
            self.error(
                format!("{at}.passIf.rateBelow"),
                format!("{below} is not between maxRate {max} and 1: a canary that just keeps the limit could not pass"),
            );
        }
        let false_promote = self.chance(&format!("{at}.falsePromote"), a.false_promote);
        let rate = |limit: f64, alpha: f64| Absolute { limit, tuned_calls: TUNED_CALLS, tuned_alpha: alpha };
        let tested = Tested::Rate { max: rate(max, false_abort), below: rate(below, false_promote) };
        let margin = Margin { weight: 0, below: format!("{} of calls bad", super::sentence::percent(below)), test: 0, odds_ratio: 1.0 };
        let pair = Pair { edge: a.above, canary: 1, stable: 1 };
        Question { counted: &a.counted, needs, tests: vec![(tested, vec![pair])], margins: vec![margin], false_abort: 0.0, false_promote }
    }

    fn question<'a>(
        &mut self,
        counted: &'a Counted,
        at: &str,
        needs: Needs<'a>,
        certainty: &Certainty,
        (abort, margins, pairs): (f64, Vec<(i32, f64)>, Vec<Pair>),
    ) -> Question<'a> {
        if !(abort >= 1.0 && abort.is_finite()) {
            self.error(
                format!("{at}.abortIf.oddsRatioAbove"),
                format!("a margin of {abort} would abort a canary that is as good as stable: write 1 or more"),
            );
        }
        let bets = self.grid(&format!("{at}.grid"), certainty);
        let false_promote = self.chance(&format!("{at}.falsePromote"), certainty.false_promote);
        let mut pass: Vec<Test> = Vec::new();
        for (_, margin) in &margins {
            if pass.iter().all(|t| t.margin != *margin) {
                pass.push(Test::pass(*margin));
            }
        }
        let margins = margins.into_iter().map(|(weight, odds_ratio)| Margin {
            weight,
            below: format!("odds ratio {odds_ratio}"),
            test: 0,
            odds_ratio,
        });
        let design = Design { edges: pairs.len(), abort: Test { margin: abort, bets }, pass, display: true };
        if self.errors.is_empty()
            && let Err(reason) = design.check()
        {
            self.error(at, reason.to_string());
        }
        Question {
            counted,
            needs,
            tests: vec![(Tested::Odds { design, turned: false }, pairs)],
            margins: margins.collect(),
            false_abort: 0.0,
            false_promote,
        }
    }

    fn part<'a>(&mut self, at: &str, bad: Option<&'a str>, good: Option<&'a str>) -> (String, &'a str, bool) {
        match (bad, good) {
            (Some(bad), None) => (format!("{at}.bad"), bad, false),
            (None, Some(good)) => (format!("{at}.good"), good, true),
            _ => {
                self.error(at, "has exactly one of bad, good");
                (format!("{at}.bad"), "x", false)
            }
        }
    }

    fn counted(&mut self, c: &Counted, at: &str) {
        let scrape = std_duration(c.prometheus.scrape_interval);
        if std_duration(c.interval) < scrape {
            self.error(
                format!("{at}.interval"),
                format!(
                    "is shorter than prometheus.scrapeInterval {}: most looks would see nothing new",
                    crate::core::window::span(scrape)
                ),
            );
        }
        if c.revision_label == c.pod_label {
            self.error(format!("{at}.podLabel"), "is the same label as revisionLabel");
        }
    }

    fn selector(&mut self, path: &str, text: &str, counted: &Counted) {
        let filled = crate::core::args::probe(text, crate::core::args::Place::PromQl, "x", "x");
        let Ok(text) = filled else { return };
        match Selector::parse(&text) {
            Err(reason) => self.error(path, reason),
            Ok(selector) => {
                for label in [&counted.revision_label, "le"] {
                    if selector.names(label) {
                        self.error(path, format!("leave {label} out: it is asked for by itself"));
                    }
                }
            }
        }
    }

    fn grid(&mut self, path: &str, certainty: &Certainty) -> Vec<f64> {
        if certainty.grid.is_empty() {
            return GRID.to_vec();
        }
        for (i, bet) in certainty.grid.iter().enumerate() {
            if !(*bet > 1.0 && bet.is_finite()) {
                self.error(format!("{path}[{i}]"), format!("{bet} times the margin does not speak against the canary: write more than 1"));
            }
        }
        certainty.grid.clone()
    }

    fn odds_margins(&mut self, path: &str, given: Option<&BTreeMap<String, f64>>) -> Vec<(i32, f64)> {
        match given.filter(|g| !g.is_empty()) {
            Some(given) => self.margins(path, given),
            None => PASS_MARGINS.iter().map(|(weight, margin)| (i32::from(*weight), *margin)).collect(),
        }
    }

    fn margins(&mut self, path: &str, given: &BTreeMap<String, f64>) -> Vec<(i32, f64)> {
        for (weight, margin) in given {
            if weight.parse::<i32>().ok().is_none_or(|w| !(0..=100).contains(&w)) {
                self.error(format!("{path}.{weight}"), format!("`{weight}` is not a weight: write a whole percentage from 0 to 100"));
            }
            if !(*margin > 1.0 && margin.is_finite()) {
                self.error(
                    format!("{path}.{weight}"),
                    format!("a canary as good as stable cannot be shown to stay below {margin}: write more than 1"),
                );
            }
        }
        margins_by_weight(given)
    }
}

/// Margins by weight, lowest weight first. What is no weight is left out.
fn margins_by_weight(given: &BTreeMap<String, f64>) -> Vec<(i32, f64)> {
    let mut all: Vec<(i32, f64)> = given.iter().filter_map(|(weight, margin)| Some((weight.parse().ok()?, *margin))).collect();
    all.sort_by_key(|(weight, _)| *weight);
    all
}

/// Whether two bounds are the same, apart from rounding.
pub fn same(a: f64, b: f64) -> bool {
    // Infinite ones are not near anything.
    a == b || (a - b).abs() <= SAME * a.abs().min(b.abs())
}

fn sorted(bounds: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = bounds.filter(|b| b.is_finite()).collect();
    all.sort_by(f64::total_cmp);
    all.dedup_by(|a, b| same(*a, *b));
    all
}
