//! Bugs of other event loops, timers and channels. Each has a test, named after the rule that was
//! broken. The comment names the project and the number of its issue or pull request.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pollmux::channel::{self, TryRecvError};
use pollmux::sys::{self, Interest, Mode, Poller};
use pollmux::{
    Events, Handle, Reactor, Sim, Source, Tick, Ticker, Time, Timer, select,
    sources::{BeforeSleep, ZeroPeriod},
};

use support::{
    HOUR, Hooked, Hooks, Waiting, again, at, keys, ms, ready_keys, simulated, simulated_from,
    spawn, test_name, thread, timed, watchdog,
};

/// calloop 30.
#[test]
fn cancelling_a_timer_leaves_later_timers_alone() {
    for by_drop in [false, true] {
        let (sim, reactor) = simulated();
        let mut timers: Vec<Timer> = (1..=10).map(|n| reactor.after(ms(n)).with_key(n)).collect();
        for n in [0, 2, 5] {
            assert!(timers[n].stop());
        }
        if by_drop {
            timers.retain(|timer| timer.deadline().is_some());
        }
        let mut events = Events::with_capacity(4);
        for n in [2, 4, 5, 7, 8, 9, 10] {
            reactor.wait(&mut events).unwrap();
            assert_eq!((keys(&events), sim.now()), (vec![n], at(n)));
            assert!(timers.iter().any(|timer| timer.key() == n && timer.try_take() == Some(at(n))));
        }
        assert_eq!(reactor.wait(&mut events).unwrap_err().kind(), io::ErrorKind::Deadlock);
    }
}

/// smithay 1927, calloop 238.
#[test]
fn cancelling_is_fast_and_leaves_no_entry() {
    let (sim, reactor) = simulated();
    let live: Vec<Timer> = (0..100_000).map(|n| reactor.after(ms(1_000 + n))).collect();
    let ((), took) = timed(|| {
        for n in 0..100_000 {
            let timer = reactor.after(ms(n * 7_919 % 200_000));
            assert!(timer.stop());
            drop(timer);
        }
    });
    // Linear searches would take 10^10 steps, which exceeds 10 s on any machine.
    assert!(took < Duration::from_secs(10), "{took:?} of CPU time");
    assert_eq!(reactor.stats().live, live.len());
    sim.advance(ms(999));
    assert_eq!((ready_keys(&reactor).len(), reactor.stats().expired), (0, 0));
    // Entries that are left in the queue, if any, are cleaned by the first call.
    let before = reactor.stats();
    assert_eq!((ready_keys(&reactor).len(), (reactor.stats() - before).cleaned), (0, 0));
}

/// calloop 79, 82.
#[test]
fn a_zero_duration_never_disarms_the_kernel_timer() {
    // The kernel's timer takes a zero for "disarm". A disarmed timer would let this test hang.
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (zero, later) = (reactor.after(Duration::ZERO), reactor.after(ms(3)));
    let far = reactor.after(HOUR);
    // Biased, because `later` is due as well if this thread is kept from running.
    select! { reactor; biased;
        recv(zero) -> _ => {}
        recv(later) -> _ => panic!("the zero timer was due first"),
        recv(far) -> _ => unreachable!(),
    }
    zero.reset_at(Time::ZERO);
    select! { reactor;
        recv(zero) -> due => assert_eq!(due, Time::ZERO),
        recv(far) -> _ => unreachable!(),
    }
    select! { reactor; recv(later) -> _ => {}, recv(far) -> _ => unreachable!() }
}

/// calloop 142, mio 1614, smol 109.
#[test]
fn short_waits_neither_spin_nor_round_up() {
    support::exact("counts waits");
    // Real time: the subject is the rounding of a kernel's timeout.
    let reactor = support::reactor();
    let timer = reactor.timer();
    let lateness = || {
        timer.reset(Duration::from_micros(300));
        select! { reactor; recv(timer) -> due => Time::now() - due }
    };
    let before = reactor.stats();
    let late: Vec<Duration> = (0..100).map(|_| lateness()).collect();
    let during = reactor.stats() - before;
    assert!(during.waits <= 200, "the loop spins: {during}");
    // A loaded machine delays some waits. A rounded timeout delays each wait, so the test asks for
    // five good waits in a row. A wait that began after its deadline is not late.
    let (enough, start, mut in_a_row) = (Duration::from_micros(600), Instant::now(), 0);
    let mut later = late.iter().copied().chain(std::iter::repeat_with(lateness));
    while in_a_row < 5 {
        in_a_row = if later.next().unwrap() < enough { in_a_row + 1 } else { 0 };
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no five waits in a row were in time: {late:?} late"
        );
    }
}

