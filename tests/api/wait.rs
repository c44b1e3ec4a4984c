//! `wait`, `wait_timeout` and `try_wait`: which keys they report, for how long, and what a batch
//! skips. No source starves and no message is lost, also when mixed with `select!`.

use std::any::{Any, type_name_of_val};
use std::cell::{Cell, OnceCell};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use Priority::{High, Low, Normal};
use nix::sys::signal::{Signal::SIGWINCH, raise};
use pollmux::channel::{self, TryRecvError};
use pollmux::driver::{Native, foreign};
use pollmux::reactor::SourceKind;
use pollmux::sys::Interest;
use pollmux::{
    CallbackContext, Context, Events, Inbox, Key, Priority, Reactor, Signal, Source, Time, Timer,
    select,
};

use support::{
    HOUR, Hooked, Hooks, Waiting, at, keys, ms, ready_keys, scripted_reactor, simulated, thread,
    timed, watchdog,
};

/// An inbox with this key, and its sender.
fn keyed(reactor: &Reactor, key: u64) -> (channel::Sender<u32>, Inbox<u32>) {
    let (tx, rx) = channel::bounded(8);
    (tx, reactor.register_with(key, rx).unwrap())
}

// Keys.

#[test]
fn sources_are_reported_by_their_key() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1)).with_key(u64::MAX);
    let ticker = reactor.every(ms(1)).unwrap().with_key(0);
    let (tx, inbox) = keyed(&reactor, 42);
    assert_eq!((timer.key(), ticker.key(), inbox.key()), (u64::MAX, 0, 42));
    tx.send(1).unwrap();
    sim.advance(ms(1));
    let reported: HashSet<u64> = ready_keys(&reactor).into_iter().collect();
    assert_eq!(reported, HashSet::from([u64::MAX, 0, 42]));
}

#[test]
fn default_keys_are_unique_and_have_bit_63() {
    let (_sim, reactor) = simulated();
    let mut seen = HashSet::new();
    // Three rounds reuse the same slots. The keys of dropped sources do not come back.
    for _ in 0..3 {
        let timers: Vec<_> = (0..300).map(|_| reactor.after(Duration::ZERO)).collect();
        let tickers: Vec<_> = (0..300).map(|_| reactor.every(ms(1)).unwrap()).collect();
        let channels: Vec<_> = (0..300).map(|_| reactor.channel::<u8>(1).unwrap()).collect();
        let keys = timers.iter().map(|timer| timer.key());
        let keys = keys.chain(tickers.iter().map(|ticker| ticker.key()));
        for key in keys.chain(channels.iter().map(|(_, inbox)| inbox.key())) {
            assert!(key >= 1 << 63);
            assert!(seen.insert(key), "{key:#x} is there twice");
        }
        let due: Vec<u64> = timers.iter().map(|timer| timer.key()).collect();
        let mut reported = ready_keys(&reactor);
        timers.iter().for_each(|timer| {
            assert!(timer.try_take().is_some() || !reported.contains(&timer.key()))
        });
        reported.extend(ready_keys(&reactor));
        assert_eq!(reported, due);
    }
}

/// A driver that finds an event of its own.
struct WithEvents(foreign::Queue<u32>);

impl Hooks<Native> for WithEvents {
    fn wait(&mut self, native: &mut Native, mut waiting: Waiting<'_>) -> io::Result<()> {
        if !waiting.blocks() && self.0.is_empty() {
            self.0.push(1, waiting.ready);
        }
        waiting.by(native)
    }
    fn has_events(&self, _: &Native, events: foreign::EventsId) -> bool {
        self.0.id() == events
    }
}

/// The names, without parameters, of the crate's types that implement `Source`.
fn kinds_of_sources() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src").into()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir::<PathBuf>(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let heads = text.lines().filter(|line| line.starts_with("impl"));
            for (_, name) in heads.filter_map(|line| line.split_once(" Source for ")) {
                let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
                names.insert(name[..end].to_owned());
            }
        }
    }
    names
}

