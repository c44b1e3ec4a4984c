//! Checks that callbacks run on time and in order in every kind of wait. A running callback may use
//! the reactor, and each closure is dropped exactly once. Time is virtual, except where a test
//! needs the kernel's timer or an outer loop.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pollmux::sys::{Interest, Mode, PollEvents, Poller};
use pollmux::{
    Callback, CallbackContext, Events, Handle, Reactor, Select, Time, Timer, never,
    reactor::{SourceKind, TimerError},
    select,
};

use support::{
    Drops, HOUR, allocates_nothing, allocations, at, ms, panics_with, ready_keys, scripted,
    simulated, thread, turn, watchdog,
};

/// Records the calls, in order.
#[derive(Clone, Debug, Default)]
struct Log(Rc<RefCell<Vec<u64>>>);

impl Log {
    fn new() -> Log {
        Log::default()
    }

    fn note(&self, n: u64) {
        self.0.borrow_mut().push(n);
    }

    /// Returns a closure that notes `n`.
    fn noting(&self, n: u64) -> impl FnMut(&CallbackContext<'_>) + 'static {
        let log = self.clone();
        move |_| log.note(n)
    }

    /// Checks and clears the notes.
    #[track_caller]
    fn expect(&self, expected: &[u64]) {
        assert_eq!(self.0.take(), expected);
    }
}

/// A callback that its own closure can reach.
type Own = Rc<RefCell<Option<Callback>>>;

/// The name of a wait, and a function that waits for a timer.
type Wait = (&'static str, fn(&Handle, &Timer));

/// Every kind of wait for a timer.
const WAITS: [Wait; 9] = [
    ("select!", |handle, timer| select! { handle; recv(timer) -> _ => {} }),
    (
        "select! with a timeout",
        |handle, timer| select! { handle; recv(timer) -> _ => {}, default(HOUR) => panic!() },
    ),
    ("a timeout", |handle, timer| {
        let left = timer.deadline().unwrap() - handle.now();
        select! { handle; recv(never::<()>()) -> _ => {}, default(left) => {} }
        timer.stop();
    }),
    ("wait", |handle, timer| {
        handle.wait(&mut Events::with_capacity(4)).unwrap();
        assert!(timer.stop());
    }),
    ("wait_timeout", |handle, timer| {
        let mut events = Events::with_capacity(4);
        handle.wait_timeout(&mut events, HOUR).unwrap();
        assert!(!events.is_empty() && timer.stop());
    }),
    ("Select::wait", |handle, timer| {
        let mut select = Select::new(handle);
        select.recv(timer);
        assert!(select.wait().unwrap().recv(timer).is_some());
    }),
    ("Select::wait_timeout", |handle, timer| {
        let mut select = Select::new(handle);
        select.recv(timer);
        assert!(select.wait_timeout(HOUR).unwrap().unwrap().recv(timer).is_some());
    }),
    ("sleep_blocking", |handle, timer| {
        let left = timer.deadline().unwrap() - handle.now();
        handle.sleep_blocking(left).unwrap();
        assert!(timer.stop());
    }),
    ("polling", |handle, timer| {
        let mut events = Events::with_capacity(4);
        while events.is_empty() {
            // Virtual time advances only in a wait with a timeout.
            handle.wait_timeout(&mut events, ms(1)).unwrap();
        }
        assert!(timer.stop());
    }),
];

// Times and order of calls.

#[test]
fn callbacks_run_in_order_of_deadline_then_arming() {
    let (sim, reactor) = simulated();
    let log = Log::new();
    let deadlines = [5, 3, 6, 6, 1, 3, 1, 2, 6];
    let callbacks: Vec<_> =
        (0..).zip(deadlines).map(|(n, d)| reactor.call_after(ms(d), log.noting(n))).collect();
    // A callback that is armed again comes behind the others with the same deadline.
    assert!(callbacks[1].reset(ms(3)));
    assert!(callbacks[2].reset_at(at(6)));
    sim.advance(ms(5));
    turn(&reactor);
    log.expect(&[4, 6, 7, 5, 1, 0]);
    reactor.sleep_blocking(ms(5)).unwrap();
    log.expect(&[3, 8, 2]);
    assert_eq!(reactor.stats().called, 9);
}

#[test]
fn every_wait_calls_callbacks_on_time_and_continues() {
    for (name, wait) in WAITS {
        let (sim, reactor) = simulated();
        let log = Log::new();
        let timer = reactor.after(ms(10));
        let called = log.clone();
        let again = reactor.call_after(ms(2), move |cx| {
            called.note((cx.now() - Time::ZERO).as_millis() as u64);
            assert_eq!(cx.scheduled(), cx.now());
            cx.reset(ms(3));
        });
        let once = reactor.call_at(at(4), log.noting(100));
        wait(&reactor, &timer);
        assert_eq!(sim.now(), at(10), "{name}");
        log.expect(&[2, 100, 5, 8]);
        assert_eq!((again.deadline(), once.deadline()), (Some(at(11)), None), "{name}");
    }
}

#[test]
fn a_turn_without_a_wait_calls_due_callbacks() {
    type Turn = (&'static str, fn(&Handle));
    let turns: [Turn; 5] = [
        ("select! with default", turn),
        ("select! with a timeout of zero", |handle| {
            select! { handle; recv(never::<()>()) -> _ => {}, default(Duration::ZERO) => {} }
        }),
        ("try_wait", |handle| assert_eq!(ready_keys(handle), [])),
        ("Select::try_wait", |handle| {
            let nothing = never::<()>();
            let mut select = Select::new(handle);
            select.recv(nothing);
            assert!(select.try_wait().unwrap().is_none());
        }),
        ("sleep_blocking of zero", |handle| handle.sleep_blocking(Duration::ZERO).unwrap()),
    ];
    for (name, turn) in turns {
        let (sim, reactor) = simulated();
        let log = Log::new();
        let _due =
            [reactor.call_after(ms(0), log.noting(0)), reactor.call_at(Time::ZERO, log.noting(1))];
        let _later = reactor.call_after(ms(1), log.noting(2));
        turn(&reactor);
        assert_eq!((log.0.take(), sim.now()), (vec![0, 1], at(0)), "{name}");
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn embedded_turns_call_due_callbacks() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let inner = reactor.embed().unwrap();
    let (outer, mut events) = (Poller::new().unwrap(), PollEvents::with_capacity(4));
    outer.register(&inner, 0, Interest::READABLE, Mode::Level).unwrap();
    let log = Log::new();
    let _at_once = reactor.call_after(ms(0), log.noting(0));
    let later = reactor.call_after(ms(5), log.noting(1));
    let due = later.deadline().unwrap();
    // This test needs real time: the outer loop sleeps until the kernel's timer makes the fd
    // readable.
    while log.0.borrow().len() < 2 {
        outer.wait(&mut events, None).unwrap();
        assert_eq!(inner.turn().unwrap(), 0);
    }
    log.expect(&[0, 1]);
    assert!(Time::now() >= due);
    outer.wait(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "the fd is readable although no work is left");
}

#[test]
fn callbacks_run_before_a_select_polls_its_sources() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let sender = tx.clone();
    let callback = reactor.call_after(ms(0), move |_| sender.send(1).unwrap());
    select! { reactor;
        recv(inbox) -> n => assert_eq!(n, Ok(1)),
        default => panic!("the callback's message was not received"),
    }
    // The callback also runs when a case is ready already.
    tx.send(0).unwrap();
    callback.reset(ms(0));
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(0)) }
    assert_eq!(inbox.try_recv(), Ok(1));
    // A wait also finds sources that its callbacks made ready.
    callback.reset(ms(0));
    assert_eq!(ready_keys(&reactor), [inbox.key()]);
}

#[test]
fn a_callback_is_never_early_in_real_time() {
    let reactor = support::reactor();
    let called = Rc::new(Cell::new(None));
    let call = called.clone();
    let callback = reactor.call_after(HOUR, move |cx| {
        call.set(Some(Instant::now()));
        assert!(Time::now() >= cx.scheduled() && cx.now() >= cx.scheduled());
    });
    // This test needs real time, because it covers the kernel's timer and two conversions between
    // clocks.
    for nanos in [0, 1, 999, 30_000, 99_999, 500_001, 999_999, 1_000_001, 2_500_000] {
        let d = Duration::from_nanos(nanos);
        for _ in 0..5 {
            let begin = Instant::now();
            callback.reset(d);
            while called.get().is_none() {
                reactor.sleep_blocking(d).unwrap();
            }
            assert!(called.take().unwrap() - begin >= d, "{d:?}");

            let target = Instant::now() + d;
            callback.reset_at(target);
            while called.get().is_none() {
                turn(&reactor);
            }
            assert!(called.take().unwrap() >= target, "{d:?}");
        }
    }
}

#[test]
fn sleeping_takes_nothing_and_lasts_its_full_time() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let (timer, ticker) = (reactor.after(ms(1)), reactor.every(ms(1)).unwrap());
    tx.send(1).unwrap();
    reactor.sleep_blocking(ms(3)).unwrap();
    assert_eq!(sim.now(), at(3));
    assert_eq!(inbox.try_recv(), Ok(1));
    select! { reactor; recv(timer) -> due => assert_eq!(due, at(1)), default => panic!() }
    select! { reactor;
        recv(ticker) -> tick => assert_eq!((tick.scheduled, tick.missed), (at(1), 2)),
        default => panic!(),
    }
    // A sleep in real time is never too short.
    let reactor = support::reactor();
    for d in [0, 1, 1_000, 300_000, 1_000_001, 3_000_000].map(Duration::from_nanos) {
        let begin = Instant::now();
        reactor.sleep_blocking(d).unwrap();
        assert!(begin.elapsed() >= d);
    }
}

