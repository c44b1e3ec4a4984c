//! `pollmux::sys`: both backends pass the same tests. The kernel keeps the time, so time is real.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pollmux::Time;
use pollmux::sys::{
    BootTime, Expiry, Interest, Mode, PollEvent, PollEvents, Poller, PollerTimer, ProcessFd,
    TimerClock, TimerFd, Waker,
};
use support::{ms, no_new_processes, pair, spawn, watchdog};

const MODES: [Mode; 3] = [Mode::Edge, Mode::Level, Mode::OneShot];
const FAR: Duration = Duration::from_secs(3600);

/// The events that one wait finds, in the order of their ids.
fn wait(poller: &Poller, timeout: Option<Duration>) -> Vec<PollEvent> {
    let mut events = PollEvents::with_capacity(16);
    poller.wait(&mut events, timeout).unwrap();
    let mut found: Vec<_> = events.iter().collect();
    assert_eq!((found.len(), found.is_empty()), (events.len(), events.is_empty()));
    found.sort_by_key(|event| event.id());
    found
}

/// The events that are pending now.
fn poll(poller: &Poller) -> Vec<PollEvent> {
    wait(poller, Some(Duration::ZERO))
}

/// A poller with a timer whose id is 5, and room for events.
fn timed() -> (Poller, PollerTimer, PollEvents) {
    let poller = Poller::new().unwrap();
    let timer = PollerTimer::new(&poller, 5).unwrap();
    (poller, timer, PollEvents::with_capacity(4))
}

fn ids(events: &[PollEvent]) -> Vec<u64> {
    events.iter().map(|event| event.id()).collect()
}

/// The flags of an event: readable, writable, error, hang-up.
fn flags(event: &PollEvent) -> [bool; 4] {
    [event.is_readable(), event.is_writable(), event.is_error(), event.is_hang_up()]
}

/// The flags of the only pending event.
fn only_flags(poller: &Poller) -> [bool; 4] {
    let events = poll(poller);
    assert_eq!(events.len(), 1, "{events:?}");
    flags(&events[0])
}

/// Writes until there is no room.
fn fill(mut to: &UnixStream) {
    while to.write(&[0; 4096]).is_ok() {}
}

fn drain(mut from: &UnixStream) {
    while from.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {}
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

// Fds.

#[test]
fn an_fd_can_be_registered_once() {
    let poller = Poller::new().unwrap();
    let (a, _b) = pair();
    for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH, Interest::NONE] {
        for mode in MODES {
            assert_eq!(errno(poller.modify(&a, 1, interest, mode)), Some(libc::ENOENT));
            assert_eq!(errno(poller.deregister(&a)), Some(libc::ENOENT));
            poller.register(&a, 1, interest, mode).unwrap();
            for again in [Interest::READABLE, Interest::WRITABLE] {
                assert_eq!(errno(poller.register(&a, 2, again, mode)), Some(libc::EEXIST));
            }
            // The failed calls have changed nothing.
            let expected: &[u64] = if interest.is_writable() { &[1] } else { &[] };
            assert_eq!(ids(&poll(&poller)), expected, "{interest:?} {mode:?}");
            poller.deregister(&a).unwrap();
        }
    }
    assert!(poll(&poller).is_empty());
}

#[test]
fn a_reused_fd_number_can_be_registered() {
    let _alone = no_new_processes();
    let poller = Poller::new().unwrap();
    for n in 0..10 {
        let (mut a, b) = pair();
        poller.register(&b, n, Interest::BOTH, MODES[n as usize % 3]).unwrap();
        a.write_all(b"x").unwrap();
        if n % 2 == 0 {
            assert_eq!(ids(&poll(&poller)), [n]);
        }
        // The fd is closed without `deregister`, against the rules. The next pair most likely gets
        // the same numbers.
        #[cfg(flat)]
        poller.deregister(&b).unwrap(); // libkqueue does not notice a closed fd
        drop((a, b));
        assert!(poll(&poller).is_empty());
    }
}

