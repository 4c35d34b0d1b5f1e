//! The judge: a language model reads evidence that the operator put together and answers PASS, FAIL or UNSURE.
//!
//! Nothing but well-formed PASS votes are ever a pass. Evidence that was asked for and is missing, a refusal, a cut-off
//! answer, prose, and every failure of the service are errors.

mod anthropic;
mod ballot;
mod blinding;
mod dialect;
pub mod digest;
mod evidence;
pub mod logs;
mod openai;
mod otlp;
mod prompt;
mod shares;
mod strict;
mod traces;
mod vendor;
mod verdict;

use serde_json::Value;

use super::http::Http;
use super::redact;
use super::secrets::Vault;
use super::{Progress, Request, SourceError};
use crate::api::analysis::{Judge, JudgeApi};
use crate::core::judge::budget::BYTES_A_TOKEN;
use crate::core::judge::{Judgement, patterns, short_hash};
pub(super) use dialect::Dialects;
use logs::LogReader;
use prompt::Question;
use vendor::{Asked, free};

/// Collects the evidence and asks for one verdict.
pub(super) async fn measure(
    http: &Http,
    vault: &Vault<'_>,
    dialects: &Dialects,
    logs: &dyn LogReader,
    request: &Request,
    judge: &Judge,
) -> Result<Progress, SourceError> {
    let prepared = Prepared::new(vault, request, judge).await.map_err(free)?;
    let room = prepared.room(judge);
    let evidence = evidence::collect(http, vault, logs, request, &judge.evidence, room).await.map_err(free)?;
    Ok(Progress::Votes(Box::new(prepared.verdict(http, vault, dialects, request, judge, &evidence).await?)))
}

/// Asks for one verdict on evidence that is given, redacted like any other.
pub(super) async fn on_evidence(
    http: &Http,
    vault: &Vault<'_>,
    dialects: &Dialects,
    request: &Request,
    judge: &Judge,
    evidence: &Value,
) -> Result<Progress, SourceError> {
    let prepared = Prepared::new(vault, request, judge).await.map_err(free)?;
    let known = vault.known();
    let evidence = clean(evidence, &known);
    Ok(Progress::Votes(Box::new(prepared.verdict(http, vault, dialects, request, judge, &evidence).await?)))
}

/// What is known before there is evidence.
struct Prepared<'a> {
    api: &'a JudgeApi,
    key: Option<String>,
    question: Question,
}

impl<'a> Prepared<'a> {
    async fn new(vault: &Vault<'_>, request: &Request, judge: &'a Judge) -> Result<Self, SourceError> {
        let api = match (&judge.anthropic, &judge.openai) {
            (Some(api), None) | (None, Some(api)) => api,
            _ => return Err(SourceError::new("judge: set exactly one of anthropic, openai")),
        };
        // Before the evidence, so that a key that stands in a log line is known by then.
        let key = api_key(api, vault).await?;
        for pattern in &judge.redact {
            let regex = patterns::compile(pattern).map_err(|e| SourceError::new(format!("judge: redact {}: {e}", pattern.name)))?;
            vault.add_pattern(regex, &pattern.name);
        }
        let question = Question::new(judge, request).map_err(|e| SourceError::new(format!("judge: {e}")))?;
        Ok(Self { api, key, question })
    }

    /// Bytes that the evidence may have.
    fn room(&self, judge: &Judge) -> usize {
        most_bytes(judge).saturating_sub(self.question.overhead())
    }

    async fn verdict(
        &self,
        http: &Http,
        vault: &Vault<'_>,
        dialects: &Dialects,
        request: &Request,
        judge: &Judge,
        evidence: &Value,
    ) -> Result<Judgement, SourceError> {
        let text = evidence.to_string();
        if text.len() > self.room(judge) {
            let limit = judge.max_input_tokens;
            let message = format!("judge evidence: {} bytes do not fit into maxInputTokens {limit}; raise it or show less", text.len());
            return Err(free(SourceError::new(message)));
        }
        let hash = short_hash(&text);
        if let Some(again) = Judgement::again(&request.earlier, &self.question.hash, &hash) {
            return Ok(again);
        }
        let asked = Asked { http, vault, dialects, api: self.api, key: self.key.as_deref(), vote_key: &request.key };
        Ok(ballot::ballot(&asked, judge, request, &self.question, evidence, hash).await)
    }
}

/// Bytes of a whole question, at most.
fn most_bytes(judge: &Judge) -> usize {
    usize::try_from(judge.max_input_tokens).unwrap_or(0).saturating_mul(BYTES_A_TOKEN)
}

/// Redacts every text of a value.
fn clean(value: &Value, known: &redact::Known) -> Value {
    match value {
        Value::String(text) => redact::redact(text, known).into(),
        Value::Array(items) => items.iter().map(|v| clean(v, known)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, v)| (name.clone(), clean(v, known))).collect(),
        other => other.clone(),
    }
}

/// The API key, where there is one.
async fn api_key(api: &JudgeApi, vault: &Vault<'_>) -> Result<Option<String>, SourceError> {
    match &api.api_key {
        None => Ok(None),
        Some(secret) => vault.read(secret).await.map(Some).map_err(|e| SourceError { message: format!("judge apiKey: {e}"), ..e }),
    }
}

#[cfg(test)]
#[path = "../tests/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "../tests/judge.rs"]
mod tests;
#[cfg(test)]
#[path = "../tests/traces.rs"]
mod trace_tests;
