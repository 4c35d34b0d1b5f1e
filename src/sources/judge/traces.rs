//! Traces of both arms from a query API that answers in OTLP JSON, summed up.
//!
//! `tempo`: `GET /api/search?q=TRACEQL&start=S&end=S&limit=N` (seconds of Unix time) finds traces, `GET /api/traces/ID`
//! gives each of them. `jaeger`: `GET /api/v3/traces?query.serviceName=..&query.attributes={..}&query.startTimeMin=..` gives
//! whole traces at once; parameters go under their older names too. A trace counts for an arm only if it holds the
//! revision: servers exist that ignore the filter.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::otlp::{Reader, Traces};
use super::shares::first;
use crate::api::common::std_duration;
use crate::api::traces::{EvidenceTraces, TraceBackend};
use crate::core::args::{Place, fill};
use crate::core::judge::traces::{Named, Summary, summary};
use crate::sources::http::{self, Answer, Http};
use crate::sources::redact::{self, Known};
use crate::sources::secrets::Vault;
use crate::sources::web::origin;
use crate::sources::{Request, SourceError, headers};

/// Longest name of a span that is shown, in characters.
const MAX_NAME: usize = 100;

/// Traces of an arm in sum, and how many more were found than were looked at.
pub(super) struct Arm {
    found: Summary,
    left_out: usize,
}

/// What one arm's traces are asked with.
struct Asked<'a> {
    what: String,
    base: Url,
    client: Client,
    headers: HeaderMap,
    wanted: &'a EvidenceTraces,
    revision: &'a str,
    from: Timestamp,
    to: Timestamp,
    /// Bytes that may still be read.
    left: usize,
}

/// Reads and sums up one arm's traces. None at all is an error.
pub(super) async fn arm(
    http: &Http,
    vault: &Vault<'_>,
    request: &Request,
    wanted: &EvidenceTraces,
    revision: &str,
) -> Result<Arm, SourceError> {
    let mut asked = Asked::new(http, vault, request, wanted, revision).await?;
    let what = asked.what.clone();
    let mut reader = Reader::new(&wanted.revision_attribute, revision);
    http::within(std_duration(wanted.timeout), &what, async {
        match wanted.backend {
            TraceBackend::Tempo => asked.tempo(&mut reader).await,
            TraceBackend::Jaeger => asked.jaeger(&mut reader).await,
        }
    })
    .await?;
    let most = usize::try_from(wanted.max_traces).unwrap_or(1);
    let (mut spans, left_out) = reader.finish(most);
    if spans.is_empty() {
        return Err(SourceError::new(format!(
            "{what}: no trace of service {:?} in which {} is {revision}, in the last {:?}; check service and revisionAttribute",
            wanted.service,
            wanted.revision_attribute,
            std_duration(wanted.window)
        )));
    }
    let known = vault.known();
    for span in &mut spans {
        span.name = redact::for_mining(&span.name, &known).into_owned();
    }
    Ok(Arm { found: summary(spans, std_duration(wanted.slower_than)), left_out })
}

impl<'a> Asked<'a> {
    async fn new(
        http: &Http,
        vault: &Vault<'_>,
        request: &Request,
        wanted: &'a EvidenceTraces,
        revision: &'a str,
    ) -> Result<Self, SourceError> {
        let name = if wanted.backend == TraceBackend::Tempo { "tempo" } else { "jaeger" };
        let address = fill(&wanted.address, Place::Url, &request.args).map_err(|e| SourceError::new(format!("{name}: address: {e}")))?;
        let what = format!("{name} {}", origin(&address.text));
        let mut headers = headers::build(&what, &wanted.access.headers, wanted.access.auth.as_ref(), &request.args, vault).await?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (base, client) = http.client(&what, &address.text, wanted.access.tls.as_ref(), vault).await?;
        if base.query().is_some() || base.fragment().is_some() {
            return Err(SourceError::new(format!("{what}: address: a base URL has no ? and no #")));
        }
        let window = SignedDuration::try_from(std_duration(wanted.window)).unwrap_or(SignedDuration::MAX);
        let from = request.started_at.checked_sub(window).unwrap_or(Timestamp::UNIX_EPOCH);
        let left = usize::try_from(wanted.max_bytes).unwrap_or(0);
        Ok(Self { what, base, client, headers, wanted, revision, from, to: request.started_at, left })
    }

