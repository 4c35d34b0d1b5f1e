//! What the caches keep of each kind.

mod autoscaler;
mod workload;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DynamicObject;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::cache::{Kept, group};
use super::gather::{named_templates, route_namespace};
use crate::api::common::ALLOW_FROM_ANNOTATION;
use crate::api::run::{GateStatus, Memory, RunPhase};
use crate::api::{ClusterVoiceAnalysisTemplate, VoiceAnalysisRun, VoiceAnalysisTemplate, VoiceRollout, VoiceRolloutAction};
use crate::core::gates::{gates_hash, spec_hash};
use crate::core::observe::{ActionSeen, RunSeen};
use crate::core::preflight::{self, Keeper, UNMANAGED_ROUTES_ANNOTATION};
use crate::core::resolve::TemplateContent;
use crate::core::route;

pub use autoscaler::AutoscalerKept;
pub use workload::{BudgetKept, PodKept, SetKept};

/// A copy of the whole manifest that kubectl leaves behind.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Label of an EndpointSlice: its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Group of what a rollout owns, by the rollout's UID.
pub const OWNER: &str = "owner";
/// Group of rollouts that name a Service.
pub const SERVICE: &str = "service";
/// Group of rollouts that name a VirtualService.
pub const ROUTE: &str = "route";
/// Group of rollouts that name a DestinationRule.
pub const RULE: &str = "rule";
/// Group of DestinationRules, by the host that they are about.
pub const HOST: &str = "host";
/// Group of rollouts that name a gate template; in no namespace for a cluster's.
pub const TEMPLATE: &str = "template";
/// Group of all PodDisruptionBudgets of a namespace.
pub const BUDGET: &str = "budget";
/// Group of autoscalers, by the ReplicaSet that they scale.
pub const SET: &str = "set";
/// Group of what names a rollout.
pub const ROLLOUT: &str = "rollout";

/// Takes away who owns which field, and kubectl's copy of the manifest.
pub fn without_bookkeeping<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// A run that has ended is only looked at to see that it has, and what its judges have spent: its record stays with the
/// API server.
pub fn without_record(run: &mut DeserializeGuard<VoiceAnalysisRun>) {
    without_bookkeeping(run);
    let Ok(run) = &mut run.0 else { return };
    if let Some(status) = run.status.as_mut().filter(|s| s.phase != RunPhase::Running) {
        let spent = |g: GateStatus| g.spent.map(|spent| GateStatus { name: g.name, spent: Some(spent), ..GateStatus::default() });
        status.gates = std::mem::take(&mut status.gates).into_iter().filter_map(spent).collect();
        run.spec.gates = Vec::new();
    }
}

/// What a rollout names, or has still to give back; the rollout itself is in a store of kube's.
pub struct Names(Vec<String>);

impl Names {
    /// Of a rollout; one that does not parse names nothing.
    pub fn keep(rollout: &DeserializeGuard<VoiceRollout>) -> Self {
        let Ok(rollout) = &rollout.0 else { return Self(Vec::new()) };
        let home = rollout.namespace().unwrap_or_default();
        let mut names: Vec<String> =
            named_templates(rollout).map(|t| group(TEMPLATE, if t.cluster { "" } else { &home }, &t.name)).collect();
        if let Some(istio) = &rollout.spec.traffic.istio {
            let services = istio.stable_service.iter().chain(&istio.canary_service);
            names.extend(services.map(|s| group(SERVICE, &home, s)));
            names.extend(istio.virtual_services.iter().map(|v| group(ROUTE, route_namespace(&home, v), &v.name)));
            names.extend(istio.destination_rule.iter().map(|d| group(RULE, &home, &d.name)));
        }
        let managed = rollout.status.iter().flat_map(|s| &s.managed_routes);
        names.extend(managed.map(|m| group(ROUTE, &m.namespace, &m.virtual_service)));
        names.sort();
        names.dedup();
        names.shrink_to_fit();
        Self(names)
    }
}

impl Kept for Names {
    fn groups(&self, _: &str) -> Vec<String> {
        self.0.clone()
    }
}

/// A Service's selector, and who else writes it.
pub struct ServiceKept {
    /// Labels of the pods it selects.
    pub selector: BTreeMap<String, String>,
    /// The GitOps tool that keeps it.
    pub keeper: Option<Box<Keeper>>,
}

impl ServiceKept {
    /// Of a Service.
    pub fn keep(service: &Service) -> Self {
        let selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        Self { selector, keeper: Keeper::of("Service", service.meta()).map(Box::new) }
    }
}

