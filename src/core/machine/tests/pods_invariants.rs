//! Invariants of pods: stable keeps its own, and those that talk stay.

use jiff::{SignedDuration, Timestamp};

use super::invariants::{Check, after, ensure, intents};
use super::pods::Agent;
use super::workers_invariants::promoted_at;
use super::world::{Pass, World};
use crate::core::intent::Intent;
use crate::core::observe::ReplicaSetSeen;

/// I5.
pub(super) fn stable_keeps_its_pods(_: &World, pass: &Pass) -> Check {
    for intent in intents(pass) {
        let (name, n) = match intent {
            Intent::ScaleReplicaSet { name, replicas } => (name, *replicas),
            Intent::DeleteReplicaSet { name } => (name, 0),
            _ => continue,
        };
        let hash = pass.seen.replica_sets.iter().find(|r| &r.name == name).map(|r| r.hash.clone());
        // Once the status says that the promotion is complete, workers of the version before would go on taking calls.
        let before = hash == pass.before.stable_revision && promoted_at(pass).is_none();
        let stable = before || hash == after(pass).stable_revision;
        ensure(!stable || n >= pass.plan.replicas, || format!("I5: stable {name} to {n} of {}", pass.plan.replicas))?;
    }
    Ok(())
}

/// I6.
pub(super) fn pods_with_calls_stay(w: &World, pass: &Pass) -> Check {
    for intent in intents(pass) {
        let (name, n) = match intent {
            Intent::ScaleReplicaSet { name, replicas } => (name, *replicas),
            Intent::DeleteReplicaSet { name } => (name, 0),
            _ => continue,
        };
        let Some(set) = pass.seen.replica_sets.iter().find(|r| &r.name == name) else { continue };
        // A worker that is told to end goes on with its calls, for its grace period.
        if pass.plan.by_workers && after(pass).stable_revision.as_ref() != Some(&set.hash) {
            continue;
        }
        if pass.plan.counted {
            counted_pods_stay(w, pass, set, n)?;
            continue;
        }
        if n >= set.exist.max(set.wanted) || after(pass).stable_revision.as_ref() == Some(&set.hash) {
            continue;
        }
        let last = w.last_traffic.get(&set.hash);
        let idle = last.map_or(SignedDuration::MAX, |t| pass.seen.now.duration_since(*t));
        // Recorded times are whole seconds.
        let least = SignedDuration::try_from(pass.plan.max_drain).unwrap() - SignedDuration::from_secs(1);
        ensure(idle >= least, || format!("I6: {name} from {} to {n}, {idle:?} after its last call", set.wanted))?;
    }
    Ok(())
}

/// I6, where live calls are counted: the pods that a ReplicaSet would give up carry none, or have had their time. Pods of
/// stable were taken out of traffic before, each at its own time.
fn counted_pods_stay(w: &World, pass: &Pass, set: &ReplicaSetSeen, n: i32) -> Check {
    let longest = SignedDuration::try_from(pass.plan.max_drain).unwrap() - SignedDuration::from_secs(1);
    let over = |since: Timestamp| pass.seen.now.duration_since(since) >= longest;
    let in_traffic = !pass.plan.by_workers && after(pass).stable_revision.as_ref() == Some(&set.hash);
    let revision = after(pass).revisions.iter().find(|r| r.hash == set.hash);
    let since = revision.and_then(|r| r.shrinking_since.as_ref()).map(|t| t.0).or(w.last_traffic.get(&set.hash).copied());
    if !in_traffic && since.is_none_or(over) {
        return Ok(());
    }
    let mut pods: Vec<_> = w.agents.iter().filter(|a| a.hash == set.hash && a.ending.is_none()).collect();
    pods.sort_by_key(|a| (!a.ready, -a.cost));
    let wrong = |a: &&&Agent| match (in_traffic, a.out) {
        (true, None) => true,
        (true, Some(out)) if over(out) => false,
        _ => a.calls > 0 || !a.readable,
    };
    let lost = pods.iter().skip(usize::try_from(n).unwrap_or(0)).find(wrong);
    ensure(lost.is_none(), || format!("I6: {} to {n} would end {lost:?}", set.name))
}

/// I5: as many pods of stable as there should be get new calls, where as many can.
pub(super) fn traffic_keeps_its_pods(_: &World, pass: &Pass) -> Check {
    let Some(stable) = &after(pass).stable_revision else { return Ok(()) };
    let goes_out = |name: &String| intents(pass).any(|i| matches!(i, Intent::MarkPod { name: n, out: true, .. } if n == name));
    let comes_back = |name: &String| intents(pass).any(|i| matches!(i, Intent::MarkPod { name: n, out: false, .. } if n == name));
    let ready = || pass.seen.pods.iter().filter(|p| p.hash == *stable && p.ready);
    let serving = ready().filter(|p| (p.out.is_none() && !goes_out(&p.name)) || comes_back(&p.name)).count();
    let least = usize::try_from(pass.plan.replicas).unwrap_or(0).min(ready().count());
    ensure(serving >= least, || format!("I5: {serving} pods of stable would get new calls, of {least} that should"))
}
