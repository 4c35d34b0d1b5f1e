//! What people read: phase, message, conditions, what happens next. Derived; nothing here is memory.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::advance::DEADLINE_PREFIX;
use super::{Machine, after};
use crate::api::conditions::{
    self, AVAILABLE, CALLS_READABLE, DRAINING, HEALTHY, INVALID_SPEC, NOTIFICATIONS_READY, PREFLIGHT, PROGRESSING, REFERENCES_RESOLVED,
    ROUTES_IN_SYNC, SPLIT_OBSERVED,
};
use crate::api::proof::SplitVerdict;
use crate::api::status::{NextAction, Phase};
use crate::core::notify::Ready;

impl Machine<'_> {
    pub(super) fn present(&mut self) {
        self.assign_roles();
        self.show_calls();
        self.s.observed_generation = self.subject.generation;
        self.s.step_display = self.step_text();
        self.s.false_abort_spent = self.spent();
        self.s.phase = self.phase();
        let references = self.reference_problem();
        self.s.waiting_for = self.waiting_text(references.as_deref());
        self.s.next_action = self.next_action();
        self.s.message = self.message();
        if let Some(problem) = references.as_ref().filter(|p| !self.s.message.contains(p.as_str())) {
            self.s.message = format!("{}; but {problem}", self.s.message);
        }
        if let Some(note) = self.left_note() {
            self.s.message = format!("{}; {note}", self.s.message);
        }
        self.scale_view();
        self.set_conditions(references);
    }

    /// No managed route is seen to give the canary calls.
    pub(super) fn all_back(&self) -> bool {
        let clear = self.seen.routes.iter().all(|r| r.says(0) || r.weights.is_err()) && self.s.weights.applied == 0;
        clear && self.left_behind().is_empty()
    }

    fn phase(&self) -> Phase {
        let clear = self.all_back();
        if self.seen.deleting {
            Phase::Reverting
        } else if self.s.abort.is_some() {
            if clear { Phase::Degraded } else { Phase::Reverting }
        } else if self.blocked().is_some() {
            Phase::Invalid
        } else if self.s.canary_revision.is_none() {
            Phase::Pending
        } else if self.s.stable_revision.is_none() {
            Phase::Initializing
        } else if self.s.promotion.is_some() {
            Phase::Promoting
        } else if !self.in_release() {
            if clear && self.canary_arm_set() { Phase::Healthy } else { Phase::Reverting }
        } else if self.waiting.held {
            Phase::Paused
        } else {
            Phase::Progressing
        }
    }

    fn waiting_text(&self, references: Option<&str>) -> String {
        if let Some(abort) = &self.s.abort {
            return match (&abort.gate, &abort.by) {
                (None, None) => format!("aborted: {}", abort.reason),
                _ => abort.reason.clone(),
            };
        }
        if let Some(blocked) = self.blocked() {
            return blocked;
        }
        if self.s.phase == Phase::Healthy {
            return references.unwrap_or_default().to_string();
        }
        match references {
            Some(problem) if self.waiting.timed || self.waiting.what.is_empty() => problem.to_string(),
            _ => self.waiting.what.clone(),
        }
    }

    /// A Service, subset or VirtualService that cannot be used.
    fn reference_problem(&self) -> Option<String> {
        let arms = [&self.seen.stable_arm, &self.seen.canary_arm];
        let arm = arms.into_iter().find_map(|a| a.problem.clone());
        arm.or_else(|| self.seen.routes.iter().find_map(|r| r.weights.as_ref().err().cloned()))
    }

    fn next_action(&mut self) -> Option<NextAction> {
        if let Some((at, what)) = &self.waiting.next {
            return Some(NextAction { what: what.clone(), at: Some(MicroTime(*at)) });
        }
        let progress = self.s.step.progress_at.clone()?;
        let moving = matches!(self.s.phase, Phase::Initializing | Phase::Progressing | Phase::Promoting);
        if !moving || !self.waiting.timed {
            return None;
        }
        let at = after(&progress, self.plan.progress_deadline);
        self.due(at);
        let outcome = match self.plan.on_deadline {
            crate::api::rollout::OnDeadline::Abort => "the release is aborted",
            crate::api::rollout::OnDeadline::Report => "it is reported",
        };
        Some(NextAction { what: format!("{DEADLINE_PREFIX}: {outcome} unless there is progress"), at: Some(MicroTime(at)) })
    }

    fn message(&self) -> String {
        let stable = self.s.stable_revision.as_deref().unwrap_or("none");
        let canary = self.canary();
        let weight = self.s.weights.applied;
        let waits = if self.s.waiting_for.is_empty() { String::new() } else { format!("; waiting for: {}", self.s.waiting_for) };
        match self.s.phase {
            Phase::Pending => "nothing has happened yet".into(),
            Phase::Initializing => format!("the first revision {canary} goes to 100 %{waits}"),
            Phase::Invalid => self.s.waiting_for.clone(),
            Phase::Healthy => format!("all new calls go to revision {stable}"),
            Phase::Progressing => format!("step {}: {weight} % of new calls go to revision {canary}{waits}", self.s.step_display),
            Phase::Paused => format!("paused at step {}, {weight} % of new calls go to revision {canary}{waits}", self.s.step_display),
            Phase::Promoting => format!("revision {canary} becomes stable{waits}"),
            Phase::Reverting => {
                let why = self.s.abort.as_ref().map(|a| format!(": {}", a.reason)).unwrap_or_default();
                let holds = if self.waiting.what.is_empty() { String::new() } else { format!("; waiting for: {}", self.waiting.what) };
                format!("new calls go back to revision {stable}{why}{holds}")
            }
            Phase::Degraded => match &self.s.abort {
                Some(abort) => format!("revision {} was aborted, all new calls go to {stable}: {}", abort.revision, abort.reason),
                None => format!("all new calls go to revision {stable}"),
            },
        }
    }

    fn scale_view(&mut self) {
        let stable = self.s.stable_revision.clone().or_else(|| self.s.canary_revision.clone()).unwrap_or_default();
        self.s.replicas = self.seen.replica_set(&stable).map_or(0, |r| r.exist);
        let own = &self.subject.selector;
        self.s.selector = format!("{own},{}={stable}", crate::api::common::REVISION_LABEL);
    }

    fn set_conditions(&mut self, references: Option<String>) {
        let (now, generation) = (self.now(), self.subject.generation);
        let (draining, readable) = (self.draining_text(), self.calls_readable());
        let mut all = std::mem::take(&mut self.s.conditions);
        let mut set = |type_: &str, status: bool, reason: &str, message: &str| {
            conditions::set(&mut all, now, generation, type_, status, reason, message);
        };
        let mistakes = self.plan.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        match (&self.seen.rival, mistakes.is_empty()) {
            (Some(rival), _) => set(INVALID_SPEC, true, "RouteConflict", rival),
            (None, false) => set(INVALID_SPEC, true, "InvalidSpec", &mistakes),
            (None, true) => set(INVALID_SPEC, false, "Valid", "the spec can be carried out"),
        }
        match references {
            Some(problem) => set(REFERENCES_RESOLVED, false, "NotUsable", &problem),
            None => set(REFERENCES_RESOLVED, true, "Resolved", "every Service and VirtualService is there and usable"),
        }
        let (clear, reason, found) = self.preflight_condition();
        set(PREFLIGHT, clear, &reason, &found);
        let stable = self.s.stable_revision.clone().unwrap_or_default();
        let set_seen = self.seen.replica_set(&stable);
        let (have, want) = (set_seen.map_or(0, |r| r.available), self.plan.replicas);
        let reason = if have >= want { "MinimumAvailable" } else { "PodsMissing" };
        set(AVAILABLE, !stable.is_empty() && have >= want, reason, &format!("{have} of {want} stable pods are available"));
        let phase = self.s.phase;
        set(HEALTHY, phase == Phase::Healthy, &format!("{phase:?}"), &self.s.message);
        let late =
            self.s.next_action.as_ref().is_some_and(|n| n.what.starts_with(DEADLINE_PREFIX) && n.at.as_ref().is_some_and(|at| at.0 <= now));
        let moving = matches!(phase, Phase::Initializing | Phase::Progressing | Phase::Promoting | Phase::Reverting);
        let reason = if late { "ProgressDeadlineExceeded".to_string() } else { format!("{phase:?}") };
        set(PROGRESSING, moving && !late, &reason, &self.s.message);
        match draining {
            Some(text) => set(DRAINING, true, "CallsMayBeLive", &text),
            None => set(DRAINING, false, "NothingDrains", "no revision keeps pods for old calls"),
        }
        match readable {
            Some(Ok(())) => set(CALLS_READABLE, true, "Read", "the live calls of every pod are known"),
            Some(Err(why)) => set(CALLS_READABLE, false, "Unreadable", &why),
            None => {}
        }
        let drift = self.events.iter().find(|e| e.reason == "RoutesChangedByOthers").map(|e| e.note.clone());
        let settled = self.s.step.weight_since.is_some();
        let was_drift = self.old.conditions.iter().any(|c| c.type_ == ROUTES_IN_SYNC && c.status == "False");
        let shadowed = self.seen.routes.iter().find_map(|r| r.shadowed.clone());
        match drift {
            Some(note) => set(ROUTES_IN_SYNC, false, "ChangedByOthers", &note),
            None if shadowed.is_some() => set(ROUTES_IN_SYNC, false, "Shadowed", &shadowed.unwrap_or_default()),
            None if settled || !was_drift => set(ROUTES_IN_SYNC, true, "InSync", "managed routes say what they should"),
            None => {}
        }
        let seen = self.s.weights.observed.as_ref().filter(|_| self.plan.proof.is_some());
        match seen {
            Some(seen) => {
                let (status, reason) = match seen.verdict {
                    SplitVerdict::Agrees => ("True", "Agrees"),
                    SplitVerdict::Differs => ("False", "Differs"),
                    SplitVerdict::TooFew => ("Unknown", "TooFewCalls"),
                    SplitVerdict::NoData => ("Unknown", "NoData"),
                };
                conditions::set_as(&mut all, now, generation, SPLIT_OBSERVED, status, (reason, &seen.message));
            }
            None => all.retain(|c| c.type_ != SPLIT_OBSERVED),
        }
        match self.seen.notifications.condition() {
            Ready::Is(ready, reason, message) => conditions::set(&mut all, now, generation, NOTIFICATIONS_READY, ready, reason, &message),
            Ready::Kept => {}
            Ready::Gone => all.retain(|c| c.type_ != NOTIFICATIONS_READY),
        }
        self.s.conditions = all;
    }
}