#[test]
fn every_id_is_reported_unchanged() {
    let _watchdog = watchdog();
    let poller = Poller::new().unwrap();
    let (a, _b) = pair();
    poller.register(&a, 0, Interest::NONE, Mode::OneShot).unwrap();
    for id in [0, 1, u64::from(u32::MAX), 1 << 32, 0x0123_4567_89ab_cdef, u64::MAX - 1, u64::MAX] {
        let (timer, waker) =
            (PollerTimer::new(&poller, id).unwrap(), Waker::new(&poller, id).unwrap());
        timer.arm(Time::ZERO).unwrap();
        waker.wake().unwrap();
        // The timer's interrupt delivers a past deadline too, a moment later.
        let mut events = PollEvents::with_capacity(4);
        poller.modify(&a, id, Interest::WRITABLE, Mode::OneShot).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            poller.wait(&mut events, Some(FAR)).unwrap();
            seen.extend(events.iter().map(|event| event.id()));
        }
        assert_eq!(seen, [id; 3]);
    }
}

#[test]
fn each_mode_reports_readiness_as_documented() {
    for mode in MODES {
        let poller = Poller::new().unwrap();
        let (mut a, b) = pair();
        poller.register(&b, 1, Interest::READABLE, mode).unwrap();
        assert!(poll(&poller).is_empty());
        let mut seen = Vec::new();
        for round in 0..3 {
            a.write_all(b"x").unwrap();
            seen.push(poll(&poller).len());
            seen.push(poll(&poller).len());
            if round == 1 {
                poller.modify(&b, 1, Interest::READABLE, mode).unwrap();
                seen.push(poll(&poller).len());
                seen.push(poll(&poller).len());
            }
        }
        let expected = match mode {
            Mode::Edge => [1, 0, 1, 0, 1, 0, 1, 0],
            Mode::Level => [1; 8],
            _ => [1, 0, 0, 0, 1, 0, 0, 0], // one-shot
        };
        assert_eq!(seen, expected, "{mode:?}");
        drain(&b);
        assert!(poll(&poller).is_empty());
    }
}

#[test]
fn new_room_to_write_is_reported_again() {
    for mode in [Mode::Edge, Mode::Level] {
        let poller = Poller::new().unwrap();
        let (a, b) = pair();
        poller.register(&a, 1, Interest::WRITABLE, mode).unwrap();
        for _ in 0..3 {
            assert_eq!(only_flags(&poller), [false, true, false, false]);
            fill(&a);
            assert!(poll(&poller).is_empty(), "{mode:?}");
            drain(&b);
        }
    }
}

#[test]
fn readable_and_writable_make_one_event() {
    for mode in MODES {
        let poller = Poller::new().unwrap();
        let ((mut a, b), (mut c, d)) = (pair(), pair());
        poller.register(&b, 1, Interest::BOTH, mode).unwrap();
        poller.register(&d, 2, Interest::BOTH, mode).unwrap();
        a.write_all(b"x").unwrap();
        c.write_all(b"x").unwrap();
        let events = poll(&poller);
        assert_eq!(ids(&events), [1, 2]);
        assert!(
            events.iter().all(|event| flags(event) == [true, true, false, false]),
            "{mode:?}: {events:?}"
        );
        assert_eq!(poll(&poller).len(), if mode == Mode::Level { 2 } else { 0 });
    }
}

#[test]
fn a_one_shot_ends_for_both_directions() {
    let poller = Poller::new().unwrap();
    let (mut a, b) = pair();
    fill(&b);
    // First the fd becomes readable alone, then writable alone.
    poller.register(&b, 1, Interest::BOTH, Mode::OneShot).unwrap();
    a.write_all(b"x").unwrap();
    assert_eq!(only_flags(&poller), [true, false, false, false]);
    drain(&a);
    assert!(poll(&poller).is_empty(), "a one-shot that fired reports room");
    drain(&b);
    poller.modify(&b, 1, Interest::BOTH, Mode::OneShot).unwrap();
    assert_eq!(only_flags(&poller), [false, true, false, false]);
    a.write_all(b"x").unwrap();
    assert!(poll(&poller).is_empty());
    poller.modify(&b, 1, Interest::BOTH, Mode::OneShot).unwrap();
    assert_eq!(only_flags(&poller), [true, true, false, false]);
}

