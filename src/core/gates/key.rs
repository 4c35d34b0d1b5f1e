//! Keys of measurements and hashes of specs.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::api::run::{RunGate, RunKind, VoiceAnalysisRunSpec};

/// Idempotency key of a gate's `number`th measurement (from 1): 32 hexadecimal digits. It differs between rollouts,
/// revisions, attempts, steps, weight changes, gates and measurements, and is the same again after a crash.
pub fn measurement_key(spec: &VoiceAnalysisRunSpec, gate: &str, number: i32) -> String {
    let kind = match spec.kind {
        RunKind::Background => "background",
        RunKind::Step => "step",
        RunKind::Explanation => "explanation",
    };
    let since = spec.traffic_since.as_ref().map_or(0, |t| t.0.as_second());
    let step = spec.step.unwrap_or(-1);
    let text =
        format!("{}\n{}\n{kind}\n{step}\n{}\n{since}\n{}\n{gate}\n{number}", spec.rollout_uid, spec.revision, spec.attempt, spec.weight);
    hex(text.as_bytes())
}

/// Hash of what a run was asked to do: everything in its spec but `stop`. 32 hexadecimal digits.
pub fn spec_hash(spec: &VoiceAnalysisRunSpec) -> String {
    let asked = VoiceAnalysisRunSpec { stop: false, ..spec.clone() };
    // Fields are written in the order of their declaration, so equal specs give equal text.
    hex(&serde_json::to_vec(&asked).unwrap_or_default())
}

/// Hash of the gates that count calls: with another one their evidence is about something else.
pub fn gates_hash(gates: &[RunGate]) -> String {
    let counting: Vec<&RunGate> = gates.iter().filter(|g| g.gate.counted().is_some()).collect();
    short(&serde_json::to_vec(&counting).unwrap_or_default())
}

/// A number in 0..1 that looks random and is always the same for a key.
pub fn fraction(key: &str) -> f64 {
    let digest = Sha256::digest(key.as_bytes());
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / 65536.0
}

/// 12 hexadecimal digits that stand for some bytes.
pub fn short(bytes: &[u8]) -> String {
    hex(bytes)[..12].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
