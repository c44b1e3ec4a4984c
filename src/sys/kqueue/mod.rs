//! The poller on macOS and the BSDs: a kqueue. (And on Linux, from a library, for tests.)
//!
//! Quirks handled here:
//! - A kqueue knows fds by direction and forgets: adding one twice is no error, and an fd that
//!   wants to read and write has two events. `Book` remembers what is in, so that the same mistakes
//!   are errors as on epoll, an fd has one event a wait, and a one-shot is over for both directions
//!   when it has fired for one.
//! - Adding a filter again changes neither `EV_CLEAR` nor `EV_DISPATCH` of the one that is there:
//!   `modify` deletes and adds, in one call.
//! - Changes that must not fetch events ask for receipts: those take all the room there is. The
//!   call that waits asks for none, because a receipt ends it.
//! - A change that fails is an event with `EV_ERROR` and ends the call at once; `arm_and_wait`
//!   gives it back as its error.
//! - Kernels that count ticks round, and no kernel takes every duration: a timer that fires before
//!   its deadline is armed again, and nobody hears of it.
//! - The library on Linux finds a kqueue by the number of its fd: it is shared, never duplicated.
//!
//! Longer than 500 lines: each call to the kernel and the book that mirrors what the
//! kernel knows must change together.

mod abi;
mod nested;
mod pipe;
mod timer;
mod waker;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use self::nested::{ProcessFd, TimerFd};
pub(super) use self::pipe::Flag;
pub use self::timer::OsTimer;
pub use self::waker::Waker;

use self::abi::{Kevent, Raw};
use super::fork::PollerFd;
use super::kevent::{
    EV_ADD, EV_DELETE, EV_DISABLE, EV_ERROR, EV_RECEIPT, Filter, LONGEST, filters, flags, readiness,
};
use super::{Interest, Mode, Readiness, Time};

/// A kernel object that waits for many fds at once: a kqueue here.
///
/// Each registered fd carries an `id` that comes back with its events. All calls take `&self`, from
/// any thread.
///
/// ```
/// use pollmux::sys::{PollEvents, Interest, Mode, Poller};
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
#[derive(Debug)]
pub struct Poller {
    queue: Arc<Queue>,
}

/// The kqueue, which its timers and wakers use as well.
#[derive(Debug)]
struct Queue {
    kq: PollerFd,
    book: Mutex<Book>,
}

/// What is in the kqueue. Locked for registrations, arms and batches with fds or timers in them,
/// never while waiting.
#[derive(Debug, Default)]
struct Book {
    /// By the number of the fd.
    fds: Vec<Watched>,
    /// By their ident: the deadline in ns, `u64::MAX` for a timer that is not armed.
    timers: Vec<u64>,
    free_timers: Vec<usize>,
    wakers: usize,
    /// The number of the batch that is being looked at.
    batch: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// `None` for an fd that is not in.
    how: Option<(Interest, Mode)>,
    id: u64,
    /// The last batch that it was in, and there: its place, and whether it fired for reading and
    /// for writing.
    batch: u64,
    at: usize,
    fired: [bool; 2],
}

impl Poller {
    /// Whether [`arm_and_wait`](Self::arm_and_wait) is one syscall.
    pub const ARMS_IN_WAIT: bool = true;
    /// Whether another poller can wait for its fd: on every system, but not with every library that
    /// stands for one.
    pub const NESTS: bool = !cfg!(flat);

