//! Checks fds as sources: their remembered readiness, and their registration and removal. Tests
//! wait for the kernel in a `select!`, and never sleep.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pollmux::sys::{Interest, Mode, Readiness};
use pollmux::{
    CallbackContext, Event, Events, Fd, Handle, Reactor, Select, Source,
    driver::{Driver, Native},
    reactor::{SourceKind, Spin},
    select,
    sources::{BeforeSleep, Internals},
};
use socket2::SockRef;
use support::{
    Hooked, Hooks, Waiting, alone, close, on_wait, pair, set_nonblocking, spawn, watchdog,
};

fn reactor() -> Reactor {
    support::reactor()
}

fn tcp() -> (TcpStream, TcpStream) {
    let (theirs, ours) = accepted();
    ours.set_nonblocking(true).unwrap();
    (theirs, ours)
}

fn would_block<R: std::fmt::Debug>(result: io::Result<R>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Returns a reactor, the peer of a socket, and the socket as a source.
fn connected(interest: Interest, mode: Mode) -> (Reactor, UnixStream, Fd<UnixStream>) {
    let (reactor, (theirs, ours)) = (reactor(), pair());
    let ours = reactor.fd_with_mode(ours, interest, mode).unwrap();
    (reactor, theirs, ours)
}

/// Does the same in edge mode.
fn connected_edge(interest: Interest) -> (Reactor, UnixStream, Fd<UnixStream>) {
    connected(interest, Mode::Edge)
}

/// Returns the source's readiness, and fails after a minute.
#[track_caller]
fn ready<T: AsFd>(reactor: &Reactor, fd: &Fd<T>) -> Readiness {
    select! { reactor;
        recv(fd) -> readiness => readiness,
        default(Duration::from_secs(60)) => panic!("the fd is not ready"),
    }
}

#[track_caller]
fn not_ready<T: AsFd>(reactor: &Reactor, fd: &Fd<T>) {
    select! { reactor;
        recv(fd) -> readiness => panic!("{readiness:?}"),
        default(Duration::from_millis(2)) => {}
    }
}

#[test]
fn an_fd_stays_ready_until_a_read_blocks() {
    let (reactor, mut theirs, mut ours) = connected_edge(Interest::READABLE);
    not_ready(&reactor, &ours);
    theirs.write_all(b"ab").unwrap();
    ready(&reactor, &ours);
    let before = reactor.stats();
    for _ in 0..3 {
        assert_eq!(ready(&reactor, &ours), Readiness::READABLE);
    }
    let after = reactor.stats() - before;
    assert!(after.waits == 0 && after.controls == 0, "{after}");
    let mut byte = [0];
    ours.read_exact(&mut byte).unwrap();
    ready(&reactor, &ours);
    ours.read_exact(&mut byte).unwrap();
    would_block(ours.read(&mut byte));
    not_ready(&reactor, &ours);
    theirs.write_all(b"c").unwrap();
    ready(&reactor, &ours);
}

#[test]
fn returning_to_an_earlier_interest_costs_no_syscall() {
    let (reactor, mut theirs, mut ours) = connected_edge(Interest::READABLE);
    ours.set_interest(Interest::WRITABLE).unwrap();
    assert!(ready(&reactor, &ours).is_writable());
    theirs.write_all(b"x").unwrap();
    // The poller reports the byte while the interest is only `WRITABLE`.
    reactor.sleep_blocking(Duration::from_millis(1)).unwrap();
    let before = reactor.stats();
    for _ in 0..100 {
        ours.set_interest(Interest::READABLE).unwrap();
        assert!(ready(&reactor, &ours).is_readable());
        ours.set_interest(Interest::WRITABLE).unwrap();
        assert!(ready(&reactor, &ours).is_writable());
    }
    assert_eq!((reactor.stats() - before).controls, 0);
    ours.set_interest(Interest::READABLE).unwrap();
    let mut buffer = [0; 4];
    assert_eq!(ours.read(&mut buffer).unwrap(), 1);
    // Finding out that there is no more data costs no syscall either, in both ways of reading.
    would_block(ours.try_io(|mut io| io.read(&mut buffer)));
    would_block(ours.read_vectored(&mut [io::IoSliceMut::new(&mut buffer)]));
    assert_eq!((reactor.stats() - before).controls, 0);
    not_ready(&reactor, &ours);
    // The fd is still known to be writable.
    ours.set_interest(Interest::BOTH).unwrap();
    assert!(ready(&reactor, &ours).is_writable());
}

#[test]
fn unwanted_readiness_is_remembered_and_ends_no_sleep() {
    support::exact("counts waits");
    // After the first poll, the reactor polls only when needed.
    let reactor = support::build(Reactor::builder().poll_interval(Duration::from_secs(3600)));
    let (mut theirs, ours) = pair();
    let ours = reactor.fd(ours, Interest::BOTH).unwrap();
    ours.set_interest(Interest::READABLE).unwrap();
    not_ready(&reactor, &ours);
    assert!(ours.readiness().is_writable());
    let before = reactor.stats();
    ours.set_interest(Interest::WRITABLE).unwrap();
    select! { reactor;
        recv(ours) -> readiness => assert!(readiness.is_writable()),
        default => panic!("the readiness was forgotten"),
    }
    assert_eq!((reactor.stats() - before).syscalls(), 0);
    theirs.write_all(b"x").unwrap();
    ours.set_interest(Interest::READABLE).unwrap();
    assert!(ready(&reactor, &ours).is_readable());
}

#[test]
fn the_end_is_reported_without_any_interest() {
    let (reactor, mut theirs, ours) = connected_edge(Interest::NONE);
    theirs.write_all(b"x").unwrap();
    not_ready(&reactor, &ours);
    close(theirs);
    if cfg!(kqueue) {
        return not_ready(&reactor, &ours); // see README.md
    }
    let readiness = ready(&reactor, &ours);
    assert!(readiness.is_read_closed() && readiness.is_write_closed(), "{readiness:?}");
    ours.set_interest(Interest::READABLE).unwrap();
    assert!(ready(&reactor, &ours).is_readable());
}

/// A file that can change its fd. The poller does not know the second fd.
struct SwitchingFd([UnixStream; 2], Cell<usize>);

impl AsFd for SwitchingFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0[self.1.get()].as_fd()
    }
}

