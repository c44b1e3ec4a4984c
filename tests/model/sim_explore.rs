//! Faults of members and links in a simulated world, its histories, and the search for a seed.

use std::any::Any;
use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pollmux::channel::{self, Receiver};
use pollmux::sim::{History, Search};
use pollmux::{
    Context, Reactor, SimWorld, Time,
    reactor::SourceKind,
    select,
    sim::{LinkStats, WorldHandle},
};
use support::{
    HOUR, OnDrop, again, alone, at, ms, panic_text, setting, sleep, spawn, test_name, watchdog,
};

/// Keeps the world's clock running for `d`.
fn keep_going(world: &SimWorld, d: Duration) {
    world.spawn("clock", move |reactor| sleep(&reactor, d));
}

// Links.

#[test]
fn duplicates_arrive_and_count_as_sent() {
    let mut world = SimWorld::new(1);
    let (tx, rx) = channel::unbounded();
    let link = world.link("a", "b", tx).with_delay(ms(1)..=ms(9)).with_duplicates(0.5);
    (0..1_000).for_each(|n| link.send(n));
    keep_going(&world, ms(50));
    world.run().unwrap();
    let got: Vec<i32> = rx.try_iter().collect();
    let stats = link.stats();
    assert!((1_400..1_600).contains(&stats.sent), "{stats:?}");
    assert_eq!(stats, LinkStats { sent: stats.sent, delivered: got.len() as u64, lost: 0 });
    let mut distinct = got.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct, (0..1_000).collect::<Vec<_>>());
    link.set_duplicates(0.0);
    link.send(1);
    assert_eq!(link.stats().sent, stats.sent + 1);
}

#[test]
fn late_messages_are_overtaken() {
    let mut world = SimWorld::new(2);
    let (tx, rx) = channel::unbounded();
    let link = world.link("a", "b", tx).with_delay(ms(1)..=ms(1)).with_late(0.1, ms(50)..=ms(60));
    world.spawn("a", move |reactor| {
        for n in 0..1_000 {
            link.send(n);
            sleep(&reactor, ms(1));
        }
    });
    keep_going(&world, HOUR);
    world.run().unwrap();
    let got: Vec<i32> = rx.try_iter().collect();
    let late = got.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert_eq!(got.len(), 1_000);
    assert!((50..150).contains(&late), "{late}");
    let mut sorted = got.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn held_messages_wait_for_the_release_in_order() {
    let mut world = SimWorld::new(3);
    let (tx, rx) = channel::unbounded();
    let link = world.link("a", "b", tx).with_delay(ms(5)..=ms(5));
    let back = world.link("b", "a", channel::unbounded().0).with_delay(ms(5)..=ms(5));
    link.send(1);
    world.hold("a", "b");
    link.send(2);
    back.send(0);
    keep_going(&world, ms(100));
    world.run_for(ms(50)).unwrap();
    assert_eq!(
        (rx.try_iter().count(), link.stats().in_flight(), back.stats().in_flight()),
        (0, 2, 0)
    );
    world.release("a", "b");
    link.send(3);
    world.run_for(ms(10)).unwrap();
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    world.hold("a", "b");
    link.send(4);
    world.run_for(ms(10)).unwrap();
    world.cut("a", "b");
    world.heal();
    world.release("a", "b");
    world.run().unwrap();
    assert_eq!((rx.try_iter().count(), link.stats().lost), (0, 1), "a cut must lose held messages");
    // The drop of the world loses the other messages.
    world.hold("a", "b");
    link.send(5);
    world.run_for(ms(10)).unwrap();
    drop(world);
    assert_eq!(link.stats().in_flight(), 0);
}

#[test]
fn a_release_keeps_the_order_of_the_link() {
    // The delay of a later message in ms: sent with or after the release, under way, held again.
    for (seed, delay) in (0..40).flat_map(|seed| [0, 1, 5].map(|delay| (seed, delay))) {
        let mut world = SimWorld::new(seed);
        let (tx, rx) = channel::unbounded();
        let link = world.link("a", "b", tx).with_delay(ms(delay)..=ms(delay));
        keep_going(&world, ms(100));
        world.hold("a", "b");
        (0..3).for_each(|n| link.send(n));
        world.run_for(ms(10) - ms(delay)).unwrap();
        (3..6).for_each(|n| link.send(n)); // due at the release
        world.run_for(ms(delay)).unwrap();
        world.release("a", "b");
        (6..9).for_each(|n| link.send(n));
        if seed % 2 == 1 {
            world.hold("a", "b");
            world.run_for(ms(20)).unwrap();
            assert_eq!(rx.try_iter().count(), 0);
            world.release("a", "b");
        }
        (9..12).for_each(|n| link.send(n));
        world.run_for(ms(20)).unwrap();
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), (0..12).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!((link.stats().delivered, link.stats().in_flight()), (12, 0));
    }
}

