//! Random operations on a reactor in virtual time, compared with a naive model of the rules.
//!
//! | file | content |
//! |---|---|
//! | `ops.rs` | the operations, and their decoding from bytes |
//! | `model.rs` | the model, which follows the rules of docs/DESIGN.md |
//! | `world.rs` | applies each operation to the library and to the model, and compares |
//! | `worlds.rs` | the members of a `SimWorld`, and the checks of their messages and times |
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
    /// Operations on one reactor.
    Ops,
    /// Operations on one reactor, and the faults of its driver.
    Faults,
    /// Operations of the members of a `SimWorld`.
    Worlds,
}

impl Target {
    /// Returns the bytes of one operation. The header before the first has [`ops::HEADER`] bytes.
    pub fn chunk(self) -> usize {
        match self {
            Target::Ops => ops::CHUNK,
            Target::Faults => ops::CHUNK + ops::FAULTS,
            Target::Worlds => worlds::CHUNK,
        }
    }

    /// Runs an input. The error names the difference between the library and the model.
    pub fn run(self, bytes: &[u8]) -> (Result<(), String>, Coverage) {
        match self {
            Target::Ops | Target::Faults => world::run(&ops::decode(bytes, self == Target::Faults)),
            Target::Worlds => worlds::run(&worlds::decode(bytes)),
        }
    }

    /// Returns the operations of an input as text, one in each line.
    pub fn describe(self, bytes: &[u8]) -> String {
        match self {
            Target::Ops | Target::Faults => ops::decode(bytes, self == Target::Faults).to_string(),
            Target::Worlds => worlds::decode(bytes).to_string(),
        }
    }

    /// Runs an input for a fuzzer. Panics at a difference.
    pub fn expect(self, bytes: &[u8]) {
        if let (Err(text), _) = self.run(bytes) {
            panic!("{}  {text}", self.describe(bytes));
        }
    }
}
