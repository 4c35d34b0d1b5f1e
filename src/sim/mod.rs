//! A Kubernetes API server in this process, and a world that runs on it. All in tokio's time, without sockets.

mod apply;
mod builtin;
mod delete;
mod fail;
mod fields;
pub mod journal;
mod patch;
mod read;
mod registry;
mod request;
pub mod scenario;
mod schema;
mod selector;
mod server;
mod service;
mod shape;
pub mod sources;
mod state;
mod store;
mod validate;
mod watch;
pub mod world;
mod write;

pub use journal::{Fault, RequestInfo, Verb};
pub use patch::PatchKind;
pub use scenario::{Scenario, ScenarioError};
pub use server::{Latency, SimServer};
pub use service::SimService;
pub use sources::ScenarioSources;
pub use world::{World, WorldConfig};
