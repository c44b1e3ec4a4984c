//! Timers as Go specifies them: time/sleep_test.go. The clock is virtual where wall time is not the
//! subject.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pollmux::channel;
use pollmux::{Callback, CallbackContext, Events, Reactor, Sim, Source, Time, Timer, select};
use support::thread;

use crate::common::{LONG, Random, ms, next, poll, reactor, sim, within};

/// Returns a counter, and a closure that increments the counter.
fn counting() -> (Rc<Cell<u64>>, impl FnMut(&CallbackContext<'_>) + Clone + 'static) {
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    (calls, move |_: &CallbackContext<'_>| count.set(count.get() + 1))
}

/// Runs a turn that does not block and calls due callbacks.
fn turn(reactor: &Reactor) {
    assert_eq!(poll(reactor, &pollmux::never::<()>()), None);
}

/// Go time/sleep_test.go: TestSleep
#[test]
fn messages_do_not_shorten_a_timer() {
    let reactor = reactor();
    // The `select!` does not mention the first channel; it receives from the second channel.
    let (aside_tx, _aside) = reactor.channel(1_000).unwrap();
    let (tx, inbox) = reactor.channel(1_000).unwrap();
    let disturber = thread::spawn(move || {
        for n in 0..20 {
            thread::sleep(ms(1));
            aside_tx.send(n).unwrap();
            tx.send(n).unwrap();
        }
        // Keep the senders, so that no channel is disconnected before the timer fires.
        (aside_tx, tx)
    });
    let start = Instant::now();
    let timer = reactor.after(ms(50));
    let mut messages = 0;
    loop {
        select! { reactor;
            recv(timer) -> _ => break,
            recv(inbox) -> n => { n.unwrap(); messages += 1; }
        }
    }
    assert!(start.elapsed() >= ms(50));
    disturber.join().unwrap();
    assert!(messages + inbox.try_iter().count() == 20);
}

/// Go time/sleep_test.go: TestAfterFunc
#[test]
fn a_callback_may_rearm_itself_or_make_another() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(2).unwrap();
    let (mut left, done) = (10, tx.clone());
    let _again = reactor.call_after(Duration::ZERO, move |cx| {
        left -= 1;
        if left >= 0 {
            assert!(!cx.reset(Duration::ZERO));
        } else {
            done.send("itself").unwrap();
        }
    });
    assert_eq!(next(&reactor, &inbox), Ok("itself"));

    fn another(now: &pollmux::Handle, left: u32, done: channel::Sender<&'static str>) {
        let make = move |cx: &CallbackContext<'_>| match left.checked_sub(1) {
            Some(left) => another(cx, left, done.clone()),
            None => done.send("another").unwrap(),
        };
        now.call_after(Duration::ZERO, make).detach();
    }
    another(&reactor, 10, tx);
    assert_eq!(next(&reactor, &inbox), Ok("another"));
    assert_eq!(reactor.stats().called, 22);
}

/// Go time/sleep_test.go: TestAfterFuncStarvation
#[test]
fn a_busy_channel_does_not_starve_a_callback() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    // The loop sends to itself, so it always has work.
    let stop = Rc::new(Cell::new(false));
    let stopped = stop.clone();
    let (begin, mut messages) = (Instant::now(), 0);
    let _callback = reactor.call_after(ms(2), move |_| stopped.set(true));
    tx.send(()).unwrap();
    while !stop.get() {
        select! { reactor; recv(inbox) -> message => message.unwrap() }
        tx.send(()).unwrap();
        messages += 1;
        assert!(begin.elapsed() < LONG, "starved");
    }
    assert!(messages > 0 && begin.elapsed() >= ms(2));
    assert_eq!(reactor.stats().waits, 0, "the loop slept");
}

/// Go time/sleep_test.go: TestTickerStress
#[test]
fn a_nanosecond_ticker_works_under_load() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                drop(vec![0u8; 100_000]);
                thread::sleep(Duration::from_nanos(1));
            }
        });
        let reactor = reactor();
        let ticker = reactor.every(Duration::from_nanos(1)).unwrap();
        let mut last = Time::ZERO;
        for _ in 0..100 {
            let tick = next(&reactor, &ticker);
            assert!(tick.scheduled > last && tick.scheduled <= Time::now());
            last = tick.scheduled;
        }
        assert!(ticker.stop());
        stop.store(true, Ordering::SeqCst);
    });
}