#[test]
fn a_fired_one_shot_leaves_other_events_alone() {
    for mode in [Mode::Edge, Mode::Level] {
        for interest in [Interest::READABLE, Interest::BOTH] {
            let poller = Poller::new().unwrap();
            let ((mut a, b), (mut c, d)) = (pair(), pair());
            fill(&b);
            fill(&d);
            poller.register(&b, 1, Interest::BOTH, Mode::OneShot).unwrap();
            poller.register(&d, 2, interest, mode).unwrap();
            a.write_all(b"x").unwrap();
            c.write_all(b"x").unwrap();
            assert_eq!(ids(&poll(&poller)), [1, 2], "{mode:?} {interest:?}");
            drain(&d);
            drain(&c);
            let writable = [2].into_iter().filter(|_| interest.is_writable());
            assert_eq!(ids(&poll(&poller)), writable.collect::<Vec<_>>(), "{mode:?} {interest:?}");
        }
    }
}

#[test]
#[cfg_attr(flat, ignore = "libkqueue does not notice a closed fd")]
fn a_reused_fd_number_is_not_registered() {
    let _alone = no_new_processes();
    let poller = Poller::new().unwrap();
    for former in [Interest::READABLE, Interest::BOTH] {
        let (a, b) = pair();
        poller.register(&b, 1, former, Mode::Edge).unwrap();
        let number = b.as_raw_fd();
        drop((a, b));
        let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
        let Some((other, same)) = pairs
            .iter()
            .flat_map(|(a, b)| [(a, b), (b, a)])
            .find(|(_, same)| same.as_raw_fd() == number)
        else {
            continue; // another test has the number
        };
        assert_eq!(errno(poller.modify(same, 2, Interest::BOTH, Mode::Level)), Some(libc::ENOENT));
        drain(same);
        { other }.write_all(b"x").unwrap();
        assert!(poll(&poller).is_empty());
        assert_eq!(errno(poller.deregister(same)), Some(libc::ENOENT));
        poller.register(same, 3, Interest::READABLE, Mode::Level).unwrap();
        assert_eq!(ids(&poll(&poller)), [3]);
        poller.deregister(same).unwrap();
    }
}

#[test]
fn modify_replaces_interest_mode_and_id() {
    let poller = Poller::new().unwrap();
    let (mut a, b) = pair();
    a.write_all(b"x").unwrap();
    poller.register(&b, 1, Interest::NONE, Mode::Level).unwrap();
    assert!(poll(&poller).is_empty());
    for former in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH, Interest::NONE] {
        for former_mode in MODES {
            for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
                for mode in MODES {
                    poller.modify(&b, 1, former, former_mode).unwrap();
                    let _ = poll(&poller);
                    poller.modify(&b, 2, interest, mode).unwrap();
                    for n in 0..2 {
                        let events = poll(&poller);
                        if n == 1 && mode != Mode::Level {
                            assert!(events.is_empty());
                            continue;
                        }
                        assert_eq!(ids(&events), [2]);
                        let expected =
                            [interest.is_readable(), interest.is_writable(), false, false];
                        assert_eq!(flags(&events[0]), expected, "{former_mode:?} to {mode:?}");
                    }
                }
            }
        }
    }
    poller.modify(&b, 1, Interest::NONE, Mode::Level).unwrap();
    assert!(poll(&poller).is_empty());
    poller.deregister(&b).unwrap();
}

