//! Kernel timers with an fd of their own: monotonic, boot time, wall clock. Wall time is the
//! subject, so these tests sleep for milliseconds.

// A kqueue that cannot be nested in a poller (build.rs) has no such timers.
#![cfg(not(flat))]

use std::io;
use std::time::{Duration, SystemTime};

use pollmux::sys::BootTime;
use pollmux::{
    Events, OsTimer, Reactor, Time,
    reactor::SourceKind,
    select,
    sources::{BootClock, ClockSet, OsClock},
};
use support::ms;

fn reactor() -> Reactor {
    support::reactor()
}

/// Makes a boot timer. Returns `None` on kqueue, which has none.
fn boot_timer(reactor: &Reactor) -> Option<OsTimer<BootClock>> {
    let made = reactor.boot_timer();
    assert_eq!(made.is_err(), cfg!(kqueue), "only kqueue refuses a boot timer: {made:?}");
    if let Err(error) = &made {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("suspend"), "{error}");
    }
    made.ok()
}

#[test]
fn timer_fires_once_never_early_on_each_clock() {
    let reactor = reactor();
    let (mono, boot, wall) =
        (reactor.os_timer().unwrap(), boot_timer(&reactor), reactor.wall_timer().unwrap());
    for _ in 0..20 {
        let deadline = Time::now() + ms(1);
        assert!(!mono.reset_at(deadline).unwrap());
        select! { reactor;
            recv(mono) -> due => assert!(due == deadline && Time::now() >= deadline),
        }
        if let Some(boot) = &boot {
            let deadline = BootTime::now() + ms(1);
            assert!(!boot.reset_at(deadline).unwrap());
            select! { reactor;
                recv(boot) -> due => assert!(due == deadline && BootTime::now() >= deadline),
            }
        }
        let deadline = SystemTime::now() + ms(1);
        assert!(!wall.reset_at(deadline).unwrap());
        select! { reactor;
            recv(wall) -> due => assert!(due == Ok(deadline) && SystemTime::now() >= deadline),
        }
    }
    assert_eq!(
        (mono.deadline(), boot.as_ref().and_then(OsTimer::deadline), wall.deadline()),
        (None, None, None)
    );
    select! { reactor;
        recv(mono) -> _ => panic!("a second value"),
        recv(boot) -> _ => panic!("a second value"),
        recv(wall) -> _ => panic!("a second value"),
        default(ms(5)) => {}
    }
}

#[test]
fn zero_or_past_deadline_is_due_at_once() {
    let reactor = reactor();
    let wall = reactor.wall_timer().unwrap();
    let boot = boot_timer(&reactor);
    for _ in 0..100 {
        if let Some(boot) = &boot {
            boot.reset(Duration::ZERO).unwrap();
            select! { reactor; recv(boot) -> _ => {}, default => panic!("not due") }
        }
        wall.reset_at(SystemTime::UNIX_EPOCH).unwrap();
        select! { reactor;
            recv(wall) -> due => assert_eq!(due, Ok(SystemTime::UNIX_EPOCH)),
            default => panic!("not due"),
        }
        wall.reset_at(SystemTime::UNIX_EPOCH - ms(5)).unwrap();
        select! { reactor; recv(wall) -> due => assert!(due.is_ok()), default => panic!("not due") }
    }
    // A second reset replaces a deadline that the kernel has already.
    wall.reset(ms(1)).unwrap();
    assert!(wall.reset(Duration::ZERO).unwrap());
    select! { reactor; recv(wall) -> due => assert!(due.is_ok()), default => panic!("not due") }
    assert_quiet(&reactor);
}

/// Checks that no value and no stale event comes. A stale event would end each later sleep.
#[track_caller]
fn assert_quiet(reactor: &Reactor) {
    assert_eq!(support::wait_keys_for(reactor, ms(3)), [], "a stale value");
}

/// Checks for one clock, in each state of the timer, the results of `stop` and `reset`. No stale
/// value may follow.
fn check_table<C: OsClock>(reactor: &Reactor, timer: &OsTimer<C>) {
    let nothing_comes = || assert_quiet(reactor);
    let expired = || {
        timer.reset(ms(1)).unwrap();
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap(); // finds the expiry, without a receive
        assert_eq!(events.len(), 1);
    };
    // Never armed.
    assert!(!timer.stop().unwrap());
    nothing_comes();
    // Armed.
    timer.reset(Duration::from_secs(60)).unwrap();
    assert!(timer.stop().unwrap() && !timer.stop().unwrap());
    timer.reset(ms(1)).unwrap();
    assert!(timer.reset(Duration::from_secs(60)).unwrap());
    nothing_comes();
    // Expired in the kernel only: the reactor has not polled.
    timer.reset(ms(1)).unwrap();
    std::thread::sleep(ms(3));
    assert!(timer.stop().unwrap());
    nothing_comes();
    // Expired and seen.
    expired();
    assert!(timer.stop().unwrap() && !timer.stop().unwrap());
    nothing_comes();
    expired();
    assert!(timer.reset(Duration::from_secs(60)).unwrap());
    nothing_comes();
    // Received.
    expired();
    select! { reactor; recv(timer) -> _ => {}, default => panic!("the value is lost") }
    assert!(!timer.reset(ms(1)).unwrap());
    select! { reactor; recv(timer) -> _ => {} }
    nothing_comes();
}

