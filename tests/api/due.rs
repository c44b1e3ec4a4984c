//! Checks that a due timer is found behind any number of stale entries in the timer queue (rule
//! 24).
//!
//! Time is virtual. Each test stops or postpones thousands of timers: their stale entries stay in
//! the queue, before the entry of the tested timer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{CallbackContext, Events, Reactor, Select, Sim, Source, Time, Timer, never, select};
use support::{ms, simulated, turn};

/// A reactor with stale entries, its clock, and the timers of these entries.
struct StaleQueue {
    sim: Sim,
    reactor: Reactor,
    timers: Vec<Timer>,
}

/// The call that makes the entries stale.
#[derive(Clone, Copy, Debug)]
enum By {
    Stop,
    Postpone,
}

const WAYS: [(By, usize); 3] = [(By::Stop, 40_000), (By::Postpone, 10_000), (By::Stop, 9_000)];

fn stale_queue(by: By, n: usize) -> StaleQueue {
    let (sim, reactor) = simulated();
    let timers = (0..n).map(|_| reactor.after(ms(1))).collect();
    let stale_queue = StaleQueue { sim, reactor, timers };
    stale_queue.make_stale(by);
    stale_queue
}

impl StaleQueue {
    fn make_stale(&self, by: By) {
        for timer in &self.timers {
            match by {
                By::Stop => timer.stop(),
                By::Postpone => timer.reset(ms(3_600_000)),
            };
        }
    }
}

/// Returns a call counter and its closure. The closure re-arms itself with zero if `again` is set.
fn counting(again: bool) -> (Rc<Cell<u32>>, impl FnMut(&CallbackContext<'_>) + 'static) {
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    let call = move |cx: &CallbackContext<'_>| {
        counter.set(counter.get() + 1);
        if again {
            cx.reset(Duration::ZERO);
        }
    };
    (count, call)
}

#[test]
fn default_never_hides_a_due_timer() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2));
        s.sim.advance(ms(10));
        select! { s.reactor;
            recv(due) -> at => assert_eq!(at, Time::ZERO + ms(2)),
            default => panic!("{by:?} {n}: the timer was not found"),
        }
        select! { s.reactor; recv(due) -> _ => panic!("the timer fired twice"), default => {} }
    }
}

#[test]
fn a_wrapped_timer_is_found_when_due() {
    struct Own(Timer);
    impl Source for Own {
        type Item = Time;
        fn is_ready(&self) -> bool {
            self.0.is_ready()
        }
        fn try_take(&self) -> Option<Time> {
            self.0.try_take()
        }
    }
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let own = Own(s.reactor.after(ms(2)));
        let boxed = Some(Box::new(s.reactor.after(ms(2))));
        let (tx, inbox) = s.reactor.channel(1).unwrap();
        tx.send(1).unwrap();
        s.sim.advance(ms(10));
        select! { s.reactor; biased;
            recv(own) -> _ => {},
            recv(inbox) -> _ => panic!("the inbox was chosen first"),
        }
        select! { s.reactor; biased;
            recv(boxed) -> _ => {},
            recv(inbox) -> _ => panic!("the inbox was chosen second"),
        }
        select! { s.reactor;
            recv(own) -> _ => panic!("the wrapped timer fired twice"),
            recv(boxed) -> _ => panic!("the boxed timer fired twice"),
            default => {},
        }
    }
}

#[test]
fn a_timeout_never_hides_a_due_timer() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2));
        s.sim.advance(ms(10));
        let got = s.reactor.recv_timeout(&due, Duration::from_micros(100)).unwrap();
        assert_eq!(got, Some(Time::ZERO + ms(2)));
    }
    for (by, n) in WAYS {
        // The timer becomes due while the select sleeps, exactly at the timeout.
        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2));
        let got = s.reactor.recv_timeout(&due, ms(2)).unwrap();
        assert_eq!(got, Some(Time::ZERO + ms(2)));
    }
}

