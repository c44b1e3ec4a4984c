//! `sources()` lists the live sources with their kind, their state and the line that made them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{
    Callback, Handle, Reactor, Source, Ticker, Time, Timer, channel,
    reactor::{SourceInfo, SourceKind},
    select,
};

use support::{at, ms, ready_keys, simulated, turn};

/// The only live source.
#[track_caller]
fn only(reactor: &Handle) -> SourceInfo {
    let sources = reactor.sources();
    assert_eq!(sources.len(), 1, "{sources}");
    sources.iter().next().unwrap().clone()
}

/// The only source that `line` has made.
#[track_caller]
fn made_at(reactor: &Handle, line: u32) -> SourceInfo {
    let sources = reactor.sources();
    let mut there = sources.iter().filter(|info| info.location.is_some_and(|at| at.line() == line));
    let info =
        there.next().unwrap_or_else(|| panic!("no source of line {line} in\n{sources}")).clone();
    assert!(there.next().is_none(), "several sources of line {line} in\n{sources}");
    info
}

#[track_caller]
fn assert_made_here(reactor: &Handle, kind: SourceKind) {
    let (info, caller) = (only(reactor), Location::caller());
    let location = info.location.expect("a place");
    assert_eq!(
        (info.kind, location.file(), location.line()),
        (Some(kind), caller.file(), caller.line())
    );
}

/// Makes a timer for the caller. Returns the caller's place, too. `ticker` and `callback` do the
/// same.
#[track_caller]
fn timer(reactor: &Handle, d: Duration) -> (Timer, &'static Location<'static>) {
    (reactor.after(d), Location::caller())
}

#[track_caller]
fn ticker(reactor: &Handle, period: Duration) -> (Ticker, &'static Location<'static>) {
    (reactor.every(period).unwrap(), Location::caller())
}

#[track_caller]
fn callback(reactor: &Handle, d: Duration) -> (Callback, &'static Location<'static>) {
    (reactor.call_after(d, |_| {}), Location::caller())
}

// Places and kinds.

#[test]
#[rustfmt::skip] // one line makes each source and checks its place
fn each_source_is_listed_with_its_line() {
    let (_sim, reactor) = simulated();
    let far = at(3_600_000);
    { let _s = reactor.after(ms(1)); assert_made_here(&reactor, SourceKind::Timer); }
    { let _s = reactor.at(far); assert_made_here(&reactor, SourceKind::Timer); }
    { let _s = reactor.timer(); assert_made_here(&reactor, SourceKind::Timer); }
    { let _s = reactor.every(ms(1)); assert_made_here(&reactor, SourceKind::Ticker); }
    { let _s = reactor.every_at(far, ms(1)); assert_made_here(&reactor, SourceKind::Ticker); }
    let kind = SourceKind::Callback;
    { let _s = reactor.call_after(ms(1), |_| {}); assert_made_here(&reactor, kind); }
    { let _s = reactor.call_at(far, |_| {}); assert_made_here(&reactor, SourceKind::Callback); }
    let (_tx, rx) = channel::bounded::<u8>(1);
    { let _s = reactor.register(rx); assert_made_here(&reactor, SourceKind::Inbox); }
    let (_tx, rx) = channel::unbounded::<u8>();
    { let _s = reactor.register(rx); assert_made_here(&reactor, SourceKind::Inbox); }
    let (_tx, rx) = channel::bounded::<u8>(0);
    { let _s = reactor.register_with(7, rx); assert_made_here(&reactor, SourceKind::Inbox); }
    let (tx, _rx) = channel::bounded::<u8>(1);
    { let _s = reactor.register(tx); assert_made_here(&reactor, SourceKind::Outbox); }
    let (tx, _rx) = channel::bounded::<u8>(1);
    { let _s = reactor.register_with(7, tx); assert_made_here(&reactor, SourceKind::Outbox); }
    { let _s = reactor.channel::<u8>(1); assert_made_here(&reactor, SourceKind::Inbox); }
    { let _s = reactor.notifier(); assert_made_here(&reactor, SourceKind::Notified); }
    let (context, canceller) = reactor.context().with_cancel();
    { let _s = reactor.done(&context); assert_made_here(&reactor, SourceKind::Context); }
    let kind = SourceKind::Callback;
    { let _s = reactor.after_cancel(&context, |_| {}); assert_made_here(&reactor, kind); }
    canceller.cancel();
    { let _s = reactor.done(&context); assert_made_here(&reactor, SourceKind::Context); }
    // The same through a handle, and inside a callback.
    let handle: &Handle = &reactor;
    { let _s = handle.after(ms(1)); assert_made_here(&reactor, SourceKind::Timer); }
    reactor.call_after(ms(0), |cx| {
        let s = cx.every(ms(1)); let made = made_at(cx, line!());
        assert_eq!(made.kind, Some(SourceKind::Ticker));
        drop(s);
    }).detach();
    turn(&reactor);
    assert_eq!((reactor.stats().called, reactor.sources().len()), (1, 0));
}

