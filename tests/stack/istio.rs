//! Istio's control plane and one Envoy as its gateway. Every test uses host names of its own on the same gateway.

use std::path::Path;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::net::TcpStream;

use super::cluster::{Cluster, install_crds};
use super::paths::Paths;
use super::process::{Component, Ready, free_port, tail};
use super::wait::wait_until;
use super::{Error, Result};

/// The namespace of istiod, of the gateway's Envoy and of the `Gateway` object.
pub const NAMESPACE: &str = "istio-system";
/// What a VirtualService names under `gateways`.
pub const GATEWAY: &str = "istio-system/stack-gateway";
/// The address that the gateway listens on.
pub const GATEWAY_IP: &str = "10.244.255.1";
/// Its port.
pub const GATEWAY_PORT: u16 = 8080;

/// Istio's components.
pub struct Istio {
    /// istiod
    pub istiod: Component,
    /// The gateway's Envoy.
    pub envoy: Component,
    /// Where Envoy's admin interface listens (`/stats/prometheus`, `/clusters`, `/config_dump`).
    pub envoy_admin: String,
}

impl Istio {
    /// Installs the CRDs; before [`Istio::start`], and before the controller-manager starts.
    pub async fn install_crds(paths: &Paths, client: &Client) -> Result<()> {
        install_crds(client, &std::fs::read_to_string(&paths.istio_crds)?).await
    }

    /// Starts istiod and Envoy, makes the `Gateway`, and waits until Envoy listens for it.
    pub async fn start(paths: &Paths, cluster: &Cluster, client: &Client, dir: &Path) -> Result<Self> {
        make_namespace(client).await?;
        let (grpc, http, monitoring, admin) = (free_port(), free_port(), free_port(), free_port());
        let mesh = dir.join("mesh.yaml");
        std::fs::write(&mesh, "enableAutoMtls: false\naccessLogFile: \"\"\ndefaultConfig: {}\n")?;
        let ready = Ready { url: format!("http://127.0.0.1:{http}/ready"), token: None, deadline: Duration::from_secs(60) };
        let istiod = Component::new("istiod", &paths.istiod, dir, ready)
            .args(["discovery", "--httpsAddr=", "--secureGRPCAddr=", "--ctrlz_port=0"])
            .args([format!("--grpcAddr=127.0.0.1:{grpc}"), format!("--httpAddr=127.0.0.1:{http}")])
            .args([format!("--monitoringAddr=127.0.0.1:{monitoring}"), format!("--meshConfig={}", mesh.display())])
            .arg(format!("--kubeconfig={}", cluster.kubeconfig.display()))
            .env("PILOT_ENABLE_METADATA_EXCHANGE", "false")
            .env("PILOT_ENABLE_ALPN_FILTER", "false")
            .env("PILOT_ENABLE_GATEWAY_API", "false")
            .env("ENABLE_CA_SERVER", "false")
            .env("INJECTION_WEBHOOK_CONFIG_NAME", "")
            .env("VALIDATION_WEBHOOK_CONFIG_NAME", "")
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_NAME", "istiod-0");

        let bootstrap = dir.join("envoy.json");
        std::fs::write(&bootstrap, bootstrap_text(grpc, admin))?;
        let envoy_admin = format!("http://127.0.0.1:{admin}");
        let ready = Ready { url: format!("{envoy_admin}/ready"), token: None, deadline: Duration::from_secs(60) };
        let envoy = Component::new("envoy", &paths.envoy, dir, ready).arg("--config-path").arg(bootstrap).args([
            "--log-level",
            "warning",
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
        ]);

        apply_gateway(client).await?;
        istiod.start().await?;
        envoy.start().await?;
        let istio = Self { istiod, envoy, envoy_admin };
        istio.wait_listening().await?;
        Ok(istio)
    }

    /// Waits until the gateway accepts connections.
    pub async fn wait_listening(&self) -> Result<()> {
        let listens = || async { TcpStream::connect((GATEWAY_IP, GATEWAY_PORT)).await.is_ok() };
        let waited = wait_until(format!("Envoy to listen on {}", gateway_addr()), Duration::from_secs(30), listens).await;
        waited.map_err(|error| Error::NotReady {
            name: "the gateway".into(),
            reason: error.to_string(),
            log: self.istiod.log.clone(),
            tail: tail(&self.istiod.log, 15) + &tail(&self.envoy.log, 15),
        })
    }
}

/// `address:port` of the gateway.
pub fn gateway_addr() -> String {
    format!("{GATEWAY_IP}:{GATEWAY_PORT}")
}

async fn make_namespace(client: &Client) -> Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.patch(NAMESPACE, &PatchParams::apply("test-stack"), &Patch::Apply(namespace)).await?;
    Ok(())
}

async fn apply_gateway(client: &Client) -> Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", "Gateway"));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &kind);
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": "stack-gateway"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{
                "port": {"number": GATEWAY_PORT, "name": "http", "protocol": "HTTP"},
                "bind": GATEWAY_IP,
                "hosts": ["*"],
            }],
        },
    });
    api.patch("stack-gateway", &PatchParams::apply("test-stack"), &Patch::Apply(gateway)).await?;
    Ok(())
}

fn bootstrap_text(grpc: u16, admin: u16) -> String {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "node": {
            "id": format!("router~{GATEWAY_IP}~gw-0.{NAMESPACE}~{NAMESPACE}.svc.cluster.local"),
            "cluster": "gateway",
            "metadata": {
                "CLUSTER_ID": "Kubernetes", "NAMESPACE": NAMESPACE, "ISTIO_VERSION": "1.31.0",
                "LABELS": {"istio": "ingressgateway"}, "INSTANCE_IPS": GATEWAY_IP,
            },
        },
        "admin": {"address": address(admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "istiod"}}],
            },
            "cds_config": ads, "lds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "istiod", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "istiod", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(grpc)}}]},
            ]},
        }]},
    })
    .to_string()
}
