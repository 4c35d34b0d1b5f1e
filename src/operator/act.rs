//! Carries out intents. Each is idempotent and has its own time limit; one that fails does not stop the others.

use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::clock::Clock;
use super::drain;
use super::leadership::Leadership;
use super::routes::{self, Managed, RouteWriteError};
use super::stores::Stores;
use super::workload;
use super::write::{WriteError, write};
use super::{gather, left};
use crate::api::common::{FIELD_MANAGER, FINALIZER, REVISION_LABEL, ROLLOUT_LABEL, TRACEPARENT_ANNOTATION};
use crate::api::rollout::IstioTraffic;
use crate::api::status::ManagedRoute;
use crate::api::{VoiceAnalysisRun, VoiceAnalysisRunSpec, VoiceRollout, VoiceRolloutAction};
use crate::core::intent::{Arm, Intent};
use crate::core::managed::split_of;
use crate::core::route::Direction;
use crate::core::spans;

/// Why an intent was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The write did not succeed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A route or subset could not be written.
    #[error(transparent)]
    Route(#[from] RouteWriteError),
    /// The decision rests on an older rollout than the API server has.
    #[error("{0} is newer than what was decided on")]
    Stale(String),
    /// Something the intent needs is not there any more, or belongs to another.
    #[error("{0}")]
    Gone(String),
}

impl ActError {
    /// The next pass sees newer objects and decides again: nothing to worry about.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Write(e) => e.is_conflict(),
            Self::Route(e) => e.is_conflict(),
            Self::Stale(_) => true,
            Self::Gone(_) => false,
        }
    }

    /// Bounded word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Write(WriteError::NotLeader { .. }) | Self::Route(RouteWriteError::Write(WriteError::NotLeader { .. })) => "NotLeader",
            Self::Write(WriteError::Timeout { .. }) | Self::Route(RouteWriteError::Write(WriteError::Timeout { .. })) => "Timeout",
            _ if self.is_conflict() => "Conflict",
            Self::Gone(_) => "Gone",
            _ => "WriteFailed",
        }
    }
}

/// What intents are carried out with.
pub struct Hands<'a> {
    /// The client.
    pub client: &'a Client,
    /// The caches.
    pub stores: &'a Stores,
    /// Whether this process may write.
    pub leadership: &'a Leadership,
    /// The time.
    pub clock: &'a Clock,
    /// The rollout, at the version the decision rests on.
    pub rollout: &'a VoiceRollout,
}

