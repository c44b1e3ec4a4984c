//! The loom models of contexts: a cancellation against another one, against a registration, and
//! against a reactor that goes to sleep. `channel/models.rs` says how to run them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::thread;

use super::{Canceller, Context, ContextError, Hook};
use crate::channel::Entry;
use crate::channel::registry::testing::{Counted, close, each_is_freed_once, filled as registry};
use crate::reactor::models::reactor;
use crate::reactor::{Events, Handle};
use crate::sync::{Ordering, fence};
use crate::wake::models::{Bed, SLOT, collect, models, party};
use crate::wake::{Bell, Look, Notify, Probe, Request};

fn cancellable() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Takes the steps of a `select!` with one [`Done`](super::Done), made of this bell and context.
fn select(hook: &Hook, notify: &Notify, bed: &Bed) {
    while !hook.is_ended() {
        notify.sleep();
        hook.bell.ask(Request::Wake);
        fence(Ordering::SeqCst);
        if !hook.is_ended() {
            bed.sleep();
        }
        notify.awake();
        hook.bell.unask();
    }
}

/// Takes the steps of a `wait`, which looks at the bell only after a mark.
fn wait(hook: &Hook, notify: &Notify, bed: &Bed) {
    notify.prepare(SLOT);
    let mut ready = hook.bell.ask_and_look(Request::Mark) == Look::Ready;
    while !ready {
        notify.sleep();
        fence(Ordering::SeqCst);
        if !notify.is_marked() {
            bed.sleep();
        }
        notify.awake();
        ready = collect(notify) && hook.bell.look_or_ask(Some(Request::Mark)) == Look::Ready;
    }
    assert!(hook.is_ended(), "the context has ended at the mark");
}

fn cancel_against_park(park: fn(&Hook, &Notify, &Bed)) {
    let (context, canceller) = cancellable();
    let (notify, bed) = party();
    let hook = Hook::new(&context, Bell::new(notify.clone(), SLOT));
    let there = thread::spawn(move || canceller.cancel());
    park(&hook, &notify, &bed);
    assert!(there.join().unwrap());
    assert!(bed.wakes.load(Relaxed) <= 1, "one wake-up");
}

