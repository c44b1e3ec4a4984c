//! `Sim`: virtual time beside real files, the grace for other threads and processes, and the
//! simulated wall clock.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use pollmux::sys::{Interest, Mode};
use pollmux::{Fd, Reactor, Select, Sim, SimWorld, Time, select};
use support::{HOUR, alone, ms, pair, secs, spawn, watchdog};

/// A reactor on `sim`, without faults, so that counts are exact.
fn on(sim: &Sim) -> Reactor {
    Reactor::with_driver(sim.clone()).unwrap()
}

/// A reactor in virtual time, its socket, and the socket's peer.
fn connected(mode: Mode) -> (Sim, Reactor, UnixStream, Fd<UnixStream>) {
    let sim = Sim::new();
    let (reactor, (theirs, ours)) = (on(&sim), pair());
    let ours = reactor.fd_with_mode(ours, Interest::READABLE, mode).unwrap();
    (sim, reactor, theirs, ours)
}

fn drain(fd: &mut Fd<UnixStream>) -> Vec<u8> {
    let mut text = Vec::new();
    assert_eq!(fd.read_to_end(&mut text).unwrap_err().kind(), ErrorKind::WouldBlock);
    text
}

#[test]
fn a_ready_fd_stops_the_clock() {
    for mode in [Mode::Edge, Mode::Level, Mode::OneShot] {
        let (sim, reactor, mut theirs, mut ours) = connected(mode);
        let timer = reactor.after(HOUR);
        for _ in 0..3 {
            theirs.write_all(b"x").unwrap();
            select! { reactor;
                recv(ours) -> readiness => assert!(readiness.is_readable()),
                recv(timer) -> _ => panic!("the clock has moved"),
            }
            assert_eq!(sim.now(), Time::ZERO);
            assert_eq!(drain(&mut ours), b"x");
            if mode == Mode::OneShot {
                ours.rearm().unwrap();
            }
        }
        // An fd that is not ready does not stop the clock.
        select! { reactor;
            recv(ours) -> readiness => panic!("{readiness:?}"),
            recv(timer) -> _ => {}
        }
        assert_eq!(sim.now(), Time::ZERO + HOUR);
        theirs.write_all(b"y").unwrap();
        select! { reactor; recv(ours) -> _ => {}, default => panic!("the turn did not poll") }
        assert_eq!(drain(&mut ours), b"y");
    }
}

#[test]
fn a_busy_loop_polls_while_time_stands_still() {
    let (sim, reactor, mut theirs, mut ours) = connected(Mode::Edge);
    let (tx, inbox) = reactor.channel(1).unwrap();
    for _ in 0..3 {
        theirs.write_all(b"x").unwrap();
        let (mut turns, mut seen) = (0, false);
        while !seen {
            turns += 1;
            assert!(turns < 5, "the fd starves");
            tx.send(()).unwrap();
            select! { reactor;
                biased;
                recv(ours) -> _ => seen = true,
                recv(inbox) -> _ => {}
            }
            let _ = inbox.try_recv();
        }
        drain(&mut ours);
    }
    assert_eq!(sim.now(), Time::ZERO);
}

