//! What people ask for: promote, abort, retry, pause, resume.

use super::Machine;
use super::advance::forged;
use super::gates::{Hold, override_key};
use crate::api::action::Verb;
use crate::api::run::RunKind;
use crate::api::status::{Grounds, HandledAction, Promotion, PromotionStage};
use crate::core::intent::Intent;
use crate::core::observe::ActionSeen;
use crate::core::plan::PlanStep;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Marked actions that are remembered: a cache that lags may show them unmarked once more.
const REMEMBERED: usize = 16;

impl Machine<'_> {
    /// Carries out commands, oldest first. Each is remembered by UID until it is marked, so that a crash between the
    /// two does not carry it out twice.
    pub(super) fn obey_actions(&mut self) {
        let seen = self.seen;
        let open = |h: &HandledAction| seen.actions.iter().any(|a| a.uid == h.uid);
        let mut surplus = self.s.handled_actions.iter().filter(|h| !open(h)).count().saturating_sub(REMEMBERED);
        self.s.handled_actions.retain(|h| {
            let drop = surplus > 0 && !open(h);
            surplus -= usize::from(drop);
            !drop
        });
        for action in &seen.actions {
            if !self.s.handled_actions.iter().any(|h| h.uid == action.uid) {
                let outcome = self.obey(action);
                let (applied, message) = match outcome {
                    Ok(message) => (true, message),
                    Err(message) => (false, message),
                };
                self.s.handled_actions.push(HandledAction { uid: action.uid.clone(), applied, message });
            }
            if let Some(handled) = self.s.handled_actions.iter().find(|h| h.uid == action.uid) {
                let (applied, message) = (handled.applied, handled.message.clone());
                self.intents.push(Intent::MarkAction { name: action.name.clone(), applied, message });
            }
        }
    }

    fn obey(&mut self, action: &ActionSeen) -> Result<String, String> {
        if self.s.canary_revision.as_ref() != Some(&action.revision) {
            return Err(format!("revision {} is not the newest one any more: it is {}", action.revision, self.canary()));
        }
        let by = Some(action.by.clone().unwrap_or_else(|| "unverified".into()));
        let why = action.reason.clone().map(|r| format!(": {r}")).unwrap_or_default();
        match action.verb {
            Verb::Promote => self.promote(action, by, &why),
            Verb::SkipStep => self.skip_step(action, by, &why),
            Verb::PromoteFull => self.promote_full(by, &why),
            Verb::Abort => self.abort_by_hand(by, &why),
            Verb::Retry => self.retry(by, &why),
            Verb::Pause => {
                if !self.in_steps() {
                    return Err(self.no_steps());
                }
                if self.s.user_paused {
                    return Err("it is paused already".into());
                }
                self.s.user_paused = true;
                self.record("PausedByUser", format!("steps stand still until resume{why}"), by, false);
                Ok("steps stand still until resume; gates go on and may abort".into())
            }
            Verb::Resume => {
                if !self.s.user_paused {
                    let hint = if self.plan.paused { "spec.paused is set: take it out of the manifest" } else { "it is not paused" };
                    return Err(hint.into());
                }
                self.s.user_paused = false;
                self.record("Resumed", format!("steps go on{why}"), by, false);
                Ok("steps go on".into())
            }
        }
    }

    fn no_release(&self) -> String {
        match &self.s.abort {
            Some(abort) => format!("revision {} was aborted ({}): use retry, or apply another version", abort.revision, abort.reason),
            None if self.s.stable_revision.is_none() => "the first revision has no steps and nothing to go back to".into(),
            None => "no release is under way".into(),
        }
    }

    fn no_steps(&self) -> String {
        match &self.s.promotion {
            Some(p) if p.grounds == Grounds::First => self.no_release(),
            Some(_) => "no step is left: the roles are changing already".into(),
            None => self.no_release(),
        }
    }

    /// What holds a release whose step a person may end. `saw` is the step that the person saw.
    fn may_end_step(&self, saw: Option<&str>) -> Result<Vec<Hold>, String> {
        if !self.in_steps() {
            return Err(self.no_steps());
        }
        if let Some(blocked) = self.blocked() {
            return Err(blocked);
        }
        let step = self.step_text();
        if let Some(saw) = saw.filter(|saw| *saw != step) {
            return Err(format!("it is not at step {saw} any more, but at step {step}: look again"));
        }
        if self.plan.paused || self.s.user_paused {
            return Err("it is paused: resume it first (or take spec.paused out of the manifest)".into());
        }
        let holds = self.holds();
        if let Some(hold) = holds.iter().find(|h| !h.may_override) {
            return Err(format!(
                "gate {} failed ({}): promote does not override a failed gate; abort, or retry with fresh evidence",
                hold.name, hold.message
            ));
        }
        match self.stands_still() {
            Some(why) => Err(format!("step {step} would not go on: {why}")),
            None => Ok(holds),
        }
    }

    /// What no person's word moves: the release would stand where it is.
    fn stands_still(&self) -> Option<String> {
        if let Some(run) = self.forged_run() {
            return Some(forged(&run));
        }
        if let Some(nobody) = self.nobody_works() {
            return Some(format!("it waits for {nobody}"));
        }
        let over = self.step_index() >= self.plan.steps.len();
        self.preflight_hold().filter(|_| over && self.s.weights.applied < 100)
    }

    /// Ends a pause or an analysis that is not over. What moves pods and weights is never skipped: it would send calls to
    /// pods that are not there.
    fn skip_step(&mut self, action: &ActionSeen, by: Option<String>, why: &str) -> Result<String, String> {
        let holds = self.may_end_step(action.step.as_deref())?;
        let (step, index) = (self.step_text(), self.step_index());
        match self.plan.steps.get(index) {
            Some(PlanStep::Pause(_)) => return self.end_pause(holds, by, why),
            // After the last step only background gates are waited for.
            Some(PlanStep::Analysis { .. }) | None => {}
            Some(_) => {
                return Err(format!("step {step} moves pods and weights, and cannot be skipped: it waits for {}", self.waiting_hint()));
            }
        }
        if self.s.step.promoted && holds.is_empty() {
            return Err(format!("step {step} was skipped already"));
        }
        let missing = if self.s.step.promoted { Vec::new() } else { self.missing(index) };
        if holds.is_empty() && missing.is_empty() && self.unseen(index).is_none() {
            return Err(format!("step {step} lacks nothing, and goes on by itself"));
        }
        let more: Vec<String> = missing.iter().filter(|m| holds.iter().all(|h| h.key != m.key)).map(Hold::text).collect();
        let mut without = self.go_on_without(holds);
        without.extend(more);
        self.s.step.promoted = true;
        Ok(self.overridden(format!("step {step} was skipped, without {}", without.join(", ")), by, why))
    }

    fn promote(&mut self, action: &ActionSeen, by: Option<String>, why: &str) -> Result<String, String> {
        let holds = self.may_end_step(action.step.as_deref())?;
        let (step, index) = (self.step_text(), self.step_index());
        if matches!(self.plan.steps.get(index), Some(PlanStep::Pause(_))) {
            return self.end_pause(holds, by, why);
        }
        let late = self.waits_for_split() && self.unseen(index).is_some();
        if holds.is_empty() && !late {
            return Err(format!(
                "step {step} is not a pause: it waits for {}; promote --skip-step ends an analysis, promote --full skips everything",
                self.waiting_hint()
            ));
        }
        let without = match late {
            true => self.go_on_without(holds),
            false => self.override_holds(holds),
        };
        Ok(self.overridden(format!("step {step} goes on without {}", without.join(", ")), by, why))
    }

    /// Ends the pause that is the current step.
    fn end_pause(&mut self, holds: Vec<Hold>, by: Option<String>, why: &str) -> Result<String, String> {
        let step = self.step_text();
        if self.s.step.promoted && holds.is_empty() {
            return Err(format!("the pause of step {step} was ended already"));
        }
        let without = self.go_on_without(holds);
        self.s.step.promoted = true;
        if without.is_empty() {
            let what = format!("the pause of step {step} was ended");
            self.record("Promoted", format!("{what}{why}"), by, false);
            return Ok(what);
        }
        Ok(self.overridden(format!("the pause of step {step} was ended, without {}", without.join(", ")), by, why))
    }

    /// Lets the step go on whatever holds it, and though the split is not seen; gives each of them in words.
    fn go_on_without(&mut self, holds: Vec<Hold>) -> Vec<String> {
        let mut without = self.override_holds(holds);
        if let Some(missing) = self.unseen(self.step_index()) {
            self.override_split();
            without.push(format!("the split being seen ({missing})"));
        }
        without
    }

    fn override_holds(&mut self, holds: Vec<Hold>) -> Vec<String> {
        if holds.iter().any(|h| h.key == super::observed::KEY) {
            self.override_split();
        }
        let without = holds.iter().map(Hold::text).collect();
        self.s.step.overridden.extend(holds.into_iter().map(|h| h.key));
        without
    }

    /// Gates that the analysis of step `index` still needs, or the end of the steps.
    fn missing(&self, index: usize) -> Vec<Hold> {
        let hold =
            |kind: RunKind, (name, message): (String, String)| Hold { key: override_key(kind, &name), name, message, may_override: true };
        let background =
            |names: &[String]| self.all_unmet(names).into_iter().map(|gate| hold(RunKind::Background, gate)).collect::<Vec<_>>();
        let (run, require) = match self.plan.steps.get(index) {
            Some(PlanStep::Analysis { run, require }) => (run, require),
            Some(_) => return Vec::new(),
            None => return background(&self.plan.background_required),
        };
        let mut all = Vec::new();
        if run.is_some() && !self.step_run_passed() {
            all.extend(self.all_undecided().into_iter().map(|gate| hold(RunKind::Step, gate)));
            if all.is_empty() {
                all.push(hold(RunKind::Step, ("the analysis".into(), "not over".into())));
            }
        }
        all.extend(background(require));
        all
    }

    /// Records what a person overrode at the current step.
    fn overridden(&mut self, what: String, by: Option<String>, why: &str) -> String {
        let step = self.step_text();
        if !self.s.overridden_steps.contains(&step) {
            self.s.overridden_steps.push(step);
        }
        self.record("Overridden", format!("{what}{why}"), by, true);
        what
    }

    fn waiting_hint(&self) -> String {
        // What an abort said is over with the retry that came first.
        if self.old.waiting_for.is_empty() || self.old.abort.is_some() {
            "its pods and weights".into()
        } else {
            self.old.waiting_for.clone()
        }
    }

    fn promote_full(&mut self, by: Option<String>, why: &str) -> Result<String, String> {
        if !self.in_steps() {
            return Err(self.no_steps());
        }
        if let Some(blocked) = self.blocked() {
            return Err(blocked);
        }
        let reason = format!("every remaining step and analysis is skipped, from step {}{why}", self.step_text());
        self.record("PromotedFull", reason, by, true);
        self.s.promotion = Some(Promotion {
            revision: self.canary().into(),
            grounds: Grounds::PromotedFull,
            stage: PromotionStage::FullWeight,
            since: MicroTime(self.now()),
            ready_since: None,
        });
        Ok("going to 100 % without the remaining steps".into())
    }

    fn abort_by_hand(&mut self, by: Option<String>, why: &str) -> Result<String, String> {
        if !self.in_release() || self.s.abort.is_some() {
            return Err(self.no_release());
        }
        if self.s.promotion.as_ref().is_some_and(|p| p.stage == PromotionStage::ReturnWeights) {
            return Err("the new revision is stable already: apply the old version again".into());
        }
        self.abort(None, format!("aborted by hand{why}"), by);
        Ok("new calls go back to stable".into())
    }

    fn retry(&mut self, by: Option<String>, why: &str) -> Result<String, String> {
        if self.s.abort.is_none() {
            return Err("nothing was aborted".into());
        }
        if let Some(blocked) = self.blocked() {
            return Err(blocked);
        }
        self.s.abort = None;
        self.s.attempt += 1;
        self.s.runs.clear();
        self.s.gates.clear();
        self.reset_steps();
        let attempt = self.s.attempt;
        self.record("Retried", format!("attempt {attempt} starts at the first step, with fresh evidence{why}"), by, false);
        Ok(format!("attempt {attempt} starts at the first step"))
    }
}
