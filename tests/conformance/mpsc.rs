//! Many senders, one receiver: std's mpsc tests, as crossbeam-channel's tests/mpsc.rs has them.
//!
//! Tests whose behaviour is in a file of one kind of channel are not repeated here: smoke,
//! smoke_threads, smoke_port_gone, smoke_chan_gone, chan_gone_concurrent, stress,
//! send_from_outside_runtime, oneshot_single_thread_recv_chan_close, oneshot_single_thread_try_*,
//! oneshot_multi_task_recv_then_send, recv_timeout, stress_recv_timeout_two_threads, sync send1,
//! send2, send4, sync try_send1 to try_send3.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pollmux::channel::{
    self, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError,
};
use pollmux::select;
use support::thread;

use crate::common::{Drops, LONG, ms, next, poll, reactor};
use crate::support::{aside, later};

// Clones of senders.

/// crossbeam-channel tests/mpsc.rs: smoke_shared
#[test]
fn a_clone_sends_to_the_same_channel() {
    let (tx, rx) = channel::unbounded();
    tx.send(1).unwrap();
    assert_eq!(rx.recv(), Ok(1));
    tx.clone().send(2).unwrap();
    assert_eq!(rx.recv(), Ok(2));
    tx.send(3).unwrap();
    assert_eq!(rx.recv(), Ok(3));
}

/// crossbeam-channel tests/mpsc.rs: drop_full
#[test]
fn dropping_the_channel_drops_its_message() {
    let drops = Drops::new();
    let (tx, rx) = channel::unbounded();
    tx.send(drops.message()).unwrap();
    // Here the receiver is dropped last. In the next test the sender is dropped last.
    drop(tx);
    assert_eq!(drops.count(), 0);
    drop(rx);
    assert_eq!(drops.count(), 1);
}

/// crossbeam-channel tests/mpsc.rs: drop_full_shared
#[test]
fn dropping_the_receiver_drops_messages_despite_live_senders() {
    let drops = Drops::new();
    let (tx, rx) = channel::unbounded();
    let other = tx.clone();
    drop(tx);
    other.send(drops.message()).unwrap();
    drop(rx);
    assert_eq!(drops.count(), 1);
    drop(other);
    assert_eq!(drops.count(), 1);
}

/// crossbeam-channel tests/mpsc.rs: smoke_shared_port_gone
#[test]
fn every_clone_notices_the_dropped_receiver() {
    let (tx, rx) = channel::unbounded();
    let before = tx.clone();
    drop(rx);
    // Also a clone that is made afterwards (smoke_shared_port_gone2).
    let after = tx.clone();
    for tx in [tx, before, after] {
        assert_eq!(tx.send(1), Err(SendError(1)));
        assert!(tx.is_disconnected());
    }
}

/// crossbeam-channel tests/mpsc.rs: port_gone_concurrent
#[test]
fn dropping_the_receiver_stops_a_sender_loop() {
    let (tx, rx) = channel::bounded(4);
    let receiver = thread::spawn(move || rx.recv().unwrap());
    while tx.send(1).is_ok() {}
    assert_eq!(receiver.join().unwrap(), 1);
}

/// crossbeam-channel tests/mpsc.rs: port_gone_concurrent_shared
#[test]
fn dropping_the_receiver_stops_two_sender_loops() {
    let (tx, rx) = channel::bounded(0);
    let _senders = [tx.clone(), tx].map(|tx| aside(move || while tx.send(1).is_ok() {}));
    assert_eq!((rx.recv(), rx.recv()), (Ok(1), Ok(1)));
    drop(rx);
}

/// crossbeam-channel tests/mpsc.rs: smoke_chan_gone_shared
#[test]
fn only_the_last_clone_disconnects() {
    let (tx, rx) = channel::unbounded::<()>();
    let clones: Vec<_> = (0..5).map(|_| tx.clone()).collect();
    drop(tx);
    for clone in clones {
        assert!(!rx.is_disconnected());
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        drop(clone);
    }
    assert!(rx.is_disconnected());
    assert_eq!(rx.recv(), Err(RecvError));
}

