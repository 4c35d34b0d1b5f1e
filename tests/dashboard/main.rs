//! The dashboard in a real Chromium. `tests/stack/components.sh chromium` fetches one; VOICEROLLOUT_CHROMIUM names another.
//! With VOICEROLLOUT_SCREENSHOTS=FOLDER the pictures of the README are written there.

mod chromium;
mod look;
mod terminal;
mod world;

use chromium::Page;
use serde_json::json;
use voicerollout::cli::status_view;
use world::{World, healthy, play, releasing};

const LIST: &str = "document.querySelectorAll('.list tbody tr:not([hidden])').length";

fn quiet(page: &Page) {
    let none: [String; 0] = [];
    assert_eq!(page.complaints, none, "the page has errors");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_rollouts_are_listed_sifted_and_kept_up_to_date() {
    let Some(mut page) = Page::open().await else { return };
    let mut all: Vec<_> = (0..499).map(|n| healthy(&format!("team-{}", n % 20), &format!("agent-{n}"))).collect();
    all.push(releasing("team-7", "switchboard", 5));
    let mut world = World::new(&all).await;
    page.go(&world.url("jane")).await;
    page.wait(&format!("{LIST} === 500")).await;
    let times = page.eval("[performance.getEntriesByName('first-contentful-paint')[0]?.startTime, performance.now()]").await;
    println!("500 rollouts: first paint and list after {times} ms, looked at every 30 ms");
    assert_eq!(page.eval("location.href.includes('token')").await, false, "the token is out of sight");
    assert_eq!(page.text("#connection").await, "Live");
    assert_eq!(page.text(".list tbody tr th").await, "switchboard", "what is in a release comes first");

    page.click("#filter").await;
    page.write("team-3 agent-12").await;
    page.wait(&format!("{LIST} === 1")).await;
    assert_eq!(page.text(".list tbody tr:not([hidden]) th").await, "agent-123");
    page.eval("document.querySelector('#filter').value = ''; document.querySelector('#filter').dispatchEvent(new Event('input'))").await;
    page.wait(&format!("{LIST} === 500")).await;

    // The row stays the same element, and with it the focus.
    page.eval("window.row = document.querySelector('.list tbody tr'); row.querySelector('a').focus()").await;
    world.change(&releasing("team-7", "switchboard", 25));
    page.wait_text(".list tbody tr", "25 %").await;
    assert_eq!(page.eval("window.row.isConnected && document.activeElement === window.row.querySelector('a')").await, true);
    world.delete(&all[0]);
    page.wait(&format!("{LIST} === 499")).await;

    world.restart().await;
    world.change(&releasing("team-7", "switchboard", 50));
    page.wait_text(".list tbody tr", "50 %").await;
    assert_eq!(page.text("#connection").await, "Live");
    world.board.set_trouble("VoiceRollouts", Some("VoiceRollouts: not now".into()));
    page.go(&world.url("jane")).await;
    page.wait_text("#connection", "May be old: VoiceRollouts: not now").await;
    let others: Vec<_> = page.complaints.iter().filter(|c| !c.contains("ERR_")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_in_detail_shows_what_it_rests_on_and_follows_it() {
    let Some(mut page) = Page::open().await else { return };
    let world = World::new(&[healthy("voice", "other")]).await;
    play(&world, "voice", "agent");
    page.go(&world.url("jane")).await;
    page.wait(&format!("{LIST} === 2")).await;
    page.click(".list tbody tr th a").await;
    page.wait_text("#weight", "25 % canary").await;
    let titles = page.eval("[...document.querySelectorAll('h3')].map((h) => h.textContent)").await;
    assert_eq!(titles, json!(["Steps", "Weight", "Revisions and live calls", "Gates", "Both versions", "Judges", "Decisions"]));
    // Weight, calls, and share and evidence of two gates.
    let charts = page.eval("[...document.querySelectorAll('svg.chart')].map((c) => [c.querySelector('title').textContent, c.querySelector('desc').textContent, c.querySelectorAll('path').length])").await;
    assert_eq!(charts.as_array().unwrap().len(), 6, "{charts}");
    assert!(charts.as_array().unwrap().iter().all(|c| c[1].as_str().unwrap().len() > 10 && c[2].as_u64().unwrap() > 0), "{charts}");
    let gates = page.text("section[aria-labelledby=s-gates]").await;
    assert!(gates.contains("22× of 200× against it") && gates.contains("14 of 640 canary calls failed"), "{gates}");
    let judges = page.text("section[aria-labelledby=s-judges]").await;
    for wanted in ["2 verdicts, $0.1164", "$0.0585", "17200 in, 410 out", "UNSURE", "judge-large-2", "<b>Not markup</b>"] {
        assert!(judges.contains(wanted), "{wanted}: {judges}");
    }
    let drain = page.text("section[aria-labelledby=s-revisions-and-live-calls]").await;
    assert!(drain.contains("Draining") && drain.contains("at the latest"), "{drain}");

    // The table behind a chart stays open over a change.
    page.click("section[aria-labelledby=s-weight] summary").await;
    page.wait("document.querySelectorAll('section[aria-labelledby=s-weight] tbody tr').length >= 3").await;
    let mut next = releasing("voice", "agent", 50);
    next["metadata"]["resourceVersion"] = json!("900");
    world.change(&next);
    page.wait_text("#weight", "50 % canary").await;
    page.wait_text("#news", "50 % of new calls go to the canary").await;
    page.wait("document.querySelector('section[aria-labelledby=s-weight] details').open").await;
    assert_eq!(page.text("section[aria-labelledby=s-weight] tbody tr:last-child td").await, "50 %");

    // A run that cannot be read hides neither the rest nor the buttons.
    world.run(&json!({"metadata": {"namespace": "voice", "name": "agent-run"}, "spec": 1}));
    next["metadata"]["resourceVersion"] = json!("901");
    world.change(&next);
    let said = "may be incomplete: read VoiceAnalysisRun agent-run: what the API server has does not fit its kind";
    page.wait_text("section[aria-labelledby=s-gates]", said).await;
    assert_eq!(page.eval("document.querySelector('#do-abort').disabled").await, false);
    // A page that stays open for long keeps a bounded number of points, and both ends.
    let kept = page.eval(
        "import('/dashboard/charts.js').then(({ thin }) => { const points = new Map(); \
         for (let t = 0; t < 9999; t += 1) { points.set(t, t); thin(points); } return [points.size, points.has(0), points.has(9998)]; })",
    );
    let kept = kept.await;
    assert!((400..=1000).contains(&kept[0].as_u64().unwrap()) && kept[1] == true && kept[2] == true, "{kept}");
    quiet(&page);

    // A browser that goes leaves nothing behind.
    assert_eq!(world.board.listeners(), 1);
    drop(page);
    world.listeners(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_do_what_the_person_may() {
    let Some(mut page) = Page::open().await else { return };
    let world = World::new(&[releasing("voice", "agent", 25)]).await;
    page.go(&world.url("guest")).await;
    page.wait(&format!("{LIST} === 1")).await;
    page.click(".list tbody tr th a").await;
    page.wait("document.querySelector('#do-abort')").await;
    assert_eq!(page.eval("[...document.querySelectorAll('.actions button')].every((b) => b.disabled)").await, true);
    assert_eq!(page.text("#why-not").await, "guest may not create voicerolloutactions in namespace voice");
    // A person who knows how to ask without buttons is refused, too.
    let forced = "fetch('/dashboard/api/rollouts/voice/agent/actions', {method: 'POST', body: JSON.stringify({verb: 'abort', revision: 'x'}), \
                  headers: {Authorization: 'Bearer token-of-guest', 'Content-Type': 'application/json'}}).then((r) => r.status)";
    assert_eq!(page.eval(forced).await, 403);
    assert!(world.api.commands.lock().is_empty());

    page.go(&world.url("jane")).await;
    page.wait(&format!("{LIST} === 1")).await;
    page.click(".list tbody tr th a").await;
    page.wait("document.querySelector('#do-abort')?.disabled === false").await;
    page.click("#do-abort").await;
    page.wait("document.querySelector('#order').open && document.activeElement.id === 'order-reason'").await;
    let asked = page.text("#order-what").await;
    assert!(asked.contains("5b7c9d84f") && asked.contains("v8: 212, v9: 71"), "{asked}");
    page.key("Escape", 27).await;
    page.wait("!document.querySelector('#order').open").await;
    assert!(world.api.commands.lock().is_empty(), "nothing is done without a yes");
    page.click("#do-abort").await;
    page.wait("document.activeElement.id === 'order-reason'").await;
    page.write("callers complain").await;
    page.key("Enter", 13).await;
    page.wait_text("#said", "Abort: done. new calls go to stable").await;
    let order = json!({"rollout": "agent", "revision": "6d5f8c7b2", "verb": "abort", "reason": "callers complain", "requestedBy": "jane"});
    assert_eq!(*world.api.commands.lock(), [order]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_there_is_nothing_but_a_place_to_sign_in() {
    let Some(mut page) = Page::open().await else { return };
    let world = World::new(&[healthy("voice", "agent")]).await;
    page.go(&format!("http://{}/", world.address)).await;
    page.wait("document.activeElement?.id === 'token'").await;
    assert!(!page.text("main").await.contains("agent"));
    page.write("stolen").await;
    page.key("Enter", 13).await;
    page.wait_text("#sign-in-why", "not accepted").await;
    assert_eq!(world.board.listeners(), 0);
    page.write("token-of-jane").await;
    page.key("Enter", 13).await;
    page.wait(&format!("{LIST} === 1")).await;
    assert_eq!(page.text("#who").await, "jane");
    assert_eq!(
        page.eval("document.cookie + JSON.stringify(localStorage) + location.href").await,
        format!("{{}}http://{}/dashboard", world.address)
    );
    page.click("#sign-out").await;
    page.wait("document.activeElement?.id === 'token'").await;
    assert_eq!(page.eval("sessionStorage.length").await, 0);
    assert!(!page.text("main").await.contains("agent"));
    world.listeners(0).await;
}

/// Keeps requests for the person's name in `held` until `letGo()`, and counts streams in `opened`.
const HOLD: &str = r"
(() => {
  const real = window.fetch;
  Object.assign(window, { held: [], opened: 0, letGo: () => Promise.allSettled(window.held.splice(0).map((go) => go())) });
  window.fetch = (path, options) => {
    if (path.endsWith('/stream')) window.opened += 1;
    if (!path.endsWith('/me')) return real(path, options);
    return new Promise((resolve, reject) => window.held.push(() => real(path, options).then(resolve, reject)));
  };
})()";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_one_stream_and_leaves_nothing_to_the_next() {
    let Some(mut page) = Page::open().await else { return };
    let agent = healthy("voice", "agent");
    let world = World::new(std::slice::from_ref(&agent)).await;
    page.go(&format!("http://{}/dashboard", world.address)).await;
    page.wait("document.activeElement?.id === 'token'").await;
    page.eval(HOLD).await;
    page.write("token-of-jane").await;
    page.eval("for (const form of Array(2).fill(document.querySelector('#sign-in'))) form.requestSubmit()").await;
    page.wait("held.length === 2").await;
    page.eval("letGo().then(() => {})").await;
    page.wait(&format!("{LIST} === 1")).await;
    assert_eq!(page.eval("opened").await, 1);
    world.listeners(1).await;

    // Another person's token comes, and goes before its name has come.
    page.eval("location.hash = '#token=token-of-guest'").await;
    page.wait("held.length === 1").await;
    assert_eq!([page.text("#who").await, page.text("main").await], ["", ""]);
    page.eval("document.querySelector('#sign-out').click()").await;
    page.eval("letGo().then(() => {})").await;
    page.wait("document.activeElement?.id === 'token'").await;
    world.listeners(0).await;
    assert_eq!((page.eval("opened").await, page.text("#who").await), (json!(1), String::new()));

    world.delete(&agent);
    page.write("token-of-guest").await;
    page.key("Enter", 13).await;
    page.wait("held.length === 1").await;
    page.eval("letGo().then(() => {})").await;
    page.wait_text("#count", "No VoiceRollouts that you may list").await;
    assert_eq!((page.text("#who").await, page.eval(LIST).await), ("guest".into(), json!(0)));
    let others: Vec<_> = page.complaints.iter().filter(|c| !c.contains("401")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_themes_can_be_read_and_nothing_sticks_out() {
    let Some(mut page) = Page::open().await else { return };
    let mut all: Vec<_> = (0..12).map(|n| healthy("voice", &format!("agent-with-a-rather-long-name-{n}"))).collect();
    let mut aborted = releasing("voice", "aborted", 0);
    aborted["status"]["phase"] = json!("Degraded");
    aborted["status"]["abort"] = json!({"revision": "6d5f8c7b2", "at": "2026-01-01T00:00:00.000000Z", "step": "3/7", "weight": 25, "reason": "gate failed-calls: ".to_owned() + &"x".repeat(200)});
    aborted["status"]["preflight"] = json!([{"code": "RouteTimeout", "sentence": "A timeout cuts calls.", "fix": "Remove it."}]);
    all.push(aborted);
    let world = World::new(&all).await;
    play(&world, "voice", "voice-agent");
    for theme in ["light", "dark"] {
        page.theme(theme).await;
        for width in [1280, 390] {
            page.size(width, 900).await;
            let what = |part: &str| format!("{part}, {theme}, {width} px");
            page.go(&world.url("nobody")).await;
            page.wait_text("#sign-in-why", "not accepted").await;
            look::check(&mut page, &what("sign in")).await;
            page.go(&world.url("jane")).await;
            page.wait(&format!("{LIST} === 14")).await;
            look::check(&mut page, &what("list")).await;
            for name in ["aborted", "voice-agent"] {
                page.eval(&format!("location.hash = '#/voice/{name}'")).await;
                page.wait("document.querySelector('section[aria-labelledby=s-decisions] tbody tr')").await;
                page.eval("document.querySelectorAll('details').forEach((d) => (d.open = true))").await;
                page.wait("[...document.querySelectorAll('details')].every((d) => d.querySelector('tbody tr'))").await;
                look::check(&mut page, &what(name)).await;
            }
            page.click("#do-promote").await;
            page.wait("document.querySelector('#order').open").await;
            look::check(&mut page, &what("dialog")).await;
            page.key("Escape", 27).await;
        }
        picture(&mut page, &world, theme).await;
    }
    // The eyes that looked can see.
    page.eval("(() => { const b = document.createElement('button'); b.style.cssText = 'color: #888; background: #999; width: 5000px'; document.querySelector('.card').append(b, 'text'); })()").await;
    page.eval("document.querySelector('.card button').append('pale')").await;
    page.eval("document.querySelector('.card').append(document.createElement('button'))").await;
    assert_eq!(look::faults(&mut page).await.map(|faults| faults.is_empty()), [false; 3]);
    let others: Vec<_> = page.complaints.iter().filter(|c| !c.contains("401")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// The picture of the README; written only when it is asked for.
async fn picture(page: &mut Page, world: &World, theme: &str) {
    page.size(1280, 1180).await;
    page.go(&world.url("jane")).await;
    page.wait(&format!("{LIST} === 14")).await;
    page.eval("location.hash = '#/voice/voice-agent'").await;
    page.wait("document.querySelector('section[aria-labelledby=s-decisions] tbody tr')").await;
    page.eval("document.querySelector('.skip').blur(); scrollTo(0, 0)").await;
    keep(page, &format!("dashboard-{theme}")).await;
}

/// What the page shows now, for the README.
async fn keep(page: &mut Page, name: &str) {
    let picture = page.picture().await;
    assert!(picture.len() < 200_000, "{} bytes", picture.len());
    if let Some(folder) = std::env::var_os("VOICEROLLOUT_SCREENSHOTS") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_can_be_read_on_dark_and_light_terminals_and_fits_its_width() {
    let Some(mut page) = Page::open().await else { return };
    let rollout = serde_json::from_value(releasing("voice", "voice-agent", 25)).unwrap();
    let runs = [serde_json::from_value(world::run("voice", "voice-agent", 0.9)).unwrap()];
    let printed = status_view::render(&rollout, &runs, jiff::Timestamp::now(), terminal::paint());
    for theme in ["light", "dark"] {
        terminal::show(&mut page, theme, "kubectl voicerollout status voice-agent -n voice", &printed).await;
        let [contrast, overflow, _] = look::faults(&mut page).await;
        assert_eq!((&contrast[..], &overflow[..]), (&[][..], &[][..]), "{theme}");
        let wide = page.eval("(() => { const pre = document.querySelector('pre'); return pre.scrollWidth - pre.clientWidth; })()").await;
        assert_eq!(wide, 0, "{theme}: a line is longer than the terminal");
        keep(&mut page, &format!("status-{theme}")).await;
    }
}
