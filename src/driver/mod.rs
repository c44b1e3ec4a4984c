//! The driver: what a reactor asks of whatever it waits through.
//!
//! [`Native`] waits on the system's own poller; [`Sim`] on a virtual clock that jumps instead of sleeping. The reactor reaches its
//! driver only on cold calls: a turn that finds something to do makes none.

mod native;
mod sim;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::native::Native;
pub use self::sim::Sim;
use crate::sys::Time;

/// What the reactor asks of a poller: to wait until a deadline or a wake-up, to be woken, and what time it is.
///
/// The contract:
/// - **Arming is one-shot and absolute, and only moves earlier.** `wait(Some(t), ..)` must end the wait, or make
///   [`as_fd`](Driver::as_fd) readable, at `t` or soon after and **never before the clock says `t`**, if nothing else does. A deadline armed by an earlier
///   call may still be pending: a wait that ends too early does no harm, so a driver need not take it away, and re-arms only when `t` is
///   before what is armed.
/// - **A wake-up is not lost**: after [`Wake::wake`] the wait under way, or else the next one, returns.
/// - A wait may return for no reason at all. On `EINTR` it returns `Ok(())`: the reactor knows its deadlines and waits for the rest.
pub trait Driver {
    /// Waits as `how` says; with [`Wait::Block`] until a wake-up or until `arm`.
    ///
    /// An error makes the `select!` or `wait` that asked fail with it; the reactor stays usable and asks again the next time.
    fn wait(&mut self, arm: Option<Time>, how: Wait) -> io::Result<()>;

    /// What other threads use to end a [`Wait::Block`].
    fn waker(&self) -> Arc<dyn Wake>;

    /// The clock that `arm` is on.
    fn clock(&self) -> Clock;

    /// An fd that is readable when a wait would return at once, if there is one. A reactor whose driver has none cannot be embedded.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How many syscalls the driver has made so far, by kind.
    fn syscalls(&self) -> Syscalls {
        Syscalls::default()
    }
}

/// How [`Driver::wait`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Arm, then sleep until something happens.
    Block,
    /// Take what has happened; neither arm nor sleep.
    Poll,
    /// Only arm: somebody else sleeps, on the driver's fd.
    Arm,
}

/// Wakes a driver from any thread.
pub trait Wake: Send + Sync {
    /// Ends the current or the next blocking wait. Called at most once for each sleep of the reactor.
    fn wake(&self) -> io::Result<()>;
}

/// Syscalls made by a driver since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syscalls {
    /// Waits that may sleep: `epoll_wait` or `kevent` with a timeout.
    pub waits: u64,
    /// Looks that never sleep: `epoll_wait` or `kevent` with timeout zero.
    pub polls: u64,
    /// Deadlines given to the kernel: `timerfd_settime`, or a change for `kevent`.
    pub arms: u64,
    /// Those of the arms that were no syscall of their own, because they went with a wait: on kqueue.
    pub joined: u64,
}

/// The clock of a driver.
#[derive(Clone, Debug)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// A clock that the driver moves by hand.
    Virtual(VirtualClock),
}

/// A clock that stands still until it is set. Clones share it, on any thread.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    nanos: Arc<AtomicU64>,
}

impl VirtualClock {
    /// A clock that says `start`.
    pub fn new(start: Time) -> VirtualClock {
        VirtualClock { nanos: Arc::new(AtomicU64::new(start.as_nanos())) }
    }

    /// What the clock says.
    #[inline]
    pub fn now(&self) -> Time {
        Time::from_nanos(self.nanos.load(Ordering::Acquire))
    }

    /// Moves the clock to `t`; a `t` in its past leaves it alone.
    pub fn advance_to(&self, t: Time) {
        self.nanos.fetch_max(t.as_nanos(), Ordering::AcqRel);
    }
}
