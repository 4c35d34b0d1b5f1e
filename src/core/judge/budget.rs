//! What a judge may spend. It is taken before the model is asked and settled afterwards, so that a crash in between
//! leaves the highest possible cost taken.
//!
//! Money is counted in millionths of a US dollar.

use crate::api::analysis::{Gate, Judge};
use crate::api::judge::{JudgePrices, Spent};
use crate::api::run::{GateStatus, Tokens};

/// Bytes of a question that are counted as one token. Ordinary text has 3 to 5 bytes a token.
pub const BYTES_A_TOKEN: usize = 2;

/// Cost in millionths of a dollar, rounded up. Prices are dollars for a million tokens.
pub fn cost(prices: &JudgePrices, tokens: Tokens) -> i64 {
    #[allow(clippy::cast_precision_loss)] // tokens are far below 2^52
    let exact = tokens.input as f64 * prices.input_per_million + tokens.output as f64 * prices.output_per_million;
    micro(exact.ceil())
}

/// The most that one vote can cost. A vote that falls back to another answer form is refused, and not charged, before.
fn highest(judge: &Judge) -> i64 {
    let Some(prices) = prices(judge) else { return 0 };
    let api = judge.anthropic.as_ref().or(judge.openai.as_ref());
    let output = i64::from(api.map_or(0, |a| a.max_tokens));
    cost(&prices, Tokens { input: i64::from(judge.max_input_tokens), output })
}

/// Prices, where they are given.
pub fn prices(judge: &Judge) -> Option<JudgePrices> {
    judge.budget.as_ref().and_then(|b| b.prices)
}

/// Why the next verdict would go beyond the budget; `None` while it does not.
pub fn exhausted(gate: &Gate, state: &GateStatus) -> Option<String> {
    let budget = gate.judge.as_ref()?.budget.as_ref()?;
    let spent = state.spent.unwrap_or_default();
    let verdicts = spent.verdicts.saturating_add(spent.earlier_verdicts);
    if let Some(limit) = budget.verdicts.filter(|limit| verdicts >= *limit) {
        return Some(format!("the judge's budget of {limit} verdicts is spent; raise budget.verdicts or ask less often"));
    }
    let dollars = budget.dollars?;
    let used = spent.micro_dollars.saturating_add(spent.earlier_micro_dollars);
    let next = ahead(gate.judge.as_ref()?);
    (used.saturating_add(next) > micro((dollars * 1e6).floor())).then(|| {
        format!(
            "the judge's budget of ${dollars} is spent: ${} so far, and the next verdict may cost up to ${}; raise budget.dollars",
            shown(used),
            shown(next)
        )
    })
}

/// The most that one verdict can cost.
fn ahead(judge: &Judge) -> i64 {
    highest(judge).saturating_mul(i64::from(judge.votes.max(1)))
}

/// The most that one verdict can cost, in millionths of a dollar; `None` where no prices are given.
pub fn highest_of_verdict(judge: &Judge) -> Option<i64> {
    prices(judge).map(|_| ahead(judge))
}

/// Takes one verdict and its highest cost, before it is asked for.
pub fn reserve(gate: &Gate, state: &mut GateStatus) {
    let Some(judge) = gate.judge.as_ref().filter(|j| j.budget.is_some()) else { return };
    let spent = state.spent.get_or_insert_default();
    spent.verdicts = spent.verdicts.saturating_add(1);
    spent.micro_dollars = spent.micro_dollars.saturating_add(ahead(judge));
}

/// What is known about the cost of a verdict that was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bill {
    /// The model was asked: these tokens, and this many votes whose cost is not known.
    Asked {
        /// Tokens that were reported.
        tokens: Tokens,
        /// Votes that were sent and never reported their tokens.
        unknown: i32,
    },
    /// The model was not asked.
    Nothing,
    /// Nothing is known; the reservation stays.
    Unknown,
}

/// Gives back what was reserved and not used.
pub fn settle(gate: &Gate, state: &mut GateStatus, bill: Bill) {
    let Some(judge) = gate.judge.as_ref().filter(|j| j.budget.is_some()) else { return };
    let Some(spent) = state.spent.as_mut() else { return };
    let actual = match bill {
        Bill::Unknown => return,
        Bill::Nothing => {
            spent.verdicts = spent.verdicts.saturating_sub(1);
            0
        }
        Bill::Asked { tokens, unknown } => {
            let reported = prices(judge).map_or(0, |p| cost(&p, tokens));
            reported.saturating_add(highest(judge).saturating_mul(i64::from(unknown)))
        }
    };
    spent.micro_dollars = spent.micro_dollars.saturating_sub(ahead(judge)).saturating_add(actual).max(0);
}

