//! `select!`: which case it chooses, what the other cases keep, its grammar, and its failures.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{self, RecvError};
use pollmux::{
    Events, Inbox, Reactor, Select, Sim, Source, Tick, Ticker, Time, Timer, never, select,
    sources::{BeforeSleep, Never},
};
use support::{panic_text, rounds, scripted_reactor, secs, simulated, thread, watchdog};

const SECOND: Duration = Duration::from_secs(1);

/// A point on the virtual clock.
fn at(seconds: u64) -> Time {
    Time::ZERO + secs(seconds)
}

/// An inbox that holds these messages and gets no more. The returned sender keeps the inbox
/// connected.
fn inbox_with<T>(
    reactor: &Reactor,
    messages: impl IntoIterator<Item = T>,
) -> (channel::Sender<T>, Inbox<T>) {
    let (tx, inbox) = reactor.channel(64).unwrap();
    messages.into_iter().for_each(|message| assert!(tx.try_send(message).is_ok()));
    (tx, inbox)
}

/// A custom source that is ready as its cell says, and counts the calls of its methods.
#[derive(Default)]
struct Switch {
    ready: Cell<bool>,
    taken: Cell<u32>,
    before_sleeps: Cell<u32>,
    after_sleeps: Cell<u32>,
}

impl Switch {
    fn on() -> Switch {
        let switch = Switch::default();
        switch.ready.set(true);
        switch
    }
}

impl Source for Switch {
    type Item = u32;
    fn is_ready(&self) -> bool {
        self.ready.get()
    }
    fn try_take(&self) -> Option<u32> {
        self.ready.get().then(|| {
            self.taken.set(self.taken.get() + 1);
            self.taken.get()
        })
    }
    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.before_sleeps.set(self.before_sleeps.get() + 1);
        Ok(())
    }
    fn after_sleep(&self) {
        self.after_sleeps.set(self.after_sleeps.get() + 1);
    }
}

// Choice.

/// The chi-squared distance of the counts from equal counts. With n fair counts the distance is
/// about n - 1, give or take a few times the root of n - 1.
fn chi_squared(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

/// Asserts that the counts are uniform. The seed differs from run to run, so each limit fails one
/// fair run in 1,000,000,000.
#[track_caller]
fn assert_uniform(counts: &[u32]) {
    let limit = match counts.len() {
        2 => 37.4,
        3 => 41.5,
        4 => 45.1,
        8 => 57.1,
        n => panic!("no limit for {n}"),
    };
    let chi = chi_squared(counts);
    assert!(chi < limit, "{counts:?} is not uniform: {chi}");
}

#[test]
fn ready_cases_have_equal_chances() {
    let (_, reactor) = simulated();
    let s: [Switch; 8] = std::array::from_fn(|_| Switch::on());
    let mut two = [0; 2];
    let mut pairs = [0; 4];
    let mut three = [0; 3];
    let mut eight = [0; 8];
    let mut last = 0;
    for _ in 0..100_000 {
        let n = select! { reactor; recv(s[0]) -> _ => 0, recv(s[1]) -> _ => 1 };
        two[n] += 1;
        pairs[last * 2 + n] += 1;
        last = n;
        let n =
            select! { reactor; recv(s[0]) -> _ => 0, recv(s[1]) -> _ => 1, recv(s[2]) -> _ => 2 };
        three[n] += 1;
        let n = select! { reactor;
            recv(s[0]) -> _ => 0, recv(s[1]) -> _ => 1, recv(s[2]) -> _ => 2, recv(s[3]) -> _ => 3,
            recv(s[4]) -> _ => 4, recv(s[5]) -> _ => 5, recv(s[6]) -> _ => 6, recv(s[7]) -> _ => 7,
        };
        eight[n] += 1;
    }
    assert_uniform(&two);
    assert_uniform(&three);
    assert_uniform(&eight);
    // One choice does not depend on the choice before.
    assert_uniform(&pairs);
}

#[test]
fn cases_that_are_not_ready_change_no_chances() {
    let (_, reactor) = simulated();
    let (a, b, c) = (Switch::on(), Switch::on(), Switch::on());
    let (off, none, nothing) = (Switch::default(), None::<Switch>, never::<u32>());
    let mut counts = [0; 3];
    for _ in 0..50_000 {
        counts[select! { reactor;
            recv(off) -> _ => unreachable!(),
            recv(a) -> _ => 0,
            recv(none) -> _ => unreachable!(),
            recv(nothing) -> _ => unreachable!(),
            recv(b) -> _ => 1,
            recv(off) -> _ => unreachable!(),
            recv(c) -> _ => 2,
        }] += 1;
    }
    assert_uniform(&counts);
}

#[test]
fn an_end_has_its_share_beside_messages() {
    let reactor = Reactor::new().unwrap();
    let (tx, busy) = reactor.channel(1).unwrap();
    let (_, ended) = reactor.channel::<()>(1).unwrap();
    let mut counts = [0; 2];
    for _ in 0..50_000 {
        let _ = tx.try_send(());
        counts[select! { reactor; recv(busy) -> _ => 0, recv(ended) -> _ => 1 }] += 1;
    }
    assert_uniform(&counts);
}

#[test]
fn a_source_in_two_cases_may_win_either() {
    let _watchdog = watchdog();
    let (_, reactor) = simulated();
    let (_tx, inbox) = inbox_with(&reactor, 0..64);
    let other = Switch::on();
    let mut counts = [0; 3];
    let mut next = 0;
    while next < 64 {
        select! { reactor;
            recv(inbox) -> n => { assert_eq!(n, Ok(next)); next += 1; counts[0] += 1; }
            recv(other) -> _ => counts[2] += 1,
            recv(inbox) -> n => { assert_eq!(n, Ok(next)); next += 1; counts[1] += 1; }
        }
    }
    // All 64 fair choices fall on one case once in 2^63 runs.
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    // Only one of the two cases takes the last message. Then neither is ready.
    assert!(inbox.is_empty());
    select! { reactor;
        recv(inbox) -> _ => unreachable!(),
        recv(inbox) -> _ => unreachable!(),
        default => {}
    }
}

#[test]
fn an_inbox_in_two_cases_is_received_once() {
    let _watchdog = watchdog();
    let all = rounds(500);
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let sender = thread::spawn(move || (0..all).for_each(|n| tx.send(n).unwrap()));
    for expected in 0..all {
        select! { reactor;
            recv(inbox) -> n => assert_eq!(n, Ok(expected)),
            recv(&inbox) -> n => assert_eq!(n, Ok(expected)),
        }
    }
    sender.join().unwrap();
}

#[test]
fn biased_takes_the_first_ready_case() {
    let (_, reactor) = simulated();
    let s: [Switch; 4] = std::array::from_fn(|_| Switch::default());
    for ready in 1..16u32 {
        (0..4).for_each(|n| s[n].ready.set(ready >> n & 1 == 1));
        for _ in 0..20 {
            let n = select! { reactor; biased;
                recv(s[0]) -> _ => 0,
                recv(s[1]) -> _ => 1,
                recv(s[2]) -> _ => 2,
                recv(s[3]) -> _ => 3,
            };
            assert_eq!(n, ready.trailing_zeros());
        }
    }
}

#[test]
fn cases_that_lose_keep_their_values() {
    let (sim, reactor) = simulated();
    let (_tx, left) = inbox_with(&reactor, 0..40);
    let (_ty, right) = inbox_with(&reactor, 0..40);
    let timer = reactor.after(SECOND);
    let ticker = reactor.every(SECOND).unwrap();
    sim.advance(SECOND);
    let (mut left_received, mut right_received, mut due, mut ticks) = (0, 0, 0, 0);
    for turn in 1..=82 {
        select! { reactor;
            recv(left) -> n => { assert_eq!(n, Ok(left_received)); left_received += 1; }
            recv(right) -> n => { assert_eq!(n, Ok(right_received)); right_received += 1; }
            recv(timer) -> t => { assert_eq!(t, at(1)); due += 1; }
            recv(ticker) -> tick => {
                assert_eq!(tick, Tick { scheduled: at(1), missed: 0 });
                ticks += 1;
            }
            default => panic!("no case is ready in turn {turn}"),
        }
        assert_eq!(left.len() + left_received, 40);
        assert_eq!(right.len() + right_received, 40);
        assert_eq!(timer.deadline(), (due == 0).then(|| at(1)));
        assert_eq!(ticker.deadline(), Some(at(1 + ticks)));
    }
    assert_eq!((left_received, right_received, due, ticks), (40, 40, 1, 1));
    select! { reactor;
        recv(left) -> _ => unreachable!(),
        recv(right) -> _ => unreachable!(),
        recv(timer) -> _ => unreachable!(),
        recv(ticker) -> _ => unreachable!(),
        default => {}
    }
}

// Defaults.

#[test]
fn default_never_runs_while_a_case_is_ready() {
    let _watchdog = watchdog();
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.timer();
    for n in 0..2_000 {
        if n % 2 == 0 {
            tx.send(n).unwrap()
        } else {
            assert!(!timer.reset(Duration::ZERO))
        }
        let got = select! { reactor;
            recv(inbox) -> got => got.unwrap(),
            recv(timer) -> t => { assert_eq!(t, sim.now()); n }
            default => panic!("default in turn {n}"),
        };
        assert_eq!(got, n);
        let idle = select! { reactor;
            recv(inbox) -> _ => false,
            recv(timer) -> _ => false,
            default => true,
        };
        assert!(idle);
    }

    // A `select!` finds a message that another thread has reported as sent.
    let all = rounds(250);
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (go, gone) = channel::bounded::<()>(1);
    let (done, reported) = channel::bounded(1);
    let sender = thread::spawn(move || {
        for n in 0..all {
            gone.recv().unwrap();
            tx.try_send(n).unwrap();
            done.send(()).unwrap();
        }
    });
    for n in 0..all {
        go.send(()).unwrap();
        reported.recv().unwrap();
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Ok(n)),
            default => panic!("default in turn {n}"),
        }
    }
    sender.join().unwrap();
}

