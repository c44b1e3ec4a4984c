//! The last word of a source before its reactor sleeps.

use std::fmt;

use super::core::Core;
use crate::sys::Time;

/// What a [`Source`](crate::Source) learns and can ask for when its reactor is about to block.
pub struct BeforeSleep<'a> {
    pub(super) core: &'a Core,
    pub(super) awake: bool,
    pub(super) deadline: Time,
}

impl BeforeSleep<'_> {
    /// Do not sleep: the source has something, or will have it in a moment.
    pub fn stay_awake(&mut self) {
        self.awake = true;
    }

    /// End the wait at `t` at the latest.
    pub fn wake_at(&mut self, t: impl Into<Time>) {
        self.deadline = self.deadline.min(t.into());
    }

    /// Ends the wait in a moment: the source cannot be sure of a wake-up.
    pub(crate) fn nap(&mut self) {
        self.core.sleep.napping.set(true);
    }

    /// Whether the wait is over before it began.
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// The time of this turn.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }
}

impl fmt::Debug for BeforeSleep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeforeSleep")
            .field("awake", &self.awake)
            .field("deadline", &self.deadline)
            .finish()
    }
}
