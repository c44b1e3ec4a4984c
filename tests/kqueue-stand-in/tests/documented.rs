//! A test for each sentence of kqueue(2) that the stand-in keeps. The comment of a test quotes the
//! sentence, or names the kernel source that has the behaviour.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kqueue::*;

const ZERO: Option<Duration> = Some(Duration::ZERO);

// ---- A safe wrapper of a kqueue.

struct Kq(OwnedFd);

fn change(ident: usize, filter: i16, flags: u16) -> kevent {
    kevent { ident, filter, flags, fflags: 0, data: 0, udata: null_mut() }
}

fn reads(of: &impl AsRawFd, flags: u16) -> kevent {
    change(fd(of), EVFILT_READ, flags)
}

fn writes(of: &impl AsRawFd, flags: u16) -> kevent {
    change(fd(of), EVFILT_WRITE, flags)
}

fn user(ident: usize, flags: u16) -> kevent {
    change(ident, EVFILT_USER, flags)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn timer(ident: usize, flags: u16, after: Duration) -> kevent {
    kevent {
        fflags: NOTE_NSECONDS,
        data: after.as_nanos() as isize,
        ..change(ident, EVFILT_TIMER, flags)
    }
}

fn trigger(ident: usize) -> kevent {
    kevent { fflags: NOTE_TRIGGER, ..user(ident, 0) }
}

impl Kq {
    fn new() -> Kq {
        let fd = kqueue();
        assert!(fd >= 0);
        // SAFETY: the library just made `fd` for us.
        Kq(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Calls `kevent`, and returns the events or the errno.
    fn call(
        &self,
        changes: &[kevent],
        room: usize,
        timeout: Option<Duration>,
    ) -> Result<Vec<kevent>, i32> {
        let mut events = vec![change(0, 0, 0); room];
        let timeout = timeout
            .map(|t| libc::timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos() as _ });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| timeout as *const _);
        let (changes, n) = (changes.as_ptr(), changes.len() as i32);
        // SAFETY: both lists have the given lengths, and the timeout is null or valid.
        let n = unsafe {
            kevent(self.0.as_raw_fd(), changes, n, events.as_mut_ptr(), room as i32, timeout)
        };
        if n < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
        }
        events.truncate(n as usize);
        Ok(events)
    }

    fn apply(&self, changes: &[kevent]) {
        self.call(changes, 0, ZERO).unwrap();
    }

    fn look(&self) -> Vec<kevent> {
        self.call(&[], 16, ZERO).unwrap()
    }

    /// Waits for events. A wait of a minute is a failure.
    fn wait(&self) -> Vec<kevent> {
        self.call(&[], 16, Some(Duration::from_secs(60))).unwrap()
    }
}

fn one(events: Vec<kevent>) -> kevent {
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]
}

/// Waits for the event of an end that the test has just made. The event may be late, because a
/// child of another test holds a copy of each file until it executes its program.
fn end(kq: &Kq) -> kevent {
    let start = Instant::now();
    loop {
        let mut events = kq.look();
        events.retain(|event| event.flags & EV_EOF != 0);
        if !events.is_empty() || start.elapsed() > Duration::from_secs(60) {
            return one(events);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn none(events: Vec<kevent>) {
    assert!(events.is_empty(), "{events:?}");
}

fn fd(of: &impl AsRawFd) -> usize {
    of.as_raw_fd() as usize
}

fn pipe() -> (File, File) {
    let mut fds = [0; 2];
    // SAFETY: `fds` is a valid place for the two fds that the call writes.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }, 0);
    // SAFETY: the kernel just made both fds for us.
    unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) }
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// Writes until no room is left.
fn fill(mut to: impl Write) -> usize {
    let mut n = 0;
    while let Ok(more) = to.write(&[0; 4096]) {
        n += more;
    }
    n
}

// ---- The calls.

/// "A kevent is identified by the (ident, filter) pair; there may only be one unique kevent per
/// kqueue."
#[test]
fn ident_and_filter_are_the_key() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    kq.apply(&[reads(&a, EV_ADD), reads(&a, EV_ADD)]);
    kq.apply(&[writes(&a, EV_ADD), change(fd(&a), EVFILT_USER, EV_ADD)]);
    b.write_all(b"x").unwrap();
    let mut filters: Vec<_> = kq.look().iter().map(|event| event.filter).collect();
    filters.sort();
    assert_eq!(filters, [EVFILT_WRITE, EVFILT_READ]);
}

/// "The filter is executed upon the initial registration of a kevent in order to detect whether a
/// preexisting condition is present."
#[test]
fn a_condition_from_before_the_registration_is_found() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    b.write_all(b"x").unwrap();
    for flags in [EV_ADD, EV_ADD | EV_CLEAR, EV_ADD | EV_ONESHOT, EV_ADD | EV_DISPATCH] {
        kq.apply(&[reads(&a, flags)]);
        assert_eq!(one(kq.look()).ident, fd(&a));
        let _ = kq.call(&[reads(&a, EV_DELETE)], 0, ZERO);
    }
}

/// "The filter is also run when the user attempts to retrieve the kevent from the kqueue. If the
/// filter indicates that the condition that triggered the event no longer holds, the kevent is
/// removed from the kqueue and is not returned."
#[test]
fn a_condition_that_is_over_is_not_returned() {
    let (kq, (mut a, mut b)) = (Kq::new(), pair());
    kq.apply(&[reads(&a, EV_ADD), writes(&a, EV_ADD | EV_CLEAR)]);
    b.write_all(b"x").unwrap();
    assert_eq!(a.read(&mut [0; 8]).unwrap(), 1);
    fill(&a);
    none(kq.look());
}

/// "Multiple events which trigger the filter do not result in multiple kevents being placed on the
/// kqueue; instead, the filter will aggregate the events into a single struct kevent."
#[test]
fn events_of_one_knote_are_one_event() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    kq.apply(&[reads(&a, EV_ADD | EV_CLEAR), user(1, EV_ADD | EV_CLEAR)]);
    for _ in 0..3 {
        b.write_all(b"xy").unwrap();
        kq.apply(&[trigger(1)]);
    }
    let events = kq.look();
    assert_eq!(events.len(), 2);
    assert_eq!(events.iter().find(|event| event.filter == EVFILT_READ).unwrap().data, 6);
    none(kq.look());
}

