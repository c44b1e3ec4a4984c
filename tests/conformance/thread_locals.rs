//! Calls during the destruction of thread-locals: crossbeam-channel's tests/thread_locals.rs.

use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;

use pollmux::channel::{self, RecvTimeoutError, SendTimeoutError};
use pollmux::{Reactor, select};

use crate::common::ms;
use crate::support::later;

/// Runs its function when its thread ends.
struct AtExit(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

/// Runs `last` in the destructor of a thread-local. This thread-local is made before those of the
/// crate, so it is destroyed after them.
fn at_exit<R: Send + 'static>(
    work: impl FnOnce() + Send + 'static,
    last: impl FnOnce() -> R + Send + 'static,
) -> R {
    thread_local!(static LAST: AtExit = const { AtExit(RefCell::new(None)) });
    let (tx, rx) = mpsc::channel();
    let thread = thread::spawn(move || {
        LAST.with(|at_exit| {
            *at_exit.0.borrow_mut() = Some(Box::new(move || drop(tx.send(last()))))
        });
        work();
    });
    // A panic in that thread would end the process, so the result is checked here.
    let found = rx.recv().unwrap();
    thread.join().unwrap();
    found
}

/// crossbeam-channel tests/thread_locals.rs: use_while_exiting
#[test]
fn select_waits_in_a_thread_local_destructor() {
    let (tx, rx) = channel::unbounded::<i32>();
    let _sender = later(ms(20), move || tx.send(1).unwrap());
    let work = move || assert_eq!(rx.recv(), Ok(1));
    let found = at_exit(work, || {
        let reactor = Reactor::new().ok()?;
        let (tx, inbox) = reactor.channel(1).ok()?;
        let quiet = select! { reactor; recv(inbox) -> _ => false, default(ms(5)) => true };
        tx.send(7).ok()?;
        select! { reactor; recv(inbox) -> n => Some((quiet, n)) }
    });
    assert_eq!(found, Some((true, Ok(7))));
}

/// crossbeam-channel tests/thread_locals.rs: use_while_exiting, for calls that wait without a
/// reactor
#[test]
fn blocking_calls_wait_in_a_thread_local_destructor() {
    // The work uses the crate's thread-locals, so they are destroyed before `last` runs.
    let meet = || {
        let (tx, rx) = channel::bounded(0);
        let timeouts = (tx.send_timeout(1, ms(2)), rx.recv_timeout(ms(2)));
        let other = thread::spawn(move || tx.send(2));
        (timeouts, rx.recv(), other.join().is_ok())
    };
    let found = at_exit(move || assert_eq!(meet().1, Ok(2)), meet);
    let timeouts = (Err(SendTimeoutError::Timeout(1)), Err(RecvTimeoutError::Timeout));
    assert_eq!(found, (timeouts, Ok(2), true));
}
