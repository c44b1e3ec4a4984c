//! The reactor: one thread's sources, their timers, and the loop that waits for them.
//!
//! ```text
//!            begin_turn
//!                │
//!                ▼
//!              look ◄──────────────────────────────────┐   turn.rs
//!                │  due timers: heap ─► ready list     │   parts/heap, parts/ready
//!                │  posts and callbacks run            │   callbacks.rs
//!                ▼                                     │
//!      the caller's sources ──► one is ready: over     │   select, wait
//!                │                                     │
//!                ▼                                     │
//!     before_sleep, publish the sleep, look again      │   wake
//!                │                                     │
//!                ▼                                     │
//!     the driver waits, with the first deadline ───────┘   driver
//! ```
//!
//! No user code runs while one of the reactor's cells is borrowed.

mod before_sleep;
mod builder;
mod by_id;
mod callbacks;
mod channels;
mod core;
mod embed;
mod events;
mod fds;
mod fork;
mod key;
mod listing;
#[cfg(all(loom, test))]
pub(crate) mod models;
mod one_thread;
mod parts;
mod remote;
mod slot;
mod spin;
mod stats;
mod tidy;
mod turn;
mod wait;

use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::SystemTime;

pub use self::before_sleep::BeforeSleep;
pub use self::builder::Builder;
pub(crate) use self::channels::AsksNear;
use self::core::Settings;
pub use self::core::{CallbackContext, Handle};
pub(crate) use self::core::{CallbackFn, Core};
pub use self::embed::Embedded;
pub use self::events::{Event, Events, Iter as EventsIter};
pub use self::key::Key;
pub use self::listing::{SourceInfo, SourceOrigin, Sources};
pub use self::parts::priority::Priority;
pub use self::parts::sites::SourceKind;
pub use self::parts::spinner::Spin;
pub use self::parts::timer_id::{TimerError, TimerId};
pub use self::remote::{PostError, Remote, TryPostError};
pub(crate) use self::slot::{Listed, Slot};
pub(crate) use self::spin::Looks;
pub use self::stats::Stats;
pub(crate) use self::turn::Blocked;
pub(crate) use self::wait::{Next, Patience};
use crate::driver::{AnyDriver, Clock, Driver, Native};
pub(crate) use crate::sync::strand;
use crate::sys::Time;

/// A single-threaded reactor: it owns a driver and waits for all of its sources together.
///
/// A reactor derefs to [`Handle`], which has every method. Clones of the handle go to code that has
/// no reactor. Neither is `Send`. From other threads use a [`Sender`](crate::channel::Sender), a
/// [`Remote`], a [`Notifier`](crate::Notifier) or a [`Context`](crate::Context). Dropping the
/// reactor closes its fds. Sources and handles that outlive the reactor are inert.
///
/// ```
/// use pollmux::{Reactor, channel, select};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded(4);
/// let inbox = reactor.register(rx)?;
/// let timeout = reactor.after(Duration::from_secs(60));
/// std::thread::spawn(move || tx.send("hello"));
/// select! { reactor;
///     recv(inbox) -> greeting => assert_eq!(greeting, Ok("hello")),
///     recv(timeout) -> _ => panic!("nobody there"),
/// }
/// # std::io::Result::Ok(())
/// ```
///
/// # Memory
/// A reactor grows with its live sources: some 50 bytes a timer, more for other sources.
///
/// Records, and the timer queue, shrink above 64 KiB when they were less than an eighth full for a
/// second. They keep twice the used part. So does the queue of posts. The reactor shrinks in its
/// turns, so a reactor that sleeps all the time keeps its memory. Below 64 KiB nothing shrinks, and
/// nothing allocates that was as full before.
///
/// Records go in blocks of 128, and a block stays while one of its sources is live. The memory of
/// requests ([`Remote::reset`], [`Remote::stop`]) stays. It is bounded by the number of timers that
/// had requests at one time.
///
/// # Fork
/// A child made by `fork` without `exec` has a copy of the reactor, and shares its kernel objects
/// with the parent. In the child **the reactor and its sources are inert**, from the return of
/// `fork` on:
/// - Each call that waits, registers or arms fails with an error that names the fork and the line
///   that made the reactor. Callbacks and posted closures do not run. [`Handle::is_closed`] returns
///   true.
/// - Nothing reaches the parent: no wake-up, no timer, no registration. A drop closes the child's
///   copies of the fds, and the parent's files are reported as before.
/// - A channel is memory, so the child has a copy of the channel, too. A message of one process
///   never reaches the other. [`Remote::post`] gives its closure back.
///
/// The child makes a reactor of its own with [`Reactor::new`]. A daemon makes its reactor after the
/// last fork. In a process with several threads a lock that another thread held during the fork
/// stays locked in the child. There call `exec` or `_exit`, and touch no channel of other threads.
///
/// A handler of `pthread_atfork` notices the fork, in time linear in the number of live sources. A
/// raw system call (`SYS_fork`, `clone`) runs no such handler, and the child then disturbs its
/// parent. `posix_spawn`, and with it [`Command`](std::process::Command) in most cases, forks
/// nothing.
#[must_use = "dropping the reactor makes its sources inert"]
pub struct Reactor {
    handle: Handle,
}