#[test]
fn a_refused_change_keeps_interest_and_readiness() {
    let reactor = reactor();
    let ((mut theirs, ours), (_other, unregistered)) = (pair(), pair());
    for interest in [Interest::READABLE, Interest::BOTH] {
        let switching = SwitchingFd(
            [ours.try_clone().unwrap(), unregistered.try_clone().unwrap()],
            Cell::new(0),
        );
        let fd = reactor.fd(switching, interest).unwrap();
        theirs.write_all(b"x").unwrap();
        assert!(ready(&reactor, &fd).is_readable());
        let known = fd.readiness();
        fd.get_ref().1.set(1);
        assert!(fd.rearm().is_err());
        // The poller also refuses the second attempt.
        for _ in 0..2 {
            assert!(fd.set_interest(Interest::PRIORITY | Interest::BOTH).is_err());
        }
        if interest == Interest::BOTH {
            would_block(fd.try_io(|_| Err::<(), _>(ErrorKind::WouldBlock.into())));
        }
        assert_eq!((fd.interest(), fd.readiness(), fd.is_ready()), (interest, known, true));
        fd.get_ref().1.set(0);
        (&ours).read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_full_socket_becomes_writable_after_peer_reads() {
    let (reactor, mut theirs, mut ours) = connected_edge(Interest::WRITABLE);
    ready(&reactor, &ours);
    let chunk = [7; 4096];
    let mut wrote = 0;
    loop {
        match ours.write(&chunk) {
            Ok(n) => wrote += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    not_ready(&reactor, &ours);
    let mut buffer = vec![0; wrote];
    theirs.read_exact(&mut buffer).unwrap();
    assert!(ready(&reactor, &ours).is_writable());
    while ours.write_vectored(&[io::IoSlice::new(&chunk)]).is_ok() {}
    not_ready(&reactor, &ours);
}

#[test]
fn try_io_clears_only_the_blocked_direction() {
    let (reactor, mut theirs, ours) = connected_edge(Interest::BOTH);
    ready(&reactor, &ours);
    // A read that would block does not change the readiness for writing.
    would_block(ours.try_io(|mut io| io.read(&mut [0; 4])));
    assert!(ready(&reactor, &ours).is_writable());
    would_block(ours.try_io_for(Interest::READABLE, |mut io| io.read(&mut [0; 4])));
    assert_eq!(ours.readiness(), Readiness::WRITABLE);
    theirs.write_all(b"x").unwrap();
    reactor.sleep_blocking(Duration::from_millis(1)).unwrap();
    assert!(ready(&reactor, &ours).contains(Readiness::READABLE | Readiness::WRITABLE));
    // Errors other than `WouldBlock` change no readiness.
    assert!(ours.try_io(|_| Err::<(), _>(ErrorKind::Interrupted.into())).is_err());
    assert!(ours.readiness().contains(Readiness::READABLE | Readiness::WRITABLE));
    (&ours).read_exact(&mut [0]).unwrap();
    would_block(ours.try_io(|mut io| io.read(&mut [0; 4])));
    assert_eq!(ready(&reactor, &ours), Readiness::WRITABLE);
}

#[test]
fn an_unwanted_level_ends_no_sleep() {
    support::exact("counts waits");
    let (reactor, mut theirs, ours) = connected(Interest::WRITABLE, Mode::Level);
    ready(&reactor, &ours);
    ours.set_interest(Interest::READABLE).unwrap();
    let before = reactor.stats();
    not_ready(&reactor, &ours);
    let waits = (reactor.stats() - before).waits;
    assert!(waits <= 2, "{waits} waits: the loop spins");
    theirs.write_all(b"x").unwrap();
    assert_eq!(ready(&reactor, &ours), Readiness::READABLE);
}

#[test]
fn half_closed_closed_and_reset_differ_in_readiness() {
    let reactor = reactor();
    let (theirs, ours) = tcp();
    let mut half = reactor.fd(ours, Interest::READABLE).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let readiness = ready(&reactor, &half);
    assert!(
        readiness.is_read_closed() && !readiness.is_write_closed() && !readiness.is_error(),
        "{readiness:?}"
    );
    assert_eq!(half.read(&mut [0; 4]).unwrap(), 0);
    half.write_all(b"still").unwrap();

    let (theirs, ours) = tcp();
    let mut closed = reactor.fd(ours, Interest::READABLE).unwrap();
    closed.get_ref().shutdown(Shutdown::Both).unwrap();
    close(theirs);
    let readiness = ready(&reactor, &closed);
    assert!(readiness.is_read_closed(), "{readiness:?}");
    assert_eq!(closed.read(&mut [0; 4]).unwrap(), 0);

    // Closing a socket with unread data resets the connection.
    let (mut theirs, ours) = tcp();
    let mut reset = reactor.fd(ours, Interest::READABLE).unwrap();
    reset.get_ref().write_all(b"unread").unwrap();
    while theirs.peek(&mut [0; 6]).unwrap() < 6 {}
    theirs.flush().unwrap();
    close(theirs);
    let readiness = ready(&reactor, &reset);
    assert!(readiness.is_error() && readiness.is_write_closed(), "{readiness:?}");
    if cfg!(flat) {
        return; // libkqueue has fetched the error itself
    }
    assert_eq!(reset.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
#[cfg_attr(flat, ignore = "libkqueue fetches the error itself")]
fn a_fetched_error_ends_a_datagram_sockets_readiness() {
    let reactor = reactor();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.connect(closed).unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = reactor.fd(ours, Interest::READABLE).unwrap();
    ours.get_ref().send(b"anybody?").unwrap();
    assert!(ready(&reactor, &ours).is_error());
    let read = || ours.try_io(|io| io.recv(&mut [0; 8]));
    assert_eq!(read().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    would_block(read());
    assert!(ours.readiness().is_empty());
    not_ready(&reactor, &ours);
    // The error is cleared in each direction, even if it was fetched in another way.
    let ways = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];
    for way in ways.into_iter().filter(|&way| cfg!(epoll) || way != Interest::PRIORITY) {
        ours.set_interest(Interest::BOTH | way).unwrap();
        ours.get_ref().send(b"anybody?").unwrap();
        while !ready(&reactor, &ours).is_error() {}
        assert!(ours.get_ref().take_error().unwrap().is_some());
        would_block(ours.try_io_for(way, |_| Err::<(), _>(ErrorKind::WouldBlock.into())));
        assert!(!ours.readiness().is_error(), "{way:?}");
    }
}

#[test]
fn urgent_data_is_reported_as_priority() {
    let reactor = reactor();
    let (theirs, ours) = tcp();
    if cfg!(kqueue) {
        let error = reactor.fd(ours, Interest::PRIORITY).unwrap_err();
        assert_eq!(
            error.error().kind(),
            ErrorKind::Unsupported,
            "kqueue has no such interest, see README.md"
        );
        let ours = reactor.fd(error.into_inner(), Interest::READABLE).unwrap();
        let error = ours.set_interest(Interest::PRIORITY).unwrap_err();
        assert_eq!((error.kind(), ours.interest()), (ErrorKind::Unsupported, Interest::READABLE));
        return;
    }
    let ours = reactor.fd(ours, Interest::PRIORITY).unwrap();
    not_ready(&reactor, &ours);
    SockRef::from(&theirs).send_out_of_band(b"!").unwrap();
    let readiness = ready(&reactor, &ours);
    assert!(readiness.is_priority() && !readiness.is_error(), "{readiness:?}");
    would_block(ours.try_io(|mut io| io.read(&mut [0; 4])));
    not_ready(&reactor, &ours);
    // Priority is reported separately from another interest.
    ours.set_interest(Interest::WRITABLE | Interest::PRIORITY).unwrap();
    SockRef::from(&theirs).send_out_of_band(b"!").unwrap();
    while !ready(&reactor, &ours).is_priority() {}
    would_block(
        ours.try_io_for(Interest::PRIORITY, |_| Err::<(), _>(ErrorKind::WouldBlock.into())),
    );
    assert_eq!(ours.readiness(), Readiness::WRITABLE);
}

#[test]
#[cfg_attr(kqueue, ignore = "there is no such interest")]
fn a_priority_interest_reports_the_end() {
    let reactor = reactor();
    let (theirs, ours) = tcp();
    let ours = reactor.fd(ours, Interest::PRIORITY).unwrap();
    not_ready(&reactor, &ours);
    ours.get_ref().shutdown(Shutdown::Write).unwrap();
    close(theirs);
    let readiness = ready(&reactor, &ours);
    assert!(
        readiness.is_read_closed() && readiness.is_write_closed() && !readiness.is_priority(),
        "{readiness:?}"
    );
}

#[test]
fn level_repeats_and_one_shot_needs_a_rearm() {
    let (reactor, mut theirs, mut level) = connected(Interest::READABLE, Mode::Level);
    theirs.write_all(b"x").unwrap();
    for _ in 0..5 {
        ready(&reactor, &level);
    }
    level.read_exact(&mut [0]).unwrap();
    reactor.sleep_blocking(Duration::from_millis(1)).unwrap();
    while level.try_take().is_some() {} // drops the reports from before the read
    not_ready(&reactor, &level);

    let (mut theirs, ours) = pair();
    theirs.write_all(b"xy").unwrap();
    let mut once = reactor.fd_with_mode(ours, Interest::READABLE, Mode::OneShot).unwrap();
    ready(&reactor, &once);
    not_ready(&reactor, &once);
    once.read_exact(&mut [0]).unwrap();
    theirs.write_all(b"z").unwrap();
    not_ready(&reactor, &once);
    once.rearm().unwrap();
    ready(&reactor, &once);
    not_ready(&reactor, &once);
}

#[test]
fn an_untaken_level_source_ends_no_sleep() {
    support::exact("counts waits");
    let (reactor, mut theirs, level) = connected(Interest::READABLE, Mode::Level);
    theirs.write_all(b"x").unwrap();
    let before = reactor.stats();
    reactor.sleep_blocking(Duration::from_millis(10)).unwrap();
    let waits = (reactor.stats() - before).waits;
    assert!(waits <= 3, "{waits} waits: the loop spins");
    for _ in 0..5 {
        ready(&reactor, &level);
    }
}

#[test]
fn a_failed_registration_returns_the_file() {
    let reactor = reactor();
    let (_theirs, ours) = pair();
    let first = reactor.fd(&ours, Interest::READABLE).unwrap();
    let again = reactor.fd(&ours, Interest::READABLE).unwrap_err();
    assert_eq!(again.error().kind(), ErrorKind::AlreadyExists, "{again}");
    assert_eq!(again.into_inner().as_raw_fd(), ours.as_raw_fd());
    drop(first);
    drop(reactor.fd(&ours, Interest::READABLE).unwrap());

    let file = std::fs::File::open(file!()).or_else(|_| std::fs::File::open("Cargo.toml")).unwrap();
    match reactor.fd(file, Interest::READABLE) {
        Ok(_) if cfg!(kqueue) => {} // such kernels watch files, see README.md
        Ok(file) => panic!("{file:?}"),
        Err(failed) => {
            assert_eq!(failed.error().kind(), ErrorKind::Unsupported, "{failed}");
            assert!(failed.into_inner().metadata().unwrap().is_file());
        }
    }

    let fdless = support::without_fds();
    let failed = fdless.fd(&ours, Interest::READABLE).unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::Unsupported, "{failed}");
    let handle = reactor.handle();
    assert_eq!((reactor.stats().live, fdless.stats().live), (0, 0));
    drop(reactor);
    assert_eq!(
        handle.fd(&ours, Interest::READABLE).unwrap_err().error().kind(),
        ErrorKind::NotConnected
    );
}

#[test]
fn a_reused_fd_number_gets_no_stale_event() {
    let reactor = reactor();
    let mut events = Events::with_capacity(64);
    let mut reused = 0;
    for round in 0..500u64 {
        let (mut theirs, ours) = pair();
        let number = ours.as_raw_fd();
        let old = reactor.fd(ours, Interest::READABLE).unwrap().with_key(round);
        let (_quiet, spare) = pair();
        theirs.write_all(b"x").unwrap();
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.len(), 1);
        // A handler drops the source, and a new source gets its number.
        drop(old);
        let duplicate = spare.try_clone().unwrap();
        reused += u32::from(duplicate.as_raw_fd() == number);
        let new = reactor.fd(duplicate, Interest::READABLE).unwrap();
        assert_eq!(events.iter().count(), 0, "the batch still has the dropped source's event");
        reactor.try_wait(&mut events).unwrap();
        assert!(events.is_empty() && new.readiness().is_empty());
    }
    // The number is not reused in each round, because other tests open files, too.
    assert!(reused > 0 || cfg!(not(target_os = "linux")));
    assert_eq!(reactor.stats().live, 0);
}

#[test]
fn a_dropped_fd_with_open_duplicates_is_quiet() {
    support::exact("counts waits");
    let reactor = reactor();
    let (mut theirs, ours) = pair();
    let duplicate = ours.try_clone().unwrap();
    drop(reactor.fd(ours, Interest::READABLE).unwrap());
    theirs.write_all(b"x").unwrap();
    let before = reactor.stats();
    reactor.sleep_blocking(Duration::from_millis(20)).unwrap();
    let waits = (reactor.stats() - before).waits;
    assert!(waits <= 2, "{waits} waits: the loop spins");
    drop(duplicate);
}

#[test]
fn into_inner_returns_the_file_unchanged() {
    let (reactor, mut theirs, fd) = connected_edge(Interest::READABLE);
    theirs.write_all(b"x").unwrap();
    ready(&reactor, &fd);
    let mut ours = fd.into_inner();
    assert_eq!(reactor.stats().live, 0);
    ours.read_exact(&mut [0]).unwrap();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    drop(reactor);
    theirs.write_all(b"y").unwrap();
    let mut byte = [0];
    fd.into_inner().read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"y");
}

#[test]
fn each_of_many_ready_fds_is_reported_once() {
    let reactor = reactor();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    const MANY: u64 = 300; // well below the limit of open files on any system
    for key in 0..MANY {
        let (a, b) = pair();
        theirs.push(a);
        ours.push(reactor.fd(b, Interest::READABLE).unwrap().with_key(key));
    }
    theirs.iter_mut().for_each(|end| end.write_all(b"x").unwrap());
    let mut events = Events::with_capacity(7);
    let mut seen = vec![0; MANY as usize];
    for _ in 0..MANY.div_ceil(7) * 2 {
        if reactor.wait_timeout(&mut events, Duration::from_millis(1)).is_ok() {
            for event in &events {
                let fd = &mut ours[event.key() as usize];
                seen[event.key() as usize] += 1;
                fd.read_exact(&mut [0]).unwrap();
                would_block(fd.read(&mut [0]));
            }
        }
    }
    assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
}

#[test]
fn a_busy_loop_polls_at_the_poll_interval() {
    let reactor = support::build(Reactor::builder().poll_interval(Duration::ZERO));
    let (mut theirs, ours) = pair();
    let mut fd = reactor.fd(ours, Interest::READABLE).unwrap();
    let (tx, inbox) = reactor.channel(1).unwrap();
    theirs.write_all(b"x").unwrap();
    let before = reactor.stats();
    let mut turns = 0;
    let readiness = loop {
        let _ = tx.try_send(());
        turns += 1;
        let found = select! { reactor;
            recv(inbox) -> _ => None,
            recv(fd) -> readiness => Some(readiness),
        };
        if let Some(readiness) = found {
            break readiness;
        }
        assert!(turns < 1_000, "the fd starves");
    };
    assert!(readiness.is_readable());
    assert_eq!((reactor.stats() - before).polls, turns);
    fd.read_exact(&mut [0]).unwrap();
    would_block(fd.read(&mut [0]));
    let before = reactor.stats();
    select! { reactor; recv(fd) -> _ => panic!(), default => {} }
    assert_eq!((reactor.stats() - before).polls, 1, "a turn needs a single poll");
}

#[test]
fn the_turn_after_a_sleep_does_not_poll() {
    let settings = Reactor::builder().poll_interval(Duration::from_nanos(1)).spin(Spin::Off);
    let reactor = support::build(settings);
    let (_theirs, ours) = pair();
    let _fd = reactor.fd(ours, Interest::READABLE).unwrap();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.after(Duration::from_millis(1));
    select! { reactor; recv(timer) -> _due => {} }
    let polls = || {
        let before = reactor.stats();
        tx.try_send(()).unwrap();
        select! { reactor; recv(inbox) -> _ => {} }
        (reactor.stats() - before).polls
    };
    assert_eq!([polls(), polls()], [0, 1]);
}

/// Keeps a turn awake, and makes an fd ready meanwhile.
struct KeepAwake(AtomicU32, UnixStream);

impl KeepAwake {
    const LIMIT: u32 = 100_000;

    /// Returns false after many rounds, so that the turn then sleeps.
    fn goes_on(&self) -> bool {
        let round = self.0.fetch_add(1, Ordering::Relaxed);
        if round == 100 {
            (&self.1).write_all(b"x").unwrap();
        }
        round < KeepAwake::LIMIT
    }

    fn post_again(self: Arc<KeepAwake>, handle: &Handle) {
        if self.goes_on() {
            handle.remote().post(|handle| self.post_again(handle)).unwrap();
        }
    }
}

struct RestlessSource(Option<Arc<KeepAwake>>);

impl Source for RestlessSource {
    type Item = ();
    fn is_ready(&self) -> bool {
        false
    }
    fn try_take(&self) -> Option<()> {
        None
    }
    fn before_sleep(&self, sleep: &mut BeforeSleep<'_>) -> io::Result<()> {
        if self.0.as_ref().is_some_and(|busy| busy.goes_on()) {
            sleep.stay_awake();
        }
        Ok(())
    }
}

#[test]
fn a_turn_that_never_sleeps_polls_fds() {
    for (cause, wait) in (0..3).flat_map(|cause| (0..3).map(move |wait| (cause, wait))) {
        let _watchdog = watchdog();
        let builder = Reactor::builder().poll_interval(Duration::ZERO).spin(Spin::Off);
        let reactor = support::build(builder);
        let (theirs, ours) = pair();
        let fd = reactor.fd(ours, Interest::READABLE).unwrap();
        let busy = Arc::new(KeepAwake(AtomicU32::new(0), theirs));
        let mut restless = RestlessSource(None);
        let again = busy.clone();
        match cause {
            0 => {
                let call = move |cx: &CallbackContext<'_>| {
                    let _ = again.goes_on() && cx.reset(Duration::ZERO);
                };
                reactor.call_after(Duration::ZERO, call).detach();
            }
            1 => reactor.remote().post(|handle| again.post_again(handle)).unwrap(),
            _ => restless.0 = Some(again),
        }
        match wait {
            0 => select! { reactor; recv(fd) -> _ => {}, recv(restless) -> () => {} },
            1 => {
                let mut select = Select::new(&reactor);
                let _ = (select.recv(&fd), select.recv(&restless));
                select.wait().unwrap().recv(&fd).unwrap();
            }
            _ if cause == 2 => continue, // `wait` calls no foreign source
            _ => {
                let mut events = Events::with_capacity(1);
                reactor.wait(&mut events).unwrap();
                assert_eq!(events.iter().count(), 1);
            }
        }
        let rounds = busy.0.load(Ordering::Relaxed);
        assert!(rounds < KeepAwake::LIMIT, "cause {cause}, wait {wait}: the fd starves");
    }
}

#[test]
fn a_poll_finds_an_fd_that_became_ready() {
    let reactor = reactor();
    let (mut theirs, ours) = pair();
    let mut ours = reactor.fd(ours, Interest::READABLE).unwrap().with_key(3);
    let mut events = Events::with_capacity(1);
    // The reactor has polled just before the byte comes.
    for round in 0..100 {
        assert!(reactor.try_recv(&ours).unwrap().is_none());
        theirs.write_all(b"x").unwrap();
        match round % 5 {
            0 => assert!(reactor.try_recv(&ours).unwrap().is_some()),
            1 => select! { reactor; recv(ours) -> _ => {}, default => panic!("not found") },
            2 => {
                select! { reactor;
                    recv(ours) -> _ => {},
                    default(Duration::ZERO) => panic!("not found"),
                }
            }
            3 => {
                let mut select = Select::new(&reactor);
                let case = select.recv(&ours);
                assert_eq!(select.try_wait().unwrap().map(|chosen| chosen.index()), Some(case));
            }
            _ => {
                reactor.try_wait(&mut events).unwrap();
                assert_eq!(events.iter().map(|event| event.key()).collect::<Vec<_>>(), [3]);
            }
        }
        ours.read_exact(&mut [0]).unwrap();
        would_block(ours.read(&mut [0]));
    }
    let before = reactor.stats();
    select! { reactor; recv(ours) -> _ => panic!(), default => {} }
    assert!((reactor.stats() - before).polls <= 1);
}

#[test]
fn a_default_without_fd_cases_polls_no_fds() {
    let reactor = support::build(Reactor::builder().poll_interval(Duration::from_secs(3600)));
    let (_theirs, ours) = pair();
    let ours = reactor.fd(ours, Interest::READABLE).unwrap();
    let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
    let (full, _rx) = pollmux::channel::bounded(0);
    let (full, timer) =
        (reactor.register(full).unwrap(), Some(reactor.after(Duration::from_secs(3600))));
    let mut select = Select::new(&reactor);
    let _ = (select.recv(&inbox), select.recv(&timer), select.send(&full));
    let fd = select.recv(&ours);
    // Makes the first poll of the reactor.
    assert!(select.try_wait().unwrap().is_none() && select.remove(fd));
    let before = reactor.stats();
    for _ in 0..100 {
        select! { reactor;
            recv(inbox) -> _ => panic!(),
            recv(timer) -> _ => panic!(),
            send(full, 1) -> _ => panic!(),
            default => {}
        }
        assert!(select.try_wait().unwrap().is_none());
        assert!(reactor.try_recv(&inbox).unwrap().is_none());
    }
    assert_eq!((reactor.stats() - before).polls, 0);
    assert!(reactor.try_recv(&ours).unwrap().is_none());
    assert_eq!((reactor.stats() - before).polls, 1);
    drop(tx);
}

/// Returns the number of reports of ten waits. A wait without a report sleeps for a while.
fn reports(reactor: &Reactor) -> usize {
    let mut events = Events::with_capacity(4);
    let mut wait = |_| {
        reactor.wait_timeout(&mut events, Duration::from_millis(2)).unwrap();
        events.iter().count()
    };
    (0..10).map(&mut wait).sum()
}

/// The ways in which a peer ends a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    HalfClose,
    Close,
    Reset,
}

impl End {
    const ALL: [End; 3] = [End::HalfClose, End::Close, End::Reset];

    /// Sends a byte and ends the connection. The returned stream keeps half of the connection open.
    fn end(self, mut theirs: TcpStream) -> Option<TcpStream> {
        theirs.write_all(b"x").unwrap();
        match self {
            End::HalfClose => theirs.shutdown(Shutdown::Write).unwrap(),
            End::Close => return None,
            End::Reset => {
                SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
                return None;
            }
        }
        Some(theirs)
    }
}

#[test]
fn an_end_without_interest_is_reported_once() {
    let without = [Interest::NONE, Interest::PRIORITY];
    for interest in without.into_iter().filter(|&i| cfg!(epoll) || i == Interest::NONE) {
        for (end, read_before) in End::ALL.into_iter().flat_map(|end| [(end, false), (end, true)]) {
            let reactor = reactor();
            let (theirs, ours) = tcp();
            let first = if read_before { Interest::READABLE } else { interest };
            let ours = reactor.fd(ours, first).unwrap();
            ours.set_interest(interest).unwrap();
            let _half = end.end(theirs);
            let reported = reports(&reactor);
            // Each end has at most one report. The kernel may report a half-close first.
            assert!(reported <= 3, "{interest:?}, {end:?}: {reported} reports");
            assert!(
                cfg!(kqueue) || reported >= 1,
                "{interest:?}, {end:?}: the end was not reported"
            );
            assert_eq!(reports(&reactor), 0, "{interest:?}, {end:?}");
            // Setting the same interest again causes no second report.
            ours.set_interest(interest).unwrap();
            assert_eq!(reports(&reactor), 0, "{interest:?}, {end:?}");
            select! { reactor;
                recv(ours) -> _ => panic!("the end was reported twice"),
                default => {}
            }
            // The unread data is not lost.
            ours.set_interest(Interest::READABLE).unwrap();
            assert!(ready(&reactor, &ours).is_readable());
            if !matches!(end, End::Reset) {
                assert_eq!((&ours).read(&mut [0; 4]).unwrap(), 1);
                assert_eq!((&ours).read(&mut [0; 4]).unwrap(), 0);
            }
        }
    }
}

#[test]
fn a_select_reports_an_end_without_interest_once() {
    for mode in [Mode::Edge, Mode::Level, Mode::OneShot] {
        let reactor = reactor();
        let (theirs, ours) = tcp();
        let ours = reactor.fd_with_mode(ours, Interest::NONE, mode).unwrap();
        ours.get_ref().shutdown(Shutdown::Write).unwrap();
        close(theirs);
        let mut reported = 0;
        for _ in 0..20 {
            select! { reactor;
                recv(ours) -> _ => reported += 1,
                default(Duration::from_millis(1)) => {}
            }
        }
        assert!((usize::from(cfg!(epoll))..=3).contains(&reported), "{mode:?}: {reported} reports");
    }
}

#[test]
fn try_io_without_interest_repeats_no_end() {
    let reactor = reactor();
    let (theirs, ours) = tcp();
    let ours = reactor.fd(ours, Interest::NONE).unwrap();
    ours.get_ref().shutdown(Shutdown::Write).unwrap();
    close(theirs);
    assert!(reports(&reactor) <= 3);
    for _ in 0..5 {
        would_block(ours.try_io(|_| Err::<(), _>(ErrorKind::WouldBlock.into())));
        assert_eq!(reports(&reactor), 0);
    }
}

#[test]
fn pausing_and_resuming_reads_repeats_no_end() {
    for mode in [Mode::Edge, Mode::Level] {
        let (reactor, mut theirs, mut ours) = connected(Interest::NONE, mode);
        theirs.write_all(&[0; 10]).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut reported = reports(&reactor);
        for _ in 0..10 {
            ours.set_interest(Interest::READABLE).unwrap();
            assert!(ready(&reactor, &ours).is_readable());
            ours.read_exact(&mut [0]).unwrap();
            ours.set_interest(Interest::NONE).unwrap();
            reported += reports(&reactor);
        }
        assert!((usize::from(cfg!(epoll))..=1).contains(&reported), "{mode:?}: {reported} reports");
        // The peer's close is another end.
        close(theirs);
        assert!(reports(&reactor) <= 2, "{mode:?}");
    }
}

#[cfg(target_os = "linux")] // only there does a pipe report an end without interest
#[test]
fn each_writers_end_of_a_pipe_is_reported() {
    let path = std::env::temp_dir().join(format!("pollmux-fifo-{}", std::process::id()));
    assert!(spawn(Command::new("mkfifo").arg(&path)).wait().unwrap().success());
    let open = |write: bool| {
        let mut options = std::fs::OpenOptions::new();
        // Without `O_NONBLOCK`, opening the file would wait for the other end.
        options.custom_flags(nix::libc::O_NONBLOCK);
        options.read(!write).write(write).open(&path).unwrap()
    };
    let reactor = reactor();
    let mut ours = reactor.fd(open(false), Interest::NONE).unwrap();
    for _ in 0..3 {
        let mut writer = open(true);
        writer.write_all(b"x").unwrap();
        ours.set_interest(Interest::READABLE).unwrap();
        ready(&reactor, &ours);
        ours.read_exact(&mut [0]).unwrap();
        would_block(ours.read(&mut [0]));
        ours.set_interest(Interest::NONE).unwrap();
        assert_eq!(reports(&reactor), 0);
        close(writer);
        assert_eq!(reports(&reactor), 1);
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn readiness_cleared_without_interest_is_found_again() {
    let (reactor, mut theirs, mut ours) = connected_edge(Interest::READABLE);
    ours.set_interest(Interest::NONE).unwrap();
    theirs.write_all(b"x").unwrap();
    reactor.sleep_blocking(Duration::from_millis(1)).unwrap();
    ours.clear_readiness(Readiness::ALL);
    ours.set_interest(Interest::READABLE).unwrap();
    assert!(ready(&reactor, &ours).is_readable());
    ours.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_one_shot_is_reported_once_until_rearmed() {
    let (reactor, mut theirs, once) = connected(Interest::READABLE, Mode::OneShot);
    for round in 0..4 {
        theirs.write_all(b"x").unwrap();
        assert_eq!(reports(&reactor), 1, "round {round}");
        assert!(once.readiness().is_readable());
        assert_eq!(reports(&reactor), 0, "round {round}");
        // Both ways arm the source again, even if some data was read.
        match round % 2 {
            0 => once.rearm().unwrap(),
            _ => once.set_interest(Interest::READABLE).unwrap(),
        }
        assert_eq!(reports(&reactor), 1, "round {round}: the unread data was not reported");
        (&once).read_exact(&mut [0]).unwrap();
        once.rearm().unwrap();
    }
}

#[test]
fn a_reported_one_shot_can_be_taken() {
    let (reactor, mut theirs, once) = connected(Interest::READABLE, Mode::OneShot);
    theirs.write_all(b"x").unwrap();
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    assert!(once.try_take().unwrap().is_readable());
    assert_eq!((once.try_take(), reports(&reactor)), (None, 0));
}

#[test]
fn a_select_chooses_a_one_shot_once() {
    let (reactor, mut theirs, once) = connected(Interest::READABLE, Mode::OneShot);
    theirs.write_all(b"x").unwrap();
    let mut select = Select::new(&reactor);
    select.recv(&once);
    assert_eq!(select.wait().unwrap().index(), 0); // the value is not received
    assert!(select.wait_timeout(Duration::from_millis(2)).unwrap().is_none());
    once.rearm().unwrap();
    assert!(select.wait().unwrap().recv(&once).is_some());
    assert!(select.wait_timeout(Duration::from_millis(2)).unwrap().is_none());
}

#[test]
fn nested_waits_take_no_report_from_a_batch() {
    support::exact("counts the fds that one poll finds");
    let reactor = reactor();
    let mut fds = Vec::new();
    for key in 0..4 {
        let (mut theirs, ours) = pair();
        theirs.write_all(b"x").unwrap();
        let once = reactor.fd_with_mode(ours, Interest::READABLE, Mode::OneShot).unwrap();
        fds.push((theirs, once.with_key(key)));
    }
    let (mut outer, mut inner) = (Events::with_capacity(8), Events::with_capacity(8));
    reactor.wait(&mut outer).unwrap();
    assert_eq!(outer.len(), 4);
    let mut seen = 0;
    for event in &outer {
        reactor.try_wait(&mut inner).unwrap();
        assert!(inner.is_empty(), "the report was repeated");
        let (_, once) = &fds[event.key() as usize];
        (&*once).read_exact(&mut [0]).unwrap();
        once.rearm().unwrap();
        seen += 1;
    }
    assert_eq!(seen, 4);
    assert_eq!(outer.iter().count(), 0, "a re-armed source is still in the batch");
}

// Floods.

/// Returns sockets that are always writable, with their peers.
fn flood(reactor: &Reactor, n: usize) -> Vec<(UnixStream, Fd<UnixStream>)> {
    let fd = |(theirs, ours)| (theirs, reactor.fd(ours, Interest::WRITABLE).unwrap().with_key(0));
    (0..n).map(|_| fd(pair())).collect()
}

#[test]
fn floods_of_ready_fds_starve_no_other_source() {
    const FLOOD: usize = 200;
    const ROOM: usize = 8;
    for batch in [1, 16, 1_024] {
        let reactor = support::build(Reactor::builder().fd_batch(batch));
        let fds = flood(&reactor, FLOOD);
        let mut events = Events::with_capacity(ROOM);
        let (tx, rx) = pollmux::channel::bounded(1);
        let inbox = reactor.register_with(1, rx).unwrap();
        let remote = reactor.remote();
        // Waits until the reactor has found all fds.
        while fds.iter().any(|(_, fd)| fd.readiness().is_empty()) {
            reactor.wait(&mut events).unwrap();
        }
        for _ in 0..20 {
            let timer = reactor.after(Duration::ZERO).with_key(2);
            let called = Rc::new(Cell::new(0));
            let calls = called.clone();
            reactor.call_after(Duration::ZERO, move |_| calls.set(calls.get() + 1)).detach();
            let (posted, ran) = std::sync::mpsc::channel();
            remote.post(move |_| posted.send(()).unwrap()).unwrap();
            tx.send(()).unwrap();
            reactor.wait(&mut events).unwrap();
            assert_eq!(
                (called.get(), ran.try_recv()),
                (1, Ok(())),
                "the callback or the post did not run in the next turn"
            );
            let mut waits = 1;
            while !inbox.is_empty() || timer.is_ready() {
                for event in &events {
                    match event.key() {
                        1 => inbox.try_recv().unwrap(),
                        2 => assert!(timer.try_take().is_some()),
                        _ => {}
                    }
                }
                reactor.wait(&mut events).unwrap();
                waits += 1;
                assert!(waits <= FLOOD / ROOM + 3, "the channel or the timer starves");
            }
        }
    }
}

#[test]
fn a_poll_takes_at_most_one_batch() {
    support::exact("counts polls");
    let reactor = support::build(Reactor::builder().fd_batch(10).poll_interval(Duration::ZERO));
    let fds = flood(&reactor, 100);
    let found = || fds.iter().filter(|(_, fd)| !fd.readiness().is_empty()).count();
    let mut before = 0;
    for _ in 0..100 / 10 + 1 {
        let start = reactor.stats();
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        let polls = (reactor.stats() - start).polls as usize;
        // The reactor's own two events may leave room for two more fds.
        assert!(found() - before <= polls * 12, "{} fds in {polls} polls", found() - before);
        before = found();
    }
    assert_eq!(before, 100);
}

#[test]
#[cfg(not(flat))]
fn an_embedded_reactor_finds_fds_behind_a_batch() {
    support::exact("counts polls");
    use pollmux::sys;
    let _watchdog = watchdog();
    for (unwanted, drained) in [(20, 0), (0, 20), (10, 10)] {
        let reactor = support::build(Reactor::builder().fd_batch(1));
        let unwanted = flood(&reactor, unwanted);
        unwanted.iter().for_each(|(_, fd)| fd.set_interest(Interest::NONE).unwrap());
        let mut fds: Vec<_> = (0..=drained)
            .map(|_| {
                let (mut theirs, ours) = pair();
                theirs.write_all(b"x").unwrap();
                (theirs, reactor.fd(ours, Interest::READABLE).unwrap())
            })
            .collect();
        let before = reactor.stats();
        let inner = reactor.embed().unwrap();
        let outer = sys::Poller::new().unwrap();
        outer.register(&inner, 0, Interest::READABLE, Mode::Edge).unwrap();
        let mut events = sys::PollEvents::with_capacity(1);
        while !fds.is_empty() {
            outer.wait(&mut events, None).unwrap();
            inner.turn().unwrap();
            fds.retain_mut(|(_, fd)| {
                let took = fd.is_ready() && fd.read_exact(&mut [0]).is_ok();
                if took {
                    would_block(fd.read(&mut [0]));
                }
                !took
            });
        }
        // The reactor's own two events may leave room for two more fds.
        assert!((reactor.stats() - before).polls >= 21 / 3);
    }
}

// Changes while the driver waits.

type Step = Box<dyn FnOnce()>;

/// A driver that runs the user's code in waits, as the driver of a GUI does.
struct BusyDriver {
    steps: Rc<RefCell<Vec<Step>>>,
    /// Refuses [`Mode::Edge`], as some drivers do.
    edgeless: bool,
}

/// Returns a reactor on a [`BusyDriver`], and the list of steps for the next blocking wait.
fn on_busy_driver(edgeless: bool) -> (Reactor, Rc<RefCell<Vec<Step>>>) {
    let steps = Rc::new(RefCell::new(Vec::new()));
    let driver = Hooked(Native::new().unwrap(), BusyDriver { steps: steps.clone(), edgeless });
    (Reactor::with_driver(driver).unwrap(), steps)
}

impl Hooks<Native> for BusyDriver {
    fn wait(&mut self, native: &mut Native, mut waiting: Waiting<'_>) -> io::Result<()> {
        if waiting.blocks() {
            let steps = self.steps.take();
            steps.into_iter().for_each(|step| step());
        }
        waiting.by(native)
    }
    fn register(
        &mut self,
        native: &mut Native,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        if self.edgeless && mode == Mode::Edge {
            return Err(ErrorKind::Unsupported.into());
        }
        native.register(fd, id, interest, mode)
    }
}

/// Runs `step` while the driver waits.
fn during_a_wait(reactor: &Reactor, steps: &Rc<RefCell<Vec<Step>>>, step: impl FnOnce() + 'static) {
    steps.borrow_mut().push(Box::new(step));
    while !steps.borrow().is_empty() {
        reactor.sleep_blocking(Duration::from_millis(2)).unwrap();
    }
}

#[test]
fn an_event_has_the_readiness_of_its_fd() {
    let (reactor, (mut theirs, ours)) = (reactor(), pair());
    let fd = reactor.fd(ours, Interest::BOTH).unwrap().with_key(1);
    let (tx, _inbox) = reactor.channel(1).unwrap();
    let timer = reactor.after(Duration::ZERO).with_key(3);
    let events = || {
        let mut events = Events::new();
        reactor.wait(&mut events).unwrap();
        let seen = |e: Event| (e.key(), e.readiness(), e.is_readable(), e.is_writable());
        let mut seen: Vec<_> = events.iter().map(seen).collect();
        seen.sort_unstable_by_key(|&(key, ..)| key);
        seen
    };
    ready(&reactor, &fd);
    let none = (3, Readiness::NONE, false, false);
    assert_eq!(events(), [(1, Readiness::WRITABLE, false, true), none]);
    assert!(timer.try_take().is_some());
    tx.send(()).unwrap();
    theirs.write_all(b"x").unwrap();
    let both = Readiness::READABLE | Readiness::WRITABLE;
    while !fd.readiness().is_readable() {
        support::turn(&reactor);
    }
    let seen = events();
    assert_eq!(seen[0], (1, both, true, true));
    assert_eq!((seen.len(), seen[1].1), (2, Readiness::NONE), "the channel's event");
    // `events` reads the readiness during iteration, and a dropped fd's slot has none.
    fd.clear_readiness(Readiness::READABLE);
    assert_eq!(events()[0], (1, Readiness::WRITABLE, false, true));
    drop(fd);
    let timer = reactor.after(Duration::ZERO).with_key(1);
    assert_eq!(events()[0], (1, Readiness::NONE, false, false));
    drop(timer);
}

/// Checks that the loop sleeps, although the peer of the dropped fd writes.
#[track_caller]
fn assert_left_poller(reactor: &Reactor, theirs: &mut impl Write) {
    let before = reactor.stats();
    for _ in 0..20 {
        let _ = theirs.write(b"x");
        reactor.sleep_blocking(Duration::from_millis(1)).unwrap();
    }
    let waits = (reactor.stats() - before).waits;
    assert!(waits <= 30, "{waits} waits for 20 sleeps: the poller still has the file");
}

#[test]
fn a_drop_during_a_wait_deregisters_the_fd() {
    // No thread of another test may take the number between the close and the check.
    alone!();
    for reused in [false, true] {
        let (reactor, steps) = on_busy_driver(false);
        let (mut theirs, ours) = pair();
        let clone = ours.try_clone().unwrap();
        let (number, fd) = (ours.as_raw_fd(), reactor.fd(ours, Interest::READABLE).unwrap());
        let opened = Rc::new(RefCell::new(Vec::new()));
        let files = opened.clone();
        during_a_wait(&reactor, &steps, move || {
            drop(fd);
            if reused {
                // The number must stay taken until the poller has deregistered the fd.
                *files.borrow_mut() = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
            }
        });
        let numbers =
            opened.borrow().iter().any(|(a, b)| [a, b].map(|s| s.as_raw_fd()).contains(&number));
        assert!(!numbers);
        assert_left_poller(&reactor, &mut theirs);
        assert_eq!((reactor.stats().live, reactor.sources().len()), (0, 0));
        // The file stays open no longer than its clone.
        close(clone);
        assert_eq!(theirs.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        drop(opened);
    }
}

#[test]
fn borrowed_files_leave_the_poller_during_a_wait() {
    let (reactor, steps) = on_busy_driver(false);
    let (mut theirs, ours) = pair();
    let ours = Rc::new(ours);
    let fd = reactor.fd(ours.clone(), Interest::READABLE).unwrap();
    during_a_wait(&reactor, &steps, move || drop(fd));
    assert_left_poller(&reactor, &mut theirs);
    // The file can be registered again.
    let fd = reactor.fd(ours.clone(), Interest::READABLE).unwrap();
    ready(&reactor, &fd);
    while fd.try_io(|io| (&**io).read(&mut [0; 64])).is_ok() {}
    during_a_wait(&reactor, &steps, move || assert_eq!(Rc::strong_count(&fd.into_inner()), 2));
    assert_left_poller(&reactor, &mut theirs);
    drop(reactor.fd(ours, Interest::READABLE).unwrap());
}

#[test]
fn a_drop_during_a_wait_closes_the_connection() {
    let _watchdog = watchdog();
    let (reactor, steps) = on_busy_driver(false);
    let (mut theirs, ours) = pair();
    theirs.set_nonblocking(false).unwrap();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    let (tx, inbox) = reactor.channel::<()>(1).unwrap();
    steps.borrow_mut().push(Box::new(move || drop(fd)));
    let peer = support::thread::spawn(move || {
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        tx.send(()).unwrap();
    });
    // Only the peer's message ends this sleep.
    assert_eq!(reactor.recv(&inbox).unwrap(), Ok(()));
    peer.join().unwrap();
}

#[test]
#[cfg_attr(flat, ignore = "such a kqueue cannot wait for processes and timers")]
fn every_source_can_leave_during_a_wait() {
    let (reactor, steps) = on_busy_driver(false);
    let timer = reactor.os_timer().unwrap();
    timer.reset(Duration::from_millis(5)).unwrap();
    let signals = reactor.signals(&[pollmux::Signal::USER2]).unwrap();
    let child = reactor.register(spawn(&mut Command::new("true"))).unwrap();
    during_a_wait(&reactor, &steps, move || {
        drop((timer, signals));
        let _ = child.into_inner().wait();
    });
    assert_left_poller(&reactor, &mut io::sink());
    assert_eq!(reactor.stats().live, 0);
}

#[test]
#[cfg_attr(flat, ignore = "a poller of this library cannot wait for such a timer")]
fn an_os_timer_stopped_when_due_never_spins() {
    let steps = Rc::new(RefCell::new(Vec::<Step>::new()));
    let late = steps.clone();
    // Runs the steps after the first wait that finds an event.
    let driver = on_wait(Native::new().unwrap(), move |native, mut waiting| {
        waiting.by(native)?;
        if !waiting.ready.is_empty() {
            late.take().into_iter().for_each(|step| step());
        }
        Ok(())
    });
    let reactor = Reactor::with_driver(driver).unwrap();
    let timer = Rc::new(reactor.os_timer().unwrap());
    timer.reset(Duration::from_millis(1)).unwrap();
    let stopped = timer.clone();
    steps.borrow_mut().push(Box::new(move || assert!(stopped.stop().unwrap())));
    let mut events = Events::with_capacity(4);
    while !steps.borrow().is_empty() {
        if timer.is_ready() {
            // The timer expired when it was armed, so the driver finds no event.
            timer.reset(Duration::from_millis(1)).unwrap();
        }
        reactor.wait_timeout(&mut events, Duration::from_millis(2)).unwrap();
    }
    // A spurious report may come once.
    assert_eq!(timer.try_take(), None);
    assert!(!timer.is_ready() && reports(&reactor) == 0);
}

#[test]
fn an_fd_drained_during_a_wait_reports_again() {
    for (mode, edgeless) in [(Mode::Edge, false), (Mode::Level, false), (Mode::Edge, true)] {
        let (reactor, steps) = on_busy_driver(edgeless);
        let (mut theirs, ours) = pair();
        let fd = Rc::new(reactor.fd_with_mode(ours, Interest::READABLE, mode).unwrap());
        for _ in 0..3 {
            theirs.write_all(b"x").unwrap();
            ready(&reactor, &*fd);
            let inner = fd.clone();
            during_a_wait(&reactor, &steps, move || while (&*inner).read(&mut [0; 4]).is_ok() {});
        }
        theirs.write_all(b"y").unwrap();
        assert!(ready(&reactor, &*fd).is_readable());
        let mut byte = [0];
        (&*fd).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
    }
}

// Blocking files.

/// Returns a blocking stream, as std's `accept` does, and its peer.
fn accepted() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (theirs, listener.accept().unwrap().0)
}

/// Returns a blocking file of each kind.
fn blocking() -> Vec<OwnedFd> {
    let (theirs, ours) = accepted();
    let (left, right) = UnixStream::pair().unwrap();
    let mut child = spawn(Command::new("true").stdout(Stdio::piped()));
    let pipe = child.stdout.take().unwrap();
    child.wait().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut all: Vec<OwnedFd> = vec![theirs.into(), ours.into(), left.into(), right.into()];
    all.extend([pipe.into(), listener.into(), datagrams.into()]);
    #[cfg(target_os = "linux")]
    {
        use nix::sys::eventfd::{EfdFlags, EventFd};
        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
        all.push(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap().into());
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).unwrap();
        all.push(timer.into());
    }
    all
}

#[test]
fn a_blocking_file_is_refused_in_edge_mode() {
    let reactor = reactor();
    for file in blocking() {
        let number = file.as_raw_fd();
        let refused = reactor.fd(file, Interest::READABLE).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::InvalidInput, "{refused}");
        for remedy in ["set_nonblocking(true)", "fd_nonblocking()", "Mode::Level"] {
            assert!(refused.to_string().contains(remedy), "{refused}");
        }
        let file = refused.into_inner();
        assert_eq!(file.as_raw_fd(), number);
        let refused = reactor.fd_with_mode(file, Interest::BOTH, Mode::Edge).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::InvalidInput, "{refused}");
        assert_eq!(reactor.stats().live, 0);
        // The failed registration left no entry in the poller.
        let file = refused.into_inner();
        set_nonblocking(&file, true);
        drop(reactor.fd(file, Interest::READABLE).unwrap());
    }
}

#[test]
fn registering_as_nonblocking_sets_the_shared_flag() {
    let reactor = reactor();
    for file in blocking() {
        drop(reactor.fd_nonblocking(file, Interest::READABLE).unwrap());
    }
    let (mut theirs, ours) = accepted();
    let clone = ours.try_clone().unwrap();
    let mut ours = reactor.fd_nonblocking(ours, Interest::READABLE).unwrap();
    would_block(ours.read(&mut [0]));
    would_block((&clone).read(&mut [0]));
    theirs.write_all(b"x").unwrap();
    assert!(ready(&reactor, &ours).is_readable());
    // The flag stays set, and setting the flag again is no error.
    let ours = reactor.fd_nonblocking(ours.into_inner(), Interest::READABLE).unwrap();
    (&ours).read_exact(&mut [0]).unwrap();
    would_block(ours.into_inner().read(&mut [0]));
    assert_eq!(reactor.sources().len(), 0);
}

#[test]
fn a_failed_registration_keeps_the_flag() {
    let reactor = reactor();
    let fdless = support::without_fds();
    let (mut theirs, ours) = accepted();
    let level = reactor.fd_with_mode(&ours, Interest::READABLE, Mode::Level).unwrap();
    let failed = reactor.fd_nonblocking(&ours, Interest::READABLE).unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::AlreadyExists);
    let failed = fdless.fd_nonblocking(&ours, Interest::READABLE).unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::Unsupported);
    drop(level);
    // A read still blocks.
    let sender = support::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        theirs.write_all(b"x").unwrap();
    });
    (&ours).read_exact(&mut [0]).unwrap();
    sender.join().unwrap();
}

