//! Reusable gates: `VoiceAnalysisTemplate` and `ClusterVoiceAnalysisTemplate`.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::analysis::{Arg, Gate};

/// Gates for rollouts of one namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "voicerollout.dev",
    version = "v1alpha1",
    kind = "VoiceAnalysisTemplate",
    plural = "voiceanalysistemplates",
    singular = "voiceanalysistemplate",
    shortname = "vat",
    namespaced,
    derive = "PartialEq",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VoiceAnalysisTemplateSpec {
    /// Arguments the gates use; one without a value has to be given by the rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub args: Vec<Arg>,
    /// The gates.
    #[schemars(length(min = 1, max = 16))]
    pub gates: Vec<Gate>,
}

/// Gates for rollouts of every namespace. Its Secrets live in the operator's namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "voicerollout.dev",
    version = "v1alpha1",
    kind = "ClusterVoiceAnalysisTemplate",
    plural = "clustervoiceanalysistemplates",
    singular = "clustervoiceanalysistemplate",
    shortname = "cvat",
    derive = "PartialEq",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterVoiceAnalysisTemplateSpec {
    /// Arguments the gates use; one without a value has to be given by the rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub args: Vec<Arg>,
    /// The gates.
    #[schemars(length(min = 1, max = 16))]
    pub gates: Vec<Gate>,
}
