//! Tests of the state machine against a small pure world.

mod cluster;
mod events;
mod explanations;
mod pods;
mod specs;
mod world;

mod aborts;
mod counts;
mod drains;
mod edits;
mod faults;
mod invariants;
mod left;
mod people;
mod plans;
mod preflight;
mod properties;
mod releases;
