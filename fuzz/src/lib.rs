//! Random operations on a reactor in virtual time, compared with a naive model of the rules.
//!
//! | file | content |
//! |---|---|
//! | `ops.rs` | the operations, and how bytes become operations |
//! | `model.rs` | the model, after the rules of docs/DESIGN.md |
//! | `world.rs` | does each operation to the library and to the model, and compares |
//! | `worlds.rs` | members of a `SimWorld`: what they may see, and one history for one seed |
//! | `main.rs` | a runner for stable Rust: random inputs, coverage, shrinking |

#![allow(missing_docs)]

mod model;
pub mod ops;
mod world;
mod worlds;

pub use crate::world::Coverage;

/// The meaning of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Operations.
    Ops,
    /// Operations, and the faults of the driver.
    Faults,
    /// Members of a `SimWorld`.
    Worlds,
}

impl Target {
    /// Bytes of one operation. What is before the first one has [`ops::HEADER`] bytes.
    pub fn chunk(self) -> usize {
        match self {
            Target::Ops => ops::CHUNK,
            Target::Faults => ops::CHUNK + ops::FAULTS,
            Target::Worlds => worlds::CHUNK,
        }
    }

    /// Runs an input. The error says where the library and the model differ.
    pub fn run(self, bytes: &[u8]) -> (Result<(), String>, Coverage) {
        match self {
            Target::Ops | Target::Faults => world::run(&ops::decode(bytes, self == Target::Faults)),
            Target::Worlds => worlds::run(&worlds::decode(bytes)),
        }
    }

    /// The meaning of an input, a line for each operation.
    pub fn describe(self, bytes: &[u8]) -> String {
        match self {
            Target::Ops | Target::Faults => ops::decode(bytes, self == Target::Faults).to_string(),
            Target::Worlds => worlds::decode(bytes).to_string(),
        }
    }

    /// Panics at a difference, for a fuzzer.
    pub fn expect(self, bytes: &[u8]) {
        if let (Err(text), _) = self.run(bytes) {
            panic!("{}  {text}", self.describe(bytes));
        }
    }
}