#[test]
fn files_that_never_block_need_no_flag() {
    let reactor = reactor();
    #[cfg(not(flat))]
    {
        let poller = pollmux::sys::Poller::new().unwrap();
        let inner = support::reactor();
        let poller = reactor.fd(&poller, Interest::READABLE).unwrap();
        let inner = reactor.fd(inner.embed().unwrap(), Interest::READABLE).unwrap();
        not_ready(&reactor, &poller);
        drop(inner);
    }
    #[cfg(target_os = "linux")]
    {
        let mut child = spawn(&mut Command::new("true"));
        let process = reactor.fd(support::pidfd(&child), Interest::READABLE).unwrap();
        ready(&reactor, &process);
        child.wait().unwrap();
    }
}

/// Checks that a single read after each report never blocks, although the file is blocking.
fn check_blocking_reads(mode: Mode, mut report: impl FnMut(&Reactor, &Fd<TcpStream>)) {
    let _watchdog = watchdog();
    let reactor = reactor();
    let (mut theirs, ours) = accepted();
    let ours = reactor.fd_with_mode(ours, Interest::READABLE, mode).unwrap();
    let (tx, inbox) = reactor.channel(1).unwrap();
    for _ in 0..5 {
        theirs.write_all(b"first").unwrap();
        let mut left = 5;
        while left > 0 {
            report(&reactor, &ours);
            // The reactor handles other sources between the report and the read.
            for _ in 0..3 {
                tx.send(()).unwrap();
                std::thread::sleep(Duration::from_micros(200));
                select! { reactor; recv(inbox) -> got => got.unwrap() }
            }
            left -= (&ours).read(&mut [0; 2]).unwrap();
            if mode == Mode::OneShot {
                ours.rearm().unwrap();
            }
        }
        assert_eq!(
            support::wait_keys_for(&reactor, Duration::from_millis(2)),
            [],
            "the file was reported although a read would block"
        );
    }
}

