//! Brings the troubles of a schedule about.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{EvictParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use voicerollout::sim::{Fault, Verb};

use super::schedule::{self, Trouble};
use super::watchman::Watch;
use super::{Figures, Phase, Role, SETTLE};
use crate::cluster::Cluster;

/// What a seed is about.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mean time between two calls.
    pub every: Duration,
    /// Shortest call.
    pub shortest: Duration,
    /// Longest call.
    pub longest: Duration,
    /// `drain.maxDrain`.
    pub max_drain: Duration,
    /// `drain.onMaxDrain`.
    pub on_max_drain: &'static str,
    /// The user has a PodDisruptionBudget about all pods.
    pub budget: bool,
}

impl Settings {
    /// Of a seed. Some have calls that are longer than `maxDrain`.
    pub fn of(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed.wrapping_mul(7919));
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            every: minutes(dice.u64(20..40)),
            shortest: Duration::from_secs(30),
            longest: minutes([40, 50, 55, 180][dice.usize(0..4)]),
            max_drain: minutes(60),
            on_max_drain: if dice.u8(0..3) == 0 { "Keep" } else { "Terminate" },
            budget: dice.u8(0..3) == 0,
        }
    }
}

/// A bake under way.
pub struct Bake {
    cluster: Cluster,
    settings: Settings,
    schedule: Vec<(Duration, Trouble)>,
    start: Instant,
    running: bool,
    faults: Arc<AtomicBool>,
    evals_down: Arc<AtomicU64>,
    forged: u32,
    edits: u32,
    watch: Arc<Mutex<Watch>>,
    watchman: tokio::task::JoinHandle<()>,
}

