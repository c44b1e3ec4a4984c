//! Helpers for the select tests: a watchdog, and functions that make registered channels.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pollmux::channel::{self, Receiver, Sender};
use pollmux::{Inbox, Outbox, Reactor};
use support::thread;

pub use support::{aside, later};

/// Runs `body` on a thread of its own. Fails if `body` has not returned after ten minutes, so that
/// a lost wake-up is a failure and not a hang.
pub fn watched(body: impl FnOnce() + Send + 'static) {
    watch(Box::new(body));
}

fn watch(body: Box<dyn FnOnce() + Send>) {
    let (done, over) = mpsc::channel::<()>();
    let runner = thread::spawn(move || {
        let _done = done;
        body();
    });
    match over.recv_timeout(Duration::from_secs(600)) {
        Err(RecvTimeoutError::Timeout) => panic!("still running after ten minutes"),
        _ => runner.join().unwrap_or_else(|cause| panic::resume_unwind(cause)),
    }
}

/// Makes a channel whose receiver is registered.
pub fn inbox<T>(reactor: &Reactor, capacity: usize) -> (Sender<T>, Inbox<T>) {
    reactor.channel(capacity).unwrap()
}

/// Makes a channel whose first sender is registered.
pub fn outbox<T>(reactor: &Reactor, capacity: usize) -> (Outbox<T>, Receiver<T>) {
    let (tx, rx) = channel::bounded(capacity);
    (reactor.register(tx).unwrap(), rx)
}

/// Polls a condition until another thread has made the condition true.
pub fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}
