//! Channels of capacity zero: crossbeam-channel's tests/zero.rs, and Go's rules for unbuffered
//! channels.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pollmux::channel::{self, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use pollmux::sources::BeforeSleep;
use pollmux::{Events, Reactor, Select, Sim, SimWorld, Source, select};
use support::thread;

use crate::common::{Drops, LONG, Random, ms, next, poll, reactor, within};
use crate::flavors::{every_kind, limited};
use crate::support::{aside, later};

every_kind!(Rendezvous);
limited!(Rendezvous);

/// crossbeam-channel tests/zero.rs: smoke
#[test]
fn neither_end_succeeds_alone() {
    let (tx, rx) = channel::bounded(0);
    assert_eq!(tx.try_send(7), Err(TrySendError::Full(7)));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

/// crossbeam-channel tests/zero.rs: len_empty_full
#[test]
fn a_rendezvous_is_always_empty_and_full() {
    let (tx, rx) = channel::bounded(0);
    let look = || {
        assert_eq!((tx.len(), tx.is_empty(), tx.is_full()), (0, true, true));
        assert_eq!((rx.len(), rx.is_empty(), rx.is_full()), (0, true, true));
    };
    look();
    thread::scope(|scope| {
        scope.spawn(|| tx.send(()).unwrap());
        // Also while a sender is blocked.
        thread::sleep(ms(20));
        look();
        rx.recv().unwrap();
    });
    look();
}

/// crossbeam-channel tests/zero.rs: try_recv
#[test]
fn try_recv_takes_from_a_blocked_sender() {
    let (tx, rx) = channel::bounded(0);
    let sender = thread::spawn(move || tx.send(7).unwrap());
    let got = loop {
        match rx.try_recv() {
            Ok(got) => break got,
            Err(error) => assert_eq!(error, TryRecvError::Empty),
        }
        thread::yield_now();
    };
    assert_eq!(got, 7);
    sender.join().unwrap();
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

/// crossbeam-channel tests/zero.rs: try_send
#[test]
fn try_send_gives_to_a_blocked_receiver() {
    let (tx, rx) = channel::bounded(0);
    let receiver = thread::spawn(move || rx.recv());
    while let Err(error) = tx.try_send(7) {
        assert_eq!(error, TrySendError::Full(7));
        thread::yield_now();
    }
    assert_eq!(receiver.join().unwrap(), Ok(7));
    assert_eq!(tx.try_send(8), Err(TrySendError::Disconnected(8)));
}

/// crossbeam-channel tests/zero.rs: send
#[test]
fn send_returns_after_the_value_was_taken() {
    let (tx, rx) = channel::bounded(0);
    let taking = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            tx.send(7).unwrap();
            assert!(taking.load(Ordering::SeqCst), "sent without a receiver");
        });
        thread::sleep(ms(30));
        taking.store(true, Ordering::SeqCst);
        assert_eq!(rx.recv(), Ok(7));
    });
    drop(rx);
    assert_eq!(tx.send(8), Err(SendError(8)));
}

/// crossbeam-channel tests/zero.rs: drops
#[test]
fn every_message_is_dropped_or_returned_once() {
    let mut numbers = Random::new(1);
    for _ in 0..20 {
        let steps = numbers.below(200) as usize;
        let drops = Drops::new();
        let (tx, rx) = channel::bounded(0);
        thread::scope(|scope| {
            scope.spawn(|| (0..steps).for_each(|_| tx.send(drops.message()).unwrap()));
            (0..steps).for_each(|_| drop(rx.recv().unwrap()));
        });
        assert_eq!(drops.count(), steps);
        let refused = tx.try_send(drops.message()).unwrap_err();
        let late = tx.send_timeout(drops.message(), ms(1)).unwrap_err();
        assert_eq!(drops.count(), steps);
        drop((refused, late, rx));
        assert_eq!(drops.count(), steps + 2);
    }
}

