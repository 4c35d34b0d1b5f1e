//! What is measured on: etcd, kube-apiserver and kube-controller-manager as processes, a node without programs, the
//! gates' server, and the operator's release binary with a ServiceAccount's token.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::answers::Gates;
use crate::node;
use crate::stack::cluster::{Cluster, install_crds, kubeconfig_text};
use crate::stack::istio::Istio;
use crate::stack::paths::Paths;
use crate::stack::process::{Component, Ready, free_port};
use crate::stack::{Error, Result};

/// Namespace of the operator.
const OPERATOR: &str = "voicerollout";
/// User name of the operator, in the audit log.
pub const USER: &str = "system:serviceaccount:voicerollout:operator";

/// Everything that runs.
pub struct Plane {
    /// A client of the user that may do everything.
    pub client: Client,
    /// The gates' server.
    pub gates: Gates,
    /// The API server's audit log.
    pub audit_log: PathBuf,
    program: PathBuf,
    cluster: Cluster,
    dir: PathBuf,
    _tasks: JoinSet<()>,
}

/// The operator's binary, built beside this program.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or_else(|| Error::other("this program is in no folder"))?;
    let program = target.join("voicerollout");
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::other(format!("{} is missing: cargo build --release --bin voicerollout", program.display())))
}

/// Memory of a process, in MiB.
pub struct Memory {
    /// Resident now.
    pub resident: f64,
    /// Of it what is not a page of a file.
    pub anonymous: f64,
    /// The most that ever was resident.
    pub peak: f64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resident, anonymous, peak } = self;
        write!(f, "{resident:.1} MiB resident, {anonymous:.1} of it not of files; at most {peak:.1} MiB")
    }
}

/// A running operator.
pub struct Operator {
    process: Component,
    /// Time from its start to its first 200 on `/readyz`, looked at every 50 ms.
    pub ready_after: Duration,
    listen: String,
}

impl Plane {
    /// Starts all but the operator.
    pub async fn start() -> Result<Self> {
        let paths = Paths::find()?;
        let program = program()?;
        let dir = program.with_file_name("stack-bench");
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&dir)?,
        }
        let cluster = Cluster::start(&paths, &dir).await?;
        let client = cluster.client().await?;
        futures::future::try_join(Istio::install_crds(&paths, &client), own_crds(&client)).await?;
        cluster.start_controllers().await?;
        let mut tasks = JoinSet::new();
        node::start(client.clone(), &mut tasks).await?;
        let gates = Gates::start().await?;
        let plane = Self { client, gates, audit_log: cluster.audit_log.clone(), program, cluster, dir, _tasks: tasks };
        plane.apply(&account()).await?;
        Ok(plane)
    }

    /// Applies objects, server-side.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let object: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| Error::other(error.to_string()))?;
            let types = object.types.clone().unwrap_or_default();
            let kind = GroupVersionKind::try_from(&types).map_err(|error| Error::other(error.to_string()))?;
            let resource = ApiResource::from_gvk(&kind);
            let api: Api<DynamicObject> = match object.namespace() {
                Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            api.patch(&object.name_any(), &PatchParams::apply("bench").force(), &Patch::Apply(&object)).await?;
        }
        Ok(())
    }

    /// Runs a verb of the plugin once, with the rights of an operator that was started before; the time from the start of the
    /// program to its end.
    pub async fn verb(&self, words: &[&str]) -> Result<Duration> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(words).env("KUBECONFIG", self.dir.join("operator.kubeconfig"));
        let begin = Instant::now();
        let output = command.output().await?;
        let took = begin.elapsed();
        let failed = || Error::other(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)));
        if output.status.success() { Ok(took) } else { Err(failed()) }
    }

    /// Starts an operator and waits until it is ready.
    pub async fn operator(&self) -> Result<Operator> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), OPERATOR);
        let spec = TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let token = accounts.create_token_request("operator", &PostParams::default(), &request).await?;
        let token = token.status.and_then(|s| s.token).unwrap_or_default();
        let kubeconfig = self.dir.join("operator.kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_text(&self.cluster.url, &self.cluster.ca, &format!("token: \"{token}\"")))?;
        let listen = format!("127.0.0.1:{}", free_port());
        let ready = Ready { url: format!("http://{listen}/readyz"), token: None, deadline: Duration::from_secs(300) };
        let process = Component::new("operator", &self.program, &self.dir, ready)
            .args(["run", "--namespace", OPERATOR, "--egress-allow", "127.0.0.0/8", "--listen", &listen])
            .env("KUBECONFIG", &kubeconfig.display().to_string());
        let begin = Instant::now();
        process.start().await?;
        Ok(Operator { process, ready_after: begin.elapsed(), listen })
    }
}

impl Operator {
    /// Its memory now.
    pub async fn memory(&self) -> Result<Memory> {
        let pid = self.process.pid().await.ok_or_else(|| Error::other("the operator has ended"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
        };
        Ok(Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:"), peak: field("VmHWM:") })
    }

    /// Requests so far that have ended, watches and the Lease left out, by verb and resource; from its own `/metrics`.
    pub async fn requests(&self) -> Result<Vec<(String, u64)>> {
        let text = reqwest::get(format!("http://{}/metrics", self.listen)).await?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with("voicerollout_api_requests_total{"));
        let others = lines.filter(|line| !line.contains("\"watch\"") && !line.contains("leases"));
        Ok(others.filter_map(|line| line.rsplit_once(' ').map(|(name, n)| (name.into(), n.parse().unwrap_or(0)))).collect())
    }

    /// Stops it with SIGTERM.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}

fn account() -> Vec<Value> {
    let subject = json!({"kind": "ServiceAccount", "name": "operator", "namespace": OPERATOR});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": OPERATOR}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench-operator"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [subject],
        }),
    ]
}

async fn own_crds(client: &Client) -> Result<()> {
    let mut yaml = String::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/crds"))? {
        yaml += &format!("---\n{}\n", std::fs::read_to_string(entry?.path())?);
    }
    install_crds(client, &yaml).await
}
