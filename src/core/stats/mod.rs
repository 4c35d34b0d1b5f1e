//! The statistics of the gates: numbers in, numbers out.
//!
//! Everything here stays valid when it is looked at after every tick and acted on at any of those looks. The tool is the
//! e-value: a number that is at most 1 on average when the claim against which it is collected (the null hypothesis) is
//! true. Multiplied up over the ticks it makes an e-process `E`, and by Ville's inequality the chance that `E` ever
//! reaches `1/alpha` is at most `alpha` (Ville 1939; Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and
//! safe anytime-valid inference", Statistical Science 38, 2023). Averages of e-processes are e-processes, whatever ties
//! them together. All evidence is kept and compared as a natural logarithm.
//!
//! The unit of all counts is a call, not a turn: turns of one call go wrong together, and a test that takes them for
//! independent aborts several times as often as it promises.

pub mod absolute;
pub mod baselines;
mod curve;
pub mod evidence;
pub mod fnch;
mod kayenta;
pub mod paired;
pub mod plan;
pub(in crate::core) mod sampling;
pub mod simulate;
mod special;
pub mod srm;
pub mod traffic;

#[cfg(test)]
pub(in crate::core) mod tests;

/// Logarithm of the mean of `exp(value)`; minus infinity for no values.
fn log_mean_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + (value - largest).exp(), count + 1));
    largest + (sum / f64::from(count)).ln()
}
