//! Slack: the delay that timers accept in order to share wake-ups. A timer is never early and never
//! later than its slack. Overlapping windows share one wake-up. Slack delays nothing else.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pollmux::{
    Events, MissedTickBehavior, Reactor, Sim, Source, Tick, Time, Timer, channel,
    driver::WakeWindow, reactor::Spin, select, sys::Interest,
};

use support::{HOUR, Script, at, ms, ready_keys, scripted, sometimes, timed, watchdog};

/// A reactor with this slack on a virtual clock, and the script of its driver.
fn slack(slack: Duration) -> (Sim, Reactor, Script) {
    let sim = Sim::new();
    let (driver, script) = scripted(&sim);
    let reactor = Reactor::builder().slack(slack).build_with(driver).unwrap();
    (sim, reactor, script)
}

fn window(earliest: u64, latest: u64) -> Vec<Option<WakeWindow>> {
    vec![Some(WakeWindow { earliest: at(earliest), latest: at(latest) })]
}

/// Waits once and takes all that is due. Returns each key and its lateness, in order.
fn wait(sim: &Sim, reactor: &Reactor, timers: &[Timer]) -> Vec<(u64, Duration)> {
    let mut events = Events::with_capacity(timers.len().max(1));
    reactor.wait(&mut events).unwrap();
    let mut found = Vec::new();
    for event in &events {
        let guess = timers.get(event.key() as usize).filter(|timer| timer.key() == event.key());
        let other = || timers.iter().find(|timer| timer.key() == event.key());
        let timer = guess.or_else(other).unwrap();
        let due = timer.try_take().unwrap();
        assert!(due <= sim.now(), "the timer is early");
        found.push((event.key(), sim.now() - due));
    }
    found
}

fn keyed(reactor: &Reactor, deadlines: &[u64]) -> Vec<Timer> {
    deadlines.iter().map(|&deadline| reactor.at(at(deadline)).with_key(deadline)).collect()
}

#[test]
fn a_sleep_without_slack_ends_exactly() {
    let (sim, reactor, script) = slack(Duration::ZERO);
    let timers = keyed(&reactor, &[10, 11, 12]);
    for n in [10, 11, 12] {
        assert_eq!(wait(&sim, &reactor, &timers), [(n, ms(0))]);
        assert_eq!(script.take_deadlines(), window(n, n));
    }
    assert_eq!(reactor.stats().coalesced, 0);
}

#[test]
fn timers_whose_windows_overlap_share_one_wake_up() {
    let (sim, reactor, script) = slack(ms(5));
    let timers = keyed(&reactor, &[10, 11, 14, 15, 16, 21]);
    // The window of 10 ends at 15, so 15 is in the window.
    assert_eq!(wait(&sim, &reactor, &timers), [(10, ms(5)), (11, ms(4)), (14, ms(1)), (15, ms(0))]);
    assert_eq!(script.take_deadlines(), window(10, 15));
    assert_eq!(reactor.stats().coalesced, 3);
    assert_eq!(wait(&sim, &reactor, &timers), [(16, ms(5)), (21, ms(0))]);
    assert_eq!(script.take_deadlines(), window(16, 21));
    assert_eq!((script.sleeps(), reactor.stats().coalesced), (2, 4));
}

#[test]
fn equal_deadlines_do_not_count_as_coalesced() {
    let (sim, reactor, script) = slack(ms(5));
    let timers: Vec<Timer> = (0..10).map(|n| reactor.at(at(10 + n / 5)).with_key(n)).collect();
    assert_eq!(wait(&sim, &reactor, &timers).len(), 10);
    assert_eq!(
        (script.sleeps(), reactor.stats().coalesced),
        (1, 1),
        "the wake-up covers two instants"
    );
}

#[test]
fn timers_found_by_awake_loops_are_not_coalesced() {
    let (sim, reactor, script) = slack(ms(5));
    let timers = keyed(&reactor, &[10, 11, 12, 20, 21]);
    sim.advance(ms(13)); // a busy loop
    assert_eq!(wait(&sim, &reactor, &timers).len(), 3);
    let (tx, rx) = channel::bounded(1);
    let inbox = reactor.register(rx).unwrap();
    let clock = sim.clone();
    script.on_sleep(move || {
        clock.advance(ms(1)); // 14: before a timer is due
        tx.send(()).unwrap();
        Ok(())
    });
    select! { reactor;
        recv(inbox) -> message => assert_eq!(message, Ok(())),
        recv(timers[3]) -> _ => unreachable!(),
    }
    assert_eq!(sim.now(), at(14));
    sim.advance(ms(10));
    assert_eq!(ready_keys(&reactor), [20, 21, inbox.key()]);
    assert_eq!((script.sleeps(), reactor.stats().coalesced), (1, 0));
}

