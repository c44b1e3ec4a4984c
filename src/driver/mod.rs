//! The driver: what a reactor asks of whatever it waits through.
//!
//! [`Native`] waits on the system's own poller; [`Sim`](crate::Sim) on a virtual clock that jumps
//! instead of sleeping; those on other crates' pollers have `Native` in those. The reactor reaches
//! its driver only on cold calls: a turn that finds something to do makes none.

pub mod foreign;
#[cfg(feature = "mio")]
mod mio;
mod native;
#[cfg(any(feature = "mio", feature = "polling"))]
mod nested;
#[cfg(feature = "polling")]
mod polling;

use std::io;
use std::ops::Add;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "mio")]
pub use self::mio::MioDriver;
pub(crate) use self::native::BATCH as FD_BATCH;
pub use self::native::Native;
#[cfg(feature = "polling")]
pub use self::polling::PollingDriver;

use crate::sync::unpoisoned;
use crate::sys::{Interest, Mode, Readiness, Time};
pub use crate::wake::Wake;

/// The interface of a poller to the reactor: to wait until a deadline, a wake-up or an fd, to be
/// woken, and what time it is.
///
/// For a poller that the reactor shall wait through: implement this and hand it to
/// [`Reactor::with_driver`](crate::Reactor::with_driver). `examples/custom_driver.rs` is one on
/// `poll(2)`, whole. There are two ways to write one:
/// - **Around [`Native`]**: its fd goes into the other poller, calls are handed on, and when the
///   other one says that the fd is readable, `native.wait(None, Wait::Poll, ready)` takes what
///   there is. Before the other one sleeps, `native.arm(deadline)` arms the kernel timer, so that
///   no timeout is needed. One syscall more for each wake-up. `MioDriver` and `PollingDriver` are
///   such, and give what the other poller finds for others to a [`Queue`](foreign::Queue).
/// - **On its own**, with a waker, a timeout or timer, and fds as far as they are needed:
///   [`wait`](Self::wait), [`waker`](Self::waker) and [`clock`](Self::clock) are all that channels,
///   timers and tickers want.
///
/// The contract:
/// - **Arming is one-shot and absolute, and only moves earlier.** `wait(Some(deadline), ..)` must
///   end the wait, and `arm(deadline)` must make [`as_fd`](Driver::as_fd) readable, by
///   [`deadline.latest`](WakeWindow::latest) or soon after and **never before the clock says
///   [`deadline.earliest`](WakeWindow::earliest)**, if nothing else does. A deadline armed by an
///   earlier call may still be pending: a wait that ends too early does no harm, so a driver need
///   not take it away, and re-arms only when `latest` is before what is armed.
/// - **A wake-up is not lost**: after [`Wake::wake`] the wait under way, or else the next one,
///   returns.
/// - **Readiness is not lost**: what becomes ready is pushed to `ready`, under the id of its
///   registration, by this wait or a later one. An fd that was [removed](Driver::deregister) is not
///   reported any more. The reactor remembers what it was told: once for each change is enough.
/// - **Edges**: the reactor asks for [`Mode::Edge`] nearly always, and its own fds (an
///   [`OsTimer`](crate::OsTimer), [`Signals`](crate::Signals)) stay readable after they have been
///   dealt with. A driver whose poller has no edges answers `Unsupported` to that mode, is then
///   asked for [`Mode::OneShot`], and re-armed by [`modify`](Self::modify) whenever a source has
///   been found not to be ready any more.
/// - Code that runs inside [`wait`](Self::wait) or [`arm`](Self::arm) may use the reactor, but not
///   wait through it: that fails with [`io::ErrorKind::ResourceBusy`]. If it drops the reactor, the
///   driver is dropped when the call ends.
/// - A wait may return for no reason at all. On `EINTR` it returns `Ok(())`, or an error of the
///   kind [`Interrupted`](io::ErrorKind::Interrupted), which is the same: the reactor knows its
///   deadlines and waits for the rest. An `arm` with such an error is made again, up to 16 times.
/// - **Forks**: in a forked child the reactor is inert and calls no method of the driver, nor its
///   waker. It drops the driver (on kqueue it forgets the driver, whose fds are not in the child).
///   A `drop` that changes a kernel object which the parent has too must not do so in another
///   process.
///
/// # What later versions may change
/// A driver that compiles with this version compiles with every later one that semver calls
/// compatible:
/// - [`wait`](Self::wait), [`waker`](Self::waker) and [`clock`](Self::clock) stay the only required
///   methods. A new method has a default, with which a driver of today stays right.
/// - No method changes its signature, or loses its default.
/// - [`Mode`] may get more variants: answer `Unsupported` to a mode that the driver does not know.
/// - [`Syscalls`] may get more fields: begin with [`Syscalls::default`].
/// - [`Wait`] and [`WakeWindow`] stay as they are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a driver that a reactor can wait through",
    label = "not a driver",
    note = "the system's own poller: `Reactor::new()?` needs no driver",
    note = "the poller of another crate: `MioDriver::new(poll, token)?` with the feature `mio`, \
            `PollingDriver::new(poller, key)?` with the feature `polling`",
    note = "virtual time: `Sim::new()`; a driver of your own: implement `pollmux::driver::Driver`",
    note = "a `Result`: unwrap it, or add `?`"
)]
pub trait Driver {
    /// Waits as `how` says: with [`Wait::Block`] until a wake-up, an fd, or the deadline.
    /// [`Wait::Poll`] comes without a deadline.
    ///
    /// An error makes the `select!` or `wait` that asked fail with it; the reactor stays usable and
    /// asks again the next time.
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()>;