impl Reactor {
    /// Makes a reactor on the system's own poller.
    ///
    /// # Errors
    /// The system's error. A failed call leaves nothing behind. The error names the limit and the
    /// remedy
    /// - when the process has as many fds as `RLIMIT_NOFILE` allows (`EMFILE`: raise that limit,
    ///   `ulimit -n`),
    /// - when the system has as many fds as it allows (`ENFILE`: on Linux raise `fs.file-max`),
    /// - when the kernel has no memory (`ENOMEM`),
    /// - when epoll has no room (`ENOSPC`: raise `fs.epoll.max_user_watches`).
    ///
    /// # Cost
    /// Five syscalls, three on kqueue, and some 30 KiB.
    ///
    /// For the errors named here [`source`](std::error::Error::source) gives the system's own
    /// error, with its [`raw_os_error`](io::Error::raw_os_error):
    ///
    /// ```
    /// use std::{error::Error, io};
    ///
    /// fn errno(error: &io::Error) -> Option<i32> {
    ///     let system = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    ///     error.raw_os_error().or_else(|| system?.raw_os_error())
    /// }
    /// # assert_eq!(errno(&io::Error::from_raw_os_error(24)), Some(24));
    /// ```
    #[track_caller]
    pub fn new() -> io::Result<Reactor> {
        Reactor::builder().build()
    }

    /// Makes a reactor that waits through `driver`.
    ///
    /// # Errors
    /// None at present.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?; // in virtual time
    /// assert_eq!(reactor.now().as_nanos(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn with_driver(driver: impl Driver + 'static) -> io::Result<Reactor> {
        Reactor::builder().build_with(driver)
    }

    /// Begins a reactor with settings of your own: slack, spinning, precision and others.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let settings = Reactor::builder().slack(Duration::from_millis(10));
    /// let tested = settings.clone().build_with(Sim::new())?;
    /// let real = settings.build()?;
    /// # drop((tested, real));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    #[track_caller]
    fn with_settings(driver: AnyDriver, settings: &Settings) -> Reactor {
        let core = Rc::new(Core::new(driver, settings));
        fork::enter(&core);
        Reactor { handle: Handle { core } }
    }

    /// Returns a handle, for code that has no reactor.
    ///
    /// ```
    /// use pollmux::{Handle, Reactor, Ticker};
    /// use std::time::Duration;
    ///
    /// struct Heartbeat(Ticker, Handle);
    ///
    /// let reactor = Reactor::new()?;
    /// let handle = reactor.handle();
    /// let heartbeat = Heartbeat(handle.every(Duration::from_secs(1))?, handle);
    /// drop(reactor);
    /// assert!(heartbeat.1.is_closed());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Exposes the reactor as one fd that is readable when a turn has work to do, for an outer
    /// loop to wait on.
    ///
    /// The fd stays readable while a source is ready that nobody takes: see [`Embedded`].
    /// [`Builder::precise`] has no effect while embedded, because the outer loop sleeps, not the
    /// reactor.
    ///
    /// # Errors
    /// - [`io::ErrorKind::Unsupported`] when the driver has no fd.
    /// - [`io::ErrorKind::ResourceBusy`] when the reactor is embedded already.
    /// - The errors of [`Reactor::new`] when fds are short.
    ///
    /// # Cost
    /// One syscall (the fd is a duplicate), and those of a first turn.
    ///
    #[cfg_attr(flat, doc = "```no_run")]
    #[cfg_attr(not(flat), doc = "```")]
    /// use pollmux::sys::{self, Interest, Mode, Poller};
    /// use pollmux::{Reactor, channel, select};
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, rx) = channel::bounded(4);
    /// let inbox = reactor.register(rx)?;
    /// let inner = reactor.embed()?;
    ///
    /// let outer = Poller::new()?; // stands for any loop that can wait for an fd
    /// outer.register(&inner, 0, Interest::READABLE, Mode::Level)?;
    /// std::thread::spawn(move || tx.send("hello"));
    ///
    /// outer.wait(&mut sys::PollEvents::with_capacity(1), None)?;
    /// inner.turn()?;
    /// select! { reactor;
    ///     recv(inbox) -> word => assert_eq!(word, Ok("hello")),
    ///     default => unreachable!(),
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn embed(&self) -> io::Result<Embedded> {
        Embedded::begin(self)
    }
}