#[test]
fn the_window_that_ends_first_ends_the_sleep() {
    let (sim, reactor, script) = slack(ms(100));
    let timers = [
        reactor.at(at(10)).with_key(1),
        reactor.at(at(20)).with_key(2).slack(ms(5)),
        reactor.at(at(24)).with_key(3).slack(Duration::ZERO),
        reactor.at(at(25)).with_key(4).slack(ms(1_000)),
        reactor.at(at(26)).with_key(5),
    ];
    assert_eq!(wait(&sim, &reactor, &timers), [(1, ms(14)), (2, ms(4)), (3, ms(0))]);
    assert_eq!(script.take_deadlines(), window(10, 24));
    assert_eq!(wait(&sim, &reactor, &timers), [(4, ms(101)), (5, ms(100))]);
    assert_eq!(script.take_deadlines(), window(25, 126));
    assert_eq!(reactor.stats().coalesced, 3);
}

#[test]
fn a_timer_s_slack_overrides_the_reactor_s() {
    // The reactor's slack, the timer's, and the time at which the timer fires.
    for (general, own, fires) in
        [(5, Some(9), 19), (5, Some(0), 10), (0, Some(9), 19), (0, Some(0), 10), (5, None, 15)]
    {
        let (sim, reactor, _script) = slack(ms(general));
        let with = |timer: Timer| own.into_iter().fold(timer, |timer, own| timer.slack(ms(own)));
        let timer = with(reactor.after(ms(10)));
        select! { reactor; recv(timer) -> due => assert_eq!((due, sim.now()), (at(10), at(fires))) }
        // The slack stays with the timer, and a new timer does not inherit it.
        timer.reset(ms(10));
        select! { reactor; recv(timer) -> due => assert_eq!(sim.now() - due, ms(fires - 10)) }
        drop(timer);
        let next = reactor.after(ms(10));
        select! { reactor; recv(next) -> due => assert_eq!(sim.now() - due, ms(general)) }
    }
}

#[test]
fn slack_of_armed_timers_affects_the_next_sleep() {
    let (sim, reactor, script) = slack(Duration::ZERO);
    let timer = reactor.at(at(10)).with_key(1);
    let timer = timer.slack(ms(7));
    assert_eq!(wait(&sim, &reactor, std::slice::from_ref(&timer)), [(1, ms(7))]);
    timer.reset_at(at(20));
    let timer = timer.slack(ms(30)).slack(ms(2));
    assert_eq!(wait(&sim, &reactor, std::slice::from_ref(&timer)), [(1, ms(2))]);
    // An expired timer is ready at once, whatever its slack.
    timer.reset_at(at(22));
    sim.advance(ms(1));
    let timer = timer.slack(ms(50));
    assert_eq!(wait(&sim, &reactor, std::slice::from_ref(&timer)), [(1, ms(1))]);
    assert_eq!(script.sleeps(), 2);
}

#[test]
fn an_awake_loop_finds_timers_at_their_deadline() {
    let (sim, reactor, _script) = slack(ms(100));
    let timer = reactor.at(at(10));
    sim.advance(ms(10) - Duration::from_nanos(1));
    assert!(
        select! { reactor; recv(timer) -> _ => false, default => true },
        "the timer is 1 ns early"
    );
    sim.advance(Duration::from_nanos(1));
    assert!(
        select! { reactor; recv(timer) -> _ => true, default => false },
        "slack delays only sleeps"
    );
}

#[test]
fn slack_does_not_delay_a_default_timeout() {
    let (sim, reactor, script) = slack(ms(50));
    let timer = reactor.at(at(10));
    let early = select! { reactor; recv(timer) -> _ => false, default(ms(8)) => true };
    assert_eq!((early, sim.now(), script.take_deadlines()), (true, at(8), window(8, 8)));
    // The timeout ends in the middle of the window.
    let met = select! { reactor; recv(timer) -> due => due, default(ms(20)) => unreachable!() };
    assert_eq!((met, sim.now(), script.take_deadlines()), (at(10), at(28), window(10, 28)));
    assert_eq!(reactor.stats().coalesced, 0);
    let mut events = Events::with_capacity(1);
    timer.reset_at(at(30));
    reactor.wait_timeout(&mut events, ms(1)).unwrap();
    assert_eq!((events.len(), sim.now()), (0, at(29)));
    reactor.sleep_blocking(ms(3)).unwrap();
    assert_eq!((sim.now(), timer.is_ready()), (at(32), true));
}

