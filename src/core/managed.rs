//! Http routes that a rollout has given canary traffic. The status remembers them, so that one which the spec does not
//! name any more is given back to stable.

use crate::api::status::ManagedRoute;
use crate::core::route::{RouteWeights, Split};

/// Most routes that are remembered: as many as a spec can name.
pub const MAX_MANAGED: usize = 512;

/// How a route is remembered.
pub fn remembered(namespace: &str, name: &str, weights: &RouteWeights, split: &Split) -> ManagedRoute {
    let (host, stable, canary) = match split.clone() {
        Split::Hosts { stable, canary, .. } => (None, stable, canary),
        Split::Subsets { host, stable, canary, .. } => (Some(host), stable, canary),
    };
    ManagedRoute { namespace: namespace.into(), virtual_service: name.into(), route: weights.route.clone(), host, stable, canary }
}

/// How the two arms are told apart in a remembered route of a rollout in `home`.
pub fn split_of(route: &ManagedRoute, home: &str) -> Split {
    let (namespace, stable, canary) = (home.to_string(), route.stable.clone(), route.canary.clone());
    match route.host.clone() {
        None => Split::Hosts { namespace, stable, canary },
        Some(host) => Split::Subsets { host, namespace, stable, canary },
    }
}

/// A VirtualService that the spec names: its namespace and name, and the http routes (none: the only one).
pub type Named<'a> = (&'a str, &'a str, &'a [String]);

/// The spec still names the route, and tells its arms apart as it did. `split` is `None` where that is not known.
pub fn is_named<'a>(route: &ManagedRoute, split: Option<&Split>, named: impl IntoIterator<Item = Named<'a>>) -> bool {
    let same = split.is_none_or(|split| match split {
        Split::Hosts { stable, canary, .. } => route.host.is_none() && (stable, canary) == (&route.stable, &route.canary),
        Split::Subsets { host, stable, canary, .. } => {
            route.host.as_ref() == Some(host) && (stable, canary) == (&route.stable, &route.canary)
        }
    });
    let names = |(namespace, name, routes): Named| {
        (namespace, name) == (route.namespace.as_str(), route.virtual_service.as_str())
            && (routes.is_empty() || routes.contains(&route.route))
    };
    same && named.into_iter().any(names)
}

/// How messages name a route.
pub fn title(route: &ManagedRoute) -> String {
    let place = format!("VirtualService {}/{}", route.namespace, route.virtual_service);
    if route.route.is_empty() { place } else { format!("{place} route {}", route.route) }
}
