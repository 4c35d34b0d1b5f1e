//! The providers of a scenario: queries are parsed as the real ones would be, and answered from the scenario.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::scenario::{Answer, JudgeWord, Says, Scenario};
use super::server::SimServer;
use super::world::CallBook;
use crate::api::analysis::{Gate, Paired, PrometheusProvider, Provider, WebProvider};
use crate::api::common::{REVISION_LABEL, std_duration};
use crate::api::judge::Vote;
use crate::api::run::{Suite, Tokens};
use crate::core::args::{ArgValue, Place, fill, run_facts};
use crate::core::condition;
use crate::core::gates::calls::{Needs, PodSample, Question, Snapshot};
use crate::core::gates::{Eval, Reading};
use crate::core::judge::Judgement;
use crate::operator::clock::Clock;
use crate::sources::{Progress, Request, Source, SourceError, check_answer};

/// Tokens that a verdict costs.
const TOKENS: Tokens = Tokens { input: 1800, output: 60 };

/// Time that an explanation takes.
const EXPLAINING: Duration = Duration::from_secs(4);

/// The providers of a scenario. They outlive the operator: a restarted one finds its measurements by their keys.
pub struct ScenarioSources {
    scenario: Arc<Scenario>,
    server: SimServer,
    clock: Clock,
    calls: Option<CallBook>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    by_key: BTreeMap<String, Measured>,
    by_gate: HashMap<(String, String), (usize, Timestamp)>,
}

/// A measurement that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Name of the gate.
    pub gate: String,
    /// Name of the release.
    pub release: String,
    /// When it was first asked for.
    pub at: Timestamp,
    /// How often it was asked for: more than once after a crash.
    pub times: u32,
    answer: Answer,
    /// Counters as they were when it was first asked for.
    counted: Option<Snapshot>,
}

impl ScenarioSources {
    /// The providers of a scenario that is played on a server.
    pub fn new(scenario: Arc<Scenario>, server: SimServer, clock: Clock) -> Self {
        Self { scenario, server, clock, calls: None, asked: Mutex::default() }
    }

    /// The same, with counters of the calls that a world's pods answer.
    pub fn counting(mut self, calls: CallBook) -> Self {
        self.calls = Some(calls);
        self
    }

    /// Measurements that were asked for, by idempotency key.
    pub fn measured(&self) -> BTreeMap<String, Measured> {
        self.asked.lock().by_key.clone()
    }

    fn begin(&self, request: &Request) -> Result<Progress, SourceError> {
        check(request)?;
        let now = self.clock.now();
        let mut asked = self.asked.lock();
        if let Some(known) = asked.by_key.get_mut(&request.key) {
            known.times += 1;
            return self.progress(request, &known.clone());
        }
        let image = self.image_of(request, &request.revision)?;
        let release = self
            .scenario
            .release_of(&image)
            .ok_or_else(|| SourceError::new(format!("scenario {}: no release has the tag of image {image}", self.scenario.name)))?;
        if request.gate.reads_counters().is_some() {
            let counted = Some(self.count(request)?);
            let answer = Answer { says: Says::Counters, takes: Duration::ZERO };
            let measured = Measured { gate: request.gate.name.clone(), release: release.name.clone(), at: now, times: 1, answer, counted };
            asked.by_key.insert(request.key.clone(), measured.clone());
            return self.progress(request, &measured);
        }
        if request.explains.is_some() {
            let text = release.explanations.get(&request.gate.name).ok_or_else(|| {
                let (scenario, gate) = (&self.scenario.name, &request.gate.name);
                SourceError::new(format!("scenario {scenario}: release {} has no explanation of gate {gate}", release.name))
            })?;
            let answer = Answer { says: Says::Verdict(JudgeWord::Unsure, text.clone()), takes: EXPLAINING };
            let measured =
                Measured { gate: request.gate.name.clone(), release: release.name.clone(), at: now, times: 1, answer, counted: None };
            asked.by_key.insert(request.key.clone(), measured.clone());
            return self.progress(request, &measured);
        }
        let gate = (request.revision.clone(), request.gate.name.clone());
        let (count, first) = asked.by_gate.entry(gate).or_insert((0, now));
        let since = Duration::try_from(now.duration_since(*first)).unwrap_or_default();
        let answer = release.answers.get(&request.gate.name).and_then(|answers| answers.at(*count, since)).ok_or_else(|| {
            SourceError::new(format!(
                "scenario {}: release {} has no answer for gate {}",
                self.scenario.name, release.name, request.gate.name
            ))
        })?;
        *count += 1;
        let measured = Measured {
            gate: request.gate.name.clone(),
            release: release.name.clone(),
            at: now,
            times: 1,
            answer: answer.clone(),
            counted: None,
        };
        asked.by_key.insert(request.key.clone(), measured.clone());
        self.progress(request, &measured)
    }