// Results of reset and stop.

#[test]
fn stop_and_reset_report_a_pending_call() {
    let (sim, reactor) = simulated();
    let log = Log::new();
    let callback = reactor.call_after(ms(1), log.noting(1));
    assert_eq!(callback.deadline(), Some(at(1)));
    // The callback is armed.
    assert!(callback.reset(ms(5)) && callback.reset(ms(2)) && callback.reset_at(at(3)));
    assert_eq!(callback.deadline(), Some(at(3)));
    assert!(callback.stop());
    // The callback is stopped.
    assert_eq!((callback.stop(), callback.deadline()), (false, None));
    assert!(!callback.reset(ms(1)) && callback.stop() && !callback.reset_at(at(1)));
    // The deadline has passed, but no turn has called the callback.
    sim.advance(ms(2));
    assert!(callback.reset(ms(0)) && callback.stop());
    turn(&reactor);
    log.expect(&[]);
    // The callback was called.
    assert!(!callback.reset(ms(0)));
    turn(&reactor);
    log.expect(&[1]);
    assert_eq!((callback.deadline(), callback.stop()), (None, false));
    assert!(!callback.reset(ms(1)) && callback.reset(ms(1)));
    reactor.sleep_blocking(ms(1)).unwrap();
    log.expect(&[1]);
    assert!(!callback.stop());
}

#[test]
fn a_callback_is_unarmed_during_its_own_call() {
    let (sim, reactor) = simulated();
    let own = Own::default();
    let (this, log) = (own.clone(), Log::new());
    let note = log.clone();
    *own.borrow_mut() = Some(reactor.call_after(ms(1), move |cx| {
        let this = this.borrow();
        let this = this.as_ref().unwrap();
        assert_eq!((this.deadline(), this.id()), (None, cx.id()));
        assert_eq!((this.stop(), cx.stop()), (false, false));
        assert_eq!(
            (cx.reset(ms(9)), cx.reset(ms(1)), this.reset(ms(2)), cx.stop()),
            (false, true, true, true)
        );
        assert_eq!(
            (this.reset_at(at(50)), this.stop(), this.reset(ms(7)), cx.reset_at(at(8))),
            (false, true, false, true)
        );
        note.note(cx.scheduled().as_nanos() / 1_000_000);
    }));
    for _ in 0..8 {
        sim.advance(ms(1));
        turn(&reactor);
    }
    log.expect(&[1, 8]);
    // The second call armed the callback again.
    assert!(own.borrow().as_ref().unwrap().stop());
    own.take();
}

