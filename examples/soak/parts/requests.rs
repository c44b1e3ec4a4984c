//! Resets and stops timers from other threads by their ids.
//!
//! After several resets the timer fires for the last reset. After a stop has taken effect, the
//! timer does not fire.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pollmux::channel;
use pollmux::reactor::TimerId;
use pollmux::{Handle, Remote, Source, Time, Timer};

use super::{Keys, Part};
use crate::run::{LIMIT, READING, Random, Run};

const THREADS: usize = 4;

/// The expiries of a timer, which the loop reports to the requesting thread.
#[derive(Default)]
struct Fired {
    times: AtomicU64,
    /// The last deadline in ns.
    scheduled: AtomicU64,
}

pub struct Requests {
    run: Run,
    timers: Vec<(Timer, Arc<Fired>)>,
    threads: Vec<JoinHandle<()>>,
    requested: Arc<AtomicU64>,
}

impl Requests {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> Requests {
        let (mut timers, mut threads) = (Vec::new(), Vec::new());
        let requested: Arc<AtomicU64> = Arc::default();
        for index in 0..THREADS {
            let timer = reactor.timer().with_key(keys.key(index));
            let fired: Arc<Fired> = Arc::default();
            let mut requester = Requester {
                run: run.clone(),
                random: run.random(200 + index as u64),
                remote: reactor.remote(),
                id: timer.id(),
                fired: fired.clone(),
                requested: requested.clone(),
            };
            timers.push((timer, fired));
            threads.push(thread::spawn(move || requester.request_all()));
        }
        Requests { run: run.clone(), timers, threads, requested }
    }
}

impl Part for Requests {
    fn name(&self) -> &'static str {
        "requests"
    }

    fn count(&self) -> u64 {
        self.requested.load(Ordering::Relaxed)
    }

    fn handle(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        let (timer, fired) = &self.timers[index];
        match timer.try_take() {
            Some(scheduled) => {
                self.run.check_due("a timer reset by id", scheduled);
                fired.scheduled.store(scheduled.as_nanos(), Ordering::Relaxed);
                fired.times.fetch_add(1, Ordering::Release);
            }
            None => self.run.violated("a reported timer gave no deadline".into()),
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let running = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        (running > 0).then(|| format!("{running} threads with requests"))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            self.run.check(joined.is_ok(), || "a thread with requests panicked".into());
        }
    }
}

/// The thread that resets and stops one timer.
struct Requester {
    run: Run,
    random: Random,
    remote: Remote,
    id: TimerId,
    fired: Arc<Fired>,
    requested: Arc<AtomicU64>,
}

impl Requester {
    fn request_all(&mut self) {
        while !self.run.is_over() {
            if self.random.one_in(3) {
                self.stop();
            } else {
                self.reset();
            }
        }
    }

    /// Resets the timer by a delay of at most `most`. Returns the bounds of the deadline.
    fn reset_once(&mut self, most: Duration) -> (Time, Time) {
        let (delay, before) = (self.random.duration(most), Time::now());
        let reset = self.remote.reset(self.id, delay);
        self.requested.fetch_add(1, Ordering::Relaxed);
        self.run.check(reset.is_ok(), || format!("a reset by id returned {reset:?}"));
        (before + delay, Time::now() + READING + delay)
    }

    fn reset(&mut self) {
        let mut bounds = self.reset_once(Duration::from_millis(10));
        for _ in 0..self.random.below(8) {
            bounds = self.reset_once(Duration::from_millis(10));
        }
        let (fired, (from, to)) = (self.fired.clone(), bounds);
        let scheduled = || {
            fired.times.load(Ordering::Acquire);
            Time::from_nanos(fired.scheduled.load(Ordering::Relaxed))
        };
        if self.run.await_or_fail("a timer reset by id", || scheduled() >= from) {
            self.run.check(scheduled() <= to, || {
                format!("a timer reset by id to {from:?}..{to:?} fired for {:?}", scheduled())
            });
        }
    }

    fn stop(&mut self) {
        self.reset_once(Duration::from_millis(10));
        let stopped = self.remote.stop(self.id);
        self.requested.fetch_add(1, Ordering::Relaxed);
        self.run.check(stopped.is_ok(), || format!("a stop by id returned {stopped:?}"));
        let before = self.times_after_requests();
        thread::sleep(self.random.duration(Duration::from_millis(20)));
        let after = self.times_after_requests();
        self.run.check(before == after, || "a stopped timer fired".into());
    }

    /// Waits until all earlier requests have taken effect. Returns the timer's number of expiries.
    fn times_after_requests(&self) -> Option<u64> {
        let (sender, answer) = channel::bounded(1);
        let fired = self.fired.clone();
        let post = move |_: &Handle| {
            let _ = sender.send(fired.times.load(Ordering::Relaxed));
        };
        self.run.check(self.remote.post(post).is_ok(), || "a post was refused".into());
        let times = answer.recv_timeout(LIMIT).ok();
        self.run.check(times.is_some(), || "a post did not run".into());
        times
    }
}
