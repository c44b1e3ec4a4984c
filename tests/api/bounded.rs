//! Checks that other threads cannot make a reactor's memory or turns grow without bound. The
//! counted bytes belong to the process, so most tests run in their own process.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pollmux::sys::{Interest, Mode, Poller};
use pollmux::{
    Context, Events, Handle, Inbox, Reactor, Remote, Select, Sim, Source, Time, Timer, channel,
    reactor::{TimerId, TryPostError},
    select,
};

use support::{HOUR, allocations, alone, at, bytes, frees, ms, simulated, turn, watchdog};

/// Returns the number of bytes that `f` leaves allocated.
fn growth(f: impl FnOnce()) -> isize {
    let before = live();
    f();
    live() - before
}

/// Returns a reactor with a timer, and the remote and the id to reach that timer from other
/// threads.
fn with_timer() -> (Reactor, Timer, Remote, TimerId) {
    let (_, reactor) = simulated();
    let timer = reactor.after(HOUR);
    let (remote, id) = (reactor.remote(), timer.id());
    (reactor, timer, remote, id)
}

/// A bound in bytes that is far above the size of one request.
const FLAT: isize = 64 << 10;

#[test]
fn requests_for_one_timer_coalesce() {
    alone!();
    let (reactor, timer, remote, id) = with_timer();
    let asked = growth(|| {
        for n in 0..200_000 {
            remote.reset(id, HOUR + ms(n)).unwrap();
            remote.stop(id).unwrap();
        }
        remote.reset(id, HOUR * 2).unwrap();
    });
    assert!(asked < FLAT, "{asked} bytes for the requests");
    turn(&reactor);
    assert_eq!(timer.deadline(), Some(reactor.now() + HOUR * 2));
}

#[test]
fn requests_of_many_threads_coalesce() {
    alone!();
    let (_sim, reactor) = simulated();
    let timers: Vec<_> = (0..10).map(|_| reactor.after(HOUR)).collect();
    let ids: Vec<TimerId> = timers.iter().map(|timer| timer.id()).collect();
    let remote = reactor.remote();
    let asked = growth(|| {
        thread::scope(|scope| {
            for thread in 0..4 {
                let (ids, remote) = (&ids, &remote);
                scope.spawn(move || {
                    for n in 0..30_000 {
                        remote.reset(ids[(n + thread) % ids.len()], HOUR).unwrap();
                    }
                });
            }
        });
    });
    assert!(asked < FLAT, "{asked} bytes for the requests");
}

#[test]
fn requests_are_applied_while_other_threads_ask() {
    alone!();
    let (sim, reactor) = simulated();
    let timers: Vec<_> = (0..3).map(|_| reactor.after(HOUR)).collect();
    let ids: Vec<TimerId> = timers.iter().map(|timer| timer.id()).collect();
    let remote = reactor.remote();
    let turned = AtomicU64::new(0);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|thread| {
                let (ids, remote, turned) = (&ids, &remote, &turned);
                // The last request of each thread is for a timer that no other thread resets.
                scope.spawn(move || {
                    for n in 0..20_000_u32 {
                        remote.stop(ids[n as usize % 3]).unwrap();
                        remote.reset(ids[thread], HOUR + ms(u64::from(n % 7))).unwrap();
                    }
                    while turned.load(Ordering::Relaxed) < 100 {
                        thread::yield_now();
                    }
                    remote.reset(ids[thread], ms(thread as u64 + 1)).unwrap();
                })
            })
            .collect();
        while !askers.iter().all(|asker| asker.is_finished()) {
            turn(&reactor);
            turned.fetch_add(1, Ordering::Relaxed);
        }
    });
    turn(&reactor);
    sim.advance(HOUR / 2);
    turn(&reactor);
    // A timer has its thread's last deadline, or another thread stopped the timer afterwards.
    let deadlines: Vec<Option<Time>> = timers.iter().map(|timer| timer.deadline()).collect();
    assert!(
        deadlines.iter().enumerate().all(|(n, due)| due.is_none_or(|due| due == at(n as u64 + 1)))
    );
}

#[test]
fn requests_for_dead_timers_of_one_slot_coalesce() {
    const ALL: u64 = 100_000;
    alone!();
    let (_sim, reactor) = simulated();
    let remote = reactor.remote();
    reactor.after(HOUR).id(); // allocates the slot's memory
    let asked = growth(|| {
        for n in 0..ALL {
            let timer = reactor.after(HOUR);
            let id = timer.id();
            drop(timer);
            if n % 2 == 0 { remote.stop(id).unwrap() } else { remote.reset(id, HOUR).unwrap() }
        }
    });
    assert!(asked < FLAT, "{asked} bytes for the requests");
    let live = reactor.after(HOUR);
    remote.stop(live.id()).unwrap();
    turn(&reactor);
    assert_eq!(
        reactor.stats().stale,
        ALL,
        "not every request for a dropped timer counted as stale"
    );
    assert_eq!(live.deadline(), None);
}

