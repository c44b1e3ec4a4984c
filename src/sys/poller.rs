//! The poller: waits for fds, timers and wakers at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(feature = "polling")]
use std::sync::Arc;
use std::time::Duration;

use super::errors::of_creation;
use super::{Interest, Mode, PollerTimer, Readiness, Time, Watch, backend, shows_fd};

pub(crate) use super::backend::TimeoutSlack;

/// A kernel object that waits for many fds at once: an epoll instance, or a kqueue.
///
/// Each registered fd carries an `id` that comes back with its events. All calls take `&self`, from
/// any thread.
///
/// ```
/// use pollmux::sys::{Interest, Mode, PollEvents, Poller};
/// use std::{io::Write, os::unix::net::UnixStream};
///
/// let poller = Poller::new()?;
/// let (mut ours, theirs) = UnixStream::pair()?;
/// poller.register(&theirs, 7, Interest::READABLE, Mode::Edge)?;
/// ours.write_all(b"hello")?;
/// let mut events = PollEvents::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// assert_eq!(events.iter().next().map(|e| e.id()), Some(7));
/// # std::io::Result::Ok(())
/// ```
pub struct Poller {
    pub(super) kernel: backend::Poller,
    /// The outer poller. It has the fd of this poller, which is removed before the fd is closed.
    #[cfg(feature = "polling")]
    outer: Option<Arc<polling::Poller>>,
}

impl Poller {
    /// True if [`arm_and_wait`](Self::arm_and_wait) is one syscall: on kqueue.
    pub const ARMS_IN_WAIT: bool = backend::ARMS_IN_WAIT;
    /// True if another poller can wait for this one's fd: on every system, but not with every
    /// library that stands for a kqueue. [`ProcessFd`](crate::sys::ProcessFd) needs such a poller.
    pub const NESTS: bool = backend::NESTS;

    /// Creates a poller (close-on-exec). One syscall, two on kqueue.
    ///
    /// # Errors
    /// The system's error. When fds or memory are short (`EMFILE`, `ENFILE`, `ENOMEM`) the error
    /// names the limit and the remedy, and its [source](std::error::Error::source) is the system's.
    pub fn new() -> io::Result<Poller> {
        let kernel = backend::Poller::new().map_err(|error| of_creation(error, "a poller"))?;
        Ok(Poller {
            kernel,
            #[cfg(feature = "polling")]
            outer: None,
        })
    }

    /// Returns true in the process that made the poller, and false in a forked child.
    pub(crate) fn is_here(&self) -> bool {
        self.kernel.is_here()
    }

    /// Adds `fd` under `id`. One syscall.
    ///
    /// # Errors
    /// `EEXIST` when `fd` is there already. The system's error when its file cannot be polled
    /// (`EPERM` on epoll). [`io::ErrorKind::Unsupported`] for [`Interest::PRIORITY`] on kqueue.
    pub fn register(
        &self,
        fd: impl AsFd,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.kernel.register(fd.as_fd(), Watch { id, interest, mode })
    }

    /// Replaces id, interest and mode of a registered `fd`, and re-arms a one-shot. One syscall.
    ///
    /// # Errors
    /// `ENOENT` when `fd` is not there.
    ///
    /// ```
    /// use pollmux::sys::{Interest, Mode, PollEvents, Poller};
    /// use std::{os::unix::net::UnixStream, time::Duration};
    ///
    /// let poller = Poller::new()?;
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// poller.register(&ours, 1, Interest::READABLE, Mode::Level)?;
    /// poller.modify(&ours, 2, Interest::WRITABLE, Mode::Level)?;
    /// let mut events = PollEvents::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// let event = events.iter().next().unwrap();
    /// assert!(event.id() == 2 && event.is_writable() && !event.is_readable());
    /// poller.deregister(&ours)?;
    /// poller.wait(&mut events, Some(Duration::ZERO))?;
    /// assert!(events.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn modify(&self, fd: impl AsFd, id: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.kernel.modify(fd.as_fd(), Watch { id, interest, mode })
    }

    /// Takes `fd` out. Do that before you close the fd. One syscall.
    ///
    /// # Errors
    /// `ENOENT` when `fd` is not there.
    pub fn deregister(&self, fd: impl AsFd) -> io::Result<()> {
        self.kernel.deregister(fd.as_fd())
    }

    /// Waits until an fd is ready or `timeout` is over. `None` waits for ever, and zero only looks.
    /// Replaces `events`, which is empty after a timeout. One syscall. On kqueue a one-shot that
    /// was registered for reading and writing costs one more.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] when a signal came first. The caller knows its deadline and
    /// can wait for the rest.
    #[inline(always)]
    pub fn wait(&self, events: &mut PollEvents, timeout: Option<Duration>) -> io::Result<()> {
        self.kernel.wait(&mut events.0, timeout)
    }

    /// Arms a timer as [`PollerTimer::arm`] does, and then [waits](Self::wait). Two syscalls on
    /// epoll, one on kqueue.
    ///
    /// # Errors
    /// The errors of both. After [`io::ErrorKind::Interrupted`] the timer is armed. After any other
    /// error it may be armed or not.
    ///
    /// ```
    /// use pollmux::Time;
    /// use pollmux::sys::{PollEvents, Poller, PollerTimer};
    /// use std::time::Duration;
    ///
    /// let poller = Poller::new()?;
    /// let timer = PollerTimer::new(&poller, 1)?;
    /// let deadline = Time::now() + Duration::from_millis(1);
    /// let mut events = PollEvents::with_capacity(8);
    /// poller.arm_and_wait(&timer, deadline, &mut events, None)?;
    /// assert!(Time::now() >= deadline);
    /// timer.disarm()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[inline(always)]
    pub fn arm_and_wait(
        &self,
        timer: &PollerTimer,
        deadline: Time,
        events: &mut PollEvents,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.kernel.arm_and_wait(&timer.0, deadline, &mut events.0, timeout)
    }

    /// Measures how late a timeout of [`wait`](Self::wait) may be. Four syscalls, none on kqueue.
    pub(crate) fn timeout_slack(&self) -> TimeoutSlack {
        TimeoutSlack::of(&self.kernel)
    }

    /// Makes `outer` wait for this poller, until this poller is dropped. One syscall.
    #[cfg(feature = "polling")]
    pub(crate) fn join(
        &mut self,
        outer: Arc<polling::Poller>,
        interest: polling::Event,
        mode: polling::PollMode,
    ) -> io::Result<()> {
        assert!(self.outer.is_none(), "a poller joins one other");
        // SAFETY: the fd must be deleted from `outer` before it is closed. The drop of this poller
        // deletes the fd, and closes it afterwards.
        unsafe { outer.add_with_mode(&self.kernel.as_fd(), interest, mode) }?;
        self.outer = Some(outer);
        Ok(())
    }
}

