//! `undo`: back to an earlier revision.

use std::collections::BTreeMap;
use std::io::Write;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::edit::under_way;
use super::{Session, say};
use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL, SERVING_LABEL, TEMPLATE_ANNOTATION};
use crate::api::status::RevisionStatus;
use crate::api::{VoiceRollout, VoiceRolloutStatus};
use crate::cli::error::CliError;
use crate::core::revision::revision_hash;
use crate::core::rollback::may_return;

impl Session {
    /// Writes the pod template of an earlier revision into `spec.template`.
    ///
    /// # Errors
    /// No such rollout, a revision that is not there any more, or no right to.
    pub async fn undo(&self, name: &str, to: Option<i64>, yes: bool, out: &mut impl Write) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        let status = rollout.status.clone().ok_or_else(|| CliError::NotObserved { name: name.into() })?;
        let sets = self.replica_sets(&rollout).await?;
        let target = target(name, &rollout, &status, to, &sets)?;
        let Some(set) = sets.get(&target.hash) else {
            return Err(missing(name, &target.number.to_string(), ": its ReplicaSet is gone", &status, &sets));
        };
        let template = template_of(set).ok_or_else(|| CliError::Differs(format!("ReplicaSet {} has no pod template", set.name_any())))?;
        let typed: PodTemplateSpec = serde_json::from_value(template.clone())
            .map_err(|e| CliError::Differs(format!("the pod template of ReplicaSet {} cannot be read: {e}", set.name_any())))?;
        let hash = revision_hash(&typed);
        if hash == revision_hash(&rollout.spec.template) {
            return say(out, &format!("spec.template is that of revision {} ({hash}) already: nothing was done\n", target.number));
        }
        let follows = what_follows(&rollout, &status, target, hash == target.hash);
        let now = under_way(&rollout).map(|what| format!("{what}. ")).unwrap_or_default();
        self.confirm(yes, &format!("{now}Revision {} ({}) comes back: {follows}. Go on?", target.number, target.hash))?;
        let patches = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
        let updated = self.patch(&rollout, patches, "undo").await?;
        let what = format!("undo {name}: spec.template is that of revision {} ({}) again; {follows}", target.number, target.hash);
        self.tell(&what, &updated, out)
    }
}

/// The revision to go back to: the one that was named; stable while another is newer; else the one that was stable before.
/// What is newest is what the spec says: the operator may not have looked at it.
fn target<'a>(
    name: &str,
    rollout: &VoiceRollout,
    status: &'a VoiceRolloutStatus,
    to: Option<i64>,
    sets: &BTreeMap<String, ReplicaSet>,
) -> Result<&'a RevisionStatus, CliError> {
    if let Some(number) = to {
        let found = status.revisions.iter().find(|r| r.number == number);
        let newest = status.revisions.iter().map(|r| r.number).max().unwrap_or(0);
        let why = match number <= newest {
            true => ": it is gone, or has another number since it came back",
            false => "",
        };
        return found.ok_or_else(|| missing(name, &number.to_string(), why, status, sets));
    }
    let is = |hash: &Option<String>, r: &RevisionStatus| hash.as_ref() == Some(&r.hash);
    let stable = status.revisions.iter().find(|r| is(&status.stable_revision, r));
    let written = Some(revision_hash(&rollout.spec.template));
    if (status.canary_revision != status.stable_revision || written != status.stable_revision)
        && let Some(stable) = stable
    {
        return Ok(stable);
    }
    let before = status.revisions.iter().filter(|r| r.was_stable && !r.aborted && !is(&status.stable_revision, r));
    before.max_by_key(|r| r.number).ok_or_else(|| missing(name, "that was stable before", "", status, sets))
}

fn missing(name: &str, wanted: &str, why: &str, status: &VoiceRolloutStatus, sets: &BTreeMap<String, ReplicaSet>) -> CliError {
    let newest = status.canary_revision.as_ref();
    let line = |r: &RevisionStatus| {
        let image = sets.get(&r.hash).and_then(|s| s.spec.template.as_ref()?.spec.as_ref()?.containers.first()?.image.clone());
        format!("{}  {}  {}", r.number, r.hash, image.unwrap_or_default()).trim_end().to_owned()
    };
    let there = status.revisions.iter().filter(|r| Some(&r.hash) != newest && sets.contains_key(&r.hash)).map(line);
    CliError::NoRevision { name: name.into(), wanted: wanted.into(), why: why.into(), there: there.collect() }
}

/// The template as it was written; of ReplicaSets that do not keep it, the one that the API server has filled with defaults,
/// without our labels.
fn template_of(set: &ReplicaSet) -> Option<Value> {
    if let Some(written) = set.annotations().get(TEMPLATE_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()) {
        return Some(written);
    }
    let mut template = set.spec.template.clone()?;
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        for own in [REVISION_LABEL, ROLLOUT_LABEL, SERVING_LABEL] {
            labels.remove(own);
        }
    }
    serde_json::to_value(template).ok()
}

/// What the operator will do, by the rules of `rollbackWindow`.
fn what_follows(rollout: &VoiceRollout, status: &VoiceRolloutStatus, target: &RevisionStatus, same: bool) -> String {
    if !same {
        return "what is kept of it is not exactly what was written, so it counts as a new revision and goes through all steps".into();
    }
    if status.stable_revision.as_ref() == Some(&target.hash) {
        return "it is the stable one, and all new calls go to it".into();
    }
    let window = rollout.spec.rollback_window.as_ref().map_or(0, |w| w.revisions);
    match may_return(&status.revisions, status.stable_revision.as_deref(), &target.hash, window) {
        Ok(()) => "it was stable and lies within rollbackWindow, so the steps are skipped and all new calls go to it".into(),
        Err(why) => format!("{why}, so it goes through all steps"),
    }
}
