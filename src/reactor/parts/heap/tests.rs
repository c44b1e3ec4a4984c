//! Tests of `mod.rs`.
//!
//! Longer than 500 lines: all tests share one queue and one model.

use super::*;
use proptest::prelude::*;
use std::rc::Rc;

impl Heap {
    /// Panics unless the invariants hold. O(n).
    fn verify<O: Owner>(&self, slots: &Slots<O>) {
        let holes = (0..self.len).filter(|&index| self.get(index).is_hole()).count();
        assert_eq!(holes, self.holes);
        assert!(self.len == 0 || !self.get(self.len - 1).is_hole());
        for index in 0..self.len {
            let entry = self.get(index);
            let mut up = index;
            while up > 0 {
                up = (up - 1) / ARITY;
                let above = self.get(up);
                assert!(!is_before(slots, entry, above), "{entry:?} is below {above:?}");
            }
            self.verify_entry(slots, entry, index as u32);
        }
        self.run.verify();
        let all: Vec<Entry> = self.run.iter().collect();
        for (i, &entry) in all.iter().enumerate() {
            let front = all[..i].iter().rev().take_while(|front| front.key >= entry.key);
            for &front in front {
                assert!(!is_before(slots, entry, front), "{entry:?} is behind {front:?}");
            }
        }
        for (number, entry) in self.run.numbered() {
            self.verify_entry(slots, entry, IN_RUN | number);
        }
    }

    fn verify_entry<O: Owner>(&self, slots: &Slots<O>, entry: Entry, pos: u32) {
        if entry.is_hole() {
            return;
        }
        let node = slots.node(entry.slot());
        let is_there = matches!(node.state.get(), State::Armed | State::Stopped);
        assert!(is_there, "slot {}: {node:?}", entry.slot());
        assert_eq!(node.pos.get(), pos);
        let (deadline, is_stale) = (node.deadline.get(), node.seq.get() & STALE != 0);
        let is_pulled = self.pulled.noted().contains(&entry.slot());
        assert!(deadline >= entry.key || is_pulled, "{entry:?}: {node:?}");
        assert!(deadline == entry.key || is_stale, "{entry:?}: {node:?}");
    }
}

/// Returns true if `a` has to be in front of `b`.
fn is_before<O: Owner>(slots: &Slots<O>, a: Entry, b: Entry) -> bool {
    let seqs = a.seq(slots).zip(b.seq(slots));
    a.key < b.key || (a.key == b.key && seqs.is_some_and(|(a, b)| a < b))
}

struct Queue {
    slots: Slots<()>,
    heap: Heap,
    ready: Ready,
    calls: Ready,
    owner: Rc<()>,
    seq: u64,
}

impl Queue {
    fn new(seq: u64) -> Queue {
        Queue {
            slots: Slots::new(),
            heap: Heap::new(),
            ready: Ready::new(),
            calls: Ready::new(),
            owner: Rc::new(()),
            seq,
        }
    }

    fn create(&mut self) -> u32 {
        self.slots.allocate(&self.owner, Default::default()).1
    }

    fn arm(&mut self, slot: u32, deadline: u64) {
        self.seq += 1;
        let node = self.slots.node(slot);
        if node.state.get() == State::Ready {
            self.ready.remove(&self.slots, slot);
        }
        match node.state.get() {
            State::Armed | State::Stopped => {
                self.heap.rearm(&self.slots, node, slot, deadline, self.seq)
            }
            _ => self.heap.insert(&self.slots, node, slot, deadline, self.seq),
        }
    }

    fn stop(&mut self, slot: u32) {
        match self.slots.node(slot).state.get() {
            State::Armed => self.slots.node(slot).state.set(State::Stopped),
            State::Ready => self.ready.remove(&self.slots, slot),
            _ => {}
        }
    }

    fn drop_slot(&mut self, slot: u32) {
        match self.slots.node(slot).state.get() {
            State::Armed | State::Stopped => self.heap.remove(&self.slots, slot),
            State::Ready => self.ready.remove(&self.slots, slot),
            _ => {}
        }
        let chunk = self.slots.chunk(slot).clone();
        self.slots.free(&chunk, slot);
    }

