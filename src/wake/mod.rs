//! The ways to wake a sleeping reactor or thread from another thread, below channels.
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | the protocol, and [`Notify`], the shared end of a reactor |
//! | `request.rs` | the word in which a receiver asks for a wake-up or a mark |
//! | `marks.rs` | a bit for each channel with news, for a wait that must not look at all channels |
//! | `bell.rs` | a channel whose only message is that its source may be ready |
//! | `ticket.rs` | the right to deal with a party that blocks at several channels |
//!
//! # The wake protocol
//! Each channel has a request word, written by the receiver only. Each reactor has a `sleep` word.
//!
//! | receiver about to sleep | sender of position p |
//! |---|---|
//! | 1. `sleep`: begins | 1. claims p (a `SeqCst` read-modify-write) |
//! | 2. each channel: the request | 2. writes the value |
//! | 3. a `SeqCst` fence | 3. stores p's stamp |
//! | 4. each channel: look. A message, mark or post: stay awake | 4. its fence, see below |
//! | 5. something is *coming*: one membarrier, then look again | 5. reads the request; none: done |
//! | 6. sleeps in the driver | 6. a mark was asked for: sets it |
//! | 7. ends `sleep`, takes the requests back | 7. ends `sleep` and wakes the driver |
//! | | 8. takes the request for a mark away, if it is still the same |
//!
//! A message is *coming* when it is claimed and not written. Step 4 of the sender is a compiler
//! fence; on AArch64 its stamp and its look at the request are `SeqCst` as well.
//!
//! A sender that claims after step 4 sees the request, because the claim and the fence are in one
//! order. A sender that claimed before step 4 is seen by its claim. Then either its stamp is
//! visible after the membarrier, or the sender reads the request after the membarrier. Where
//! membarrier is missing or refused, a sleep with a message that is coming is limited to a nap
//! instead. **No wake-up is lost**, and no step waits for a sender.
//!
//! # Stopped senders
//! The scheduler may stop a sender between any two steps. So no sender relies on a step of another
//! sender. A request stays in place until the receiver takes it back, or until a sender has
//! answered the request in full. Every sender that reads the request sets the whole mark and checks
//! `sleep`. A sender may find that another sender has ended the sleep and not yet made its wake-up.
//! Then the sender waits a moment, and makes the wake-up, too. So there is **one wake-up a sleep**,
//! unless the thread that owes the wake-up does not run.
//!
//! A failed wake-up is owed like a pending one. The sender leaves out step 8, so the next sender
//! finds the request and tries again.

mod bell;
mod marks;
#[cfg(all(loom, test))]
pub(crate) mod models;
mod request;
#[cfg(all(test, not(loom)))]
pub(crate) mod testing;
mod ticket;

use std::io;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Instant;

pub(crate) use self::bell::Bell;
pub(crate) use self::marks::Marks;
pub(crate) use self::request::{Asked, Look, Probe, Request, RequestCell};
pub(crate) use self::ticket::Ticket;
use crate::sync::{AtomicBool, AtomicU64, Ordering, RwLock, fence, thread, wait_briefly};
use crate::sys::Waker;
use crate::sys::fork::Birth;

/// The waker of a driver, for any thread. A waker does nothing when the driver is gone. The guide's
/// page on [drivers](crate::guide::drivers) has an example.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot wake a driver",
    label = "no waker of a driver",
    note = "implement `pollmux::driver::Wake` for a type that is `Send + Sync`, and ends the \
            driver's wait in `wake`",
    note = "a driver around `Native` returns `native.waker()`"
)]
pub trait Wake: Send + Sync {
    /// Ends the current or the next blocking wait.
    ///
    /// The reactor calls it once for each sleep that a thread ends. There may be more calls for the
    /// same sleep: when a call has not returned after some 20 microseconds, and when it has failed.
    ///
    /// # Errors
    /// After an error the same thread tries again up to three times. After that every thread with
    /// news for the reactor tries again.
    fn wake(&self) -> io::Result<()>;

    /// The system's own waker, which is woken without a call through this trait.
    #[doc(hidden)]
    fn native(self: Arc<Self>) -> Option<Arc<Waker>> {
        None
    }
}

