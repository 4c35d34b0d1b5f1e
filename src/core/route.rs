//! Weights in a VirtualService: read them, and make the smallest edit that changes them.
//!
//! The edit is an RFC 6902 patch that first tests that each touched route is still the one that was read, and then
//! writes the weights of its two destinations, and the http routes above it that are ours. Nothing else of the object is
//! named in it, so every other field, known or unknown, stays as it was.

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use serde_json::Value;

#[cfg(test)]
mod bucket_tests;
mod buckets;
mod host;
mod leads;
mod own;
mod subset;
#[cfg(test)]
mod tests;

pub use buckets::{below, problems};
pub use leads::{Lead, LeadKind, leads};
use own::Moves;
pub use own::{Own, Wanted, may_be_generated, shadowed};
pub use subset::subset_patch;

/// How the two arms are told apart in a route's destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// By host: two Services of the rollout's namespace.
    Hosts {
        /// Namespace of the Services.
        namespace: String,
        /// Name of the stable Service.
        stable: String,
        /// Name of the canary Service.
        canary: String,
    },
    /// By subset of one host.
    Subsets {
        /// Host of the DestinationRule, as written there; resolved in the rollout's namespace.
        host: String,
        /// Namespace of the rollout.
        namespace: String,
        /// Name of the stable subset.
        stable: String,
        /// Name of the canary subset.
        canary: String,
    },
}

/// One managed http route as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteWeights {
    /// Name of the http route; empty for the only, unnamed one.
    pub route: String,
    /// Index in `spec.http`.
    pub index: usize,
    /// Index of the stable destination.
    pub stable_at: usize,
    /// Index of the canary destination.
    pub canary_at: usize,
    /// Stable weight; an absent one is 0.
    pub stable: i64,
    /// Canary weight; an absent one is 0.
    pub canary: i64,
    /// What the routes above it say that are ours.
    pub buckets: Buckets,
}

/// What the generated routes above a managed one say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buckets {
    /// There are none, and none are asked for.
    #[default]
    Unused,
    /// There are none, though there should be while the route has canary weight.
    Absent,
    /// They are what they should be at this canary weight.
    At(i64),
    /// They are something else, and send the canary at most the buckets of this weight.
    Wrong(i64),
}

/// Why a VirtualService cannot be managed. The message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RouteError(pub String);

/// Whether an edit adds canary traffic or takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sets every route to the weight. Tests route names, hosts and the resourceVersion.
    Raise,
    /// Takes routes down to the weight; one that is below it already is not raised. Tests route names and hosts only,
    /// so that a busy GitOps tool cannot block it; a weight above 0 also tests the canary weight that was read,
    /// because another writer may have gone further down since.
    Lower,
}

/// Reads the weights of the named http routes (`names` empty: the only one).
///
/// # Errors
/// A route that is missing, unnamed among several, or does not have exactly the two destinations.
pub fn read(vs: &Value, names: &[String], split: &Split, own: &Own) -> Result<Vec<RouteWeights>, RouteError> {
    let reader = Reader::new(vs, split, own);
    reader.select(names)?.into_iter().map(|index| reader.route(index)).collect()
}

/// JSON patch that sets the canary weight of `routes` (as [`read`] gave them) to `canary` and the stable weight to
/// the rest, and makes the routes above them that are `own` what they should be then; `None` when the VirtualService says
/// so already. See [`Direction`] for what it tests, and for the routes that a lowering patch leaves below `canary`.
pub fn patch(vs: &Value, routes: &[RouteWeights], own: &Own, canary: i32, direction: Direction) -> Option<Patch> {
    let target = i64::from(canary).clamp(0, 100);
    let mut tests = Vec::new();
    let mut writes = Vec::new();
    let mut moves = Moves::new(own, vs);
    for route in routes {
        let goal = match direction {
            Direction::Raise => target,
            Direction::Lower => route.canary.clamp(0, target),
        };
        let there = (route.stable, route.canary) == (100 - goal, goal);
        if !moves.want(route, goal) && there {
            continue;
        }
        tests.extend(same_route(vs, route));
        if direction == Direction::Lower && goal > 0 {
            tests.push(test(route.destination(route.canary_at, &["weight"]), route.canary.into()));
        }
        if !there {
            writes.push(add(route.destination(route.stable_at, &["weight"]), (100 - goal).into()));
            writes.push(add(route.destination(route.canary_at, &["weight"]), goal.into()));
        }
    }
    moves.drop_strays(routes);
    let adds = moves.adds();
    let (found, moved) = moves.operations();
    tests.extend(found);
    writes.extend(moved);
    if writes.is_empty() {
        return None;
    }
    // What is put in rests on the whole route below it.
    if direction == Direction::Raise || adds {
        tests.insert(0, test(PointerBuf::from_tokens(["metadata", "resourceVersion"]), vs["metadata"]["resourceVersion"].clone()));
    }
    Some(Patch(tests.into_iter().chain(writes).collect()))
}

