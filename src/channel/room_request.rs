//! An outbox that has found its channel full asks to be told of room.
//!
//! Its bell waits in the channel's list (`room.rs`). A receive takes the bell out and rings it,
//! which marks the outbox in its reactor. Then the reactor looks at the channel.
//!
//! # Why nothing is lost
//! The reactor asks for a mark, enters the bell, makes the heavy fence and looks for room. The
//! receiver makes room, makes the light fence and looks at the list. So the receiver finds the
//! bell, or the reactor finds the room. A bell that stays in the list needs no second fence: every
//! receive since the first one finds it.
//!
//! A thread that has taken the bell out may be late with the ring. The ring is an exchange and then
//! a look at the request; the reactor asks, makes a fence and then hears the bell. So the late
//! thread finds the new request, or the reactor finds the bell rung and enters it again.

use std::sync::Arc;
// Only the reactor's thread uses these flags.
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Sender;
use super::room::Waiter;
use super::sender::Sending;
use super::state::State;
use crate::sync::{Ordering, fence, heavy_fence};
use crate::wake::{Bell, Look, Probe, Request, RequestCell};

/// An outbox's request for room. The module's text describes it.
pub(crate) struct RoomRequest {
    state: Arc<State>,
    bell: Arc<Bell>,
    /// A send has found the channel full, and the user was not told of room since then.
    open: AtomicBool,
    /// The bell is in the list, or is about to be rung.
    entered: AtomicBool,
    /// The fence was made, so every receive finds the bell in the list.
    sure: AtomicBool,
}

impl<T> Sender<T> {
    /// Opens a request for room, which rings `bell`. `None` at a rendezvous, which is always full.
    pub(crate) fn room_request(&self, bell: Bell) -> Option<Arc<RoomRequest>> {
        let Sending::Buffer(tail) = &self.flavor else { return None };
        let (state, bell) = (tail.state().clone(), Arc::new(bell));
        let (entered, sure) = Default::default();
        Some(Arc::new(RoomRequest { state, bell, open: true.into(), entered, sure }))
    }
}

impl RoomRequest {
    /// Opens the request. Returns true if it was not open.
    pub(crate) fn open(&self) -> bool {
        !self.open.swap(true, Relaxed)
    }

    /// Takes the request back for good.
    pub(crate) fn withdraw(&self) {
        if self.entered.load(Relaxed) {
            self.state.room.leave(&Waiter::Outbox(self.bell.clone()));
        }
    }

    /// Enters the bell. Returns false if a receive may miss it.
    fn enter(&self) -> bool {
        let entered =
            self.entered.load(Relaxed) || self.state.room.enter(Waiter::Outbox(self.bell.clone()));
        self.entered.store(entered, Relaxed);
        let sure = heavy_fence() && entered;
        self.sure.store(sure, Relaxed);
        sure
    }

    fn has_room(&self) -> bool {
        self.state.is_closed() || !self.state.is_full()
    }
}

impl Probe for RoomRequest {
    /// Returns false: a request tells once, and not for as long as there is room.
    fn may_be_near(&self) -> bool {
        false
    }

    fn look(&self) -> Look {
        if !self.open.load(Relaxed) {
            return Look::Quiet;
        }
        if self.has_room() {
            return Look::Ready;
        }
        let sure = self.sure.load(Relaxed) || self.enter();
        match () {
            () if self.has_room() => Look::Ready,
            () if sure => Look::Quiet,
            () => Look::Coming,
        }
    }

    fn request(&self) -> &RequestCell {
        self.bell.request()
    }

    fn ask_and_look(&self, request: Request) -> Look {
        self.ask(request);
        fence(Ordering::SeqCst);
        if self.bell.hear() {
            self.entered.store(false, Relaxed);
            self.sure.store(false, Relaxed);
        }
        self.look()
    }

    fn tell(&self) -> bool {
        let room = self.has_room();
        if room {
            self.open.store(false, Relaxed);
        }
        room
    }

    fn is_told(&self) -> bool {
        !self.open.load(Relaxed)
    }
}
