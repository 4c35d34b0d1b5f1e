//! A release that bakes for 72 hours in a cluster where everything goes wrong: pods crash, nodes are drained and lost, an
//! autoscaler changes the size, the operator is killed, the mesh is slow, gauges fail, people edit the route, another
//! version comes in the middle, somebody aborts. The invariants are checked after every change of an object.

mod invariants;
mod schedule;
mod troubles;
mod watchman;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use voicerollout::api::status::{Phase, Role};
use voicerollout::sim::world::{Callers, WorldConfig};
use voicerollout::sim::{Pace, SimServer};
use voicerollout::sources::{Progress, Request};

use crate::cluster::script::{Answer, Script};
use crate::cluster::{AGENT, Cluster};
use troubles::{Bake, Settings};

/// Seeds of `make test`; `make soak` asks for more.
const SEEDS: u64 = 30;
/// Time that the world has to settle when nothing goes wrong any more.
const SETTLE: Duration = Duration::from_secs(8 * 3600);

/// The agent with live calls read, gates, and steps that take three days.
fn manifests(settings: &Settings) -> String {
    let (head, _) = AGENT.split_once("  steps:").expect("steps");
    let head = head.replace(
        "virtualServices: [{name: agent, routes: [primary]}]",
        "virtualServices: [{name: agent, routes: [primary]}]\n      propagationDelay: 60s",
    );
    let budget = if settings.budget { BUDGET } else { "" };
    let (drain, longest) = (settings.on_max_drain, settings.max_drain.as_secs());
    format!(
        r#"{budget}{head}  progressDeadline: 12h
  sessions: {{activeCalls: {{http: {{}}}}, interval: 2m}}
  drain: {{maxDrain: {longest}s, zeroFor: 5m, onMaxDrain: {drain}}}
  analysis:
    gates:
      - name: background
        errorBudget: 12h
        maxDuration: 100h
        threshold:
          interval: 4h
          successCondition: result >= 0.9
          provider: {{web: {{url: "https://evals.internal/background", jsonPath: "{{$.rate}}"}}}}
  steps:
    - setWeight: 5
    - pause: {{duration: 5h}}
    - analysis: {{gates: [{STEP}]}}
    - setWeight: 25
    - pause: {{duration: 8h}}
    - analysis: {{require: [background]}}
    - setWeight: 50
    - pause: {{}}
"#
    )
}

/// With it the operator makes none of its own.
const BUDGET: &str = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: agents, namespace: voice}\nspec: {minAvailable: 50%, selector: {matchLabels: {app: agent}}}\n---\n";

/// A gate of a step.
const STEP: &str = r#"{name: step, errorBudget: 12h, maxDuration: 100h, threshold: {successCondition: result >= 0.9, interval: 2m, provider: {web: {url: "https://evals.internal/step", jsonPath: "{$.rate}"}}}}"#;

/// Answers of an eval harness that is down now and then. I7: the key of what is asked stands in a run's status.
fn evals(server: SimServer, broken: Arc<Mutex<Vec<String>>>, down: Arc<AtomicU64>) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request| {
        let runs = server.peek_all("voiceanalysisruns", Some("voice"));
        let written = runs.iter().flat_map(|r| r["status"]["gates"].as_array().cloned().unwrap_or_default());
        let known = written.filter_map(|g| g["inFlight"]["key"].as_str().map(String::from)).any(|key| key == request.key);
        if !known {
            broken.lock().unwrap().push(format!("I7: {} was started before its key {} was written", request.gate.name, request.key));
        }
        if down.load(Ordering::SeqCst) > 0 {
            return Err(voicerollout::sources::SourceError::new("503 from the eval harness"));
        }
        Ok(Progress::Value(json!(0.95)))
    }
}

/// One seed. What was wrong, if something was.
async fn bake(seed: u64) -> Result<Figures, String> {
    let settings = Settings::of(seed);
    let (broken, down) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let callers = Callers { every: settings.every, shortest: settings.shortest, longest: settings.longest, ..Callers::default() };
    let config = WorldConfig { seed, callers: Some(callers), nodes: 3, ..WorldConfig::default() };
    let answers = (broken.clone(), down.clone());
    let cluster = Cluster::start_on(config, move |server, _, _| {
        // A client gives a watch up that is silent for more than five minutes.
        server.set_pace(Pace { bookmarks: Duration::from_secs(240), longest: Some(Duration::from_secs(30 * 86400)) });
        Arc::new(Script::new(evals(server.clone(), answers.0, answers.1)))
    })
    .await;
    cluster.apply(&manifests(&settings)).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    let mut bake = Bake::start(seed, settings, cluster, broken, down);
    bake.play().await;
    bake.settle().await?;
    bake.verdict().await
}

/// What a bake was made of.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    changes: u64,
    calls: u64,
    cut: u64,
    ends: u64,
    troubles: u64,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|n| n.parse().ok())
}

/// Plays seeds on as many threads as there are processors; gives those that went wrong.
fn play_all(seeds: Vec<u64>) -> (Vec<String>, Figures) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicU64::new(0);
    let wrong = Mutex::new(Vec::new());
    let sum = Mutex::new(Figures::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst)).expect("small")) {
                    let play = || {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
                        runtime.block_on(bake(*seed))
                    };
                    let result = std::panic::catch_unwind(play).unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default())
                    });
                    match result {
                        Ok(figures) => sum.lock().unwrap().add(&figures),
                        Err(what) => wrong.lock().unwrap().push(format!("VOICEROLLOUT_BAKE_SEED={seed}: {what}")),
                    }
                }
            });
        }
    });
    (wrong.into_inner().unwrap(), sum.into_inner().unwrap())
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.calls += other.calls;
        self.cut += other.cut;
        self.ends += other.ends;
        self.troubles += other.troubles;
    }
}

#[test]
fn the_invariants_hold_over_72_hours_in_which_everything_goes_wrong() {
    let seeds = match number("VOICEROLLOUT_BAKE_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("VOICEROLLOUT_BAKE_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let count = seeds.len();
    let (wrong, figures) = play_all(seeds);
    println!("{count} seeds of 72 h: {figures:?}");
    assert!(wrong.is_empty(), "{} of {count} seeds:\n{}", wrong.len(), wrong.join("\n"));
    assert!(figures.calls > 0 && figures.cut > 0 && figures.ends > 0, "nothing happened: {figures:?}");
}