#[test]
fn polls_never_hide_a_due_timer() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2)).with_key(7);
        s.sim.advance(ms(10));
        assert_eq!(support::ready_keys(&s.reactor), [7]);
        assert!(due.try_take().is_some());

        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2));
        s.sim.advance(ms(10));
        assert!(s.reactor.try_recv(&due).unwrap().is_some());

        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2)).with_key(7);
        assert_eq!(support::wait_keys_for(&s.reactor, ms(2)), [7]);
        assert!(due.try_take().is_some());
    }
}

#[test]
fn a_biased_select_takes_its_first_due_case() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let (tx, inbox) = s.reactor.channel(1).unwrap();
        let (due, ticker) = (s.reactor.after(ms(2)), s.reactor.every(ms(3)).unwrap());
        s.sim.advance(ms(10));
        tx.send(1).unwrap();
        select! { s.reactor; biased;
            recv(due) -> _ => {},
            recv(ticker) -> _ => panic!("the ticker was chosen first"),
            recv(inbox) -> _ => panic!("the inbox was chosen first"),
        }
        select! { s.reactor; biased;
            recv(due) -> _ => panic!("the timer fired twice"),
            recv(ticker) -> _ => {},
            recv(inbox) -> _ => panic!("the inbox was chosen second"),
        }
        select! { s.reactor; biased;
            recv(due) -> _ => panic!("the timer fired twice"),
            recv(ticker) -> _ => panic!("the ticker fired twice"),
            recv(inbox) -> _ => {},
        }
    }
}

#[test]
fn ready_channels_do_not_starve_a_hidden_timer() {
    let s = stale_queue(By::Stop, 40_000);
    let (tx, inbox) = s.reactor.channel(1).unwrap();
    let due = s.reactor.after(ms(2));
    s.sim.advance(ms(10));
    s.reactor.seed(1);
    let mut turns = 0;
    while due.deadline().is_some() {
        let _ = tx.try_send(1);
        select! { s.reactor; recv(due) -> _ => {}, recv(inbox) -> _ => turns += 1 }
        s.make_stale(By::Postpone);
        assert!(turns < 8);
    }
}

#[test]
fn a_select_set_finds_its_due_timers() {
    for (by, n) in WAYS {
        for biased in [false, true] {
            let s = stale_queue(by, n);
            let (tx, inbox) = s.reactor.channel(1).unwrap();
            let (due, never) = (s.reactor.after(ms(2)), s.reactor.timer());
            let ticker = s.reactor.every(ms(3)).unwrap();
            let mut set = if biased { Select::biased(&s.reactor) } else { Select::new(&s.reactor) };
            set.recv(&due);
            set.recv(&never);
            set.recv(&ticker);
            set.recv(&inbox);
            s.sim.advance(ms(10));
            tx.send(1).unwrap();
            let mut order = Vec::new();
            while let Some(chosen) = set.try_wait().unwrap() {
                order.push(chosen.index());
                match chosen.index() {
                    0 => assert_eq!(chosen.recv(&due), Some(Time::ZERO + ms(2))),
                    2 => assert_eq!(chosen.recv(&ticker).unwrap().scheduled, Time::ZERO + ms(3)),
                    _ => assert_eq!(chosen.recv(&inbox), Some(Ok(1))),
                }
            }
            if !biased {
                order.sort_unstable();
            }
            assert_eq!(order, [0, 2, 3], "{by:?} {n}");
        }
    }
}

#[test]
fn a_select_set_prefers_timers_to_its_timeout() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let due = s.reactor.after(ms(2));
        let mut set = Select::new(&s.reactor);
        set.recv(&due);
        assert!(set.wait_timeout(ms(2)).unwrap().is_some());
    }
}

#[test]
fn a_context_deadline_is_found_when_due() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let (context, _canceller) = s.reactor.context().with_timeout(ms(2));
        let done = s.reactor.done(&context);
        s.sim.advance(ms(10));
        select! { s.reactor; recv(done) -> _ => {}, default => panic!("{by:?} {n}: not found") }

        let s = stale_queue(by, n);
        let (context, _canceller) = s.reactor.context().with_timeout(ms(2));
        let done = s.reactor.done(&context).with_key(3);
        s.sim.advance(ms(10));
        assert_eq!(support::ready_keys(&s.reactor), [3]);
        drop(done);
    }
}

