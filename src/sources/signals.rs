//! Signals, as a source.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{BeforeSleep, Internals, Source, common};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sys::errors::of_creation;
use crate::sys::{Interest, Mode, SignalSet};
use crate::wake::{Bell, Probe, Request};

/// A signal, by its number. The signals that programs wait for have names here. The others are
/// `Signal(n)`.
///
/// ```
/// use pollmux::Signal;
///
/// assert_eq!(Signal::TERMINATE.0, 15);
/// assert_eq!(Signal(15), Signal::TERMINATE);
/// let asked = [Signal::HANGUP, Signal::INTERRUPT, Signal::QUIT, Signal::USER1, Signal::USER2];
/// let told = [Signal::CHILD, Signal::ALARM, Signal::WINDOW_CHANGE, Signal::PIPE];
/// assert!(!asked.contains(&Signal::TERMINATE) && !told.contains(&Signal::TERMINATE));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGHUP: the terminal is gone. For a daemon: read the configuration again.
    pub const HANGUP: Signal = Signal(crate::sys::signals::HANGUP);
    /// SIGINT: Ctrl-C.
    pub const INTERRUPT: Signal = Signal(crate::sys::signals::INTERRUPT);
    /// SIGQUIT: Ctrl-\\.
    pub const QUIT: Signal = Signal(crate::sys::signals::QUIT);
    /// SIGTERM: end in order.
    pub const TERMINATE: Signal = Signal(crate::sys::signals::TERMINATE);
    /// SIGUSR1.
    pub const USER1: Signal = Signal(crate::sys::signals::USER1);
    /// SIGUSR2.
    pub const USER2: Signal = Signal(crate::sys::signals::USER2);
    /// SIGCHLD: a child has ended. A [`ChildProcess`](crate::ChildProcess) needs no such signal.
    pub const CHILD: Signal = Signal(crate::sys::signals::CHILD);
    /// SIGALRM.
    pub const ALARM: Signal = Signal(crate::sys::signals::ALARM);
    /// SIGWINCH: the terminal has another size.
    pub const WINDOW_CHANGE: Signal = Signal(crate::sys::signals::WINDOW_CHANGE);
    /// SIGPIPE: a pipe without reader. Rust programs ignore it from the start.
    pub const PIPE: Signal = Signal(crate::sys::signals::PIPE);
}

impl_fmt!(Debug, [] Signal, |it, f| match crate::sys::signals::name(it.0) {
    Some(name) => f.write_str(name),
    None => write!(f, "Signal({})", it.0),
});

impl_fmt!(Display, [] Signal, |it, f| fmt::Debug::fmt(it, f));

/// Signals that the process gets, as a source of [`Signal`]s. Made by [`Handle::signals`], and for
/// tests by [`Signals::manual`].
///
/// While a set lives the default action of its signals (mostly the end of the process) does not
/// happen. A signal that comes again before you took it is given once. Several sets, in one reactor
/// or in several, may have the same signal: each set gives the signal.
///
/// **Every signal is given, or has its old action.** When the last set of a signal goes, the old
/// action comes back. If that is the default action, a signal that came and that no set has taken
/// is sent to the process again. So the drop of a set with an unread `SIGTERM` ends the process.
/// Take the signals first, or keep the set for as long as the process must not end.
///
/// A set that goes while others stay hands its unread signals to them. (A signal that is sent again
/// comes from this process, and a real-time signal loses its value.)
///
/// **No signal is blocked.** A handler catches the signals, on any thread. Other
/// threads need no preparation. Child processes start with the mask and the default actions that
/// they would have had. (But a signal that was ignored before, as `nohup` does with SIGHUP, has its
/// default action in children while a set has it.) A handler that was there before is called as
/// well, with all signals but those of faults blocked.
///
/// **In a forked child** (without `execve`) the set gives nothing, and touches nothing that the
/// child shares with its parent. Its signals have their old action there.
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
#[must_use = "dropping the set restores the old actions of its signals"]
pub struct Signals {
    origin: Origin,
    slot: Slot,
}

/// The origin of the signals of a source.
enum Origin {
    Process(SignalSet),
    Manual(Arc<Raised>),
}

