//! One suite for every driver: the promises to a loop hold with each driver.
//!
//! A test is a function of the reactor's constructor. The tests of the first list run in virtual
//! time, too. `foreign.rs` tests the sources of mio and polling on their pollers.
#![cfg(in_repository)]
// The tests are left out where a kqueue cannot be nested (build.rs).
#![cfg(not(flat))]

// The driver of the example, which has neither edges nor a timer.
#[allow(dead_code)]
#[path = "../../examples/custom_driver.rs"]
mod custom_driver;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{bounded, unbounded};
use pollmux::sys::{Interest, Mode, Readiness};
use pollmux::{
    Events, Fd, Handle, OsTimer, Reactor, Select, Signal, Sim, Source, Time, driver::ReadyFds,
    driver::foreign::Events as ForeignEvents, driver::foreign::EventsId,
    driver::foreign::Queue as ForeignQueue, select,
};
use support::{
    HOUR, Hooked, Hooks, Random, Storm, Waiting, allow_fds, alone, ms, spawn, storm, watchdog,
};
use support::{faulty::Faults, thread};

fn native() -> Reactor {
    support::reactor()
}

fn simulated() -> Reactor {
    support::on(Sim::new())
}

/// A driver with faults, like those of all tests with `POLLMUX_TEST_FAULTS`.
fn faulty() -> Reactor {
    let native = pollmux::driver::Native::new().unwrap();
    Reactor::with_driver(support::faulty::faulty(native, Faults::new(3))).unwrap()
}

fn custom() -> Reactor {
    Reactor::with_driver(custom_driver::PollDriver::new().unwrap()).unwrap()
}

#[cfg(feature = "mio")]
fn on_mio() -> Reactor {
    let driver = pollmux::driver::MioDriver::new(mio::Poll::new().unwrap(), mio::Token(0)).unwrap();
    Reactor::with_driver(driver).unwrap()
}

#[cfg(feature = "polling")]
fn on_polling() -> Reactor {
    let driver = pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), 0).unwrap();
    Reactor::with_driver(driver).unwrap()
}

macro_rules! tests_on {
    ($new:ident: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            let _watchdog = watchdog();
            super::$test($new);
        }
    )*};
}

/// The tests that need no real time, no other threads and no fds.
macro_rules! in_any_time {
    ($new:ident) => {
        tests_on! { $new:
            a_timer_fires_once_and_never_early
            timers_are_reported_in_deadline_order
            a_stopped_or_reset_timer_leaves_no_value
            a_due_timer_beats_default
            an_earlier_deadline_ends_the_sleep
            a_later_reset_is_not_early
            a_ticker_keeps_its_grid
            a_restarted_ticker_counts_from_now
            messages_of_one_thread_come_in_order
            a_send_case_waits_for_room
            a_default_with_a_timeout_is_not_early
            wait_reports_a_key_until_drained
            a_timed_out_wait_reports_nothing
            callbacks_run_during_a_wait
            posts_run_and_a_wake_ends_one_wait
            a_blocking_sleep_lasts
            a_dynamic_select_finds_each_ready_source
            fresh_now_uses_the_timers_clock
        }
    };
}

/// The tests that need fds or kernel timers, and neither real time nor other threads.
macro_rules! with_fds {
    ($new:ident) => {
        tests_on! { $new:
            an_ignored_ready_fd_costs_no_turns
            a_busy_channel_does_not_starve_an_fd
            a_closed_peer_is_reported
            interest_can_change_in_a_callback
            readable_and_writable_are_distinguished
            a_level_fd_is_reported_while_ready
            a_one_shot_fd_is_reported_once
            a_second_registration_of_an_fd_fails
            a_reused_fd_number_gets_no_old_event
            two_thousand_ready_fds_are_reported_once_each
            a_reset_os_timer_gives_no_old_firing
            os_timers_fire_repeatedly
        }
    };
}

/// The tests that need real time, other threads, or processes.
macro_rules! in_real_time {
    ($new:ident) => {
        tests_on! { $new:
            messages_of_other_threads_arrive_once_each
            a_rendezvous_works_with_another_thread
            calls_from_another_thread_end_a_sleep
            a_remote_resets_and_stops_timers
            an_fd_is_ready_until_drained
            a_busy_loop_without_fds_never_polls
            sources_of_another_reactor_are_refused
            signals_arrive
            signals_do_not_affect_waits_or_wake_ups
            a_childs_exit_is_reported
            one_select_serves_every_kind_of_source
        }
    };
}

mod on_native {
    use super::*;

    in_any_time!(native);
    with_fds!(native);
    in_real_time!(native);
}

mod on_sim {
    use super::*;

    in_any_time!(simulated);
    with_fds!(simulated);
}

mod on_a_faulty_driver {
    use super::*;

    in_any_time!(faulty);
    with_fds!(faulty);
    in_real_time!(faulty);
}

mod on_a_custom_driver {
    use super::*;

    in_any_time!(custom);
    with_fds!(custom);
    in_real_time!(custom);
}

#[cfg(feature = "mio")]
mod on_mio_poll {
    use super::*;

