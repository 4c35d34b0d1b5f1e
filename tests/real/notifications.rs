//! People hear of a bad release in Slack.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use kube::Api;
use parking_lot::Mutex;
use serde_json::{Value, json};
use voicerollout::api::VoiceRolloutOutbox;
use voicerollout::api::outbox::Outcome;

use crate::agent::{NAME, PATIENCE, Version};
use crate::stack::{Result, Seen, wait_for};
use crate::verdicts::aborted_by;
use crate::{gates, run};

type Got = Arc<Mutex<Vec<(String, Value)>>>;

/// A receiver like Slack's incoming webhooks; its base URL and what it got.
async fn slack() -> Result<(String, Got)> {
    let got = Got::default();
    let take = async |State(got): State<Got>, uri: Uri, body: String| {
        got.lock().push((uri.path().to_owned(), serde_json::from_str(&body).unwrap_or_default()));
        "ok"
    };
    let router = Router::new().fallback(take).with_state(got.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((url, got))
}

#[test]
fn a_bad_release_is_told_in_slack_with_the_reason() {
    run("told", async |mut agent| {
        let (url, got) = slack().await?;
        let path = "/services/T0/B0/of-the-team";
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "slack", "labels": {"voicerollout.dev/use": "notifications"}},
            "stringData": {"url": format!("{url}{path}")},
        });
        agent.ns.apply(&secret.to_string()).await?;
        agent.manifest["spec"]["notifications"] = json!([{
            "name": "team", "triggers": ["Started", "Aborted"], "slack": {"webhook": {"name": "slack", "key": "url"}},
            "template": "{{ trigger }} {{ revision }} {{ step }}: {{ failure_reason }}",
        }]);
        agent.gates(&[gates::first_token(&agent)]).await?;
        let first = agent.start(gates::gated(&[25, 50])).await?.stable_revision.expect("a stable revision");
        let _traffic = agent.calls(20);
        let second = agent.release(&Version::slow("v2")).await?;
        let status = aborted_by(&agent, "p95-first-token", "at step 3/6, weight 25").await?;
        let reason = status.abort.expect("an abort").reason;
        let texts = wait_for("three messages", PATIENCE, || async {
            let got = got.lock().clone();
            Ok(if got.len() >= 3 { Seen::Yes(got) } else { Seen::NotYet(format!("{got:?}")) })
        })
        .await?;
        assert!(texts.iter().all(|(p, _)| p == path), "{texts:?}");
        let texts: Vec<&str> = texts.iter().map(|(_, body)| body["text"].as_str().unwrap_or_default()).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with(&format!("Started {first} ")), "{texts:?}");
        assert!(texts[1].starts_with(&format!("Started {second} ")), "{texts:?}");
        let escaped = reason.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert_eq!(texts[2].trim_end_matches('.'), format!("Aborted {second} 3/6: {}", escaped.trim_end_matches('.')));

        let api: Api<VoiceRolloutOutbox> = agent.ns.api();
        let outbox = wait_for("an empty outbox", PATIENCE, || async {
            let outbox = api.get(NAME).await?;
            Ok(if outbox.spec.queue.is_empty() { Seen::Yes(outbox) } else { Seen::NotYet(format!("{outbox:?}")) })
        })
        .await?;
        assert!(outbox.spec.history.iter().all(|h| h.outcome == Outcome::Sent), "{outbox:?}");
        assert!(!json!(outbox).to_string().contains("of-the-team"));
        let ready =
            |s: &voicerollout::api::VoiceRolloutStatus| s.conditions.iter().any(|c| c.type_ == "NotificationsReady" && c.status == "True");
        agent.wait("the notifications to be ready", ready).await?;
        Ok(())
    });
}