/// crossbeam-channel tests/zero.rs: fairness
#[test]
fn two_blocked_senders_are_chosen_equally() {
    const COUNT: usize = 2_000;
    let reactor = reactor();
    let (a_tx, a) = reactor.channel(0).unwrap();
    let (b_tx, b) = reactor.channel(0).unwrap();
    let senders = [a_tx, b_tx].map(|tx| thread::spawn(move || while tx.send(()).is_ok() {}));
    let mut hits = [0; 2];
    for _ in 0..COUNT {
        // Wait until both senders are blocked, so that the select has a choice.
        while !(a.is_ready() && b.is_ready()) {
            thread::yield_now();
        }
        select! { reactor;
            recv(a) -> _ => hits[0] += 1,
            recv(b) -> _ => hits[1] += 1,
        }
    }
    drop((a, b));
    senders.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(hits.iter().all(|&n| n >= COUNT / 4), "{hits:?}");
}

/// crossbeam-channel tests/zero.rs: recv_in_send
#[test]
fn a_send_value_may_wait_for_another_channel() {
    let reactor = reactor();
    let (values_tx, values_rx) = channel::bounded(0);
    let (tx, rx) = channel::bounded(0);
    let outbox = reactor.register(tx).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| values_tx.send(6).unwrap());
        scope.spawn(move || assert_eq!(rx.recv(), Ok(7)));
        select! { reactor;
            send(outbox, values_rx.recv().unwrap() + 1) -> sent => assert!(sent.is_ok()),
        }
    });
}

/// crossbeam-channel tests/zero.rs: recv_in_send, without a receiver
#[test]
fn a_send_value_is_not_evaluated_without_receiver() {
    let reactor = reactor();
    let (tx, _rx) = channel::bounded::<()>(0);
    let outbox = reactor.register(tx).unwrap();
    let evaluated = std::cell::Cell::new(false);
    select! { reactor;
        send(outbox, evaluated.set(true)) -> _ => panic!("sent without a receiver"),
        default(ms(5)) => {}
    }
    assert!(!evaluated.get());
}

/// Go runtime/chan.go: the queue of blocked senders is FIFO
#[test]
fn blocked_senders_are_served_in_order() {
    const SENDERS: usize = 10;
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let mut senders = Vec::new();
    for n in 0..=SENDERS {
        let tx = tx.clone();
        // The sender before this one is blocked by now, so this sender is behind it.
        senders.push(thread::spawn(move || tx.send(n).unwrap()));
        thread::sleep(ms(5));
        if n > 0 {
            assert_eq!(next(&reactor, &inbox), Ok(n - 1));
        }
        while !inbox.is_ready() {
            thread::yield_now();
        }
    }
    assert_eq!(next(&reactor, &inbox), Ok(SENDERS));
    senders.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Go runtime/chan_test.go: TestNonblockRecvRace, for a sender that timed out
#[test]
fn a_withdrawn_offer_is_not_accepted() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    assert!(tx.send_timeout(1, ms(1)).is_err());
    assert_eq!(poll(&reactor, &inbox), None);
    // In the other direction, the select's own offer ends with the select.
    assert_eq!(within(&reactor, &inbox, ms(1)), None);
    assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
}

/// Go language: an unbuffered send ends only when the receiver has the value; here between a thread
/// and a reactor
#[test]
fn reactor_and_thread_meet_in_both_directions() {
    const COUNT: usize = 1_000;
    let reactor = reactor();
    let (there_tx, there_rx) = channel::bounded(0);
    let (back_tx, back) = reactor.channel(0).unwrap();
    let there = reactor.register(there_tx).unwrap();
    let _thread = aside(move || {
        for n in there_rx.iter() {
            back_tx.send(n).unwrap();
        }
    });
    for n in 0..COUNT {
        select! { reactor; send(there, n) -> sent => sent.unwrap() }
        assert_eq!(next(&reactor, &back), Ok(n));
    }
    drop(there);
    assert_eq!(next(&reactor, &back), Err(RecvError));
}