impl Kept for ServiceKept {}

/// An EndpointSlice's ready endpoints.
pub struct SliceKept {
    /// Its Service.
    pub service: Option<String>,
    /// Names of the ready pods; empty for an endpoint that is no pod.
    pub ready: Vec<Box<str>>,
}

impl SliceKept {
    /// Of an EndpointSlice.
    pub fn keep(slice: &EndpointSlice) -> Self {
        let endpoints = slice.endpoints.iter().flatten();
        let ready = endpoints.filter(|e| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false)));
        let pod = ready.map(|e| e.target_ref.as_ref().and_then(|t| t.name.as_deref()).unwrap_or_default().into());
        Self { service: label(slice, SERVICE_NAME), ready: pod.collect() }
    }
}

impl Kept for SliceKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        self.service.iter().map(|s| group(SERVICE, namespace, s)).collect()
    }
}

/// Those fields of a VirtualService or DestinationRule that are read, and that an edit tests: an edit is a JSON patch
/// and leaves all others as they are. As text, which takes a tenth of the memory of a tree.
pub struct IstioKept(Box<str>);

impl IstioKept {
    /// Names, conditions, destinations, weights and time-outs of the http routes; those that may be managed, or may be made
    /// by us, whole: what we write above a managed route takes over all that it says. Where tcp and tls routes lead.
    pub fn virtual_service(object: &DynamicObject) -> Self {
        let destination = |d: &Value| picked(d, &["destination", "weight"]);
        let whole = |r: &Value| r["route"].as_array().is_some_and(|all| all.len() == 2) || route::may_be_generated(r);
        let route = |r: &Value| {
            if whole(r) {
                return r.clone();
            }
            let mut kept = picked(r, &["name", "match", "timeout"]);
            if let Some(all) = r["route"].as_array() {
                kept["route"] = all.iter().map(destination).collect();
            }
            kept
        };
        let http = object.data.pointer("/spec/http").and_then(Value::as_array);
        let mut spec = json!({"http": http.map(|all| all.iter().map(route).collect::<Vec<_>>())});
        for list in ["tcp", "tls"] {
            if let Some(all) = object.data["spec"][list].as_array() {
                spec[list] = all.iter().map(route).collect();
            }
        }
        Self::text(object, spec)
    }

    /// The host, and names and labels of the subsets.
    pub fn destination_rule(object: &DynamicObject) -> Self {
        let mut spec = picked(&object.data["spec"], &["host"]);
        if let Some(all) = object.data["spec"]["subsets"].as_array() {
            spec["subsets"] = all.iter().map(|s| picked(s, &["name", "labels"])).collect();
        }
        Self::text(object, spec)
    }

    fn text(object: &DynamicObject, spec: Value) -> Self {
        let mut metadata = json!({
            "name": object.metadata.name, "namespace": object.metadata.namespace, "resourceVersion": object.metadata.resource_version,
        });
        let own = [ALLOW_FROM_ANNOTATION, UNMANAGED_ROUTES_ANNOTATION];
        let annotations = some_of(object.annotations(), preflight::ANNOTATIONS.into_iter().chain(own));
        let labels = some_of(object.labels(), preflight::LABELS);
        for (field, kept) in [("annotations", annotations), ("labels", labels)] {
            if !kept.is_empty() {
                metadata[field] = Value::Object(kept);
            }
        }
        let types = object.types.as_ref();
        let (version, kind) = (types.map(|t| &t.api_version), types.map(|t| &t.kind));
        Self(json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}).to_string().into())
    }

    /// The object, with those fields alone.
    pub fn object(&self) -> DynamicObject {
        // It was written by `text`.
        serde_json::from_str(&self.0).unwrap_or_else(|error| unreachable!("{error}: {}", self.0))
    }
}

impl Kept for IstioKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        let object = self.object();
        object.data.pointer("/spec/host").and_then(Value::as_str).map(|host| group(HOST, namespace, host)).into_iter().collect()
    }
}

fn some_of<'a>(map: &BTreeMap<String, String>, keys: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
    keys.into_iter().filter_map(|key| Some((key.to_owned(), map.get(key)?.as_str().into()))).collect()
}

fn picked(object: &Value, fields: &[&str]) -> Value {
    let field = |name: &&str| Some(((*name).to_owned(), object.get(*name)?.clone()));
    Value::Object(fields.iter().filter_map(field).collect::<Map<_, _>>())
}