/// Signals that were raised by hand and not taken. The bell is rung while there are some.
struct Raised {
    /// A bit for each signal, from 1.
    pending: AtomicU64,
    bell: Arc<Bell>,
}

impl Raised {
    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }

    /// Takes the lowest signal, and rings the bell for the others.
    fn take(&self) -> Option<i32> {
        // The bell is heard before the look, so a later signal rings again.
        self.bell.hear();
        let pending = self.pending.load(Ordering::Acquire);
        let lowest = pending & pending.wrapping_neg();
        let others = self.pending.fetch_and(!lowest, Ordering::AcqRel) & !lowest;
        if others != 0 {
            self.bell.ring();
        }
        (lowest != 0).then(|| lowest.trailing_zeros() as i32 + 1)
    }
}

/// Raises signals by hand at one source of [`Signals`], from any thread. Clone the raiser for more
/// threads. Made by [`Signals::manual`].
///
/// ```
/// use pollmux::{Reactor, Signal, Signals, Source};
///
/// let reactor = Reactor::new()?;
/// let (signals, raiser) = Signals::manual(&reactor);
/// raiser.raise(Signal::HANGUP)?;
/// assert_eq!(signals.try_take(), Some(Signal::HANGUP));
/// assert!(raiser.raise(Signal(-1)).is_err()); // no signal
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct SignalRaiser {
    raised: Arc<Raised>,
}

impl_debug!([] SignalRaiser, |it| pending: it.raised.is_pending());

impl SignalRaiser {
    /// Raises `signal` at the source. The process gets no signal.
    ///
    /// A signal that was raised twice and not taken is given once. Does nothing when the source or
    /// its reactor has been dropped. Costs as much as a
    /// [`Notifier::notify`](super::Notifier::notify).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a number that [`Handle::signals`] refuses: no signal, or
    /// a signal that cannot be caught.
    pub fn raise(&self, signal: Signal) -> io::Result<()> {
        crate::sys::signals::can_be_caught(signal.0)?;
        self.raised.pending.fetch_or(1 << (signal.0 - 1), Ordering::AcqRel);
        self.raised.bell.ring();
        Ok(())
    }
}

impl Signals {
    /// Makes a source of signals that a test raises by hand, and its raiser. For every driver.
    ///
    /// For the test of a loop that takes a `Signals`. The loop ends, or reads its configuration
    /// again, and no other test of the process notices that. The call installs no handler and
    /// changes no action. The source does not see the signals of the process. Every signal arrives,
    /// the lowest number first.
    ///
    /// # Cost
    /// Allocates. No syscall.
    ///
    /// ```
    /// use pollmux::{Reactor, Signal, Signals, Sim, select};
    /// use std::time::Duration;
    ///
    /// fn serve(reactor: &Reactor, signals: Signals) -> u32 {
    ///     let mut seconds = 0;
    ///     let ticker = reactor.every(Duration::from_secs(1)).unwrap();
    ///     loop {
    ///         select! { reactor;
    ///             recv(ticker) -> _ => seconds += 1,
    ///             recv(signals) -> signal => match signal {
    ///                 Signal::TERMINATE => return seconds,
    ///                 _ => seconds = 0,
    ///             },
    ///         }
    ///     }
    /// }
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let (signals, raiser) = Signals::manual(&reactor);
    /// let reload = raiser.clone();
    /// let at = |ms| Duration::from_millis(ms);
    /// reactor.call_after(at(2_500), move |_| reload.raise(Signal::HANGUP).unwrap()).detach();
    /// reactor.call_after(at(6_500), move |_| raiser.raise(Signal::TERMINATE).unwrap()).detach();
    /// assert_eq!(serve(&reactor, signals), 4);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn manual(handle: &Handle) -> (Signals, SignalRaiser) {
        let slot = Slot::new(handle, SourceKind::Signals);
        let bell = Arc::new(Bell::new(slot.notify().clone(), slot.number()));
        if !handle.is_closed() {
            slot.register_channel(bell.clone());
        }
        let raised = Arc::new(Raised { pending: AtomicU64::new(0), bell });
        (Signals { origin: Origin::Manual(raised.clone()), slot }, SignalRaiser { raised })
    }

    fn is_pending(&self) -> bool {
        match &self.origin {
            Origin::Process(signals) => signals.is_pending(),
            Origin::Manual(raised) => raised.is_pending(),
        }
    }

    fn take_from_process(&self, signals: &SignalSet) -> Option<i32> {
        if !self.slot.is_ready() {
            return None;
        }
        let signal = signals.take();
        if self.slot.is_told_once() {
            signals.lower();
        }
        // A signal that comes now raises the fd again.
        if !signals.is_pending() {
            self.slot.forget_readiness(crate::sys::Readiness::ALL);
            // This call returns no error. The driver's next wait reports the fault. Until then the
            // loop looks at the source again.
            if self.slot.expect_fd(signals.as_fd()).is_err() {
                self.slot.found_by_driver();
            }
        }
        signal
    }

    fn take_raised(&self, raised: &Raised) -> Option<i32> {
        let signal = raised.take();
        if self.slot.is_ready() && !raised.bell.is_rung() {
            self.slot.drained();
        }
        signal
    }
}

