//! The contents of kevents for each system. These are plain functions without a syscall, so that
//! each system tests the tables of all systems.

use std::time::Duration;

use super::{Interest, Mode, Readiness};

/// The flags of a kevent, which are the same on all systems (`kqueue/abi.rs` compares them with
/// libc).
pub(super) const EV_ADD: u32 = 0x1;
pub(super) const EV_DELETE: u32 = 0x2;
pub(super) const EV_DISABLE: u32 = 0x8;
pub(super) const EV_ONESHOT: u32 = 0x10;
pub(super) const EV_CLEAR: u32 = 0x20;
pub(super) const EV_RECEIPT: u32 = 0x40;
pub(super) const EV_DISPATCH: u32 = 0x80;
pub(super) const EV_ERROR: u32 = 0x4000;
pub(super) const EV_EOF: u32 = 0x8000;

/// The filter of a kevent. Its number differs between systems (`kqueue/abi.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Read,
    Write,
    Timer,
    User,
    Process,
}

/// The longest timer or timeout, ten days. In a kernel that counts ticks in an `int` a longer time
/// overflows (24 days at 1,000 Hz). A longer wait ends early, and then waits for the rest.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 86_400);

// ---- Timers.

/// The systems whose timers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // each build has one; the tests have all
pub(super) enum System {
    FreeBsd,
    Apple,
    NetBsd,
    OpenBsd,
    DragonFly,
    /// A library on Linux.
    Libkqueue,
}

/// The properties of a system's one-shot timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timers {
    /// The flag for the unit of `data`.
    pub(super) fflags: u32,
    /// The unit of `data` in ns.
    pub(super) unit_ns: u64,
    /// The flag that makes `data` a time of day, in the same unit.
    pub(super) wall: Option<u32>,
    /// True if adding the timer again restarts it, and takes a pending expiry away.
    pub(super) restarts: bool,
}

impl Timers {
    /// Returns the properties for a `release` as `uname` prints it. Before NetBSD 10 and OpenBSD
    /// 7.4 timers are in milliseconds, and the kernel ignores `fflags`.
    pub(super) fn of(system: System, release: &str) -> Timers {
        let (fflags, unit_ns) = match system {
            System::FreeBsd => (0x8, 1),
            // Without NOTE_CRITICAL the timer may be late by 1/8 of its time, to fire with others.
            System::Apple => (0x4 | 0x20, 1),
            System::Libkqueue => (0x4, 1),
            System::NetBsd if version(release) >= (10, 0) => (0x3, 1),
            System::OpenBsd if version(release) >= (7, 4) => (0x3, 1),
            System::NetBsd | System::OpenBsd | System::DragonFly => (0, 1_000_000),
        };
        let wall = match system {
            System::FreeBsd => Some(0x10),
            System::Apple | System::Libkqueue => Some(0x8),
            System::NetBsd | System::OpenBsd if fflags != 0 => Some(0x10),
            _ => None,
        };
        Timers { fflags, unit_ns, wall, restarts: system != System::DragonFly }
    }

    /// Returns `data` for a timer that fires at `deadline` (ns) or later, rounded up. The least
    /// value is one unit, because zero is an error on NetBSD. The greatest is [`LONGEST`].
    pub(super) fn data(self, deadline: u64, now: u64) -> i64 {
        let rest = deadline.saturating_sub(now).clamp(1, LONGEST.as_nanos() as u64);
        rest.div_ceil(self.unit_ns) as i64
    }

    /// Returns `data` for a time of day, rounded up. Saturates at the greatest `i64`.
    pub(super) fn wall_data(self, deadline: u64) -> i64 {
        i64::try_from(deadline.div_ceil(self.unit_ns)).unwrap_or(i64::MAX)
    }

    /// Returns the flags of the changes that arm, in order. Each deletes only a timer that exists,
    /// because an error would end the wait of the same call.
    pub(super) fn steps(self) -> &'static [u32] {
        const ADD: u32 = EV_ADD | EV_ONESHOT;
        if self.restarts { &[ADD] } else { &[ADD, EV_DELETE, ADD] }
    }
}

/// Returns the major and minor number of a release: `10.1_STABLE` is (10, 1). A release without a
/// number counts as old.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

// ---- Fds.

/// Returns the flags for adding a filter. A one-shot is disabled after its event and not deleted,
/// so that it differs from a closed fd.
pub(super) fn flags(mode: Mode) -> u32 {
    match mode {
        Mode::Level => EV_ADD,
        Mode::Edge => EV_ADD | EV_CLEAR,
        Mode::OneShot => EV_ADD | EV_DISPATCH,
    }
}

