use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;

use super::*;
use crate::api::common::{COST_ANNOTATION, MARK_ANNOTATION, REVISION_LABEL, REVISION_NUMBER_ANNOTATION, ROLLOUT_LABEL};
use crate::api::stickiness::HeaderBuckets;
use crate::core::live::PodFacts;
use crate::core::observe::{Mark, ReplicaSetSeen};
use crate::core::preflight::{Sidecar, VirtualServiceSeen};
use crate::core::route::{self, Direction, Own, Split, Wanted};
use crate::operator::fake;
use crate::operator::leadership::Leadership;
use crate::operator::routes;

fn meta() -> Value {
    json!({
        "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
        "labels": {ROLLOUT_LABEL: "r", REVISION_LABEL: "h", SERVICE_NAME: "s"},
        "annotations": {LAST_APPLIED: "{}", REVISION_NUMBER_ANNOTATION: "4", "other": "kept"},
        "ownerReferences": [{"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "name": "r", "uid": "owner"}],
        "managedFields": [{"manager": "kubectl"}],
    })
}

#[test]
fn what_decisions_rest_on_is_kept() {
    let template = json!({"spec": {"containers": [{"name": "c"}]}});
    let set = SetKept::keep(
        &serde_json::from_value(json!({
            "metadata": meta(), "spec": {"replicas": 3, "selector": {}, "template": template},
            "status": {"replicas": 3, "readyReplicas": 2, "observedGeneration": 3},
        }))
        .unwrap(),
    );
    let seen = ReplicaSetSeen {
        name: "a".into(),
        hash: "h".into(),
        number: 4,
        wanted: 3,
        exist: 3,
        ready: 2,
        available: 0,
        current: true,
        ..ReplicaSetSeen::default()
    };
    assert_eq!((set.rollout.as_deref(), set.groups("n"), set.seen), (Some("r"), vec!["owner/n/owner".to_owned()], Some(seen)));

    let pod = PodKept::keep(&serde_json::from_value(json!({"metadata": meta()})).unwrap());
    assert_eq!((pod.rollout.as_deref(), pod.revision.as_deref(), pod.sidecar), (Some("r"), Some("h"), Sidecar::Absent));
    assert!(pod.never_ran && !pod.ready && pod.groups("n") == ["rollout/n/r"]);
    let mut injected = meta();
    injected["annotations"]["sidecar.istio.io/status"] = r#"{"containers":["istio-proxy"]}"#.into();
    let pod = PodKept::keep(&serde_json::from_value(json!({"metadata": injected})).unwrap());
    assert_eq!(pod.sidecar, Sidecar::Classic);

    let spec = json!({"selector": {"app": "a"}, "clusterIP": "10.0.0.7", "ports": [{"port": 80}]});
    let service = ServiceKept::keep(&serde_json::from_value(json!({"metadata": meta(), "spec": spec})).unwrap());
    assert_eq!((service.selector, service.keeper), (BTreeMap::from([("app".to_owned(), "a".to_owned())]), None));
    let mut kept = meta();
    kept["labels"]["kustomize.toolkit.fluxcd.io/name"] = "apps".into();
    let service = ServiceKept::keep(&serde_json::from_value(json!({"metadata": kept})).unwrap());
    assert_eq!(service.keeper.map(|k| k.name).as_deref(), Some("apps"));

    let endpoint = |ready: Value, target: Value| json!({"addresses": ["10.0.0.9"], "conditions": {"ready": ready}, "targetRef": target});
    let endpoints =
        [endpoint(true.into(), json!({"name": "p"})), endpoint(false.into(), json!({"name": "q"})), endpoint(Value::Null, Value::Null)];
    let slice = json!({"metadata": meta(), "addressType": "IPv4", "endpoints": endpoints});
    let slice = SliceKept::keep(&serde_json::from_value(slice).unwrap());
    assert_eq!((slice.groups("n"), slice.ready), (vec!["service/n/s".to_owned()], vec!["p".into(), "".into()]));
}

fn run(change: impl FnOnce(&mut Value)) -> DeserializeGuard<VoiceAnalysisRun> {
    let measurement = json!({"startedAt": "2026-01-01T10:00:00Z", "finishedAt": "2026-01-01T10:00:00Z", "verdict": "Fail"});
    let gate = json!({"name": "evals", "verdict": "Fail", "measurements": [measurement]});
    let mut run = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun", "metadata": meta(),
        "spec": {"rollout": "r", "rolloutUid": "owner", "kind": "Step", "revision": "h", "attempt": 1, "gates": []},
        "status": {"phase": "Fail", "gates": [gate]},
    });
    change(&mut run);
    serde_json::from_value(run).unwrap()
}

