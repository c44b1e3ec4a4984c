//! Contexts as in Go's context/x_test.go and afterfunc_test.go. Each behaviour has one test, which
//! names its origin.
//!
//! Left out: values (`WithValue`, and so TestValues and TestWithValueChecksKey), contexts that the
//! user implements (TestCustomContext..), and a nil parent (TestInvalidDerivedFail), which does not
//! compile.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use pollmux::{
    Canceller, Context, Reactor, Sim, Time,
    context::{Cause, ContextError},
};
use support::thread;

use crate::common::{LONG, ms, next, poll, reactor, sim, within};
use crate::support::{aside, watched};

/// Returns a root context in virtual time.
fn root(sim: &Sim) -> Context {
    use pollmux::driver::Driver;
    Context::on_clock(sim.clock())
}

/// Asserts that the context has ended with `error`, by every method and every time.
#[track_caller]
fn assert_ended(reactor: &Reactor, context: &Context, error: ContextError) {
    for _ in 0..2 {
        assert_eq!(context.err(), Some(error));
        assert_eq!(context.cause().map(|cause| cause.error()), Some(error));
        assert_eq!(context.check().unwrap_err().error(), error);
        let done = reactor.done(context);
        // `done` stays ready, as a closed channel does in Go.
        for _ in 0..2 {
            assert_eq!(poll(reactor, &done).map(|cause| cause.error()), Some(error));
        }
    }
}

#[track_caller]
fn assert_open(reactor: &Reactor, context: &Context) {
    assert_eq!(context.err(), None);
    assert!(context.cause().is_none() && context.check().is_ok());
    assert!(poll(reactor, &reactor.done(context)).is_none());
}

#[derive(Debug, PartialEq)]
struct Reason(&'static str);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Reason {}

/// Returns the reason of the cause. `None` if the context is open or has no reason.
fn reason(context: &Context) -> Option<&'static str> {
    context.cause()?.downcast_ref::<Reason>().map(|reason| reason.0)
}

/// TestBackground, TestTODO.
#[test]
fn the_background_never_ends_and_has_no_deadline() {
    let (reactor, sim) = sim();
    for context in [Context::background(), Context::default(), reactor.context(), root(&sim)] {
        assert_eq!(context.deadline(), None);
        assert_open(&reactor, &context);
        sim.advance(LONG);
        assert_open(&reactor, &context);
    }
}

/// TestWithCancel.
#[test]
fn cancel_ends_a_context_and_wakes_its_waiter() {
    watched(|| {
        let reactor = reactor();
        let (context, canceller) = Context::background().with_cancel();
        assert_open(&reactor, &context);
        let done = reactor.done(&context);
        let other = thread::spawn(move || canceller.cancel());
        assert_eq!(next(&reactor, &done).error(), ContextError::Cancelled);
        assert!(other.join().unwrap());
        assert_ended(&reactor, &context, ContextError::Cancelled);
    });
}

/// TestParentFinishesChild.
#[test]
fn cancelling_a_parent_ends_its_descendants() {
    let (reactor, _) = sim();
    let (parent, canceller) = reactor.context().with_cancel();
    let (child, _child) = parent.with_cancel();
    let (timed, _timed) = parent.with_timeout(LONG);
    let (grandchild, _grandchild) = timed.with_cancel();
    for context in [&parent, &child, &timed, &grandchild] {
        assert_open(&reactor, context);
    }
    assert!(canceller.cancel());
    for context in [&parent, &child, &timed, &grandchild] {
        assert_ended(&reactor, context, ContextError::Cancelled);
    }
    // Contexts made from a cancelled parent are cancelled as well.
    let (late, canceller) = parent.with_timeout(LONG);
    assert_ended(&reactor, &late, ContextError::Cancelled);
    assert!(!canceller.cancel());
}

