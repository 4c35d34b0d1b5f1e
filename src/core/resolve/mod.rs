//! From an `analysis` and its templates to the gates of a run. Everything wrong is reported at once, with its path.

mod field;
mod gate;
mod share;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::args::{self, ArgValue, Place};
use super::{InTemplate, Origin, SpecError};
use crate::api::analysis::{Arg, Gate, Mode, ReleaseFact};
use crate::api::rollout::{Analysis, TemplateRef};
use crate::api::run::{RunArg, RunGate};

pub use gate::{SESSION_ARGS, absolute, is_in_answer, json_path, proof_problems, session_problems, validate_gate};
pub use share::{Claim, shares};

/// Arguments that are always there.
pub const BUILT_IN: [&str; 5] = ["canary-hash", "stable-hash", "weight", "step", "attempt"];
/// Most gates of one run.
const MAX_GATES: usize = 64;

/// What is known about the release when a run is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Hash of the stable revision.
    pub stable_revision: String,
    /// Hash of the revision that is judged.
    pub canary_revision: String,
    /// Canary weight in percent.
    pub weight: i32,
    /// The step as people count, from 1.
    pub step: i32,
    /// Attempt at the revision, from 1.
    pub attempt: i32,
}

/// What a template of either kind holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateContent {
    /// Its arguments.
    pub args: Vec<Arg>,
    /// Its gates.
    pub gates: Vec<Gate>,
}

/// Names that `{{args.NAME}}` may use beside `args`.
pub fn known_args(args: &[Arg]) -> BTreeSet<String> {
    args.iter().map(|a| a.name.clone()).chain(BUILT_IN.map(str::to_owned)).collect()
}

/// Merges templates and inline gates and gives every gate its arguments. `rollout` is the whole VoiceRollout as JSON, for
/// `fieldRef`; `path` is the path of `analysis` in it. An analysis that only has `require` resolves to no gates.
///
/// # Errors
/// Everything that is wrong: missing templates, arguments never given, bad gates, names that occur twice, no enforcing
/// gate.
pub fn resolve(
    analysis: &Analysis,
    rollout: &Value,
    facts: &Facts,
    lookup: &dyn Fn(&TemplateRef) -> Option<TemplateContent>,
    path: &str,
) -> Result<Vec<RunGate>, Vec<SpecError>> {
    let mut resolver = Resolver { rollout, facts, errors: Vec::new(), gates: Vec::new() };
    let given = resolver.given(&analysis.args, path);
    let mut used = BTreeSet::new();
    for (i, reference) in analysis.templates.iter().enumerate() {
        let at = format!("{path}.templates[{i}]");
        match lookup(reference) {
            Some(content) => {
                used.extend(content.args.iter().map(|a| a.name.clone()));
                resolver.template(reference, &content, &given, &at);
            }
            None => resolver.errors.push(SpecError::new(&at, format!("there is no {}", title(reference))).from(Origin::NoTemplate)),
        }
    }
    resolver.inline(&analysis.gates, &analysis.args, &given, &mut used, path);
    // Names of missing templates' arguments are not known, so nothing is said about unused ones then.
    if resolver.errors.is_empty() {
        for (i, arg) in analysis.args.iter().enumerate().filter(|(_, a)| !used.contains(&a.name)) {
            resolver.error(
                &format!("{path}.args[{i}].name"),
                format!("nothing uses the argument `{}`: no template declares it and no gate names it", arg.name),
            );
        }
    }
    resolver.whole(analysis, path);
    if resolver.errors.is_empty() { Ok(resolver.gates) } else { Err(resolver.errors) }
}

struct Resolver<'a> {
    rollout: &'a Value,
    facts: &'a Facts,
    errors: Vec<SpecError>,
    gates: Vec<RunGate>,
}

