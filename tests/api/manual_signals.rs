//! `Signals::manual`: a test raises these signals by hand, on every driver.

use std::io::ErrorKind;
use std::time::Duration;

use pollmux::sources::SignalRaiser;
use pollmux::{Reactor, Select, Signal, Signals, SimWorld, Source, reactor::SourceKind, select};
use support::{HOUR, ms, ready_keys, rounds, secs, simulated, thread, wait_keys, watchdog};

/// One reactor of each driver.
fn reactors() -> [Reactor; 3] {
    [support::reactor(), simulated().1, support::without_fds()]
}

#[test]
fn the_lowest_raised_signal_comes_first_and_once() {
    for reactor in reactors() {
        let (signals, raiser) = Signals::manual(&reactor);
        assert!(reactor.try_recv(&signals).unwrap().is_none());
        for signal in [Signal::TERMINATE, Signal::HANGUP, Signal::TERMINATE, Signal(64)] {
            raiser.clone().raise(signal).unwrap();
        }
        for expected in [Signal::HANGUP, Signal::TERMINATE, Signal(64)] {
            assert!(signals.is_ready());
            select! { reactor; recv(signals) -> signal => assert_eq!(signal, expected) }
        }
        select! { reactor; recv(signals) -> signal => panic!("{signal}"), default => {} }
        raiser.raise(Signal::HANGUP).unwrap();
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::HANGUP);
        let sources = reactor.sources();
        let info = sources.iter().next().unwrap();
        assert_eq!((info.kind, info.fired), (Some(SourceKind::Signals), 4));
        assert_eq!(info.location.unwrap().file(), file!());
    }
}

#[test]
fn a_wait_and_a_select_report_raised_signals() {
    for reactor in reactors() {
        let (signals, raiser) = Signals::manual(&reactor);
        let signals = signals.with_key(7);
        assert_eq!(ready_keys(&reactor), []);
        for _ in 0..3 {
            raiser.raise(Signal::USER1).unwrap();
            raiser.raise(Signal::USER2).unwrap();
            // A wait reports the source until it is drained, also after a select took one signal.
            assert_eq!(wait_keys(&reactor), [7]);
            assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER1.min(Signal::USER2));
            assert_eq!(wait_keys(&reactor), [7]);
            assert_eq!(signals.try_take(), Some(Signal::USER1.max(Signal::USER2)));
            assert_eq!(ready_keys(&reactor), []);
        }
        let mut select = Select::new(&reactor);
        let case = select.recv(&signals);
        for signal in [Signal::INTERRUPT, Signal::QUIT] {
            raiser.raise(signal).unwrap();
            let chosen = select.wait().unwrap();
            assert_eq!(chosen.index(), case);
            assert_eq!(chosen.recv(&signals), Some(signal));
        }
        assert!(select.try_wait().unwrap().is_none());
    }
}

#[test]
fn signal_from_another_thread_ends_a_sleep() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (signals, raiser) = Signals::manual(&reactor);
    let (ask, asked) = std::sync::mpsc::channel();
    let other = thread::spawn(move || {
        for signal in asked {
            raiser.raise(signal).unwrap();
        }
    });
    for round in 0..rounds(2_000) {
        let signal = [Signal::USER1, Signal::USER2, Signal::HANGUP][round as usize % 3];
        ask.send(signal).unwrap();
        let got = match round % 2 {
            0 => reactor.recv(&signals).unwrap(),
            _ => {
                wait_keys(&reactor);
                // The wake-up of a signal may come after that signal was taken.
                reactor.recv(&signals).unwrap()
            }
        };
        assert_eq!(got, signal);
    }
    drop(ask);
    other.join().unwrap();
}

#[test]
fn manual_signals_and_process_signals_stay_apart() {
    support::alone!();
    let reactor = support::reactor();
    let real = reactor.signals(&[Signal::USER1]).unwrap();
    let (signals, raiser) = Signals::manual(&reactor);
    raiser.raise(Signal::USER1).unwrap();
    assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER1);
    assert!(reactor.try_recv(&real).unwrap().is_none());
    nix::sys::signal::raise(nix::sys::signal::SIGUSR1).unwrap();
    assert_eq!(reactor.recv(&real).unwrap(), Signal::USER1);
    assert!(reactor.try_recv(&signals).unwrap().is_none());
    // A dropped source ends no process with its unread signals.
    raiser.raise(Signal::TERMINATE).unwrap();
    drop(signals);
    raiser.raise(Signal::TERMINATE).unwrap();
}

#[test]
fn raising_an_uncatchable_signal_is_an_error() {
    let reactor = support::reactor();
    let (signals, raiser) = Signals::manual(&reactor);
    for n in [i32::MIN, -1, 0, 9, 65, i32::MAX] {
        let refused = raiser.raise(Signal(n)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains(&n.to_string()), "{refused}");
    }
    assert!(reactor.try_recv(&signals).unwrap().is_none());
}

#[test]
fn a_raiser_outlives_source_and_reactor() {
    let reactor = support::reactor();
    let (signals, raiser) = Signals::manual(&reactor);
    let handle = reactor.handle();
    drop(reactor);
    raiser.raise(Signal::HANGUP).unwrap();
    assert_eq!(handle.try_recv(&signals).unwrap_err().kind(), ErrorKind::NotConnected);
    drop(signals);
    raiser.raise(Signal::HANGUP).unwrap();
    let (signals, raiser) = Signals::manual(&handle);
    raiser.raise(Signal::HANGUP).unwrap();
    drop((signals, handle, raiser));
}

#[test]
fn world_member_raises_a_signal_in_another() {
    let history = |seed| {
        let mut world = SimWorld::new(seed);
        let (send, raisers) = pollmux::channel::bounded::<SignalRaiser>(1);
        let served = world.spawn("server", move |reactor| {
            let (signals, raiser) = Signals::manual(&reactor);
            send.try_send(raiser).unwrap();
            let ticker = reactor.every(secs(1)).unwrap();
            let mut ticks = 0;
            loop {
                select! { reactor;
                    recv(ticker) -> _ => ticks += 1,
                    recv(signals) -> signal => {
                        assert_eq!(signal, Signal::TERMINATE);
                        return (ticks, reactor.now());
                    }
                }
            }
        });
        world.spawn("operator", move |reactor| {
            let raisers = reactor.register(raisers).unwrap();
            let raiser = reactor.recv(&raisers).unwrap().unwrap();
            reactor.sleep_blocking(HOUR + ms(500)).unwrap();
            raiser.raise(Signal::TERMINATE).unwrap();
        });
        world.run().unwrap();
        served.take().unwrap()
    };
    let (ticks, at) = history(3);
    assert_eq!((ticks, at - pollmux::Time::ZERO), (3600, HOUR + Duration::from_millis(500)));
    assert_eq!(history(3), (ticks, at));
}
