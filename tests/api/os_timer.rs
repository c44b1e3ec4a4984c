//! Kernel timers of one's own: monotonic, boot time, wall clock. Wall time is what these tests are
//! about, so they sleep, for milliseconds.

// Where no kqueue can be waited for (build.rs) there are none.
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

/// `None` on kqueue, where no kernel has such timers.
fn boot_timer(reactor: &Reactor) -> Option<OsTimer<BootClock>> {
    let made = reactor.boot_timer();
    assert_eq!(made.is_err(), cfg!(kqueue), "README.md says so: {made:?}");
    if let Err(error) = &made {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("suspend"), "{error}");
    }
    made.ok()
}

#[test]
fn it_fires_once_and_never_early_on_each_clock() {
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
fn zero_and_the_past_are_due_for_the_very_next_select() {
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
    // Also when the kernel had been asked already.
    wall.reset(ms(1)).unwrap();
    assert!(wall.reset(Duration::ZERO).unwrap());
    select! { reactor; recv(wall) -> due => assert!(due.is_ok()), default => panic!("not due") }
    quiet(&reactor);
}

/// Nothing comes: neither a value nor an event of one that is not armed, which would end each sleep
/// from then on.
#[track_caller]
fn quiet(reactor: &Reactor) {
    assert_eq!(support::wait_keys_for(reactor, ms(3)), [], "a stale value");
}

/// Goes round the table for one clock: what is pending, what `stop` and `reset` say of it, and that
/// nothing stale comes.
fn table<C: OsClock>(reactor: &Reactor, timer: &OsTimer<C>) {
    let nothing_comes = || quiet(reactor);
    let expired = || {
        timer.reset(ms(1)).unwrap();
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap(); // seen by the reactor, and not received
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
    // Expired in the kernel only: the reactor has not looked.
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
    select! { reactor; recv(timer) -> _ => {}, default => panic!("lost") }
    assert!(!timer.reset(ms(1)).unwrap());
    select! { reactor; recv(timer) -> _ => {} }
    nothing_comes();
}

#[test]
fn stop_and_reset_say_what_they_took_and_leave_nothing_stale_on_each_clock() {
    let reactor = reactor();
    table(&reactor, &reactor.os_timer().unwrap());
    boot_timer(&reactor).iter().for_each(|boot| table(&reactor, boot));
    table(&reactor, &reactor.wall_timer().unwrap());
}

#[test]
fn durations_without_end_never_fire() {
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
fn wait_reports_it_by_its_key_until_it_is_received() {
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
fn a_busy_loop_sees_it() {
    let reactor = reactor();
    let timer = reactor.os_timer().unwrap();
    let (tx, inbox) = reactor.channel(4).unwrap();
    timer.reset(ms(2)).unwrap();
    let start = Time::now();
    // Turns enough for a look at each to show, however few of them come before the timer does.
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
    // Whoever is kept from its core makes fewer looks in its time, not more.
    let most = (Time::now() - start).as_micros() as u64 / 99 + 2;
    assert!(
        stats.polls <= most,
        "a look every 100 us, not every turn: {stats}, {turns} turns, {most} looks at most"
    );
}

#[test]
fn dropped_it_frees_its_slot_and_its_fd_and_another_one_gets_no_event_of_it() {
    let reactor = reactor();
    for _ in 0..2_000 {
        let timer = reactor.os_timer().unwrap();
        timer.reset(Duration::from_micros(1)).unwrap();
        drop(timer);
        let other = reactor.os_timer().unwrap();
        other.reset(Duration::from_secs(60)).unwrap();
        select! { reactor; recv(other) -> _ => panic!("an event of the dead one"), default => {} }
    }
    assert_eq!(reactor.stats().live, 0);
}

#[test]
fn it_is_listed_with_its_maker_and_outlives_its_reactor_inert() {
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
fn a_driver_without_fds_says_so() {
    let reactor = support::without_fds();
    let error = reactor.os_timer().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert_eq!(reactor.stats().live, 0);
    let handle = reactor.handle();
    drop(reactor);
    assert_eq!(handle.wall_timer().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

/// Sets the machine's clock (to what it says), so only where the one who runs it allows that:
/// `POLLMUX_SET_CLOCK=1`, as root.
#[test]
fn the_wall_clock_tells_when_it_is_set() {
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
        select! { reactor; recv(alarm) -> rings => assert_eq!(rings, Err(ClockSet)) }
        assert_eq!(alarm.deadline(), Some(hour), "it is still armed");
    }
    let deadline = SystemTime::now() + ms(300);
    alarm.reset_at(deadline).unwrap();
    set_clock();
    select! { reactor; recv(alarm) -> rings => assert_eq!(rings, Err(ClockSet)) }
    select! { reactor; recv(alarm) -> rings => assert_eq!(rings, Ok(deadline)) }
    // Set and passed meanwhile: told of both.
    alarm.reset_at(SystemTime::now() + ms(2)).unwrap();
    set_clock();
    std::thread::sleep(ms(5));
    select! { reactor; recv(alarm) -> rings => assert_eq!(rings, Err(ClockSet)) }
    select! { reactor;
        recv(alarm) -> rings => assert!(rings.is_ok()),
        default => panic!("the expiry is lost"),
    }
}
