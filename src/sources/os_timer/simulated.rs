//! A kernel timer in virtual time. Its slot is armed like that of a [`Timer`](crate::Timer).
//!
//! When the virtual wall clock is set, on any thread, it calls a closure of each timer. The closure
//! posts a change that makes an armed timer due, which wakes the loop. A timer whose clock was set
//! since its arm reports that, and is armed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{ClockSet, OsClock};
use crate::driver::VirtualClock;
use crate::reactor::{Handle, Slot};
use crate::sys::{Time, TimerClock};

pub(super) struct Simulated {
    pub(super) clock: VirtualClock,
    state: Arc<State>,
    /// The closure that the wall clock calls when it is set. The drop of the timer ends the calls.
    _tell: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The state of a timer, which only the loop's thread uses, also in posts.
#[derive(Default)]
struct State {
    /// True if a deadline is pending, or has passed and was not received.
    armed: AtomicBool,
    /// The number of times that the wall clock had been set at the last arm.
    known: AtomicU64,
}

impl State {
    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Returns true if the wall clock was set while the timer was armed, without a report.
    fn has_news(&self, clock: &VirtualClock) -> bool {
        self.is_armed() && self.known.load(Ordering::Relaxed) != clock.wall_sets()
    }
}

impl Simulated {
    pub(super) fn new<C: OsClock>(clock: VirtualClock, handle: &Handle, slot: &Slot) -> Simulated {
        // A kernel timer has no slack.
        slot.be_exact();
        let state = Arc::new(State::default());
        let mut tell = None;
        if C::CLOCK == TimerClock::Wall {
            let (remote, id) = (handle.remote(), slot.timer_id(false));
            let (clock, state) = (clock.clone(), state.clone());
            let told: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
                let (clock, state) = (clock.clone(), state.clone());
                // The post fails if the reactor is gone, and no loop waits.
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

    /// Takes the report of a set clock, or else the expiry. `scheduled` is the armed time.
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
            // The post of a set clock came after its report.
            self.arm::<C>(slot, scheduled);
            return None;
        }
        slot.try_take();
        self.stop();
        Some(Ok(scheduled))
    }
}
