//! What the agent counts, in Prometheus text. The revision label is added by the scrape, from the pod's labels.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// 800 ms, where gates cut, is a bound of its own; so are its neighbours that a slow version lands on.
const FIRST_TOKEN_MS: [f64; 14] = [50.0, 100.0, 150.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 1000.0, 1200.0, 1600.0, 3200.0];
const TOOL_CALLS: [f64; 9] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0];
const COST_USD: [f64; 9] = [0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// What the agent counts.
pub struct Metrics {
    registry: Registry,
    /// Times to the first token.
    pub first_token_ms: Histogram,
    /// Calls that began.
    pub started: Counter,
    /// Calls that are open.
    pub active: Gauge,
    ended: Family<Outcome, Counter>,
    tool_calls: Histogram,
    cost_usd: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let (first_token_ms, tool_calls, cost_usd) = (Histogram::new(FIRST_TOKEN_MS), Histogram::new(TOOL_CALLS), Histogram::new(COST_USD));
        let (started, active, ended) = (Counter::default(), Gauge::default(), Family::<Outcome, Counter>::default());
        // Both results are there from the start: a rate over a series that appears later misses its first increase.
        for result in ["ok", "failed"] {
            drop(ended.get_or_create(&Outcome { result }));
        }
        let mut registry = Registry::default();
        registry.register("voice_first_token_ms", "Time to the first token of a turn, in ms", first_token_ms.clone());
        registry.register("voice_calls_started", "Calls that began", started.clone());
        registry.register("voice_calls", "Calls that ended, by result", ended.clone());
        registry.register("voice_calls_active", "Calls that are open", active.clone());
        registry.register("voice_tool_calls_per_call", "Tool calls in a call", tool_calls.clone());
        registry.register("voice_cost_usd_per_call", "Cost of a call in US dollars", cost_usd.clone());
        Self { registry, first_token_ms, started, active, ended, tool_calls, cost_usd }
    }
}

impl Metrics {
    /// Counts the end of a call.
    pub fn end_call(&self, good: bool, tool_calls: f64, cost_usd: f64) {
        self.active.dec();
        self.ended.get_or_create(&Outcome { result: if good { "ok" } else { "failed" } }).inc();
        self.tool_calls.observe(tool_calls);
        self.cost_usd.observe(cost_usd);
    }

    /// OpenMetrics text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}
