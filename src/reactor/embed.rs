//! The reactor inside another loop: one fd that is readable when a turn has work to do.
//!
//! Between turns the reactor counts as asleep. A sender that finds `sleeping` set wakes the driver,
//! and the driver's fd becomes readable. Two other things raise the reactor's own waker in the same
//! way: a deadline earlier than the armed one, and sources that are still ready when a turn ends.
//! Raising takes `sleeping`, so it happens at most once between turns.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::callbacks::Again;
use super::core::{Core, Handle, busy};
use super::parts::counters::add;
use super::parts::heap::NEVER;
use crate::driver::WakeWindow;
use crate::sync::{Ordering, fence};
use crate::sys::Time;
use crate::sys::closing::duplicate;
use crate::sys::errors::of_creation;
use crate::sys::fork::PollerFd;
use crate::wake::Request;

/// A reactor embedded in another loop. Made by [`Reactor::embed`](crate::Reactor::embed), which has
/// an example.
///
/// Register its fd for reading with the outer poller, level- or edge-triggered. When the fd is
/// readable, call [`turn`](Self::turn). Then take the ready sources: with `select!` and a `default`
/// case, with [`Handle::try_wait`], or from the sources themselves. The order does not matter: the
/// next turn reports the sources that are left.
///
/// # A ready source that nobody takes
/// The fd stays readable while any source of the reactor is ready, also one that your loop does not
/// ask about. Such a source, for instance a timer in no `select!`, makes the outer loop spin: each
/// of its waits ends at once. Take the item, stop the timer, or drop the source.
///
/// Two sources stay ready for ever: a [`Done`](crate::context::Done) whose context has ended, and
/// an [`Inbox`](crate::Inbox) whose senders are gone. The fd is readable until you have taken each
/// end once, and a `select!` gets the end again and again. So drop these sources after their end.
/// [`sources()`](Handle::sources) lists the live sources, each with the line that made it.
///
/// An [`Outbox`](crate::Outbox) whose `try_send` found the channel full is ready when there is
/// room, until [`Handle::try_wait`] has reported it.
///
/// # Dropping
/// The drop of an `Embedded` ends the embedding. The reactor goes on as before.
#[must_use = "dropping the embedded reactor ends the embedding"]
#[derive(Debug)]
pub struct Embedded {
    handle: Handle,
    fd: PollerFd,
}

impl Embedded {
    /// Begins an embedding, and takes its first turn.
    pub(super) fn begin(handle: &Handle) -> io::Result<Embedded> {
        let core = &handle.core;
        core.check_process()?;
        if core.outer.embedded.get() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the reactor is embedded already",
            ));
        }
        let driving = core.driving.try_borrow().map_err(|_| busy())?;
        let fd = match driving.driver.as_ref().and_then(|driver| driver.as_fd()) {
            Some(fd) => PollerFd::new(
                duplicate(fd, 0).map_err(|error| of_creation(error, "the fd for an outer loop"))?,
            ),
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the reactor's driver has no fd to embed",
                ));
            }
        };
        drop(driving);
        let embedded = Embedded { handle: handle.clone(), fd };
        core.outer.embedded.set(true);
        core.keep_channels_apart(true);
        core.notify.sleep();
        embedded.turn()?;
        Ok(embedded)
    }

    /// Does the work of one turn without waiting, and returns how many sources are ready.
    ///
    /// The turn takes wake-ups, runs posts and callbacks, and finds due timers and channels with
    /// messages. It arms the earliest deadline if that is before the armed one. A callback that the
    /// turn runs may take a turn, too. [`Reactor::embed`](crate::Reactor::embed) has an example.
    ///
    /// # Errors
    /// When the driver fails, when the reactor has been dropped, and
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) inside the driver's own wait.
    ///
    /// # Cost
    /// One `epoll_wait`, and one `timerfd_settime` if the earliest deadline moved forward. One
    /// `write` if sources are ready, so that the fd stays readable. No allocation.
    pub fn turn(&self) -> io::Result<usize> {
        let core = &self.handle.core;
        if core.closed.get() {
            return Err(core.gone());
        }
        if core.driving.try_borrow_mut().is_err() {
            return Err(busy());
        }
        add(&core.counters.turns, 1);
        core.notify.set_everywhere(false);
        let woken = core.awake();
        let unfinished = Unfinished(core);
        let polled = core.look_for_outer(woken);
        let now = core.clock.refresh();
        core.expire(now);
        if core.memory.untidy.get() {
            core.tidy();
        }
        core.run_batch(core.callbacks.batch, Again::Yes);
        if core.closed.get() {
            return Err(core.gone());
        }
        core.collect(Request::Mark);
        core.take_out_told();
        let left =
            core.has_work() || core.has_more_fds() || core.timers.next_due.get() <= now.as_nanos();
        let arm = core.deadline_of_outer_loop(now);
        let armed = polled.and_then(|()| core.arm_driver(arm));
        std::mem::forget(unfinished);
        // The outer loop sleeps for every registered channel.
        core.notify.open_ticket();
        core.notify.sleep();
        core.notify.set_everywhere(true);
        fence(Ordering::SeqCst);
        // A driver that failed is asked again by the next turn, which must come.
        if left || armed.is_err() || core.has_mark_or_post() {
            core.request_turn();
        }
        armed?;
        Ok(core.table.borrow().ready.len())
    }

    /// The handle of the embedded reactor.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Completes a turn that a panic of a closure or of the driver has ended: the reactor sleeps again,