impl Bake {
    /// Starts to watch, in a cluster where the first version is stable.
    pub fn start(seed: u64, settings: Settings, cluster: Cluster, broken: Arc<Mutex<Vec<String>>>, evals_down: Arc<AtomicU64>) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let schedule = schedule::of(&mut dice);
        let faults = Arc::new(AtomicBool::new(false));
        let (on, dice) = (faults.clone(), Mutex::new(dice));
        cluster.server.intercept(move |request| {
            if !on.load(Ordering::SeqCst) || &*request.user != "operator" || request.verb == Verb::Watch {
                return Fault::None;
            }
            let mut dice = dice.lock().unwrap();
            match dice.u8(0..20) {
                0 => Fault::Status([409, 429, 500, 503][dice.usize(0..4)]),
                1 => Fault::DropBefore,
                2 => Fault::DropAfter,
                3 => Fault::Delay(Duration::from_millis(dice.u64(0..6000))),
                _ => Fault::None,
            }
        });
        let watch = Arc::new(Mutex::new(Watch::new(&cluster, &settings, broken)));
        let watchman = tokio::spawn(super::watchman::run(cluster.server.clone(), watch.clone()));
        Self { cluster, settings, schedule, start: Instant::now(), running: true, faults, evals_down, forged: 0, edits: 0, watch, watchman }
    }

    /// Lets everything happen, as long as nothing is wrong.
    pub async fn play(&mut self) {
        for (at, trouble) in std::mem::take(&mut self.schedule) {
            tokio::time::sleep_until(self.start + at).await;
            self.watch.lock().unwrap().happens(&format!("{trouble:?}"));
            self.bring(trouble).await;
            if !self.watch.lock().unwrap().is_well() {
                return;
            }
        }
        tokio::time::sleep_until(self.start + Duration::from_secs(71 * 3600)).await;
    }

    async fn bring(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Crash(n) => self.with_pod(n, |c, pod| c.world.crash_container("voice", pod)),
            Trouble::Unready(n, span) => {
                self.watch.lock().unwrap().accident();
                self.with_pod(n, |c, pod| c.world.unready_pod("voice", pod, span));
            }
            Trouble::Lose(n) => self.with_pod(n, |c, pod| c.world.lose_pod("voice", pod)),
            Trouble::LoseNode(n) => {
                let node = self.node(n);
                self.pods_on(&node).iter().for_each(|pod| self.cluster.world.lose_pod("voice", pod));
            }
            Trouble::Cordon(n) => self.cluster.world.cordon(&self.node(n), true),
            Trouble::Uncordon(n) => self.cluster.world.cordon(&self.node(n), false),
            Trouble::Evict(n) => self.evict(n).await,
            Trouble::Scale(n) => {
                let patch = Patch::Merge(json!({"spec": {"replicas": n}}));
                self.cluster.rollouts().patch_scale("agent", &PatchParams::default(), &patch).await.expect("scaled");
            }
            Trouble::Kill => self.kill().await,
            Trouble::Start => self.revive().await,
            Trouble::Slow(propagation, reaction) => {
                self.cluster.world.configure(|c| (c.propagation, c.reaction) = (propagation, reaction));
            }
            Trouble::Silence(canary_only) => {
                let status = self.cluster.status("agent").await;
                let part = if canary_only { status.canary_revision.unwrap_or_default() } else { "agent".into() };
                self.cluster.gauges.silence(Some(&part));
                self.watch.lock().unwrap().silent(Some(part));
            }
            Trouble::Speak => {
                self.cluster.gauges.silence(None);
                self.watch.lock().unwrap().silent(None);
            }
            Trouble::Evals(up) => self.evals_down.store(u64::from(!up), Ordering::SeqCst),
            Trouble::EditWeights(canary) => {
                let path = |i: u32| format!("/spec/http/0/route/{i}/weight");
                let set = |i: u32, n: u32| json!({"op": "replace", "path": path(i), "value": n});
                self.edit(&[set(0, 100 - canary), set(1, canary)]).await;
            }
            Trouble::EditRoute(n) => {
                let change = match n % 3 {
                    0 => json!({"op": "add", "path": "/spec/http/0/timeout", "value": format!("{}s", n % 7)}),
                    1 => json!({"op": "add", "path": "/spec/http/0/retries", "value": {"attempts": n % 5}}),
                    _ => json!({"op": "add", "path": "/spec/ourOwnField", "value": {"n": n % 11}}),
                };
                self.edit(&[change]).await;
            }
            Trouble::Forge => self.forge().await,
            Trouble::Faults(on) => self.faults.store(on, Ordering::SeqCst),
            Trouble::BreakWatches => self.cluster.server.break_watches(),
            Trouble::Release(image) => self.cluster.set_image("agent", image).await,
            Trouble::Say(verb) => {
                self.watch.lock().unwrap().said(verb);
                self.cluster.act("agent", verb).await;
            }
        }
    }

    async fn kill(&mut self) {
        if std::mem::take(&mut self.running) {
            self.cluster.kill_operator().await;
            self.watch.lock().unwrap().runs(false);
        }
    }

    async fn revive(&mut self) {
        if !std::mem::replace(&mut self.running, true) {
            // One that starts while the API server fails requests starts all the same, later.
            self.cluster.start_operator().await;
            self.watch.lock().unwrap().runs(true);
        }
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.cluster.server.peek_all("pods", Some("voice"))
    }

    fn with_pod(&self, n: usize, act: impl Fn(&Cluster, &str)) {
        let pods = self.pods();
        if !pods.is_empty() {
            act(&self.cluster, pods[n % pods.len()]["metadata"]["name"].as_str().expect("a name"));
        }
    }

    fn node(&self, n: usize) -> String {
        let nodes = self.cluster.world.nodes();
        nodes[n % nodes.len()].clone()
    }

    fn pods_on(&self, node: &str) -> Vec<String> {
        let here = self.pods().into_iter().filter(|p| p["spec"]["nodeName"] == node);
        here.map(|p| p["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// As `kubectl drain` does: a pod that a budget protects is asked again in the next round.
    async fn evict(&self, n: usize) {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), "voice");
        for pod in self.pods_on(&self.node(n)) {
            match api.evict(&pod, &EvictParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if [404, 429].contains(&status.code) => {}
                Err(error) => self.watch.lock().unwrap().wrong(format!("evicting {pod}: {error}")),
            }
        }
    }

    /// Edits the route as somebody else, who leaves a note that it was them.
    async fn edit(&mut self, changes: &[Value]) {
        self.edits += 1;
        let note = json!({"op": "add", "path": "/metadata/annotations", "value": {"example.com/edit": self.edits.to_string()}});
        let all: Vec<Value> = changes.iter().cloned().chain([note]).collect();
        self.cluster.patch_route("agent", Value::Array(all)).await;
    }

    /// An analysis run as the operator makes them, with the verdict that the canary is bad. Nobody asked for it.
    async fn forge(&mut self) {
        let runs = self.cluster.server.peek_all("voiceanalysisruns", Some("voice"));
        let Some(real) = runs.iter().rfind(|r| r["spec"]["kind"] == "Background" && !r["status"]["gates"].is_null()) else { return };
        self.forged += 1;
        let mut forged = (**real).clone();
        let status = json!({"phase": "Fail", "message": "forged", "gates": real["status"]["gates"]});
        let metadata = json!({
            "name": format!("agent-forged-{}", self.forged), "namespace": "voice", "labels": real["metadata"]["labels"],
            "ownerReferences": real["metadata"]["ownerReferences"]
        });
        (forged["metadata"], forged["status"]) = (metadata, Value::Null);
        self.cluster.server.seed(forged).expect("a run");
        let resource = kube::api::ApiResource::erase::<voicerollout::api::VoiceAnalysisRun>(&());
        let api: Api<kube::api::DynamicObject> = Api::namespaced_with(self.cluster.client.clone(), "voice", &resource);
        let name = format!("agent-forged-{}", self.forged);
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.expect("a status");
    }

    /// I9: when nothing goes wrong any more, a person lets the release through; it ends, and then nothing is written.
    pub async fn settle(&mut self) -> Result<(), String> {
        if !self.watch.lock().unwrap().is_well() {
            return Ok(());
        }
        self.faults.store(false, Ordering::SeqCst);
        self.evals_down.store(0, Ordering::SeqCst);
        self.cluster.world.nodes().iter().for_each(|node| self.cluster.world.cordon(node, false));
        self.cluster.world.configure(|c| (c.propagation, c.reaction) = (Duration::from_secs(2), Duration::from_millis(20)));
        self.bring(Trouble::Speak).await;
        self.revive().await;
        self.bring(Trouble::Say("resume")).await;
        let until = Instant::now() + SETTLE;
        let newest = loop {
            let status = self.cluster.status("agent").await;
            let drains = status.revisions.iter().any(|r| r.role == Role::Draining);
            let done = status.phase == Phase::Healthy && status.stable_revision == status.canary_revision && !drains;
            if done {
                break status;
            }
            if Instant::now() >= until || !self.watch.lock().unwrap().is_well() {
                return Err(format!(
                    "I9: not at rest {SETTLE:?} after the last trouble: {:#?}\n{}",
                    status,
                    self.watch.lock().unwrap().trail()
                ));
            }
            if status.phase == Phase::Paused {
                self.bring(Trouble::Say("promote")).await;
            }
            tokio::time::sleep(Duration::from_secs(600)).await;
        };
        if newest.revisions.iter().find(|r| Some(&r.hash) == newest.stable_revision.as_ref()).is_none_or(|r| r.number != 3) {
            return Err(format!("the third version is not stable: {newest:#?}"));
        }
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        let before = self.cluster.server.count_writes("operator");
        tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
        let writes = self.cluster.server.count_writes("operator") - before;
        let last = self.cluster.server.requests_where(|r| &*r.user == "operator" && r.verb.is_write());
        let last: Vec<String> =
            last.iter().rev().take(5).map(|r| format!("{} {} {}", r.at, r.summary(), String::from_utf8_lossy(&r.body))).collect();
        if writes > 0 { Err(format!("I9: {writes} writes at rest: {last:#?}")) } else { Ok(()) }
    }

    /// What the watchman found.
    pub async fn verdict(self) -> Result<Figures, String> {
        tokio::task::yield_now().await;
        self.watchman.abort();
        let calls = self.cluster.world.calls();
        let status = self.cluster.status("agent").await;
        let mut watch = self.watch.lock().unwrap();
        watch.look(&self.cluster.server);
        watch.balance(&status, &calls);
        if !watch.is_well() {
            return Err(format!("{:?}\n{}", self.settings, watch.report()));
        }
        Ok(Figures {
            changes: self.cluster.server.version(),
            calls: calls.values().map(|c| c.started).sum(),
            cut: calls.values().map(|c| c.cut).sum(),
            ends: watch.ends,
            troubles: watch.troubles,
        })
    }
}
