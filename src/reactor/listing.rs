//! The list of live sources and their creation sites, for a human who looks for a leak.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::core::Handle;
use super::parts::priority::Priority;
use super::parts::sites::SourceKind;
use super::parts::slots::{Flag, State};
use super::parts::timer_id::TimerId;
use crate::sys::Time;

/// One live source of a reactor, in the list of [`Handle::sources`].
///
/// ```
/// use pollmux::{Reactor, Time, reactor::SourceKind};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let tick = reactor.every(Duration::from_secs(3_600))?.with_key(7);
/// let sources = reactor.sources();
/// let info = sources.iter().next().unwrap();
/// assert_eq!((info.kind, info.key), (Some(SourceKind::Ticker), 7));
/// assert_eq!((info.period, info.fired), (Some(Duration::from_secs(3_600)), 0));
/// assert!(info.deadline > Some(Time::now()) && !info.ready && !info.spinning);
/// assert_eq!(info.id, Some(tick.id()));
/// println!("made at {}", info.location.unwrap());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceInfo {
    /// The kind. `Some` for every source.
    pub kind: Option<SourceKind>,
    /// The creation site. Each kind of source has up to 4,095 sites. `None` for a later site.
    pub location: Option<&'static Location<'static>>,
    /// The deadline, pending or expired and not yet received. `None` if the source is not armed, or
    /// has no deadlines.
    pub deadline: Option<Time>,
    /// The period of a ticker.
    pub period: Option<Duration>,
    /// The number of values given, or of calls of a callback. Not counted for channels. Stops at
    /// `u32::MAX`.
    pub fired: u64,
    /// The source is ready.
    pub ready: bool,
    /// The source keeps the loop busy. It was reported 1,000 times and nobody took, drained, read,
    /// wrote or changed it, or its end was taken 1,000 times.
    ///
    /// To do one of those clears the mark. So does a smaller [interest](crate::Fd::set_interest) of
    /// an [`Fd`](crate::Fd).
    pub spinning: bool,
    /// The key that `wait` reports.
    pub key: u64,
    /// The priority in a `wait`.
    pub priority: Priority,
    /// The id of a timer, a ticker or a callback. A callback of
    /// [`after_cancel`](Handle::after_cancel) has no id.
    pub id: Option<TimerId>,
}

/// The live sources of a reactor. Made by [`Handle::sources`].
///
/// `Display` prints a line for each creation site, the site with the most sources first:
///
/// ```
/// use pollmux::{Reactor, Sim};
/// use std::time::Duration;
///
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let second = Duration::from_secs(1);
/// let forgotten: Vec<_> = (0..3).map(|_| reactor.every(second).unwrap()).collect();
/// let timeout = reactor.after(Duration::from_secs(30));
/// let text = reactor.sources().to_string();
/// let mut lines = text.lines();
/// assert_eq!(lines.next(), Some("4 sources live, made at 2 places"));
/// assert!(lines.next().unwrap().contains("3 x ticker"));
/// # drop((forgotten, timeout));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Sources {
    list: Vec<SourceInfo>,
    now: Time,
}

/// The sources that one line made. Made by [`Sources::by_origin`].
///
/// ```
/// use pollmux::Reactor;
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let tick = reactor.every(Duration::from_secs(1))?;
/// let timers: Vec<_> = (0..3).map(|_| reactor.timer()).collect();
/// let sources = reactor.sources();
/// assert!(sources.len() == 4 && !sources.is_empty());
/// let origins = sources.by_origin();
/// assert_eq!((origins.len(), origins[0].sources.len()), (2, 3)); // most sources first
/// # drop((tick, timers));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceOrigin<'a> {
    /// The kind.
    pub kind: Option<SourceKind>,
    /// The creation site.
    pub location: Option<&'static Location<'static>>,
    /// The sources.
    pub sources: Vec<&'a SourceInfo>,
}