/// Go test/chan/select3.go: an unbuffered send inside a select waits for a receiver
#[test]
fn two_reactors_meet() {
    const COUNT: usize = 1_000;
    let (tx, rx) = channel::bounded(0);
    let sum = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let reactor = reactor();
            let inbox = reactor.register(rx).unwrap();
            while let Ok(n) = next(&reactor, &inbox) {
                sum.fetch_add(n, Ordering::SeqCst);
            }
        });
        let reactor = reactor();
        let outbox = reactor.register(tx).unwrap();
        for n in 0..COUNT {
            select! { reactor; send(outbox, n) -> sent => sent.unwrap() }
            // The receiver came for this value, so it has added all earlier values.
            assert!(sum.load(Ordering::SeqCst) >= n * n.saturating_sub(1) / 2);
        }
    });
    assert_eq!(sum.into_inner(), COUNT * (COUNT - 1) / 2);
}

// A value that is being evaluated blocks neither party. The other party times out, or goes away.

/// Blocks the evaluation of a value until `open` has a message.
struct Gate {
    began: Arc<AtomicBool>,
    open: channel::Sender<()>,
    wait: channel::Receiver<()>,
}

impl Gate {
    fn new() -> Gate {
        let (open, wait) = channel::bounded(1);
        Gate { began: Arc::default(), open, wait }
    }
}

/// Sends `value` by a `select!` whose value is evaluated until the gate opens.
fn send_slowly(tx: channel::Sender<u32>, gate: &mut Gate, value: u32) -> thread::JoinHandle<bool> {
    let (began, (_, unused)) = (gate.began.clone(), channel::bounded(1));
    let wait = std::mem::replace(&mut gate.wait, unused);
    thread::spawn(move || {
        let reactor = reactor();
        let outbox = reactor.register(tx).unwrap();
        let evaluate = || {
            began.store(true, Ordering::SeqCst);
            wait.recv().unwrap();
            value
        };
        select! { reactor; send(outbox, evaluate()) -> sent => sent.is_ok() }
    })
}

#[test]
fn recv_timeout_expires_during_a_values_evaluation() {
    let (tx, rx) = channel::bounded(0);
    let mut gate = Gate::new();
    let sender = send_slowly(tx, &mut gate, 7);
    while !gate.began.load(Ordering::SeqCst) {
        assert_eq!(rx.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    }
    assert_eq!(rx.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    gate.open.send(()).unwrap();
    assert_eq!(rx.recv(), Ok(7));
    assert!(sender.join().unwrap());
    assert_eq!(rx.recv(), Err(RecvError));
}

#[test]
fn a_loop_continues_during_a_values_evaluation() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let mut gate = Gate::new();
    let sender = send_slowly(tx, &mut gate, 7);
    let ticker = reactor.every(ms(1)).unwrap();
    while !gate.began.load(Ordering::SeqCst) {
        assert_eq!(within(&reactor, &inbox, ms(1)), None);
    }
    let posted = Arc::new(AtomicUsize::new(0));
    let (remote, post) = (reactor.remote(), posted.clone());
    thread::spawn(move || {
        assert!(
            remote
                .post(move |_| {
                    post.fetch_add(1, Ordering::SeqCst);
                })
                .is_ok()
        );
    });
    let mut ticks = 0;
    while ticks < 3 || posted.load(Ordering::SeqCst) == 0 {
        select! { reactor; recv(inbox) -> n => panic!("{n:?}"), recv(ticker) -> _ => ticks += 1 }
    }
    assert_eq!(within(&reactor, &inbox, ms(1)), None);
    assert_eq!(poll(&reactor, &inbox), None);
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    assert!(set.wait_timeout(ms(1)).unwrap().is_none());
    gate.open.send(()).unwrap();
    assert_eq!(next(&reactor, &inbox), Ok(7));
    assert!(sender.join().unwrap());
}

#[test]
fn a_value_may_ask_its_receiver() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let remote = reactor.remote();
    let _sender = aside(move || {
        let reactor = crate::common::reactor();
        let outbox = reactor.register(tx).unwrap();
        let ask = || {
            let (answer, answered) = channel::bounded(1);
            assert!(remote.post(move |_| answer.send(6).unwrap()).is_ok());
            answered.recv().unwrap() + 1
        };
        select! { reactor; send(outbox, ask()) -> sent => sent.unwrap() }
    });
    assert_eq!(next(&reactor, &inbox), Ok(7));
}

