//! The rule of Kayenta's default judge, for comparison only.
//!
//! Two series of one value a minute are compared by a Mann-Whitney test: "High" when the lower end of the 98 % interval
//! of the shift (Hodges and Lehmann, Ann. Math. Stat. 34, 1963, with continuity and tie corrections) lies above a quarter
//! of the estimated shift. Written from the published description of the rule; root finding is Brent's (Algorithms for
//! Minimization without Derivatives, 1973, chapter 4) with the judge's tolerance, since ends of the interval sit on jumps
//! of a step function and depend on it.

/// Standard normal quantile of 0.99.
const Z99: f64 = 2.326_347_874_040_841;
/// Part of the estimated shift that the lower end must exceed.
const TOLERANCE: f64 = 0.25;
/// Width at which a root counts as found.
const ROOT_WIDTH: f64 = 1e-4;

/// What the judge says of a metric of which more is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// No worse.
    Pass,
    /// Worse.
    High,
    /// A series is empty.
    NoData,
}

/// The shift of the canary's values against the other's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Lower end of the 98 % interval.
    pub low: f64,
    /// Hodges-Lehmann estimate.
    pub estimate: f64,
}

/// Judges two series; values that are not a number are left out.
///
/// Two constant series with different values are told apart by their values. The judge adds a little noise to such ones
/// first, which comes to the same but for a handful of values.
pub fn judge(canary: &[f64], baseline: &[f64]) -> Label {
    let clean = |values: &[f64]| {
        let mut values: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (canary, baseline) = (clean(canary), clean(baseline));
    let (Some(first), Some(other)) = (canary.first(), baseline.first()) else {
        return Label::NoData;
    };
    let constant = canary.last() == Some(first) && baseline.last() == Some(other);
    if canary == baseline || constant && first == other {
        return Label::Pass;
    }
    let shift = shift(&canary, &baseline);
    if shift.low > TOLERANCE * shift.estimate.abs() && mean(&canary) >= mean(&baseline) { Label::High } else { Label::Pass }
}

/// The shift and the lower end of its interval. Both series have values, and not all are equal.
pub fn shift(canary: &[f64], baseline: &[f64]) -> Shift {
    let ends = |values: &[f64]| values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (v.min(low), v.max(high)));
    let ((least, most), (least_other, most_other)) = (ends(canary), ends(baseline));
    let (from, to) = (least - most_other, most - least_other);
    let at = |quantile: f64| move |shift: f64| statistic(shift, canary, baseline) - quantile;
    let low = if at(Z99)(from) <= 0.0 {
        from
    } else if at(Z99)(to) >= 0.0 {
        to
    } else {
        root(at(Z99), from, to)
    };
    Shift { low, estimate: root(at(0.0), from, to) }
}

/// The standardised Mann-Whitney statistic after taking a shift from the canary's values.
fn statistic(shift: f64, canary: &[f64], baseline: &[f64]) -> f64 {
    let (n, m) = (canary.len() as f64, baseline.len() as f64);
    let mut all: Vec<(f64, bool)> = canary.iter().map(|v| (v - shift, true)).chain(baseline.iter().map(|v| (*v, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut ties, mut before) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let size = equal.len() as f64;
        ranks += equal.iter().filter(|v| v.1).count() as f64 * (before + (size + 1.0) / 2.0);
        ties += size.powi(3) - size;
        before += size;
    }
    let excess = ranks - n * (n + 1.0) / 2.0 - n * m / 2.0;
    let correction = if excess == 0.0 { 0.0 } else { excess.signum() / 2.0 };
    let variance = n * m / 12.0 * (n + m + 1.0 - ties / ((n + m) * (n + m - 1.0)));
    (excess - correction) / variance.sqrt()
}

/// Brent's method between two places where `f` has different signs.
fn root(f: impl Fn(f64) -> f64, from: f64, to: f64) -> f64 {
    let (mut older, mut best) = ((from, f(from)), (to, f(to)));
    let mut across = older;
    if older.1 == 0.0 {
        return older.0;
    }
    for _ in 0..1000 {
        let last_step = best.0 - older.0;
        if across.1.abs() < best.1.abs() {
            (older, best, across) = (best, across, best);
        }
        let width = 2.0 * f64::EPSILON * best.0.abs() + ROOT_WIDTH / 2.0;
        let half = (across.0 - best.0) / 2.0;
        if half.abs() <= width || best.1 == 0.0 {
            break;
        }
        let trusted = last_step.abs() >= width && older.1.abs() > best.1.abs();
        let step = if trusted { interpolated(older, best, across, last_step, width).unwrap_or(half) } else { half };
        let step = if step.abs() < width { width.copysign(step) } else { step };
        older = best;
        best = (best.0 + step, f(best.0 + step));
        if best.1 * across.1 > 0.0 {
            across = older;
        }
    }
    best.0
}

/// A secant step, or an inverse quadratic one through three places; `None` when it leads too far.
fn interpolated(older: (f64, f64), best: (f64, f64), across: (f64, f64), last_step: f64, width: f64) -> Option<f64> {
    let gap = across.0 - best.0;
    let (over, under) = if older.0 == across.0 {
        let s = best.1 / older.1;
        (gap * s, 1.0 - s)
    } else {
        let (q, r, s) = (older.1 / across.1, best.1 / across.1, best.1 / older.1);
        (s * (gap * q * (q - r) - (best.0 - older.0) * (r - 1.0)), (q - 1.0) * (r - 1.0) * (s - 1.0))
    };
    let (over, under) = if over > 0.0 { (over, -under) } else { (-over, under) };
    let near = over < 0.75 * gap * under - (width * under).abs() / 2.0 && over < (last_step * under / 2.0).abs();
    near.then(|| over / under)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