/// TestChildFinishesFirst.
#[test]
fn cancelling_a_child_does_not_end_its_parent() {
    let (reactor, _) = sim();
    let (parent, cancel_parent) = reactor.context().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    let (sibling, _sibling) = parent.with_cancel();
    assert!(cancel_child.cancel());
    assert_ended(&reactor, &child, ContextError::Cancelled);
    assert_open(&reactor, &parent);
    assert_open(&reactor, &sibling);
    assert!(cancel_parent.cancel());
    assert_ended(&reactor, &parent, ContextError::Cancelled);
    assert_ended(&reactor, &sibling, ContextError::Cancelled);
}

/// TestDeadline.
#[test]
fn a_deadline_ends_a_context_and_its_children() {
    let (reactor, sim) = sim();
    let (context, _a) = reactor.context().with_deadline(Time::ZERO + ms(50));
    let (child, _b) = context.with_cancel();
    let (later, _c) = context.with_deadline(Time::ZERO + ms(5_000));
    assert_eq!(context.deadline(), Some(Time::ZERO + ms(50)));
    assert_eq!(next(&reactor, &reactor.done(&later)).error(), ContextError::DeadlineExceeded);
    assert_eq!(sim.now(), Time::ZERO + ms(50));
    for context in [&context, &child, &later] {
        assert_ended(&reactor, context, ContextError::DeadlineExceeded);
    }
}

/// TestDeadline, with a past deadline.
#[test]
fn a_past_deadline_ends_a_context_at_once() {
    let (reactor, sim) = sim();
    sim.advance(ms(10));
    for t in [Time::ZERO, Time::ZERO + ms(9), sim.now()] {
        let (context, canceller) = reactor.context().with_deadline(t);
        assert!(!canceller.cancel(), "the context had ended before cancel");
        assert_ended(&reactor, &context, ContextError::DeadlineExceeded);
    }
    let (context, _canceller) = reactor.context().with_timeout(Duration::ZERO);
    assert_ended(&reactor, &context, ContextError::DeadlineExceeded);
}

/// TestTimeout.
#[test]
fn a_timeout_ends_a_context() {
    watched(|| {
        let reactor = reactor();
        let begin = Time::now();
        let (context, _a) = Context::background().with_timeout(ms(20));
        let (child, _b) = context.with_cancel();
        assert!(context.deadline().unwrap() >= begin + ms(20));
        assert_eq!(next(&reactor, &reactor.done(&child)).error(), ContextError::DeadlineExceeded);
        assert!(Time::now() >= begin + ms(20), "early");
        assert_ended(&reactor, &context, ContextError::DeadlineExceeded);
    });
}

/// TestCanceledTimeout.
#[test]
fn a_cancel_before_the_timeout_counts() {
    let (reactor, sim) = sim();
    let (context, canceller) = reactor.context().with_timeout(LONG);
    let (child, _child) = context.with_cancel();
    assert!(canceller.cancel());
    sim.advance(LONG * 2);
    assert_ended(&reactor, &child, ContextError::Cancelled);
    assert_ended(&reactor, &context, ContextError::Cancelled);
}

/// TestSimultaneousCancels.
#[test]
fn many_threads_may_cancel_a_tree_at_once() {
    watched(|| {
        const N: usize = 32;
        let reactor = reactor();
        let (root, canceller) = Context::background().with_cancel();
        let mut queue = vec![(root, canceller)];
        let mut all: Vec<(Context, Canceller)> = Vec::new();
        while all.len() < N {
            let (context, canceller) = queue.remove(0);
            queue.extend([context.with_cancel(), context.with_cancel()]);
            all.push((context, canceller));
        }
        let start = Arc::new(Barrier::new(N));
        let cancel = |canceller: Canceller| {
            let start = start.clone();
            thread::spawn(move || {
                start.wait();
                canceller.cancel()
            })
        };
        let dones: Vec<_> = all.iter().map(|(context, _)| reactor.done(context)).collect();
        let threads: Vec<_> = all.iter().map(|(_, canceller)| cancel(canceller.clone())).collect();
        for done in &dones {
            assert_eq!(within(&reactor, done, LONG).unwrap().error(), ContextError::Cancelled);
        }
        let won: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(won.contains(&true));
        for (context, _) in all.iter().chain(&queue) {
            assert_ended(&reactor, context, ContextError::Cancelled);
        }
    });
}

