//! A channel counts at most 16,383 permits. With that many held, no further send case is ready.

use pollmux::{Outbox, Reactor, Select, Sim, Time, channel, select};
use support::{ms, simulated, watchdog};

const MAX_PERMITS: usize = 16_383;

/// The permits of one channel. Each is held by a set whose send case was chosen.
struct HeldPermits {
    sim: Sim,
    reactor: Reactor,
    outbox: &'static Outbox<u32>,
    rx: channel::Receiver<u32>,
    sets: Vec<Select<'static>>,
}

fn held(permits: usize) -> HeldPermits {
    let (sim, reactor) = simulated();
    let (tx, rx) = channel::bounded::<u32>(20_000);
    let outbox: &'static Outbox<u32> = Box::leak(Box::new(reactor.register(tx).unwrap()));
    let sets = (0..permits).map(|_| {
        let mut set = Select::new(&reactor);
        set.send(outbox);
        // A forgotten choice leaves its permit with the set, until its next wait or its drop.
        std::mem::forget(set.try_wait().unwrap().expect("a permit"));
        set
    });
    let sets = sets.collect();
    HeldPermits { sim, reactor, outbox, rx, sets }
}

#[test]
fn last_permit_can_be_taken() {
    let _watchdog = watchdog();
    let mut held = held(MAX_PERMITS - 1);
    let mut set = Select::new(&held.reactor);
    set.send(held.outbox);
    set.wait().unwrap().send(held.outbox, 1).unwrap();
    assert_eq!(held.rx.try_recv(), Ok(1));
    held.sets.clear();
}

#[test]
fn send_case_without_a_permit_is_not_ready() {
    let _watchdog = watchdog();
    let mut held = held(MAX_PERMITS);
    let outbox = held.outbox;
    // The channel still has room. Sending a message without a select needs no permit.
    assert!(!held.rx.is_full());
    let mut set = Select::new(&held.reactor);
    set.send(outbox);
    assert!(set.try_wait().unwrap().is_none());
    assert!(set.wait_timeout(ms(5)).unwrap().is_none());
    assert_eq!(held.sim.now(), Time::ZERO + ms(5));
    select! { held.reactor; send(outbox, 1) -> _ => panic!("no permit"), default => {} }
    select! { held.reactor; send(outbox, 1) -> _ => panic!("no permit"), default(ms(5)) => {} }
    assert_eq!(held.sim.now(), Time::ZERO + ms(10));
    let timer = held.reactor.after(ms(5));
    select! { held.reactor; biased; send(outbox, 1) -> _ => panic!("sent"), recv(timer) -> _ => {} }

    // A returned permit can be taken again.
    drop(held.sets.pop());
    select! { held.reactor;
        send(outbox, 2) -> sent => assert!(sent.is_ok()),
        default => panic!("no permit"),
    }
    assert_eq!(held.rx.try_recv(), Ok(2));
}

#[test]
fn blocked_send_case_gets_a_returned_permit() {
    let _watchdog = watchdog();
    // While the select waits for a permit, a callback uses one or gives one back.
    for uses in [true, false] {
        let mut held = held(MAX_PERMITS);
        let outbox = held.outbox;
        let mut last = held.sets.pop();
        let reactor = &held.reactor;
        let timer = reactor.after(ms(5));
        let call = reactor.call_after(ms(1), move |_| {
            // The set's next wait gives the permit back and takes one.
            let Some(mut set) = last.take() else { return };
            if uses {
                set.try_wait().unwrap().unwrap().send(outbox, 3).unwrap();
            }
        });
        select! { reactor;
            send(outbox, 4) -> sent => assert!(sent.is_ok()),
            recv(timer) -> _ => panic!("no permit"),
        }
        assert_eq!(held.sim.now(), Time::ZERO + ms(1));
        assert_eq!(held.rx.try_iter().collect::<Vec<_>>(), if uses { vec![3, 4] } else { vec![4] });
        drop(call);
    }
}

#[test]
fn returned_permit_wakes_another_reactor() {
    let _watchdog = watchdog();
    // Two reactors on two threads send through one channel.
    let reactor = support::reactor();
    let (tx, rx) = channel::bounded::<u32>(20_000);
    let outbox = reactor.register(tx.clone()).unwrap();
    let mut sets: Vec<_> = (0..MAX_PERMITS)
        .map(|_| {
            let mut set = Select::new(&reactor);
            set.send(&outbox);
            std::mem::forget(set.try_wait().unwrap().expect("a permit"));
            set
        })
        .collect();
    let other = support::thread::spawn(move || {
        let reactor = support::reactor();
        let outbox = reactor.register(tx).unwrap();
        select! { reactor; send(outbox, 9) -> sent => assert!(sent.is_ok()) }
    });
    std::thread::sleep(ms(20));
    sets.pop().unwrap().try_wait().unwrap().unwrap().send(&outbox, 1).unwrap();
    other.join().unwrap();
    let mut got: Vec<_> = rx.try_iter().collect();
    got.sort_unstable();
    assert_eq!(got, [1, 9]);
}
