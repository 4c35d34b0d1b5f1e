//! How a release of a scenario has to end.

use serde::Deserialize;

use crate::api::status::{Phase, VoiceRolloutStatus};

/// How a release has to end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// The end.
    pub outcome: Outcome,
    /// The step where it ends, as people count: `3/10`.
    #[serde(default)]
    pub step: Option<String>,
    /// The gate that decided.
    #[serde(default)]
    pub gate: Option<String>,
    /// A judge explains the abort; the release ends when it has.
    #[serde(default)]
    pub explained: bool,
}

/// The end of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All new calls go to it.
    Promoted,
    /// It gets no calls any more.
    Aborted,
    /// It waits for a person.
    Paused,
}

impl Expect {
    /// Whether a rollout that rests ended as it has to.
    ///
    /// # Errors
    /// What is different, in one sentence.
    pub fn check(&self, status: &VoiceRolloutStatus) -> Result<(), String> {
        let phase = match self.outcome {
            Outcome::Promoted => Phase::Healthy,
            Outcome::Aborted => Phase::Degraded,
            Outcome::Paused => Phase::Paused,
        };
        if status.phase != phase {
            return Err(format!("the phase is {:?}, and should be {phase:?}: {}", status.phase, status.message));
        }
        let abort = status.abort.as_ref();
        let step = match self.outcome {
            Outcome::Aborted => abort.map(|a| a.step.clone()).unwrap_or_default(),
            _ => status.step_display.clone(),
        };
        if let Some(wanted) = self.step.as_ref().filter(|wanted| **wanted != step) {
            return Err(format!("it ended at step {step}, and should have at {wanted}"));
        }
        let explained = abort.and_then(|a| a.explanation.as_deref());
        if self.explained && explained.is_none_or(|text| text.starts_with("no explanation")) {
            return Err(format!("a judge should have explained the abort: {}", explained.unwrap_or("nothing was said")));
        }
        let decided = match self.outcome {
            Outcome::Aborted => abort.and_then(|a| a.gate.clone()).into_iter().collect(),
            _ => holding(status),
        };
        match self.gate.as_ref().filter(|wanted| !decided.contains(wanted)) {
            Some(wanted) => Err(format!("gate {wanted} should have decided, not {decided:?}")),
            None => Ok(()),
        }
    }

    /// Whether the rollout rests: it goes nowhere without a person, a new spec or evidence.
    pub fn is_end(&self, status: &VoiceRolloutStatus) -> bool {
        match status.phase {
            Phase::Healthy => status.stable_revision.is_some() && status.stable_revision == status.canary_revision,
            Phase::Degraded => !self.explained || status.abort.as_ref().is_some_and(|a| a.explanation.is_some()),
            Phase::Invalid => true,
            Phase::Paused => self.outcome == Outcome::Paused && self.gate.as_ref().is_none_or(|gate| holding(status).contains(gate)),
            _ => false,
        }
    }
}

/// Gates that ask the release to stop where it is.
fn holding(status: &VoiceRolloutStatus) -> Vec<String> {
    status.gates.iter().filter(|g| g.consequence.is_some()).map(|g| g.name.clone()).collect()
}