#[test]
fn wait_reports_blocking_files_only_when_ready() {
    for mode in [Mode::Level, Mode::OneShot] {
        let mut events = Events::with_capacity(4);
        check_blocking_reads(mode, |reactor, _| {
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.iter().count(), 1);
        });
    }
}

#[test]
fn select_reports_blocking_files_only_when_ready() {
    for mode in [Mode::Level, Mode::OneShot] {
        check_blocking_reads(mode, |reactor, fd| {
            select! { reactor; recv(fd) -> readiness => assert!(readiness.is_readable()) }
        });
    }
}

// Spinning.

/// Calls `wait` in `turns` turns, each of which must report an event.
fn wait_times(reactor: &Reactor, turns: usize) {
    let mut events = Events::with_capacity(4);
    for _ in 0..turns {
        reactor.wait(&mut events).unwrap();
        assert!(!events.is_empty());
    }
}

#[track_caller]
fn spins(reactor: &Reactor) -> bool {
    let sources = reactor.sources();
    let spinning: Vec<_> = sources.iter().filter(|info| info.spinning).collect();
    assert_eq!(sources.to_string().contains("spinning"), !spinning.is_empty(), "{sources}");
    for info in &spinning {
        assert_eq!(info.location.unwrap().file(), file!());
    }
    !spinning.is_empty()
}

