//! Prometheus: learns of the pods from files that we keep, scrapes them and the gateway's Envoy every second, and knows the
//! chart's alerts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::paths::Paths;
use super::process::{Component, Ready, free_port};
use super::{Error, Result};

/// The pod label that becomes the label `revision` of its series.
const REVISION_LABEL: &str = "voicerollout.dev/revision";

/// A running Prometheus.
pub struct Prometheus {
    /// The process.
    pub component: Component,
    /// Its address.
    pub url: String,
}

impl Prometheus {
    /// Starts it. Pods with the annotation `prometheus.io/scrape: "true"` are scraped (`prometheus.io/port` and
    /// `prometheus.io/path` as usual); their series carry `namespace`, `pod`, and as `revision` the pod's label
    /// `voicerollout.dev/revision`.
    pub async fn start(paths: &Paths, client: Client, envoy_admin: &str, dir: &Path) -> Result<Self> {
        let port = free_port();
        let files = [dir.join("targets.json"), dir.join("operators.json")];
        files.iter().try_for_each(|file| write_whole(file, "[]"))?;
        let config = dir.join("prometheus.yaml");
        std::fs::write(&config, config_text(&files, envoy_admin))?;
        tokio::spawn(list_targets(client, files));
        let url = format!("http://127.0.0.1:{port}");
        let ready = Ready { url: format!("{url}/-/ready"), token: None, deadline: Duration::from_secs(60) };
        let component = Component::new("prometheus", &paths.prometheus, dir, ready)
            .args([format!("--config.file={}", config.display()), format!("--web.listen-address=127.0.0.1:{port}")])
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .args(["--storage.tsdb.retention.time=6h", "--log.level=warn", "--scrape.discovery-reload-interval=100ms"]);
        component.start().await?;
        Ok(Self { component, url })
    }

    /// Alerts that fire.
    pub async fn alerts(&self) -> Result<Vec<Value>> {
        let answer: Value = reqwest::get(format!("{}/api/v1/alerts", self.url)).await?.json().await?;
        let all = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|alert| alert["state"] == "firing").collect())
    }

    /// The result of an instant query, as `data.result` of the answer.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let url = format!("{}/api/v1/query", self.url);
        let answer: Value = reqwest::Client::new().get(url).query(&[("query", query)]).send().await?.json().await?;
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(Error::other(format!("Prometheus says to {query}: {answer}"))),
        }
    }
}

/// The scrape configuration. JSON is YAML, too.
fn config_text([pods, operators]: &[PathBuf; 2], envoy_admin: &str) -> String {
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [concat!(env!("CARGO_MANIFEST_DIR"), "/charts/voicerollout/files/alerts.yaml")],
        "scrape_configs": [
            {"job_name": "pods", "file_sd_configs": [{"files": [pods]}]},
            // As the chart's ServiceMonitor has it.
            {"job_name": "operators", "honor_labels": true, "file_sd_configs": [{"files": [operators]}]},
            {
                "job_name": "gateway",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": [envoy_admin.trim_start_matches("http://")]}],
            },
        ],
    })
    .to_string()
}

/// Keeps the files of the pods to scrape, agents and operators, up to date. (Debian's Prometheus is built without discovery through Kubernetes.)
async fn list_targets(client: Client, files: [PathBuf; 2]) {
    let (store, writer) = reflector::store();
    let pods = watcher(Api::<Pod>::all(client), watcher::Config::default()).default_backoff();
    let mut events = reflector::reflector(writer, pods).boxed();
    let mut written = [const { String::new() }; 2];
    while let Some(event) = events.next().await {
        if event.is_err() {
            continue; // the watcher begins anew
        }
        let pods = store.state();
        for (operators, (file, written)) in [false, true].into_iter().zip(files.iter().zip(&mut written)) {
            let wanted = pods
                .iter()
                .filter(|pod| (pod.labels().get("app.kubernetes.io/name").map(String::as_str) == Some("voicerollout")) == operators);
            let mut targets: Vec<Value> = wanted.filter_map(|pod| target(pod)).collect();
            targets.sort_by_key(|target| target["labels"]["instance"].to_string());
            let text = Value::Array(targets).to_string();
            if text != *written && write_whole(file, &text).is_ok() {
                *written = text;
            }
        }
    }
}

fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}

/// The scrape target of a running pod that asks to be scraped.
fn target(pod: &Pod) -> Option<Value> {
    let status = pod.status.as_ref()?;
    let (ip, annotations) = (status.pod_ip.as_ref()?, pod.annotations());
    if status.phase.as_deref() != Some("Running") || annotations.get("prometheus.io/scrape")? != "true" {
        return None;
    }
    let first_port = || pod.spec.as_ref()?.containers.iter().flat_map(|one| one.ports.iter().flatten()).next();
    let port = annotations.get("prometheus.io/port").cloned();
    let address = format!("{ip}:{}", port.or_else(|| Some(first_port()?.container_port.to_string()))?);
    let path = annotations.get("prometheus.io/path").map_or("/metrics", String::as_str);
    let mut labels = json!({
        "__metrics_path__": path, "instance": address, "pod": pod.name_any(), "namespace": pod.namespace()?,
    });
    if let Some(revision) = pod.labels().get(REVISION_LABEL) {
        labels["revision"] = json!(revision);
    }
    Some(json!({"targets": [address], "labels": labels}))
}
