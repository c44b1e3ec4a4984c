//! `Instant` and [`Time`], each turned into the other.
//!
//! The two are one clock. An anchor ties them: one `Instant`, with raw readings before and after
//! it. **Every error on either way makes a deadline late, never early.**
//!
//! The standard library hides the numbers of an `Instant`. To subtract two of them is a call of
//! some forty instructions, which was the greater part of `reset_at(Instant)`. But an `Instant`
//! gives its numbers to a [`Hasher`], and the compiler makes two loads of that. The first
//! conversion checks what the numbers mean. Where they mean something else, every conversion
//! subtracts.

use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::time::{NANOS, Time};

impl From<Instant> for Time {
    /// The same moment, at most some 30 ns later and never earlier. An `Instant` too far back or
    /// ahead saturates.
    #[inline]
    fn from(instant: Instant) -> Time {
        let anchor = anchor();
        match Numbers::of(instant) {
            // Nothing overflows: both parts of the sum are below 2^63.
            Some((secs, nanos)) if secs < anchor.seconds => {
                Time::from_nanos(secs * NANOS + u64::from(nanos) + anchor.offset)
            }
            _ => anchor.subtract(instant),
        }
    }
}

impl From<Time> for Instant {
    /// The same moment, at most some 30 ns later and never earlier. [`Time::MAX`] is some 584 years
    /// after the clock's origin.
    ///
    /// The `Time` counts as one on `CLOCK_MONOTONIC`. A `Time` of a virtual clock has an `Instant`
    /// only if that clock [started](crate::Sim::starting_at) at `Time::now()`.
    ///
    /// ```
    /// use pollmux::{Reactor, Time};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::new()?;
    /// let timer = reactor.after(Duration::from_secs(1));
    /// let deadline = Instant::from(timer.deadline().unwrap());
    /// assert!(deadline <= Instant::now() + Duration::from_secs(1));
    /// # std::io::Result::Ok(())
    /// ```
    fn from(t: Time) -> Instant {
        let anchor = anchor();
        // An `Instant` counts seconds with a sign, in 64 bits: nothing overflows.
        match t.checked_duration_since(anchor.earliest) {
            Some(after) => anchor.instant + after,
            None => anchor.instant - (anchor.earliest - t),
        }
    }
}

/// The seconds that a conversion by numbers takes at most: 272 years, whose ns are below 2^63.
const SECONDS: u64 = 1 << 33;

/// An `Instant`, and the bounds of its `Time`.
struct Anchor {
    instant: Instant,
    earliest: Time,
    latest: Time,
    /// The numbers of an `Instant` with fewer seconds than this are its time since the zero of the
    /// clock. 0 where that is not known.
    seconds: u64,
    /// ns, from this time to the `Time`.
    offset: u64,
}

#[inline]
fn anchor() -> &'static Anchor {
    static ANCHOR: OnceLock<Anchor> = OnceLock::new();
    ANCHOR.get_or_init(|| {
        // A `Time` that is read after an `Instant` is an upper bound of it, one that is read before
        // a lower bound. The best of many bounds is still one.
        let instant = Instant::now();
        let (mut earliest, mut latest) = (Time::ZERO, Time::MAX);
        for _ in 0..32 {
            let before = Instant::now();
            let time = Time::now();
            let after = Instant::now();
            latest = latest.min(time - (before - instant));
            earliest = earliest.max(time - (after - instant));
        }
        let offset = offset(instant, latest);
        let seconds = if offset.is_some() { SECONDS } else { 0 };
        Anchor { instant, earliest, latest, seconds, offset: offset.unwrap_or(0) }
    })
}

impl Anchor {
    #[cold]
    #[inline(never)]
    fn subtract(&self, instant: Instant) -> Time {
        match instant.checked_duration_since(self.instant) {
            Some(after) => self.latest + after,
            None => self.latest - (self.instant - instant),
        }
    }
}

/// Returns the ns from the numbers of an `Instant` to its `Time`. `None` if the numbers are not
/// seconds and nanoseconds.
fn offset(instant: Instant, time: Time) -> Option<u64> {
    let of = |instant| {
        let (secs, nanos) = Numbers::of(instant)?;
        (secs < SECONDS && u64::from(nanos) < NANOS).then(|| secs * NANOS + u64::from(nanos))
    };
    let begin = of(instant)?;
    let steps = [1, 999_999_999, NANOS, 12_345_678_901, 1 << 52];
    let means_time =
        |step| of(instant.checked_add(Duration::from_nanos(step))?)?.checked_sub(begin);
    let offset = time.as_nanos().checked_sub(begin)?;
    (steps.iter().all(|&step| means_time(step) == Some(step)) && offset >> 63 == 0)
        .then_some(offset)
}

