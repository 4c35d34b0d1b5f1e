//! The plugin's verbs, typed as a user types them: the real kubectl finds the plugin and runs it against the real API server.

use std::time::Duration;

use serde_json::{Value, json};
use voicerollout::api::run::Verdict;
use voicerollout::api::status::Phase;
use voicerollout::api::{VoiceRollout, VoiceRolloutStatus};

use crate::agent::{Agent, NAME, Version};
use crate::env::AGENT_IMAGE;
use crate::people::{Person, Printed};
use crate::stack::Result;
use crate::{gates, run};

/// Exit codes as the README lists them.
const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const ABORTED: i32 = 3;
const UNFINISHED: i32 = 4;
const INVALID: i32 = 5;

async fn typed(person: &Person, words: &str) -> Result<Printed> {
    let words: Vec<&str> = std::iter::once("voicerollout").chain(words.split_whitespace()).collect();
    person.kubectl(&words, None).await
}

/// Runs a verb that has to end with this code; what it printed.
async fn ends(person: &Person, words: &str, code: i32) -> Result<String> {
    let printed = typed(person, words).await?;
    assert_eq!(printed.code, Some(code), "{words}: {printed:?}");
    Ok(printed.text)
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn a_release_is_begun_watched_explained_undone_and_restarted_with_kubectl() {
    run("verbs", async |mut agent| {
        agent.manifest["spec"]["rollbackWindow"] = json!({"revisions": 3});
        let first = agent.start(gates::by_hand(&[25])).await?.stable_revision.unwrap_or_default();
        let olga = Person::new(&agent, "olga", &["view", "command", "edit"]).await?;

        has(&ends(&olga, "get", DONE).await?, &["NAME", NAME, "Healthy"]);
        assert_eq!(ends(&olga, "get -o name", DONE).await?, format!("voicerollout.voicerollout.dev/{NAME}\n"));
        let object: Value = serde_json::from_str(&ends(&olga, &format!("get {NAME} -o json"), DONE).await?).unwrap();
        assert_eq!(object["status"]["stableRevision"], json!(first));
        has(&ends(&olga, &format!("history {NAME}"), DONE).await?, &["1 ", &first, "stable", &format!("{AGENT_IMAGE}:v1")]);
        ends(&olga, &format!("status {NAME} --exit-code"), DONE).await?;

        let image = format!("set image {NAME} agent={AGENT_IMAGE}:v2");
        let said = ends(&olga, &image, DONE).await?;
        has(&said, &[&format!("agent {AGENT_IMAGE}:v1 -> {AGENT_IMAGE}:v2"), "is released", "--watch"]);
        has(&ends(&olga, &image, DONE).await?, &["nothing was done"]);
        let second = agent.paused_at(25).await?.canary_revision.unwrap_or_default();
        has(&said, &[&second]);

        has(&ends(&olga, &format!("explain {NAME}"), DONE).await?, &["stands still at step 2/2", "25 % of new calls", "promote agent -n "]);
        ends(&olga, &format!("status {NAME}"), DONE).await?;
        ends(&olga, &format!("status {NAME} --exit-code"), UNFINISHED).await?;
        has(&ends(&olga, &format!("status {NAME} --watch --timeout 1s"), UNFINISHED).await?, &["is still under way after 1s", "explain"]);
        ends(&olga, &format!("promote {NAME} --yes"), DONE).await?;
        has(&ends(&olga, &format!("status {NAME} --watch --timeout 2m"), DONE).await?, &["Healthy"]);
        agent.promoted(&second).await?;
        has(&ends(&olga, &format!("history {NAME} --decisions"), DONE).await?, &["Promoted", &olga.user]);

        has(&ends(&olga, &format!("undo {NAME} --to-revision 99"), FAILED).await?, &["has no revision 99", &first]);
        has(&ends(&olga, &format!("undo {NAME}"), DONE).await?, &[&first, "the steps are skipped"]);
        // Exactly the template that was written: the revision is the same one, and no step is gone through.
        let status = agent.promoted(&first).await?;
        assert!(status.decisions.iter().any(|d| d.decision == "RollbackStarted" && d.revision == first), "{:?}", status.decisions);
        let spec = agent.ns.api::<VoiceRollout>().get(NAME).await?.spec;
        let written: Value = serde_json::to_value(&spec.template).unwrap();
        assert_eq!(written["spec"]["containers"][0]["image"], json!(format!("{AGENT_IMAGE}:v1")));
        assert_eq!(written["spec"]["dnsPolicy"], Value::Null, "without the API server's defaults");

        has(&ends(&olga, &format!("restart {NAME}"), DONE).await?, &["voicerollout.dev/restarted-at", "is released"]);
        agent.paused_at(25).await?;
        ends(&olga, &format!("abort {NAME} --reason enough"), DONE).await?;
        has(&ends(&olga, &format!("status {NAME} -w --timeout 2m"), ABORTED).await?, &["enough"]);
        has(&ends(&olga, &format!("explain {NAME}"), DONE).await?, &["was aborted", "enough", "retry agent -n "]);
        has(&ends(&olga, &format!("history {NAME}"), DONE).await?, &["aborted", "enough"]);
        has(&ends(&olga, &format!("undo {NAME}"), DONE).await?, &["it is the stable one"]);
        agent.promoted(&first).await?;

        agent.manifest["spec"]["minReadySeconds"] = json!(700);
        agent.apply().await?;
        ends(&olga, &format!("status {NAME} --watch --timeout 1m"), INVALID).await?;
        has(&ends(&olga, &format!("explain {NAME}"), DONE).await?, &["cannot be carried out", "spec.progressDeadline"]);
        Ok(())
    });
}

#[test]
fn a_person_skips_an_analysis_that_does_not_come_to_an_end() {
    run("skip", async |mut agent| {
        let mut judge = gates::judge(&agent);
        judge["onFail"] = json!("Pause");
        agent.gates(&[judge]).await?;
        agent.world.set_judge(&agent.model(), "unsure").await?;
        agent
            .start(json!([{"setWeight": 25}, {"analysis": {"templates": [{"name": "canary"}]}}, {"setWeight": 50}, {"pause": {}}]))
            .await?;
        let _traffic = agent.calls(20);
        let olga = Person::new(&agent, "olga", &["view", "command"]).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.wait("the judge to be unsure", |s| s.gates.iter().any(|g| g.verdict.is_none() && !g.message.is_empty())).await?;
        has(&ends(&olga, &format!("promote {NAME}"), FAILED).await?, &["is not a pause", "--skip-step"]);
        has(&ends(&olga, &format!("promote {NAME} --skip-step --reason hurry"), DONE).await?, &["step 2/4 was skipped"]);
        let status = agent.paused_at(50).await?;
        let record = status.decisions.iter().find(|d| d.decision == "Overridden").unwrap();
        assert!(record.by.as_deref() == Some(&olga.user), "{record:?}");
        has(&record.reason, &["without ai-judge (", "hurry"]);
        ends(&olga, &format!("promote {NAME}"), DONE).await?;
        agent.promoted(&second).await?;
        has(&ends(&olga, &format!("history {NAME} --decisions"), DONE).await?, &["every step passed but 2/4"]);

        // A gate that has failed is not skipped, nor is a release that was aborted.
        agent.world.set_judge(&agent.model(), "fail").await?;
        agent.release(&Version::good("v3")).await?;
        let fails = |s: &VoiceRolloutStatus| s.phase == Phase::Paused && s.gates.iter().any(|g| g.verdict == Some(Verdict::Fail));
        agent.wait("the judge to fail it", fails).await?;
        let skip = format!("promote {NAME} --skip-step");
        has(&ends(&olga, &skip, FAILED).await?, &["gate ai-judge failed", "does not override a failed gate"]);
        ends(&olga, &format!("abort {NAME}"), DONE).await?;
        agent.phase(Phase::Degraded).await?;
        has(&ends(&olga, &skip, FAILED).await?, &["was aborted"]);
        Ok(())
    });
}

#[test]
fn what_is_missing_is_said_rights_names_and_words() {
    run("missing", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let guest = Person::new(&agent, "guest", &["view"]).await?;
        let image = format!("set image {NAME} agent={AGENT_IMAGE}:v2");
        has(&ends(&guest, &image, FAILED).await?, &["cannot patch resource \"voicerollouts\"", "<release>-edit"]);
        has(
            &ends(&guest, &format!("abort {NAME}"), FAILED).await?,
            &["cannot create resource \"voicerolloutactions\"", "<release>-command"],
        );
        has(&ends(&guest, "get -A", FAILED).await?, &["cannot list resource \"voicerollouts\"", "<release>-view"]);
        has(&ends(&guest, "status agnet", FAILED).await?, &["there is no VoiceRollout agnet", "did you mean agent?"]);
        has(&ends(&guest, "status", USAGE).await?, &["Usage: kubectl voicerollout status"]);
        has(&ends(&guest, "version", DONE).await?, &["client ", "operator  not known"]);
        let nobody = Person::new(&agent, "nobody", &[]).await?;
        has(&ends(&nobody, &format!("explain {NAME}"), FAILED).await?, &["cannot get resource \"voicerollouts\"", "<release>-view"]);
        Ok(())
    });
}