#[test]
fn a_run_keeps_its_verdicts_and_counts_until_it_is_deleted() {
    let kept = RunKept::keep(&run(|_| {}));
    assert!(kept.counts());
    assert_eq!(kept.groups("n"), ["owner/n/owner"]);
    let seen = kept.seen.unwrap();
    assert_eq!((seen.phase, seen.gates[0].verdict), (RunPhase::Fail, Some(crate::api::run::Verdict::Fail)));
    assert_eq!(seen.spec_hash, spec_hash(&run(|_| {}).0.unwrap().spec));
    for gone in [run(|r| r["metadata"]["deletionTimestamp"] = "2026-01-01T10:00:00Z".into()), run(|r| r["spec"] = json!({"gates": 1}))] {
        assert!(!RunKept::keep(&gone).counts());
    }
    assert_eq!(RunKept::keep(&run(|r| r["metadata"]["deletionTimestamp"] = "2026-01-01T10:00:00Z".into())).rollout.as_deref(), Some("r"));
}

#[test]
fn only_the_record_of_a_run_that_has_ended_is_taken_away() {
    let gates = |phase: &str| {
        let mut run = run(|r| r["status"]["phase"] = phase.into());
        without_record(&mut run);
        run.0.unwrap().status.unwrap().gates.len()
    };
    assert_eq!(["Running", "Pass", "Fail", "Stopped"].map(gates), [1, 0, 0, 0]);
}

#[test]
fn a_command_counts_until_it_is_marked() {
    let action = |status: Value| -> DeserializeGuard<VoiceRolloutAction> {
        let spec = json!({"rollout": "r", "revision": "h", "verb": "abort", "requestedBy": "ada"});
        let types = json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction", "metadata": meta(), "spec": spec});
        let mut action = types;
        action["status"] = status;
        serde_json::from_value(action).unwrap()
    };
    let open = ActionKept::keep(&action(json!({})));
    assert_eq!((open.groups("n"), open.seen.unwrap().by.as_deref()), (vec!["rollout/n/r".to_owned()], Some("ada")));
    let marked = ActionKept::keep(&action(json!({"state": "Applied"})));
    assert_eq!((marked.counts(), marked.rollout.as_deref()), (false, Some("r")));
}

fn virtual_service() -> Value {
    let to =
        |host: &str, weight: i64| json!({"destination": {"host": host, "port": {"number": 80}}, "weight": weight, "headers": {"x": 1}});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(),
        "spec": {
            "hosts": ["h"], "gateways": ["g"], "unknown": {"deep": [1, 2]},
            "http": [
                {"name": "other", "redirect": {"uri": "/"}},
                {"name": "primary", "timeout": "0s", "match": [{"uri": {"prefix": "/"}}], "route": [to("s", 95), to("c", 5)]},
            ],
        },
    })
}

#[test]
fn a_virtual_service_as_kept_is_read_as_the_whole_one_is() {
    let whole = virtual_service();
    let kept = serde_json::to_value(IstioKept::virtual_service(&serde_json::from_value(whole.clone()).unwrap()).object()).unwrap();
    assert!(kept.to_string().len() < whole.to_string().len() / 3 * 2, "{kept}");
    assert!(kept["spec"]["http"][0]["redirect"].is_null() && kept["spec"]["unknown"].is_null(), "{kept}");
    let split = Split::Hosts { namespace: "n".into(), stable: "s".into(), canary: "c".into() };
    let buckets = HeaderBuckets { header: "x-bucket".into(), buckets: 100, always_stable: Vec::new() };
    for own in [Own::default(), Own::new("n", "r", Wanted::Buckets(buckets))] {
        for names in [vec!["primary".to_owned()], vec!["other".to_owned()], vec![]] {
            assert_eq!(route::read(&kept, &names, &split, &own), route::read(&whole, &names, &split, &own));
        }
        let routes = route::read(&whole, &["primary".to_owned()], &split, &own).unwrap();
        for (canary, direction) in [(25, Direction::Raise), (0, Direction::Lower), (3, Direction::Lower)] {
            assert_eq!(route::patch(&kept, &routes, &own, canary, direction), route::patch(&whole, &routes, &own, canary, direction));
        }
        assert_eq!(route::half_qualified(&kept, &routes), route::half_qualified(&whole, &routes));
        assert_eq!(route::shadowed(&kept, &own, &routes), route::shadowed(&whole, &own, &routes));
    }
}

