//! Gates that compare the canary with the stable version, on real calls: Envoy draws who answers each, the agents count
//! them, Prometheus scrapes the counts. Whether there are enough of them for each test is computed in [`crate::power`].

use serde_json::{Value, json};
use voicerollout::api::run::{Comparison, RunKind, Verdict};
use voicerollout::api::status::{Phase, VoiceRolloutStatus};

use crate::agent::{Agent, PATIENCE, Version};
use crate::stack::{Part, Result, Seen, wait_for};
use crate::verdicts::aborted_by;
use crate::{gates, run, run_alone};

/// Calls a second.
pub const PER_SECOND: u32 = 80;
/// Times to the first token are lognormal: their median, and the standard deviation of their logarithm.
pub const MEDIAN_MS: f64 = 400.0;
/// See [`MEDIAN_MS`].
pub const SIGMA: f64 = 0.25;
/// Bounds of buckets above which a call is slow.
pub const EDGES_MS: [f64; 2] = [400.0, 500.0];
/// The regression of the first token that has to be found.
pub const SLOWDOWN: f64 = 1.3;
/// Mean number of tool calls in a call.
pub const TOOL_CALLS: f64 = 6.0;
/// The mean of a version that calls 30 % more.
pub const MORE_TOOL_CALLS: f64 = 7.8;
/// Bounds of buckets above which a call uses many tools.
pub const EDGES_TOOLS: [f64; 2] = [6.0, 8.0];
/// Odds ratios that the canary has to be shown to stay below, by weight: what a gate asks for that says nothing.
pub const MARGINS: [(u32, f64); 3] = [(5, 4.0), (25, 3.0), (50, 2.0)];
/// The odds ratio for tool calls: 30 % more of them are one of 3, and would now and then be shown to stay below 4.
pub const MARGIN_TOOLS: (u32, f64) = (5, 2.0);
/// Chance that a release aborts though its canary is no worse, over all gates: so often a test would fail by chance.
pub const FALSE_ABORT: f64 = 0.0001;
/// Chance that a weight is passed by a canary that is as bad as its margin.
pub const FALSE_PROMOTE: f64 = 0.01;

/// A version whose times to the first token are spread as those of real ones.
fn version(tag: &'static str) -> Version {
    let good = Version::good(tag).with("AGENT_FIRST_TOKEN_MS", &MEDIAN_MS.to_string());
    good.with("AGENT_FIRST_TOKEN_SIGMA", &SIGMA.to_string()).with("AGENT_TOOL_CALLS", &TOOL_CALLS.to_string())
}

/// Compares the canary's calls above edges of one of the agents' histograms with those of stable.
fn compare(agent: &Agent, name: &str, histogram: &str, edges: &[f64]) -> Value {
    gate(name, agent.world.stack.prometheus_url(), &format!("{histogram}_bucket{{namespace=\"{}\"}}", agent.ns.name), edges)
}

/// A gate that compares the buckets `metric` of a server.
pub fn gate(name: &str, server: &str, metric: &str, edges: &[f64]) -> Value {
    json!({"name": name, "compareHistogram": {
        "prometheus": {"address": server, "scrapeInterval": "1s", "timeout": "5s"},
        "metric": metric,
        "edges": edges, "interval": "1s", "warmup": "0s", "falsePromote": FALSE_PROMOTE,
    }})
}

fn first_token(agent: &Agent) -> Value {
    compare(agent, "first-token", "voice_first_token_ms", &EDGES_MS)
}

fn tool_calls(agent: &Agent) -> Value {
    let mut gate = compare(agent, "tool-calls", "voice_tool_calls_per_call", &EDGES_TOOLS);
    let (weight, margin) = MARGIN_TOOLS;
    gate["compareHistogram"]["passIf"] = json!({"oddsRatioBelow": {weight.to_string(): margin}});
    gate
}

/// Sets background gates, and gives steps through these weights, each of which they have to pass.
fn in_background(agent: &mut Agent, gates: &[Value], weights: &[u8]) -> Value {
    let names: Vec<&Value> = gates.iter().map(|gate| &gate["name"]).collect();
    let steps = weights.iter().flat_map(|weight| [json!({"setWeight": weight}), json!({"analysis": {"require": names}})]).collect();
    agent.manifest["spec"]["falseAbort"] = json!(FALSE_ABORT);
    agent.manifest["spec"]["analysis"] = json!({"gates": gates});
    steps
}

