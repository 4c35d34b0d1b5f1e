//! Tests of the state machine against a small pure world.

mod cluster;
mod events;
mod explanations;
mod pods;
mod pods_invariants;
mod specs;
pub mod world;

mod aborts;
mod buckets;
pub mod commands;
mod counts;
mod drains;
mod edits;
mod faults;
mod invariants;
mod left;
mod observed;
mod overrides;
mod people;
mod plans;
mod preflight;
mod properties;
mod releases;
mod spans;
mod workers;
mod workers_invariants;
