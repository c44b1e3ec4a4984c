//! The requests of other threads: [`Remote`], and the ids by which they name timers.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Handle, Post};
use super::fork::gone_or_forked;
use super::parts::asks::{Ask, Asks};
use super::parts::timer_id::{TimerError, TimerId};
use crate::channel::Sender;
use crate::driver::Clock;
use crate::sys::nanos;
use crate::wake::Notify;

/// The reactor of a [`Remote`] has been dropped; gives back what was posted.
pub struct PostError<F>(pub F);

impl_fmt!(Debug, [F] PostError<F>, |_, f| f.write_str("PostError(..)"));
impl_fmt!(Display, [F] PostError<F>, |_, f| f.write_str(gone_or_forked()));
impl<F> Error for PostError<F> {}

impl<F> From<PostError<F>> for io::Error {
    fn from(_: PostError<F>) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, gone_or_forked())
    }
}

/// The reason why [`Remote::try_post`] refused a closure. Holds the closure.
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

impl_fmt!(Debug, [F] TryPostError<F>, |it, f|
    f.write_str(if it.is_full() { "Full(..)" } else { "Closed(..)" })
);

impl_fmt!(Display, [F] TryPostError<F>, |it, f| f.write_str(match it {
    TryPostError::Full(_) => {
        "too many posts wait for the reactor (the limit is Builder::post_limit): try again \
         later"
    }
    TryPostError::Closed(_) => gone_or_forked(),
}));

impl<F> Error for TryPostError<F> {}

impl<F> From<TryPostError<F>> for io::Error {
    fn from(error: TryPostError<F>) -> io::Error {
        let kind =
            if error.is_full() { io::ErrorKind::WouldBlock } else { io::ErrorKind::NotConnected };
        io::Error::new(kind, error.to_string())
    }
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

    /// Returns true if the reactor has been dropped.
    pub fn is_closed(&self) -> bool {
        !self.notify.is_at_home() || self.posts.is_disconnected()
    }
}

impl_debug!([] Remote, |it| reactor: it.reactor, closed: it.is_closed());

impl Handle {
    /// This reactor, for other threads.
    pub fn remote(&self) -> Remote {
        Remote {
            notify: self.core.notify.clone(),
            posts: self.core.mailbox.sender.clone(),
            asks: self.core.asks.clone(),
            clock: self.core.clock.source(),
            reactor: self.core.number,
            limit: self.core.mailbox.limit,
        }
    }
}
