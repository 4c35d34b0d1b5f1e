//! Create, read, replace, delete, list.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::{Env, Outcome, did, eventually, from, holds, refused, rollout, same};

crate::cases!(
    create_fills_in_metadata,
    create_of_a_taken_name_is_already_exists,
    create_with_generate_name_makes_a_name,
    create_without_a_name_is_invalid,
    create_with_a_bad_name_is_invalid,
    create_in_a_missing_namespace_is_not_found,
    get_of_a_missing_object_is_not_found,
    dry_run_stores_nothing,
    replace_with_an_old_version_is_conflict,
    replace_of_a_custom_resource_needs_a_version,
    replace_of_a_missing_object_is_not_found,
    replace_without_a_change_keeps_the_version,
    generation_follows_the_spec_only,
    status_is_ignored_outside_its_subresource,
    spec_is_ignored_in_the_status_subresource,
    delete_waits_for_finalizers,
    delete_of_a_marked_object_adds_no_finalizer,
    delete_preconditions_hold_or_conflict,
    dependents_go_with_their_owner,
    delete_collection_takes_what_is_selected,
    lists_select_by_label,
    lists_select_by_field,
    lists_come_in_pages,
    scale_reads_and_writes_replicas,
    scale_selector_is_the_status_text,
    replica_set_selector_is_immutable,
    replica_set_template_has_to_match,
    built_in_defaults_are_filled_in,
);

async fn create_fills_in_metadata(env: &Env) -> Outcome {
    let made = env.rollout("meta").await?;
    holds("there is a UID", made.uid().is_some_and(|u| !u.is_empty()))?;
    holds("there is a creation time", made.creation_timestamp().is_some())?;
    holds("there is a resourceVersion", made.resource_version().is_some_and(|v| v.parse::<u64>().is_ok()))?;
    same("generation", made.metadata.generation, Some(1))
}

async fn create_of_a_taken_name_is_already_exists(env: &Env) -> Outcome {
    env.config_map("taken", json!({})).await?;
    let again = env.config_maps().create(&PostParams::default(), &from(json!({"metadata": {"name": "taken"}}))?).await;
    let status = refused("create", again, 409, "AlreadyExists")?;
    same("name in details", status.details.map(|d| d.name), Some("taken".into()))
}

async fn create_with_generate_name_makes_a_name(env: &Env) -> Outcome {
    let map: ConfigMap = from(json!({"metadata": {"generateName": "gen-"}}))?;
    let one = did("create", env.config_maps().create(&PostParams::default(), &map).await)?.name_any();
    let two = did("create", env.config_maps().create(&PostParams::default(), &map).await)?.name_any();
    holds("names differ", one != two)?;
    holds("a name is the prefix and five letters", one.starts_with("gen-") && one.len() == 9)
}

async fn create_without_a_name_is_invalid(env: &Env) -> Outcome {
    let map: ConfigMap = from(json!({"metadata": {}}))?;
    refused("create", env.config_maps().create(&PostParams::default(), &map).await, 422, "Invalid").map(drop)
}

async fn create_with_a_bad_name_is_invalid(env: &Env) -> Outcome {
    let map: ConfigMap = from(json!({"metadata": {"name": "No_Good"}}))?;
    let status = refused("create", env.config_maps().create(&PostParams::default(), &map).await, 422, "Invalid")?;
    let field = status.details.and_then(|d| d.causes.first().map(|c| c.field.clone()));
    same("field of the cause", field, Some("metadata.name".into()))
}

async fn create_in_a_missing_namespace_is_not_found(env: &Env) -> Outcome {
    let maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), "no-such-namespace");
    let made = maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}}))?).await;
    refused("create", made, 404, "NotFound").map(drop)
}

async fn get_of_a_missing_object_is_not_found(env: &Env) -> Outcome {
    let status = refused("get", env.rollouts().get("missing").await, 404, "NotFound")?;
    same("message", status.message.as_str(), "voicerollouts.voicerollout.dev \"missing\" not found")
}

async fn dry_run_stores_nothing(env: &Env) -> Outcome {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    did("create", env.config_maps().create(&params, &from(json!({"metadata": {"name": "dry"}}))?).await)?;
    refused("get", env.config_maps().get("dry").await, 404, "NotFound").map(drop)
}

