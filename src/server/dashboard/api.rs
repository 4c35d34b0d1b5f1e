//! The requests of the page.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Dashboard;
use super::access::{Caller, Token};
use super::board::array;
use super::cluster::in_time;
use super::refusal::Refusal;
use super::view;
use crate::api::action::{Verb, VoiceRolloutActionSpec};
use crate::api::{VoiceAnalysisRun, VoiceRollout, VoiceRolloutAction};

/// Runs shown in detail, newest last.
const RUNS: usize = 16;

const ONLY_SHOWS: &str = "this dashboard only shows; commands are switched off";

type Answer = Result<Json<Value>, Refusal>;

impl Dashboard {
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        self.access.caller(&Token::of(headers)?).await
    }

    /// Whether the caller may see the rollouts of a namespace.
    pub(super) async fn sees(&self, caller: &Caller, namespace: &str) -> Result<bool, Refusal> {
        Ok(self.access.may_list(caller, "").await? || self.access.may_list(caller, namespace).await?)
    }

    /// An empty list would look like the truth.
    pub(super) fn filled(&self) -> Result<(), Refusal> {
        if self.board.is_filled() {
            return Ok(());
        }
        let why = self.board.trouble().map_or_else(String::new, |why| format!(": {why}"));
        Err(Refusal::Unavailable(format!("the list of rollouts has not come yet{why}")))
    }
}

/// Names as Kubernetes has them: they become parts of a path.
fn named(names: [&str; 2]) -> Result<(), Refusal> {
    let fits = |name: &str| name.len() <= 253 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    let plain = |name: &str| fits(name) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if names.into_iter().all(plain) { Ok(()) } else { Err(Refusal::Bad("this is no name of a Kubernetes object".into())) }
}

/// `GET /dashboard/api/me`
pub async fn me(State(dashboard): State<Dashboard>, headers: HeaderMap) -> Answer {
    let caller = dashboard.caller(&headers).await?;
    Ok(Json(json!({"name": caller.name})))
}

/// `GET /dashboard/api/rollouts`
pub async fn list(State(dashboard): State<Dashboard>, headers: HeaderMap) -> Result<Response, Refusal> {
    let caller = dashboard.caller(&headers).await?;
    dashboard.filled()?;
    let mut rollouts = Vec::new();
    for ((namespace, _), line) in dashboard.board.look().0 {
        if dashboard.sees(&caller, &namespace).await? {
            rollouts.push(line);
        }
    }
    let body = array(r#"{"rollouts":"#, &rollouts, "}");
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// `GET /dashboard/api/rollouts/NS/NAME`: with the caller's own rights.
pub async fn detail(State(dashboard): State<Dashboard>, Path((namespace, name)): Path<(String, String)>, headers: HeaderMap) -> Answer {
    let caller = dashboard.caller(&headers).await?;
    named([&namespace, &name])?;
    let api: Api<VoiceRollout> = Api::namespaced(caller.client.clone(), &namespace);
    let rollout = in_time("read the rollout", api.get(&name)).await?;
    let records = rollout.status.as_ref().map(|status| status.runs.as_slice()).unwrap_or_default();
    let api: Api<VoiceAnalysisRun> = Api::namespaced(caller.client.clone(), &namespace);
    let newest = &records[records.len().saturating_sub(RUNS)..];
    let asked = join_all(newest.iter().map(|record| read_run(&api, &record.name))).await;
    let (mut runs, mut hidden, mut trouble) = (Vec::new(), false, None);
    for run in asked {
        match run {
            Ok(run) => runs.extend(run),
            Err(Refusal::BadToken) => return Err(Refusal::BadToken),
            Err(Refusal::Forbidden(_)) => hidden = true,
            // The rest is shown, and with it the buttons: they may be needed all the more.
            Err(other) => trouble = Some(other.to_string()),
        }
    }
    let mut history = dashboard.board.history(&namespace, &name);
    // What gates counted was read from runs, with the operator's rights: it is for those who have shown that they may.
    if hidden || runs.is_empty() {
        history["gates"] = json!([]);
    }
    let mut detail = view::detail(&rollout, &runs, &history);
    detail["runsHidden"] = json!(hidden);
    detail["runsTrouble"] = json!(trouble);
    detail["actions"] = match dashboard.actions {
        false => json!({"allowed": false, "why": ONLY_SHOWS}),
        true if dashboard.access.may_act(&caller, &namespace).await? => json!({"allowed": true}),
        true => json!({"allowed": false, "why": may_not_act(&caller, &namespace)}),
    };
    Ok(Json(detail))
}

async fn read_run(api: &Api<VoiceAnalysisRun>, name: &str) -> Result<Option<VoiceAnalysisRun>, Refusal> {
    in_time(&format!("read VoiceAnalysisRun {name}"), api.get_opt(name)).await
}

fn may_not_act(caller: &Caller, namespace: &str) -> String {
    format!("{} may not create voicerolloutactions in namespace {namespace}", caller.name)
}

/// A command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    verb: Verb,
    /// Hash of the revision that the person saw.
    revision: String,
    /// The step that the person saw.
    #[serde(default)]
    step: Option<String>,
    #[serde(default)]
    reason: String,
}

/// The command as a part of a name: `promote-full`.
fn word(verb: Verb) -> String {
    let text = serde_json::to_value(verb).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    text.chars().flat_map(|c| c.is_ascii_uppercase().then_some('-').into_iter().chain([c.to_ascii_lowercase()])).collect()
}

/// `POST /dashboard/api/rollouts/NS/NAME/actions`: created by the caller, not by the operator.
pub async fn act(
    State(dashboard): State<Dashboard>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    order: Result<Json<Order>, JsonRejection>,
) -> Answer {
    let caller = dashboard.caller(&headers).await?;
    if !dashboard.actions {
        return Err(Refusal::Forbidden(ONLY_SHOWS.into()));
    }
    named([&namespace, &name])?;
    let Json(order) = order.map_err(|rejection| Refusal::Bad(rejection.body_text()))?;
    if !dashboard.access.may_act(&caller, &namespace).await? {
        return Err(Refusal::Forbidden(may_not_act(&caller, &namespace)));
    }
    let word = word(order.verb);
    let metadata =
        ObjectMeta { generate_name: Some(format!("{name}-{word}-")), namespace: Some(namespace.clone()), ..ObjectMeta::default() };
    let reason = Some(order.reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    let spec = VoiceRolloutActionSpec {
        rollout: name,
        revision: order.revision,
        step: order.step,
        verb: order.verb,
        reason,
        requested_by: Some(caller.name.clone()),
    };
    let api: Api<VoiceRolloutAction> = Api::namespaced(caller.client.clone(), &namespace);
    let action = VoiceRolloutAction { metadata, spec, status: None };
    let made = in_time("give the command", api.create(&PostParams::default(), &action)).await?;
    tracing::info!(namespace, rollout = made.spec.rollout, verb = word, by = caller.name, "command from the dashboard");
    Ok(Json(json!({"name": made.name_any()})))
}

/// `GET /dashboard/api/actions/NS/NAME`: what became of a command, with the caller's own rights.
pub async fn outcome(State(dashboard): State<Dashboard>, Path((namespace, name)): Path<(String, String)>, headers: HeaderMap) -> Answer {
    let caller = dashboard.caller(&headers).await?;
    named([&namespace, &name])?;
    let api: Api<VoiceRolloutAction> = Api::namespaced(caller.client.clone(), &namespace);
    let action = in_time("read the command", api.get(&name)).await?;
    Ok(Json(json!(action.status.unwrap_or_default())))
}