#[test]
fn a_coalesced_stop_keeps_the_period_before_it() {
    alone!();
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    let (remote, id) = (reactor.remote(), ticker.id());
    remote.reset(id, ms(3)).unwrap();
    remote.stop(id).unwrap();
    turn(&reactor);
    assert_eq!(ticker.deadline(), None);
    assert_eq!(ticker.period(), ms(3));
    // Stops without a reset also keep the period.
    remote.stop(id).unwrap();
    remote.stop(id).unwrap();
    turn(&reactor);
    assert_eq!(ticker.period(), ms(3));
    ticker.restart();
    sim.advance(ms(3));
    assert!(reactor.try_recv(&ticker).unwrap().is_some());
}

#[test]
fn requests_and_posts_keep_their_threads_order() {
    alone!();
    let (reactor, _timer, remote, id) = with_timer();
    let seen: Arc<Mutex<Vec<Option<u64>>>> = Arc::default();
    let look = move |handle: &Handle, seen: &Arc<Mutex<Vec<Option<u64>>>>| {
        let info =
            handle.sources().iter().find(|info| info.id == Some(id)).and_then(|info| info.deadline);
        seen.lock().unwrap().push(info.map(|due| (due - handle.now()).as_secs()));
    };
    for n in 1..=50_u64 {
        remote.reset(id, Duration::from_secs(n)).unwrap();
        remote.stop(id).unwrap();
        remote.reset(id, Duration::from_secs(n * 100)).unwrap();
        let noted = seen.clone();
        remote.post(move |handle| look(handle, &noted)).unwrap();
        if n % 2 == 0 {
            remote.stop(id).unwrap();
        }
        let noted = seen.clone();
        remote.post(move |handle| look(handle, &noted)).unwrap();
    }
    turn(&reactor);
    let expected = (1..=50).flat_map(|n| [Some(n * 100), (n % 2 == 1).then_some(n * 100)]);
    assert!(seen.lock().unwrap().iter().copied().eq(expected), "{seen:?}");
}

#[test]
fn a_coalesced_stop_frees_a_detached_callback() {
    alone!();
    let (sim, reactor) = simulated();
    let called = Rc::new(Cell::new(0));
    let count = called.clone();
    let callback = reactor.call_after(HOUR, move |_| count.set(count.get() + 1));
    let (remote, id) = (reactor.remote(), callback.id());
    callback.detach();
    remote.stop(id).unwrap();
    remote.reset(id, ms(1)).unwrap();
    turn(&reactor);
    assert!(!reactor.is_live(id), "the stop did not free the callback");
    sim.advance(ms(2));
    turn(&reactor);
    assert_eq!((called.get(), reactor.stats().stale), (0, 1));
}

#[test]
fn requests_to_a_dropped_reactor_are_errors() {
    alone!();
    let (reactor, _timer, remote, id) = with_timer();
    remote.reset(id, HOUR).unwrap();
    drop(reactor);
    assert_eq!(remote.reset(id, HOUR), Err(pollmux::reactor::TimerError::Dead));
    assert_eq!(remote.stop(id), Err(pollmux::reactor::TimerError::Dead));
}

/// Returns a reactor on a virtual clock with small batches.
fn with_batches(posts: usize, callbacks: usize) -> (Sim, Reactor) {
    let sim = Sim::new();
    let builder = Reactor::builder().post_batch(posts).callback_batch(callbacks);
    let reactor = builder.build_with(sim.clone()).unwrap();
    (sim, reactor)
}

/// Posts `n` closures from another thread, and then runs `last` there.
fn post_from_elsewhere(
    remote: &Remote,
    n: usize,
    done: &Arc<AtomicU64>,
    last: impl FnOnce() + Send,
) {
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..n {
                let done = done.clone();
                let count = move |_: &Handle| {
                    done.fetch_add(1, Ordering::Relaxed);
                };
                remote.post(count).unwrap();
            }
            last();
        });
    });
}

#[test]
fn a_turn_runs_one_batch_of_posts() {
    alone!();
    let (_sim, reactor) = with_batches(10, 10);
    let done = Arc::default();
    post_from_elsewhere(&reactor.remote(), 95, &done, || {});
    for round in 1..=10 {
        turn(&reactor);
        assert_eq!(done.load(Ordering::Relaxed), (10 * round).min(95));
    }
    let before = reactor.stats();
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!((reactor.stats() - before).called, 0);
}

#[test]
fn a_reactor_with_pending_posts_does_not_sleep() {
    alone!();
    let (_sim, reactor) = with_batches(10, 10);
    let (done, ran_at) = (Arc::default(), Arc::new(Mutex::new(None)));
    let remote = reactor.remote();
    post_from_elsewhere(&remote, 95, &done, || {});
    let noted = ran_at.clone();
    remote.post(move |handle| *noted.lock().unwrap() = Some(handle.now())).unwrap();
    reactor.sleep_blocking(HOUR).unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 95);
    assert_eq!(*ran_at.lock().unwrap(), Some(Time::ZERO));
}

/// Receives a message in one of the [`WAYS`]. Returns true if a message came.
type Receive = fn(&Reactor, &Inbox<()>) -> bool;