#[test]
fn end_of_file_is_a_hang_up() {
    for mode in MODES {
        let poller = Poller::new().unwrap();
        let (a, b) = pair();
        poller.register(&b, 1, Interest::READABLE, mode).unwrap();
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(only_flags(&poller), [true, false, false, true], "{mode:?}");
        poller.modify(&b, 1, Interest::BOTH, mode).unwrap();
        assert_eq!(only_flags(&poller), [true, true, false, true], "{mode:?}");
        a.shutdown(Shutdown::Both).unwrap();
        poller.modify(&b, 1, Interest::WRITABLE, mode).unwrap();
        assert_eq!(only_flags(&poller), [true, true, false, true], "{mode:?}");
    }
}

#[test]
fn a_deregistered_fd_is_silent() {
    let poller = Poller::new().unwrap();
    let (mut a, b) = pair();
    for mode in MODES {
        a.write_all(b"x").unwrap();
        poller.register(&b, 1, Interest::BOTH, mode).unwrap();
        poller.deregister(&b).unwrap();
        assert!(poll(&poller).is_empty());
    }
}

#[test]
fn a_small_buffer_gets_the_rest_later() {
    let poller = Poller::new().unwrap();
    let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
    for (n, (a, _)) in pairs.iter().enumerate() {
        poller.register(a, n as u64, Interest::WRITABLE, Mode::Edge).unwrap();
    }
    let mut events = PollEvents::with_capacity(3);
    let mut seen = Vec::new();
    for expected in [3, 3, 3, 1, 0] {
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), expected);
        seen.extend(events.iter().map(|event| event.id()));
    }
    seen.sort();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    // A capacity of zero counts as one.
    let waker = Waker::new(&poller, 11).unwrap();
    waker.wake().unwrap();
    let mut events = PollEvents::with_capacity(0);
    poller.wait(&mut events, None).unwrap();
    assert_eq!(events.len(), 1);
}

// Waits.

#[test]
fn a_timeout_is_never_early() {
    let poller = Poller::new().unwrap();
    let waker = Waker::new(&poller, 1).unwrap();
    let mut events = PollEvents::with_capacity(4);
    waker.wake().unwrap();
    poller.wait(&mut events, Some(FAR)).unwrap();
    assert_eq!(events.len(), 1);
    for timeout in [1, 999, 1_000, 1_001, 1_500_000, 3_000_000].map(Duration::from_nanos) {
        let start = Time::now();
        poller.wait(&mut events, Some(timeout)).unwrap();
        assert!(Time::now() - start >= timeout);
        assert!(events.is_empty());
    }
    // The longest timeout waits for ever.
    waker.wake().unwrap();
    poller.wait(&mut events, Some(Duration::MAX)).unwrap();
    assert_eq!(events.len(), 1);
}

#[test]
#[cfg_attr(flat, ignore = "libkqueue before 2.7 blocks changes during a wait")]
fn registering_from_another_thread_ends_a_wait() {
    let _watchdog = watchdog();
    let poller = Poller::new().unwrap();
    let timer = PollerTimer::new(&poller, 2).unwrap();
    let (a, _b) = pair();
    thread::scope(|scope| {
        for n in 0..3 {
            let waiting = scope.spawn(|| {
                let mut events = PollEvents::with_capacity(4);
                poller.wait(&mut events, None).unwrap();
                events.iter().map(|event| event.id()).collect::<Vec<_>>()
            });
            thread::sleep(ms(5)); // the other thread waits by then
            match n {
                0 => poller.register(&a, 1, Interest::WRITABLE, Mode::OneShot).unwrap(),
                1 => timer.arm(Time::now() + ms(1)).unwrap(),
                _ => poller.modify(&a, 3, Interest::WRITABLE, Mode::OneShot).unwrap(),
            }
            assert_eq!(waiting.join().unwrap(), [[1], [2], [3]][n]);
        }
    });
}

