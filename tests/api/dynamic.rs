//! Checks `Select`, a reusable set of cases, in virtual time.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{self, RecvError, SendError};
use pollmux::sources::BeforeSleep;
use pollmux::{Events, Inbox, Select, Source, Time, Timer, never, select};

use support::{ms, scripted_reactor, simulated, timed};

#[test]
fn an_empty_set_is_an_error() {
    let (_, reactor) = simulated();
    let timer = reactor.after(ms(1));
    let mut select = Select::new(&reactor);
    assert_eq!(select.wait().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(select.try_wait().unwrap_err().kind(), ErrorKind::InvalidInput);
    let index = select.recv(&timer);
    assert!(select.remove(index) && !select.remove(index) && select.is_empty());
    assert_eq!(select.wait().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_set_without_live_sources_is_a_deadlock() {
    let (_, reactor) = simulated();
    let (nothing, none) = (never::<()>(), None::<Timer>);
    let mut select = Select::new(&reactor);
    select.recv(nothing);
    select.recv(&none);
    assert_eq!(select.wait().unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn a_set_takes_every_kind_of_source() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
    let (timer, ticker) = (reactor.after(ms(5)), reactor.every(ms(3)).unwrap());
    let (notifier, notified) = reactor.notifier();
    let mut select = Select::new(&reactor);
    let indices =
        (select.recv(&inbox), select.recv(&timer), select.recv(&ticker), select.recv(&notified));
    assert_eq!(indices, (0, 1, 2, 3));

    let chosen = select.wait().unwrap();
    assert_eq!(chosen.index(), 2);
    assert_eq!(chosen.recv(&ticker).unwrap().missed, 0);
    let chosen = select.wait().unwrap();
    assert_eq!(chosen.index(), 1);
    assert!(chosen.recv(&timer).is_some());
    tx.send(7).unwrap();
    let chosen = select.wait().unwrap();
    assert_eq!((chosen.index(), chosen.recv(&inbox)), (0, Some(Ok(7))));
    notifier.notify();
    let chosen = select.wait().unwrap();
    assert_eq!((chosen.index(), chosen.recv(&notified)), (3, Some(())));
    assert_eq!(sim.now().as_nanos(), 5_000_000);
}

#[test]
fn an_uncompleted_case_is_chosen_again() {
    let (_, reactor) = simulated();
    let timer = reactor.after(ms(1));
    let mut select = Select::new(&reactor);
    select.recv(&timer);
    for _ in 0..3 {
        drop(select.wait().unwrap());
    }
    assert!(select.wait().unwrap().recv(&timer).is_some());
    assert!(select.try_wait().unwrap().is_none());
}

#[test]
fn one_ready_case_of_thousands_is_found() {
    let (_, reactor) = simulated();
    let ends: Vec<_> = (0..5_000).map(|_| reactor.channel::<usize>(1).unwrap()).collect();
    let mut select = Select::new(&reactor);
    for (_, inbox) in &ends {
        select.recv(inbox);
    }
    for i in (0..5_000).step_by(37) {
        ends[i].0.send(i).unwrap();
        let chosen = select.wait().unwrap();
        assert_eq!(chosen.index(), i);
        assert_eq!(chosen.recv(&ends[i].1), Some(Ok(i)));
    }
    assert!(select.try_wait().unwrap().is_none());
}

#[test]
fn the_choice_is_uniform_or_biased() {
    check_uniform_and_biased_choice(0);
    check_uniform_and_biased_choice(50);
}

fn check_uniform_and_biased_choice(idle: usize) {
    let (_, reactor) = simulated();
    let timers: Vec<Timer> = (0..4).map(|_| reactor.after(Duration::ZERO)).collect();
    let idle: Vec<Timer> = (0..idle).map(|_| reactor.timer()).collect();
    let mut select = Select::new(&reactor);
    let mut biased = Select::biased(&reactor);
    for timer in timers.iter().chain(&idle) {
        select.recv(timer);
        biased.recv(timer);
    }
    let mut counts = [0u32; 4];
    for _ in 0..40_000 {
        counts[select.wait().unwrap().index()] += 1;
        assert_eq!(biased.wait().unwrap().index(), 0);
    }
    // Chi-squared with 3 degrees of freedom exceeds 30 once in a million runs.
    let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0).sum();
    assert!(chi < 30.0, "{counts:?}");
}

#[test]
fn either_case_of_one_source_is_chosen() {
    let (_, reactor) = simulated();
    let timer = reactor.after(Duration::ZERO);
    let mut select = Select::new(&reactor);
    let (first, second) = (select.recv(&timer), select.recv(&timer));
    let mut seen = [false; 2];
    for _ in 0..200 {
        seen[select.wait().unwrap().index()] = true;
    }
    assert_eq!(seen, [true; 2]);
    assert!(select.remove(second));
    assert_eq!(select.wait().unwrap().index(), first);
    let third = select.recv(&timer);
    assert_eq!(third, second, "a removed index is used again");
    assert!(select.remove(first));
    assert_eq!(select.wait().unwrap().index(), third);
}

/// Beside 50 idle cases, the set finds ready cases by the reactor's lists.
#[test]
fn cases_can_change_while_a_choice_is_handled() {
    for idle in [0, 50] {
        let (_, reactor) = simulated();
        let mut select = Select::new(&reactor);
        (0..idle).for_each(|_| assert!(select.recv(reactor.timer()) < idle));
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        let inbox = Rc::new(inbox);
        let first = select.recv(inbox.clone());
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        let chosen = select.wait().unwrap();
        assert_eq!(chosen.index(), first);
        // Removes the chosen case. A new case with the same index is ready already.
        assert!(select.remove(first));
        assert_eq!(select.recv(reactor.after(Duration::ZERO)), first);
        assert_eq!(chosen.recv(&inbox), Some(Ok(1)));
        let chosen = select.wait().unwrap();
        assert_eq!(chosen.index(), first, "the timer has the freed index");
        let again = select.recv(inbox.clone());
        drop((chosen, select.remove(first)));
        let chosen = select.wait().unwrap();
        drop(select);
        assert_eq!(
            (chosen.index(), chosen.recv(&*inbox)),
            (again, Some(Ok(2))),
            "a choice outlives its set"
        );
        assert_eq!(Rc::strong_count(&inbox), 1);
    }
}

/// Calls a closure just before the sleep, after the set has polled its cases.
struct CallBeforeSleep<F: Fn()>(F);

impl<F: Fn()> Source for CallBeforeSleep<F> {
    type Item = ();
    fn is_ready(&self) -> bool {
        false
    }
    fn try_take(&self) -> Option<()> {
        None
    }
    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> std::io::Result<()> {
        (self.0)();
        Ok(())
    }
}

/// The message comes just before the sleep, or during the sleep.
#[test]
fn a_message_ends_a_large_sets_sleep() {
    for asleep in [false, true] {
        let (sim, reactor, script) = scripted_reactor();
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        let mut select = Select::new(&reactor);
        (0..50).for_each(|_| assert!(select.recv(reactor.timer()) < 50));
        let index = select.recv(&inbox);
        // Ends a sleep that the message does not end.
        select.recv(reactor.after(ms(1_000)));
        if asleep {
            script.on_sleep(move || {
                tx.send(1).unwrap();
                Ok(())
            });
        } else {
            select.recv(CallBeforeSleep(move || tx.try_send(1).unwrap_or(())));
        }
        assert_eq!(select.wait().unwrap().index(), index);
        assert_eq!((inbox.try_recv(), sim.now()), (Ok(1), Time::ZERO));
        assert_eq!(script.sleeps(), u64::from(asleep));
    }
}

/// A case that was found ready, and is not ready any more, hides no other case.
#[test]
fn a_stale_case_hides_no_other() {
    let (_, reactor) = simulated();
    let ends: Vec<_> = (0..50).map(|_| reactor.channel::<usize>(1).unwrap()).collect();
    let mut select = Select::new(&reactor);
    ends.iter().for_each(|(_, inbox)| assert!(select.recv(inbox) < 50));
    for n in 0..50 {
        ends.iter().for_each(|(tx, _)| tx.send(n).unwrap());
        assert!(select.try_wait().unwrap().is_some());
        let others = (0..50).filter(|&other| other != n);
        others.for_each(|other| assert_eq!(ends[other].1.try_recv(), Ok(n)));
        let chosen = select.try_wait().unwrap().expect("a ready case was not found");
        assert_eq!((chosen.index(), chosen.recv(&ends[n].1)), (n, Some(Ok(n))));
        assert!(select.try_wait().unwrap().is_none());
    }
}

#[test]
fn a_set_may_own_an_outbox() {
    let (_, reactor) = simulated();
    let (tx, rx) = channel::bounded(2);
    let outbox = Rc::new(reactor.register(tx).unwrap());
    let mut select = Select::new(&reactor);
    let index = select.send(outbox.clone());
    let chosen = select.wait().unwrap();
    assert!(select.remove(index));
    assert_eq!(chosen.send(&outbox, 1), Ok(()));
    assert_eq!(rx.try_recv(), Ok(1));
}

#[test]
#[should_panic(expected = "case 0 of the Select was chosen before its last wait")]
fn completing_an_outdated_send_choice_panics() {
    let (_, reactor) = simulated();
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register(tx.clone()).unwrap();
    let mut select = Select::new(&reactor);
    select.send(&outbox);
    let (early, late) = (select.wait().unwrap(), select.wait().unwrap());
    assert_eq!(late.send(&outbox, 1), Ok(()));
    assert_eq!(rx.try_recv(), Ok(1));
    let _ = early.send(&outbox, 2);
}

/// The cost of a ready case does not depend on the number of ready cases.
#[test]
fn many_ready_cases_are_taken_in_linear_time() {
    let (_, reactor) = simulated();
    let each = |n: usize| {
        let ends: Vec<_> = (0..n).map(|_| reactor.channel::<usize>(1).unwrap()).collect();
        let mut select = Select::new(&reactor);
        ends.iter().for_each(|(_, inbox)| assert!(select.recv(inbox) < n));
        let mut best = Duration::MAX;
        for _ in 0..5 {
            ends.iter().for_each(|(tx, _)| tx.send(n).unwrap());
            let ((), took) = timed(|| {
                for _ in 0..n {
                    let chosen = select.wait().unwrap();
                    let index = chosen.index();
                    assert_eq!(chosen.recv(&ends[index].1), Some(Ok(n)));
                }
            });
            best = best.min(took);
        }
        best / n as u32
    };
    let (few, many) = (each(200), each(4_000));
    // If each choice walked over all ready cases, the factor would be 20.
    assert!(many < 6 * few, "{few:?} each of 200, {many:?} each of 4,000");
}

#[test]
fn a_chosen_send_case_reserves_its_room() {
    let (_, reactor) = simulated();
    let (tx, rx) = channel::bounded(1);
    let other = tx.clone();
    let outbox = reactor.register(tx).unwrap();
    let mut select = Select::new(&reactor);
    select.send(&outbox);

    let chosen = select.wait().unwrap();
    assert!(
        other.try_send(9).is_err_and(|error| error.is_full()),
        "the reserved room was given to another sender"
    );
    drop(chosen);
    other.try_send(1).unwrap();
    assert!(select.try_wait().unwrap().is_none());
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(select.wait().unwrap().send(&outbox, 2), Ok(()));
    assert_eq!(rx.recv(), Ok(2));
    drop(rx);
    assert_eq!(select.wait().unwrap().send(&outbox, 3), Err(SendError(3)));
    drop(select.wait().unwrap());
}

#[test]
fn room_in_a_channel_wakes_a_send_case() {
    let reactor = support::reactor();
    let (tx, rx) = channel::bounded(1);
    tx.send(0).unwrap();
    let outbox = reactor.register(tx).unwrap();
    let receiver = support::thread::spawn(move || rx.iter().collect::<Vec<_>>());
    {
        let mut select = Select::new(&reactor);
        select.send(&outbox);
        for n in 1..500 {
            select.wait().unwrap().send(&outbox, n).unwrap();
        }
    }
    drop(outbox);
    assert_eq!(receiver.join().unwrap(), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_set_takes_both_ends_of_a_rendezvous() {
    let here = support::reactor();
    let (tx, rx) = channel::bounded::<u32>(0);
    let outbox = here.register(tx).unwrap();
    let there = support::thread::spawn(move || {
        let reactor = support::reactor();
        let inbox = reactor.register(rx).unwrap();
        let mut select = Select::new(&reactor);
        select.recv(&inbox);
        let mut sum = 0;
        while let Some(Ok(n)) = select.wait().unwrap().recv(&inbox) {
            sum += n;
        }
        sum
    });
    {
        let mut select = Select::new(&here);
        select.send(&outbox);
        for n in 1..=100 {
            select.wait().unwrap().send(&outbox, n).unwrap();
        }
    }
    drop(outbox);
    assert_eq!(there.join().unwrap(), 5_050);
}

#[test]
fn a_due_case_beats_the_timeout() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(10));
    let mut select = Select::new(&reactor);
    select.recv(&timer);
    assert!(select.wait_timeout(ms(9)).unwrap().is_none());
    assert_eq!(sim.now().as_nanos(), 9_000_000);
    assert!(select.wait_timeout(ms(1)).unwrap().is_some());
}

#[test]
fn a_foreign_source_error_names_the_case() {
    let ((_, here), (_, there)) = (simulated(), simulated());
    let (ours, theirs) = (here.after(ms(1)), there.after(ms(1)));
    let mut select = Select::new(&here);
    select.recv(&ours);
    let foreign = select.recv(&theirs);
    let error = select.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("case 1"), "{error}");
    select.remove(foreign);
    assert!(select.wait().is_ok());
}

#[test]
#[should_panic(expected = "case 0 of the Select is not a receive case of this source")]
fn completing_a_case_with_another_source_panics() {
    let (_, reactor) = simulated();
    let (timer, other) = (reactor.after(Duration::ZERO), reactor.after(Duration::ZERO));
    let mut select = Select::new(&reactor);
    select.recv(&timer);
    let _ = select.wait().unwrap().recv(&other);
}

#[test]
fn a_set_without_its_reactor_is_an_error() {
    let (_, reactor) = simulated();
    let timer = reactor.after(ms(1));
    let mut select = Select::new(&reactor);
    select.recv(&timer);
    drop(reactor);
    assert_eq!(select.wait().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn sets_and_select_macros_can_share_sources() {
    let (_, reactor) = simulated();
    let (tx, inbox): (_, Inbox<u32>) = reactor.channel(4).unwrap();
    let mut select = Select::new(&reactor);
    select.recv(&inbox);
    for n in 0..100 {
        tx.send(n).unwrap();
        if n % 3 == 0 {
            pollmux::select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
        } else if n % 3 == 1 {
            assert_eq!(select.wait().unwrap().recv(&inbox), Some(Ok(n)));
        } else {
            assert_eq!(inbox.try_take(), Some(Ok(n)));
        }
        assert!(select.try_wait().unwrap().is_none(), "a case is still ready after message {n}");
    }
}

#[test]
fn ready_sources_outside_the_set_cost_nothing() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (_tx, silent) = reactor.channel::<u32>(1).unwrap();
    let mut select = Select::new(&reactor);
    let first = select.recv(&silent);
    select.recv(&inbox);
    let mut turn = |n: u32| {
        tx.try_send(n).unwrap();
        let chosen = select.wait().unwrap();
        assert_eq!(chosen.recv(&inbox), Some(Ok(n)));
    };
    turn(0);
    let forgotten: Vec<_> = (0..200_000).map(|_| reactor.after(Duration::ZERO)).collect();
    // The forgotten timers expire in batches.
    (0..200).for_each(&mut turn);
    let ((), took) = timed(|| (0..10_000).for_each(&mut turn));
    // Walking over all ready sources would take 200,000 steps a turn, so minutes of CPU time.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(first, 0);
    drop(forgotten);
}

#[test]
fn a_disconnected_channel_is_always_ready() {
    let (_, reactor) = simulated();
    for biased in [false, true] {
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        let (other, others) = reactor.channel::<u32>(4).unwrap();
        let idle = reactor.timer();
        let mut select = if biased { Select::biased(&reactor) } else { Select::new(&reactor) };
        select.recv(&idle);
        select.recv(&inbox);
        select.recv(&others);
        tx.send(1).unwrap();
        drop(tx);
        assert_eq!(select.wait().unwrap().recv(&inbox), Some(Ok(1)));
        for _ in 0..3 {
            assert_eq!(select.wait().unwrap().recv(&inbox), Some(Err(RecvError)));
            assert_eq!(select.try_wait().unwrap().unwrap().recv(&inbox), Some(Err(RecvError)));
            assert_eq!(
                select.wait_timeout(ms(1)).unwrap().unwrap().recv(&inbox),
                Some(Err(RecvError))
            );
        }
        // The other cases are still chosen, unless a biased set prefers the disconnected channel.
        other.send(2).unwrap();
        let mut indices = Vec::new();
        while !others.is_empty() && indices.len() < 200 {
            let chosen = select.wait().unwrap();
            indices.push(chosen.index());
            match chosen.index() {
                1 => assert_eq!(chosen.recv(&inbox), Some(Err(RecvError))),
                _ => assert_eq!(chosen.recv(&others), Some(Ok(2))),
            }
        }
        assert_eq!(indices.last().copied(), Some(if biased { 1 } else { 2 }));
        assert!(select.remove(1));
        others.try_iter().for_each(drop);
        assert!(select.try_wait().unwrap().is_none());
        let again = select.recv(&inbox);
        assert_eq!((again, select.wait().unwrap().index()), (1, 1));
    }
}

#[test]
fn a_disconnection_received_elsewhere_is_not_lost() {
    let (_, reactor) = simulated();
    // The disconnection is received before the case is added, or later without the set.
    for early in [true, false] {
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        let idle: Vec<_> = (0..8).map(|_| reactor.timer()).collect();
        let mut select = Select::new(&reactor);
        for timer in &idle {
            select.recv(timer);
        }
        drop(tx);
        if early {
            assert!(inbox.try_recv().is_err());
        }
        let index = select.recv(&inbox);
        let twice = select.recv(&inbox);
        if !early {
            assert_eq!(reactor.recv(&inbox).unwrap(), Err(RecvError));
        }
        for _ in 0..20 {
            let chosen = select.wait().unwrap();
            assert!([index, twice].contains(&chosen.index()));
            assert_eq!(chosen.recv(&inbox), Some(Err(RecvError)));
        }
        // A wait reports a disconnection only until it has been received.
        assert_eq!(support::ready_keys(&reactor), []);
    }
}

#[test]
fn a_cancelled_context_is_always_ready() {
    let (sim, reactor) = simulated();
    let (context, canceller) = reactor.context().with_cancel();
    let (limited, _keep) = reactor.context().with_timeout(ms(3));
    let (done, timeout) = (reactor.done(&context), reactor.done(&limited));
    let mut select = Select::new(&reactor);
    let (first, second) = (select.recv(&done), select.recv(&timeout));
    canceller.cancel();
    for _ in 0..3 {
        let chosen = select.wait().unwrap();
        assert_eq!(chosen.index(), first);
        assert!(chosen.recv(&done).is_some());
    }
    // A context is also ready when its deadline has passed and a `select!` has taken its end
    // before.
    sim.advance(ms(4));
    select! { reactor; recv(timeout) -> _ => {}, default => panic!("the deadline was not found") }
    select.remove(first);
    for _ in 0..3 {
        let chosen = select.wait().unwrap();
        assert_eq!(chosen.index(), second);
        assert!(chosen.recv(&timeout).is_some());
    }
}

#[test]
fn disconnected_channels_outside_the_set_are_ignored() {
    let (_, reactor) = simulated();
    let ended: Vec<_> = (0..1_000).map(|_| reactor.channel::<u32>(1).unwrap().1).collect();
    ended.iter().for_each(|inbox| assert!(inbox.try_recv().is_err()));
    let mut all = Select::new(&reactor);
    for inbox in &ended {
        all.recv(inbox);
    }
    let mut few = Select::new(&reactor);
    few.recv(&ended[7]);
    for _ in 0..3 {
        assert_eq!(few.wait().unwrap().recv(&ended[7]), Some(Err(RecvError)));
        let chosen = all.wait().unwrap();
        let index = chosen.index();
        assert_eq!(chosen.recv(&ended[index]), Some(Err(RecvError)));
    }
    drop((all, few));
    drop(ended);
    assert_eq!(reactor.stats().live, 0);
}

#[test]
fn foreign_cases_are_found_by_their_reactor() {
    let (_, reactor) = simulated();
    let (_, other) = simulated();
    // The foreign timers have the same slots as ours, and so the same tokens.
    let theirs = [other.after(ms(1)), other.after(ms(1)), other.after(ms(1))];
    let ours = [reactor.after(ms(1)), reactor.timer(), reactor.timer()];
    let (tx, _rx) = channel::bounded::<u32>(1);
    let outbox = other.register(tx).unwrap();
    let mut select = Select::new(&reactor);
    select.recv(&theirs[0]);
    select.recv(&theirs[1]);
    let mine = select.recv(&ours[0]);
    select.recv(&theirs[2]);
    let names = |select: &mut Select<'_>, case: &str| {
        let error = select.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(case), "{error}");
    };
    names(&mut select, "case 0 ");
    assert!(select.remove(0));
    names(&mut select, "case 1 ");
    assert!(select.remove(3));
    names(&mut select, "case 1 ");
    assert!(select.remove(1) && !select.remove(1));
    let chosen = select.wait().unwrap();
    assert_eq!(chosen.index(), mine);
    assert!(chosen.recv(&ours[0]).is_some());
    assert_eq!(select.len(), 1);
    // Adding and removing a foreign case leaves our cases unchanged.
    let index = select.recv(&theirs[0]);
    names(&mut select, &format!("case {index} "));
    select.remove(index);
    ours[0].reset(ms(1));
    assert_eq!(select.wait().unwrap().index(), mine);
    // An outbox of another reactor is an error, too.
    let index = select.send(&outbox);
    names(&mut select, &format!("case {index} "));
    select.remove(index);
    assert_eq!(select.wait().unwrap().index(), mine);
}

/// A source that counts the sleeps. The source becomes ready after a hundred sleeps, so
/// that a spinning loop ends.
#[derive(Default)]
struct Sleeps(Cell<u32>);

impl Source for Sleeps {
    type Item = ();

    fn is_ready(&self) -> bool {
        self.0.get() >= 100
    }

    fn try_take(&self) -> Option<()> {
        self.is_ready().then_some(())
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> std::io::Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

#[test]
fn an_offer_does_not_wake_its_own_reactor() {
    support::exact("counts sleeps");
    let (sim, reactor) = simulated();
    let (sender, receiver) = channel::bounded::<u8>(0);
    let (outbox, inbox) = (reactor.register(sender).unwrap(), reactor.register(receiver).unwrap());
    let sleeps = Sleeps::default();
    let mut select = Select::new(&reactor);
    select.send(&outbox);
    select.recv(&sleeps);
    assert!(select.wait_timeout(ms(1)).unwrap().is_none());
    select.recv(&inbox);
    select.send(&outbox);
    assert!(select.wait_timeout(ms(1)).unwrap().is_none());
    // After a `wait` the inbox requests marks. A `select!` with the outbox still sleeps.
    reactor.wait_timeout(&mut Events::new(), ms(1)).unwrap();
    select! { reactor;
        send(outbox, 1) -> _ => panic!("the offer was accepted without a receiver"),
        recv(sleeps) -> _ => panic!("the select spins"),
        default(ms(1)) => {}
    }
    assert_eq!(sim.now() - Time::ZERO, ms(4));
    assert_eq!(sleeps.0.get(), 3);
}
