//! Schemas of custom resources: defaults, pruning, strictness, bounds, CEL rules.

use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use serde_json::{Value, json};

use super::{Env, Outcome, action, did, from, holds, refused, rollout, same};

crate::cases!(
    defaults_are_filled_in,
    unknown_fields_are_dropped,
    unknown_fields_are_refused_when_strict,
    wrong_types_are_invalid,
    missing_fields_are_invalid,
    values_outside_an_enum_are_invalid,
    numbers_outside_their_bounds_are_invalid,
    texts_that_do_not_match_are_invalid,
    too_many_items_are_invalid,
    doubled_keys_of_a_list_are_invalid,
    rules_are_checked_at_creation,
    rules_are_checked_deep_inside,
    transition_rules_are_checked_at_updates,
    an_invalid_status_is_refused,
    all_mistakes_are_named_at_once,
);

async fn create_bad(env: &Env, object: Value) -> Result<kube::core::Status, String> {
    let made = env.rollouts().create(&PostParams::default(), &from(object)?).await;
    refused("create", made, 422, "Invalid")
}

fn cause(status: &kube::core::Status, field: &str, reason: &str) -> Outcome {
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    let found = causes.iter().any(|c| c.field == field && c.reason == reason);
    if found { Ok(()) } else { Err(format!("no cause {reason} at {field} in {causes:?}")) }
}

async fn defaults_are_filled_in(env: &Env) -> Outcome {
    let made = env.rollout("defaulted").await?;
    let spec = &made.data["spec"];
    same("replicas", spec["replicas"].as_i64(), Some(1))?;
    same("paused", spec["paused"].as_bool(), Some(false))?;
    same("revisionHistoryLimit", spec["revisionHistoryLimit"].as_i64(), Some(10))?;
    holds("a default inside a list item", spec.pointer("/traffic/istio/virtualServices/0/namespace") == Some(&json!("")))
}

async fn unknown_fields_are_dropped(env: &Env) -> Outcome {
    let mut object = rollout("pruned");
    object["spec"]["noSuchField"] = json!(1);
    object["spec"]["steps"][0]["noSuchField"] = json!(1);
    object["spec"]["template"]["metadata"]["annotations"] = json!({"kept": "yes"});
    let made = did("create", env.rollouts().create(&PostParams::default(), &from(object)?).await)?;
    holds("dropped from the spec", made.data["spec"].get("noSuchField").is_none())?;
    holds("dropped from a list item", made.data["spec"]["steps"][0].get("noSuchField").is_none())?;
    let kept = made.data.pointer("/spec/template/metadata/annotations/kept");
    same("kept in the pod template", kept.and_then(Value::as_str), Some("yes"))
}

async fn unknown_fields_are_refused_when_strict(env: &Env) -> Outcome {
    env.rollout("strict").await?;
    let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"noSuchField": 1}}));
    let status = refused("patch", env.rollouts().patch("strict", &params, &patch).await, 422, "Invalid")?;
    holds("a patch names the field", status.message.contains("unknown field \"spec.noSuchField\""))?;
    let url = format!("/apis/voicerollout.dev/v1alpha1/namespaces/{}/voicerollouts?fieldValidation=Strict", env.namespace);
    let mut object = rollout("strict-create");
    object["spec"]["noSuchField"] = json!(1);
    let request = did("build", http::Request::post(url).header("content-type", "application/json").body(object.to_string().into_bytes()))?;
    let status = refused("create", env.client.request::<Value>(request).await, 400, "BadRequest")?;
    holds("a creation names the field", status.message.contains("unknown field \"spec.noSuchField\""))
}

async fn wrong_types_are_invalid(env: &Env) -> Outcome {
    let mut object = rollout("types");
    object["spec"]["replicas"] = json!("three");
    cause(&create_bad(env, object).await?, "spec.replicas", "FieldValueTypeInvalid")
}

async fn missing_fields_are_invalid(env: &Env) -> Outcome {
    let mut object = rollout("missing-field");
    object["spec"].as_object_mut().map(|s| s.remove("traffic"));
    cause(&create_bad(env, object).await?, "spec.traffic", "FieldValueRequired")
}

