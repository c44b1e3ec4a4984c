//! Signals as an fd: a handler that notes the signal and raises a flag: an eventfd or a pipe.
//!
//! Not a signalfd. That one needs the signal blocked in *every* thread, also those that run already, or its default action ends the process; and a blocked signal stays blocked in the
//! children (`posix_spawn` copies the mask), who then cannot be interrupted. A handler needs no mask: **the mask is never touched**, and `execve` gives children the default action back.
//!
//! Quirks handled here:
//! - The handler runs on any thread, at any instruction: it takes no lock, allocates nothing and keeps `errno`.
//! - It runs on the thread's stack for signals, where there is one, as runtimes with small stacks of their own demand. std makes that of 8 KiB, and a frame takes more than 3 of them
//!   where registers are wide: signals that come together would overflow it, one handler interrupted by the next. So while ours runs, the others wait (`sa_mask`).
//! - What it reads, a list of watchers for each signal, is replaced as a whole and freed when no handler is inside (`INSIDE`). A watcher's fd is closed after that, too.
//! - A handler that was there before is called after ours, and comes back when the last watcher of the signal goes. One that came later stays, and may go on calling ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Flag, check};

/// Signals are numbered from 1 to 64, and a set of them is a word.
const COUNT: usize = 65;

/// Notes signals and raises an fd: edge-triggered it needs no read. See [`Signals`](crate::Signals).
#[derive(Debug)]
pub struct SignalSet {
    watcher: Arc<Watcher>,
    signals: u64,
}

#[derive(Debug)]
struct Watcher {
    flag: Flag,
    /// Signals that have come, a bit each.
    pending: AtomicU64,
}

/// Who watches one signal, as the handler sees it.
type List = Vec<Arc<Watcher>>;

static LISTS: [AtomicPtr<List>; COUNT] = [const { AtomicPtr::new(ptr::null_mut()) }; COUNT];
/// Faults of the running instruction: not to be watched, nor put off.
const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
/// Handlers that run at this moment.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// What was there before us, for the signals that are watched. Whoever holds it may change `LISTS`.
static BEFORE: Mutex<[Option<Before>; COUNT]> = Mutex::new([const { None }; COUNT]);
/// The address of the handler that was there before us, for ours to call; 0 for none.
static CHAINED: [AtomicUsize; COUNT] = [const { AtomicUsize::new(0) }; COUNT];

/// The signal's place in a set.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[derive(Clone, Copy)]
struct Before(libc::sigaction);

// SAFETY: a sigaction is numbers and addresses of functions, which mean the same on every thread.
unsafe impl Send for Before {}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // The other side swaps the list and then reads `INSIDE`: of the two orders both sides agree on one.
    INSIDE.fetch_add(1, Ordering::SeqCst);
    let errno = super::errno();
    // SAFETY: a list that is read while `INSIDE` counts us is not freed (`replace`).
    if let Some(list) = unsafe { LISTS[signal as usize].load(Ordering::SeqCst).as_ref() } {
        for watcher in list {
            watcher.pending.fetch_or(bit(signal), Ordering::SeqCst);
            // A write, and a read at most, which a handler may make. It cannot fail (`sys/eventfd.rs`, `sys/kqueue/pipe.rs`).
            let _ = watcher.flag.raise();
        }
    }
    super::set_errno(errno);
    let chained = CHAINED[signal as usize].load(Ordering::Acquire);
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    if chained != 0 {
        // SAFETY: the address was the `sa_sigaction` of a handler installed by somebody else, of which the kernel called the same with the same arguments. A handler without
        // SA_SIGINFO ignores the last two, which the C ABI allows on all supported systems.
        let chained: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(chained) };
        chained(signal, info, context);
    }
}

fn before() -> MutexGuard<'static, [Option<Before>; COUNT]> {
    BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Puts another list in place; what the old one holds is dropped when no handler can be reading it. Not to be called by a handler.