const WAYS: [(&str, Receive); 7] = [
    ("select!", |reactor, inbox| {
        select! { reactor; recv(inbox) -> got => got.is_ok() }
    }),
    ("default", |reactor, inbox| {
        select! { reactor; recv(inbox) -> got => got.is_ok(), default => false }
    }),
    ("timeout", |reactor, inbox| reactor.recv_timeout(inbox, ms(1)).unwrap().is_some()),
    ("Select", |reactor, inbox| {
        let mut select = Select::new(reactor);
        select.recv(inbox);
        select.wait().is_ok()
    }),
    ("try_wait of Select", |reactor, inbox| {
        let mut select = Select::new(reactor);
        select.recv(inbox);
        select.try_wait().unwrap().is_some()
    }),
    ("wait", |reactor, _| !support::wait_keys(reactor).is_empty()),
    ("try_wait", |reactor, _| !support::ready_keys(reactor).is_empty()),
];

#[test]
fn posts_run_before_a_later_message_is_received() {
    alone!();
    for (way, receive) in WAYS {
        let (_sim, reactor) = with_batches(10, 10);
        let (tx, inbox) = reactor.channel(4).unwrap();
        let done = Arc::default();
        post_from_elsewhere(&reactor.remote(), 95, &done, || tx.send(()).unwrap());
        assert!(receive(&reactor, &inbox), "{way}: the message was not received");
        assert_eq!(done.load(Ordering::Relaxed), 95, "{way}");
    }
}

/// Makes detached callbacks that count their calls and re-arm themselves with zero.
fn callbacks_re_armed_to_zero(reactor: &Reactor, n: usize) -> Vec<Rc<Cell<u32>>> {
    let counts: Vec<Rc<Cell<u32>>> = (0..n).map(|_| Rc::default()).collect();
    for count in counts.clone() {
        let again = move |cx: &pollmux::CallbackContext<'_>| {
            count.set(count.get() + 1);
            cx.reset(Duration::ZERO);
        };
        reactor.call_after(Duration::ZERO, again).detach();
    }
    counts
}

#[test]
fn receiving_behind_posts_calls_each_callback_once() {
    alone!();
    for (way, receive) in WAYS {
        for callbacks in [3, 25] {
            let (_sim, reactor) = with_batches(10, 10);
            let counts = callbacks_re_armed_to_zero(&reactor, callbacks);
            let (tx, inbox) = reactor.channel(4).unwrap();
            let done = Arc::default();
            post_from_elsewhere(&reactor.remote(), 295, &done, || tx.send(()).unwrap());
            assert!(receive(&reactor, &inbox), "{way}: the message was not received");
            assert_eq!(done.load(Ordering::Relaxed), 295, "{way}");
            let seen: Vec<u32> = counts.iter().map(|count| count.get()).collect();
            // A receive that waits calls the callbacks again while waiting.
            let at_once = ["default", "try_wait of Select", "try_wait"].contains(&way);
            assert!(seen.iter().all(|&n| n == 1 || n > 1 && !at_once), "{way}: {seen:?}");
            // The next turn calls the callbacks again.
            turn(&reactor);
            let called =
                counts.iter().map(|count| count.get()).sum::<u32>() - seen.iter().sum::<u32>();
            assert_eq!(called as usize, callbacks.min(10), "{way}");
        }
    }
}

#[test]
fn callbacks_behind_posts_do_not_advance_virtual_time() {
    alone!();
    let (_sim, reactor) = with_batches(1, 10);
    let count = callbacks_re_armed_to_zero(&reactor, 1).remove(0);
    let (tx, inbox) = reactor.channel(4).unwrap();
    post_from_elsewhere(&reactor.remote(), 500, &Arc::default(), || tx.send(()).unwrap());
    assert!(reactor.try_recv(&inbox).unwrap().is_some());
    assert_eq!(count.get(), 1);
    // Virtual time advances only after callbacks have delayed the advance for a hundred rounds.
    reactor.sleep_blocking(ms(1)).unwrap();
    assert!(count.get() >= 100, "{count:?} calls");
}

/// Posts a closure that posts itself again, from another thread.
fn flood(remote: &Remote, count: &Arc<AtomicU64>) {
    let (again, counted) = (remote.clone(), count.clone());
    let post = move |_: &Handle| {
        counted.fetch_add(1, Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| flood(&again, &counted));
        });
    };
    let _ = remote.post(post);
}

#[test]
fn post_floods_starve_no_message_and_no_callback() {
    alone!();
    for (way, receive) in WAYS {
        let (sim, reactor) = with_batches(5, 5);
        let remote = reactor.remote();
        let count = Arc::default();
        (0..40).for_each(|_| flood(&remote, &count));
        let (tx, inbox) = reactor.channel(4).unwrap();
        let called = Rc::new(Cell::new(0));
        let calls = called.clone();
        let _callback = reactor.call_after(ms(1), move |cx| {
            calls.set(calls.get() + 1);
            cx.reset(ms(1));
        });
        for round in 1..=5 {
            sim.advance(ms(1));
            tx.try_send(()).unwrap();
            let before = count.load(Ordering::Relaxed);
            assert!(receive(&reactor, &inbox), "{way}: the message was not received");
            let posts = count.load(Ordering::Relaxed) - before;
            // 40 posts may run before the message, and a few batches of new posts.
            assert!(posts <= 60, "{way}: {posts} posts before the message");
            while inbox.try_recv().is_ok() {}
            turn(&reactor);
            assert!(called.get() >= round, "{way}: the callback was not called");
        }
    }
}