/// libuv 4245.
#[test]
fn a_re_armed_zero_timer_ends_its_batch() {
    let (_sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let zero = reactor.after(Duration::ZERO).with_key(1);
    tx.send(()).unwrap();
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    let mut seen = 0;
    for event in &events {
        seen += 1;
        if event.key() == 1 {
            zero.try_take();
            zero.reset(Duration::ZERO);
        } else {
            assert_eq!(inbox.try_recv(), Ok(()));
        }
    }
    assert_eq!(seen, 2, "the batch reports each source once");
}

/// libuv 4773.
#[test]
fn timers_armed_in_long_turns_are_never_early() {
    // Real time: the bug was a clock in milliseconds that was read once a turn.
    let reactor = support::reactor();
    let timer = reactor.after(Duration::ZERO);
    for _ in 0..20 {
        let start = select! { reactor; recv(timer) -> _ => {
            let cached = reactor.now();
            while Time::now() - cached < ms(2) {}
            let start = Instant::now();
            timer.reset(Duration::from_micros(1_500));
            start
        }};
        select! { reactor;
            recv(timer) -> _ => assert!(start.elapsed() >= Duration::from_micros(1_500)),
        }
        timer.reset(Duration::ZERO);
    }
}

/// async-io 250.
#[test]
fn endless_messages_do_not_starve_a_timer() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(64).unwrap();
    let timer = reactor.after(ms(1)).with_key(1);
    (0..64).for_each(|n| tx.send(n).unwrap());
    sim.advance(ms(1));
    let mut turns = 0;
    loop {
        select! { reactor;
            recv(inbox) -> n => tx.send(n.unwrap()).unwrap(),
            recv(timer) -> _ => break,
        }
        turns += 1;
        assert!(turns < 1_000);
    }
    timer.reset(Duration::ZERO);
    let fired = select! { reactor; biased;
        recv(timer) -> _ => true,
        recv(inbox) -> _ => false,
    };
    assert!(fired, "the next turn finds the timer");
    timer.reset(Duration::ZERO);
    assert!(ready_keys(&reactor).contains(&1));
}

/// async-io 73.
#[test]
fn a_timer_due_now_fires_in_virtual_time() {
    for start in [Time::ZERO, at(1), Time::from_nanos(u64::MAX - 10_000_000)] {
        let (sim, reactor) = simulated_from(start);
        let timer = reactor.at(sim.now());
        select! { reactor; recv(timer) -> due => assert_eq!((due, sim.now()), (start, start)) }
        // The driver stops the clock exactly at the deadline, not beyond.
        timer.reset(ms(5));
        select! { reactor;
            recv(timer) -> due => assert_eq!((due, sim.now()), (start + ms(5), start + ms(5))),
        }
        timer.reset(ms(1));
        sim.advance(ms(1));
        assert!(select! { reactor; recv(timer) -> _ => true, default => false });
    }
}

/// golang 14038, 37196, 69312.
#[test]
fn stop_and_reset_leave_no_stale_value() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(10));
    sim.advance(ms(10));
    assert_eq!(ready_keys(&reactor), [timer.key()]);
    // The timer has expired and was not received. Go's `false` here meant "drain the channel".
    assert!(timer.reset(ms(10)));
    assert!(select! { reactor; recv(timer) -> _ => false, default => true });
    select! { reactor; recv(timer) -> due => assert_eq!((due, sim.now()), (at(20), at(20))) }
    assert!(!timer.stop(), "a received timer was stopped");
    assert!(!timer.reset(ms(10)));
    sim.advance(ms(10));
    assert!(timer.stop());
    assert!(!timer.reset(ms(10)), "two calls took the same expiry");
}

