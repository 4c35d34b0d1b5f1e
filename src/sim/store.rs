//! Objects, their one resourceVersion counter, and the log of changes that watches and old lists read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// Changes kept before the oldest ones are compacted by themselves.
const LOG_LIMIT: usize = 50_000;

/// Name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// [`super::registry::Resource::id`].
    pub kind: usize,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// resourceVersion of the change.
    pub version: u64,
    /// When it happened.
    pub at: Instant,
    /// The object.
    pub key: Key,
    /// As it was; `None` when it was created.
    pub old: Option<Arc<Value>>,
    /// As it is; `None` when it was deleted.
    pub new: Option<Arc<Value>>,
}

/// All objects.
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
    version: u64,
    compacted: u64,
    by_uid: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    changed: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            version: 1,
            compacted: 0,
            by_uid: HashMap::new(),
            dependents: HashMap::new(),
            changed: watch::channel(1).0,
        }
    }
}

impl Store {
    /// The newest resourceVersion.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Versions up to this one are no longer in the log.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Tells when there are new changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// An object.
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The object with this UID.
    pub fn key_of_uid(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid)
    }

    /// Objects that name this UID as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Key> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Objects of a kind in one namespace, or in all, by namespace and name.
    pub fn list<'a>(&'a self, kind: usize, namespace: Option<&'a str>) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let from = Key { kind, namespace: namespace.unwrap_or_default().to_owned(), name: String::new() };
        self.objects.range(from..).take_while(move |(key, _)| key.kind == kind && namespace.is_none_or(|ns| key.namespace == ns))
    }

    /// Whether any object lies in the namespace.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.objects.keys().any(|key| key.namespace == namespace)
    }

    /// Names of all objects in the namespace.
    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        self.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// Objects of a kind as they were at `version`; `None` when the log no longer reaches back that far.
    pub fn list_at(&self, kind: usize, namespace: Option<&str>, version: u64) -> Option<Vec<Arc<Value>>> {
        if version < self.compacted {
            return None;
        }
        let mut objects: BTreeMap<&Key, &Arc<Value>> = self.list(kind, namespace).collect();
        let after = self.log.partition_point(|c| c.version <= version);
        for change in self.log.range(after..).rev() {
            if change.key.kind != kind || namespace.is_some_and(|ns| change.key.namespace != ns) {
                continue;
            }
            match &change.old {
                Some(old) => objects.insert(&change.key, old),
                None => objects.remove(&change.key),
            };
        }
        Some(objects.into_values().cloned().collect())
    }

    /// Changes after `version`, oldest first.
    pub fn changes_after(&self, version: u64) -> impl Iterator<Item = &Change> {
        let from = self.log.partition_point(|c| c.version <= version);
        self.log.range(from..)
    }

    /// Creates or replaces an object under the next version.
    pub fn put(&mut self, key: Key, mut value: Value) -> Arc<Value> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let value = Arc::new(value);
        let old = self.objects.insert(key.clone(), Arc::clone(&value));
        if let Some(old) = &old {
            self.unindex(&key, old);
        }
        self.index(&key, &value);
        self.record(Change { version: self.version, at: Instant::now(), key, old, new: Some(Arc::clone(&value)) });
        value
    }

    /// Removes an object; its last form carries the version of the removal.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.unindex(key, &old);
        self.version += 1;
        let mut last = (*old).clone();
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(last);
        self.record(Change { version: self.version, at: Instant::now(), key: key.clone(), old: Some(Arc::clone(&last)), new: None });
        Some(last)
    }

    /// Forgets the log; watches and pages that start before now get 410.
    pub fn compact(&mut self) {
        self.log.clear();
        self.compacted = self.version;
    }

    fn record(&mut self, change: Change) {
        self.log.push_back(change);
        if self.log.len() > LOG_LIMIT
            && let Some(oldest) = self.log.pop_front()
        {
            self.compacted = oldest.version;
        }
        self.changed.send_replace(self.version);
    }

    fn index(&mut self, key: &Key, value: &Value) {
        if let Some(uid) = uid(value) {
            self.by_uid.insert(uid.to_owned(), key.clone());
        }
        for owner in owners(value) {
            self.dependents.entry(owner.to_owned()).or_default().insert(key.clone());
        }
    }

    fn unindex(&mut self, key: &Key, value: &Value) {
        if let Some(uid) = uid(value) {
            self.by_uid.remove(uid);
        }
        for owner in owners(value) {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }
}

/// UID of an object.
pub fn uid(value: &Value) -> Option<&str> {
    value.pointer("/metadata/uid")?.as_str()
}

/// UIDs of the owners of an object.
pub fn owners(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|o| o.get("uid")?.as_str())
}
