//! Notifiers bring foreign channels into a `select!`. No wake-up is lost and none is made twice.

use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use pollmux::{Events, Reactor, Select, Sim, Source, select};
use support::{scripted_reactor, thread};

#[test]
fn many_notifications_coalesce_into_one() {
    let reactor = support::on(Sim::new());
    let (notifier, notified) = reactor.notifier();
    for _ in 0..5 {
        notifier.notify();
    }
    select! { reactor; recv(notified) -> () => {} }
    select! { reactor; recv(notified) -> () => panic!("reported twice"), default => {} }
}

#[test]
fn notification_costs_a_syscall_only_during_a_sleep() {
    let reactor = support::reactor();
    let (notifier, notified) = reactor.notifier();
    let before = reactor.stats();
    for _ in 0..1_000 {
        notifier.notify();
        notifier.notify();
        select! { reactor; recv(notified) -> () => {} }
    }
    assert_eq!((reactor.stats() - before).syscalls(), 0);

    // The driver's script notifies during the sleep. A thread would depend on the scheduler.
    let (_, reactor, script) = scripted_reactor();
    let (notifier, notified) = reactor.notifier();
    for round in 1..=20 {
        let ringer = notifier.clone();
        script.on_sleep(move || {
            (0..10).for_each(|_| ringer.notify());
            Ok(())
        });
        select! { reactor; recv(notified) -> () => {} }
        assert_eq!((script.sleeps(), script.wakes(), reactor.stats().wakes), (round, round, round));
        // Ten notifications fire the source once. The loop is awake: the next one makes no wake-up.
        select! { reactor; recv(notified) -> () => panic!("reported twice"), default => {} }
        notifier.notify();
        select! { reactor; recv(notified) -> () => {} }
        assert_eq!(script.wakes(), round);
    }
}

#[test]
fn four_senders_on_a_foreign_channel_lose_nothing() {
    const EACH: u32 = 20_000;
    let reactor = support::reactor();
    let (tx, rx) = mpsc::channel();
    let (notifier, notified) = reactor.notifier();
    let tx = notifier.attach(tx);
    for sender in 0..4u32 {
        let tx = tx.clone();
        thread::spawn(move || (0..EACH).for_each(|n| tx.with(|tx| tx.send((sender, n)).unwrap())));
    }
    drop(tx);
    let source = notified.receiving(|| match rx.try_recv() {
        Err(TryRecvError::Empty) => None,
        message => Some(message),
    });
    let ticker = reactor.every(Duration::from_millis(1)).unwrap();
    let mut next = [0u32; 4];
    loop {
        select! { reactor;
            recv(source) -> message => match message {
                Ok((sender, n)) => {
                    assert_eq!(n, next[sender as usize]);
                    next[sender as usize] += 1;
                }
                Err(_) => break,
            },
            recv(ticker) -> _tick => {},
        }
    }
    assert_eq!(next, [EACH; 4]);
}

#[test]
fn select_finds_a_message_older_than_its_source() {
    let reactor = support::on(Sim::new());
    let (tx, rx) = mpsc::channel();
    tx.send(1).unwrap();
    let (_notifier, notified) = reactor.notifier();
    let source = notified.receiving(|| rx.try_recv().ok());
    select! { reactor; recv(source) -> n => assert_eq!(n, 1) }
    select! { reactor; recv(source) -> _n => panic!("a second message"), default => {} }
}

#[test]
fn dropping_an_attached_sender_notifies_its_receiver() {
    let reactor = support::reactor();
    let (tx, rx) = mpsc::channel::<()>();
    let (notifier, notified) = reactor.notifier();
    let tx = notifier.attach(tx);
    let source = notified.receiving(|| match rx.try_recv() {
        Err(TryRecvError::Empty) => None,
        end => Some(end),
    });
    thread::spawn(move || drop(tx));
    select! { reactor; recv(source) -> end => assert_eq!(end, Err(TryRecvError::Disconnected)) }
}

#[test]
fn wait_reports_a_notification_until_it_is_taken() {
    let reactor = support::on(Sim::new());
    let (notifier, notified) = reactor.notifier();
    let notified = notified.with_key(3);
    for _ in 0..3 {
        assert_eq!(support::ready_keys(&reactor), []);
        notifier.notify();
        for _ in 0..2 {
            assert_eq!(support::wait_keys(&reactor), [3]);
        }
        assert_eq!(notified.try_take(), Some(()));
    }
}