#[test]
fn a_receiver_dropped_during_evaluation_returns_the_value() {
    let drops = Drops::new();
    let (tx, rx) = channel::bounded(0);
    let evaluating = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let rx = rx;
            while !evaluating.load(Ordering::SeqCst) {
                assert!(rx.recv_timeout(ms(1)).is_err());
            }
        });
        let reactor = reactor();
        let outbox = reactor.register(tx.clone()).unwrap();
        let evaluate = || {
            evaluating.store(true, Ordering::SeqCst);
            while !tx.is_disconnected() {
                thread::yield_now();
            }
            drops.message()
        };
        let sent = select! { reactor; send(outbox, evaluate()) -> sent => sent };
        assert_eq!(drops.count(), 0);
        assert!(sent.is_err(), "sent to a dropped receiver");
    });
    assert_eq!(drops.count(), 1);
}

#[test]
fn an_unreceived_value_is_dropped_with_its_receiver() {
    let drops = Drops::new();
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let message = drops.message();
    let (evaluating, asked) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let reactor = crate::common::reactor();
            let outbox = reactor.register(tx).unwrap();
            let evaluate = || {
                evaluating.store(true, Ordering::SeqCst);
                while !asked.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                message
            };
            select! { reactor; send(outbox, evaluate()) -> sent => sent.unwrap() }
        });
        // The receiver accepts the offer and does not receive afterwards.
        while !evaluating.load(Ordering::SeqCst) {
            assert!(inbox.try_recv().is_err());
        }
        asked.store(true, Ordering::SeqCst);
    });
    assert_eq!(drops.count(), 0);
    drop(inbox);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_blocked_send_passes_a_values_evaluation() {
    let (tx, rx) = channel::bounded(0);
    let mut gate = Gate::new();
    let slow = send_slowly(tx.clone(), &mut gate, 1);
    while !gate.began.load(Ordering::SeqCst) {
        let _ = rx.recv_timeout(ms(1));
    }
    let fast = thread::spawn(move || tx.send(2).unwrap());
    assert_eq!(rx.recv(), Ok(2));
    fast.join().unwrap();
    gate.open.send(()).unwrap();
    assert_eq!(rx.recv(), Ok(1));
    assert!(slow.join().unwrap());
}

#[test]
fn a_send_case_is_not_starved() {
    let (tx, rx) = channel::bounded(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            let (tx, over) = (tx.clone(), &over);
            scope.spawn(move || while !over.load(Ordering::SeqCst) && tx.send(0).is_ok() {});
        }
        scope.spawn(|| {
            let reactor = reactor();
            let outbox = reactor.register(tx).unwrap();
            select! { reactor; send(outbox, 1) -> sent => sent.unwrap() }
        });
        while rx.recv() != Ok(1) {}
        over.store(true, Ordering::SeqCst);
        while rx.recv().is_ok() {}
    });
}

#[test]
fn a_refused_value_frees_the_receiver() {
    let (tx, rx) = channel::bounded(0);
    let refusing = {
        let tx = tx.clone();
        thread::spawn(move || -> Option<()> {
            let reactor = reactor();
            let outbox = reactor.register(tx).unwrap();
            let nothing: Option<u32> = None;
            select! { reactor; send(outbox, nothing?) -> _ => unreachable!() }
        })
    };
    let _sending = aside(move || {
        let reactor = reactor();
        let outbox = reactor.register(tx).unwrap();
        select! { reactor; send(outbox, 2) -> sent => sent.unwrap() }
    });
    assert_eq!(rx.recv(), Ok(2));
    assert_eq!(rx.recv(), Err(RecvError));
    assert_eq!(refusing.join().unwrap(), None);
}

#[test]
fn a_chosen_receive_case_has_its_value() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let mut set = Select::new(&reactor);
    let at = set.recv(&inbox);
    let received = loop {
        let tx = tx.clone();
        let sender = thread::spawn(move || tx.send_timeout(7, ms(100)).is_ok());
        // The sender offers already, so that the set makes the choice.
        while !inbox.is_ready() && !sender.is_finished() {
            thread::yield_now();
        }
        let Some(selected) = set.wait_timeout(ms(1)).unwrap() else {
            assert!(!sender.join().unwrap());
            continue;
        };
        assert_eq!(selected.index(), at);
        // If the value was not taken, the sender has timed out by now.
        assert!(sender.join().unwrap());
        break selected.recv(&inbox);
    };
    assert_eq!(received, Some(Ok(7)));
}

