//! A driver on a user's `mio::Poll`, which has the fd of our poller under one token.
//!
//! mio is edge-triggered, so a poll after an event of our token must take all events. If the poll
//! may have left some (a full buffer, an fd in level mode), the driver registers our fd anew. That
//! makes another event if the fd is still readable.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use ::mio::{Events, Interest as MioInterest, Poll, Registry, Token};

use super::foreign::{self, EventsId, Queue};
use super::nested::nested_driver;
use super::{Clock, Driver, Native, ReadyFds, Syscalls, Wait, Wake, WakeWindow};
use crate::sys::errors::of_creation;
use crate::sys::{Interest, Mode};

/// The most events that one wait takes. The next wait takes the others.
const BATCH: usize = 256;

/// A driver that waits through a [`mio::Poll`](::mio::Poll), for the sources registered there and
/// those of the reactor together. Feature `mio`.
///
/// The reactor's own poller is in the `Poll` under a token that no other source there may have.
/// Timers are as exact as under [`Native`], because the driver does not use mio's timeouts.
///
/// [`events`](Self::events) makes a source of the events of the other tokens. Register mio's
/// sources through [`registry`](Self::registry), at any time. Nothing is lost, and memory is
/// bounded. The driver takes at most 256 events from the `Poll`, and no more before the loop has
/// taken those. Meanwhile the reactor waits for its own sources only.
///
/// The reactor's fd is the fd of the `Poll`. So the reactor can be
/// [embedded](crate::Reactor::embed) as well, with all sources of the `Poll`.
///
/// # Cost
/// A wait that finds a source of the reactor costs **one syscall more** than under [`Native`]: the
/// look at the reactor's poller.
///
#[cfg_attr(flat, doc = "```no_run")]
#[cfg_attr(not(flat), doc = "```")]
/// use mio::{Interest, Poll, Token, unix::pipe};
/// use pollmux::{driver::MioDriver, select, Reactor};
/// use std::io::Write;
///
/// let driver = MioDriver::new(Poll::new()?, Token(usize::MAX))?;
/// let (registry, events) = (driver.registry()?, driver.events());
/// let reactor = Reactor::with_driver(driver)?;
/// let events = reactor.register(events)?;
/// let heartbeat = reactor.every(std::time::Duration::from_secs(1))?;
///
/// let (mut tx, mut rx) = pipe::new()?; // one of mio's sources
/// registry.register(&mut rx, Token(7), Interest::READABLE)?;
/// tx.write_all(b"hello")?;
/// select! { reactor;
///     recv(events) -> event => assert_eq!(event.token(), Token(7)),
///     recv(heartbeat) -> _ => unreachable!(),
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct MioDriver {
    native: Native,
    poll: Poll,
    token: Token,
    events: Events,
    queue: Queue<Event>,
    syscalls: Syscalls,
}

impl MioDriver {
    /// Makes a driver on `poll`, in which it has `token` for itself. Six syscalls.
    ///
    /// # Errors
    /// The system's error. A failed call leaves nothing behind.
    #[track_caller]
    pub fn new(poll: Poll, token: Token) -> io::Result<MioDriver> {
        let native = Native::to_nest()?;
        let fd = native.as_ref().as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), token, MioInterest::READABLE)
            .map_err(|error| of_creation(error, "a driver on this `Poll`"))?;
        let queue = Queue::with_capacity(BATCH);
        let events = Events::with_capacity(BATCH);
        Ok(MioDriver { native, poll, token, events, queue, syscalls: Syscalls::default() })
    }

    /// Returns a registry of the `Poll`, for your own sources. One syscall: the fd is a duplicate.
    ///
    /// # Errors
    /// The system's error.
    pub fn registry(&self) -> io::Result<Registry> {
        let registry = self.poll.registry().try_clone();
        registry.map_err(|error| of_creation(error, "another `Registry` of the `Poll`"))
    }

    /// Returns the events of the other tokens, to be registered with the reactor.
    ///
    /// Events are edges, as everywhere with mio. The source gives each event once, in the order in
    /// which the `Poll` reported them. Without such a source, or after its drop, the driver drops
    /// the events.
    pub fn events(&self) -> foreign::Events<Event> {
        self.queue.events()
    }

    /// Returns the fd of the `Poll`.
    fn fd(&self) -> RawFd {
        self.native.as_ref().as_fd().as_raw_fd()
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut ReadyFds) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let mut ours = false;
        for event in self.events.iter() {
            if event.token() == self.token {
                ours = true;
            } else {
                self.queue.push(event.clone(), ready);
            }
        }
        if ours { self.look(ready) } else { Ok(()) }
    }

    fn look(&mut self, ready: &mut ReadyFds) -> io::Result<()> {
        let looked = self.native.wait(None, Wait::Poll, ready);
        if looked.is_err() || self.native.may_have_more() {
            self.syscalls.controls += 1;
            self.poll.registry().reregister(
                &mut SourceFd(&self.fd()),
                self.token,
                MioInterest::READABLE,
            )?;
        }
        looked
    }
}

nested_driver!(MioDriver, |driver| driver.poll.registry().as_fd());

impl Drop for MioDriver {
    fn drop(&mut self) {
        // A registry of the user keeps the `Poll`'s epoll open. A forked child does not change it.
        if !self.native.as_ref().is_here() {
            return;
        }
        let _ = self.poll.registry().deregister(&mut SourceFd(&self.fd()));
    }
}

impl_debug!([] MioDriver, |it| token: it.token, native: it.native, events: it.queue);
