//! Checks a reactor inside another loop, here a bare poller. The reactor's fd is readable exactly
//! when a turn has work to do.

// Where no kqueue can be waited for (build.rs), embedding does not exist.
#![cfg(not(flat))]

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{RecvError, Sender, TryRecvError};
use pollmux::sys::{Interest, Mode, PollEvents, Poller};
use pollmux::{
    CallbackContext, Embedded, Events, Fd, Handle, Reactor, Signal, Sim, Source, Time, select,
};
use support::{HOUR, Random, allow_fds, alone, ms, no_new_processes, thread, watchdog};

const MODES: [Mode; 2] = [Mode::Level, Mode::Edge];

/// The outer loop.
struct Outer {
    poller: Poller,
    events: PollEvents,
    /// The number of waits that ended with an event.
    wake_ups: u64,
}

impl Outer {
    fn around(fd: impl AsFd, mode: Mode) -> Outer {
        let outer = Outer {
            poller: Poller::new().unwrap(),
            events: PollEvents::with_capacity(8),
            wake_ups: 0,
        };
        outer.poller.register(fd, 0, Interest::READABLE, mode).unwrap();
        outer
    }

    /// Sleeps until the fd is readable. If the fd never becomes readable, the watchdog ends the
    /// test.
    fn sleep(&mut self) {
        while let Err(error) = self.poller.wait(&mut self.events, None) {
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        }
        assert_eq!(self.events.len(), 1);
        self.wake_ups += 1;
    }

    /// Returns true if a wait would return now. In edge mode this call consumes the edge.
    fn is_readable(&mut self) -> bool {
        self.poller.wait(&mut self.events, Some(Duration::ZERO)).unwrap();
        let up = !self.events.is_empty();
        self.wake_ups += u64::from(up);
        up
    }

    /// Returns true if the fd does not become readable within `d`.
    fn is_quiet_for(&mut self, d: Duration) -> bool {
        self.poller.wait(&mut self.events, Some(d)).unwrap();
        self.wake_ups += u64::from(!self.events.is_empty());
        self.events.is_empty()
    }
}

/// Turns until a turn finds nothing and the fd is quiet, as an outer loop does in the end.
#[track_caller]
fn settle(outer: &mut Outer, inner: &Embedded) {
    for _ in 0..4 {
        let found = inner.turn().unwrap();
        if found == 0 && !outer.is_readable() {
            return;
        }
    }
    panic!("the fd stays readable although no work is left");
}

/// Sleeps and turns until the condition holds.
fn turns_until(outer: &mut Outer, inner: &Embedded, holds: impl Fn() -> bool) {
    while !holds() {
        outer.sleep();
        inner.turn().unwrap();
    }
}

fn embedded(mode: Mode) -> (Reactor, Embedded, Outer) {
    embedded_on(support::reactor(), mode)
}

fn embedded_on(reactor: Reactor, mode: Mode) -> (Reactor, Embedded, Outer) {
    let inner = reactor.embed().unwrap();
    let outer = Outer::around(&inner, mode);
    (reactor, inner, outer)
}

#[test]
fn an_idle_reactors_fd_is_not_readable() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (_tx, inbox) = reactor.channel::<u8>(1).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        // The fd must stay quiet for some real time.
        assert!(outer.is_quiet_for(ms(30)));
        for _ in 0..10 {
            assert_eq!(inner.turn().unwrap(), 0);
            assert!(!outer.is_readable(), "{mode:?}: the fd is readable after an empty turn");
        }
        assert!(inbox.is_empty() && !timer.is_ready());
    }
}

/// A reactor with fds polls every 100 µs between turns. An idle poll needs no turn.
#[test]
fn an_idle_poll_between_turns_requests_no_turn() {
    support::exact("counts syscalls");
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let ours = reactor.fd_nonblocking(ours, Interest::READABLE).unwrap();
        let (tx, inbox) = reactor.channel(1).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        for _ in 0..5 {
            thread::sleep(ms(1)); // longer than a poll interval, so the select polls
            let before = reactor.stats();
            select! { reactor;
                recv(ours) -> _ => panic!(),
                recv(inbox) -> _ => panic!(),
                recv(timer) -> _ => panic!(),
                default => {}
            }
            let during = reactor.stats() - before;
            assert_eq!((during.polls, during.wakes, during.arms), (1, 0, 0), "{during}");
            assert!(!outer.is_readable(), "{mode:?}: an idle poll requested a turn");
        }
        // A poll that finds an event, or consumes the outer loop's event, requests a turn.
        theirs.write_all(b"x").unwrap();
        thread::sleep(ms(1));
        assert!(inbox.try_recv().is_err() && reactor.try_recv(&timer).unwrap().is_none());
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
        ours.clear_readiness(pollmux::sys::Readiness::ALL);
        settle(&mut outer, &inner);
        timer.reset(ms(2));
        settle_unless_due(&mut outer, &inner, timer.deadline().unwrap());
        thread::sleep(ms(3));
        while !timer.is_ready() {
            assert!(reactor.try_recv(&ours).unwrap().is_none());
        }
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
        timer.reset(ms(2));
        settle_unless_due(&mut outer, &inner, timer.deadline().unwrap());
        timer.reset(HOUR);
        thread::sleep(ms(3)); // lets the stale deadline pass
        assert!(reactor.try_recv(&ours).unwrap().is_none());
        timer.reset(ms(2));
        outer.sleep();
        inner.turn().unwrap();
        turns_until(&mut outer, &inner, || timer.is_ready());
        timer.reset(HOUR);
        settle(&mut outer, &inner);
        tx.send(()).unwrap();
        thread::sleep(ms(1));
        assert!(reactor.try_recv(&ours).unwrap().is_none());
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
    }
}

#[test]
fn another_threads_message_makes_the_fd_readable() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        settle(&mut outer, &inner);
        let _sender = support::later(ms(5), move || tx.send(7).unwrap());
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Ok(7)),
            default => panic!("{mode:?}: no message"),
        }
    }
}

