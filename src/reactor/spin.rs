//! The spin of a turn before its sleep.

use std::thread;
use std::time::Duration;

use super::core::Core;
use super::parts::counters::add;
use super::parts::spinner::{LAST_STRETCH, LOOKS, TIME_SLICE};
use crate::sys::Time;

impl Core {
    /// Looks, without sleeping, for something to do. Returns whether there is: a source, a call
    /// from outside, or a deadline that has come.
    #[inline(never)]
    pub(super) fn spin(&self, until: Time, recheck: &impl Fn() -> bool) -> bool {
        let spinner = &self.spinner;
        let target = until.min(Time::from_nanos(self.timers.next_due.get()));
        let exact =
            if spinner.precise > 0 && spinner.is_met(self.timers_due()) { target } else { until };
        if spinner.precise > 0 && exact != Time::MAX {
            let left = exact - self.clock.refresh();
            if left <= Duration::from_nanos(LAST_STRETCH) {
                return true;
            }
            if left <= Duration::from_nanos(spinner.precise) {
                if self.look_until(exact - Duration::from_nanos(LAST_STRETCH), false, recheck) {
                    add(&spinner.saved, 1);
                }
                return true;
            }
        }
        if !spinner.attempts() {
            return false;
        }
        let begin = self.clock.refresh();
        let rests = spinner.adaptive && target - begin > Duration::from_nanos(TIME_SLICE);
        let end = target.min(begin + Duration::from_nanos(spinner.limit));
        let found = self.look_until(end, rests, recheck);
        if found {
            spinner.succeeded()
        } else {
            spinner.failed()
        }
        found
    }

    /// Returns true if a source is ready, or a mark or a post is pending, before `end`.
    fn look_until(&self, end: Time, rests: bool, recheck: &impl Fn() -> bool) -> bool {
        let mut looks = 0u32;
        loop {
            self.poll_fds();
            if self.has_mark_or_post() || recheck() {
                return true;
            }
            if self.clock.refresh() >= end {
                return false;
            }
            looks += 1;
            if rests && looks % LOOKS == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}