#[test]
#[cfg_attr(flat, ignore = "libkqueue before 2.7 blocks changes during a wait")]
fn many_threads_may_change_a_poller_during_waits() {
    let _watchdog = watchdog();
    const ROUNDS: u64 = 2_000;
    let poller = Poller::new().unwrap();
    let waker = Waker::new(&poller, 0).unwrap();
    let (wakes, stop) = (AtomicU64::new(0), Waker::new(&poller, 9).unwrap());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut events = PollEvents::with_capacity(4);
            loop {
                poller.wait(&mut events, None).unwrap();
                for event in events.iter() {
                    match event.id() {
                        0 => drop(wakes.fetch_add(1, Ordering::SeqCst)),
                        9 => return,
                        id => assert!((1..=3).contains(&id)),
                    }
                }
            }
        });
        for id in 1..=2 {
            let poller = &poller;
            scope.spawn(move || {
                let (mut a, b) = pair();
                for n in 0..ROUNDS / 4 {
                    poller.register(&b, id, Interest::BOTH, MODES[n as usize % 3]).unwrap();
                    a.write_all(b"x").unwrap();
                    poller.modify(&b, id, Interest::READABLE, Mode::Edge).unwrap();
                    drain(&b);
                    poller.deregister(&b).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for n in 0..ROUNDS {
                let timer = PollerTimer::new(&poller, 3).unwrap();
                timer.arm(Time::now() + Duration::from_micros(n % 40)).unwrap();
                if n % 2 == 0 {
                    timer.arm(Time::now() + Duration::from_micros(n % 20)).unwrap();
                }
            }
        });
        for n in 1..=ROUNDS {
            waker.wake().unwrap();
            while wakes.load(Ordering::SeqCst) < n {
                thread::yield_now();
            }
        }
        stop.wake().unwrap();
        waiting.join().unwrap();
        assert_eq!(wakes.load(Ordering::SeqCst), ROUNDS, "each wake-up arrives once");
    });
}

// Timers.

#[test]
fn a_timer_fires_once_and_never_early() {
    let (poller, timer, mut events) = timed();
    for after in
        [0, 1, 1_000, 50_000, 999_999, 1_000_000, 1_000_001, 3_500_000].map(Duration::from_nanos)
    {
        for together in [false, true] {
            let deadline = Time::now() + after;
            if together {
                poller.arm_and_wait(&timer, deadline, &mut events, None).unwrap();
            } else {
                timer.arm(deadline).unwrap();
                poller.wait(&mut events, None).unwrap();
            }
            assert!(Time::now() >= deadline);
            assert_eq!(ids(&events.iter().collect::<Vec<_>>()), [5]);
            assert_eq!(flags(&events.iter().next().unwrap()), [true, false, false, false]);
            assert!(poll(&poller).is_empty());
        }
    }
}

#[test]
fn a_past_deadline_is_due_at_once() {
    let (poller, timer, mut events) = timed();
    for deadline in [Time::ZERO, Time::from_nanos(1), Time::now() - ms(5), Time::now()] {
        poller.arm_and_wait(&timer, deadline, &mut events, Some(FAR)).unwrap();
        assert_eq!(events.len(), 1);
    }
}

#[test]
fn a_new_arm_replaces_deadline_and_expiry() {
    let (poller, timer, mut events) = timed();
    for later in [Time::now() + FAR, Time::from_nanos(u64::MAX - 1), Time::MAX] {
        timer.arm(Time::now() + ms(1)).unwrap();
        timer.arm(later).unwrap();
        poller.wait(&mut events, Some(ms(3))).unwrap();
        assert!(events.is_empty());
        timer.arm(Time::ZERO).unwrap();
        thread::sleep(ms(2)); // the timer is due
        timer.arm(later).unwrap();
        assert!(poll(&poller).is_empty());
        let earlier = Time::now() + ms(1);
        timer.arm(earlier).unwrap();
        poller.wait(&mut events, Some(FAR)).unwrap();
        assert!(Time::now() >= earlier && events.len() == 1);
    }
}

