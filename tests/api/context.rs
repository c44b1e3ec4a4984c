//! Checks contexts beyond Go's tests, which are in `conformance/context.rs`: deadlines without a
//! reactor, and large trees. Also checks the timers of `done` and `after_cancel`, leaks, and the
//! number of wake-ups.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pollmux::sys::{Interest, Mode, PollEvents, Poller};
use pollmux::{
    Canceller, Context, Events, Handle, Reactor, Select, Sim, Source, Time,
    context::{Cause, ContextError},
    driver::{Clock, Driver},
    select,
};
use support::{
    HOUR, Random, alone, bytes, ms, panic_text, rounds, scripted_reactor, simulated, thread, timed,
    turn, watchdog,
};

const MANY: usize = 100_000;

fn error(cause: &Cause) -> ContextError {
    cause.error()
}

#[test]
fn contexts_and_cancellers_are_send_and_sync() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<Context>();
    check::<Canceller>();
    check::<Cause>();
}

// Deadlines.

#[test]
fn a_deadline_needs_no_reactor() {
    let begin = Instant::now();
    let (context, canceller) = Context::background().with_timeout(ms(5));
    let (child, _child) = context.with_timeout(HOUR);
    if context.err().is_some() {
        assert!(begin.elapsed() >= ms(5), "the context ended before its deadline");
    }
    // This test needs real time, because the deadline must pass.
    thread::sleep(ms(6));
    // Checks the child first, before any call has checked the parent.
    assert_eq!(child.err(), Some(ContextError::DeadlineExceeded));
    assert_eq!(child.deadline(), context.deadline());
    assert!(!canceller.cancel());
    assert_eq!(context.cause().as_ref().map(error), Some(ContextError::DeadlineExceeded));
}

#[test]
fn a_deadline_at_an_instant_is_never_early() {
    let t = Instant::now() + ms(3);
    let (context, _canceller) = Context::background().with_deadline(t);
    while context.err().is_none() {
        thread::yield_now();
    }
    assert!(Instant::now() >= t);
}

#[test]
fn a_virtual_deadline_needs_no_reactor() {
    let sim = Sim::new();
    let (context, _canceller) = Context::on_clock(sim.clock()).with_timeout(HOUR);
    sim.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(context.err(), None);
    sim.advance(Duration::from_nanos(1));
    assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
}

#[test]
fn a_timeout_that_overflows_is_no_deadline() {
    let (sim, reactor) = simulated();
    for (context, canceller) in
        [reactor.context().with_timeout(Duration::MAX), reactor.context().with_deadline(Time::MAX)]
    {
        assert_eq!(context.deadline(), None);
        sim.advance(HOUR);
        assert_eq!(context.err(), None);
        assert!(canceller.cancel());
    }
}

#[test]
fn a_later_cancellation_keeps_an_unobserved_deadline() {
    let (sim, reactor) = simulated();
    let (parent, cancel_parent) = reactor.context().with_cancel();
    let (child, _child) = parent.with_timeout(ms(10));
    let (grandchild, _grandchild) = child.with_cancel();
    let (other, _other) = parent.with_timeout(ms(20));
    sim.advance(ms(15));
    assert!(cancel_parent.cancel());
    assert_eq!(child.err(), Some(ContextError::DeadlineExceeded));
    assert_eq!(grandchild.err(), Some(ContextError::DeadlineExceeded));
    assert_eq!(
        (parent.err(), other.err()),
        (Some(ContextError::Cancelled), Some(ContextError::Cancelled))
    );
    sim.advance(ms(15));
    assert_eq!(
        other.err(),
        Some(ContextError::Cancelled),
        "the later deadline replaced the cancellation"
    );
}

#[test]
fn err_never_changes_while_cancel_races_the_deadline() {
    let _watchdog = watchdog();
    let mut random = Random::new(3);
    let (mut ends, mut span) = ([0; 2], 60_000);
    for _ in 0..rounds(500) {
        let t = Time::now() + Duration::from_nanos(random.below(span));
        let (context, canceller) = Context::background().with_deadline(t);
        let watcher = {
            let context = context.clone();
            thread::spawn(move || {
                loop {
                    if let Some(first) = context.err() {
                        return first;
                    }
                }
            })
        };
        (0..random.below(2_000)).for_each(|_| std::hint::spin_loop());
        let won = canceller.cancel();
        let first = watcher.join().unwrap();
        assert_eq!(context.err(), Some(first));
        assert_eq!(won, first == ContextError::Cancelled);
        ends[usize::from(won)] += 1;
        // Adapts the span, so that deadline and cancellation race at any thread speed.
        span = if won { span - span / 16 } else { span + span / 8 + 16 };
    }
    assert!(ends.iter().all(|&n| n > 0), "the contexts ended in only one way: {ends:?}");
}

