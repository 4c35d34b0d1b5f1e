//! Every route of a VirtualService that leads to an arm, managed or not.

use serde_json::Value;

use super::{Own, Reader, Split, host};

/// A list of routes in a VirtualService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadKind {
    /// `spec.http`.
    Http,
    /// `spec.tcp`.
    Tcp,
    /// `spec.tls`.
    Tls,
}

/// A route that leads to an arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The list it is in.
    pub kind: LeadKind,
    /// Index in the list.
    pub index: usize,
    /// Its name; tcp and tls routes have none.
    pub name: Option<String>,
    /// Host of the first destination that is an arm, as it is written.
    pub host: String,
    /// Its time-out, as it is written.
    pub timeout: Option<String>,
    /// Its weights are written.
    pub managed: bool,
}

impl Lead {
    /// How messages name it.
    pub fn title(&self) -> String {
        let list = match self.kind {
            LeadKind::Http => "http",
            LeadKind::Tcp => "tcp",
            LeadKind::Tls => "tls",
        };
        self.name.as_ref().map_or_else(|| format!("spec.{list}[{}]", self.index), |name| format!("{list} route {name}"))
    }
}

/// The routes of `vs` that lead to an arm; those of `names` (empty: the only http route) are managed. Those that the
/// operator made itself are left out.
pub fn leads(vs: &Value, names: &[String], split: &Split, own: &Own) -> Vec<Lead> {
    let reader = Reader::new(vs, split, own);
    let managed = reader.select(names).unwrap_or_default();
    let mut found = Vec::new();
    for (kind, list) in [(LeadKind::Http, "http"), (LeadKind::Tcp, "tcp"), (LeadKind::Tls, "tls")] {
        for (index, route) in vs["spec"][list].as_array().into_iter().flatten().enumerate() {
            if kind == LeadKind::Http && own.is_generated(route) {
                continue;
            }
            let destinations = route["route"].as_array().into_iter().flatten();
            let Some(host) = destinations.map(|d| &d["destination"]).find_map(|d| reader.leads_to(d)) else { continue };
            let text = |field: &str| route[field].as_str().map(str::to_owned);
            let managed = kind == LeadKind::Http && managed.contains(&index);
            found.push(Lead { kind, index, name: text("name"), host, timeout: text("timeout"), managed });
        }
    }
    found
}

impl Reader<'_> {
    /// The host of a destination that is an arm, or both: a host with subsets, named without one.
    fn leads_to(&self, destination: &Value) -> Option<String> {
        let written = destination["host"].as_str()?;
        let both = match self.split {
            Split::Hosts { .. } => false,
            Split::Subsets { host: rule, namespace, .. } => {
                destination["subset"].is_null() && host::resolve(written, self.namespace) == host::resolve(rule, namespace)
            }
        };
        (both || self.arm(destination).is_some()).then(|| written.to_owned())
    }
}
