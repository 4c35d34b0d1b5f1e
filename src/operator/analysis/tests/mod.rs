mod api;
mod long_runs;
mod world;

use std::time::Duration;

use api::FakeApi;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use world::{Process, Scripted, a_run, claim, clock, gate, judge, phase, until, value};

use crate::api::judge::Vote;
use crate::api::run::Tokens;
use crate::core::gates::spec_hash;
use crate::core::judge::Judgement;
use crate::sources::{Progress, SourceError};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_run_passes_and_is_left_alone_afterwards() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |request, _| match request.gate.name.as_str() {
        "judge" => {
            assert_eq!((request.others.len(), request.others[0].value.as_deref()), (1, Some("1")));
            let judged = Progress::Votes(Box::new(Judgement::of_one(Vote::Pass, "fine", Tokens { input: 7, output: 1 })));
            (SECOND * 30, Ok(judged))
        }
        _ => (SECOND, value(1)),
    });
    api.put(a_run("run", &[gate("evals", json!({ "count": 3, "interval": "1m" })), judge()]));
    let process = Process::start(&api, &source, &clock);
    let run = phase(&api, "run", "Pass").await;
    assert_eq!(run["status"]["message"], "every gate passed: evals=1, judge=PASS");
    assert_eq!(run["status"]["gates"][1]["tokens"], json!({ "input": 7, "output": 1 }));
    assert_eq!(run["status"]["finishedAt"], "2026-01-01T10:02:03Z");
    // Before the first, and before and after each of four measurements; the judge's share writes with another gate's.
    assert!(api.writes().len() <= 9, "{}", api.writes().len());
    assert!(api.writes().iter().all(|w| w["metadata"]["managedFields"].is_null()));
    let before = api.requests();
    sleep(SECOND * 3600).await;
    assert_eq!(api.requests(), before, "a finished run costs nothing");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_write_changes_neither_result_nor_number_of_measurements() {
    let mut outcomes = Vec::new();
    for survive in 0..40 {
        let (api, clock) = (FakeApi::default(), clock());
        let source = Scripted::new(&api, |request, n| match (request.gate.name.as_str(), n) {
            ("evals", 1) => (SECOND, Err(SourceError::new("HTTP 503"))),
            ("slow", _) => (SECOND, Ok(Progress::Running { handle: "done-after-3".into(), poll_after: SECOND })),
            _ => (SECOND, value(1)),
        });
        api.put(a_run("run", &[gate("evals", json!({ "count": 3, "interval": "10s" })), gate("slow", json!({}))]));
        let process = Process::start(&api, &source, &clock);
        let writes = {
            let api = api.clone();
            move || api.writes().len()
        };
        until(&api, "run", |run| writes() >= survive || run["status"]["phase"] == "Pass").await;
        process.kill().await;
        let process = Process::start(&api, &source, &clock);
        let run = phase(&api, "run", "Pass").await;
        process.stop().await;
        let counts: Vec<&Value> = run["status"]["gates"].as_array().unwrap().iter().map(|g| &g["counts"]).collect();
        assert_eq!(source.distinct_keys(), 5, "one key for each measurement, crash or not (after write {survive})");
        outcomes.push(json!(counts));
        if api.writes().len() < survive {
            break;
        }
    }
    assert!(outcomes.len() >= 8, "every write was crashed after");
    assert!(outcomes.windows(2).all(|w| w[0] == w[1]), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_works_on_it_is_polled_and_not_started_again() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND, Ok(Progress::Running { handle: "done-after-4".into(), poll_after: SECOND * 5 })));
    api.put(a_run("run", &[gate("evals", json!({}))]));
    let process = Process::start(&api, &source, &clock);
    until(&api, "run", |run| run["status"]["gates"][0]["inFlight"]["handle"] == "done-after-4").await;
    process.kill().await;
    let process = Process::start(&api, &source, &clock);
    phase(&api, "run", "Pass").await;
    process.stop().await;
    assert_eq!((source.starts.lock().len(), source.polls.lock().len()), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn stop_cancels_what_is_under_way() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND, Ok(Progress::Running { handle: "h".into(), poll_after: SECOND })));
    api.put(a_run("run", &[gate("evals", json!({}))]));
    let process = Process::start(&api, &source, &clock);
    until(&api, "run", |run| run["status"]["gates"][0]["inFlight"]["handle"] == "h").await;
    api.edit("run", |run| run["spec"]["stop"] = json!(true));
    let run = phase(&api, "run", "Stopped").await;
    assert!(run["status"]["gates"][0]["verdict"].is_null() && run["status"]["gates"][0]["inFlight"].is_null());
    sleep(SECOND).await;
    assert_eq!(*source.cancels.lock(), ["h"]);
    let polls = source.polls.lock().len();
    sleep(SECOND * 600).await;
    assert_eq!(source.polls.lock().len(), polls);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn foreign_writes_in_between_lose_no_result() {
    let (api, clock) = (FakeApi::default(), clock());
    let meddler = api.clone();
    let source = Scripted::new(&api, move |_, _| {
        let api = meddler.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                sleep(Duration::from_millis(100)).await;
                api.edit("run", |run| run["metadata"]["annotations"]["n"] = json!(n.to_string()));
            }
        });
        (SECOND, value(1))
    });
    api.put(a_run("run", &[gate("evals", json!({ "count": 5, "interval": "1s" }))]));
    let process = Process::start(&api, &source, &clock);
    let run = phase(&api, "run", "Pass").await;
    assert_eq!((run["status"]["gates"][0]["counts"]["pass"].as_i64(), source.starts.lock().len()), (Some(5), 5));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_measures() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND * 20, value(1)));
    api.put(a_run("run", &[gate("evals", json!({}))]));
    let (one, first) = claim(None);
    let (two, second) = claim(None);
    let processes = [first, second].map(|l| Process::start_with(&api, &source, &clock, l));
    sleep(SECOND * 300).await;
    assert_eq!((api.writes().len(), source.starts.lock().len()), (0, 0));
    // A claim that ends before a write could is none.
    one.send(Some(Instant::now() + SECOND)).unwrap();
    sleep(SECOND * 10).await;
    assert_eq!(api.writes().len(), 0);
    one.send(Some(Instant::now() + SECOND * 3600)).unwrap();
    until(&api, "run", |run| !run["status"]["gates"][0]["inFlight"].is_null()).await;
    sleep(SECOND).await;
    one.send(None).unwrap();
    two.send(Some(Instant::now() + SECOND * 3600)).unwrap();
    let run = phase(&api, "run", "Pass").await;
    let starts = source.starts.lock().clone();
    assert_eq!((starts.len(), source.distinct_keys()), (2, 1), "the successor asks again under the same key");
    assert_eq!(run["status"]["gates"][0]["counts"]["pass"], 1);
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn runs_of_others_and_unreadable_ones_stop_nobody() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND, value(1)));
    let mut orphan = a_run("orphan", &[gate("evals", json!({}))]);
    orphan["metadata"]["ownerReferences"][0]["uid"] = json!("another");
    let mut broken = a_run("broken", &[]);
    broken["spec"]["attempt"] = json!("one");
    for run in [orphan, broken, a_run("run", &[gate("evals", json!({}))])] {
        api.put(run);
    }
    let process = Process::start(&api, &source, &clock);
    phase(&api, "run", "Pass").await;
    sleep(SECOND * 600).await;
    assert!(api.get("orphan")["status"].is_null() && api.get("broken")["status"].is_null());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn secrets_of_arguments_are_read_and_never_shown() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |request, _| {
        let token = &request.args["token"];
        assert!(token.secret);
        (SECOND, Err(SourceError::new(format!("HTTP 401 for {}", token.text))))
    });
    let mut run = a_run("run", &[gate("good", json!({})), gate("missing", json!({}))]);
    for (gate, secret) in [(0, "s"), (1, "other")] {
        let arg = json!({ "name": "token", "secretKeyRef": { "name": secret, "key": "k" } });
        run["spec"]["gates"][gate]["args"].as_array_mut().unwrap().push(arg);
    }
    api.put(run);
    let process = Process::start(&api, &source, &clock);
    let run = until(&api, "run", |run| (0..2).all(|g| run["status"]["gates"][g]["counts"]["error"].as_i64() > Some(0))).await;
    let message = |g: usize| run["status"]["gates"][g]["measurements"][0]["message"].as_str().unwrap().to_owned();
    assert_eq!(message(0), "HTTP 401 for ***");
    assert_eq!(message(1), "argument `token`: the Secret does not carry the label");
    assert!(source.starts.lock().iter().all(|(gate, _)| gate == "good"));
    assert!(!json!(api.writes()).to_string().contains("s3cr3t"));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn operator_secrets_are_only_used_for_runs_that_the_rollout_asked_for() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND, value(1)));
    let mut run = a_run("run", &[gate("evals", json!({}))]);
    run["spec"]["gates"][0]["fromClusterTemplate"] = json!(true);
    let arg = json!({ "name": "token", "secretKeyRef": { "name": "s", "key": "k" }, "inOperatorNamespace": true });
    run["spec"]["gates"][0]["args"].as_array_mut().unwrap().push(arg);
    api.put(run.clone());
    let rollout = |hash: &str| {
        json!({ "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout",
            "metadata": { "name": "agent", "namespace": "voice", "uid": "u" },
            "spec": { "selector": {}, "template": {}, "traffic": {} },
            "status": { "runs": [{ "name": "run", "kind": "Step", "specHash": hash }] } })
    };
    api.set_rollout(rollout("forged"));
    let process = Process::start(&api, &source, &clock);
    sleep(SECOND * 900).await;
    assert_eq!((api.writes().len(), source.starts.lock().len()), (0, 0));
    api.set_rollout(rollout(&spec_hash(&serde_json::from_value(run["spec"].clone()).unwrap())));
    phase(&api, "run", "Pass").await;
    assert_eq!(source.requests.lock()[0].args["token"].text, "system-token");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_keeps_no_other_waiting_and_is_not_flooded() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |request, _| match request.gate.name.as_str() {
        "slow" => (SECOND * 1800, value(1)),
        _ => (SECOND, value(1)),
    });
    for n in 0..40 {
        api.put(a_run(&format!("slow{n}"), &[gate("slow", json!({ "provider": { "web": { "url": "http://slow/x", "timeout": "1h" } } }))]));
    }
    api.put(a_run("quick", &[gate("quick", json!({}))]));
    let process = Process::start(&api, &source, &clock);
    let begun = Instant::now();
    phase(&api, "quick", "Pass").await;
    assert!(begun.elapsed() < SECOND * 5, "{:?}", begun.elapsed());
    for n in 0..40 {
        let run = phase(&api, &format!("slow{n}"), "Pass").await;
        assert_eq!(run["status"]["gates"][0]["counts"]["error"], 0, "waiting in line is no error");
    }
    assert!(source.most_at_once() <= 17, "{}", source.most_at_once());
    assert_eq!(source.starts.lock().len(), 41);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_or_hangs_is_an_error() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |request, n| match (request.gate.name.as_str(), n) {
        ("panics", 0) => panic!("scripted"),
        ("hangs", 0) => (SECOND * 100_000, value(1)),
        _ => (SECOND, value(1)),
    });
    api.put(a_run("run", &[gate("panics", json!({})), gate("hangs", json!({}))]));
    let process = Process::start(&api, &source, &clock);
    let run = phase(&api, "run", "Pass").await;
    let first = |g: usize| run["status"]["gates"][g]["measurements"][0]["message"].as_str().unwrap().to_owned();
    assert_eq!((first(0).as_str(), first(1).as_str()), ("the provider's code panicked; please report this", "no result within 40s"));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_run_takes_its_measurements_with_it() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND, Ok(Progress::Running { handle: "h".into(), poll_after: SECOND })));
    api.put(a_run("run", &[gate("evals", json!({ "provider": { "web": { "url": "http://h/x", "timeout": "10h" } } }))]));
    let process = Process::start(&api, &source, &clock);
    until(&api, "run", |run| run["status"]["gates"][0]["inFlight"]["handle"] == "h").await;
    api.delete("run");
    sleep(SECOND * 5).await;
    let polls = source.polls.lock().len();
    sleep(SECOND * 3600).await;
    assert_eq!(source.polls.lock().len(), polls);
    process.stop().await;
}

