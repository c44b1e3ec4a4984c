//! A member's clock that runs faster or slower than the world's.

use std::time::Duration;

use crate::driver::VirtualClock;
use crate::sys::Time;

/// The difference between a member's clock and the world's.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Drift {
    pub(in crate::sim) clock: VirtualClock,
    pub(super) origin: Time,
    /// The nanoseconds that the clock gains in a millisecond.
    pub(super) ppm: i64,
}

impl Drift {
    /// Returns the time of the member's clock at the world's time `t`.
    pub(super) fn at(&self, t: Time) -> Time {
        let passed = i128::from(t.as_nanos()) - i128::from(self.origin.as_nanos());
        let gained = (passed * i128::from(self.ppm)).div_euclid(1_000_000);
        Time::from_nanos((i128::from(t.as_nanos()) + gained).clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// Returns the first time of the world at which the member's clock shows `t`.
    pub(super) fn world(&self, t: Time) -> Time {
        if self.ppm == 0 || t == Time::MAX {
            return t;
        }
        let (t_ns, origin) = (i128::from(t.as_nanos()), i128::from(self.origin.as_nanos()));
        let scaled = (t_ns - origin) * 1_000_000;
        let world = origin + scaled.div_euclid(i128::from(1_000_000 + self.ppm));
        let mut world = Time::from_nanos(world.clamp(0, i128::from(u64::MAX)) as u64);
        while self.at(world) < t && world < Time::MAX {
            world += Duration::from_nanos(1);
        }
        world
    }
}
