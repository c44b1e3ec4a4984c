//! The reactor: one thread's sources, their timers, and the loop that waits for them.
//!
//! A turn: look whether a timer could be due (`clock.rs`), move what is due from the heap (`timers.rs`) to the ready list
//! (`ready.rs`), ask the sources; when none has anything, publish `sleeping` (`notify.rs`), look again, and block in the driver with
//! the earliest deadline armed. No user code ever runs while one of the reactor's cells is borrowed.

mod channels;
mod clock;
mod embed;
mod events;
pub(crate) mod notify;
mod ready;
mod slots;
mod stats;
mod timers;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use self::embed::Embedded;
pub(crate) use self::events::Patience;
pub use self::events::{Event, Events, Iter as EventsIter};
pub use self::stats::Stats;

use self::channels::Channels;
use self::clock::TurnClock;
use self::notify::Notify;
use self::ready::Ready;
use self::slots::{Chunk, Slots, State};
use self::timers::{Heap, NEVER};
use crate::driver::{Driver, Native, Syscalls, Wait};
use crate::sync::{Ordering, fence};
use crate::sys::{Time, nanos};

/// A single-threaded reactor: it owns a driver and waits for channels, timers and tickers together.
///
/// It derefs to [`Handle`], which has every method; clones of the handle go wherever the reactor is not. Both are `!Send`: what may
/// leave the thread says so. Dropping the reactor closes its fds; sources and handles that outlive it are inert.
///
/// ```
/// use pollmux::{Reactor, channel, select};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded(4);
/// let inbox = reactor.register(rx)?;
/// let timeout = reactor.after(Duration::from_secs(5));
/// std::thread::spawn(move || tx.send("hello"));
/// select! { reactor;
///     recv(inbox) -> greeting => assert_eq!(greeting, Ok("hello")),
///     recv(timeout) -> _ => panic!("nobody there"),
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct Reactor {
    handle: Handle,
}

/// Every method of a [`Reactor`], in a value that is cheap to clone and keeps nothing alive.
///
/// After the reactor is dropped timers made through it never fire, registrations give the source back with an error, and waiting
/// fails; [`Handle::is_closed`] tells.
#[derive(Clone)]
pub struct Handle {
    pub(crate) core: Rc<Core>,
}

/// The state that handles and sources share.
pub(crate) struct Core {
    /// The heap's first key, ns: nothing is due before it.
    next_due: Cell<u64>,
    /// What `next_due` was when stale keys were put right before blocking.
    cleaned_for: Cell<u64>,
    /// Arms so far.
    seq: Cell<u64>,
    pub(crate) clock: TurnClock,
    turns: Cell<u64>,
    /// The state of the generator that picks among ready cases.
    random: Cell<u64>,
    table: RefCell<Table>,
    notify: Arc<Notify>,
    driver: RefCell<Option<Box<dyn Driver>>>,
    channels: RefCell<Channels>,
    /// Whether a drained channel is asked for its mark, or left unasked (`channels.rs`).
    marking: Cell<bool>,
    /// Times that somebody woke us.
    wakes: Cell<u64>,
    /// What the driver said last.
    syscalls: Cell<Syscalls>,
    closed: Cell<bool>,
    /// ns: what an outer loop's wait will end at, if one sleeps for us. `NEVER` without an [`Embedded`].
    outer_armed: Cell<u64>,
    embedded: Cell<bool>,
    expired: Cell<u64>,
    cleaned: Cell<u64>,
}

struct Table {
    slots: Slots<Core>,
    heap: Heap,
    ready: Ready,
}

impl Reactor {
    /// A reactor on the system's own poller. Five syscalls, three on kqueue, and some 30 KiB; fails with the system's error, for instance `EMFILE`, and
    /// then leaves nothing behind.
    pub fn new() -> io::Result<Reactor> {
        Reactor::with_driver(Native::new()?)
    }

    /// A reactor that waits through `driver`.
    pub fn with_driver(driver: impl Driver + 'static) -> io::Result<Reactor> {
        let core = Core {
            next_due: Cell::new(NEVER),
            cleaned_for: Cell::new(NEVER),
            seq: Cell::new(0),
            clock: TurnClock::new(driver.clock()),
            turns: Cell::new(0),
            random: Cell::new(random_seed()),
            table: RefCell::new(Table { slots: Slots::new(), heap: Heap::new(), ready: Ready::new() }),
            notify: Arc::new(Notify::new(driver.waker())),
            driver: RefCell::new(Some(Box::new(driver))),
            channels: RefCell::default(),
            marking: Cell::new(false),
            wakes: Cell::new(0),
            syscalls: Cell::default(),
            closed: Cell::new(false),
            outer_armed: Cell::new(NEVER),
            embedded: Cell::new(false),
            expired: Cell::new(0),
            cleaned: Cell::new(0),
        };
        Ok(Reactor { handle: Handle { core: Rc::new(core) } })
    }

