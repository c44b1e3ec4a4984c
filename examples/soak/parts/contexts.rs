//! Makes contexts with deadlines. A thread cancels some contexts, or cancels their parent.
//!
//! Each context ends once. A context ends as cancelled only after a cancellation, and a deadline is
//! never early.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pollmux::context::{ContextError, Done};
use pollmux::{Canceller, Context, Handle, Source, Time};

use super::{Keys, Part};
use crate::run::{Random, Run};

const CONTEXTS: usize = 32;

/// The parent of many contexts.
struct Group {
    context: Context,
    canceller: Canceller,
    is_cancelled: Arc<AtomicBool>,
}

impl Group {
    fn new() -> Group {
        let (context, canceller) = Context::background().with_cancel();
        Group { context, canceller, is_cancelled: Arc::default() }
    }
}

struct Slot {
    done: Done,
    deadline: Option<Time>,
    /// The context was cancelled, and the parent was cancelled.
    is_cancelled: [Arc<AtomicBool>; 2],
}

/// A cancellation for the cancelling thread.
struct Job {
    after: Duration,
    canceller: Canceller,
    is_cancelled: Arc<AtomicBool>,
}

pub struct Contexts {
    run: Run,
    random: Random,
    keys: Keys,
    group: Group,
    slots: Vec<Option<Slot>>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    ended: u64,
}

impl Contexts {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> Contexts {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            for job in inbox {
                thread::sleep(job.after);
                job.is_cancelled.store(true, Ordering::SeqCst);
                job.canceller.cancel();
            }
        });
        let mut contexts = Contexts {
            run: run.clone(),
            random: run.random(keys.0 as u64),
            keys,
            group: Group::new(),
            slots: Vec::new(),
            jobs: Some(jobs),
            thread: Some(thread),
            ended: 0,
        };
        for index in 0..CONTEXTS {
            let slot = contexts.begin(reactor, index);
            contexts.slots.push(Some(slot));
        }
        contexts
    }

    fn begin(&mut self, reactor: &Handle, index: usize) -> Slot {
        let parent = &self.group.context;
        let is_cancelled: Arc<AtomicBool> = Arc::default();
        let timeout = self.random.duration(Duration::from_millis(50));
        let way = self.random.below(3);
        let (context, canceller) = match way {
            0 => parent.with_cancel(),
            1 => parent.with_timeout(timeout),
            _ => parent.with_deadline(Time::now() + timeout),
        };
        if way == 0 || self.random.one_in(4) {
            let after = self.random.duration(Duration::from_millis(2));
            let job = Job { after, canceller, is_cancelled: is_cancelled.clone() };
            let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
            self.run.check(sent, || "the thread that cancels ended".into());
        }
        Slot {
            done: reactor.done(&context).with_key(self.keys.key(index)),
            deadline: context.deadline(),
            is_cancelled: [is_cancelled, self.group.is_cancelled.clone()],
        }
    }

    fn ended(&mut self, slot: &Slot, error: ContextError) {
        self.ended += 1;
        match (error, slot.deadline) {
            (ContextError::Cancelled, _) => {
                let is_cancelled =
                    slot.is_cancelled.iter().any(|cancelled| cancelled.load(Ordering::SeqCst));
                self.run.check(is_cancelled, || "a context ended without a cancellation".into());
            }
            (ContextError::DeadlineExceeded, Some(deadline)) => {
                self.run.check_due("a context", deadline);
            }
            (ContextError::DeadlineExceeded, None) => {
                self.run.violated("a context without a deadline exceeded its deadline".into());
            }
        }
        let now = slot.done.context().err();
        self.run.check(now == Some(error), || {
            format!("a context ended by {error:?}, and then by {now:?}")
        });
    }

    fn end(&mut self, reactor: &Handle, index: usize, error: ContextError) {
        if let Some(slot) = self.slots[index].take() {
            self.ended(&slot, error);
            drop(slot);
            if !self.run.is_over() {
                self.slots[index] = Some(self.begin(reactor, index));
            }
        }
    }
}

impl Part for Contexts {
    fn name(&self) -> &'static str {
        "contexts"
    }

    fn count(&self) -> u64 {
        self.ended
    }

    fn handle(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        let Some(slot) = &self.slots[index] else { return Ok(()) };
        match slot.done.try_take() {
            Some(cause) => self.end(reactor, index, cause.error()),
            None => self.run.violated("a reported context gave no cause".into()),
        }
        Ok(())
    }

    /// Sometimes cancels the parent of all contexts.
    fn start_work(&mut self, _: &Handle) -> io::Result<()> {
        if self.run.is_over() {
            self.jobs = None;
        } else if self.random.one_in(50) {
            let Group { canceller, is_cancelled, .. } =
                std::mem::replace(&mut self.group, Group::new());
            let job = Job { after: Duration::ZERO, canceller, is_cancelled };
            let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
            self.run.check(sent, || "the thread that cancels ended".into());
        }
        Ok(())
    }

    fn check(&mut self, reactor: &Handle) -> io::Result<()> {
        for index in 0..self.slots.len() {
            let Some(slot) = &self.slots[index] else { continue };
            // The cancelling thread may pause before its wake-up, so this checks deadlines only. A
            // deadline needs no other thread.
            let now = Time::now();
            if slot.deadline.is_some_and(|deadline| deadline <= now) {
                match reactor.try_recv(&slot.done)? {
                    Some(cause) => self.end(reactor, index, cause.error()),
                    None => self.run.violated("a context did not report its deadline".into()),
                }
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let left = self.slots.iter().flatten().count();
        (left > 0).then(|| format!("the ends of {left} contexts"))
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        self.jobs = None;
        let joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        self.run.check(joined, || "the thread that cancels panicked".into());
    }
}
