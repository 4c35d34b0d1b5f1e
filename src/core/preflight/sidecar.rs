//! The istio-proxy container beside the agent. One that is no native sidecar gets SIGTERM together with the agent, and
//! by default ends five seconds later, with every connection that goes through it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use serde_json::Value;

use super::{Finding, codes, grace};
use crate::api::VoiceRolloutSpec;
use crate::api::common::std_duration;

/// Name of the proxy's container.
pub(super) const PROXY: &str = "istio-proxy";
/// Label, or annotation of old, that asks for injection or refuses it.
const INJECT: &str = "sidecar.istio.io/inject";
/// Annotation that chooses the kind of sidecar.
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";
/// Annotation with the proxy's settings, in YAML.
const CONFIG: &str = "proxy.istio.io/config";
/// Annotation that the injector leaves on a pod: names of the containers that it has added.
const STATUS: &str = "sidecar.istio.io/status";

/// How the proxy of a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sidecar {
    /// There is none.
    Absent,
    /// Kubernetes ends it after all other containers.
    Native,
    /// It ends when the agent is told to end.
    Classic,
}

impl Sidecar {
    /// Of a pod, by the annotations that the injector left on it.
    pub fn of_pod(annotations: &BTreeMap<String, String>) -> Self {
        let Some(status) = annotations.get(STATUS) else { return Self::Absent };
        // It was injected somehow: the worse is assumed.
        let Ok(status) = serde_json::from_str::<Value>(status) else { return Self::Classic };
        let added = |field: &str| status[field].as_array().is_some_and(|names| names.iter().any(|n| n == PROXY));
        match (added("containers"), added("initContainers")) {
            (true, _) => Self::Classic,
            (false, true) => Self::Native,
            (false, false) => Self::Absent,
        }
    }
}

pub(super) fn finding(spec: &VoiceRolloutSpec, seen: &BTreeMap<String, Sidecar>, target: &str) -> Option<Finding> {
    if sidecar(&spec.template, seen, target) != Sidecar::Classic {
        return None;
    }
    let needed = grace::max_drain(spec);
    let why = match ending(&spec.template) {
        Ending::AtZero => return None,
        Ending::After(time) if time.as_secs() >= u64::try_from(needed).unwrap_or(0) => return None,
        Ending::After(time) => format!("ends {} s after SIGTERM (terminationDrainDuration in {CONFIG})", time.as_secs_f64()),
        Ending::Default => format!("ends 5 s after SIGTERM unless {CONFIG} says otherwise (settings of the whole mesh are not seen here)"),
        Ending::Unreadable(what) => format!("may end 5 s after SIGTERM: {what}"),
    };
    Some(Finding {
        code: codes::SIDECAR_STOPS_EARLY,
        sentence: format!(
            "the {PROXY} container {why}, and takes every call with it, while calls may talk for drain.maxDrain ({needed} s)."
        ),
        fix: format!(
            "annotate spec.template with {NATIVE}: \"true\", or with {CONFIG}: '{{\"proxyMetadata\": \
             {{\"EXIT_ON_ZERO_ACTIVE_CONNECTIONS\": \"true\"}}}}'."
        ),
    })
}

/// The sidecar that pods of `template` get. Pods that exist know best: whether a namespace is injected, and whether the
/// mesh's sidecars are native ones, no template says.
fn sidecar(template: &PodTemplateSpec, seen: &BTreeMap<String, Sidecar>, target: &str) -> Sidecar {
    let inject = label(template, INJECT).or_else(|| annotation(template, INJECT));
    let own = written(template);
    match seen.get(target) {
        Some(found) if own == Sidecar::Absent || *found != Sidecar::Absent => return *found,
        _ if own != Sidecar::Absent => return own,
        _ => {}
    }
    if inject == Some("false") {
        return Sidecar::Absent;
    }
    let others = seen.values().copied().max();
    match annotation(template, NATIVE) {
        Some("true") => Sidecar::Native,
        Some("false") if inject == Some("true") || others.is_some_and(|s| s != Sidecar::Absent) => Sidecar::Classic,
        // Without a pod to look at nothing is cut yet, and nothing said.
        _ => others.unwrap_or(Sidecar::Absent),
    }
}

/// The proxy that the template itself brings.
fn written(template: &PodTemplateSpec) -> Sidecar {
    let Some(spec) = &template.spec else { return Sidecar::Absent };
    let proxy = |c: &&Container| c.name == PROXY;
    let native = spec.init_containers.iter().flatten().find(proxy).is_some_and(|c| c.restart_policy.as_deref() == Some("Always"));
    match (native, spec.containers.iter().any(|c| proxy(&c))) {
        (true, _) => Sidecar::Native,
        (false, true) => Sidecar::Classic,
        (false, false) => Sidecar::Absent,
    }
}

/// When a proxy that was told to end does so.
enum Ending {
    /// When no connection is left.
    AtZero,
    /// After a time.
    After(Duration),
    /// Nothing is set.
    Default,
    /// What is set cannot be read: why.
    Unreadable(String),
}

fn ending(template: &PodTemplateSpec) -> Ending {
    let Some(text) = annotation(template, CONFIG) else { return Ending::Default };
    let config: Value = match serde_yaml::from_str(text) {
        Ok(config @ Value::Object(_)) => config,
        Ok(_) => return Ending::Unreadable(format!("{CONFIG} is not a map of settings")),
        Err(error) => return Ending::Unreadable(format!("{CONFIG} is not YAML: {error}")),
    };
    let at_zero = &config["proxyMetadata"]["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"];
    if at_zero == "true" || at_zero == true {
        return Ending::AtZero;
    }
    match &config["terminationDrainDuration"] {
        Value::Null => Ending::Default,
        Value::String(time) => match time.parse::<kube::core::Duration>() {
            Ok(time) => Ending::After(std_duration(time)),
            Err(_) => Ending::Unreadable(format!("terminationDrainDuration {time:?} in {CONFIG} is not a duration such as 3660s")),
        },
        other => Ending::Unreadable(format!("terminationDrainDuration {other} in {CONFIG} is not a duration such as 3660s")),
    }
}

fn label<'a>(template: &'a PodTemplateSpec, key: &str) -> Option<&'a str> {
    template.metadata.as_ref()?.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(template: &'a PodTemplateSpec, key: &str) -> Option<&'a str> {
    template.metadata.as_ref()?.annotations.as_ref()?.get(key).map(String::as_str)
}