    /// Expires in pieces of `budget` and gives the slots in the order in which they became ready.
    fn expire(&mut self, now: u64, budget: u32) -> Vec<u32> {
        let mut fired = Vec::new();
        loop {
            let done = self.heap.expire(&self.slots, &mut self.ready, &mut self.calls, now, budget);
            assert!(done.fired + done.cleaned <= budget);
            while let Some(slot) = self.ready.first() {
                self.ready.remove(&self.slots, slot);
                fired.push(slot);
            }
            if done.fired + done.cleaned < budget {
                assert!(self.heap.first() > now || self.heap.first() == NEVER);
                return fired;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create,
    /// So many, one later than the other, or one earlier.
    Burst(u64, bool),
    /// Drops the most: all of them, or all but every eighth.
    Thin(usize),
    Arm(usize, u64),
    Later(usize, u64),
    Earlier(usize, u64),
    /// Not before any other.
    Append(usize, u64),
    Stop(usize),
    Drop(usize),
    Advance(u64, u32),
    Latest(u64),
    Shrink,
    SkipSequences(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // Few distinct deadlines, so that ties are common.
    let t = 0..12u64;
    prop_oneof![
        3 => Just(Op::Create),
        1 => (0..40u64, any::<bool>()).prop_map(|(n, later)| Op::Burst(n, later)),
        1 => any::<usize>().prop_map(Op::Thin),
        4 => (any::<usize>(), prop_oneof![20 => t.clone(), 1 => Just(NEVER)])
            .prop_map(|(i, t)| Op::Arm(i, t)),
        4 => (any::<usize>(), t.clone()).prop_map(|(i, t)| Op::Later(i, t)),
        4 => (any::<usize>(), t.clone()).prop_map(|(i, t)| Op::Earlier(i, t)),
        6 => (any::<usize>(), 0..3u64).prop_map(|(i, t)| Op::Append(i, t)),
        2 => any::<usize>().prop_map(Op::Stop),
        1 => any::<usize>().prop_map(Op::Drop),
        3 => (t.clone(), 1..8u32).prop_map(|(t, budget)| Op::Advance(t, budget)),
        1 => t.prop_map(Op::Latest),
        1 => Just(Op::Shrink),
        1 => prop_oneof![0..3u64, Just(u64::from(u32::MAX)), Just(1 << 32)]
            .prop_map(Op::SkipSequences),
    ]
}

/// (deadline, sequence) of each armed timer, nothing else.
#[derive(Default)]
struct Model(Vec<(u32, Option<(u64, u64)>)>);

impl Model {
    /// The latest deadline, but for those near [`NEVER`].
    fn end(&self) -> u64 {
        let deadlines = self.0.iter().filter_map(|&(_, armed)| Some(armed?.0));
        deadlines.filter(|&deadline| deadline < NEVER / 2).max().unwrap_or(0)
    }

    fn first(&self) -> u64 {
        self.0.iter().filter_map(|&(_, armed)| Some(armed?.0)).min().unwrap_or(NEVER)
    }

    fn expire(&mut self, now: u64) -> Vec<u32> {
        let due = |armed: Option<(u64, u64)>| armed.filter(|&(t, _)| t <= now && t != NEVER);
        let mut fired: Vec<_> =
            self.0.iter().filter_map(|&(slot, armed)| Some((due(armed)?, slot))).collect();
        fired.sort_unstable();
        self.0
            .iter_mut()
            .filter(|(_, armed)| due(*armed).is_some())
            .for_each(|(_, armed)| *armed = None);
        fired.into_iter().map(|(_, slot)| slot).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_queue_behaves_like_a_sorted_list(ops in proptest::collection::vec(op(), 1..200)) {
        // The numbers of the arms pass 2^32.
        let mut queue = Queue::new((1 << 32) - 20);
        let mut model = Model::default();
        let mut now = 0;
        for op in ops {
            let live = model.0.len();
            let pick = |i: usize| i % live.max(1);
            match op {
                Op::Create => model.0.push((queue.create(), None)),
                Op::Burst(n, later) => {
                    let from = if later { model.end().max(now) } else { now + 60 };
                    for i in 0..n {
                        let (slot, at) = (queue.create(), if later { from + i } else { from - i });
                        queue.arm(slot, at);
                        model.0.push((slot, Some((at, queue.seq))));
                    }
                }
                Op::Thin(kept) => {
                    let mut order: Vec<_> = std::mem::take(&mut model.0);
                    if kept % 2 == 0 {
                        order.reverse();
                    }
                    for (i, timer) in order.into_iter().enumerate() {
                        if kept % 5 > 0 && i % 8 == kept % 8 {
                            model.0.push(timer);
                            continue;
                        }
                        queue.drop_slot(timer.0);
                        if i % 8 == 3 {
                            queue.heap.verify(&queue.slots);
                        }
                    }
                }
                Op::Arm(..)
                | Op::Later(..)
                | Op::Earlier(..)
                | Op::Append(..)
                | Op::Stop(_)
                | Op::Drop(_)
                    if live == 0 => {}
                Op::Arm(i, t) | Op::Later(i, t) | Op::Earlier(i, t) | Op::Append(i, t) => {
                    let end = model.end().max(now);
                    let (slot, armed) = &mut model.0[pick(i)];
                    let t = match (&op, *armed) {
                        (Op::Append(..), _) => end + t,
                        (Op::Later(..), Some((was, _))) => was.saturating_add(t),
                        (Op::Earlier(..), Some((was, _))) => was.saturating_sub(t),
                        (Op::Arm(_, NEVER), _) => NEVER,
                        _ => now + t,
                    };
                    queue.arm(*slot, t);
                    *armed = Some((t, queue.seq));
                }
                Op::Stop(i) => {
                    queue.stop(model.0[pick(i)].0);
                    model.0[pick(i)].1 = None;
                }
                Op::Drop(i) => {
                    queue.drop_slot(model.0[pick(i)].0);
                    model.0.swap_remove(pick(i));
                }
                Op::Advance(t, budget) => {
                    now += t;
                    prop_assert_eq!(queue.expire(now, budget), model.expire(now));
                }
                Op::Latest(slack) => {
                    let latest = queue.heap.latest(&queue.slots, slack, slack);
                    prop_assert!(latest <= model.first().saturating_add(slack));
                }
                Op::Shrink => {
                    queue.heap.shrink(0, 1);
                }
                Op::SkipSequences(n) => queue.seq += n,
            }
            prop_assert!(queue.heap.first() <= model.first());
            queue.heap.verify(&queue.slots);
        }
        prop_assert_eq!(queue.expire(NEVER - 1, 5), model.expire(NEVER - 1));
        prop_assert_eq!(queue.slots.live(), model.0.len());
    }
}

#[test]
fn keys_of_eight_children_share_a_cache_line() {
    assert_eq!(size_of::<Block>(), (BLOCK * 12).next_multiple_of(64));
    let heap = &mut Heap::new();
    heap.blocks.push(Block::new());
    let address = |index: usize| &raw const heap.blocks[0].keys[index + ROOT] as usize;
    assert_eq!(address(1) % 64, 0);
    assert_eq!(address(ARITY) - address(1), 56);
}

#[test]
fn later_deadlines_are_corrected_once_at_the_root() {
    let mut queue = Queue::new(0);
    let slot = queue.create();
    queue.arm(slot, 10);
    for t in 11..1_000 {
        queue.arm(slot, t);
        assert_eq!(queue.heap.first(), 10);
    }
    let done = queue.heap.expire(&queue.slots, &mut queue.ready, &mut queue.calls, 10, 100);
    assert_eq!(done, Expired { cleaned: 1, ..Expired::default() });
    assert_eq!(queue.heap.first(), 999);
}

#[test]
fn holes_stay_few_and_ties_keep_their_order() {
    let mut queue = Queue::new((1 << 32) - 3_000);
    let slots: Vec<u32> = (0..20_000).map(|_| queue.create()).collect();
    // Few distinct deadlines; the numbers of the arms pass 2^32 on the way.
    slots.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, 10 + (i * 7 % 3) as u64));
    let (mut kept, mut armed) = (Vec::new(), slots.len());
    for (i, &slot) in slots.iter().enumerate() {
        if i as u64 * 2_654_435_761 % 16 < 15 {
            queue.drop_slot(slot);
            armed -= 1;
            assert!(
                queue.heap.entries() <= 3 * armed.max(SWEEP_MIN),
                "{} entries for {armed} timers",
                queue.heap.entries()
            );
        } else {
            kept.push((10 + (i * 7 % 3) as u64, i, slot));
        }
    }
    queue.heap.verify(&queue.slots);
    kept.sort_unstable();
    assert_eq!(
        queue.expire(100, 64),
        kept.into_iter().map(|(_, _, slot)| slot).collect::<Vec<_>>()
    );
    assert_eq!((queue.heap.entries(), queue.heap.holes), (0, 0));
}

#[test]
fn work_put_off_is_done_in_pieces() {
    let mut queue = Queue::new(0);
    let slots: Vec<u32> = (0..10_000).map(|_| queue.create()).collect();
    slots.iter().for_each(|&slot| queue.arm(slot, 10));
    slots.iter().for_each(|&slot| queue.arm(slot, 20));
    let done = queue.heap.expire(&queue.slots, &mut queue.ready, &mut queue.calls, 15, 64);
    assert_eq!(done, Expired { cleaned: 64, ..Expired::default() });
    assert_eq!(queue.heap.first(), 10);
    assert_eq!(queue.expire(20, 64), slots);
}

#[test]
fn the_latest_wake_up_is_the_least_limit() {
    let mut queue = Queue::new(0);
    assert_eq!(queue.heap.latest(&queue.slots, 5, 0), NEVER);
    for (count, step) in [(3, 7u64), (40, 1), (5_000, 0), (5_000, 3)] {
        let slots: Vec<u32> = (0..count).map(|_| queue.create()).collect();
        for (i, &slot) in slots.iter().enumerate() {
            queue.arm(slot, 1_000 + i as u64 * step);
            if i % 3 == 1 {
                queue.slots.node(slot).set(Flag::Slack, true);
                queue.slots.chunk(slot).slacks.of(slot).set(i as u64 % 50);
            }
        }
        let slack = |i: usize| if i % 3 == 1 { i as u64 % 50 } else { 100 };
        let least = (0..count).map(|i| 1_000 + i as u64 * step + slack(i)).min().unwrap();
        let latest = queue.heap.latest(&queue.slots, 100, 0);
        assert!((1_000..=least).contains(&latest), "{latest} of {least}");
        if count < 50 {
            assert_eq!(latest, least);
        }
        slots.into_iter().for_each(|slot| queue.drop_slot(slot));
    }
}

#[test]
fn slack_of_others_delays_no_exact_timer() {
    for later in [true, false] {
        let mut queue = Queue::new(0);
        for i in 0..400 {
            let slot = queue.create();
            queue.arm(slot, if later { 1_000 } else { 1_000 - i / 300 });
            queue.slots.node(slot).set(Flag::Slack, i == 290);
            queue.slots.chunk(slot).slacks.of(slot).set(0);
        }
        let latest = queue.heap.latest(&queue.slots, 100, 0);
        assert!(latest <= 1_000, "{latest}");
    }
}

#[test]
fn a_pulled_timer_moves_holes_off_the_end() {
    let mut queue = Queue::new(0);
    let slots: Vec<u32> = (0..20).map(|_| queue.create()).collect();
    // A parent is earlier than its children, and all are in the heap but for the first.
    queue.arm(slots[0], 1_000);
    slots[1..].iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, 100 + i as u64));
    let last = queue.heap.len - 1;
    let (last, parent) = (queue.heap.get(last).slot(), queue.heap.get((last - 1) / ARITY).slot());
    queue.drop_slot(parent);
    queue.arm(last, 10);
    queue.heap.settle(&queue.slots);
    queue.heap.verify(&queue.slots);
    assert_eq!(queue.expire(10, 64), [last]);
}

#[test]
fn a_later_deadline_goes_to_the_run() {
    let mut queue = Queue::new(0);
    let slots: Vec<u32> = (0..1_000).map(|_| queue.create()).collect();
    slots.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, 10 + i as u64 / 7));
    assert_eq!((queue.heap.run.len(), queue.heap.len), (1_000, 0));
    let earlier = queue.create();
    queue.arm(earlier, 9);
    assert_eq!((queue.heap.run.len(), queue.heap.len), (1_000, 1));
    queue.heap.verify(&queue.slots);
    assert_eq!(queue.expire(1_000, 64), [vec![earlier], slots].concat());
    assert_eq!(queue.heap.run.blocks(), 1);
}