/// A new kind of source fails this test until it has a row here, with `with_key` and
/// `with_priority`.
#[test]
fn every_kind_of_source_takes_a_key() {
    let _watchdog = watchdog();
    let queue = foreign::Queue::with_capacity(1);
    let events = queue.events();
    let reactor = Reactor::with_driver(Hooked(Native::new().unwrap(), WithEvents(queue))).unwrap();
    let mut sources: Vec<Box<dyn Any>> = Vec::new();
    // No wait reports these types. `Never` is never ready, `Sending` is a case, and `Option` stands
    // for its source.
    let mut names = BTreeSet::from(["Never", "Sending", "Option"].map(str::to_owned));
    let mut kinds = Vec::new();
    macro_rules! keyed {
        ($kind:ident, $source:expr) => {{
            let key = (sources.len() as u32, 5);
            let source = $source.with_key(key).with_priority(Low);
            assert_eq!(source.key(), u64::from(Key::from(key)));
            let name = type_name_of_val(&source);
            let name = name.split('<').next().unwrap().rsplit("::").next().unwrap();
            names.insert(name.to_owned());
            kinds.push(SourceKind::$kind);
            sources.push(Box::new(source));
        }};
    }
    keyed!(Timer, reactor.after(ms(0)));
    keyed!(Ticker, reactor.every_at(reactor.now(), ms(3_600_000)).unwrap());
    let (tx, inbox) = reactor.channel(1).unwrap();
    tx.send(1).unwrap();
    keyed!(Inbox, inbox);
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register(tx).unwrap();
    assert!(outbox.try_send(1).is_ok() && outbox.try_send(1).is_err() && rx.try_recv().is_ok());
    keyed!(Outbox, outbox);
    let (notifier, notified) = reactor.notifier();
    notifier.notify();
    keyed!(Notified, notified);
    keyed!(Notified, reactor.notifier().1.receiving(|| Some(1)));
    let (context, canceller) = Context::background().with_cancel();
    canceller.cancel();
    keyed!(Context, reactor.done(&context));
    keyed!(ForeignInbox, reactor.register(events).unwrap());
    let (_theirs, ours) = UnixStream::pair().unwrap();
    keyed!(Fd, reactor.fd_nonblocking(ours, Interest::WRITABLE).unwrap());
    keyed!(Signals, reactor.signals(&[Signal::WINDOW_CHANGE]).unwrap());
    raise(SIGWINCH).unwrap();
    // Some systems lack these two kinds.
    match reactor.os_timer() {
        Ok(timer) => {
            timer.reset(ms(0)).unwrap();
            keyed!(OsTimer, timer);
        }
        Err(_) => drop(names.insert("OsTimer".into())),
    }
    let child = support::spawn(Command::new("sh").args(["-c", "exit"]));
    match reactor.register(child) {
        Ok(child) => keyed!(Child, child),
        Err(_) => drop(names.insert("ChildProcess".into())),
    }
    assert!(reactor.sources().iter().all(|info| info.priority == Low));
    let (mut events, mut reported) = (Events::new(), BTreeSet::new());
    while reported.len() < sources.len() {
        reactor.wait(&mut events).unwrap();
        reported.extend(events.iter().map(|event| (event.split_key(), event.kind())));
    }
    assert!(reported.into_iter().eq((0..).map(|n| (n, 5)).zip(kinds)));
    // A wait reports an outbox, which is no source of a `recv`.
    assert!(names.remove("Outbox"));
    assert_eq!(names, kinds_of_sources());
}

#[test]
fn keys_are_numbers_pairs_or_keys() {
    const LISTENER: Key = Key::new(0, 0);
    const STREAM: u32 = 3;
    let (_sim, reactor) = simulated();
    let _timers = [
        reactor.after(ms(0)).with_key(LISTENER),
        reactor.after(ms(0)).with_key(7),
        reactor.after(ms(0)).with_key(7u64 << 32),
        reactor.after(ms(0)).with_key((STREAM, u32::MAX)),
    ];
    let mut index = 0;
    let inboxes = [(); 2].map(|()| {
        index += 1;
        reactor.channel_with::<u8>((STREAM, index), 1).unwrap()
    });
    inboxes.iter().for_each(|(tx, _)| tx.send(1).unwrap());
    let callback = reactor.call_after(ms(9), |_| {}).with_key((8, 9));
    let after = reactor.after_cancel(&Context::background(), |_| {}).with_key(4);
    assert_eq!([callback.key(), after.key()], [8 << 32 | 9, 4]);
    let sources = reactor.sources();
    let mut callbacks = sources.iter().filter(|info| info.kind == Some(SourceKind::Callback));
    assert!(callbacks.all(|info| [callback.key(), after.key()].contains(&info.key)));
    let mut events = Events::new();
    reactor.try_wait(&mut events).unwrap();
    let found: Vec<_> = events
        .iter()
        .map(|event| match Key::from(event.key()) {
            LISTENER => "listener".to_owned(),
            key if key.kind() == STREAM => format!("stream {}", key.index()),
            key => format!("{key:?} {:?}", event.split_key()),
        })
        .collect();
    let expected = [
        "listener",
        "Key { kind: 0, index: 7 } (0, 7)",
        "Key { kind: 7, index: 0 } (7, 0)",
        "stream 4294967295",
        "stream 1",
        "stream 2",
    ];
    assert_eq!(found, expected);
    assert!(Key::new(1, 0) > Key::new(0, u32::MAX), "keys do not compare like their numbers");
    let plain = reactor.after(ms(0));
    assert_eq!(Key::from(plain.key()).get(), plain.key());
    assert!(Key::from(plain.key()).kind() >= 1 << 31);
}

#[test]
fn a_key_does_not_stay_with_the_slot() {
    let (_sim, reactor) = simulated();
    drop(reactor.after(ms(0)).with_key(5));
    let timer = reactor.after(ms(0));
    assert!(timer.key() >= 1 << 63);
    assert_eq!(ready_keys(&reactor), [timer.key()]);
}

#[test]
fn a_ready_source_may_get_another_key() {
    let (_sim, reactor) = simulated();
    let timer = reactor.after(ms(0));
    let mut events = Events::with_capacity(1);
    reactor.wait(&mut events).unwrap();
    let timer = timer.with_key(9);
    assert_eq!(keys(&events), [9]);
    drop(timer);
}

// Reported until drained.

#[test]
fn timers_are_reported_until_their_value_is_taken() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1)).with_key(1);
    sim.advance(ms(5));
    for _ in 0..3 {
        assert_eq!(ready_keys(&reactor), [1]);
    }
    assert_eq!(timer.try_take(), Some(at(1)));
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn tickers_are_reported_until_their_tick_is_taken() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap().with_key(1);
    for n in 1..4 {
        sim.advance(ms(10));
        assert_eq!(ready_keys(&reactor), [1]);
        assert_eq!(ready_keys(&reactor), [1]);
        assert_eq!(ticker.try_take().map(|tick| tick.scheduled), Some(at(10 * n)));
        assert_eq!(ready_keys(&reactor), []);
    }
}

