//! The events to wait for on an fd, and those that were found.

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// The events to wait for on an fd: a set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing but errors and hang-ups, which always count on epoll. In edge and one-shot mode the
    /// end of the peer's input counts as well. A kqueue tells nothing of a file without interest.
    pub const NONE: Interest = Interest(0);
    /// Something to read, or the end of it.
    pub const READABLE: Interest = Interest(1);
    /// Room to write.
    pub const WRITABLE: Interest = Interest(2);
    /// Either.
    pub const BOTH: Interest = Interest(3);
    /// Out-of-band data, or whatever else the file calls urgent. Linux only: elsewhere a
    /// registration with it fails with `Unsupported`.
    pub const PRIORITY: Interest = Interest(4);

    /// Returns true if this includes [`Interest::READABLE`].
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READABLE)
    }

    /// Returns true if this includes [`Interest::WRITABLE`].
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITABLE)
    }

    /// Returns true if this includes [`Interest::PRIORITY`].
    pub const fn is_priority(self) -> bool {
        self.contains(Self::PRIORITY)
    }

    /// Returns true if all of `other` is in this.
    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns true if this is one thing, not several or none.
    pub(crate) const fn is_single(self) -> bool {
        self.0.count_ones() == 1
    }

    /// This and `other`.
    pub const fn and(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl BitOr for Interest {
    type Output = Interest;
    fn bitor(self, other: Interest) -> Interest {
        self.and(other)
    }
}

impl fmt::Debug for Interest {
    /// `Interest(READABLE | WRITABLE)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_set(f, "Interest", self.0, &["READABLE", "WRITABLE", "PRIORITY"])
    }
}

/// The events that an fd was found to be ready for: a set.
///
/// ```
/// use pollmux::sys::Readiness;
///
/// let ready = Readiness::READABLE | Readiness::READ_CLOSED;
/// assert!(ready.is_readable() && ready.is_read_closed() && !ready.is_writable());
/// assert_eq!(format!("{ready:?}"), "Readiness(READABLE | READ_CLOSED)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// Data to read, or the end of it, or an error to be fetched.
    pub const READABLE: Readiness = Readiness(1);
    /// Room to write, or an error to be fetched.
    pub const WRITABLE: Readiness = Readiness(2);
    /// Urgent data.
    pub const PRIORITY: Readiness = Readiness(4);
    /// Nothing will come: the peer closed its writing half, or everything.
    pub const READ_CLOSED: Readiness = Readiness(8);
    /// Nothing can be sent any more: both halves are closed.
    pub const WRITE_CLOSED: Readiness = Readiness(16);
    /// The file has an error to be fetched.
    pub const ERROR: Readiness = Readiness(32);
    /// Everything.
    pub const ALL: Readiness = Readiness(63);

    /// Returns true if a read would not block.
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READABLE)
    }

    /// Returns true if a write would not block.
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITABLE)
    }

    /// Returns true if there is urgent data.
    pub const fn is_priority(self) -> bool {
        self.contains(Self::PRIORITY)
    }

    /// Returns true if the peer will send nothing more. What it has sent may still be there to
    /// read.
    pub const fn is_read_closed(self) -> bool {
        self.contains(Self::READ_CLOSED)
    }

    /// Returns true if nothing can be sent any more.
    pub const fn is_write_closed(self) -> bool {
        self.contains(Self::WRITE_CLOSED)
    }

    /// Returns true if the peer closed its writing half, or the whole connection.
    pub(crate) const fn is_hang_up(self) -> bool {
        self.is_read_closed() || self.is_write_closed()
    }

    /// Returns true if there is an error to be fetched.
    pub const fn is_error(self) -> bool {
        self.contains(Self::ERROR)
    }

    /// Returns true if this is the empty set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns true if all of `other` is in this.
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }

    /// This and `other`.
    pub(crate) const fn and(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// What is in this but not in `other`.
    pub const fn without(self, other: Readiness) -> Readiness {
        Readiness(self.0 & !other.0)
    }
}

impl BitOr for Readiness {
    type Output = Readiness;
    fn bitor(self, other: Readiness) -> Readiness {
        self.and(other)
    }
}

impl BitAnd for Readiness {
    type Output = Readiness;
    fn bitand(self, other: Readiness) -> Readiness {
        Readiness(self.0 & other.0)
    }
}

impl fmt::Debug for Readiness {
    /// `Readiness(READABLE | READ_CLOSED)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["READABLE", "WRITABLE", "PRIORITY", "READ_CLOSED", "WRITE_CLOSED", "ERROR"];
        fmt_set(f, "Readiness", self.0, &names)
    }
}

/// Writes a set; `names` has those of its bits, the lowest first.
fn fmt_set(f: &mut fmt::Formatter<'_>, set: &str, bits: u8, names: &[&str]) -> fmt::Result {
    let has = |&(bit, _): &(usize, &&str)| bits & 1 << bit != 0;
    let found: Vec<&str> = names.iter().enumerate().filter(has).map(|(_, name)| *name).collect();
    let found = if found.is_empty() { "NONE".to_owned() } else { found.join(" | ") };
    write!(f, "{set}({found})")
}

/// How often an fd that is ready is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Once for every change.
    Edge,
    /// By every wait, while it stays ready.
    Level,
    /// Once, until it is modified.
    OneShot,
}
