//! The Helm chart renders what a cluster needs, and asks for no more rights than that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kube::core::cel::{AdmissionRequest, VapEvaluator, VapExpression};
use serde::Deserialize;
use serde_json::{Value, json};
use voicerollout::api::crds;
use voicerollout::core::notify::Defaults;

#[path = "chart/observability.rs"]
mod observability;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program: from the environment, or from the list of paths in the cache folder.
fn listed(names: &[&str]) -> Option<PathBuf> {
    if let Some(path) = names.iter().find_map(std::env::var_os) {
        return Some(path.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let list = cache.and_then(|cache| std::fs::read_to_string(cache.join("voicerollout/env")).ok()).unwrap_or_default();
    list.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| names.contains(name)).map(|(_, path)| path.into())
}

/// helm: as above, or from `PATH`.
fn find_helm() -> Option<PathBuf> {
    let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("helm")).find(|path| path.is_file());
    listed(&["VOICEROLLOUT_HELM", "HELM"]).or_else(on_path)
}

/// Runs helm in the project's folder; `None`, and a line that says so, when there is no helm.
fn helm(args: &[&str]) -> Option<Output> {
    let Some(helm) = find_helm() else {
        // Not eprintln: the test harness would keep that to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no helm; set VOICEROLLOUT_HELM to the path of one");
        return None;
    };
    Some(Command::new(&helm).args(args).current_dir(root()).output().unwrap_or_else(|e| panic!("{}: {e}", helm.display())))
}

/// The objects that the chart renders with these `--set` values.
fn render(sets: &[&str]) -> Option<Vec<Value>> {
    let mut args = vec!["template", "vr", "charts/voicerollout", "--namespace", "voice-system"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = helm(&args)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(serde_yaml::Deserializer::from_str(&text).map(|d| Value::deserialize(d).unwrap()).filter(|d| !d.is_null()).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

/// Rights as `group/resource verb`, of one role.
fn rights(role: &Value) -> BTreeSet<String> {
    let texts = |value: &Value| value.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                all.extend(texts(&rule["verbs"]).into_iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
    }
    all
}

/// Rights of the roles that are bound to the operator's account, by scope: a namespace, or empty for the cluster.
fn operator_rights(objects: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for binding in objects.iter().filter(|o| o["kind"] == "RoleBinding" || o["kind"] == "ClusterRoleBinding") {
        assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "vr-voicerollout", "namespace": "voice-system"}]));
        let role = objects.iter().find(|o| {
            let same_scope = o["metadata"]["namespace"] == binding["metadata"]["namespace"];
            same_scope && o["kind"] == binding["roleRef"]["kind"] && o["metadata"]["name"] == binding["roleRef"]["name"]
        });
        let scope = binding["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        all.entry(scope).or_default().extend(rights(role.expect("a binding names a role that exists")));
    }
    all
}

