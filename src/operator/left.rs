//! Managed routes that the spec does not name any more, as they are.

use kube::ResourceExt;

use super::gather::{own, route_namespace, service_arm, subset_arm};
use super::kept::ROUTE;
use super::routes;
use super::stores::Stores;
use crate::api::VoiceRollout;
use crate::api::rollout::DestinationRuleRef;
use crate::api::status::ManagedRoute;
use crate::core::managed::{self, split_of, title};
use crate::core::observe::{LeftRoute, ReplicaSetSeen, RouteSeen};
use crate::core::route::{self, Buckets, RouteWeights, Split};

/// The routes of `status.managedRoutes` that are not among `named`.
pub fn routes(
    stores: &Stores,
    rollout: &VoiceRollout,
    namespace: &str,
    named: &[RouteSeen],
    split: Option<&Split>,
    sets: &[ReplicaSetSeen],
) -> Vec<LeftRoute> {
    let all = rollout.status.iter().flat_map(|s| &s.managed_routes);
    let names = || named.iter().map(|r| (r.namespace.as_str(), r.name.as_str(), r.names.as_slice()));
    let left = all.filter(|r| !managed::is_named(r, split, names()));
    left.map(|r| LeftRoute {
        route: r.clone(),
        weights: weights(stores, rollout, namespace, r),
        stable_answers: stable_answers(stores, rollout, namespace, r, sets),
    })
    .collect()
}

/// Names for [`route::read`].
pub fn names(route: &ManagedRoute) -> Vec<String> {
    if route.route.is_empty() { Vec::new() } else { vec![route.route.clone()] }
}

fn weights(stores: &Stores, rollout: &VoiceRollout, namespace: &str, left: &ManagedRoute) -> Result<RouteWeights, String> {
    let (home, name) = (&left.namespace, &left.virtual_service);
    let object = stores.virtual_services.get(home, name).map(|o| o.object());
    let object = object.ok_or_else(|| format!("VirtualService {home}/{name} does not exist any more"))?;
    if !routes::allowed_from(&object, namespace) {
        return Err(format!("VirtualService {home}/{name} does not allow namespace {namespace} any more"));
    }
    if let Some(other) = taken_over(stores, rollout, left) {
        return Err(format!("{} is managed by VoiceRollout {other} now", title(left)));
    }
    let value = serde_json::to_value(&object).map_err(|e| format!("VirtualService {home}/{name}: {e}"))?;
    let own = own(rollout).of_left(&left.route);
    let found = match route::read(&value, &names(left), &split_of(left, namespace), &own) {
        Ok(found) => found,
        // What was made for it goes on sending calls.
        Err(_) if own.has_strays(&value, []) => vec![RouteWeights {
            route: left.route.clone(),
            index: 0,
            stable_at: 0,
            canary_at: 1,
            stable: 100,
            canary: 0,
            buckets: Buckets::Wrong(100),
        }],
        Err(error) => return Err(error.to_string()),
    };
    found.into_iter().next().ok_or_else(|| format!("{} does not exist any more", title(left)))
}

/// Another rollout that names the route.
fn taken_over(stores: &Stores, rollout: &VoiceRollout, left: &ManagedRoute) -> Option<String> {
    let others = stores.rollouts.naming(ROUTE, &left.namespace, &left.virtual_service);
    let others = others.into_iter().filter_map(|id| stores.rollouts.get(&id.namespace, &id.name));
    others.filter(|g| g.uid() != rollout.uid()).find_map(|guarded| {
        let other = guarded.0.as_ref().ok()?;
        let home = other.namespace().unwrap_or_default();
        let named = other.spec.traffic.istio.iter().flat_map(|i| &i.virtual_services);
        let named = named.map(|v| (route_namespace(&home, v), v.name.as_str(), v.routes.as_slice()));
        managed::is_named(left, None, named).then(|| format!("{home}/{}", other.name_any()))
    })
}

fn stable_answers(stores: &Stores, rollout: &VoiceRollout, namespace: &str, left: &ManagedRoute, sets: &[ReplicaSetSeen]) -> bool {
    let (stable, canary) = match &left.host {
        None => (service_arm(stores, rollout, namespace, &left.stable), service_arm(stores, rollout, namespace, &left.canary)),
        Some(host) => {
            let name = stores.rule_about(namespace, host).unwrap_or_default();
            let (stable_subset, canary_subset) = (left.stable.clone(), left.canary.clone());
            let rule = DestinationRuleRef { name, stable_subset, canary_subset };
            (
                subset_arm(stores, namespace, &rule, &rule.stable_subset, sets),
                subset_arm(stores, namespace, &rule, &rule.canary_subset, sets),
            )
        }
    };
    stable.has_endpoints() || !canary.has_endpoints()
}
