//! A real control plane for tests and demos, started by the test process itself: etcd, kube-apiserver,
//! kube-controller-manager, istiod, an Envoy as gateway, Prometheus, and one node that runs pods as local processes.
//!
//! `tests/stack/components.sh` puts the programs on the machine, `tests/stack/in-netns.sh CMD` runs a command where the
//! pods' addresses exist. One stack serves all tests of a process; each test takes a namespace of its own:
//!
//! ```ignore
//! #[test]
//! fn something() {
//!     stack::run(async |stack| {
//!         let ns = stack.namespace("something").await?;
//!         stack.image("registry.test/agent:1", "target/debug/agent");
//!         ns.apply("...").await?;
//!         Ok(())
//!     });
//! }
//! ```
//!
//! Logs of everything stay in [`Stack::dir`] until the same test target runs again.
#![allow(dead_code, unused_imports)] // every test target uses a part of it

pub mod callers;
pub mod cluster;
pub mod container;
pub mod error;
pub mod istio;
pub mod kubelet;
pub mod kubelet_http;
pub mod ns;
pub mod paths;
pub mod pod;
pub mod pod_env;
pub mod probe;
pub mod process;
pub mod prometheus;
pub mod smoke;
pub mod wait;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Instant;

use kube::Client;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};

pub use callers::{Answers, CallReport, HttpCaller, Traffic, WsCalls};
pub use error::{Error, Result};
pub use kubelet::Image;
pub use ns::Namespace;
pub use wait::{Seen, wait_for, wait_until};

use cluster::{Cluster, install_crds};
use istio::Istio;
use kubelet::{Kubelet, PodSignal};
use paths::Paths;
use process::Component;
use prometheus::Prometheus;

/// The runtime of the stack and of the tests that use it: connections and background tasks must outlive a single test.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

/// Tests that leave the stack's parts alone hold it for reading, the others for writing.
static IN_USE: RwLock<()> = RwLock::const_new(());

