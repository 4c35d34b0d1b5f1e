//! What a status says that was not told yet. Nothing is told before it is recorded, because it is read from the record.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use sha2::{Digest, Sha256};

use crate::api::VoiceRolloutStatus;
use crate::api::analysis::Mode;
use crate::api::notification::Trigger;
use crate::api::outbox::{Cursor, DecisionId, Facts};
use crate::api::run::Verdict;
use crate::api::status::{DecisionRecord, GateSummary, Phase};

/// Longest reason that a message carries, in characters.
const MAX_REASON: usize = 1000;

/// The decision that stable's template is asked for again.
const RETURNED: &str = "ReturnedToStable";

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Different for different news. It is recorded before anything is sent.
    pub id: String,
    /// What is told.
    pub facts: Facts,
}

/// Whose status it is.
#[derive(Clone, Copy, Debug)]
struct Subject<'a> {
    namespace: &'a str,
    rollout: &'a str,
    uid: &'a str,
    status: &'a VoiceRolloutStatus,
}

/// What is new in a status since `cursor`, oldest first, and the cursor after it.
pub fn news(
    cursor: &Cursor,
    (namespace, rollout, uid): (&str, &str, &str),
    status: &VoiceRolloutStatus,
    now: Timestamp,
) -> (Vec<News>, Cursor) {
    let subject = Subject { namespace, rollout, uid, status };
    let after = caught_up(status, cursor);
    let mut all: Vec<News> = Vec::new();
    for i in unread(cursor, &status.decisions)..status.decisions.len() {
        let (earlier, record) = (&status.decisions[..i], &status.decisions[i]);
        match trigger(record) {
            Some(trigger) => all.push(subject.decided(trigger, record)),
            None if record.decision == RETURNED => all.extend(subject.withdrawn(earlier, record)),
            None => {}
        }
    }
    let told_pause = all.iter().any(|n| n.facts.trigger == Trigger::Paused);
    let mut seen = subject.steps(cursor, &after, now);
    seen.extend(subject.failing(cursor, &after, now));
    if after.paused.is_some() && after.paused != cursor.paused && !told_pause {
        seen.push(subject.paused(now));
    }
    // They are of the newest release: after its begin, and before what ended it.
    let begin = all.iter().rposition(|n| n.facts.trigger == Trigger::Started).map_or(0, |i| i + 1);
    let end = all[begin..].iter().position(|n| ends(n.facts.trigger)).map_or(all.len(), |i| begin + i);
    all.splice(end..end, seen);
    (all, after)
}

fn ends(trigger: Trigger) -> bool {
    matches!(trigger, Trigger::Aborted | Trigger::Promoted | Trigger::Paused | Trigger::DrainOverdue)
}

/// The cursor that has seen all of a status; of the same `resource_version` as before.
pub fn caught_up(status: &VoiceRolloutStatus, before: &Cursor) -> Cursor {
    let release = format!("{}/{}", status.canary_revision.as_deref().unwrap_or_default(), status.attempt);
    let decision = status.decisions.last().map(identity).or_else(|| before.decision.clone());
    let failing = status.gates.iter().filter(|g| fails(g)).map(key).collect();
    let paused = (status.phase == Phase::Paused).then(|| format!("{release}/{}", status.step_display));
    let resource_version = before.resource_version.clone();
    Cursor { resource_version, decision, release, step: status.current_step.unwrap_or(0), paused, failing }
}

fn identity(record: &DecisionRecord) -> DecisionId {
    DecisionId { at: record.at.clone(), decision: record.decision.clone(), revision: record.revision.clone(), step: record.step.clone() }
}

/// Where the decisions after the cursor's begin. One that is not in the record any more was followed by all that came later.
fn unread(cursor: &Cursor, decisions: &[DecisionRecord]) -> usize {
    let Some(last) = &cursor.decision else { return 0 };
    match decisions.iter().rposition(|d| identity(d) == *last) {
        Some(found) => found + 1,
        None => decisions.iter().position(|d| d.at > last.at).unwrap_or(decisions.len()),
    }
}

/// What a decision is news of.
fn trigger(record: &DecisionRecord) -> Option<Trigger> {
    match record.decision.as_str() {
        "FirstDeployment" | "ReleaseStarted" | "RollbackStarted" | "Retried" => Some(Trigger::Started),
        "PausedByUser" => Some(Trigger::Paused),
        "Aborted" => Some(Trigger::Aborted),
        // With a person's name it is the end of a pause.
        "Promoted" if record.by.is_none() => Some(Trigger::Promoted),
        "FirstDeployed" | "RolledBack" => Some(Trigger::Promoted),
        "DrainOverdue" => Some(Trigger::DrainOverdue),
        "RoutesChangedByOthers" => Some(Trigger::Drift),
        _ => None,
    }
}

/// It begins what the steps after it are of.
fn begins(record: &DecisionRecord) -> bool {
    trigger(record) == Some(Trigger::Started) || record.decision == RETURNED
}

fn fails(gate: &GateSummary) -> bool {
    gate.mode != Mode::DryRun && matches!(gate.verdict, Some(Verdict::Fail | Verdict::Error))
}

