//! The state of a reactor, which its handles and sources share: the timers, the lists of what is
//! ready and of what is to be called, and the way to the driver.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::asks::Asks;
use super::builder::Builder;
use super::channels::Channels;
use super::clock::TurnClock;
use super::fds::Fds;
use super::heap::{Heap, NEVER};
use super::origins::Origins;
use super::ready::Ready;
use super::remote::{self, Post};
use super::slots::{Chunk, Flag, Slots, State};
use super::spin::Spinner;
use super::stats::Count;
use super::tidy::Watches;
use super::turn::ENDED;
use crate::channel::{Nap, Receiver, Sender};
use crate::driver::{Clock, Driver, ReadyFds, Syscalls};
use crate::sync::Random;
use crate::sys::{Time, nanos};
use crate::wake::Notify;

/// The state that handles and sources share.
pub(crate) struct Core {
    /// The heap's first key, ns: nothing is due before it.
    pub(super) next_due: Cell<u64>,
    /// Sources may be ready that the ready list has not got. [`BEHIND`]: stale entries stand before
    /// some that are due, so that each source is asked for its own deadline. The other bits: how
    /// many sources are at an end that has been taken.
    pub(super) unlisted: Cell<u32>,
    /// What `next_due` was when stale keys were put right before blocking.
    pub(super) cleaned_for: Cell<u64>,
    /// Arms so far.
    pub(super) seq: Count,
    pub(crate) clock: TurnClock,
    pub(super) turns: Count,
    /// Whether a turn begins with more than a look at the timers: closures to be called, fds to be
    /// polled.
    pub(super) errands: Cell<bool>,
    /// Picks among ready cases.
    pub(super) random: Random,
    pub(super) table: RefCell<Table>,
    pub(super) notify: Arc<Notify>,
    pub(super) driving: RefCell<Driving>,
    pub(super) channels: RefCell<Channels>,
    /// Whether a drained channel is asked for its mark, or left unasked (`channels.rs`).
    pub(super) marking: Cell<bool>,
    /// Callbacks that are live.
    pub(super) callbacks: Cell<usize>,
    /// A closure runs (`calls.rs`).
    pub(super) calling: Cell<bool>,
    /// The last turn that has called callbacks, and the tokens of its last batch.
    pub(super) called_now: RefCell<(u64, Vec<u64>)>,
    /// An instant of a virtual clock, the rounds of callbacks that were run at it, and how many
    /// callbacks the last round still has.
    pub(super) instant: Cell<(Time, u32, usize)>,
    /// The sender of the mailbox, for every [`Remote`].
    pub(super) posting: Sender<Post>,
    /// Requests of other threads for timers, in the mailbox by their places.
    pub(super) asks: Arc<Asks>,
    /// Posts of other threads; `None` when the reactor is gone.
    pub(super) mailbox: RefCell<Option<Receiver<Post>>>,
    /// How many posts and callbacks a turn runs.
    pub(super) post_batch: usize,
    pub(super) callback_batch: usize,
    /// How many posts may wait when [`Remote::try_post`] adds one.
    pub(super) post_limit: usize,
    /// Posts that were taken from the mailbox so far.
    pub(super) posts_done: Count,
    /// The last batch has left posts.
    pub(super) posts_left: Cell<bool>,
    /// Channels wait until as many posts were taken (`calls.rs`).
    pub(super) gate: Cell<Option<u64>>,
    /// The tokens of the channels that need not wait for more posts, sorted.
    pub(super) admitted: RefCell<Vec<u64>>,
    /// The turn in which a channel had to wait for posts; 0: that was seen.
    pub(super) held: Cell<u64>,
    /// Callbacks that bells have made due, while they are put in order.
    pub(super) rung: RefCell<Vec<(u64, u32)>>,
    /// A source of the turn has something coming (`wake/mod.rs`).
    pub(super) coming: Cell<bool>,
    /// A source of the turn has to be looked at again in a moment: a wake-up is not sure.
    pub(super) napping: Cell<bool>,
    /// How long to sleep where a wake-up is not sure.
    pub(super) nap: RefCell<Nap>,
    /// Somebody has asked for a wake-up since the last `wait`.
    pub(super) woken: Cell<bool>,
    pub(super) fds: Fds,
    pub(super) spinner: Spinner,
    /// ns: of the timers that have none of their own.
    pub(super) slack: Cell<u64>,
    /// Whether any timer has slack.
    pub(super) slacked: Cell<bool>,
    /// ns: no timer has less.
    pub(super) least_slack: Cell<u64>,
    /// The sleep that the turn comes from was put off for the sake of some slack.
    pub(super) put_off: Cell<bool>,
    /// Which reactor of the process this is.
    pub(super) number: u64,
    /// Times that somebody woke us.
    pub(super) wakes: Count,
    /// What the driver said last.
    pub(super) syscalls: Cell<Syscalls>,
    pub(super) closed: Cell<bool>,
    /// Closed because this process is a forked child of the reactor's.
    pub(super) forked: Cell<bool>,
    /// The line that made the reactor.
    pub(super) made_at: &'static Location<'static>,
    /// ns: what an outer loop's wait will end at, if one sleeps for us. `NEVER` without an
    /// [`Embedded`].
    pub(super) outer_armed: Cell<u64>,
    pub(super) embedded: Cell<bool>,
    pub(super) expired: Count,
    pub(super) cleaned: Count,
    pub(super) called: Count,
    pub(super) coalesced: Count,
    pub(super) stale: Count,
    /// Sources that were found spinning.
    pub(super) spinning: Count,
    /// Memory that may have to go.
    pub(super) watches: Cell<Watches>,
    /// The next turns look for it.
    pub(super) untidy: Cell<bool>,
}