    in_any_time!(on_mio);
    with_fds!(on_mio);
    in_real_time!(on_mio);
}

#[cfg(feature = "polling")]
mod on_polling_poller {
    use super::*;

    in_any_time!(on_polling);
    with_fds!(on_polling);
    in_real_time!(on_polling);
}

#[cfg(any(feature = "mio", feature = "polling"))]
mod foreign;

type New = fn() -> Reactor;

/// Asserts that no event comes for 10 ms, and that the loop sleeps meanwhile.
#[track_caller]
fn assert_quiet(reactor: &Reactor, source: &impl Source) {
    let sleeps = || {
        let before = reactor.stats();
        select! { reactor; recv(source) -> _ => panic!("an event came"), default(ms(10)) => {} }
        // A full sleep, a sleep that was too short, and a sleep that an old edge ended.
        (reactor.stats() - before).waits <= 4
    };
    // With faults more waits are too short at times.
    assert!((0..20).any(|_| sleeps()), "the loop did not sleep: {}", reactor.stats());
}

use support::keys as key_list;

// ---- In any time.

fn a_timer_fires_once_and_never_early(new: New) {
    let reactor = new();
    for delay in [0, 1, 50, 999, 1_000, 1_001, 3_500].map(Duration::from_micros) {
        let timer = reactor.after(delay);
        let due = timer.deadline().unwrap();
        select! { reactor; recv(timer) -> t => assert_eq!(t, due) }
        assert!(reactor.now() >= due, "{delay:?}");
        select! { reactor;
            recv(timer) -> _ => panic!("fired twice"),
            default(Duration::from_micros(100)) => {}
        }
    }
}

fn timers_are_reported_in_deadline_order(new: New) {
    let reactor = new();
    let base = reactor.now() + ms(2);
    let timers: Vec<_> = [3, 1, 2, 1, 0]
        .into_iter()
        .zip(0..)
        .map(|(at, key)| reactor.at(base + ms(at)).with_key(key))
        .collect();
    let (mut events, mut fired) = (Events::with_capacity(8), Vec::new());
    while fired.len() < timers.len() {
        reactor.wait(&mut events).unwrap();
        for key in key_list(&events) {
            assert!(timers[key as usize].try_take().is_some());
            fired.push(key);
        }
    }
    assert_eq!(fired, [4, 1, 3, 2, 0]);
}

fn a_stopped_or_reset_timer_leaves_no_value(new: New) {
    let reactor = new();
    let (a, b) = (reactor.after(ms(1)), reactor.after(ms(1)));
    select! { reactor;
        recv(a) -> _ => assert!(b.stop()),
        recv(b) -> _ => assert!(a.stop()),
    }
    select! { reactor; recv(a) -> _ => panic!(), recv(b) -> _ => panic!(), default(ms(3)) => {} }
    a.reset(ms(1));
    assert!(a.reset(ms(4)));
    let due = a.deadline().unwrap();
    select! { reactor; recv(a) -> t => assert_eq!(t, due), recv(b) -> _ => panic!() }
    assert!(!a.stop());
}

fn a_due_timer_beats_default(new: New) {
    let reactor = new();
    for _ in 0..3 {
        let timer = reactor.after(Duration::ZERO);
        select! { reactor; recv(timer) -> _ => {}, default => panic!() }
    }
}

fn an_earlier_deadline_ends_the_sleep(new: New) {
    let reactor = new();
    let timer = reactor.after(HOUR);
    // Now the driver has the deadline in an hour.
    select! { reactor; recv(timer) -> _ => panic!(), default(ms(1)) => {} }
    for _ in 0..5 {
        timer.reset(ms(1));
        let due = timer.deadline().unwrap();
        select! { reactor; recv(timer) -> t => assert_eq!(t, due) }
        assert!(reactor.now() >= due);
        timer.reset(HOUR);
        select! { reactor; recv(timer) -> _ => panic!(), default(ms(1)) => {} }
    }
}

fn a_later_reset_is_not_early(new: New) {
    let reactor = new();
    let (timer, tick) = (reactor.after(ms(2)), reactor.after(ms(1)));
    select! { reactor; recv(tick) -> _ => {}, recv(timer) -> _ => {} }
    timer.reset(ms(6));
    let due = timer.deadline().unwrap();
    select! { reactor; recv(timer) -> t => assert_eq!(t, due) }
    assert!(reactor.now() >= due);
}

fn a_ticker_keeps_its_grid(new: New) {
    let reactor = new();
    let ticker = reactor.every(ms(1)).unwrap();
    let first = ticker.deadline().unwrap();
    let mut periods = 0;
    for _ in 0..8 {
        select! { reactor;
            recv(ticker) -> tick => {
                assert!(reactor.now() >= tick.scheduled);
                assert_eq!(tick.scheduled, first + ms(1) * periods);
                periods += 1 + tick.missed as u32;
            }
        }
    }
}

