//! Effects against Kubernetes.

pub mod analysis;
pub mod clock;
pub mod leadership;
pub mod write;
