//! Child processes: each logs to a file, is known by its process id, and dies with the test process whatever happens.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::{Mutex, oneshot};

use super::wait::{Seen, wait_for};
use super::{Error, Result, runtime};

/// A port of 127.0.0.1 that nobody listens on. Taken from below the range of outgoing connections, each one once in a
/// process, so that inside a network namespace of the test's own nobody can come between asking and listening.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A command that gets SIGKILL from the kernel when the thread that starts it ends (see [`spawn`]).
pub fn command(program: &Path) -> Command {
    static SETPRIV: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("setpriv")).find(|file| file.is_file())
    });
    let mut command = match &*SETPRIV {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Starts a command from a thread that lives as long as the process: the children's parent-death signal is about the
/// thread that made them, and test threads and pool threads end early.
pub async fn spawn(command: Command) -> std::io::Result<Child> {
    type Job = (Command, oneshot::Sender<std::io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            let _guard = runtime().enter();
            for (mut command, answer) in jobs {
                // Nobody may be waiting any more; then the child is dropped, which kills it.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = oneshot::channel();
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    SPAWNER.send((command, answer)).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

/// Sends a signal to a child that has not been waited for yet (so that its id cannot be somebody else's).
pub async fn signal(child: &Child, signal: &str) {
    if let Some(pid) = child.id() {
        // The shell has `kill` built in. It fails only if the process ended meanwhile.
        let _ = Command::new("sh").arg("-c").arg(format!("kill -s {signal} {pid}")).stderr(Stdio::null()).status().await;
    }
}

/// Ends a child: SIGTERM, after `grace` SIGKILL. Returns when it is gone.
pub async fn terminate(child: &mut Child, grace: Duration) {
    signal(child, "TERM").await;
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// The last `lines` lines of a file, indented; for messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| error.to_string());
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// How a [`Component`] shows that it is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The address that answers 200.
    pub url: String,
    /// A bearer token to send.
    pub token: Option<String>,
    /// How long it may take.
    pub deadline: Duration,
}

/// One long-running program of the stack, which can be stopped and started again with the same arguments.
pub struct Component {
    /// Its name, as in messages and in the name of its log file.
    pub name: &'static str,
    /// Its log, of all its lives.
    pub log: PathBuf,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    ready: Ready,
    child: Mutex<Option<Child>>,
    http: reqwest::Client,
}

impl Component {
    /// Describes a component; nothing runs yet.
    pub fn new(name: &'static str, program: &Path, dir: &Path, ready: Ready) -> Self {
        Self {
            name,
            log: dir.join(format!("{name}.log")),
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            ready,
            child: Mutex::new(None),
            // The certificates are made by the servers themselves; this client only asks whether they are there.
            http: reqwest::Client::builder()
                .no_proxy()
                .tls_danger_accept_invalid_certs(true)
                .timeout(Duration::from_secs(5))
                .build()
                .expect("an HTTP client"),
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets environment variables.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, unless it runs, and does not wait until it is ready.
    pub async fn launch(&self) -> Result<()> {
        let mut child = self.child.lock().await;
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = command(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone()?).stderr(log);
        *child = Some(spawn(command).await?);
        Ok(())
    }

    /// Waits until it is ready; fails at once if it has ended.
    pub async fn ready(&self) -> Result<()> {
        let look = || async {
            let mut child = self.child.lock().await;
            let ended = match child.as_mut() {
                Some(child) => child.try_wait()?.map(|status| format!("it ended: {status}")),
                None => Some("it was not started".to_owned()),
            };
            drop(child);
            if let Some(ended) = ended {
                return Ok(Seen::Yes(Err(ended)));
            }
            let mut request = self.http.get(&self.ready.url);
            if let Some(token) = &self.ready.token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await?;
            Ok(if response.status().is_success() {
                Seen::Yes(Ok(()))
            } else {
                Seen::NotYet(format!("{} {}", response.status(), response.text().await?))
            })
        };
        let reason = match wait_for(format!("{} to answer 200", self.ready.url), self.ready.deadline, look).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ended)) => ended,
            Err(error) => error.to_string(),
        };
        Err(Error::NotReady { name: self.name.into(), reason, log: self.log.clone(), tail: tail(&self.log, 25) })
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> Result<()> {
        self.launch().await?;
        self.ready().await
    }

    /// Stops it: SIGTERM, after 3 seconds SIGKILL (the API server waits long for its watches). Returns when it is gone.
    pub async fn stop(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            terminate(&mut child, Duration::from_secs(3)).await;
        }
    }

    /// Kills it, as a crash would. Returns when it is gone.
    pub async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            let _ = child.kill().await;
        }
    }

    /// Its process id, while it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }
}
