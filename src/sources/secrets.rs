//! Secrets of a measurement: read by reference, remembered so that they never leave in a text.

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::redact::Known;
use super::{Request, SourceError};
use crate::api::common::SecretKeyRef;

/// Reads one key of a Secret.
pub trait SecretReader: Send + Sync {
    /// The value. The implementation checks that the Secret carries `voicerollout.dev/use: gates`.
    fn read<'a>(&'a self, namespace: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>>;
}

/// The Secrets that one measurement may read, and every secret value it has seen.
pub(super) struct Vault<'a> {
    reader: &'a dyn SecretReader,
    namespace: &'a str,
    known: Mutex<Known>,
}

impl<'a> Vault<'a> {
    /// A vault on `namespace` that already knows the request's secret arguments.
    pub(super) fn new(reader: &'a dyn SecretReader, namespace: &'a str, request: &Request) -> Self {
        let mut known = Known::default();
        for arg in request.args.values().filter(|a| a.secret) {
            known.add(&arg.text);
        }
        Self { reader, namespace, known: Mutex::new(known) }
    }

    /// A vault on `namespace` that knows nothing yet.
    pub(super) fn empty(reader: &'a dyn SecretReader, namespace: &'a str) -> Self {
        Self { reader, namespace, known: Mutex::default() }
    }

    /// Reads and remembers a value. Line breaks around it, which `kubectl create --from-file` leaves, are dropped.
    pub(super) async fn read(&self, secret: &SecretKeyRef) -> Result<String, SourceError> {
        let value = self.reader.read(self.namespace, secret).await?;
        let value = value.trim_matches(['\r', '\n']).to_owned();
        if value.is_empty() {
            return Err(SourceError::new(format!("Secret {}/{}: key {} is empty", self.namespace, secret.name, secret.key)));
        }
        self.known.lock().add(&value);
        Ok(value)
    }

    /// Remembers a value that was built from secrets.
    pub(super) fn remember(&self, value: &str) {
        self.known.lock().add(value);
    }

    /// Takes out what a pattern of the user's own matches, too.
    pub(super) fn add_pattern(&self, pattern: regex::Regex, name: &str) {
        self.known.lock().add_pattern(pattern, name);
    }

    /// What is known so far.
    pub(super) fn known(&self) -> Known {
        self.known.lock().clone()
    }
}
