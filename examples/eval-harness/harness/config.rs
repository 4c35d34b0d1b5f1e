//! What the harness is told by its environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// What the harness is told by its environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POD_IP` (all addresses) and `PORT` (8090).
    pub listen: SocketAddr,
    /// `CANARY_URL`: base URL of the agent under test, unless a request names a `target`.
    pub target: String,
    /// `STABLE_URL`: base URL of the agent to compare with, unless a request names a `stableTarget`.
    pub stable_target: String,
    /// `EVAL_CASES`: questions in a run, unless a request says `cases`.
    pub cases: u64,
    /// `EVAL_DURATION_MS`: least duration of a run, unless a request says `durationMs`.
    pub duration: Duration,
    /// `EVAL_SUITE_VERSION`: said in every answer.
    pub suite_version: String,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable that does not parse; the text names it.
    pub fn from_env() -> Result<Self, String> {
        let ip = var("POD_IP", IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        Ok(Self {
            listen: SocketAddr::new(ip, var("PORT", 8090)?),
            target: var("CANARY_URL", "http://voice-agent-canary:8080".to_owned())?,
            stable_target: var("STABLE_URL", "http://voice-agent-stable:8080".to_owned())?,
            cases: var("EVAL_CASES", 100)?,
            duration: Duration::from_millis(var("EVAL_DURATION_MS", 0)?),
            suite_version: var("EVAL_SUITE_VERSION", "1".to_owned())?,
        })
    }
}

fn var<T: FromStr>(name: &str, default: T) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map_err(|e| format!("{name}={text}: {e}")),
        _ => Ok(default),
    }
}
