//! The network of a world: links that delay, lose, duplicate and reorder, and their faults.
//!
//! Longer than 500 lines: more than a hundred of them are docs with examples.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::history::{Happening, Parcel};
use super::member::misuse;
use super::scheduler::{Delivery, Fate, Scheduler, quietly};
use super::world::Shared;
use crate::channel::Sender;
use crate::sync::Mutex;
use crate::sys::{Time, nanos};

/// A direction: from, to.
type Way = (Arc<str>, Arc<str>);

#[derive(Default)]
pub(super) struct Network {
    pub(super) links: Vec<Wire>,
    /// The ways that lose all messages.
    pub(super) cuts: BTreeSet<Way>,
    /// The ways that hold all messages.
    pub(super) holds: BTreeSet<Way>,
    /// The part of the network with each member. Members without an entry are in part 0.
    pub(super) parts: BTreeMap<Arc<str>, usize>,
}

/// The state of a link in the network.
pub(super) struct Wire {
    pub(super) from: Arc<str>,
    pub(super) to: Arc<str>,
    delay: RangeInclusive<Duration>,
    loss: f64,
    duplication: f64,
    reordering: bool,
    /// The probability that a message is late, and the range of its delay.
    late: (f64, RangeInclusive<Duration>),
    /// The arrival of the last sent message, and its random number among simultaneous arrivals.
    last: (Time, u64),
    pub(super) counts: LinkStats,
    /// The messages that arrived while the way was held, or behind a held message.
    held: VecDeque<Delivery>,
}

/// The counts of the messages of a [`Link`], which has an example. Made by [`Link::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// All messages that were sent.
    pub sent: u64,
    /// Messages that went into the channel.
    pub delivered: u64,
    /// Messages that chance, a cut or a partition took, and those that found the channel full or
    /// its receiver gone.
    pub lost: u64,
}

impl LinkStats {
    /// Messages that are still on the way.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.delivered - self.lost
    }
}

impl Wire {
    pub(super) fn new(from: Arc<str>, to: Arc<str>) -> Wire {
        Wire {
            from,
            to,
            delay: Duration::ZERO..=Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: false,
            late: (0.0, Duration::ZERO..=Duration::ZERO),
            last: (Time::ZERO, 0),
            counts: LinkStats::default(),
            held: VecDeque::new(),
        }
    }

    fn way(&self) -> Way {
        (self.from.clone(), self.to.clone())
    }

    /// Returns the arrival of a message that is sent now, and its random number among simultaneous
    /// arrivals.
    fn arrival(&mut self, scheduler: &Scheduler) -> (Time, u64) {
        let at = scheduler.clock().now() + pick(&self.delay, scheduler);
        if happens(self.late.0, scheduler) {
            return (at + pick(&self.late.1, scheduler), scheduler.choice().unwrap_or(0));
        }
        let number = scheduler.choice().unwrap_or(0);
        if self.reordering {
            return (at, number);
        }
        let (last, tie) = self.last;
        self.last = match at > last {
            true => (at, number),
            // The message comes after the one before it, in any order with messages of other links.
            false => (last, tie.saturating_add(number % (u64::MAX - tie).max(1))),
        };
        self.last
    }
}

impl Network {
    fn is_open(&self, wire: &Wire) -> bool {
        let part = |name| self.parts.get(name).copied().unwrap_or(0);
        part(&wire.from) == part(&wire.to)
            && (self.cuts.is_empty() || !self.cuts.contains(&wire.way()))
    }

    fn is_held(&self, wire: &Wire) -> bool {
        !self.holds.is_empty() && self.holds.contains(&wire.way())
    }

    /// Returns the shared copy of a known name.
    pub(super) fn name(&self, name: &str) -> Option<Arc<str>> {
        self.links
            .iter()
            .flat_map(|wire| [&wire.from, &wire.to])
            .find(|known| &***known == name)
            .cloned()
    }

    /// Takes the messages on ways that are no longer open. The caller must settle them as lost.
    pub(super) fn recall(&mut self, scheduler: &Scheduler) -> Vec<Delivery> {
        let shut: Vec<bool> = self.links.iter().map(|wire| !self.is_open(wire)).collect();
        let mut lost = scheduler.recall(|link| shut[link]);
        for (wire, _) in self.links.iter_mut().zip(&shut).filter(|(_, shut)| **shut) {
            lost.extend(wire.held.drain(..));
        }
        lost
    }

