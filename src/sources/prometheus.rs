//! The prometheus provider: one instant query. An empty answer, NaN, too many series and a failing server are four
//! different things.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use prometheus_http_query::response::{Data, InstantVector, PromqlResult};
use prometheus_http_query::{Client, Error as ClientError};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::http::{self, Answer, Http};
use super::secrets::Vault;
use super::web::origin;
use super::{ArgValue, Progress, Request, SourceError, headers, redact};
use crate::api::analysis::{PrometheusProvider, Threshold};
use crate::api::common::std_duration;
use crate::api::compare::PrometheusServer;
use crate::api::provider::Access;
use crate::core::args::{Place, fill};

/// A query longer than this goes as a POST; proxies limit the length of URLs, and some forbid POST.
const MAX_GET_QUERY: usize = 2000;
/// Most series of a list.
const MAX_SERIES: usize = 1000;

/// What a query gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reading {
    /// Numbers; for a scalar query or a single series exactly one. Infinite ones are values.
    Numbers(Vec<f64>),
    /// Nothing to decide on, and why.
    NoData(String),
}

/// Takes the measurement.
pub(super) async fn measure(
    http: &Http,
    vault: &Vault<'_>,
    request: &Request,
    threshold: &Threshold,
    prometheus: &PrometheusProvider,
) -> Result<Progress, SourceError> {
    let list = crate::core::condition::wants_list(threshold.success_condition.as_deref(), threshold.failure_condition.as_deref());
    match query(http, vault, prometheus, &prometheus.query, &request.args, list).await? {
        Reading::NoData(why) => Ok(Progress::NoData(why)),
        Reading::Numbers(numbers) if list => Ok(Progress::Value(numbers.into_iter().map(number).collect())),
        Reading::Numbers(numbers) => Ok(Progress::Value(numbers.into_iter().next().map_or(Value::Null, number))),
    }
}

/// A server and how to reach it.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    address: &'a str,
    access: &'a Access,
    timeout: Duration,
}

impl<'a> Server<'a> {
    /// The server of a gate that counts calls.
    pub(super) fn of(server: &'a PrometheusServer) -> Self {
        let PrometheusServer { address, access, timeout, .. } = server;
        Self { address, access, timeout: std_duration(*timeout) }
    }
}

/// Asks `promql` of the provider's server. `list` says that several series are welcome.
pub(super) async fn query(
    http: &Http,
    vault: &Vault<'_>,
    provider: &PrometheusProvider,
    promql: &str,
    args: &BTreeMap<String, ArgValue>,
    list: bool,
) -> Result<Reading, SourceError> {
    let PrometheusProvider { address, access, timeout, .. } = provider;
    let server = Server { address, access, timeout: std_duration(*timeout) };
    let (what, data) = ask(http, vault, &server, promql, args, None).await?;
    reading(&what, data, list, vault)
}

/// Asks `promql`, of now or of a moment in seconds of Unix time. Gives the server as messages name it, and its answer.
pub(super) async fn ask(
    http: &Http,
    vault: &Vault<'_>,
    server: &Server<'_>,
    promql: &str,
    args: &BTreeMap<String, ArgValue>,
    at: Option<i64>,
) -> Result<(String, Data), SourceError> {
    let address = fill(server.address, Place::Url, args).map_err(|e| SourceError::new(format!("prometheus: address: {e}")))?;
    let what = format!("prometheus {}", origin(&address.text));
    let promql = fill(promql, Place::PromQl, args).map_err(|e| SourceError::new(format!("{what}: query: {e}")))?.text;
    let map = headers::build(&what, &server.access.headers, server.access.auth.as_ref(), args, vault).await?;
    let (mut url, client) = http.client(&what, &address.text, server.access.tls.as_ref(), vault).await?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(SourceError::new(format!("{what}: address: a base URL has no ? and no #")));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    let client = Client::from(client, url.as_str()).map_err(|_| SourceError::new(format!("{what}: address: not a valid URL")))?;
    let answer = http::within(server.timeout, &what, async {
        let query = map.iter().fold(client.query(&promql), |q, (name, value)| q.header(name.clone(), value.clone()));
        let query = at.into_iter().fold(query, |q, at| q.at(at));
        let sent = if promql.len() > MAX_GET_QUERY { query.post_raw().await } else { query.get_raw().await };
        let response = sent.map_err(|e| match &e {
            ClientError::Client(inner) => match inner.inner() {
                Some(error) => http::transport_error(&what, error),
                None => SourceError::new(format!("{what}: the request cannot be sent")),
            },
            _ => SourceError::new(format!("{what}: the request cannot be sent")),
        })?;
        http::read(&what, response).await
    })
    .await?;
    let data = parse(&what, &answer, vault)?;
    Ok((what, data))
}

