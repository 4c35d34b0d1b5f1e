//! One test's voice agent: a namespace with Services, a route through the gateway, gates, and a VoiceRollout whose release
//! takes seconds.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use voicerollout::api::status::{Phase, VoiceRolloutStatus};
use voicerollout::api::{VoiceAnalysisRun, VoiceRollout};

use crate::env::{AGENT_IMAGE, JUDGE_KEY, World};
use crate::gates;
use crate::stack::{Error, HttpCaller, Namespace, Result, Seen, Traffic, istio, wait_for, wait_until};

/// Name of the VoiceRollout, of its VirtualService and of the label of its pods.
pub const NAME: &str = "agent";
/// Name of the http route that is managed.
pub const ROUTE: &str = "calls";
/// Longest time that anything a test awaits may take; generous, because machines are slow and tests run side by side.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A version of the sample agent: the tag of its image and what its environment makes of it.
#[derive(Debug, Clone)]
pub struct Version {
    tag: &'static str,
    env: Vec<(&'static str, String)>,
}

impl Version {
    /// A version with nothing wrong.
    pub fn good(tag: &'static str) -> Self {
        let env = [("AGENT_VERSION", tag), ("AGENT_FIRST_TOKEN_MS", "300"), ("AGENT_DRAIN_TIMEOUT_S", "2")];
        Self { tag, env: env.map(|(name, value)| (name, value.to_owned())).to_vec() }
    }

    /// A version that takes 1.5 s to the first token.
    pub fn slow(tag: &'static str) -> Self {
        Self::good(tag).with("AGENT_FIRST_TOKEN_MS", "1500")
    }

    /// A version that answers half of the eval cases wrong.
    pub fn failing_evals(tag: &'static str) -> Self {
        Self::good(tag).with("AGENT_EVAL_PASS_RATE", "0.5")
    }

    /// The same version with one variable set.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_owned()));
        self
    }

    fn container(&self) -> Value {
        let revision = json!({"fieldRef": {"fieldPath": "metadata.labels['voicerollout.dev/revision']"}});
        let mut env = vec![json!({"name": "AGENT_REVISION", "valueFrom": revision})];
        env.extend(self.env.iter().map(|(name, value)| json!({"name": name, "value": value})));
        json!({
            "name": "agent", "image": format!("{AGENT_IMAGE}:{}", self.tag), "env": env,
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        })
    }
}

/// The agent of one test.
pub struct Agent {
    /// Where everything runs.
    pub world: &'static World,
    /// The test's namespace.
    pub ns: Namespace,
    /// The VoiceRollout as it is applied next.
    pub manifest: Value,
}

