//! An OpenTelemetry collector that keeps what it gets.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;

use crate::stack::Result;

/// Spans by OTLP/HTTP.
#[derive(Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts one; gives its address, too.
    pub async fn start() -> Result<(Self, String)> {
        let collector = Self::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((collector, endpoint))
    }

    /// What it has of one namespace.
    pub fn of(&self, namespace: &str) -> Vec<Span> {
        self.spans.lock().iter().filter(|s| text(s, "k8s.namespace.name") == namespace).cloned().collect()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let scopes = request.resource_spans.into_iter().flat_map(|r| r.scope_spans);
    collector.spans.lock().extend(scopes.flat_map(|s| s.spans));
    StatusCode::OK
}

/// An attribute that is a text; empty when it is not there.
pub fn text<'a>(span: &'a Span, name: &str) -> &'a str {
    let value = span.attributes.iter().find(|a| a.key == name).and_then(|a| a.value.as_ref()?.value.as_ref());
    if let Some(Value::StringValue(text)) = value { text } else { "" }
}
