//! Generated routes as they are, and the operations that make them what they should be.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use serde_json::Value;

use super::buckets::{self, CANARY, weight_of};
use super::{Buckets, RouteError, RouteWeights, pointer, test};
use crate::api::stickiness::HeaderBuckets;

/// Start of the names of all generated routes, of every rollout.
const PREFIX: &str = "vr/";

/// The http routes of one rollout's own, and what they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Start of their names; empty for a rollout that can have none.
    prefix: String,
    /// Whether there should be any.
    wanted: Wanted,
    /// Of this managed route alone; those of others are not looked at.
    of: Option<String>,
}

/// Whether there should be generated routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    #[default]
    None,
    /// While a managed route has canary weight.
    Buckets(HeaderBuckets),
    /// The settings are wrong: those that are there stay while their route has canary weight.
    AsTheyAre,
}

/// A generated route.
struct Found<'a> {
    /// Index in `spec.http`.
    index: usize,
    /// Name of the managed route that it was made for.
    target: &'a str,
    /// What it is for.
    part: &'a str,
}

impl Own {
    /// Of the rollout `name` of `namespace`.
    pub fn new(namespace: &str, name: &str, wanted: Wanted) -> Self {
        // Neither a namespace nor a name has a slash: nobody else's routes begin so.
        Self { prefix: format!("{PREFIX}{namespace}/{name}/"), wanted, of: None }
    }

    /// The same of one managed route, which should have none.
    pub fn of_left(&self, route: &str) -> Self {
        Self { prefix: self.prefix.clone(), wanted: Wanted::None, of: Some(route.to_owned()) }
    }

    fn buckets(&self) -> Option<&HeaderBuckets> {
        if let Wanted::Buckets(buckets) = &self.wanted { Some(buckets) } else { None }
    }

    fn found<'a>(&'a self, http: &'a [Value]) -> impl Iterator<Item = Found<'a>> {
        let read = |(index, route): (usize, &'a Value)| {
            let (target, part) = route["name"].as_str()?.strip_prefix(&self.prefix)?.rsplit_once('/')?;
            Some(Found { index, target, part })
        };
        let known = http.iter().enumerate().filter(|_| !self.prefix.is_empty()).filter_map(read);
        known.filter(|f| self.of.as_deref().is_none_or(|of| of == f.target))
    }

    /// Http route number `index` is generated.
    pub(super) fn is_generated(&self, route: &Value) -> bool {
        !self.prefix.is_empty() && route["name"].as_str().is_some_and(|name| name.starts_with(&self.prefix))
    }

    /// Generated routes of others than the managed ones.
    pub fn has_strays<'a>(&self, vs: &Value, managed: impl IntoIterator<Item = &'a str>) -> bool {
        let managed: Vec<&str> = managed.into_iter().collect();
        self.found(http(vs)).any(|f| !managed.contains(&f.target))
    }

    /// What the generated routes of a managed one say.
    pub(super) fn state(&self, vs: &Value, weights: &RouteWeights) -> Buckets {
        let http = http(vs);
        let mine: Vec<Found> = self.found(http).filter(|f| f.target == weights.route).collect();
        if mine.is_empty() {
            return if self.buckets().is_some() { Buckets::Absent } else { Buckets::Unused };
        }
        let canary = mine.iter().find(|f| f.part == CANARY);
        let share = canary.map_or(0, |f| share(&http[f.index]));
        let right = match &self.wanted {
            Wanted::None => false,
            Wanted::AsTheyAre if weights.canary > 0 => return Buckets::At(weights.canary),
            Wanted::AsTheyAre => false,
            Wanted::Buckets(_) => share > 0 && self.stands(http, weights, share),
        };
        if right { Buckets::At(share) } else { Buckets::Wrong(share) }
    }

    /// The routes above a managed one are those that belong there at a weight, and there are no more.
    fn stands(&self, http: &[Value], weights: &RouteWeights, weight: i64) -> bool {
        let wanted = self.block(http, weights, weight);
        let mine: Vec<usize> = self.found(http).filter(|f| f.target == weights.route).map(|f| f.index).collect();
        let first = weights.index.checked_sub(wanted.len());
        first.is_some_and(|first| mine.iter().copied().eq(first..weights.index)) && mine.iter().zip(&wanted).all(|(i, w)| &http[*i] == w)
    }

    /// What should stand above a managed route; nothing where that cannot be made.
    fn block(&self, http: &[Value], weights: &RouteWeights, weight: i64) -> Vec<Value> {
        self.make(http, weights, weight).unwrap_or_default()
    }

    fn make(&self, http: &[Value], weights: &RouteWeights, weight: i64) -> Result<Vec<Value>, String> {
        let Some(settings) = self.buckets().filter(|_| weight > 0) else { return Ok(Vec::new()) };
        let name = |part: &str| format!("{}{}/{part}", self.prefix, weights.route);
        buckets::block(settings, &http[weights.index], weights, weight, &name)
    }

    /// Why the generated routes cannot be made for one of the managed ones.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self, vs: &Value, routes: &[RouteWeights]) -> Result<(), RouteError> {
        for route in routes {
            self.make(http(vs), route, 100).map_err(|what| {
                let id = |field: &str| vs["metadata"][field].as_str().unwrap_or_default().to_owned();
                let called = if route.route.is_empty() { "its http route".to_owned() } else { format!("http route {:?}", route.route) };
                RouteError::from((format!("{}/{}", id("namespace"), id("name")).as_str(), format!("{called}: {what}")))
            })?;
        }
        Ok(())
    }
}

