//! A driver on somebody's `polling::Poller`: our own poller's fd is in theirs, under one key,
//! level-triggered, so that a look need not see everything.

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

/// Events that one wait takes at most; the others are the next wait's.
const BATCH: usize = 256;

/// Waits through a [`polling::Poller`](::polling::Poller): the sources that were added there and
/// those of the reactor are waited for together. Feature `polling`.
///
/// The reactor's own poller is in the `Poller` under a key that nothing else there may have. A wait
/// that ends for the reactor's sake costs **one syscall more** than under [`Native`], the look at
/// that poller, besides what the `Poller` itself makes of a wait: on Linux a `timerfd_settime`, two
/// `epoll_ctl` and a `read`, which [`Stats`](crate::reactor::Stats) does not count. Timers are as
/// exact as under `Native`: the `Poller`'s timeouts are not used.
///
/// [`events`](Self::events) gives out the events of other keys of the `Poller`, as a source in
/// the same `select!` and `wait` as all others. Nothing is lost and memory is bounded: at most 256
/// events are taken from the `Poller`, and no more before the loop has taken those; meanwhile the
/// reactor waits for its own sources only.
///
/// Nobody else may wait on the `Poller`: of two waits it lets one return at once. A
/// [`notify`](::polling::Poller::notify) ends the wait under way, and nothing else.
///
/// The reactor's fd is that of the `Poller`: it can be [embedded](crate::Reactor::embed) as well,
/// with all that was added there.
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
    /// A driver on `poller`, in which it has `key` for itself. Six syscalls; fails with the
    /// system's error, and with [`io::ErrorKind::InvalidInput`] for `usize::MAX`, the `Poller`'s
    /// own key, and then leaves nothing behind.
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

    /// The `Poller`, for sources of one's own.
    pub fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// Makes a source of the events of other keys than ours, to be registered with the reactor.
    ///
    /// Each event is given once, in the order in which the `Poller` reported them. Without this,
    /// and once it has been dropped, they are dropped.
    pub fn events(&self) -> foreign::Events<Event> {
        self.queue.events()
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut ReadyFds) -> io::Result<()> {
        self.events.clear();
        // The call goes on by itself when a signal interrupts it.
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
