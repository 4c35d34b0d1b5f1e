//! Log lines of an arm's pods.

use std::pin::Pin;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL};
use crate::sources::SourceError;

/// Whose logs to read.
#[derive(Clone, Copy, Debug)]
pub struct LogQuery<'a> {
    /// Namespace of the pods.
    pub namespace: &'a str,
    /// Name of the rollout.
    pub rollout: &'a str,
    /// Hash of the revision.
    pub revision: &'a str,
    /// Container; left out: the pod's first one.
    pub container: Option<&'a str>,
    /// Newest lines of each pod.
    pub tail: i64,
}

/// Takes lines as they come.
pub type Sink<'a> = &'a mut (dyn FnMut(&str) + Send);

/// Reads the logs of a revision's pods.
pub trait LogReader: Send + Sync {
    /// The newest lines of each pod, by pod name; pods whose container has not started yet are left out.
    fn pod_logs<'a>(&'a self, query: LogQuery<'a>) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>>;

    /// Gives the newest lines of each pod to `sink`, pods in the order of their names, until `bytes` of the arm are read.
    /// Says whether that was all.
    fn stream<'a>(&'a self, query: LogQuery<'a>, bytes: usize, sink: Sink<'a>) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(async move {
            let mut lines = Lines::new(bytes);
            for (_, text) in self.pod_logs(query).await? {
                lines.take(text.as_bytes(), sink);
                lines.end(sink);
            }
            Ok(lines.complete())
        })
    }
}

/// Cuts bytes into lines, in the memory of one line.
struct Lines {
    /// Bytes that may still be read.
    left: usize,
    line: Vec<u8>,
    complete: bool,
}

/// Most bytes of a line that are kept.
const MAX_LINE: usize = 64 * 1024;

impl Lines {
    fn new(left: usize) -> Self {
        Self { left, line: Vec::new(), complete: true }
    }

    fn take(&mut self, bytes: &[u8], sink: Sink<'_>) {
        let now = &bytes[..bytes.len().min(self.left)];
        self.complete &= now.len() == bytes.len();
        self.left -= now.len();
        let mut rest = now;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            // Whole lines inside a block need no copy.
            if self.line.is_empty() {
                sink(&String::from_utf8_lossy(&rest[..end.min(MAX_LINE)]));
            } else {
                self.keep(&rest[..end]);
                self.end(sink);
            }
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Gives the last line, which may have no line break.
    fn end(&mut self, sink: Sink<'_>) {
        if !self.line.is_empty() {
            sink(&String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }

    fn complete(&self) -> bool {
        self.complete
    }
}

/// Limit of all requests for one arm; kube's client has no read timeout.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The same for many lines, one pod after the other.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60);
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

    /// The revision's pods, by name.
    async fn pods(&self, query: LogQuery<'_>) -> Result<(Api<Pod>, Vec<Pod>), SourceError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), query.namespace);
        let labels = format!("{ROLLOUT_LABEL}={},{REVISION_LABEL}={}", query.rollout, query.revision);
        let list = api
            .list(&ListParams::default().labels(&labels))
            .await
            .map_err(|e| SourceError::new(format!("list pods in {} with {labels}: {}", query.namespace, describe(&e))))?;
        let mut pods = list.items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok((api, pods))
    }

    async fn read(&self, query: LogQuery<'_>) -> Result<Vec<(String, String)>, SourceError> {
        let (api, pods) = self.pods(query).await?;
        let mut reads = Vec::with_capacity(pods.len());
        for pod in &pods {
            reads.push(pod_log(&api, pod, query));
        }
        let found: Vec<Option<(String, String)>> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut texts: Vec<(String, String)> = found.into_iter().flatten().collect();
        texts.sort();
        Ok(texts)
    }

    async fn read_lines(&self, query: LogQuery<'_>, bytes: usize, sink: Sink<'_>) -> Result<bool, SourceError> {
        let (api, pods) = self.pods(query).await?;
        let mut lines = Lines::new(bytes);
        let mut buffer = vec![0_u8; 64 * 1024];
        for pod in &pods {
            let Some(mut log) = open(&api, pod, query).await? else { continue };
            while lines.left > 0 {
                let n = log.stream.read(&mut buffer).await.map_err(|e| log.failed(&e.to_string()))?;
                if n == 0 {
                    break;
                }
                lines.take(&buffer[..n], sink);
                // A quick server must not keep this thread from everything else.
                tokio::task::yield_now().await;
            }
            lines.complete &= lines.left > 0;
            lines.end(sink);
        }
        Ok(lines.complete())
    }
}

impl LogReader for KubeLogs {
    fn pod_logs<'a>(&'a self, query: LogQuery<'a>) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        Box::pin(within(TIMEOUT, self.read(query)))
    }

    fn stream<'a>(&'a self, query: LogQuery<'a>, bytes: usize, sink: Sink<'a>) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(within(STREAM_TIMEOUT, self.read_lines(query, bytes, sink)))
    }
}

async fn within<T>(limit: Duration, read: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    match tokio::time::timeout(limit, read).await {
        Ok(result) => result,
        Err(_) => Err(SourceError::new(format!("the API server did not give the logs within {} s", limit.as_secs()))),
    }
}

/// A pod's log that is being read.
struct OpenLog {
    pod: String,
    container: String,
    stream: Pin<Box<dyn AsyncRead + Send>>,
}

impl OpenLog {
    fn failed(&self, why: &str) -> SourceError {
        SourceError::new(format!("logs of pod {}, container {}: {why}", self.pod, self.container))
    }
}

/// Begins to read a pod's newest lines; `None` when it has none to give.
async fn open(pods: &Api<Pod>, pod: &Pod, query: LogQuery<'_>) -> Result<Option<OpenLog>, SourceError> {
    let name = pod.name_any();
    let first = || Some(pod.spec.as_ref()?.containers.first()?.name.as_str());
    let Some(container) = query.container.or_else(first) else { return Ok(None) };
    if !has_started(pod, container) {
        return Ok(None);
    }
    let params = LogParams { container: Some(container.to_owned()), tail_lines: Some(query.tail), ..LogParams::default() };
    match pods.log_stream(&name, &params).await {
        // The pod went away since it was listed.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(e) => Err(SourceError::new(format!("logs of pod {name}, container {container}: {}", describe(&e)))),
        Ok(log) => Ok(Some(OpenLog { pod: name, container: container.to_owned(), stream: Box::pin(log) })),
    }
}

/// One pod's newest lines; `None` when it has none to give.
async fn pod_log(pods: &Api<Pod>, pod: &Pod, query: LogQuery<'_>) -> Result<Option<(String, String)>, SourceError> {
    let Some(mut log) = open(pods, pod, query).await? else { return Ok(None) };
    let mut newest = Vec::new();
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let n = log.stream.read(&mut buffer).await.map_err(|e| log.failed(&e.to_string()))?;
        if n == 0 {
            break;
        }
        newest.extend_from_slice(&buffer[..n]);
        if newest.len() > 2 * MAX_BYTES {
            newest.drain(..newest.len() - MAX_BYTES);
        }
    }
    Ok(Some((log.pod, tail_of(&newest))))
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