async fn replace_with_an_old_version_is_conflict(env: &Env) -> Outcome {
    let old = env.config_map("stale", json!({})).await?;
    let mut new = old.clone();
    new.data = Some([("a".to_owned(), "2".to_owned())].into());
    did("first replace", env.config_maps().replace("stale", &PostParams::default(), &new).await)?;
    new.data = Some([("a".to_owned(), "3".to_owned())].into());
    refused("second replace", env.config_maps().replace("stale", &PostParams::default(), &new).await, 409, "Conflict").map(drop)
}

async fn replace_of_a_custom_resource_needs_a_version(env: &Env) -> Outcome {
    let mut object = env.rollout("unversioned").await?;
    object.metadata.resource_version = None;
    let replaced = env.rollouts().replace("unversioned", &PostParams::default(), &object).await;
    refused("replace", replaced, 422, "Invalid").map(drop)
}

async fn replace_of_a_missing_object_is_not_found(env: &Env) -> Outcome {
    let object: kube::api::DynamicObject = from(rollout("never"))?;
    let mut object = object;
    object.metadata.resource_version = Some("1".into());
    refused("replace", env.rollouts().replace("never", &PostParams::default(), &object).await, 404, "NotFound").map(drop)
}

async fn replace_without_a_change_keeps_the_version(env: &Env) -> Outcome {
    let old = env.config_map("noop", json!({})).await?;
    let new = did("replace", env.config_maps().replace("noop", &PostParams::default(), &old).await)?;
    same("resourceVersion", new.resource_version(), old.resource_version())
}

async fn generation_follows_the_spec_only(env: &Env) -> Outcome {
    env.rollout("generation").await?;
    let api = env.rollouts();
    let label = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}));
    let labelled = did("label", api.patch("generation", &PatchParams::default(), &label).await)?;
    same("generation after a label", labelled.metadata.generation, Some(1))?;
    let status = Patch::Merge(json!({"status": {"message": "hello"}}));
    let told = did("status", api.patch_status("generation", &PatchParams::default(), &status).await)?;
    same("generation after a status", told.metadata.generation, Some(1))?;
    let spec = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let changed = did("spec", api.patch("generation", &PatchParams::default(), &spec).await)?;
    same("generation after a spec", changed.metadata.generation, Some(2))
}

async fn status_is_ignored_outside_its_subresource(env: &Env) -> Outcome {
    let mut object = rollout("main-only");
    object["status"] = json!({"message": "smuggled"});
    let made = did("create", env.rollouts().create(&PostParams::default(), &from(object)?).await)?;
    holds("no status at creation", made.data.get("status").is_none())?;
    let patch = Patch::Merge(json!({"status": {"message": "smuggled"}}));
    let patched = did("patch", env.rollouts().patch("main-only", &PatchParams::default(), &patch).await)?;
    holds("no status after a patch", patched.data.get("status").is_none())?;
    same("resourceVersion", patched.resource_version(), made.resource_version())
}

async fn spec_is_ignored_in_the_status_subresource(env: &Env) -> Outcome {
    let mut object = env.rollout("status-only").await?;
    object.data["spec"]["replicas"] = json!(7);
    object.data["status"] = json!({"message": "hello"});
    object.metadata.labels = Some([("smuggled".to_owned(), "yes".to_owned())].into());
    let told = did("replace_status", env.rollouts().replace_status("status-only", &PostParams::default(), &object).await)?;
    same("status.message", told.data["status"]["message"].as_str(), Some("hello"))?;
    same("spec.replicas", told.data["spec"]["replicas"].as_i64(), Some(1))?;
    same("labels", told.metadata.labels, None)?;
    let again = env.rollouts().replace_status("status-only", &PostParams::default(), &object).await;
    refused("replace_status with the old version", again, 409, "Conflict").map(drop)
}

async fn delete_waits_for_finalizers(env: &Env) -> Outcome {
    let api = env.config_maps();
    let map = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    did("create", api.create(&PostParams::default(), &from(map)?).await)?;
    did("delete", api.delete("held", &DeleteParams::default()).await)?;
    let held = did("get", api.get("held").await)?;
    holds("it is marked", held.metadata.deletion_timestamp.is_some())?;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    did("release", api.patch("held", &PatchParams::default(), &release).await)?;
    refused("get", api.get("held").await, 404, "NotFound").map(drop)
}