#[test]
fn contexts_are_listed_with_deadlines_and_without_ids() {
    let (_sim, reactor) = simulated();
    let (context, canceller) = reactor.context().with_timeout(ms(50));
    let states = |reactor: &Handle| {
        let sources = reactor.sources();
        let state = |info: &SourceInfo| (info.deadline, info.ready, info.fired, info.id);
        sources.iter().map(state).collect::<Vec<_>>()
    };
    let (done, _after) = (reactor.done(&context), reactor.after_cancel(&context, |_| {}));
    assert_eq!(states(&reactor), [(Some(at(50)), false, 0, None); 2]);
    canceller.cancel();
    assert_eq!(ready_keys(&reactor), [done.key()]);
    assert_eq!(states(&reactor), [(None, true, 0, None), (None, false, 1, None)]);
    assert!(done.try_take().is_some() && done.try_take().is_some());
    assert_eq!(
        states(&reactor),
        [(None, false, 1, None); 2],
        "the context fires once, however often its value is taken"
    );
}

#[test]
fn a_source_has_its_tracked_callers_place() {
    let (_sim, reactor) = simulated();
    let (_a, a) = timer(&reactor, ms(1));
    assert_eq!(only(&reactor).location, Some(a));
    let ((_b, b), (_c, c)) = (timer(&reactor, ms(1)), timer(&reactor, ms(1)));
    assert!(b.line() == c.line() && b.column() < c.column());
    let places: HashSet<_> = reactor.sources().iter().filter_map(|info| info.location).collect();
    assert_eq!(places, HashSet::from([a, b, c]));
    assert!(places.iter().all(|place| place.file() == file!()));
}

#[test]
fn each_kind_of_one_line_is_listed_apart() {
    #[track_caller]
    fn both(reactor: &Reactor) -> (Timer, Ticker) {
        (reactor.after(ms(1)), reactor.every(ms(1)).unwrap())
    }
    let (_sim, reactor) = simulated();
    let _made: Vec<_> = (0..3).map(|_| both(&reactor)).collect();
    let sources = reactor.sources();
    let origins = sources.by_origin();
    let kinds: HashSet<_> =
        origins.iter().map(|origin| (origin.kind, origin.sources.len())).collect();
    assert_eq!(kinds, HashSet::from([(Some(SourceKind::Timer), 3), (Some(SourceKind::Ticker), 3)]));
    assert_eq!(origins[0].location, origins[1].location);
}

#[test]
fn kinds_have_names() {
    let names = [
        (SourceKind::Timer, "timer"),
        (SourceKind::Ticker, "ticker"),
        (SourceKind::Callback, "callback"),
        (SourceKind::Inbox, "inbox"),
        (SourceKind::Outbox, "outbox"),
        (SourceKind::Notified, "notified"),
        (SourceKind::Context, "context"),
        (SourceKind::OsTimer, "os timer"),
    ];
    for (kind, name) in names {
        assert_eq!(
            (kind.to_string(), format!("{kind:>10}")),
            (name.to_owned(), format!("{name:>10}"))
        );
    }
}

