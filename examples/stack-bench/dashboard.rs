//! What the dashboard costs: how soon a browser shows 500 rollouts, and what ten open streams take in memory. Everything
//! but the browser is in this process, the other ends of the streams included.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::chromium::Page;
use crate::machine;
use crate::shown::{World, healthy, releasing};
use crate::stack::Result;

const ROLLOUTS: usize = 500;
const OPEN: usize = 10;
const CHANGES: i32 = 5000;
const LOADS: usize = 10;

/// Prints the figures.
pub async fn run() -> Result<()> {
    let all: Vec<_> = (0..ROLLOUTS).map(|n| healthy(&format!("team-{}", n % 20), &format!("agent-{n}"))).collect();
    let world = World::new(&all).await;
    println!("\ndashboard, {ROLLOUTS} rollouts");
    memory(&world).await?;
    if let Some(mut page) = Page::open().await {
        paint(&world, &mut page).await;
    }
    Ok(())
}

async fn memory(world: &World) -> Result<()> {
    change(world, 0, CHANGES).await;
    let none = machine::memory()?;
    let (seen, mut far) = watch::channel([0; OPEN]);
    let streams: Vec<_> = (0..OPEN).map(|at| tokio::spawn(read(world.address, at, seen.clone()))).collect();
    far.wait_for(|far| far.iter().all(|far| *far > 0)).await.map_err(|e| crate::stack::Error::other(e.to_string()))?;
    let open = machine::memory()?;
    change(world, CHANGES, 2 * CHANGES).await;
    far.wait_for(|far| far.iter().all(|far| *far >= 2 * CHANGES)).await.map_err(|e| crate::stack::Error::other(e.to_string()))?;
    let told = machine::memory()?;
    println!("  resident memory without an open one {none:.1} MiB, with {OPEN} {open:.1}, after {CHANGES} changes {told:.1}");
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// One rollout changes again and again, a little slower than the streams can follow.
async fn change(world: &World, from: i32, to: i32) {
    for at in from..=to {
        let mut rollout = releasing("team-7", "switchboard", 25);
        rollout["metadata"]["resourceVersion"] = json!(at.to_string());
        world.change(&rollout);
        if at % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Reads a stream as a browser does, and notes the version of the newest change.
async fn read(address: std::net::SocketAddr, at: usize, seen: watch::Sender<[i32; OPEN]>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /dashboard/api/stream HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer token-of-jane\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if line.contains("\"synced\"") {
            seen.send_modify(|far| far[at] = far[at].max(1));
        } else if let Some(version) = line.split("\"version\":\"").nth(1).filter(|_| line.contains("\"changed\"")) {
            let version = version.split('"').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            seen.send_modify(|far| far[at] = version);
        }
    }
    panic!("a stream has ended");
}

async fn paint(world: &World, page: &mut Page) {
    let (mut paint, mut list) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        page.go(&world.url("jane")).await;
        page.wait("performance.getEntriesByName('list').length && performance.getEntriesByName('first-contentful-paint').length").await;
        let times =
            "[performance.getEntriesByName('first-contentful-paint')[0].startTime, performance.getEntriesByName('list')[0].startTime]";
        let times = page.eval(times).await;
        paint.push(times[0].as_f64().unwrap_or(f64::NAN));
        list.push(times[1].as_f64().unwrap_or(f64::NAN));
    }
    println!("  in Chromium, n = {LOADS}: first paint {}, the whole list {}", spread(paint), spread(list));
}

fn spread(mut ms: Vec<f64>) -> String {
    ms.sort_by(f64::total_cmp);
    format!("p50 {:.0} ms, max {:.0} ms", ms[ms.len() / 2], ms[ms.len() - 1])
}