async fn delete_of_a_marked_object_adds_no_finalizer(env: &Env) -> Outcome {
    let api = env.config_maps();
    let map = json!({"metadata": {"name": "marked", "finalizers": ["example.com/hold"]}});
    did("create", api.create(&PostParams::default(), &from(map)?).await)?;
    did("delete", api.delete("marked", &DeleteParams::default()).await)?;
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}));
    refused("patch", api.patch("marked", &PatchParams::default(), &more).await, 422, "Invalid")?;
    let release = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    did("release", api.patch("marked", &PatchParams::default(), &release).await).map(drop)
}

async fn delete_preconditions_hold_or_conflict(env: &Env) -> Outcome {
    let made = env.config_map("guarded", json!({})).await?;
    let with = |uid: &str| {
        let preconditions = Preconditions { uid: Some(uid.into()), resource_version: None };
        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
    };
    let wrong = env.config_maps().delete("guarded", &with("another-uid")).await;
    refused("delete with another UID", wrong, 409, "Conflict")?;
    let uid = made.uid().unwrap_or_default();
    did("delete with its UID", env.config_maps().delete("guarded", &with(&uid)).await).map(drop)
}

async fn dependents_go_with_their_owner(env: &Env) -> Outcome {
    let api = env.config_maps();
    let owner = env.config_map("owner", json!({})).await?;
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()});
    let map = json!({"metadata": {"name": "owned", "ownerReferences": [reference]}});
    did("create", api.create(&PostParams::default(), &from(map)?).await)?;
    did("delete", api.delete("owner", &DeleteParams::background()).await)?;
    eventually("the dependent is gone", || async { Ok(did("get", api.get_opt("owned").await)?.is_none()) }).await
}

async fn delete_collection_takes_what_is_selected(env: &Env) -> Outcome {
    let api = env.config_maps();
    for (name, group) in [("many-1", "go"), ("many-2", "go"), ("many-3", "stay")] {
        env.config_map(name, json!({"many": group})).await?;
    }
    let selected = ListParams::default().labels("many=go");
    did("delete", api.delete_collection(&DeleteParams::default(), &selected).await)?;
    let left = did("list", api.list(&ListParams::default().labels("many")).await)?;
    same("left", left.items.iter().map(ResourceExt::name_any).collect(), vec!["many-3".to_owned()])
}

async fn lists_select_by_label(env: &Env) -> Outcome {
    for (name, tier) in [("label-1", "a"), ("label-2", "b"), ("label-3", "c")] {
        env.config_map(name, json!({"tier": tier})).await?;
    }
    let cases = [("tier=a", 1), ("tier in (a,b)", 2), ("tier notin (a),tier", 2), ("tier,tier!=c", 2), ("!tier,tier", 0)];
    for (selector, count) in cases {
        let list = did("list", env.config_maps().list(&ListParams::default().labels(selector)).await)?;
        same(selector, list.items.len(), count)?;
    }
    let bad = env.config_maps().list(&ListParams::default().labels("tier in a")).await;
    refused("a bad selector", bad, 400, "BadRequest").map(drop)
}

async fn lists_select_by_field(env: &Env) -> Outcome {
    env.config_map("field-1", json!({})).await?;
    let list = did("list", env.config_maps().list(&ListParams::default().fields("metadata.name=field-1")).await)?;
    same("found", list.items.len(), 1)?;
    let bad = env.config_maps().list(&ListParams::default().fields("data.a=1")).await;
    refused("a field that is not indexed", bad, 400, "BadRequest").map(drop)
}

