//! Effects against Kubernetes.

pub mod act;
pub mod analysis;
pub mod backoff;
pub mod cache;
pub mod clock;
pub mod controller;
pub mod drain;
#[cfg(test)]
mod fake;
pub mod gather;
pub mod kept;
pub mod leadership;
pub mod lease;
pub mod left;
pub mod live;
pub mod memory;
pub mod notify;
pub mod process;
pub mod reconcile;
pub mod routes;
pub mod stores;
pub mod surroundings;
pub mod urgency;
pub mod workload;
pub mod write;