#[test]
fn a_poll_calls_due_callbacks_before_returning() {
    let ways: [fn(&Reactor); 3] = [
        |reactor| turn(reactor),
        |reactor| reactor.try_wait(&mut Events::with_capacity(1)).unwrap(),
        |reactor| {
            let idle = reactor.timer();
            let mut set = Select::new(reactor);
            set.recv(&idle);
            assert!(set.try_wait().unwrap().is_none());
        },
    ];
    for (by, n) in WAYS {
        for (way, poll) in ways.iter().enumerate() {
            let ((count, call), s) = (counting(false), stale_queue(by, n));
            s.reactor.call_after(ms(2), call).detach();
            s.sim.advance(ms(10));
            poll(&s.reactor);
            assert_eq!(count.get(), 1, "{by:?} {n}, way {way}");
        }
    }
}

#[test]
fn timers_armed_by_callbacks_fire_the_same_turn() {
    // A due callback arms the timer with zero.
    fn armed() -> (StaleQueue, Rc<Timer>) {
        let s = stale_queue(By::Stop, 40_000);
        let timer = Rc::new(s.reactor.timer().with_key(1));
        let armed = timer.clone();
        s.reactor.call_after(ms(2), move |_| _ = armed.reset(Duration::ZERO)).detach();
        s.sim.advance(ms(10));
        (s, timer)
    }
    let (s, timer) = armed();
    select! { s.reactor; recv(timer) -> _ => {}, default => panic!("the timer was not found") }
    let (s, timer) = armed();
    let mut events = Events::with_capacity(1);
    s.reactor.try_wait(&mut events).unwrap();
    assert_eq!((events.len(), timer.is_ready()), (1, true));
    let (s, timer) = armed();
    let mut set = Select::new(&s.reactor);
    set.recv(&timer);
    assert!(set.try_wait().unwrap().is_some());

    // The same holds without stale entries.
    let (sim, reactor) = simulated();
    let timer = Rc::new(reactor.timer());
    let armed = timer.clone();
    let call = reactor.call_after(ms(1), move |_| _ = armed.reset_at(Time::ZERO));
    for _ in 0..3 {
        call.reset(ms(1));
        sim.advance(ms(1));
        select! { reactor; recv(timer) -> _ => {}, default => panic!("the timer was not found") }
    }
    let mut set = Select::new(&reactor);
    set.recv(&timer);
    call.reset(ms(1));
    sim.advance(ms(1));
    assert!(set.try_wait().unwrap().is_some());
}

#[test]
fn a_sleep_calls_each_due_callback_once() {
    for (by, n) in WAYS {
        let s = stale_queue(by, n);
        let count = Rc::new(Cell::new(0));
        let calls: Vec<_> = (0..10_000)
            .map(|_| {
                let count = count.clone();
                s.reactor.call_after(ms(4), move |_| count.set(count.get() + 1))
            })
            .collect();
        s.reactor.sleep_blocking(ms(4)).unwrap();
        assert_eq!(count.get(), calls.len(), "{by:?} {n}");
        assert_eq!(s.sim.now(), Time::ZERO + ms(4));
    }
}

#[test]
fn a_sleep_of_zero_calls_due_callbacks() {
    let ((count, call), s) = (counting(false), stale_queue(By::Stop, 40_000));
    s.reactor.call_after(ms(2), call).detach();
    s.sim.advance(ms(10));
    s.reactor.sleep_blocking(Duration::ZERO).unwrap();
    assert_eq!(count.get(), 1);
}

#[test]
fn busy_callbacks_delay_no_sleep() {
    // Each callback is due again at once. The sleep calls each callback once and ends on time.
    let (sim, reactor) = simulated();
    let (counts, calls): (Vec<_>, Vec<_>) = (0..5_000)
        .map(|_| {
            let (count, call) = counting(true);
            (count, reactor.call_after(ms(1), call))
        })
        .unzip();
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!(sim.now(), Time::ZERO + ms(1));
    assert!(counts.iter().all(|count| count.get() == 1));
    assert!(calls.iter().all(|call| call.deadline() == Some(Time::ZERO + ms(1))));
    // The second call belongs to the next turn. The next sleep makes that turn, and its end makes
    // the callbacks due again.
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!(sim.now(), Time::ZERO + ms(2));
    assert!(counts.iter().all(|count| count.get() > 1));
}

