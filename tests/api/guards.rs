//! A panic, an error or a kill in the middle of a select leaves no offer, no request for room and
//! no false sleep behind.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pollmux::channel::{self, Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError};
use pollmux::sys::{self, Interest, Mode, Poller, Readiness};
use pollmux::{
    Embedded, Events, Handle, Inbox, Outbox, Reactor, Select, Sim, SimWorld, Source, Timer,
    driver::{Driver, Native, ReadyFds, WakeWindow},
    select,
    sources::BeforeSleep,
};
use support::{Hooked, Hooks, Waiting, at, ms, scripted, scripted_reactor, secs, watchdog};

/// Runs `f`, which must panic with a [`Planned`] payload.
#[track_caller]
fn panics<R>(f: impl FnOnce() -> R) {
    let Err(cause) = catch_unwind(AssertUnwindSafe(f)) else { panic!("the closure did not panic") };
    assert!(cause.is::<Planned>(), "the panic has another payload");
}

/// The payload of the planned panics.
struct Planned;

/// The step at which a [`FaultySource`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    BeforeBlock,
    /// `before_sleep` fails.
    Error,
    Recheck,
    AfterBlock,
}

/// A source that fails at one step of a blocking select.
struct FaultySource {
    at: At,
    published: Cell<bool>,
    withdrawn: Cell<u32>,
}

impl FaultySource {
    fn new(at: At) -> FaultySource {
        FaultySource { at, published: Cell::new(false), withdrawn: Cell::new(0) }
    }
}

impl Source for FaultySource {
    type Item = ();

    fn is_ready(&self) -> bool {
        if self.at == At::Recheck && self.published.get() {
            panic_any(Planned);
        }
        false
    }

    fn try_take(&self) -> Option<()> {
        None
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.published.set(true);
        match self.at {
            At::BeforeBlock => panic_any(Planned),
            At::Error => Err(io::Error::other("planned")),
            _ => Ok(()),
        }
    }

    fn after_sleep(&self) {
        self.withdrawn.set(self.withdrawn.get() + 1);
        if self.at == At::AfterBlock && self.published.replace(false) {
            panic_any(Planned);
        }
    }
}

/// Expects a panic, or the planned error for [`At::Error`]. Both end the select early.
#[track_caller]
fn fails_at<T>(at: At, select: impl FnOnce() -> io::Result<T>) {
    match at {
        At::Error => match catch_unwind(AssertUnwindSafe(select)) {
            Ok(Err(error)) => assert_eq!(error.to_string(), "planned"),
            _ => panic!("the select did not fail"),
        },
        _ => panics(select),
    }
}

const STEPS: [At; 4] = [At::BeforeBlock, At::Error, At::Recheck, At::AfterBlock];

/// A reactor whose driver fails each wait at once. So every select reaches `AfterBlock`.
fn reactor() -> Reactor {
    let (driver, script) = scripted(&Sim::new());
    (0..8).for_each(|_| script.on_sleep(|| Err(io::Error::other("not planned"))));
    Reactor::with_driver(driver).unwrap()
}