/// Runs an echo server that closes idle sessions, and three clients, in one loop. Returns the log:
/// seconds and events.
fn server_and_clients(seed: u64) -> Vec<(u64, String)> {
    let sim = Sim::new();
    let reactor = on(&sim);
    reactor.seed(seed);
    let mut log = Vec::new();
    let mut note = |text: String| log.push(((sim.now() - Time::ZERO).as_secs(), text));
    let (mut clients, mut sessions) = (Vec::new(), Vec::new());
    for n in 0..3u64 {
        let (theirs, ours) = pair();
        clients.push((theirs, reactor.every(secs(20 + 30 * n)).unwrap()));
        let ours = reactor.fd(ours, Interest::READABLE).unwrap();
        sessions.push(Some((ours, reactor.after(secs(60)))));
    }
    let end = reactor.after(secs(400));
    let mut select = Select::new(&reactor);
    for ((_, ticker), session) in clients.iter().zip(&sessions) {
        let (fd, idle) = session.as_ref().unwrap();
        select.recv(ticker);
        select.recv(fd);
        select.recv(idle);
    }
    let ended = select.recv(&end);
    loop {
        let chosen = select.wait().unwrap();
        let index = chosen.index();
        if index == ended {
            break;
        }
        let n = index / 3;
        let (client, ticker) = &clients[n];
        let Some((fd, idle)) = &sessions[n] else { unreachable!() };
        match index % 3 {
            0 => {
                chosen.recv(ticker).unwrap();
                (&mut &*client).write_all(b"ping").unwrap();
                note(format!("client {n} sends"));
            }
            1 => {
                chosen.recv(fd).unwrap();
                let mut fd = fd;
                let n_read = fd.read(&mut [0; 8]).unwrap();
                assert_eq!(fd.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
                idle.reset(secs(60));
                note(format!("server {n} got {n_read} bytes"));
            }
            _ => {
                chosen.recv(idle).unwrap();
                note(format!("server {n} is idle"));
            }
        }
    }
    log
}

#[test]
fn a_server_and_its_clients_repeat_exactly() {
    let first = server_and_clients(7);
    assert!(first.len() > 30, "{first:#?}");
    // The third client sends every 80 s. A session may be idle for 60 s.
    assert!(first.contains(&(60, "server 2 is idle".into())), "{first:#?}");
    assert!(!first.iter().any(|(_, text)| text == "server 0 is idle"), "{first:#?}");
    assert_eq!(first, server_and_clients(7));
}

#[test]
fn a_deadlock_names_the_fds_and_the_remedy() {
    let (sim, reactor, mut theirs, mut ours) = connected(Mode::Edge);
    for _ in 0..2 {
        let error = reactor.recv(&ours).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        for part in ["no registered fd is ready", "Sim::grace"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        theirs.write_all(b"x").unwrap();
        reactor.recv(&ours).unwrap();
        assert_eq!(drain(&mut ours), b"x");
    }
    drop(ours);
    let (_tx, inbox) = reactor.channel::<()>(1).unwrap();
    let error = reactor.recv(&inbox).unwrap_err();
    assert!(!error.to_string().contains("fd"), "{error}");
    assert_eq!(sim.now(), Time::ZERO);
}

// Grace.

#[test]
fn grace_waits_for_an_fd_of_another_thread() {
    let _watchdog = watchdog();
    for timeout in [None, Some(secs(1))] {
        let sim = Sim::new().grace(Duration::from_secs(3600));
        let (reactor, (mut theirs, ours)) = (on(&sim), pair());
        let mut ours = reactor.fd(ours, Interest::READABLE).unwrap();
        let timer = timeout.map(|timeout| reactor.after(timeout));
        let other = support::thread::spawn(move || {
            std::thread::sleep(ms(20));
            theirs.write_all(b"late").unwrap();
            theirs
        });
        select! { reactor; recv(ours) -> _ => {}, recv(timer) -> _ => panic!("no grace") }
        assert_eq!(drain(&mut ours), b"late");
        assert_eq!(sim.now(), Time::ZERO);
        drop(other.join().unwrap());
    }
}

#[test]
fn grace_ends_with_a_message_or_wake_up() {
    let _watchdog = watchdog();
    let sim = Sim::new().grace(Duration::MAX);
    // The second reactor has wake-ups of its own.
    for _ in 0..2 {
        let reactor = on(&sim);
        let (tx, inbox) = reactor.channel(1).unwrap();
        let remote = reactor.remote();
        let timer = reactor.after(HOUR);
        let other = support::thread::spawn(move || {
            std::thread::sleep(ms(20));
            tx.send(7).unwrap();
            std::thread::sleep(ms(20));
            remote.post(|handle| drop(handle.call_after(ms(0), |_| {}))).unwrap();
            remote.wake();
            tx
        });
        select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(7)), recv(timer) -> _ => panic!() }
        let mut events = pollmux::Events::with_capacity(1);
        reactor.wait(&mut events).unwrap();
        assert!(events.is_empty());
        assert_eq!(sim.now(), Time::ZERO);
        drop(other.join().unwrap());
    }
}

