//! The stack's own test: what it promises, with the smallest program that can be a voice agent.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::callers::{REVISION_HEADER, WsCalls};
use super::{Error, Image, Namespace, Part, Result, Seen, Stack, istio, wait_for};

const IMAGE: &str = "stack.test/responder:1";
const SOON: Duration = Duration::from_secs(30);

/// The responder: says its revision over HTTP and WebSocket, and counts calls at `/metrics`. The test target offers it as
/// an ignored test named `responder`, which the stack runs as the program of a pod.
pub async fn respond() -> Result<()> {
    let Ok(ip) = std::env::var("POD_IP") else { return Ok(()) }; // somebody runs all ignored tests
    let revision = std::env::var("REVISION").unwrap_or_default();
    let listener = TcpListener::bind((ip, 8080)).await?;
    println!("responder of revision {revision} listens");
    let calls = std::sync::atomic::AtomicU64::new(0);
    let (calls, revision) = (std::sync::Arc::new(calls), revision);
    loop {
        let (stream, _) = listener.accept().await?;
        let (calls, revision) = (calls.clone(), revision.clone());
        // A caller that goes away is no matter.
        tokio::spawn(async move { serve(stream, &revision, &calls).await });
    }
}

async fn serve(mut stream: TcpStream, revision: &str, calls: &std::sync::atomic::AtomicU64) -> Result<()> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut head = [0; 8192];
    let head = loop {
        let length = stream.peek(&mut head).await?;
        let text = String::from_utf8_lossy(&head[..length]);
        if length == 0 || text.contains("\r\n\r\n") {
            break text.into_owned();
        }
        tokio::task::yield_now().await;
    };
    if head.to_lowercase().contains("upgrade: websocket") {
        #[allow(clippy::result_large_err)] // the callback's type is the library's
        let say = |_: &Request, mut response: Response| {
            response.headers_mut().insert(REVISION_HEADER, revision.parse().expect("a header value"));
            Ok(response)
        };
        let opened = tokio_tungstenite::accept_hdr_async(stream, say).await;
        let mut socket = opened.map_err(|error| Error::other(error.to_string()))?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                break;
            }
        }
        return Ok(());
    }
    stream.read_exact(&mut vec![0; head.len()]).await?;
    let body = if head.starts_with("GET /metrics ") {
        format!("# TYPE responder_calls_total counter\nresponder_calls_total {}\n", calls.load(Relaxed))
    } else {
        calls.fetch_add(1, Relaxed);
        format!("{revision}\n")
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n{REVISION_HEADER}: {revision}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// Makes a ReplicaSet of responders and a Service for it; both are named by the revision.
async fn agent(stack: &Stack, ns: &Namespace, revision: &str, replicas: i32) -> Result<()> {
    let program = std::env::current_exe()?;
    let args = ["--ignored", "--exact", "responder", "--nocapture"].map(String::from).to_vec();
    stack.image_with(IMAGE, Image { program, args, env: Vec::new() });
    let labels = json!({"app": "agent", "voicerollout.dev/revision": revision});
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    ns.create_object::<ReplicaSet>(json!({
        "metadata": {"name": revision},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels, "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": [{
                "name": "agent", "image": IMAGE,
                "env": [{"name": "REVISION", "valueFrom": field("metadata.labels['voicerollout.dev/revision']")}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
            }]},
        }},
    }))
    .await?;
    ns.create_object::<Service>(json!({
        "metadata": {"name": revision},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }))
    .await?;
    Ok(())
}

/// The names of the pods that a Service's EndpointSlices hold as ready.
async fn endpoints(ns: &Namespace, service: &str) -> Result<Vec<String>> {
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = ns.api::<EndpointSlice>().list(&of).await?;
    let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
    let ready = endpoints.filter(|one| one.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
    Ok(ready.filter_map(|one| one.target_ref?.name).collect())
}

async fn wait_endpoints(ns: &Namespace, service: &str, count: usize) -> Result<Vec<String>> {
    wait_for(format!("{count} endpoints of {service}"), SOON, || async {
        let names = endpoints(ns, service).await?;
        Ok(if names.len() == count { Seen::Yes(names) } else { Seen::NotYet(format!("{names:?}")) })
    })
    .await
}

fn route(ns: &Namespace, weights: [u8; 2]) -> String {
    let route: Vec<_> = ["one", "two"]
        .iter()
        .zip(weights)
        .map(|(host, weight)| json!({"destination": {"host": host, "port": {"number": 80}}, "weight": weight}))
        .collect();
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "agent"},
        "spec": {"hosts": [ns.host()], "gateways": [istio::GATEWAY], "http": [{"name": "calls", "route": route}]},
    })
    .to_string()
}