/// crossbeam-channel tests/mpsc.rs: stress_shared
#[test]
fn clones_on_many_threads_deliver_every_message() {
    const COUNT: usize = 200;
    const THREADS: usize = 16;
    let (tx, rx) = channel::unbounded();
    let _receiver = aside(move || {
        (0..COUNT * THREADS).for_each(|_| assert_eq!(rx.recv(), Ok(1)));
        // No message is left.
        assert_eq!(rx.recv(), Err(RecvError));
    });
    for _ in 0..THREADS {
        let tx = tx.clone();
        thread::spawn(move || (0..COUNT).for_each(|_| tx.send(1).unwrap()));
    }
    drop(tx);
}

/// crossbeam-channel tests/mpsc.rs: shared_chan_stress
#[test]
fn clones_made_during_receives_deliver_every_message() {
    const DEPTH: usize = 8;
    fn grow(tx: channel::Sender<usize>, depth: usize) {
        tx.send(depth).unwrap();
        if depth < DEPTH {
            for _ in 0..2 {
                let tx = tx.clone();
                // Near the root each second branch has a thread of its own, so that clones and
                // drops race.
                if depth < 3 {
                    drop(thread::spawn(move || grow(tx, depth + 1)))
                } else {
                    grow(tx, depth + 1)
                }
            }
        }
    }
    let (tx, rx) = channel::bounded(3);
    thread::spawn(move || grow(tx, 1));
    assert_eq!(rx.iter().count(), (1 << DEPTH) - 1);
}

/// crossbeam-channel tests/mpsc.rs: destroy_upgraded_shared_port_when_sender_still_active
#[test]
fn a_receiver_may_be_dropped_while_clones_live() {
    let (tx, rx) = channel::unbounded::<()>();
    let (done_tx, done_rx) = channel::unbounded();
    let _receiver = aside(move || {
        rx.recv().unwrap();
        drop(rx);
        done_tx.send(()).unwrap();
    });
    let other = tx.clone();
    tx.send(()).unwrap();
    done_rx.recv().unwrap();
    assert_eq!(
        (tx.send(()), other.send(()), other.clone().send(())),
        (Err(SendError(())), Err(SendError(())), Err(SendError(())))
    );
}

// Channels for one message.

/// crossbeam-channel tests/mpsc.rs: oneshot_single_thread_close_port_first,
/// oneshot_single_thread_close_chan_first
#[test]
fn dropping_either_end_disconnects_an_unused_channel() {
    let (tx, rx) = channel::bounded::<Box<i32>>(1);
    assert!(!tx.is_disconnected());
    drop(rx);
    assert!(tx.is_disconnected());
    let (tx, rx) = channel::bounded::<Box<i32>>(1);
    assert!(!rx.is_disconnected());
    drop(tx);
    assert!(rx.is_disconnected());
}

/// crossbeam-channel tests/mpsc.rs: oneshot_single_thread_send_port_close
#[test]
fn a_failed_send_returns_its_message() {
    let drops = Drops::new();
    let (tx, rx) = channel::bounded(1);
    drop(rx);
    let SendError(message) = tx.send(drops.message()).unwrap_err();
    assert_eq!(drops.count(), 0);
    drop(message);
    assert_eq!(drops.count(), 1);
}

/// crossbeam-channel tests/mpsc.rs: oneshot_single_thread_send_then_recv
#[test]
fn a_box_arrives_at_the_same_address() {
    let (tx, rx) = channel::bounded(1);
    let message = Box::new(10);
    let address = &raw const *message;
    tx.send(message).unwrap();
    assert!(std::ptr::eq(&*rx.recv().unwrap(), address));
}

/// crossbeam-channel tests/mpsc.rs: oneshot_single_thread_peek_data
#[test]
fn len_and_is_empty_take_no_message() {
    let (tx, rx) = channel::unbounded();
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    tx.send(10).unwrap();
    for _ in 0..3 {
        assert_eq!((rx.len(), rx.is_empty()), (1, false));
    }
    assert_eq!(rx.try_recv(), Ok(10));
}

/// crossbeam-channel tests/mpsc.rs: oneshot_single_thread_peek_close
#[test]
fn disconnection_is_reported_every_time() {
    let (tx, rx) = channel::unbounded::<()>();
    drop(tx);
    for _ in 0..3 {
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(rx.recv(), Err(RecvError));
        assert_eq!(rx.iter().next(), None);
    }
}

/// crossbeam-channel tests/mpsc.rs: oneshot_multi_task_recv_then_close
#[test]
fn a_blocked_receiver_may_panic_on_disconnection() {
    let (tx, rx) = channel::unbounded::<Box<i32>>();
    let _closer = aside(move || drop(tx));
    let failed = thread::spawn(move || rx.recv().expect("no sender")).join().unwrap_err();
    assert!(failed.downcast_ref::<String>().unwrap().starts_with("no sender"));
}

