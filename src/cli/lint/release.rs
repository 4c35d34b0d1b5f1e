//! A VoiceRollout with all that is beside it in the files, as the operator would see it.

use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::Value;

use super::{Document, Finding, gates, typed};
use crate::api::VoiceRollout;
use crate::core::observe::Observations;
use crate::core::plan::Plan;
use crate::core::preflight::codes;
use crate::core::resolve::{Facts, resolve};
use crate::core::{Origin, SpecError};
use crate::operator::gather::gather;
use crate::operator::kept::{IstioKept, ServiceKept, TemplateKept};
use crate::operator::live::LiveCalls;
use crate::operator::stores::Stores;

/// Where objects without a namespace are taken to be.
const NAMESPACE: &str = "default";

/// A release as far as files say.
pub struct Release {
    /// The rollout.
    pub rollout: VoiceRollout,
    /// What the operator would see.
    pub seen: Observations,
    /// The plan.
    pub plan: Plan,
}

/// Checks a rollout; `None` when it cannot be read.
pub fn check(document: &Document, all: &[Document], found: &mut Vec<Finding>) -> Option<Release> {
    let mut rollout: VoiceRollout = match typed(&document.value) {
        Ok(rollout) => rollout,
        Err(reason) => {
            found.push(document.error("spec", reason));
            return None;
        }
    };
    let namespace = rollout.metadata.namespace.get_or_insert_with(|| NAMESPACE.into()).clone();
    let stores = stores(all, &namespace);
    // The time is of no account: nothing has happened yet.
    let seen = gather(&stores, &LiveCalls::default(), &rollout, jiff::Timestamp::UNIX_EPOCH, true);
    let plan = Plan::parse(document.name(), &rollout.spec, &seen);
    // Not all background gates are known then.
    let missing = rollout.spec.analysis.iter().flat_map(|a| &a.templates).any(|t| seen.template(t).is_none());
    found.extend(plan.errors.iter().filter_map(|e| plan_error(document, all, e, missing)));
    around(document, all, &seen, &namespace, found);
    for finding in &plan.findings {
        found.push(document.warning(field_of(finding.code), format!("{}: {} Fix: {}", finding.code, finding.sentence, finding.fix)));
    }
    gate_warnings(document, &rollout, &seen, found);
    Some(Release { rollout, seen, plan })
}

/// An error of the plan. One about a template that is not in the files says only that it was not looked at; one inside a
/// template that is was told there.
fn plan_error(document: &Document, all: &[Document], error: &SpecError, missing: bool) -> Option<Finding> {
    if error.origin == Origin::NoTemplate {
        let message = format!("{} in these files, so its gates are not checked: name its file too", error.message);
        return Some(Finding { leaves_out_gates: true, ..document.warning(&error.path, message) });
    }
    let consequence = error.path.contains(".require[") || error.path == "spec.analysis";
    if missing && consequence {
        return None;
    }
    if let Origin::Template(inside) = &error.origin
        && let Some(there) = all.iter().find(|d| d.kind() == inside.kind && d.name() == inside.name)
    {
        let told = crate::sim::manifest_findings(&there.value).is_none_or(|p| !p.is_empty());
        return (!told).then(|| there.error(&inside.path, &inside.message));
    }
    Some(document.error(&error.path, &error.message))
}

/// Services and routes that are in the files and do not fit.
fn around(document: &Document, all: &[Document], seen: &Observations, namespace: &str, found: &mut Vec<Finding>) {
    let there = |kind: &str, name: &str, home: &str| {
        all.iter().any(|d| d.kind() == kind && d.name() == name && namespace_of(&d.value, namespace) == home)
    };
    for (i, route) in seen.routes.iter().enumerate() {
        if let (Err(problem), true) = (&route.weights, there("VirtualService", &route.name, &route.namespace)) {
            found.push(document.error(&format!("spec.traffic.istio.virtualServices[{i}]"), problem));
        }
        if let Some(shadowed) = &route.shadowed {
            found.push(document.warning(&format!("spec.traffic.istio.virtualServices[{i}]"), shadowed));
        }
    }
    for (field, arm) in [("stableService", &seen.stable_arm), ("canaryService", &seen.canary_arm)] {
        let name = document.value["spec"]["traffic"]["istio"][field].as_str().unwrap_or_default();
        if let (Some(problem), true) = (&arm.problem, there("Service", name, namespace)) {
            found.push(document.error(&format!("spec.traffic.istio.{field}"), problem));
        }
    }
}

