//! `history`: revisions and decisions as text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;
use serde::Serialize;

use super::status_view::{clock, grounds, relative};
use super::table::{Cell, Ink, Paint, lines};
use crate::api::VoiceRolloutStatus;
use crate::api::status::{DecisionRecord, RevisionStatus, Role};

/// A revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its number, counting from 1.
    pub number: i64,
    /// Hash of its pod template.
    pub revision: String,
    /// What it is for.
    pub role: Role,
    /// Images of its containers, in their order; empty when they cannot be seen.
    pub images: Vec<String>,
    /// When its ReplicaSet was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// What became of it.
    pub outcome: String,
    /// Why, as far as it is still known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The revisions that exist, newest first; `sets` are their ReplicaSets by hash, as far as they could be read.
pub fn entries(status: &VoiceRolloutStatus, sets: &BTreeMap<String, ReplicaSet>) -> Vec<Entry> {
    let entry = |revision: &RevisionStatus| {
        let set = sets.get(&revision.hash);
        let containers = set.and_then(|s| s.spec.template.as_ref()?.spec.as_ref()).map(|spec| &spec.containers);
        let (outcome, why) = outcome(status, revision);
        Entry {
            number: revision.number,
            revision: revision.hash.clone(),
            role: revision.role,
            images: containers.into_iter().flatten().filter_map(|c| c.image.clone()).collect(),
            created_at: set.and_then(ResourceExt::creation_timestamp).map(|at| at.0),
            outcome,
            why,
        }
    };
    status.revisions.iter().map(entry).collect()
}

fn outcome(status: &VoiceRolloutStatus, revision: &RevisionStatus) -> (String, String) {
    let about = |words: &'static [&'static str]| {
        let found = status.decisions.iter().rev().find(|d| d.revision == revision.hash && words.contains(&d.decision.as_str()));
        found.map(|d| format!("{}{}", d.reason, d.by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default())).unwrap_or_default()
    };
    let is = |hash: &Option<String>| hash.as_ref() == Some(&revision.hash);
    if let Some(abort) = status.abort.as_ref().filter(|a| a.revision == revision.hash) {
        return ("aborted".into(), abort.reason.clone());
    }
    if is(&status.stable_revision) {
        return ("stable".into(), about(&["Promoted", "RolledBack", "FirstDeployed"]));
    }
    if is(&status.canary_revision) {
        return ("being released".into(), status.message.clone());
    }
    if revision.aborted {
        return ("aborted".into(), about(&["Aborted"]));
    }
    if revision.was_stable { ("was stable".into(), String::new()) } else { ("replaced before it was stable".into(), String::new()) }
}

/// A table, newest first.
pub fn render(entries: &[Entry], now: Timestamp, paint: Paint) -> String {
    if entries.is_empty() {
        return "there is no revision yet\n".into();
    }
    let title = ["REVISION", "HASH", "AGE", "OUTCOME", "IMAGES"].map(|t| Cell::new(Ink::Bold, t));
    let mut table = vec![title];
    for entry in entries {
        let ink = match entry.outcome.as_str() {
            "aborted" => Ink::Red,
            "stable" => Ink::Green,
            "being released" => Ink::Cyan,
            _ => Ink::Plain,
        };
        let age = entry.created_at.map_or_else(|| "-".into(), |at| relative(at, now).trim_end_matches(" ago").to_owned());
        let images = if entry.images.is_empty() { "-".into() } else { entry.images.join(", ") };
        table.push([
            format!("{}", entry.number).into(),
            (&entry.revision).into(),
            age.into(),
            Cell::new(ink, &entry.outcome),
            images.into(),
        ]);
        if !entry.why.is_empty() {
            // Below the hash, so that a long reason has room.
            table.push(["".into(), Cell::new(Ink::Dim, &entry.why), "".into(), "".into(), "".into()]);
        }
    }
    lines(paint, &table).join("\n") + "\n"
}

/// Every decision that is kept, oldest first.
pub fn decisions(decisions: &[DecisionRecord], paint: Paint) -> String {
    if decisions.is_empty() {
        return "nothing was decided yet\n".into();
    }
    let title = ["AT", "REVISION", "STEP", "DECISION", "WHY"].map(|t| Cell::new(Ink::Bold, t));
    let row = |d: &DecisionRecord| {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        [Cell::new(Ink::Dim, clock(d.at.0)), or_dash(&d.revision).into(), or_dash(&d.step).into(), (&d.decision).into(), grounds(d).into()]
    };
    let table: Vec<[Cell; 5]> = std::iter::once(title).chain(decisions.iter().map(row)).collect();
    lines(paint, &table).join("\n") + "\n"
}

#[cfg(test)]
mod tests;