    /// Returns each link that has held messages and is no longer held, once for each message. Each
    /// has a random number for an arrival now.
    pub(super) fn released(&self, scheduler: &Scheduler) -> Vec<(usize, u64)> {
        let free = self.links.iter().enumerate().filter(|(_, wire)| !self.is_held(wire));
        let messages = free.flat_map(|(link, wire)| wire.held.iter().map(move |_| link));
        messages.map(|link| (link, scheduler.choice().unwrap_or(0))).collect()
    }

    /// Takes the first message that a link has held, if the link is no longer held.
    pub(super) fn next_released(&mut self, link: usize) -> Option<Delivery> {
        if self.is_held(&self.links[link]) { None } else { self.links[link].held.pop_front() }
    }

    pub(super) fn take_held(&mut self) -> Vec<Delivery> {
        self.links.iter_mut().flat_map(|wire| std::mem::take(&mut wire.held)).collect()
    }
}

/// A network between two members of a [`SimWorld`](crate::SimWorld), in one direction. Made by
/// [`WorldHandle::link`](crate::sim::WorldHandle::link).
///
/// Clones are the same link. You may change the settings while the world runs. They hold for
/// messages that are sent from then on.
///
/// ```
/// use pollmux::{SimWorld, channel};
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let mut world = SimWorld::new(1);
/// let (tx, rx) = channel::unbounded();
/// let link = world
///     .link("a", "b", tx)
///     .with_delay(ms(5)..=ms(20))
///     .with_loss(0.5) // half of the messages
///     .with_late(0.1, ms(100)..=ms(200)) // one in ten takes longer
///     .with_duplicates(0.1)
///     .with_reordering()
///     .with_text(); // for the history
/// let sender = link.clone();
/// world.spawn("a", move |reactor| {
///     (0..100).for_each(|n| sender.send(n));
///     reactor.sleep_blocking(ms(1_000)).unwrap();
///     sender.set_loss(0.0);
///     sender.send(100);
/// });
/// world.run()?;
/// let stats = link.stats();
/// let arrived: Vec<_> = rx.try_iter().collect();
/// assert_eq!(arrived.last(), Some(&100));
/// assert_eq!((stats.delivered as usize, stats.in_flight()), (arrived.len(), 0));
/// assert_eq!(stats.sent, stats.delivered + stats.lost);
/// # Ok::<(), pollmux::sim::Deadlock>(())
/// ```
#[must_use = "dropping the last link to a channel disconnects it"]
pub struct Link<T> {
    shared: Arc<Shared>,
    number: usize,
    end: Arc<FarEnd<T>>,
}

struct FarEnd<T> {
    channel: Mutex<Sender<T>>,
    copy: OnceLock<fn(&T) -> T>,
    text: OnceLock<fn(&T) -> String>,
}