models! {
    fn the_first_cancellation_keeps_its_reason() {
        let (context, canceller) = Context::background().with_cancel();
        let other = canceller.clone();
        let there = thread::spawn(move || other.cancel_with("there"));
        let here = canceller.cancel_with("here");
        let seen = context.cause().unwrap().to_string();
        let there = there.join().unwrap();
        assert!(here != there, "one is first");
        assert_eq!(seen, if here { "here" } else { "there" });
        assert_eq!(context.cause().unwrap().to_string(), seen);
    }

    fn two_cancellations_of_parent_and_child() {
        let (parent, cancel_parent) = Context::background().with_cancel();
        let (child, cancel_child) = parent.with_cancel();
        let (grandchild, _) = child.with_cancel();
        let there = thread::spawn(move || cancel_child.cancel_with("child"));
        assert!(cancel_parent.cancel_with("parent"));
        let won = there.join().unwrap();
        let reason = if won { "child" } else { "parent" };
        assert_eq!(child.cause().unwrap().to_string(), reason);
        // The thread that ended the child has also ended the grandchild.
        assert_eq!(grandchild.cause().unwrap().to_string(), reason);
    }

    fn making_a_child_against_cancel() {
        let (parent, canceller) = cancellable();
        let there = thread::spawn(move || canceller.cancel());
        let (child, _canceller) = parent.with_cancel();
        let (grandchild, _canceller) = child.with_cancel();
        assert!(there.join().unwrap());
        assert_eq!(child.err(), Some(ContextError::Cancelled));
        assert_eq!(grandchild.err(), Some(ContextError::Cancelled));
    }

    fn dropping_a_child_against_cancel() {
        let (parent, canceller) = cancellable();
        let child = parent.with_cancel();
        let (grandchild, _canceller) = child.0.with_cancel();
        let there = thread::spawn(move || canceller.cancel());
        drop(child);
        assert!(there.join().unwrap());
        assert_eq!(
            grandchild.err(),
            Some(ContextError::Cancelled),
            "the grandchild keeps its path"
        );
        drop(grandchild);
    }

    fn adding_a_hook_against_cancel() {
        let (context, canceller) = cancellable();
        let there = thread::spawn(move || canceller.cancel());
        let (notify, _) = party();
        let hook = Hook::new(&context, Bell::new(notify, SLOT));
        assert!(there.join().unwrap());
        assert!(hook.bell.is_rung() && hook.is_ended());
    }

    fn cancel_against_park_in_a_select() {
        cancel_against_park(select);
    }

    fn cancel_against_park_in_a_wait() {
        cancel_against_park(wait);
    }

    fn two_cancellations_against_park() {
        let (parent, cancel_parent) = cancellable();
        let (child, cancel_child) = parent.with_cancel();
        let (notify, bed) = party();
        let hook = Hook::new(&child, Bell::new(notify.clone(), SLOT));
        let threads = [
            thread::spawn(move || cancel_child.cancel()),
            thread::spawn(move || cancel_parent.cancel()),
        ];
        select(&hook, &notify, &bed);
        let ended = threads.map(|thread| thread.join().unwrap());
        assert!(ended.contains(&true));
        assert!(bed.wakes.load(Relaxed) <= 1, "one wake-up");
    }

    fn removing_a_hook_against_cancel() {
        let (context, canceller) = cancellable();
        let (notify, _) = party();
        let hook = Hook::new(&context, Bell::new(notify.clone(), SLOT));
        let bell: Arc<Bell> = hook.bell.clone();
        let there = thread::spawn(move || canceller.cancel());
        drop(hook);
        assert!(there.join().unwrap());
        // A removed bell is dropped with the context at the latest, rung or not.
        drop(context);
        assert_eq!(Arc::strong_count(&bell), 1);
    }
}

/// Returns a closure that counts its runs on the reactor's thread, and ends the wait.
fn count(reactor: &Handle, ran: &Rc<Cell<u32>>) -> impl FnOnce(&Handle) + use<> {
    let (ran, remote) = (ran.clone(), reactor.remote());
    move |_| {
        ran.set(ran.get() + 1);
        remote.wake();
    }
}

models! {
    fn after_cancel_runs_once_against_a_wait() {
        let ((context, canceller), (reactor, bed)) = (cancellable(), reactor());
        let there = thread::spawn(move || canceller.cancel());
        let ran = Rc::default();
        reactor.after_cancel(&context, count(&reactor, &ran)).detach();
        reactor.wait(&mut Events::with_capacity(1)).unwrap();
        assert_eq!((ran.get(), reactor.stats().live), (1, 0));
        assert!(there.join().unwrap());
        assert!(bed.wakes.load(Relaxed) <= 1, "one wake-up");
    }

    fn after_cancel_runs_once_for_two_cancellations() {
        let (parent, cancel_parent) = cancellable();
        let (child, cancel_child) = parent.with_cancel();
        let (reactor, _) = reactor();
        let ran = Rc::default();
        reactor.after_cancel(&parent, count(&reactor, &ran)).detach();
        reactor.after_cancel(&child, count(&reactor, &ran)).detach();
        let there = thread::spawn(move || cancel_child.cancel());
        cancel_parent.cancel();
        while ran.get() < 2 {
            reactor.wait(&mut Events::with_capacity(1)).unwrap();
        }
        there.join().unwrap();
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        assert_eq!((ran.get(), reactor.stats().live), (2, 0), "each once");
    }

    fn after_cancel_runs_in_an_embedded_turn() {
        let ((context, canceller), (reactor, bed)) = (cancellable(), reactor());
        let inner = reactor.embed().unwrap();
        let there = thread::spawn(move || canceller.cancel());
        let ran = Rc::default();
        reactor.after_cancel(&context, count(&reactor, &ran)).detach();
        while ran.get() == 0 {
            bed.sleep(); // the outer loop
            inner.turn().unwrap();
        }
        assert!(there.join().unwrap());
    }

    fn a_stopped_after_cancel_never_runs() {
        let ((context, canceller), (reactor, _)) = (cancellable(), reactor());
        let ran = Rc::default();
        let after = reactor.after_cancel(&context, count(&reactor, &ran));
        let there = thread::spawn(move || canceller.cancel());
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        let stopped = after.stop();
        assert_eq!(stopped, ran.get() == 0);
        assert!(there.join().unwrap());
        drop(after);
        // The canceller's mark finds another bell in the slot.
        let (other, _canceller) = cancellable();
        let _after = reactor.after_cancel(&other, |_| panic!("this context has not ended"));
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        assert_eq!(ran.get(), u32::from(!stopped));
    }

    fn after_cancel_against_the_drop_of_its_reactor() {
        let ((context, canceller), (reactor, _)) = (cancellable(), reactor());
        let held = Rc::new(());
        let hold = held.clone();
        reactor.after_cancel(&context, move |_| drop(hold)).detach();
        let there = thread::spawn(move || canceller.cancel());
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        drop(reactor);
        assert_eq!(Rc::strong_count(&held), 1, "the closure is gone");
        assert!(there.join().unwrap());
    }
}