#[test]
fn callbacks_re_armed_to_zero_run_every_turn() {
    let (_sim, reactor) = simulated();
    let log = Log::new();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let note = log.clone();
    let _zero = reactor.call_after(ms(0), move |cx| {
        note.note(0);
        assert!(!cx.reset(ms(0)));
    });
    for _ in 0..10 {
        turn(&reactor);
        log.expect(&[0]);
    }
    // A callback that is always due starves no timer, no channel and no other callback.
    let timer = reactor.after(ms(0));
    let _other = reactor.call_after(ms(0), log.noting(1));
    tx.send(7).unwrap();
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.len(), 2);
    log.expect(&[0, 1]);
    select! { reactor; recv(timer) -> _ => {} }
    select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(7)) }
    log.expect(&[0, 0]);
}

#[test]
fn callbacks_re_armed_to_zero_delay_no_deadline() {
    // This test needs real time, because virtual time stands still while a callback is due.
    let reactor = support::reactor();
    let calls = Rc::new(Cell::new(0u64));
    let count = calls.clone();
    let _zero = reactor.call_after(ms(0), move |cx| {
        count.set(count.get() + 1);
        cx.reset(ms(0));
    });
    for (name, wait) in WAITS {
        let before = (calls.get(), reactor.stats().turns);
        let timer = reactor.after(ms(1));
        wait(&reactor, &timer);
        assert!(calls.get() > before.0, "{name}: the callback was not called");
    }
}

#[test]
fn a_delay_counts_from_the_clocks_current_time() {
    let (sim, reactor) = simulated();
    let stale = reactor.now();
    sim.advance(ms(5));
    assert_eq!(reactor.now(), stale);
    let callback = reactor.call_after(ms(10), |_| {});
    assert_eq!(callback.deadline(), Some(at(15)));
    sim.advance(ms(5));
    assert!(reactor.now() < sim.now() && callback.reset(ms(10)));
    assert_eq!(callback.deadline(), Some(at(20)));
    // The callback resets itself after 3 ms of its own run time.
    let clock = sim.clone();
    let slow = reactor.call_after(ms(0), move |cx| {
        clock.advance(ms(3));
        assert!(cx.now() < clock.now());
        cx.reset(ms(10));
    });
    turn(&reactor);
    assert_eq!(slow.deadline(), Some(at(23)));
}

// Actions that a callback may take.

#[test]
fn a_callback_may_drop_itself() {
    let (_sim, reactor) = simulated();
    let own = Own::default();
    let (this, token) = (own.clone(), Rc::new(()));
    let held = token.clone();
    *own.borrow_mut() = Some(reactor.call_after(ms(1), move |cx| {
        let before = cx.stats().live;
        drop(this.take());
        assert_eq!(cx.stats().live, before - 1);
        assert_eq!(
            (cx.reset(ms(1)), cx.reset_at(at(2)), cx.stop(), cx.is_live(cx.id())),
            (false, false, false, false)
        );
        // The captured values live until the call ends.
        assert_eq!(Rc::strong_count(&held), 2);
    }));
    reactor.sleep_blocking(ms(5)).unwrap();
    assert_eq!((Rc::strong_count(&token), reactor.stats().called, reactor.stats().live), (1, 1, 0));
}

#[test]
fn a_callback_may_cancel_another_due_callback() {
    type Action = fn(&Own);
    let actions: [(&str, Action, &[u64]); 4] = [
        ("stop", |other| assert!(other.borrow().as_ref().unwrap().stop()), &[]),
        ("drop", |other| drop(other.take()), &[]),
        ("reset", |other| assert!(other.borrow().as_ref().unwrap().reset(ms(5))), &[7]),
        ("reset to zero", |other| assert!(other.borrow().as_ref().unwrap().reset(ms(0))), &[2]),
    ];
    for (name, action, called_at) in actions {
        let (sim, reactor) = simulated();
        let (log, other) = (Log::new(), Own::default());
        let (target, first) = (other.clone(), log.clone());
        let _first = reactor.call_at(at(1), move |cx| {
            assert!(
                target.borrow().as_ref().unwrap().deadline().is_some(),
                "the second callback is not armed"
            );
            action(&target);
            first.note(cx.stats().called);
        });
        let note = log.clone();
        *other.borrow_mut() = Some(
            reactor.call_at(at(1), move |cx| note.note((cx.now() - Time::ZERO).as_millis() as u64)),
        );
        let _last = reactor.call_at(at(1), log.noting(99));
        sim.advance(ms(2));
        turn(&reactor);
        assert_eq!(log.0.take(), [1, 99], "{name}: calls in the same batch");
        reactor.sleep_blocking(ms(10)).unwrap();
        assert_eq!(log.0.take(), called_at, "{name}");
    }
}

