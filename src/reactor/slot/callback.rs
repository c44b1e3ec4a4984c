//! The slot of a callback.

use std::sync::Arc;

use super::Slot;
use crate::reactor::core::Call;
use crate::reactor::parts::slots::Flag;
use crate::wake::Bell;

impl Slot {
    /// Makes the slot's expiry a call.
    pub(crate) fn set_call(&self, call: Call) {
        if self.is_inert() {
            return;
        }
        if !self.node().is(Flag::Callback) {
            self.node().set(Flag::Callback, true);
            self.core().callbacks.live.set(self.core().callbacks.live.get() + 1);
        }
        *self.chunk.calls.of(self.slot).borrow_mut() = Some(call);
    }

    /// Makes the slot's expiry, or a ring of `bell`, a call that comes once at the most.
    pub(crate) fn set_call_once(&self, bell: Arc<Bell>, call: Call) {
        self.node().set(Flag::Once, true);
        if !self.is_inert() {
            *self.chunk.bells.of(self.slot).borrow_mut() = Some(bell);
        }
        self.set_call(call);
    }

    /// Whether the slot has a closure, which does not run.
    pub(crate) fn has_call(&self) -> bool {
        self.chunk.has_call(self.slot)
    }

    /// Takes the closure away. Whether there was one, which is not called then.
    pub(crate) fn drop_call(&self) -> bool {
        self.stop();
        let call = self.chunk.take_call(self.slot);
        call.is_some()
    }

    /// Leaves a slot with a closure to the reactor: it is freed when that has been called.
    pub(crate) fn detach_call(self) {
        if self.has_call() {
            self.node().set(Flag::Detached, true);
        }
    }

    /// Leaves the slot to the reactor: it is freed when nothing is pending any more.
    pub(crate) fn detach(self) {
        if self.deadline().is_some() || self.is_running() {
            self.node().set(Flag::Detached, true);
        }
    }

    /// Whether the slot's closure runs now: then it is not in its place.
    fn is_running(&self) -> bool {
        self.node().is(Flag::Callback) && !self.has_call()
    }
}
