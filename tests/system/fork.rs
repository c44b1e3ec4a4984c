//! Fork without exec: in the child a reactor of the parent is inert. Its errors name the fork. The
//! reactor touches nothing that parent and child share.
//!
//! Each test runs in its own process, so that it forks with two threads and without files of other
//! tests.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pollmux::channel::{self, RecvTimeoutError};
use pollmux::sys::{Interest, Mode, PollEvents, Poller};
use pollmux::{
    Context, Embedded, Events, Reactor, Select, Sim, Source, Time, reactor::TimerError, select,
};
use support::{HOUR, alone, ms};

/// A timeout that no busy machine exceeds. The timeout expires only if an event was lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `f` in a forked child, which ends without unwinding or destructors. Fails if `f` panics.
#[track_caller]
fn fork(f: impl FnOnce()) {
    let (mut reader, mut writer) = UnixStream::pair().unwrap();
    // SAFETY: the process has one other thread, a watchdog. It sleeps and holds no lock that the
    // child needs.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            let text = match catch_unwind(AssertUnwindSafe(f)) {
                Ok(()) => "passed".to_owned(),
                Err(panic) => {
                    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                        (Some(text), _) => text.clone(),
                        (_, Some(text)) => (*text).to_owned(),
                        _ => "a panic without a text".to_owned(),
                    }
                }
            };
            let _ = writer.write_all(text.as_bytes());
            // SAFETY: the call takes no pointer and does not return.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            // SAFETY: a null status is allowed.
            assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            assert_eq!(text, "passed", "in the child");
        }
    }
}

#[track_caller]
fn assert_names_fork(error: impl std::fmt::Display) {
    let text = error.to_string();
    assert!(text.contains("fork") && text.contains("parent process"), "{text}");
}

/// Receives from a source whose event has come or will come.
#[track_caller]
fn recv_in_time<S: Source>(reactor: &Reactor, source: &S) -> S::Item {
    // The timeout's last poll would hide a lost wake-up, so the elapsed time is checked.
    let begin = Instant::now();
    let item = reactor.recv_timeout(source, PATIENCE).unwrap();
    assert!(begin.elapsed() < PATIENCE, "the wake-up was lost");
    item.expect("the wake-up was lost")
}

#[track_caller]
fn assert_names_line(error: impl std::fmt::Display) {
    let text = error.to_string();
    assert_names_fork(&text);
    assert!(text.contains("tests/system/fork.rs:"), "{text}");
}

fn pair() -> (UnixStream, UnixStream) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (theirs, ours)
}

/// An outer loop that polls the fd of the embedded reactor.
struct Outer(Poller);

impl Outer {
    fn of(inner: &Embedded) -> Outer {
        let poller = Poller::new().unwrap();
        poller.register(inner, 0, Interest::READABLE, Mode::Level).unwrap();
        Outer(poller)
    }

    fn is_readable(&self) -> bool {
        let mut events = PollEvents::with_capacity(1);
        self.0.wait(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }
}

#[test]
fn a_childs_drops_keep_the_parents_fds_registered() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let (mut theirs, ours) = pair();
    let (theirs_too, ours_too) = pair();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    let mut another = Some(reactor.fd(ours_too, Interest::READABLE).unwrap());
    let (mut reactor, mut fd) = (Some(reactor), Some(fd));
    fork(|| {
        drop(fd.take());
        drop(another.take().unwrap().into_inner());
        drop(reactor.take());
    });
    let (reactor, fd, another) = (reactor.unwrap(), fd.unwrap(), another.unwrap());
    theirs.write_all(b"x").unwrap();
    (&theirs_too).write_all(b"x").unwrap();
    recv_in_time(&reactor, &fd);
    recv_in_time(&reactor, &another);
}

#[test]
fn a_childs_drops_keep_the_parents_waker_registered() {
    alone!();
    let mut reactor = Some(Reactor::new().unwrap());
    fork(|| drop(reactor.take()));
    let reactor = reactor.unwrap();
    let (tx, inbox) = reactor.channel(1).unwrap();
    support::thread::spawn(move || {
        std::thread::sleep(ms(50));
        tx.send(7)
    });
    assert_eq!(recv_in_time(&reactor, &inbox), Ok(7));
}

#[test]
fn a_child_cannot_change_the_parents_file_flags() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let (_theirs, ours) = pair();
    let fd = reactor.fd_with_mode(ours, Interest::READABLE, Mode::Level).unwrap();
    fd.set_nonblocking(true).unwrap();
    fork(|| assert_names_fork(fd.set_nonblocking(false).unwrap_err()));
    assert!(fd.is_nonblocking().unwrap());
}

