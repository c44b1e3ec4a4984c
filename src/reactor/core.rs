//! The state of a reactor, which its handles and sources share, and the argument of users'
//! closures.
//!
//! `Core`, [`Handle`], [`Post`] and [`CallbackContext`] depend on each other: the core keeps
//! closures, and these take the handle, which is the core.
//!
//! Longer than 500 lines: more than a hundred of them are docs with examples.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::parts::asks::{Ask, Asks, PlaceId};
use super::parts::callbacks::Callbacks;
use super::parts::channels::Channels;
use super::parts::clock::TurnClock;
use super::parts::closure::{Argument, Closure};
use super::parts::counters::{Counters, add};
use super::parts::fds::Fds;
use super::parts::heap::NEVER;
use super::parts::mailbox::Mailbox;
use super::parts::priority::Priority;
use super::parts::ready::Ready;
use super::parts::slots::{Chunk, Flag, Node, Owner, State};
use super::parts::spinner::{Spin, Spinner};
use super::parts::table::Table;
use super::parts::timer_id::TimerId;
use super::parts::timers::{TimerQueue, next_seq};
use super::parts::usage::Memory;
use crate::channel::Nap;
use crate::driver::{AnyDriver, Clock, ReadyFds, Syscalls};
use crate::sync::Random;
use crate::sys::{PointInTime, Time, nanos};
use crate::wake::Notify;

/// The settings of a reactor, made by [`Builder`](crate::Builder).
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) slack: Duration,
    pub(super) precise: Duration,
    pub(super) spin: Spin,
    pub(super) poll_interval: Duration,
    pub(super) post_batch: usize,
    pub(super) callback_batch: usize,
    pub(super) post_limit: usize,
}

/// The state that handles and sources share.
pub(crate) struct Core {
    /// The number of this reactor in its process.
    pub(super) number: u64,
    /// The line that made the reactor.
    pub(super) made_at: &'static Location<'static>,
    pub(super) closed: Cell<bool>,
    /// The reactor is closed because this process is a forked child of the reactor's.
    pub(super) forked: Cell<bool>,
    pub(super) timers: TimerQueue,
    pub(crate) clock: TurnClock,
    pub(super) counters: Counters,
    /// The next turn has callbacks to run or memory to give back.
    pub(super) turn_work: Cell<bool>,
    /// The generator that picks among ready cases.
    pub(super) random: Random,
    pub(super) table: RefCell<ReactorTable>,
    pub(super) notify: Arc<Notify>,
    pub(super) driving: RefCell<Driving>,
    /// The driver's counts of syscalls at the last look.
    pub(super) syscalls: Cell<Syscalls>,
    pub(super) channels: RefCell<Channels>,
    /// A drained channel is asked for its mark. If false, it is left unasked (`channels.rs`).
    pub(super) marking: Cell<bool>,
    pub(super) fds: Fds,
    pub(super) callbacks: Callbacks,
    pub(super) mailbox: Mailbox<Post>,
    /// Requests of other threads for timers. The mailbox names them by their places.
    pub(super) asks: Arc<Asks>,
    pub(super) sleep: Sleep,
    pub(crate) spinner: Spinner,
    pub(super) rehearsal: RefCell<Option<Rehearsal>>,
    pub(super) outer: Outer,
    pub(super) memory: Memory,
    /// The number of live sources that are not of [`Priority::Normal`].
    pub(super) prioritised: Cell<usize>,
}

/// The records, queues and lists of a reactor.
pub(super) type ReactorTable = Table<Core>;

impl Owner for Core {
    type Callback = CallbackFn;
}

/// The driver, and the events that it finds.
pub(super) struct Driving {
    pub(super) driver: Option<AnyDriver>,
    pub(super) ready: ReadyFds,
}

/// The facts of a turn that make its next sleep unsure.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    /// A source of the turn has a message that is coming (`wake/mod.rs`).
    pub(super) coming: Cell<bool>,
    /// A source of the turn has to be looked at again in a moment, because a wake-up is not sure.
    pub(super) napping: Cell<bool>,
    /// The length of a sleep whose wake-up is not sure.
    pub(super) nap: RefCell<Nap>,
    /// Another thread has asked for a wake-up since the last `wait`.
    pub(super) woken: Cell<bool>,
}

