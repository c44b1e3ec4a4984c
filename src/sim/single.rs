//! Virtual time: a driver that jumps to the next deadline instead of sleeping.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use crate::driver::{
    Clock, Driver, Native, ReadyFds, Syscalls, VirtualClock, Wait, Wake, WakeWindow,
};
use crate::sync::unpoisoned;
use crate::sys::{Interest, Mode, Time};

/// A driver on a virtual clock. A loop under it runs a week of heartbeats in a millisecond, and in
/// the same way every time.
///
/// A sleep moves the clock to the armed deadline (with slack, to the end of the window) and
/// returns. When nothing is armed and nobody woke the reactor, nothing can ever happen. Then the
/// wait fails with [`io::ErrorKind::Deadlock`]. Clones share the clock: keep a clone to read or
/// advance it.
///
/// A `Sim` is for one reactor on one thread. A sender on another thread works, but the scheduler
/// decides when its message arrives.
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
///
/// # Files
/// Fds are real, and so are [signals](crate::Signals) and [children](crate::ChildProcess). Before
/// each jump the driver polls the registered fds, by a syscall that does not wait. If an fd is
/// ready the clock stays. So a server and its clients on socket pairs, in one thread, run in
/// virtual time. With a [seed](crate::Handle::seed) they run in the same way every time.
/// ([`Signals::manual`](crate::Signals::manual) raises signals by hand.)
///
/// ```
/// use pollmux::{Reactor, Sim, Time, select};
/// use pollmux::sys::{Interest, Mode};
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
///
/// let sim = Sim::new();
/// let reactor = Reactor::with_driver(sim.clone())?;
/// let (mut client, ours) = UnixStream::pair()?;
/// let mut ours = reactor.fd_with_mode(ours, Interest::READABLE, Mode::Level)?;
/// let idle = reactor.after(Duration::from_secs(600));
/// let request = reactor.after(Duration::from_secs(599));
/// loop {
///     select! { reactor;
///         recv(request) -> _ => client.write_all(b"still here")?, // and time stands still
///         recv(ours) -> _ => {
///             assert_eq!(ours.read(&mut [0; 64])?, 10);
///             idle.reset(Duration::from_secs(600));
///         }
///         recv(idle) -> _ => break,
///     }
/// }
/// assert_eq!(sim.now() - Time::ZERO, Duration::from_secs(599 + 600));
/// # std::io::Result::Ok(())
/// ```
///
/// Virtual time does not wait for other threads and processes, nor for a network: the clock jumps
/// before they have run. [`grace`](Self::grace) gives them real time. Without grace a timeout
/// beside a child comes before the end of the child.
///
/// [Kernel timers](crate::OsTimer) are on the virtual clock, too.
/// [`set_wall_clock`](Self::set_wall_clock) sets the wall clock.
///
/// The first registration makes a poller: three fds, on kqueue one. A [`SimWorld`] has no fds,
/// because events from outside have no place in its history.
///
/// [`SimWorld`]: crate::SimWorld
#[derive(Default)]
pub struct Sim {
    clock: VirtualClock,
    woken: Arc<Flag>,
    grace: Duration,
    /// The poller of this driver. Only one thread uses the lock, which makes the driver `Sync`.
    fds: Option<Mutex<Native>>,
    registered: usize,
}

/// A clone has the same clock, and no fds of its own.
impl Clone for Sim {
    fn clone(&self) -> Sim {
        let (clock, woken) = (self.clock.clone(), self.woken.clone());
        Sim { clock, woken, grace: self.grace, fds: None, registered: 0 }
    }
}

impl_debug!([] Sim, |it| now: it.now(), grace: it.grace, fds: it.registered);

#[derive(Default)]
struct Flag {
    woken: AtomicBool,
    /// The waker that ends a sleep in real time.
    waker: Mutex<Option<Weak<dyn Wake>>>,
}

impl_debug!([] Flag, |it| woken: it.woken);

impl Wake for Flag {
    fn wake(&self) -> io::Result<()> {
        self.woken.store(true, Ordering::Release);
        let waker = unpoisoned(self.waker.lock()).as_ref().and_then(Weak::upgrade);
        waker.map_or(Ok(()), |waker| waker.wake())
    }
}

impl Sim {
    /// Makes a driver whose clock starts at [`Time::ZERO`].
    pub fn new() -> Sim {
        Sim::starting_at(Time::ZERO)
    }