#[test]
fn default_runs_exactly_at_its_timeout() {
    let (sim, reactor) = simulated();
    let (_tx, inbox) = inbox_with::<u8>(&reactor, []);
    let timer = reactor.timer();
    for timeout in [Duration::from_nanos(1), Duration::from_micros(7), SECOND, secs(86_400 * 365)] {
        let start = sim.now();
        select! { reactor;
            recv(inbox) -> _ => unreachable!(),
            recv(timer) -> _ => unreachable!(),
            default(timeout) => assert_eq!(sim.now(), start + timeout),
        }
        // A case that is due before the timeout wins. A case that is due after it loses.
        for (due, wins) in [
            (timeout - Duration::from_nanos(1), true),
            (timeout, true),
            (timeout + Duration::from_nanos(1), false),
        ] {
            let start = sim.now();
            timer.reset(due);
            let fired = select! { reactor;
                recv(timer) -> t => { assert_eq!((t, sim.now()), (start + due, start + due)); true }
                default(timeout) => { assert_eq!(sim.now(), start + timeout); false }
            };
            assert_eq!(fired, wins, "due {due:?}, timeout {timeout:?}");
            assert_eq!(timer.stop(), !wins);
        }
    }
}

#[test]
fn default_with_a_zero_timeout_never_waits() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(SECOND);
    select! { reactor; recv(timer) -> _ => unreachable!(), default(Duration::ZERO) => {} }
    assert_eq!(sim.now(), Time::ZERO);
    timer.reset(Duration::ZERO);
    select! { reactor;
        recv(timer) -> t => assert_eq!(t, Time::ZERO),
        default(Duration::ZERO) => unreachable!(),
    }
}

#[test]
fn a_late_thread_prefers_due_sources_to_timeouts() {
    let late = |wait: fn(&Reactor, &Timer) -> bool| {
        let (sim, reactor) = simulated();
        // The turn has read the clock. Then this callback takes longer than the timer and the
        // timeout.
        reactor.call_after(Duration::ZERO, move |_| sim.advance(secs(30))).detach();
        let timer = reactor.after(secs(10)).with_key(7);
        assert!(wait(&reactor, &timer));
    };
    const TIMEOUT: Duration = secs(20);
    late(|reactor, timer| select! { reactor; recv(timer) -> _ => true, default(TIMEOUT) => false });
    late(|reactor, timer| reactor.recv_timeout(timer, TIMEOUT).unwrap().is_some());
    late(|reactor, timer| {
        let mut set = Select::new(reactor);
        set.recv(timer);
        set.wait_timeout(TIMEOUT).unwrap().is_some()
    });
    late(|reactor, _| {
        let mut events = Events::with_capacity(4);
        reactor.wait_timeout(&mut events, TIMEOUT).unwrap();
        events.iter().map(|event| event.key()).eq([7])
    });
    // A callback also runs within the sleep that it is due in.
    late(|reactor, _| {
        let called = Rc::new(Cell::new(false));
        let call = called.clone();
        reactor.call_after(secs(15), move |_| call.set(true)).detach();
        reactor.sleep_blocking(TIMEOUT).unwrap();
        called.get()
    });
}

#[test]
fn dropping_the_reactor_fails_a_waiting_select() {
    let (sim, reactor) = simulated();
    let handle = reactor.handle();
    let (idle, mut reactor) = (reactor.timer(), Some(reactor));
    handle.call_after(Duration::ZERO, move |_| sim.advance(secs(30))).detach();
    handle.call_after(secs(10), move |_| drop(reactor.take())).detach();
    select! { handle;
        recv(idle) -> _ => unreachable!(),
        default(secs(20)) => panic!("the reactor was dropped"),
        error -> e => assert_eq!(e.kind(), io::ErrorKind::NotConnected),
    }
}

#[test]
fn a_message_before_the_poll_beats_the_timeout() {
    /// A source whose `is_ready` takes 30 s. Meanwhile another thread sends a message.
    struct Slow(Sim, channel::Sender<u32>);
    impl Source for Slow {
        type Item = ();
        fn is_ready(&self) -> bool {
            if self.0.now() == Time::ZERO {
                self.0.advance(secs(30));
                self.1.send(7).unwrap();
            }
            false
        }
        fn try_take(&self) -> Option<()> {
            None
        }
    }
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let slow = Slow(sim, tx);
    let got = select! { reactor;
        recv(inbox) -> got => got.ok(),
        recv(slow) -> () => None,
        default(secs(20)) => None,
    };
    assert_eq!(got, Some(7));
}

