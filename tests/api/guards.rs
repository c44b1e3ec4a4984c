//! A panic, an error or a kill between two halves leaves nothing behind: offers, requests for room,
//! borrows, sleeps that are not one.

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
use support::{Hooked, Hooks, Waiting, at, dog, ms, scripted, scripted_reactor, secs};

/// Runs `f`, which must panic with a `Planned`.
#[track_caller]
fn panics<R>(f: impl FnOnce() -> R) {
    let Err(cause) = catch_unwind(AssertUnwindSafe(f)) else { panic!("it did not panic") };
    assert!(cause.is::<Planned>(), "it panicked for another reason");
}

struct Planned;

/// Where a [`Bad`] source makes trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    BeforeBlock,
    /// `before_sleep` fails.
    Error,
    Recheck,
    AfterBlock,
}

/// A source that makes trouble, once it blocks.
struct Bad {
    at: At,
    published: Cell<bool>,
    withdrawn: Cell<u32>,
}

impl Bad {
    fn new(at: At) -> Bad {
        Bad { at, published: Cell::new(false), withdrawn: Cell::new(0) }
    }
}

impl Source for Bad {
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

/// An error counts as a panic here: both end the select before its time.
#[track_caller]
fn ends_badly<T>(at: At, select: impl FnOnce() -> io::Result<T>) {
    match at {
        At::Error => match catch_unwind(AssertUnwindSafe(select)) {
            Ok(Err(error)) => assert_eq!(error.to_string(), "planned"),
            _ => panic!("no error"),
        },
        _ => panics(select),
    }
}

const EVERYWHERE: [At; 4] = [At::BeforeBlock, At::Error, At::Recheck, At::AfterBlock];

/// A reactor whose driver's waits end at once, so that `AfterBlock` comes.
fn reactor() -> Reactor {
    let (driver, script) = scripted(&Sim::new());
    (0..8).for_each(|_| script.on_sleep(|| Err(io::Error::other("not planned"))));
    Reactor::with_driver(driver).unwrap()
}

/// Nobody offers to send, and nobody has promised.
#[track_caller]
fn nobody_sends(rx: &Receiver<u32>, tx: &Sender<u32>) {
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
fn an_offer_of_a_select_that_ends_badly_is_withdrawn() {
    let _dog = dog();
    for at in EVERYWHERE {
        for bad_first in [false, true] {
            let reactor = reactor();
            let (outbox, tx, rx) = rendezvous_outbox(&reactor);
            let bad = Bad::new(at);
            ends_badly(at, || {
                if bad_first {
                    select! { reactor;
                        recv(bad) -> _ => unreachable!(),
                        send(outbox, 1) -> _ => unreachable!(),
                        error -> error => Err::<(), _>(error),
                    }
                } else {
                    select! { reactor;
                        send(outbox, 1) -> _ => unreachable!(),
                        recv(bad) -> _ => unreachable!(),
                        error -> error => Err::<(), _>(error),
                    }
                }
            });
            assert_eq!(bad.withdrawn.get(), 1, "{at:?}");
            nobody_sends(&rx, &tx);
        }
    }
}

#[test]
fn an_offer_of_a_set_that_ends_badly_is_withdrawn() {
    let _dog = dog();
    for at in EVERYWHERE {
        for bad_first in [false, true] {
            let reactor = reactor();
            let (outbox, tx, rx) = rendezvous_outbox(&reactor);
            let bad = Bad::new(at);
            let mut select = Select::new(&reactor);
            if bad_first {
                select.recv(&bad);
            }
            select.send(&outbox);
            if !bad_first {
                select.recv(&bad);
            }
            ends_badly(at, || select.wait().map(drop));
            assert_eq!(bad.withdrawn.get(), 1, "{at:?}");
            nobody_sends(&rx, &tx);
        }
    }
}

#[test]
fn a_receive_offer_that_ends_badly_is_withdrawn() {
    let _dog = dog();
    for at in EVERYWHERE {
        let reactor = reactor();
        let (tx, inbox) = reactor.channel::<u32>(0).unwrap();
        let bad = Bad::new(at);
        ends_badly(at, || {
            select! { reactor;
                recv(inbox) -> _ => unreachable!(),
                recv(bad) -> _ => unreachable!(),
                error -> error => Err::<(), _>(error),
            }
        });
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)), "{at:?}");
        let bad = Bad::new(at);
        let mut select = Select::new(&reactor);
        select.recv(&inbox);
        select.recv(&bad);
        ends_badly(at, || select.wait().map(drop));
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)), "{at:?}");
    }
}