#[test]
fn done_with_a_deadline_refuses_another_clock() {
    let (_, reactor) = simulated();
    let (context, canceller) = Context::background().with_cancel();
    let (timed, _timed) = context.with_timeout(HOUR);
    let refused = panic_text(|| drop(reactor.done(&timed)));
    assert!(refused.contains("another clock"), "{refused}");
    let refused = panic_text(|| drop(reactor.after_cancel(&timed, |_| {})));
    assert!(refused.contains("another clock"), "{refused}");
    let other = Sim::new();
    let (timed, _timed) = Context::on_clock(other.clock()).with_timeout(HOUR);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(reactor.done(&timed)))).is_err());
    // A cancellation needs no clock.
    let done = reactor.done(&context);
    canceller.cancel();
    select! { reactor; recv(done) -> cause => assert_eq!(cause.error(), ContextError::Cancelled) }
    assert!(
        matches!(context.clock(), Clock::Monotonic)
            && matches!(reactor.context().clock(), Clock::Virtual(_))
    );
}

// Large trees.

#[test]
fn many_children_are_cancelled_in_linear_time() {
    let cancel = |trees: usize, n: usize| {
        let trees: Vec<_> = (0..trees).map(|_| Context::background().with_cancel()).collect();
        let children: Vec<_> =
            trees.iter().flat_map(|(root, _)| (0..n).map(|_| root.with_cancel().0)).collect();
        let ((), took) =
            timed(|| trees.iter().for_each(|(_, canceller)| assert!(canceller.cancel())));
        assert!(children.iter().all(|child| child.err() == Some(ContextError::Cancelled)));
        took
    };
    let best = |trees, n| (0..3).map(|_| cancel(trees, n)).min().unwrap();
    // Compares one tree with ten trees of the same total size. If the time were quadratic, one tree
    // would take ten times as long.
    let (ten, one) = (best(10, MANY / 10), best(1, MANY));
    println!("cancelling {MANY} children took {ten:?} in ten trees, {one:?} in one");
    assert!(one < ten * 4 + ms(12), "{ten:?} in ten trees, {one:?} in one");
}

#[test]
fn a_large_cancellation_blocks_no_other_user() {
    let _watchdog = watchdog();
    // The two threads do not always run at the same time, least of all on a busy machine.
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(90) {
        let (root, canceller) = Context::background().with_cancel();
        let (branch, _branch) = root.with_cancel();
        let children: Vec<_> = (0..MANY).map(|_| branch.with_cancel()).collect();
        let other = thread::spawn(move || canceller.cancel());
        // Uses the node during the cancellation of its children, from the node's own end to the
        // last child's end.
        let last = &children[MANY - 1].0;
        while branch.err().is_none() {}
        let mut during = 0;
        while last.err().is_none() {
            drop((branch.with_cancel(), root.with_cancel(), branch.cause()));
            during += 1;
        }
        assert!(other.join().unwrap());
        most = most.max(during);
        // A single use proves nothing, because a use that begins earlier may block until the end.
        if most > 10 {
            return;
        }
    }
    panic!("the node was used at most {most} times while its children were cancelled");
}

#[test]
fn long_chains_are_cancelled_on_a_small_stack() {
    let chain = || {
        let (root, canceller) = Context::background().with_cancel();
        let mut leaf = root;
        for n in 0..MANY {
            leaf = if n % 2 == 0 { leaf.with_cancel().0 } else { leaf.with_timeout(HOUR).0 };
        }
        // Only the leaf keeps the nodes between the canceller and the leaf alive.
        assert_eq!(leaf.err(), None);
        assert!(canceller.cancel());
        assert_eq!(leaf.err(), Some(ContextError::Cancelled));
        assert!(format!("{leaf:?}").len() < 200);
        drop(canceller);
        drop(leaf);
    };
    thread::Builder::new().stack_size(64 * 1024).spawn(chain).unwrap().join().unwrap();
}

#[test]
fn long_chains_are_dropped_on_a_small_stack() {
    let chain = |from_the_root: bool| {
        let mut all = vec![Context::background().with_cancel().0];
        for _ in 0..MANY {
            let next = all[all.len() - 1].with_cancel().0;
            all.push(next);
        }
        if !from_the_root {
            all.reverse();
        }
        drop(all);
    };
    let chains = move || [true, false].map(chain);
    thread::Builder::new().stack_size(64 * 1024).spawn(chains).unwrap().join().unwrap();
}

