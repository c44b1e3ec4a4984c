//! The poller on Linux: a thin, safe epoll.
//!
//! Quirks handled here:
//! - `epoll_wait` takes milliseconds and its timeout has slack (0.1 %, at least 50 µs). A timed
//!   [`Poller::wait`] therefore uses `epoll_pwait2` (Linux 5.11). Where the kernel lacks that call
//!   (`ENOSYS`) or a sandbox forbids it (`EPERM`, `EACCES`), it uses `epoll_wait` with the time
//!   rounded **up**. For exact deadlines there is [`Timer`].
//! - The epoll key is (file, fd): a duplicated fd keeps firing after `close`. Deregister before
//!   closing.

mod eventfd;
mod pidfd;
mod syscall;
mod timerfd;
mod timespec;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use self::eventfd::{Flag, Waker};
pub(super) use self::pidfd::ProcessFd;
pub(super) use self::timerfd::{Timer, TimerFd};

use self::timespec::Timespec;
use super::fork::PollerFd;
use super::{
    Interest, Mode, Readiness, Time, Watch, call, check, errors, has_fd, nanos, uninterrupted,
};

pub(super) const ARMS_IN_WAIT: bool = false;
pub(super) const NESTS: bool = true;

#[derive(Debug)]
pub(super) struct Poller {
    epoll: PollerFd,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        // SAFETY: the call takes no pointers.
        let fd = call("epoll_create1", || unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poller { epoll: PollerFd::new(fd) })
    }

    pub(super) fn is_here(&self) -> bool {
        self.epoll.is_here()
    }

    pub(super) fn register(&self, fd: BorrowedFd<'_>, watch: Watch) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, watch)
    }

    pub(super) fn modify(&self, fd: BorrowedFd<'_>, watch: Watch) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, watch)
    }

    pub(super) fn deregister(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let unused = Watch { id: 0, interest: Interest::NONE, mode: Mode::Level };
        self.control(libc::EPOLL_CTL_DEL, fd, unused)
    }

    fn control(&self, op: libc::c_int, fd: BorrowedFd<'_>, watch: Watch) -> io::Result<()> {
        let Watch { id, interest, mode } = watch;
        let mut flags = match mode {
            Mode::Level => 0,
            Mode::Edge => libc::EPOLLET,
            Mode::OneShot => libc::EPOLLONESHOT,
        };
        if interest.is_readable() {
            flags |= libc::EPOLLIN | libc::EPOLLRDHUP;
        }
        // Without an interest the end of the input is reported, like a hang-up. Level mode would
        // repeat that report. Beside an interest it could use up the interest's report.
        if !interest.is_readable() && !interest.is_writable() && mode != Mode::Level {
            flags |= libc::EPOLLRDHUP;
        }
        if interest.is_writable() {
            flags |= libc::EPOLLOUT;
        }
        if interest.is_priority() {
            flags |= libc::EPOLLPRI;
        }
        let mut event = libc::epoll_event { events: flags as u32, u64: id };
        let (epoll, fd) = (self.epoll.as_fd().as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both fds are open for the length of the call and `event` is a valid epoll_event.
        let done = uninterrupted(|| check(unsafe { libc::epoll_ctl(epoll, op, fd, &mut event) }));
        done.map(drop).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => error, // the file cannot be waited for
            _ => errors::of_call(error, "epoll_ctl"),
        })
    }

    #[inline(always)]
    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.ready = 0;
        events.ready = match timeout {
            None => self.wait_ms(events, -1)?,
            Some(Duration::ZERO) => self.wait_ms(events, 0)?,
            Some(timeout) => self.wait_timed(events, timeout)?,
        };
        Ok(())
    }

    #[inline(always)]
    pub(super) fn arm_and_wait(
        &self,
        timer: &Timer,
        deadline: Time,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        timer.arm(deadline)?;
        self.wait(events, timeout)
    }

    #[inline(always)]
    fn wait_ms(&self, events: &mut Events, ms: libc::c_int) -> io::Result<usize> {
        syscall::epoll_wait(self.epoll.as_fd(), &mut events.list, ms)
    }

    /// Returns true if timeouts are counted in nanoseconds: the kernel has `epoll_pwait2`. One
    /// syscall.
    fn has_fine_timeout(&self) -> bool {
        // The kernel refuses this call, because a successful wait would take an edge event.
        let refused = syscall::epoll_pwait2(self.epoll.as_fd(), &mut [], &Timespec::ZERO);
        !refused.is_err_and(|error| is_missing(&error))
    }

    fn wait_timed(&self, events: &mut Events, timeout: Duration) -> io::Result<usize> {
        static NO_PWAIT2: AtomicBool = AtomicBool::new(false);
        if !NO_PWAIT2.load(Ordering::Relaxed) {
            match self.pwait2(events, timeout) {
                Err(error) if is_missing(&error) => NO_PWAIT2.store(true, Ordering::Relaxed),
                waited => return waited,
            }
        }
        self.wait_ms(events, round_up_to_ms(timeout))
    }

    #[inline(always)]
    fn pwait2(&self, events: &mut Events, timeout: Duration) -> io::Result<usize> {
        syscall::epoll_pwait2(self.epoll.as_fd(), &mut events.list, &Timespec::new(timeout))
    }
}