// Members.

#[test]
fn a_paused_member_misses_its_deadlines() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(4);
    let ticks = world.spawn("a", |reactor| {
        let ticker = reactor.every(ms(10)).unwrap();
        (0..3)
            .map(|_| {
                let tick = select! { reactor; recv(ticker) -> tick => tick };
                (reactor.now(), tick.missed)
            })
            .collect::<Vec<_>>()
    });
    keep_going(&world, ms(200));
    world.run_for(ms(15)).unwrap();
    assert!(world.pause("a") && !world.pause("a") && !world.pause("nobody"));
    world.run_for(ms(40)).unwrap();
    assert!(world.resume("a") && !world.resume("a"));
    world.run().unwrap();
    assert_eq!(ticks.take(), Some(vec![(at(10), 0), (at(55), 3), (at(60), 0)]));
}

#[test]
fn a_deadlock_names_paused_members() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(5);
    world.spawn("a", |reactor| sleep(&reactor, ms(5)));
    world.spawn("b", |reactor| sleep(&reactor, ms(5)));
    world.run_for(ms(1)).unwrap();
    world.pause("a");
    world.spawn("c", |_| ());
    world.pause("c");
    let deadlock = world.run().unwrap_err();
    let told: Vec<_> =
        deadlock.waiting.iter().map(|m| (m.member.as_str(), m.paused, m.deadline)).collect();
    assert_eq!(told, [("a", true, Some(at(5))), ("c", true, None)]);
    assert!(world.kill("a") && world.kill("c"));
    world.run().unwrap();
}

#[test]
fn a_member_may_pause_itself() {
    let mut world = SimWorld::new(5);
    let handle = world.handle();
    let copy = handle.clone();
    let paused = world.spawn("a", move |reactor| {
        assert!(copy.pause("a"));
        reactor.sleep_blocking(Duration::ZERO).unwrap();
        reactor.now()
    });
    world.spawn("b", move |reactor| {
        sleep(&reactor, ms(7));
        assert!(handle.resume("a"));
    });
    world.run().unwrap();
    assert_eq!(paused.take(), Some(at(7)));
}

#[test]
fn a_host_is_restarted_with_its_body() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(6);
    let lives = Arc::new(AtomicU32::new(0));
    let copy = lives.clone();
    let host = world.spawn_host("host", move |reactor| {
        let life = copy.fetch_add(1, Ordering::SeqCst);
        sleep(&reactor, ms(10));
        life
    });
    let handle = world.handle();
    world.spawn("trouble", move |reactor| {
        sleep(&reactor, ms(5));
        assert!(handle.restart("host"));
    });
    world.run_for(ms(8)).unwrap();
    assert_eq!((lives.load(Ordering::SeqCst), host.take()), (2, None));
    world.run().unwrap();
    assert_eq!((world.now(), host.take()), (at(15), Some(1)));
    assert!(world.restart("host"), "a host must restart after its end");
    assert!(!world.restart("trouble") && !world.restart("nobody"));
    world.run().unwrap();
    assert_eq!(host.take(), Some(2));
}

