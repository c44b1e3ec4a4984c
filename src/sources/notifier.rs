//! Notifiers: bells that other threads ring, which bring channels of other crates into a `select!`.
//!
//! # Why no ring is lost
//! A ring is a read-modify-write of one flag, and so is the hearing. If the bell is rung already, a
//! ringer does no more than that. The reactor hears the bell later and reads this ringer's write,
//! so it sees all earlier operations of the ringer. The first ringer wakes the reactor by the
//! protocol of `wake/mod.rs`, with the flag in place of the tail. That is at most one `write` for
//! each change of the bell from silent to rung, and none while the loop is awake.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use super::{BeforeSleep, End, Internals, Source, common, keyed};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::wake::{Bell, Probe, Request};

/// A bell that any thread rings, to make a [`Notified`] ready. Made by [`Handle::notifier`]. Clone
/// the notifier for more threads.
///
/// ```
/// use pollmux::{Notifier, Reactor, select};
/// use std::sync::{Arc, Mutex};
///
/// let reactor = Reactor::new()?;
/// let (notifier, notified) = reactor.notifier();
/// let list = Arc::new(Mutex::new(Vec::new())); // stands for any queue
/// let threads: Vec<_> = (0..2)
///     .map(|n| {
///         let (notifier, list): (Notifier, _) = (notifier.clone(), list.clone());
///         std::thread::spawn(move || {
///             list.lock().unwrap().push(n);
///             notifier.notify(); // after the push
///         })
///     })
///     .collect();
/// let mut found = 0;
/// while found < 2 {
///     select! { reactor; recv(notified) -> () => found += list.lock().unwrap().drain(..).count() }
/// }
/// # threads.into_iter().for_each(|thread| thread.join().unwrap());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Notifier {
    bell: Arc<Bell>,
}

/// A source that is ready when its bell was rung since the last take. It gives one `()`, however
/// often the bell was rung.
///
/// ```
/// use pollmux::{Reactor, Source};
///
/// let reactor = Reactor::new()?;
/// let (notifier, notified) = reactor.notifier();
/// notifier.notify();
/// notifier.notify();
/// assert_eq!(notified.try_take(), Some(()));
/// assert_eq!(notified.try_take(), None);
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the source silences its notifiers"]
pub struct Notified {
    bell: Arc<Bell>,
    slot: Slot,
}

impl Handle {
    /// Makes a bell for other threads to ring, and the source that hears the bell.
    ///
    /// ```
    /// use pollmux::{Reactor, select};
    ///
    /// let reactor = Reactor::new()?;
    /// let (notifier, notified) = reactor.notifier();
    /// std::thread::spawn(move || notifier.notify());
    /// select! { reactor; recv(notified) -> () => println!("rung") }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn notifier(&self) -> (Notifier, Notified) {
        let slot = Slot::new(self, SourceKind::Notified);
        let bell = Arc::new(Bell::new(slot.notify().clone(), slot.number()));
        if !self.is_closed() {
            slot.register_channel(bell.clone());
        }
        (Notifier { bell: bell.clone() }, Notified { bell, slot })
    }
}

impl Notifier {
    /// Rings the bell. The loop that hears the bell sees what this thread did before.
    ///
    /// # Cost
    /// No syscall while the reactor is awake or the bell is rung already. Otherwise one `write`.
    #[inline]
    pub fn notify(&self) {
        self.bell.ring();
    }

    /// Ties the sending end of some channel to this bell. [`Notified::receiving`] has an example.
    pub fn attach<S>(self, sender: S) -> NotifyingSender<S> {
        NotifyingSender { sender, notifier: Ringer(self) }
    }
}

impl_debug!([] Notifier, |it| rung: it.bell.is_rung());

/// The sending end of a channel of another crate, tied to a bell. It rings after each use. When it
/// is dropped it drops the sender, and then rings.
///
/// Made by [`Notifier::attach`], and cloned as the sender is. [`Notified::receiving`] has an
/// example.
#[derive(Clone, Debug)]
pub struct NotifyingSender<S> {
    // The sender is dropped before the ring, so that the receiver then finds the drop.
    sender: S,
    notifier: Ringer,
}

#[derive(Clone, Debug)]
struct Ringer(Notifier);

impl Drop for Ringer {
    fn drop(&mut self) {
        self.0.notify();
    }
}

struct Rings<'a>(&'a Notifier);

impl Drop for Rings<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.notify();
    }
}

impl<S> NotifyingSender<S> {
    /// Calls `f` with the sender. Rings afterwards, also when `f` panics. [`Notified::receiving`]
    /// has an example.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&S) -> R) -> R {
        // The guard also rings if `f` panics, which may have sent a message before.
        let _rings = Rings(&self.notifier.0);
        f(&self.sender)
    }
}

impl Notified {
    /// Hears the bell. Returns true if the bell was rung since the last time.
    #[inline]
    fn hear(&self) -> bool {
        self.bell.hear()
    }

