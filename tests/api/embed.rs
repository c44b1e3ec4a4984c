//! The reactor inside another loop, here a bare epoll: its fd is readable exactly when a turn has
//! something to do.

// Where no kqueue can be waited for (build.rs) there is nothing to test.
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
use support::{HOUR, Random, allow_fds, alone, dog, ms, no_new_processes, thread};

const MODES: [Mode; 2] = [Mode::Level, Mode::Edge];

/// Somebody else's loop.
struct Outer {
    poller: Poller,
    events: PollEvents,
    /// Waits that ended with an event.
    ups: u64,
}

impl Outer {
    fn around(fd: impl AsFd, mode: Mode) -> Outer {
        let outer =
            Outer { poller: Poller::new().unwrap(), events: PollEvents::with_capacity(8), ups: 0 };
        outer.poller.register(fd, 0, Interest::READABLE, mode).unwrap();
        outer
    }

    /// Sleeps until there is something. The watchdog notices when that never comes.
    fn sleep(&mut self) {
        while let Err(error) = self.poller.wait(&mut self.events, None) {
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        }
        assert_eq!(self.events.len(), 1);
        self.ups += 1;
    }

    /// Whether a wait would return now; an edge is taken by that.
    fn is_up(&mut self) -> bool {
        self.poller.wait(&mut self.events, Some(Duration::ZERO)).unwrap();
        let up = !self.events.is_empty();
        self.ups += u64::from(up);
        up
    }

    /// Whether the fd stays quiet for a while that is long for a kernel.
    fn is_quiet_for(&mut self, d: Duration) -> bool {
        self.poller.wait(&mut self.events, Some(d)).unwrap();
        self.ups += u64::from(!self.events.is_empty());
        self.events.is_empty()
    }
}

/// Turns until a turn finds nothing and the fd is quiet, as an outer loop would in the end.
#[track_caller]
fn settle(outer: &mut Outer, inner: &Embedded) {
    for _ in 0..4 {
        let found = inner.turn().unwrap();
        if found == 0 && !outer.is_up() {
            return;
        }
    }
    panic!("the fd does not fall silent");
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
fn the_fd_is_quiet_while_there_is_nothing_to_do() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (_tx, inbox) = reactor.channel::<u8>(1).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        // Wall time: it must stay so.
        assert!(outer.is_quiet_for(ms(30)));
        for _ in 0..10 {
            assert_eq!(inner.turn().unwrap(), 0);
            assert!(!outer.is_up(), "{mode:?}");
        }
        assert!(inbox.is_empty() && !timer.is_ready());
    }
}

/// Looks of its own between the turns, of which a reactor with fds makes one in 100 us, are no
/// reason for a turn.
#[test]
fn an_idle_loop_that_takes_its_time_after_a_turn_is_not_woken_for_that() {
    support::exact("counts syscalls");
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let ours = reactor.fd_nonblocking(ours, Interest::READABLE).unwrap();
        let (tx, inbox) = reactor.channel(1).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        for _ in 0..5 {
            thread::sleep(ms(1)); // longer than a poll interval: the select looks
            let before = reactor.stats();
            select! { reactor;
                recv(ours) -> _ => panic!(),
                recv(inbox) -> _ => panic!(),
                recv(timer) -> _ => panic!(),
                default => {}
            }
            let during = reactor.stats() - before;
            assert_eq!((during.polls, during.wakes, during.arms), (1, 0, 0), "{during}");
            assert!(!outer.is_up(), "{mode:?}");
        }
        // What such a look finds, or takes from the outer loop, is told all the same.
        theirs.write_all(b"x").unwrap();
        thread::sleep(ms(1));
        assert!(inbox.try_recv().is_err() && reactor.try_recv(&timer).unwrap().is_none());
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
        ours.clear_readiness(pollmux::sys::Readiness::ALL);
        settle(&mut outer, &inner);
        timer.reset(ms(2));
        settle_but_for(&mut outer, &inner, timer.deadline().unwrap());
        thread::sleep(ms(3));
        while !timer.is_ready() {
            assert!(reactor.try_recv(&ours).unwrap().is_none());
        }
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
        timer.reset(ms(2));
        settle_but_for(&mut outer, &inner, timer.deadline().unwrap());
        timer.reset(HOUR);
        thread::sleep(ms(3)); // the stale deadline passes
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
fn a_message_from_another_thread_raises_the_fd() {
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        settle(&mut outer, &inner);
        let _sender = support::later(ms(5), move || tx.send(7).unwrap());
        outer.sleep();
        assert_eq!(inner.turn().unwrap(), 1);
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Ok(7)),
            default => panic!("{mode:?}"),
        }
    }
}

