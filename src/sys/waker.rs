//! The waker of a poller.

use std::io;

use super::errors::of_creation;
use super::{Poller, backend};

/// The waker of a [`Poller`], for any thread: an eventfd, an `EVFILT_USER`, or a pipe where a
/// kqueue has no such filter.
///
/// A waker belongs to one poller. Each wake-up is an event under its id that needs no reading.
/// Wake-ups before a wait coalesce. The drop of the waker takes away a wake-up that no wait has
/// seen.
///
/// ```
/// use pollmux::sys::{PollEvents, Poller, Waker};
///
/// let poller = Poller::new()?;
/// let waker = Waker::new(&poller, 7)?;
/// let mut events = PollEvents::with_capacity(8);
/// std::thread::scope(|scope| {
///     scope.spawn(|| waker.wake());
///     poller.wait(&mut events, None)
/// })?;
/// assert_eq!(events.iter().next().map(|e| e.id()), Some(7));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the waker takes it out of the poller"]
pub struct Waker(backend::Waker);

impl Waker {
    /// Creates a waker of `poller` that is reported under `id`. Two syscalls, one on kqueue.
    ///
    /// # Errors
    /// The errors of [`Poller::new`].
    pub fn new(poller: &Poller, id: u64) -> io::Result<Waker> {
        let made = backend::Waker::new(&poller.kernel, id);
        made.map(Waker).map_err(|error| of_creation(error, "a waker"))
    }

    /// Makes the poller's current or next wait return. One syscall, which is made again when a
    /// signal interrupts it.
    ///
    /// # Errors
    /// The system's error.
    #[inline]
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }

    /// Retires the waker, whose later wake-ups have no effect on `poller`. One syscall.
    pub(crate) fn retire(&self, poller: &Poller) {
        self.0.retire(&poller.kernel);
    }
}