#[test]
fn post_floods_starve_no_timer_and_no_fd() {
    alone!();
    let (_watchdog, reactor) = (watchdog(), support::build(Reactor::builder().post_batch(5)));
    let remote = reactor.remote();
    let count = Arc::default();
    (0..40).for_each(|_| flood(&remote, &count));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = reactor.fd_nonblocking(ours, Interest::READABLE).unwrap();
    std::io::Write::write_all(&mut &theirs, b"x").unwrap();
    let timer = reactor.after(ms(1));
    let (mut seen, mut due) = (false, false);
    while !(seen && due) {
        select! { reactor;
            recv(fd) -> _ => {
                seen = true;
                let _ = fd.try_io(|mut io| std::io::Read::read(&mut io, &mut [0; 8]));
            },
            recv(timer) -> _ => due = true,
        }
    }
    assert!(count.load(Ordering::Relaxed) > 0);
}

#[test]
fn callback_floods_starve_no_other_source() {
    alone!();
    for (way, receive) in WAYS {
        let (sim, reactor) = with_batches(10, 10);
        let count = Rc::new(Cell::new(0_u64));
        for _ in 0..200 {
            let counted = count.clone();
            let again = move |cx: &pollmux::CallbackContext<'_>| {
                counted.set(counted.get() + 1);
                cx.reset(Duration::ZERO);
            };
            reactor.call_after(Duration::ZERO, again).detach();
        }
        let (tx, inbox) = reactor.channel(4).unwrap();
        let timer = reactor.after(ms(1));
        let done = Arc::default();
        for round in 1..=5 {
            sim.advance(ms(1));
            post_from_elsewhere(&reactor.remote(), 1, &done, || tx.try_send(()).unwrap());
            let before = count.get();
            assert!(receive(&reactor, &inbox), "{way}: the message was not received");
            let calls = count.get() - before;
            // A turn calls at most two batches.
            assert!(calls <= 20, "{way}: {calls} callbacks before the message");
            assert_eq!(done.load(Ordering::Relaxed), round, "{way}: the post did not run");
            while inbox.try_recv().is_ok() {}
            turn(&reactor);
        }
        assert!(timer.try_take().is_some(), "{way}: the timer did not fire");
    }
}

#[test]
fn a_turn_calls_one_ordered_batch_of_callbacks() {
    alone!();
    let (sim, reactor) = with_batches(10, 7);
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    for n in (0..100_u64).rev() {
        let noted = order.clone();
        reactor.call_after(ms(n), move |_| noted.borrow_mut().push(n)).detach();
    }
    sim.advance(ms(100));
    for round in 1..=15 {
        turn(&reactor);
        assert_eq!(order.borrow().len(), (7 * round).min(100));
    }
    assert!(order.borrow().iter().copied().eq(0..100));
}

#[test]
fn a_sleep_calls_all_due_callbacks_in_batches() {
    alone!();
    let (_sim, reactor) = with_batches(10, 7);
    let called = Rc::new(Cell::new(0));
    for _ in 0..100 {
        let calls = called.clone();
        reactor.call_after(ms(5), move |_| calls.set(calls.get() + 1)).detach();
    }
    reactor.sleep_blocking(ms(5)).unwrap();
    assert_eq!(called.get(), 100);
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn pending_posts_keep_the_embedded_fd_readable() {
    alone!();
    let reactor = support::build(Reactor::builder().post_batch(10));
    let inner = reactor.embed().unwrap();
    let outer = Poller::new().unwrap();
    outer.register(&inner, 0, Interest::READABLE, Mode::Edge).unwrap();
    let mut events = pollmux::sys::PollEvents::with_capacity(1);
    let done = Arc::default();
    post_from_elsewhere(&reactor.remote(), 95, &done, || {});
    for _ in 0..10 {
        outer.wait(&mut events, Some(HOUR)).unwrap();
        assert_eq!(events.iter().count(), 1);
        inner.turn().unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 95);
    outer.wait(&mut events, Some(Duration::ZERO)).unwrap();
    assert_eq!(events.iter().count(), 0, "the fd is readable although no work is left");
}

#[test]
fn posts_behind_a_panic_run_next_turn() {
    alone!();
    let (_sim, reactor) = with_batches(10, 10);
    let remote = reactor.remote();
    remote.post(|_| panic!("on purpose")).unwrap();
    let done = Arc::default();
    post_from_elsewhere(&remote, 25, &done, || {});
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turn(&reactor))).is_err());
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 25);
}

#[test]
fn try_post_beyond_the_limit_returns_the_closure() {
    alone!();
    let reactor = Reactor::builder().post_limit(3).post_batch(2).build_with(Sim::new()).unwrap();
    let remote = reactor.remote();
    let post = |n: u64| remote.try_post(move |_| assert!(n < 9));
    assert!((0..3).all(|n| post(n).is_ok()));
    let refused = post(3).unwrap_err();
    assert!(refused.is_full() && matches!(refused, TryPostError::Full(_)), "{refused:?}");
    assert!(refused.to_string().contains("post_limit"), "{refused}");
    refused.into_inner()(&reactor); // `into_inner` returns the posted closure
    remote.post(|_| {}).unwrap(); // `post` has no limit
    turn(&reactor);
    assert!(post(4).is_ok(), "the turn did not free two places");
    assert!(post(5).is_err());
    drop(reactor);
    let refused = post(6).unwrap_err();
    assert!(matches!(refused, TryPostError::Closed(_)));
    assert_eq!(std::io::Error::from(refused).kind(), std::io::ErrorKind::NotConnected);
}

