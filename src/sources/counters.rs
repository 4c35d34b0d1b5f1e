//! Counters of both arms from Prometheus: raw, per pod, all at one moment.

use std::collections::BTreeMap;

use prometheus_http_query::response::{Data, InstantVector};

use super::http::Http;
use super::prometheus::{Server, ask};
use super::secrets::Vault;
use super::{Progress, Request, SourceError, redact};
use crate::api::compare::Counted;
use crate::core::args::{Place, fill};
use crate::core::gates::calls::{Arms, Bucket, Needs, PodSample, Question, Selector, Snapshot, same};

/// Bounds or revisions named in a message.
const NAMED: usize = 20;

/// Rows by pod, canary first or not.
type Rows = BTreeMap<(bool, String), f64>;

/// Takes a look at the counters of the request's gate, as they were one scrape before the measurement began.
pub(super) async fn look(http: &Http, vault: &Vault<'_>, request: &Request) -> Result<Progress, SourceError> {
    let gate = &request.gate;
    if let Some(split) = &gate.split {
        let looker = Looker::new(http, vault, request, &split.counted, Some(request.stable_revision.as_str()));
        return looker.started(&split.started, split.without_bucket.as_deref()).await;
    }
    let question = match Question::of(gate) {
        Some(Ok(question)) => question,
        Some(Err(errors)) => return Err(SourceError::new(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
        None => return Err(SourceError::new(format!("gate {}: it does not count calls", gate.name))),
    };
    let stable = (!question.one_arm()).then_some(request.stable_revision.as_str());
    let looker = Looker::new(http, vault, request, question.counted, stable);
    match &question.needs {
        Needs::Counters { part, total, .. } => looker.counters(part, total).await,
        Needs::Histogram { metric, bounds } => looker.histogram(metric, bounds).await,
    }
}

struct Looker<'a> {
    http: &'a Http,
    vault: &'a Vault<'a>,
    request: &'a Request,
    counted: &'a Counted,
    arms: Arms<'a>,
    at: i64,
}

impl<'a> Looker<'a> {
    fn new(http: &'a Http, vault: &'a Vault<'a>, request: &'a Request, counted: &'a Counted, stable: Option<&'a str>) -> Self {
        let lag = crate::api::common::std_duration(counted.prometheus.scrape_interval).as_secs();
        let at = request.started_at.as_second().saturating_sub(i64::try_from(lag).unwrap_or(0));
        let arms = Arms { label: &counted.revision_label, canary: &request.revision, stable };
        Self { http, vault, request, counted, arms, at }
    }

    /// Calls that began, and where it is asked for those without a bucket.
    async fn started(&self, started: &str, without_bucket: Option<&str>) -> Result<Progress, SourceError> {
        let started = self.selector(started)?;
        let all = self.rows(&self.sum_by_pod(&started.of_arms(&self.arms))).await?;
        if all.is_empty() {
            return self.nothing(&started).await;
        }
        let without = match without_bucket {
            Some(text) => Some(self.rows(&self.sum_by_pod(&self.selector(text)?.of_arms(&self.arms))).await?),
            None => None,
        };
        let scraped = self.rows(&self.scraped(&started.of_arms(&self.arms))).await?;
        let counts = |pod: &(bool, String)| {
            let mut counts = vec![all.get(pod).copied()];
            counts.extend(without.as_ref().map(|rows| rows.get(pod).copied()));
            counts
        };
        Ok(Progress::Counted(self.snapshot(&scraped, counts, Vec::new())))
    }

    async fn counters(&self, part: &str, total: &str) -> Result<Progress, SourceError> {
        let (part, total) = (self.selector(part)?, self.selector(total)?);
        let all = self.rows(&self.sum_by_pod(&total.of_arms(&self.arms))).await?;
        if all.is_empty() {
            return self.nothing(&total).await;
        }
        let parts = self.rows(&self.sum_by_pod(&part.of_arms(&self.arms))).await?;
        let scraped = self.rows(&self.scraped(&total.of_arms(&self.arms))).await?;
        let counts = |pod: &(bool, String)| vec![all.get(pod).copied(), parts.get(pod).copied()];
        Ok(Progress::Counted(self.snapshot(&scraped, counts, Vec::new())))
    }

    async fn histogram(&self, metric: &str, bounds: &[f64]) -> Result<Progress, SourceError> {
        let selector = self.selector(metric)?;
        let found = self.vector(&format!("sum by (le) ({})", selector.of_arms(&self.arms))).await?;
        if found.is_empty() {
            return self.nothing(&selector).await;
        }
        let buckets = self.buckets(&selector, &found)?;
        let mut le = vec!["+Inf"];
        for bound in bounds {
            let names: Vec<&str> = buckets.iter().filter(|(b, _, _)| same(*b, *bound)).map(|(_, name, _)| *name).collect();
            if names.is_empty() {
                return Err(SourceError::new(no_bound(selector.name(), *bound, &buckets)));
            }
            le.extend(names);
        }
        let labels = [&self.counted.pod_label, self.arms.label, "le"].join(", ");
        let series = self.vector(&format!("sum by ({labels}) ({})", selector.of_buckets(&self.arms, &le))).await?;
        let mut counts: BTreeMap<(bool, String), Vec<Option<f64>>> = BTreeMap::new();
        for one in &series {
            let Some(bound) = one.metric().get("le").and_then(|le| bound_of(le)) else { continue };
            let column = if bound.is_infinite() { Some(0) } else { bounds.iter().position(|b| same(*b, bound)).map(|i| i + 1) };
            let (Some(column), Some(pod)) = (column, self.pod(one)?) else { continue };
            let count = &mut counts.entry(pod).or_insert_with(|| vec![None; bounds.len() + 1])[column];
            *count = Some(count.unwrap_or(0.0) + one.sample().value());
        }
        let scraped = self.rows(&self.scraped(&selector.of_buckets(&self.arms, &["+Inf"]))).await?;
        let none = vec![None; bounds.len() + 1];
        let buckets = buckets.iter().map(|(bound, _, count)| Bucket { bound: *bound, count: *count }).collect();
        Ok(Progress::Counted(self.snapshot(&scraped, |pod| counts.get(pod).unwrap_or(&none).clone(), buckets)))
    }

    /// Pods that have a total. A counter that is no number does not exist.
    fn snapshot(&self, scraped: &Rows, counts: impl Fn(&(bool, String)) -> Vec<Option<f64>>, buckets: Vec<Bucket>) -> Snapshot {
        let whole = |x: Option<f64>| x.filter(|x| x.is_finite() && *x >= 0.0).map(|x| x.round() as u64);
        let pods = scraped.iter().map(|(pod, at)| {
            let counts: Vec<Option<u64>> = counts(pod).into_iter().map(whole).collect();
            PodSample { pod: pod.1.clone(), canary: pod.0, scraped: *at, counts }
        });
        Snapshot { at: self.at, pods: pods.filter(|p| p.counts.first().is_some_and(Option::is_some)).collect(), buckets }
    }

    /// Every bucket with its bound as it is written, rising.
    fn buckets<'v>(&self, selector: &Selector, found: &'v [InstantVector]) -> Result<Vec<(f64, &'v str, f64)>, SourceError> {
        let read = |one: &'v InstantVector| {
            let le = one.metric().get("le")?;
            Some((bound_of(le)?, le.as_str(), one.sample().value()))
        };
        let mut all: Vec<_> = found.iter().filter_map(read).collect();
        if all.is_empty() {
            let message = format!(
                "{}: its series have no label le, so it is not the buckets of a histogram: name the series that ends in _bucket",
                selector.name()
            );
            return Err(SourceError::new(message));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        if all.last().is_none_or(|(bound, _, _)| bound.is_finite()) {
            let message = format!("{}: there is no bucket le=\"+Inf\", so nobody knows how many calls there were", selector.name());
            return Err(SourceError::new(message));
        }
        Ok(all)
    }

    /// Why no series of the two revisions was found.
    async fn nothing(&self, selector: &Selector) -> Result<Progress, SourceError> {
        let label = self.arms.label;
        let found = self.vector(&format!("count by ({label}) ({})", selector.plain())).await?;
        let mut revisions: Vec<&str> = found.iter().filter_map(|s| s.metric().get(label)).map(String::as_str).collect();
        revisions.sort_unstable();
        let name = selector.plain();
        let message = if found.is_empty() {
            format!("no series matches {name} at this moment: is it scraped, and spelled so?")
        } else if revisions.iter().all(|r| r.is_empty()) {
            let message =
                format!("the arms cannot be told apart: the series of {name} have no label {label} with the revision hash (revisionLabel)");
            return Err(SourceError::new(message));
        } else {
            let shown = revisions[..revisions.len().min(NAMED)].join(", ");
            let wanted = self.arms.stable.map_or_else(|| self.arms.canary.to_owned(), |s| format!("{} or {s}", self.arms.canary));
            format!("no series of {name} has {label} {wanted} yet: there are {shown}")
        };
        Ok(Progress::NoData(redact::line(&message, 400)))
    }

    fn sum_by_pod(&self, selector: &str) -> String {
        format!("sum by ({}, {}) ({selector})", self.counted.pod_label, self.arms.label)
    }

    fn scraped(&self, selector: &str) -> String {
        format!("max by ({}, {}) (timestamp({selector}))", self.counted.pod_label, self.arms.label)
    }

    fn selector(&self, text: &str) -> Result<Selector, SourceError> {
        let filled = fill(text, Place::PromQl, &self.request.args).map_err(|e| SourceError::new(format!("selector: {e}")))?;
        Selector::parse(&filled.text).map_err(|reason| SourceError::new(format!("selector: {reason}")))
    }

    async fn rows(&self, promql: &str) -> Result<Rows, SourceError> {
        let mut rows = Rows::new();
        for one in self.vector(promql).await? {
            if let Some(pod) = self.pod(&one)? {
                rows.insert(pod, one.sample().value());
            }
        }
        Ok(rows)
    }

    /// Whose series it is.
    fn pod(&self, one: &InstantVector) -> Result<Option<(bool, String)>, SourceError> {
        let label = |name: &str| one.metric().get(name).map(String::as_str).unwrap_or_default();
        let revision = label(self.arms.label);
        let canary = revision == self.arms.canary;
        if !canary && Some(revision) != self.arms.stable {
            return Ok(None);
        }
        let pod = label(&self.counted.pod_label);
        if pod.is_empty() {
            let message = format!(
                "the series have no label {}, and without the pods' names a restart looks like new calls: set podLabel to the label that tells pods apart",
                self.counted.pod_label
            );
            return Err(SourceError::new(message));
        }
        Ok(Some((canary, pod.to_owned())))
    }

    async fn vector(&self, promql: &str) -> Result<Vec<InstantVector>, SourceError> {
        let server = Server::of(&self.counted.prometheus);
        match ask(self.http, self.vault, &server, promql, &self.request.args, Some(self.at)).await? {
            (_, Data::Vector(series)) => Ok(series),
            (what, _) => Err(SourceError::new(format!("{what}: the answer is not a vector"))),
        }
    }
}

/// The value of a label `le`.
fn bound_of(le: &str) -> Option<f64> {
    match le {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        _ => le.parse().ok().filter(|b: &f64| !b.is_nan()),
    }
}

/// An edge that is no bucket's bound: which there are, and whether only the unit is wrong.
fn no_bound(name: &str, edge: f64, buckets: &[(f64, &str, f64)]) -> String {
    let has = |bound: f64| buckets.iter().any(|(b, _, _)| same(*b, bound));
    let unit = if has(edge * 1000.0) {
        format!("; the edge looks like seconds and the buckets like milliseconds: write {}", edge * 1000.0)
    } else if has(edge / 1000.0) {
        format!("; the edge looks like milliseconds and the buckets like seconds: write {}", edge / 1000.0)
    } else {
        String::new()
    };
    let bounds: Vec<&str> = buckets.iter().map(|(_, le, _)| *le).take(NAMED).collect();
    let more = if buckets.len() > NAMED { ", ..." } else { "" };
    format!("{edge} is not the bound of a bucket of {name}: there are {}{more}{unit}", redact::line(&bounds.join(", "), 300))
}

#[cfg(test)]
#[path = "tests/counters.rs"]
mod tests;