/// A timer that fires unseen before a deadline that is met by spinning (`spin.rs`).
pub(super) struct Rehearsal {
    pub(super) table: Box<ReactorTable>,
    pub(super) chunk: Rc<Chunk<Core>>,
    pub(super) slot: u32,
}

/// The loop around an embedded reactor.
#[derive(Debug)]
pub(super) struct Outer {
    /// The deadline in ns that ends the wait of an outer loop that sleeps for the reactor. `NEVER`
    /// without an [`Embedded`](crate::Embedded).
    pub(super) armed: Cell<u64>,
    pub(super) embedded: Cell<bool>,
}

/// A handle of a [`Reactor`](crate::Reactor), which has every method. It is cheap to clone and
/// keeps nothing alive.
///
/// - To make timers: [`after`](Self::after), [`at`](Self::at), [`timer`](Self::timer),
///   [`every`](Self::every), [`every_at`](Self::every_at), [`call_after`](Self::call_after).
/// - To make channels: [`channel`](Self::channel), [`register`](Self::register),
///   [`notifier`](Self::notifier).
/// - To wait for the system: [`fd`](Self::fd), [`fd_nonblocking`](Self::fd_nonblocking),
///   [`signals`](Self::signals), [`register`](Self::register) of a child.
/// - To wait: [`select!`](crate::select!), [`recv`](Self::recv), [`wait`](Self::wait),
///   [`sleep_blocking`](Self::sleep_blocking).
/// - To cancel: [`context`](Self::context), [`done`](Self::done),
///   [`after_cancel`](Self::after_cancel).
/// - To reach the loop from other threads: [`remote`](Self::remote).
/// - To ask: [`now`](Self::now), [`stats`](Self::stats), [`sources`](Self::sources).
///
/// After the drop of the reactor its timers never fire, registrations give the source back with an
/// error, and waits fail. [`Handle::is_closed`] returns true then.
///
/// ```
/// use pollmux::{Handle, Reactor, Timer, select};
/// use std::time::Duration;
///
/// fn retry(handle: &Handle) -> Timer {
///     handle.after(Duration::from_millis(1))
/// }
///
/// let reactor = Reactor::new()?;
/// let retry = retry(&reactor); // a reference to a reactor becomes one to its handle
/// select! { reactor; recv(retry) -> due => assert!(reactor.now() >= due) }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Handle {
    pub(crate) core: Rc<Core>,
}

/// A request of another thread to the loop.
pub(crate) enum Post {
    Run(Box<dyn FnOnce(&Handle) + Send>),
    /// Requests for one timer (`parts/asks.rs`).
    Ask(PlaceId),
    /// A request that found no place.
    Unplaced(Box<Ask>),
}

/// A callback's closure.
pub(crate) type CallbackFn = Closure<Calls>;

/// The type of the argument of [`CallbackFn`].
pub(crate) enum Calls {}

impl Argument for Calls {
    type With<'a> = CallbackContext<'a>;
}

/// The argument of a callback: the reactor's [`Handle`], to which it derefs, and the callback's own
/// timer.
///
/// ```
/// use pollmux::{Reactor, Sim};
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let mut calls = 0;
/// let callback = reactor.call_after(second, move |cx| {
///     calls += 1;
///     cx.reset_at(cx.scheduled() + second); // again, without drift
///     if calls == 3 {
///         assert!(cx.stop()); // takes that back
///     }
///     assert!(cx.is_live(cx.id()) && !cx.handle().is_closed());
/// });
/// reactor.sleep_blocking(10 * second)?;
/// assert_eq!((reactor.stats().called, callback.deadline()), (3, None));
/// # std::io::Result::Ok(())
/// ```
pub struct CallbackContext<'a> {
    pub(super) handle: &'a Handle,
    pub(super) id: TimerId,
    pub(super) scheduled: Time,
}