#[test]
fn late_deadlines_do_not_block_the_run() {
    let mut queue = Queue::new(0);
    let late: Vec<u32> = (0..20).map(|_| queue.create()).collect();
    late.iter().for_each(|&slot| queue.arm(slot, 1 << 40));
    let slots: Vec<u32> = (0..1_000).map(|_| queue.create()).collect();
    slots.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, i as u64));
    queue.heap.verify(&queue.slots);
    let in_heap = queue.heap.len;
    assert!(in_heap <= 20 + 20 * MISSES as usize, "{in_heap} in the heap");
    assert_eq!(queue.expire(1_000, 64), slots);
    assert_eq!(queue.expire(NEVER - 1, 64), late);
}

#[test]
fn a_sweep_of_the_run_keeps_the_order() {
    for kept in [7, 2] {
        let mut queue = Queue::new((1 << 32) - 500);
        let slots: Vec<u32> = (0..2_000).map(|_| queue.create()).collect();
        slots.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, i as u64 / 3));
        let (mut left, mut dropped) = (Vec::new(), 0);
        for (i, &slot) in slots.iter().enumerate().rev() {
            if i % kept == 1 {
                left.push(slot);
            } else {
                queue.drop_slot(slot);
                dropped += 1;
                let (entries, armed) = (queue.heap.entries(), 2_000 - dropped);
                assert!(entries <= 3 * armed.max(SWEEP_MIN), "{entries} for {armed} timers");
                if dropped % 10 == 0 {
                    queue.heap.verify(&queue.slots);
                }
            }
        }
        left.reverse();
        assert!(queue.heap.run.blocks() <= 4 * left.len() / BLOCK, "memory of the run");
        assert_eq!(queue.expire(1_000, 64), left);
        queue.heap.verify(&queue.slots);
    }
}

