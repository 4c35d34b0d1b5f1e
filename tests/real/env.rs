//! What all real tests and the demo share: the stack, the operator installed with helm from the chart, the sample eval
//! harness and the stub of a judge. Started once in a process, by the first who asks.

pub mod collector;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use collector::Collector;

use crate::stack::{self, Error, Result, Seen, Stack, wait_for};

/// Namespace of the operator.
pub const OPERATOR: &str = "voicerollout-system";
/// Name of the helm release, and of most objects in it.
pub const RELEASE: &str = "voicerollout";
/// Prefix of the chart's cluster-wide objects.
pub const CLUSTER_NAME: &str = "voicerollout-system-voicerollout";
/// User name of the operator.
pub const OPERATOR_USER: &str = "system:serviceaccount:voicerollout-system:voicerollout";
/// Image of the sample agent; every tag of [`TAGS`] is the same program.
pub const AGENT_IMAGE: &str = "registry.test/voice-agent";
/// Tags of the sample agent's image.
pub const TAGS: [&str; 6] = ["v1", "v2", "v3", "v4", "v5", "v6"];
/// The key that the stub of the judge wants.
pub const JUDGE_KEY: &str = "key-of-the-stub";
/// Values of the chart: two replicas, short leases, and the addresses of this stack allowed for gates.
const VALUES: &str = r#"
image: {repository: registry.test/voicerollout, tag: dev}
replicas: 2
listen: "$(POD_IP):8080"
logLevel: info,voicerollout=debug
podAnnotations: {prometheus.io/scrape: "true", prometheus.io/port: "8080"}
leaderElection: {leaseDuration: 10s, renewPeriod: 1s}
dashboard: {enabled: true, actions: true, listen: "$(POD_IP):8090"}
egress: {allow: [10.244.0.0/16, 127.0.0.0/8]}
extraEnv:
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
"#;
const TOOLS: &str = "tools";
const SOON: Duration = Duration::from_secs(60);

/// The stack with everything on it.
pub struct World {
    /// The stack.
    pub stack: &'static Stack,
    /// Base URL of the eval harness.
    pub evals: String,
    /// Base URL of the judge's stub.
    pub judge: String,
    /// Takes the operator's traces.
    pub collector: Collector,
}

