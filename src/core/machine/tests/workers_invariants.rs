//! Invariants of workers that pull their jobs: what is asked of ReplicaSets is what is asked of weights.

use super::invariants::{Check, after, allowed, blocked, ensure, in_release, intents};
use super::world::{Pass, World};
use crate::api::status::Phase;
use crate::core::intent::Intent;
use crate::core::observe::ReplicaSetSeen;

/// Where workers pull their jobs, roles may change in the pass in which the last step is done: why they did, as recorded.
pub(super) fn promoted_at_once(pass: &Pass) -> Option<&str> {
    let (b, a) = (&pass.before, after(pass));
    let at_once = pass.plan.by_workers && b.stable_revision.is_some() && b.stable_revision != a.stable_revision && b.promotion.is_none();
    let said = a.decisions.iter().rev().find(|d| matches!(d.decision.as_str(), "Promoted" | "RolledBack"));
    said.filter(|_| at_once).map(|d| d.reason.as_str())
}

/// Where workers pull their jobs, the version before goes as soon as roles have changed.
pub(super) fn promoted_at(pass: &Pass) -> Option<&String> {
    let new = after(pass).stable_revision.as_ref();
    new.filter(|new| pass.plan.by_workers && pass.before.stable_revision.as_ref() != Some(new))
}

/// `n w / (100 - w)` canary workers to within a half: no more than these may take calls at a weight.
fn most_workers(weight: i32, stable: i32) -> i32 {
    let exact = f64::from(stable) * f64::from(weight) / f64::from((100 - weight).max(1));
    if weight == 0 { 0 } else { ((exact + 0.5).floor() as i32).clamp(1, stable.max(1)).min(stable) }
}

pub(super) fn fewest_workers(weight: i32, stable: i32) -> i32 {
    let exact = f64::from(stable) * f64::from(weight) / f64::from((100 - weight).max(1));
    if weight == 0 { 0 } else { ((exact - 0.5).ceil() as i32).clamp(1, stable.max(1)).min(stable) }
}

/// I2, I3, I8 where workers pull their jobs: a worker that runs takes calls, so what is asked of ReplicaSets is what is
/// asked of weights.
pub(super) fn workers_follow_the_weight(_: &World, pass: &Pass) -> Check {
    if !pass.plan.by_workers || pass.seen.deleting {
        return Ok(());
    }
    let (b, s, n) = (&pass.before, after(pass), pass.plan.replicas);
    let foreign = intents(pass).find(|i| matches!(i, Intent::SetWeights { .. } | Intent::PointArm { .. } | Intent::CreateBudget { .. }));
    ensure(foreign.is_none(), || format!("no route, arm or budget is needed: {foreign:?}"))?;
    let released = in_release(s);
    let steps = released && s.promotion.is_none();
    for intent in intents(pass) {
        let (set, replicas) = match intent {
            Intent::ScaleReplicaSet { name, replicas } => (pass.seen.replica_sets.iter().find(|r| &r.name == name).cloned(), *replicas),
            Intent::CreateReplicaSet { hash, replicas, .. } => {
                (Some(ReplicaSetSeen { hash: hash.clone(), ..Default::default() }), *replicas)
            }
            _ => continue,
        };
        let set = set.ok_or_else(|| format!("{intent:?} is about no set"))?;
        if Some(&set.hash) == s.stable_revision.as_ref() || replicas <= set.wanted {
            continue;
        }
        ensure(s.abort.is_none() && Some(&set.hash) == s.canary_revision.as_ref(), || format!("I3: {} to {replicas}", set.name))?;
        let most = if steps { most_workers(allowed(pass), n) } else { n };
        ensure(replicas <= most, || format!("I2: {} to {replicas} where the step allows {most}", set.name))?;
        ensure(!blocked(pass), || format!("I2: {} to {replicas} while nothing may move", set.name))?;
        let still = s.user_paused || pass.plan.paused || (pass.plan.enforce_preflight && !pass.plan.findings.is_empty());
        ensure(!steps || !still, || format!("I2: {} to {replicas} while steps stand still", set.name))?;
        let whole = s.stable_revision.as_ref().and_then(|h| pass.seen.replica_set(h)).is_some_and(|r| r.available >= n);
        ensure(!steps || whole, || format!("I2: {} to {replicas} beside a stable that is not whole", set.name))?;
    }
    let newest = s.canary_revision.as_ref().filter(|_| s.abort.is_none());
    for set in
        pass.seen.replica_sets.iter().filter(|r| r.wanted > 0 && Some(&r.hash) != s.stable_revision.as_ref() && Some(&r.hash) != newest)
    {
        let told = intents(pass).any(|i| matches!(i, Intent::ScaleReplicaSet { name, replicas: 0 } if *name == set.name));
        ensure(told, || format!("I3: {} goes on taking calls", set.name))?;
    }
    let new = s.stable_revision.as_ref().filter(|new| b.stable_revision.as_ref() != Some(new));
    let have = new.and_then(|new| pass.seen.replica_set(new)).map_or(n, |r| r.available);
    ensure(have >= n, || format!("{new:?} became stable with {have} of {n} workers"))?;
    let others = pass.seen.replica_sets.iter().filter(|r| Some(&r.hash) != s.stable_revision.as_ref());
    let busy = others.filter(|r| r.wanted > 0 || r.exist > 0).count();
    ensure(busy == 0 || !matches!(s.phase, Phase::Healthy | Phase::Degraded), || format!("{:?} while others take calls", s.phase))
}
