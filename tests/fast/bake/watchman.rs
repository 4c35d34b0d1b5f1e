//! Looks at every change of every object, and at every end of a pod, and says what it finds wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use voicerollout::api::VoiceRolloutStatus;
use voicerollout::operator::clock::Clock;
use voicerollout::sim::world::{CallBook, CallCounts, Cause, PodEnd};
use voicerollout::sim::{SimServer, Written};

use super::Timestamp;
use super::troubles::Settings;
use crate::cluster::Cluster;
use crate::cluster::gauges::Gauges;

/// Last events that are shown with a finding.
const TRAIL: usize = 25;

/// What the watchman knows.
pub struct Watch {
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    book: CallBook,
    gauges: Arc<Gauges>,
    broken: Arc<Mutex<Vec<String>>>,
    trail: VecDeque<String>,
    cursor: u64,
    seen_endings: usize,
    seen_violations: usize,
    /// The objects as they are, by kind and name.
    pub(super) objects: HashMap<(String, String), Arc<Value>>,
    /// When each number of pods was asked for last.
    pub(super) sizes: Vec<(Timestamp, i64)>,
    /// Gauges that do not answer, and since when.
    pub(super) silence: Option<(String, Timestamp)>,
    /// Times of what a person said.
    pub(super) said: Vec<(Timestamp, String)>,
    /// Times at which somebody edited the route.
    pub(super) edits: Vec<Timestamp>,
    /// Since when the operator has written the route last.
    pub(super) reverted: Option<Timestamp>,
    /// Times between which the operator did not run.
    pub(super) down: Vec<(Timestamp, Option<Timestamp>)>,
    /// Pods that were asked to end, and what would excuse it.
    pub(super) asked: HashMap<String, Asked>,
    /// Ends of pods that are nobody's fault in the operator.
    pub(super) accidents: Vec<Timestamp>,
    /// Most calls that the operator may have counted as cut, by revision.
    may_be_told: BTreeMap<String, u64>,
    cut_by_cause: BTreeMap<String, u64>,
    /// Ends of pods so far.
    pub ends: u64,
    /// Troubles so far.
    pub troubles: u64,
}

/// What holds when a pod is asked to end.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `drain.maxDrain` has passed for its revision, and pods end then.
    pub late: bool,
    /// Its calls could not be read for long enough to be noticed.
    pub unread: bool,
    /// It was one of stable, and had not been taken out of traffic.
    pub in_traffic: bool,
    /// What the revision's record said.
    pub record: String,
}

