//! Delete: preconditions, finalizers, graceful ends of pods, and garbage collection by owner references.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fail::{self, Answer};
use super::fields;
use super::registry::Resource;
use super::state::{State, finalizers};
use super::store::{Key, owners, uid};

/// What a delete request asks for.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Store nothing.
    pub dry_run: bool,
    /// Only this UID.
    pub uid: Option<String>,
    /// Only this resourceVersion.
    pub version: Option<String>,
    /// Seconds a pod may take; `None`: its own.
    pub grace: Option<i64>,
    /// What happens to dependents.
    pub propagation: Propagation,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    #[default]
    Background,
    /// They go before it.
    Foreground,
    /// They stay without it.
    Orphan,
}

/// What a delete did.
pub enum Deleted {
    /// The object is gone; its last form.
    Gone(Arc<Value>),
    /// The object waits for finalizers, dependents or its kubelet.
    Marked(Arc<Value>),
}

const FOREGROUND: &str = "foregroundDeletion";

impl State {
    /// Deletes an object.
    ///
    /// # Errors
    /// 404, 409 for a precondition that does not hold.
    pub fn delete(&mut self, resource: &Arc<Resource>, namespace: &str, name: &str, options: &DeleteOptions) -> Answer<Deleted> {
        let object = self.get(resource, namespace, name)?;
        check_preconditions(resource, name, &object, options)?;
        if options.dry_run {
            return Ok(Deleted::Gone(object));
        }
        let key = Self::key(resource, namespace, name);
        let own = uid(&object).unwrap_or_default().to_owned();
        if options.propagation == Propagation::Orphan {
            self.orphan(&own);
        }
        let foreground = options.propagation == Propagation::Foreground && !self.store.dependents(&own).is_empty();
        let mut next = (*object).clone();
        if foreground && !finalizers(&next).contains(&FOREGROUND) {
            let mut list: Vec<String> = finalizers(&next).into_iter().map(Into::into).collect();
            list.push(FOREGROUND.into());
            next["metadata"]["finalizers"] = json!(list);
        }
        let grace = self.grace(resource, &next, options.grace);
        let contents = resource.kind == "Namespace" && self.store.any_in(name);
        if finalizers(&next).is_empty() && grace == 0 && !contents {
            return self.remove(&key).map(Deleted::Gone).ok_or_else(|| fail::not_found(resource, name));
        }
        let marked = self.mark(&key, &object, next, grace);
        if contents {
            self.empty_namespace(name);
        }
        if foreground {
            for dependent in self.store.dependents(&own) {
                self.delete_key(&dependent, Propagation::Foreground);
            }
            self.finish_foreground(&key);
        }
        Ok(Deleted::Marked(marked))
    }

    /// Sets the deletion timestamp, once; a shorter grace period than before takes effect.
    fn mark(&mut self, key: &Key, object: &Arc<Value>, mut next: Value, grace: i64) -> Arc<Value> {
        let first = next.pointer("/metadata/deletionTimestamp").is_none();
        let before = next.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        if first {
            let at = self.clock.now() + jiff::SignedDuration::from_secs(grace);
            next["metadata"]["deletionTimestamp"] = json!(fields::seconds(at));
            next["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            if let Some(generation) = next.pointer("/metadata/generation").and_then(Value::as_i64) {
                next["metadata"]["generation"] = json!(generation + 1);
            }
        } else if before.is_some_and(|before| grace < before) {
            next["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        if next.get("kind").and_then(Value::as_str) == Some("Namespace") {
            next["status"]["phase"] = json!("Terminating");
        }
        if next == **object { Arc::clone(object) } else { self.store.put(key.clone(), next) }
    }

    /// Seconds until a pod that a kubelet runs may go; 0 for everything else.
    fn grace(&self, resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
        let scheduled = object.pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
        let phase = object.pointer("/status/phase").and_then(Value::as_str);
        if resource.kind != "Pod" || !scheduled || matches!(phase, Some("Succeeded" | "Failed")) {
            return 0;
        }
        let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        asked.or(own).unwrap_or(30).max(0)
    }

    /// Whether a marked object stays until its kubelet deletes it with a grace period of 0.
    pub(super) fn waits_for_kubelet(&self, resource: &Resource, object: &Value) -> bool {
        let left = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        self.grace(resource, object, left) > 0
    }

    /// Takes an object out of the store, then its dependents.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let last = self.store.remove(key)?;
        let own = uid(&last).unwrap_or_default().to_owned();
        for dependent in self.store.dependents(&own) {
            self.collect_if_orphaned(&dependent);
        }
        for owner in owners(&last).map(ToOwned::to_owned).collect::<Vec<_>>() {
            if let Some(owner) = self.store.key_of_uid(&owner).cloned() {
                self.finish_foreground(&owner);
            }
        }
        if !key.namespace.is_empty() {
            self.finish_namespace(&key.namespace.clone());
        }
        Some(last)
    }