/// Pods of a ReplicaSet get ready and into their EndpointSlices; one that is deleted is replaced; logs can be read.
pub async fn pods(stack: &Stack) -> Result<()> {
    let ns = stack.namespace("smoke-pods").await?;
    let start = Instant::now();
    agent(stack, &ns, "one", 2).await?;
    let names = wait_endpoints(&ns, "one", 2).await?;
    println!("2 pods in the EndpointSlice after {:?}", start.elapsed());

    let log = stack.kubectl(&["logs", "-n", &ns.name, &names[0], "--tail=5"]).await?;
    assert!(log.contains("responder of revision one listens"), "log: {log:?}");

    let start = Instant::now();
    ns.api::<Pod>().delete(&names[0], &DeleteParams::default()).await?;
    wait_for("the pod to be replaced", SOON, || async {
        let now = endpoints(&ns, "one").await?;
        let replaced = now.len() == 2 && !now.contains(&names[0]);
        let gone = ns.api::<Pod>().get_opt(&names[0]).await?.is_none();
        Ok(if replaced && gone { Seen::Yes(()) } else { Seen::NotYet(format!("{now:?}, gone: {gone}")) })
    })
    .await?;
    println!("pod replaced after {:?}", start.elapsed());

    stack.signal_pod(&ns.name, &names[1], "KILL");
    wait_for("the killed program to be started again", SOON, || async {
        let status = ns.api::<Pod>().get(&names[1]).await?.status.unwrap_or_default();
        let one = status.container_statuses.unwrap_or_default().remove(0);
        let back = one.restart_count == 1 && one.ready;
        Ok(if back { Seen::Yes(()) } else { Seen::NotYet(format!("{one:?}")) })
    })
    .await
}

/// Calls go by the weights of a VirtualService; changing them leaves open calls alone.
pub async fn traffic(stack: &Stack) -> Result<()> {
    let ns = stack.namespace("smoke-traffic").await?;
    agent(stack, &ns, "one", 1).await?;
    agent(stack, &ns, "two", 1).await?;
    wait_endpoints(&ns, "one", 1).await?;
    wait_endpoints(&ns, "two", 1).await?;
    ns.apply(&route(&ns, [50, 50])).await?;
    let caller = ns.caller("/");
    wait_for("both revisions to answer", SOON, || async {
        let answers = caller.calls(20).await;
        let both = answers.of("one") > 0 && answers.of("two") > 0 && answers.failed.is_empty();
        Ok(if both { Seen::Yes(()) } else { Seen::NotYet(format!("{answers:?}")) })
    })
    .await?;
    let answers = caller.calls(400).await;
    println!("400 calls at 50/50: {answers:?}");
    assert!(answers.failed.is_empty() && (120..=280).contains(&answers.of("two")), "{answers:?}");

    let calls = WsCalls::open(&ns.host(), "/", 20).await?;
    let start = Instant::now();
    ns.apply(&route(&ns, [100, 0])).await?;
    let patched = start.elapsed();
    wait_for("only the first revision to answer", SOON, || async {
        let answers = caller.calls(20).await;
        Ok(if answers.of("one") == 20 { Seen::Yes(()) } else { Seen::NotYet(format!("{answers:?}")) })
    })
    .await?;
    println!("traffic moved {:?} after the change (the change itself took {patched:?})", start.elapsed());
    assert_eq!(calls.report().open(), 20, "{:?}", calls.report());
    let report = calls.hang_up().await;
    println!("WebSocket calls: {report:?}");
    assert!(report.ended == 20 && report.cut.is_empty(), "{report:?}");
    Ok(())
}

/// Prometheus scrapes the pods, and comes back after it was stopped.
pub async fn metrics(stack: &Stack) -> Result<()> {
    let ns = stack.namespace("smoke-metrics").await?;
    let start = Instant::now();
    agent(stack, &ns, "one", 2).await?;
    let query = format!("sum by (revision) (responder_calls_total{{namespace=\"{}\"}})", ns.name);
    let scraped = || async {
        let result = stack.query(&query).await?;
        let found = result.iter().any(|one| one["metric"]["revision"] == "one");
        Ok(if found { Seen::Yes(()) } else { Seen::NotYet(format!("{result:?}")) })
    };
    wait_for("the pods' series", SOON, scraped).await?;
    println!("first samples {:?} after the ReplicaSet was made", start.elapsed());

    stack.part(Part::Prometheus).stop().await;
    assert!(stack.query(&query).await.is_err(), "Prometheus answers though it was stopped");
    stack.part(Part::Prometheus).start().await?;
    wait_for("the pods' series after the restart", SOON, scraped).await
}

