//! The table of Go's `tick_test`: what `stop` and `reset` return in every state of every kind of
//! timer. No stale value follows.
//!
//! Each kind is a row behind the trait [`Subject`]. A received value is identified by its deadline,
//! not by the time of the receive. So a kind on a real clock fits in, too.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{Callback, Events, Reactor, Source, Ticker, Time, Timer};

use support::{at, ms, ready_keys, simulated_from};

/// The duration for which each subject is armed.
const D: Duration = ms(20);

/// A timer of some kind.
trait Subject {
    fn stop(&self) -> bool;
    fn reset(&self, d: Duration) -> bool;
    fn deadline(&self) -> Option<Time>;
    /// Takes a value that a turn has found, and returns its deadline.
    fn take(&self) -> Option<Time>;
    /// The [`Event::key`](pollmux::Event::key) of the subject, or `None` if no wait reports the
    /// kind.
    fn key(&self) -> Option<u64>;
}

type Made = Rc<dyn Subject>;

/// A reactor, and a function that lets time pass.
type World = (Reactor, Box<dyn Fn(Duration)>);

/// Runs when the value of a subject is received.
type OnReceipt = Rc<dyn Fn()>;

/// A row of the table.
struct Kind {
    name: &'static str,
    /// A receive arms the subject again.
    repeats: bool,
    /// A turn runs the subject itself, before it polls the sources.
    runs_in_turn: bool,
    world: fn() -> World,
    never_armed: Option<fn(&Reactor) -> Made>,
    armed: fn(&Reactor, Duration, OnReceipt) -> Made,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "timer",
        repeats: false,
        runs_in_turn: false,
        world: virtual_time,
        never_armed: Some(|reactor| Rc::new(reactor.timer())),
        armed: |reactor, d, _| Rc::new(reactor.after(d)),
    },
    Kind {
        name: "ticker",
        repeats: true,
        runs_in_turn: false,
        world: virtual_time,
        never_armed: None,
        armed: |reactor, d, _| Rc::new(reactor.every(d).unwrap()),
    },
    Kind {
        name: "callback",
        repeats: false,
        runs_in_turn: true,
        world: virtual_time,
        never_armed: None,
        armed: |reactor, d, on_receipt| Rc::new(RecordedCallback::new(reactor, d, on_receipt)),
    },
];

fn virtual_time() -> World {
    let (sim, reactor) = simulated_from(at(1_000));
    (reactor, Box::new(move |d| sim.advance(d)))
}

impl Subject for Timer {
    fn stop(&self) -> bool {
        Timer::stop(self)
    }
    fn reset(&self, d: Duration) -> bool {
        Timer::reset(self, d)
    }
    fn deadline(&self) -> Option<Time> {
        Timer::deadline(self)
    }
    fn take(&self) -> Option<Time> {
        self.try_take()
    }
    fn key(&self) -> Option<u64> {
        Some(Timer::key(self))
    }
}

impl Subject for Ticker {
    fn stop(&self) -> bool {
        Ticker::stop(self)
    }
    fn reset(&self, d: Duration) -> bool {
        Ticker::reset(self, d).unwrap()
    }
    fn deadline(&self) -> Option<Time> {
        Ticker::deadline(self)
    }
    fn take(&self) -> Option<Time> {
        self.try_take().map(|tick| tick.scheduled)
    }
    fn key(&self) -> Option<u64> {
        Some(Ticker::key(self))
    }
}

/// A callback, and the deadlines of its calls that were not taken.
struct RecordedCallback {
    callback: Callback,
    calls: Rc<RefCell<VecDeque<Time>>>,
}

impl RecordedCallback {
    fn new(reactor: &Reactor, d: Duration, on_receipt: OnReceipt) -> RecordedCallback {
        let calls: Rc<RefCell<VecDeque<Time>>> = Rc::default();
        let log = calls.clone();
        let callback = reactor.call_after(d, move |cx| {
            log.borrow_mut().push_back(cx.scheduled());
            on_receipt();
        });
        RecordedCallback { callback, calls }
    }
}

impl Subject for RecordedCallback {
    fn stop(&self) -> bool {
        self.callback.stop()
    }
    fn reset(&self, d: Duration) -> bool {
        self.callback.reset(d)
    }
    fn deadline(&self) -> Option<Time> {
        self.callback.deadline()
    }
    fn take(&self) -> Option<Time> {
        self.calls.borrow_mut().pop_front()
    }
    fn key(&self) -> Option<u64> {
        None
    }
}

/// Takes a turn that does not wait, and returns the value of `subject`.
fn receive(reactor: &Reactor, subject: &Made) -> Option<Time> {
    let keys = ready_keys(reactor);
    let taken = subject.take();
    if let Some(key) = subject.key() {
        assert_eq!(
            keys.contains(&key),
            taken.is_some(),
            "a subject is reported if and only if it has a value"
        );
    }
    taken
}

/// All values of `subject` in the next `n` quarters of [`D`].
fn receive_for(reactor: &Reactor, pass: &dyn Fn(Duration), subject: &Made, n: u32) -> Vec<Time> {
    let mut received = Vec::new();
    for _ in 0..n {
        received.extend(receive(reactor, subject));
        pass(D / 4);
    }
    received
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    NeverArmed,
    Armed,
    /// The deadline has passed, and no turn has polled.
    ExpiredUnseen,
    /// A turn has found the expiry, and the value was not received. A callback runs in that turn
    /// and is `Received`.
    Expired,
    Received,
    Stopped,
    StoppedWhenExpired,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Stop,
    ResetShorter,
    Reset,
    ResetLonger,
    ResetNever,
    /// The second reset replaces the deadline of the first reset.
    ResetTwice,
}