#[test]
#[cfg(not(flat))]
fn a_childs_wait_keeps_the_parents_timer_armed() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let timer = reactor.after(ms(200));
    drop(reactor.embed().unwrap()); // `embed` arms the kernel's timer
    fork(|| {
        let early = reactor.after(ms(1));
        assert_names_line(reactor.recv(&early).unwrap_err());
        std::thread::sleep(ms(300));
        assert_names_line(reactor.sleep_blocking(ms(1)).unwrap_err());
    });
    let patience = reactor.after(PATIENCE);
    select! { reactor;
        biased;
        recv(timer) -> _ => {}
        recv(patience) -> _ => panic!("the kernel's timer was disarmed"),
    }
    drop(patience);
}

#[test]
#[cfg(not(flat))]
fn a_childs_calls_leave_os_timers_alone() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let mut timers = [reactor.os_timer().unwrap(), reactor.os_timer().unwrap()].map(Some);
    for timer in timers.iter().flatten() {
        timer.reset(ms(50)).unwrap();
    }
    fork(|| {
        let [first, second] = &mut timers;
        assert_names_line(first.as_ref().unwrap().reset(HOUR).unwrap_err());
        assert_names_line(second.as_ref().unwrap().stop().unwrap_err());
        (*first, *second) = (None, None);
    });
    for timer in timers.iter().flatten() {
        recv_in_time(&reactor, timer);
    }
}

#[test]
#[cfg(not(flat))]
fn nothing_in_a_child_wakes_the_parent() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let (tx_too, rendezvous) = reactor.channel(0).unwrap();
    let (notifier, notified) = reactor.notifier();
    let (context, canceller) = Context::background().with_cancel();
    let done = reactor.done(&context);
    let after = reactor.after_cancel(&context, |_| ());
    let timer = reactor.after(HOUR);
    let (remote, id) = (reactor.remote(), timer.id());
    let inner = reactor.embed().unwrap();
    let outer = Outer::of(&inner);
    assert_eq!((inner.turn().unwrap(), outer.is_readable()), (0, false));
    let mut ends = Some((reactor, inner, inbox, rendezvous, notified, done, after, timer));
    fork(|| {
        tx.send(1).unwrap();
        notifier.notify();
        canceller.cancel();
        remote.wake();
        assert!(remote.is_closed());
        assert_names_fork(remote.post(|_| ()).unwrap_err());
        assert_names_fork(io::Error::from(remote.post(|_| ()).unwrap_err()));
        assert_eq!(remote.stop(id), Err(TimerError::Forked));
        assert_eq!(remote.reset(id, HOUR), Err(TimerError::Forked));
        assert_names_fork(TimerError::Forked);
        let _ = tx_too.try_send(1);
        drop(ends.take());
        tx.send(1).unwrap_err();
    });
    assert!(!outer.is_readable(), "the child woke the parent");
    assert!(!remote.is_closed());
    let inner = &ends.as_ref().unwrap().1;
    tx.send(2).unwrap();
    assert!(outer.is_readable());
    assert_eq!(inner.turn().unwrap(), 1);
}

/// A kqueue's number is free in a child, and the next file gets the number.
#[test]
#[cfg(not(flat))]
fn a_childs_drops_close_no_other_file() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
    let (inner, timer) = (reactor.embed().unwrap(), reactor.os_timer().unwrap());
    let mut all = Some((reactor, tx, inbox, inner, timer));
    fork(|| {
        let files: Vec<_> = (0..32).map(|_| File::open("/dev/null").unwrap()).collect();
        drop(all.take());
        assert!(files.iter().all(|file| file.metadata().is_ok()), "a file has been closed");
    });
    assert!(all.unwrap().0.sleep_blocking(ms(1)).is_ok());
}