#[test]
fn default_with_a_huge_timeout_waits_for_ever() {
    let (sim, reactor) = simulated();
    let timer = reactor.timer();
    for timeout in [Duration::MAX, secs(u64::MAX)] {
        timer.reset(SECOND);
        let start = sim.now();
        select! { reactor;
            recv(timer) -> t => assert_eq!(t, start + SECOND),
            default(timeout) => unreachable!(),
        }
        // Without a source that can become ready the wait is a deadlock, as without a default.
        let kind = select! { reactor;
            recv(timer) -> _ => unreachable!(),
            default(timeout) => unreachable!(),
            error -> e => e.kind(),
        };
        assert_eq!((kind, sim.now()), (io::ErrorKind::Deadlock, start + SECOND));
    }
}

#[test]
fn a_default_timeout_is_never_early() {
    // The test compares the kernel's clock with the timeout, so it needs wall time.
    let reactor = support::reactor();
    let nothing = never::<()>();
    for micros in [0, 1, 30, 999, 1_000, 4_321] {
        let timeout = Duration::from_micros(micros);
        let start = std::time::Instant::now();
        select! { reactor; recv(nothing) -> () => unreachable!(), default(timeout) => {} }
        assert!(start.elapsed() >= timeout, "{:?} for {timeout:?}", start.elapsed());
    }
}

#[test]
fn a_message_during_the_sleep_beats_the_default() {
    let (sim, reactor, script) = scripted_reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    script.on_sleep(move || {
        tx.send(5).unwrap();
        Ok(())
    });
    select! { reactor;
        recv(inbox) -> got => assert_eq!(got, Ok(5)),
        default(SECOND) => unreachable!(),
    }
    assert_eq!(sim.now(), Time::ZERO);
}

#[test]
fn a_spurious_wake_up_never_ends_a_select() {
    let (sim, reactor, script) = scripted_reactor();
    let (other, _ignored) = reactor.channel(4).unwrap();
    let timer = reactor.after(secs(5));
    for _ in 0..3 {
        let other = other.clone();
        script.on_sleep(move || {
            other.try_send(()).unwrap();
            Ok(())
        });
    }
    select! { reactor;
        recv(timer) -> t => assert_eq!(t, at(5)),
        default(secs(6)) => unreachable!(),
    }
    assert_eq!(sim.now(), at(5));
}

// Sources that are `None` or disabled.

#[test]
fn a_select_whose_sources_are_all_none_blocks() {
    let (sim, reactor) = simulated();
    let (timer, inbox): (Option<Timer>, Option<Inbox<u8>>) = (None, None);
    let nothing: Never<()> = never();
    let kind = select! { reactor;
        recv(timer) -> _ => unreachable!(),
        recv(inbox) -> _ => unreachable!(),
        recv(nothing) -> _ => unreachable!(),
        error -> e => e.kind(),
    };
    assert_eq!(kind, io::ErrorKind::Deadlock, "blocking for ever in virtual time is an error");
    // Without an error case the `select!` panics with the cause.
    let text = panic_text(|| select! { reactor; recv(timer) -> _ => {} });
    assert!(text.contains("deadlock") && text.contains("error -> e"), "{text}");
    select! { reactor; recv(timer) -> _ => unreachable!(), default => {} }
    select! { reactor;
        recv(inbox) -> _ => unreachable!(),
        recv(nothing) -> () => unreachable!(),
        default(secs(3)) => {}
    }
    assert_eq!(sim.now(), at(3));
}

#[test]
fn a_case_with_a_false_condition_is_disabled() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (there, rx) = channel::bounded(1);
    let outbox = reactor.register(there).unwrap();
    // Each combination of both conditions runs 20 times, unbiased and biased. Both cases are ready.
    for (receives, sends, round) in [false, true].into_iter().flat_map(|receives| {
        [false, true].into_iter().flat_map(move |sends| (0..20).map(move |n| (receives, sends, n)))
    }) {
        let _ = tx.try_send(7);
        let done = if round % 2 == 0 {
            select! { reactor;
                recv(inbox, if receives) -> got => got.map(|got| ("recv", got)).unwrap(),
                send(outbox, round, if sends) -> sent => { sent.unwrap(); ("send", round) }
                default => ("none", 0),
            }
        } else {
            select! { reactor;
                biased;
                send(outbox, round, if sends,) -> sent => sent.map(|()| ("send", round)).unwrap(),
                recv(inbox, if receives,) -> got => ("recv", got.unwrap()),
                default(secs(1)) => ("none", 0),
            }
        };
        match done {
            ("recv", got) => assert!(receives && got == 7),
            ("send", sent) => assert!(sends && rx.try_recv() == Ok(sent)),
            _ => assert!(!receives && !sends),
        }
    }
    assert_eq!(sim.now(), at(10), "ten timeouts");
}

#[test]
fn a_disabled_source_is_evaluated_and_never_polled() {
    struct Untouched;
    impl Source for Untouched {
        type Item = ();
        fn is_ready(&self) -> bool {
            unreachable!()
        }
        fn try_take(&self) -> Option<()> {
            unreachable!()
        }
        fn belongs_to(&self, _: &pollmux::Handle) -> bool {
            unreachable!()
        }
    }
    let (sim, reactor) = simulated();
    let order = RefCell::new(Vec::new());
    let log = |n| {
        order.borrow_mut().push(n);
        n
    };
    select! { reactor;
        recv({ log(1); Untouched }, if log(2) > 2) -> () => unreachable!(),
        recv(Untouched, if matches!(log(3), 4..)) -> () => unreachable!(),
        default(secs(log(4))) => {}
    }
    assert_eq!((order.into_inner(), sim.now()), (vec![1, 2, 3, 4], at(4)));
    // A disabled send case does not evaluate its value.
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register(tx).unwrap();
    let no_value = || unreachable!();
    select! { reactor; send(outbox, no_value(), if false) -> _ => {} default => {} }
    assert_eq!(rx.try_recv(), Err::<(), _>(channel::TryRecvError::Empty));
}

#[test]
fn an_optional_source_may_come_and_go() {
    let _watchdog = watchdog();
    let (sim, reactor) = simulated();
    let mut timer = Some(reactor.after(secs(2)));
    let other = reactor.every(secs(3)).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        select! { reactor;
            recv(timer) -> t => {
                seen.push((t, "timer"));
                timer = None;
            }
            recv(other) -> tick => {
                seen.push((tick.scheduled, "ticker"));
                if tick.scheduled == at(6) {
                    timer = Some(reactor.at(at(7)));
                }
            }
        }
    }
    assert_eq!(seen, [(at(2), "timer"), (at(3), "ticker"), (at(6), "ticker"), (at(7), "timer")]);
    assert_eq!(sim.now(), at(7));
}

// Arms.

#[test]
fn arms_may_break_continue_return_and_propagate() {
    let _watchdog = watchdog();
    fn until_seven(reactor: &Reactor, inbox: &Inbox<u32>) -> Result<&'static str, RecvError> {
        let mut odd = 0;
        let sum = 'sum: loop {
            let n = select! { reactor;
                recv(inbox) -> n => match n? {
                    7 => break 'sum odd,
                    9 => return Ok("returned"),
                    n if n % 2 == 0 => continue,
                    n => n,
                },
            };
            odd += n;
        };
        Ok(if sum == 9 { "broke with 9" } else { "broke with another sum" })
    }
    let (_, reactor) = simulated();
    let (tx, inbox) = inbox_with(&reactor, [1, 2, 3, 4, 5, 7, 8, 9, 11]);
    assert_eq!(until_seven(&reactor, &inbox), Ok("broke with 9"));
    assert_eq!(until_seven(&reactor, &inbox), Ok("returned"));
    drop(tx);
    assert_eq!(until_seven(&reactor, &inbox), Err(RecvError));
}