#[test]
fn helm_lints_it() {
    let Some(output) = helm(&["lint", "--strict", "charts/voicerollout"]) else { return };
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn crd_files_are_those_of_the_types() {
    for folder in ["crds", "charts/voicerollout/files/crds"] {
        for (name, crd) in crds::all() {
            let file = std::fs::read_to_string(root().join(folder).join(format!("{name}.yaml"))).unwrap();
            assert!(file == crds::to_yaml(&crd), "{folder}/{name}.yaml is old: run `voicerollout crd --dir {folder}`");
        }
        assert_eq!(std::fs::read_dir(root().join(folder)).unwrap().count(), crds::all().len(), "{folder}");
    }
}

/// Such a name is a truth value in the YAML that kubectl and helm read, and never arrives.
#[test]
fn no_field_has_a_name_that_yaml_takes_for_a_truth_value() {
    fn names(schema: &Value, found: &mut BTreeSet<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            found.extend(properties.keys().cloned());
        }
        match schema {
            Value::Object(fields) => fields.values().for_each(|v| names(v, found)),
            Value::Array(items) => items.iter().for_each(|v| names(v, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    crds::all().into_iter().for_each(|(_, crd)| names(&serde_json::to_value(crd).unwrap(), &mut found));
    assert!(found.contains("triggers") && found.len() > 100, "{found:?}");
    for name in ["on", "off", "yes", "no", "y", "n", "true", "false"] {
        assert!(!found.iter().any(|f| f.eq_ignore_ascii_case(name)), "{name}");
    }
}

#[test]
fn crds_are_rendered_unchanged_and_kept_on_uninstall() {
    let Some(objects) = render(&[]) else { return };
    let rendered = of_kind(&objects, "CustomResourceDefinition");
    assert_eq!(rendered.len(), crds::all().len());
    for (name, crd) in crds::all() {
        let mut want = serde_json::to_value(crd).unwrap();
        want["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        let got = rendered.iter().find(|r| r["metadata"]["name"] == want["metadata"]["name"]).unwrap();
        assert!(**got == want, "{name} is not what the types give");
    }
    let without = render(&["crds.install=false"]).unwrap();
    assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
}

#[test]
fn the_operator_asks_for_what_it_uses_and_no_more() {
    let Some(objects) = render(&["crds.install=false"]) else { return };
    let all = operator_rights(&objects);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["", "voice-system"]);
    insta::assert_yaml_snapshot!(all);
    for right in all.values().flatten() {
        assert!(!right.contains('*'), "{right}");
        assert!(!right.contains("/secrets ") || right.ends_with(" get"), "{right}");
    }
}

#[test]
fn with_watch_namespaces_the_rights_end_at_their_borders() {
    let Some(everywhere) = render(&["crds.install=false"]) else { return };
    let some = render(&["crds.install=false", "watchNamespaces={a,b}"]).unwrap();
    let (everywhere, some) = (operator_rights(&everywhere), operator_rights(&some));
    let cluster: BTreeSet<_> = ["get", "list", "watch"].map(|v| format!("voicerollout.dev/clustervoiceanalysistemplates {v}")).into();
    assert_eq!(some[""], cluster);
    assert_eq!((&some["a"], &some["b"]), (&(&everywhere[""] - &cluster), &some["a"]));
    assert_eq!(some["voice-system"], everywhere["voice-system"]);
    assert_eq!(some.len(), 4);
}

#[test]
fn the_dashboard_and_its_rights_are_there_only_when_it_is_enabled() {
    let Some(without) = render(&["crds.install=false"]) else { return };
    let reviews = BTreeSet::from(
        ["authentication.k8s.io/tokenreviews create", "authorization.k8s.io/subjectaccessreviews create"].map(str::to_owned),
    );
    let run_args = |objects: &[Value]| {
        let container = &of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
        let parsed = voicerollout::cli::args::parse(std::iter::once("voicerollout".to_owned()).chain(args)).unwrap();
        let voicerollout::cli::args::Verb::Run(run) = parsed.verb else { panic!("the container runs the operator") };
        (run.dashboard, run.dashboard_actions, run.dashboard_listen.to_string())
    };
    let ports = |objects: &[Value]| {
        let names = |list: &Value| list.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let container = &of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
        (names(&container["ports"]), names(&of_kind(objects, "Service")[0]["spec"]["ports"]))
    };
    let both = || vec!["http".to_owned(), "dashboard".to_owned()];
    assert_eq!((run_args(&without).0, ports(&without)), (false, (vec!["http".into()], vec!["http".into()])));
    assert!(operator_rights(&without).values().all(|rights| rights.is_disjoint(&reviews)));

    for watched in ["replicas=2", "watchNamespaces={a,b}"] {
        let without = render(&["crds.install=false", watched]).unwrap();
        let with = render(&["crds.install=false", watched, "dashboard.enabled=true"]).unwrap();
        let (before, after) = (operator_rights(&without), operator_rights(&with));
        assert_eq!(&after[""] - &before[""], reviews, "{watched}");
        assert!(before.iter().all(|(scope, rights)| scope.is_empty() || after[scope] == *rights), "{watched}");
        assert_eq!((run_args(&with), ports(&with)), ((true, false, "0.0.0.0:8090".into()), (both(), both())));
    }
    let local =
        render(&["crds.install=false", "dashboard.enabled=true", "dashboard.actions=true", "dashboard.listen=127.0.0.1:8090"]).unwrap();
    assert_eq!((run_args(&local), ports(&local)), ((true, true, "127.0.0.1:8090".into()), (both(), vec!["http".into()])));
    let rights: BTreeSet<_> = operator_rights(&local).into_values().flatten().collect();
    assert!(!rights.iter().any(|r| r.contains("voicerolloutactions create") || r.contains("impersonate")), "callers act for themselves");
}

#[test]
fn people_may_give_commands_but_not_change_them_or_forge_results() {
    let Some(objects) = render(&["crds.install=false"]) else { return };
    let role = |suffix: &str| {
        let name = format!("voice-system-vr-voicerollout-{suffix}");
        *of_kind(&objects, "ClusterRole").iter().find(|r| r["metadata"]["name"] == name).unwrap()
    };
    for (suffix, viewers) in [("view", true), ("command", false), ("edit", false)] {
        let label = &role(suffix)["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"];
        assert_eq!(*label == "true", viewers, "{suffix}");
    }
    assert!(rights(role("view")).iter().all(|r| ["get", "list", "watch"].iter().any(|v| r.ends_with(&format!(" {v}")))));
    assert!(rights(role("command")).contains("voicerollout.dev/voicerolloutactions create"));
    let writes: Vec<_> = ["command", "edit"].iter().flat_map(|s| rights(role(s))).filter(|r| !r.ends_with("get")).collect();
    for verb in ["update", "patch", "delete"] {
        assert!(!writes.contains(&format!("voicerollout.dev/voicerolloutactions {verb}")));
        assert!(!writes.contains(&format!("voicerollout.dev/voicerollouts/status {verb}")));
        assert!(!writes.contains(&format!("voicerollout.dev/voiceanalysisruns {verb}")));
    }
}

#[test]
fn the_pod_meets_the_restricted_standard() {
    let Some(objects) = render(&["crds.install=false", "logLevel=debug", "egress.allow={10.0.0.0/8,localhost}"]) else { return };
    let deployment = of_kind(&objects, "Deployment")[0];
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(
        (&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["seccompProfile"]["type"]),
        (&json!(true), &json!("RuntimeDefault"))
    );
    let want = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(container["securityContext"], want);
    assert_eq!(
        (&container["resources"]["requests"]["memory"], &container["resources"]["limits"]["memory"]),
        (&json!("32Mi"), &json!("128Mi"))
    );
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    // Its arguments are ones that the program takes.
    let args = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    let parsed = voicerollout::cli::args::parse(std::iter::once("voicerollout").chain(args)).unwrap();
    let voicerollout::cli::args::Verb::Run(run) = parsed.verb else { panic!("the container runs the operator") };
    assert_eq!((run.log.log_level.as_str(), run.egress_allow), ("debug", vec!["10.0.0.0/8".to_owned(), "localhost".to_owned()]));
}

/// The file that the operator reads is the one that the chart mounts, and says what the values say.
#[test]
fn notifications_reach_the_operator() {
    let values = [
        "crds.install=false",
        "notifications.link=https://x.example/{namespace}/{rollout}",
        "notifications.defaults[0].name=team",
        "notifications.defaults[0].slack.webhook.name=slack",
        "notifications.defaults[0].slack.webhook.key=url",
        "notifications.defaults[0].template=\\{\\{ step \\}\\}: \\{\\{ failure_reason \\}\\}",
    ];
    let Some(objects) = render(&values) else { return };
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"];
    let args = pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    let parsed = voicerollout::cli::args::parse(std::iter::once("voicerollout").chain(args)).unwrap();
    let voicerollout::cli::args::Verb::Run(run) = parsed.verb else { panic!("the container runs the operator") };
    let path = run.notifications.expect("a file");
    let (mount, volume) = (&pod["spec"]["containers"][0]["volumeMounts"][0], &pod["spec"]["volumes"][0]);
    assert_eq!(mount["name"], volume["name"]);
    let file = path.strip_prefix(mount["mountPath"].as_str().unwrap()).unwrap().to_str().unwrap();
    let map = of_kind(&objects, "ConfigMap")[0];
    assert_eq!(volume["configMap"]["name"], map["metadata"]["name"]);
    let defaults = Defaults::parse(map["data"][file].as_str().unwrap());
    assert_eq!(defaults.mistakes, Vec::<String>::new());
    assert_eq!(defaults.link_to("voice", "agent"), "https://x.example/voice/agent");
    assert_eq!(defaults.notifiers[0].template.as_deref(), Some("{{ step }}: {{ failure_reason }}"));
    // Another text is another pod, and without one there is nothing to mount.
    let mark = |objects: &[Value]| of_kind(objects, "Deployment")[0]["spec"]["template"]["metadata"]["annotations"].clone();
    assert_ne!(mark(&objects), mark(&render(&values[..5]).unwrap()));
    let none = render(&values[..1]).unwrap();
    assert!(of_kind(&none, "ConfigMap").is_empty() && mark(&none).is_null());
}

#[test]
fn labels_of_pods_match_all_that_select_them() {
    let Some(objects) = render(&["crds.install=false", "serviceMonitor.enabled=true"]) else { return };
    let labels = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["metadata"]["labels"];
    let selects = |selector: &Value| selector.as_object().unwrap().iter().all(|(k, v)| labels[k] == *v);
    assert!(selects(&of_kind(&objects, "Deployment")[0]["spec"]["selector"]["matchLabels"]));
    assert!(selects(&of_kind(&objects, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"]));
    assert!(selects(&of_kind(&objects, "Service")[0]["spec"]["selector"]));
    let (monitor, service) = (of_kind(&objects, "ServiceMonitor")[0], of_kind(&objects, "Service")[0]);
    assert_eq!(monitor["spec"]["endpoints"][0]["honorLabels"], true, "alerts name the rollout's namespace");
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(wanted.iter().all(|(k, v)| service["metadata"]["labels"][k] == *v));
}

/// The policy's own expression, evaluated as an API server does.
#[test]
fn a_command_under_another_name_is_refused() {
    let Some(objects) = render(&["crds.install=false"]) else { return };
    let (policy, binding) = (of_kind(&objects, "ValidatingAdmissionPolicy")[0], of_kind(&objects, "ValidatingAdmissionPolicyBinding")[0]);
    assert_eq!((&binding["spec"]["policyName"], &binding["spec"]["validationActions"]), (&policy["metadata"]["name"], &json!(["Deny"])));
    let rule = &policy["spec"]["matchConstraints"]["resourceRules"][0];
    assert_eq!((&rule["resources"], &rule["operations"]), (&json!(["voicerolloutactions"]), &json!(["CREATE"])));
    let validation: VapExpression = serde_json::from_value(policy["spec"]["validations"][0].clone()).unwrap();
    let decide = |spec: Value| {
        let request = AdmissionRequest { operation: "CREATE".into(), username: "jane".into(), ..Default::default() };
        let evaluator = VapEvaluator::builder().object(json!({"spec": spec})).request(request).build();
        let result = evaluator.evaluate(std::slice::from_ref(&validation)).remove(0);
        (result.passed, result.message.unwrap_or_default())
    };
    assert_eq!(decide(json!({"requestedBy": "jane"})), (true, String::new()));
    let refused = (false, "spec.requestedBy must be your own user name, jane".to_owned());
    assert_eq!(decide(json!({"requestedBy": "joe"})), refused);
    assert_eq!(decide(json!({})), refused);
    let off = render(&["crds.install=false", "admissionPolicy.enabled=false"]).unwrap();
    assert!(off.iter().all(|o| !o["kind"].as_str().unwrap().starts_with("ValidatingAdmission")));
}

#[test]
fn a_value_that_does_not_exist_is_refused() {
    for set in [
        "watchNamespace={a}",
        "replicas=two",
        "dashboard.listen=0.0.0.0:80",
        "dashboard.listen=localhost:8090",
        "dashboard.listen=0.0.0.0.0:8090",
        "listen=localhost:8080",
        "dashboard.action=true",
        "notifications.defaults[0].name=a",
        "logFormat=xml",
        "egress.allow={a b}",
    ] {
        let Some(output) = helm(&["template", "vr", "charts/voicerollout", "--set", set]) else { return };
        assert!(!output.status.success(), "{set} was taken");
    }
    for listen in ["127.0.0.1:8090", "[::]:8090", "$(POD_IP):8090"] {
        let set = format!("dashboard.listen={listen}");
        let Some(output) = helm(&["template", "vr", "charts/voicerollout", "--set-string", &set]) else { return };
        assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