    /// Makes a driver whose clock starts at `t`. With `Time::now()` a deadline that is given as an
    /// `Instant` keeps its meaning. On a clock that starts at [`Time::ZERO`] an `Instant` is a time
    /// far ahead, and a [`Context`](crate::Context) panics.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, Time};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::with_driver(Sim::starting_at(Time::now()))?;
    /// let timer = reactor.at(Instant::now() + Duration::from_secs(3_600));
    /// reactor.recv(&timer)?; // at once
    /// # std::io::Result::Ok(())
    /// ```
    pub fn starting_at(t: Time) -> Sim {
        Sim { clock: VirtualClock::new(t), ..Sim::default() }
    }

    /// The time of the clock.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Moves the clock on by `d`, as if the loop had been busy for so long. The next turn finds the
    /// timers that are due then. Until that turn [`Handle::now`](crate::Handle::now) gives the old
    /// time, and [`Sim::now`] the new time.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let sim = Sim::new();
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// let tick = reactor.every(Duration::from_secs(1))?;
    /// sim.advance(Duration::from_secs(5)); // slow work
    /// assert_eq!(reactor.recv(&tick)?.missed, 4);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn advance(&self, d: Duration) {
        self.clock.advance_to(self.clock.now() + d);
    }

    /// The time of the wall clock, which runs with the virtual clock. On a clock that starts at
    /// [`Time::ZERO`] the wall clock begins at [`UNIX_EPOCH`](std::time::UNIX_EPOCH).
    /// [`set_wall_clock`](Self::set_wall_clock) has an example.
    pub fn wall_clock(&self) -> SystemTime {
        self.clock.wall_now()
    }

    /// Sets the wall clock to `t`, forwards or back, as a person or a daemon does. May be called
    /// from any thread. A `t` before 1970 counts as 1970.
    ///
    /// Timers on the other clocks do not notice. Each armed [wall timer](crate::Handle::wall_timer)
    /// gives [`ClockSet`](crate::sources::ClockSet), and stays armed for the same time of day.
    ///
    /// A job at half past two in the morning (UTC), and a clock that is set back:
    ///
    #[cfg_attr(flat, doc = "```no_run")]
    #[cfg_attr(not(flat), doc = "```")]
    /// use pollmux::{OsTimer, Reactor, Sim, select, sources::WallClock};
    /// use std::time::{Duration, SystemTime, UNIX_EPOCH};
    ///
    /// const DAY: u64 = 86_400;
    /// fn at(seconds: u64) -> SystemTime {
    ///     UNIX_EPOCH + Duration::from_secs(seconds)
    /// }
    /// fn next_run(now: SystemTime) -> SystemTime {
    ///     let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
    ///     let today = now / DAY * DAY + 2 * 3_600 + 30 * 60;
    ///     at(if today > now { today } else { today + DAY })
    /// }
    /// /// Waits for the next run. Code under test: it knows no `Sim`.
    /// fn wait_for_run(reactor: &Reactor, alarm: &OsTimer<WallClock>) -> std::io::Result<()> {
    ///     alarm.reset_at(next_run(reactor.wall_now()))?;
    ///     while reactor.recv(alarm)?.is_err() {
    ///         alarm.reset_at(next_run(reactor.wall_now()))?; // the clock was set
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let sim = Sim::new();
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// let alarm = reactor.wall_timer()?;
    /// sim.set_wall_clock(at(20_000 * DAY));
    /// for day in 20_000..20_003 {
    ///     wait_for_run(&reactor, &alarm)?;
    ///     assert_eq!(sim.wall_clock(), at(day * DAY + 9_000));
    /// }
    /// let begin = sim.now();
    /// let steps = sim.clone(); // an hour later somebody sets the clock two hours back
    /// let set = move || steps.set_wall_clock(steps.wall_clock() - Duration::from_secs(7_200));
    /// reactor.call_after(Duration::from_secs(3_600), move |_| set()).detach();
    /// wait_for_run(&reactor, &alarm)?;
    /// assert_eq!(sim.now() - begin, Duration::from_secs(2 * 3_600)); // half past two once more
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_wall_clock(&self, t: SystemTime) {
        self.clock.set_wall(t);
    }

    /// Lets each sleep wait for fds and wake-ups for `grace` of real time, before it moves the
    /// clock. Default: zero.
    ///
    /// For a test with other threads, with children, or with TCP, whose bytes may be on their way
    /// for a moment. Their messages then come before the next deadline. Such a test depends on the
    /// machine, and each sleep in which nothing comes lasts that long. A sleep with no deadline
    /// waits as long before it fails with [`io::ErrorKind::Deadlock`]. `Duration::MAX` waits for
    /// ever.
    ///
    #[cfg_attr(flat, doc = "```no_run")]
    #[cfg_attr(not(flat), doc = "```")]
    /// use pollmux::{Reactor, Sim, Time, select};
    /// use std::process::Command;
    /// use std::time::Duration;
    ///
    /// let sim = Sim::new().grace(Duration::from_secs(60));
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// let child = reactor.register(Command::new("true").spawn()?)?;
    /// let timeout = reactor.after(Duration::from_secs(1)); // virtual
    /// select! { reactor;
    ///     recv(child) -> status => assert!(status?.success()),
    ///     recv(timeout) -> _ => panic!("a minute of real time is over"),
    /// }
    /// assert_eq!(sim.now(), Time::ZERO);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn grace(self, grace: Duration) -> Sim {
        Sim { grace, ..self }
    }

    /// Returns the poller, which the first use makes.
    fn native(&mut self) -> io::Result<&mut Native> {
        if self.fds.is_none() {
            let native = Native::new()?;
            *unpoisoned(self.woken.waker.lock()) = Some(Arc::downgrade(&native.waker()));
            self.fds = Some(Mutex::new(native));
        }
        Ok(unpoisoned(self.fds.as_mut().expect("made above").get_mut()))
    }

    fn takes_wake_up(&self) -> bool {
        self.woken.woken.swap(false, Ordering::Acquire)
    }

    /// Waits in real time. Returns true if an fd became ready or a wake-up came.
    fn waits_in_real_time(&mut self, ready: &mut ReadyFds) -> io::Result<bool> {
        if self.grace.is_zero() {
            return Ok(false);
        }
        let end = Time::now() + self.grace;
        let until = (end < Time::MAX).then_some(end.into());
        let before = ready.len();
        // A wake-up before the creation of the poller has reached only the flag.
        self.native()?;
        loop {
            let found = self.takes_wake_up() || ready.len() > before;
            if found || Time::now() >= end {
                return Ok(found);
            }
            self.native()?.wait(until, Wait::Block, ready)?;
        }
    }
}

