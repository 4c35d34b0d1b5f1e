//! Where spans go. Nobody waits for them: when a collector does not keep up, they are dropped, and that is logged.

use tokio::sync::mpsc;

use crate::core::spans::Span;

/// Batches that wait for a collector.
const WAITING: usize = 1024;

/// Spans of objects in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The namespace.
    pub namespace: String,
    /// The spans.
    pub spans: Vec<Span>,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// The program was built without it.
    #[error("this program was built without traces: build it with the feature otel, or leave --otlp-endpoint out")]
    NotBuilt,
    /// The address is none, or its settings are wrong.
    // The address itself may hold a password.
    #[error("--otlp-endpoint: {0}; write the collector's address, http://otel-collector.observability:4318")]
    Endpoint(String),
}

/// Takes spans; the default one takes none.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    queue: Option<mpsc::Sender<Batch>>,
}

impl Tracer {
    /// One whose spans arrive at the receiver.
    pub fn new() -> (Self, mpsc::Receiver<Batch>) {
        let (queue, batches) = mpsc::channel(WAITING);
        (Self { queue: Some(queue) }, batches)
    }

    /// One that sends spans to the collector at `endpoint`, over OTLP and HTTP, until all its clones are gone. Headers, time
    /// limit and the rest are read from the standard variables, `OTEL_EXPORTER_OTLP_HEADERS` and so on. `instance` names the
    /// process.
    ///
    /// # Errors
    /// When the address cannot be used, or the program was built without it.
    pub fn to_collector(endpoint: &str, instance: &str) -> Result<(Self, impl Future<Output = ()> + Send + use<>), TracerError> {
        #[cfg(feature = "otel")]
        {
            let exporter = super::otlp::Exporter::new(endpoint, instance)?;
            let (tracer, batches) = Self::new();
            Ok((tracer, exporter.run(batches)))
        }
        #[cfg(not(feature = "otel"))]
        {
            let _ = (endpoint, instance);
            Err::<(Self, std::future::Ready<()>), _>(TracerError::NotBuilt)
        }
    }

    /// Whether anybody takes spans.
    pub fn is_heard(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_closed())
    }

    /// Hands over spans.
    pub fn tell(&self, namespace: &str, spans: Vec<Span>) {
        let Some(queue) = &self.queue else { return };
        if !spans.is_empty() && queue.try_send(Batch { namespace: namespace.into(), spans }).is_err() {
            tracing::warn!("spans dropped: the collector does not keep up");
        }
    }
}
