//! What is written in a Lease, and what is read from it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use tokio::time::Instant;

use super::LeaseConfig;
use crate::api::common::FIELD_MANAGER;

/// Another holder's record, and how long it has stood unchanged here.
#[derive(Debug)]
pub(super) struct Seen {
    spec: LeaseSpec,
    /// When it may be taken, unless it changes.
    pub(super) expires: Instant,
}

impl Seen {
    /// Seen now for the first time. A record that does not say how long it holds does so for `duration`.
    pub(super) fn now(lease: &Lease, duration: Duration) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        Self { expires: Instant::now() + seconds.map_or(duration, Duration::from_secs), spec }
    }

    /// Whether `lease` is the same record; an edit of its metadata is not a renewal.
    pub(super) fn is(&self, lease: &Lease) -> bool {
        lease.spec.as_ref() == Some(&self.spec)
    }
}

/// Who holds it; `None` when it was given up.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|h| !h.is_empty())
}

/// The record that takes the Lease, new or as found.
pub(super) fn taken(found: Option<Lease>, config: &LeaseConfig, now: Timestamp) -> Lease {
    let Some(mut lease) = found else {
        let metadata = ObjectMeta { name: Some(config.name.clone()), namespace: Some(config.namespace.clone()), ..ObjectMeta::default() };
        let spec = LeaseSpec { acquire_time: Some(MicroTime(now)), lease_transitions: Some(0), ..LeaseSpec::default() };
        return renewed(&Lease { metadata, spec: Some(spec) }, config, now);
    };
    if holder(&lease) != Some(&config.identity) {
        let spec = lease.spec.get_or_insert_default();
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        spec.acquire_time = Some(MicroTime(now));
    }
    renewed(&lease, config, now)
}

/// The record that holds the Lease from now on.
pub(super) fn renewed(lease: &Lease, config: &LeaseConfig, now: Timestamp) -> Lease {
    let mut lease = lease.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(config.identity.clone());
    spec.lease_duration_seconds = Some(whole_seconds(config.duration));
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// The record that gives the Lease up.
pub(super) fn released(lease: &Lease, now: Timestamp) -> Lease {
    let mut lease = lease.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1); // 0 is not valid
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// Up, so that nobody waits for less than the duration.
fn whole_seconds(duration: Duration) -> i32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(up.max(1)).unwrap_or(i32::MAX)
}

pub(super) fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}
