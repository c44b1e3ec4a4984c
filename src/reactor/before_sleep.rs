//! The look for due timers before a sleep, and the requests that each source makes then.

use super::core::Core;
use crate::driver::WakeWindow;
use crate::sys::{PointInTime, Time};

/// The requests of a [`Source`](crate::Source) just before its reactor sleeps. The argument of
/// [`Source::before_sleep`](crate::Source::before_sleep).
///
/// ```
/// use pollmux::{Handle, Reactor, Sim, Source, Time, select, sources::BeforeSleep};
/// use std::time::Duration;
///
/// /// Ready from a given time on.
/// struct From(Handle, Time);
///
/// impl Source for From {
///     type Item = ();
///     fn is_ready(&self) -> bool {
///         self.0.now() >= self.1
///     }
///     fn try_take(&self) -> Option<()> {
///         self.is_ready().then_some(())
///     }
///     fn before_sleep(&self, sleep: &mut BeforeSleep<'_>) -> std::io::Result<()> {
///         if sleep.now() >= self.1 {
///             sleep.stay_awake();
///         } else if !sleep.is_awake() {
///             sleep.wake_at(self.1);
///         }
///         Ok(())
///     }
/// }
///
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let source = From(reactor.handle(), Time::ZERO + Duration::from_secs(1));
/// select! { reactor; recv(source) -> () => assert_eq!(reactor.now(), source.1) }
/// # std::io::Result::Ok(())
/// ```
pub struct BeforeSleep<'a> {
    pub(super) core: &'a Core,
    pub(super) awake: bool,
    pub(super) deadline: Time,
}

impl BeforeSleep<'_> {
    /// Prevents the sleep, because the source is ready, or will be in a moment.
    pub fn stay_awake(&mut self) {
        self.awake = true;
    }

    /// Ends the sleep at `t` at the latest.
    pub fn wake_at(&mut self, t: impl PointInTime) {
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

    /// Returns the time of this turn.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }
}

impl_debug!([] BeforeSleep<'_>, |it| awake: it.awake, deadline: it.deadline);

impl Core {
    /// Returns true if a timer or a callback is due, so that a sleep may not begin.
    #[inline]
    pub(super) fn is_kept_awake(&self, until: Option<Time>) -> bool {
        if self.timers.next_due.get() != self.timers.cleaned_for.get() || self.clock.is_virtual() {
            // The driver may have to be armed for another key. If that key is stale it is put right
            // first, a bounded number of times. A key that is armed already is put right after it
            // has woken us. But virtual time does not go to a key at which nothing is due.
            self.expire(Time::ZERO);
            self.timers.cleaned_for.set(self.timers.next_due.get());
        }
        (self.clock.was_due(self.timers.next_due.get()) || self.has_due_callbacks())
            && !(self.clock.is_virtual() && self.time_stands_still(until))
    }

    /// Returns the driver's deadline: the one that the timers need, and `until` at the latest.
    #[inline]
    pub(super) fn sleep_until(&self, until: Time) -> Option<WakeWindow> {
        if !self.timers.slacked.get() && self.spinner.precise == 0 {
            let at = Time::from_nanos(self.timers.next_due.get()).min(until);
            self.timers.put_off.set(false);
            return (at != Time::MAX).then_some(at.into());
        }
        self.sleep_within(until)
    }

    /// Returns the window in which a sleep is to end for the timers.
    pub(super) fn timers_due(&self) -> WakeWindow {
        let first = self.timers.next_due.get();
        let latest = if self.timers.slacked.get() {
            let table = &mut *self.table.borrow_mut();
            // The window does not begin before the first key. The entry looked at may be stale, and
            // earlier than the deadline that it stands for.
            table
                .heap
                .latest(&table.slots, self.timers.slack.get(), self.timers.least_slack.get())
                .max(first)
        } else {
            first
        };
        WakeWindow { earliest: Time::from_nanos(first), latest: Time::from_nanos(latest) }
    }

    /// [`sleep_until`](Self::sleep_until) where a timer may be late, or is met by spinning.
    #[inline(never)]
    fn sleep_within(&self, until: Time) -> Option<WakeWindow> {
        let WakeWindow { earliest, latest } = self.spinner.ahead(self.timers_due());
        let deadline = WakeWindow { earliest: earliest.min(until), latest: latest.min(until) };
        self.timers.put_off.set(deadline.earliest < deadline.latest);
        (deadline.latest != Time::MAX).then_some(deadline)
    }
}
