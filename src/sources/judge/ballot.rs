//! Votes: as many questions as are needed, each with its own letters for the arms, and what they come to.

use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;

use super::prompt::Question;
use super::vendor::Asked;
use super::verdict::{self, Form, Said};
use super::{anthropic, blinding, openai};
use crate::api::analysis::Judge;
use crate::api::common::std_duration;
use crate::api::judge::{JudgeRecord, Vote};
use crate::api::run::{Tokens, Verdict};
use crate::core::judge::blind::Arms;
use crate::core::judge::{Judgement, budget, votes};
use crate::sources::redact::{self, Known};
use crate::sources::{Request, SourceError, http};

/// One vote as it came.
struct Ballot {
    vote: Vote,
    /// The sentence, or why there is none.
    text: String,
    /// The model as it calls itself.
    model: Option<String>,
    /// What it cost; `None`: not known.
    tokens: Option<Tokens>,
    retry_after: Option<Duration>,
}

/// Asks for votes until the verdict stands.
pub(super) async fn ballot(
    asked: &Asked<'_>,
    judge: &Judge,
    request: &Request,
    question: &Question,
    evidence: &Value,
    evidence_hash: String,
) -> Judgement {
    let wanted = usize::try_from(judge.votes).unwrap_or(1).max(1);
    let known = asked.vault.known();
    let mut ballots: Vec<Ballot> = Vec::new();
    loop {
        let so_far: Vec<Vote> = ballots.iter().map(|b| b.vote).collect();
        let more = votes::wanted(wanted, &so_far);
        if more == 0 {
            break;
        }
        let round = ballots.len()..ballots.len() + more;
        ballots.extend(join_all(round.map(|n| vote(asked, judge, request, question, evidence, n, &known))).await);
    }
    judgement(judge, wanted, &ballots, question, evidence_hash)
}

/// Asks for the `n`th vote (from 0).
async fn vote(
    asked: &Asked<'_>,
    judge: &Judge,
    request: &Request,
    question: &Question,
    evidence: &Value,
    n: usize,
    known: &Known,
) -> Ballot {
    let arms = Arms::of(&request.key, n);
    // The first vote goes by the measurement's own key.
    let key = if n == 0 { request.key.clone() } else { format!("{}-{}", request.key, n + 1) };
    let prompt = question.prompt(&key, arms, request, &blinding::blinded(evidence, request, arms));
    let asked = Asked { vote_key: &key, ..*asked };
    let what = format!("judge model {}", asked.api.model);
    let answer = http::within(std_duration(judge.timeout), &what, async {
        match judge.anthropic {
            Some(_) => anthropic::ask(&asked, &prompt).await,
            None => openai::ask(&asked, &prompt).await,
        }
    });
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(SourceError { message, retry_after, tokens }) => {
            return Ballot { vote: Vote::Invalid, text: message, model: None, tokens, retry_after };
        }
    };
    let model = Some(redact::line(&answer.model, 128)).filter(|m| !m.is_empty());
    let (vote, text) = match verdict::parse(&answer.text, &Form { arms, rubric: &question.names, explains: question.explains }, known) {
        Ok(Said { vote, reason }) => (vote, reason),
        Err(why) => (Vote::Invalid, format!("{}: {why}", answer.what)),
    };
    Ballot { vote, text, model, tokens: answer.tokens, retry_after: None }
}

/// What the votes come to.
fn judgement(judge: &Judge, wanted: usize, ballots: &[Ballot], question: &Question, evidence_hash: String) -> Judgement {
    let all: Vec<Vote> = ballots.iter().map(|b| b.vote).collect();
    // The vote of an explanation is UNSURE, and so is what votes come to.
    let verdict = votes::verdict(wanted, &all);
    let tokens = ballots
        .iter()
        .filter_map(|b| b.tokens)
        .fold(Tokens::default(), |sum, t| Tokens { input: sum.input.saturating_add(t.input), output: sum.output.saturating_add(t.output) });
    let unknown = ballots.iter().filter(|b| b.tokens.is_none()).count();
    let mut models: Vec<&str> = ballots.iter().filter_map(|b| b.model.as_deref()).collect();
    models.dedup();
    let record = JudgeRecord {
        model: redact::line(&models.join(", "), 256),
        prompt_hash: question.hash.clone(),
        evidence_hash,
        votes: all.clone(),
        tokens,
        micro_dollars: budget::prices(judge).map(|p| budget::cost(&p, tokens)),
        cached: false,
    };
    Judgement {
        verdict,
        message: if question.explains { said(ballots) } else { message(wanted, ballots, &all, verdict) },
        record,
        unknown: i32::try_from(unknown).unwrap_or(i32::MAX),
        retry_after: ballots.iter().filter_map(|b| b.retry_after).max(),
    }
}

/// The explanation, or why there is none.
fn said(ballots: &[Ballot]) -> String {
    let given = ballots.iter().find(|b| b.vote != Vote::Invalid).or(ballots.first());
    given.map_or_else(String::new, |b| b.text.clone())
}

/// The verdict with the sentence of a vote that gave it.
fn message(wanted: usize, ballots: &[Ballot], all: &[Vote], verdict: Verdict) -> String {
    let (word, of) = match verdict {
        Verdict::Pass => ("PASS", Vote::Pass),
        Verdict::Fail => ("FAIL", Vote::Fail),
        Verdict::Inconclusive => ("UNSURE", Vote::Unsure),
        Verdict::Error => ("", Vote::Invalid),
    };
    let text = ballots.iter().find(|b| b.vote == of).or(ballots.first()).map_or("", |b| b.text.as_str());
    match (verdict, wanted) {
        (Verdict::Error, 1) => text.to_owned(),
        (Verdict::Error, _) => format!("{text} ({})", votes::tally(wanted, all, verdict)),
        (_, 1) => format!("judge says {word}: {text}"),
        _ => format!("judge says {word}, {}: {text}", votes::tally(wanted, all, verdict)),
    }
}
