//! A Kubernetes API server in this process, and a world that runs on it. All in tokio's time, without sockets.

mod apply;
mod builtin;
mod delete;
mod evict;
mod fail;
mod fields;
pub mod journal;
mod nowhere;
mod patch;
mod read;
mod registry;
mod request;
pub mod scenario;
mod schema;
mod selector;
mod server;
mod service;
mod shape;
pub mod sources;
mod state;
mod store;
mod validate;
mod watch;
pub mod world;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::SpecError;
use schema::Schema;

pub use fail::PATCH_FAILED;
pub use journal::{Fault, RequestInfo, Verb};
pub use nowhere::Nowhere;
pub use patch::PatchKind;
pub use scenario::{Scenario, ScenarioError};
pub use server::{Latency, Pace, SimServer, Written};
pub use service::SimService;
pub use sources::ScenarioSources;
pub use world::{World, WorldConfig};

/// What an API server would say against a manifest of one of our kinds: fields that do not exist, values out of range,
/// rules that are broken.
pub fn manifest_problems(manifest: &serde_json::Value) -> Vec<String> {
    let Some(found) = manifest_findings(manifest) else {
        let kind = manifest["kind"].as_str().unwrap_or_default();
        return vec![format!("kind {kind} is none of {}", crate::api::common::GROUP)];
    };
    found.iter().map(ToString::to_string).collect()
}

/// The same with the paths apart; `None` for another kind than ours.
pub fn manifest_findings(manifest: &serde_json::Value) -> Option<Vec<SpecError>> {
    let schema = schema_of(manifest["kind"].as_str().unwrap_or_default())?;
    let mut object = manifest.clone();
    let unknown = schema.prune(&mut object).into_iter().map(|path| SpecError::new(path, "there is no such field"));
    let mut problems: Vec<SpecError> = unknown.collect();
    let mut causes = schema.validate(&object);
    if causes.is_empty() {
        schema.default(&mut object);
        causes = schema.check_rules(&object, None, false);
    }
    problems.extend(causes.into_iter().map(|cause| SpecError::new(cause.field, cause.message)));
    Some(problems)
}

/// The schema of one of our kinds. Making one takes time, so each is made once.
fn schema_of(kind: &str) -> Option<Arc<Schema>> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Schema>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock();
    if let Some(schema) = known.get(kind) {
        return Some(schema.clone());
    }
    let (_, crd) = crate::api::crds::all().into_iter().find(|(_, crd)| crd.spec.names.kind == kind)?;
    let crd = serde_json::to_value(crd).unwrap_or_default();
    let value = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default();
    Some(known.entry(kind.to_owned()).or_insert(Arc::new(Schema::new(value))).clone())
}
