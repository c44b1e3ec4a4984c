//! `select!`: who is chosen, what a case that is not chosen keeps, the grammar, and what happens
//! when something goes wrong.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{self, RecvError};
use pollmux::{
    Events, Inbox, Reactor, Select, Sim, Source, Tick, Ticker, Time, Timer, never, select,
    sources::{BeforeSleep, Never},
};
use support::{dog, panic_text, rounds, scripted_reactor, secs, simulated, thread};

const SECOND: Duration = Duration::from_secs(1);

/// A point on the virtual clock.
fn at(seconds: u64) -> Time {
    Time::ZERO + secs(seconds)
}

/// An inbox that holds these messages and will get no more, though its sender lives on.
fn holding<T>(
    reactor: &Reactor,
    messages: impl IntoIterator<Item = T>,
) -> (channel::Sender<T>, Inbox<T>) {
    let (tx, inbox) = reactor.channel(64).unwrap();
    messages.into_iter().for_each(|message| assert!(tx.try_send(message).is_ok()));
    (tx, inbox)
}

/// A source of its own making: ready as its cell says, and counting what is done to it.
#[derive(Default)]
struct Switch {
    ready: Cell<bool>,
    taken: Cell<u32>,
    befores: Cell<u32>,
    afters: Cell<u32>,
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
        self.befores.set(self.befores.get() + 1);
        Ok(())
    }
    fn after_sleep(&self) {
        self.afters.set(self.afters.get() + 1);
    }
}

// Who is chosen.