impl CallbackContext<'_> {
    /// The time that the callback was due at.
    pub fn scheduled(&self) -> Time {
        self.scheduled
    }

    /// Calls the callback again, `d` from the real now. With zero it is due in the next turn.
    /// Returns as [`Callback::reset`](crate::Callback::reset) does. If the callback was dropped
    /// meanwhile it returns false and there is no call.
    pub fn reset(&self, d: Duration) -> bool {
        self.handle.reset_timer(self.id, d).unwrap_or(false)
    }

    /// Calls the callback again at `t`. Returns as [`reset`](Self::reset) does.
    pub fn reset_at(&self, t: impl PointInTime) -> bool {
        self.handle.reset_timer_at(self.id, t).unwrap_or(false)
    }

    /// Takes away the deadline that this call has armed. Returns true if there was a deadline.
    pub fn stop(&self) -> bool {
        self.handle.stop_timer(self.id).unwrap_or(false)
    }

    /// The callback's id.
    pub fn id(&self) -> TimerId {
        self.handle.core.asks.prepare(self.id.slot());
        self.id
    }

    /// The reactor's handle.
    pub fn handle(&self) -> &Handle {
        self.handle
    }
}

impl Deref for CallbackContext<'_> {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        self.handle
    }
}

impl AsRef<Handle> for CallbackContext<'_> {
    fn as_ref(&self) -> &Handle {
        self.handle
    }
}

