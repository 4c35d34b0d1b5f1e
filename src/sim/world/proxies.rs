//! What the proxies know: routes, subsets and endpoints, some time after the API server does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::super::selector::{labels_of, string_map};
use super::super::store::{Change, Key};
use super::requests::{Headers, Request};
use super::timers::Task;
use super::{Cluster, Kinds};
use crate::core::route::may_be_generated;

/// A pod a call can go to.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
}

/// A destination of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Subset, where one is named.
    pub subset: Option<String>,
    /// Share of calls, in percent.
    pub weight: u64,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)?;
        self.subset.as_ref().map_or(Ok(()), |subset| write!(f, " subset {subset}"))
    }
}

/// What the proxies know.
#[derive(Default)]
pub(super) struct Proxies {
    routes: HashMap<Key, Arc<Value>>,
    rules: HashMap<Key, Arc<Value>>,
    slices: HashMap<(String, String), HashMap<String, Arc<Value>>>,
    under_way: VecDeque<(Instant, Key, Option<Arc<Value>>)>,
}

impl Proxies {
    /// Takes in a new form of an object; `None` when it is gone.
    pub fn know(&mut self, key: &Key, object: Option<Arc<Value>>, kinds: Kinds) {
        let table = if key.kind == kinds.virtual_services {
            &mut self.routes
        } else if key.kind == kinds.destination_rules {
            &mut self.rules
        } else {
            if let Some(slice) = object.filter(|_| key.kind == kinds.slices) {
                let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
                let of_service = self.slices.entry((key.namespace.clone(), service.to_owned())).or_default();
                of_service.insert(key.name.clone(), Arc::clone(&slice));
            } else if key.kind == kinds.slices {
                for ((namespace, _), slices) in &mut self.slices {
                    if *namespace == key.namespace {
                        slices.remove(&key.name);
                    }
                }
            }
            return;
        };
        match object {
            Some(object) => table.insert(key.clone(), object),
            None => table.remove(key),
        };
    }

    /// Destinations of a call that is meant for the http route `number` of those that no operator has made; `None` when
    /// there is no such route. A call with headers goes to the first route that takes it.
    pub fn destinations(&self, route: &Key, number: usize, headers: Option<Headers>) -> Option<Vec<Destination>> {
        let all = self.routes.get(route)?.pointer("/spec/http")?.as_array()?;
        let meant = all.iter().filter(|r| !may_be_generated(r)).nth(number)?;
        let http = match headers {
            None => meant,
            Some(headers) => {
                let request = Request::meant_for(meant, headers);
                all.iter().find(|r| request.is_taken_by(r))?
            }
        };
        let list = http.get("route")?.as_array()?;
        let alone = list.len() == 1;
        let destinations = list.iter().map(|entry| {
            let destination = &entry["destination"];
            let host = destination["host"].as_str().unwrap_or_default();
            let (service, namespace) = split_host(host, &route.namespace);
            Destination {
                namespace,
                service,
                subset: destination["subset"].as_str().map(ToOwned::to_owned),
                weight: entry["weight"].as_u64().unwrap_or(if alone { 100 } else { 0 }),
            }
        });
        Some(destinations.collect())
    }

    /// Ready endpoints of a destination. `labels` gives the labels of a pod.
    pub fn endpoints(&self, to: &Destination, labels: impl Fn(&Endpoint) -> Option<Arc<Value>>) -> Vec<Endpoint> {
        let wanted = to.subset.as_ref().map(|subset| self.subset_labels(to, subset));
        let slices = self.slices.get(&(to.namespace.clone(), to.service.clone()));
        let mut ready: Vec<Endpoint> = slices
            .into_iter()
            .flat_map(HashMap::values)
            .filter_map(|slice| slice["endpoints"].as_array())
            .flatten()
            .filter(|e| e.pointer("/conditions/ready") == Some(&Value::Bool(true)))
            .map(|e| {
                let text = |name: &str| e["targetRef"][name].as_str().unwrap_or_default().to_owned();
                Endpoint { namespace: text("namespace"), pod: text("name"), uid: text("uid") }
            })
            .collect();
        if let Some(wanted) = wanted {
            ready.retain(|endpoint| {
                let found = labels(endpoint).map(|pod| labels_of(&pod)).unwrap_or_default();
                wanted.as_ref().is_some_and(|wanted| wanted.iter().all(|(k, v)| found.get(k) == Some(v)))
            });
        }
        ready.sort_by(|a, b| a.pod.cmp(&b.pod));
        ready
    }

    fn subset_labels(&self, to: &Destination, subset: &str) -> Option<std::collections::BTreeMap<String, String>> {
        let mut of_host = self.rules.iter().filter(|(key, rule)| {
            let host = rule.pointer("/spec/host").and_then(Value::as_str).unwrap_or_default();
            split_host(host, &key.namespace) == (to.service.clone(), to.namespace.clone())
        });
        let (_, rule) = of_host.next()?;
        let found = rule.pointer("/spec/subsets")?.as_array()?.iter().find(|s| s["name"] == subset)?;
        Some(string_map(found.get("labels")))
    }
}

/// `agent`, `agent.ns`, `agent.ns.svc.cluster.local` as Service and namespace.
fn split_host(host: &str, namespace: &str) -> (String, String) {
    let mut parts = host.split('.');
    let service = parts.next().unwrap_or_default().to_owned();
    (service, parts.next().unwrap_or(namespace).to_owned())
}

impl Cluster {
    pub(super) fn proxies_see(&mut self, change: &Change) {
        let at = Instant::now() + self.shared.config.lock().propagation;
        self.proxies.under_way.push_back((at, change.key.clone(), change.new.clone()));
        self.timers.once(at, Task::Propagate);
    }

    pub(super) fn propagate(&mut self) {
        let now = Instant::now();
        while self.proxies.under_way.front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, key, new)) = self.proxies.under_way.pop_front() {
                self.proxies.know(&key, new, self.kinds);
            }
        }
        if let Some((at, ..)) = self.proxies.under_way.front() {
            self.timers.once(*at, Task::Propagate);
        }
    }
}
