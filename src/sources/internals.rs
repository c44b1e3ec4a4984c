//! The common part of the sources of this crate.

use std::sync::Arc;

use crate::channel;
use crate::reactor::{Handle, Listed, Slot};

/// The facts about a source of this crate, for the selects. The default is for a source of the
/// user.
#[derive(Clone, Copy, Default)]
pub struct Internals<'a> {
    slot: Option<&'a Slot>,
    is_unlisted: bool,
    needs_no_look: bool,
    end: Option<&'a dyn End>,
}

/// An end of a channel that may take part in a choice before an item is taken.
pub(crate) trait End {
    /// Returns the state of the channel, if this is a receiver and the channel has a buffer.
    fn buffer(&self) -> Option<Arc<channel::State>> {
        None
    }

    /// Returns true if the other end of a rendezvous has chosen this one during the sleep.
    fn is_chosen(&self) -> bool {
        false
    }

    /// Makes sure that the next [`try_take`](super::Source::try_take) gives an item. Returns false
    /// if there is none.
    fn hold(&self) -> bool {
        true
    }
}

impl<'a> Internals<'a> {
    /// Describes a source with this slot, which the driver makes ready.
    #[inline(always)]
    pub(crate) fn of(slot: &'a Slot) -> Internals<'a> {
        Internals { slot: Some(slot), ..Internals::default() }
    }

    /// Describes a source that time or another thread makes ready. Before `default` no poll is
    /// needed.
    #[inline(always)]
    pub(crate) fn without_look(self) -> Internals<'a> {
        Internals { needs_no_look: true, ..self }
    }

    /// Describes a source that must be asked, because the ready list may not have it.
    #[inline(always)]
    pub(crate) fn unlisted_if(self, is_unlisted: bool) -> Internals<'a> {
        Internals { is_unlisted, ..self }
    }

    /// Describes a source that is an end of a channel.
    #[inline(always)]
    pub(crate) fn with_end(self, end: &'a dyn End) -> Internals<'a> {
        Internals { end: Some(end), ..self }
    }

    /// Returns true if this reactor can wait for the source.
    #[inline(always)]
    pub(crate) fn belongs_to(&self, handle: &Handle) -> bool {
        self.slot.is_none_or(|slot| slot.belongs_to(handle))
    }

    /// Returns the token of the source in the reactor's ready list.
    #[inline]
    pub(crate) fn token(&self) -> Option<u64> {
        self.slot.filter(|_| !self.is_unlisted).map(Slot::token)
    }

    /// Returns the place of the source in the reactor's lists.
    pub(crate) fn listed(&self) -> Option<Listed> {
        self.slot.filter(|_| !self.is_unlisted).map(Slot::listed)
    }

    /// The token of an end of a channel, also of an unlisted end. Posts may hold the end.
    pub(crate) fn channel(&self) -> Option<u64> {
        self.slot.filter(|_| self.end.is_some()).map(Slot::token)
    }

    /// Notes that the chosen source gave no item, which counts as spinning if it repeats.
    #[cold]
    pub(crate) fn picked_nothing(&self) {
        if let (Some(token), Some(slot)) = (self.token(), self.slot) {
            slot.core().picked_nothing(token);
        }
    }

    #[inline(always)]
    pub(crate) fn needs_no_look(&self) -> bool {
        self.needs_no_look
    }

    /// Calls [`End::buffer`].
    pub(crate) fn buffer(&self) -> Option<Arc<channel::State>> {
        self.end.and_then(End::buffer)
    }

    /// See [`End::is_chosen`], if the source is an end.
    #[inline(always)]
    pub(crate) fn is_chosen(&self) -> bool {
        self.end.is_some_and(End::is_chosen)
    }

    /// Calls [`End::hold`], if the source is an end.
    #[inline(always)]
    pub(crate) fn hold(&self) -> bool {
        self.end.is_none_or(End::hold)
    }
}

impl_debug!([] Internals<'_>, |it| token: it.token());

/// Gives a source its key and its priority. `keyed!(listed ..)` gives a callback, which no wait
/// reports, its key.
macro_rules! keyed {
    (listed $source:ty) => {
        impl $source {
            /// Sets the key that [`sources`](crate::Handle::sources) lists the callback by. No wait
            /// reports a callback.
            pub fn with_key(self, key: impl Into<crate::reactor::Key>) -> Self {
                self.slot.set_key(key.into().get());
                self
            }

            /// The key that [`sources`](crate::Handle::sources) lists the callback by. Without a
            /// [`with_key`](Self::with_key) it is a unique number of 2^63 or more.
            pub fn key(&self) -> u64 {
                self.slot.key()
            }
        }
    };
    ([$($params:tt)*] $source:ty, $($slot:ident).+) => {
        impl<$($params)*> $source {
            /// Sets the key that [`wait`](crate::Handle::wait) reports the source by: a `u64`, a
            /// pair of kind and index, or a [`Key`](crate::Key), which has an example.
            pub fn with_key(self, key: impl Into<crate::reactor::Key>) -> Self {
                self.$($slot).+.set_key(key.into().get());
                self
            }

            /// Sets the [`Priority`](crate::Priority) of the source in a
            /// [`wait`](crate::Handle::wait). [`Priority`](crate::Priority) has an example.
            pub fn with_priority(self, priority: crate::reactor::Priority) -> Self {
                self.$($slot).+.set_priority(priority);
                self
            }

            /// The key that [`wait`](crate::Handle::wait) reports the source by. Without a
            /// [`with_key`](Self::with_key) or a [`register_with`](crate::Handle::register_with) it
            /// is a unique number of 2^63 or more. [`Key`](crate::Key) has an example.
            pub fn key(&self) -> u64 {
                self.$($slot).+.key()
            }
        }
    };
}

/// Gives a source its key, its priority and its `Debug`:
/// `common!([T] Inbox<T>, |it| len: it.len())`.
macro_rules! common {
    ([$($params:tt)*] $name:ident$(<$arg:ident>)?, |$it:ident| $($field:ident: $value:expr),+) => {
        crate::sources::keyed!([$($params)*] $name$(<$arg>)?, slot);

        impl_debug!(
            [$($params)*] $name$(<$arg>)?, |$it| $($field: $value,)+ inert: $it.slot.is_inert()
        );
    };
}

pub(crate) use {common, keyed};