#[test]
fn a_run_of_one_length_takes_few_blocks() {
    for count in [1, 2, BLOCK as u32, 3 * BLOCK as u32] {
        let mut queue = Queue::new(0);
        let slots: Vec<u32> = (0..count).map(|_| queue.create()).collect();
        slots.iter().for_each(|&slot| queue.arm(slot, 1));
        let enough = 2 * (slots.len() / BLOCK + 2) + AHEAD;
        for round in 0..1_000 * slots.len() {
            let slot = slots[round % slots.len()];
            queue.arm(slot, 2 + round as u64);
            if round % slots.len() == slots.len() - 1 {
                // All keys are stale: each goes to the end.
                queue.expire((round + 2 - slots.len()) as u64, u32::MAX);
            }
            let blocks = queue.heap.usage().0;
            assert!(blocks <= enough, "{blocks} blocks for {count} timers");
        }
        assert_eq!(queue.heap.len, 0, "timers of one length are in the run");
    }
}

#[test]
fn a_pulled_timer_is_never_late() {
    // Far more than are noted, with a heap that is large in unit tests.
    for stopped in [false, true] {
        let mut queue = Queue::new(0);
        let slots: Vec<u32> = (0..200).map(|_| queue.create()).collect();
        slots.iter().rev().enumerate().for_each(|(i, &slot)| queue.arm(slot, 1_000 - i as u64));
        assert!(queue.heap.len >= LARGE);
        let pulled = &slots[3..10];
        for &slot in pulled {
            queue.arm(slot, 10);
            assert_eq!(queue.heap.first(), 10);
            if stopped {
                queue.stop(slot);
            }
        }
        assert_eq!(queue.expire(9, 64), []);
        // Between the deadline that was stopped and the key that it was pulled from.
        pulled.iter().for_each(|&slot| queue.arm(slot, 20));
        assert_eq!(queue.expire(20, 64), pulled);
        queue.heap.verify(&queue.slots);
    }
}

