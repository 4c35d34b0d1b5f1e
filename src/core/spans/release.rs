//! Spans of a release, its steps and its drain: what two recorded statuses of a rollout, one after the other, differ in.

use jiff::Timestamp;

use super::{Attribute, Moment, Place, Span, number, shortened, text};
use crate::api::VoiceRolloutStatus;
use crate::api::run::RunKind;
use crate::api::status::{DecisionRecord, Phase, RevisionStatus, Role};
use crate::core::plan::PlanStep;

/// Whose statuses they are.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the rollout.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its steps.
    pub steps: &'a [PlanStep],
}

/// How a release went on, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// A person overrode what was missing.
    Overridden,
    Promoted,
    Aborted,
    /// Another revision or attempt took its place.
    Superseded,
    /// The list of steps is another one.
    Restarted,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Overridden => "overridden",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
            Self::Restarted => "restarted",
        }
    }

    /// `deployment.status` of the semantic conventions.
    fn status(self) -> &'static str {
        if self == Self::Promoted { "succeeded" } else { "failed" }
    }
}

/// One attempt at one revision.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Release<'a> {
    revision: &'a str,
    number: i64,
    attempt: i32,
}

impl<'a> Release<'a> {
    fn of(status: &'a VoiceRolloutStatus) -> Option<Self> {
        let revision = status.canary_revision.as_deref()?;
        let number = status.revisions.iter().find(|r| r.hash == revision)?.number;
        Some(Self { revision, number, attempt: status.attempt })
    }

    fn root(&self, uid: &str) -> Place {
        Place::root(&[uid, self.revision, &self.number.to_string(), &self.attempt.to_string()])
    }

    /// By its begin, too: after an edit of the list, a step may come a second time.
    fn step(&self, uid: &str, list: Option<&str>, index: i32, start: Timestamp) -> Place {
        self.root(uid).child(&["step", list.unwrap_or_default(), &index.to_string(), &start.as_microsecond().to_string()])
    }

    /// The decision that it began with.
    fn start<'d>(&self, decisions: &'d [DecisionRecord]) -> Option<&'d DecisionRecord> {
        decisions.iter().rev().find(|d| begins(d) && d.revision == self.revision)
    }
}

fn begins(decision: &DecisionRecord) -> bool {
    matches!(decision.decision.as_str(), "FirstDeployment" | "ReleaseStarted" | "RollbackStarted" | "Retried")
}

/// The decision makes a revision stable. With a person's name, `Promoted` is the end of a pause.
fn promotes(decision: &DecisionRecord) -> bool {
    match decision.decision.as_str() {
        "Promoted" => decision.by.is_none(),
        "FirstDeployed" | "RolledBack" => true,
        _ => false,
    }
}

/// Where a run that `status` asks for has its place: in its step, or in the release.
pub fn parent_of_run(uid: &str, status: &VoiceRolloutStatus, kind: RunKind, step: Option<i32>) -> Option<Place> {
    let release = Release::of(status)?;
    Some(match (step, &status.step.started_at) {
        (Some(index), Some(start)) if kind == RunKind::Step => release.step(uid, status.steps_hash.as_deref(), index, start.0),
        _ => release.root(uid),
    })
}

/// What has ended from one recorded status to the next; `now` is the time of the second.
pub fn ended(subject: Subject, old: &VoiceRolloutStatus, new: &VoiceRolloutStatus, now: Timestamp) -> Vec<Span> {
    let mut spans = Vec::new();
    if let Some(release) = Release::of(old) {
        let news = News { subject, release, old, new, now };
        spans.extend(news.steps());
        spans.extend(news.end());
    }
    if let Some(release) = Release::of(new) {
        let news = News { subject, release, old, new, now };
        // A first revision that is stable at once.
        if Release::of(old) != Some(release) {
            spans.extend(news.end());
        }
        spans.extend(news.drains());
    }
    spans
}

struct News<'a> {
    subject: Subject<'a>,
    release: Release<'a>,
    old: &'a VoiceRolloutStatus,
    new: &'a VoiceRolloutStatus,
    now: Timestamp,
}