/// What a Prometheus server answers.
#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Option<Value>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
}

fn parse(what: &str, answer: &Answer, vault: &Vault<'_>) -> Result<Data, SourceError> {
    let envelope = serde_json::from_slice::<Envelope>(&answer.body).ok().filter(|e| e.status == "success" || e.status == "error");
    let Some(envelope) = envelope else {
        http::check_status(what, answer.status, &answer.headers, hint(answer.status))?;
        return Err(SourceError::new(format!("{what}: the answer is not one of a Prometheus server; check the address")));
    };
    if envelope.status == "error" {
        let text = redact::line(&redact::redact(&envelope.error.unwrap_or_default(), &vault.known()), 300);
        let kind = redact::line(&envelope.error_type.unwrap_or_default(), 40);
        let detail = format!("the query fails with {kind}: {text}");
        http::check_status(what, answer.status, &answer.headers, &detail)?;
        return Err(SourceError::new(format!("{what}: {detail}")));
    }
    http::check_status(what, answer.status, &answer.headers, hint(answer.status))?;
    match envelope.data.map(serde_json::from_value::<PromqlResult>) {
        Some(Ok(result)) => Ok(result.into_inner().0),
        _ => Err(SourceError::new(format!("{what}: the answer has no numbers; the query has to give a vector or a scalar"))),
    }
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "credentials are missing or wrong (`auth`)",
        403 => "the credentials may not ask this (`auth`)",
        404 => "no Prometheus API there; check the address",
        _ => "",
    }
}

fn reading(what: &str, data: Data, list: bool, vault: &Vault<'_>) -> Result<Reading, SourceError> {
    let mut series = match data {
        Data::Scalar(sample) if sample.value().is_nan() => return Ok(Reading::NoData("the query gives NaN".into())),
        Data::Scalar(sample) => return Ok(Reading::Numbers(vec![sample.value()])),
        Data::Matrix(_) => {
            let message = format!("{what}: the query gives ranges, not values; put a function like avg_over_time(...) around it");
            return Err(SourceError::new(message));
        }
        Data::Vector(series) => series,
    };
    if series.is_empty() {
        return Ok(Reading::NoData("the query gives an empty vector: no series matches".into()));
    }
    // The server's order is not defined.
    series.sort_by_cached_key(|s| sorted(s.metric()));
    if series.len() > MAX_SERIES {
        return Err(SourceError::new(format!("{what}: the query gives {} series; the most is {MAX_SERIES}", series.len())));
    }
    if series.len() > 1 && !list {
        return Err(SourceError::new(format!(
            "{what}: the query gives {} series where one is needed, for example {}; aggregate them with sum(...) or max(...), or index result[...] in the condition",
            series.len(),
            labels(&series[0], vault)
        )));
    }
    match series.iter().find(|s| s.sample().value().is_nan()) {
        Some(_) if series.len() == 1 => Ok(Reading::NoData("the query gives NaN: often 0 divided by 0, no calls in the window".into())),
        Some(s) => Ok(Reading::NoData(format!("the query gives NaN for {} of its {} series", labels(s, vault), series.len()))),
        None => Ok(Reading::Numbers(series.iter().map(|s| s.sample().value()).collect())),
    }
}

fn sorted(labels: &HashMap<String, String>) -> BTreeMap<String, String> {
    labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A series' labels, for a message.
fn labels(series: &InstantVector, vault: &Vault<'_>) -> String {
    let pairs: Vec<String> = sorted(series.metric()).iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    redact::line(&vault.known().scrub(&format!("{{{}}}", pairs.join(", "))), 200)
}

/// A number as a value. JSON has no infinity; it is written as Prometheus does, `"+Inf"` and `"-Inf"`.
pub(super) fn number(x: f64) -> Value {
    match serde_json::Number::from_f64(x) {
        Some(n) => Value::Number(n),
        None if x > 0.0 => Value::String("+Inf".into()),
        None => Value::String("-Inf".into()),
    }
}

#[cfg(test)]
#[path = "tests/prometheus.rs"]
mod tests;