#[test]
fn default_and_error_arms_may_break() -> io::Result<()> {
    let (_, reactor) = simulated();
    let nothing = never::<u8>();
    let mut rounds = 0;
    loop {
        rounds += 1;
        select! { reactor;
            recv(nothing) -> _ => {},
            default => if rounds == 3 { break } else { continue },
        }
    }
    assert_eq!(rounds, 3);
    loop {
        select! { reactor;
            recv(nothing) -> _ => {},
            error -> e => { assert_eq!(e.kind(), io::ErrorKind::Deadlock); break }
        }
    }
    // `?` passes the driver's error on.
    let failed = (|| -> io::Result<u8> {
        Ok(select! { reactor; recv(nothing) -> n => n, error -> e => return Err(e) })
    })();
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::Deadlock);
    Ok(())
}

#[test]
fn a_select_has_the_value_of_its_arm() {
    let (_, reactor) = simulated();
    let (_tx, inbox) = inbox_with(&reactor, [String::from("a"), String::from("b")]);
    let nothing = never::<u8>();
    let word: Result<String, RecvError> = select! { reactor; recv(inbox) -> word => word };
    assert_eq!(word.as_deref(), Ok("a"));
    let length =
        1 + select! { reactor; recv(inbox) -> word => word.unwrap().len(), default => 100 };
    assert_eq!(length, 2);
    assert_eq!(select! { reactor; recv(nothing) -> n => n.into(), default => 0.5 }, 0.5f64);
    let boxed: Box<dyn Fn() -> u8> =
        select! { reactor; recv(nothing) -> n => Box::new(move || n), default => Box::new(|| 3) };
    assert_eq!(boxed(), 3);
    // A `select!` may be the tail of a block, an argument and a condition.
    let tail = {
        select! { reactor; recv(nothing) -> n => n, default => 8 }
    };
    assert_eq!(Some(tail), Some(select! { reactor; recv(nothing) -> n => n, default => 8 }));
    assert!(select! { reactor; recv(nothing) -> _ => false, default => true });
}

#[test]
fn a_select_may_be_nested_in_an_arm() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = inbox_with(&reactor, [1, 2, 3]);
    let timer = reactor.after(SECOND);
    let got = select! { reactor;
        recv(inbox) -> first => select! { reactor;
            recv(inbox) -> second => {
                let third = select! { reactor;
                    biased;
                    recv(inbox) -> third => third,
                    recv(timer) -> _ => unreachable!(),
                };
                let then = select! { reactor;
                    recv(inbox) -> _ => unreachable!(),
                    recv(timer) -> t => t,
                };
                (first, second, third, then)
            }
        },
    };
    assert_eq!(got, (Ok(1), Ok(2), Ok(3), at(1)));
    assert_eq!(sim.now(), at(1));
    // Inner and outer `select!` may name the same source.
    tx.send(4).unwrap();
    tx.send(5).unwrap();
    let nothing = never::<u8>();
    select! { reactor;
        recv(nothing) -> _ => unreachable!(),
        default => select! { reactor;
            recv(inbox) -> n => {
                assert_eq!(n, Ok(4));
                select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(5)) }
            }
        },
    }
}

#[test]
fn an_arm_may_reset_its_ticker() {
    let _watchdog = watchdog();
    let (sim, reactor) = simulated();
    let ticker = reactor.every(secs(1)).unwrap();
    let mut times = Vec::new();
    while times.len() < 5 {
        select! { reactor; recv(ticker) -> tick => {
            times.push(tick.scheduled);
            match times.len() {
                1 => { ticker.reset(secs(10)).unwrap(); }
                2 => { sim.advance(secs(5)); ticker.restart(); }
                3 => { ticker.stop(); ticker.reset(secs(2)).unwrap(); }
                _ => {}
            }
        } }
    }
    // The first tick is at 1. A period of 10 gives 11. After 5 s of work a restart at 16 gives
    // 26. A period of 2 gives 28 and 30.
    assert_eq!(times, [at(1), at(11), at(26), at(28), at(30)]);
}

#[test]
fn an_arm_may_replace_stop_and_drop_sources() {
    let (sim, reactor) = simulated();
    let handle = reactor.handle();
    let mut timer = reactor.after(secs(1));
    let mut ticker = reactor.every(secs(1)).unwrap();
    let mut extra: Vec<Timer> = Vec::new();
    // Both sources are due. The arm that runs stops the other source, so exactly one arm runs.
    for round in 0..200 {
        sim.advance(secs(1));
        select! { reactor;
            recv(timer) -> t => {
                assert_eq!(t, handle.now());
                assert!(ticker.stop(), "a tick was due");
            }
            recv(ticker) -> tick => {
                assert_eq!((tick.scheduled, tick.missed), (handle.now(), 0));
                assert!(timer.stop(), "the timer was due");
                assert!(ticker.stop(), "the ticker is armed for its next tick");
            }
        }
        select! { reactor;
            recv(timer) -> _ => panic!("a stale value"),
            recv(ticker) -> _ => panic!("a stale value"),
            default => {}
        }
        extra.push(handle.after(secs(1_000)));
        timer = handle.after(secs(1));
        ticker = reactor.every(secs(1)).unwrap();
        assert_eq!(reactor.stats().live, extra.len() + 2, "round {round}");
    }
    assert!(extra.iter().all(|timer| timer.stop()));
    let mut inbox = inbox_with(&reactor, [1]).1;
    select! { reactor;
        recv(inbox) -> n => {
            assert_eq!(n, Ok(1));
            // The arm drops the inbox that it has received from.
            inbox = inbox_with(&reactor, [2]).1;
        }
    }
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(2)) }
}

#[test]
fn an_arm_owns_its_item() {
    let (_, reactor) = simulated();
    let (_tx, inbox) = inbox_with(&reactor, [vec![1], vec![2]]);
    let mut all = Vec::new();
    select! { reactor; recv(inbox) -> item => all.extend(item.unwrap()) }
    // An arm may consume the source that has fired.
    let rx = select! { reactor;
        recv(inbox) -> item => { all.extend(item.unwrap()); inbox.into_inner() }
    };
    assert_eq!((all, rx.len()), (vec![1, 2], 0));
    let timer = reactor.after(Duration::ZERO);
    select! { reactor; recv(timer) -> _ => drop(timer) }
    assert_eq!(reactor.stats().live, 0);
}

// Grammar.

