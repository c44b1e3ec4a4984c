//! A kernel timer in virtual time: the slot is armed as that of a [`Timer`](crate::Timer) is.
//!
//! The virtual wall clock tells its timers when it is set, on any thread. A post then makes the
//! armed ones due, which wakes the loop. A timer that finds the clock set since it was armed gives
//! that news, and is armed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{ClockSet, OsClock};
use crate::driver::VirtualClock;
use crate::reactor::{Handle, Slot};
use crate::sys::{Time, TimerClock};

pub(super) struct Simulated {
    pub(super) clock: VirtualClock,
    state: Arc<State>,
    /// Called when the wall clock was set. Dropped with the timer.
    _tell: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Changed on the loop's thread only, where posts look at it, too.
#[derive(Default)]
struct State {
    /// A deadline is pending, or has passed and was not received.
    armed: AtomicBool,
    /// The number of the setting of the wall clock that the timer knows of.
    known: AtomicU64,
}

impl State {
    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Returns true if the wall clock was set while the timer was armed, and nobody was told.
    fn has_news(&self, clock: &VirtualClock) -> bool {
        self.is_armed() && self.known.load(Ordering::Relaxed) != clock.wall_sets()
    }
}

impl Simulated {
    pub(super) fn new<C: OsClock>(clock: VirtualClock, handle: &Handle, slot: &Slot) -> Simulated {
        // Exact, as a kernel timer is.
        slot.be_exact();
        let state = Arc::new(State::default());
        let mut tell = None;
        if C::CLOCK == TimerClock::Wall {
            let (remote, id) = (handle.remote(), slot.timer_id(false));
            let (clock, state) = (clock.clone(), state.clone());
            let told: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
                let (clock, state) = (clock.clone(), state.clone());
                // Without a reactor nobody waits.
                let _ = remote.post(move |handle| {
                    if state.has_news(&clock) {
                        let _ = handle.reset_timer_at(id, Time::ZERO);
                    }
                });
            });
            tell = Some(told);
        }
        if let Some(tell) = &tell {
            clock.tell_when_set(tell);
        }
        Simulated { clock, state, _tell: tell }
    }

    pub(super) fn arm<C: OsClock>(&self, slot: &Slot, t: C::Time) {
        let known = if C::CLOCK == TimerClock::Wall { self.clock.wall_sets() } else { 0 };
        self.state.known.store(known, Ordering::Relaxed);
        self.state.armed.store(true, Ordering::Relaxed);
        let now = C::nanos(C::virtual_now(&self.clock));
        let ahead = C::nanos(t).saturating_sub(now);
        slot.arm(Time::from_nanos(self.clock.now().as_nanos().saturating_add(ahead)));
    }

    pub(super) fn stop(&self) {
        self.state.armed.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_armed(&self) -> bool {
        self.state.is_armed()
    }

    fn has_news<C: OsClock>(&self) -> bool {
        C::CLOCK == TimerClock::Wall && self.state.has_news(&self.clock)
    }

    pub(super) fn is_ready<C: OsClock>(&self, slot: &Slot) -> bool {
        slot.is_due() || self.has_news::<C>()
    }

    /// Takes the news that the clock was set, or else the expiry. `scheduled` is what was armed.
    pub(super) fn try_take<C: OsClock>(
        &self,
        slot: &Slot,
        scheduled: C::Time,
    ) -> Option<Result<C::Time, ClockSet>> {
        if self.has_news::<C>() {
            self.arm::<C>(slot, scheduled);
            slot.count();
            return Some(Err(ClockSet));
        }
        if !slot.is_due() {
            return None;
        }
        if C::nanos(C::virtual_now(&self.clock)) < C::nanos(scheduled) {
            // A post came after the news.
            self.arm::<C>(slot, scheduled);
            return None;
        }
        slot.try_take();
        self.stop();
        Some(Ok(scheduled))
    }
}
