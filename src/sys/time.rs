//! [`Time`]: the one time scale of the crate, and the readings of the clock behind it.
//!
//! A `Time` is nanoseconds on `CLOCK_MONOTONIC`. On macOS it is on `CLOCK_UPTIME_RAW`, as `Instant`
//! is there. An `Instant` is the same clock behind an opaque type: `instant.rs` turns each into the
//! other.

use std::fmt;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use super::errors::of_call;

/// The clock of `Instant`.
#[cfg(not(apple))]
const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;
#[cfg(apple)]
const MONOTONIC: libc::clockid_t = libc::CLOCK_UPTIME_RAW;

/// Nanoseconds in a second.
pub(super) const NANOS: u64 = 1_000_000_000;

/// A point in time: nanoseconds on `CLOCK_MONOTONIC` (macOS: `CLOCK_UPTIME_RAW`), or on the virtual
/// clock of a simulated reactor.
///
/// It is `Copy`, takes plus and minus [`Duration`], and saturates instead of overflowing:
/// [`Time::MAX`] means "never". A method that takes a point in time takes an
/// [`Instant`](std::time::Instant) as well. `Instant::from(time)` goes the other way.
///
/// ```
/// use pollmux::Time;
/// use std::time::Duration;
///
/// let start = Time::now();
/// let later = start + Duration::from_millis(5);
/// assert_eq!(later - start, Duration::from_millis(5));
/// assert_eq!(start - later, Duration::ZERO); // saturates
/// assert_eq!(later + Duration::MAX, Time::MAX); // never
/// assert_eq!(later.duration_since(start), Duration::from_millis(5));
/// assert_eq!(start.checked_duration_since(later), None);
/// assert_eq!(Time::from_nanos(7).as_nanos(), 7);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Time(u64);

/// A point in time: a [`Time`], an [`Instant`](std::time::Instant), or another type that turns into
/// a `Time`.
///
/// ```
/// use pollmux::{Reactor, Time};
/// use std::time::{Duration, Instant};
///
/// let reactor = Reactor::new()?;
/// let timer = reactor.at(Time::now() + Duration::from_secs(1));
/// timer.reset_at(Instant::now() + Duration::from_secs(2));
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a point in time",
    label = "neither a `Time` nor an `Instant`",
    note = "a duration from now: `reactor.now() + d`, or `after(d)`, `every(d)?`, `reset(d)`",
    note = "a time of day, as `SystemTime` is one: `reactor.wall_timer()?`"
)]
pub trait PointInTime: Into<Time> {}

#[diagnostic::do_not_recommend]
impl<T: Into<Time>> PointInTime for T {}

impl Time {
    /// The origin of the clock. Always in the past on a real clock.
    pub const ZERO: Time = Time(0);
    /// "Never": a timer with this deadline does not fire.
    pub const MAX: Time = Time(u64::MAX);

    /// Reads the clock. Costs one vDSO call, and no syscall where the kernel's clock source allows
    /// that.
    #[inline]
    pub fn now() -> Time {
        Time(read(MONOTONIC))
    }

    /// Returns the point `nanos` nanoseconds after the clock's origin.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Returns the nanoseconds since the clock's origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later. The same as
    /// `self - earlier`.
    #[inline]
    pub fn duration_since(self, earlier: Time) -> Duration {
        self - earlier
    }

    /// Returns the time since `earlier`, or `None` if `earlier` is later.
    #[inline]
    pub fn checked_duration_since(self, earlier: Time) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }
}

/// A clock that goes on during suspend, if the system has one.
#[cfg(any(linux, target_os = "openbsd"))]
const BOOTTIME: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(any(linux, target_os = "openbsd")))]
const BOOTTIME: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// A point on `CLOCK_BOOTTIME`: nanoseconds since the machine was booted, with the time that it was
/// suspended.
///
/// FreeBSD, NetBSD and DragonFly have no such clock, and on macOS `CLOCK_MONOTONIC` counts suspend.
/// There it is `CLOCK_MONOTONIC`.
///
/// ```
/// use pollmux::sys::BootTime;
/// use std::time::Duration;
///
/// let later = BootTime::now() + Duration::from_secs(60);
/// assert!(later - BootTime::now() <= Duration::from_secs(60));
/// assert_eq!(BootTime::from_nanos(7).as_nanos(), 7);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(u64);

impl BootTime {
    /// Reads the clock.
    pub fn now() -> BootTime {
        BootTime(read(BOOTTIME))
    }

    /// Returns the point `nanos` nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> BootTime {
        BootTime(nanos)
    }

    /// Returns the nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// Converts a duration into nanoseconds. Saturates at the distance of [`Time::MAX`].
#[inline]
pub(crate) fn nanos(d: Duration) -> u64 {
    let secs = d.as_secs();
    // 272 years, whose nanoseconds fit.
    if secs >> 33 != 0 {
        return many_nanos(d);
    }
    secs * NANOS + u64::from(d.subsec_nanos())
}

/// [`nanos`] of any duration.
#[cold]
#[inline(never)]
fn many_nanos(d: Duration) -> u64 {
    d.as_nanos().try_into().unwrap_or(u64::MAX)
}

