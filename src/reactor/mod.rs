//! The reactor: one thread's sources, their timers, and the loop that waits for them.
//!
//! A turn: look whether a timer could be due (`clock.rs`), move what is due from the heap (`timers.rs`) to the ready list
//! (`ready.rs`), ask the sources; when none has anything, publish `sleeping` (`wake/mod.rs`), look again, and block in the driver with
//! the earliest deadline armed. No user code ever runs while one of the reactor's cells is borrowed.

mod asks;
mod builder;
mod calls;
mod channels;
mod clock;
mod embed;
mod events;
mod fds;
mod fork;
mod listing;
#[cfg(all(loom, test))]
pub(crate) mod models;
mod origins;
mod ready;
mod remote;
mod slots;
mod spin;
mod stats;
mod tidy;
mod timers;

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};
use std::time::Duration;

pub use self::builder::Builder;
use self::calls::Again;
pub use self::calls::Firing;
pub use self::embed::Embedded;
pub(crate) use self::events::Patience;
pub use self::events::{Event, Events, Iter as EventsIter};
pub use self::listing::{Origin as SourceOrigin, SourceInfo, Sources};
pub use self::origins::SourceKind;
pub use self::remote::{PostError, Remote, TimerError, TimerId, TryPostError};
pub use self::spin::Spin;
pub use self::stats::Stats;

use self::asks::Asks;
use self::channels::Channels;
use self::clock::TurnClock;
use self::fds::Fds;
use self::origins::Origins;
use self::ready::Ready;
use self::remote::Post;
use self::slots::{Chunk, Flag, PATIENCE, Slots, State};
use self::spin::Spinner;
use self::stats::Count;
use self::tidy::Watches;
use self::timers::{Heap, NEVER};
use crate::channel::{Nap, Receiver, Sender};
use crate::driver::{Clock, Deadline, Driver, ReadyFds, Syscalls, Wait};
pub(crate) use crate::sync::strand;
use crate::sync::{Ordering, fence, settle_fence};
use crate::sys::{Time, nanos};
use crate::wake::Notify;

