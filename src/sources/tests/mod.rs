//! Helpers of the providers' tests: local servers, a map of Secrets, requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use futures::future::BoxFuture;

use super::judge::logs::{LogQuery, LogReader};
use super::secrets::SecretReader;
use super::{ArgValue, Progress, Request, Source, SourceError, Sources, SourcesConfig};
use crate::api::analysis::Gate;
use crate::api::common::SecretKeyRef;

mod tls;

/// Starts a server on a free port of 127.0.0.1.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    addr
}

/// An address where nothing listens.
pub async fn closed() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Secrets by `namespace/name/key`.
pub struct SecretMap(pub BTreeMap<String, String>);

impl SecretReader for SecretMap {
    fn read<'a>(&'a self, namespace: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        let path = format!("{namespace}/{}/{}", secret.name, secret.key);
        let found = self.0.get(&path).cloned().ok_or_else(|| SourceError::new(format!("Secret {path} is missing")));
        Box::pin(std::future::ready(found))
    }
}

/// Log texts by revision.
#[derive(Default)]
pub struct LogMap(pub BTreeMap<String, Result<Vec<(String, String)>, String>>);

impl LogReader for LogMap {
    fn pod_logs<'a>(&'a self, query: LogQuery<'a>) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        let found = self.0.get(query.revision).cloned().unwrap_or_else(|| Ok(vec![]));
        Box::pin(std::future::ready(found.map_err(SourceError::new)))
    }
}

/// The secret values of [`sources`]; none of them may be in any text.
pub const SECRETS: [&str; 6] = ["tok-3n-s3cr3t", "us3r-s3cr3t", "p4ss \"w0rd\"/é", "arg-s3cr3t&x", "0perator-s3cr3t", "h34der-s3cr3t"];

/// Providers that may reach 127.0.0.1.
pub fn sources(logs: LogMap) -> Sources {
    sources_allowing(&["127.0.0.0/8"], logs)
}

/// Providers with this allow-list.
pub fn sources_allowing(allow: &[&str], logs: LogMap) -> Sources {
    sources_with(allow, logs, "no certificate")
}

/// Providers with this allow-list and CA certificate.
fn sources_with(allow: &[&str], logs: LogMap, ca: &str) -> Sources {
    let [token, user, password, _, operator, header] = SECRETS;
    let pairs = [
        ("voice/creds/token", token),
        ("voice/creds/user", user),
        ("voice/creds/password", password),
        ("voice/creds/header", header),
        ("voice/creds/newline", "tok-3n-s3cr3t\n"),
        ("voice/creds/broken", "tok-3n-s3cr3t\r\nX-Evil: 1"),
        ("voice/creds/empty", ""),
        ("voice/creds/ca", ca),
        ("operators/creds/token", operator),
    ];
    let secrets = pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let egress = super::egress::Egress { allow: allow.iter().map(|a| a.parse().unwrap()).collect(), deny_extra: vec![] };
    let config = SourcesConfig { egress, operator_namespace: "operators".into(), user_agent: "voicerollout-test".into() };
    Sources::new(config, Arc::new(SecretMap(secrets)), Arc::new(logs))
}

/// A request for a gate that is given as JSON.
pub fn request(gate: serde_json::Value) -> Request {
    let gate: Gate = serde_json::from_value(gate).unwrap();
    let arg = |text: &str, secret| ArgValue { text: text.into(), secret };
    Request {
        key: "key-1".into(),
        namespace: "voice".into(),
        rollout: "agent".into(),
        revision: "canary1".into(),
        stable_revision: "stable1".into(),
        started_at: "2026-01-01T10:00:00Z".parse().unwrap(),
        gate,
        args: BTreeMap::from([("canary-hash".into(), arg("canary1", false)), ("secret-arg".into(), arg(SECRETS[3], true))]),
        from_cluster_template: false,
        others: vec![],
        earlier: vec![],
        explains: None,
    }
}

/// Starts the measurement and checks that no secret value is in what comes of it.
pub async fn start(sources: &Sources, request: &Request) -> Result<Progress, SourceError> {
    let outcome = sources.start(request).await;
    let text = format!("{outcome:?}");
    for secret in SECRETS {
        assert!(!text.contains(secret) && !text.contains(&format!("{secret:?}")), "a secret is in {text}");
    }
    outcome
}

/// The message of a failed measurement.
pub async fn error(sources: &Sources, request: &Request) -> SourceError {
    start(sources, request).await.expect_err("the measurement must fail")
}