#[test]
fn sources_may_be_values_references_and_boxes() {
    struct Node {
        timer: Timer,
        ticker: Rc<Ticker>,
        inboxes: Vec<Inbox<u8>>,
        deadline: Option<Timer>,
    }
    let _watchdog = watchdog();
    let (sim, reactor) = simulated();
    let (_tx, inbox) = inbox_with(&reactor, [9]);
    let mut node = Node {
        timer: reactor.at(at(1)),
        ticker: Rc::new(reactor.every(secs(2)).unwrap()),
        inboxes: vec![inbox],
        deadline: Some(reactor.at(at(3))),
    };
    let boxed: Box<dyn Source<Item = Time>> = Box::new(reactor.at(at(5)));
    let mut plain = reactor.at(at(7));
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let node = &mut node;
        select! { reactor;
            recv(node.timer) -> t => seen.push((t, 't')),
            recv(node.ticker) -> tick => {
                seen.push((tick.scheduled, 'k'));
                if tick.scheduled == at(4) { node.ticker.stop(); }
            },
            recv(&node.inboxes[0]) -> n => { assert_eq!(n, Ok(9)); seen.push((sim.now(), 'i')); }
            recv(&mut node.deadline) -> t => seen.push((t, 'd')),
            recv(boxed) -> t => seen.push((t, 'b')),
            recv(&mut plain) -> t => seen.push((t, 'p')),
            default(secs(100)) => unreachable!(),
        }
    }
    assert_eq!(
        seen,
        [
            (at(0), 'i'),
            (at(1), 't'),
            (at(2), 'k'),
            (at(3), 'd'),
            (at(4), 'k'),
            (at(5), 'b'),
            (at(7), 'p')
        ]
    );
    // A source made in the case lives as long as the wait.
    select! { reactor; recv(reactor.after(SECOND)) -> t => assert_eq!(t, at(8)) }
    select! { reactor;
        recv({ let t = reactor.timer(); t.reset(SECOND); t }) -> t => assert_eq!(t, at(9)),
    }
    select! { reactor; recv(&&Rc::new(Box::new(reactor.at(at(10))))) -> t => assert_eq!(t, at(10)) }
    // The reactor may be a value, a reference or an expression, too.
    let (handle, shared) = (reactor.handle(), Rc::new(support::on(Sim::new())));
    select! { handle; recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { &handle; recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { &reactor; recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { reactor.handle(); recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { **shared; recv(shared.after(SECOND)) -> t => assert_eq!(t, at(1)) }
}

#[test]
#[rustfmt::skip] // rustfmt would remove the commas under test
fn cases_accept_commas_like_match_arms() {
    let (_, reactor) = simulated();
    let (a, b) = (Switch::on(), never::<u8>());
    let mut n = 0;
    select! { reactor; recv(a) -> _ => n += 1 }
    select! { reactor; recv(a) -> _ => n += 1, }
    select! { reactor; recv(a,) -> _ => { n += 1 } }
    select! { reactor; recv(a) -> _ => { n += 1 }, }
    select! { reactor; recv(a) -> _ => { n += 1 } recv(b) -> _ => {} }
    select! { reactor; recv(b) -> _ => {}, recv(a) -> _ => { n += 1 }, }
    select! { reactor; recv(b) -> _ => {} default => n += 1 }
    select! { reactor; recv(b) -> _ => {} default => { n += 1 } }
    select! { reactor; recv(b) -> _ => {}, default() => n += 1, }
    select! { reactor; default => { n += 1 } recv(b) -> _ => {} }
    select! { reactor; default => n += 1, recv(b) -> _ => unreachable!(), }
    select! { reactor; default(Duration::ZERO,) => { n += 1 } recv(b) -> _ => {} }
    select! { reactor; recv(b) -> _ => {} default(Duration::ZERO) => n += 1 }
    select! { reactor; error -> e => panic!("{e}"), recv(a) -> _ => n += 1 }
    select! { reactor; error -> e => { panic!("{e}") } recv(a) -> _ => n += 1 }
    select! { reactor; recv(b) -> _ => {} error -> _ => { n += 1 } }
    select! { reactor; recv(b) -> _ => {} error -> _ => n += 1, }
    select! { reactor; biased; default => {} error -> e => panic!("{e}"), recv(a) -> _ => n += 1 }
    select! { reactor; default => n += 1 }
    select! { reactor; default => { n += 1 } }
    select! { reactor; default(Duration::from_secs(1)) => n += 1, }
    select! { reactor;
        recv(a) -> _ => if n > 0 { n += 1 } else { unreachable!() },
        recv(b) -> _ => {}
    }
    select! { reactor; recv(a) -> _ => match n { 0 => unreachable!(), _ => n += 1 }, default => {} }
    select![reactor; recv(a) -> _ => n += 1];
    select!(reactor; recv(a) -> _ => n += 1);
    assert_eq!(n, 25);
}

#[test]
fn arms_destructure_items_by_patterns() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(SECOND).unwrap();
    sim.advance(Duration::from_millis(3_500));
    select! { reactor;
        recv(ticker) -> Tick { scheduled, missed } => assert_eq!((scheduled, missed), (at(1), 2)),
    }
    select! { reactor; recv(ticker) -> Tick { scheduled: t, .. } => assert_eq!(t, at(4)) }
    let (_tx, inbox) = inbox_with(&reactor, [(1, [2, 3]), (4, [5, 6])]);
    select! { reactor; recv(inbox) -> mut pair => {
        pair = pair.map(|(a, b)| (a + 1, b));
        assert_eq!(pair, Ok((2, [2, 3])));
    } }
    select! { reactor;
        recv(inbox) -> ref pair => assert_eq!(pair.as_ref().map(|pair| pair.0), Ok(4)),
    }
    struct Pair;
    impl Source for Pair {
        type Item = (u8, (&'static str, [u8; 2]));
        fn is_ready(&self) -> bool {
            true
        }
        fn try_take(&self) -> Option<Self::Item> {
            Some((1, ("two", [3, 4])))
        }
    }
    select! { reactor; recv(Pair) -> (a, (b, [c, _])) => assert_eq!((a, b, c), (1, "two", 3)) }
    select! { reactor; recv(Pair) -> (whole @ 0..=255, (..)) => assert_eq!(whole, 1) }
    let nothing = never::<(u8, u8)>();
    select! { reactor; recv(nothing) -> (_, _) => unreachable!(), default => {} }
    select! { reactor;
        recv(nothing) -> (_a, _b) => unreachable!(),
        error -> ref e => assert_eq!(e.kind(), io::ErrorKind::Deadlock),
    }
}

#[test]
fn user_names_never_clash_with_macro_names() {
    let (_, outer) = simulated();
    // These are the names that the macro may use inside, here as sources, items and reactor.
    let (reactor, cases, picked, item, error, index) =
        (outer.handle(), Switch::on(), never::<u8>(), Switch::on(), Switch::on(), Switch::on());
    let mut counts = [0; 4];
    for _ in 0..400 {
        select! { reactor;
            recv(cases) -> cases => counts[0] += cases.min(1) as usize,
            recv(picked) -> picked => unreachable!("{picked}"),
            recv(item) -> item => counts[1] += item.min(1) as usize,
            recv(error) -> reactor => counts[2] += reactor.min(1) as usize,
            recv(index) -> index => counts[3] += index.min(1) as usize,
            error -> error => panic!("{error}"),
        }
    }
    assert_eq!(counts.iter().sum::<usize>(), 400);
    assert!(counts.iter().all(|&n| n > 0), "{counts:?}");
    let x = Switch::on();
    select! { reactor;
        recv(x) -> x => select! { outer;
            recv(picked) -> x => unreachable!("{x}"),
            default => assert_eq!(x, 1),
        },
    }
    assert_eq!(x.taken.get(), 1);
    // The expansion uses full paths, so shadowed names of the prelude change nothing.
    #[allow(non_snake_case, dead_code, unused_variables)]
    {
        struct Option;
        struct Some;
        fn Ok() {}
        struct None;
        enum Result {}
        struct Err;
        select! { reactor; recv(picked) -> _ => unreachable!(), default => {} }
    }
}

#[test]
fn sources_and_timeout_are_evaluated_once_in_order() {
    let (_, reactor) = simulated();
    let order = RefCell::new(Vec::new());
    let note = |name: &'static str| order.borrow_mut().push(name);
    let timer = reactor.after(secs(1));
    let (_tx, inbox) = inbox_with::<u8>(&reactor, []);
    let by_name = |name| {
        note(name);
        &timer
    };
    // The `select!` blocks, and so polls its sources more than once.
    select! { { note("reactor"); &reactor };
        recv({ note("never"); never::<()>() }) -> _ => unreachable!(),
        default({ note("timeout"); secs(2) }) => unreachable!(),
        recv(by_name("timer")) -> t => assert_eq!(t, at(1)),
        recv({ note("inbox"); &inbox }) -> _ => unreachable!(),
    }
    assert_eq!(order.take(), ["reactor", "never", "timer", "inbox", "timeout"]);
    // A case that is not chosen evaluates its source and nothing else.
    timer.reset(Duration::ZERO);
    select! { reactor; biased;
        recv(by_name("first")) -> _ => note("first arm"),
        recv({ note("second"); &timer }) -> _ => note("second arm"),
        default(secs(1)) => note("default arm"),
    }
    assert_eq!(order.take(), ["first", "second", "first arm"]);
}

macro_rules! thirty_two {
    ($reactor:expr; $s:ident; $($head:tt)*) => {
        select! { $reactor; $($head)*
            recv($s[0]) -> _ => 0, recv($s[1]) -> _ => 1,
            recv($s[2]) -> _ => 2, recv($s[3]) -> _ => 3,
            recv($s[4]) -> _ => 4, recv($s[5]) -> _ => 5,
            recv($s[6]) -> _ => 6, recv($s[7]) -> _ => 7,
            recv($s[8]) -> _ => 8, recv($s[9]) -> _ => 9,
            recv($s[10]) -> _ => 10, recv($s[11]) -> _ => 11,
            recv($s[12]) -> _ => 12, recv($s[13]) -> _ => 13,
            recv($s[14]) -> _ => 14, recv($s[15]) -> _ => 15,
            recv($s[16]) -> _ => 16, recv($s[17]) -> _ => 17,
            recv($s[18]) -> _ => 18, recv($s[19]) -> _ => 19,
            recv($s[20]) -> _ => 20, recv($s[21]) -> _ => 21,
            recv($s[22]) -> _ => 22, recv($s[23]) -> _ => 23,
            recv($s[24]) -> _ => 24, recv($s[25]) -> _ => 25,
            recv($s[26]) -> _ => 26, recv($s[27]) -> _ => 27,
            recv($s[28]) -> _ => 28, recv($s[29]) -> _ => 29,
            recv($s[30]) -> _ => 30, recv($s[31]) -> _ => 31,
        }
    };
}

#[test]
fn thirty_two_cases_work() {
    let (_, reactor) = simulated();
    let s: [Switch; 32] = std::array::from_fn(|_| Switch::default());
    for n in 0..32 {
        s[n].ready.set(true);
        assert_eq!(thirty_two!(reactor; s;), n);
        assert_eq!(thirty_two!(reactor; s; biased; default => 99, error -> e => panic!("{e}"),), n);
        s[n].ready.set(false);
    }
    assert_eq!(thirty_two!(reactor; s; default(SECOND) => 99,), 99);
    s.iter().for_each(|switch| switch.ready.set(true));
    let mut seen = [false; 32];
    // 3,000 fair choices miss a case once in 10^40 runs.
    (0..3_000).for_each(|_| seen[thirty_two!(reactor; s;)] = true);
    assert_eq!(seen, [true; 32]);
}

// Failures.

#[test]
fn a_panicking_arm_leaves_the_reactor_usable() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = inbox_with(&reactor, [1, 2]);
    let timer = reactor.after(secs(1));
    let text = panic_text(|| select! { reactor; recv(inbox) -> n => panic!("arm {}", n.unwrap()) });
    assert_eq!(text, "arm 1");
    select! { reactor;
        recv(inbox) -> n => assert_eq!(n, Ok(2)),
        recv(timer) -> _ => unreachable!(),
    }
    assert_eq!(panic_text(|| select! { reactor; recv(timer) -> _ => panic!("timer") }), "timer");
    assert_eq!(
        panic_text(|| select! { reactor; recv(timer) -> _ => {}, default => panic!("default") }),
        "default"
    );
    assert!(!timer.stop(), "the chosen arm took the value");
    timer.reset(secs(1));
    tx.send(3).unwrap();
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(3)) }
    select! { reactor; recv(timer) -> t => assert_eq!(t, at(2)) }
    let mut events = Events::with_capacity(1);
    tx.send(4).unwrap();
    reactor.wait(&mut events).unwrap();
    assert_eq!((events.len(), sim.now()), (1, at(2)));
}

#[test]
fn a_panicking_source_expression_consumes_nothing() {
    let (_, reactor) = simulated();
    let (_tx, inbox) = inbox_with(&reactor, [1]);
    fn faulty<'a>() -> &'a Timer {
        panic!("no source")
    }
    fn late() -> Duration {
        panic!("no timeout")
    }
    let text =
        panic_text(|| select! { reactor; recv(inbox) -> _ => {}, recv(faulty()) -> _ => {} });
    assert_eq!(text, "no source");
    let text = panic_text(|| select! { reactor; recv(inbox) -> _ => {}, default(late()) => {} });
    assert_eq!(text, "no timeout");
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(1)), default => panic!("lost") }
}

