//! The ids by which other threads name timers.

use std::error::Error;
use std::fmt;
use std::io;

/// Names a [`Timer`](crate::Timer), a [`Ticker`](crate::Ticker) or a [`Callback`](crate::Callback)
/// from anywhere: `Send`, `Copy`, and never given to another one.
///
/// An id whose timer has been dropped is *dead*: what is asked of it is an error, and touches
/// nothing.
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

/// The reason why nothing was done to the timer of a [`TimerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerError {
    /// The timer, or its reactor, has been dropped.
    Dead,
    /// The timer is another reactor's.
    OtherReactor,
    /// The period of a ticker must not be zero.
    ZeroPeriod,
    /// The reactor is the parent process's, and this one is a forked child.
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
