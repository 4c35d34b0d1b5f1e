//! What gates that count calls cost: a look at new counters, and imagined releases. On one core, without a control plane.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use voicerollout::api::analysis::Gate;
use voicerollout::api::run::{Comparison, Memory};
use voicerollout::cli::args::{GateVerb, Verb, parse};
use voicerollout::cli::gate::simulate;
use voicerollout::cli::table::Paint;
use voicerollout::core::gates::calls::{Moment, PodSample, Question, Snapshot, look};

use crate::figures::Times;
use crate::stack::{Error, Result};

/// Gates that look.
const GATES: usize = 1000;
/// Looks of each.
const LOOKS: u64 = 10;
/// Calls in a tick, of stable and canary, and the pods that they are spread over.
const CALLS: [(bool, u64, u64); 2] = [(false, 10_000, 10), (true, 500, 2)];
/// Share of calls above each edge; the first is that of bad calls too.
const ABOVE: [f64; 3] = [0.08, 0.05, 0.02];

/// Prints the figures.
pub fn run() -> Result<()> {
    let [(_, stable, stable_pods), (_, canary, canary_pods)] = CALLS;
    println!(
        "\none look of {GATES} gates, each with {stable} stable and {canary} canary calls since the last one ({stable_pods} and {canary_pods} pods)"
    );
    println!("  from the counters of the pods to memory, verdict, interval, outlook and sentence; one thread; time of all gates together");
    let counters = json!({"bad": "failed_total", "total": "ended_total"});
    let histogram = json!({"metric": "first_token_ms_bucket", "edges": [700, 900, 1200]});
    looks("compare", &gate("compare", &counters)?)?;
    looks("compareHistogram, three edges", &gate("compareHistogram", &histogram)?)?;
    println!(
        "\ngate simulate, whole command: twice 1,000 releases of 30 ticks (a canary that is the same, and one that is 1.3 times worse)"
    );
    simulated("compare, 200 calls a minute", &yaml("compare", &counters), "--calls-per-minute 200 --bad-rate 0.08")?;
    for rate in [60, 300, 1500] {
        let flags = format!("--turns-per-minute {rate} --p95 943 --sigma 0.45");
        simulated(&format!("compareHistogram, {rate} turns a minute"), &yaml("compareHistogram", &histogram), &flags)?;
    }
    Ok(())
}

fn yaml(kind: &str, fields: &Value) -> Value {
    let mut all = json!({"prometheus": {"address": "http://prometheus:9090"}, "warmup": "0s", "minCanary": 1_000_000});
    if let (Some(all), Some(fields)) = (all.as_object_mut(), fields.as_object()) {
        all.extend(fields.clone());
    }
    json!({"name": "gate", "falseAbort": 0.05, kind: all})
}

fn gate(kind: &str, fields: &Value) -> Result<Gate> {
    serde_json::from_value(yaml(kind, fields)).map_err(|e| Error::other(e.to_string()))
}

/// Counters after so many ticks.
fn snapshot(question: &Question<'_>, tick: u64, start: i64) -> Snapshot {
    let at = start + 30 * i64::try_from(tick).unwrap_or(0);
    let pods = CALLS.iter().flat_map(|(canary, calls, pods)| {
        let calls = calls / pods * tick;
        let part = |share: &f64| (calls as f64 * share) as u64;
        // A histogram counts the calls up to a bound.
        let counted = ABOVE.iter().map(|share| if question.columns() == 2 { part(share) } else { calls - part(share) });
        let counts: Vec<Option<u64>> = std::iter::once(calls).chain(counted).take(question.columns()).map(Some).collect();
        (0..*pods).map(move |pod| PodSample {
            pod: format!("agent-{canary}-{pod}"),
            canary: *canary,
            scraped: at as f64,
            counts: counts.clone(),
        })
    });
    Snapshot { at, pods: pods.collect(), buckets: Vec::new() }
}

fn looks(title: &str, gate: &Gate) -> Result<()> {
    let question = match Question::of(gate) {
        Some(Ok(question)) => question,
        other => return Err(Error::other(format!("{other:?}"))),
    };
    let start = jiff::Timestamp::now();
    let mut known: Vec<(Memory, Option<Comparison>)> = vec![(Memory::default(), None); GATES];
    let mut times = Vec::new();
    for tick in 0..=LOOKS {
        let seen = snapshot(&question, tick, start.as_second());
        let moment = Moment { started_at: start, first_at: start, traffic_since: Some(start), min_duration: Duration::ZERO, others: 0 };
        let begun = Instant::now();
        for (memory, comparison) in &mut known {
            let look = look(&question, memory, comparison.as_ref(), &seen, &moment);
            (*memory, *comparison) = (look.memory, look.comparison);
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    // The first look only notes where the counters stand.
    Times::new(times.split_off(1)).print(title);
    let seen = known.first().and_then(|(_, c)| c.as_ref()).map_or(0, |c| c.canary.calls);
    println!("    canary calls that each gate has counted: {seen}");
    Ok(())
}

fn simulated(title: &str, gate: &Value, flags: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(gate.to_string().as_bytes())?;
    let path = file.path().to_string_lossy().into_owned();
    let words = ["voicerollout", "gate", "simulate", "--tick", "1m", "--gate", &path];
    let cli = parse(words.into_iter().chain(flags.split(' '))).map_err(|e| Error::other(e.to_string()))?;
    let Verb::Gate(GateVerb::Simulate(args)) = cli.verb else { return Err(Error::other("another command")) };
    let begun = Instant::now();
    simulate(&args, Paint::default(), &mut std::io::sink()).map_err(|e| Error::other(e.to_string()))?;
    println!("  {title:<44} {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}
