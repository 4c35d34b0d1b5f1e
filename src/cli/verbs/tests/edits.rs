//! Verbs that write `spec.template`.

use super::*;
use crate::core::revision::revision_hash;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "agent", "image": image}, {"name": "proxy", "image": "p:1"}]}})
}

fn hash(template: &Value) -> String {
    let typed: k8s_openapi::api::core::v1::PodTemplateSpec = serde_json::from_value(template.clone()).unwrap();
    revision_hash(&typed)
}

/// Three revisions: the first two were stable; the third is.
fn healthy(window: i32) -> Value {
    let images = ["a:1", "a:2", "a:3"].map(template);
    let hashes: Vec<String> = images.iter().map(hash).collect();
    let revision = |i: usize, role: &str| json!({"hash": hashes[i], "number": i + 1, "role": role, "wasStable": true});
    let mut rollout = rollout(
        "voice-agent",
        json!({"phase": "Healthy", "stableRevision": hashes[2], "canaryRevision": hashes[2],
            "revisions": [revision(2, "Stable"), revision(1, "Retired"), revision(0, "Retired")]}),
    );
    rollout["metadata"]["uid"] = json!("u1");
    rollout["metadata"]["generation"] = json!(7);
    rollout["spec"]["template"] = images[2].clone();
    rollout["spec"]["rollbackWindow"] = json!({"revisions": window});
    rollout
}

/// A ReplicaSet as the API server gives it back: with defaults that were not written.
fn set(image: &str, keeps: bool) -> Value {
    let written = template(image);
    let mut filled = written.clone();
    filled["metadata"]["labels"]["voicerollout.dev/revision"] = json!(hash(&written));
    filled["metadata"]["labels"]["voicerollout.dev/serving"] = json!("true");
    filled["spec"]["dnsPolicy"] = json!("ClusterFirst");
    let annotations = if keeps { json!({"voicerollout.dev/template": written.to_string()}) } else { json!({}) };
    json!({
        "metadata": {"name": format!("voice-agent-{}", hash(&written)), "labels": {"voicerollout.dev/revision": hash(&written)}, "annotations": annotations,
            "ownerReferences": [{"apiVersion": "v", "kind": "VoiceRollout", "name": "voice-agent", "uid": "u1"}]},
        "spec": {"selector": {}, "template": filled},
    })
}

fn server(rollout: Value, sets: Vec<Value>) -> Server {
    Server { rollouts: vec![rollout], replica_sets: sets, ..Default::default() }
}

async fn undo(server: Server, to: Option<i64>) -> (Result<(), CliError>, String, Arc<Server>) {
    said(server, async |s, out| s.undo("voice-agent", to, false, out).await).await
}

