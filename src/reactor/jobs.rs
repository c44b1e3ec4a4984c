//! Jobs: closures that run inside a turn when something outside the timer queue has happened, here: when a context has ended.
//!
//! Stands in for the reactor's callbacks where those are not to be had; `context.rs` (`schedule`, `unschedule`) is the only user. A turn asks every job
//! whether it is due, so a turn costs the number of jobs, and nothing while there is none.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Core;
use crate::sys::Time;

/// What a turn asks, and runs once.
pub(crate) trait Job {
    /// Whether it is to run now.
    fn is_due(&self, now: Time) -> bool;
    /// When it becomes due by itself.
    fn deadline(&self) -> Time;
    /// Called at most once, with nothing borrowed.
    fn run(&self);
    /// The reactor goes, and what the job holds goes with it.
    fn abandon(&self);
}

/// The jobs of one reactor, in the order in which they came.
#[derive(Default)]
pub(crate) struct Jobs {
    list: RefCell<Vec<(u64, Rc<dyn Job>)>>,
    last: Cell<u64>,
    any: Cell<bool>,
    running: Cell<bool>,
}

/// Ends the running, also when a job panics.
struct Running<'a>(&'a Cell<bool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Core {
    /// Adds a job; gives its number.
    pub(crate) fn add_job(&self, job: Rc<dyn Job>) -> u64 {
        let jobs = &self.jobs;
        jobs.last.set(jobs.last.get() + 1);
        jobs.list.borrow_mut().push((jobs.last.get(), job));
        jobs.any.set(true);
        if self.embedded.get() {
            // Its deadline is armed, or it is run, by a turn of the outer loop.
            self.leave_to_next_turn();
        }
        jobs.last.get()
    }

    /// Takes the job back, if it has not run.
    pub(crate) fn remove_job(&self, number: u64) -> Option<Rc<dyn Job>> {
        let mut list = self.jobs.list.borrow_mut();
        let at = list.iter().position(|(other, _)| *other == number)?;
        let (_, job) = list.remove(at);
        self.jobs.any.set(!list.is_empty());
        Some(job)
    }

    /// Runs what is due. What a job adds waits for the next turn; a turn inside a job runs none.
    #[inline]
    pub(crate) fn run_jobs(&self) {
        if self.jobs.any.get() {
            self.run_due_jobs();
        }
    }

    #[inline(never)]
    fn run_due_jobs(&self) {
        if self.jobs.running.replace(true) {
            return;
        }
        let _running = Running(&self.jobs.running);
        let (last, now) = (self.jobs.last.get(), self.clock.now());
        loop {
            let due = self
                .jobs
                .list
                .borrow()
                .iter()
                .find(|(number, job)| *number <= last && job.is_due(now))
                .map(|(number, _)| *number);
            match due.and_then(|number| self.remove_job(number)) {
                Some(job) => job.run(),
                None => return,
            }
        }
    }

    /// When the first job becomes due by itself.
    pub(crate) fn first_job(&self) -> Time {
        if !self.jobs.any.get() {
            return Time::MAX;
        }
        self.jobs.list.borrow().iter().map(|(_, job)| job.deadline()).min().unwrap_or(Time::MAX)
    }

    /// For the reactor that goes: its jobs never run.
    pub(crate) fn abandon_jobs(&self) {
        self.jobs.any.set(false);
        let jobs = self.jobs.list.take();
        jobs.iter().for_each(|(_, job)| job.abandon());
    }
}
