//! The default driver: the system's poller with one kernel timer and one waker in it.
//!
//! The timer is armed inside the call that blocks, and only when the new deadline is before the
//! armed one. A stale early wake-up costs a turn, and a `settime` costs more. Neither timer nor
//! waker is ever read. A deadline within two microseconds is not armed: the driver looks at the
//! clock until then, and at the poller once.
//!
//! On epoll the timeout of a wait can replace the timer, which saves the `settime`. The driver
//! shortens the timeout by the kernel's own slack. So the wait ends at the deadline, or earlier by
//! at most that slack. The driver assumes that the next sleep ends like the last one, by its
//! deadline or by a message. A deadline that messages come before is armed once, and stays armed.
//! On kqueue one call arms and waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::{Clock, Driver, ReadyFds, Syscalls, Wait, Wake, WakeWindow};
use crate::sync::forbid_sleep;
use crate::sys::errors::of_wait;
use crate::sys::{Interest, Mode, PollEvents, Poller, PollerTimer, Time, TimeoutSlack, Waker};

// No source has this id: the upper half of an id is a generation, and no generation is the greatest
// number (`reactor/parts/slots/`).
const TIMER: u64 = u64::MAX;
const WAKER: u64 = u64::MAX - 1;

/// The most fds that one wait takes by default. The next wait takes the others.
pub(crate) const BATCH: usize = 1_024;
/// The number of timeouts after which the slack of the thread is read again.
const MEASURED: u32 = 1_024;
/// A deadline that is nearer than this is met by looking at the clock: that takes less of the CPU
/// than to arm the timer, to sleep and to wake up.
const NEAR: Duration = Duration::from_micros(2);
/// Interrupted waits after which a look tells a storm of signals from a filter of syscalls.
const INTERRUPTIONS: u32 = 1_000;
/// The number of the driver's own events in a wait: those of the timer and of the waker.
const OWN: usize = 2;

/// The driver on the system's own poller: epoll with a timerfd and an eventfd, or a kqueue.
///
/// ```
/// use pollmux::{Reactor, driver::Native};
///
/// let reactor = Reactor::with_driver(Native::new()?)?; // as `Reactor::new` does
/// let in_small_batches = Reactor::with_driver(Native::with_batch(16)?)?;
/// # drop((reactor, in_small_batches));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Native {
    poller: Poller,
    timer: PollerTimer,
    waker: Arc<Waker>,
    events: PollEvents,
    /// The deadline of the kernel timer; `MAX` when the timer is not armed or has been seen to
    /// fire.
    armed: Time,
    /// The slack. It is read before the first timeout, and again after every [`MEASURED`] timeouts.
    slack: Option<TimeoutSlack>,
    /// The number of timeouts since the slack was read.
    timeouts: u32,
    /// The deadline of the last timeout. If the deadline comes again, that wait has ended early.
    timed_for: Time,
    /// True if its deadline has ended the last sleep.
    ticks: bool,
    /// The most events that one wait takes.
    most: usize,
    /// The number of registered fds besides our own.
    fds: usize,
    /// The number of waits in a row that were interrupted.
    interruptions: u32,
    /// True if any of the fds ever was in level mode.
    level: bool,
    syscalls: Syscalls,
    made_at: &'static Location<'static>,
}

impl Native {
    /// Makes the driver. On epoll it has three fds, on kqueue one.
    ///
    /// # Errors
    /// The errors of [`Reactor::new`](crate::Reactor::new). A failed call leaves nothing behind.
    ///
    /// # Cost
    /// Five syscalls, on kqueue three.
    #[track_caller]
    pub fn new() -> io::Result<Native> {
        Native::with_batch(BATCH)
    }