/// Sets what the release's other runs have spent on this gate.
pub fn set_earlier(state: &mut GateStatus, others: &[Spent]) {
    let spent = state.spent.get_or_insert_default();
    spent.earlier_verdicts = others.iter().fold(0, |sum, s| sum.saturating_add(s.verdicts));
    spent.earlier_micro_dollars = others.iter().fold(0, |sum, s| sum.saturating_add(s.micro_dollars));
}

/// Dollars for people.
fn shown(micro: i64) -> String {
    #[allow(clippy::cast_precision_loss)] // for people
    let dollars = micro as f64 / 1e6;
    format!("{dollars:.4}")
}

#[allow(clippy::cast_possible_truncation)] // saturates
fn micro(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gate(votes: i32, budget: Value) -> Gate {
        let judge = json!({"anthropic": {"model": "m", "maxTokens": 1000}, "prompt": "p", "votes": votes, "maxInputTokens": 10_000,
            "budget": budget});
        serde_json::from_value(json!({"name": "j", "judge": judge})).unwrap()
    }

    /// 10,000 tokens in at $1 and 1,000 out at $5 for a million: $0.015 a vote.
    fn priced(votes: i32, dollars: f64) -> Gate {
        gate(votes, json!({"dollars": dollars, "prices": {"inputPerMillion": 1, "outputPerMillion": 5}}))
    }

    #[test]
    fn a_verdict_is_taken_before_it_is_asked_for_and_settled_after() {
        let gate = priced(3, 0.1);
        let mut state = GateStatus::default();
        assert_eq!(exhausted(&gate, &state), None);
        reserve(&gate, &mut state);
        assert_eq!(state.spent, Some(Spent { verdicts: 1, micro_dollars: 45_000, ..Spent::default() }));
        settle(&gate, &mut state, Bill::Asked { tokens: Tokens { input: 4000, output: 60 }, unknown: 0 });
        assert_eq!(state.spent, Some(Spent { verdicts: 1, micro_dollars: 4300, ..Spent::default() }));
        reserve(&gate, &mut state);
        settle(&gate, &mut state, Bill::Asked { tokens: Tokens { input: 1000, output: 0 }, unknown: 2 });
        assert_eq!(state.spent, Some(Spent { verdicts: 2, micro_dollars: 4300 + 1000 + 30_000, ..Spent::default() }));
        reserve(&gate, &mut state);
        settle(&gate, &mut state, Bill::Nothing);
        assert_eq!(state.spent.map(|s| (s.verdicts, s.micro_dollars)), Some((2, 35_300)));
        reserve(&gate, &mut state);
        settle(&gate, &mut state, Bill::Unknown);
        assert_eq!(state.spent.map(|s| (s.verdicts, s.micro_dollars)), Some((3, 80_300)));
        let why = exhausted(&gate, &state).unwrap();
        assert_eq!(
            why,
            "the judge's budget of $0.1 is spent: $0.0803 so far, and the next verdict may cost up to $0.0450; raise budget.dollars"
        );
    }

    #[test]
    fn what_other_runs_spent_counts() {
        let gate = gate(1, json!({"verdicts": 3}));
        let mut state = GateStatus::default();
        let other = |verdicts| Spent { verdicts, micro_dollars: 5, earlier_verdicts: 100, earlier_micro_dollars: 100 };
        set_earlier(&mut state, &[other(1), other(1)]);
        assert_eq!(exhausted(&gate, &state), None);
        reserve(&gate, &mut state);
        assert_eq!(state.spent, Some(Spent { verdicts: 1, micro_dollars: 0, earlier_verdicts: 2, earlier_micro_dollars: 10 }));
        assert!(exhausted(&gate, &state).unwrap().contains("budget of 3 verdicts is spent"));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let gate: Gate = serde_json::from_value(json!({"name": "j", "judge": {"anthropic": {"model": "m"}, "prompt": "p"}})).unwrap();
        let mut state = GateStatus::default();
        reserve(&gate, &mut state);
        settle(&gate, &mut state, Bill::Unknown);
        assert_eq!((exhausted(&gate, &state), state.spent), (None, None));
    }

    #[test]
    fn the_budget_is_never_overrun_by_what_is_asked_for() {
        let gate = priced(1, 0.05);
        let mut state = GateStatus::default();
        let mut asked = 0;
        while exhausted(&gate, &state).is_none() {
            reserve(&gate, &mut state);
            settle(&gate, &mut state, Bill::Unknown);
            asked += 1;
        }
        assert_eq!((asked, state.spent.map(|s| s.micro_dollars)), (3, Some(45_000)));
    }
}