#[test]
fn a_drifting_clock_gains_or_loses() {
    for (ppm, there, here) in [(100_000, 1_100, 909), (-500_000, 500, 2_000), (0, 1_000, 1_000)] {
        let mut world = SimWorld::new(7);
        let handle = world.handle();
        let member = world.spawn_with_drift("a", ppm, move |reactor| {
            sleep(&reactor, ms(1_000));
            let woke = (reactor.now(), handle.now());
            assert!(reactor.now() >= at(1_000), "early by its own clock");
            woke
        });
        world.run().unwrap();
        let (own, real) = member.take().unwrap();
        assert_eq!((real - Time::ZERO).as_millis() as u64, here, "{ppm}");
        assert!(own - at(1_000) < Duration::from_micros(2), "{ppm}: {own:?}");
        // Read the member's clock after a second of the world's clock.
        let mut world = SimWorld::new(7);
        let (tx, rx) = channel::unbounded();
        let link = world.link("b", "a", tx).with_delay(ms(1_000)..=ms(1_000));
        link.send(());
        let member = world.spawn_with_drift("a", ppm, move |reactor| {
            let inbox = reactor.register(rx).unwrap();
            select! { reactor; recv(inbox) -> _ => reactor.now() }
        });
        world.run().unwrap();
        assert_eq!(member.take(), Some(at(there)), "{ppm}");
    }
}

#[test]
fn a_member_that_polls_forever_is_named() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(8);
    world.spawn("spinner", |reactor| {
        let timer = reactor.after(ms(1));
        loop {
            select! { reactor; recv(timer) -> _ => break, default => {} }
        }
    });
    let error = panic_text(|| world.run());
    assert!(error.contains("`spinner`") && error.contains("spins"), "{error}");
}

#[test]
fn members_that_ended_are_forgotten() {
    alone!(); // the test measures the memory of the process
    let mut world = SimWorld::new(9);
    let payload = Arc::new(());
    let mut live = |lives: u32| {
        for n in 0..lives {
            let payload = payload.clone();
            world.spawn("again", move |_| drop(payload));
            if n % 2 == 0 {
                world.kill("again");
            }
            world.run().unwrap();
        }
    };
    live(2_000);
    let before = data_pages();
    let lives = support::rounds(2_000);
    live(lives as u32);
    let after = data_pages();
    // Each ended member may keep some hundred bytes.
    assert!(after < before + lives / 8, "{before} pages grew to {after}");
    assert_eq!(Arc::strong_count(&payload), 1);
}

/// Pages of data and stacks; 0 where the system does not report them.
fn data_pages() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(5).map_or(0, |pages| pages.parse().unwrap())
}

// Reports and histories.

#[test]
fn a_deadlock_lists_the_sources_of_each_wait() {
    let mut world = SimWorld::new(10);
    let (_tx, rx) = channel::unbounded::<()>();
    let (context, _canceller) = Context::background().with_cancel();
    let line = Arc::new(AtomicU32::new(0));
    let copy = line.clone();
    world.spawn("a", move |reactor| {
        copy.store(line!() + 1, Ordering::SeqCst);
        let inbox = reactor.register(rx).unwrap();
        let done = reactor.done(&context);
        select! { reactor; recv(inbox) -> _ => {}, recv(done) -> _ => {} }
    });
    let deadlock = world.run().unwrap_err();
    let waits_for = &deadlock.waiting[0].waits_for;
    let kinds: Vec<_> = waits_for.iter().filter_map(|source| source.kind).collect();
    assert_eq!(kinds, [SourceKind::Inbox, SourceKind::Context]);
    let line = line.load(Ordering::SeqCst);
    assert!(
        deadlock
            .to_string()
            .contains(&format!("1 x inbox made at tests/model/sim_explore.rs:{line}:"))
    );
    assert_eq!(world.run(), Err(deadlock), "the deadlock must be reported again");
}

