//! Runs that go on: the start's answer, polls, cancellation.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::LOCATION;
use serde_json::Value;
use url::Url;

use super::handle::{self, Handle};
use super::{Harness, Trouble, describe, document, is_transient};
use crate::api::analysis::{CancelMethod, PollMethod, WebRun};
use crate::api::common::std_duration;
use crate::core::args::{Place, fill};
use crate::core::condition::Predicate;
use crate::core::resolve::{absolute, is_in_answer};
use crate::sources::http::{self, Answer};
use crate::sources::json_path::JsonPath;
use crate::sources::{ArgValue, Progress, SourceError};

/// How far a run is, by what an answer says.
enum State {
    Going,
    Done,
    Failed,
}

/// Starts a run. A key that the harness knows already is answered like a new one: 409 is an answer too.
pub(super) async fn start(harness: &Harness<'_>, run: &WebRun) -> Result<Progress, SourceError> {
    let conditions = Conditions::new(run)?;
    let (what, answer) = match harness.first().await {
        Ok(answer) => answer,
        Err(trouble) => return unanswered(trouble),
    };
    if is_transient(answer.status) {
        return unanswered(Trouble::Later(refusal(&what, &answer)));
    }
    let known = answer.status.as_u16() == 409;
    if !known {
        http::check_status(&what, answer.status, &answer.headers, "")?;
    }
    // A 409 that tells of no run is a refusal.
    let in_answer = |e: SourceError| if known { refusal(&what, &answer) } else { e };
    let content = if answer.body.is_empty() { Value::Null } else { document(&what, &answer).map_err(in_answer)? };
    // A start says what it likes about the state, often nothing.
    match conditions.state(&content) {
        Ok(State::Done) => return finished(harness, &what, &content),
        Ok(State::Failed) => return Err(conditions.ended(&what)),
        Ok(State::Going) | Err(_) => {}
    }
    let at = |e: String| SourceError::new(format!("{what}: {e}"));
    let kept = keep(run, &start_url(harness).map_err(at)?, &answer, &content).map_err(|e| in_answer(at(e)))?;
    // The first poll must be possible, or the run would go on with nobody to ask for it.
    target(harness, run.poll.url.as_deref(), kept.poll.as_deref(), &kept).map_err(|e| at(format!("poll.url {e}")))?;
    Ok(Progress::Running { handle: kept.text(), poll_after: wait(run, &answer, &content)? })
}

/// Asks how far a run is.
pub(in crate::sources) async fn poll(harness: &Harness<'_>, run: &WebRun, handle: &str) -> Result<Progress, SourceError> {
    let fail = |e: String| SourceError::new(format!("web: {e}"));
    let conditions = Conditions::new(run)?;
    let kept = Handle::parse(handle).ok_or_else(|| fail("the run's handle cannot be read".into()))?;
    let url = target(harness, run.poll.url.as_deref(), kept.poll.as_deref(), &kept).map_err(|e| fail(format!("poll.url {e}")))?;
    let method = match run.poll.method {
        PollMethod::Get => Method::GET,
        PollMethod::Post => Method::POST,
    };
    let what = format!("{} (poll)", describe(&method, url.as_str()));
    let map = harness.headers(&what).await?;
    let answer = match harness.send(&what, method, url.as_str(), map, None).await {
        Ok(answer) => answer,
        Err(trouble) => return unanswered(trouble),
    };
    if is_transient(answer.status) {
        return unanswered(Trouble::Later(refusal(&what, &answer)));
    }
    if matches!(answer.status.as_u16(), 404 | 410) {
        return Err(SourceError::new(format!("{what}: HTTP {}: the run is gone", answer.status.as_u16())));
    }
    http::check_status(&what, answer.status, &answer.headers, "")?;
    let going = |content: &Value| Ok(Progress::Running { handle: handle.to_owned(), poll_after: wait(run, &answer, content)? });
    if answer.status.as_u16() == 202 && answer.body.is_empty() {
        return going(&Value::Null);
    }
    let content = document(&what, &answer)?;
    match conditions.state(&content) {
        Ok(State::Done) => finished(harness, &what, &content),
        Ok(State::Failed) => Err(conditions.ended(&what)),
        Ok(State::Going) => going(&content),
        Err(reason) => Err(SourceError::new(format!("{what}: {reason}"))),
    }
}

/// Ends a run. Whatever comes of it changes nothing.
pub(in crate::sources) async fn cancel(harness: &Harness<'_>, run: &WebRun, handle: &str) -> Result<(), SourceError> {
    let (Some(cancel), Some(kept)) = (&run.cancel, Handle::parse(handle)) else { return Ok(()) };
    if is_in_answer(&cancel.url) && kept.cancel.is_none() {
        return Ok(());
    }
    let url = target(harness, Some(&cancel.url), kept.cancel.as_deref(), &kept).map_err(SourceError::new)?;
    let method = match cancel.method {
        CancelMethod::Post => Method::POST,
        CancelMethod::Delete => Method::DELETE,
        CancelMethod::Put => Method::PUT,
    };
    let what = describe(&method, url.as_str());
    let map = harness.headers(&what).await?;
    harness.send(&what, method, url.as_str(), map, None).await.map_err(Trouble::error)?;
    Ok(())
}

struct Conditions<'a> {
    done: Predicate,
    failed: Option<(&'a str, Predicate)>,
}