    /// The answer, or how long it still takes.
    fn progress(&self, request: &Request, measured: &Measured) -> Result<Progress, SourceError> {
        let since = Duration::try_from(self.clock.now().duration_since(measured.at)).unwrap_or_default();
        let left = measured.answer.takes.saturating_sub(since);
        if let Some(counted) = &measured.counted {
            return Ok(Progress::Counted(counted.clone()));
        }
        if left.is_zero() {
            return deliver(request, &measured.answer.says);
        }
        Ok(Progress::Running { handle: request.key.clone(), poll_after: left })
    }

    /// Counters of both arms' pods: as many calls as they answered, of the quality of their release.
    fn count(&self, request: &Request) -> Result<Snapshot, SourceError> {
        let calls = self.calls.as_ref().ok_or_else(|| SourceError::new("nobody calls in this world: there is nothing to count"))?;
        let counted = request.gate.reads_counters().ok_or_else(|| SourceError::new("the gate does not count calls"))?;
        let question = Question::of(&request.gate).and_then(Result::ok);
        let now = self.clock.now();
        let lag = std_duration(counted.prometheus.scrape_interval).as_secs();
        let at = request.started_at.as_second().saturating_sub(i64::try_from(lag).unwrap_or(0));
        let mut seen = Snapshot { at, ..Snapshot::default() };
        for (pod, revision, calls) in calls.by_pod(&request.namespace) {
            let canary = revision == request.revision;
            if !canary && revision != request.stable_revision {
                continue;
            }
            let image = self.image_of(request, &revision)?;
            let release = self.scenario.release_of(&image);
            let quality = release.map(|r| r.counted.get(&request.gate.name).unwrap_or(&r.quality).clone()).unwrap_or_default();
            let share = |share: f64| Some((calls as f64 * share + phase(&pod)).floor() as u64);
            let rest: Vec<Option<u64>> = match question.as_ref().map(|q| &q.needs) {
                // Calls that began: there is nothing else to them.
                None => vec![Some(0)],
                Some(Needs::Counters { good, .. }) => vec![share(if *good { 1.0 - quality.bad } else { quality.bad })],
                Some(Needs::Histogram { bounds, .. }) => bounds.iter().map(|b| share(1.0 - quality.above(*b))).collect(),
            };
            let counts = std::iter::once(Some(calls)).chain(rest.into_iter().map(|n| n.map(|n| n.min(calls)))).collect();
            seen.pods.push(PodSample { pod, canary, scraped: now.as_second() as f64, counts });
        }
        Ok(seen)
    }

    /// Image of a revision.
    fn image_of(&self, request: &Request, revision: &str) -> Result<String, SourceError> {
        let sets = self.server.peek_all("replicasets", Some(&request.namespace));
        let set = sets.iter().find(|set| set["metadata"]["labels"][REVISION_LABEL] == revision);
        let image = set.and_then(|set| set.pointer("/spec/template/spec/containers/0/image")).and_then(Value::as_str);
        let missing = || SourceError::new(format!("there is no ReplicaSet of revision {revision}"));
        image.map(ToOwned::to_owned).ok_or_else(missing)
    }
}

impl Source for ScenarioSources {
    fn start<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Progress, SourceError>> {
        Box::pin(async move { self.begin(request) })
    }

    fn poll<'a>(&'a self, request: &'a Request, handle: &'a str) -> BoxFuture<'a, Result<Progress, SourceError>> {
        Box::pin(async move {
            let known = self.asked.lock().by_key.get(handle).cloned();
            let known = known.ok_or_else(|| SourceError::new(format!("gate {}: unknown measurement", request.gate.name)))?;
            self.progress(request, &known)
        })
    }

    fn cancel<'a>(&'a self, _: &'a Request, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Where in its first call a pod's counters begin, in 0..1: so that not all of them count their bad calls at the same time.
fn phase(pod: &str) -> f64 {
    let sum: u32 = pod.bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    f64::from(sum % 1000) / 1000.0
}

fn deliver(request: &Request, says: &Says) -> Result<Progress, SourceError> {
    let gate = &request.gate;
    let judged = gate.judge.is_some();
    match says {
        Says::Pairs(pairs) => match &gate.paired {
            Some(paired) => Ok(Progress::Eval(Eval { reading: Reading::Pairs(*pairs), suite: suite(paired, &request.key) })),
            None => Err(SourceError::new(format!("gate {}: only a paired gate is answered with pairs", gate.name))),
        },
        Says::Error(message) => Err(SourceError::new(message)),
        Says::Verdict(word, reason) if judged => {
            let (vote, said) = match word {
                JudgeWord::Pass => (Vote::Pass, "PASS"),
                JudgeWord::Fail => (Vote::Fail, "FAIL"),
                JudgeWord::Unsure => (Vote::Unsure, "UNSURE"),
            };
            let message = if request.explains.is_some() { reason.clone() } else { format!("judge says {said}: {reason}") };
            Ok(Progress::Votes(Box::new(Judgement::of_one(vote, &message, TOKENS))))
        }
        Says::NoData(why) if !judged => Ok(Progress::NoData(why.clone())),
        Says::Value(value) if !judged => {
            let list = gate
                .threshold
                .as_ref()
                .is_some_and(|t| condition::wants_list(t.success_condition.as_deref(), t.failure_condition.as_deref()));
            Ok(Progress::Value(if list && !value.is_array() { json!([value]) } else { value.clone() }))
        }
        _ => Err(SourceError::new(format!("gate {}: a judge answers with a verdict, a provider with a value or noData", gate.name))),
    }
}