#[test]
fn posts_and_cancels_in_drops_are_deterministic() {
    let _watchdog = watchdog();
    thread_local!(static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) });
    let history = || {
        let mut world = SimWorld::new(21);
        world.record();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (context, canceller) = Context::on_clock(world.clock()).with_timeout(HOUR);
        let (remotes, from_members) = channel::unbounded();
        for n in 0..4 {
            let (log, context, remotes) = (log.clone(), context.clone(), remotes.clone());
            world.spawn(&n.to_string(), move |reactor| {
                remotes.send((n, reactor.remote())).unwrap();
                let done = reactor.done(&context);
                select! { reactor; recv(done) -> _ => log.lock().unwrap().push((n, reactor.now())) }
            });
        }
        let (copy, log) = (log.clone(), log);
        world.spawn("last", move |reactor| {
            sleep(&reactor, ms(1));
            let remotes: Vec<_> = from_members.try_iter().collect();
            KEPT.with(|kept| {
                let mut canceller = Some(canceller);
                kept.borrow_mut().push(Box::new(OnDrop(move || {
                    for (n, remote) in &remotes {
                        let (n, log) = (*n, copy.clone());
                        let _ = remote
                            .post(move |reactor| log.lock().unwrap().push((10 + n, reactor.now())));
                    }
                    assert!(canceller.take().is_some_and(|canceller| canceller.cancel()));
                })));
            });
        });
        world.run().unwrap();
        let order = log.lock().unwrap().clone();
        (order, world.history())
    };
    let first = history();
    assert_eq!(first.0.len(), 8, "{first:?}");
    for _ in 0..20 {
        assert_eq!(history(), first);
    }
}

/// Runs a world with thread-locals, kills, panics and partitions.
fn scenario(seed: u64) -> History {
    thread_local!(static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) });
    struct SendsAtTheEnd(pollmux::sim::Link<(u32, u32)>, u32);
    impl Drop for SendsAtTheEnd {
        fn drop(&mut self) {
            self.0.send((self.1, u32::MAX));
        }
    }
    let mut world = SimWorld::new(seed);
    world.record();
    let ends: Vec<_> = (0..4).map(|_| channel::unbounded::<(u32, u32)>()).collect();
    let names = ["a", "b", "c", "d"];
    let links: Vec<Vec<_>> = names
        .iter()
        .map(|from| {
            let link = |(to, (tx, _)): (&&str, &(channel::Sender<_>, _))| {
                let link =
                    world.link(from, to, tx.clone()).with_delay(ms(1)..=ms(4)).with_loss(0.1);
                link.with_duplicates(0.05).with_late(0.05, ms(5)..=ms(9)).with_text()
            };
            names.iter().zip(&ends).map(link).collect()
        })
        .collect();
    fn live(
        world: &WorldHandle,
        n: u32,
        links: Vec<pollmux::sim::Link<(u32, u32)>>,
        rx: Option<Receiver<(u32, u32)>>,
    ) {
        let handle = world.clone();
        let name = ["a", "b", "c", "d"][n as usize];
        world.spawn(name, move |reactor: Reactor| {
            KEPT.with(|kept| kept.borrow_mut().push(Box::new(SendsAtTheEnd(links[0].clone(), n))));
            let inbox = rx.map(|rx| reactor.register(rx).unwrap());
            let ticker = reactor.every(ms(3)).unwrap();
            let end = reactor.after(ms(60));
            let mut round = 0;
            loop {
                select! { reactor;
                    recv(inbox) -> message => if let Ok((from, round)) = message {
                        if round % 7 == 3 {
                            links[from as usize].send((n, round.wrapping_add(100)));
                        }
                    },
                    recv(ticker) -> _ => {
                        round += 1;
                        links.iter().for_each(|link| link.send((n, round)));
                        match (n, round) {
                            (0, 5) => handle.partition(&[&["a", "b"]]),
                            (0, 8) => handle.heal(),
                            (1, 6) => {
                                handle.kill("c");
                                live(&handle, 2, links.clone(), None);
                            }
                            (1, 9) => drop(handle.pause("a")),
                            (1, 11) => drop(handle.resume("a")),
                            (3, 10) => panic!("part of the scenario"),
                            _ => {}
                        }
                    },
                    recv(end) -> _ => return,
                }
            }
        });
    }
    let handle = world.handle();
    for (n, (links, (_, rx))) in links.into_iter().zip(ends).enumerate() {
        live(&handle, n as u32, links, Some(rx));
    }
    while catch_unwind(AssertUnwindSafe(|| world.run().unwrap())).is_err() {}
    world.history()
}

