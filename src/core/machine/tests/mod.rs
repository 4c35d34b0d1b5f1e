//! Tests of the state machine against a small pure world.

mod cluster;
mod specs;
mod world;

mod releases;
