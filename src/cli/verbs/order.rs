//! Commands of a person: create a VoiceRolloutAction, and wait for what the operator makes of it.

use std::io::Write;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use super::{Action, Session, request, say};
use crate::api::VoiceRollout;
use crate::api::action::{ActionState, VoiceRolloutAction, VoiceRolloutActionSpec, VoiceRolloutActionStatus};
use crate::cli::error::CliError;

/// How a command is given.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Do not ask.
    pub yes: bool,
}

impl Session {
    /// Creates the command, bound to the revision that is there now, and one that ends a step to that step; waits for the
    /// operator's answer.
    ///
    /// # Errors
    /// No such rollout, a command that the operator or the API server refuses, or no answer within `timeout`.
    pub async fn order(
        &self,
        name: &str,
        verb: Action,
        reason: Option<String>,
        Given { timeout, yes }: Given,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        if let Some(question) = at_stake(&rollout, verb) {
            self.confirm(yes, &question)?;
        }
        let status = rollout.status.unwrap_or_default();
        let revision = status.canary_revision.ok_or_else(|| CliError::NotObserved { name: name.into() })?;
        // The step may be another one by the time that the operator looks.
        let ends_step = matches!(verb, Action::Promote | Action::SkipStep);
        let step = Some(status.step_display).filter(|step| ends_step && !step.is_empty());
        let requested_by = Some(self.user_name().await?);
        let spec = VoiceRolloutActionSpec { rollout: name.into(), revision: revision.clone(), step, verb, reason, requested_by };
        let action = self.create(spec).await?;
        let answer = self.waited("waiting for the operator's answer", self.answer(&action, timeout)).await?;
        if answer.state == Some(ActionState::Refused) {
            return Err(CliError::Refused { verb: word(verb).into(), name: name.into(), message: answer.message });
        }
        let message = if answer.message.is_empty() { String::new() } else { format!(": {}", answer.message) };
        say(out, &format!("{} {name}: applied to revision {revision}{message}\n", word(verb)))?;
        say(out, &self.watch_hint(name))
    }

    /// The person's name, as the API server knows it.
    async fn user_name(&self) -> Result<String, CliError> {
        let what = "ask the API server who you are (SelfSubjectReview)";
        let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = request(what, async { api.create(&PostParams::default(), &SelfSubjectReview::default()).await }).await?;
        let name = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
        name.ok_or_else(|| CliError::Api { what: what.into(), message: "it did not say".into() })
    }

    fn actions(&self) -> Api<VoiceRolloutAction> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create(&self, spec: VoiceRolloutActionSpec) -> Result<VoiceRolloutAction, CliError> {
        let what = format!("{} {}: create the VoiceRolloutAction", word(spec.verb), spec.rollout);
        let prefix = format!("{}-{}-", spec.rollout, word(spec.verb).replace(" --", "-"));
        let metadata = ObjectMeta { generate_name: Some(prefix), namespace: Some(self.namespace.clone()), ..Default::default() };
        let action = VoiceRolloutAction { metadata, spec, status: None };
        let (api, params) = (self.actions(), PostParams::default());
        request(what, async { api.create(&params, &action).await }).await
    }

    async fn answer(&self, action: &VoiceRolloutAction, timeout: Duration) -> Result<VoiceRolloutActionStatus, CliError> {
        let name = action.name_any();
        let changes = watcher::watch_object(self.actions(), &name).default_backoff();
        let unknown = |why: &str| CliError::Unknown {
            what: format!("VoiceRolloutAction {name} is created, but {why}"),
            hint: format!("see kubectl get voicerolloutaction {name} -n {}", self.namespace),
        };
        match tokio::time::timeout(timeout, first_answer(changes)).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(why)) => Err(unknown(&why)),
            Err(_) => Err(unknown(&format!("the operator has not answered within {timeout:?} (is it running?)"))),
        }
    }
}

/// What to ask before a command that sends calls where no gate has looked; `None` for the others. An abort is never asked
/// about: it is the safe way, and there may be no time.
fn at_stake(rollout: &VoiceRollout, verb: Action) -> Option<String> {
    let status = rollout.status.as_ref()?;
    let (canary, weight) = (status.canary_revision.as_deref()?, status.weights.applied);
    match verb {
        Action::PromoteFull => Some(format!(
            "All new calls go to revision {canary}, which has {weight} % now, without the remaining steps and analysis. Go on?"
        )),
        Action::SkipStep => Some(format!("Step {} ends without its evidence, and revision {canary} goes on. Go on?", status.step_display)),
        _ => None,
    }
}

/// Waits until the object has a state; says why that will not come.
async fn first_answer(
    changes: impl Stream<Item = watcher::Result<Option<VoiceRolloutAction>>>,
) -> Result<VoiceRolloutActionStatus, String> {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(Some(VoiceRolloutAction { status: Some(status), .. })) if status.state.is_some() => return Ok(status),
            Ok(Some(_)) => {}
            Ok(None) => return Err("it is gone".into()),
            Err(error) if is_forbidden(&error) => return Err("you may not watch it".into()),
            // The watch is started again by itself.
            Err(_) => {}
        }
    }
    Err("its watch ended".into())
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.is_forbidden()
        }
        _ => false,
    }
}

/// The command as it is typed.
fn word(verb: Action) -> &'static str {
    match verb {
        Action::Promote => "promote",
        Action::SkipStep => "promote --skip-step",
        Action::PromoteFull => "promote --full",
        Action::Abort => "abort",
        Action::Retry => "retry",
        Action::Pause => "pause",
        Action::Resume => "resume",
    }
}
