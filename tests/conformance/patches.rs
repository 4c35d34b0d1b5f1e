//! JSON patch, merge patch, strategic merge patch, server-side apply.

use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Env, Outcome, did, from, holds, refused, rollout, same};

crate::cases!(
    json_patch_changes_what_it_names,
    json_patch_whose_test_fails_is_invalid,
    json_patch_tests_the_resource_version,
    json_patch_on_a_missing_path_is_invalid,
    json_patch_replaces_a_missing_field_of_an_object,
    apply_of_an_undeclared_field_is_refused,
    json_patch_that_is_none_is_bad_request,
    merge_patch_with_null_removes,
    merge_patch_with_an_old_version_is_conflict,
    merge_patch_of_a_missing_object_is_not_found,
    strategic_merge_is_refused_for_custom_resources,
    strategic_merge_adds_to_finalizers,
    apply_creates_and_then_does_nothing,
    apply_removes_what_it_no_longer_names,
    apply_with_an_old_version_is_conflict,
    apply_of_a_foreign_field_is_conflict_unless_forced,
    apply_of_a_status_twice_keeps_the_version,
    apply_needs_a_manager,
    apply_merges_lists_by_key,
);

type Json<'a> = Patch<&'a serde_json::Value>;

fn json_patch(value: serde_json::Value) -> Result<Patch<()>, String> {
    Ok(Patch::Json(from::<json_patch::Patch>(value)?))
}

async fn json_patch_changes_what_it_names(env: &Env) -> Outcome {
    env.config_map("json", json!({})).await?;
    let patch = json_patch(
        json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "2"}, {"op": "add", "path": "/data/b", "value": "3"}]),
    )?;
    let new = did("patch", env.config_maps().patch("json", &PatchParams::default(), &patch).await)?;
    same("data", serde_json::to_value(new.data).unwrap_or_default(), json!({"a": "2", "b": "3"}))
}

async fn json_patch_whose_test_fails_is_invalid(env: &Env) -> Outcome {
    let old = env.config_map("json-test", json!({})).await?;
    let patch = json_patch(json!([{"op": "replace", "path": "/data/a", "value": "9"}, {"op": "test", "path": "/data/a", "value": "1"}]))?;
    let patched = env.config_maps().patch("json-test", &PatchParams::default(), &patch).await;
    let status = refused("patch", patched, 422, "Invalid")?;
    // Nothing more, by which whoever sent it knows it.
    same("message", status.message.as_str(), voicerollout::sim::PATCH_FAILED)?;
    let now = did("get", env.config_maps().get("json-test").await)?;
    same("resourceVersion", now.resource_version(), old.resource_version())
}

async fn json_patch_tests_the_resource_version(env: &Env) -> Outcome {
    let old = env.config_map("json-version", json!({})).await?;
    let patch = json_patch(json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": old.resource_version()},
        {"op": "replace", "path": "/data/a", "value": "2"}
    ]))?;
    did("first patch", env.config_maps().patch("json-version", &PatchParams::default(), &patch).await)?;
    let again = env.config_maps().patch("json-version", &PatchParams::default(), &patch).await;
    refused("same patch again", again, 422, "Invalid").map(drop)
}

async fn json_patch_on_a_missing_path_is_invalid(env: &Env) -> Outcome {
    env.config_map("json-missing", json!({})).await?;
    for operation in [
        json!({"op": "remove", "path": "/data/zzz"}),
        json!({"op": "test", "path": "/data/zzz", "value": "1"}),
        json!({"op": "replace", "path": "/zzz/zzz", "value": "1"}),
        json!({"op": "add", "path": "/metadata/labels/zzz", "value": "1"}),
    ] {
        let patch = json_patch(json!([operation]))?;
        let patched = env.config_maps().patch("json-missing", &PatchParams::default(), &patch).await;
        refused(&operation.to_string(), patched, 422, "Invalid")?;
    }
    Ok(())
}

async fn json_patch_replaces_a_missing_field_of_an_object(env: &Env) -> Outcome {
    env.config_map("json-replace", json!({})).await?;
    let patch = json_patch(json!([{"op": "replace", "path": "/data/zzz", "value": "1"}]))?;
    let new = did("patch", env.config_maps().patch("json-replace", &PatchParams::default(), &patch).await)?;
    same("data", serde_json::to_value(new.data).unwrap_or_default(), json!({"a": "1", "zzz": "1"}))
}

