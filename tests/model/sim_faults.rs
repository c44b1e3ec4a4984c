//! Former faults of the simulated world: several histories for one seed, hangs, aborts, and broken
//! promises.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use pollmux::channel::{self, Sender};
use pollmux::{
    Events, Handle, Reactor, SimWorld, Time, select,
    sim::{LinkStats, WorldHandle},
};
use support::{HOUR, OnDrop, alone, at, ms, panic_text, sleep, thread, watchdog};

/// An action, and its name.
type Named<T> = (&'static str, fn(&T));

/// Keeps a value in a thread-local until the thread ends.
fn keep_in_thread_local(thing: Box<dyn Any>) {
    thread_local!(static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) });
    KEPT.with(|kept| kept.borrow_mut().push(thing));
}

// One history for each seed.

#[test]
fn a_thread_locals_sender_ends_with_its_member() {
    let _watchdog = watchdog();
    for seed in 0..30 {
        let mut world = SimWorld::new(seed);
        let (tx, rx) = channel::unbounded::<()>();
        world.spawn("a", move |_| keep_in_thread_local(Box::new(tx)));
        let waits = world.spawn("b", move |reactor| {
            let inbox = reactor.register(rx).unwrap();
            select! { reactor; recv(inbox) -> end => end.is_err() }
        });
        world.run().unwrap();
        assert_eq!(waits.take(), Some(true), "seed {seed}");
    }
}

#[test]
fn thread_locals_drop_in_their_members_turn() {
    let _watchdog = watchdog();
    let order = || {
        let mut world = SimWorld::new(7);
        let log = Arc::new(Mutex::new(Vec::new()));
        for n in 0..6 {
            let log = log.clone();
            world.spawn(&n.to_string(), move |reactor| {
                sleep(&reactor, ms(n % 2));
                let log = log.clone();
                log.lock().unwrap().push(n);
                keep_in_thread_local(Box::new(OnDrop(move || {
                    thread::sleep(Duration::from_micros(200 * (6 - n)));
                    log.lock().unwrap().push(100 + n);
                })));
            });
        }
        world.run().unwrap();
        log.lock().unwrap().clone()
    };
    let first = order();
    assert_eq!(first.len(), 12);
    for pair in first.chunks(2) {
        assert_eq!(pair[0] + 100, pair[1], "another member ran before the drop: {first:?}");
    }
    for _ in 0..10 {
        assert_eq!(order(), first);
    }
}

#[test]
fn a_thread_local_may_wait_in_its_drop() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(8);
    let log = Arc::new(Mutex::new(Vec::new()));
    let copy = log.clone();
    world.spawn("a", move |reactor| {
        keep_in_thread_local(Box::new(OnDrop(move || {
            sleep(&reactor, ms(5));
            copy.lock().unwrap().push(("a", reactor.now()));
        })));
    });
    let copy = log.clone();
    world.spawn("b", move |reactor| {
        sleep(&reactor, ms(2));
        copy.lock().unwrap().push(("b", reactor.now()));
    });
    world.run().unwrap();
    assert_eq!(*log.lock().unwrap(), [("b", at(2)), ("a", at(5))]);
}

// Calls from several threads.

#[test]
fn kills_of_several_threads_queue() {
    let _watchdog = watchdog();
    for round in 0..20 {
        let world = SimWorld::new(round);
        let dropped = Arc::new(AtomicUsize::new(0));
        for n in 0..4 {
            let dropped = dropped.clone();
            world.spawn(&n.to_string(), move |reactor| {
                let _count = OnDrop(|| _ = dropped.fetch_add(1, Ordering::SeqCst));
                sleep(&reactor, HOUR);
            });
        }
        let mut world = world;
        world.run_for(ms(1)).unwrap();
        let (start, handle) = (Barrier::new(4), world.handle());
        thread::scope(|scope| {
            for n in 0..4 {
                let (start, handle) = (&start, &handle);
                scope.spawn(move || {
                    start.wait();
                    assert!(handle.kill(&n.to_string()));
                });
            }
        });
        assert_eq!(dropped.load(Ordering::SeqCst), 4);
    }
}