impl News<'_> {
    /// Decisions that the new status has and the old one had not.
    fn fresh(&self) -> impl Iterator<Item = &DecisionRecord> {
        self.new.decisions.iter().filter(|d| !self.old.decisions.contains(d))
    }

    /// The release is still the newest.
    fn goes_on(&self) -> bool {
        Release::of(self.new) == Some(self.release)
    }

    /// The decision that aborted it. Of a revision that began, was aborted and is tried again, all at one moment, it is about
    /// the attempt before.
    fn aborted(&self) -> Option<&DecisionRecord> {
        let about_this = self.new.abort.is_some() || Release::of(self.old) == Some(self.release);
        self.fresh().find(|d| about_this && self.old.abort.is_none() && d.decision == "Aborted" && d.revision == self.release.revision)
    }

    fn steps(&self) -> Vec<Span> {
        let (old, new) = (self.old, self.new);
        let in_steps = |s: &VoiceRolloutStatus| {
            s.stable_revision.is_some() && s.stable_revision != s.canary_revision && s.abort.is_none() && s.promotion.is_none()
        };
        let (Some(first), Some(started)) = (old.current_step, &old.step.started_at) else { return Vec::new() };
        if !in_steps(old) || old.steps_hash.is_none() {
            return Vec::new();
        }
        let same_list = self.goes_on() && new.steps_hash == old.steps_hash;
        let (last, outcome) = match new.current_step {
            _ if self.aborted().is_some() => (first, Outcome::Aborted),
            _ if !self.goes_on() => (first, Outcome::Superseded),
            Some(next) if same_list && next > first => (next - 1, Outcome::Passed),
            Some(next) if same_list && next == first && in_steps(new) => return Vec::new(),
            // The promotion began in the midst of a step.
            _ if same_list => (first, Outcome::Passed),
            // In the moment in which it began.
            _ if started.0 == self.now => return Vec::new(),
            _ => (first, Outcome::Restarted),
        };
        let total = i32::try_from(self.subject.steps.len()).unwrap_or(i32::MAX);
        let one = |index: i32| {
            let start = if index == first { started.0 } else { self.now };
            self.step(index, start, outcome)
        };
        (first..=last.min(total - 1)).map(one).collect()
    }

    fn step(&self, index: i32, start: Timestamp, outcome: Outcome) -> Span {
        let step = usize::try_from(index).ok().and_then(|i| self.subject.steps.get(i));
        let display = format!("{}/{}", index + 1, self.subject.steps.len());
        let overridden = outcome == Outcome::Passed && self.new.overridden_steps.contains(&display);
        let outcome = if overridden { Outcome::Overridden } else { outcome };
        let here = |d: &&DecisionRecord| d.step == display && d.revision == self.release.revision;
        let by = self.fresh().filter(here).find_map(|d| d.by.as_deref()).unwrap_or_default();
        let weight = if let Some(PlanStep::SetWeight(weight)) = step { *weight } else { self.old.weights.desired };
        let own = [
            text("voicerollout.step", &display),
            number("voicerollout.weight", weight),
            text("voicerollout.outcome", outcome.name()),
            text("voicerollout.by", by),
        ];
        let moments = self.moments(start, Some(&display));
        Span {
            place: self.release.step(self.subject.uid, self.old.steps_hash.as_deref(), index, start),
            parent: Some(self.release.root(self.subject.uid).span),
            name: step.map_or("step", kind).into(),
            start,
            end: self.now.max(start),
            attributes: self.attributes(own),
            moments,
            failed: self.abort_reason(outcome),
        }
    }

    /// The end of the release itself.
    fn end(&self) -> Option<Span> {
        let old = Release::of(self.old) == Some(self.release);
        let under_way =
            old && self.old.abort.is_none() && self.old.phase != Phase::Healthy && self.old.canary_revision != self.old.stable_revision;
        let promoted = self.fresh().any(|d| promotes(d) && d.revision == self.release.revision);
        let outcome = match () {
            () if promoted => Outcome::Promoted,
            () if self.aborted().is_some() => Outcome::Aborted,
            () if under_way && !self.goes_on() => Outcome::Superseded,
            () => return None,
        };
        // What has begun since is another attempt, but for a release that the old status did not know.
        let decided = self.release.start(if old { &self.old.decisions } else { &self.new.decisions });
        let known = self.old.step.traffic_since.as_ref().or(self.old.step.started_at.as_ref());
        let start = decided.map(|d| d.at.0).or(known.map(|at| at.0)).unwrap_or(self.now).min(self.now);
        let root = self.release.root(self.subject.uid);
        let own = [
            text("voicerollout.outcome", outcome.name()),
            text("deployment.name", self.subject.name),
            text("deployment.status", outcome.status()),
            text("voicerollout.revision.stable", self.old.stable_revision.as_deref().unwrap_or_default()),
            number("voicerollout.attempt", self.release.attempt),
            text("voicerollout.gate", self.new.abort.as_ref().and_then(|a| a.gate.as_deref()).unwrap_or_default()),
        ];
        Some(Span {
            place: root,
            parent: None,
            name: "release".into(),
            start,
            end: self.now,
            attributes: self.attributes(own),
            moments: self.moments(start, None),
            failed: self.abort_reason(outcome),
        })
    }

    /// Revisions whose last call has ended, of those that this release took out of traffic.
    fn drains(&self) -> Vec<Span> {
        let Some(begun) = self.release.start(&self.new.decisions) else { return Vec::new() };
        let root = self.release.root(self.subject.uid);
        let was = |hash: &str| self.old.revisions.iter().find(|r| r.hash == hash).filter(|r| r.role == Role::Draining);
        let retired = self.new.revisions.iter().filter(|r| r.role == Role::Retired);
        let one = |revision: &RevisionStatus| {
            let start = was(&revision.hash)?.retired_at.as_ref()?.0;
            let own = [text("voicerollout.revision.drained", &revision.hash), number("voicerollout.calls.cut", revision.calls_cut)];
            (start >= begun.at.0).then(|| Span {
                place: root.child(&["drain", &revision.hash]),
                parent: Some(root.span),
                name: "drain".into(),
                start,
                end: self.now.max(start),
                attributes: self.attributes(own),
                moments: Vec::new(),
                failed: (revision.calls_cut > 0).then(|| format!("{} calls were live when their pod ended", revision.calls_cut)),
            })
        };
        retired.filter_map(one).collect()
    }

    fn abort_reason(&self, outcome: Outcome) -> Option<String> {
        self.aborted().filter(|_| outcome == Outcome::Aborted).map(|d| shortened(&d.reason))
    }

    /// Decisions since `start`, at the step if one is named.
    fn moments(&self, start: Timestamp, step: Option<&str>) -> Vec<Moment> {
        let mine = |d: &&DecisionRecord| {
            d.revision == self.release.revision && d.at.0 >= start && d.at.0 <= self.now && step.is_none_or(|s| d.step == s)
        };
        let moment = |d: &DecisionRecord| Moment {
            name: d.decision.clone(),
            at: d.at.0,
            attributes: [
                text("voicerollout.step", &d.step),
                text("voicerollout.reason", &d.reason),
                text("voicerollout.by", d.by.as_deref().unwrap_or_default()),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
        self.new.decisions.iter().filter(mine).map(moment).collect()
    }

    fn attributes(&self, own: impl IntoIterator<Item = Option<Attribute>>) -> Vec<Attribute> {
        let common = [text("voicerollout.name", self.subject.name), text("voicerollout.revision", self.release.revision)];
        common.into_iter().chain(own).flatten().collect()
    }
}

fn kind(step: &PlanStep) -> &'static str {
    match step {
        PlanStep::SetWeight(_) => "setWeight",
        PlanStep::Pause(_) => "pause",
        PlanStep::Analysis { .. } => "analysis",
        PlanStep::CanaryScale(_) => "setCanaryScale",
    }
}