/// Asserts that no sender offers a value and none has promised one.
#[track_caller]
fn assert_no_offer(rx: &Receiver<u32>, tx: &Sender<u32>) {
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(rx.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    std::thread::scope(|scope| {
        scope.spawn(|| tx.send(5).unwrap());
        assert_eq!(rx.recv(), Ok(5));
    });
}

fn rendezvous_outbox(reactor: &Reactor) -> (Outbox<u32>, Sender<u32>, Receiver<u32>) {
    let (tx, rx) = channel::bounded(0);
    (reactor.register(tx.clone()).unwrap(), tx, rx)
}

#[test]
fn failed_select_withdraws_its_send_offer() {
    let _watchdog = watchdog();
    for at in STEPS {
        for faulty_first in [false, true] {
            let reactor = reactor();
            let (outbox, tx, rx) = rendezvous_outbox(&reactor);
            let faulty = FaultySource::new(at);
            fails_at(at, || {
                if faulty_first {
                    select! { reactor;
                        recv(faulty) -> _ => unreachable!(),
                        send(outbox, 1) -> _ => unreachable!(),
                        error -> error => Err::<(), _>(error),
                    }
                } else {
                    select! { reactor;
                        send(outbox, 1) -> _ => unreachable!(),
                        recv(faulty) -> _ => unreachable!(),
                        error -> error => Err::<(), _>(error),
                    }
                }
            });
            assert_eq!(faulty.withdrawn.get(), 1, "{at:?}");
            assert_no_offer(&rx, &tx);
        }
    }
}

#[test]
fn failed_select_set_withdraws_its_send_offer() {
    let _watchdog = watchdog();
    for at in STEPS {
        for faulty_first in [false, true] {
            let reactor = reactor();
            let (outbox, tx, rx) = rendezvous_outbox(&reactor);
            let faulty = FaultySource::new(at);
            let mut select = Select::new(&reactor);
            if faulty_first {
                select.recv(&faulty);
            }
            select.send(&outbox);
            if !faulty_first {
                select.recv(&faulty);
            }
            fails_at(at, || select.wait().map(drop));
            assert_eq!(faulty.withdrawn.get(), 1, "{at:?}");
            assert_no_offer(&rx, &tx);
        }
    }
}

#[test]
fn failed_select_withdraws_its_receive_offer() {
    let _watchdog = watchdog();
    for at in STEPS {
        let reactor = reactor();
        let (tx, inbox) = reactor.channel::<u32>(0).unwrap();
        let faulty = FaultySource::new(at);
        fails_at(at, || {
            select! { reactor;
                recv(inbox) -> _ => unreachable!(),
                recv(faulty) -> _ => unreachable!(),
                error -> error => Err::<(), _>(error),
            }
        });
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)), "{at:?}");
        let faulty = FaultySource::new(at);
        let mut select = Select::new(&reactor);
        select.recv(&inbox);
        select.recv(&faulty);
        fails_at(at, || select.wait().map(drop));
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)), "{at:?}");
    }
}

#[test]
fn failed_select_withdraws_its_request_for_room() {
    for at in STEPS {
        let (driver, script) = scripted(&Sim::new());
        if at == At::AfterBlock {
            script.on_sleep(|| Ok(()));
        }
        let reactor = Reactor::with_driver(driver).unwrap();
        let tick = reactor.after(ms(1));
        let (tx, rx) = channel::bounded(1);
        tx.send(1).unwrap();
        let outbox = reactor.register(tx).unwrap();
        let faulty = FaultySource::new(at);
        fails_at(at, || {
            select! { reactor;
                send(outbox, 2) -> _ => unreachable!(),
                recv(faulty) -> _ => unreachable!(),
                error -> error => Err::<(), _>(error),
            }
        });
        drop(tick);
        // Room must not end a later sleep that waits for something else.
        let timer = reactor.after(ms(5));
        let wakes = script.wakes();
        script.on_sleep(move || {
            assert_eq!(rx.try_recv(), Ok(1));
            Ok(())
        });
        reactor.recv(&timer).unwrap();
        assert_eq!(script.wakes(), wakes, "{at:?}");
    }
}

#[test]
fn second_panic_during_cleanup_does_not_abort() {
    let reactor = reactor();
    let (outbox, tx, rx) = rendezvous_outbox(&reactor);
    let (first, second) = (FaultySource::new(At::AfterBlock), FaultySource::new(At::AfterBlock));
    panics(|| {
        select! { reactor;
            recv(first) -> _ => unreachable!(),
            recv(second) -> _ => unreachable!(),
            send(outbox, 1) -> _ => unreachable!(),
        }
    });
    assert_no_offer(&rx, &tx);
    let (first, second) = (FaultySource::new(At::AfterBlock), FaultySource::new(At::AfterBlock));
    let mut select = Select::new(&reactor);
    select.recv(&first);
    select.recv(&second);
    select.send(&outbox);
    panics(|| select.wait().map(drop));
    assert_no_offer(&rx, &tx);
}

