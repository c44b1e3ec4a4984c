//! Times for raw Linux syscalls, which are 64-bit numbers on every architecture.
//!
//! Quirks handled here:
//! - On 32-bit systems `libc::timespec` is two 32-bit numbers. Syscalls of Linux 5.1 or later know
//!   only `__kernel_timespec`, which is two 64-bit numbers everywhere. A kernel that is given a
//!   32-bit struct reads past its end. So no raw syscall takes a `libc::timespec`.
//! - The `timerfd_settime` of a 32-bit libc ends in 2038. [`timerfd_settime`] uses the 64-bit
//!   syscall there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::check;
use super::super::time::{LAST_SECOND, timespec};
use super::{is_missing, syscall};

/// The `struct __kernel_timespec` of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Timespec {
    seconds: i64,
    nanos: i64,
}

impl Timespec {
    pub(super) const ZERO: Timespec = Timespec { seconds: 0, nanos: 0 };

    /// Converts `d`, or gives the greatest possible time if `d` is greater.
    #[inline]
    pub(super) fn new(d: Duration) -> Timespec {
        Timespec {
            seconds: d.as_secs().try_into().unwrap_or(i64::MAX),
            nanos: d.subsec_nanos().into(),
        }
    }
}

/// The `struct __kernel_itimerspec` of the kernel.
#[repr(C)]
pub(super) struct Itimerspec {
    interval: Timespec,
    value: Timespec,
}

impl Itimerspec {
    fn once(value: Duration) -> Itimerspec {
        Itimerspec { interval: Timespec::ZERO, value: Timespec::new(value) }
    }
}

const _: () = assert!(size_of::<Timespec>() == 16 && size_of::<Itimerspec>() == 32);

/// True if `libc::itimerspec` has the kernel's layout. The sizes are equal only then.
const SAME_AS_LIBC: bool = size_of::<libc::itimerspec>() == size_of::<Itimerspec>();

/// The number of the 64-bit syscall. It is the same on all 32-bit systems, but some count from
/// 4,000.
const TIMERFD_SETTIME64: libc::c_long =
    if cfg!(any(target_arch = "mips", target_arch = "mips32r6")) { 4411 } else { 411 };

/// Arms the timerfd `fd` to fire once at `value`, or disarms it if `value` is zero. One syscall.
#[inline(always)] // see Notify::wake
pub(super) fn timerfd_settime(
    fd: BorrowedFd<'_>,
    flags: libc::c_int,
    value: Duration,
) -> io::Result<()> {
    if !SAME_AS_LIBC {
        return timerfd_settime64(fd, flags, value);
    }
    syscall::timerfd_settime(fd, flags, &Itimerspec::once(value))
}

fn timerfd_settime64(fd: BorrowedFd<'_>, flags: libc::c_int, value: Duration) -> io::Result<()> {
    static MISSING: AtomicBool = AtomicBool::new(false);
    if !MISSING.load(Ordering::Relaxed) {
        let spec = Itimerspec::once(value);
        // SAFETY: the fd is open, `spec` is valid for the length of the call, and a null old value
        // is allowed.
        let armed = unsafe {
            let old = ptr::null_mut::<Itimerspec>();
            libc::syscall(TIMERFD_SETTIME64, fd.as_raw_fd(), flags, &raw const spec, old)
        };
        match check(armed as libc::c_int) {
            Err(error) if is_missing(&error) => MISSING.store(true, Ordering::Relaxed),
            armed => return armed.map(drop),
        }
    }
    timerfd_settime32(fd, flags, value)
}

/// Arms a timerfd before Linux 5.1. A deadline that is too late for that syscall becomes the last
/// possible time, after 68 years. On the wall clock that would be too early, so there it is an
/// error.
#[cold]
fn timerfd_settime32(fd: BorrowedFd<'_>, flags: libc::c_int, value: Duration) -> io::Result<()> {
    if flags & libc::TFD_TIMER_CANCEL_ON_SET != 0 && value.as_secs() > LAST_SECOND {
        let text = "this kernel has no timers for such a time of day: no timerfd_settime64";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let (zero, value) = (timespec(Duration::ZERO), timespec(value));
    let spec = libc::itimerspec { it_interval: zero, it_value: value };
    // SAFETY: the fd is open, `spec` is valid for the length of the call, and a null old value is
    // allowed.
    check(unsafe { libc::timerfd_settime(fd.as_raw_fd(), flags, &spec, ptr::null_mut()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    /// Arms a timer of `clock`, and returns the seconds until its deadline.
    fn armed_for(
        clock: libc::clockid_t,
        settime: fn(BorrowedFd<'_>, libc::c_int, Duration) -> io::Result<()>,
        value: Duration,
    ) -> u64 {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) }).unwrap();
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        settime(fd.as_fd(), libc::TFD_TIMER_ABSTIME, value).unwrap();
        // The kernel's text is "it_value: (seconds, nanoseconds)", the remaining time.
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let left = info.lines().find_map(|line| line.strip_prefix("it_value: (")).unwrap();
        left.split(',').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_timer_is_armed_for_the_requested_time() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        for away in [1_000, 1 << 32] {
            let value = now + Duration::from_secs(away);
            let left = armed_for(libc::CLOCK_REALTIME, timerfd_settime, value);
            assert!(left <= away && left > away - 900, "{left} s rather than {away} s");
        }
        let left = armed_for(libc::CLOCK_MONOTONIC, timerfd_settime, Duration::MAX);
        assert!(left > 9_000_000_000, "{left} s"); // the greatest time that the kernel has
    }

    #[test]
    fn an_old_kernel_gets_its_longest_timer() {
        let left = armed_for(libc::CLOCK_MONOTONIC, timerfd_settime32, Duration::MAX);
        let most = if SAME_AS_LIBC { 9_000_000_000 } else { 1_000_000_000 };
        assert!(left > most, "{left} s");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let left =
            armed_for(libc::CLOCK_REALTIME, timerfd_settime32, now + Duration::from_secs(1_000));
        assert!((100..=1_000).contains(&left), "{left} s");
    }

    #[test]
    fn a_duration_saturates_as_a_timespec() {
        assert_eq!(
            Timespec::new(Duration::MAX),
            Timespec { seconds: i64::MAX, nanos: 999_999_999 }
        );
        assert_eq!(Timespec::new(Duration::new(7, 8)), Timespec { seconds: 7, nanos: 8 });
    }
}
