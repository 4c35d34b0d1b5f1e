//! Serves the stub of the judges' APIs. There is no model behind it; see `router.rs`.
//!
//! `JUDGE_STUB_LISTEN` (127.0.0.1:8099), `JUDGE_STUB_BEHAVIOUR` (pass; see `Behaviour`), `JUDGE_STUB_KEY` (any key).
//! `POST /control {"behaviour": "fail"}` changes it while it runs, `GET /control` counts requests.

mod router;

use std::error::Error;

use router::{Behaviour, Stub, router};

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let behaviour: Behaviour = var("JUDGE_STUB_BEHAVIOUR").as_deref().unwrap_or("pass").parse()?;
    let listen = var("JUDGE_STUB_LISTEN").unwrap_or_else(|| "127.0.0.1:8099".into());
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("judge-stub (no model, set answers) on http://{}: {behaviour:?}", listener.local_addr()?);
    axum::serve(listener, router(Stub::new(behaviour, var("JUDGE_STUB_KEY")))).await?;
    Ok(())
}
