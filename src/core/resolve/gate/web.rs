//! The web provider and the paired gate: requests, long runs, what is read from answers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Check, MIN_INTERVAL};
use crate::api::analysis::{Paired, SuitePaths, WebProvider, WebRun};
use crate::api::common::std_duration;
use crate::core::args::{self, Place};
use crate::core::condition::{Formula, Predicate};

/// Longest deadline of a run.
const MAX_DEADLINE: Duration = Duration::from_secs(3600);
/// Longest time between polls.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(900);
/// `jsonPath` where it is not written.
const WHOLE: &str = "{$}";

/// Whether a URL field is a JSONPath into an answer, in braces, rather than a URL.
pub fn is_in_answer(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{') && !text.starts_with("{{")
}

/// A poll or cancel URL's template in full: one that begins with `/` gets scheme, host and port of the start's.
pub fn absolute(start: &str, text: &str) -> String {
    let text = args::run_facts(text);
    if !text.starts_with('/') || text.starts_with("//") {
        return text.into_owned();
    }
    let authority = start.find("://").map_or(0, |at| at + 3);
    let end = start[authority..].find(['/', '?', '#']).map_or(start.len(), |at| authority + at);
    format!("{}{text}", &start[..end])
}

impl Check<'_> {
    pub(super) fn web(&mut self, w: &WebProvider, path: &str) {
        self.harness(w, path);
        match &w.result {
            _ if w.values.is_empty() != w.result.is_none() => self.error(path, "values and result belong together"),
            None => self.json_path(&format!("{path}.jsonPath"), &w.json_path),
            Some(result) => {
                if w.json_path != WHOLE {
                    self.error(&format!("{path}.jsonPath"), "set either jsonPath, or values and result");
                }
                self.values(w, result, path);
            }
        }
    }

    fn values(&mut self, w: &WebProvider, result: &str, path: &str) {
        for (name, text) in &w.values {
            let at = format!("{path}.values.{name}");
            let mut letters = name.chars();
            let named = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !named || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.error(&at, "a name has letters, digits and _ and does not begin with a digit");
            }
            self.json_path(&at, text);
        }
        let names: BTreeSet<String> = w.values.keys().cloned().collect();
        if let Err(error) = Formula::compile(result, &names) {
            self.error(&format!("{path}.result"), error.to_string());
        }
    }

    pub(super) fn paired(&mut self, p: &Paired, path: &str) {
        let web = format!("{path}.web");
        self.harness(&p.web, &web);
        if p.web.json_path != WHOLE || !p.web.values.is_empty() || p.web.result.is_some() {
            self.error(&web, "a paired gate reads scenarios, or stableOnly, canaryOnly and total: leave out jsonPath, values and result");
        }
        match (&p.scenarios, &p.stable_only, &p.canary_only, &p.total) {
            (Some(scenarios), None, None, None) => {
                for (name, text) in [("path", &scenarios.path), ("stable", &scenarios.stable), ("canary", &scenarios.canary)] {
                    self.json_path(&format!("{path}.scenarios.{name}"), text);
                }
            }
            (None, Some(stable), Some(canary), Some(total)) => {
                for (name, text) in [("stableOnly", stable), ("canaryOnly", canary), ("total", total)] {
                    self.json_path(&format!("{path}.{name}"), text);
                }
            }
            _ => self.error(path, "set either scenarios, or stableOnly, canaryOnly and total"),
        }
        self.period(&format!("{path}.interval"), p.interval, Some(MIN_INTERVAL));
        self.period(&format!("{path}.initialDelay"), p.initial_delay, None);
        if p.count > 1 && p.interval.is_none() {
            self.error(&format!("{path}.interval"), format!("count {} needs an interval", p.count));
        }
        if p.min_pairs < 1 {
            self.error(&format!("{path}.minPairs"), "must be 1 or more: nothing passes without a scenario");
        }
        if !(p.margin > 0.0 && p.margin <= 0.5) {
            self.error(&format!("{path}.margin"), "a share of the scenarios, above 0 and up to 0.5");
        }
        if !(p.false_promote > 0.0 && p.false_promote < 0.5) {
            self.error(&format!("{path}.falsePromote"), "a chance above 0 and below 0.5");
        }
    }

    /// Everything but what the value is.
    fn harness(&mut self, w: &WebProvider, path: &str) {
        self.knowing(&["run.key"], |check| {
            check.url(&format!("{path}.url"), &args::run_facts(&w.url));
            if let Some(body) = &w.body {
                check.args(&format!("{path}.body"), &args::run_facts(body), Place::Json);
            }
            check.access(&w.access, path);
        });
        self.timeout(&format!("{path}.timeout"), w.timeout);
        if let Some(SuitePaths { name, version, seed, dataset }) = &w.suite {
            for (field, text) in [("name", name), ("version", version), ("seed", seed), ("dataset", dataset)] {
                if let Some(text) = text {
                    self.json_path(&format!("{path}.suite.{field}"), text);
                }
            }
        }
        if let Some(run) = &w.run {
            self.run(run, w, &format!("{path}.run"));
        }
    }

    fn run(&mut self, run: &WebRun, w: &WebProvider, path: &str) {
        for (name, condition) in [("done", Some(&run.done)), ("failed", run.failed.as_ref())] {
            if let Some(Err(error)) = condition.map(|c| Predicate::compile(c)) {
                self.error(&format!("{path}.{name}"), error.to_string());
            }
        }
        let poll = format!("{path}.poll");
        for (name, text) in [("id", &run.poll.id), ("retryAfter", &run.poll.retry_after)] {
            if let Some(text) = text {
                self.json_path(&format!("{poll}.{name}"), text);
            }
        }
        let known: &[&str] = if run.poll.id.is_some() { &["run.key", "run.id"] } else { &["run.key"] };
        self.knowing(known, |check| {
            if let Some(url) = &run.poll.url {
                check.run_url(&format!("{poll}.url"), url, w);
            }
            if let Some(cancel) = &run.cancel {
                check.run_url(&format!("{path}.cancel.url"), &cancel.url, w);
            }
        });
        self.period(&format!("{poll}.interval"), Some(run.poll.interval), Some(MIN_INTERVAL));
        if std_duration(run.poll.interval) > MAX_POLL_INTERVAL {
            self.error(&format!("{poll}.interval"), "must be 15m or shorter");
        }
        self.deadline(run, w, &format!("{path}.deadline"));
    }

    fn deadline(&mut self, run: &WebRun, w: &WebProvider, path: &str) {
        self.period(path, Some(run.deadline), Some(MIN_INTERVAL));
        let deadline = std_duration(run.deadline);
        if deadline > MAX_DEADLINE {
            self.error(path, "must be 1h or shorter");
        } else if !run.deadline.is_negative() && deadline < std_duration(w.timeout) {
            self.error(path, "must not be shorter than the timeout of one request");
        }
    }

    /// A URL of the same server as the start's, or a JSONPath that finds one.
    fn run_url(&mut self, path: &str, text: &str, w: &WebProvider) {
        if is_in_answer(text) {
            return self.json_path(path, text);
        }
        let full = absolute(&w.url, text);
        if full.contains("{{args.run.id}}") && !self.known.contains("run.id") {
            return self.error(path, "{{run.id}} needs poll.id, the JSONPath of the id in the answer to the start");
        }
        let before = self.errors.len();
        self.url(path, &full);
        let parsed = |url: &str| url::Url::parse(&args::probe(&args::run_facts(url), Place::Url, "x", "x").ok()?).ok();
        let (Some(start), Some(own)) = (parsed(&w.url), parsed(&full)) else { return };
        if self.errors.len() == before && start.origin() != own.origin() {
            self.error(path, "scheme, host and port have to be those of the start's url");
        }
    }

    pub(super) fn json_path(&mut self, path: &str, text: &str) {
        if let Err(reason) = super::json_path(text) {
            self.error(path, reason);
        }
    }

    /// Runs checks that know more arguments.
    fn knowing(&mut self, more: &[&str], checks: impl FnOnce(&mut Check<'_>)) {
        let mut known = self.known.clone();
        known.extend(more.iter().map(|&name| name.to_owned()));
        let mut inner = Check { known: &known, errors: Vec::new() };
        checks(&mut inner);
        self.errors.extend(inner.errors);
    }
}