    /// Arms `deadline` and does not wait: an outer loop sleeps, on [`as_fd`](Self::as_fd).
    ///
    /// Called only for an [embedded](crate::Reactor::embed) reactor, so a driver without an fd
    /// needs none. The default fails with [`io::ErrorKind::Unsupported`].
    fn arm(&mut self, deadline: WakeWindow) -> io::Result<()> {
        let _ = deadline;
        Err(unsupported("arm a deadline for an outer loop: implement `Driver::arm`"))
    }

    /// Returns the waker with which other threads end a [`Wait::Block`].
    fn waker(&self) -> Arc<dyn Wake>;

    /// The clock that deadlines are on.
    fn clock(&self) -> Clock;

    /// Waits for `fd`, too, from now on, under `id`. An fd that is ready already is reported like
    /// one that becomes so.
    ///
    /// Ids are the reactor's own: no two registrations have the same one, ever. Fails as the system
    /// does, for instance when `fd` is registered already; the default with
    /// [`io::ErrorKind::Unsupported`].
    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let _ = (fd, id, interest, mode);
        Err(unsupported("wait for fds"))
    }

    /// Replaces interest and mode of a registered fd, and re-arms it if it is one-shot. What it is
    /// ready for now is reported, by the next wait, like something new.
    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let _ = (fd, id, interest, mode);
        Err(unsupported("wait for fds"))
    }

    /// Waits for `fd` no longer. It is still open.
    fn deregister(&mut self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        let _ = (fd, id);
        Err(unsupported("wait for fds"))
    }

    /// An fd that is readable when a wait would return at once, if there is one. A reactor whose
    /// driver has none cannot be embedded.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns true if `events` are those of this driver's [`Queue`](foreign::Queue). Others cannot
    /// be registered with its reactor. For drivers that wait for more than the reactor asks them
    /// to.
    fn has_events(&self, events: foreign::EventsId) -> bool {
        let _ = events;
        false
    }

    /// Returns true if a wait of no time may make something ready though no fd is registered,
    /// because others run meanwhile. The reactor then calls [`wait`](Self::wait) with
    /// [`Wait::Poll`] before it says that nothing is ready, and with [`Wait::Block`] and a deadline
    /// that has come for a [`sleep_blocking`](crate::Handle::sleep_blocking) of zero. For drivers
    /// on a virtual clock.
    fn yields(&self) -> bool {
        false
    }

    /// Returns the number of syscalls that the driver has made so far, by kind.
    fn syscalls(&self) -> Syscalls {
        Syscalls::default()
    }
}

