//! The operator on the simulated API server, in virtual time.

mod bad_input;
mod bake;
mod buckets;
mod cluster;
mod comparison;
mod crash;
mod drain;
mod gitops;
mod idle;
mod judge_key;
mod left;
mod notifications;
mod preflight;
mod release;
mod shutdown;
mod split;
mod traces;
mod workers;

#[path = "../real/binomial.rs"]
mod binomial;
