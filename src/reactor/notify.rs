//! How other threads reach a sleeping reactor: the only part of it that is `Send + Sync`.
//!
//! # The wake protocol
//! Each channel has a word `armed`, set by the reactor and taken by the first sender that sees it; the reactor has a flag `sleeping`.
//!
//! | reactor, about to block | sender |
//! |---|---|
//! | 1. `sleeping = true` | 1. claims the tail (a `SeqCst` RMW): the message is published as "to come" |
//! | 2. for each channel: sets `armed`, if it is not | 2. reads `armed`; not set: done, nothing else to do |
//! | 3. a `SeqCst` fence | 3. if a mark was asked for: takes `armed`, pushes the mark |
//! | 4. for each channel: reads the tail; and reads the marks; something: stay awake | 4. takes `sleeping`; it was true: wakes the driver |
//! | 5. sleeps in the driver | |
//!
//! The sender's steps are `SeqCst` and so in one order with the fence. One that claims before the fence is seen in step 4. One that claims
//! after it sees `sleeping` and `armed`, unless another sender has taken them, which then wakes the reactor, or has woken it. Taking `sleeping` clears it: **no
//! lost wake-up, one wake-up a sleep**. A sender whose receiver is awake pays one load.
//!
//! A `select!` looks at its few channels itself: it asks for a [`Call::Wake`], which senders leave in place and the reactor takes back when it is awake.
//! A wait for thousands must cost what is ready: it asks for a [`Call::Mark`], which says *which* channel to look at, and which the sender that
//! answers it takes away. The loom models of this table are in `channel/models.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Instant;

use super::remote::{Post, Posts};
use crate::driver::Wake;
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, Mutex, Ordering, fence, full_fence, thread};
use crate::sys::fork::Birth;

/// The shared end of a reactor.
pub(crate) struct Notify {
    sleeping: AtomicBool,
    /// Whether `marks` has any, to be read without the lock.
    marked: AtomicBool,
    /// Tokens of the channels whose `Call::Mark` was taken: at most one for each arming.
    marks: Mutex<Vec<u64>>,
    /// Whether there are posts, or somebody asked for a wake-up, to be read without the lock.
    posted: AtomicBool,
    /// Some of them are another thread's, which may send a message next.
    pressing: AtomicBool,
    owner: ThreadId,
    /// Somebody asked for a wake-up.
    woken: AtomicBool,
    posts: Mutex<Posts>,
    waker: Arc<dyn Wake>,
    /// Even: open, whoever takes it deals with us. Odd: taken, or not given out. (`channel/rendezvous.rs`)
    ticket: AtomicU64,
    /// The reactor's process: in a forked child there is nobody to wake.
    birth: Birth,
}

/// The right to deal with a party that blocks, and may do so at several channels: the first to [`take`](Self::take) it has it.
pub(crate) struct Ticket {
    party: Arc<Notify>,
    number: u64,
}

impl Ticket {
    /// For the sleep that `party` is about to begin, or has begun. One that was taken meanwhile comes out taken.
    pub(crate) fn issue(party: &Arc<Notify>) -> Ticket {
        let number = party.ticket.load(Ordering::Acquire) & !1;
        Ticket { party: party.clone(), number }
    }

    pub(crate) fn take(&self) -> bool {
        let (open, taken) = (self.number, self.number + 1);
        self.party.ticket.compare_exchange(open, taken, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.party.ticket.load(Ordering::Acquire) == self.number
    }

    pub(crate) fn is_of(&self, party: &Arc<Notify>) -> bool {
        Arc::ptr_eq(&self.party, party)
    }

    pub(crate) fn party(&self) -> &Arc<Notify> {
        &self.party
    }

    pub(crate) fn into_party(self) -> Arc<Notify> {
        self.party
    }
}

/// Wakes a thread, for channels without a reactor.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(&self) -> std::io::Result<()> {
        self.0.unpark();
        Ok(())
    }
}

/// Makes room for `n` in all.
pub(crate) fn make_room(list: &mut Vec<u64>, n: usize) {
    list.reserve(n.saturating_sub(list.len()));
}