/// The field that a finding of the preflight is about.
fn field_of(code: &str) -> &'static str {
    match code {
        codes::GRACE_PERIOD_TOO_SHORT => "spec.template.spec.terminationGracePeriodSeconds",
        codes::SIDECAR_STOPS_EARLY => "spec.template.metadata.annotations",
        codes::PRE_STOP_SIGNAL => "spec.template.spec.containers",
        codes::UNREADABLE_CALLS => "spec.sessions",
        _ => "spec.traffic.istio.virtualServices",
    }
}

fn gate_warnings(document: &Document, rollout: &VoiceRollout, seen: &Observations, found: &mut Vec<Finding>) {
    let steps = rollout.spec.steps.iter().flatten().enumerate();
    let steps = steps.filter_map(|(i, s)| Some((format!("spec.steps[{i}].analysis"), s.analysis.as_ref()?)));
    let background = rollout.spec.analysis.iter().map(|a| ("spec.analysis".to_owned(), a));
    for (path, analysis) in background.chain(steps) {
        for (i, gate) in analysis.gates.iter().enumerate() {
            found.extend(gates::odd(gate).into_iter().map(|(field, text)| document.warning(&format!("{path}.gates[{i}]{field}"), text)));
        }
        // What is wrong with it is told already.
        let Ok(resolved) = resolve(analysis, &seen.rollout, &Facts::default(), &|r| seen.template(r), &path) else { continue };
        for (i, gate) in resolved.iter().enumerate() {
            let at = format!("{path} gate {i} ({})", gate.gate.name);
            let odd = gates::gives_up_early(gate).or_else(|| gates::long_window(gate));
            found.extend(odd.map(|text| document.warning(&at, text)));
        }
    }
}

/// An object that names no namespace goes where the rollout goes.
fn namespace_of<'a>(value: &'a Value, home: &'a str) -> &'a str {
    value["metadata"]["namespace"].as_str().unwrap_or(home)
}

/// The operator's caches, filled from the files. What does not parse is as if it were not there: an API server says what is
/// wrong with kinds that are not ours.
fn stores(all: &[Document], home: &str) -> Stores {
    let mut stores = Stores::default();
    for document in all {
        let mut value = document.value.clone();
        if document.kind() != "ClusterVoiceAnalysisTemplate" {
            // A file may hold anything, a list of patches too.
            let Some(metadata) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) else { continue };
            metadata.insert("namespace".into(), namespace_of(&document.value, home).into());
        }
        match document.kind() {
            "VirtualService" => keep(&value, |o| drop(stores.virtual_services.part().apply(&Event::Apply(o), IstioKept::virtual_service))),
            "DestinationRule" => {
                keep(&value, |o| drop(stores.destination_rules.part().apply(&Event::Apply(o), IstioKept::destination_rule)))
            }
            "Service" => keep(&value, |o| drop(stores.services.part().apply(&Event::Apply(o), ServiceKept::keep))),
            "VoiceAnalysisTemplate" => {
                keep(&value, |o| drop(stores.templates.part().apply(&Event::Apply(DeserializeGuard(Ok(o))), TemplateKept::keep)));
            }
            "ClusterVoiceAnalysisTemplate" => {
                keep(&value, |o| {
                    drop(stores.cluster_templates.part().apply(&Event::Apply(DeserializeGuard(Ok(o))), TemplateKept::keep_cluster))
                });
            }
            _ => {}
        }
    }
    stores
}

fn keep<K: serde::de::DeserializeOwned>(value: &Value, take: impl FnOnce(K)) {
    if let Ok(object) = typed(value) {
        take(object);
    }
}