/// "Calling close() on a file descriptor will remove any kevents that reference the descriptor."
#[test]
fn a_closed_fd_takes_its_knotes_along() {
    let kq = Kq::new();
    let (a, mut b) = pair();
    let (number, same) = (fd(&a), a.try_clone().unwrap());
    kq.apply(&[change(number, EVFILT_READ, EV_ADD), change(number, EVFILT_WRITE, EV_ADD)]);
    drop(a);
    // The socket is still open under another number.
    b.write_all(b"x").unwrap();
    none(kq.look());
    for filter in [EVFILT_READ, EVFILT_WRITE] {
        assert_eq!(kq.call(&[change(number, filter, EV_DELETE)], 0, ZERO), Err(libc::ENOENT));
    }
    drop(same);
}

/// "The kqueue() system call creates a new kernel event queue and returns a descriptor." Closing
/// the descriptor closes the inner fds of the stand-in, too.
#[test]
fn a_closed_kqueue_leaves_no_fd_behind() {
    if std::env::var_os("KQUEUE_CHILD").is_none() {
        return in_child("a_closed_kqueue_leaves_no_fd_behind");
    }
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (a, _b) = pair();
    let before = count();
    for _ in 0..100 {
        let kq = Kq::new();
        kq.apply(&[
            timer(1, EV_ADD, ms(1)),
            user(1, EV_ADD),
            change(libc::SIGUSR2 as usize, EVFILT_SIGNAL, EV_ADD),
            reads(&a, EV_ADD),
            writes(&a, EV_ADD),
        ]);
        assert!(count() > before);
    }
    assert_eq!(count(), before);
}

/// "EBADF: The specified descriptor is invalid."
#[test]
fn an_fd_that_is_no_kqueue_is_refused() {
    let kq = Kq::new();
    let number = kq.0.as_raw_fd();
    drop(kq);
    let call = |fd: RawFd| {
        // SAFETY: nothing is read or written.
        let n = unsafe { kevent(fd, null_mut(), 0, null_mut(), 0, null_mut()) };
        (n, std::io::Error::last_os_error().raw_os_error())
    };
    assert_eq!(call(-1), (-1, Some(libc::EBADF)));
    assert_eq!(call(0), (-1, Some(libc::EBADF)));
    // Another test may have made a kqueue with this number meanwhile.
    let answer = call(number);
    assert!(answer == (-1, Some(libc::EBADF)) || answer.0 == 0);
    let kq = Kq::new();
    for filter in [EVFILT_READ, EVFILT_WRITE] {
        assert_eq!(kq.call(&[change(9_999, filter, EV_ADD)], 0, ZERO), Err(libc::EBADF));
    }
}

/// "All changes contained in the changelist are applied before any pending events are read from the
/// queue."
#[test]
fn changes_come_before_events() {
    let kq = Kq::new();
    let hour = Duration::from_secs(3600);
    let changes = [user(1, EV_ADD | EV_CLEAR), trigger(1), timer(1, EV_ADD | EV_ONESHOT, hour)];
    assert_eq!(one(kq.call(&changes, 4, None).unwrap()).filter, EVFILT_USER);
    // A single call arms and waits.
    let start = Instant::now();
    assert_eq!(
        one(kq.call(&[timer(1, EV_ADD | EV_ONESHOT, ms(5))], 4, None).unwrap()).filter,
        EVFILT_TIMER
    );
    assert!(start.elapsed() >= ms(5));
    // The deleted event is gone.
    kq.apply(&[trigger(1)]);
    none(kq.call(&[user(1, EV_DELETE)], 4, ZERO).unwrap());
}

/// "When nevents is zero, kevent() will return immediately even if there is a timeout specified
/// unlike select(2)."
#[test]
fn a_call_without_room_does_not_wait() {
    let kq = Kq::new();
    let start = Instant::now();
    none(kq.call(&[], 0, Some(Duration::from_secs(30))).unwrap());
    none(kq.call(&[user(1, EV_ADD)], 0, None).unwrap());
    assert!(start.elapsed() < Duration::from_secs(15));
}

/// "If timeout is a non-NULL pointer, it specifies a maximum interval to wait for an event, which
/// will be interpreted as a struct timespec. To effect a poll, the timeout argument should be
/// non-NULL, pointing to a zero-valued timespec." "If the time limit expires, then kevent() returns
/// 0."
#[test]
fn a_timeout_ends_the_wait_never_early() {
    let kq = Kq::new();
    none(kq.look());
    for timeout in [Duration::from_micros(1), Duration::from_micros(1_500), ms(3)] {
        let start = Instant::now();
        none(kq.call(&[], 1, Some(timeout)).unwrap());
        assert!(start.elapsed() >= timeout);
    }
}

