//! Arms, stops, drops and detaches callbacks. Each callback runs once for each arm, and never
//! early. A stopped callback does not run.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{Callback, Handle, Time};

use super::Part;
use crate::meter::Lateness;
use crate::run::{Random, Run};

/// The most pending callbacks.
const MAX_PENDING: u64 = 400;

/// The counts of the closures.
struct Counts {
    run: Run,
    late: Rc<Lateness>,
    ran: Cell<u64>,
    pending: Cell<u64>,
}

/// A callback that was not detached. `is_over` is true after its last run.
struct Kept {
    callback: Callback,
    is_over: Rc<Cell<bool>>,
}

pub struct Callbacks {
    random: Random,
    counts: Rc<Counts>,
    kept: Vec<Kept>,
}

impl Callbacks {
    pub fn new(run: &Run, late: &Rc<Lateness>) -> Callbacks {
        let counts = Counts {
            run: run.clone(),
            late: late.clone(),
            ran: Cell::new(0),
            pending: Cell::new(0),
        };
        Callbacks { random: run.random(3), counts: Rc::new(counts), kept: Vec::new() }
    }

    fn begin(&mut self, reactor: &Handle) {
        let (counts, token) = (self.counts.clone(), self.counts.run.token());
        let is_over = Rc::new(Cell::new(false));
        let (over, mut again) = (is_over.clone(), self.random.below(3));
        let mut deadline = Time::now() + self.random.duration(Duration::from_millis(20));
        counts.pending.set(counts.pending.get() + 1);
        let callback = reactor.call_at(deadline, move |cx| {
            let _token = &token;
            counts.run.check(cx.scheduled() == deadline, || {
                format!("a callback armed for {deadline:?} ran for {:?}", cx.scheduled())
            });
            counts.late.note(counts.run.check_due("a callback", deadline));
            counts.ran.set(counts.ran.get() + 1);
            if again > 0 {
                again -= 1;
                deadline = Time::now() + Duration::from_millis(3);
                cx.reset_at(deadline);
            } else {
                over.set(true);
                counts.pending.set(counts.pending.get() - 1);
            }
        });
        if self.random.one_in(2) {
            callback.detach();
        } else {
            self.kept.push(Kept { callback, is_over });
        }
    }

    /// Stops or drops one of the kept callbacks.
    fn stop(&mut self) {
        let index = self.random.index(self.kept.len());
        let Kept { callback, is_over } = self.kept.swap_remove(index);
        let counts = &self.counts;
        if !is_over.get() {
            counts.pending.set(counts.pending.get() - 1);
        }
        if self.random.one_in(2) {
            let stopped = callback.stop();
            counts.run.check(stopped != is_over.get(), || {
                format!("stop of a callback returned {stopped}, over was {}", is_over.get())
            });
        }
    }
}

impl Part for Callbacks {
    fn name(&self) -> &'static str {
        "callbacks"
    }

    fn count(&self) -> u64 {
        self.counts.ran.get()
    }

    fn handle(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        self.counts.run.violated(format!("a callback was reported as source {index}"));
        Ok(())
    }

    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        if self.counts.run.is_over() {
            return Ok(());
        }
        while self.kept.len() > 100 {
            self.stop();
        }
        for _ in 0..6 {
            if self.counts.pending.get() < MAX_PENDING {
                self.begin(reactor);
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let pending = self.counts.pending.get();
        (pending > 0).then(|| format!("{pending} callbacks"))
    }
}