/// A hasher that keeps the two numbers of an `Instant`.
#[derive(Default)]
struct Numbers {
    secs: i64,
    nanos: u32,
    /// The calls so far, a digit each.
    calls: u32,
}

impl Numbers {
    /// The calls of an `Instant`.
    const EXPECTED: u32 = 12;

    /// Returns the seconds and the nanoseconds, if the `Instant` consists of such numbers.
    #[inline]
    fn of(instant: Instant) -> Option<(u64, u32)> {
        let mut numbers = Numbers::default();
        instant.hash(&mut numbers);
        // A negative number of seconds is a large one.
        (numbers.calls == Numbers::EXPECTED).then_some((numbers.secs as u64, numbers.nanos))
    }
}

impl Hasher for Numbers {
    #[inline]
    fn write_i64(&mut self, secs: i64) {
        self.secs = secs;
        self.calls = self.calls * 10 + 1;
    }

    #[inline]
    fn write_u32(&mut self, nanos: u32) {
        self.nanos = nanos;
        self.calls = self.calls * 10 + 2;
    }

    /// Called for any other number.
    #[inline]
    fn write(&mut self, _: &[u8]) {
        self.calls = self.calls.saturating_mul(10).saturating_add(3);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_never_converts_to_an_earlier_time() {
        for _ in 0..10_000 {
            let before = Time::now();
            let converted = Time::from(Instant::now());
            assert!(converted >= before, "{converted:?} is before {before:?}");
        }
    }

    #[test]
    fn an_instant_converts_close_to_the_true_time() {
        let lag = (0..1_000).map(|_| {
            let converted = Time::from(Instant::now());
            converted - Time::now()
        });
        assert!(lag.min().unwrap() < Duration::from_micros(1));
    }

    #[test]
    fn a_time_never_converts_to_an_earlier_instant() {
        let late = (0..10_000).map(|_| {
            let before = Instant::now();
            let converted = Instant::from(Time::now());
            converted.checked_duration_since(before).expect("not before the reading")
        });
        assert!(late.min().unwrap() < Duration::from_micros(1));
    }

    #[test]
    fn a_time_survives_both_conversions_within_a_microsecond() {
        for time in [Time::ZERO, Time::now(), Time::now() + Duration::from_secs(1 << 33)] {
            let back = Time::from(Instant::from(time));
            assert!(back >= time && back - time < Duration::from_micros(1), "{time:?}, {back:?}");
        }
        assert_eq!(Time::from(Instant::from(Time::MAX)), Time::MAX);
    }

    #[test]
    fn instants_far_away_saturate() {
        let now = Instant::now();
        if let Some(far) = now.checked_add(Duration::from_secs(1 << 40)) {
            assert_eq!(Time::from(far), Time::MAX);
        }
        if let Some(past) = now.checked_sub(Duration::from_secs(1 << 40)) {
            assert_eq!(Time::from(past), Time::ZERO);
        }
    }

    #[test]
    fn instants_convert_by_numbers_as_by_subtraction() {
        let (now, anchor) = (Instant::now(), anchor());
        for ns in [0, 1, 999_999_999, NANOS, 1 << 50, 1 << 60] {
            let d = Duration::from_nanos(ns);
            for instant in [now.checked_add(d), now.checked_sub(d)].into_iter().flatten() {
                assert_eq!(Time::from(instant), anchor.subtract(instant), "{d:?}");
            }
        }
    }

    #[test]
    fn linux_instants_convert_by_numbers() {
        assert!(cfg!(not(linux)) || anchor().seconds > 0);
    }

    #[test]
    fn a_hash_of_other_numbers_has_no_time() {
        let calls = |hash: &dyn Fn(&mut Numbers)| {
            let mut numbers = Numbers::default();
            hash(&mut numbers);
            numbers.calls
        };
        assert_eq!(calls(&|numbers| (7i64, 8u32).hash(numbers)), Numbers::EXPECTED);
        assert_ne!(calls(&|numbers| (7u64, 8u32).hash(numbers)), Numbers::EXPECTED);
        assert_ne!(calls(&|numbers| (8u32, 7i64).hash(numbers)), Numbers::EXPECTED);
        assert_ne!(calls(&|numbers| 7i64.hash(numbers)), Numbers::EXPECTED);
        assert_ne!(calls(&|numbers| (7i64, 8u32, 9u8).hash(numbers)), Numbers::EXPECTED);
    }
}
