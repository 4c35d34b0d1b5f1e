//! What one release costs the API server.

use jiff::Timestamp;
use serde_json::{Value, json};
use voicerollout::api::status::Phase;

use crate::audit::{self, Write};
use crate::fleet::Fleet;
use crate::plane::{Plane, USER};
use crate::stack::Result;

/// Prints the writes of one release with three gates after 5, 25 and 50 %.
pub async fn run(plane: &Plane) -> Result<()> {
    println!("\nAPI writes of one release: 5, 25, 50, 100 %, an eval suite, a Prometheus query and a judge after each of the first three");
    let operator = plane.operator().await?;
    let url = plane.gates.url(0);
    let fleet = Fleet::create(plane, "release", 1, |_| release(&url)).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"api-key": "key-of-the-stub"},
        "metadata": {"name": "judge", "namespace": fleet.namespace, "labels": {"voicerollout.dev/use": "gates"}},
    });
    plane.apply(&[secret]).await?;
    fleet.wait_healthy().await?;
    let since = Timestamp::now();
    fleet.set_image("registry.test/voice-agent:v2").await?;
    fleet.wait("Progressing", |s| s.phase != Phase::Healthy).await?;
    fleet.wait_healthy().await?;
    let writes = audit::writes(&plane.audit_log, USER)?;
    let of_release: Vec<&Write> = writes.iter().filter(|w| w.namespace == fleet.namespace && w.answered > since).collect();
    println!("  {} writes by the operator, until Healthy with the old pods gone", of_release.len());
    for (what, count) in audit::by_kind(of_release) {
        println!("  {count:>5}  {what}");
    }
    operator.stop().await;
    Ok(())
}

fn release(url: &str) -> Value {
    let query = |arg: &str| {
        format!("histogram_quantile(0.95, sum by (le) (rate(voice_first_token_ms_bucket{{revision=\"{{{{args.{arg}}}}}\"}}[1s])))")
    };
    let prometheus = |arg: &str| json!({"address": format!("{url}/prometheus"), "query": query(arg), "scrapeInterval": "1s"});
    let gates = json!([
        {"name": "eval-pass-rate", "threshold": {
            "successCondition": "result >= 0.92", "provider": {"web": {"url": format!("{url}/pass"), "jsonPath": "{$.value}"}},
        }},
        {"name": "p95-first-token", "threshold": {"successCondition": "result[0] <= 800", "provider": {"prometheus": prometheus("canary-hash")}}},
        {"name": "ai-judge", "judge": {
            "anthropic": {"model": "stub", "baseUrl": url, "apiKey": {"name": "judge", "key": "api-key"}},
            "prompt": "Compare the canary with the stable version.",
            "evidence": {"metrics": [{"name": "p95 first token", "unit": "ms", "prometheus": prometheus("revision")}]},
        }},
    ]);
    let at = |weight: u8| [json!({"setWeight": weight}), json!({"pause": {"duration": "2s"}}), json!({"analysis": {"gates": gates}})];
    let steps: Vec<Value> = [5, 25, 50].into_iter().flat_map(at).chain([json!({"setWeight": 100})]).collect();
    json!({"steps": steps})
}