/// A single-threaded reactor: it owns a driver and waits for channels, timers and tickers together.
///
/// It derefs to [`Handle`], which has every method; clones of the handle go wherever the reactor is not. Both are `!Send`: what may
/// leave the thread says so. Dropping the reactor closes its fds; sources and handles that outlive it are inert.
///
/// # Memory
/// A reactor grows with what is live at one time: some 50 bytes a timer, more for other sources.
/// More than 64 KiB of records, or of the timer queue, that were less than an eighth used for a
/// second shrink to twice what was used. So does the queue of posts. The reactor does that in its
/// turns: one that sleeps all the time keeps its memory. Up to 64 KiB of each nothing is given
/// back, and then nothing allocates that was as full before. Records go in blocks of 128, and a block
/// stays while one of its sources is live. The memory of requests ([`Remote::reset`],
/// [`Remote::stop`]) stays: it is bounded by the timers that had requests at one time.
///
/// # Fork
/// A child made by `fork` without `exec` has a copy of the reactor, and shares its kernel objects
/// with the parent. In the child **the reactor and its sources are inert**, from the return of
/// `fork` on:
/// - What waits, registers or arms fails with an error that names the fork and the line that made
///   the reactor. Callbacks and posted closures do not run. [`Handle::is_closed`] returns true.
/// - Nothing reaches the parent: no wake-up, no timer, no registration. A drop closes the child's
///   copies of the fds, and the parent is told of its files as before.
/// - A channel is memory, so the child has a copy of that, too. What one process sends the other
///   never receives. [`Remote::post`] gives its closure back.
///
/// The child makes a reactor of its own with [`Reactor::new`]; a daemon makes its reactor after the
/// last fork. In a process with several threads a lock that another thread held during the fork
/// stays locked in the child: there call `exec` or `_exit`, and touch no channel of other threads.
///
/// Forks are seen by a handler of `pthread_atfork`, in time linear in the number of live sources. A
/// raw system call (`SYS_fork`, `clone`) runs no such handler, and the child then disturbs its
/// parent. `posix_spawn`, and with it [`Command`](std::process::Command) in most cases, forks
/// nothing.
///
/// ```
/// use pollmux::{Reactor, channel, select};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded(4);
/// let inbox = reactor.register(rx)?;
/// let timeout = reactor.after(Duration::from_secs(60));
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
    /// Sources may be ready that the ready list has not got. [`BEHIND`]: stale entries stand before
    /// some that are due, so that each source is asked for its own deadline. The other bits: how
    /// many sources are at an end that has been taken.
    unlisted: Cell<u32>,
    /// What `next_due` was when stale keys were put right before blocking.
    cleaned_for: Cell<u64>,
    /// Arms so far.
    seq: Count,
    pub(crate) clock: TurnClock,
    turns: Count,
    /// Whether a turn begins with more than a look at the timers: closures to be called, fds to be polled.
    errands: Cell<bool>,
    /// The state of the generator that picks among ready cases.
    random: Count,
    table: RefCell<Table>,
    notify: Arc<Notify>,
    driving: RefCell<Driving>,
    channels: RefCell<Channels>,
    /// Whether a drained channel is asked for its mark, or left unasked (`channels.rs`).
    marking: Cell<bool>,
    /// Callbacks that are live.
    callbacks: Cell<usize>,
    /// A closure runs (`calls.rs`).
    calling: Cell<bool>,
    /// The last turn that has called callbacks, and the tokens of its last batch.
    called_now: RefCell<(u64, Vec<u64>)>,
    /// An instant of a virtual clock, the rounds of callbacks that were run at it, and how many
    /// callbacks the last round still has.
    instant: Cell<(Time, u32, usize)>,
    /// The sender of the mailbox, for every [`Remote`].
    posting: Sender<Post>,
    /// Requests of other threads for timers, in the mailbox by their places.
    asks: Arc<Asks>,
    /// Posts of other threads; `None` when the reactor is gone.
    mailbox: RefCell<Option<Receiver<Post>>>,
    /// How many posts and callbacks a turn runs.
    post_batch: usize,
    callback_batch: usize,
    /// How many posts may wait when [`Remote::try_post`] adds one.
    post_limit: usize,
    /// Posts that were taken from the mailbox so far.
    posts_done: Count,
    /// The last batch has left posts.
    posts_left: Cell<bool>,
    /// Channels wait until as many posts were taken (`calls.rs`).
    gate: Cell<Option<u64>>,
    /// The tokens of the channels that need not wait for more posts, sorted.
    admitted: RefCell<Vec<u64>>,
    /// The turn in which a channel had to wait for posts; 0: that was seen.
    held: Cell<u64>,
    /// Callbacks that bells have made due, while they are put in order.
    rung: RefCell<Vec<(u64, u32)>>,
    /// A source of the turn has something coming (`wake/mod.rs`).
    coming: Cell<bool>,
    /// A source of the turn has to be looked at again in a moment: a wake-up is not sure.
    napping: Cell<bool>,
    /// How long to sleep where a wake-up is not sure.
    nap: RefCell<Nap>,
    /// Somebody has asked for a wake-up since the last `wait`.
    woken: Cell<bool>,
    fds: Fds,
    spinner: Spinner,
    /// ns: of the timers that have none of their own.
    slack: Cell<u64>,
    /// Whether any timer has slack.
    slacked: Cell<bool>,
    /// ns: no timer has less.
    least_slack: Cell<u64>,
    /// The sleep that the turn comes from was put off for the sake of some slack.
    put_off: Cell<bool>,
    /// Which reactor of the process this is.
    number: u64,
    /// Times that somebody woke us.
    wakes: Count,
    /// What the driver said last.
    syscalls: Cell<Syscalls>,
    closed: Cell<bool>,
    /// Closed because this process is a forked child of the reactor's.
    forked: Cell<bool>,
    /// The line that made the reactor.
    made_at: &'static Location<'static>,
    /// ns: what an outer loop's wait will end at, if one sleeps for us. `NEVER` without an [`Embedded`].
    outer_armed: Cell<u64>,
    embedded: Cell<bool>,
    expired: Count,
    cleaned: Count,
    called: Count,
    coalesced: Count,
    stale: Count,
    /// Sources that were found spinning.
    spinning: Count,
    /// Memory that may have to go.
    watches: Cell<Watches>,
    /// The next turns look for it.
    untidy: Cell<bool>,
}

struct Table {
    slots: Slots<Core>,
    heap: Heap,
    /// What has an item to give.
    ready: Ready,
    /// What is to be called.
    calls: Ready,
    /// Channels and contexts whose end has been taken.
    ended: Ready,
    origins: Origins,
}

impl Table {
    /// Takes a `Ready` record out of the list that it is in.
    #[inline]
    fn unready(&mut self, slot: u32) {
        let list = if self.slots.node(slot).is(Flag::Call) { &mut self.calls } else { &mut self.ready };
        list.remove(&self.slots, slot);
    }
}

/// The driver, and what it finds.
struct Driving {
    driver: Option<Box<dyn Driver>>,
    ready: ReadyFds,
}

