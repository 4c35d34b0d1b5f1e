//! Gates: those of templates on their own, and what looks wrong with any gate though it can be measured.

use std::time::Duration;

use super::{Document, Finding, template_errors, typed};
use crate::api::analysis::{Gate, Judge};
use crate::api::common::std_duration;
use crate::api::run::RunGate;
use crate::api::{ClusterVoiceAnalysisTemplate, VoiceAnalysisTemplate};
use crate::core::gates::calls::unit_warning;
use crate::core::gates::settle_time;
use crate::core::judge::budget::highest_of_verdict;
use crate::core::window::span;

/// A query that looks back longer than this makes every step as long.
const LONG_WINDOW: Duration = Duration::from_secs(30 * 60);

/// Checks a template; does nothing for another kind.
pub fn template(document: &Document, found: &mut Vec<Finding>) {
    let (args, gates) = match document.kind() {
        "VoiceAnalysisTemplate" => match typed::<VoiceAnalysisTemplate>(&document.value) {
            Ok(template) => (template.spec.args, template.spec.gates),
            Err(reason) => return found.push(document.error("spec", reason)),
        },
        "ClusterVoiceAnalysisTemplate" => match typed::<ClusterVoiceAnalysisTemplate>(&document.value) {
            Ok(template) => (template.spec.args, template.spec.gates),
            Err(reason) => return found.push(document.error("spec", reason)),
        },
        _ => return,
    };
    found.extend(template_errors(&args, &gates).into_iter().map(|e| document.error(&e.path, e.message)));
    for (i, gate) in gates.iter().enumerate() {
        found.extend(odd(gate).into_iter().map(|(field, message)| document.warning(&format!("spec.gates[{i}]{field}"), message)));
    }
}

/// What looks wrong with a gate, by its field.
pub fn odd(gate: &Gate) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if let Some((field, message)) = unit_warning(gate) {
        all.push((field, message));
    }
    if let Some(judge) = &gate.judge {
        all.extend(budget(judge).map(|message| (".judge.budget", message)));
    }
    all
}

/// A budget that is spent before the judge has given the verdicts that it needs.
fn budget(judge: &Judge) -> Option<String> {
    let budget = judge.budget.as_ref()?;
    if let Some(verdicts) = budget.verdicts.filter(|verdicts| *verdicts < judge.count) {
        return Some(format!("count asks for {} verdicts and the budget has {verdicts}: the gate can never pass", judge.count));
    }
    let highest = highest_of_verdict(judge)?;
    #[allow(clippy::cast_precision_loss)] // for people
    let needed = highest as f64 / 1e6;
    budget.dollars.filter(|dollars| *dollars < needed).map(|dollars| {
        format!("one verdict may cost up to ${needed:.4} and the budget has ${dollars}: the judge is never asked; raise it, or lower maxInputTokens, maxTokens or votes")
    })
}

/// A window that makes every step long; of a gate with its arguments.
pub fn long_window(gate: &RunGate) -> Option<String> {
    let settle = settle_time(gate);
    (settle > LONG_WINDOW)
        .then(|| format!("its queries look back {}: after each change of the weight the first measurement waits as long", span(settle)))
}

/// A gate that is given up before its first measurement.
pub fn gives_up_early(gate: &RunGate) -> Option<String> {
    let (settle, most) = (settle_time(gate), std_duration(gate.gate.max_duration));
    (gate.gate.threshold.is_some() && settle > most)
        .then(|| format!("its queries look back {} and maxDuration is {}: make it longer", span(settle), span(most)))
}
