//! The operator on the simulated API server, in virtual time.

mod bad_input;
mod cluster;
mod comparison;
mod crash;
mod idle;
mod left;
mod release;