#[test]
fn stop_and_reset_leave_no_stale_value() {
    let reactor = reactor();
    check_table(&reactor, &reactor.os_timer().unwrap());
    boot_timer(&reactor).iter().for_each(|boot| check_table(&reactor, boot));
    check_table(&reactor, &reactor.wall_timer().unwrap());
}

#[test]
fn longest_duration_never_fires() {
    let reactor = reactor();
    let (mono, boot, wall) =
        (reactor.os_timer().unwrap(), boot_timer(&reactor), reactor.wall_timer().unwrap());
    mono.reset(Duration::MAX).unwrap();
    boot.iter().for_each(|boot| assert!(!boot.reset(Duration::MAX).unwrap()));
    wall.reset(Duration::MAX).unwrap();
    select! { reactor;
        recv(mono) -> _ => panic!(),
        recv(boot) -> _ => panic!(),
        recv(wall) -> _ => panic!(),
        default(ms(3)) => {}
    }
    assert!(
        mono.stop().unwrap()
            && boot.is_none_or(|boot| boot.stop().unwrap())
            && wall.stop().unwrap()
    );
}

#[test]
fn wait_reports_the_key_until_value_is_taken() {
    let reactor = reactor();
    let timer = reactor.os_timer().unwrap().with_key(7);
    timer.reset(ms(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(support::wait_keys(&reactor), [7]);
    }
    select! { reactor; recv(timer) -> _ => {} }
    assert_eq!(support::ready_keys(&reactor), []);
}

#[test]
fn timer_fires_in_a_loop_that_never_sleeps() {
    let reactor = reactor();
    let timer = reactor.os_timer().unwrap();
    let (tx, inbox) = reactor.channel(4).unwrap();
    timer.reset(ms(2)).unwrap();
    let start = Time::now();
    // At least 1,000 turns, so that a poll in each turn would show, and until the timer fires.
    let (mut turns, mut fired) = (0u64, 0);
    while turns < 1_000 || fired == 0 {
        tx.try_send(()).unwrap();
        turns += 1;
        select! { reactor;
            recv(inbox) -> _ => {}
            recv(timer) -> _ => fired += 1,
        }
        inbox.drain(4).for_each(drop);
    }
    assert_eq!(fired, 1);
    let stats = reactor.stats();
    assert!(stats.waits == 0 && stats.polls > 0, "{stats}");
    // A thread that is kept from its core makes fewer polls, not more.
    let most = (Time::now() - start).as_micros() as u64 / 99 + 2;
    assert!(
        stats.polls <= most,
        "more than a poll every 100 us: {stats}, {turns} turns, at most {most} polls"
    );
}

#[test]
fn dropped_timer_leaves_no_event_for_the_next() {
    let reactor = reactor();
    for _ in 0..2_000 {
        let timer = reactor.os_timer().unwrap();
        timer.reset(Duration::from_micros(1)).unwrap();
        drop(timer);
        let other = reactor.os_timer().unwrap();
        other.reset(Duration::from_secs(60)).unwrap();
        select! { reactor; recv(other) -> _ => panic!("the dropped timer fired"), default => {} }
    }
    assert_eq!(reactor.stats().live, 0);
}

#[test]
fn timer_is_listed_and_outlives_its_reactor() {
    let reactor = reactor();
    let timer = reactor.os_timer().unwrap();
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!((info.kind, info.location.unwrap().file()), (Some(SourceKind::OsTimer), file!()));
    drop(reactor);
    assert!(!timer.reset(ms(1)).unwrap());
    assert_eq!(timer.deadline(), None);
    drop(timer);
}

#[test]
fn driver_without_fds_refuses_kernel_timers() {
    let reactor = support::without_fds();
    let error = reactor.os_timer().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert_eq!(reactor.stats().live, 0);
    let handle = reactor.handle();
    drop(reactor);
    assert_eq!(handle.wall_timer().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

/// Sets the machine's clock to its current time, as root. Runs only with `POLLMUX_SET_CLOCK=1`,
/// because that needs the user's permission.
#[test]
fn wall_timer_reports_a_set_clock() {
    if std::env::var_os("POLLMUX_SET_CLOCK").is_none() {
        return;
    }
    let reactor = reactor();
    let alarm = reactor.wall_timer().unwrap();
    let hour = SystemTime::now() + Duration::from_secs(3600);
    alarm.reset_at(hour).unwrap();
    let set_clock = || {
        let set = std::process::Command::new("date").arg("-s").arg("now").output().unwrap();
        assert!(set.status.success(), "{set:?}");
    };
    for _ in 0..2 {
        set_clock();
        select! { reactor; recv(alarm) -> result => assert_eq!(result, Err(ClockSet)) }
        assert_eq!(alarm.deadline(), Some(hour), "the timer is still armed");
    }
    let deadline = SystemTime::now() + ms(300);
    alarm.reset_at(deadline).unwrap();
    set_clock();
    select! { reactor; recv(alarm) -> result => assert_eq!(result, Err(ClockSet)) }
    select! { reactor; recv(alarm) -> result => assert_eq!(result, Ok(deadline)) }
    // The clock is set and the deadline passes: the timer reports both.
    alarm.reset_at(SystemTime::now() + ms(2)).unwrap();
    set_clock();
    std::thread::sleep(ms(5));
    select! { reactor; recv(alarm) -> result => assert_eq!(result, Err(ClockSet)) }
    select! { reactor;
        recv(alarm) -> result => assert!(result.is_ok()),
        default => panic!("the expiry is lost"),
    }
}
