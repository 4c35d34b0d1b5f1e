//! The sample agent, apart from its process: what it is told, what a call of it is like, how it is served.

mod calls;
mod config;
mod log;
mod metrics;
mod rng;
mod server;
mod websocket;
mod worker;

pub use config::Config;
pub use server::serve;
