//! Wiring of the rollout controller: watches, triggers, caches. The only file that names kube's unstable streams.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DynamicObject;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::backoff::Backoff;
use super::clock::Clock;
use super::gather::{named_templates, route_namespace};
use super::leadership::Leadership;
use super::reconcile::{Context, TURNS, on_error, reconcile};
use super::routes;
use super::stores::{Changes, Guarded, Stores, scoped, watch as fill, watch_with};
use super::trim;
use crate::api::common::ROLLOUT_LABEL;
use crate::api::rollout::IstioTraffic;
use crate::api::{ClusterVoiceAnalysisTemplate, VoiceAnalysisRun, VoiceAnalysisTemplate, VoiceRollout, VoiceRolloutAction};
use crate::metrics::Metrics;

/// Passes at the same time: no limit. [`reconcile`] has its own, so that a revert need not wait for other passes.
const CONCURRENCY: u16 = 0;

/// What the controller is started with.
pub struct Settings {
    /// The client.
    pub client: Client,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Name of this process in events.
    pub identity: String,
    /// The chart's admission policy vouches for `requestedBy`.
    pub actions_verified: bool,
    /// Becomes true when every cache is filled.
    pub ready: watch::Sender<bool>,
}

type Rollouts = Guarded<VoiceRollout>;
type Target = ObjectRef<Rollouts>;

/// The watches of one namespace, or of all.
struct Scope {
    rollouts: Changes<Rollouts>,
    reader: kube::runtime::reflector::Store<Rollouts>,
    replica_sets: Changes<ReplicaSet>,
    pods: Changes<kube::core::PartialObjectMeta<k8s_openapi::api::core::v1::Pod>>,
    services: Changes<k8s_openapi::api::core::v1::Service>,
    slices: Changes<EndpointSlice>,
    virtual_services: Changes<DynamicObject>,
    destination_rules: Changes<DynamicObject>,
    runs: Changes<Guarded<VoiceAnalysisRun>>,
    actions: Changes<Guarded<VoiceRolloutAction>>,
    templates: Changes<Guarded<VoiceAnalysisTemplate>>,
}

/// Runs the rollout controller until `stop`.
pub async fn run(settings: Settings, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let mut stores = Stores::new();
    let scopes: Vec<Option<String>> = match settings.namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let scopes: Vec<Scope> = scopes.iter().map(|n| open(&mut stores, &settings.client, n.as_deref())).collect();
    let all: Api<Guarded<ClusterVoiceAnalysisTemplate>> = Api::all(settings.client.clone());
    let mut cluster_templates = Some(fill(&mut stores.cluster_templates, all, watcher::Config::default(), trim::metadata));
    let reporter = Reporter { controller: "voicerollout".into(), instance: Some(settings.identity.clone()) };
    let context = Arc::new(Context {
        recorder: Recorder::new(settings.client.clone(), reporter),
        client: settings.client,
        stores,
        leadership: settings.leadership,
        clock: settings.clock,
        metrics: settings.metrics,
        actions_verified: settings.actions_verified,
        turns: Semaphore::new(TURNS),
        backoff: Backoff::new(),
        replaced: Mutex::new(HashMap::new()),
    });
    let stop = stop.shared();
    let ready = Arc::new(settings.ready);
    let announce = announce_ready(context.clone(), ready.clone());
    let controllers = scopes.into_iter().map(|scope| drive(scope, cluster_templates.take(), context.clone(), ready.clone(), stop.clone()));
    let controllers: Vec<_> = controllers.collect();
    tokio::join!(futures::future::join_all(controllers), async {
        tokio::select! {
            () = announce => {}
            () = stop.clone() => {}
        }
    });
}

async fn announce_ready(context: Arc<Context>, ready: Arc<watch::Sender<bool>>) {
    let mut minutes = tokio::time::interval(std::time::Duration::from_secs(60));
    minutes.tick().await;
    let filled = context.stores.ready();
    tokio::pin!(filled);
    loop {
        tokio::select! {
            () = &mut filled => break,
            _ = minutes.tick() => tracing::warn!("caches are not filled yet: are the CRDs of VoiceRollout and Istio installed, and may this ServiceAccount list them?"),
        }
    }
    ready.send_replace(true);
    tracing::info!("caches are filled");
}

fn open(stores: &mut Stores, client: &Client, namespace: Option<&str>) -> Scope {
    let any = watcher::Config::default;
    let ours = || watcher::Config::default().labels(ROLLOUT_LABEL);
    let istio = |resource: &kube::api::ApiResource| match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let rollouts = fill(&mut stores.rollouts, scoped(client, namespace), any(), trim::metadata);
    Scope {
        rollouts,
        reader: stores.rollouts.newest_part(),
        replica_sets: fill(&mut stores.replica_sets, scoped(client, namespace), ours(), trim::replica_set),
        pods: fill(&mut stores.pods, scoped(client, namespace), ours(), trim::pod),
        services: fill(&mut stores.services, scoped(client, namespace), any(), trim::service),
        slices: fill(&mut stores.slices, scoped(client, namespace), any(), trim::slice),
        virtual_services: watch_with(
            &mut stores.virtual_services,
            istio(&routes::virtual_service()),
            any(),
            trim::metadata,
            routes::virtual_service(),
        ),
        destination_rules: watch_with(
            &mut stores.destination_rules,
            istio(&routes::destination_rule()),
            any(),
            trim::metadata,
            routes::destination_rule(),
        ),
        runs: fill(&mut stores.runs, scoped(client, namespace), any(), trim::run),
        actions: fill(&mut stores.actions, scoped(client, namespace), any(), trim::metadata),
        templates: fill(&mut stores.templates, scoped(client, namespace), any(), trim::metadata),
    }
}

