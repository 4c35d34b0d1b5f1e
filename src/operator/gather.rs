//! Builds the observations of one rollout from the caches. Asks the API server nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::kept::{ROUTE, SERVICE, SliceKept};
use super::live::{self, LiveCalls};
use super::stores::{Guarded, Stores};
use super::{left, routes, surroundings};
use crate::api::VoiceRollout;
use crate::api::common::{FINALIZER, REVISION_LABEL, SERVING_LABEL};
use crate::api::rollout::{DestinationRuleRef, IstioTraffic, TemplateRef, VirtualServiceRef};
use crate::core::machine::Subject;
use crate::core::notify::NotificationsSeen;
use crate::core::observe::{ActionSeen, ArmSeen, Observations, ReplicaSetSeen, RouteSeen, RunSeen};
use crate::core::plan::as_json;
use crate::core::resolve::TemplateContent;
use crate::core::revision::revision_hash;
use crate::core::route::{self, Own, Split, Wanted};

/// Keys of selectors that we write; the template does not have them.
const OURS: [&str; 2] = [REVISION_LABEL, SERVING_LABEL];

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

/// ReplicaSets of the rollout, with what their pods say. Their controller does not count pods that were asked to end; those
/// of workers may carry calls. Of a set that is to have none, every pod is one of them, whether or not its cache shows that
/// yet.
fn replica_sets(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> Vec<ReplicaSetSeen> {
    let mut sets = stores.replica_sets_of(namespace, &rollout.uid().unwrap_or_default());
    let workers = rollout.spec.traffic.replicas.is_some();
    for (_, pod) in stores.pods_of(namespace, &rollout.name_any()) {
        let Some(set) = sets.iter_mut().find(|s| *s.name == *pod.set) else { continue };
        set.out += i32::from(pod.out(set.labelled).is_some() && pod.ready && !pod.facts.ending);
        set.ending += i32::from(workers && !pod.over && (pod.facts.ending || set.wanted == 0));
    }
    sets
}

/// The world, as far as it concerns one rollout.
pub fn gather(stores: &Stores, live: &LiveCalls, rollout: &VoiceRollout, now: Timestamp, actions_verified: bool) -> Observations {
    let namespace = rollout.namespace().unwrap_or_default();
    let istio = rollout.spec.traffic.istio.as_ref();
    let uid = rollout.uid().unwrap_or_default();
    let replica_sets = replica_sets(stores, rollout, &namespace);
    let arms = match istio {
        Some(istio) => arms(stores, rollout, &namespace, istio, &replica_sets),
        None => (unusable_arm("traffic"), unusable_arm("traffic")),
    };
    let (pods, cut) = live::pods(stores, live, rollout, &replica_sets, now);
    let surroundings = surroundings::of(stores, rollout, &namespace, &replica_sets, &pods);
    let split = istio.and_then(|i| split(stores, &namespace, i).ok());
    let rival = rival(stores, rollout, &namespace);
    let theirs = |v| rival.is_some() && is_theirs(stores, rollout, &namespace, v);
    let own = own(rollout);
    let seen = |i: &IstioTraffic, v| RouteSeen { theirs: theirs(v), ..route_seen(stores, &namespace, i, v, &own) };
    let routes: Vec<RouteSeen> = istio.iter().flat_map(|i| i.virtual_services.iter().map(|v| seen(i, v))).collect();
    Observations {
        now,
        deleting: rollout.meta().deletion_timestamp.is_some(),
        finalizer: rollout.finalizers().iter().any(|f| f == FINALIZER),
        target: revision_hash(&rollout.spec.template),
        rollout: as_json(rollout),
        left: left::routes(stores, rollout, &namespace, &routes, split.as_ref(), &replica_sets),
        budgets: live::budgets(stores, rollout, &replica_sets),
        replica_sets,
        pods,
        cut,
        stable_arm: arms.0,
        canary_arm: arms.1,
        routes,
        split,
        runs: stores.runs_of(&namespace, &uid).iter().filter_map(|r| r.seen.clone()).collect::<Vec<RunSeen>>(),
        actions: actions(stores, rollout, &namespace, actions_verified),
        templates: templates(stores, rollout, &namespace),
        rival,
        surroundings,
        // The caller knows.
        notifications: NotificationsSeen::default(),
    }
}

fn unusable_arm(name: &str) -> ArmSeen {
    ArmSeen { name: name.into(), problem: Some(format!("{name} is not set")), selects: None, labelled: false, ready: BTreeMap::new() }
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
    let broken =
        |problem: String| ArmSeen { name: title.clone(), problem: Some(problem), selects: None, labelled: false, ready: BTreeMap::new() };
    let Some(service) = stores.services.get(namespace, name) else {
        return broken(format!("{title} does not exist in namespace {namespace}: create it, with a selector for the agent's pods"));
    };
    let selector = &service.selector;
    if selector.is_empty() {
        return broken(format!("{title} has no selector: give it one that matches the agent's pods"));
    }
    let labels = rollout.spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if let Some((key, value)) = selector.iter().find(|(k, v)| !OURS.contains(&k.as_str()) && labels.get(*k) != Some(v)) {
        return broken(format!("{title} selects {key}={value}, which spec.template does not carry: it would select nothing"));
    }
    let mut ready = BTreeMap::new();
    for slice in stores.slices_of(namespace, name) {
        count_ready(stores, namespace, &slice, &mut ready);
    }
    let labelled = selector.contains_key(SERVING_LABEL);
    ArmSeen { name: title, problem: None, selects: selector.get(REVISION_LABEL).cloned(), labelled, ready }
}

fn count_ready(stores: &Stores, namespace: &str, slice: &SliceKept, ready: &mut BTreeMap<String, i32>) {
    for pod in &slice.ready {
        // An endpoint of nobody's revision counts under the empty hash: the arm is not the revision's alone.
        let revision = stores.pod_revision(namespace, pod).unwrap_or_default();
        *ready.entry(revision).or_insert(0) += 1;
    }
}

/// A subset as an arm.
pub fn subset_arm(stores: &Stores, namespace: &str, rule: &DestinationRuleRef, subset: &str, sets: &[ReplicaSetSeen]) -> ArmSeen {
    let title = format!("subset {subset} of DestinationRule {}", rule.name);
    let broken =
        |problem: String| ArmSeen { name: title.clone(), problem: Some(problem), selects: None, labelled: false, ready: BTreeMap::new() };
    let Some(object) = stores.destination_rules.get(namespace, &rule.name).map(|o| o.object()) else {
        return broken(format!(
            "DestinationRule {} does not exist in namespace {namespace}: create it with subsets {} and {}",
            rule.name, rule.stable_subset, rule.canary_subset
        ));
    };
    let subsets = object.data.pointer("/spec/subsets").and_then(Value::as_array);
    let Some(found) = subsets.and_then(|all| all.iter().find(|s| s["name"] == subset)) else {
        return broken(format!("{title} does not exist: add it to spec.subsets"));
    };
    let label = |key: &str| found.pointer("/labels").and_then(|l| l.get(key)).and_then(Value::as_str).map(String::from);
    let (selects, labelled) = (label(REVISION_LABEL), label(SERVING_LABEL).is_some());
    let count = |s: &ReplicaSetSeen| if labelled { s.serving() } else { s.ready };
    let ready = selects.iter().filter_map(|h| sets.iter().find(|s| &s.hash == h)).map(|s| (s.hash.clone(), count(s))).collect();
    ArmSeen { name: title, problem: None, selects, labelled, ready }
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
    let object = stores.destination_rules.get(namespace, &rule.name).map(|o| o.object());
    let host = object.as_ref().and_then(|o| o.data.pointer("/spec/host")).and_then(Value::as_str);
    let host = host.ok_or_else(|| format!("DestinationRule {} does not exist in namespace {namespace}, or has no host", rule.name))?;
    Ok(Split::Subsets {
        host: host.into(),
        namespace: namespace.into(),
        stable: rule.stable_subset.clone(),
        canary: rule.canary_subset.clone(),
    })
}

/// The http routes that are this rollout's own, and what they should be.
pub fn own(rollout: &VoiceRollout) -> Own {
    let buckets = rollout.spec.traffic.istio.as_ref().and_then(|i| i.stickiness.as_ref()).and_then(|s| s.header_buckets.as_ref());
    let wanted = match buckets {
        None => Wanted::None,
        Some(buckets) if route::problems(buckets, "").is_empty() => Wanted::Buckets(buckets.clone()),
        Some(_) => Wanted::AsTheyAre,
    };
    Own::new(&rollout.namespace().unwrap_or_default(), &rollout.name_any(), wanted)
}

/// Namespace of a VirtualService reference.
pub fn route_namespace<'a>(namespace: &'a str, reference: &'a VirtualServiceRef) -> &'a str {
    if reference.namespace.is_empty() { namespace } else { &reference.namespace }
}

fn route_seen(stores: &Stores, namespace: &str, istio: &IstioTraffic, reference: &VirtualServiceRef, own: &Own) -> RouteSeen {
    let home = route_namespace(namespace, reference);
    let none = RouteSeen {
        namespace: home.into(),
        name: reference.name.clone(),
        names: reference.routes.clone(),
        theirs: false,
        weights: Ok(Vec::new()),
        readable: Vec::new(),
        strays: false,
        shadowed: None,
    };
    let (object, split) = match writable_route(stores, namespace, home, istio, reference) {
        Err(problem) => return RouteSeen { weights: Err(problem), ..none },
        Ok(found) => found,
    };
    let weights = read_weights(&object, home, reference, &split, own);
    let readable = match (&weights, reference.routes.as_slice()) {
        (Ok(_), _) => Vec::new(),
        (Err(_), []) => route::read(&object, &[], &split, own).unwrap_or_default(),
        (Err(_), names) => {
            names.iter().flat_map(|name| route::read(&object, std::slice::from_ref(name), &split, own).unwrap_or_default()).collect()
        }
    };
    let all = weights.as_ref().unwrap_or(&readable);
    let strays = own.has_strays(&object, all.iter().map(|w| w.route.as_str()));
    RouteSeen { strays, shadowed: route::shadowed(&object, own, all), weights, readable, ..none }
}

/// The VirtualService, if this rollout may write it, and how its destinations are told apart.
pub(super) fn writable_route(
    stores: &Stores,
    namespace: &str,
    home: &str,
    istio: &IstioTraffic,
    reference: &VirtualServiceRef,
) -> Result<(Value, Split), String> {
    let name = &reference.name;
    let Some(object) = stores.virtual_services.get(home, name).map(|o| o.object()) else {
        return Err(format!("VirtualService {home}/{name} does not exist: create it, with the stable and the canary destination"));
    };
    if !routes::allowed_from(&object, namespace) {
        return Err(format!(
            "VirtualService {home}/{name} does not allow namespace {namespace}: annotate it with {}: {namespace}",
            crate::api::common::ALLOW_FROM_ANNOTATION
        ));
    }
    let value = serde_json::to_value(&object).map_err(|e| format!("VirtualService {home}/{name}: {e}"))?;
    Ok((value, split(stores, namespace, istio)?))
}

/// The weights, unless calls for a destination would reach no Service.
fn read_weights(
    object: &Value,
    home: &str,
    reference: &VirtualServiceRef,
    split: &Split,
    own: &Own,
) -> Result<Vec<route::RouteWeights>, String> {
    let weights = route::read(object, &reference.routes, split, own).map_err(|e| e.to_string())?;
    own.check(object, &weights).map_err(|e| e.to_string())?;
    match route::half_qualified(object, &weights).first() {
        Some((written, full)) if matches!(split, Split::Hosts { .. }) => {
            Err(format!("VirtualService {home}/{}: Istio takes host {written} as it is and finds no Service: write {full}", reference.name))
        }
        _ => Ok(weights),
    }
}

fn actions(stores: &Stores, rollout: &VoiceRollout, namespace: &str, verified: bool) -> Vec<ActionSeen> {
    let mut open = stores.actions_for(namespace, &rollout.name_any());
    // They come by name, which the sort keeps among those of one age.
    open.sort_by_key(|a| a.created);
    let unverified = |a: ActionSeen| ActionSeen { by: a.by.map(|name| format!("{name}, unverified")), ..a };
    let seen = open.iter().filter_map(|a| a.seen.clone());
    seen.map(|a| if verified { a } else { unverified(a) }).collect()
}

/// Templates that the spec names.
pub fn named_templates(rollout: &VoiceRollout) -> impl Iterator<Item = &TemplateRef> {
    let steps = rollout.spec.steps.iter().flatten().filter_map(|s| s.analysis.as_ref());
    rollout.spec.analysis.iter().chain(steps).flat_map(|a| a.templates.iter())
}

fn templates(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> BTreeMap<(String, bool), TemplateContent> {
    let content = |reference: &TemplateRef| {
        let (cache, home) = if reference.cluster { (&stores.cluster_templates, "") } else { (&stores.templates, namespace) };
        cache.get(home, &reference.name)?.0.clone()
    };
    named_templates(rollout).filter_map(|r| Some(((r.name.clone(), r.cluster), content(r)?))).collect()
}

/// An older rollout that manages one of the same routes or Services.
fn rival(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> Option<String> {
    let mine = rollout.spec.traffic.istio.as_ref()?;
    older(stores, rollout, namespace).iter().find_map(|other| {
        let (home, theirs) = (other.namespace().unwrap_or_default(), traffic(other)?);
        let what = mine.virtual_services.iter().find_map(|v| shared_route(namespace, v, &home, theirs));
        let what = what.or_else(|| shared_service(namespace, mine, &home, theirs))?;
        Some(format!("{what} is managed by VoiceRollout {home}/{} already: one of the two has to let it go", other.name_any()))
    })
}

/// The rollouts that were there first, among those that name a route or Service that this one names.
fn older(stores: &Stores, rollout: &VoiceRollout, namespace: &str) -> Vec<Arc<Guarded<VoiceRollout>>> {
    let Some(mine) = rollout.spec.traffic.istio.as_ref() else { return Vec::new() };
    let age = |r: &VoiceRollout| (r.meta().creation_timestamp.as_ref().map(|t| t.0), r.namespace(), r.name_any());
    let own = age(rollout);
    let services = mine.stable_service.iter().chain(&mine.canary_service).map(|s| (SERVICE, namespace, s));
    let routes = mine.virtual_services.iter().map(|v| (ROUTE, route_namespace(namespace, v), &v.name));
    let others = routes.chain(services).flat_map(|(kind, home, name)| stores.rollouts.naming(kind, home, name));
    let others = others.filter_map(|id| stores.rollouts.get(&id.namespace, &id.name));
    others.filter(|g| g.0.as_ref().is_ok_and(|other| other.uid() != rollout.uid() && age(other) <= own)).collect()
}

fn traffic(rollout: &Guarded<VoiceRollout>) -> Option<&IstioTraffic> {
    rollout.0.as_ref().ok()?.spec.traffic.istio.as_ref()
}

/// An older rollout manages the route.
fn is_theirs(stores: &Stores, rollout: &VoiceRollout, namespace: &str, reference: &VirtualServiceRef) -> bool {
    older(stores, rollout, namespace).iter().any(|other| {
        let home = other.namespace().unwrap_or_default();
        traffic(other).is_some_and(|theirs| shared_route(namespace, reference, &home, theirs).is_some())
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
