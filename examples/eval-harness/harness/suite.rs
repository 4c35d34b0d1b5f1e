//! The questions, and one pass through them.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Questions that are under way at a time.
const CONCURRENCY: usize = 8;
/// Questions that lie between those of two seeds.
const SEED_CASES: u64 = 1000;
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
    /// Chooses the questions: another seed asks others.
    pub seed: u32,
    /// Asked the same questions, in a paired run.
    pub stable: Option<Stable>,
}

/// The version to compare with.
#[derive(Clone, Debug)]
pub struct Stable {
    /// As [`Plan::version`].
    pub version: String,
    /// Base URL of its agent.
    pub target: String,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Questions to the agent under test.
    pub totals: Totals,
    /// One entry a question, in a paired run.
    pub scenarios: Vec<Scenario>,
}

/// One question to both versions.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scenario {
    /// Its number.
    pub case: u64,
    /// The stable version's answer.
    pub stable: Graded,
    /// The agent under test's.
    pub canary: Graded,
}

/// An answer that was compared with the right one.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Graded {
    /// It was right.
    pub pass: bool,
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

/// A seed for a key, the same each time.
pub fn draw(key: &str) -> u32 {
    let digest = Sha256::digest(key);
    1 + u32::from_be_bytes([0, digest[0], digest[1], digest[2]]) % 1_000_000
}

/// Asks all questions.
///
/// # Errors
/// The agent does not answer, or another revision does: then there is no rate, rather than a wrong one.
pub async fn run(client: &reqwest::Client, plan: &Plan) -> Result<Report, String> {
    if plan.cases == 0 {
        return Err("a run needs at least one case".into());
    }
    let least = tokio::time::sleep(plan.duration);
    let first = u64::from(plan.seed) * SEED_CASES;
    let mut answers = stream::iter(first..first + plan.cases).map(|case| scenario(client, plan, case)).buffered(CONCURRENCY);
    let mut report = Report::default();
    while let Some(answered) = answers.next().await {
        let (canary, scenario) = answered?;
        report.totals.cases += 1;
        *(if canary { &mut report.totals.passed } else { &mut report.totals.failed }) += 1;
        report.scenarios.extend(scenario);
    }
    least.await;
    Ok(report)
}

/// One question to the agent under test, and to stable's in a paired run.
async fn scenario(client: &reqwest::Client, plan: &Plan, case: u64) -> Result<(bool, Option<Scenario>), String> {
    let canary = ask(client, &plan.target, &plan.version, case).await?;
    let Some(stable) = &plan.stable else { return Ok((canary, None)) };
    let stable = ask(client, &stable.target, &stable.version, case).await?;
    Ok((canary, Some(Scenario { case, stable: Graded { pass: stable }, canary: Graded { pass: canary } })))
}

/// "At what time is appointment N?" They are at 8 + N mod 10 o'clock.
async fn ask(client: &reqwest::Client, target: &str, version: &str, case: u64) -> Result<bool, String> {
    let url = format!("{}/eval", target.trim_end_matches('/'));
    let answer = async {
        let response = client.post(&url).query(&[("case", case)]).timeout(ANSWER_TIMEOUT).send().await?;
        response.error_for_status()?.json::<Answer>().await
    };
    let answer = answer.await.map_err(|e| format!("case {case}: the agent at {target} did not answer: {e}"))?;
    if !version.is_empty() && !answer.revision.is_empty() && answer.revision != version {
        return Err(format!("case {case}: asked for version {version} and revision {} answered", answer.revision));
    }
    Ok(answer.answer == format!("{:02}:00", 8 + case % 10))
}