/// and requests a turn for the rest.
struct Unfinished<'a>(&'a Core);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.notify.sleep();
        self.0.request_turn();
    }
}

impl AsFd for Embedded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Registers the fd with mio. Use [`Interest::READABLE`](mio::Interest::READABLE). Feature `mio`.
#[cfg(feature = "mio")]
impl mio::event::Source for Embedded {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        mio::unix::SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        mio::unix::SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        mio::unix::SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}

impl AsRawFd for Embedded {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let core = &self.handle.core;
        core.outer.embedded.set(false);
        core.keep_channels_apart(false);
        if core.driving.try_borrow_mut().is_ok() {
            core.notify.set_everywhere(false);
            core.awake();
        }
    }
}

/// The outer loop, which sleeps for the reactor.
impl Core {
    /// Wakes an outer loop that sleeps for the reactor, if `deadline` is before the armed one.
    pub(super) fn tell_outer(&self, deadline: u64) {
        if deadline < self.outer.armed.get() && self.outer.embedded.get() {
            self.request_turn();
        }
    }

    /// A poll outside a turn may have consumed the event that made our fd readable. Requests
    /// another turn, which arms the driver and publishes the sleep again.
    #[inline]
    pub(super) fn request_turn_after_poll(&self) {
        if self.outer.embedded.get() {
            self.notify.sleep();
            self.request_turn();
        }
    }

    /// Returns true if a poll has left the outer loop's fd as it was: there was no wake-up, nothing
    /// is ready or due, and the driver is armed for the next deadline.
    pub(super) fn has_taken_nothing(&self) -> bool {
        let now = self.clock.now_or_later();
        if !self.notify.is_asleep()
            || self.has_ready()
            || self.has_more_fds()
            || self.timers.next_due.get() <= now.as_nanos()
        {
            return false;
        }
        // No syscall, unless the kernel's timer has gone off for a deadline that was put off
        // meanwhile.
        let arm = self.deadline_of_outer_loop(now);
        self.arm_driver(arm).is_ok()
    }

    /// Returns the deadline to arm the kernel's timer for while an outer loop sleeps, and notes it
    /// as armed.
    pub(super) fn deadline_of_outer_loop(&self, now: Time) -> Option<WakeWindow> {
        let due = self.timers.next_due.get();
        let mut arm = (due > now.as_nanos() && due != NEVER).then(|| self.timers_due());
        if !self.channels.borrow().unsure.is_empty() {
            // A wake-up is not sure: the next turn looks again.
            let nap: WakeWindow = (now + self.sleep.nap.borrow_mut().next()).into();
            arm = arm.filter(|arm| arm.latest < nap.latest).or(Some(nap));
        }
        self.outer.armed.set(arm.map_or(due, |arm| arm.latest.as_nanos()));
        arm
    }

    /// Makes the fd readable for an outer loop, at most once between turns.
    pub(super) fn request_turn(&self) {
        self.notify.wake();
    }
}