#[test]
fn the_same_threads_message_makes_the_fd_readable() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        settle(&mut outer, &inner);
        for n in 0..100 {
            assert!(!outer.is_readable());
            tx.send(n).unwrap();
            assert!(outer.is_readable(), "{mode:?}, message {n}");
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!(inbox.try_recv(), Ok(n));
            settle(&mut outer, &inner);
        }
        // A disconnection makes the fd readable, too.
        drop(tx);
        assert!(outer.is_readable());
        assert_eq!(inner.turn().unwrap(), 1);
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
        settle(&mut outer, &inner);
    }
}

#[test]
fn messages_sent_before_the_embedding_are_found() {
    for mode in MODES {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(4).unwrap();
        let due = reactor.after(Duration::ZERO);
        tx.send(1).unwrap();
        let inner = reactor.embed().unwrap();
        // The fd joins the outer loop only now, and must still be readable.
        let mut outer = Outer::around(&inner, mode);
        assert!(outer.is_readable(), "{mode:?}");
        assert_eq!(inner.turn().unwrap(), 2);
        assert_eq!(inbox.try_recv(), Ok(1));
        assert!(due.try_take().is_some());
        settle(&mut outer, &inner);
    }
}

#[test]
fn registering_a_nonempty_receiver_makes_the_fd_readable() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        settle(&mut outer, &inner);
        let (tx, rx) = pollmux::channel::bounded(2);
        tx.send(1).unwrap();
        let inbox = reactor.register(rx).unwrap();
        assert!(outer.is_readable(), "{mode:?}");
        assert_eq!(inner.turn().unwrap(), 1);
        assert_eq!(inbox.try_recv(), Ok(1));
        settle(&mut outer, &inner);
        // An empty receiver makes the fd readable when a message comes.
        let (ty, rx) = pollmux::channel::bounded(2);
        let other = reactor.register(rx).unwrap();
        assert!(!outer.is_readable());
        ty.send(2).unwrap();
        assert!(outer.is_readable());
        inner.turn().unwrap();
        assert_eq!(other.try_recv(), Ok(2));
    }
}

#[test]
fn a_timer_makes_the_fd_readable_when_due() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.timer();
        // This test needs real time, because the kernel's timer makes the fd readable.
        for delay in [1, 3, 12].map(ms) {
            settle(&mut outer, &inner);
            timer.reset(delay);
            let due = timer.deadline().unwrap();
            assert!(outer.is_readable(), "the reset requested no turn to arm the timer");
            // A late turn finds the timer due, and makes the fd readable as the kernel's timer
            // would.
            assert!(
                inner.turn().unwrap() == 0 || Time::now() >= due,
                "{mode:?}: the timer fired early for {delay:?}"
            );
            outer.sleep();
            assert!(Time::now() >= due, "{mode:?}: the fd is readable early for {delay:?}");
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!(timer.try_take(), Some(due));
        }
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(10)));
    }
}

#[test]
fn a_due_timer_makes_the_fd_readable_immediately() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        settle(&mut outer, &inner);
        for past in [false, true] {
            let timer = if past { reactor.at(Time::ZERO) } else { reactor.after(Duration::ZERO) };
            assert!(outer.is_readable(), "{mode:?}");
            assert_eq!(inner.turn().unwrap(), 1);
            select! { reactor; recv(timer) -> _ => {}, default => panic!() }
            settle(&mut outer, &inner);
        }
    }
}

#[test]
fn each_tick_makes_the_fd_readable() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let ticker = reactor.every(ms(2)).unwrap();
        let first = ticker.deadline().unwrap();
        let (mut ticks, mut periods) = (0, 0);
        while ticks < 15 {
            outer.sleep();
            inner.turn().unwrap();
            select! { reactor;
                recv(ticker) -> tick => {
                    assert!(Time::now() >= tick.scheduled);
                    assert_eq!(tick.scheduled, first + ms(2) * periods);
                    periods += 1 + tick.missed as u32;
                    ticks += 1;
                }
                default => {}
            }
        }
        assert!(outer.wake_ups <= 3 * ticks + 5, "{} wake-ups for {ticks} ticks", outer.wake_ups);
    }
}

#[test]
fn earlier_deadlines_between_turns_fire_on_time() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        for round in 0..5 {
            // Even rounds reset the timer, and odd rounds make a new timer.
            let new = (round % 2 == 1).then(|| reactor.after(ms(5)));
            if new.is_none() {
                assert!(timer.reset(ms(5)));
            }
            let timer = new.as_ref().unwrap_or(&timer);
            let due = timer.deadline().unwrap();
            // Without a wake-up the outer loop would sleep for an hour, and the watchdog would end
            // the test.
            turns_until(&mut outer, &inner, || timer.is_ready());
            assert!(Time::now() >= due);
            assert_eq!(timer.try_take(), Some(due));
            timer.reset(HOUR);
            settle(&mut outer, &inner);
        }
    }
}

#[test]
fn later_deadlines_between_turns_cost_no_syscall() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(HOUR);
        let ticker = reactor.every(HOUR).unwrap();
        settle(&mut outer, &inner);
        let before = reactor.stats();
        for n in 0..100 {
            assert!(timer.reset(HOUR + ms(n)));
            assert!(ticker.restart());
            assert!(!outer.is_readable(), "{mode:?}: a later deadline requested a turn");
        }
        assert_eq!((reactor.stats() - before).syscalls(), 0);
        assert_eq!(inner.turn().unwrap(), 0);
        let during = reactor.stats() - before;
        assert_eq!((during.polls, during.syscalls()), (1, 1), "{during}");
        assert!(!outer.is_readable());
    }
}