#[test]
fn an_inbox_is_reported_until_it_is_empty() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    for round in 0..3 {
        assert_eq!(ready_keys(&reactor), []);
        (0..3).for_each(|n| tx.send(round * 10 + n).unwrap());
        for n in 0..3 {
            assert_eq!(ready_keys(&reactor), [1]);
            assert_eq!(inbox.try_recv(), Ok(round * 10 + n));
        }
        assert_eq!(ready_keys(&reactor), []);
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Empty));
    }
}

#[test]
fn a_message_older_than_the_registration_is_reported() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = channel::bounded(4);
    tx.send(7).unwrap();
    let inbox = reactor.register_with(3, rx).unwrap();
    assert_eq!(ready_keys(&reactor), [3]);
    assert_eq!(inbox.try_recv(), Ok(7));
    assert_eq!(ready_keys(&reactor), []);
    // The same for a channel that has ended.
    let (tx, rx) = channel::bounded::<u32>(4);
    drop(tx);
    let over = reactor.register_with(4, rx).unwrap();
    assert_eq!(ready_keys(&reactor), [4]);
    assert_eq!(over.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn an_ended_inbox_is_reported_until_its_error() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    tx.send(5).unwrap();
    let second = tx.clone();
    drop(tx);
    assert_eq!(ready_keys(&reactor), [1]);
    drop(second);
    assert_eq!(inbox.try_recv(), Ok(5));
    for _ in 0..3 {
        assert_eq!(ready_keys(&reactor), [1], "the end was not taken");
    }
    assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(ready_keys(&reactor), []);
    // The error comes for ever, and never ends a wait.
    assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
    let timer = reactor.after(ms(5)).with_key(2);
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    assert_eq!((keys(&events), sim.now()), (vec![2], at(5)));
    timer.try_take();
    let error = reactor.wait(&mut events).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Deadlock);
}

#[test]
fn wait_never_reports_an_error_select_took() {
    let (_sim, reactor) = simulated();
    // The reactor may have asked the channel for a mark, may have left it after a `select!`, or may
    // have a mark already.
    for (used_by_select, marked) in [(false, false), (true, false), (false, true), (true, true)] {
        let (tx, inbox) = keyed(&reactor, 1);
        if used_by_select {
            tx.send(1).unwrap();
            assert_eq!(ready_keys(&reactor), [1]);
            select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(1)) }
            tx.send(2).unwrap();
            select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(2)) }
        }
        if marked {
            tx.send(3).unwrap();
            select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(3)) }
        }
        drop(tx);
        select! { reactor; recv(inbox) -> got => assert!(got.is_err()) }
        assert_eq!(ready_keys(&reactor), [], "used by select! {used_by_select}, marked {marked}");
    }
}

// Spinning.

/// The keys of the sources that spin.
fn spinning(reactor: &Reactor) -> Vec<u64> {
    let sources = reactor.sources();
    let mut keys: Vec<u64> =
        sources.iter().filter(|info| info.spinning).map(|info| info.key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn sources_left_unserved_count_as_spinning() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1)).with_key(1);
    let ticker = reactor.every(ms(1)).unwrap().with_key(2);
    let (tx, inbox) = keyed(&reactor, 3);
    let (notifier, notified) = reactor.notifier();
    let notified = notified.with_key(4);
    let (context, canceller) = pollmux::Context::background().with_cancel();
    let done = reactor.done(&context).with_key(5);
    (0..2).for_each(|n| tx.send(n).unwrap());
    notifier.notify();
    canceller.cancel();
    sim.advance(ms(1));
    for _ in 0..999 {
        assert_eq!(ready_keys(&reactor).len(), 5);
    }
    assert_eq!(spinning(&reactor), []);
    ready_keys(&reactor);
    assert_eq!((spinning(&reactor), reactor.stats().spinning), (vec![1, 2, 3, 4, 5], 5));
    // A served source does not spin.
    assert_eq!(inbox.try_recv(), Ok(0));
    assert!(timer.stop() && ticker.restart());
    assert_eq!((notified.try_take(), done.try_take().is_some()), (Some(()), true));
    assert_eq!(spinning(&reactor), []);
    assert_eq!(ready_keys(&reactor), [3]);
}

#[test]
fn spinning_is_counted_for_each_source() {
    let (_sim, reactor) = simulated();
    let channels: Vec<_> = (0..10).map(|key| keyed(&reactor, key)).collect();
    channels.iter().for_each(|(tx, _)| tx.send(0).unwrap());
    let mut events = Events::with_capacity(3);
    // Three of ten sources are reported a turn. All but the last are served now and then.
    for turn in 0..4_000 {
        reactor.wait(&mut events).unwrap();
        for (tx, inbox) in channels[..9].iter().filter(|_| turn % 100 == 0) {
            inbox.try_recv().unwrap();
            tx.send(0).unwrap();
        }
    }
    assert_eq!(spinning(&reactor), [9]);
    assert_eq!(reactor.stats().spinning, 1);
}