#[test]
fn the_clock_moves_when_the_grace_is_over() {
    let sim = Sim::new().grace(ms(5));
    let (reactor, (_theirs, ours)) = (on(&sim), pair());
    let ours = reactor.fd(ours, Interest::READABLE).unwrap();
    let begin = std::time::Instant::now();
    let timer = reactor.after(HOUR);
    select! { reactor; recv(ours) -> _ => panic!(), recv(timer) -> _ => {} }
    assert!(begin.elapsed() >= ms(5));
    assert_eq!(sim.now(), Time::ZERO + HOUR);
    assert_eq!(reactor.recv(&ours).unwrap_err().kind(), ErrorKind::Deadlock);
    assert!(begin.elapsed() >= ms(10));
}

#[cfg(not(flat))]
#[test]
fn grace_waits_for_a_child_to_end() {
    let _watchdog = watchdog();
    let reactor = on(&Sim::new());
    let child = reactor.register(spawn(Command::new("sleep").arg("600"))).unwrap();
    let timeout = reactor.after(HOUR);
    select! { reactor;
        recv(child) -> status => panic!("{status:?}"),
        recv(timeout) -> _ => child.kill().unwrap(),
    }
    let mut child = child.into_inner();
    child.wait().unwrap();

    let reactor = on(&Sim::new().grace(Duration::MAX));
    let timeout = reactor.after(secs(1));
    let child = reactor.register(spawn(&mut Command::new("true"))).unwrap();
    select! { reactor;
        recv(child) -> status => assert!(status.unwrap().success()),
        recv(timeout) -> _ => panic!("the timer fired within the grace"),
    }
}

/// Kernel timers and the wall clock. A kqueue that cannot be nested in a poller has neither.
#[cfg(not(flat))]
mod wall_clock {
    use std::time::{SystemTime, UNIX_EPOCH};

    use pollmux::sources::ClockSet;
    use support::{ready_keys, wait_keys};

    use super::*;

