//! The operator on the simulated API server, in virtual time.

mod buckets;
mod cluster;
mod comparison;
mod crash;
mod idle;
mod left;
mod release;
mod split;