fn a_restarted_ticker_counts_from_now(new: New) {
    let reactor = new();
    let (ticker, timer) = (reactor.every(ms(30)).unwrap(), reactor.after(ms(1)));
    for _ in 0..3 {
        select! { reactor;
            recv(timer) -> _ => {
                let now = reactor.now();
                assert!(ticker.restart());
                assert!(ticker.deadline().unwrap() >= now + ms(30));
            },
            recv(ticker) -> _ => {} // the machine was slow
        }
        timer.reset(ms(1));
    }
}

fn messages_of_one_thread_come_in_order(new: New) {
    let reactor = new();
    let (tx, inbox) = reactor.channel(4).unwrap();
    for round in 0..20 {
        (0..4).for_each(|n| tx.send(round * 4 + n).unwrap());
        assert!(tx.try_send(0).is_err());
        for n in 0..4 {
            select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(round * 4 + n)) }
        }
    }
    drop(tx);
    for _ in 0..2 {
        select! { reactor; recv(inbox) -> got => assert!(got.is_err()) }
    }
}

fn a_send_case_waits_for_room(new: New) {
    let reactor = new();
    let (tx, rx) = bounded(1);
    let outbox = reactor.register(tx).unwrap();
    let timer = reactor.after(ms(1));
    let (mut sent, mut received) = (0, 0);
    while sent < 4 {
        select! { reactor;
            send(outbox, sent) -> result => { result.unwrap(); sent += 1; },
            recv(timer) -> _ => {
                if let Ok(got) = rx.try_recv() {
                    assert_eq!(got, received);
                    received += 1;
                }
                timer.reset(ms(1));
            }
        }
        assert!(sent - received <= 1, "sent to a full channel");
    }
}

fn a_default_with_a_timeout_is_not_early(new: New) {
    let reactor = new();
    let (_tx, inbox) = reactor.channel::<u8>(1).unwrap();
    for us in [0, 1, 700, 1_000, 2_300] {
        let begin = reactor.now();
        let timeout = Duration::from_micros(us);
        select! { reactor; recv(inbox) -> _ => panic!(), default(timeout) => {} }
        // Another turn reads the clock again.
        select! { reactor; recv(inbox) -> _ => panic!(), default => {} }
        assert!(reactor.now() >= begin + timeout, "{timeout:?}");
    }
}

fn wait_reports_a_key_until_drained(new: New) {
    let reactor = new();
    let (tx, rx) = unbounded();
    let inbox = reactor.register_with(5, rx).unwrap();
    let timer = reactor.after(ms(1)).with_key(6);
    let mut events = Events::with_capacity(4);
    (0..3).for_each(|n| tx.send(n).unwrap());
    for n in 0..3 {
        reactor.wait(&mut events).unwrap();
        assert!(key_list(&events).contains(&5));
        assert_eq!(inbox.try_recv(), Ok(n));
    }
    while !timer.is_ready() {
        reactor.wait(&mut events).unwrap();
    }
    for _ in 0..2 {
        reactor.wait(&mut events).unwrap();
        assert_eq!(key_list(&events), [6]);
    }
    assert!(timer.try_take().is_some());
    reactor.try_wait(&mut events).unwrap();
    assert!(events.is_empty());
}

fn a_timed_out_wait_reports_nothing(new: New) {
    let reactor = new();
    let (_tx, inbox) = reactor.channel::<u8>(1).unwrap();
    let mut events = Events::with_capacity(4);
    let begin = reactor.now();
    reactor.wait_timeout(&mut events, ms(2)).unwrap();
    assert!(events.is_empty() && inbox.is_empty());
    reactor.try_wait(&mut events).unwrap();
    assert!(reactor.now() >= begin + ms(2));
}

fn callbacks_run_during_a_wait(new: New) {
    let reactor = new();
    let calls = Rc::new(Cell::new(0));
    let counter = calls.clone();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let callback = reactor.call_after(ms(1), move |cx| {
        counter.set(counter.get() + 1);
        if counter.get() < 3 {
            cx.reset(ms(1));
        } else {
            tx.send(()).unwrap();
        }
    });
    select! { reactor; recv(inbox) -> end => assert_eq!(end, Ok(())) }
    assert_eq!(calls.get(), 3);
    drop(callback);
}

fn posts_run_and_a_wake_ends_one_wait(new: New) {
    let reactor = new();
    let remote = reactor.remote();
    let (tx, inbox) = reactor.channel(4).unwrap();
    remote.post(move |handle: &Handle| tx.send(handle.stats().called).unwrap()).unwrap();
    select! { reactor; recv(inbox) -> called => assert_eq!(called, Ok(1)) }
    let mut events = Events::with_capacity(4);
    // The channel is disconnected, because its sender was dropped with the closure.
    reactor.wait(&mut events).unwrap();
    assert!(inbox.try_recv().is_err());
    remote.wake();
    reactor.wait(&mut events).unwrap();
    assert!(events.is_empty());
    let timer = reactor.after(ms(1)).with_key(1);
    reactor.wait(&mut events).unwrap();
    assert_eq!(key_list(&events), [1]);
    drop(timer);
}