#[test]
fn taking_an_end_endlessly_counts_as_spinning() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    let (context, canceller) = pollmux::Context::background().with_cancel();
    let done = reactor.done(&context).with_key(2);
    drop(tx);
    canceller.cancel();
    let take = |times: usize| {
        for _ in 0..times {
            select! { reactor; recv(inbox) -> end => assert!(end.is_err()) }
            select! { reactor; recv(done) -> _ => {} }
        }
    };
    take(999);
    assert_eq!(spinning(&reactor), []);
    take(1);
    assert_eq!(spinning(&reactor), [1, 2]);
    take(2_000);
    assert_eq!((spinning(&reactor), reactor.stats().spinning), (vec![1, 2], 2));
    // A `try_recv` on an ended channel keeps no loop awake.
    let (tx, polled) = keyed(&reactor, 3);
    drop(tx);
    (0..2_000).for_each(|_| assert!(polled.try_recv().is_err()));
    assert_eq!(spinning(&reactor), [1, 2]);
    drop((inbox, done));
    // New sources take the slots.
    let _others = [reactor.timer(), reactor.timer()];
    assert_eq!(spinning(&reactor), []);
}

// Capacity.

#[test]
fn a_capacity_of_zero_counts_as_one() {
    let (_sim, reactor) = simulated();
    let _timers = [reactor.after(ms(0)).with_key(1), reactor.after(ms(0)).with_key(2)];
    let mut events = Events::with_capacity(0);
    reactor.wait(&mut events).unwrap();
    assert_eq!((events.len(), events.is_empty()), (1, false));
}

#[test]
fn ready_sources_take_turns_in_small_batches() {
    let (_sim, reactor) = simulated();
    let channels: Vec<_> = (0..10).map(|key| keyed(&reactor, key)).collect();
    channels.iter().for_each(|(tx, _)| tx.send(0).unwrap());
    let mut events = Events::with_capacity(3);
    let mut counts = [0; 10];
    // Nothing is drained: 10 waits of 3 report each of the 10 inboxes three times.
    for _ in 0..10 {
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.len(), 3);
        keys(&events).into_iter().for_each(|key| counts[key as usize] += 1);
    }
    assert_eq!(counts, [3; 10]);
}

#[test]
fn busy_channels_do_not_starve_a_timer() {
    let (sim, reactor) = simulated();
    let channels: Vec<_> = (0..50).map(|key| keyed(&reactor, key)).collect();
    let timer = reactor.after(ms(1)).with_key(99);
    sim.advance(ms(1));
    let mut events = Events::with_capacity(1);
    channels.iter().for_each(|(tx, _)| tx.send(0).unwrap());
    for turn in 0.. {
        reactor.wait(&mut events).unwrap();
        match keys(&events)[..] {
            [99] => break,
            // The channels stay full: the loop sends a message for each message it takes.
            [key] => {
                let (tx, inbox) = &channels[key as usize];
                tx.send(inbox.try_recv().unwrap() + 1).unwrap();
            }
            _ => unreachable!(),
        }
        assert!(turn <= 50, "the timer starves");
    }
    assert_eq!(timer.try_take(), Some(at(1)));
}

#[test]
fn a_flooded_channel_does_not_starve_another() {
    let (_sim, reactor) = simulated();
    let (flood, flooded) = keyed(&reactor, 1);
    let (quiet_tx, quiet) = keyed(&reactor, 2);
    (0..8).for_each(|n| flood.send(n).unwrap());
    quiet_tx.send(7).unwrap();
    let mut events = Events::with_capacity(1);
    for turn in 0.. {
        reactor.wait(&mut events).unwrap();
        if keys(&events) == [2] {
            break;
        }
        flooded.try_recv().unwrap();
        flood.send(0).unwrap();
        assert!(turn < 3);
    }
    assert_eq!(quiet.try_recv(), Ok(7));
}

// Priorities.

/// Makes a timer for each priority, due in this order. The key is the timer's number.
fn timers(reactor: &Reactor, priorities: &[Priority]) -> Vec<Timer> {
    let timers = priorities.iter().zip(0..).map(|(&priority, key)| {
        reactor.after(Duration::from_nanos(key)).with_key(key).with_priority(priority)
    });
    let timers = timers.collect();
    reactor.sleep_blocking(ms(1)).unwrap();
    timers
}

/// Waits `n` times with room for `room` events, and takes nothing.
fn batches(reactor: &Reactor, room: usize, n: usize) -> Vec<Vec<u64>> {
    let mut events = Events::with_capacity(room);
    let batch = |_| {
        reactor.wait(&mut events).unwrap();
        keys(&events)
    };
    (0..n).map(batch).collect()
}

#[test]
fn events_are_ordered_by_priority_then_waiting_time() {
    let (_sim, reactor) = simulated();
    let timers = timers(&reactor, &[Low, Normal, High, Low, High, Normal]);
    // All events fit and nothing is taken, so the order stays.
    assert_eq!(batches(&reactor, 6, 3), [[2, 4, 1, 5, 0, 3]; 3]);
    timers[4].reset(Duration::ZERO);
    assert!(timers[5].stop());
    assert_eq!(batches(&reactor, 99, 1), [[2, 4, 1, 0, 3]]);
}

#[test]
fn higher_priorities_are_chosen_when_not_all_fit() {
    let (_sim, reactor) = simulated();
    let timers = timers(&reactor, &[Normal, Normal, Low, High, High, High]);
    let mut taken = Vec::new();
    while taken.len() < 6 {
        for key in batches(&reactor, 3, 1).concat() {
            assert!(timers[key as usize].try_take().is_some());
            taken.push(key);
        }
    }
    // The last event of the first batch is the timer that has waited longest.
    assert_eq!(taken, [3, 4, 0, 5, 1, 2]);
}

