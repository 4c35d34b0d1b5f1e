//! Placeholder until the analysis controller is merged.
use super::{clock::Clock, leadership::Leadership};
use crate::api::common::SecretKeyRef;
use crate::sources::{Source, SourceError, secrets::SecretReader};
use futures::future::BoxFuture;
use kube::Client;
use std::sync::Arc;
/// Context.
pub struct AnalysisContext {
    /// x
    pub client: Client,
    /// x
    pub clock: Clock,
    /// x
    pub leadership: Leadership,
    /// x
    pub sources: Arc<dyn Source>,
    /// x
    pub secrets: Arc<dyn SecretReader>,
    /// x
    pub operator_namespace: String,
}
/// Secrets.
pub struct KubeSecrets;
impl KubeSecrets {
    /// x
    pub fn new(_: Client) -> Self {
        Self
    }
}
impl SecretReader for KubeSecrets {
    fn read<'a>(&'a self, _: &'a str, _: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        Box::pin(async { Err(SourceError::new("x")) })
    }
}
/// Run.
pub async fn run(_: Arc<AnalysisContext>, _: Option<String>, stop: impl Future<Output = ()>) {
    stop.await
}