#[test]
fn a_panicking_source_leaves_the_reactor_usable() {
    #[derive(PartialEq)]
    enum At {
        Ready,
        Take,
        Before,
        After,
    }
    struct FaultySource(At);
    impl Source for FaultySource {
        type Item = ();
        fn is_ready(&self) -> bool {
            assert!(self.0 != At::Ready, "faulty");
            self.0 == At::Take
        }
        fn try_take(&self) -> Option<()> {
            panic!("faulty")
        }
        fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
            assert!(self.0 != At::Before, "faulty");
            blocking.wake_at(blocking.now() + Duration::from_millis(1)); // a real sleep with an end
            Ok(())
        }
        fn after_sleep(&self) {
            assert!(self.0 != At::After, "faulty");
        }
    }
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    for place in [At::Ready, At::Take, At::Before, At::After] {
        let faulty = FaultySource(place);
        // The timer is not due, so only the faulty source can be chosen.
        let timer = reactor.after(secs(3600));
        let text = panic_text(|| {
            select! { reactor;
                recv(faulty) -> _ => {},
                recv(inbox) -> _ => {},
                recv(timer) -> _ => {}
            }
        });
        assert_eq!(text, "faulty");
        timer.stop();
        // Messages from another thread still wake the loop, in a `select!` and in a wait.
        let mut events = Events::with_capacity(1);
        for by_wait in [false, true, false] {
            let tx = tx.clone();
            // Most likely the loop sleeps by then.
            let _sender = support::later(Duration::from_millis(2), move || {
                tx.send(by_wait).unwrap();
            });
            if by_wait {
                reactor.wait(&mut events).unwrap();
                assert_eq!(inbox.try_recv(), Ok(true));
            } else {
                select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(false)) }
            }
        }
    }
}