#[test]
fn a_stale_deadline_costs_one_turn() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(ms(4));
        settle_unless_due(&mut outer, &inner, timer.deadline().unwrap());
        assert!(timer.reset(ms(40)));
        let due = timer.deadline().unwrap();
        let wake_ups = outer.wake_ups;
        turns_until(&mut outer, &inner, || timer.is_ready());
        assert!(Time::now() >= due);
        // The stale deadline and the true deadline cost a wake-up each. A turn that arms may cost a
        // third.
        assert!(outer.wake_ups - wake_ups <= 3, "{mode:?}: {} wake-ups", outer.wake_ups - wake_ups);
    }
}

#[test]
fn many_earlier_deadlines_cost_one_arm() {
    support::exact("counts syscalls");
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        let before = reactor.stats();
        for n in 1..50u32 {
            timer.reset(HOUR - ms(60_000) * n);
        }
        assert!(outer.is_readable());
        assert_eq!(inner.turn().unwrap(), 0);
        assert!(!outer.is_readable(), "{mode:?}: the fd is readable after the turn");
        assert_eq!(inner.turn().unwrap(), 0);
        let during = reactor.stats() - before;
        assert_eq!(
            (during.wakes, during.arms, during.polls, during.waits),
            (1, 1, 2, 0),
            "{during}"
        );
    }
}

#[test]
fn unreceived_messages_keep_the_fd_readable() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(8).unwrap();
        let timer = reactor.timer();
        settle(&mut outer, &inner);
        (0..5).for_each(|n| tx.send(n).unwrap());
        timer.reset(Duration::ZERO);
        for n in 0..5 {
            assert!(outer.is_readable(), "{mode:?}, message {n}");
            assert_eq!(inner.turn().unwrap(), 2, "the inbox with its messages, and the timer");
            // Receives a single message in each turn.
            assert_eq!(inbox.try_recv(), Ok(n));
        }
        assert!(outer.is_readable());
        assert_eq!(inner.turn().unwrap(), 1, "only the timer is ready");
        assert!(outer.is_readable());
        // Stopping the timer, instead of taking its value, is enough.
        assert!(timer.stop());
        settle(&mut outer, &inner);
    }
}

#[test]
fn the_fd_stays_readable_until_all_timers_fire() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timers: Vec<_> = (0..2_000).map(|_| reactor.after(Duration::ZERO)).collect();
        let mut fired = 0;
        while fired < timers.len() {
            assert!(outer.is_readable(), "{mode:?}: {fired} have fired");
            inner.turn().unwrap();
            fired += timers.iter().filter(|timer| timer.try_take().is_some()).count();
        }
        settle(&mut outer, &inner);
    }
}

#[test]
fn stopped_timers_do_not_keep_the_fd_readable() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timers: Vec<_> = (0..2_000).map(|n| reactor.after(ms(n % 3))).collect();
        timers.iter().for_each(|timer| assert!(timer.stop()));
        // Each turn removes a bounded number of stopped timers.
        let mut turns = 0;
        loop {
            turns += 1;
            assert_eq!(inner.turn().unwrap(), 0);
            if !outer.is_readable() && outer.is_quiet_for(ms(5)) {
                break;
            }
            assert!(turns < 100, "{mode:?}: the fd stays readable although no work is left");
        }
        drop(timers);
    }
}

fn send_with_pauses(tx: &Sender<u64>, seed: u64, messages: u64) {
    let mut random = Random::new(seed);
    for n in 0..messages {
        tx.send(n).unwrap();
        random.pause();
    }
}

#[test]
fn another_threads_messages_arrive_once_each() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        let rounds = 4_000;
        let sender = thread::spawn(move || send_with_pauses(&tx, 3, rounds));
        let (mut next, mut turns, mut random) = (0, 0, Random::new(4));
        'outer: loop {
            outer.sleep();
            inner.turn().unwrap();
            turns += 1;
            // Receives no message, a single message, or all messages. The next turn must report the
            // rest.
            let take = [0, 1, usize::MAX][random.below(8).min(2) as usize];
            for _ in 0..take {
                match inbox.try_recv() {
                    Ok(n) => {
                        assert_eq!(n, next);
                        next += 1;
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => break 'outer,
                }
            }
        }
        assert_eq!(next, rounds);
        sender.join().unwrap();
        // A message makes the fd readable, and so does a turn that finds a message. A turn that
        // finds nothing does not. A quarter of the turns receive too few messages.
        assert!(
            outer.wake_ups <= 3 * rounds + 10,
            "{mode:?}: {} wake-ups in {turns} turns for {rounds} messages",
            outer.wake_ups
        );
    }
}

#[test]
fn messages_received_by_select_arrive_once_each() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        let ticker = reactor.every(ms(1)).unwrap();
        let rounds = 3_000;
        let _sender = support::aside(move || send_with_pauses(&tx, 3, rounds));
        let mut next = 0;
        'outer: loop {
            outer.sleep();
            inner.turn().unwrap();
            loop {
                select! { reactor;
                    recv(inbox) -> got => match got {
                        Ok(n) => { assert_eq!(n, next); next += 1; }
                        Err(RecvError) => break 'outer,
                    },
                    recv(ticker) -> tick => {
                        assert!(tick.scheduled <= Time::now());
                        // The ticker does not run in the second half, so that a lost wake-up shows.
                        if next > rounds / 2 { ticker.stop(); }
                    }
                    default => break,
                }
            }
        }
        assert_eq!(next, rounds);
    }
}

#[test]
fn one_outer_loop_can_drive_two_reactors() {
    let _watchdog = watchdog();
    for mode in MODES {
        let reactors = [support::reactor(), support::reactor()];
        let inners = [reactors[0].embed().unwrap(), reactors[1].embed().unwrap()];
        let outer = Poller::new().unwrap();
        outer.register(&inners[0], 0, Interest::READABLE, mode).unwrap();
        outer.register(&inners[1], 1, Interest::READABLE, mode).unwrap();
        let (to_first, first) = reactors[0].channel(1).unwrap();
        let (to_second, second) = reactors[1].channel(1).unwrap();
        let inboxes = [first, second];
        let senders = [to_first, to_second];
        let far = [reactors[0].after(HOUR), reactors[1].after(HOUR)];
        // The two reactors send a counter to each other.
        senders[0].send(0).unwrap();
        let mut events = PollEvents::with_capacity(2);
        let mut hops = 0;
        while hops < 2_000 {
            outer.wait(&mut events, None).unwrap();
            for event in events.iter() {
                let n = event.id() as usize;
                inners[n].turn().unwrap();
                if let Ok(got) = inboxes[n].try_recv() {
                    assert_eq!((got, got % 2), (hops, n));
                    hops += 1;
                    senders[1 - n].try_send(hops).unwrap();
                }
            }
        }
        assert!(far.iter().all(|timer| !timer.is_ready()));
    }
}

