//! Everything the server knows, and how a new form of an object becomes one that may be stored.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::operator::clock::Clock;

use super::builtin;
use super::fail::{self, Answer, Cause};
use super::fields;
use super::registry::{self, Resource};
use super::shape::Shape;
use super::store::{Key, Store};

/// What the server does with fields it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Drops them.
    #[default]
    Drop,
    /// Refuses the request.
    Refuse,
}

/// Which part of an object a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where the kind has a status subresource.
    Main,
    /// The status alone.
    Status,
}

impl Part {
    /// Name in `managedFields`.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
        }
    }
}

/// Circumstances of a write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Field manager.
    pub manager: String,
    /// Part of the object.
    pub part: Part,
    /// Unknown fields.
    pub unknown: Unknown,
    /// Answer as usual, and store nothing.
    pub dry_run: bool,
}

impl Write {
    /// A plain write by a manager.
    pub fn by(manager: impl Into<String>, part: Part) -> Self {
        Self { manager: manager.into(), part, unknown: Unknown::Drop, dry_run: false }
    }
}

/// A line of a pod's log.
pub type LogLine = (Timestamp, String);

/// Everything the server knows.
pub struct State {
    /// Time.
    pub clock: Clock,
    /// Objects.
    pub store: Store,
    /// Kinds, by [`Resource::id`].
    pub resources: Vec<Arc<Resource>>,
    /// Logs by namespace and pod.
    pub logs: HashMap<(String, String), Vec<LogLine>>,
    /// Objects named so far; makes UIDs and generated names.
    pub(super) counter: u64,
}

impl State {
    /// A server with the built-in kinds and the namespaces `default` and `kube-system`.
    pub fn new(clock: Clock) -> Self {
        let mut state = Self { clock, store: Store::default(), resources: Vec::new(), logs: HashMap::new(), counter: 0 };
        for resource in registry::built_in() {
            state.register(resource);
        }
        for name in ["default", "kube-system"] {
            if let Some(namespaces) = state.resource("", "namespaces") {
                let namespace = json!({"metadata": {"name": name}});
                let made = state.create(&namespaces, "", namespace, &Write::by("server", Part::Main));
                debug_assert!(made.is_ok(), "the first namespaces are valid");
            }
        }
        state
    }

    /// Adds a kind, or replaces it.
    pub fn register(&mut self, mut resource: Resource) {
        let known = self.resources.iter().position(|r| r.group == resource.group && r.plural == resource.plural);
        resource.id = known.unwrap_or(self.resources.len());
        match known {
            Some(at) => self.resources[at] = Arc::new(resource),
            None => self.resources.push(Arc::new(resource)),
        }
    }

    /// A kind by group and plural name.
    pub fn resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.iter().find(|r| r.group == group && r.plural == plural).cloned()
    }

    /// Name of an object of a kind.
    pub fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
        let namespace = if resource.namespaced { namespace } else { "" };
        Key { kind: resource.id, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// An object.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Answer<Arc<Value>> {
        let found = self.store.get(&Self::key(resource, namespace, name));
        found.cloned().ok_or_else(|| fail::not_found(resource, name))
    }

    /// Turns what was sent into what may be stored: known fields, defaults, metadata, status, generation, rules.
    ///
    /// # Errors
    /// 400 for wrong types and unknown fields, 422 for values that break a rule.
    pub(super) fn prepare(&self, resource: &Resource, old: Option<&Value>, new: Value, write: &Write) -> Answer<Value> {
        let narrow = old.is_some() && write.part == Part::Status && resource.typed.is_none();
        let (mut new, unknown) = conform(resource, if narrow { without_spec(new) } else { new })?;
        if write.unknown == Unknown::Refuse && !unknown.is_empty() {
            let (kind, version) = (&resource.kind, &resource.version);
            let list: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            let list = list.join(", ");
            let what = format!("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {list}");
            return Err(fail::bad_request(what));
        }
        let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        match old {
            Some(old) => keep_system_metadata(old, &mut new),
            None => self.first_metadata(resource, &mut new),
        }
        new = isolate(resource, old, new, write.part);
        let causes = check(resource, old, &new, write.part);
        if !causes.is_empty() {
            return Err(fail::invalid(resource, &name, causes));
        }
        if let Some(old) = old
            && resource.generation
            && write.part == Part::Main
            && body_of(resource, old) != body_of(resource, &new)
        {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        Ok(new)
    }

    fn first_metadata(&self, resource: &Resource, new: &mut Value) {
        let metadata = &mut new["metadata"];
        metadata["creationTimestamp"] = json!(fields::seconds(self.clock.now()));
        if resource.generation {
            metadata["generation"] = json!(1);
        }
        if let Some(map) = metadata.as_object_mut() {
            for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"] {
                map.remove(name);
            }
            if !resource.generation {
                map.remove("generation");
            }
        }
    }
}

/// The schema's or the type's knowledge of lists.
pub fn shape(resource: &Resource) -> Shape<'_> {
    match (&resource.schema, resource.typed) {
        (Some(schema), _) => Shape::Schema(schema.value()),
        (None, Some(_)) => Shape::BuiltIn,
        (None, None) => Shape::Opaque,
    }
}

