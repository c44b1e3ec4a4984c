//! Use while a thread is being torn down: crossbeam-channel's tests/thread_locals.rs.

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

/// Runs `last` in the destructor of a thread-local that was made before all those of the crate, so
/// that it is destroyed after them.
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
    // A panic in there would end the process, so what is found is judged here.
    let found = rx.recv().unwrap();
    thread.join().unwrap();
    found
}

/// crossbeam-channel tests/thread_locals.rs: use_while_exiting
#[test]
fn a_select_in_a_thread_locals_destructor_waits_as_ever() {
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
fn blocking_calls_in_a_thread_locals_destructor_wait_as_ever() {
    // The work uses what the crate keeps for a thread, so that it is destroyed by then.
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