#[test]
fn three_nested_pollers_lose_no_event() {
    let _watchdog = watchdog();
    for mode in MODES {
        for outermost in MODES {
            let (reactor, inner, mut middle) = embedded(mode);
            let top = Poller::new().unwrap();
            top.register(&middle.poller, 0, Interest::READABLE, outermost).unwrap();
            let (tx, inbox) = reactor.channel(2).unwrap();
            let timer = reactor.timer();
            let sender = thread::spawn(move || {
                send_with_pauses(&tx, 9, 500);
                tx
            });
            let mut events = PollEvents::with_capacity(2);
            let (mut next, mut fired) = (0, 0);
            while next < 500 || fired < 20 {
                top.wait(&mut events, None).unwrap();
                while middle.is_readable() {
                    inner.turn().unwrap();
                    for n in inbox.try_iter() {
                        assert_eq!(n, next);
                        next += 1;
                    }
                    fired += u64::from(timer.try_take().is_some());
                    if timer.deadline().is_none() {
                        timer.reset(Duration::from_micros(300));
                    }
                }
            }
            drop(sender.join().unwrap());
        }
    }
}

#[test]
fn blocking_waits_take_no_outer_loop_event() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        let (ty, other) = reactor.channel(4).unwrap();
        let (short, long) = (reactor.timer(), reactor.timer());
        let mut events = Events::with_capacity(4);
        for round in 0..20 {
            settle(&mut outer, &inner);
            // Each wait sleeps, and consumes wake-ups and the kernel timer's event.
            short.reset(ms(1));
            long.reset(ms(4));
            let due = long.deadline().unwrap();
            match round % 3 {
                0 => {
                    select! { reactor; recv(short) -> _ => {}, recv(inbox) -> _ => unreachable!() }
                }
                1 => {
                    reactor.wait(&mut events).unwrap();
                    assert!(short.try_take().is_some());
                }
                _ => {
                    select! { reactor; recv(inbox) -> _ => unreachable!(), default(ms(2)) => {} }
                    // On a slow machine the select may have found the timer expired, and the timer
                    // stays ready.
                    short.stop();
                }
            }
            // Afterwards both channels and the deadline must still wake the outer loop.
            for n in 0..3 {
                tx.send(n).unwrap();
                while inbox.is_empty() || inbox.try_recv().is_err() {
                    outer.sleep();
                    inner.turn().unwrap();
                }
                settle_unless_due(&mut outer, &inner, due);
                ty.send(n).unwrap();
                outer.sleep();
                inner.turn().unwrap();
                assert_eq!(other.try_recv(), Ok(n));
                settle_unless_due(&mut outer, &inner, due);
            }
            turns_until(&mut outer, &inner, || long.is_ready());
            assert!(Time::now() >= due);
            assert_eq!(long.try_take(), Some(due));
        }
    }
}

/// Does the same as [`settle`], but a timer may become due meanwhile.
fn settle_unless_due(outer: &mut Outer, inner: &Embedded, due: Time) {
    for _ in 0..4 {
        let found = inner.turn().unwrap();
        if Time::now() >= due || (found == 0 && !outer.is_readable()) {
            return;
        }
    }
    // The last poll may have consumed the timer's edge, which needs a turn.
    inner.turn().unwrap();
    assert!(Time::now() >= due, "the fd stays readable although no work is left");
}

#[test]
fn turns_make_few_syscalls_and_count_them() {
    support::exact("counts syscalls");
    let (reactor, inner, mut outer) = embedded(Mode::Level);
    let (tx, inbox) = reactor.channel(4).unwrap();
    let timer = reactor.after(HOUR);
    settle(&mut outer, &inner);
    let mut last = reactor.stats();
    let mut spent = || {
        let now = reactor.stats();
        let spent = now - last;
        last = now;
        (spent.polls, spent.arms, spent.waits, spent.wakes)
    };
    // A turn without work polls once.
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 0));
    // A message costs a wake-up, and its turn a poll.
    tx.send(1).unwrap();
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 1));
    // The first turn found the message and left it, so its fd became readable by another write.
    assert_eq!(inbox.try_recv(), Ok(1));
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 1));
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 0));
    // A later deadline costs no syscall. An earlier deadline costs a wake-up and an arm.
    timer.reset(HOUR * 2);
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 0));
    timer.reset(HOUR / 2);
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 1, 0, 1));
    assert!(!outer.is_readable());
}

#[test]
fn embedding_twice_at_once_is_an_error() {
    let (reactor, inner, _outer) = embedded(Mode::Level);
    let error = reactor.embed().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("embedded already"), "{error}");
    drop(inner);
    let inner = reactor.embed().unwrap();
    let mut outer = Outer::around(&inner, Mode::Edge);
    let (tx, inbox) = reactor.channel(1).unwrap();
    settle(&mut outer, &inner);
    tx.send(1).unwrap();
    assert!(outer.is_readable());
    inner.turn().unwrap();
    assert_eq!(inbox.try_recv(), Ok(1));
    assert!(inner.handle().is_same(&reactor));
}