#[test]
fn dropped_children_done_sources_and_closures_leak_nothing() {
    alone!();
    let (_, reactor) = simulated();
    let (root, _root) = reactor.context().with_timeout(HOUR);
    let round = |n: usize| {
        for _ in 0..n {
            let (child, canceller) = root.with_cancel();
            let done = reactor.done(&child);
            let after = reactor.after_cancel(&root, |_| {});
            let grandchild = child.with_timeout(ms(1)).0;
            canceller.cancel();
            drop((done, after, grandchild));
            drop(reactor.done(&root));
        }
        turn(&reactor);
    };
    round(10_000);
    let before = bytes();
    round(rounds(25_000) as usize);
    let grown = bytes().saturating_sub(before) >> 10;
    // A leaked word per round would be 200 KiB, and a leaked node 5 MiB.
    assert!(grown < 128, "{grown} KiB more");
}

// `done` sources.

/// A select receives the end again and again.
#[test]
fn wait_reports_a_contexts_end_until_taken() {
    for deadline in [false, true] {
        let (sim, reactor) = simulated();
        let (context, canceller) = reactor.context().with_timeout(ms(10));
        let done = reactor.done(&context).with_key(5);
        assert_eq!(support::ready_keys(&reactor), []);
        if deadline {
            sim.advance(ms(10))
        } else {
            assert!(canceller.cancel())
        }
        let expected =
            if deadline { ContextError::DeadlineExceeded } else { ContextError::Cancelled };
        for _ in 0..2 {
            assert_eq!(support::wait_keys(&reactor), [5]);
        }
        assert_eq!(done.try_take().as_ref().map(error), Some(expected));
        assert_eq!(support::ready_keys(&reactor), []);
        for _ in 0..3 {
            select! { reactor;
                recv(done) -> cause => assert_eq!(cause.error(), expected),
                default => panic!("a second select did not receive the end"),
            }
        }
        assert_eq!(done.key(), 5);
        sim.advance(HOUR);
        assert_eq!(
            support::ready_keys(&reactor),
            [],
            "the deadline was reported although the end was taken"
        );
    }
}

#[test]
fn wait_reports_contexts_that_ended_before_registration() {
    let (sim, reactor) = simulated();
    let (context, canceller) = reactor.context().with_cancel();
    let (timed, _timed) = reactor.context().with_timeout(ms(10));
    canceller.cancel();
    sim.advance(ms(20));
    for settled in [false, true] {
        let (cancelled, expired) =
            (reactor.done(&context).with_key(1), reactor.done(&timed).with_key(2));
        assert_eq!(
            support::wait_keys(&reactor),
            [1, 2],
            "after `err` observed the deadline: {settled}"
        );
        // The second round registers after `err` has observed the deadline.
        assert_eq!(timed.err(), Some(ContextError::DeadlineExceeded));
        drop((cancelled, expired));
    }
}

#[test]
fn cancelling_after_a_reported_deadline_changes_nothing() {
    let (sim, reactor) = simulated();
    let (context, canceller) = reactor.context().with_timeout(ms(10));
    let done = reactor.done(&context);
    let mut events = Events::with_capacity(4);
    sim.advance(ms(10));
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.len(), 1);
    assert!(!canceller.cancel());
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(done.try_take().as_ref().map(error), Some(ContextError::DeadlineExceeded));
}

#[test]
fn a_cancellation_disarms_the_deadline() {
    let (sim, reactor, script) = scripted_reactor();
    let (context, canceller) = reactor.context().with_timeout(ms(10));
    let (done, later) = (reactor.done(&context), reactor.after(ms(50)));
    canceller.cancel();
    select! { reactor; recv(done) -> cause => assert_eq!(cause.error(), ContextError::Cancelled) }
    select! { reactor; recv(later) -> due => assert_eq!(due, Time::ZERO + ms(50)) }
    assert_eq!(script.sleeps(), 1, "the reactor woke up for a cancelled context's deadline");
    // A wait disarms the deadline, too, although nothing takes the source.
    let (context, canceller) = reactor.context().with_timeout(ms(10));
    let done = reactor.done(&context);
    let later = reactor.after(ms(50)).with_key(1);
    canceller.cancel();
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    drop(done);
    assert_eq!(support::wait_keys(&reactor), [1]);
    assert_eq!((script.sleeps(), sim.now()), (2, Time::ZERO + ms(100)));
    drop(later);
}