    /// Makes the driver with a limit on the fds that one wait takes. The range is 1 to 2^30, and a
    /// value outside becomes the nearest one. The kernel keeps the rest for the next wait, and
    /// every ready fd has its turn.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    #[track_caller]
    pub fn with_batch(batch: usize) -> io::Result<Native> {
        let most = batch.clamp(1, 1 << 30) + OWN;
        let poller = Poller::new()?;
        let (timer, waker) = (PollerTimer::new(&poller, TIMER)?, Waker::new(&poller, WAKER)?);
        Ok(Native {
            poller,
            timer,
            waker: Arc::new(waker),
            events: PollEvents::with_capacity(most.min(16)),
            most,
            armed: Time::MAX,
            slack: None,
            timeouts: 0,
            timed_for: Time::MAX,
            ticks: false,
            fds: 0,
            interruptions: 0,
            level: false,
            syscalls: Syscalls::default(),
            made_at: Location::caller(),
        })
    }

    /// Makes a driver that another poller waits for.
    #[cfg(any(feature = "mio", feature = "polling"))]
    #[track_caller]
    pub(super) fn to_nest() -> io::Result<Native> {
        if !Poller::NESTS {
            let text = "a kqueue of this library cannot be waited for by another poller";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Native::new()
    }

    /// Makes a driver whose poller stays in a `polling::Poller` for its whole life.
    #[cfg(feature = "polling")]
    #[track_caller]
    pub(super) fn nested_in(
        outer: Arc<polling::Poller>,
        interest: polling::Event,
        mode: polling::PollMode,
    ) -> io::Result<Native> {
        let mut native = Native::to_nest()?;
        native.poller.join(outer, interest, mode)?;
        Ok(native)
    }

    /// Returns the new time of the kernel timer, if `deadline` needs one. The caller must then set
    /// the timer.
    #[inline(always)] // see Notify::wake
    fn earlier(&mut self, deadline: Option<WakeWindow>) -> Option<Time> {
        let latest = deadline?.latest;
        if latest >= self.armed {
            return None;
        }
        self.syscalls.arms += 1;
        self.armed = latest;
        Some(latest)
    }

    /// Waits for a deadline that is [`NEAR`] and not armed. Returns false if there is none.
    #[inline(always)]
    fn meets(&self, deadline: Option<WakeWindow>) -> bool {
        deadline.is_some_and(|deadline| deadline.latest < self.armed && meets(deadline.latest))
    }

    /// Returns the timeout that can replace the kernel timer.
    #[inline(always)]
    fn timeout(&mut self, deadline: Option<WakeWindow>) -> Option<Duration> {
        let deadline = deadline.filter(|deadline| deadline.latest < self.armed)?;
        self.timeout_within(deadline)
    }

    #[inline(never)]
    fn timeout_within(&mut self, WakeWindow { earliest, latest }: WakeWindow) -> Option<Duration> {
        let may_be_early = self.ticks && latest != self.timed_for;
        if earliest == latest && !may_be_early {
            return None;
        }
        self.timeouts = self.timeouts.wrapping_add(1);
        let slack = match self.slack {
            Some(slack) if self.timeouts % MEASURED != 0 => slack,
            _ => *self.slack.insert(self.poller.timeout_slack()),
        };
        let now = Time::now();
        let within = || slack.timeout(now, earliest, latest);
        let ahead = || slack.timeout_ahead(now, latest);
        let timeout = (earliest < latest).then(within).flatten();
        let timeout = timeout.or_else(|| may_be_early.then(ahead).flatten());
        if timeout.is_some() {
            self.timed_for = latest;
        }
        timeout
    }

    /// Fails in a thread that must not sleep, because a sleeping member would stop its simulated
    /// world.
    #[inline]
    pub(super) fn may_sleep(&self) -> io::Result<()> {
        forbid_sleep(self.made_at)
    }

    /// Returns true if the last look may have left events in the kernel: for an outer loop in edge
    /// mode.
    #[cfg(feature = "mio")]
    pub(super) fn may_have_more(&self) -> bool {
        self.events.is_full() || (self.level && !self.events.is_empty())
    }

    /// Handles a failed wait. An interrupted wait has armed the timer, because a failed arm has
    /// another kind of error.
    #[cold]
    #[inline(never)]
    fn failed(&mut self, error: io::Error) -> io::Result<()> {
        let mut failed = error;
        if failed.kind() == io::ErrorKind::Interrupted {
            self.interruptions = self.interruptions.wrapping_add(1);
            if self.interruptions % INTERRUPTIONS != 0 {
                return Ok(());
            }
            // No signal interrupts a poll. A filter that interrupts a poll interrupts every poll.
            self.syscalls.polls += 1;
            match self.poller.wait(&mut self.events, Some(Duration::ZERO)) {
                Err(error) => failed = error,
                Ok(()) => return Ok(()),
            }
        }
        // The state of the timer is unknown now, so the next deadline is armed again.
        self.armed = Time::MAX;
        Err(of_wait(failed))
    }

    /// Takes the events of a wait that had this outcome.
    #[inline(always)] // see Notify::wake
    fn take_events(&mut self, waited: io::Result<()>, ready: &mut ReadyFds) -> io::Result<()> {
        if let Err(error) = waited {
            self.failed(error)?;
        }
        for event in self.events.iter() {
            match event.id() {
                TIMER => (self.armed, self.ticks) = (Time::MAX, true),
                WAKER => ready.see_wake(),
                id => ready.push(id, event.readiness()),
            }
        }
        if self.events.is_full() {
            ready.leave_some();
        }
        Ok(())
    }
}

/// Looks at the clock until `at`, if that is [`NEAR`]. Returns false if it is not.
#[inline(never)]
fn meets(at: Time) -> bool {
    let is_near = at - Time::now() <= NEAR;
    while is_near && Time::now() < at {
        std::hint::spin_loop();
    }
    is_near
}

/// For a driver that lets another poller wait for this one.
impl AsRef<Poller> for Native {
    fn as_ref(&self) -> &Poller {
        &self.poller
    }
}

impl Driver for Native {
    #[inline(always)] // see Notify::wake: a driver around this one has it in its own `wait`
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        // No closures, which would be open frames.
        if how == Wait::Poll {
            self.syscalls.polls += 1;
            let looked = self.poller.wait(&mut self.events, Some(Duration::ZERO));
            return self.take_events(looked, ready);
        }
        self.may_sleep()?;
        if self.meets(deadline) {
            self.syscalls.polls += 1;
            self.ticks = true;
            let looked = self.poller.wait(&mut self.events, Some(Duration::ZERO));
            return self.take_events(looked, ready);
        }
        let timeout = self.timeout(deadline);
        let arm = if timeout.is_none() { self.earlier(deadline) } else { None };
        self.syscalls.waits += 1;
        self.ticks = false;
        let waited = match arm {
            None => self.poller.wait(&mut self.events, timeout),
            Some(deadline) => {
                self.syscalls.joined += u64::from(Poller::ARMS_IN_WAIT);
                self.poller.arm_and_wait(&self.timer, deadline, &mut self.events, None)
            }
        };
        self.take_events(waited, ready)?;
        self.ticks |= arm.is_none() && self.events.is_empty();
        Ok(())
    }

