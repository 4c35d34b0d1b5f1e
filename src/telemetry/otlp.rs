//! Spans to an OpenTelemetry collector.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;
use url::Url;

use super::tracer::{Batch, TracerError};
use crate::core::spans::{Attribute, Moment, Span, Value};

/// Time in which spans are gathered for one request.
const GATHER: Duration = Duration::from_secs(1);
/// Most batches in one request.
const MOST: usize = 256;

/// Sends spans.
#[derive(Debug)]
pub struct Exporter {
    exporter: SpanExporter,
}

impl Exporter {
    /// See [`super::Tracer::to_collector`].
    ///
    /// # Errors
    /// When the address or a setting is wrong.
    pub fn new(endpoint: &str, instance: &str) -> Result<Self, TracerError> {
        let wrong = TracerError::Endpoint;
        let url = Url::parse(endpoint).map_err(|e| wrong(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("OTLP over {} is not supported, only over http and https", url.scheme())));
        }
        let url = format!("{}/v1/traces", url.as_str().trim_end_matches('/'));
        let mut exporter = SpanExporter::builder().with_http().with_endpoint(url).build().map_err(|e| wrong(e.to_string()))?;
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", "voicerollout"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        exporter.set_resource(&resource.build());
        Ok(Self { exporter })
    }

    /// Sends until all senders are gone. What a collector does not take after the exporter's own attempts is lost.
    pub async fn run(self, mut batches: mpsc::Receiver<Batch>) {
        let mut waiting = Vec::new();
        while batches.recv_many(&mut waiting, MOST).await > 0 {
            // What one verdict ends comes within a moment; an end is not waited for.
            if !batches.is_closed() {
                tokio::time::sleep(GATHER).await;
            }
            while waiting.len() < MOST
                && let Ok(batch) = batches.try_recv()
            {
                waiting.push(batch);
            }
            let spans: Vec<SpanData> = waiting.drain(..).flat_map(|batch| spans_of(&batch)).collect();
            let count = spans.len();
            if let Err(error) = self.exporter.export(spans).await {
                tracing::warn!(%error, count, "spans lost: the collector does not take them");
            }
        }
    }
}

fn spans_of(batch: &Batch) -> Vec<SpanData> {
    batch.spans.iter().map(|span| data(&batch.namespace, span)).collect()
}

