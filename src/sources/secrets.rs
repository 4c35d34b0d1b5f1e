//! Secrets as the sources see them: one key at a time, by name.

use futures::future::BoxFuture;

use super::SourceError;
use crate::api::common::SecretKeyRef;

/// Reads one key of a Secret. The Kubernetes implementation refuses Secrets without the label
/// `voicerollout.dev/use: gates`.
pub trait SecretReader: Send + Sync {
    /// The key's value as text. Errors name Secret and key, never the value.
    fn read<'a>(&'a self, namespace: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>>;
}