/// Go time/sleep_test.go: TestTickerConcurrentStress
#[test]
fn nanosecond_tickers_work_in_many_reactors() {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let reactor = reactor();
                let start = Time::now();
                let ticker = reactor.every(Duration::from_nanos(1)).unwrap();
                let seen: u64 = (0..100).map(|_| 1 + next(&reactor, &ticker).missed).sum();
                // Each point of the grid is counted, and no point is in the future.
                assert!(seen >= 100 && start + Duration::from_nanos(seen) <= Time::now());
            });
        }
    });
}

/// Go time/sleep_test.go: TestAfter
#[test]
fn a_timer_gives_its_deadline() {
    let reactor = reactor();
    let start = Time::now();
    let due = next(&reactor, &reactor.after(ms(30)));
    assert!(due >= start + ms(30));
    assert!(Time::now() >= due);
}

/// Go time/sleep_test.go: TestAfterTick
#[test]
fn ten_timers_in_sequence_take_their_sum() {
    let reactor = reactor();
    let start = Instant::now();
    for _ in 0..10 {
        next(&reactor, &reactor.after(ms(10)));
    }
    assert!(start.elapsed() >= ms(100));
    // In virtual time the sum is exact.
    let (reactor, sim) = sim();
    for _ in 0..10 {
        next(&reactor, &reactor.after(ms(10)));
    }
    assert_eq!(sim.now(), Time::ZERO + ms(100));
}

/// Go time/sleep_test.go: TestAfterStop
#[test]
fn stop_returns_true_once_and_prevents_firing() {
    let (reactor, _) = sim();
    let _earlier = reactor.after(ms(100));
    let (a, b, end) = (reactor.after(ms(50)), reactor.after(ms(150)), reactor.after(ms(200)));
    assert!(a.stop() && b.stop());
    select! { reactor;
        recv(a) -> _ => panic!("a was stopped"),
        recv(b) -> _ => panic!("b was stopped"),
        recv(end) -> due => assert_eq!(due, Time::ZERO + ms(200)),
    }
    assert!(!a.stop() && !b.stop());
    assert_eq!((poll(&reactor, &a), poll(&reactor, &b)), (None, None));
}

/// Go time/sleep_test.go: TestAfterStop, the timers of AfterFunc
#[test]
fn callback_stop_returns_true_once() {
    let (reactor, sim) = sim();
    let ((earlier, count), (calls, stopped)) = (counting(), counting());
    let _earlier = reactor.call_after(ms(100), count);
    let (a, b) =
        (reactor.call_after(ms(50), stopped.clone()), reactor.call_after(ms(150), stopped));
    let end = reactor.after(ms(200));
    assert!(a.stop() && b.stop());
    assert_eq!(next(&reactor, &end), Time::ZERO + ms(200));
    assert!(!a.stop() && !b.stop());
    sim.advance(ms(200));
    turn(&reactor);
    assert_eq!((earlier.get(), calls.get()), (1, 0));
}

/// Go time/sleep_test.go: TestAfterQueuing
#[test]
fn timers_fire_in_deadline_order() {
    let (reactor, sim) = sim();
    let slots = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0];
    let timers: Vec<_> = slots
        .iter()
        .zip(0..)
        .map(|(&slot, key)| reactor.after(ms(20) * slot).with_key(key))
        .collect();
    let mut events = Events::with_capacity(slots.len());
    let mut order = Vec::new();
    // First several in one batch, then one after the other.
    for late in [ms(125), ms(0)] {
        sim.advance(late);
        let end = if late.is_zero() { slots.len() } else { order.len() + 1 };
        while order.len() < end {
            reactor.wait(&mut events).unwrap();
            order.extend(events.iter().filter_map(|event| timers[event.key() as usize].try_take()));
        }
    }
    let mut expected = slots.map(|slot| Time::ZERO + ms(20) * slot);
    expected.sort_unstable();
    assert_eq!(order, expected);
}

