//! How well a judge does at cases whose answer is known.

use crate::api::judge::Vote;

/// An expected answer and the one that was given; `Invalid` stands for an error.
pub type Case = (Vote, Vote);

/// Figures of a set of cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Number of cases.
    pub cases: usize,
    /// Cases with the expected answer.
    pub agreed: usize,
    /// Agreement beyond chance, at most 1; absent where chance alone gives full agreement.
    pub kappa: Option<f64>,
    /// Cases that must not pass: those that expect FAIL or UNSURE.
    pub must_not_pass: usize,
    /// Those of them that were given a PASS.
    pub false_passes: usize,
}

impl Agreement {
    /// Share of cases with the expected answer; 0 without cases.
    pub fn share(&self) -> f64 {
        ratio(self.agreed, self.cases)
    }

    /// Share of PASS among the cases that must not pass; 1 without such cases, since nothing is known then.
    pub fn false_pass(&self) -> f64 {
        if self.must_not_pass == 0 { 1.0 } else { ratio(self.false_passes, self.must_not_pass) }
    }

    /// Interval that holds the true false-pass rate with 95 % confidence (Clopper and Pearson, Biometrika 1934).
    pub fn false_pass_interval(&self) -> (f64, f64) {
        clopper_pearson(self.false_passes, self.must_not_pass, 0.05)
    }
}

/// Compares answers with expectations. Kappa is Cohen's (Educational and Psychological Measurement 1960) over PASS, FAIL,
/// UNSURE and errors.
pub fn agreement(cases: &[Case]) -> Agreement {
    let n = cases.len();
    let agreed = cases.iter().filter(|(want, got)| want == got).count();
    let observed = ratio(agreed, n);
    let chance: f64 = [Vote::Pass, Vote::Fail, Vote::Unsure, Vote::Invalid]
        .iter()
        .map(|v| {
            let wanted = cases.iter().filter(|(want, _)| want == v).count();
            let given = cases.iter().filter(|(_, got)| got == v).count();
            ratio(wanted, n) * ratio(given, n)
        })
        .sum();
    let kappa = (n > 0 && chance < 1.0).then(|| (observed - chance) / (1.0 - chance));
    let bad = || cases.iter().filter(|(want, _)| *want != Vote::Pass);
    Agreement { cases: n, agreed, kappa, must_not_pass: bad().count(), false_passes: bad().filter(|(_, got)| *got == Vote::Pass).count() }
}

/// Exact interval of a proportion with `hits` of `n`, with confidence `1 - alpha`.
pub fn clopper_pearson(hits: usize, n: usize, alpha: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let low = if hits == 0 { 0.0 } else { solve(|p| 1.0 - cumulative(hits - 1, n, p) < alpha / 2.0) };
    let high = if hits == n { 1.0 } else { solve(|p| cumulative(hits, n, p) > alpha / 2.0) };
    (low, high)
}

/// Where `below` turns from true to false in 0..1.
fn solve(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Probability of at most `hits` of `n` at rate `p`, from logarithms of the binomial's terms.
#[allow(clippy::cast_precision_loss)] // counts of cases
fn cumulative(hits: usize, n: usize, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return if hits >= n { 1.0 } else { 0.0 };
    }
    let (yes, no) = (p.ln(), (-p).ln_1p());
    let mut choose = 0.0_f64;
    let mut sum = 0.0;
    for k in 0..=hits.min(n) {
        sum += (choose + k as f64 * yes + (n - k) as f64 * no).exp();
        choose += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    sum
}

#[allow(clippy::cast_precision_loss)] // counts of cases
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(text: &str) -> Vec<Case> {
        let of = |c: &str| match c {
            "P" => Vote::Pass,
            "F" => Vote::Fail,
            "U" => Vote::Unsure,
            _ => Vote::Invalid,
        };
        text.split_whitespace().map(|pair| (of(&pair[..1]), of(&pair[1..]))).collect()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn figures_by_hand() {
        // Rows PP 20, PF 5, FP 10, FF 15: observed 35/50; chance 25/50 * 30/50 + 25/50 * 20/50 = 0.5; kappa 0.2/0.5.
        let table = [("PP ", 20), ("PF ", 5), ("FP ", 10), ("FF ", 15)].map(|(pair, n)| pair.repeat(n)).concat();
        let a = agreement(&cases(&table));
        assert!(near(a.share(), 0.7) && near(a.kappa.unwrap(), 0.4), "{a:?}");
        assert_eq!((a.must_not_pass, a.false_passes), (25, 10));
        assert!(near(a.false_pass(), 0.4));

        // Observed 5/8. Wanted 3 PASS, 3 FAIL, 2 UNSURE; given 2, 3, 2 and an error: chance (6 + 9 + 4) / 64.
        let a = agreement(&cases("PP PP Px FF FF FU UU UF"));
        let chance = 19.0 / 64.0;
        assert_eq!((a.cases, a.agreed, a.false_passes), (8, 5, 0));
        assert!(near(a.kappa.unwrap(), (0.625 - chance) / (1.0 - chance)), "{a:?}");
    }

    #[test]
    fn nothing_is_claimed_without_cases() {
        let none = agreement(&[]);
        assert_eq!((none.share(), none.kappa, none.false_pass(), none.false_pass_interval()), (0.0, None, 1.0, (0.0, 1.0)));
        let only_good = agreement(&cases("PP PP"));
        assert_eq!((only_good.kappa, only_good.false_pass()), (None, 1.0));
        assert!(near(agreement(&cases("PP FF UU")).kappa.unwrap(), 1.0));
        assert!(near(agreement(&cases("PF FP")).kappa.unwrap(), -1.0));
    }

    #[test]
    fn the_interval_is_exact() {
        // 0 of n: the upper end is 1 - (alpha/2)^(1/n).
        for n in [1_usize, 20, 100] {
            let (low, high) = clopper_pearson(0, n, 0.05);
            #[allow(clippy::cast_precision_loss)]
            let expected = 1.0 - 0.025_f64.powf(1.0 / n as f64);
            assert!(low == 0.0 && near(high, expected), "{n}: {high} {expected}");
        }
        // 1 of 10 from tables: 0.0025 to 0.4450.
        let (low, high) = clopper_pearson(1, 10, 0.05);
        assert!((low - 0.002_528_578_5).abs() < 1e-8 && (high - 0.445_016_117).abs() < 1e-8, "{low} {high}");
        let (low, high) = clopper_pearson(10, 10, 0.05);
        assert!(near(high, 1.0) && near(low, 0.025_f64.powf(0.1)), "{low}");
        let (low, high) = clopper_pearson(500, 2000, 0.05);
        assert!(0.22 < low && low < 0.25 && 0.25 < high && high < 0.28);
    }
}