#[test]
fn only_the_earliest_awaited_deadline_is_armed() {
    let (sim, reactor, script) = scripted_reactor();
    let (parent, _parent) = reactor.context().with_timeout(ms(10));
    let (child, _child) = parent.with_timeout(ms(20));
    let (unwatched, _unwatched) = reactor.context().with_timeout(ms(30));
    assert_eq!(child.deadline(), parent.deadline());
    let (of_parent, of_child, later) =
        (reactor.done(&parent), reactor.done(&child), reactor.after(ms(100)));
    select! { reactor;
        recv(of_child) -> cause => assert_eq!(cause.error(), ContextError::DeadlineExceeded),
    }
    assert_eq!((sim.now(), script.sleeps()), (Time::ZERO + ms(10), 1));
    select! { reactor;
        recv(of_parent) -> cause => assert_eq!(cause.error(), ContextError::DeadlineExceeded),
    }
    select! { reactor; recv(later) -> _ => {} }
    assert_eq!(
        (sim.now(), script.sleeps()),
        (Time::ZERO + ms(100), 2),
        "another deadline was armed"
    );
    assert_eq!(unwatched.err(), Some(ContextError::DeadlineExceeded));
}

#[test]
fn a_select_set_finds_a_cancelled_context() {
    let (_, reactor) = simulated();
    let pairs: Vec<_> = (0..100).map(|n| reactor.context().with_timeout(HOUR + ms(n))).collect();
    let dones: Vec<_> = pairs.iter().map(|(context, _)| reactor.done(context)).collect();
    let mut select = Select::new(&reactor);
    for done in &dones {
        select.recv(done);
    }
    assert!(select.try_wait().unwrap().is_none());
    pairs[70].1.cancel();
    let chosen = select.wait().unwrap();
    assert_eq!(chosen.index(), 70);
    assert_eq!(chosen.recv(&dones[70]).as_ref().map(error), Some(ContextError::Cancelled));
    // A context stays cancelled. Without its case, the set finds the context with the earliest
    // deadline.
    assert_eq!(select.try_wait().unwrap().unwrap().index(), 70);
    assert!(select.remove(70));
    let chosen = select.wait().unwrap();
    assert_eq!(chosen.index(), 0);
    assert_eq!(chosen.recv(&dones[0]).as_ref().map(error), Some(ContextError::DeadlineExceeded));
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn an_outer_loop_wakes_when_a_context_ends() {
    let _watchdog = watchdog();
    // The loop waits with a `done` source, an `after_cancel` closure, or both.
    for (deadline, source, closure) in [false, true]
        .into_iter()
        .flat_map(|d| [(d, true, false), (d, false, true), (d, true, true)])
    {
        let reactor = support::reactor();
        let inner = reactor.embed().unwrap();
        let outer = Poller::new().unwrap();
        outer.register(&inner, 0, Interest::READABLE, Mode::Level).unwrap();
        let (context, canceller) =
            reactor.context().with_timeout(if deadline { ms(5) } else { HOUR });
        let done = source.then(|| reactor.done(&context));
        let ran = Rc::new(Cell::new(!closure));
        let run = ran.clone();
        let _after = closure.then(|| reactor.after_cancel(&context, move |_| run.set(true)));
        let other = thread::spawn(move || !deadline && canceller.cancel());
        let mut events = PollEvents::with_capacity(1);
        while !(ran.get() && done.as_ref().is_none_or(Source::is_ready)) {
            outer.wait(&mut events, None).unwrap();
            inner.turn().unwrap();
        }
        // The context ends before its waiters are notified. The join also waits for these
        // notifications.
        assert_eq!(other.join().unwrap(), !deadline);
        let expected =
            if deadline { ContextError::DeadlineExceeded } else { ContextError::Cancelled };
        assert_eq!(context.err(), Some(expected));
        assert_eq!(
            done.and_then(|done| done.try_take()).as_ref().map(error),
            source.then_some(expected)
        );
        while inner.turn().unwrap() > 0 {}
        outer.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty(), "the fd is readable although no work is left");
    }
}

#[test]
fn done_of_another_reactor_is_an_error() {
    let ((_, one), (_, other)) = (simulated(), simulated());
    let (context, canceller) = Context::background().with_cancel();
    let done = one.done(&context);
    canceller.cancel();
    select! { other;
        recv(done) -> _ => panic!("the select took a source of another reactor"),
        error -> error => assert_eq!(error.kind(), ErrorKind::InvalidInput),
    }
}