impl Resolver<'_> {
    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(SpecError::new(path, message));
    }

    /// Values that the rollout gives. One that cannot be resolved is reported, and stands in as empty.
    fn given(&mut self, args: &[Arg], path: &str) -> BTreeMap<String, RunArg> {
        let mut given = BTreeMap::new();
        for (i, arg) in args.iter().enumerate() {
            let at = format!("{path}.args[{i}]");
            self.name(&arg.name, given.contains_key(&arg.name), &at);
            match self.value(arg, false) {
                Ok(Some(value)) => drop(given.insert(arg.name.clone(), value)),
                Ok(None) => self.error(&at, format!("the argument `{}` has no value: set value or valueFrom", arg.name)),
                Err(reason) => {
                    self.error(&format!("{at}.valueFrom"), reason);
                    given.insert(arg.name.clone(), run_arg(&arg.name, Some(String::new())));
                }
            }
        }
        given
    }

    fn name(&mut self, name: &str, twice: bool, at: &str) {
        if BUILT_IN.contains(&name) {
            self.error(&format!("{at}.name"), format!("the argument `{name}` is built in: choose another name"));
        } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            self.error(&format!("{at}.name"), format!("`{name}`: a name has letters, digits, `-`, `_` and `.` only"));
        }
        if twice {
            self.error(&format!("{at}.name"), format!("the argument `{name}` occurs twice"));
        }
    }

    fn value(&self, arg: &Arg, from_cluster_template: bool) -> Result<Option<RunArg>, String> {
        let Some(source) = &arg.value_from else { return Ok(arg.value.clone().map(|v| run_arg(&arg.name, Some(v)))) };
        match (&source.secret_key_ref, &source.field_ref, source.release) {
            (Some(secret), None, None) => Ok(Some(RunArg {
                secret_key_ref: Some(secret.clone()),
                in_operator_namespace: from_cluster_template,
                ..run_arg(&arg.name, None)
            })),
            (None, Some(field), None) => field::read(self.rollout, &field.field_path).map(|v| Some(run_arg(&arg.name, Some(v)))),
            (None, None, Some(fact)) => Ok(Some(run_arg(&arg.name, Some(self.fact(fact))))),
            _ => Err("valueFrom is exactly one of secretKeyRef, fieldRef, release".into()),
        }
    }

    fn fact(&self, fact: ReleaseFact) -> String {
        match fact {
            ReleaseFact::StableRevision => self.facts.stable_revision.clone(),
            ReleaseFact::CanaryRevision => self.facts.canary_revision.clone(),
            ReleaseFact::Weight => self.facts.weight.to_string(),
            ReleaseFact::Step => self.facts.step.to_string(),
        }
    }

    fn built_in(&self) -> impl Iterator<Item = RunArg> + use<> {
        let f = self.facts;
        let values =
            [f.canary_revision.clone(), f.stable_revision.clone(), f.weight.to_string(), f.step.to_string(), f.attempt.to_string()];
        BUILT_IN.into_iter().zip(values).map(|(name, value)| run_arg(name, Some(value)))
    }

    fn template(&mut self, reference: &TemplateRef, content: &TemplateContent, given: &BTreeMap<String, RunArg>, at: &str) {
        let mut args = BTreeMap::new();
        for (i, arg) in content.args.iter().enumerate() {
            let before = self.errors.len();
            self.name(&arg.name, args.contains_key(&arg.name), &format!("spec.args[{i}]"));
            self.inside(before, reference, at);
            let value = match given.get(&arg.name) {
                Some(value) => Ok(Some(value.clone())),
                None => self.value(arg, reference.cluster),
            };
            match value {
                Ok(Some(value)) => drop(args.insert(arg.name.clone(), value)),
                Ok(None) => self.error(at, format!("the argument `{}` of {} was never given", arg.name, title(reference))),
                Err(reason) => {
                    let before = self.errors.len();
                    self.error(&format!("spec.args[{i}].valueFrom"), reason);
                    self.inside(before, reference, at);
                }
            }
        }
        let known = known_args(&content.args);
        for (i, gate) in content.gates.iter().enumerate() {
            let before = self.errors.len();
            let problems = validate_gate(gate, &format!("spec.gates[{i}]"), &known);
            self.errors.extend(problems);
            self.gate(gate, &args, reference.cluster, &format!("spec.gates[{i}]"));
            self.inside(before, reference, at);
        }
    }

    /// Errors since `before` are about the template; the rollout's path leads to it.
    fn inside(&mut self, before: usize, reference: &TemplateRef, at: &str) {
        for error in &mut self.errors[before..] {
            let (path, message) = (std::mem::take(&mut error.path), std::mem::take(&mut error.message));
            let said = SpecError::new(at, format!("{}: {path}: {message}", title(reference)));
            *error =
                said.from(Origin::Template(Box::new(InTemplate { kind: kind(reference), name: reference.name.clone(), path, message })));
        }
    }

    fn inline(&mut self, gates: &[Gate], args: &[Arg], given: &BTreeMap<String, RunArg>, used: &mut BTreeSet<String>, path: &str) {
        let known = known_args(args);
        for (i, gate) in gates.iter().enumerate() {
            let at = format!("{path}.gates[{i}]");
            used.extend(gate::args_used(gate));
            self.errors.extend(validate_gate(gate, &at, &known));
            self.gate(gate, given, false, &at);
        }
    }

    /// Adds a gate. Arguments in conditions are filled in here, as they do not change any more.
    fn gate(&mut self, gate: &Gate, args: &BTreeMap<String, RunArg>, from_cluster_template: bool, at: &str) {
        if self.gates.iter().any(|g| g.gate.name == gate.name) {
            self.error(&format!("{at}.name"), format!("another gate of this analysis is called `{}`", gate.name));
        }
        let args: Vec<RunArg> = args.values().cloned().chain(self.built_in()).collect();
        let mut gate = gate.clone();
        let plain = args.iter().filter_map(|a| Some((a.name.clone(), ArgValue::plain(a.value.clone()?)))).collect();
        if let Some(t) = &mut gate.threshold {
            for (name, condition) in [("successCondition", &mut t.success_condition), ("failureCondition", &mut t.failure_condition)] {
                let Some(condition) = condition else { continue };
                match args::names(condition, Place::Cel) {
                    Ok(names) if names.is_empty() => continue,
                    // Reported by the validation.
                    Err(_) => continue,
                    Ok(names) => {
                        let at = format!("{at}.threshold.{name}");
                        if let Some(secret) = args.iter().find(|a| a.secret_key_ref.is_some() && names.contains(&a.name)) {
                            self.errors.push(SpecError::new(
                                at,
                                format!("the argument `{}` comes from a Secret and cannot be part of a condition", secret.name),
                            ));
                            continue;
                        }
                        match args::fill(condition, Place::Cel, &plain) {
                            Ok(filled) => *condition = filled.text,
                            Err(args::ArgError::Unknown { .. }) => {}
                            Err(reason) => self.errors.push(SpecError::new(at, reason.to_string())),
                        }
                    }
                }
            }
        }
        self.gates.push(RunGate { gate, args, from_cluster_template });
    }

    fn whole(&mut self, analysis: &Analysis, path: &str) {
        let empty = analysis.templates.is_empty() && analysis.gates.is_empty();
        if empty && analysis.require.is_empty() {
            self.error(path, "an analysis needs templates, gates or require");
        } else if !empty && self.errors.is_empty() && !self.gates.iter().any(|g| g.gate.mode == Mode::Enforce) {
            self.error(path, "no gate has mode enforce, so that this analysis could never pass");
        }
        let explain = |g: &&RunGate| g.gate.judge.as_ref().is_some_and(|j| j.explain_aborts);
        let explainers: Vec<&str> = self.gates.iter().filter(explain).map(|g| g.gate.name.as_str()).collect();
        if explainers.len() > 1 {
            let names = explainers.join(", ");
            self.error(path, format!("one judge explains an abort, and explainAborts is set for {names}: leave it at one of them"));
        }
        if self.gates.len() > MAX_GATES {
            self.error(path, format!("{} gates are more than {MAX_GATES}", self.gates.len()));
        }
    }
}

fn run_arg(name: &str, value: Option<String>) -> RunArg {
    RunArg { name: name.into(), value, secret_key_ref: None, in_operator_namespace: false }
}

fn title(reference: &TemplateRef) -> String {
    format!("{} `{}`", kind(reference), reference.name)
}

fn kind(reference: &TemplateRef) -> &'static str {
    if reference.cluster { "ClusterVoiceAnalysisTemplate" } else { "VoiceAnalysisTemplate" }
}

#[cfg(test)]
mod tests;
