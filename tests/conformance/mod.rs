//! What the operator relies on in an API server, as cases that run against the simulated one and a real one alike.
//!
//! Each case uses names of its own in one namespace that exists and is otherwise empty.
#![allow(dead_code)] // two test targets use different parts

mod objects;
mod patches;
mod schemas;
mod watches;

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{Client, Resource};
use serde_json::{Value, json};
use voicerollout::api::{VoiceRollout, VoiceRolloutAction};

/// What a case found.
pub type Outcome = Result<(), String>;

/// Runs every case; the names say what holds.
pub async fn run_all(client: Client, namespace: &str) -> Vec<(&'static str, Outcome)> {
    let env = Env { client, namespace: namespace.to_owned() };
    let mut results = objects::run(&env).await;
    results.extend(patches::run(&env).await);
    results.extend(schemas::run(&env).await);
    results.extend(watches::run(&env).await);
    results
}

/// Runs the named cases of a module one after the other.
#[macro_export]
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// Runs the cases of this file.
        pub async fn run(env: &super::Env) -> Vec<(&'static str, super::Outcome)> {
            vec![$((stringify!($case), $case(env).await)),*]
        }
    };
}

/// Where the cases run.
pub struct Env {
    pub client: Client,
    pub namespace: String,
}

impl Env {
    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn typed<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// VoiceRollouts as plain JSON, so that a case can send what the types cannot express.
    pub fn rollouts(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<VoiceRollout>(&()))
    }

    /// VoiceRolloutActions as plain JSON.
    pub fn actions(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<VoiceRolloutAction>(&()))
    }

    pub async fn config_map(&self, name: &str, labels: Value) -> Result<ConfigMap, String> {
        let map = json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}});
        did("create a ConfigMap", self.config_maps().create(&PostParams::default(), &from(map)?).await)
    }

    pub async fn rollout(&self, name: &str) -> Result<DynamicObject, String> {
        did("create a VoiceRollout", self.rollouts().create(&PostParams::default(), &from(rollout(name))?).await)
    }
}

/// A small VoiceRollout that is valid.
pub fn rollout(name: &str) -> Value {
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "agent", "image": "agent:1"}]}
            },
            "traffic": {"istio": {
                "stableService": "stable", "canaryService": "canary", "virtualServices": [{"name": "route"}]
            }},
            "steps": [{"setWeight": 5}]
        }
    })
}

/// A small VoiceRolloutAction that is valid.
pub fn action(name: &str) -> Value {
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction", "metadata": {"name": name},
        "spec": {"rollout": "agent", "revision": "abc", "verb": "abort"}
    })
}

pub fn from<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| format!("the case's own object does not parse: {e}"))
}

pub fn did<T>(what: &str, result: Result<T, impl Display>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {e}"))
}

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, wanted: T) -> Outcome {
    if is == wanted { Ok(()) } else { Err(format!("{what}: {is:?}, wanted {wanted:?}")) }
}

pub fn holds(what: &str, condition: bool) -> Outcome {
    if condition { Ok(()) } else { Err(format!("does not hold: {what}")) }
}

/// The request was refused with this code and reason; returns the whole answer.
pub fn refused<T: std::fmt::Debug>(what: &str, result: kube::Result<T>, code: u16, reason: &str) -> Result<kube::core::Status, String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == code && status.reason == reason => Ok(*status),
        Err(kube::Error::Api(status)) => {
            Err(format!("{what}: {} {} ({}), wanted {code} {reason}", status.code, status.reason, status.message))
        }
        Err(e) => Err(format!("{what}: {e}, wanted {code} {reason}")),
        Ok(done) => Err(format!("{what}: carried out ({done:?}), wanted {code} {reason}")),
    }
}

/// Asks until the answer is yes, for half a minute at most: controllers of a real cluster take their time.
pub async fn eventually<F>(what: &str, mut ask: impl FnMut() -> F) -> Outcome
where
    F: Future<Output = Result<bool, String>>,
{
    for _ in 0..300 {
        if ask().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("did not happen within 30 s: {what}"))
}