/// Brings an object into its kind's form, with defaults; also gives the paths of the fields that fell out.
pub(super) fn conform(resource: &Resource, mut new: Value) -> Answer<(Value, Vec<String>)> {
    new["apiVersion"] = json!(resource.api_version());
    new["kind"] = json!(resource.kind);
    let wrong = |e: serde_json::Error| {
        let (kind, version) = (&resource.kind, &resource.version);
        fail::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: json: {e}"))
    };
    let mut dropped = Vec::new();
    if let Some(round_trip) = resource.typed {
        let typed = round_trip(new.clone()).map_err(wrong)?;
        lost(&new, &typed, "", &mut dropped);
        new = typed;
        builtin::default(&resource.kind, &mut new);
    } else {
        let sent = new["metadata"].take();
        let metadata: ObjectMeta = serde_json::from_value(sent.clone()).map_err(wrong)?;
        new["metadata"] = serde_json::to_value(metadata).map_err(wrong)?;
        lost(&sent, &new["metadata"], "metadata", &mut dropped);
        if let Some(schema) = &resource.schema {
            dropped.extend(schema.prune(&mut new));
            schema.default(&mut new);
        }
    }
    if let Some(metadata) = new["metadata"].as_object_mut() {
        // The real types leave empty lists and maps of the metadata out.
        metadata.retain(|_, value| value.as_array().is_none_or(|a| !a.is_empty()) && value.as_object().is_none_or(|m| !m.is_empty()));
    }
    Ok((new, dropped))
}

/// A write to a status brings a spec along that nobody looks at.
fn without_spec(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("spec");
    }
    object
}

/// Paths of fields that `sent` has and `kept` has not.
fn lost(sent: &Value, kept: &Value, at: &str, paths: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (name, value) in sent {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match kept.get(name) {
                    Some(kept) => lost(value, kept, &path, paths),
                    None if value.is_null() => {}
                    None => paths.push(path),
                }
            }
        }
        (Value::Array(sent), Value::Array(kept)) => {
            for (i, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                lost(sent, kept, &format!("{at}[{i}]"), paths);
            }
        }
        _ => {}
    }
}

fn keep_system_metadata(old: &Value, new: &mut Value) {
    const KEPT: &[&str] = &[
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
    ];
    for field in KEPT {
        let was = old["metadata"].get(field).cloned();
        if let Some(metadata) = new["metadata"].as_object_mut() {
            match was {
                Some(value) => metadata.insert((*field).to_owned(), value),
                None => metadata.remove(*field),
            };
        }
    }
}

/// Keeps a write within its part of the object.
fn isolate(resource: &Resource, old: Option<&Value>, mut new: Value, part: Part) -> Value {
    if !resource.status {
        return new;
    }
    let status = match (part, old) {
        (Part::Status, Some(old)) => {
            let status = new.get("status").cloned();
            let managed = new["metadata"].get("managedFields").cloned();
            new = old.clone();
            if let Some(managed) = managed {
                new["metadata"]["managedFields"] = managed;
            }
            status
        }
        (_, Some(old)) => old.get("status").cloned(),
        (_, None) => builtin::first_status(&resource.kind).filter(|_| resource.typed.is_some()),
    };
    if let Some(map) = new.as_object_mut() {
        match status {
            Some(status) => map.insert("status".into(), status),
            None => map.remove("status"),
        };
    }
    new
}

/// Mistakes after which rules make no sense.
const BLOCKING: &[&str] =
    &["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];

fn check(resource: &Resource, old: Option<&Value>, new: &Value, part: Part) -> Vec<Cause> {
    let mut causes = check_metadata(old, new);
    if let Some(schema) = &resource.schema {
        let of_status = old.is_some() && part == Part::Status;
        causes.extend(if of_status { schema.validate_status(new) } else { schema.validate(new) });
        if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
            causes.push(Cause::invalid(
                "<nil>",
                "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ));
        } else {
            // What was valid and has not changed is not checked again, as on the real server.
            let same_spec = old.is_some_and(|old| old.get("spec") == new.get("spec"));
            causes.extend(schema.check_rules(new, old, same_spec));
        }
    } else if resource.typed.is_some() {
        causes.extend(builtin::validate(&resource.kind, old, new));
    }
    causes
}

fn check_metadata(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if old.is_none() && !is_subdomain(name) {
        causes.push(Cause::invalid(
            "metadata.name",
            format!("Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"),
        ));
    }
    for (key, value) in super::selector::labels_of(new) {
        let tail = |c: char| c.is_ascii_alphanumeric();
        let good = value.is_empty()
            || (value.len() <= 63
                && value.starts_with(tail)
                && value.ends_with(tail)
                && value.chars().all(|c| tail(c) || matches!(c, '-' | '_' | '.')));
        if !good {
            causes.push(Cause::invalid("metadata.labels", format!("Invalid value: {value:?}: a valid label must be 63 characters or less and begin and end with an alphanumeric character ({key})")));
        }
    }
    if let Some(old) = old
        && old.pointer("/metadata/deletionTimestamp").is_some()
    {
        let had = finalizers(old);
        if let Some(added) = finalizers(new).iter().find(|f| !had.contains(f)) {
            let message = format!("no new finalizers can be added if the object is being deleted, found new finalizers [{added:?}]");
            causes.push(Cause::forbidden("metadata.finalizers", message));
        }
    }
    causes
}

fn is_subdomain(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|part| part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-'))
}

/// Finalizers of an object.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What `metadata.generation` counts.
fn body_of(resource: &Resource, object: &Value) -> Value {
    let mut body = object.clone();
    if let Some(map) = body.as_object_mut() {
        map.remove("metadata");
        if resource.status {
            map.remove("status");
        }
    }
    body
}