async fn values_outside_an_enum_are_invalid(env: &Env) -> Outcome {
    let mut object = action("enum");
    object["spec"]["verb"] = json!("explode");
    let made = env.actions().create(&PostParams::default(), &from(object)?).await;
    let status = refused("create", made, 422, "Invalid")?;
    cause(&status, "spec.verb", "FieldValueNotSupported")
}

async fn numbers_outside_their_bounds_are_invalid(env: &Env) -> Outcome {
    let mut object = rollout("bounds");
    object["spec"]["steps"] = json!([{"setWeight": 101}]);
    cause(&create_bad(env, object.clone()).await?, "spec.steps[0].setWeight", "FieldValueInvalid")?;
    object["spec"]["steps"] = json!([{"setWeight": -1}]);
    cause(&create_bad(env, object).await?, "spec.steps[0].setWeight", "FieldValueInvalid")
}

async fn texts_that_do_not_match_are_invalid(env: &Env) -> Outcome {
    for text in ["5", "-1m", "soon"] {
        let mut object = rollout("pattern");
        object["spec"]["scaleDownDelay"] = json!(text);
        cause(&create_bad(env, object).await?, "spec.scaleDownDelay", "FieldValueInvalid")?;
    }
    Ok(())
}

async fn too_many_items_are_invalid(env: &Env) -> Outcome {
    let mut object = rollout("many");
    object["spec"]["steps"] = json!(vec![json!({"setWeight": 5}); 65]);
    cause(&create_bad(env, object.clone()).await?, "spec.steps", "FieldValueTooMany")?;
    object["spec"]["steps"] = json!([]);
    cause(&create_bad(env, object).await?, "spec.steps", "FieldValueInvalid")
}

async fn doubled_keys_of_a_list_are_invalid(env: &Env) -> Outcome {
    let mut object = rollout("doubled");
    object["spec"]["traffic"]["istio"]["virtualServices"] = json!([{"name": "a"}, {"name": "a"}]);
    cause(&create_bad(env, object).await?, "spec.traffic.istio.virtualServices[1]", "FieldValueDuplicate")
}

async fn rules_are_checked_at_creation(env: &Env) -> Outcome {
    let mut object = rollout("rules");
    object["spec"].as_object_mut().map(|s| s.remove("steps"));
    let status = create_bad(env, object).await?;
    holds("the rule's message is there", status.message.contains("set spec.analysis, or write spec.steps"))?;
    cause(&status, "spec", "FieldValueInvalid")
}

async fn rules_are_checked_deep_inside(env: &Env) -> Outcome {
    let mut object = rollout("deep-rules");
    object["spec"]["steps"] = json!([{"setWeight": 5}, {"setWeight": 10, "pause": {}}]);
    cause(&create_bad(env, object).await?, "spec.steps[1]", "FieldValueInvalid")
}

async fn transition_rules_are_checked_at_updates(env: &Env) -> Outcome {
    env.rollout("transition").await?;
    let patch = Patch::Merge(json!({"spec": {"selector": {"matchLabels": {"app": "another"}}}}));
    let status = refused("patch", env.rollouts().patch("transition", &PatchParams::default(), &patch).await, 422, "Invalid")?;
    holds("the rule's message is there", status.message.contains("selector is immutable"))?;
    did("create", env.actions().create(&PostParams::default(), &from(action("transition"))?).await)?;
    let patch = Patch::Merge(json!({"spec": {"verb": "promote"}}));
    refused("patch", env.actions().patch("transition", &PatchParams::default(), &patch).await, 422, "Invalid").map(drop)
}

async fn an_invalid_status_is_refused(env: &Env) -> Outcome {
    env.rollout("bad-status").await?;
    let patch = Patch::Merge(json!({"status": {"phase": "Confused"}}));
    let patched = env.rollouts().patch_status("bad-status", &PatchParams::default(), &patch).await;
    cause(&refused("patch", patched, 422, "Invalid")?, "status.phase", "FieldValueNotSupported")
}

async fn all_mistakes_are_named_at_once(env: &Env) -> Outcome {
    let mut object = rollout("mistakes");
    object["spec"]["replicas"] = json!(-1);
    object["spec"]["scaleDownDelay"] = json!("soon");
    let status = create_bad(env, object).await?;
    cause(&status, "spec.replicas", "FieldValueInvalid")?;
    cause(&status, "spec.scaleDownDelay", "FieldValueInvalid")
}