/// tokio 8334.
#[test]
fn timers_work_after_any_uptime() {
    let days = |n: u64| n * 86_400_000_000_000;
    let starts = [
        days(12),
        days(13),
        (1 << 31) * 1_000_000,
        (1 << 32) * 1_000_000,
        (1 << 30) * 1_000_000 * 1_000,
        1 << 53,
        days(36_500),
        1 << 63,
    ];
    for start in starts {
        let (sim, reactor) = simulated_from(Time::from_nanos(start - 2_500_000));
        let timer = reactor.timer();
        let ticker = reactor.every(ms(1)).unwrap();
        for n in 1..=5 {
            // The steps cross the boundary.
            let deadline = sim.now() + ms(1);
            timer.reset(ms(1));
            select! { reactor; biased;
                recv(timer) -> due => {
                    assert_eq!((due, sim.now()), (deadline, deadline), "step {n} at {start}");
                }
                recv(ticker) -> _ => unreachable!("the biased select takes the timer first"),
            }
            select! { reactor;
                recv(ticker) -> tick => assert_eq!((tick.scheduled, tick.missed), (deadline, 0)),
            }
        }
        // A wait of 30 days is exact, too.
        timer.reset(Duration::from_nanos(days(30)));
        let deadline = sim.now() + Duration::from_nanos(days(30));
        select! { reactor;
            recv(timer) -> due => assert_eq!((due, sim.now()), (deadline, deadline)),
        }
    }
}

/// tokio 3190.
#[test]
fn a_new_earlier_timer_ends_the_next_wait() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let far = reactor.after(HOUR);
    // The kernel's timer is armed for `far` when this `select!` returns.
    assert!(select! { reactor; recv(far) -> _ => false, default(ms(1)) => true });
    let near = reactor.after(ms(5));
    select! { reactor; recv(far) -> _ => unreachable!(), recv(near) -> _ => {} }
    far.reset(ms(5)); // a reset to earlier
    select! { reactor; recv(far) -> _ => {}, recv(near) -> _ => unreachable!() }
}

/// crossbeam 795, 1329, tokio 6634.
#[test]
fn the_longest_duration_never_panics() {
    let reactor = support::reactor();
    let timer = reactor.after(Duration::MAX);
    let ticker = reactor.every(Duration::MAX).unwrap();
    let fired = |timeout| {
        select! { reactor;
            recv(timer) -> _ => true,
            recv(ticker) -> _ => true,
            default(timeout) => false,
        }
    };
    assert!(!fired(ms(1)));
    assert!(timer.reset(Duration::MAX) && ticker.restart());
    assert!(!fired(ms(1)));
    // The first tick is within reach of the clock. The second tick is not.
    let (sim, reactor) = simulated();
    let ticker = reactor.every(Duration::from_nanos(u64::MAX / 2 + 1)).unwrap();
    select! { reactor; recv(ticker) -> tick => assert_eq!(tick.missed, 0) }
    sim.advance(Duration::MAX);
    assert!(select! { reactor; recv(ticker) -> _ => false, default => true });
}

/// golang 49315.
#[test]
fn resetting_a_ticker_to_zero_is_an_error() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
    select! { reactor; recv(ticker) -> _ => assert_eq!(sim.now(), at(10)) }
}

/// calloop 200.
#[test]
fn a_busy_channel_does_not_starve_other_channels() {
    let (_sim, reactor) = simulated();
    let (busy_tx, busy) = reactor.channel(8).unwrap();
    let (quiet_tx, quiet) = reactor.channel(8).unwrap();
    (0..8).for_each(|n| busy_tx.send(n).unwrap());
    let mut events = Events::with_capacity(1);
    for n in 0..100 {
        quiet_tx.send(n).unwrap();
        let mut turns = 0;
        while !quiet.is_empty() {
            reactor.wait(&mut events).unwrap();
            if keys(&events) == [quiet.key()] {
                assert_eq!(quiet.try_recv(), Ok(n));
            } else {
                busy_tx.send(busy.try_recv().unwrap()).unwrap();
            }
            turns += 1;
            assert!(turns <= 3);
        }
        quiet_tx.send(n).unwrap();
        let mut turns = 0;
        while !quiet.is_empty() {
            select! { reactor;
                recv(busy) -> m => busy_tx.send(m.unwrap()).unwrap(),
                recv(quiet) -> m => assert_eq!(m, Ok(n)),
            }
            turns += 1;
            assert!(turns < 1_000);
        }
    }
}

