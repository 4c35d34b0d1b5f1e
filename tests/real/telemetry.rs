//! A bad release as alerts, verbs, traces and log lines show it.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::agent::{NAME, PATIENCE, Version};
use crate::env::OPERATOR;
use crate::env::collector::text;
use crate::people::Person;
use crate::stack::{Seen, wait_for};
use crate::verdicts::aborted_by;
use crate::{gates, run};

#[test]
fn a_bad_release_is_one_trace_with_the_gate_that_failed_and_log_lines_say_what_they_are_about() {
    run("telemetry", async |mut agent| {
        agent.gates(&[gates::first_token(&agent)]).await?;
        agent.start(gates::gated(&[25, 50])).await?;
        let _traffic = agent.calls(20);
        let second = agent.release(&Version::slow("v2")).await?;
        let status = aborted_by(&agent, "p95-first-token", "at step 3/6, weight 25").await?;
        let (collector, namespace) = (&agent.world.collector, agent.ns.name.clone());
        let root =
            |spans: &[Span]| spans.iter().find(|s| s.parent_span_id.is_empty() && text(s, "voicerollout.revision") == second).cloned();
        let (spans, root) = wait_for("the root of the trace", PATIENCE, || async {
            let spans = collector.of(&namespace);
            Ok(match root(&spans) {
                Some(root) => Seen::Yes((spans, root)),
                None => Seen::NotYet(format!("{} spans", spans.len())),
            })
        })
        .await?;
        let reason = status.abort.expect("an abort").reason;
        assert_eq!(root.status.as_ref().map(|s| s.message.as_str()), Some(reason.as_str()));
        let trace: Vec<&Span> = spans.iter().filter(|s| s.trace_id == root.trace_id).collect();
        let parent = |span: &Span| trace.iter().find(|s| s.span_id == span.parent_span_id).copied().cloned();
        let gate = trace.iter().find(|s| s.name == "gate").expect("a gate");
        let run = parent(gate).expect("its run");
        let step = parent(&run).expect("its step");
        assert_eq!((text(gate, "voicerollout.gate"), text(gate, "voicerollout.verdict")), ("p95-first-token", "Fail"));
        assert_eq!((step.name.as_str(), text(&step, "voicerollout.step")), ("analysis", "3/6"));
        assert_eq!(parent(&step).map(|s| s.span_id), Some(root.span_id.clone()));
        let decisions: Vec<&str> = root.events.iter().map(|e| e.name.as_str()).collect();
        assert_eq!((decisions.first(), decisions.last()), (Some(&"ReleaseStarted"), Some(&"Aborted")));

        let logs = agent.world.stack.kubectl(&["logs", "-n", OPERATOR, &agent.world.leader().await?]).await?;
        let lines = logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        let told: Vec<Value> = lines.filter(|l| l["namespace"] == json!(namespace) && l["reason"] == "Aborted").collect();
        let [line] = &told[..] else { panic!("{told:#?}") };
        let fields = ["level", "rollout", "revision", "step", "message"].map(|f| line[f].as_str().unwrap_or_default());
        assert_eq!(fields, ["INFO", NAME, &second, "3/6", &reason], "{line}");
        Ok(())
    });
}

#[test]
fn a_person_goes_from_the_alert_to_the_measurement_that_failed() {
    run("alert", async |mut agent| {
        agent.gates(&[gates::first_token(&agent)]).await?;
        agent.start(gates::gated(&[25, 50])).await?;
        let _traffic = agent.calls(20);
        let second = agent.release(&Version::slow("v2")).await?;
        let status = aborted_by(&agent, "p95-first-token", "at step 3/6, weight 25").await?;
        let (stack, namespace) = (agent.world.stack, agent.ns.name.clone());
        let alert = wait_for("the alert", PATIENCE, || async {
            let alerts = stack.alerts().await?;
            let mine = |a: &&Value| a["labels"]["alertname"] == "VoiceRolloutAborted" && a["labels"]["namespace"] == namespace.as_str();
            Ok(match alerts.iter().find(mine) {
                Some(alert) => Seen::Yes(alert.clone()),
                None => Seen::NotYet(format!("{alerts:?}")),
            })
        })
        .await?;
        let said = alert["annotations"]["description"].as_str().unwrap_or_default();
        let (_, command) = said.split_once("kubectl ").unwrap_or_else(|| panic!("no command in {alert}"));
        let olga = Person::new(&agent, "olga", &["view"]).await?;
        let explained = olga.without_cluster(&command.split_whitespace().collect::<Vec<_>>()).await?;
        let reason = status.abort.expect("an abort").reason;
        let unbroken = explained.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explained.ok && unbroken.contains(&reason) && unbroken.contains("retry agent -n "), "{explained:?}");
        let runs = olga.kubectl(&["get", "voiceanalysisruns", "-o", "json"], None).await?;
        let runs: Value = serde_json::from_str(&runs.text).unwrap_or_else(|e| panic!("{e}: {runs:?}"));
        let failed = |run: &&Value| run["spec"]["revision"] == second.as_str() && run["status"]["phase"] == "Fail";
        let run = runs["items"].as_array().and_then(|all| all.iter().find(failed)).unwrap_or_else(|| panic!("{runs}"));
        let measured = &run["status"]["gates"][0]["measurements"];
        assert_eq!(measured.as_array().and_then(|m| m.last()).map(|m| &m["verdict"]), Some(&json!("Fail")), "{run}");
        assert!(unbroken.contains(run["metadata"]["name"].as_str().unwrap_or("no name")), "{}", explained.text);
        Ok(())
    });
}
