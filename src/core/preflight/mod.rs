//! Preflight: what would cut live calls, or send new ones where no weight says, though every gate passes.
//!
//! Found from the spec and from what was seen; one module a group of findings. A finding that cannot be ruled out by what
//! is seen says what was assumed.

mod autoscalers;
mod calls;
mod gitops;
mod grace;
mod hooks;
mod routes;
mod sidecar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::api::VoiceRolloutSpec;
use crate::api::status::PreflightFinding;
use crate::core::revision::revision_hash;

pub use autoscalers::AutoscalerSeen;
pub use gitops::{ANNOTATIONS, GITOPS_IGNORED_ANNOTATION, Keeper, KeptObject, LABELS, Tool};
pub use routes::{UNMANAGED_ROUTES_ANNOTATION, VirtualServiceSeen};
pub use sidecar::Sidecar;

/// Codes of findings. Each has a section of its own in the README.
pub mod codes {
    /// A pod is killed before its calls may end.
    pub const GRACE_PERIOD_TOO_SHORT: &str = "GracePeriodTooShort";
    /// The sidecar proxy ends before the calls that go through it.
    pub const SIDECAR_STOPS_EARLY: &str = "SidecarStopsEarly";
    /// A route ends every call after a time.
    pub const ROUTE_TIMEOUT: &str = "RouteTimeout";
    /// Connections that follow no weight, and that a change of their route cuts.
    pub const TCP_OR_TLS_ROUTE: &str = "TcpOrTlsRoute";
    /// An http route to an arm whose weights nobody writes.
    pub const UNMANAGED_ROUTE: &str = "UnmanagedRoute";
    /// A preStop hook sends a signal that ends the agent.
    pub const PRE_STOP_SIGNAL: &str = "PreStopSignal";
    /// A GitOps tool writes over weights or selectors.
    pub const GITOPS_OVERWRITES: &str = "GitOpsOverwrites";
    /// Live calls cannot be read.
    pub const UNREADABLE_CALLS: &str = "UnreadableCalls";

    /// An autoscaler changes the size of one revision.
    pub const AUTOSCALED_REPLICA_SET: &str = "AutoscaledReplicaSet";

    /// The codes that [`super::findings`] gives.
    pub const ALL: [&str; 9] = [
        GRACE_PERIOD_TOO_SHORT,
        SIDECAR_STOPS_EARLY,
        ROUTE_TIMEOUT,
        TCP_OR_TLS_ROUTE,
        UNMANAGED_ROUTE,
        PRE_STOP_SIGNAL,
        UNREADABLE_CALLS,
        AUTOSCALED_REPLICA_SET,
        GITOPS_OVERWRITES,
    ];
}

/// Something that would cut live calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One of [`codes`].
    pub code: &'static str,
    /// What it is and why it cuts calls; ends with a full stop.
    pub sentence: String,
    /// What to do, with what to write.
    pub fix: String,
}

impl Finding {
    /// As the status keeps it.
    pub fn noted(&self) -> PreflightFinding {
        PreflightFinding { code: self.code.into(), sentence: self.sentence.clone(), fix: self.fix.clone() }
    }
}

/// What is looked at beside the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Managed VirtualServices that can be read, in the spec's order.
    pub virtual_services: Vec<VirtualServiceSeen>,
    /// Services or the DestinationRule whose selectors are written, as far as a GitOps tool keeps them.
    pub selectors: Vec<KeptObject>,
    /// Sidecars of the pods that exist, by revision: the one that ends first, where pods differ.
    pub sidecars: BTreeMap<String, Sidecar>,
    /// Name of the rollout, for messages.
    pub rollout: String,
    /// Autoscalers whose target is a ReplicaSet of the rollout.
    pub autoscalers: Vec<AutoscalerSeen>,
    /// Why the live calls of a pod are not known, where a reading failed.
    pub unread: Option<String>,
}

/// Everything that is found, grouped by code.
pub fn findings(spec: &VoiceRolloutSpec, seen: &Surroundings) -> Vec<Finding> {
    let mut all: Vec<Finding> = grace::finding(spec).into_iter().collect();
    all.extend(sidecar::finding(spec, &seen.sidecars, &revision_hash(&spec.template)));
    all.extend(seen.virtual_services.iter().filter_map(routes::timeouts));
    all.extend(seen.virtual_services.iter().filter_map(routes::tcp_or_tls));
    all.extend(seen.virtual_services.iter().filter_map(routes::unmanaged));
    all.extend(hooks::findings(spec));
    all.extend(calls::finding(spec, seen.unread.as_deref()));
    all.extend(seen.autoscalers.iter().map(|scaler| autoscalers::finding(&seen.rollout, scaler)));
    let routes = seen.virtual_services.iter().filter_map(VirtualServiceSeen::kept);
    all.extend(routes.chain(seen.selectors.iter().cloned()).map(|kept| gitops::finding(&kept)));
    all
}
