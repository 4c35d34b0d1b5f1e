//! Releases: promoted, aborted, held.

use serde_json::json;
use voicerollout::api::status::Phase;
use voicerollout::sources::{Progress, SourceError};

use crate::cluster::script::{Script, good, judged};
use crate::cluster::{self, Cluster, deployed};
use voicerollout::api::judge::Vote;

#[tokio::test(start_paused = true)]
async fn a_release_without_gates_reaches_every_caller() {
    let cluster = Cluster::start().await;
    cluster.apply(cluster::AGENT).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await;
    assert_eq!(first.stable_revision, first.canary_revision);
    cluster.set_image("agent", "agent:v2").await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first.stable_revision).await;
    assert_eq!(done.stable_revision, done.canary_revision);
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
    let decisions: Vec<&str> = done.decisions.iter().map(|d| d.decision.as_str()).collect();
    assert_eq!(
        decisions,
        ["FirstDeployment", "FirstDeployed", "ReleaseStarted", "WeightApplied", "WeightApplied", "StepsPassed", "Promoted"]
    );
    // Numbers of pods may be written late, and are right when nothing moves any more.
    tokio::time::sleep(std::time::Duration::from_secs(2 * 3600)).await;
    let rest = cluster.status("agent").await;
    let pods = |hash: &Option<String>| rest.revisions.iter().find(|r| Some(&r.hash) == hash.as_ref()).map(|r| (r.replicas, r.ready));
    assert_eq!((pods(&done.stable_revision), pods(&first.stable_revision)), (Some((4, 4)), Some((0, 0))));
}

#[tokio::test(start_paused = true)]
async fn a_good_release_is_promoted_behind_three_gates_within_eighty_writes() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    cluster.server.clear_journal();
    let first = cluster.status("agent").await.stable_revision;
    cluster.set_image("agent", "agent:v2").await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    assert_eq!(done.weights.applied, 0);
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
    assert!(cluster.world.calls().values().all(|c| c.cut == 0), "{:?}", cluster.world.calls());
    let writes = cluster.server.count_writes("operator");
    let list: Vec<String> =
        cluster.server.requests_where(|r| &*r.user == "operator" && r.verb.is_write()).iter().map(|r| r.summary()).collect();
    assert!(writes <= 80, "{writes} writes: {list:#?}");
    assert!(script.starts().values().all(|n| *n == 1));
    assert_eq!(script.starts().len(), 9, "three gates at three steps");
}

#[tokio::test(start_paused = true)]
async fn a_slow_version_is_out_of_traffic_within_a_second_and_the_status_says_why() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    let first = cluster.status("agent").await.stable_revision;
    script.say(|r| if r.gate.name == "p95-first-token" { Ok(Progress::Value(json!(1234.5))) } else { good(r) });
    cluster.set_image("agent", "agent:v2").await;
    let done = cluster.wait_phase("agent", Phase::Degraded).await;
    let abort = done.abort.expect("an abort");
    assert_eq!((abort.gate.as_deref(), abort.step.as_str(), abort.weight), (Some("p95-first-token"), "3/10", 5));
    assert!(done.waiting_for.contains("1234.5") && done.waiting_for.contains("result[0] <= 800"), "{}", done.waiting_for);
    assert_eq!((done.stable_revision, done.weights.applied), (first, 0));
    let failed = cluster
        .server
        .requests_where(|r| r.resource == "voiceanalysisruns" && r.subresource == "status" && r.json()["status"]["phase"] == "Fail");
    let lowered = cluster.server.requests_where(|r| r.resource == "virtualservices" && r.verb == voicerollout::sim::Verb::Patch);
    let (failed, lowered) = (failed.first().expect("a verdict").at, lowered.last().expect("a patch").at);
    assert!(lowered.duration_since(failed).as_millis() <= 1000, "{failed} {lowered}");
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_fails_the_canary_aborts_with_its_sentence() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    script.say(|r| if r.gate.name == "ai-judge" { Ok(judged(Vote::Fail, "tool calls rose by 30 %")) } else { good(r) });
    cluster.set_image("agent", "agent:v2").await;
    let done = cluster.wait_phase("agent", Phase::Degraded).await;
    assert!(done.message.contains("tool calls rose by 30 %"), "{}", done.message);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_holds_the_weight_and_recovers() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    let first = cluster.status("agent").await.stable_revision;
    script.say(|r| if r.gate.name == "p95-first-token" { Err(SourceError::new("connection refused")) } else { good(r) });
    cluster.set_image("agent", "agent:v2").await;
    let held = cluster.wait_phase("agent", Phase::Paused).await;
    assert_eq!((held.weights.applied, held.step_display.as_str()), (5, "3/10"));
    assert!(held.waiting_for.contains("connection refused"), "{}", held.waiting_for);
    script.say(good);
    cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
}