/// TestInterlockedCancels.
#[test]
fn parent_and_child_may_cancel_each_other() {
    watched(|| {
        let (parent, cancel_parent) = Context::background().with_cancel();
        let (child, cancel_child) = parent.with_cancel();
        let _other = aside(move || {
            let reactor = ::support::reactor();
            next(&reactor, &reactor.done(&parent));
            cancel_child.cancel();
        });
        cancel_parent.cancel();
        let reactor = reactor();
        assert_eq!(next(&reactor, &reactor.done(&child)).error(), ContextError::Cancelled);
    });
}

/// TestLayersCancel, TestLayersTimeout.
#[test]
fn an_end_reaches_all_layers_below_it_only() {
    for by_deadline in [false, true] {
        let (reactor, sim) = sim();
        let mut layers: Vec<(Context, Option<Canceller>)> = vec![(reactor.context(), None)];
        for n in 0..30 {
            let context = layers.last().unwrap().0.clone();
            let (context, canceller) = match n {
                // Only this deadline passes.
                15 if by_deadline => context.with_timeout(ms(10)),
                _ if n % 3 == 0 => context.with_timeout(LONG * 2),
                _ => context.with_cancel(),
            };
            layers.push((context, Some(canceller)));
        }
        match by_deadline {
            true => sim.advance(ms(10)),
            false => assert!(layers[16].1.as_ref().unwrap().cancel()),
        }
        let error =
            if by_deadline { ContextError::DeadlineExceeded } else { ContextError::Cancelled };
        for (n, (context, _)) in layers.iter().enumerate() {
            match n {
                0..16 => assert_open(&reactor, context),
                _ => assert_ended(&reactor, context, error),
            }
        }
    }
}

/// TestWithCancelCanceledParent.
#[test]
fn a_child_of_a_cancelled_parent_starts_cancelled() {
    let (reactor, _) = sim();
    let (parent, canceller) = reactor.context().with_cancel();
    canceller.cancel_with(Reason("over"));
    let (child, cancel_child) = parent.with_cancel();
    assert_ended(&reactor, &child, ContextError::Cancelled);
    assert!(!cancel_child.cancel_with(Reason("the parent's reason came first")));
    assert_eq!(reason(&child), Some("over"));
}

/// TestWithCancelSimultaneouslyCanceledParent.
#[test]
fn a_child_made_during_a_cancel_ends_too() {
    watched(|| {
        for _ in 0..200 {
            let (parent, canceller) = Context::background().with_cancel();
            let other = thread::spawn(move || canceller.cancel());
            let (child, _canceller) = parent.with_cancel();
            other.join().unwrap();
            assert_eq!(child.err(), Some(ContextError::Cancelled));
        }
    });
}

