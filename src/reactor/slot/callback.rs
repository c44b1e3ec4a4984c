//! The slot of a callback.

use std::panic::Location;
use std::sync::Arc;

use super::Slot;
use crate::reactor::core::{CallbackFn, Handle};
use crate::reactor::parts::sites::SourceKind;
use crate::reactor::parts::slots::Flag;
use crate::sys::Time;
use crate::wake::Bell;

impl Slot {
    /// Makes a slot that is armed for `t`, and whose expiry is a call of this closure.
    #[track_caller]
    #[inline(never)]
    pub(crate) fn calling(handle: &Handle, t: Time, call: CallbackFn) -> Slot {
        if handle.is_closed() {
            return Slot::inert(&handle.core);
        }
        let slot = Slot::arm_new(&handle.core, (Location::caller(), SourceKind::Callback), t);
        slot.put_callback(call);
        slot
    }

    /// Stores the first closure of the slot.
    #[inline]
    fn put_callback(&self, call: CallbackFn) {
        let live = &self.core().callbacks.live;
        live.set(live.get() + 1);
        self.node().set(Flag::Callback, true);
        self.chunk.put_callback(self.slot, Some(call));
    }

    /// Makes the slot's expiry, or a ring of `bell`, a call that comes once at the most.
    pub(crate) fn set_callback_once(&self, bell: Arc<Bell>, call: CallbackFn) {
        self.node().set(Flag::Once, true);
        if !self.is_inert() {
            *self.chunk.bells.of(self.slot).borrow_mut() = Some(bell);
            self.put_callback(call);
        }
    }

    /// Returns true if the slot has a closure that does not run now.
    pub(crate) fn has_callback(&self) -> bool {
        self.chunk.has_callback(self.slot)
    }

    /// Drops the closure uncalled. Returns true if there was one.
    pub(crate) fn drop_callback(&self) -> bool {
        self.stop();
        let call = self.chunk.take_callback(self.slot);
        call.is_some()
    }

    /// Leaves the slot to the reactor, which frees it after the call.
    pub(crate) fn detach_callback(self) {
        if self.has_callback() {
            self.node().set(Flag::Detached, true);
        }
    }

    /// Leaves the slot to the reactor, which frees it when nothing is pending.
    pub(crate) fn detach(self) {
        if self.deadline().is_some() || self.is_running() {
            self.node().set(Flag::Detached, true);
        }
    }

    /// Returns true if the slot's closure runs now. It is not in its place then.
    fn is_running(&self) -> bool {
        self.node().is(Flag::Callback) && !self.has_callback()
    }
}
