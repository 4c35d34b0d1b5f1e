//! Verbs that write `spec.template`: `set image`, `restart`, and what they share with `undo`.

use std::io::Write;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Session, near, request, say};
use crate::api::VoiceRollout;
use crate::api::common::RESTARTED_ANNOTATION;
use crate::cli::error::CliError;
use crate::core::preflight::{Keeper, Tool};
use crate::core::revision::revision_hash;

/// Field manager of these writes.
const MANAGER: &str = "kubectl-voicerollout";

impl Session {
    /// Releases other images.
    ///
    /// # Errors
    /// No such rollout or container, nothing to change, or no right to.
    pub async fn set_image(&self, name: &str, images: &[(String, String)], yes: bool, out: &mut impl Write) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        let (patches, changes) = image_patches(&rollout, images)?;
        if changes.is_empty() {
            return say(out, "these images are there already: nothing was done\n");
        }
        self.confirm_replacing(&rollout, yes)?;
        let updated = self.patch(&rollout, patches, "set the images").await?;
        let hash = revision_hash(&updated.spec.template);
        self.tell(&format!("set image {name}: {}; revision {hash} is released", changes.join(", ")), &updated, out)
    }

    /// Releases the same version again, in new pods.
    ///
    /// # Errors
    /// No such rollout, or no right to.
    pub async fn restart(&self, name: &str, yes: bool, out: &mut impl Write) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        self.confirm_replacing(&rollout, yes)?;
        let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patches = annotation_patches(&rollout, RESTARTED_ANNOTATION, &at);
        let updated = self.patch(&rollout, patches, "restart it").await?;
        let hash = revision_hash(&updated.spec.template);
        self.tell(&format!("restart {name}: spec.template says {RESTARTED_ANNOTATION}: {at}; revision {hash} is released"), &updated, out)
    }

    /// A release that is under way ends when the template changes: its callers get stable again, and its evidence is lost.
    fn confirm_replacing(&self, rollout: &VoiceRollout, yes: bool) -> Result<(), CliError> {
        match under_way(rollout) {
            Some(what) => self.confirm(yes, &format!("{what}; a new version takes its place. Go on?")),
            None => Ok(()),
        }
    }

    /// Writes, unless the spec has changed since it was read.
    pub(super) async fn patch(&self, rollout: &VoiceRollout, mut patches: Vec<Value>, what: &str) -> Result<VoiceRollout, CliError> {
        let name = rollout.name_any();
        patches.insert(0, json!({"op": "test", "path": "/metadata/generation", "value": rollout.metadata.generation}));
        let patch: json_patch::Patch =
            serde_json::from_value(Value::Array(patches)).map_err(|e| CliError::Differs(format!("{what}: {e}")))?;
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let api = self.rollouts();
        let patch = Patch::Json::<()>(patch);
        request(format!("{what}: write VoiceRollout {name}"), api.patch(&name, &params, &patch)).await
    }

    /// What was done, who may put it back, and how to watch.
    pub(super) fn tell(&self, what: &str, updated: &VoiceRollout, out: &mut impl Write) -> Result<(), CliError> {
        say(out, &format!("{what}\n"))?;
        if let Some(keeper) = Keeper::of("VoiceRollout", &updated.metadata) {
            let who = match keeper.tool {
                Tool::ArgoCd => "Argo CD's Application",
                Tool::FluxKustomization => "Flux' Kustomization",
                Tool::FluxHelm => "Flux' HelmRelease",
            };
            say(out, &format!("{who} {} keeps this VoiceRollout: change it in its repository too, or it is put back\n", keeper.name))?;
        }
        say(out, &self.watch_hint(&updated.name_any()))
    }
}

/// A release that would end: one that goes through its steps, or one that is written and not begun.
pub(super) fn under_way(rollout: &VoiceRollout) -> Option<String> {
    let status = rollout.status.as_ref()?;
    let (canary, stable) = (status.canary_revision.as_ref()?, status.stable_revision.as_ref()?);
    let written = revision_hash(&rollout.spec.template);
    if written != *canary && written != *stable {
        return Some(format!("The spec has a newer version, revision {written}, that the operator has not begun to release"));
    }
    let weight = status.weights.applied;
    (canary != stable && status.abort.is_none())
        .then(|| format!("Revision {canary} is being released, and {weight} % of new calls go to it"))
}

type Patches = (Vec<Value>, Vec<String>);

fn image_patches(rollout: &VoiceRollout, images: &[(String, String)]) -> Result<Patches, CliError> {
    let spec = rollout.spec.template.spec.clone().unwrap_or_default();
    let place = |list: &'static str, i: usize| format!("/spec/template/spec/{list}/{i}");
    let all: Vec<_> = (spec.containers.iter().enumerate().map(|(i, c)| (place("containers", i), c)))
        .chain(spec.init_containers.iter().flatten().enumerate().map(|(i, c)| (place("initContainers", i), c)))
        .collect();
    let (mut patches, mut changes) = (Vec::new(), Vec::new());
    for (container, image) in images {
        let Some((path, found)) = all.iter().find(|(_, c)| &c.name == container) else {
            let names = || all.iter().map(|(_, c)| c.name.clone());
            let likely = near(container, names());
            let hint = if likely.is_empty() { String::new() } else { format!("; did you mean {}?", likely.join(" or ")) };
            let there = names().collect::<Vec<_>>().join(", ");
            return Err(CliError::Differs(format!("spec.template has no container {container}, only {there}{hint}")));
        };
        let before = found.image.clone().unwrap_or_default();
        if before != *image {
            patches.push(json!({"op": "test", "path": format!("{path}/name"), "value": container}));
            patches.push(json!({"op": "add", "path": format!("{path}/image"), "value": image}));
            changes.push(format!("{container} {before} -> {image}"));
        }
    }
    Ok((patches, changes))
}

/// JSON Patch cannot make a map and fill it in one operation, so a map that is missing is added whole.
fn annotation_patches(rollout: &VoiceRollout, key: &str, value: &str) -> Vec<Value> {
    let metadata = rollout.spec.template.metadata.as_ref();
    match metadata.map(|m| m.annotations.is_some()) {
        None => vec![json!({"op": "add", "path": "/spec/template/metadata", "value": {"annotations": {key: value}}})],
        Some(false) => vec![json!({"op": "add", "path": "/spec/template/metadata/annotations", "value": {key: value}})],
        Some(true) => {
            let escaped = key.replace('~', "~0").replace('/', "~1");
            vec![json!({"op": "add", "path": format!("/spec/template/metadata/annotations/{escaped}"), "value": value})]
        }
    }
}
