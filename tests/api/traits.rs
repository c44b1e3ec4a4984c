//! What the public types may do: cross threads, be shared, be part of an error chain, pass a caught
//! panic.

use std::cell::Cell;
use std::error::Error;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::time::Duration;

use pollmux::channel::{
    self, Permit, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender,
    TryRecvError, TrySendError,
};
use pollmux::{
    Callback, Canceller, Context, Embedded, Handle, Inbox, Notified, Notifier, OsTimer, Outbox,
    Reactor, Remote, Select, Sim, SimWorld, Ticker, Timer,
    context::{AfterCancel, CancelGuard, Cause, ContextError, Done},
    reactor::{PostError, TimerError},
    select,
    sim::{Deadlock, Link, WorldHandle},
    sources::{ClockSet, RegisterError, ZeroPeriod},
};

/// Sent, but not shared: what most messages are.
type Message = Cell<u32>;

type Boxed = Box<dyn Error + Send + Sync>;

fn error<E: Error + Send + Sync + 'static>() {}

#[test]
fn every_error_is_sent_and_shared() {
    error::<RecvError>();
    error::<TryRecvError>();
    error::<RecvTimeoutError>();
    error::<SendError<u32>>();
    error::<TrySendError<u32>>();
    error::<SendTimeoutError<u32>>();
    error::<TimerError>();
    error::<ZeroPeriod>();
    error::<ClockSet>();
    error::<ContextError>();
    error::<Cause>();
    error::<Deadlock>();
    error::<PostError<fn(&Handle)>>();
    // It never lends what it has: to be sent is enough.
    error::<RegisterError<Receiver<Message>>>();
    error::<RegisterError<Sender<Message>>>();
    error::<RegisterError<std::process::Child>>();
    error::<RegisterError<Cell<u32>>>();
    error::<RegisterError<std::net::TcpStream>>();
}

fn registers(reactor: &Handle, receiver: Receiver<Message>) -> Result<Inbox<Message>, Boxed> {
    Ok(reactor.register(receiver)?)
}

#[test]
fn a_failed_registration_passes_a_question_mark() {
    let reactor = Reactor::new().unwrap();
    let (tx, rx) = channel::bounded(1);
    tx.send(Cell::new(1)).unwrap();
    let inbox = registers(&reactor, rx).unwrap();
    let handle = reactor.handle();
    drop(reactor);
    let error = registers(&handle, inbox.into_inner()).unwrap_err();
    assert_eq!(error.to_string(), "the registration failed: the reactor has been dropped");
    let Ok(error) = error.downcast::<RegisterError<Receiver<Message>>>() else {
        panic!("another error")
    };
    assert_eq!(error.into_inner().recv(), Ok(Cell::new(1)));
}

fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}

#[test]
fn ends_and_handles_pass_a_caught_panic() {
    // As those of std and crossbeam, whatever the messages are.
    unwinds::<Sender<&mut Message>>();
    unwinds::<Receiver<&mut Message>>();
    unwinds::<Permit<'_, &mut Message>>();
    unwinds::<channel::Iter<'_, Message>>();
    unwinds::<channel::TryIter<'_, Message>>();
    unwinds::<channel::IntoIter<Message>>();
    unwinds::<Inbox<&mut Message>>();
    unwinds::<Outbox<&mut Message>>();
    unwinds::<(Notifier, Notified, Remote)>();
    unwinds::<(Context, Canceller, CancelGuard, Cause, Done, AfterCancel)>();
    unwinds::<(Reactor, Handle, Embedded, Timer, Ticker, Callback, OsTimer, Select<'_>)>();
    unwinds::<(Sim, SimWorld, WorldHandle, Link<Message>)>();
    unwinds::<(SendError<u32>, TrySendError<u32>, SendTimeoutError<u32>, RecvError, TimerError)>();
}

#[test]
fn a_caught_panic_in_an_arm_leaves_all_usable() {
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel(2).unwrap();
    let ticker = reactor.every(Duration::from_millis(1)).unwrap();
    tx.send(1).unwrap();
    // No `AssertUnwindSafe`.
    let caught = catch_unwind(|| select! { reactor; recv(inbox) -> n => panic!("{n:?}") });
    assert!(caught.is_err());
    tx.send(2).unwrap();
    assert_eq!(reactor.recv(&inbox).unwrap(), Ok(2));
    assert!(catch_unwind(AssertUnwindSafe(|| reactor.recv(&ticker).unwrap())).is_ok());
}
