//! The counters of a reactor.

use std::fmt;
use std::ops::Sub;

/// The counts of a reactor since it was made. Subtract two readings to get the counts in between.
///
/// ```
/// use pollmux::{Reactor, channel, select};
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded(8);
/// let inbox = reactor.register(rx)?;
/// let before = reactor.stats();
/// for i in 0..100 {
///     tx.send(i).unwrap();
///     select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(i)) }
/// }
/// let during = reactor.stats() - before;
/// assert_eq!((during.turns, during.syscalls()), (100, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls of `select!`, `wait` and `turn`.
    pub turns: u64,
    /// Waits of the driver that may sleep. With the native driver each is an `epoll_wait`, an
    /// `epoll_pwait2`, or a `kevent`.
    pub waits: u64,
    /// Looks of the driver that never sleep: the same calls with timeout zero.
    pub polls: u64,
    /// Deadlines given to the kernel: `timerfd_settime`, or a change for `kevent`.
    pub arms: u64,
    /// Arms that went with a wait, and so were no syscall of their own: on kqueue.
    pub joined: u64,
    /// Registrations, changes and removals of fds: `epoll_ctl` or `kevent`.
    pub controls: u64,
    /// Wake-ups of this reactor, by a message, or by itself for an outer loop. Each is a `write` to
    /// its eventfd, or a `kevent`, on the thread that wakes. There is at most one for each
    /// announced sleep. A message that comes just before a sleep counts here and not in `waits`.
    pub wakes: u64,
    /// Timers and tickers that expired.
    pub expired: u64,
    /// Stale keys and stopped entries of the timer queue that were put right.
    pub cleaned: u64,
    /// Callbacks and posted closures that were called.
    pub called: u64,
    /// Wake-ups that [slack](crate::Builder::slack) has saved: deadlines that the wake-up for an
    /// earlier deadline has met.
    pub coalesced: u64,
    /// Requests of a [`Remote`](crate::Remote) that came too late, because their timers had been
    /// dropped. Each request counts, even if it [coalesced](crate::Remote::stop) with others. After
    /// the stop of a detached callback all requests that coalesced behind the stop count as one.
    pub stale: u64,
    /// Sleeps that [spinning](crate::reactor::Spin) has saved, because a message came during the
    /// spin.
    pub spins: u64,
    /// Sources that were found [spinning](crate::reactor::SourceInfo::spinning).
    /// [`sources`](crate::Handle::sources) names those that still spin.
    pub spinning: u64,
    /// Sources that exist now. A difference has the later count.
    pub live: usize,
}

impl Stats {
    /// Returns the number of syscalls made by or for the reactor after its creation. Two kinds are
    /// not in it: the three calls with which the first deadline with slack asks for the system's
    /// own slack, and the `sched_yield` of a loop that spins beside other threads.
    pub fn syscalls(&self) -> u64 {
        self.waits + self.polls + self.arms - self.joined + self.controls + self.wakes
    }
}

impl Sub for Stats {
    type Output = Stats;

    fn sub(self, earlier: Stats) -> Stats {
        macro_rules! differences {
            ($($count:ident)*) => {
                Stats { $($count: self.$count - earlier.$count,)* live: self.live }
            };
        }
        differences! {
            turns waits polls arms joined controls wakes expired cleaned called coalesced stale
            spins spinning
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { turns, waits, polls, arms, joined, controls, wakes, .. } = self;
        let Stats { expired, called, coalesced, cleaned, stale, spins, spinning, live, .. } = self;
        let syscalls = self.syscalls();
        write!(
            f,
            "turns {turns}, syscalls {syscalls} (waits {waits} blocking + {polls} polling, \
             arms {arms}, {joined} of them with a wait, changes of fds {controls}, \
             wake-ups {wakes}), expired {expired}, called {called}, coalesced {coalesced}, \
             cleaned {cleaned}, stale {stale}, spins {spins}, spinning {spinning}, live {live}"
        )
    }
}
