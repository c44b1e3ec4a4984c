//! The closures that the loop calls: callbacks that are due, and posts of other threads.
//!
//! The closures run where a turn begins, before any source is asked, one batch a turn. A post or a
//! callback with zero that a closure makes is left to the next turn. But the posts that other
//! threads make meanwhile run once more when a source is ready: its message may have been sent
//! after such a post. While a closure runs nothing of the reactor is borrowed, so the closure may
//! use the reactor. A select in a closure runs no closures: the flag `running` prevents that.

use std::rc::Rc;

use super::core::{CallbackContext, CallbackFn, Core, Handle, Post};
use super::parts::asks::Ask;
use super::parts::counters::add;
use super::parts::heap::NEVER;
use super::parts::slots::{Chunk, Flag, State};
use super::parts::timer_id::TimerId;
use crate::sys::Time;
use crate::wake::Probe;

/// A closure that runs. It goes back to its slot afterwards, also by a panic, if the slot still
/// belongs to it.
struct Running {
    chunk: Rc<Chunk<Core>>,
    slot: u32,
    token: u64,
    call: Option<CallbackFn>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let core = &self.chunk.owner;
        let mut call = self.call.take();
        if core.closed.get() || core.table.borrow().slots.resolve(self.token).is_none() {
            return; // The closure is dropped here, after the borrow.
        }
        let node = self.chunk.node(self.slot);
        if !node.is(Flag::Once) {
            self.chunk.put_callback(self.slot, call.take());
        }
        let pending = matches!(node.state.get(), State::Armed | State::Ready);
        if node.is(Flag::Detached) && !pending {
            core.release(&self.chunk, self.slot);
        }
    }
}

/// Says if a batch may call a callback that the turn has called before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    /// A callback that was armed with zero meanwhile is left to the next turn.
    No,
    /// The time was over at this point. A callback that was called since then is left to the next
    /// turn.
    Before(Time),
}

/// A batch of closures. Its drop clears the batch's flag, also by a panic, and leaves the rest to
/// the next turn.
struct Batch<'a> {
    core: &'a Core,
    /// Other threads have posted.
    pressed: bool,
    /// There are more posts than the batch may run.
    left: bool,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let core = self.core;
        core.callbacks.running.set(false);
        core.mailbox.left.set(self.left);
        if self.left && !core.closed.get() {
            core.notify.put_off_posts(self.pressed);
        }
        core.settle_turn_work();
    }
}

impl Core {
    /// Returns true if this turn may run callbacks and posts. A turn inside a callback may not.
    #[inline]
    pub(crate) fn may_run_callbacks(&self) -> bool {
        !self.callbacks.running.get()
    }

    /// Returns true if another thread has posted and this turn has not run the post.
    #[inline]
    pub(crate) fn is_pressed(&self) -> bool {
        self.notify.is_pressed() && self.may_run_callbacks()
    }

    /// Runs the posts, then the callbacks that are due, in the order of their deadlines: up to a
    /// batch of each. Sources that the closures have armed and that are due already are ready then.
    pub(super) fn run_posts_and_callbacks(self: &Rc<Core>, again: Again) {
        if self.run_batch(self.callbacks.batch, again) {
            self.settle_behind();
        }
    }

    /// Runs up to a batch of posts, then up to `most` of the callbacks that are due. Leaves
    /// callbacks that were armed with zero in the queue. Returns true if a closure ran.
    pub(super) fn run_batch(self: &Rc<Core>, most: usize, again: Again) -> bool {
        if self.closed.get() {
            return false;
        }
        if self.callbacks.running.replace(true) {
            // The posts have to wait, but a requested wake-up is for the wait that is under way.
            self.sleep.woken.set(self.notify.take_woken() || self.sleep.woken.get());
            return false;
        }
        let mut batch = Batch { core: self, pressed: false, left: false };
        let handle = Handle { core: self.clone() };
        let done = self.mailbox.done.get();
        if self.notify.is_posted() {
            let begun = self.notify.begin_posts();
            self.sleep.woken.set(begun.woken || self.sleep.woken.get());
            (batch.pressed, batch.left) = (begun.pressed, true);
            self.take_rung();
            let turn = self.counters.turns.get();
            batch.left = self.run_posts(&handle);
            // A select in a post has counted as a turn.
            let in_turn = &mut self.callbacks.in_turn.borrow_mut().0;
            if *in_turn == turn {
                *in_turn = self.counters.turns.get();
            }
        }
        let there = if most > 0 { self.table.borrow().callbacks.len() } else { 0 };
        if there > 0 {
            self.run_callbacks(&handle, there, most, again);
        }
        drop(batch);
        there > 0 || self.mailbox.done.get() != done
    }