impl Reactor {
    /// A reactor on the system's own poller. Five syscalls, three on kqueue, and some 30 KiB.
    ///
    /// Fails with the system's error, and then leaves nothing behind. The error names the limit and
    /// the remedy
    /// - when the process has as many fds as `RLIMIT_NOFILE` allows (`EMFILE`: raise that limit,
    ///   `ulimit -n`),
    /// - when the system has as many as it allows (`ENFILE`: on Linux raise `fs.file-max`),
    /// - when the kernel has no memory (`ENOMEM`),
    /// - when epoll has no room (`ENOSPC`: raise `fs.epoll.max_user_watches`).
    ///
    /// Then the system's own error, with its [`raw_os_error`](io::Error::raw_os_error), is the
    /// [source](std::error::Error::source):
    ///
    /// ```
    /// use std::{error::Error, io};
    ///
    /// fn errno(error: &io::Error) -> Option<i32> {
    ///     let system = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    ///     error.raw_os_error().or_else(|| system?.raw_os_error())
    /// }
    /// # assert_eq!(errno(&io::Error::from_raw_os_error(24)), Some(24));
    /// ```
    #[track_caller]
    pub fn new() -> io::Result<Reactor> {
        Reactor::builder().build()
    }

    /// A reactor that waits through `driver`.
    #[track_caller]
    pub fn with_driver(driver: impl Driver + 'static) -> io::Result<Reactor> {
        Reactor::builder().build_with(driver)
    }

    /// For a reactor with other settings than the default ones: slack, spinning, precision.
    pub fn builder() -> Builder {
        Builder::new()
    }

