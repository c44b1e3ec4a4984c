//! Signals as an fd: a handler notes the signal and raises a flag, which is an eventfd or a pipe.
//!
//! The fd is no signalfd. A signalfd needs the signal blocked in *every* thread, also in those that
//! run already. Otherwise the default action ends the process. A blocked signal also stays blocked
//! in the children (`posix_spawn` copies the mask), which then cannot be interrupted. A handler
//! needs no mask: **no signal is blocked**, and `execve` gives children the default action back.
//!
//! Quirks handled here:
//! - The handler runs on any thread, at any instruction: it takes no lock, allocates nothing and
//!   keeps `errno`.
//! - The handler may stop at any instruction, on a thread that does not run. No thread waits for
//!   the handler (`signal/slots.rs`).
//! - The handler runs on the thread's stack for signals, if there is one. Runtimes with small
//!   stacks demand that. std makes this stack 8 KiB large, and a frame takes more than 3 KiB where
//!   registers are wide. Signals that come together would overflow the stack, because each handler
//!   would interrupt the one before. So other signals wait while ours runs (`sa_mask`).
//! - Our handler calls an older handler, which comes back when the last set of the signal goes. A
//!   later handler stays, and may go on calling ours.
//! - `sigaction` has no compare-and-swap. Each call that sets an action checks the action that the
//!   same call replaced, and corrects itself if that was not the expected one.
//! - The handler may find no set, because the last set has just gone, because another handler still
//!   calls ours, or in a forked child. Then the signal takes its former action.
//! - A forked child has our handler, copies of the sets, and the parent's eventfds. It may also
//!   have a copy of our lock whose holder exists only in the parent. So sets and the lock carry the
//!   process that they belong to. In another process they do not count.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use self::lock::{Locked, all_but_faults, is_forked_from, is_member, process, swap_mask};
use self::names::{can_be_caught, is_blocked};
use self::slots::{COUNT, Raise, bit, numbers};
use super::backend::Flag;
use super::errors::{of_call, of_creation};
use super::fork;
use super::{check, uninterrupted};

/// The atomics of `slots.rs`.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

    /// `std::cell::UnsafeCell` with loom's interface.
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
mod lock;
pub(crate) mod names;
mod slots;

/// The loom models, which include the same file with the atomics of loom.
#[cfg(all(loom, test))]
mod models;

type Slot = slots::Slot<Flag>;

impl Raise for Flag {
    /// Raises the flag by a write, and by a read at most, which a handler may make. The write
    /// cannot fail (`sys/epoll/eventfd.rs`, `sys/kqueue/pipe.rs`).
    fn raise(&self) {
        let _ = Flag::raise(self);
    }
}

static TABLE: slots::Table<Flag> = slots::Table {
    head: AtomicPtr::new(ptr::null_mut()),
    births: AtomicU64::new(0),
    arrived: [const { AtomicU64::new(0) }; COUNT],
    taken: [const { AtomicU64::new(0) }; COUNT],
};

/// True for each signal whose handler was installed and not removed by this module.
static INSTALLED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
/// The action before ours as an [`Old`], for the handler.
static OLD: [AtomicPtr<()>; COUNT] = [const { AtomicPtr::new(ptr::null_mut()) }; COUNT];
/// The action before ours with flags and mask, if there was one. Only the holder of the lock reads,
/// replaces and frees it.
static SAVED: [AtomicPtr<Action>; COUNT] = [const { AtomicPtr::new(ptr::null_mut()) }; COUNT];

type Action = libc::sigaction;

/// An action in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    Default,
    Ignored,
    Handler(*mut ()),
}

impl Old {
    fn of(action: &libc::sigaction) -> Old {
        match action.sa_sigaction {
            libc::SIG_DFL => Old::Default,
            libc::SIG_IGN => Old::Ignored,
            handler => Old::Handler(ptr::with_exposed_provenance_mut(handler)),
        }
    }

    fn load(signal: i32) -> Old {
        let word = OLD[signal as usize].load(Ordering::Acquire);
        match word.addr() {
            libc::SIG_DFL => Old::Default,
            libc::SIG_IGN => Old::Ignored,
            _ => Old::Handler(word),
        }
    }

