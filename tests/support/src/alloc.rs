//! Counts allocations, and checks that an operation makes none after a warm-up.

#[path = "../../../examples/common/mod.rs"]
mod common;

pub use common::{allocations, bytes, frees};

/// The allocator of every program with this crate. Each thread has its own counters.
#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

/// Runs `operation` `rounds` times as a warm-up, and then as often without an allocation. The
/// operation gets the number of the round.
#[track_caller]
pub fn allocates_nothing(rounds: u64, mut operation: impl FnMut(u64)) {
    (0..rounds).for_each(&mut operation);
    let before = allocations();
    (rounds..2 * rounds).for_each(&mut operation);
    let made = allocations() - before;
    assert_eq!(made, 0, "{made} allocations in {rounds} rounds after {rounds} rounds of warm-up");
}
