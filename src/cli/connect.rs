//! From kubeconfig, context and namespace to a client.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::args::Connection;
use super::error::{CliError, chain};

/// Connects as kubectl would, and says in which namespace to work.
///
/// # Errors
/// No usable kubeconfig, or a context that does not exist in it.
pub async fn connect(connection: &Connection) -> Result<(Client, String), CliError> {
    let mut config = config(connection).await?;
    if let Some(namespace) = &connection.namespace {
        config.default_namespace.clone_from(namespace);
    }
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|e| CliError::Connect { what: "set up the connection".into(), message: chain(&e) })?;
    Ok((client, namespace))
}

async fn config(connection: &Connection) -> Result<Config, CliError> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..Default::default() };
    if let Some(path) = &connection.kubeconfig {
        let what = format!("read the kubeconfig {}", path.display());
        let fail = |e: &dyn std::error::Error| CliError::Connect { what: what.clone(), message: chain(e) };
        let file = Kubeconfig::read_from(path).map_err(|e| fail(&e))?;
        return Config::from_custom_kubeconfig(file, &options).await.map_err(|e| fail(&e));
    }
    let what = "find a cluster (KUBECONFIG, ~/.kube/config, the account of the pod)".to_owned();
    if connection.context.is_some() {
        return Config::from_kubeconfig(&options).await.map_err(|e| CliError::Connect { what, message: chain(&e) });
    }
    Config::infer().await.map_err(|e| CliError::Connect { what, message: chain(&e) })
}
