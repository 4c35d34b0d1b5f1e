//! A STUB of two language model APIs, for tests and demos: it speaks their wire formats and holds no model. What it
//! answers is set beforehand, so it says nothing about any release; only `weigh` reads the evidence, and compares its
//! numbers by a fixed rule.
//!
//! Like the real services it refuses requests that they refuse: no key, no version header, sampling parameters, a
//! prefilled answer, no structured output, and it refuses tools, which a judge has no use for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What the stub does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers PASS.
    Pass,
    /// Answers FAIL.
    Fail,
    /// Answers UNSURE.
    Unsure,
    /// Answers PASS to every other question and FAIL to the rest.
    Torn,
    /// Answers PASS about the arm that it was not asked about.
    OtherArm,
    /// Reads the evidence: FAIL when a metric of the arm in question is more than 15 % above the other arm's, UNSURE when
    /// there is none, or fewer than 200 calls of an arm are behind one, else PASS.
    Weigh,
    /// Answers prose that contains the word PASS.
    Nonsense,
    /// Refuses, as models do.
    Refuse,
    /// Stops in the middle of the answer.
    CutOff,
    /// Answers PASS after [`Stub::set_delay`].
    Slow,
    /// Never answers.
    Hang,
    /// Fails with this HTTP status.
    Status(u16),
}

impl std::str::FromStr for Behaviour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "pass" => Self::Pass,
            "fail" => Self::Fail,
            "unsure" => Self::Unsure,
            "torn" => Self::Torn,
            "other-arm" => Self::OtherArm,
            "weigh" => Self::Weigh,
            "nonsense" => Self::Nonsense,
            "refuse" => Self::Refuse,
            "cut-off" => Self::CutOff,
            "slow" => Self::Slow,
            "hang" => Self::Hang,
            other => match other.parse::<u16>() {
                Ok(code @ 400..=599) => Self::Status(code),
                _ => {
                    return Err(format!(
                        "{other:?} is none of pass, fail, unsure, torn, other-arm, weigh, nonsense, refuse, cut-off, slow, hang, or an HTTP status from 400 to 599"
                    ));
                }
            },
        })
    }
}

struct Inner {
    behaviour: Behaviour,
    by_model: BTreeMap<String, Behaviour>,
    delay: Duration,
    key: Option<String>,
    requests: BTreeMap<String, u64>,
    keys_seen: BTreeMap<String, u64>,
    last: Value,
    last_by_model: BTreeMap<String, Value>,
}

/// The stub's state, shared with whoever steers it.
#[derive(Clone)]
pub struct Stub(Arc<Mutex<Inner>>);

impl Stub {
    /// A stub that does `behaviour`; with `key`, other API keys get a 401.
    pub fn new(behaviour: Behaviour, key: Option<String>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            behaviour,
            by_model: BTreeMap::new(),
            delay: Duration::from_secs(5),
            key,
            requests: BTreeMap::new(),
            keys_seen: BTreeMap::new(),
            last: Value::Null,
            last_by_model: BTreeMap::new(),
        })))
    }

    /// Sets what it does, for one model or for all that have no setting of their own.
    pub fn set(&self, model: Option<&str>, behaviour: Behaviour) {
        let mut inner = self.0.lock();
        match model {
            Some(model) => {
                inner.by_model.insert(model.to_owned(), behaviour);
            }
            None => inner.behaviour = behaviour,
        }
    }

    /// Sets how long `slow` takes.
    pub fn set_delay(&self, delay: Duration) {
        self.0.lock().delay = delay;
    }

    /// Requests so far and the last one's body.
    pub fn seen(&self) -> Value {
        let inner = self.0.lock();
        json!({
            "stub": true,
            "requests": inner.requests.values().sum::<u64>(),
            "requestsByModel": inner.requests,
            "idempotencyKeys": inner.keys_seen,
            "behaviour": format!("{:?}", inner.behaviour),
            "last": inner.last,
            "lastByModel": inner.last_by_model,
        })
    }

    /// Notes a request; gives what to do with it, how slowly, and its number.
    fn note(&self, headers: &HeaderMap, body: &Value) -> (Behaviour, Duration, u64) {
        let mut inner = self.0.lock();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let number = inner.requests.entry(model.clone()).or_default();
        *number += 1;
        let number = *number;
        if let Some(key) = header(headers, "idempotency-key") {
            *inner.keys_seen.entry(key.to_owned()).or_default() += 1;
        }
        inner.last = body.clone();
        inner.last_by_model.insert(model.clone(), body.clone());
        (inner.by_model.get(&model).copied().unwrap_or(inner.behaviour), inner.delay, number)
    }

    fn accepts(&self, key: Option<&str>) -> bool {
        self.0.lock().key.as_deref().is_none_or(|wanted| key == Some(wanted))
    }
}