/// crossbeam-channel tests/mpsc.rs: oneshot_multi_thread_close_stress
#[test]
fn both_ends_may_be_dropped_at_once() {
    for _ in 0..300 {
        let drops = Drops::new();
        let (tx, rx) = channel::bounded(1);
        tx.send(drops.message()).unwrap();
        let receiver = thread::spawn(move || drop(rx));
        drop(tx);
        receiver.join().unwrap();
        assert_eq!(drops.count(), 1);
    }
}

/// crossbeam-channel tests/mpsc.rs: oneshot_multi_thread_send_close_stress
#[test]
fn a_send_racing_the_drop_loses_no_message() {
    for _ in 0..300 {
        let drops = Drops::new();
        let (tx, rx) = channel::unbounded();
        let receiver = thread::spawn(move || drop(rx));
        let result = tx.send(drops.message());
        receiver.join().unwrap();
        assert_eq!(drops.count(), usize::from(result.is_ok()));
        drop(result);
        assert_eq!(drops.count(), 1);
    }
}

/// crossbeam-channel tests/mpsc.rs: oneshot_multi_thread_recv_close_stress
#[test]
fn a_recv_racing_the_last_drop_ends() {
    for _ in 0..300 {
        let (tx, rx) = channel::unbounded::<i32>();
        let receiver = thread::spawn(move || rx.recv());
        drop(tx);
        assert_eq!(receiver.join().unwrap(), Err(RecvError));
    }
}

/// crossbeam-channel tests/mpsc.rs: stream_send_recv_stress
#[test]
fn ends_can_move_from_thread_to_thread() {
    const COUNT: usize = 10;
    fn send(tx: channel::Sender<usize>, n: usize) {
        if n < COUNT {
            thread::spawn(move || {
                tx.send(n).unwrap();
                send(tx, n + 1);
            });
        }
    }
    fn recv(rx: channel::Receiver<usize>, n: usize, done: channel::Sender<()>) {
        if n == COUNT {
            return done.send(()).unwrap();
        }
        thread::spawn(move || {
            assert_eq!(rx.recv(), Ok(n));
            recv(rx, n + 1, done);
        });
    }
    let (done_tx, done) = channel::unbounded();
    for _ in 0..20 {
        let (tx, rx) = channel::unbounded();
        send(tx, 0);
        recv(rx, 0, done_tx.clone());
    }
    drop(done_tx);
    assert_eq!(done.iter().count(), 20);
}

// Timeouts.