#[test]
fn stop_and_reset_leave_no_stale_value() {
    use Before::*;
    use Call::*;
    for kind in &KINDS {
        for before in
            [NeverArmed, Armed, ExpiredUnseen, Expired, Received, Stopped, StoppedWhenExpired]
        {
            for call in [Stop, ResetShorter, Reset, ResetLonger, ResetNever, ResetTwice] {
                let case = format!("{}, {before:?}, then {call:?}", kind.name);
                let (reactor, pass) = (kind.world)();
                let nothing: OnReceipt = Rc::new(|| {});
                let subject = match (before, kind.never_armed) {
                    (NeverArmed, Some(never_armed)) => never_armed(&reactor),
                    (NeverArmed, None) => continue,
                    _ => (kind.armed)(&reactor, D, nothing),
                };
                let first = subject.deadline();
                if !matches!(before, NeverArmed | Armed | Stopped) {
                    pass(D + D / 2);
                }
                let mut pending = true;
                match before {
                    NeverArmed => pending = false,
                    Armed | ExpiredUnseen => {}
                    Expired | StoppedWhenExpired if kind.runs_in_turn => continue,
                    Expired => assert_eq!(ready_keys(&reactor), [subject.key().unwrap()], "{case}"),
                    Received => {
                        assert_eq!(receive(&reactor, &subject), first, "{case}");
                        pending = kind.repeats;
                    }
                    Stopped => {
                        assert!(subject.stop(), "{case}");
                        pending = false;
                    }
                    StoppedWhenExpired => {
                        assert_eq!(ready_keys(&reactor), [subject.key().unwrap()], "{case}");
                        assert!(subject.stop(), "{case}");
                        pending = false;
                    }
                }
                let was_pending = match call {
                    Stop => subject.stop(),
                    ResetShorter => subject.reset(D / 2),
                    Reset => subject.reset(D),
                    ResetLonger => subject.reset(D * 3),
                    ResetNever => subject.reset(Duration::MAX),
                    ResetTwice => {
                        let was_pending = subject.reset(D * 3);
                        assert!(
                            subject.reset(D),
                            "{case}: the second reset finds the first deadline"
                        );
                        was_pending
                    }
                };
                assert_eq!(was_pending, pending, "{case}");
                let armed = subject.deadline();
                assert_eq!(armed.is_some(), call != Stop, "{case}");
                let received = receive_for(&reactor, &pass, &subject, 20);
                match armed.filter(|&armed| armed != Time::MAX) {
                    None => assert_eq!(received, [], "{case}"),
                    Some(armed) if kind.repeats => {
                        let period = if call == ResetShorter { D / 2 } else { D };
                        let period = if call == ResetLonger { D * 3 } else { period };
                        assert!(!received.is_empty(), "{case}");
                        for (n, &due) in (0..).zip(&received) {
                            assert_eq!(due, armed + period * n, "{case}");
                        }
                    }
                    Some(armed) => {
                        assert_eq!(received, [armed], "{case}");
                        // One arm gives one value, so a stop finds nothing.
                        assert!(!subject.stop(), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_arm_may_remove_a_simultaneous_expiry() {
    for a_kind in &KINDS {
        for b_kind in &KINDS {
            for reset in [false, true] {
                for armed_first in [false, true] {
                    let case = format!(
                        "{} handles {}, reset: {reset}, armed first: {armed_first}",
                        a_kind.name, b_kind.name
                    );
                    let (reactor, pass) = (a_kind.world)();
                    let b: Rc<RefCell<Option<Made>>> = Rc::default();
                    let was_pending = Rc::new(Cell::new(None));
                    let (other, result) = (b.clone(), was_pending.clone());
                    let handle_b: OnReceipt = Rc::new(move || {
                        let other = other.borrow().clone().expect("the other subject exists");
                        if result.get().is_none() {
                            result.set(Some(if reset { other.reset(D) } else { other.stop() }));
                        }
                    });
                    let make_b =
                        || *b.borrow_mut() = Some((b_kind.armed)(&reactor, D, Rc::new(|| {})));
                    if !armed_first {
                        make_b();
                    }
                    let a = (a_kind.armed)(&reactor, D, handle_b.clone());
                    if armed_first {
                        make_b();
                    }
                    let b = b.borrow().clone().unwrap();
                    let was = b.deadline();
                    assert_eq!(a.deadline(), was, "{case}: the deadlines differ");
                    pass(D + D / 2);

                    // In one batch the turn runs callbacks in order, then reports sources in order.
                    let mut events = Events::with_capacity(4);
                    reactor.try_wait(&mut events).unwrap();
                    let mut b_reported = false;
                    for event in &events {
                        if Some(event.key()) == a.key() {
                            handle_b();
                        }
                        if Some(event.key()) == b.key() {
                            b_reported = true;
                            b.take();
                        }
                    }
                    let b_came_first = match (a_kind.runs_in_turn, b_kind.runs_in_turn) {
                        (true, false) => false,
                        (false, true) => true,
                        _ => !armed_first,
                    };
                    let pending = !b_came_first || b_kind.repeats;
                    assert_eq!(was_pending.get(), Some(pending), "{case}");
                    let seen = if b_kind.runs_in_turn { b.take().is_some() } else { b_reported };
                    assert_eq!(seen, b_came_first, "{case}");
                    assert_eq!(b.deadline().is_some(), reset, "{case}");
                    assert!(b.deadline() > was || !reset, "{case}");
                    let due = b.deadline();
                    let received = receive_for(&reactor, &pass, &b, 6);
                    assert_eq!(received.first().copied(), due, "{case}");
                    assert!(received.len() <= 1 || b_kind.repeats, "{case}");
                }
            }
        }
    }
}