    /// A handle, for code that has no reactor.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Deref for Reactor {
    type Target = Handle;
    #[inline]
    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl AsRef<Handle> for Handle {
    #[inline]
    fn as_ref(&self) -> &Handle {
        self
    }
}

impl AsRef<Handle> for Reactor {
    #[inline]
    fn as_ref(&self) -> &Handle {
        &self.handle
    }
}

impl Handle {
    /// The time, read at most once a turn: two calls in one arm give the same. On the driver's clock.
    #[inline]
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    /// What the reactor has done so far.
    pub fn stats(&self) -> Stats {
        let core = &*self.core;
        // A driver that asks while it waits gets the counts from before.
        if let Ok(Some(driver)) = core.driver.try_borrow().as_deref() {
            core.syscalls.set(driver.syscalls());
        }
        let syscalls = core.syscalls.get();
        Stats {
            turns: core.turns.get(),
            waits: syscalls.waits,
            polls: syscalls.polls,
            arms: syscalls.arms,
            joined: syscalls.joined,
            wakes: core.wakes.get(),
            expired: core.expired.get(),
            cleaned: core.cleaned.get(),
            live: core.table.borrow().slots.live(),
        }
    }

    /// Makes the choices among ready cases reproducible: the same seed, the same choices. Without it they differ from run to run.
    ///
    /// ```
    /// use pollmux::{Reactor, Select};
    ///
    /// let choices = |seed| -> std::io::Result<Vec<usize>> {
    ///     let reactor = Reactor::new()?;
    ///     reactor.seed(seed);
    ///     let timers = [(); 4].map(|()| reactor.after(std::time::Duration::ZERO));
    ///     let mut select = Select::new(&reactor);
    ///     timers.iter().for_each(|timer| drop(select.recv(timer)));
    ///     (0..20).map(|_| Ok(select.wait()?.index())).collect()
    /// };
    /// assert_eq!(choices(7)?, choices(7)?);
    /// assert_ne!(choices(7)?, choices(8)?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn seed(&self, seed: u64) {
        // The generator must not start at zero; the multiplication parts seeds that are close.
        self.core.random.set(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    }

    /// Whether the reactor has been dropped.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.core.closed.get()
    }

    /// Whether `other` is a handle of the same reactor.
    #[inline]
    pub fn is_same(&self, other: &Handle) -> bool {
        Rc::ptr_eq(&self.core, &other.core)
    }
}

impl Handle {
    /// What other threads wake.
    #[inline]
    pub(crate) fn notify(&self) -> &Arc<Notify> {
        &self.core.notify
    }
}

/// What blocking came to.
pub(crate) enum Blocked {
    /// The driver's wait ended, or there was a reason not to begin it.
    Ended,
    /// The time given is over.
    TimedOut,
}

impl Core {
    /// Begins a turn: afterwards what is due is ready (all of it, unless more than a [`Heap::budget`] of entries stand before it).
    #[inline]
    pub(crate) fn begin_turn(&self) {
        self.turns.set(self.turns.get() + 1);
        self.look();
    }

    #[inline]
    pub(crate) fn look(&self) {
        if self.clock.begin_turn(self.next_due.get()) {
            self.expire(self.clock.now());
        }
    }

    #[inline(never)]
    fn expire(&self, now: Time) {
        let table = &mut *self.table.borrow_mut();
        let budget = table.heap.budget();
        let done = table.heap.expire(&table.slots, &mut table.ready, now.as_nanos(), budget);
        self.expired.set(self.expired.get() + u64::from(done.fired));
        self.cleaned.set(self.cleaned.get() + u64::from(done.cleaned));
        self.next_due.set(table.heap.first());
    }