/// Returns the number of open fds of this process.
#[cfg(target_os = "linux")]
fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Makes an object that outlives its reactor.
#[cfg(target_os = "linux")]
type Keep = fn(&Reactor) -> Box<dyn std::any::Any>;

#[cfg(target_os = "linux")]
const KEPT: [(&str, Keep); 13] = [
    ("Handle", |reactor| Box::new(reactor.handle())),
    ("Remote", |reactor| {
        let remote = reactor.remote();
        remote.post(|_| {}).unwrap();
        Box::new(remote)
    }),
    ("Timer, Ticker and their ids", |reactor| {
        let (timer, ticker) = (reactor.after(HOUR), reactor.every(HOUR).unwrap());
        let ids = (timer.id(), ticker.id());
        Box::new((timer, ticker, ids))
    }),
    ("Callback", |reactor| Box::new(reactor.call_after(HOUR, |_| {}))),
    ("Sender and Inbox", |reactor| Box::new(reactor.channel::<u8>(4).unwrap())),
    ("Sender of a dropped Inbox", |reactor| {
        let (tx, inbox) = reactor.channel::<u8>(4).unwrap();
        let _ = tx.send(1);
        let _ = inbox.try_recv();
        Box::new(tx)
    }),
    ("Receiver that was registered", |reactor| {
        let (tx, inbox) = reactor.channel::<u8>(4).unwrap();
        Box::new((tx, inbox.into_inner()))
    }),
    ("Receiver that was another reactor's first", |reactor| {
        let first = support::reactor();
        let (tx, inbox) = first.channel::<u8>(4).unwrap();
        let inbox = reactor.register(inbox.into_inner()).unwrap();
        Box::new((tx, inbox))
    }),
    ("rendezvous and Outbox", |reactor| {
        let (tx, rx) = channel::bounded::<u8>(0);
        let (tx, rx) = (reactor.register(tx).unwrap(), reactor.register(rx).unwrap());
        select! { reactor; send(tx, 1) -> _ => {}, recv(rx) -> _ => {}, default(ms(1)) => {} }
        Box::new((tx, rx))
    }),
    ("full Outbox", |reactor| {
        let (tx, rx) = channel::bounded::<u8>(1);
        tx.send(1).unwrap();
        let tx = reactor.register(tx).unwrap();
        select! { reactor; send(tx, 1) -> _ => {}, default(ms(1)) => {} }
        Box::new((tx, rx))
    }),
    ("Notifier", |reactor| {
        let (notifier, notified) = reactor.notifier();
        notifier.notify();
        Box::new((notifier, notified))
    }),
    ("Done", |reactor| {
        let (context, canceller) = Context::background().with_cancel();
        let done = reactor.done(&context);
        Box::new((context, canceller, done))
    }),
    ("after_cancel", |reactor| {
        let (context, canceller) = Context::background().with_cancel();
        let callback = reactor.after_cancel(&context, |_| {});
        Box::new((context, canceller, callback))
    }),
];

#[cfg(target_os = "linux")]
#[test]
fn a_dropped_reactor_keeps_no_fd_open() {
    alone!();
    for (name, keep) in KEPT {
        let before = open_fds();
        let reactor = support::reactor();
        let kept = keep(&reactor);
        reactor.sleep_blocking(Duration::from_micros(10)).unwrap();
        assert!(open_fds() > before, "{name}: the reactor opened no fd");
        drop(reactor);
        assert_eq!(open_fds(), before, "{name}: an fd is still open");
        drop(kept);
    }
}

#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn an_embedding_without_reactor_keeps_one_fd() {
    alone!();
    let before = open_fds();
    let reactor = support::reactor();
    let inner = reactor.embed().unwrap();
    drop(reactor);
    assert_eq!(open_fds(), before + 1, "the outer loop's fd must stay open");
    drop(inner);
    assert_eq!(open_fds(), before);
}

/// Returns the number of bytes that are allocated now.
fn live() -> isize {
    bytes() as isize
}

/// Counts the allocations and frees of `f` on this thread.
fn calls(f: impl FnOnce()) -> u64 {
    let before = allocations() + frees();
    f();
    allocations() + frees() - before
}

/// The bytes that a buffer may keep after a burst (64 KiB, see its documentation), and 16 KiB for
/// the allocations around it.
const RETAINED: isize = (64 << 10) + (16 << 10);
/// The same bound for the sources of a reactor: three columns of records, and the timer queue.
const RETAINED_OF_SOURCES: isize = 4 * RETAINED;

const BURST: u64 = 1 << 16;

/// Checks that a burst's memory is freed. `before` and `peak` are the bytes before and after the
/// burst.
#[track_caller]
fn assert_freed(before: isize, peak: isize, way: &str) {
    assert_freed_down_to(RETAINED, before, peak, way);
}

