//! Effects against Kubernetes.

pub mod clock;
pub mod leadership;
pub mod write;