// States.

#[test]
fn a_timer_s_states_are_listed() {
    let (sim, reactor) = simulated();
    let timer = reactor.timer().with_key(5);
    let state = || {
        let info = only(&reactor);
        assert_eq!(
            (info.kind, info.key, info.id, info.period),
            (Some(SourceKind::Timer), 5, Some(timer.id()), None)
        );
        (info.deadline, info.ready, info.fired)
    };
    assert_eq!(state(), (None, false, 0));
    timer.reset(ms(5));
    assert_eq!(state(), (Some(at(5)), false, 0));
    // A postponed timer leaves its entry in the queue. The list has the new deadline.
    timer.reset(ms(10));
    assert_eq!(state(), (Some(at(10)), false, 0));
    sim.advance(ms(20));
    assert_eq!(state(), (Some(at(10)), false, 0), "no turn has run since the expiry");
    turn(&reactor);
    assert_eq!(state(), (Some(at(10)), true, 0), "the value was not taken");
    timer.try_take().unwrap();
    assert_eq!(state(), (None, false, 1));
    timer.reset(ms(0));
    select! { reactor; recv(timer) -> _ => {} }
    assert_eq!(state(), (None, false, 2));
    // A stopped expiry does not count as fired.
    timer.reset(ms(0));
    turn(&reactor);
    assert!(state().1 && timer.stop());
    assert_eq!(state(), (None, false, 2));
    timer.reset(Duration::MAX);
    assert_eq!(state(), (Some(Time::MAX), false, 2));
}

#[test]
fn a_ticker_s_states_are_listed() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    let state = || {
        let info = only(&reactor);
        assert_eq!(
            (info.kind, info.key, info.id),
            (Some(SourceKind::Ticker), ticker.key(), Some(ticker.id()))
        );
        (info.deadline, info.period, info.ready, info.fired)
    };
    assert_eq!(state(), (Some(at(10)), Some(ms(10)), false, 0));
    sim.advance(ms(35));
    turn(&reactor);
    assert_eq!(state(), (Some(at(10)), Some(ms(10)), true, 0));
    // A tick counts once, however many ticks it has missed.
    select! { reactor; recv(ticker) -> tick => assert_eq!(tick.missed, 2) }
    assert_eq!(state(), (Some(at(40)), Some(ms(10)), false, 1));
    ticker.reset(ms(3)).unwrap();
    for _ in 0..4 {
        select! { reactor; recv(ticker) -> _ => {} }
    }
    assert_eq!(state(), (Some(at(50)), Some(ms(3)), false, 5));
    ticker.stop();
    assert_eq!(state(), (None, Some(ms(3)), false, 5));
}

#[test]
fn a_callback_s_states_are_listed() {
    let (_sim, reactor) = simulated();
    let during = Rc::new(RefCell::new(Vec::new()));
    let seen = during.clone();
    let callback = reactor.call_after(ms(5), move |cx| seen.borrow_mut().push(only(cx)));
    let state = |info: &SourceInfo| {
        assert_eq!(
            (info.kind, info.id, info.period),
            (Some(SourceKind::Callback), Some(callback.id()), None)
        );
        assert!(info.key >= 1 << 63);
        (info.deadline, info.ready, info.fired)
    };
    assert_eq!(state(&only(&reactor)), (Some(at(5)), false, 0));
    reactor.sleep_blocking(ms(5)).unwrap();
    // While a callback runs, it is not pending and counts as fired.
    assert_eq!(during.borrow().iter().map(state).collect::<Vec<_>>(), [(None, false, 1)]);
    assert_eq!(state(&only(&reactor)), (None, false, 1));
    callback.reset(ms(0));
    turn(&reactor);
    assert_eq!(state(&only(&reactor)), (None, false, 2));
}