/// crossbeam-channel tests/mpsc.rs: oneshot_single_thread_recv_timeout
#[test]
fn recv_timeout_works_repeatedly_on_one_thread() {
    let (tx, rx) = channel::unbounded();
    for n in 0..3 {
        tx.send(n).unwrap();
        assert_eq!(rx.recv_timeout(LONG), Ok(n));
        assert_eq!(rx.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    }
}

/// crossbeam-channel tests/mpsc.rs: recv_timeout_upgrade
#[test]
fn cloning_senders_does_not_shorten_recv_timeout() {
    let (tx, rx) = channel::unbounded::<()>();
    let _other = tx.clone();
    let start = Instant::now();
    let _cloner = aside(move || (0..100).for_each(|_| drop(tx.clone())));
    assert_eq!(rx.recv_timeout(ms(20)), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= ms(20));
}

/// crossbeam-channel tests/mpsc.rs: stress_recv_timeout_shared
#[test]
fn late_senders_and_short_timeouts_lose_nothing() {
    const SENDERS: usize = 50;
    let (tx, rx) = channel::unbounded();
    for n in 0..SENDERS {
        let tx = tx.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_micros(300 * n as u64));
            tx.send(n).unwrap();
        });
    }
    drop(tx);
    let mut seen = [false; SENDERS];
    loop {
        match rx.recv_timeout(ms(1)) {
            Ok(n) => assert!(!std::mem::replace(&mut seen[n], true), "{n} came twice"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    assert_eq!(seen, [true; SENDERS]);
}

/// crossbeam-channel src/channel.rs: a timeout that overflows `Instant` never ends
#[test]
fn a_timeout_of_duration_max_never_expires() {
    let (tx, rx) = channel::bounded(1);
    tx.send(1).unwrap();
    assert_eq!(rx.recv_timeout(Duration::MAX), Ok(1));
    let _sender = later(ms(10), move || {
        tx.send_timeout(2, Duration::MAX).unwrap();
        assert_eq!(tx.send_timeout(3, Duration::MAX), Ok(()));
    });
    assert_eq!(rx.recv_timeout(Duration::MAX), Ok(2));
    assert_eq!(rx.recv_timeout(Duration::MAX), Ok(3));
    assert_eq!(rx.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected));
}

/// crossbeam-channel tests/mpsc.rs: recv_a_lot
#[test]
fn ten_thousand_messages_pass_on_one_thread() {
    let (tx, rx) = channel::bounded(1);
    for n in 0..10_000 {
        tx.send(n).unwrap();
        assert_eq!(rx.recv(), Ok(n));
    }
    assert!(rx.is_empty());
}

/// crossbeam-channel tests/mpsc.rs: try_recv_states
#[test]
fn try_recv_reports_each_state() {
    let (tx, rx) = channel::unbounded();
    let (step_tx, step_rx) = channel::bounded(0);
    let (done_tx, done_rx) = channel::bounded(0);
    let _sender = aside(move || {
        step_rx.recv().unwrap();
        tx.send(1).unwrap();
        done_tx.send(()).unwrap();
        step_rx.recv().unwrap();
        drop(tx);
        done_tx.send(()).unwrap();
    });
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    step_tx.send(()).unwrap();
    done_rx.recv().unwrap();
    assert_eq!(rx.try_recv(), Ok(1));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    step_tx.send(()).unwrap();
    done_rx.recv().unwrap();
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

// Bounded channels (std's sync_channel).

/// crossbeam-channel tests/mpsc.rs: sync send3
#[test]
fn dropping_the_receiver_fails_a_blocked_send() {
    let (tx, rx) = channel::bounded(1);
    assert_eq!(tx.send(1), Ok(()));
    let _receiver = later(ms(10), move || drop(rx));
    assert_eq!(tx.send_timeout(2, LONG), Err(SendTimeoutError::Disconnected(2)));
}

/// crossbeam-channel tests/mpsc.rs: issue_15761
#[test]
fn a_thread_may_answer_with_try_send() {
    for _ in 0..50 {
        let (tx, rx) = channel::bounded(3);
        let (answer_tx, answer_rx) = channel::bounded(3);
        let _worker = aside(move || {
            rx.recv().unwrap();
            answer_tx.try_send(()).unwrap();
        });
        tx.try_send(()).unwrap();
        answer_rx.recv().unwrap();
    }
}

// Select.

/// crossbeam-channel tests/mpsc.rs: select smoke
#[test]
fn select_takes_a_message_or_a_disconnection() {
    let reactor = reactor();
    let (a_tx, a) = reactor.channel(4).unwrap();
    let (b_tx, b) = reactor.channel(4).unwrap();
    let either = || select! { reactor; recv(a) -> n => ('a', n), recv(b) -> n => ('b', n) };
    a_tx.send(1).unwrap();
    assert_eq!(either(), ('a', Ok(1)));
    b_tx.send(2).unwrap();
    assert_eq!(either(), ('b', Ok(2)));
    drop(a_tx);
    assert_eq!(either(), ('a', Err(RecvError)));
    drop(b_tx);
    assert_eq!(next(&reactor, &b), Err(RecvError));
}

/// crossbeam-channel tests/mpsc.rs: select unblocks
#[test]
fn a_message_or_disconnection_wakes_a_select() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let (_quiet_tx, quiet) = reactor.channel::<i32>(4).unwrap();
    let (go_tx, go_rx) = channel::bounded(1);
    let _sender = later(ms(10), move || {
        tx.send(1).unwrap();
        go_rx.recv().unwrap();
        thread::sleep(ms(10));
    });
    let either =
        || select! { reactor; recv(inbox) -> n => n, recv(quiet) -> _ => panic!("not quiet") };
    assert_eq!(either(), Ok(1));
    go_tx.send(()).unwrap();
    assert_eq!(either(), Err(RecvError));
}

/// crossbeam-channel tests/mpsc.rs: select both_ready
#[test]
fn two_ready_channels_give_one_message_each() {
    let reactor = reactor();
    let (a_tx, a) = reactor.channel(4).unwrap();
    let (b_tx, b) = reactor.channel(4).unwrap();
    a_tx.send(1).unwrap();
    b_tx.send(2).unwrap();
    let either = || select! { reactor; recv(a) -> n => n.unwrap(), recv(b) -> n => n.unwrap() };
    assert_eq!(either() + either(), 3);
    assert_eq!((poll(&reactor, &a), poll(&reactor, &b)), (None, None));
}

/// crossbeam-channel tests/mpsc.rs: select stress
#[test]
fn a_select_and_a_thread_alternate() {
    const COUNT: usize = 3_000;
    let reactor = reactor();
    let (even_tx, even) = reactor.channel(4).unwrap();
    let (odd_tx, odd) = reactor.channel(4).unwrap();
    let (step_tx, step_rx) = channel::bounded(0);
    let _sender = aside(move || {
        for n in 0..COUNT {
            if n % 2 == 0 {
                even_tx.send(n).unwrap()
            } else {
                odd_tx.send(n).unwrap()
            }
            step_rx.recv().unwrap();
        }
    });
    for expected in 0..COUNT {
        select! { reactor;
            recv(even) -> n => assert!(n == Ok(expected) && expected % 2 == 0),
            recv(odd) -> n => assert!(n == Ok(expected) && expected % 2 == 1),
        }
        step_tx.send(()).unwrap();
    }
}

/// crossbeam-channel tests/mpsc.rs: select cloning, cloning3
#[test]
fn clones_and_drops_do_not_end_a_select() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let (_quiet_tx, quiet) = reactor.channel::<i32>(4).unwrap();
    let _sender = later(ms(10), move || {
        (0..100).for_each(|_| drop(tx.clone()));
        thread::sleep(ms(10));
        tx.send(2).unwrap();
    });
    select! { reactor;
        recv(inbox) -> n => assert_eq!(n, Ok(2)),
        recv(quiet) -> _ => panic!("the quiet channel was ready"),
    }
}

