//! Where a threshold's value comes from: providers as data.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, SecretKeyRef, duration_schema, seconds};
use super::web::{NamedPaths, SuitePaths, WebRun, values_schema};

pub(super) fn default_timeout() -> Duration {
    seconds(10)
}
pub(super) fn default_scrape() -> Duration {
    seconds(15)
}

/// Where a value comes from: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.prometheus) != has(self.web)").message("a provider is exactly one of prometheus, web"))]
pub struct Provider {
    /// A Prometheus instant query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusProvider>,
    /// An HTTP endpoint that answers with JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<WebProvider>,
}

/// A Prometheus instant query. `result` is the value of its one series, or a list when the condition indexes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusProvider {
    /// Base URL, without `{{args...}}` in scheme, host or port.
    #[schemars(length(min = 1, max = 2048))]
    pub address: String,
    /// PromQL; `{{args.NAME}}` inside quotes is escaped.
    #[schemars(length(min = 1, max = 8192))]
    pub query: String,
    /// How often the server scrapes the agents; the first measurement waits the longest window of the query plus this.
    #[serde(default = "default_scrape")]
    #[schemars(schema_with = "duration_schema")]
    pub scrape_interval: Duration,
    /// How the server is asked.
    #[serde(flatten)]
    pub access: Access,
    /// Limit of one request.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// An HTTP endpoint that answers with JSON: one request, or with `run` a start that is polled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.values) == has(self.result)").message("values and result belong together"))]
pub struct WebProvider {
    /// Request method.
    #[serde(default)]
    pub method: Method,
    /// URL; `{{args.NAME}}` is percent-encoded, and refused in scheme, host and port.
    #[schemars(length(min = 1, max = 4096))]
    pub url: String,
    /// Request body; `{{args.NAME}}` inside a JSON string is escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// JSONPath of the value, with or without braces: `{$.passRate}`.
    #[serde(default = "default_json_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub json_path: String,
    /// In place of `jsonPath`: JSONPaths by name. A path with `*`, `..`, a filter or a slice gives the list of what it
    /// finds, which may be empty; any other has to find one number, text or boolean.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "values_schema")]
    pub values: NamedPaths,
    /// CEL over `values` that gives the value: `double(pass) / double(pass + fail)`. 0/0 is no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub result: Option<String>,
    /// What the answer says about its suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<SuitePaths>,
    /// A run that goes on after its start has been answered; left out: the answer holds the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<WebRun>,
    /// How the server is asked.
    #[serde(flatten)]
    pub access: Access,
    /// Limit of one request; without `run` an eval suite may take long.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

fn default_json_path() -> String {
    "{$}".into()
}

/// What a server wants to see before it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Extra request headers, such as `X-Scope-OrgID`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
    /// Credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// TLS settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// HTTP request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// POST
    Post,
    /// PUT
    Put,
}

/// A request header: exactly one of `value` and `secretKeyRef`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.secretKeyRef)").message("a header has exactly one of value, secretKeyRef"))]
pub struct Header {
    /// Header name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Literal value; `{{args.NAME}}` is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Value from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// Credentials: exactly one of `bearer` and `basic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.bearer) != has(self.basic)").message("auth has exactly one of bearer, basic"))]
pub struct Auth {
    /// `Authorization: Bearer` with a token from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretKeyRef>,
    /// `Authorization: Basic` with user and password from Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
}

/// User and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// User name.
    pub username: SecretKeyRef,
    /// Password.
    pub password: SecretKeyRef,
}

/// TLS settings of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// PEM certificates to trust beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKeyRef>,
    /// Do not check the certificate. For tests only.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}