/// The most ns by which a wait may end before its deadline. Such a wait seldom ends early, and a
/// wait that may end a millisecond early does so half of the time (`docs/EXPERIMENTS.md`).
const AHEAD: u64 = 100_000;

/// The most by which the kernel may end a wait with a timeout later than a timer. The kernel's rule
/// is in fs/select.c, `select_estimate_accuracy`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeoutSlack {
    /// True if timeouts are in ns, because the kernel has `epoll_pwait2`.
    fine: bool,
    /// The least slack in ns (`PR_GET_TIMERSLACK`).
    least: u64,
    /// The divisor of the least share of the timeout: 1,000, or 200 for a process that is nice.
    /// Zero stands for no slack, in a real-time thread.
    divisor: u64,
}

impl TimeoutSlack {
    /// Reads the slack of the calling thread. Four syscalls. Later changes (`nice`,
    /// `PR_SET_TIMERSLACK`) are not noticed.
    pub(super) fn of(poller: &Poller) -> TimeoutSlack {
        // Makes the syscall itself, because libc returns an `int`, in which 2 s would be negative.
        let none: libc::c_ulong = 0;
        // SAFETY: no call takes pointers. (-1 is a niceness, too, and means the same here.)
        let (least, nice, policy) = unsafe {
            let get = libc::PR_GET_TIMERSLACK;
            (
                libc::syscall(libc::SYS_prctl, get, none, none, none, none),
                libc::getpriority(libc::PRIO_PROCESS, 0),
                libc::syscall(libc::SYS_sched_getscheduler, 0),
            )
        };
        let fine = poller.has_fine_timeout();
        const DEADLINE: libc::c_long = 6; // not in every libc
        let real_time = [libc::SCHED_FIFO.into(), libc::SCHED_RR.into(), DEADLINE];
        if real_time.contains(&(policy & !libc::c_long::from(libc::SCHED_RESET_ON_FORK))) {
            return TimeoutSlack { fine, least: 0, divisor: 0 };
        }
        // A slack that is too long for a `long` is negative here. It counts as endless, so that no
        // timeout is used.
        let least = u64::try_from(least).unwrap_or(u64::MAX);
        TimeoutSlack { fine, least, divisor: if nice > 0 { 200 } else { 1_000 } }
    }

    /// Returns the timeout of a wait at `now` that ends from `earliest` to `latest`, as late as
    /// that allows. `None` if no timeout is sure to end in that range.
    pub(crate) fn timeout(self, now: Time, earliest: Time, latest: Time) -> Option<Duration> {
        let (timeout, _) = self.within(latest - now)?;
        (now + timeout >= earliest).then_some(timeout)
    }

