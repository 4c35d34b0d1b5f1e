//! One gate: what the schema cannot say.

mod sessions;
mod web;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::analysis::{Counting, Gate, Judge, PrometheusProvider, Threshold};
use crate::api::common::{Duration as Period, std_duration};
use crate::api::compare::PrometheusServer;
use crate::api::proof::Proof;
use crate::api::provider::Access;
use crate::core::SpecError;
use crate::core::args::{self, ArgError, Place};
use crate::core::condition::Condition;
use crate::core::gates::calls::{Question, Selector};
use crate::core::request;
use crate::core::window;

pub use sessions::{SESSION_ARGS, session_problems};
pub use web::{absolute, is_in_answer};

/// Shortest interval between measurements.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Checks one gate. `known` are the names that `{{args.NAME}}` may use.
pub fn validate_gate(gate: &Gate, path: &str, known: &BTreeSet<String>) -> Vec<SpecError> {
    let mut check = Check { known, errors: Vec::new() };
    check.period(&format!("{path}.errorBudget"), Some(gate.error_budget), None);
    check.period(&format!("{path}.minDuration"), gate.min_duration, None);
    check.period(&format!("{path}.maxDuration"), Some(gate.max_duration), Some(MIN_INTERVAL));
    let kinds = [
        gate.threshold.is_some(),
        gate.judge.is_some(),
        gate.paired.is_some(),
        gate.compare.is_some(),
        gate.compare_histogram.is_some(),
        gate.absolute.is_some(),
    ];
    if kinds.iter().filter(|k| **k).count() != 1 {
        check.error(path, "a gate is exactly one of threshold, judge, compare, compareHistogram, absolute, paired");
        return check.errors;
    }
    if gate.false_abort.is_some() && !gate.shares_false_abort() {
        check.error(&format!("{path}.falseAbort"), "only gates that test have a share: compare, compareHistogram, absolute, paired");
    }
    if let Some(paired) = &gate.paired {
        if gate.false_abort.is_some_and(|chance| !(chance > 0.0 && chance < 0.5)) {
            check.error(&format!("{path}.falseAbort"), "a chance above 0 and below 0.5");
        }
        check.paired(paired, &format!("{path}.paired"));
    }
    if let Some(threshold) = &gate.threshold {
        check.threshold(threshold, &format!("{path}.threshold"));
    }
    if let Some(judge) = &gate.judge {
        check.judge(judge, &format!("{path}.judge"));
    }
    check.counted(gate, path);
    check.floor(gate, path);
    check.errors
}

/// Everything that is wrong with the settings of a proof of the split.
pub fn proof_problems(proof: &Proof, path: &str) -> Vec<SpecError> {
    let none = BTreeSet::new();
    let mut check = Check { known: &none, errors: Vec::new() };
    let counted = proof.counted();
    for (name, selector) in [("started", Some(&proof.started)), ("withoutBucket", proof.without_bucket.as_ref())] {
        let at = format!("{path}.{name}");
        if let Some(selector) = selector.filter(|text| check.args(&at, text, Place::PromQl)) {
            match Selector::parse(selector) {
                Err(reason) => check.error(&at, reason),
                Ok(parsed) if parsed.names(&counted.revision_label) => {
                    check.error(&at, format!("leave {} out: it is asked for by itself", counted.revision_label));
                }
                Ok(_) => {}
            }
        }
    }
    check.server(&counted.prometheus, path);
    check.period(&format!("{path}.interval"), Some(proof.interval), Some(MIN_INTERVAL));
    if std_duration(proof.interval) < std_duration(proof.prometheus.scrape_interval) {
        check.error(&format!("{path}.interval"), "is shorter than prometheus.scrapeInterval: most looks would see nothing new");
    }
    if proof.revision_label == proof.pod_label {
        check.error(&format!("{path}.podLabel"), "is the same label as revisionLabel");
    }
    if !(proof.false_alarm > 0.0 && proof.false_alarm < 0.5) {
        check.error(&format!("{path}.falseAlarm"), format!("{} is not a chance between 0 and 0.5 (both excluded)", proof.false_alarm));
    }
    if proof.tolerance.is_some_and(|t| !(0.0..=50.0).contains(&t)) {
        check.error(&format!("{path}.tolerance"), "is not a number of percentage points from 0 to 50");
    }
    if proof.min_calls < 1 {
        check.error(&format!("{path}.minCalls"), "has to be 1 or more");
    }
    check.errors
}