    /// Creates a kqueue (close-on-exec). Two syscalls. Fails with the system's error.
    ///
    /// For want of fds or memory (`EMFILE`, `ENFILE`, `ENOMEM`) the error names the limit and the
    /// remedy, and its [source](std::error::Error::source) is the system's.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller {
            queue: Arc::new(Queue { kq: abi::kqueue("a poller")?, book: Mutex::default() }),
        })
    }

    /// Returns true in the process that made it; false in a forked child of that.
    pub(crate) fn is_here(&self) -> bool {
        self.queue.kq.is_here()
    }

    /// Adds `fd` under `id`. One syscall. Fails with `EEXIST` when `fd` is there already and with
    /// the system's error when its file cannot be polled; with [`io::ErrorKind::Unsupported`] for
    /// [`Interest::PRIORITY`].
    pub fn register(
        &self,
        fd: impl AsFd,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.queue.register(fd.as_fd(), id, interest, mode)
    }

    /// Replaces id, interest and mode of a registered `fd`, and re-arms a one-shot. One syscall.
    /// Fails with `ENOENT` when `fd` is not there.
    pub fn modify(&self, fd: impl AsFd, id: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.queue.modify(fd.as_fd(), id, interest, mode)
    }

    /// Takes `fd` out; do it before the fd is closed. One syscall. Fails with `ENOENT` when `fd` is
    /// not there.
    pub fn deregister(&self, fd: impl AsFd) -> io::Result<()> {
        self.queue.deregister(fd.as_fd())
    }

    /// Waits until something is ready or `timeout` is over; `None` waits for ever, zero only looks.
    /// One syscall, and one more for a one-shot that was registered for reading and writing.
    ///
    /// `events` is replaced; it stays empty when the time ran out. Fails with
    /// [`io::ErrorKind::Interrupted`] when a signal came first: the caller knows its deadline and
    /// can wait for the rest.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.queue.wait(&[], events, timeout)
    }

    /// [`PollerTimer::arm`], then [`wait`](Self::wait): one syscall here, two on epoll.
    ///
    /// When it fails with [`io::ErrorKind::Interrupted`] the timer is armed; with any other error
    /// count on nothing.
    pub fn arm_and_wait(
        &self,
        timer: &OsTimer,
        deadline: Time,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if deadline == Time::MAX || !timer.is_of(&self.queue) {
            timer.arm(deadline)?;
            return self.wait(events, timeout);
        }
        timer.armed_by(deadline, |changes| self.queue.wait(changes, events, timeout))
    }
}

/// What [`Poller::wait`]'s own timeout would save: nothing, as an arm goes with the wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeoutSlack;

impl TimeoutSlack {
    pub(crate) fn of(_: &Poller) -> TimeoutSlack {
        TimeoutSlack
    }

    pub(crate) fn timeout(self, _: Time, _: Time, _: Time) -> Option<Duration> {
        None
    }
}

impl AsFd for Poller {
    /// The kqueue itself: readable, for an outer poller, while this one has events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.kq.as_fd()
    }
}