/// Hosts of `routes` that name a Service half-way (`svc.ns`, `svc.ns.svc`). They are recognized, so that weights can
/// always be taken back, but Istio completes names without a dot only and takes these as they are: calls sent there
/// find no Service. Each is followed by what to write.
pub fn half_qualified(vs: &Value, routes: &[RouteWeights]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for route in routes {
        for at in [route.stable_at, route.canary_at] {
            let written = vs["spec"]["http"][route.index]["route"][at]["destination"]["host"].as_str().unwrap_or_default();
            let full = host::resolve(written, "");
            if written.contains('.') && full != written && !found.iter().any(|(w, _)| w == written) {
                found.push((written.to_owned(), full));
            }
        }
    }
    found
}

impl RouteWeights {
    /// The route and those above it that are ours say `canary`, and the rest to stable.
    pub fn says(&self, canary: i64) -> bool {
        let buckets = match self.buckets {
            Buckets::Unused => true,
            Buckets::Absent => canary == 0,
            Buckets::At(weight) => weight == canary,
            Buckets::Wrong(_) => false,
        };
        buckets && (self.canary, self.stable) == (canary, 100 - canary)
    }

    /// The most that the canary gets, of calls or of buckets, in percent.
    pub fn given(&self) -> i64 {
        match self.buckets {
            Buckets::At(weight) | Buckets::Wrong(weight) => self.canary.max(weight),
            Buckets::Unused | Buckets::Absent => self.canary,
        }
    }

    /// The canary gets less than `weight` of calls or of buckets, or it is not certain that it does not.
    pub fn is_below(&self, weight: i64) -> bool {
        let buckets = match self.buckets {
            Buckets::Unused => false,
            Buckets::Absent | Buckets::Wrong(_) => weight > 0,
            Buckets::At(at) => at < weight,
        };
        buckets || self.canary < weight
    }

    /// It gives the canary nothing, and there is nothing of ours above it.
    pub fn is_clear(&self) -> bool {
        self.canary == 0 && matches!(self.buckets, Buckets::Unused | Buckets::Absent)
    }

    /// Path of the route, or of a field in it.
    fn field(&self, rest: &[&str]) -> PointerBuf {
        pointer(&["spec", "http"], self.index, rest)
    }

    /// Path of a field of a destination's entry.
    fn destination(&self, at: usize, rest: &[&str]) -> PointerBuf {
        let mut path = self.field(&["route"]);
        path.push_back(Token::from(at));
        for token in rest {
            path.push_back(Token::new(*token));
        }
        path
    }
}

/// Tests that `route` is still the one that was read: its name, and host and subset of both destinations.
fn same_route(vs: &Value, route: &RouteWeights) -> Vec<PatchOperation> {
    let mut tests = Vec::new();
    if !route.route.is_empty() {
        tests.push(test(route.field(&["name"]), route.route.as_str().into()));
    }
    for at in [route.stable_at, route.canary_at] {
        let destination = &vs["spec"]["http"][route.index]["route"][at]["destination"];
        tests.push(test(route.destination(at, &["destination", "host"]), destination["host"].clone()));
        if let Some(subset) = destination.get("subset") {
            tests.push(test(route.destination(at, &["destination", "subset"]), subset.clone()));
        }
    }
    tests
}

fn pointer(head: &[&str], index: usize, rest: &[&str]) -> PointerBuf {
    let mut path = PointerBuf::from_tokens(head.iter().copied());
    path.push_back(Token::from(index));
    for token in rest {
        path.push_back(Token::new(*token));
    }
    path
}

fn test(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path, value })
}

/// `add` replaces a member that is there, and makes one that is not.
fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

/// A VirtualService and what to look for in it.
struct Reader<'a> {
    http: &'a [Value],
    split: &'a Split,
    own: &'a Own,
    vs: &'a Value,
    /// `namespace/name`, for messages.
    id: String,
    /// Short hosts resolve here.
    namespace: &'a str,
}

impl<'a> Reader<'a> {
    fn new(vs: &'a Value, split: &'a Split, own: &'a Own) -> Self {
        let home = match split {
            Split::Hosts { namespace, .. } | Split::Subsets { namespace, .. } => namespace,
        };
        let namespace = vs["metadata"]["namespace"].as_str().unwrap_or(home);
        Self {
            http: vs["spec"]["http"].as_array().map_or(&[], Vec::as_slice),
            split,
            own,
            vs,
            id: format!("{namespace}/{}", vs["metadata"]["name"].as_str().unwrap_or_default()),
            namespace,
        }
    }

