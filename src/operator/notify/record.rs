//! Reads and writes outboxes.

use std::sync::Arc;

use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};

use super::Shared;
use crate::api::common::FIELD_MANAGER;
use crate::api::outbox::VoiceRolloutOutboxSpec;
use crate::api::{VoiceRollout, VoiceRolloutOutbox};
use crate::core::notify::Notifiers;
use crate::core::notify::outbox::{self, Rollout};
use crate::operator::cache::{Id, PAGE};
use crate::operator::write::{WRITE_TIMEOUT, WriteError, write};

/// Attempts to list all outboxes; then they are read one by one.
const LISTS: u32 = 3;

/// An outbox as this process last read or wrote it.
pub(super) struct Loaded {
    /// UID of its rollout.
    pub(super) uid: Option<String>,
    pub(super) object: VoiceRolloutOutbox,
    /// The notifications that it was last looked at with, by this process.
    pub(super) notifiers: Option<Arc<Notifiers>>,
}

impl Loaded {
    pub(super) fn outbox(&self) -> &VoiceRolloutOutboxSpec {
        &self.object.spec
    }

    /// It is not written yet.
    pub(super) fn is_new(&self) -> bool {
        self.object.metadata.resource_version.is_none()
    }

    /// One that is there.
    fn found(mut object: VoiceRolloutOutbox) -> Self {
        object.metadata.managed_fields = None;
        let kind = VoiceRollout::kind(&());
        let uid = object.owner_references().iter().find(|o| o.kind == kind).map(|o| o.uid.clone());
        Self { uid, object, notifiers: None }
    }

    /// The outbox of a rollout that has none.
    pub(super) fn fresh(rollout: &VoiceRollout) -> Self {
        let mut object = VoiceRolloutOutbox::new(&rollout.name_any(), outbox::first(seen(rollout)));
        object.metadata = ObjectMeta {
            namespace: rollout.namespace(),
            owner_references: rollout.controller_owner_ref(&()).map(|o| vec![o]),
            ..object.metadata
        };
        Self { uid: rollout.uid(), object, notifiers: None }
    }
}

/// A rollout as the cache has it.
pub(super) fn seen(rollout: &VoiceRollout) -> Rollout<'_> {
    let meta = &rollout.metadata;
    let [namespace, name, uid, version] =
        [&meta.namespace, &meta.name, &meta.uid, &meta.resource_version].map(|text| text.as_deref().unwrap_or_default());
    Rollout { namespace, name, uid, version, status: rollout.status.as_ref() }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OutboxError {
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("read VoiceRolloutOutbox {name}: {why}")]
    Read { name: String, why: String },
    #[error("VoiceRolloutOutbox {name} is of a newer VoiceRollout than the cache has")]
    Newer { name: String },
}

impl Shared {
    /// Every outbox of the watched namespaces, by rollout; `None` when they cannot be listed.
    pub(super) async fn outboxes(&self) -> Option<Vec<(Id, Loaded)>> {
        for attempt in 1..=LISTS {
            match self.list().await {
                Ok(all) => {
                    self.backoff.reset("");
                    return Some(all);
                }
                Err(why) if attempt < LISTS => {
                    tracing::debug!(why, "outboxes not listed");
                    tokio::time::sleep(self.backoff.failed("")).await;
                }
                Err(why) => tracing::warn!(why, "outboxes cannot be listed; they are read one by one, and those that nobody needs stay"),
            }
        }
        None
    }

    async fn list(&self) -> Result<Vec<(Id, Loaded)>, String> {
        let mut all = Vec::new();
        for (namespace, _) in &self.teller.changed {
            let client = self.teller.client.clone();
            let api: Api<VoiceRolloutOutbox> = match namespace {
                Some(namespace) => Api::namespaced(client, namespace),
                None => Api::all(client),
            };
            let mut params = ListParams::default().limit(PAGE);
            loop {
                let page = tokio::time::timeout(WRITE_TIMEOUT, api.list(&params)).await.map_err(|_| late())?.map_err(|e| e.to_string())?;
                all.extend(page.items.into_iter().map(|o| (Id::new(&o.namespace().unwrap_or_default(), &o.name_any()), Loaded::found(o))));
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params = params.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(all)
    }

    /// Reads a rollout's outbox, or makes one that is not written yet. One of an earlier rollout of the same name is deleted.
    pub(super) async fn load(&self, id: &Id, rollout: &VoiceRollout) -> Result<Loaded, OutboxError> {
        let name = format!("{}/{}", id.namespace, id.name);
        let found = {
            let _turn = self.turn().await;
            tokio::time::timeout(WRITE_TIMEOUT, self.api(id).get_opt(&id.name)).await
        };
        let fail = |why: String| OutboxError::Read { name: name.clone(), why };
        let Some(object) = found.map_err(|_| fail(late()))?.map_err(|e| fail(e.to_string()))? else { return Ok(Loaded::fresh(rollout)) };
        let (loaded, uid) = (Loaded::found(object), rollout.uid());
        if loaded.object.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref()) {
            return Ok(Loaded { uid, ..loaded });
        }
        // The garbage collector ends it too, if its owner is gone.
        if loaded.uid.is_some() && seen(rollout).is_behind(&loaded.outbox().cursor) {
            return Err(OutboxError::Newer { name });
        }
        self.delete(id, &loaded).await?;
        Ok(Loaded::fresh(rollout))
    }

    /// Writes an outbox; gives it as it is then.
    pub(super) async fn write(&self, id: &Id, object: &VoiceRolloutOutbox) -> Result<VoiceRolloutOutbox, WriteError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let what = format!("write VoiceRolloutOutbox {}/{}", id.namespace, id.name);
        let (api, leadership, _turn) = (self.api(id), &self.teller.leadership, self.turn().await);
        let mut written = if object.metadata.resource_version.is_none() {
            write(leadership, what, api.create(&params, object)).await?
        } else {
            write(leadership, what, api.replace(&id.name, &params, object)).await?
        };
        written.metadata.managed_fields = None;
        Ok(written)
    }

    /// Deletes this outbox, and no other one of its name.
    pub(super) async fn delete(&self, id: &Id, loaded: &Loaded) -> Result<(), WriteError> {
        let what = format!("delete VoiceRolloutOutbox {}/{}", id.namespace, id.name);
        let preconditions = Preconditions { uid: loaded.object.uid(), resource_version: None };
        let params = DeleteParams::default().preconditions(preconditions);
        let (api, _turn) = (self.api(id), self.turn().await);
        match write(&self.teller.leadership, what, api.delete(&id.name, &params)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until few enough other requests to the API server are under way.
    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    fn api(&self, id: &Id) -> Api<VoiceRolloutOutbox> {
        Api::namespaced(self.teller.client.clone(), &id.namespace)
    }
}

fn late() -> String {
    format!("no answer within {} s", WRITE_TIMEOUT.as_secs())
}