#[test]
fn a_request_for_room_that_ends_badly_is_withdrawn() {
    for at in EVERYWHERE {
        let (driver, script) = scripted(&Sim::new());
        if at == At::AfterBlock {
            script.on_sleep(|| Ok(()));
        }
        let reactor = Reactor::with_driver(driver).unwrap();
        let tick = reactor.after(ms(1));
        let (tx, rx) = channel::bounded(1);
        tx.send(1).unwrap();
        let outbox = reactor.register(tx).unwrap();
        let bad = Bad::new(at);
        ends_badly(at, || {
            select! { reactor;
                send(outbox, 2) -> _ => unreachable!(),
                recv(bad) -> _ => unreachable!(),
                error -> error => Err::<(), _>(error),
            }
        });
        drop(tick);
        // Another sleep, for something else, is not ended by the room.
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
fn a_second_panic_on_the_way_out_aborts_nothing() {
    let reactor = reactor();
    let (outbox, tx, rx) = rendezvous_outbox(&reactor);
    let (first, second) = (Bad::new(At::AfterBlock), Bad::new(At::AfterBlock));
    panics(|| {
        select! { reactor;
            recv(first) -> _ => unreachable!(),
            recv(second) -> _ => unreachable!(),
            send(outbox, 1) -> _ => unreachable!(),
        }
    });
    nobody_sends(&rx, &tx);
    let (first, second) = (Bad::new(At::AfterBlock), Bad::new(At::AfterBlock));
    let mut select = Select::new(&reactor);
    select.recv(&first);
    select.recv(&second);
    select.send(&outbox);
    panics(|| select.wait().map(drop));
    nobody_sends(&rx, &tx);
}

#[test]
fn a_driver_that_panics_leaves_no_offer_and_no_sleep() {
    let _dog = dog();
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
        // The reactor is awake: nobody meets it, and a message costs no wake-up.
        let wakes = script.wakes();
        assert_eq!(inbox_tx.try_send(1), Err(TrySendError::Full(1)), "{round}");
        plain_tx.send(round).unwrap();
        assert_eq!(script.wakes(), wakes, "{round}");
        assert_eq!(reactor.recv(&plain).unwrap(), Ok(round));
        nobody_sends(&rx, &tx);
    }
}

#[test]
fn a_member_that_is_killed_withdraws_its_offers() {
    let _dog = dog();
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
    nobody_sends(&rx, &tx);
    nobody_sends(&kept, &back_tx);
}

/// What a driver's wait does besides waiting.
type Inside = Rc<RefCell<Option<Box<dyn FnOnce(&mut ReadyFds)>>>>;

/// Does something inside of the next wait.
struct Guest {
    inside: Inside,
    /// The id of the last fd.
    id: Rc<Cell<u64>>,
    drops: Arc<AtomicUsize>,
}

fn guest() -> (Hooked<Native, Guest>, Inside) {
    let inside = Inside::default();
    let guest = Guest { inside: inside.clone(), id: Rc::default(), drops: Arc::default() };
    (Hooked(Native::new().unwrap(), guest), inside)
}

fn during_the_next_wait(inside: &Inside, f: impl FnOnce(&mut ReadyFds) + 'static) {
    *inside.borrow_mut() = Some(Box::new(f));
}

impl Hooks<Native> for Guest {
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

impl Drop for Guest {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes no fd readable at a deadline.
struct Unarmed;

impl Hooks<Native> for Unarmed {
    fn arm(&mut self, _: &mut Native, _: WakeWindow) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
#[cfg_attr(flat, ignore = "such a kqueue cannot be waited for")]
fn a_driver_that_cannot_arm_fails_an_embedded_turn() {
    let reactor = Reactor::with_driver(Hooked(Native::new().unwrap(), Unarmed)).unwrap();
    let handle = reactor.handle();
    let embedded = reactor.embed().unwrap();
    embedded.turn().unwrap(); // nothing to arm
    let _timer = handle.after(Duration::from_secs(3_600));
    assert_eq!(embedded.turn().unwrap_err().kind(), io::ErrorKind::Unsupported);
}

/// The first arms are interrupted.
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
#[cfg_attr(flat, ignore = "such a kqueue cannot be waited for")]
fn an_interrupted_arm_of_a_driver_is_made_again() {
    let _dog = dog();
    for (times, armed) in [(1, true), (16, true), (17, false)] {
        let driver = Hooked(Native::new().unwrap(), Interrupted(times));
        let reactor = Reactor::with_driver(driver).unwrap();
        let (handle, embedded) = (reactor.handle(), reactor.embed().unwrap());
        let timer = handle.after(ms(1));
        // With a ready source the timer was due before the turn, which had nothing to arm.
        let turned = embedded.turn().map_err(|error| error.kind());
        assert!(armed || matches!(turned, Ok(1) | Err(io::ErrorKind::Interrupted)), "{turned:?}");
        // A turn that failed is owed another one, which makes the arm.
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
fn a_driver_that_says_it_was_interrupted_ends_no_wait() {
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
fn what_a_driver_found_before_it_panicked_is_found() {
    let (guest, inside) = guest();
    let id = guest.1.id.clone();
    let reactor = Reactor::with_driver(guest).unwrap();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    during_the_next_wait(&inside, move |ready| {
        ready.push(id.get(), Readiness::READABLE);
        panic_any(Planned);
    });
    panics(|| reactor.recv_timeout(&fd, ms(1)).map(drop));
    assert!(fd.is_ready());
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn an_embedded_reactor_hears_after_its_driver_has_panicked() {
    let (guest, inside) = guest();
    let reactor = Reactor::with_driver(guest).unwrap();
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
        during_the_next_wait(&inside, |_| panic_any(Planned));
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
        assert!(is_readable(&embedded), "the next turn is owed");
        embedded.turn().unwrap();
        assert!(!is_readable(&embedded));
        tx.send(1).unwrap();
        assert!(is_readable(&embedded), "deaf");
        assert_eq!(embedded.turn().unwrap(), 1);
        assert_eq!(inbox.try_recv(), Ok(1));
        embedded.turn().unwrap();
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn the_driver_can_drop_its_own_reactor_in_its_wait() {
    for panics_too in [false, true] {
        for how in 0..4 {
            let (guest, inside) = guest();
            let drops = guest.1.drops.clone();
            let reactor = Reactor::with_driver(guest).unwrap();
            let handle = reactor.handle();
            let embedded = (how == 3).then(|| reactor.embed().unwrap());
            let timer = handle.after(Duration::from_secs(3600));
            let dropped = drops.clone();
            during_the_next_wait(&inside, move |_| {
                drop(reactor);
                assert_eq!(dropped.load(Ordering::SeqCst), 0, "it is waiting");
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

/// What a driver may ask of its own reactor inside of its wait, and what each call says.
fn ask_everything(handle: &Handle, inbox: &Inbox<u32>, embedded: Option<&Embedded>) {
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
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn calls_of_a_driver_on_its_own_reactor_end_no_sleep() {
    let _dog = dog();
    for is_embedded in [false, true] {
        let (guest, inside) = guest();
        let reactor = Rc::new(Reactor::with_driver(guest).unwrap());
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        let inbox = Rc::new(inbox);
        let embedded = is_embedded.then(|| reactor.embed().unwrap()).map(Rc::new);
        let (theirs, asked, inner) = (inbox.clone(), reactor.clone(), embedded.clone());
        during_the_next_wait(&inside, move |_| {
            ask_everything(&asked, &theirs, inner.as_deref());
            if !is_embedded {
                assert_eq!(asked.embed().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            }
            drop(inner);
            // The wait begins after all this: the sleep is still one, and the message ends it.
            support::thread::spawn(move || tx.send(1).unwrap()).join().unwrap();
        });
        assert_eq!(reactor.recv(&*inbox).unwrap(), Ok(1));
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn the_end_of_an_embedding_inside_the_wait_ends_no_sleep() {
    let _dog = dog();
    let (guest, inside) = guest();
    let reactor = Reactor::with_driver(guest).unwrap();
    let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
    let embedded = reactor.embed().unwrap();
    during_the_next_wait(&inside, move |_| {
        drop(embedded);
        support::thread::spawn(move || tx.send(1).unwrap()).join().unwrap();
    });
    assert_eq!(reactor.recv(&inbox).unwrap(), Ok(1));
}

#[test]
fn an_attached_sender_rings_also_when_its_user_panics() {
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
fn a_foreign_channel_that_panics_once_keeps_its_message() {
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

/// A forgotten choice keeps nothing for ever.
fn forgets<R>(select: &mut Select<'_>, then: impl FnOnce(&mut Select<'_>) -> R) -> R {
    mem::forget(select.wait().unwrap());
    then(select)
}

#[test]
fn the_permit_of_a_forgotten_choice_comes_back() {
    let (tx, rx) = channel::bounded(1);
    let reactor = support::reactor();
    let outbox = reactor.register(tx.clone()).unwrap();
    let mut select = Select::new(&reactor);
    let index = select.send(&outbox);
    // By the next wait.
    forgets(&mut select, |select| {
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)));
        let selected = select.try_wait().unwrap().expect("the permit is back");
        assert!(selected.send(&outbox, 2).is_ok());
    });
    assert_eq!(rx.try_recv(), Ok(2));
    // By a wait for something else, after the case was taken out.
    forgets(&mut select, |select| {
        assert!(select.remove(index));
        assert!(select.try_wait().is_err(), "no cases");
    });
    assert_eq!(tx.try_send(3), Ok(()));
    assert_eq!(rx.try_recv(), Ok(3));
    // By the drop of the set.
    select.send(&outbox);
    forgets(&mut select, |_| {});
    drop(select);
    assert_eq!(tx.try_send(4), Ok(()));
}
