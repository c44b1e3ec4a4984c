//! Signals, as a source.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::Source;
use crate::reactor::{Handle, Slot, SourceKind, closed};
use crate::sys::{Interest, Mode, SignalSet};

/// A signal, by its number. Those that programs wait for have names here; the others are `Signal(n)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGHUP: the terminal is gone; to daemons: read your configuration again.
    pub const HANGUP: Signal = Signal(crate::sys::signals::HANGUP);
    /// SIGINT: Ctrl-C.
    pub const INTERRUPT: Signal = Signal(crate::sys::signals::INTERRUPT);
    /// SIGQUIT: Ctrl-\\.
    pub const QUIT: Signal = Signal(crate::sys::signals::QUIT);
    /// SIGTERM: please end.
    pub const TERMINATE: Signal = Signal(crate::sys::signals::TERMINATE);
    /// SIGUSR1.
    pub const USER1: Signal = Signal(crate::sys::signals::USER1);
    /// SIGUSR2.
    pub const USER2: Signal = Signal(crate::sys::signals::USER2);
    /// SIGCHLD: a child has ended; see [`ChildProcess`](crate::ChildProcess) too.
    pub const CHILD: Signal = Signal(crate::sys::signals::CHILD);
    /// SIGALRM.
    pub const ALARM: Signal = Signal(crate::sys::signals::ALARM);
    /// SIGWINCH: the terminal has another size.
    pub const WINDOW_CHANGE: Signal = Signal(crate::sys::signals::WINDOW_CHANGE);
    /// SIGPIPE: a pipe without reader. Rust programs ignore it from the start.
    pub const PIPE: Signal = Signal(crate::sys::signals::PIPE);
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Signal::HANGUP => "SIGHUP",
            Signal::INTERRUPT => "SIGINT",
            Signal::QUIT => "SIGQUIT",
            Signal::TERMINATE => "SIGTERM",
            Signal::USER1 => "SIGUSR1",
            Signal::USER2 => "SIGUSR2",
            Signal::CHILD => "SIGCHLD",
            Signal::ALARM => "SIGALRM",
            Signal::WINDOW_CHANGE => "SIGWINCH",
            Signal::PIPE => "SIGPIPE",
            Signal(number) => return write!(f, "Signal({number})"),
        };
        f.write_str(name)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Signals that the process gets, as a source of [`Signal`]s. Made by [`Handle::signals`].
///
/// While it lives their default action (mostly the end of the process) does not happen. A signal that comes again before it was taken is given once. Several sets, in one reactor or in
/// several, may have the same signal: each is told. When the last one goes what was before is restored: a signal that comes then, also one that came
/// before and that some thread has not taken yet, has its default action. Keep the set for as long as it may.
///
/// **No signal is blocked**: they are caught by a handler, on whatever thread they come, so other threads need no preparation, and child processes start with the mask and the default
/// actions that they would have had. (But one that was ignored before, as `nohup` does with SIGHUP, has its default action in children while it is caught.) A handler that was there
/// before is called as well, with all signals but those of faults blocked.
///
/// ```
/// use pollmux::{Reactor, Signal, select};
///
/// let reactor = Reactor::new()?;
/// let signals = reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE, Signal::USER1])?;
/// # std::process::Command::new("kill").args(["-USR1", &std::process::id().to_string()]).status()?;
/// select! { reactor;
///     recv(signals) -> signal => match signal {
///         Signal::USER1 => println!("reloading"),
///         _ => println!("good-bye"),
///     },
/// }
/// # std::io::Result::Ok(())
/// ```
#[must_use = "signals are caught while this lives"]
pub struct Signals {
    signals: SignalSet,
    slot: Slot,
}

impl Handle {
    /// Catches these signals from now on. Two syscalls (on macOS six), and two for each that nobody caught yet.
    ///
    /// Fails with [`io::ErrorKind::InvalidInput`] for what is no signal or cannot be caught (`SIGKILL`, `SIGSTOP`) or reports a fault of the program (`SIGSEGV`, `SIGBUS`, `SIGFPE`,
    /// `SIGILL`); with `Unsupported` when the reactor's driver waits for no fds; and when the reactor has been dropped. Then nothing is caught.
    #[track_caller]
    pub fn signals(&self, signals: &[Signal]) -> io::Result<Signals> {
        if self.is_closed() {
            return Err(closed());
        }
        let slot = Slot::new(self, SourceKind::Signals);
        let numbers: Vec<i32> = signals.iter().map(|signal| signal.0).collect();
        let signals = SignalSet::new(&numbers)?;
        slot.watch_fd(signals.as_fd(), Interest::READABLE, Mode::Edge)?;
        Ok(Signals { signals, slot })
    }
}

impl Signals {
    /// Gives it the key that [`wait`](Handle::wait) reports it by.
    pub fn with_key(self, key: u64) -> Signals {
        self.slot.set_key(key);
        self
    }

    /// The key that [`wait`](Handle::wait) reports it by. Without [`with_key`](Self::with_key) a unique one of 2^63 or more.
    pub fn key(&self) -> u64 {
        self.slot.key()
    }
}

impl Source for Signals {
    type Item = Signal;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }

    fn try_take(&self) -> Option<Signal> {
        if !self.slot.is_ready() {
            return None;
        }
        let signal = self.signals.take();
        if self.slot.is_told_once() {
            self.signals.lower();
        }
        // One that comes now raises the fd once more.
        if !self.signals.is_pending() {
            self.slot.forget_readiness(crate::sys::Readiness::ALL);
            // Nobody can be told. The driver's next wait says what is wrong with it. Until then the
            // source is looked at again.
            if self.slot.expect_fd(self.signals.as_fd()).is_err() {
                self.slot.found_by_driver();
            }
        }
        if signal.is_some() {
            self.slot.count();
        }
        signal.map(Signal)
    }

    #[inline]
    fn belongs_to(&self, handle: &Handle) -> bool {
        self.slot.belongs_to(handle)
    }

    fn token(&self) -> Option<u64> {
        Some(self.slot.token())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.slot.unwatch_fd(self.signals.as_fd());
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals")
            .field("pending", &self.signals.is_pending())
            .field("inert", &self.slot.is_inert())
            .finish_non_exhaustive()
    }
}