    fn arm(&mut self, deadline: WakeWindow) -> io::Result<()> {
        match self.earlier(Some(deadline)) {
            Some(deadline) => self.timer.arm(deadline).inspect_err(|_| self.armed = Time::MAX),
            None => Ok(()),
        }
    }

    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.syscalls.controls += 1;
        self.poller.register(fd, id, interest, mode)?;
        self.fds += 1;
        self.level |= mode == Mode::Level;
        let batch = (self.fds + OWN).next_power_of_two().min(self.most);
        if batch > self.events.capacity() {
            self.events = PollEvents::with_capacity(batch);
        }
        Ok(())
    }

    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.syscalls.controls += 1;
        self.level |= mode == Mode::Level;
        self.poller.modify(fd, id, interest, mode)
    }

    fn deregister(&mut self, fd: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        self.syscalls.controls += 1;
        self.poller.deregister(fd)?;
        self.fds -= 1;
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Monotonic
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Poller::NESTS.then(|| self.poller.as_fd())
    }

    fn syscalls(&self) -> Syscalls {
        self.syscalls
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // Senders may keep the waker, and an embedding may keep the poller. Later wake-ups must not
        // make that poller readable. (A forked child does not change the parent's poller.)
        if self.poller.is_here() {
            self.waker.retire(&self.poller);
        }
    }
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        Waker::wake(self)
    }

    fn native(self: Arc<Self>) -> Option<Arc<Waker>> {
        Some(self)
    }
}