#[test]
fn done_and_after_cancel_end_with_their_reactor() {
    let (_, reactor) = simulated();
    let handle = reactor.handle();
    let (context, canceller) = reactor.context().with_timeout(HOUR);
    let done = reactor.done(&context);
    let held = Rc::new(());
    let hold = |held: &Rc<()>| {
        let held = held.clone();
        move |_: &Handle| drop(held)
    };
    let after = reactor.after_cancel(&context, hold(&held));
    reactor.after_cancel(&context, hold(&held)).detach();
    assert_eq!(Rc::strong_count(&held), 3);
    drop(reactor);
    assert_eq!(Rc::strong_count(&held), 1, "the reactor's drop did not drop the closures");
    assert!(!after.stop(), "a closure is pending without its reactor");
    assert!(format!("{done:?}").contains("inert: true"), "{done:?}");
    canceller.cancel();
    assert_eq!(context.err(), Some(ContextError::Cancelled));
    // Sources made after the reactor's drop are inert.
    let late = handle.done(&context);
    let never = handle.after_cancel(&context, hold(&held));
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(!never.is_pending());
    drop((done, late, never, after));
}

// Wake-ups.

#[test]
fn a_cancellation_wakes_each_sleeping_reactor_once() {
    let _watchdog = watchdog();
    let (context, canceller) = Context::background().with_cancel();
    let (asleep_tx, asleep) = mpsc::channel();
    let loops: Vec<_> = (0..8)
        .map(|_| {
            let (context, asleep) = (context.clone(), asleep_tx.clone());
            thread::spawn(move || {
                support::exact("counts waits");
                let reactor = support::reactor();
                let done = reactor.done(&context);
                asleep.send(()).unwrap();
                select! { reactor;
                    recv(done) -> cause => assert_eq!(cause.error(), ContextError::Cancelled),
                }
                reactor.stats()
            })
        })
        .collect();
    (0..8).for_each(|_| asleep.recv().unwrap());
    // Gives the reactors time to sleep. An awake reactor only makes the count lower.
    thread::sleep(ms(5));
    canceller.cancel();
    for stats in loops.into_iter().map(|thread| thread.join().unwrap()) {
        assert!(stats.wakes <= 1 && stats.waits <= 2, "{stats}");
    }
}

#[test]
fn cancelling_a_large_tree_causes_one_wake_up() {
    let _watchdog = watchdog();
    // The tree is so large that a reactor woken too early sleeps again before the cancellation
    // ends.
    const N: usize = 20_000;
    for _ in 0..5 {
        let (_, reactor, script) = scripted_reactor();
        let (root, canceller) = Context::background().with_cancel();
        let children: Vec<_> = (0..N).map(|_| root.with_cancel()).collect();
        let dones: Vec<_> = children
            .iter()
            .enumerate()
            .map(|(n, (child, _))| reactor.done(child).with_key(n as u64))
            .collect();
        let (asleep, go) = mpsc::channel();
        let other = thread::spawn(move || {
            go.recv().unwrap();
            canceller.cancel()
        });
        // The cancellation comes during the sleep. After its first wake-up the reactor must find
        // all contexts, because a second sleep would never end.
        let sleeping = script.clone();
        script.on_sleep(move || {
            asleep.send(()).unwrap();
            while sleeping.wakes() == 0 {
                thread::yield_now();
            }
            Ok(())
        });
        let mut events = Events::with_capacity(N);
        let mut taken = 0;
        while taken < N {
            reactor.wait(&mut events).unwrap();
            taken += events
                .iter()
                .filter(|event| dones[event.key() as usize].try_take().is_some())
                .count();
        }
        assert!(other.join().unwrap());
        assert_eq!((script.sleeps(), script.wakes(), reactor.stats().wakes), (1, 1, 1));
    }
}

#[test]
fn cancellations_in_an_awake_loop_cost_no_syscall() {
    let reactor = support::reactor();
    let before = reactor.stats();
    for _ in 0..100 {
        let (context, canceller) = Context::background().with_cancel();
        let done = reactor.done(&context);
        canceller.cancel();
        select! { reactor; recv(done) -> _ => {} }
    }
    assert_eq!((reactor.stats() - before).syscalls(), 0);
}

#[test]
fn no_cancellation_and_no_deadline_is_lost() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut random = Random::new(9);
    let (work, jobs) = mpsc::channel::<(Canceller, u64)>();
    let _other = support::aside(move || {
        let mut random = Random::new(10);
        for (canceller, _) in jobs {
            random.pause();
            canceller.cancel();
        }
    });
    for n in 0..rounds(750) {
        let timeout =
            if random.below(4) == 0 { Duration::from_micros(random.below(200)) } else { HOUR };
        let (parent, canceller) = Context::background().with_cancel();
        let (context, _own) = parent.with_timeout(timeout);
        let done = reactor.done(&context);
        work.send((canceller, n)).unwrap();
        random.pause();
        select! { reactor; recv(done) -> cause => assert_eq!(Some(cause.error()), context.err()) }
    }
    drop(work);
}

