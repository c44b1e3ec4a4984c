//! The driver: the poller that a reactor waits through.
//!
//! [`Native`] waits on the system's own poller. [`Sim`](crate::Sim) waits on a virtual clock, which
//! jumps instead of sleeping. The drivers on other crates' pollers have a `Native` in those. The
//! reactor calls its driver only on cold paths: a turn that finds a ready source makes no call. The
//! guide has [a page](crate::guide::drivers).

mod any;
pub mod foreign;
#[cfg(feature = "mio")]
mod mio;
mod native;
#[cfg(any(feature = "mio", feature = "polling"))]
mod nested;
#[cfg(feature = "polling")]
mod polling;
mod syscalls;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use self::any::AnyDriver;
#[cfg(feature = "mio")]
pub use self::mio::MioDriver;
pub(crate) use self::native::BATCH as FD_BATCH;
pub use self::native::Native;
#[cfg(feature = "polling")]
pub use self::polling::PollingDriver;
pub use self::syscalls::Syscalls;

use crate::sync::unpoisoned;
use crate::sys::{Interest, Mode, Readiness, Time};
pub use crate::wake::Wake;

/// A poller that a reactor waits through. It waits for a deadline, a wake-up or an fd, can be
/// woken, and has a clock.
///
/// Implement the trait for a poller, and hand that to
/// [`Reactor::with_driver`](crate::Reactor::with_driver). The guide has [two
/// drivers](crate::guide::drivers) that run, and `examples/custom_driver.rs` is a whole one on
/// `poll(2)`. There are two ways to write a driver:
/// - **Around [`Native`]**: put its fd into the other poller, and hand the calls on. When the other
///   poller reports the fd, `native.wait(None, Wait::Poll, ready)` takes the events. Before the
///   other poller sleeps, `native.arm(deadline)` arms the kernel timer, so that no timeout is
///   needed. That costs one syscall more for each wake-up. `MioDriver` and `PollingDriver` are such
///   drivers. They give the events of other users to a [`Queue`](foreign::Queue).
/// - **On its own**, with a waker, and a timeout or timer. Channels, timers and tickers need
///   [`wait`](Self::wait), [`waker`](Self::waker) and [`clock`](Self::clock) only.
///
/// # The contract
/// - **Arming is one-shot and absolute, and only moves earlier.** `wait(Some(deadline), ..)` must
///   end the wait by [`deadline.latest`](WakeWindow::latest) or soon after. `arm(deadline)` must
///   make [`as_fd`](Driver::as_fd) readable by then. If nothing else happens, neither may come
///   **before the clock says [`deadline.earliest`](WakeWindow::earliest)**. A deadline of an
///   earlier call may still be armed. A wait that ends too early does no harm, so a driver need not
///   take that deadline away. It re-arms only when `latest` is before the armed deadline.
/// - **No wake-up is lost.** After [`Wake::wake`] the wait under way, or else the next wait,
///   returns.
/// - **No readiness is lost.** This wait or a later one pushes each fd that becomes ready to
///   `ready`, under the id of its registration. No wait reports an fd that was
///   [removed](Driver::deregister). The reactor remembers reports: one for each change is enough.
/// - **Edges.** The reactor asks for [`Mode::Edge`] nearly always, and its own fds (an
///   [`OsTimer`](crate::OsTimer), [`Signals`](crate::Signals)) stay readable after their events. A
///   driver whose poller has no edges answers `Unsupported` to that mode. The reactor then asks for
///   [`Mode::OneShot`], and re-arms by [`modify`](Self::modify) when a source is no longer ready.
/// - Code that runs inside [`wait`](Self::wait) or [`arm`](Self::arm) may use the reactor, but not
///   wait through it: that fails with [`io::ErrorKind::ResourceBusy`]. If such code drops the
///   reactor, the driver is dropped when the call ends.
/// - A wait may return for no reason. On `EINTR` it returns `Ok(())`, or an error of the kind
///   [`Interrupted`](io::ErrorKind::Interrupted). Both mean the same: the reactor knows its
///   deadlines and waits for the rest. The reactor repeats an `arm` with such an error, up to 16
///   times.
/// - **Forks.** In a forked child the reactor is inert and calls no method of the driver, nor its
///   waker. It drops the driver (on kqueue it forgets the driver, whose fds are not in the child).
///   In another process a `drop` must not change a kernel object that the parent has, too.
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
    /// # Errors
    /// The `select!` or `wait` that asked fails with the error. The reactor stays usable, and the
    /// next wait asks again.
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()>;

    /// Arms `deadline` and does not wait, because an outer loop sleeps on [`as_fd`](Self::as_fd).
    ///
    /// Called only for an [embedded](crate::Reactor::embed) reactor. A driver without an fd needs
    /// no `arm`.
    ///
    /// # Errors
    /// The turn of the embedded reactor fails with the error. The default fails with
    /// [`io::ErrorKind::Unsupported`].
    fn arm(&mut self, deadline: WakeWindow) -> io::Result<()> {
        let _ = deadline;
        Err(unsupported("arm a deadline for an outer loop: implement `Driver::arm`"))
    }

    /// Returns the waker with which other threads end a [`Wait::Block`].
    fn waker(&self) -> Arc<dyn Wake>;

    /// Returns the clock that deadlines are on.
    fn clock(&self) -> Clock;

    /// Waits for `fd`, too, from now on, under `id`. Reports an fd that is ready already like one
    /// that becomes ready.
    ///
    /// Ids are the reactor's own. No two registrations ever have the same id.
    ///
    /// # Errors
    /// The system's error, for instance when `fd` is registered already. The default fails with
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

    /// Replaces interest and mode of a registered fd, and re-arms a one-shot. The next wait reports
    /// the present readiness like a new one.
    ///
    /// # Errors
    /// The errors of [`register`](Self::register).
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

    /// Stops waiting for `fd`, which is still open.
    ///
    /// # Errors
    /// The errors of [`register`](Self::register).
    fn deregister(&mut self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        let _ = (fd, id);
        Err(unsupported("wait for fds"))
    }

    /// Returns an fd that is readable when a wait would return at once, if the driver has such an
    /// fd. Without it the reactor cannot be embedded.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns true if `events` belong to this driver's [`Queue`](foreign::Queue). Other events
    /// cannot be registered with its reactor. For drivers that find events for others, too.
    fn has_events(&self, events: foreign::EventsId) -> bool {
        let _ = events;
        false
    }

    /// Returns true if a wait of no time may make a source ready though no fd is registered,
    /// because others run meanwhile. For drivers on a virtual clock.
    ///
    /// The reactor then calls [`wait`](Self::wait) with [`Wait::Poll`] before it answers "nothing".
    /// For a [`sleep_blocking`](crate::Handle::sleep_blocking) of zero it calls `wait` with
    /// [`Wait::Block`] and a deadline that has come.
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

