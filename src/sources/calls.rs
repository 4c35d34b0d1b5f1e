//! Live calls of pods: each pod is asked over HTTP, or one Prometheus query for all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use prometheus_http_query::response::Data;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::http::{self, Http};
use super::json_path::JsonPath;
use super::prometheus::{Server, ask};
use super::secrets::{SecretReader, Vault};
use super::{ArgValue, SourceError};
use crate::api::common::std_duration;
use crate::api::sessions::{ActiveCalls, HttpCalls, PrometheusCalls};
use crate::core::resolve::SESSION_ARGS;

/// Pods of one rollout that are asked at the same time.
const AT_ONCE: usize = 64;
/// Pods that are asked at the same time altogether.
const ALL_AT_ONCE: usize = 256;

/// A pod to ask.
#[derive(Clone, Debug)]
pub struct PodAddress {
    /// Its name.
    pub name: String,
    /// Its address; `None` while it has none.
    pub ip: Option<IpAddr>,
}

/// A round of readings.
#[derive(Clone, Debug)]
pub struct CallsQuestion {
    /// Namespace of the pods.
    pub namespace: String,
    /// Name of the rollout.
    pub rollout: String,
    /// How to count.
    pub active: ActiveCalls,
    /// The pods.
    pub pods: Vec<PodAddress>,
}

/// Live calls of each pod that was asked for, by name; or why they are not known.
pub type Readings = BTreeMap<String, Result<u64, String>>;

/// Counts live calls.
pub trait CallCounter: Send + Sync {
    /// Asks all of the pods once.
    fn count<'a>(&'a self, question: &'a CallsQuestion) -> BoxFuture<'a, Readings>;
}

/// Leave to ask pods, of all rollouts together.
pub(super) fn slots() -> Semaphore {
    Semaphore::new(ALL_AT_ONCE)
}

/// The counter over HTTP and Prometheus.
pub(super) struct Calls<'a> {
    /// The client.
    pub(super) http: &'a Http,
    /// Reads Secrets.
    pub(super) secrets: &'a dyn SecretReader,
    /// See [`slots`].
    pub(super) slots: &'a Semaphore,
}

impl Calls<'_> {
    /// Asks all of the pods once.
    pub(super) async fn count(&self, question: &CallsQuestion) -> Readings {
        let by_http = async {
            match &question.active.http {
                Some(http) => Some(self.ask_each(question, http).await),
                None => None,
            }
        };
        let by_query = async {
            match &question.active.prometheus {
                Some(prometheus) => Some(self.ask_server(question, prometheus).await),
                None => None,
            }
        };
        let (each, server) = futures::join!(by_http, by_query);
        let one = |name: &String| match (each.as_ref().and_then(|e| e.get(name)), server.as_ref().and_then(|s| s.get(name))) {
            // A gauge that lags must not hide a call that the other sees.
            (Some(Ok(a)), Some(Ok(b))) => Ok(*a.max(b)),
            (Some(Ok(n)), _) | (_, Some(Ok(n))) => Ok(*n),
            (Some(Err(why)), _) | (_, Some(Err(why))) => Err(why.clone()),
            (None, None) => Err("spec.sessions.activeCalls: set http, prometheus or both".into()),
        };
        question.pods.iter().map(|pod| (pod.name.clone(), one(&pod.name))).collect()
    }

    async fn ask_each(&self, question: &CallsQuestion, settings: &HttpCalls) -> Readings {
        let path = JsonPath::parse(&settings.json_path).map_err(|e| format!("spec.sessions.activeCalls.http.jsonPath: {e}"));
        let path = &path;
        // Owned, because a future that borrows the item is not general enough for the stream.
        let asked = question.pods.iter().cloned().map(|pod| async move {
            // The semaphore is never closed.
            let _slot = self.slots.acquire().await;
            let reading = match (path, pod.ip) {
                (Err(e), _) => Err(e.clone()),
                (_, None) => Err("the pod has no address yet".into()),
                (Ok(path), Some(ip)) => self.ask_pod(ip, settings, path).await.map_err(|e| e.message),
            };
            (pod.name, reading)
        });
        stream::iter(asked).buffer_unordered(AT_ONCE).collect().await
    }

    async fn ask_pod(&self, ip: IpAddr, settings: &HttpCalls, path: &JsonPath) -> Result<u64, SourceError> {
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let what = format!("GET port {} {}", settings.port, settings.path);
        let url = format!("http://{host}:{}{}", settings.port, settings.path);
        let (url, client) = self.http.plain(&what, &url)?;
        let answer = http::within(std_duration(settings.timeout), &what, async {
            let sent = client.get(url).send().await;
            let response = sent.map_err(|e| {
                let error = http::transport_error(&what, &e);
                let hint = if e.is_connect() { "; does a container listen on that port, and does the mesh let plain HTTP in?" } else { "" };
                SourceError::new(format!("{}{hint}", error.message))
            })?;
            http::read(&what, response).await
        })
        .await?;
        http::check_status(&what, answer.status, &answer.headers, "")?;
        let document: Value =
            serde_json::from_slice(&answer.body).map_err(|_| SourceError::new(format!("{what}: the answer is not JSON")))?;
        let value = path.one(&document).map_err(|e| SourceError::new(format!("{what}: {e}")))?;
        whole(value).ok_or_else(|| {
            SourceError::new(format!("{what}: jsonPath {:?} gives {}, not a number of calls", settings.json_path, kind(value)))
        })
    }

    async fn ask_server(&self, question: &CallsQuestion, settings: &PrometheusCalls) -> Readings {
        let everyone = |reading: &dyn Fn(&str) -> Result<u64, String>| {
            question.pods.iter().map(|pod| (pod.name.clone(), reading(&pod.name))).collect()
        };
        match self.query(question, settings).await {
            Err(error) => everyone(&|_| Err(error.message.clone())),
            Ok(found) => everyone(&|pod| match found.get(pod) {
                Some(n) => Ok(*n),
                None => {
                    Err(format!("the query of spec.sessions.activeCalls.prometheus gives no series with {}={pod:?}", settings.pod_label))
                }
            }),
        }
    }

    async fn query(&self, question: &CallsQuestion, settings: &PrometheusCalls) -> Result<BTreeMap<String, u64>, SourceError> {
        let vault = Vault::empty(self.secrets, &question.namespace);
        let args = SESSION_ARGS.into_iter().zip([&question.namespace, &question.rollout]);
        let args = args.map(|(name, value)| (name.to_string(), ArgValue::plain(value.clone()))).collect();
        let asked = ask(self.http, &vault, &Server::of(&settings.server), &settings.query, &args, None).await;
        let (what, data) = asked.map_err(|e| SourceError::new(vault.known().scrub(&e.message)))?;
        let Data::Vector(series) = data else {
            return Err(SourceError::new(format!("{what}: the query of spec.sessions.activeCalls has to give a vector, one series a pod")));
        };
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for one in &series {
            let Some(pod) = one.metric().get(&settings.pod_label) else {
                return Err(SourceError::new(format!("{what}: a series has no label {}: aggregate by it", settings.pod_label)));
            };
            let value = one.sample().value();
            let Some(calls) = number(value) else {
                return Err(SourceError::new(format!("{what}: the query gives {value} for pod {pod}, not a number of calls")));
            };
            *found.entry(pod.clone()).or_insert(0) += calls;
        }
        Ok(found)
    }
}

fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().and_then(number))
}

/// A number of calls; a part of a call is one.
fn number(value: f64) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range
    (0.0..1e9).contains(&value).then(|| value.ceil() as u64)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number that is negative or too large",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "tests/calls.rs"]
mod tests;
