//! Create, replace, patch and apply.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply;
use super::fail::{self, Answer, Cause};
use super::fields::{self, Writer};
use super::patch::{self, PatchKind};
use super::registry::Resource;
use super::state::{Part, State, Write, conform, finalizers, shape};

/// Letters of generated names, as in Kubernetes: without vowels.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl State {
    /// Creates an object.
    ///
    /// # Errors
    /// 400, 403, 404 for the namespace, 409 for a name that is taken, 422.
    pub fn create(&mut self, resource: &Arc<Resource>, namespace: &str, mut body: Value, write: &Write) -> Answer<Arc<Value>> {
        check_type(resource, &body)?;
        let name = self.take_name(resource, namespace, &mut body)?;
        let key = Self::key(resource, namespace, &name);
        if self.store.get(&key).is_some() {
            return Err(fail::already_exists(resource, &name));
        }
        self.check_namespace(resource, namespace, &name)?;
        if body.pointer("/metadata/resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty()) {
            return Err(fail::internal("resourceVersion should not be set on objects to be created"));
        }
        let mut new = self.prepare(resource, None, body, write)?;
        self.counter += 1;
        new["metadata"]["uid"] = json!(format!("5111c0de-0000-4000-8000-{:012x}", self.counter));
        if resource.namespaced {
            new["metadata"]["namespace"] = json!(namespace);
        }
        if new.pointer("/metadata/managedFields").is_none() {
            fields::track(None, &mut new, self.writer(write), &resource.api_version(), shape(resource));
        }
        if write.dry_run {
            return Ok(Arc::new(new));
        }
        let stored = self.store.put(key.clone(), new);
        self.collect_if_orphaned(&key);
        Ok(stored)
    }

    fn writer<'a>(&self, write: &'a Write) -> Writer<'a> {
        Writer { manager: &write.manager, subresource: write.part.subresource(), now: self.clock.now() }
    }

    fn take_name(&mut self, resource: &Resource, namespace: &str, body: &mut Value) -> Answer<String> {
        let Some(metadata) = body.as_object_mut().map(|b| b.entry("metadata").or_insert_with(|| json!({}))) else {
            return Err(fail::bad_request("the body of the request has to be a JSON object"));
        };
        let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if resource.namespaced && !text("namespace").is_empty() && text("namespace") != namespace {
            return Err(fail::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
        }
        let (name, prefix) = (text("name"), text("generateName"));
        if !name.is_empty() {
            return Ok(name);
        }
        if prefix.is_empty() {
            let cause = Cause { message: "Required value: name or generateName is required".into(), ..Cause::required("metadata.name") };
            return Err(fail::invalid(resource, "", vec![cause]));
        }
        self.counter += 1;
        let name = format!("{prefix}{}", suffix(self.counter));
        metadata["name"] = json!(name);
        Ok(name)
    }

    fn check_namespace(&self, resource: &Resource, namespace: &str, name: &str) -> Answer<()> {
        if !resource.namespaced {
            return Ok(());
        }
        let Some(namespaces) = self.resource("", "namespaces") else { return Ok(()) };
        let found = self.get(&namespaces, "", namespace)?;
        if found.pointer("/metadata/deletionTimestamp").is_some() {
            return Err(fail::terminating(resource, name, namespace));
        }
        Ok(())
    }

    /// Replaces an object or its status.
    ///
    /// # Errors
    /// 400, 404, 409 for another resourceVersion or UID, 422.
    pub fn replace(&mut self, resource: &Arc<Resource>, namespace: &str, name: &str, body: Value, write: &Write) -> Answer<Arc<Value>> {
        check_type(resource, &body)?;
        check_name(&body, name)?;
        let old = match self.get(resource, namespace, name) {
            Err(_) if resource.create_on_update && write.part == Part::Main => {
                return self.create(resource, namespace, body, write);
            }
            other => other?,
        };
        let version = body.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        if version.is_empty() && !resource.unconditional_update {
            let cause = Cause::invalid("metadata.resourceVersion", "Invalid value: 0: must be specified for an update");
            return Err(fail::invalid(resource, name, vec![cause]));
        }
        self.update(resource, &old, body, write, false)
    }

    /// Patches an object or its status.
    ///
    /// # Errors
    /// 400, 404, 409, 415, 422.
    #[allow(clippy::too_many_arguments)]
    pub fn patch(
        &mut self,
        resource: &Arc<Resource>,
        namespace: &str,
        name: &str,
        kind: PatchKind,
        body: &[u8],
        force: bool,
        write: &Write,
    ) -> Answer<Arc<Value>> {
        if kind == PatchKind::Apply {
            return self.apply(resource, namespace, name, body, force, write);
        }
        let old = self.get(resource, namespace, name)?;
        let mut new = (*old).clone();
        match kind {
            PatchKind::Json => patch::json(&mut new, body)?,
            PatchKind::Merge => patch::merge(&mut new, body)?,
            PatchKind::Strategic if resource.typed.is_some() => patch::strategic(&mut new, body)?,
            _ => return Err(fail::unsupported_patch("application/strategic-merge-patch+json")),
        }
        check_name(&new, name)?;
        if new["metadata"]["uid"] != old["metadata"]["uid"] {
            let cause = Cause::invalid("metadata.uid", format!("Invalid value: {}: field is immutable", new["metadata"]["uid"]));
            return Err(fail::invalid(resource, name, vec![cause]));
        }
        let result = new.to_string();
        let updated = check_type(resource, &new).and_then(|()| self.update(resource, &old, new, write, false));
        updated.map_err(|e| if e.code == 400 { fail::undecodable_patch(&result, &e.message) } else { e })
    }

    fn apply(
        &mut self,
        resource: &Arc<Resource>,
        namespace: &str,
        name: &str,
        body: &[u8],
        force: bool,
        write: &Write,
    ) -> Answer<Arc<Value>> {
        let mut config: Value = serde_yaml::from_slice(body).map_err(|e| fail::bad_request(format!("error decoding YAML: {e}")))?;
        let has_type = config.get("apiVersion").is_some() && config.get("kind").is_some();
        if !has_type {
            return Err(fail::bad_request("invalid object type: apiVersion and kind are required to apply"));
        }
        check_type(resource, &config)?;
        if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
            return Err(fail::bad_request("metadata.managedFields must be nil"));
        }
        if config.pointer("/metadata/name").is_none() {
            config["metadata"]["name"] = json!(name);
        }
        check_name(&config, name)?;
        if let Some(path) = conform(resource, config.clone())?.1.first() {
            let (version, kind) = (resource.api_version(), &resource.kind);
            return Err(fail::internal(&format!(
                "failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): .{path}: field not declared in schema"
            )));
        }
        let old = self.store.get(&Self::key(resource, namespace, name)).cloned();
        if write.part == Part::Status && old.is_none() {
            return Err(fail::not_found(resource, name));
        }
        if resource.status
            && let Some(map) = config.as_object_mut()
        {
            // A write to one part never owns fields of the other.
            match write.part {
                Part::Main => map.retain(|field, _| field != "status"),
                Part::Status => map.retain(|field, _| field != "spec"),
            }
        }
        let live = old.as_deref();
        let merged = apply::apply(live, &config, self.writer(write), force, &resource.api_version(), shape(resource))?;
        match old {
            None => self.create(resource, namespace, merged, write),
            Some(old) => {
                let mut merged = merged;
                if let Some(version) = config.pointer("/metadata/resourceVersion").filter(|v| !v.is_null()) {
                    merged["metadata"]["resourceVersion"] = version.clone();
                }
                self.update(resource, &old, merged, write, true)
            }
        }
    }

    /// The one way an existing object changes. `managed` says that `new` brings its managed fields along.
    fn update(&mut self, resource: &Arc<Resource>, old: &Arc<Value>, new: Value, write: &Write, managed: bool) -> Answer<Arc<Value>> {
        let text = |value: &Value, field: &str| {
            value.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (name, namespace) = (text(old, "name"), text(old, "namespace"));
        let sent_uid = text(&new, "uid");
        if !sent_uid.is_empty() && sent_uid != text(old, "uid") {
            let why = format!("Precondition failed: UID in precondition: {sent_uid}, UID in object meta: {}", text(old, "uid"));
            return Err(fail::conflict(resource, &name, &why));
        }
        let version = text(&new, "resourceVersion");
        if !version.is_empty() && version != text(old, "resourceVersion") {
            return Err(fail::stale(resource, &name));
        }
        let mut new = self.prepare(resource, Some(old), new, write)?;
        if !managed {
            let before = old["metadata"].get("managedFields").cloned().unwrap_or_default();
            new["metadata"]["managedFields"] = before;
            fields::track(Some(old), &mut new, self.writer(write), &resource.api_version(), shape(resource));
        }
        if is_same(old, &new) {
            return Ok(Arc::clone(old));
        }
        if write.dry_run {
            return Ok(Arc::new(new));
        }
        let key = Self::key(resource, &namespace, &name);
        let deleted = new.pointer("/metadata/deletionTimestamp").is_some() && finalizers(&new).is_empty();
        if deleted && !self.waits_for_kubelet(resource, &new) {
            self.remove(&key); // as on the real server, the deletion shows the object as it was stored last
            return Ok(Arc::new(new));
        }
        Ok(self.store.put(key, new))
    }
}