// Closures of `after_cancel`.

#[test]
fn closures_run_during_a_wait_for_another_source() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (context, canceller) = Context::background().with_cancel();
    let (tx, inbox) = reactor.channel(4).unwrap();
    // The closure sends the message that ends the select.
    reactor.after_cancel(&context, move |_| tx.try_send("cleaned up").unwrap()).detach();
    thread::spawn(move || {
        // Gives the loop time to sleep.
        thread::sleep(ms(3));
        canceller.cancel();
    });
    select! { reactor; recv(inbox) -> word => assert_eq!(word, Ok("cleaned up")) }
    // A wait runs the closure, too.
    let (context, canceller) = Context::background().with_cancel();
    let ran = Rc::new(Cell::new(false));
    let run = ran.clone();
    reactor.after_cancel(&context, move |_| run.set(true)).detach();
    let _timer = reactor.after(ms(10)).with_key(3);
    thread::spawn(move || canceller.cancel()).join().unwrap();
    let mut events = Events::with_capacity(4);
    while events.iter().all(|event| event.key() != 3) {
        reactor.wait(&mut events).unwrap();
    }
    assert!(ran.get());
}

#[test]
fn a_closure_may_wait_and_change_other_closures() {
    let (sim, reactor) = simulated();
    let (context, canceller) = reactor.context().with_cancel();
    let log = Rc::new(RefCell::new(Vec::new()));
    let second = Rc::new(RefCell::new(None));
    let (first_log, first_second, first_context) = (log.clone(), second.clone(), context.clone());
    let first = reactor.after_cancel(&context, move |handle| {
        first_log.borrow_mut().push("first");
        let timer = handle.after(ms(5));
        // A nested select runs no closures.
        select! { handle; recv(timer) -> _ => first_log.borrow_mut().push("waited") }
        let second: pollmux::context::AfterCancel = first_second.take().unwrap();
        assert!(second.stop());
        let log = first_log.clone();
        handle.after_cancel(&first_context, move |_| log.borrow_mut().push("third")).detach();
    });
    let second_log = log.clone();
    *second.borrow_mut() =
        Some(reactor.after_cancel(&context, move |_| second_log.borrow_mut().push("second")));
    canceller.cancel();
    turn(&reactor);
    assert_eq!(*log.borrow(), ["first", "waited"]);
    turn(&reactor);
    assert_eq!(*log.borrow(), ["first", "waited", "third"]);
    assert!(!first.stop());
    assert_eq!(sim.now(), Time::ZERO + ms(5));
}

#[test]
fn closures_behind_a_panic_run_next_turn() {
    let (_, reactor) = simulated();
    let (context, canceller) = reactor.context().with_cancel();
    let ran = Rc::new(Cell::new(false));
    let run = ran.clone();
    reactor.after_cancel(&context, |_| panic!("on purpose")).detach();
    reactor.after_cancel(&context, move |_| run.set(true)).detach();
    canceller.cancel();
    let panicked = catch_unwind(AssertUnwindSafe(|| turn(&reactor)));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
    turn(&reactor);
    assert!(ran.get());
}

#[test]
fn deadline_and_cancellation_together_run_a_closure_once() {
    for cancelled_first in [true, false] {
        let (sim, reactor) = simulated();
        let (context, canceller) = reactor.context().with_timeout(ms(10));
        let ran = Rc::new(Cell::new(0));
        let count = ran.clone();
        let after = reactor.after_cancel(&context, move |_| count.set(count.get() + 1));
        if cancelled_first {
            assert!(canceller.cancel());
        }
        sim.advance(ms(10));
        // Returns false in both rounds, because the context has ended by then. The call still
        // notifies the waiters.
        assert!(!canceller.cancel());
        (0..3).for_each(|_| turn(&reactor));
        assert_eq!((ran.get(), reactor.stats().called), (1, 1));
        assert!(!after.is_pending());
    }
}