/// Percent of the buckets that a generated canary route takes: all, when it is not one that we have written.
fn share(route: &Value) -> i64 {
    let headers = route["match"][0]["headers"].as_object();
    let regexes = headers.into_iter().flat_map(|h| h.values()).filter_map(|condition| condition["regex"].as_str());
    regexes.filter_map(weight_of).next().unwrap_or(100)
}

/// Http routes to take away and to put in, in one patch with the weights.
pub(super) struct Moves<'a> {
    own: &'a Own,
    http: &'a [Value],
    away: Vec<usize>,
    new: Vec<(usize, Vec<Value>)>,
}

impl<'a> Moves<'a> {
    pub fn new(own: &'a Own, vs: &'a Value) -> Self {
        Self { own, http: http(vs), away: Vec::new(), new: Vec::new() }
    }

    /// Makes the routes above a managed one what belongs there at `weight`; false when they are.
    pub fn want(&mut self, route: &RouteWeights, weight: i64) -> bool {
        let kept = self.own.wanted == Wanted::AsTheyAre && weight > 0;
        if kept || self.own.stands(self.http, route, weight) {
            return false;
        }
        self.away.extend(self.own.found(self.http).filter(|f| f.target == route.route).map(|f| f.index));
        self.new.push((route.index, self.own.block(self.http, route, weight)));
        true
    }

    /// Takes away those of routes that are not `managed`.
    pub fn drop_strays(&mut self, managed: &[RouteWeights]) {
        let stray = |f: &Found| managed.iter().all(|r| r.route != f.target);
        self.away.extend(self.own.found(self.http).filter(stray).map(|f| f.index));
    }

    /// Something is put in, and rests on the managed route's other fields.
    pub fn adds(&self) -> bool {
        self.new.iter().any(|(_, block)| !block.is_empty())
    }

    /// Tests on the routes as they were read, and what to do after the weights are written: from the last route to the
    /// first, so that no index moves before its turn.
    pub fn operations(mut self) -> (Vec<PatchOperation>, Vec<PatchOperation>) {
        self.away.sort_unstable_by(|a, b| b.cmp(a));
        self.new.sort_by(|(a, _), (b, _)| b.cmp(a));
        let at = |index: usize, rest: &[&str]| pointer(&["spec", "http"], index, rest);
        let tests = self.away.iter().map(|i| test(at(*i, &["name"]), self.http[*i]["name"].clone())).collect();
        let remove = |path: PointerBuf| PatchOperation::Remove(RemoveOperation { path });
        let mut writes: Vec<PatchOperation> = self.away.iter().map(|i| remove(at(*i, &[]))).collect();
        for (index, block) in self.new {
            let index = index - self.away.iter().filter(|i| **i < index).count();
            let insert = |value: Value| PatchOperation::Add(AddOperation { path: at(index, &[]), value });
            writes.extend(block.into_iter().rev().map(insert));
        }
        (tests, writes)
    }
}

fn http(vs: &Value) -> &[Value] {
    vs["spec"]["http"].as_array().map_or(&[], Vec::as_slice)
}

/// Some rollout may have made the http route.
pub fn may_be_generated(route: &Value) -> bool {
    route["name"].as_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// An http route above a managed one that takes every call, so that none reaches it. Only told: it is not ours.
pub fn shadowed(vs: &Value, own: &Own, routes: &[RouteWeights]) -> Option<String> {
    let takes_all = |route: &Value| match &route["match"] {
        Value::Null => true,
        Value::Array(all) => all.is_empty() || all.iter().any(|m| m.as_object().is_some_and(|m| m.keys().all(|k| k == "name"))),
        _ => false,
    };
    let lowest = routes.iter().max_by_key(|r| r.index)?;
    let above = http(vs).iter().take(lowest.index).enumerate();
    let (index, route) = above.filter(|(i, r)| !own.is_generated(r) && routes.iter().all(|m| m.index != *i)).find(|(_, r)| takes_all(r))?;
    let hidden = routes.iter().find(|r| r.index > index)?;
    let name = |n: &str| if n.is_empty() { "without a name".to_owned() } else { format!("{n:?}") };
    let (id, above) = (&vs["metadata"], name(route["name"].as_str().unwrap_or_default()));
    let (namespace, vs) = (id["namespace"].as_str().unwrap_or_default(), id["name"].as_str().unwrap_or_default());
    Some(format!(
        "VirtualService {namespace}/{vs}: http route {above} stands above {} and takes every call: no call reaches what is managed; move it below",
        name(&hidden.route)
    ))
}
