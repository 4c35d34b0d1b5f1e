//! `lint`: manifests, checked without a cluster. What an API server would say against them, what the operator would say
//! against the plan, and what looks wrong though it can be carried out; each with its file and line.

mod gates;
mod position;
mod release;
mod source;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::args::{Findings, LintArgs};
use super::error::CliError;
use super::exit::Exit;
use super::table::{Ink, Paint, clean};
use crate::api::common::{GROUP, VERSION};
use crate::core::SpecError;
use crate::core::resolve::{known_args, validate_gate};

pub use release::Release;
pub use source::Document;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It would be refused, or nothing would move.
    Error,
    /// It works, and probably not as it was meant.
    Warning,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file as it was named.
    pub file: String,
    /// The line, counting from 1.
    pub line: usize,
    /// How bad it is.
    pub severity: Severity,
    /// The object, `VoiceRollout voice-agent`; empty where there is none.
    pub object: String,
    /// Path of the field from the object's root; empty where there is none.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Gates were not looked at for it: whoever needs all of them cannot go on.
    #[serde(skip)]
    pub leaves_out_gates: bool,
}

/// Checks the files and prints what is found.
///
/// # Errors
/// A file that cannot be read.
pub fn lint(args: &LintArgs, paint: Paint, out: &mut impl Write) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    let documents = source::read(&args.files, &mut found)?;
    check(&documents, &mut found);
    tidy(&mut found);
    let text = match args.output {
        Findings::Json => serde_json::to_string_pretty(&found).map_err(|e| CliError::Differs(e.to_string()))? + "\n",
        Findings::Text => text(&found, documents.len(), paint),
    };
    out.write_all(text.as_bytes()).map_err(|source| CliError::Io { what: "print".into(), source })?;
    let bad = found.iter().any(|f| args.strict || f.severity == Severity::Error);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

/// Reads manifests for another verb, which needs them whole and without mistakes; prints what is wrong otherwise.
///
/// # Errors
/// A file that cannot be read, or a manifest with errors.
pub fn releases(files: &[PathBuf], paint: Paint, out: &mut impl Write) -> Result<Vec<Release>, CliError> {
    let mut found = Vec::new();
    let documents = source::read(files, &mut found)?;
    let releases = check(&documents, &mut found);
    found.iter_mut().filter(|f| f.leaves_out_gates).for_each(|f| f.severity = Severity::Error);
    found.retain(|f| f.severity == Severity::Error);
    tidy(&mut found);
    if !found.is_empty() {
        let io = |source| CliError::Io { what: "print".into(), source };
        out.write_all(text(&found, documents.len(), paint).as_bytes()).map_err(io)?;
        return Err(CliError::Differs("there are errors in the manifests".into()));
    }
    if releases.is_empty() {
        return Err(CliError::Differs("there is no VoiceRollout in these files".into()));
    }
    Ok(releases)
}

/// By file and line; what is said twice is said once.
fn tidy(found: &mut Vec<Finding>) {
    found.sort_by(|a, b| (&a.file, a.line, a.severity, &a.path, &a.message).cmp(&(&b.file, b.line, b.severity, &b.path, &b.message)));
    found.dedup();
}

fn text(found: &[Finding], documents: usize, paint: Paint) -> String {
    let mut out = String::new();
    for f in found {
        let (ink, word) = match f.severity {
            Severity::Error => (Ink::Red, "error"),
            Severity::Warning => (Ink::Yellow, "warning"),
        };
        let place = [f.object.as_str(), f.path.as_str()].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(": ");
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        // One finding, one line: editors and CI read them so.
        out.push_str(&format!("{}:{}: {}: {}\n", f.file, f.line, paint.ink(ink, word), clean(&format!("{place}{}", f.message))));
    }
    let count = |severity| found.iter().filter(|f| f.severity == severity).count();
    let several = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let (errors, warnings) = (several(count(Severity::Error), "error"), several(count(Severity::Warning), "warning"));
    out.push_str(&format!("{}: {errors}, {warnings}\n", several(documents, "object")));
    out
}

/// Checks every document; gives the releases that could be read.
fn check(documents: &[Document], found: &mut Vec<Finding>) -> Vec<Release> {
    let mut sound = Vec::new();
    for document in documents {
        if own_kind(document, found) {
            sound.push(document);
        }
    }
    for document in &sound {
        gates::template(document, found);
    }
    let rollouts = sound.iter().filter(|d| d.kind() == "VoiceRollout");
    rollouts.filter_map(|d| release::check(d, documents, found)).collect()
}

/// A document of one of our kinds that an API server would take.
fn own_kind(document: &Document, found: &mut Vec<Finding>) -> bool {
    let version = document.value["apiVersion"].as_str().unwrap_or_default();
    if document.kind().is_empty() || version.is_empty() {
        found.push(document.error("", "apiVersion and kind have to be set"));
        return false;
    }
    let Some(version) = version.strip_prefix(GROUP) else { return false };
    if version.trim_start_matches('/') != VERSION {
        found.push(document.error("apiVersion", format!("there is no such version: write {GROUP}/{VERSION}")));
        return false;
    }
    let Some(problems) = crate::sim::manifest_findings(&document.value) else {
        let kinds = crate::api::crds::all().into_iter().map(|(_, crd)| crd.spec.names.kind).collect::<Vec<_>>().join(", ");
        found.push(document.error("kind", format!("there is no such kind in {GROUP}: there are {kinds}")));
        return false;
    };
    if document.name().is_empty() && document.value["metadata"]["generateName"].as_str().is_none_or(str::is_empty) {
        found.push(document.error("metadata", "the object has no name: set metadata.name"));
    }
    let sound = problems.is_empty();
    found.extend(problems.into_iter().map(|p| document.error(&p.path, p.message)));
    sound
}

impl Document {
    fn finding(&self, severity: Severity, path: &str, message: impl Into<String>) -> Finding {
        Finding {
            file: self.file.clone(),
            line: self.line(path),
            severity,
            object: self.title(),
            path: path.into(),
            message: message.into(),
            leaves_out_gates: false,
        }
    }

    fn error(&self, path: &str, message: impl Into<String>) -> Finding {
        self.finding(Severity::Error, path, message)
    }

    fn warning(&self, path: &str, message: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, path, message)
    }
}

/// The gates of a template, checked on their own.
fn template_errors(args: &[crate::api::analysis::Arg], gates: &[crate::api::analysis::Gate]) -> Vec<SpecError> {
    let known = known_args(args);
    gates.iter().enumerate().flat_map(|(i, gate)| validate_gate(gate, &format!("spec.gates[{i}]"), &known)).collect()
}

/// A part of a document as a type of ours; one that does not fit was reported by the schema.
fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|e| e.to_string())
}