/// Does the same as [`assert_freed`] with another bound.
#[track_caller]
fn assert_freed_down_to(retained: isize, before: isize, peak: isize, way: &str) {
    let now = live();
    assert!(peak - before > 1 << 20, "{way}: the burst took only {} bytes", peak - before);
    assert!(now - before < retained, "{way}: {} of {} bytes are kept", now - before, peak - before);
}

#[test]
fn a_bare_unbounded_channel_shrinks() {
    alone!();
    let before = live();
    let (tx, rx) = channel::unbounded();
    (0..BURST).for_each(|n| tx.send(n).unwrap());
    let peak = live();
    assert!((0..BURST).all(|n| rx.try_recv() == Ok(n)));
    assert!(rx.try_recv().is_err());
    thread::sleep(ms(1_100));
    for n in 0..10 {
        tx.send(n).unwrap();
        assert_eq!(rx.recv(), Ok(n));
        assert!(rx.try_recv().is_err());
    }
    assert_freed(before, peak, "try_recv");
}

#[test]
fn a_blocked_receiver_lets_its_channel_shrink() {
    alone!();
    let before = live();
    let (tx, rx) = channel::unbounded();
    (0..BURST).for_each(|n| tx.send(n).unwrap());
    let peak = live();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let sum = rx.iter().map(|_: u64| 1_u64).sum::<u64>();
            (rx, sum)
        });
        while !tx.is_empty() {
            thread::sleep(ms(1));
        }
        (0..3).for_each(|n| {
            thread::sleep(ms(1_100));
            tx.send(n).unwrap();
        });
        while !tx.is_empty() {
            thread::sleep(ms(1));
        }
        let tx = tx;
        drop(tx);
        let (rx, sum) = receiver.join().unwrap();
        assert_eq!(sum, BURST + 3);
        assert_freed(before, peak, "recv");
        drop(rx);
    });
}

#[test]
fn a_registered_unbounded_channel_shrinks() {
    alone!();
    for (way, receive) in [WAYS[0], WAYS[3], WAYS[5]] {
        let (sim, reactor) = simulated();
        let (tx, rx) = channel::unbounded();
        let inbox = reactor.register(rx).unwrap();
        let before = live();
        (0..BURST * 2).for_each(|_| tx.send(()).unwrap());
        let peak = live();
        while inbox.try_recv().is_ok() {}
        reactor.sleep_blocking(ms(1)).unwrap();
        for _ in 0..5 {
            sim.advance(ms(500));
            tx.send(()).unwrap();
            assert!(receive(&reactor, &inbox), "{way}");
            while inbox.try_recv().is_ok() {}
        }
        assert_freed(before, peak, way);
    }
}

#[test]
fn a_sleeping_select_lets_its_channel_shrink() {
    alone!();
    let (_sim, reactor) = simulated();
    let (tx, rx) = channel::unbounded::<u64>();
    let inbox = reactor.register(rx).unwrap();
    let ticker = reactor.every(ms(400)).unwrap();
    let before = live();
    (0..BURST).for_each(|n| tx.send(n).unwrap());
    let peak = live();
    (0..BURST).for_each(|_| select! { reactor; recv(inbox) -> n => assert!(n.is_ok()) });
    for _ in 0..5 {
        select! { reactor; recv(inbox) -> _ => unreachable!(), recv(ticker) -> _ => {} }
    }
    assert_freed(before, peak, "select!");
}

#[test]
fn a_channel_that_is_never_empty_shrinks() {
    alone!();
    let (sim, reactor) = simulated();
    let (tx, rx) = channel::unbounded();
    let inbox = reactor.register(rx).unwrap();
    let before = live();
    (0..BURST).for_each(|n| tx.send(n).unwrap());
    let peak = live();
    let mut received = 0;
    let mut receive = || {
        assert_eq!(inbox.try_recv(), Ok(received));
        received += 1;
    };
    (20..BURST).for_each(|_| receive());
    let mut sent = BURST;
    for _ in 0..40 {
        for _ in 0..BURST / 8 {
            tx.send(sent).unwrap();
            sent += 1;
            receive();
        }
        sim.advance(ms(100));
    }
    assert_freed(before, peak, "a steady flow");
}

/// After a burst, uses a quarter of its memory every 900 ms. The allocator must not be called
/// meanwhile.
fn keeps_memory(sim: &Sim, times: usize, mut burst: impl FnMut(u64)) {
    burst(BURST);
    let often = calls(|| {
        for _ in 0..times {
            burst(BURST / 4);
            for _ in 0..3 {
                sim.advance(ms(300));
                burst(1);
            }
        }
    });
    assert_eq!(often, 0, "calls of the allocator while a quarter is used every 900 ms");
}

#[test]
fn an_unbounded_channel_keeps_memory_that_bursts_use() {
    alone!();
    let (sim, reactor) = simulated();
    let (tx, rx) = channel::unbounded();
    let inbox = reactor.register(rx).unwrap();
    let burst = |n: u64| {
        (0..n).for_each(|n| tx.send(n).unwrap());
        while inbox.try_recv().is_ok() {}
    };
    keeps_memory(&sim, 20, burst);
}