#[test]
fn equal_priorities_take_turns() {
    let (_sim, reactor) = simulated();
    let timers = timers(&reactor, &[High, High, High, High, Normal, Low]);
    assert_eq!(batches(&reactor, 1, 5), [[0], [1], [2], [3], [0]]);
    assert!(timers[1..4].iter().all(|timer| timer.stop()));
    // No other timer has this priority, and the batch has no room for a second event.
    assert_eq!(batches(&reactor, 1, 3), [[0]; 3]);
}

#[test]
fn low_priorities_do_not_starve() {
    for room in 2..5 {
        let (_sim, reactor) = simulated();
        let priorities = [High; 20].into_iter().chain([Normal, Low]);
        let channels = priorities.zip(0..).map(|(priority, key)| {
            let (tx, inbox) = keyed(&reactor, key);
            tx.send(0).unwrap();
            (tx, inbox.with_priority(priority))
        });
        let channels: Vec<_> = channels.collect();
        let mut counts = [0; 22];
        let mut events = Events::with_capacity(room);
        for _ in 0..220 {
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.len(), room);
            for event in &events {
                counts[event.key() as usize] += 1;
                // The channels stay full: the loop sends a message for each message it takes.
                let (tx, inbox) = &channels[event.key() as usize];
                tx.send(inbox.try_recv().unwrap()).unwrap();
            }
        }
        // Each source is reported at least once in as many batches as there are sources.
        assert!(counts[20..].iter().all(|&count| count >= 10), "{counts:?}");
        let (least, most) = (counts[..20].iter().min(), counts[..20].iter().max());
        assert!(counts[20..].iter().max() < least && most.unwrap() - least.unwrap() <= 2);
    }
}

#[test]
fn a_priority_does_not_stay_with_the_slot() {
    let (_sim, reactor) = simulated();
    let _low = reactor.after(ms(0)).with_key(0).with_priority(Low);
    drop(reactor.after(ms(0)).with_priority(High));
    let _timer = reactor.after(ms(0)).with_key(1);
    let _high = reactor.after(ms(0)).with_key(2).with_priority(High);
    assert_eq!(batches(&reactor, 3, 1), [[2, 1, 0]]);
}

#[test]
fn sources_with_priorities_spin_when_not_served() {
    let (_sim, reactor) = simulated();
    let timers = timers(&reactor, &[Low, Normal, High]);
    batches(&reactor, 3, 999);
    assert_eq!(spinning(&reactor), []);
    timers[1].reset(Duration::ZERO);
    batches(&reactor, 3, 1);
    assert_eq!(spinning(&reactor), [0, 2]);
}

#[test]
fn a_priority_may_be_set_during_a_wait() {
    let (_sim, reactor) = simulated();
    let _late = reactor.after(ms(2)).with_key(1);
    let kept = Rc::new(Cell::new(None));
    let timer = kept.clone();
    let give = move |cx: &CallbackContext<'_>| {
        let late = [cx.after(ms(1)).with_key(2), cx.after(ms(1)).with_key(3).with_priority(High)];
        timer.set(Some(late));
        // The sleep ends when all timers are due.
        cx.sleep_blocking(ms(1)).unwrap();
    };
    reactor.call_after(ms(1), give).detach();
    assert_eq!(batches(&reactor, 9, 1), [[3, 1, 2]]);
}

#[test]
fn room_of_low_priority_is_reported_once() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = channel::bounded(1);
    let outbox = reactor.register_with(9, tx).unwrap().with_priority(Low);
    let _timers = timers(&reactor, &[High; 4]);
    assert!(outbox.try_send(1).is_ok() && outbox.try_send(2).is_err());
    assert_eq!(rx.try_recv(), Ok(1));
    let reported: Vec<_> = batches(&reactor, 2, 50).concat();
    assert_eq!(reported.iter().filter(|&&key| key == 9).count(), 1);
    assert_eq!(reported.len(), 100);
}

// Events that a batch skips.

#[test]
fn iteration_skips_sources_that_are_no_longer_ready() {
    let (sim, reactor) = simulated();
    let kept = reactor.after(ms(1)).with_key(0);
    let stopped = reactor.after(ms(1)).with_key(1);
    let reset = reactor.after(ms(1)).with_key(2);
    let taken = reactor.after(ms(1)).with_key(3);
    let dropped = reactor.after(ms(1)).with_key(4);
    let restarted = reactor.every(ms(1)).unwrap().with_key(5);
    let ticked = reactor.every(ms(1)).unwrap().with_key(6);
    let (tx_drained, drained) = keyed(&reactor, 7);
    let (tx_gone, gone) = keyed(&reactor, 8);
    let (tx_back, back) = keyed(&reactor, 9);
    let (tx_partly, partly) = keyed(&reactor, 10);
    for tx in [&tx_drained, &tx_gone, &tx_back, &tx_partly, &tx_partly] {
        tx.send(1).unwrap();
    }
    let last = reactor.after(ms(1)).with_key(11);
    sim.advance(ms(1));
    let mut events = Events::with_capacity(16);
    reactor.wait(&mut events).unwrap();
    assert_eq!(keys(&events).len(), 12);

    assert!(stopped.stop());
    assert!(reset.reset(ms(1)));
    assert!(taken.try_take().is_some());
    drop(dropped);
    assert!(restarted.restart());
    assert!(select! { reactor; recv(ticked) -> _ => true, default => false });
    assert_eq!(drained.try_recv(), Ok(1));
    drop(gone);
    let receiver = back.into_inner();
    assert_eq!(partly.try_recv(), Ok(1));
    let left: HashSet<u64> = keys(&events).into_iter().collect();
    assert_eq!(left, HashSet::from([0, 10, 11]));

    // The iteration checks each event when it comes to the event.
    let mut seen = Vec::new();
    for event in &events {
        seen.push(event.key());
        kept.stop();
        last.stop();
        partly.try_recv().ok();
    }
    assert_eq!(seen.len(), 1);
    assert_eq!(keys(&events), []);
    assert_eq!(events.len(), 12, "`len` counts the events that the wait found");
    assert_eq!(receiver.try_recv(), Ok(1), "the receiver lost its message");
}