    async fn tempo(&mut self, reader: &mut Reader<'_>) -> Result<(), SourceError> {
        let quoted = |text: &str| Value::from(text).to_string();
        let query = format!(
            "{{ resource.service.name = {} && .{} = {} }}",
            quoted(&self.wanted.service),
            self.wanted.revision_attribute,
            quoted(self.revision)
        );
        let params = [
            ("q", query),
            ("start", self.from.as_second().to_string()),
            // The end's second is not part of it.
            ("end", self.to.as_second().saturating_add(1).to_string()),
            ("limit", self.wanted.max_traces.to_string()),
        ];
        let answer = self.get("/api/search", &params).await?;
        self.refuse_errors(&answer)?;
        let found: Option<Found> = serde_json::from_slice(&answer.body).ok();
        let Some(found) = found.filter(|f| f.traces.is_some() || f.metrics.is_some()) else { return Err(self.foreign()) };
        let mut ids: Vec<String> = found.traces.unwrap_or_default().into_iter().map(|t| t.id).collect();
        ids.sort();
        ids.dedup();
        ids.truncate(usize::try_from(self.wanted.max_traces).unwrap_or(1));
        for id in ids {
            // It becomes part of a URL.
            if !(1..=32).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(self.foreign());
            }
            let answer = self.get(&format!("/api/traces/{id}"), &[]).await?;
            // Its block was dropped since.
            if answer.status == StatusCode::NOT_FOUND {
                continue;
            }
            self.refuse_errors(&answer)?;
            let traces: Traces = serde_json::from_slice(&answer.body).map_err(|_| self.foreign())?;
            if !reader.take(traces) {
                return Err(self.foreign());
            }
        }
        Ok(())
    }

    async fn jaeger(&mut self, reader: &mut Reader<'_>) -> Result<(), SourceError> {
        let attributes = json!({ self.wanted.revision_attribute.as_str(): self.revision }).to_string();
        let (from, to, most) = (self.from.to_string(), self.to.to_string(), self.wanted.max_traces.to_string());
        let params = [
            ("query.serviceName", self.wanted.service.clone()),
            ("query.service_name", self.wanted.service.clone()),
            ("query.attributes", attributes),
            ("query.startTimeMin", from.clone()),
            ("query.start_time_min", from),
            ("query.startTimeMax", to.clone()),
            ("query.start_time_max", to),
            ("query.searchDepth", most.clone()),
            ("query.search_depth", most.clone()),
            ("query.num_traces", most),
        ];
        let answer = self.get("/api/v3/traces", &params).await?;
        if answer.status == StatusCode::NOT_FOUND && says_none(&answer.body) {
            return Ok(());
        }
        self.refuse_errors(&answer)?;
        // An answer may come as several objects, one after the other.
        let mut any = false;
        for part in serde_json::Deserializer::from_slice(&answer.body).into_iter::<Part>() {
            let Some(traces) = part.ok().and_then(|p| p.result) else { return Err(self.foreign()) };
            any = true;
            // Nothing found may be a result without a list.
            if traces.lists() && !reader.take(traces) {
                return Err(self.foreign());
            }
        }
        if any { Ok(()) } else { Err(self.foreign()) }
    }

    /// One request; its answer comes off the arm's bytes.
    async fn get(&mut self, path: &str, params: &[(&str, String)]) -> Result<Answer, SourceError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !params.is_empty() {
            url.query_pairs_mut().extend_pairs(params);
        }
        let sent = self.client.get(url).headers(self.headers.clone()).send().await;
        let response = sent.map_err(|e| http::transport_error(&self.what, &e))?;
        let answer = http::read_most(response, self.left).await.map_err(|e| match e {
            http::NoAnswer::TooLong => SourceError::new(format!(
                "{}: the traces of one arm have more than maxBytes {}; lower maxTraces or raise maxBytes",
                self.what, self.wanted.max_bytes
            )),
            other => other.error(&self.what),
        })?;
        self.left -= answer.body.len();
        Ok(answer)
    }

    fn refuse_errors(&self, answer: &Answer) -> Result<(), SourceError> {
        http::check_status(&self.what, answer.status, &answer.headers, hint(answer.status))
    }

    fn foreign(&self) -> SourceError {
        SourceError::new(format!("{}: the answer is not one of this API; check address and backend", self.what))
    }
}

#[derive(Deserialize)]
struct Found {
    traces: Option<Vec<FoundTrace>>,
    metrics: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct FoundTrace {
    #[serde(rename = "traceID")]
    id: String,
}

#[derive(Deserialize)]
struct Part {
    result: Option<Traces>,
}

/// Jaeger's way to say that there is no such trace, which a wrong address does not have.
fn says_none(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["error"]["httpCode"] == 404
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "the query is not understood; check backend and revisionAttribute",
        401 => "credentials are missing or wrong (`auth`)",
        403 => "the credentials may not ask this (`auth`)",
        404 => "no such API there; check address and backend",
        _ => "",
    }
}

/// Both arms as they are shown, in about `room` bytes, each the same. The lists are cut, the counts are not.
pub(super) fn shown(wanted: &EvidenceTraces, [stable, canary]: &[Arm; 2], known: &Known, room: usize) -> Value {
    let each = (room / 4).saturating_sub(150);
    let arm = |arm: &Arm| {
        let Arm { found, left_out } = arm;
        let list = |names: &[Named], timed: bool| {
            let names = names.iter().take(usize::try_from(wanted.show).unwrap_or(0));
            first(names.map(|n| named(n, timed, known)).collect(), each).0
        };
        json!({
            "traces": found.traces, "notLookedAt": left_out, "slow": found.slow, "failing": found.failing,
            "medianMs": rounded(found.median_ms), "longestMs": rounded(found.longest_ms),
            "spansWithErrors": list(&found.errors, false), "timeOutsideOfChildSpans": list(&found.time, true),
        })
    };
    let ms = |d| rounded(std_duration(d).as_secs_f64() * 1000.0);
    json!({"slowIsOverMs": ms(wanted.slower_than), "lastMs": ms(wanted.window), "stable": arm(stable), "canary": arm(canary)})
}

fn named(named: &Named, timed: bool, known: &Known) -> Value {
    let mut out = json!({
        "span": redact::line(&redact::redact(&named.name, known), MAX_NAME),
        "spans": named.spans,
        "traces": named.traces,
    });
    if timed {
        out["ms"] = rounded(named.self_ms).into();
    }
    out
}

/// Three digits are enough for a model.
fn rounded(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}
