//! From the recorded verdict to the last new call on the canary, at the callers, through istiod and Envoy; and beside it
//! the same from a patch of the weight by hand.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use voicerollout::api::run::RunPhase;
use voicerollout::api::status::Phase;
use voicerollout::operator::routes::virtual_service;

use crate::agent::{Agent, PATIENCE, Version};
use crate::audit::{self, between};
use crate::env::{OPERATOR_USER, World};
use crate::figures::Times;
use crate::gates;
use crate::stack::{Error, HttpCaller, Result, Seen, Stack, wait_for};

/// Aborts, and patches by hand.
const ROUNDS: usize = 12;
/// Calls a second.
const CALLS: u32 = 200;
/// No call on the canary for so long: there comes none any more.
const QUIET: Duration = Duration::from_secs(3);
/// Tags of the agent's image.
const TAGS: [&str; 2] = ["v2", "v3"];

/// Calls at a steady rate: when each was begun, and which revision took it.
struct Callers {
    taken: Arc<Mutex<Vec<(Timestamp, String)>>>,
    _task: JoinSet<()>,
}

impl Callers {
    fn start(caller: HttpCaller) -> Self {
        let taken: Arc<Mutex<Vec<(Timestamp, String)>>> = Arc::default();
        let (noted, mut task) = (taken.clone(), JoinSet::new());
        task.spawn(async move {
            let mut calls = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS);
            loop {
                ticks.tick().await;
                let (caller, noted) = (caller.clone(), noted.clone());
                calls.spawn(async move {
                    let begun = Timestamp::now();
                    if let Ok(revision) = caller.call().await {
                        noted.lock().push((begun, revision));
                    }
                });
                while calls.try_join_next().is_some() {}
            }
        });
        Self { taken, _task: task }
    }

    /// When the last call began that `revision` took, once none has come for [`QUIET`].
    async fn last_of(&self, revision: &str) -> Result<Timestamp> {
        wait_for("the last call on the canary", PATIENCE, || async {
            let last = self.taken.lock().iter().filter(|(_, r)| r == revision).map(|(at, _)| *at).max();
            let last = last.ok_or_else(|| Error::other("it had no call"))?;
            let quiet = Timestamp::now().duration_since(last).unsigned_abs() >= QUIET;
            Ok(if quiet { Seen::Yes(last) } else { Seen::NotYet(last.to_string()) })
        })
        .await
    }

    async fn some_on(&self, revision: &str) -> Result<()> {
        wait_for("calls on the canary", PATIENCE, || async {
            let n = self.taken.lock().iter().filter(|(_, r)| r == revision).count();
            Ok(if n > 20 { Seen::Yes(()) } else { Seen::NotYet(n.to_string()) })
        })
        .await
    }
}

/// Prints the figures.
pub async fn run() -> Result<()> {
    println!("\nverdict recorded -> no new call on the canary, at callers through istiod and Envoy; {ROUNDS} aborts at 50 %");
    println!("  {CALLS} calls a second, so that 5 ms is the finest step; beside it the same from a patch of the weight by hand");
    let stack = Stack::start().await?;
    let mut agent = Agent::new(World::get(stack).await?, "callers").await?;
    agent.manifest["spec"]["drain"] = json!({"maxDrain": "1s", "zeroFor": "1s"});
    aborts(&mut agent).await?;
    by_hand(&mut agent).await
}

async fn aborts(agent: &mut Agent) -> Result<()> {
    agent.gates(&[gates::evals(agent)]).await?;
    agent.start(gates::gated(&[50])).await?;
    let (mut patched, mut quiet, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let since = Timestamp::now();
        let version = Version::failing_evals(TAGS[round % TAGS.len()]).with("AGENT_SEED", &round.to_string());
        let callers = Callers::start(agent.caller());
        let revision = agent.release(&version).await?;
        agent.phase(Phase::Degraded).await?;
        let last = callers.last_of(&revision).await?;
        let (verdict, patch) = verdict_and_patch(agent, &revision, since).await?;
        patched.push(between(verdict, patch));
        quiet.push(between(patch, last));
        total.push(between(verdict, last));
    }
    Times::new(total).print("verdict -> last call on the canary");
    Times::new(patched).print("  of it verdict -> weights patched");
    Times::new(quiet).print("  of it weights patched -> last call");
    Ok(())
}

/// When the failing run's verdict and the weights were answered.
async fn verdict_and_patch(agent: &Agent, revision: &str, since: Timestamp) -> Result<(Timestamp, Timestamp)> {
    let runs = agent.runs().await?;
    let failed = runs.iter().find(|r| r.spec.revision == revision && r.status.as_ref().is_some_and(|s| s.phase == RunPhase::Fail));
    let name = failed.and_then(|r| r.metadata.name.clone()).ok_or_else(|| Error::other("no run has failed"))?;
    let writes = audit::writes(agent.world.stack.audit_log(), OPERATOR_USER)?;
    let ours = || writes.iter().filter(|w| w.namespace == agent.ns.name && w.code < 300 && w.answered > since);
    // A run is not written any more once it has failed: its last write holds the verdict.
    let verdict = ours().filter(|w| w.what == "update voiceanalysisruns/status" && w.name == name).map(|w| w.answered).max();
    let verdict = verdict.ok_or_else(|| Error::other("the verdict is not in the audit log"))?;
    let patches = ours().filter(|w| w.what == "patch virtualservices" && w.received > verdict);
    let patch = patches.map(|w| w.answered).min().ok_or_else(|| Error::other("the patch is not in the audit log"))?;
    Ok((verdict, patch))
}

/// A route of the same Services that nobody manages.
async fn by_hand(agent: &mut Agent) -> Result<()> {
    agent.manifest["spec"]["steps"] = gates::by_hand(&[50]);
    let revision = agent.release(&Version::good("v4")).await?;
    agent.paused_at(50).await?;
    let host = format!("by-hand.{}", agent.ns.host());
    let mut route = agent.route();
    route["metadata"]["name"] = json!("by-hand");
    route["spec"]["hosts"] = json!([host]);
    agent.ns.apply(&route.to_string()).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(agent.world.stack.client(), &agent.ns.name, &virtual_service());
    let set = async |stable: u8| {
        let weight = |i: u8, n: u8| json!({"op": "replace", "path": format!("/spec/http/1/route/{i}/weight"), "value": n});
        let patch: json_patch::Patch = serde_json::from_value(json!([weight(0, stable), weight(1, 100 - stable)])).unwrap_or_default();
        api.patch("by-hand", &PatchParams::default(), &Patch::Json::<()>(patch)).await
    };
    let mut quiet = Vec::new();
    for _ in 0..ROUNDS {
        set(50).await?;
        let callers = Callers::start(HttpCaller::new(&host, "/call"));
        callers.some_on(&revision).await?;
        set(100).await?;
        let patched = Timestamp::now();
        quiet.push(between(patched, callers.last_of(&revision).await?));
    }
    Times::new(quiet).print("by hand: weights patched -> last call");
    Ok(())
}