#[test]
fn stopped_or_reset_timers_leave_no_window_behind() {
    let (sim, reactor, script) = slack(ms(5));
    let timers = keyed(&reactor, &[10, 20, 30, 40]);
    assert!(timers[0].stop());
    assert_eq!(wait(&sim, &reactor, &timers), [(20, ms(5))]);
    assert_eq!(script.take_deadlines(), window(20, 25), "the stopped timer has no window");
    // The timer at 30 is postponed, so the timer at 40 is the first.
    timers[2].reset_at(at(60));
    assert_eq!(wait(&sim, &reactor, &timers), [(40, ms(5))]);
    assert_eq!(script.take_deadlines(), window(40, 45));
    // A timer without slack that is stopped or postponed does not cut the other windows.
    let exact = reactor.at(at(62)).slack(Duration::ZERO);
    let other = reactor.at(at(63)).slack(Duration::ZERO);
    assert!(exact.stop());
    assert!(other.reset_at(at(100)));
    assert_eq!(wait(&sim, &reactor, &timers), [(30, ms(5))]);
    assert_eq!(script.take_deadlines(), window(60, 65));
    // A timer that is moved into the window cuts the window.
    timers[0].reset_at(at(70));
    assert!(other.reset_at(at(72)));
    assert_eq!((support::wait_keys(&reactor), sim.now()), (vec![10, other.key()], at(72)));
    assert_eq!(script.take_deadlines(), window(70, 72));
}

#[test]
fn a_dropped_timer_leaves_no_window_behind() {
    let (sim, reactor, script) = slack(ms(5));
    let timers = keyed(&reactor, &[10, 20]);
    let exact = reactor.at(at(21)).slack(Duration::ZERO);
    drop(reactor.at(at(5)));
    drop(exact);
    assert_eq!(wait(&sim, &reactor, &timers), [(10, ms(5))]);
    assert_eq!(wait(&sim, &reactor, &timers), [(20, ms(5))]);
    assert_eq!(script.take_deadlines(), [window(10, 15), window(20, 25)].concat());
}

#[test]
fn a_ticker_with_slack_keeps_its_grid() {
    use MissedTickBehavior::*;
    for behavior in [Skip, Burst, Delay] {
        let (sim, reactor, script) = slack(Duration::ZERO);
        // The slack is below the delay at which `Delay` begins a new grid.
        let ticker = reactor.every(ms(10)).unwrap().slack(ms(4)).missed_tick_behavior(behavior);
        for n in 1..=1_000 {
            let tick = select! { reactor; recv(ticker) -> tick => tick };
            assert_eq!(
                (tick, sim.now()),
                (Tick { scheduled: at(10 * n), missed: 0 }, at(10 * n + 4))
            );
        }
        assert_eq!(script.sleeps(), 1_000);
    }
}

#[test]
fn tickers_of_similar_periods_share_wake_ups() {
    let sleeps = |own: u64| {
        let (sim, reactor, script) = slack(ms(own));
        let tickers: Vec<_> = (0..20).map(|n| reactor.every(ms(1_000 + n)).unwrap()).collect();
        let mut events = Events::with_capacity(32);
        let mut ticks = 0;
        while sim.now() < at(10_000) {
            reactor.wait(&mut events).unwrap();
            for _ in &events {
                ticks += 1;
            }
            for ticker in &tickers {
                if let Some(tick) = ticker.try_take() {
                    assert!(sim.now() - tick.scheduled <= ms(own));
                }
            }
        }
        assert!(ticks >= 180);
        script.sleeps()
    };
    let (exact, slack) = (sleeps(0), sleeps(200));
    assert!(slack <= 12 && exact >= 150, "{slack} instead of {exact} wake-ups");
}

#[test]
fn callbacks_have_slack_too() {
    let (sim, reactor, script) = slack(ms(5));
    let log = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let call = |deadline: u64| {
        let (log, clock) = (log.clone(), sim.clone());
        reactor
            .call_at(at(deadline), move |cx| log.borrow_mut().push((cx.scheduled(), clock.now())))
    };
    let _callbacks = [call(10), call(12), call(30).slack(ms(1)), call(31).slack(Duration::ZERO)];
    reactor.sleep_blocking(ms(100)).unwrap();
    assert_eq!(
        *log.borrow(),
        [(at(10), at(15)), (at(12), at(15)), (at(30), at(31)), (at(31), at(31))]
    );
    assert_eq!((script.sleeps(), reactor.stats().coalesced), (3, 2));
}