#[test]
fn a_message_from_the_same_thread_raises_the_fd() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        settle(&mut outer, &inner);
        for n in 0..100 {
            assert!(!outer.is_up());
            tx.send(n).unwrap();
            assert!(outer.is_up(), "{mode:?}, message {n}");
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!(inbox.try_recv(), Ok(n));
            settle(&mut outer, &inner);
        }
        // So does the end.
        drop(tx);
        assert!(outer.is_up());
        assert_eq!(inner.turn().unwrap(), 1);
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
        settle(&mut outer, &inner);
    }
}

#[test]
fn a_message_sent_before_the_embedding_is_found() {
    for mode in MODES {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(4).unwrap();
        let due = reactor.after(Duration::ZERO);
        tx.send(1).unwrap();
        let inner = reactor.embed().unwrap();
        // Added to the outer loop only now: it is told nevertheless.
        let mut outer = Outer::around(&inner, mode);
        assert!(outer.is_up(), "{mode:?}");
        assert_eq!(inner.turn().unwrap(), 2);
        assert_eq!(inbox.try_recv(), Ok(1));
        assert!(due.try_take().is_some());
        settle(&mut outer, &inner);
    }
}

#[test]
fn a_receiver_registered_between_turns_raises_the_fd_when_it_holds_something() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        settle(&mut outer, &inner);
        let (tx, rx) = pollmux::channel::bounded(2);
        tx.send(1).unwrap();
        let inbox = reactor.register(rx).unwrap();
        assert!(outer.is_up(), "{mode:?}");
        assert_eq!(inner.turn().unwrap(), 1);
        assert_eq!(inbox.try_recv(), Ok(1));
        settle(&mut outer, &inner);
        // And one that holds nothing does when it gets something.
        let (ty, rx) = pollmux::channel::bounded(2);
        let other = reactor.register(rx).unwrap();
        assert!(!outer.is_up());
        ty.send(2).unwrap();
        assert!(outer.is_up());
        inner.turn().unwrap();
        assert_eq!(other.try_recv(), Ok(2));
    }
}

#[test]
fn a_timer_raises_the_fd_when_it_is_due_and_not_before() {
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.timer();
        // Wall time: it is the kernel's timer that raises the fd.
        for delay in [1, 3, 12].map(ms) {
            settle(&mut outer, &inner);
            timer.reset(delay);
            let due = timer.deadline().unwrap();
            assert!(outer.is_up(), "a turn must arm it");
            // A turn that comes late finds it due, and raises the fd as the timer would.
            assert!(
                inner.turn().unwrap() == 0 || Time::now() >= due,
                "{mode:?}: early for {delay:?}"
            );
            outer.sleep();
            assert!(Time::now() >= due, "{mode:?}: early for {delay:?}");
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!(timer.try_take(), Some(due));
        }
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(10)));
    }
}

#[test]
fn a_timer_due_at_once_raises_the_fd_at_once() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        settle(&mut outer, &inner);
        for past in [false, true] {
            let timer = if past { reactor.at(Time::ZERO) } else { reactor.after(Duration::ZERO) };
            assert!(outer.is_up(), "{mode:?}");
            assert_eq!(inner.turn().unwrap(), 1);
            select! { reactor; recv(timer) -> _ => {}, default => panic!() }
            settle(&mut outer, &inner);
        }
    }
}

#[test]
fn a_ticker_raises_the_fd_again_and_again() {
    let _dog = dog();
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
        assert!(outer.ups <= 3 * ticks + 5, "{} wake-ups for {ticks} ticks", outer.ups);
    }
}

#[test]
fn an_earlier_deadline_between_turns_wakes_the_outer_loop_in_time() {
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        for round in 0..5 {
            // By a reset, or by a timer that did not exist before.
            let new = (round % 2 == 1).then(|| reactor.after(ms(5)));
            if new.is_none() {
                assert!(timer.reset(ms(5)));
            }
            let timer = new.as_ref().unwrap_or(&timer);
            let due = timer.deadline().unwrap();
            // An outer loop that is not told would sleep for an hour, and the watchdog would bark.
            turns_until(&mut outer, &inner, || timer.is_ready());
            assert!(Time::now() >= due);
            assert_eq!(timer.try_take(), Some(due));
            timer.reset(HOUR);
            settle(&mut outer, &inner);
        }
    }
}

