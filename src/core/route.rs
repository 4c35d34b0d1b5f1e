//! Weights in a VirtualService: read them, and make the smallest edit that changes them.

use serde_json::Value;

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
}

/// Why a VirtualService cannot be managed. The message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RouteError(pub String);

/// Whether an edit adds canary traffic or takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Tests route names, hosts and the resourceVersion.
    Raise,
    /// Tests route names and hosts only, so that a busy GitOps tool cannot block it.
    Lower,
}

/// Reads the weights of the named http routes (`names` empty: the only one).
///
/// # Errors
/// A route that is missing, unnamed among several, or does not have exactly the two destinations.
pub fn read(_vs: &Value, _names: &[String], _split: &Split) -> Result<Vec<RouteWeights>, RouteError> {
    unimplemented!()
}

/// JSON patch that sets the canary weight of `routes` (as [`read`] gave them) to `canary` and the stable weight to
/// the rest; `None` when the VirtualService says so already.
pub fn patch(_vs: &Value, _routes: &[RouteWeights], _canary: i32, _direction: Direction) -> Option<json_patch::Patch> {
    unimplemented!()
}