async fn lists_come_in_pages(env: &Env) -> Outcome {
    for i in 0..5 {
        env.config_map(&format!("page-{i}"), json!({"paged": "yes"})).await?;
    }
    let api = env.config_maps();
    let params = ListParams::default().labels("paged=yes").limit(2);
    let first = did("first page", api.list(&params).await)?;
    same("first page", first.items.len(), 2)?;
    env.config_map("page-9", json!({"paged": "yes"})).await?;
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_.clone();
    while let Some(next) = token.filter(|t| !t.is_empty()) {
        let page = did("next page", api.list(&params.clone().continue_token(&next)).await)?;
        same("version of a later page", page.metadata.resource_version.clone(), first.metadata.resource_version.clone())?;
        names.extend(page.items.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_;
    }
    let wanted: Vec<String> = (0..5).map(|i| format!("page-{i}")).collect();
    same("all pages, as of the first", names, wanted)
}

async fn scale_reads_and_writes_replicas(env: &Env) -> Outcome {
    env.rollout("scaled").await?;
    let api = env.rollouts();
    let scale = did("get", api.get_scale("scaled").await)?;
    same("replicas", scale.spec.and_then(|s| s.replicas), Some(1))?;
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}}));
    did("patch", api.patch_scale("scaled", &PatchParams::default(), &patch).await)?;
    let object = did("get", api.get("scaled").await)?;
    same("spec.replicas", object.data["spec"]["replicas"].as_i64(), Some(4))?;
    same("generation", object.metadata.generation, Some(2))?;
    let mut stale = did("get", api.get_scale("scaled").await)?;
    stale.metadata.resource_version = Some("1".into());
    let replaced = api.replace_scale("scaled", &PostParams::default(), &stale).await;
    refused("replace with an old version", replaced, 409, "Conflict").map(drop)
}

async fn scale_selector_is_the_status_text(env: &Env) -> Outcome {
    env.rollout("scale-status").await?;
    let api = env.rollouts();
    let status = Patch::Merge(json!({"status": {"replicas": 3, "selector": "app=x"}}));
    did("status", api.patch_status("scale-status", &PatchParams::default(), &status).await)?;
    let scale = did("get", api.get_scale("scale-status").await)?;
    let status = scale.status.unwrap_or_default();
    same("status", (status.replicas, status.selector.unwrap_or_default()), (3, "app=x".to_owned()))
}

fn replica_set(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"set": name}},
            "template": {
                "metadata": {"labels": {"set": name, "extra": "1"}},
                "spec": {"containers": [{"name": "c", "image": "registry.example/agent:1", "ports": [{"containerPort": 80}]}]}
            }
        }
    })
}

async fn replica_set_selector_is_immutable(env: &Env) -> Outcome {
    let api = env.typed::<ReplicaSet>();
    did("create", api.create(&PostParams::default(), &from(replica_set("fixed"))?).await)?;
    let patch = Patch::Merge(json!({"spec": {"selector": {"matchLabels": {"extra": "1"}}}}));
    refused("patch", api.patch("fixed", &PatchParams::default(), &patch).await, 422, "Invalid").map(drop)
}

async fn replica_set_template_has_to_match(env: &Env) -> Outcome {
    let mut set = replica_set("mismatch");
    set["spec"]["selector"]["matchLabels"]["set"] = json!("another");
    let made = env.typed::<ReplicaSet>().create(&PostParams::default(), &from(set)?).await;
    refused("create", made, 422, "Invalid").map(drop)
}

async fn built_in_defaults_are_filled_in(env: &Env) -> Outcome {
    let made = did("create", env.typed::<ReplicaSet>().create(&PostParams::default(), &from(replica_set("defaults"))?).await)?;
    let spec = serde_json::to_value(&made.spec).unwrap_or_default();
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    for (what, is, wanted) in [
        ("restartPolicy", &pod["restartPolicy"], json!("Always")),
        ("terminationGracePeriodSeconds", &pod["terminationGracePeriodSeconds"], json!(30)),
        ("dnsPolicy", &pod["dnsPolicy"], json!("ClusterFirst")),
        ("schedulerName", &pod["schedulerName"], json!("default-scheduler")),
        ("securityContext", &pod["securityContext"], json!({})),
        ("imagePullPolicy", &container["imagePullPolicy"], json!("IfNotPresent")),
        ("terminationMessagePath", &container["terminationMessagePath"], json!("/dev/termination-log")),
        ("resources", &container["resources"], json!({})),
        ("protocol", &container["ports"][0]["protocol"], json!("TCP")),
    ] {
        same(what, is, &wanted)?;
    }
    Ok(())
}