/// How a channel's next message is to be made known. The greater one includes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Call {
    /// Wake the receiver if it sleeps.
    Wake = 1,
    /// Leave the channel's mark, too.
    Mark = 2,
}

/// What a reactor asks of a channel whose receiver is registered with it.
pub(crate) trait Probe: Send + Sync {
    /// There is a message, or the news that none will come.
    fn is_ready(&self) -> bool;
    /// Asks to be told when the next message comes, with a fence. Returns whether the channel is ready already.
    fn arm(&self, call: Call) -> bool;
}

impl Notify {
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Notify {
        Notify {
            sleeping: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            marks: Mutex::new(Vec::new()),
            posted: AtomicBool::new(false),
            pressing: AtomicBool::new(false),
            owner: std::thread::current().id(),
            woken: AtomicBool::new(false),
            posts: Mutex::new(Posts::default()),
            waker,
            ticket: AtomicU64::new(1),
            birth: Birth::ANYWHERE,
        }
    }

    /// One of a reactor, which a forked child does not wake.
    pub(crate) fn of_reactor(waker: Arc<dyn Wake>) -> Notify {
        Notify { birth: Birth::here(), ..Notify::new(waker) }
    }

    /// Returns false in a forked child of the reactor's process.
    #[inline]
    pub(crate) fn is_at_home(&self) -> bool {
        self.birth.is_here()
    }

    /// The one of the calling thread, for blocking calls without a reactor.
    pub(crate) fn of_thread() -> Arc<Notify> {
        let new = || Arc::new(Notify::new(Arc::new(Unpark(thread::current()))));
        #[cfg(not(all(loom, test)))]
        {
            thread_local!(static HERE: std::cell::OnceCell<Arc<Notify>> = const { std::cell::OnceCell::new() });
            // While the thread is torn down there is none to be kept.
            HERE.try_with(|here| here.get_or_init(new).clone()).unwrap_or_else(|_| new())
        }
        #[cfg(all(loom, test))]
        new()
    }

    /// Sleeps, as a thread, until woken since the last [`sleep`](Self::sleep), or until `deadline`. May return early.
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        if !self.sleeping.load(Ordering::SeqCst) {
            return;
        }
        #[cfg(not(all(loom, test)))]
        if let Some(deadline) = deadline {
            return thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let _ = deadline;
        thread::park();
    }

    /// Begins a new sleep, as far as tickets go. Only the party itself calls it.
    #[inline]
    pub(crate) fn open_ticket(&self) {
        let number = (self.ticket.load(Ordering::Relaxed) | 1).wrapping_add(1);
        self.ticket.store(number, Ordering::Release);
    }

    /// Makes the ticket worthless, if nobody has taken it.
    pub(crate) fn void_ticket(&self) {
        let number = self.ticket.load(Ordering::Acquire);
        if number & 1 == 0 {
            let _ = self.ticket.compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Step 1 of the reactor. The caller goes on with [`fence`](crate::sync::fence).
    pub(crate) fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
    }

    /// Whether what [`sleep`](Self::sleep) began has been ended by nobody.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst) // after the driver has looked
    }

    /// Ends what [`sleep`](Self::sleep) began. Returns whether the reactor was woken since: once at the most, by one call of the driver's waker.
    pub(crate) fn awake(&self) -> bool {
        !self.take_sleeping()
    }

