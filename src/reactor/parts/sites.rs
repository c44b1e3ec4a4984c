//! The kind and the creation site of each source, in two bytes. Call sites are few, so each gets a
//! number when it makes its first source of a kind.

use std::collections::HashMap;

/// The kind of a source, in [`Event::kind`](crate::Event::kind) and
/// [`SourceInfo::kind`](crate::reactor::SourceInfo::kind).
///
/// ```
/// use pollmux::{Reactor, reactor::SourceKind};
///
/// let reactor = Reactor::new()?;
/// let timer = reactor.timer();
/// let kinds: Vec<_> = reactor.sources().iter().filter_map(|source| source.kind).collect();
/// assert_eq!(kinds, [SourceKind::Timer]);
/// assert_eq!(SourceKind::Timer.to_string(), "timer");
/// # drop(timer);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SourceKind {
    /// A one-shot [`Timer`](crate::Timer).
    Timer,
    /// A [`Ticker`](crate::Ticker).
    Ticker,
    /// A [`Callback`](crate::Callback).
    Callback,
    /// The receiver of a channel: an [`Inbox`](crate::Inbox).
    Inbox,
    /// The sender of a channel: an [`Outbox`](crate::Outbox).
    Outbox,
    /// The source that a [`Notifier`](crate::Notifier) rings.
    Notified,
    /// The end of a [`Context`](crate::Context): a [`Done`](crate::context::Done).
    Context,
    /// A kernel timer of its own: an [`OsTimer`](crate::OsTimer).
    OsTimer,
    /// A file, a socket, a pipe: an [`Fd`](crate::Fd).
    Fd,
    /// [`Signals`](crate::Signals).
    Signals,
    /// A [`ChildProcess`](crate::ChildProcess).
    Child,
    /// The driver's own events: a [`ForeignInbox`](crate::sources::ForeignInbox).
    ForeignInbox,
}

impl_fmt!(Display, [] SourceKind, |it, f| f.pad(match it {
    SourceKind::Timer => "timer",
    SourceKind::Ticker => "ticker",
    SourceKind::Callback => "callback",
    SourceKind::Inbox => "inbox",
    SourceKind::Outbox => "outbox",
    SourceKind::Notified => "notified",
    SourceKind::Context => "context",
    SourceKind::OsTimer => "os timer",
    SourceKind::Fd => "fd",
    SourceKind::Signals => "signals",
    SourceKind::Child => "child",
    SourceKind::ForeignInbox => "driver",
}));

/// The kinds, by their numbers.
const KINDS: [SourceKind; 12] = [
    SourceKind::Timer,
    SourceKind::Ticker,
    SourceKind::Callback,
    SourceKind::Inbox,
    SourceKind::Outbox,
    SourceKind::Notified,
    SourceKind::Context,
    SourceKind::OsTimer,
    SourceKind::Fd,
    SourceKind::Signals,
    SourceKind::Child,
    SourceKind::ForeignInbox,
];
const KIND_BITS: u32 = 4;

/// The kind of a source in the lower bits, above them the number of its call site. The number 0
/// stands for all call sites of the kind that came when there were no more numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SiteId(u16);

impl SiteId {
    /// The number of call sites of one kind that are told apart.
    const MOST: usize = (1 << (u16::BITS - KIND_BITS)) - 1;

    fn new(number: usize, kind: SourceKind) -> SiteId {
        let number = if number <= SiteId::MOST { number as u16 } else { 0 };
        SiteId(number << KIND_BITS | kind as u16)
    }

    /// The kind of the source.
    pub(crate) fn kind(self) -> SourceKind {
        self.kind_number().kind()
    }

    #[inline]
    pub(crate) fn kind_number(self) -> KindNumber {
        KindNumber(self.0 as u8 & ((1 << KIND_BITS) - 1))
    }

    /// Returns true for a source that is its record, its place in a list, a key and a priority.
    #[inline]
    pub(crate) fn is_timer(self) -> bool {
        self.kind_number() == KindNumber(SourceKind::Timer as u8)
    }

    fn number(self) -> usize {
        usize::from(self.0 >> KIND_BITS)
    }
}

/// The number of a kind: it is cheaper to get than the kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KindNumber(u8);

impl KindNumber {
    pub(crate) fn kind(self) -> SourceKind {
        KINDS.get(usize::from(self.0)).copied().unwrap_or(SourceKind::Timer)
    }
}

impl_fmt!(Debug, [] KindNumber, |it, f| write!(f, "{:?}", it.kind()));

type Location = &'static std::panic::Location<'static>;
pub(crate) type Site = (Location, SourceKind);

/// The numbers that were given out.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    /// By kind.
    locations: [Vec<Location>; KINDS.len()],
    index: HashMap<Site, SiteId>,
    /// The address of the last location that hashed to each place, and its number. So the site in
    /// a loop is found without a hash of its file name. An address of zero stands for no location.
    recent: [(usize, SiteId); RECENT],
}

const RECENT: usize = 16;

impl Sites {
    /// The number of a call site. Allocates the first time that it is seen.
    #[inline]
    pub(crate) fn of(&mut self, site: Site) -> SiteId {
        let (address, kind) = (&raw const *site.0 as usize, site.1 as u8);
        let place = (address >> 3 ^ usize::from(kind)) % RECENT;
        let (recent, id) = self.recent[place];
        if recent == address && id.kind_number() == KindNumber(kind) {
            id
        } else {
            self.of_other(site, place)
        }
    }

    #[inline(never)]
    fn of_other(&mut self, site: Site, place: usize) -> SiteId {
        let (location, kind) = site;
        let locations = &mut self.locations[kind as usize];
        let next = SiteId::new(locations.len() + 1, kind);
        let id = *self.index.entry(site).or_insert(next);
        if id == next && next.number() > 0 {
            locations.push(location);
        }
        self.recent[place] = (&raw const *location as usize, id);
        id
    }

    /// The line that has this number.
    pub(crate) fn location(&self, id: SiteId) -> Option<Location> {
        let locations = &self.locations[id.kind() as usize];
        locations.get(id.number().checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn here() -> Location {
        std::panic::Location::caller()
    }

    #[test]
    fn a_site_has_one_number_for_each_kind() {
        let mut known = Sites::default();
        let (a, b) = (here(), here());
        let sites = [(a, SourceKind::Timer), (b, SourceKind::Timer), (a, SourceKind::Ticker)];
        let numbers = sites.map(|site| known.of(site));
        assert_eq!(sites.map(|site| known.of(site)), numbers);
        assert_eq!(numbers.map(|id| known.location(id).map(|at| (at, id.kind()))), sites.map(Some));
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(known.location(SiteId::default()), None);
    }

    #[test]
    fn sites_without_number_keep_their_kind() {
        let mut sites = Sites::default();
        sites.locations[SourceKind::Inbox as usize] = vec![here(); SiteId::MOST];
        let late = sites.of((here(), SourceKind::Inbox));
        assert_eq!((late.kind(), sites.location(late)), (SourceKind::Inbox, None));
        assert_eq!(sites.locations[SourceKind::Inbox as usize].len(), SiteId::MOST);
        let ticker = (here(), SourceKind::Ticker);
        let id = sites.of(ticker);
        assert_eq!((sites.location(id), id.kind()), (Some(ticker.0), ticker.1));
    }

    #[test]
    fn each_kind_is_the_kind_of_its_number() {
        assert!(KINDS.iter().enumerate().all(|(n, kind)| *kind as usize == n));
        assert!(KINDS.len() <= 1 << KIND_BITS);
    }
}
