//! Many agents, as in the example of this project: two Services, a route and a VoiceRollout each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use voicerollout::api::VoiceRollout;
use voicerollout::api::status::{Phase, VoiceRolloutStatus};

use crate::plane::Plane;
use crate::stack::{Error, Result, Seen, wait_for};

/// Longest time that a fleet may take to get where it is awaited.
const PATIENCE: Duration = Duration::from_secs(400);
/// Requests of this program at the same time.
const CONCURRENCY: usize = 8;

/// Agents in one namespace.
pub struct Fleet {
    /// Their namespace.
    pub namespace: String,
    /// Their names; Services and routes are named after them.
    pub names: Vec<String>,
    client: Client,
}

impl Fleet {
    /// Makes a namespace and `count` agents with one pod each; `steps` and `analysis` say how the `i`th is released.
    pub async fn create(plane: &Plane, namespace: &str, count: usize, release: impl Fn(usize) -> Value) -> Result<Self> {
        plane.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})]).await?;
        let names: Vec<String> = (0..count).map(|i| format!("agent-{i}")).collect();
        let agents = names.iter().enumerate().map(|(i, name)| manifests(namespace, name, release(i)));
        stream::iter(agents).map(Ok).try_for_each_concurrent(CONCURRENCY, |all| async move { plane.apply(&all).await }).await?;
        Ok(Self { namespace: namespace.into(), names, client: plane.client.clone() })
    }

    /// Sets the image of every agent: a new version.
    pub async fn set_image(&self, image: &str) -> Result<()> {
        let patch = Patch::Json::<()>(
            serde_json::from_value(json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]))
                .map_err(|error| Error::other(error.to_string()))?,
        );
        let (api, params) = (self.api(), PatchParams::default());
        let patches = self.names.iter().map(|name| (name, &api, &params, &patch));
        let sent = stream::iter(patches).map(Ok::<_, Error>);
        sent.try_for_each_concurrent(CONCURRENCY, |(name, api, params, patch)| async move {
            api.patch(name, params, patch).await?;
            Ok(())
        })
        .await
    }

    /// Waits until `done` holds for the status of every agent.
    pub async fn wait(&self, what: &str, done: impl Fn(&VoiceRolloutStatus) -> bool) -> Result<()> {
        let api = self.api();
        wait_for(format!("{} agents to be {what}", self.names.len()), PATIENCE, || async {
            tokio::time::sleep(Duration::from_millis(500)).await; // a list of all is work for the API server
            let all = api.list(&ListParams::default()).await?.items;
            if let Some(wrong) = all.iter().find(|r| r.status.as_ref().is_some_and(|s| s.phase == Phase::Invalid)) {
                return Ok(Seen::Yes(Err(Error::other(format!("{}: {:?}", wrong.name_any(), wrong.status)))));
            }
            let open: Vec<&VoiceRollout> = all.iter().filter(|r| !r.status.as_ref().is_some_and(&done)).collect();
            Ok(match open.first() {
                None => Seen::Yes(Ok(())),
                Some(one) => Seen::NotYet(format!("{} are not, such as {}: {:?}", open.len(), one.name_any(), one.status)),
            })
        })
        .await?
    }

    /// Waits until every agent's newest version is the stable one, with the pods of the older one gone.
    pub async fn wait_healthy(&self) -> Result<()> {
        let alone = |s: &VoiceRolloutStatus| s.revisions.iter().all(|r| r.replicas == 0 || Some(&r.hash) == s.stable_revision.as_ref());
        self.wait("Healthy", |s| s.phase == Phase::Healthy && alone(s)).await
    }

    fn api(&self) -> Api<VoiceRollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The canary weights of a namespace's routes, kept up to date by one watch.
#[derive(Clone, Default)]
pub struct Weights {
    canary: Arc<Mutex<HashMap<String, i64>>>,
    changed: Arc<Notify>,
}

impl Weights {
    /// Starts the watch.
    pub fn follow(client: &Client, namespace: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService"));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let weights = Self::default();
        let (canary, changed) = (weights.canary.clone(), weights.changed.clone());
        tokio::spawn(watcher(api, watcher::Config::default()).default_backoff().applied_objects().for_each(move |object| {
            if let Ok(object) = object {
                let weight = object.data.pointer("/spec/http/0/route/1/weight").and_then(Value::as_i64).unwrap_or(0);
                canary.lock().insert(object.name_any(), weight);
                changed.notify_waiters();
            }
            std::future::ready(())
        }));
        weights
    }

    /// Waits until the canaries of `names` get no calls.
    pub async fn wait_zero(&self, names: &[String]) -> Result<()> {
        let done = async {
            loop {
                let changed = self.changed.notified();
                if names.iter().all(|name| self.canary.lock().get(name) == Some(&0)) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.map_err(|_| Error::other("some canaries still get calls"))
    }
}

/// One agent.
fn manifests(namespace: &str, name: &str, release: Value) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let service = |suffix: &str| {
        // Without an address: those of a test cluster do not suffice for many.
        let spec = json!({"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(&format!("{name}-{suffix}")), "spec": spec})
    };
    let to =
        |suffix: &str, weight: u8| json!({"destination": {"host": format!("{name}-{suffix}"), "port": {"number": 8080}}, "weight": weight});
    let route = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(name),
        "spec": {
            "hosts": [format!("{name}.example.com")], "gateways": ["voice-gateway"],
            "http": [{"name": "primary", "route": [to("stable", 100), to("canary", 0)]}],
        },
    });
    let mut spec = json!({
        "replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod()},
        "drain": {"maxDrain": "2s"}, "scaleDownDelay": "1s", "abortScaleDownDelay": "1s",
        "traffic": {"istio": {
            "stableService": format!("{name}-stable"), "canaryService": format!("{name}-canary"),
            "virtualServices": [{"name": name, "routes": ["primary"]}], "propagationDelay": "1s",
        }},
    });
    if let (Value::Object(spec), Value::Object(release)) = (&mut spec, release) {
        spec.extend(release);
    }
    let rollout = json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": meta(name), "spec": spec});
    vec![service("stable"), service("canary"), route, rollout]
}

fn pod() -> Value {
    let revision = json!({"fieldRef": {"fieldPath": "metadata.labels['voicerollout.dev/revision']"}});
    let env = ["MODEL", "PROMPT_VERSION", "TOOL_SCHEMA", "REGION", "TELEPHONY_URL"]
        .map(|name| json!({"name": name, "value": format!("{name} of this version")}));
    let env: Vec<Value> = [json!({"name": "AGENT_REVISION", "valueFrom": revision})].into_iter().chain(env).collect();
    json!({
        "terminationGracePeriodSeconds": 3600,
        "containers": [{
            "name": "agent", "image": "registry.test/voice-agent:v1", "env": env,
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
        }],
    })
}