#[test]
fn a_childs_errors_name_fork_and_line() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let due = reactor.after(Duration::ZERO);
    let ticker = reactor.every(ms(1)).unwrap();
    let (_theirs, ours) = pair();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    tx.send(1).unwrap();
    reactor.try_wait(&mut Events::with_capacity(4)).unwrap();
    fork(|| {
        assert!(reactor.is_closed() && reactor.handle().is_closed());
        // Ready sources fail, too: another turn would take events that belong to the parent.
        assert_names_line(reactor.recv(&inbox).unwrap_err());
        assert_names_line(reactor.try_recv(&inbox).unwrap_err());
        assert_names_line(reactor.recv_timeout(&inbox, ms(1)).unwrap_err());
        select! { reactor;
            recv(inbox) -> _ => panic!("chosen"),
            error -> e => assert_names_line(e),
        }
        select! { reactor;
            recv(due) -> _ => panic!("due"),
            default => panic!(),
            error -> e => assert_names_line(e),
        }
        select! { reactor;
            recv(fd) -> _ => panic!("ready"),
            default(ms(1)) => panic!(),
            error -> e => assert_names_line(e),
        }
        let mut events = Events::with_capacity(4);
        assert_names_line(reactor.wait(&mut events).unwrap_err());
        assert_names_line(reactor.try_wait(&mut events).unwrap_err());
        assert_names_line(reactor.wait_timeout(&mut events, ms(1)).unwrap_err());
        assert_names_line(reactor.sleep_blocking(ms(1)).unwrap_err());
        assert_names_line(reactor.embed().unwrap_err());
        let mut select = Select::new(&reactor);
        select.recv(&inbox);
        assert_names_line(select.wait().unwrap_err());
        assert_names_line(select.try_wait().unwrap_err());
        drop(select);
        assert_names_line(reactor.channel::<u8>(1).unwrap_err());
        assert_names_line(reactor.fd(pair().1, Interest::READABLE).unwrap_err());
        assert_names_line(reactor.os_timer().unwrap_err());
        assert_names_line(reactor.signals(&[pollmux::Signal::USER1]).unwrap_err());
        assert_names_line(reactor.register(channel::bounded::<u8>(1).0).unwrap_err());
        assert_names_line(fd.rearm().unwrap_err());
        assert_names_line(fd.set_interest(Interest::BOTH).unwrap_err());
        assert_eq!(reactor.stop_timer(due.id()), Err(TimerError::Forked));
        // The child's sources are inert, like those of a dropped reactor.
        let other = reactor.after(Duration::ZERO);
        assert_eq!((other.deadline(), due.deadline(), ticker.deadline()), (None, None, None));
        assert!(!due.reset(ms(1)) && !due.stop() && !ticker.restart());
        assert!(format!("{due:?} {ticker:?} {inbox:?}").matches("inert: true").count() == 3);
    });
    assert_eq!(reactor.recv(&inbox).unwrap(), Ok(1));
    assert!(reactor.recv(&due).is_ok() && reactor.recv(&ticker).is_ok());
}

#[test]
fn a_child_runs_no_callback_or_post() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let runs = Rc::new(Cell::new(0));
    let count = |runs: &Rc<Cell<u32>>| {
        let runs = runs.clone();
        move || runs.set(runs.get() + 1)
    };
    let (due, cancelled) = (count(&runs), count(&runs));
    let _callback = reactor.call_after(Duration::ZERO, move |_| due());
    let (context, canceller) = Context::background().with_cancel();
    let _after = reactor.after_cancel(&context, move |_| cancelled());
    canceller.cancel();
    let (said, heard) = std::sync::mpsc::channel();
    reactor.remote().post(move |_| said.send(()).unwrap()).unwrap();
    fork(|| {
        assert_names_line(reactor.sleep_blocking(ms(5)).unwrap_err());
        assert_names_line(reactor.try_wait(&mut Events::with_capacity(1)).unwrap_err());
        assert_eq!((runs.get(), heard.try_recv().is_ok()), (0, false));
    });
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!((runs.get(), heard.try_recv().is_ok()), (2, true));
}

#[test]
fn a_callback_may_fork() {
    alone!();
    let reactor = Reactor::new().unwrap();
    let forks = Rc::new(Cell::new(0));
    let counted = forks.clone();
    reactor
        .call_after(Duration::ZERO, move |cx| {
            let handle = cx.handle().clone();
            fork(move || {
                assert!(handle.is_closed());
                assert_names_line(handle.sleep_blocking(ms(1)).unwrap_err());
            });
            counted.set(counted.get() + 1);
        })
        .detach();
    let second = forks.clone();
    reactor.call_after(Duration::ZERO, move |_| second.set(second.get() + 10)).detach();
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!(forks.get(), 11);
}

