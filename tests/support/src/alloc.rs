//! The means of tests that count allocations: the counting allocator, and the two passes, one to
//! warm up and one that is counted.

#[path = "../../../examples/common/mod.rs"]
mod common;

pub use common::{allocations, bytes, frees};

/// Of every program that has this crate. Each thread counts for itself.
#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

/// Runs `operation` to warm it up, and then as often again, when it must not allocate. It is given
/// the number of the round.
#[track_caller]
pub fn allocates_nothing(rounds: u64, mut operation: impl FnMut(u64)) {
    (0..rounds).for_each(&mut operation);
    let before = allocations();
    (rounds..2 * rounds).for_each(&mut operation);
    let made = allocations() - before;
    assert_eq!(made, 0, "{made} allocations in {rounds} rounds after {rounds} rounds of warm-up");
}