#[test]
fn a_disarmed_timer_is_silent() {
    let (poller, timer, mut events) = timed();
    for due in [false, true] {
        timer.disarm().unwrap(); // the timer is not armed
        timer.arm(Time::now() + if due { Duration::ZERO } else { ms(2) }).unwrap();
        if due {
            thread::sleep(ms(2));
        }
        timer.disarm().unwrap();
        thread::sleep(ms(3)); // an armed timer would be due
        assert!(poll(&poller).is_empty());
        timer.disarm().unwrap();
    }
    // `Time::MAX` arms no timer.
    poller.arm_and_wait(&timer, Time::MAX, &mut events, Some(ms(2))).unwrap();
    assert!(events.is_empty());
}

#[test]
fn a_dropped_timer_never_fires() {
    let _alone = no_new_processes();
    let poller = Poller::new().unwrap();
    let kept = PollerTimer::new(&poller, 1).unwrap();
    kept.arm(Time::now() + ms(3)).unwrap();
    for n in 0..10 {
        let timer = PollerTimer::new(&poller, 2).unwrap();
        timer.arm(Time::ZERO).unwrap();
        if n % 2 == 0 {
            thread::sleep(Duration::from_micros(200)); // the timer is due
        }
        drop(timer);
        let new = PollerTimer::new(&poller, 3).unwrap();
        assert!(ids(&poll(&poller)).iter().all(|&id| id == 1), "the dropped timer's expiry came");
        drop(new);
    }
    // On a slow machine the first poll may have taken the expiry.
    kept.arm(Time::now() + ms(1)).unwrap();
    assert_eq!(ids(&wait(&poller, Some(FAR))), [1]);
}

#[test]
fn each_timer_of_a_poller_has_its_event() {
    let poller = Poller::new().unwrap();
    let timers: Vec<_> = (0..8).map(|id| PollerTimer::new(&poller, id).unwrap()).collect();
    let start = Time::now();
    for (n, timer) in timers.iter().enumerate() {
        timer.arm(start + ms(2 * (8 - n as u64))).unwrap();
    }
    timers[3].disarm().unwrap();
    let mut events = PollEvents::with_capacity(4);
    let mut seen = Vec::new();
    while seen.len() < 7 {
        poller.wait(&mut events, Some(FAR)).unwrap();
        for event in events.iter() {
            assert!(Time::now() >= start + ms(2 * (8 - event.id())));
            seen.push(event.id());
        }
    }
    seen.sort();
    assert_eq!(seen, [0, 1, 2, 4, 5, 6, 7]);
}

#[test]
fn arm_and_wait_arms_on_the_timers_poller() {
    let _watchdog = watchdog();
    let (here, there) = (Poller::new().unwrap(), Poller::new().unwrap());
    let timer = PollerTimer::new(&there, 5).unwrap();
    let mut events = PollEvents::with_capacity(4);
    here.arm_and_wait(&timer, Time::now() + ms(1), &mut events, Some(ms(3))).unwrap();
    assert!(events.is_empty());
    assert_eq!(ids(&wait(&there, Some(FAR))), [5]);
}

#[test]
fn timer_stays_armed_after_arm_and_wait_ends() {
    let _watchdog = watchdog();
    let poller = Poller::new().unwrap();
    let (timer, waker) = (PollerTimer::new(&poller, 5).unwrap(), Waker::new(&poller, 6).unwrap());
    let mut events = PollEvents::with_capacity(4);
    waker.wake().unwrap();
    poller.arm_and_wait(&timer, Time::now() + FAR, &mut events, None).unwrap();
    assert_eq!(ids(&events.iter().collect::<Vec<_>>()), [6]);
    let deadline = Time::now() + ms(10);
    waker.wake().unwrap();
    poller.arm_and_wait(&timer, deadline, &mut events, None).unwrap();
    let mut seen = ids(&events.iter().collect::<Vec<_>>());
    assert!(seen.contains(&6));
    while seen.len() < 2 {
        poller.wait(&mut events, None).unwrap();
        seen.extend(events.iter().map(|event| event.id()));
    }
    seen.sort();
    assert_eq!(seen, [5, 6]);
    assert!(Time::now() >= deadline);
    // A timeout ends the wait as well.
    poller.arm_and_wait(&timer, Time::now() + FAR, &mut events, Some(ms(1))).unwrap();
    assert!(events.is_empty());
}