fn check_name(body: &Value, name: &str) -> Answer<()> {
    let sent = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if sent == name {
        return Ok(());
    }
    Err(fail::bad_request(format!("the name of the object ({sent}) does not match the name on the URL ({name})")))
}

fn check_type(resource: &Resource, body: &Value) -> Answer<()> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (resource.api_version(), &resource.kind);
    let same = |sent: &str, wanted: &str| sent.is_empty() || sent == wanted;
    if same(text("apiVersion"), &version) && same(text("kind"), kind) {
        return Ok(());
    }
    Err(fail::bad_request(format!(
        "the API version in the data ({}, {}) does not match the expected API version ({version}, {kind})",
        text("apiVersion"),
        text("kind")
    )))
}

/// Whether nothing changed but the times of managed fields.
fn is_same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    old.len() == new.len()
        && old.iter().all(|(name, was)| {
            let Some(is) = new.get(name) else { return false };
            if name == "metadata" { timeless(was) == timeless(is) } else { was == is }
        })
}

fn timeless(metadata: &Value) -> Value {
    let mut metadata = metadata.clone();
    for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
        entry["time"] = Value::Null;
    }
    metadata
}

/// Five letters that differ for each number and do not look like a count.
fn suffix(number: u64) -> String {
    let mut n = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    (0..5)
        .map(|_| {
            let letter = NAME_LETTERS[usize::try_from(n % NAME_LETTERS.len() as u64).unwrap_or(0)];
            n /= NAME_LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}
