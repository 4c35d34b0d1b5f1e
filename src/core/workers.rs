//! Workers that pull their jobs: no route splits new calls, each worker takes its part of them. A weight is a number of
//! canary workers beside stable ones, of which none is taken away: with `n` stable workers and `c` of the canary, the
//! canary gets `c / (c + n)` of new calls.

use crate::api::rollout::Traffic;

/// Canary workers whose share is nearest to `weight` percent beside `stable` workers, a half rounded up: `n w / (100 - w)`.
/// At least one for any weight, and at most as many as stable has: more than half of new calls is out of reach.
pub fn count(weight: i32, stable: i32) -> i32 {
    let (w, n) = (i64::from(weight.min(100)), i64::from(stable.max(0)));
    if w <= 0 {
        return 0;
    }
    let rest = (100 - w).max(1);
    let nearest = (2 * n * w + rest) / (2 * rest);
    i32::try_from(nearest.clamp(n.min(1), n)).unwrap_or(stable)
}

/// Percentage of new calls that `canary` workers get beside `stable` ones, rounded; never 0 or 100 while both get some.
pub fn share(canary: i32, stable: i32) -> i32 {
    let (c, n) = (i64::from(canary.max(0)), i64::from(stable.max(0)));
    match (c, n) {
        (0, _) => 0,
        (_, 0) => 100,
        _ => i32::try_from(((200 * c + c + n) / (2 * (c + n))).clamp(1, 99)).unwrap_or(99),
    }
}

/// New calls are shared by numbers of workers, not by routes.
pub fn share_calls(traffic: &Traffic) -> bool {
    traffic.istio.is_none() && traffic.replicas.is_some()
}

/// Percentage of new calls that the canary gets at a step's `weight`, with the workers for it beside `stable` ones.
pub fn reached(weight: i32, stable: i32) -> i32 {
    share(count(weight, stable), stable)
}

/// The weight at which gates compare: what can be reached of it, since stable gets the rest.
pub fn compared(weight: i32, stable: i32) -> i32 {
    weight.min(reached(weight, stable))
}

/// The weight is more than the workers of a whole stable can share.
pub fn is_beyond(weight: i32, stable: i32) -> bool {
    stable > 0 && weight > 50
}

/// The weight is less than what one worker gets.
pub fn is_below(weight: i32, stable: i32) -> bool {
    weight > 0 && stable > 0 && i64::from(weight) * (i64::from(stable) + 1) < 100 && share(1, stable) > weight
}

/// What a step's weight comes to, in words.
pub fn told(weight: i32, stable: i32) -> String {
    let canary = count(weight, stable);
    let workers = if canary == 1 { "worker" } else { "workers" };
    let share = share(canary, stable);
    let limit = match () {
        () if is_beyond(weight, stable) && weight >= 100 => " is the most with stable kept whole, the rest comes with the promotion",
        () if is_beyond(weight, stable) => " is the most with stable kept whole",
        () if is_below(weight, stable) => " is the least",
        () => "",
    };
    format!("step weight {weight} %: {canary} canary {workers} of {}, {share} % of new calls{limit}", canary.saturating_add(stable))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_whose_share_is_nearest() {
        for (weight, stable, canary, percent) in [
            (0, 10, 0, 0),
            (5, 10, 1, 9),
            (5, 20, 1, 5),
            (25, 10, 3, 23),
            (25, 20, 7, 26),
            (50, 10, 10, 50),
            (50, 3, 3, 50),
            (75, 10, 10, 50),
            (100, 10, 10, 50),
            (5, 1, 1, 50),
            (20, 2, 1, 33),
            (30, 0, 0, 0),
            (1, 10_000, 101, 1),
        ] {
            assert_eq!((count(weight, stable), share(count(weight, stable), stable)), (canary, percent), "{weight} % beside {stable}");
        }
        assert_eq!((share(1, 9999), share(9999, 1), share(3, 0)), (1, 99, 100));
    }

    #[test]
    fn it_is_said_what_cannot_be_reached() {
        assert_eq!(told(75, 10), "step weight 75 %: 10 canary workers of 20, 50 % of new calls is the most with stable kept whole");
        let all = "step weight 100 %: 2 canary workers of 4, 50 % of new calls is the most with stable kept whole, the rest comes with the promotion";
        assert_eq!(told(100, 2), all);
        assert_eq!(told(5, 2), "step weight 5 %: 1 canary worker of 3, 33 % of new calls is the least");
        assert_eq!(told(25, 10), "step weight 25 %: 3 canary workers of 13, 23 % of new calls");
        assert_eq!(told(5, 19), "step weight 5 %: 1 canary worker of 20, 5 % of new calls");
    }

    #[test]
    fn gates_compare_at_what_is_reached_and_not_at_more_than_was_asked_for() {
        let at = |weight, stable| (reached(weight, stable), compared(weight, stable));
        assert_eq!([at(5, 10), at(25, 10), at(75, 10), at(0, 10), at(5, 0)], [(9, 5), (23, 23), (50, 50), (0, 0), (0, 0)]);
    }

    proptest! {
        #[test]
        fn no_other_number_within_reach_is_nearer_by_more_than_the_rounding(weight in 1i32..101, stable in 1i32..500) {
            let chosen = count(weight, stable);
            prop_assert!((1..=stable).contains(&chosen));
            // Of the number, not of the share: `n w / (100 - w)` lies within a half, where that is within reach.
            let exact = f64::from(stable) * f64::from(weight) / f64::from(100 - weight);
            if (1.0..=f64::from(stable)).contains(&exact) {
                prop_assert!((f64::from(chosen) - exact).abs() <= 0.5, "{chosen} for {exact}");
            } else {
                prop_assert!(chosen == 1 || chosen == stable);
            }
            prop_assert!(weight == 100 || count(weight, stable) <= count(weight + 1, stable));
        }
    }
}
