//! Waiting for conditions: tests never sleep for a guessed time, they poll a condition up to a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::{Error, Result};

/// How often a condition is looked at.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// What a look at a condition found.
pub enum Seen<T> {
    /// The condition holds.
    Yes(T),
    /// It does not hold yet; the text is the state seen, for the message should it never hold.
    NotYet(String),
}

/// Polls `look` until it says [`Seen::Yes`]. After `deadline` fails with what was awaited and the last state seen.
/// An error of `look` counts as a state seen: servers that are starting refuse connections.
pub async fn wait_for<T, F, Fut>(what: impl Display, deadline: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<T>>>,
{
    let start = Instant::now();
    let mut last = String::from("nothing");
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match tokio::time::timeout(left.max(INTERVAL), look()).await {
            Ok(Ok(Seen::Yes(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(state))) => last = state,
            Ok(Err(error)) => last = format!("error: {error}"),
            Err(_) => last = format!("no answer to the look that was under way; before it: {last}"),
        }
        if start.elapsed() >= deadline {
            return Err(Error::Deadline { what: what.to_string(), deadline, last });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Polls `condition` until it is true; the short form of [`wait_for`] where there is no state worth telling.
pub async fn wait_until<F, Fut>(what: impl Display, deadline: Duration, mut condition: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    wait_for(what, deadline, || {
        let answer = condition();
        async move { Ok(if answer.await { Seen::Yes(()) } else { Seen::NotYet("not true".into()) }) }
    })
    .await
}
