//! A driver on a user's `polling::Poller`, which has the fd of our poller under one key. The fd is
//! level-triggered, so a poll need not take all events.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use ::polling::{Event, Events, PollMode, Poller};

use super::foreign::{self, EventsId, Queue};
use super::nested::nested_driver;
use super::{Clock, Driver, Native, ReadyFds, Syscalls, Wait, Wake, WakeWindow};
use crate::sys::errors::of_creation;
use crate::sys::{Interest, Mode};

/// The most events that one wait takes. The next wait takes the others.
const BATCH: usize = 256;

/// A driver that waits through a [`polling::Poller`](::polling::Poller), for the sources added
/// there and those of the reactor together. Feature `polling`.
///
/// The reactor's own poller is in the `Poller` under a key that no other source there may have.
/// Timers are as exact as under [`Native`], because the driver does not use the `Poller`'s
/// timeouts.
///
/// [`events`](Self::events) makes a source of the events of the other keys. Nothing is lost, and
/// memory is bounded. The driver takes at most 256 events from the `Poller`, and no more before the
/// loop has taken those. Meanwhile the reactor waits for its own sources only.
///
/// No other code may wait on the `Poller`, because of two waits it lets one return at once. A
/// [`notify`](::polling::Poller::notify) ends the wait under way, and does nothing else.
///
/// The reactor's fd is the fd of the `Poller`. So the reactor can be
/// [embedded](crate::Reactor::embed) as well, with all sources of the `Poller`.
///
/// # Cost
/// A wait that finds a source of the reactor costs **one syscall more** than under [`Native`]: the
/// look at the reactor's poller. The `Poller` itself adds a `timerfd_settime`, two `epoll_ctl` and
/// a `read` on Linux, which [`Stats`](crate::reactor::Stats) does not count.
///
#[cfg_attr(flat, doc = "```no_run")]
#[cfg_attr(not(flat), doc = "```")]
/// use pollmux::{driver::PollingDriver, select, Reactor};
/// use std::time::Duration;
///
/// let driver = PollingDriver::new(polling::Poller::new()?, 0)?;
/// let (poller, events) = (driver.poller().clone(), driver.events());
/// let reactor = Reactor::with_driver(driver)?;
/// let events = reactor.register(events)?;
/// // unsafe { poller.add(&socket, polling::Event::readable(7))? } as ever, and
/// // `poller.modify(..)` after each event
/// let timeout = reactor.after(Duration::from_millis(1));
/// select! { reactor;
///     recv(events) -> event => println!("{} is ready", event.key),
///     recv(timeout) -> _ => println!("nothing is"),
/// }
/// # drop(poller);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct PollingDriver {
    native: Native,
    poller: Arc<Poller>,
    key: usize,
    events: Events,
    queue: Queue<Event>,
    syscalls: Syscalls,
}

impl PollingDriver {
    /// Makes a driver on `poller`, in which it has `key` for itself. Six syscalls.
    ///
    /// # Errors
    /// The system's error, and [`io::ErrorKind::InvalidInput`] for `usize::MAX`, the `Poller`'s own
    /// key. A failed call leaves nothing behind.
    #[track_caller]
    pub fn new(poller: impl Into<Arc<Poller>>, key: usize) -> io::Result<PollingDriver> {
        let poller = poller.into();
        let native = Native::nested_in(poller.clone(), Event::readable(key), PollMode::Level)
            .map_err(|error| of_creation(error, "a driver on this `Poller`"))?;
        let queue = Queue::with_capacity(BATCH);
        let capacity = NonZeroUsize::new(BATCH).unwrap_or(NonZeroUsize::MIN);
        let events = Events::with_capacity(capacity);
        Ok(PollingDriver { native, poller, key, events, queue, syscalls: Syscalls::default() })
    }

    /// The `Poller`, for your own sources.
    pub fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// Returns the events of the other keys, to be registered with the reactor.
    ///
    /// The source gives each event once, in the order in which the `Poller` reported them. Without
    /// such a source, or after its drop, the driver drops the events.
    pub fn events(&self) -> foreign::Events<Event> {
        self.queue.events()
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut ReadyFds) -> io::Result<()> {
        self.events.clear();
        // After an interruption by a signal the call goes on by itself.
        self.poller.wait(&mut self.events, timeout)?;
        let mut ours = false;
        for event in self.events.iter() {
            if event.key == self.key {
                ours = true;
            } else {
                self.queue.push(event, ready);
            }
        }
        if ours { self.native.wait(None, Wait::Poll, ready) } else { Ok(()) }
    }
}

nested_driver!(PollingDriver, |driver| AsFd::as_fd(&*driver.poller));
