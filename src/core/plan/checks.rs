//! What a spec may not say, apart from its gates and steps.

use std::time::Duration;

use crate::api::VoiceRolloutSpec;
use crate::api::common::{Duration as ApiDuration, std_duration};
use crate::api::rollout::IstioTraffic;
use crate::api::sessions::OnMaxDrain;
use crate::core::SpecError;
use crate::core::resolve;

pub(super) fn checked(d: ApiDuration, path: &str, errors: &mut Vec<SpecError>) -> Duration {
    if d.is_negative() {
        errors.push(SpecError::new(path, "a duration cannot be negative; write it as 30s, 5m or 1h30m"));
    }
    std_duration(d)
}

pub(super) fn check_durations(spec: &VoiceRolloutSpec, errors: &mut Vec<SpecError>) {
    let deadline = checked(spec.progress_deadline, "spec.progressDeadline", errors);
    checked(spec.scale_down_delay, "spec.scaleDownDelay", errors);
    checked(spec.abort_scale_down_delay, "spec.abortScaleDownDelay", errors);
    if deadline.as_secs() <= u64::try_from(spec.min_ready_seconds).unwrap_or(0) {
        errors.push(SpecError::new(
            "spec.progressDeadline",
            format!("has to be longer than minReadySeconds ({} s), or no pod can become available in time", spec.min_ready_seconds),
        ));
    }
}

pub(super) fn check_drain(spec: &VoiceRolloutSpec, errors: &mut Vec<SpecError>) {
    let longest = checked(spec.drain.max_drain, "spec.drain.maxDrain", errors);
    let zero = checked(spec.drain.zero_for, "spec.drain.zeroFor", errors);
    if spec.sessions.is_some() && longest < zero {
        let message = format!("is shorter than zeroFor ({} s): no pod could be found idle before it ends; make it longer", zero.as_secs());
        errors.push(SpecError::new("spec.drain.maxDrain", message));
    }
    let Some(sessions) = &spec.sessions else {
        if spec.drain.on_max_drain == OnMaxDrain::Keep {
            let message = "Keep waits until pods are idle, and nothing counts their calls: set spec.sessions.activeCalls";
            errors.push(SpecError::new("spec.drain.onMaxDrain", message));
        }
        return;
    };
    errors.extend(resolve::session_problems(sessions, "spec.sessions"));
}

pub(super) fn check_traffic<'a>(spec: &'a VoiceRolloutSpec, errors: &mut Vec<SpecError>) -> Option<&'a IstioTraffic> {
    match (&spec.traffic.istio, &spec.traffic.replicas) {
        (None, None) => errors.push(SpecError::new("spec.traffic", "set istio (routes split the calls) or replicas (workers pull them)")),
        (Some(_), Some(_)) => {
            let message = "istio and replicas are two ways to split the same calls: leave one out (replicas is for workers that pull jobs)";
            errors.push(SpecError::new("spec.traffic", message));
        }
        (None, Some(_)) => check_workers(spec, errors),
        (Some(_), None) => {}
    }
    let istio = spec.traffic.istio.as_ref()?;
    checked(istio.propagation_delay, "spec.traffic.istio.propagationDelay", errors);
    match (&istio.stable_service, &istio.canary_service, &istio.destination_rule) {
        (Some(a), Some(b), _) if a == b => {
            errors.push(SpecError::new("spec.traffic.istio.canaryService", "stableService and canaryService must be two Services"));
        }
        (Some(_), Some(_), _) | (_, _, Some(_)) => {}
        _ => errors.push(SpecError::new("spec.traffic.istio", "set stableService and canaryService, or destinationRule with two subsets")),
    }
    if istio.destination_rule.as_ref().is_some_and(|rule| rule.stable_subset == rule.canary_subset) {
        errors.push(SpecError::new("spec.traffic.istio.destinationRule", "stableSubset and canarySubset must be two subsets"));
    }
    if let Some(stickiness) = &istio.stickiness {
        let path = "spec.traffic.istio.stickiness";
        match &stickiness.header_buckets {
            Some(buckets) => errors.extend(crate::core::route::problems(buckets, &format!("{path}.headerBuckets"))),
            None => errors.push(SpecError::new(path, "set headerBuckets, or leave it out")),
        }
    }
    if istio.virtual_services.is_empty() {
        errors.push(SpecError::new("spec.traffic.istio.virtualServices", "name at least one VirtualService"));
    }
    Some(istio)
}

/// What means nothing where workers pull their jobs, or cannot be kept.
fn check_workers(spec: &VoiceRolloutSpec, errors: &mut Vec<SpecError>) {
    if spec.traffic.proof.is_some() {
        let message = "holds calls against the weights of routes, and traffic.replicas has none: leave it out";
        errors.push(SpecError::new("spec.traffic.proof", message));
    }
    if spec.drain.on_max_drain == OnMaxDrain::Keep {
        let message = "Keep is not possible with traffic.replicas: a worker is drained by ending it, and the kubelet kills it after \
                       terminationGracePeriodSeconds; make that as long as calls may talk, and leave onMaxDrain out";
        errors.push(SpecError::new("spec.drain.onMaxDrain", message));
    }
    for (i, _) in spec.steps.iter().flatten().enumerate().filter(|(_, step)| step.set_canary_scale.is_some()) {
        let message = "with traffic.replicas the number of workers is the share of calls: use setWeight";
        errors.push(SpecError::new(format!("spec.steps[{i}].setCanaryScale"), message));
    }
}

pub(super) fn check_workload(name: &str, spec: &VoiceRolloutSpec, errors: &mut Vec<SpecError>) {
    if name.len() > 52 {
        errors.push(SpecError::new("metadata.name", format!("has {} characters; at most 52 leave room for revision names", name.len())));
    }
    let wanted = spec.selector.match_labels.clone().unwrap_or_default();
    if wanted.is_empty() {
        errors.push(SpecError::new("spec.selector.matchLabels", "name at least one label of the pods"));
    }
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    for (key, value) in &wanted {
        if labels.get(key) != Some(value) {
            errors.push(SpecError::new(
                "spec.template.metadata.labels",
                format!("has to carry {key}: {value}, which spec.selector asks for"),
            ));
        }
    }
    if spec.selector.match_expressions.as_ref().is_some_and(|e| !e.is_empty()) {
        errors.push(SpecError::new("spec.selector.matchExpressions", "is not supported: use matchLabels"));
    }
    if spec.template.spec.as_ref().is_none_or(|s| s.containers.is_empty()) {
        errors.push(SpecError::new("spec.template.spec.containers", "name at least one container"));
    }
}
