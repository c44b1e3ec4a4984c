//! The ids by which other threads name timers.

use std::error::Error;
use std::fmt;
use std::io;

/// The name of a [`Timer`](crate::Timer), a [`Ticker`](crate::Ticker) or a
/// [`Callback`](crate::Callback), for any thread. It is `Copy`, and no other timer ever gets it.
///
/// An id whose timer has been dropped is *dead*: requests for it fail and change nothing.
/// [`Handle::stop_timer`](crate::Handle::stop_timer) and [`Remote`](crate::Remote) have examples.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) reactor: u64,
    pub(crate) token: u64,
    pub(crate) ticker: bool,
}

impl TimerId {
    pub(crate) fn slot(self) -> u32 {
        self.token as u32
    }
}

impl fmt::Debug for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, generation) = (self.token as u32, self.token >> 32);
        write!(f, "TimerId({}:{slot}.{generation})", self.reactor)
    }
}

/// The reason why a request for a [`TimerId`] has failed.
///
/// ```
/// use pollmux::{Reactor, reactor::TimerError};
/// use std::time::Duration;
///
/// let (reactor, other) = (Reactor::new()?, Reactor::new()?);
/// let tick = reactor.every(Duration::from_secs(1))?;
/// assert_eq!(other.stop_timer(tick.id()), Err(TimerError::OtherReactor));
/// assert_eq!(reactor.reset_timer(tick.id(), Duration::ZERO), Err(TimerError::ZeroPeriod));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerError {
    /// The timer, or its reactor, has been dropped.
    Dead,
    /// The timer belongs to another reactor.
    OtherReactor,
    /// The period of a ticker must not be zero.
    ZeroPeriod,
    /// The reactor belongs to the parent, and this process is a forked child.
    Forked,
}

impl_fmt!(Display, [] TimerError, |it, f| f.write_str(match it {
    TimerError::Dead => "the timer has been dropped",
    TimerError::OtherReactor => "the timer belongs to another reactor",
    TimerError::ZeroPeriod => "the period of a ticker must not be zero",
    TimerError::Forked => {
        "the timer's reactor belongs to the parent process: this one was forked from it"
    }
}));

impl Error for TimerError {}

impl From<TimerError> for io::Error {
    fn from(error: TimerError) -> io::Error {
        let kind = match error {
            TimerError::Dead => io::ErrorKind::NotFound,
            TimerError::Forked => io::ErrorKind::NotConnected,
            TimerError::OtherReactor | TimerError::ZeroPeriod => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}
