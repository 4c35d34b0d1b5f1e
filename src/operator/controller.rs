//! Wiring of the rollout controller: watches, triggers, caches. The only file that names kube's unstable streams.

use std::collections::HashMap;
use std::sync::Arc;

use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::backoff::Backoff;
use super::cache::{Cache, Change, Id, Kept, fill};
use super::clock::Clock;
use super::kept::{
    ActionKept, AutoscalerKept, BudgetKept, IstioKept, PodKept, ROUTE, RULE, RunKept, SERVICE, ServiceKept, SetKept, SliceKept, TEMPLATE,
    TemplateKept,
};
use super::leadership::Leadership;
use super::live::{LiveCalls, Poller};
use super::memory::Memory;
use super::notify::{Notices, Teller};
use super::reconcile::{Context, TURNS, on_error, reconcile};
use super::routes;
use super::stores::{Guarded, Onlooker, RolloutChanges, Stores, Target, scoped, target};
use super::urgency::{Urgency, Waiting};
use crate::api::common::ROLLOUT_LABEL;
use crate::api::{ClusterVoiceAnalysisTemplate, VoiceRollout};
use crate::core::notify::Defaults;
use crate::metrics::Metrics;
use crate::notify::Messenger;
use crate::sources::calls::CallCounter;
use crate::telemetry::Tracer;

/// Passes at the same time: no limit. [`reconcile`] has its own, so that a revert need not wait for other passes.
const CONCURRENCY: u16 = 0;

/// What the controller is started with.
pub struct Settings {
    /// The client.
    pub client: Client,
    /// Namespaces to watch; `None`: all.
    pub scopes: Vec<Option<String>>,
    /// Analysis runs.
    pub runs: Cache<RunKept>,
    /// Rollouts whose runs have changed, a stream for each scope.
    pub run_changes: Vec<UnboundedReceiver<Target>>,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Takes what traces show.
    pub tracer: Tracer,
    /// Name of this process in events.
    pub identity: String,
    /// The chart's admission policy vouches for `requestedBy`.
    pub actions_verified: bool,
    /// Counts live calls.
    pub calls: Arc<dyn CallCounter>,
    /// Sends messages.
    pub messenger: Arc<Messenger>,
    /// Notifications of every rollout.
    pub notifications: Defaults,
    /// Becomes true when every cache is filled.
    pub ready: watch::Sender<bool>,
    /// Who hears what the watches bring, one for each scope; or nobody.
    pub onlookers: Vec<Arc<dyn Onlooker>>,
}

type Rollouts = Guarded<VoiceRollout>;

/// The watches of one namespace, or of all.
struct Scope {
    rollouts: RolloutChanges,
    reader: Store<Rollouts>,
    /// Changes of what belongs to a rollout, as the rollout to look at.
    related: Vec<BoxStream<'static, Target>>,
    /// Changes of what rollouts name.
    named: Vec<BoxStream<'static, Named>>,
}

/// An object that rollouts may name has changed.
struct Named {
    kind: &'static str,
    id: Id,
}

