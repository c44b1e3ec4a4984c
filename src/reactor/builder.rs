//! The settings of a reactor.

use std::time::Duration;

use super::core::Settings;
use super::parts::spinner::Spin;
use crate::driver::FD_BATCH;

/// The settings of a [`Reactor`](crate::Reactor) that is to be made. Made by
/// [`Reactor::builder`](crate::Reactor::builder).
///
/// ```
/// use pollmux::{reactor::Spin, Reactor};
/// use std::time::Duration;
///
/// let reactor = Reactor::builder()
///     .slack(Duration::from_millis(1)) // timers may be up to 1 ms late, and share wake-ups
///     .spin(Spin::Off) // sleep at once
///     .build()?;
/// # drop(reactor);
/// # std::io::Result::Ok(())
/// ```
///
/// # A pool of loops
/// A reactor stays on its thread. A builder may be cloned and moved to other threads. Make the
/// settings in one place, and each reactor on the thread of its loop.
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

    /// Lets timers fire up to `slack` late, for fewer wake-ups. Default: zero. A timer is never
    /// early.
    ///
    /// The window of a timer begins at its deadline and lasts for `slack`. Timers whose windows
    /// overlap share one wake-up. [`Stats::coalesced`](crate::reactor::Stats::coalesced) counts the
    /// wake-ups saved. A timer may have a [slack of its own](crate::Timer::slack). The deadline of
    /// a [context](crate::Context) has no slack, unless you [give
    /// one](crate::context::Done::slack).
    ///
    /// # Cost
    /// A tick of 50 µs to 100 ms costs one syscall. A longer tick costs one where its window is
    /// wider than the kernel's own inaccuracy with timeouts, 0.1 %, and two elsewhere.
    pub fn slack(mut self, slack: Duration) -> Builder {
        self.settings.slack = slack;
        self
    }

    /// Wakes up `ahead` of a deadline, and spins until the deadline. Default: zero. Timers are then
    /// less than a microsecond late. The price is the CPU time of the spin.
    ///
    /// Give the time by which the machine's kernel wakes up late: 50 to 200 µs. The reactor does
    /// not spin for timers whose slack is greater.
    ///
    /// The setting has no effect while the reactor is [embedded](crate::Reactor::embed), because
    /// the outer loop sleeps, not the reactor. A spin in a turn would hold up that loop. Timers are
    /// then as late as the kernel's wake-ups.
    ///
    /// ```
    /// use pollmux::Reactor;
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::builder().precise(Duration::from_micros(100)).build()?;
    /// let timer = reactor.after(Duration::from_millis(1));
    /// let due = reactor.recv(&timer)?;
    /// assert!(reactor.fresh_now() >= due); // never early
    /// # std::io::Result::Ok(())
    /// ```
    pub fn precise(mut self, ahead: Duration) -> Builder {
        self.settings.precise = ahead;
        self
    }

    /// Sets the time to look for messages before a sleep: a [`Spin`] or a `Duration`. Default:
    /// [`Spin::Adaptive`].
    pub fn spin(mut self, spin: impl Into<Spin>) -> Builder {
        self.settings.spin = spin.into();
        self
    }

    /// Sets how often a loop that never sleeps looks at its fds, by a syscall that does not wait.
    /// Default: 100 µs. A sleep looks, too, so the first turn after a sleep does not. With zero
    /// every turn looks. Without fds no turn does. On a virtual clock, which stands still
    /// meanwhile, every turn looks.
    ///
    /// ```
    /// use pollmux::Reactor;
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::builder().poll_interval(Duration::from_micros(20)).build()?;
    /// # drop(reactor);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn poll_interval(mut self, interval: Duration) -> Builder {
        self.settings.poll_interval = interval;
        self
    }

    /// Sets how many ready fds one look at the poller takes at most. Default: 1,024. The range is 1
    /// to 2^30; a value outside becomes the nearest one.
    ///
    /// The rest comes with the next look, and every ready fd has its turn. So a flood of ready fds
    /// lengthens a turn by one batch at most, before due timers, posts and callbacks run. Messages,
    /// timers and fds are reported in the order in which they became ready. A turn of an
    /// [embedded](crate::Reactor::embed) reactor may take several batches.
    ///
    /// The setting is for [`build`](Self::build). Other drivers have limits of their own.
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

    /// Sets how many posted closures and requests of other threads a turn runs at most. Default:
    /// 1,024. Zero counts as 1.
    ///
    /// The next turn runs the rest, and the loop does not sleep before that. So a flood of posts
    /// starves no timer, fd or callback. A turn in which a message is ready may run a second batch.
    ///
    /// Posts run before a message that the same thread sent after them. So while posts are left,
    /// messages wait for the posts that came before them. A call that must answer "nothing", as
    /// `try_wait` or a `default` case, runs these posts first, however many.
    ///
    /// # The longest turn
    /// A turn runs at most two batches of posts, two [batches of callbacks](Self::callback_batch),
    /// one [batch of fds](Self::fd_batch) and 4,096 expiries. There are two exceptions: a call that
    /// must answer "nothing" (above), and a sleep that ends with a message at a rendezvous. Both
    /// run all posts that wait. A closure that takes 1 ms makes a full batch take a second, so give
    /// slow closures a small batch.
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

    /// Sets how many due callbacks a turn calls at most. Default: 1,024. Zero counts as 1.
    ///
    /// The next turn calls the rest, in the order of the deadlines, and the loop does not sleep
    /// before that. `try_wait` and a `default` case call one batch. A turn in which a post and a
    /// message come may call a second batch. A call that runs [many posts](Self::post_batch) first
    /// calls a batch after each batch of posts, but no callback twice.
    ///
    /// [`sleep_blocking`](crate::Handle::sleep_blocking) and timeouts end when the callbacks that
    /// were due by then have run, however many. Each runs once there. A callback that is armed with
    /// zero meanwhile belongs to the next turn. The [longest turn](Self::post_batch) is the sum of
    /// all batches.
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::builder().callback_batch(10).build()?;
    /// let calls: Vec<_> =
    ///     (0..25).map(|_| reactor.call_after(Duration::ZERO, |_| {})).collect();
    /// reactor.try_wait(&mut Events::new())?;
    /// assert_eq!(reactor.stats().called, 10);
    /// # drop(calls);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn callback_batch(mut self, callbacks: usize) -> Builder {
        self.settings.callback_batch = callbacks;
        self
    }

    /// Sets how many posts may wait for the loop when [`Remote::try_post`](crate::Remote::try_post)
    /// adds a post. Default: 2^20. Zero refuses all. [`Remote::post`](crate::Remote::post) has no
    /// limit. [`Remote::try_post`](crate::Remote::try_post) has an example.
    pub fn post_limit(mut self, posts: usize) -> Builder {
        self.settings.post_limit = posts;
        self
    }
}