    #[track_caller]
    fn with_settings(driver: Box<dyn Driver>, settings: &Builder) -> Reactor {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let clock = TurnClock::new(driver.clock());
        let slack = nanos(settings.slack);
        let yields = driver.yields();
        let (posting, mailbox) = remote::mailbox();
        if let Clock::Virtual(clock) = clock.source() {
            mailbox.probe().follow(Box::new(move || clock.now()));
        }
        let core = Core {
            next_due: Cell::new(NEVER),
            unlisted: Cell::new(0),
            cleaned_for: Cell::new(NEVER),
            seq: Cell::new(0),
            spinner: Spinner::new(settings.spin, settings.precise, clock.is_virtual()),
            clock,
            turns: Cell::new(0),
            errands: Cell::new(yields),
            random: Cell::new(random_seed()),
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
            number: NUMBERS.fetch_add(1, AtomicOrdering::Relaxed),
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
        };
        let core = Rc::new(core);
        fork::enter(&core);
        Reactor { handle: Handle { core } }
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
        fork::leave(&self.core);
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
        if let Ok(driving) = core.driving.try_borrow() {
            if let Some(driver) = &driving.driver {
                core.syscalls.set(driver.syscalls());
            }
        }
        let syscalls = core.syscalls.get();
        Stats {
            turns: core.turns.get(),
            waits: syscalls.waits,
            polls: syscalls.polls,
            arms: syscalls.arms,
            controls: syscalls.controls,
            joined: syscalls.joined,
            wakes: core.wakes.get(),
            expired: core.expired.get(),
            cleaned: core.cleaned.get(),
            called: core.called.get(),
            coalesced: core.coalesced.get(),
            stale: core.stale.get(),
            spins: core.spinner.saved(),
            spinning: core.spinning.get(),
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

/// In `Core::unlisted`.
const BEHIND: u32 = 1;
const ENDED: u32 = 2;

/// Entries of the heap that are looked at before the callbacks among them are counted.
const PIECE: u32 = 512;

/// What blocking came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The driver's wait ended, or there was a reason not to begin it.
    Ended,
    /// The time given is over, and what was due within it is ready or has been called. A message may have come since the caller looked, if the thread was kept from its core.
    TimedOut,
}

impl Core {
    /// Begins a turn: afterwards what is due is ready (all of it, unless more than a [`Heap::budget`] of entries stand before it), and the closures that were due
    /// have been called.
    #[inline]
    pub(crate) fn begin_turn(self: &Rc<Core>) {
        self.turns.set(self.turns.get() + 1);
        self.clock.awake();
        self.put_off.set(false);
        self.look();
    }

    #[inline]
    pub(crate) fn look(self: &Rc<Core>) {
        if self.clock.begin_turn(self.next_due.get()) {
            self.expire(self.clock.now());
        }
        if self.errands.get() || self.notify.is_posted() {
            self.run_errands();
        }
    }

    /// For a wait: runs what was posted during the turn, and collects what that has sent.
    #[cold]
    #[inline(never)]
    pub(crate) fn run_posts_and_collect(self: &Rc<Core>) {
        self.run_posts_before(self.ready_tokens());
        self.collect(crate::wake::Request::Mark);
    }

    /// The look after a sleep that may last until then. Returns true if that time is over: then each
    /// callback that is due has been called once.
    #[inline(never)]
    pub(crate) fn looks_for_the_last_time(self: &Rc<Core>, until: Option<Time>) -> bool {
        let over = until.is_some_and(|until| self.clock.is_due(until.as_nanos()));
        if over {
            self.look_at_last()
        } else {
            self.look()
        }
        over
    }

    /// [`look`](Self::look) at the end of the time: each callback that is due is called once.
    #[cold]
    #[inline(never)]
    fn look_at_last(self: &Rc<Core>) {
        if self.callbacks.get() == 0 {
            return self.look();
        }
        self.clock.refresh();
        self.expire_all();
        if self.errands.get() || self.notify.is_posted() {
            self.poll_fds();
            if self.run_batch(usize::MAX, Again::Yes) {
                self.settle_behind();
            }
        }
    }

    #[inline(never)]
    fn run_errands(self: &Rc<Core>) {
        if self.untidy.get() {
            self.tidy();
        }
        self.poll_fds();
        self.run_calls(Again::Yes);
    }

    /// [`look`](Self::look) of a call that must not wait, while its messages wait for posts: a
    /// callback that the call has run before, and that is armed with zero, is the next turn's.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_behind_posts(self: &Rc<Core>) {
        if self.clock.begin_turn(self.next_due.get()) {
            self.expire(self.clock.now());
        }
        self.poll_fds();
        self.run_calls(Again::No);
    }

    /// Whether the next turn has errands.
    fn settle_errands(&self) {
        let calls = self.table.borrow().calls.len();
        self.errands.set(calls > 0 || self.fds.are_watched() || self.untidy.get());
    }

    #[inline(never)]
    fn expire(&self, now: Time) {
        self.expire_some(now, u32::MAX);
    }

    /// [`expire`](Self::expire) that touches no more than `most` entries.
    #[inline]
    fn expire_some(&self, now: Time, most: u32) {
        let table = &mut *self.table.borrow_mut();
        let budget = table.heap.budget().min(most);
        let done =
            table.heap.expire(&table.slots, &mut table.ready, &mut table.calls, now.as_nanos(), budget);
        self.expired.set(self.expired.get() + u64::from(done.fired));
        self.cleaned.set(self.cleaned.get() + u64::from(done.cleaned));
        if self.put_off.replace(false) {
            self.coalesced.set(self.coalesced.get() + u64::from(done.steps));
        }
        if table.calls.len() > 0 {
            self.errands.set(true);
        }
        if tidy::is_sparse(table.heap.usage()) {
            self.set_untidy();
        }
        self.next_due.set(table.heap.first());
        let first = table.heap.first();
        let backlog = first != NEVER && self.clock.was_due(first);
        self.set_behind(backlog);
    }

    /// Moves all that is due at the turn's reading to the ready list or the list of calls, however
    /// many stale entries stand before it. Unbounded: only for a call that says "nothing" next.
    #[cold]
    #[inline(never)]
    fn expire_all(&self) {
        let now = self.clock.now();
        while self.next_due.get() <= now.as_nanos() && self.next_due.get() != NEVER {
            self.expire(now);
        }
        self.set_behind(false);
    }

    /// Before a select or a wait says that nothing is ready: does what the turn has left undone.
    /// Returns true if that was anything, so that the caller has to look at its sources again.
    ///
    /// Looks at every stale entry that stands before something due, at some 100 to 400 ns each; runs
    /// the callbacks that are due, and what other threads have posted: up to a batch of each in all.
    ///
    /// A select asks its own cases for their deadlines, and needs this only if there are callbacks:
    /// `everything` is for a wait.
    #[inline]
    pub(crate) fn catches_up(self: &Rc<Core>, everything: bool) -> bool {
        let backlog = self.is_behind() && (everything || self.callbacks.get() > 0);
        // Posts over the batch are the next turn's; those of meanwhile are this one's.
        let owed = backlog || (self.is_pressed() && !self.posts_left.get());
        if owed {
            self.catch_up();
        }
        owed
    }

    #[cold]
    #[inline(never)]
    fn catch_up(self: &Rc<Core>) {
        if !self.is_behind() {
            return self.run_calls(Again::Yes);
        }
        let (called, most) = (self.called_in_turn(), self.callback_batch);
        let now = self.clock.now();
        while self.next_due.get() <= now.as_nanos() && self.next_due.get() != NEVER {
            if called + self.table.borrow().calls.len() >= most {
                break;
            }
            self.expire_some(now, PIECE);
        }
        if self.run_batch(most.saturating_sub(called), Again::No) {
            self.settle_behind();
        }
    }

    /// For a sleep that ends without having slept: calls each callback that is due and was not
    /// called in this turn, however many. Runs up to a batch of posts.
    pub(super) fn finish_callbacks(self: &Rc<Core>) {
        if self.callbacks.get() == 0 || !(self.is_behind() || self.has_calls()) {
            self.catches_up(true);
        } else if self.may_call() {
            self.expire_all();
            if self.run_batch(usize::MAX, Again::No) {
                self.settle_behind();
            }
        }
    }

    /// For a wait that says "nothing" next: makes ready all that is due.
    #[inline]
    pub(crate) fn expire_backlog(&self) {
        if self.is_behind() {
            self.expire_all();
        }
    }

    /// Returns true if the timer of this record is due, and has not been moved to the ready list.
    #[inline]
    fn is_overdue(&self, node: &slots::Node) -> bool {
        self.is_behind() && self.is_past(node)
    }

    #[cold]
    #[inline(never)]
    fn is_past(&self, node: &slots::Node) -> bool {
        let deadline = node.deadline.get();
        node.state.get() == State::Armed && deadline != NEVER && self.clock.was_due(deadline)
    }

    /// Returns true if due timers may be missing in the ready list.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.unlisted.get() & BEHIND != 0
    }

