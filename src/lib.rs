//! VoiceRollout: a Kubernetes operator that releases new versions of LLM voice agents step by step.
//!
//! `api` is data, `core` decides and is pure, `operator` acts on Kubernetes, `sources` measure, `notify` tells, `telemetry` logs and
//! traces, `server` is seen from outside, `sim` is an API server in this process, `cli` is what people type.

pub mod api;
pub mod cli;
pub mod core;
#[cfg(test)]
mod layers;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod operator;
pub mod server;
pub mod sim;
pub mod sources;
pub mod telemetry;
