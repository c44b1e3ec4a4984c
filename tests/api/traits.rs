//! What the public types may do: cross threads, be shared, be part of an error chain, pass a caught
//! panic.

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
    error::<FailingSeed>();
    error::<PostError<fn(&Handle)>>();
    error::<TryPostError<fn(&Handle)>>();
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

/// Settings made on one thread make a reactor on each of others.
#[test]
fn a_builder_moves_to_the_thread_of_its_loop() {
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

/// The types that other threads use instead of a reactor.
#[test]
fn what_may_leave_its_thread_does() {
    fn sent<T: Send + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    shared::<(Builder, Remote, Sender<Message>, Notifier, Context, Canceller, TimerId)>();
    sent::<(Receiver<Message>, NotifyingSender<Message>)>();
}

fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}

/// All public types, at compile time: as those of std and crossbeam, whatever the messages are.
#[test]
fn ends_and_handles_pass_a_caught_panic() {
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