    /// Blocks until the driver says that something happened, or `until`. The caller looks at its sources in any case.
    ///
    /// `publish` runs after `sleeping` is set: the sources ask to be told. `recheck` runs after the fence: whether one of them has something after all.
    #[inline(always)] // see Notify::call
    pub(crate) fn block(
        &self,
        until: Option<Time>,
        publish: impl FnOnce(&mut Blocking<'_>) -> io::Result<()>,
        recheck: impl FnOnce() -> bool,
    ) -> io::Result<Blocked> {
        if until.is_some_and(|until| self.clock.is_due(until.as_nanos())) {
            return Ok(Blocked::TimedOut);
        }
        if self.next_due.get() != self.cleaned_for.get() || self.clock.is_virtual() {
            // The driver may have to be armed for another key: a stale one is put right first, a bounded number of times. One that is armed
            // already is put right when it has woken us; but virtual time does not go to where nothing is due.
            self.expire(Time::ZERO);
            self.cleaned_for.set(self.next_due.get());
        }
        if self.clock.was_due(self.next_due.get()) {
            return Ok(Blocked::Ended);
        }
        self.notify.open_ticket();
        self.notify.sleep();
        let mut blocking = Blocking { core: self, awake: false, deadline: until.unwrap_or(Time::MAX) };
        let published = publish(&mut blocking);
        fence(Ordering::SeqCst);
        let Blocking { awake, deadline, .. } = blocking;
        let slept = if published.is_err() || awake || self.notify.is_marked() || recheck() {
            Ok(())
        } else {
            let arm = deadline.min(Time::from_nanos(self.next_due.get()));
            self.drive((arm != Time::MAX).then_some(arm), Wait::Block)
        };
        self.awake();
        if self.embedded.get() {
            // The outer loop's turn restores what this wait took: it arms and goes to sleep again.
            self.notify.sleep();
            self.leave_to_next_turn();
        }
        published.and(slept)?;
        Ok(Blocked::Ended)
    }

    fn awake(&self) {
        self.wakes.set(self.wakes.get() + u64::from(self.notify.awake()));
    }

    #[inline(always)] // see Notify::call
    fn drive(&self, arm: Option<Time>, how: Wait) -> io::Result<()> {
        let Ok(mut driver) = self.driver.try_borrow_mut() else {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the reactor was asked to wait while its driver is waiting",
            ));
        };
        driver.as_mut().ok_or_else(closed)?.wait(arm, how)
    }

    fn has_ready(&self) -> bool {
        self.table.borrow().ready.len() > 0
    }

    /// Picks one of the set bits, each with the same probability.
    #[inline]
    pub(crate) fn choose(&self, mask: u32) -> u32 {
        debug_assert_ne!(mask, 0);
        if mask & (mask - 1) == 0 { mask.trailing_zeros() } else { self.choose_among(mask) }
    }

    fn choose_among(&self, mut mask: u32) -> u32 {
        let skip = self.random_below(mask.count_ones());
        for _ in 0..skip {
            mask &= mask - 1;
        }
        mask.trailing_zeros()
    }

    /// Uniform among 0 .. n.
    pub(crate) fn random_below(&self, n: u32) -> u32 {
        ((u128::from(self.random()) * u128::from(n)) >> 64) as u32
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

    /// xorshift64*, after Marsaglia and Vigna: good enough to be fair, and one multiplication.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The number of the next arm.
    #[inline]
    fn next_seq(&self) -> u64 {
        let seq = self.seq.get() + 1;
        self.seq.set(seq);
        seq
    }

    /// After the heap's first key may have moved to an earlier time.
    fn due_changed(&self, first: u64) {
        self.next_due.set(first);
        if first < self.outer_armed.get() && self.embedded.get() {
            self.leave_to_next_turn();
        }
    }

    /// Makes the fd readable for an outer loop, at most once between turns.
    fn leave_to_next_turn(&self) {
        self.notify.wake();
    }

    fn close(&self) {
        self.closed.set(true);
        self.embedded.set(false);
        self.next_due.set(NEVER);
        let chunks = {
            let table = &mut *self.table.borrow_mut();
            table.heap = Heap::new();
            table.ready = Ready::new();
            table.slots.clear()
        };
        let driver = self.driver.borrow_mut().take();
        // Nothing is borrowed any more: what goes now may use a handle. (Each chunk holds this core, and this core held them.)
        drop((chunks, driver));
    }
}

/// What a [`Source`](crate::Source) learns and can ask for when its reactor is about to block.
pub struct Blocking<'a> {
    core: &'a Core,
    awake: bool,
    deadline: Time,
}

impl Blocking<'_> {
    /// Do not sleep: the source has something, or will have it in a moment.
    pub fn stay_awake(&mut self) {
        self.awake = true;
    }

    /// End the wait at `t` at the latest.
    pub fn wake_at(&mut self, t: impl Into<Time>) {
        self.deadline = self.deadline.min(t.into());
    }

    /// Whether the wait is over before it began.
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// The time of this turn.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }
}

impl fmt::Debug for Blocking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("awake", &self.awake).field("deadline", &self.deadline).finish()
    }
}

/// A slot of the reactor, owned: the part that timers, tickers and inboxes have in common. 16 bytes. Freed when dropped.
pub(crate) struct Slot {
    chunk: Rc<Chunk<Core>>,
    slot: u32,
}

impl Slot {
    pub(crate) fn new(handle: &Handle) -> Slot {
        let core = &handle.core;
        if core.closed.get() {
            return Slot::inert(core);
        }
        let slots = &mut core.table.borrow_mut().slots;
        let slot = slots.take(core);
        Slot { chunk: slots.chunk(slot).clone(), slot }
    }

