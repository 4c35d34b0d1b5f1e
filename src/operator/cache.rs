//! A cache that keeps of each object what decisions rest on, and finds objects by name or by what they belong to.
//!
//! kube's own store keeps whole objects, and finds those of one rollout by looking at all. With many rollouts the first
//! is most of the memory, and the second most of the work.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future, stream};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Objects in one answer to a list: all of an answer are in memory at once, before they are cut down.
pub const PAGE: u32 = 100;

/// What is kept of an object.
pub trait Kept: Send + Sync + 'static {
    /// What an object of `namespace` is found by, besides its name: see [`group`].
    fn groups(&self, _namespace: &str) -> Vec<String> {
        Vec::new()
    }

    /// Whether it counts. One that does not is told as a change, and not kept.
    fn counts(&self) -> bool {
        true
    }

    /// How new it is, where objects come on several ways: an older one does not replace a newer one.
    fn version(&self) -> Option<u64> {
        None
    }
}

/// Name of a group: what the objects have in common, and its namespace.
pub fn group(what: &str, namespace: &str, name: &str) -> String {
    format!("{what}/{namespace}/{name}")
}

/// Namespace (empty for cluster-wide kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl Id {
    /// An object's.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

/// An object that was made, changed or deleted.
#[derive(Debug)]
pub struct Change<T> {
    /// Which.
    pub id: Id,
    /// As it is, or as it last was.
    pub object: Arc<T>,
}

struct Objects<T> {
    all: HashMap<Id, Arc<T>>,
    groups: BTreeSet<(Box<str>, Id)>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), groups: BTreeSet::new() }
    }
}

impl<T: Kept> Objects<T> {
    fn set(&mut self, id: &Id, object: &Arc<T>) {
        let old = self.all.get(id).and_then(|old| old.version());
        if old.is_some_and(|old| object.version().is_some_and(|new| new < old)) {
            return;
        }
        self.remove(id);
        if object.counts() {
            self.groups.extend(object.groups(&id.namespace).into_iter().map(|g| (g.into(), id.clone())));
            self.all.insert(id.clone(), object.clone());
        }
    }

    fn remove(&mut self, id: &Id) {
        if let Some(old) = self.all.remove(id) {
            for group in old.groups(&id.namespace) {
                self.groups.remove(&(group.into(), id.clone()));
            }
        }
    }

    fn of(&self, group: &str) -> Vec<(Id, Arc<T>)> {
        let first = (group.into(), Id::new("", ""));
        let ids = self.groups.range(first..).take_while(|(g, _)| &**g == group).map(|(_, id)| id);
        ids.filter_map(|id| Some((id.clone(), self.all.get(id)?.clone()))).collect()
    }
}

struct Part<T> {
    objects: RwLock<Objects<T>>,
    filled: watch::Sender<bool>,
}

/// The cache of one kind, over all watched namespaces.
pub struct Cache<T> {
    parts: Vec<Arc<Part<T>>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<T: Kept> Cache<T> {
    /// One object; `namespace` is empty for cluster-wide kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let id = Id::new(namespace, name);
        self.parts.iter().find_map(|p| p.objects.read().all.get(&id).cloned())
    }

    /// Objects of a [`group`], by namespace and name.
    pub fn of(&self, group: &str) -> Vec<(Id, Arc<T>)> {
        self.parts.iter().flat_map(|p| p.objects.read().of(group)).collect()
    }

    /// Adds a part, to be filled by one watch.
    pub fn part(&mut self) -> Writer<T> {
        let part = Arc::new(Part { objects: RwLock::default(), filled: watch::Sender::new(false) });
        self.parts.push(part.clone());
        Writer { part, list: None }
    }

    /// Waits until every part has been filled once.
    pub async fn ready(&self) {
        let filled = self.parts.iter().map(|p| async {
            // The sender is in the part: it cannot be gone.
            let _ = p.filled.subscribe().wait_for(|filled| *filled).await;
        });
        future::join_all(filled).await;
    }
}

/// Fills one part of a cache.
pub struct Writer<T> {
    part: Arc<Part<T>>,
    /// A new list that is not complete.
    list: Option<Objects<T>>,
}

impl<T: Kept> Writer<T> {
    /// Replaces an object that is there by what an answer to a write says, unless the watch was faster; says whether it is
    /// there. One that is not is gone: the watch has told so.
    pub fn replace(&self, id: &Id, object: T) -> bool {
        let mut objects = self.part.objects.write();
        let there = objects.all.contains_key(id);
        if there {
            objects.set(id, &Arc::new(object));
        }
        there
    }

    /// Takes an event over, and says what changed. After a list all of the objects are told, also those that are gone,
    /// because what happened while there was no watch is not known; the first list tells nothing: see [`Cache::ready`].
    pub fn apply<K: Resource>(&mut self, event: &watcher::Event<K>, keep: impl Fn(&K) -> T) -> Vec<Change<T>> {
        match event {
            watcher::Event::Apply(object) => {
                let (id, object) = (Id::of(object), Arc::new(keep(object)));
                self.part.objects.write().set(&id, &object);
                vec![Change { id, object }]
            }
            watcher::Event::Delete(object) => {
                let (id, object) = (Id::of(object), Arc::new(keep(object)));
                self.part.objects.write().remove(&id);
                vec![Change { id, object }]
            }
            watcher::Event::Init => {
                self.list = Some(Objects::default());
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let (id, object) = (Id::of(object), Arc::new(keep(object)));
                self.list.get_or_insert_default().set(&id, &object);
                Vec::new()
            }
            watcher::Event::InitDone => {
                let new = self.list.take().unwrap_or_default();
                let old = std::mem::replace(&mut *self.part.objects.write(), new);
                if !self.part.filled.send_replace(true) {
                    return Vec::new();
                }
                let mut all = old.all;
                all.extend(self.part.objects.read().all.iter().map(|(id, object)| (id.clone(), object.clone())));
                all.into_iter().map(|(id, object)| Change { id, object }).collect()
            }
        }
    }
}

