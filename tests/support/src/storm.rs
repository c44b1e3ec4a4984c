//! A storm of signals, which interrupts each interruptible syscall of a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Returns the number of signals that have come.
pub fn signals() -> u64 {
    SIGNALS.load(Ordering::Relaxed)
}

/// Sends SIGALRM to the thread that made it, about every half millisecond. So each interruptible
/// syscall of the thread is interrupted.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    /// Starts the storm on the calling thread.
    #[allow(unsafe_code)]
    pub fn begin() -> Storm {
        // SAFETY: an all-zero sigaction is valid: no flags (and so no SA_RESTART), an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count_signal as *const () as usize;
        // SAFETY: `action` is valid for the length of the call, and the handler does only an atomic
        // addition.
        assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }, 0);
        // SAFETY: the call has no preconditions.
        let target = unsafe { libc::pthread_self() };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: the thread is alive: it joins this one before it ends.
                unsafe { libc::pthread_kill(target, libc::SIGALRM) };
                thread::sleep(Duration::from_micros(500)); // the pace of the storm
            }
        });
        Storm { stop, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}