#[test]
fn finished_and_stopped_closures_leave_no_source() {
    let (_, reactor) = simulated();
    let (context, canceller) = reactor.context().with_timeout(HOUR);
    let ran = Rc::new(Cell::new(0));
    let count = || {
        let ran = ran.clone();
        move |_: &Handle| ran.set(ran.get() + 1)
    };
    reactor.after_cancel(&context, count()).detach();
    drop(reactor.after_cancel(&context, count()));
    let stopped = reactor.after_cancel(&context, count());
    assert!(stopped.stop() && !stopped.stop() && !stopped.is_pending());
    stopped.detach();
    assert_eq!(reactor.stats().live, 1);
    canceller.cancel();
    // Registers a closure after the cancellation, and stops it before the next turn.
    let late = reactor.after_cancel(&context, count());
    assert!(late.is_pending() && late.stop());
    turn(&reactor);
    assert_eq!((ran.get(), reactor.stats().called), (1, 1));
    drop(late);
    assert_eq!(reactor.stats().live, 0);
    assert_eq!(Rc::strong_count(&ran), 1);
}

#[test]
fn a_closure_may_drop_its_own_handle() {
    let (_, reactor) = simulated();
    let (context, canceller) = reactor.context().with_cancel();
    let own = Rc::new(Cell::new(None));
    let (mine, held) = (own.clone(), Rc::new(()));
    let hold = held.clone();
    own.set(Some(reactor.after_cancel(&context, move |handle| {
        let after: pollmux::context::AfterCancel = mine.take().unwrap();
        assert!(!after.is_pending() && !after.stop());
        drop(after);
        assert_eq!(handle.stats().live, 0);
        drop(hold);
    })));
    canceller.cancel();
    turn(&reactor);
    assert_eq!((Rc::strong_count(&held), reactor.stats().called), (1, 1));
}

#[test]
fn closures_run_before_messages_sent_after_cancellation() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (cancellers, to_cancel) = mpsc::channel::<Canceller>();
    let _other = support::aside(move || {
        for canceller in to_cancel {
            canceller.cancel();
            tx.send(()).unwrap();
        }
    });
    for _ in 0..1_000 {
        let (context, canceller) = Context::background().with_cancel();
        let ran = Rc::new(Cell::new(false));
        let run = ran.clone();
        reactor.after_cancel(&context, move |_| run.set(true)).detach();
        cancellers.send(canceller).unwrap();
        select! { reactor; recv(inbox) -> word => assert_eq!((word, ran.get()), (Ok(()), true)) }
    }
    drop(cancellers);
}

#[test]
fn cancellations_without_a_turn_leak_nothing() {
    alone!();
    let (_, reactor) = simulated();
    let round = |n: usize| {
        for _ in 0..n {
            let (context, canceller) = Context::background().with_cancel();
            let afters = [(); 2].map(|()| reactor.after_cancel(&context, |_| {}));
            canceller.cancel();
            drop(afters);
        }
    };
    round(1_000);
    let before = bytes();
    round(rounds(25_000) as usize);
    let grown = bytes().saturating_sub(before) >> 10;
    assert!(grown < 128, "{grown} KiB more");
}

#[test]
fn a_drop_guard_cancels_unless_disarmed() {
    let (context, canceller) = Context::background().with_cancel();
    let guard = canceller.drop_guard();
    assert_eq!(context.err(), None);
    let canceller = guard.disarm();
    assert_eq!(context.err(), None);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = canceller.drop_guard();
        panic!("a panic drops the guard");
    }));
    assert!(panicked.is_err());
    assert_eq!(context.err(), Some(ContextError::Cancelled));
}

#[test]
fn a_dropped_canceller_cancels_nothing() {
    let (context, canceller) = Context::background().with_cancel();
    drop(canceller);
    assert_eq!(context.err(), None);
}

#[test]
fn wait_reports_parents_before_children() {
    let (_, reactor) = simulated();
    let (root, canceller) = reactor.context().with_cancel();
    let children: Vec<_> = (0..20).map(|_| root.with_cancel()).collect();
    let grandchildren: Vec<_> = children.iter().map(|(child, _)| child.with_cancel()).collect();
    let key =
        |n: usize, (context, _): &(Context, Canceller)| reactor.done(context).with_key(n as u64);
    let _young: Vec<_> =
        grandchildren.iter().enumerate().map(|(n, pair)| key(100 + n, pair)).collect();
    let _old: Vec<_> = children.iter().enumerate().map(|(n, pair)| key(n, pair)).collect();
    // A wait has requested marks before the cancellation.
    let mut events = Events::with_capacity(100);
    reactor.try_wait(&mut events).unwrap();
    canceller.cancel();
    reactor.wait(&mut events).unwrap();
    let keys: Vec<u64> = events.iter().map(|event| event.key()).collect();
    assert_eq!(keys, (0..20).chain(100..120).collect::<Vec<u64>>());
}

