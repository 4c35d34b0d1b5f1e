//! What this process wrote last, until the cache shows it.
//!
//! A reconcile that a finished measurement triggers may come before the watch event of our own last write. It must not
//! see the older object: there the measurement is not under way yet, and its result would be discarded.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;
use parking_lot::Mutex;

use crate::api::VoiceAnalysisRun;

struct Written {
    run: VoiceAnalysisRun,
    /// Versions that the writes were based on.
    superseded: HashSet<String>,
}

/// Objects as last written, by UID.
#[derive(Default)]
pub struct Memo(Mutex<HashMap<String, Written>>);

impl Memo {
    /// The newer of the cached object and the one last written.
    pub fn newest(&self, uid: &str, cached: &VoiceAnalysisRun) -> VoiceAnalysisRun {
        let mut memo = self.0.lock();
        let version = cached.resource_version().unwrap_or_default();
        match memo.get(uid) {
            Some(written) if written.superseded.contains(&version) => written.run.clone(),
            Some(_) => {
                memo.remove(uid);
                cached.clone()
            }
            None => cached.clone(),
        }
    }

    /// Remembers a write that was based on version `base`.
    pub fn wrote(&self, uid: &str, base: Option<String>, run: VoiceAnalysisRun) {
        let mut memo = self.0.lock();
        let mut superseded = memo.remove(uid).map(|w| w.superseded).unwrap_or_default();
        superseded.extend(base);
        // A write that changed nothing keeps its version, which is then not old.
        superseded.remove(&run.resource_version().unwrap_or_default());
        memo.insert(uid.to_owned(), Written { run, superseded });
    }

    /// Trusts the cache again.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::run::VoiceAnalysisRunSpec;

    fn at(version: &str) -> VoiceAnalysisRun {
        let spec: VoiceAnalysisRunSpec = serde_json::from_value(serde_json::json!({ "rollout": "a", "rolloutUid": "u", "kind": "Step",
            "revision": "r", "attempt": 1, "gates": [] }))
        .unwrap();
        let mut run = VoiceAnalysisRun::new("run", spec);
        run.metadata.resource_version = Some(version.into());
        run
    }

    #[test]
    fn the_cache_is_trusted_once_it_has_caught_up() {
        let memo = Memo::default();
        let version = |v: &str| memo.newest("u", &at(v)).resource_version().unwrap();
        assert_eq!(version("1"), "1");
        memo.wrote("u", Some("1".into()), at("2"));
        memo.wrote("u", Some("2".into()), at("3"));
        assert_eq!((version("1"), version("2")), ("3".into(), "3".into()));
        assert_eq!(version("3"), "3");
        memo.wrote("u", Some("3".into()), at("4"));
        assert_eq!(version("9"), "9", "somebody else wrote");
        assert_eq!(version("3"), "3", "and from then on the cache counts");
        memo.wrote("u", Some("4".into()), at("4"));
        assert_eq!(version("4"), "4");
    }
}
