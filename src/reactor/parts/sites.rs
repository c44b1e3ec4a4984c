//! The creation site of each source, in two bytes. Call sites are few, so each gets a number when
//! it makes its first source.

use std::collections::HashMap;
use std::panic::Location;

/// The kinds of sources.
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

/// A call site and what it makes, as a number. The default one stands for all that came when there
/// were no more numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SiteId(u16);

type Site = (&'static Location<'static>, SourceKind);

/// The numbers that were given out.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    sites: Vec<Site>,
    index: HashMap<Site, SiteId>,
    /// The last site that hashed to each place, by its address: the one in a loop is found without
    /// a hash of its file name.
    recent: [Option<(Site, SiteId)>; RECENT],
}

const RECENT: usize = 16;

impl Sites {
    /// The number of a call site. Allocates the first time that it is seen.
    #[inline]
    pub(crate) fn of(&mut self, site: Site) -> SiteId {
        let place = (&raw const *site.0 as usize >> 3 ^ site.1 as usize) % RECENT;
        match self.recent[place] {
            Some(((location, kind), id)) if std::ptr::eq(location, site.0) && kind == site.1 => id,
            _ => self.of_other(site, place),
        }
    }

    #[inline(never)]
    fn of_other(&mut self, site: Site, place: usize) -> SiteId {
        let next = SiteId(u16::try_from(self.sites.len() + 1).unwrap_or(0));
        let id = *self.index.entry(site).or_insert(next);
        if id == next && next != SiteId::default() {
            self.sites.push(site);
        }
        self.recent[place] = Some((site, id));
        id
    }

    pub(crate) fn site(&self, id: SiteId) -> Option<Site> {
        self.sites.get(usize::from(id.0).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn here() -> &'static Location<'static> {
        Location::caller()
    }

    #[test]
    fn a_site_has_one_number_for_each_kind() {
        let mut known = Sites::default();
        let (a, b) = (here(), here());
        let sites = [(a, SourceKind::Timer), (b, SourceKind::Timer), (a, SourceKind::Ticker)];
        let numbers = sites.map(|site| known.of(site));
        assert_eq!(sites.map(|site| known.of(site)), numbers);
        assert_eq!(numbers.map(|number| known.site(number)), sites.map(Some));
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(known.site(SiteId::default()), None);
    }

    #[test]
    fn sites_without_number_share_the_default_one() {
        let mut sites = Sites::default();
        let filler = (here(), SourceKind::Timer);
        sites.sites = vec![filler; usize::from(u16::MAX)];
        let late = sites.of((here(), SourceKind::Inbox));
        assert_eq!((late, sites.site(late)), (SiteId::default(), None));
        assert_eq!(sites.sites.len(), usize::from(u16::MAX));
    }
}