#[test]
fn a_pulled_timer_may_be_dropped_before_moving() {
    let mut queue = Queue::new(0);
    let slots: Vec<u32> = (0..40).map(|_| queue.create()).collect();
    slots.iter().rev().enumerate().for_each(|(i, &slot)| queue.arm(slot, 1_000 - i as u64));
    slots[..3].iter().for_each(|&slot| queue.arm(slot, 10));
    queue.drop_slot(slots[0]);
    queue.stop(slots[1]);
    let another = queue.create();
    assert_eq!(another, slots[0], "the slot is used again");
    queue.arm(another, 500);
    assert_eq!(queue.expire(100, 64), [slots[2]]);
    queue.heap.verify(&queue.slots);
    assert_eq!(queue.expire(500, 64), [another]);
}

#[test]
fn a_sweep_of_leading_holes_keeps_the_counts() {
    // The sweep is under way when the last timer goes, or it meets the holes at the beginning.
    for (live, meets) in [(20, false), (100, true)] {
        let mut queue = Queue::new(0);
        let slots: Vec<u32> = (0..1_200 + live).map(|_| queue.create()).collect();
        slots.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, i as u64));
        // More than half are holes: the sweep begins at the end.
        slots[550..1_200].iter().for_each(|&slot| queue.drop_slot(slot));
        queue.heap.expire(&queue.slots, &mut queue.ready, &mut queue.calls, 549, 550);
        for &slot in slots[1_200..].iter().rev().skip(1) {
            queue.drop_slot(slot);
            queue.heap.verify(&queue.slots);
        }
        assert_eq!(queue.heap.run.is_sweeping(), !meets);
        queue.drop_slot(slots[slots.len() - 1]);
        assert_eq!(queue.heap.entries(), 0);
        let slot = queue.create();
        queue.arm(slot, 2_000);
        queue.heap.verify(&queue.slots);
        assert_eq!(queue.expire(2_000, 64).last(), Some(&slot));
    }
}