#[test]
fn a_virtual_service_as_kept_shows_the_preflight_what_the_whole_one_does() {
    let mut whole = virtual_service();
    whole["metadata"]["labels"]["argocd.argoproj.io/instance"] = "app".into();
    whole["metadata"]["annotations"][UNMANAGED_ROUTES_ANNOTATION] = "other".into();
    let to = |host: &str| json!([{"match": [{"port": 1}], "route": [{"destination": {"host": host, "port": {"number": 1}}}]}]);
    (whole["spec"]["tcp"], whole["spec"]["tls"]) = (to("s"), to("elsewhere"));
    whole["spec"]["http"][1]["timeout"] = "15s".into();
    let kept = serde_json::to_value(IstioKept::virtual_service(&serde_json::from_value(whole.clone()).unwrap()).object()).unwrap();
    let split = Split::Hosts { namespace: "n".into(), stable: "s".into(), canary: "c".into() };
    let seen = |object: &Value| VirtualServiceSeen::of(object, &["primary".to_owned()], &split, &Own::default());
    assert_eq!(seen(&kept), seen(&whole));
    let seen = seen(&kept);
    assert_eq!((seen.leads.len(), seen.leads[0].timeout.as_deref(), seen.unmanaged.len()), (2, Some("15s"), 1));
    assert_eq!(seen.keeper.map(|k| k.name).as_deref(), Some("app"));
}

#[tokio::test]
async fn an_edit_of_a_virtual_service_as_kept_leaves_all_but_the_weights() {
    let server = Arc::new(Mutex::new(virtual_service()));
    let client: Client = fake::client({
        let server = server.clone();
        move |call| {
            let patch: json_patch::Patch = serde_json::from_value(call.body).unwrap();
            let mut object = server.lock();
            json_patch::patch(&mut object, &patch.0).unwrap();
            std::future::ready((200, object.clone()))
        }
    });
    let object = IstioKept::virtual_service(&serde_json::from_value(virtual_service()).unwrap()).object();
    let split = Split::Hosts { namespace: "n".into(), stable: "s".into(), canary: "c".into() };
    let managed = routes::Managed { names: &["primary".to_owned()], split: &split, own: &Own::default() };
    routes::set_weights(&client, &Leadership::always(), &object, &managed, 0, Direction::Lower).await.unwrap();
    let mut wanted = virtual_service();
    wanted["spec"]["http"][1]["route"][0]["weight"] = 100.into();
    wanted["spec"]["http"][1]["route"][1]["weight"] = 0.into();
    assert_eq!(*server.lock(), wanted);
}

#[test]
fn what_allows_another_namespace_is_kept_and_so_are_subsets() {
    let mut object: DynamicObject = serde_json::from_value(virtual_service()).unwrap();
    object.annotations_mut().insert(ALLOW_FROM_ANNOTATION.into(), "m".into());
    let kept = IstioKept::virtual_service(&object).object();
    assert!(routes::allowed_from(&kept, "m") && !routes::allowed_from(&kept, "o"));
    assert!(!kept.annotations().contains_key(LAST_APPLIED));

    let subset = |name: &str| json!({"name": name, "labels": {REVISION_LABEL: "h"}, "trafficPolicy": {"tls": {}}});
    let whole = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta(),
        "spec": {"host": "s", "trafficPolicy": {}, "subsets": [subset("stable"), {"name": "canary"}]},
    });
    let kept = IstioKept::destination_rule(&serde_json::from_value(whole.clone()).unwrap()).object();
    let kept = serde_json::to_value(kept).unwrap();
    assert_eq!(kept["spec"], json!({"host": "s", "subsets": [{"name": "stable", "labels": {REVISION_LABEL: "h"}}, {"name": "canary"}]}));
    let to = [(REVISION_LABEL, Some("i"))];
    for name in ["stable", "canary", "none"] {
        assert_eq!(route::subset_patch(&kept, name, &to), route::subset_patch(&whole, name, &to));
    }
}

