//! The books of callbacks: which are live, and which a turn has called.

use std::cell::{Cell, RefCell};

use crate::sys::Time;

/// The callbacks of a reactor. Those that are due are in the [table](super::table).
#[derive(Debug)]
pub(crate) struct Callbacks {
    pub(crate) live: Cell<usize>,
    /// A closure runs.
    pub(crate) running: Cell<bool>,
    /// The last turn that has called callbacks. The tokens of its last batch, with the time of each
    /// call as the turn had read the clock.
    pub(crate) in_turn: RefCell<(u64, Vec<(u64, Time)>)>,
    /// An instant of a virtual clock, the rounds of callbacks that were run at it, and how many
    /// callbacks the last round still has.
    pub(crate) instant: Cell<(Time, u32, usize)>,
    /// Callbacks that bells have made due, while they are put in order.
    pub(crate) rung: RefCell<Vec<(u64, u32)>>,
    /// The most callbacks that a batch calls.
    pub(crate) batch: usize,
}

impl Callbacks {
    /// No callbacks, of which a turn runs `batch`.
    pub(crate) fn new(batch: usize) -> Callbacks {
        Callbacks {
            live: Cell::new(0),
            running: Cell::new(false),
            in_turn: RefCell::default(),
            instant: Cell::new((Time::ZERO, 0, 0)),
            rung: RefCell::default(),
            batch: batch.max(1),
        }
    }
}
