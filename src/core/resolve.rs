//! stub
use crate::api::analysis::{Arg, Gate};
use crate::api::rollout::{Analysis, TemplateRef};
use crate::api::run::RunGate;
use crate::core::SpecError;
use serde_json::Value;
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateContent {
    pub args: Vec<Arg>,
    pub gates: Vec<Gate>,
}
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub stable_revision: String,
    pub canary_revision: String,
    pub weight: i32,
    pub step: i32,
    pub attempt: i32,
}
pub fn resolve(
    analysis: &Analysis,
    _rollout: &Value,
    _facts: &Facts,
    _lookup: &dyn Fn(&TemplateRef) -> Option<TemplateContent>,
    _path: &str,
) -> Result<Vec<RunGate>, Vec<SpecError>> {
    Ok(analysis.gates.iter().map(|g| RunGate { gate: g.clone(), args: vec![], from_cluster_template: false }).collect())
}
