//! Builds the observations of one rollout from the caches. Asks the API server nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::stores::{Guarded, Stores};
use super::{left, routes};
use crate::api::VoiceRollout;
use crate::api::common::{FINALIZER, REVISION_LABEL, REVISION_NUMBER_ANNOTATION};
use crate::api::rollout::{DestinationRuleRef, IstioTraffic, TemplateRef, VirtualServiceRef};
use crate::api::run::VoiceAnalysisRunStatus;
use crate::core::gates::spec_hash;
use crate::core::machine::Subject;
use crate::core::observe::{ActionSeen, ArmSeen, Observations, ReplicaSetSeen, RouteSeen, RunSeen};
use crate::core::plan::as_json;
use crate::core::resolve::TemplateContent;
use crate::core::revision::revision_hash;
use crate::core::route::{self, Split};

/// Facts of the rollout's metadata.
pub fn subject(rollout: &VoiceRollout) -> Subject {
    let labels = rollout.spec.selector.match_labels.clone().unwrap_or_default();
    Subject {
        name: rollout.name_any(),
        uid: rollout.uid().unwrap_or_default(),
        generation: rollout.meta().generation,
        selector: labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
    }
}

/// The world, as far as it concerns one rollout.
pub fn gather(stores: &Stores, rollout: &VoiceRollout, now: Timestamp, actions_verified: bool) -> Observations {
    let namespace = rollout.namespace().unwrap_or_default();
    let istio = rollout.spec.traffic.istio.as_ref();
    let replica_sets = replica_sets(stores, rollout, &namespace);
    let arms = match istio {
        Some(istio) => arms(stores, rollout, &namespace, istio, &replica_sets),
        None => (unusable_arm("traffic"), unusable_arm("traffic")),
    };
    let split = istio.and_then(|i| split(stores, &namespace, i).ok());
    let rival = rival(stores, rollout, &namespace);
    let theirs = |v| rival.is_some() && is_theirs(stores, rollout, &namespace, v);
    let seen = |i: &IstioTraffic, v| RouteSeen { theirs: theirs(v), ..route_seen(stores, &namespace, i, v) };
    let routes: Vec<RouteSeen> = istio.iter().flat_map(|i| i.virtual_services.iter().map(|v| seen(i, v))).collect();
    Observations {
        now,
        deleting: rollout.meta().deletion_timestamp.is_some(),
        finalizer: rollout.finalizers().iter().any(|f| f == FINALIZER),
        target: revision_hash(&rollout.spec.template),
        rollout: as_json(rollout),
        left: left::routes(stores, rollout, &namespace, &routes, split.as_ref(), &replica_sets),
        replica_sets,
        stable_arm: arms.0,
        canary_arm: arms.1,
        routes,
        split,
        runs: runs(stores, rollout, &namespace),
        actions: actions(stores, rollout, &namespace, actions_verified),
        templates: templates(stores, rollout, &namespace),
        rival,
    }
}

