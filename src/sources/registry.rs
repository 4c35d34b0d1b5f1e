//! All providers as one [`Source`].

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::calls::{self, CallCounter, Calls, CallsQuestion, Readings};
use super::egress::Egress;
use super::http::Http;
use super::judge::Dialects;
use super::judge::logs::LogReader;
use super::secrets::{SecretReader, Vault};
use super::web::Harness;
use super::{Eval, Progress, Reading, Request, Source, SourceError, counters, judge, prometheus, web};
use crate::api::analysis::{Provider, WebProvider};

/// Settings of the providers.
#[derive(Clone, Debug)]
pub struct SourcesConfig {
    /// Where measurements may connect to.
    pub egress: Egress,
    /// Namespace of the Secrets that cluster templates name.
    pub operator_namespace: String,
    /// `User-Agent` of every request.
    pub user_agent: String,
}

/// The providers: prometheus, web and the judges. Only runs of an eval harness go on after `start`.
pub struct Sources {
    http: Http,
    operator_namespace: String,
    secrets: Arc<dyn SecretReader>,
    logs: Arc<dyn LogReader>,
    dialects: Dialects,
    slots: Semaphore,
}

impl Sources {
    /// Providers that read Secrets and pod logs with the given readers.
    pub fn new(config: SourcesConfig, secrets: Arc<dyn SecretReader>, logs: Arc<dyn LogReader>) -> Self {
        let SourcesConfig { egress, operator_namespace, user_agent } = config;
        Self {
            http: Http::new(egress, user_agent),
            operator_namespace,
            secrets,
            logs,
            dialects: Dialects::default(),
            slots: calls::slots(),
        }
    }

    /// Has a judge's gate give a verdict on evidence that is given, as for cases whose answer is known.
    ///
    /// # Errors
    /// The gate is no judge, or the model could not be asked.
    pub async fn judge(&self, request: &Request, evidence: &Value) -> Result<Progress, SourceError> {
        let namespace = if request.from_cluster_template { &self.operator_namespace } else { &request.namespace };
        let vault = Vault::new(&*self.secrets, namespace, request);
        let Some(judge) = &request.gate.judge else { return Err(SourceError::new(format!("gate {} is no judge", request.gate.name))) };
        seal(judge::on_evidence(&self.http, &vault, &self.dialects, request, judge, evidence).await, &vault)
    }

    async fn measure(&self, request: &Request) -> Result<Progress, SourceError> {
        let vault = self.vault(request);
        let gate = &request.gate;
        if let Some(web) = web::of(gate) {
            let outcome = async { Harness::new(&self.http, &vault, request, web)?.start().await };
            return seal(outcome.await, &vault);
        }
        let outcome = match (&gate.threshold, &gate.judge) {
            (Some(threshold), None) => match &threshold.provider {
                Provider { prometheus: Some(p), web: None } => prometheus::measure(&self.http, &vault, request, threshold, p).await,
                _ => Err(SourceError::new(format!("gate {}: provider: set exactly one of prometheus, web", gate.name))),
            },
            (None, None) if gate.reads_counters().is_some() => counters::look(&self.http, &vault, request).await,
            (None, Some(judge)) => judge::measure(&self.http, &vault, &self.dialects, &*self.logs, request, judge).await,
            _ => Err(SourceError::new(format!(
                "gate {}: set exactly one of threshold, judge, compare, compareHistogram, absolute, paired",
                gate.name
            ))),
        };
        seal(outcome, &vault)
    }

    fn vault<'a>(&'a self, request: &'a Request) -> Vault<'a> {
        let namespace = if request.from_cluster_template { &self.operator_namespace } else { &request.namespace };
        Vault::new(&*self.secrets, namespace, request)
    }

    async fn ask_again(&self, request: &Request, handle: &str) -> Result<Progress, SourceError> {
        let vault = self.vault(request);
        let asked = async {
            match web::of(&request.gate) {
                Some((wanted, web @ WebProvider { run: Some(run), .. })) => {
                    web::poll(&Harness::new(&self.http, &vault, request, (wanted, web))?, run, handle).await
                }
                _ => Err(SourceError::new(format!("gate {}: this provider has nothing to poll", request.gate.name))),
            }
        };
        seal(asked.await, &vault)
    }

    async fn give_up(&self, request: &Request, handle: &str) {
        let vault = self.vault(request);
        let Some((wanted, web @ WebProvider { run: Some(run), .. })) = web::of(&request.gate) else { return };
        let asked = async { web::cancel(&Harness::new(&self.http, &vault, request, (wanted, web))?, run, handle).await };
        if let Err(error) = asked.await {
            let error = vault.known().scrub(&error.message);
            tracing::warn!(gate = request.gate.name, rollout = request.rollout, error, "an eval run was not cancelled");
        }
    }
}

/// The last look at everything that leaves: no Secret's value in it.
fn seal(outcome: Result<Progress, SourceError>, vault: &Vault<'_>) -> Result<Progress, SourceError> {
    let known = vault.known();
    match outcome {
        Err(e) => Err(SourceError { message: known.scrub(&e.message), ..e }),
        Ok(Progress::Value(Value::String(text))) if known.is_in(&text) => {
            Err(SourceError::new("the provider's answer holds a Secret's value; it is not shown and not used"))
        }
        Ok(Progress::Running { handle, .. }) if known.is_in(&handle) => {
            Err(SourceError::new("the id or URL of the run holds a Secret's value, and is kept in a status: it is not used"))
        }
        Ok(Progress::Unanswered { message, retry_after }) => Ok(Progress::Unanswered { message: known.scrub(&message), retry_after }),
        Ok(Progress::Eval(eval)) if shown(&eval).any(|text| known.is_in(text)) => {
            Err(SourceError::new("the provider's answer holds a Secret's value; it is not shown and not used"))
        }
        Ok(Progress::NoData(why)) => Ok(Progress::NoData(known.scrub(&why))),
        Ok(Progress::Votes(judgement)) => {
            let mut judgement = judgement;
            judgement.message = known.scrub(&judgement.message);
            judgement.record.model = known.scrub(&judgement.record.model);
            Ok(Progress::Votes(judgement))
        }
        Ok(other) => Ok(other),
    }
}

impl CallCounter for Sources {
    fn count<'a>(&'a self, question: &'a CallsQuestion) -> BoxFuture<'a, Readings> {
        Box::pin(async move { Calls { http: &self.http, secrets: &*self.secrets, slots: &self.slots }.count(question).await })
    }
}

impl Source for Sources {
    fn start<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Progress, SourceError>> {
        Box::pin(self.measure(request))
    }

    fn poll<'a>(&'a self, request: &'a Request, handle: &'a str) -> BoxFuture<'a, Result<Progress, SourceError>> {
        Box::pin(self.ask_again(request, handle))
    }

    fn cancel<'a>(&'a self, request: &'a Request, handle: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.give_up(request, handle))
    }
}

/// The texts of an eval's measurement that come out of the answer.
fn shown(eval: &Eval) -> impl Iterator<Item = &str> {
    let value = if let Reading::Value(Value::String(text)) = &eval.reading { Some(text.as_str()) } else { None };
    let facts = eval.suite.iter().flat_map(|s| [&s.name, &s.version, &s.seed, &s.dataset]);
    value.into_iter().chain(facts.filter_map(|f| f.as_deref()))
}
