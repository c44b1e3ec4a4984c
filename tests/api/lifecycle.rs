//! Sources outlive their reactor and are then inert. A reactor closes its fds. Creation fails with
//! an error when no fds are left. Signals shorten no wait.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use pollmux::channel::{
    self, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError,
};
use pollmux::sys::{Interest, Mode, PollEvents, Poller, PollerTimer, Waker};
use pollmux::{Events, Reactor, Source, Time, select};
use support::{HOUR, Storm, alone, set_fd_limit, simulated, storm, thread, watchdog};

/// The open fds and their flags, without the fd that reads the list.
fn fds() -> BTreeMap<i32, u32> {
    let list: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let flags = |fd: &i32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(line.trim(), 8).ok()
    };
    list.into_iter().filter_map(|fd| Some((fd, flags(&fd)?))).collect()
}

#[track_caller]
fn assert_no_more_than(before: &BTreeMap<i32, u32>) {
    let now = fds();
    assert!(now.keys().eq(before.keys()), "before: {before:?}, now: {now:?}");
}

// Sources that outlive the reactor.

#[test]
fn a_timer_that_outlives_its_reactor_is_inert() {
    let (sim, reactor) = simulated();
    let (armed, unarmed) = (reactor.after(HOUR), reactor.timer());
    let expired = reactor.after(Duration::ZERO);
    select! { reactor; recv(armed) -> _ => unreachable!(), default => {} }
    assert!(expired.is_ready() && armed.deadline().is_some());
    assert!(format!("{armed:?}").contains("inert: false"), "{armed:?}");
    drop(reactor);
    for timer in [&armed, &unarmed, &expired] {
        assert_eq!((timer.is_ready(), timer.try_take(), timer.deadline()), (false, None, None));
        for _ in 0..2 {
            assert!(!timer.stop());
            assert!(!timer.reset(Duration::ZERO));
            assert!(!timer.reset_at(Time::MAX));
        }
        sim.advance(HOUR * 2);
        assert_eq!((timer.is_ready(), timer.try_take(), timer.deadline()), (false, None, None));
        assert!(format!("{timer:?}").contains("inert: true"), "{timer:?}");
    }
    // A dropped reactor does not change the keys.
    assert_eq!(armed.with_key(7).key(), 7);
}

#[test]
fn a_ticker_that_outlives_its_reactor_is_inert() {
    let (sim, reactor) = simulated();
    let (armed, stopped, expired) = (
        reactor.every(HOUR).unwrap(),
        reactor.every(HOUR).unwrap(),
        reactor.every(HOUR / 2).unwrap(),
    );
    stopped.stop();
    sim.advance(HOUR / 2);
    select! { reactor; recv(armed) -> _ => unreachable!(), default => {} }
    assert!(expired.is_ready());
    drop(reactor);
    for ticker in [armed, stopped, expired] {
        let period = ticker.period();
        assert_eq!((ticker.is_ready(), ticker.try_take(), ticker.deadline()), (false, None, None));
        assert!(!ticker.stop() && !ticker.restart());
        assert_eq!(ticker.reset(period), Ok(false));
        assert!(ticker.reset(Duration::ZERO).is_err(), "a zero period is still an error");
        sim.advance(HOUR * 2);
        assert_eq!((ticker.is_ready(), ticker.deadline(), ticker.period()), (false, None, period));
        assert!(format!("{ticker:?}").contains("inert: true"), "{ticker:?}");
    }
}

#[test]
fn inbox_that_outlives_its_reactor_keeps_its_messages() {
    // The test covers each state of the channel: empty, marked, listed as ready, disconnected.
    for listed in [false, true] {
        for held in [0, 2] {
            let (_, reactor) = simulated();
            let (tx, inbox) = reactor.channel(4).unwrap();
            (0..held).for_each(|n| tx.send(n).unwrap());
            if listed {
                let mut events = Events::with_capacity(4);
                reactor.try_wait(&mut events).unwrap();
                assert_eq!(events.len(), usize::from(held > 0));
            }
            assert!(format!("{inbox:?}").contains("inert: false"), "{inbox:?}");
            drop(reactor);
            assert!(format!("{inbox:?}").contains("inert: true"), "{inbox:?}");
            assert!(!tx.is_disconnected());
            assert_eq!(
                (tx.send(9), tx.clone().try_send(10)),
                (Ok(()), Ok(())),
                "sending still works"
            );
            assert_eq!(inbox.len(), held + 2);
            for n in 0..held {
                assert_eq!(inbox.try_recv(), Ok(n));
            }
            assert_eq!((inbox.try_take(), inbox.try_recv()), (Some(Ok(9)), Ok(10)));
            assert_eq!(inbox.try_recv(), Err(TryRecvError::Empty));
            tx.send(11).unwrap();
            // The receiver can be registered again, with its messages.
            let (_, other) = simulated();
            let inbox = other.register(inbox.into_inner()).unwrap();
            drop(tx);
            select! { other; recv(inbox) -> got => assert_eq!(got, Ok(11)) }
            select! { other; recv(inbox) -> got => assert_eq!(got, Err(RecvError)) }
        }
    }
}

