//! Channels, registered ends and reactors drop each of their values once. After Go's collectable
//! timers and the drop tests of crossbeam-channel and std.

use pollmux::channel::{self, RecvError, SendError, TryRecvError};
use pollmux::select;
use support::thread;

use crate::common::{Counted, Drops, LONG, ms, next, poll, reactor, sim};
use crate::support::aside;

/// crossbeam-channel tests/array.rs: drops, for a registered receiver
#[test]
fn dropping_an_inbox_drops_its_messages() {
    let reactor = reactor();
    let drops = Drops::new();
    let (tx, inbox) = reactor.channel(8).unwrap();
    (0..3).for_each(|_| tx.send(drops.message()).unwrap());
    drop(next(&reactor, &inbox));
    assert_eq!(drops.count(), 1);
    drop(inbox);
    assert_eq!(drops.count(), 3);
    assert!(tx.send(drops.message()).is_err());
    assert_eq!(drops.count(), 4);
}

/// crossbeam-channel tests/mpsc.rs: port_gone_concurrent, for a registered receiver
#[test]
fn dropping_an_inbox_returns_values_to_blocked_senders() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let (full_tx, full) = reactor.channel(1).unwrap();
    full_tx.send(0).unwrap();
    let _senders = [tx, full_tx].map(|tx| aside(move || assert_eq!(tx.send(7), Err(SendError(7)))));
    thread::sleep(ms(20));
    drop((inbox, full));
}

/// crossbeam-channel tests/mpsc.rs: smoke_chan_gone, for a registered sender
#[test]
fn dropping_the_last_outbox_disconnects() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<()>(1).unwrap();
    let outbox = reactor.register(tx.clone()).unwrap();
    drop(tx);
    assert_eq!(poll(&reactor, &inbox), None);
    drop(outbox);
    assert_eq!(poll(&reactor, &inbox), Some(Err(RecvError)));
}

/// crossbeam-channel tests/array.rs: drops, for values of send cases
#[test]
fn a_failed_send_case_returns_its_value() {
    let reactor = reactor();
    let drops = Drops::new();
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register(tx).unwrap();
    drop(rx);
    let back = select! { reactor;
        send(outbox, drops.message()) -> sent => sent.unwrap_err().into_inner(),
    };
    assert_eq!(drops.count(), 0);
    drop(back);
    assert_eq!(drops.count(), 1);
}

/// crossbeam-channel tests/list.rs: drops, for ends that change hands
#[test]
fn deregistering_an_end_drops_nothing() {
    let reactor = reactor();
    let drops = Drops::new();
    let (tx, rx) = channel::unbounded();
    let (outbox, inbox) = (reactor.register(tx).unwrap(), reactor.register(rx).unwrap());
    outbox.try_send(drops.message()).unwrap();
    let (tx, rx) = (outbox.into_inner(), inbox.into_inner());
    tx.send(drops.message()).unwrap();
    assert_eq!((rx.len(), drops.count()), (2, 0));
    drop(rx.recv());
    assert_eq!(drops.count(), 1);
    drop(rx);
    assert_eq!(drops.count(), 2);
}

/// Go runtime/chan.go: a channel lives as long as one of its ends, even without its loop
#[test]
fn a_channel_outlives_the_reactor() {
    let reactor = reactor();
    let drops = Drops::new();
    let (tx, inbox) = reactor.channel(4).unwrap();
    tx.send(drops.message()).unwrap();
    drop(reactor);
    tx.send(drops.message()).unwrap();
    assert_eq!(drops.count(), 0);
    assert!(inbox.try_recv().is_ok());
    assert_eq!(drops.count(), 1);
    let rx = inbox.into_inner();
    drop(tx);
    assert!(rx.recv().is_ok());
    assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Disconnected);
    assert_eq!(drops.count(), 2);
}

/// crossbeam-channel tests/array.rs: channel_through_channel, a cycle of ends
#[test]
fn dropping_the_receiver_drops_senders_in_the_channel() {
    struct Letter {
        _sender: Option<channel::Sender<Letter>>,
        _message: Counted,
    }
    let drops = Drops::new();
    let (tx, rx) = channel::unbounded();
    let letter = |sender| Letter { _sender: sender, _message: drops.message() };
    assert!(tx.send(letter(Some(tx.clone()))).is_ok() && tx.send(letter(None)).is_ok());
    drop(tx);
    // The channel is not disconnected: it holds a sender.
    assert!(!rx.is_disconnected());
    drop(rx);
    assert_eq!(drops.count(), 2);
}

/// Go time/tick_test.go: TestTimerGC, TestTickerGC
#[test]
fn a_dropped_timer_or_ticker_never_fires() {
    let (reactor, sim) = sim();
    let before = reactor.stats().live;
    for _ in 0..1_000 {
        drop(reactor.after(ms(5)));
        drop(reactor.every(ms(5)));
        // Also drop a timer that has expired.
        let expired = reactor.after(ms(0));
        assert_eq!(poll(&reactor, &reactor.timer()), None);
        drop(expired);
    }
    assert_eq!(reactor.stats().live, before);
    let expired = reactor.stats().expired;
    let last = reactor.after(LONG);
    next(&reactor, &last);
    assert_eq!(reactor.stats().expired, expired + 1);
    assert_eq!(sim.now(), pollmux::Time::ZERO + LONG);
}
