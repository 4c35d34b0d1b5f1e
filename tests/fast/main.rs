//! The operator on the simulated API server, in virtual time.

mod bad_input;
mod buckets;
mod cluster;
mod comparison;
mod crash;
mod drain;
mod idle;
mod judge_key;
mod left;
mod notifications;
mod preflight;
mod release;
mod split;
