//! The loom models of sources in a real reactor, which waits for their marks. `channel/models.rs`
//! says how to run them.

use std::sync::Arc;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::{Outbox, Source};
use crate::channel::{self, Permit, Receiver, TrySendError, Waiting};
use crate::reactor::models::reactor;
use crate::reactor::{Events, Handle};
use crate::sync::{Fences, Ordering, with_fences};
use crate::wake::models::{models, party, spawn};

/// Waits until `take` has taken `n` items from the reported sources.
fn take_all(reactor: &Handle, mut n: usize, mut take: impl FnMut(u64) -> usize) {
    let mut events = Events::with_capacity(4);
    while n > 0 {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            n -= take(event.key());
        }
    }
}

/// Sends values through an outbox with key 7. While the channel is full, waits for room.
fn send_all(reactor: &Handle, outbox: &Outbox<u32>, values: &[u32]) {
    let mut events = Events::with_capacity(1);
    for &value in values {
        while let Err(TrySendError::Full(_)) = outbox.try_send(value) {
            reactor.wait(&mut events).unwrap();
            assert!(events.iter().map(|event| event.key()).eq([7]));
        }
    }
}

fn an_outbox_against_a_receive() {
    let (reactor, _) = reactor();
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register_with(7, tx).unwrap();
    send_all(&reactor, &outbox, &[0]);
    let receiver = thread::spawn(move || {
        assert_eq!(rx.try_recv(), Ok(0));
        rx
    });
    send_all(&reactor, &outbox, &[1]);
    assert_eq!(receiver.join().unwrap().try_recv(), Ok(1));
}

/// Mutation: no `heavy_fence` in `RoomRequest::enter`.
#[test]
fn asymmetric_fences_report_room_to_an_outbox() {
    with_fences(Fences::Asymmetric, an_outbox_against_a_receive);
}

#[test]
fn symmetric_fences_report_room_to_an_outbox() {
    with_fences(Fences::Symmetric, an_outbox_against_a_receive);
}

models! {
    fn the_receivers_drop_ends_an_outboxs_wait() {
        let (reactor, _) = reactor();
        let (tx, rx) = channel::bounded(1);
        let outbox = reactor.register_with(7, tx).unwrap();
        send_all(&reactor, &outbox, &[0]);
        let _receiver = spawn(move || drop(rx));
        send_all(&reactor, &outbox, &[1]);
        assert!(outbox.sender().is_disconnected());
    }

    /// A thread may take the bell out of the list, and ring it after the outbox has asked again.
    ///
    /// Mutation: `RoomRequest::ask_and_look` does not hear the bell.
    fn a_late_ring_loses_no_room() {
        let (reactor, _) = reactor();
        let (tx, rx) = channel::bounded(2);
        let other = tx.clone();
        let _ = other.try_permit(&party().0, Waiting::Nothing).unwrap().keep();
        let outbox = reactor.register_with(7, tx).unwrap();
        send_all(&reactor, &outbox, &[0]);
        let _permit = spawn(move || drop(Permit::kept(&other, false)));
        let receiver = thread::spawn(move || {
            assert_eq!(rx.try_recv(), Ok(0));
            rx
        });
        send_all(&reactor, &outbox, &[1, 2]);
        assert!(receiver.join().unwrap().try_iter().eq([1, 2]));
    }

    fn a_dropped_outbox_withdraws_its_request() {
        let (reactor, _) = reactor();
        let (tx, rx) = channel::bounded(1);
        let kept = tx.clone();
        let outbox = reactor.register_with(7, tx).unwrap();
        send_all(&reactor, &outbox, &[0]);
        assert!(outbox.try_send(1).is_err());
        let receiver = spawn(move || rx.try_recv());
        drop(outbox);
        // Another source has the slot now.
        let (notifier, notified) = reactor.notifier();
        let notified = notified.with_key(0);
        notifier.notify();
        take_all(&reactor, 1, |_| notified.try_take().into_iter().count());
        assert_eq!(receiver.join().unwrap(), Ok(0));
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        assert!(reactor.sources().iter().all(|info| !info.ready));
        drop(kept);
    }

    fn a_wait_names_each_of_two_channels() {
        let (reactor, _) = reactor();
        let ((tx_a, rx_a), (tx_b, rx_b)) = (channel::bounded(1), channel::bounded(1));
        let register = |key, rx: Receiver<u32>| reactor.register_with(key, rx).unwrap();
        let inboxes = [register(0, rx_a), register(1, rx_b)];
        // These senders stay until the end, so that only the messages make marks.
        let _kept = (tx_a.clone(), tx_b.clone());
        let _senders = [tx_a, tx_b].map(|tx| spawn(move || tx.try_send(1).unwrap()));
        take_all(&reactor, 2, |key| inboxes[key as usize].try_recv().into_iter().count());
    }

    fn a_wait_names_each_of_two_notifiers() {
        let (reactor, _) = reactor();
        let done = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let both = [0, 1].map(|key| {
            let (notifier, notified) = reactor.notifier();
            (notifier, notified.with_key(key))
        });
        let (notifiers, bells): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        let ringers: Vec<_> = notifiers
            .into_iter()
            .zip(done.clone())
            .map(|(notifier, done)| {
                thread::spawn(move || {
                    done.store(1, Ordering::Relaxed);
                    notifier.notify();
                    notifier
                })
            })
            .collect();
        take_all(&reactor, 2, |key| {
            let heard = bells[key as usize].try_take().is_some();
            assert!(!heard || done[key as usize].load(Ordering::Relaxed) == 1);
            usize::from(heard)
        });
        let notifiers = ringers.into_iter().map(|ringer| ringer.join().unwrap());
        drop(notifiers.collect::<Vec<_>>());
    }

    /// An inbox moves from one reactor to another, while a sender may still wake the first.
    fn a_moved_inbox_is_reported_by_its_new_reactor() {
        let ((first, _), (second, _)) = (reactor(), reactor());
        let (tx, rx) = channel::bounded(1);
        let kept = tx.clone();
        let inbox = first.register(rx).unwrap();
        first.try_wait(&mut Events::with_capacity(1)).unwrap();
        let sender = thread::spawn(move || tx.try_send(1).unwrap());
        let inbox = second.register_with(0, inbox.into_inner()).unwrap();
        take_all(&second, 1, |_| inbox.try_recv().into_iter().count());
        sender.join().unwrap();
        drop(kept);
    }
}