#[test]
fn virtual_time_cannot_be_embedded() {
    let reactor = support::on(Sim::new());
    for _ in 0..2 {
        assert_eq!(reactor.embed().unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
    let timer = reactor.after(HOUR);
    select! { reactor; recv(timer) -> _ => {} }
}

#[test]
fn a_reactor_works_after_its_embedding_ends() {
    let _watchdog = watchdog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(2).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        outer.poller.deregister(&inner).unwrap();
        drop(inner);
        // The reactor blocks by itself again. Messages wake the reactor, and so does a deadline
        // that is earlier than the last turn's.
        let sender = thread::spawn(move || {
            for n in 0..200 {
                tx.send(n).unwrap();
                if n % 10 == 0 {
                    thread::sleep(Duration::from_micros(200)); // gives the reactor time to sleep
                }
            }
        });
        for n in 0..200 {
            select! { reactor;
                recv(inbox) -> got => assert_eq!(got, Ok(n)),
                recv(timer) -> _ => unreachable!(),
            }
        }
        sender.join().unwrap();
        timer.reset(ms(2));
        let due = timer.deadline().unwrap();
        select! { reactor; recv(timer) -> t => assert_eq!(t, due) }
        assert!(Time::now() >= due);
        let before = reactor.stats();
        timer.reset(HOUR);
        assert_eq!((reactor.stats() - before).syscalls(), 0);
    }
}

#[test]
fn turns_of_a_dropped_reactor_are_errors() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(2).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        drop(reactor);
        for _ in 0..2 {
            let error = inner.turn().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            assert!(error.to_string().contains("dropped"), "{error}");
        }
        assert!(inner.handle().is_closed());
        // The remaining handles are inert.
        assert!(!timer.reset(Duration::ZERO));
        tx.send(1).unwrap();
        assert_eq!(inbox.try_recv(), Ok(1));
        outer.poller.deregister(&inner).unwrap();
    }
}

#[test]
fn a_strict_deadline_overrides_an_armed_relaxed_deadline() {
    let _watchdog = watchdog();
    for mode in MODES {
        let reactor = support::build(Reactor::builder().slack(HOUR));
        let (reactor, inner, mut outer) = embedded_on(reactor, mode);
        let relaxed = reactor.after(ms(1));
        settle_unless_due(&mut outer, &inner, relaxed.deadline().unwrap());
        // The kernel's timer is armed for the end of the hour.
        let strict = reactor.after(ms(2)).slack(Duration::ZERO);
        assert!(outer.is_readable(), "{mode:?}: the strict deadline requested no turn");
        while !strict.is_ready() {
            inner.turn().unwrap();
            outer.sleep();
        }
        assert!(relaxed.is_ready());
    }
}

#[test]
fn blocking_waits_on_an_embedded_reactor_sleep() {
    let (reactor, inner, mut outer) = embedded(Mode::Level);
    settle(&mut outer, &inner);
    let mut events = Events::with_capacity(4);
    for round in 0..3 {
        let (timer, before) = (reactor.after(ms(10)), reactor.stats());
        // The reactor makes its own fd readable, which must not end the sleep.
        match round {
            0 => select! { reactor; recv(timer) -> _ => {} },
            1 => reactor.wait(&mut events).unwrap(),
            _ => reactor.sleep_blocking(ms(10)).unwrap(),
        }
        let during = reactor.stats() - before;
        assert!(during.waits <= 5, "the wait spins: {during}");
        assert!(outer.is_readable(), "the wait requested no turn");
    }
}

#[test]
fn an_unused_embedding_counts_no_wake_up() {
    let (reactor, inner, mut outer) = embedded(Mode::Level);
    settle(&mut outer, &inner);
    assert_eq!(reactor.stats().wakes, 0);
}

// Callbacks, requests of other threads, fds and kernel timers, on every driver that can be
// embedded.

#[cfg(feature = "mio")]
fn on_mio() -> Reactor {
    let driver = pollmux::driver::MioDriver::new(mio::Poll::new().unwrap(), mio::Token(0)).unwrap();
    Reactor::with_driver(driver).unwrap()
}

#[cfg(feature = "polling")]
fn on_polling() -> Reactor {
    Reactor::with_driver(
        pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), 0).unwrap(),
    )
    .unwrap()
}

const DRIVERS: &[fn() -> Reactor] = &[
    support::reactor,
    #[cfg(feature = "mio")]
    on_mio,
    #[cfg(feature = "polling")]
    on_polling,
];

/// Runs a test with each driver, in each mode of the outer poller.
fn on_every_driver(test: impl Fn(Reactor, Embedded, Outer)) {
    let _watchdog = watchdog();
    for new in DRIVERS {
        for mode in MODES {
            let (reactor, inner, outer) = embedded_on(new(), mode);
            test(reactor, inner, outer);
        }
    }
}

fn pair(reactor: &Reactor, mode: Mode) -> (UnixStream, Fd<UnixStream>) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (theirs, reactor.fd_with_mode(ours, Interest::READABLE, mode).unwrap())
}

fn drain(fd: &mut Fd<UnixStream>) -> usize {
    let mut buffer = [0; 64];
    std::iter::from_fn(|| fd.read(&mut buffer).ok().filter(|&n| n > 0)).sum()
}

#[test]
fn an_embedded_turn_runs_due_callbacks() {
    on_every_driver(|reactor, inner, mut outer| {
        let calls = Rc::new(Cell::new(0));
        let counter = calls.clone();
        let callback = reactor.call_after(ms(2), move |_| counter.set(counter.get() + 1));
        for n in 1..=3 {
            settle(&mut outer, &inner);
            while calls.get() < n {
                outer.sleep();
                assert_eq!(inner.turn().unwrap(), 0, "the turn counted a callback as a source");
            }
            settle(&mut outer, &inner);
            assert!(outer.is_quiet_for(ms(3)));
            assert_eq!(calls.get(), n);
            callback.reset(ms(1));
            assert!(outer.is_readable(), "the reset requested no turn to arm the callback");
        }
    });
}