    /// Deletes an object whose owners are all gone; forgets the ones that are.
    pub(super) fn collect_if_orphaned(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let mut had_owner = false;
        for owner in owners(&object) {
            had_owner = true;
            if self.store.key_of_uid(owner).is_some() {
                return; // one owner that lives keeps it
            }
        }
        if had_owner {
            self.delete_key(key, Propagation::Background);
        }
    }

    fn delete_key(&mut self, key: &Key, propagation: Propagation) {
        let Some(resource) = self.resources.get(key.kind).cloned() else { return };
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        // Gone already: nothing to do.
        let _ = self.delete(&resource, &key.namespace, &key.name, &options);
    }

    fn orphan(&mut self, owner: &str) {
        for key in self.store.dependents(owner) {
            let Some(object) = self.store.get(&key) else { continue };
            let mut next = (**object).clone();
            if let Some(list) = next.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
                list.retain(|o| o.get("uid").and_then(Value::as_str) != Some(owner));
            }
            if next.pointer("/metadata/ownerReferences") == Some(&json!([])) {
                next["metadata"].as_object_mut().map(|m| m.remove("ownerReferences"));
            }
            self.store.put(key, next);
        }
    }

    fn finish_foreground(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let waits = object.pointer("/metadata/deletionTimestamp").is_some() && finalizers(&object).contains(&FOREGROUND);
        if !waits || !self.store.dependents(uid(&object).unwrap_or_default()).is_empty() {
            return;
        }
        let rest: Vec<String> = finalizers(&object).into_iter().filter(|f| *f != FOREGROUND).map(Into::into).collect();
        if rest.is_empty() {
            self.remove(key);
        } else {
            let mut next = (*object).clone();
            next["metadata"]["finalizers"] = json!(rest);
            self.store.put(key.clone(), next);
        }
    }

    fn empty_namespace(&mut self, namespace: &str) {
        for key in self.store.keys_in(namespace) {
            let Some(resource) = self.resources.get(key.kind).cloned() else { continue };
            let options = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
            let _ = self.delete(&resource, &key.namespace, &key.name, &options);
        }
        self.finish_namespace(namespace);
    }

    fn finish_namespace(&mut self, namespace: &str) {
        let Some(namespaces) = self.resource("", "namespaces") else { return };
        let key = Self::key(&namespaces, "", namespace);
        let ends = self.store.get(&key).is_some_and(|n| n.pointer("/metadata/deletionTimestamp").is_some());
        if ends && !self.store.any_in(namespace) {
            self.store.remove(&key);
        }
    }
}

fn check_preconditions(resource: &Resource, name: &str, object: &Value, options: &DeleteOptions) -> Answer<()> {
    for (field, wanted) in [("uid", &options.uid), ("resourceVersion", &options.version)] {
        let is = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default();
        if let Some(wanted) = wanted.as_deref().filter(|w| *w != is) {
            let label = if field == "uid" { "UID" } else { "ResourceVersion" };
            let why = format!("Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {is}");
            return Err(fail::conflict(resource, name, &why));
        }
    }
    Ok(())
}