#[test]
fn a_source_reported_a_thousand_times_spins() {
    let (reactor, mut theirs, fd) = connected_edge(Interest::READABLE);
    theirs.write_all(b"abcdefgh").unwrap();
    wait_times(&reactor, 999);
    assert!(!spins(&reactor));
    wait_times(&reactor, 1);
    assert!(spins(&reactor));
    wait_times(&reactor, 2_000);
    assert_eq!(
        (spins(&reactor), reactor.stats().spinning),
        (true, 1),
        "each spinning source is counted once"
    );
    // A read ends the spinning, although the source stays ready.
    (&fd).read_exact(&mut [0]).unwrap();
    assert!(!spins(&reactor) && fd.is_ready());
    wait_times(&reactor, 999);
    assert!(!spins(&reactor));
    wait_times(&reactor, 1);
    assert_eq!((spins(&reactor), reactor.stats().spinning), (true, 2));
    // A change of the interest ends the spinning, too.
    fd.set_interest(Interest::READABLE).unwrap();
    assert!(!spins(&reactor) && fd.is_ready());
}

#[test]
fn a_select_that_drains_nothing_spins() {
    let (reactor, _theirs, fd) = connected_edge(Interest::BOTH);
    for _ in 0..999 {
        select! { reactor; recv(fd) -> readiness => assert!(readiness.is_writable()) }
        // A read that would block does not serve the readiness for writing.
        would_block((&fd).read(&mut [0]));
    }
    assert!(!spins(&reactor));
    let mut select = Select::new(&reactor);
    select.recv(&fd);
    assert!(select.wait().unwrap().recv(&fd).is_some());
    assert!(spins(&reactor));
    drop(select);
    fd.set_interest(Interest::READABLE).unwrap();
    assert!(!spins(&reactor));
}