impl<'a> Conditions<'a> {
    fn new(run: &'a WebRun) -> Result<Self, SourceError> {
        let compiled = |name: &str, text: &str| Predicate::compile(text).map_err(|e| SourceError::new(format!("web: run.{name}: {e}")));
        let failed = run.failed.as_deref().map(|text| Ok::<_, SourceError>((text, compiled("failed", text)?))).transpose()?;
        Ok(Self { done: compiled("done", &run.done)?, failed })
    }

    fn state(&self, content: &Value) -> Result<State, String> {
        if let Some((_, failed)) = &self.failed
            && failed.holds(content).map_err(|e| format!("failed: {e}"))?
        {
            return Ok(State::Failed);
        }
        Ok(if self.done.holds(content).map_err(|e| format!("done: {e}"))? { State::Done } else { State::Going })
    }

    fn ended(&self, what: &str) -> SourceError {
        let condition = self.failed.as_ref().map_or("", |(text, _)| *text);
        SourceError::new(format!("{what}: the run has ended without a result: {condition}"))
    }
}

fn finished(harness: &Harness<'_>, what: &str, content: &Value) -> Result<Progress, SourceError> {
    harness.reader.read(content).map_err(|e| SourceError::new(format!("{what}: {e}")))
}

/// The error is for good, or the same request is to be sent again.
fn unanswered(trouble: Trouble) -> Result<Progress, SourceError> {
    match trouble {
        Trouble::Final(error) => Err(error),
        Trouble::Later(SourceError { message, retry_after, .. }) => Ok(Progress::Unanswered { message, retry_after }),
    }
}

fn refusal(what: &str, answer: &Answer) -> SourceError {
    match http::check_status(what, answer.status, &answer.headers, "") {
        Err(error) => error,
        Ok(()) => SourceError::new(format!("{what}: HTTP {}", answer.status.as_u16())),
    }
}

/// What has to be kept of the answer to the start.
fn keep(run: &WebRun, start: &Url, answer: &Answer, content: &Value) -> Result<Handle, String> {
    let mut kept = Handle::default();
    if let Some(path) = &run.poll.id {
        let path = JsonPath::parse(path).map_err(|e| format!("poll.id {e}"))?;
        let found = path.one(content).map_err(|e| format!("poll.id: {e}"))?;
        kept.id = Some(handle::id(found).map_err(|e| format!("poll.id {:?} {e}", path.text()))?);
    }
    kept.poll = match run.poll.url.as_deref() {
        None => {
            let location = answer.headers.get(LOCATION).and_then(|v| v.to_str().ok());
            let location = location.ok_or("the answer has no Location header; say in poll.url where to poll")?;
            Some(handle::same_server(start, location).map_err(|e| format!("the Location header {e}"))?.into())
        }
        Some(url) if is_in_answer(url) => {
            let link = link("poll.url", url, start, content)?;
            Some(link.ok_or_else(|| format!("poll.url: jsonPath {url:?} finds nothing in the answer"))?)
        }
        Some(_) => None,
    };
    if let Some(cancel) = run.cancel.as_ref().filter(|c| is_in_answer(&c.url)) {
        // Runs that cannot be cancelled have no such link.
        kept.cancel = link("cancel.url", &cancel.url, start, content)?;
    }
    Ok(kept)
}

fn link(name: &str, path: &str, start: &Url, content: &Value) -> Result<Option<String>, String> {
    let path = JsonPath::parse(path).map_err(|e| format!("{name} {e}"))?;
    match path.all(content)?.as_slice() {
        [] | [Value::Null] => Ok(None),
        [Value::String(text)] => Ok(Some(handle::same_server(start, text).map_err(|e| format!("{name} {:?} {e}", path.text()))?.into())),
        _ => Err(format!("{name} {:?} is not one text", path.text())),
    }
}

fn start_url(harness: &Harness<'_>) -> Result<Url, String> {
    let url = harness.start_url().map_err(|e| e.message)?;
    Url::parse(&url).map_err(|e| format!("the start's URL is not valid: {e}"))
}

/// The URL of a poll or a cancellation: the one that was kept, or the manifest's with its arguments.
fn target(harness: &Harness<'_>, written: Option<&str>, kept: Option<&str>, handle: &Handle) -> Result<Url, String> {
    let start = start_url(harness)?;
    let Some(template) = written.filter(|url| !is_in_answer(url)) else {
        return handle::same_server(&start, kept.ok_or("is not known any more")?);
    };
    let mut known = harness.args.clone();
    if let Some(id) = &handle.id {
        known.insert("run.id".into(), ArgValue::plain(id.clone()));
    }
    let filled = fill(&absolute(&harness.web.url, template), Place::Url, &known).map_err(|e| e.to_string())?;
    let url = Url::parse(&filled.text).map_err(|e| format!("is not a URL: {e}"))?;
    if url.origin() != start.origin() {
        return Err("has another scheme, host or port than the start".into());
    }
    Ok(url)
}

/// Time until the next poll.
fn wait(run: &WebRun, answer: &Answer, content: &Value) -> Result<Duration, SourceError> {
    if let Some(asked) = http::wait_asked(&answer.headers) {
        return Ok(asked);
    }
    let asked = match &run.poll.retry_after {
        None => None,
        Some(path) => {
            let path = JsonPath::parse(path).map_err(|e| SourceError::new(format!("web: poll.retryAfter {e}")))?;
            path.one(content).ok().and_then(Value::as_f64).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
    };
    Ok(asked.unwrap_or(std_duration(run.poll.interval)))
}
