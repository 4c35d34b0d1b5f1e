//! The operator on the simulated API server, for tests in virtual time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use voicerollout::api::action::VoiceRolloutActionStatus;
use voicerollout::api::status::Phase;
use voicerollout::api::{VoiceRollout, VoiceRolloutAction, VoiceRolloutStatus};
use voicerollout::core::notify::Defaults;
use voicerollout::metrics::Metrics;
use voicerollout::notify::Messenger;
use voicerollout::operator::analysis::secrets::KubeSecrets;
use voicerollout::operator::clock::Clock;
use voicerollout::operator::lease::LeaseConfig;
use voicerollout::operator::process::Operator;
use voicerollout::sim::SimServer;
use voicerollout::sim::world::{Callers, World, WorldConfig};
use voicerollout::sources::calls::CallCounter;
use voicerollout::sources::secrets::SecretReader;
use voicerollout::sources::{Source, SourceError};
use voicerollout::telemetry::{Batch, Tracer};

pub mod calls;
pub mod gauges;
pub mod kill;
pub mod mailbox;
pub mod replicas;
pub mod script;
use gauges::Gauges;
use mailbox::Mailbox;
use script::Script;

/// A small agent with its Services and route; steps without gates.
pub const AGENT: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: agent-stable, namespace: voice}
spec: {selector: {app: agent}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: agent-canary, namespace: voice}
spec: {selector: {app: agent}, ports: [{port: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: agent, namespace: voice}
spec:
  hosts: [agent.example.com]
  http:
    - name: primary
      timeout: 0s
      route:
        - destination: {host: agent-stable}
          weight: 100
        - destination: {host: agent-canary}
          weight: 0
---
apiVersion: voicerollout.dev/v1alpha1
kind: VoiceRollout
metadata: {name: agent, namespace: voice}
spec:
  replicas: 4
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers: [{name: agent, image: "agent:v1"}]
  traffic:
    istio:
      stableService: agent-stable
      canaryService: agent-canary
      virtualServices: [{name: agent, routes: [primary]}]
  steps:
    - setWeight: 25
    - pause: {duration: 1m}
    - setWeight: 50
    - pause: {duration: 1m}
"#;

/// Gates of the article's agent, on the steps of [`AGENT`].
pub const GATES: &str = r#"
apiVersion: voicerollout.dev/v1alpha1
kind: VoiceAnalysisTemplate
metadata: {name: voice-canary, namespace: voice}
spec:
  gates:
    - name: eval-pass-rate
      threshold:
        successCondition: "result[0] >= 0.92"
        provider:
          web: {url: "https://evals.internal/api/run?suite=voice&version={{args.canary-hash}}", jsonPath: "{$.passRate}"}
    - name: p95-first-token
      threshold:
        successCondition: "result[0] <= 800"
        provider:
          prometheus:
            address: http://prometheus.monitoring:9090
            query: histogram_quantile(0.95, sum by (le) (rate(voice_first_token_ms_bucket{revision="{{args.canary-hash}}"}[1m])))
    - name: ai-judge
      judge:
        anthropic: {model: claude-haiku-5-5}
        prompt: Compare canary and stable.
---
apiVersion: v1
kind: Service
metadata: {name: agent-stable, namespace: voice}
spec: {selector: {app: agent}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: agent-canary, namespace: voice}
spec: {selector: {app: agent}, ports: [{port: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: agent, namespace: voice}
spec:
  hosts: [agent.example.com]
  http:
    - name: primary
      route:
        - {destination: {host: agent-stable}, weight: 100}
        - {destination: {host: agent-canary}, weight: 0}
---
apiVersion: voicerollout.dev/v1alpha1
kind: VoiceRollout
metadata: {name: agent, namespace: voice}
spec:
  replicas: 4
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers: [{name: agent, image: "agent:v1"}]
  traffic:
    istio:
      stableService: agent-stable
      canaryService: agent-canary
      virtualServices: [{name: agent, routes: [primary]}]
  steps:
    - setWeight: 5
    - pause: {duration: 5m}
    - analysis: {templates: [{name: voice-canary}]}
    - setWeight: 25
    - pause: {duration: 10m}
    - analysis: {templates: [{name: voice-canary}]}
    - setWeight: 50
    - pause: {duration: 15m}
    - analysis: {templates: [{name: voice-canary}]}
    - setWeight: 100
"#;

/// A cluster with callers, where the first version of [`GATES`] is stable.
pub async fn deployed(script: &Script) -> Cluster {
    deployed_from(script, GATES).await
}

/// The same with other manifests of the same agent.
pub async fn deployed_from(script: &Script, manifests: &str) -> Cluster {
    let config = WorldConfig { callers: Some(Callers::default()), ..WorldConfig::default() };
    let cluster = Cluster::start_with(script, config).await;
    cluster.apply(manifests).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    cluster
}

/// Longest virtual time that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

struct NoSecrets;

impl SecretReader for NoSecrets {
    fn read<'a>(
        &'a self,
        _: &'a str,
        s: &'a voicerollout::api::common::SecretKeyRef,
    ) -> futures::future::BoxFuture<'a, Result<String, SourceError>> {
        Box::pin(async move { Err(SourceError::new(format!("no Secret {}", s.name))) })
    }
}

/// A running cluster with the operator.
pub struct Cluster {
    pub server: SimServer,
    pub world: World,
    pub clock: Clock,
    pub client: Client,
    /// Figures of the operator that runs.
    pub metrics: Arc<Metrics>,
    /// Gauges of live calls of the pods.
    pub gauges: Arc<Gauges>,
    /// Receives messages, whatever their address.
    pub mail: Arc<Mailbox>,
    /// Notifications of every rollout; the next operator that is started has them.
    pub notifications: Defaults,
    /// What traces show, of every operator.
    pub spans: Mutex<mpsc::Receiver<Batch>>,
    tracer: Tracer,
    sources: Arc<dyn Source>,
    stop: watch::Sender<bool>,
    operator: JoinHandle<()>,
}

impl Cluster {
    /// Starts everything; the operator's caches are filled.
    pub async fn start() -> Self {
        Self::start_with(&Script::good(), WorldConfig::default()).await
    }

    /// Starts everything with a provider and a world.
    pub async fn start_with(script: &Script, config: WorldConfig) -> Self {
        let script = Arc::new(script.clone());
        Self::start_on(config, |_, _, _| script).await
    }

    /// Starts everything with a provider that may look at the server and the world.
    pub async fn start_on<S: Source + 'static>(config: WorldConfig, sources: impl FnOnce(&SimServer, &World, &Clock) -> Arc<S>) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().expect("a time"));
        let server = SimServer::new(clock.clone());
        for name in ["voice", "voicerollout"] {
            server.seed(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).expect("a namespace");
        }
        let world = World::start(server.clone(), clock.clone(), config).await;
        let client = server.client_as("tester");
        let sources: Arc<dyn Source> = sources(&server, &world, &clock);
        let (gauges, metrics) = (Arc::new(Gauges::of(world.call_book())), Arc::new(Metrics::new()));
        let (mail, notifications) = (Arc::new(Mailbox::default()), Defaults::default());
        let (tracer, spans) = Tracer::new();
        let told = (mail.clone(), notifications.clone(), tracer.clone());
        let alone = ("operator", None);
        let (stop, operator) = Self::operator(&server, &clock, alone, sources.clone(), gauges.clone(), metrics.clone(), told).await;
        Self {
            server,
            world,
            clock,
            client,
            metrics,
            gauges,
            mail,
            notifications,
            spans: Mutex::new(spans),
            tracer,
            sources,
            stop,
            operator,
        }
    }

    /// Starts an operator and waits until its caches are filled.
    async fn operator(
        server: &SimServer,
        clock: &Clock,
        who: (&str, Option<LeaseConfig>),
        sources: Arc<dyn Source>,
        calls: Arc<dyn CallCounter>,
        metrics: Arc<Metrics>,
        told: (Arc<Mailbox>, Defaults, Tracer),
    ) -> (watch::Sender<bool>, JoinHandle<()>) {
        let (stop, task, mut is_ready) = Self::spawn(server, clock, who, sources, calls, metrics, told);
        is_ready.wait_for(|r| *r).await.expect("the operator starts");
        (stop, task)
    }

    /// Starts an operator.
    fn spawn(
        server: &SimServer,
        clock: &Clock,
        (user, lease): (&str, Option<LeaseConfig>),
        sources: Arc<dyn Source>,
        calls: Arc<dyn CallCounter>,
        metrics: Arc<Metrics>,
        (mail, notifications, tracer): (Arc<Mailbox>, Defaults, Tracer),
    ) -> (watch::Sender<bool>, JoinHandle<()>, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = watch::channel(false);
        let operator = Operator {
            client: server.client_as(user),
            clock: clock.clone(),
            namespaces: Vec::new(),
            own_namespace: "voicerollout".into(),
            identity: format!("{user}-0"),
            lease,
            sources,
            calls,
            secrets: Arc::new(NoSecrets),
            messenger: Arc::new(Messenger::new(
                mail,
                Arc::new(KubeSecrets::of_notifications(server.client_as("operator"))),
                "voicerollout",
            )),
            notifications,
            metrics,
            tracer,
            actions_verified: true,
            ready,
            onlookers: Vec::new(),
        };
        (stop, tokio::spawn(operator.run(stopped)), is_ready)
    }

    /// Applies manifests, server-side.
    pub async fn apply(&self, manifests: &str) {
        for document in serde_yaml::Deserializer::from_str(manifests) {
            let object: DynamicObject = serde::Deserialize::deserialize(document).expect("a manifest");
            let types = object.types.clone().expect("apiVersion and kind");
            let gvk = GroupVersionKind::try_from(&types).expect("a kind");
            let resource = ApiResource::from_gvk(&gvk);
            let api: Api<DynamicObject> = match object.namespace() {
                Some(ns) => Api::namespaced_with(self.client.clone(), &ns, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            api.patch(&object.name_any(), &PatchParams::apply("tester").force(), &Patch::Apply(&object)).await.expect("applied");
        }
    }

    /// Changes the image of a rollout's first container.
    pub async fn set_image(&self, name: &str, image: &str) {
        let path = "/spec/template/spec/containers/0/image";
        self.edit(name, json!([{"op": "replace", "path": path, "value": image}])).await;
    }

    /// Edits a rollout by a JSON patch.
    pub async fn edit(&self, name: &str, patch: serde_json::Value) {
        let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
        self.rollouts().patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await.expect("patched");
    }

    /// Edits a VirtualService as somebody else would.
    pub async fn patch_route(&self, name: &str, patch: serde_json::Value) {
        let resource = voicerollout::operator::routes::virtual_service();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), "voice", &resource);
        let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
        api.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await.expect("patched");
    }

    /// Rollouts of the test's namespace.
    pub fn rollouts(&self) -> Api<VoiceRollout> {
        Api::namespaced(self.client.clone(), "voice")
    }

    /// Status of a rollout now.
    pub async fn status(&self, name: &str) -> VoiceRolloutStatus {
        self.rollouts().get_opt(name).await.expect("readable").and_then(|r| r.status).unwrap_or_default()
    }

    /// Waits until the status fulfils `done`.
    pub async fn wait(&self, name: &str, what: &str, done: impl Fn(&VoiceRolloutStatus) -> bool) -> VoiceRolloutStatus {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut stream = watcher(self.rollouts(), config).default_backoff().applied_objects().boxed();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let rollout = stream.next().await.expect("no end").expect("a watch");
                let status = rollout.status.unwrap_or_default();
                if done(&status) {
                    return status;
                }
            }
        });
        match found.await {
            Ok(status) => status,
            Err(_) => panic!("{name} is not {what}: {:#?}", self.status(name).await),
        }
    }

    /// Waits for a phase.
    pub async fn wait_phase(&self, name: &str, phase: Phase) -> VoiceRolloutStatus {
        self.wait(name, &format!("{phase:?}"), |s| s.phase == phase).await
    }

    /// Makes an action.
    pub async fn act(&self, rollout: &str, verb: &str) -> String {
        let status = self.status(rollout).await;
        let action = json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction",
            "metadata": {"generateName": format!("{rollout}-")},
            "spec": {"rollout": rollout, "revision": status.canary_revision, "verb": verb, "requestedBy": "ada"}
        });
        let api: Api<VoiceRolloutAction> = Api::namespaced(self.client.clone(), "voice");
        let action = serde_json::from_value(action).expect("an action");
        api.create(&PostParams::default(), &action).await.expect("created").name_any()
    }

    /// What became of an action so far.
    pub async fn action(&self, name: &str) -> VoiceRolloutActionStatus {
        let api: Api<VoiceRolloutAction> = Api::namespaced(self.client.clone(), "voice");
        api.get(name).await.expect("an action").status.unwrap_or_default()
    }

    /// What became of an action in the end.
    pub async fn wait_action(&self, name: &str) -> VoiceRolloutActionStatus {
        let api: Api<VoiceRolloutAction> = Api::namespaced(self.client.clone(), "voice");
        let marked = |a: Option<&VoiceRolloutAction>| a.and_then(|a| a.status.as_ref()).is_some_and(|s| s.state.is_some());
        let done = tokio::time::timeout(PATIENCE, await_condition(api, name, marked)).await;
        done.expect("marked in time").expect("a watch").and_then(|a| a.status).unwrap_or_default()
    }

    /// Ends the operator as a SIGKILL would.
    pub async fn kill_operator(&mut self) {
        self.operator.abort();
        let _ = (&mut self.operator).await;
    }

    /// Ends the operator as a SIGKILL would, and starts another.
    pub async fn restart_operator(&mut self) {
        self.operator.abort();
        let _ = (&mut self.operator).await;
        self.start_operator().await;
    }

    /// Starts another operator in the place of one that has ended.
    pub async fn start_operator(&mut self) {
        self.metrics = Arc::new(Metrics::new());
        let told = (self.mail.clone(), self.notifications.clone(), self.tracer.clone());
        (self.stop, self.operator) = Self::operator(
            &self.server,
            &self.clock,
            ("operator", None),
            self.sources.clone(),
            self.gauges.clone(),
            self.metrics.clone(),
            told,
        )
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.operator.abort();
    }
}