macro_rules! points {
    ($($point:ident)*) => {$(
        impl Add<Duration> for $point {
            type Output = $point;
            /// Saturates: the greatest point is "never".
            #[inline]
            fn add(self, d: Duration) -> $point {
                $point(self.0.saturating_add(nanos(d)))
            }
        }

        impl Sub<$point> for $point {
            type Output = Duration;
            /// Saturates at zero, as `Instant` does.
            #[inline]
            fn sub(self, earlier: $point) -> Duration {
                Duration::from_nanos(self.0.saturating_sub(earlier.0))
            }
        }
    )*};
}
points!(Time BootTime);

impl AddAssign<Duration> for Time {
    #[inline]
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    /// Saturates at [`Time::ZERO`].
    #[inline]
    fn sub(self, d: Duration) -> Time {
        Time(self.0.saturating_sub(nanos(d)))
    }
}

impl SubAssign<Duration> for Time {
    #[inline]
    fn sub_assign(&mut self, d: Duration) {
        *self = *self - d;
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Time::MAX {
            return f.write_str("Time(never)");
        }
        write!(f, "Time({:?})", Duration::from_nanos(self.0))
    }
}

impl fmt::Display for Time {
    /// The time since the clock's origin, as a [`Duration`] is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Time::MAX {
            f.pad("never")
        } else {
            fmt::Debug::fmt(&Duration::from_nanos(self.0), f)
        }
    }
}

/// A coarse reading: cheap, and at most [`coarse_resolution`] (a kernel tick) behind [`Time::now`],
/// unless ticks come late.
///
/// Only Linux has a coarse clock with a known lag. OpenBSD and NetBSD have none, and `clock_getres`
/// does not give the lag on FreeBSD, DragonFly and macOS. There the reading is precise.
#[inline]
pub(crate) fn coarse_now() -> Time {
    #[cfg(linux)]
    return Time(read(libc::CLOCK_MONOTONIC_COARSE));
    #[cfg(not(linux))]
    return Time::now();
}

/// Returns the greatest lag of a coarse reading, from `clock_getres`. Zero for a precise reading.
pub(crate) fn coarse_resolution() -> Duration {
    #[cfg(linux)]
    return resolution(libc::CLOCK_MONOTONIC_COARSE);
    #[cfg(not(linux))]
    return Duration::ZERO;
}

#[cfg(linux)]
fn resolution(clock: libc::clockid_t) -> Duration {
    let mut ts = no_time();
    // SAFETY: `ts` is a valid place for the one timespec that the call writes.
    let failed = unsafe { libc::clock_getres(clock, &mut ts) } != 0;
    if failed { Duration::MAX } else { Duration::from_nanos(from_timespec(&ts)) }
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut ts = no_time();
    // SAFETY: `ts` is a valid place for the one timespec that the call writes.
    if unsafe { libc::clock_gettime(clock, &mut ts) } != 0 {
        unreadable();
    }
    from_timespec(&ts)
}

/// Panics if a clock cannot be read. All used clocks exist, but a filter may refuse a reading by a
/// system call (32 bits: `clock_gettime64`). A reactor with a constant time would hang.
#[cold]
#[inline(never)]
fn unreadable() -> ! {
    panic!("{}", of_call(io::Error::last_os_error(), "clock_gettime"));
}

#[inline]
fn from_timespec(ts: &libc::timespec) -> u64 {
    (ts.tv_sec as u64).wrapping_mul(NANOS).wrapping_add(ts.tv_nsec as u64)
}

/// The greatest number of seconds that is sure to fit into a `libc::timespec`.
pub(super) const LAST_SECOND: u64 =
    if size_of::<libc::timespec>() < 16 { i32::MAX as u64 } else { i64::MAX as u64 };

/// Converts a duration for libc, and saturates. Raw syscalls take a `Timespec` instead.
#[inline]
pub(super) fn timespec(d: Duration) -> libc::timespec {
    let mut spec = no_time();
    // The types of the two fields differ, and musl deprecates the name of the first type.
    (spec.tv_sec, spec.tv_nsec) = (d.as_secs().min(LAST_SECOND) as _, d.subsec_nanos() as _);
    spec
}

/// Returns a `timespec` of zero. On some systems the struct has padding, so no literal makes it.
#[inline]
fn no_time() -> libc::timespec {
    // SAFETY: a timespec is numbers, for all of which zero is a value.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "os error 22")]
    fn an_unreadable_clock_panics() {
        read(libc::clockid_t::MAX);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Time::MAX + Duration::from_nanos(1), Time::MAX);
        assert_eq!(Time::ZERO + Duration::MAX, Time::MAX);
        assert_eq!(Time::ZERO - Duration::MAX, Time::ZERO);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert_eq!(nanos(Duration::new(18_446_744_073, 709_551_614)), u64::MAX - 1);
    }

    #[test]
    fn a_coarse_reading_is_never_ahead() {
        for _ in 0..10_000 {
            let coarse = coarse_now();
            assert!(coarse <= Time::now());
        }
        assert!(coarse_resolution() <= Duration::from_millis(20));
    }
}