fn key(gate: &GateSummary) -> String {
    format!("{:?}/{}", gate.kind, gate.name)
}

impl Subject<'_> {
    fn decided(&self, trigger: Trigger, record: &DecisionRecord) -> News {
        let abort =
            self.status.abort.as_ref().filter(|a| trigger == Trigger::Aborted && a.revision == record.revision && a.at == record.at);
        let weight = match trigger {
            Trigger::Aborted => abort.map(|a| a.weight),
            Trigger::Paused | Trigger::Drift => Some(self.status.weights.applied),
            _ => None,
        };
        let mut facts = self.facts(trigger, &record.step, &record.reason, record.at.clone());
        facts.revision.clone_from(&record.revision);
        facts.decision.clone_from(&record.decision);
        facts.by = record.by.clone().unwrap_or_default();
        facts.gate = abort.and_then(|a| a.gate.clone()).unwrap_or_default();
        facts.weight = weight;
        self.news(facts, &record.at.0.to_string())
    }

    /// Stable is asked for again: that takes back a release that goes on. After an abort there is none, and nothing to tell.
    fn withdrawn(&self, earlier: &[DecisionRecord], record: &DecisionRecord) -> Option<News> {
        let last =
            earlier.iter().rev().find(|d| begins(d) || trigger(d).is_some_and(|t| matches!(t, Trigger::Aborted | Trigger::Promoted)))?;
        let goes_on = trigger(last) == Some(Trigger::Started);
        goes_on.then(|| self.decided(Trigger::Aborted, &DecisionRecord { revision: last.revision.clone(), ..record.clone() }))
    }

    /// Steps that have passed; a release that was taken over in its midst has no news of earlier ones.
    fn steps(&self, cursor: &Cursor, after: &Cursor, now: Timestamp) -> Vec<News> {
        let begun = self.status.decisions.iter().rev().find(|d| begins(d)).map(|d| d.decision.as_str());
        let first = match begun {
            // These go through no step.
            Some("FirstDeployment" | "RollbackStarted" | RETURNED) => return Vec::new(),
            _ if cursor.release == after.release => cursor.step,
            Some(_) => 0,
            None => return Vec::new(),
        };
        // The length of the list stands in the display of the step, where there is one.
        let total = self.status.step_display.rsplit_once('/').and_then(|(_, n)| n.parse::<i32>().ok()).unwrap_or(after.step);
        let at = |i: i32| {
            let facts = self.facts(Trigger::StepPassed, &format!("{}/{total}", i + 1), "", MicroTime(now));
            self.news(Facts { weight: Some(self.status.weights.applied), ..facts }, &now.to_string())
        };
        let mut release = self.status.decisions.iter().rev().take_while(|d| !begins(d));
        if release.any(|d| d.decision == "PromotedFull") {
            return Vec::new();
        }
        // Where a person overrode what was missing, nothing has passed.
        let overridden =
            |i: i32| self.status.overridden_steps.iter().any(|step| step.split_once('/').is_some_and(|(n, _)| n.parse() == Ok(i + 1)));
        (first..after.step).filter(|i| !overridden(*i)).map(at).collect()
    }

    fn failing(&self, cursor: &Cursor, after: &Cursor, now: Timestamp) -> Vec<News> {
        let same = cursor.release == after.release;
        let fresh = self.status.gates.iter().filter(|g| fails(g) && !(same && cursor.failing.contains(&key(g))));
        let told = |gate: &GateSummary| {
            let facts = self.facts(Trigger::GateFailing, &self.status.step_display, &gate.message, MicroTime(now));
            let facts = Facts { gate: gate.name.clone(), weight: Some(self.status.weights.applied), ..facts };
            self.news(facts, &format!("{}/{now}", key(gate)))
        };
        fresh.map(told).collect()
    }

    fn paused(&self, now: Timestamp) -> News {
        let facts = self.facts(Trigger::Paused, &self.status.step_display, &self.status.waiting_for, MicroTime(now));
        self.news(Facts { weight: Some(self.status.weights.applied), ..facts }, &now.to_string())
    }

    fn facts(&self, trigger: Trigger, step: &str, reason: &str, at: MicroTime) -> Facts {
        let reason = reason.trim().trim_end_matches('.');
        let long = reason.chars().count() > MAX_REASON;
        let cut: String = reason.chars().take(MAX_REASON - 1).collect();
        Facts {
            trigger,
            namespace: self.namespace.into(),
            rollout: self.rollout.into(),
            revision: self.status.canary_revision.clone().unwrap_or_default(),
            stable_revision: self.status.stable_revision.clone().unwrap_or_default(),
            step: step.into(),
            weight: None,
            gate: String::new(),
            failure_reason: if long { format!("{cut}…") } else { reason.into() },
            by: String::new(),
            at,
            decision: String::new(),
        }
    }

    fn news(&self, facts: Facts, place: &str) -> News {
        let parts = [self.uid, facts.trigger.name(), &facts.decision, &facts.revision, &facts.step, &facts.gate, place];
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let id = hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect();
        News { id, facts }
    }
}
