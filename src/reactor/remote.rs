//! What other threads may ask of a reactor: [`Remote`], and the ids by which they name its timers.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::asks::{Ask, Asks, PlaceId};
use super::slots::{Flag, State};
use super::{Core, Handle};
use crate::channel::{self, Receiver, Sender};
use crate::driver::Clock;
use crate::sys::{Time, nanos};
use crate::wake::Notify;

/// Names a [`Timer`](crate::Timer), a [`Ticker`](crate::Ticker) or a [`Callback`](crate::Callback)
/// from anywhere: `Send`, `Copy`, and never given to another one.
///
/// An id whose timer has been dropped is *dead*: what is asked of it is an error, and touches
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    reactor: u64,
    token: u64,
    ticker: bool,
}

impl TimerId {
    /// An id to be given out: requests for it coalesce.
    pub(crate) fn new(core: &Core, token: u64, ticker: bool) -> TimerId {
        core.asks.prepare(token as u32);
        TimerId::internal(core, token, ticker)
    }

    pub(super) fn slot(self) -> u32 {
        self.token as u32
    }

    /// An id that stays inside.
    pub(super) fn internal(core: &Core, token: u64, ticker: bool) -> TimerId {
        TimerId { reactor: core.number, token, ticker }
    }
}

impl fmt::Debug for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, generation) = (self.token as u32, self.token >> 32);
        write!(f, "TimerId({}:{slot}.{generation})", self.reactor)
    }
}

/// Why nothing was done to the timer that a [`TimerId`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerError {
    /// The timer, or its reactor, has been dropped.
    Dead,
    /// The timer is another reactor's.
    OtherReactor,
    /// The period of a ticker must not be zero.
    ZeroPeriod,
    /// The reactor is the parent process's, and this one is a forked child.
    Forked,
}

impl fmt::Display for TimerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimerError::Dead => "the timer has been dropped",
            TimerError::OtherReactor => "the timer belongs to another reactor",
            TimerError::ZeroPeriod => "the period of a ticker must not be zero",
            TimerError::Forked => {
                "the timer's reactor belongs to the parent process: this one was forked from it"
            }
        })
    }
}

impl Error for TimerError {}

impl From<TimerError> for io::Error {
    fn from(error: TimerError) -> io::Error {
        let kind = match error {
            TimerError::Dead => io::ErrorKind::NotFound,
            TimerError::Forked => io::ErrorKind::NotConnected,
            TimerError::OtherReactor | TimerError::ZeroPeriod => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// The reactor of a [`Remote`] has been dropped; gives back what was posted.
pub struct PostError<F>(pub F);

impl<F> fmt::Debug for PostError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostError(..)")
    }
}

impl<F> fmt::Display for PostError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(super::fork::gone_or_forked())
    }
}

impl<F> Error for PostError<F> {}

impl<F> From<PostError<F>> for io::Error {
    fn from(_: PostError<F>) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, super::fork::gone_or_forked())
    }
}

/// Why [`Remote::try_post`] has refused a closure; gives the closure back.
#[non_exhaustive]
pub enum TryPostError<F> {
    /// As many posts wait for the loop as [`Builder::post_limit`](crate::Builder::post_limit)
    /// allows.
    Full(F),
    /// The reactor has been dropped, or belongs to the process that this one was forked from.
    Closed(F),
}

impl<F> TryPostError<F> {
    /// The closure.
    pub fn into_inner(self) -> F {
        match self {
            TryPostError::Full(f) | TryPostError::Closed(f) => f,
        }
    }

    /// Returns true for [`Full`](Self::Full): a later attempt may succeed.
    pub fn is_full(&self) -> bool {
        matches!(self, TryPostError::Full(_))
    }
}

impl<F> fmt::Debug for TryPostError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "Closed(..)" })
    }
}

impl<F> fmt::Display for TryPostError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryPostError::Full(_) => {
                "too many posts wait for the reactor (the limit is Builder::post_limit): try again \
                 later"
            }
            TryPostError::Closed(_) => super::fork::gone_or_forked(),
        })
    }
}

impl<F> Error for TryPostError<F> {}

impl<F> From<TryPostError<F>> for io::Error {
    fn from(error: TryPostError<F>) -> io::Error {
        let kind =
            if error.is_full() { io::ErrorKind::WouldBlock } else { io::ErrorKind::NotConnected };
        io::Error::new(kind, error.to_string())
    }
}

/// A request of another thread to the loop.
pub(crate) enum Post {
    Run(Box<dyn FnOnce(&Handle) + Send>),
    /// Requests for one timer (`asks.rs`).
    Ask(PlaceId),
    /// A request that found no place.
    Unplaced(Box<Ask>),
}

/// The way of posts to a loop: an unbounded channel, so that no poster holds up the loop or others.
///
/// A poster writes its post into the channel, and then publishes in [`Notify`] that there is one.
pub(crate) fn mailbox() -> (Sender<Post>, Receiver<Post>) {
    channel::unbounded()
}