#[test]
fn an_event_never_reports_the_slot_s_successor() {
    let (sim, reactor) = simulated();
    for kind in 0..3 {
        let first = reactor.after(ms(1)).with_key(1);
        let second = reactor.after(ms(1)).with_key(2);
        sim.advance(ms(1));
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert_eq!(keys(&events), [1, 2]);
        drop(second);
        // The new source takes the slot that was freed last. Both sources are ready, so only the
        // generation distinguishes the new source.
        let timer = (kind == 0).then(|| reactor.after(Duration::ZERO).with_key(3));
        let ticker =
            (kind == 1).then(|| reactor.every(Duration::from_nanos(1)).unwrap().with_key(3));
        let (tx, rx) = channel::bounded(1);
        tx.send(1).unwrap();
        let inbox = (kind == 2).then(|| reactor.register_with(3, rx).unwrap());
        sim.advance(Duration::from_nanos(1));
        let now: HashSet<u64> = ready_keys(&reactor).into_iter().collect();
        assert_eq!(now, HashSet::from([1, 3]), "the new source is not ready");
        assert_eq!(keys(&events), [1]);
        drop((first, timer, ticker, inbox));
    }
}

#[test]
fn a_nested_wait_does_not_change_the_batch() {
    let (_sim, reactor) = simulated();
    let timers: Vec<_> = (0..4).map(|key| reactor.after(ms(0)).with_key(key)).collect();
    let (mut outer, mut inner) = (Events::with_capacity(8), Events::with_capacity(8));
    reactor.wait(&mut outer).unwrap();
    let mut seen = Vec::new();
    for event in &outer {
        seen.push(event.key());
        reactor.wait(&mut inner).unwrap();
        assert_eq!(inner.len(), timers.len() + 1 - seen.len());
        timers[event.key() as usize].try_take();
    }
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[test]
fn one_buffer_may_serve_several_reactors() {
    let (_sim, first) = simulated();
    let (_sim, second) = simulated();
    let _a = first.after(ms(0)).with_key(1);
    let b = second.after(ms(0)).with_key(2);
    let mut events = Events::with_capacity(4);
    first.wait(&mut events).unwrap();
    assert_eq!(keys(&events), [1]);
    second.wait(&mut events).unwrap();
    assert_eq!(keys(&events), [2]);
    b.try_take();
    second.try_wait(&mut events).unwrap();
    assert_eq!((events.len(), keys(&events)), (0, vec![]));
}

// Waits, timeouts and failures.

#[test]
fn wait_timeout_is_exact_in_virtual_time() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(100)).with_key(1);
    assert_eq!((support::wait_keys_for(&reactor, ms(30)), sim.now()), (vec![], at(30)));
    assert_eq!((support::wait_keys_for(&reactor, ms(70)), sim.now()), (vec![1], at(100)));
    timer.try_take();
    assert_eq!((support::wait_keys_for(&reactor, Duration::ZERO), sim.now()), (vec![], at(100)));
}

#[test]
fn a_real_wait_timeout_is_never_early() {
    // Wall time is the subject.
    let reactor = support::reactor();
    let mut events = Events::with_capacity(4);
    for timeout in [0, 1, 10_000, 250_000, 1_000_000, 3_000_001].map(Duration::from_nanos) {
        for _ in 0..5 {
            let start = Instant::now();
            reactor.wait_timeout(&mut events, timeout).unwrap();
            assert!(start.elapsed() >= timeout, "{timeout:?}");
            assert!(events.is_empty());
        }
    }
}

#[test]
fn try_wait_and_zero_timeouts_make_no_syscall() {
    let reactor = support::reactor();
    let (tx, inbox) = keyed(&reactor, 1);
    let _timer = reactor.after(Duration::from_secs(3600));
    for n in 0..100 {
        assert_eq!(support::ready_keys(&reactor), []);
        tx.send(n).unwrap();
        assert_eq!(support::wait_keys(&reactor), [1]);
        assert_eq!(inbox.try_recv(), Ok(n));
        assert_eq!(support::wait_keys_for(&reactor, Duration::ZERO), []);
    }
    assert_eq!(reactor.stats().syscalls(), 0);
}

#[test]
fn a_driver_error_fails_the_wait() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    let mut events = Events::with_capacity(4);
    for n in 0..3 {
        assert_eq!(reactor.wait(&mut events).unwrap_err().kind(), io::ErrorKind::Deadlock);
        assert!(events.is_empty());
        tx.send(n).unwrap();
        reactor.wait(&mut events).unwrap();
        assert_eq!((keys(&events), inbox.try_recv()), (vec![1], Ok(n)));
    }
}