/// The time when a wait is to end: any time from `earliest` to `latest`. The later it ends, the
/// more timers share the wake-up. Without slack the two are the same.
///
/// ```
/// use pollmux::{Time, driver::WakeWindow};
///
/// let window = WakeWindow::from(Time::from_nanos(1_000));
/// assert_eq!(window.earliest, window.latest);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeWindow {
    /// The time when the first timer is due. A wait that ends before is useless.
    pub earliest: Time,
    /// The time when the slack of some timer is used up. Before [`Time::MAX`].
    pub latest: Time,
}

impl From<Time> for WakeWindow {
    fn from(t: Time) -> WakeWindow {
        WakeWindow { earliest: t, latest: t }
    }
}

/// The findings of a driver: ids of registered fds, and their readiness.
///
/// ```
/// use pollmux::driver::ReadyFds;
/// use pollmux::sys::Readiness;
///
/// let mut ready = ReadyFds::new();
/// assert!(ready.is_empty());
/// ready.push(7, Readiness::READABLE);
/// assert_eq!(ready.len(), 1);
/// assert!(ready.drain().eq([(7, Readiness::READABLE)]));
/// ```
#[derive(Debug, Default)]
pub struct ReadyFds {
    list: Vec<(u64, Readiness)>,
    more: bool,
    woken: bool,
}

impl ReadyFds {
    /// Makes an empty list. The reactor has a list. A driver that waits through another driver may
    /// want its own.
    pub const fn new() -> ReadyFds {
        ReadyFds { list: Vec::new(), more: false, woken: false }
    }

    /// Adds the fd that is registered under `id`. The reactor ignores an id that is unknown or
    /// gone.
    #[inline]
    pub fn push(&mut self, id: u64, readiness: Readiness) {
        self.list.push((id, readiness));
    }

