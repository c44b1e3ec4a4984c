//! Callbacks: closures that the loop runs when they are due. `select!` is the better tool wherever
//! the loop's state is to be reached.

use std::time::Duration;

use super::keyed;
use crate::reactor::{CallbackContext, CallbackFn, Handle, Slot, SourceKind, TimerId};
use crate::sys::{PointInTime, Time};

/// A closure with a timer: Go's `AfterFunc`. Made by [`Handle::call_after`] and
/// [`Handle::call_at`].
///
/// Dropping the callback cancels it and drops the closure; [`detach`](Self::detach) leaves both to
/// the reactor.
#[must_use = "dropping the callback cancels it: keep it, or call `detach`"]
pub struct Callback {
    slot: Slot,
}

impl Handle {
    /// Runs `f` on the loop's thread, once, `d` from now; and again after each
    /// [`reset`](Callback::reset). Zero is due in the next turn.
    ///
    /// Callbacks run inside `select!`, `wait`, [`sleep_blocking`](Self::sleep_blocking) or
    /// [`Embedded::turn`](crate::Embedded::turn), which then go on. They run before the sources are
    /// looked at, in the order of deadlines. A callback may reset, stop or drop itself and others,
    /// make sources, and run a nested `select!` (which runs no callbacks). A panic in a callback
    /// goes through the `select!` that ran it, and the reactor stays usable. A closure that holds a
    /// `Handle` and is never dropped goes with the reactor.
    ///
    /// Allocates the closure; resetting and running do not. On a reactor that has been dropped `f`
    /// is dropped.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let mut left = 3;
    /// let countdown = reactor.call_after(Duration::from_secs(1), move |cx| {
    ///     println!("{left} at {:?}", cx.scheduled());
    ///     left -= 1;
    ///     if left > 0 {
    ///         cx.reset(Duration::from_secs(1)); // itself
    ///     }
    /// });
    /// reactor.sleep_blocking(Duration::from_secs(10))?;
    /// assert_eq!((reactor.stats().called, countdown.deadline()), (3, None));
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn call_after(
        &self,
        d: Duration,
        f: impl FnMut(&CallbackContext<'_>) + 'static,
    ) -> Callback {
        let callback = self.callback(Box::new(f));
        callback.reset(d);
        callback
    }

    /// [`call_after`](Self::call_after) at a point in time, a [`Time`] or an
    /// [`Instant`](std::time::Instant). A past one is due in the next turn.
    #[track_caller]
    pub fn call_at(
        &self,
        t: impl PointInTime,
        f: impl FnMut(&CallbackContext<'_>) + 'static,
    ) -> Callback {
        let callback = self.callback(Box::new(f));
        callback.reset_at(t);
        callback
    }

    #[track_caller]
    fn callback(&self, f: CallbackFn) -> Callback {
        let slot = Slot::new(self, SourceKind::Callback);
        slot.set_callback(f);
        Callback { slot }
    }
}

impl Callback {
    /// Runs the closure `d` from the real now. Returns true if that took a pending deadline away:
    /// while the closure runs none is pending.
    pub fn reset(&self, d: Duration) -> bool {
        self.slot.arm_after(d)
    }

    /// Runs the closure at `t`. Returns as [`reset`](Self::reset) does.
    pub fn reset_at(&self, t: impl PointInTime) -> bool {
        self.slot.arm(t.into())
    }

    /// Takes a pending deadline away. Returns true if there was one. Afterwards the closure does
    /// not run until a reset.
    pub fn stop(&self) -> bool {
        self.slot.stop()
    }

    /// The time at which the closure is to run; `None` if no deadline is pending.
    pub fn deadline(&self) -> Option<Time> {
        self.slot.deadline()
    }

    /// Lets the callback be late, by `slack` at the most, for the sake of sharing a wake-up with
    /// others: see [`Builder::slack`](crate::Builder::slack).
    pub fn slack(self, slack: Duration) -> Callback {
        self.slot.set_slack(slack);
        self
    }

    /// Names the callback for [`Handle::stop_timer`] and for [`Remote`](crate::Remote) on other
    /// threads.
    pub fn id(&self) -> TimerId {
        self.slot.timer_id(false)
    }

    /// Leaves the callback to the reactor. The callback stays while a deadline is pending. It is
    /// dropped when it has run without a reset, when it is stopped through its id, or with the
    /// reactor.
    pub fn detach(self) -> TimerId {
        let id = self.id();
        self.slot.detach();
        id
    }
}

impl_debug!([] Callback, |it| deadline: it.deadline(), inert: it.slot.is_inert());

keyed!(listed Callback);