/// Runs a test on the shared stack, which the first test starts, beside others. Panics with the error's text if one
/// comes out.
pub fn run(test: impl AsyncFnOnce(&'static Stack) -> Result<()>) {
    finish(runtime().block_on(async {
        let _shared = IN_USE.read().await;
        test(Stack::start().await?).await
    }));
}

/// Like [`run`], for a test that stops parts of the stack: no other test runs beside it.
pub fn run_alone(test: impl AsyncFnOnce(&'static Stack) -> Result<()>) {
    finish(runtime().block_on(async {
        let _alone = IN_USE.write().await;
        test(Stack::start().await?).await
    }));
}

fn finish(outcome: Result<()>) {
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The parts of the stack that a test may stop and start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// etcd
    Etcd,
    /// kube-apiserver
    ApiServer,
    /// kube-controller-manager
    ControllerManager,
    /// istiod
    Istiod,
    /// The gateway's Envoy.
    Envoy,
    /// Prometheus
    Prometheus,
}

/// The running stack.
pub struct Stack {
    dir: PathBuf,
    paths: Paths,
    cluster: Cluster,
    istio: Istio,
    prometheus: Prometheus,
    kubelet: Kubelet,
    client: Client,
}

impl Stack {
    /// The stack of this process; started by the first who asks. If it cannot start, everybody gets the same answer.
    pub async fn start() -> Result<&'static Self> {
        static STACK: OnceCell<std::result::Result<Stack, String>> = OnceCell::const_new();
        let start = async || {
            // On the shared runtime, whoever asks.
            let started = runtime().spawn(Self::start_all()).await;
            started.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        STACK.get_or_init(start).await.as_ref().map_err(|error| Error::other(error.clone()))
    }

    async fn start_all() -> Result<Self> {
        let begin = Instant::now();
        let paths = Paths::find()?;
        let dir = fresh_dir()?;
        let cluster = Cluster::start(&paths, &dir).await?;
        let client = cluster.client().await?;
        // All CRDs are there before the controllers start: the garbage collector looks for new kinds only every 30 s.
        futures::future::try_join(Istio::install_crds(&paths, &client), own_crds(&client)).await?;
        let pods = dir.join("pods");
        let (url, ca) = (cluster.url.clone(), cluster.ca.clone());
        let kubeconfig = move |user: &str| cluster::kubeconfig_text(&url, &ca, user);
        let kubelet = Kubelet::start(client.clone(), pods, cluster.ca.clone(), kubeconfig);
        let istio = Istio::start(&paths, &cluster, &client, &dir);
        let (_, istio, kubelet) = futures::future::try_join3(cluster.start_controllers(), istio, kubelet).await?;
        let prometheus = Prometheus::start(&paths, client.clone(), &istio.envoy_admin, &dir).await?;
        eprintln!("test stack ready after {:.1?}; logs in {}", begin.elapsed(), dir.display());
        Ok(Self { dir, paths, cluster, istio, prometheus, kubelet, client })
    }

    /// A namespace of its own for a test; its name begins with `prefix`.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        Namespace::create(self.client(), prefix).await
    }

    /// A client of the user that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig of the user that may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.cluster.kubeconfig
    }

    /// A kubeconfig for another user, given as YAML: `tokenFile: /path` or `token: TEXT`.
    pub fn kubeconfig_for(&self, user: &str) -> String {
        cluster::kubeconfig_text(&self.cluster.url, &self.cluster.ca, user)
    }

    /// The folder with all logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The API server's audit log: a JSON object a line for every write, without bodies.
    pub fn audit_log(&self) -> &Path {
        &self.cluster.audit_log
    }

    /// `address:port` at which the gateway takes calls.
    pub fn gateway_addr(&self) -> String {
        istio::gateway_addr()
    }

    /// The address of the gateway's own figures (`/stats/prometheus`, `/clusters`).
    pub fn envoy_admin(&self) -> &str {
        &self.istio.envoy_admin
    }

    /// The address of Prometheus.
    pub fn prometheus_url(&self) -> &str {
        &self.prometheus.url
    }

    /// Alerts of the chart's rules that fire.
    pub async fn alerts(&self) -> Result<Vec<serde_json::Value>> {
        self.prometheus.alerts().await
    }

    /// Asks Prometheus; the answer is `data.result`.
    pub async fn query(&self, query: &str) -> Result<Vec<serde_json::Value>> {
        self.prometheus.query(query).await
    }

    /// Says which program an image name stands for.
    pub fn image(&self, name: &str, program: impl Into<PathBuf>) {
        self.image_with(name, Image { program: program.into(), args: Vec::new(), env: Vec::new() });
    }

    /// Says which program, with which arguments and environment, an image name stands for.
    pub fn image_with(&self, name: &str, image: Image) {
        self.kubelet.image(name, image);
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT` ...) to the processes of a pod, as a crash or a hang would look.
    pub fn signal_pod(&self, ns: &str, pod: &str, signal: &str) {
        let [namespace, pod, signal] = [ns, pod, signal].map(str::to_owned);
        self.kubelet.signal(PodSignal { namespace, pod, signal });
    }

    /// A part that can be stopped, killed and started again with the same address and data.
    pub fn part(&self, part: Part) -> &Component {
        match part {
            Part::Etcd => &self.cluster.etcd,
            Part::ApiServer => &self.cluster.apiserver,
            Part::ControllerManager => &self.cluster.controller_manager,
            Part::Istiod => &self.istio.istiod,
            Part::Envoy => &self.istio.envoy,
            Part::Prometheus => &self.prometheus.component,
        }
    }

    /// Runs kubectl as the user that may do everything; what it prints.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.tool(&self.paths.kubectl, args, None).await
    }

    /// Runs helm as the user that may do everything; what it prints.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        self.tool(&self.paths.helm, args, None).await
    }

    /// Applies manifests in a test's namespace, with kubectl, as a user would.
    pub async fn kubectl_apply(&self, ns: &Namespace, manifests: &str) -> Result<String> {
        self.tool(&self.paths.kubectl, &["apply", "-n", &ns.name, "-f", "-"], Some(manifests)).await
    }

    /// What to put before a command so that it runs where the stack is, for people who look at it from outside
    /// (`in-netns.sh` says it).
    pub fn enter(&self) -> Option<String> {
        std::env::var("VOICEROLLOUT_ENTER").ok()
    }

    /// Where kubectl is, for tests that run it on their own.
    pub fn kubectl_path(&self) -> &Path {
        &self.paths.kubectl
    }

    async fn tool(&self, program: &Path, args: &[&str], input: Option<&str>) -> Result<String> {
        let home = self.dir.join("home");
        std::fs::create_dir_all(&home)?;
        let mut command = process::command(program);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", home);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command).await?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(Error::Command {
            command: format!("{} {}", program.display(), args.join(" ")),
            status: output.status.to_string(),
            output: text + &String::from_utf8_lossy(&output.stderr),
        })
    }
}

/// A folder for this run, in place of that of the last run of the same test target.
fn fresh_dir() -> Result<PathBuf> {
    let base = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let name = std::env::current_exe()?.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.rsplit_once('-').map_or(name.as_str(), |(target, _)| target).to_owned();
    let dir = base.join(format!("stack-{name}"));
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::create_dir_all(dir.join("pods"))?;
    Ok(dir)
}

/// The project's own CRDs, as in `crds/`.
async fn own_crds(client: &Client) -> Result<()> {
    let mut yaml = String::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/crds"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            yaml += &format!("---\n{}\n", std::fs::read_to_string(path)?);
        }
    }
    install_crds(client, &yaml).await
}