/// A reactor, for other threads: wakes it, runs closures on it, stops and resets its timers. Made
/// by [`Handle::remote`].
///
/// Everything asked is done on the reactor's thread, in the order in which it was asked, where its
/// next turn begins, and before a message is received that the same thread sent after it; a
/// sleeping reactor is woken, by one `write`, once for each sleep.
///
/// ```
/// use pollmux::{Reactor, select};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let timeout = reactor.after(Duration::from_secs(3600));
/// let (remote, id) = (reactor.remote(), timeout.id());
/// std::thread::spawn(move || {
///     remote.post(|handle| assert!(!handle.is_closed())).unwrap();
///     remote.reset(id, Duration::ZERO).unwrap(); // no need to wait for an hour
/// });
/// select! { reactor; recv(timeout) -> _ => println!("over") }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Remote {
    notify: Arc<Notify>,
    posts: Sender<Post>,
    asks: Arc<Asks>,
    clock: Clock,
    reactor: u64,
    /// For [`try_post`](Self::try_post).
    limit: usize,
}

impl Remote {
    /// Ends the wait under way, or else the next one: a `select!` looks at its sources again,
    /// [`Handle::wait`] returns, perhaps with no event.
    pub fn wake(&self) {
        self.notify.request_wake_up();
    }

    /// Runs `f` on the reactor's thread, however many posts wait ([`try_post`](Self::try_post) has
    /// a limit). Allocates. When the reactor has been dropped the error gives `f` back; one that is
    /// dropped later drops `f`.
    ///
    /// The queue of posts grows with the posts that wait. When more than 64 KiB of it were less
    /// than an eighth full for a second, the loop gives the rest back in one of its next turns.
    pub fn post<F: FnOnce(&Handle) + Send + 'static>(&self, f: F) -> Result<(), PostError<F>> {
        if !self.notify.is_at_home() {
            return Err(PostError(f));
        }
        // Boxed only when it is sure to be taken.
        let mut f = Some(f);
        let post = || match f.take() {
            Some(f) => Post::Run(Box::new(f)),
            None => unreachable!("a post is made once"),
        };
        let posted = self.posts.try_send_with(post).is_ok();
        match f {
            Some(f) => Err(PostError(f)),
            None => {
                debug_assert!(posted);
                self.asks.closure_pushed();
                self.tell();
                Ok(())
            }
        }
    }

    /// [`post`](Self::post) that refuses when too many posts wait for the loop.
    ///
    /// The limit is [`Builder::post_limit`](crate::Builder::post_limit), 2^20 by default. It counts
    /// the closures that wait, and the timers that requests wait for. Several threads at once may
    /// exceed the limit by one closure each. The error says why, and gives the closure back.
    /// Allocates when it accepts.
    ///
    /// ```
    /// use pollmux::{reactor::TryPostError, Reactor};
    ///
    /// let reactor = Reactor::builder().post_limit(1).build()?;
    /// let remote = reactor.remote();
    /// assert!(remote.try_post(|_| {}).is_ok());
    /// assert!(matches!(remote.try_post(|_| {}), Err(TryPostError::Full(_))));
    /// drop(reactor);
    /// assert!(matches!(remote.try_post(|_| {}), Err(TryPostError::Closed(_))));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_post<F: FnOnce(&Handle) + Send + 'static>(
        &self,
        f: F,
    ) -> Result<(), TryPostError<F>> {
        if !self.is_closed() && self.posts.len() >= self.limit {
            return Err(TryPostError::Full(f));
        }
        self.post(f).map_err(|PostError(f)| TryPostError::Closed(f))
    }

    /// Tells the loop that there is a post.
    fn tell(&self) {
        self.notify.publish();
        self.notify.wake();
    }

    /// Stops a timer of the reactor.
    ///
    /// Requests for one timer coalesce: those that wait for the loop take the memory of one, and
    /// the loop does their sum in one step. A request allocates nothing once as many *timers* had a
    /// request on the way before. No request waits for another thread.
    ///
    /// The error says what is known at once. A timer that turns out to be dead when the loop gets
    /// there is left alone and counted in [`Stats::stale`](crate::reactor::Stats::stale); to be
    /// told, [`post`](Self::post) a closure with [`Handle::stop_timer`] in it.
    pub fn stop(&self, id: TimerId) -> Result<(), TimerError> {
        self.ask(id, Ask::stop(id.token, id.ticker))
    }

    /// Resets a timer of the reactor to `d` from now: from the time of this call, not from when the
    /// loop gets there. A ticker gets `d` as its period. Errors as [`stop`](Self::stop) has them.
    pub fn reset(&self, id: TimerId, d: Duration) -> Result<(), TimerError> {
        if id.ticker && d.is_zero() {
            return Err(TimerError::ZeroPeriod);
        }
        let at = self.clock.now() + d;
        self.ask(id, Ask::reset(id.token, id.ticker, at.as_nanos(), nanos(d)))
    }

    fn ask(&self, id: TimerId, ask: Ask) -> Result<(), TimerError> {
        if id.reactor != self.reactor {
            return Err(TimerError::OtherReactor);
        }
        if !self.notify.is_at_home() {
            return Err(TimerError::Forked);
        }
        if self.posts.is_disconnected() {
            return Err(TimerError::Dead);
        }
        match self.asks.join(ask) {
            Ok(None) => {}
            Ok(Some(placed)) => {
                if self.posts.try_send(Post::Ask(placed.place)).is_err() {
                    self.asks.take(placed.place);
                    return Err(TimerError::Dead);
                }
                self.asks.placed(&placed);
            }
            Err(ask) => {
                let slot = ask.token as u32;
                let post = Post::Unplaced(Box::new(ask));
                self.posts.try_send(post).map_err(|_| TimerError::Dead)?;
                self.asks.forget(slot);
            }
        }
        self.tell();
        Ok(())
    }

    /// Whether the reactor has been dropped.
    pub fn is_closed(&self) -> bool {
        !self.notify.is_at_home() || self.posts.is_disconnected()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("reactor", &self.reactor)
            .field("closed", &self.is_closed())
            .finish()
    }
}

