//! `Remote` and `TimerId`: the loop's thread runs requests of other threads once and in order. A
//! request wakes the loop. A late request harms nothing.

use std::cell::{Cell, RefCell};
use std::hash::Hash;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pollmux::sys::{Interest, Mode, PollEvents, Poller};
use pollmux::{
    Embedded, Events, Handle, Inbox, Reactor, Remote, Select, Sim, Source, Time, never,
    reactor::{PostError, Spin, TimerError, TimerId},
    select,
};

use support::{
    HOUR, Random, allocates_nothing, at, keys, ms, panics_with, ready_keys, rounds, scripted,
    simulated, thread, turn, watchdog,
};

/// The numbers that posts have noted, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u64>>>);

impl Log {
    fn note(&self, n: u64) {
        self.0.lock().unwrap().push(n);
    }

    /// Posts a closure that notes `n`.
    fn post(&self, remote: &Remote, n: u64) {
        let log = self.clone();
        remote.post(move |_| log.note(n)).unwrap();
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A name, and a function that takes a turn.
type Turn = (&'static str, fn(&Handle));

/// A custom source that other threads make ready, by raising a number.
struct Raised {
    shared: Arc<AtomicU64>,
    seen: Cell<u64>,
}

impl Raised {
    fn new() -> (Arc<AtomicU64>, Raised) {
        let shared = Arc::new(AtomicU64::new(0));
        (shared.clone(), Raised { shared, seen: Cell::new(0) })
    }
}

impl Source for Raised {
    type Item = u64;

    fn is_ready(&self) -> bool {
        self.shared.load(Ordering::Acquire) > self.seen.get()
    }

    fn try_take(&self) -> Option<u64> {
        self.is_ready().then(|| {
            self.seen.set(self.shared.load(Ordering::Acquire));
            self.seen.get()
        })
    }
}

/// An embedded reactor without work, and the poller of its outer loop.
fn embedded(mode: Mode) -> (Reactor, Embedded, Poller) {
    let reactor = support::reactor();
    let inner = reactor.embed().unwrap();
    let outer = Poller::new().unwrap();
    outer.register(&inner, 0, Interest::READABLE, mode).unwrap();
    assert_eq!(inner.turn().unwrap(), 0);
    assert!(!has_event(&outer, Duration::ZERO));
    (reactor, inner, outer)
}

/// Returns true if the outer loop has an event within `timeout`.
fn has_event(outer: &Poller, timeout: Duration) -> bool {
    let mut events = PollEvents::with_capacity(4);
    outer.wait(&mut events, Some(timeout)).unwrap();
    !events.is_empty()
}

// Posts.

#[test]
fn posts_run_in_order_on_the_reactors_thread() {
    let (_sim, reactor) = simulated();
    let log = Log::default();
    let here = thread::current().id();
    let remote = reactor.remote();
    let note = log.clone();
    let poster = thread::spawn(move || {
        for n in 0..100 {
            let log = note.clone();
            remote
                .post(move |handle| {
                    assert_eq!(thread::current().id(), here);
                    assert!(!handle.is_closed());
                    log.note(n);
                })
                .unwrap();
        }
    });
    poster.join().unwrap();
    assert!(log.take().is_empty(), "a post ran before the turn");
    turn(&reactor);
    assert!(log.take().into_iter().eq(0..100));
    assert_eq!(reactor.stats().called, 100);
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn every_turn_runs_posts_before_callbacks_and_sources() {
    let turns: [Turn; 7] = [
        ("select! with default", turn),
        ("select! with a timeout", |handle| {
            select! { handle; recv(never::<()>()) -> _ => {}, default(ms(1)) => {} }
        }),
        ("select!", |handle| {
            let timer = handle.after(ms(1));
            select! { handle; recv(timer) -> _ => {} }
        }),
        ("try_wait", |handle| drop(ready_keys(handle))),
        ("wait", |handle| {
            let _timer = handle.after(ms(1));
            handle.wait(&mut Events::with_capacity(4)).unwrap();
        }),
        ("Select", |handle| {
            let nothing = never::<()>();
            let mut select = Select::new(handle);
            select.recv(nothing);
            assert!(select.try_wait().unwrap().is_none());
        }),
        ("sleep_blocking", |handle| handle.sleep_blocking(ms(1)).unwrap()),
    ];
    for (name, turn) in turns {
        let (_sim, reactor) = simulated();
        let (log, remote) = (Log::default(), reactor.remote());
        let note = log.clone();
        let _callback = reactor.call_after(ms(0), move |_| note.note(9));
        (0..3).for_each(|n| log.post(&remote, n));
        turn(&reactor);
        assert_eq!(log.take(), [0, 1, 2, 9], "{name}");
    }
    let (reactor, inner, _outer) = embedded(Mode::Level);
    let (log, remote) = (Log::default(), reactor.remote());
    (0..3).for_each(|n| log.post(&remote, n));
    assert_eq!((inner.turn().unwrap(), log.take()), (0, vec![0, 1, 2]));
    // The select that runs a post finds the message that the post sends.
    let (_sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    reactor.remote().post(move |_| tx.send(5).unwrap()).unwrap();
    select! { reactor;
        recv(inbox) -> n => assert_eq!(n, Ok(5)),
        default => panic!("the message was not found"),
    }
}

#[test]
fn concurrent_posts_run_once_in_per_thread_order() {
    const THREADS: usize = 4;
    const EACH: u64 = 10_000;
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let next = Arc::new(Mutex::new([0u64; THREADS]));
    for poster in 0..THREADS {
        let (remote, next) = (reactor.remote(), next.clone());
        thread::spawn(move || {
            let mut random = Random::new(poster as u64);
            for n in 0..EACH {
                let next = next.clone();
                let last = n == EACH - 1;
                let again = remote.clone();
                remote
                    .post(move |_| {
                        let next = &mut next.lock().unwrap()[poster];
                        assert_eq!(*next, n);
                        *next += 1;
                        if last {
                            again.wake();
                        }
                    })
                    .unwrap();
                random.pause();
            }
        });
    }
    // Posts end only sleeps. The wait returns when a thread has posted everything.
    let mut events = Events::with_capacity(4);
    while *next.lock().unwrap() != [EACH; THREADS] {
        reactor.wait(&mut events).unwrap();
    }
    turn(&reactor);
    assert_eq!(*next.lock().unwrap(), [EACH; THREADS]);
    let stats = reactor.stats();
    assert_eq!((stats.called, stats.stale), (THREADS as u64 * EACH, 0));
    assert!(stats.wakes <= stats.called, "{stats}");
}

#[test]
fn posts_during_one_sleep_cost_one_wake_up() {
    let (_, reactor, script) = support::scripted_reactor();
    let (log, remote) = (Log::default(), reactor.remote());
    // A post to a loop that is awake needs no wake-up.
    log.post(&remote, 0);
    turn(&reactor);
    assert_eq!((log.take(), script.wakes()), (vec![0], 0));
    for sleeps in 1..=3 {
        let (poster, note) = (remote.clone(), log.clone());
        script.on_sleep(move || {
            (0..100).for_each(|n| note.post(&poster, n));
            poster.wake();
            Ok(())
        });
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert!(events.is_empty() && log.take().into_iter().eq(0..100));
        let stats = reactor.stats();
        assert_eq!((stats.wakes, script.wakes(), script.sleeps()), (sleeps, sleeps, sleeps));
    }
}

#[test]
fn a_post_wakes_every_kind_of_sleep() {
    let _watchdog = watchdog();
    let sleeps: [Turn; 4] = [
        ("select!", |handle| {
            let (_tx, inbox) = handle.channel::<()>(1).unwrap();
            let far = handle.after(HOUR);
            let id = far.id();
            FAR_TIMER.with(|far_timer| far_timer.set(Some(id)));
            select! { handle; recv(inbox) -> _ => panic!(), recv(far) -> _ => {} }
        }),
        ("wait", |handle| {
            let far = handle.after(HOUR);
            FAR_TIMER.with(|far_timer| far_timer.set(Some(far.id())));
            assert_eq!(support::wait_keys(handle), [far.key()]);
        }),
        ("Select", |handle| {
            let far = handle.after(HOUR);
            FAR_TIMER.with(|far_timer| far_timer.set(Some(far.id())));
            let mut select = Select::new(handle);
            select.recv(&far);
            assert!(select.wait().unwrap().recv(&far).is_some());
        }),
        ("a select! with a timeout", |handle| {
            let far = handle.after(HOUR);
            FAR_TIMER.with(|far_timer| far_timer.set(Some(far.id())));
            select! { handle; recv(far) -> _ => {}, default(HOUR) => panic!() }
        }),
    ];
    thread_local!(static FAR_TIMER: Cell<Option<TimerId>> = const { Cell::new(None) });
    for (name, sleep) in sleeps {
        let reactor = support::reactor();
        let remote = reactor.remote();
        let poster = thread::spawn(move || {
            for _ in 0..3 {
                // Real time lets the loop fall asleep. Each post ends a sleep. The last post ends
                // the select.
                thread::sleep(ms(2));
                remote.post(|_| {}).unwrap();
            }
            thread::sleep(ms(2));
            remote
                .post(|handle| {
                    let id = FAR_TIMER.with(|far_timer| far_timer.take().unwrap());
                    assert_eq!(handle.reset_timer(id, Duration::ZERO), Ok(true));
                })
                .unwrap();
        });
        sleep(&reactor);
        poster.join().unwrap();
        let stats = reactor.stats();
        assert_eq!(stats.called, 4, "{name}");
        assert!(stats.wakes <= 4, "{name}: {stats}");
    }
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn a_post_makes_the_embedded_fd_readable() {
    let _watchdog = watchdog();
    for mode in [Mode::Level, Mode::Edge] {
        let (reactor, inner, outer) = embedded(mode);
        let (log, remote, before) = (Log::default(), reactor.remote(), reactor.stats());
        for n in 0..50 {
            log.post(&remote, n);
            log.post(&remote, n + 1_000);
            assert!(has_event(&outer, Duration::ZERO), "{mode:?}");
            assert_eq!((inner.turn().unwrap(), log.take()), (0, vec![n, n + 1_000]));
            assert!(
                !has_event(&outer, Duration::ZERO),
                "{mode:?}: the fd is readable without work"
            );
        }
        assert_eq!((reactor.stats() - before).wakes, 50);
        // Another thread posts while the outer loop sleeps.
        let (poster, note) = (remote.clone(), log.clone());
        let poster = support::later(ms(3), move || note.post(&poster, 7));
        assert!(has_event(&outer, Duration::from_secs(60)));
        inner.turn().unwrap();
        assert_eq!(log.take(), [7]);
        drop(poster);
        // A post of a post runs in another turn. The fd stays readable for that turn.
        let (poster, note) = (remote.clone(), log.clone());
        remote.post(move |_| note.post(&poster, 8)).unwrap();
        inner.turn().unwrap();
        assert!(log.take().is_empty() && has_event(&outer, Duration::ZERO), "{mode:?}");
        inner.turn().unwrap();
        assert!(log.take() == [8] && !has_event(&outer, Duration::ZERO), "{mode:?}");
        // A wake-up also makes the fd readable, and so does a reset of a timer.
        remote.wake();
        assert!(has_event(&outer, Duration::ZERO));
        inner.turn().unwrap();
        let timer = reactor.after(HOUR);
        inner.turn().unwrap();
        inner.turn().unwrap();
        assert!(!has_event(&outer, Duration::ZERO));
        remote.reset(timer.id(), Duration::ZERO).unwrap();
        assert!(has_event(&outer, Duration::ZERO));
        assert_eq!(
            inner.turn().unwrap(),
            0,
            "this turn resets the timer; the next turn finds it due"
        );
        assert!(has_event(&outer, Duration::ZERO));
        assert_eq!(inner.turn().unwrap(), 1);
    }
}

#[test]
fn a_post_of_a_post_runs_next_turn() {
    fn endless(remote: &Remote, log: &Log) {
        let (again, note) = (remote.clone(), log.clone());
        remote
            .post(move |_| {
                note.note(1);
                endless(&again, &note);
            })
            .unwrap();
    }
    let (_sim, reactor) = simulated();
    let (log, remote) = (Log::default(), reactor.remote());
    endless(&remote, &log);
    for _ in 0..10 {
        turn(&reactor);
        assert_eq!(log.take(), [1]);
    }
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (timer, note) = (reactor.after(ms(0)), log.clone());
    let _callback = reactor.call_after(ms(0), move |_| note.note(2));
    tx.send(3).unwrap();
    log.post(&remote, 4);
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    assert_eq!((events.len(), log.take()), (2, vec![1, 4, 2]));
    assert_eq!((inbox.try_recv(), timer.try_take()), (Ok(3), Some(at(0))));
    // Endless posts do not stop real time either.
    let _watchdog = watchdog();
    let reactor = support::reactor();
    endless(&reactor.remote(), &log);
    let timer = reactor.timer();
    let waits: [&dyn Fn(); 2] = [&|| reactor.sleep_blocking(ms(2)).unwrap(), &|| {
        timer.reset(ms(2));
        select! { reactor; recv(timer) -> _ => {} }
    }];
    for wait in waits {
        // The post runs again and again during the wait. A thread that is kept from the CPU may
        // begin the wait when its time is over, and then waits again.
        while log.take().len() <= 2 {
            wait();
        }
    }
}

#[test]
fn a_panicking_post_loses_no_other_post() {
    let _watchdog = watchdog();
    let (_sim, reactor) = simulated();
    let (log, remote) = (Log::default(), reactor.remote());
    log.post(&remote, 0);
    remote.post(|_| panic!("in a post")).unwrap();
    log.post(&remote, 1);
    let note = log.clone();
    let _callback = reactor.call_after(ms(0), move |_| note.note(9));
    panics_with("in a post", || turn(&reactor));
    assert_eq!(log.take(), [0]);
    // A later post runs after the posts that are left.
    log.post(&remote, 2);
    turn(&reactor);
    assert_eq!(log.take(), [1, 2, 9]);
    // A wait does not sleep while posts are left.
    remote.post(|_| panic!("in a post")).unwrap();
    log.post(&remote, 3);
    let timer = reactor.after(ms(5));
    let mut events = Events::with_capacity(4);
    panics_with("in a post", || drop(reactor.wait(&mut events)));
    let (note, clock) = (log.clone(), _sim.clone());
    remote.post(move |_| note.note(clock.now().as_nanos())).unwrap();
    reactor.wait(&mut events).unwrap();
    assert_eq!((log.take(), keys(&events)), (vec![3, 0], vec![timer.key()]));
    // The posts that are left run without another request.
    let (_sim, reactor) = simulated();
    let remote = reactor.remote();
    remote.post(|_| panic!("in a post")).unwrap();
    log.post(&remote, 4);
    panics_with("in a post", || turn(&reactor));
    turn(&reactor);
    assert_eq!(log.take(), [4]);
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn embedded_turn_runs_posts_after_a_panicking_post() {
    let _watchdog = watchdog();
    for mode in [Mode::Level, Mode::Edge] {
        let (reactor, inner, outer) = embedded(mode);
        let (log, remote) = (Log::default(), reactor.remote());
        remote.post(|_| panic!("in a post")).unwrap();
        log.post(&remote, 1);
        assert!(has_event(&outer, Duration::ZERO));
        panics_with("in a post", || drop(inner.turn()));
        assert!(
            has_event(&outer, Duration::ZERO),
            "{mode:?}: the fd is not readable, with a post left"
        );
        inner.turn().unwrap();
        assert_eq!(log.take(), [1]);
        log.post(&remote, 2);
        assert!(
            has_event(&outer, Duration::ZERO),
            "{mode:?}: a new post does not make the fd readable"
        );
    }
}

#[test]
fn no_post_runs_inside_a_callback_or_post() {
    let _watchdog = watchdog();
    let (_, reactor, script) = support::scripted_reactor();
    let (log, remote) = (Log::default(), reactor.remote());
    for n in 0..3 {
        let (note, poster) = (log.clone(), remote.clone());
        script.on_sleep(move || {
            note.post(&poster, n);
            Ok(())
        });
    }
    let (note, sleeps, poster) = (log.clone(), script.clone(), remote.clone());
    let nesting = reactor.call_after(ms(0), move |cx| {
        note.post(&poster, 10);
        let (timer, before) = (cx.after(ms(5)), sleeps.sleeps());
        select! { cx; recv(timer) -> _ => {} }
        note.note(sleeps.sleeps() - before);
        let mut events = Events::with_capacity(4);
        cx.wait_timeout(&mut events, ms(5)).unwrap();
        note.note(sleeps.sleeps() - before);
    });
    turn(&reactor);
    // Each of three posts has ended a sleep. The fourth sleep lasted.
    assert_eq!((log.take(), reactor.stats().wakes), (vec![4, 5], 3));
    turn(&reactor);
    assert_eq!(log.take(), [10, 0, 1, 2]);
    // A wait that called the callback runs the posts before it sleeps.
    nesting.reset(ms(0));
    reactor.sleep_blocking(ms(20)).unwrap();
    assert_eq!(log.take(), [1, 2, 10]);
    // No post runs inside another post.
    let (note, poster) = (log.clone(), remote.clone());
    remote
        .post(move |handle| {
            note.post(&poster, 1);
            handle.sleep_blocking(ms(1)).unwrap();
            note.note(0);
        })
        .unwrap();
    log.post(&remote, 2);
    turn(&reactor);
    assert_eq!(log.take(), [0, 2]);
    turn(&reactor);
    assert_eq!(log.take(), [1]);
}

#[test]
fn a_post_may_use_the_whole_reactor() {
    let (_sim, reactor) = simulated();
    let (log, remote) = (Log::default(), reactor.remote());
    let note = log.clone();
    remote
        .post(move |handle| {
            let (tx, inbox) = handle.channel(1).unwrap();
            let timer = handle.after(ms(3));
            tx.send(1).unwrap();
            select! { handle;
                recv(inbox) -> n => note.note(n.unwrap()),
                recv(timer) -> _ => panic!(),
            }
            select! { handle;
                recv(inbox) -> _ => {},
                recv(timer) -> _ => panic!(),
                default(ms(1)) => note.note(2),
            }
            drop(tx);
            let again = note.clone();
            handle.call_after(ms(1), move |_| again.note(3)).detach();
        })
        .unwrap();
    reactor.sleep_blocking(ms(10)).unwrap();
    // The inbox never disconnects while `tx` lives: the second select took its timeout.
    assert_eq!(log.take(), [1, 2, 3]);
}

// The end of the reactor.

#[test]
fn a_closed_remote_returns_the_posted_closure() {
    let (_sim, reactor) = simulated();
    let (remote, timer) = (reactor.remote(), reactor.after(HOUR));
    let (other, id) = (remote.clone(), timer.id());
    let ticker = reactor.every(HOUR).unwrap();
    assert!(!remote.is_closed() && format!("{remote:?}").contains("closed: false"));
    drop(reactor);
    assert!(remote.is_closed() && other.is_closed());
    let token = Arc::new(());
    let held = token.clone();
    let back = remote.post(move |_| drop(held)).expect_err("the reactor was dropped");
    assert_eq!(
        (Arc::strong_count(&token), back.to_string()),
        (2, "the reactor has been dropped".to_owned())
    );
    let PostError(f) = back;
    let (_, another) = simulated();
    f(&another);
    assert_eq!(Arc::strong_count(&token), 1);
    assert_eq!(
        (remote.stop(id), remote.reset(id, ms(1))),
        (Err(TimerError::Dead), Err(TimerError::Dead))
    );
    assert_eq!(remote.reset(ticker.id(), Duration::ZERO), Err(TimerError::ZeroPeriod));
    remote.wake();
    let error: io::Error = remote.post(|_| {}).unwrap_err().into();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

#[test]
fn a_wake_does_not_hide_a_dropped_reactor() {
    let (_sim, reactor) = simulated();
    let (handle, remote) = (reactor.handle(), reactor.remote());
    remote.wake();
    turn(&reactor);
    drop(reactor);
    let mut events = Events::with_capacity(4);
    for _ in 0..2 {
        assert_eq!(handle.wait(&mut events).unwrap_err().kind(), io::ErrorKind::NotConnected);
        remote.wake();
        assert_eq!(handle.try_wait(&mut events).unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}

#[test]
fn dropping_the_reactor_drops_its_queued_posts() {
    let (_sim, reactor) = simulated();
    let token = Arc::new(());
    let remote = reactor.remote();
    let post = |count: usize| {
        for _ in 0..count {
            let held = token.clone();
            remote.post(move |_| drop(held)).unwrap();
        }
    };
    // A turn that a panic ended has fetched some posts. Other posts are still in the queue.
    remote.post(|_| panic!("in a post")).unwrap();
    post(3);
    panics_with("in a post", || turn(&reactor));
    post(4);
    assert_eq!(Arc::strong_count(&token), 8);
    drop(reactor);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn a_post_may_drop_its_reactor() {
    let (_sim, reactor) = simulated();
    let (handle, remote, token) = (reactor.handle(), reactor.remote(), Arc::new(()));
    thread_local!(static OWNED: RefCell<Option<Reactor>> = const { RefCell::new(None) });
    OWNED.with(|owned| *owned.borrow_mut() = Some(reactor));
    let (held, behind) = (token.clone(), token.clone());
    remote
        .post(move |handle| {
            drop(OWNED.with(|owned| owned.take()));
            assert!(handle.is_closed());
            drop(held);
        })
        .unwrap();
    remote.post(move |_| panic!("{:p}: the reactor was dropped", behind)).unwrap();
    let timer = handle.after(ms(1));
    let mut select = Select::new(&handle);
    select.recv(&timer);
    assert_eq!(select.try_wait().map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert!(handle.is_closed() && remote.is_closed());
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn posts_racing_with_reactor_drop_are_never_leaked() {
    let _watchdog = watchdog();
    let token = Arc::new(());
    let mut given_back = 0;
    for round in 0..200 {
        let reactor = support::reactor();
        let (remote, held) = (reactor.remote(), token.clone());
        let (ready, go) = mpsc::channel();
        let poster = thread::spawn(move || {
            ready.send(()).unwrap();
            (0..20)
                .filter(|_| {
                    let held = held.clone();
                    remote.post(move |_| drop(held)).is_err()
                })
                .count()
        });
        go.recv().unwrap();
        if round % 2 == 0 {
            turn(&reactor);
        }
        drop(reactor);
        given_back += poster.join().unwrap();
        assert_eq!(Arc::strong_count(&token), 1);
    }
    println!("{given_back} of 4,000 posts were returned");
}

// wake.

#[test]
fn a_wake_ends_waits_and_polls_sources_again() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (remote, far) = (reactor.remote(), reactor.after(HOUR));
    let waker = remote.clone();
    let other = thread::spawn(move || {
        // Real time lets the loop fall asleep.
        thread::sleep(ms(3));
        waker.wake();
    });
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    assert!(events.is_empty());
    other.join().unwrap();
    assert!(reactor.stats().wakes <= 1);

    let (shared, raised) = Raised::new();
    let other = support::later(ms(3), move || {
        remote.wake(); // the source is not ready
        thread::sleep(ms(3));
        shared.store(5, Ordering::Release);
        remote.wake();
    });
    select! { reactor; recv(far) -> _ => panic!(), recv(raised) -> n => assert_eq!(n, 5) }
    drop(other);
    assert!(far.stop());
}

#[test]
fn a_wake_before_waits_ends_only_the_next() {
    let (sim, reactor, script) = support::scripted_reactor();
    let (remote, timer) = (reactor.remote(), reactor.after(ms(5)));
    let mut events = Events::with_capacity(4);
    for _ in 0..3 {
        // Several wake-ups count as one.
        remote.wake();
        remote.wake();
        reactor.wait(&mut events).unwrap();
        assert!(events.is_empty());
        assert_eq!((sim.now(), script.sleeps()), (at(0), 0));
    }
    remote.wake();
    reactor.wait_timeout(&mut events, HOUR).unwrap();
    assert_eq!((events.is_empty(), sim.now()), (true, at(0)));
    reactor.wait(&mut events).unwrap();
    assert_eq!((keys(&events), sim.now()), (vec![timer.key()], at(5)));
    // A poll takes the wake-up as well.
    timer.reset(ms(5));
    remote.wake();
    assert_eq!(ready_keys(&reactor), []);
    reactor.wait(&mut events).unwrap();
    assert_eq!((keys(&events), sim.now()), (vec![timer.key()], at(10)));
}

#[test]
fn a_wake_hides_no_ready_source() {
    let (_sim, reactor) = simulated();
    let timer = reactor.after(ms(0));
    reactor.remote().wake();
    assert_eq!(support::wait_keys(&reactor), [timer.key()]);
}

#[test]
fn a_wake_ends_neither_sleep_blocking_nor_timeouts() {
    let (sim, reactor, script) = support::scripted_reactor();
    for _ in 0..2 {
        let remote = reactor.remote();
        script.on_sleep(move || {
            remote.wake();
            Ok(())
        });
    }
    reactor.sleep_blocking(ms(5)).unwrap();
    assert_eq!((sim.now(), script.sleeps()), (at(5), 3));
    reactor.remote().wake();
    select! { reactor; recv(never::<()>()) -> _ => {}, default(ms(5)) => {} }
    assert_eq!((sim.now(), script.sleeps()), (at(10), 4));
}

#[test]
fn a_wake_ends_a_wait_inside_a_callback() {
    let (_, reactor, script) = support::scripted_reactor();
    let remote = reactor.remote();
    let waker = remote.clone();
    script.on_sleep(move || {
        waker.wake();
        Ok(())
    });
    let ended = Rc::new(RefCell::new(Vec::new()));
    let times = ended.clone();
    let _callback = reactor.call_after(ms(0), move |cx| {
        let mut events = Events::with_capacity(4);
        // A wake-up during the sleep, and then before the wait.
        cx.wait_timeout(&mut events, ms(5)).unwrap();
        times.borrow_mut().push(cx.now());
        remote.wake();
        cx.wait_timeout(&mut events, ms(5)).unwrap();
        times.borrow_mut().push(cx.now());
    });
    turn(&reactor);
    assert_eq!(*ended.borrow(), [at(0), at(0)]);
}

#[test]
fn a_loop_going_to_sleep_loses_no_wake() {
    let all = rounds(25_000);
    /// Ends the rounds early on a machine where each thread waits for its time slice.
    const LIMIT: Duration = Duration::from_secs(60);
    let _watchdog = watchdog();
    // The subject is the sleep, so the loop must not spin first.
    let reactor = support::build(Reactor::builder().spin(Spin::Off));
    let (remote, far) = (reactor.remote(), reactor.after(HOUR));
    let (shared, raised) = Raised::new();
    let heard = Arc::new(AtomicU64::new(0));
    let seen = heard.clone();
    let raiser = thread::spawn(move || {
        let (mut random, begin) = (Random::new(1), Time::now());
        let mut n = 0;
        while n < all {
            n = if Time::now() - begin < LIMIT { n + 1 } else { all };
            shared.store(n, Ordering::Release);
            remote.wake();
            // The thread waits for every other number to arrive. A lost wake-up then has no
            // successor that ends the sleep. On one core the thread yields.
            let mut spins = 0;
            while n % 2 == 0 && seen.load(Ordering::Acquire) < n {
                spins += 1;
                if spins % 64 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
            }
            if n % 8 == 0 {
                (0..random.below(300)).for_each(|_| std::hint::spin_loop());
            }
        }
    });
    let mut last = 0;
    while last < all {
        select! { reactor;
            recv(raised) -> n => {
                assert!(n > last);
                last = n;
                heard.store(n, Ordering::Release);
            }
            recv(far) -> _ => panic!(),
        }
    }
    raiser.join().unwrap();
    // There is at most one wake-up for each number: the loop may be awake.
    let stats = reactor.stats();
    assert!((1..=all).contains(&stats.wakes), "{stats}");
}

// Timers by their ids.

#[test]
fn ids_stop_and_reset_timers_tickers_and_callbacks() {
    let (sim, reactor) = simulated();
    let (remote, log) = (reactor.remote(), Log::default());
    let note = log.clone();
    let (timer, ticker) = (reactor.after(ms(10)), reactor.every(ms(10)).unwrap());
    let callback = reactor.call_after(ms(10), move |_| note.note(1));
    let ids = [timer.id(), ticker.id(), callback.id()];
    let deadlines = || [timer.deadline(), ticker.deadline(), callback.deadline()];
    assert!(ids.iter().all(|&id| reactor.is_live(id)));
    // The loop's own calls have the results of the timer's methods.
    for (d, pending) in [(20, true), (5, true)] {
        ids.iter().for_each(|&id| assert_eq!(reactor.reset_timer(id, ms(d)), Ok(pending)));
        assert_eq!(deadlines(), [Some(at(d)); 3]);
    }
    ids.iter().for_each(|&id| assert_eq!(reactor.stop_timer(id), Ok(true)));
    ids.iter().for_each(|&id| assert_eq!(reactor.stop_timer(id), Ok(false)));
    assert_eq!(deadlines(), [None; 3]);
    ids.iter().for_each(|&id| assert_eq!(reactor.reset_timer_at(id, at(7)), Ok(false)));
    assert_eq!((deadlines(), ticker.period()), ([Some(at(7)); 3], ms(5)));
    // The loop runs the requests of a remote in its next turn.
    thread::scope(|scope| {
        scope.spawn(|| ids.iter().for_each(|&id| remote.reset(id, ms(30)).unwrap()));
    });
    assert_eq!(deadlines(), [Some(at(7)); 3]);
    turn(&reactor);
    assert_eq!((deadlines(), ticker.period()), ([Some(at(30)); 3], ms(30)));
    thread::scope(|scope| {
        scope.spawn(|| ids.iter().for_each(|&id| remote.stop(id).unwrap()));
    });
    turn(&reactor);
    assert_eq!(deadlines(), [None; 3]);
    ids.iter().for_each(|&id| remote.reset(id, ms(0).max(Duration::from_nanos(1))).unwrap());
    sim.advance(ms(1));
    // Requests run in order, also for timers that have expired and were not received.
    let before = reactor.stats();
    assert_eq!(ready_keys(&reactor).len(), 2, "this turn resets the timers, and they are due");
    assert_eq!(ready_keys(&reactor).len(), 2);
    assert_eq!((log.take(), (reactor.stats() - before).expired), (vec![1], 3));
    remote.stop(ids[0]).unwrap();
    remote.stop(ids[1]).unwrap();
    remote.reset(ids[1], ms(5)).unwrap();
    assert_eq!(ready_keys(&reactor), []);
    assert_eq!((timer.try_take(), ticker.deadline()), (None, Some(at(6))));
    assert_eq!(reactor.stats().stale, 0);
}

#[test]
fn a_remote_reset_wakes_a_sleeping_loop_earlier() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    for _ in 0..10 {
        let (timer, remote) = (reactor.after(HOUR), reactor.remote());
        let id = timer.id();
        let begin = Time::now();
        let other = thread::spawn(move || {
            thread::sleep(ms(1));
            let asked = Time::now();
            remote.reset(id, ms(1)).unwrap();
            asked
        });
        let due = select! { reactor; recv(timer) -> due => due };
        let asked = other.join().unwrap();
        assert!(due >= asked + ms(1) && Time::now() >= due && due < begin + HOUR);
    }
}

#[test]
fn a_remote_reset_counts_from_its_call() {
    let (sim, reactor) = simulated();
    let (remote, timer, ticker) = (reactor.remote(), reactor.timer(), reactor.every(HOUR).unwrap());
    sim.advance(ms(3));
    remote.reset(timer.id(), ms(10)).unwrap();
    remote.reset(ticker.id(), ms(20)).unwrap();
    sim.advance(ms(6));
    turn(&reactor);
    assert_eq!((timer.deadline(), ticker.deadline()), (Some(at(13)), Some(at(23))));
    // A reset that runs after its deadline is due at once. Its value is the deadline.
    remote.reset(timer.id(), ms(2)).unwrap();
    sim.advance(ms(5));
    turn(&reactor);
    select! { reactor;
        recv(timer) -> due => assert_eq!(due, at(11)),
        default => panic!("the timer is due"),
    }
    // The first tick is on the ticker's grid.
    sim.advance(ms(40));
    select! { reactor;
        recv(ticker) -> tick => assert_eq!((tick.scheduled, tick.missed), (at(23), 1)),
        default => panic!(),
    }
    assert_eq!(ticker.deadline(), Some(at(63)));
    remote.reset(timer.id(), Duration::MAX).unwrap();
    turn(&reactor);
    assert_eq!(timer.deadline(), Some(Time::MAX));
}

#[test]
fn a_zero_period_fails_for_tickers_only() {
    let (_sim, reactor) = simulated();
    let (remote, timer, ticker) =
        (reactor.remote(), reactor.after(HOUR), reactor.every(HOUR).unwrap());
    assert_eq!(remote.reset(ticker.id(), Duration::ZERO), Err(TimerError::ZeroPeriod));
    assert_eq!(reactor.reset_timer(ticker.id(), Duration::ZERO), Err(TimerError::ZeroPeriod));
    let listed: Vec<TimerId> = reactor.sources().iter().filter_map(|info| info.id).collect();
    assert_eq!(listed.len(), 2);
    for id in listed {
        assert_eq!(remote.reset(id, Duration::ZERO).is_err(), id == ticker.id());
    }
    turn(&reactor);
    assert_eq!((ticker.period(), ticker.deadline()), (HOUR, Some(at(0) + HOUR)));
    assert_eq!((timer.deadline(), reactor.stats().stale), (Some(at(0)), 0));
    let error: io::Error = TimerError::ZeroPeriod.into();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(io::Error::from(TimerError::OtherReactor).kind(), io::ErrorKind::InvalidInput);
    assert_eq!(io::Error::from(TimerError::Dead).kind(), io::ErrorKind::NotFound);
}

#[test]
fn resetting_a_ticker_by_id_changes_its_period() {
    let (sim, reactor) = simulated();
    let (remote, ticker) = (reactor.remote(), reactor.every(ms(100)).unwrap());
    sim.advance(ms(150));
    // The reset takes the pending tick away.
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    remote.reset(ticker.id(), ms(30)).unwrap();
    for n in 1..4 {
        select! { reactor;
            recv(ticker) -> tick => {
                assert_eq!((tick.scheduled, tick.missed), (at(150 + 30 * n), 0));
            }
        }
    }
    assert_eq!(ticker.period(), ms(30));
}

#[test]
fn requests_for_dropped_timers_are_counted_as_stale() {
    let (_sim, reactor) = simulated();
    let remote = reactor.remote();
    let log = Log::default();
    let slot = |id: TimerId| format!("{id:?}").rsplit_once('.').unwrap().0.to_owned();
    // Each timer is dropped before the next timer takes its slot.
    let makers: [fn(&Reactor) -> TimerId; 3] = [
        |reactor| reactor.after(HOUR).id(),
        |reactor| reactor.every(HOUR).unwrap().id(),
        |reactor| reactor.call_after(HOUR, |_| panic!()).id(),
    ];
    let old = makers.map(|make| make(&reactor));
    assert_eq!(slot(old[0]), slot(old[2]));
    let note = log.clone();
    let successor = reactor.call_after(ms(5), move |_| note.note(1));
    assert!(slot(successor.id()) == slot(old[0]) && old.iter().all(|&id| id != successor.id()));
    let mut stale = 0;
    for id in old {
        assert!(!reactor.is_live(id));
        assert_eq!(reactor.stop_timer(id), Err(TimerError::Dead));
        assert_eq!(reactor.reset_timer(id, ms(1)), Err(TimerError::Dead));
        assert_eq!(reactor.reset_timer_at(id, at(1)), Err(TimerError::Dead));
        assert_eq!(reactor.stats().stale, stale, "only requests of a remote count as stale");
        assert_eq!((remote.stop(id), remote.reset(id, ms(1))), (Ok(()), Ok(())));
        turn(&reactor);
        stale += 2;
        assert_eq!((reactor.stats().stale, successor.deadline()), (stale, Some(at(5))));
    }
    reactor.sleep_blocking(ms(10)).unwrap();
    assert_eq!(log.take(), [1]);
    // This timer is dropped while a request for it is queued.
    let timer = reactor.after(ms(1));
    remote.reset(timer.id(), ms(0)).unwrap();
    drop(timer);
    let successor = reactor.after(ms(1));
    assert_eq!(ready_keys(&reactor), []);
    assert_eq!((reactor.stats().stale, successor.deadline()), (stale + 1, Some(at(11))));
}

#[test]
fn the_id_of_another_reactor_is_an_error() {
    let ((_, reactor), (_, other)) = (simulated(), simulated());
    // The other reactor's timer is in the same slot.
    let (mine, theirs) = (reactor.after(ms(5)), other.after(ms(5)));
    let id = theirs.id();
    assert_ne!(mine.id(), id);
    let remote = reactor.remote();
    let wrong = Err(TimerError::OtherReactor);
    assert_eq!((remote.stop(id), remote.reset(id, ms(1))), (wrong, wrong));
    assert_eq!(reactor.stop_timer(id), Err(TimerError::OtherReactor));
    assert_eq!(reactor.reset_timer(id, ms(1)), Err(TimerError::OtherReactor));
    assert_eq!(reactor.reset_timer_at(id, at(1)), Err(TimerError::OtherReactor));
    assert!(!reactor.is_live(id) && other.is_live(id));
    turn(&reactor);
    turn(&other);
    assert_eq!((mine.deadline(), theirs.deadline()), (Some(at(5)), Some(at(5))));
    assert_eq!((reactor.stats().stale, other.stats().stale), (0, 0));
    assert_eq!(TimerError::OtherReactor.to_string(), "the timer belongs to another reactor");
}

#[test]
fn a_remote_stop_drops_a_detached_callback() {
    let (_sim, reactor) = simulated();
    let (remote, token) = (reactor.remote(), Rc::new(()));
    let held = token.clone();
    let id = reactor.call_after(HOUR, move |_| drop(held.clone())).detach();
    remote.reset(id, HOUR * 2).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| remote.stop(id).unwrap());
    });
    assert_eq!(Rc::strong_count(&token), 2);
    turn(&reactor);
    assert_eq!(
        (Rc::strong_count(&token), reactor.stats().live, reactor.is_live(id)),
        (1, 0, false)
    );
    remote.stop(id).unwrap();
    turn(&reactor);
    assert_eq!(reactor.stats().stale, 1);
}

// Costs, and which types may cross threads.

#[test]
fn stop_reset_and_wake_allocate_nothing() {
    let (_sim, reactor) = simulated();
    let remote = reactor.remote();
    let timers: Vec<_> = (0..100).map(|_| reactor.after(HOUR)).collect();
    let callback = reactor.call_after(HOUR, |_| {});
    allocates_nothing(50, |round| {
        for timer in &timers {
            remote.stop(timer.id()).unwrap();
            remote.reset(timer.id(), HOUR / (round as u32 % 5 + 1)).unwrap();
        }
        remote.reset(callback.id(), Duration::ZERO).unwrap();
        remote.wake();
        turn(&reactor);
        turn(&reactor);
    });
    assert_eq!(reactor.stats().called, 100);
    // The thread that makes the requests allocates nothing either.
    let ids: Vec<_> = timers.iter().map(|timer| timer.id()).collect();
    let (turned, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (theirs, ours) = (turned.clone(), asked.clone());
    let other = thread::spawn(move || {
        allocates_nothing(50, |_| {
            ids.iter().for_each(|&id| remote.reset(id, HOUR).unwrap());
            ours.store(true, Ordering::Release);
            while !theirs.swap(false, Ordering::AcqRel) {
                thread::yield_now();
            }
        });
    });
    for _ in 0..100 {
        while !asked.swap(false, Ordering::AcqRel) {
            thread::yield_now();
        }
        turn(&reactor);
        turned.store(true, Ordering::Release);
    }
    other.join().expect("the other thread allocates nothing");
}

#[test]
fn posts_to_an_awake_loop_make_no_syscall() {
    let reactor = support::reactor();
    let (remote, timer) = (reactor.remote(), reactor.after(HOUR));
    let before = reactor.stats();
    for _ in 0..1_000 {
        remote.post(|_| {}).unwrap();
        remote.reset(timer.id(), HOUR).unwrap();
        remote.wake();
        turn(&reactor);
        turn(&reactor);
    }
    let during = reactor.stats() - before;
    assert_eq!((during.called, during.syscalls()), (1_000, 0));
}

#[test]
fn remotes_and_timer_ids_are_send_and_sync() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    fn plain<T: Copy + Eq + Hash + Send + Sync + 'static>() {}
    anywhere::<Remote>();
    anywhere::<TimerId>();
    plain::<TimerId>();
    plain::<TimerError>();
    // The error of a post is `Send` if the posted closure is.
    anywhere::<Option<Remote>>();
    fn sends<T: Send>(_: &T) {}
    sends(&PostError(|_: &Handle| {}));
}

/// Makes a request of the reactor, then sends a message, while a turn polls its sources.
struct AsksThenSends<F: Fn()>(F);

impl<F: Fn()> Source for AsksThenSends<F> {
    type Item = ();
    fn is_ready(&self) -> bool {
        (self.0)();
        false
    }
    fn try_take(&self) -> Option<()> {
        None
    }
}

#[test]
fn earlier_requests_run_before_a_message_is_received() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.after(Duration::from_secs(60));
    let (remote, id, asked) = (reactor.remote(), timer.id(), Cell::new(false));
    let source = AsksThenSends(|| {
        if !asked.replace(true) {
            thread::scope(|scope| {
                scope.spawn(|| {
                    remote.stop(id).unwrap();
                    tx.try_send(()).unwrap();
                });
            });
        }
    });
    select! { reactor;
        recv(source) -> () => unreachable!(),
        recv(inbox) -> _ => assert_eq!(timer.deadline(), None, "the request runs first"),
        default => panic!("the message was not found"),
    }
}

/// A way to receive from a rendezvous channel.
type Receive = fn(&Handle, &Inbox<u64>) -> u64;

const RECEIVES: [(&str, Receive); 6] = [
    ("select!", |reactor, inbox| {
        select! { reactor; recv(inbox) -> n => n.unwrap(), recv(never()) -> () => 0 }
    }),
    ("select! with a timeout", |reactor, inbox| {
        select! { reactor; recv(inbox) -> n => n.unwrap(), default(HOUR) => 0 }
    }),
    ("recv", |reactor, inbox| reactor.recv(inbox).unwrap().unwrap()),
    ("recv_timeout", |reactor, inbox| reactor.recv_timeout(inbox, HOUR).unwrap().unwrap().unwrap()),
    ("Select", |reactor, inbox| {
        let mut set = Select::new(reactor);
        set.recv(inbox);
        set.wait().unwrap().recv(inbox).unwrap().unwrap()
    }),
    ("wait", |reactor, inbox| {
        reactor.wait(&mut Events::with_capacity(4)).unwrap();
        inbox.try_recv().unwrap()
    }),
];

/// A thread makes requests and then sends to the loop, during the loop's sleep or before.
fn check_requests_run_first(name: &str, posts: u64, in_sleep: bool, receive: Receive) {
    let (driver, script) = scripted(&Sim::new());
    let reactor = Reactor::builder().post_batch(4).build_with(driver).unwrap();
    let (tx, inbox) = reactor.channel(0).unwrap();
    let (timer, log, remote) = (reactor.after(HOUR), Log::default(), reactor.remote());
    let (id, posted) = (timer.id(), log.clone());
    let thread = move || {
        remote.stop(id).unwrap();
        (0..posts).for_each(|n| posted.post(&remote, n));
        if in_sleep {
            tx.try_send(7).expect("the receiver waits");
        } else {
            tx.send(7).unwrap();
        }
    };
    if in_sleep {
        script.on_sleep(move || {
            thread::spawn(thread).join().expect("the thread has met the receiver");
            Ok(())
        });
    } else {
        thread::spawn(thread);
        while !inbox.is_ready() {
            thread::yield_now();
        }
    }
    assert_eq!(receive(&reactor, &inbox), 7, "{name}");
    assert_eq!(timer.deadline(), None, "{name}: the message came before a request");
    assert_eq!(log.take(), Vec::from_iter(0..posts), "{name}: the message came before a post");
}

#[test]
fn earlier_requests_run_before_a_rendezvous_receive() {
    let _watchdog = watchdog();
    for (name, receive) in RECEIVES {
        for posts in [0, 1, 30] {
            check_requests_run_first(name, posts, true, receive);
        }
    }
}

#[test]
fn earlier_posts_run_before_a_blocked_send() {
    let _watchdog = watchdog();
    for (name, receive) in RECEIVES {
        for posts in [0, 1, 30] {
            check_requests_run_first(name, posts, false, receive);
        }
    }
}