/// Makes a world of members that end slowly and have started.
fn slow_enders(seed: u64, members: usize) -> SimWorld {
    let mut world = SimWorld::new(seed);
    for n in 0..members {
        world.spawn(&n.to_string(), move |reactor| {
            let _slow = OnDrop(|| thread::sleep(ms(2)));
            let ticker = reactor.every(ms(1)).unwrap();
            loop {
                select! { reactor; recv(ticker) -> _ => {} }
            }
        });
    }
    world.run_for(ms(1)).unwrap();
    world
}

#[test]
fn a_kill_beside_runs_ends_its_member() {
    let _watchdog = watchdog();
    let mut world = slow_enders(1, 40);
    let handle = world.handle();
    let killer = thread::spawn(move || {
        for n in 0..40 {
            assert!(handle.kill(&n.to_string()));
            assert!(!handle.kill(&n.to_string()));
        }
    });
    while !killer.is_finished() {
        world.run_for(ms(1)).unwrap();
    }
    killer.join().unwrap();
    world.run().unwrap();
}

#[test]
fn a_kill_ends_a_longer_run() {
    let _watchdog = watchdog();
    let mut world = slow_enders(2, 1);
    let handle = world.handle();
    // By then the run has most likely begun.
    let _killer = support::later(ms(5), move || assert!(handle.kill("0")));
    world.run().unwrap();
}

#[test]
fn a_kill_beside_the_worlds_drop_returns() {
    let _watchdog = watchdog();
    for seed in 0..10 {
        let world = slow_enders(seed, 6);
        let (handle, start) = (world.handle(), Arc::new(Barrier::new(2)));
        let copy = start.clone();
        let killer = thread::spawn(move || {
            copy.wait();
            (0..6).for_each(|n| drop(handle.kill(&n.to_string()).to_string()));
        });
        start.wait();
        drop(world);
        killer.join().unwrap();
    }
}

// Messages in flight.

#[test]
fn a_partition_loses_messages_in_flight() {
    let cut_by: [Named<WorldHandle>; 2] = [
        ("partition", |world| world.partition(&[&["a"], &["b"]])),
        ("cut", |world| world.cut("a", "b")),
    ];
    for (what, cut) in cut_by {
        let mut world = SimWorld::new(1);
        let (tx, rx) = channel::unbounded();
        let link = world.link("a", "b", tx).with_delay(ms(50)..=ms(50));
        let back = world.link("b", "a", channel::unbounded().0).with_delay(ms(50)..=ms(50));
        link.send(1);
        back.send(1);
        world.spawn("trouble", |reactor| sleep(&reactor, ms(100)));
        world.run_for(ms(10)).unwrap();
        cut(&world);
        assert_eq!(link.stats(), LinkStats { sent: 1, delivered: 0, lost: 1 }, "{what}");
        assert_eq!(back.stats().lost, u64::from(what == "partition"), "{what}");
        world.run_for(ms(10)).unwrap();
        world.heal();
        world.run().unwrap();
        assert_eq!(rx.try_iter().count(), 0, "{what}");
        link.send(2);
        world.run().unwrap();
        world.spawn("later", |reactor| sleep(&reactor, ms(100)));
        world.run().unwrap();
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [2], "{what}");
    }
}

#[test]
fn a_partition_keeps_messages_within_a_group() {
    let mut world = SimWorld::new(1);
    let (tx, rx) = channel::unbounded();
    let link = world.link("a", "b", tx).with_delay(ms(50)..=ms(50));
    let _ = world.link("c", "b", channel::unbounded::<()>().0);
    link.send(1);
    world.spawn("d", |reactor| sleep(&reactor, ms(100)));
    world.run_for(ms(10)).unwrap();
    world.partition(&[&["a", "b"], &["c"]]);
    world.run().unwrap();
    assert_eq!(rx.try_recv(), Ok(1));
}

// A member's unwinding causes no second panic.

/// Kills a member whose drop runs `what`, or drops the world. The world must continue.
fn check_unwinding(what: fn(&Handle, &WorldHandle)) {
    alone!();
    for by_drop in [false, true] {
        let mut world = SimWorld::new(1);
        let handle = world.handle();
        world.spawn("victim", move |reactor| {
            let own_reactor = reactor.handle();
            let _guard = OnDrop(move || what(&own_reactor, &handle));
            sleep(&reactor, HOUR);
        });
        let other = world.spawn("other", |reactor| sleep(&reactor, ms(20)));
        world.run_for(ms(10)).unwrap();
        if !by_drop {
            assert!(world.kill("victim"));
            world.run().unwrap();
            assert_eq!(other.take(), Some(()));
            world.spawn("victim", |_| ());
            world.run().unwrap();
        }
        drop(world);
    }
}