/// The waker of a reactor, or of a thread without one.
enum AnyWaker {
    Native(Arc<Waker>),
    Other(Arc<dyn Wake>),
}

impl AnyWaker {
    #[inline(always)] // see Notify::answer
    fn wake(&self) -> bool {
        match self {
            AnyWaker::Native(waker) => waker.wake().is_ok() || wake_again(&**waker),
            AnyWaker::Other(waker) => waker.wake().is_ok() || wake_again(&**waker),
        }
    }
}

/// The number of looks that take some 20 µs, in which a running thread ends the syscall of its
/// wake-up.
const A_SYSCALL: u32 = 500;

/// Tries a failed wake-up again, because there may be no other sender. Returns true on success.
#[cold]
#[inline(never)]
fn wake_again(waker: &dyn Wake) -> bool {
    (0..3).any(|_| {
        thread::yield_now();
        waker.wake().is_ok()
    })
}

/// The shared end of a reactor, or of a thread that blocks without one.
pub(crate) struct Notify {
    /// Twice the number of the sleep, plus one if the sleep has ended.
    sleep: AtomicU64,
    /// The value of `sleep` for which the wake-up has been made, or is not needed.
    rung: AtomicU64,
    /// The marks of channels with news.
    marks: Marks,
    /// The marks of callbacks that a bell has made due.
    callbacks: Marks,
    /// The number of marks so far. Marks are taken in the order in which they were set.
    numbers: AtomicU64,
    /// True if there are posts, callbacks that a bell has made due, or a requested wake-up.
    posted: AtomicBool,
    /// True if some posts come from another thread, which may send a message next.
    pressing: AtomicBool,
    owner: ThreadId,
    /// True if a thread has requested a wake-up.
    woken: AtomicBool,
    /// The waker, or `None` after the reactor is gone, whose fds are closed then.
    waker: RwLock<Option<AnyWaker>>,
    /// True if the reactor is gone.
    closed: AtomicBool,
    /// The reactor's process. In a forked child no thread sleeps.
    birth: Birth,
    /// The number of the open ticket, which is even. The first party that claims the ticket deals
    /// with this one. An odd number names the offer that claimed the ticket, or no offer
    /// (`ticket.rs`).
    ticket: AtomicU64,
    /// The number of tickets opened so far. Only the party itself uses it.
    opened: AtomicU64,
    /// True if the party blocks for all channels that are registered with it.
    everywhere: AtomicBool,
}

/// The outcome of [`Notify::begin_posts`].
pub(crate) struct Begun {
    /// True if a wake-up was requested.
    pub(crate) woken: bool,
    /// True if another thread has posted.
    pub(crate) pressed: bool,
}

/// A waker of a thread, for channels without a reactor.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(&self) -> io::Result<()> {
        self.0.unpark();
        Ok(())
    }
}

impl Notify {
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Notify {
        Notify {
            sleep: AtomicU64::new(1),
            rung: AtomicU64::new(1),
            marks: Marks::new(),
            callbacks: Marks::new(),
            numbers: AtomicU64::new(0),
            posted: AtomicBool::new(false),
            pressing: AtomicBool::new(false),
            owner: std::thread::current().id(),
            woken: AtomicBool::new(false),
            waker: RwLock::new(Some(match waker.clone().native() {
                Some(native) => AnyWaker::Native(native),
                None => AnyWaker::Other(waker),
            })),
            closed: AtomicBool::new(false),
            birth: Birth::ANYWHERE,
            ticket: AtomicU64::new(ticket::VOID),
            opened: AtomicU64::new(ticket::first_of_party()),
            everywhere: AtomicBool::new(false),
        }
    }

    /// Makes the shared end of a reactor, which a forked child does not wake.
    pub(crate) fn of_reactor(waker: Arc<dyn Wake>) -> Notify {
        Notify { birth: Birth::here(), ..Notify::new(waker) }
    }

    /// Returns false in a forked child of the reactor's process.
    #[inline]
    pub(crate) fn is_at_home(&self) -> bool {
        self.birth.is_here()
    }