impl Handle {
    /// Lists the live sources of this reactor, each with its creation site. For humans and tests,
    /// not for a loop. [`Sources`] has an example.
    ///
    /// # Cost
    /// O(all slots). Allocates.
    pub fn sources(&self) -> Sources {
        let core = &self.core;
        let now = core.clock.now_or_later();
        let table = core.table.borrow();
        let info = |slot: u32| {
            let chunk = table.slots.chunk(slot);
            let node = chunk.node(slot);
            let (location, kind) = (table.sites.location(node.site.get()), node.site.get().kind());
            let timer =
                matches!(kind, SourceKind::Timer | SourceKind::Ticker | SourceKind::Callback);
            let state = node.state.get();
            // The end of a context may be ready without having been due.
            let context = kind == SourceKind::Context && state == State::Armed;
            let pending = context || timer && matches!(state, State::Armed | State::Ready);
            let ticker = kind == SourceKind::Ticker;
            let period = chunk.periods.get(slot).filter(|_| ticker);
            SourceInfo {
                kind: Some(kind),
                location,
                deadline: pending.then(|| Time::from_nanos(node.deadline.get())),
                period: period.map(|period| Duration::from_nanos(period.get())),
                fired: u64::from(node.fired()),
                ready: state == State::Ready,
                spinning: node.is(Flag::Spinning) || state == State::Ready && node.pos.get() == 0,
                key: chunk.key(slot),
                priority: chunk.priority(slot),
                id: (timer && !node.is(Flag::Once))
                    .then(|| core.timer_id(chunk.token(slot), ticker)),
            }
        };
        Sources { list: table.slots.iter().map(info).collect(), now }
    }
}

impl Sources {
    /// Iterates over the sources, in no order. [`SourceInfo`] has an example.
    pub fn iter(&self) -> std::slice::Iter<'_, SourceInfo> {
        self.list.iter()
    }

    /// Returns the number of sources. [`SourceOrigin`] has an example.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there are no sources.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Groups the sources by creation site, the site with the most sources first. [`SourceOrigin`]
    /// has an example.
    pub fn by_origin(&self) -> Vec<SourceOrigin<'_>> {
        let mut origins: Vec<SourceOrigin<'_>> = Vec::new();
        let mut index = HashMap::new();
        for info in &self.list {
            let place = *index.entry((info.location, info.kind)).or_insert_with(|| {
                origins.push(SourceOrigin {
                    kind: info.kind,
                    location: info.location,
                    sources: Vec::new(),
                });
                origins.len() - 1
            });
            origins[place].sources.push(info);
        }
        origins.sort_by_key(|origin| {
            (
                usize::MAX - origin.sources.len(),
                origin.location.map(|l| (l.file(), l.line(), l.column())),
            )
        });
        origins
    }
}

impl<'a> IntoIterator for &'a Sources {
    type Item = &'a SourceInfo;
    type IntoIter = std::slice::Iter<'a, SourceInfo>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.by_origin();
        let s = |n: usize| if n == 1 { "" } else { "s" };
        write!(f, "{} source{} live", self.len(), s(self.len()))?;
        if origins.is_empty() {
            return Ok(());
        }
        write!(f, ", made at {} place{}", origins.len(), s(origins.len()))?;
        origins.iter().try_for_each(|origin| origin.line(f, self.now))
    }
}

impl SourceOrigin<'_> {
    fn line(&self, f: &mut fmt::Formatter<'_>, now: Time) -> fmt::Result {
        let kind = self.kind.map_or_else(|| "source".to_owned(), |kind| kind.to_string());
        write!(f, "\n{:>8} x {kind:<9}", self.sources.len())?;
        match self.location {
            Some(at) => write!(f, " {}:{}:{}", at.file(), at.line(), at.column())?,
            None => f.write_str(" somewhere")?,
        }
        let mut separator = "  ";
        let mut item = |text: String| {
            write!(f, "{separator}{text}")?;
            separator = ", ";
            fmt::Result::Ok(())
        };
        let periods = self.sources.iter().filter_map(|source| source.period);
        if let (Some(least), Some(most)) = (periods.clone().min(), periods.max()) {
            item(if least == most {
                format!("period {least:?}")
            } else {
                format!("periods {least:?} to {most:?}")
            })?;
        }
        if let Some(next) = self.sources.iter().filter_map(|source| source.deadline).min() {
            item(match next {
                Time::MAX => "never due".to_owned(),
                next if next <= now => format!("due for {:?}", now - next),
                next => format!("due in {:?}", next - now),
            })?;
        }
        let ready = self.sources.iter().filter(|source| source.ready).count();
        if ready > 0 {
            item(if self.sources.len() == 1 {
                "ready".to_owned()
            } else {
                format!("{ready} ready")
            })?;
        }
        let spinning = self.sources.iter().filter(|source| source.spinning).count();
        if spinning > 0 {
            let all = self.sources.len() == 1;
            item(if all { "spinning".to_owned() } else { format!("{spinning} spinning") })?;
        }
        let fired: u64 = self.sources.iter().map(|source| source.fired).sum();
        if fired > 0 {
            item(format!("fired {fired} time{}", if fired == 1 { "" } else { "s" }))?;
        }
        Ok(())
    }
}
