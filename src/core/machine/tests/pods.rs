//! Pods of the world, and the calls they carry. What is true is here; what is seen comes from readings.

use jiff::Timestamp;

use super::world::World;
use crate::core::live::{Ledger, PodFacts};
use crate::core::observe::{CutSeen, Mark, PodSeen, ReplicaSetSeen};

/// A pod as it is.
#[derive(Clone, Debug)]
pub struct Agent {
    pub name: String,
    pub hash: String,
    pub calls: u64,
    pub ready: bool,
    /// Its gauge answers.
    pub readable: bool,
    /// Since when it has been told to end: a worker that pulls its jobs, and goes on with those it has.
    pub ending: Option<Timestamp>,
    pub cost: i64,
    pub mark: Option<Mark>,
    pub out: Option<Timestamp>,
    pub ledger: Ledger,
}

/// A pod that is gone.
#[derive(Clone, Debug)]
pub struct Gone {
    pub name: String,
    pub hash: String,
    /// Calls it carried.
    pub calls: u64,
    pub ledger: Ledger,
}

impl World {
    /// Pods follow the sizes of their ReplicaSets, as the ReplicaSet controller does it.
    pub(super) fn follow_sets(&mut self) {
        if self.spec.sessions.is_none() {
            return;
        }
        let sets = self.seen.replica_sets.clone();
        for set in &sets {
            self.follow_set(set);
        }
        let (there, orphans): (Vec<Agent>, Vec<Agent>) =
            std::mem::take(&mut self.agents).into_iter().partition(|a| sets.iter().any(|s| s.hash == a.hash));
        self.agents = there;
        self.gone_pods.extend(orphans.into_iter().map(Agent::end));
        self.workers_end();
    }

    /// Workers that were told to end do so after their last call, or are killed after their grace period.
    fn workers_end(&mut self) {
        let now = self.seen.now;
        let grace = self.spec.template.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        let killed = |since: Timestamp| now.duration_since(since).as_secs() >= grace;
        // One reading at least comes in between.
        let over = |a: &mut Agent| a.ending.is_some_and(|since| (a.calls == 0 && now > since) || killed(since));
        for mut agent in self.agents.extract_if(.., over).collect::<Vec<_>>() {
            agent.ledger.look(PodFacts { ending: true, ended_well: agent.calls == 0, ..PodFacts::default() });
            self.gone_pods.push(agent.end());
        }
        for set in &mut self.seen.replica_sets {
            let of = self.agents.iter().filter(|a| a.hash == set.hash && (a.ending.is_some() || set.wanted == 0));
            set.ending = if self.spec.traffic.replicas.is_some() { of.count() as i32 } else { 0 };
        }
    }

    fn follow_set(&mut self, set: &ReplicaSetSeen) {
        let exist = usize::try_from(set.exist).unwrap_or(0);
        let mut of: Vec<Agent> = self.agents.extract_if(.., |a| a.hash == set.hash && a.ending.is_none()).collect();
        // The order in which a ReplicaSet gives pods up; the newest of equals first.
        of.sort_by_key(|a| (!a.ready, -a.cost));
        for mut agent in of.drain(exist.min(of.len())..).collect::<Vec<_>>() {
            if self.spec.traffic.replicas.is_some() {
                agent.ending = Some(self.seen.now);
                agent.ledger.look(PodFacts { ending: true, ..PodFacts::default() });
                self.agents.push(agent);
            } else {
                self.gone_pods.push(agent.end());
            }
        }
        while of.len() < exist {
            self.pods_made += 1;
            let (name, uid) = (format!("{}-{}", set.hash, self.pods_made), format!("pod-{}", self.pods_made));
            let ledger = Ledger::new(&uid, &set.hash, PodFacts::default());
            of.push(Agent {
                name,
                hash: set.hash.clone(),
                calls: 0,
                ready: true,
                readable: true,
                ending: None,
                cost: 0,
                mark: None,
                out: None,
                ledger,
            });
        }
        self.agents.extend(of);
    }

    /// Reads the gauges; what is seen follows.
    pub fn read_pods(&mut self) {
        let now = self.seen.now;
        for agent in &mut self.agents {
            agent.ledger.read(now, Timestamp::MIN, if agent.readable { Ok(agent.calls) } else { Err("no answer".into()) });
        }
        self.see_pods();
    }

    /// What is seen of the pods, by the last readings.
    pub(super) fn see_pods(&mut self) {
        let mut pods: Vec<PodSeen> = self.agents.iter().map(Agent::seen).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        self.seen.pods = pods;
        let cut = |g: &Gone| CutSeen { id: g.ledger.uid.clone(), pod: g.name.clone(), hash: g.hash.clone(), calls: g.ledger.cut_at_end() };
        self.seen.cut = self.gone_pods.iter().map(cut).filter(|c| c.calls > 0).collect();
    }

    /// A call comes in, on one of the pods that get new calls.
    pub fn call(&mut self, dice: usize) {
        let open = self.open_revisions();
        let takes = |a: &&mut Agent| a.ready && a.ending.is_none() && a.out.is_none() && open.contains(&a.hash);
        let mut ready: Vec<&mut Agent> = self.agents.iter_mut().filter(takes).collect();
        if !ready.is_empty() {
            let n = dice % ready.len();
            ready[n].calls += 1;
        }
    }

    /// Somebody hangs up.
    pub fn hang_up(&mut self, dice: usize) {
        let mut talking: Vec<&mut Agent> = self.agents.iter_mut().filter(|a| a.calls > 0).collect();
        if !talking.is_empty() {
            let n = dice % talking.len();
            talking[n].calls -= 1;
        }
    }

    /// Pods of a revision that are ready and out of traffic.
    pub(super) fn out_of(&self, hash: &str) -> i32 {
        let out = self.agents.iter().filter(|a| a.hash == hash && a.ready && a.out.is_some()).count();
        i32::try_from(out).unwrap_or(i32::MAX)
    }

    pub fn calls_of(&self, hash: &str) -> u64 {
        self.agents.iter().filter(|a| a.hash == hash).map(|a| a.calls).sum()
    }
}

impl Agent {
    fn seen(&self) -> PodSeen {
        PodSeen {
            name: self.name.clone(),
            hash: self.hash.clone(),
            ready: self.ready,
            never_ran: false,
            ending: self.ending.is_some(),
            calls: self.ledger.known(),
            idle_since: self.ledger.idle_since(Timestamp::MIN),
            unread: self.ledger.problem().map(String::from),
            cost: self.cost,
            mark: self.mark,
            out: self.out,
        }
    }

    pub(super) fn end(self) -> Gone {
        Gone { name: self.name, hash: self.hash, calls: self.calls, ledger: self.ledger }
    }
}