    /// A compare-and-swap that fails stores nothing: a late sender cannot undo a later `sleep`.
    #[inline]
    fn take_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst)
            && self.sleeping.compare_exchange(true, false, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// A part of step 4 of the reactor.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst)
    }

    /// Steps 3 and 4 of a sender that took `armed`.
    // Inlined, as the whole way to the syscall is: the kernel's own calls push ours out of the CPU's return predictor, so every frame that is open across a syscall
    // costs a mispredicted return.
    #[inline(always)]
    pub(crate) fn call(&self, mark: bool, token: u64) {
        if mark {
            self.mark(token);
        }
        self.wake();
    }

    fn mark(&self, token: u64) {
        self.marks.lock().push(token);
        self.marked.store(true, Ordering::SeqCst);
        full_fence();
    }

    /// Step 4 of a sender. Also raised by the reactor itself when an outer loop sleeps for it.
    #[inline(always)]
    pub(crate) fn wake(&self) {
        if self.take_sleeping() && self.is_at_home() {
            // The waker's only error is a closed or full counter, and neither can be: it owns its fd and handles a full one.
            let _ = self.waker.wake();
        }
    }

    /// Leaves a post for the loop, made only if it will be run; wakes it. Returns false when the reactor is gone.
    pub(crate) fn post(&self, make: impl FnOnce() -> Option<Post>) -> bool {
        let left = self.leave(make);
        if left {
            self.wake();
        }
        left
    }

    /// The first half of [`post`](Self::post): all of it but the wake-up, which must follow if it returns true.
    fn leave(&self, make: impl FnOnce() -> Option<Post>) -> bool {
        if !self.is_at_home() {
            return false; // without the lock, which a thread of the parent may have held
        }
        let mut posts = self.posts.lock();
        if posts.closed {
            return false;
        }
        posts.list.extend(make());
        drop(posts);
        if std::thread::current().id() != self.owner {
            self.pressing.store(true, Ordering::SeqCst);
        }
        self.publish();
        true
    }

    /// Ends the wait under way or the next one.
    pub(crate) fn post_wake(&self) {
        // A read-modify-write even if somebody has asked already: who takes it then sees what was done before.
        self.woken.swap(true, Ordering::SeqCst);
        self.publish();
        self.wake();
    }

    /// Like a mark: published before the sleeper is woken.
    fn publish(&self) {
        self.posted.store(true, Ordering::SeqCst);
        full_fence();
    }

    /// Whether [`take_posts`](Self::take_posts) would find something. A part of step 4 of the reactor.
    #[inline]
    pub(crate) fn is_posted(&self) -> bool {
        self.posted.load(Ordering::SeqCst)
    }

    /// Whether another thread has posted something: it has to be done before a message is received that was sent after it.
    #[inline]
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressing.load(Ordering::SeqCst)
    }

    /// Whether somebody asked for a wake-up since it was last taken.
    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    pub(crate) fn take_woken(&self) -> bool {
        self.is_woken() && self.woken.swap(false, Ordering::SeqCst)
    }

    /// Moves the posts behind those in `into`. Returns whether somebody asked for a wake-up.
    pub(crate) fn take_posts(&self, into: &mut VecDeque<Post>) -> bool {
        self.posted.store(false, Ordering::SeqCst);
        self.pressing.store(false, Ordering::SeqCst);
        full_fence();
        let list = &mut self.posts.lock().list;
        if into.is_empty() {
            std::mem::swap(list, into);
        } else {
            into.append(list);
        }
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// Takes the last posts back as long as they are for callbacks, and not `is_live` any more.
    pub(crate) fn take_back_calls(&self, is_live: impl Fn(u64) -> bool) {
        let list = &mut self.posts.lock().list;
        while let Some(&Post::Call(token)) = list.back() {
            if is_live(token) {
                break;
            }
            list.pop_back();
        }
    }

    /// Takes no more posts; gives those that are left.
    pub(crate) fn close(&self) -> VecDeque<Post> {
        if !self.is_at_home() {
            return VecDeque::new(); // without the lock, as in `leave`
        }
        let posts = &mut *self.posts.lock();
        posts.closed = true;
        std::mem::take(&mut posts.list)
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.is_at_home() || self.posts.lock().closed
    }

    /// Makes room for the marks of `n` channels, so that no sender allocates.
    pub(crate) fn make_room(&self, n: usize) {
        make_room(&mut self.marks.lock(), n);
    }

    /// Moves the marks to `into`, which is empty and keeps its capacity for the next time.
    pub(crate) fn collect(&self, into: &mut Vec<u64>) {
        debug_assert!(into.is_empty());
        self.marked.store(false, Ordering::SeqCst);
        full_fence();
        std::mem::swap(&mut *self.marks.lock(), into);
    }
}