/// "EINVAL: The specified time limit or filter is invalid."
#[test]
fn wrong_times_filters_and_sizes_are_refused() {
    let kq = Kq::new();
    for filter in [0, 1, -3, -4, -99] {
        assert_eq!(kq.call(&[change(1, filter, EV_ADD)], 0, ZERO), Err(libc::EINVAL));
    }
    for (s, ns) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
        let timeout = libc::timespec { tv_sec: s, tv_nsec: ns };
        // SAFETY: no list is read or written, and the timeout is valid.
        assert_eq!(unsafe { kevent(kq.0.as_raw_fd(), null_mut(), 0, null_mut(), 0, &timeout) }, -1);
    }
    // SAFETY: a negative length is refused before anything is read.
    assert_eq!(unsafe { kevent(kq.0.as_raw_fd(), null_mut(), -1, null_mut(), 0, null_mut()) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
}

/// "The same array may be used for the changelist and eventlist."
#[test]
fn one_array_may_be_both_lists() {
    let kq = Kq::new();
    let mut list = [user(1, EV_ADD), trigger(1), user(2, EV_ADD), trigger(2)];
    let list_at = list.as_mut_ptr();
    // SAFETY: the list has the given length.
    assert_eq!(unsafe { kevent(kq.0.as_raw_fd(), list_at, 4, list_at, 4, null_mut()) }, 2);
    let mut idents = [list[0].ident, list[1].ident];
    idents.sort();
    assert_eq!(idents, [1, 2]);
}

/// "If an error occurs while processing an element of the changelist and there is enough room in
/// the eventlist, then the event will be placed in the eventlist with EV_ERROR set in flags and the
/// system error in data." Such a call does not wait, and returns the number of errors
/// (kern_event.c).
#[test]
fn a_failed_change_gives_an_event_without_waiting() {
    let kq = Kq::new();
    let changes = [change(5, EVFILT_TIMER, EV_DELETE), user(1, EV_ADD), trigger(1)];
    let start = Instant::now();
    let error = one(kq.call(&changes, 4, Some(Duration::from_secs(30))).unwrap());
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!((error.ident, error.filter, error.data as i32), (5, EVFILT_TIMER, libc::ENOENT));
    assert_ne!(error.flags & EV_ERROR, 0);
    // The call has made the later changes.
    assert_eq!(one(kq.look()).ident, 1);
}

/// "Otherwise, -1 will be returned, and errno will be set to indicate the error condition."
#[test]
fn without_room_a_failed_change_fails_the_call() {
    let kq = Kq::new();
    let changes = [change(5, EVFILT_TIMER, EV_DELETE), user(1, EV_ADD)];
    assert_eq!(kq.call(&changes, 0, None), Err(libc::ENOENT));
    assert_eq!(
        kq.call(&[trigger(1)], 0, None),
        Err(libc::ENOENT),
        "what comes after it is not done"
    );
}

/// "ENOENT: The event could not be found to be modified or deleted."
#[test]
fn changing_a_missing_knote_is_refused() {
    let (kq, (a, _b)) = (Kq::new(), pair());
    for filter in [EVFILT_READ, EVFILT_WRITE, EVFILT_TIMER, EVFILT_USER, EVFILT_SIGNAL, EVFILT_PROC]
    {
        for flags in [0, EV_DELETE, EV_ENABLE, EV_DISABLE] {
            assert_eq!(kq.call(&[change(fd(&a), filter, flags)], 0, ZERO), Err(libc::ENOENT));
        }
    }
}

/// "EINTR: A signal was delivered before the timeout expired and before any events were placed on
/// the kqueue for return."
#[test]
fn an_interrupted_wait_has_made_its_changes() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an all-zero sigaction is a value, the handler does nothing, and the thread is alive
    // while it is signalled.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, null_mut()), 0);
    }
    let kq = Kq::new();
    // SAFETY: no preconditions.
    let target = unsafe { libc::pthread_self() };
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || {
        while is_done.recv_timeout(ms(5)).is_err() {
            // SAFETY: the target joins this thread.
            unsafe { libc::pthread_kill(target, libc::SIGALRM) };
        }
    });
    assert_eq!(kq.call(&[user(1, EV_ADD)], 1, None), Err(libc::EINTR));
    kq.apply(&[trigger(1)]);
    assert_eq!(one(kq.wait()).ident, 1);
    done.send(()).unwrap();
    other.join().unwrap();
}

// ---- Flags.

/// "EV_ADD: Adds the event to the kqueue. Re-adding an existing event will modify the parameters of
/// the original event, and not result in a duplicate entry."
#[test]
fn adding_again_modifies_the_existing_event() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    b.write_all(b"x").unwrap();
    for udata in [1, 2] {
        kq.apply(&[kevent { udata: udata as _, ..reads(&a, EV_ADD) }]);
        assert_eq!(one(kq.look()).udata as usize, udata);
    }
    // The entry keeps its kind (kern_event.c).
    kq.apply(&[reads(&a, EV_ADD | EV_CLEAR)]);
    one(kq.look());
    one(kq.look());
}

/// "udata: Opaque user-defined value passed through the kernel unchanged." Each change sets `udata`
/// anew, also a trigger (kern_event.c).
#[test]
fn an_event_has_the_latest_udata() {
    let kq = Kq::new();
    let udata = 0xfedc_ba98_7654_3210_usize as *mut _;
    kq.apply(&[kevent { udata, ..user(1, EV_ADD | EV_CLEAR) }]);
    kq.apply(&[kevent { udata, ..trigger(1) }]);
    assert_eq!(one(kq.look()).udata, udata);
    kq.apply(&[trigger(1)]);
    assert_eq!(one(kq.look()).udata, null_mut());
}

/// "EV_DISABLE: Disable the event so kevent() will not return it. The filter itself is not
/// disabled." "EV_ENABLE: Permit kevent() to return the event if it is triggered."
#[test]
fn a_disabled_event_is_not_returned() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    let all = [(fd(&a), EVFILT_READ), (fd(&a), EVFILT_WRITE), (1, EVFILT_USER), (1, EVFILT_TIMER)];
    kq.apply(&all.map(|(ident, filter)| kevent {
        data: if filter == EVFILT_TIMER { 1 } else { 0 },
        ..change(
            ident,
            filter,
            EV_ADD | EV_CLEAR | if filter == EVFILT_TIMER { EV_ONESHOT } else { 0 },
        )
    }));
    kq.apply(&all.map(|(ident, filter)| change(ident, filter, EV_DISABLE)));
    b.write_all(b"x").unwrap();
    kq.apply(&[trigger(1)]);
    none(kq.call(&[], 8, Some(ms(5))).unwrap());
    for (ident, filter) in all {
        kq.apply(&[change(ident, filter, EV_ENABLE)]);
        let event = one(kq.wait());
        assert_eq!((event.ident, event.filter), (ident, filter));
    }
    none(kq.look());
}

/// "Adding an event automatically enables it, unless overridden by the EV_DISABLE flag."
#[test]
fn adding_enables_unless_flagged_as_disabled() {
    let kq = Kq::new();
    kq.apply(&[user(1, EV_ADD | EV_DISABLE), trigger(1)]);
    none(kq.look());
    kq.apply(&[user(1, EV_ADD)]);
    one(kq.look());
}