#[test]
fn a_due_callback_that_waits_is_ready() {
    let (_sim, reactor) = simulated();
    let seen = Rc::new(RefCell::new(None));
    let found = seen.clone();
    let second = Rc::new(RefCell::new(None::<Callback>));
    let other = second.clone();
    let _first = reactor.call_after(ms(0), move |cx| {
        let id = other.borrow().as_ref().unwrap().id();
        *found.borrow_mut() = cx.sources().iter().find(|info| info.id == Some(id)).cloned();
    });
    *second.borrow_mut() = Some(reactor.call_after(ms(0), |_| {}));
    turn(&reactor);
    let info = seen.take().unwrap();
    assert_eq!((info.ready, info.deadline, info.fired), (true, Some(at(0)), 0));
}

#[test]
fn a_detached_callback_is_listed_until_it_ends() {
    let (_sim, reactor) = simulated();
    let id = reactor.call_after(ms(5), |_| {}).detach();
    assert_eq!((only(&reactor).id, only(&reactor).deadline), (Some(id), Some(at(5))));
    reactor.sleep_blocking(ms(5)).unwrap();
    assert!(reactor.sources().is_empty());
}

#[test]
fn channel_states_are_listed_without_a_count() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = channel::bounded::<u32>(4);
    let inbox = reactor.register_with(9, rx).unwrap();
    let state = || {
        let info = only(&reactor);
        assert_eq!((info.kind, info.key), (Some(SourceKind::Inbox), 9));
        assert_eq!((info.id, info.deadline, info.period), (None, None, None));
        (info.ready, info.fired)
    };
    assert_eq!(state(), (false, 0));
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    assert_eq!(ready_keys(&reactor), [9]);
    assert_eq!(state(), (true, 0));
    assert_eq!(inbox.try_iter().count(), 2);
    assert_eq!(state(), (false, 0));
    // The end of the channel is reported once and taken.
    drop(tx);
    assert_eq!(ready_keys(&reactor), [9]);
    select! { reactor; recv(inbox) -> end => assert!(end.is_err()) }
    assert_eq!(state(), (false, 0));
}

#[test]
fn outboxes_and_notifiers_are_listed_without_ids() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = channel::bounded::<u32>(4);
    let outbox = reactor.register_with(3, tx).unwrap();
    let info = only(&reactor);
    assert_eq!((info.kind, info.key), (Some(SourceKind::Outbox), 3));
    assert_eq!(
        (info.ready, info.id, info.deadline, info.period, info.fired),
        (false, None, None, None, 0)
    );
    // The outbox is ready while room that it requested has not been reported.
    (0..4).for_each(|n| outbox.try_send(n).unwrap());
    assert!(outbox.try_send(4).is_err());
    for (receives, reported, ready) in [(0, 0, false), (1, 1, true), (0, 0, false)] {
        (0..receives).for_each(|_| assert!(rx.try_recv().is_ok()));
        assert_eq!((ready_keys(&reactor).len(), only(&reactor).ready), (reported, ready));
    }
    drop(outbox);
    let (notifier, notified) = reactor.notifier();
    let notified = notified.with_key(4);
    notifier.notify();
    assert_eq!(ready_keys(&reactor), [4]);
    let info = only(&reactor);
    assert_eq!(
        (info.kind, info.key, info.ready, info.id),
        (Some(SourceKind::Notified), 4, true, None)
    );
    assert_eq!(notified.try_take(), Some(()));
}

#[test]
fn a_slot_keeps_nothing_of_its_last_owner() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(0)).with_key(1);
    timer.try_take();
    select! { reactor; recv(timer) -> _ => {} }
    assert_eq!((only(&reactor).fired, only(&reactor).key), (1, 1));
    drop(timer);
    let ticker = reactor.every(ms(1)).unwrap();
    sim.advance(ms(1));
    select! { reactor; recv(ticker) -> _ => {} }
    drop(ticker);
    let place = line!() + 1;
    let next_timer = reactor.timer();
    let info = only(&reactor);
    assert_eq!(
        (info.kind, info.location.map(Location::line)),
        (Some(SourceKind::Timer), Some(place))
    );
    assert_eq!((info.fired, info.period, info.deadline, info.ready), (0, None, None, false));
    assert_eq!((info.key, info.id), (next_timer.key(), Some(next_timer.id())));
    assert!(info.key >= 1 << 63, "a key of the slot's last owner");
}

