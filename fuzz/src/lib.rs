//! Random operations on a reactor in virtual time, compared with a naive model of the rules.
//!
//! | file | content |
//! |---|---|
//! | `ops.rs` | the operations, and how bytes become operations |
//! | `model.rs` | the model, after the rules of docs/DESIGN.md |
//! | `world.rs` | does each operation to the library and to the model, and compares |
//! | `main.rs` | a runner for stable Rust: random inputs, coverage, shrinking |

#![allow(missing_docs)]

mod model;
pub mod ops;
mod world;

pub use crate::world::Coverage;

/// Runs an input. The error says where the library and the model differ.
pub fn run(bytes: &[u8]) -> (Result<(), String>, Coverage) {
    world::run(&ops::decode(bytes))
}
