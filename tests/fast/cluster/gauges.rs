//! Gauges of live calls: true ones of the world's pods, which a test can break.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use voicerollout::sim::world::CallBook;
use voicerollout::sources::calls::{CallCounter, CallsQuestion, Readings};

/// Gauges of live calls.
pub struct Gauges {
    truth: CallBook,
    /// Pods that are asked and do not answer: those whose name contains this.
    silent: Mutex<Option<String>>,
    /// The last number that each pod gave.
    last: Mutex<HashMap<String, u64>>,
}

impl Gauges {
    /// True ones.
    pub fn of(truth: CallBook) -> Self {
        Self { truth, silent: Mutex::default(), last: Mutex::default() }
    }

    /// Pods whose name contains `part` do not answer from now on; `None`: all do.
    pub fn silence(&self, part: Option<&str>) {
        *self.silent.lock() = part.map(String::from);
    }

    /// The last number that a pod gave; 0 for one that gave none.
    pub fn last(&self, pod: &str) -> u64 {
        self.last.lock().get(pod).copied().unwrap_or(0)
    }
}

impl CallCounter for Gauges {
    fn count<'a>(&'a self, question: &'a CallsQuestion) -> BoxFuture<'a, Readings> {
        let silent = self.silent.lock().clone();
        async move {
            let mut readings = self.truth.count(question).await;
            for (pod, reading) in &mut readings {
                if silent.as_ref().is_some_and(|part| pod.contains(part)) {
                    *reading = Err("no answer".into());
                }
                if let Ok(calls) = reading {
                    self.last.lock().insert(pod.clone(), *calls);
                }
            }
            readings
        }
        .boxed()
    }
}