#[test]
fn a_chosen_case_that_is_not_taken_spins() {
    let (reactor, _theirs, fd) = connected_edge(Interest::WRITABLE);
    let (tx, inbox) = reactor.channel(1).unwrap();
    tx.send(1).unwrap();
    for taken in 0..2 {
        let mut select = Select::new(&reactor);
        let _ = if taken == 0 { select.recv(&inbox) } else { select.recv(&fd) };
        for _ in 0..999 {
            assert_eq!(select.wait().unwrap().index(), 0);
        }
        assert!(!spins(&reactor));
        let _ = select.wait().unwrap().index();
        assert!(spins(&reactor));
        assert_eq!(reactor.stats().spinning, taken + 1);
        drop(select);
        fd.set_interest(Interest::WRITABLE).unwrap();
        if taken == 0 {
            assert_eq!(inbox.try_recv(), Ok(1));
        }
        assert!(!spins(&reactor));
    }
}

/// A source that is ready, but never gives a value.
struct NeverGives<'a, T: AsFd>(&'a Fd<T>);

impl<T: AsFd> Source for NeverGives<'_, T> {
    type Item = ();
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }
    fn try_take(&self) -> Option<()> {
        None
    }
    fn internals(&self) -> Internals<'_> {
        self.0.internals()
    }
}

