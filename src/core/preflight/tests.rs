use serde_json::{Value, json};

use super::*;
use crate::core::route::{Own, Split};

/// A spec without a finding, changed.
fn spec(change: impl FnOnce(&mut Value)) -> VoiceRolloutSpec {
    let pod = json!({"terminationGracePeriodSeconds": 3660, "containers": [{"name": "agent"}]});
    let template = json!({"metadata": {"labels": {"app": "agent"}, "annotations": {}}, "spec": pod});
    let mut spec = json!({"selector": {"matchLabels": {"app": "agent"}}, "template": template, "traffic": {}});
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

fn only(all: Vec<Finding>) -> Option<Finding> {
    assert!(all.len() < 2, "{all:?}");
    all.into_iter().next()
}

fn alone(spec: &VoiceRolloutSpec) -> Option<Finding> {
    only(findings(spec, &Surroundings::default()))
}

#[test]
fn a_pod_may_not_end_before_the_longest_drain() {
    let grace = |seconds: Value, drain: &str| {
        alone(&spec(|s| {
            s["template"]["spec"]["terminationGracePeriodSeconds"] = seconds;
            s["drain"] = json!({"maxDrain": drain});
        }))
    };
    assert_eq!((grace(json!(3600), "1h"), grace(json!(5401), "90m")), (None, None));
    let default = grace(Value::Null, "1h").unwrap();
    assert_eq!(default.code, codes::GRACE_PERIOD_TOO_SHORT);
    assert!(default.sentence.contains("is 30 by default") && default.fix.contains("to 3660 or more"), "{default:?}");
    let short = grace(json!(3600), "3600500ms").unwrap();
    assert!(short.sentence.contains("is 3600,") && short.fix.contains("to 3661 or more"), "{short:?}");
}

/// The finding about the sidecar of a template with these annotations (and labels), where pods have these sidecars.
fn sidecar(annotations: Value, pods: &[(&str, Sidecar)], change: impl FnOnce(&mut Value)) -> Option<String> {
    let spec = spec(|s| {
        s["template"]["metadata"]["annotations"] = annotations;
        change(s);
    });
    let target = revision_hash(&spec.template);
    let name = |n: &str| if n == "target" { target.clone() } else { n.to_owned() };
    let sidecars = pods.iter().map(|(n, s)| (name(n), *s)).collect();
    let found = only(findings(&spec, &Surroundings { sidecars, ..Surroundings::default() }))?;
    assert_eq!(found.code, codes::SIDECAR_STOPS_EARLY);
    Some(found.sentence)
}

#[test]
fn pods_that_exist_say_what_sidecar_there_is() {
    use Sidecar::{Absent, Classic, Native};
    let none = json!({});
    let found = |annotations: &Value, pods: &[(&str, Sidecar)]| sidecar(annotations.clone(), pods, |_| ()).is_some();
    assert!(!found(&none, &[]) && !found(&none, &[("target", Native)]) && !found(&none, &[("target", Absent), ("old", Classic)]));
    assert!(found(&none, &[("target", Classic)]));
    // A revision without pods is taken to be like the others.
    assert!(found(&none, &[("old", Classic)]) && !found(&none, &[("old", Native)]));
    assert!(!found(&json!({"sidecar.istio.io/inject": "false"}), &[("old", Classic)]));
    assert!(!found(&json!({"sidecar.istio.io/nativeSidecar": "true"}), &[("old", Classic)]));
    let classic = json!({"sidecar.istio.io/nativeSidecar": "false"});
    assert!(found(&classic, &[("old", Native)]) && !found(&classic, &[("old", Absent)]) && !found(&classic, &[]));
    // Asked for, and nobody has seen yet which kind it is.
    let asks = |kind: &str, pods: &[(&str, Sidecar)]| {
        let label = |s: &mut Value| s["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] = "true".into();
        sidecar(json!({"sidecar.istio.io/nativeSidecar": kind}), pods, label).is_some()
    };
    assert!(asks("false", &[]) && !asks("true", &[]) && !asks("", &[]) && asks("", &[("target", Classic)]));
}

#[test]
fn a_sidecar_in_the_template_is_seen_without_a_pod() {
    let with = |field: &'static str, proxy: Value| {
        let add = move |s: &mut Value| {
            let mut all = s["template"]["spec"][field].as_array().cloned().unwrap_or_default();
            all.push(proxy);
            s["template"]["spec"][field] = all.into();
        };
        sidecar(json!({}), &[], add).is_some()
    };
    assert!(with("containers", json!({"name": "istio-proxy"})));
    assert!(!with("initContainers", json!({"name": "istio-proxy", "restartPolicy": "Always"})));
    assert!(!with("initContainers", json!({"name": "istio-init"})));
}

#[test]
fn settings_that_let_calls_end_are_no_finding() {
    let config = |text: &str| sidecar(json!({"proxy.istio.io/config": text}), &[("target", Sidecar::Classic)], |_| ());
    for fine in [
        "proxyMetadata: {EXIT_ON_ZERO_ACTIVE_CONNECTIONS: \"true\", MINIMUM_DRAIN_DURATION: 10s}",
        "{\"terminationDrainDuration\": \"3600s\"}",
        "terminationDrainDuration: 1h30m\n",
    ] {
        assert_eq!(config(fine), None, "{fine}");
    }
    for (text, says) in [
        ("", "is not a map of settings"),
        ("concurrency: 2", "ends 5 s after SIGTERM unless"),
        ("proxyMetadata: {EXIT_ON_ZERO_ACTIVE_CONNECTIONS: \"false\"}", "ends 5 s after"),
        ("terminationDrainDuration: 90s", "ends 90 s after SIGTERM (terminationDrainDuration"),
        ("terminationDrainDuration: 3600", "terminationDrainDuration 3600 in proxy.istio.io/config is not a duration such as"),
        ("terminationDrainDuration: an hour", "\"an hour\" in proxy.istio.io/config is not a duration"),
        ("a: [", "is not YAML"),
    ] {
        let sentence = config(text).unwrap_or_else(|| panic!("nothing found: {text}"));
        assert!(sentence.contains(says), "{text}: {sentence}");
    }
}

#[test]
fn the_injector_says_on_a_pod_what_it_added() {
    let of = |status: &str| Sidecar::of_pod(&BTreeMap::from([("sidecar.istio.io/status".to_owned(), status.to_owned())]));
    assert_eq!(Sidecar::of_pod(&BTreeMap::new()), Sidecar::Absent);
    assert_eq!(
        of(r#"{"initContainers":["istio-init"],"containers":["istio-proxy"],"volumes":["x"],"revision":"default"}"#),
        Sidecar::Classic
    );
    assert_eq!(of(r#"{"initContainers":["istio-init","istio-proxy"],"containers":null,"revision":"default"}"#), Sidecar::Native);
    assert_eq!(of(r#"{"initContainers":null,"containers":null}"#), Sidecar::Absent);
    assert_eq!(of("injected"), Sidecar::Classic);
}

#[test]
fn signals_of_pre_stop_hooks() {
    let hook = |hook: Value| {
        alone(&spec(|s| s["template"]["spec"]["containers"][0]["lifecycle"] = json!({"preStop": hook}))).inspect(|found| {
            assert_eq!(found.code, codes::PRE_STOP_SIGNAL);
        })
    };
    let exec = |command: &[&str]| hook(json!({"exec": {"command": command}}));
    let shell = |script: &str| exec(&["/bin/sh", "-c", script]);
    for (script, signal) in [
        ("kill -TERM 1", "TERM"),
        ("kill -SIGTERM 1", "TERM"),
        ("kill -15 1", "TERM"),
        ("kill 1", "TERM"),
        ("kill -- -1", "TERM"),
        ("kill -s TERM 1; sleep 10", "TERM"),
        ("sleep 5 && kill -s sigint $(pgrep python)", "INT"),
        ("kill -n 2 1", "INT"),
        ("/usr/bin/pkill -f agent.py", "TERM"),
        ("pkill --signal TERM agent", "TERM"),
        ("pkill --signal=SIGINT -f agent", "INT"),
        ("killall -q python3", "TERM"),
        ("kill -9 1", "KILL"),
        ("if kill -0 1; then exec kill \"1\"; fi", "TERM"),
        ("pgrep agent | xargs -n 1 kill", "TERM"),
        ("timeout 5s kill 1 || true", "TERM"),
        ("curl -s localhost:8080/drain\nkill -TERM `cat /run/pid`", "TERM"),
    ] {
        let found = shell(script).unwrap_or_else(|| panic!("nothing found: {script}"));
        assert!(found.sentence.contains(&format!("container agent sends SIG{signal} (")), "{script}: {}", found.sentence);
    }
    assert!(exec(&["kill", "-TERM", "1"]).is_some() && exec(&["sh", "-c", "kill", "1"]).is_some());
    for script in [
        "sleep 10",
        "kill -0 1",
        "kill -USR1 1",
        "kill -s HUP 1",
        "kill -l",
        "pkill --signal USR2 agent",
        "pkill -QUIT agent",
        "echo kill 1",
        "curl -X POST localhost:8080/drain?kill=1",
        "python3 drain.py kill",
        "trap '' TERM; while pgrep agent; do sleep 1; done",
    ] {
        assert_eq!(shell(script), None, "{script}");
    }
    assert_eq!(hook(json!({"sleep": {"seconds": 5}})), None);
    assert_eq!(hook(json!({"httpGet": {"path": "/drain", "port": 8080}})), None);
}

#[test]
fn the_proxys_own_hook_is_none_of_the_agents() {
    let proxy = json!({"name": "istio-proxy", "restartPolicy": "Always", "lifecycle": {"preStop": {"exec": {"command": ["kill", "1"]}}}});
    assert_eq!(alone(&spec(|s| s["template"]["spec"]["initContainers"] = json!([proxy]))), None);
}

/// A VirtualService with a managed route and what is added.
fn vs(metadata: Value, change: impl FnOnce(&mut Value)) -> VirtualServiceSeen {
    let route = json!([{"destination": {"host": "agent-stable"}, "weight": 100}, {"destination": {"host": "agent-canary"}, "weight": 0}]);
    let mut object = json!({"metadata": metadata, "spec": {"http": [{"name": "primary", "route": route}]}});
    object["metadata"]["name"] = "agent".into();
    object["metadata"]["namespace"] = "voice".into();
    change(&mut object["spec"]);
    let split = Split::Hosts { namespace: "voice".into(), stable: "agent-stable".into(), canary: "agent-canary".into() };
    VirtualServiceSeen::of(&object, &["primary".into()], &split, &Own::default())
}

fn about(vs: VirtualServiceSeen) -> Vec<Finding> {
    findings(&spec(|_| ()), &Surroundings { virtual_services: vec![vs], ..Surroundings::default() })
}

fn leads_to(host: &str) -> Value {
    json!([{"destination": {"host": host}}])
}

fn add_route(spec: &mut Value, route: Value) {
    spec["http"].as_array_mut().unwrap().push(route);
}

#[test]
fn a_time_out_of_any_route_to_an_arm_ends_calls() {
    assert_eq!(about(vs(json!({}), |s| s["http"][0]["timeout"] = "0s".into())), []);
    let found = only(about(vs(json!({}), |s| s["http"][0]["timeout"] = "10s".into()))).unwrap();
    assert_eq!(found.code, codes::ROUTE_TIMEOUT);
    assert!(found.sentence.contains("VirtualService voice/agent: http route primary (10s) has a timeout"), "{found:?}");
    assert!(found.fix.contains("out of http route primary"), "{found:?}");
    // Other routes to the same hosts count; routes elsewhere do not.
    let codes: Vec<&str> = about(vs(json!({}), |s| {
        add_route(s, json!({"name": "rest", "timeout": "1h", "route": leads_to("agent-stable.voice.svc.cluster.local")}));
        add_route(s, json!({"timeout": "5s", "route": leads_to("billing")}));
    }))
    .iter()
    .map(|f| f.code)
    .collect();
    assert_eq!(codes, [codes::ROUTE_TIMEOUT, codes::UNMANAGED_ROUTE]);
}

#[test]
fn tcp_and_tls_routes_to_an_arm_are_found_and_others_are_not() {
    for list in ["tcp", "tls"] {
        let route = |host| json!([{"route": leads_to("billing")}, {"match": [{"port": 443}], "route": leads_to(host)}]);
        let found = only(about(vs(json!({}), |s| s[list] = route("agent-canary")))).unwrap();
        assert_eq!(found.code, codes::TCP_OR_TLS_ROUTE);
        assert!(found.sentence.contains(&format!("spec.{list}[1] leads to agent-canary")), "{found:?}");
        assert_eq!(about(vs(json!({}), |s| s[list] = route("other"))), []);
    }
}

#[test]
fn a_route_that_nobody_manages_is_found_unless_that_is_said() {
    let add = |s: &mut Value| {
        add_route(s, json!({"name": "testers", "route": leads_to("agent-canary")}));
        add_route(s, json!({"name": "health", "redirect": {"uri": "/healthz"}}));
    };
    let found = only(about(vs(json!({}), add))).unwrap();
    assert_eq!(found.code, codes::UNMANAGED_ROUTE);
    assert!(found.sentence.contains("http route testers leads to agent-canary and is not managed"), "{found:?}");
    assert!(found.fix.contains("voicerollout.dev/unmanaged-routes: testers"), "{found:?}");
    let said = |names: &str| json!({"annotations": {UNMANAGED_ROUTES_ANNOTATION: names}});
    assert_eq!(about(vs(said("other, testers"), add)), []);
    assert_eq!(about(vs(said("other"), add)).len(), 1);
    let unnamed = only(about(vs(json!({}), |s| add_route(s, json!({"route": leads_to("agent-stable")}))))).unwrap();
    assert!(unnamed.sentence.contains("spec.http[1] leads to"), "{unnamed:?}");
}

#[test]
fn a_host_with_subsets_that_is_named_without_one_is_both_arms() {
    let split = Split::Subsets { host: "agent".into(), namespace: "voice".into(), stable: "stable".into(), canary: "canary".into() };
    let to = |subset: Value| json!({"destination": {"host": "agent", "subset": subset}});
    let http = json!([
        {"name": "primary", "route": [to("stable".into()), to("canary".into())]},
        {"name": "all", "route": [{"destination": {"host": "agent.voice.svc.cluster.local"}}]},
        {"name": "third", "route": [to("third".into())]},
    ]);
    let object = json!({"metadata": {"name": "agent", "namespace": "voice"}, "spec": {"http": http}});
    let found = only(about(VirtualServiceSeen::of(&object, &["primary".into()], &split, &Own::default()))).unwrap();
    assert!(found.sentence.contains("http route all leads to agent.voice.svc.cluster.local and is not managed"), "{found:?}");
}

#[test]
fn a_gitops_tool_is_found_by_its_marks_until_somebody_says_that_it_leaves_the_weights_alone() {
    let argo = "argocd.argoproj.io/instance";
    let tracked = |id: &str| json!({"annotations": {"argocd.argoproj.io/tracking-id": id}});
    let own = "voice-app:networking.istio.io/VirtualService:voice/agent";
    for (metadata, by) in [
        (json!({"labels": {argo: "voice-app"}}), "the Argo CD Application voice-app"),
        (json!({"annotations": {argo: "voice-app"}}), "the Argo CD Application voice-app"),
        (tracked(own), "the Argo CD Application voice-app"),
        (json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}), "the Flux Kustomization apps"),
        (json!({"labels": {"helm.toolkit.fluxcd.io/name": "agent"}}), "the Flux HelmRelease agent"),
    ] {
        let found = only(about(vs(metadata.clone(), |_| ()))).unwrap_or_else(|| panic!("{metadata}"));
        assert_eq!(found.code, codes::GITOPS_OVERWRITES);
        assert!(found.sentence.contains(&format!("VirtualService voice/agent is kept by {by}")), "{found:?}");
        assert!(found.fix.contains("kubectl annotate virtualservice -n voice agent voicerollout.dev/gitops-ignored=true"), "{found:?}");
        for (value, count) in [("true", 0), ("yes", 1)] {
            let mut said = metadata.clone();
            said["annotations"][GITOPS_IGNORED_ANNOTATION] = value.into();
            let found = about(vs(said, |_| ()));
            assert_eq!(found.len(), count);
            assert!(found.iter().all(|f| f.sentence.contains("gitops-ignored says \"yes\", which does not count")), "{found:?}");
        }
    }
    // A mark that came with a copy of another object, and marks that say the object is left alone.
    let flux =
        |annotation: &str, value: &str| json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "a"}, "annotations": {annotation: value}});
    for metadata in [
        json!({"labels": {"app.kubernetes.io/instance": "voice-app"}}),
        tracked("voice-app:networking.istio.io/VirtualService:voice/another"),
        flux("kustomize.toolkit.fluxcd.io/ssa", "IfNotPresent"),
        flux("kustomize.toolkit.fluxcd.io/ssa", "Ignore"),
        flux("kustomize.toolkit.fluxcd.io/reconcile", "disabled"),
        json!({"labels": {"helm.toolkit.fluxcd.io/name": "a"}, "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled"}}),
    ] {
        assert_eq!(about(vs(metadata.clone(), |_| ())), [], "{metadata}");
    }
    assert_eq!(about(vs(flux("kustomize.toolkit.fluxcd.io/ssa", "Merge"), |_| ())).len(), 1, "lists are written whole");
}