    const DAY: u64 = 86_400;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + secs(seconds)
    }

    /// The next 02:30 (UTC) after `now`.
    fn next_run(now: SystemTime) -> SystemTime {
        let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let today = now / DAY * DAY + 9_000;
        at(if today > now { today } else { today + DAY })
    }

    /// Runs a scheduler for `d`. Returns the times of its runs, and of the notices of a set clock.
    fn schedule(reactor: &Reactor, d: Duration) -> Vec<(SystemTime, Result<SystemTime, ClockSet>)> {
        let (alarm, end) = (reactor.wall_timer().unwrap(), reactor.after(d));
        let mut log = Vec::new();
        loop {
            alarm.reset_at(next_run(reactor.wall_now())).unwrap();
            select! { reactor;
                recv(alarm) -> result => log.push((reactor.wall_now(), result)),
                recv(end) -> _ => return log,
            }
        }
    }

    #[test]
    fn a_daily_job_follows_the_wall_clock() {
        let sim = Sim::new();
        let reactor = on(&sim);
        assert_eq!((sim.wall_clock(), reactor.wall_now()), (UNIX_EPOCH, UNIX_EPOCH));
        sim.set_wall_clock(at(100 * DAY));
        let run = |day: u64| (at(day * DAY + 9_000), Ok(at(day * DAY + 9_000)));
        assert_eq!(schedule(&reactor, secs(3 * DAY)), [run(100), run(101), run(102)]);

        // A clock set forwards past a run skips that run. A clock set back repeats the run.
        let set = |after: u64, to: u64| {
            let sim = sim.clone();
            reactor.call_after(secs(after), move |_| sim.set_wall_clock(at(to))).detach();
        };
        assert_eq!(sim.wall_clock(), at(103 * DAY));
        set(3_600, 103 * DAY + 10_000);
        assert_eq!(schedule(&reactor, secs(7_200)), [(at(103 * DAY + 10_000), Err(ClockSet))]);
        sim.set_wall_clock(at(103 * DAY));
        set(10_000, 103 * DAY + 8_000);
        let again = [run(103), (at(103 * DAY + 8_000), Err(ClockSet)), run(103)];
        assert_eq!(schedule(&reactor, secs(20_000)), again);
        // Monotonic timers do not depend on the wall clock.
        assert_eq!(sim.now() - Time::ZERO, secs(3 * DAY + 7_200 + 20_000));
    }

    #[test]
    fn every_receive_path_reports_a_set_clock_once() {
        let sim = Sim::new();
        let reactor = on(&sim);
        let alarm = reactor.wall_timer().unwrap().with_key(5);
        let hour = at(3_600);
        assert!(!alarm.reset_at(hour).unwrap());
        let notices = [0, 1, 2, 3].map(|path| {
            // Several settings before the poll are one notice.
            sim.set_wall_clock(at(10 + path));
            sim.set_wall_clock(at(20 + path));
            let notices = match path {
                0 => select! { reactor; recv(alarm) -> result => result, default => panic!() },
                1 => {
                    assert_eq!(wait_keys(&reactor), [5]);
                    reactor.try_recv(&alarm).unwrap().unwrap()
                }
                2 => {
                    let mut select = Select::new(&reactor);
                    select.recv(&alarm);
                    let chosen = select.try_wait().unwrap().expect("the clock was set");
                    chosen.recv(&alarm).unwrap()
                }
                _ => reactor.recv_timeout(&alarm, ms(1)).unwrap().unwrap(),
            };
            assert_eq!(reactor.wall_now(), at(20 + path));
            assert_eq!(alarm.deadline(), Some(hour), "the alarm is still armed");
            assert!(reactor.try_recv(&alarm).unwrap().is_none());
            assert_eq!(ready_keys(&reactor), []);
            notices
        });
        assert_eq!(notices, [Err(ClockSet); 4]);
        // The clock is set past the deadline: the alarm reports the setting, then the expiry.
        sim.set_wall_clock(at(3_700));
        assert_eq!(reactor.recv(&alarm).unwrap(), Err(ClockSet));
        assert_eq!(reactor.recv(&alarm).unwrap(), Ok(hour));
        assert_eq!(alarm.deadline(), None);
        // The deadline passes and the clock is set back before a receive. The alarm waits again.
        let begin = sim.now();
        alarm.reset_at(at(3_800)).unwrap();
        assert_eq!(wait_keys(&reactor), [5]);
        sim.set_wall_clock(at(3_750));
        assert_eq!(reactor.recv(&alarm).unwrap(), Err(ClockSet));
        assert_eq!(ready_keys(&reactor), []);
        assert_eq!(reactor.recv(&alarm).unwrap(), Ok(at(3_800)));
        assert_eq!((reactor.wall_now(), sim.now() - begin), (at(3_800), secs(150)));
    }

    #[test]
    fn an_unarmed_wall_timer_ignores_a_set_clock() {
        let sim = Sim::new();
        let reactor = on(&sim);
        let alarm = reactor.wall_timer().unwrap();
        sim.set_wall_clock(at(50));
        assert_eq!(ready_keys(&reactor), []);
        alarm.reset(secs(10)).unwrap();
        assert_eq!(alarm.deadline(), Some(at(60)));
        sim.set_wall_clock(at(55));
        assert!(alarm.stop().unwrap());
        assert_eq!((ready_keys(&reactor).len(), alarm.deadline()), (0, None));
        // A new deadline is a time of the clock as set.
        sim.set_wall_clock(at(70));
        assert!(!alarm.reset_at(at(75)).unwrap());
        assert_eq!(ready_keys(&reactor), []);
        assert_eq!(reactor.recv(&alarm).unwrap(), Ok(at(75)));
        // Settings do not change the other clocks.
        let (mono, boot) = (reactor.os_timer().unwrap(), reactor.boot_timer().unwrap());
        let begin = sim.now();
        mono.reset(secs(5)).unwrap();
        boot.reset(secs(6)).unwrap();
        sim.set_wall_clock(at(1_000));
        assert_eq!(reactor.recv(&mono).unwrap(), begin + secs(5));
        let due = reactor.recv(&boot).unwrap();
        assert_eq!(due.as_nanos(), (begin + secs(6)).as_nanos());
        assert_eq!(sim.now(), begin + secs(6));
        assert_eq!(reactor.stats().syscalls(), 0);
    }

    #[test]
    fn another_thread_may_set_a_sleeping_loops_clock() {
        let _watchdog = watchdog();
        let sim = Sim::new().grace(Duration::MAX);
        let reactor = on(&sim);
        let alarm = reactor.wall_timer().unwrap();
        for round in 1..20 {
            alarm.reset(HOUR).unwrap();
            let clock = sim.clone();
            let other = support::thread::spawn(move || clock.set_wall_clock(at(round * 100)));
            assert_eq!(reactor.recv(&alarm).unwrap(), Err(ClockSet));
            other.join().unwrap();
            assert_eq!(sim.wall_clock(), at(round * 100));
        }
        assert_eq!(sim.now(), Time::ZERO);
    }

    #[test]
    fn wall_times_are_bounded_and_never_overflow() {
        let sim = Sim::starting_at(Time::from_nanos(5_000_000_000));
        let reactor = on(&sim);
        assert_eq!(reactor.wall_now(), at(5));
        let alarm = reactor.wall_timer().unwrap();
        sim.set_wall_clock(UNIX_EPOCH - secs(7));
        assert_eq!(reactor.wall_now(), UNIX_EPOCH);
        alarm.reset_at(UNIX_EPOCH - secs(1)).unwrap();
        assert_eq!(reactor.recv(&alarm).unwrap(), Ok(UNIX_EPOCH - secs(1)));
        let last = UNIX_EPOCH + Duration::from_nanos(u64::MAX);
        sim.set_wall_clock(last + secs(1_000));
        assert_eq!(reactor.wall_now(), last);
        alarm.reset(Duration::MAX).unwrap();
        reactor.sleep_blocking(secs(10)).unwrap();
        assert_eq!(reactor.wall_now(), last);
        sim.set_wall_clock(at(9));
        assert_eq!(reactor.recv(&alarm).unwrap(), Err(ClockSet));
        let handle = reactor.handle();
        drop(reactor);
        sim.set_wall_clock(at(8));
        assert_eq!(handle.wall_now(), at(8));
        assert!(!alarm.reset_at(at(9)).unwrap());
    }

    #[test]
    fn a_world_has_one_wall_clock() {
        let mut world = SimWorld::new(4);
        let alarms = ["left", "right"]
            .map(|name| world.spawn(name, |reactor| schedule(&reactor, secs(2 * DAY))));
        let operator = world.handle();
        world.spawn("operator", move |reactor| {
            reactor.sleep_blocking(secs(DAY)).unwrap();
            operator.set_wall_clock(at(300 * DAY));
        });
        world.run().unwrap();
        let run = |day: u64| (at(day * DAY + 9_000), Ok(at(day * DAY + 9_000)));
        for alarms in alarms {
            let log = alarms.take().unwrap();
            assert_eq!(log, [run(0), (at(300 * DAY), Err(ClockSet)), run(300)]);
        }
    }
}

