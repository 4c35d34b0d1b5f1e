//! Log lines of an arm's pods.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{AsyncReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL};
use crate::sources::SourceError;

/// Reads the logs of a revision's pods.
pub trait LogReader: Send + Sync {
    /// The newest `tail` lines of each pod, by pod name; pods whose container has not started yet are left out.
    /// Without `container` the pod's first container is read.
    fn pod_logs<'a>(
        &'a self,
        namespace: &'a str,
        rollout: &'a str,
        revision: &'a str,
        container: Option<&'a str>,
        tail: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>>;
}

/// Limit of all requests for one arm; kube's client has no read timeout.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Newest bytes that are kept of one pod: the most that `maxBytes` can ask for an arm.
const MAX_BYTES: usize = 256 * 1024;
/// Pods that are read at the same time.
const AT_ONCE: usize = 8;

/// Reads from the Kubernetes API.
#[derive(Clone)]
pub struct KubeLogs {
    client: Client,
}

impl KubeLogs {
    /// Reads with `client`, whose user needs `list pods` and `get pods/log`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn read(
        &self,
        namespace: &str,
        rollout: &str,
        revision: &str,
        container: Option<&str>,
        tail: i64,
    ) -> Result<Vec<(String, String)>, SourceError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let labels = format!("{ROLLOUT_LABEL}={rollout},{REVISION_LABEL}={revision}");
        let list = pods
            .list(&ListParams::default().labels(&labels))
            .await
            .map_err(|e| SourceError::new(format!("list pods in {namespace} with {labels}: {}", describe(&e))))?;
        let mut reads = Vec::with_capacity(list.items.len());
        for pod in &list.items {
            reads.push(pod_log(&pods, pod, container, tail));
        }
        let found: Vec<Option<(String, String)>> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut texts: Vec<(String, String)> = found.into_iter().flatten().collect();
        texts.sort();
        Ok(texts)
    }
}

impl LogReader for KubeLogs {
    fn pod_logs<'a>(
        &'a self,
        namespace: &'a str,
        rollout: &'a str,
        revision: &'a str,
        container: Option<&'a str>,
        tail: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        Box::pin(async move {
            match tokio::time::timeout(TIMEOUT, self.read(namespace, rollout, revision, container, tail)).await {
                Ok(result) => result,
                Err(_) => Err(SourceError::new(format!("the API server did not give the logs within {} s", TIMEOUT.as_secs()))),
            }
        })
    }
}

/// One pod's newest lines; `None` when it has none to give.
async fn pod_log(pods: &Api<Pod>, pod: &Pod, container: Option<&str>, tail: i64) -> Result<Option<(String, String)>, SourceError> {
    let name = pod.name_any();
    let Some(container) = container.or_else(|| Some(pod.spec.as_ref()?.containers.first()?.name.as_str())) else { return Ok(None) };
    if !has_started(pod, container) {
        return Ok(None);
    }
    let params = LogParams { container: Some(container.to_owned()), tail_lines: Some(tail), ..LogParams::default() };
    let fail = |why: String| SourceError::new(format!("logs of pod {name}, container {container}: {why}"));
    let mut log = match pods.log_stream(&name, &params).await {
        // The pod went away since it was listed.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(e) => return Err(fail(describe(&e))),
        Ok(log) => Box::pin(log),
    };
    let mut newest = Vec::new();
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let n = log.read(&mut buffer).await.map_err(|e| fail(e.to_string()))?;
        if n == 0 {
            break;
        }
        newest.extend_from_slice(&buffer[..n]);
        if newest.len() > 2 * MAX_BYTES {
            newest.drain(..newest.len() - MAX_BYTES);
        }
    }
    Ok(Some((name, tail_of(&newest))))
}

/// The last [`MAX_BYTES`], beginning with a whole line.
fn tail_of(bytes: &[u8]) -> String {
    let cut = bytes.len().saturating_sub(MAX_BYTES);
    let tail = &bytes[cut..];
    let from = if cut == 0 { 0 } else { tail.iter().position(|b| *b == b'\n').map_or(0, |i| i + 1) };
    String::from_utf8_lossy(&tail[from..]).into_owned()
}

/// Whether a container runs or has run. A container that the pod does not have counts as started, so that reading
/// its log says so.
fn has_started(pod: &Pod, container: &str) -> bool {
    let spec = pod.spec.as_ref();
    let declared = spec.is_some_and(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).any(|c| c.name == container));
    let status = pod.status.as_ref();
    let statuses = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let statuses = statuses.chain(status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten());
    !declared
        || statuses.filter(|c| c.name == container).any(|c| {
            c.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
                || c.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
        })
}

/// An API server's refusal in its own words, anything else in kube's.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "../tests/logs.rs"]
mod tests;
