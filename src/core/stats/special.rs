//! Special functions, as logarithms, so that extreme evidence neither overflows nor vanishes.

use libm::lgamma;

/// Terms of the continued fraction; it converges in about the square root of the larger argument.
const MOST_TERMS: u32 = 100_000;

/// Logarithm of the beta function.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

/// Logarithm of the regularised incomplete beta function `I_x(a, b)`, for `x` in 0..=1 and `a`, `b` above 0.
///
/// By the continued fraction of DLMF 8.17.22, evaluated from the front (Lentz, Applied Optics 15, 1976), on the side of
/// the mean where it converges fast.
pub fn ln_incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if x >= 1.0 {
        return 0.0;
    }
    if x < (a + 1.0) / (a + b + 2.0) { ln_lower(a, b, x) } else { (-ln_lower(b, a, 1.0 - x).exp()).ln_1p() }
}

fn ln_lower(a: f64, b: f64, x: f64) -> f64 {
    a * x.ln() + b * (-x).ln_1p() - a.ln() - ln_beta(a, b) - fraction(a, b, x).ln()
}

/// `1 + d1/(1 + d2/(1 + ...))`.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let apart = |v: f64| if v.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { v };
    let (mut value, mut c, mut d) = (1.0, 1.0, 0.0);
    for i in 1..MOST_TERMS {
        let m = f64::from(i / 2);
        let term = if i % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        d = 1.0 / apart(1.0 + term * d);
        c = apart(1.0 + term / c);
        value *= c * d;
        if (c * d - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    value
}

/// Chance that a standard normal variable exceeds `z`.
pub fn normal_tail(z: f64) -> f64 {
    libm::erfc(z / std::f64::consts::SQRT_2) / 2.0
}

/// The value below which a standard normal variable lies with chance `p`, between 0 and 1 (both excluded).
pub fn normal_quantile(p: f64) -> f64 {
    // Beyond 40 the tail is 0 in a float.
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if normal_tail(-middle) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}
