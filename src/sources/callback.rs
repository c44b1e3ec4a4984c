//! Callbacks: closures that the loop runs when they are due. `select!` is the better tool where the
//! code needs the loop's state.

use std::time::Duration;

use super::keyed;
use crate::reactor::{CallbackContext, CallbackFn, Handle, Slot, TimerId};
use crate::sys::{PointInTime, Time};

/// A closure with a timer: Go's `AfterFunc`. Made by [`Handle::call_after`] and
/// [`Handle::call_at`].
///
/// Dropping the callback cancels it and drops the closure. [`detach`](Self::detach) leaves both to
/// the reactor.
///
/// ```
/// use pollmux::{Reactor, Sim, Time};
/// use std::{cell::Cell, rc::Rc, time::Duration};
///
/// let second = Duration::from_secs(1);
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let calls = Rc::new(Cell::new(0));
/// let count = calls.clone();
/// let callback = reactor.call_after(second, move |_| count.set(count.get() + 1));
/// assert!(callback.reset(5 * second)); // a deadline was pending
/// callback.reset_at(Time::ZERO + 2 * second);
/// assert_eq!(callback.deadline(), Some(Time::ZERO + 2 * second));
/// reactor.sleep_blocking(3 * second)?;
/// assert_eq!((calls.get(), callback.stop()), (1, false)); // it has run, and is not armed
///
/// callback.reset(second);
/// let id = callback.detach(); // the reactor keeps it while it is armed
/// reactor.sleep_blocking(2 * second)?;
/// assert_eq!((calls.get(), reactor.is_live(id)), (2, false));
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the callback cancels it: keep it, or call `detach`"]
pub struct Callback {
    slot: Slot,
}

impl Handle {
    /// Runs `f` on the loop's thread once, `d` from now, and again after each
    /// [`reset`](Callback::reset). Zero is due in the next turn.
    ///
    /// Callbacks run inside `select!`, `wait`, [`sleep_blocking`](Self::sleep_blocking) or
    /// [`Embedded::turn`](crate::Embedded::turn), which then go on. They run before the reactor
    /// looks at the sources, in the order of deadlines.
    ///
    /// A callback may reset, stop or drop itself and others, make sources, and run a nested
    /// `select!`, which runs no callbacks. A panic in a callback goes through the `select!` that
    /// ran the callback, and the reactor stays usable. A closure that holds a `Handle` goes with
    /// the reactor at the latest. On a reactor that has been dropped, the call drops `f`.
    ///
    /// # Cost
    /// Allocates the closure if it holds more than a word, as one `Rc` or one `u32`. Resetting and
    /// running do not allocate.
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
        let at = self.core.clock.count_from(d) + d;
        Callback { slot: Slot::calling(self, at, CallbackFn::new(f)) }
    }

    /// [`call_after`](Self::call_after) at a point in time, a [`Time`] or an
    /// [`Instant`](std::time::Instant). A past time is due in the next turn.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let t = reactor.now() + Duration::from_secs(1);
    /// let callback = reactor.call_at(t, move |cx| assert_eq!(cx.scheduled(), t));
    /// reactor.sleep_blocking(Duration::from_secs(2))?;
    /// assert_eq!(callback.deadline(), None); // it has run
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn call_at(
        &self,
        t: impl PointInTime,
        f: impl FnMut(&CallbackContext<'_>) + 'static,
    ) -> Callback {
        Callback { slot: Slot::calling(self, t.into(), CallbackFn::new(f)) }
    }
}

impl Callback {
    /// Runs the closure `d` from the real now. Returns true if the call took a pending deadline
    /// away. While the closure runs no deadline is pending.
    pub fn reset(&self, d: Duration) -> bool {
        self.slot.arm_after(d)
    }

    /// Runs the closure at `t`. Returns as [`reset`](Self::reset) does.
    pub fn reset_at(&self, t: impl PointInTime) -> bool {
        self.slot.arm(t.into())
    }

    /// Takes a pending deadline away. Returns true if there was a deadline. The closure then does
    /// not run until a reset.
    pub fn stop(&self) -> bool {
        self.slot.stop()
    }

    /// Returns the time at which the closure is to run. `None` if no deadline is pending.
    pub fn deadline(&self) -> Option<Time> {
        self.slot.deadline()
    }

    /// Lets the callback run up to `slack` late, so that it shares a wake-up with others.
    /// [`Builder::slack`](crate::Builder::slack) has an example.
    pub fn slack(self, slack: Duration) -> Callback {
        self.slot.set_slack(slack);
        self
    }

    /// Returns the name of the callback for [`Handle::stop_timer`], and for a
    /// [`Remote`](crate::Remote) on other threads.
    pub fn id(&self) -> TimerId {
        self.slot.timer_id(false)
    }

    /// Leaves the callback to the reactor, and returns its id. The callback stays while a deadline
    /// is pending. The reactor drops the callback when it has run without a reset, when it is
    /// stopped through its id, or with itself.
    pub fn detach(self) -> TimerId {
        let id = self.id();
        self.slot.detach();
        id
    }
}

impl_debug!([] Callback, |it| deadline: it.deadline(), inert: it.slot.is_inert());

keyed!(listed Callback);