fn a_blocking_sleep_lasts(new: New) {
    let reactor = new();
    let timer = reactor.after(ms(1));
    let begin = reactor.now();
    reactor.sleep_blocking(ms(3)).unwrap();
    select! { reactor; recv(timer) -> _ => {}, default => panic!("a due timer was missed") }
    assert!(reactor.now() >= begin + ms(3));
}

fn a_dynamic_select_finds_each_ready_source(new: New) {
    let reactor = new();
    let timers: Vec<_> = (0..50).map(|n| reactor.after(ms(1) * n)).collect();
    let mut select = Select::new(&reactor);
    for timer in &timers {
        select.recv(timer);
    }
    let mut fired = [false; 50];
    for _ in 0..50 {
        let index = select.wait().unwrap().index();
        assert!(!std::mem::replace(&mut fired[index], true) && timers[index].try_take().is_some());
    }
}

// ---- In real time: other threads.

fn fresh_now_uses_the_timers_clock(new: New) {
    let reactor = new();
    let first = reactor.fresh_now();
    let mut turn = reactor.now();
    assert!(turn >= first);
    for _ in 0..3 {
        let fresh = reactor.fresh_now();
        assert!(fresh >= turn && reactor.now() == turn);
        let timer = reactor.at(fresh + ms(2));
        reactor.recv(&timer).unwrap();
        assert!(reactor.fresh_now() >= fresh + ms(2));
        turn = reactor.now();
        assert!(turn >= fresh + ms(2) && reactor.fresh_now() >= turn);
    }
}

fn messages_of_other_threads_arrive_once_each(new: New) {
    let reactor = new();
    let (tx, inbox) = reactor.channel(8).unwrap();
    const EACH: u32 = 1_500;
    for seed in 0..2 {
        let tx = tx.clone();
        thread::spawn(move || {
            let mut random = Random::new(seed);
            for n in 0..EACH {
                tx.send((seed, n)).unwrap();
                random.pause();
            }
        });
    }
    drop(tx);
    let mut next = [0, 0];
    loop {
        select! { reactor;
            recv(inbox) -> got => match got {
                Ok((seed, n)) => {
                    assert_eq!(n, std::mem::replace(&mut next[seed as usize], n + 1));
                }
                Err(_) => break,
            }
        }
    }
    assert_eq!(next, [EACH; 2]);
}

fn a_rendezvous_works_with_another_thread(new: New) {
    let reactor = new();
    let (tx, rx) = bounded(0);
    let inbox = reactor.register(rx).unwrap();
    let _sender = support::aside(move || (0..200).for_each(|n| tx.send(n).unwrap()));
    for n in 0..200 {
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
    }
}

fn calls_from_another_thread_end_a_sleep(new: New) {
    let reactor = new();
    let (tx, rx) = bounded(1);
    let inbox = reactor.register_with(0, rx).unwrap();
    let (notifier, notified) = reactor.notifier();
    let notified = notified.with_key(1);
    let (remote, posted) = (reactor.remote(), reactor.timer().with_key(2));
    let id = posted.id();
    let (ask, asked) = std::sync::mpsc::channel();
    let _other = support::aside(move || {
        for kind in asked {
            thread::sleep(Duration::from_micros(300)); // by then the loop sleeps
            match kind {
                0 => tx.send(()).unwrap(),
                1 => notifier.notify(),
                2 => remote
                    .post(move |handle: &Handle| {
                        handle.reset_timer(id, Duration::ZERO).unwrap();
                    })
                    .unwrap(),
                _ => remote.wake(),
            }
        }
    });
    let mut events = Events::with_capacity(4);
    for round in 0..80 {
        ask.send(round % 4).unwrap();
        reactor.wait(&mut events).unwrap();
        match round % 4 {
            0 => assert_eq!((key_list(&events), inbox.try_recv()), (vec![0], Ok(()))),
            1 => assert_eq!((key_list(&events), notified.try_take()), (vec![1], Some(()))),
            2 => assert!(key_list(&events) == [2] && posted.try_take().is_some()),
            _ => assert!(events.is_empty()),
        }
    }
    drop(ask);
}

fn a_remote_resets_and_stops_timers(new: New) {
    let reactor = new();
    let (near, far) = (reactor.after(HOUR), reactor.after(HOUR));
    let (remote, near_id, far_id) = (reactor.remote(), near.id(), far.id());
    let _other = support::later(ms(1), move || {
        remote.stop(far_id).unwrap();
        remote.reset(near_id, ms(1)).unwrap();
    });
    select! { reactor; recv(near) -> _ => {}, recv(far) -> _ => panic!() }
    assert_eq!(far.deadline(), None);
}

// ---- In real time: fds.

fn pair(reactor: &Reactor, interest: Interest, mode: Mode) -> (UnixStream, Fd<UnixStream>) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (theirs, reactor.fd_with_mode(ours, interest, mode).unwrap())
}

/// Reads until the read would block, and returns the number of bytes.
fn drain(fd: &mut Fd<UnixStream>) -> usize {
    let (mut all, mut buffer) = (0, [0; 64]);
    loop {
        match fd.read(&mut buffer) {
            Ok(0) => return all,
            Ok(n) => all += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return all;
            }
        }
    }
}