/// "EV_DISPATCH: Disable the event source immediately after delivery of an event. See EV_DISABLE
/// above."
#[test]
fn a_dispatched_event_is_disabled() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    b.write_all(b"x").unwrap();
    for filter in [EVFILT_READ, EVFILT_WRITE] {
        kq.apply(&[change(fd(&a), filter, EV_ADD | EV_DISPATCH)]);
        for _ in 0..3 {
            one(kq.look());
            none(kq.look());
            b.write_all(b"x").unwrap();
            none(kq.look());
            kq.apply(&[change(fd(&a), filter, EV_ENABLE)]);
        }
        kq.apply(&[change(fd(&a), filter, EV_DELETE)]);
    }
}

/// "EV_DELETE: Removes the event from the kqueue."
#[test]
fn a_deleted_event_is_gone() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    b.write_all(b"x").unwrap();
    let all = [(fd(&a), EVFILT_READ), (fd(&a), EVFILT_WRITE), (1, EVFILT_USER), (1, EVFILT_TIMER)];
    kq.apply(&all.map(|(ident, filter)| change(ident, filter, EV_ADD)));
    kq.apply(&[trigger(1)]);
    assert!(kq.look().len() >= 3);
    kq.apply(&all.map(|(ident, filter)| change(ident, filter, EV_DELETE)));
    none(kq.call(&[], 8, Some(ms(3))).unwrap());
    for (ident, filter) in all {
        assert_eq!(kq.call(&[change(ident, filter, EV_DELETE)], 0, ZERO), Err(libc::ENOENT));
    }
}

/// "EV_RECEIPT: This flag is useful for making bulk changes to a kqueue without draining any
/// pending events. When passed as input, it forces EV_ERROR to always be returned. When a filter is
/// successfully added the data field will be zero."
#[test]
fn receipts_report_each_change_and_drain_nothing() {
    let kq = Kq::new();
    kq.apply(&[user(1, EV_ADD | EV_CLEAR), trigger(1)]);
    let changes = [
        user(2, EV_ADD | EV_RECEIPT),
        user(3, EV_DELETE | EV_RECEIPT),
        user(2, EV_DELETE | EV_RECEIPT),
    ];
    let receipts = kq.call(&changes, 3, None).unwrap();
    let seen: Vec<_> =
        receipts.iter().map(|r| (r.ident, r.flags & EV_ERROR != 0, r.data as i32)).collect();
    assert_eq!(seen, [(2, true, 0), (3, true, libc::ENOENT), (2, true, 0)]);
    assert_eq!(one(kq.look()).ident, 1);
}

/// "EV_ONESHOT: Causes the event to return only the first occurrence of the filter being triggered.
/// After the user retrieves the event from the kqueue, it is deleted."
#[test]
fn a_oneshot_is_deleted_when_it_is_retrieved() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    b.write_all(b"x").unwrap();
    for (ident, filter) in
        [(fd(&a), EVFILT_READ), (fd(&a), EVFILT_WRITE), (1, EVFILT_USER), (1, EVFILT_TIMER)]
    {
        kq.apply(&[change(ident, filter, EV_ADD | EV_ONESHOT)]);
        if filter == EVFILT_USER {
            kq.apply(&[trigger(1)]);
        }
        assert_ne!(one(kq.wait()).flags & EV_ONESHOT, 0);
        none(kq.look());
        assert_eq!(kq.call(&[change(ident, filter, EV_DELETE)], 0, ZERO), Err(libc::ENOENT));
    }
}

/// "EV_CLEAR: After the event is retrieved by the user, its state is reset. This is useful for
/// filters which report state transitions instead of the current state."
#[test]
fn with_clear_each_change_is_reported_once() {
    let (kq, (mut a, mut b)) = (Kq::new(), pair());
    kq.apply(&[reads(&a, EV_ADD | EV_CLEAR)]);
    for _ in 0..3 {
        b.write_all(b"x").unwrap();
        one(kq.look());
        none(kq.look());
    }
    kq.apply(&[reads(&a, EV_DELETE), writes(&a, EV_ADD | EV_CLEAR)]);
    one(kq.look());
    none(kq.look());
    fill(&a);
    none(kq.look());
    while b.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {}
    one(kq.look());
    none(kq.look());
    assert_eq!(a.read(&mut [0; 8]).unwrap(), 3);
}

/// Without EV_CLEAR the current state is reported, each time.
#[test]
fn without_clear_a_state_is_reported_while_present() {
    let (kq, (mut a, mut b)) = (Kq::new(), pair());
    kq.apply(&[reads(&a, EV_ADD), writes(&b, EV_ADD)]);
    b.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert_eq!(kq.look().len(), 2);
    }
    assert_eq!(a.read(&mut [0; 8]).unwrap(), 1);
    fill(&b);
    assert_eq!(one(kq.look()).filter, EVFILT_READ);
}

// ---- EVFILT_READ and EVFILT_WRITE.

/// "EVFILT_READ: Sockets which have previously been passed to listen return when there is an
/// incoming connection pending."
#[test]
fn a_listener_is_readable_with_a_connection() {
    let kq = Kq::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    kq.apply(&[reads(&listener, EV_ADD)]);
    none(kq.look());
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(one(kq.wait()).data >= 1);
    drop(listener.accept().unwrap());
    none(kq.look());
}

/// "Other socket descriptors return when there is data to be read. On return, data contains the
/// number of bytes of protocol data available to read." "Fifos, Pipes: Returns when there is data
/// to read; data contains the number of bytes available."
#[test]
fn readable_bytes_are_counted() {
    let (kq, (a, mut b), (reader, mut writer)) = (Kq::new(), pair(), pipe());
    kq.apply(&[reads(&a, EV_ADD)]);
    b.write_all(b"four").unwrap();
    assert_eq!(one(kq.look()).data, 4);
    kq.apply(&[reads(&a, EV_DELETE), reads(&reader, EV_ADD)]);
    none(kq.look());
    writer.write_all(b"fifth").unwrap();
    assert_eq!(one(kq.look()).data, 5);
}

