//! Caches of everything a decision rests on. Kept by watches; read without asking the API server.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DynamicObject;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::routes;
use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL};
use crate::api::{ClusterVoiceAnalysisTemplate, VoiceAnalysisRun, VoiceAnalysisTemplate, VoiceRollout, VoiceRolloutAction};

/// A kind whose objects may not parse: such an object must not stop the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// The cache of one kind, over all watched namespaces.
pub struct Cache<K: Resource + Clone + 'static>
where
    K::DynamicType: Hash + Eq + Clone,
{
    parts: Vec<Store<K>>,
    dyntype: K::DynamicType,
}

impl<K: Resource + Clone + 'static> Cache<K>
where
    K::DynamicType: Hash + Eq + Clone,
{
    fn new(dyntype: K::DynamicType) -> Self {
        Self { parts: Vec::new(), dyntype }
    }

    /// One object; `namespace` is empty for cluster-wide kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<K>> {
        let mut key = ObjectRef::<K>::new_with(name, self.dyntype.clone());
        if !namespace.is_empty() {
            key = key.within(namespace);
        }
        self.parts.iter().find_map(|p| p.get(&key))
    }

    /// Every object, in no order.
    pub fn all(&self) -> impl Iterator<Item = std::sync::Arc<K>> + '_ {
        self.parts.iter().flat_map(Store::state)
    }

    /// Every object of one namespace.
    pub fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = std::sync::Arc<K>> + 'a {
        self.all().filter(move |o| o.meta().namespace.as_deref() == Some(namespace))
    }

    /// The part that was added last.
    ///
    /// # Panics
    /// When none was added.
    pub fn newest_part(&self) -> Store<K> {
        self.parts.last().expect("a watch was opened before").clone()
    }

    async fn ready(&self) {
        // An error means that the watch has ended, which happens at shutdown only.
        let _ = future::join_all(self.parts.iter().map(Store::wait_until_ready)).await;
    }
}

/// All caches.
pub struct Stores {
    /// Rollouts.
    pub rollouts: Cache<Guarded<VoiceRollout>>,
    /// ReplicaSets that carry our label.
    pub replica_sets: Cache<ReplicaSet>,
    /// Pods that carry our label; metadata only.
    pub pods: Cache<PartialObjectMeta<Pod>>,
    /// Services.
    pub services: Cache<Service>,
    /// EndpointSlices.
    pub slices: Cache<EndpointSlice>,
    /// Istio VirtualServices.
    pub virtual_services: Cache<DynamicObject>,
    /// Istio DestinationRules.
    pub destination_rules: Cache<DynamicObject>,
    /// Analysis runs.
    pub runs: Cache<Guarded<VoiceAnalysisRun>>,
    /// Commands of people.
    pub actions: Cache<Guarded<VoiceRolloutAction>>,
    /// Gate templates.
    pub templates: Cache<Guarded<VoiceAnalysisTemplate>>,
    /// Cluster-wide gate templates.
    pub cluster_templates: Cache<Guarded<ClusterVoiceAnalysisTemplate>>,
}

impl Stores {
    /// Empty caches, to be filled by [`watch`].
    pub fn new() -> Self {
        Self {
            rollouts: Cache::new(()),
            replica_sets: Cache::new(()),
            pods: Cache::new(()),
            services: Cache::new(()),
            slices: Cache::new(()),
            virtual_services: Cache::new(routes::virtual_service()),
            destination_rules: Cache::new(routes::destination_rule()),
            runs: Cache::new(()),
            actions: Cache::new(()),
            templates: Cache::new(()),
            cluster_templates: Cache::new(()),
        }
    }

    /// Waits until every cache has been filled once.
    pub async fn ready(&self) {
        let names = ["rollouts", "workloads", "services", "istio", "analysis"];
        let parts: [future::BoxFuture<'_, ()>; 5] = [
            Box::pin(self.rollouts.ready()),
            Box::pin(async { _ = tokio::join!(self.replica_sets.ready(), self.pods.ready()) }),
            Box::pin(async { _ = tokio::join!(self.services.ready(), self.slices.ready()) }),
            Box::pin(async { _ = tokio::join!(self.virtual_services.ready(), self.destination_rules.ready()) }),
            Box::pin(async {
                _ = tokio::join!(self.runs.ready(), self.actions.ready(), self.templates.ready(), self.cluster_templates.ready());
            }),
        ];
        for (name, part) in names.into_iter().zip(parts) {
            tracing::debug!(cache = name, "waiting for the cache");
            part.await;
        }
    }

    /// Revision of a pod, by its label.
    pub fn pod_revision(&self, namespace: &str, name: &str) -> Option<String> {
        self.pods.get(namespace, name).and_then(|p| p.labels().get(REVISION_LABEL).cloned())
    }

    /// Labels of pods by name, for messages and counts.
    pub fn pods_of(&self, namespace: &str, rollout: &str) -> BTreeMap<String, String> {
        self.pods
            .within(namespace)
            .filter(|p| p.labels().get(ROLLOUT_LABEL).is_some_and(|r| r == rollout))
            .filter_map(|p| Some((p.name_any(), p.labels().get(REVISION_LABEL)?.clone())))
            .collect()
    }
}

impl Default for Stores {
    fn default() -> Self {
        Self::new()
    }
}

/// What a watch yields: objects that changed, after the cache has them.
pub type Changes<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// Objects in one answer to a list: all of an answer are in memory at once, before they are trimmed.
const PAGE: u32 = 100;

/// Adds a watch to a cache and gives its changes. `trim` takes away what is not kept.
pub fn watch<K>(cache: &mut Cache<K>, api: Api<K>, config: watcher::Config, trim: fn(&mut K)) -> Changes<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Debug + Send + Sync + Default,
{
    watch_with(cache, api, config, trim, K::DynamicType::default())
}

/// [`watch`] for kinds known at run time.
pub fn watch_with<K>(cache: &mut Cache<K>, api: Api<K>, config: watcher::Config, trim: fn(&mut K), dyntype: K::DynamicType) -> Changes<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Debug + Send + Sync,
{
    let writer = Writer::new(dyntype);
    cache.parts.push(writer.as_reader());
    logged(watcher(api, config.page_size(PAGE))).default_backoff().modify(trim).reflect(writer).touched_objects().boxed()
}

fn logged<K>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Send + 'static,
{
    stream.inspect(|event| {
        if let Err(error) = event {
            tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch interrupted; it is opened again");
        }
    })
}

/// The API of a kind in one namespace or in all.
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}
