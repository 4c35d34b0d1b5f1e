//! The count of live calls, without which every pod of a loser is kept until `drain.maxDrain`.

use super::{Finding, codes};
use crate::api::VoiceRolloutSpec;

/// `unread` says why the calls of a pod are not known, where a reading failed.
pub(super) fn finding(spec: &VoiceRolloutSpec, unread: Option<&str>) -> Option<Finding> {
    let sentence = match unread {
        Some(why) => {
            format!("live calls cannot be read: {why}; pods that drain are kept until drain.maxDrain and then end, whoever talks.")
        }
        None => undeclared(spec)?,
    };
    let fix = "let every pod answer spec.sessions.activeCalls, on a port that a container listens on and the mesh lets plain HTTP into \
               (traffic.sidecar.istio.io/excludeInboundPorts), or count by a query of activeCalls.prometheus.";
    Some(Finding { code: codes::UNREADABLE_CALLS, sentence, fix: fix.into() })
}

/// Containers say on which ports they listen, and the one that is to be asked is none of them.
fn undeclared(spec: &VoiceRolloutSpec) -> Option<String> {
    let active = &spec.sessions.as_ref()?.active_calls;
    let http = active.http.as_ref().filter(|_| active.prometheus.is_none())?;
    let pod = spec.template.spec.as_ref()?;
    // Native sidecars are init containers.
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let mut ports: Vec<i32> = containers.flat_map(|c| c.ports.iter().flatten()).map(|p| p.container_port).collect();
    ports.sort_unstable();
    ports.dedup();
    let named = ports.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    (!ports.is_empty() && !ports.contains(&http.port)).then(|| {
        format!(
            "no container of spec.template declares port {} of spec.sessions.activeCalls.http (there are {named}): if none listens there, \
             live calls are never known, and pods that drain are kept until drain.maxDrain and then end, whoever talks.",
            http.port
        )
    })
}
