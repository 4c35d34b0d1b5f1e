//! Stickiness that agrees with weights: a caller keeps its version while the canary's weight only grows.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How callers keep their version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.headerBuckets)").message("set stickiness.headerBuckets"))]
pub struct Stickiness {
    /// By a request header that carries the caller's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_buckets: Option<HeaderBuckets>,
}

/// A request header with the caller's bucket, `00` to `99` or `000` to `999`, set at the edge from a hash of the caller.
/// Buckets below the canary's weight go to the canary, all others to stable; calls without the header go by the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderBuckets {
    /// Name of the header, in lower case, such as `x-voice-bucket`.
    #[schemars(length(min = 1, max = 128))]
    pub header: String,
    /// How many buckets there are: 100, or 1000 of three digits.
    #[serde(default = "default_buckets")]
    #[schemars(extend("enum" = [100, 1000]))]
    pub buckets: i32,
    /// Callers that stay on stable whatever the weight, until the canary has become stable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub always_stable: Vec<AlwaysStable>,
}

/// Callers that stay on stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlwaysStable {
    /// Name of a header, in lower case, such as `x-tenant-id`.
    #[schemars(length(min = 1, max = 128))]
    pub header: String,
    /// Its values, in full; at most 200 of all headers together.
    #[schemars(length(min = 1, max = 200))]
    pub values: Vec<String>,
}

fn default_buckets() -> i32 {
    100
}
