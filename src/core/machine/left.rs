//! Routes that the spec does not name any more while they give the canary calls: given back to stable, and then let go.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Machine, after};
use crate::api::status::ManagedRoute;
use crate::core::intent::Intent;
use crate::core::managed::{self, MAX_MANAGED};
use crate::core::observe::LeftRoute;

/// Wait before such a route is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Machine<'_> {
    /// Remembers the routes that are given canary traffic until they are seen without, and gives back those that the
    /// spec does not name any more.
    pub(super) fn keep_routes(&mut self) {
        let seen = self.seen;
        let raised = self.s.weights.desired > 0 && !self.foreign();
        let mut kept = std::mem::take(&mut self.s.managed_routes);
        kept.retain(|r| raised || !self.names(r) || !self.is_back(r));
        if let Some(split) = seen.split.as_ref().filter(|_| raised) {
            for route in &seen.routes {
                for weights in route.weights.as_ref().unwrap_or(&route.readable) {
                    let new = managed::remembered(&route.namespace, &route.name, weights, split);
                    if !kept.contains(&new) && kept.len() < MAX_MANAGED {
                        kept.push(new);
                    }
                }
            }
        }
        self.s.managed_routes = kept;
        self.give_back();
    }

    /// The spec names the route.
    fn names(&self, route: &ManagedRoute) -> bool {
        let named = self.seen.routes.iter().map(|r| (r.namespace.as_str(), r.name.as_str(), r.names.as_slice()));
        managed::is_named(route, self.seen.split.as_ref(), named)
    }

    /// Its VirtualService was seen with all calls at stable.
    fn is_back(&self, route: &ManagedRoute) -> bool {
        let of = |namespace: &str, name: &str| (namespace, name) == (route.namespace.as_str(), route.virtual_service.as_str());
        self.seen.routes.iter().filter(|r| of(&r.namespace, &r.name)).all(|r| r.says(0))
    }

    /// Routes that are remembered and not named any more, as they are.
    fn left(&self) -> Vec<LeftRoute> {
        let known = |l: &&LeftRoute| self.s.managed_routes.contains(&l.route);
        self.seen.left.iter().filter(known).cloned().collect()
    }

    /// Those of them that still give the canary calls.
    pub(super) fn left_behind(&self) -> Vec<LeftRoute> {
        self.left().into_iter().filter(|l| !self.let_go(l) && l.weights.as_ref().is_ok_and(|w| !w.is_clear())).collect()
    }

    /// The same http route under the name that the spec has for it now.
    fn let_go(&self, left: &LeftRoute) -> bool {
        left.weights.as_ref().is_ok_and(|w| self.names(&ManagedRoute { route: w.route.clone(), ..left.route.clone() }))
    }

    /// Nothing tells when a route changes that the spec does not name.
    pub(super) fn look_again(&mut self) {
        self.wakes.push(after(&MicroTime(self.now()), LOOK_AGAIN));
    }

    fn give_back(&mut self) {
        let (mut back, mut lost) = (Vec::new(), Vec::new());
        for left in self.left() {
            let renamed = self.let_go(&left);
            match &left.weights {
                Ok(weights) if !weights.is_clear() && !renamed => {
                    // As long as another rollout is in the way, its Services may be meant.
                    let free = !self.foreign();
                    if free {
                        self.look_again();
                    }
                    if free && (left.stable_answers || self.plan.replicas == 0) {
                        let by = if self.abort_is_recorded() { &mut self.urgent } else { &mut self.intents };
                        by.push(Intent::ReturnRoute { route: left.route });
                    }
                    continue;
                }
                Ok(_) if renamed => {}
                Ok(_) => back.push(managed::title(&left.route)),
                Err(why) => lost.push(why.clone()),
            }
            self.s.managed_routes.retain(|r| *r != left.route);
        }
        if !back.is_empty() {
            let reason = format!("not in the spec any more, and all its new calls go to stable: {}", listed(&back));
            self.record("RouteReturned", reason, None, false);
        }
        if !lost.is_empty() {
            let reason = format!("not in the spec any more, and left as it is: {}", listed(&lost));
            self.record("RouteLeft", reason, None, true);
        }
    }

    /// What is told of routes that still give the canary calls.
    pub(super) fn left_note(&self) -> Option<String> {
        let left = self.left_behind();
        let first = left.first()?;
        let weight = first.weights.as_ref().map_or(0, |w| w.given());
        let what = match left.iter().find(|l| !l.stable_answers) {
            _ if self.foreign() => "left to the other rollout".to_string(),
            Some(l) if self.plan.replicas > 0 => format!("given back when {} has a ready pod", l.route.stable),
            _ => "given back to stable".to_string(),
        };
        let names: Vec<String> = left.iter().map(|l| managed::title(&l.route)).collect();
        Some(format!("{} is not in the spec any more and gives the canary {weight} %: {what}", listed(&names)))
    }
}

/// The first few, and how many more.
fn listed(names: &[String]) -> String {
    match names {
        [a, b, c, more @ ..] if !more.is_empty() => format!("{a}, {b}, {c} and {} more", more.len()),
        _ => names.join(", "),
    }
}