#[cold]
fn unsupported(verb: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the reactor's driver cannot {verb}"))
}

/// When a wait is to end: any time from `earliest` to `latest`, the later the more timers share the
/// wake-up. Without slack the two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeWindow {
    /// When the first timer is due: before that there is nothing to do.
    pub earliest: Time,
    /// When the slack of some timer is used up. Before [`Time::MAX`].
    pub latest: Time,
}

impl From<Time> for WakeWindow {
    fn from(t: Time) -> WakeWindow {
        WakeWindow { earliest: t, latest: t }
    }
}

/// The findings of a driver: ids of registered fds, and their readiness.
#[derive(Debug, Default)]
pub struct ReadyFds {
    list: Vec<(u64, Readiness)>,
    more: bool,
    woken: bool,
}

impl ReadyFds {
    /// An empty list. The reactor has one of its own; drivers that wait through others may want
    /// another.
    pub const fn new() -> ReadyFds {
        ReadyFds { list: Vec::new(), more: false, woken: false }
    }

    /// The fd registered under `id` is ready. One that is unknown, or gone, is ignored by the
    /// reactor.
    #[inline]
    pub fn push(&mut self, id: u64, readiness: Readiness) {
        self.list.push((id, readiness));
    }

    /// Says that this wait may have left ready fds for want of room, with those that it pushed.
    ///
    /// A reactor that is [embedded](crate::Reactor::embed) then looks again if it has to: an outer
    /// loop that waits for edges hears of nothing that was there before.
    pub fn leave_some(&mut self) {
        self.more = true;
    }

    /// This wait has taken the event of the waker.
    pub(crate) fn see_wake(&mut self) {
        self.woken = true;
    }

    /// Returns whether some were left and whether the waker's event was taken, and forgets both.
    pub(crate) fn take_flags(&mut self) -> (bool, bool) {
        (std::mem::take(&mut self.more), std::mem::take(&mut self.woken))
    }

    /// Returns the number of findings.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there is no finding.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes all.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Readiness)> + '_ {
        self.list.drain(..)
    }

    /// Makes room for `n` in all.
    pub(crate) fn make_room(&mut self, n: usize) {
        self.list.reserve(n.saturating_sub(self.list.len()));
    }
}

/// The way in which [`Driver::wait`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Sleeps until something happens or the deadline has come.
    Block,
    /// Takes what has happened and does not sleep.
    Poll,
}

/// Syscalls made by a driver since it was created.
///
/// ```
/// let mut syscalls = pollmux::driver::Syscalls::default();
/// syscalls.waits += 1;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Syscalls {
    /// Waits that may sleep: `epoll_wait` or `kevent` with a timeout.
    pub waits: u64,
    /// Looks that never sleep: `epoll_wait` or `kevent` with timeout zero.
    pub polls: u64,
    /// Deadlines given to the kernel: `timerfd_settime`, or a change for `kevent`.
    pub arms: u64,
    /// Those of the arms that were no syscall of their own, because they went with a wait: on
    /// kqueue.
    pub joined: u64,
    /// Registrations, changes and removals of fds: `epoll_ctl` or `kevent`.
    pub controls: u64,
}

impl Add for Syscalls {
    type Output = Syscalls;
    fn add(self, other: Syscalls) -> Syscalls {
        Syscalls {
            waits: self.waits + other.waits,
            polls: self.polls + other.polls,
            arms: self.arms + other.arms,
            joined: self.joined + other.joined,
            controls: self.controls + other.controls,
        }
    }
}

/// The clock of a driver.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// A clock that the driver moves by hand.
    Virtual(VirtualClock),
}

impl Clock {
    /// Reads the clock.
    #[inline]
    pub fn now(&self) -> Time {
        match self {
            Clock::Monotonic => Time::now(),
            Clock::Virtual(clock) => clock.now(),
        }
    }