/// calloop 227, 171.
#[test]
fn a_message_sent_while_handling_another_is_found() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = channel::bounded(4);
    let inbox = reactor.register_with(1, rx).unwrap();
    let mut events = Events::with_capacity(4);
    tx.send(0).unwrap();
    for n in 0..100 {
        // On a virtual clock a lost message is an error: nothing else can end the wait.
        reactor.wait(&mut events).unwrap();
        for event in &events {
            assert_eq!((event.key(), inbox.try_recv()), (1, Ok(n)));
            tx.send(n + 1).unwrap(); // after the last receive, before the wait
        }
    }
    for n in 100..200 {
        select! { reactor;
            recv(inbox) -> got => { assert_eq!(got, Ok(n)); tx.send(n + 1).unwrap() }
        }
    }
}

/// calloop 227, 171, here with a race between two threads.
#[test]
fn messages_from_another_thread_are_never_lost() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let _sender = support::aside(move || (0..20_000).for_each(|n| tx.send(n).unwrap()));
    let far = reactor.after(HOUR);
    for n in 0..20_000 {
        select! { reactor; biased;
            recv(inbox) -> got => assert_eq!(got, Ok(n)),
            recv(far) -> _ => unreachable!(),
        }
    }
}

const CHILD: &str = "POLLMUX_INTERRUPTED_CHILD";

/// Runs this test in a child process that is stopped and continued until the process ends. Each
/// stop interrupts the child's waits, without a signal handler. Returns false in the child, where
/// the caller goes on.
fn interrupt_in_child() -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let test = test_name();
    let mut child = spawn(again(&test).env(CHILD, "1").stdout(Stdio::piped()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("begins")));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(600) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{test} does not end while it is interrupted");
        }
        for signal in ["STOP", "CONT"] {
            // The child may have ended meanwhile. Then `kill` fails.
            let _ = Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .stderr(Stdio::null())
                .status();
            // Real time: the child must reach a wait between two interruptions.
            thread::sleep(ms(4));
        }
    };
    assert!(
        status.success(),
        "{test}, interrupted: {:?}",
        lines.map(Result::unwrap).collect::<Vec<_>>()
    );
    true
}

/// mio 742, netty 14368.
#[test]
fn an_interrupted_wait_keeps_its_deadline() {
    support::exact("counts arms");
    if interrupt_in_child() {
        return;
    }
    let reactor = support::reactor();
    let timer = reactor.timer();
    let mut events = Events::with_capacity(1);
    println!("begins");
    // Real time: the child is interrupted every few ms. A wait that began anew each time would
    // never end. The attempt is repeated until a wait was interrupted.
    loop {
        let before = reactor.stats();
        let start = Instant::now();
        timer.reset(ms(200));
        select! { reactor; recv(timer) -> _ => assert!(start.elapsed() >= ms(200)) }
        let start = Instant::now();
        assert!(select! { reactor; recv(timer) -> _ => false, default(ms(200)) => true });
        assert!(start.elapsed() >= ms(200));
        let start = Instant::now();
        reactor.wait_timeout(&mut events, ms(200)).unwrap();
        assert!(start.elapsed() >= ms(200) && events.is_empty());
        let during = reactor.stats() - before;
        assert!(during.arms <= 3, "an interrupted wait arms again: {during}");
        if during.waits > 3 {
            break;
        }
    }
}

/// polling 265, the part that is not about kqueue.
#[test]
fn an_interruption_loses_no_wake_up() {
    if interrupt_in_child() {
        return;
    }
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let (back, pings) = channel::bounded::<u32>(1);
    thread::spawn(move || {
        for n in pings {
            // Real time lets the reactor fall asleep. The sleep is interrupted or not.
            thread::sleep(Duration::from_micros(500));
            tx.send(n).unwrap();
        }
    });
    println!("begins");
    let far = reactor.after(HOUR);
    for n in 0..300 {
        back.send(n).unwrap();
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Ok(n)),
            recv(far) -> _ => unreachable!(),
        }
    }
}

/// libuv 2226.
#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn senders_may_wake_a_reactor_during_its_drop() {
    for round in 0..support::rounds(50) {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(4).unwrap();
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let tx = tx.clone();
                thread::spawn(move || {
                    let mut sent = 0u64;
                    while !tx.try_send(sent).is_err_and(|error| error.is_disconnected()) {
                        sent += 1;
                    }
                })
            })
            .collect();
        for _ in 0..round % 7 {
            select! { reactor; recv(inbox) -> got => assert!(got.is_ok()) }
        }
        // An embedded reactor sleeps between turns, so its senders wake the reactor.
        let embedded = (round % 2 == 0).then(|| reactor.embed().unwrap());
        if round % 3 == 0 {
            drop(inbox);
            drop(reactor);
        } else {
            drop(reactor);
            drop(inbox);
        }
        for sender in senders {
            sender.join().unwrap();
        }
        drop(embedded);
    }
}