fn an_fd_is_ready_until_drained(new: New) {
    let reactor = new();
    let (theirs, mut ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
    assert_quiet(&reactor, &ours);
    let (ask, asked) = std::sync::mpsc::channel();
    let other = thread::spawn(move || {
        for pause in asked {
            thread::sleep(Duration::from_micros(pause));
            (&theirs).write_all(b"four").unwrap();
        }
        theirs
    });
    for round in 0..300 {
        ask.send([0, 40, 200][round % 3]).unwrap();
        let mut got = 0;
        while got < 4 {
            select! { reactor; recv(ours) -> readiness => assert!(readiness.is_readable()) }
            if round % 4 == 0 {
                // An fd that is not drained stays ready.
                select! { reactor; recv(ours) -> _ => {}, default => panic!("lost") }
            }
            got += drain(&mut ours);
        }
        assert_eq!(got, 4);
        if round % 60 == 0 {
            assert_quiet(&reactor, &ours);
        }
    }
    drop(ask);
    drop(other.join().unwrap());
}

fn an_ignored_ready_fd_costs_no_turns(new: New) {
    let reactor = new();
    let (mut theirs, mut ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
    theirs.write_all(b"left alone").unwrap();
    let timer = reactor.after(ms(1));
    select! { reactor; recv(timer) -> _ => {} } // the driver finds the fd meanwhile
    assert_quiet(&reactor, &timer);
    select! { reactor; recv(ours) -> _ => {}, default => panic!("the readiness was lost") }
    assert_eq!(drain(&mut ours), 10);
    theirs.write_all(b"more").unwrap();
    select! { reactor; recv(ours) -> _ => assert_eq!(drain(&mut ours), 4) }
}

fn a_busy_channel_does_not_starve_an_fd(new: New) {
    let reactor = new();
    let (mut theirs, ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
    let (tx, inbox) = reactor.channel(1).unwrap();
    theirs.write_all(b"x").unwrap();
    let (begin, mut seen) = (Time::now(), false);
    while !seen {
        tx.try_send(()).unwrap();
        select! { reactor;
            biased;
            recv(ours) -> _ => seen = true,
            recv(inbox) -> _ => {}
        }
        // The promise is a poll every 100 µs.
        assert!(Time::now() - begin < ms(60_000), "starved");
        let _ = inbox.try_recv();
    }
}

fn a_busy_loop_without_fds_never_polls(new: New) {
    let reactor = new();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let polls = || {
        let (before, begin) = (reactor.stats(), Time::now());
        // The last turn begins when a poll is long due, however few turns there are.
        let mut due = false;
        while !due {
            due = Time::now() - begin >= ms(1);
            tx.try_send(()).unwrap();
            select! { reactor; recv(inbox) -> got => got.unwrap() }
        }
        (reactor.stats() - before).polls
    };
    assert_eq!(polls(), 0, "no file yet");
    let fd = pair(&reactor, Interest::READABLE, Mode::Edge);
    assert!(polls() > 0);
    drop(fd);
    assert_eq!(polls(), 0, "a file");
    drop(pair(&reactor, Interest::READABLE, Mode::Edge).1.into_inner());
    assert_eq!(polls(), 0, "a deregistered file");
    drop(os_timer(&reactor));
    assert_eq!(polls(), 0, "a timer");
    drop(reactor.signals(&[Signal::USER2]).unwrap());
    assert_eq!(polls(), 0, "signals");
    let end = reactor.register(spawn(&mut Command::new("true"))).unwrap();
    select! { reactor; recv(end) -> status => assert!(status.unwrap().success()) }
    assert_eq!(polls(), 0, "a child that has exited");
    drop(end);
    assert_eq!(polls(), 0);
    reactor.register(spawn(&mut Command::new("true"))).unwrap().into_inner().wait().unwrap();
    assert_eq!(polls(), 0, "a deregistered child");
}

fn sources_of_another_reactor_are_refused(new: New) {
    let (reactor, other) = (new(), new());
    let (_theirs, fd) = pair(&other, Interest::WRITABLE, Mode::Edge);
    let (timer, signals) = (os_timer(&other), other.signals(&[Signal::USER2]).unwrap());
    let child = other.register(spawn(&mut Command::new("true"))).unwrap();
    let refused =
        |error: io::Error| assert!(error.to_string().contains("another reactor"), "{error}");
    select! { reactor;
        recv(fd) -> _ => panic!(),
        default => panic!(),
        error -> error => refused(error),
    }
    select! { reactor;
        recv(timer) -> _ => panic!(),
        default => panic!(),
        error -> error => refused(error),
    }
    select! { reactor;
        recv(signals) -> _ => panic!(),
        default => panic!(),
        error -> error => refused(error),
    }
    select! { reactor;
        recv(child) -> _ => panic!(),
        default => panic!(),
        error -> error => refused(error),
    }
    select! { other; recv(child) -> status => assert!(status.unwrap().success()) }
}

fn a_closed_peer_is_reported(new: New) {
    let reactor = new();
    let (mut theirs, mut ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
    theirs.write_all(b"last words").unwrap();
    // A drop would not close the socket while a process of another test has a copy.
    theirs.shutdown(Shutdown::Both).unwrap();
    let mut text = String::new();
    select! { reactor;
        recv(ours) -> readiness => {
            assert!(readiness.contains(Readiness::READABLE | Readiness::READ_CLOSED));
        }
    }
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
}

fn interest_can_change_in_a_callback(new: New) {
    let reactor = new();
    let (mut theirs, ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
    let ours = Rc::new(ours);
    for in_callback in [false, true, true] {
        assert_quiet(&reactor, &ours);
        if in_callback {
            let fd = ours.clone();
            let change = move |_: &pollmux::CallbackContext<'_>| {
                fd.set_interest(Interest::WRITABLE).unwrap()
            };
            reactor.call_after(ms(1), change).detach();
        } else {
            ours.set_interest(Interest::WRITABLE).unwrap();
        }
        select! { reactor; recv(ours) -> readiness => assert!(readiness.is_writable()) }
        assert_eq!(ours.interest(), Interest::WRITABLE);
        ours.set_interest(Interest::READABLE).unwrap();
        assert_quiet(&reactor, &ours);
        theirs.write_all(b"x").unwrap();
        select! { reactor; recv(ours) -> readiness => assert!(readiness.is_readable()) }
        // A rearmed fd reports the same readiness again.
        ours.rearm().unwrap();
        assert!(!ours.is_ready());
        select! { reactor; recv(ours) -> readiness => assert!(readiness.is_readable()) }
        let mut byte = [0];
        (&*ours).read_exact(&mut byte).unwrap();
        assert_eq!((&*ours).read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

fn readable_and_writable_are_distinguished(new: New) {
    let reactor = new();
    let (theirs, ours) = pair(&reactor, Interest::BOTH, Mode::Edge);
    theirs.set_nonblocking(true).unwrap();
    select! { reactor;
        recv(ours) -> readiness => assert!(readiness.is_writable() && !readiness.is_readable()),
    }
    let (block, mut sent, mut back) = ([7; 4096], 0, 0);
    loop {
        match (&ours).write(&block) {
            Ok(n) => sent += n,
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_quiet(&reactor, &ours);
    (&theirs).write_all(b"x").unwrap();
    select! { reactor;
        recv(ours) -> readiness => assert!(readiness.is_readable() && !readiness.is_writable()),
    }
    assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 1);
    assert_eq!((&ours).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_quiet(&reactor, &ours);
    let mut buffer = [0; 65536];
    while let Ok(n) = (&theirs).read(&mut buffer) {
        back += n;
    }
    assert_eq!(sent, back);
    select! { reactor;
        recv(ours) -> readiness => assert!(readiness.is_writable() && !readiness.is_readable()),
    }
}

fn a_level_fd_is_reported_while_ready(new: New) {
    let reactor = new();
    let (mut theirs, mut ours) = pair(&reactor, Interest::READABLE, Mode::Level);
    let (mut theirs2, mut ours2) = pair(&reactor, Interest::READABLE, Mode::Level);
    for _ in 0..20 {
        assert_quiet(&reactor, &ours);
        theirs.write_all(b"abc").unwrap();
        theirs2.write_all(b"abc").unwrap();
        let (mut bytes, mut bytes2) = (0, 0);
        // Read a byte each time, so that no read fails.
        while bytes + bytes2 < 6 {
            select! { reactor;
                recv(ours) -> _ => bytes += ours.read(&mut [0]).unwrap(),
                recv(ours2) -> _ => bytes2 += ours2.read(&mut [0]).unwrap(),
            }
        }
        assert_eq!((bytes, bytes2), (3, 3));
    }
}

fn a_one_shot_fd_is_reported_once(new: New) {
    let reactor = new();
    drop(pair(&reactor, Interest::READABLE, Mode::Edge)); // the next fd uses its slot again
    let (mut theirs, ours) = pair(&reactor, Interest::READABLE, Mode::OneShot);
    theirs.write_all(b"x").unwrap();
    for _ in 0..5 {
        select! { reactor; recv(ours) -> _ => {} }
        theirs.write_all(b"x").unwrap();
        assert_quiet(&reactor, &ours);
        ours.rearm().unwrap();
    }
}

fn a_second_registration_of_an_fd_fails(new: New) {
    let reactor = new();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let first = reactor.fd(ours.as_fd(), Interest::READABLE).unwrap();
    let error = reactor.fd(&ours, Interest::READABLE).unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::AlreadyExists);
    theirs.write_all(b"x").unwrap();
    select! { reactor; recv(first) -> _ => {} }
    drop(first);
    let again = reactor.fd(&ours, Interest::READABLE).unwrap();
    select! { reactor; recv(again) -> _ => {} }
    assert_eq!(reactor.stats().live, 1);
}

fn a_reused_fd_number_gets_no_old_event(new: New) {
    let reactor = new();
    for _ in 0..20 {
        let (mut theirs, ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
        let (mut theirs2, ours2) = pair(&reactor, Interest::READABLE, Mode::Edge);
        theirs.write_all(b"x").unwrap();
        theirs2.write_all(b"x").unwrap();
        let mut slots = [Some(ours), Some(ours2)];
        // Both fds are found together; the arm of one fd closes the other.
        select! { reactor;
            recv(slots[0]) -> _ => slots[1] = None,
            recv(slots[1]) -> _ => slots[0] = None,
        }
        let (_theirs, fresh) = pair(&reactor, Interest::READABLE, Mode::Edge);
        select! { reactor;
            recv(fresh) -> _ => panic!("an event of another fd"),
            default(Duration::from_micros(200)) => {}
        }
    }
}

fn two_thousand_ready_fds_are_reported_once_each(new: New) {
    allow_fds(30_000);
    let reactor = new();
    const COUNT: u32 = 2_000;
    let (mut peers, fds): (Vec<_>, Vec<_>) = (0..COUNT)
        .map(|n| {
            let (peer, fd) = pair(&reactor, Interest::READABLE, Mode::Edge);
            (peer, fd.with_key(u64::from(n)))
        })
        .unzip();
    let mut events = Events::with_capacity(300);
    for round in 1..=2 {
        peers.iter_mut().for_each(|peer| peer.write_all(&[1]).unwrap());
        let mut seen = vec![0; COUNT as usize];
        let mut left = COUNT;
        while left > 0 {
            reactor.wait(&mut events).unwrap();
            for event in &events {
                let fd = &fds[event.key() as usize];
                let read = || fd.try_io(|mut io| io.read(&mut [0; 8]));
                assert_eq!(read().unwrap(), 1);
                assert_eq!(read().unwrap_err().kind(), ErrorKind::WouldBlock);
                seen[event.key() as usize] += 1;
                left -= 1;
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
        reactor.wait_timeout(&mut events, Duration::from_micros(100)).unwrap();
        assert!(events.is_empty(), "round {round}");
    }
}

// ---- In real time: kernel timers, signals, children.

fn os_timer(reactor: &Reactor) -> OsTimer {
    reactor.os_timer().unwrap()
}

fn os_timers_fire_repeatedly(new: New) {
    let reactor = new();
    let timers = [os_timer(&reactor), os_timer(&reactor)];
    for n in 0..20 {
        let delay = Duration::from_micros([0, 300, 1_000][n % 3]);
        timers.iter().for_each(|timer| assert!(!timer.reset(delay).unwrap()));
        let due = timers[0].deadline().unwrap();
        let mut fired = [0, 0];
        for _ in 0..2 {
            select! { reactor;
                recv(timers[0]) -> t => {
                    assert_eq!(t, due);
                    assert!(reactor.fresh_now() >= t);
                    fired[0] += 1;
                }
                recv(timers[1]) -> _ => fired[1] += 1,
            }
        }
        assert_eq!(fired, [1, 1]);
    }
    assert_quiet(&reactor, &timers[0]);
}

fn a_reset_os_timer_gives_no_old_firing(new: New) {
    let reactor = new();
    let timer = os_timer(&reactor);
    timer.reset(Duration::from_micros(100)).unwrap();
    thread::sleep(ms(1));
    let mut events = Events::with_capacity(1);
    // The firing is found, and not taken.
    reactor.wait(&mut events).unwrap();
    assert!(timer.reset(ms(3)).unwrap());
    let due = timer.deadline().unwrap();
    select! { reactor; recv(timer) -> t => assert_eq!(t, due) }
    assert!(reactor.fresh_now() >= due);
    timer.reset(ms(1)).unwrap();
    assert!(timer.stop().unwrap());
    assert_quiet(&reactor, &timer);
    timer.reset(ms(1)).unwrap();
    select! { reactor; recv(timer) -> _ => {} }
}

/// Sends a signal to this process.
fn raise(signal: &str) {
    let pid = std::process::id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

fn signals_arrive(new: New) {
    alone!();
    let reactor = new();
    let signals = reactor.signals(&[Signal::USER1, Signal::USER2]).unwrap();
    for _ in 0..3 {
        assert_quiet(&reactor, &signals);
        raise("-USR1");
        select! { reactor; recv(signals) -> signal => assert_eq!(signal, Signal::USER1) }
        raise("-USR2");
        raise("-USR1");
        let mut both = Vec::new();
        for _ in 0..2 {
            select! { reactor; recv(signals) -> signal => both.push(signal) }
        }
        both.sort();
        assert_eq!(both, [Signal::USER1, Signal::USER2]);
    }
}

fn signals_do_not_affect_waits_or_wake_ups(new: New) {
    alone!();
    let reactor = new();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let _storm = Storm::begin();
    let timer = reactor.timer();
    while storm::signals() < 20 {
        timer.reset(ms(5));
        let due = timer.deadline().unwrap();
        select! { reactor;
            recv(timer) -> t => assert_eq!(t, due),
            recv(inbox) -> _ => unreachable!(),
        }
        assert!(Time::now() >= due);
    }
    let _sender = support::aside(move || {
        for n in 0..150 {
            // The receiver sleeps at times, and is interrupted.
            thread::sleep(Duration::from_micros(n % 7 * 100));
            tx.send(n).unwrap();
        }
    });
    for n in 0..150 {
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
    }
}

fn a_childs_exit_is_reported(new: New) {
    let reactor = new();
    let mut child =
        spawn(Command::new("sh").args(["-c", "read line; exit 7"]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let child = reactor.register(child).unwrap();
    assert_quiet(&reactor, &child);
    stdin.write_all(b"go\n").unwrap();
    select! { reactor; recv(child) -> status => assert_eq!(status.unwrap().code(), Some(7)) }
    assert_quiet(&reactor, &child);
}

fn one_select_serves_every_kind_of_source(new: New) {
    let reactor = new();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (mut theirs, mut ours) = pair(&reactor, Interest::READABLE, Mode::Edge);
    let (timer, kernel) = (reactor.timer(), os_timer(&reactor));
    let (notifier, notified) = reactor.notifier();
    let other = thread::spawn(move || {
        let mut random = Random::new(5);
        for n in 0..200 {
            tx.send(n).unwrap();
            theirs.write_all(b"x").unwrap();
            notifier.notify();
            random.pause();
        }
        (tx, theirs)
    });
    timer.reset(Duration::from_micros(100));
    kernel.reset(Duration::from_micros(100)).unwrap();
    let (mut messages, mut bytes, mut fired, mut fired_kernel, mut notified_count) =
        (0, 0, 0, 0, 0);
    while messages < 200 || bytes < 200 || fired < 20 || fired_kernel < 20 || notified_count == 0 {
        select! { reactor;
            recv(inbox) -> got => { assert_eq!(got, Ok(messages)); messages += 1; }
            recv(ours) -> _ => bytes += drain(&mut ours),
            recv(notified) -> () => notified_count += 1,
            recv(timer) -> _ => { fired += 1; timer.reset(Duration::from_micros(150)); }
            recv(kernel) -> _ => {
                fired_kernel += 1;
                kernel.reset(Duration::from_micros(150)).unwrap();
            }
        }
    }
    assert_eq!(bytes, 200);
    drop(other.join().unwrap());
}

// ---- A driver's own events, without another crate's poller.

/// A hook whose waits find the numbers one by one.
struct Counting {
    queue: ForeignQueue<u32>,
    next: u32,
    owns: bool,
}

impl Hooks<Sim> for Counting {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if waiting.blocks() && self.queue.is_empty() {
            self.queue.push(self.next, waiting.ready);
            self.next += 1;
            return Ok(());
        }
        waiting.by(sim)
    }

    fn has_events(&self, _: &Sim, events: EventsId) -> bool {
        self.owns && events == self.queue.id()
    }
}

fn counting(owns: bool) -> (Reactor, [ForeignEvents<u32>; 2]) {
    let queue = ForeignQueue::with_capacity(1);
    let events = [queue.events(), queue.events()];
    let driver = Hooked(Sim::new(), Counting { queue, next: 0, owns });
    (Reactor::with_driver(driver).unwrap(), events)
}

#[test]
fn a_drivers_own_events_are_a_source() {
    let (reactor, [events, _]) = counting(true);
    let events = reactor.register(events).unwrap();
    let timer = reactor.after(HOUR);
    for n in 0..5 {
        select! { reactor;
            recv(events) -> event => assert_eq!(event, n),
            recv(timer) -> _ => panic!(),
        }
    }
    // An event that is not taken does not keep the loop from its other sources.
    select! { reactor; recv(timer) -> _ => {} }
    assert_eq!(events.try_iter().collect::<Vec<_>>(), [5]);
}

#[test]
fn events_are_kept_only_for_existing_sources() {
    let (queue, mut ready) = (ForeignQueue::with_capacity(4), ReadyFds::new());
    queue.push(1, &mut ready);
    assert!(queue.is_empty(), "kept an event without a source");
    let (events, others) = (queue.events(), queue.events());
    queue.push(2, &mut ready);
    drop(others);
    assert!(
        !queue.is_empty() && ready.is_empty(),
        "events for an unregistered source must be kept"
    );
    drop(events);
    assert!(queue.is_empty());
}

#[test]
fn events_have_one_registration_at_a_time() {
    let (reactor, [events, others]) = counting(true);
    let inbox = reactor.register(events).unwrap();
    let refused = reactor.register(others).unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::AlreadyExists);
    drop(inbox);
    let inbox = reactor.register(refused.into_inner()).unwrap();
    select! { reactor; recv(inbox) -> event => assert_eq!(event, 0) }
}

#[test]
fn events_of_another_driver_are_refused() {
    let (_reactor, [mut events, _]) = counting(true);
    for other in [counting(false).0, counting(true).0, native(), custom()] {
        let refused = other.register(events).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("another driver"), "{refused}");
        assert_eq!(other.stats().live, 0);
        events = refused.into_inner();
    }
}