/// Looks whenever something has changed.
pub async fn run(server: SimServer, watch: Arc<Mutex<Watch>>) {
    let mut changes = server.subscribe();
    loop {
        watch.lock().unwrap().look(&server);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Watch {
    /// Of what is there now.
    pub fn new(cluster: &Cluster, settings: &Settings, broken: Arc<Mutex<Vec<String>>>) -> Self {
        let mut watch = Self {
            clock: cluster.clock.clone(),
            settings: settings.clone(),
            book: cluster.world.call_book(),
            gauges: cluster.gauges.clone(),
            broken,
            trail: VecDeque::new(),
            cursor: 0,
            seen_endings: 0,
            seen_violations: 0,
            objects: HashMap::new(),
            sizes: Vec::new(),
            silence: None,
            said: Vec::new(),
            edits: Vec::new(),
            reverted: None,
            down: Vec::new(),
            asked: HashMap::new(),
            accidents: Vec::new(),
            may_be_told: BTreeMap::new(),
            cut_by_cause: BTreeMap::new(),
            ends: 0,
            troubles: 0,
        };
        watch.look(&cluster.server);
        watch
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Something that a finding may have to do with.
    pub fn happens(&mut self, what: &str) {
        self.troubles += 1;
        self.note(what.to_owned());
    }

    fn note(&mut self, what: String) {
        if self.trail.len() >= TRAIL {
            self.trail.pop_front();
        }
        self.trail.push_back(format!("{} {what}", self.now()));
    }

    pub fn wrong(&self, what: String) {
        self.broken.lock().unwrap().push(format!("{}: {what}", self.now()));
    }

    pub fn is_well(&self) -> bool {
        self.broken.lock().unwrap().is_empty()
    }

    pub fn trail(&self) -> String {
        self.trail.iter().fold(String::from("what happened before:\n"), |text, line| text + "  " + line + "\n")
    }

    pub fn report(&self) -> String {
        let broken = self.broken.lock().unwrap();
        format!("{}\n{}", broken.iter().take(5).cloned().collect::<Vec<_>>().join("\n"), self.trail())
    }

    pub fn silent(&mut self, part: Option<String>) {
        self.silence = part.map(|part| (part, self.now()));
    }

    /// Something that may leave a call without an answer happens now.
    pub fn accident(&mut self) {
        self.accidents.push(self.now());
    }

    pub fn said(&mut self, verb: &str) {
        self.said.push((self.now(), verb.to_owned()));
    }

    pub fn runs(&mut self, runs: bool) {
        let now = self.now();
        match self.down.last_mut() {
            Some((_, end)) if runs => *end = Some(now),
            _ => self.down.push((now, None)),
        }
    }

    /// Takes in everything that is new.
    pub fn look(&mut self, server: &SimServer) {
        for change in server.changes_since(self.cursor) {
            self.cursor = change.version;
            if change.resource != "events" && self.is_well() {
                let found = self.check(&change);
                found.into_iter().for_each(|what| self.wrong(what));
            }
            let key = (change.resource.clone(), change.name.clone());
            match change.new {
                Some(new) => self.objects.insert(key, new),
                None => self.objects.remove(&key),
            };
        }
        for end in self.book.endings(self.seen_endings) {
            self.seen_endings += 1;
            self.ends += 1;
            self.note_end(&end);
            let found = self.check_end(&end);
            found.into_iter().for_each(|what| self.wrong(what));
        }
        for violation in self.book.violations(self.seen_violations) {
            self.seen_violations += 1;
            if let Some(what) = self.check_violation(violation.at, &violation.what) {
                self.wrong(what);
            }
        }
    }

    fn note_end(&mut self, end: &PodEnd) {
        *self.may_be_told.entry(end.revision.clone()).or_insert(0) += self.gauges.last(&end.pod);
        *self.cut_by_cause.entry(format!("{:?}", end.cause)).or_insert(0) += end.cut;
        if matches!(end.cause, Cause::Lost | Cause::Crashed | Cause::Evicted) {
            self.accidents.extend([end.asked, end.at]);
        }
        if end.cut > 0 || end.calls > 0 {
            self.note(format!("{end:?}"));
        }
    }

    /// Calls that were cut are those of pods that ended; and those that the operator tells of were live on such pods.
    pub fn balance(&mut self, status: &VoiceRolloutStatus, calls: &BTreeMap<String, CallCounts>) {
        let (ended, cut): (u64, u64) = (self.cut_by_cause.values().sum(), calls.values().map(|c| c.cut).sum());
        if ended != cut {
            self.wrong(format!("{cut} calls were cut, {ended} of them with a pod: {:?}", self.cut_by_cause));
        }
        for revision in &status.revisions {
            let most = self.may_be_told.get(&revision.hash).copied().unwrap_or(0);
            if u64::try_from(revision.calls_cut).unwrap_or(0) > most {
                let told = revision.calls_cut;
                self.wrong(format!("{told} calls of revision {} are told as cut; its pods that ended had said {most}", revision.hash));
            }
        }
    }

    pub(super) fn rollout(&self) -> &Value {
        self.object("voicerollouts", "agent")
    }

    /// All objects of a kind, by name.
    pub(super) fn all(&self, kind: &'static str) -> impl Iterator<Item = (&str, &Value)> {
        self.objects.iter().filter(move |((k, _), _)| k == kind).map(|((_, name), object)| (name.as_str(), &**object))
    }

    pub(super) fn object(&self, kind: &str, name: &str) -> &Value {
        static NONE: Value = Value::Null;
        self.objects.get(&(kind.to_owned(), name.to_owned())).map_or(&NONE, |o| o)
    }

    fn check(&mut self, change: &Written) -> Vec<String> {
        match change.resource.as_str() {
            "virtualservices" => self.check_route(change),
            "voicerollouts" => self.check_rollout(change),
            "replicasets" => self.check_set(change),
            "pods" => self.check_pod(change),
            "voiceanalysisruns" => self.check_run(change),
            _ => Vec::new(),
        }
    }
}