#[test]
fn a_killed_member_may_select_without_error_case() {
    check_unwinding(|reactor, _| {
        let timer = reactor.after(ms(1));
        select! { reactor; recv(timer) -> _ => {} }
    });
}

#[test]
fn a_killed_members_blocking_send_fails() {
    check_unwinding(|_, _| {
        let (tx, _rx) = channel::bounded(1);
        tx.send(1).unwrap();
        assert!(tx.send(2).is_err());
        assert!(tx.send_timeout(2, HOUR).is_err());
        let (tx, rx) = channel::bounded(0);
        assert!(tx.send(2).is_err());
        assert!(rx.recv().is_err());
    });
}

#[test]
fn a_killed_member_may_spawn() {
    check_unwinding(|_, world| {
        world.spawn("other", |_| ());
        world.spawn("victim 2", |_| ());
    });
}

#[test]
fn a_killed_member_may_misuse_the_network() {
    check_unwinding(|_, world| {
        world.cut("nobody", "other");
        world.partition(&[&["nobody"]]);
        world.link("victim", "other", channel::unbounded::<()>().0).set_loss(2.0);
    });
}

#[test]
fn a_killed_member_gets_errors_from_waits() {
    check_unwinding(|reactor, _| {
        assert!(reactor.sleep_blocking(ms(1)).is_err());
        assert!(reactor.wait(&mut Events::with_capacity(1)).is_err());
        let timer = reactor.after(ms(1));
        select! { reactor; recv(timer) -> _ => panic!(), error -> _ => {} }
    });
}

#[test]
fn a_killed_members_thread_local_may_select() {
    alone!();
    let mut world = SimWorld::new(1);
    world.spawn("victim", |reactor| {
        let own_reactor = reactor.handle();
        keep_in_thread_local(Box::new(OnDrop(move || {
            sleep(&own_reactor, HOUR);
        })));
        keep_in_thread_local(Box::new(reactor));
    });
    world.run_for(ms(10)).unwrap();
    world.kill("victim");
    drop(world);
}

#[test]
fn a_panicking_member_may_be_killed() {
    alone!();
    let mut world = SimWorld::new(1);
    world.spawn("victim", |reactor| {
        let own_reactor = reactor.handle();
        let _guard = OnDrop(move || sleep(&own_reactor, HOUR));
        panic!("on purpose");
    });
    world.run_for(ms(10)).unwrap();
    assert!(world.kill("victim"));
    world.run().unwrap();
}

#[test]
fn a_panic_that_would_abort_is_reported() {
    alone!();
    let mut world = SimWorld::new(1);
    world.spawn("victim", |_| {
        let _guard = OnDrop(|| {
            let second = Reactor::new().unwrap();
            sleep(&second, HOUR);
        });
        panic!("on purpose");
    });
    let other = world.spawn("other", |reactor| sleep(&reactor, ms(20)));
    let error = panic_text(|| world.run());
    assert!(error.contains("`victim`") && error.contains("unwinds"), "{error}");
    world.run().unwrap();
    assert_eq!(other.take(), Some(()));
}

// Every run ends.

#[test]
fn a_member_that_catches_its_unwinding_is_named() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(1);
    fn stubborn(reactor: Reactor) {
        loop {
            let _ = catch_unwind(AssertUnwindSafe(|| sleep(&reactor, ms(1))));
        }
    }
    world.spawn("stubborn", stubborn);
    world.run_for(ms(10)).unwrap();
    let error = panic_text(|| world.kill("stubborn"));
    assert!(error.contains("`stubborn`") && error.contains("killed"), "{error}");
    // The name is free, and the world can be dropped.
    world.spawn("stubborn", stubborn);
    world.run_for(ms(10)).unwrap();
}

#[test]
fn a_killed_members_name_is_free_at_once() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(1);
    world.spawn("victim", |reactor| sleep(&reactor, HOUR));
    let handle = world.handle();
    let killer = world.spawn("killer", move |reactor| {
        sleep(&reactor, ms(1));
        let lives: Vec<_> = (0..3)
            .map(|n| {
                assert!(handle.kill("victim"));
                handle.spawn("victim", move |reactor| {
                    sleep(&reactor, ms(1));
                    n
                })
            })
            .collect();
        sleep(&reactor, ms(5));
        lives.iter().map(|life| life.take()).collect::<Vec<_>>()
    });
    world.run().unwrap();
    assert_eq!(killer.take(), Some(vec![None, None, Some(2)]));
}

