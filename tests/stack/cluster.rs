//! The Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager, on loopback and free ports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde::Deserialize;

use super::paths::Paths;
use super::process::{Component, Ready, free_port};
use super::wait::{Seen, wait_for, wait_until};
use super::{Error, Result};

/// The token of the user that may do everything.
const ADMIN_TOKEN: &str = "admin-of-the-test-stack";

/// What the API server writes down: every write, in one JSON line, so that tests can count them.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, resources: [{group: coordination.k8s.io}]}
- {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}
- {level: None}
";

/// A running control plane.
pub struct Cluster {
    /// etcd
    pub etcd: Component,
    /// kube-apiserver
    pub apiserver: Component,
    /// kube-controller-manager
    pub controller_manager: Component,
    /// The API server's address.
    pub url: String,
    /// The certificates that the API server is checked with.
    pub ca: PathBuf,
    /// A kubeconfig of the user that may do everything.
    pub kubeconfig: PathBuf,
    /// The audit log: one JSON object a line for each write, without bodies.
    pub audit_log: PathBuf,
}

impl Cluster {
    /// Starts etcd and the API server, and waits until they are ready. The controller-manager is started by
    /// [`Cluster::start_controllers`], after the CRDs are there: its garbage collector takes 30 s and more to notice new kinds.
    pub async fn start(paths: &Paths, dir: &Path) -> Result<Self> {
        let (etcd_port, peer_port, api_port, kcm_port) = (free_port(), free_port(), free_port(), free_port());
        let url = format!("https://127.0.0.1:{api_port}");
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let certs = dir.join("certs");
        let ca = certs.join("apiserver.crt");
        let kubeconfig = dir.join("admin.kubeconfig");
        let audit_log = dir.join("audit.log");

        let key = dir.join("sa.key");
        let public_key = dir.join("sa.pub");
        let pair = rcgen::KeyPair::generate().map_err(|error| Error::other(format!("service account key: {error}")))?;
        std::fs::write(&key, pair.serialize_pem())?;
        std::fs::write(&public_key, pair.public_key_pem())?;
        let tokens = dir.join("tokens.csv");
        std::fs::write(&tokens, format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"))?;
        let policy = dir.join("audit-policy.yaml");
        std::fs::write(&policy, AUDIT_POLICY)?;
        std::fs::write(&kubeconfig, kubeconfig_text(&url, &ca, &format!("token: {ADMIN_TOKEN}")))?;
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());

        let ready = Ready { url: format!("{etcd_url}/health"), token: None, deadline: Duration::from_secs(60) };
        let etcd = Component::new("etcd", &paths.etcd, dir, ready)
            .arg(file("data-dir", &dir.join("etcd")))
            .args(["--unsafe-no-fsync", "--log-level=warn"])
            .args([format!("--listen-client-urls={etcd_url}"), format!("--advertise-client-urls={etcd_url}")])
            .args([format!("--listen-peer-urls={peer_url}"), format!("--initial-advertise-peer-urls={peer_url}")])
            .arg(format!("--initial-cluster=default={peer_url}"));

        let admin = Some(ADMIN_TOKEN.to_owned());
        let ready = Ready { url: format!("{url}/readyz"), token: admin, deadline: Duration::from_secs(120) };
        let apiserver = Component::new("kube-apiserver", &paths.apiserver, dir, ready)
            .args([format!("--etcd-servers={etcd_url}"), format!("--secure-port={api_port}")])
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .args(["--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC", "--allow-privileged=true"])
            .args([file("cert-dir", &certs), file("token-auth-file", &tokens)])
            .args([file("service-account-key-file", &public_key), file("service-account-signing-key-file", &key)])
            .args([format!("--service-account-issuer={url}"), "--disable-admission-plugins=ServiceAccount".into()])
            .args([file("audit-policy-file", &policy), file("audit-log-path", &audit_log)]);

        let ready = Ready { url: format!("https://127.0.0.1:{kcm_port}/healthz"), token: None, deadline: Duration::from_secs(60) };
        let controller_manager = Component::new("kube-controller-manager", &paths.controller_manager, dir, ready)
            .args(["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"].map(|flag| file(flag, &kubeconfig)))
            .args(["--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400"])
            .args([format!("--secure-port={kcm_port}"), file("cert-dir", &dir.join("kcm-certs"))])
            .args([file("service-account-private-key-file", &key), file("root-ca-file", &ca)]);

        etcd.launch().await?;
        apiserver.launch().await?;
        etcd.ready().await?;
        apiserver.ready().await?;
        Ok(Self { etcd, apiserver, controller_manager, url, ca, kubeconfig, audit_log })
    }

    /// Starts the controller-manager.
    pub async fn start_controllers(&self) -> Result<()> {
        self.controller_manager.start().await
    }

    /// A client of the user that may do everything.
    pub async fn client(&self) -> Result<Client> {
        client_from(&self.kubeconfig).await
    }
}

/// A client from a kubeconfig file.
pub async fn client_from(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A kubeconfig for the API server whose user is given as YAML, such as `tokenFile: /path`.
pub fn kubeconfig_text(url: &str, ca: &Path, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: stack
clusters:
- name: stack
  cluster: {{server: \"{url}\", certificate-authority: \"{}\"}}
users:
- name: stack
  user: {{{user}}}
contexts:
- name: stack
  context: {{cluster: stack, user: stack, namespace: default}}
",
        ca.display()
    )
}

/// Applies the CRDs of YAML text, all at once, and waits until they are served. Other kinds in the text are an error.
pub async fn install_crds(client: &Client, yaml: &str) -> Result<()> {
    let mut crds = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = serde_yaml::Value::deserialize(document).map_err(|error| Error::other(format!("CRDs: {error}")))?;
        if !value.is_null() {
            let crd: CustomResourceDefinition = serde_yaml::from_value(value).map_err(|error| Error::other(format!("CRDs: {error}")))?;
            crds.push(crd);
        }
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("test-stack").force();
    let applied = crds.iter().map(|crd| {
        let (api, params) = (&api, &params);
        async move { api.patch(&crd.name_any(), params, &Patch::Apply(crd)).await }
    });
    futures::future::try_join_all(applied).await?;
    let names: Vec<String> = crds.iter().map(ResourceExt::name_any).collect();
    wait_for("the CRDs to be established", Duration::from_secs(60), || async {
        let waiting: Vec<String> = api
            .list(&Default::default())
            .await?
            .into_iter()
            .filter(|crd| names.contains(&crd.name_any()) && !established(crd))
            .map(|crd| crd.name_any())
            .collect();
        Ok(if waiting.is_empty() { Seen::Yes(()) } else { Seen::NotYet(format!("not yet: {}", waiting.join(", "))) })
    })
    .await
}

fn established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
}

/// Waits until a namespace is there (the API server makes its own ones a moment after it is ready).
pub async fn wait_namespace(client: &Client, name: &str) -> Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    wait_until(format!("namespace {name}"), Duration::from_secs(30), || async { api.get(name).await.is_ok() }).await
}