    fn set_behind(&self, behind: bool) {
        self.unlisted.set(self.unlisted.get() & !BEHIND | if behind { BEHIND } else { 0 });
    }

    /// Returns true if sources may be ready that the ready list has not got.
    #[inline]
    pub(crate) fn has_unlisted(&self) -> bool {
        self.unlisted.get() != 0
    }

    /// A source is at an end that has been taken.
    fn count_end(&self) {
        self.unlisted.set(self.unlisted.get() + ENDED);
    }

    /// Callbacks or posts have run, and may have armed what is due already: that is ready then, and a
    /// callback is the next turn's.
    fn settle_behind(&self) {
        let due = self.next_due.get();
        if due != NEVER && !self.is_behind() && self.clock.is_due(due) {
            self.expire(self.clock.now());
        }
    }

    /// When a sleep is to end for the timers.
    fn timers_due(&self) -> Deadline {
        let first = self.next_due.get();
        let latest = if self.slacked.get() {
            let table = self.table.borrow();
            // Not before the first key: an entry looked at may be stale, and earlier than what it stands for.
            table.heap.latest(&table.slots, self.slack.get(), self.least_slack.get()).max(first)
        } else {
            first
        };
        Deadline { earliest: Time::from_nanos(first), latest: Time::from_nanos(latest) }
    }

