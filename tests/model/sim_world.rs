//! Simulated worlds: one history a seed, links with delays, losses and partitions, crashes, and
//! reports of deadlocks.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pollmux::channel::{self, Receiver, RecvTimeoutError, SendTimeoutError, TryRecvError};
use pollmux::{
    Context, Events, Reactor, SimWorld, Time,
    context::ContextError,
    select,
    sim::{Deadlock, Link, LinkStats},
};
use support::{Drops, HOUR, alone, at, ms, panic_text, sleep, text, thread, watchdog};

type Log<T> = Arc<Mutex<Vec<T>>>;

fn note<T>(log: &Log<T>, what: T) {
    log.lock().unwrap().push(what);
}

fn noted<T: Clone>(log: &Log<T>) -> Vec<T> {
    log.lock().unwrap().clone()
}

/// Logs each message with its time until the senders are dropped.
fn spawn_logger<T: Send + 'static>(world: &SimWorld, name: &str, rx: Receiver<T>) -> Log<(u64, T)> {
    let log = Log::default();
    let copy = log.clone();
    world.spawn(name, move |reactor| {
        let inbox = reactor.register(rx).unwrap();
        loop {
            select! { reactor;
                recv(inbox) -> message => match message {
                    Ok(message) => {
                        let now = (reactor.now() - Time::ZERO).as_millis() as u64;
                        note(&copy, (now, message))
                    }
                    Err(_) => break,
                },
            }
        }
    });
    log
}

// Time and turns.

#[test]
fn the_clock_jumps_to_the_next_deadline() {
    let mut world = SimWorld::new(1);
    let log = Log::default();
    for (name, period) in [("a", 20), ("b", 30)] {
        let log = log.clone();
        world.spawn(name, move |reactor| {
            let ticker = reactor.every(ms(period)).unwrap();
            for _ in 0..3 {
                select! { reactor;
                    recv(ticker) -> tick => note(&log, (name, tick.scheduled, reactor.now())),
                }
            }
        });
    }
    let begin = Instant::now();
    world.run().unwrap();
    let mut log = noted(&log);
    assert!(log.is_sorted_by_key(|entry| entry.2), "{log:?}");
    log.sort();
    let expected = [20, 40, 60]
        .map(|t| ("a", at(t), at(t)))
        .into_iter()
        .chain([30, 60, 90].map(|t| ("b", at(t), at(t))));
    assert_eq!(log, expected.collect::<Vec<_>>());
    assert_eq!(world.now(), at(90));
    drop(world);
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn only_one_member_runs_at_a_time() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(2);
    let inside = Arc::new(AtomicUsize::new(0));
    for n in 0..8 {
        let inside = inside.clone();
        world.spawn(&n.to_string(), move |reactor| {
            for _ in 0..50 {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                thread::yield_now();
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                sleep(&reactor, ms(1));
            }
        });
    }
    world.run().unwrap();
}

/// Returns the members in the order of their runs, at 20 instants at which all members were due.
fn order(seed: u64) -> Vec<u64> {
    let mut world = SimWorld::new(seed);
    let log = Log::default();
    for n in 0..4u64 {
        let log = log.clone();
        world.spawn(&n.to_string(), move |reactor| {
            for _ in 0..20 {
                note(&log, n);
                sleep(&reactor, ms(1));
            }
        });
    }
    world.run().unwrap();
    noted(&log)
}

#[test]
fn the_seed_chooses_who_runs_first() {
    for seed in 0..10 {
        assert_eq!(order(seed), order(seed), "seed {seed}");
    }
    assert_ne!(order(1), order(2));
    let first: Vec<u64> = (0..40).map(|seed| order(seed)[0]).collect();
    assert!((0..4).all(|n| first.contains(&n)), "a member never runs first: {first:?}");
}

#[test]
fn the_seed_chooses_among_ready_cases() {
    let choices = |seed| {
        let mut world = SimWorld::new(seed);
        let member = world.spawn("a", |reactor| {
            (0..30)
                .map(|_| {
                    let timers = [reactor.after(ms(1)), reactor.after(ms(1))];
                    sleep(&reactor, ms(2));
                    select! { reactor; recv(timers[0]) -> _ => 0, recv(timers[1]) -> _ => 1 }
                })
                .collect::<Vec<_>>()
        });
        world.run().unwrap();
        member.take().unwrap()
    };
    assert_eq!(choices(5), choices(5));
    assert_ne!(choices(5), choices(6));
}

