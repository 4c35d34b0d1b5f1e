//! Mistakes that the API server cannot see: the resource says what is wrong and where, and its weights stay where they are.

use serde_json::{Value, json};
use voicerollout::api::conditions::INVALID_SPEC;
use voicerollout::api::run::Verdict;
use voicerollout::api::status::{Phase, VoiceRolloutStatus};

use crate::agent::{Agent, Version};
use crate::people::command;
use crate::stack::Result;
use crate::{gates, run};

/// What the condition `InvalidSpec` says.
fn complaint(status: &VoiceRolloutStatus) -> String {
    let condition = status.conditions.iter().find(|c| c.type_ == INVALID_SPEC && c.status == "True");
    condition.map(|c| c.message.clone()).unwrap_or_default()
}

/// An eval gate with one field of its `threshold` replaced.
fn evals_with(agent: &Agent, pointer: &str, value: Value) -> Value {
    let mut gate = gates::evals(agent);
    *gate.pointer_mut(&format!("/threshold{pointer}")).unwrap_or_else(|| panic!("no {pointer}")) = value;
    gate
}

#[test]
fn mistakes_in_a_spec_are_told_with_their_place_and_nothing_moves() {
    run("invalid", async |mut agent| {
        let steps = json!([{"setWeight": 25}, {"pause": {}}, {"analysis": {"templates": [{"name": "canary"}]}}]);
        agent.start(steps).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        let log = agent.weight_log().await?;
        let needs = json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisTemplate", "metadata": {"name": "needs"},
            "spec": {"args": [{"name": "suite"}], "gates": [gates::evals(&agent)]},
        });
        agent.ns.apply(&needs.to_string()).await?;

        let inline = |gate: Value| json!({"gates": [gate]});
        let eval = |pointer: &str, value: Value| inline(evals_with(&agent, pointer, value));
        let mut dry = gates::evals(&agent);
        dry["mode"] = json!("dryRun");
        let mut prometheus = gates::first_token(&agent);
        prometheus["threshold"]["provider"]["prometheus"]["query"] = json!("rate(calls[5m]");
        let url = "/provider/web/url";
        let gate = "spec.steps[2].analysis.gates[0].threshold";
        let condition = format!("{gate}.successCondition: ");
        let cases = [
            (eval("/successCondition", json!("result >=")), vec![condition.as_str()]),
            (eval("/successCondition", json!("reslt >= 0.92")), vec![&condition, "reslt"]),
            (eval("/provider/web/jsonPath", json!("{$.[")), vec!["provider.web.jsonPath: "]),
            (eval(url, json!("ftp://evals.test/")), vec!["provider.web.url: the URL has to begin with http"]),
            (eval(url, json!("http://{{args.weight}}/")), vec!["provider.web.url: argument `weight` cannot stand"]),
            (eval(url, json!("http://evals.test/{{args.nope}}")), vec!["provider.web.url: argument `nope` is not known here"]),
            (inline(prometheus), vec!["prometheus.query: not a valid PromQL query"]),
            (inline(dry), vec!["spec.steps[2].analysis: no gate has mode enforce"]),
            (json!({"templates": [{"name": "nope"}]}), vec!["spec.steps[2].analysis.templates[0]: there is no ", "nope"]),
            (json!({"templates": [{"name": "needs"}]}), vec!["the argument `suite` of ", "`needs` was never given"]),
            (json!({"require": ["nope"]}), vec!["spec.steps[2].analysis.require[0]: no background gate is called nope"]),
            // Two at once: both are told.
            (
                json!({"templates": [{"name": "nope"}], "gates": [evals_with(&agent, "/successCondition", json!("result >="))]}),
                vec!["analysis.templates[0]: there is no ", &condition],
            ),
        ];
        let mut wrong = Vec::new();
        for (analysis, words) in cases {
            agent.manifest["spec"]["steps"][2] = json!({"analysis": analysis});
            let status = agent.apply().await?;
            let told = complaint(&status);
            if status.phase != Phase::Invalid || !words.iter().all(|word| told.contains(word)) {
                wrong.push(format!("{analysis}: expected {words:?} in {told:?}, phase {:?}", status.phase));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(log.so_far(), [25], "the weight stays where it was");

        agent.manifest["spec"]["steps"] = gates::by_hand(&[25]);
        agent.apply().await?;
        agent.paused_at(25).await?;
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        Ok(())
    });
}

#[test]
fn mistakes_that_only_a_measurement_shows_hold_a_release() {
    run("unmeasured", async |mut agent| {
        let named = |name: &str, mut gate: Value| {
            gate["name"] = json!(name);
            gate
        };
        let mut no_key = gates::judge(&agent);
        no_key["judge"]["anthropic"]["apiKey"]["key"] = json!("nope");
        let eval = |pointer: &str, value: Value| evals_with(&agent, pointer, value);
        let mistakes = [
            ("finds-nothing", eval("/provider/web/jsonPath", json!("{$.nope}")), "jsonPath \"{$.nope}\" finds nothing"),
            ("is-no-number", eval("/provider/web/jsonPath", json!("{$.suite}")), "voice"),
            ("is-refused", eval("/provider/web/url", json!("http://169.254.169.254/latest")), "which measurements may not reach"),
            ("is-not-there", eval("/provider/web/url", json!(format!("{}/nope", agent.world.evals))), "404"),
            ("has-no-key", no_key, "nope"),
        ];
        let all: Vec<Value> = mistakes.iter().map(|(name, gate, _)| named(name, gate.clone())).collect();
        agent.gates(&all).await?;
        agent.start(gates::gated(&[25])).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::good("v2")).await?;
        let told = |s: &VoiceRolloutStatus| {
            mistakes.iter().all(|(name, _, words)| s.gates.iter().any(|g| g.name == *name && g.message.contains(words)))
        };
        let status = agent.wait("every gate to say what is wrong", told).await?;
        assert!(status.gates.iter().all(|gate| gate.verdict.is_none_or(|v| v == Verdict::Error)), "{:?}", status.gates);
        assert_eq!(log.so_far(), [0, 25]);
        Ok(())
    });
}
