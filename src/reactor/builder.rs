//! The settings of a reactor.

use std::time::Duration;

use super::core::Settings;
use super::parts::spinner::Spin;
use crate::driver::FD_BATCH;

/// Makes a [`Reactor`](crate::Reactor) with other settings than the default ones. From
/// [`Reactor::builder`](crate::Reactor::builder).
///
/// ```
/// use pollmux::{reactor::Spin, Reactor};
/// use std::time::Duration;
///
/// let reactor = Reactor::builder()
///     .slack(Duration::from_millis(1)) // timers may be late by as much, and share wake-ups
///     .spin(Spin::Off) // sleep at once
///     .build()?;
/// # drop(reactor);
/// # std::io::Result::Ok(())
/// ```
///
/// # A pool of loops
/// A reactor stays on its thread. A builder may be cloned and moved: make the settings in one
/// place, and each reactor on the thread of its loop.
///
/// ```
/// use pollmux::{Reactor, channel, reactor::Spin, select};
/// use std::{io, thread};
///
/// let settings = Reactor::builder().spin(Spin::Off);
/// let start = |_| {
///     let (jobs, rx) = channel::bounded::<u32>(64);
///     let settings = settings.clone();
///     let run = move || {
///         let reactor = settings.build()?; // on the thread of its loop
///         let inbox = reactor.register(rx)?;
///         let mut sum = 0;
///         loop {
///             select! { reactor;
///                 recv(inbox) -> job => match job {
///                     Ok(job) => sum += job,
///                     Err(_) => return io::Result::Ok(sum), // no more jobs
///                 },
///             }
///         }
///     };
///     (jobs, thread::spawn(run))
/// };
/// let pool: Vec<_> = (0..2).map(start).collect();
/// for n in 1..=4 {
///     let (jobs, _) = &pool[n as usize % pool.len()];
///     jobs.send(n).unwrap();
/// }
/// let mut sum = 0;
/// for (jobs, thread) in pool {
///     drop(jobs);
///     sum += thread.join().unwrap()?;
/// }
/// assert_eq!(sum, 10);
/// # io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) settings: Settings,
    pub(super) fd_batch: usize,
}

impl Builder {
    pub(super) fn new() -> Builder {
        let settings = Settings {
            slack: Duration::ZERO,
            precise: Duration::ZERO,
            spin: Spin::default(),
            poll_interval: Duration::from_micros(100),
            post_batch: 1_024,
            callback_batch: 1_024,
            post_limit: 1 << 20,
        };
        Builder { settings, fd_batch: FD_BATCH }
    }

    /// Lets timers fire late for the sake of fewer wake-ups: those whose windows overlap, from
    /// the deadline to this much later, share one. Never early. Default: zero.
    ///
    /// A timer may have a [slack of its own](crate::Timer::slack).
    /// [`Stats::coalesced`](crate::reactor::Stats::coalesced) counts the wake-ups saved. A tick of
    /// 50 µs to 100 ms costs one syscall. A longer one does where the window is wider than the
    /// kernel's own inaccuracy with timeouts, 0.1 %, and two syscalls elsewhere. The deadlines of
    /// [contexts](crate::Context) have no slack, unless [asked
    /// for](crate::context::Done::slack).
    pub fn slack(mut self, slack: Duration) -> Builder {
        self.settings.slack = slack;
        self
    }

    /// Wakes up by this much before a deadline and spins until it: timers are late by less than a
    /// microsecond, for the CPU time that it takes. Default: zero.
    ///
    /// Sensible are 50 to 200 µs, what the kernel's wake-ups are late by on the machine. Timers
    /// whose slack is greater are not spun for.
    ///
    /// It has no effect while the reactor is [embedded](crate::Reactor::embed): the outer loop
    /// sleeps, not the reactor, and to spin in a turn would hold up everything else in that loop.
    /// Timers are then as late as the kernel's wake-ups.
    pub fn precise(mut self, ahead: Duration) -> Builder {
        self.settings.precise = ahead;
        self
    }

    /// Sets the time to look for messages before sleeping. Default: [`Spin::Adaptive`]. Always off
    /// where only one core is usable.
    pub fn spin(mut self, spin: impl Into<Spin>) -> Builder {
        self.settings.spin = spin.into();
        self
    }