    /// Blocks until the driver says that something happened, or `until`. The caller looks at its sources in any case.
    ///
    /// `publish` runs after `sleeping` is set: the sources ask to be told. `recheck` runs after the fence: whether one of them has something after all.
    #[inline(always)] // see Notify::wake
    pub(crate) fn block(
        self: &Rc<Core>,
        until: Option<Time>,
        publish: impl FnOnce(&mut Blocking<'_>) -> io::Result<()>,
        recheck: impl Fn() -> bool,
    ) -> io::Result<Blocked> {
        if until.is_some_and(|until| self.clock.is_due(until.as_nanos())) {
            // The last look may have been long before that.
            self.look_at_last();
            return if self.closed.get() { Err(self.gone()) } else { Ok(Blocked::TimedOut) };
        }
        if self.next_due.get() != self.cleaned_for.get() || self.clock.is_virtual() {
            // The driver may have to be armed for another key: a stale one is put right first, a bounded number of times. One that is armed
            // already is put right when it has woken us; but virtual time does not go to where nothing is due.
            self.expire(Time::ZERO);
            self.cleaned_for.set(self.next_due.get());
        }
        if self.clock.was_due(self.next_due.get()) || self.has_calls() {
            let stands_still = self.clock.is_virtual() && self.time_stands_still(until);
            if !stands_still {
                return Ok(Blocked::Ended);
            }
        }
        if self.driving.try_borrow_mut().is_err() {
            // The sleep under way is the driver's, which calls us.
            return Err(busy());
        }
        // Ends the sleep if a source or the driver panics.
        let sleep = Sleep(self);
        if self.embedded.get() {
            self.swallow()?;
        }
        let until = until.unwrap_or(Time::MAX);
        if self.spinner.is_on() && self.spin(until, &recheck) {
            std::mem::forget(sleep);
            self.looked_past_the_outer_loop();
            return Ok(Blocked::Ended);
        }
        self.notify.open_ticket();
        self.notify.sleep();
        self.napping.set(false);
        let mut blocking = Blocking { core: self, awake: false, deadline: until };
        let published = publish(&mut blocking);
        fence(Ordering::SeqCst);
        let Blocking { awake, deadline, .. } = blocking;
        self.coming.set(false);
        let stays = published.is_err() || awake || self.is_called() || recheck();
        let slept = if stays {
            Ok(())
        } else if self.coming.get() || self.is_unsure() {
            self.sleep_with_something_coming(deadline, &recheck)
        } else {
            self.drive(self.sleep_until(deadline), Wait::Block)
        };
        std::mem::forget(sleep);
        self.clock.slept();
        self.awake();
        self.looked_past_the_outer_loop();
        published.and(slept)?;
        Ok(Blocked::Ended)
    }

    /// Step 5 of the wake protocol, and the sleep: a message was claimed and not written.
    #[cold]
    #[inline(never)]
    fn sleep_with_something_coming(&self, until: Time, recheck: &impl Fn() -> bool) -> io::Result<()> {
        let sure = settle_fence() && !self.is_unsure();
        if self.is_called() || recheck() {
            self.nap.take();
            return Ok(());
        }
        if sure && !self.clock.is_virtual() {
            return self.drive(self.sleep_until(until), Wait::Block);
        }
        let nap = self.nap.borrow_mut().next();
        if self.clock.is_virtual() {
            // Virtual time must not go on before the message has come.
            std::thread::sleep(nap);
            return Ok(());
        }
        let until = until.min(self.clock.refresh() + nap);
        self.drive(self.sleep_until(until), Wait::Block)
    }

    /// A source has found that a message was claimed and not written.
    #[inline]
    pub(crate) fn note_coming(&self) {
        self.coming.set(true);
    }

    /// Whether somebody outside wants something of us. A part of step 4 of the wake protocol.
    #[inline]
    fn is_called(&self) -> bool {
        self.notify.is_marked() || (self.notify.is_posted() && (self.may_call() || self.notify.is_woken()))
    }

    /// The deadline that the driver gets: what the timers want, `until` at the latest.
    #[inline]
    fn sleep_until(&self, until: Time) -> Option<Deadline> {
        let Deadline { earliest, latest } = self.spinner.ahead(self.timers_due());
        let deadline = Deadline { earliest: earliest.min(until), latest: latest.min(until) };
        self.put_off.set(deadline.earliest < deadline.latest);
        (deadline.latest != Time::MAX).then_some(deadline)
    }

    /// Ends a sleep; whether somebody has woken us from it.
    fn awake(&self) -> bool {
        let woken = self.notify.awake();
        self.wakes.set(self.wakes.get() + u64::from(woken));
        woken
    }

    /// Takes what we have raised for an outer loop: it would end our own sleep at once. That sleep raises it again.
    #[cold]
    fn swallow(&self) -> io::Result<()> {
        if self.awake() { self.drive(None, Wait::Poll) } else { Ok(()) }
    }

    /// Lets the driver wait; what fds it found ready is ready then.
    #[inline(always)] // see Notify::wake
    fn drive(&self, deadline: Option<Deadline>, how: Wait) -> io::Result<()> {
        self.check_process()?;
        let Ok(driving) = self.driving.try_borrow_mut() else { return Err(busy()) };
        let mut drive = Drive { core: self, driving: Some(driving) };
        let Driving { driver, ready } = drive.driving();
        let driver = driver.as_mut().ok_or_else(|| self.gone())?;
        let waited = driver.wait(deadline, how, ready);
        drop(drive);
        if how != Wait::Arm {
            self.looked();
        }
        waited
    }

    fn has_ready(&self) -> bool {
        self.table.borrow().ready.len() > 0
    }

    /// Whether a turn would find something: a source, or a closure to be called.
    fn has_work(&self) -> bool {
        self.has_ready() || self.has_calls()
    }

    /// Whether a turn would call closures: those that came to be due inside another one, or stood behind one that panicked.
    fn has_calls(&self) -> bool {
        self.errands.get() && self.may_call() && self.table.borrow().calls.len() > 0
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

    /// An outer loop that sleeps for us has to wake up earlier for a deadline before what it is armed for.
    fn tell_outer(&self, deadline: u64) {
        if deadline < self.outer_armed.get() && self.embedded.get() {
            self.leave_to_next_turn();
        }
    }

    /// The driver was asked, not by a turn, and may have taken what the outer loop's fd was readable for. The next turn restores it: it arms and goes to sleep again.
    #[inline]
    fn looked_past_the_outer_loop(&self) {
        if self.embedded.get() {
            self.notify.sleep();
            self.leave_to_next_turn();
        }
    }

    /// Whether a look of the driver's has left an outer loop's fd as it was: nobody has woken us, nothing is ready or due, and what is to be due is armed.
    fn has_taken_nothing(&self) -> bool {
        let now = self.clock.now_or_later();
        if !self.notify.is_asleep()
            || self.has_ready()
            || self.has_more_fds()
            || self.next_due.get() <= now.as_nanos()
        {
            return false;
        }
        // No syscall, unless the kernel's timer has gone off for a deadline that was put off meanwhile.
        let arm = self.deadline_of_outer_loop(now);
        self.drive(arm, Wait::Arm).is_ok()
    }

    /// What the kernel's timer is to be armed for, and is said to be from now on, while an outer loop sleeps.
    fn deadline_of_outer_loop(&self, now: Time) -> Option<Deadline> {
        let due = self.next_due.get();
        let arm = (due > now.as_nanos() && due != NEVER).then(|| self.timers_due());
        self.outer_armed.set(arm.map_or(due, |arm| arm.latest.as_nanos()));
        arm
    }

    /// Makes the fd readable for an outer loop, at most once between turns.
    fn leave_to_next_turn(&self) {
        self.notify.wake();
    }

    fn close(&self) {
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
        let driver = self.driving.try_borrow_mut().ok().and_then(|mut driving| driving.driver.take());
        if cfg!(kqueue) && self.forked.get() {
            // Its fds are not in this process: to close their numbers would close other files.
            std::mem::forget(driver);
            drop((calls, posts, chunks));
            return;
        }
        // Nothing is borrowed any more: what goes now may use a handle. (Each chunk holds this core, and this core held them.)
        drop((calls, posts, chunks, driver));
    }

    /// Arms a slot for `t`, and takes away what was pending: returns whether something was. To a later deadline two stores.
    #[inline]
    fn arm(&self, chunk: &Chunk<Core>, slot: u32, t: Time) -> bool {
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
    fn arm_slow(&self, slot: u32, deadline: u64, seq: u64) -> bool {
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
    fn stop(&self, chunk: &Chunk<Core>, slot: u32) -> bool {
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
    fn release(&self, chunk: &Chunk<Core>, slot: u32) {
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

/// A sleep that a panic ends: the party is awake, and nobody can deal with it any more.
struct Sleep<'a>(&'a Core);

impl Drop for Sleep<'_> {
    #[cold]
    fn drop(&mut self) {
        let core = self.0;
        core.clock.slept();
        core.awake();
        core.notify.set_everywhere(false);
        core.looked_past_the_outer_loop();
    }
}

/// A wait of the driver. What it found is delivered, also when it panics.
struct Drive<'a> {
    core: &'a Core,
    driving: Option<RefMut<'a, Driving>>,
}

impl Drive<'_> {
    #[inline(always)]
    fn driving(&mut self) -> &mut Driving {
        match &mut self.driving {
            Some(driving) => driving,
            None => unreachable!("it is there until the drop"),
        }
    }
}

impl Drop for Drive<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let Some(mut driving) = self.driving.take() else { return };
        if let (true, Some(driver)) = (self.core.fds.has_leaving(), &mut driving.driver) {
            self.core.let_leave(&mut **driver);
        }
        if !driving.ready.is_empty() {
            self.core.deliver(&mut driving.ready);
        }
        if self.core.closed.get() {
            // The reactor was dropped meanwhile.
            let driver = driving.driver.take();
            drop(driving);
            drop(driver);
        }
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

    /// Ends the wait in a moment: the source cannot be sure of a wake-up.
    pub(crate) fn nap(&mut self) {
        self.core.napping.set(true);
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
    /// A slot for a source that the caller's caller makes.
    #[track_caller]
    pub(crate) fn new(handle: &Handle, kind: SourceKind) -> Slot {
        let core = &handle.core;
        if core.closed.get() {
            return Slot::inert(core);
        }
        let Table { slots, origins, .. } = &mut *core.table.borrow_mut();
        let slot = slots.take(core, origins.of((Location::caller(), kind)));
        Slot { chunk: slots.chunk(slot).clone(), slot }
    }

    /// A slot of a reactor that is gone: in a chunk of its own, which nothing looks at.
    #[cold]
    fn inert(core: &Rc<Core>) -> Slot {
        let mut slots = Slots::new();
        let slot = slots.take(core, Default::default());
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

    /// [`is_ready`](Self::is_ready) of a timer: also if it is due, and the queue has not got to it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_ready() || self.core().is_overdue(self.node())
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

    #[inline]
    pub(crate) fn token(&self) -> u64 {
        self.chunk.token(self.slot)
    }

    /// The slot's number, which its next user has, too.
    pub(crate) fn number(&self) -> u32 {
        self.slot
    }

    pub(crate) fn timer_id(&self, ticker: bool) -> TimerId {
        TimerId::new(self.core(), self.token(), ticker)
    }

    /// What `stop` would take away: a deadline that is pending, or that has passed and was not taken.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let pending = matches!(self.node().state.get(), State::Armed | State::Ready);
        pending.then(|| self.last_deadline())
    }

    /// The deadline that was armed last, pending or not.
    pub(crate) fn last_deadline(&self) -> Time {
        Time::from_nanos(self.node().deadline.get())
    }

    pub(crate) fn belongs_to(&self, handle: &Handle) -> bool {
        Rc::ptr_eq(self.core(), &handle.core)
    }

    /// The exact time.
    pub(crate) fn clock_now(&self) -> Time {
        self.core().clock.refresh()
    }

    /// ns.
    #[inline]
    pub(crate) fn period(&self) -> u64 {
        self.chunk.periods.get(self.slot).map_or(0, |period| period.get())
    }

    pub(crate) fn set_period(&self, period: Duration) {
        self.chunk.periods.of(self.slot).set(nanos(period));
    }

    /// Lets the timer fire late by as much, for the sake of others. For the sleep that comes next.
    pub(crate) fn set_slack(&self, slack: Duration) {
        let core = self.core();
        self.chunk.slacks.of(self.slot).set(nanos(slack));
        self.node().set(Flag::Slack, true);
        core.slacked.set(true);
        core.least_slack.set(core.least_slack.get().min(nanos(slack)));
        if let Some(deadline) = self.deadline() {
            core.tell_outer(deadline.as_nanos());
        }
    }

    /// Has no slack, whatever the reactor's is.
    pub(crate) fn be_exact(&self) {
        if self.core().slack.get() > 0 {
            self.set_slack(Duration::ZERO);
        }
    }

    /// Arms for `t`, and takes away what was pending: returns whether something was. To a later deadline two stores.
    #[inline]
    pub(crate) fn arm(&self, t: Time) -> bool {
        self.core().arm(&self.chunk, self.slot, t)
    }

    /// Arms for `d` from the real now.
    #[inline]
    pub(crate) fn arm_after(&self, d: Duration) -> bool {
        self.arm(self.core().clock.count_from(d) + d)
    }

    /// Takes away what is pending: returns whether something was.
    #[inline]
    pub(crate) fn stop(&self) -> bool {
        self.core().stop(&self.chunk, self.slot)
    }

    /// It has something, without having been armed in the queue.
    pub(crate) fn make_ready(&self) {
        let core = self.core();
        let table = &mut *core.table.borrow_mut();
        if self.node().state.get() == State::Idle && !core.closed.get() {
            table.ready.push(&table.slots, self.slot);
            if core.embedded.get() {
                core.leave_to_next_turn();
            }
        }
    }

    /// It has given something.
    pub(crate) fn count(&self) {
        self.node().count();
        self.progressed();
    }

    /// An inbox in the ready list has given a message, and there are more.
    #[inline]
    pub(crate) fn received(&self) {
        self.node().pos.set(PATIENCE);
    }

    /// It has given its end, which `times` counts. A loop that goes on asking for it spins.
    #[cold]
    pub(crate) fn end_taken(&self, times: &Cell<u32>) {
        if times.get() < PATIENCE {
            times.set(times.get() + 1);
            if times.get() == PATIENCE {
                let spinning = &self.core().spinning;
                self.node().set(Flag::Spinning, true);
                spinning.set(spinning.get() + 1);
            }
        }
    }

    /// The time that a due slot was due at; it is `Idle` then.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Time> {
        self.is_due().then(|| self.take())
    }

    fn take(&self) -> Time {
        if self.is_ready() {
            self.core().table.borrow_mut().unready(self.slot);
        } else {
            self.take_out();
        }
        self.node().count();
        self.last_deadline()
    }

    /// Takes a due timer out of the queue.
    #[cold]
    #[inline(never)]
    fn take_out(&self) {
        let core = self.core();
        let table = &mut *core.table.borrow_mut();
        table.heap.remove(&table.slots, self.slot);
        core.next_due.set(table.heap.first());
        core.expired.set(core.expired.get() + 1);
    }

    /// What senders wake.
    pub(crate) fn notify(&self) -> &Arc<Notify> {
        &self.core().notify
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let core = self.core();
        if !core.closed.get() && !self.node().is(Flag::Detached) {
            core.release(&self.chunk, self.slot);
        }
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
        "the reactor's driver is waiting at this moment: it can neither wait nor be changed from within",
    )
}

/// A seed that differs between reactors and runs, from the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}