/// Go time/sleep_test.go: TestTimerStopStress
#[test]
fn stopped_timers_never_fire_among_others() {
    let (reactor, sim) = sim();
    let stopped: Vec<_> = (0..100).map(|n| reactor.after(ms(2_000 + n))).collect();
    let others: Vec<_> = (0..100).map(|n| reactor.after(ms(1_950 + 2 * n))).collect();
    sim.advance(ms(1_000));
    assert!(stopped.iter().all(Timer::stop));
    let expired = reactor.stats().expired;
    sim.advance(ms(2_000));
    assert_eq!(poll(&reactor, &pollmux::never::<()>()), None);
    assert!(stopped.iter().all(|timer| !timer.is_ready()));
    assert!(others.iter().all(|timer| timer.is_ready()));
    assert_eq!(reactor.stats().expired - expired, 100);
}

/// Go time/sleep_test.go: TestTimerStopStress, with callbacks as in Go
#[test]
fn stopped_callbacks_are_never_called_among_others() {
    let (reactor, sim) = sim();
    let (calls, count) = counting();
    let stopped: Vec<_> = (0..100)
        .map(|n| reactor.call_after(ms(2_000 + n), |_| panic!("a stopped callback was called")))
        .collect();
    let _others: Vec<_> =
        (0..100).map(|n| reactor.call_after(ms(1_950 + 2 * n), count.clone())).collect();
    sim.advance(ms(1_000));
    assert!(stopped.iter().all(Callback::stop));
    sim.advance(ms(2_000));
    turn(&reactor);
    assert_eq!((calls.get(), reactor.stats().called), (100, 100));
    assert!(!stopped.iter().any(Callback::stop));
}

/// Go time/sleep_test.go: TestSleepZeroDeadlock
#[test]
fn zero_sleeps_between_other_work_end() {
    let reactor = reactor();
    for n in 0..100 {
        next(&reactor, &reactor.after(Duration::ZERO));
        let (tx, rx) = channel::bounded(1);
        tx.send(n).unwrap();
        assert_eq!(next(&reactor, &reactor.register(rx).unwrap()), Ok(n));
        assert!(within(&reactor, &pollmux::never::<()>(), Duration::ZERO).is_none());
    }
}

/// Go time/sleep_test.go: TestReset
#[test]
fn reset_of_a_pending_timer_returns_true() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(200));
    sim.advance(ms(100));
    assert!(timer.reset(ms(300)));
    sim.advance(ms(200));
    assert_eq!(poll(&reactor, &timer), None, "fired at the old time");
    sim.advance(ms(200));
    assert_eq!(poll(&reactor, &timer), Some(Time::ZERO + ms(400)));
    assert!(!timer.reset(ms(50)));
    assert_eq!(next(&reactor, &timer), Time::ZERO + ms(550));
}

/// Go time/sleep_test.go: TestOverflowSleep
#[test]
fn an_overflowing_delay_never_fires() {
    let reactor = reactor();
    let (endless, short) = (reactor.after(Duration::MAX), reactor.after(ms(10)));
    assert_eq!(endless.deadline(), Some(Time::MAX));
    select! { reactor;
        recv(endless) -> _ => panic!("the endless timer fired"),
        recv(short) -> _ => {}
    }
    select! { reactor;
        recv(endless) -> _ => panic!("the endless timer fired"),
        default => {}
    }
    assert!(endless.stop());
}

/// Go time/sleep_test.go: TestOverflowRuntimeTimer, TestOverflowPeriodRuntimeTimer
#[test]
fn nothing_overflows_at_the_end_of_time() {
    let sim = Sim::starting_at(Time::MAX - ms(100));
    let reactor = ::support::on(sim.clone());
    let ticker = reactor.every(ms(30)).unwrap();
    let (endless, last) = (reactor.every(Duration::MAX).unwrap(), reactor.after(ms(99)));
    let mut ticks = 0;
    loop {
        select! { reactor;
            recv(ticker) -> tick => { ticks += 1; assert_eq!(tick.scheduled, sim.now()); }
            recv(endless) -> _ => panic!("the endless ticker fired"),
            recv(last) -> _ => break,
        }
    }
    assert_eq!(ticks, 3);
    sim.advance(Duration::MAX);
    // The ticker's next point is beyond `Time::MAX`, so it never comes.
    assert_eq!((poll(&reactor, &ticker), poll(&reactor, &endless)), (None, None));
    assert_eq!(ticker.deadline(), Some(Time::MAX));
}