fn hash(history: &History) -> u64 {
    let mut hasher = DefaultHasher::new();
    history.to_string().hash(&mut hasher);
    hasher.finish()
}

const SCENARIOS: &str = "POLLMUX_TEST_STORIES";

#[test]
fn one_seed_has_one_history_in_every_process() {
    let _watchdog = watchdog();
    if let Ok(runs) = std::env::var(SCENARIOS) {
        let hashes: Vec<u64> = (0..runs.parse().unwrap()).map(|_| hash(&scenario(42))).collect();
        let first = hashes[0];
        assert!(hashes.iter().all(|&hash| hash == first), "{hashes:?}");
        println!("history {first:016x}");
        return;
    }
    let (runs, processes) = (setting("POLLMUX_SIM_RUNS", 20), setting("POLLMUX_SIM_PROCESSES", 3));
    let stop = AtomicBool::new(false);
    let (hashes, turns) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let name = test_name();
    thread::scope(|scope| {
        // Keep the machine busy.
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let children: Vec<_> = (0..processes)
            .map(|_| {
                let mut command = again(&name);
                command.env(SCENARIOS, runs.div_ceil(processes).to_string());
                spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()))
            })
            .collect();
        for child in children {
            let out = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let told =
                text.lines().find_map(|line| line.split("history ").nth(1)).map(str::to_owned);
            hashes.lock().unwrap().push(told.unwrap_or_else(|| panic!("no history in {text}")));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let hashes = hashes.into_inner().unwrap();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(hash(&scenario(42)), u64::from_str_radix(&hashes[0], 16).unwrap());
    let scenario = scenario(42).to_string();
    for part in
        ["is killed", "PANICS", "partition", "(by chance)", "(no way)", "(on its way)", "is paused"]
    {
        assert!(scenario.contains(part), "no {part:?} in {scenario}");
    }
    assert_ne!(hash(&self::scenario(43)), hash(&self::scenario(42)));
}

/// Parses a JSON value, and returns the rest of the text.
fn json(text: &str) -> &str {
    let text = text.trim_start();
    match text.as_bytes()[0] {
        open @ (b'{' | b'[') => {
            let close = if open == b'{' { '}' } else { ']' };
            let mut rest = text[1..].trim_start();
            while !rest.starts_with(close) {
                if open == b'{' {
                    rest = json(rest).trim_start().strip_prefix(':').expect("a colon");
                }
                rest = json(rest).trim_start();
                match rest.strip_prefix(',') {
                    Some(more) => {
                        rest = more.trim_start();
                        assert!(!rest.starts_with(close), "a comma before the end");
                    }
                    None => assert!(rest.starts_with(close), "{rest}"),
                }
            }
            &rest[1..]
        }
        b'"' => {
            let mut escaped = false;
            let end = text[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            &text[end.expect("the string ends") + 2..]
        }
        _ => {
            let end = text.find([',', '}', ']']).expect("the number ends");
            text[..end].parse::<f64>().expect("a number");
            &text[end..]
        }
    }
}

#[test]
fn a_history_becomes_a_chrome_trace() {
    let trace = scenario(1).to_chrome_trace();
    assert_eq!(json(&trace).trim(), "");
    for part in ["\"ph\":\"X\"", "\"dur\":", "delivered", "thread_name", "\"ph\":\"i\""] {
        assert!(trace.contains(part), "no {part}");
    }
    let empty = SimWorld::new(1).history();
    assert!(empty.is_empty());
    assert_eq!(json(&empty.to_chrome_trace()).trim(), "");
}

// The search.

#[test]
fn a_search_reports_the_least_failing_seed() {
    let _watchdog = watchdog();
    for threads in [1, 2, 4] {
        let done = AtomicU64::new(0);
        let search = Search::new(3..1_000).threads(threads);
        let found = search
            .progress(|_| drop(done.fetch_add(1, Ordering::SeqCst).to_string()))
            .run(|world| {
                world.spawn("a", |_| ());
                world.run().unwrap();
                let seed = world.seed();
                assert!(seed < 77, "seed {seed} is too great");
            })
            .unwrap_err();
        assert_eq!((found.seed, found.text.as_str()), (77, "seed 77 is too great"));
        assert!((75..85).contains(&done.load(Ordering::SeqCst)));
        assert!(format!("{found:?}").contains("seed 77 fails: seed 77 is too great"));
        assert!(found.history.to_string().contains("a runs"));
    }
    assert_eq!(SimWorld::search(0..50, |_| ()).unwrap(), 50);
    assert_eq!(SimWorld::search(5..5, |_: &mut SimWorld| -> () { unreachable!() }).unwrap(), 0);
}

#[test]
fn a_search_reduces_the_choices_that_fail() {
    // The run fails when message 3 is lost.
    let run = |world: &mut SimWorld| {
        let (tx, rx) = channel::unbounded();
        let link = world.link("a", "b", tx).with_loss(0.1).with_delay(ms(1)..=ms(3));
        world.spawn("a", move |reactor| {
            for n in 0..100 {
                link.send(n);
                sleep(&reactor, ms(1));
            }
        });
        keep_going(world, ms(200));
        world.run().unwrap();
        if rx.try_iter().any(|n| n == 3) { Ok(()) } else { Err("3 was lost") }
    };
    let found = SimWorld::search(0..1_000, run).unwrap_err();
    let (choices, history) = found.shorter.clone().unwrap();
    assert!(choices < found.choices / 4, "{choices} of {}", found.choices);
    let mut again = SimWorld::with_choices(found.seed, choices);
    again.record();
    assert_eq!(run(&mut again), Err("3 was lost"));
    assert_eq!(again.history(), history);
    assert_eq!(run(&mut SimWorld::with_choices(found.seed, choices - 1)), Ok(()));
}

#[test]
fn a_search_reports_an_unsteady_failure() {
    let calls = AtomicU64::new(0);
    let found = SimWorld::search(0..1, |_| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 { Err("once") } else { Ok(()) }
    });
    let found = found.unwrap_err();
    assert!(found.unsteady && found.to_string().contains("did not fail again"), "{found}");
}

// Cost.

/// `cargo test --release --test model cost -- --ignored --nocapture` prints the cost of a start and
/// of a switch.
#[test]
#[ignore = "prints figures"]
fn cost_of_a_start_and_of_a_switch() {
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let mut world = SimWorld::new(1);
        let begin = Instant::now();
        for n in 0..600 {
            world.spawn(&n.to_string(), |reactor| sleep(&reactor, HOUR));
        }
        world.run_for(ms(1)).unwrap();
        best = best.min(begin.elapsed());
    }
    println!("600 members: {best:?}");
    for members in [1u32, 2, 600] {
        let mut world = SimWorld::new(1);
        let rounds = 200_000 / members;
        for n in 0..members {
            world.spawn(&n.to_string(), move |reactor| {
                let ticker = reactor.every(ms(1)).unwrap();
                for _ in 0..rounds {
                    select! { reactor; recv(ticker) -> _ => {} }
                }
            });
        }
        world.run_for(Duration::from_micros(1)).unwrap();
        let (before, begin) = (world.stats().handovers, Instant::now());
        world.run().unwrap();
        let (turns, took) = (u64::from(rounds) * u64::from(members), begin.elapsed());
        let handovers = world.stats().handovers - before;
        println!(
            "{members} members: {} ns a turn, {handovers} handovers in {turns} turns",
            took.as_nanos() as u64 / turns
        );
    }
}
