//! One container of a pod: a local process, started again when it dies, probed for readiness, ended with its pod.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::pod::{PodRun, seconds};
use super::process::{self, signal};
use super::{pod_env, probe};

/// How long a container that died waits before it is started again, by the number of its deaths; then the last one.
/// Shorter than a real kubelet's 10 s and up, so that tests see a crash loop soon.
const BACKOFF: [Duration; 4] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
/// How long to wait before looking again for an image, a Secret or a ConfigMap that is not there.
const RETRY: Duration = Duration::from_millis(500);

/// How a container's process ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    since: Timestamp,
    at: Timestamp,
}

/// How a container is, as its status says it.
#[derive(Debug, Clone)]
pub struct State {
    /// Whether its readiness probe says yes.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// Since when its process runs, if it runs.
    pub since: Option<Timestamp>,
    /// How it ended for good, or before it was started again.
    pub ended: Option<Ended>,
    waiting: Option<(&'static str, String)>,
}

impl State {
    /// Not started yet.
    pub fn creating() -> Self {
        let waiting = Some(("ContainerCreating", String::new()));
        Self { ready: false, restarts: 0, since: None, ended: None, waiting }
    }

    /// The `containerStatuses` entry.
    pub fn json(&self, container: &Container) -> Value {
        let terminated = self.ended.as_ref().map(|ended| {
            json!({"terminated": {
                "exitCode": ended.code, "reason": if ended.code == 0 { "Completed" } else { "Error" },
                "startedAt": seconds(ended.since), "finishedAt": seconds(ended.at),
            }})
        });
        let none = json!({});
        let (state, last) = match (&self.waiting, self.since, terminated) {
            (Some((reason, message)), _, ended) => (json!({"waiting": {"reason": reason, "message": message}}), ended.unwrap_or(none)),
            (None, Some(since), ended) => (json!({"running": {"startedAt": seconds(since)}}), ended.unwrap_or(none)),
            (None, None, ended) => (ended.unwrap_or_else(|| none.clone()), none),
        };
        json!({
            "name": container.name, "image": container.image, "imageID": container.image,
            "containerID": format!("process://{}-{}", container.name, self.restarts),
            "ready": self.ready, "started": self.since.is_some(), "restartCount": self.restarts,
            "state": state, "lastState": last,
        })
    }
}

type News = mpsc::UnboundedSender<(usize, State)>;
/// When set, the container has to end, at that time at the latest.
type Stop = watch::Receiver<Option<Instant>>;

/// Runs the `index`th container of the pod until it has ended for good or is told to stop.
pub async fn run(pod: Arc<PodRun>, index: usize, mut stop: Stop, news: News) {
    let container = &pod.containers()[index];
    let mut state = State::creating();
    // The pod's task may have ended before this one: nobody reads the news then.
    let tell = |state: &State| drop(news.send((index, state.clone())));
    loop {
        let child = match start(&pod, container, state.restarts).await {
            Ok(child) => child,
            Err((reason, message)) => {
                state.waiting = Some((reason, message));
                tell(&state);
                if pause(&mut stop, RETRY).await {
                    return;
                }
                continue;
            }
        };
        let since = Timestamp::now();
        state.waiting = None;
        state.since = Some(since);
        tell(&state);

        let (status, stopping) = attend(&pod, container, child, &mut stop, |ready| {
            state.ready = ready;
            tell(&state);
        })
        .await;
        state.ready = false;
        state.since = None;
        let code = exit_code(status);
        state.ended = Some(Ended { code, since, at: Timestamp::now() });
        let again = match pod.restart_policy() {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        };
        if stopping || !again {
            tell(&state);
            return;
        }
        let delay = BACKOFF[(state.restarts as usize).min(BACKOFF.len() - 1)];
        state.waiting = Some(("CrashLoopBackOff", format!("exit code {code}; started again after {delay:?}")));
        tell(&state);
        if pause(&mut stop, delay).await {
            state.waiting = None;
            tell(&state);
            return;
        }
        state.restarts += 1;
    }
}

/// Returns when the container is told to stop, or its pod's task is gone.
async fn told(stop: &mut Stop) {
    let _ = stop.wait_for(Option::is_some).await;
}

/// Waits; true if told to stop meanwhile.
async fn pause(stop: &mut Stop, time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        () = told(stop) => true,
    }
}