#[test]
fn disconnected_inbox_outlives_its_reactor() {
    for listed in [false, true] {
        let (_, reactor) = simulated();
        let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
        drop(tx);
        if listed {
            let mut events = Events::with_capacity(1);
            reactor.try_wait(&mut events).unwrap();
            assert_eq!(events.len(), 1);
        }
        drop(reactor);
        for _ in 0..2 {
            assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
            assert_eq!(inbox.try_take(), Some(Err(RecvError)));
        }
    }
}

#[test]
fn senders_on_other_threads_outlive_a_native_reactor() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(2).unwrap();
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while tx.send(sent).is_ok() {
                sent += 1;
            }
            sent
        });
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(0)) }
        // The sender may be about to wake the dropped reactor.
        drop(reactor);
        for n in 1..5 {
            while inbox.is_empty() {
                thread::yield_now();
            }
            assert_eq!(inbox.try_recv(), Ok(n));
        }
        drop(inbox);
        assert!(sender.join().unwrap() >= 5);
    }
}

#[test]
fn handle_that_outlives_its_reactor_is_closed() {
    let (_, reactor) = simulated();
    let handle = reactor.handle();
    let kept = handle.after(HOUR);
    assert!(!handle.is_closed() && format!("{handle:?}").contains("closed: false"));
    assert!(handle.is_same(&reactor) && !handle.is_same(&simulated().1));
    drop(reactor);
    assert!(handle.is_closed() && handle.clone().is_closed());
    assert!(format!("{handle:?}").contains("closed: true"), "{handle:?}");

    // Sources made through the handle are inert.
    let (timer, ticker) =
        (handle.after(Duration::ZERO), handle.every(Duration::from_nanos(1)).unwrap());
    assert!(handle.every(Duration::ZERO).is_err());
    assert!(!timer.is_ready() && !timer.stop() && !ticker.is_ready() && !ticker.restart());
    assert!(format!("{timer:?} {ticker:?}").matches("inert: true").count() == 2);
    drop((timer, ticker, kept));

    // A failed registration returns the receiver with its messages.
    let (tx, rx) = channel::bounded(2);
    tx.send(1).unwrap();
    let failed = handle.register(rx).unwrap_err();
    assert_eq!(failed.error().kind(), io::ErrorKind::NotConnected);
    assert!(
        failed.to_string().contains("dropped") && format!("{failed:?}").contains("dropped"),
        "{failed}"
    );
    let failed = handle.register_with(3, failed.into_inner()).unwrap_err();
    let rx = failed.into_inner();
    assert_eq!((rx.try_recv(), tx.is_disconnected()), (Ok(1), false));
    assert_eq!(handle.channel::<u8>(1).unwrap_err().kind(), io::ErrorKind::NotConnected);
    let as_io: io::Error = handle.register(rx).unwrap_err().into();
    assert!(as_io.to_string().contains("dropped"));
    assert_eq!(tx.send(2), Err(SendError(2)), "dropping the error drops the receiver");

    assert_eq!(handle.stats().live, 0);
}

#[test]
fn sources_may_be_dropped_after_their_reactor() {
    let (_, reactor) = simulated();
    // The slots fill more than one chunk, in all states.
    let timers: Vec<_> = (0..400).map(|n| reactor.after(Duration::from_secs(n % 3))).collect();
    let inboxes: Vec<_> = (0..400).map(|_| reactor.channel::<u8>(1).unwrap()).collect();
    inboxes.iter().step_by(2).for_each(|(tx, _)| tx.send(1).unwrap());
    timers.iter().skip(1).step_by(5).for_each(|timer| assert!(timer.stop()));
    let mut events = Events::with_capacity(16);
    reactor.try_wait(&mut events).unwrap();
    assert_eq!(events.len(), 16);
    drop(reactor);
    assert_eq!(events.iter().count(), 0, "events of a dropped reactor are skipped");
    drop(timers);
    drop(inboxes);
}

// Fds.