#[test]
fn a_later_deadline_between_turns_costs_nothing() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(HOUR);
        let ticker = reactor.every(HOUR).unwrap();
        settle(&mut outer, &inner);
        let before = reactor.stats();
        for n in 0..100 {
            assert!(timer.reset(HOUR + ms(n)));
            assert!(ticker.restart());
            assert!(!outer.is_up(), "{mode:?}");
        }
        assert_eq!((reactor.stats() - before).syscalls(), 0);
        assert_eq!(inner.turn().unwrap(), 0);
        let during = reactor.stats() - before;
        assert_eq!((during.polls, during.syscalls()), (1, 1), "{during}");
        assert!(!outer.is_up());
    }
}

#[test]
fn a_stale_deadline_costs_one_turn_and_is_never_early() {
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(ms(4));
        settle_but_for(&mut outer, &inner, timer.deadline().unwrap());
        assert!(timer.reset(ms(40)));
        let due = timer.deadline().unwrap();
        let ups = outer.ups;
        turns_until(&mut outer, &inner, || timer.is_ready());
        assert!(Time::now() >= due);
        // One at the stale deadline, one at the true one, and one to spare for a turn that arms.
        assert!(outer.ups - ups <= 3, "{mode:?}: {} wake-ups", outer.ups - ups);
    }
}

#[test]
fn several_earlier_deadlines_between_turns_cost_one_wake_up_and_one_arm() {
    support::exact("counts syscalls");
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        let before = reactor.stats();
        for n in 1..50u32 {
            timer.reset(HOUR - ms(60_000) * n);
        }
        assert!(outer.is_up());
        assert_eq!(inner.turn().unwrap(), 0);
        assert!(!outer.is_up(), "{mode:?}");
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
fn what_a_turn_leaves_over_raises_the_fd_again() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(8).unwrap();
        let timer = reactor.timer();
        settle(&mut outer, &inner);
        (0..5).for_each(|n| tx.send(n).unwrap());
        timer.reset(Duration::ZERO);
        for n in 0..5 {
            assert!(outer.is_up(), "{mode:?}, message {n}");
            assert_eq!(inner.turn().unwrap(), 2, "an inbox with something in it, and the timer");
            // One at a time.
            assert_eq!(inbox.try_recv(), Ok(n));
        }
        assert!(outer.is_up());
        assert_eq!(inner.turn().unwrap(), 1, "the timer alone");
        assert!(outer.is_up());
        // Stopped instead of taken: that is enough.
        assert!(timer.stop());
        settle(&mut outer, &inner);
    }
}

#[test]
fn more_due_timers_than_a_turn_handles_raise_the_fd_until_all_are_handled() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timers: Vec<_> = (0..2_000).map(|_| reactor.after(Duration::ZERO)).collect();
        let mut fired = 0;
        while fired < timers.len() {
            assert!(outer.is_up(), "{mode:?}: {fired} have fired");
            inner.turn().unwrap();
            fired += timers.iter().filter(|timer| timer.try_take().is_some()).count();
        }
        settle(&mut outer, &inner);
    }
}