    /// Returns the timeout of a wait at `now` that ends at `at`, or earlier by at most [`AHEAD`].
    /// `None` if no timeout is sure to end in that range. The kernel waits as long as the slack
    /// allows, unless an interrupt comes in between.
    pub(crate) fn timeout_ahead(self, now: Time, at: Time) -> Option<Duration> {
        let (timeout, slack) = self.within(at - now)?;
        (slack <= AHEAD).then_some(timeout)
    }

    /// Returns the timeout of a wait that ends after `longest`, or earlier by the slack. Also
    /// returns the slack in ns.
    fn within(self, longest: Duration) -> Option<(Duration, u64)> {
        const MOST: u64 = 100_000_000;
        let share = nanos(longest).checked_div(self.divisor).unwrap_or(0);
        let slack = share.min(MOST).max(self.least);
        let timeout = longest.checked_sub(Duration::from_nanos(slack))?;
        (self.fine && !timeout.is_zero()).then_some((timeout, slack))
    }
}

/// Rounds `timeout` up to milliseconds.
fn round_up_to_ms(timeout: Duration) -> libc::c_int {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    ms.try_into().unwrap_or(libc::c_int::MAX)
}

has_fd!(Poller, epoll);

pub(super) struct Events {
    list: Box<[libc::epoll_event]>,
    ready: usize,
}

impl Events {
    pub(super) fn with_capacity(capacity: usize) -> Events {
        let capacity = Events::brought_into_range(capacity);
        Events {
            list: vec![libc::epoll_event { events: 0, u64: 0 }; capacity].into_boxed_slice(),
            ready: 0,
        }
    }

    /// Limits the capacity: the kernel refuses a buffer of more than `i32::MAX` bytes
    /// (`EP_MAX_EVENTS`).
    const fn brought_into_range(capacity: usize) -> usize {
        const MOST: usize = i32::MAX as usize / size_of::<libc::epoll_event>();
        match capacity {
            0 => 1,
            1..=MOST => capacity,
            _ => MOST,
        }
    }

    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.list[..self.ready].iter().map(|e| Event { id: e.u64, flags: e.events })
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.ready == self.list.len()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.ready
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    id: u64,
    flags: u32,
}

impl Event {
    #[inline]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    pub(super) fn readiness(&self) -> Readiness {
        const READABLE: u32 = libc::EPOLLIN as u32;
        const WRITABLE: u32 = libc::EPOLLOUT as u32;
        // Nearly every event has one of these sets of flags.
        match self.flags {
            READABLE => Readiness::READABLE,
            WRITABLE => Readiness::WRITABLE,
            _ => self.any_readiness(),
        }
    }

    fn any_readiness(&self) -> Readiness {
        let end = libc::EPOLLHUP | libc::EPOLLERR;
        let meanings = [
            (libc::EPOLLIN | libc::EPOLLRDHUP | end, Readiness::READABLE),
            (libc::EPOLLOUT | end, Readiness::WRITABLE),
            (libc::EPOLLPRI, Readiness::PRIORITY),
            (libc::EPOLLRDHUP | libc::EPOLLHUP, Readiness::READ_CLOSED),
            (libc::EPOLLHUP, Readiness::WRITE_CLOSED),
            (libc::EPOLLERR, Readiness::ERROR),
        ];
        let mut found = Readiness::NONE;
        for (flags, readiness) in meanings {
            if self.flags & flags as u32 != 0 {
                found = found | readiness;
            }
        }
        found
    }
}