#[test]
fn notifier_that_outlives_its_reactor_is_inert() {
    let reactor = support::reactor();
    let (notifier, notified) = reactor.notifier();
    drop(reactor);
    notifier.notify();
    assert_eq!((notified.try_take(), notified.try_take()), (Some(()), None));
}

/// A foreign channel with `n` messages that were sent before its source was made.
fn with_messages(
    reactor: &Reactor,
    n: u32,
) -> (mpsc::Sender<u32>, pollmux::sources::FnSource<impl Fn() -> Option<u32>>) {
    let (tx, rx) = mpsc::channel();
    (0..n).for_each(|i| tx.send(i).unwrap());
    let (_, notified) = reactor.notifier();
    (tx, notified.with_key(4).receiving(move || rx.try_recv().ok()))
}

#[test]
fn wait_finds_a_message_older_than_its_source() {
    let reactor = support::on(Sim::new());
    let (_tx, source) = with_messages(&reactor, 2);
    for n in 0..2 {
        assert_eq!(support::wait_keys(&reactor), [4]);
        assert_eq!(source.try_take(), Some(n));
    }
    assert_eq!(source.try_take(), None);
    assert_eq!(support::ready_keys(&reactor), []);
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn message_older_than_its_source_makes_fd_readable() {
    use pollmux::sys::{self, Interest, Mode, Poller};
    let reactor = support::reactor();
    let inner = reactor.embed().unwrap();
    let outer = Poller::new().unwrap();
    outer.register(&inner, 0, Interest::READABLE, Mode::Edge).unwrap();
    inner.turn().unwrap();
    let (_tx, source) = with_messages(&reactor, 1);
    outer.wait(&mut sys::PollEvents::with_capacity(1), None).unwrap();
    assert_eq!(inner.turn().unwrap(), 1);
    assert_eq!((source.try_take(), source.try_take()), (Some(0), None));
    assert_eq!(inner.turn().unwrap(), 0);
}

#[test]
fn wait_finds_messages_that_a_select_left() {
    let reactor = support::on(Sim::new());
    let (_tx, source) = with_messages(&reactor, 3);
    let mut events = Events::with_capacity(4);
    select! { reactor; recv(source) -> n => assert_eq!(n, 0) }
    reactor.try_wait(&mut events).unwrap();
    assert_eq!((events.len(), source.try_take()), (1, Some(1)));
    select! { reactor; recv(source) -> n => assert_eq!(n, 2) }
    select! { reactor; recv(source) -> _ => panic!("a fourth message"), default => {} }
    assert_eq!(support::ready_keys(&reactor), []);

    // One notification announces two messages. The closure panics once.
    let (tx, rx) = mpsc::channel();
    let (notifier, notified) = reactor.notifier();
    let panics = std::cell::Cell::new(true);
    let source = notified.receiving(|| {
        assert!(!panics.replace(false), "the closure panics once");
        rx.try_recv().ok()
    });
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    notifier.notify();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.try_take()));
    assert!(caught.is_err());
    for n in [1, 2] {
        reactor.try_wait(&mut events).unwrap();
        assert_eq!((events.len(), source.try_take()), (1, Some(n)));
    }
}

#[test]
fn select_set_never_chooses_empty_foreign_channels() {
    let reactor = support::on(Sim::new());
    let (notifier, notified) = reactor.notifier();
    let (tx, rx) = mpsc::channel();
    let source = notified.receiving(|| rx.try_recv().ok());
    let mut select = Select::new(&reactor);
    select.recv(&source);
    assert!(select.try_wait().unwrap().is_none());
    for n in 0..100 {
        tx.send(n).unwrap();
        notifier.notify();
        assert_eq!(select.wait().unwrap().recv(&source), Some(n));
        assert!(select.try_wait().unwrap().is_none());
    }
    // A chosen case that was not completed keeps its message.
    tx.send(7).unwrap();
    notifier.notify();
    drop(select.wait().unwrap());
    assert_eq!(select.wait().unwrap().recv(&source), Some(7));
    tx.send(8).unwrap();
    notifier.notify();
    drop(select.wait().unwrap());
    select! { reactor; recv(source) -> n => assert_eq!(n, 8) }
    assert!(select.try_wait().unwrap().is_none());
}