#[test]
fn a_picked_case_that_gives_nothing_spins() {
    let (reactor, _theirs, fd) = connected_edge(Interest::WRITABLE);
    ready(&reactor, &fd);
    let never_gives = NeverGives(&fd);
    while !spins(&reactor) {
        let before = reactor.stats();
        select! { reactor; recv(never_gives) -> () => panic!(), default => {} }
        assert!(before.turns <= 2_000 && before.spinning == 0);
    }
}

#[test]
fn a_source_that_is_served_never_spins() {
    let reactor = reactor();
    let (mut theirs, ours) = pair();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap().with_key(0);
    let (tx, rx) = pollmux::channel::unbounded();
    let inbox = reactor.register_with(1, rx).unwrap();
    let ticker = reactor.every(Duration::from_nanos(1)).unwrap().with_key(2);
    theirs.write_all(&[7; 4_000]).unwrap();
    (0..4_000).for_each(|n| tx.send(n).unwrap());
    let mut events = Events::with_capacity(4);
    for _ in 0..3_000 {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            match event.key() {
                0 => (&fd).read_exact(&mut [0]).unwrap(),
                1 => drop(inbox.try_recv().unwrap()),
                _ => drop(ticker.try_take().unwrap()),
            }
        }
    }
    assert!(!spins(&reactor));
    assert_eq!(reactor.stats().spinning, 0);
}

#[test]
fn an_fd_is_listed_with_kind_and_key() {
    let reactor = reactor();
    let (_theirs, ours) = pair();
    let fd = reactor.fd(ours, Interest::WRITABLE).unwrap().with_key(9);
    ready(&reactor, &fd);
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!((info.kind, info.key, info.fired, info.ready), (Some(SourceKind::Fd), 9, 1, true));
    assert_eq!(info.location.unwrap().file(), file!());
    assert!(format!("{fd:?}").contains("WRITABLE"));
}