#[test]
fn callbacks_re_armed_to_zero_request_turns() {
    on_every_driver(|reactor, inner, mut outer| {
        let calls = Rc::new(Cell::new(0));
        let counter = calls.clone();
        let again = move |cx: &CallbackContext<'_>| {
            counter.set(counter.get() + 1);
            if counter.get() < 5 {
                cx.reset(Duration::ZERO);
            }
        };
        reactor.call_after(Duration::ZERO, again).detach();
        while calls.get() < 5 {
            outer.sleep(); // the kernel's timer may make the fd readable a little later
            inner.turn().unwrap();
        }
        settle(&mut outer, &inner);
    });
}

#[test]
fn a_request_from_another_thread_wakes_once() {
    on_every_driver(|reactor, inner, mut outer| {
        let (remote, timer) = (reactor.remote(), reactor.timer());
        let (notifier, notified) = reactor.notifier();
        let id = timer.id();
        let on_another_thread = |f: &(dyn Fn() + Sync)| {
            thread::scope(|scope| scope.spawn(f).join().unwrap());
        };
        let called = Cell::new(reactor.stats().called);
        for _ in 0..20 {
            settle(&mut outer, &inner);
            let before = reactor.stats();
            on_another_thread(&|| (0..3).for_each(|_| remote.post(|_: &Handle| {}).unwrap()));
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 0);
            assert_eq!(reactor.stats().called, called.get() + 3);
            called.set(called.get() + 3);
            assert!(!outer.is_readable());
            assert_eq!((reactor.stats() - before).wakes, 1);

            on_another_thread(&|| remote.wake());
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 0);
            assert!(!outer.is_readable());

            on_another_thread(&|| remote.reset(id, Duration::ZERO).unwrap());
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 0);
            // The posted reset armed the timer. The next turn finds the timer due.
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 1);
            on_another_thread(&|| remote.stop(id).unwrap());
            assert!(outer.is_readable());
            inner.turn().unwrap();
            assert!(!timer.is_ready());
            settle(&mut outer, &inner);

            on_another_thread(&|| (0..3).for_each(|_| notifier.notify()));
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!((notified.try_take(), notified.try_take()), (Some(()), None));
        }
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(2)));
    });
}

#[test]
fn a_ready_fd_makes_the_embedded_fd_readable() {
    on_every_driver(|reactor, inner, mut outer| {
        for mode in [Mode::Edge, Mode::Level] {
            let (mut theirs, mut ours) = pair(&reactor, mode);
            for round in 0..20 {
                settle(&mut outer, &inner);
                theirs.write_all(b"some").unwrap();
                assert!(outer.is_readable());
                assert_eq!(inner.turn().unwrap(), 1);
                if round % 2 == 0 {
                    // No event was taken, so the turn has made the embedded fd readable again.
                    assert!(outer.is_readable());
                    assert_eq!(inner.turn().unwrap(), 1);
                }
                if mode == Mode::Level {
                    // Reads some bytes, and makes no read that would fail. The poller reports the
                    // fd again.
                    assert!(ours.try_take().is_some());
                    assert_eq!(ours.read(&mut [0]).unwrap(), 1);
                    assert!(outer.is_readable());
                    assert_eq!(inner.turn().unwrap(), 1);
                }
                select! { reactor;
                    recv(ours) -> _ => assert!(drain(&mut ours) >= 3),
                    default => panic!(),
                }
            }
            settle(&mut outer, &inner);
            assert!(outer.is_quiet_for(ms(2)));
            // A dropped socket may stay open in a child process of another test.
            theirs.shutdown(Shutdown::Both).unwrap();
            assert!(outer.is_readable(), "the end of the stream made nothing readable");
            assert_eq!(inner.turn().unwrap(), 1);
            drop(ours);
            settle(&mut outer, &inner);
        }
    });
}

#[test]
fn polls_between_turns_take_nothing_from_outer_loops() {
    on_every_driver(|reactor, inner, mut outer| {
        let (_theirs, ours) = pair(&reactor, Mode::Edge);
        let (tx, inbox) = reactor.channel(1).unwrap();
        let timer = reactor.timer();
        for round in 0..10 {
            settle(&mut outer, &inner);
            timer.reset(ms(1));
            inner.turn().unwrap();
            settle_unless_due(&mut outer, &inner, timer.deadline().unwrap());
            tx.send(round).unwrap();
            // Sleeps for longer than a poll interval. The poller holds the message's wake-up, and
            // in odd rounds the timer's event as well.
            thread::sleep(Duration::from_micros(if round % 2 == 0 { 200 } else { 1_500 }));
            select! { reactor; recv(ours) -> _ => panic!(), default => {} }
            outer.sleep();
            assert!(inner.turn().unwrap() >= 1);
            assert_eq!(inbox.try_recv(), Ok(round));
            turns_until(&mut outer, &inner, || timer.try_take().is_some());
        }
    });
}

#[test]
fn an_os_timer_makes_the_fd_readable() {
    on_every_driver(|reactor, inner, mut outer| {
        let timer = reactor.os_timer().unwrap();
        for delay in [0, 500, 2_000, 0, 300].map(Duration::from_micros) {
            settle(&mut outer, &inner);
            timer.reset(delay).unwrap();
            let due = timer.deadline().unwrap();
            outer.sleep();
            assert!(Time::now() >= due);
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!(timer.try_take(), Some(due));
        }
        settle(&mut outer, &inner);
        timer.reset(ms(1)).unwrap();
        timer.stop().unwrap();
        assert!(outer.is_quiet_for(ms(3)));
    });
}

#[test]
fn signals_and_child_exits_make_the_fd_readable() {
    alone!();
    on_every_driver(|reactor, inner, mut outer| {
        let signals = reactor.signals(&[Signal::USER1]).unwrap();
        settle(&mut outer, &inner);
        let text = format!("kill -USR1 {}; exit 3", std::process::id());
        let child = std::process::Command::new("sh").args(["-c", &text]).spawn().unwrap();
        let child = reactor.register(child).unwrap();
        let (mut signal, mut status) = (None, None);
        while signal.is_none() || status.is_none() {
            outer.sleep();
            inner.turn().unwrap();
            signal = signal.or_else(|| signals.try_take());
            status = status.or_else(|| child.try_take());
        }
        assert_eq!((signal, status.unwrap().unwrap().code()), (Some(Signal::USER1), Some(3)));
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(2)));
    });
}