fn data(namespace: &str, span: &Span) -> SpanData {
    let trace = TraceId::from_bytes(span.place.trace);
    let context = SpanContext::new(trace, SpanId::from_bytes(span.place.span), TraceFlags::SAMPLED, false, TraceState::default());
    let mut events = SpanEvents::default();
    events.events = span.moments.iter().map(event).collect();
    let namespace = KeyValue::new("k8s.namespace.name", namespace.to_owned());
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.clone().into(),
        start_time: time(span.start),
        end_time: time(span.end),
        attributes: std::iter::once(namespace).chain(span.attributes.iter().map(attribute)).collect(),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: span.failed.clone().map_or(Status::Ok, Status::error),
        instrumentation_scope: InstrumentationScope::builder("voicerollout").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn event(moment: &Moment) -> Event {
    Event::new(moment.name.clone(), time(moment.at), moment.attributes.iter().map(attribute).collect(), 0)
}

fn attribute((name, value): &Attribute) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(*name, text.clone()),
        Value::Number(number) => KeyValue::new(*name, *number),
    }
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::from(at)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Code;
    use parking_lot::Mutex;
    use prost::Message;
    use tokio::sync::watch;

    use super::*;
    use crate::telemetry::Tracer;

    type Heard = Arc<Mutex<Vec<(String, ExportTraceServiceRequest)>>>;

    /// A collector that answers its first requests with these codes.
    async fn collector(mut refusals: Vec<StatusCode>) -> (String, Heard, watch::Receiver<usize>) {
        refusals.reverse();
        let (heard, refusals) = (Heard::default(), Arc::new(Mutex::new(refusals)));
        let (asked, requests) = watch::channel(0);
        let take = {
            let (heard, asked) = (heard.clone(), Arc::new(asked));
            move |headers: HeaderMap, body: Bytes| async move {
                asked.send_modify(|n| *n += 1);
                if let Some(code) = refusals.lock().pop() {
                    return code;
                }
                let kind = headers["content-type"].to_str().unwrap().to_owned();
                heard.lock().push((kind, ExportTraceServiceRequest::decode(body).unwrap()));
                StatusCode::OK
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
        (endpoint, heard, requests)
    }

    fn span(name: &str, failed: Option<&str>) -> Span {
        let place = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let attributes = vec![("voicerollout.weight", Value::Number(25)), ("voicerollout.step", Value::Text("3/10".into()))];
        let start: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let moments = vec![Moment { name: "Aborted".into(), at: start, attributes: attributes.clone() }];
        let (name, failed) = (name.into(), failed.map(Into::into));
        Span { place, parent: Some([1; 8]), name, start, end: "2026-01-01T00:01:00Z".parse().unwrap(), attributes, moments, failed }
    }

    #[tokio::test]
    async fn spans_arrive_as_they_were_told_with_their_resource() {
        let (endpoint, heard, _) = collector(vec![]).await;
        let (tracer, sending) = Tracer::to_collector(&endpoint, "pod-1").unwrap();
        tracer.tell("voice", vec![span("analysis", Some("gate p95 failed")), span("pause", None)]);
        tracer.tell("voice", vec![]);
        drop(tracer);
        sending.await;
        let heard = heard.lock();
        let [(kind, request)] = &heard[..] else { panic!("{heard:#?}") };
        assert_eq!(kind, "application/x-protobuf");
        let text = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str| {
            attributes.iter().find(|a| a.key == key).map(|a| format!("{:?}", a.value)).unwrap_or_default()
        };
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        assert!(text(&resource.attributes, "service.name").contains("\"voicerollout\""), "{resource:?}");
        assert!(text(&resource.attributes, "service.instance.id").contains("\"pod-1\""), "{resource:?}");
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        let [failed, fine] = &spans[..] else { panic!("{spans:#?}") };
        assert_eq!(failed.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        assert_eq!((failed.span_id.clone(), failed.parent_span_id.clone()), (0x00f0_67aa_0ba9_02b7_u64.to_be_bytes().to_vec(), vec![1; 8]));
        assert_eq!((failed.start_time_unix_nano, failed.end_time_unix_nano), (1_767_225_600_500_000_000, 1_767_225_660_000_000_000));
        assert!(text(&failed.attributes, "k8s.namespace.name").contains("\"voice\""), "{failed:?}");
        assert!(text(&failed.attributes, "voicerollout.weight").contains("IntValue(25)"), "{failed:?}");
        assert_eq!(failed.events[0].name, "Aborted");
        let status = |s: &opentelemetry_proto::tonic::trace::v1::Span| s.status.clone().map(|s| (s.code(), s.message)).unwrap();
        assert_eq!(status(failed), (Code::Error, "gate p95 failed".into()));
        assert_eq!(status(fine).0, Code::Ok);
    }

    #[tokio::test]
    async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_costs_only_its_spans() {
        let (endpoint, heard, requests) = collector(vec![StatusCode::SERVICE_UNAVAILABLE]).await;
        let (tracer, sending) = Tracer::to_collector(&endpoint, "pod-1").unwrap();
        tracer.tell("voice", vec![span("busy", None)]);
        drop(tracer);
        sending.await;
        assert_eq!((heard.lock().len(), *requests.borrow()), (1, 2));

        let (endpoint, heard, mut requests) = collector(vec![StatusCode::BAD_REQUEST]).await;
        let (tracer, sending) = Tracer::to_collector(&endpoint, "pod-1").unwrap();
        let sending = tokio::spawn(sending);
        tracer.tell("voice", vec![span("refused", None)]);
        requests.wait_for(|n| *n == 1).await.unwrap();
        tracer.tell("voice", vec![span("taken", None)]);
        drop(tracer);
        sending.await.unwrap();
        let names: Vec<String> = heard.lock().iter().map(|(_, r)| r.resource_spans[0].scope_spans[0].spans[0].name.clone()).collect();
        assert_eq!(names, ["taken"]);
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_with_what_to_write() {
        for (endpoint, reason) in
            [("collector:4317", "over collector is not supported"), ("", "relative URL"), ("grpc://a:4317", "over grpc")]
        {
            let error = Tracer::to_collector(endpoint, "pod-1").err().expect(endpoint).to_string();
            assert!(error.contains(reason) && error.contains("write the collector's address"), "{error}");
        }
        let error = Tracer::to_collector("ftp://me:hunter2@collector", "pod-1").err().expect("no OTLP").to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn nobody_waits_for_a_collector_that_is_gone() {
        let (tracer, batches) = Tracer::new();
        drop(batches);
        tracer.tell("voice", vec![span("lost", None)]);
        Tracer::default().tell("voice", vec![span("not wanted", None)]);
    }
}