// The bells at a context (`channel/registry.rs`).

models! {
    fn a_sweep_against_a_close_frees_entries_once() {
        let (registry, mut entries, counts) = registry(3);
        let (sweeper, closer) = (registry.clone(), registry.clone());
        let (second, first) = (entries.remove(1), entries.remove(0));
        let sweeps = thread::spawn(move || {
            sweeper.take_off(&first);
            drop(first);
            sweeper.take_off(&second);
        });
        let closes = thread::spawn(move || close(&closer));
        sweeps.join().unwrap();
        let found = closes.join().unwrap();
        assert!(found.contains(&2) && found.is_sorted(), "{found:?}");
        drop((registry, entries));
        each_is_freed_once(&counts, 3);
    }

    fn two_sweeps_against_a_close_free_entries_once() {
        let (registry, mut entries, counts) = registry(3);
        let threads = [entries.remove(0), entries.remove(0)].map(|entry| {
            let registry = registry.clone();
            thread::spawn(move || registry.take_off(&entry))
        });
        let found = close(&registry);
        assert!(found.contains(&2) && found.is_sorted(), "{found:?}");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop((registry, entries));
        each_is_freed_once(&counts, 3);
    }

    fn concurrent_sweeps_leave_no_litter() {
        let (registry, mut entries, counts) = registry(3);
        let there = {
            let (registry, entry) = (registry.clone(), entries.remove(2));
            thread::spawn(move || registry.take_off(&entry))
        };
        for entry in entries {
            registry.take_off(&entry);
        }
        there.join().unwrap();
        // The newest entry stays until the registry is closed or dropped.
        each_is_freed_once(&counts, 2);
        assert_eq!(counts[2].load(Relaxed), 0);
    }

    fn an_add_against_a_close_is_never_lost() {
        let (registry, entries, counts) = registry(1);
        let other = registry.clone();
        let new = Entry::new(Counted(1, counts.clone()));
        let there = thread::spawn(move || other.add(new));
        let found = close(&registry);
        let added = there.join().unwrap();
        assert_eq!(found, if added { vec![0, 1] } else { vec![0] });
        drop((registry, entries));
        each_is_freed_once(&counts, 2);
    }

    fn children_that_come_and_go_against_cancel() {
        let (parent, canceller) = cancellable();
        let (kept, _canceller) = parent.with_cancel();
        let other = parent.clone();
        let there = thread::spawn(move || {
            drop(other.with_cancel());
            let (late, _canceller) = other.with_cancel();
            late
        });
        assert!(canceller.cancel());
        let late = there.join().unwrap();
        assert_eq!(kept.err(), Some(ContextError::Cancelled));
        assert_eq!(late.err(), Some(ContextError::Cancelled));
    }
}