    /// Runs up to `most` of the first `there` callbacks that are due. Runs no callback that becomes
    /// due meanwhile: a select in a closure finds those.
    fn run_callbacks(&self, handle: &Handle, there: usize, most: usize, again: Again) {
        let before = self.begin_batch(again);
        self.table.borrow_mut().callbacks.begin_batch();
        let mut left = most;
        for _ in 0..there {
            let table = self.table.borrow();
            if left == 0 || table.callbacks.is_first_new(&table.slots) {
                break;
            }
            drop(table);
            if before > 0 && self.puts_off(before) {
                continue;
            }
            let Some((mut running, firing)) = self.next_callback(handle) else { break };
            left -= 1;
            if self.clock.is_virtual() {
                self.count_round(there);
            }
            add(&self.counters.called, 1);
            self.callbacks.in_turn.borrow_mut().1.push((running.token, self.clock.now()));
            if let Some(call) = &mut running.call {
                call.call(&firing);
            }
        }
        // A select in a callback has counted as a turn.
        self.callbacks.in_turn.borrow_mut().0 = self.counters.turns.get();
    }

    /// Notes one call at this instant of a virtual clock, in a batch of `there` callbacks.
    #[cold]
    fn count_round(&self, there: usize) {
        let (now, (instant, rounds, left)) = (self.clock.now(), self.callbacks.instant.get());
        // A round is over when as many were called as there were when it began.
        let (rounds, left) = match (instant == now, left) {
            (false, _) => (1, there),
            (true, 0) => (rounds.saturating_add(1), there),
            (true, left) => (rounds, left),
        };
        self.callbacks.instant.set((now, rounds, left.saturating_sub(1)));
    }

    /// Begins a batch. Returns the number of callbacks that the turn has called before and may not
    /// call again. They are the first tokens of `called_now`, which is sorted then.
    fn begin_batch(&self, again: Again) -> usize {
        let (turn, called) = &mut *self.callbacks.in_turn.borrow_mut();
        let this = self.counters.turns.get();
        let is_same = std::mem::replace(turn, this) == this;
        match again {
            Again::No if is_same => {}
            Again::Before(end) if is_same => called.retain(|&(_, at)| at >= end),
            _ => {
                called.clear();
                called.shrink_to(self.callbacks.batch.saturating_mul(4));
            }
        }
        called.sort_unstable();
        called.len()
    }

    /// Returns the number of callbacks that the last batch of this turn has called.
    pub(super) fn called_in_turn(&self) -> usize {
        let called = self.callbacks.in_turn.borrow();
        if called.0 == self.counters.turns.get() { called.1.len() } else { 0 }
    }

    /// Puts the first callback last if it is one of the first `n` that were called in this turn.
    #[cold]
    fn puts_off(&self, n: usize) -> bool {
        let table = &mut *self.table.borrow_mut();
        let Some(slot) = table.callbacks.first() else { return false };
        let token = table.slots.chunk(slot).token(slot);
        let called = &self.callbacks.in_turn.borrow().1[..n];
        let was_called = called.binary_search_by_key(&token, |&(token, _)| token).is_ok();
        if was_called {
            table.callbacks.rotate(&table.slots, 1);
        }
        was_called
    }

    /// Returns true if callbacks that arm each other, or themselves, with zero have held a virtual
    /// clock for some time, and nothing else is due. The clock then goes on to the next deadline or
    /// to `until`, and the callbacks are called there.
    #[cold]
    #[inline(never)]
    pub(super) fn time_stands_still(&self, until: Option<Time>) -> bool {
        /// Rounds of callbacks at one instant.
        const ENOUGH: u32 = 100;
        let (instant, rounds, left) = self.callbacks.instant.get();
        let in_round = rounds < ENOUGH || (rounds == ENOUGH && left > 0);
        if in_round || instant != self.clock.refresh() || self.mailbox.left.get() {
            return false;
        }
        self.expire_all();
        self.table.borrow().callbacks.len() > 0
            && (until.is_some() || self.timers.next_due.get() != NEVER)
    }

    /// Runs the posts that are there now, up to a batch. Returns true if there are more.
    fn run_posts(&self, handle: &Handle) -> bool {
        let waiting = self.mailbox.sender.len();
        let batch = waiting.min(self.mailbox.batch);
        for _ in 0..batch {
            // A closure may have dropped the reactor, or have forked: then this is the child.
            let Some(post) = self.mailbox.take().filter(|_| !self.closed.get()) else {
                // The other posts are being written. Their posters tell us when the posts are
                // there.
                self.clock.refresh();
                return false;
            };
            add(&self.mailbox.done, 1);
            match post {
                Post::Run(f) => {
                    add(&self.counters.called, 1);
                    f(handle);
                }
                Post::Ask(place) => self.do_asked(handle, self.asks.take(place)),
                Post::Unplaced(ask) => self.do_asked(handle, *ask),
            }
        }
        if batch > 0 {
            // A post may have armed a timer that is due already. A turn that began with no due
            // timer would not see it.
            self.clock.refresh();
        }
        if self.mailbox.is_large() {
            self.set_untidy();
        }
        waiting > batch
    }