/// Returns the filters of an interest, in the order of their addition. (libkqueue waits for the
/// filter that was added last, and reports the end of a stream to readers. In the other order a
/// socket with both interests may miss its end.)
pub(super) fn filters(interest: Interest) -> impl Iterator<Item = Filter> {
    let write = interest.is_writable().then_some(Filter::Write);
    write.into_iter().chain(interest.is_readable().then_some(Filter::Read))
}

/// Converts the event of an fd, with its `flags` and `fflags`, into a readiness.
pub(super) fn readiness(filter: Filter, flags: u32, fflags: u32) -> Readiness {
    let (mut found, closed) = match filter {
        // The peer never reads again, so a read does not block either.
        Filter::Write => (Readiness::WRITABLE, Readiness::WRITE_CLOSED | Readiness::READABLE),
        _ => (Readiness::READABLE, Readiness::READ_CLOSED),
    };
    let on_fd = matches!(filter, Filter::Read | Filter::Write);
    if on_fd && flags & EV_EOF != 0 {
        found = found | closed;
        if fflags != 0 {
            // After an error of the socket neither a read nor a write blocks, and no data follows.
            found = Readiness::ALL.without(Readiness::PRIORITY);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 5_000_000_000;
    const SYSTEMS: [System; 6] = [
        System::FreeBsd,
        System::Apple,
        System::NetBsd,
        System::OpenBsd,
        System::DragonFly,
        System::Libkqueue,
    ];

    #[test]
    fn each_system_has_its_unit() {
        let table = [
            // system, release, fflags, ns a unit, flag for the wall clock, restarts in place
            (System::FreeBsd, "14.2-RELEASE", 0x8, 1, Some(0x10), true),
            (System::Apple, "24.1.0", 0x24, 1, Some(0x8), true),
            (System::NetBsd, "9.4", 0x0, 1_000_000, None, true),
            (System::NetBsd, "10.0", 0x3, 1, Some(0x10), true),
            (System::NetBsd, "10.1_STABLE", 0x3, 1, Some(0x10), true),
            (System::NetBsd, "11.0_BETA", 0x3, 1, Some(0x10), true),
            (System::OpenBsd, "7.3", 0x0, 1_000_000, None, true),
            (System::OpenBsd, "7.4", 0x3, 1, Some(0x10), true),
            (System::OpenBsd, "8.0", 0x3, 1, Some(0x10), true),
            (System::DragonFly, "6.4-RELEASE", 0x0, 1_000_000, None, false),
            (System::Libkqueue, "6.18.44", 0x4, 1, Some(0x8), true),
        ];
        for (system, release, fflags, unit_ns, wall, restarts) in table {
            assert_eq!(
                Timers::of(system, release),
                Timers { fflags, unit_ns, wall, restarts },
                "{system:?} {release}"
            );
        }
    }

    #[test]
    fn a_release_without_numbers_is_old() {
        for (release, expected) in [
            ("", (0, 0)),
            ("current", (0, 0)),
            ("7", (7, 0)),
            ("10.99.12", (10, 99)),
            ("7.4-beta", (7, 4)),
        ] {
            assert_eq!(version(release), expected, "{release:?}");
        }
    }

    #[test]
    fn a_deadline_is_counted_in_units() {
        let ns = Timers { fflags: 0, unit_ns: 1, wall: None, restarts: true };
        let ms = Timers { fflags: 0, unit_ns: 1_000_000, wall: None, restarts: true };
        let longest = LONGEST.as_nanos() as u64;
        let table = [
            // from now (ns), in ns, in ms
            (0, 1, 1),
            (1, 1, 1),
            (999_999, 999_999, 1),
            (1_000_000, 1_000_000, 1),
            (1_000_001, 1_000_001, 2),
            (7_000_000_000, 7_000_000_000, 7_000),
            (longest - 1, longest as i64 - 1, longest as i64 / 1_000_000),
            (longest, longest as i64, longest as i64 / 1_000_000),
            (longest + 1, longest as i64, longest as i64 / 1_000_000),
            (u64::MAX - NOW, longest as i64, longest as i64 / 1_000_000),
        ];
        for (after, in_ns, in_ms) in table {
            assert_eq!(
                (ns.data(NOW + after, NOW), ms.data(NOW + after, NOW)),
                (in_ns, in_ms),
                "{after}"
            );
        }
    }

    #[test]
    fn a_past_deadline_gives_the_shortest_timer() {
        for system in SYSTEMS {
            let timers = Timers::of(system, "99.9");
            for deadline in [0, 1, NOW - 1, NOW] {
                assert_eq!(timers.data(deadline, NOW), 1, "{system:?} {deadline}");
            }
        }
    }

    #[test]
    fn rounding_is_never_early_and_under_a_unit() {
        for (system, release) in
            SYSTEMS.into_iter().flat_map(|system| [(system, "1.0"), (system, "99.9")])
        {
            let timers = Timers::of(system, release);
            for after in (1..64)
                .map(|shift| (1u64 << shift) - 1)
                .filter(|&ns| ns < LONGEST.as_nanos() as u64)
            {
                for after in [after, after + 1, after + 2] {
                    let asked = timers.data(NOW + after, NOW) as u64 * timers.unit_ns;
                    assert!(
                        asked >= after && asked < after + timers.unit_ns,
                        "{system:?} {after}: {asked}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_longest_time_fits_into_an_int() {
        assert!(LONGEST.as_secs() * 1_000 <= i32::MAX as u64);
    }

    #[test]
    fn only_an_existing_timer_is_deleted() {
        for system in SYSTEMS {
            let steps = Timers::of(system, "99.9").steps();
            let mut exists = [false, true]; // not armed, or armed before
            for (n, &step) in steps.iter().enumerate() {
                if step & EV_DELETE != 0 {
                    assert!(exists.iter().all(|&exists| exists), "{system:?}: step {n} may fail");
                    exists = [false; 2];
                } else {
                    assert_eq!(step, EV_ADD | EV_ONESHOT);
                    exists = [true; 2];
                }
            }
            assert_eq!(exists, [true; 2]);
            assert_eq!(steps.len(), if system == System::DragonFly { 3 } else { 1 });
        }
    }

    #[test]
    fn each_mode_has_its_flags() {
        assert_eq!(flags(Mode::Level), 0x1);
        assert_eq!(flags(Mode::Edge), 0x21);
        assert_eq!(flags(Mode::OneShot), 0x81);
    }

    #[test]
    fn each_interest_has_its_filters() {
        let of = |interest| filters(interest).collect::<Vec<_>>();
        assert_eq!(of(Interest::NONE), []);
        assert_eq!(of(Interest::READABLE), [Filter::Read]);
        assert_eq!(of(Interest::WRITABLE), [Filter::Write]);
        assert_eq!(of(Interest::BOTH), [Filter::Write, Filter::Read]);
    }

    #[test]
    fn a_wall_time_is_rounded_up_and_saturates() {
        for (unit_ns, deadline, data) in [
            (1, 0, 0),
            (1, 5, 5),
            (1, u64::MAX, i64::MAX),
            (1_000_000, 1, 1),
            (1_000_000, 1_000_000, 1),
            (1_000_000, 1_000_001, 2),
        ] {
            let timers = Timers { fflags: 0, unit_ns, wall: Some(8), restarts: true };
            assert_eq!(timers.wall_data(deadline), data);
        }
    }

    #[test]
    fn an_event_has_the_readiness_of_epoll() {
        let reset = 104; // some errno
        let (readable, writable) = (Readiness::READABLE, Readiness::WRITABLE);
        let all = Readiness::ALL.without(Readiness::PRIORITY);
        let table = [
            // filter, flags, fflags
            (Filter::Read, 0, 0, readable),
            (Filter::Read, EV_CLEAR | EV_RECEIPT, 0, readable),
            // the peer writes no more, as EPOLLRDHUP says
            (Filter::Read, EV_EOF, 0, readable | Readiness::READ_CLOSED),
            (Filter::Read, EV_EOF, reset, all), // EPOLLERR
            (Filter::Write, 0, 0, writable),
            // the sure half of EPOLLHUP
            (Filter::Write, EV_EOF, 0, readable | writable | Readiness::WRITE_CLOSED),
            (Filter::Write, EV_EOF, reset, all),
            (Filter::Timer, EV_CLEAR, 0x4, readable), // the unit is no error
            (Filter::User, EV_CLEAR, 0xffffff, readable),
        ];
        for (filter, flags, fflags, expected) in table {
            assert_eq!(
                readiness(filter, flags, fflags),
                expected,
                "{filter:?} {flags:#x} {fflags}"
            );
        }
    }
}