#[test]
fn a_forgotten_receive_case_loses_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    let _senders = [1, 2, 3].map(|n| {
        let tx = tx.clone();
        aside(move || tx.send(n).unwrap())
    });
    std::mem::forget(set.wait().unwrap());
    drop(set.wait().unwrap());
    let mut received = vec![set.wait().unwrap().recv(&inbox).unwrap().unwrap()];
    // The set that held this value is dropped, so any other receive finds the value.
    std::mem::forget(set.wait().unwrap());
    drop(set);
    assert!(inbox.is_ready());
    received.push(inbox.try_recv().unwrap());
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    drop(set.wait().unwrap());
    drop(set);
    let bare = inbox.into_inner();
    received.push(bare.try_recv().unwrap());
    received.sort_unstable();
    assert_eq!(received, [1, 2, 3]);
}

#[test]
fn a_wait_finds_a_held_value() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    let sender = thread::spawn(move || tx.send(1).unwrap());
    std::mem::forget(set.wait().unwrap());
    sender.join().unwrap();
    let mut events = Events::with_capacity(1);
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.iter().count(), 1);
    assert_eq!(inbox.try_recv(), Ok(1));
}

#[test]
fn a_forgotten_send_case_binds_no_receiver() {
    let (tx, rx) = channel::bounded(0);
    let (done_tx, done) = channel::bounded(1);
    let receiver = thread::spawn(move || {
        let mut received = Vec::new();
        while received.len() < 2 {
            if let Ok(n) = rx.recv_timeout(ms(1)) {
                received.push(n);
            }
            let _ = done_tx.try_send(());
        }
        received
    });
    let reactor = reactor();
    let outbox = reactor.register(tx.clone()).unwrap();
    let mut set = Select::new(&reactor);
    set.send(&outbox);
    std::mem::forget(set.wait().unwrap());
    // The receiver's timeouts still expire.
    (0..3).for_each(|_| done.recv().unwrap());
    // The next wait gets the permit back. After the set's drop the channel has it.
    assert!(set.wait().unwrap().send(&outbox, 1).is_ok());
    std::mem::forget(set.wait().unwrap());
    drop(set);
    while tx.try_send(2).is_err() {
        thread::yield_now();
    }
    assert_eq!(receiver.join().unwrap(), [1, 2]);
}

#[test]
fn try_send_meets_a_receiver_in_wait() {
    let (reactor, (tx, rx)) = (reactor(), channel::bounded(0));
    let (other, other_inbox) = reactor.channel::<u32>(1).unwrap();
    let inbox = reactor.register_with(1, rx).unwrap();
    let sender = thread::spawn(move || {
        while let Err(TrySendError::Full(_)) = tx.try_send(7) {
            thread::sleep(Duration::from_micros(50));
        }
        tx
    });
    let mut events = Events::with_capacity(4);
    reactor.wait_timeout(&mut events, LONG).unwrap();
    assert_eq!(events.iter().map(|event| event.key()).collect::<Vec<_>>(), [1]);
    assert_eq!(inbox.try_recv(), Ok(7));
    let tx = sender.join().unwrap();
    // After a wait, or in a `select!` on another channel, the receiver does not offer.
    assert_eq!(tx.try_send(8), Err(TrySendError::Full(8)));
    reactor.wait_timeout(&mut events, ms(1)).unwrap();
    assert_eq!(tx.try_send(8), Err(TrySendError::Full(8)));
    reactor.try_wait(&mut events).unwrap();
    let _asks = later(ms(5), move || {
        assert_eq!(tx.try_send(8), Err(TrySendError::Full(8)));
        other.send(9).unwrap();
    });
    assert_eq!(next(&reactor, &other_inbox), Ok(9));
}

