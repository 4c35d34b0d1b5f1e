//! Writes that move traffic: weights of VirtualServices, selectors of Services, labels of subsets.

use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::leadership::Leadership;
use super::write::{WRITE_TIMEOUT, WriteError, write};
use crate::api::common::{ALLOW_FROM_ANNOTATION, FIELD_MANAGER, REVISION_LABEL, SERVING_LABEL};
use crate::core::route::{self, Direction, Own, RouteError, RouteWeights, Split};

#[cfg(test)]
mod tests;

/// Times that a lowering edit is sent before its conflicts are reported.
const LOWER_ATTEMPTS: usize = 4;

/// Istio's `VirtualService`.
pub fn virtual_service() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService"), "virtualservices")
}

/// Istio's `DestinationRule`.
pub fn destination_rule() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", "v1", "DestinationRule"), "destinationrules")
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// The object said so already; nothing was sent.
    Unchanged,
    /// The object as it is now.
    Patched(Box<DynamicObject>),
}

/// Why traffic was not moved.
#[derive(Debug, thiserror::Error)]
pub enum RouteWriteError {
    /// The object is not written in a way that can be managed. Other routes of it may have been lowered.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The object has changed since it was read: read it again. Or the API server holds the result for invalid.
    #[error("{source}; the object may have changed since it was read")]
    Conflict {
        /// The API server's answer.
        source: WriteError,
    },
    /// The write did not succeed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl RouteWriteError {
    fn from_patch(source: WriteError) -> Self {
        if source.is_conflict() || source.is_invalid() { Self::Conflict { source } } else { Self::Write(source) }
    }

    /// The object has to be read again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// Whether a rollout of `namespace` may write the weights of `vs`: in its own namespace always, in another one when
/// the annotation `voicerollout.dev/allow-from` (namespaces, separated by commas) names it.
pub fn allowed_from(vs: &DynamicObject, namespace: &str) -> bool {
    vs.metadata.namespace.as_deref() == Some(namespace)
        || vs.annotations().get(ALLOW_FROM_ANNOTATION).is_some_and(|list| list.split(',').any(|n| n.trim() == namespace))
}

/// Which http routes of a VirtualService to write.
#[derive(Clone, Copy, Debug)]
pub struct Managed<'a> {
    /// Their names; empty: the only one.
    pub names: &'a [String],
    /// How their destinations are told apart.
    pub split: &'a Split,
    /// The routes above them that are ours.
    pub own: &'a Own,
}

/// Sets the canary weight of the managed http routes of `vs`, a copy from a cache. A lowering
/// edit reads the object again on a conflict and tries at once; it also lowers what it can when one of several routes
/// cannot be managed. Whether this rollout may write `vs` at all is the caller's check: [`allowed_from`].
///
/// # Errors
/// See [`RouteWriteError`]. A raising edit is a conflict whenever `vs` is not the newest version.
pub async fn set_weights(
    client: &Client,
    leadership: &Leadership,
    vs: &DynamicObject,
    managed: &Managed<'_>,
    canary: i32,
    direction: Direction,
) -> Result<Written, RouteWriteError> {
    let id = id(vs);
    let api = api(client, vs, &virtual_service());
    let mut newest: Option<DynamicObject> = None;
    let mut attempt = 1;
    loop {
        let value = to_value(newest.as_ref().unwrap_or(vs));
        let (routes, error) = read(&value, managed, direction);
        // The cache may be behind: what cannot be lowered is looked at again.
        if error.is_some() && direction == Direction::Lower && newest.is_none() {
            newest = Some(get(&api, "VirtualService", vs).await?);
            continue;
        }
        let outcome = match route::patch(&value, &routes, managed.own, canary, direction) {
            None => Ok(Written::Unchanged),
            Some(patch) => {
                let what = format!("set the canary weight to {canary} in VirtualService {id}");
                send(&api, leadership, what, vs, patch).await
            }
        };
        match (outcome, error) {
            (Err(e), _) if e.is_conflict() && direction == Direction::Lower && attempt < LOWER_ATTEMPTS => {
                attempt += 1;
                newest = Some(get(&api, "VirtualService", vs).await?);
            }
            (Err(e), _) => return Err(e),
            (Ok(_), Some(error)) => return Err(error.into()),
            (Ok(written), None) => return Ok(written),
        }
    }
}

