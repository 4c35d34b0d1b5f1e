//! Callers: HTTP requests and WebSocket calls through the gateway, counted by the revision that answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::istio::gateway_addr;
use super::{Error, Result};

/// The header in which an agent says its revision: of every HTTP answer, and of the answer that opens a WebSocket.
pub const REVISION_HEADER: &str = "x-voice-revision";
/// How long an answer may take before the caller counts it as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a WebSocket caller makes sure that the other side is still there.
const PING: Duration = Duration::from_millis(200);

/// What HTTP callers got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Answers with status 200, by revision (empty where none was said).
    pub ok: BTreeMap<String, u64>,
    /// Everything else, by what it was: a status, or an error.
    pub failed: BTreeMap<String, u64>,
}

impl Answers {
    /// How many calls there were.
    pub fn total(&self) -> u64 {
        self.ok.values().chain(self.failed.values()).sum()
    }

    /// How many good answers a revision gave.
    pub fn of(&self, revision: &str) -> u64 {
        self.ok.get(revision).copied().unwrap_or(0)
    }
}

/// Calls a host of the gateway over HTTP.
#[derive(Clone)]
pub struct HttpCaller {
    http: reqwest::Client,
    host: String,
    url: String,
    headers: Vec<(String, String)>,
}

impl HttpCaller {
    /// Calls `path` of `host`.
    pub fn new(host: &str, path: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("an HTTP client");
        Self { http, host: host.to_owned(), url: format!("http://{}{path}", gateway_addr()), headers: Vec::new() }
    }

    /// The same caller, who sends a header with each call.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// One call: the revision that answered, or what came instead.
    pub async fn call(&self) -> std::result::Result<String, String> {
        self.answer().await.map(|(revision, _)| revision)
    }

    /// One call: the revision that answered and what it said, or what came instead.
    pub async fn answer(&self) -> std::result::Result<(String, String), String> {
        let request = self.http.get(&self.url).header("host", &self.host);
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().await;
        let response = response.map_err(|error| format!("{error:?}"))?;
        let status = response.status();
        let revision = response.headers().get(REVISION_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let said = response.text().await.map_err(|error| format!("{error:?}"))?;
        if status.is_success() { Ok((revision.unwrap_or_default(), said)) } else { Err(status.to_string()) }
    }

    /// Exactly `count` calls, up to 16 at a time.
    pub async fn calls(&self, count: usize) -> Answers {
        let answers = futures::stream::iter(0..count).map(|_| self.call()).buffer_unordered(16);
        answers.fold(Answers::default(), async |answers, answer| note(answers, answer)).await
    }

    /// Calls at a steady rate, in the background, until the returned traffic is stopped or dropped.
    pub fn traffic(&self, per_second: u32) -> Traffic {
        let answers = Arc::new(Mutex::new(Answers::default()));
        let (caller, noted) = (self.clone(), answers.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let room = Arc::new(Semaphore::new(256));
            let mut calls = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                let (caller, noted) = (caller.clone(), noted.clone());
                calls.spawn(async move {
                    let answer = caller.call().await;
                    let mut answers = noted.lock();
                    *answers = note(std::mem::take(&mut answers), answer);
                    drop(permit);
                });
                while calls.try_join_next().is_some() {}
            }
        });
        Traffic { answers, _tasks: tasks }
    }
}

fn note(mut answers: Answers, answer: std::result::Result<String, String>) -> Answers {
    match answer {
        Ok(revision) => *answers.ok.entry(revision).or_default() += 1,
        Err(what) => *answers.failed.entry(what).or_default() += 1,
    }
    answers
}

/// Calls that go on in the background; dropping it ends them.
pub struct Traffic {
    answers: Arc<Mutex<Answers>>,
    _tasks: JoinSet<()>,
}

impl Traffic {
    /// What came so far.
    pub fn so_far(&self) -> Answers {
        self.answers.lock().clone()
    }

    /// What came since the last time this was asked.
    pub fn take(&self) -> Answers {
        std::mem::take(&mut self.answers.lock())
    }
}

/// What became of WebSocket calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Calls that were opened, by the revision that answered.
    pub started: BTreeMap<String, u64>,
    /// Calls that we ended.
    pub ended: u64,
    /// Calls that ended without us: cut, closed by the other side, or silent for 10 s; with the reason.
    pub cut: Vec<String>,
}

impl CallReport {
    /// How many calls are still open.
    pub fn open(&self) -> u64 {
        self.started.values().sum::<u64>() - self.ended - self.cut.len() as u64
    }
}

/// WebSocket calls that are held open in the background. Dropping them cuts them from our side.
pub struct WsCalls {
    report: Arc<Mutex<CallReport>>,
    hang_up: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl WsCalls {
    /// Opens `count` calls to `path` of `host`, and returns when all are open; fails if one is refused.
    pub async fn open(host: &str, path: &str, count: usize) -> Result<Self> {
        let mut calls = Self { report: Arc::default(), hang_up: watch::channel(false).0, tasks: JoinSet::new() };
        calls.open_more(host, path, count).await?;
        Ok(calls)
    }

    /// Opens more calls, counted with the others.
    pub async fn open_more(&mut self, host: &str, path: &str, count: usize) -> Result<()> {
        for _ in 0..count {
            let stream = TcpStream::connect(gateway_addr()).await?;
            let opening = tokio_tungstenite::client_async(format!("ws://{host}{path}"), stream);
            let failed = |error: String| Error::other(format!("a WebSocket call to {host}{path} was refused: {error}"));
            let opened = tokio::time::timeout(PATIENCE, opening).await.map_err(|_| failed("no answer".into()))?;
            let (socket, response) = opened.map_err(|error| failed(error.to_string()))?;
            let revision = response.headers().get(REVISION_HEADER).and_then(|value| value.to_str().ok());
            let revision = revision.unwrap_or_default().to_owned();
            *self.report.lock().started.entry(revision.clone()).or_default() += 1;
            let (report, hang_up) = (self.report.clone(), self.hang_up.subscribe());
            self.tasks.spawn(async move {
                match talk(socket, hang_up).await {
                    Ok(()) => report.lock().ended += 1,
                    Err(reason) => report.lock().cut.push(format!("by {revision}: {reason}")),
                }
            });
        }
        Ok(())
    }

    /// What became of the calls so far.
    pub fn report(&self) -> CallReport {
        self.report.lock().clone()
    }

    /// Ends all calls, as callers do, and says what became of them.
    pub async fn hang_up(mut self) -> CallReport {
        self.hang_up.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.report.lock().clone()
    }
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// Holds one call until it is to be hung up; pings, and wants each ping answered. What the agent says is not looked at.
async fn talk(mut socket: Socket, mut hang_up: watch::Receiver<bool>) -> std::result::Result<(), String> {
    let mut ticks = tokio::time::interval(PING);
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::select! {
            true = async { hang_up.wait_for(|now| *now).await.is_ok() } => {
                let _ = socket.close(None).await;
                return Ok(());
            }
            _ = ticks.tick() => {
                if heard.elapsed() > PATIENCE {
                    return Err(format!("silent for {:?}", heard.elapsed()));
                }
                socket.send(Message::Ping(Default::default())).await.map_err(|error| error.to_string())?;
            }
            message = socket.next() => match message {
                Some(Ok(Message::Close(frame))) => return Err(format!("closed by the other side: {frame:?}")),
                Some(Ok(_)) => heard = tokio::time::Instant::now(),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("end of the connection".into()),
            },
        }
    }
}