#[tokio::test(start_paused = true)]
async fn undo_writes_the_template_of_the_revision_before_so_that_it_is_the_same_revision() {
    let (result, text, server) = undo(server(healthy(3), vec![set("a:1", true), set("a:2", true), set("a:3", true)]), None).await;
    result.unwrap();
    let patch = server.patched.lock()[0].clone();
    assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/generation", "value": 7}));
    assert_eq!(patch[1], json!({"op": "replace", "path": "/spec/template", "value": template("a:2")}));
    assert!(text.contains("revision 2 (") && text.contains("the steps are skipped"), "{text}");
    assert!(text.ends_with("watch it: kubectl voicerollout status voice-agent -n voice --watch\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn undo_says_when_the_steps_are_not_skipped() {
    let sets = || vec![set("a:1", true), set("a:2", true), set("a:3", true)];
    let far = undo(server(healthy(1), sets()), Some(1)).await.1;
    assert!(far.contains("it lies 2 revisions back and rollbackWindow is 1, so it goes through all steps"), "{far}");
    let mut aborted = healthy(3);
    aborted["status"]["revisions"][1]["aborted"] = json!(true);
    assert!(undo(server(aborted, sets()), Some(2)).await.1.contains("it was aborted, so it goes through all steps"));
    // Of a ReplicaSet that does not keep it, the template has defaults, and is another revision.
    let (result, text, server) = undo(server(healthy(3), vec![set("a:2", false)]), Some(2)).await;
    assert!(result.is_ok() && text.contains("counts as a new revision and goes through all steps"), "{text}");
    let labels = server.patched.lock()[0][1]["value"]["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"app": "a"}), "our labels are taken out");
}

#[tokio::test(start_paused = true)]
async fn undo_during_a_release_goes_back_to_stable() {
    let mut releasing = healthy(3);
    let newest = template("a:4");
    releasing["spec"]["template"] = newest.clone();
    releasing["status"]["canaryRevision"] = json!(hash(&newest));
    let (result, text, _) = undo(server(releasing, vec![set("a:3", true)]), None).await;
    assert!(result.is_ok() && text.contains("revision 3 (") && text.contains("it is the stable one"), "{text}");
}

/// What was applied a moment ago, and the operator has not looked at.
fn lags() -> Value {
    let mut lags = healthy(3);
    lags["spec"]["template"] = template("a:4");
    lags
}

#[tokio::test(start_paused = true)]
async fn undo_right_after_an_apply_takes_back_that_version_alone() {
    let sets = || vec![set("a:1", true), set("a:2", true), set("a:3", true)];
    let (result, text, server) = undo(server(lags(), sets()), None).await;
    assert!(result.is_ok() && text.contains("revision 3 (") && text.contains("it is the stable one"), "{text}");
    assert_eq!(server.patched.lock()[0][1]["value"], template("a:3"));
    // Taken back, and not looked at either: a second undo goes no further.
    let mut releasing = healthy(3);
    releasing["status"]["canaryRevision"] = json!(hash(&template("a:4")));
    let (again, text, server) = undo(self::server(releasing, sets()), None).await;
    assert!(again.is_ok() && text.contains("already: nothing was done") && server.patched.lock().is_empty(), "{text}");
}

#[tokio::test(start_paused = true)]
async fn undo_goes_past_a_version_that_was_aborted_since_it_was_stable() {
    let mut aborted = healthy(3);
    aborted["status"]["revisions"][1]["aborted"] = json!(true);
    let (result, text, _) = undo(server(aborted, vec![set("a:1", true), set("a:2", true)]), None).await;
    assert!(result.is_ok() && text.contains("is that of revision 1 ("), "{text}");
}

/// Somebody at a terminal, who answers; what was asked.
async fn asked(
    server: Server,
    yes: bool,
    run: impl AsyncFnOnce(&Session, &mut Vec<u8>) -> Result<(), CliError>,
) -> (Result<(), CliError>, Vec<String>, Arc<Server>) {
    let (mut session, server) = server.session();
    let questions = Arc::new(Mutex::new(Vec::new()));
    let heard = questions.clone();
    session.interactive = true;
    session.asker = Box::new(move |question| {
        heard.lock().push(question.to_owned());
        if yes { Ok(()) } else { Err(CliError::Declined) }
    });
    let result = run(&session, &mut Vec::new()).await;
    let questions = questions.lock().clone();
    (result, questions, server)
}

/// One that is in its third step of four.
fn in_release() -> Value {
    let mut rollout = healthy(3);
    rollout["spec"]["template"] = template("a:4");
    rollout["status"]["canaryRevision"] = json!(hash(&template("a:4")));
    rollout["status"]["phase"] = json!("Progressing");
    rollout["status"]["stepDisplay"] = json!("3/4");
    rollout["status"]["weights"] = json!({"desired": 25, "applied": 25});
    rollout
}

#[tokio::test(start_paused = true)]
async fn who_is_at_a_terminal_is_asked_before_calls_are_at_stake() {
    async fn run(verb: &str, yes: bool, session: &Session, out: &mut Vec<u8>) -> Result<(), CliError> {
        let given = Given { timeout: Duration::from_secs(30), yes };
        let order = |verb| async move { session.order("voice-agent", verb, None, given, &mut Vec::new()).await };
        match verb {
            "promote --full" => order(Action::PromoteFull).await,
            "promote --skip-step" => order(Action::SkipStep).await,
            "abort" => order(Action::Abort).await,
            "promote" => order(Action::Promote).await,
            "undo" => session.undo("voice-agent", None, yes, out).await,
            "set image" => session.set_image("voice-agent", &[("agent".into(), "a:5".into())], yes, out).await,
            _ => session.restart("voice-agent", yes, out).await,
        }
    }
    let server = |rollout: Value| Server {
        rollouts: vec![rollout],
        replica_sets: vec![set("a:2", true), set("a:3", true)],
        answer: Some(json!({"state": "Applied"})),
        ..Default::default()
    };
    let written = |server: &Server| server.created.lock().len() + server.patched.lock().len();
    let cases = [
        ("promote --full", Some("which has 25 % now, without the remaining steps")),
        ("promote --skip-step", Some("Step 3/4 ends without its evidence")),
        ("undo", Some("and 25 % of new calls go to it. Revision 3 (")),
        ("set image", Some("and 25 % of new calls go to it; a new version takes its place")),
        ("restart", Some("and 25 % of new calls go to it; a new version takes its place")),
        ("promote", None),
        ("abort", None),
    ];
    for (verb, question) in cases {
        let no = asked(server(in_release()), false, async |s, out| run(verb, false, s, out).await).await;
        let yes = asked(server(in_release()), true, async |s, out| run(verb, false, s, out).await).await;
        let told = asked(server(in_release()), false, async |s, out| run(verb, true, s, out).await).await;
        assert!(yes.0.is_ok() && written(&yes.2) == 1 && told.0.is_ok() && written(&told.2) == 1, "{verb}: {:?} {:?}", yes.0, told.0);
        assert!(told.1.is_empty(), "{verb} --yes asks: {:?}", told.1);
        match question {
            Some(question) => {
                assert!(no.1.len() == 1 && no.1[0].contains(question) && no.1 == yes.1, "{verb}: {:?}", no.1);
                assert!(matches!(no.0, Err(CliError::Declined)) && written(&no.2) == 0, "{verb}: {:?}", no.0);
            }
            None => assert!(no.1.is_empty() && no.0.is_ok() && written(&no.2) == 1, "{verb}: {:?}", no.1),
        }
    }
    // Nothing is at stake in a rollout at rest.
    for verb in ["set image", "restart"] {
        let rest = asked(server(healthy(3)), false, async |s, out| run(verb, false, s, out).await).await;
        assert!(rest.0.is_ok() && rest.1.is_empty(), "{verb}: {:?}", rest.1);
        // A version that nobody has looked at is.
        let lagging = asked(server(lags()), false, async |s, out| run(verb, false, s, out).await).await;
        let newer =
            format!("The spec has a newer version, revision {}, that the operator has not begun to release", hash(&template("a:4")));
        assert!(lagging.1[0].starts_with(&newer) && written(&lagging.2) == 0, "{verb}: {:?}", lagging.1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_step_names_the_step_that_was_seen() {
    for (verb, step) in [(Action::Promote, json!("3/4")), (Action::SkipStep, json!("3/4")), (Action::Abort, Value::Null)] {
        let server = Server { rollouts: vec![in_release()], answer: Some(json!({"state": "Applied"})), ..Default::default() };
        let (result, created) = order(server, "voice-agent", verb).await;
        assert!(result.is_ok() && created[0]["spec"]["step"] == step, "{verb:?}: {}", created[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_gone_is_told_with_those_that_are_there() {
    let sets = || vec![set("a:2", true), set("a:3", true)];
    for (to, why) in [(1, "has no revision 1: its ReplicaSet is gone; there are:\n  2  "), (9, "has no revision 9; there are:\n  2  ")] {
        let (result, _, server) = undo(server(healthy(3), sets()), Some(to)).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("a:2") && server.patched.lock().is_empty(), "{error}");
    }
    let mut first = healthy(3);
    first["status"]["revisions"].as_array_mut().unwrap().truncate(1);
    let error = undo(server(first, vec![set("a:3", true)]), None).await.0.unwrap_err().to_string();
    assert!(error.contains("there is none to go back to"), "{error}");
    let (again, text, server) = undo(server(healthy(3), sets()), Some(3)).await;
    assert!(again.is_ok() && text.contains("already: nothing was done\n") && server.patched.lock().is_empty(), "{text}");
}

#[tokio::test(start_paused = true)]
async fn images_are_set_by_container() {
    let images = |words: &[(&str, &str)]| words.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let set = async |wanted: &[(&str, &str)]| {
        let wanted = images(wanted);
        said(server(healthy(1), Vec::new()), async |s, out| s.set_image("voice-agent", &wanted, false, out).await).await
    };
    let (result, text, server) = set(&[("agent", "a:4"), ("proxy", "p:1")]).await;
    result.unwrap();
    let patch = server.patched.lock()[0].clone();
    assert_eq!(patch.as_array().unwrap().len(), 3, "what stays is not written: {patch}");
    assert_eq!(patch[2], json!({"op": "add", "path": "/spec/template/spec/containers/0/image", "value": "a:4"}));
    let new = hash(&template("a:4"));
    assert!(text.starts_with(&format!("set image voice-agent: agent a:3 -> a:4; revision {new} is released\n")), "{text}");
    let error = set(&[("agnet", "a:4")]).await.0.unwrap_err().to_string();
    assert_eq!(error, "spec.template has no container agnet, only agent, proxy; did you mean agent?");
    let (again, text, server) = set(&[("agent", "a:3")]).await;
    assert!(again.is_ok() && server.patched.lock().is_empty());
    assert_eq!(text, "these images are there already: nothing was done\n");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_a_new_revision_of_the_same_version() {
    for metadata in [json!({"labels": {"app": "a"}}), json!({"annotations": {"x": "y"}}), Value::Null] {
        let mut rollout = healthy(1);
        rollout["spec"]["template"]["metadata"] = metadata.clone();
        if metadata.is_null() {
            rollout["spec"]["template"].as_object_mut().unwrap().remove("metadata");
        }
        let (result, text, server) =
            said(server(rollout.clone(), Vec::new()), async |s, out| s.restart("voice-agent", false, out).await).await;
        result.unwrap();
        let patch: json_patch::Patch = serde_json::from_value(server.patched.lock()[0].clone()).unwrap();
        json_patch::patch(&mut rollout, &patch).unwrap();
        let annotations = &rollout["spec"]["template"]["metadata"]["annotations"];
        assert!(annotations["voicerollout.dev/restarted-at"].is_string(), "{metadata}");
        assert_eq!(annotations["x"], metadata["annotations"]["x"], "others stay");
        assert!(text.contains(&format!("revision {} is released", hash(&rollout["spec"]["template"]))), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_the_object_in_a_repository_is_told() {
    let mut kept = healthy(1);
    kept["metadata"]["labels"] = json!({"kustomize.toolkit.fluxcd.io/name": "agents"});
    let (_, text, _) = said(server(kept, Vec::new()), async |s, out| s.restart("voice-agent", false, out).await).await;
    assert!(text.contains("Kustomization agents keeps this VoiceRollout: change it in its repository too"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_change_at_the_same_moment_is_not_overwritten() {
    let (session, _) = server(healthy(1), Vec::new()).session();
    let mut read = session.find("voice-agent").await.unwrap();
    read.metadata.generation = Some(6);
    let error = session.patch(&read, Vec::new(), "restart it").await.unwrap_err();
    let text = "restart it: write VoiceRollout voice-agent: somebody changed it at the same moment; nothing was done: try again";
    assert_eq!((error.to_string().as_str(), error.exit()), (text, Exit::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_step_is_skipped_by_a_command_of_its_own() {
    let server = Server {
        rollouts: vec![agent()],
        answer: Some(json!({"state": "Applied", "message": "step 2/4 was skipped"})),
        ..Default::default()
    };
    let (result, created) = order(server, "voice-agent", Action::SkipStep).await;
    assert!(result.unwrap().starts_with("promote --skip-step voice-agent: applied to revision 6d5f8c: step 2/4 was skipped\n"));
    assert_eq!(
        (&created[0]["spec"]["verb"], &created[0]["metadata"]["generateName"]),
        (&json!("skipStep"), &json!("voice-agent-promote-skip-step-"))
    );
}
