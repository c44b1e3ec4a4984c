//! Sends bursts of a signal, which two sets of signals receive.
//!
//! Signals of one burst may coalesce. Each set receives at least one signal of a burst, and never
//! more than the sent signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal::SIGUSR1, kill};
use nix::unistd::getpid;
use pollmux::{Handle, Signal, Signals, Source};

use super::{Keys, Part};
use crate::run::Run;

const SETS: usize = 2;

/// The number of sent signals, and the number of received signals of each set.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: [AtomicU64; SETS],
}

pub struct SignalBursts {
    run: Run,
    sets: Vec<Signals>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl SignalBursts {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> io::Result<SignalBursts> {
        let mut sets = Vec::new();
        for index in 0..SETS {
            sets.push(reactor.signals(&[Signal::USER1])?.with_key(keys.key(index)));
        }
        let counts: Arc<Counts> = Arc::default();
        let thread = thread::spawn({
            let (run, counts) = (run.clone(), counts.clone());
            move || send_bursts(&run, &counts)
        });
        Ok(SignalBursts { run: run.clone(), sets, counts, thread: Some(thread) })
    }
}

impl Part for SignalBursts {
    fn name(&self) -> &'static str {
        "signals"
    }

    fn count(&self) -> u64 {
        self.counts.received.iter().map(|received| received.load(Ordering::Relaxed)).sum()
    }

    fn handle(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        while let Some(signal) = self.sets[index].try_take() {
            self.run.check(signal == Signal::USER1, || format!("{signal} came"));
            let received = self.counts.received[index].fetch_add(1, Ordering::SeqCst) + 1;
            let sent = self.counts.sent.load(Ordering::SeqCst);
            self.run
                .check(received <= sent, || format!("{received} of {sent} signals were received"));
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let is_over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        (!is_over).then(|| "the thread that sends signals".into())
    }
}

impl Drop for SignalBursts {
    fn drop(&mut self) {
        let joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        self.run.check(joined, || "the thread that sends signals panicked".into());
    }
}

fn send_bursts(run: &Run, counts: &Counts) {
    let mut random = run.random(400);
    let received = || counts.received.each_ref().map(|received| received.load(Ordering::SeqCst));
    while !run.is_over() {
        let before = received();
        for _ in 0..=random.below(8) {
            counts.sent.fetch_add(1, Ordering::SeqCst);
            let sent = kill(getpid(), SIGUSR1);
            run.check(sent.is_ok(), || format!("a signal cannot be sent: {sent:?}"));
        }
        let is_received = || received().iter().zip(before).all(|(&now, before)| now > before);
        if !run.await_or_fail("a signal of a burst", is_received) {
            break;
        }
        thread::sleep(random.duration(Duration::from_millis(4)));
    }
}
