//! The agent as a worker that pulls its jobs: it connects to a dispatcher, says that it is there, and is given calls. No
//! caller reaches it by HTTP. When it is told to end it says that it is full, and goes on with the calls it has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::calls::{Call, Calls};
use super::log;

/// Wait before the dispatcher is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Takes jobs from the dispatcher at `address` until the future is dropped. One that is away is tried again.
pub async fn pull(calls: Arc<Calls>, address: String) {
    while !calls.is_leaving() {
        if let Err(error) = session(&calls, &address).await {
            log::line(&calls.config, "warn", "no dispatcher", json!({"address": address, "error": error}));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn left(leaving: &mut watch::Receiver<bool>) {
    // What tells it lives as long as the calls.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

/// One connection, to its end. Its calls end with it.
async fn session(calls: &Arc<Calls>, address: &str) -> Result<(), String> {
    let text = |error: tokio_tungstenite::tungstenite::Error| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/worker"), stream).await.map_err(text)?;
    let say = |value: Value| Message::text(value.to_string());
    let identity = json!({"register": {"revision": calls.config.revision, "pod": calls.config.pod}});
    socket.send(say(identity)).await.map_err(text)?;
    let mut jobs: HashMap<u64, Call> = HashMap::new();
    let mut leaving = calls.leaving();
    let mut full = false;
    loop {
        tokio::select! {
            () = left(&mut leaving), if !full => {
                full = true;
                socket.send(say(json!({"status": "full"}))).await.map_err(text)?;
            }
            message = socket.next() => {
                let Some(message) = message else { return Ok(()) };
                let Message::Text(message) = message.map_err(text)? else { continue };
                let asked: Value = serde_json::from_str(&message).map_err(|error| error.to_string())?;
                let answer = if let Some(job) = asked["job"].as_u64() {
                    match calls.begin().filter(|_| !full) {
                        Some(mut call) => {
                            call.turn();
                            jobs.insert(job, call);
                            json!({"taken": job})
                        }
                        None => json!({"full": job}),
                    }
                } else if let Some(job) = asked["end"].as_u64() {
                    jobs.remove(&job).map(Call::end);
                    json!({"ended": job})
                } else {
                    continue;
                };
                socket.send(say(answer)).await.map_err(text)?;
            }
        }
    }
}