impl<T: Send + 'static> Link<T> {
    pub(super) fn new(shared: Arc<Shared>, number: usize, channel: Sender<T>) -> Link<T> {
        let end =
            FarEnd { channel: Mutex::new(channel), copy: OnceLock::new(), text: OnceLock::new() };
        Link { shared, number, end: Arc::new(end) }
    }

    /// Sets the time that each message takes: any time in this range, with the same probability. (A
    /// message takes longer if it would overtake another.)
    ///
    /// # Panics
    /// When the range is empty.
    #[track_caller]
    pub fn with_delay(self, delay: RangeInclusive<Duration>) -> Link<T> {
        self.set_delay(delay);
        self
    }

    /// Sets the probability with which a message is lost.
    ///
    /// # Panics
    /// When it is not between 0 and 1.
    #[track_caller]
    pub fn with_loss(self, probability: f64) -> Link<T> {
        self.set_loss(probability);
        self
    }

    /// Lets messages overtake each other if their delays differ.
    pub fn with_reordering(self) -> Link<T> {
        self.set_reordering(true);
        self
    }

    /// Sets the probability with which a message is late. A late message takes an additional time
    /// in the range `by`, and later messages overtake it.
    ///
    /// # Panics
    /// When the probability is not between 0 and 1, or the range is empty.
    #[track_caller]
    pub fn with_late(self, probability: f64, by: RangeInclusive<Duration>) -> Link<T> {
        self.set_late(probability, by);
        self
    }

    /// Sets the probability with which a message comes twice. The copy takes a time of its own, may
    /// be lost, and counts as sent.
    ///
    /// # Panics
    /// When the probability is not between 0 and 1.
    #[track_caller]
    pub fn with_duplicates(self, probability: f64) -> Link<T>
    where
        T: Clone,
    {
        self.set_duplicates(probability);
        self
    }

    /// Shows the messages in the [history](crate::sim::WorldHandle::history) by their `Debug`.
    pub fn with_text(self) -> Link<T>
    where
        T: fmt::Debug,
    {
        let _ = self.end.text.set(|message| format!("{message:?}"));
        self
    }

    /// Changes the [delay](Self::with_delay).
    ///
    /// # Panics
    /// When the range is empty.
    #[track_caller]
    pub fn set_delay(&self, delay: RangeInclusive<Duration>) {
        if is_range(&delay) {
            self.wire(|wire| wire.delay = delay);
        }
    }

    /// Changes the [loss](Self::with_loss).
    ///
    /// # Panics
    /// When it is not between 0 and 1.
    #[track_caller]
    pub fn set_loss(&self, probability: f64) {
        if is_probability("loss", probability) {
            self.wire(|wire| wire.loss = probability);
        }
    }

    /// Switches the [reordering](Self::with_reordering) on or off.
    pub fn set_reordering(&self, reordering: bool) {
        self.wire(|wire| wire.reordering = reordering);
    }

    /// Changes the [lateness](Self::with_late).
    ///
    /// # Panics
    /// When the probability is not between 0 and 1, or the range is empty.
    #[track_caller]
    pub fn set_late(&self, probability: f64, by: RangeInclusive<Duration>) {
        if is_probability("lateness", probability) && is_range(&by) {
            self.wire(|wire| wire.late = (probability, by));
        }
    }

    /// Changes the [duplicates](Self::with_duplicates).
    ///
    /// # Panics
    /// When the probability is not between 0 and 1.
    #[track_caller]
    pub fn set_duplicates(&self, probability: f64)
    where
        T: Clone,
    {
        if is_probability("duplication", probability) {
            let _ = self.end.copy.set(T::clone);
            self.wire(|wire| wire.duplication = probability);
        }
    }

    /// Sends a message. Never waits, and does not report the fate of the message, as with a
    /// datagram. [`stats`](Self::stats) counts the fates.
    ///
    /// A lost message is dropped in the turn that loses it. A panic of that drop goes no further.
    /// When the world is gone the call drops the message.
    pub fn send(&self, message: T) {
        let scheduler = &self.shared.scheduler;
        if scheduler.is_closed() {
            return quietly(|| drop(message));
        }
        let duplication = self.shared.network().links[self.number].duplication;
        let copy = self.end.copy.get().filter(|_| happens(duplication, scheduler));
        let copy = copy.map(|copy| copy(&message));
        self.send_one(message);
        if let Some(copy) = copy {
            self.send_one(copy);
        }
    }

    fn send_one(&self, message: T) {
        let scheduler = &self.shared.scheduler;
        let (parcel, arrival) = {
            let network = &mut *self.shared.network();
            let is_open = network.is_open(&network.links[self.number]);
            let wire = &mut network.links[self.number];
            wire.counts.sent += 1;
            let parcel = wire.counts.sent;
            if !is_open {
                (parcel, Err("no way"))
            } else if happens(wire.loss, scheduler) {
                (parcel, Err("by chance"))
            } else {
                (parcel, Ok(wire.arrival(scheduler)))
            }
        };
        scheduler.note(|| Happening::Sent(self.parcel(parcel, &message)));
        match arrival {
            Err(why) => self.lose(parcel, message, why),
            Ok((at, tie)) => scheduler.post(at, tie, self.delivery(parcel, message)),
        }
    }

    fn delivery(&self, number: u64, message: T) -> Delivery {
        let link = self.clone();
        Delivery {
            link: self.number,
            settle: Box::new(move |fate| link.settle(number, message, fate)),
        }
    }

    fn settle(self, number: u64, message: T, fate: Fate) {
        if fate == Fate::Lost {
            return self.lose(number, message, "on its way");
        }
        let mut message = Some(message);
        if fate == Fate::Arrives {
            let network = &mut *self.shared.network();
            let is_held = network.is_held(&network.links[self.number]);
            let wire = &mut network.links[self.number];
            // The message waits behind released messages that have not arrived, which take its
            // place.
            if is_held || !wire.held.is_empty() && !wire.reordering {
                let waiting = message.take().map(|message| self.delivery(number, message));
                wire.held.extend(waiting);
            }
        }
        let Some(message) = message else { return self.shared.deliver_released(self.number) };
        let scheduler = &self.shared.scheduler;
        let parcel = scheduler.is_recording().then(|| self.parcel(number, &message));
        // The message and the channel are dropped without the lock.
        let channel = self.end.channel.lock().clone();
        match channel.try_send(message) {
            Ok(()) => {
                self.wire(|wire| wire.counts.delivered += 1);
                if let Some(parcel) = parcel {
                    scheduler.note(|| Happening::Delivered(parcel));
                }
            }
            Err(refused) => {
                let why = if channel.is_disconnected() { "no receiver" } else { "no room" };
                self.lose(number, refused.into_inner(), why);
            }
        }
    }

    fn lose(&self, number: u64, message: T, why: &'static str) {
        self.wire(|wire| wire.counts.lost += 1);
        self.shared.scheduler.note(|| Happening::Lost(self.parcel(number, &message), why));
        quietly(|| drop(message));
    }

    /// Returns the name of a message for the history.
    fn parcel(&self, number: u64, message: &T) -> Parcel {
        let text = self.end.text.get().map(|text| text(message).into());
        let network = self.shared.network();
        let wire = &network.links[self.number];
        Parcel { from: wire.from.clone(), to: wire.to.clone(), link: self.number, number, text }
    }

    /// Puts another channel at the far end, for instance the channel of a restarted member.
    /// Messages on the way go there, too.
    pub fn reconnect(&self, to_channel: Sender<T>) {
        let mut channel = self.end.channel.lock();
        let before = std::mem::replace(&mut *channel, to_channel);
        drop(channel);
        drop(before);
    }

    fn wire(&self, change: impl FnOnce(&mut Wire)) {
        change(&mut self.shared.network().links[self.number]);
    }
}

