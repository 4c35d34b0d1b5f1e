//! Caches of everything a decision rests on. Kept by watches; read without asking the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt, future};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer as StoreWriter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;

use super::cache::{Cache, Id, Writer, events, group};
use super::kept::{
    ActionKept, AutoscalerKept, BUDGET, BudgetKept, HOST, IstioKept, Names, OWNER, PodKept, ROLLOUT, RunKept, SERVICE, SET, ServiceKept,
    SetKept, SliceKept, TemplateKept, without_bookkeeping,
};
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::core::observe::ReplicaSetSeen;
use crate::core::preflight::Sidecar;

/// A kind whose objects may not parse: such an object must not stop the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// Hears what the watches of one namespace, or of all, bring.
pub trait Onlooker: Send + Sync + 'static {
    /// An event of the watch of rollouts.
    fn rollout(&self, event: &watcher::Event<Guarded<VoiceRollout>>);

    /// An event of the watch of analysis runs.
    fn run(&self, event: &watcher::Event<Guarded<VoiceAnalysisRun>>);
}

/// A rollout to look at.
pub type Target = ObjectRef<Guarded<VoiceRollout>>;

/// Changes of rollouts, after the caches have them.
pub type RolloutChanges = futures::stream::BoxStream<'static, Result<Guarded<VoiceRollout>, watcher::Error>>;

/// The rollouts themselves.
#[derive(Default)]
pub struct Rollouts {
    whole: Vec<Store<Guarded<VoiceRollout>>>,
    names: Cache<Names>,
}

impl Rollouts {
    /// Adds a watch; gives its changes, and the store that they are in.
    pub fn watch(
        &mut self,
        api: Api<Guarded<VoiceRollout>>,
        onlooker: Option<Arc<dyn Onlooker>>,
    ) -> (RolloutChanges, Store<Guarded<VoiceRollout>>) {
        let writer = StoreWriter::new(());
        let reader = writer.as_reader();
        self.whole.push(reader.clone());
        let mut names = self.names.part();
        let changes = events(api, watcher::Config::default())
            .modify(without_bookkeeping)
            .inspect(move |event| {
                if let Ok(event) = event {
                    names.apply(event, Names::keep);
                    if let Some(onlooker) = &onlooker {
                        onlooker.rollout(event);
                    }
                }
            })
            .reflect(writer)
            .touched_objects();
        (changes.boxed(), reader)
    }

    /// One rollout.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Guarded<VoiceRollout>>> {
        let key = ObjectRef::new(name).within(namespace);
        self.whole.iter().find_map(|p| p.get(&key))
    }

    /// Rollouts that name an object of a kind ([`SERVICE`], [`super::kept::ROUTE`] ...), by namespace and name.
    pub fn naming(&self, kind: &str, namespace: &str, name: &str) -> Vec<Id> {
        self.names.of(&group(kind, namespace, name)).into_iter().map(|(id, _)| id).collect()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Guarded<VoiceRollout>>> {
        self.whole.iter().flat_map(Store::state).collect()
    }

    async fn ready(&self) {
        // An error means that the watch has ended, which happens at shutdown only.
        let _ = future::join_all(self.whole.iter().map(Store::wait_until_ready)).await;
    }
}

/// All caches.
#[derive(Default)]
pub struct Stores {
    /// Rollouts.
    pub rollouts: Rollouts,
    /// ReplicaSets that carry our label.
    pub replica_sets: Cache<SetKept>,
    /// Pods that carry our label.
    pub pods: Cache<PodKept>,
    /// PodDisruptionBudgets.
    pub budgets: Cache<BudgetKept>,
    /// HorizontalPodAutoscalers of ReplicaSets.
    pub autoscalers: Cache<AutoscalerKept>,
    /// Services.
    pub services: Cache<ServiceKept>,
    /// EndpointSlices.
    pub slices: Cache<SliceKept>,
    /// Istio VirtualServices.
    pub virtual_services: Cache<IstioKept>,
    /// Istio DestinationRules.
    pub destination_rules: Cache<IstioKept>,
    /// Analysis runs; the analysis controllers fill it.
    pub runs: Cache<RunKept>,
    /// Commands of people.
    pub actions: Cache<ActionKept>,
    /// Gate templates.
    pub templates: Cache<TemplateKept>,
    /// Cluster-wide gate templates.
    pub cluster_templates: Cache<TemplateKept>,
}

impl Stores {
    /// Waits until every cache has been filled once.
    pub async fn ready(&self) {
        let parts = [
            ("rollouts", self.rollouts.ready().boxed()),
            ("workloads", self.workloads_ready().boxed()),
            ("services", async { _ = tokio::join!(self.services.ready(), self.slices.ready()) }.boxed()),
            ("istio", async { _ = tokio::join!(self.virtual_services.ready(), self.destination_rules.ready()) }.boxed()),
            ("analysis", self.analysis_ready().boxed()),
        ];
        for (name, part) in parts {
            tracing::debug!(cache = name, "waiting for the cache");
            part.await;
        }
    }

    async fn workloads_ready(&self) {
        tokio::join!(self.replica_sets.ready(), self.pods.ready(), self.budgets.ready(), self.autoscalers.ready());
    }

