//! Releases that a gate stops, or holds where they are.

use serde_json::json;
use voicerollout::api::run::{RunPhase, Verdict};
use voicerollout::api::status::{Phase, VoiceRolloutStatus};

use crate::agent::{Agent, PATIENCE, Version};
use crate::stack::{Part, Result, Seen, wait_for};
use crate::{gates, run, run_alone};

/// The release was aborted by this gate, all new calls go to the first version, and the record says so.
pub async fn aborted_by(agent: &Agent, gate: &str, words: &str) -> Result<VoiceRolloutStatus> {
    let status = agent.phase(Phase::Degraded).await?;
    let abort = status.abort.clone().expect("a record of the abort");
    assert_eq!(abort.gate.as_deref(), Some(gate), "{abort:?}");
    assert!(abort.reason.contains(gate) && abort.reason.contains(words), "{}", abort.reason);
    assert_eq!((agent.weight().await?, status.weights.applied), (0, 0));
    assert_eq!(status.decisions.iter().filter(|d| d.decision == "Aborted").count(), 1);
    let runs = agent.runs().await?;
    let phase = |run: &voicerollout::api::VoiceAnalysisRun| run.status.as_ref().map(|status| status.phase);
    assert!(runs.iter().any(|run| phase(run) == Some(RunPhase::Fail)), "{runs:?}");
    let stable = status.stable_revision.clone().unwrap();
    agent.all_calls_go_to(&stable).await?;
    let listed = agent.world.stack.kubectl(&["get", "vr", "-n", &agent.ns.name]).await?;
    assert!(listed.contains(gate), "kubectl get names the gate: {listed}");
    Ok(status)
}