impl World {
    /// The world of this process.
    pub async fn get(stack: &'static Stack) -> Result<&'static Self> {
        static WORLD: OnceCell<std::result::Result<World, String>> = OnceCell::const_new();
        let start = async || {
            // On the shared runtime, whoever asks.
            let started = stack::runtime().spawn(Self::start(stack)).await;
            started.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        WORLD.get_or_init(start).await.as_ref().map_err(|error| Error::other(error.clone()))
    }

    async fn start(stack: &'static Stack) -> Result<Self> {
        stack.image("registry.test/voicerollout:dev", program("voicerollout")?);
        for tag in TAGS {
            stack.image(&format!("{AGENT_IMAGE}:{tag}"), program("examples/sample-agent")?);
        }
        stack.image("registry.test/eval-harness:1", program("examples/eval-harness")?);
        stack.image("registry.test/judge-stub:1", program("examples/judge-stub")?);
        namespace(stack, TOOLS).await?;
        let (collector, traces) = Collector::start().await?;
        let no_env = json!([]);
        let evals = tool(stack, "eval-harness", 8090, &no_env);
        let judge = json!([{"name": "JUDGE_STUB_LISTEN", "value": "$(POD_IP):8099"}, {"name": "JUDGE_STUB_KEY", "value": JUDGE_KEY}]);
        let judge = tool(stack, "judge-stub", 8099, &judge);
        let (_, evals, judge) = futures::future::try_join3(install(stack, &traces), evals, judge).await?;
        Ok(Self { stack, evals, judge, collector })
    }

    /// What the judge says to one model from now on; see the stub's `Behaviour`.
    pub async fn set_judge(&self, model: &str, behaviour: &str) -> Result<()> {
        let body = json!({"model": model, "behaviour": behaviour}).to_string();
        let request = reqwest::Client::new().post(format!("{}/control", self.judge)).body(body);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// How often the judge was asked as one model.
    pub async fn judge_requests(&self, model: &str) -> Result<u64> {
        Ok(self.judge_seen().await?["requestsByModel"][model].as_u64().unwrap_or(0))
    }

    /// The newest request to the judge as one model.
    pub async fn judge_question(&self, model: &str) -> Result<String> {
        Ok(self.judge_seen().await?["lastByModel"][model].to_string())
    }

    async fn judge_seen(&self) -> Result<Value> {
        Ok(reqwest::get(format!("{}/control", self.judge)).await?.json().await?)
    }

    /// The operator's pods that are there.
    pub async fn operators(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.stack.client(), OPERATOR);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// The pod that leads, as its Lease says.
    pub async fn leader(&self) -> Result<String> {
        let api: Api<Lease> = Api::namespaced(self.stack.client(), OPERATOR);
        let holder = api.get(RELEASE).await?.spec.and_then(|spec| spec.holder_identity);
        holder.filter(|name| !name.is_empty()).ok_or_else(|| Error::other("nobody leads"))
    }

    /// SIGKILL for all operators at once: the next one to write has nothing but what the API server holds.
    pub async fn kill_operators(&self) -> Result<()> {
        for pod in self.operators().await? {
            self.stack.signal_pod(OPERATOR, &pod.name_any(), "KILL");
        }
        Ok(())
    }

    /// The end of the logs of both operators, for messages.
    pub async fn operator_logs(&self) -> String {
        let mut text = String::new();
        for pod in self.operators().await.unwrap_or_default() {
            let args = ["logs", "-n", OPERATOR, &pod.name_any(), "--tail=15"];
            text += &format!("--- {}\n{}", pod.name_any(), self.stack.kubectl(&args).await.unwrap_or_else(|error| error.to_string()));
        }
        text
    }
}

/// A program of this project, built by cargo beside the program that runs: `target/debug/<name>`.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::other(format!("{} is missing: run `cargo build --bins --examples`", path.display())))
}

/// Installs the chart as a user would. The stack has applied the CRDs already, so helm takes them over.
async fn install(stack: &Stack, traces: &str) -> Result<()> {
    let values = stack.dir().join("values.yaml");
    std::fs::write(&values, VALUES)?;
    let (values, chart) = (values.display().to_string(), concat!(env!("CARGO_MANIFEST_DIR"), "/charts/voicerollout"));
    let place = ["install", RELEASE, chart, "--namespace", OPERATOR, "--create-namespace", "--values", &values];
    let traces = format!("openTelemetry.endpoint={traces}");
    stack.helm(&[place.as_slice(), &["--take-ownership", "--set", &traces]].concat()).await?;
    let api: Api<Deployment> = Api::namespaced(stack.client(), OPERATOR);
    let up = wait_for("both operators to be ready", SOON, || async {
        let status = api.get(RELEASE).await?.status.unwrap_or_default();
        Ok(if status.ready_replicas == Some(2) { Seen::Yes(()) } else { Seen::NotYet(format!("{status:?}")) })
    });
    if let Err(error) = up.await {
        let world = World { stack: Stack::start().await?, evals: String::new(), judge: String::new(), collector: Collector::default() };
        return Err(Error::other(format!("{error}\n{}", world.operator_logs().await)));
    }
    Ok(())
}

async fn namespace(stack: &Stack, name: &str) -> Result<()> {
    let api: Api<Namespace> = Api::all(stack.client());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    api.patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await?;
    Ok(())
}

/// Runs a program as a pod; returns its base URL once it is ready.
async fn tool(stack: &Stack, name: &str, port: u16, env: &Value) -> Result<String> {
    let api: Api<Pod> = Api::namespaced(stack.client(), TOOLS);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{
            "name": name, "image": format!("registry.test/{name}:1"), "env": env,
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        }]},
    });
    api.patch(name, &PatchParams::apply("test"), &Patch::Apply(pod)).await?;
    wait_for(format!("{name} to be ready"), SOON, || async {
        let status = api.get(name).await?.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        Ok(match status.pod_ip.clone() {
            Some(ip) if ready => Seen::Yes(format!("http://{ip}:{port}")),
            _ => Seen::NotYet(format!("{status:?}")),
        })
    })
    .await
}