/// Runs the rollout controller until `stop`.
pub async fn run(settings: Settings, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let mut stores = Stores { runs: settings.runs, ..Stores::default() };
    let live = LiveCalls::default();
    let notices = Arc::new(Notices::new(settings.notifications));
    let mut scopes: Vec<Scope> = Vec::new();
    for (at, namespace) in settings.scopes.iter().enumerate() {
        let onlooker = settings.onlookers.get(at).cloned();
        scopes.push(open(&mut stores, &live, &notices, &settings.client, namespace.as_deref(), onlooker));
    }
    for (scope, changes) in scopes.iter_mut().zip(settings.run_changes) {
        scope.related.push(changes.boxed());
    }
    let (mut read, mut told) = (Vec::new(), Vec::new());
    for (scope, namespace) in scopes.iter_mut().zip(&settings.scopes) {
        let (changed, changes) = unbounded();
        scope.related.push(changes.boxed());
        read.push((namespace.clone(), changed.clone()));
        told.push((namespace.clone(), changed));
    }
    let all: Api<Guarded<ClusterVoiceAnalysisTemplate>> = Api::all(settings.client.clone());
    let changes = fill(&mut stores.cluster_templates, all, watcher::Config::default(), TemplateKept::keep_cluster);
    if let Some(scope) = scopes.first_mut() {
        scope.named.push(named(TEMPLATE, changes));
    }
    let reporter = Reporter { controller: "voicerollout".into(), instance: Some(settings.identity.clone()) };
    let stores = Arc::new(stores);
    let poller = Poller {
        stores: stores.clone(),
        live: live.clone(),
        counter: settings.calls,
        leadership: settings.leadership.clone(),
        clock: settings.clock.clone(),
        metrics: settings.metrics.clone(),
        changed: read,
    };
    let recorder = Recorder::new(settings.client.clone(), reporter);
    let teller = Teller {
        client: settings.client.clone(),
        stores: stores.clone(),
        notices: notices.clone(),
        messenger: settings.messenger,
        leadership: settings.leadership.clone(),
        clock: settings.clock.clone(),
        metrics: settings.metrics.clone(),
        recorder: recorder.clone(),
        changed: told,
    };
    let context = Arc::new(Context {
        recorder,
        client: settings.client,
        stores,
        live,
        leadership: settings.leadership,
        clock: settings.clock,
        metrics: settings.metrics,
        tracer: settings.tracer,
        actions_verified: settings.actions_verified,
        turns: Semaphore::new(TURNS),
        urgency: Urgency::default(),
        waiting: Waiting::default(),
        backoff: Backoff::new(),
        memory: Memory::default(),
        notices,
        replaced: Mutex::new(HashMap::new()),
    });
    let stop = stop.shared();
    let ready = Arc::new(settings.ready);
    let announce = announce_ready(context.clone(), ready.clone());
    let controllers = scopes.into_iter().map(|scope| drive(scope, context.clone(), ready.clone(), stop.clone()));
    tokio::join!(
        futures::future::join_all(controllers),
        async {
            tokio::select! {
                () = announce => {}
                () = stop.clone() => {}
            }
        },
        async {
            tokio::select! {
                () = poller.run() => {}
                () = stop.clone() => {}
            }
        },
        async {
            let mut filled = ready.subscribe();
            let is_filled = tokio::select! {
                filled = filled.wait_for(|filled| *filled) => filled.is_ok(),
                () = stop.clone() => false,
            };
            if is_filled {
                teller.run(stop.clone()).await;
            }
        }
    );
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

fn open(
    stores: &mut Stores,
    live: &LiveCalls,
    notices: &Arc<Notices>,
    client: &Client,
    namespace: Option<&str>,
    onlooker: Option<Arc<dyn Onlooker>>,
) -> Scope {
    let any = watcher::Config::default;
    let ours = || watcher::Config::default().labels(ROLLOUT_LABEL);
    let istio = |resource: &kube::api::ApiResource| match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let (rollouts, reader) = stores.rollouts.watch(scoped(client, namespace), onlooker);
    let notices = notices.clone();
    // After the cache has the change.
    let rollouts = rollouts
        .inspect(move |rollout| {
            if let Ok(rollout) = rollout {
                notices.touch(&rollout.namespace().unwrap_or_default(), &rollout.name_any());
            }
        })
        .boxed();
    let sets = fill(&mut stores.replica_sets, scoped(client, namespace), ours(), SetKept::keep);
    let pods = fill(&mut stores.pods, scoped(client, namespace), ours(), PodKept::keep);
    let live = live.clone();
    let pods = pods.inspect(move |change| live.look(change)).boxed();
    let budgets = fill(&mut stores.budgets, scoped(client, namespace), any(), BudgetKept::keep);
    let autoscalers = fill(&mut stores.autoscalers, scoped(client, namespace), any(), AutoscalerKept::keep);
    let actions = fill(&mut stores.actions, scoped(client, namespace), any(), ActionKept::keep);
    let services = fill(&mut stores.services, scoped(client, namespace), any(), ServiceKept::keep);
    let slices = fill(&mut stores.slices, scoped(client, namespace), any(), SliceKept::keep);
    let routes = fill(&mut stores.virtual_services, istio(&routes::virtual_service()), any(), IstioKept::virtual_service);
    let rules = fill(&mut stores.destination_rules, istio(&routes::destination_rule()), any(), IstioKept::destination_rule);
    let templates = fill(&mut stores.templates, scoped(client, namespace), any(), TemplateKept::keep);
    let service_of = |c: Change<SliceKept>| c.object.service.as_deref().map(|s| Named { kind: SERVICE, id: Id::new(&c.id.namespace, s) });
    Scope {
        rollouts,
        reader,
        related: vec![
            related(sets, |set| set.rollout.as_deref()),
            related(pods, |pod| pod.rollout.as_deref()),
            related(budgets, |budget| budget.rollout.as_deref()),
            related(autoscalers, |scaler| scaler.rollout.as_deref()),
            related(actions, |action| action.rollout.as_deref()),
        ],
        named: vec![
            named(SERVICE, services),
            slices.filter_map(move |c| std::future::ready(service_of(c))).boxed(),
            named(ROUTE, routes),
            named(RULE, rules),
            named(TEMPLATE, templates),
        ],
    }
}

fn related<T: Kept>(changes: BoxStream<'static, Change<T>>, rollout: fn(&T) -> Option<&str>) -> BoxStream<'static, Target> {
    let found = move |c: Change<T>| rollout(&c.object).and_then(|name| target(&c.id.namespace, name));
    changes.filter_map(move |c| std::future::ready(found(c))).boxed()
}

fn named<T: Kept>(kind: &'static str, changes: BoxStream<'static, Change<T>>) -> BoxStream<'static, Named> {
    changes.map(move |c| Named { kind, id: c.id }).boxed()
}

async fn drive(
    scope: Scope,
    context: Arc<Context>,
    ready: Arc<watch::Sender<bool>>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let gate = ready.subscribe();
    let filled = ready.subscribe();
    let finder = context.clone();
    let by_name = stream::select_all(scope.named).flat_map(move |changed| {
        let rollouts = finder.stores.rollouts.naming(changed.kind, &changed.id.namespace, &changed.id.name);
        stream::iter(rollouts.into_iter().filter_map(|id| target(&id.namespace, &id.name)))
    });
    let toucher = context.clone();
    let related = stream::select_all(scope.related)
        .inspect(move |target| toucher.waiting.touch(target.namespace.as_deref().unwrap_or_default(), &target.name));
    let controller = Controller::for_stream(scope.rollouts, scope.reader)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(related)
        .reconcile_on(by_name)
        .reconcile_all_on(becomes_true(ready.subscribe()))
        .reconcile_all_on(gains(&context.leadership))
        .graceful_shutdown_on(stop.clone());
    let when_ready = move |object, context| {
        let filled = *gate.borrow();
        async move {
            // Decisions on half-filled caches would see Services and routes as missing.
            if filled { timed(object, context).await } else { Ok(kube::runtime::controller::Action::await_change()) }
        }
    };
    let work = controller.run(when_ready, on_error, context).for_each(|_| std::future::ready(()));
    // One that is stopped before its first list has come would wait for it; and without it there are no passes to finish.
    let unready = async {
        stop.await;
        if *filled.borrow() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = work => {}
        () = unready => {}
    }
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

fn becomes_true(receiver: watch::Receiver<bool>) -> impl Stream<Item = ()> + Send {
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
fn gains(leadership: &Leadership) -> impl Stream<Item = ()> + Send + use<> {
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
