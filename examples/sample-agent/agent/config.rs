//! What the agent is told by its environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// What the agent is told by its environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POD_IP` (all addresses) and `PORT` (8080).
    pub listen: SocketAddr,
    /// `AGENT_VERSION`: what people call this version.
    pub version: String,
    /// `AGENT_REVISION`: hash of the pod template, from the label `voicerollout.dev/revision`.
    pub revision: String,
    /// `POD_NAME`, else `HOSTNAME`.
    pub pod: String,
    /// `AGENT_FIRST_TOKEN_MS`: mean time to the first token, in ms.
    pub first_token_ms: f64,
    /// `AGENT_FIRST_TOKEN_JITTER_MS`: it varies evenly by as much up and down, in ms.
    pub jitter_ms: f64,
    /// `AGENT_FIRST_TOKEN_SIGMA`: above 0 the times are lognormal in place of even: `AGENT_FIRST_TOKEN_MS` is their median
    /// and this the standard deviation of their logarithm.
    pub sigma: f64,
    /// `AGENT_SLOWDOWN`: every time to the first token is so many times as long.
    pub slowdown: f64,
    /// `AGENT_REAL_LATENCY=1`: `/call` really waits for its first token; else the time is only recorded.
    pub real_latency: bool,
    /// `AGENT_FAIL_RATE`: share of calls that fail, 0 to 1.
    pub fail_rate: f64,
    /// `AGENT_TOOL_CALLS`: mean number of tool calls in a call.
    pub tool_calls: f64,
    /// `AGENT_EVAL_PASS_RATE`: share of eval cases that are answered right, 0 to 1.
    pub eval_pass_rate: f64,
    /// `AGENT_LOG_LINE`: a line to log at the start and with every call.
    pub log_line: Option<String>,
    /// `AGENT_SEED`: same seed and pod, same calls.
    pub seed: u64,
    /// `AGENT_LAME_DUCK_MS`: after SIGTERM calls are still taken for so long, while proxies learn that the pod leaves.
    pub lame_duck: Duration,
    /// `AGENT_DRAIN_TIMEOUT_S`: how long open calls are waited for after SIGTERM.
    pub drain_timeout: Duration,
    /// `AGENT_WORKER_SAYS`: JSON that `/worker` gives as `active_jobs` in place of the truth.
    pub worker_says: Option<serde_json::Value>,
    /// `AGENT_WORKER_DELAY_MS`: `/worker` takes so long to answer.
    pub worker_delay: Duration,
    /// `AGENT_DISPATCHER`: address and port of a dispatcher whose jobs are pulled, beside the calls that come by HTTP.
    pub dispatcher: Option<String>,
    /// `AGENT_IGNORE_DRAIN=1`: exit at SIGTERM at once, whoever is talking.
    pub ignore_drain: bool,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable that does not parse or is out of range; the text names it.
    pub fn from_env() -> Result<Self, String> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables from `get`.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let vars = Vars(&get);
        let ip = vars.parse("POD_IP", IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        Ok(Self {
            listen: SocketAddr::new(ip, vars.parse("PORT", 8080)?),
            version: vars.text("AGENT_VERSION").unwrap_or_else(|| "v1".into()),
            revision: vars.text("AGENT_REVISION").unwrap_or_default(),
            pod: vars.text("POD_NAME").or_else(|| vars.text("HOSTNAME")).unwrap_or_else(|| "local".into()),
            first_token_ms: vars.number("AGENT_FIRST_TOKEN_MS", 400.0, 0.0, 600_000.0)?,
            jitter_ms: vars.number("AGENT_FIRST_TOKEN_JITTER_MS", 100.0, 0.0, 600_000.0)?,
            sigma: vars.number("AGENT_FIRST_TOKEN_SIGMA", 0.0, 0.0, 3.0)?,
            slowdown: vars.number("AGENT_SLOWDOWN", 1.0, 0.01, 100.0)?,
            real_latency: vars.flag("AGENT_REAL_LATENCY")?,
            fail_rate: vars.number("AGENT_FAIL_RATE", 0.0, 0.0, 1.0)?,
            tool_calls: vars.number("AGENT_TOOL_CALLS", 2.0, 0.0, 100.0)?,
            eval_pass_rate: vars.number("AGENT_EVAL_PASS_RATE", 1.0, 0.0, 1.0)?,
            log_line: vars.text("AGENT_LOG_LINE"),
            seed: vars.parse("AGENT_SEED", 1)?,
            lame_duck: Duration::from_millis(vars.parse("AGENT_LAME_DUCK_MS", 0)?),
            drain_timeout: Duration::from_secs(vars.parse("AGENT_DRAIN_TIMEOUT_S", 3600)?),
            worker_says: vars.json("AGENT_WORKER_SAYS")?,
            worker_delay: Duration::from_millis(vars.parse("AGENT_WORKER_DELAY_MS", 0)?),
            dispatcher: vars.text("AGENT_DISPATCHER"),
            ignore_drain: vars.flag("AGENT_IGNORE_DRAIN")?,
        })
    }
}

struct Vars<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Vars<'_> {
    /// An empty variable counts as not set.
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    fn parse<T: FromStr>(&self, name: &str, default: T) -> Result<T, String>
    where
        T::Err: std::fmt::Display,
    {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|e| format!("{name}={text}: {e}")),
        }
    }

    fn json(&self, name: &str) -> Result<Option<serde_json::Value>, String> {
        self.text(name).map(|text| serde_json::from_str(&text).map_err(|e| format!("{name}={text}: {e}"))).transpose()
    }

    fn number(&self, name: &str, default: f64, low: f64, high: f64) -> Result<f64, String> {
        let value = self.parse(name, default)?;
        if (low..=high).contains(&value) { Ok(value) } else { Err(format!("{name}={value}: want {low} to {high}")) }
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.text(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => Err(format!("{name}={other}: want 1 or 0")),
        }
    }
}
