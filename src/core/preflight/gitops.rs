//! Objects that a GitOps tool keeps as its repository says: it writes over weights and selectors. Whether it was told not
//! to, the object does not say: the rule is in the tool's own resource, which may be out of reach, so somebody has to
//! acknowledge it on the object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{Finding, codes};
use crate::api::common::{REVISION_LABEL, SERVING_LABEL};

/// Annotation, `"true"`: whoever keeps the object was told to ignore what the operator writes.
pub const GITOPS_IGNORED_ANNOTATION: &str = "voicerollout.dev/gitops-ignored";

const ARGO_INSTANCE: &str = "argocd.argoproj.io/instance";
const ARGO_TRACKING: &str = "argocd.argoproj.io/tracking-id";
const FLUX_KUSTOMIZATION: &str = "kustomize.toolkit.fluxcd.io/name";
const FLUX_HELM: &str = "helm.toolkit.fluxcd.io/name";
const FLUX_SSA: &str = "kustomize.toolkit.fluxcd.io/ssa";
const FLUX_RECONCILE: &str = "kustomize.toolkit.fluxcd.io/reconcile";
const FLUX_DRIFT: &str = "helm.toolkit.fluxcd.io/driftDetection";

/// Labels that are looked at.
pub const LABELS: [&str; 4] = [ARGO_INSTANCE, FLUX_KUSTOMIZATION, FLUX_HELM, FLUX_DRIFT];
/// Annotations that are looked at.
pub const ANNOTATIONS: [&str; 6] = [ARGO_INSTANCE, ARGO_TRACKING, FLUX_SSA, FLUX_RECONCILE, FLUX_DRIFT, GITOPS_IGNORED_ANNOTATION];

/// A GitOps tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Argo CD.
    ArgoCd,
    /// Flux, its kustomize-controller.
    FluxKustomization,
    /// Flux, its helm-controller.
    FluxHelm,
}

/// Who keeps an object, and was not told on it to leave it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The tool.
    pub tool: Tool,
    /// Name of the tool's resource: Application, Kustomization, HelmRelease.
    pub name: String,
    /// What the acknowledgement says, when it does not say `true`.
    pub said: Option<String>,
}

/// An object that a GitOps tool keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptObject {
    /// VirtualService, Service or DestinationRule.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of a VirtualService: names of the managed http routes.
    pub routes: Vec<String>,
    /// Who keeps it.
    pub keeper: Keeper,
}

impl Keeper {
    /// Of an object of `kind`; `None` where no tool keeps it, or where it is said on the object that the tool leaves it.
    pub fn of(kind: &str, meta: &ObjectMeta) -> Option<Self> {
        let get = |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().and_then(|m| m.get(key)).cloned();
        let (label, annotation) = (|key| get(&meta.labels, key), |key| get(&meta.annotations, key));
        let said = annotation(GITOPS_IGNORED_ANNOTATION);
        if said.as_deref() == Some("true") {
            return None;
        }
        let tracked = annotation(ARGO_TRACKING).and_then(|id| tracking(&id, kind, meta));
        let (tool, name) = if let Some(name) = tracked.or_else(|| label(ARGO_INSTANCE)).or_else(|| annotation(ARGO_INSTANCE)) {
            (Tool::ArgoCd, name)
        } else if let Some(name) = label(FLUX_KUSTOMIZATION) {
            let left = matches!(annotation(FLUX_SSA).as_deref(), Some("IfNotPresent" | "Ignore"));
            if left || annotation(FLUX_RECONCILE).as_deref() == Some("disabled") {
                return None;
            }
            (Tool::FluxKustomization, name)
        } else {
            let off = [label(FLUX_DRIFT), annotation(FLUX_DRIFT)].iter().flatten().any(|v| v == "disabled");
            (Tool::FluxHelm, label(FLUX_HELM).filter(|_| !off)?)
        };
        Some(Self { tool, name, said })
    }
}

/// The Application of a tracking id, `app:group/kind:namespace/name`. One that names another object came with a copy, and
/// Argo CD does not heed it.
fn tracking(id: &str, kind: &str, meta: &ObjectMeta) -> Option<String> {
    let (application, rest) = id.split_once(':')?;
    let own = format!("/{kind}:{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    rest.ends_with(&own).then(|| application.to_owned())
}

pub(super) fn finding(kept: &KeptObject) -> Finding {
    let KeptObject { kind, namespace, name, keeper, .. } = kept;
    let (owner, effect) = (keeper.title(), if *kind == "VirtualService" { "the weights" } else { "the revision that it selects" });
    let said = keeper.said.as_ref().map(|s| format!(" ({GITOPS_IGNORED_ANNOTATION} says {s:?}, which does not count)"));
    Finding {
        code: codes::GITOPS_OVERWRITES,
        sentence: format!(
            "{kind} {namespace}/{name} is kept by {owner}, which writes over {effect}; whether it has a rule to ignore them is not to be seen \
             here{}.",
            said.unwrap_or_default()
        ),
        fix: format!(
            "{}, then say so: kubectl annotate {} -n {namespace} {name} {GITOPS_IGNORED_ANNOTATION}=true.",
            rule(kept),
            kind.to_lowercase()
        ),
    }
}

impl Keeper {
    fn title(&self) -> String {
        let kind = match self.tool {
            Tool::ArgoCd => "the Argo CD Application",
            Tool::FluxKustomization => "the Flux Kustomization",
            Tool::FluxHelm => "the Flux HelmRelease",
        };
        format!("{kind} {}", self.name)
    }
}

/// What makes the tool leave the fields alone.
fn rule(kept: &KeptObject) -> String {
    match kept.keeper.tool {
        Tool::ArgoCd => format!("merge into the Application's spec: {}", argo_rule(kept)),
        Tool::FluxKustomization => format!("annotate it in the repository with {FLUX_SSA}: IfNotPresent"),
        Tool::FluxHelm => format!("annotate it in the chart with {FLUX_DRIFT}: disabled"),
    }
}

/// The rule for Argo CD, as JSON, which is YAML. Without `RespectIgnoreDifferences` a sync writes the fields all the same.
fn argo_rule(kept: &KeptObject) -> String {
    let group = if kept.kind == "Service" { "" } else { "networking.istio.io" };
    let quoted = |name: &String| serde_json::Value::from(name.as_str()).to_string();
    let both = |path: fn(&str) -> String| [REVISION_LABEL, SERVING_LABEL].map(path).to_vec();
    let paths: Vec<String> = match kept.kind {
        "VirtualService" if kept.routes.is_empty() => vec![".spec.http[].route[].weight".into()],
        "VirtualService" => {
            kept.routes.iter().map(|r| format!(".spec.http[] | select(.name == {}) | .route[].weight", quoted(r))).collect()
        }
        "Service" => both(|key| format!(".spec.selector[\"{key}\"]")),
        _ => both(|key| format!(".spec.subsets[].labels[\"{key}\"]")),
    };
    json!({
        "ignoreDifferences": [
            {"group": group, "kind": kept.kind, "namespace": kept.namespace, "name": kept.name, "jqPathExpressions": paths},
        ],
        "syncPolicy": {"syncOptions": ["RespectIgnoreDifferences=true"]},
    })
    .to_string()
}
