//! What lies in `examples/` works: manifests, recipes, the sample agent, the sample eval harness.

mod manifests;
mod played;
mod preflight;
mod programs;
mod recipes;

#[allow(dead_code)] // its process reads the environment; here it is told directly
#[path = "../../examples/sample-agent/agent/mod.rs"]
mod agent;
#[allow(dead_code)] // as above
#[path = "../../examples/eval-harness/harness/mod.rs"]
mod harness;