/// Go time/sleep_test.go: TestZeroTimer
#[test]
fn many_zero_timers_all_fire() {
    let reactor = reactor();
    let kept = reactor.timer();
    for n in 0..20_000 {
        if n % 2 == 0 {
            next(&reactor, &reactor.after(Duration::ZERO));
        } else {
            kept.reset(Duration::ZERO);
            next(&reactor, &kept);
        }
    }
    assert_eq!(reactor.stats().expired, 20_000);
    // Each timer was due at once, so the loop never slept.
    assert_eq!(reactor.stats().waits, 0);
}

/// Go time/sleep_test.go: TestZeroTimer, the timers of AfterFunc
#[test]
fn many_zero_callbacks_are_all_called() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let send = move |_: &CallbackContext<'_>| tx.send(()).unwrap();
    let kept = reactor.call_after(LONG, send.clone());
    for n in 0..20_000 {
        if n % 2 == 0 {
            reactor.call_after(Duration::ZERO, send.clone()).detach();
        } else {
            kept.reset(Duration::ZERO);
        }
        assert_eq!(next(&reactor, &inbox), Ok(()));
    }
    assert_eq!((reactor.stats().called, inbox.try_iter().count()), (20_000, 0));
    // The inbox and `kept` are alive.
    assert_eq!(reactor.stats().live, 2);
}

/// Go time/sleep_test.go: TestTimerModifiedEarlier
#[test]
fn a_timer_moved_earlier_fires_in_time() {
    let reactor = reactor();
    // Another timer, for which the kernel is armed.
    let _far = reactor.after(LONG);
    for _ in 0..200 {
        let timer = reactor.after(LONG * 60);
        assert!(timer.reset(Duration::from_micros(50)));
        let start = Instant::now();
        let end = reactor.after(LONG / 2);
        select! { reactor;
            recv(timer) -> _ => {}
            recv(end) -> _ => panic!("the timer was late"),
        }
        assert!(start.elapsed() < LONG / 2);
    }
}

/// Go runtime/time.go: modify, to a time before the poller's deadline (issue 47762)
#[test]
fn a_moved_timer_fires_in_time_after_sleeps() {
    let reactor = reactor();
    let timer = reactor.after(LONG);
    for _ in 0..50 {
        assert_eq!(within(&reactor, &timer, Duration::from_micros(100)), None);
        assert!(timer.reset(ms(1)));
        let start = Instant::now();
        next(&reactor, &timer);
        assert!(start.elapsed() < LONG / 2);
        timer.reset(LONG);
    }
}

/// Go time/sleep_test.go: TestAdjustTimers
#[test]
fn random_resets_and_stops_match_a_list_model() {
    const TIMERS: usize = 50;
    let (reactor, sim) = sim();
    let timers: Vec<_> = (0..TIMERS).map(|_| reactor.timer()).collect();
    let mut model: Vec<Option<Time>> = vec![None; TIMERS];
    let mut numbers = Random::new(1);
    let mut fired = 0;
    for _ in 0..20_000 {
        let at = numbers.below(TIMERS as u64) as usize;
        let pending = model[at].is_some();
        match numbers.below(4) {
            0 => {
                assert_eq!(timers[at].stop(), pending);
                model[at] = None;
            }
            1 | 2 => {
                let d = ms(numbers.below(20));
                assert_eq!(timers[at].reset(d), pending);
                model[at] = Some(sim.now() + d);
            }
            _ => {
                sim.advance(ms(numbers.below(3)));
                for (timer, due) in timers.iter().zip(&mut model) {
                    let expected = due.take_if(|due| *due <= sim.now());
                    assert_eq!(poll(&reactor, timer), expected);
                    fired += u32::from(expected.is_some());
                }
            }
        }
    }
    assert!(fired > 1_000);
}