#[test]
fn small_buffers_are_never_freed() {
    alone!();
    let (sim, reactor) = simulated();
    let (tx, rx) = channel::unbounded();
    let inbox = reactor.register(rx).unwrap();
    let mut timers = Vec::with_capacity(1_000);
    let mut burst = || {
        (0..2_000_u64).for_each(|n| tx.send(n).unwrap());
        while inbox.try_recv().is_ok() {}
        timers.extend((0..1_000).map(|n| reactor.after(ms(10_000 + n))));
        turn(&reactor);
        timers.clear();
        turn(&reactor);
    };
    burst();
    let often = calls(|| {
        for _ in 0..20 {
            sim.advance(ms(700));
            turn(&reactor);
            let _ = inbox.try_recv();
            sim.advance(ms(700));
            turn(&reactor);
            burst();
        }
    });
    assert_eq!(often, 0);
}

#[test]
fn the_mailbox_of_posts_shrinks() {
    alone!();
    for embedded in [false, true] {
        if embedded && cfg!(flat) {
            continue;
        }
        let (sim, reactor) = simulated();
        let remote = reactor.remote();
        let before = live();
        let done = Arc::default();
        (0..BURST).for_each(|_| remote.post(|_| {}).unwrap());
        let peak = live();
        reactor.sleep_blocking(ms(1)).unwrap();
        if embedded {
            sim.advance(ms(1_000));
            turn(&reactor);
        } else {
            reactor.sleep_blocking(ms(1_000)).unwrap();
            post_from_elsewhere(&remote, 3, &done, || {});
            turn(&reactor);
            assert_eq!(done.load(Ordering::Relaxed), 3);
        }
        assert_freed(before, peak, "posts");
    }
}

/// Makes sources whose memory stays large when they are dropped.
type Make = fn(&Reactor, u64) -> Box<dyn std::any::Any>;

const SOURCES: [(&str, Make); 6] = [
    ("timers", |reactor, n| {
        let due = |n| HOUR + Duration::from_nanos(n * 2_654_435_761 % 1_000_003);
        Box::new((0..n).map(|n| reactor.after(due(n))).collect::<Vec<_>>())
    }),
    ("stopped timers", |reactor, n| {
        let timers: Vec<_> = (0..n).map(|_| reactor.after(HOUR)).collect();
        for timer in &timers {
            timer.stop();
        }
        Box::new(timers)
    }),
    ("tickers", |reactor, n| {
        Box::new((0..n).map(|_| reactor.every(HOUR).unwrap()).collect::<Vec<_>>())
    }),
    ("timers that have fired", |reactor, n| {
        let timers: Vec<_> = (0..n).map(|_| reactor.after(Duration::ZERO)).collect();
        reactor.sleep_blocking(ms(1)).unwrap();
        Box::new(timers)
    }),
    ("callbacks", |reactor, n| {
        Box::new((0..n).map(|_| reactor.call_after(HOUR, |_| {})).collect::<Vec<_>>())
    }),
    ("inboxes", |reactor, n| {
        let pairs = (0..n / 8).map(|_| reactor.channel::<u8>(1).unwrap());
        Box::new(pairs.collect::<Vec<_>>())
    }),
];

/// Lets virtual time pass while the reactor turns, in one of three ways.
type Passage = fn(&Sim, &Reactor);

const PASSAGES: [(&str, Passage); 3] = [
    ("sleeps", |_, reactor| {
        (0..30).for_each(|_| reactor.sleep_blocking(ms(100)).unwrap());
    }),
    ("a sleep and some turns", |_, reactor| {
        turn(reactor);
        reactor.sleep_blocking(ms(1_000)).unwrap();
        (0..20).for_each(|_| turn(reactor));
    }),
    ("turns", |sim, reactor| {
        for _ in 0..30 {
            turn(reactor);
            sim.advance(ms(100));
        }
    }),
];

#[test]
fn the_memory_of_dropped_sources_shrinks() {
    alone!();
    for (name, make) in SOURCES {
        for (way, let_time_pass) in PASSAGES {
            let (sim, reactor) = simulated();
            let kept = reactor.after(HOUR * 2);
            let before = live();
            let sources = make(&reactor, support::rounds(3 * BURST / 8));
            let peak = live();
            drop(sources);
            let_time_pass(&sim, &reactor);
            assert_freed_down_to(RETAINED_OF_SOURCES, before, peak, &format!("{name}, {way}"));
            // New sources work as before.
            let again = make(&reactor, 1_000);
            assert_eq!(reactor.stats().live, if name == "inboxes" { 126 } else { 1_001 });
            drop((again, kept));
        }
    }
}

#[test]
fn the_timer_queue_shrinks_when_timers_have_fired() {
    alone!();
    for (way, let_time_pass) in PASSAGES {
        let (sim, reactor) = simulated();
        let timers: Vec<_> = (0..BURST).map(|n| reactor.after(ms(n % 7))).collect();
        let peak = live();
        reactor.sleep_blocking(ms(10)).unwrap();
        assert!(timers.iter().all(|timer| timer.try_take().is_some()));
        let_time_pass(&sim, &reactor);
        // An entry has 12 bytes, and the queue keeps 64 KiB.
        let freed = peak - live();
        assert!(freed > 12 * BURST as isize - RETAINED, "{way}: only {freed} bytes were freed");
        for timer in &timers {
            timer.reset(ms(1));
        }
        reactor.sleep_blocking(ms(1)).unwrap();
        assert!(timers.iter().all(|timer| timer.try_take().is_some()));
    }
}