    /// A slot of a reactor that is gone: in a chunk of its own, which nothing looks at.
    #[cold]
    fn inert(core: &Rc<Core>) -> Slot {
        let mut slots = Slots::new();
        let slot = slots.take(core);
        Slot { chunk: slots.chunk(slot).clone(), slot }
    }

    #[inline]
    fn node(&self) -> &slots::Node {
        self.chunk.node(self.slot)
    }

    #[inline]
    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.chunk.owner
    }

    /// An expiry or a message that nobody has taken.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.node().state.get() == State::Ready
    }

    pub(crate) fn is_inert(&self) -> bool {
        self.core().closed.get()
    }

    pub(crate) fn key(&self) -> u64 {
        self.chunk.key(self.slot)
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.chunk.set_key(self.slot, key);
    }

    pub(crate) fn token(&self) -> u64 {
        self.chunk.token(self.slot)
    }

    /// What `stop` would take away: a deadline that is pending, or that has passed and was not taken.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let pending = matches!(self.node().state.get(), State::Armed | State::Ready);
        pending.then(|| Time::from_nanos(self.node().deadline.get()))
    }

    pub(crate) fn belongs_to(&self, handle: &Handle) -> bool {
        Rc::ptr_eq(self.core(), &handle.core)
    }

    /// The exact time.
    pub(crate) fn clock_now(&self) -> Time {
        self.core().clock.refresh()
    }

    /// Arms for `t`, and takes away what was pending: returns whether something was. To a later deadline two stores.
    #[inline]
    pub(crate) fn arm(&self, t: Time) -> bool {
        let node = self.node();
        let seq = self.core().next_seq();
        let deadline = t.as_nanos();
        let same_half = (node.seq.get() ^ seq) >> 32 == 0;
        if node.state.get() == State::Armed && deadline >= node.deadline.get() && same_half {
            node.deadline.set(deadline);
            node.seq.set(seq);
            return true;
        }
        self.arm_slow(deadline, seq)
    }

    #[inline(never)]
    fn arm_slow(&self, deadline: u64, seq: u64) -> bool {
        let core = self.core();
        if core.closed.get() {
            return false;
        }
        let table = &mut *core.table.borrow_mut();
        let state = self.node().state.get();
        match state {
            State::Armed | State::Stopped => table.heap.rearm(&table.slots, self.slot, deadline, seq),
            State::Ready => {
                table.ready.remove(&table.slots, self.slot);
                table.heap.insert(&table.slots, self.slot, deadline, seq);
            }
            State::Idle | State::Free => table.heap.insert(&table.slots, self.slot, deadline, seq),
        }
        core.due_changed(table.heap.first());
        matches!(state, State::Armed | State::Ready)
    }

    /// Arms for `d` from the real now. Zero is due at once, so a reading that may be late will not do.
    #[inline]
    pub(crate) fn arm_after(&self, d: Duration) -> bool {
        let clock = &self.core().clock;
        let now = if d.is_zero() { clock.refresh() } else { clock.now_or_later() };
        self.arm(now + d)
    }

    /// Takes away what is pending: returns whether something was.
    #[inline]
    pub(crate) fn stop(&self) -> bool {
        let node = self.node();
        match node.state.get() {
            State::Armed => {
                node.state.set(State::Stopped);
                true
            }
            State::Ready => {
                self.take();
                true
            }
            _ => false,
        }
    }

    /// The time that a `Ready` slot was due at; it is `Idle` then.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Time> {
        self.is_ready().then(|| self.take())
    }

    fn take(&self) -> Time {
        let table = &mut *self.core().table.borrow_mut();
        table.ready.remove(&table.slots, self.slot);
        Time::from_nanos(self.node().deadline.get())
    }

    /// What senders wake.
    pub(crate) fn notify(&self) -> &Arc<Notify> {
        &self.core().notify
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let core = self.core();
        if core.closed.get() {
            return;
        }
        let table = &mut *core.table.borrow_mut();
        match self.node().state.get() {
            State::Armed | State::Stopped => table.heap.remove(&table.slots, self.slot),
            State::Ready => table.ready.remove(&table.slots, self.slot),
            State::Idle | State::Free => {}
        }
        let first = table.heap.first();
        self.forget();
        table.slots.free(self.slot);
        core.next_due.set(first);
    }
}

/// The error of everything that needs a reactor which has been dropped.
#[cold]
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the reactor has been dropped")
}

/// A seed that differs between reactors and runs, from the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

/// The duration as a period in ns.
pub(crate) fn period_nanos(period: Duration) -> u64 {
    nanos(period)
}
