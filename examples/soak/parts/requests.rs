//! Timers that other threads reset and stop by their ids.
//!
//! After a row of resets the timer fires for the last of them. After a stop that was done the timer
//! does not fire.

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

/// The news of a timer, from the loop to the thread that asks.
#[derive(Default)]
struct Fired {
    times: AtomicU64,
    /// The last deadline, ns.
    scheduled: AtomicU64,
}

pub struct Requests {
    run: Run,
    timers: Vec<(Timer, Arc<Fired>)>,
    threads: Vec<JoinHandle<()>>,
    asked: Arc<AtomicU64>,
}

impl Requests {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> Requests {
        let (mut timers, mut threads) = (Vec::new(), Vec::new());
        let asked: Arc<AtomicU64> = Arc::default();
        for index in 0..THREADS {
            let timer = reactor.timer().with_key(keys.key(index));
            let fired: Arc<Fired> = Arc::default();
            let mut asker = Asker {
                run: run.clone(),
                random: run.random(200 + index as u64),
                remote: reactor.remote(),
                id: timer.id(),
                fired: fired.clone(),
                asked: asked.clone(),
            };
            timers.push((timer, fired));
            threads.push(thread::spawn(move || asker.ask_all()));
        }
        Requests { run: run.clone(), timers, threads, asked }
    }
}

impl Part for Requests {
    fn name(&self) -> &'static str {
        "requests"
    }

    fn count(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn serve(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        let (timer, fired) = &self.timers[index];
        match timer.try_take() {
            Some(scheduled) => {
                self.run.check_due("a timer reset by id", scheduled);
                fired.scheduled.store(scheduled.as_nanos(), Ordering::Relaxed);
                fired.times.fetch_add(1, Ordering::Release);
            }
            None => self.run.violated("a timer was reported and gave nothing".into()),
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let asking = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        (asking > 0).then(|| format!("{asking} threads with requests"))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            self.run.check(joined.is_ok(), || "a thread with requests has panicked".into());
        }
    }
}

/// The thread that owns the deadline of one timer.
struct Asker {
    run: Run,
    random: Random,
    remote: Remote,
    id: TimerId,
    fired: Arc<Fired>,
    asked: Arc<AtomicU64>,
}

impl Asker {
    fn ask_all(&mut self) {
        while !self.run.is_over() {
            if self.random.one_in(3) {
                self.stop();
            } else {
                self.reset();
            }
        }
    }

    /// Resets the timer to a time from now. Returns the bounds of the deadline.
    fn reset_once(&mut self, most: Duration) -> (Time, Time) {
        let (delay, before) = (self.random.duration(most), Time::now());
        let reset = self.remote.reset(self.id, delay);
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.run.check(reset.is_ok(), || format!("a reset by id gave {reset:?}"));
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
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.run.check(stopped.is_ok(), || format!("a stop by id gave {stopped:?}"));
        let before = self.times_when_done();
        thread::sleep(self.random.duration(Duration::from_millis(20)));
        let after = self.times_when_done();
        self.run.check(before == after, || "a stopped timer has fired".into());
    }

    /// The number of times that the timer has fired when all requests before this call are done.
    fn times_when_done(&self) -> Option<u64> {
        let (tell, told) = channel::bounded(1);
        let fired = self.fired.clone();
        let post = move |_: &Handle| {
            let _ = tell.send(fired.times.load(Ordering::Relaxed));
        };
        self.run.check(self.remote.post(post).is_ok(), || "a post was refused".into());
        let times = told.recv_timeout(LIMIT).ok();
        self.run.check(times.is_some(), || "a post has not run".into());
        times
    }
}