    /// Sets how often a loop that is too busy ever to sleep looks at its fds, by a syscall that
    /// does not wait. Default: 100 µs; zero is every turn. Without fds there is no such look. On a
    /// virtual clock, which stands still meanwhile, every turn looks.
    pub fn poll_interval(mut self, interval: Duration) -> Builder {
        self.settings.poll_interval = interval;
        self
    }

    /// Sets how many ready fds one look at the poller takes at most: 1 to 2^30, values outside are
    /// brought into that range. Default: 1,024.
    ///
    /// The rest comes with the next look, and every ready fd has its turn. So a flood of ready fds
    /// lengthens a turn by one batch at most, before due timers, posts and callbacks run. Messages
    /// and timers are reported among the fds in the order in which they came. A turn of an
    /// [embedded](crate::Reactor::embed) reactor may take several batches.
    ///
    /// For [`build`](Self::build): other drivers have limits of their own.
    ///
    /// ```
    /// use pollmux::{Reactor, select, sys::Interest};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let reactor = Reactor::builder().fd_batch(64).build()?;
    /// let (_theirs, ours) = UnixStream::pair()?;
    /// let ours = reactor.fd_nonblocking(ours, Interest::WRITABLE)?;
    /// select! { reactor; recv(ours) -> readiness => assert!(readiness.is_writable()) }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn fd_batch(mut self, fds: usize) -> Builder {
        self.fd_batch = fds;
        self
    }

    /// Sets how many posted closures and requests of other threads a turn runs at most. Zero is
    /// taken for 1. Default: 1,024.
    ///
    /// The rest is the next turn's, and the loop does not sleep before it. So a flood of posts
    /// starves no timer, fd or callback. A turn in which a message is ready may run a second batch.
    ///
    /// Posts run before a message that the same thread sent after them. So while posts are left,
    /// messages wait for those that were there first, but not for later ones. A call that must
    /// answer "nothing", as `try_wait` or a `default` case, runs these posts first, however many.
    ///
    /// # The longest turn
    /// A turn runs at most two batches of posts and two [batches of
    /// callbacks](Self::callback_batch), and one [batch of fds](Self::fd_batch) and 4,096 expiries.
    /// The exceptions are a call that must answer "nothing" (above), and a sleep that ends with a
    /// message at a rendezvous: all posts that wait run before. Each closure takes its own time,
    /// so a closure that takes 1 ms makes a full batch take a second: give slow closures a small
    /// batch.
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    ///
    /// let reactor = Reactor::builder().post_batch(10).build()?;
    /// let remote = reactor.remote();
    /// (0..25).for_each(|_| remote.post(|_| {}).unwrap());
    /// let mut events = Events::with_capacity(1);
    /// reactor.try_wait(&mut events)?;
    /// assert_eq!(reactor.stats().called, 10);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn post_batch(mut self, posts: usize) -> Builder {
        self.settings.post_batch = posts;
        self
    }

    /// Sets how many due callbacks a turn calls at most. Zero is taken for 1. Default: 1,024.
    ///
    /// The rest is the next turn's, in the order of the deadlines, and the loop does not sleep
    /// before it. `try_wait` and a `default` case call one batch. A turn in which a post and a
    /// message come may call a second one. Such calls may have to run [many
    /// posts](Self::post_batch) first, and call a batch after each batch of posts, but each
    /// callback once at most.
    ///
    /// [`sleep_blocking`](crate::Handle::sleep_blocking) and timeouts end when the callbacks that
    /// were due by then have been called, however many. Each is called once there: one that is
    /// armed with zero meanwhile is the next turn's. The [longest turn](Self::post_batch) is the
    /// sum of all batches.
    pub fn callback_batch(mut self, callbacks: usize) -> Builder {
        self.settings.callback_batch = callbacks;
        self
    }

    /// Sets how many posts may wait for the loop when [`Remote::try_post`](crate::Remote::try_post)
    /// adds one. Default: 2^20; zero refuses all. [`Remote::post`](crate::Remote::post) has no
    /// limit.
    pub fn post_limit(mut self, posts: usize) -> Builder {
        self.settings.post_limit = posts;
        self
    }
}