/// kanal 50, tokio 5947.
#[test]
fn a_losing_case_keeps_its_message() {
    let (_sim, reactor) = simulated();
    let (a_tx, a) = reactor.channel(4).unwrap();
    let (b_tx, b) = reactor.channel(4).unwrap();
    let timer = reactor.timer();
    let ticker = reactor.every(ms(1)).unwrap();
    for n in 0..1_000 {
        a_tx.send(n).unwrap();
        b_tx.send(n).unwrap();
        timer.reset(Duration::ZERO);
        ticker.reset(ms(1)).unwrap();
        let (mut got_a, mut got_b, mut got_timer) = (0, 0, 0);
        for _ in 0..3 {
            select! { reactor;
                recv(a) -> got => { assert_eq!(got, Ok(n)); got_a += 1; }
                recv(b) -> got => { assert_eq!(got, Ok(n)); got_b += 1; }
                recv(timer) -> _ => got_timer += 1,
                recv(ticker) -> _ => unreachable!("virtual time stands still"),
            }
        }
        assert_eq!((got_a, got_b, got_timer), (1, 1, 1));
    }
    // A case that loses to a timeout keeps its message, too.
    assert!(select! { reactor; recv(a) -> _ => false, default(Duration::from_micros(10)) => true });
    a_tx.send(7).unwrap();
    select! { reactor; recv(a) -> got => assert_eq!(got, Ok(7)) }
}

/// calloop 156.
#[test]
fn a_reused_slot_gets_no_old_event() {
    let (sim, reactor) = simulated();
    let first = reactor.after(ms(1)).with_key(1);
    let old = reactor.after(ms(1)).with_key(2);
    sim.advance(ms(1));
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    let mut seen = Vec::new();
    let mut old = Some(old);
    let mut replacement = None;
    for event in &events {
        seen.push(event.key());
        old = None;
        let new = replacement.get_or_insert_with(|| reactor.after(Duration::ZERO).with_key(3));
        assert_eq!(ready_keys(&reactor), [1, 3], "the new timer in the old slot is not ready");
        assert!(new.is_ready());
    }
    assert_eq!(seen, [1]);
    drop((first, old));
}

/// mio 219, 172.
#[test]
fn a_batch_skips_sources_that_its_handlers_stop() {
    let (sim, reactor) = simulated();
    let a = reactor.after(ms(1)).with_key(1);
    let mut stopped = Some(reactor.after(ms(1)).with_key(2));
    let mut dropped = Some(reactor.every(ms(1)).unwrap().with_key(3));
    let (tx, rx) = channel::bounded(1);
    let mut gone = Some(reactor.register_with(4, rx).unwrap());
    tx.send(()).unwrap();
    let last = reactor.after(ms(1)).with_key(5);
    sim.advance(ms(1));
    let mut events = Events::with_capacity(8);
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.len(), 5);
    let mut seen = Vec::new();
    for event in &events {
        seen.push(event.key());
        if event.key() == 1 {
            assert!(stopped.as_ref().unwrap().stop());
            (dropped, gone) = (None, None);
        }
    }
    assert_eq!(seen, [1, 5]);
    a.try_take();
    last.try_take();
    stopped = None;
    assert_eq!(ready_keys(&reactor), []);
    drop((stopped, dropped, gone));
}

/// A source that uses its reactor in every method.
struct SourceUsingReactor {
    handle: Handle,
    timer: Timer,
    calls: Cell<u32>,
    /// True for each method that was called.
    hooks: Cell<[bool; 4]>,
}

impl SourceUsingReactor {
    fn use_reactor(&self, hook: usize) {
        let mut hooks = self.hooks.get();
        hooks[hook] = true;
        self.hooks.set(hooks);
        self.calls.set(self.calls.get() + 1);
        let _ = (self.handle.stats(), self.handle.now(), format!("{:?}", self.handle));
        let temporary = self.handle.after(ms(1));
        temporary.reset(ms(2));
        temporary.stop();
        self.timer.reset(ms(50));
        let (tx, inbox) = self.handle.channel(1).unwrap();
        // A message that is sent in a method ends the sleep that follows, so only 20 calls send.
        if self.calls.get() < 20 {
            tx.send(1).unwrap();
            let got = select! { self.handle; recv(inbox) -> got => got, default => unreachable!() };
            assert_eq!(got, Ok(1));
        }
        self.handle.try_wait(&mut Events::with_capacity(1)).unwrap();
    }
}