#[test]
fn a_world_can_be_dropped_during_a_kill() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(1);
    world.spawn("victim", |reactor| sleep(&reactor, HOUR));
    let handle = world.handle();
    world.spawn("killer", move |reactor| {
        sleep(&reactor, ms(1));
        handle.kill("victim");
        panic!("on purpose");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| world.run())).is_err());
    assert!(!world.kill("victim"), "the member was killed twice");
    drop(world);
}

#[test]
fn a_second_reactor_that_blocks_is_an_error() {
    alone!();
    let mut world = SimWorld::new(1);
    let result = world.spawn("culprit", |_| {
        let second = Reactor::new().unwrap();
        let timer = second.after(HOUR);
        assert!(second.wait_timeout(&mut Events::with_capacity(1), Duration::ZERO).is_ok());
        let error = second.wait(&mut Events::with_capacity(1)).unwrap_err();
        drop(timer);
        error.to_string()
    });
    world.run().unwrap();
    let error = result.take().unwrap();
    assert!(error.contains("`culprit`") && error.contains("sim_faults.rs:"), "{error}");
}

#[test]
fn a_bare_end_that_blocks_names_its_line() {
    let mut world = SimWorld::new(1);
    world.spawn("culprit", |_| {
        let (_tx, rx) = channel::bounded::<u8>(1);
        let _ = rx.recv();
    });
    let error = panic_text(|| world.run());
    assert!(error.contains("`culprit`") && error.contains("sim_faults.rs:"), "{error}");
}

/// A message whose drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the bomb");
        }
    }
}

#[test]
fn a_panicking_lost_message_affects_no_member() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(1);
    let (tx, rx) = channel::unbounded();
    drop(rx);
    let link = world.link("a", "b", tx).with_delay(ms(1)..=ms(1));
    let copy = link.clone();
    let members: Vec<_> = (0..3)
        .map(|n| {
            let link = copy.clone();
            world.spawn(&n.to_string(), move |reactor| {
                link.send(Bomb);
                sleep(&reactor, ms(5));
                link.set_loss(1.0);
                link.send(Bomb);
                link.set_loss(0.0);
            })
        })
        .collect();
    world.run().unwrap();
    assert!(members.iter().all(|member| member.take().is_some()));
    assert_eq!(link.stats(), LinkStats { sent: 6, delivered: 0, lost: 6 });
    link.send(Bomb);
    world.cut("a", "b");
    assert_eq!(link.stats().in_flight(), 0);
    world.heal();
    link.send(Bomb);
    drop(world);
    assert_eq!(link.stats().in_flight(), 0);
    link.send(Bomb);
    assert_eq!(link.stats().in_flight(), 0);
}

// Waits of zero.

#[test]
fn waits_of_zero_let_others_run() {
    let waits: [Named<Reactor>; 6] = [
        ("sleep_blocking", |reactor| reactor.sleep_blocking(Duration::ZERO).unwrap()),
        ("wait_timeout", |reactor| {
            reactor.wait_timeout(&mut Events::with_capacity(1), Duration::ZERO).unwrap();
        }),
        ("try_wait", |reactor| reactor.try_wait(&mut Events::with_capacity(1)).unwrap()),
        ("default(0)", |reactor| {
            let timer = reactor.timer();
            select! { reactor; recv(timer) -> _ => {}, default(Duration::ZERO) => {} }
        }),
        ("default", |reactor| {
            let timer = reactor.timer();
            select! { reactor; recv(timer) -> _ => {}, default => {} }
        }),
        ("Select", |reactor| {
            let timer = reactor.timer();
            let mut select = pollmux::Select::new(reactor);
            select.recv(&timer);
            assert!(select.try_wait().unwrap().is_none());
        }),
    ];
    for (name, wait) in waits {
        for seed in 0..10 {
            let mut world = SimWorld::new(seed);
            let ran = Arc::new(AtomicUsize::new(0));
            let copy = ran.clone();
            let polls = world.spawn("polls", move |reactor| {
                (0..1_000).any(|_| {
                    wait(&reactor);
                    copy.load(Ordering::SeqCst) > 0
                })
            });
            // Also a member that makes its own reactor.
            let (polls_too, copy) = (seed % 2 == 0, ran.clone());
            let custom = world.spawn_with_driver("custom", move |driver| {
                let reactor = Reactor::with_driver(driver).unwrap();
                let mut count = 0;
                while polls_too && copy.load(Ordering::SeqCst) == 0 && count < 1_000 {
                    wait(&reactor);
                    count += 1;
                }
                count
            });
            world.spawn("other", move |_| ran.fetch_add(1, Ordering::SeqCst));
            world.run().unwrap();
            assert_eq!(polls.take(), Some(true), "{name}, seed {seed}");
            assert!(custom.take().unwrap() < 1_000, "{name}, seed {seed}");
        }
    }
}

