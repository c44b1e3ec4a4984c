//! Short forms for virtual time, and for the keys that a wait reports.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pollmux::{Events, Handle, Inbox, Reactor, Sim, Time, never, select};

/// An hour.
pub const HOUR: Duration = secs(3600);

/// Returns a virtual clock at zero, and a reactor on it.
#[track_caller]
pub fn simulated() -> (Sim, Reactor) {
    simulated_from(Time::ZERO)
}

/// Returns a virtual clock at `start`, and a reactor on it.
#[track_caller]
pub fn simulated_from(start: Time) -> (Sim, Reactor) {
    let sim = Sim::starting_at(start);
    let reactor = crate::on(sim.clone());
    (sim, reactor)
}

/// Returns `n` milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Returns `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Returns the time `n` ms after the origin of the clock.
pub fn at(n: u64) -> Time {
    Time::ZERO + ms(n)
}

/// Runs a turn that finds nothing and does not block.
pub fn turn(reactor: &Handle) {
    select! { reactor; recv(never::<()>()) -> _ => unreachable!(), default => {} }
}

/// Sleeps in a `select!`.
pub fn sleep(reactor: &Handle, d: Duration) {
    let timer = reactor.after(d);
    select! { reactor; recv(timer) -> _ => {} }
}

/// Returns true if an attempt succeeds within a minute. A busy machine may delay the thread at any
/// point, so only an undisturbed attempt shows the property.
pub fn sometimes(mut attempt: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    (0..).take_while(|&n| n < 5 || begin.elapsed() < ms(60_000)).any(|_| attempt())
}

/// Returns the keys that one `try_wait` with room for everything reports, in order.
pub fn ready_keys(reactor: &Handle) -> Vec<u64> {
    let mut events = Events::with_capacity(10_000);
    reactor.try_wait(&mut events).unwrap();
    keys(&events)
}

/// Returns the keys that one `wait` with room for 64 reports, in order.
pub fn wait_keys(reactor: &Handle) -> Vec<u64> {
    let mut events = Events::with_capacity(64);
    reactor.wait(&mut events).unwrap();
    keys(&events)
}

/// Returns the keys that one `wait_timeout` reports, in order.
pub fn wait_keys_for(reactor: &Handle, timeout: Duration) -> Vec<u64> {
    let mut events = Events::with_capacity(64);
    reactor.wait_timeout(&mut events, timeout).unwrap();
    keys(&events)
}

/// Returns the keys in `events`, in order.
pub fn keys(events: &Events) -> Vec<u64> {
    events.iter().map(|event| event.key()).collect()
}

/// Another thread, which ends one sleep of a reactor on each request.
#[derive(Debug)]
pub struct Bell {
    requests: mpsc::Sender<()>,
    inbox: Inbox<()>,
}

impl Bell {
    /// Starts the thread for this reactor.
    pub fn new(reactor: &Reactor) -> Bell {
        let (tx, inbox) = reactor.channel(4).unwrap();
        let (requests, requested) = mpsc::channel();
        thread::spawn(move || {
            for () in requested {
                // Real time, in which the reactor falls asleep first.
                thread::sleep(ms(2));
                if tx.send(()).is_err() {
                    break;
                }
            }
        });
        Bell { requests, inbox }
    }

    /// Lets the reactor sleep in its driver until the other thread wakes it.
    pub fn sleep(&self, reactor: &Reactor) {
        let before = reactor.stats().waits;
        // If the wake-up came before the sleep, request another.
        while reactor.stats().waits == before {
            self.requests.send(()).unwrap();
            select! { reactor; recv(self.inbox) -> woken => woken.unwrap() }
        }
    }
}