#[test]
fn a_driver_error_goes_to_the_error_case() {
    let (sim, reactor, script) = scripted_reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let timer = reactor.after(secs(1));
    let mut events = Events::with_capacity(1);

    script.fail("broken driver");
    let error = select! { reactor;
        recv(inbox) -> _ => unreachable!(),
        recv(timer) -> _ => unreachable!(),
        error -> e => e,
    };
    assert_eq!(error.to_string(), "broken driver");
    // A ready case needs no driver.
    script.fail("broken again");
    tx.send(1).unwrap();
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(1)), error -> e => panic!("{e}") }
    let text = panic_text(|| select! { reactor; recv(inbox) -> _ => {}, recv(timer) -> _ => {} });
    assert!(
        text.contains("broken again") && text.contains("pollmux") && text.contains("error -> e"),
        "{text}"
    );
    script.fail("broken in a wait");
    assert_eq!(reactor.wait(&mut events).unwrap_err().to_string(), "broken in a wait");
    script.fail("broken in a default");
    let text = select! { reactor;
        recv(timer) -> _ => unreachable!(),
        default(secs(9)) => unreachable!(),
        error -> e => e.to_string(),
    };
    assert_eq!(text, "broken in a default");
    // No message was lost, and the reactor is awake: a send makes no wake-up.
    let wakes = script.wakes();
    tx.send(2).unwrap();
    assert_eq!(script.wakes(), wakes);
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(2)) }
    select! { reactor;
        recv(inbox) -> _ => unreachable!(),
        recv(timer) -> t => assert_eq!(t, at(1)),
    }
    assert_eq!(sim.now(), at(1));
}

#[test]
fn a_source_error_withdraws_every_case() {
    struct Failing;
    impl Source for Failing {
        type Item = ();
        fn is_ready(&self) -> bool {
            false
        }
        fn try_take(&self) -> Option<()> {
            None
        }
        fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
            Err(io::Error::new(io::ErrorKind::NotFound, "cannot wait"))
        }
    }
    let (_, reactor, script) = scripted_reactor();
    let (first, last) = (Switch::default(), Switch::default());
    let timer = reactor.after(SECOND);
    let error = select! { reactor;
        recv(first) -> _ => unreachable!(),
        recv(Failing) -> _ => unreachable!(),
        recv(last) -> _ => unreachable!(),
        recv(timer) -> _ => unreachable!(),
        error -> e => e,
    };
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (io::ErrorKind::NotFound, "cannot wait")
    );
    assert_eq!((first.before_sleeps.get(), first.after_sleeps.get()), (1, 1));
    assert_eq!(
        last.after_sleeps.get(),
        1,
        "after_sleep runs for every source, also after an error"
    );
    assert_eq!(script.sleeps(), 0);
    select! { reactor; recv(timer) -> t => assert_eq!(t, at(1)) }
}

#[test]
fn a_foreign_source_is_refused_by_case_number() {
    let (_, reactor) = simulated();
    let (_, other) = simulated();
    let (mine, foreign) = (reactor.after(SECOND), other.after(SECOND));
    let (_tx, inbox) = inbox_with::<u8>(&other, []);
    let ticker = other.every(SECOND).unwrap();
    let refused = |error: io::Error, case: &str| {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains(case) && text.contains("another reactor"), "{text}");
    };
    select! { reactor;
        recv(foreign) -> _ => {},
        recv(mine) -> _ => {},
        error -> e => refused(e, "case 1 "),
    }
    select! { reactor;
        recv(mine) -> _ => {},
        recv(&foreign) -> _ => {},
        error -> e => refused(e, "case 2 "),
    }
    select! { reactor;
        recv(mine) -> _ => {},
        recv(never::<()>()) -> _ => {},
        recv(inbox) -> _ => {},
        error -> e => refused(e, "case 3 "),
    }
    select! { reactor;
        recv(Some(&ticker)) -> _ => {},
        default => panic!("default"),
        error -> e => refused(e, "case 1 "),
    }
    select! { reactor;
        recv(Box::new(&ticker)) -> _ => {},
        default(SECOND) => panic!("default"),
        error -> e => refused(e, "case 1 "),
    }
    let text = panic_text(|| select! { reactor; recv(mine) -> _ => {}, recv(inbox) -> _ => {} });
    assert!(text.contains("case 2 ") && text.contains("another reactor"), "{text}");
    // The refused sources keep their values.
    select! { reactor; recv(mine) -> t => assert_eq!(t, at(1)) }
    select! { other;
        recv(foreign) -> t => assert_eq!(t, at(1)),
        default(secs(2)) => unreachable!(),
    }
}

#[test]
fn the_handle_of_a_dropped_reactor_is_refused() {
    let (_, reactor) = simulated();
    let handle = reactor.handle();
    let timer = reactor.after(SECOND);
    drop(reactor);
    let refused = |error: io::Error| {
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert!(error.to_string().contains("dropped"), "{error}");
    };
    select! { handle; recv(timer) -> _ => unreachable!(), error -> e => refused(e) }
    select! { handle;
        recv(timer) -> _ => unreachable!(),
        default => unreachable!(),
        error -> e => refused(e),
    }
    select! { handle;
        recv(timer) -> _ => unreachable!(),
        default(SECOND) => unreachable!(),
        error -> e => refused(e),
    }
    let text = panic_text(|| select! { handle; recv(timer) -> _ => {}, default => {} });
    assert!(text.contains("dropped"), "{text}");
    let mut events = Events::with_capacity(1);
    refused(handle.wait(&mut events).unwrap_err());
    refused(handle.try_wait(&mut events).unwrap_err());
    refused(handle.wait_timeout(&mut events, SECOND).unwrap_err());
}

#[test]
fn a_nested_wait_of_the_driver_is_refused() {
    let (_, reactor, script) = scripted_reactor();
    let timer = reactor.after(SECOND);
    let (handle, seen) = (reactor.handle(), Rc::new(Cell::new(None)));
    let inner = seen.clone();
    script.on_sleep(move || {
        let nothing = never::<()>();
        inner.set(Some(
            select! { handle; recv(nothing) -> () => unreachable!(), error -> e => e.kind() },
        ));
        Ok(())
    });
    select! { reactor; recv(timer) -> t => assert_eq!(t, at(1)) }
    assert_eq!(seen.get(), Some(io::ErrorKind::ResourceBusy));
}

// Custom sources.

#[test]
fn a_custom_source_wakes_at_its_deadline() {
    struct Countdown<'a> {
        sim: &'a Sim,
        due: Cell<Option<Time>>,
    }
    impl Source for Countdown<'_> {
        type Item = Time;
        fn is_ready(&self) -> bool {
            self.due.get().is_some_and(|due| self.sim.now() >= due)
        }
        fn try_take(&self) -> Option<Time> {
            self.is_ready().then(|| self.due.take()).flatten()
        }
        fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
            assert_eq!(blocking.now(), self.sim.now());
            if let Some(due) = self.due.get() {
                blocking.wake_at(due);
            }
            assert!(!blocking.is_awake());
            Ok(())
        }
    }
    let (sim, reactor) = simulated();
    let countdown = |seconds| Countdown { sim: &sim, due: Cell::new(Some(at(seconds))) };
    let (early, late, timer) = (countdown(2), countdown(5), reactor.at(at(3)));
    let mut seen = Vec::new();
    for _ in 0..4 {
        select! { reactor;
            recv(late) -> t => seen.push(("late", t)),
            recv(timer) -> t => seen.push(("timer", t)),
            recv(early) -> t => seen.push(("early", t)),
            default(secs(10)) => seen.push(("default", sim.now())),
        }
    }
    assert_eq!(seen, [("early", at(2)), ("timer", at(3)), ("late", at(5)), ("default", at(15))]);
}