#[test]
fn dropped_sources_are_not_listed() {
    let (_sim, reactor) = simulated();
    assert!(reactor.sources().is_empty());
    let mut timers: Vec<_> = (0..300).map(|_| reactor.after(ms(1))).collect();
    let tickers: Vec<_> = (0..10).map(|_| reactor.every(ms(1)).unwrap()).collect();
    let channels: Vec<_> = (0..10).map(|_| reactor.channel::<u8>(1).unwrap()).collect();
    let outbox = reactor.register(channel::bounded::<u8>(1).0).unwrap();
    let notifier = reactor.notifier();
    let callback = reactor.call_after(ms(1), |_| {});
    let count = |n: usize| {
        let sources = reactor.sources();
        assert_eq!((sources.len(), sources.iter().count(), reactor.stats().live), (n, n, n));
        assert_eq!(sources.into_iter().count(), n);
        assert_eq!(sources.by_origin().iter().map(|origin| origin.sources.len()).sum::<usize>(), n);
        assert_eq!(sources.is_empty(), n == 0);
    };
    count(323);
    // The list has exactly the timers that were kept.
    let kept: HashSet<_> = timers.iter().step_by(3).map(Timer::id).collect();
    timers.retain(|timer| kept.contains(&timer.id()));
    count(123);
    let listed = reactor.sources();
    let timers_listed = listed.iter().filter(|info| info.kind == Some(SourceKind::Timer));
    assert_eq!(timers_listed.filter_map(|info| info.id).collect::<HashSet<_>>(), kept);
    drop((tickers, outbox, notifier));
    count(111);
    // A receiver that was taken out of its inbox is no source.
    let receivers: Vec<_> =
        channels.into_iter().map(|(tx, inbox)| (tx, inbox.into_inner())).collect();
    count(101);
    drop((receivers, callback, timers));
    count(0);
}

#[test]
fn a_list_is_a_snapshot() {
    let (_sim, reactor) = simulated();
    let timer = reactor.after(ms(5));
    let sources = reactor.sources();
    drop(timer);
    assert_eq!((sources.len(), reactor.sources().len()), (1, 0));
    assert_eq!(sources.clone().iter().next().unwrap().deadline, Some(at(5)));
}

#[test]
fn a_dropped_reactor_lists_no_sources() {
    let (_sim, reactor) = simulated();
    let (timer, handle) = (reactor.after(ms(5)), reactor.handle());
    drop(reactor);
    let late = handle.after(ms(1));
    assert_eq!(
        (handle.sources().len(), handle.sources().to_string()),
        (0, "0 sources live".to_owned())
    );
    assert!(handle.sources().by_origin().is_empty());
    drop((timer, late));
    assert!(handle.sources().is_empty());
}

// The printed list.

#[test]
fn origins_are_ordered_by_count_then_line() {
    let (_sim, reactor) = simulated();
    let (_one, one) = timer(&reactor, ms(1));
    let three: Vec<_> = (0..3).map(|_| ticker(&reactor, ms(1))).collect();
    let (_two, two) = callback(&reactor, ms(1));
    let five: Vec<_> = (0..5).map(|_| timer(&reactor, ms(1))).collect();
    let sources = reactor.sources();
    let order: Vec<_> = sources
        .by_origin()
        .iter()
        .map(|origin| (origin.sources.len(), origin.kind.unwrap(), origin.location.unwrap()))
        .collect();
    let expected = [
        (5, SourceKind::Timer, five[0].1),
        (3, SourceKind::Ticker, three[0].1),
        (1, SourceKind::Timer, one),
        (1, SourceKind::Callback, two),
    ];
    assert_eq!(order, expected);
}

