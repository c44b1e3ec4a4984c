//! A fast clock for arming: the CPU's time stamp counter, tied to `CLOCK_MONOTONIC` every few
//! microseconds.
//!
//! `reset(d)` counts from the present time, so it reads the clock each time. The reading is the
//! greater part of its cost: the vDSO call takes 24 ns, and `rdtsc` takes 10 ns.
//! [`TscClock::now_or_later`] computes the time from the counter's distance to an anchor, which is
//! a pair of counter and time.
//!
//! **Never early.** The anchor's counter is read *before* its time. The rate is rounded up by more
//! than the kernel usually changes its clock's speed, which is up to 500 ppm either way. So the
//! result is the true time or later, by some 30 ns in all:
//! - the length of one clock reading (a reading with an interrupt in between is no anchor),
//! - and [`MARGIN_PPM`] of the time since the anchor, which is at most [`WINDOW_NS`].
//!
//! The clock uses a rate when two measurements in a row agree. A counter that stops, jumps or goes
//! back leaves the window and gets a new anchor. (A time daemon may change the speed by percents at
//! once. Then a reading may be early by that share of a window, a few hundred ns, until the next
//! measurement.)
//!
//! The counter is used only if the kernel itself uses it as its clock (Linux, clocksource `tsc`),
//! and the CPU reports that it is invariant. Otherwise, and until a rate is known, every reading is
//! a `CLOCK_MONOTONIC` reading.

use std::cell::Cell;
use std::sync::OnceLock;

use super::Time;

/// The life of an anchor.
const WINDOW_NS: u64 = 5_000;
/// The least length of a measurement of the rate. The greatest is [`BASELINE_MAX_NS`]. The error of
/// each end is at most 30 ns, so that of the rate is at most 300 ppm.
const BASELINE_NS: u64 = 200_000;
const BASELINE_MAX_NS: u64 = 1_000_000_000;
/// The step to which the rate is rounded up, and the most by which two measurements may differ.
const MARGIN_PPM: u64 = 1_500;
/// The most counts during a reading of the clock, some 300 ns. An interrupt in between makes the
/// anchor late by its length.
const READ_COUNTS: u64 = 1_000;
/// After this many readings that took longer, without two measurements of the rate that agree, the
/// clock stops using the counter. This happens in an emulator, where the counter is slow.
const MAX_USELESS: u32 = 1_000;
/// A measurement of the rate that does not agree counts as this many long readings.
const DISAGREEMENT: u32 = MAX_USELESS / 20;

/// See the module's text. `!Sync`: each reactor has its own.
#[derive(Debug)]
pub(crate) struct TscClock {
    /// The counter may be read, and readings of the clock are short.
    counts: Cell<bool>,
    /// The long readings, and the measurements that did not agree, since two agreed, or since a
    /// reading came too late for a measurement. At [`MAX_USELESS`] the clock stops using the
    /// counter.
    useless: Cell<u32>,
    /// The counter at the anchor.
    base: Cell<u64>,
    base_ns: Cell<u64>,
    /// The greatest distance of the counter from `base`. Zero without an anchor or a rate.
    window: Cell<u64>,
    /// The `window` with an anchor.
    full_window: Cell<u64>,
    /// The ns for each count, times 2^32, rounded up.
    rate: Cell<u64>,
    /// The last measured rate, or 0.
    measured: Cell<u64>,
    /// The start of the measurement of the rate.
    from: Cell<Option<(u64, u64)>>,
}

impl TscClock {
    pub(crate) fn new() -> TscClock {
        TscClock {
            counts: Cell::new(available()),
            useless: Cell::new(0),
            base: Cell::new(0),
            base_ns: Cell::new(0),
            window: Cell::new(0),
            full_window: Cell::new(0),
            rate: Cell::new(0),
            measured: Cell::new(0),
            from: Cell::new(None),
        }
    }

    /// The time now, never too early and at most about 30 ns too late.
    #[inline]
    pub(crate) fn now_or_later(&self) -> Time {
        self.quick_now_or_later().unwrap_or_else(|| self.read_now())
    }

    /// [`now_or_later`](Self::now_or_later), unless that takes a reading of the clock.
    #[inline]
    pub(crate) fn quick_now_or_later(&self) -> Option<Time> {
        if !self.counts.get() {
            return None;
        }
        let since = read().wrapping_sub(self.base.get());
        let is_near = since < self.window.get();
        is_near.then(|| Time::from_nanos(self.base_ns.get() + ((since * self.rate.get()) >> 32)))
    }