/// "If the read direction of the socket has shutdown, then the filter also sets EV_EOF in flags
/// [..] It is possible for EOF to be returned (indicating the connection is gone) while there is
/// still data pending in the socket buffer."
#[test]
fn an_end_is_reported_while_data_is_pending() {
    let (kq, (a, mut b)) = (Kq::new(), pair());
    kq.apply(&[reads(&a, EV_ADD)]);
    b.write_all(b"last").unwrap();
    assert_eq!(one(kq.look()).flags & EV_EOF, 0);
    b.shutdown(std::net::Shutdown::Write).unwrap();
    let event = one(kq.look());
    assert_eq!((event.flags & EV_EOF, event.data, event.fflags), (EV_EOF, 4, 0));
    // Only this direction has ended.
    kq.apply(&[reads(&a, EV_DELETE), writes(&a, EV_ADD)]);
    assert_eq!(one(kq.look()).flags & EV_EOF, 0);
}

/// "[..] and returns the socket error (if any) in fflags." The stand-in returns EIO, and the
/// program can still ask for the error.
#[test]
fn a_reported_socket_error_can_still_be_read() {
    let kq = Kq::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    // Closing a socket with unread data resets the connection.
    server.write_all(b"x").unwrap();
    client.peek(&mut [0; 8]).unwrap();
    kq.apply(&[reads(&server, EV_ADD), writes(&server, EV_ADD)]);
    drop(client);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen = kq.wait();
        seen.retain(|event| event.flags & EV_EOF != 0 && event.fflags != 0);
    }
    assert_eq!(server.take_error().unwrap().unwrap().raw_os_error(), Some(libc::ECONNRESET));
}

/// "When the last writer disconnects, the filter will set EV_EOF in flags."
#[test]
fn a_pipe_ends_with_its_last_writer() {
    let (kq, (reader, writer)) = (Kq::new(), pipe());
    let second = writer.try_clone().unwrap();
    kq.apply(&[reads(&reader, EV_ADD)]);
    drop(writer);
    none(kq.look());
    drop(second);
    let event = end(&kq);
    assert_eq!(event.data, 0);
}

/// "EVFILT_WRITE: Takes a descriptor as the identifier, and returns whenever it is possible to
/// write to the descriptor. For sockets, pipes and fifos, data will contain the amount of space
/// remaining in the write buffer."
#[test]
fn room_to_write_is_counted() {
    let (kq, (a, _b), (_reader, mut writer)) = (Kq::new(), pair(), pipe());
    kq.apply(&[writes(&a, EV_ADD)]);
    assert!(one(kq.look()).data > 4096);
    kq.apply(&[writes(&a, EV_DELETE), writes(&writer, EV_ADD)]);
    let room = one(kq.look()).data;
    writer.write_all(&[0; 1000]).unwrap();
    assert_eq!(one(kq.look()).data, room - 1000);
}

/// "The filter will set EV_EOF when the reader disconnects."
#[test]
fn writing_ends_with_the_reader() {
    let (kq, (reader, writer), (a, b)) = (Kq::new(), pipe(), pair());
    kq.apply(&[writes(&writer, EV_ADD)]);
    drop(reader);
    assert_eq!(end(&kq).fflags, 0);
    kq.apply(&[writes(&writer, EV_DELETE), writes(&a, EV_ADD)]);
    drop(b);
    end(&kq);
}

// ---- A kqueue as an fd.

/// A kqueue "may be polled" (FreeBSD: `kqueue_poll`), and is readable with EVFILT_READ while it has
/// events.
#[test]
fn nested_kqueues_are_readable_while_they_have_events() {
    for flags in [EV_ADD, EV_ADD | EV_CLEAR] {
        let kqs = [Kq::new(), Kq::new(), Kq::new()];
        let (a, mut b) = pair();
        let filters =
            [(1, EVFILT_USER), (fd(&a), EVFILT_READ), (fd(&a), EVFILT_WRITE), (1, EVFILT_TIMER)];
        for (ident, filter) in filters {
            // A periodic timer could fire again during the poll.
            let once = if filter == EVFILT_TIMER { EV_ONESHOT } else { 0 };
            let flags = EV_ADD | EV_CLEAR | EV_DISABLE | once;
            kqs[0].apply(&[kevent { data: 1, ..change(ident, filter, flags) }]);
        }
        // EVFILT_WRITE nests another epoll, and the kernel limits the depth.
        for n in 1..kqs.len() {
            kqs[n].apply(&[change(fd(&kqs[n - 1].0), EVFILT_READ, flags)]);
        }
        let outer = &kqs[2];
        none(outer.look());
        b.write_all(b"x").unwrap();
        kqs[0].apply(&[trigger(1)]);
        for (ident, filter) in filters {
            kqs[0].apply(&[change(ident, filter, EV_ENABLE)]);
            let event = one(outer.wait());
            assert_eq!((event.ident, event.filter), (fd(&kqs[1].0), EVFILT_READ));
            none(if flags & EV_CLEAR != 0 { outer.look() } else { Vec::new() });
            assert_eq!(one(kqs[0].wait()).filter, filter);
            if filter != EVFILT_TIMER {
                kqs[0].apply(&[change(ident, filter, EV_DISABLE)]);
            }
            none(outer.look());
        }
    }
}

/// "EVFILT_READ on a kqueue; itself is EINVAL" (FreeBSD: `kqueue_kqfilter`).
#[test]
fn a_kqueue_cannot_watch_itself() {
    let kq = Kq::new();
    assert_eq!(kq.call(&[reads(&kq.0, EV_ADD)], 0, ZERO), Err(libc::EINVAL));
}