/// A judge with a budget is asked, and paid for, once: the process dies after any write, and the next one goes on under
/// the same key.
#[tokio::test(start_paused = true)]
async fn a_crash_while_the_judge_is_asked_costs_one_verdict() {
    let budgeted = || {
        let mut gate = judge();
        let prices = json!({ "inputPerMillion": 1, "outputPerMillion": 5 });
        gate["judge"]["budget"] = json!({ "verdicts": 5, "dollars": 1, "prices": prices });
        gate
    };
    for survive in 1..4 {
        let (api, clock) = (FakeApi::default(), clock());
        let source = Scripted::new(&api, |_, _| {
            let judged = Progress::Votes(Box::new(Judgement::of_one(Vote::Pass, "fine", Tokens { input: 1000, output: 100 })));
            (SECOND * 20, Ok(judged))
        });
        api.put(a_run("run", &[budgeted()]));
        let process = Process::start(&api, &source, &clock);
        let writes = {
            let api = api.clone();
            move || api.writes().len()
        };
        until(&api, "run", |run| writes() >= survive || run["status"]["phase"] == "Pass").await;
        // The question is on its way, or about to be.
        sleep(SECOND * 5).await;
        process.kill().await;
        let process = Process::start(&api, &source, &clock);
        let run = phase(&api, "run", "Pass").await;
        process.stop().await;
        assert_eq!(source.distinct_keys(), 1, "after write {survive}");
        let spent = &run["status"]["gates"][0]["spent"];
        assert_eq!((spent["verdicts"].as_i64(), spent["microDollars"].as_i64()), (Some(1), Some(1500)), "after write {survive}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_for_all_runs_of_a_release() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| {
        let judged = Progress::Votes(Box::new(Judgement::of_one(Vote::Pass, "fine", Tokens { input: 10, output: 1 })));
        (SECOND, Ok(judged))
    });
    let budgeted = || {
        let mut gate = judge();
        gate["judge"]["budget"] = json!({ "verdicts": 2 });
        gate
    };
    let of = |name: &str, revision: &str, attempt: i64| {
        let mut run = a_run(name, &[budgeted()]);
        run["spec"]["revision"] = json!(revision);
        run["spec"]["attempt"] = json!(attempt);
        run
    };
    let process = Process::start(&api, &source, &clock);
    for name in ["first", "second"] {
        api.put(of(name, "r2", 1));
        phase(&api, name, "Pass").await;
    }
    api.put(of("third", "r2", 1));
    let third = until(&api, "third", |run| run["status"]["gates"][0]["counts"]["inconclusive"].as_i64() > Some(0)).await;
    let gate = &third["status"]["gates"][0];
    assert!(gate["message"].as_str().unwrap().contains("budget of 2 verdicts is spent"), "{gate}");
    assert_eq!((gate["spent"]["verdicts"].as_i64(), gate["spent"]["earlierVerdicts"].as_i64()), (Some(0), Some(2)));
    assert_eq!(source.starts.lock().len(), 2);
    // Another attempt and another revision have budgets of their own.
    for (name, revision, attempt) in [("fourth", "r2", 2), ("fifth", "r3", 1)] {
        api.put(of(name, revision, attempt));
        phase(&api, name, "Pass").await;
    }
    process.stop().await;
}
