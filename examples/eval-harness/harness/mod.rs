//! The harness, apart from its process.

mod config;
mod report;
mod runs;
mod server;
mod suite;

pub use config::Config;
pub use server::serve;