// Wakers.

#[test]
fn wake_ups_of_one_waker_coalesce() {
    let poller = Poller::new().unwrap();
    let wakers = [
        Waker::new(&poller, 1).unwrap(),
        Waker::new(&poller, 2).unwrap(),
        Waker::new(&poller, 2).unwrap(),
    ];
    assert!(poll(&poller).is_empty());
    for _ in 0..3 {
        (0..5).for_each(|_| wakers.iter().for_each(|waker| waker.wake().unwrap()));
        assert_eq!(ids(&poll(&poller)), [1, 2, 2]);
        assert!(poll(&poller).is_empty());
        wakers[1].wake().unwrap();
        assert_eq!(ids(&poll(&poller)), [2]);
    }
}

#[test]
fn a_wake_ends_each_wait_of_another_thread() {
    let _watchdog = watchdog();
    let poller = Poller::new().unwrap();
    let waker = Waker::new(&poller, 1).unwrap();
    let (woken, wait) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut events = PollEvents::with_capacity(1);
            for n in 0..2_000 {
                poller.wait(&mut events, None).unwrap();
                woken.send((n, events.len())).unwrap();
            }
        });
        for n in 0..2_000 {
            waker.wake().unwrap();
            assert_eq!(wait.recv(), Ok((n, 1)));
        }
    });
}

#[test]
fn timer_and_waker_outlive_their_poller() {
    let poller = Poller::new().unwrap();
    let (timer, waker) = (PollerTimer::new(&poller, 1).unwrap(), Waker::new(&poller, 2).unwrap());
    drop(poller);
    let other = Poller::new().unwrap(); // may have the number of the dropped poller
    timer.arm(Time::ZERO).unwrap();
    waker.wake().unwrap();
    timer.disarm().unwrap();
    assert!(poll(&other).is_empty());
}

// Timers and processes as fds. On kqueue such an fd is a small kqueue.