/// Both APIs, `/control`, and a page that says what this is.
pub fn router(stub: Stub) -> Router {
    Router::new()
        .route("/", get(async || "This is a stub of language model APIs for tests. There is no model behind it.\n"))
        .route("/v1/messages", post(messages))
        .route("/v1/chat/completions", post(completions))
        .route("/control", get(async |State(stub): State<Stub>| Json(stub.seen())).post(control))
        .with_state(stub)
}

/// `{"behaviour": "fail", "model": "optional", "delayMs": 500}`
async fn control(State(stub): State<Stub>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(ms) = body["delayMs"].as_u64() {
        stub.set_delay(Duration::from_millis(ms));
    }
    match body["behaviour"].as_str().map(str::parse::<Behaviour>) {
        Some(Ok(behaviour)) => stub.set(body["model"].as_str(), behaviour),
        Some(Err(e)) => return (StatusCode::BAD_REQUEST, e).into_response(),
        None if body["delayMs"].is_u64() => {}
        None => return (StatusCode::BAD_REQUEST, "send {\"behaviour\": \"pass\"}").into_response(),
    }
    Json(stub.seen()).into_response()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The arm that the question is about.
fn arm(question: &Value) -> char {
    let text = question.to_string();
    let at = text.find("callers of arm ").map(|at| at + "callers of arm ".len());
    at.and_then(|at| text[at..].chars().next()).unwrap_or('?')
}

/// The evidence of a question: what stands between its two marks.
fn evidence(question: &Value) -> Option<Value> {
    let text = question["messages"].as_array()?.last()?["content"].as_str()?;
    let mut parts = text.split("\nEVIDENCE-").skip(1);
    let (_, evidence) = parts.next()?.split_once('\n')?;
    serde_json::from_str(evidence).ok()
}

/// Verdict of [`Behaviour::Weigh`], with its reason.
fn weigh(question: &Value, arm: char) -> (&'static str, String) {
    const MOST: f64 = 1.15;
    const ENOUGH: f64 = 200.0;
    let evidence = evidence(question).unwrap_or_default();
    let (arm, other) = (arm.to_string(), if arm == 'A' { "B" } else { "A" });
    let metrics = evidence["metrics"].as_array().map_or(&[][..], Vec::as_slice);
    for metric in metrics {
        let number = |arm: &str, field: &str| metric[arm][field].as_f64();
        let name = metric["name"].as_str().unwrap_or_default();
        let calls = number(&arm, "calls").zip(number(other, "calls")).map_or(0.0, |(ours, theirs)| ours.min(theirs));
        match number(&arm, "value").zip(number(other, "value")) {
            Some((ours, theirs)) if calls >= ENOUGH && theirs > 0.0 => {
                if ours > MOST * theirs {
                    return ("FAIL", format!("{name}: {ours} in arm {arm} and {theirs} in arm {other}."));
                }
            }
            _ => return ("UNSURE", format!("{name}: {calls} calls are too few.")),
        }
    }
    if metrics.is_empty() { ("UNSURE", "There are no numbers.".into()) } else { ("PASS", "All metrics are alike.".into()) }
}

/// The words that behaviours answer with.
fn words(behaviour: Behaviour, question: &Value, number: u64) -> String {
    let mut arm = arm(question);
    let mut reason = None;
    let verdict = match behaviour {
        Behaviour::Weigh => {
            let (verdict, why) = weigh(question, arm);
            reason = Some(why);
            verdict
        }
        Behaviour::Torn if number.is_multiple_of(2) => "FAIL",
        Behaviour::OtherArm => {
            arm = if arm == 'A' { 'B' } else { 'A' };
            "PASS"
        }
        Behaviour::Fail => "FAIL",
        Behaviour::Unsure => "UNSURE",
        Behaviour::Nonsense => return "Overall this looks like a PASS to me, although I would keep an eye on it.".into(),
        Behaviour::CutOff => return r#"{"verdict": "PASS", "reas"#.into(),
        _ => "PASS",
    };
    let schema = question.pointer("/output_config/format/schema/properties");
    let schema = schema.or(question.pointer("/response_format/json_schema/schema/properties"));
    if schema.is_some_and(|s| s["verdict"].is_null()) {
        return json!({"arm": arm.to_string(), "reason": format!("Stub answer: arm {arm} was set to {verdict} beforehand.")}).to_string();
    }
    let reason = reason.unwrap_or_else(|| format!("Stub answer: {verdict} was set beforehand."));
    let mut answer = json!({"arm": arm.to_string(), "verdict": verdict, "reason": reason});
    let rubric = question.pointer("/output_config/format/schema/properties/rubric/required");
    let rubric = rubric.or(question.pointer("/response_format/json_schema/schema/properties/rubric/required"));
    for name in rubric.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        answer["rubric"][name] = verdict.into();
    }
    answer.to_string()
}