/// Any other poller can wait for a kqueue, too.
#[test]
fn a_kqueue_can_be_polled() {
    let kq = Kq::new();
    let poll = || {
        let mut poll = libc::pollfd { fd: kq.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is a list of one.
        unsafe { libc::poll(&mut poll, 1, 0) }
    };
    kq.apply(&[user(1, EV_ADD | EV_CLEAR)]);
    assert_eq!(poll(), 0);
    kq.apply(&[trigger(1)]);
    assert_eq!(poll(), 1);
    one(kq.look());
    assert_eq!(poll(), 0);
}

/// A new kqueue of the stand-in is close-on-exec, because "the queue is not inherited by a child
/// created with fork(2)".
#[test]
fn a_kqueue_is_close_on_exec() {
    let kq = Kq::new();
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(kq.0.as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

/// "The queue is not inherited by a child created with fork(2)."
#[test]
fn a_forked_child_has_no_kqueue() {
    let kq = Kq::new();
    let (mut writer, reader) = pair();
    kq.apply(&[change(reader.as_raw_fd() as usize, EVFILT_READ, EV_ADD)]);
    // SAFETY: the child calls only `fcntl` and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(kq.0.as_raw_fd(), libc::F_GETFD) };
        close(reader.as_raw_fd());
        // SAFETY: no pointers.
        unsafe { libc::_exit(if flags == -1 { 0 } else { 1 }) }
    }
    let mut status = -1;
    // SAFETY: `status` is a place for one number.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child has the kqueue");
    // The parent still watches the files that the child has closed.
    writer.write_all(b"x").unwrap();
    one(kq.wait());
}

// ---- EVFILT_TIMER.

/// "EVFILT_TIMER: Establishes an arbitrary timer identified by ident. When adding a timer, data
/// specifies the timeout period and fflags can be set to one of the following: NOTE_SECONDS,
/// NOTE_USECONDS, NOTE_NSECONDS. If fflags is not set, the default is milliseconds."
#[test]
fn a_timer_counts_in_the_requested_unit() {
    let kq = Kq::new();
    for (fflags, data, length) in [
        (NOTE_NSECONDS, 3_000_000, ms(3)),
        (NOTE_USECONDS, 3_000, ms(3)),
        (0, 3, ms(3)),
        (NOTE_SECONDS, 1, ms(1_000)),
    ] {
        let start = Instant::now();
        kq.apply(&[kevent { fflags, data, ..change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT) }]);
        let event = one(kq.wait());
        assert_eq!((event.ident, event.filter, event.data), (1, EVFILT_TIMER, 1));
        assert!(start.elapsed() >= length, "{fflags:#x}: {:?}", start.elapsed());
    }
    for fflags in [NOTE_SECONDS | NOTE_USECONDS, 0x10] {
        let wrong = kevent { fflags, data: 1, ..change(1, EVFILT_TIMER, EV_ADD) };
        assert_eq!(kq.call(&[wrong], 0, ZERO), Err(libc::EINVAL));
    }
}

/// "The timer will be periodic unless EV_ONESHOT is specified. On return, data contains the number
/// of times the timeout has expired since the last call to kevent(). This filter automatically sets
/// the EV_CLEAR flag internally."
#[test]
fn a_timer_repeats_and_counts_its_expiries() {
    let kq = Kq::new();
    let start = Instant::now();
    kq.apply(&[timer(1, EV_ADD, ms(2))]);
    let mut count = 0;
    while count < 10 {
        let event = one(kq.wait());
        assert_ne!(event.flags & EV_CLEAR, 0);
        count += event.data;
        assert!(start.elapsed() >= ms(2) * count as u32);
        thread::sleep(ms(5)); // so that more than one are due
    }
}

/// A timer with zero data fires at once, and negative data is EINVAL (FreeBSD).
#[test]
fn a_zero_timer_fires_at_once() {
    let kq = Kq::new();
    kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, Duration::ZERO)]);
    one(kq.wait());
    let negative = kevent { data: -1, ..change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT) };
    assert_eq!(kq.call(&[negative], 0, ZERO), Err(libc::EINVAL));
}

/// "Re-adding an existing event will modify the parameters". This restarts a timer, and takes a
/// pending expiry away (FreeBSD, macOS, NetBSD, OpenBSD).
#[test]
fn re_adding_a_timer_leaves_no_stale_expiry() {
    let kq = Kq::new();
    let hour = Duration::from_secs(3600);
    kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, hour)]);
    kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, ms(1))]); // earlier
    thread::sleep(ms(5)); // it is due
    kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, hour)]);
    none(kq.look());
    kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, ms(1))]);
    one(kq.wait());
    // A timer that has fired is added anew.
    kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, ms(1))]);
    one(kq.wait());
}

/// "NOTE_ABSTIME: The specified expiration time is absolute", since the Epoch. The stand-in has
/// NOTE_ABSOLUTE, which is one-shot with any flags (macOS).
#[test]
fn an_absolute_timer_is_on_the_wall_clock() {
    let kq = Kq::new();
    let absolute = |at: SystemTime, flags| kevent {
        fflags: NOTE_NSECONDS | NOTE_ABSOLUTE,
        data: at.duration_since(UNIX_EPOCH).unwrap().as_nanos() as isize,
        ..change(1, EVFILT_TIMER, EV_ADD | flags)
    };
    let at = SystemTime::now() + ms(3);
    kq.apply(&[absolute(at, EV_ONESHOT)]);
    one(kq.wait());
    assert!(SystemTime::now() >= at);
    // The timer moves from one clock to the other and back.
    kq.apply(&[timer(1, EV_ADD, Duration::from_secs(3600))]);
    kq.apply(&[absolute(SystemTime::now() - ms(3), 0)]);
    one(kq.wait());
    none(kq.look());
    kq.apply(&[timer(1, EV_ADD, ms(1))]);
    one(kq.wait());
}

/// Timers with different idents are different timers.
#[test]
fn there_may_be_many_timers() {
    let kq = Kq::new();
    kq.apply(&[1, 2, 3].map(|n| timer(n, EV_ADD | EV_ONESHOT, ms(n as u64 * 2))));
    kq.apply(&[change(2, EVFILT_TIMER, EV_DELETE)]);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(kq.wait().iter().map(|event| event.ident));
    }
    seen.sort();
    assert_eq!(seen, [1, 3]);
    none(kq.look());
}

// ---- EVFILT_USER.

/// "EVFILT_USER: Establishes a user event identified by ident which is not associated with any
/// kernel mechanism but is triggered by user level code." "NOTE_TRIGGER: Cause the event to be
/// triggered."
#[test]
fn note_trigger_triggers_a_user_event() {
    let kq = Kq::new();
    kq.apply(&[user(1, EV_ADD | EV_CLEAR), user(2, EV_ADD | EV_CLEAR)]);
    none(kq.look());
    kq.apply(&[trigger(2)]);
    let event = one(kq.look());
    assert_eq!((event.ident, event.filter, event.fflags & NOTE_TRIGGER), (2, EVFILT_USER, 0));
    none(kq.look());
    // Without EV_CLEAR the event stays.
    kq.apply(&[user(3, EV_ADD), trigger(3)]);
    one(kq.look());
    one(kq.look());
    // One change may add and trigger an event (kern_event.c, filt_userattach).
    kq.apply(&[user(3, EV_DELETE)]);
    kq.apply(&[kevent { fflags: NOTE_TRIGGER, ..user(4, EV_ADD | EV_CLEAR) }]);
    assert_eq!(one(kq.look()).ident, 4);
}