/// A program that dies gets its pod out of the endpoints, and is started again.
pub async fn crash(stack: &Stack) -> Result<()> {
    let ns = stack.namespace("smoke-crash").await?;
    ns.create_object::<Pod>(json!({
        "metadata": {"name": "dies"},
        "spec": {"containers": [{"name": "agent", "image": "stack.test/sh:1", "command": ["sh", "-c", "echo bye; exit 3"]}]},
    }))
    .await?;
    stack.image("stack.test/sh:1", "/bin/sh");
    wait_for("two restarts", SOON, || async {
        let status = ns.api::<Pod>().get("dies").await?.status.unwrap_or_default();
        let seen = serde_json::to_string(&status.container_statuses).unwrap_or_default();
        let restarts = status.container_statuses.iter().flatten().map(|one| one.restart_count).sum::<i32>();
        let looping = restarts >= 2 && seen.contains("CrashLoopBackOff") && seen.contains("\"exitCode\":3");
        Ok(if looping { Seen::Yes(()) } else { Seen::NotYet(seen) })
    })
    .await?;
    let log = stack.kubectl(&["logs", "-n", &ns.name, "dies", "--previous"]).await?;
    assert_eq!(log, "bye\n");
    Ok(())
}

/// A deleted pod gets SIGTERM and its grace period, then SIGKILL; one that ends by itself is gone at once.
pub async fn grace(stack: &Stack) -> Result<()> {
    let ns = stack.namespace("smoke-grace").await?;
    stack.image("stack.test/sh:1", "/bin/sh");
    let wait = "echo waiting; while :; do sleep 0.05; done";
    for (name, trap, seconds) in [("polite", "exit 0", 60), ("stubborn", "", 2)] {
        ns.create_object::<Pod>(json!({
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": seconds, "containers": [{
                "name": "agent", "image": "stack.test/sh:1", "args": ["-c", format!("trap '{trap}' TERM; {wait}")],
            }]},
        }))
        .await?;
        wait_for(format!("{name} to run"), SOON, || async {
            let log = stack.kubectl(&["logs", "-n", &ns.name, name]).await?;
            Ok(if log == "waiting\n" { Seen::Yes(()) } else { Seen::NotYet(log) })
        })
        .await?;
        let start = Instant::now();
        ns.api::<Pod>().delete(name, &DeleteParams::default()).await?;
        wait_for(format!("{name} to be gone"), SOON, || async {
            let pod = ns.api::<Pod>().get_opt(name).await?;
            Ok(pod.map_or(Seen::Yes(()), |pod| Seen::NotYet(format!("{:?}", pod.status))))
        })
        .await?;
        println!("{name} pod gone after {:?}", start.elapsed());
        assert!(name == "polite" || start.elapsed() >= Duration::from_secs(2), "killed before its time");
    }
    Ok(())
}

/// A pod with a service account acts as it, with its rights and no others.
pub async fn service_account(stack: &Stack) -> Result<()> {
    let ns = stack.namespace("smoke-account").await?;
    let kubectl = stack.kubectl_path().display().to_string();
    ns.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: agent}}").await?;
    ns.create_object::<Pod>(json!({
        "metadata": {"name": "whoami"},
        "spec": {"serviceAccountName": "agent", "restartPolicy": "Never", "containers": [{
            "name": "agent", "image": "stack.test/kubectl:1", "args": ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"],
        }]},
    }))
    .await?;
    stack.image("stack.test/kubectl:1", kubectl);
    wait_for("the pod to succeed", SOON, || async {
        let pod = ns.api::<Pod>().get("whoami").await?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        Ok(if phase == "Succeeded" { Seen::Yes(()) } else { Seen::NotYet(format!("{phase} {:?}", pod.uid())) })
    })
    .await?;
    let log = stack.kubectl(&["logs", "-n", &ns.name, "whoami"]).await?;
    assert_eq!(log.trim(), format!("system:serviceaccount:{}:agent", ns.name));
    Ok(())
}

/// helm runs; the API server and istiod can be restarted under running pods.
pub async fn restarts(stack: &Stack) -> Result<()> {
    println!("{}", stack.helm(&["version", "--short"]).await?.trim());
    let ns = stack.namespace("smoke-restarts").await?;
    agent(stack, &ns, "one", 1).await?;
    let before = wait_endpoints(&ns, "one", 1).await?;
    for part in [Part::ApiServer, Part::Istiod] {
        let start = Instant::now();
        stack.part(part).stop().await;
        stack.part(part).start().await?;
        println!("{part:?} restarted in {:?}", start.elapsed());
    }
    assert_eq!(wait_endpoints(&ns, "one", 1).await?, before);
    ns.api::<ReplicaSet>().delete("one", &DeleteParams::background()).await?;
    let start = Instant::now();
    wait_for("the garbage collector to take the pod", Duration::from_secs(60), || async {
        let left = ns.api::<Pod>().list(&ListParams::default()).await?.items.len();
        Ok(if left == 0 { Seen::Yes(()) } else { Seen::NotYet(format!("{left} pods")) })
    })
    .await?;
    println!("pod collected after {:?}", start.elapsed());
    Ok(())
}