/// Go time/sleep_test.go: TestStopResult
#[test]
fn stop_is_false_only_after_a_receive() {
    let reactor = reactor();
    let (mut taken, mut stopped) = (0, 0);
    for n in 0..2_000 {
        let timer = reactor.after(Duration::from_nanos(n * 50));
        let received = n % 3 == 0 && poll(&reactor, &timer).is_some();
        assert_eq!(timer.stop(), !received);
        // Nothing is left, even if the timer was due.
        assert_eq!(poll(&reactor, &timer), None);
        assert_eq!(timer.deadline(), None);
        if received { taken += 1 } else { stopped += 1 }
    }
    assert!(taken > 0 && stopped > 0);
}

/// Go time/sleep_test.go: TestResetResult
#[test]
fn reset_is_false_only_after_a_receive() {
    let reactor = reactor();
    let timer = reactor.timer();
    let mut pending = false;
    for n in 0..2_000 {
        assert_eq!(timer.reset(Duration::from_nanos(n % 7 * 5_000)), pending);
        pending = poll(&reactor, &timer).is_none();
    }
    assert_eq!(timer.reset(LONG), pending);
    assert_eq!(poll(&reactor, &timer), None, "a value of an earlier arm");
}

/// Go time/sleep_test.go: TestStopResult, the timers of AfterFunc
#[test]
fn callback_stop_is_false_after_its_call() {
    let reactor = reactor();
    let (calls, count) = counting();
    let (mut called, mut stopped) = (0, 0);
    for n in 0..2_000 {
        let callback = reactor.call_after(Duration::from_nanos(n * 50), count.clone());
        if n % 3 == 0 {
            turn(&reactor);
        }
        let result = callback.stop();
        assert_eq!(
            calls.get(),
            called + u64::from(!result),
            "stop must be true exactly when the callback was not called"
        );
        if result {
            stopped += 1
        } else {
            called += 1
        }
        // Nothing is left, even if the callback was due.
        turn(&reactor);
        assert_eq!((calls.get(), callback.stop()), (called, false));
    }
    assert!(called > 0 && stopped > 0);
}

/// Go time/sleep_test.go: TestResetResult, the timers of AfterFunc
#[test]
fn callback_reset_is_false_after_its_call() {
    let reactor = reactor();
    let (calls, count) = counting();
    let callback = reactor.call_after(LONG, count);
    let (mut pending, mut called) = (true, 0);
    for n in 0..2_000 {
        // The delay is zero, 5 us to 25 us (which may pass before the turn), or long.
        let delay = if n % 7 == 6 { LONG } else { Duration::from_nanos(n % 7 * 5_000) };
        assert_eq!(callback.reset(delay), pending);
        turn(&reactor);
        pending = calls.get() == called;
        called = calls.get();
    }
    assert!((1..2_000).contains(&called), "{called} calls");
    assert_eq!(callback.reset(LONG), pending);
    turn(&reactor);
    assert_eq!(calls.get(), called, "a call of an earlier arm");
}

/// Go runtime/proc_test.go: TestTimerFairness
#[test]
fn an_always_due_timer_starves_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (busy, timer) = (reactor.after(Duration::ZERO), reactor.after(ms(2)));
    let (mut messages, mut spins, mut over) = (0, 0, false);
    tx.send(()).unwrap();
    while messages < 10 || spins < 10 || !over {
        select! { reactor;
            recv(busy) -> _ => { spins += 1; busy.reset(Duration::ZERO); }
            recv(inbox) -> _ => { messages += 1; tx.send(()).unwrap(); }
            recv(timer) -> _ => over = true,
        }
    }
}

/// Go time/sleep.go: Stop and Reset inside the arm of another timer of the same batch (issue 69312)
#[test]
fn an_arm_may_stop_another_due_timer() {
    let (reactor, sim) = sim();
    let timers = [(); 3].map(|()| reactor.after(ms(10)));
    sim.advance(ms(20));
    select! { reactor;
        biased;
        recv(timers[0]) -> _ => assert!(timers[1].stop() && timers[2].reset(ms(5))),
        recv(timers[1]) -> _ => panic!("not the first case"),
        recv(timers[2]) -> _ => panic!("not the first case"),
    }
    select! { reactor;
        recv(timers[1]) -> _ => panic!("a stopped timer fired"),
        recv(timers[2]) -> due => assert_eq!(due, Time::ZERO + ms(25)),
    }
}
