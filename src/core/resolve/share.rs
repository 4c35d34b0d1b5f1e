//! `falseAbort`: one promise for the whole release, shared by the gates that may break it.

use crate::api::analysis::Mode;
use crate::core::SpecError;

/// A gate that counts calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Path of its `falseAbort`, for messages.
    pub path: String,
    /// Its own share, where it names one.
    pub own: Option<f64>,
    /// Whether its verdict counts.
    pub mode: Mode,
}

/// Shares of `budget`, one a claim. A gate that names none gets an equal part of what the others leave. Gates in a dry run
/// abort nothing, so that what they get does not count.
///
/// # Errors
/// A budget that is no chance, or one that does not suffice.
pub fn shares(budget: f64, claims: &[Claim]) -> Result<Vec<f64>, Vec<SpecError>> {
    if !(budget > 0.0 && budget < 0.5) {
        let message = format!("{budget} is not a chance between 0 and 0.5 (both excluded): write 0.01 for one release in a hundred");
        return Err(vec![SpecError::new("spec.falseAbort", message)]);
    }
    let counting = || claims.iter().filter(|c| c.mode != Mode::DryRun);
    let named: f64 = counting().filter_map(|c| c.own).sum();
    let unnamed = counting().filter(|c| c.own.is_none()).count();
    let rest = budget - named;
    // Shares such as 0.004 + 0.006 do not add up to 0.01 in a float.
    let tolerance = budget * 1e-9;
    if rest < -tolerance {
        let message = |c: &Claim| {
            SpecError::new(&c.path, format!("the gates' shares add up to {}, more than spec.falseAbort {budget}", shown(named)))
        };
        return Err(counting().filter(|c| c.own.is_some()).map(message).collect());
    }
    if unnamed > 0 && rest <= tolerance {
        let message = format!("the other gates' shares use up spec.falseAbort {budget}: name a share for this gate, and less for them");
        return Err(counting().filter(|c| c.own.is_none()).map(|c| SpecError::new(&c.path, message.clone())).collect());
    }
    let equal = rest / unnamed.max(1) as f64;
    let dry = if unnamed > 0 { equal } else { budget };
    Ok(claims.iter().map(|c| c.own.unwrap_or(if c.mode == Mode::DryRun { dry } else { equal })).collect())
}

/// Without the last places of a float.
fn shown(x: f64) -> f64 {
    (x * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(own: Option<f64>, mode: Mode) -> Claim {
        Claim { path: format!("g{own:?}"), own, mode }
    }

    #[test]
    fn the_sum_of_what_counts_is_the_promise() {
        let (e, s, d) = (Mode::Enforce, Mode::Signal, Mode::DryRun);
        for (claims, expected) in [
            (vec![], vec![]),
            (vec![claim(None, e)], vec![0.01]),
            (vec![claim(None, e), claim(None, s)], vec![0.005, 0.005]),
            (vec![claim(Some(0.004), e), claim(None, e), claim(None, s)], vec![0.004, 0.003, 0.003]),
            (vec![claim(Some(0.004), e), claim(Some(0.006), e)], vec![0.004, 0.006]),
            (vec![claim(Some(0.01), e), claim(None, d)], vec![0.01, 0.01]),
            (vec![claim(Some(0.3), d), claim(None, e)], vec![0.3, 0.01]),
            (vec![claim(None, d), claim(None, e), claim(None, e)], vec![0.005; 3]),
        ] {
            let found = shares(0.01, &claims).unwrap();
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn a_promise_that_cannot_be_kept_names_who_asks_for_too_much() {
        let text =
            |budget, claims: &[Claim]| shares(budget, claims).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
        let much = [claim(Some(0.008), Mode::Enforce), claim(Some(0.004), Mode::Signal), claim(None, Mode::Enforce)];
        assert_eq!(
            text(0.01, &much),
            "gSome(0.008): the gates' shares add up to 0.012, more than spec.falseAbort 0.01|gSome(0.004): the gates' shares add up to 0.012, more than spec.falseAbort 0.01"
        );
        let nothing_left = [claim(Some(0.01), Mode::Enforce), claim(None, Mode::Enforce)];
        assert!(text(0.01, &nothing_left).starts_with("gNone: the other gates' shares use up spec.falseAbort 0.01"));
        for budget in [0.0, 0.5, 1.0, -0.1, f64::NAN] {
            assert!(text(budget, &[]).starts_with("spec.falseAbort: "), "{budget}");
        }
    }
}