pub(super) struct Table {
    pub(super) slots: Slots<Core>,
    pub(super) heap: Heap,
    /// What has an item to give.
    pub(super) ready: Ready,
    /// What is to be called.
    pub(super) calls: Ready,
    /// Channels and contexts whose end has been taken.
    pub(super) ended: Ready,
    pub(super) origins: Origins,
}

impl Table {
    /// Takes a `Ready` record out of the list that it is in.
    #[inline]
    pub(super) fn unready(&mut self, slot: u32) {
        let list =
            if self.slots.node(slot).is(Flag::Call) { &mut self.calls } else { &mut self.ready };
        list.remove(&self.slots, slot);
    }
}

/// The driver, and what it finds.
pub(super) struct Driving {
    pub(super) driver: Option<Box<dyn Driver>>,
    pub(super) ready: ReadyFds,
}

impl Core {
    #[track_caller]
    pub(super) fn new(driver: Box<dyn Driver>, settings: &Builder) -> Core {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let clock = TurnClock::new(driver.clock());
        let slack = nanos(settings.slack);
        let yields = driver.yields();
        let (posting, mailbox) = remote::mailbox();
        if let Clock::Virtual(clock) = clock.source() {
            mailbox.probe().follow(Box::new(move || clock.now()));
        }
        Core {
            next_due: Cell::new(NEVER),
            unlisted: Cell::new(0),
            cleaned_for: Cell::new(NEVER),
            seq: Cell::new(0),
            spinner: Spinner::new(settings.spin, settings.precise, clock.is_virtual()),
            clock,
            turns: Cell::new(0),
            errands: Cell::new(yields),
            random: Random::new(random_seed()),
            table: RefCell::new(Table {
                slots: Slots::new(),
                heap: Heap::new(),
                ready: Ready::new(),
                calls: Ready::new(),
                ended: Ready::of(State::Ended),
                origins: Origins::default(),
            }),
            notify: Arc::new(Notify::of_reactor(driver.waker())),
            driving: RefCell::new(Driving { driver: Some(driver), ready: ReadyFds::new() }),
            channels: RefCell::default(),
            marking: Cell::new(false),
            callbacks: Cell::new(0),
            calling: Cell::new(false),
            called_now: RefCell::default(),
            instant: Cell::new((Time::ZERO, 0, 0)),
            posting,
            asks: Arc::new(Asks::new()),
            mailbox: RefCell::new(Some(mailbox)),
            post_batch: settings.post_batch.max(1),
            callback_batch: settings.callback_batch.max(1),
            post_limit: settings.post_limit,
            posts_done: Cell::new(0),
            posts_left: Cell::new(false),
            gate: Cell::new(None),
            admitted: RefCell::default(),
            held: Cell::new(0),
            rung: RefCell::default(),
            coming: Cell::new(false),
            napping: Cell::new(false),
            nap: RefCell::default(),
            woken: Cell::new(false),
            fds: if yields { Fds::of_yielding_driver() } else { Fds::new(settings.poll_interval) },
            slack: Cell::new(slack),
            slacked: Cell::new(slack > 0),
            least_slack: Cell::new(slack),
            put_off: Cell::new(false),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            wakes: Cell::new(0),
            syscalls: Cell::default(),
            closed: Cell::new(false),
            forked: Cell::new(false),
            made_at: Location::caller(),
            outer_armed: Cell::new(NEVER),
            embedded: Cell::new(false),
            expired: Cell::new(0),
            cleaned: Cell::new(0),
            called: Cell::new(0),
            coalesced: Cell::new(0),
            stale: Cell::new(0),
            spinning: Cell::new(0),
            watches: Cell::default(),
            untidy: Cell::new(false),
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.table.borrow().ready.len() > 0
    }

    /// Whether a turn would find something: a source, or a closure to be called.
    pub(super) fn has_work(&self) -> bool {
        self.has_ready() || self.has_calls()
    }

    /// Whether a turn would call closures: those that came to be due inside another one, or stood
    /// behind one that panicked.
    pub(super) fn has_calls(&self) -> bool {
        self.errands.get() && self.may_call() && self.table.borrow().calls.len() > 0
    }

    /// Picks one of the set bits, each with the same probability.
    #[inline]
    pub(crate) fn choose(&self, mask: u32) -> u32 {
        debug_assert_ne!(mask, 0);
        if mask & (mask - 1) == 0 { mask.trailing_zeros() } else { self.choose_among(mask) }
    }

    pub(super) fn choose_among(&self, mut mask: u32) -> u32 {
        let skip = self.random_below(mask.count_ones());
        for _ in 0..skip {
            mask &= mask - 1;
        }
        mask.trailing_zeros()
    }

    /// Uniform among 0 .. n.
    pub(crate) fn random_below(&self, n: u32) -> u32 {
        self.random.below(u64::from(n)) as u32
    }

    /// How many sources are in the ready list.
    pub(crate) fn ready_len(&self) -> usize {
        self.table.borrow().ready.len()
    }

    /// Returns true if the source of this token is in the ready list, due, or at its end.
    pub(crate) fn is_listed(&self, token: u64) -> bool {
        let slots = &self.table.borrow().slots;
        slots.resolve(token).is_some_and(|slot| {
            let node = slots.node(slot);
            matches!(node.state.get(), State::Ready | State::Ended) || self.is_overdue(node)
        })
    }

    /// The tokens of the sources in the ready list, the one that has waited longest first.
    pub(crate) fn ready_tokens(&self) -> impl Iterator<Item = u64> {
        let mut next = self.table.borrow().ready.first();
        std::iter::from_fn(move || {
            let table = self.table.borrow();
            let slot = next?;
            next = table.ready.after(&table.slots, slot);
            Some(table.slots.chunk(slot).token(slot))
        })
    }

    /// How many sources are at an end that has been taken.
    #[inline]
    pub(crate) fn ended_len(&self) -> usize {
        self.table.borrow().ended.len()
    }

    /// The tokens of the sources at an end that has been taken.
    pub(crate) fn ended_tokens(&self) -> impl Iterator<Item = u64> {
        let mut next = self.table.borrow().ended.first();
        std::iter::from_fn(move || {
            let table = self.table.borrow();
            let slot = next?;
            next = table.ended.after(&table.slots, slot);
            Some(table.slots.chunk(slot).token(slot))
        })
    }

    /// The number of the next arm.
    #[inline]
    pub(super) fn next_seq(&self) -> u64 {
        let seq = self.seq.get() + 1;
        self.seq.set(seq);
        seq
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.embedded.set(false);
        self.errands.set(false);
        self.next_due.set(NEVER);
        let chunks = {
            let table = &mut *self.table.borrow_mut();
            table.heap = Heap::new();
            table.ready = Ready::new();
            table.calls = Ready::new();
            table.ended = Ready::of(State::Ended);
            table.slots.clear()
        };
        let calls: Vec<_> = chunks.iter().flat_map(|chunk| chunk.take_calls()).collect();
        self.fds.close();
        self.notify.close();
        // Later posts are refused.
        let posts = self.mailbox.take();
        // A driver that is waiting, and drops its reactor meanwhile, goes when its wait ends.
        let driver =
            self.driving.try_borrow_mut().ok().and_then(|mut driving| driving.driver.take());
        if cfg!(kqueue) && self.forked.get() {
            // Its fds are not in this process: to close their numbers would close other files.
            std::mem::forget(driver);
            drop((calls, posts, chunks));
            return;
        }
        // Nothing is borrowed any more: what goes now may use a handle. (Each chunk holds this
        // core, and this core held them.)
        drop((calls, posts, chunks, driver));
    }

    /// Arms a slot for `t`, and takes away what was pending: returns whether something was. To a
    /// later deadline two stores.
    #[inline]
    pub(super) fn arm(&self, chunk: &Chunk<Core>, slot: u32, t: Time) -> bool {
        let node = chunk.node(slot);
        let seq = self.next_seq();
        let deadline = t.as_nanos();
        let same_half = (node.seq.get() ^ seq) >> 32 == 0;
        if node.state.get() == State::Armed && deadline >= node.deadline.get() && same_half {
            node.deadline.set(deadline);
            node.seq.set(seq);
            return true;
        }
        self.arm_slow(slot, deadline, seq)
    }

    #[inline(never)]
    pub(super) fn arm_slow(&self, slot: u32, deadline: u64, seq: u64) -> bool {
        if self.closed.get() {
            return false;
        }
        let table = &mut *self.table.borrow_mut();
        let state = table.slots.node(slot).state.get();
        if state == State::Ready {
            table.unready(slot);
        }
        match state {
            State::Armed | State::Stopped => table.heap.rearm(&table.slots, slot, deadline, seq),
            _ => table.heap.insert(&table.slots, slot, deadline, seq),
        }
        self.next_due.set(table.heap.first());
        self.tell_outer(deadline);
        matches!(state, State::Armed | State::Ready)
    }

    /// Takes away what is pending: returns whether something was.
    #[inline]
    pub(super) fn stop(&self, chunk: &Chunk<Core>, slot: u32) -> bool {
        let node = chunk.node(slot);
        match node.state.get() {
            State::Armed => {
                node.state.set(State::Stopped);
                true
            }
            State::Ready => {
                self.table.borrow_mut().unready(slot);
                true
            }
            _ => false,
        }
    }

    /// Frees a slot, with all that belongs to it.
    pub(super) fn release(&self, chunk: &Chunk<Core>, slot: u32) {
        let call = {
            let table = &mut *self.table.borrow_mut();
            match chunk.node(slot).state.get() {
                State::Armed | State::Stopped => table.heap.remove(&table.slots, slot),
                State::Ready => table.unready(slot),
                State::Ended => {
                    table.ended.remove(&table.slots, slot);
                    self.unlisted.set(self.unlisted.get() - ENDED);
                }
                State::Idle | State::Free => {}
            }
            if chunk.forget(slot) {
                self.channels.borrow_mut().unregister();
            }
            let call = (chunk.take_call(slot), chunk.take_bell(slot));
            if chunk.node(slot).is(Flag::Call) {
                self.callbacks.set(self.callbacks.get() - 1);
            }
            if table.slots.free(slot) && table.is_sparse() {
                self.set_untidy();
            }
            self.next_due.set(table.heap.first());
            call
        };
        // Nothing is borrowed: the closure may own anything.
        drop(call);
    }
}

/// The error of everything that needs a reactor which has been dropped.
#[cold]
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the reactor has been dropped")
}

/// The error of everything that needs the driver while that is waiting.
#[cold]
pub(crate) fn busy() -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "the reactor's driver is waiting at this moment: it can neither wait nor be changed from \
         within",
    )
}

/// A seed that differs between reactors and runs, from the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
