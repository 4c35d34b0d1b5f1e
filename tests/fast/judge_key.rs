//! A judge whose key is missing: named on the resource with what to do, and the weight stands.

use std::sync::Arc;

use futures::future::BoxFuture;
use voicerollout::api::status::Phase;
use voicerollout::operator::analysis::secrets::KubeSecrets;
use voicerollout::sim::WorldConfig;
use voicerollout::sources::judge::logs::{LogQuery, LogReader};
use voicerollout::sources::{SourceError, Sources, SourcesConfig};

use crate::cluster::{AGENT, Cluster};

struct NoLogs;

impl LogReader for NoLogs {
    fn pod_logs<'a>(&'a self, _: LogQuery<'a>) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_judge_key_is_named_with_what_to_do_and_the_weight_is_held() {
    let cluster = Cluster::start_on(WorldConfig::default(), |server, _, _| {
        let config = SourcesConfig { egress: Default::default(), operator_namespace: "voicerollout".into(), user_agent: "test".into() };
        Arc::new(Sources::new(config, Arc::new(KubeSecrets::new(server.client_as("operator"))), Arc::new(NoLogs)))
    })
    .await;
    let judge = "    - analysis:\n        gates:\n          - name: ai-judge\n            judge:\n              anthropic: {model: m, apiKey: {name: judge-api, key: api-key}}\n              prompt: Compare.\n    - setWeight: 50\n";
    cluster.apply(&AGENT.replacen("    - setWeight: 50\n", judge, 1)).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    cluster.set_image("agent", "agent:v2").await;

    let missing =
        "Secret voice/judge-api: there is no such Secret; create it with the label voicerollout.dev/use: gates and the key api-key";
    let held = cluster.wait("agent", "paused by the judge", |s| s.phase == Phase::Paused && s.message.contains("ai-judge")).await;
    let told = held.gates.iter().find(|g| g.name == "ai-judge").map(|g| g.message.clone()).unwrap_or_default();
    assert!(told.contains(missing) && held.waiting_for.contains(missing), "{told}\n{}", held.waiting_for);
    assert_eq!((held.weights.applied, held.step_display.as_str()), (25, "3/5"));

    cluster
        .apply("{apiVersion: v1, kind: Secret, metadata: {name: judge-api, namespace: voice}, stringData: {api-key: s3cr3t-v4lue}}")
        .await;
    let advice = "does not carry the label voicerollout.dev/use: gates, so gates may not use it; add the label";
    let still = cluster.wait("agent", "told of the label", |s| s.gates.iter().any(|g| g.message.contains(advice))).await;
    assert_eq!((still.phase, still.weights.applied), (Phase::Paused, 25));
    assert!(!format!("{still:?}").contains("s3cr3t-v4lue"));
}