impl Queue {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Applies changes of which the first that fails is an error; the others after it are not made.
    /// Fetches no events.
    fn change(&self, changes: &[Raw]) -> io::Result<()> {
        loop {
            match abi::kevent(&self.kq, changes, &mut [], Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    /// Applies all of the changes, and says of each what came of it: 0, or an errno. Fetches no
    /// events.
    fn change_each<const N: usize>(&self, changes: &[Kevent]) -> io::Result<[i64; N]> {
        let mut list = [Raw::EMPTY; N];
        for (raw, change) in list.iter_mut().zip(changes) {
            *raw = Raw::new(Kevent { flags: change.flags | EV_RECEIPT, ..*change });
        }
        let mut receipts = [Raw::EMPTY; N];
        let (list, room) = (&list[..changes.len()], &mut receipts[..changes.len()]);
        let n = abi::kevent(&self.kq, list, room, Some(Duration::ZERO))?;
        debug_assert_eq!(n, changes.len());
        let mut errors = [0; N];
        for (error, receipt) in errors.iter_mut().zip(&receipts[..n]) {
            *error = receipt.read().map_or(0, |receipt| receipt.data);
        }
        Ok(errors)
    }

    fn register(
        &self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        can_wait_for(interest)?;
        let book = &mut *self.book();
        if self.has(book, fd) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.replace(book, fd, id, Interest::NONE, interest, mode)
    }

    fn modify(
        &self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        can_wait_for(interest)?;
        let book = &mut *self.book();
        let Some((former, _)) = book.watched(fd).how else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        self.replace(book, fd, id, former, interest, mode)
    }

    fn deregister(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let book = &mut *self.book();
        let Some((former, mode)) = book.watched(fd).how else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        self.replace(book, fd, 0, former, Interest::NONE, mode)?;
        book.watched(fd).how = None;
        Ok(())
    }

    /// Whether `fd` is in. The kernel forgets an fd that is closed, and the book does not: another
    /// one may have the number by now.
    fn has(&self, book: &mut Book, fd: BorrowedFd<'_>) -> bool {
        let watched = *book.watched(fd);
        let Some((interest, _)) = watched.how else { return false };
        // No flags at all: a look whether it is there.
        let looks = filters(interest)
            .map(|filter| Raw::new(change(fd, filter, 0, watched.id)))
            .collect::<Vec<_>>();
        let there = |look: &Raw| match self.change(std::slice::from_ref(look)) {
            Err(error) => error.raw_os_error() != Some(libc::ENOENT),
            Ok(()) => true,
        };
        let there = looks.is_empty() || looks.iter().any(there);
        if !there {
            book.watched(fd).how = None;
        }
        there
    }

    /// Takes the filters of `former` out and puts those of `interest` in.
    fn replace(
        &self,
        book: &mut Book,
        fd: BorrowedFd<'_>,
        id: u64,
        former: Interest,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        const NONE: Kevent =
            Kevent { ident: 0, filter: Filter::Read, flags: 0, fflags: 0, data: 0, id: 0 };
        let (mut changes, mut n) = ([NONE; 4], 0);
        let deletes = filters(former).map(|filter| change(fd, filter, EV_DELETE, id));
        let adds = filters(interest).map(|filter| change(fd, filter, flags(mode), id));
        for change in deletes.chain(adds) {
            (changes[n], n) = (change, n + 1);
        }
        let errors: [i64; 4] = if n == 0 { [0; 4] } else { self.change_each(&changes[..n])? };
        let mut failed = None;
        let mut added = Interest::NONE;
        for (change, &error) in changes[..n].iter().zip(&errors) {
            let adds = change.flags & EV_ADD != 0;
            match error as i32 {
                0 if adds => added = added.with(change.filter),
                0 => {}
                // It had been closed: what has its number now is another fd.
                libc::ENOENT if !adds => failed = Some(libc::ENOENT),
                // A pipe whose other end is gone cannot be waited for in this direction; the other
                // one tells.
                libc::EPIPE if adds && interest == Interest::BOTH => {}
                error => failed = failed.or(Some(error)),
            }
        }
        let watched = book.watched(fd);
        (watched.how, watched.id) = (Some((added, mode)), id);
        let Some(error) = failed else {
            watched.how = Some((interest, mode));
            return Ok(());
        };
        watched.how = None;
        for filter in filters(added) {
            self.change(&[Raw::new(change(fd, filter, EV_DELETE, id))])?;
        }
        Err(io::Error::from_raw_os_error(error))
    }

    /// See [`Poller::wait`]. `changes` go with the first call.
    fn wait(
        &self,
        mut changes: &[Raw],
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        events.found.clear();
        events.full = false;
        let until =
            timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| Time::now() + timeout);
        let mut rest = timeout;
        loop {
            let part = rest.map(|rest| rest.min(LONGEST));
            let n = abi::kevent(&self.kq, changes, &mut events.list, part)?;
            events.full = n == events.list.len();
            self.take(n, events)?;
            if !events.found.is_empty() {
                return Ok(());
            }
            match (timeout, until) {
                (None, _) => {}
                (_, Some(until)) if Time::now() < until => rest = Some(until - Time::now()),
                _ => return Ok(()),
            }
            changes = &[];
        }
    }

    /// Turns the first `n` kevents of the list into events. When one of them is a change that
    /// failed it is the error, and the others are there.
    fn take(&self, n: usize, events: &mut Events) -> io::Result<()> {
        let Events { list, found, .. } = events;
        let mut error = None;
        let mut book = None;
        let mut halves = false;
        for kevent in list[..n].iter().filter_map(Raw::read) {
            if kevent.flags & EV_ERROR != 0 {
                if kevent.data != 0 {
                    error = error.or(Some(kevent.data as i32));
                }
                continue;
            }
            let readiness = readiness(kevent.filter, kevent.flags, kevent.fflags);
            if kevent.filter == Filter::User {
                found.push(Event { id: kevent.id, readiness });
                continue;
            }
            let book = book.get_or_insert_with(|| self.open_batch());
            let batch = book.batch;
            if kevent.filter == Filter::Timer {
                match book.timers.get_mut(kevent.ident) {
                    None | Some(&mut u64::MAX) => {} // disarmed meanwhile
                    Some(&mut deadline) if Time::now().as_nanos() < deadline => {
                        timer::arm(self, kevent.ident, kevent.id, Time::from_nanos(deadline))?;
                    }
                    Some(deadline) => {
                        *deadline = u64::MAX;
                        found.push(Event { id: kevent.id, readiness });
                    }
                }
                continue;
            }
            let Some(watched) = book.fds.get_mut(kevent.ident) else { continue };
            let Some((interest, mode)) = watched.how else { continue }; // taken out meanwhile
            if watched.batch != batch {
                (watched.batch, watched.at, watched.fired) = (batch, found.len(), [false; 2]);
                found.push(Event { id: kevent.id, readiness });
            }
            let event = &mut found[watched.at];
            event.readiness = event.readiness | readiness;
            watched.fired[usize::from(kevent.filter == Filter::Write)] = true;
            halves |= mode == Mode::OneShot && interest == Interest::BOTH;
        }
        if let (true, Some(book)) = (halves, &mut book) {
            for kevent in list[..n].iter().filter_map(Raw::read) {
                self.disable_other_half(book, &kevent)?;
            }
        }
        error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }

    fn open_batch(&self) -> MutexGuard<'_, Book> {
        let mut book = self.book();
        book.batch += 1;
        book
    }

    /// A one-shot that has fired in one direction is over in the other one, too.
    fn disable_other_half(&self, book: &mut Book, kevent: &Kevent) -> io::Result<()> {
        let other = match kevent.filter {
            Filter::Read => Filter::Write,
            Filter::Write => Filter::Read,
            _ => return Ok(()),
        };
        let Some(watched) = book.fds.get_mut(kevent.ident) else { return Ok(()) };
        let both = watched.how == Some((Interest::BOTH, Mode::OneShot));
        if !both || watched.fired == [true; 2] {
            return Ok(());
        }
        let disable = Kevent {
            filter: other,
            flags: EV_DISABLE,
            fflags: 0,
            data: 0,
            id: watched.id,
            ..*kevent
        };
        self.change(&[Raw::new(disable)])
    }
}

impl Interest {
    fn with(self, filter: Filter) -> Interest {
        let more = if filter == Filter::Write { Interest::WRITABLE } else { Interest::READABLE };
        Interest(self.0 | more.0)
    }
}

impl Book {
    fn watched(&mut self, fd: BorrowedFd<'_>) -> &mut Watched {
        let fd = fd.as_raw_fd() as usize;
        if fd >= self.fds.len() {
            self.fds.resize(fd + 1, Watched::default());
        }
        &mut self.fds[fd]
    }
}

/// Returns true if `fd` is a kqueue: of others no events can be asked for. One syscall.
pub(super) fn is_kqueue(fd: BorrowedFd<'_>) -> bool {
    abi::kevent_of(fd, &[], &mut [], Some(Duration::ZERO)).is_ok()
}

/// Urgent data has a filter on some systems only, and another one each.
fn can_wait_for(interest: Interest) -> io::Result<()> {
    if interest.is_priority() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a kqueue cannot wait for urgent data",
        ));
    }
    Ok(())
}

