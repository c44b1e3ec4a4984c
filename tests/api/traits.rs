//! The auto traits of the public types: which types cross threads, are shared, are errors, and may
//! pass a caught panic.

use std::cell::Cell;
use std::error::Error;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::time::Duration;

use pollmux::channel::{self, *};
use pollmux::context::*;
use pollmux::driver::*;
use pollmux::reactor::*;
use pollmux::sim::*;
use pollmux::sources::*;
use pollmux::*;

/// A message that is `Send` and not `Sync`, like most messages.
type Message = Cell<u32>;

type Boxed = Box<dyn Error + Send + Sync>;

fn error<E: Error + Send + Sync + 'static>() {}

#[test]
fn every_error_is_send_and_sync() {
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
    error::<FailingSeed>();
    error::<PostError<fn(&Handle)>>();
    error::<TryPostError<fn(&Handle)>>();
    // The error never lends its content, so `Send` content is enough.
    error::<RegisterError<Receiver<Message>>>();
    error::<RegisterError<Sender<Message>>>();
    error::<RegisterError<std::process::Child>>();
    error::<RegisterError<Cell<u32>>>();
    error::<RegisterError<std::net::TcpStream>>();
}

fn register(reactor: &Handle, receiver: Receiver<Message>) -> Result<Inbox<Message>, Boxed> {
    Ok(reactor.register(receiver)?)
}

#[test]
fn the_question_mark_converts_a_failed_registration() {
    let reactor = Reactor::new().unwrap();
    let (tx, rx) = channel::bounded(1);
    tx.send(Cell::new(1)).unwrap();
    let inbox = register(&reactor, rx).unwrap();
    let handle = reactor.handle();
    drop(reactor);
    let error = register(&handle, inbox.into_inner()).unwrap_err();
    assert_eq!(error.to_string(), "the registration failed: the reactor has been dropped");
    let Ok(error) = error.downcast::<RegisterError<Receiver<Message>>>() else {
        panic!("the error has another type")
    };
    assert_eq!(error.into_inner().recv(), Ok(Cell::new(1)));
}

/// Builders made on one thread make a reactor on each of several threads.
#[test]
fn a_builder_may_move_to_another_thread() {
    let settings = Reactor::builder().post_limit(3);
    let builds = |settings: Builder| {
        let reactor = settings.build().unwrap();
        let remote = reactor.remote();
        assert!((0..3).all(|_| remote.try_post(|_| {}).is_ok()));
        assert!(remote.try_post(|_| {}).is_err());
    };
    let threads = [(); 2].map(|()| {
        let settings = settings.clone();
        std::thread::spawn(move || builds(settings))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    builds(settings);
}

/// These types stand for a reactor on other threads.
#[test]
fn remote_types_may_leave_their_thread() {
    fn sent<T: Send + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    shared::<(Builder, Remote, Sender<Message>, Notifier, Context, Canceller, TimerId)>();
    sent::<(Receiver<Message>, NotifyingSender<Message>)>();
}

fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}

/// Checks all public types at compile time. As in std and crossbeam, any message type is allowed.
#[test]
fn public_types_are_unwind_safe() {
    // channel
    unwinds::<(Sender<&mut Message>, Receiver<&mut Message>, Permit<'_, &mut Message>)>();
    unwinds::<(Iter<'_, Message>, TryIter<'_, Message>, IntoIter<Message>)>();
    unwinds::<(SendError<u32>, TrySendError<u32>, SendTimeoutError<u32>)>();
    unwinds::<(RecvError, TryRecvError, RecvTimeoutError)>();
    // sources
    unwinds::<(Inbox<&mut Message>, Outbox<&mut Message>, ForeignInbox<&mut Message>)>();
    unwinds::<(Notifier, Notified, NotifyingSender<u32>, FnSource<fn() -> Option<u32>>)>();
    unwinds::<(Timer, Ticker, Tick, MissedTickBehavior, Callback, Never<&mut Message>)>();
    unwinds::<(OsTimer, OsTimer<BootClock>, OsTimer<WallClock>, MonotonicClock)>();
    unwinds::<(Fd<std::net::TcpStream>, ChildProcess, Signal, Signals, SignalRaiser)>();
    unwinds::<(RegisterError<Receiver<Message>>, ZeroPeriod, ClockSet)>();
    // select and context
    unwinds::<(Select<'_>, Selected<'_>)>();
    unwinds::<(Context, Canceller, CancelGuard, Cause, ContextError, Done, AfterCancel)>();
    // reactor
    unwinds::<(Reactor, Handle, Builder, Embedded, Remote, CallbackContext<'_>)>();
    unwinds::<(Event, Events, EventsIter<'_>, BeforeSleep<'_>)>();
    unwinds::<(Stats, Spin, Sources, SourceInfo, SourceKind, SourceOrigin<'_>)>();
    unwinds::<(TimerId, TimerError, PostError<u32>, TryPostError<u32>)>();
    // driver
    unwinds::<(Clock, VirtualClock, Native, ReadyFds, Syscalls, Wait, WakeWindow)>();
    unwinds::<(foreign::Queue<Message>, foreign::Events<Message>, foreign::EventsId)>();
    #[cfg(feature = "mio")]
    unwinds::<MioDriver>();
    #[cfg(feature = "polling")]
    unwinds::<PollingDriver>();
    // sim
    unwinds::<(Sim, SimWorld, WorldHandle, WorldStats, Link<Message>, LinkStats)>();
    unwinds::<(Member<Message>, MemberDriver, Deadlock, WaitingMember, WaitsFor)>();
    unwinds::<(History, FailingSeed)>();
    // sys
    unwinds::<(Time, sys::BootTime, sys::TimerClock, sys::Expiry)>();
    unwinds::<(sys::Interest, sys::Mode, sys::Readiness)>();
    unwinds::<(sys::Poller, sys::PollEvent, sys::PollEvents, sys::Waker, sys::PollerTimer)>();
    unwinds::<(sys::TimerFd, sys::ProcessFd, sys::SignalSet)>();
}

#[test]
fn a_caught_panic_leaves_the_reactor_usable() {
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel(2).unwrap();
    let ticker = reactor.every(Duration::from_millis(1)).unwrap();
    tx.send(1).unwrap();
    // The closure needs no `AssertUnwindSafe`.
    let caught = catch_unwind(|| select! { reactor; recv(inbox) -> n => panic!("{n:?}") });
    assert!(caught.is_err());
    tx.send(2).unwrap();
    assert_eq!(reactor.recv(&inbox).unwrap(), Ok(2));
    assert!(catch_unwind(AssertUnwindSafe(|| reactor.recv(&ticker).unwrap())).is_ok());
}