/// Whether, and how, a channel's next message is to be made known: step 2 of the protocol.
pub(crate) struct Armed(AtomicU8);

/// No [`Call`] is asked for.
const SILENT: u8 = 0;

impl Armed {
    pub(crate) fn new() -> Armed {
        Armed(AtomicU8::new(SILENT))
    }

    /// The reactor's step 2. A fence and a look at the channel must follow.
    #[inline]
    pub(crate) fn ask(&self, call: Call) {
        // Only we set it, and a call that marks wakes too.
        if self.0.load(Ordering::Relaxed) < call as u8 {
            self.0.store(call as u8, Ordering::Relaxed);
        }
    }

    /// Takes a `Call::Wake` back, after the sleep.
    #[inline]
    pub(crate) fn unask(&self) {
        // Senders leave that one alone.
        if self.0.load(Ordering::Relaxed) == Call::Wake as u8 {
            self.0.store(SILENT, Ordering::Relaxed);
        }
    }

    /// The sender's step 2, after it has published its message.
    #[inline]
    pub(crate) fn read(&self) -> Option<Asked> {
        full_fence();
        let armed = self.0.load(Ordering::SeqCst);
        (armed != SILENT).then_some(Asked(armed))
    }

    /// The first half of the sender's step 3: whether to mark, or `None` if another sender has taken the call.
    #[inline]
    pub(crate) fn take(&self, asked: Asked) -> Option<bool> {
        let mark = asked.0 == Call::Mark as u8;
        let lost =
            mark && self.0.compare_exchange(asked.0, SILENT, Ordering::SeqCst, Ordering::SeqCst).is_err();
        (!lost).then_some(mark)
    }
}

/// What a sender has read in [`Armed`].
#[derive(Clone, Copy)]
pub(crate) struct Asked(u8);

/// What a notifier rings: a channel whose only message is that there is something. Or, for a callback, a post that it is due, which is made once.
pub(crate) struct Bell {
    rung: AtomicBool,
    calls: bool,
    armed: Armed,
    notify: Arc<Notify>,
    token: u64,
}

impl Bell {
    pub(crate) fn new(notify: Arc<Notify>, token: u64) -> Bell {
        Bell { rung: AtomicBool::new(false), calls: false, armed: Armed::new(), notify, token }
    }

    /// One that makes the callback of this token due.
    pub(crate) fn of_call(notify: Arc<Notify>, token: u64) -> Bell {
        Bell { calls: true, ..Bell::new(notify, token) }
    }

    /// A read-modify-write even if the bell has been rung: who hears it then sees what was done before.
    #[inline]
    pub(crate) fn ring(&self) {
        if self.toll() {
            self.wake();
        }
    }

    /// The first half of [`ring`](Self::ring): all of it but the wake-up. Returns whether [`wake`](Self::wake) must follow. Who rings many bells tolls all of them
    /// first, so that a reactor that is woken finds them all.
    #[inline]
    pub(crate) fn toll(&self) -> bool {
        if self.rung.swap(true, Ordering::SeqCst) {
            return false;
        }
        if self.calls {
            return self.notify.leave(|| Some(Post::Call(self.token)));
        }
        let Some(mark) = self.armed.read().and_then(|asked| self.armed.take(asked)) else { return false };
        if mark {
            self.notify.mark(self.token);
        }
        true
    }

    /// The second half.
    #[inline(always)] // see Notify::call
    pub(crate) fn wake(&self) {
        self.notify.wake();
    }

    /// Whether it was rung; silent from now on.
    #[inline]
    pub(crate) fn hear(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.rung.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn ask(&self, call: Call) {
        self.armed.ask(call);
    }

    pub(crate) fn unask(&self) {
        self.armed.unask();
    }
}

impl Probe for Bell {
    #[inline]
    fn is_ready(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    fn arm(&self, call: Call) -> bool {
        self.armed.ask(call);
        fence(Ordering::SeqCst);
        self.is_ready()
    }
}