    /// Makes a source of the receiving end of some channel. `try_recv` gives the next message, and
    /// `None` if there is no message now.
    ///
    /// The loop calls the closure when the bell has been rung, and again until it gives `None`. A
    /// ring must follow every send: [`Notifier::attach`] sees to that.
    ///
    /// ```
    /// use pollmux::{Reactor, select};
    /// use std::sync::mpsc::{self, TryRecvError};
    ///
    /// let reactor = Reactor::new()?;
    /// let (notifier, notified) = reactor.notifier();
    /// let (tx, rx) = mpsc::channel();
    /// let tx = notifier.attach(tx);
    /// let source = notified.receiving(|| match rx.try_recv() {
    ///     Err(TryRecvError::Empty) => None,
    ///     message => Some(message),
    /// });
    ///
    /// std::thread::spawn(move || tx.with(|tx| tx.send("theirs")));
    /// select! { reactor; recv(source) -> word => assert_eq!(word, Ok("theirs")) }
    /// select! { reactor; recv(source) -> end => assert!(end.is_err()) } // the sender is gone
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// A new source counts as rung, so that the loop finds messages that were sent before. So a
    /// [`wait`](Handle::wait) or an embedded turn reports the source once, even without a message.
    pub fn receiving<T, F: Fn() -> Option<T>>(self, try_recv: F) -> FnSource<F> {
        // A message may have been sent before, or without a ring.
        if !self.slot.is_inert() {
            self.bell.ring();
        }
        FnSource { notified: self, try_recv, more: Cell::new(true), held: RefCell::new(None) }
    }

    fn settle(&self, over: bool) {
        if over && self.slot.is_ready() && !self.bell.is_rung() {
            self.slot.drained();
        }
    }
}

common!([] Notified, |it| rung: it.bell.is_rung());

impl Source for Notified {
    type Item = ();

    #[inline]
    fn is_ready(&self) -> bool {
        self.bell.is_rung()
    }

    #[inline]
    fn try_take(&self) -> Option<()> {
        let heard = self.hear();
        self.settle(true);
        heard.then_some(())
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.bell.ask(Request::Wake);
        Ok(())
    }

    fn after_sleep(&self) {
        self.bell.unask();
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot).without_look()
    }
}

/// The receiving end of a channel of another crate, as a source. Made by [`Notified::receiving`],
/// which has an example.
///
/// A [`Select`](crate::Select) that chooses this source receives at once. The source keeps the item
/// until you take it.
#[must_use = "dropping the source drops the closure that receives"]
pub struct FnSource<F: Receives> {
    notified: Notified,
    try_recv: F,
    /// True if the closure gave an item last time, so that more may follow.
    more: Cell<bool>,
    /// The item of a chosen case.
    held: RefCell<Option<F::Item>>,
}

/// A closure that receives. Names the type of its messages.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not receive from a channel",
    label = "not a closure that returns an `Option`",
    note = "write a closure that never waits: `notified.receiving(move || rx.try_recv().ok())`"
)]
pub trait Receives {
    /// The messages.
    type Item;

    /// Calls the closure.
    fn receive(&self) -> Option<Self::Item>;
}

impl<T, F: Fn() -> Option<T>> Receives for F {
    type Item = T;

    #[inline]
    fn receive(&self) -> Option<T> {
        self()
    }
}

impl<F: Receives> FnSource<F> {
    fn receive(&self) -> Option<F::Item> {
        // The bell is heard before the call, so a later send rings again.
        self.notified.hear();
        // After a panic the source stays ready, also for a wait.
        self.more.set(true);
        self.notified.slot.make_ready();
        let item = self.try_recv.receive();
        self.more.set(item.is_some());
        if item.is_some() {
            self.notified.slot.progressed();
        }
        self.notified.settle(item.is_none());
        item
    }
}

keyed!([F: Receives] FnSource<F>, notified.slot);

impl<T, F: Fn() -> Option<T>> Source for FnSource<F> {
    type Item = T;

    #[inline]
    fn is_ready(&self) -> bool {
        self.more.get() || self.notified.is_ready()
    }

    fn try_take(&self) -> Option<T> {
        let held = self.held.take();
        held.or_else(|| self.receive())
    }

    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.notified.before_sleep(blocking)
    }

    fn after_sleep(&self) {
        self.notified.after_sleep();
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        // Only the closure knows if there is an item.
        self.notified.internals().unlisted_if(true).with_end(self)
    }
}

impl<F: Receives> End for FnSource<F> {
    /// Receives the item of a chosen case. Without an item the set chooses another case.
    fn hold(&self) -> bool {
        if self.held.borrow().is_some() {
            return true;
        }
        let item = self.receive();
        let holds = item.is_some();
        // `held` was empty, unless the closure has used this same source.
        drop(self.held.replace(item));
        holds
    }
}

impl_debug!([F: Receives] FnSource<F>, |it| notified: it.notified, more: it.more.get());
