//! From the recorded verdict to the moved traffic.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use voicerollout::api::VoiceAnalysisRun;
use voicerollout::api::run::RunPhase;
use voicerollout::api::status::Phase;

use crate::audit::{self, Write, between};
use crate::figures::Times;
use crate::fleet::{Fleet, Weights};
use crate::machine;
use crate::plane::{Plane, USER};
use crate::stack::{Result, Seen, wait_for};

/// Rounds of each kind; every rollout fails once in a round.
const ROUNDS: usize = 3;
/// Kinds of rounds: time between two verdicts that come one at a time, or none. What follows an abort (the status, events,
/// pods that go) takes the API server longer than a tenth of a second, so that ten a second are still being digested
/// when the next one comes.
const PACES: [(&str, Option<Duration>); 3] = [
    ("two verdicts a second", Some(Duration::from_millis(500))),
    ("ten verdicts a second", Some(Duration::from_millis(100))),
    ("all at once", None),
];

/// Where the time of a verdict went, in milliseconds.
#[derive(Clone, Default)]
struct Latencies {
    /// Verdict answered to patch answered.
    total: Vec<f64>,
    /// Verdict received to patch answered: no clock of ours starts later than this.
    upper: Vec<f64>,
    /// Verdict answered to patch received: the watch and the operator.
    operator: Vec<f64>,
}

/// Prints the figures over `count` rollouts in progress.
pub async fn run(plane: &Plane, count: usize) -> Result<()> {
    println!("\nverdict recorded -> VirtualService patched, {count} rollouts in progress at 5 %; load: processes that run or want to");
    println!("  from the API server's audit log: the write of the failing VoiceAnalysisRun's last status to the patch to weight 0;");
    println!("  each rollout also has a gate that is measured every 10 s, and goes through its abort after the patch");
    let operator = plane.operator().await?;
    let fleet = Fleet::create(plane, "verdicts", count, |i| release(plane, i)).await?;
    plane.apply(&[json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain", "namespace": fleet.namespace}})]).await?;
    fleet.wait_healthy().await?;
    let weights = Weights::follow(&plane.client, &fleet.namespace);
    for (kind, (title, pace)) in PACES.into_iter().enumerate() {
        let (mut rounds, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let begin = Instant::now();
            fleet.set_image(&format!("registry.test/voice-agent:v{}", kind * ROUNDS + round + 2)).await?;
            fleet.wait("at 5 %", |s| s.phase == Phase::Progressing || s.phase == Phase::Paused).await?;
            all_held(plane, count).await?;
            eprintln!("{title}, round {} of {ROUNDS}: {count} rollouts in progress after {:.1?}", round + 1, begin.elapsed());
            let since = Timestamp::now();
            for name in &fleet.names {
                plane.gates.answer(name, 0.0);
                if let Some(pace) = pace {
                    weights.wait_zero(std::slice::from_ref(name)).await?;
                    tokio::time::sleep(pace / 2).await;
                    plain.push(plain_write(plane, &fleet.namespace).await?);
                    tokio::time::sleep(pace / 2).await;
                }
            }
            weights.wait_zero(&fleet.names).await?;
            let load = machine::load();
            fleet.wait("Degraded", |s| s.phase == Phase::Degraded).await?;
            let latencies = collect(plane, &fleet, since).await?;
            Times::new(latencies.total.clone()).print(&format!("{title}, round {}, load {load}", round + 1));
            rounds.push(latencies);
        }
        print(title, &rounds);
        if pace.is_some() {
            Times::new(plain).print("  beside them: a PATCH of a ConfigMap");
        }
    }
    println!("  operator: {}", operator.memory().await?);
    operator.stop().await;
    Ok(())
}

fn print(title: &str, rounds: &[Latencies]) {
    let all = |part: fn(&Latencies) -> &Vec<f64>| Times::new(rounds.iter().flat_map(part).copied().collect());
    all(|r| &r.total).print(&format!("{title}, all rounds"));
    all(|r| &r.operator).print("  of it until the patch is sent");
    all(|r| &r.upper).print("  from the arrival of the status write");
}

/// A canary that stands at 5 % behind an eval suite that takes its time and a value that is read every 10 s.
fn release(plane: &Plane, i: usize) -> Value {
    let gate = |name: &str, path: String| {
        let web = json!({"url": format!("{}/{path}", plane.gates.url(i)), "jsonPath": "{$.value}", "timeout": "30m"});
        json!({"name": name, "threshold": {"interval": "10s", "successCondition": "result >= 0.92", "provider": {"web": web}}})
    };
    let gates = [gate("eval-pass-rate", format!("hold/agent-{i}")), gate("task-success", "pass".into())];
    json!({"steps": [{"setWeight": 5}, {"pause": {}}], "analysis": {"gates": gates}})
}

/// Milliseconds that this program waits for a write that nobody acts on: what the machine makes of one at the moment.
async fn plain_write(plane: &Plane, namespace: &str) -> Result<f64> {
    let api: Api<ConfigMap> = Api::namespaced(plane.client.clone(), namespace);
    let begin = Instant::now();
    let data = json!({"data": {"now": Timestamp::now().to_string()}});
    api.patch("plain", &PatchParams::default(), &Patch::Merge(data)).await?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}

async fn all_held(plane: &Plane, count: usize) -> Result<()> {
    wait_for("all eval suites to be asked", Duration::from_secs(300), || async {
        let waiting = plane.gates.waiting();
        Ok(if waiting == count { Seen::Yes(()) } else { Seen::NotYet(format!("{waiting} of {count}")) })
    })
    .await
}

/// Pairs the last status write of every run that failed with the next patch of its rollout's route.
async fn collect(plane: &Plane, fleet: &Fleet, since: Timestamp) -> Result<Latencies> {
    let mut into = Latencies::default();
    let runs: Api<VoiceAnalysisRun> = Api::namespaced(plane.client.clone(), &fleet.namespace);
    let runs = runs.list(&ListParams::default()).await?.items;
    let failed = runs.iter().filter(|r| r.status.as_ref().is_some_and(|s| s.phase == RunPhase::Fail));
    let rollout_of: HashMap<String, &str> = failed.map(|r| (r.name_any(), r.spec.rollout.as_str())).collect();
    let writes = audit::writes(&plane.audit_log, USER)?;
    let done = |w: &&Write| w.namespace == fleet.namespace && w.code < 300 && w.answered > since;
    let mut verdicts: HashMap<&str, &Write> = HashMap::new();
    for write in writes.iter().filter(done).filter(|w| w.what == "update voiceanalysisruns/status") {
        // A run is not written any more once it has failed: its last write holds the verdict.
        if let Some(rollout) = rollout_of.get(&write.name) {
            verdicts.insert(rollout, write);
        }
    }
    for (rollout, verdict) in &verdicts {
        let patches = writes.iter().filter(done).filter(|w| w.what == "patch virtualservices" && w.name == *rollout);
        let Some(patch) = patches.min_by_key(|w| w.answered) else { continue };
        into.total.push(between(verdict.answered, patch.answered));
        into.upper.push(between(verdict.received, patch.answered));
        into.operator.push(between(verdict.answered, patch.received));
    }
    if verdicts.len() != fleet.names.len() {
        eprintln!("{} verdicts of {} in the audit log", verdicts.len(), fleet.names.len());
    }
    Ok(into)
}
