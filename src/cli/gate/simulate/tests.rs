use std::path::PathBuf;

use super::*;
use crate::cli::args::{GateVerb, Verb, parse};

const COMPARE: &str = "
name: failed-calls
falseAbort: 0.05
compare:
  prometheus: {address: 'http://prometheus:9090'}
  bad: voice_calls_failed_total
  total: voice_calls_ended_total
";

const HISTOGRAM: &str = "
name: first-token
falseAbort: 0.05
compareHistogram:
  prometheus: {address: 'http://prometheus:9090'}
  metric: voice_first_token_ms_bucket
  edges: [700, 900, 1200]
";

/// Runs the verb with these words after `--gate FILE`.
fn run(gate: &str, words: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("gate.yaml");
    std::fs::write(&path, gate).unwrap();
    let all = ["voicerollout", "gate", "simulate", "--gate", path.to_str().unwrap()];
    let cli = parse(all.into_iter().chain(words.split_whitespace())).map_err(|e| e.to_string())?;
    let Verb::Gate(GateVerb::Simulate(args)) = cli.verb else { panic!("another verb") };
    let mut out = Vec::new();
    simulate(&args, Paint::default(), &mut out).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_table_of_chances_times_and_calls() {
    let text = run(COMPARE, "--calls-per-minute 200 --bad-rate 0.08 --regression 2.5 --rollouts 40 --tick 60s").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "failed-calls (compare): 200 calls a minute, 5 % to the canary, 30m in ticks of 1m; 40 rollouts of each kind, seed 1"
    );
    assert!(
        lines[2].starts_with("canary") && lines[3].starts_with("the same") && lines[4].starts_with("2.5 times the bad calls"),
        "{text}"
    );
    assert!(lines[3].contains("  0 % (0 to 8.8)") && lines[3].contains("  100 % (91.2 to 100)"), "{text}");
    assert!(lines[4].contains("m, ") && lines[4].ends_with("  45 to 70 to abort"), "{text}");
    assert!(text.contains("at most 5 % is promised"), "{text}");
    let again = run(COMPARE, "--calls-per-minute 200 --bad-rate 0.08 --regression 2.5 --rollouts 40 --tick 60s --seed 1").unwrap();
    assert_eq!(again, text, "the same seed plays the same releases");
}

#[test]
fn an_object_with_everything_that_is_in_the_table() {
    let words = "--turns-per-minute 300 --p95 943 --sigma 0.45 --regression 1.15,1.3 --rollouts 30 --tick 1m --weight 5,25 --json";
    let value: Value = serde_json::from_str(&run(HISTOGRAM, words).unwrap()).unwrap();
    assert_eq!((&value["kind"], &value["weights"], &value["minutes"]), (&json!("compareHistogram"), &json!([5.0, 25.0]), &json!(30.0)));
    assert_eq!((&value["falseAbort"], &value["tickSeconds"], &value["seed"]), (&json!(0.05), &json!(60.0), &json!(1)));
    let canaries = value["canaries"].as_array().unwrap();
    let sizes: Vec<f64> = canaries.iter().map(|c| c["regression"].as_f64().unwrap()).collect();
    assert_eq!(sizes, [1.0, 1.15, 1.3]);
    for canary in canaries {
        let share = |verdict: &str| canary[verdict]["share"].as_f64().unwrap();
        assert!((share("aborted") + share("passed") + share("undecided") - 1.0).abs() < 1e-12, "{canary}");
        let aborted = &canary["aborted"];
        let p = share("aborted");
        assert!((aborted["standardError"].as_f64().unwrap() - (p * (1.0 - p) / 30.0).sqrt()).abs() < 1e-12, "{canary}");
        assert!(aborted["low"].as_f64().unwrap() <= p && p <= aborted["high"].as_f64().unwrap(), "{canary}");
        assert_eq!(canary["plan"].as_array().unwrap().len(), 2, "one for each weight");
    }
    assert!(canaries[0]["plan"][0]["callsToAbort"].is_null() && canaries[0]["plan"][0]["callsToPass"]["low"].as_f64() > Some(10.0));
    let found = &canaries[2]["aborted"];
    assert!(found["share"].as_f64() > Some(0.9) && found["medianMinutes"].as_f64() <= Some(5.0), "{found}");
    assert!(found["medianCanaryCalls"].as_f64() > Some(10.0), "{found}");
}

