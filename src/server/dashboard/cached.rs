//! Answers of the API server that are good for a short while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Remembers at most so many answers, each for at most so long. Follows tokio's clock.
pub struct Cached<K, V> {
    known: Mutex<HashMap<K, (Instant, V)>>,
    most: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cached<K, V> {
    /// An empty one for `most` answers.
    pub fn new(most: usize) -> Self {
        Self { known: Mutex::new(HashMap::new()), most }
    }

    /// What is known.
    pub fn get(&self, key: &K) -> Option<V> {
        let known = self.known.lock();
        known.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value.clone())
    }

    /// Remembers an answer.
    pub fn put(&self, key: K, value: V, good_for: Duration) {
        let now = Instant::now();
        let mut known = self.known.lock();
        if known.len() >= self.most {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() >= self.most {
            let soonest = known.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone());
            soonest.and_then(|key| known.remove(&key));
        }
        known.insert(key, (now + good_for, value));
    }
}