/// TestDeadlineExceededSupportsTimeout, TestDeadlineExceededIsNetError: as an `io::Error` the kind
/// is `TimedOut`.
#[test]
fn only_deadlines_become_timed_out_io_errors() {
    let (reactor, _) = sim();
    let (context, _canceller) = reactor.context().with_timeout(Duration::ZERO);
    let work = || -> std::io::Result<()> { Ok(context.check()?) };
    assert_eq!(work().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(
        std::io::Error::from(ContextError::DeadlineExceeded).kind(),
        std::io::ErrorKind::TimedOut
    );
    assert_eq!(std::io::Error::from(ContextError::Cancelled).kind(), std::io::ErrorKind::Other);
}

/// TestCause, the rows about cancelling.
#[test]
fn the_first_cancel_sets_the_cause() {
    let (reactor, _) = sim();
    let root = reactor.context();
    let pair = || {
        let (parent, cancel_parent) = root.with_cancel();
        let (child, cancel_child) = parent.with_cancel();
        (parent, cancel_parent, child, cancel_child)
    };
    // The rows: no cancel; the parent; the child; parent then child; child then parent; the parent
    // twice.
    type Act = fn(&Canceller, &Canceller);
    let table: [(Act, Option<&str>, Option<&str>); 6] = [
        (|_, _| (), None, None),
        (|parent, _| assert!(parent.cancel_with(Reason("parent"))), Some("parent"), Some("parent")),
        (|_, child| assert!(child.cancel_with(Reason("child"))), None, Some("child")),
        (
            |parent, child| {
                assert!(parent.cancel_with(Reason("parent")) && !child.cancel_with(Reason("child")))
            },
            Some("parent"),
            Some("parent"),
        ),
        (
            |parent, child| {
                assert!(child.cancel_with(Reason("child")) && parent.cancel_with(Reason("parent")))
            },
            Some("parent"),
            Some("child"),
        ),
        (
            |parent, _| {
                assert!(
                    parent.cancel_with(Reason("first")) && !parent.cancel_with(Reason("second"))
                )
            },
            Some("first"),
            Some("first"),
        ),
    ];
    for (row, (act, of_parent, of_child)) in table.into_iter().enumerate() {
        let (parent, cancel_parent, child, cancel_child) = pair();
        act(&cancel_parent, &cancel_child);
        assert_eq!((reason(&parent), reason(&child)), (of_parent, of_child), "row {row}");
        assert_eq!(child.err().is_some(), of_child.is_some(), "row {row}");
    }
}

/// TestCause: without a reason the cause is the error.
#[test]
fn without_a_reason_the_cause_is_the_error() {
    let (reactor, _) = sim();
    let (context, canceller) = reactor.context().with_cancel();
    let (child, _child) = context.with_cancel();
    assert!(canceller.cancel());
    for context in [&context, &child] {
        let cause: Cause = context.cause().unwrap();
        assert!(cause.reason().is_none());
        assert_eq!(cause.to_string(), ContextError::Cancelled.to_string());
        assert_eq!(cause.error(), ContextError::Cancelled);
    }
    // A string can be a reason.
    let (context, canceller) = reactor.context().with_cancel();
    canceller.cancel_with("no disk");
    assert_eq!(context.cause().unwrap().to_string(), "no disk");
}

/// TestCause, the rows about WithTimeoutCause and WithDeadlineCause.
#[test]
fn a_deadline_reason_counts_when_the_deadline_passes() {
    let (reactor, sim) = sim();
    let root = reactor.context();
    let slow = || root.with_timeout_cause(ms(10), Reason("slow"));
    let ((expired, _a), (cancelled, canceller)) = (slow(), slow());
    let (child, _b) = expired.with_cancel();
    // The parent ends first, so its reason counts.
    let (later, _c) = expired.with_deadline_cause(Time::ZERO + ms(20), Reason("slower"));
    assert!(canceller.cancel());
    sim.advance(ms(30));
    for context in [&expired, &child, &later] {
        assert_ended(&reactor, context, ContextError::DeadlineExceeded);
        assert_eq!(reason(context), Some("slow"));
    }
    assert_ended(&reactor, &cancelled, ContextError::Cancelled);
    assert_eq!(reason(&cancelled), None);
}

/// TestCauseRace.
#[test]
fn an_ended_context_always_has_its_cause() {
    watched(|| {
        for _ in 0..200 {
            let (context, canceller) = Context::background().with_cancel();
            let other = thread::spawn(move || canceller.cancel_with(Reason("raced")));
            while context.err().is_none() {
                assert!(context.cause().is_none_or(|cause| cause.reason().is_some()));
                thread::yield_now();
            }
            assert_eq!(reason(&context), Some("raced"));
            assert!(other.join().unwrap());
        }
    });
}

/// TestWithoutCancel.
#[test]
fn without_cancel_drops_the_deadline_and_outlives_parent() {
    let (reactor, sim) = sim();
    let (parent, canceller) = reactor.context().with_timeout(ms(10));
    let free = parent.without_cancel();
    let (timed, _timed) = free.with_timeout(ms(50));
    assert_eq!(free.deadline(), None);
    canceller.cancel();
    sim.advance(ms(20));
    assert_open(&reactor, &free);
    assert_open(&reactor, &timed);
    // `free` keeps the clock of its parent.
    sim.advance(ms(30));
    assert_ended(&reactor, &timed, ContextError::DeadlineExceeded);
    assert_open(&reactor, &free);
}

fn turn(reactor: &Reactor) {
    assert!(poll(reactor, &pollmux::never::<()>()).is_none());
}

/// TestAfterFuncCalledAfterCancel, TestAfterFuncCalledAsynchronously.
#[test]
fn after_cancel_runs_once_on_its_reactor() {
    watched(|| {
        let reactor = reactor();
        let (context, canceller) = Context::background().with_cancel();
        let (child, _child) = context.with_cancel();
        let here = thread::current().id();
        let ran = Rc::new(Cell::new(0));
        let count = ran.clone();
        let after = reactor.after_cancel(&child, move |_| {
            assert_eq!(thread::current().id(), here);
            count.set(count.get() + 1);
        });
        turn(&reactor);
        assert!(after.is_pending());
        let done = reactor.done(&child);
        let other = thread::spawn(move || canceller.cancel());
        next(&reactor, &done);
        // `cancel` marks all contexts first and then wakes the waiters. Only after the join are
        // both done.
        other.join().unwrap();
        turn(&reactor);
        assert_eq!((ran.get(), after.is_pending()), (1, false));
        assert!(!after.stop(), "the callback has run");
    });
}

/// TestAfterFuncCalledAfterTimeout.
#[test]
fn after_cancel_runs_within_a_longer_wait() {
    let (reactor, sim) = sim();
    let (context, _canceller) = reactor.context().with_timeout(ms(10));
    let when = Rc::new(Cell::new(None));
    let (seen, clock) = (when.clone(), sim.clone());
    reactor.after_cancel(&context, move |_| seen.set(Some(clock.now()))).detach();
    // One wait that is longer than the deadline.
    assert_eq!(next(&reactor, &reactor.after(ms(50))), Time::ZERO + ms(50));
    assert_eq!(when.get(), Some(Time::ZERO + ms(10)));
}

/// TestAfterFuncCalledImmediately.
#[test]
fn after_cancel_on_ended_context_runs_next_turn() {
    let (reactor, _) = sim();
    let (context, canceller) = reactor.context().with_cancel();
    canceller.cancel();
    let (expired, _expired) = reactor.context().with_timeout(Duration::ZERO);
    let order = Rc::new(RefCell::new(Vec::new()));
    let note = |what: &'static str| {
        let order = order.clone();
        move |_: &pollmux::Handle| order.borrow_mut().push(what)
    };
    reactor.after_cancel(&context, note("cancelled")).detach();
    reactor.after_cancel(&expired, note("expired")).detach();
    assert!(order.borrow().is_empty(), "ran inside after_cancel");
    turn(&reactor);
    assert_eq!(*order.borrow(), ["cancelled", "expired"]);
}

/// TestAfterFuncNotCalledAfterStop.
#[test]
fn a_stopped_after_cancel_never_runs() {
    let (reactor, sim) = sim();
    let (context, canceller) = reactor.context().with_timeout(ms(10));
    let ran = Rc::new(Cell::new(0));
    let count = || {
        let ran = ran.clone();
        move |_: &pollmux::Handle| ran.set(ran.get() + 1)
    };
    let (stopped, dropped) =
        (reactor.after_cancel(&context, count()), reactor.after_cancel(&context, count()));
    let kept = reactor.after_cancel(&context, count());
    let overtaken = reactor.after_cancel(&context, count());
    assert!(stopped.stop());
    assert!(!stopped.stop(), "stopped twice");
    drop(dropped);
    canceller.cancel();
    // The context has ended, but no turn has run the callback yet, so `stop` prevents the call.
    assert!(overtaken.stop());
    turn(&reactor);
    sim.advance(LONG);
    turn(&reactor);
    assert_eq!(ran.get(), 1);
    assert!(!kept.stop() && !stopped.stop() && !overtaken.stop());
    // Only `ran` itself is left: each callback has dropped its closure.
    assert_eq!(Rc::strong_count(&ran), 1);
}
