//! Virtual time: a driver that jumps to the next deadline instead of sleeping.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::driver::{Clock, Driver, ReadyFds, VirtualClock, Wait, Wake, WakeWindow};
use crate::sys::Time;

/// A driver on a virtual clock: a loop under it runs a week of heartbeats in a millisecond, and the
/// same way every time.
///
/// Blocking moves the clock to the armed deadline (with slack, to the end of it) and returns. When
/// nothing is armed and nobody woke the reactor, nothing can ever happen, and the blocking call
/// fails with [`io::ErrorKind::Deadlock`]. Clones share the clock: keep one to read it or to
/// advance it.
///
/// One reactor, one thread. A sender on another thread works, but *when* its message arrives is
/// then up to the scheduler.
///
/// ```
/// use pollmux::{Reactor, Sim, Time, select};
/// use std::time::Duration;
///
/// let sim = Sim::new();
/// let reactor = Reactor::with_driver(sim.clone())?;
/// let heartbeat = reactor.every(Duration::from_secs(3600))?;
/// for _ in 0..24 * 7 {
///     select! { reactor; recv(heartbeat) -> tick => assert_eq!(tick.missed, 0) }
/// }
/// assert_eq!(sim.now() - Time::ZERO, Duration::from_secs(7 * 86400)); // a week
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sim {
    clock: VirtualClock,
    woken: Arc<Flag>,
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::Release);
        Ok(())
    }
}

impl Sim {
    /// A clock that starts at [`Time::ZERO`].
    pub fn new() -> Sim {
        Sim::starting_at(Time::ZERO)
    }

    /// A clock that starts at `t`. With `Time::now()` deadlines given as `Instant` keep their
    /// meaning. On a clock that starts at [`Time::ZERO`] an `Instant` is a time far ahead, and for
    /// a [`Context`](crate::Context) a panic.
    pub fn starting_at(t: Time) -> Sim {
        Sim { clock: VirtualClock::new(t), woken: Arc::default() }
    }

    /// The time of the clock.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Moves the clock on by `d`, as if the loop had been busy for so long. The next turn sees what
    /// is due then; [`Handle::now`](crate::Handle::now) goes on giving the time of the turn before,
    /// [`Sim::now`] gives the new one.
    pub fn advance(&self, d: Duration) {
        self.clock.advance_to(self.clock.now() + d);
    }
}

impl Driver for Sim {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        _: &mut ReadyFds,
    ) -> io::Result<()> {
        if self.woken.0.swap(false, Ordering::Acquire) || how == Wait::Poll {
            return Ok(());
        }
        match deadline {
            Some(deadline) if deadline.latest < Time::MAX => {
                self.clock.advance_to(deadline.latest);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::Deadlock,
                "deadlock in virtual time: nothing is due, no timer is armed and nobody has woken \
                 the reactor",
            )),
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.woken.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Virtual(self.clock.clone())
    }
}
