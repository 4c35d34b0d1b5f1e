//! Alerts and dashboard: they load, and ask for metrics that there are.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::{helm, listed, of_kind, render, root};

const ON: [&str; 3] = ["crds.install=false", "prometheusRule.enabled=true", "grafanaDashboard.enabled=true"];

/// Names in the table of `src/metrics.rs`.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("src/metrics.rs")).unwrap();
    let rows = text.lines().filter_map(|l| l.strip_prefix("//! | `")).map(|l| l.split(" | ").next().unwrap().to_owned());
    rows.flat_map(|names| names.split(", ").map(|n| n.trim_matches('`').to_owned()).collect::<Vec<_>>()).collect()
}

/// Metrics that a query reads.
fn metrics_of(query: &str) -> BTreeSet<String> {
    // Grafana fills its variables in before Prometheus sees them.
    let query = query.replace("$__range", "5m").replace("$namespace", "voice").replace("$rollout", "agent");
    let parsed = promql_parser::parser::parse(&query).unwrap_or_else(|e| panic!("{query}: {e}"));
    let words = format!("{parsed}");
    let names = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("voicerollout_"));
    names.map(|n| n.strip_suffix("_bucket").unwrap_or(n).to_owned()).collect()
}

fn assert_documented(queries: &[String]) {
    let known = documented();
    assert!(known.len() > 15, "{known:?}");
    for query in queries {
        let unknown: Vec<String> = metrics_of(query).into_iter().filter(|m| !known.contains(m)).collect();
        assert!(unknown.is_empty(), "{query}: {unknown:?} are not in src/metrics.rs");
    }
}

fn strings(value: &Value, key: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(all) => {
            into.extend(all.get(key).and_then(Value::as_str).map(String::from));
            all.values().for_each(|v| strings(v, key, into));
        }
        Value::Array(all) => all.iter().for_each(|v| strings(v, key, into)),
        _ => {}
    }
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let Some(objects) = render(&ON) else { return };
    let rule = of_kind(&objects, "PrometheusRule")[0];
    let mut queries = Vec::new();
    strings(rule, "expr", &mut queries);
    assert!(queries.len() >= 8, "{queries:?}");
    assert_documented(&queries);
    for alert in rule["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let summary = alert["annotations"]["summary"].as_str().unwrap();
        assert!(!summary.is_empty() && alert["labels"]["severity"].is_string(), "{alert}");
    }
    assert!(render(&["crds.install=false"]).unwrap().iter().all(|o| o["kind"] != "PrometheusRule"));
}

#[test]
fn promtool_takes_the_alerts() {
    let Some(promtool) = listed(&["VOICEROLLOUT_PROMTOOL"]) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no promtool; set VOICEROLLOUT_PROMTOOL to the path of one");
        return;
    };
    let output =
        Command::new(promtool).args(["check", "rules"]).arg(root().join("charts/voicerollout/files/alerts.yaml")).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn grafana_s_schema_takes_the_dashboard() {
    let Some(check) = listed(&["VOICEROLLOUT_GRAFANA_SCHEMA"]) else {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: no schema of Grafana's; set VOICEROLLOUT_GRAFANA_SCHEMA to a program that checks files");
        return;
    };
    let file = root().join("charts/voicerollout/files/dashboard.json");
    let checked = |path: &Path| Command::new(&check).arg(path).output().unwrap();
    let output = checked(&file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut wrong: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    wrong["panels"][0]["gridPos"]["x"] = json!("left");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.json");
    std::fs::write(&path, wrong.to_string()).unwrap();
    let output = checked(&path);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("panels[0]"), "{said}");
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = std::fs::read_to_string(root().join("charts/voicerollout/files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    strings(&dashboard["panels"], "expr", &mut queries);
    assert!(queries.len() >= 13, "{queries:?}");
    assert_documented(&queries);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|p| p["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        let at = |key: &str| panel["gridPos"][key].as_i64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
        }
    }
    if let Some(objects) = render(&ON) {
        let map = of_kind(&objects, "ConfigMap")[0];
        assert_eq!(serde_json::from_str::<Value>(map["data"]["voicerollout.json"].as_str().unwrap()).unwrap(), dashboard);
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], json!("1"));
    }
}

#[test]
fn traces_go_to_the_collector_that_the_values_name_with_headers_from_a_secret() {
    let env = |sets: &[&str]| -> Option<Value> {
        let objects = render(&[&["crds.install=false"], sets].concat())?;
        Some(of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"].clone())
    };
    let Some(without) = env(&[]) else { return };
    assert!(!without.to_string().contains("OTEL_"), "{without}");
    let with =
        env(&["openTelemetry.endpoint=http://otel:4318", "openTelemetry.headers.name=otel", "openTelemetry.headers.key=headers"]).unwrap();
    let with = with.as_array().unwrap();
    assert!(with.contains(&json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4318"})), "{with:?}");
    let secret = json!({"secretKeyRef": {"name": "otel", "key": "headers"}});
    assert!(with.contains(&json!({"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": secret})), "{with:?}");
    let wrong = helm(&["template", "vr", "charts/voicerollout", "--set", "openTelemetry.endpoint=otel:4317"]).unwrap();
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("endpoint"), "{wrong:?}");
}
