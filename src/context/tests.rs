//! Tests that ended and dropped contexts leave the tree, and that no call waits for a stopped
//! thread.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::tree::Hanging;
use super::{Canceller, Cause, Context, ContextError};
use crate::driver::Driver;
use crate::reactor::Reactor;
use crate::sim::Sim;

/// Returns the numbers of children and bells in the list of a context.
fn hanging(context: &Context) -> (usize, usize) {
    let (mut children, mut bells) = (0, 0);
    context.node.as_ref().expect("a node").list.each(|hanging| match hanging {
        Hanging::Child(_) => children += 1,
        Hanging::Bell(_) => bells += 1,
    });
    (children, bells)
}

/// From Go's TestCancelRemoves.
#[test]
fn dropped_children_and_bells_leave_the_tree() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (root, _canceller) = reactor.context().with_cancel();
    let child = root.with_cancel();
    let (done, after) = (reactor.done(&root), reactor.after_cancel(&root, |_| ()));
    assert_eq!(hanging(&root), (1, 2));
    let grandchild = child.0.with_timeout(Duration::from_secs(1));
    drop(child);
    assert_eq!(hanging(&root), (1, 2), "the grandchild keeps its path");
    drop(grandchild);
    assert_eq!(hanging(&root), (0, 2));
    drop(done);
    assert!(after.stop());
    drop(after);
    assert_eq!(hanging(&root), (0, 0));
    Ok(())
}

#[test]
fn a_cancelled_context_holds_nothing() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (root, canceller) = reactor.context().with_cancel();
    let (child, _child) = root.with_cancel();
    let _done = (reactor.done(&root), reactor.done(&child));
    canceller.cancel();
    assert_eq!((hanging(&root), hanging(&child)), ((0, 0), (0, 0)));
    let (late, _late) = root.with_cancel();
    let _done = reactor.done(&late);
    assert_eq!((hanging(&root), hanging(&late)), ((0, 0), (0, 0)));
    Ok(())
}

#[test]
fn a_child_of_the_background_is_unlisted() {
    let (context, _canceller) = Context::background().with_cancel();
    assert!(context.node.is_some_and(|node| node.place.is_none()));
}

// Calls beside a thread that is stopped with the lock of a node.

/// The time after which a call counts as waiting.
const LONG: Duration = Duration::from_secs(180);

/// Runs `work` on a thread. When `work` calls `stop`, another thread takes the lock of `context`,
/// and holds the lock until `work` is over.
fn beside_a_stopped_thread(
    context: &Context,
    work: impl FnOnce(Context, &dyn Fn()) + Send + 'static,
) {
    use std::sync::mpsc;
    let ((say, said), (go, going)) = (mpsc::channel(), mpsc::channel());
    let theirs = context.clone();
    let worker = std::thread::spawn(move || {
        work(theirs, &|| {
            say.send(()).unwrap();
            going.recv().unwrap();
        });
        say.send(()).unwrap();
    });
    said.recv_timeout(LONG).expect("the call of `stop`");
    let lock = locked(context);
    go.send(()).unwrap();
    said.recv_timeout(LONG).expect("the work neither fails nor waits for a stopped thread");
    drop(lock);
    worker.join().unwrap();
}

fn locked(context: &Context) -> impl Drop {
    context.node.as_ref().expect("a node").list.lock()
}

fn cancellable() -> (Context, Canceller) {
    Context::background().with_cancel()
}

#[test]
fn queries_wait_for_no_thread() {
    let (context, _canceller) = Context::background().with_timeout(Duration::ZERO);
    beside_a_stopped_thread(&context, move |context, stop| {
        stop();
        assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
    });
    let (context, canceller) = cancellable();
    beside_a_stopped_thread(&context, move |context, stop| {
        canceller.cancel();
        stop();
        assert_eq!(context.cause().unwrap().error(), ContextError::Cancelled);
        assert!(context.check().is_err());
    });
}

#[test]
fn making_a_child_waits_for_no_thread() {
    let (context, canceller) = cancellable();
    beside_a_stopped_thread(&context, move |context, stop| {
        stop();
        let (child, _child) = context.with_cancel();
        assert_eq!(child.err(), None);
        assert!(canceller.cancel());
        assert_eq!(child.err(), Some(ContextError::Cancelled));
        assert!(context.with_cancel().0.err().is_some(), "a child of an ended context has ended");
    });
}