#[test]
fn the_rule_for_argo_cd_can_be_pasted() {
    let rule = |kept: KeptObject| -> Value {
        let fix = gitops::finding(&kept).fix;
        let text = fix.split_once("spec: ").unwrap().1.split_once(", then say so").unwrap().0;
        serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let kept = |kind, routes: &[&str]| KeptObject {
        kind,
        namespace: "voice".into(),
        name: "agent".into(),
        routes: routes.iter().map(ToString::to_string).collect(),
        keeper: Keeper { tool: Tool::ArgoCd, name: "voice-app".into(), said: None },
    };
    let whole = rule(kept("VirtualService", &["primary", "backup"]));
    let paths =
        [r#".spec.http[] | select(.name == "primary") | .route[].weight"#, r#".spec.http[] | select(.name == "backup") | .route[].weight"#];
    let one = json!({"group": "networking.istio.io", "kind": "VirtualService", "namespace": "voice", "name": "agent",
        "jqPathExpressions": paths});
    assert_eq!(whole, json!({"ignoreDifferences": [one], "syncPolicy": {"syncOptions": ["RespectIgnoreDifferences=true"]}}));
    let path = |kind| rule(kept(kind, &[]))["ignoreDifferences"][0]["jqPathExpressions"][0].clone();
    assert_eq!(path("VirtualService"), ".spec.http[].route[].weight");
    assert_eq!(path("Service"), r#".spec.selector["voicerollout.dev/revision"]"#);
    assert_eq!(path("DestinationRule"), r#".spec.subsets[].labels["voicerollout.dev/revision"]"#);
    assert_eq!(rule(kept("Service", &[]))["ignoreDifferences"][0]["group"], "");
}