impl Handle {
    /// Catches these signals from now on. Never waits for a signal handler, even for one that was
    /// preempted.
    ///
    /// # Errors
    /// On an error nothing is caught. [`io::ErrorKind::InvalidInput`]
    /// - for a number that is no signal;
    /// - for a signal that cannot be caught (`SIGKILL`, `SIGSTOP`) or reports a fault of the
    ///   program (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`);
    /// - for a signal that the calling thread blocks. A program inherits its mask from its parent,
    ///   and a thread from the thread that made it. So such a signal mostly reaches no thread.
    ///   Unblock it first, with `pthread_sigmask(SIG_UNBLOCK, ..)`.
    ///
    /// `Unsupported` when the reactor's driver waits for no fds. An error when the reactor has been
    /// dropped, and those of [`Reactor::new`](crate::Reactor::new) when fds or memory are short.
    ///
    /// # Cost
    /// Five syscalls (on macOS nine). Two more for each signal that no set had, and one for each of
    /// the others.
    ///
    /// ```
    /// use pollmux::{Reactor, Signal, Source};
    ///
    /// let reactor = Reactor::new()?;
    /// let signals = reactor.signals(&[Signal::USER2])?;
    /// assert!(!signals.is_ready());
    /// assert!(reactor.signals(&[Signal(9)]).is_err()); // SIGKILL
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn signals(&self, signals: &[Signal]) -> io::Result<Signals> {
        if self.is_closed() {
            return Err(self.core.gone());
        }
        let slot = Slot::new(self, SourceKind::Signals);
        let numbers: Vec<i32> = signals.iter().map(|signal| signal.0).collect();
        let signals = SignalSet::new(&numbers)?;
        let registered = slot.register_fd(signals.as_fd(), Interest::READABLE, Mode::Edge);
        registered.map_err(|error| of_creation(error, "a source of signals"))?;
        Ok(Signals { origin: Origin::Process(signals), slot })
    }
}

common!([] Signals, |it| pending: it.is_pending());

impl Source for Signals {
    type Item = Signal;

    #[inline]
    fn is_ready(&self) -> bool {
        match &self.origin {
            Origin::Process(_) => self.slot.is_ready(),
            Origin::Manual(raised) => raised.bell.is_rung(),
        }
    }

    fn try_take(&self) -> Option<Signal> {
        let signal = match &self.origin {
            Origin::Process(signals) => self.take_from_process(signals),
            Origin::Manual(raised) => self.take_raised(raised),
        };
        if signal.is_some() {
            self.slot.count();
        }
        signal.map(Signal)
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        if let Origin::Manual(raised) = &self.origin {
            raised.bell.ask(Request::Wake);
        }
        Ok(())
    }

    fn after_sleep(&self) {
        if let Origin::Manual(raised) = &self.origin {
            raised.bell.unask();
        }
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        let internals = Internals::of(&self.slot);
        match &self.origin {
            Origin::Process(_) => internals,
            Origin::Manual(_) => internals.without_look(),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Origin::Process(signals) = &self.origin {
            let _ = self.slot.deregister_fd(signals.as_fd());
        }
    }
}