fn replica_sets(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> Vec<ReplicaSetSeen> {
    let uid = rollout.uid().unwrap_or_default();
    let owned = |r: &ReplicaSet| r.owner_references().iter().any(|o| o.uid == uid);
    let mut all: Vec<ReplicaSetSeen> =
        stores.replica_sets.within(namespace).filter(|r| owned(r)).filter_map(|r| replica_set_seen(&r)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn replica_set_seen(set: &ReplicaSet) -> Option<ReplicaSetSeen> {
    let status = set.status.clone().unwrap_or_default();
    Some(ReplicaSetSeen {
        name: set.name_any(),
        hash: set.labels().get(REVISION_LABEL)?.clone(),
        number: set.annotations().get(REVISION_NUMBER_ANNOTATION).and_then(|n| n.parse().ok()).unwrap_or(0),
        wanted: set.spec.replicas.unwrap_or(1),
        exist: status.replicas,
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        current: status.observed_generation == set.meta().generation && set.meta().deletion_timestamp.is_none(),
    })
}

fn unusable_arm(name: &str) -> ArmSeen {
    ArmSeen { name: name.into(), problem: Some(format!("{name} is not set")), selects: None, ready: BTreeMap::new() }
}

fn arms(stores: &Stores, rollout: &VoiceRollout, namespace: &str, istio: &IstioTraffic, sets: &[ReplicaSetSeen]) -> (ArmSeen, ArmSeen) {
    match &istio.destination_rule {
        Some(rule) => {
            (subset_arm(stores, namespace, rule, &rule.stable_subset, sets), subset_arm(stores, namespace, rule, &rule.canary_subset, sets))
        }
        None => (
            service_arm(stores, rollout, namespace, istio.stable_service.as_deref().unwrap_or_default()),
            service_arm(stores, rollout, namespace, istio.canary_service.as_deref().unwrap_or_default()),
        ),
    }
}

/// A Service as an arm.
pub fn service_arm(stores: &Stores, rollout: &VoiceRollout, namespace: &str, name: &str) -> ArmSeen {
    let title = format!("Service {name}");
    let broken = |problem: String| ArmSeen { name: title.clone(), problem: Some(problem), selects: None, ready: BTreeMap::new() };
    let Some(service) = stores.services.get(namespace, name) else {
        return broken(format!("{title} does not exist in namespace {namespace}: create it, with a selector for the agent's pods"));
    };
    let selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    if selector.is_empty() {
        return broken(format!("{title} has no selector: give it one that matches the agent's pods"));
    }
    let labels = rollout.spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if let Some((key, value)) = selector.iter().find(|(k, v)| k.as_str() != REVISION_LABEL && labels.get(*k) != Some(v)) {
        return broken(format!("{title} selects {key}={value}, which spec.template does not carry: it would select nothing"));
    }
    let slices = stores.slices.within(namespace).filter(|s| s.labels().get("kubernetes.io/service-name").is_some_and(|n| n == name));
    let mut ready = BTreeMap::new();
    for slice in slices {
        count_ready(stores, namespace, &slice, &mut ready);
    }
    ArmSeen { name: title, problem: None, selects: selector.get(REVISION_LABEL).cloned(), ready }
}

fn count_ready(stores: &Stores, namespace: &str, slice: &EndpointSlice, ready: &mut BTreeMap<String, i32>) {
    for endpoint in slice.endpoints.iter().flatten() {
        let is_ready = endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false));
        let pod = endpoint.target_ref.as_ref().and_then(|t| t.name.clone()).unwrap_or_default();
        if is_ready {
            // An endpoint of nobody's revision counts under the empty hash: the arm is not the revision's alone.
            let revision = stores.pod_revision(namespace, &pod).unwrap_or_default();
            *ready.entry(revision).or_insert(0) += 1;
        }
    }
}

/// A subset as an arm.
pub fn subset_arm(stores: &Stores, namespace: &str, rule: &DestinationRuleRef, subset: &str, sets: &[ReplicaSetSeen]) -> ArmSeen {
    let title = format!("subset {subset} of DestinationRule {}", rule.name);
    let broken = |problem: String| ArmSeen { name: title.clone(), problem: Some(problem), selects: None, ready: BTreeMap::new() };
    let Some(object) = stores.destination_rules.get(namespace, &rule.name) else {
        return broken(format!(
            "DestinationRule {} does not exist in namespace {namespace}: create it with subsets {} and {}",
            rule.name, rule.stable_subset, rule.canary_subset
        ));
    };
    let subsets = object.data.pointer("/spec/subsets").and_then(Value::as_array);
    let Some(found) = subsets.and_then(|all| all.iter().find(|s| s["name"] == subset)) else {
        return broken(format!("{title} does not exist: add it to spec.subsets"));
    };
    let selects = found.pointer("/labels").and_then(|l| l.get(REVISION_LABEL)).and_then(Value::as_str).map(String::from);
    let ready = selects.iter().filter_map(|h| sets.iter().find(|s| &s.hash == h)).map(|s| (s.hash.clone(), s.ready)).collect();
    ArmSeen { name: title, problem: None, selects, ready }
}

/// How the two arms are told apart in the routes of this rollout.
pub fn split(stores: &Stores, namespace: &str, istio: &IstioTraffic) -> Result<Split, String> {
    let Some(rule) = &istio.destination_rule else {
        return Ok(Split::Hosts {
            namespace: namespace.into(),
            stable: istio.stable_service.clone().unwrap_or_default(),
            canary: istio.canary_service.clone().unwrap_or_default(),
        });
    };
    let object = stores.destination_rules.get(namespace, &rule.name);
    let host = object.as_ref().and_then(|o| o.data.pointer("/spec/host")).and_then(Value::as_str);
    let host = host.ok_or_else(|| format!("DestinationRule {} does not exist in namespace {namespace}, or has no host", rule.name))?;
    Ok(Split::Subsets {
        host: host.into(),
        namespace: namespace.into(),
        stable: rule.stable_subset.clone(),
        canary: rule.canary_subset.clone(),
    })
}

/// Namespace of a VirtualService reference.
pub fn route_namespace<'a>(namespace: &'a str, reference: &'a VirtualServiceRef) -> &'a str {
    if reference.namespace.is_empty() { namespace } else { &reference.namespace }
}

fn route_seen(stores: &Stores, namespace: &str, istio: &IstioTraffic, reference: &VirtualServiceRef) -> RouteSeen {
    let home = route_namespace(namespace, reference);
    let seen = |weights, readable| RouteSeen {
        namespace: home.into(),
        name: reference.name.clone(),
        names: reference.routes.clone(),
        theirs: false,
        weights,
        readable,
    };
    match writable_route(stores, namespace, home, istio, reference) {
        Err(problem) => seen(Err(problem), Vec::new()),
        Ok((object, split)) => match read_weights(&object, home, reference, &split) {
            Ok(weights) => seen(Ok(weights), Vec::new()),
            Err(problem) => {
                let one = |name: &String| route::read(&object, std::slice::from_ref(name), &split).unwrap_or_default();
                seen(Err(problem), reference.routes.iter().flat_map(one).collect())
            }
        },
    }
}

/// The VirtualService, if this rollout may write it, and how its destinations are told apart.
fn writable_route(
    stores: &Stores,
    namespace: &str,
    home: &str,
    istio: &IstioTraffic,
    reference: &VirtualServiceRef,
) -> Result<(Value, Split), String> {
    let name = &reference.name;
    let Some(object) = stores.virtual_services.get(home, name) else {
        return Err(format!("VirtualService {home}/{name} does not exist: create it, with the stable and the canary destination"));
    };
    if !routes::allowed_from(&object, namespace) {
        return Err(format!(
            "VirtualService {home}/{name} does not allow namespace {namespace}: annotate it with {}: {namespace}",
            crate::api::common::ALLOW_FROM_ANNOTATION
        ));
    }
    let value = serde_json::to_value(&*object).map_err(|e| format!("VirtualService {home}/{name}: {e}"))?;
    Ok((value, split(stores, namespace, istio)?))
}

/// The weights, unless calls for a destination would reach no Service.
fn read_weights(object: &Value, home: &str, reference: &VirtualServiceRef, split: &Split) -> Result<Vec<route::RouteWeights>, String> {
    let weights = route::read(object, &reference.routes, split).map_err(|e| e.to_string())?;
    match route::half_qualified(object, &weights).first() {
        Some((written, full)) if matches!(split, Split::Hosts { .. }) => {
            Err(format!("VirtualService {home}/{}: Istio takes host {written} as it is and finds no Service: write {full}", reference.name))
        }
        _ => Ok(weights),
    }
}

fn runs(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> Vec<RunSeen> {
    let uid = rollout.uid().unwrap_or_default();
    let mut all: Vec<RunSeen> = Vec::new();
    for guarded in stores.runs.within(namespace) {
        let Ok(run) = &guarded.0 else { continue };
        if !run.owner_references().iter().any(|o| o.uid == uid) || run.meta().deletion_timestamp.is_some() {
            continue;
        }
        let status = run.status.clone().unwrap_or_else(VoiceAnalysisRunStatus::default);
        all.push(RunSeen {
            name: run.name_any(),
            spec_hash: spec_hash(&run.spec),
            revision: run.spec.revision.clone(),
            attempt: run.spec.attempt,
            kind: run.spec.kind,
            stop: run.spec.stop,
            phase: status.phase,
            gates: status.gates,
            created: run.meta().creation_timestamp.as_ref().map(|t| t.0),
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn actions(stores: &Stores, rollout: &VoiceRollout, namespace: &str, verified: bool) -> Vec<ActionSeen> {
    let name = rollout.name_any();
    let mut open: Vec<(Option<Timestamp>, ActionSeen)> = Vec::new();
    for guarded in stores.actions.within(namespace) {
        let Ok(action) = &guarded.0 else { continue };
        let marked = action.status.as_ref().is_some_and(|s| s.state.is_some());
        if action.spec.rollout != name || marked || action.meta().deletion_timestamp.is_some() {
            continue;
        }
        let seen = ActionSeen {
            name: action.name_any(),
            uid: action.uid().unwrap_or_default(),
            revision: action.spec.revision.clone(),
            verb: action.spec.verb,
            reason: action.spec.reason.clone(),
            by: action.spec.requested_by.clone().map(|name| if verified { name } else { format!("{name}, unverified") }),
        };
        open.push((action.meta().creation_timestamp.as_ref().map(|t| t.0), seen));
    }
    open.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    open.into_iter().map(|(_, a)| a).collect()
}

/// Templates that the spec names.
pub fn named_templates(rollout: &VoiceRollout) -> impl Iterator<Item = &TemplateRef> {
    let steps = rollout.spec.steps.iter().flatten().filter_map(|s| s.analysis.as_ref());
    rollout.spec.analysis.iter().chain(steps).flat_map(|a| a.templates.iter())
}

fn templates(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> BTreeMap<(String, bool), TemplateContent> {
    let mut found = BTreeMap::new();
    for reference in named_templates(rollout) {
        let content = if reference.cluster {
            let object = stores.cluster_templates.get("", &reference.name);
            object.and_then(|t| t.0.as_ref().ok().map(|t| TemplateContent { args: t.spec.args.clone(), gates: t.spec.gates.clone() }))
        } else {
            let object = stores.templates.get(namespace, &reference.name);
            object.and_then(|t| t.0.as_ref().ok().map(|t| TemplateContent { args: t.spec.args.clone(), gates: t.spec.gates.clone() }))
        };
        if let Some(content) = content {
            found.insert((reference.name.clone(), reference.cluster), content);
        }
    }
    found
}

/// An older rollout that manages one of the same routes or Services.
fn rival(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> Option<String> {
    let mine = rollout.spec.traffic.istio.as_ref()?;
    older(stores, rollout).find_map(|other| {
        let (home, theirs) = (other.namespace().unwrap_or_default(), traffic(&other)?);
        let what = mine.virtual_services.iter().find_map(|v| shared_route(namespace, v, &home, theirs));
        let what = what.or_else(|| shared_service(namespace, mine, &home, theirs))?;
        Some(format!("{what} is managed by VoiceRollout {home}/{} already: one of the two has to let it go", other.name_any()))
    })
}

/// The rollouts that were there first.
fn older<'a>(stores: &'a Stores, rollout: &'a VoiceRollout) -> impl Iterator<Item = Arc<Guarded<VoiceRollout>>> + 'a {
    let age = |r: &VoiceRollout| (r.meta().creation_timestamp.as_ref().map(|t| t.0), r.namespace(), r.name_any());
    let own = age(rollout);
    stores.rollouts.all().filter(move |g| g.0.as_ref().is_ok_and(|other| other.uid() != rollout.uid() && age(other) <= own))
}

fn traffic(rollout: &Guarded<VoiceRollout>) -> Option<&IstioTraffic> {
    rollout.0.as_ref().ok()?.spec.traffic.istio.as_ref()
}

/// An older rollout manages the route.
fn is_theirs(stores: &Stores, rollout: &VoiceRollout, namespace: &str, reference: &VirtualServiceRef) -> bool {
    older(stores, rollout).any(|other| {
        let home = other.namespace().unwrap_or_default();
        traffic(&other).is_some_and(|theirs| shared_route(namespace, reference, &home, theirs).is_some())
    })
}

fn shared_route(namespace: &str, mine: &VirtualServiceRef, home: &str, theirs: &IstioTraffic) -> Option<String> {
    theirs.virtual_services.iter().find_map(|b| {
        let place = route_namespace(namespace, mine);
        let same = mine.name == b.name && place == route_namespace(home, b);
        let shared = mine.routes.is_empty() || b.routes.is_empty() || mine.routes.iter().any(|r| b.routes.contains(r));
        let route = || mine.routes.iter().find(|r| b.routes.contains(r)).map(|r| format!(" route {r}")).unwrap_or_default();
        (same && shared).then(|| format!("VirtualService {place}/{}{}", mine.name, route()))
    })
}

fn shared_service(namespace: &str, mine: &IstioTraffic, home: &str, theirs: &IstioTraffic) -> Option<String> {
    if namespace != home || mine.destination_rule.is_some() || theirs.destination_rule.is_some() {
        return None;
    }
    let services = |i: &IstioTraffic| [i.stable_service.clone(), i.canary_service.clone()].into_iter().flatten().collect::<Vec<_>>();
    let shared = services(mine).into_iter().find(|s| services(theirs).contains(s))?;
    Some(format!("Service {namespace}/{shared}"))
}