#[test]
fn stopped_timers_in_number_do_not_keep_the_fd_up() {
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let timers: Vec<_> = (0..2_000).map(|n| reactor.after(ms(n % 3))).collect();
        timers.iter().for_each(|timer| assert!(timer.stop()));
        // Turns put them right a number at a time.
        let mut turns = 0;
        loop {
            turns += 1;
            assert_eq!(inner.turn().unwrap(), 0);
            if !outer.is_up() && outer.is_quiet_for(ms(5)) {
                break;
            }
            assert!(turns < 100, "{mode:?}: the fd does not fall silent");
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
fn thousands_of_messages_from_another_thread_arrive_once_each() {
    let _dog = dog();
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
            // Nothing, one, or all: what is left is reported again.
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
        // A message raises the fd; a turn that finds it raises it again; one that finds nothing
        // does not. A quarter of the turns take too little.
        assert!(
            outer.ups <= 3 * rounds + 10,
            "{mode:?}: {} wake-ups in {turns} turns for {rounds} messages",
            outer.ups
        );
    }
}

#[test]
fn messages_received_by_select_after_each_turn_arrive_once_each() {
    let _dog = dog();
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
                        // The last stretch has no help from the ticker: a message that raised
                        // nothing would be seen.
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
fn two_reactors_live_in_one_outer_loop() {
    let _dog = dog();
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
        // A ball that each hands to the other.
        senders[0].send(0).unwrap();
        let mut events = PollEvents::with_capacity(2);
        let mut ball = 0;
        while ball < 2_000 {
            outer.wait(&mut events, None).unwrap();
            for event in events.iter() {
                let n = event.id() as usize;
                inners[n].turn().unwrap();
                if let Ok(got) = inboxes[n].try_recv() {
                    assert_eq!((got, got % 2), (ball, n));
                    ball += 1;
                    senders[1 - n].try_send(ball).unwrap();
                }
            }
        }
        assert!(far.iter().all(|timer| !timer.is_ready()));
    }
}

#[test]
fn an_epoll_in_an_epoll_in_an_epoll_works() {
    let _dog = dog();
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
                while middle.is_up() {
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
fn a_blocking_select_on_an_embedded_reactor_takes_nothing_from_the_outer_loop() {
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(4).unwrap();
        let (ty, other) = reactor.channel(4).unwrap();
        let (short, long) = (reactor.timer(), reactor.timer());
        let mut events = Events::with_capacity(4);
        for round in 0..20 {
            settle(&mut outer, &inner);
            // The wait in between sleeps, and takes wake-ups and the kernel timer's event.
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
                    // On a slow machine the select may have seen the timer expire, and it stays so.
                    short.stop();
                }
            }
            // Afterwards the outer loop hears of everything as before: of messages to either
            // channel, and of the deadline.
            for n in 0..3 {
                tx.send(n).unwrap();
                while inbox.is_empty() || inbox.try_recv().is_err() {
                    outer.sleep();
                    inner.turn().unwrap();
                }
                settle_but_for(&mut outer, &inner, due);
                ty.send(n).unwrap();
                outer.sleep();
                inner.turn().unwrap();
                assert_eq!(other.try_recv(), Ok(n));
                settle_but_for(&mut outer, &inner, due);
            }
            turns_until(&mut outer, &inner, || long.is_ready());
            assert!(Time::now() >= due);
            assert_eq!(long.try_take(), Some(due));
        }
    }
}

/// [`settle`], where a timer may be due meanwhile.
fn settle_but_for(outer: &mut Outer, inner: &Embedded, due: Time) {
    for _ in 0..4 {
        let found = inner.turn().unwrap();
        if Time::now() >= due || (found == 0 && !outer.is_up()) {
            return;
        }
    }
    // The last look may have taken the timer's edge: it is answered by a turn.
    inner.turn().unwrap();
    assert!(Time::now() >= due, "the fd does not fall silent");
}

#[test]
fn the_syscalls_of_turns_are_counted_and_few() {
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
    // Nothing to do.
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 0));
    // A message: its wake-up, and the look.
    tx.send(1).unwrap();
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 1));
    // What it left over raised the fd: one more write.
    assert_eq!(inbox.try_recv(), Ok(1));
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 1));
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 0));
    // A later deadline, and an earlier one.
    timer.reset(HOUR * 2);
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 0, 0, 0));
    timer.reset(HOUR / 2);
    inner.turn().unwrap();
    assert_eq!(spent(), (1, 1, 0, 1));
    assert!(!outer.is_up());
}