#[test]
fn interest_set_in_a_callback_takes_effect() {
    on_every_driver(|reactor, inner, mut outer| {
        let (mut theirs, ours) = pair(&reactor, Mode::Edge);
        let ours = Rc::new(ours);
        settle(&mut outer, &inner);
        for _ in 0..5 {
            let fd = ours.clone();
            reactor
                .call_after(ms(1), move |_| fd.set_interest(Interest::WRITABLE).unwrap())
                .detach();
            turns_until(&mut outer, &inner, || ours.is_ready());
            assert!(ours.readiness().is_writable());
            let fd = ours.clone();
            reactor.remote().post(|_: &Handle| {}).unwrap(); // requests a turn
            reactor
                .call_after(Duration::ZERO, move |_| fd.set_interest(Interest::READABLE).unwrap())
                .detach();
            inner.turn().unwrap();
            settle(&mut outer, &inner);
            assert!(outer.is_quiet_for(ms(1)));
            theirs.write_all(b"x").unwrap();
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 1);
            ours.try_io(|mut io| io.read(&mut [0; 4])).unwrap();
            assert!(ours.try_io(|mut io| io.read(&mut [0; 4])).is_err());
            settle(&mut outer, &inner);
        }
    });
}

#[test]
fn turns_find_more_fds_than_a_buffer_holds() {
    allow_fds(10_000);
    on_every_driver(|reactor, inner, mut outer| {
        let (_peers, fds): (Vec<_>, Vec<_>) = (0..2_000)
            .map(|_| {
                let (mut peer, fd) = support::pair();
                peer.write_all(&[1]).unwrap();
                (peer, reactor.fd(fd, Interest::READABLE).unwrap())
            })
            .unzip();
        let (mut found, mut turns) = (0, 0);
        while found < fds.len() {
            assert!(outer.is_readable(), "{found} found in {turns} turns");
            inner.turn().unwrap();
            turns += 1;
            for fd in fds.iter().filter(|fd| fd.is_ready()) {
                found += 1;
                fd.try_io(|mut io| io.read(&mut [0; 4])).unwrap();
                fd.try_io(|mut io| io.read(&mut [0; 4])).unwrap_err();
            }
        }
        assert_eq!(found, fds.len());
        assert!((2..=8).contains(&turns), "{turns}");
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(1)));
    });
}

#[test]
fn a_dropped_reactor_leaves_a_quiet_fd() {
    let _alone = no_new_processes();
    on_every_driver(|reactor, inner, mut outer| {
        let (mut theirs, ours) = pair(&reactor, Mode::Edge);
        let (tx, inbox) = reactor.channel(1).unwrap();
        let os_timer = reactor.os_timer().unwrap();
        let timer = reactor.timer();
        settle(&mut outer, &inner);
        timer.reset(ms(1));
        os_timer.reset(ms(1)).unwrap();
        inner.turn().unwrap(); // arms the kernel's timers
        drop(reactor);
        tx.send(1).unwrap();
        drop((ours, os_timer));
        let _ = theirs.write_all(b"x");
        // Consumes an edge from before the drop.
        outer.is_readable();
        assert!(outer.is_quiet_for(ms(3)));
        assert_eq!(inner.turn().unwrap_err().kind(), io::ErrorKind::NotConnected);
        drop((timer, inbox, inner));
        assert!(!outer.is_readable());
    });
}

// Nested and parallel reactors.

/// Embeds a reactor in another reactor, and that reactor in a bare poller. Three pollers are
/// nested, or four on a foreign driver.
#[test]
fn a_nested_embedded_reactor_loses_nothing() {
    let _watchdog = watchdog();
    for new in DRIVERS {
        for (mode, outermost) in MODES.into_iter().flat_map(|mode| MODES.map(|outer| (mode, outer)))
        {
            let (middle, middle_inner, mut outer) = embedded(outermost);
            let deep = new();
            let mut deep_inner =
                middle.fd_with_mode(deep.embed().unwrap(), Interest::READABLE, mode).unwrap();
            let (tx, inbox) = deep.channel(1).unwrap();
            let (ty, middle_inbox) = middle.channel(1).unwrap();
            let (mut theirs, mut ours) = pair(&deep, Mode::Edge);
            let (timer, middle_timer) = (deep.timer(), middle.timer());
            let (ask, asked) = std::sync::mpsc::channel();
            let other = thread::spawn(move || {
                for (n, kind) in asked {
                    match kind {
                        0 => tx.send(n).unwrap(),
                        1 => theirs.write_all(b"x").unwrap(),
                        _ => ty.send(n).unwrap(),
                    }
                }
                (tx, ty, theirs)
            });
            let wake_ups = outer.wake_ups;
            const ROUNDS: u32 = 400;
            for n in 0..ROUNDS {
                let kind = n % 5;
                match kind {
                    3 => drop(timer.reset(Duration::from_micros(50))),
                    4 => drop(middle_timer.reset(Duration::from_micros(50))),
                    _ => ask.send((n, kind)).unwrap(),
                }
                let mut arrived = false;
                while !arrived {
                    outer.sleep();
                    middle_inner.turn().unwrap();
                    if deep_inner.try_take().is_some() {
                        deep_inner.clear_readiness(pollmux::sys::Readiness::ALL);
                        deep_inner.get_mut().turn().unwrap();
                    }
                    arrived = match kind {
                        0 => inbox.try_recv() == Ok(n),
                        1 => drain(&mut ours) == 1,
                        2 => middle_inbox.try_recv() == Ok(n),
                        3 => timer.try_take().is_some(),
                        _ => middle_timer.try_take().is_some(),
                    };
                }
            }
            // Each of the two levels has three wake-ups: for the event, for an empty turn, and for
            // an arm.
            let woken = outer.wake_ups - wake_ups;
            assert!(
                woken <= u64::from(8 * ROUNDS),
                "{mode:?} in {outermost:?}: {woken} wake-ups in {ROUNDS} rounds"
            );
            let quiet = (0..20).any(|_| {
                middle_inner.turn().unwrap();
                if deep_inner.try_take().is_some() {
                    deep_inner.clear_readiness(pollmux::sys::Readiness::ALL);
                    deep_inner.get_mut().turn().unwrap();
                }
                outer.is_quiet_for(ms(1))
            });
            assert!(quiet, "{mode:?} in {outermost:?}: the fd stays readable");
            drop(ask);
            drop(other.join().unwrap());
        }
    }
}