#[test]
fn a_sweep_that_meets_the_beginning_loses_nothing() {
    for seed in 1..400_u64 {
        let mut queue = Queue::new(0);
        let mut left: Vec<u32> = (0..60).map(|_| queue.create()).collect();
        left.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, 10 + i as u64));
        let mut due: Vec<u64> = (10..70).collect();
        let (mut random, mut more) = (seed, 60);
        while !left.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match random >> 60 {
                0..4 => {
                    assert_eq!(queue.expire(due[0], 64), [left.remove(0)], "seed {seed}");
                    due.remove(0);
                }
                4..7 if more > 0 => {
                    more -= 1;
                    let (slot, at) = (queue.create(), due[due.len() - 1] + 1);
                    queue.arm(slot, at);
                    left.push(slot);
                    due.push(at);
                }
                _ => {
                    let at = (random >> 33) as usize % left.len();
                    queue.drop_slot(left.remove(at));
                    due.remove(at);
                }
            }
            queue.heap.verify(&queue.slots);
        }
    }
}

#[test]
fn a_run_ending_at_its_last_number_empties() {
    for count in BLOCK as u32 - 2..BLOCK as u32 + 3 {
        for drops in [false, true] {
            let mut queue = Queue::new(0);
            queue.heap.run.begin_before_zero(BLOCK as u32);
            let slots: Vec<u32> = (0..count).map(|_| queue.create()).collect();
            slots.iter().enumerate().for_each(|(i, &slot)| queue.arm(slot, i as u64));
            queue.heap.verify(&queue.slots);
            if drops {
                slots.iter().for_each(|&slot| queue.drop_slot(slot));
            } else {
                assert_eq!(queue.expire(1_000, 64), slots);
            }
            assert_eq!((queue.heap.entries(), queue.heap.first()), (0, NEVER));
            let slot = queue.create();
            queue.arm(slot, 2_000);
            queue.heap.verify(&queue.slots);
            assert_eq!(queue.expire(2_000, 64), [slot]);
        }
    }
}
