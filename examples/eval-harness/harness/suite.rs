//! The questions, and one pass through them.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

/// Questions that are under way at a time.
const CONCURRENCY: usize = 8;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a run asks.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the suite.
    pub suite: String,
    /// Revision that is to answer; an agent that says it is another one ends the run. Empty: any.
    pub version: String,
    /// Base URL of the agent.
    pub target: String,
    /// Number of questions.
    pub cases: u64,
    /// The run takes at least so long.
    pub duration: Duration,
}

/// Questions by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Asked.
    pub cases: u64,
    /// Answered right.
    pub passed: u64,
    /// Answered wrong.
    pub failed: u64,
}

impl Totals {
    /// Share of right answers, 0 to 1.
    #[allow(clippy::cast_precision_loss)] // counts are small
    pub fn pass_rate(self) -> f64 {
        self.passed as f64 / self.cases as f64
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    revision: String,
    answer: String,
}

/// Asks all questions.
///
/// # Errors
/// The agent does not answer, or another revision does: then there is no rate, rather than a wrong one.
pub async fn run(client: &reqwest::Client, plan: &Plan) -> Result<Totals, String> {
    if plan.cases == 0 {
        return Err("a run needs at least one case".into());
    }
    let least = tokio::time::sleep(plan.duration);
    let mut answers = stream::iter(0..plan.cases).map(|case| ask(client, plan, case)).buffer_unordered(CONCURRENCY);
    let mut totals = Totals::default();
    while let Some(right) = answers.next().await {
        totals.cases += 1;
        if right? {
            totals.passed += 1;
        } else {
            totals.failed += 1;
        }
    }
    least.await;
    Ok(totals)
}

/// "At what time is appointment N?" They are at 8 + N mod 10 o'clock.
async fn ask(client: &reqwest::Client, plan: &Plan, case: u64) -> Result<bool, String> {
    let url = format!("{}/eval", plan.target.trim_end_matches('/'));
    let answer = async {
        let response = client.post(&url).query(&[("case", case)]).timeout(ANSWER_TIMEOUT).send().await?;
        response.error_for_status()?.json::<Answer>().await
    };
    let answer = answer.await.map_err(|e| format!("case {case}: the agent at {} did not answer: {e}", plan.target))?;
    if !plan.version.is_empty() && !answer.revision.is_empty() && answer.revision != plan.version {
        return Err(format!("case {case}: asked for version {} and revision {} answered", plan.version, answer.revision));
    }
    Ok(answer.answer == format!("{:02}:00", 8 + case % 10))
}