    /// Notes that this wait may have left ready fds for want of room. A driver with a batch of fds
    /// calls it when the batch is full.
    ///
    /// A reactor that is [embedded](crate::Reactor::embed) then looks again if it has to. An outer
    /// loop that waits for edges hears of no fd that was ready before.
    pub fn leave_some(&mut self) {
        self.more = true;
    }

    /// Notes that this wait has taken the event of the waker.
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

    /// Takes all findings.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Readiness)> + '_ {
        self.list.drain(..)
    }

    /// Takes all findings, without an iterator, whose drop would be code for a panic.
    #[inline(always)]
    pub(crate) fn take_each(&mut self, mut each: impl FnMut(u64, Readiness)) {
        self.list.iter().for_each(|&(id, readiness)| each(id, readiness));
        self.list.clear();
    }

    /// Makes room for `n` in all.
    pub(crate) fn make_room(&mut self, n: usize) {
        self.list.reserve(n.saturating_sub(self.list.len()));
    }
}

/// The way in which [`Driver::wait`] waits. The guide's [drivers](crate::guide::drivers) use both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Sleeps until a wake-up, an fd or the deadline.
    Block,
    /// Takes the events that are there, and does not sleep.
    Poll,
}

/// The clock of a driver.
///
/// ```
/// use pollmux::driver::{Clock, Driver, VirtualClock};
/// use pollmux::{Sim, Time};
///
/// let sim = Sim::new();
/// assert_eq!(sim.clock().now(), Time::ZERO);
/// assert!(sim.clock().is_same(&sim.clone().clock()));
/// assert!(!sim.clock().is_same(&Clock::Virtual(VirtualClock::new(Time::ZERO))));
/// assert!(Clock::Monotonic.now() > Time::ZERO);
/// ```
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

    /// Returns true if `other` is the same clock, so that both have the same times.
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

/// A clock that stands still until it is set, and a wall clock that runs with it. Clones share
/// both, on any thread.
///
/// ```
/// use pollmux::{Time, driver::VirtualClock};
/// use std::time::{Duration, UNIX_EPOCH};
///
/// let clock = VirtualClock::new(Time::ZERO);
/// clock.advance_to(Time::ZERO + Duration::from_secs(5));
/// assert_eq!(clock.now() - Time::ZERO, Duration::from_secs(5));
/// assert_eq!(clock.wall_now(), UNIX_EPOCH + Duration::from_secs(5));
/// clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_000));
/// clock.advance_to(Time::ZERO + Duration::from_secs(6));
/// assert_eq!(clock.wall_now(), UNIX_EPOCH + Duration::from_secs(1_001));
/// ```
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    shared: Arc<SharedClock>,
    /// True if the clock started at a time of `CLOCK_MONOTONIC`, so that an `Instant` is a point on
    /// it.
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
    /// The time since 1970 minus the time of the clock, in ns.
    ahead: i128,
    /// The number of times that the wall clock was set.
    sets: u64,
    told: Vec<Weak<dyn Fn() + Send + Sync>>,
}

impl VirtualClock {
    /// Makes a clock that says `start`. If that is `Time::now()`, an
    /// [`Instant`](std::time::Instant) is a point on the clock. On a clock that starts at
    /// [`Time::ZERO`] an `Instant` has no place.
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

    /// Moves the clock to `t`, and the wall clock by as much. A `t` in the past changes nothing.
    pub fn advance_to(&self, t: Time) {
        self.shared.nanos.fetch_max(t.as_nanos(), Ordering::AcqRel);
    }

    /// Reads the wall clock. Until it is set, it is as far from [`UNIX_EPOCH`] as the clock is from
    /// [`Time::ZERO`].
    pub fn wall_now(&self) -> SystemTime {
        let ahead = self.wall().ahead;
        let nanos = i128::from(self.now().as_nanos()) + ahead;
        UNIX_EPOCH + Duration::from_nanos(nanos.clamp(0, u64::MAX.into()) as u64)
    }

    /// Sets the wall clock to `t`, and leaves the clock alone. Each armed
    /// [wall timer](crate::Handle::wall_timer) on this clock reports that. A `t` before 1970 counts
    /// as 1970.
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