#[test]
fn a_callback_may_stop_other_due_sources() {
    let (sim, reactor) = simulated();
    let (timer, ticker) = (Rc::new(reactor.after(ms(1))), Rc::new(reactor.every(ms(1)).unwrap()));
    let (t, u) = (timer.clone(), ticker.clone());
    let _callback = reactor.call_after(ms(1), move |_| assert!(t.stop() && u.stop()));
    sim.advance(ms(1));
    select! { reactor; recv(timer) -> _ => panic!(), recv(ticker) -> _ => panic!(), default => {} }
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_callback_may_make_sources_and_other_callbacks() {
    let (sim, reactor) = simulated();
    let log = Log::new();
    let made = Rc::new(RefCell::new(Vec::new()));
    let (sources, note) = (made.clone(), log.clone());
    let _maker = reactor.call_after(ms(1), move |cx| {
        // 1,000 timers need another chunk of slots and another block of the timer queue.
        sources.borrow_mut().extend((0..1_000).map(|n| cx.after(ms(n + 1))));
        let (tx, inbox) = cx.channel(1).unwrap();
        tx.send(1).unwrap();
        select! { cx; recv(inbox) -> n => assert_eq!(n, Ok(1)) }
        cx.call_after(ms(0), note.noting(1)).detach();
        cx.call_after(ms(2), note.noting(2)).detach();
        note.note(0);
    });
    sim.advance(ms(1));
    turn(&reactor);
    log.expect(&[0]);
    // A callback armed with zero inside a call runs in the next turn.
    turn(&reactor);
    log.expect(&[1]);
    assert_eq!(reactor.stats().live, 1_000 + 2);
    reactor.sleep_blocking(ms(2)).unwrap();
    log.expect(&[2]);
    assert!(made.borrow_mut().pop().unwrap().stop());
    assert_eq!(ready_keys(&reactor).len(), 2);
}

// Waits inside a callback.

#[test]
fn waits_inside_callbacks_sleep_and_call_no_callback() {
    for (name, wait) in WAITS.into_iter().filter(|(name, _)| *name != "polling") {
        let (driver, script) = scripted(&pollmux::Sim::new());
        let reactor = Reactor::with_driver(driver).unwrap();
        let log = Log::new();
        let (note, sleeps) = (log.clone(), script.clone());
        let _nesting = reactor.call_after(ms(1), move |cx| {
            note.note(0);
            let timer = cx.after(ms(5));
            let (before, slept) = (cx.stats(), sleeps.sleeps());
            wait(cx, &timer);
            assert_eq!(cx.now(), at(6));
            // Three events may end a sleep: the postponed callback at 1 ms, the callback at 3 ms,
            // and the wait's own timer.
            let slept = sleeps.sleeps() - slept;
            assert!((1..=3).contains(&slept), "{name}: {slept} sleeps");
            assert!((cx.stats() - before).turns <= 1, "{name}");
            assert_eq!(cx.stats().called, before.called);
            note.note(1);
        });
        let _with_it = reactor.call_at(at(1), log.noting(2));
        let _meanwhile = reactor.call_at(at(3), log.noting(3));
        reactor.remote().post(|_| {}).unwrap();
        turn(&reactor);
        reactor.sleep_blocking(ms(10)).unwrap();
        assert_eq!(log.0.take(), [0, 1, 2, 3], "{name}");
    }
}

#[test]
fn callbacks_due_in_nested_waits_run_next_turn() {
    for (name, wait) in WAITS {
        let (sim, reactor) = simulated();
        let log = Log::new();
        let note = log.clone();
        let _nesting = reactor.call_at(at(1), move |cx| {
            cx.sleep_blocking(ms(4)).unwrap();
            note.note(0);
        });
        let (note, clock) = (log.clone(), sim.clone());
        let _meanwhile = reactor
            .call_at(at(3), move |_| note.note((clock.now() - Time::ZERO).as_millis() as u64));
        // The timer is far away, so a loop that sleeps until then has forgotten the callback.
        let timer = reactor.at(at(1_000));
        wait(&reactor, &timer);
        assert_eq!(log.0.take(), [0, 5], "{name}");
    }
}

#[test]
fn a_callback_may_receive_in_nested_waits() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(8).unwrap();
    let inbox = Rc::new(inbox);
    let (source, log) = (inbox.clone(), Log::new());
    let note = log.clone();
    let _callback = reactor.call_after(ms(1), move |cx| {
        let mut events = Events::with_capacity(4);
        tx.send(1).unwrap();
        cx.wait(&mut events).unwrap();
        assert_eq!(support::keys(&events), [source.key()]);
        note.note(source.try_recv().unwrap());
        tx.send(2).unwrap();
        let mut select = Select::new(cx);
        select.recv(&*source);
        note.note(select.wait().unwrap().recv(&*source).unwrap().unwrap());
        drop(select);
        tx.send(3).unwrap();
        note.note(select! { cx.handle(); recv(source) -> n => n.unwrap() });
        cx.try_wait(&mut events).unwrap();
        assert!(events.is_empty());
        tx.send(4).unwrap();
    });
    select! { reactor; recv(inbox) -> n => log.note(n.unwrap()) }
    log.expect(&[1, 2, 3, 4]);
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn nested_waits_in_embedded_turns_lose_no_callback() {
    support::exact("counts waits");
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let inner = reactor.embed().unwrap();
    let (outer, mut events) = (Poller::new().unwrap(), PollEvents::with_capacity(4));
    outer.register(&inner, 0, Interest::READABLE, Mode::Level).unwrap();
    let log = Log::new();
    let note = log.clone();
    let _nesting = reactor.call_after(ms(0), move |cx| {
        let before = cx.stats();
        cx.sleep_blocking(ms(4)).unwrap();
        let during = cx.stats() - before;
        assert!(during.waits <= 10, "the nested sleep spins: {during}");
        note.note(0);
    });
    let _meanwhile = reactor.call_after(ms(2), log.noting(1));
    let _later = reactor.call_after(ms(6), log.noting(2));
    while log.0.borrow().len() < 3 {
        outer.wait(&mut events, None).unwrap();
        inner.turn().unwrap();
    }
    log.expect(&[0, 1, 2]);
}

// Panics.

#[test]
fn callbacks_behind_a_panic_run_next_turn() {
    for (name, wait) in WAITS {
        let (sim, reactor) = simulated();
        let log = Log::new();
        let _before = reactor.call_at(at(1), log.noting(0));
        let panicking = reactor.call_at(at(1), |_| panic!("in a callback"));
        let _behind = [1, 2].map(|n| reactor.call_at(at(1), log.noting(n)));
        let timer = reactor.at(at(5));
        panics_with("in a callback", || wait(&reactor, &timer));
        log.expect(&[0]);
        assert_eq!((panicking.deadline(), reactor.stats().called), (None, 2));
        turn(&reactor);
        assert_eq!((log.0.take(), sim.now()), (vec![1, 2], at(1)), "{name}");
        // The panicking callback can be armed again.
        assert!(!panicking.reset(ms(1)));
        panics_with("in a callback", || wait(&reactor, &timer));
        assert_eq!(sim.now(), at(2), "{name}");
        wait(&reactor, &timer);
        assert_eq!(sim.now(), at(5), "{name}");
    }
}

#[test]
fn callbacks_behind_a_panic_run_before_a_sleep() {
    for (name, wait) in WAITS {
        let (sim, reactor) = simulated();
        let log = Log::new();
        let _panicking = reactor.call_after(ms(0), |_| panic!("in a callback"));
        let _behind = reactor.call_after(ms(0), log.noting(1));
        panics_with("in a callback", || turn(&reactor));
        let (clock, note) = (sim.clone(), log.clone());
        let _now = reactor.call_after(ms(0), move |_| note.note(clock.now().as_nanos()));
        wait(&reactor, &reactor.after(ms(5)));
        assert_eq!((log.0.take(), sim.now()), (vec![1, 0], at(5)), "{name}");
    }
}

#[test]
fn a_panic_keeps_the_new_deadline() {
    let (sim, reactor) = simulated();
    let panicking = reactor.call_after(ms(1), |cx| {
        cx.reset(ms(1));
        panic!("in a callback");
    });
    for n in 1..5 {
        panics_with("in a callback", || reactor.sleep_blocking(HOUR).unwrap());
        assert_eq!((sim.now(), panicking.deadline()), (at(n), Some(at(n + 1))));
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn callbacks_behind_an_embedded_panic_still_run() {
    let _watchdog = watchdog();
    for mode in [Mode::Level, Mode::Edge] {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(1).unwrap();
        let inner = reactor.embed().unwrap();
        let (outer, mut events) = (Poller::new().unwrap(), PollEvents::with_capacity(4));
        outer.register(&inner, 0, Interest::READABLE, mode).unwrap();
        let log = Log::new();
        let _panicking = reactor.call_after(ms(0), |_| panic!("in a callback"));
        let _behind = reactor.call_after(ms(0), log.noting(1));
        outer.wait(&mut events, None).unwrap();
        panics_with("in a callback", || drop(inner.turn()));
        // The outer loop turns only when the fd is readable, so the fd must become readable.
        let mut turns = 0;
        let mut next = |inner: &pollmux::Embedded| {
            outer.wait(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "{mode:?}: the fd did not become readable");
            inner.turn().unwrap()
        };
        while log.0.borrow().is_empty() {
            next(&inner);
            turns += 1;
        }
        assert!(turns <= 2);
        tx.send(7).unwrap();
        while next(&inner) == 0 {}
        assert_eq!(inbox.try_recv(), Ok(7));
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn a_callback_may_turn_its_embedded_reactor() {
    let _watchdog = watchdog();
    for mode in [Mode::Level, Mode::Edge] {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(1).unwrap();
        let inner = Rc::new(reactor.embed().unwrap());
        let (outer, mut events) = (Poller::new().unwrap(), PollEvents::with_capacity(4));
        outer.register(&*inner, 0, Interest::READABLE, mode).unwrap();
        let (log, again, sender) = (Log::new(), inner.clone(), tx.clone());
        let note = log.clone();
        let mut calls = 0;
        let beat = reactor.call_after(ms(0), move |cx| {
            calls += 1;
            again.turn().unwrap(); // the nested turn calls no callback
            note.note(calls);
            if calls < 3 {
                cx.reset(ms(1));
            } else {
                sender.send(7).unwrap(); // the turn must make the fd readable for this message
            }
        });
        let _behind = reactor.call_after(ms(0), log.noting(100));
        let mut found = 0;
        while found == 0 {
            outer.wait(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "{mode:?}: the fd did not become readable");
            found = inner.turn().unwrap();
        }
        assert_eq!((log.0.take(), inbox.try_recv()), (vec![1, 100, 2, 3], Ok(7)), "{mode:?}");
        // The reactor sleeps again, and another thread's message wakes the outer loop.
        while !{
            outer.wait(&mut events, Some(ms(1))).unwrap();
            events.is_empty()
        } {
            inner.turn().unwrap();
        }
        thread::spawn(move || tx.send(8).unwrap()).join().unwrap();
        outer.wait(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert!(!events.is_empty() && inner.turn().unwrap() == 1);
        drop(beat);
    }
}

// The end of the reactor.

#[test]
fn a_callback_may_drop_the_reactor() {
    for (name, wait) in WAITS {
        let (_, reactor) = simulated();
        let handle = reactor.handle();
        let (owned, log, token) = (Rc::new(RefCell::new(Some(reactor))), Log::new(), Rc::new(()));
        let (held, note, kept) = (owned.clone(), log.clone(), token.clone());
        let dropping = handle.call_after(ms(1), move |cx| {
            drop(held.take());
            assert!(cx.is_closed() && !cx.reset(ms(0)) && !cx.stop());
            assert_eq!(cx.sleep_blocking(ms(1)).unwrap_err().kind(), ErrorKind::NotConnected);
            note.note(Rc::strong_count(&kept) as u64);
        });
        let _due_with_it = handle.call_after(ms(1), log.noting(99));
        let timer = handle.after(ms(5));
        let ended = catch_unwind(AssertUnwindSafe(|| wait(&handle, &timer)));
        assert!(ended.is_err(), "{name}: the wait on a dropped reactor did not fail");
        assert_eq!(log.0.take(), [2], "{name}");
        assert_eq!(Rc::strong_count(&token), 1, "{name}: the closure was not dropped");
        assert!(handle.is_closed() && !dropping.reset(ms(0)) && !dropping.stop());
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn an_embedded_callback_may_drop_the_reactor() {
    let reactor = support::reactor();
    let (inner, handle) = (reactor.embed().unwrap(), reactor.handle());
    let owned = Rc::new(RefCell::new(Some(reactor)));
    handle.call_after(ms(0), move |_| drop(owned.take())).detach();
    assert_eq!(inner.turn().unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(handle.is_closed());
}

#[test]
fn a_dropped_reactors_callbacks_are_inert() {
    let (sim, reactor) = simulated();
    let token = Rc::new(());
    let held = [token.clone(), token.clone(), token.clone()];
    let [armed, called, detached] =
        held.map(|token| reactor.call_after(ms(1), move |_| drop(token.clone())));
    called.reset(ms(0));
    turn(&reactor);
    let handle = reactor.handle();
    let id = detached.detach();
    drop(reactor);
    assert_eq!(Rc::strong_count(&token), 1, "the reactor's drop did not drop the closures");
    let late = token.clone();
    let late = handle.call_after(ms(0), move |_| drop(late.clone()));
    assert_eq!(Rc::strong_count(&token), 1);
    sim.advance(ms(5));
    for callback in [&armed, &called, &late] {
        assert_eq!(
            (callback.reset(ms(0)), callback.reset_at(at(1)), callback.stop()),
            (false, false, false)
        );
        assert_eq!((callback.deadline(), handle.is_live(callback.id())), (None, false));
        assert!(format!("{callback:?}").contains("inert: true"));
    }
    for id in [id, late.id()] {
        assert_eq!(
            (handle.stop_timer(id), handle.reset_timer(id, ms(1))),
            (Err(TimerError::Dead), Err(TimerError::Dead))
        );
    }
    assert_eq!(handle.sleep_blocking(ms(1)).unwrap_err().kind(), ErrorKind::NotConnected);
    armed.detach();
}

#[test]
fn reference_cycles_in_callbacks_end_with_their_reactor() {
    let (_, reactor) = simulated();
    let token = Rc::new(());
    let weak = Rc::downgrade(&token);
    let (handle, held) = (reactor.handle(), token);
    let own = Own::default();
    let this = own.clone();
    // The closure is part of the largest possible cycle: it holds the reactor's handle, its own
    // callback, and a timer.
    let timer = reactor.after(HOUR);
    *own.borrow_mut() = Some(reactor.call_after(HOUR, move |_| {
        let _all = (&handle, &held, &this, &timer);
    }));
    drop(own);
    assert_eq!(weak.strong_count(), 1);
    assert_eq!(reactor.stats().live, 2);
    drop(reactor);
    assert_eq!((weak.strong_count(), weak.upgrade()), (0, None));
    // A detached closure that holds a handle is dropped, too.
    let (_, reactor) = simulated();
    let token = Rc::new(());
    let (handle, weak) = (reactor.handle(), Rc::downgrade(&token));
    reactor.call_after(HOUR, move |_| drop((handle.clone(), token.clone()))).detach();
    drop(reactor);
    assert_eq!(weak.strong_count(), 0);
}

// Drops of closures.

/// Returns a reactor, a counter of closure drops, and a callback in an hour with that closure. The
/// closure runs `action` first.
fn counted(action: impl Fn(&CallbackContext<'_>) + 'static) -> (Reactor, Drops, Callback) {
    let (_, reactor) = simulated();
    let drops = Drops::new();
    let (counted, seen) = (drops.message(), drops.clone());
    let callback = reactor.call_after(HOUR, move |cx| {
        let _counted = &counted;
        action(cx);
        assert_eq!(seen.count(), 0, "the closure was dropped during its call");
    });
    (reactor, drops, callback)
}

#[test]
fn a_closure_is_dropped_once_with_its_callback() {
    // The states are armed, stopped, due, called, and armed again.
    let states: [fn(&Reactor, &Callback); 5] = [
        |_, _| {},
        |_, callback| assert!(callback.stop()),
        |_, callback| assert!(callback.reset(ms(0))),
        |reactor, _| reactor.sleep_blocking(HOUR).unwrap(),
        |reactor, callback| {
            reactor.sleep_blocking(HOUR).unwrap();
            callback.reset(HOUR);
        },
    ];
    for reach in states {
        let (reactor, drops, callback) = counted(|_| {});
        reach(&reactor, &callback);
        assert_eq!(drops.count(), 0);
        drop(callback);
        assert_eq!((drops.count(), reactor.stats().live), (1, 0));
        reactor.sleep_blocking(2 * HOUR).unwrap();
        drop(reactor);
        assert_eq!(drops.count(), 1);

        let (reactor, drops, callback) = counted(|_| {});
        reach(&reactor, &callback);
        drop(reactor);
        assert_eq!(drops.count(), 1, "the reactor's drop did not drop the closure once");
        drop(callback);
        assert_eq!(drops.count(), 1);
    }
}

#[test]
fn a_detached_closure_is_dropped_after_its_call() {
    let (reactor, drops, callback) = counted(|_| {});
    let id = callback.detach();
    assert_eq!((drops.count(), reactor.is_live(id), reactor.stats().live), (0, true, 1));
    reactor.sleep_blocking(HOUR).unwrap();
    assert_eq!(
        (drops.count(), reactor.is_live(id), reactor.stats().called, reactor.stats().live),
        (1, false, 1, 0)
    );
}

#[test]
fn a_detached_callback_lives_while_it_re_arms() {
    let left = Cell::new(3);
    let (reactor, drops, callback) = counted(move |cx| {
        left.set(left.get() - 1);
        if left.get() > 0 {
            assert!(!cx.reset(HOUR));
        }
    });
    let id = callback.detach();
    for calls in 1..=2 {
        reactor.sleep_blocking(HOUR).unwrap();
        assert_eq!((drops.count(), reactor.stats().called, reactor.is_live(id)), (0, calls, true));
    }
    reactor.sleep_blocking(HOUR).unwrap();
    assert_eq!((drops.count(), reactor.stats().called, reactor.is_live(id)), (1, 3, false));
}

#[test]
fn stop_timer_drops_a_detached_closure() {
    let (reactor, drops, callback) = counted(|_| {});
    let id = callback.detach();
    assert_eq!(reactor.reset_timer(id, HOUR * 2), Ok(true));
    assert_eq!((reactor.stop_timer(id), drops.count(), reactor.stats().live), (Ok(true), 1, 0));
    assert_eq!(reactor.stop_timer(id), Err(TimerError::Dead));
    // The callback is due already, in the same batch.
    let (reactor, drops, callback) = counted(|_| panic!("a stopped callback was called"));
    callback.stop();
    let id = callback.id();
    let _first = reactor.call_after(HOUR, move |cx| assert_eq!(cx.stop_timer(id), Ok(true)));
    callback.reset(HOUR);
    callback.detach();
    reactor.sleep_blocking(HOUR).unwrap();
    assert_eq!((drops.count(), reactor.stats().live), (1, 1));
}

#[test]
fn detaching_an_unarmed_callback_drops_it() {
    let (reactor, drops, callback) = counted(|_| {});
    callback.stop();
    let id = callback.detach();
    assert_eq!((drops.count(), reactor.is_live(id), reactor.stats().live), (1, false, 0));
}

#[test]
fn detaching_inside_a_call_keeps_an_armed_callback() {
    for again in [false, true] {
        let own = Own::default();
        let this = own.clone();
        let (reactor, drops, callback) = counted(move |cx| {
            if let Some(callback) = this.take() {
                callback.detach();
                assert!(cx.is_live(cx.id()));
                if again {
                    cx.reset(HOUR);
                }
            }
        });
        *own.borrow_mut() = Some(callback);
        reactor.sleep_blocking(HOUR).unwrap();
        assert_eq!((drops.count(), reactor.stats().live), if again { (0, 1) } else { (1, 0) });
        reactor.sleep_blocking(HOUR).unwrap();
        assert_eq!((drops.count(), reactor.stats().live), (1, 0));
        assert_eq!(reactor.stats().called, if again { 2 } else { 1 });
    }
}

#[test]
fn a_detached_callback_may_stop_itself() {
    let (reactor, drops, callback) = counted(|cx| {
        cx.reset(HOUR);
        assert!(cx.stop() && cx.is_live(cx.id()));
    });
    callback.detach();
    reactor.sleep_blocking(HOUR).unwrap();
    assert_eq!((drops.count(), reactor.stats().live), (1, 0));
}

#[test]
fn a_detached_callback_is_dropped_when_it_panics() {
    let (reactor, drops, callback) = counted(|_| panic!("in a callback"));
    callback.detach();
    panics_with("in a callback", || reactor.sleep_blocking(HOUR).unwrap());
    assert_eq!((drops.count(), reactor.stats().live), (1, 0));
}

#[test]
fn dropped_captures_may_use_the_reactor() {
    struct Busy(Handle, Log, Option<Timer>);
    impl Drop for Busy {
        fn drop(&mut self) {
            self.2 = None;
            self.0.call_after(ms(0), self.1.noting(1)).detach();
            turn(&self.0);
            self.1.note(self.0.stats().live as u64);
        }
    }
    let (_sim, reactor) = simulated();
    let log = Log::new();
    let busy = || Busy(reactor.handle(), log.clone(), Some(reactor.after(HOUR)));
    let closure = |busy: Busy| move |_: &CallbackContext<'_>| assert!(!busy.0.is_closed());
    drop(reactor.call_after(HOUR, closure(busy())));
    log.expect(&[1, 0]);
    reactor.call_after(ms(0), closure(busy())).detach();
    turn(&reactor);
    // The drop happens in a call, so the next turn calls the new callback.
    log.expect(&[1]);
    turn(&reactor);
    log.expect(&[1]);
    let id = reactor.call_after(HOUR, closure(busy())).detach();
    assert_eq!(reactor.stop_timer(id), Ok(true));
    log.expect(&[1, 0]);
}

#[test]
fn a_callback_context_never_touches_a_reused_slot() {
    let (_sim, reactor) = simulated();
    let own = Own::default();
    let this = own.clone();
    let successors = Rc::new(RefCell::new(Vec::new()));
    let made = successors.clone();
    *own.borrow_mut() = Some(reactor.call_after(ms(1), move |cx| {
        drop(this.take());
        let successor = cx.after(ms(100));
        let slot = |id: pollmux::reactor::TimerId| {
            format!("{id:?}").rsplit_once('.').unwrap().0.to_owned()
        };
        assert_eq!(slot(successor.id()), slot(cx.id()), "the new timer is in another slot");
        assert_eq!((cx.reset(ms(1)), cx.reset_at(at(1)), cx.stop()), (false, false, false));
        assert_eq!((successor.deadline(), cx.is_live(cx.id())), (Some(at(101)), false));
        made.borrow_mut().push(successor);
    }));
    reactor.sleep_blocking(ms(5)).unwrap();
    assert_eq!((successors.borrow()[0].deadline(), reactor.stats().called), (Some(at(101)), 1));
    // If a callback takes the slot, the callback keeps its closure.
    let (own, log) = (Own::default(), Log::new());
    let (this, note) = (own.clone(), log.clone());
    *own.borrow_mut() = Some(reactor.call_after(ms(1), move |cx| {
        this.replace(Some(cx.call_after(ms(1), note.noting(1))));
    }));
    reactor.sleep_blocking(ms(5)).unwrap();
    log.expect(&[1]);
}

// Many callbacks.

#[test]
fn a_turn_calls_bounded_batches_in_order() {
    const ALL: u64 = 10_000;
    let (sim, reactor) = simulated();
    let log = Log::new();
    let _callbacks: Vec<_> = (0..ALL).map(|n| reactor.call_at(at(5), log.noting(n))).collect();
    sim.advance(ms(6));
    let (mut turns, mut seen) = (0, 0);
    while seen < ALL {
        let before = reactor.stats();
        turn(&reactor);
        let during = reactor.stats() - before;
        // The timer queue returns at most 4,096 entries at a time.
        assert!((1..=4_096).contains(&during.called), "{during}");
        (turns, seen) = (turns + 1, seen + during.called);
    }
    assert!((3..=10).contains(&turns), "{turns} turns");
    assert!(log.0.take().into_iter().eq(0..ALL), "the calls are out of order");
}

#[test]
fn one_wait_calls_ten_thousand_due_callbacks() {
    let (_sim, reactor) = simulated();
    let log = Log::new();
    let _callbacks: Vec<_> = (0..10_000).map(|n| reactor.call_at(at(5), log.noting(n))).collect();
    reactor.sleep_blocking(ms(6)).unwrap();
    assert!(log.0.take().into_iter().eq(0..10_000), "calls are missing or out of order");
}

#[test]
fn a_million_dropped_callbacks_leak_nothing() {
    let (_sim, reactor) = simulated();
    let token = Rc::new(Cell::new(0usize));
    let others: Vec<_> = (1..=10).map(|n| reactor.call_after(HOUR * n, |_| {})).collect();
    let round = |n: u64| {
        let held = token.clone();
        let d = Duration::from_nanos(n * 7_919 % 1_000_000 + 1);
        // A closure of one word is stored in place.
        drop(reactor.call_after(d, move |_| held.set(0)));
    };
    allocates_nothing(500_000, round);
    // A larger closure allocates once, and frees its memory.
    let before = allocations();
    for n in 0..10_000usize {
        let held = token.clone();
        drop(reactor.call_after(Duration::from_nanos(n as u64 + 1), move |_| held.set(n)));
    }
    assert_eq!((allocations() - before, Rc::strong_count(&token)), (10_000, 1));
    assert_eq!(reactor.stats().live, others.len());
    turn(&reactor);
    assert_eq!(reactor.stats().called, 0);
}

#[test]
fn a_million_resets_allocate_nothing() {
    let (_sim, reactor) = simulated();
    let callbacks: Vec<_> = (0..100).map(|_| reactor.call_after(HOUR, |_| {})).collect();
    allocates_nothing(500_000, |n| {
        // The resets move the deadline later and earlier. Some follow a stop.
        let callback = &callbacks[n as usize % 100];
        if n % 13 == 0 {
            assert!(callback.stop() && !callback.reset(HOUR));
        }
        assert!(callback.reset(HOUR / (n as u32 % 5 + 1)));
    });
    assert_eq!((reactor.stats().live, reactor.sources().len()), (100, 100));
}

#[test]
fn reset_stop_and_call_allocate_nothing() {
    support::exact("counts allocations");
    let (_sim, reactor) = simulated();
    let calls = Rc::new(Cell::new(0u64));
    let callbacks: Vec<_> = (0..300)
        .map(|n| {
            let calls = calls.clone();
            reactor.call_after(HOUR, move |cx| {
                calls.set(calls.get() + 1);
                if n % 3 == 0 && cx.scheduled() < cx.now() + ms(1) {
                    cx.reset(HOUR);
                }
            })
        })
        .collect();
    let timer = reactor.timer();
    allocates_nothing(20, |round| {
        for (n, callback) in (0..).zip(&callbacks) {
            callback.stop();
            callback.reset(ms((n * 7 + round) % 5));
        }
        timer.reset(ms(5));
        select! { reactor; recv(timer) -> _ => {} }
        reactor.sleep_blocking(ms(1)).unwrap();
    });
    assert_eq!(calls.get(), 40 * 300);
    // The same holds for sleeps in the kernel.
    let reactor = support::reactor();
    let own = reactor.call_after(HOUR, |_| {});
    let mut sleeps = 0;
    let before = reactor.stats();
    allocates_nothing(50, |_| {
        // Repeats until the reactor has slept. If the thread loses its core, both times are over
        // before the sleep.
        let waits = reactor.stats().waits;
        while reactor.stats().waits == waits {
            own.reset(Duration::from_micros(100));
            reactor.sleep_blocking(Duration::from_micros(200)).unwrap();
            turn(&reactor); // calls a callback that became due at the end of the sleep
            sleeps += 1;
        }
    });
    let during = reactor.stats() - before;
    assert!(during.called == sleeps && sleeps >= 100, "{during}, {sleeps} sleeps");
}

#[test]
fn callbacks_are_counted_but_are_no_events() {
    let (sim, reactor) = simulated();
    let callback = reactor.call_after(ms(1), |_| {});
    sim.advance(ms(1));
    assert_eq!(ready_keys(&reactor), []);
    assert_eq!((reactor.stats().called, reactor.stats().expired, reactor.stats().live), (1, 1, 1));
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!(
        (info.kind, info.fired, info.id),
        (Some(SourceKind::Callback), 1, Some(callback.id()))
    );
}

#[test]
fn stopping_another_callback_keeps_one_call_per_turn() {
    let (_, reactor) = simulated();
    let calls = Rc::new(Cell::new(0));
    let (called, stopped) =
        (calls.clone(), reactor.call_after(ms(0), |_| panic!("a stopped callback was called")));
    let stopped_id = stopped.id();
    let again = reactor.call_at(Time::ZERO, move |context| {
        called.set(called.get() + 1);
        context.reset(ms(0));
        // The stopped callback was due in this batch, so the batch is shorter now.
        let _ = context.handle().stop_timer(stopped_id);
    });
    // A nested turn finds the re-armed callback due.
    let nested = reactor.call_after(ms(0), |context| assert_eq!(ready_keys(context.handle()), []));
    stopped.reset(ms(0));
    for turn in 1..=3 {
        assert_eq!(ready_keys(&reactor), []);
        assert_eq!(calls.get(), turn);
        stopped.reset(ms(0));
        nested.reset(ms(0));
    }
    drop(again);
}

#[test]
fn a_wait_inside_a_post_begins_no_turn() {
    let (_, reactor) = simulated();
    let (calls, remote) = (Rc::new(Cell::new(0)), reactor.remote());
    let called = calls.clone();
    let again = reactor.call_after(ms(0), move |context| {
        called.set(called.get() + 1);
        context.reset(ms(0)); // for the next turn
    });
    let posts = reactor.call_after(ms(0), move |_| {
        remote.post(|handle| assert_eq!(ready_keys(handle), [])).unwrap();
    });
    for turn in 1..=3 {
        reactor.sleep_blocking(ms(0)).unwrap();
        assert_eq!(calls.get(), turn);
        posts.reset(ms(0));
    }
    drop(again);
}

/// Implemented by every `T`. `A` can be inferred only if `T` is not `Send`.
trait SendOrNot<A> {
    fn witness() {}
}
struct WhenSend;
impl<T: ?Sized> SendOrNot<()> for T {}
impl<T: ?Sized + Send> SendOrNot<WhenSend> for T {}

#[test]
fn callbacks_and_their_contexts_are_not_send() {
    // If either type is `Send`, the two impls are ambiguous and the test does not compile.
    <Callback as SendOrNot<_>>::witness();
    <CallbackContext<'static> as SendOrNot<_>>::witness();
}
