//! Files as documents.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::position::{self, Positions};
use super::{Finding, Severity};
use crate::cli::error::CliError;

/// An object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file as it was named.
    pub file: String,
    /// The object.
    pub value: Value,
    /// Where the object is in its document: `items[2].` in a List, else empty.
    prefix: String,
    positions: Positions,
}

impl Document {
    /// Its kind; empty without one.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// Its name; empty without one.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `VoiceRollout voice-agent`
    pub fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name()).trim().to_owned()
    }

    /// Line of a field. Errors of resolved gates name them by position and name, as in `spec.analysis gate 0 (p95)`.
    pub fn line(&self, path: &str) -> usize {
        let (field, gate) = match path.split_once(" gate ") {
            Some((field, rest)) => (field, rest.split_once('(').and_then(|(_, r)| r.split_once(')')).map(|(name, _)| name)),
            None => (path.split(' ').next().unwrap_or_default(), None),
        };
        let inline = gate.and_then(|name| self.gate(field, name)).unwrap_or_else(|| field.to_owned());
        self.positions.line(&format!("{}{inline}", self.prefix))
    }

    /// Path of a gate that is written in an analysis under its name.
    fn gate(&self, analysis: &str, name: &str) -> Option<String> {
        let list = format!("{analysis}.gates");
        let pointer = format!("/{}", list.replace("].", "/").replace(['.', '['], "/"));
        let gates = self.value.pointer(&pointer)?.as_array()?;
        gates.iter().position(|g| g["name"] == name).map(|i| format!("{list}[{i}]"))
    }
}

/// Reads every object of the files; a text that is no YAML is a finding.
///
/// # Errors
/// A file that cannot be read.
pub fn read(files: &[PathBuf], found: &mut Vec<Finding>) -> Result<Vec<Document>, CliError> {
    let mut all = Vec::new();
    for path in files {
        let file = if path.as_os_str() == "-" { "<stdin>".to_owned() } else { path.display().to_string() };
        documents(&file, &text(path)?, &mut all, found);
    }
    Ok(all)
}

fn text(path: &Path) -> Result<String, CliError> {
    let read = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|source| CliError::Io { what: format!("read {}", path.display()), source })
}

fn documents(file: &str, text: &str, all: &mut Vec<Document>, found: &mut Vec<Finding>) {
    let positions = position::read(text);
    let empty = Positions::default();
    for (i, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let positions = positions.get(i).unwrap_or(&empty);
        // By way of JSON, as kubectl does: there a weight such as `5:` is a string.
        let parsed = serde_yaml::Value::deserialize(document);
        let line = parsed.as_ref().err().and_then(serde_yaml::Error::location).map(|l| l.line());
        let value = parsed.map_err(|e| e.to_string()).and_then(|yaml| serde_json::to_value(yaml).map_err(|e| e.to_string()));
        match value {
            Ok(Value::Null) => {}
            Ok(value) => objects(file, value, positions, all),
            Err(reason) => {
                let message = format!("not YAML: {reason}");
                let line = line.unwrap_or_else(|| positions.line("")).max(1);
                found.push(Finding {
                    file: file.into(),
                    line,
                    severity: Severity::Error,
                    object: String::new(),
                    path: String::new(),
                    message,
                    leaves_out_gates: false,
                });
                // Nobody knows where the next document begins.
                return;
            }
        }
    }
}

fn objects(file: &str, value: Value, positions: &Positions, all: &mut Vec<Document>) {
    let one = |value: Value, prefix: String| Document { file: file.into(), value, prefix, positions: positions.clone() };
    match value["items"].as_array() {
        Some(items) if value["kind"] == "List" => {
            all.extend(items.iter().enumerate().map(|(i, item)| one(item.clone(), format!("items[{i}]."))));
        }
        _ => all.push(one(value, String::new())),
    }
}
