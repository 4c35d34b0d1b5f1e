//! What an idle operator asks of the API server: ten minutes in virtual time, on the simulated server.

use std::time::{Duration, Instant};

use voicerollout::api::status::Phase;
use voicerollout::sim::Verb;

use crate::cluster::{AGENT, Cluster};

/// Prints the requests of ten idle minutes with `count` rollouts.
pub fn run(count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        println!("\nrequests of ten idle minutes with {count} rollouts, in virtual time on the simulated API server");
        let begin = Instant::now();
        let cluster = Cluster::start().await;
        for i in 0..count {
            // A digit after the name keeps the label `app` of each rollout its own.
            let manifests = AGENT.replace("agent", &format!("agent{i}")).replace("replicas: 4", "replicas: 1");
            cluster.apply(&manifests).await;
        }
        for i in 0..count {
            cluster.wait_phase(&format!("agent{i}"), Phase::Healthy).await;
        }
        // What follows the last status write: events, reads of its own writes.
        tokio::time::sleep(Duration::from_secs(60)).await;
        cluster.server.clear_journal();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let of = |watches: bool| cluster.server.requests_where(|r| &*r.user == "operator" && (r.verb == Verb::Watch) == watches).len();
        println!("  {} (and {} renewals of watches)", of(false), of(true));
        eprintln!("took {:.1?} of real time", begin.elapsed());
    });
}