/// The RFC 9535 path in a `jsonPath` field, which may stand in braces: `{$.passRate}`.
///
/// # Errors
/// Why it is not a JSONPath.
pub fn json_path(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(trimmed).trim();
    match jsonpath_rust::parser::parse_json_path(inner) {
        Ok(_) => Ok(inner.to_owned()),
        Err(_) => Err(format!("`{text}` is not a JSONPath such as {{$.passRate}}")),
    }
}

/// Names of the arguments that a gate's texts use, as far as they can be read.
pub fn args_used(gate: &Gate) -> BTreeSet<String> {
    fn visit(value: &serde_json::Value, names: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::String(text) => names.extend(args::names(text, Place::Text).unwrap_or_default()),
            serde_json::Value::Array(items) => items.iter().for_each(|v| visit(v, names)),
            serde_json::Value::Object(fields) => fields.values().for_each(|v| visit(v, names)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    visit(&serde_json::to_value(gate).unwrap_or_default(), &mut names);
    names
}

/// Name of the gate's kind, and its selectors by field.
fn selectors(gate: &Gate) -> (&'static str, Vec<(&'static str, &String)>) {
    fn given<'a>(fields: [(&'static str, Option<&'a String>); 4]) -> Vec<(&'static str, &'a String)> {
        fields.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
    }
    match (&gate.compare, &gate.compare_histogram, &gate.absolute) {
        (Some(c), _, _) => {
            ("compare", given([("bad", c.bad.as_ref()), ("good", c.good.as_ref()), ("total", Some(&c.total)), ("metric", None)]))
        }
        (_, Some(c), _) => ("compareHistogram", vec![("metric", &c.metric)]),
        (_, _, Some(a)) => (
            "absolute",
            given([("bad", a.bad.as_ref()), ("good", a.good.as_ref()), ("total", a.total.as_ref()), ("metric", a.metric.as_ref())]),
        ),
        _ => ("", Vec::new()),
    }
}
mod judge;

struct Check<'a> {
    known: &'a BTreeSet<String>,
    errors: Vec<SpecError>,
}

