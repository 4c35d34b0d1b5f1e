//! Why a canary did worse, in a judge's words: asked for when the calls are back at stable, and never waited for.

use super::Machine;
use crate::api::VoiceAnalysisRunSpec;
use crate::api::rollout::Analysis;
use crate::api::run::{Explains, Finding, RunKind, RunPhase};
use crate::api::status::{AbortRecord, RunRecord};
use crate::core::gates::{explanation, only_explains};
use crate::core::intent::Intent;
use crate::core::plan::PlanStep;

impl Machine<'_> {
    /// Has a judge with `explainAborts` explain an abort by another gate, once, and takes in what it says.
    pub(super) fn explain_abort(&mut self) {
        let Some(abort) = self.s.abort.clone().filter(|a| a.explanation.is_none()) else { return };
        let Some(gate) = abort.gate.clone() else { return };
        let asked = self.explaining_run().cloned();
        if let Some(run) = asked.as_ref().and_then(|r| self.run_of(r)) {
            let said = (run.phase != RunPhase::Running).then(|| explanation(&run.gates));
            if let Some(said) = said {
                self.explained(said);
            }
            return;
        }
        if !self.all_back() || self.blocked().is_some() {
            return;
        }
        let Some((step, judge)) = self.explainer(&gate) else { return };
        match (self.explaining_spec(&abort, gate, step, &judge), asked) {
            (Err(problem), _) => self.explained(Err(problem)),
            // Another spec is another question, and one is all that may be asked.
            (Ok(spec), Some(known)) if self.run_record(&spec) != known => {
                self.explained(Err("the gates were edited before the judge was asked".into()));
            }
            (Ok(spec), known) => self.ask(spec, known.is_some()),
        }
    }

    /// The run that explains the abort, where it was asked for.
    pub(super) fn explaining_run(&self) -> Option<&RunRecord> {
        self.s.runs.iter().find(|r| r.kind == RunKind::Explanation)
    }

    fn ask(&mut self, spec: VoiceAnalysisRunSpec, recorded: bool) {
        let record = self.run_record(&spec);
        if self.seen.runs.iter().any(|r| r.name == record.name) {
            return self.explained(Err(format!("VoiceAnalysisRun {} is not what was asked for", record.name)));
        }
        let name = record.name.clone();
        if !recorded {
            self.s.runs.push(record);
        }
        self.intents.push(Intent::CreateRun { name, spec: Box::new(spec) });
    }

    /// Step (`None`: background) and name of the judge to ask: of the step where it happened, else of the background, else
    /// of the nearest step. The gate that aborted has said why.
    fn explainer(&self, aborted_by: &str) -> Option<(Option<i32>, String)> {
        let here = self.s.current_step.unwrap_or(0);
        let others = self.plan.explainers.iter().filter(|(_, name)| name != aborted_by);
        let distance = |step: Option<i32>| step.map_or(1, |i| if i == here { 0 } else { i.abs_diff(here).saturating_add(1) });
        others.min_by_key(|(step, _)| distance(*step)).cloned()
    }

    fn explaining_spec(&self, abort: &AbortRecord, gate: String, step: Option<i32>, judge: &str) -> Result<VoiceAnalysisRunSpec, String> {
        let (analysis, path) = self.analysis_of(step).ok_or("the judge is not in the spec any more")?;
        let mut spec = self.run_spec(RunKind::Explanation, step, &analysis, &path)?;
        spec.gates.retain(|g| g.gate.name == judge);
        for gate in &mut spec.gates {
            gate.gate = only_explains(&gate.gate);
        }
        let found = self.s.gates.iter().cloned();
        let found = found.map(|g| Finding { name: g.name, verdict: g.verdict, value: g.value, message: g.message });
        spec.explains = Some(Explains { gate, reason: abort.reason.clone(), gates: found.collect() });
        spec.step = None;
        Ok(spec)
    }

    fn analysis_of(&self, step: Option<i32>) -> Option<(Analysis, String)> {
        let Some(step) = step else { return Some((self.plan.background.clone()?, "spec.analysis".into())) };
        match self.plan.steps.get(usize::try_from(step).ok()?)? {
            PlanStep::Analysis { run, .. } => Some((run.clone()?, format!("spec.steps[{step}].analysis"))),
            _ => None,
        }
    }

    fn explained(&mut self, said: Result<String, String>) {
        let (decision, text) = match said {
            Ok(text) => ("AbortExplained", text),
            Err(why) => ("AbortNotExplained", format!("no explanation: {why}")),
        };
        if let Some(abort) = &mut self.s.abort {
            abort.explanation = Some(text.clone());
        }
        self.record(decision, text, None, false);
    }
}
