//! Where each source was created, in two bytes: call sites are few, so each gets a number the first
//! time that it makes a source.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;

/// What kind of source something is.
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
    /// What a [`Notifier`](crate::Notifier) rings.
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

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
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
        })
    }
}

/// A call site and what it makes, as a number. The default one stands for all that came when there
/// were no more numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin(u16);

type Site = (&'static Location<'static>, SourceKind);

/// The numbers that were given out.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    sites: Vec<Site>,
    index: HashMap<Site, Origin>,
    /// The last site that hashed to each place, by its address: the one in a loop is found without
    /// a hash of its file name.
    recent: [Option<(Site, Origin)>; RECENT],
}

const RECENT: usize = 16;

impl Origins {
    /// The number of a call site. Allocates the first time that it is seen.
    #[inline]
    pub(crate) fn of(&mut self, site: Site) -> Origin {
        let place = (&raw const *site.0 as usize >> 3 ^ site.1 as usize) % RECENT;
        match self.recent[place] {
            Some(((location, kind), origin))
                if std::ptr::eq(location, site.0) && kind == site.1 =>
            {
                origin
            }
            _ => self.of_other(site, place),
        }
    }

    #[inline(never)]
    fn of_other(&mut self, site: Site, place: usize) -> Origin {
        let next = Origin(u16::try_from(self.sites.len() + 1).unwrap_or(0));
        let origin = *self.index.entry(site).or_insert(next);
        if origin == next && next != Origin::default() {
            self.sites.push(site);
        }
        self.recent[place] = Some((site, origin));
        origin
    }

    /// What a number stands for.
    pub(crate) fn site(&self, origin: Origin) -> Option<Site> {
        self.sites.get(usize::from(origin.0).checked_sub(1)?).copied()
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
        let mut origins = Origins::default();
        let (a, b) = (here(), here());
        let sites = [(a, SourceKind::Timer), (b, SourceKind::Timer), (a, SourceKind::Ticker)];
        let numbers = sites.map(|site| origins.of(site));
        assert_eq!(sites.map(|site| origins.of(site)), numbers);
        assert_eq!(numbers.map(|number| origins.site(number)), sites.map(Some));
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(origins.site(Origin::default()), None);
    }

    #[test]
    fn sites_without_number_share_the_default_one() {
        let mut origins = Origins::default();
        let filler = (here(), SourceKind::Timer);
        origins.sites = vec![filler; usize::from(u16::MAX)];
        let late = origins.of((here(), SourceKind::Inbox));
        assert_eq!((late, origins.site(late)), (Origin::default(), None));
        assert_eq!(origins.sites.len(), usize::from(u16::MAX));
    }
}