#[test]
fn a_reactor_made_in_a_child_works() {
    alone!();
    let parents = Reactor::new().unwrap();
    let (tx, rx) = channel::bounded::<u32>(1);
    // The blocking call leaves the state of a parked thread behind.
    assert_eq!(rx.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    let parents_inbox = parents.register(rx).unwrap();
    fork(|| {
        let reactor = Reactor::new().unwrap();
        let (tx, inbox) = reactor.channel(1).unwrap();
        let (bare_tx, bare) = channel::bounded(1);
        support::thread::spawn(move || {
            for n in 0..1_000 {
                tx.send(n).unwrap();
            }
            std::thread::sleep(ms(20));
            bare_tx.send(1).unwrap();
        });
        for n in 0..1_000 {
            assert_eq!(recv_in_time(&reactor, &inbox), Ok(n));
        }
        assert_eq!(bare.recv_timeout(PATIENCE), Ok(1));
        let (mut theirs, ours) = pair();
        let fd = reactor.fd(ours, Interest::READABLE).unwrap();
        theirs.write_all(b"x").unwrap();
        recv_in_time(&reactor, &fd);
        let timer = reactor.after(ms(1));
        recv_in_time(&reactor, &timer);
        // The new reactor is inert in children of the child.
        fork(|| assert_names_line(reactor.recv(&timer).unwrap_err()));
        assert!(!reactor.is_closed() && parents.is_closed());
        // The new reactor refuses a source of the parent's reactor.
        assert!(reactor.recv(&parents_inbox).is_err());
    });
    tx.send(3).unwrap();
    assert_eq!(parents.recv(&parents_inbox).unwrap(), Ok(3));
}

#[test]
fn a_child_may_drop_handles_of_other_threads() {
    alone!();
    let (give, take) = std::sync::mpsc::channel();
    let (end, over) = std::sync::mpsc::channel::<()>();
    let thread = support::thread::spawn(move || {
        let reactor = Reactor::new().unwrap();
        let (tx, inbox) = reactor.channel(4).unwrap();
        give.send((tx, reactor.remote())).unwrap();
        assert_eq!(reactor.recv(&inbox).unwrap(), Ok(1));
        over.recv().unwrap();
    });
    let (tx, remote) = take.recv().unwrap();
    let mut held = Some((tx, remote));
    fork(|| {
        let (tx, remote) = held.take().unwrap();
        tx.send(0).unwrap();
        assert_names_fork(remote.post(|_| ()).unwrap_err());
        drop((tx, remote));
    });
    let (tx, remote) = held.unwrap();
    tx.send(1).unwrap();
    end.send(()).unwrap();
    drop(remote);
    thread.join().unwrap();
}

#[test]
fn a_virtual_reactor_is_inert_in_a_child() {
    alone!();
    let reactor = Reactor::with_driver(Sim::new()).unwrap();
    let timer = reactor.after(HOUR);
    let (mut theirs, ours) = pair();
    let mut ours = Some(reactor.fd(ours, Interest::READABLE).unwrap());
    let mut reactor = Some(reactor);
    fork(|| {
        assert_names_line(reactor.as_ref().unwrap().recv(&timer).unwrap_err());
        drop(ours.take());
        drop(reactor.take());
    });
    let (reactor, ours) = (reactor.unwrap(), ours.unwrap());
    theirs.write_all(b"x").unwrap();
    assert!(reactor.recv(&ours).is_ok());
    assert_eq!(reactor.fresh_now(), Time::ZERO);
    assert!(reactor.recv(&timer).is_ok());
}

/// Checks that the parent's reactor, on another crate's poller, still gets every event.
#[cfg(all(any(feature = "mio", feature = "polling"), not(flat)))]
fn assert_gets_every_event(reactor: Reactor) {
    let (mut theirs, ours) = pair();
    let fd = reactor.fd(ours, Interest::READABLE).unwrap();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (mut reactor, mut fd) = (Some(reactor), Some(fd));
    fork(|| {
        assert_names_line(reactor.as_ref().unwrap().recv(&inbox).unwrap_err());
        drop(fd.take());
        drop(reactor.take());
    });
    let (reactor, fd) = (reactor.unwrap(), fd.unwrap());
    theirs.write_all(b"x").unwrap();
    recv_in_time(&reactor, &fd);
    support::thread::spawn(move || {
        std::thread::sleep(ms(50));
        tx.send(7)
    });
    assert_eq!(recv_in_time(&reactor, &inbox), Ok(7));
}

#[test]
#[cfg(all(feature = "mio", not(flat)))]
fn a_childs_drop_leaves_the_mio_poll_alone() {
    alone!();
    let driver = pollmux::driver::MioDriver::new(mio::Poll::new().unwrap(), mio::Token(0)).unwrap();
    assert_gets_every_event(Reactor::with_driver(driver).unwrap());
}

#[test]
#[cfg(all(feature = "polling", not(flat)))]
fn a_childs_drop_leaves_the_polling_poller_alone() {
    alone!();
    let driver = pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), 0).unwrap();
    assert_gets_every_event(Reactor::with_driver(driver).unwrap());
}
