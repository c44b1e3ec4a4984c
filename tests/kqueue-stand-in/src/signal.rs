//! `EVFILT_SIGNAL`: a handler that counts each signal in an eventfd of each knote.
//!
//! Afterwards the handler performs the former action of the signal. It calls the former handler,
//! ignores the signal, or takes the default action. A program may change the action only before
//! it adds the knote, or after it deletes the knote.

use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::abi::{Errno, check, errno, raise, set_errno};

const SIGNALS: usize = 65;
const LISTENERS: usize = 256;

/// The listeners: a signal, or 0 for a free place, and an eventfd. The handler reads both.
static SIGNAL: [AtomicI32; LISTENERS] = [const { AtomicI32::new(0) }; LISTENERS];
static EVENTFD: [AtomicI32; LISTENERS] = [const { AtomicI32::new(-1) }; LISTENERS];

/// The former action of each signal: the handler and the flags.
static HANDLER: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(libc::SIG_DFL) }; SIGNALS];
static FLAGS: [AtomicI32; SIGNALS] = [const { AtomicI32::new(0) }; SIGNALS];

/// The number of listeners of each signal.
static COUNTS: Mutex<[usize; SIGNALS]> = Mutex::new([0; SIGNALS]);

/// A place in the list of listeners.
#[derive(Debug)]
pub(crate) struct Listener(usize);

impl Listener {
    pub(crate) fn new(signal: usize, eventfd: c_int) -> Result<Listener, Errno> {
        let valid = (1..SIGNALS).contains(&signal)
            && ![libc::SIGKILL, libc::SIGSTOP].contains(&(signal as c_int));
        if !valid {
            return Err(Errno(libc::EINVAL));
        }
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let place = SIGNAL
            .iter()
            .position(|place| place.load(Ordering::SeqCst) == 0)
            .ok_or(Errno(libc::ENOMEM))?;
        EVENTFD[place].store(eventfd, Ordering::SeqCst);
        SIGNAL[place].store(signal as c_int, Ordering::SeqCst);
        if counts[signal] == 0 {
            if let Err(error) = take_over(signal as c_int) {
                SIGNAL[place].store(0, Ordering::SeqCst);
                return Err(error);
            }
        }
        counts[signal] += 1;
        Ok(Listener(place))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = SIGNAL[self.0].swap(0, Ordering::SeqCst) as usize;
        counts[signal] -= 1;
        if counts[signal] == 0 {
            give_back(signal as c_int);
        }
    }
}

fn current(signal: c_int) -> Result<libc::sigaction, Errno> {
    // SAFETY: an all-zero sigaction is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` is a valid place for the one sigaction that the call writes.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) })?;
    Ok(action)
}

fn ours() -> usize {
    handler as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize
}

fn take_over(signal: c_int) -> Result<(), Errno> {
    let mut action = current(signal)?;
    HANDLER[signal as usize].store(action.sa_sigaction, Ordering::SeqCst);
    FLAGS[signal as usize].store(action.sa_flags, Ordering::SeqCst);
    // The flags of a former handler stay, so that its signal interrupts the same calls.
    // Without a former handler the signal interrupts no call.
    if [libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
        action.sa_flags = libc::SA_RESTART;
    }
    action.sa_flags |= libc::SA_SIGINFO;
    action.sa_sigaction = ours();
    // SAFETY: `action` is valid, and the handler does only what a handler may do.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(())
}

fn give_back(signal: c_int) {
    let Ok(mut action) = current(signal) else { return };
    if action.sa_sigaction != ours() {
        return; // the program has set another action since
    }
    action.sa_sigaction = HANDLER[signal as usize].load(Ordering::SeqCst);
    action.sa_flags = FLAGS[signal as usize].load(Ordering::SeqCst);
    // SAFETY: `action` is the former action.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let saved = errno();
    let former = HANDLER[signal as usize].load(Ordering::SeqCst);
    if former == libc::SIG_DFL {
        // The default action comes first, because it may end the process.
        by_default(signal);
    }
    for (place, eventfd) in SIGNAL.iter().zip(&EVENTFD) {
        if place.load(Ordering::SeqCst) == signal {
            raise(eventfd.load(Ordering::SeqCst));
        }
    }
    match former {
        libc::SIG_IGN | libc::SIG_DFL => {}
        former if FLAGS[signal as usize].load(Ordering::SeqCst) & libc::SA_SIGINFO != 0 => {
            // SAFETY: `former` was installed as a handler of this kind.
            let former: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(former) };
            former(signal, info, context);
        }
        former => {
            // SAFETY: as above.
            let former: extern "C" fn(c_int) = unsafe { std::mem::transmute(former) };
            former(signal);
        }
    }
    set_errno(saved);
}

fn by_default(signal: c_int) {
    if [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT].contains(&signal) {
        return;
    }
    // The signal is blocked during its handler.
    // SAFETY: all of these may be called in a handler, and the set is valid.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
}