#[test]
fn custom_sources_that_stay_awake_are_polled_again() {
    /// A source that is ready after its fifth sleep.
    struct Slow {
        asked: Cell<u32>,
        after_sleeps: Cell<u32>,
    }
    impl Source for Slow {
        type Item = u32;
        fn is_ready(&self) -> bool {
            self.asked.get() >= 5
        }
        fn try_take(&self) -> Option<u32> {
            self.is_ready().then(|| self.asked.replace(0))
        }
        fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
            self.asked.set(self.asked.get() + 1);
            blocking.stay_awake();
            assert!(blocking.is_awake());
            Ok(())
        }
        fn after_sleep(&self) {
            self.after_sleeps.set(self.after_sleeps.get() + 1);
        }
    }
    let (sim, reactor, script) = scripted_reactor();
    let (slow, timer) =
        (Slow { asked: Cell::new(0), after_sleeps: Cell::new(0) }, reactor.after(SECOND));
    select! { reactor; recv(slow) -> n => assert_eq!(n, 5), recv(timer) -> _ => unreachable!() }
    assert_eq!((slow.after_sleeps.get(), script.sleeps(), sim.now()), (5, 0, Time::ZERO));
}

#[test]
fn a_ready_source_without_a_value_is_skipped() {
    /// A source that is always ready and never has a value.
    struct NeverGives;
    impl Source for NeverGives {
        type Item = ();
        fn is_ready(&self) -> bool {
            true
        }
        fn try_take(&self) -> Option<()> {
            None
        }
    }
    let (_, reactor) = simulated();
    let on = Switch::on();
    for _ in 0..100 {
        select! { reactor;
            recv(NeverGives) -> () => unreachable!(),
            recv(on) -> _ => {},
            recv(NeverGives) -> () => unreachable!(),
        }
        select! { reactor; biased; recv(NeverGives) -> () => unreachable!(), recv(on) -> _ => {} }
    }
    assert_eq!(on.taken.get(), 200);
    select! { reactor; recv(NeverGives) -> () => unreachable!(), default => {} }
}

// Fairness.

#[test]
fn busy_channels_do_not_hide_a_due_timer() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let timer = reactor.timer();
    for round in 0..500 {
        timer.reset(Duration::from_micros(10));
        for _ in 0..10 {
            tx.try_send(round).unwrap();
            select! { reactor; biased;
                recv(timer) -> _ => panic!("the timer is early"),
                recv(inbox) -> n => assert_eq!(n, Ok(round)),
            }
            sim.advance(Duration::from_micros(1));
        }
        tx.try_send(round).unwrap();
        // The timer is due to the nanosecond and the channel is not empty. The next select must
        // find the timer.
        select! { reactor; biased;
            recv(timer) -> t => assert_eq!(t, sim.now()),
            recv(inbox) -> _ => panic!("the due timer was not chosen"),
        }
        assert_eq!(inbox.try_recv(), Ok(round));
    }
}

#[test]
fn busy_real_loops_find_due_timers_at_once() {
    // A busy turn reads a cheap clock that could lag. Only wall time shows that.
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let timer = reactor.timer();
    // Returns true if the first select that began when the timer was due has chosen the timer.
    let at_once = |delay: Duration| {
        timer.reset(delay);
        let due = timer.deadline().unwrap();
        let mut late = false;
        loop {
            tx.try_send(()).unwrap();
            let must = Time::now() >= due;
            let fired = select! { reactor; biased;
                recv(timer) -> t => { assert_eq!(t, due); assert!(Time::now() >= due); true }
                recv(inbox) -> _ => false,
            };
            inbox.try_iter().for_each(drop);
            if fired {
                return !late;
            }
            late |= must;
        }
    };
    for delay in [0, 1, 20, 300, 2_000, 9_000, 15_000, 30_000].map(Duration::from_micros) {
        // On a virtual machine that is kept from running, the cheap clock may lag by more than the
        // allowance. A wrong allowance is late nearly always.
        let late = (0..10).filter(|_| !at_once(delay)).count();
        assert!(late < 5, "the due timer of {delay:?} was missed {late} times of 10");
    }
}

#[test]
fn always_ready_sources_share_the_turns() {
    let (_, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.after(Duration::ZERO);
    let ticker = reactor.every(Duration::from_nanos(1)).unwrap();
    tx.try_send(0u32).unwrap();
    let mut counts = [0; 2];
    let mut sent = 0;
    for _ in 0..40_000 {
        counts[select! { reactor;
            recv(inbox) -> n => {
                assert_eq!(n, Ok(sent));
                sent += 1;
                tx.try_send(sent).unwrap();
                0
            }
            // A timer reset to zero in its own arm is due in the next turn.
            recv(timer) -> _ => { timer.reset(Duration::ZERO); 1 }
        }] += 1;
    }
    assert_uniform(&counts);
    assert_eq!(sent, counts[0]);
    drop(ticker);
}

#[test]
fn turns_with_a_ready_source_make_no_syscall() {
    let reactor = support::reactor();
    let (_tx, inbox) = inbox_with(&reactor, 0..64);
    let timer = reactor.timer();
    let before = reactor.stats();
    for n in 0..64 {
        timer.reset(Duration::ZERO);
        select! { reactor; biased; recv(timer) -> _ => {}, recv(inbox) -> _ => unreachable!() }
        select! { reactor;
            recv(timer) -> _ => unreachable!(),
            recv(inbox) -> got => assert_eq!(got, Ok(n)),
        }
        select! { reactor; recv(timer) -> _ => unreachable!(), default => {} }
    }
    let during = reactor.stats() - before;
    assert_eq!((during.turns, during.expired, during.syscalls()), (192, 64, 0), "{during}");
}

#[test]
fn a_refused_foreign_source_keeps_its_message() {
    let (here, there) = (support::reactor(), support::reactor());
    let (tx, inbox) = there.channel(1).unwrap();
    tx.send(7).unwrap();
    select! { here;
        recv(inbox) -> _ => panic!("the message was taken"),
        error -> e => assert_eq!(e.kind(), io::ErrorKind::InvalidInput),
    }
    select! { there; recv(inbox) -> seven => assert_eq!(seven, Ok(7)) }
}

#[test]
fn a_dropped_reactor_refuses_even_ready_sources() {
    let reactor = support::reactor();
    let handle = reactor.handle();
    let (tx, inbox) = reactor.channel(1).unwrap();
    tx.send(7).unwrap();
    drop(reactor);
    select! { handle;
        recv(inbox) -> _ => panic!("the message was taken"),
        error -> e => assert_eq!(e.kind(), io::ErrorKind::NotConnected),
    }
    assert_eq!(inbox.try_recv(), Ok(7), "the message is lost");
}