#[test]
fn a_slow_first_token_aborts_a_release() {
    run("slow", async |mut agent| {
        agent.gates(&[gates::first_token(&agent)]).await?;
        agent.start(gates::gated(&[25, 50])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::slow("v2")).await?;
        let status = aborted_by(&agent, "p95-first-token", "at step 3/6, weight 25").await?;
        assert_eq!(log.so_far(), [0, 25, 0]);
        let value = status.gates[0].value.clone().unwrap_or_default();
        assert!(value.trim_matches(['[', ']']).parse::<f64>().is_ok_and(|ms| ms > 800.0), "p95 {value}");
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn a_low_eval_pass_rate_aborts_a_release() {
    run("evals", async |mut agent| {
        agent.gates(&[gates::evals(&agent)]).await?;
        agent.start(gates::gated(&[5, 50])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::failing_evals("v2")).await?;
        let status = aborted_by(&agent, "eval-pass-rate", "at step 3/6, weight 5").await?;
        assert_eq!(log.so_far(), [0, 5, 0]);
        assert_eq!(status.gates[0].value.as_deref(), Some("0.48"), "12 of 25 cases");
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn a_judge_that_says_fail_aborts_a_release() {
    run("judge-fail", async |mut agent| {
        agent.gates(&[gates::judge(&agent)]).await?;
        agent.world.set_judge(&agent.model(), "fail").await?;
        agent.start(gates::gated(&[25])).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::good("v2")).await?;
        aborted_by(&agent, "ai-judge", "FAIL").await?;
        assert_eq!(log.so_far(), [0, 25, 0]);
        assert_eq!(agent.world.judge_requests(&agent.model()).await?, 1, "one verdict, one request");
        Ok(())
    });
}

/// The judge sees values and logs of both versions, and of the logs no e-mail address and no number to call.
#[test]
fn a_judge_is_shown_both_versions_and_no_personal_data() {
    run("judge-logs", async |mut agent| {
        let mut gate = gates::judge(&agent);
        gate["judge"]["evidence"]["logs"] = json!({"container": "agent", "tailLines": 50});
        agent.gates(&[gate]).await?;
        let first = agent.start(gates::gated(&[25])).await?.stable_revision.unwrap();
        let _traffic = agent.calls(20);
        let talkative = Version::good("v2").with("AGENT_LOG_LINE", "could not book for jane.doe@example.com, +1 415 555 0100");
        let second = agent.release(&talkative).await?;
        agent.promoted(&second).await?;
        let question = agent.world.judge_question(&agent.model()).await?;
        for words in ["\\\"A\\\":", "\\\"B\\\":", "p95 first token", "could not book for [email]"] {
            assert!(question.contains(words), "{words:?} is not in {question}");
        }
        for words in [first.as_str(), &second, "jane.doe", "555 0100", crate::env::JUDGE_KEY] {
            assert!(!question.contains(words), "{words:?} is in {question}");
        }
        Ok(())
    });
}

/// A judge that does not answer as asked holds the release where it is; once it says PASS the release goes on.
fn a_judge_that_fails_holds(prefix: &str, behaviour: &str, words: &str) {
    run(prefix, async |mut agent| {
        let mut gate = gates::judge(&agent);
        gate["errorBudget"] = json!("2s");
        gate["judge"]["timeout"] = json!("1s");
        agent.gates(&[gate]).await?;
        agent.world.set_judge(&agent.model(), behaviour).await?;
        agent.start(gates::gated(&[25])).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(20));
        let second = agent.release(&Version::good("v2")).await?;
        let holds =
            |s: &VoiceRolloutStatus| s.phase == Phase::Paused && s.waiting_for.contains("ai-judge") && s.waiting_for.contains(words);
        let held = agent.wait(&format!("a pause because of the judge: {words}"), holds).await?;
        assert_eq!((held.gates[0].verdict, held.weights.applied), (Some(Verdict::Error), 25), "{:?}", held.gates);
        wait_for("the judge to be asked again", PATIENCE, || async {
            let requests = agent.world.judge_requests(&agent.model()).await?;
            Ok(if requests > 1 { Seen::Yes(()) } else { Seen::NotYet(format!("{requests} requests")) })
        })
        .await?;
        assert_eq!(log.so_far(), [0, 25]);

        agent.world.set_judge(&agent.model(), "pass").await?;
        agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 25, 100, 0]);
        Ok(())
    });
}

#[test]
fn a_judge_that_answers_nonsense_holds_a_release() {
    a_judge_that_fails_holds("judge-nonsense", "nonsense", "");
}

#[test]
fn a_judge_that_refuses_holds_a_release() {
    a_judge_that_fails_holds("judge-refuses", "refuse", "refus");
}

#[test]
fn a_judge_that_is_overloaded_holds_a_release() {
    a_judge_that_fails_holds("judge-529", "529", "529");
}

#[test]
fn a_judge_that_does_not_answer_in_time_holds_a_release() {
    a_judge_that_fails_holds("judge-hangs", "hang", "");
}

#[test]
fn an_outage_of_prometheus_holds_a_release_until_it_is_back() {
    run_alone("outage", async |mut agent| {
        let mut gate = gates::first_token(&agent);
        gate["errorBudget"] = json!("2s");
        agent.gates(&[gate]).await?;
        agent.start(gates::gated(&[50])).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(20));
        let prometheus = agent.world.stack.part(Part::Prometheus);
        prometheus.stop().await;
        let second = agent.release(&Version::good("v2")).await?;
        let held = agent.paused_at(50).await;
        prometheus.start().await?;
        let held = held?;
        assert_eq!(held.gates[0].verdict, Some(Verdict::Error), "{:?}", held.gates);
        assert_eq!(log.so_far(), [0, 50]);
        agent.promoted(&second).await?;
        Ok(())
    });
}

#[test]
fn a_background_gate_aborts_in_the_middle_of_a_pause() {
    run("background", async |mut agent| {
        agent.manifest["spec"]["analysis"] = json!({"gates": [{
            "name": "p95-first-token",
            "threshold": {"interval": "1s", "successCondition": "result[0] <= 800", "provider": gates::prometheus(&agent)},
        }]});
        agent.start(gates::by_hand(&[50])).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::slow("v2")).await?;
        aborted_by(&agent, "p95-first-token", "at step 2/2, weight 50").await?;
        assert_eq!(log.so_far(), [0, 50, 0]);
        Ok(())
    });
}