#[test]
fn a_timeouts_end_calls_each_callback_once() {
    fn zero_callback() -> (Reactor, Rc<Cell<u32>>) {
        let reactor = support::on(Sim::new());
        let (count, call) = counting(true);
        reactor.call_after(ms(1), call).detach();
        (reactor, count)
    }
    let (reactor, count) = zero_callback();
    select! { reactor; recv(never::<()>()) -> _ => {}, default(ms(1)) => {} }
    assert_eq!(count.get(), 1);
    turn(&reactor);
    assert_eq!(count.get(), 2);
    let (reactor, count) = zero_callback();
    let mut events = Events::with_capacity(1);
    reactor.wait_timeout(&mut events, ms(1)).unwrap();
    assert_eq!(count.get(), 1);
    reactor.try_wait(&mut events).unwrap();
    assert_eq!(count.get(), 2);
    let (reactor, count) = zero_callback();
    let idle = reactor.timer();
    let mut set = Select::new(&reactor);
    set.recv(&idle);
    assert!(set.wait_timeout(ms(1)).unwrap().is_none());
    assert_eq!(count.get(), 1);
    assert!(set.try_wait().unwrap().is_none());
    assert_eq!(count.get(), 2);
}

#[test]
fn a_callback_due_after_the_timeout_runs_once() {
    /// The slow call that lasts beyond the timeout, before the counted callback.
    #[derive(Clone, Copy, Debug)]
    enum Slow {
        Post,
        Posts,
        Callback,
    }
    let ways: [fn(&Reactor); 4] = [
        |reactor| reactor.sleep_blocking(ms(2)).unwrap(),
        |reactor| select! { reactor; recv(never::<()>()) -> _ => {}, default(ms(2)) => {} },
        |reactor| reactor.wait_timeout(&mut Events::with_capacity(1), ms(2)).unwrap(),
        |reactor| {
            let idle = reactor.timer();
            let mut set = Select::new(reactor);
            set.recv(&idle);
            assert!(set.wait_timeout(ms(2)).unwrap().is_none());
        },
    ];
    for slow in [Slow::Post, Slow::Posts, Slow::Callback] {
        for (way, wait) in ways.iter().enumerate() {
            let (_sim, reactor) = simulated();
            let _slow = match slow {
                Slow::Callback => {
                    Some(reactor.call_after(ms(0), |cx| cx.sleep_blocking(ms(3)).unwrap()))
                }
                Slow::Post | Slow::Posts => {
                    let remote = reactor.remote();
                    remote.post(|handle| handle.sleep_blocking(ms(3)).unwrap()).unwrap();
                    if let Slow::Posts = slow {
                        remote.post(|_| {}).unwrap();
                    }
                    None
                }
            };
            let count = Rc::new(Cell::new(0));
            let counted = count.clone();
            let call = reactor.call_after(ms(0), move |cx| {
                counted.set(counted.get() + 1);
                cx.reset(ms(0));
            });
            wait(&reactor);
            assert_eq!(count.get(), 1, "{slow:?}, way {way}");
            assert_eq!(call.deadline(), Some(Time::ZERO + ms(3)), "{slow:?}, way {way}");
        }
    }
}