#[test]
fn the_list_prints_a_line_for_each_place() {
    let (sim, reactor) = simulated();
    assert_eq!(reactor.sources().to_string(), "0 sources live");
    let (_endless, a) = timer(&reactor, Duration::MAX);
    let text = format!("1 source live, made at 1 place\n       1 x timer     {a}  never due");
    assert_eq!(reactor.sources().to_string(), text);

    let tickers: Vec<_> = (0..3).map(|_| ticker(&reactor, ms(100))).collect();
    let mixed: Vec<_> = [20, 50].into_iter().map(|period| ticker(&reactor, ms(period))).collect();
    let (_called, d) = callback(&reactor, ms(10));
    let (due, e) = timer(&reactor, ms(5));
    let (_idle, f) = timer(&reactor, ms(1));
    sim.advance(ms(30));
    select! { reactor; recv(_idle) -> _ => {} }
    for n in 0..12 {
        sim.advance(ms(100));
        select! { reactor; recv(tickers[n % 2].0) -> _ => {} }
    }
    assert!(due.is_ready());
    let lines = [
        "9 sources live, made at 6 places".to_owned(),
        format!(
            "       3 x ticker    {}  period 100ms, due for 1.13s, 2 ready, fired 12 times",
            tickers[0].1
        ),
        format!(
            "       2 x ticker    {}  periods 20ms to 50ms, due for 1.21s, 2 ready",
            mixed[0].1
        ),
        format!("       1 x timer     {a}  never due"),
        format!("       1 x callback  {d}  fired 1 time"),
        format!("       1 x timer     {e}  due for 1.225s, ready"),
        format!("       1 x timer     {f}  fired 1 time"),
    ];
    assert_eq!(reactor.sources().to_string(), lines.join("\n"));
}

#[test]
fn the_printed_list_shows_deadlines_and_ready_channels() {
    let (sim, reactor) = simulated();
    let timers: Vec<_> = [30, 10, 20].into_iter().map(|d| timer(&reactor, ms(d))).collect();
    let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
    tx.send(1).unwrap();
    sim.advance(ms(4));
    turn(&reactor);
    assert_eq!(ready_keys(&reactor), [inbox.key()]);
    let inbox_at = reactor.sources().iter().find(|info| info.ready).unwrap().location.unwrap();
    let lines = [
        "4 sources live, made at 2 places".to_owned(),
        format!("       3 x timer     {}  due in 6ms", timers[0].1),
        format!("       1 x inbox     {inbox_at}  ready"),
    ];
    assert_eq!(reactor.sources().to_string(), lines.join("\n"));
}

#[test]
fn leaked_tickers_of_one_place_are_one_line() {
    let (_sim, reactor) = simulated();
    let timeout = reactor.after(ms(5));
    let place = line!() + 1;
    (0..100_000).for_each(|_| std::mem::forget(reactor.every(Duration::from_secs(1)).unwrap()));
    let sources = reactor.sources();
    assert_eq!((sources.len(), reactor.stats().live), (100_001, 100_001));
    let text = sources.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "100001 sources live, made at 2 places"));
    assert!(lines[1].starts_with(&format!("  100000 x ticker    {}:{place}:", file!())), "{text}");
    assert!(lines[1].ends_with("  period 1s, due in 1s"), "{text}");
    drop(timeout);
}

#[test]
fn listing_the_sources_changes_nothing() {
    let (sim, reactor) = simulated();
    let (timer, ticker) = (reactor.after(ms(5)), reactor.every(ms(5)).unwrap());
    let called = reactor.call_after(ms(5), |_| {});
    sim.advance(ms(7));
    let before = reactor.stats();
    for _ in 0..3 {
        assert_eq!(reactor.sources().len(), 3);
    }
    assert_eq!(reactor.stats(), before);
    assert_eq!(
        (timer.deadline(), ticker.deadline(), called.deadline()),
        (Some(at(5)), Some(at(5)), Some(at(5)))
    );
    assert!(!timer.is_ready() && !ticker.is_ready());
}