    fn store(self, signal: i32) {
        let word = match self {
            Old::Default => ptr::without_provenance_mut(libc::SIG_DFL),
            Old::Ignored => ptr::without_provenance_mut(libc::SIG_IGN),
            Old::Handler(handler) => handler,
        };
        OLD[signal as usize].store(word, Ordering::Release);
    }
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = errno();
    TABLE.arrive(signal);
    while let Err(births) = TABLE.deliver(signal, process()) {
        if Old::load(signal) != Old::Default {
            break; // The action is done here or below.
        }
        let ours = current(signal).is_ok_and(|action| is_ours(&action));
        if TABLE.births() == births {
            act_by_default(signal, ours);
            break;
        }
    }
    set_errno(errno);
    if let Old::Handler(handler) = Old::load(signal) {
        // SAFETY: the address was the `sa_sigaction` of another handler, which the kernel would
        // call with the same arguments. A handler without SA_SIGINFO ignores the last two, which
        // the C ABI allows on all supported systems.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute::<*mut (), _>(handler) };
        handler(signal, info, context);
    }
}

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_place;
#[cfg(any(target_os = "linux", target_os = "dragonfly"))]
use libc::__errno_location as errno_place;
#[cfg(any(apple, target_os = "freebsd"))]
use libc::__error as errno_place;

/// Returns the calling thread's `errno`, which a signal handler must restore.
fn errno() -> libc::c_int {
    // SAFETY: the place is the thread's own and always there.
    unsafe { *errno_place() }
}

fn set_errno(errno: libc::c_int) {
    // SAFETY: as above.
    unsafe { *errno_place() = errno };
}

/// Gives a signal that reached no set its default action. Runs on the handler's thread, where every
/// signal waits until the handler returns.
fn act_by_default(signal: i32, ours: bool) {
    if !ours {
        // If the last set went while this handler was stopped, the old action is back, but has
        // missed the signal. Otherwise another handler has called ours, and handles the signal.
        if !INSTALLED[signal as usize].load(Ordering::Acquire) && called_by_kernel() {
            raise(signal);
        }
    } else if STOPS.contains(&signal) {
        send(libc::SIGSTOP);
    } else if !IGNORED.contains(&signal) {
        // The process ends when this handler returns, so no new set can miss the handler.
        let _ = swap_action(signal, Some(&default_action()));
        raise(signal);
    }
}

