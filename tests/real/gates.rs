//! Gates and steps as the tests use them: the three of the project's example, with windows of seconds.

use serde_json::{Value, json};

use crate::agent::Agent;

/// Eval pass rate of at least 0.92, through the eval harness.
pub fn evals(agent: &Agent) -> Value {
    let url = format!("{}/api/run?suite=voice&version={{{{args.canary-hash}}}}&cases=25&target={}", agent.world.evals, agent.eval_target());
    json!({
        "name": "eval-pass-rate", "errorBudget": "60s",
        "threshold": {
            "interval": "1s", "count": 1, "successCondition": "result[0] >= 0.92",
            "provider": {"web": {"url": url, "jsonPath": "{$.passRate}", "timeout": "20s"}},
        },
    })
}

/// The 95th percentile of the time to the first token, of one revision, over 6 s.
pub fn first_token_query(agent: &Agent, arg: &str) -> String {
    let series = format!("voice_first_token_ms_bucket{{namespace=\"{}\",revision=\"{{{{args.{arg}}}}}\"}}", agent.ns.name);
    format!("histogram_quantile(0.95, sum by (le) (rate({series}[6s])))")
}

/// At most 800 ms, from Prometheus.
pub fn first_token(agent: &Agent) -> Value {
    json!({
        "name": "p95-first-token", "errorBudget": "60s",
        "threshold": {
            "interval": "1s", "count": 1, "successCondition": "result[0] <= 800", "provider": prometheus(agent),
        },
    })
}

/// The provider of [`first_token`].
pub fn prometheus(agent: &Agent) -> Value {
    let query = first_token_query(agent, "canary-hash");
    json!({"prometheus": {"address": agent.world.stack.prometheus_url(), "query": query, "scrapeInterval": "1s", "timeout": "5s"}})
}

/// The judge, which is shown the 95th percentile of both arms.
pub fn judge(agent: &Agent) -> Value {
    let query = first_token_query(agent, "revision");
    let metric = json!({"address": agent.world.stack.prometheus_url(), "query": query, "scrapeInterval": "1s"});
    json!({
        "name": "ai-judge", "errorBudget": "60s",
        "judge": {
            "anthropic": {"model": agent.model(), "baseUrl": agent.world.judge, "apiKey": {"name": "judge", "key": "api-key"}},
            "prompt": "Compare the canary with the stable version.", "interval": "1s", "timeout": "3s",
            "evidence": {"metrics": [{"name": "p95 first token", "unit": "ms", "prometheus": metric}]},
        },
    })
}

/// Steps through `weights`, each followed by a second's pause and the gates of the template.
pub fn gated(weights: &[u8]) -> Value {
    let analysis = json!({"analysis": {"templates": [{"name": "canary"}]}});
    let each = weights.iter().flat_map(|weight| [json!({"setWeight": weight}), json!({"pause": {"duration": "1s"}}), analysis.clone()]);
    Value::Array(each.collect())
}

/// Steps through `weights`, at each of which the release stands until somebody promotes.
pub fn by_hand(weights: &[u8]) -> Value {
    Value::Array(weights.iter().flat_map(|weight| [json!({"setWeight": weight}), json!({"pause": {}})]).collect())
}