#[test]
fn the_seed_orders_messages_of_one_instant() {
    let order = |seed| {
        let mut world = SimWorld::new(seed);
        let (tx, rx) = channel::unbounded();
        let links: Vec<_> = (0..3)
            .map(|n: u32| world.link(&n.to_string(), "r", tx.clone()).with_delay(ms(5)..=ms(5)))
            .collect();
        for round in 0..2 {
            links.iter().enumerate().for_each(|(n, link)| link.send((n, round)));
        }
        world.spawn("later", |reactor| sleep(&reactor, ms(10)));
        world.run().unwrap();
        let order: Vec<_> = rx.try_iter().collect();
        for n in 0..3 {
            let rounds: Vec<_> =
                order.iter().filter(|(from, _)| *from == n).map(|(_, round)| *round).collect();
            assert_eq!(rounds, [0, 1], "a link keeps its order");
        }
        order
    };
    let orders: std::collections::BTreeSet<_> = (0..100).map(order).collect();
    assert!(orders.len() > 20, "{} orders", orders.len());
    assert_eq!(order(3), order(3));
}

#[test]
fn a_message_may_follow_a_simultaneous_timer() {
    let first = |seed| {
        let mut world = SimWorld::new(seed);
        let (tx, rx) = channel::unbounded();
        let link = world.link("a", "b", tx).with_delay(ms(5)..=ms(5));
        link.send(());
        let member = world.spawn("b", move |reactor| {
            let inbox = reactor.register(rx).unwrap();
            sleep(&reactor, ms(5));
            inbox.len()
        });
        world.run().unwrap();
        member.take().unwrap()
    };
    let counts: std::collections::BTreeSet<_> = (0..50).map(first).collect();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn restarts_in_drops_are_deterministic() {
    let _watchdog = watchdog();
    let history = || {
        let mut world = SimWorld::new(11);
        let (handle, log) = (world.handle(), Arc::new(Mutex::new(Vec::new())));
        fn life(world: &WorldHandle, log: &Arc<Mutex<Vec<(u32, Time)>>>, n: u32) {
            let (copy, log) = (world.clone(), log.clone());
            world.spawn("phoenix", move |reactor| {
                log.lock().unwrap().push((n, reactor.now()));
                let (again, log_copy) = (copy.clone(), log.clone());
                keep_in_thread_local(Box::new(OnDrop(move || {
                    if n < 5 {
                        again.kill("phoenix");
                        life(&again, &log_copy, n + 1);
                    }
                })));
                sleep(&reactor, ms(3));
            });
        }
        life(&handle, &log, 0);
        world.run().unwrap();
        log.lock().unwrap().clone()
    };
    let first = history();
    assert_eq!(first.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(history(), first);
}

/// A member's drop drops another world.
#[test]
fn a_world_dropped_in_a_members_drop_ends() {
    let _watchdog = watchdog();
    let inner = SimWorld::new(2);
    let (tx, rx): (Sender<()>, _) = channel::unbounded();
    inner.spawn("inner", move |reactor| {
        let _tx = tx;
        sleep(&reactor, HOUR);
    });
    let mut world = SimWorld::new(1);
    world.spawn("outer", move |reactor| {
        let mut inner = inner;
        inner.run_for(ms(1)).unwrap();
        sleep(&reactor, ms(1));
        drop(inner);
    });
    world.run().unwrap();
    assert!(rx.try_recv().is_err());
}