#[test]
fn channels_between_members_lose_nothing() {
    let _watchdog = watchdog();
    for capacity in [Some(0), Some(1), Some(16), None] {
        for seed in 0..20 {
            let mut world = SimWorld::new(seed);
            let (tx, rx) = match capacity {
                Some(capacity) => channel::bounded(capacity),
                None => channel::unbounded(),
            };
            let receiver = world.spawn("receiver", move |reactor| {
                let inbox = reactor.register(rx).unwrap();
                let mut received = Vec::new();
                loop {
                    select! { reactor; recv(inbox) -> n => match n {
                        Ok(n) => received.push(n),
                        Err(_) => return received,
                    } }
                }
            });
            for sender in 0..2 {
                let tx = tx.clone();
                world.spawn(&format!("sender {sender}"), move |reactor| {
                    let outbox = reactor.register(tx).unwrap();
                    for n in 0..20 {
                        select! { reactor; send(outbox, (sender, n)) -> sent => sent.unwrap() }
                    }
                });
            }
            drop(tx);
            world.run().unwrap();
            assert_eq!(world.now(), Time::ZERO, "sends must take no time");
            let received = receiver.take().unwrap();
            for sender in 0..2 {
                let own: Vec<u32> =
                    received.iter().filter(|(from, _)| *from == sender).map(|(_, n)| *n).collect();
                assert_eq!(own, (0..20).collect::<Vec<_>>(), "capacity {capacity:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn waits_notifiers_and_contexts_work_between_members() {
    let mut world = SimWorld::new(3);
    let (context, canceller) = Context::on_clock(world.clock()).with_timeout(HOUR);
    let (notifiers, notifier) = channel::bounded(1);
    let rung = world.spawn("rung", move |reactor| {
        let (notifier, notified) = reactor.notifier();
        let (notified, done) = (notified.with_key(1), reactor.done(&context).with_key(2));
        notifiers.try_send(notifier).unwrap();
        let (mut events, mut log) = (Events::with_capacity(4), Vec::new());
        while log.len() < 3 {
            reactor.wait(&mut events).unwrap();
            for event in &events {
                match event.key() {
                    1 => drop(pollmux::Source::try_take(&notified)),
                    _ => drop(pollmux::Source::try_take(&done)),
                }
                log.push((event.key(), reactor.now()));
            }
        }
        (log, context.err())
    });
    world.spawn("ringer", move |reactor| {
        let inbox = reactor.register(notifier).unwrap();
        let notifier = select! { reactor; recv(inbox) -> notifier => notifier.unwrap() };
        for _ in 0..2 {
            sleep(&reactor, ms(10));
            notifier.notify();
        }
        sleep(&reactor, ms(10));
        canceller.cancel();
    });
    world.run().unwrap();
    let (log, err) = rung.take().unwrap();
    assert_eq!(
        (log, err),
        (vec![(1, at(10)), (1, at(20)), (2, at(30))], Some(ContextError::Cancelled))
    );
}

#[test]
fn a_contexts_deadline_is_shared_by_all_members() {
    let mut world = SimWorld::new(4);
    let (context, _canceller) = Context::on_clock(world.clock()).with_timeout(HOUR);
    let members: Vec<_> = (0..3)
        .map(|n| {
            let context = context.clone();
            world.spawn(&n.to_string(), move |reactor| {
                let done = reactor.done(&context);
                select! { reactor; recv(done) -> cause => (cause.error(), reactor.now()) }
            })
        })
        .collect();
    world.run_for(HOUR - ms(1)).unwrap();
    assert_eq!(context.err(), None);
    world.run().unwrap();
    for member in members {
        assert_eq!(member.take(), Some((ContextError::DeadlineExceeded, Time::ZERO + HOUR)));
    }
    assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
}

#[test]
fn run_for_stops_at_its_time_and_resumes() {
    let mut world = SimWorld::new(5);
    let log = Log::default();
    let copy = log.clone();
    let member = world.spawn("a", move |reactor| {
        let ticker = reactor.every(ms(10)).unwrap();
        for n in 1..=5 {
            select! { reactor; recv(ticker) -> _ => note(&copy, n) }
        }
        "done"
    });
    for (d, now, ticks) in [(25, 25, 2), (5, 30, 3), (0, 30, 3), (9, 39, 3), (1, 40, 4)] {
        world.run_for(ms(d)).unwrap();
        assert_eq!((world.now(), noted(&log).len()), (at(now), ticks));
        assert_eq!(member.take(), None);
    }
    world.run_until(at(10)).unwrap();
    assert_eq!(world.now(), at(40), "the clock went back");
    world.run().unwrap();
    assert_eq!((world.now(), member.take(), member.take()), (at(50), Some("done"), None));
    world.run_for(HOUR).unwrap();
}

#[test]
fn a_world_without_members_ends_at_once() {
    let mut world = SimWorld::starting_at(1, at(7));
    world.run().unwrap();
    assert_eq!((world.now(), world.stats()), (at(7), Default::default()));
}

#[test]
fn members_may_be_added_during_and_between_runs() {
    let mut world = SimWorld::new(6);
    let handle = world.handle();
    let log: Log<&str> = Log::default();
    let copy = log.clone();
    world.spawn("parent", move |reactor| {
        sleep(&reactor, ms(5));
        let log = copy.clone();
        handle.spawn("child", move |reactor| {
            sleep(&reactor, ms(5));
            note(&log, "child");
        });
        note(&copy, "parent");
    });
    world.run().unwrap();
    let copy = log.clone();
    world.spawn("late", move |reactor| {
        assert_eq!(reactor.now(), at(10));
        note(&copy, "late");
    });
    world.run().unwrap();
    assert_eq!(noted(&log), ["parent", "child", "late"]);
}

// Deadlocks, panics and wrong calls.

#[test]
fn a_deadlock_lists_the_waiting_members() {
    let mut world = SimWorld::new(7);
    let (tx, rx) = channel::unbounded::<u32>();
    let link = world.link("client", "server", tx).with_loss(1.0);
    let log = spawn_logger(&world, "server", rx);
    let (never, answer) = channel::unbounded::<()>();
    let copy = link.clone();
    world.spawn("client", move |reactor| {
        let inbox = reactor.register(answer).unwrap();
        sleep(&reactor, ms(3));
        copy.send(1);
        select! { reactor; recv(inbox) -> _ => {} }
    });
    let deadlock = world.run().unwrap_err();
    let told: Vec<_> =
        deadlock.waiting.iter().map(|member| (member.member.as_str(), member.deadline)).collect();
    assert_eq!((deadlock.at, told), (at(3), vec![("server", None), ("client", None)]));
    let lost = LinkStats { sent: 1, delivered: 0, lost: 1 };
    assert_eq!(deadlock.waiting[0].links, [("client".to_string(), lost)]);
    let text = deadlock.to_string();
    for part in [
        "3ms",
        "server waits",
        "client waits",
        "without a deadline",
        "from client: 1 sent, 0 delivered, 1 lost",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(io::Error::from(deadlock.clone()).kind(), io::ErrorKind::Deadlock);
    assert_eq!(world.run_for(HOUR), Err(deadlock), "time must not pass");
    // The members continue when there are messages.
    link.set_loss(0.0);
    link.send(2);
    never.send(()).unwrap();
    drop(link);
    world.run().unwrap();
    assert_eq!(noted(&log), [(3, 2)]);
}

/// Runs a world with this one member, and returns the text of the panic.
fn panic_of(body: impl FnOnce(Reactor) + Send + 'static) -> String {
    let mut world = SimWorld::new(8);
    world.spawn("culprit", body);
    panic_text(|| drop(world.run()))
}

#[test]
fn a_blocking_bare_end_names_its_member() {
    let _watchdog = watchdog();
    let blocking: [(&str, fn()); 7] = [
        ("recv", || {
            let (_tx, rx) = channel::bounded::<u32>(1);
            let _ = rx.recv();
        }),
        ("recv", || {
            let (_tx, rx) = channel::unbounded::<u32>();
            let _ = rx.recv_timeout(HOUR);
        }),
        ("recv", || {
            let (_tx, rx) = channel::bounded::<u32>(0);
            let _ = rx.recv();
        }),
        ("recv", || {
            let (_tx, rx) = channel::bounded::<u32>(1);
            rx.iter().for_each(drop);
        }),
        ("send", || {
            let (tx, _rx) = channel::bounded(1);
            tx.send(1).unwrap();
            let _ = tx.send(2);
        }),
        ("send", || {
            let (tx, _rx) = channel::bounded(1);
            tx.send(1).unwrap();
            let _ = tx.send_timeout(2, HOUR);
        }),
        ("send", || {
            let (tx, _rx) = channel::bounded(0);
            let _ = tx.send(2);
        }),
    ];
    for (n, (call, body)) in blocking.into_iter().enumerate() {
        let text = panic_of(move |_| body());
        assert!(
            text.contains(&format!("`{call}` would block")) && text.contains("`culprit`"),
            "{n}: {text}"
        );
    }
}

#[test]
fn a_bare_end_that_need_not_block_works() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(9);
    world.spawn("a", |_| {
        let (tx, rx) = channel::bounded(1);
        tx.send(1).unwrap();
        assert_eq!(tx.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
        assert_eq!((rx.recv(), rx.try_recv()), (Ok(1), Err(TryRecvError::Empty)));
        assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        let (tx, rx) = channel::bounded::<u32>(0);
        assert_eq!(tx.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
        assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        drop(tx);
        assert!(rx.recv().is_err());
    });
    world.run().unwrap();
    // A bare end may block after the world's drop, on the thread that ran it.
    drop(world);
    let (tx, rx) = channel::bounded(1);
    thread::spawn(move || {
        thread::sleep(ms(2)); // real time: the receiver is to block
        tx.send(1).unwrap();
    });
    assert_eq!(rx.recv(), Ok(1));
}

#[test]
fn a_members_panic_is_the_runs_panic() {
    let _watchdog = watchdog();
    let dropped = Drops::new();
    let mut world = SimWorld::new(10);
    for n in 0..3 {
        let counted = dropped.message();
        world.spawn(&n.to_string(), move |reactor| {
            let _counted = counted;
            sleep(&reactor, HOUR);
        });
    }
    world.spawn("culprit", |reactor| {
        sleep(&reactor, ms(1));
        panic!("on purpose");
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(world.run())));
    assert_eq!(text(panicked.unwrap_err()), "on purpose");
    assert_eq!(dropped.count(), 0);
    // A member that has not begun ends, too.
    let counted = dropped.message();
    world.spawn("late", move |_| drop(counted));
    drop(world);
    assert_eq!(dropped.count(), 4);
}

#[test]
fn dropping_a_world_drops_members_and_messages() {
    let _watchdog = watchdog();
    let payload = Arc::new(());
    let (tx, rx) = channel::unbounded();
    let link;
    {
        let mut world = SimWorld::new(11);
        link = world.link("a", "b", tx).with_delay(HOUR..=HOUR);
        let (copy, message) = (link.clone(), payload.clone());
        world.spawn("a", move |reactor| {
            copy.send(message.clone());
            sleep(&reactor, HOUR * 2);
        });
        world.run_for(ms(1)).unwrap();
        assert_eq!(link.stats().in_flight(), 1);
        assert_eq!(Arc::strong_count(&payload), 3);
    }
    assert_eq!(Arc::strong_count(&payload), 1);
    // A link that outlives its world delivers nothing.
    link.send(payload.clone());
    assert_eq!(Arc::strong_count(&payload), 1);
    drop(link);
    assert!(rx.recv().is_err());
}

#[test]
fn names_must_be_unique_and_known() {
    let mut world = SimWorld::new(12);
    world.spawn("a", |reactor| sleep(&reactor, ms(1)));
    let panicked = |f: &dyn Fn()| panic_text(f);
    assert!(panicked(&|| drop(world.spawn("a", |_| ()))).contains("`a` is running already"));
    assert!(panicked(&|| world.partition(&[&["a"], &["b"]])).contains("`b`"));
    assert!(panicked(&|| world.cut("a", "b")).contains("`b`"));
    let link = world.link("b", "c", channel::unbounded::<()>().0);
    world.cut("a", "b");
    let backwards = std::ops::RangeInclusive::new(ms(2), ms(1));
    assert!(panicked(&|| link.set_delay(backwards.clone())).contains("empty"));
    assert!(panicked(&|| link.set_loss(1.5)).contains("1.5"));
    assert!(panicked(&|| link.set_loss(f64::NAN)).contains("NaN"));
    world.run().unwrap();
    world.spawn("a", |_| ());
    world.run().unwrap();
    assert!(!world.kill("a"), "killed a member that has returned");
}

// Links.

/// Sends 1,000 messages, a millisecond apart. Returns the log of the receiver and the statistics.
fn stream(seed: u64, with: impl FnOnce(Link<u64>) -> Link<u64>) -> (Vec<(u64, u64)>, LinkStats) {
    let mut world = SimWorld::new(seed);
    let (tx, rx) = channel::unbounded();
    let link = with(world.link("a", "b", tx));
    let log = spawn_logger(&world, "b", rx);
    let sender = world.spawn("a", move |reactor| {
        let ticker = reactor.every(ms(1)).unwrap();
        for _ in 0..1_000 {
            let tick = select! { reactor; recv(ticker) -> tick => tick };
            link.send((tick.scheduled - Time::ZERO).as_millis() as u64);
        }
        let watch = reactor.every(ms(1)).unwrap();
        while link.stats().in_flight() > 0 {
            select! { reactor; recv(watch) -> _ => {} }
        }
        link.stats()
    });
    world.run().unwrap();
    (noted(&log), sender.take().unwrap())
}

#[test]
fn a_plain_link_delivers_everything_at_once() {
    let (log, stats) = stream(1, |link| link);
    assert_eq!(log, (1..=1_000).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(stats, LinkStats { sent: 1_000, delivered: 1_000, lost: 0 });
}

#[test]
fn a_delay_keeps_its_range_and_order() {
    let (log, _) = stream(2, |link| link.with_delay(ms(5)..=ms(25)));
    assert_eq!(log.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (1..=1_000).collect::<Vec<_>>());
    let delays: Vec<u64> = log.iter().map(|(at, n)| at - n).collect();
    assert!(delays.iter().all(|d| (5..=25).contains(d)), "{delays:?}");
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*least < 20 && *most >= 24, "not the whole range: {least} to {most}");
}

#[test]
fn reordering_lets_messages_overtake() {
    let (log, stats) = stream(3, |link| link.with_delay(ms(5)..=ms(25)).with_reordering());
    let mut order: Vec<u64> = log.iter().map(|(_, n)| *n).collect();
    assert!(!order.is_sorted());
    assert!(log.iter().all(|(at, n)| (5..=25).contains(&(at - n))));
    let mean = log.iter().map(|(at, n)| at - n).sum::<u64>() as f64 / 1_000.0;
    // The mean is 14.5, because the delays are rounded down to ms. Its standard error is 6.1 /
    // sqrt(1000).
    assert!((13.5..15.5).contains(&mean), "{mean}");
    order.sort_unstable();
    assert_eq!(order, (1..=1_000).collect::<Vec<_>>());
    assert_eq!(stats.delivered, 1_000);
}

#[test]
fn losses_match_their_probability() {
    for (seed, probability, share) in
        [(4, 0.3, 240..360), (5, 0.9, 860..940), (6, 0.0, 0..1), (7, 1.0, 1_000..1_001)]
    {
        let (log, stats) = stream(seed, |link| link.with_loss(probability));
        assert_eq!((stats.sent, stats.delivered + stats.lost), (1_000, 1_000));
        assert_eq!(log.len() as u64, stats.delivered);
        assert!(share.contains(&stats.lost), "{probability}: {stats:?}");
    }
}

#[test]
fn the_seed_chooses_losses_and_delays() {
    let run = |seed| {
        stream(seed, |link| link.with_delay(ms(1)..=ms(50)).with_loss(0.2).with_reordering()).0
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_full_channel_loses_messages() {
    let mut world = SimWorld::new(13);
    let (tx, rx) = channel::bounded(2);
    let link = world.link("a", "b", tx);
    (0..5).for_each(|n| link.send(n));
    world.run().unwrap();
    assert_eq!(link.stats(), LinkStats { sent: 5, delivered: 2, lost: 3 });
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [0, 1]);
    drop(rx);
    link.send(6);
    world.run().unwrap();
    assert_eq!(link.stats(), LinkStats { sent: 6, delivered: 2, lost: 4 });
}

#[test]
fn messages_in_flight_precede_the_disconnection() {
    let mut world = SimWorld::new(14);
    let (tx, rx) = channel::unbounded();
    let link = world.link("a", "b", tx).with_delay(ms(10)..=ms(10));
    let log = spawn_logger(&world, "b", rx);
    world.spawn("a", move |_| link.send("last words"));
    world.run().unwrap();
    assert_eq!(noted(&log), [(10, "last words")]);
}

/// Three members. Each sends its name to the other two every 10 ms.
struct Gossip {
    world: SimWorld,
    received: Log<(&'static str, &'static str)>,
}

fn gossip(delay: Duration) -> Gossip {
    let world = SimWorld::new(15);
    let received = Log::default();
    let names = ["a", "b", "c"];
    for from in names {
        let links: Vec<_> = names
            .into_iter()
            .filter(|to| *to != from)
            .map(|to| {
                let (tx, rx) = channel::unbounded::<&str>();
                let received = received.clone();
                world.spawn(&format!("{from} to {to}"), move |reactor| {
                    let inbox = reactor.register(rx).unwrap();
                    while let Ok(from) = select! { reactor; recv(inbox) -> from => from } {
                        note(&received, (from, to));
                    }
                });
                world.link(from, to, tx).with_delay(delay..=delay)
            })
            .collect();
        world.spawn(from, move |reactor| {
            let ticker = reactor.every(ms(10)).unwrap();
            loop {
                select! { reactor;
                    recv(ticker) -> _ => links.iter().for_each(|link| link.send(from)),
                }
            }
        });
    }
    Gossip { world, received }
}

impl Gossip {
    /// Returns the pairs of sender and receiver of the next 100 ms.
    fn pairs(&mut self) -> Vec<String> {
        self.received.lock().unwrap().clear();
        self.world.run_for(ms(100)).unwrap();
        let mut pairs: Vec<String> =
            noted(&self.received).iter().map(|(from, to)| format!("{from}{to}")).collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }
}

#[test]
fn partitions_and_cuts_last_until_healed() {
    let mut gossip = gossip(ms(1));
    let all = ["ab", "ac", "ba", "bc", "ca", "cb"];
    assert_eq!(gossip.pairs(), all);
    gossip.world.partition(&[&["a", "b"], &["c"]]);
    assert_eq!(gossip.pairs(), ["ab", "ba"]);
    gossip.world.partition(&[&["b"]]);
    assert_eq!(gossip.pairs(), ["ac", "ca"], "the other members must be one group");
    gossip.world.partition(&[&["a"], &["b"], &["c"]]);
    assert_eq!(gossip.pairs(), [""; 0]);
    gossip.world.heal();
    assert_eq!(gossip.pairs(), all);
    gossip.world.cut("a", "b");
    gossip.world.cut("c", "a");
    assert_eq!(gossip.pairs(), ["ac", "ba", "bc", "cb"], "a cut must have one direction");
    gossip.world.mend("a", "b");
    assert_eq!(gossip.pairs(), ["ab", "ac", "ba", "bc", "cb"]);
    gossip.world.partition(&[&["b"]]);
    assert_eq!(gossip.pairs(), ["ac"]);
    gossip.world.heal();
    assert_eq!(gossip.pairs(), all, "heal must heal cuts");
}

#[test]
fn a_partition_loses_messages_in_flight() {
    let mut gossip = gossip(ms(25));
    gossip.world.run_for(ms(42)).unwrap(); // sent at 20, 30 and 40
    let before = gossip.world.stats().links;
    gossip.world.partition(&[&["a"], &["b"], &["c"]]);
    assert_eq!(gossip.pairs(), [""; 0]);
    let after = gossip.world.stats().links;
    assert_eq!(after.delivered, before.delivered);
    assert_eq!(before.in_flight(), 18);
    assert_eq!(after.lost + after.in_flight() - before.lost, 18 + after.sent - before.sent);
}

#[test]
fn messages_sent_into_a_partition_are_lost() {
    let mut world = SimWorld::new(15);
    let (tx, rx) = channel::unbounded();
    let link = world.link("a", "b", tx).with_delay(ms(10)..=ms(10));
    world.partition(&[&["a"]]);
    link.send("parted");
    world.heal();
    world.cut("a", "b");
    link.send("cut");
    world.heal();
    link.send("healed");
    world.run().unwrap();
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), ["healed"]);
    assert_eq!(link.stats(), LinkStats { sent: 3, delivered: 1, lost: 2 });
}

// Crashes.

#[test]
fn a_killed_member_drops_its_values_and_restarts() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(16);
    let (tx, rx) = channel::unbounded::<u32>();
    let link = world.link("a", "b", tx).with_delay(ms(5)..=ms(5));
    let copy = link.clone();
    let sender = world.spawn("a", move |reactor| {
        for n in 0.. {
            copy.send(n);
            sleep(&reactor, ms(10));
        }
    });
    let log = spawn_logger(&world, "b", rx);
    world.run_for(ms(22)).unwrap();
    assert!(world.kill("b"));
    assert!(!world.kill("b") && !world.kill("nobody"));
    world.run_for(ms(20)).unwrap();
    assert_eq!(noted(&log), [(5, 0), (15, 1)]);
    assert_eq!(
        link.stats(),
        LinkStats { sent: 5, delivered: 2, lost: 2 },
        "the message sent at 40 must be in flight"
    );
    // The member starts again with another channel.
    let (tx, rx) = channel::unbounded();
    link.reconnect(tx);
    let log = spawn_logger(&world, "b", rx);
    world.run_for(ms(10)).unwrap();
    assert_eq!(noted(&log), [(45, 4)]);
    assert!(world.kill("a"));
    assert_eq!(sender.take(), None);
    drop(link);
    world.run().unwrap(); // b is disconnected, and all members have ended
}

#[test]
fn a_member_may_kill_another_or_itself() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(17);
    let handle = world.handle();
    let victim = world.spawn("victim", |reactor| sleep(&reactor, HOUR));
    let killer = world.spawn("killer", move |reactor| {
        sleep(&reactor, ms(5));
        assert!(handle.kill("victim"));
        sleep(&reactor, ms(5));
        assert!(!handle.kill("victim"));
        assert!(handle.kill("killer"));
        sleep(&reactor, ms(5));
        unreachable!("a killed member ran");
    });
    world.run().unwrap();
    assert_eq!((world.now(), victim.take(), killer.take()), (at(10), None, None));
}

#[test]
fn a_kill_disconnects_the_members_channels() {
    let mut world = SimWorld::new(18);
    let (tx, rx) = channel::bounded::<()>(1);
    world.spawn("a", move |reactor| {
        let _tx = tx;
        sleep(&reactor, HOUR);
    });
    let log = spawn_logger(&world, "b", rx);
    world.run_for(ms(1)).unwrap();
    world.kill("a");
    world.run().unwrap();
    assert_eq!((noted(&log), world.now()), (vec![], at(1)));
}

// Members with their own reactors.

#[test]
fn a_member_may_make_its_reactor() {
    let mut world = SimWorld::new(19);
    let member = world.spawn_with_driver("a", |driver| {
        let reactor = Reactor::with_driver(driver).unwrap();
        reactor.seed(1);
        sleep(&reactor, ms(3));
        reactor.now()
    });
    world.run().unwrap();
    assert_eq!(member.take(), Some(at(3)));
}

#[test]
fn dropped_worlds_leave_no_thread_behind() {
    alone!(); // the test counts the threads of the process
    for seed in 0..300 {
        let mut world = SimWorld::new(seed);
        for n in 0..3 {
            world.spawn(&n.to_string(), |reactor| sleep(&reactor, HOUR));
        }
        if seed % 2 == 0 {
            world.run_for(ms(1)).unwrap();
        }
    }
    #[cfg(target_os = "linux")]
    {
        let threads = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
            threads.trim().parse::<usize>().unwrap()
        };
        // A thread counts for a moment after its join.
        let begin = Instant::now();
        while threads() >= 200 {
            assert!(begin.elapsed() < Duration::from_secs(60), "{} threads", threads());
            thread::sleep(ms(5));
        }
    }
}

#[test]
fn a_deadlock_implements_error() {
    fn check<T: std::error::Error + Send + Sync + Clone>() {}
    check::<Deadlock>();
}
