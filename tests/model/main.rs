//! Whole histories: timers against a model of them, and simulated worlds.
#![cfg(in_repository)]

mod sim_explore;
mod sim_faults;
mod sim_world;
mod timer_model;