    /// Indices of the routes to manage, each once.
    fn select(&self, names: &[String]) -> Result<Vec<usize>, RouteError> {
        if names.is_empty() {
            return match self.theirs().collect::<Vec<_>>().as_slice() {
                [only] => Ok(vec![*only]),
                [] => Err(self.error(format!("has no http routes; write one with the destinations {}", self.wanted()))),
                many => Err(self.error(format!("has {} http routes; name those to manage in `routes` ({})", many.len(), self.names()))),
            };
        }
        let mut indices = Vec::new();
        for name in names {
            let found: Vec<usize> = (0..self.http.len()).filter(|i| self.http[*i]["name"].as_str() == Some(name)).collect();
            match found.as_slice() {
                [index] if indices.contains(index) => {}
                [index] => indices.push(*index),
                [] => {
                    return Err(self.error(format!("has no http route {name:?}; write one of those it has in `routes` ({})", self.names())));
                }
                many => return Err(self.error(format!("has {} http routes {name:?}; give each a name of its own", many.len()))),
            }
        }
        Ok(indices)
    }

    fn route(&self, index: usize) -> Result<RouteWeights, RouteError> {
        let destinations = self.http[index]["route"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let arms: Vec<Option<Arm>> = destinations.iter().map(|d| self.arm(&d["destination"])).collect();
        let (stable_at, canary_at) = match arms.as_slice() {
            [Some(Arm::Stable), Some(Arm::Canary)] => (0, 1),
            [Some(Arm::Canary), Some(Arm::Stable)] => (1, 0),
            _ => return Err(self.wrong_destinations(index, destinations)),
        };
        let mut weights = RouteWeights {
            route: self.http[index]["name"].as_str().unwrap_or_default().to_owned(),
            index,
            stable_at,
            canary_at,
            stable: self.weight(index, &destinations[stable_at])?,
            canary: self.weight(index, &destinations[canary_at])?,
            buckets: Buckets::Unused,
        };
        weights.buckets = self.own.state(self.vs, &weights);
        Ok(weights)
    }

    /// Indices of the routes that are not ours.
    fn theirs(&self) -> impl Iterator<Item = usize> {
        (0..self.http.len()).filter(|i| !self.own.is_generated(&self.http[*i]))
    }

    fn arm(&self, destination: &Value) -> Option<Arm> {
        let host = host::resolve(destination["host"].as_str()?, self.namespace);
        match self.split {
            Split::Hosts { namespace, stable, canary } => {
                let is = |service: &str| host == host::service(service, namespace);
                if is(stable) { Some(Arm::Stable) } else { is(canary).then_some(Arm::Canary) }
            }
            Split::Subsets { host: rule, namespace, stable, canary } => {
                let subset = destination["subset"].as_str().filter(|_| host == host::resolve(rule, namespace))?;
                if subset == stable { Some(Arm::Stable) } else { (subset == canary).then_some(Arm::Canary) }
            }
        }
    }

    fn weight(&self, index: usize, destination: &Value) -> Result<i64, RouteError> {
        match &destination["weight"] {
            Value::Null => Ok(0),
            weight => weight
                .as_i64()
                .ok_or_else(|| self.error(format!("{} has the weight {weight}; write a whole number of 0 to 100", self.called(index)))),
        }
    }

    fn wrong_destinations(&self, index: usize, destinations: &[Value]) -> RouteError {
        let found: Vec<String> = destinations.iter().map(|d| shown(&d["destination"])).collect();
        let found = match found.len() {
            0 => "no destination".to_owned(),
            1 => format!("one destination ({})", found[0]),
            n => format!("{n} destinations ({})", found.join(", ")),
        };
        self.error(format!("{} has {found}; write exactly two, {}, each once", self.called(index), self.wanted()))
    }

    /// The destinations that a managed route has, for messages.
    fn wanted(&self) -> String {
        match self.split {
            Split::Hosts { namespace, stable, canary } if namespace == self.namespace => format!("{stable} and {canary}"),
            Split::Hosts { namespace, stable, canary } => {
                format!("{} and {}", host::service(stable, namespace), host::service(canary, namespace))
            }
            Split::Subsets { host, namespace, stable, canary } => {
                let host = if namespace == self.namespace { host.clone() } else { host::resolve(host, namespace) };
                format!("{host} subset {stable} and {host} subset {canary}")
            }
        }
    }

    fn called(&self, index: usize) -> String {
        match self.http[index]["name"].as_str() {
            Some(name) => format!("http route {name:?}"),
            None => "the http route without a name".to_owned(),
        }
    }

    fn names(&self) -> String {
        let named = |i: usize| self.http[i]["name"].as_str().map_or_else(|| "one without a name".to_owned(), |n| format!("{n:?}"));
        let names: Vec<String> = self.theirs().map(named).collect();
        if names.is_empty() { "it has none".to_owned() } else { names.join(", ") }
    }

    fn error(&self, what: String) -> RouteError {
        RouteError(format!("VirtualService {}: {what}", self.id))
    }
}

/// Which revision a destination is for.
enum Arm {
    Stable,
    Canary,
}

/// A destination, for messages.
fn shown(destination: &Value) -> String {
    let host = destination["host"].as_str().unwrap_or("no host");
    match destination["subset"].as_str() {
        Some(subset) => format!("{host} subset {subset}"),
        None => host.to_owned(),
    }
}