#[test]
fn busy_callbacks_do_not_stop_virtual_time() {
    fn busy() -> (Sim, Reactor, Rc<Cell<u32>>) {
        let (sim, reactor) = simulated();
        let (count, call) = counting(true);
        reactor.call_after(Duration::ZERO, call).detach();
        (sim, reactor, count)
    }
    let (sim, reactor, count) = busy();
    reactor.sleep_blocking(ms(1)).unwrap();
    assert_eq!(sim.now(), Time::ZERO + ms(1));
    assert!(count.get() >= 1);

    let (sim, reactor, _) = busy();
    let timer = reactor.after(ms(2));
    select! { reactor; recv(timer) -> at => assert_eq!(at, Time::ZERO + ms(2)) }
    assert_eq!(sim.now(), Time::ZERO + ms(2));

    let (sim, reactor, _) = busy();
    select! { reactor; recv(never::<()>()) -> _ => {}, default(ms(3)) => {} }
    assert_eq!(sim.now(), Time::ZERO + ms(3));

    let (sim, reactor, _) = busy();
    reactor.wait_timeout(&mut Events::with_capacity(1), ms(4)).unwrap();
    assert_eq!(sim.now(), Time::ZERO + ms(4));

    let (sim, reactor, _) = busy();
    let timer = reactor.after(ms(5));
    let mut set = Select::new(&reactor);
    set.recv(&timer);
    assert!(set.wait().unwrap().recv(&timer).is_some());
    assert_eq!(sim.now(), Time::ZERO + ms(5));

    // Two callbacks arm each other with zero.
    let (sim, reactor) = simulated();
    let ids = Rc::new(Cell::new(None));
    let of = |first: bool| {
        let ids = ids.clone();
        move |cx: &CallbackContext<'_>| {
            let (a, b) = ids.get().unwrap();
            cx.reset_timer(if first { b } else { a }, Duration::ZERO).unwrap();
        }
    };
    let (a, b) = (reactor.call_after(ms(1), of(true)), reactor.call_after(ms(9_000), of(false)));
    ids.set(Some((a.id(), b.id())));
    reactor.sleep_blocking(ms(3)).unwrap();
    assert_eq!(sim.now(), Time::ZERO + ms(3));
}

#[test]
fn nested_zero_callbacks_run_at_the_same_instant() {
    let (_, reactor) = simulated();
    let seen = Rc::new(Cell::new(None));
    let then = seen.clone();
    let call = move |cx: &CallbackContext<'_>| {
        let then = then.clone();
        let second = move |cx: &CallbackContext<'_>| {
            let then = then.clone();
            cx.call_after(Duration::ZERO, move |cx| then.set(Some(cx.now()))).detach();
        };
        cx.call_after(Duration::ZERO, second).detach();
    };
    reactor.call_after(ms(1), call).detach();
    reactor.sleep_blocking(ms(5)).unwrap();
    assert_eq!(seen.get(), Some(Time::ZERO + ms(1)));
}

#[test]
fn busy_callbacks_do_not_prolong_a_real_sleep() {
    let reactor = support::reactor();
    let (count, call) = counting(true);
    let call = reactor.call_after(Duration::ZERO, call);
    reactor.sleep_blocking(ms(2)).unwrap();
    assert!(count.get() >= 1);
    drop(call);
}

/// Makes another thread post a closure that runs `then`, and blocks until the closure is posted.
fn post_from_another_thread(reactor: &Reactor, then: impl Fn() + Send + Clone + 'static) {
    let remote = reactor.remote();
    reactor
        .call_after(Duration::ZERO, move |_| {
            let (remote, then) = (remote.clone(), then.clone());
            support::thread::spawn(move || remote.post(move |_| then()).unwrap()).join().unwrap();
        })
        .detach();
}