#[test]
fn a_send_case_meets_a_receiver_in_wait() {
    let (reactor, (tx, rx)) = (reactor(), channel::bounded(0));
    let inbox = reactor.register(rx).unwrap();
    let _sender = aside(move || {
        let reactor = crate::common::reactor();
        let outbox = reactor.register(tx).unwrap();
        select! { reactor; send(outbox, 7) -> sent => sent.unwrap() }
    });
    let mut events = Events::with_capacity(4);
    loop {
        reactor.wait(&mut events).unwrap();
        match inbox.try_recv() {
            Ok(n) => break assert_eq!(n, 7),
            Err(error) => assert_eq!(error, TryRecvError::Empty),
        }
    }
}

#[test]
#[cfg_attr(flat, ignore = "a kqueue cannot be nested here")]
fn try_send_meets_an_embedded_receiver_between_turns() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let embedded = reactor.embed().unwrap();
    assert_eq!(tx.try_send(1), Ok(()));
    assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!(embedded.turn().unwrap(), 1);
    assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!(inbox.try_recv(), Ok(1));
    embedded.turn().unwrap();
    assert_eq!(tx.try_send(2), Ok(()));
    drop(embedded);
    assert_eq!(poll(&reactor, &inbox), Some(Ok(2)));
    assert_eq!(tx.try_send(3), Err(TrySendError::Full(3)));
}

#[test]
fn a_simulated_receiver_continues_during_evaluation() {
    let mut world = SimWorld::new(1);
    let (tx, rx) = channel::bounded(0);
    world.spawn("sender", move |reactor: pollmux::Reactor| -> std::io::Result<()> {
        let out = reactor.register(tx)?;
        let wait = || -> std::io::Result<u32> {
            reactor.sleep_blocking(ms(100))?;
            Ok(1)
        };
        select! { reactor; send(out, wait()?) -> sent => assert!(sent.is_ok()) }
        Ok(())
    });
    let receiver = world.spawn("receiver", move |reactor: pollmux::Reactor| {
        let inbox = reactor.register(rx).unwrap();
        let mut timeouts = 0;
        while within(&reactor, &inbox, ms(10)).is_none() {
            timeouts += 1;
        }
        timeouts
    });
    world.run().unwrap();
    assert!(receiver.take().unwrap() >= 9);
}

/// A source that is never ready. Each `is_ready` takes longer than any timeout here. `before_sleep`
/// runs the other party while the select offers.
struct Slow<'a>(Sim, &'a dyn Fn());

impl Source for Slow<'_> {
    type Item = ();

    fn is_ready(&self) -> bool {
        self.0.advance(ms(1));
        false
    }

    fn try_take(&self) -> Option<()> {
        None
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        (self.1)();
        Ok(())
    }
}

/// Go parks even for a timeout that expires at once. Otherwise two parties would never meet.
#[test]
fn a_very_short_timeout_still_offers_once() {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone()).unwrap();
    let (tx, rx) = channel::bounded(0);
    let outbox = reactor.register(tx).unwrap();
    let asks = || assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    let slow = Slow(sim.clone(), &asks);
    select! { reactor;
        send(outbox, 1) -> sent => sent.unwrap(),
        recv(slow) -> _ => unreachable!(),
        default(ms(1)) => panic!("no offer"),
    }
    assert_eq!(rx.try_recv(), Ok(1));
    let mut set = Select::new(&reactor);
    let case = set.send(&outbox);
    set.recv(&slow);
    let chosen = set.wait_timeout(ms(1)).unwrap().expect("no offer");
    assert_eq!(chosen.index(), case);
    chosen.send(&outbox, 2).unwrap();
    assert_eq!(rx.try_recv(), Ok(2));

    let (tx, rx) = channel::bounded(0);
    let inbox = reactor.register(rx).unwrap();
    let sends = || tx.try_send(3).unwrap();
    let slow = Slow(sim, &sends);
    select! { reactor;
        recv(inbox) -> got => assert_eq!(got, Ok(3)),
        recv(slow) -> _ => unreachable!(),
        default(ms(1)) => panic!("no offer"),
    }
}

#[test]
fn a_bare_receiver_offers_for_any_timeout() {
    let (tx, rx) = channel::bounded(0);
    thread::scope(|scope| {
        scope.spawn(|| while tx.try_send(()).is_err() {});
        while rx.recv_timeout(Duration::from_nanos(1)).is_err() {}
    });
}