impl<T> Link<T> {
    /// The counts of the messages so far.
    pub fn stats(&self) -> LinkStats {
        self.shared.network().links[self.number].counts
    }
}

#[track_caller]
fn is_probability(of: &str, probability: f64) -> bool {
    let is = (0.0..=1.0).contains(&probability);
    if !is {
        misuse(&format!("a {of} of {probability} is no probability, at {}", Location::caller()));
    }
    is
}

#[track_caller]
fn is_range(range: &RangeInclusive<Duration>) -> bool {
    if range.is_empty() {
        misuse(&format!(
            "the range of a link's delay is empty: {range:?}, at {}",
            Location::caller()
        ));
    }
    !range.is_empty()
}

/// Returns true with this probability.
fn happens(probability: f64, scheduler: &Scheduler) -> bool {
    // A float holds 53 bits exactly.
    let below = |random: u64| ((random >> 11) as f64) < probability * (1u64 << 53) as f64;
    probability >= 1.0 || probability > 0.0 && scheduler.choice().is_some_and(below)
}

fn pick(range: &RangeInclusive<Duration>, scheduler: &Scheduler) -> Duration {
    let (least, most) = (nanos(*range.start()), nanos(*range.end()));
    if least == most {
        return *range.start();
    }
    let width = u128::from(most - least) + 1;
    let random = scheduler.choice().unwrap_or(0);
    Duration::from_nanos(least + ((u128::from(random) * width) >> 64) as u64)
}

impl<T> Clone for Link<T> {
    fn clone(&self) -> Link<T> {
        Link { shared: self.shared.clone(), number: self.number, end: self.end.clone() }
    }
}

impl<T> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.shared.network();
        let wire = &network.links[self.number];
        f.debug_struct("Link")
            .field("from", &wire.from)
            .field("to", &wire.to)
            .field("delay", &wire.delay)
            .field("loss", &wire.loss)
            .field("reordering", &wire.reordering)
            .field("counts", &wire.counts)
            .finish_non_exhaustive()
    }
}
