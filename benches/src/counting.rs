//! The allocator of the examples, which counts allocations.

#[path = "../../examples/common/mod.rs"]
mod common;

pub use common::{allocations, bytes};

#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;