impl Source for SourceUsingReactor {
    type Item = ();
    fn is_ready(&self) -> bool {
        self.use_reactor(0);
        false
    }
    fn try_take(&self) -> Option<()> {
        None
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.use_reactor(1);
        let _ = blocking.now();
        Ok(())
    }
    fn after_sleep(&self) {
        self.use_reactor(2);
    }
    fn belongs_to(&self, _: &Handle) -> bool {
        self.use_reactor(3);
        true
    }
}

/// calloop 109, 117.
#[test]
fn source_methods_may_use_the_reactor() {
    let (_sim, reactor) = simulated();
    let (handle, timer) = (reactor.handle(), reactor.timer());
    let source = SourceUsingReactor { handle, timer, calls: Cell::new(0), hooks: Cell::default() };
    let timer = reactor.after(ms(10));
    select! { reactor;
        recv(source) -> () => unreachable!(),
        recv(timer) -> due => assert_eq!(due, at(10)),
    }
    assert_eq!(source.hooks.get(), [true; 4], "a method was not called");
    drop(source);
    assert_eq!(reactor.stats().live, 1);
}

/// A driver that uses the handle of its own reactor.
struct DriverUsingReactor(Rc<RefCell<Option<Handle>>>);

fn use_handle(handle: &Handle) {
    let _ = (handle.stats(), handle.now(), format!("{handle:?}"));
    let timer = handle.after(ms(1_000));
    timer.reset(ms(2_000));
    timer.stop();
    drop(timer);
    let mut events = Events::with_capacity(1);
    match handle.try_wait(&mut events) {
        Ok(()) => assert!(events.is_empty()),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotConnected),
    }
}

impl Hooks<Sim> for DriverUsingReactor {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if let Some(handle) = &*self.0.borrow() {
            use_handle(handle);
        }
        waiting.by(sim)
    }
}

impl Drop for DriverUsingReactor {
    fn drop(&mut self) {
        // A second panic would abort the process, with the other tests.
        match self.0.borrow_mut().take() {
            Some(handle) if !thread::panicking() => use_handle(&handle),
            _ => {}
        }
    }
}

/// calloop 109, 117.
#[test]
fn a_driver_may_use_its_reactor_while_waiting() {
    let cell = Rc::new(RefCell::new(None));
    let sim = Sim::new();
    let reactor =
        Reactor::with_driver(Hooked(sim.clone(), DriverUsingReactor(cell.clone()))).unwrap();
    *cell.borrow_mut() = Some(reactor.handle());
    let timer = reactor.after(ms(10));
    select! { reactor; recv(timer) -> due => assert_eq!((due, sim.now()), (at(10), at(10))) }
    // Another test covers the drop.
    cell.borrow_mut().take();
}

/// calloop 109, 117.
#[test]
fn a_driver_may_use_its_reactor_when_dropped() {
    let cell = Rc::new(RefCell::new(None));
    let reactor =
        Reactor::with_driver(Hooked(Sim::new(), DriverUsingReactor(cell.clone()))).unwrap();
    let timer = reactor.after(ms(10));
    *cell.borrow_mut() = Some(reactor.handle());
    drop(reactor);
    assert!(cell.borrow().is_none(), "the driver was dropped");
    assert!(!timer.stop());
}

/// calloop 78.
#[test]
fn a_disconnected_channel_does_not_spin() {
    support::exact("counts waits");
    // The system's poller, because a spinning loop makes syscalls without end there.
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel::<u8>(1).unwrap();
    drop(tx);
    assert_eq!(support::wait_keys(&reactor), [inbox.key()]);
    assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
    let before = reactor.stats();
    assert_eq!(support::wait_keys_for(&reactor, ms(20)), []);
    assert!((reactor.stats() - before).waits <= 3, "{}", reactor.stats() - before);
}