/// The routes that can be edited, and why one cannot. A raising edit takes all or none.
fn read(vs: &Value, managed: &Managed<'_>, direction: Direction) -> (Vec<RouteWeights>, Option<RouteError>) {
    let Managed { names, split, own } = managed;
    let read = route::read(vs, names, split, own);
    let checked = |routes: &Vec<RouteWeights>| if direction == Direction::Raise { own.check(vs, routes) } else { Ok(()) };
    let error = match read.and_then(|routes| checked(&routes).map(|()| routes)) {
        Ok(routes) => return (routes, None),
        Err(error) => error,
    };
    let single = |name: &String| route::read(vs, std::slice::from_ref(name), split, own).ok();
    let routes = if direction == Direction::Lower { names.iter().filter_map(single).flatten().collect() } else { Vec::new() };
    (routes, Some(error))
}

/// Points the Service `name` at the pods of revision `hash`, and with `labelled` only at those that were not taken out of
/// traffic. Only these two keys of its selector are written.
///
/// # Errors
/// See [`WriteError`].
pub async fn point_service(
    client: &Client,
    leadership: &Leadership,
    namespace: &str,
    name: &str,
    hash: &str,
    labelled: bool,
) -> Result<(), WriteError> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"spec": {"selector": {REVISION_LABEL: hash, SERVING_LABEL: serving(labelled)}}}));
    let what = format!("point Service {namespace}/{name} at revision {hash}");
    write(leadership, what, api.patch(name, &params(), &patch)).await.map(|_| ())
}

/// Points the subset `subset` of the DestinationRule `rule`, a copy from a cache, at the pods of revision `hash`, and with
/// `labelled` only at those that were not taken out of traffic. Only these two keys of the subset's labels are written.
///
/// # Errors
/// See [`RouteWriteError`].
pub async fn set_subset_label(
    client: &Client,
    leadership: &Leadership,
    rule: &DynamicObject,
    subset: &str,
    hash: &str,
    labelled: bool,
) -> Result<Written, RouteWriteError> {
    let value = to_value(rule);
    let labels = [(REVISION_LABEL, Some(hash)), (SERVING_LABEL, serving(labelled))];
    let Some(patch) = route::subset_patch(&value, subset, &labels)? else { return Ok(Written::Unchanged) };
    let what = format!("point subset {subset} of DestinationRule {} at revision {hash}", id(rule));
    send(&api(client, rule, &destination_rule()), leadership, what, rule, patch).await
}

fn serving(labelled: bool) -> Option<&'static str> {
    labelled.then_some("true")
}

async fn send(
    api: &Api<DynamicObject>,
    leadership: &Leadership,
    what: String,
    object: &DynamicObject,
    patch: json_patch::Patch,
) -> Result<Written, RouteWriteError> {
    let patch: Patch<()> = Patch::Json(patch);
    let written = write(leadership, what, api.patch(&object.name_any(), &params(), &patch)).await;
    written.map(|object| Written::Patched(Box::new(object))).map_err(RouteWriteError::from_patch)
}

async fn get(api: &Api<DynamicObject>, kind: &str, object: &DynamicObject) -> Result<DynamicObject, WriteError> {
    let what = format!("read {kind} {}", id(object));
    match tokio::time::timeout(WRITE_TIMEOUT, api.get(&object.name_any())).await {
        Err(_) => Err(WriteError::Timeout { what }),
        Ok(Err(source)) => Err(WriteError::Api { what, source: Box::new(source) }),
        Ok(Ok(object)) => Ok(object),
    }
}

fn api(client: &Client, object: &DynamicObject, resource: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), object.metadata.namespace.as_deref().unwrap_or_default(), resource)
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

fn id(object: &DynamicObject) -> String {
    format!("{}/{}", object.metadata.namespace.as_deref().unwrap_or_default(), object.name_any())
}

/// A `DynamicObject` is maps with string keys all through; turning it into JSON does not fail.
fn to_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