fn replace(signal: usize, list: Option<List>) {
    let list = list.map_or(ptr::null_mut(), |list| Box::into_raw(Box::new(list)));
    let old = LISTS[signal].swap(list, Ordering::SeqCst);
    let mut looks = 0_u32;
    while INSIDE.load(Ordering::SeqCst) != 0 {
        looks = looks.wrapping_add(1);
        // A handler is a few instructions and a write, unless its thread was put aside.
        if looks % 64 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
    if !old.is_null() {
        // SAFETY: it came from `Box::into_raw` above, was taken out of its only place by the swap, and each handler that could have seen it there has left.
        drop(unsafe { Box::from_raw(old) });
    }
}

/// The present list, to be changed. The caller holds `BEFORE`.
fn list(signal: usize) -> List {
    // SAFETY: only `replace` frees lists, and only callers who hold `BEFORE` call it.
    unsafe { LISTS[signal].load(Ordering::SeqCst).as_ref() }.cloned().unwrap_or_default()
}

impl SignalSet {
    /// Watches the signals with these numbers. One syscall, and two for each of them that nobody watches yet.
    ///
    /// Fails with [`io::ErrorKind::InvalidInput`] for a number that is no signal, or one that cannot be caught (`SIGKILL`, `SIGSTOP`), or must not be, because it reports a fault of
    /// the running instruction (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`); and with the system's error. Then none is watched.
    pub fn new(signals: &[i32]) -> io::Result<SignalSet> {
        let watcher = Arc::new(Watcher { flag: Flag::new()?, pending: AtomicU64::new(0) });
        let mut set = SignalSet { watcher, signals: 0 };
        for &signal in signals {
            set.add(signal)?;
        }
        Ok(set)
    }

    fn add(&mut self, signal: i32) -> io::Result<()> {
        let refused = [libc::SIGKILL, libc::SIGSTOP].contains(&signal) || FAULTS.contains(&signal);
        if !(1..COUNT as i32).contains(&signal) || refused {
            let text = format!("signal {signal} cannot be watched");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.signals & bit(signal) != 0 {
            return Ok(());
        }
        let index = signal as usize;
        let mut before = before();
        let mut list = list(index);
        list.push(self.watcher.clone());
        // The list first: the handler finds it when it is installed.
        replace(index, Some(list));
        self.signals |= bit(signal);
        if before[index].is_none() || !current(signal).is_ok_and(|current| has_handler(&current)) {
            // If it fails the set is dropped, and that takes all of it back.
            before[index] = Some(install(signal)?);
        }
        Ok(())
    }

    fn remove(&self, signal: i32) {
        let index = signal as usize;
        let mut before = before();
        let mut list = list(index);
        list.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        if list.is_empty() {
            // Somebody's handler that came after ours may call it, as ours calls the one before: then it stays where it is, with nobody to tell.
            if current(signal).is_ok_and(|current| is_ours(&current)) {
                // `CHAINED` stays: ours may be running at this moment, and whom it tells has not been told by anybody else.
                if let Some(old) = before[index].take() {
                    // SAFETY: `old` is what the kernel gave for this signal, and a null old value is allowed.
                    unsafe { libc::sigaction(signal, &old.0, ptr::null_mut()) };
                }
            }
            replace(index, None);
        } else {
            replace(index, Some(list));
        }
    }

    /// Takes the lowest of the signals that have come. One that has come several times meanwhile is there once, as everywhere with signals.
    pub fn take(&self) -> Option<i32> {
        let pending = self.watcher.pending.load(Ordering::SeqCst);
        if pending == 0 {
            return None;
        }
        let signal = pending.trailing_zeros() as i32 + 1;
        self.watcher.pending.fetch_and(!bit(signal), Ordering::SeqCst);
        Some(signal)
    }

    /// Makes the fd not readable, until the next signal. One syscall. For who does not wait for edges.
    pub(crate) fn lower(&self) {
        self.watcher.flag.lower();
    }

    /// Whether some signal has come.
    pub fn is_pending(&self) -> bool {
        self.watcher.pending.load(Ordering::SeqCst) != 0
    }
}

/// What happens at this signal now.
fn current(signal: i32) -> io::Result<libc::sigaction> {
    // SAFETY: all zeros is a sigaction: no handler, no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action changes nothing, and `action` is valid for the length of the call.
    check(unsafe { libc::sigaction(signal, ptr::null(), &mut action) })?;
    Ok(action)
}

fn has_handler(action: &libc::sigaction) -> bool {
    ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
}

/// Makes our handler that of `signal`, for the threads of this process and none of its children. `CHAINED` is set before: no signal misses the handler that was there.
fn install(signal: i32) -> io::Result<Before> {
    let old = current(signal)?;
    // The default action, mostly the end of the process, is what the watcher wants to prevent.
    let chained = if has_handler(&old) { old.sa_sigaction } else { 0 };
    CHAINED[signal as usize].store(chained, Ordering::Release);
    // SAFETY: all zeros is a sigaction.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler as *const () as usize;
    // What a thread is blocked in goes on, where the system can do that; but a handler that ours calls has the stack, and the effect on blocked calls, that it asked for.
    let usual = libc::SA_RESTART | libc::SA_ONSTACK;
    new.sa_flags = libc::SA_SIGINFO | if has_handler(&old) { old.sa_flags & usual } else { usual };
    // SAFETY: the mask is valid, and the numbers are signals: no call fails.
    unsafe {
        libc::sigfillset(&mut new.sa_mask);
        for fault in FAULTS {
            libc::sigdelset(&mut new.sa_mask, fault);
        }
    }
    // SAFETY: `new` is valid for the length of the call, a null old action is allowed, and `handler` does what a handler may.
    check(unsafe { libc::sigaction(signal, &new, ptr::null_mut()) })?;
    Ok(Before(old))
}

/// Whether this is our handler.
fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handler as *const () as usize
}

impl AsFd for SignalSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watcher.flag.as_fd()
    }
}

impl Drop for SignalSet {
    fn drop(&mut self) {
        for signal in 1..COUNT as i32 {
            if self.signals & bit(signal) != 0 {
                self.remove(signal);
            }
        }
    }
}