#[test]
fn to_embed_twice_is_an_error_and_to_embed_again_is_not() {
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
    assert!(outer.is_up());
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
fn a_reactor_goes_on_when_its_embedding_ends() {
    let _dog = dog();
    for mode in MODES {
        let (reactor, inner, mut outer) = embedded(mode);
        let (tx, inbox) = reactor.channel(2).unwrap();
        let timer = reactor.after(HOUR);
        settle(&mut outer, &inner);
        outer.poller.deregister(&inner).unwrap();
        drop(inner);
        // It sleeps and is woken by itself again: by a message, and by a deadline that is earlier
        // than what a turn armed.
        let sender = thread::spawn(move || {
            for n in 0..200 {
                tx.send(n).unwrap();
                if n % 10 == 0 {
                    thread::sleep(Duration::from_micros(200)); // so that it sleeps now and then
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
fn an_embedding_outlives_its_reactor_as_an_error() {
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
        // What is left of it harms nobody.
        assert!(!timer.reset(Duration::ZERO));
        tx.send(1).unwrap();
        assert_eq!(inbox.try_recv(), Ok(1));
        outer.poller.deregister(&inner).unwrap();
    }
}

#[test]
fn a_deadline_within_the_slack_of_the_armed_one_wakes_the_outer_loop() {
    let _dog = dog();
    for mode in MODES {
        let reactor = support::build(Reactor::builder().slack(HOUR));
        let (reactor, inner, mut outer) = embedded_on(reactor, mode);
        let relaxed = reactor.after(ms(1));
        settle_but_for(&mut outer, &inner, relaxed.deadline().unwrap());
        // Armed is the end of the hour.
        let strict = reactor.after(ms(2)).slack(Duration::ZERO);
        assert!(outer.is_up(), "{mode:?}");
        while !strict.is_ready() {
            inner.turn().unwrap();
            outer.sleep();
        }
        assert!(relaxed.is_ready());
    }
}

#[test]
fn a_blocking_select_or_wait_on_an_embedded_reactor_sleeps() {
    let (reactor, inner, mut outer) = embedded(Mode::Level);
    settle(&mut outer, &inner);
    let mut events = Events::with_capacity(4);
    for round in 0..3 {
        let (timer, before) = (reactor.after(ms(10)), reactor.stats());
        // Wall time: its own raising of the fd must not end the sleep.
        match round {
            0 => select! { reactor; recv(timer) -> _ => {} },
            1 => reactor.wait(&mut events).unwrap(),
            _ => reactor.sleep_blocking(ms(10)).unwrap(),
        }
        let during = reactor.stats() - before;
        assert!(during.waits <= 5, "spins: {during}");
        assert!(outer.is_up(), "a turn is owed");
    }
}

#[test]
fn an_embedding_that_nobody_has_woken_counts_no_wake_up() {
    let (reactor, inner, mut outer) = embedded(Mode::Level);
    settle(&mut outer, &inner);
    assert_eq!(reactor.stats().wakes, 0);
}

// ---- Callbacks, calls from outside, fds and timers of the kernel, on every driver that can be
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

/// Each driver in each kind of outer loop.
fn everywhere(test: impl Fn(Reactor, Embedded, Outer)) {
    let _dog = dog();
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
fn a_callback_raises_the_fd_and_runs_in_the_turn() {
    everywhere(|reactor, inner, mut outer| {
        let calls = Rc::new(Cell::new(0));
        let counter = calls.clone();
        let callback = reactor.call_after(ms(2), move |_| counter.set(counter.get() + 1));
        for n in 1..=3 {
            settle(&mut outer, &inner);
            while calls.get() < n {
                outer.sleep();
                assert_eq!(inner.turn().unwrap(), 0, "a call is no source");
            }
            settle(&mut outer, &inner);
            assert!(outer.is_quiet_for(ms(3)));
            assert_eq!(calls.get(), n);
            callback.reset(ms(1));
            assert!(outer.is_up(), "a turn must arm it");
        }
    });
}

#[test]
fn a_callback_due_again_at_once_raises_the_fd_again() {
    everywhere(|reactor, inner, mut outer| {
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
            outer.sleep(); // the kernel's timer may be what raises it, a moment later
            inner.turn().unwrap();
        }
        settle(&mut outer, &inner);
    });
}

#[test]
fn what_other_threads_ask_for_raises_the_fd_once() {
    everywhere(|reactor, inner, mut outer| {
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
            assert!(outer.is_up());
            assert_eq!(inner.turn().unwrap(), 0);
            assert_eq!(reactor.stats().called, called.get() + 3);
            called.set(called.get() + 3);
            assert!(!outer.is_up());
            assert_eq!((reactor.stats() - before).wakes, 1);

            on_another_thread(&|| remote.wake());
            assert!(outer.is_up());
            assert_eq!(inner.turn().unwrap(), 0);
            assert!(!outer.is_up());

            on_another_thread(&|| remote.reset(id, Duration::ZERO).unwrap());
            assert!(outer.is_up());
            assert_eq!(inner.turn().unwrap(), 0);
            // Armed by the posted reset, which the next turn sees to be due.
            assert!(outer.is_up());
            assert_eq!(inner.turn().unwrap(), 1);
            on_another_thread(&|| remote.stop(id).unwrap());
            assert!(outer.is_up());
            inner.turn().unwrap();
            assert!(!timer.is_ready());
            settle(&mut outer, &inner);

            on_another_thread(&|| (0..3).for_each(|_| notifier.notify()));
            assert!(outer.is_up());
            assert_eq!(inner.turn().unwrap(), 1);
            assert_eq!((notified.try_take(), notified.try_take()), (Some(()), None));
        }
        settle(&mut outer, &inner);
        assert!(outer.is_quiet_for(ms(2)));
    });
}

#[test]
fn an_fd_raises_the_fd_while_a_turn_would_find_it() {
    everywhere(|reactor, inner, mut outer| {
        for mode in [Mode::Edge, Mode::Level] {
            let (mut theirs, mut ours) = pair(&reactor, mode);
            for round in 0..20 {
                settle(&mut outer, &inner);
                theirs.write_all(b"some").unwrap();
                assert!(outer.is_up());
                assert_eq!(inner.turn().unwrap(), 1);
                if round % 2 == 0 {
                    // Left alone: the turn has raised the fd again.
                    assert!(outer.is_up());
                    assert_eq!(inner.turn().unwrap(), 1);
                }
                if mode == Mode::Level {
                    // A part of it, and no try that would fail: the poller says so again.
                    assert!(ours.try_take().is_some());
                    assert_eq!(ours.read(&mut [0]).unwrap(), 1);
                    assert!(outer.is_up());
                    assert_eq!(inner.turn().unwrap(), 1);
                }
                select! { reactor;
                    recv(ours) -> _ => assert!(drain(&mut ours) >= 3),
                    default => panic!(),
                }
            }
            settle(&mut outer, &inner);
            assert!(outer.is_quiet_for(ms(2)));
            // dropped it may be open still, in a process that another test begins
            theirs.shutdown(Shutdown::Both).unwrap();
            assert!(outer.is_up(), "the end is news");
            assert_eq!(inner.turn().unwrap(), 1);
            drop(ours);
            settle(&mut outer, &inner);
        }
    });
}

#[test]
fn a_look_at_fds_between_turns_takes_nothing_from_the_outer_loop() {
    everywhere(|reactor, inner, mut outer| {
        let (_theirs, ours) = pair(&reactor, Mode::Edge);
        let (tx, inbox) = reactor.channel(1).unwrap();
        let timer = reactor.timer();
        for round in 0..10 {
            settle(&mut outer, &inner);
            timer.reset(ms(1));
            inner.turn().unwrap();
            settle_but_for(&mut outer, &inner, timer.deadline().unwrap());
            tx.send(round).unwrap();
            // Longer than the fds may go unlooked at; with the message's wake-up in the poller, and
            // then the timer's.
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
fn an_os_timer_raises_the_fd_when_it_is_due() {
    everywhere(|reactor, inner, mut outer| {
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
fn signals_and_the_end_of_a_child_raise_the_fd() {
    alone!();
    everywhere(|reactor, inner, mut outer| {
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
fn interest_changed_in_a_callback_is_waited_for() {
    everywhere(|reactor, inner, mut outer| {
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
            reactor.remote().post(|_: &Handle| {}).unwrap(); // so that there is a turn
            reactor
                .call_after(Duration::ZERO, move |_| fd.set_interest(Interest::READABLE).unwrap())
                .detach();
            inner.turn().unwrap();
            settle(&mut outer, &inner);
            assert!(outer.is_quiet_for(ms(1)));
            theirs.write_all(b"x").unwrap();
            assert!(outer.is_up());
            assert_eq!(inner.turn().unwrap(), 1);
            ours.try_io(|mut io| io.read(&mut [0; 4])).unwrap();
            assert!(ours.try_io(|mut io| io.read(&mut [0; 4])).is_err());
            settle(&mut outer, &inner);
        }
    });
}

#[test]
fn more_ready_fds_than_the_buffer_holds_are_all_found() {
    allow_fds(10_000);
    everywhere(|reactor, inner, mut outer| {
        let (_peers, fds): (Vec<_>, Vec<_>) = (0..2_000)
            .map(|_| {
                let (mut peer, fd) = support::pair();
                peer.write_all(&[1]).unwrap();
                (peer, reactor.fd(fd, Interest::READABLE).unwrap())
            })
            .unzip();
        let (mut found, mut turns) = (0, 0);
        while found < fds.len() {
            assert!(outer.is_up(), "{found} found in {turns} turns");
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
fn a_reactor_dropped_while_embedded_leaves_a_quiet_fd() {
    let _alone = no_new_processes();
    everywhere(|reactor, inner, mut outer| {
        let (mut theirs, ours) = pair(&reactor, Mode::Edge);
        let (tx, inbox) = reactor.channel(1).unwrap();
        let os_timer = reactor.os_timer().unwrap();
        let timer = reactor.timer();
        settle(&mut outer, &inner);
        timer.reset(ms(1));
        os_timer.reset(ms(1)).unwrap();
        inner.turn().unwrap(); // arms
        drop(reactor);
        tx.send(1).unwrap();
        drop((ours, os_timer));
        let _ = theirs.write_all(b"x");
        // An edge from before may be there.
        outer.is_up();
        assert!(outer.is_quiet_for(ms(3)));
        assert_eq!(inner.turn().unwrap_err().kind(), io::ErrorKind::NotConnected);
        drop((timer, inbox, inner));
        assert!(!outer.is_up());
    });
}

// ---- Reactors in reactors, and beside each other.

/// A reactor whose fd is a source of another one, which is embedded in a bare epoll: three pollers
/// deep, or four on a foreign one.
#[test]
fn a_reactor_in_an_embedded_reactor_loses_nothing_and_falls_silent() {
    let _dog = dog();
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
            let ups = outer.ups;
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
            // Each of the two levels has a wake-up for what came, one to see that nothing is left,
            // and one to arm.
            let woken = outer.ups - ups;
            assert!(
                woken <= u64::from(8 * ROUNDS),
                "{mode:?} in {outermost:?}: {woken} wake-ups in {ROUNDS} rounds"
            );
            let silent = (0..20).any(|_| {
                middle_inner.turn().unwrap();
                if deep_inner.try_take().is_some() {
                    deep_inner.clear_readiness(pollmux::sys::Readiness::ALL);
                    deep_inner.get_mut().turn().unwrap();
                }
                outer.is_quiet_for(ms(1))
            });
            assert!(silent, "{mode:?} in {outermost:?}");
            drop(ask);
            drop(other.join().unwrap());
        }
    }
}

#[test]
fn fifty_reactors_live_in_one_outer_loop() {
    let _dog = dog();
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

// ---- Drivers on foreign pollers, embedded with all that they wait for.

#[cfg(feature = "mio")]
#[test]
fn a_source_of_mios_raises_the_fd_of_the_reactor_on_it() {
    use mio::{Interest, Poll, Token, unix::pipe};
    let _dog = dog();
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
            assert!(outer.is_up());
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
fn a_source_of_pollings_raises_the_fd_of_the_reactor_on_it() {
    let _dog = dog();
    for mode in MODES {
        let driver =
            pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), 0).unwrap();
        let (poller, events) = (driver.poller().clone(), driver.events());
        let reactor = Reactor::with_driver(driver).unwrap();
        let events = reactor.register(events).unwrap();
        let inner = reactor.embed().unwrap();
        let mut outer = Outer::around(&inner, mode);
        let (mut theirs, mut ours) = UnixStream::pair().unwrap();
        // SAFETY: it is deleted below, before it is closed; a panic ends the test.
        #[allow(unsafe_code)]
        unsafe { poller.add(&ours, polling::Event::none(5)) }.unwrap();
        for _ in 0..20 {
            poller.modify(&ours, polling::Event::readable(5)).unwrap();
            settle(&mut outer, &inner);
            theirs.write_all(b"x").unwrap();
            assert!(outer.is_up());
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

/// The docs of `Embedded` warn of it.
#[test]
fn what_nobody_takes_keeps_the_fd_up() {
    #[track_caller]
    fn stays_up(outer: &mut Outer, inner: &Embedded) {
        for _ in 0..10 {
            assert!(outer.is_up());
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
        stays_up(&mut outer, &inner);
        // Taken once it is quiet, though a `select!` has it again.
        for _ in 0..2 {
            select! { reactor;
                recv(done) -> _ => {},
                default => panic!("the context is cancelled"),
            }
            settle(&mut outer, &inner);
        }
        let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
        drop(tx);
        stays_up(&mut outer, &inner);
        drop(inbox);
        settle(&mut outer, &inner);
        let timer = reactor.after(Duration::ZERO);
        stays_up(&mut outer, &inner);
        drop(timer);
        settle(&mut outer, &inner);
    }
}