impl Hands<'_> {
    /// Carries out one intent.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn carry_out(&self, intent: &Intent) -> Result<(), ActError> {
        let namespace = self.namespace();
        match intent {
            Intent::AddFinalizer => self.set_finalizers(|all| all.push(FINALIZER.into())).await,
            Intent::RemoveFinalizer => self.set_finalizers(|all| all.retain(|f| f != FINALIZER)).await,
            Intent::SetWeights { namespace, name, canary, direction } => self.set_weights(namespace, name, *canary, *direction).await,
            Intent::ReturnRoute { route } => self.return_route(route).await,
            Intent::CreateReplicaSet { hash, number, replicas } => self.create_replica_set(hash, *number, *replicas).await,
            Intent::ScaleReplicaSet { name, replicas } => {
                self.check_workers(name, *replicas).await?;
                let what = format!("scale ReplicaSet {namespace}/{name} to {replicas}");
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas, "minReadySeconds": self.rollout.spec.min_ready_seconds}}));
                let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
                write(self.leadership, what, api.patch(name, &params(), &patch)).await?;
                Ok(())
            }
            Intent::DeleteReplicaSet { name } => {
                let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
                let what = format!("delete ReplicaSet {namespace}/{name}");
                gone_is_fine(write(self.leadership, what, api.delete(name, &DeleteParams::background())).await)
            }
            Intent::MarkPod { name, mark, out } => drain::mark_pod(self, name, *mark, *out).await,
            Intent::CreateBudget { name, hash } => drain::create_budget(self, name, hash).await,
            Intent::DeleteBudget { name } => drain::delete_budget(self, name).await,
            Intent::PointArm { arm, hash, labelled } => self.point_arm(*arm, hash, *labelled).await,
            Intent::CreateRun { name, spec } => self.create_run(name, spec).await,
            Intent::StopRun { name } => {
                let api: Api<VoiceAnalysisRun> = Api::namespaced(self.client.clone(), &namespace);
                let what = format!("stop VoiceAnalysisRun {namespace}/{name}");
                gone_is_fine(write(self.leadership, what, api.patch(name, &params(), &Patch::Merge(json!({"spec": {"stop": true}})))).await)
            }
            Intent::DeleteRun { name } => {
                let api: Api<VoiceAnalysisRun> = Api::namespaced(self.client.clone(), &namespace);
                let what = format!("delete VoiceAnalysisRun {namespace}/{name}");
                gone_is_fine(write(self.leadership, what, api.delete(name, &DeleteParams::background())).await)
            }
            Intent::MarkAction { name, applied, message } => {
                let api: Api<VoiceRolloutAction> = Api::namespaced(self.client.clone(), &namespace);
                let state = if *applied { "Applied" } else { "Refused" };
                let patch = json!({"status": {"state": state, "message": message, "at": self.clock.now()}});
                let what = format!("mark VoiceRolloutAction {namespace}/{name}");
                gone_is_fine(write(self.leadership, what, api.patch_status(name, &params(), &Patch::Merge(patch))).await)
            }
        }
    }

    pub(super) fn namespace(&self) -> String {
        self.rollout.namespace().unwrap_or_default()
    }

    fn istio(&self) -> Result<&IstioTraffic, ActError> {
        self.rollout.spec.traffic.istio.as_ref().ok_or_else(|| ActError::Gone("spec.traffic.istio is not set any more".into()))
    }

    async fn set_finalizers(&self, edit: impl FnOnce(&mut Vec<String>)) -> Result<(), ActError> {
        let (namespace, name) = (self.namespace(), self.rollout.name_any());
        let mut all = self.rollout.finalizers().to_vec();
        edit(&mut all);
        let version = self.rollout.resource_version();
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version, "finalizers": all}}));
        let api: Api<VoiceRollout> = Api::namespaced(self.client.clone(), &namespace);
        let what = format!("set finalizers of VoiceRollout {namespace}/{name}");
        gone_is_fine(write(self.leadership, what, api.patch(&name, &params(), &patch)).await)
    }

    /// Before traffic is added, asks the API server whether the decision still rests on the newest rollout: a cache
    /// that lags behind an abort must not raise what the abort took away.
    async fn check_current(&self) -> Result<(), ActError> {
        let (namespace, name) = (self.namespace(), self.rollout.name_any());
        let api: Api<VoiceRollout> = Api::namespaced(self.client.clone(), &namespace);
        let what = format!("read VoiceRollout {namespace}/{name} before raising its weight");
        let newest = write(self.leadership, what, api.get_metadata(&name)).await?;
        if newest.resource_version() == self.rollout.resource_version() {
            return Ok(());
        }
        Err(ActError::Stale(format!("VoiceRollout {namespace}/{name}")))
    }

    /// Workers that pull their jobs take new calls as soon as they run: more of them is more traffic.
    async fn check_workers(&self, set: &str, replicas: i32) -> Result<(), ActError> {
        let known = self.stores.replica_sets.get(&self.namespace(), set).and_then(|s| s.seen.as_ref().map(|seen| seen.wanted));
        let more = known.is_none_or(|wanted| replicas > wanted) && replicas > 0;
        if more && self.rollout.spec.traffic.replicas.is_some() { self.check_current().await } else { Ok(()) }
    }

    async fn set_weights(&self, namespace: &str, name: &str, canary: i32, direction: Direction) -> Result<(), ActError> {
        let own = self.namespace();
        let istio = self.istio()?;
        let reference = istio.virtual_services.iter().find(|v| v.name == name && gather::route_namespace(&own, v) == namespace);
        let reference =
            reference.ok_or_else(|| ActError::Gone(format!("VirtualService {namespace}/{name} is not named in the spec any more")))?;
        let object = self.stores.virtual_services.get(namespace, name).map(|o| o.object());
        let object = object.ok_or_else(|| ActError::Gone(format!("VirtualService {namespace}/{name} does not exist any more")))?;
        let split = gather::split(self.stores, &own, istio).map_err(ActError::Gone)?;
        if direction == Direction::Raise {
            self.check_current().await?;
        }
        let managed = Managed { names: &reference.routes, split: &split, own: &gather::own(self.rollout) };
        routes::set_weights(self.client, self.leadership, &object, &managed, canary, direction).await?;
        Ok(())
    }

    async fn return_route(&self, route: &ManagedRoute) -> Result<(), ActError> {
        let home = self.namespace();
        // Deleted, or closed to us, meanwhile: the next pass lets it go.
        let object = self.stores.virtual_services.get(&route.namespace, &route.virtual_service).map(|o| o.object());
        let Some(object) = object.filter(|o| routes::allowed_from(o, &home)) else { return Ok(()) };
        let split = split_of(route, &home);
        let own = gather::own(self.rollout).of_left(&route.route);
        let managed = Managed { names: &left::names(route), split: &split, own: &own };
        routes::set_weights(self.client, self.leadership, &object, &managed, 0, Direction::Lower).await?;
        Ok(())
    }

    async fn create_replica_set(&self, hash: &str, number: i64, replicas: i32) -> Result<(), ActError> {
        let namespace = self.namespace();
        let set = workload::build(self.rollout, hash, number, replicas);
        let name = set.name_any();
        self.check_workers(&name, replicas).await?;
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
        let what = format!("create ReplicaSet {namespace}/{name}");
        match write(
            self.leadership,
            what,
            api.create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }, &set),
        )
        .await
        {
            Err(error) if error.is_conflict() => {
                let theirs = self.stores.replica_sets.get(&namespace, &name);
                let uid = self.rollout.uid().unwrap_or_default();
                match theirs {
                    Some(other) if !other.owners.contains(&uid) => {
                        Err(ActError::Gone(format!("ReplicaSet {namespace}/{name} exists and belongs to another owner: delete it")))
                    }
                    _ => Ok(()),
                }
            }
            other => other.map(|_| ()).map_err(ActError::from),
        }
    }

    async fn point_arm(&self, arm: Arm, hash: &str, labelled: bool) -> Result<(), ActError> {
        let namespace = self.namespace();
        let istio = self.istio()?;
        self.check_current().await?;
        if let Some(rule) = &istio.destination_rule {
            let subset = if arm == Arm::Stable { &rule.stable_subset } else { &rule.canary_subset };
            let object = self.stores.destination_rules.get(&namespace, &rule.name).map(|o| o.object());
            let object =
                object.ok_or_else(|| ActError::Gone(format!("DestinationRule {namespace}/{} does not exist any more", rule.name)))?;
            routes::set_subset_label(self.client, self.leadership, &object, subset, hash, labelled).await?;
            return Ok(());
        }
        let service = if arm == Arm::Stable { &istio.stable_service } else { &istio.canary_service };
        let service = service.as_deref().unwrap_or_default();
        routes::point_service(self.client, self.leadership, &namespace, service, hash, labelled).await?;
        Ok(())
    }

    async fn create_run(&self, name: &str, spec: &VoiceAnalysisRunSpec) -> Result<(), ActError> {
        let namespace = self.namespace();
        let labels = [(ROLLOUT_LABEL, self.rollout.name_any()), (REVISION_LABEL, spec.revision.clone())];
        let status = self.rollout.status.as_ref();
        let place = status.and_then(|s| spans::parent_of_run(&spec.rollout_uid, s, spec.kind, spec.step));
        let mut run = VoiceAnalysisRun::new(name, spec.clone());
        run.metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.clone()),
            labels: Some(labels.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
            annotations: place.map(|place| [(TRACEPARENT_ANNOTATION.to_string(), place.to_string())].into()),
            owner_references: self.rollout.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        };
        let api: Api<VoiceAnalysisRun> = Api::namespaced(self.client.clone(), &namespace);
        let what = format!("create VoiceAnalysisRun {namespace}/{name}");
        match write(self.leadership, what, api.create(&PostParams::default(), &run)).await {
            Err(error) if error.is_conflict() => Ok(()),
            other => other.map(|_| ()).map_err(ActError::from),
        }
    }
}

/// Parameters of every patch.
pub fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

pub(super) fn gone_is_fine<T>(result: Result<T, WriteError>) -> Result<(), ActError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()).map_err(ActError::from),
    }
}

/// Wait before a pass that failed on a conflict is repeated.
pub const CONFLICT_WAIT: Duration = Duration::from_millis(100);