#[test]
fn driver_panic_leaves_no_offer_and_no_sleep() {
    let _watchdog = watchdog();
    let (_, reactor, script) = scripted_reactor();
    let (outbox, tx, rx) = rendezvous_outbox(&reactor);
    let (inbox_tx, inbox) = reactor.channel::<u32>(0).unwrap();
    let (plain_tx, plain) = reactor.channel::<u32>(4).unwrap();
    let mut events = Events::with_capacity(4);
    for round in 0..4 {
        script.on_sleep(|| panic_any(Planned));
        panics(|| match round {
            0 => select! { reactor;
                send(outbox, 1) -> _ => unreachable!(),
                recv(inbox) -> _ => unreachable!(),
            },
            1 => {
                let mut select = Select::new(&reactor);
                select.send(&outbox);
                select.recv(&inbox);
                select.wait().map(drop).unwrap();
            }
            2 => reactor.wait(&mut events).unwrap(),
            _ => reactor.sleep_blocking(ms(5)).unwrap(),
        });
        // The reactor is awake: it takes no offer, and a message costs no wake-up.
        let wakes = script.wakes();
        assert_eq!(inbox_tx.try_send(1), Err(TrySendError::Full(1)), "{round}");
        plain_tx.send(round).unwrap();
        assert_eq!(script.wakes(), wakes, "{round}");
        assert_eq!(reactor.recv(&plain).unwrap(), Ok(round));
        assert_no_offer(&rx, &tx);
    }
}

#[test]
fn killed_world_member_withdraws_its_offers() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded::<u32>(0);
    let (back_tx, back_rx) = channel::bounded::<u32>(0);
    let kept = back_rx;
    let mut world = SimWorld::new(1);
    let sender = tx.clone();
    world.spawn("select", move |reactor: Reactor| -> io::Result<()> {
        let outbox = reactor.register(sender)?;
        select! { reactor; send(outbox, 1) -> _ => unreachable!() }
    });
    let sender = back_tx.clone();
    world.spawn("set", move |reactor: Reactor| -> io::Result<()> {
        let outbox = reactor.register(sender)?;
        let mut select = Select::new(&reactor);
        select.send(&outbox);
        select.wait().map(drop)
    });
    let _ = world.run_for(ms(10));
    drop(world);
    assert_no_offer(&rx, &tx);
    assert_no_offer(&kept, &back_tx);
}

/// A closure that runs inside the driver's next wait.
type Inside = Rc<RefCell<Option<Box<dyn FnOnce(&mut ReadyFds)>>>>;

/// A driver's hooks that run a closure inside the next wait.
struct RunInWait {
    inside: Inside,
    /// The id of the fd that was registered last.
    id: Rc<Cell<u64>>,
    drops: Arc<AtomicUsize>,
}

fn hooked() -> (Hooked<Native, RunInWait>, Inside) {
    let inside = Inside::default();
    let hooked = RunInWait { inside: inside.clone(), id: Rc::default(), drops: Arc::default() };
    (Hooked(Native::new().unwrap(), hooked), inside)
}

fn in_next_wait(inside: &Inside, f: impl FnOnce(&mut ReadyFds) + 'static) {
    *inside.borrow_mut() = Some(Box::new(f));
}

impl Hooks<Native> for RunInWait {
    fn wait(&mut self, native: &mut Native, mut waiting: Waiting<'_>) -> io::Result<()> {
        let inside = self.inside.take();
        if let Some(inside) = inside {
            inside(waiting.ready);
        }
        waiting.by(native)
    }

    fn register(
        &mut self,
        native: &mut Native,
        fd: std::os::fd::BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.id.set(id);
        native.register(fd, id, interest, mode)
    }
}

