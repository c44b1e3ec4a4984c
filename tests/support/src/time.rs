//! Virtual time in short words, and the keys that a `try_wait` reports.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pollmux::{Events, Handle, Inbox, Reactor, Sim, Time, never, select};

/// An hour.
pub const HOUR: Duration = secs(3600);

/// A reactor on a virtual clock that says zero, and the clock.
#[track_caller]
pub fn simulated() -> (Sim, Reactor) {
    simulated_from(Time::ZERO)
}

/// A reactor on a virtual clock that says `start`, and the clock.
#[track_caller]
pub fn simulated_from(start: Time) -> (Sim, Reactor) {
    let sim = Sim::starting_at(start);
    let reactor = crate::on(sim.clone());
    (sim, reactor)
}

/// `n` milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` ms after the origin of the clock.
pub fn at(n: u64) -> Time {
    Time::ZERO + ms(n)
}

/// A turn that finds nothing and does not wait.
pub fn turn(reactor: &Handle) {
    select! { reactor; recv(never::<()>()) -> _ => unreachable!(), default => {} }
}

/// Sleeps in a `select!`.
pub fn sleep(reactor: &Handle, d: Duration) {
    let timer = reactor.after(d);
    select! { reactor; recv(timer) -> _ => {} }
}

/// Returns true if one of the attempts of a minute comes out. A busy machine may keep the thread
/// from its core at any point, and only an attempt without that shows what is asked.
pub fn sometimes(mut attempt: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    (0..).take_while(|&n| n < 5 || begin.elapsed() < ms(60_000)).any(|_| attempt())
}

/// The keys that one `try_wait` with room for everything reports, in order.
pub fn ready_keys(reactor: &Handle) -> Vec<u64> {
    let mut events = Events::with_capacity(10_000);
    reactor.try_wait(&mut events).unwrap();
    keys(&events)
}

/// The keys that one `wait` with room for 64 reports, in order.
pub fn wait_keys(reactor: &Handle) -> Vec<u64> {
    let mut events = Events::with_capacity(64);
    reactor.wait(&mut events).unwrap();
    keys(&events)
}

/// The keys that one `wait` of at most this long reports, in order.
pub fn wait_keys_for(reactor: &Handle, timeout: Duration) -> Vec<u64> {
    let mut events = Events::with_capacity(64);
    reactor.wait_timeout(&mut events, timeout).unwrap();
    keys(&events)
}

/// The keys in `events`, in order.
pub fn keys(events: &Events) -> Vec<u64> {
    events.iter().map(|event| event.key()).collect()
}

/// Another thread, which ends one sleep of a reactor whenever it is asked to.
#[derive(Debug)]
pub struct Bell {
    rope: mpsc::Sender<()>,
    inbox: Inbox<()>,
}

impl Bell {
    /// A bell for this reactor.
    pub fn new(reactor: &Reactor) -> Bell {
        let (tx, inbox) = reactor.channel(4).unwrap();
        let (rope, pulled) = mpsc::channel();
        thread::spawn(move || {
            for () in pulled {
                // Real time: the reactor needs some to fall asleep first.
                thread::sleep(ms(2));
                if tx.send(()).is_err() {
                    break;
                }
            }
        });
        Bell { rope, inbox }
    }

    /// Lets the reactor sleep in its driver, really, until the bell rings.
    pub fn sleep(&self, reactor: &Reactor) {
        let before = reactor.stats().waits;
        // When the thread here was slow the bell has rung before it slept: again then.
        while reactor.stats().waits == before {
            self.rope.send(()).unwrap();
            select! { reactor; recv(self.inbox) -> rung => rung.unwrap() }
        }
    }
}