shows_fd!(Poller);

impl AsFd for Poller {
    /// The epoll fd or the kqueue itself: readable, for an outer poller, while this one has events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

#[cfg(feature = "polling")]
impl Drop for Poller {
    fn drop(&mut self) {
        let Some(outer) = self.outer.take() else { return };
        if self.is_here() {
            // This fails only if other code has deleted the fd.
            let _ = outer.delete(self.kernel.as_fd());
        } else {
            // A forked child changes neither the parent's registration nor the outer poller, whose
            // drop would remove the parent's timer and notifier.
            std::mem::forget(outer);
        }
    }
}

/// The buffer that [`Poller::wait`] fills. It allocates once, when it is made.
///
/// ```
/// use pollmux::sys::{Interest, Mode, PollEvents, Poller};
/// use std::os::unix::net::UnixStream;
///
/// let poller = Poller::new()?;
/// let (ours, theirs) = UnixStream::pair()?;
/// poller.register(&ours, 7, Interest::WRITABLE, Mode::Level)?;
/// poller.register(&theirs, 8, Interest::WRITABLE, Mode::Level)?;
/// let mut events = PollEvents::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// assert_eq!((events.len(), events.capacity()), (2, 8));
/// assert!(events.iter().all(|event| event.is_writable()));
/// # std::io::Result::Ok(())
/// ```
pub struct PollEvents(backend::Events);

impl PollEvents {
    /// Makes a buffer for `capacity` events a wait, at least 1. The greatest capacity is that of
    /// the kernel: some 130 million on epoll, `i32::MAX` on kqueue.
    pub fn with_capacity(capacity: usize) -> PollEvents {
        PollEvents(backend::Events::with_capacity(capacity))
    }

    /// Iterates over the events of the last wait.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = PollEvent> + '_ {
        self.0.iter().map(PollEvent)
    }

    /// Returns the most events that a wait can find.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Returns true if the last wait may have left something for want of room.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// Returns the number of events of the last wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if the last wait found nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl_fmt!(Debug, [] PollEvents, |it, f| f.debug_list().entries(it.iter()).finish());

/// One fd that became ready.
///
/// ```
/// use pollmux::sys::{Interest, Mode, PollEvents, Poller, Readiness};
/// use std::os::unix::net::UnixStream;
///
/// let poller = Poller::new()?;
/// let (ours, theirs) = UnixStream::pair()?;
/// poller.register(&ours, 7, Interest::READABLE, Mode::Edge)?;
/// drop(theirs);
/// let mut events = PollEvents::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// let event = events.iter().next().unwrap();
/// assert!(event.id() == 7 && event.is_readable() && event.is_hang_up() && !event.is_error());
/// assert!(event.readiness().contains(Readiness::READ_CLOSED));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PollEvent(backend::Event);

impl PollEvent {
    /// The id that the fd was registered under.
    #[inline]
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// The set of things that the fd is ready for.
    #[inline]
    pub fn readiness(&self) -> Readiness {
        self.0.readiness()
    }

    /// Returns true if a read would not block: data, the end of file, a hang-up or an error.
    pub fn is_readable(&self) -> bool {
        self.readiness().is_readable()
    }

    /// Returns true if a write would not block: room, a hang-up or an error.
    pub fn is_writable(&self) -> bool {
        self.readiness().is_writable()
    }

    /// Returns true if the fd has an error to be fetched.
    pub fn is_error(&self) -> bool {
        self.readiness().is_error()
    }

    /// Returns true if the peer closed its writing half, or the whole connection.
    pub fn is_hang_up(&self) -> bool {
        self.readiness().is_hang_up()
    }
}

impl_debug!([] PollEvent, |it| id: it.id(), readiness: it.readiness());