/// The signals that stop the process by default.
const STOPS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
/// The signals that do nothing by default.
#[cfg(linux)]
const IGNORED: [i32; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
#[cfg(not(linux))]
const IGNORED: [i32; 6] =
    [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH, libc::SIGIO, libc::SIGINFO];

/// Returns true if every signal waits for the handler on this thread. The kernel does that for our
/// handler, and for few others. A signal that another handler passes on must not be raised again,
/// because that handler would pass it on again.
fn called_by_kernel() -> bool {
    let Some(mask) = swap_mask(None) else { return false };
    let some = [libc::SIGXCPU, libc::SIGVTALRM, libc::SIGURG, libc::SIGTTOU];
    some.iter().all(|&signal| is_member(&mask, signal))
}

/// Sends the signal to this thread. The signal comes when it is not blocked here.
fn raise(signal: i32) {
    // SAFETY: the call takes no pointers.
    unsafe { libc::raise(signal) };
}

/// A set of signals with an fd that becomes readable when a signal comes. Edge-triggered it needs
/// no read. See [`Signals`](crate::Signals).
///
/// To make or drop a set never waits for a signal handler, even for one that was preempted. Two
/// threads that make or drop sets at the same time wait for each other, for some syscalls.
///
/// The drop of the last set of a signal sends the signal to the process again, if no set has taken
/// it and its old action was the default one.
///
/// After a `fork` a set is inert in the child: it gives nothing and touches nothing that the child
/// shares with the parent. There its signals have the actions that they had before the set. The
/// child may make sets of its own. (The handler and the drop notice a raw `fork` syscall, and
/// `take` does not.)
///
/// ```
/// use pollmux::sys::{Interest, Mode, PollEvents, Poller, SignalSet};
/// use std::process::{Command, id};
///
/// let user1 = pollmux::Signal::USER1.0;
/// let signals = SignalSet::new(&[user1])?;
/// let poller = Poller::new()?;
/// poller.register(&signals, 1, Interest::READABLE, Mode::Edge)?;
/// Command::new("kill").args(["-USR1", &id().to_string()]).status()?;
/// while !signals.is_pending() {
///     // A signal may interrupt the wait.
///     let _ = poller.wait(&mut PollEvents::with_capacity(1), None);
/// }
/// assert_eq!((signals.take(), signals.take()), (Some(user1), None));
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the set restores the old actions of its signals"]
pub struct SignalSet {
    slot: &'static Slot,
}

impl SignalSet {
    /// Makes a set of the signals with these numbers. Allocates.
    ///
    /// # Errors
    /// On an error no signal is caught. [`io::ErrorKind::InvalidInput`]
    /// - for a number that is no signal;
    /// - for a signal that cannot be caught (`SIGKILL`, `SIGSTOP`), or must not be, because it
    ///   reports a fault of the running instruction (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`);
    /// - for a signal that the calling thread blocks. Threads and programs inherit the mask, so
    ///   such a signal mostly reaches no thread. Unblock it first:
    ///   `pthread_sigmask(SIG_UNBLOCK, ..)`.
    ///
    /// Otherwise those of [`Poller::new`](super::Poller::new).
    ///
    /// # Cost
    /// Four syscalls, on macOS eight. Two more for each signal that no set had, and one for each of
    /// the others.
    pub fn new(signals: &[i32]) -> io::Result<SignalSet> {
        signals.iter().try_for_each(|&signal| can_be_caught(signal))?;
        let of_set = |error| of_creation(error, "a signal set");
        fork::start_counting().map_err(of_set)?;
        let flag = Flag::new().map_err(of_set)?;
        let locked = Locked::new();
        let blocked = signals.iter().find(|&&signal| locked.is_blocked(signal));
        if let Some(&signal) = blocked {
            return Err(is_blocked(signal));
        }
        let set = SignalSet { slot: TABLE.claim(flag, locked.process) };
        for &signal in signals {
            if set.slot.signals() & bit(signal) == 0 {
                // The set is in the table before the handler is installed, so that the handler
                // finds it.
                TABLE.watch(set.slot, signal);
                if let Err(error) = install(signal) {
                    drop(locked);
                    // The drop of the set undoes all steps.
                    return Err(of_call(error, "sigaction"));
                }
            }
        }
        Ok(set)
    }

    /// Takes the lowest of the signals that have come. A signal that has come several times is
    /// there once. If several threads take, one of them gets the signal.
    pub fn take(&self) -> Option<i32> {
        if self.is_inert() { None } else { TABLE.take(self.slot) }
    }

    /// Makes the fd not readable, until the next signal. One syscall. A waiter for edges does not
    /// need this.
    pub(crate) fn lower(&self) {
        if !self.is_inert() {
            self.slot.flag().lower();
        }
    }

    /// Returns true if a signal has come that was not taken.
    pub fn is_pending(&self) -> bool {
        !self.is_inert() && self.slot.is_pending()
    }

    /// Returns true in a forked child of the set's process.
    fn is_inert(&self) -> bool {
        is_forked_from(self.slot.process())
    }
}

fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a sigaction: no handler, no flags, an empty mask.
    unsafe { std::mem::zeroed() }
}

/// Sets or reads the action of `signal`, and returns the former action. One syscall.
fn swap_action(signal: i32, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = default_action();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null, which changes nothing, or valid for the length of the call, as is
    // `before`. Its handler is ours, which does only what a handler may, or a former handler.
    uninterrupted(|| check(unsafe { libc::sigaction(signal, new, &mut before) }))?;
    Ok(before)
}

fn current(signal: i32) -> io::Result<libc::sigaction> {
    swap_action(signal, None)
}

/// Returns true if this is our handler.
fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handler as *const () as usize
}

/// Saves the action before ours, and returns the action that was saved before. The caller holds the
/// lock.
fn save(signal: i32, action: libc::sigaction) -> Option<Box<libc::sigaction>> {
    Old::of(&action).store(signal);
    let before = SAVED[signal as usize].swap(Box::into_raw(Box::new(action)), Ordering::AcqRel);
    // SAFETY: the saved pointers are null or from `Box::into_raw`, and only the holder of the lock
    // takes or reads one.
    (!before.is_null()).then(|| unsafe { Box::from_raw(before) })
}

