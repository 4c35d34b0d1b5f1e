//! The kinds that the simulated API server serves.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::schema::Schema;

/// Brings an object of a built-in kind into the form its Go type would give it; unknown fields fall out.
pub type RoundTrip = fn(Value) -> Result<Value, serde_json::Error>;

/// JSON pointers of the scale subresource.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// Wanted pods.
    pub spec_replicas: String,
    /// Pods that exist.
    pub status_replicas: String,
    /// Label selector as text; absent for kinds with a structured `spec.selector`.
    pub selector: Option<String>,
}

/// A kind and how the server treats it.
#[derive(Clone)]
pub struct Resource {
    /// Position in the server's list; set when it is registered.
    pub id: usize,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Name in paths.
    pub plural: String,
    /// Lower-case kind.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Has a status subresource.
    pub status: bool,
    /// `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// A replace may leave out the resourceVersion.
    pub unconditional_update: bool,
    /// A replace of a missing object creates it.
    pub create_on_update: bool,
    /// Has a scale subresource.
    pub scale: Option<ScalePaths>,
    /// Schema of a custom resource.
    pub schema: Option<Arc<Schema>>,
    /// Type of a built-in kind.
    pub typed: Option<RoundTrip>,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `voicerollouts.voicerollout.dev`: how error messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// A kind known by its type; flags are those of most built-in kinds.
    fn built_in<K>(namespaced: bool) -> Self
    where
        K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let kind = K::kind(&()).into_owned();
        Self {
            id: 0,
            group: K::group(&()).into_owned(),
            version: K::version(&()).into_owned(),
            plural: K::plural(&()).into_owned(),
            singular: kind.to_lowercase(),
            kind,
            short_names: Vec::new(),
            namespaced,
            status: false,
            generation: false,
            unconditional_update: true,
            create_on_update: false,
            scale: None,
            schema: None,
            typed: Some(round_trip::<K>),
        }
    }

    fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    /// An Istio kind: any fields, with a status.
    fn istio(kind: &str, plural: &str) -> Self {
        Self {
            id: 0,
            group: "networking.istio.io".into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            namespaced: true,
            status: true,
            generation: true,
            unconditional_update: false,
            create_on_update: false,
            scale: None,
            schema: None,
            typed: None,
        }
    }

    /// The storage version of a custom resource.
    ///
    /// # Errors
    /// When the definition serves no version.
    pub fn custom(crd: &CustomResourceDefinition) -> Result<Self, String> {
        let version = crd
            .spec
            .versions
            .iter()
            .find(|v| v.storage)
            .ok_or_else(|| format!("{}: no version is marked as the storage version", crd.spec.names.plural))?;
        let sub = version.subresources.as_ref();
        let pointer = |path: &str| path.replace('.', "/");
        Ok(Self {
            id: 0,
            group: crd.spec.group.clone(),
            version: version.name.clone(),
            kind: crd.spec.names.kind.clone(),
            plural: crd.spec.names.plural.clone(),
            singular: crd.spec.names.singular.clone().unwrap_or_else(|| crd.spec.names.kind.to_lowercase()),
            short_names: crd.spec.names.short_names.clone().unwrap_or_default(),
            namespaced: crd.spec.scope == "Namespaced",
            status: sub.is_some_and(|s| s.status.is_some()),
            generation: true,
            unconditional_update: false,
            create_on_update: false,
            scale: sub.and_then(|s| s.scale.as_ref()).map(|s| ScalePaths {
                spec_replicas: pointer(&s.spec_replicas_path),
                status_replicas: pointer(&s.status_replicas_path),
                selector: s.label_selector_path.as_deref().map(pointer),
            }),
            schema: version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).map(|s| {
                let value = serde_json::to_value(s).unwrap_or_default();
                Arc::new(Schema::new(value))
            }),
            typed: None,
        })
    }
}

fn round_trip<K: Serialize + DeserializeOwned>(value: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<K>(value)?)
}

/// The kinds every simulated server has: those of Kubernetes and Istio that a rollout touches.
pub fn built_in() -> Vec<Resource> {
    let mut pod = Resource::built_in::<core::Pod>(true).with_status();
    pod.generation = true;
    pod.short_names = vec!["po".into()];
    let mut service = Resource::built_in::<core::Service>(true).with_status();
    service.short_names = vec!["svc".into()];
    let mut replica_set = Resource::built_in::<ReplicaSet>(true).with_status();
    replica_set.generation = true;
    replica_set.short_names = vec!["rs".into()];
    replica_set.scale =
        Some(ScalePaths { spec_replicas: "/spec/replicas".into(), status_replicas: "/status/replicas".into(), selector: None });
    let mut slice = Resource::built_in::<EndpointSlice>(true);
    slice.generation = true;
    let mut lease = Resource::built_in::<Lease>(true);
    lease.unconditional_update = false;
    lease.create_on_update = true;
    vec![
        Resource::built_in::<core::Namespace>(false).with_status(),
        pod,
        service,
        Resource::built_in::<core::Secret>(true),
        Resource::built_in::<core::Event>(true),
        Resource::built_in::<core::Node>(false).with_status(),
        Resource::built_in::<core::ConfigMap>(true),
        Resource::built_in::<core::ServiceAccount>(true),
        replica_set,
        slice,
        lease,
        Resource::built_in::<PodDisruptionBudget>(true).with_status(),
        Resource::built_in::<HorizontalPodAutoscaler>(true).with_status(),
        Resource::built_in::<NewEvent>(true),
        Resource::istio("VirtualService", "virtualservices"),
        Resource::istio("DestinationRule", "destinationrules"),
    ]
}