    /// Returns the shared end of the calling thread, for blocking calls without a reactor.
    pub(crate) fn of_thread() -> Arc<Notify> {
        let new = || Arc::new(Notify::new(Arc::new(Unpark(thread::current()))));
        #[cfg(not(all(loom, test)))]
        {
            thread_local!(
                static HERE: std::cell::OnceCell<Arc<Notify>> =
                    const { std::cell::OnceCell::new() };
            );
            // A thread whose locals are destroyed gets a new value.
            HERE.try_with(|here| here.get_or_init(new).clone()).unwrap_or_else(|_| new())
        }
        #[cfg(all(loom, test))]
        new()
    }

    // The sleeper's side. Only the party itself calls these.

    /// Step 1: begins a sleep. The caller goes on with its requests and a `SeqCst` fence.
    #[inline]
    pub(crate) fn sleep(&self) {
        let number = self.sleep.load(Ordering::Relaxed);
        if number & 1 == 1 {
            self.sleep.store(number.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Step 7: ends the sleep. Returns true if a thread has ended it before, with a call of the
    /// waker.
    #[inline]
    pub(crate) fn awake(&self) -> bool {
        let number = self.sleep.load(Ordering::SeqCst);
        let woken = number & 1 == 1
            || self
                .sleep
                .compare_exchange(number, number + 1, Ordering::SeqCst, Ordering::SeqCst)
                .is_err();
        // No thread owes a wake-up now.
        self.rung.store(number | 1, Ordering::Release);
        woken
    }

    /// Returns true if no thread has ended the sleep.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleep.load(Ordering::SeqCst) & 1 == 0 // after the driver has looked
    }

    /// Parks the thread until the sleep is ended or until `deadline`. May return early.
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        if !self.is_asleep() {
            return;
        }
        #[cfg(not(all(loom, test)))]
        if let Some(deadline) = deadline {
            return thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        #[cfg(all(loom, test))]
        if deadline.is_some() {
            // A model has no time. A sleep that may end early does so.
            return thread::yield_now();
        }
        thread::park();
    }

    /// A part of step 4: returns true if a channel may have left its mark.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.marks.is_marked()
    }

    /// Makes the memory for a slot's marks, so that no sender allocates.
    pub(crate) fn prepare(&self, slot: u32) {
        self.marks.prepare(slot);
    }

    /// Makes the memory for the mark of a slot with a callback.
    pub(crate) fn prepare_callback(&self, slot: u32) {
        self.callbacks.prepare(slot);
    }

    /// Takes the marks of channels. The slots may include channels without news.
    #[inline]
    pub(crate) fn take_marks(&self, each: impl FnMut(u32)) {
        self.marks.take(each);
    }

    /// Takes the marks of callbacks.
    pub(crate) fn take_callbacks(&self, each: impl FnMut(u32)) {
        if self.callbacks.is_marked() {
            self.callbacks.take(each);
        }
    }

    /// A part of step 4: returns true if there may be a post, a due callback or a wake-up.
    #[inline]
    pub(crate) fn is_posted(&self) -> bool {
        self.posted.load(Ordering::SeqCst)
    }

    /// Returns true if another thread has posted: its posts run before a message it sent later.
    #[inline]
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressing.load(Ordering::SeqCst)
    }

    /// Returns true if a wake-up was requested and not taken.
    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    pub(crate) fn take_woken(&self) -> bool {
        self.is_woken() && self.woken.swap(false, Ordering::SeqCst)
    }

    /// Begins a batch of posts. Afterwards the caller takes all posts and callbacks, or
    /// [puts off](Self::put_off_posts) some.
    pub(crate) fn begin_posts(&self) -> Begun {
        self.posted.store(false, Ordering::SeqCst);
        let pressed = self.pressing.swap(false, Ordering::SeqCst);
        Begun { woken: self.woken.swap(false, Ordering::SeqCst), pressed }
    }

    /// Leaves posts to the next turn.
    #[cold]
    pub(crate) fn put_off_posts(&self, pressed: bool) {
        if pressed {
            self.pressing.store(true, Ordering::SeqCst);
        }
        self.publish_own();
    }

    // The senders' side.

