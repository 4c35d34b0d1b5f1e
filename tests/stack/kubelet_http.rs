//! The node's HTTPS endpoint: what the API server asks when somebody reads a pod's logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use super::container::log_file;
use super::kubelet::{NODE_IP, Shared};
use super::process::free_port;
use super::{Error, Result};

/// Serves the logs of all pods on a port of the node's address.
pub async fn serve(shared: Arc<Shared>) -> Result<u16> {
    let words = |error: &dyn std::fmt::Display| Error::other(format!("the node's HTTPS endpoint: {error}"));
    let pair = rcgen::generate_simple_self_signed([NODE_IP.to_owned()]).map_err(|error| words(&error))?;
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).map_err(|error| words(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key))
        .map_err(|error| words(&error))?;
    let port = free_port();
    let listener = TcpListener::bind((NODE_IP, port)).await.map_err(|error| {
        Error::other(format!("cannot bind the node's address {NODE_IP}: {error}; run this inside tests/stack/in-netns.sh"))
    })?;
    let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    let router = Router::new().route("/containerLogs/{namespace}/{pod}/{container}", get(logs)).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(port)
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            let shake = tokio::time::timeout(Duration::from_secs(5), self.acceptor.accept(stream));
            if let Ok(Ok(stream)) = shake.await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What a reader of logs may ask for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<usize>,
    limit_bytes: Option<usize>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
}

async fn logs(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
    let pod = match api.get(&name).await {
        Ok(pod) => pod,
        Err(error) => return (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    };
    let dir = shared.pod_dir(&namespace, &name, &pod.uid().unwrap_or_default());
    let life = (0..).take_while(|life| log_file(&dir, &container, *life).exists()).last();
    let life = if wanted.previous { life.and_then(|life| life.checked_sub(1)) } else { life };
    let Some(file) = life.map(|life| log_file(&dir, &container, life)) else {
        let text = format!("container {container} of pod {namespace}/{name} has not started");
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let mut out = select(&String::from_utf8_lossy(&text), &wanted);
    if !wanted.follow {
        out.truncate(wanted.limit_bytes.unwrap_or(usize::MAX));
        return Body::from(out).into_response();
    }
    let rest = Follow { api, name, uid: pod.uid(), file, read: text.len() as u64, timestamps: wanted.timestamps };
    let first = futures::stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(out)) });
    Body::from_stream(futures::StreamExt::chain(first, futures::stream::try_unfold(rest, Follow::next))).into_response()
}

/// The lines of a log file that are wanted.
fn select(text: &str, wanted: &Wanted) -> Vec<u8> {
    let ago = wanted.since_seconds.map(|seconds| Timestamp::now().as_second() - seconds);
    let since = wanted.since_time.as_ref().and_then(|time| time.parse::<Timestamp>().ok()).map(Timestamp::as_second);
    let since = ago.or(since);
    let recent = |line: &&str| {
        let time = line.split_once(' ').and_then(|(time, _)| time.parse::<Timestamp>().ok());
        since.is_none_or(|since| time.is_some_and(|time| time.as_second() >= since))
    };
    let lines: Vec<&str> = text.split_inclusive('\n').filter(recent).collect();
    let skip = wanted.tail_lines.map_or(0, |count| lines.len().saturating_sub(count));
    lines[skip..].iter().flat_map(|line| shown(line, wanted.timestamps).bytes()).collect()
}

fn shown(line: &str, timestamps: bool) -> &str {
    match line.split_once(' ') {
        Some((_, text)) if !timestamps => text,
        _ => line,
    }
}

/// A log that is read on until its pod is gone.
struct Follow {
    api: Api<Pod>,
    name: String,
    uid: Option<String>,
    file: PathBuf,
    read: u64,
    timestamps: bool,
}

impl Follow {
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        let mut round = 0;
        loop {
            ticks.tick().await;
            let mut file = tokio::fs::File::open(&self.file).await?;
            file.seek(std::io::SeekFrom::Start(self.read)).await?;
            let mut text = Vec::new();
            file.read_to_end(&mut text).await?;
            text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            if !text.is_empty() {
                self.read += text.len() as u64;
                let text = String::from_utf8_lossy(&text).into_owned();
                let out: String = text.split_inclusive('\n').map(|line| shown(line, self.timestamps)).collect();
                return Ok(Some((out.into(), self)));
            }
            round += 1;
            if round % 5 == 0 && !self.api.get(&self.name).await.is_ok_and(|pod| pod.uid() == self.uid) {
                return Ok(None);
            }
        }
    }
}