#[test]
fn waiting_on_a_dropped_reactor_fails() {
    let (_sim, reactor) = simulated();
    let handle = reactor.handle();
    let timer = reactor.after(ms(0)).with_key(1);
    let mut events = Events::with_capacity(4);
    handle.wait(&mut events).unwrap();
    assert_eq!(keys(&events), [1]);
    drop(reactor);
    assert_eq!(keys(&events), [], "the batch is not inert");
    for result in [
        handle.wait(&mut events),
        handle.try_wait(&mut events),
        handle.wait_timeout(&mut events, ms(1)),
    ] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
    drop(timer);
}

// Many channels.

#[test]
fn only_channels_with_messages_are_reported() {
    let (_sim, reactor) = simulated();
    let channels: Vec<_> = (0..10_000).map(|key| keyed(&reactor, key)).collect();
    assert_eq!(reactor.stats().live, 10_000);
    for round in 0..50u64 {
        let chosen: HashSet<u64> =
            (0..20).map(|i| (round * 7_919 + i * 104_729) % 10_000).collect();
        chosen.iter().for_each(|&key| channels[key as usize].0.send(1).unwrap());
        let reported = ready_keys(&reactor);
        assert_eq!(reported.len(), chosen.len());
        assert_eq!(reported.iter().copied().collect::<HashSet<u64>>(), chosen);
        reported.iter().for_each(|&key| assert_eq!(channels[key as usize].1.try_recv(), Ok(1)));
    }
    assert_eq!(ready_keys(&reactor), []);
}

/// The CPU time of the best of 2,000 waits for a message among `count` channels.
fn best_wait(count: u64) -> Duration {
    let (_sim, reactor) = simulated();
    let channels: Vec<_> = (0..count).map(|key| keyed(&reactor, key)).collect();
    let mut events = Events::with_capacity(16);
    let mut round = |n: u64| {
        let (tx, inbox) = &channels[(n * 7 % count) as usize];
        tx.send(1).unwrap();
        let (result, took) = timed(|| reactor.wait(&mut events));
        result.unwrap();
        assert_eq!(keys(&events), [n * 7 % count]);
        assert_eq!(inbox.try_recv(), Ok(1));
        took
    };
    (0..2_000).map(&mut round).min().unwrap()
}

#[test]
fn a_wait_s_cost_depends_on_ready_sources() {
    // The best of 2,000 waits needs no quiet machine. Polling each channel would cost a thousand
    // times as much, not ten times.
    let few = best_wait(10);
    let many = best_wait(10_000);
    assert!(many < few * 10 + Duration::from_micros(5), "10 channels: {few:?}, 10,000: {many:?}");
}

// Mixed with select!.

#[test]
fn a_message_taken_by_select_is_not_reported() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    for n in 0..100 {
        tx.send(n).unwrap();
        if n % 3 == 0 {
            assert_eq!(ready_keys(&reactor), [1]);
        }
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
        if n % 2 == 0 {
            assert_eq!(ready_keys(&reactor), []);
        }
    }
}

#[test]
fn select_and_wait_find_each_new_message() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    for n in 0..100 {
        // A `select!` that finds nothing, and one that drains the inbox, both ask for a mark again.
        assert!(select! { reactor; recv(inbox) -> _ => false, default => true });
        tx.send(n).unwrap();
        assert_eq!(ready_keys(&reactor), [1]);
        assert_eq!(inbox.try_recv(), Ok(n));
        tx.send(n + 1_000).unwrap();
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n + 1_000)) }
        tx.send(n + 2_000).unwrap();
        assert_eq!(ready_keys(&reactor), [1]);
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n + 2_000)) }
        assert_eq!(ready_keys(&reactor), []);
    }
}

#[test]
fn wait_reports_channels_after_a_blocking_select() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = keyed(&reactor, 1);
    let timer = reactor.timer();
    for n in 0..100 {
        timer.reset(ms(1));
        select! { reactor; recv(inbox) -> _ => unreachable!(), recv(timer) -> _ => {} }
        tx.send(n).unwrap();
        assert_eq!(ready_keys(&reactor), [1]);
        assert_eq!(inbox.try_recv(), Ok(n));
        assert_eq!(ready_keys(&reactor), []);
    }
    assert_eq!(sim.now(), at(100));
}

#[test]
fn wait_reports_channels_outside_an_earlier_select() {
    let (_sim, reactor) = simulated();
    let channels: Vec<_> = (0..50).map(|key| keyed(&reactor, key)).collect();
    let timer = reactor.timer();
    for _ in 0..20 {
        for (tx, _) in &channels[10..] {
            tx.send(1).unwrap();
        }
        timer.reset(ms(1));
        select! { reactor; recv(channels[0].1) -> _ => unreachable!(), recv(timer) -> _ => {} }
        let reported: HashSet<u64> = ready_keys(&reactor).into_iter().collect();
        assert_eq!(reported, (10..50).collect());
        for (_, inbox) in &channels[10..] {
            assert_eq!(inbox.try_recv(), Ok(1));
        }
    }
}

// Other threads.

