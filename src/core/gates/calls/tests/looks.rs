use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{compare, gate, with};
use crate::api::analysis::Gate;
use crate::api::run::{Comparison, Memory, Verdict};
use crate::core::gates::calls::{Bucket, Look, Moment, PodSample, Question, Snapshot, look, sentence, told};
use crate::core::window::add;

fn start() -> Timestamp {
    "2026-01-01T10:00:00Z".parse().unwrap()
}

/// Looks every 30 s at one pod an arm, whose counters grow by so much each time. What is written is what is read back.
struct Looking {
    gate: Gate,
    memory: Memory,
    known: Option<Comparison>,
    looks: i64,
    canary: Vec<u64>,
    stable: Vec<u64>,
}

impl Looking {
    fn at(gate: Gate, columns: usize) -> Self {
        Self { gate, memory: Memory::default(), known: None, looks: 0, canary: vec![0; columns], stable: vec![0; columns] }
    }

    fn snapshot(&self) -> Snapshot {
        let at = start().as_second() + 30 * self.looks;
        let pod = |canary: bool, counts: &[u64]| PodSample {
            pod: format!("agent-{canary}"),
            canary,
            scraped: at as f64,
            counts: counts.iter().map(|n| Some(*n)).collect(),
        };
        Snapshot { at, pods: vec![pod(true, &self.canary), pod(false, &self.stable)], buckets: Vec::new() }
    }

    fn see(&mut self, seen: &Snapshot) -> Look {
        let question = Question::of(&self.gate).unwrap().unwrap();
        let now = add(start(), Duration::from_secs(u64::try_from(30 * self.looks).unwrap()));
        let moment = Moment { started_at: now, first_at: start(), traffic_since: Some(start()), min_duration: Duration::ZERO, others: 0 };
        let look = look(&question, &self.memory, self.known.as_ref(), seen, &moment);
        let text = serde_json::to_string(&(&look.memory, &look.comparison)).unwrap();
        let back: (Memory, Option<Comparison>) = serde_json::from_str(&text).unwrap();
        assert_eq!((&back.0, &back.1), (&look.memory, &look.comparison), "what is read back is what was written");
        (self.memory, self.known) = back;
        look
    }

    fn tick(&mut self, canary: &[u64], stable: &[u64]) -> Look {
        self.looks += 1;
        self.canary.iter_mut().zip(canary).for_each(|(sum, n)| *sum += n);
        self.stable.iter_mut().zip(stable).for_each(|(sum, n)| *sum += n);
        let seen = self.snapshot();
        self.see(&seen)
    }
}

#[test]
fn a_bad_canary_fails_for_good_and_the_sentence_says_why() {
    let mut looking = Looking::at(compare(json!({})), 2);
    assert_eq!(looking.tick(&[0, 0], &[0, 0]).message, "counts calls from here on");
    let first = looking.tick(&[10, 3], &[200, 8]);
    assert_eq!(first.verdict, Verdict::Inconclusive);
    assert!(first.message.starts_with("3 of 10 canary calls, 8 of 200 stable; evidence "), "{}", first.message);
    assert!(
        first.message.contains("abort line 100x; below odds ratio 4: ") && first.message.contains("30 canary calls are needed"),
        "{}",
        first.message
    );
    let verdicts: Vec<Verdict> = (0..6).map(|_| looking.tick(&[10, 3], &[200, 8]).verdict).collect();
    assert!(verdicts.contains(&Verdict::Fail), "{verdicts:?}");
    let known = looking.known.unwrap();
    assert!(known.log_evidence >= known.log_abort_line && known.low.unwrap() > 1.0, "{known:?}");
    assert!(sentence(&known, 5).ends_with("abort line 100x"), "{}", sentence(&known, 5));
}

#[test]
fn a_good_canary_passes_by_weight_and_evidence_carries_over() {
    let mut looking = Looking::at(compare(json!({})), 2);
    looking.tick(&[0, 0], &[0, 0]);
    let mut passed = [None; 3];
    for i in 0..200 {
        let look = looking.tick(&[10, u64::from(i % 2 == 0)], &[190, 10]);
        assert_ne!(look.verdict, Verdict::Fail);
        for (line, passed) in look.comparison.unwrap().pass.iter().zip(&mut passed) {
            *passed = passed.or(line.passes.then_some(i));
        }
    }
    let [at_5, at_25, at_50] = passed.map(Option::unwrap);
    assert!(at_5 < at_25 && at_25 < at_50, "{passed:?}");
    assert!((2..20).contains(&at_5) && at_50 < 60, "{passed:?}");
}

