//! The last word of a source before its reactor sleeps.

use super::core::Core;
use crate::sys::Time;

/// The requests of a [`Source`](crate::Source) just before its reactor sleeps.
pub struct BeforeSleep<'a> {
    pub(super) core: &'a Core,
    pub(super) awake: bool,
    pub(super) deadline: Time,
}

impl BeforeSleep<'_> {
    /// Prevents the sleep: the source is ready, or will be in a moment.
    pub fn stay_awake(&mut self) {
        self.awake = true;
    }

    /// Ends the sleep at `t` at the latest.
    pub fn wake_at(&mut self, t: impl Into<Time>) {
        self.deadline = self.deadline.min(t.into());
    }

    /// Ends the sleep in a moment: the source cannot be sure of a wake-up.
    pub(crate) fn nap(&mut self) {
        self.core.sleep.napping.set(true);
    }

    /// Returns true if a source has prevented the sleep.
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// The time of this turn.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }
}

impl_debug!([] BeforeSleep<'_>, |it| awake: it.awake, deadline: it.deadline);