/// A pitfall: NOTE_TRIGGER together with EV_CLEAR on an existing event clears the event (FreeBSD,
/// NetBSD, OpenBSD, DragonFly: filt_usertouch).
#[test]
fn a_trigger_with_clear_is_lost() {
    let kq = Kq::new();
    kq.apply(&[user(1, EV_ADD | EV_CLEAR)]);
    kq.apply(&[kevent { flags: EV_CLEAR, ..trigger(1) }]);
    none(kq.look());
    kq.apply(&[kevent { flags: EV_ADD | EV_CLEAR, ..trigger(1) }]);
    none(kq.look());
    // Such a change takes an earlier trigger away, too.
    kq.apply(&[trigger(1), kevent { flags: EV_CLEAR, ..trigger(1) }]);
    none(kq.look());
    kq.apply(&[trigger(1)]);
    one(kq.look());
}

/// "The lower 24 bits of the fflags may be used for user defined flags and manipulated using the
/// following: NOTE_FFNOP (ignore the input fflags), NOTE_FFAND, NOTE_FFOR, NOTE_FFCOPY." "On
/// return, fflags contains the users defined flags in the lower 24 bits."
#[test]
fn a_user_event_carries_flags() {
    let kq = Kq::new();
    kq.apply(&[kevent { fflags: 0b1100, ..user(1, EV_ADD) }, trigger(1)]);
    for (fflags, expected) in [
        (NOTE_FFNOP | 0b1111, 0b1100),
        (NOTE_FFOR | 0b0110, 0b1110),
        (NOTE_FFAND | 0b0111, 0b0110),
        (NOTE_FFCOPY | 0xff_ffff, 0xff_ffff),
    ] {
        kq.apply(&[kevent { fflags, ..user(1, 0) }]);
        assert_eq!(one(kq.look()).fflags, expected);
    }
}

// ---- EVFILT_SIGNAL and EVFILT_PROC.

fn kill(signal: libc::c_int) {
    // SAFETY: no preconditions.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

fn set_handler(signal: libc::c_int, handler: usize) {
    // SAFETY: the handlers used here are atomic additions.
    assert_ne!(unsafe { libc::signal(signal, handler) }, libc::SIG_ERR);
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// "EVFILT_SIGNAL: Takes the signal number to monitor as the identifier and returns when the given
/// signal is delivered to the process. This coexists with the signal() and sigaction() facilities,
/// and has a lower precedence. The filter will record all attempts to deliver a signal to a
/// process, even if the signal has been marked as SIG_IGN. data returns the number of times the
/// signal has occurred since the last call to kevent(). This filter automatically sets the EV_CLEAR
/// flag internally."
#[test]
fn signals_are_counted_whatever_their_action_is() {
    // These signals may reach any thread, and interrupt the waits of other tests.
    if std::env::var_os("KQUEUE_CHILD").is_none() {
        return in_child("signals_are_counted_whatever_their_action_is");
    }
    let signal = libc::SIGUSR1;
    for (handler, handled) in
        [(libc::SIG_IGN, 0), (count as extern "C" fn(libc::c_int) as usize, 6)]
    {
        set_handler(signal, handler);
        let kqs = [Kq::new(), Kq::new()];
        kqs.iter().for_each(|kq| kq.apply(&[change(signal as usize, EVFILT_SIGNAL, EV_ADD)]));
        HANDLED.store(0, Ordering::SeqCst);
        for n in 1..=3 {
            none(kqs[0].look());
            let mut seen = [0, 0];
            for _ in 0..n {
                kill(signal);
                // A pending signal is not pending twice, so the test waits for each.
                let total = seen[0] + one(kqs[0].wait()).data;
                seen[0] = total;
            }
            // The handler serves the kqueues one after the other, perhaps on another thread.
            while seen[1] < n {
                seen[1] += one(kqs[1].wait()).data;
            }
            assert_eq!(seen, [n, n]);
        }
        none(kqs[0].look());
        // The former handler runs after the event, perhaps on another thread.
        while HANDLED.load(Ordering::SeqCst) < handled {
            thread::yield_now();
        }
        assert_eq!(HANDLED.load(Ordering::SeqCst), handled);
        let deleted = change(signal as usize, EVFILT_SIGNAL, EV_DELETE);
        kqs.iter().for_each(|kq| kq.apply(&[deleted]));
        // The former action is back.
        set_handler(signal, libc::SIG_IGN);
    }
    for wrong in [0, 65, libc::SIGKILL as usize] {
        assert_eq!(
            Kq::new().call(&[change(wrong, EVFILT_SIGNAL, EV_ADD)], 0, ZERO),
            Err(libc::EINVAL)
        );
    }
}

/// "[..] has a lower precedence": the signal takes its default action.
#[test]
fn a_watched_signal_takes_its_default_action() {
    let name = "a_watched_signal_takes_its_default_action";
    if std::env::var_os("KQUEUE_CHILD").is_some() {
        let kq = Kq::new();
        kq.apply(&[change(libc::SIGTERM as usize, EVFILT_SIGNAL, EV_ADD)]);
        kill(libc::SIGTERM);
        kq.wait();
        std::process::exit(0);
    }
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child(name).status().unwrap().signal(), Some(libc::SIGTERM));
}

/// "EVFILT_PROC: Takes the process ID to monitor as the identifier and the events to watch for in
/// fflags, and returns when the process performs one or more of the requested events. NOTE_EXIT:
/// The process has exited. The exit status will be stored in data in the same format as the status
/// returned by wait(2)."
#[test]
fn a_process_end_is_reported_once_with_status() {
    let kq = Kq::new();
    for (script, status) in [("exit 0", 0), ("exit 7", 7 << 8), ("kill -9 $$", libc::SIGKILL)] {
        for late in [false, true] {
            let mut child = Command::new("sh")
                .args(["-c", &format!("read line; {script}")])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let watch =
                kevent { fflags: NOTE_EXIT, ..change(child.id() as usize, EVFILT_PROC, EV_ADD) };
            if !late {
                kq.apply(&[watch]);
                none(kq.look());
            }
            drop(child.stdin.take());
            if late {
                // The process may be a zombie by then (FreeBSD: filt_procattach).
                thread::sleep(ms(20));
                kq.apply(&[watch]);
            }
            let event = one(kq.wait());
            assert_eq!((event.ident, event.filter), (child.id() as usize, EVFILT_PROC));
            assert_eq!((event.fflags, event.data as i32), (NOTE_EXIT, status), "{script}");
            assert_ne!(event.flags & EV_EOF, 0);
            none(kq.look());
            child.wait().expect("the child is still a zombie");
        }
    }
}

/// "ESRCH: The specified process to attach to does not exist."
#[test]
fn watching_a_missing_process_is_refused() {
    let kq = Kq::new();
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    for pid in [child.id() as usize, 0, usize::MAX] {
        let watch = kevent { fflags: NOTE_EXIT, ..change(pid, EVFILT_PROC, EV_ADD) };
        assert_eq!(kq.call(&[watch], 0, ZERO), Err(libc::ESRCH), "{pid}");
    }
}

// ---- Threads.

/// A change by another thread ends a wait.
#[test]
fn a_wait_sees_what_other_threads_change() {
    let kq = Kq::new();
    let (mut a, b) = pair();
    kq.apply(&[user(1, EV_ADD | EV_CLEAR)]);
    thread::scope(|scope| {
        for n in 0..3 {
            let waiting = scope.spawn(|| one(kq.wait()));
            thread::sleep(ms(5)); // the thread waits by now
            match n {
                0 => kq.apply(&[trigger(1)]),
                1 => kq.apply(&[timer(1, EV_ADD | EV_ONESHOT, ms(1))]),
                _ => {
                    a.write_all(b"x").unwrap();
                    kq.apply(&[reads(&b, EV_ADD)]);
                }
            }
            let expected = [EVFILT_USER, EVFILT_TIMER, EVFILT_READ][n];
            assert_eq!(waiting.join().unwrap().filter, expected);
        }
    });
}

/// Each event goes to one of the waiting threads, and none is lost. Simultaneous changes of all
/// kinds do no harm.
#[test]
fn many_threads_may_use_one_kqueue() {
    const ROUNDS: u64 = 2_000;
    let kq = Kq::new();
    let (taken, triggered) = (AtomicU64::new(0), AtomicU64::new(0));
    kq.apply(&[user(1, EV_ADD | EV_CLEAR)]);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        for event in kq.wait() {
                            match (event.filter, event.ident) {
                                (EVFILT_USER, 1) => drop(taken.fetch_add(1, Ordering::SeqCst)),
                                (EVFILT_USER, _) => return,
                                (EVFILT_TIMER, ident) => assert!(ident == 7 || ident == 8),
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                })
            })
            .collect();
        for ident in [7, 8] {
            let kq = &kq;
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    kq.apply(&[timer(ident, EV_ADD | EV_ONESHOT, Duration::from_micros(n % 50))]);
                    if n % 3 == 0 {
                        let _ = kq.call(&[change(ident, EVFILT_TIMER, EV_DELETE)], 0, ZERO);
                    }
                }
            });
        }
        for n in 1..=ROUNDS {
            kq.apply(&[trigger(1)]);
            triggered.store(n, Ordering::SeqCst);
            while taken.load(Ordering::SeqCst) < n {
                thread::yield_now();
            }
        }
        assert_eq!(taken.load(Ordering::SeqCst), ROUNDS);
        kq.apply(&[user(2, EV_ADD), trigger(2)]);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// A one-shot or dispatched event goes to one thread only.
