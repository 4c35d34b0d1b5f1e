//! How many more calls a gate needs, if calls go on coming as they do.

use crate::api::run::{Outlook, Toward};
use crate::core::stats::fnch::Tick;

/// Bets that share the evidence; the best of them costs this much more.
const BETS: f64 = 5.0;
/// Beyond this nobody waits.
const MAX_CALLS: f64 = 1e9;

/// What an estimate rests on.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Counts so far.
    pub totals: Tick,
    /// Odds ratio (for a rate: the rate) that an abort shows the canary to be above.
    pub abort: f64,
    /// The same that a pass shows it to be below.
    pub pass: f64,
    /// Logarithms: evidence against the canary and its line, evidence for it and its line.
    pub logs: [f64; 4],
    /// Calls of the canary that are needed at least.
    pub min_canary: i64,
    /// Time that the counts cover, in seconds.
    pub seconds: i64,
    /// Only the canary is looked at.
    pub one_arm: bool,
}

/// What is still needed. The evidence that a call brings is the Kullback-Leibler distance between what calls are like and
/// the nearest that the null allows with as many bad calls in all; a mixture of bets costs the logarithm of their number.
pub fn outlook(known: &Known) -> Option<Outlook> {
    let t = &known.totals;
    if t.calls_canary == 0 || !known.one_arm && t.calls_stable == 0 {
        return None;
    }
    let share = |bad: u64, calls: u64| (bad as f64 + 0.5) / (calls as f64 + 1.0);
    let canary = share(t.bad_canary, t.calls_canary);
    let stable = share(t.bad_stable, t.calls_stable);
    let ratio = t.calls_stable as f64 / t.calls_canary as f64;
    let [against, abort_line, so_far, pass_line] = known.logs;
    let worse = if known.one_arm { canary > known.abort } else { odds(canary) > known.abort * odds(stable) };
    let (toward, growth, missing) = if worse && against > so_far {
        let growth = if known.one_arm { distance(canary, known.abort) } else { divergence(canary, stable, ratio, known.abort) };
        (Toward::Abort, growth, abort_line - against)
    } else {
        // As good as stable; under a limit, as it has been.
        let both = (canary + ratio * stable) / (1.0 + ratio);
        let growth = if known.one_arm { distance(canary.min(known.abort), known.pass) } else { divergence(both, both, ratio, known.pass) };
        (Toward::Pass, growth, pass_line - so_far)
    };
    let missing = if missing > 0.0 { missing + if so_far > 1.0 || against > 1.0 { 0.0 } else { BETS.ln() } } else { 0.0 };
    let at_least = if toward == Toward::Pass { known.min_canary.saturating_sub(i64::try_from(t.calls_canary).unwrap_or(i64::MAX)).max(0) } else { 0 };
    let calls = (missing / growth).ceil();
    if !(0.0..=MAX_CALLS).contains(&calls) {
        return None;
    }
    let calls = (calls as i64).max(at_least);
    let seconds = (known.seconds > 0).then(|| (calls as f64 * known.seconds as f64 / t.calls_canary as f64).ceil() as i64);
    Some(Outlook { toward, calls, seconds })
}

/// Expected log evidence of one canary call, with `ratio` stable calls beside it, against an odds ratio of `margin`.
fn divergence(canary: f64, stable: f64, ratio: f64, margin: f64) -> f64 {
    let total = canary + ratio * stable;
    // Stable's rate under the null: as many bad calls in all, odds `margin` apart.
    let under = |s: f64| { let o = margin * odds(s); o / (1.0 + o) };
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if under(middle) + ratio * middle < total { low = middle } else { high = middle }
    }
    let s = f64::midpoint(low, high);
    distance(canary, under(s)) + ratio * distance(stable, s)
}

/// Kullback-Leibler distance of two Bernoulli distributions.
fn distance(p: f64, q: f64) -> f64 {
    let part = |p: f64, q: f64| if p <= 0.0 { 0.0 } else { p * (p / q.max(f64::MIN_POSITIVE)).ln() };
    part(p, q) + part(1.0 - p, 1.0 - q)
}

fn odds(p: f64) -> f64 {
    p / (1.0 - p)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planning figures: calls of the canary to tell 8 % from a worse rate at 5 % weight, evidence of 20 times, without the
    /// cost of the mixture and with it.
    #[test]
    fn calls_needed_lie_between_the_planning_figures() {
        for (bad, low, high) in [(0.12, 333.0, 512.0), (0.15, 118.0, 181.0), (0.20, 45.0, 69.0)] {
            let growth = divergence(bad, 0.08, 19.0, 1.0);
            let (least, most) = (20_f64.ln() / growth, (20_f64.ln() + BETS.ln()) / growth);
            assert!((least - low).abs() < 1.0 && (most - high).abs() < 1.0, "{bad}: {least} {most}");
        }
    }

    #[test]
    fn the_outlook_follows_what_is_seen() {
        let known = Known {
            totals: Tick::new(4, 50, 76, 950),
            abort: 1.0,
            pass: 4.0,
            logs: [0.2, 100_f64.ln(), 2.0, 20_f64.ln()],
            min_canary: 30,
            seconds: 600,
            one_arm: false,
        };
        let pass = outlook(&known).unwrap();
        assert_eq!(pass.toward, Toward::Pass);
        assert!((1..40).contains(&pass.calls) && pass.seconds == Some(pass.calls * 12), "{pass:?}");
        let worse = Known { totals: Tick::new(15, 50, 76, 950), logs: [3.0, 100_f64.ln(), -2.0, 20_f64.ln()], ..known };
        let abort = outlook(&worse).unwrap();
        assert!(abort.toward == Toward::Abort && (1..60).contains(&abort.calls), "{abort:?}");
        assert_eq!(outlook(&Known { totals: Tick::new(0, 0, 1, 9), ..known }), None);
        let few = Known { totals: Tick::new(0, 2, 0, 40), logs: [0.0, 4.6, 9.0, 3.0], ..known };
        assert_eq!(outlook(&few).unwrap().calls, 28, "enough evidence, too few calls");
    }
}