    /// Returns true if the counter is in use.
    #[inline]
    pub(crate) fn counts(&self) -> bool {
        self.counts.get()
    }

    /// Reads the clock, and makes an anchor of the reading.
    #[cold]
    #[inline(never)]
    fn read_now(&self) -> Time {
        if self.counts.get() { self.anchor(read()) } else { Time::now() }
    }

    /// Returns true if two measurements of the rate have agreed. Then the error of
    /// [`nanos_since`](Self::nanos_since) is at most 0.3 %.
    #[inline]
    pub(crate) fn is_sure(&self) -> bool {
        self.full_window.get() > 0
    }

    /// Reads the counter.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        read()
    }

    /// Returns the ns since the counter was `count`, rounded up. Returns the greatest number if the
    /// rate is not sure.
    #[inline]
    pub(crate) fn nanos_since(&self, count: u64) -> u64 {
        let counts = read().wrapping_sub(count);
        let ns = (u128::from(counts) * u128::from(self.rate.get())) >> 32;
        if self.is_sure() { ns.try_into().unwrap_or(u64::MAX) } else { u64::MAX }
    }

    fn anchor(&self, counter: u64) -> Time {
        let now = Time::now();
        if read().wrapping_sub(counter) > READ_COUNTS {
            // The reading is exact, but no anchor.
            self.window.set(0);
            self.count_useless(1);
        } else {
            self.anchor_at(counter, now);
        }
        now
    }

    /// Counts `n` readings of the counter that saved nothing.
    fn count_useless(&self, n: u32) {
        self.useless.set(self.useless.get() + n);
        self.counts.set(self.useless.get() < MAX_USELESS);
    }

    /// Sets the anchor to a counter, and to a time that was read right after it.
    fn anchor_at(&self, counter: u64, now: Time) {
        self.base.set(counter);
        self.base_ns.set(now.as_nanos());
        self.window.set(self.full_window.get());
        let (from, from_ns) = self.from.get().unwrap_or((counter, now.as_nanos()));
        let ns = now.as_nanos().saturating_sub(from_ns);
        if ns < BASELINE_NS && self.from.get().is_some() {
            return;
        }
        self.from.set(Some((counter, now.as_nanos())));
        let measured =
            if ns <= BASELINE_MAX_NS { rate(ns, counter.wrapping_sub(from)) } else { None };
        let rate = measured.unwrap_or(0);
        let agrees = rate != 0 && rate.abs_diff(self.measured.replace(rate)) <= ppm(rate);
        // Two calls that are far apart give no measurement, and the last rate is not used either.
        self.rate.set(rate + ppm(rate) + 1);
        self.full_window.set(if agrees { (WINDOW_NS << 32) / rate } else { 0 });
        self.window.set(self.full_window.get());
        if agrees || ns > BASELINE_MAX_NS {
            self.useless.set(0);
        } else if measured.is_some() {
            self.count_useless(DISAGREEMENT);
        }
    }
}

fn ppm(rate: u64) -> u64 {
    rate * MARGIN_PPM / 1_000_000
}

/// Returns the ns for each count, times 2^32. Returns `None` for a rate outside of 0.2 to 20 GHz,
/// for instance after a suspend.
fn rate(ns: u64, counts: u64) -> Option<u64> {
    let rate = (u128::from(ns) << 32).checked_div(u128::from(counts))?;
    let plausible = (1u128 << 32) / 20..=(1u128 << 32) * 5;
    plausible.contains(&rate).then_some(rate as u64)
}

/// Returns true if the counter may be used, which is decided once in a process.
#[inline]
fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        cfg!(all(linux, target_arch = "x86_64")) && invariant() && kernel_trusts_it()
    })
}