#[test]
fn one_outer_loop_can_drive_fifty_reactors() {
    let _watchdog = watchdog();
    for mode in MODES {
        let poller = Poller::new().unwrap();
        let mut all: Vec<_> = (0..50)
            .map(|n| {
                let reactor = DRIVERS[n % DRIVERS.len()]();
                let inner = reactor.embed().unwrap();
                poller.register(&inner, n as u64, Interest::READABLE, mode).unwrap();
                let (tx, inbox) = reactor.channel::<usize>(1).unwrap();
                let timer = reactor.after(Duration::from_micros(100 * n as u64));
                (reactor, inner, tx, inbox, timer)
            })
            .collect();
        let mut events = PollEvents::with_capacity(16);
        let (mut fired, mut hops) = (0, 0);
        all[0].2.send(0).unwrap();
        while fired < all.len() || hops < 1_000 {
            poller.wait(&mut events, None).unwrap();
            for event in events.iter() {
                let n = event.id() as usize;
                let (_reactor, inner, _, inbox, timer) = &mut all[n];
                inner.turn().unwrap();
                fired += usize::from(timer.try_take().is_some());
                if let Ok(hop) = inbox.try_recv() {
                    assert_eq!((hop, hop * 7 % 50), (hops, n));
                    hops += 1;
                    all[hops * 7 % 50].2.send(hops).unwrap();
                }
            }
        }
    }
}

// Foreign drivers, embedded with their foreign sources.

#[cfg(feature = "mio")]
#[test]
fn a_mio_source_makes_the_fd_readable() {
    use mio::{Interest, Poll, Token, unix::pipe};
    let _watchdog = watchdog();
    for mode in MODES {
        let driver = pollmux::driver::MioDriver::new(Poll::new().unwrap(), Token(0)).unwrap();
        let (registry, events) = (driver.registry().unwrap(), driver.events());
        let reactor = Reactor::with_driver(driver).unwrap();
        let events = reactor.register(events).unwrap();
        let inner = reactor.embed().unwrap();
        let mut outer = Outer::around(&inner, mode);
        let (mut tx, mut rx) = pipe::new().unwrap();
        registry.register(&mut rx, Token(5), Interest::READABLE).unwrap();
        for _ in 0..20 {
            settle(&mut outer, &inner);
            tx.write_all(b"x").unwrap();
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 1);
            select! { reactor;
                recv(events) -> event => assert_eq!(event.token(), Token(5)),
                default => panic!(),
            }
            assert_eq!(rx.read(&mut [0; 4]).unwrap(), 1);
        }
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(2)));
    }
}

#[cfg(feature = "polling")]
#[test]
fn a_polling_source_makes_the_fd_readable() {
    let _watchdog = watchdog();
    for mode in MODES {
        let driver =
            pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), 0).unwrap();
        let (poller, events) = (driver.poller().clone(), driver.events());
        let reactor = Reactor::with_driver(driver).unwrap();
        let events = reactor.register(events).unwrap();
        let inner = reactor.embed().unwrap();
        let mut outer = Outer::around(&inner, mode);
        let (mut theirs, mut ours) = UnixStream::pair().unwrap();
        // SAFETY: `ours` is deleted from the poller below, before `ours` is closed. A panic ends
        // the test.
        #[allow(unsafe_code)]
        unsafe { poller.add(&ours, polling::Event::none(5)) }.unwrap();
        for _ in 0..20 {
            poller.modify(&ours, polling::Event::readable(5)).unwrap();
            settle(&mut outer, &inner);
            theirs.write_all(b"x").unwrap();
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 1);
            select! { reactor;
                recv(events) -> event => assert_eq!(event.key, 5),
                default => panic!(),
            }
            assert_eq!(ours.read(&mut [0; 4]).unwrap(), 1);
        }
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(2)));
        poller.delete(&ours).unwrap();
    }
}

/// The docs of `Embedded` warn about this.
#[test]
fn unreceived_ends_keep_the_fd_readable() {
    #[track_caller]
    fn stays_readable(outer: &mut Outer, inner: &Embedded) {
        for _ in 0..10 {
            assert!(outer.is_readable());
            assert_eq!(inner.turn().unwrap(), 1);
        }
    }
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (context, canceller) = pollmux::Context::background().with_cancel();
        let (done, also_done) = (reactor.done(&context), reactor.done(&context));
        settle(&mut outer, &inner);
        canceller.cancel();
        assert_eq!(inner.turn().unwrap(), 2);
        drop(also_done);
        stays_readable(&mut outer, &inner);
        // After its end was received, the source is quiet, although a `select!` receives the end
        // again.
        for _ in 0..2 {
            select! { reactor;
                recv(done) -> _ => {},
                default => panic!("the cancelled context was not found"),
            }
            settle(&mut outer, &inner);
        }
        let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
        drop(tx);
        stays_readable(&mut outer, &inner);
        drop(inbox);
        settle(&mut outer, &inner);
        let timer = reactor.after(Duration::ZERO);
        stays_readable(&mut outer, &inner);
        drop(timer);
        settle(&mut outer, &inner);
    }
}
