//! What GitOps tools make of a rollout: Argo CD's health check in Lua and Flux's health expressions in CEL, as they lie in
//! `examples/gitops`, on statuses that the operator wrote.

use std::path::Path;

use mlua::{Lua, LuaSerdeExt};
use serde::Deserialize;
use serde_json::{Value, json};
use voicerollout::api::status::Phase;
use voicerollout::sim::WorldConfig;

use crate::cluster::script::Script;
use crate::cluster::{AGENT, Cluster};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn yaml(name: &str) -> Value {
    serde_yaml::Deserializer::from_str(&file(name)).map(|d| Value::deserialize(d).unwrap()).next().unwrap()
}

/// Health and message, as Argo CD would have them.
fn argo(object: &Value) -> (String, String) {
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let health: Value = lua.from_value(lua.load(file("argocd-health.lua")).eval().unwrap()).unwrap();
    (health["status"].as_str().unwrap().to_owned(), health["message"].as_str().unwrap_or_default().to_owned())
}

/// Which of Flux's expressions hold.
fn flux(object: &Value) -> Vec<&'static str> {
    let all = yaml("flux-kustomization.yaml");
    let check = &all["spec"]["healthCheckExprs"][0];
    let holds = |name: &&&str| {
        let program = cel::Program::compile(check[**name].as_str().unwrap()).unwrap();
        let mut context = cel::Context::default();
        // Flux gives the object's fields as variables.
        for key in ["metadata", "spec", "status"] {
            context.add_variable(key, object.get(key).cloned().unwrap_or(json!({}))).unwrap();
        }
        program.execute(&context).unwrap() == cel::Value::Bool(true)
    };
    ["current", "failed", "inProgress"].iter().filter(holds).copied().collect()
}

async fn object(cluster: &Cluster) -> Value {
    let all = cluster.server.peek_all("voicerollouts", Some("voice"));
    (*all[0]).clone()
}

#[tokio::test(start_paused = true)]
async fn argo_cd_and_flux_understand_every_phase() {
    let cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    cluster.apply(&AGENT.replace("pause: {duration: 1m}", "pause: {}")).await;
    cluster.wait("agent", "begun", |s| s.phase != Phase::Healthy).await;
    let begun = object(&cluster).await;
    assert_eq!((argo(&begun).0.as_str(), flux(&begun)), ("Progressing", vec!["inProgress"]), "{begun:#}");
    let mut unseen = begun.clone();
    unseen.as_object_mut().unwrap().remove("status");
    assert_eq!((argo(&unseen).0.as_str(), flux(&unseen)), ("Progressing", vec!["inProgress"]));

    cluster.wait_phase("agent", Phase::Healthy).await;
    let healthy = object(&cluster).await;
    assert_eq!((argo(&healthy).0.as_str(), flux(&healthy)), ("Healthy", vec!["current"]));
    let mut changed = healthy.clone();
    changed["metadata"]["generation"] = json!(healthy["metadata"]["generation"].as_i64().unwrap() + 1);
    assert_eq!((argo(&changed).0.as_str(), flux(&changed)), ("Progressing", vec!["inProgress"]), "the new spec was not looked at yet");

    cluster.set_image("agent", "agent:v2").await;
    cluster.wait_phase("agent", Phase::Paused).await;
    let paused = object(&cluster).await;
    let (health, message) = argo(&paused);
    assert_eq!((health.as_str(), flux(&paused)), ("Suspended", vec!["inProgress"]));
    assert!(message.contains("promote"), "what it waits for: {message}");

    cluster.act("agent", "abort").await;
    cluster.wait_phase("agent", Phase::Degraded).await;
    let aborted = object(&cluster).await;
    let (health, message) = argo(&aborted);
    assert_eq!((health.as_str(), flux(&aborted)), ("Degraded", vec!["failed"]));
    assert!(message.contains("was aborted"), "{message}");
}

#[test]
fn the_config_map_has_the_same_lua() {
    let map = yaml("argocd-cm.yaml");
    let text = map["data"]["resource.customizations.health.voicerollout.dev_VoiceRollout"].as_str().unwrap();
    let lua = file("argocd-health.lua");
    let body = lua.split_once('\n').unwrap().1;
    assert_eq!(text.trim_end(), body.trim_end());
}