#[test]
fn a_oneshot_goes_to_one_of_many_threads() {
    let kq = Kq::new();
    for flags in [EV_ONESHOT, EV_DISPATCH] {
        for _ in 0..50 {
            // The second event ends all threads.
            kq.apply(&[user(1, EV_ADD | flags), user(2, EV_ADD)]);
            let seen = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let mut over = false;
                        while !over {
                            let events = kq.wait();
                            over = events.iter().any(|event| event.ident == 2);
                            let times = events.iter().filter(|event| event.ident == 1).count();
                            seen.fetch_add(times, Ordering::SeqCst);
                        }
                    });
                }
                kq.apply(&[trigger(1)]);
                while seen.load(Ordering::SeqCst) == 0 {
                    thread::yield_now();
                }
                kq.apply(&[trigger(2)]);
            });
            assert_eq!(seen.load(Ordering::SeqCst), 1);
            let _ = kq.call(&[user(1, EV_DELETE)], 0, ZERO);
            kq.apply(&[user(2, EV_DELETE)]);
        }
    }
}

// ---- The log.

/// The log has a line for each call.
#[test]
fn calls_are_logged_when_asked_for() {
    let name = "calls_are_logged_when_asked_for";
    if std::env::var_os("KQUEUE_CHILD").is_some() {
        let kq = Kq::new();
        kq.apply(&[user(1, EV_ADD | EV_CLEAR), trigger(1)]);
        kq.call(&[timer(2, EV_ADD, ms(1))], 4, None).unwrap();
        kq.call(&[change(2, EVFILT_TIMER, EV_DELETE)], 4, ZERO).unwrap();
        return;
    }
    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{}.log", std::process::id()));
    assert!(child(name).env("KQUEUE_STAND_IN_LOG", &log).status().unwrap().success());
    assert_eq!(
        std::fs::read_to_string(&log).unwrap().lines().collect::<Vec<_>>(),
        [
            "kevent user:add user:trigger, room for 0, returns",
            "kevent timer:add, room for 4, waits",
            "kevent timer:delete, room for 4, looks",
        ]
    );
    std::fs::remove_file(&log).unwrap();
}

/// Returns a command that runs this test in a process of its own.
fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--test-threads=1"])
        .env("KQUEUE_CHILD", "1")
        .stdout(Stdio::null());
    command
}

fn in_child(name: &str) {
    assert!(child(name).status().unwrap().success());
}