impl Check<'_> {
    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(SpecError::new(path, message));
    }

    fn period(&mut self, path: &str, period: Option<Period>, least: Option<Duration>) {
        let Some(period) = period else { return };
        if period.is_negative() {
            self.error(path, "a duration cannot be negative");
        } else if least.is_some_and(|least| std_duration(period) < least) {
            self.error(path, format!("must be {} or longer", least.map(window::span).unwrap_or_default()));
        }
    }

    fn timeout(&mut self, path: &str, period: Period) {
        self.period(path, Some(period), Some(Duration::from_millis(1)));
    }

    /// Placement and names of arguments. `true` when there is nothing to complain about.
    fn args(&mut self, path: &str, text: &str, place: Place) -> bool {
        match args::check(text, place, self.known) {
            Ok(()) => true,
            Err(error) => {
                self.error(path, error.to_string());
                false
            }
        }
    }

    fn threshold(&mut self, t: &Threshold, path: &str) {
        self.period(&format!("{path}.interval"), t.interval, Some(MIN_INTERVAL));
        self.period(&format!("{path}.initialDelay"), t.initial_delay, None);
        for (name, condition) in [("successCondition", &t.success_condition), ("failureCondition", &t.failure_condition)] {
            if let Some(condition) = condition {
                self.condition(&format!("{path}.{name}"), condition);
            }
        }
        if t.success_condition.is_none() && t.failure_condition.is_none() {
            self.error(path, "set successCondition, failureCondition or both");
        }
        self.limits(t, path);
        match (&t.provider.prometheus, &t.provider.web) {
            (Some(prometheus), None) => self.prometheus(prometheus, &format!("{path}.provider.prometheus")),
            (None, Some(web)) => self.web(web, &format!("{path}.provider.web")),
            _ => self.error(&format!("{path}.provider"), "a provider is exactly one of prometheus, web"),
        }
    }

    fn counted(&mut self, gate: &Gate, path: &str) {
        let Some(counted) = gate.counted() else { return };
        let (kind, selectors) = selectors(gate);
        let at = format!("{path}.{kind}");
        for (name, selector) in selectors {
            self.args(&format!("{at}.{name}"), selector, Place::PromQl);
        }
        self.server(&counted.prometheus, &at);
        self.period(&format!("{at}.interval"), Some(counted.interval), Some(MIN_INTERVAL));
        self.period(&format!("{at}.warmup"), Some(counted.warmup), None);
        self.period(&format!("{at}.minBake"), counted.min_bake, None);
        if let Some(Err(errors)) = Question::of(gate) {
            self.errors.extend(errors.into_iter().map(|e| SpecError::new(format!("{path}.{}", e.path), e.message)));
        }
    }

    fn server(&mut self, server: &PrometheusServer, at: &str) {
        self.url(&format!("{at}.prometheus.address"), &server.address);
        self.period(&format!("{at}.prometheus.scrapeInterval"), Some(server.scrape_interval), Some(MIN_INTERVAL));
        self.timeout(&format!("{at}.prometheus.timeout"), server.timeout);
        self.access(&server.access, &format!("{at}.prometheus"));
    }

    fn condition(&mut self, path: &str, condition: &str) {
        if !self.args(path, condition, Place::Cel) {
            return;
        }
        let Ok(text) = args::probe(condition, Place::Cel, "x", "0") else { return };
        if let Err(error) = Condition::compile(&text) {
            self.error(path, error.to_string());
        }
    }

    /// Limits that can never be reached hide failures.
    fn limits(&mut self, t: &Threshold, path: &str) {
        let Some(count) = t.count else { return };
        if count > 1 && t.interval.is_none() {
            self.error(&format!("{path}.interval"), format!("count {count} needs an interval"));
        }
        let needed = t.failure_limit.max(0).saturating_add(t.consecutive_success_limit);
        if count < needed {
            self.error(
                &format!("{path}.count"),
                format!("count {count} is less than failureLimit and consecutiveSuccessLimit together ({needed})"),
            );
        }
        if t.counting == Counting::Argo && count < t.inconclusive_limit {
            self.error(&format!("{path}.count"), format!("count {count} is less than inconclusiveLimit {}", t.inconclusive_limit));
        }
    }

    fn prometheus(&mut self, p: &PrometheusProvider, path: &str) {
        self.url(&format!("{path}.address"), &p.address);
        self.query(&format!("{path}.query"), &p.query);
        self.period(&format!("{path}.scrapeInterval"), Some(p.scrape_interval), None);
        self.timeout(&format!("{path}.timeout"), p.timeout);
        self.access(&p.access, path);
    }

    /// Outside strings an argument may be a duration, a number or part of a name; one of them has to make sense.
    fn query(&mut self, path: &str, query: &str) {
        if !self.args(path, query, Place::PromQl) {
            return;
        }
        let attempts = ["1m", "1", "x"].map(|bare| match args::probe(query, Place::PromQl, "x", bare) {
            Ok(text) => window::longest(&text, path).map(drop),
            Err(error) => Err(SpecError::new(path, error.to_string())),
        });
        if attempts.iter().all(Result::is_err) {
            self.errors.extend(attempts.into_iter().find_map(Result::err));
        }
    }

    fn url(&mut self, path: &str, text: &str) {
        if !self.args(path, text, Place::Url) {
            return;
        }
        let Ok(probe) = args::probe(text, Place::Url, "x", "x") else { return };
        if let Err(why) = request::check_url(&probe, "auth") {
            self.error(path, why);
        }
    }

    fn access(&mut self, access: &Access, path: &str) {
        if access.auth.as_ref().is_some_and(|a| a.bearer.is_some() == a.basic.is_some()) {
            self.error(&format!("{path}.auth"), "auth has exactly one of bearer, basic");
        }
        for (i, header) in access.headers.iter().enumerate() {
            let at = format!("{path}.headers[{i}]");
            for (field, why) in request::check_header(header) {
                self.error(&format!("{at}{field}"), why);
            }
            if let (Some(value), None) = (&header.value, &header.secret_key_ref)
                && !value.chars().any(char::is_control)
            {
                self.args(&format!("{at}.value"), &args::run_facts(value), Place::Header);
            }
        }
    }

    fn judge(&mut self, j: &Judge, path: &str) {
        match (&j.anthropic, &j.openai) {
            (Some(api), None) | (None, Some(api)) => {
                let name = if j.anthropic.is_some() { "anthropic" } else { "openai" };
                if let Some(base) = &api.base_url {
                    self.literal_url(&format!("{path}.{name}.baseUrl"), base);
                }
            }
            _ => self.error(path, "a judge has exactly one of anthropic, openai"),
        }
        self.args(&format!("{path}.prompt"), &j.prompt, Place::Text);
        self.period(&format!("{path}.interval"), j.interval, Some(MIN_INTERVAL));
        self.period(&format!("{path}.initialDelay"), j.initial_delay, None);
        self.timeout(&format!("{path}.timeout"), j.timeout);
        if j.count > 1 && j.interval.is_none() {
            self.error(&format!("{path}.interval"), format!("count {} needs an interval", j.count));
        }
        if j.failure_limit > j.count {
            self.error(&format!("{path}.failureLimit"), format!("failureLimit {} is more than count {}", j.failure_limit, j.count));
        }
        self.evidence(j, path);
        self.voting(j, path);
        self.patterns(j, path);
        self.per_call(j, path);
        self.traces(j, path);
    }

    fn evidence(&mut self, j: &Judge, path: &str) {
        let mut known = self.known.clone();
        known.insert("revision".into());
        let mut inner = Check { known: &known, errors: Vec::new() };
        for (i, metric) in j.evidence.metrics.iter().enumerate() {
            let at = format!("{path}.evidence.metrics[{i}]");
            inner.prometheus(&metric.prometheus, &format!("{at}.prometheus"));
            if let Some(query) = &metric.count_query {
                inner.query(&format!("{at}.countQuery"), query);
            }
            if j.evidence.metrics[..i].iter().any(|m| m.name == metric.name) {
                inner.error(&format!("{at}.name"), format!("`{}` occurs twice", metric.name));
            }
            if !asks_by_arm(&metric.prometheus.query) {
                inner.error(&format!("{at}.prometheus.query"), "use {{args.revision}}: the query is asked once for each arm");
            }
        }
        self.errors.extend(inner.errors);
    }

    /// A URL that takes no arguments: prompts and keys go there.
    fn literal_url(&mut self, path: &str, text: &str) {
        if args::names(text, Place::Url).is_ok_and(|names| names.is_empty()) {
            self.url(path, text);
        } else {
            self.error(path, "takes no arguments");
        }
    }
}

fn asks_by_arm(query: &str) -> bool {
    match args::names(query, Place::PromQl) {
        Ok(names) => names.contains("revision"),
        // Reported as what it is.
        Err(ArgError::Syntax(_)) => true,
        Err(_) => false,
    }
}