/// What the background run of a revision has found, for one of its gates.
async fn found(agent: &Agent, revision: &str, gate: &str) -> Result<Option<Comparison>> {
    let runs = agent.runs().await?;
    let run = runs.into_iter().find(|run| run.spec.revision == revision && run.spec.kind == RunKind::Background);
    let gates = run.and_then(|run| run.status).map(|status| status.gates).unwrap_or_default();
    Ok(gates.into_iter().find(|one| one.name == gate).and_then(|one| one.comparison))
}

/// An identical canary is shown, at each weight, to be better than its margin, and reaches everybody; then one that takes
/// 1.3 times as long to its first token goes through the same gates, and is stopped at 5 %.
#[test]
fn an_identical_canary_is_promoted_and_one_with_a_first_token_1_3_times_as_late_is_caught_at_5_percent() {
    run("slower", async |mut agent| {
        let gate = first_token(&agent);
        let steps = in_background(&mut agent, &[gate], &[5, 25, 50]);
        agent.start_as(&version("v1"), steps).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(PER_SECOND));

        let same = agent.release(&version("v2")).await?;
        let status = agent.promoted(&same).await?;
        assert_eq!(log.so_far(), [0, 5, 25, 50, 100, 0]);
        assert!(status.decisions.iter().any(|d| d.decision == "Promoted" && d.reason.contains("every step passed")), "{status:?}");
        let shown = found(&agent, &same, "first-token").await?.expect("a comparison");
        println!("identical: {shown:?}");
        for (line, (weight, margin)) in shown.pass.iter().zip(MARGINS) {
            assert_eq!((line.weight, line.below.as_str()), (weight as i32, format!("odds ratio {margin}").as_str()));
            assert!(line.passed_at.is_some(), "{line:?}");
        }
        assert!(shown.log_evidence < shown.log_abort_line, "{shown:?}");

        let slow = agent.release(&version("v3").with("AGENT_SLOWDOWN", &SLOWDOWN.to_string())).await?;
        aborted_by(&agent, "first-token", "at step 2/6, weight 5").await?;
        assert_eq!(log.so_far(), [0, 5, 25, 50, 100, 0, 5, 0]);
        let shown = found(&agent, &slow, "first-token").await?.expect("a comparison");
        println!("1.3 times as late: {shown:?}");
        assert!(shown.log_evidence >= (1.0 / FALSE_ABORT).ln() && shown.low.is_some_and(|low| low > 1.0), "{shown:?}");
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

/// As fast as before, and 30 % more tool calls in a call: seen in the histogram with one observation a call, and in no other.
#[test]
fn a_version_with_30_percent_more_tool_calls_and_the_same_latency_is_caught_by_comparing_calls() {
    run("tools", async |mut agent| {
        let both = [first_token(&agent), tool_calls(&agent)];
        let steps = in_background(&mut agent, &both, &[5, 25, 50]);
        agent.start_as(&version("v1"), steps).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(PER_SECOND));
        let second = agent.release(&version("v2").with("AGENT_TOOL_CALLS", &MORE_TOOL_CALLS.to_string())).await?;
        let status = aborted_by(&agent, "tool-calls", "at step 2/6, weight 5").await?;
        assert_eq!(log.so_far(), [0, 5, 0]);
        let latency = status.gates.iter().find(|gate| gate.name == "first-token").expect("the other gate");
        assert!(!matches!(latency.verdict, Some(Verdict::Fail | Verdict::Error)), "{latency:?}");
        println!("latency: {:?}", found(&agent, &second, "first-token").await?);
        println!("tool calls: {:?}", found(&agent, &second, "tool-calls").await?);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

/// A judge that weighs the evidence it is sent: the same one passes a release with as many tool calls as before and fails
/// one with 30 % more. With 80 calls a second at 50 % each mean rests on 400 calls and has a standard error of 2 %; the
/// stub's line, 15 % more, lies over four standard errors of the ratio away from both.
#[test]
fn a_version_with_30_percent_more_tool_calls_is_caught_by_a_judge_that_passes_an_identical_one() {
    run("judge-tools", async |mut agent| {
        let of = |series: &str, function: &str| {
            let series =
                format!("voice_tool_calls_per_call_{series}{{namespace=\"{}\",revision=\"{{{{args.revision}}}}\"}}", agent.ns.name);
            format!("sum({function}({series}[10s]))")
        };
        let mut gate = gates::judge(&agent);
        let query = format!("{} / {}", of("sum", "rate"), of("count", "rate"));
        let metric = json!({"address": agent.world.stack.prometheus_url(), "query": query, "scrapeInterval": "1s"});
        gate["judge"]["evidence"] =
            json!({"metrics": [{"name": "tool calls in a call", "prometheus": metric, "countQuery": of("count", "increase")}]});
        agent.gates(&[gate]).await?;
        agent.world.set_judge(&agent.model(), "weigh").await?;
        agent.start_as(&version("v1"), gates::gated(&[50])).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(PER_SECOND));

        let same = agent.release(&version("v2")).await?;
        agent.promoted(&same).await?;
        assert_eq!(log.so_far(), [0, 50, 100, 0]);

        agent.release(&version("v3").with("AGENT_TOOL_CALLS", &MORE_TOOL_CALLS.to_string())).await?;
        let status = aborted_by(&agent, "ai-judge", "tool calls in a call").await?;
        println!("{}", status.abort.unwrap().reason);
        assert_eq!(log.so_far(), [0, 50, 100, 0, 50, 0]);
        Ok(())
    });
}

/// While Prometheus is away nothing is known: the weight is held and the status says why. What was known before is not
/// lost, and calls of the meantime are counted with the first look after it.
#[test]
fn an_outage_of_prometheus_holds_a_comparison_which_goes_on_with_the_evidence_it_had() {
    run_alone("outage-compare", async |mut agent| {
        let mut gate = first_token(&agent);
        gate["errorBudget"] = json!("2s");
        // So many calls of the canary take 15 seconds: the outage begins before the gate may pass.
        gate["compareHistogram"]["minCanary"] = json!(300);
        let steps = in_background(&mut agent, &[gate], &[25]);
        agent.start_as(&version("v1"), steps).await?;
        let (log, _traffic) = (agent.weight_log().await?, agent.calls(PER_SECOND));
        let second = agent.release(&version("v2")).await?;
        let counted = async |least: i64| {
            wait_for(format!("{least} calls of the canary to be counted"), PATIENCE, || async {
                let seen = found(&agent, &second, "first-token").await?;
                Ok(match seen {
                    Some(seen) if seen.canary.calls >= least => Seen::Yes(seen),
                    other => Seen::NotYet(format!("{other:?}")),
                })
            })
            .await
        };
        let before = counted(1).await?;
        let prometheus = agent.world.stack.part(Part::Prometheus);
        prometheus.stop().await;
        let held = |s: &VoiceRolloutStatus| s.phase == Phase::Paused && s.gates.iter().any(|g| g.verdict == Some(Verdict::Error));
        let held = agent.wait("a pause because of Prometheus", held).await;
        let known = found(&agent, &second, "first-token").await;
        prometheus.start().await?;
        let (held, known) = (held?, known?.expect("the comparison so far"));
        assert_eq!((held.weights.applied, log.so_far()), (25, vec![0, 25]));
        assert!(held.waiting_for.contains("first-token"), "{}", held.waiting_for);
        let message = &held.gates[0].message;
        assert!(message.contains("prometheus") || message.contains("/api/v1/query"), "the message names the provider: {message}");
        assert!(known.canary.calls >= before.canary.calls && known.ticks >= before.ticks, "{known:?} after {before:?}");
        assert!(!known.pass.iter().any(|line| line.passes), "nothing had passed: {known:?}");

        let after = counted(known.canary.calls + 1).await?;
        println!("before {before:?}\nheld {known:?}\nafter {after:?}");
        assert!(after.ticks > known.ticks, "{after:?} after {known:?}");
        agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 25, 100, 0]);
        Ok(())
    });
}