    /// Returns true if an `Instant` is a point on this clock.
    pub(crate) fn has_instants(&self) -> bool {
        match self {
            Clock::Monotonic => true,
            Clock::Virtual(clock) => clock.has_instants,
        }
    }

    /// Returns true if `other` is the same clock, so that the times of one mean something on the
    /// other.
    pub fn is_same(&self, other: &Clock) -> bool {
        match (self, other) {
            (Clock::Monotonic, Clock::Monotonic) => true,
            (Clock::Virtual(this), Clock::Virtual(other)) => {
                Arc::ptr_eq(&this.shared, &other.shared)
            }
            _ => false,
        }
    }
}

/// A clock that stands still until it is set, and a wall clock that goes with it. Clones share
/// both, on any thread.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    shared: Arc<SharedClock>,
    /// The clock started somewhere on the scale of `CLOCK_MONOTONIC`, where an `Instant` has a
    /// place.
    has_instants: bool,
}

#[derive(Default)]
struct SharedClock {
    nanos: AtomicU64,
    wall: Mutex<Wall>,
}

impl_debug!([] SharedClock, |it| nanos: it.nanos);

/// The wall clock, and the timers that are told when it is set.
#[derive(Default)]
struct Wall {
    /// ns: the time since 1970, minus the time of the clock.
    ahead: i128,
    /// The number of times that the wall clock was set.
    sets: u64,
    told: Vec<Weak<dyn Fn() + Send + Sync>>,
}

impl VirtualClock {
    /// A clock that says `start`. With `Time::now()` an [`Instant`](std::time::Instant) is a point
    /// on it; on a clock that starts at [`Time::ZERO`] it is none.
    pub fn new(start: Time) -> VirtualClock {
        let nanos = AtomicU64::new(start.as_nanos());
        let shared = Arc::new(SharedClock { nanos, wall: Mutex::default() });
        VirtualClock { shared, has_instants: start > Time::ZERO }
    }

    /// Reads the clock.
    #[inline]
    pub fn now(&self) -> Time {
        Time::from_nanos(self.shared.nanos.load(Ordering::Acquire))
    }

    /// Moves the clock to `t`; a `t` in its past leaves it alone. The wall clock moves on by as
    /// much.
    pub fn advance_to(&self, t: Time) {
        self.shared.nanos.fetch_max(t.as_nanos(), Ordering::AcqRel);
    }

    /// Reads the wall clock. Until it is set it is as long after [`UNIX_EPOCH`] as the clock is
    /// after [`Time::ZERO`].
    pub fn wall_now(&self) -> SystemTime {
        let ahead = self.wall().ahead;
        let nanos = i128::from(self.now().as_nanos()) + ahead;
        UNIX_EPOCH + Duration::from_nanos(nanos.clamp(0, u64::MAX.into()) as u64)
    }

    /// Sets the wall clock to `t`, and leaves the clock alone. Each armed
    /// [wall timer](crate::Handle::wall_timer) on this clock tells so. A `t` before 1970 is taken
    /// for 1970.
    pub fn set_wall(&self, t: SystemTime) {
        let nanos = t.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let mut told = Vec::new();
        {
            let mut wall = self.wall();
            wall.ahead = nanos.min(u64::MAX.into()) as i128 - i128::from(self.now().as_nanos());
            wall.sets += 1;
            wall.told.retain(|tell| {
                let tell = tell.upgrade();
                told.extend(tell.clone());
                tell.is_some()
            });
        }
        told.iter().for_each(|tell| tell());
    }

    fn wall(&self) -> MutexGuard<'_, Wall> {
        unpoisoned(self.shared.wall.lock())
    }

    /// Returns the number of times that the wall clock was set.
    pub(crate) fn wall_sets(&self) -> u64 {
        self.wall().sets
    }

    /// Calls `tell` each time that the wall clock was set, on the thread that sets it.
    pub(crate) fn tell_when_set(&self, tell: &Arc<dyn Fn() + Send + Sync>) {
        let told = &mut self.wall().told;
        told.retain(|tell| tell.strong_count() > 0);
        told.push(Arc::downgrade(tell));
    }
}
