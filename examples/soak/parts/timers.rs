//! Arms, postpones, stops, drops and makes one-shot timers at random.
//!
//! Each timer fires once for each arm, with its own deadline, and never early. `stop` and `reset`
//! return true exactly when a deadline or an expiry was pending.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{Handle, Source, Time, Timer};

use super::{Keys, Part};
use crate::meter::Lateness;
use crate::run::{READING, Random, Run};

const TIMERS: usize = 128;

struct Slot {
    timer: Timer,
    /// The armed deadline that was not received yet.
    pending: Option<Time>,
}

pub struct Timers {
    run: Run,
    random: Random,
    late: Rc<Lateness>,
    keys: Keys,
    slots: Vec<Slot>,
    fired: u64,
}

impl Timers {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys, late: &Rc<Lateness>) -> Timers {
        let slots = (0..TIMERS).map(|index| {
            let timer = reactor.timer().with_key(keys.key(index));
            Slot { timer, pending: None }
        });
        let (random, late) = (run.random(keys.0 as u64), late.clone());
        Timers { run: run.clone(), random, late, keys, slots: slots.collect(), fired: 0 }
    }

    fn delay(&mut self) -> Duration {
        match self.random.below(64) {
            0 => Duration::ZERO,
            1 => self.random.duration(Duration::from_secs(1)),
            _ => self.random.duration(Duration::from_millis(50)),
        }
    }

    fn arm(&mut self, index: usize) {
        let (delay, before) = (self.delay(), Time::now());
        let by_time = self.random.one_in(2);
        let (run, slot) = (&self.run, &mut self.slots[index]);
        let was_pending =
            if by_time { slot.timer.reset_at(before + delay) } else { slot.timer.reset(delay) };
        let after = if by_time { before } else { Time::now() + READING };
        run.check(was_pending == slot.pending.is_some(), || {
            format!("timer {index}: reset returned {was_pending}, pending was {:?}", slot.pending)
        });
        slot.pending = slot.timer.deadline();
        let is_right = slot.pending.is_some_and(|at| before + delay <= at && at <= after + delay);
        run.check(is_right, || format!("timer {index} is armed for {:?}", slot.pending));
    }

    fn stop(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (stopped, pending) = (slot.timer.stop(), slot.pending.take());
        self.run.check(stopped == pending.is_some(), || {
            format!("timer {index}: stop returned {stopped}, pending was {pending:?}")
        });
    }

    fn fired(&mut self, index: usize, scheduled: Option<Time>) {
        let pending = self.slots[index].pending.take();
        self.run.check(scheduled.is_some() && scheduled == pending, || {
            format!("timer {index} gave {scheduled:?}, armed was {pending:?}")
        });
        if let Some(scheduled) = scheduled {
            self.late.note(self.run.check_due("a timer", scheduled));
            self.fired += 1;
        }
    }
}

impl Part for Timers {
    fn name(&self) -> &'static str {
        "timers"
    }

    fn count(&self) -> u64 {
        self.fired
    }

    fn handle(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        let scheduled = self.slots[index].timer.try_take();
        self.fired(index, scheduled);
        if self.run.is_over() {
            return Ok(());
        }
        self.arm(index);
        let other = self.random.index(TIMERS);
        match self.random.below(8) {
            0 => self.stop(other),
            1 | 2 => self.arm(other),
            3 => {
                let timer = reactor.timer().with_key(self.keys.key(other));
                self.slots[other] = Slot { timer, pending: None };
            }
            _ => {}
        }
        Ok(())
    }

    fn start_work(&mut self, _: &Handle) -> io::Result<()> {
        if !self.run.is_over() {
            for _ in 0..8 {
                let index = self.random.index(TIMERS);
                self.arm(index);
            }
        }
        Ok(())
    }

    fn check(&mut self, reactor: &Handle) -> io::Result<()> {
        for index in 0..TIMERS {
            let now = Time::now();
            if self.slots[index].pending.is_some_and(|at| at <= now) {
                let scheduled = reactor.try_recv(&self.slots[index].timer)?;
                self.fired(index, scheduled);
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let pending = self.slots.iter().filter(|slot| slot.pending.is_some()).count();
        (pending > 0).then(|| format!("{pending} timers"))
    }
}