    /// Takes step 6 of a sender.
    #[inline]
    pub(crate) fn mark(&self, cell: &RequestCell, slot: u32) {
        cell.number_mark(self.next_mark());
        self.marks.mark(slot);
    }

    /// Returns the number of the next mark.
    fn next_mark(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes the callback in this slot due. [`wake`](Self::wake) must follow.
    pub(crate) fn mark_callback(&self, cell: &RequestCell, slot: u32) {
        cell.number_mark(self.next_mark());
        self.callbacks.mark(slot);
        self.publish();
    }

    /// Tells the reactor that there is a post. [`wake`](Self::wake) must follow.
    pub(crate) fn publish(&self) {
        if std::thread::current().id() != self.owner {
            self.pressing.store(true, Ordering::SeqCst);
        }
        self.publish_own();
    }

    fn publish_own(&self) {
        self.posted.store(true, Ordering::SeqCst);
    }

    /// Ends the present wait, or else the next one.
    pub(crate) fn request_wake_up(&self) {
        // Always a read-modify-write, so that the taker sees all operations before it.
        self.woken.swap(true, Ordering::SeqCst);
        self.publish_own();
        self.wake();
    }

    /// Steps 6 to 8 of a sender that has read a request.
    // Inlined, like all functions between here and the syscall. A syscall overwrites the CPU's
    // return predictor, so each function that is open across the syscall costs a mispredicted
    // return.
    #[inline(always)]
    pub(crate) fn answer(&self, asked: Asked, cell: &RequestCell, slot: u32) {
        if asked.is_for_mark() {
            self.mark(cell, slot);
            // A request whose wake-up has failed stays: the next sender must try again.
            if self.wake() {
                cell.answered(asked);
            }
        } else {
            self.wake();
        }
    }

    /// Takes step 7 of a sender. The reactor also calls this when an outer loop sleeps for it.
    ///
    /// Returns false if the wake-up has failed. Then the next thread with news must try again.
    #[inline(always)]
    pub(crate) fn wake(&self) -> bool {
        let number = self.sleep.load(Ordering::SeqCst);
        if number & 1 == 0 {
            // A failed exchange stores nothing: a late sender cannot undo a later sleep.
            match self.sleep.compare_exchange(
                number,
                number + 1,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => self.ring(number + 1),
                Err(now) => self.help(now),
            }
        } else {
            self.help(number)
        }
    }

    /// Makes the wake-up of the sleep that `ended`. Returns false if all attempts have failed.
    #[inline(always)]
    fn ring(&self, ended: u64) -> bool {
        if !self.is_at_home() {
            return true;
        }
        let Ok(waker) = self.waker.try_read() else { return true }; // the reactor is going
        // A closure would be one more open function.
        let made = match &*waker {
            Some(waker) => waker.wake(),
            None => true,
        };
        drop(waker);
        if self.closed.load(Ordering::SeqCst) {
            self.drop_waker();
        }
        // If all attempts have failed, the next sender makes the wake-up.
        if made && self.sleep.load(Ordering::SeqCst) == ended {
            self.rung.store(ended, Ordering::Release);
        }
        made
    }

    /// Drops the waker of a reactor that is gone, which closes its fd. Never waits: if another
    /// thread is waking the reactor, that thread drops the waker afterwards.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst); // the lock's own operations are weaker
        self.drop_waker();
    }

    #[cold]
    fn drop_waker(&self) {
        let waker = self.waker.try_write().ok().and_then(|mut waker| waker.take());
        // The waker may be a user's, so the drop comes after the lock.
        drop(waker);
    }

    /// Makes the wake-up that another thread owes, if that thread takes too long. Returns false if
    /// the wake-up has failed.
    #[inline]
    fn help(&self, ended: u64) -> bool {
        self.rung.load(Ordering::Acquire) == ended || self.help_slow(ended)
    }

    #[cold]
    #[inline(never)]
    fn help_slow(&self, ended: u64) -> bool {
        let is_over = || {
            self.rung.load(Ordering::Acquire) == ended || self.sleep.load(Ordering::SeqCst) != ended
        };
        wait_briefly(A_SYSCALL, is_over) || self.ring(ended)
    }
}
