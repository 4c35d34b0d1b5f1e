//! What the process tells of itself: log lines, and traces of releases.

mod log;
#[cfg(feature = "otel")]
mod otlp;
mod tracer;

#[cfg(test)]
pub(crate) use log::detached;
pub use log::{LogFormat, LogHandle, LogOptions, TelemetryError, init};
pub use tracer::{Batch, Tracer, TracerError};
