//! The poller on macOS and the BSDs: a kqueue. (For tests also on Linux, from a library.)
//!
//! Quirks handled here:
//! - A kqueue has a filter for each direction of an fd, and forgets closed fds. Adding an fd twice
//!   is no error, and an fd with both interests has two events. `Book` remembers the fds. So the
//!   same mistakes are errors as on epoll, and an fd has one event a wait. If a one-shot has fired
//!   for one direction, it is over for both.
//! - Adding a filter again changes neither `EV_CLEAR` nor `EV_DISPATCH` of the existing filter. So
//!   `modify` deletes and adds, in one call.
//! - Changes that must not fetch events ask for receipts, which take all the room for events. The
//!   call that waits asks for no receipts, because a receipt ends the wait.
//! - A change that fails is an event with `EV_ERROR` and ends the call at once. `arm_and_wait`
//!   returns that error.
//! - Kernels that count ticks round times, and no kernel takes every duration. A timer that fires
//!   before its deadline is armed again, and is not reported.
//! - The library on Linux finds a kqueue by the number of its fd, so the fd is never duplicated.

mod abi;
mod nested;
mod pipe;
mod timer;
mod waker;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(super) use self::nested::{ProcessFd, TimerFd};
pub(super) use self::pipe::Flag;
pub(super) use self::timer::Timer;
pub(super) use self::waker::Waker;

use self::abi::{Kevent, Raw};
use super::fork::PollerFd;
use super::kevent::{
    EV_ADD, EV_DELETE, EV_DISABLE, EV_ERROR, EV_RECEIPT, Filter, LONGEST, filters, flags, readiness,
};
use super::{Interest, Mode, Readiness, Time, Watch, has_fd};

pub(super) const ARMS_IN_WAIT: bool = true;
pub(super) const NESTS: bool = !cfg!(flat);

/// A kqueue. Its timers and wakers have clones of it.
#[derive(Clone, Debug)]
pub(super) struct Poller {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    kq: PollerFd,
    book: Mutex<Book>,
}

