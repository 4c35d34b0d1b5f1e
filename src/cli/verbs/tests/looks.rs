//! Verbs that change nothing.

use super::*;
use crate::cli::args::{self, GetArgs, Verb};

const WATCH: Follow = Follow { watch: true, timeout: None, exit_code: false, output: None };

fn with_phase(phase: &str, version: &str) -> Value {
    let mut rollout = agent();
    rollout["metadata"]["resourceVersion"] = json!(version);
    rollout["status"]["phase"] = json!(phase);
    rollout
}

fn modified(object: &Value) -> Value {
    json!({"type": "MODIFIED", "object": object})
}

fn get_args(words: &str) -> GetArgs {
    let Verb::Get(args) = args::parse(format!("voicerollout get {words}").split_whitespace()).unwrap().verb else { panic!("get") };
    args
}

#[tokio::test(start_paused = true)]
async fn one_look_is_always_fine_unless_the_exit_code_is_asked_for() {
    for (phase, exit) in [("Healthy", Exit::Done), ("Degraded", Exit::Aborted), ("Invalid", Exit::Invalid), ("Paused", Exit::Unfinished)] {
        for (exit_code, expected) in [(false, Exit::Done), (true, exit)] {
            let server = Server { rollouts: vec![with_phase(phase, "1")], ..Default::default() };
            let how = Follow { exit_code, ..Follow::default() };
            let (result, text, _) = said(server, async |s, out| s.status("voice-agent", how, out).await).await;
            assert_eq!(result.unwrap(), expected, "{phase}");
            assert!(text.starts_with("voice-agent  namespace voice\nPhase") && text.contains(phase), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_followed_ends_with_the_release() {
    for (phase, exit) in [("Healthy", Exit::Done), ("Degraded", Exit::Aborted), ("Invalid", Exit::Invalid)] {
        let changes = vec![modified(&with_phase("Progressing", "2")), modified(&with_phase(phase, "3"))];
        let server = Server { rollouts: vec![agent()], changes, ..Default::default() };
        let (result, text, _) = said(server, async |s, out| s.status("voice-agent", WATCH, out).await).await;
        assert_eq!(result.unwrap(), exit, "{text}");
        assert_eq!(text.matches("voice-agent  namespace voice").count(), 3, "{text}");
        assert!(text.find("Paused").unwrap() < text.find("Progressing").unwrap());
    }
    // One that is over is shown once.
    let server = Server { rollouts: vec![with_phase("Degraded", "1")], ..Default::default() };
    let (result, text, _) = said(server, async |s, out| s.status("voice-agent", WATCH, out).await).await;
    assert_eq!((result.unwrap(), text.matches("namespace voice").count()), (Exit::Aborted, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_is_deleted_meanwhile_is_an_error() {
    let changes = vec![json!({"type": "DELETED", "object": with_phase("Paused", "2")})];
    let server = Server { rollouts: vec![agent()], changes, ..Default::default() };
    let (result, ..) = said(server, async |s, out| s.status("voice-agent", WATCH, out).await).await;
    assert!(matches!(result, Err(CliError::UnknownRollout { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_says_what_it_waits_for() {
    let server = Server { rollouts: vec![agent()], ..Default::default() };
    let how = Follow { timeout: Some(Duration::from_secs(90)), ..WATCH };
    let (result, ..) = said(server, async |s, out| s.status("voice-agent", how, out).await).await;
    let error = result.unwrap_err();
    let text = "VoiceRollout voice-agent is still under way after 1m30s: Paused; see kubectl voicerollout explain voice-agent -n voice";
    assert_eq!((error.to_string().as_str(), error.exit()), (text, Exit::Unfinished));
}

/// A future that is polled with nothing to do must not make the watch spin.
#[tokio::test(start_paused = true)]
async fn watching_goes_on_while_nothing_changes() {
    let (session, _) = Server { rollouts: vec![agent()], ..Default::default() }.session();
    let mut out = Vec::new();
    let mut watch = Box::pin(session.status("voice-agent", WATCH, &mut out));
    assert!(tokio::time::timeout(Duration::from_secs(300), &mut watch).await.is_err());
    assert!(watch.now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn objects_are_shown_as_they_are() {
    for output in [Output::Json, Output::Yaml] {
        let server = Server { rollouts: vec![agent()], ..Default::default() };
        let how = Follow { output: Some(output), ..Follow::default() };
        let (result, text, _) = said(server, async |s, out| s.status("voice-agent", how, out).await).await;
        let shown: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!((result.unwrap(), &shown["status"]["canaryRevision"]), (Exit::Done, &json!("6d5f8c")));
        assert_eq!(text.starts_with('{'), output == Output::Json);
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_is_a_table_names_or_objects() {
    let server = || Server { rollouts: vec![agent(), rollout("billing", json!({"phase": "Healthy"}))], ..Default::default() };
    let get = async |words: &str| {
        let args = get_args(words);
        said(server(), async |s, out| s.get(&args, out).await).await
    };
    let (_, table, _) = get("").await;
    assert!(table.starts_with("NAME") && table.contains("billing") && table.lines().count() == 3, "{table}");
    assert!(get("-A").await.1.starts_with("NAMESPACE"));
    assert_eq!(get("-o name").await.1, "voicerollout.voicerollout.dev/voice-agent\nvoicerollout.voicerollout.dev/billing\n");
    let list: Value = serde_json::from_str(&get("-o json").await.1).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), 2));
    let one: Value = serde_json::from_str(&get("billing -o json").await.1).unwrap();
    assert_eq!(one["metadata"]["name"], "billing");
    let missing = get("biling").await.0.unwrap_err().to_string();
    assert!(missing.contains("did you mean billing?"), "{missing}");
    let none = said(Server::default(), async |s, out| s.get(&get_args(""), out).await).await;
    assert_eq!(none.1, "there is no VoiceRollout in namespace voice\n");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_followed_gets_a_line_for_each_change() {
    let changes = vec![modified(&with_phase("Healthy", "2")), json!({"type": "DELETED", "object": with_phase("Healthy", "3")})];
    let (session, _) = Server { rollouts: vec![agent()], changes, ..Default::default() }.session();
    let (args, mut out) = (get_args("-w"), Vec::new());
    let mut watch = Box::pin(session.get(&args, &mut out));
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut watch).await.is_err());
    drop(watch);
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("NAME") && lines[1].contains("Paused") && lines[2].contains("Healthy"), "{text}");
    assert!(lines[3].ends_with("(deleted)"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_the_resources_is_told_from_a_wrong_name() {
    let bare = || Server { bare: true, ..Default::default() };
    let status = said(bare(), async |s, out| s.status("voice-agent", Follow::default(), out).await).await.0;
    let list = said(bare(), async |s, out| s.get(&get_args(""), out).await).await.0;
    for error in [status.unwrap_err(), list.unwrap_err()] {
        assert!(matches!(error, CliError::NotInstalled { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_goes_without_images_where_they_may_not_be_seen() {
    let mut rollout = agent();
    rollout["status"]["revisions"] = json!([{"hash": "6d5f8c", "number": 2, "role": "Canary"}]);
    let message = "replicasets.apps is forbidden: User \"jane\" cannot list resource \"replicasets\" in API group \"apps\"";
    let server = Server { rollouts: vec![rollout], refuses_lists: Some(message), ..Default::default() };
    let (result, text, _) = said(server, async |s, out| s.history("voice-agent", false, None, out).await).await;
    assert!(result.is_ok() && text.contains("being released") && text.contains("images and ages are not shown: "), "{text}");
    assert!(text.contains("ClusterRole <release>-view"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_may_not_be_seen_is_no_error() {
    let server = Server { refuses_lists: Some("User \"jane\" cannot list resource \"deployments\""), ..Default::default() };
    let (result, text, _) = said(server, async |s, out| s.version(None, out).await).await;
    assert!(result.is_ok() && text.contains("operator  not known: ") && text.starts_with("client    "), "{text}");
    let deployment = json!({"metadata": {"name": "voicerollout", "namespace": "ops"}, "spec": {"selector": {}, "template": {"spec": {
        "containers": [{"name": "operator", "image": "x/voicerollout:1"}]}}}});
    let server = Server { replica_sets: vec![deployment], ..Default::default() };
    let (_, text, _) = said(server, async |s, out| s.version(Some(Output::Json), out).await).await;
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["operators"], json!([{"deployment": "ops/voicerollout", "image": "x/voicerollout:1"}]));
}

#[tokio::test(start_paused = true)]
async fn explain_names_the_commands_for_this_namespace() {
    let mut measuring = agent();
    // After the first of the weights that are there without a list of steps.
    measuring["status"]["currentStep"] = json!(1);
    let server = Server { rollouts: vec![measuring], ..Default::default() };
    let (result, text, _) = said(server, async |s, out| s.explain("voice-agent", out).await).await;
    assert!(result.is_ok() && text.contains("kubectl voicerollout promote voice-agent -n voice --skip-step"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn following_a_list_fails_where_a_look_does() {
    // A list that is followed has no end of its own.
    let get = async |server, words| {
        let ends = said(server, async |s, out| s.get(&get_args(words), out).await);
        tokio::time::timeout(Duration::from_secs(60), ends).await.expect("an error").0.unwrap_err()
    };
    let error = get(Server { hangs: true, ..Default::default() }, "-w").await;
    assert_eq!(error.to_string(), "list VoiceRollouts in namespace voice: no answer within 10 s");
    let others = Server { rollouts: vec![agent()], ..Default::default() };
    let error = get(others, "-w voice-agnet").await;
    assert!(error.to_string().contains("did you mean voice-agent?"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_wrote_which_field_is_left_out_of_objects() {
    let mut managed = agent();
    managed["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Update"}]);
    let server = || Server { rollouts: vec![managed.clone()], changes: vec![modified(&managed)], ..Default::default() };
    let how = Follow { output: Some(Output::Yaml), ..Follow::default() };
    let (_, shown, _) = said(server(), async |s, out| s.status("voice-agent", how, out).await).await;
    let mut followed = Vec::new();
    for words in ["-w -o json", "-w -o yaml"] {
        let (session, _) = server().session();
        let args = get_args(words);
        assert!(tokio::time::timeout(Duration::from_secs(60), session.get(&args, &mut followed)).await.is_err());
    }
    for text in [shown, String::from_utf8(followed).unwrap()] {
        assert!(text.contains("voice-agent") && !text.contains("managedFields") && !text.contains("Update"), "{text}");
    }
}