#[test]
fn files_are_checked_and_planned_and_words_completed_through_kubectl() {
    run("files", async |agent: Agent| {
        let olga = Person::new(&agent, "olga", &["view"]).await?;
        let file = |name: &str| format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        let offline = async |words: &str| olga.without_cluster(&words.split_whitespace().collect::<Vec<_>>()).await;
        let clean = offline(&format!("voicerollout lint {}", file("examples/voice-agent.yaml"))).await?;
        assert!(clean.code == Some(DONE) && clean.text.contains("0 errors, 0 warnings"), "{clean:?}");
        let broken = offline(&format!("voicerollout lint {}", file("tests/lint/plan.yaml"))).await?;
        assert!(broken.code == Some(FAILED) && broken.text.contains("plan.yaml:12: error: "), "{broken:?}");
        let plan = offline(&format!("voicerollout plan {} --calls-per-minute 60", file("examples/comparison.yaml"))).await?;
        assert!(plan.code == Some(DONE) && plan.text.contains("CANARY CALLS TO PASS"), "{plan:?}");
        let script = offline("voicerollout completion bash").await?;
        assert!(script.code == Some(DONE) && script.text.contains("_voicerollout"), "{script:?}");

        // What kubectl itself runs when a user presses tab.
        let helper = offline("voicerollout completion kubectl").await?;
        olga.install("kubectl_complete-voicerollout", &helper.text)?;
        let words = offline("__complete voicerollout pro").await?;
        assert!(words.text.lines().any(|l| l.starts_with("promote")), "{words:?}");
        Ok(())
    });
}

#[test]
fn the_list_is_followed_as_it_changes() {
    run("list", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let olga = Person::new(&agent, "olga", &["view"]).await?;
        let mut lines = olga.lines(&["voicerollout", "get", "-w"]).await?;
        assert!(lines.until("Healthy", Duration::from_secs(60)).await?.contains(NAME));
        agent.release(&Version::good("v2")).await?;
        let paused = lines.until("Paused", Duration::from_secs(120)).await?;
        assert!(paused.contains("25 %"), "{paused}");
        Ok(())
    });
}
