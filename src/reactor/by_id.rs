//! Operations on timers by id, for the reactor's thread and for others.

use std::time::Duration;

use super::core::{Core, Handle};
use super::parts::asks::Ask;
use super::parts::slots::{Flag, State};
use super::parts::timer_id::{TimerError, TimerId};
use crate::sys::{PointInTime, Time, nanos};

impl Handle {
    /// Stops the timer, ticker or callback that `id` names. Returns as its own `stop` does. A
    /// detached callback is gone then.
    ///
    /// # Errors
    /// When the timer has been dropped, or belongs to another reactor.
    ///
    /// ```
    /// use pollmux::{Reactor, reactor::TimerError};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let timer = reactor.after(Duration::from_secs(1));
    /// let id = timer.id();
    /// assert_eq!(reactor.reset_timer(id, Duration::from_secs(2)), Ok(true));
    /// assert_eq!(reactor.stop_timer(id), Ok(true));
    /// assert!(reactor.is_live(id));
    /// drop(timer);
    /// assert_eq!(reactor.stop_timer(id), Err(TimerError::Dead));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn stop_timer(&self, id: TimerId) -> Result<bool, TimerError> {
        let slot = self.timer_slot(id)?;
        let core = &self.core;
        let chunk = core.table.borrow().slots.chunk(slot).clone();
        let stopped = Core::stop(&chunk, slot);
        if stopped && chunk.node(slot).is(Flag::Detached) && chunk.has_callback(slot) {
            core.release(&chunk, slot);
        }
        Ok(stopped)
    }

    /// Resets the timer, ticker or callback that `id` names, to `d` from the real now. A ticker
    /// gets `d` as its period. Returns as its own `reset` does. [`stop_timer`](Self::stop_timer)
    /// has an example.
    ///
    /// # Errors
    /// The errors of [`stop_timer`](Self::stop_timer), and for a ticker with a period of zero.
    pub fn reset_timer(&self, id: TimerId, d: Duration) -> Result<bool, TimerError> {
        if id.ticker && d.is_zero() {
            return Err(TimerError::ZeroPeriod);
        }
        let at = self.core.clock.count_from(d) + d;
        self.reset_to(id, at, nanos(d))
    }

    /// Resets the timer or callback that `id` names to `t`. For a ticker the next tick is at `t`,
    /// and the period stays. Returns as its own `reset` does.
    ///
    /// # Errors
    /// The errors of [`stop_timer`](Self::stop_timer).
    ///
    /// ```
    /// use pollmux::Reactor;
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let tick = reactor.every(Duration::from_secs(60))?;
    /// reactor.reset_timer_at(tick.id(), reactor.now()).unwrap(); // a tick at once
    /// reactor.recv(&tick)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn reset_timer_at(&self, id: TimerId, t: impl PointInTime) -> Result<bool, TimerError> {
        let slot = self.timer_slot(id)?;
        let chunk = self.core.table.borrow().slots.chunk(slot).clone();
        Ok(Core::arm(&chunk, slot, t.into()))
    }

    /// Resets a timer to `at`; a ticker gets `period`, ns.
    fn reset_to(&self, id: TimerId, at: Time, period: u64) -> Result<bool, TimerError> {
        self.set_period(id, period)?;
        self.reset_timer_at(id, at)
    }

    /// Gives a ticker its period, ns. Leaves other timers alone.
    fn set_period(&self, id: TimerId, period: u64) -> Result<(), TimerError> {
        let slot = self.timer_slot(id)?;
        if id.ticker {
            self.core.table.borrow().slots.chunk(slot).periods.of(slot).set(period);
        }
        Ok(())
    }

    /// Does what other threads have asked of one timer. The result is as if each request had been
    /// done. Returns how many came too late.
    pub(super) fn do_asked(&self, ask: Ask) -> u64 {
        let id = TimerId { reactor: self.core.number, token: ask.token, ticker: ask.ticker };
        if self.timer_slot(id).is_err() {
            return ask.dead + ask.count;
        }
        // Also before a reset: a detached callback that was stopped is gone.
        if ask.has_stop && self.stop_timer(id).is_ok() && self.timer_slot(id).is_err() {
            return ask.dead + ask.after_stop;
        }
        // These cannot fail: the timer is there.
        if ask.has_reset {
            let _ = self.reset_to(id, Time::from_nanos(ask.at), ask.d);
            // After the reset, because a ticker that goes on keeps to the grid of the last one.
            if ask.stops {
                let _ = self.stop_timer(id);
            }
        }
        ask.dead
    }

    /// Returns true if the timer that `id` names exists, armed or not.
    /// [`stop_timer`](Self::stop_timer) has an example.
    pub fn is_live(&self, id: TimerId) -> bool {
        self.timer_slot(id).is_ok()
    }

    fn timer_slot(&self, id: TimerId) -> Result<u32, TimerError> {
        if id.reactor != self.core.number {
            return Err(TimerError::OtherReactor);
        }
        if self.core.forked.get() {
            return Err(TimerError::Forked);
        }
        let table = self.core.table.borrow();
        let slot = table.slots.resolve(id.token).ok_or(TimerError::Dead)?;
        debug_assert_ne!(table.slots.node(slot).state.get(), State::Free);
        Ok(slot)
    }
}