    /// Runs posts before messages that may have been sent after them. `seen` are sources that are
    /// ready now. After this call [`is_held`](Self::is_held) says which sources have to wait.
    ///
    /// If all posts were run, the sources that were ready before may give their messages. If some
    /// are left, all channels wait until as many posts were run as there are now. Then the sources
    /// that are ready now may give theirs.
    #[cold]
    #[inline(never)]
    pub(crate) fn run_posts_before(self: &Rc<Core>, seen: impl Iterator<Item = u64>) {
        // Without posts left, an earlier gate is open.
        let gate = self.mailbox.gate.get().filter(|_| self.mailbox.left.get());
        if gate.is_none() {
            let mut admitted = self.mailbox.admitted.take();
            admitted.clear();
            admitted.extend(seen.filter(|&token| self.is_channel(token)));
            admitted.sort_unstable();
            self.mailbox.admitted.replace(admitted);
            self.run_posts_and_callbacks(Again::No);
            let until = self.mailbox.done.get() + self.mailbox.sender.len() as u64;
            self.mailbox.gate.set(self.mailbox.left.get().then_some(until));
        } else {
            self.run_posts_and_callbacks(Again::No);
            let opens = gate.is_some_and(|until| self.mailbox.done.get() >= until);
            if opens || !self.mailbox.left.get() {
                self.mailbox.gate.set(None);
            }
        }
    }

    /// Runs the posts that wait, before the value that a rendezvous has chosen during the sleep is
    /// taken: the other party may have posted first. Runs all of them, however many, because that
    /// party has gone on and a chosen case cannot wait. Posts that come meanwhile are left.
    #[cold]
    #[inline(never)]
    pub(crate) fn run_posts_before_chosen(self: &Rc<Core>) {
        let until = self.mailbox.done.get() + self.mailbox.sender.len() as u64;
        let mut before = None;
        while self.mailbox.done.get() < until && before != Some(self.mailbox.done.get()) {
            before = Some(self.mailbox.done.get());
            self.run_posts_and_callbacks(Again::No);
        }
    }

    /// Returns true if this source has to wait for posts, and notes that a source waits.
    pub(crate) fn is_held(&self, token: u64) -> bool {
        let held = self.is_channel(token)
            && (self.mailbox.gate.get().is_some()
                || self.mailbox.admitted.borrow().binary_search(&token).is_err());
        if held {
            self.mailbox.held.set(self.counters.turns.get());
        }
        held
    }

    /// Returns true if [`take_held`](Self::take_held) would.
    #[inline]
    pub(crate) fn is_any_held(&self) -> bool {
        self.mailbox.held.get() == self.counters.turns.get()
    }

    /// Returns true if a source was held in this turn since the last call. Then "nothing" would be
    /// the wrong answer.
    #[inline]
    pub(crate) fn take_held(&self) -> bool {
        self.mailbox.held.replace(0) == self.counters.turns.get()
    }

    fn is_channel(&self, token: u64) -> bool {
        let table = self.table.borrow();
        table
            .slots
            .find(token)
            .is_some_and(|(chunk, slot)| chunk.with_probe(slot, |_| ()).is_some())
    }

    /// Takes the callbacks that a bell has made due.
    fn take_rung(&self) {
        let table = &mut *self.table.borrow_mut();
        let rung = &mut *self.callbacks.rung.borrow_mut();
        self.notify.take_callbacks(|slot| {
            // A late mark may be for another source that now has this slot. The bell of that source
            // has not rung.
            let bell = table.slots.chunk_of(slot).and_then(|chunk| chunk.bell(slot));
            if let Some(bell) = bell.filter(|bell| bell.hear()) {
                rung.push((bell.order(), slot));
            }
        });
        rung.sort_unstable();
        let now = self.clock.now();
        for (_, slot) in rung.drain(..) {
            let node = table.slots.node(slot);
            if table.slots.chunk(slot).has_callback(slot) && node.state.get() != State::Ready {
                node.deadline.set(now.as_nanos());
                table.raise(slot);
            }
        }
    }

    fn do_asked(&self, handle: &Handle, ask: Ask) {
        add(&self.counters.stale, handle.do_asked(ask));
    }

    fn next_callback<'h>(&self, handle: &'h Handle) -> Option<(Running, CallbackContext<'h>)> {
        let table = &mut *self.table.borrow_mut();
        let slot = table.callbacks.first()?;
        table.unready(slot);
        let chunk = table.slots.chunk(slot).clone();
        let node = chunk.node(slot);
        node.count();
        let scheduled = Time::from_nanos(node.deadline.get());
        let token = chunk.token(slot);
        let call = chunk.take_callback(slot);
        let id = TimerId { reactor: self.number, token, ticker: false };
        Some((Running { chunk, slot, token, call }, CallbackContext { handle, id, scheduled }))
    }
}