#[test]
fn a_poll_runs_posts_before_returning() {
    for n in [0, 9_000] {
        let s = stale_queue(By::Stop, n);
        let (tx, inbox) = s.reactor.channel::<u32>(4).unwrap();
        let (notifier, notified) = s.reactor.notifier();
        let mut events = Events::with_capacity(4);
        let mut set = Select::new(&s.reactor);
        set.recv(&inbox);
        set.recv(&notified);
        let sends = {
            let tx = tx.clone();
            move || tx.send(1).unwrap()
        };

        post_from_another_thread(&s.reactor, sends.clone());
        s.reactor.try_wait(&mut events).unwrap();
        assert_eq!((events.len(), inbox.try_recv()), (1, Ok(1)));

        post_from_another_thread(&s.reactor, move || notifier.notify());
        s.reactor.try_wait(&mut events).unwrap();
        assert_eq!((events.len(), notified.try_take()), (1, Some(())));

        post_from_another_thread(&s.reactor, sends.clone());
        assert_eq!(set.try_wait().unwrap().unwrap().recv(&inbox), Some(Ok(1)));

        post_from_another_thread(&s.reactor, sends.clone());
        select! { s.reactor;
            recv(inbox) -> n => assert_eq!(n, Ok(1)),
            default => panic!("{n} stale entries: the message was not received"),
        }

        post_from_another_thread(&s.reactor, sends.clone());
        assert_eq!(s.reactor.try_recv(&inbox).unwrap(), Some(Ok(1)));

        // A source is ready already, and a closure is posted as well.
        tx.send(7).unwrap();
        let other = s.reactor.after(Duration::ZERO).with_key(9);
        post_from_another_thread(&s.reactor, sends.clone());
        s.reactor.wait_timeout(&mut events, ms(1)).unwrap();
        assert_eq!((events.len(), inbox.len()), (2, 2));
        drop(other);
        inbox.try_iter().for_each(drop);

        post_from_another_thread(&s.reactor, sends);
        s.reactor.wait_timeout(&mut events, ms(1)).unwrap();
        assert_eq!((events.len(), inbox.try_recv()), (1, Ok(1)));
    }
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn an_embedded_turn_loses_no_post() {
    let reactor = support::reactor();
    let inner = reactor.embed().unwrap();
    let outer = pollmux::sys::Poller::new().unwrap();
    outer.register(&inner, 0, pollmux::sys::Interest::READABLE, pollmux::sys::Mode::Edge).unwrap();
    for _ in 0..20 {
        let (tx, inbox) = reactor.channel::<u32>(4).unwrap();
        post_from_another_thread(&reactor, move || tx.send(1).unwrap());
        let mut ready = 0;
        while ready == 0 {
            outer.wait(&mut pollmux::sys::PollEvents::with_capacity(1), None).unwrap();
            ready = inner.turn().unwrap();
        }
        assert_eq!((ready, inbox.try_recv()), (1, Ok(1)));
    }
}

/// Returns a reactor on a virtual clock that calls seven callbacks in a turn. `n` stale entries
/// stand in its queue.
fn with_batch(n: usize) -> StaleQueue {
    let sim = Sim::new();
    let builder = Reactor::builder().callback_batch(7).post_batch(3);
    let reactor = builder.build_with(sim.clone()).unwrap();
    let timers = (0..n).map(|_| reactor.after(ms(1))).collect();
    let stale_queue = StaleQueue { sim, reactor, timers };
    stale_queue.make_stale(By::Postpone);
    stale_queue
}

/// Makes callbacks in 2 ms that count their calls and re-arm themselves with zero.
fn counting_callbacks(reactor: &Reactor, callbacks: usize, nests: bool) -> Vec<Rc<Cell<u32>>> {
    counting_callbacks_after(reactor, ms(2), callbacks, nests)
}

/// Makes the same callbacks with another delay.
fn counting_callbacks_after(
    reactor: &Reactor,
    d: Duration,
    callbacks: usize,
    nests: bool,
) -> Vec<Rc<Cell<u32>>> {
    let counts: Vec<_> = (0..callbacks).map(|_| Rc::new(Cell::new(0))).collect();
    for count in &counts {
        let count = count.clone();
        let call = move |cx: &CallbackContext<'_>| {
            count.set(count.get() + 1);
            cx.reset(Duration::ZERO);
            if nests {
                select! { cx; recv(never::<()>()) -> _ => {}, default => {} }
            }
        };
        reactor.call_after(d, call).detach();
    }
    counts
}