/// crossbeam-channel tests/mpsc.rs: select preflight1 to preflight6
#[test]
fn messages_sent_before_registration_are_received() {
    let reactor = reactor();
    let (tx, rx) = channel::unbounded();
    drop(tx.clone());
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    let inbox = reactor.register(rx).unwrap();
    assert_eq!(poll(&reactor, &inbox), Some(Ok(1)));
    assert_eq!(poll(&reactor, &inbox), Some(Ok(2)));
    assert_eq!(poll(&reactor, &inbox), None);
}

/// crossbeam-channel tests/mpsc.rs: select preflight7 to preflight9
#[test]
fn a_disconnection_before_registration_is_seen() {
    let reactor = reactor();
    let (tx, rx) = channel::unbounded();
    tx.send(1).unwrap();
    drop(tx);
    assert_eq!(rx.recv(), Ok(1));
    let inbox = reactor.register(rx).unwrap();
    assert_eq!(poll(&reactor, &inbox), Some(Err(RecvError)));
}

/// crossbeam-channel tests/mpsc.rs: select stream_data_waiting
#[test]
fn a_bare_channel_can_be_registered_later() {
    let (tx, rx) = channel::unbounded();
    let (done_tx, done_rx) = channel::unbounded();
    // A blocking `recv` leaves this thread's request for a wake-up behind.
    let first = thread::spawn({
        let tx = tx.clone();
        move || {
            thread::sleep(ms(10));
            tx.send(1).unwrap();
        }
    });
    assert_eq!(rx.recv(), Ok(1));
    first.join().unwrap();
    let _selecting = aside(move || {
        let reactor = reactor();
        let inbox = reactor.register(rx).unwrap();
        assert_eq!(next(&reactor, &inbox), Ok(2));
        done_tx.send(()).unwrap();
    });
    thread::sleep(ms(20));
    tx.send(2).unwrap();
    done_rx.recv().unwrap();
}

/// crossbeam-channel tests/mpsc.rs: select sync3
#[test]
fn one_select_receives_from_rendezvous_and_unbounded_channels() {
    let reactor = reactor();
    let (a_tx, a) = reactor.channel(0).unwrap();
    let (b_tx, b) = channel::unbounded();
    let b = reactor.register(b).unwrap();
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            a_tx.send(1).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        });
        scope.spawn(|| {
            b_tx.send(2).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut got = [0; 2]
            .map(|_| select! { reactor; recv(a) -> n => n.unwrap(), recv(b) -> n => n.unwrap() });
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    });
    assert_eq!(count.into_inner(), 2);
}
