//! A stub of a job dispatcher such as LiveKit's: workers connect and say that they are there, and each call goes to one of
//! those that are not full, whichever. It knows nothing of rooms, media or load. What became of each call is counted here,
//! at the callers' end.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::agent::PATIENCE;
use crate::stack::{CallReport, Error, Result, Seen, wait_for};

/// The stub, while it runs.
pub struct Dispatcher {
    /// Where workers find it.
    pub address: SocketAddr,
    hall: Arc<Mutex<Hall>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Hall {
    workers: BTreeMap<u64, Worker>,
    /// Calls that are open: the worker that has each.
    open: BTreeMap<u64, u64>,
    offered: HashMap<u64, oneshot::Sender<bool>>,
    report: CallReport,
    count: u64,
}

struct Worker {
    revision: String,
    pod: String,
    full: bool,
    say: mpsc::UnboundedSender<Value>,
}

impl Dispatcher {
    /// Starts it.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let hall = Arc::new(Mutex::new(Hall::default()));
        let mut tasks = JoinSet::new();
        let shared = hall.clone();
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(session(stream, shared.clone()));
                while sessions.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, hall, _tasks: tasks })
    }

    /// Workers of a revision that take calls.
    pub fn free(&self, revision: &str) -> usize {
        self.hall.lock().workers.values().filter(|w| !w.full && w.revision == revision).count()
    }

    /// Waits until so many workers of a revision take calls.
    pub async fn workers(&self, revision: &str, count: usize) -> Result<()> {
        wait_for(format!("{count} workers of {revision} to be there"), PATIENCE, || async {
            let free = self.free(revision);
            Ok(if free == count { Seen::Yes(()) } else { Seen::NotYet(format!("{free} are")) })
        })
        .await
    }

    /// A call: its number, and the revision of the worker that took it.
    pub async fn call(&self) -> Result<(u64, String)> {
        loop {
            let (job, revision, taken) = {
                let mut hall = self.hall.lock();
                let free: Vec<u64> = hall.workers.iter().filter(|(_, w)| !w.full).map(|(id, _)| *id).collect();
                let id = fastrand::choice(free).ok_or_else(|| Error::other("no worker takes the call"))?;
                hall.count += 1;
                let (job, (answer, taken)) = (hall.count, oneshot::channel());
                hall.offered.insert(job, answer);
                hall.open.insert(job, id);
                let worker = &hall.workers[&id];
                let _ = worker.say.send(json!({"job": job}));
                (job, worker.revision.clone(), taken)
            };
            // It became full, or went, in the meantime: another one is asked, and the caller has not noticed.
            if taken.await.unwrap_or(false) {
                return Ok((job, revision));
            }
        }
    }

    /// Calls that are opened and stay open.
    pub async fn open_more(&self, count: usize) -> Result<BTreeMap<String, u64>> {
        let mut by_revision = BTreeMap::new();
        for _ in 0..count {
            *by_revision.entry(self.call().await?.1).or_default() += 1;
        }
        Ok(by_revision)
    }

    /// Calls that begin and end one after the other: how many each revision took.
    pub async fn short_calls(&self, count: u32) -> Result<BTreeMap<String, u64>> {
        let mut by_revision = BTreeMap::new();
        for _ in 0..count {
            let (job, revision) = self.call().await?;
            *by_revision.entry(revision).or_default() += 1;
            self.hang_up(job);
        }
        Ok(by_revision)
    }

    fn hang_up(&self, job: u64) {
        let hall = self.hall.lock();
        if let Some(worker) = hall.open.get(&job).and_then(|id| hall.workers.get(id)) {
            let _ = worker.say.send(json!({"end": job}));
        }
    }

    /// All callers hang up; waits until every worker has said that it has ended its calls.
    pub async fn hang_up_all(&self) -> Result<CallReport> {
        let open: Vec<u64> = self.hall.lock().open.keys().copied().collect();
        open.into_iter().for_each(|job| self.hang_up(job));
        wait_for("all calls to end", PATIENCE, || async {
            let report = self.report();
            Ok(if report.open() == 0 { Seen::Yes(report) } else { Seen::NotYet(format!("{report:?}")) })
        })
        .await
    }

    /// What became of the calls so far.
    pub fn report(&self) -> CallReport {
        self.hall.lock().report.clone()
    }
}

impl Hall {
    fn hear(&mut self, id: u64, said: &Value) {
        if said["status"] == "full"
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.full = true;
        }
        if let Some(job) = said["taken"].as_u64() {
            let revision = self.workers.get(&id).map(|w| w.revision.clone()).unwrap_or_default();
            *self.report.started.entry(revision).or_default() += 1;
            self.answer(job, true);
        }
        if let Some(job) = said["full"].as_u64() {
            self.open.remove(&job);
            self.answer(job, false);
        }
        if let Some(job) = said["ended"].as_u64()
            && self.open.remove(&job).is_some()
        {
            self.report.ended += 1;
        }
    }

    fn answer(&mut self, job: u64, taken: bool) {
        if let Some(offered) = self.offered.remove(&job) {
            let _ = offered.send(taken);
        }
    }

    /// The worker is gone, and its calls with it.
    fn leave(&mut self, id: u64) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let jobs: Vec<u64> = self.open.iter().filter(|(_, of)| **of == id).map(|(job, _)| *job).collect();
        for job in jobs {
            self.open.remove(&job);
            if self.offered.remove(&job).is_none() {
                self.report.cut.push(format!("by {} ({})", worker.revision, worker.pod));
            }
        }
    }
}

/// One worker, from its first word to its last.
async fn session(stream: TcpStream, hall: Arc<Mutex<Hall>>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let Some(Ok(Message::Text(first))) = socket.next().await else { return };
    let Ok(first) = serde_json::from_str::<Value>(&first) else { return };
    let text = |name: &str| first["register"][name].as_str().unwrap_or_default().to_owned();
    let (say, mut said) = mpsc::unbounded_channel();
    let id = {
        let mut hall = hall.lock();
        hall.count += 1;
        let id = hall.count;
        hall.workers.insert(id, Worker { revision: text("revision"), pod: text("pod"), full: false, say });
        id
    };
    let _ = socket.send(Message::text(json!({"server": "a stub of a job dispatcher, for tests"}).to_string())).await;
    loop {
        tokio::select! {
            Some(order) = said.recv() => if socket.send(Message::text(order.to_string())).await.is_err() { break },
            message = socket.next() => match message {
                Some(Ok(Message::Text(message))) => {
                    if let Ok(message) = serde_json::from_str(&message) {
                        hall.lock().hear(id, &message);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    hall.lock().leave(id);
}