impl Builder {
    /// Makes a reactor on the system's own poller, as [`Reactor::new`] does.
    ///
    /// # Errors
    /// The errors of [`Reactor::new`].
    #[track_caller]
    pub fn build(self) -> io::Result<Reactor> {
        let driver = Native::with_batch(self.fd_batch)?;
        self.build_with(driver)
    }

    /// Makes a reactor that waits through `driver`. [`Reactor::builder`] has an example.
    ///
    /// # Errors
    /// None at present.
    #[track_caller]
    pub fn build_with(self, driver: impl Driver + 'static) -> io::Result<Reactor> {
        Ok(Reactor::with_settings(AnyDriver::of(driver), &self.settings))
    }
}

impl Deref for Reactor {
    type Target = Handle;
    #[inline]
    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        fork::leave(&self.core);
        self.core.close();
    }
}

impl_debug!([] Reactor, |it| stats: it.stats());
impl_debug!([] Handle, |it| closed: it.is_closed());

impl AsRef<Handle> for Handle {
    #[inline]
    fn as_ref(&self) -> &Handle {
        self
    }
}

impl AsRef<Handle> for Reactor {
    #[inline]
    fn as_ref(&self) -> &Handle {
        &self.handle
    }
}

/// Everything that is `AsRef<Handle>`: a [`Reactor`], a [`Handle`], a [`CallbackContext`], a
/// reference to one of them, or a type of a user's own.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reactor",
    label = "neither a `Reactor` nor a `Handle`",
    note = "a select! begins with the reactor, and a semicolon: \
            `select! {{ reactor; recv(source) -> item => .. }}`",
    note = "a `Result`: unwrap it, or add `?`; an `Rc` or a `Box`: `*reactor`; a `RefCell`: \
            `*reactor.borrow()`",
    note = "a type with a reactor in it: name the field, or implement `AsRef<Handle>` for the type"
)]
pub trait AsHandle: AsRef<Handle> {}

#[diagnostic::do_not_recommend]
impl<T: AsRef<Handle> + ?Sized> AsHandle for T {}

impl Handle {
    /// Returns the time on the driver's clock, read at most once a turn. Two calls in one arm give
    /// the same time. No syscall.
    ///
    /// [`fresh_now`](Self::fresh_now) reads the clock each time.
    #[inline]
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    /// Reads the driver's clock precisely. For measurements, and for an arm that takes time.
    ///
    /// [`now`](Self::now) stays as it is until the turn is over, so it may be earlier. A virtual
    /// clock moves between turns, and when a test [moves](crate::Sim::advance) it. The call works
    /// when the reactor has been dropped, too, and in a forked child.
    ///
    /// # Cost
    /// Some tens of nanoseconds. No allocation, and no syscall where the system has a clock without
    /// syscalls (the vDSO of Linux).
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let sim = Sim::new();
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// let begin = reactor.now();
    /// sim.advance(Duration::from_millis(7)); // stands for work that takes so long
    /// assert_eq!(reactor.now(), begin);
    /// assert_eq!(reactor.fresh_now() - begin, Duration::from_millis(7));
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn fresh_now(&self) -> Time {
        self.core.clock.read()
    }