#[test]
fn live_sources_survive_the_shrinking_of_others() {
    alone!();
    let (sim, reactor) = simulated();
    let mut timers: Vec<_> =
        (0..BURST).map(|n| Some(reactor.after(ms(3_000 + n % 1_000)))).collect();
    let ids: Vec<TimerId> = timers.iter().flatten().map(|timer| timer.id()).collect();
    let kept = |n: usize| n % 20_000 == 7;
    (0..timers.len()).filter(|&n| !kept(n)).for_each(|n| timers[n] = None);
    (0..20).for_each(|_| {
        sim.advance(ms(100));
        turn(&reactor);
    });
    let before = reactor.sources().len();
    assert_eq!(before, timers.iter().flatten().count());
    // New timers take the slots of dropped timers, and never their ids.
    let new: Vec<_> = (0..BURST).map(|_| reactor.after(HOUR)).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(reactor.is_live(*id), kept(n), "{n}");
    }
    assert!(new.iter().all(|timer| reactor.is_live(timer.id())));
    reactor.sleep_blocking(ms(2_500)).unwrap();
    for (n, timer) in timers.iter().enumerate() {
        let due = timer.as_ref().map(|timer| timer.try_take());
        assert_eq!(due, kept(n).then(|| Some(at(3_000 + n as u64 % 1_000))));
    }
}

#[test]
fn sources_of_frequent_bursts_keep_their_memory() {
    alone!();
    let (sim, reactor) = simulated();
    let mut timers = Vec::with_capacity(BURST as usize);
    let burst = |n: u64| {
        timers.extend((0..n).map(|_| reactor.after(HOUR)));
        timers.clear();
        turn(&reactor);
    };
    keeps_memory(&sim, 10, burst);
}

#[test]
fn a_real_reactor_frees_burst_memory() {
    alone!();
    let reactor = support::reactor();
    let (remote, (tx, rx)) = (reactor.remote(), channel::unbounded::<u64>());
    let inbox = reactor.register(rx).unwrap();
    let before = live();
    let timers: Vec<_> = (0..BURST).map(|_| reactor.after(HOUR)).collect();
    (0..BURST).for_each(|n| tx.send(n).unwrap());
    (0..BURST).for_each(|_| remote.post(|_| {}).unwrap());
    let peak = live();
    drop(timers);
    (0..BURST).for_each(|_| select! { reactor; recv(inbox) -> n => assert!(n.is_ok()) });
    reactor.sleep_blocking(ms(1)).unwrap();
    let ticker = reactor.every(ms(200)).unwrap();
    for n in 0..12 {
        remote.post(|_| {}).unwrap();
        select! { reactor;
            recv(inbox) -> n => assert!(n.is_ok()),
            recv(ticker) -> _ => tx.send(n).unwrap(),
        }
    }
    assert_freed_down_to(RETAINED_OF_SOURCES, before, peak, "a select loop");
}

/// Prints the durations of turns under floods. Run this measurement with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_turns_under_floods() {
    alone!();
    let reactor = support::reactor();
    let id_of = reactor.after(HOUR);
    let (remote, id) = (reactor.remote(), id_of.id());
    for _ in 0..2_000 {
        let again = |cx: &pollmux::CallbackContext<'_>| {
            cx.reset(Duration::ZERO);
        };
        reactor.call_after(Duration::ZERO, again).detach();
    }
    let pairs: Vec<_> = (0..200).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
    let fds: Vec<_> = pairs
        .iter()
        .map(|(fd, _)| reactor.fd_nonblocking(fd, Interest::WRITABLE).unwrap())
        .collect();
    let over = AtomicU64::new(0);
    let mut turns = Vec::new();
    let begin = std::time::Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while over.load(Ordering::Relaxed) == 0 {
                let _ = remote.try_post(|_| {});
                let _ = remote.reset(id, HOUR);
            }
        });
        let mut events = Events::with_capacity(64);
        while begin.elapsed() < Duration::from_secs(1) {
            let start = std::time::Instant::now();
            reactor.try_wait(&mut events).unwrap();
            turns.push(start.elapsed());
        }
        over.store(1, Ordering::Relaxed);
    });
    drop(fds);
    turns.sort_unstable();
    let part = |n: usize| turns[(turns.len() - 1) * n / 1_000];
    println!(
        "{} turns: median {:?}, p99 {:?}, p99.9 {:?}",
        turns.len(),
        part(500),
        part(990),
        part(999)
    );
    println!("longest {:?}; {}", part(1_000), reactor.stats());
    let (asked, mut count) = (std::time::Instant::now(), 0);
    let bytes = growth(|| {
        while asked.elapsed() < Duration::from_secs(2) {
            (0..1_000).for_each(|_| remote.reset(id, HOUR).unwrap());
            count += 1_000;
        }
    });
    let start = std::time::Instant::now();
    turn(&reactor);
    println!(
        "{count} resets of one timer: {bytes} bytes more; the turn after it {:?}",
        start.elapsed()
    );
}