/// libuv 3101, 3299.
#[test]
#[cfg_attr(flat, ignore = "this kqueue cannot be nested in a poller")]
fn the_embedded_fd_signals_changes_between_turns() {
    let _watchdog = watchdog();
    for mode in [Mode::Level, Mode::Edge] {
        let reactor = support::reactor();
        let timer = reactor.after(ms(2));
        let inner = reactor.embed().unwrap();
        let outer = Poller::new().unwrap();
        outer.register(&inner, 7, Interest::READABLE, mode).unwrap();
        let mut events = sys::PollEvents::with_capacity(4);
        // Takes turns while the fd is readable, until a source is ready. The limit of 60 s is for
        // an fd that is never readable.
        let mut turn_until_ready = |inner: &pollmux::Embedded| {
            for _ in 0..100 {
                outer.wait(&mut events, Some(Duration::from_secs(60))).unwrap();
                assert_eq!(events.iter().count(), 1, "the fd is not readable ({mode:?})");
                if inner.turn().unwrap() > 0 {
                    return;
                }
            }
            panic!("the fd is readable without a reason ({mode:?})");
        };
        turn_until_ready(&inner);
        assert!(timer.try_take().is_some());

        // The timer gets an earlier deadline than the armed one.
        timer.reset(HOUR);
        inner.turn().unwrap();
        timer.reset(ms(2));
        turn_until_ready(&inner);
        assert!(timer.try_take().is_some());

        // A new timer that is due at once, a ticker, a message, and the end of a channel.
        let zero = reactor.after(Duration::ZERO);
        turn_until_ready(&inner);
        assert!(zero.try_take().is_some());
        let ticker = reactor.every(ms(1)).unwrap();
        turn_until_ready(&inner);
        assert!(ticker.try_take().is_some());
        drop(ticker);
        let (tx, inbox) = reactor.channel(1).unwrap();
        inner.turn().unwrap();
        tx.send(1).unwrap();
        turn_until_ready(&inner);
        assert_eq!(inbox.try_recv(), Ok(1));
        drop(tx);
        turn_until_ready(&inner);
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));

        // A `select!` between turns takes the kernel's timer. The embedding arms the timer again.
        // The attempt is repeated if the timer was due before the `select!`.
        loop {
            timer.reset(ms(30));
            if select! { reactor; recv(timer) -> _ => false, default(ms(1)) => true } {
                break;
            }
        }
        turn_until_ready(&inner);
        assert!(timer.try_take().is_some());
    }
}

/// calloop, found by reading the code: generations of 16 bits wrapped around.
#[test]
fn slot_generations_do_not_wrap_at_16_bits() {
    let (sim, reactor) = simulated();
    // The counts are around the number of generations of 8 bits and of 16 bits.
    for reuses in [255, 256, 257, 65_535, 65_536, 65_537] {
        let old = reactor.after(ms(1)).with_key(1);
        sim.advance(ms(1));
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert_eq!(keys(&events), [1]);
        drop(old);
        (1..reuses).for_each(|_| drop(reactor.timer()));
        let new = reactor.after(Duration::ZERO).with_key(2);
        assert_eq!(ready_keys(&reactor), [2]);
        assert_eq!(keys(&events), [], "after {reuses} reuses");
        drop(new);
    }
}

/// crossbeam, found by reading the code: `recv` kept another grid than `try_recv` and `select`.
#[test]
fn every_receive_path_keeps_one_ticker_grid() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    type Path<'a> = Box<dyn FnMut(&Ticker) -> Tick + 'a>;
    let mut paths: [Path<'_>; 4] = [
        Box::new(|ticker| select! { reactor; recv(ticker) -> tick => tick }),
        Box::new(|ticker| {
            while select! { reactor; recv(ticker) -> tick => return tick, default => true } {
                sim.advance(ms(1));
            }
            unreachable!()
        }),
        Box::new(|ticker| {
            select! { reactor;
                recv(ticker) -> tick => tick,
                default(ms(1_000)) => unreachable!(),
            }
        }),
        Box::new(|ticker| {
            assert_eq!(support::wait_keys(&reactor), [ticker.key()]);
            ticker.try_take().unwrap()
        }),
    ];
    let mut grid = 1;
    for n in 0..1_000u64 {
        let tick = paths[n as usize % 4](&ticker);
        assert_eq!(tick.scheduled, at(10 * grid), "tick {n}");
        grid += 1 + tick.missed;
        sim.advance(ms(n * 7 % 23)); // up to two periods late
    }
    assert!(grid > 1_100);
}
