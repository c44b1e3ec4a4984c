//! The loom models of several sources at one context. `channel/models.rs` says how to run them.

use std::sync::atomic::Ordering::Relaxed;

use loom::thread;

use super::Context;
use crate::reactor::Events;
use crate::reactor::models::reactor;

/// Mutation: a cancellation rings the bells one after the other. Each ring wakes the reactor.
#[test]
fn one_cancellation_wakes_a_reactor_once() {
    loom::model(|| {
        let (context, canceller) = Context::background().with_cancel();
        let (reactor, bed) = reactor();
        let sources = [0, 1].map(|key| reactor.done(&context).with_key(key));
        let there = thread::spawn(move || canceller.cancel());
        let mut events = Events::with_capacity(2);
        reactor.wait(&mut events).unwrap();
        assert!(bed.wakes.load(Relaxed) <= 1, "one wake-up");
        // A woken wait finds both sources.
        assert!(events.len() == 2 || bed.wakes.load(Relaxed) == 0, "{}", events.len());
        assert!(there.join().unwrap());
        drop(sources);
    });
}
