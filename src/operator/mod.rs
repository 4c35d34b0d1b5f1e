//! Effects against Kubernetes.

pub mod backoff;
pub mod clock;
#[cfg(test)]
mod fake;
pub mod leadership;
pub mod lease;
pub mod routes;
pub mod write;