/// Installs our handler for `signal`, unless it is installed already, or another handler calls it.
/// The caller holds the lock.
///
/// `OLD` is set before, so no signal misses the former handler. A fork at any point leaves the
/// child with our handler, or with neither our handler nor `INSTALLED`. `install` handles both
/// states.
fn install(signal: i32) -> io::Result<()> {
    let installed = &INSTALLED[signal as usize];
    let guess = current(signal)?;
    let has_handler = matches!(Old::of(&guess), Old::Handler(_));
    if is_ours(&guess) || has_handler && installed.load(Ordering::Relaxed) {
        // A later handler calls ours, like ours calls the former handler.
        installed.store(true, Ordering::Release);
        return Ok(());
    }
    let mut new = default_action();
    new.sa_sigaction = handler as *const () as usize;
    // A blocked call goes on, if the system can restart it. A handler that ours calls has its own
    // choice of the stack, and of its effect on blocked calls.
    let usual = libc::SA_RESTART | libc::SA_ONSTACK;
    new.sa_flags = libc::SA_SIGINFO | if has_handler { guess.sa_flags & usual } else { usual };
    new.sa_mask = all_but_faults();
    let before = save(signal, guess);
    let arrived = TABLE.arrived[signal as usize].load(Ordering::Acquire);
    let replaced = swap_action(signal, Some(&new))?;
    installed.store(true, Ordering::Release);
    if is_ours(&replaced) {
        // Other code had removed our handler and has just put it back. The saved action is older.
        before.map(|before| save(signal, *before));
    } else if (replaced.sa_sigaction, replaced.sa_flags) != (guess.sa_sigaction, guess.sa_flags) {
        // Other code has installed a handler between the two calls. Our handler must call it.
        save(signal, replaced);
        if TABLE.arrived[signal as usize].load(Ordering::Acquire) != arrived {
            send(signal); // That handler has missed a signal.
        }
    }
    Ok(())
}

/// Gives `signal` its old action back, because its last set goes. The caller holds the lock.
/// `sigaction` cannot decide between two actions that are set at the same time. A handler that
/// other code sets during this call may be missing for a moment.
fn restore(signal: i32) {
    // A later handler of other code may call ours. Then ours stays, without a set.
    if !current(signal).is_ok_and(|current| is_ours(&current)) {
        return;
    }
    // SAFETY: the pointer is null or of a box, which only the holder of the lock frees.
    let Some(saved) = (unsafe { SAVED[signal as usize].load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    // `OLD` stays, because a handler may be about to read it.
    INSTALLED[signal as usize].store(false, Ordering::Release);
    let replaced = swap_action(signal, Some(saved));
    if let Some(replaced) = replaced.ok().filter(|replaced| !is_ours(replaced)) {
        let _ = swap_action(signal, Some(&replaced));
        INSTALLED[signal as usize].store(true, Ordering::Release);
    }
}

/// Sends `signal` to this process. A thread that does not block the signal gets it.
fn send(signal: i32) {
    // SAFETY: the calls take no pointers.
    unsafe { libc::kill(libc::getpid(), signal) };
}

impl AsFd for SignalSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.slot.flag().as_fd()
    }
}

impl Drop for SignalSet {
    fn drop(&mut self) {
        let locked = Locked::new();
        let process = locked.process;
        let signals = self.slot.signals();
        let inert = self.slot.process() != process;
        for signal in numbers(signals) {
            if !TABLE.is_watched(signal, process, Some(self.slot)) {
                restore(signal);
            }
        }
        // From now on every signal takes the old action or goes to the other sets. An earlier
        // signal that was not taken is left over.
        let left = if inert {
            self.slot.abandon();
            0
        } else {
            self.slot.retire()
        };
        let mut back = 0;
        for signal in numbers(left) {
            if TABLE.is_taken(signal) {
                continue; // another set has taken it
            }
            if TABLE.is_watched(signal, process, None) {
                TABLE.hand_on(signal, process);
                continue;
            }
            let restored = !INSTALLED[signal as usize].load(Ordering::Relaxed);
            if restored && Old::load(signal) == Old::Default {
                back |= bit(signal);
            }
        }
        drop(locked);
        // A former handler has already handled the signal.
        numbers(back).for_each(send);
    }
}

impl_debug!([] SignalSet, |it|
    signals: numbers(it.slot.signals()).collect::<Vec<_>>(), pending: it.is_pending()
);