async fn drive(
    scope: Scope,
    cluster_templates: Option<Changes<Guarded<ClusterVoiceAnalysisTemplate>>>,
    context: Arc<Context>,
    ready: Arc<watch::Sender<bool>>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let find = |context: &Arc<Context>| Finder { context: context.clone() };
    let (a, b, c, d, e) = (find(&context), find(&context), find(&context), find(&context), find(&context));
    let f = find(&context);
    let gate = ready.subscribe();
    let mut controller = Controller::for_stream(scope.rollouts, scope.reader)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches_stream(scope.replica_sets, |o| labelled(&o))
        .watches_stream(scope.pods, |o| labelled(&o))
        .watches_stream(scope.runs, |o| o.0.ok().and_then(|r| target(r.namespace(), &r.spec.rollout)))
        .watches_stream(scope.actions, |o| o.0.ok().and_then(|r| target(r.namespace(), &r.spec.rollout)))
        .watches_stream(scope.services, move |o| a.by_service(o.namespace(), &o.name_any()))
        .watches_stream(scope.slices, move |o| b.by_service(o.namespace(), o.labels().get("kubernetes.io/service-name").map_or("", |v| v)))
        .watches_stream_with(scope.virtual_services, move |o| c.by_route(o.namespace(), &o.name_any()), routes::virtual_service())
        .watches_stream_with(scope.destination_rules, move |o| d.by_rule(o.namespace(), &o.name_any()), routes::destination_rule())
        .watches_stream(scope.templates, move |o| e.by_template(o.namespace(), &o.name_any()))
        .reconcile_all_on(becomes_true(ready.subscribe()))
        .reconcile_all_on(gains(&context.leadership))
        .graceful_shutdown_on(stop);
    if let Some(changes) = cluster_templates {
        controller = controller.watches_stream(changes, move |o| f.by_template(None, &o.name_any()));
    }
    let when_ready = move |object, context| {
        let filled = *gate.borrow();
        async move {
            // Decisions on half-filled caches would see Services and routes as missing.
            if filled { timed(object, context).await } else { Ok(kube::runtime::controller::Action::await_change()) }
        }
    };
    controller.run(when_ready, on_error, context).for_each(|_| std::future::ready(())).await;
}

async fn timed(object: Arc<Rollouts>, context: Arc<Context>) -> Result<kube::runtime::controller::Action, super::reconcile::Error> {
    let started = tokio::time::Instant::now();
    let metrics = context.metrics.clone();
    let result = reconcile(object, context).await;
    let outcome = match &result {
        Ok(_) => "ok",
        Err(error) if error.is_conflict() => "conflict",
        Err(_) => "error",
    };
    metrics.reconcile("rollout", outcome, started.elapsed());
    result
}

fn becomes_true(receiver: watch::Receiver<bool>) -> impl futures::Stream<Item = ()> + Send {
    stream::unfold(receiver, |mut r| async move {
        let up = loop {
            if r.changed().await.is_err() {
                break false;
            }
            if *r.borrow_and_update() {
                break true;
            }
        };
        if up { Some(((), r)) } else { std::future::pending().await }
    })
}

/// Fires when this process becomes the leader.
fn gains(leadership: &Leadership) -> impl futures::Stream<Item = ()> + Send + use<> {
    let receiver = leadership.changes();
    let led = receiver.borrow().is_some();
    stream::unfold((receiver, led), |(mut r, mut led)| async move {
        loop {
            if r.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let leads = r.borrow_and_update().is_some();
            let gained = leads && !led;
            led = leads;
            if gained {
                return Some(((), (r, led)));
            }
        }
    })
}

fn target(namespace: Option<String>, name: &str) -> Option<Target> {
    Some(ObjectRef::new(name).within(&namespace?))
}

fn labelled(object: &impl ResourceExt) -> Option<Target> {
    target(object.namespace(), object.labels().get(ROLLOUT_LABEL)?)
}

/// Finds the rollouts that refer to an object.
struct Finder {
    context: Arc<Context>,
}

impl Finder {
    fn by(&self, matches: impl Fn(&VoiceRollout) -> bool) -> Vec<Target> {
        let rollouts = self.context.stores.rollouts.all();
        rollouts.filter(|g| g.0.as_ref().is_ok_and(&matches)).filter_map(|g| target(g.namespace(), &g.name_any())).collect()
    }

    fn by_istio(&self, matches: impl Fn(&str, &IstioTraffic) -> bool) -> Vec<Target> {
        self.by(|r| r.spec.traffic.istio.as_ref().is_some_and(|i| matches(&r.namespace().unwrap_or_default(), i)))
    }

    fn by_service(&self, namespace: Option<String>, name: &str) -> Vec<Target> {
        let namespace = namespace.unwrap_or_default();
        self.by_istio(|home, i| {
            home == namespace && (i.stable_service.as_deref() == Some(name) || i.canary_service.as_deref() == Some(name))
        })
    }

    fn by_route(&self, namespace: Option<String>, name: &str) -> Vec<Target> {
        let namespace = namespace.unwrap_or_default();
        self.by_istio(|home, i| i.virtual_services.iter().any(|v| v.name == name && route_namespace(home, v) == namespace))
    }

    fn by_rule(&self, namespace: Option<String>, name: &str) -> Vec<Target> {
        let namespace = namespace.unwrap_or_default();
        self.by_istio(|home, i| home == namespace && i.destination_rule.as_ref().is_some_and(|d| d.name == name))
    }

    fn by_template(&self, namespace: Option<String>, name: &str) -> Vec<Target> {
        self.by(|r| {
            let home = namespace.is_none() || r.namespace() == namespace;
            home && named_templates(r).any(|t| t.name == name && t.cluster == namespace.is_none())
        })
    }
}