/// A run's verdicts. Measurements are left out: verdicts rest on them, releases on verdicts.
pub struct RunKept {
    /// The rollout that it is about.
    pub rollout: Option<String>,
    /// UIDs of its owners.
    owners: Vec<String>,
    /// Its resourceVersion, which grows with every write.
    version: Option<u64>,
    /// What is seen of it; `None` when it does not parse, or is being deleted.
    pub seen: Option<RunSeen>,
}

impl RunKept {
    /// Of a run.
    pub fn keep(run: &DeserializeGuard<VoiceAnalysisRun>) -> Self {
        let rollout = run.0.as_ref().ok().map(|r| r.spec.rollout.clone());
        let seen = run.0.as_ref().ok().filter(|r| r.meta().deletion_timestamp.is_none()).map(run_seen);
        let version = run.resource_version().and_then(|v| v.parse().ok());
        Self { rollout, owners: owners(run), version, seen }
    }
}

impl Kept for RunKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        self.owners.iter().map(|uid| group(OWNER, namespace, uid)).collect()
    }

    fn counts(&self) -> bool {
        self.seen.is_some()
    }

    fn version(&self) -> Option<u64> {
        self.version
    }
}

fn run_seen(run: &VoiceAnalysisRun) -> RunSeen {
    let mut status = run.status.clone().unwrap_or_default();
    for gate in &mut status.gates {
        gate.measurements = Vec::new();
        // That there is one says that the gate counts calls; its counters are the analysis controller's.
        gate.memory = gate.memory.take().map(|_| Memory::default());
        if let Some(split) = &mut gate.split {
            split.memory = Memory::default();
        }
    }
    RunSeen {
        name: run.name_any(),
        spec_hash: spec_hash(&run.spec),
        counting: gates_hash(&run.spec.gates),
        revision: run.spec.revision.clone(),
        attempt: run.spec.attempt,
        kind: run.spec.kind,
        stop: run.spec.stop,
        phase: status.phase,
        gates: status.gates,
        created: created(run),
    }
}

/// A command that nobody has looked at.
pub struct ActionKept {
    /// The rollout that it names.
    pub rollout: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What is seen of it; `None` when it does not parse, is marked, or is being deleted. Nobody has vouched for its
    /// author.
    pub seen: Option<ActionSeen>,
}

impl ActionKept {
    /// Of a command.
    pub fn keep(action: &DeserializeGuard<VoiceRolloutAction>) -> Self {
        let marked = |a: &VoiceRolloutAction| a.status.as_ref().is_some_and(|s| s.state.is_some());
        let parsed = action.0.as_ref().ok();
        let open = parsed.filter(|a| !marked(a) && a.meta().deletion_timestamp.is_none());
        let seen = |a: &VoiceRolloutAction| ActionSeen {
            name: a.name_any(),
            uid: a.uid().unwrap_or_default(),
            revision: a.spec.revision.clone(),
            step: a.spec.step.clone(),
            verb: a.spec.verb,
            reason: a.spec.reason.clone(),
            by: a.spec.requested_by.clone(),
        };
        Self { rollout: parsed.map(|a| a.spec.rollout.clone()), created: created(action), seen: open.map(seen) }
    }
}

impl Kept for ActionKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        self.rollout.iter().map(|r| group(ROLLOUT, namespace, r)).collect()
    }

    fn counts(&self) -> bool {
        self.seen.is_some()
    }
}

/// A template's content; `None` when it does not parse.
pub struct TemplateKept(pub Option<TemplateContent>);

impl TemplateKept {
    /// Of a template.
    pub fn keep(template: &DeserializeGuard<VoiceAnalysisTemplate>) -> Self {
        Self(template.0.as_ref().ok().map(|t| TemplateContent { args: t.spec.args.clone(), gates: t.spec.gates.clone() }))
    }

    /// Of a cluster's template.
    pub fn keep_cluster(template: &DeserializeGuard<ClusterVoiceAnalysisTemplate>) -> Self {
        Self(template.0.as_ref().ok().map(|t| TemplateContent { args: t.spec.args.clone(), gates: t.spec.gates.clone() }))
    }
}

impl Kept for TemplateKept {}

fn label(object: &impl ResourceExt, key: &str) -> Option<String> {
    object.labels().get(key).cloned()
}

fn owners(object: &impl ResourceExt) -> Vec<String> {
    let mut owners: Vec<String> = object.owner_references().iter().map(|o| o.uid.clone()).collect();
    owners.shrink_to_fit();
    owners
}

fn created(object: &impl ResourceExt) -> Option<Timestamp> {
    object.creation_timestamp().map(|t| t.0)
}

#[cfg(test)]
mod tests;
