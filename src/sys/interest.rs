//! The events to wait for on an fd, and those that were found.

use std::ops::{BitAnd, BitOr};

/// A set of flags. Each flag has a method that asks for it.
macro_rules! flags {
    (
        $(#[$set_doc:meta])* $set:ident:
        $($(#[$doc:meta])* $flag:ident = $bits:literal, $is:ident $is_doc:literal;)*
    ) => {
        $(#[$set_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
        pub struct $set(u8);

        impl $set {
            $(
                $(#[$doc])*
                pub const $flag: $set = $set($bits);
            )*

            $(
                #[doc = concat!("Returns true if ", $is_doc, ".")]
                pub const fn $is(self) -> bool {
                    self.contains(Self::$flag)
                }
            )*

            /// Returns true if all of `other` is in this.
            pub const fn contains(self, other: $set) -> bool {
                self.0 & other.0 == other.0
            }

            /// This and `other`.
            pub const fn and(self, other: $set) -> $set {
                $set(self.0 | other.0)
            }
        }

        impl BitOr for $set {
            type Output = $set;
            fn bitor(self, other: $set) -> $set {
                self.and(other)
            }
        }

        impl_fmt!(Debug, [] $set, |it, f| {
            let flags = [$((it.contains($set::$flag), stringify!($flag))),*];
            let set = flags.iter().filter(|(is_in, _)| *is_in).map(|(_, name)| *name);
            let set: Vec<&str> = set.collect();
            let set = if set.is_empty() { "NONE".to_owned() } else { set.join(" | ") };
            write!(f, "{}({set})", stringify!($set))
        });
    };
}

flags! {
    /// The events to wait for on an fd: a set.
    ///
    /// ```
    /// use pollmux::sys::Interest;
    ///
    /// let both = Interest::READABLE | Interest::WRITABLE;
    /// assert_eq!(both, Interest::BOTH);
    /// assert!(both.contains(Interest::READABLE) && both.is_writable());
    /// assert!(!both.is_priority() && Interest::PRIORITY.is_priority()); // Linux only
    /// assert_eq!(Interest::READABLE.and(Interest::WRITABLE), both); // in a `const`
    /// assert!(!Interest::NONE.is_readable());
    /// ```
    Interest:
    /// Something to read, or the end of it.
    READABLE = 1, is_readable "this includes [`Interest::READABLE`]";
    /// Room to write.
    WRITABLE = 2, is_writable "this includes [`Interest::WRITABLE`]";
    /// Out-of-band data, or other data that the file calls urgent. Linux only: elsewhere a
    /// registration with it fails with `Unsupported`.
    PRIORITY = 4, is_priority "this includes [`Interest::PRIORITY`]";
}

impl Interest {
    /// Nothing but errors and hang-ups, which epoll always reports. In edge and one-shot mode the
    /// end of the peer's input counts as well. A kqueue reports nothing for a file without
    /// interest.
    pub const NONE: Interest = Interest(0);
    /// Reading and writing.
    pub const BOTH: Interest = Interest::READABLE.and(Interest::WRITABLE);

    /// Returns true if this is one thing, not several or none.
    pub(crate) const fn is_single(self) -> bool {
        self.0.count_ones() == 1
    }
}

flags! {
    /// The events that an fd was found to be ready for: a set.
    ///
    /// ```
    /// use pollmux::sys::Readiness;
    ///
    /// let ready = Readiness::READABLE | Readiness::READ_CLOSED;
    /// assert!(ready.is_readable() && ready.is_read_closed() && !ready.is_writable());
    /// assert_eq!(format!("{ready:?}"), "Readiness(READABLE | READ_CLOSED)");
    /// assert_eq!(ready.without(Readiness::READ_CLOSED), Readiness::READABLE);
    /// assert!(Readiness::ALL.contains(ready) && Readiness::NONE.is_empty());
    ///
    /// let rest = Readiness::WRITABLE.and(Readiness::PRIORITY).and(Readiness::ERROR);
    /// let rest = rest | Readiness::WRITE_CLOSED;
    /// assert!(rest.is_priority() && rest.is_error() && rest.is_write_closed());
    /// ```
    Readiness:
    /// Data to read, or the end of it, or an error to be fetched.
    READABLE = 1, is_readable "a read would not block";
    /// Room to write, or an error to be fetched.
    WRITABLE = 2, is_writable "a write would not block";
    /// Urgent data.
    PRIORITY = 4, is_priority "there is urgent data";
    /// No more data will come: the peer closed its writing half, or everything.
    READ_CLOSED = 8, is_read_closed "the peer will send no more; sent data may still be there";
    /// Nothing can be sent any more: both halves are closed.
    WRITE_CLOSED = 16, is_write_closed "nothing can be sent any more";
    /// The file has an error to be fetched.
    ERROR = 32, is_error "there is an error to be fetched";
}

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// Everything.
    pub const ALL: Readiness = Readiness(63);

    /// Returns true if the peer closed its writing half, or the whole connection.
    pub(crate) const fn is_hang_up(self) -> bool {
        self.is_read_closed() || self.is_write_closed()
    }

    /// Returns true if this is the empty set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the part of this that is not in `other`.
    pub const fn without(self, other: Readiness) -> Readiness {
        Readiness(self.0 & !other.0)
    }
}

impl BitAnd for Readiness {
    type Output = Readiness;
    fn bitand(self, other: Readiness) -> Readiness {
        Readiness(self.0 & other.0)
    }
}

/// The way in which a poller watches an fd: the `id` of the reports, the events, and the mode.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    pub(super) id: u64,
    pub(super) interest: Interest,
    pub(super) mode: Mode,
}

impl Watch {
    /// Reports each time that there is something new to read.
    pub(super) fn for_edges(id: u64) -> Watch {
        Watch { id, interest: Interest::READABLE, mode: Mode::Edge }
    }
}

/// The mode of the reports of an fd that is ready. [`Fd`](crate::Fd) has a table.
///
/// ```
/// use pollmux::sys::{Interest, Mode, PollEvents, Poller};
/// use std::{os::unix::net::UnixStream, time::Duration};
///
/// let poller = Poller::new()?;
/// let mut events = PollEvents::with_capacity(8);
/// for (mode, reports) in [(Mode::Edge, 1), (Mode::OneShot, 1), (Mode::Level, 3)] {
///     let (ours, _theirs) = UnixStream::pair()?;
///     poller.register(&ours, 1, Interest::WRITABLE, mode)?;
///     let mut found = 0;
///     for _ in 0..3 {
///         poller.wait(&mut events, Some(Duration::ZERO))?;
///         found += events.len();
///     }
///     assert_eq!(found, reports);
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Reports once for every change.
    Edge,
    /// Reports in every wait, while the fd stays ready.
    Level,
    /// Reports once, until the registration is modified.
    OneShot,
}