/// The number of fds of a reactor. On epoll: epoll, timerfd and eventfd. On kqueue: the kqueue. The
/// stand-in for kqueue on Linux also holds an eventfd.
const FDS: usize = if cfg!(epoll) {
    3
} else if cfg!(linux) {
    2
} else {
    1
};

#[test]
#[cfg_attr(flat, ignore = "libkqueue opens and closes fds of its own")]
fn every_fd_is_close_on_exec() {
    alone!();
    let before = fds();
    let reactor = support::reactor();
    let mut made = fds();
    made.retain(|fd, _| !before.contains_key(fd));
    assert_eq!(made.len(), FDS, "{made:?}");
    let embedded = reactor.embed().unwrap();
    let raw = Poller::new().unwrap();
    let raw = (PollerTimer::new(&raw, 0).unwrap(), Waker::new(&raw, 1).unwrap(), raw);
    let mut made = fds();
    made.retain(|fd, _| !before.contains_key(fd));
    // An embedding duplicates the fd of the poller. A kqueue's timer has no fd before the arm.
    assert_eq!(made.len(), FDS + 1 + FDS, "{made:?}");
    assert!(made.contains_key(&embedded.as_raw_fd()));
    for (fd, flags) in made {
        assert!(flags & libc::O_CLOEXEC as u32 != 0, "fd {fd} has flags {flags:o}");
    }
    drop((raw, embedded, reactor));
    assert_no_more_than(&before);
}

#[test]
#[cfg_attr(flat, ignore = "libkqueue opens and closes fds of its own")]
fn ten_thousand_reactors_leave_no_fd_behind() {
    alone!();
    let before = fds();
    let mut kept = Vec::new();
    for n in 0..10_000 {
        let reactor = support::reactor();
        if n % 100 == 0 {
            // Sources that outlive the reactor do not keep its fds open.
            let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
            let embedded = (n % 200 == 0).then(|| reactor.embed().unwrap());
            tx.send(1).unwrap();
            kept.push((tx, inbox, reactor.after(HOUR), reactor.handle()));
            drop(embedded);
        }
    }
    kept.iter().for_each(|(_, inbox, ..)| assert_eq!(inbox.try_recv(), Ok(1)));
    let with_kept = fds();
    drop(kept);
    assert_no_more_than(&before);
    // Senders share the waker and may be about to use it, so a source may keep that fd open.
    let waker = if cfg!(epoll) { 1 } else { FDS };
    assert!(with_kept.len() <= before.len() + 100 * waker, "{} fds are held", with_kept.len());
}

/// The OS error, also where it is the source of an error that explains it.
fn errno(error: &io::Error) -> Option<i32> {
    let system =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    error.raw_os_error().or_else(|| system?.raw_os_error())
}

#[test]
#[cfg_attr(flat, ignore = "libkqueue opens and closes fds of its own")]
fn creation_without_free_fds_fails_and_leaks_nothing() {
    alone!();
    let before = fds();
    // The kernel gives out the lowest free fds.
    let mut free = (0u64..).filter(|fd| !before.contains_key(&(*fd as i32)));
    let first: Vec<u64> = free.by_ref().take(FDS + 2).collect();
    for (left, limit) in first.iter().enumerate() {
        for _ in 0..3 {
            let former = set_fd_limit(*limit);
            let made = Reactor::new();
            set_fd_limit(former);
            match made {
                Ok(reactor) => {
                    assert!(left >= FDS, "made with {left} fds");
                    drop(reactor);
                }
                Err(error) => {
                    assert!(left < FDS, "failed with {left} fds: {error}");
                    assert_eq!(errno(&error), Some(libc::EMFILE), "{error}");
                }
            }
            assert_no_more_than(&before);
        }
    }
    // Embedding takes one more fd. The reactor works when `embed` fails.
    let reactor = support::reactor();
    let with_reactor = fds();
    let former = set_fd_limit(first[FDS]);
    let failed = reactor.embed();
    set_fd_limit(former);
    assert_eq!(errno(&failed.unwrap_err()), Some(libc::EMFILE));
    assert_no_more_than(&with_reactor);
    let timer = reactor.after(Duration::ZERO);
    select! { reactor; recv(timer) -> _ => {} }
    drop(reactor.embed().expect("a later embed succeeds"));
}

