//! A sample eval harness: asks the agent under test questions whose answers are known, and says how many were right.
//!
//! `GET /api/run?suite=voice&version=HASH` answers when the run has ended: `{"passRate": 0.95, "totals": {...}, ...}`.
//! `POST /api/runs` with the same as JSON (`suite`, `version`, `target`, `cases`, `durationMs`, `seed`) answers 202 at once,
//! with an id and links: `GET /api/runs/ID` says how far it is, `DELETE /api/runs/ID` and `POST /api/runs/ID/cancel` give it
//! up. `POST /api/paired` (with `stableVersion` and `stableTarget` too) asks stable and canary the same questions,
//! drawn by its key unless it names a seed.
//! A repeated `Idempotency-Key` gets the run that it started before. `GET /api/runs` lists all runs. Nothing survives the
//! process.

mod harness;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eval-harness: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = harness::Config::from_env()?;
    let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(|e| format!("listen on {}: {e}", config.listen))?;
    println!("eval-harness listening on {}", listener.local_addr()?);
    harness::serve(listener, config).await?;
    Ok(())
}
