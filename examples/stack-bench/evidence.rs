//! How long the judge's evidence takes for 50 MB of logs, how long it is, and how much memory it needs. The model is the
//! stub, which answers at once.
//!
//! Three kinds of logs: few kinds of lines with many numbers; JSON with fields to redact on every line; and lines of random
//! words, which are the worst for template mining.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use voicerollout::api::common::SecretKeyRef;
use voicerollout::sources::egress::Egress;
use voicerollout::sources::judge::logs::{LogQuery, LogReader, Sink};
use voicerollout::sources::secrets::SecretReader;
use voicerollout::sources::{Progress, Request, Source, SourceError, Sources, SourcesConfig};

use crate::judge::{Behaviour, Stub, router};
use crate::machine;
use crate::stack::{Error, Result};

/// Bytes of both arms together.
const BYTES: usize = 50 * 1024 * 1024;

/// Words and numbers that look random and are always the same.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn word(&mut self) -> String {
        (0..3 + self.next() % 6).map(|_| char::from(b'a' + u8::try_from(self.next() % 26).unwrap_or(0))).collect()
    }
}

fn plain(w: &mut Words, canary: bool) -> String {
    let (n, ms) = (w.next(), w.next() % 4000);
    match n % 20 {
        0..=9 => format!("2026-11-26T15:{:02}:{:02}Z INFO call {n} turn {} first token after {ms} ms", n % 60, ms % 60, ms % 40),
        10..=14 => format!(
            "2026-11-26T15:00:00Z INFO tool book_table took {ms} ms for session {n:x}-{ms:x}, peer 10.0.{}.{}:8080",
            n % 200,
            ms % 200
        ),
        15..=18 => format!("2026-11-26T15:00:00Z INFO GET /v1/calls/{n}/turns status=200 {ms}us"),
        _ if canary => format!("2026-11-26T15:00:00Z ERROR tool book_table failed for call {n}: timeout after {ms} ms"),
        _ => format!("2026-11-26T15:00:00Z WARN slow answer of {ms} ms in call {n}"),
    }
}

fn personal(w: &mut Words, _: bool) -> String {
    let (name, n) = (w.word(), w.next());
    format!(
        r#"{{"ts":{n},"level":"info","msg":"turn","lk.pii.user_transcript":"my name is {name}, mail {name}@example.com, +1 415 555 {:04}","token":"{n:x}","ms":{}}}"#,
        n % 10_000,
        n % 900
    )
}

fn random(w: &mut Words, _: bool) -> String {
    let words: Vec<String> = (0..12).map(|_| w.word()).collect();
    words.join(" ")
}

type Maker = fn(&mut Words, bool) -> String;

/// Names of the revisions.
const ARMS: [&str; 2] = ["stable", "canary"];

/// Logs in files, so that they are not in the memory that is measured.
pub struct Logs(pub PathBuf);

impl Logs {
    /// Writes both arms' logs; gives bytes and lines.
    fn write(&self, maker: Maker) -> Result<(usize, usize)> {
        let (mut words, mut all, mut lines) = (Words(7), 0, 0);
        for (arm, name) in ARMS.iter().enumerate() {
            let mut file = BufWriter::new(File::create(self.0.join(name))?);
            let mut bytes = 0;
            while bytes < BYTES / 2 {
                let line = maker(&mut words, arm == 1);
                bytes += line.len() + 1;
                lines += 1;
                writeln!(file, "{line}")?;
            }
            file.flush()?;
            all += bytes;
        }
        Ok((all, lines))
    }

    fn lines(&self, revision: &str) -> std::result::Result<impl Iterator<Item = String>, SourceError> {
        let file = File::open(self.0.join(revision)).map_err(|e| SourceError::new(e.to_string()))?;
        Ok(BufReader::new(file).lines().map_while(std::result::Result::ok))
    }
}