/// The stand-in for kqueue makes a timerfd for each new timer. So a limit on fds makes an arm fail.
#[cfg(all(kqueue, linux, not(flat)))]
#[test]
fn failed_arm_fails_the_wait_and_never_spins() {
    alone!();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.after(HOUR);
    let mut events = Events::with_capacity(1);
    let open = fds();
    let former = set_fd_limit((0u64..).find(|fd| !open.contains_key(&(*fd as i32))).unwrap());
    for _ in 0..3 {
        let before = reactor.stats();
        let error = reactor.wait(&mut events).unwrap_err();
        assert_eq!(errno(&error), Some(libc::EMFILE));
        assert_eq!((reactor.stats() - before).waits, 1);
    }
    set_fd_limit(former);
    // The reactor works again after the failures.
    let other = tx.clone();
    let sender = thread::spawn(move || other.send(1).unwrap());
    select! { reactor;
        recv(inbox) -> got => assert_eq!(got, Ok(1)),
        recv(timer) -> _ => unreachable!(),
    }
    sender.join().unwrap();
    timer.reset(Duration::from_millis(2));
    let due = timer.deadline().unwrap();
    reactor.wait(&mut events).unwrap();
    assert!(Time::now() >= due && timer.try_take() == Some(due));
}

// Signals.

#[test]
fn signals_shorten_no_wait() {
    support::exact("counts arms");
    alone!();
    let d = Duration::from_millis(300);
    let reactor = support::reactor();
    let (_tx, inbox) = reactor.channel::<u8>(1).unwrap();
    let timer = reactor.timer();
    let mut events = Events::with_capacity(1);
    let (full, rest) = channel::bounded(1);
    full.send(0).unwrap();
    let (_quiet, nothing) = channel::bounded::<u8>(1);
    let _storm = Storm::begin();
    // Signals interrupt real sleeps only, so this test needs wall time. A wait that too few signals
    // interrupted is repeated.
    let lasts = |what: &str, wait: &mut dyn FnMut()| {
        let mut signals = 0;
        while signals < 5 {
            let (start, before) = (Instant::now(), storm::signals());
            wait();
            let took = start.elapsed();
            signals = storm::signals() - before;
            assert!(took >= d, "{what} took {took:?}");
        }
    };
    let mut interrupted = false;
    while !interrupted {
        lasts("a timer", &mut || {
            let before = reactor.stats();
            timer.reset(d);
            let due = timer.deadline();
            select! { reactor;
                recv(timer) -> t => assert_eq!(Some(t), due),
                recv(inbox) -> _ => unreachable!(),
            }
            let during = reactor.stats() - before;
            assert!(during.arms <= 1, "an interrupted wait arms again: {during}");
            interrupted |= during.waits > 5;
        });
    }
    lasts("a default with a timeout", &mut || {
        select! { reactor; recv(inbox) -> _ => unreachable!(), default(d) => {} }
    });
    lasts("a wait", &mut || {
        timer.reset(d);
        reactor.wait(&mut events).unwrap();
        assert!(timer.try_take().is_some());
    });
    lasts("a wait with a timeout", &mut || {
        reactor.wait_timeout(&mut events, d).unwrap();
        assert!(events.is_empty());
    });
    lasts("a bare recv", &mut || {
        assert_eq!(nothing.recv_timeout(d), Err(RecvTimeoutError::Timeout));
    });
    lasts("a bare send", &mut || {
        assert_eq!(full.send_timeout(1, d), Err(SendTimeoutError::Timeout(1)));
    });
    drop(rest);
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn signals_lose_no_wake_up() {
    alone!();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let embedded = reactor.embed().unwrap();
    let outer = Poller::new().unwrap();
    outer.register(&embedded, 0, Interest::READABLE, Mode::Edge).unwrap();
    let _storm = Storm::begin();
    let sender = thread::spawn(move || {
        let mut n = 0;
        while n < 300 || storm::signals() <= 5 {
            // The pause lets the receiver sleep, and be interrupted, now and then.
            thread::sleep(Duration::from_micros(n % 7 * 100));
            tx.send(n).unwrap();
            n += 1;
        }
        n
    });
    let mut events = PollEvents::with_capacity(4);
    let mut next = 0;
    let received = loop {
        if next % 2 == 0 {
            match select! { reactor; recv(inbox) -> got => got } {
                Ok(got) => assert_eq!(got, next),
                Err(RecvError) => break next,
            }
        } else {
            embedded.turn().unwrap();
            match inbox.try_recv() {
                Ok(got) => assert_eq!(got, next),
                Err(TryRecvError::Disconnected) => break next,
                Err(TryRecvError::Empty) => {
                    match outer.wait(&mut events, None) {
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
                        Ok(()) => assert_eq!(events.len(), 1),
                    }
                    continue;
                }
            }
        }
        next += 1;
    };
    assert_eq!(sender.join().unwrap(), received);
}
