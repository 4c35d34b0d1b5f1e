//! Readiness probes and preStop hooks.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;

use super::process;

/// How often a container that was never ready is probed; after that the probe's own `periodSeconds` holds.
const EAGER: Duration = Duration::from_millis(100);

/// Probes a container for as long as it runs, and tells of every change. Without a readiness probe a container is ready
/// once its first TCP port accepts, or at once if it names no port.
pub async fn watch(container: &Container, ip: &str, tell: UnboundedSender<bool>) {
    let http = client();
    let given = container.readiness_probe.as_ref();
    let number = |value: Option<i32>, default: u32| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default);
    let probe = given.cloned().unwrap_or_default();
    let period = Duration::from_secs(number(probe.period_seconds, 10).max(1).into());
    let timeout = Duration::from_secs(number(probe.timeout_seconds, 1).max(1).into());
    let failures_needed = number(probe.failure_threshold, 3).max(1);
    tokio::time::sleep(Duration::from_secs(number(probe.initial_delay_seconds, 0).into())).await;

    let mut ready = false;
    let mut failures = 0;
    loop {
        let answer = tokio::time::timeout(timeout, once(&http, given, container, ip)).await.unwrap_or(false);
        failures = if answer { 0 } else { failures + 1 };
        let now = answer || (ready && failures < failures_needed);
        if now != ready {
            ready = now;
            if tell.send(ready).is_err() {
                return;
            }
        }
        if ready && given.is_none() {
            return;
        }
        tokio::time::sleep(if ready { period } else { EAGER }).await;
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .pool_max_idle_per_host(0)
        .build()
        .expect("an HTTP client")
}

async fn once(http: &reqwest::Client, probe: Option<&Probe>, container: &Container, ip: &str) -> bool {
    if let Some(get) = probe.and_then(|probe| probe.http_get.as_ref()) {
        return http_get(http, get, container, ip).await;
    }
    if let Some(port) = probe.and_then(|probe| probe.tcp_socket.as_ref()) {
        return accepts(ip, port_number(&port.port, container)).await;
    }
    if probe.is_some() {
        return true; // exec and gRPC probes are not played here
    }
    let ports = container.ports.iter().flatten();
    match ports.filter(|port| is_tcp(port)).map(|port| port.container_port).next() {
        Some(port) => accepts(ip, u16::try_from(port).ok()).await,
        None => true,
    }
}

fn is_tcp(port: &ContainerPort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

fn port_number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name))?.container_port,
    };
    u16::try_from(number).ok()
}

async fn accepts(ip: &str, port: Option<u16>) -> bool {
    match port {
        Some(port) => TcpStream::connect((ip, port)).await.is_ok(),
        None => false,
    }
}

async fn http_get(http: &reqwest::Client, get: &HTTPGetAction, container: &Container, ip: &str) -> bool {
    let Some(port) = port_number(&get.port, container) else { return false };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = get.path.as_deref().unwrap_or("/").trim_start_matches('/');
    let mut request = http.get(format!("{scheme}://{ip}:{port}/{path}"));
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    request.send().await.is_ok_and(|response| (200..400).contains(&response.status().as_u16()))
}

/// Runs a preStop hook to its end. As in a cluster, its failure changes nothing.
pub async fn run_hook(hook: &LifecycleHandler, container: &Container, ip: &str, dir: &Path) {
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
    }
    if let Some(get) = &hook.http_get {
        http_get(&client(), get, container, ip).await;
    }
    if let Some([program, args @ ..]) = hook.exec.as_ref().and_then(|exec| exec.command.as_deref()) {
        let mut command = process::command(Path::new(program));
        command.args(args).current_dir(dir).envs(HashMap::from([("POD_IP", ip)]));
        if let Ok(mut child) = process::spawn(command).await {
            let _ = child.wait().await;
        }
    }
}
