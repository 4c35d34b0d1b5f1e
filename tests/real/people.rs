//! People: users with rights of their own, their kubectl with the plugin, and commands as plain objects.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use voicerollout::api::VoiceRolloutAction;
use voicerollout::api::action::{ActionState, VoiceRolloutActionStatus};

use crate::agent::{Agent, NAME, PATIENCE};
use crate::env::{CLUSTER_NAME, program};
use crate::stack::{Error, Result, Seen, process, wait_for};

/// A person with a name and rights in one namespace.
pub struct Person {
    /// The user name, as the API server knows it.
    pub user: String,
    namespace: String,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    path: String,
}

/// What a command of a person printed.
#[derive(Debug)]
pub struct Printed {
    /// It ended with exit code 0.
    pub ok: bool,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Both streams.
    pub text: String,
}

impl Person {
    /// Makes a person who has the chart's roles `roles` (`view`, `command`, `edit`) in the agent's namespace.
    pub async fn new(agent: &Agent, name: &str, roles: &[&str]) -> Result<Self> {
        let (ns, stack) = (&agent.ns, agent.world.stack);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        ns.apply(&account.to_string()).await?;
        for role in roles {
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": format!("{name}-{role}")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("{CLUSTER_NAME}-{role}")},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ns.name}],
            });
            ns.apply(&binding.to_string()).await?;
        }
        let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
        let answer = ns.api::<ServiceAccount>().create_token_request(name, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        let dir = stack.dir().join("people").join(format!("{}-{name}", ns.name));
        std::fs::create_dir_all(&dir)?;
        let kubeconfig = dir.join("kubeconfig");
        std::fs::write(&kubeconfig, stack.kubeconfig_for(&format!("token: {token}")))?;
        std::os::unix::fs::symlink(program("voicerollout")?, dir.join("kubectl-voicerollout"))?;
        Ok(Self {
            user: format!("system:serviceaccount:{}:{name}", ns.name),
            namespace: ns.name.clone(),
            kubectl: stack.kubectl_path().to_owned(),
            kubeconfig,
            path: format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default()),
        })
    }

    /// Runs kubectl as this person in the namespace.
    pub async fn kubectl(&self, args: &[&str], input: Option<&str>) -> Result<Printed> {
        self.run(&[args, &["-n", &self.namespace]].concat(), input).await
    }

    /// Runs kubectl as this person, for what takes no namespace.
    pub async fn without_cluster(&self, args: &[&str]) -> Result<Printed> {
        self.run(args, None).await
    }

    /// Puts a script on this person's PATH.
    pub fn install(&self, name: &str, script: &str) -> Result<()> {
        let path = self.kubeconfig.with_file_name(name);
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(())
    }

    /// Starts kubectl as this person in the namespace, and gives what it prints line by line; it is killed when that is
    /// dropped.
    pub async fn lines(&self, args: &[&str]) -> Result<Lines> {
        let mut command = self.command(&[args, &["-n", &self.namespace]].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = process::spawn(command).await?;
        let stdout = child.stdout.take().ok_or_else(|| Error::other("no standard output"))?;
        Ok(Lines { lines: BufReader::new(stdout).lines(), _child: child })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = process::command(&self.kubectl);
        command.args(args);
        command.env("KUBECONFIG", &self.kubeconfig).env("PATH", &self.path).env("HOME", self.kubeconfig.with_file_name("home"));
        command
    }

    async fn run(&self, args: &[&str], input: Option<&str>) -> Result<Printed> {
        let mut command = self.command(args);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command).await?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok(Printed { ok: output.status.success(), code: output.status.code(), text })
    }

    /// `kubectl voicerollout VERB agent`
    pub async fn says(&self, verb: &[&str]) -> Result<Printed> {
        self.kubectl(&[&["voicerollout"], verb, &[NAME]].concat(), None).await
    }
}

/// What a command prints, line by line.
pub struct Lines {
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Lines {
    /// The next line with `part` in it.
    pub async fn until(&mut self, part: &str, patience: Duration) -> Result<String> {
        let found = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.contains(part) {
                    return Ok(line);
                }
            }
            Err(Error::other(format!("it ended without {part:?}")))
        };
        tokio::time::timeout(patience, found).await.map_err(|_| Error::other(format!("no {part:?} within {patience:?}")))?
    }
}

/// Gives a command as the user who may do everything, as a plain object; what the operator made of it.
pub async fn command(agent: &Agent, verb: &str) -> Result<(ActionState, String)> {
    let revision = agent.status().await?.canary_revision.unwrap_or_default();
    let object = action(&format!("{NAME}-"), verb, &revision, Some("admin"));
    let action: VoiceRolloutAction = agent.ns.create_object(object).await?;
    let status = answer(agent, &action.name_any()).await?;
    let state = status.state.ok_or_else(|| Error::other("no state"))?;
    Ok((state, status.message))
}

/// A VoiceRolloutAction.
pub fn action(prefix: &str, verb: &str, revision: &str, by: Option<&str>) -> serde_json::Value {
    let mut object = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction", "metadata": {"generateName": prefix},
        "spec": {"rollout": NAME, "revision": revision, "verb": verb, "reason": "a test says so"},
    });
    if let Some(by) = by {
        object["spec"]["requestedBy"] = json!(by);
    }
    object
}

/// Waits for the operator's answer to a command.
pub async fn answer(agent: &Agent, name: &str) -> Result<VoiceRolloutActionStatus> {
    wait_for(format!("an answer to {name}"), PATIENCE, || async {
        let status = agent.ns.api::<VoiceRolloutAction>().get(name).await?.status.unwrap_or_default();
        Ok(if status.state.is_some() { Seen::Yes(status) } else { Seen::NotYet("none".into()) })
    })
    .await
}