// The fds that a `Sim` holds.

#[cfg(target_os = "linux")]
#[test]
fn a_sim_keeps_no_fd_after_its_reactor() {
    alone!();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let sim = Sim::new().grace(ms(1));
    let before = open();
    let reactor = on(&sim);
    let remote = reactor.remote();
    assert_eq!(open(), before, "the fd is made at the first sleep");
    reactor.sleep_blocking(HOUR).unwrap();
    assert!(open() > before);
    assert!(reactor.stats().waits > 0);
    drop(reactor);
    assert_eq!(open(), before);
    remote.wake();
    assert!(format!("{sim:?}").contains("fds: 0"), "{sim:?}");
}

#[cfg(not(flat))]
#[test]
fn a_member_of_a_world_refuses_fds() {
    let mut world = SimWorld::new(1);
    world.spawn("server", |reactor| {
        let (_theirs, ours) = pair();
        for mode in [Mode::Edge, Mode::Level, Mode::OneShot] {
            let refused = reactor.fd_with_mode(&ours, Interest::READABLE, mode).unwrap_err();
            assert_eq!(refused.error().kind(), ErrorKind::Unsupported);
            for part in ["`server`", "SimWorld cannot wait for fds", "`Sim`"] {
                assert!(refused.to_string().contains(part), "{refused}");
            }
        }
        let refused = reactor.register(spawn(Command::new("sleep").arg("600"))).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::Unsupported);
        assert!(refused.to_string().contains("children"), "{refused}");
        let mut child = refused.into_inner();
        child.kill().unwrap();
        child.wait().unwrap();
        let child = reactor.register(child).unwrap(); // this child has a known status
        assert!(!reactor.recv(&child).unwrap().unwrap().success());
    });
    world.run().unwrap();
}
