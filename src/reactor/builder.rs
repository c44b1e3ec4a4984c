//! The settings of a reactor.

use std::io;
use std::time::Duration;

use super::{Reactor, Spin};
use crate::driver::{Driver, Native};

/// Makes a [`Reactor`] with other settings than the default ones. From [`Reactor::builder`].
///
/// ```
/// use pollmux::{Reactor, Spin};
/// use std::time::Duration;
///
/// let reactor = Reactor::builder()
///     .slack(Duration::from_millis(1)) // timers may be late by as much, and share wake-ups
///     .spin(Spin::Off) // sleep at once
///     .build()?;
/// # drop(reactor);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) slack: Duration,
    pub(super) precise: Duration,
    pub(super) spin: Spin,
    pub(super) poll_interval: Duration,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            slack: Duration::ZERO,
            precise: Duration::ZERO,
            spin: Spin::default(),
            poll_interval: Duration::from_micros(100),
        }
    }

    /// How late timers may fire for the sake of fewer wake-ups: those whose windows overlap, from the deadline to this much later, share one. Never early. Default: zero.
    ///
    /// A timer may have a [slack of its own](crate::Timer::slack). [`Stats::coalesced`](crate::Stats::coalesced) counts the wake-ups saved. Where the window is wider than the
    /// kernel's own inaccuracy with timeouts (the larger of 50 µs and 0.1 %), a tick costs one syscall instead of two.
    pub fn slack(mut self, slack: Duration) -> Builder {
        self.slack = slack;
        self
    }

    /// Wakes up by this much before a deadline and spins until it: timers are late by less than a microsecond, for the CPU time that it takes. Default: zero.
    ///
    /// Sensible are 50 to 200 µs, what the kernel's wake-ups are late by on the machine. Timers whose slack is greater are not spun for.
    pub fn precise(mut self, ahead: Duration) -> Builder {
        self.precise = ahead;
        self
    }

    /// How long to look for messages before sleeping. Default: [`Spin::Adaptive`]. Always off where only one core is usable.
    pub fn spin(mut self, spin: impl Into<Spin>) -> Builder {
        self.spin = spin.into();
        self
    }

    /// How often a loop that is too busy ever to sleep looks at its fds, by a syscall that does not wait. Default: 100 µs; zero is every turn. Without fds there is no such look.
    pub fn poll_interval(mut self, interval: Duration) -> Builder {
        self.poll_interval = interval;
        self
    }

    /// A reactor on the system's own poller, as [`Reactor::new`] makes it.
    #[track_caller]
    pub fn build(self) -> io::Result<Reactor> {
        self.build_with(Native::new()?)
    }

    /// A reactor that waits through `driver`.
    pub fn build_with(self, driver: impl Driver + 'static) -> io::Result<Reactor> {
        Ok(Reactor::with_settings(Box::new(driver), &self))
    }
}