#[test]
fn a_look_that_comes_twice_changes_nothing() {
    let mut looking = Looking::at(compare(json!({})), 2);
    looking.tick(&[0, 0], &[0, 0]);
    looking.tick(&[10, 3], &[200, 8]);
    let (memory, known, seen) = (looking.memory.clone(), looking.known.clone(), looking.snapshot());
    let again = looking.see(&seen);
    assert_eq!((again.verdict, &again.memory, &again.comparison), (Verdict::Inconclusive, &memory, &known));
    assert!(again.message.contains("taken in already"), "{}", again.message);
}

#[test]
fn a_run_remembers_only_so_much() {
    let mut looking = Looking::at(compare(json!({})), 2);
    let mut seen = looking.snapshot();
    let pod = seen.pods[1].clone();
    seen.pods.extend((0..2000).map(|i| PodSample { pod: format!("voice-agent-5d8c7b9f6-{i:05}"), ..pod.clone() }));
    let look = looking.see(&seen);
    assert_eq!((look.verdict, look.memory), (Verdict::Error, Memory::default()));
    assert!(
        look.message.contains("the counters of 2002 pods") && look.message.contains("200 kB is the most: use fewer edges"),
        "{}",
        look.message
    );
    seen.pods.truncate(1000);
    assert_eq!(looking.see(&seen).verdict, Verdict::Inconclusive);
}

#[test]
fn a_limit_looks_at_the_canary_alone() {
    let limit = || with(gate("absolute", json!({ "bad": "b", "total": "t", "maxRate": 0.05, "minCanary": 30 })), 0.01);
    let mut bad = Looking::at(limit(), 2);
    bad.tick(&[0, 0], &[0, 0]);
    let look = (0..10).map(|_| bad.tick(&[20, 5], &[0, 0])).find(|l| l.verdict == Verdict::Fail).unwrap();
    assert!(look.message.contains("canary calls (25 %); evidence ") && !look.message.contains("stable"), "{}", look.message);
    let mut good = Looking::at(limit(), 2);
    good.tick(&[0, 0], &[0, 0]);
    let first = good.tick(&[20, 0], &[0, 0]);
    assert!(first.verdict == Verdict::Inconclusive && first.message.contains("below 10 % of calls bad"), "{}", first.message);
    assert!((0..10).any(|_| good.tick(&[20, 0], &[0, 0]).verdict == Verdict::Pass));
}

#[test]
fn other_margins_begin_anew_and_say_so() {
    let mut looking = Looking::at(compare(json!({})), 2);
    looking.tick(&[0, 0], &[0, 0]);
    looking.tick(&[10, 3], &[200, 8]);
    looking.gate = compare(json!({ "grid": [2] }));
    let look = looking.tick(&[1, 0], &[20, 1]);
    assert_eq!(look.comparison.unwrap().canary.calls, 1);
    assert!(look.warnings[0].contains("the evidence began anew"), "{:?}", look.warnings);
}

#[test]
fn odd_units_and_buckets_are_told() {
    let histogram = |metric: &str, edge: f64| gate("compareHistogram", json!({ "metric": metric, "edges": [edge] }));
    let buckets = |all: &[(f64, f64)]| all.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect::<Vec<_>>();
    let inf = f64::INFINITY;
    let fine = [(300.0, 400.0), (600.0, 700.0), (900.0, 950.0), (inf, 1000.0)];
    for (gate, all, part) in [
        (histogram("first_token_ms_bucket", 900.0), &fine[..], ""),
        (histogram("first_token_ms_bucket", 0.9), &fine, "look like seconds, and first_token_ms_bucket counts milliseconds"),
        (histogram("first_token_seconds_bucket", 900.0), &fine, "look like milliseconds, and first_token_seconds_bucket counts seconds"),
        (histogram("x_bucket", 900.0), &[(100.0, 1.0), (900.0, 998.0), (inf, 1000.0)], "of calls lie in the bucket from 100 to 900"),
        (histogram("x_bucket", 900.0), &[(100.0, 100.0), (900.0, 900.0), (inf, 1000.0)], "beside the edge 900"),
        (histogram("x_bucket", 900.0), &[(100.0, 1.0), (900.0, 99.0), (inf, 100.0)], ""),
    ] {
        let mut looking = Looking::at(gate, 2);
        let seen = Snapshot { buckets: buckets(all), ..looking.snapshot() };
        let warnings = looking.see(&seen).warnings.join("|");
        assert!(if part.is_empty() { warnings.is_empty() } else { warnings.contains(part) }, "{part}: {warnings}");
    }
    let mut looking = Looking::at(compare(json!({})), 2);
    looking.canary = vec![5, 9];
    let seen = looking.snapshot();
    assert!(looking.see(&seen).warnings[0].contains("more bad or good calls than calls"));
}

#[test]
fn a_message_that_begins_with_an_edge_needs_no_colon() {
    assert_eq!(told("first-token", "> 900: 7 of 41"), "first-token > 900: 7 of 41");
    assert_eq!(told("pass-rate", "7 of 41"), "pass-rate: 7 of 41");
}