fn wall_now() -> Time {
    Time::ZERO + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

/// The timer clocks that this system has, each with a function that reads the clock.
fn clocks() -> Vec<(TimerClock, fn() -> Time)> {
    let boot = || Time::from_nanos(BootTime::now().as_nanos());
    let all: [(TimerClock, fn() -> Time); 3] = [
        (TimerClock::Monotonic, Time::now),
        (TimerClock::Boottime, boot),
        (TimerClock::Wall, wall_now),
    ];
    all.into_iter()
        .filter(|&(clock, _)| match TimerFd::new(clock) {
            Ok(_) => true,
            Err(error) => {
                assert!(clock != TimerClock::Monotonic && cfg!(kqueue), "{clock:?}: {error}");
                assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                false
            }
        })
        .collect()
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn a_timer_fd_fires_once_and_never_early() {
    let _watchdog = watchdog();
    for (clock, now) in clocks() {
        let (poller, timer) = (Poller::new().unwrap(), TimerFd::new(clock).unwrap());
        poller.register(&timer, 7, Interest::READABLE, Mode::Edge).unwrap();
        for after in [0, 1, 50_000, 999_999, 1_000_001, 3_500_000].map(Duration::from_nanos) {
            let deadline = now() + after;
            timer.arm(deadline).unwrap();
            // A kernel with coarse timers may report too early. The read then arms again.
            loop {
                assert_eq!(ids(&wait(&poller, None)), [7]);
                match timer.read().unwrap() {
                    Expiry::Expired => break,
                    said => assert_eq!(said, Expiry::Pending, "{clock:?}"),
                }
            }
            assert!(now() >= deadline, "{clock:?}");
            assert_eq!(timer.read().unwrap(), Expiry::Pending);
            assert!(poll(&poller).is_empty());
        }
    }
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn an_unread_timer_fd_reports_its_next_expiry() {
    let _watchdog = watchdog();
    for (clock, now) in clocks() {
        let (poller, timer) = (Poller::new().unwrap(), TimerFd::new(clock).unwrap());
        poller.register(&timer, 7, Interest::READABLE, Mode::Edge).unwrap();
        let mut events = PollEvents::with_capacity(4);
        for deadline in [Time::ZERO, Time::from_nanos(1), now() - ms(5), now()] {
            timer.arm(deadline).unwrap();
            assert_eq!(wait(&poller, Some(FAR)).len(), 1, "{clock:?}");
        }
        // The timer is due, and unread. A later deadline takes the expiry away.
        for later in [now() + FAR, Time::MAX] {
            timer.arm(Time::ZERO).unwrap();
            thread::sleep(ms(2));
            timer.arm(later).unwrap();
            assert_eq!(
                (poll(&poller).len(), timer.read().unwrap()),
                (0, Expiry::Pending),
                "{clock:?}"
            );
        }
        timer.disarm().unwrap();
        timer.disarm().unwrap();
        timer.arm(now() + ms(1)).unwrap();
        timer.disarm().unwrap();
        poller.wait(&mut events, Some(ms(3))).unwrap();
        assert!(events.is_empty(), "{clock:?}");
        drop(timer);
        assert!(poll(&poller).is_empty());
    }
}

fn child(shell: &str) -> std::process::Child {
    spawn(std::process::Command::new("sh").args(["-c", shell]))
}

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn process_end_is_reported_whenever_it_ends() {
    let _watchdog = watchdog();
    let poller = Poller::new().unwrap();
    for ended in [false, true] {
        let mut running = child(if ended { "exit 3" } else { "sleep 0.02; exit 3" });
        if ended {
            thread::sleep(ms(50)); // by then the process has most likely ended and is a zombie
        }
        let end = ProcessFd::new(running.id()).unwrap();
        poller.register(&end, 9, Interest::READABLE, Mode::Level).unwrap();
        assert_eq!(ids(&wait(&poller, None)), [9]);
        assert_eq!(running.wait().unwrap().code(), Some(3));
        assert_eq!(ids(&poll(&poller)), [9], "the end of the process stays reported");
    }
}

#[test]
fn a_process_that_does_not_exist_is_refused() {
    let mut ended = child("exit 0");
    let pid = ended.id();
    ended.wait().unwrap();
    let error = ProcessFd::new(pid).unwrap_err();
    if cfg!(flat) {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    } else {
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}

// Nesting.

#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn a_poller_is_readable_while_it_has_events() {
    for mode in [Mode::Edge, Mode::Level] {
        let (inner, outer) = (Poller::new().unwrap(), Poller::new().unwrap());
        outer.register(&inner, 1, Interest::READABLE, mode).unwrap();
        let (timer, waker, (mut a, b)) =
            (PollerTimer::new(&inner, 1).unwrap(), Waker::new(&inner, 2).unwrap(), pair());
        inner.register(&b, 3, Interest::BOTH, Mode::OneShot).unwrap();
        poll(&inner);
        for n in 0..9 {
            assert!(poll(&outer).is_empty(), "{mode:?} {n}");
            match n % 3 {
                0 => timer.arm(Time::now() + ms(1)).unwrap(),
                1 => waker.wake().unwrap(),
                _ => {
                    a.write_all(b"x").unwrap();
                    inner.modify(&b, 3, Interest::READABLE, Mode::OneShot).unwrap();
                }
            }
            assert_eq!(ids(&wait(&outer, Some(FAR))), [1]);
            assert_eq!(poll(&outer).len(), usize::from(mode == Mode::Level));
            assert_eq!(ids(&poll(&inner)), [n % 3 + 1]);
        }
    }
}
