//! The spin of a turn before its sleep.

use std::rc::Rc;
use std::thread;
use std::time::Duration;

use super::core::{Core, ReactorTable, Rehearsal};
use super::parts::counters::add;
#[cfg(doc)]
use super::parts::spinner::Spinner;
use super::parts::spinner::{LAST_STRETCH, LOOKS, REHEARSED_BEFORE, TIME_SLICE};
use crate::sync::WATCH;
use crate::sys::Time;

/// The looks of a loop that is about to sleep: is one of its sources ready?
pub(crate) trait Looks {
    /// Returns true if a source is ready.
    fn closely(&self) -> bool;
    /// A look that reads no memory that senders write often. May miss a ready source.
    fn glance(&self) -> bool {
        self.closely()
    }
}

impl<F: Fn() -> bool> Looks for F {
    fn closely(&self) -> bool {
        self()
    }
}

impl Core {
    /// Looks for work, without sleeping, after [`Spinner::begins`]. Returns true if there is a
    /// ready source, a call from outside, or a deadline that has come.
    #[inline(never)]
    pub(super) fn spin(self: &Rc<Core>, until: Time, looks: &impl Looks) -> bool {
        let spinner = &self.spinner;
        let target = until.min(Time::from_nanos(self.timers.next_due.get()));
        let exact =
            if spinner.precise > 0 && spinner.is_met(self.timers_due()) { target } else { until };
        if spinner.precise > 0 && exact != Time::MAX {
            let left = exact - self.clock.refresh();
            if left <= Duration::from_nanos(LAST_STRETCH) {
                if left >= Duration::from_nanos(REHEARSED_BEFORE) {
                    self.rehearse();
                }
                return true;
            }
            if left <= Duration::from_nanos(spinner.precise) {
                if self.look_until(exact - Duration::from_nanos(LAST_STRETCH), false, looks) {
                    add(&spinner.saved, 1);
                }
                return true;
            }
        }
        if spinner.precise > 0 && !spinner.attempts() {
            return false;
        }
        let begin = self.clock.refresh();
        let rests = spinner.adaptive && target - begin > Duration::from_nanos(TIME_SLICE);
        let end = target.min(begin + Duration::from_nanos(spinner.limit));
        let entered = self.entered();
        let found = self.look_until(end, rests, looks);
        // The driver's event would have ended the sleep without a wake-up by a thread. A loop that
        // waits for files alone pays for each spin, and gains nothing.
        if !found || self.entered() != entered {
            spinner.failed();
            add(&spinner.saved, u64::from(found));
        } else {
            spinner.succeeded();
        }
        found
    }

    /// Returns true if a timer was rehearsed since the last call. The caller may then rehearse,
    /// too.
    #[inline]
    pub(crate) fn takes_rehearsal(&self) -> bool {
        self.spinner.precise > 0 && self.spinner.rehearsed.take()
    }

    /// Fires a timer of its own that nobody sees. After a long sleep the code for that, and the
    /// first timer, are in no cache. Without the rehearsal they cost more than a microsecond when
    /// the deadline comes.
    #[cold]
    #[inline(never)]
    fn rehearse(self: &Rc<Core>) {
        let mut rehearsal = self.rehearsal.borrow_mut();
        let Rehearsal { table, chunk, slot } = rehearsal.get_or_insert_with(|| {
            let mut table = Box::new(ReactorTable::new());
            let (chunk, slot) = table.slots.allocate(self, Default::default());
            Rehearsal { table, chunk, slot }
        });
        let swap = |table: &mut ReactorTable| std::mem::swap(&mut *self.table.borrow_mut(), table);
        let (due, put_off) = (self.timers.next_due.get(), self.timers.put_off.get());
        let (behind, expired) = (self.timers.is_behind(), self.counters.expired.get());
        swap(table);
        {
            let table = &mut *self.table.borrow_mut();
            table.heap.insert(&table.slots, chunk.node(*slot), *slot, 1, 1);
        }
        self.timers.put_off.set(false);
        self.expire(Time::from_nanos(1));
        self.take(chunk.node(*slot), *slot);
        swap(table);
        self.counters.expired.set(expired);
        self.timers.put_off.set(put_off);
        // Looks at the first timer.
        self.timers.next_due.set(due);
        self.expire(Time::ZERO);
        self.timers.set_behind(behind);
        self.spinner.rehearsed.set(true);
    }

    /// Returns true if a source is ready, or a mark or a post is pending, before `end`. For the
    /// first [`WATCH`] ns only glances at the sources.
    fn look_until(&self, end: Time, rests: bool, looks: &impl Looks) -> bool {
        let watched = end.min(self.clock.now() + Duration::from_nanos(WATCH));
        let (mut now, mut looked) = (Time::ZERO, 0u32);
        loop {
            self.poll_fds();
            let is_ready = || if now < watched { looks.glance() } else { looks.closely() };
            if self.has_mark_or_post() || is_ready() {
                return true;
            }
            now = self.clock.refresh();
            if now >= end {
                return false;
            }
            looked += 1;
            if rests && looked % LOOKS == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}