impl Agent {
    /// A namespace with Services, the route and the gates, and two pods' worth of a VoiceRollout that is not applied yet.
    pub async fn new(world: &'static World, prefix: &str) -> Result<Self> {
        let ns = world.stack.namespace(prefix).await?;
        let manifest = rollout(NAME, "agent-stable", "agent-canary");
        let agent = Self { world, ns, manifest };
        agent.ns.apply(&service("agent-stable", json!({"app": NAME})).to_string()).await?;
        agent.ns.apply(&service("agent-canary", json!({"app": NAME})).to_string()).await?;
        agent.ns.apply(&agent.route().to_string()).await?;
        agent.ns.apply(&agent.eval_route().to_string()).await?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "judge", "labels": {"voicerollout.dev/use": "gates"}},
            "stringData": {"api-key": JUDGE_KEY},
        });
        agent.ns.apply(&secret.to_string()).await?;
        agent.gates(&[gates::evals(&agent), gates::first_token(&agent), gates::judge(&agent)]).await?;
        Ok(agent)
    }

    /// The VirtualService, with fields that the operator has no business with.
    pub fn route(&self) -> Value {
        let to = |host: &str, weight: u8| json!({"destination": {"host": host, "port": {"number": 80}}, "weight": weight});
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": NAME, "annotations": {"example.test/owner": "telephony"}},
            "spec": {"hosts": [self.ns.host()], "gateways": [istio::GATEWAY], "http": [
                {
                    "name": "status-page", "match": [{"uri": {"exact": "/status"}}],
                    "directResponse": {"status": 204},
                },
                {
                    "name": ROUTE,
                    "route": [to("agent-stable", 100), to("agent-canary", 0)],
                    "headers": {"request": {"set": {"x-telephony": "yes"}}},
                    "corsPolicy": {"allowOrigins": [{"exact": "https://example.test"}], "maxAge": "3600s"},
                },
            ]},
        })
    }

    /// A way for the eval harness to the canary Service: there is no cluster DNS, so it goes through the gateway by path.
    fn eval_route(&self) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "agent-evals"},
            "spec": {"hosts": [istio::GATEWAY_IP], "gateways": [istio::GATEWAY], "http": [{
                "match": [{"uri": {"prefix": format!("/evals-of-{}/", self.ns.name)}}],
                "rewrite": {"uri": "/"},
                "route": [{"destination": {"host": "agent-canary", "port": {"number": 80}}}],
            }]},
        })
    }

    /// Base URL at which the eval harness finds the canary.
    pub fn eval_target(&self) -> String {
        format!("http://{}/evals-of-{}", istio::gateway_addr(), self.ns.name)
    }

    /// The model name that this test's judge goes by; the stub answers each as it was told.
    pub fn model(&self) -> String {
        format!("model-of-{}", self.ns.name)
    }

    /// Replaces the gates of the template `canary`.
    pub async fn gates(&self, gates: &[Value]) -> Result<()> {
        let template = json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisTemplate",
            "metadata": {"name": "canary"}, "spec": {"gates": gates},
        });
        self.ns.apply(&template.to_string()).await.map(|_| ())
    }

    /// Applies the VoiceRollout with these steps and version `v1`, and waits until all calls can go there.
    pub async fn start(&mut self, steps: Value) -> Result<VoiceRolloutStatus> {
        self.start_as(&Version::good("v1"), steps).await
    }

    /// The same with another first version.
    pub async fn start_as(&mut self, version: &Version, steps: Value) -> Result<VoiceRolloutStatus> {
        self.manifest["spec"]["steps"] = steps;
        self.set_version(version);
        self.apply().await?;
        let status = self.phase(Phase::Healthy).await?;
        let caller = self.caller();
        wait_for("calls to be answered", PATIENCE, || async {
            let answers = caller.calls(5).await;
            Ok(if answers.failed.is_empty() { Seen::Yes(()) } else { Seen::NotYet(format!("{answers:?}")) })
        })
        .await?;
        Ok(status)
    }

    /// Writes a version into the manifest.
    pub fn set_version(&mut self, version: &Version) {
        self.manifest["spec"]["template"]["spec"]["containers"] = json!([version.container()]);
    }

    /// Applies the manifest, and waits until the operator has seen it.
    pub async fn apply(&self) -> Result<VoiceRolloutStatus> {
        let applied = self.ns.apply(&self.manifest.to_string()).await?;
        let generation = applied.first().and_then(|object| object.metadata.generation);
        self.wait("the operator to see the manifest", |status| status.observed_generation >= generation).await
    }

    /// Applies a new version; its revision hash.
    pub async fn release(&mut self, version: &Version) -> Result<String> {
        self.set_version(version);
        let status = self.apply().await?;
        status.canary_revision.ok_or_else(|| Error::other("the operator names no canary revision"))
    }

    /// The status now.
    pub async fn status(&self) -> Result<VoiceRolloutStatus> {
        Ok(self.ns.api::<VoiceRollout>().get(NAME).await?.status.unwrap_or_default())
    }

    /// Waits for a status.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&VoiceRolloutStatus) -> bool) -> Result<VoiceRolloutStatus> {
        wait_for(format!("{what} (namespace {})", self.ns.name), PATIENCE, || async {
            let status = self.status().await?;
            Ok(if wanted(&status) { Seen::Yes(status) } else { Seen::NotYet(described(&status)) })
        })
        .await
    }

    /// Waits for a phase.
    pub async fn phase(&self, phase: Phase) -> Result<VoiceRolloutStatus> {
        self.wait(&format!("phase {phase:?}"), |status| status.phase == phase).await
    }

    /// Waits until the release stands at a weight and waits for a person, or for a gate.
    pub async fn paused_at(&self, weight: i32) -> Result<VoiceRolloutStatus> {
        let what = format!("a pause at {weight} %");
        self.wait(&what, |status| status.phase == Phase::Paused && status.weights.applied == weight).await
    }

    /// Waits until a revision has been promoted.
    pub async fn promoted(&self, revision: &str) -> Result<VoiceRolloutStatus> {
        let stable = |status: &VoiceRolloutStatus| status.stable_revision.as_deref() == Some(revision);
        self.wait(&format!("{revision} to be stable"), |status| status.phase == Phase::Healthy && stable(status)).await
    }

    /// The VirtualService as it is.
    pub async fn virtual_service(&self) -> Result<Value> {
        let object = virtual_services(&self.ns, self.world).get(NAME).await?;
        serde_json::to_value(object).map_err(|error| Error::other(error.to_string()))
    }

    /// The canary weight in the VirtualService.
    pub async fn weight(&self) -> Result<i64> {
        Ok(canary_weight(&self.virtual_service().await?))
    }

    /// Somebody else's edit of the VirtualService.
    pub async fn edit_route(&self, patch: Value) -> Result<()> {
        let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|error| Error::other(error.to_string()))?;
        let params = PatchParams { field_manager: Some("somebody-else".into()), ..PatchParams::default() };
        virtual_services(&self.ns, self.world).patch(NAME, &params, &Patch::Json::<()>(patch)).await?;
        Ok(())
    }

    /// A caller of the agent.
    pub fn caller(&self) -> HttpCaller {
        self.ns.caller("/call")
    }

    /// Callers that call at a steady rate until the traffic is dropped.
    pub fn calls(&self, per_second: u32) -> Traffic {
        self.caller().traffic(per_second)
    }

    /// Waits until a revision answers all calls: proxies follow a change of weights within a second.
    pub async fn all_calls_go_to(&self, revision: &str) -> Result<()> {
        let caller = self.caller();
        wait_for(format!("all calls to go to {revision}"), PATIENCE, || async {
            let answers = caller.calls(30).await;
            Ok(if answers.of(revision) == 30 { Seen::Yes(()) } else { Seen::NotYet(format!("{answers:?}")) })
        })
        .await
    }

    /// The analysis runs of this test.
    pub async fn runs(&self) -> Result<Vec<VoiceAnalysisRun>> {
        Ok(self.ns.api::<VoiceAnalysisRun>().list(&Default::default()).await?.items)
    }

    /// Writes down every canary weight that the VirtualService has from now on, the present one first.
    pub async fn weight_log(&self) -> Result<WeightLog> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, api) = (seen.clone(), virtual_services(&self.ns, self.world));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let one = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
            let mut changes = watcher(api, one).default_backoff().applied_objects().boxed();
            while let Some(change) = changes.next().await {
                let Ok(Ok(object)) = change.map(serde_json::to_value) else { continue };
                let weight = canary_weight(&object);
                let mut log = log.lock();
                if log.last() != Some(&weight) {
                    log.push(weight);
                }
            }
        });
        wait_until("the watch of the VirtualService", PATIENCE, || async { !seen.lock().is_empty() }).await?;
        Ok(WeightLog { seen, _task: task })
    }
}