#[test]
fn dropping_a_child_waits_for_no_thread() {
    let (context, _canceller) = cancellable();
    beside_a_stopped_thread(&context, move |context, stop| {
        let children: Vec<_> = (0..100).map(|_| context.with_cancel()).collect();
        stop();
        drop(children);
    });
    assert_eq!(hanging(&context), (0, 0));
}

#[test]
fn making_and_dropping_done_never_wait() {
    let (context, _canceller) = cancellable();
    beside_a_stopped_thread(&context, move |context, stop| {
        let reactor = Reactor::new().unwrap();
        let done = reactor.done(&context);
        stop();
        drop(reactor.done(&context));
        drop(done);
    });
    assert_eq!(hanging(&context), (0, 0));
}

#[test]
fn making_and_stopping_after_cancel_never_wait() {
    let (context, _canceller) = cancellable();
    beside_a_stopped_thread(&context, move |context, stop| {
        let reactor = Reactor::new().unwrap();
        let (one, two) =
            (reactor.after_cancel(&context, |_| {}), reactor.after_cancel(&context, |_| {}));
        stop();
        assert!(one.stop());
        drop(two);
        reactor.after_cancel(&context, |_| {}).detach();
        drop(reactor);
    });
    assert_eq!(hanging(&context), (0, 0));
}

#[test]
fn a_deadline_expires_beside_a_stopped_thread() {
    let sim = Sim::new();
    let root = Context::on_clock(sim.clock());
    let (context, _canceller) = root.with_timeout(Duration::from_secs(1));
    beside_a_stopped_thread(&context, move |context, stop| {
        let reactor = Reactor::with_driver(sim).unwrap();
        let done = reactor.done(&context);
        stop();
        let cause = reactor.recv(&done).unwrap();
        assert_eq!(cause.error(), ContextError::DeadlineExceeded);
    });
}

#[test]
fn a_cancellation_wakes_loops_beside_a_stopped_thread() {
    let (context, canceller) = cancellable();
    beside_a_stopped_thread(&context, move |context, stop| {
        let (child, _child) = context.with_cancel();
        let loops = [context, child].map(|context| {
            let (ready, is_ready) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                let reactor = Reactor::new().unwrap();
                let done = reactor.done(&context);
                ready.send(()).unwrap();
                reactor.recv(&done).unwrap().error()
            });
            is_ready.recv().unwrap();
            thread
        });
        stop();
        assert!(canceller.cancel());
        assert!(!canceller.cancel());
        for each in loops {
            assert_eq!(each.join().unwrap(), ContextError::Cancelled);
        }
    });
}

/// The canceller has ended the root, and has not reached its children and bells.
#[test]
fn a_stopped_canceller_delays_only_unreached_nodes() -> io::Result<()> {
    let (root, canceller) = cancellable();
    let (below, cancel_below) = root.with_cancel();
    let (deadline, _) = root.with_timeout(Duration::ZERO);
    let cause = Arc::new(Cause::new(ContextError::Cancelled, None));
    assert!(root.node.as_ref().is_some_and(|node| node.end.set(cause)));

    let reactor = Reactor::new()?;
    assert!(root.err().is_some() && root.cause().is_some());
    assert!(root.with_cancel().0.err().is_some(), "a child of an ended context has ended");
    assert!(reactor.recv(&reactor.done(&root)).is_ok());
    let ran = std::rc::Rc::new(Cell::new(false));
    let after = ran.clone();
    reactor.after_cancel(&root, move |_| after.set(true)).detach();
    reactor.try_wait(&mut crate::reactor::Events::with_capacity(1))?;
    assert!(ran.get());
    assert!(!canceller.cancel(), "the other canceller has ended the root");

    assert_eq!(deadline.err(), Some(ContextError::DeadlineExceeded));
    assert_eq!(below.err(), None, "the canceller has not reached the child");
    let done = reactor.done(&below);
    assert!(cancel_below.cancel());
    assert!(reactor.recv(&done).is_ok());
    Ok(())
}
