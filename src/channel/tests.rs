//! Tests of buffered channels, below their public interface.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use proptest::prelude::*;

use super::head::Head;
use super::state::{LEVEL, POSITION};
use super::tail::{Standing, Tail};
use super::{Glance, Nap, Target, bounded, ends, unbounded};
use crate::sys::Time;
use crate::wake::testing::party;
use crate::wake::{Notify, Probe, Request};

/// A message so large that a ring of 128 slots may shrink.
type Large = [u64; 64];

#[derive(Clone, Debug)]
enum Op {
    Send(u64),
    Receive(u64),
    /// A sender claims a position, and is stalled.
    Begin,
    /// The nth sender that is stalled goes on.
    Finish(usize),
    /// ms
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..12_u64).prop_map(Op::Send),
        2 => (0..700_u64).prop_map(Op::Send),
        4 => (0..12_u64).prop_map(Op::Receive),
        3 => (0..900_u64).prop_map(Op::Receive),
        1 => Just(Op::Begin),
        2 => any::<usize>().prop_map(Op::Finish),
        3 => (0..1_500_u64).prop_map(Op::Advance),
    ]
}

/// A channel on a clock, and a model of its messages.
struct Pair {
    tail: Tail<Large>,
    head: Head<Large>,
    clock: Arc<AtomicU64>,
    /// Its first position.
    start: u64,
    /// Written messages that were not received, by their positions, counted from the first.
    written: BTreeMap<u64, u64>,
    standing: Vec<(Standing<Large>, u64)>,
    next: u64,
    /// The number of times that the tail went to a smaller ring.
    shrinks: usize,
}

impl Pair {
    fn new(start: u64) -> Pair {
        let (tail, head) = ends(None);
        let state = head.state();
        for position in [&state.front.tail, &state.front.head_seen, &state.back.head] {
            position.store(start, Ordering::Relaxed);
        }
        let clock = Arc::new(AtomicU64::new(0));
        let read = clock.clone();
        let now = move || Time::from_nanos(read.load(Ordering::Relaxed));
        head.state().follow(Some(Box::new(now)));
        let (written, standing) = (BTreeMap::new(), Vec::new());
        Pair { tail, head, clock, start, written, standing, next: 0, shrinks: 0 }
    }

    fn ring(&self) -> usize {
        self.head.state().claimed().1 & LEVEL
    }

    fn apply(&mut self, op: Op) {
        let before = self.ring();
        match op {
            Op::Send(n) => {
                for _ in 0..n {
                    assert!(self.tail.try_send([self.next; 64]).is_ok());
                    self.written.insert(self.next, self.next);
                    self.next += 1;
                    self.shrinks += usize::from(self.ring() < before);
                }
            }
            Op::Receive(n) => (0..n).for_each(|_| self.receive()),
            Op::Begin => {
                let place = self.tail.begin();
                assert_eq!(place.position(), (self.start + self.next) & POSITION);
                self.standing.push((place, self.next));
                self.next += 1;
            }
            Op::Finish(n) if !self.standing.is_empty() => {
                let (place, value) = self.standing.swap_remove(n % self.standing.len());
                self.written.insert(value, value);
                place.finish([value; 64]);
            }
            Op::Finish(_) => {}
            Op::Advance(ms) => {
                self.clock.fetch_add(ms * 1_000_000, Ordering::Relaxed);
            }
        }
        self.shrinks += usize::from(self.ring() < before);
    }

