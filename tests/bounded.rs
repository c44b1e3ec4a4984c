//! Memory and turns are bounded, whatever other threads ask of a reactor.
#![allow(unsafe_code)] // A counting allocator.

#[path = "common/time.rs"]
mod time;
#[path = "common/watch.rs"]
mod watch;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pollmux::{Handle, Time, TimerId, never, select};

use self::time::{at, ms, simulated};
use self::watch::dog;

const HOUR: Duration = Duration::from_secs(3600);

/// Counts the bytes that are allocated.
struct Live;

static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is the system allocator's, with the arguments that it was given.
unsafe impl GlobalAlloc for Live {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Live = Live;

/// One test at a time: the bytes are those of the process.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that `f` leaves allocated.
fn growth(f: impl FnOnce()) -> isize {
    let before = BYTES.load(Ordering::Relaxed);
    f();
    BYTES.load(Ordering::Relaxed) - before
}

/// A turn that finds nothing and does not wait.
fn turn(reactor: &Handle) {
    select! { reactor; recv(never::<()>()) -> _ => unreachable!(), default => {} }
}

/// Generous beside what one request takes.
const FLAT: isize = 64 << 10;

#[test]
fn requests_for_one_timer_coalesce() {
    let _alone = alone();
    let (_sim, reactor) = simulated();
    let timer = reactor.after(HOUR);
    let (remote, id) = (reactor.remote(), timer.id());
    let asked = growth(|| {
        for n in 0..200_000 {
            remote.reset(id, HOUR + ms(n)).unwrap();
            remote.stop(id).unwrap();
        }
        remote.reset(id, HOUR * 2).unwrap();
    });
    assert!(asked < FLAT, "{asked} bytes");
    turn(&reactor);
    assert_eq!(timer.deadline(), Some(reactor.now() + HOUR * 2));
}

#[test]
fn requests_of_many_threads_coalesce() {
    let (_alone, _dog) = (alone(), dog());
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
    assert!(asked < FLAT, "{asked} bytes");
}

#[test]
fn requests_are_done_while_other_threads_ask() {
    let (_alone, _dog) = (alone(), dog());
    let (sim, reactor) = simulated();
    let timers: Vec<_> = (0..3).map(|_| reactor.after(HOUR)).collect();
    let ids: Vec<TimerId> = timers.iter().map(|timer| timer.id()).collect();
    let remote = reactor.remote();
    let turned = AtomicU64::new(0);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|thread| {
                let (ids, remote, turned) = (&ids, &remote, &turned);
                // The last request of each thread is for a timer that nobody else asks about.
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
    // Each thread's own reset was the last one, or another thread's stop came after it.
    let deadlines: Vec<Option<Time>> = timers.iter().map(|timer| timer.deadline()).collect();
    assert!(deadlines.iter().enumerate().all(|(n, due)| due.is_none_or(|due| due == at(n as u64 + 1))));
}

#[test]
fn requests_for_dead_timers_of_one_slot_coalesce() {
    const ALL: u64 = 100_000;
    let _alone = alone();
    let (_sim, reactor) = simulated();
    let remote = reactor.remote();
    reactor.after(HOUR).id(); // the memory of a slot
    let asked = growth(|| {
        for n in 0..ALL {
            let timer = reactor.after(HOUR);
            let id = timer.id();
            drop(timer);
            if n % 2 == 0 { remote.stop(id).unwrap() } else { remote.reset(id, HOUR).unwrap() }
        }
    });
    assert!(asked < FLAT, "{asked} bytes");
    let live = reactor.after(HOUR);
    remote.stop(live.id()).unwrap();
    turn(&reactor);
    assert_eq!(reactor.stats().stale, ALL, "each request for a dropped timer counts");
    assert_eq!(live.deadline(), None);
}

#[test]
fn a_coalesced_stop_keeps_the_period_before_it() {
    let _alone = alone();
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    let (remote, id) = (reactor.remote(), ticker.id());
    remote.reset(id, ms(3)).unwrap();
    remote.stop(id).unwrap();
    turn(&reactor);
    assert_eq!(ticker.deadline(), None);
    assert_eq!(ticker.period(), ms(3));
    // And a stop alone leaves it.
    remote.stop(id).unwrap();
    remote.stop(id).unwrap();
    turn(&reactor);
    assert_eq!(ticker.period(), ms(3));
    ticker.restart();
    sim.advance(ms(3));
    assert!(reactor.try_recv(&ticker).unwrap().is_some());
}

#[test]
fn requests_keep_their_order_with_closures_of_their_thread() {
    let _alone = alone();
    let (_sim, reactor) = simulated();
    let timer = reactor.after(HOUR);
    let (remote, id) = (reactor.remote(), timer.id());
    let seen: Arc<Mutex<Vec<Option<u64>>>> = Arc::default();
    let look = move |handle: &Handle, seen: &Arc<Mutex<Vec<Option<u64>>>>| {
        let info = handle.sources().iter().find(|info| info.id == Some(id)).and_then(|info| info.deadline);
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
    let _alone = alone();
    let (sim, reactor) = simulated();
    let called = std::rc::Rc::new(Cell::new(0));
    let count = called.clone();
    let callback = reactor.call_after(HOUR, move |_| count.set(count.get() + 1));
    let (remote, id) = (reactor.remote(), callback.id());
    callback.detach();
    remote.stop(id).unwrap();
    remote.reset(id, ms(1)).unwrap();
    turn(&reactor);
    assert!(!reactor.is_live(id), "the stop came first");
    sim.advance(ms(2));
    turn(&reactor);
    assert_eq!((called.get(), reactor.stats().stale), (0, 1));
}

#[test]
fn requests_after_the_reactors_drop_say_so() {
    let _alone = alone();
    let (_sim, reactor) = simulated();
    let timer = reactor.after(HOUR);
    let (remote, id) = (reactor.remote(), timer.id());
    remote.reset(id, HOUR).unwrap();
    drop(reactor);
    assert_eq!(remote.reset(id, HOUR), Err(pollmux::TimerError::Dead));
    assert_eq!(remote.stop(id), Err(pollmux::TimerError::Dead));
}