#[test]
fn a_rollout_is_found_by_what_it_names() {
    let rollout = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": meta(),
        "spec": {
            "selector": {}, "template": {}, "analysis": {"templates": [{"name": "t"}, {"name": "c", "cluster": true}]},
            "traffic": {"istio": {
                "stableService": "s", "canaryService": "k", "virtualServices": [{"name": "v"}, {"name": "w", "namespace": "m"}],
            }},
        },
    });
    let names = Names::keep(&serde_json::from_value(rollout.clone()).unwrap());
    assert_eq!(names.groups("n"), ["route/m/w", "route/n/v", "service/n/k", "service/n/s", "template//c", "template/n/t"]);
    let mut broken = rollout;
    broken["spec"]["selector"] = 1.into();
    assert!(Names::keep(&serde_json::from_value(broken).unwrap()).groups("n").is_empty());
}

fn pod(phase: &str, states: &[(Value, i32)], change: impl FnOnce(&mut Value)) -> PodKept {
    let one = |(state, restarts): &(Value, i32)| json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts, "state": state});
    let containers: Vec<Value> = states.iter().map(one).collect();
    let mut metadata = meta();
    metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r-h", "uid": "set", "controller": true}]);
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"phase": phase, "podIP": "10.1.2.3", "conditions": conditions, "containerStatuses": containers});
    let mut pod = json!({"metadata": metadata, "spec": {"containers": []}, "status": status});
    change(&mut pod);
    PodKept::keep(&serde_json::from_value(pod).unwrap())
}

#[test]
fn how_a_pod_lives_and_ends_is_kept() {
    let running = || (json!({"running": {}}), 0);
    let ended = |code: i32| (json!({"terminated": {"exitCode": code}}), 0);
    let waiting = || (json!({"waiting": {}}), 0);
    let alive = pod("Running", &[running(), (json!({"running": {}}), 2)], |_| ());
    assert_eq!((alive.ready, alive.never_ran, alive.ip, &*alive.set), (true, false, Some("10.1.2.3".parse().unwrap()), "r-h"));
    assert_eq!(alive.facts, PodFacts { ending: false, restarts: 2, ended_well: false, pre_stop: 0 });
    let sleeps = |seconds: i64| json!({"name": "c", "lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}});
    let spec = json!({"containers": [sleeps(5), {"name": "d"}, sleeps(10)]});
    assert_eq!(pod("Running", &[running()], |p| p["spec"] = spec).facts.pre_stop, 10);
    assert!(pod("Pending", &[waiting()], |_| ()).never_ran);
    assert!(!pod("Pending", &[running()], |_| ()).never_ran, "a second container still waits; the first may talk");
    assert!(!pod("Running", &[waiting()], |_| ()).never_ran, "it crashed, and was reached before");
    assert!(pod("Running", &[ended(0), ended(0)], |_| ()).facts.ended_well);
    for states in [vec![ended(0), ended(137)], vec![ended(0), running()], vec![]] {
        assert!(!pod("Running", &states, |_| ()).facts.ended_well);
    }
    assert!(pod("Running", &[running()], |p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T10:00:00Z")).facts.ending);
    assert!(pod("Failed", &[ended(1)], |_| ()).facts.ending);
}

#[test]
fn marks_and_costs_are_read_back() {
    let marked = |mark: &str, cost: &str| {
        pod("Running", &[], |p| p["metadata"]["annotations"] = json!({MARK_ANNOTATION: mark, COST_ANNOTATION: cost}))
    };
    let busy = marked("busy", "1000");
    assert_eq!((busy.mark, busy.cost), (Some(Mark::Busy), 1000));
    assert_eq!((marked("idle", "-5").mark, marked("idle", "-5").cost, marked("idle", "much").cost), (Some(Mark::Idle), -5, 0));
    assert_eq!((pod("Running", &[], |_| ()).mark, pod("Running", &[], |_| ()).cost), (None, 0));
}

#[test]
fn a_budget_is_about_the_pods_that_it_selects() {
    let budget = |spec: Value| BudgetKept::keep(&serde_json::from_value(json!({"metadata": meta(), "spec": spec})).unwrap());
    let labels = BTreeMap::from([("app".to_string(), "agent".to_string()), ("track".to_string(), "x".to_string())]);
    assert!(budget(json!({"selector": {"matchLabels": {"app": "agent"}}})).covers(&labels));
    assert!(!budget(json!({"selector": {"matchLabels": {"app": "other"}}})).covers(&labels));
    let among = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["agent", "b"]}]}});
    assert!(budget(among).covers(&labels));
    assert!(budget(json!({"selector": {}})).covers(&labels), "an empty selector is about all pods");
    assert!(!budget(json!({})).covers(&labels), "none is about no pod");
}
