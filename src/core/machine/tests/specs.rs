//! Specs that the tests start from.

use std::collections::BTreeMap;

use serde_json::json;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::api::VoiceRolloutSpec;
use crate::api::analysis::{Gate, Provider, Threshold, WebProvider};
use crate::api::common::seconds;
use crate::api::rollout::{Analysis, CanaryScale, IstioTraffic, Pause, Step, Traffic, VirtualServiceRef};
use crate::core::revision::revision_hash;

pub const SET: &str = "agent";

pub fn template(version: u32) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(BTreeMap::from([("app".to_string(), SET.to_string())])), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            termination_grace_period_seconds: Some(3660),
            containers: vec![Container { name: SET.into(), image: Some(format!("agent:v{version}")), ..Container::default() }],
            ..PodSpec::default()
        }),
    }
}

/// Hash of a version's revision.
pub fn hash(version: u32) -> String {
    revision_hash(&template(version))
}

/// A gate that measures in steps and in the background.
pub fn gate(name: &str) -> Gate {
    let web = WebProvider {
        method: Default::default(),
        url: "https://evals.internal/run".into(),
        access: Default::default(),
        body: None,
        json_path: "{$.passRate}".into(),
        values: Default::default(),
        result: None,
        suite: None,
        run: None,
        timeout: seconds(10),
    };
    let threshold = Threshold {
        interval: Some(seconds(30)),
        count: None,
        initial_delay: None,
        success_condition: Some("result >= 0.92".into()),
        failure_condition: None,
        failure_limit: 0,
        inconclusive_limit: 0,
        consecutive_error_limit: 4,
        consecutive_success_limit: 0,
        counting: Default::default(),
        sentinel: false,
        provider: Provider { web: Some(web), ..Provider::default() },
    };
    Gate {
        name: name.into(),
        mode: Default::default(),
        on_fail: Default::default(),
        on_error: Default::default(),
        on_inconclusive: Default::default(),
        error_budget: seconds(300),
        min_duration: None,
        max_duration: seconds(3600),
        false_abort: None,
        threshold: Some(threshold),
        judge: None,
        compare: None,
        compare_histogram: None,
        absolute: None,
        paired: None,
        split: None,
    }
}

/// A gate that counts calls.
pub fn counting(name: &str) -> Gate {
    let compare = json!({ "prometheus": { "address": "http://p" }, "bad": "bad_total", "total": "all_total" });
    serde_json::from_value(json!({ "name": name, "compare": compare })).unwrap()
}

/// A judge that explains aborts by other gates.
pub fn judge(name: &str) -> Gate {
    let judge = json!({ "anthropic": { "model": "m" }, "prompt": "Compare.", "interval": "30s", "explainAborts": true });
    serde_json::from_value(json!({ "name": name, "judge": judge })).unwrap()
}

pub fn weight(w: i32) -> Step {
    Step { set_weight: Some(w), ..Step::default() }
}

pub fn pause(secs: Option<u64>) -> Step {
    Step { pause: Some(Pause { duration: secs.map(seconds) }), ..Step::default() }
}

pub fn gates(all: Vec<Gate>) -> Analysis {
    Analysis { gates: all, ..Analysis::default() }
}

pub fn analysis(names: &[&str]) -> Step {
    let of = |n: &&str| if *n == "judge" { judge(n) } else { gate(n) };
    Step { analysis: Some(gates(names.iter().map(of).collect())), ..Step::default() }
}

pub fn require(names: &[&str]) -> Step {
    let require = names.iter().map(ToString::to_string).collect();
    Step { analysis: Some(Analysis { require, ..Analysis::default() }), ..Step::default() }
}

pub fn scale(replicas: i32) -> Step {
    Step { set_canary_scale: Some(CanaryScale { replicas: Some(replicas), ..CanaryScale::default() }), ..Step::default() }
}

/// The article's release: 5 %, 5 min, gates; 25 %, 10 min, gates; 50 %, 15 min, gates; 100 %.
pub fn article() -> Vec<Step> {
    let all = || analysis(&["evals", "p95", "judge"]);
    let at = |w, secs| [weight(w), pause(Some(secs)), all()];
    [at(5, 300), at(25, 600), at(50, 900)].into_iter().flatten().chain([weight(100)]).collect()
}

/// Ten replicas, two Services, one VirtualService.
/// A proof of the split, with more settings.
pub fn proof(more: serde_json::Value) -> crate::api::proof::Proof {
    let mut proof = serde_json::json!({"prometheus": {"address": "http://prometheus"}, "started": "voice_calls_started_total"});
    json_patch::merge(&mut proof, &more);
    serde_json::from_value(proof).unwrap()
}

pub fn spec(steps: Option<Vec<Step>>, background: Option<Analysis>) -> VoiceRolloutSpec {
    let service = VirtualServiceRef { name: "agent".into(), namespace: String::new(), routes: vec![] };
    VoiceRolloutSpec {
        replicas: 10,
        selector: LabelSelector { match_labels: Some(BTreeMap::from([("app".to_string(), SET.to_string())])), ..LabelSelector::default() },
        template: template(1),
        min_ready_seconds: 0,
        revision_history_limit: 10,
        rollback_window: None,
        progress_deadline: seconds(600),
        on_progress_deadline: Default::default(),
        paused: false,
        traffic: Traffic {
            istio: Some(IstioTraffic {
                stable_service: Some("agent-stable".into()),
                canary_service: Some("agent-canary".into()),
                virtual_services: vec![service],
                destination_rule: None,
                propagation_delay: seconds(10),
                stickiness: None,
            }),
            proof: None,
        },
        steps,
        false_abort: 0.01,
        analysis: background,
        sessions: None,
        preflight: Default::default(),
        drain: Default::default(),
        notifications: vec![],
        max_live_revisions: 3,
        scale_down_delay: seconds(30),
        abort_scale_down_delay: seconds(30),
    }
}
