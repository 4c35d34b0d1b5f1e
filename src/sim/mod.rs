//! An API server in this process, and a simulated world.
