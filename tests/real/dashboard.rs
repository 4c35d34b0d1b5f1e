//! The dashboard on a real API server: rights, commands and changes as people meet them in a browser.

use serde_json::json;
use voicerollout::api::status::Phase;

use crate::agent::{Agent, NAME, Version};
use crate::chromium::Page;
use crate::env::OPERATOR;
use crate::people::Person;
use crate::stack::{Error, Result};
use crate::{gates, run};

/// Base URL of the dashboard of one operator; any will do.
async fn of_the_cluster(agent: &Agent) -> Result<String> {
    let pods = agent.world.operators().await?;
    let ip = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).next();
    ip.map(|ip| format!("http://{ip}:8090")).ok_or_else(|| Error::other(format!("no operator in {OPERATOR} has an address")))
}

/// Opens the list at `url`, and in it the agent.
async fn open(page: &mut Page, agent: &Agent, url: &str) {
    page.go(url).await;
    let row = "[...document.querySelectorAll('.list tbody tr')].map((r) => r.children[0].textContent + ' ' + r.children[1].textContent)";
    page.wait(&format!("{row}.length > 0")).await;
    assert_eq!(page.eval(row).await, json!([format!("{NAME} {}", agent.ns.name)]), "the namespaces of others are hidden");
    page.click(".list tbody tr th a").await;
    page.wait("document.querySelector('.actions button')").await;
}

/// Presses a button, says why, and waits for the operator's answer.
async fn press(page: &mut Page, verb: &str, reason: &str) {
    page.wait(&format!("document.querySelector('#do-{verb}')?.disabled === false")).await;
    page.click(&format!("#do-{verb}")).await;
    page.wait("document.activeElement.id === 'order-reason'").await;
    page.write(reason).await;
    page.click("#order-yes").await;
    page.wait_text("#said", ": done.").await;
}

#[test]
fn people_see_and_do_in_the_clusters_dashboard_what_their_tokens_allow() {
    run("dashboard", async |mut agent| {
        agent.start(gates::by_hand(&[25, 50])).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        let base = of_the_cluster(&agent).await?;
        let (guest, olga, stranger) = (
            Person::new(&agent, "guest", &["view"]).await?,
            Person::new(&agent, "olga", &["command"]).await?,
            Person::new(&agent, "stranger", &[]).await?,
        );

        let http = reqwest::Client::new();
        let url = format!("{base}/dashboard/api/rollouts/{}/{NAME}", agent.ns.name);
        assert_eq!(http.get(&url).send().await?.status(), 401);
        assert_eq!(http.get(&url).bearer_auth(format!("{}x", guest.token)).send().await?.status(), 401);
        assert_eq!(http.get(&url).bearer_auth(&stranger.token).send().await?.status(), 403);
        let order = json!({"verb": "abort", "revision": second});
        let forced = http
            .post(format!("{url}/actions"))
            .bearer_auth(&guest.token)
            .header("content-type", "application/json")
            .body(order.to_string());
        assert_eq!(forced.send().await?.status(), 403);

        let Some(mut page) = Page::open().await else { return Ok(()) };
        open(&mut page, &agent, &format!("{base}/dashboard#token={}", guest.token)).await;
        page.wait_text("#weight", "25 % canary").await;
        page.wait_text("#why-not", "may not create voicerolloutactions").await;
        assert_eq!(page.eval("[...document.querySelectorAll('.actions button')].every((b) => b.disabled)").await, true);

        open(&mut page, &agent, &format!("{base}/dashboard#token={}", olga.token)).await;
        press(&mut page, "promote", "looks fine").await;
        page.wait_text("#weight", "50 % canary").await;
        agent.paused_at(50).await?;
        press(&mut page, "abort", "callers complain").await;
        page.wait_text("section[aria-labelledby=s-decisions]", "Aborted").await;
        page.wait_text("section[aria-label='Where it stands']", "callers complain").await;
        let status = agent.phase(Phase::Degraded).await?;
        assert_eq!(status.abort.and_then(|abort| abort.by), Some(olga.user.clone()));
        assert!(status.decisions.iter().any(|d| d.decision == "Promoted" && d.by.as_deref() == Some(&olga.user)), "{:?}", status.decisions);
        assert_eq!(agent.weight().await?, 0);
        assert!(page.complaints.is_empty(), "{:?}", page.complaints);
        Ok(())
    });
}

#[test]
fn a_person_opens_the_dashboard_with_kubectl() {
    run("kubectl-dashboard", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let olga = Person::new(&agent, "olga", &["command", "view"]).await?;
        let (mut child, url) = olga.dashboard().await?;
        let without = url.split('#').next().unwrap_or_default().replace("/dashboard", "/dashboard/api/rollouts");
        let http = reqwest::Client::new();
        assert_eq!(http.get(&without).send().await?.status(), 401);
        assert_eq!(http.get(&without).bearer_auth(&olga.token).send().await?.status(), 401, "only the secret opens it");
        assert_eq!(http.get(&without).header("host", "evil.example").send().await?.status(), 403);

        let Some(mut page) = Page::open().await else { return Ok(()) };
        open_empty(&mut page, &url).await;
        let second = agent.release(&Version::good("v2")).await?;
        page.wait_text(".list tbody tr", "25 %").await;
        page.click(".list tbody tr th a").await;
        page.wait_text("#weight", "25 % canary").await;
        page.wait_text("section[aria-label='Where it stands']", &second).await;
        press(&mut page, "promote", "from here").await;
        let status = agent.promoted(&second).await?;
        assert!(status.decisions.iter().any(|d| d.by.as_deref() == Some(&olga.user)), "{:?}", status.decisions);
        page.wait_text("#weight", "100 % stable").await;
        child.kill().await?;
        page.wait_text("#connection", "Not connected").await;
        Ok(())
    });
}

/// The list of one rollout that is not in a release.
async fn open_empty(page: &mut Page, url: &str) {
    page.go(url).await;
    page.wait("document.querySelectorAll('.list tbody tr').length === 1").await;
    page.wait_text(".list tbody tr", "Healthy").await;
}
