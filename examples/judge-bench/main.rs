//! How long the judge's evidence takes for 50 MB of logs, and how long it is. No model is asked.
//!
//! Three kinds of logs: few kinds of lines with many numbers; JSON with fields to redact on every line; and lines of random
//! words, which are the worst for template mining.

use std::time::Instant;

use serde_json::json;
use voicerollout::api::evidence::EvidenceLogs;
use voicerollout::sources::judge::digest::Digest;
use voicerollout::sources::redact::Known;

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

fn main() {
    let wanted: EvidenceLogs = serde_json::from_value(json!({"templates": {"readBytes": 268_435_456}})).unwrap_or_else(|e| panic!("{e}"));
    let kinds: [(&str, Maker); 3] = [("numbers", plain), ("personal data", personal), ("random words", random)];
    println!("{:<14} {:>7} {:>9} {:>9} {:>7} {:>6} {:>12}", "logs", "MB", "lines", "seconds", "MB/s", "shown", "bytes shown");
    for (name, maker) in kinds {
        let mut words = Words(7);
        let arms = [0, 1].map(|arm| {
            let mut text = String::new();
            while text.len() < BYTES / 2 {
                text.push_str(&maker(&mut words, arm == 1));
                text.push('\n');
            }
            text
        });
        let begun = Instant::now();
        let Some((mut digest, _, _)) = Digest::new(&wanted, Known::default()) else { return };
        for (arm, text) in arms.iter().enumerate() {
            text.lines().for_each(|line| digest.line(arm, line));
        }
        let Ok(summary) = digest.finish() else { return };
        let shown = summary.templates(None, 30);
        let seconds = begun.elapsed().as_secs_f64();
        let bytes: usize = shown.kinds.iter().map(|k| k.to_string().len()).sum();
        let mb = arms.iter().map(String::len).sum::<usize>() as f64 / 1e6;
        let lines: u64 = shown.lines.iter().sum();
        println!("{name:<14} {mb:>7.1} {lines:>9} {seconds:>9.2} {:>7.1} {:>6} {bytes:>12}", mb / seconds, shown.kinds.len());
    }
}