#[test]
fn latencies_may_be_given_in_several_ways() {
    let with = |words: &str| run(HISTOGRAM, &format!("--calls-per-minute 300 --rollouts 20 --json {words}")).unwrap();
    let lognormal = with("--p95 943 --sigma 0.45");
    let median = 943.0 * (-1.644_853_626_951_472_2f64 * 0.45).exp();
    let of = |text: &str| serde_json::from_str::<Value>(text).unwrap()["canaries"][1]["aborted"]["share"].as_f64().unwrap();
    for other in [format!("--median {median} --sigma 0.45"), format!("--median {median} --p95 943")] {
        assert!((of(&with(&other)) - of(&lognormal)).abs() < 0.11, "{other}");
    }
    let buckets = with("--buckets 300=145,500=560,700=849,900=940,1200=985,+Inf=1000");
    assert!(of(&buckets) > 0.9, "{buckets}");
}

#[test]
fn a_limit_is_simulated_too() {
    let limit = COMPARE.replace("compare:", "absolute:\n  maxRate: 0.05");
    let text = run(&limit, "--calls-per-minute 100 --weight 20 --bad-rate 0.03 --regression 4 --rollouts 20").unwrap();
    assert!(text.starts_with("failed-calls (absolute)") && text.contains("4 times the bad calls  100 % "), "{text}");
}

#[test]
fn bad_input_is_named_with_its_flag() {
    let good = "--calls-per-minute 200 --bad-rate 0.08";
    let paired = "
name: pairs
paired: {web: {url: 'http://h'}, stableOnly: '{$.a}', canaryOnly: '{$.b}', total: '{$.c}'}
";
    for (gate, words, part) in [
        (COMPARE, "--bad-rate 0.1", "--calls-per-minute <NUMBER>"),
        (COMPARE, "--calls-per-minute 100", "this gate compares counters: give --bad-rate"),
        (COMPARE, "--calls-per-minute 100 --bad-rate 0.1 --p95 3", "none of --median"),
        (COMPARE, "--calls-per-minute 0 --bad-rate 0.1", "--calls-per-minute is 0: use a number above 0"),
        (COMPARE, "--calls-per-minute nan --bad-rate 0.1", "--calls-per-minute is NaN: use a number above 0"),
        (COMPARE, "--calls-per-minute 1e9 --bad-rate 0.1", "use a shorter --tick"),
        (COMPARE, "--calls-per-minute 100 --bad-rate 1", "--bad-rate is 1: use a number between 0 and 1"),
        (COMPARE, &format!("{good} --weight 100"), "--weight is 100: use a percentage above 0 and below 100"),
        (COMPARE, &format!("{good} --weight 25,5"), "--weight: weights have to rise"),
        (COMPARE, &format!("{good} --regression 0"), "--regression is 0: use a number above 0"),
        (COMPARE, &format!("{good} --rollouts 0"), "--rollouts"),
        (COMPARE, &format!("{good} --duration 10s --tick 1m"), "--duration is shorter than a tick"),
        (COMPARE, &format!("{good} --duration 5"), "--duration"),
        (HISTOGRAM, good, "this gate compares a histogram at 700, 900, 1200: give two of --median, --p95, --sigma, or --buckets"),
        (HISTOGRAM, "--calls-per-minute 9 --p95 900", "exactly two of --median, --p95, --sigma"),
        (HISTOGRAM, "--calls-per-minute 9 --p95 900 --median 950", "--p95 900 has to be above --median 950"),
        (HISTOGRAM, "--calls-per-minute 9 --median 0 --sigma 1", "--median is 0: use a number above 0"),
        (HISTOGRAM, "--calls-per-minute 9 --buckets 700=3,x", "--buckets: `x` is not BOUND=COUNT"),
        (HISTOGRAM, "--calls-per-minute 9 --buckets 700=3,900=4", "--buckets: `+Inf`, the number of all calls, is missing"),
        (HISTOGRAM, "--calls-per-minute 9 --buckets 700=4,900=3,+Inf=9", "--buckets: bucket 900 holds fewer calls"),
        (HISTOGRAM, "--calls-per-minute 9 --buckets 700=4,+Inf=9", "--buckets: fewer than two bounds"),
        (
            HISTOGRAM,
            "--calls-per-minute 9 --buckets 500=2,700=4,900=6,+Inf=9",
            "--buckets: 1200 is not the bound of a bucket; there are 500, 700, 900",
        ),
        (&COMPARE.replace("0.05", "0.7"), good, "falseAbort"),
        (&COMPARE.replace("bad:", "badd:"), good, "compare.badd: there is no such field"),
        (paired, good, "gate.yaml: only compare, compareHistogram and absolute gates count calls and can be simulated"),
    ] {
        let error = run(gate, words).unwrap_err();
        assert!(error.contains(part), "{words}: {part}: {error}");
    }
}
