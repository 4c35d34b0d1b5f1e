//! Manifests that the API server refuses, each with what the person is told.

use serde_json::{Value, json};

use crate::agent::{Agent, rollout};
use crate::stack::Result;
use crate::{gates, run};

/// A mistake: what is set where (`null` takes it out), and what the refusal says.
type Mistake<'a> = (&'a str, Value, &'a str);

fn with(mut manifest: Value, path: &str, value: &Value) -> Value {
    let (parent, last) = path.rsplit_once('/').unwrap();
    let parent = manifest.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(last)),
        (Value::Object(map), value) => drop(map.insert(last.into(), value.clone())),
        (Value::Array(items), value) => items[last.parse::<usize>().unwrap()] = value.clone(),
        (other, _) => panic!("{other} has no fields"),
    }
    manifest
}

async fn all_refused(agent: &Agent, good: &Value, mistakes: &[Mistake<'_>]) -> Result<()> {
    let mut wrong = Vec::new();
    for (path, value, words) in mistakes {
        match agent.ns.apply(&with(good.clone(), path, value).to_string()).await {
            Ok(_) => wrong.push(format!("{path} = {value} was accepted")),
            Err(error) if error.to_string().contains(words) => {}
            Err(error) => wrong.push(format!("{path} = {value}: expected {words:?} in: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    agent.ns.apply(&good.to_string()).await.map(|_| ())
}

#[test]
fn a_wrong_rollout_is_refused_at_admission() {
    run("bad-rollouts", async |agent| {
        let mut good = rollout("good", "agent-stable", "agent-canary");
        good["spec"]["steps"] = json!([{"setWeight": 5}, {"pause": {"duration": "1s"}}]);
        let gate = gates::first_token(&agent);
        all_refused(
            &agent,
            &good,
            &[
                ("/spec/setWeights", json!([5]), "setWeights"),
                ("/spec/steps/0", json!({"setWeight": 101}), "100"),
                ("/spec/steps/0", json!({"setWeight": -1}), "greater than or equal to 0"),
                ("/spec/steps/0", json!({"setWeight": "5"}), "expected numeric"),
                ("/spec/steps/0", json!({"setWeight": 5, "pause": {}}), "a step is exactly one of"),
                ("/spec/steps/0", json!({}), "a step is exactly one of"),
                ("/spec/steps/0", json!({"setCanaryScale": {"replicas": 1, "weight": 5}}), "setCanaryScale is exactly one of"),
                ("/spec/steps/1", json!({"pause": {"duration": "5"}}), "should match"),
                ("/spec/steps/1", json!({"pause": {"duration": "-1m"}}), "should match"),
                ("/spec/steps", json!([]), "should have at least 1 items"),
                ("/spec/steps", Value::Null, "without steps the weights go 5, 25, 50, 100"),
                ("/spec/replicas", json!(-1), "greater than or equal to 0"),
                ("/spec/progressDeadline", json!("ten minutes"), "should match"),
                ("/spec/drain/maxDrain", json!("1d"), "should match"),
                ("/spec/traffic", Value::Null, "Required"),
                ("/spec/traffic", json!({}), "set exactly one of istio"),
                ("/spec/traffic/replicas", json!({}), "set exactly one of istio"),
                ("/spec/traffic/istio/canaryService", json!("agent-stable"), "must be two Services"),
                ("/spec/traffic/istio/canaryService", Value::Null, "set stableService and canaryService, or destinationRule"),
                ("/spec/traffic/istio/virtualServices", json!([]), "should have at least 1 items"),
                ("/spec/traffic/istio/virtualServices/0", json!({"routes": ["calls"]}), "Required"),
                ("/spec/rollbackWindow", json!({"revisions": 0}), "greater than or equal to 1"),
                ("/spec/onProgressDeadline", json!("Panic"), "supported values"),
                ("/spec/template/spec/containers/0/image", json!(7), "expected string"),
                ("/spec/analysis", json!({"gates": [with(gate.clone(), "/judge", &json!({"prompt": "x"}))]}), "a gate is exactly one of"),
            ],
        )
        .await?;
        // Of what exists the selector cannot be changed.
        let other = with(good, "/spec/selector", &json!({"matchLabels": {"app": "other"}}));
        let refused = agent.ns.apply(&other.to_string()).await.expect_err("the selector was changed");
        assert!(refused.to_string().contains("selector is immutable"), "{refused}");
        Ok(())
    });
}

#[test]
fn a_wrong_gate_is_refused_at_admission() {
    run("bad-gates", async |agent| {
        let template = |gate: Value| json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisTemplate", "metadata": {"name": "t"}, "spec": {"gates": [gate]}});
        let bearer = json!({"bearer": {"name": "a", "key": "b"}, "basic": {"username": {"name": "a", "key": "b"}, "password": {"name": "a", "key": "b"}}});
        let web = json!({"url": "http://evals.test/"});
        let doubled = |other: &Value| json!({"web": other, "prometheus": {"address": "http://p.test", "query": "up"}});
        let of = "/spec/gates/0";
        let at = |path: &str| format!("{of}{path}");
        let (name, threshold, provider) = (at("/name"), at("/threshold"), at("/threshold/provider"));
        let (success, count, interval) = (at("/threshold/successCondition"), at("/threshold/count"), at("/threshold/interval"));
        let (auth, timeout, json_path) =
            (at("/threshold/provider/web/auth"), at("/threshold/provider/web/timeout"), at("/threshold/provider/web/jsonPath"));
        let (mode, typo, budget) = (at("/mode"), at("/treshold"), at("/errorBudget"));
        all_refused(
            &agent,
            &template(gates::evals(&agent)),
            &[
                ("/spec/gates", json!([]), "should have at least 1 items"),
                (of, json!({"name": "empty"}), "a gate is exactly one of threshold, judge"),
                (&name, json!("Pass Rate"), "should match"),
                (&name, Value::Null, "Required"),
                (&mode, json!("warn"), "supported values"),
                (&typo, json!({}), "treshold"),
                (&budget, json!("5"), "should match"),
                (&threshold, Value::Null, "a gate is exactly one of threshold, judge"),
                (&provider, json!({}), "a provider is exactly one of prometheus, web"),
                (&provider, doubled(&web), "a provider is exactly one of prometheus, web"),
                (&provider, Value::Null, "Required"),
                (&success, Value::Null, "set successCondition, failureCondition or both"),
                (&success, json!(""), "should be at least 1 chars long"),
                (&count, json!(0), "greater than or equal to 1"),
                (&interval, json!("soon"), "should match"),
                (&auth, bearer, "auth has exactly one of bearer, basic"),
                (&timeout, json!("-1s"), "should match"),
                (&json_path, json!(""), "should be at least 1 chars long"),
            ],
        )
        .await?;
        let judge = gates::judge(&agent);
        let (openai, prompt, tokens) = (at("/judge/openai"), at("/judge/prompt"), at("/judge/anthropic/maxTokens"));
        all_refused(
            &agent,
            &template(judge.clone()),
            &[
                (&openai, judge["judge"]["anthropic"].clone(), "a judge has exactly one of anthropic, openai"),
                (&prompt, Value::Null, "Required"),
                (&tokens, json!(1), "greater than or equal to 64"),
            ],
        )
        .await
    });
}

#[test]
fn a_command_cannot_be_wrong_or_changed() {
    run("bad-commands", async |agent| {
        let good = json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction", "metadata": {"name": "one"},
            "spec": {"rollout": "agent", "revision": "0123456789", "verb": "abort", "requestedBy": "admin"},
        });
        all_refused(
            &agent,
            &good,
            &[
                ("/spec/verb", json!("destroy"), "supported values"),
                ("/spec/revision", Value::Null, "Required"),
                ("/spec/rollout", json!(""), "should be at least 1 chars long"),
                ("/spec/requestedBy", json!("somebody"), "must be your own user name"),
            ],
        )
        .await?;
        let changed = agent.ns.apply(&with(good, "/spec/verb", &json!("promote")).to_string()).await.expect_err("it was changed");
        assert!(changed.to_string().contains("an action cannot be changed"), "{changed}");
        Ok(())
    });
}
