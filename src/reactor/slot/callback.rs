//! The slot of a callback.

use std::sync::Arc;

use super::Slot;
use crate::reactor::core::CallbackFn;
use crate::reactor::parts::slots::Flag;
use crate::wake::Bell;

impl Slot {
    /// Makes the slot's expiry a call.
    pub(crate) fn set_callback(&self, call: CallbackFn) {
        if self.is_inert() {
            return;
        }
        if !self.node().is(Flag::Callback) {
            self.node().set(Flag::Callback, true);
            self.core().callbacks.live.set(self.core().callbacks.live.get() + 1);
        }
        *self.chunk.callbacks.of(self.slot).borrow_mut() = Some(call);
    }

    /// Makes the slot's expiry, or a ring of `bell`, a call that comes once at the most.
    pub(crate) fn set_callback_once(&self, bell: Arc<Bell>, call: CallbackFn) {
        self.node().set(Flag::Once, true);
        if !self.is_inert() {
            *self.chunk.bells.of(self.slot).borrow_mut() = Some(bell);
        }
        self.set_callback(call);
    }

    /// Whether the slot has a closure, which does not run.
    pub(crate) fn has_callback(&self) -> bool {
        self.chunk.has_callback(self.slot)
    }

    /// Takes the closure away. Whether there was one, which is not called then.
    pub(crate) fn drop_callback(&self) -> bool {
        self.stop();
        let call = self.chunk.take_callback(self.slot);
        call.is_some()
    }

    /// Leaves a slot with a closure to the reactor: it is freed when that has been called.
    pub(crate) fn detach_callback(self) {
        if self.has_callback() {
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
        self.node().is(Flag::Callback) && !self.has_callback()
    }
}