#[test]
fn a_message_from_another_thread_ends_the_wait() {
    support::exact("counts wake-ups");
    let reactor = support::reactor();
    let (tx, inbox) = keyed(&reactor, 1);
    let sender = thread::spawn(move || {
        for n in 0..5 {
            // Real time lets the reactor fall asleep.
            thread::sleep(ms(5));
            tx.send(n).unwrap();
        }
    });
    let mut events = Events::with_capacity(4);
    for n in 0..5 {
        reactor.wait(&mut events).unwrap();
        assert_eq!((keys(&events), inbox.try_recv()), (vec![1], Ok(n)));
    }
    reactor.wait(&mut events).unwrap();
    assert_eq!(
        inbox.try_recv(),
        Err(TryRecvError::Disconnected),
        "the end of the channel ends the wait, too"
    );
    sender.join().unwrap();
    assert!(reactor.stats().wakes <= 6, "more than one wake-up a sleep: {}", reactor.stats());
}

/// The reactor polls a few channels directly, and finds many channels by their marks.
#[test]
fn adding_and_dropping_channels_loses_no_message() {
    let _watchdog = watchdog();
    for ends_the_sleep in [false, true] {
        let reactor = support::reactor();
        let mut channels = Vec::new();
        let mut events = Events::with_capacity(4);
        for len in [1, 12, 13, 40, 13, 12, 6, 5, 1, 2, 16, 1, 0, 8] {
            while channels.len() < len {
                channels.push(keyed(&reactor, channels.len() as u64));
            }
            channels.truncate(len);
            for round in 0..3 {
                let senders: Vec<_> = channels.iter().map(|(tx, _)| tx.clone()).collect();
                let send = move || {
                    if ends_the_sleep {
                        thread::sleep(Duration::from_micros(200));
                    }
                    senders.iter().rev().for_each(|tx| tx.send(round).unwrap());
                };
                let sender = thread::spawn(send);
                let mut left: BTreeSet<u64> = (0..len as u64).collect();
                while !left.is_empty() {
                    reactor.wait(&mut events).unwrap();
                    for event in &events {
                        assert!(left.remove(&event.key()), "{event:?} came twice");
                        let (_, inbox) = &channels[event.key() as usize];
                        assert_eq!(inbox.try_recv(), Ok(round));
                    }
                }
                sender.join().unwrap();
            }
        }
    }
}

#[test]
fn wait_and_select_in_turns_lose_no_message() {
    const SENDERS: u32 = 4;
    const EACH: u32 = 3_000;
    let reactor = support::reactor();
    let channels: Vec<_> = (0..SENDERS).map(|key| keyed(&reactor, u64::from(key))).collect();
    let (senders, inboxes): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
    for tx in senders {
        thread::spawn(move || {
            for n in 0..EACH {
                tx.send(n).unwrap();
                if n % 64 == 0 {
                    thread::yield_now();
                }
            }
        });
    }
    let mut events = Events::with_capacity(2);
    let mut next = [0; SENDERS as usize];
    let mut over = [false; SENDERS as usize];
    let mut turn = 0u32;
    while over != [true; SENDERS as usize] {
        turn += 1;
        let select = turn % 3 == 0 && !over[0];
        let mut got = |i: usize, message: Result<u32, TryRecvError>| match message {
            Ok(n) => {
                assert_eq!(n, next[i]);
                next[i] += 1;
            }
            Err(TryRecvError::Disconnected) => over[i] = true,
            Err(TryRecvError::Empty) => panic!("a reported channel is empty"),
        };
        if select {
            select! { reactor;
                recv(inboxes[0]) -> message => {
                    got(0, message.map_err(|_| TryRecvError::Disconnected))
                }
                default(ms(1)) => {}
            }
        } else {
            reactor.wait_timeout(&mut events, ms(1_000)).unwrap();
            for event in &events {
                got(event.key() as usize, inboxes[event.key() as usize].try_recv());
            }
        }
    }
    assert_eq!(next, [EACH; SENDERS as usize]);
}

#[test]
fn a_ping_pong_through_wait_never_hangs() {
    // Each hop is a sleep and a wake-up, or the race between the two.
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, inbox) = keyed(&reactor, 1);
    let (back, pings) = channel::bounded::<u32>(1);
    let _echo = support::aside(move || pings.iter().for_each(|n| tx.send(n).unwrap()));
    // The timer is not due: it must not make up for a lost wake-up.
    let far = reactor.after(Duration::from_secs(3600)).with_key(2);
    for n in 0..support::rounds(1_250) as u32 {
        back.send(n).unwrap();
        assert_eq!(support::wait_keys(&reactor), [1]);
        assert_eq!(inbox.try_recv(), Ok(n));
    }
    assert!(far.stop());
    drop(back);
}

/// The driver of a GUI runs events of the GUI while it waits. Such events may register channels.
#[test]
fn channels_registered_during_a_sleep_end_the_sleep() {
    for before in [0, 3, 8, 20] {
        for to_new in [true, before == 0] {
            let (sim, reactor, script) = scripted_reactor();
            let known: Vec<_> = (0..before).map(|key| keyed(&reactor, key)).collect();
            let (new, rx) = channel::bounded(8);
            let to = if to_new { new.clone() } else { known[0].0.clone() };
            let (handle, inbox) = (reactor.clone(), Rc::new(OnceCell::new()));
            let registered = inbox.clone();
            script.on_sleep(move || {
                registered.set(handle.register_with(99, rx).unwrap()).unwrap();
                thread::spawn(move || to.send(1).unwrap()).join().unwrap();
                Ok(())
            });
            let _limit = reactor.after(HOUR);
            let mut events = Events::new();
            reactor.wait(&mut events).unwrap();
            let reported: Vec<_> = events.iter().map(|event| event.key()).collect();
            assert_eq!((reported, sim.now()), (vec![if to_new { 99 } else { 0 }], Time::ZERO));
        }
    }
}