async fn json_patch_that_is_none_is_bad_request(env: &Env) -> Outcome {
    env.config_map("json-none", json!({})).await?;
    let url = format!("/api/v1/namespaces/{}/configmaps/json-none", env.namespace);
    let request = http::Request::patch(url).header("content-type", "application/json-patch+json");
    let request = did("build", request.body(br#"{"data":{}}"#.to_vec()))?;
    refused("patch", env.client.request::<serde_json::Value>(request).await, 400, "BadRequest").map(drop)
}

async fn merge_patch_with_null_removes(env: &Env) -> Outcome {
    env.config_map("merge", json!({"x": "y"})).await?;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"x": null}}, "data": {"b": "2"}}));
    let new = did("patch", env.config_maps().patch("merge", &PatchParams::default(), &patch).await)?;
    holds("the label is gone", !new.labels().contains_key("x"))?;
    same("data", serde_json::to_value(new.data).unwrap_or_default(), json!({"a": "1", "b": "2"}))
}

async fn merge_patch_with_an_old_version_is_conflict(env: &Env) -> Outcome {
    let old = env.config_map("merge-version", json!({})).await?;
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": old.resource_version()}, "data": {"a": "2"}}));
    did("first patch", env.config_maps().patch("merge-version", &PatchParams::default(), &patch).await)?;
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": old.resource_version()}, "data": {"a": "3"}}));
    let again = env.config_maps().patch("merge-version", &PatchParams::default(), &patch).await;
    refused("second patch", again, 409, "Conflict").map(drop)
}

async fn merge_patch_of_a_missing_object_is_not_found(env: &Env) -> Outcome {
    let patch = Patch::Merge(json!({"data": {"a": "2"}}));
    let patched = env.config_maps().patch("merge-none", &PatchParams::default(), &patch).await;
    refused("patch", patched, 404, "NotFound").map(drop)
}

async fn strategic_merge_is_refused_for_custom_resources(env: &Env) -> Outcome {
    env.rollout("strategic").await?;
    let patch = Patch::Strategic(json!({"spec": {"replicas": 2}}));
    let patched = env.rollouts().patch("strategic", &PatchParams::default(), &patch).await;
    refused("patch", patched, 415, "UnsupportedMediaType").map(drop)
}

async fn strategic_merge_adds_to_finalizers(env: &Env) -> Outcome {
    env.config_map("strategic-finalizers", json!({})).await?;
    let api = env.config_maps();
    for finalizer in ["example.com/one", "example.com/two"] {
        let patch = Patch::Strategic(json!({"metadata": {"finalizers": [finalizer]}}));
        did("patch", api.patch("strategic-finalizers", &PatchParams::default(), &patch).await)?;
    }
    let both = did("get", api.get("strategic-finalizers").await)?.finalizers().len();
    let clear = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    did("clear", api.patch("strategic-finalizers", &PatchParams::default(), &clear).await)?;
    same("finalizers", both, 2)
}

fn map(name: &str, labels: serde_json::Value, data: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data})
}

async fn apply_creates_and_then_does_nothing(env: &Env) -> Outcome {
    let object = map("apply", json!({"x": "1"}), json!({"a": "1"}));
    let patch: Json = Patch::Apply(&object);
    let params = PatchParams::apply("case");
    let one = did("first apply", env.config_maps().patch("apply", &params, &patch).await)?;
    let two = did("second apply", env.config_maps().patch("apply", &params, &patch).await)?;
    same("resourceVersion", two.resource_version(), one.resource_version())
}

async fn apply_removes_what_it_no_longer_names(env: &Env) -> Outcome {
    let params = PatchParams::apply("case");
    let api = env.config_maps();
    let first = map("apply-less", json!({"x": "1", "y": "1"}), json!({"a": "1", "b": "1"}));
    did("apply", api.patch("apply-less", &params, &Patch::Apply(&first)).await)?;
    let foreign = Patch::Merge(json!({"data": {"foreign": "1"}}));
    did("foreign patch", api.patch("apply-less", &PatchParams::default(), &foreign).await)?;
    let second = map("apply-less", json!({"x": "1"}), json!({"a": "1"}));
    let now = did("apply", api.patch("apply-less", &params, &Patch::Apply(&second)).await)?;
    same("labels", now.labels().keys().cloned().collect(), vec!["x".to_owned()])?;
    same("data", now.data.unwrap_or_default().into_keys().collect(), vec!["a".to_owned(), "foreign".to_owned()])
}

