//! Gates that count calls: counters of both arms become ticks, ticks become evidence, evidence becomes a verdict.
//!
//! A tick is what both arms counted between two moments at which both had been scraped. It is known by the moment it
//! ends at and is taken in once; everything that the next one needs is in the gate's status, which is written before
//! anything acts on the verdict.

mod counters;
mod look;
mod outlook;
mod question;
pub mod replay;
mod selector;
mod sentence;
pub mod simulate;
mod tally;
mod warnings;

pub use counters::{Bucket, PodSample, Snapshot, Sums, Taken, take};
pub use look::{Look, Moment, look, size};
pub use question::{Needs, Question, same};
pub use selector::{Arms, Selector};
pub use sentence::{line_at, passes_at, percent, sentence, times, told};
pub use warnings::unit_warning;

/// Most bytes of all gates' memory in one run: what the API server keeps of an object is limited.
pub const MAX_MEMORY: usize = 200_000;

#[cfg(test)]
mod tests;