/// Returns true if the kernel lacks a call (`ENOSYS`), or a sandbox forbids it (`EPERM`, `EACCES`).
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ms_fallback_never_wakes_early() {
        assert_eq!(round_up_to_ms(Duration::from_nanos(1)), 1);
        assert_eq!(round_up_to_ms(Duration::from_millis(7)), 7);
        assert_eq!(round_up_to_ms(Duration::from_micros(7_001)), 8);
        assert_eq!(round_up_to_ms(Duration::MAX), libc::c_int::MAX);
    }

    #[test]
    fn enough_slack_replaces_the_timer_by_a_timeout() {
        let kernel = TimeoutSlack { fine: true, least: 50_000, divisor: 1_000 };
        let at = |us: u64| Time::from_nanos(us * 1_000);
        let timeout = |now, earliest, latest| kernel.timeout(at(now), at(earliest), at(latest));
        // The wait takes 1 s with 1 ms of slack. 0.1 % of the longest wait is a little more.
        assert_eq!(timeout(0, 1_000_000, 1_001_000), None);
        assert_eq!(timeout(0, 1_000_000, 1_002_000), Some(Duration::from_nanos(1_000_998_000)));
        // The slack must be at least 50 us.
        assert_eq!(timeout(1_000, 2_000, 2_049), None);
        assert_eq!(timeout(1_000, 2_000, 2_050), Some(Duration::from_millis(1)));
        // The slack of the kernel is at most 100 ms.
        assert_eq!(timeout(0, 3_600_000_000, 3_600_100_000), Some(Duration::from_secs(3_600)));
        // A past deadline needs no wait.
        assert_eq!(timeout(1_000, 900, 1_020), None);
        let nice = TimeoutSlack { divisor: 200, ..kernel };
        assert_eq!(nice.timeout(at(0), at(1_000_000), at(1_002_000)), None);
        let coarse = TimeoutSlack { fine: false, ..kernel };
        assert_eq!(coarse.timeout(at(0), at(1_000), at(1_000_000)), None);
    }

    #[test]
    fn a_shortened_timeout_ends_by_the_deadline() {
        let kernel = TimeoutSlack { fine: true, least: 50_000, divisor: 1_000 };
        let at = |us: u64| Time::from_nanos(us * 1_000);
        let us = |n| Some(Duration::from_micros(n));
        let timeout = |kernel: TimeoutSlack, due| kernel.timeout_ahead(at(1_000), at(due));
        assert_eq!(timeout(kernel, 2_000), us(950));
        assert_eq!(timeout(kernel, 101_000), us(99_900));
        // No timeout suits a wait that may end too early, one shorter than the slack, or the past.
        assert_eq!([1_002_000, 1_050, 1_000, 500].map(|due| timeout(kernel, due)), [None; 4]);
        let nice = TimeoutSlack { divisor: 200, ..kernel };
        assert_eq!([11_000, 31_000].map(|due| timeout(nice, due)), [us(9_950), None]);
        let real_time = TimeoutSlack { least: 0, divisor: 0, ..kernel };
        assert_eq!([1_001, 9_001_000].map(|due| timeout(real_time, due)), [us(1), us(9_000_000)]);
        assert_eq!(timeout(TimeoutSlack { fine: false, ..kernel }, 2_000), None);
    }

    #[test]
    fn a_long_slack_of_the_thread_is_known() {
        // The slack is too long for an `i32`. The other tests have threads of their own.
        let long: libc::c_ulong = 3_000_000_000;
        // SAFETY: the call takes no pointers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, long) }, 0);
        let slack = TimeoutSlack::of(&Poller::new().unwrap());
        assert!(slack.least >= 3_000_000_000, "{slack:?}");
    }

    #[test]
    fn the_kernel_limits_the_event_buffer() {
        let most = |asked| Events::brought_into_range(asked);
        assert_eq!([most(0), most(1), most(1_000)], [1, 1, 1_000]);
        // The kernel's limit is EP_MAX_EVENTS in fs/eventpoll.c.
        assert_eq!(most(usize::MAX), i32::MAX as usize / size_of::<libc::epoll_event>());
    }

    #[test]
    fn the_slack_of_this_kernel_is_known() {
        let slack = TimeoutSlack::of(&Poller::new().unwrap());
        assert!(slack.least > 0 && slack.least < 100_000_000, "{slack:?}");
    }
}
