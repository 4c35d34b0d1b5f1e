//! Lists, pages, scales, logs and discovery.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::fail::{self, Answer};
use super::registry::{Resource, ScalePaths};
use super::request::Request;
use super::selector::{Filter, string_map};
use super::state::State;

/// One page of a list.
pub struct Page {
    /// Version of the whole list.
    pub version: u64,
    /// Objects.
    pub items: Vec<Arc<Value>>,
    /// Token for the next page.
    pub next: Option<String>,
    /// Objects after this page; not known with selectors.
    pub remaining: Option<usize>,
}

impl State {
    /// Lists objects.
    ///
    /// # Errors
    /// 400 for selectors and tokens, 410 for an old version, 504 for a version that is not there yet.
    pub fn page(&self, request: &Request) -> Answer<Page> {
        let resource = &request.resource;
        let filter = Filter::parse(resource, request.param("labelSelector"), request.param("fieldSelector"))?;
        let current = self.store.version();
        let asked = request.number("resourceVersion")?.unwrap_or(0);
        if asked > current {
            return Err(fail::too_large(asked, current));
        }
        let token = request.param("continue").map(read_token).transpose()?;
        let exact = request.param("resourceVersionMatch") == Some("Exact");
        let version = match &token {
            Some((version, _)) => *version,
            None if exact => asked,
            None => current,
        };
        let namespace = request.namespace.as_deref();
        let all = self.store.list_at(resource.id, namespace, version).ok_or_else(|| fail::expired(version, self.store.compacted()))?;
        let after = token.map(|(_, name)| name);
        let matching: Vec<Arc<Value>> =
            all.into_iter().filter(|o| after.as_ref().is_none_or(|after| full_name(o) > *after) && filter.matches(o)).collect();
        // A list from cache (version 0) ignores the limit.
        let limit = request.number("limit")?.filter(|_| request.param("resourceVersion") != Some("0"));
        let limit = limit.and_then(|l| usize::try_from(l).ok()).filter(|l| *l > 0).unwrap_or(usize::MAX);
        let rest = matching.len().saturating_sub(limit);
        let items: Vec<Arc<Value>> = matching.into_iter().take(limit).collect();
        let next = items.last().filter(|_| rest > 0).map(|last| write_token(version, &full_name(last)));
        let selects = request.param("labelSelector").is_some() || request.param("fieldSelector").is_some();
        Ok(Page { version, items, next, remaining: (rest > 0 && !selects).then_some(rest) })
    }

    /// Text of a pod's log.
    ///
    /// # Errors
    /// 404 for the pod, 400 for parameters.
    pub fn log_text(&self, request: &Request) -> Answer<String> {
        self.get(&request.resource, request.in_namespace(), &request.name)?;
        let key = (request.in_namespace().to_owned(), request.name.clone());
        let lines = self.logs.get(&key).map(Vec::as_slice).unwrap_or_default();
        let since = match (request.number("sinceSeconds")?, request.param("sinceTime")) {
            (Some(seconds), _) => self.clock.now() - SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
            (None, Some(time)) => time.parse().map_err(|e| fail::bad_request(format!("sinceTime: {e}")))?,
            (None, None) => Timestamp::MIN,
        };
        let kept: Vec<&(Timestamp, String)> = lines.iter().filter(|(at, _)| *at >= since).collect();
        let tail = request.number("tailLines")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(kept.len());
        let mut text = String::new();
        for (at, line) in &kept[kept.len().saturating_sub(tail)..] {
            if request.is_set("timestamps") {
                text.push_str(&format!("{at} "));
            }
            text.push_str(line);
            text.push('\n');
        }
        if let Some(limit) = request.number("limitBytes")?.and_then(|n| usize::try_from(n).ok()) {
            let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
        }
        Ok(text)
    }

    /// Documents under `/api`, `/apis` and `/version`.
    ///
    /// # Errors
    /// 404 for other paths.
    pub fn discovery(&self, path: &str) -> Answer<Value> {
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        match segments.as_slice() {
            ["version"] => Ok(json!({
                "major": "1", "minor": "36", "gitVersion": "v1.36.2+sim", "gitCommit": "", "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "sim"
            })),
            ["api"] => Ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
            ["apis"] => Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": self.groups()})),
            ["api", version] => self.resource_list("", version),
            ["apis", group, version] => self.resource_list(group, version),
            ["apis", group] => {
                let groups = self.groups().into_iter().find(|g| g["name"] == *group);
                groups.ok_or_else(fail::no_such_path)
            }
            _ => Err(fail::no_such_path()),
        }
    }

    fn groups(&self) -> Vec<Value> {
        let mut groups: Vec<(&str, &str)> =
            self.resources.iter().filter(|r| !r.group.is_empty()).map(|r| (r.group.as_str(), r.version.as_str())).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
            .into_iter()
            .map(|(group, version)| {
                let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
                json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": [version.clone()], "preferredVersion": version})
            })
            .collect()
    }

    fn resource_list(&self, group: &str, version: &str) -> Answer<Value> {
        const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let mut resources = Vec::new();
        let mut group_version = String::new();
        for r in self.resources.iter().filter(|r| r.group == group && r.version == version) {
            group_version = r.api_version();
            resources.push(json!({
                "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind,
                "verbs": VERBS, "shortNames": r.short_names
            }));
            let mut sub = |name: &str, kind: &str| {
                resources.push(json!({
                    "name": format!("{}/{name}", r.plural), "singularName": "", "namespaced": r.namespaced, "kind": kind,
                    "verbs": ["get", "patch", "update"]
                }));
            };
            if r.status {
                sub("status", &r.kind);
            }
            if r.scale.is_some() {
                sub("scale", "Scale");
            }
        }
        if resources.is_empty() {
            return Err(fail::no_such_path());
        }
        Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
    }
}

/// The scale of an object.
pub fn scale_of(resource: &Resource, paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let selector = match &paths.selector {
        Some(pointer) => object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned(),
        None => {
            let labels = string_map(object.pointer("/spec/selector/matchLabels"));
            labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
        }
    };
    let mut meta = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            meta[field] = value.clone();
        }
    }
    debug_assert!(resource.scale.is_some());
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta,
        "spec": {"replicas": number(&paths.spec_replicas)},
        "status": {"replicas": number(&paths.status_replicas), "selector": selector}
    });
    if selector.is_empty()
        && let Some(status) = scale["status"].as_object_mut()
    {
        status.remove("selector");
    }
    scale
}

fn full_name(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"].get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn write_token(version: u64, after: &(String, String)) -> String {
    URL_SAFE_NO_PAD.encode(json!([version, after.0, after.1]).to_string())
}

fn read_token(token: &str) -> Answer<(u64, (String, String))> {
    let wrong = || fail::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let (version, namespace, name) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    Ok((version, (namespace, name)))
}
