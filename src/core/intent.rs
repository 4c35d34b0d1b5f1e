//! What a decision asks the operator to do. Each is idempotent: doing it twice is doing it once.

use crate::api::VoiceAnalysisRunSpec;
use crate::api::status::ManagedRoute;
use crate::core::observe::Mark;
use crate::core::route::Direction;

/// One effect on the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Put the finalizer on the VoiceRollout.
    AddFinalizer,
    /// Take the finalizer off: the routes are back at stable.
    RemoveFinalizer,
    /// Write the weights of one VirtualService's managed routes.
    SetWeights {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Canary weight in percent.
        canary: i32,
        /// Whether canary traffic is added or taken away.
        direction: Direction,
    },
    /// Give the calls of a route that the spec does not name any more back to stable.
    ReturnRoute {
        /// Which.
        route: ManagedRoute,
    },
    /// Make the ReplicaSet of the newest revision from `spec.template`.
    CreateReplicaSet {
        /// Hash of the revision.
        hash: String,
        /// Number of the revision.
        number: i64,
        /// Pods.
        replicas: i32,
    },
    /// Change the number of pods of a revision.
    ScaleReplicaSet {
        /// Name of the ReplicaSet.
        name: String,
        /// Pods.
        replicas: i32,
    },
    /// Forget a revision beyond `revisionHistoryLimit`.
    DeleteReplicaSet {
        /// Name of the ReplicaSet.
        name: String,
    },
    /// Mark a pod of a revision that drains or gets smaller, or take the mark off; take it out of traffic, or put it back.
    MarkPod {
        /// Its name.
        name: String,
        /// The mark; `None`: none.
        mark: Option<Mark>,
        /// It is out of traffic; otherwise it gets new calls when its revision does.
        out: bool,
    },
    /// Keep the pods of a revision from being evicted.
    CreateBudget {
        /// Name of the PodDisruptionBudget.
        name: String,
        /// Hash of the revision.
        hash: String,
    },
    /// They may be evicted again.
    DeleteBudget {
        /// Name of the PodDisruptionBudget.
        name: String,
    },
    /// Make an arm (a Service or a subset) select a revision.
    PointArm {
        /// Which.
        arm: Arm,
        /// Hash of the revision.
        hash: String,
        /// Leave out pods that were taken out of traffic: the revision's pods have the label for it.
        labelled: bool,
    },
    /// Start an analysis run.
    CreateRun {
        /// Its deterministic name.
        name: String,
        /// Its spec.
        spec: Box<VoiceAnalysisRunSpec>,
    },
    /// End an analysis run that is no longer needed.
    StopRun {
        /// Its name.
        name: String,
    },
    /// Forget a finished analysis run.
    DeleteRun {
        /// Its name.
        name: String,
    },
    /// Write what became of a person's command.
    MarkAction {
        /// Name of the VoiceRolloutAction.
        name: String,
        /// Carried out, or refused.
        applied: bool,
        /// One sentence.
        message: String,
    },
}

/// One of the two destinations of a managed route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Callers get it outside of releases.
    Stable,
    /// The newest revision.
    Canary,
}

/// A Kubernetes event to publish once the decision is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Something a person has to look at.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence.
    pub note: String,
}
