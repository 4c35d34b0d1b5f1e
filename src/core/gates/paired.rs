//! The paired gate: the same scenarios on stable and canary, as evidence for and against the canary.
//!
//! Only scenarios that one arm alone passes tell the arms apart. Against the canary counts the e-value of
//! [`log_harm`]; for it the e-value of [`log_harmless`]. Both depend on the numbers of scenarios alone, in whatever
//! order they came, and both may be looked at after every measurement.

use super::key;
use super::suite::Pairs;
use crate::api::analysis::{Gate, Paired};
use crate::api::paired::PairedEvidence;
use crate::api::run::{GateStatus, Suite, Verdict};

/// `falseAbort` of a gate that does not say.
const FALSE_ABORT: f64 = 0.01;
/// Most draws that are remembered; later ones are not counted.
const MAX_DRAWS: usize = 256;
/// Stakes of [`log_harmless`] as shares of the highest possible one, with their weights. The high one sees a canary that
/// fails nowhere soonest, the low ones one that loses and wins many.
const STAKES: [(f64, f64); 3] = [(0.95, 0.5), (0.5, 0.25), (0.25, 0.25)];

/// Takes in a measurement: what it means with everything that was counted before, as verdict, value and sentence.
pub fn decide(gate: &Gate, paired: &Paired, state: &mut GateStatus, pairs: &Pairs, suite: Option<&Suite>) -> (Verdict, String, String) {
    let seed = suite.and_then(|s| s.seed.as_deref());
    let counted = state.paired.get_or_insert_default();
    let known = count(counted, pairs, seed);
    let (harm, harmless) = (log_harm(counted), log_harmless(counted, paired.margin));
    let (abort, pass) = (-gate.false_abort.unwrap_or(FALSE_ABORT).ln(), -paired.false_promote.ln());
    let enough = counted.pairs >= paired.min_pairs;
    let verdict = match () {
        () if harm >= abort => Verdict::Fail,
        () if enough && harmless >= pass => Verdict::Pass,
        () => Verdict::Inconclusive,
    };
    let mut message = format!(
        "of {} scenarios {} pass on stable alone and {} on the canary alone; evidence of harm {}, abort line {}; \
         evidence that less than {} % are lost {}, pass line {}",
        counted.pairs,
        counted.stable_only,
        counted.canary_only,
        times(harm),
        times(abort),
        percent(paired.margin),
        times(harmless),
        times(pass),
    );
    if !enough {
        message.push_str(&format!("; {} scenarios are needed to pass", paired.min_pairs));
    }
    if let Some(why) = known {
        message.push_str(&format!("; {why}"));
    }
    (verdict, format!("{} lost, {} won of {}", counted.stable_only, counted.canary_only, counted.pairs), message)
}

/// Adds a draw, once; says why it adds nothing. The same seed asks the same scenarios again, and what they say a second
/// time is not new: taking it in would let a gate decide by asking often enough.
fn count(counted: &mut PairedEvidence, pairs: &Pairs, seed: Option<&str>) -> Option<String> {
    let draw = seed.map_or_else(|| "-".to_owned(), |seed| key::short(seed.as_bytes()));
    if counted.draws.contains(&draw) {
        return Some(match seed {
            Some(seed) => format!("seed {seed} is counted already: only another one adds evidence"),
            None => "the answer names no seed (suite.seed), so that only the first run counts".into(),
        });
    }
    if counted.draws.len() >= MAX_DRAWS {
        return Some(format!("{MAX_DRAWS} seeds are counted, and no more are"));
    }
    counted.draws.push(draw);
    counted.pairs = counted.pairs.saturating_add(pairs.pairs);
    counted.stable_only = counted.stable_only.saturating_add(pairs.stable_only);
    counted.canary_only = counted.canary_only.saturating_add(pairs.canary_only);
    None
}

/// Log evidence that the canary loses more of the telling scenarios than it wins.
fn log_harm(counted: &PairedEvidence) -> f64 {
    let n = |count: i64| count.max(0).unsigned_abs();
    crate::core::stats::paired::log_e_abort(n(counted.stable_only), n(counted.canary_only), 1.0)
}

/// Log evidence that the canary loses, on balance, less than `margin` of all scenarios. With `x` = 1 for a lost scenario,
/// -1 for a won one, else 0, the bet `1 + stake (margin - x)` gains nothing on average while the mean of `x` is `margin`
/// or more; the mean over a few stakes is kept (Waudby-Smith and Ramdas, J. R. Stat. Soc. B 86, 2024). For a fixed suite,
/// whose scenarios differ, the mean over them is what counts.
#[allow(clippy::cast_precision_loss)] // numbers of scenarios
pub fn log_harmless(counted: &PairedEvidence, margin: f64) -> f64 {
    let (lost, won) = (counted.stable_only as f64, counted.canary_only as f64);
    let same = (counted.pairs - counted.stable_only - counted.canary_only) as f64;
    let bets = STAKES.map(|(share, weight)| {
        let stake = share / (1.0 - margin);
        let gain = |x: f64| (stake * (margin - x)).ln_1p();
        weight.ln() + lost * gain(1.0) + won * gain(-1.0) + same * gain(0.0)
    });
    let top = bets.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + bets.iter().map(|b| (b - top).exp()).sum::<f64>().ln()
}

/// An e-value as a person reads it.
fn times(log: f64) -> String {
    match log.exp() {
        e if e >= 1e6 => "over 1000000x".into(),
        e if e >= 99.95 => format!("{e:.0}x"),
        e if e >= 0.01 => format!("{e:.1}x"),
        _ => "0x".into(),
    }
}

fn percent(share: f64) -> f64 {
    (share * 1e5).round() / 1e3
}

#[cfg(test)]
#[path = "paired_tests.rs"]
mod tests;