    async fn analysis_ready(&self) {
        tokio::join!(self.runs.ready(), self.actions.ready(), self.templates.ready(), self.cluster_templates.ready());
    }

    /// ReplicaSets of the rollout with this UID, by name.
    pub fn replica_sets_of(&self, namespace: &str, uid: &str) -> Vec<ReplicaSetSeen> {
        self.replica_sets.of(&group(OWNER, namespace, uid)).into_iter().filter_map(|(_, set)| set.seen.clone()).collect()
    }

    /// Pods that carry a rollout's label, by name.
    pub fn pods_of(&self, namespace: &str, rollout: &str) -> Vec<(Id, Arc<PodKept>)> {
        self.pods.of(&group(ROLLOUT, namespace, rollout))
    }

    /// PodDisruptionBudgets of a namespace, by name.
    pub fn budgets_of(&self, namespace: &str) -> Vec<(Id, Arc<BudgetKept>)> {
        self.budgets.of(&group(BUDGET, namespace, ""))
    }

    /// What scales a ReplicaSet, by name.
    pub fn autoscalers_of(&self, namespace: &str, set: &str) -> Vec<Arc<AutoscalerKept>> {
        self.autoscalers.of(&group(SET, namespace, set)).into_iter().map(|(_, scaler)| scaler).collect()
    }

    /// EndpointSlices of a Service.
    pub fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<SliceKept>> {
        self.slices.of(&group(SERVICE, namespace, service)).into_iter().map(|(_, slice)| slice).collect()
    }

    /// Runs of the rollout with this UID, by name.
    pub fn runs_of(&self, namespace: &str, uid: &str) -> Vec<Arc<RunKept>> {
        self.runs.of(&group(OWNER, namespace, uid)).into_iter().map(|(_, run)| run).collect()
    }

    /// Commands that nobody has looked at, for a rollout.
    pub fn actions_for(&self, namespace: &str, rollout: &str) -> Vec<Arc<ActionKept>> {
        self.actions.of(&group(ROLLOUT, namespace, rollout)).into_iter().map(|(_, action)| action).collect()
    }

    /// Name of the DestinationRule about a host, in a namespace.
    pub fn rule_about(&self, namespace: &str, host: &str) -> Option<String> {
        self.destination_rules.of(&group(HOST, namespace, host)).into_iter().next().map(|(id, _)| id.name.to_string())
    }

    /// Sidecars of a rollout's pods, by revision: the one that ends first, where pods differ.
    pub fn sidecars_of(&self, namespace: &str, rollout: &str) -> BTreeMap<String, Sidecar> {
        let mut found = BTreeMap::new();
        for (_, pod) in self.pods.of(&group(ROLLOUT, namespace, rollout)) {
            let Some(revision) = pod.revision.clone() else { continue };
            let worst = found.entry(revision).or_insert(pod.sidecar);
            *worst = pod.sidecar.max(*worst);
        }
        found
    }

    /// Revision of a pod, by its label.
    pub fn pod_revision(&self, namespace: &str, name: &str) -> Option<String> {
        self.pods.get(namespace, name).and_then(|p| p.revision.clone())
    }
}

/// What an analysis controller tells the rollout controller: one watch of the runs serves both. Clones are one feed.
#[derive(Clone)]
pub struct RunFeed {
    writer: Arc<Mutex<Writer<RunKept>>>,
    changed: UnboundedSender<Target>,
    onlooker: Option<Arc<dyn Onlooker>>,
}

impl RunFeed {
    /// A feed that fills a part of `runs`, and the rollouts whose runs have changed, after the cache has them.
    pub fn new(runs: &mut Cache<RunKept>) -> (Self, UnboundedReceiver<Target>) {
        let (changed, changes) = unbounded();
        (Self { writer: Arc::new(Mutex::new(runs.part())), changed, onlooker: None }, changes)
    }

    /// The same, with somebody who hears of each event, too.
    pub fn heard_by(self, onlooker: Option<Arc<dyn Onlooker>>) -> Self {
        Self { onlooker, ..self }
    }

    /// Takes over an event of the watch.
    pub fn take(&self, event: &watcher::Event<Guarded<VoiceAnalysisRun>>) {
        for change in self.writer.lock().apply(event, RunKept::keep) {
            self.tell(&change.id.namespace, change.object.rollout.as_deref());
        }
        if let Some(onlooker) = &self.onlooker {
            onlooker.run(event);
        }
    }

    /// Takes over a run as the API server has just recorded it: a revert does not wait for the watch to tell.
    pub fn recorded(&self, run: &VoiceAnalysisRun) {
        let namespace = run.namespace().unwrap_or_default();
        let kept = RunKept::keep(&DeserializeGuard(Ok(run.clone())));
        if self.writer.lock().replace(&Id::new(&namespace, &run.name_any()), kept) {
            self.tell(&namespace, Some(&run.spec.rollout));
        }
    }

    fn tell(&self, namespace: &str, rollout: Option<&str>) {
        if let Some(target) = rollout.and_then(|r| target(namespace, r)) {
            // The other end goes at shutdown.
            let _ = self.changed.unbounded_send(target);
        }
    }
}

/// The rollout `name` of `namespace`.
pub fn target(namespace: &str, name: &str) -> Option<Target> {
    (!namespace.is_empty()).then(|| ObjectRef::new(name).within(namespace))
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