impl Handle {
    /// This reactor, for other threads.
    pub fn remote(&self) -> Remote {
        Remote {
            notify: self.core.notify.clone(),
            posts: self.core.posting.clone(),
            asks: self.core.asks.clone(),
            clock: self.core.clock.source(),
            reactor: self.core.number,
            limit: self.core.post_limit,
        }
    }

    /// Stops the timer, ticker or callback that `id` names. Returns as its own `stop` does. A
    /// detached callback is gone then.
    pub fn stop_timer(&self, id: TimerId) -> Result<bool, TimerError> {
        let slot = self.timer_slot(id)?;
        let core = &self.core;
        let chunk = core.table.borrow().slots.chunk(slot).clone();
        let stopped = core.stop(&chunk, slot);
        if stopped && chunk.node(slot).is(Flag::Detached) && chunk.has_call(slot) {
            core.release(&chunk, slot);
        }
        Ok(stopped)
    }

    /// Resets the timer, ticker or callback that `id` names, to `d` from the real now. Returns as
    /// its own `reset` does; a ticker gets `d` as its period.
    pub fn reset_timer(&self, id: TimerId, d: Duration) -> Result<bool, TimerError> {
        if id.ticker && d.is_zero() {
            return Err(TimerError::ZeroPeriod);
        }
        let at = self.core.clock.count_from(d) + d;
        self.reset_to(id, at, nanos(d))
    }

    /// Resets the timer or callback that `id` names to `t`; of a ticker the next tick is at `t`,
    /// and its period stays.
    pub fn reset_timer_at(&self, id: TimerId, t: impl Into<Time>) -> Result<bool, TimerError> {
        let slot = self.timer_slot(id)?;
        let chunk = self.core.table.borrow().slots.chunk(slot).clone();
        Ok(self.core.arm(&chunk, slot, t.into()))
    }

    /// Resets a timer to `at`; a ticker gets `period`, ns.
    fn reset_to(&self, id: TimerId, at: Time, period: u64) -> Result<bool, TimerError> {
        self.set_period(id, period)?;
        self.reset_timer_at(id, at)
    }

    /// Gives a ticker its period, ns. Leaves other timers alone.
    fn set_period(&self, id: TimerId, period: u64) -> Result<(), TimerError> {
        let slot = self.timer_slot(id)?;
        if id.ticker {
            self.core.table.borrow().slots.chunk(slot).periods.of(slot).set(period);
        }
        Ok(())
    }

    /// Does what other threads have asked of one timer. The result is as if each request had been
    /// done. Returns how many came too late.
    pub(super) fn do_asked(&self, ask: Ask) -> u64 {
        let id = TimerId::internal(&self.core, ask.token, ask.ticker);
        if self.timer_slot(id).is_err() {
            return ask.dead + ask.count;
        }
        // Also before a reset: a detached callback that was stopped is gone.
        if ask.has_stop && self.stop_timer(id).is_ok() && self.timer_slot(id).is_err() {
            return ask.dead + ask.after_stop;
        }
        // These cannot fail: the timer is there.
        if ask.has_reset {
            let _ = self.reset_to(id, Time::from_nanos(ask.at), ask.d);
            // After the reset, because a ticker that goes on keeps to the grid of the last one.
            if ask.stops {
                let _ = self.stop_timer(id);
            }
        }
        ask.dead
    }

    /// Whether the timer that `id` names is there, armed or not.
    pub fn is_live(&self, id: TimerId) -> bool {
        self.timer_slot(id).is_ok()
    }

    fn timer_slot(&self, id: TimerId) -> Result<u32, TimerError> {
        if id.reactor != self.core.number {
            return Err(TimerError::OtherReactor);
        }
        if self.core.forked.get() {
            return Err(TimerError::Forked);
        }
        let table = self.core.table.borrow();
        let slot = table.slots.resolve(id.token).ok_or(TimerError::Dead)?;
        debug_assert_ne!(table.slots.node(slot).state.get(), State::Free);
        Ok(slot)
    }
}