/// The canary weights that a VirtualService had, one after the other.
pub struct WeightLog {
    seen: Arc<Mutex<Vec<i64>>>,
    _task: JoinSet<()>,
}

impl WeightLog {
    /// The weights so far.
    pub fn so_far(&self) -> Vec<i64> {
        self.seen.lock().clone()
    }
}

/// A manifest of a VoiceRollout, without steps.
pub fn rollout(name: &str, stable: &str, canary: &str) -> Value {
    let annotations = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"terminationGracePeriodSeconds": 4, "containers": [Version::good("v1").container()]},
            },
            "traffic": {"istio": {
                "stableService": stable, "canaryService": canary, "propagationDelay": "1s",
                "virtualServices": [{"name": NAME, "routes": [ROUTE]}],
            }},
            "steps": [{"setWeight": 50}],
            "drain": {"maxDrain": "3s"}, "scaleDownDelay": "1s", "abortScaleDownDelay": "1s",
        },
    })
}

/// A Service on port 80.
pub fn service(name: &str, selector: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn virtual_services(ns: &Namespace, world: &World) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService"));
    Api::namespaced_with(world.stack.client(), &ns.name, &kind)
}

/// The weight of the second destination of the managed route.
pub fn canary_weight(virtual_service: &Value) -> i64 {
    let routes = virtual_service["spec"]["http"].as_array();
    let managed = routes.and_then(|all| all.iter().find(|one| one["name"] == ROUTE));
    managed.and_then(|route| route["route"][1]["weight"].as_i64()).unwrap_or(0)
}

/// A status in a few lines, for messages.
pub fn described(status: &VoiceRolloutStatus) -> String {
    let gates: Vec<String> = status.gates.iter().map(|g| format!("{}: {:?} {:?} {}", g.name, g.verdict, g.value, g.message)).collect();
    let last = status.decisions.last().map(|d| format!("{}: {}", d.decision, d.reason));
    format!(
        "{:?} step {} weights {:?}; {}\n    gates {gates:?}\n    last decision {last:?}\n    revisions {:?}",
        status.phase,
        status.step_display,
        status.weights,
        status.message,
        status.revisions.iter().map(|r| format!("{} {:?} {}/{}", r.hash, r.role, r.ready, r.replicas)).collect::<Vec<_>>(),
    )
}