/// How far counts are from all being equal. With n counts this is about n - 1, give or take a few
/// times its root.
fn chi_squared(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

/// The seed differs from run to run, so the limits are those of one failure in a thousand million
/// fair runs.
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
fn each_of_the_ready_cases_has_the_same_chance() {
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
    // Nor does one choice say anything about the next.
    assert_uniform(&pairs);
}

#[test]
fn cases_that_are_not_ready_take_no_share() {
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
fn a_source_that_is_named_twice_has_two_chances() {
    let _dog = dog();
    let (_, reactor) = simulated();
    let (_tx, inbox) = holding(&reactor, 0..64);
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
    // 64 tosses of a coin: all on one side once in 2^63 runs.
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    // With one message left only one of the two takes it, and then neither is ready.
    assert!(inbox.is_empty());
    select! { reactor;
        recv(inbox) -> _ => unreachable!(),
        recv(inbox) -> _ => unreachable!(),
        default => {}
    }
}

#[test]
fn an_inbox_in_two_cases_is_waited_for_once_and_received_once() {
    let _dog = dog();
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
fn biased_takes_the_first_that_is_ready() {
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
fn a_case_that_is_not_chosen_keeps_what_it_has() {
    let (sim, reactor) = simulated();
    let (_tx, left) = holding(&reactor, 0..40);
    let (_ty, right) = holding(&reactor, 0..40);
    let timer = reactor.after(SECOND);
    let ticker = reactor.every(SECOND).unwrap();
    sim.advance(SECOND);
    let (mut lefts, mut rights, mut due, mut ticks) = (0, 0, 0, 0);
    for turn in 1..=82 {
        select! { reactor;
            recv(left) -> n => { assert_eq!(n, Ok(lefts)); lefts += 1; }
            recv(right) -> n => { assert_eq!(n, Ok(rights)); rights += 1; }
            recv(timer) -> t => { assert_eq!(t, at(1)); due += 1; }
            recv(ticker) -> tick => {
                assert_eq!(tick, Tick { scheduled: at(1), missed: 0 });
                ticks += 1;
            }
            default => panic!("something is ready in turn {turn}"),
        }
        assert_eq!(left.len() + lefts, 40);
        assert_eq!(right.len() + rights, 40);
        assert_eq!(timer.deadline(), (due == 0).then(|| at(1)));
        assert_eq!(ticker.deadline(), Some(at(1 + ticks)));
    }
    assert_eq!((lefts, rights, due, ticks), (40, 40, 1, 1));
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
    let _dog = dog();
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

    // What another thread says it has sent is there.
    let all = rounds(250);
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (go, gone) = channel::bounded::<()>(1);
    let (done, said) = channel::bounded(1);
    let sender = thread::spawn(move || {
        for n in 0..all {
            gone.recv().unwrap();
            tx.try_send(n).unwrap();
            done.send(()).unwrap();
        }
    });
    for n in 0..all {
        go.send(()).unwrap();
        said.recv().unwrap();
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Ok(n)),
            default => panic!("default in turn {n}"),
        }
    }
    sender.join().unwrap();
}

#[test]
fn default_with_a_timeout_runs_when_it_is_over_and_not_a_ns_before() {
    let (sim, reactor) = simulated();
    let (_tx, inbox) = holding::<u8>(&reactor, []);
    let timer = reactor.timer();
    for timeout in [Duration::from_nanos(1), Duration::from_micros(7), SECOND, secs(86_400 * 365)] {
        let start = sim.now();
        select! { reactor;
            recv(inbox) -> _ => unreachable!(),
            recv(timer) -> _ => unreachable!(),
            default(timeout) => assert_eq!(sim.now(), start + timeout),
        }
        // A case that is due before beats it, and one that is due after does not.
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
fn default_with_a_timeout_of_zero_does_not_wait() {
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
fn what_is_due_before_the_timeout_beats_it_however_late_the_thread_is() {
    let late = |wait: fn(&Reactor, &Timer) -> bool| {
        let (sim, reactor) = simulated();
        // The turn has looked at the clock, and then this takes longer than the timer, and than the
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
    // A callback, too, is called within the sleep that it is due in.
    late(|reactor, _| {
        let called = Rc::new(Cell::new(false));
        let call = called.clone();
        reactor.call_after(secs(15), move |_| call.set(true)).detach();
        reactor.sleep_blocking(TIMEOUT).unwrap();
        called.get()
    });
}

#[test]
fn a_reactor_dropped_by_a_callback_that_is_due_with_the_timeout_is_an_error_and_no_timeout() {
    let (sim, reactor) = simulated();
    let handle = reactor.handle();
    let (idle, mut reactor) = (reactor.timer(), Some(reactor));
    handle.call_after(Duration::ZERO, move |_| sim.advance(secs(30))).detach();
    handle.call_after(secs(10), move |_| drop(reactor.take())).detach();
    select! { handle;
        recv(idle) -> _ => unreachable!(),
        default(secs(20)) => panic!("nobody is there to wait"),
        error -> e => assert_eq!(e.kind(), io::ErrorKind::NotConnected),
    }
}

#[test]
fn a_message_that_came_before_the_timeout_was_seen_beats_it() {
    /// Takes 30 s to say that it has nothing, during which another thread has sent something.
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
        // With nothing to wait for it is the same as no default at all.
        let kind = select! { reactor;
            recv(timer) -> _ => unreachable!(),
            default(timeout) => unreachable!(),
            error -> e => e.kind(),
        };
        assert_eq!((kind, sim.now()), (io::ErrorKind::Deadlock, start + SECOND));
    }
}

#[test]
fn default_with_a_timeout_is_never_early_in_real_time() {
    // Wall time: what is tested is the kernel's clock against the timeout.
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
fn a_wake_up_for_nothing_does_not_end_a_wait() {
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

// Sources that are not there.

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
    assert_eq!(kind, io::ErrorKind::Deadlock, "in virtual time to block for ever is an error");
    // And without an error case it panics with the cause.
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
fn a_case_whose_condition_is_false_takes_no_part() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (there, rx) = channel::bounded(1);
    let outbox = reactor.register(there).unwrap();
    // For both values of both conditions, at random and in order: both cases are ready.
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
fn a_source_whose_condition_is_false_is_evaluated_and_not_touched() {
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
    let told = |n| {
        order.borrow_mut().push(n);
        n
    };
    select! { reactor;
        recv({ told(1); Untouched }, if told(2) > 2) -> () => unreachable!(),
        recv(Untouched, if matches!(told(3), 4..)) -> () => unreachable!(),
        default(secs(told(4))) => {}
    }
    assert_eq!((order.into_inner(), sim.now()), (vec![1, 2, 3, 4], at(4)));
    // A value that is not sent is not evaluated.
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register(tx).unwrap();
    let no_value = || unreachable!();
    select! { reactor; send(outbox, no_value(), if false) -> _ => {} default => {} }
    assert_eq!(rx.try_recv(), Err::<(), _>(channel::TryRecvError::Empty));
}

#[test]
fn a_source_can_come_and_go() {
    let _dog = dog();
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
fn arms_are_code_of_the_function_around() {
    let _dog = dog();
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
        Ok(if sum == 9 { "broke with 9" } else { "broke with something else" })
    }
    let (_, reactor) = simulated();
    let (tx, inbox) = holding(&reactor, [1, 2, 3, 4, 5, 7, 8, 9, 11]);
    assert_eq!(until_seven(&reactor, &inbox), Ok("broke with 9"));
    assert_eq!(until_seven(&reactor, &inbox), Ok("returned"));
    drop(tx);
    assert_eq!(until_seven(&reactor, &inbox), Err(RecvError));
}

#[test]
fn a_default_arm_may_break_too_and_so_may_an_error_arm() -> io::Result<()> {
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
    // `?` on the driver's error itself.
    let failed = (|| -> io::Result<u8> {
        Ok(select! { reactor; recv(nothing) -> n => n, error -> e => return Err(e) })
    })();
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::Deadlock);
    Ok(())
}

#[test]
fn a_select_has_the_value_of_its_arm() {
    let (_, reactor) = simulated();
    let (_tx, inbox) = holding(&reactor, [String::from("a"), String::from("b")]);
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
    // As the tail of a block, in an argument, and as a condition.
    let tail = {
        select! { reactor; recv(nothing) -> n => n, default => 8 }
    };
    assert_eq!(Some(tail), Some(select! { reactor; recv(nothing) -> n => n, default => 8 }));
    assert!(select! { reactor; recv(nothing) -> _ => false, default => true });
}

#[test]
fn a_select_may_stand_in_an_arm() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = holding(&reactor, [1, 2, 3]);
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
    // The same source in both, and in the default of another.
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
fn an_arm_may_reset_the_ticker_it_fired_on() {
    let _dog = dog();
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
    // 1, then every 10 from there: 11; then 5 s of work, and anew from 16: 26; then every 2.
    assert_eq!(times, [at(1), at(11), at(26), at(28), at(30)]);
}

#[test]
fn an_arm_may_replace_stop_and_drop_sources_and_use_the_reactor() {
    let (sim, reactor) = simulated();
    let handle = reactor.handle();
    let mut timer = reactor.after(secs(1));
    let mut ticker = reactor.every(secs(1)).unwrap();
    let mut extra: Vec<Timer> = Vec::new();
    // Both are due: whichever comes first takes the other away, so exactly one arm runs.
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
                assert!(ticker.stop(), "it goes on ticking");
            }
        }
        select! { reactor;
            recv(timer) -> _ => panic!("stale"),
            recv(ticker) -> _ => panic!("stale"),
            default => {}
        }
        extra.push(handle.after(secs(1_000)));
        timer = handle.after(secs(1));
        ticker = reactor.every(secs(1)).unwrap();
        assert_eq!(reactor.stats().live, extra.len() + 2, "round {round}");
    }
    assert!(extra.iter().all(|timer| timer.stop()));
    let mut inbox = holding(&reactor, [1]).1;
    select! { reactor;
        recv(inbox) -> n => {
            assert_eq!(n, Ok(1));
            // The old one is dropped while its own arm runs.
            inbox = holding(&reactor, [2]).1;
        }
    }
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(2)) }
}

#[test]
fn an_arm_that_takes_the_item_owns_it() {
    let (_, reactor) = simulated();
    let (_tx, inbox) = holding(&reactor, [vec![1], vec![2]]);
    let mut all = Vec::new();
    select! { reactor; recv(inbox) -> item => all.extend(item.unwrap()) }
    // A moved handle: the arm consumes the very source it fired on.
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
    let _dog = dog();
    let (sim, reactor) = simulated();
    let (_tx, inbox) = holding(&reactor, [9]);
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
    // A source made in the case itself lives as long as the wait.
    select! { reactor; recv(reactor.after(SECOND)) -> t => assert_eq!(t, at(8)) }
    select! { reactor;
        recv({ let t = reactor.timer(); t.reset(SECOND); t }) -> t => assert_eq!(t, at(9)),
    }
    select! { reactor; recv(&&Rc::new(Box::new(reactor.at(at(10))))) -> t => assert_eq!(t, at(10)) }
    // And the reactor may be given in as many ways.
    let (handle, shared) = (reactor.handle(), Rc::new(support::on(Sim::new())));
    select! { handle; recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { &handle; recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { &reactor; recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { reactor.handle(); recv(node.timer) -> _ => unreachable!(), default => {} }
    select! { **shared; recv(shared.after(SECOND)) -> t => assert_eq!(t, at(1)) }
}

#[test]
#[rustfmt::skip] // the commas are the point
fn commas_stand_where_rust_has_them() {
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
fn patterns_take_items_apart() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(SECOND).unwrap();
    sim.advance(Duration::from_millis(3_500));
    select! { reactor;
        recv(ticker) -> Tick { scheduled, missed } => assert_eq!((scheduled, missed), (at(1), 2)),
    }
    select! { reactor; recv(ticker) -> Tick { scheduled: t, .. } => assert_eq!(t, at(4)) }
    let (_tx, inbox) = holding(&reactor, [(1, [2, 3]), (4, [5, 6])]);
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
fn variables_of_one_name_do_not_meet() {
    let (_, outer) = simulated();
    // The names that the macro may use inside, as sources, items and reactor.
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
    // Nor does what the user shadows: the expansion names everything in full.
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
fn sources_and_timeout_are_evaluated_once_and_in_order() {
    let (_, reactor) = simulated();
    let order = RefCell::new(Vec::new());
    let note = |name: &'static str| order.borrow_mut().push(name);
    let timer = reactor.after(secs(1));
    let (_tx, inbox) = holding::<u8>(&reactor, []);
    let by_name = |name| {
        note(name);
        &timer
    };
    // It blocks and so looks at the sources more than once.
    select! { { note("reactor"); &reactor };
        recv({ note("never"); never::<()>() }) -> _ => unreachable!(),
        default({ note("timeout"); secs(2) }) => unreachable!(),
        recv(by_name("timer")) -> t => assert_eq!(t, at(1)),
        recv({ note("inbox"); &inbox }) -> _ => unreachable!(),
    }
    assert_eq!(order.take(), ["reactor", "never", "timer", "inbox", "timeout"]);
    // Of a branch that is not taken nothing runs but the source.
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
    // Each is missed by 3,000 fair choices once in 10^40 runs.
    (0..3_000).for_each(|_| seen[thirty_two!(reactor; s;)] = true);
    assert_eq!(seen, [true; 32]);
}

// When something goes wrong.

#[test]
fn a_panicking_arm_leaves_the_reactor_usable() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = holding(&reactor, [1, 2]);
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
    assert!(!timer.stop(), "its arm had been chosen");
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
    let (_tx, inbox) = holding(&reactor, [1]);
    fn bad<'a>() -> &'a Timer {
        panic!("no source")
    }
    fn late() -> Duration {
        panic!("no timeout")
    }
    let text = panic_text(|| select! { reactor; recv(inbox) -> _ => {}, recv(bad()) -> _ => {} });
    assert_eq!(text, "no source");
    let text = panic_text(|| select! { reactor; recv(inbox) -> _ => {}, default(late()) => {} });
    assert_eq!(text, "no timeout");
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(1)), default => panic!("it is gone") }
}

#[test]
fn a_panic_in_a_source_leaves_the_reactor_usable() {
    #[derive(PartialEq)]
    enum At {
        Ready,
        Take,
        Before,
        After,
    }
    struct Bad(At);
    impl Source for Bad {
        type Item = ();
        fn is_ready(&self) -> bool {
            assert!(self.0 != At::Ready, "bad");
            self.0 == At::Take
        }
        fn try_take(&self) -> Option<()> {
            panic!("bad")
        }
        fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
            assert!(self.0 != At::Before, "bad");
            blocking.wake_at(blocking.now() + Duration::from_millis(1)); // a real sleep, that ends
            Ok(())
        }
        fn after_sleep(&self) {
            assert!(self.0 != At::After, "bad");
        }
    }
    let _dog = dog();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    for place in [At::Ready, At::Take, At::Before, At::After] {
        let bad = Bad(place);
        // Never due: only the bad source can be chosen.
        let timer = reactor.after(secs(3600));
        let text = panic_text(|| {
            select! { reactor;
                recv(bad) -> _ => {},
                recv(inbox) -> _ => {},
                recv(timer) -> _ => {}
            }
        });
        assert_eq!(text, "bad");
        timer.stop();
        // Messages from another thread still wake the loop, by select and by wait.
        let mut events = Events::with_capacity(1);
        for by_wait in [false, true, false] {
            let tx = tx.clone();
            // the loop sleeps by then, most likely
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
fn a_driver_that_fails_is_the_error_cases_business() {
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
    // What is ready needs no driver.
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
    // Nothing was lost, and the reactor is asleep no more: a message sent now wakes nobody but is
    // there.
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
fn the_error_of_a_source_comes_out_and_every_case_is_withdrawn() {
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
            Err(io::Error::new(io::ErrorKind::NotFound, "cannot be waited for"))
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
        (io::ErrorKind::NotFound, "cannot be waited for")
    );
    assert_eq!((first.befores.get(), first.afters.get()), (1, 1));
    assert_eq!(last.afters.get(), 1, "after_sleep runs for all, whatever it came to");
    assert_eq!(script.sleeps(), 0);
    select! { reactor; recv(timer) -> t => assert_eq!(t, at(1)) }
}

#[test]
fn a_source_of_another_reactor_is_refused_by_its_number() {
    let (_, reactor) = simulated();
    let (_, other) = simulated();
    let (mine, foreign) = (reactor.after(SECOND), other.after(SECOND));
    let (_tx, inbox) = holding::<u8>(&other, []);
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
    // Nothing was lost by that.
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
fn a_driver_that_waits_on_its_own_reactor_is_an_error() {
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

// Sources of one's own.

#[test]
fn a_source_of_ones_own_is_woken_by_its_deadline() {
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
fn a_source_of_ones_own_that_stays_awake_is_asked_again() {
    /// Ready when it was asked often enough.
    struct Slow {
        asked: Cell<u32>,
        afters: Cell<u32>,
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
            self.afters.set(self.afters.get() + 1);
        }
    }
    let (sim, reactor, script) = scripted_reactor();
    let (slow, timer) = (Slow { asked: Cell::new(0), afters: Cell::new(0) }, reactor.after(SECOND));
    select! { reactor; recv(slow) -> n => assert_eq!(n, 5), recv(timer) -> _ => unreachable!() }
    assert_eq!((slow.afters.get(), script.sleeps(), sim.now()), (5, 0, Time::ZERO));
}

#[test]
fn a_source_that_takes_back_what_it_said_is_passed_over() {
    /// Always says that it is ready and never gives anything.
    struct Fickle;
    impl Source for Fickle {
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
            recv(Fickle) -> () => unreachable!(),
            recv(on) -> _ => {},
            recv(Fickle) -> () => unreachable!(),
        }
        select! { reactor; biased; recv(Fickle) -> () => unreachable!(), recv(on) -> _ => {} }
    }
    assert_eq!(on.taken.get(), 200);
    select! { reactor; recv(Fickle) -> () => unreachable!(), default => {} }
}

// Nobody starves.

#[test]
fn a_busy_channel_does_not_hide_a_due_timer() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let timer = reactor.timer();
    for round in 0..500 {
        timer.reset(Duration::from_micros(10));
        for _ in 0..10 {
            tx.try_send(round).unwrap();
            select! { reactor; biased;
                recv(timer) -> _ => panic!("it is early"),
                recv(inbox) -> n => assert_eq!(n, Ok(round)),
            }
            sim.advance(Duration::from_micros(1));
        }
        tx.try_send(round).unwrap();
        // Due to the nanosecond, and the channel is not empty: the next select sees it.
        select! { reactor; biased;
            recv(timer) -> t => assert_eq!(t, sim.now()),
            recv(inbox) -> _ => panic!("the timer is due"),
        }
        assert_eq!(inbox.try_recv(), Ok(round));
    }
}

#[test]
fn a_busy_channel_does_not_hide_a_due_timer_in_real_time() {
    // Wall time, because it is the cheap look at the clock of a busy turn that could be late.
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let timer = reactor.timer();
    // Whether the first select that began when the timer was due has seen that.
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
        // A virtual machine that is itself kept from running has a coarse clock that lags by more
        // than the look allows for. A wrong look is late nearly always.
        let late = (0..10).filter(|_| !at_once(delay)).count();
        assert!(late < 5, "the timer of {delay:?} was due when a select began, {late} times of 10");
    }
}

#[test]
fn an_inbox_and_a_timer_that_are_always_ready_share_the_turns() {
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
            // Zero in its own arm: due in the next turn, and no sooner.
            recv(timer) -> _ => { timer.reset(Duration::ZERO); 1 }
        }] += 1;
    }
    assert_uniform(&counts);
    assert_eq!(sent, counts[0]);
    drop(ticker);
}

#[test]
fn turns_with_something_to_do_make_no_syscall_and_do_not_sleep() {
    let reactor = support::reactor();
    let (_tx, inbox) = holding(&reactor, 0..64);
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
fn a_ready_source_of_another_reactor_is_refused_and_loses_nothing() {
    let (here, there) = (support::reactor(), support::reactor());
    let (tx, inbox) = there.channel(1).unwrap();
    tx.send(7).unwrap();
    select! { here;
        recv(inbox) -> _ => panic!("taken"),
        error -> e => assert_eq!(e.kind(), io::ErrorKind::InvalidInput),
    }
    select! { there; recv(inbox) -> seven => assert_eq!(seven, Ok(7)) }
}

#[test]
fn a_select_on_a_dropped_reactor_is_refused_even_if_a_message_is_there() {
    let reactor = support::reactor();
    let handle = reactor.handle();
    let (tx, inbox) = reactor.channel(1).unwrap();
    tx.send(7).unwrap();
    drop(reactor);
    select! { handle;
        recv(inbox) -> _ => panic!("taken"),
        error -> e => assert_eq!(e.kind(), io::ErrorKind::NotConnected),
    }
    assert_eq!(inbox.try_recv(), Ok(7), "nothing is lost");
}