#[test]
fn random_timers_are_never_later_than_their_slack() {
    for general in [0, 3, 50] {
        let (sim, reactor, _script) = slack(ms(general));
        let slack_of = |key: u64| if key % 3 == 0 { ms(key % 20) } else { ms(general) };
        let timers: Vec<Timer> = (0..1_000)
            .map(|key| {
                let timer = reactor.at(at(key * 7_919 % 5_000)).with_key(key);
                if key % 3 == 0 { timer.slack(slack_of(key)) } else { timer }
            })
            .collect();
        let mut fired = 0;
        while fired < timers.len() {
            for (key, late) in wait(&sim, &reactor, &timers) {
                assert!(late <= slack_of(key), "{key} late by {late:?}");
                fired += 1;
                // Every fifth timer is armed again.
                if key % 5 == 0 && sim.now() < at(4_000) {
                    timers[key as usize].reset(ms(1 + key % 97));
                    fired -= 1;
                }
            }
        }
    }
}

#[test]
fn many_timers_share_one_wake_up() {
    for count in [100u64, 1_000, 4_000] {
        let (sim, reactor, script) = slack(ms(10));
        let step = ms(8) / count as u32;
        let timers: Vec<Timer> =
            (0..count).map(|n| reactor.at(at(10) + step * (n * 7_919 % count) as u32)).collect();
        let mut events = Events::with_capacity(4_096);
        reactor.wait(&mut events).unwrap();
        assert_eq!((events.len() as u64, sim.now(), script.sleeps()), (count, at(20), 1));
        assert_eq!(reactor.stats().coalesced, count - 1);
        drop(timers);
    }
}

#[test]
fn finding_the_window_among_many_timers_is_fast() {
    const LIVE: u64 = 100_000;
    // Differing slacks are the worst case for the search of the window.
    let (sim, reactor, script) = slack(ms(1_000));
    let micro = Duration::from_micros(1);
    let timers: Vec<Timer> = (0..LIVE)
        .map(|n| reactor.at(at(1_000) + micro * (n * 7_919 % LIVE) as u32).slack(ms(500 + n % 500)))
        .collect();
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let sleeping =
            || select! { reactor; recv(timers[0]) -> _ => unreachable!(), default(ms(1)) => {} };
        best = best.min(timed(sleeping).1);
    }
    assert_eq!((sim.now(), script.sleeps()), (at(50), 50));
    // The search takes some microseconds. A scan of all timers takes a thousand times as long.
    assert!(
        best < Duration::from_micros(if cfg!(debug_assertions) { 500 } else { 50 }),
        "{best:?}"
    );
    // No timer is early, and none is later than its slack.
    let mut events = Events::with_capacity(LIVE as usize);
    let mut fired = 0;
    while fired < LIVE {
        reactor.wait(&mut events).unwrap();
        assert!(!events.is_empty());
        assert!(script.sleeps() < 50 + 10, "many sleeps for {fired} timers");
        for timer in &timers {
            if let Some(due) = timer.try_take() {
                assert!(sim.now() >= due && sim.now() - due < ms(1_000));
                fired += 1;
            }
        }
    }
}

#[test]
fn endless_slack_waits_for_another_wake_up() {
    let (sim, reactor, script) = slack(Duration::ZERO);
    let lazy = reactor.at(at(10)).slack(Duration::MAX);
    let other = reactor.at(at(1_000));
    select! { reactor; biased;
        recv(lazy) -> due => assert_eq!((due, sim.now()), (at(10), at(1_000))),
        recv(other) -> _ => {}
    }
    assert_eq!(script.take_deadlines(), window(10, 1_000));
    // The same with the reactor's own slack. A timer for `Time::MAX` never fires.
    let (sim, reactor, _script) = slack(Duration::MAX);
    let (lazy, never) = (reactor.at(at(10)), reactor.at(Time::MAX).slack(Duration::MAX));
    let exact = reactor.at(at(20)).slack(Duration::ZERO);
    assert_eq!((support::wait_keys(&reactor), sim.now()), (vec![lazy.key(), exact.key()], at(20)));
    assert_eq!(never.deadline(), Some(Time::MAX));
}

