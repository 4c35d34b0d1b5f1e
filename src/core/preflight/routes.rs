//! Routes of the managed VirtualServices.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::gitops::{Keeper, KeptObject};
use super::{Finding, codes};
use crate::core::route::{Lead, LeadKind, Own, Split, leads};

/// VirtualService annotation: names of http routes, separated by commas, that lead to an arm and are not to be managed.
pub const UNMANAGED_ROUTES_ANNOTATION: &str = "voicerollout.dev/unmanaged-routes";

/// A managed VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServiceSeen {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Names of the managed http routes; none: the only one.
    pub routes: Vec<String>,
    /// Its routes that lead to an arm.
    pub leads: Vec<Lead>,
    /// Http routes that somebody said are not to be managed.
    pub unmanaged: Vec<String>,
    /// The GitOps tool that keeps it.
    pub keeper: Option<Keeper>,
}

impl VirtualServiceSeen {
    /// What is looked at of `object`, whose http routes `names` are managed.
    pub fn of(object: &Value, names: &[String], split: &Split, own: &Own) -> Self {
        let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap_or_default();
        let list = meta.annotations.as_ref().and_then(|a| a.get(UNMANAGED_ROUTES_ANNOTATION));
        let unmanaged = list.iter().flat_map(|l| l.split(',')).map(|name| name.trim().to_owned());
        Self {
            routes: names.to_vec(),
            leads: leads(object, names, split, own),
            unmanaged: unmanaged.filter(|name| !name.is_empty()).collect(),
            keeper: Keeper::of("VirtualService", &meta),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
        }
    }

    /// As something that a GitOps tool keeps.
    pub(super) fn kept(&self) -> Option<KeptObject> {
        let keeper = self.keeper.clone()?;
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        Some(KeptObject { kind: "VirtualService", namespace, name, routes: self.routes.clone(), keeper })
    }

    fn title(&self) -> String {
        format!("VirtualService {}/{}", self.namespace, self.name)
    }
}

fn listed<'a>(leads: impl IntoIterator<Item = &'a Lead>) -> String {
    leads.into_iter().map(Lead::title).collect::<Vec<_>>().join(", ")
}

/// Routes to an arm that end a call after a time.
pub(super) fn timeouts(vs: &VirtualServiceSeen) -> Option<Finding> {
    let limits = |lead: &&Lead| lead.timeout.as_deref().is_some_and(|t| !is_zero(t));
    let found: Vec<&Lead> = vs.leads.iter().filter(limits).collect();
    let first = found.first()?;
    let with = |lead: &&Lead| format!("{} ({})", lead.title(), lead.timeout.as_deref().unwrap_or_default());
    Some(Finding {
        code: codes::ROUTE_TIMEOUT,
        sentence: format!(
            "{}: {} has a timeout, which counts for the whole of a WebSocket or stream too: the proxy ends every call that lasts longer.",
            vs.title(),
            found.iter().map(with).collect::<Vec<_>>().join(", ")
        ),
        fix: format!("take `timeout` out of {}: Istio sets none of its own.", if found.len() == 1 { first.title() } else { "them".into() }),
    })
}

/// A time-out of nothing is none.
fn is_zero(timeout: &str) -> bool {
    timeout.parse::<kube::core::Duration>().is_ok_and(|d| crate::api::common::std_duration(d).is_zero())
}

/// Tcp and tls routes to an arm.
pub(super) fn tcp_or_tls(vs: &VirtualServiceSeen) -> Option<Finding> {
    let found: Vec<&Lead> = vs.leads.iter().filter(|l| l.kind != LeadKind::Http).collect();
    let first = found.first()?;
    Some(Finding {
        code: codes::TCP_OR_TLS_ROUTE,
        sentence: format!(
            "{}: {} leads to {}: its connections follow no weight, and a change of such a route replaces the proxy's listener, which cuts \
             every connection through it.",
            vs.title(),
            listed(found.iter().copied()),
            first.host
        ),
        fix: "take calls as HTTP (a WebSocket is: name the Service's port http, or give it appProtocol: http) and lead them by a managed http \
              route; other TCP gets a Service and a VirtualService of its own."
            .into(),
    })
}

/// Http routes to an arm that nobody manages.
pub(super) fn unmanaged(vs: &VirtualServiceSeen) -> Option<Finding> {
    let said = |lead: &Lead| lead.name.as_ref().is_some_and(|name| vs.unmanaged.contains(name));
    let found: Vec<&Lead> = vs.leads.iter().filter(|l| l.kind == LeadKind::Http && !l.managed && !said(l)).collect();
    let first = found.first()?;
    let named: Vec<&str> = found.iter().filter_map(|l| l.name.as_deref()).collect();
    let names = if named.is_empty() { "its name".to_owned() } else { named.join(",") };
    Some(Finding {
        code: codes::UNMANAGED_ROUTE,
        sentence: format!(
            "{}: {} leads to {} and is not managed: its split never moves, so its calls take no part in a release and do not come back to \
             stable at an abort.",
            vs.title(),
            listed(found.iter().copied()),
            first.host
        ),
        fix: format!(
            "give such a route a name and both destinations, and list it in spec.traffic.istio.virtualServices[].routes; if it is meant to \
             stay as it is, annotate the VirtualService with {UNMANAGED_ROUTES_ANNOTATION}: {names}."
        ),
    })
}