// Slack, clocks, and the reason in a chain of errors.

/// Returns a reactor on a virtual clock whose timers may be 50 ms late.
fn slack_reactor() -> (Sim, Reactor) {
    let sim = Sim::new();
    (sim.clone(), Reactor::builder().slack(ms(50)).build_with(sim).unwrap())
}

#[test]
fn a_deadline_ignores_the_reactors_slack() {
    let (sim, reactor) = slack_reactor();
    for turn in 0..3 {
        let begin = sim.now();
        let (context, _canceller) = reactor.context().with_timeout(ms(10));
        let done = reactor.done(&context);
        match turn {
            0 => drop(reactor.recv(&done).unwrap()),
            1 => select! { reactor; recv(done) -> _ => {} },
            _ => reactor.wait(&mut Events::with_capacity(1)).unwrap(),
        }
        assert_eq!(sim.now() - begin, ms(10));
        assert!(context.err().is_some());
    }
    // Timers still use the slack.
    let begin = sim.now();
    let timer = reactor.after(ms(10));
    reactor.recv(&timer).unwrap();
    assert_eq!(sim.now() - begin, ms(60));
}

#[test]
fn closures_at_a_deadline_ignore_the_reactors_slack() {
    let (sim, reactor) = slack_reactor();
    let (context, _canceller) = reactor.context().with_timeout(ms(10));
    let (ran, clock) = (Rc::new(Cell::new(Time::ZERO)), sim.clone());
    let at = ran.clone();
    reactor.after_cancel(&context, move |_| at.set(clock.now())).detach();
    reactor.sleep_blocking(ms(200)).unwrap();
    assert_eq!(ran.get(), Time::ZERO + ms(10));
}

#[test]
fn a_deadline_uses_its_own_slack() {
    let (sim, reactor) = simulated();
    let (context, _canceller) = reactor.context().with_timeout(ms(10));
    let done = reactor.done(&context).slack(ms(7));
    reactor.recv(&done).unwrap();
    assert_eq!(sim.now(), Time::ZERO + ms(17));
    let (context, _canceller) = reactor.context().with_timeout(ms(10));
    let (ran, clock) = (Rc::new(Cell::new(Time::ZERO)), sim.clone());
    let at = ran.clone();
    reactor.after_cancel(&context, move |_| at.set(clock.now())).slack(ms(5)).detach();
    reactor.sleep_blocking(ms(200)).unwrap();
    assert_eq!(ran.get(), Time::ZERO + ms(32));
}

#[test]
fn a_virtual_clock_refuses_an_instant_as_deadline() {
    let (_sim, reactor) = simulated();
    let soon = || Instant::now() + ms(5);
    for context in
        [reactor.context(), reactor.context().with_cancel().0, reactor.context().with_cancel().0]
    {
        for refused in [
            catch_unwind(AssertUnwindSafe(|| drop(context.with_deadline(soon())))),
            catch_unwind(AssertUnwindSafe(|| {
                drop(context.with_deadline_cause(soon(), "too late"))
            })),
        ] {
            let text = *refused.unwrap_err().downcast::<&str>().unwrap();
            assert!(text.contains("virtual") && text.contains("with_timeout"), "{text}");
        }
        assert_eq!(context.with_deadline(Time::ZERO).0.err(), Some(ContextError::DeadlineExceeded));
    }
    // The real clock, and a virtual clock that starts now, accept an instant.
    let reactor = support::on(Sim::starting_at(Time::now()));
    let (context, _canceller) = reactor.context().with_deadline(soon());
    let done = reactor.done(&context);
    assert_eq!(reactor.recv(&done).unwrap().error(), ContextError::DeadlineExceeded);
    assert!(Context::background().with_deadline(Instant::now()).0.err().is_some());
}

#[test]
fn the_cancel_reason_is_the_error_source() {
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let is_full = |error: &(dyn Error + 'static)| {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|source| source.kind() == io::ErrorKind::StorageFull)
    };
    let (context, canceller) = Context::background().with_cancel();
    canceller.cancel_with(full());
    let cause = context.cause().unwrap();
    assert!(is_full(&cause));
    assert!(is_full(&io::Error::from(cause)));
    let (late, _canceller) = Context::background().with_deadline_cause(Time::ZERO, full());
    assert!(is_full(&late.cause().unwrap()));
    // A cancellation without a reason has no source.
    let (plain, canceller) = Context::background().with_cancel();
    canceller.cancel();
    assert!(plain.cause().unwrap().source().is_none());
}