    /// Returns the time of day on the driver's clock: [`SystemTime::now`]. In virtual time it is
    /// the clock that [`Sim::set_wall_clock`](crate::Sim::set_wall_clock) sets.
    ///
    /// Code that uses [wall timers](Self::wall_timer) reads this clock, so that virtual time can
    /// test the code. No syscall where the system has a clock without syscalls.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::{Duration, UNIX_EPOCH};
    ///
    /// let sim = Sim::new();
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// sim.set_wall_clock(UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    /// assert!(reactor.wall_now() > UNIX_EPOCH);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wall_now(&self) -> SystemTime {
        match self.core.clock.source() {
            Clock::Monotonic => SystemTime::now(),
            Clock::Virtual(clock) => clock.wall_now(),
        }
    }

    /// Returns the counts of the reactor so far. [`Stats`] has an example.
    pub fn stats(&self) -> Stats {
        let core = &*self.core;
        // A driver that asks while it waits gets the counts from before.
        if let Ok(driving) = core.driving.try_borrow() {
            if let Some(driver) = &driving.driver {
                core.syscalls.set(driver.syscalls());
            }
        }
        let syscalls = core.syscalls.get();
        Stats {
            turns: core.counters.turns.get(),
            waits: syscalls.waits,
            polls: syscalls.polls,
            arms: syscalls.arms,
            controls: syscalls.controls,
            joined: syscalls.joined,
            wakes: core.counters.wakes.get(),
            expired: core.counters.expired.get(),
            cleaned: core.counters.cleaned.get(),
            called: core.counters.called.get(),
            coalesced: core.counters.coalesced.get(),
            stale: core.counters.stale.get(),
            spins: core.spinner.saved(),
            spinning: core.counters.spinning.get(),
            live: core.table.borrow().slots.live(),
        }
    }

    /// Makes the choices among ready cases reproducible: the same seed makes the same choices.
    /// Without a seed the choices differ from run to run.
    ///
    /// ```
    /// use pollmux::{Reactor, Select};
    ///
    /// let choices = |seed| -> std::io::Result<Vec<usize>> {
    ///     let reactor = Reactor::new()?;
    ///     reactor.seed(seed);
    ///     let timers = [(); 4].map(|()| reactor.after(std::time::Duration::ZERO));
    ///     let mut select = Select::new(&reactor);
    ///     timers.iter().for_each(|timer| drop(select.recv(timer)));
    ///     (0..20).map(|_| Ok(select.wait()?.index())).collect()
    /// };
    /// assert_eq!(choices(7)?, choices(7)?);
    /// assert_ne!(choices(7)?, choices(8)?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn seed(&self, seed: u64) {
        self.core.random.seed(seed);
    }

    /// Returns true if the reactor has been dropped, and in a forked child. [`Reactor::handle`] has
    /// an example.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.core.closed.get()
    }

    /// Returns true if `other` is a handle of the same reactor.
    ///
    /// ```
    /// use pollmux::Reactor;
    ///
    /// let (one, other) = (Reactor::new()?, Reactor::new()?);
    /// assert!(one.is_same(&one.handle()) && !one.is_same(&other));
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn is_same(&self, other: &Handle) -> bool {
        Rc::ptr_eq(&self.core, &other.core)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::{Events, Reactor};

    #[test]
    fn a_dropped_reactor_frees_its_rehearsal() {
        let reactor = Reactor::builder().precise(Duration::from_secs(60)).build().unwrap();
        let (timer, mut events) = (reactor.timer(), Events::new());
        // A thread that is kept from its core in the last microseconds rehearses nothing.
        while reactor.core.rehearsal.borrow().is_none() {
            timer.reset(Duration::from_micros(100));
            reactor.wait(&mut events).unwrap();
        }
        let core = Rc::downgrade(&reactor.core);
        drop((timer, events, reactor));
        assert!(core.upgrade().is_none());
    }
}