impl LogReader for Logs {
    fn pod_logs<'a>(&'a self, query: LogQuery<'a>) -> BoxFuture<'a, std::result::Result<Vec<(String, String)>, SourceError>> {
        Box::pin(async move {
            let tail = usize::try_from(query.tail).unwrap_or(0);
            let lines: Vec<String> = self.lines(query.revision)?.take(tail).collect();
            Ok(vec![("pod".to_owned(), lines.join("\n"))])
        })
    }

    fn stream<'a>(&'a self, query: LogQuery<'a>, _: usize, sink: Sink<'a>) -> BoxFuture<'a, std::result::Result<bool, SourceError>> {
        Box::pin(async move {
            self.lines(query.revision)?.for_each(|line| sink(&line));
            Ok(true)
        })
    }
}

struct NoSecrets;

impl SecretReader for NoSecrets {
    fn read<'a>(&'a self, _: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, std::result::Result<String, SourceError>> {
        Box::pin(async move { Err(SourceError::new(format!("there is no Secret {}", secret.name))) })
    }
}

/// Prints the figures.
pub async fn run() -> Result<()> {
    println!("\njudge's evidence of 50 MB of logs, both arms together: from files to the vote of a model that answers at once");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let stub = Stub::new(Behaviour::Pass, None);
    let served = stub.clone();
    tokio::spawn(async move { axum::serve(listener, router(served)).await });
    let judge = json!({"name": "judge", "judge": {
        "openai": {"model": "stub", "baseUrl": address}, "prompt": "Is the canary worse?",
        "evidence": {"logs": {"templates": {"readBytes": 268_435_456}}}}});
    let request = request(judge)?;
    let most = request.gate.judge.as_ref().map_or(0, |j| j.max_input_tokens);
    for (name, maker) in [("numbers", plain as Maker), ("personal data", personal), ("random words", random)] {
        let folder = tempfile::tempdir()?;
        let logs = Logs(folder.path().to_owned());
        let (bytes, lines) = logs.write(maker)?;
        let sources = sources(logs)?;
        let before = machine::peak_memory_from_here()?;
        let begun = Instant::now();
        let answer = sources.start(&request).await.map_err(|e| Error::other(e.message))?;
        let seconds = begun.elapsed().as_secs_f64();
        let peak = machine::peak_memory()?;
        let Progress::Votes(votes) = answer else { return Err(Error::other("the judge did not vote")) };
        let asked = texts(&stub.seen()["last"]);
        println!(
            "  {name:<14} {:>5.1} MB, {lines:>7} lines: {seconds:.2} s, {:.0} MB/s; question of {asked} bytes, at most {} tokens of {most} allowed; \
             peak memory of the process {peak:.0} MiB, {before:.0} MiB before; verdict {:?}",
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / seconds,
            asked.div_ceil(2),
            votes.verdict,
        );
    }
    Ok(())
}

/// Providers that may reach this machine, and read these logs.
pub fn sources(logs: Logs) -> Result<Sources> {
    let egress = Egress { allow: vec!["127.0.0.0/8".parse().map_err(Error::other)?], deny_extra: Vec::new() };
    let config = SourcesConfig { egress, operator_namespace: "voicerollout".into(), user_agent: "bench".into() };
    Ok(Sources::new(config, Arc::new(NoSecrets), Arc::new(logs)))
}

fn request(gate: Value) -> Result<Request> {
    Ok(Request {
        explains: None,
        key: "bench".into(),
        namespace: "voice".into(),
        rollout: "agent".into(),
        revision: ARMS[1].into(),
        stable_revision: ARMS[0].into(),
        started_at: jiff::Timestamp::now(),
        gate: serde_json::from_value(gate).map_err(|e| Error::other(e.to_string()))?,
        args: BTreeMap::new(),
        from_cluster_template: false,
        others: Vec::new(),
        earlier: Vec::new(),
    })
}

/// Bytes of all texts that the model was sent.
fn texts(body: &Value) -> usize {
    body["messages"]
        .as_array()
        .map_or(0, |all| all.iter().map(|m| m["content"].as_str().map_or_else(|| m["content"].to_string().len(), str::len)).sum())
}