#[test]
fn small_batches_call_each_due_callback_once() {
    type Way = (&'static str, fn(&StaleQueue));
    let ways: [Way; 4] = [
        ("sleep", |s| s.reactor.sleep_blocking(ms(2)).unwrap()),
        ("sleep of zero", |s| {
            s.sim.advance(ms(2));
            s.reactor.sleep_blocking(Duration::ZERO).unwrap();
        }),
        ("wait_timeout", |s| {
            s.reactor.wait_timeout(&mut Events::with_capacity(1), ms(2)).unwrap();
        }),
        ("default", |s| {
            select! { s.reactor; recv(never::<()>()) -> _ => {}, default(ms(2)) => {} }
        }),
    ];
    for (stale, nests) in [(0, false), (0, true), (10_000, false), (10_000, true)] {
        for (way, wait) in ways {
            let s = with_batch(stale);
            let counts = counting_callbacks(&s.reactor, 100, nests);
            wait(&s);
            let seen: Vec<_> = counts.iter().map(|count| count.get()).collect();
            assert!(seen.iter().all(|&n| n == 1), "{way} {stale} {nests}: {seen:?}");
        }
    }
}

#[test]
fn a_poll_calls_one_batch_and_finds_timers() {
    for (stale, nests) in [(0, false), (0, true), (10_000, false), (10_000, true)] {
        let s = with_batch(stale);
        let counts = counting_callbacks(&s.reactor, 100, nests);
        let due = s.reactor.after(ms(3)).with_key(5);
        s.sim.advance(ms(3));
        assert_eq!(support::ready_keys(&s.reactor), [5]);
        assert!(due.try_take().is_some());
        for nth in 1..=15 {
            let before: u32 = counts.iter().map(|count| count.get()).sum();
            if nth % 2 == 0 {
                turn(&s.reactor);
            } else {
                support::ready_keys(&s.reactor);
            }
            let called = counts.iter().map(|count| count.get()).sum::<u32>() - before;
            assert_eq!(called, 7, "{stale} {nests} turn {nth}");
        }
        assert!(
            counts.iter().all(|count| (1..=2).contains(&count.get())),
            "the callbacks were not called in turn"
        );
    }
}

#[test]
fn callbacks_around_stale_entries_are_one_batch() {
    for nests in [false, true] {
        for waits in [false, true] {
            let s = with_batch(10_000);
            let mut counts =
                counting_callbacks_after(&s.reactor, Duration::from_micros(500), 20, nests);
            counts.extend(counting_callbacks(&s.reactor, 20, nests));
            s.sim.advance(ms(3));
            let mut events = Events::with_capacity(4);
            for nth in 1..=4 {
                if waits {
                    s.reactor.try_wait(&mut events).unwrap();
                } else {
                    turn(&s.reactor);
                }
                let called: u32 = counts.iter().map(|count| count.get()).sum();
                assert_eq!(called, 7 * nth, "{nests} {waits}");
                s.make_stale(By::Postpone);
            }
        }
    }
}

#[test]
fn virtual_time_waits_for_all_callback_batches() {
    let s = with_batch(0);
    let seen = Rc::new(Cell::new((0, Time::ZERO)));
    for _ in 0..5_000 {
        let seen = seen.clone();
        let call = move |cx: &CallbackContext<'_>| seen.set((seen.get().0 + 1, cx.now()));
        s.reactor.call_after(ms(2), call).detach();
    }
    let timer = s.reactor.after(ms(9));
    select! { s.reactor; recv(timer) -> _ => {} }
    assert_eq!(seen.get(), (5_000, Time::ZERO + ms(2)));
}

#[test]
fn a_poll_finds_a_message_behind_posts() {
    // A callback makes another thread post more than a batch, and then send a message.
    for way in 0..3 {
        let s = with_batch(10_000);
        let (tx, inbox) = s.reactor.channel::<u32>(4).unwrap();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let (remote, posted) = (s.reactor.remote(), done.clone());
        let call = move |_: &CallbackContext<'_>| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let posted = posted.clone();
                        let post = move |_: &pollmux::Handle| {
                            posted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        };
                        remote.post(post).unwrap();
                    }
                    tx.try_send(1).unwrap();
                });
            });
        };
        s.reactor.call_after(ms(2), call).detach();
        s.sim.advance(ms(2));
        let found = match way {
            0 => select! { s.reactor; recv(inbox) -> _ => true, default => false },
            1 => {
                let mut events = Events::with_capacity(4);
                s.reactor.try_wait(&mut events).unwrap();
                events.iter().count() == 1
            }
            _ => {
                let mut set = Select::new(&s.reactor);
                set.recv(&inbox);
                set.try_wait().unwrap().is_some()
            }
        };
        assert!(found, "way {way}");
        assert_eq!(done.load(std::sync::atomic::Ordering::Relaxed), 20, "way {way}");
    }
}