fn kernel_trusts_it() -> bool {
    let source =
        std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    source.is_ok_and(|source| source.trim() == "tsc")
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn read() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction. (Where an OS forbids it to user code the
    // kernel's own clock reading, the vDSO, could not use it either, and `kernel_trusts_it` is
    // false.)
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "x86_64")]
fn invariant() -> bool {
    #[allow(unused_unsafe)] // newer toolchains have made it safe
    // SAFETY: every x86_64 CPU has the instruction.
    let leaf = |n: u32| unsafe { core::arch::x86_64::__cpuid(n) };
    leaf(0x8000_0000).eax >= 0x8000_0007 && leaf(0x8000_0007).edx & (1 << 8) != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> u64 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn invariant() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_reading_is_never_before_an_earlier_one() {
        let clock = TscClock::new();
        let end = Time::now() + Duration::from_millis(50);
        let (mut before, mut n) = (Time::now(), 0u64);
        while before < end || n < 1_000 {
            let fast = clock.now_or_later();
            assert!(fast >= before, "reading {n}: {fast:?} is before {before:?}");
            before = Time::now();
            n += 1;
        }
    }

    #[test]
    fn close_to_the_true_time() {
        let clock = TscClock::new();
        let (mut worst_of_best, end) = (Duration::ZERO, Time::now() + Duration::from_millis(20));
        while Time::now() < end {
            // The least of a few differences excludes preemptions between the two readings.
            let ahead = (0..5).map(|_| {
                let fast = clock.now_or_later();
                fast - Time::now()
            });
            worst_of_best = worst_of_best.max(ahead.min().unwrap());
        }
        assert!(worst_of_best < Duration::from_micros(1), "{worst_of_best:?} ahead");
    }

    #[test]
    fn counts_are_turned_into_the_time_that_passed() {
        let clock = TscClock::new();
        assert_eq!(clock.nanos_since(read()), u64::MAX, "no rate is known yet");
        if !available() {
            return;
        }
        let (mut rounds, mut sure) = (0, 0);
        while sure < 5 && rounds < 100_000 {
            rounds += 1;
            clock.now_or_later();
            if !clock.is_sure() {
                std::thread::sleep(Duration::from_micros(300));
                continue;
            }
            sure += 1;
            let outer = Time::now();
            let (count, inner) = (clock.count(), Time::now());
            std::thread::sleep(Duration::from_millis(2));
            let least = Time::now() - inner;
            let passed = Duration::from_nanos(clock.nanos_since(count));
            let most = Time::now() - outer;
            assert!(passed >= least, "{passed:?} of {least:?}");
            assert!(passed <= most + most / 300, "{passed:?} of {most:?}");
        }
        assert!(sure > 0, "no two measurements have agreed");
    }

    /// In this test three ns are seven counts. A rate that is rounded down would make early
    /// readings.
    #[test]
    fn the_rate_is_rounded_up() {
        let clock = TscClock::new();
        for n in 0..3 {
            let ns = n * 3 * BASELINE_NS;
            clock.anchor_at(ns / 3 * 7, Time::from_nanos(ns));
        }
        let (rate, window) = (clock.rate.get(), clock.window.get());
        assert!(window > 0, "two measurements have agreed");
        assert!(rate * 7 > 3 << 32 && rate * 7 - ppm(rate) * 7 <= (3 << 32) + 7);
        // The kernel may speed its clock up by 500 ppm.
        assert!((window * rate) >> 32 >= window * 3 / 7 + window * 3 / 7 / 2_000);
    }

    #[test]
    fn a_slow_reading_is_no_anchor() {
        if !available() {
            return;
        }
        let clock = TscClock::new();
        clock.anchor_at(read(), Time::now());
        let base = clock.base.get();
        clock.anchor(read() - READ_COUNTS);
        assert_eq!((clock.base.get(), clock.window.get()), (base, 0));
    }

    #[test]
    fn long_readings_end_the_use_of_the_counter() {
        let clock = TscClock { counts: Cell::new(true), ..TscClock::new() };
        for n in 0..MAX_USELESS {
            assert!(clock.counts.get(), "after {n} long readings");
            clock.anchor(read().wrapping_sub(2 * READ_COUNTS));
        }
        assert!(!clock.counts.get());
    }

    #[test]
    fn rare_readings_keep_the_counter() {
        let clock = TscClock { counts: Cell::new(true), ..TscClock::new() };
        let start = Time::now();
        for n in 0..4 {
            for _ in 0..MAX_USELESS / 2 {
                clock.anchor(read().wrapping_sub(2 * READ_COUNTS));
            }
            clock.anchor_at(read(), start + Duration::from_secs(2 * n));
        }
        assert!(clock.counts.get());
    }

    #[test]
    fn a_rate_no_cpu_has_is_refused() {
        assert_eq!(rate(1_000_000, 0), None);
        assert_eq!(rate(1_000_000_000, 1_000_000), None); // the counter stood still
        assert_eq!(rate(1_000_000, 1_000_000_000), None); // the clock stood still
        let two_ghz = rate(1_000_000, 2_000_000).unwrap();
        assert_eq!(two_ghz, 1 << 31);
    }
}