async fn apply_with_an_old_version_is_conflict(env: &Env) -> Outcome {
    let params = PatchParams::apply("case").force();
    let api = env.config_maps();
    let old = did("apply", api.patch("apply-stale", &params, &Patch::Apply(&map("apply-stale", json!({}), json!({"a": "1"})))).await)?;
    let mut object = map("apply-stale", json!({}), json!({"a": "2"}));
    object["metadata"]["resourceVersion"] = json!(old.resource_version());
    did("apply on the newest", api.patch("apply-stale", &params, &Patch::Apply(&object)).await)?;
    object["data"]["a"] = json!("3");
    let stale = api.patch("apply-stale", &params, &Patch::Apply(&object)).await;
    refused("apply on an old version", stale, 409, "Conflict").map(drop)
}

async fn apply_of_a_foreign_field_is_conflict_unless_forced(env: &Env) -> Outcome {
    let api = env.config_maps();
    let one = map("apply-foreign", json!({}), json!({"a": "1"}));
    did("one", api.patch("apply-foreign", &PatchParams::apply("one"), &Patch::Apply(&one)).await)?;
    let two = map("apply-foreign", json!({}), json!({"a": "2"}));
    let refusal = refused("two", api.patch("apply-foreign", &PatchParams::apply("two"), &Patch::Apply(&two)).await, 409, "Conflict")?;
    let cause = refusal.details.and_then(|d| d.causes.first().cloned());
    same("cause", cause.map(|c| (c.reason, c.field)), Some(("FieldManagerConflict".into(), ".data.a".into())))?;
    let forced = did("two, forced", api.patch("apply-foreign", &PatchParams::apply("two").force(), &Patch::Apply(&two)).await)?;
    same("data.a", forced.data.and_then(|d| d.get("a").cloned()), Some("2".into()))?;
    refused("one again", api.patch("apply-foreign", &PatchParams::apply("one"), &Patch::Apply(&one)).await, 409, "Conflict").map(drop)
}

async fn apply_of_a_status_twice_keeps_the_version(env: &Env) -> Outcome {
    env.rollout("apply-status").await?;
    let api = env.rollouts();
    let status = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": "apply-status"},
        "status": {"message": "hello", "conditions": [{
            "type": "Ready", "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
        }]}
    });
    let params = PatchParams::apply("case").force();
    let one = did("first", api.patch_status("apply-status", &params, &Patch::Apply(&status)).await)?;
    let two = did("second", api.patch_status("apply-status", &params, &Patch::Apply(&status)).await)?;
    same("resourceVersion", two.resource_version(), one.resource_version())?;
    same("message", two.data["status"]["message"].as_str(), Some("hello"))
}

async fn apply_needs_a_manager(env: &Env) -> Outcome {
    let url = format!("/api/v1/namespaces/{}/configmaps/nobody", env.namespace);
    let request = http::Request::patch(url).header("content-type", "application/apply-patch+yaml");
    let body = map("nobody", json!({}), json!({})).to_string().into_bytes();
    let request = did("build", request.body(body))?;
    refused("apply", env.client.request::<serde_json::Value>(request).await, 422, "Invalid").map(drop)
}

async fn apply_merges_lists_by_key(env: &Env) -> Outcome {
    let api = env.rollouts();
    let object: DynamicObject = from(rollout("apply-lists"))?;
    did("create", api.create(&PostParams::default(), &object).await)?;
    let sidecar = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": "apply-lists"},
        "spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": "sidecar:1"}]}}}
    });
    let now = did("apply", api.patch("apply-lists", &PatchParams::apply("case"), &Patch::Apply(&sidecar)).await)?;
    let containers = now.data.pointer("/spec/template/spec/containers").and_then(|c| c.as_array()).cloned().unwrap_or_default();
    let names: Vec<&str> = containers.iter().filter_map(|c| c["name"].as_str()).collect();
    same("containers", names, vec!["agent", "sidecar"])
}

async fn apply_of_an_undeclared_field_is_refused(env: &Env) -> Outcome {
    env.rollout("apply-unknown").await?;
    let object = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": "apply-unknown"},
        "spec": {"noSuchField": 1}
    });
    let applied = env.rollouts().patch("apply-unknown", &PatchParams::apply("case"), &Patch::Apply(&object)).await;
    let status = refused("apply", applied, 500, "")?;
    holds("the field is named", status.message.contains(".spec.noSuchField: field not declared in schema"))
}
