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

/// The error of [`Remote::post`]: the reactor has been dropped. Gives the closure back.
///
/// ```
/// use pollmux::{Reactor, reactor::PostError};
///
/// let reactor = Reactor::new()?;
/// let remote = reactor.remote();
/// drop(reactor);
/// let Err(PostError(closure)) = remote.post(|handle| println!("{handle:?}")) else { panic!() };
/// # drop(closure);
/// # std::io::Result::Ok(())
/// ```
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
///
/// ```
/// use pollmux::Reactor;
///
/// let reactor = Reactor::builder().post_limit(0).build()?;
/// let refused = reactor.remote().try_post(|_| println!("posted")).unwrap_err();
/// assert!(refused.is_full());
/// let closure = refused.into_inner(); // try again later, or run it here
/// closure(&reactor);
/// # std::io::Result::Ok(())
/// ```
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

/// A remote control of a reactor, for other threads: it wakes the reactor, posts closures, and
/// stops and resets timers. Made by [`Handle::remote`].
///
/// The reactor's thread does the requests in their order, where its next turn begins. It does them
/// before it receives a message that the same thread sent after them. A request wakes a sleeping
/// reactor by one `write`, once for each sleep.
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
    /// Ends the wait under way, or else the next wait. A `select!` looks at its sources again, and
    /// [`Handle::wait`] returns, perhaps with no event.
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    ///
    /// let reactor = Reactor::new()?;
    /// let remote = reactor.remote();
    /// std::thread::spawn(move || remote.wake());
    /// let mut events = Events::new();
    /// reactor.wait(&mut events)?;
    /// assert!(events.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wake(&self) {
        self.notify.request_wake_up();
    }

    /// Runs `f` on the reactor's thread, however many posts wait. [`try_post`](Self::try_post) has
    /// a limit. A reactor that is dropped before it runs `f` drops `f`.
    ///
    /// # Errors
    /// When the reactor has been dropped. The error gives `f` back.
    ///
    /// # Cost
    /// Allocates. The queue of posts grows with the posts that wait. It shrinks above 64 KiB when
    /// it was less than an eighth full for a second.
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

    /// Runs `f` on the reactor's thread, unless too many posts wait for the loop. Allocates when it
    /// accepts.
    ///
    /// The limit is [`Builder::post_limit`](crate::Builder::post_limit), 2^20 by default. It counts
    /// the closures that wait, and the timers that requests wait for. Several threads at once may
    /// exceed the limit by one closure each.
    ///
    /// # Errors
    /// When too many posts wait, or the reactor has been dropped. The error gives `f` back.
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
    /// Requests for one timer coalesce. Those that wait for the loop take the memory of one
    /// request, and the loop does their sum in one step. No request waits for another thread.
    ///
    /// # Errors
    /// When the timer belongs to another reactor, when it is known to be gone, and when the reactor
    /// has been dropped. A timer that is gone when the loop does the request is counted in
    /// [`Stats::stale`](crate::reactor::Stats::stale). To hear of that, [`post`](Self::post) a
    /// closure that calls [`Handle::stop_timer`].
    ///
    /// # Cost
    /// Allocates nothing once as many *timers* had a request on the way before. One `write` if the
    /// reactor sleeps.
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let timer = reactor.after(Duration::from_secs(3_600));
    /// reactor.remote().stop(timer.id()).unwrap();
    /// reactor.try_wait(&mut Events::new())?; // a turn does the request
    /// assert_eq!(timer.deadline(), None);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn stop(&self, id: TimerId) -> Result<(), TimerError> {
        self.ask(id, Ask::stop(id.token, id.ticker))
    }

    /// Resets a timer of the reactor to `d` from the time of this call. A ticker gets `d` as its
    /// period. Costs as much as [`stop`](Self::stop).
    ///
    /// # Errors
    /// The errors of [`stop`](Self::stop), and for a ticker with a period of zero.
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
    /// Returns a remote control of this reactor for other threads. [`Remote`] has an example.
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