fn change(fd: BorrowedFd<'_>, filter: Filter, flags: u32, id: u64) -> Kevent {
    Kevent { ident: fd.as_raw_fd() as usize, filter, flags, fflags: 0, data: 0, id }
}

/// The buffer that [`Poller::wait`] fills. Allocates once, when made.
pub struct Events {
    list: Box<[Raw]>,
    found: Vec<Event>,
    /// The last wait filled the list.
    full: bool,
}

impl Events {
    /// A buffer for `capacity` events a wait, from 1 to `i32::MAX`; values outside are brought into
    /// that range.
    pub fn with_capacity(capacity: usize) -> Events {
        let capacity = capacity.clamp(1, i32::MAX as usize);
        let found = Vec::with_capacity(capacity);
        Events { list: vec![Raw::EMPTY; capacity].into_boxed_slice(), found, full: false }
    }

    /// What the last wait found.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.found.iter().copied()
    }

    /// How many events a wait can find.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.list.len()
    }

    /// Returns true if the last wait may have left something for want of room.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// How many events the last wait found.
    #[inline]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether the last wait found nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// One fd that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    id: u64,
    readiness: Readiness,
}

impl Event {
    /// The id that the fd was registered under.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the fd is ready for.
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// A read would not block: data, end of file, a hang-up or an error.
    pub fn is_readable(&self) -> bool {
        self.readiness.is_readable()
    }

    /// A write would not block: room, a hang-up or an error.
    pub fn is_writable(&self) -> bool {
        self.readiness.is_writable()
    }

    /// The fd has an error to be fetched.
    pub fn is_error(&self) -> bool {
        self.readiness.is_error()
    }

    /// The peer closed its writing half, or the whole connection.
    pub fn is_hang_up(&self) -> bool {
        self.readiness.is_hang_up()
    }
}