    fn receive(&mut self) {
        let expected = self.written.pop_first().map(|(_, value)| value);
        let received = self.head.try_recv().ok();
        assert!(received.is_none_or(|value| value.iter().all(|&part| part == value[0])));
        assert_eq!(received.map(|value| value[0]), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_channel_that_shrinks_behaves_like_a_queue(
        // The first position: the positions may begin again at zero.
        start in prop_oneof![Just(0), POSITION - 1_000..=POSITION],
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut pair = Pair::new(start);
        ops.into_iter().for_each(|op| pair.apply(op));
        while !pair.standing.is_empty() {
            pair.apply(Op::Finish(0));
        }
        // Now the ring shrinks for sure.
        pair.apply(Op::Send(700));
        pair.apply(Op::Receive(2_000_000_u64.min(pair.written.len() as u64 + 1)));
        // The three looks: at the use of the last second, at the use since then, and at the ring.
        for _ in 0..3 {
            pair.apply(Op::Advance(1_000));
            pair.apply(Op::Receive(1));
        }
        prop_assert!(pair.shrinks > 0);
        prop_assert_eq!(pair.ring(), 1, "64 slots of 520 bytes are kept");
        prop_assert_eq!(pair.head.state().rings().count(), 1);
    }
}

#[test]
fn a_ring_shrinks_beside_a_stalled_sender() {
    let mut pair = Pair::new(0);
    pair.apply(Op::Send(600));
    pair.apply(Op::Receive(600));
    pair.apply(Op::Begin);
    // The channel always has a message, so only senders see how full it is.
    pair.apply(Op::Send(3));
    for _ in 0..40 {
        pair.apply(Op::Send(20));
        pair.apply(Op::Receive(20));
        pair.apply(Op::Advance(100));
        if pair.shrinks > 0 {
            break;
        }
    }
    // The sender holds the slots behind its message, so those slots count as used.
    pair.apply(Op::Finish(0));
    for _ in 0..60 {
        pair.apply(Op::Receive(20));
        pair.apply(Op::Send(20));
        pair.apply(Op::Advance(100));
    }
    assert!(pair.shrinks > 0);
    let left = pair.written.len() as u64;
    pair.apply(Op::Receive(left + 1));
    assert!(!pair.head.state().rings().is_large());
}

#[test]
fn a_glance_sees_only_the_next_message() {
    for (tx, rx) in [bounded::<u32>(4), unbounded()] {
        let glance = || rx.glance(None);
        assert_eq!(glance(), Glance::DOUBT);
        let standing = tx.tail().begin();
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        assert_eq!(glance(), Glance::DOUBT, "a message out of turn");
        assert_eq!(rx.try_recv(), Ok(1));
        assert_eq!(glance(), Glance::sure(true), "a detour needs the tail");
        assert_eq!(rx.try_recv(), Ok(2));
        assert_eq!(glance(), Glance::sure(false));
        standing.finish(3);
        assert_eq!(glance(), Glance::sure(true));
        assert_eq!(rx.try_recv(), Ok(3));
        drop(tx);
        assert_eq!((glance(), rx.is_ready(None)), (Glance::DOUBT, true), "the end");
    }
}

#[test]
fn a_sleep_with_nothing_coming_is_no_nap() {
    let (_tx, rx) = bounded::<u32>(1);
    let mut nap = Nap::default();
    rx.sleep(rx.state(), Some(Instant::now()), &mut nap);
    assert_eq!(nap.next(), Nap::default().next());
}

#[test]
fn an_unfinished_message_is_not_received() {
    for (tx, rx) in [bounded::<u32>(4), unbounded()] {
        let _standing = tx.tail().begin();
        assert_eq!((rx.len(), rx.is_empty(), tx.is_empty()), (1, true, false));
        tx.send(7).unwrap();
        assert_eq!((rx.len(), rx.is_empty()), (2, false));
        assert_eq!(rx.try_recv(), Ok(7));
        assert!(rx.is_empty() && rx.try_recv().is_err());
    }
    let (tx, rx) = bounded::<u32>(4);
    drop(tx);
    assert!(rx.is_empty(), "an end is no message");
}

#[test]
fn a_late_answer_leaves_a_newer_request() {
    let (_tx, rx) = ends::<u64>(Some(1));
    let state = rx.state();
    let [old, new] = [party().0, party().0];
    [&old, &new].into_iter().for_each(|party| party.prepare(0));
    let to = |notify: &Arc<Notify>| Some(Target { notify: notify.clone(), slot: 0 });
    state.set_target(to(&old));
    state.ask(Request::Mark);
    let asked = state.asked();
    // The sender is stalled here, and the receiver moves to another party.
    state.set_target(None);
    state.set_target(to(&new));
    state.ask(Request::Wake);
    old.answer(asked, &state.request, 0);
    assert!(state.asked().is_some());
}