impl_debug!([] CallbackContext<'_>, |it| id: it.id, scheduled: it.scheduled);

impl Core {
    #[track_caller]
    pub(super) fn new(driver: AnyDriver, settings: &Settings) -> Core {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let clock = TurnClock::new(driver.clock());
        let yields = driver.yields();
        // A virtual clock stands still while a loop is busy, so no interval would pass.
        let interval = if clock.is_virtual() { Duration::ZERO } else { settings.poll_interval };
        let mailbox = Mailbox::new(settings.post_batch, settings.post_limit);
        if let (Clock::Virtual(clock), Some(receiver)) =
            (clock.source(), &*mailbox.receiver.borrow())
        {
            receiver.probe().follow(Box::new(move || clock.now()));
        }
        Core {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            made_at: Location::caller(),
            closed: Cell::new(false),
            forked: Cell::new(false),
            timers: TimerQueue::new(nanos(settings.slack)),
            spinner: Spinner::new(settings.spin, settings.precise, clock.is_virtual()),
            clock,
            counters: Counters::default(),
            turn_work: Cell::new(false),
            random: Random::new(random_seed()),
            table: RefCell::new(Table::new()),
            notify: Arc::new(Notify::of_reactor(driver.waker())),
            driving: RefCell::new(Driving { driver: Some(driver), ready: ReadyFds::new() }),
            syscalls: Cell::default(),
            channels: RefCell::default(),
            marking: Cell::new(false),
            fds: if yields { Fds::of_yielding_driver() } else { Fds::new(interval) },
            callbacks: Callbacks::new(settings.callback_batch),
            mailbox,
            asks: Arc::new(Asks::new()),
            sleep: Sleep::default(),
            rehearsal: RefCell::default(),
            outer: Outer { armed: Cell::new(NEVER), embedded: Cell::new(false) },
            memory: Memory::default(),
            prioritised: Cell::new(0),
        }
    }

    /// Returns an id for users. Requests for this id coalesce.
    pub(super) fn timer_id(&self, token: u64, ticker: bool) -> TimerId {
        self.asks.prepare(token as u32);
        TimerId { reactor: self.number, token, ticker }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.table.borrow().ready.len() > 0
    }

    /// Returns true if a turn would find a ready source or a due callback.
    pub(super) fn has_work(&self) -> bool {
        self.has_ready() || self.has_due_callbacks()
    }

    /// Returns true if a turn would run callbacks: those that became due inside another callback,
    /// or stood behind one that panicked.
    pub(super) fn has_due_callbacks(&self) -> bool {
        self.turn_work.get() && self.may_run_callbacks() && self.table.borrow().callbacks.len() > 0
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

    /// Returns a random number below `n`. All have the same probability.
    pub(crate) fn random_below(&self, n: u32) -> u32 {
        self.random.below(u64::from(n)) as u32
    }

    /// Returns the tokens of the sources in the ready list. The one that has waited longest comes
    /// first. The list may change meanwhile.
    pub(crate) fn ready_tokens(&self) -> impl Iterator<Item = u64> {
        let mut next = self.table.borrow().ready.first();
        std::iter::from_fn(move || {
            let table = self.table.borrow();
            let slot = next?;
            next = table.ready.after(&table.slots, slot);
            Some(table.slots.chunk(slot).token(slot))
        })
    }

    /// Returns the numbers of sources that have entered the ready list and the list of ends.
    #[inline]
    pub(crate) fn entered(&self) -> [u64; 2] {
        let table = self.table.borrow();
        [&table.ready, &table.ended].map(Ready::entered)
    }

    /// Calls `f` with the tokens of the sources that have entered the two lists last. The numbers
    /// say how many of each list.
    pub(crate) fn for_newest(&self, [ready, ended]: [u64; 2], mut f: impl FnMut(u64)) {
        let Table { slots, ready: readies, ended: ends, .. } = &*self.table.borrow();
        let newest = readies.newest(slots, ready).chain(ends.newest(slots, ended));
        newest.for_each(|slot| f(slots.chunk(slot).token(slot)));
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.outer.embedded.set(false);
        self.turn_work.set(false);
        self.timers.next_due.set(NEVER);
        self.channels.borrow_mut().clear();
        let chunks = self.table.borrow_mut().clear();
        let rehearsal = self.rehearsal.take();
        let calls: Vec<_> = chunks.iter().flat_map(|chunk| chunk.take_callbacks()).collect();
        self.fds.close();
        self.notify.close();
        // Later posts are refused.
        let posts = self.mailbox.receiver.take();
        // A driver that is waiting, and whose wait drops the reactor, is dropped when that wait
        // ends.
        let driver =
            self.driving.try_borrow_mut().ok().and_then(|mut driving| driving.driver.take());
        if cfg!(kqueue) && self.forked.get() {
            // Its fds are not in this process. To close their numbers would close other files.
            std::mem::forget(driver);
            drop((calls, posts, chunks, rehearsal));
            return;
        }
        // Nothing is borrowed any more: the values that are dropped now may use a handle. (Each
        // chunk holds this core, and this core held them.)
        drop((calls, posts, chunks, rehearsal, driver));
    }

    /// Arms a slot for `t`, and clears what was pending. Returns true if an arm or an expiry was
    /// pending. Two stores for a later deadline, which reads the record and nothing else.
    #[inline]
    pub(super) fn arm(chunk: &Chunk<Core>, slot: u32, t: Time) -> bool {
        let node = chunk.node(slot);
        let seq = next_seq();
        let deadline = t.as_nanos();
        if node.state.get() == State::Armed && deadline >= node.deadline.get() {
            node.deadline.set(deadline);
            node.seq.set(seq);
            return true;
        }
        Core::arm_slow(chunk, slot, deadline, seq)
    }

    #[inline(never)]
    fn arm_slow(chunk: &Chunk<Core>, slot: u32, deadline: u64, seq: u64) -> bool {
        let (core, node) = (&*chunk.owner, chunk.node(slot));
        // A record of a closed reactor is not `Armed`.
        if node.state.get() == State::Armed && !core.outer.embedded.get() {
            let pulled = core.table.borrow_mut().heap.pull(node, slot, deadline, seq);
            if pulled {
                core.timers.next_due.set(core.timers.next_due.get().min(deadline));
                return true;
            }
        }
        Core::arm_otherwise(chunk, slot, deadline, seq)
    }

    #[inline(never)]
    fn arm_otherwise(chunk: &Chunk<Core>, slot: u32, deadline: u64, seq: u64) -> bool {
        let (core, node) = (&*chunk.owner, chunk.node(slot));
        if core.closed.get() {
            return false;
        }
        let table = &mut *core.table.borrow_mut();
        let state = node.state.get();
        if state == State::Ready {
            table.unready(slot);
        }
        match state {
            State::Armed | State::Stopped => {
                table.heap.rearm(&table.slots, node, slot, deadline, seq)
            }
            _ => table.heap.insert(&table.slots, node, slot, deadline, seq),
        }
        core.came_in(deadline);
        matches!(state, State::Armed | State::Ready)
    }

    /// Notes the only new key of the timer queue.
    #[inline]
    pub(super) fn came_in(&self, deadline: u64) {
        self.timers.next_due.set(self.timers.next_due.get().min(deadline));
        self.tell_outer(deadline);
    }

    /// Clears a pending arm or expiry. Returns true if there was one.
    #[inline]
    pub(super) fn stop(chunk: &Chunk<Core>, slot: u32) -> bool {
        let node = chunk.node(slot);
        match node.state.get() {
            State::Armed => {
                node.state.set(State::Stopped);
                true
            }
            State::Ready => {
                Core::stop_ready(chunk, slot);
                true
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn stop_ready(chunk: &Chunk<Core>, slot: u32) {
        chunk.owner.table.borrow_mut().unready(slot);
    }

    /// Takes the expiry of a due timer: returns its deadline, and leaves the slot `Idle`.
    #[inline(never)]
    pub(super) fn take(&self, node: &Node, slot: u32) -> Time {
        if node.state.get() == State::Ready {
            self.table.borrow_mut().unready(slot);
        } else {
            self.take_out(slot);
        }
        node.count();
        Time::from_nanos(node.deadline.get())
    }

    /// Takes a due timer out of the queue.
    #[cold]
    #[inline(never)]
    pub(super) fn take_out(&self, slot: u32) {
        let table = &mut *self.table.borrow_mut();
        table.heap.remove(&table.slots, slot);
        self.timers.next_due.set(table.heap.first());
        add(&self.counters.expired, 1);
    }

    /// Sets the priority of a source in a wait. Counts the live sources that have one.
    pub(super) fn set_priority(&self, chunk: &Chunk<Core>, slot: u32, priority: Priority) {
        let before = chunk.priority(slot);
        if before != priority {
            chunk.priorities.of(slot).set(priority);
            let count = self.prioritised.get() + usize::from(before == Priority::Normal);
            self.prioritised.set(count - usize::from(priority == Priority::Normal));
        }
    }

    /// Frees a slot whose owner is dropped, unless the reactor is gone or keeps the slot.
    #[inline(never)]
    pub(super) fn drop_slot(chunk: &Chunk<Core>, slot: u32) {
        let core = &chunk.owner;
        if !core.closed.get() && !chunk.node(slot).is(Flag::Detached) {
            core.release(chunk, slot);
        }
    }

    /// Frees a slot, and everything that belongs to it.
    #[inline]
    pub(super) fn release(&self, chunk: &Chunk<Core>, slot: u32) {
        if chunk.node(slot).site.get().is_timer() {
            self.free(&mut self.table.borrow_mut(), chunk, slot);
        } else {
            self.release_other(chunk, slot);
        }
    }

    /// [`release`](Self::release) of a slot that is no one-shot timer's.
    #[inline(never)]
    fn release_other(&self, chunk: &Chunk<Core>, slot: u32) {
        if chunk.forget(slot) {
            self.channels.borrow_mut().unregister(chunk.node(slot), slot);
            if chunk.node(slot).is(Flag::Once) {
                self.fds.told_once.set(self.fds.told_once.get() - 1);
            }
        }
        let call = (chunk.take_callback(slot), chunk.take_bell(slot));
        if chunk.node(slot).is(Flag::Callback) {
            self.callbacks.live.set(self.callbacks.live.get() - 1);
        }
        self.free(&mut self.table.borrow_mut(), chunk, slot);
        // Nothing is borrowed here: the closure may own any value, and is dropped with it.
        drop(call);
    }

    /// Takes a slot out of its queue or list, and gives it back.
    #[inline(always)]
    fn free(&self, table: &mut ReactorTable, chunk: &Chunk<Core>, slot: u32) {
        match chunk.node(slot).state.get() {
            State::Idle | State::Free => {}
            State::Armed | State::Stopped => {
                table.heap.remove(&table.slots, slot);
                self.timers.next_due.set(table.heap.first());
            }
            State::Ready => table.unready(slot),
            State::Ended => table.ended.remove(&table.slots, slot),
        }
        if self.prioritised.get() > 0 {
            self.set_priority(chunk, slot, Priority::Normal);
        }
        if table.slots.free(chunk, slot) && table.is_sparse() {
            self.set_untidy();
        }
    }
}

/// Returns the error of a call on a reactor that has been dropped.
#[cold]
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the reactor has been dropped")
}

/// Returns the error of a call that needs the driver while the driver is waiting.
#[cold]
pub(crate) fn busy() -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "the reactor's driver is waiting at this moment: it can neither wait nor be changed from \
         within",
    )
}

/// Returns a seed that differs between reactors and runs, from the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
