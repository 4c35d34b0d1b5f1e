//! Analysis runs: which should exist, and which have had their day.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{Machine, Waiting, after};
use crate::api::VoiceAnalysisRunSpec;
use crate::api::rollout::Analysis;
use crate::api::run::{RunKind, RunPhase, Verdict};
use crate::api::status::{PromotionStage, RunRecord};
use crate::core::gates::{gates_hash, rounded_up, spec_hash};
use crate::core::intent::Intent;
use crate::core::observe::RunSeen;
use crate::core::plan::{PlanStep, give_shares};
use crate::core::proof::{self, ProofPlan};
use crate::core::resolve::{self, Facts};

/// Finished runs kept for people beside those of the current attempt.
const RUN_HISTORY: usize = 20;

impl Machine<'_> {
    /// The background run from the first canary traffic on, and the run of the current analysis step.
    pub(super) fn ensure_runs(&mut self) {
        if self.blocked().is_some() || !self.in_steps() {
            return;
        }
        if self.s.step.traffic_since.is_some()
            && let Some(background) = self.background()
        {
            self.ensure_run(RunKind::Background, None, &background, "spec.analysis");
        }
        let index = self.step_index();
        if let Some(PlanStep::Analysis { run: Some(analysis), .. }) = self.plan.steps.get(index).cloned()
            && self.s.step.weight_since.is_some()
            && self.canary_arm_set()
            && !self.s.step.promoted
        {
            self.ensure_run(RunKind::Step, self.s.current_step, &analysis, &format!("spec.steps[{index}].analysis"));
        }
    }

    /// What the background run is asked; it may have no gate but the one that counts started calls.
    fn background(&self) -> Option<Analysis> {
        self.plan.background.clone().or_else(|| self.plan.proof.as_ref().map(|_| Analysis::default()))
    }

    fn ensure_run(&mut self, kind: RunKind, step: Option<i32>, analysis: &Analysis, path: &str) {
        let at = self.s.runs.iter().position(|r| r.kind == kind && r.step == step);
        if self.forged_run().is_some() || at.is_some_and(|i| self.run_of(&self.s.runs[i]).is_some()) {
            return;
        }
        let mut spec = match self.run_spec(kind, step, analysis, path) {
            Ok(spec) => spec,
            Err(problem) => {
                // More than that the analysis has not started.
                if !self.waiting.held {
                    self.waiting = Waiting { what: problem, ..Waiting::default() };
                }
                return;
            }
        };
        let mut record = self.run_record(&spec);
        // Steps that changed and changed back within a second: the run that ended with the change does not stand for the
        // new one.
        let ended = |name: &str| self.seen.runs.iter().any(|r| r.name == name && (r.stop || r.phase != RunPhase::Running));
        while let Some(since) = spec.traffic_since.take_if(|_| ended(&record.name)) {
            spec.traffic_since = Some(Time(after(&MicroTime(since.0), Duration::from_secs(1))));
            record = self.run_record(&spec);
        }
        let name = record.name.clone();
        match at {
            Some(i) => self.s.runs[i] = record,
            None => self.s.runs.push(record),
        }
        self.intents.push(Intent::CreateRun { name, spec: Box::new(spec) });
    }

    pub(super) fn run_record(&self, spec: &VoiceAnalysisRunSpec) -> RunRecord {
        let spec_hash = spec_hash(spec);
        let part = match spec.kind {
            RunKind::Background => "bg".to_string(),
            RunKind::Step => format!("s{}", spec.step.unwrap_or(0) + 1),
            RunKind::Explanation => "why".to_string(),
        };
        let name = format!("{}-{}-{}-{part}-{}", self.subject.name, spec.revision, spec.attempt, &spec_hash[..6]);
        RunRecord { name, kind: spec.kind, step: spec.step, spec_hash }
    }

    /// Forgets a background run without one of the gates that have to pass now, or with evidence for other gates that
    /// count calls: the spec or a template changed. A Fail stays.
    pub(super) fn forget_outdated_run(&mut self) {
        let Some(i) = self.s.runs.iter().position(|r| r.kind == RunKind::Background) else { return };
        let Some(run) = self.run_of(&self.s.runs[i]).filter(|r| !r.gates.is_empty()) else { return };
        let counted = run.gates.iter().any(|g| g.memory.is_some());
        let lacks = |name: &String| run.gates.iter().all(|g| &g.name != name);
        let uncounted = self.plan.proof.is_some() && lacks(&proof::GATE.to_string());
        let incomplete = uncounted || self.plan.background_required.iter().any(lacks);
        if !incomplete && !self.counts_otherwise(run) {
            return;
        }
        self.s.runs.remove(i);
        if counted {
            self.s.evidence_restarts = self.s.evidence_restarts.saturating_add(1);
            let reason = "gates were edited: the evidence of those that count calls begins anew, and falseAbort is spent once more";
            self.record("EvidenceRestarted", reason, None, false);
        }
    }

    /// The gates that count calls are not those of the run any more.
    fn counts_otherwise(&self, run: &RunSeen) -> bool {
        let failed = run.gates.iter().any(|g| g.verdict == Some(Verdict::Fail));
        let counts = run.gates.iter().any(|g| g.memory.is_some()) || !self.plan.patience.is_empty();
        if failed || !counts || self.blocked().is_some() || !self.in_steps() {
            return false;
        }
        let asked = self.plan.background.as_ref().and_then(|b| self.run_spec(RunKind::Background, None, b, "spec.analysis").ok());
        asked.is_some_and(|spec| gates_hash(&spec.gates) != run.counting)
    }

    pub(super) fn run_spec(
        &self,
        kind: RunKind,
        step: Option<i32>,
        analysis: &Analysis,
        path: &str,
    ) -> Result<VoiceAnalysisRunSpec, String> {
        // A run keeps its name until it is seen, so nothing that changes from step to step goes into it: the background
        // begins with the first step that gives the canary traffic.
        let begins = (0..self.plan.steps.len()).find(|i| self.plan.weight_at(*i) > 0).unwrap_or(0);
        let (weight, number) = match step {
            Some(index) => (self.s.weights.desired, index + 1),
            None => (self.plan.weight_at(begins), i32::try_from(begins).unwrap_or(0) + 1),
        };
        // What is explained has happened at the weight of then.
        let weight = self.s.abort.as_ref().filter(|_| kind == RunKind::Explanation).map_or(weight, |a| a.weight);
        let facts = Facts {
            stable_revision: self.s.stable_revision.clone().unwrap_or_default(),
            canary_revision: self.canary().into(),
            weight,
            step: number,
            attempt: self.s.attempt,
        };
        let seen = self.seen;
        let asked = resolve::resolve(analysis, &seen.rollout, &facts, &|r| seen.template(r), path);
        let mut gates = match asked {
            _ if *analysis == Analysis::default() => Vec::new(),
            asked => asked.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?,
        };
        gates.extend(self.plan.proof.as_ref().filter(|_| kind == RunKind::Background).map(ProofPlan::gate));
        give_shares(&mut gates, step, &self.plan.shares);
        let since = match kind {
            RunKind::Background => &self.s.step.traffic_since,
            RunKind::Step => &self.s.step.weight_since,
            RunKind::Explanation => &None,
        };
        Ok(VoiceAnalysisRunSpec {
            rollout: self.subject.name.clone(),
            rollout_uid: self.subject.uid.clone(),
            kind,
            revision: facts.canary_revision,
            stable_revision: facts.stable_revision,
            attempt: facts.attempt,
            step,
            weight,
            traffic_since: since.as_ref().map(|t| rounded_up(t.0)),
            gates,
            stop: false,
            explains: None,
        })
    }

    pub(super) fn forget_step_runs(&mut self) {
        self.s.runs.retain(|r| r.kind == RunKind::Background);
    }

    /// Ends runs that nobody waits for, and forgets old ones.
    pub(super) fn tidy_runs(&mut self) {
        let switching = self.s.promotion.as_ref().is_some_and(|p| p.stage != PromotionStage::FullWeight);
        let judged = self.in_release() && self.s.abort.is_none() && !switching && !self.seen.deleting;
        let by_person = self.s.promotion.as_ref().is_some_and(|p| p.grounds == crate::api::status::Grounds::PromotedFull);
        let mut active: Vec<String> =
            if judged && !by_person { self.active_records().into_iter().map(|r| r.name).collect() } else { vec![] };
        active.extend(self.explaining_run().filter(|_| !self.seen.deleting).map(|r| r.name.clone()));
        for run in &self.seen.runs {
            if run.phase == RunPhase::Running && !run.stop && !active.contains(&run.name) {
                self.intents.push(Intent::StopRun { name: run.name.clone() });
            }
        }
        let known: Vec<&String> = self.s.runs.iter().map(|r| &r.name).collect();
        let mut old: Vec<_> = self.seen.runs.iter().filter(|r| r.phase != RunPhase::Running && !known.contains(&&r.name)).collect();
        old.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
        let gone = old.into_iter().skip(RUN_HISTORY).map(|r| Intent::DeleteRun { name: r.name.clone() });
        self.intents.extend(gone);
    }
}
