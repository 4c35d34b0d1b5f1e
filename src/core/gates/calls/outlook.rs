//! How many more calls a gate needs, if calls go on coming as they do.

use super::question::{Question, Tested};
use super::tally::Tally;
use crate::api::run::{Comparison, Outlook};
use crate::core::stats::plan::{Calls, calls_to_abort, calls_to_pass, divergence};

/// Beyond this nobody waits.
const MAX_CALLS: f64 = 1e9;

/// Says what an abort and each pass still take, after `seconds` of counting: the middle between the least that is to be
/// expected and the most.
pub fn foresee(question: &Question<'_>, tally: &Tally, known: &mut Comparison, seconds: i64) {
    let stable = known.stable.map_or(1, |s| s.calls);
    if known.canary.calls == 0 || stable == 0 {
        return;
    }
    let calls = known.canary.calls;
    let outlook = |needed: Option<Calls>, least: i64| {
        let needed = needed.map(|c| f64::midpoint(c.low, c.high)).filter(|c| (0.0..=MAX_CALLS).contains(c))?;
        let needed = (needed.ceil() as i64).max(least);
        let time = needed as f64 * seconds as f64 / calls as f64;
        Some(Outlook { calls: needed, seconds: (seconds > 0).then(|| time.ceil() as i64) })
    };
    let short = known.min_canary.saturating_sub(calls).max(0);
    let seen = known.canary.bad as f64 / calls as f64;
    let share = calls as f64 / (calls + stable) as f64;
    // Until then one bad call more or less decides.
    if known.log_evidence > 0.0 {
        let needed = match (tally.odds(), &question.tests[0].0) {
            (Some(evidence), _) => calls_to_abort(evidence, question.false_abort, share),
            (None, Tested::Rate { max, .. }) if seen > max.limit => rate(seen, max.limit, question.false_abort, known.log_evidence),
            _ => None,
        };
        known.to_abort = outlook(needed, 0);
    }
    for (line, margin) in known.pass.iter_mut().zip(&question.margins).filter(|(line, _)| !line.passes) {
        let needed = match (tally.odds(), &question.tests[0].0) {
            // Shifted edges have no odds ratio to plan with.
            (Some(evidence), _) if margin.test == 0 => calls_to_pass(evidence, margin.odds_ratio, question.false_promote, share),
            (None, Tested::Rate { below, .. }) if seen < below.limit => rate(seen, below.limit, question.false_promote, line.log_evidence),
            _ => None,
        };
        line.to_pass = outlook(needed, short);
    }
}

/// Evidence about a rate grows by the Kullback-Leibler divergence of the rate from the limit.
pub(super) fn rate(seen: f64, limit: f64, alpha: f64, log_e: f64) -> Option<Calls> {
    let growth = divergence(seen, limit);
    let needed = (-alpha.ln() - log_e).max(0.0) / growth;
    (growth > 0.0).then_some(Calls { low: needed, high: needed })
}