/// Waits as long as the behaviour says.
async fn wait(behaviour: Behaviour, delay: Duration) {
    match behaviour {
        Behaviour::Slow => tokio::time::sleep(delay).await,
        Behaviour::Hang => std::future::pending().await,
        _ => {}
    }
}

async fn messages(State(stub): State<Stub>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (behaviour, delay, number) = stub.note(&headers, &body);
    let sampling = ["temperature", "top_p", "top_k"].iter().any(|p| !body[p].is_null());
    let roles = body["messages"].as_array().map(|m| m.iter().map(|m| m["role"].as_str()).collect::<Vec<_>>());
    let schema = &body["output_config"]["format"];
    let wrong = match () {
        () if !stub.accepts(header(&headers, "x-api-key")) => Some((401, "authentication_error")),
        () if !body["tools"].is_null() => Some((400, "invalid_request_error")),
        () if header(&headers, "anthropic-version") != Some("2023-06-01") => Some((400, "invalid_request_error")),
        () if sampling || roles.as_deref().is_none_or(|r| r.last() != Some(&Some("user"))) => Some((400, "invalid_request_error")),
        () if body["max_tokens"].as_i64().is_none_or(|n| n < 1) => Some((400, "invalid_request_error")),
        () if schema["type"] != "json_schema" || schema["schema"]["additionalProperties"] != false => Some((400, "invalid_request_error")),
        () => None,
    };
    if let Some((status, kind)) = wrong {
        return anthropic_error(status, kind);
    }
    wait(behaviour, delay).await;
    let stop = match behaviour {
        Behaviour::Status(code) => return anthropic_error(code, kind_of(code)),
        Behaviour::Refuse => "refusal",
        Behaviour::CutOff => "max_tokens",
        _ => "end_turn",
    };
    let thinking = json!({"type": "thinking", "thinking": "A stub does not think.", "signature": "c3R1Yg=="});
    let content = if behaviour == Behaviour::Refuse {
        json!([])
    } else {
        json!([thinking, {"type": "text", "text": words(behaviour, &body, number)}])
    };
    let answer = json!({
        "id": "msg_stub", "type": "message", "role": "assistant", "model": body["model"], "content": content,
        "stop_reason": stop, "stop_sequence": null,
        "usage": {"input_tokens": 1200, "output_tokens": 40, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 300},
    });
    ([("request-id", "req_stub_1")], Json(answer)).into_response()
}

fn anthropic_error(code: u16, kind: &str) -> Response {
    let body =
        json!({"type": "error", "error": {"type": kind, "message": "stub: this text must not be shown"}, "request_id": "req_stub_1"});
    failure(code, "request-id", body)
}

fn failure(code: u16, id: &'static str, body: Value) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(id, "req_stub_1")], Json(body)).into_response();
    if matches!(code, 429 | 503 | 529) {
        response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("7"));
    }
    response
}

/// The vendors' names for HTTP statuses.
fn kind_of(code: u16) -> &'static str {
    match code {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

async fn completions(State(stub): State<Stub>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (behaviour, delay, number) = stub.note(&headers, &body);
    let key = header(&headers, "authorization").and_then(|v| v.strip_prefix("Bearer "));
    let format = &body["response_format"];
    let wrong = match () {
        () if !stub.accepts(key) => Some((401, "invalid_request_error", "invalid_api_key")),
        () if ["temperature", "top_p", "max_tokens"].iter().any(|p| !body[p].is_null()) => {
            Some((400, "invalid_request_error", "unsupported_parameter"))
        }
        () if !body["tools"].is_null() => Some((400, "invalid_request_error", "unsupported_parameter")),
        () if body["messages"].as_array().is_none_or(Vec::is_empty) => Some((400, "invalid_request_error", "missing_required_parameter")),
        () if format["type"] != "json_schema" || format["json_schema"]["strict"] != true => {
            Some((400, "invalid_request_error", "invalid_value"))
        }
        () => None,
    };
    if let Some((status, kind, code)) = wrong {
        return openai_error(status, kind, code);
    }
    wait(behaviour, delay).await;
    let finish = match behaviour {
        Behaviour::Status(code) => return openai_error(code, kind_of(code), kind_of(code)),
        Behaviour::CutOff => "length",
        _ => "stop",
    };
    let message = match behaviour {
        Behaviour::Refuse => json!({"role": "assistant", "content": null, "refusal": "I cannot help with that."}),
        _ => json!({"role": "assistant", "content": words(behaviour, &body, number), "refusal": null}),
    };
    let answer = json!({
        "id": "chatcmpl-stub", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1500, "completion_tokens": 40, "total_tokens": 1540},
    });
    ([("x-request-id", "req_stub_1")], Json(answer)).into_response()
}

fn openai_error(status: u16, kind: &str, code: &str) -> Response {
    let body = json!({"error": {"message": "stub: this text must not be shown", "type": kind, "param": null, "code": code}});
    failure(status, "x-request-id", body)
}