impl Driver for Sim {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        let before = ready.len();
        if self.registered > 0 {
            self.native()?.wait(None, Wait::Poll, ready)?;
        }
        if self.takes_wake_up() || how == Wait::Poll || ready.len() > before {
            return Ok(());
        }
        let deadline = deadline.map_or(Time::MAX, |deadline| deadline.latest);
        if deadline > self.clock.now() && self.waits_in_real_time(ready)? {
            return Ok(());
        }
        if deadline < Time::MAX {
            self.clock.advance_to(deadline);
            return Ok(());
        }
        let fds = match self.registered {
            0 => "",
            _ => {
                ", and no registered fd is ready (if another thread or process makes one ready, \
                 give it real time: `Sim::grace`)"
            }
        };
        let text = format!(
            "deadlock in virtual time: nothing is due, no timer is armed and nobody has woken the \
             reactor{fds}"
        );
        Err(io::Error::new(io::ErrorKind::Deadlock, text))
    }

    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.native()?.register(fd, id, interest, mode)?;
        self.registered += 1;
        Ok(())
    }

    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.native()?.modify(fd, id, interest, mode)
    }

    fn deregister(&mut self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        self.registered -= 1;
        self.native()?.deregister(fd, id)
    }

    fn syscalls(&self) -> Syscalls {
        self.fds
            .as_ref()
            .map_or_else(Syscalls::default, |native| unpoisoned(native.lock()).syscalls())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.woken.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Virtual(self.clock.clone())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_early_wake_up_ends_a_real_wait() {
        let grace = Duration::from_secs(60);
        let mut sim = Sim::new().grace(grace);
        let begin = Time::now();
        sim.waker().wake().unwrap();
        assert!(sim.waits_in_real_time(&mut ReadyFds::new()).unwrap());
        assert!(Time::now() - begin < grace);
    }
}
