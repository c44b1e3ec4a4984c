//! The outcome of a look that reads no memory that senders write often.

/// A bit for each of at most 32 sources that is ready, and a bit for each that is in doubt: only a
/// closer look can tell if that source is ready.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance(u64);

impl Glance {
    /// One source, whose state is in doubt.
    pub(crate) const DOUBT: Glance = Glance(1 << 32);

    /// One source, which is ready or not.
    #[inline(always)]
    pub(crate) fn sure(is_ready: bool) -> Glance {
        Glance(u64::from(is_ready))
    }

    /// The sources with these bits are ready, and none is in doubt.
    #[inline(always)]
    pub(crate) fn all_sure(ready: u32) -> Glance {
        Glance(u64::from(ready))
    }

    /// This source, and the rest behind it.
    #[inline(always)]
    pub(crate) fn before(self, rest: Glance) -> Glance {
        Glance(self.0 | rest.0 << 1)
    }

    /// The bits of the sources that are ready.
    #[inline(always)]
    pub(crate) fn ready(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(crate) fn is_in_doubt(self) -> bool {
        self.0 >> 32 != 0
    }
}