#[tokio::test(start_paused = true)]
async fn no_data_and_an_unsure_judge_are_never_a_pass() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    for gate in ["eval-pass-rate", "p95-first-token", "ai-judge"] {
        script.say(move |r| match (r.gate.name == gate, gate) {
            (false, _) => good(r),
            (true, "ai-judge") => Ok(judged(Vote::Unsure, "too little to go by")),
            (true, _) => Ok(Progress::NoData("the query found no series".into())),
        });
        cluster.set_image("agent", &format!("agent:{gate}")).await;
        let held = cluster.wait_phase("agent", Phase::Paused).await;
        assert_eq!((held.weights.applied, held.step_display.as_str()), (5, "3/10"), "{gate}");
        assert!(held.waiting_for.starts_with(gate), "{}", held.waiting_for);
        cluster.set_image("agent", "agent:v1").await;
        cluster.wait_phase("agent", Phase::Healthy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn people_abort_and_retry_and_the_record_names_them() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    let first = cluster.status("agent").await.stable_revision;
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "at 25 %", |s| s.weights.applied == 25).await;
    let abort = cluster.act("agent", "abort").await;
    let aborted = cluster.wait_phase("agent", Phase::Degraded).await;
    assert_eq!((aborted.weights.applied, aborted.stable_revision.clone()), (0, first.clone()));
    assert_eq!(aborted.abort.and_then(|a| a.by).as_deref(), Some("ada"));
    let marked = cluster.action(&abort).await;
    assert_eq!(marked.state, Some(voicerollout::api::action::ActionState::Applied));

    cluster.act("agent", "retry").await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    assert_eq!(done.attempt, 2);
    let refused = cluster.act("agent", "retry").await;
    let marked = cluster.wait_action(&refused).await;
    assert_eq!(marked.state, Some(voicerollout::api::action::ActionState::Refused));
    assert!(marked.message.contains("nothing was aborted"), "{}", marked.message);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_gone_does_not_keep_the_others_on_an_aborted_canary() {
    let cluster = Cluster::start().await;
    let second = "    - name: backup\n      route:\n        - {destination: {host: agent-stable}, weight: 100}\n        - {destination: {host: agent-canary}, weight: 0}\n---\napiVersion: voicerollout.dev/v1alpha1\nkind: VoiceRollout";
    let manifests = cluster::GATES.replace("---\napiVersion: voicerollout.dev/v1alpha1\nkind: VoiceRollout", second);
    cluster.apply(&manifests.replace("routes: [primary]", "routes: [primary, backup]")).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "at 25 %", |s| s.weights.applied == 25).await;
    cluster.patch_route("agent", json!([{"op": "remove", "path": "/spec/http/1"}])).await;
    cluster.wait("agent", "told of it", |s| s.waiting_for.contains("backup") || s.message.contains("backup")).await;
    cluster.act("agent", "abort").await;
    let done = cluster.wait("agent", "reverted", |s| s.abort.is_some() && s.weights.applied == 0).await;
    let weights = cluster.server.peek("virtualservices", "voice", "agent").expect("there")["spec"]["http"][0]["route"].clone();
    assert_eq!((&weights[0]["weight"], &weights[1]["weight"]), (&json!(100), &json!(0)), "{}", done.message);
}
