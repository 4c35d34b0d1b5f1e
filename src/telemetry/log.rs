//! Logging: to standard error, as text or JSON, with a level that can be changed while the process runs.

use std::io::IsTerminal;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Libraries that see what goes over the wire, credentials included.
const WIRE: [&str; 9] =
    ["h2", "hyper", "hyper_util", "kube_client", "reqwest", "rustls", "tokio_rustls", "tower_http", "tokio_tungstenite"];

/// Options of the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct LogOptions {
    /// Log as text or as one JSON object a line.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to log: a level (error, warn, info, debug, trace), or per target, `info,voicerollout=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
}

/// See [`LogOptions::log_format`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not one.
    #[error("log level {given:?}: {reason}; write error, warn, info, debug or trace, or per target, info,voicerollout=debug")]
    Level {
        /// As given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging is set up already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// Logging has ended.
    #[error("the log level cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// Shows and changes the level.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// What is logged now.
    ///
    /// # Errors
    /// When logging has ended.
    pub fn level(&self) -> Result<String, TelemetryError> {
        Ok(self.filter.with_current(ToString::to_string)?)
    }

    /// Changes what is logged. A single word has to be a level: as the name of a target, which a typing error would be
    /// taken for, it would end all other logging.
    ///
    /// # Errors
    /// When `level` cannot be read, or logging has ended.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        let bare = |d: &&str| !d.contains(['=', '[']) && (d.is_empty() || d.parse::<LevelFilter>().is_err());
        if let Some(word) = level.split(',').map(str::trim).find(bare) {
            return Err(TelemetryError::Level { given: level.into(), reason: format!("{word:?} is not a level") });
        }
        self.filter.reload(parse(level)?)?;
        tracing::info!(level, "log level changed");
        Ok(())
    }
}

/// Starts logging.
///
/// # Errors
/// When the level cannot be read, or logging was started before.
pub fn init(options: &LogOptions) -> Result<LogHandle, TelemetryError> {
    let colour = std::io::stderr().is_terminal();
    let (subscriber, handle) = build(options, colour, std::io::stderr)?;
    subscriber.try_init()?;
    Ok(handle)
}

/// Logging that goes to `writer`.
fn build<W>(options: &LogOptions, colour: bool, writer: W) -> Result<(impl Subscriber + Send + Sync + 'static, LogHandle), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = if options.log_level.trim().is_empty() { "info" } else { &options.log_level };
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = fmt::layer().with_writer(writer).with_ansi(colour);
    let lines = match options.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(FilterFn::new(keeps_secrets)).with(lines);
    Ok((subscriber, LogHandle { filter: handle }))
}

/// A filter that nothing is logged through, and its handle; it lives as long as the filter.
#[cfg(test)]
pub(crate) fn detached(level: &str) -> (reload::Layer<EnvFilter, Registry>, LogHandle) {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(level));
    (filter, LogHandle { filter: handle })
}

fn parse(level: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(level).map_err(|e| TelemetryError::Level { given: level.into(), reason: e.to_string() })
}

/// Whatever level is set, what libraries say about headers and frames is not logged: a token would be in it.
fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !WIRE.contains(&library)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
        }
    }

    fn logged(format: LogFormat, level: &str, log: impl FnOnce(&LogHandle, &Lines)) {
        let lines = Lines::default();
        let writer = lines.clone();
        let options = LogOptions { log_format: format, log_level: level.into() };
        let (subscriber, handle) = build(&options, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || log(&handle, &lines));
    }

    #[test]
    fn json_is_one_object_a_line() {
        logged(LogFormat::Json, "", |_, lines| {
            tracing::info!(rollout = "voice/agent", "two\nlines");
            tracing::debug!("hidden");
            let text = lines.take();
            let object: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&object["message"], &object["rollout"], &object["level"]),
                (&"two\nlines".into(), &"voice/agent".into(), &"INFO".into())
            );
        });
    }

    #[test]
    fn the_level_changes_while_running_and_a_bad_one_changes_nothing() {
        logged(LogFormat::Text, "warn", |handle, lines| {
            let said = || {
                tracing::debug!("a detail");
                lines.take().contains("a detail")
            };
            assert!(!said());
            handle.set("info,voicerollout=debug").unwrap();
            assert!(said());
            assert!(handle.level().unwrap().contains("voicerollout=debug"));
            for bad in ["inof", "info,debgu", "voicerollout=loud", "", "a=b=c"] {
                let error = handle.set(bad).expect_err(bad).to_string();
                assert!(error.contains(&format!("{bad:?}")), "{error}");
                assert!(said(), "{bad}");
            }
            handle.set("error").unwrap();
            assert!(!said());
        });
    }

    #[test]
    fn nothing_from_the_wire_is_logged_at_any_level() {
        logged(LogFormat::Text, "trace,hyper=trace,h2::codec=trace", |handle, lines| {
            handle.set("trace,hyper=trace,h2::codec=trace").unwrap();
            tracing::trace!(target: "hyper::proto", "authorization: Bearer secret");
            tracing::debug!(target: "h2::codec", "authorization: Bearer secret");
            tracing::trace!(target: "hyperion", "another crate");
            tracing::warn!(target: "hyper::proto", "connection lost");
            let text = lines.take();
            assert!(!text.contains("secret") && text.contains("another crate") && text.contains("connection lost"), "{text}");
        });
    }
}
