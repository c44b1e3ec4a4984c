//! The loom models of sources at the real reactor, which waits for them by their marks.
//! `channel/models.rs` says how to run them.

use std::sync::Arc;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::Source;
use crate::channel::{self, Receiver};
use crate::reactor::models::reactor;
use crate::reactor::{Events, Handle};
use crate::sync::Ordering;
use crate::wake::models::{models, spawn};

/// Waits until `take` has taken `n` items, of the sources that a wait has named.
fn take_all(reactor: &Handle, mut n: usize, mut take: impl FnMut(u64) -> usize) {
    let mut events = Events::with_capacity(4);
    while n > 0 {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            n -= take(event.key());
        }
    }
}

models! {
    fn a_wait_names_each_of_two_channels() {
        let (reactor, _) = reactor();
        let ((tx_a, rx_a), (tx_b, rx_b)) = (channel::bounded(1), channel::bounded(1));
        let register = |key, rx: Receiver<u32>| reactor.register_with(key, rx).unwrap();
        let inboxes = [register(0, rx_a), register(1, rx_b)];
        // Kept to the end, so that there is no news but the messages.
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

    /// An inbox is taken back from one reactor and registered with another one, while a sender may
    /// still tell the first.
    fn an_inbox_that_moves_to_another_reactor_is_told_there() {
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