/// Adds a watch to a cache and gives its changes, after the cache has them.
pub fn fill<K, T>(cache: &mut Cache<T>, api: Api<K>, config: watcher::Config, keep: fn(&K) -> T) -> BoxStream<'static, Change<T>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    T: Kept,
{
    let mut writer = cache.part();
    events(api, config)
        .filter_map(|event| future::ready(event.ok()))
        .flat_map(move |event| stream::iter(writer.apply(&event, keep)))
        .boxed()
}

/// A watch that is opened again whenever it breaks; what breaks it is logged.
pub fn events<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = watcher(api, config.page_size(PAGE)).inspect(|event| {
        if let Err(error) = event {
            tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch interrupted; it is opened again");
        }
    });
    events.default_backoff()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::ObjectMeta;
    use watcher::Event;

    use super::*;

    struct Owner(String, Option<u64>);

    impl Kept for Owner {
        fn groups(&self, namespace: &str) -> Vec<String> {
            vec![group("owner", namespace, &self.0)]
        }

        fn counts(&self) -> bool {
            self.0 != "nobody"
        }

        fn version(&self) -> Option<u64> {
            self.1
        }
    }

    fn keep(map: &ConfigMap) -> Owner {
        let version = map.metadata.resource_version.as_ref().map(|v| v.parse().unwrap());
        Owner(map.data.as_ref().unwrap()["owner"].clone(), version)
    }

    fn map(name: &str, owner: &str) -> ConfigMap {
        let metadata = ObjectMeta { name: Some(name.into()), namespace: Some("n".into()), ..ObjectMeta::default() };
        ConfigMap { metadata, data: Some([("owner".to_owned(), owner.to_owned())].into()), ..ConfigMap::default() }
    }

    fn names(cache: &Cache<Owner>, owner: &str) -> Vec<String> {
        cache.of(&group("owner", "n", owner)).into_iter().map(|(id, _)| id.name.into()).collect()
    }

    #[test]
    fn objects_are_found_by_name_and_by_the_group_they_are_in_now() {
        let mut cache = Cache::default();
        let mut writer = cache.part();
        for event in [Event::Apply(map("a", "x")), Event::Apply(map("b", "x")), Event::Apply(map("c", "xy"))] {
            assert_eq!(writer.apply(&event, keep).len(), 1);
        }
        assert_eq!(names(&cache, "x"), ["a", "b"]);
        assert_eq!(cache.get("n", "c").unwrap().0, "xy");
        assert!(cache.get("m", "c").is_none());
        writer.apply(&Event::Apply(map("a", "xy")), keep);
        assert_eq!((names(&cache, "x"), names(&cache, "xy")), (vec!["b".to_owned()], vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(writer.apply(&Event::Delete(map("b", "x")), keep).len(), 1);
        assert_eq!(names(&cache, "x"), [""; 0]);
        let told = writer.apply(&Event::Apply(map("a", "nobody")), keep);
        assert_eq!((told.len(), names(&cache, "nobody").len()), (1, 0), "told, and not kept");
        assert!(cache.get("n", "a").is_none());
    }

    #[test]
    fn an_older_object_does_not_replace_a_newer_one() {
        let mut cache = Cache::default();
        let mut writer = cache.part();
        for (version, owner) in [("9", "x"), ("8", "y"), ("10", "z"), ("10", "zz")] {
            let mut map = map("a", owner);
            map.metadata.resource_version = Some(version.into());
            writer.apply(&Event::Apply(map), keep);
            assert_eq!(cache.get("n", "a").unwrap().0, if owner == "y" { "x" } else { owner });
        }
        let id = Id::new("n", "a");
        assert!(writer.replace(&id, Owner("late".into(), Some(9))) && names(&cache, "late").is_empty());
        assert!(writer.replace(&id, Owner("new".into(), Some(11))) && names(&cache, "new") == ["a"]);
        writer.apply(&Event::Delete(map("a", "new")), keep);
        assert!(!writer.replace(&id, Owner("gone".into(), Some(12))) && names(&cache, "gone").is_empty());
    }

    #[tokio::test]
    async fn a_new_list_takes_effect_as_a_whole_and_tells_what_is_gone() {
        let mut cache = Cache::default();
        let mut writer = cache.part();
        writer.apply(&Event::Init, keep);
        writer.apply(&Event::InitApply(map("a", "x")), keep);
        assert!(names(&cache, "x").is_empty() && !*writer.part.filled.borrow());
        assert!(writer.apply(&Event::InitDone, keep).is_empty());
        cache.ready().await;
        assert_eq!(names(&cache, "x"), ["a"]);

        writer.apply(&Event::Init, keep);
        writer.apply(&Event::InitApply(map("b", "x")), keep);
        assert_eq!(names(&cache, "x"), ["a"]);
        let mut told: Vec<_> = writer.apply(&Event::InitDone, keep).into_iter().map(|c| c.id.name.into_string()).collect();
        told.sort();
        assert_eq!((told, names(&cache, "x")), (vec!["a".to_owned(), "b".to_owned()], vec!["b".to_owned()]));
    }
}