impl Drop for RunInWait {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Refuses to arm deadlines, as a driver without an fd of its own does.
struct Unarmed;

impl Hooks<Native> for Unarmed {
    fn arm(&mut self, _: &mut Native, _: WakeWindow) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn embedded_turn_fails_when_driver_cannot_arm() {
    let reactor = Reactor::with_driver(Hooked(Native::new().unwrap(), Unarmed)).unwrap();
    let handle = reactor.handle();
    let embedded = reactor.embed().unwrap();
    embedded.turn().unwrap(); // no timer: the turn arms nothing
    let _timer = handle.after(Duration::from_secs(3_600));
    assert_eq!(embedded.turn().unwrap_err().kind(), io::ErrorKind::Unsupported);
}

/// Interrupts the first arms. The field counts the arms that are left to interrupt.
struct Interrupted(u32);

impl Hooks<Native> for Interrupted {
    fn arm(&mut self, native: &mut Native, deadline: WakeWindow) -> io::Result<()> {
        match self.0.checked_sub(1) {
            Some(left) => self.0 = left,
            None => return native.arm(deadline),
        }
        Err(io::ErrorKind::Interrupted.into())
    }
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn interrupted_arm_is_retried() {
    let _watchdog = watchdog();
    for (times, armed) in [(1, true), (16, true), (17, false)] {
        let driver = Hooked(Native::new().unwrap(), Interrupted(times));
        let reactor = Reactor::with_driver(driver).unwrap();
        let (handle, embedded) = (reactor.handle(), reactor.embed().unwrap());
        let timer = handle.after(ms(1));
        // A turn with a ready source arms nothing: the timer was due before the turn began.
        let turned = embedded.turn().map_err(|error| error.kind());
        assert!(armed || matches!(turned, Ok(1) | Err(io::ErrorKind::Interrupted)), "{turned:?}");
        // After a turn that failed the fd is readable. The next turn arms the timer.
        let poller = Poller::new().unwrap();
        poller.register(&embedded, 0, Interest::READABLE, Mode::Level).unwrap();
        let mut events = sys::PollEvents::with_capacity(1);
        while timer.try_take().is_none() {
            poller.wait(&mut events, None).unwrap();
            embedded.turn().unwrap();
        }
    }
}

#[test]
fn interrupted_driver_does_not_end_a_wait() {
    type Way = fn(&Reactor, &Timer) -> bool;
    let ways: [Way; 7] = [
        |reactor, timer| select! { reactor; recv(timer) -> _ => true },
        |reactor, timer| {
            select! { reactor; recv(timer) -> _ => true, default(secs(1)) => false }
        },
        |reactor, timer| reactor.recv(timer).is_ok(),
        |reactor, timer| reactor.recv_timeout(timer, secs(1)).unwrap().is_some(),
        |reactor, timer| {
            let mut select = Select::new(reactor);
            select.recv(timer);
            select.wait().unwrap().recv(timer).is_some()
        },
        |reactor, timer| {
            reactor.wait(&mut Events::with_capacity(1)).unwrap();
            timer.try_take().is_some()
        },
        |reactor, timer| {
            reactor.sleep_blocking(ms(10)).unwrap();
            timer.try_take().is_some()
        },
    ];
    for way in ways {
        let (sim, reactor, script) = scripted_reactor();
        let timer = reactor.after(ms(10));
        for _ in 0..5 {
            script.on_sleep(|| Err(io::ErrorKind::Interrupted.into()));
        }
        assert!(way(&reactor, &timer));
        assert_eq!((script.sleeps(), sim.now()), (6, at(10)));
    }
}

#[test]
fn readiness_found_before_a_driver_panic_is_kept() {
    let (hooked, inside) = hooked();
    let id = hooked.1.id.clone();
    let reactor = Reactor::with_driver(hooked).unwrap();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    in_next_wait(&inside, move |ready| {
        ready.push(id.get(), Readiness::READABLE);
        panic_any(Planned);
    });
    panics(|| reactor.recv_timeout(&fd, ms(1)).map(drop));
    assert!(fd.is_ready());
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn embedded_fd_signals_messages_after_a_driver_panic() {
    let (hooked, inside) = hooked();
    let reactor = Reactor::with_driver(hooked).unwrap();
    let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
    let (out, _tx, _rx) = rendezvous_outbox(&reactor);
    let embedded = reactor.embed().unwrap();
    let is_readable = |embedded: &Embedded| {
        let poller = Poller::new().unwrap();
        poller.register(embedded, 0, Interest::READABLE, Mode::Level).unwrap();
        let mut events = sys::PollEvents::with_capacity(1);
        poller.wait(&mut events, Some(ms(0))).unwrap();
        events.iter().count() == 1
    };
    assert!(!is_readable(&embedded));
    for in_a_turn in [true, false] {
        in_next_wait(&inside, |_| panic_any(Planned));
        panics(|| {
            if in_a_turn {
                embedded.turn().map(drop)
            } else {
                select! { reactor;
                    send(out, 1) -> _ => unreachable!(),
                    error -> error => Err(error),
                }
            }
        });
        assert!(is_readable(&embedded), "the failed turn asks for another turn");
        embedded.turn().unwrap();
        assert!(!is_readable(&embedded));
        tx.send(1).unwrap();
        assert!(is_readable(&embedded), "the message did not make the fd readable");
        assert_eq!(embedded.turn().unwrap(), 1);
        assert_eq!(inbox.try_recv(), Ok(1));
        embedded.turn().unwrap();
    }
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn driver_may_drop_its_reactor_during_a_wait() {
    for panics_too in [false, true] {
        for how in 0..4 {
            let (hooked, inside) = hooked();
            let drops = hooked.1.drops.clone();
            let reactor = Reactor::with_driver(hooked).unwrap();
            let handle = reactor.handle();
            let embedded = (how == 3).then(|| reactor.embed().unwrap());
            let timer = handle.after(Duration::from_secs(3600));
            let dropped = drops.clone();
            in_next_wait(&inside, move |_| {
                drop(reactor);
                assert_eq!(
                    dropped.load(Ordering::SeqCst),
                    0,
                    "the driver was dropped during its wait"
                );
                if panics_too {
                    panic_any(Planned);
                }
            });
            let waits = || match how {
                0 => handle.recv_timeout(&timer, ms(1)).map(drop),
                1 => handle.wait_timeout(&mut Events::with_capacity(1), ms(1)),
                2 => {
                    let mut select = Select::new(&handle);
                    select.recv(&timer);
                    select.wait_timeout(ms(1)).map(drop)
                }
                _ => embedded.as_ref().unwrap().turn().map(drop),
            };
            if panics_too {
                panics(waits);
            } else {
                assert_eq!(waits().unwrap_err().kind(), io::ErrorKind::NotConnected, "{how}");
            }
            assert_eq!(drops.load(Ordering::SeqCst), 1, "{how}");
            assert!(handle.is_closed());
            assert_eq!(waits().unwrap_err().kind(), io::ErrorKind::NotConnected);
        }
    }
}

/// Makes the calls that a driver may make on its own reactor inside its wait. Checks each result.
fn call_everything(handle: &Handle, inbox: &Inbox<u32>, embedded: Option<&Embedded>) {
    let timer = handle.after(Duration::ZERO);
    assert!(handle.sources().iter().count() > 0);
    handle.stats();
    assert_eq!(inbox.try_recv(), Err(TryRecvError::Empty));
    let busy = |result: io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    };
    busy(handle.recv(inbox).map(drop));
    busy(handle.recv_timeout(inbox, ms(1)).map(drop));
    let never = pollmux::never::<()>();
    let mut select = Select::new(handle);
    select.recv(never);
    busy(select.wait().map(drop));
    if let Some(embedded) = embedded {
        busy(embedded.turn().map(drop));
    }
    drop(timer);
    busy(handle.sleep_blocking(ms(1)));
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn driver_calls_on_its_reactor_end_no_sleep() {
    let _watchdog = watchdog();
    for is_embedded in [false, true] {
        let (hooked, inside) = hooked();
        let reactor = Rc::new(Reactor::with_driver(hooked).unwrap());
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        let inbox = Rc::new(inbox);
        let embedded = is_embedded.then(|| reactor.embed().unwrap()).map(Rc::new);
        let (theirs, asked, inner) = (inbox.clone(), reactor.clone(), embedded.clone());
        in_next_wait(&inside, move |_| {
            call_everything(&asked, &theirs, inner.as_deref());
            if !is_embedded {
                assert_eq!(asked.embed().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            }
            drop(inner);
            // The driver waits after these calls. The message must still end its wait.
            support::thread::spawn(move || tx.send(1).unwrap()).join().unwrap();
        });
        assert_eq!(reactor.recv(&*inbox).unwrap(), Ok(1));
    }
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn dropping_an_embedding_during_a_wait_loses_nothing() {
    let _watchdog = watchdog();
    let (hooked, inside) = hooked();
    let reactor = Reactor::with_driver(hooked).unwrap();
    let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
    let embedded = reactor.embed().unwrap();
    in_next_wait(&inside, move |_| {
        drop(embedded);
        support::thread::spawn(move || tx.send(1).unwrap()).join().unwrap();
    });
    assert_eq!(reactor.recv(&inbox).unwrap(), Ok(1));
}

#[test]
fn attached_sender_notifies_when_its_closure_panics() {
    let reactor = support::on(Sim::new());
    let (notifier, notified) = reactor.notifier();
    let (tx, rx) = std::sync::mpsc::channel();
    let tx = notifier.attach(tx);
    let source = notified.receiving(|| rx.try_recv().ok());
    assert!(source.try_take().is_none());
    panics(|| {
        tx.with(|tx| {
            tx.send(1).unwrap();
            panic_any(Planned)
        })
    });
    assert_eq!(reactor.recv(&source).unwrap(), 1);
}

#[test]
fn message_survives_a_panic_of_its_receive_closure() {
    let reactor = support::on(Sim::new());
    let (notifier, notified) = reactor.notifier();
    let (tx, rx) = std::sync::mpsc::channel();
    let tx = notifier.attach(tx);
    let trouble = Cell::new(false);
    let source = notified.receiving(|| {
        if trouble.take() {
            panic_any(Planned);
        }
        rx.try_recv().ok()
    });
    assert!(source.try_take().is_none());
    tx.with(|tx| tx.send(1)).unwrap();
    trouble.set(true);
    panics(|| reactor.recv(&source).map(drop));
    assert_eq!(reactor.recv(&source).unwrap(), 1);
}

/// Forgets the choice of a wait, then runs `then`.
fn forget_then<R>(select: &mut Select<'_>, then: impl FnOnce(&mut Select<'_>) -> R) -> R {
    mem::forget(select.wait().unwrap());
    then(select)
}

#[test]
fn permit_of_a_forgotten_choice_comes_back() {
    let (tx, rx) = channel::bounded(1);
    let reactor = support::reactor();
    let outbox = reactor.register(tx.clone()).unwrap();
    let mut select = Select::new(&reactor);
    let index = select.send(&outbox);
    // The next wait returns the permit.
    forget_then(&mut select, |select| {
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)));
        let selected = select.try_wait().unwrap().expect("the permit has come back");
        assert!(selected.send(&outbox, 2).is_ok());
    });
    assert_eq!(rx.try_recv(), Ok(2));
    // Another wait returns the permit, even without the case.
    forget_then(&mut select, |select| {
        assert!(select.remove(index));
        assert!(select.try_wait().is_err(), "a set without cases waits");
    });
    assert_eq!(tx.try_send(3), Ok(()));
    assert_eq!(rx.try_recv(), Ok(3));
    // Dropping the set returns the permit.
    select.send(&outbox);
    forget_then(&mut select, |_| {});
    drop(select);
    assert_eq!(tx.try_send(4), Ok(()));
}
