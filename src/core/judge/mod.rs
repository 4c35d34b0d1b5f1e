//! The judge's side that is arithmetic: votes, budget, blinding, template mining, agreement with known answers.

pub mod agreement;
pub mod blind;
pub mod budget;
mod mask;
pub mod metrics;
pub mod patterns;
pub mod requires;
pub mod templates;
pub mod traces;
pub mod votes;

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::api::judge::{JudgeRecord, Vote};
use crate::api::run::{Measurement, Tokens, Verdict};

/// What came of asking for one verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict; `Error` when votes that were needed are not valid.
    pub verdict: Verdict,
    /// One sentence.
    pub message: String,
    /// What it rests on.
    pub record: JudgeRecord,
    /// Votes that were sent and whose cost is not known: no answer came, or not a whole one.
    pub unknown: i32,
    /// The vendor asked to wait this long.
    pub retry_after: Option<Duration>,
}

impl Judgement {
    /// What one vote comes to; the message says it.
    pub fn of_one(vote: Vote, message: &str, tokens: Tokens) -> Self {
        let record = JudgeRecord { votes: vec![vote], tokens, ..JudgeRecord::default() };
        Self { verdict: votes::verdict(1, &[vote]), message: message.into(), record, unknown: 0, retry_after: None }
    }

    /// The earlier verdict of the same run on the same question and evidence, where there is one. It costs nothing.
    pub fn again(earlier: &[Measurement], prompt_hash: &str, evidence_hash: &str) -> Option<Self> {
        let same = |m: &&Measurement| {
            let r = m.judge.as_ref();
            m.verdict != Verdict::Error && r.is_some_and(|r| r.prompt_hash == prompt_hash && r.evidence_hash == evidence_hash)
        };
        let found = earlier.iter().rev().find(same)?;
        let record = found.judge.clone()?;
        let record = JudgeRecord { tokens: Default::default(), micro_dollars: record.micro_dollars.map(|_| 0), cached: true, ..record };
        let message = found.message.strip_prefix(SAME).unwrap_or(&found.message);
        let message = format!("{SAME}{message}");
        Some(Self { verdict: found.verdict, message, record, unknown: 0, retry_after: None })
    }
}

/// Begins the message of a verdict that was not asked for anew.
const SAME: &str = "unchanged evidence: ";

/// A hash for people to compare: 16 hexadecimal digits of SHA-256.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::run::Tokens;

    fn measurement(verdict: Verdict, prompt: &str, evidence: &str) -> Measurement {
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        let record = JudgeRecord {
            prompt_hash: prompt.into(),
            evidence_hash: evidence.into(),
            tokens: Tokens { input: 10, output: 5 },
            micro_dollars: Some(7),
            ..JudgeRecord::default()
        };
        Measurement {
            started_at: at.clone(),
            finished_at: at,
            verdict,
            value: None,
            message: format!("judge says {verdict:?}"),
            suite: None,
            judge: Some(record),
        }
    }

    #[test]
    fn the_newest_verdict_on_the_same_evidence_counts_again() {
        let earlier = [
            measurement(Verdict::Pass, "p", "e"),
            measurement(Verdict::Fail, "p", "e"),
            measurement(Verdict::Error, "p", "e"),
            measurement(Verdict::Pass, "p", "other"),
        ];
        let again = Judgement::again(&earlier, "p", "e").unwrap();
        assert_eq!((again.verdict, again.message.as_str()), (Verdict::Fail, "unchanged evidence: judge says Fail"));
        assert_eq!((again.record.tokens, again.record.micro_dollars, again.record.cached), (Tokens::default(), Some(0), true));
        assert_eq!(Judgement::again(&earlier, "q", "e"), None);
        assert_eq!(Judgement::again(&earlier[2..3], "p", "e"), None, "an error is no verdict");
    }
}