#[test]
fn a_loop_never_spins_for_timers_with_slack() {
    // Real time: a virtual clock never spins.
    let _watchdog = watchdog();
    let settings = || Reactor::builder().spin(Spin::Off).precise(ms(5));
    let waits = |reactor: Reactor| {
        let timer = reactor.after(ms(2));
        select! { reactor; recv(timer) -> due => assert!(Time::now() >= due) }
        reactor.stats().waits
    };
    assert!(
        sometimes(|| waits(settings().slack(ms(20)).build().unwrap()) > 0),
        "a loop with slack always spins"
    );
    assert_eq!(waits(settings().build().unwrap()), 0, "a loop without slack sleeps");
}

#[test]
fn real_ticks_come_within_their_slack() {
    // With slack the kernel's timeout ends the wait. The timeout is inaccurate, so time is real.
    let _watchdog = watchdog();
    for (period, slack) in
        [(ms(5), ms(1)), (ms(20), ms(10)), (ms(3), Duration::from_micros(30)), (ms(1), ms(100))]
    {
        let reactor = Reactor::builder().slack(slack).build().unwrap();
        let ticker = reactor.every(period).unwrap();
        let late = || {
            select! { reactor; recv(ticker) -> tick => {
                let now = Time::now();
                assert!(now >= tick.scheduled, "the tick is early");
                now - tick.scheduled
            }}
        };
        // Most of seven ticks, with 5 ms for the kernel.
        let few = || (0..7).filter(|_| late() <= slack + ms(5)).count();
        assert!(sometimes(|| few() >= 4), "most ticks are later than {slack:?}");
    }
}

/// Returns true if the system has timeouts in nanoseconds. Without such timeouts the driver arms
/// every deadline.
#[cfg(epoll)]
#[allow(unsafe_code)]
fn has_fine_timeouts() -> bool {
    // SAFETY: no epoll set has this fd, so the call fails before it reads its pointers.
    let looked = unsafe {
        let none = std::ptr::null::<u8>();
        libc::syscall(libc::SYS_epoll_pwait2, -1, none, 1, none, none, 0_usize)
    };
    assert_eq!(looked, -1);
    !matches!(
        std::io::Error::last_os_error().raw_os_error(),
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES)
    )
}

// On kqueue an arm is part of the wait, so no arm can be saved.
#[cfg(epoll)]
#[test]
fn slack_above_the_kernel_s_arms_no_timer() {
    if !has_fine_timeouts() {
        return eprintln!("skipped: this system has no epoll_pwait2, or forbids it");
    }
    let _watchdog = watchdog();
    let arms = |slack| {
        let reactor = Reactor::builder().slack(slack).spin(Spin::Off).build().unwrap();
        let ticker = reactor.every(ms(5)).unwrap();
        (0..10).for_each(|_| select! { reactor; recv(ticker) -> _ => {} });
        (reactor.stats().arms, reactor.stats().waits)
    };
    assert!(sometimes(|| matches!(arms(ms(2)), (0, 1..=10))), "{:?}: arms and waits", arms(ms(2)));
    // The kernel's timeouts are less exact than 1 us. The first tick is armed, and later waits end
    // a little earlier.
    let micro = Duration::from_micros(1);
    assert!(sometimes(|| arms(micro) == (1, 10)), "{:?}: arms and waits", arms(micro));
}

// On epoll the driver measures the kernel's slack before the first wait with slack.
#[test]
fn the_first_wait_with_slack_loses_no_readiness() {
    let _watchdog = watchdog();
    let settings = Reactor::builder().slack(ms(1)).spin(Spin::Off).poll_interval(HOUR);
    let reactor = settings.build().unwrap();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    let ours = reactor.fd_nonblocking(ours, Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(4);
    reactor.try_wait(&mut events).unwrap(); // the sleep polls the file next
    let timer = reactor.after(ms(500));
    theirs.write_all(b"x").unwrap();
    while events.is_empty() {
        reactor.wait(&mut events).unwrap();
    }
    drop(timer);
    assert!(ours.readiness().is_readable(), "{:?}", events);
}

#[test]
fn a_lazy_timer_joins_an_exact_wake_up() {
    let _watchdog = watchdog();
    // The kernel's timer is armed for the exact timer. Its wake-up also serves the lazy timer.
    let together = || {
        let reactor = Reactor::builder().spin(Spin::Off).build().unwrap();
        let exact = reactor.after(ms(30));
        let lazy = reactor.after(ms(10)).slack(ms(10_000));
        let start = Instant::now();
        let mut events = Events::with_capacity(4);
        while exact.try_take().is_none() {
            reactor.wait(&mut events).unwrap();
        }
        let in_time = start.elapsed() < ms(5_000);
        in_time
            && lazy.try_take().is_some()
            && (reactor.stats().waits, reactor.stats().coalesced) == (1, 1)
    };
    assert!(sometimes(together));
}
