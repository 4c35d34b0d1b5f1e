//! What all open dashboards show: a line for each rollout, and who is told when one changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::history::History;
use super::view;
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::operator::stores::{Guarded, Onlooker};

/// Changes that are kept for a stream that is behind; one that is further behind has to begin anew. All streams share
/// them, so that another one costs next to nothing.
const BEHIND: usize = 1024;
/// Most rollouts whose recent past is kept.
const FOLLOWED: usize = 200;

/// Namespace and name.
pub type Key = (String, String);

/// Something that streams tell.
#[derive(Clone, Debug)]
pub struct Change {
    /// Namespace of the rollout: who may not list there is not told.
    pub namespace: String,
    /// JSON with a line break.
    pub line: Bytes,
}

#[derive(Default)]
struct State {
    /// JSON text: a fifth of what parsed values take.
    lines: BTreeMap<Key, Bytes>,
    histories: HashMap<Key, History>,
}

/// The lines, and their changes.
pub struct Board {
    state: RwLock<State>,
    changes: broadcast::Sender<Arc<Change>>,
    feeds: watch::Sender<(usize, usize)>,
    /// Watches that fail, by kind.
    troubles: Mutex<BTreeMap<&'static str, String>>,
    now: fn() -> i64,
}

impl Default for Board {
    fn default() -> Self {
        Self::with_clock(|| Timestamp::now().as_second())
    }
}

impl Board {
    /// One whose recent past is noted by this clock: seconds of Unix time.
    pub fn with_clock(now: fn() -> i64) -> Self {
        Self {
            state: RwLock::default(),
            changes: broadcast::Sender::new(BEHIND),
            feeds: watch::Sender::new((0, 0)),
            troubles: Mutex::default(),
            now,
        }
    }

    /// A way to fill it, for one watch.
    pub fn feed(self: &Arc<Self>) -> Feed {
        self.feeds.send_modify(|(all, _)| *all += 1);
        Feed { board: self.clone(), part: Mutex::default() }
    }

    /// The lines now, and everything that changes from now on.
    pub fn look(&self) -> (Vec<(Key, Bytes)>, broadcast::Receiver<Arc<Change>>) {
        let state = self.state.read();
        let lines = state.lines.iter().map(|(key, line)| (key.clone(), line.clone())).collect();
        (lines, self.changes.subscribe())
    }

    /// Whether every feed has been filled once.
    pub fn is_filled(&self) -> bool {
        let (all, filled) = *self.feeds.borrow();
        all == filled
    }

    /// Namespaces that have rollouts.
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.state.read().lines.keys().map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Says that the watch of a kind fails, and why, or that it works again. What was the matter before.
    pub fn set_trouble(&self, kind: &'static str, why: Option<String>) -> Option<String> {
        let mut troubles = self.troubles.lock();
        match why {
            Some(why) => troubles.insert(kind, why),
            None => troubles.remove(kind),
        }
    }

    /// Why the lines may be old; `None`: they are as the API server has them.
    pub fn trouble(&self) -> Option<String> {
        let troubles = self.troubles.lock();
        (!troubles.is_empty()).then(|| troubles.values().cloned().collect::<Vec<_>>().join("; "))
    }

    /// The recent past of a rollout.
    pub fn history(&self, namespace: &str, name: &str) -> Value {
        let state = self.state.read();
        let history = state.histories.get(&(namespace.to_owned(), name.to_owned()));
        history.map_or_else(|| History::default().json(), History::json)
    }

    /// Streams that are open.
    pub fn listeners(&self) -> usize {
        self.changes.receiver_count()
    }

    fn set(&self, rollout: &Guarded<VoiceRollout>) -> Key {
        let key = key(rollout);
        let line = Bytes::from(view::line(rollout));
        let mut state = self.state.write();
        if let Some(status) = rollout.0.as_ref().ok().and_then(|r| r.status.as_ref()) {
            if !History::wanted(status) {
                state.histories.remove(&key);
            } else if state.histories.len() < FOLLOWED || state.histories.contains_key(&key) {
                state.histories.entry(key.clone()).or_default().see((self.now)(), status);
            }
        }
        if state.lines.insert(key.clone(), line.clone()).is_none_or(|old| old != line) {
            self.tell(&key, || Bytes::from([b"{\"type\":\"changed\",\"rollout\":", &line[..], b"}\n"].concat()));
        }
        key
    }

    fn remove(&self, key: &Key) {
        let mut state = self.state.write();
        state.histories.remove(key);
        if state.lines.remove(key).is_some() {
            self.tell(key, || text(&json!({"type": "deleted", "namespace": key.0, "name": key.1})));
        }
    }

    fn run(&self, run: &VoiceAnalysisRun) {
        let key = (run.namespace().unwrap_or_default(), run.spec.rollout.clone());
        let mut state = self.state.write();
        if let Some(history) = state.histories.get_mut(&key) {
            history.take((self.now)(), run);
            self.tell(&key, || text(&json!({"type": "run", "namespace": key.0, "name": key.1})));
        }
    }

    /// While the state is locked: whoever looks gets a change either in the lines or afterwards.
    fn tell(&self, key: &Key, what: impl FnOnce() -> Bytes) {
        if self.changes.receiver_count() > 0 {
            // Nobody listens any more: then nobody misses it.
            let _ = self.changes.send(Arc::new(Change { namespace: key.0.clone(), line: what() }));
        }
    }
}

/// Fills the board from one watch of rollouts and one of runs.
pub struct Feed {
    board: Arc<Board>,
    part: Mutex<Part>,
}

#[derive(Default)]
struct Part {
    keys: BTreeSet<Key>,
    /// Of a list that is not complete.
    list: Option<BTreeSet<Key>>,
    filled: bool,
}

impl Onlooker for Feed {
    fn rollout(&self, event: &Event<Guarded<VoiceRollout>>) {
        let mut part = self.part.lock();
        match event {
            Event::Apply(rollout) => {
                let key = self.board.set(rollout);
                part.keys.insert(key);
            }
            Event::Delete(rollout) => {
                let key = key(rollout);
                self.board.remove(&key);
                part.keys.remove(&key);
            }
            Event::Init => part.list = Some(BTreeSet::new()),
            Event::InitApply(rollout) => {
                let key = self.board.set(rollout);
                part.list.get_or_insert_default().insert(key);
            }
            Event::InitDone => {
                let new = part.list.take().unwrap_or_default();
                part.keys.difference(&new).for_each(|gone| self.board.remove(gone));
                part.keys = new;
                if !std::mem::replace(&mut part.filled, true) {
                    self.board.feeds.send_modify(|(_, filled)| *filled += 1);
                }
            }
        }
    }

    fn run(&self, event: &Event<Guarded<VoiceAnalysisRun>>) {
        if let Event::Apply(run) | Event::InitApply(run) = event
            && let Ok(run) = &run.0
        {
            self.board.run(run);
        }
    }
}

fn key(rollout: &Guarded<VoiceRollout>) -> Key {
    (rollout.namespace().unwrap_or_default(), rollout.name_any())
}

/// JSON texts as an array, with something before and after it.
pub fn array(before: &str, lines: &[Bytes], after: &str) -> Bytes {
    let lines = lines.join(&b","[..]);
    Bytes::from([before.as_bytes(), b"[", &lines, b"]", after.as_bytes()].concat())
}

/// A JSON object on a line of its own.
pub fn text(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}