/// The facts that a paired gate asks for. Each measurement is another draw.
fn suite(paired: &Paired, key: &str) -> Option<Suite> {
    let paths = paired.web.suite.as_ref()?;
    let fact = |path: &Option<String>, fact: &str| path.as_ref().map(|_| fact.to_owned());
    Some(Suite {
        name: fact(&paths.name, "scenario"),
        version: fact(&paths.version, "1"),
        seed: fact(&paths.seed, key),
        dataset: fact(&paths.dataset, "scenario"),
    })
}

/// Fills in and parses everything the gate would send, as its real provider does.
fn check(request: &Request) -> Result<(), SourceError> {
    if let Some(paired) = &request.gate.paired {
        return check_web(&request.gate, &paired.web, &request.args);
    }
    match (&request.gate.threshold, &request.gate.judge) {
        (Some(threshold), None) => match &threshold.provider {
            Provider { prometheus: Some(prometheus), web: None } => check_prometheus(prometheus, &request.args),
            Provider { prometheus: None, web: Some(web) } => check_web(&request.gate, web, &request.args),
            _ => Err(SourceError::new("provider: set exactly one of prometheus, web")),
        },
        (None, Some(judge)) => {
            let mut args = request.args.clone();
            args.insert("revision".into(), ArgValue::plain(request.revision.clone()));
            fill(&judge.prompt, Place::Text, &args).map_err(|e| SourceError::new(format!("judge: prompt: {e}")))?;
            if let Some(traces) = &judge.evidence.traces {
                fill(&traces.address, Place::Url, &args).map_err(|e| SourceError::new(format!("traces: address: {e}")))?;
            }
            judge.evidence.metrics.iter().try_for_each(|metric| {
                check_prometheus(&metric.prometheus, &args)?;
                metric.count_query.as_ref().map_or(Ok(()), |query| check_query(query, &args))
            })
        }
        (None, None) if request.gate.split.is_some() => Ok(()),
        (None, None) if request.gate.counted().is_some() => check_counted(request),
        _ => Err(SourceError::new(format!("gate {}: set exactly one of threshold, judge, compare, ...", request.gate.name))),
    }
}

fn check_prometheus(prometheus: &PrometheusProvider, args: &BTreeMap<String, ArgValue>) -> Result<(), SourceError> {
    fill(&prometheus.address, Place::Url, args).map_err(|e| SourceError::new(format!("prometheus: address: {e}")))?;
    check_query(&prometheus.query, args)
}

fn check_query(query: &str, args: &BTreeMap<String, ArgValue>) -> Result<(), SourceError> {
    let fail = |e: String| SourceError::new(format!("prometheus: query: {e}"));
    let filled = fill(query, Place::PromQl, args).map_err(|e| fail(e.to_string()))?;
    promql_parser::parser::parse(&filled.text).map(drop).map_err(fail)
}

fn check_web(gate: &Gate, web: &WebProvider, args: &BTreeMap<String, ArgValue>) -> Result<(), SourceError> {
    let fail = |e: String| SourceError::new(format!("web: {e}"));
    let mut args = args.clone();
    args.insert("run.key".into(), ArgValue::plain("key"));
    check_answer(gate)?;
    let url = fill(&run_facts(&web.url), Place::Url, &args).map_err(|e| fail(format!("url: {e}")))?;
    url::Url::parse(&url.text).map_err(|e| fail(format!("url: {e}")))?;
    if let Some(body) = &web.body {
        fill(&run_facts(body), Place::Json, &args).map_err(|e| fail(format!("body: {e}")))?;
    }
    Ok(())
}

/// Selectors and address of a gate that counts calls.
fn check_counted(request: &Request) -> Result<(), SourceError> {
    let question = match Question::of(&request.gate) {
        Some(Ok(question)) => question,
        Some(Err(errors)) => return Err(SourceError::new(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
        None => return Err(SourceError::new("the gate does not count calls")),
    };
    let address = &question.counted.prometheus.address;
    fill(address, Place::Url, &request.args).map_err(|e| SourceError::new(format!("prometheus: address: {e}")))?;
    let selectors = match question.needs {
        Needs::Counters { part, total, .. } => vec![part, total],
        Needs::Histogram { metric, .. } => vec![metric],
    };
    selectors.into_iter().try_for_each(|selector| check_query(selector, &request.args))
}