/// Starts the process, or says what it waits for.
async fn start(pod: &PodRun, container: &Container, restarts: u32) -> Result<Child, (&'static str, String)> {
    let name = container.image.as_deref().unwrap_or_default();
    let image = pod.shared.images.read().get(name).cloned();
    let image = image.ok_or_else(|| ("ErrImagePull", format!("no image {name} was given to the test stack")))?;
    let config = |message| ("CreateContainerConfigError", message);
    std::fs::create_dir_all(&pod.dir).map_err(|error| config(error.to_string()))?;
    let env = pod_env::resolve(pod, container, &image).await.map_err(config)?;

    let expand = |texts: &Option<Vec<String>>| -> Vec<String> { texts.iter().flatten().map(|text| pod_env::expand(text, &env)).collect() };
    let mut words = expand(&container.command);
    let program = if words.is_empty() { image.program.clone() } else { words.remove(0).into() };
    let mut command = process::command(&program);
    if container.command.as_ref().is_none_or(Vec::is_empty) {
        command.args(&image.args);
    }
    command.args(words).args(expand(&container.args));
    command.env_clear().envs(env).current_dir(&pod.dir).stdout(Stdio::piped()).stderr(Stdio::piped());

    let failed = |error: std::io::Error| ("RunContainerError", format!("{}: {error}", program.display()));
    let log = File::create(log_file(&pod.dir, &container.name, restarts)).map_err(failed)?;
    let log = Arc::new(Mutex::new(log));
    let mut child = process::spawn(command).await.map_err(failed)?;
    if let Some(out) = child.stdout.take() {
        tokio::spawn(pump(out, log.clone()));
    }
    if let Some(err) = child.stderr.take() {
        tokio::spawn(pump(err, log));
    }
    Ok(child)
}

/// The log file of one life of a container: each line begins with its time.
pub fn log_file(dir: &Path, container: &str, restarts: u32) -> std::path::PathBuf {
    dir.join(format!("{container}_{restarts}.log"))
}

async fn pump(from: impl AsyncRead + Unpin, log: Arc<Mutex<File>>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = from.read_until(b'\n', &mut line).await {
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        let mut entry = format!("{:.9} ", Timestamp::now()).into_bytes();
        entry.append(&mut line);
        let _ = log.lock().write_all(&entry);
    }
}

/// Stays with the process until it has ended, by itself or because it was told to (then true).
async fn attend(
    pod: &PodRun,
    container: &Container,
    mut child: Child,
    stop: &mut Stop,
    mut on_ready: impl FnMut(bool),
) -> (std::io::Result<ExitStatus>, bool) {
    let (sender, mut readiness) = mpsc::unbounded_channel();
    let probe = probe::watch(container, &pod.ip, sender);
    tokio::pin!(probe);
    let mut probing = true;
    let mut signals = pod.shared.signals.subscribe();
    loop {
        tokio::select! {
            status = child.wait() => return (status, false),
            () = told(stop) => break,
            Some(ready) = readiness.recv() => on_ready(ready),
            Ok(sent) = signals.recv() => if sent.namespace == pod.namespace && sent.pod == pod.name {
                signal(&child, &sent.signal).await;
            },
            () = &mut probe, if probing => probing = false,
        }
    }
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let deadline = async {
        loop {
            let end = stop.borrow_and_update().unwrap_or_else(Instant::now);
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                // An error says that the pod was taken away at once; the time for the end stays.
                Ok(()) = stop.changed() => {}
            }
        }
    };
    tokio::pin!(deadline);
    let asked = async {
        if let Some(hook) = hook {
            probe::run_hook(hook, container, &pod.ip, &pod.dir).await;
        }
        signal(&child, "TERM").await;
    };
    let in_time = tokio::select! {
        () = asked => true,
        () = &mut deadline => false,
    };
    if in_time {
        tokio::select! {
            status = child.wait() => return (status, true),
            () = &mut deadline => {}
        }
    }
    let _ = child.start_kill();
    (child.wait().await, true)
}

fn exit_code(status: std::io::Result<ExitStatus>) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(_) => 255,
    }
}
