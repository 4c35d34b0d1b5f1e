//! Votes into a verdict.

use crate::api::judge::Vote;
use crate::api::run::Verdict;

/// Votes for or against that decide `asked` votes: more than half.
pub fn majority(asked: usize) -> usize {
    asked / 2 + 1
}

/// How many of `asked` votes are still worth asking for, given those that came. 0: the verdict stands.
///
/// First as many as could decide; when they agree, the rest cannot change the verdict.
pub fn wanted(asked: usize, votes: &[Vote]) -> usize {
    let need = majority(asked);
    let open = asked.saturating_sub(votes.len());
    if votes.is_empty() {
        return need.min(open);
    }
    let of = |v: Vote| votes.iter().filter(|x| **x == v).count();
    let (pass, fail, invalid) = (of(Vote::Pass), of(Vote::Fail), of(Vote::Invalid));
    let decided = fail >= need || (pass >= need && invalid == 0);
    let hopeless = fail + open < need && (pass + open < need || invalid > 0);
    if decided || hopeless { 0 } else { open }
}

/// The verdict of `asked` votes, of which `votes` came. More than half FAIL is a Fail. More than half PASS is a Pass, and
/// only if no vote was invalid. Otherwise an invalid vote is an Error, and everything else is undecided.
pub fn verdict(asked: usize, votes: &[Vote]) -> Verdict {
    let need = majority(asked);
    let of = |v: Vote| votes.iter().filter(|x| **x == v).count();
    match (of(Vote::Fail) >= need, of(Vote::Invalid) > 0, of(Vote::Pass) >= need) {
        (true, _, _) => Verdict::Fail,
        (false, true, _) => Verdict::Error,
        (false, false, true) => Verdict::Pass,
        (false, false, false) => Verdict::Inconclusive,
    }
}

/// How the votes fell, for people: `2 of 3 votes`.
pub fn tally(asked: usize, votes: &[Vote], verdict: Verdict) -> String {
    let of = |v: Vote| votes.iter().filter(|x| **x == v).count();
    match verdict {
        Verdict::Pass => format!("{} of {} votes", of(Vote::Pass), votes.len()),
        Verdict::Fail => format!("{} of {} votes", of(Vote::Fail), votes.len()),
        _ => {
            let parts = [(Vote::Pass, "PASS"), (Vote::Fail, "FAIL"), (Vote::Unsure, "UNSURE"), (Vote::Invalid, "not valid")];
            let said: Vec<String> = parts.iter().filter(|(v, _)| of(*v) > 0).map(|(v, w)| format!("{} {w}", of(*v))).collect();
            format!("of {asked} votes {}", said.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(text: &str) -> Vec<Vote> {
        let of = |c| match c {
            'P' => Vote::Pass,
            'F' => Vote::Fail,
            'U' => Vote::Unsure,
            _ => Vote::Invalid,
        };
        text.chars().map(of).collect()
    }

    #[test]
    fn more_than_half_decides() {
        let cases: &[(usize, &str, Verdict, usize)] = &[
            (1, "", Verdict::Inconclusive, 1),
            (1, "P", Verdict::Pass, 0),
            (1, "F", Verdict::Fail, 0),
            (1, "U", Verdict::Inconclusive, 0),
            (1, "x", Verdict::Error, 0),
            (3, "", Verdict::Inconclusive, 2),
            (3, "PP", Verdict::Pass, 0),
            (3, "PF", Verdict::Inconclusive, 1),
            (3, "PFP", Verdict::Pass, 0),
            (3, "PFF", Verdict::Fail, 0),
            (3, "PFU", Verdict::Inconclusive, 0),
            (3, "UU", Verdict::Inconclusive, 0),
            (3, "PU", Verdict::Inconclusive, 1),
            (3, "PUP", Verdict::Pass, 0),
            (3, "Px", Verdict::Error, 0),
            (3, "Fx", Verdict::Error, 1),
            (3, "FxF", Verdict::Fail, 0),
            (3, "FxP", Verdict::Error, 0),
            (3, "PPx", Verdict::Error, 0),
            (3, "xx", Verdict::Error, 0),
            (5, "", Verdict::Inconclusive, 3),
            (5, "PPP", Verdict::Pass, 0),
            (5, "PPF", Verdict::Inconclusive, 2),
            (5, "PPFFF", Verdict::Fail, 0),
            (5, "PPPFx", Verdict::Error, 0),
            (9, "PPPPP", Verdict::Pass, 0),
        ];
        for (asked, text, expected, more) in cases {
            assert_eq!((verdict(*asked, &votes(text)), wanted(*asked, &votes(text))), (*expected, *more), "{asked} {text}");
        }
    }

    /// Stopping early never gives another verdict than asking everybody, unless a vote that was not asked for would have
    /// been invalid.
    #[test]
    fn the_votes_that_are_not_asked_for_change_nothing() {
        let kinds = [Vote::Pass, Vote::Fail, Vote::Unsure, Vote::Invalid];
        for asked in [1_usize, 3, 5] {
            for n in 0..kinds.len().pow(u32::try_from(asked).unwrap()) {
                let all: Vec<Vote> = (0..asked).map(|i| kinds[n / kinds.len().pow(u32::try_from(i).unwrap()) % kinds.len()]).collect();
                let mut got: Vec<Vote> = Vec::new();
                loop {
                    let more = wanted(asked, &got);
                    if more == 0 {
                        break;
                    }
                    got.extend(&all[got.len()..got.len() + more]);
                }
                let unasked = &all[got.len()..];
                let (early, late) = (verdict(asked, &got), verdict(asked, &all));
                assert!(early == late || unasked.contains(&Vote::Invalid), "{all:?}: {early:?} {late:?}");
                if early == Verdict::Pass {
                    let pass = got.iter().filter(|v| **v == Vote::Pass).count();
                    assert!(pass * 2 > asked && !got.contains(&Vote::Invalid), "{all:?}");
                }
            }
        }
    }

    #[test]
    fn people_are_told_how_it_fell() {
        let say = |asked, text: &str| tally(asked, &votes(text), verdict(asked, &votes(text)));
        assert_eq!(say(3, "PP"), "2 of 2 votes");
        assert_eq!(say(3, "PFF"), "2 of 3 votes");
        assert_eq!(say(3, "PFU"), "of 3 votes 1 PASS, 1 FAIL, 1 UNSURE");
        assert_eq!(say(3, "Px"), "of 3 votes 1 PASS, 1 not valid");
    }
}