/// The book of the kqueue. It is locked for registrations, for arms, and for batches with fds or
/// timers, but never during a wait.
#[derive(Debug, Default)]
struct Book {
    /// The fds, by their numbers.
    fds: Vec<Entry>,
    /// The deadlines of the timers in ns, by their idents. `u64::MAX` stands for a disarmed timer.
    timers: Vec<u64>,
    free_timers: Vec<usize>,
    wakers: usize,
    /// The number of the present batch.
    batch: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The interest and the mode, or `None` for an fd that is not registered.
    how: Option<(Interest, Mode)>,
    id: u64,
    /// The last batch with the fd. The next fields are its place there, and its directions that
    /// have fired.
    batch: u64,
    at: usize,
    fired: [bool; 2],
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller { queue: Arc::new(Queue { kq: abi::kqueue()?, book: Mutex::default() }) })
    }

    pub(super) fn is_here(&self) -> bool {
        self.queue.kq.is_here()
    }

    fn is(&self, other: &Poller) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.queue.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Applies changes as [`abi::change`] does.
    fn change(&self, changes: &[Raw]) -> io::Result<()> {
        abi::change(&self.queue.kq, changes)
    }

    /// Applies all changes, and returns the result of each: 0, or an errno. Fetches no events.
    fn change_each<const N: usize>(&self, changes: &[Kevent]) -> io::Result<[i64; N]> {
        let mut list = [Raw::EMPTY; N];
        for (raw, change) in list.iter_mut().zip(changes) {
            *raw = Raw::new(Kevent { flags: change.flags | EV_RECEIPT, ..*change });
        }
        let mut receipts = [Raw::EMPTY; N];
        let (list, room) = (&list[..changes.len()], &mut receipts[..changes.len()]);
        let n = abi::at_once(&self.queue.kq, list, room)?;
        debug_assert_eq!(n, changes.len());
        let mut errors = [0; N];
        for (error, receipt) in errors.iter_mut().zip(&receipts[..n]) {
            *error = receipt.read().map_or(0, |receipt| receipt.data);
        }
        Ok(errors)
    }

    pub(super) fn register(&self, fd: BorrowedFd<'_>, watch: Watch) -> io::Result<()> {
        can_wait_for(watch.interest)?;
        let book = &mut *self.book();
        if self.has(book, fd) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.replace(book, fd, Interest::NONE, watch)
    }

    pub(super) fn modify(&self, fd: BorrowedFd<'_>, watch: Watch) -> io::Result<()> {
        can_wait_for(watch.interest)?;
        let book = &mut *self.book();
        let Some((former, _)) = book.entry(fd).how else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        self.replace(book, fd, former, watch)
    }

    pub(super) fn deregister(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let book = &mut *self.book();
        let Some((former, mode)) = book.entry(fd).how else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        self.replace(book, fd, former, Watch { id: 0, interest: Interest::NONE, mode })?;
        book.entry(fd).how = None;
        Ok(())
    }

    /// Returns true if `fd` is registered. The kernel forgets a closed fd and the book does not, so
    /// another file may have the number by now.
    fn has(&self, book: &mut Book, fd: BorrowedFd<'_>) -> bool {
        let entry = *book.entry(fd);
        let Some((interest, _)) = entry.how else { return false };
        // A change without flags only tests if the filter exists.
        let looks = filters(interest)
            .map(|filter| Raw::new(change(fd, filter, 0, entry.id)))
            .collect::<Vec<_>>();
        let there = |look: &Raw| match self.change(std::slice::from_ref(look)) {
            Err(error) => error.raw_os_error() != Some(libc::ENOENT),
            Ok(()) => true,
        };
        let there = looks.is_empty() || looks.iter().any(there);
        if !there {
            book.entry(fd).how = None;
        }
        there
    }

    /// Removes the filters of `former` and adds those of `interest`.
    fn replace(
        &self,
        book: &mut Book,
        fd: BorrowedFd<'_>,
        former: Interest,
        watch: Watch,
    ) -> io::Result<()> {
        let Watch { id, interest, mode } = watch;
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
                0 if adds => added = added | direction(change.filter),
                0 => {}
                // The registered fd was closed, and another file has its number now.
                libc::ENOENT if !adds => failed = Some(libc::ENOENT),
                // A pipe whose other end is gone cannot be waited for in this direction. The filter
                // of the other direction reports the end.
                libc::EPIPE if adds && interest == Interest::BOTH => {}
                error => failed = failed.or(Some(error)),
            }
        }
        let entry = book.entry(fd);
        let before = (entry.how.take(), entry.id);
        let Some(error) = failed else {
            (entry.how, entry.id) = (Some((interest, mode)), id);
            return Ok(());
        };
        for filter in filters(added) {
            self.change(&[Raw::new(change(fd, filter, EV_DELETE, id))])?;
        }
        // A registered file stays registered, with the former interest as far as possible.
        if let (Some((_, mode)), former_id) = before {
            if error != libc::ENOENT {
                let mut kept = Interest::NONE;
                for filter in filters(former) {
                    let add = change(fd, filter, flags(mode), former_id);
                    if self.change(&[Raw::new(add)]).is_ok() {
                        kept = kept | direction(filter);
                    }
                }
                (entry.how, entry.id) = (Some((kept, mode)), former_id);
            }
        }
        Err(io::Error::from_raw_os_error(error))
    }

    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.wait_with(&[], events, timeout)
    }

    pub(super) fn arm_and_wait(
        &self,
        timer: &Timer,
        deadline: Time,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if deadline == Time::MAX || !timer.is_of(self) {
            timer.arm(deadline)?;
            return self.wait(events, timeout);
        }
        timer.armed_by(deadline, |changes| self.wait_with(changes, events, timeout))
    }

    /// Waits. The first call also applies `changes`.
    fn wait_with(
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
            let n = abi::kevent(&self.queue.kq, changes, &mut events.list, part)?;
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

    /// Converts the first `n` kevents of the list into events. If one of them is a failed change,
    /// the result is its error, and the other events are in the list.
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
                    None | Some(&mut u64::MAX) => {} // the timer was disarmed meanwhile
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
            let Some(entry) = book.fds.get_mut(kevent.ident) else { continue };
            let Some((interest, mode)) = entry.how else { continue }; // deregistered meanwhile
            if entry.batch != batch {
                (entry.batch, entry.at, entry.fired) = (batch, found.len(), [false; 2]);
                found.push(Event { id: kevent.id, readiness });
            }
            let event = &mut found[entry.at];
            event.readiness = event.readiness | readiness;
            entry.fired[usize::from(kevent.filter == Filter::Write)] = true;
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

    /// Disables the other direction of a one-shot that has fired.
    fn disable_other_half(&self, book: &mut Book, kevent: &Kevent) -> io::Result<()> {
        let other = match kevent.filter {
            Filter::Read => Filter::Write,
            Filter::Write => Filter::Read,
            _ => return Ok(()),
        };
        let Some(entry) = book.fds.get_mut(kevent.ident) else { return Ok(()) };
        let both = entry.how == Some((Interest::BOTH, Mode::OneShot));
        if !both || entry.fired == [true; 2] {
            return Ok(());
        }
        let disable = Kevent {
            filter: other,
            flags: EV_DISABLE,
            fflags: 0,
            data: 0,
            id: entry.id,
            ..*kevent
        };
        self.change(&[Raw::new(disable)])
    }
}

/// The slack of timeouts, which are not used, because one call arms and waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeoutSlack;

impl TimeoutSlack {
    pub(super) fn of(_: &Poller) -> TimeoutSlack {
        TimeoutSlack
    }

    pub(crate) fn timeout(self, _: Time, _: Time, _: Time) -> Option<Duration> {
        None
    }

    pub(crate) fn timeout_ahead(self, _: Time, _: Time) -> Option<Duration> {
        None
    }
}

has_fd!(Poller, queue.kq);

impl Book {
    fn entry(&mut self, fd: BorrowedFd<'_>) -> &mut Entry {
        let fd = fd.as_raw_fd() as usize;
        if fd >= self.fds.len() {
            self.fds.resize(fd + 1, Entry::default());
        }
        &mut self.fds[fd]
    }
}

fn direction(filter: Filter) -> Interest {
    if filter == Filter::Write { Interest::WRITABLE } else { Interest::READABLE }
}

/// Returns true if `fd` is a kqueue. One syscall, which fails for other files.
pub(super) fn is_kqueue(fd: BorrowedFd<'_>) -> bool {
    abi::kevent_of(fd, &[], &mut [], Some(Duration::ZERO)).is_ok()
}

/// Fails for urgent data, which has a filter only on some systems, and a different one on each.
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

pub(super) struct Events {
    list: Box<[Raw]>,
    found: Vec<Event>,
    /// True if the last wait has filled the list.
    full: bool,
}

impl Events {
    pub(super) fn with_capacity(capacity: usize) -> Events {
        let capacity = capacity.clamp(1, i32::MAX as usize);
        let found = Vec::with_capacity(capacity);
        Events { list: vec![Raw::EMPTY; capacity].into_boxed_slice(), found, full: false }
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.found.iter().copied()
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    id: u64,
    readiness: Readiness,
}

impl Event {
    #[inline]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    pub(super) fn readiness(&self) -> Readiness {
        self.readiness
    }
}
