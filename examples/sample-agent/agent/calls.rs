//! Simulated calls: what each is like, and how many are open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tokio::sync::watch;

use super::config::Config;
use super::log;
use super::metrics::Metrics;
use super::rng::Rng;

/// The agent's calls.
pub struct Calls {
    /// What the agent was told.
    pub config: Config,
    /// What it counts.
    pub metrics: Metrics,
    number: AtomicU64,
    open: watch::Sender<usize>,
    leaving: watch::Sender<bool>,
    refusing: AtomicBool,
}

impl Calls {
    /// No calls yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            metrics: Metrics::default(),
            number: AtomicU64::new(0),
            open: watch::channel(0).0,
            leaving: watch::channel(false).0,
            refusing: AtomicBool::new(false),
        }
    }

    /// Takes a call; `None` when calls are refused.
    pub fn begin(self: &std::sync::Arc<Self>) -> Option<Call> {
        // Counted first: a drain that starts in between sees the call and waits for it.
        self.open.send_modify(|n| *n += 1);
        if self.refusing.load(Ordering::SeqCst) {
            self.open.send_modify(|n| *n -= 1);
            return None;
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.metrics.started.inc();
        self.metrics.active.inc();
        let mut rng = Rng::of(self.config.seed, &self.config.pod, number);
        let failed = rng.unit() < self.config.fail_rate;
        if let Some(line) = &self.config.log_line {
            log::line(&self.config, if failed { "error" } else { "warn" }, line, json!({"call": number}));
        }
        Some(Call { calls: self.clone(), number, rng, failed, ended: false })
    }

    /// The agent is not ready from now on.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Whether the agent is on its way out.
    pub fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Tells when the agent is on its way out.
    pub fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// New calls are refused from now on.
    pub fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    /// How many calls are open.
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Returns when no call is open.
    pub async fn all_ended(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|n| *n == 0).await;
    }
}

/// One call. Counted as failed when it is dropped before [`Call::end`].
pub struct Call {
    calls: std::sync::Arc<Calls>,
    number: u64,
    rng: Rng,
    failed: bool,
    ended: bool,
}

impl Call {
    /// The agent's next turn: its time to the first token in ms, which is recorded.
    pub fn turn(&mut self) -> f64 {
        let config = &self.calls.config;
        let ms = match config.sigma {
            0.0 => (config.first_token_ms + config.jitter_ms * (2.0 * self.rng.unit() - 1.0)).max(0.0),
            sigma => config.first_token_ms * (sigma * self.rng.normal()).exp(),
        };
        let ms = config.slowdown * ms;
        self.calls.metrics.first_token_ms.observe(ms);
        ms
    }

    /// The call came to its natural end; returns whether it went well.
    pub fn end(mut self) -> bool {
        let good = !self.failed;
        self.finish(good);
        good
    }

    fn finish(&mut self, good: bool) {
        self.ended = true;
        let (config, metrics) = (&self.calls.config, &self.calls.metrics);
        let tools = self.rng.poisson(config.tool_calls);
        // One cent a call and half a cent a tool call, give or take a fifth: a plausible price, nothing more.
        let cost = (0.01 + 0.005 * f64::from(tools)) * (0.8 + 0.4 * self.rng.unit());
        metrics.end_call(good, f64::from(tools), cost);
        log::line(
            config,
            if good { "info" } else { "error" },
            if good { "call ended" } else { "call failed" },
            json!({"call": self.number, "toolCalls": tools, "costUsd": (cost * 1e4).round() / 1e4}),
        );
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(false);
        }
        self.calls.open.send_modify(|n| *n -= 1);
    }
}
