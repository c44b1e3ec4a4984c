//! `SimWorld`: several reactors on threads of their own, in one virtual time, the same way every time.
//!
//! The turns are taken in `driver/world.rs`. Here is what a user sees of it: members, the links between them, and what can go wrong with both.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::io;
use std::ops::{Deref, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::channel::Sender;
use crate::driver::{Baton, Clock, End, MemberDriver};
use crate::reactor::Reactor;
use crate::sys::{Time, nanos};

/// A world of several reactors in virtual time: a week of heartbeats, retries, losses and partitions in milliseconds, and for one seed always the same.
///
/// Each member is a thread with a [`Reactor`] of its own, and runs the code that it runs outside: a `select!` loop. One of them runs at a time; when its reactor blocks the next
/// one does, and when nobody can go on, the clock, which they share, jumps to the next deadline or message. Channels, notifiers and contexts
/// between members work as ever, and at once; [`link`](WorldHandle::link) puts a network with delays and losses before a channel.
///
/// It derefs to [`WorldHandle`], which has everything but the runs. Dropping the world kills its members.
///
/// ```
/// use pollmux::{SimWorld, channel, select};
/// use std::time::Duration;
///
/// let mut world = SimWorld::new(1);
/// let (to_server, requests) = channel::unbounded();
/// let (to_client, replies) = channel::unbounded();
/// let ms = Duration::from_millis;
/// let to_server = world.link("client", "server", to_server).with_delay(ms(5)..=ms(50)).with_loss(0.3);
/// let to_client = world.link("server", "client", to_client).with_delay(ms(5)..=ms(50)).with_loss(0.3);
///
/// world.spawn("server", move |reactor| {
///     let requests = reactor.register(requests).unwrap();
///     loop {
///         select! { reactor;
///             recv(requests) -> request => match request {
///                 Ok(n) => to_client.send(n * 2),
///                 Err(_) => break, // the client has gone
///             }
///         }
///     }
/// });
/// let client = world.spawn("client", move |reactor| {
///     let replies = reactor.register(replies).unwrap();
///     let retry = reactor.every(Duration::from_secs(1)).unwrap();
///     to_server.send(21);
///     loop {
///         select! { reactor;
///             recv(replies) -> reply => return reply.unwrap(),
///             recv(retry) -> _ => to_server.send(21), // lost, there or back
///         }
///     }
/// });
/// world.run()?;
/// assert_eq!(client.take(), Some(42));
/// # Ok::<(), pollmux::Deadlock>(())
/// ```
///
/// # What a seed decides
/// Who goes first of those that can go on at the same time; what is lost, and how long the rest takes; and the choices among ready cases in the reactors
/// of [`spawn`](WorldHandle::spawn). What is left for the code under test to keep to: no clock but the reactor's, no randomness but from a seed of its own, no other threads.
///
/// # What a member may not do
/// Block outside of its reactor: the bare ends of a channel panic where they would (`send`, `recv` and their kin; what need not wait works). Nor spin: a loop that never
/// blocks in its reactor never lets go.
///
/// A killed member unwinds, as those do that are left when the world is dropped: where a panic aborts, so does a kill.
///
/// # Cost
/// A thread for each member. When the turn goes to another member, two context switches, about 10 µs; when it stays, some 100 ns.
pub struct SimWorld {
    handle: WorldHandle,
}

/// Everything of a [`SimWorld`] but the runs; a value that is cheap to clone and goes to any thread, for instance to a member that makes trouble.
#[derive(Clone)]
pub struct WorldHandle {
    shared: Arc<Shared>,
}

struct Shared {
    baton: Arc<Baton>,
    network: Mutex<Network>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Network {
    links: Vec<Wire>,
    /// From, to.
    cuts: BTreeSet<(Arc<str>, Arc<str>)>,
    /// The part of the network that a member is in; those not named are in part 0.
    parts: BTreeMap<Arc<str>, usize>,
}

/// A link, as the network knows it.
struct Wire {
    from: Arc<str>,
    to: Arc<str>,
    delay: RangeInclusive<Duration>,
    loss: f64,
    reordering: bool,
    /// When the message sent last arrives.
    last: Time,
    counts: LinkStats,
}

/// What became of the messages of a [`Link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// All that were sent.
    pub sent: u64,
    /// Those that went into the channel.
    pub delivered: u64,
    /// Those that chance, a cut or a partition took, and those that found the channel full or its receiver gone.
    pub lost: u64,
}

impl LinkStats {
    /// Those that are still on the way.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.delivered - self.lost
    }
}

/// What a [`SimWorld`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldStats {
    /// How often the turn went to another thread.
    pub handovers: u64,
    /// The messages of all links together.
    pub links: LinkStats,
}

impl Network {
    fn is_open(&self, from: &Arc<str>, to: &Arc<str>) -> bool {
        let part = |name| self.parts.get(name).copied().unwrap_or(0);
        part(from) == part(to) && (self.cuts.is_empty() || !self.cuts.contains(&(from.clone(), to.clone())))
    }

    /// The name as it is known here.
    fn name(&self, name: &str) -> Option<Arc<str>> {
        self.links.iter().flat_map(|wire| [&wire.from, &wire.to]).find(|known| &***known == name).cloned()
    }
}

impl SimWorld {
    /// An empty world whose clock says [`Time::ZERO`].
    pub fn new(seed: u64) -> SimWorld {
        SimWorld::starting_at(seed, Time::ZERO)
    }

    /// An empty world whose clock says `t`.
    pub fn starting_at(seed: u64, t: Time) -> SimWorld {
        let shared = Shared {
            baton: Arc::new(Baton::new(seed, t)),
            network: Mutex::default(),
            threads: Mutex::default(),
        };
        SimWorld { handle: WorldHandle { shared: Arc::new(shared) } }
    }

    /// A handle, for a member that makes trouble.
    pub fn handle(&self) -> WorldHandle {
        self.handle.clone()
    }

    /// Runs until every member has returned. Fails when the rest wait for what cannot come: nothing is due anywhere.
    ///
    /// After a [`Deadlock`] everything stands as it was: messages may be sent, links mended, members killed, and the world run on.
    ///
    /// # Panics
    /// With what a member panics with.
    pub fn run(&mut self) -> Result<(), Deadlock> {
        self.run_until(Time::MAX)
    }

    /// Runs for `d` of virtual time, and leaves the members where they are then. As [`run`](Self::run) does it ends before, when every member has returned or nothing is due anywhere.
    pub fn run_for(&mut self, d: Duration) -> Result<(), Deadlock> {
        self.run_until(self.now() + d)
    }

    /// [`run_for`](Self::run_for) until the clock says `t`; what is due at `t` runs.
    pub fn run_until(&mut self, t: Time) -> Result<(), Deadlock> {
        match self.shared.baton.run(t) {
            End::Over | End::Limit => Ok(()),
            End::Deadlock(waiting) => Err(self.deadlock(waiting)),
            End::Panic(cause) => std::panic::resume_unwind(cause),
        }
    }

    fn deadlock(&self, waiting: Vec<(Arc<str>, Time)>) -> Deadlock {
        let network = self.shared.network();
        let waiting = waiting
            .into_iter()
            .map(|(member, until)| WaitingMember {
                deadline: (until < Time::MAX).then_some(until),
                links: network
                    .links
                    .iter()
                    .filter(|wire| wire.to == member)
                    .map(|wire| (wire.from.to_string(), wire.counts))
                    .collect(),
                member: member.to_string(),
            })
            .collect();
        Deadlock { at: self.now(), waiting }
    }
}

impl Drop for SimWorld {
    fn drop(&mut self) {
        self.shared.baton.close();
        for thread in std::mem::take(&mut *self.shared.threads()) {
            let _ = thread.join(); // what it panicked with was told by the run
        }
    }
}

impl Deref for SimWorld {
    type Target = WorldHandle;
    fn deref(&self) -> &WorldHandle {
        &self.handle
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorld")
            .field("now", &self.now())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WorldHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorldHandle").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Shared {
    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorldHandle {
    /// The virtual time, the same for all members.
    pub fn now(&self) -> Time {
        self.shared.baton.clock().now()
    }

    /// The clock, for instance for a [`Context`](crate::Context) made outside of the members.
    pub fn clock(&self) -> Clock {
        Clock::Virtual(self.shared.baton.clock().clone())
    }

    /// Counts.
    pub fn stats(&self) -> WorldStats {
        let mut links = LinkStats::default();
        for wire in &self.shared.network().links {
            links.sent += wire.counts.sent;
            links.delivered += wire.counts.delivered;
            links.lost += wire.counts.lost;
        }
        WorldStats { handovers: self.shared.baton.handovers(), links }
    }

    /// Adds a member: `body` runs on a thread of its own, with a reactor in this world's time, when its turn comes in a run.
    ///
    /// # Panics
    /// When a member of this name is still running, or the world has been dropped. After the member's end the name may be used again: a restart.
    #[track_caller]
    pub fn spawn<R: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce(Reactor) -> R + Send + 'static,
    ) -> Member<R> {
        let seed = self.shared.baton.random();
        self.spawn_with_driver(name, move |driver| {
            let reactor = Reactor::with_driver(driver).expect("a reactor on a virtual clock needs nothing");
            reactor.seed(seed);
            body(reactor)
        })
    }

    /// [`spawn`](Self::spawn) for a member that makes its reactor itself. Give it a [`seed`](crate::Handle::seed), too.
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn) does.
    #[track_caller]
    pub fn spawn_with_driver<R: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce(MemberDriver) -> R + Send + 'static,
    ) -> Member<R> {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let spawned = self.shared.baton.spawn(name, move |driver| {
            let value = body(driver);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        let Some(thread) = spawned else { panic!("pollmux: a member `{name}` is running already") };
        self.shared.threads().push(thread);
        Member { result }
    }

    /// Ends a member as a crash would: where it waits, it unwinds, and what it holds is dropped. Nothing is printed. Returns whether one of this name was running.
    ///
    /// Called between runs it has happened when the call returns; called by a member, as soon as that member blocks.
    ///
    /// # Panics
    /// Between runs, with what the member panics with on its way out.
    pub fn kill(&self, name: &str) -> bool {
        self.shared.baton.kill(|member| member == name) > 0
    }

    /// A link from one member to another: what is sent through it goes into the channel of `to_channel`, after a delay and if nothing happens to it.
    ///
    /// Without further words the delay is zero, nothing is lost, and the order is kept. A message that finds the channel full is lost, as in a socket's buffer: take
    /// [`unbounded`](crate::channel::unbounded), or one that is large enough. The names are those that [`partition`](Self::partition) and its kin use; the members may come later.
    /// The receiver finds itself disconnected when the link, its clones and what is on the way are gone.
    pub fn link<T: Send + 'static>(&self, from: &str, to: &str, to_channel: Sender<T>) -> Link<T> {
        let mut network = self.shared.network();
        let name = |name: &str| network.name(name).unwrap_or_else(|| name.into());
        let wire = Wire {
            from: name(from),
            to: name(to),
            delay: Duration::ZERO..=Duration::ZERO,
            loss: 0.0,
            reordering: false,
            last: Time::ZERO,
            counts: LinkStats::default(),
        };
        network.links.push(wire);
        Link {
            shared: self.shared.clone(),
            number: network.links.len() - 1,
            channel: Arc::new(Mutex::new(to_channel)),
        }
    }

    /// Parts the network: nothing goes from one group to another, until [`heal`](Self::heal) or another partition. The members not named are one more group. What is on the way is lost.
    ///
    /// ```
    /// # let world = pollmux::SimWorld::new(1);
    /// # for name in ["b", "c"] { world.link("a", name, pollmux::channel::unbounded::<()>().0); }
    /// world.partition(&[&["a"]]); // a alone, and the rest
    /// world.partition(&[&["a", "b"], &["c"]]);
    /// world.heal();
    /// ```
    ///
    /// # Panics
    /// When a name is neither that of a member nor that of the end of a link.
    #[track_caller]
    pub fn partition(&self, groups: &[&[&str]]) {
        let mut parts = BTreeMap::new();
        for (at, group) in groups.iter().enumerate() {
            for name in group.iter() {
                parts.insert(self.known(name), at + 1);
            }
        }
        self.shared.network().parts = parts;
    }

    /// Cuts the links from one member to another, in this direction; what is on the way is lost.
    ///
    /// # Panics
    /// As [`partition`](Self::partition) does.
    #[track_caller]
    pub fn cut(&self, from: &str, to: &str) {
        let cut = (self.known(from), self.known(to));
        self.shared.network().cuts.insert(cut);
    }

    /// Mends what [`cut`](Self::cut) has cut.
    ///
    /// # Panics
    /// As [`partition`](Self::partition) does.
    #[track_caller]
    pub fn mend(&self, from: &str, to: &str) {
        let cut = (self.known(from), self.known(to));
        self.shared.network().cuts.remove(&cut);
    }

    /// Ends the partition and mends all cuts. Delays and losses of the links stay.
    pub fn heal(&self) {
        let mut network = self.shared.network();
        network.parts.clear();
        network.cuts.clear();
    }

    #[track_caller]
    fn known(&self, name: &str) -> Arc<str> {
        let linked = self.shared.network().name(name);
        match linked {
            Some(name) => name,
            None if self.shared.baton.knows(name) => name.into(),
            None => panic!("pollmux: there is no member and no link's end `{name}` in this world"),
        }
    }
}

/// What a member comes to; made by [`WorldHandle::spawn`].
pub struct Member<R> {
    result: Arc<Mutex<Option<R>>>,
}

impl<R> Member<R> {
    /// What the member has returned, once. `None` while it runs, after it was killed, and the second time.
    pub fn take(&self) -> Option<R> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R> fmt::Debug for Member<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").finish_non_exhaustive()
    }
}

/// A network between two members of a [`SimWorld`], in one direction; made by [`WorldHandle::link`].
///
/// Clones are the same link. What is set here may be set again while the world runs, and holds for what is sent from then on.
pub struct Link<T> {
    shared: Arc<Shared>,
    number: usize,
    channel: Arc<Mutex<Sender<T>>>,
}

impl<T: Send + 'static> Link<T> {
    /// Each message takes a time in this range, all equally likely. (Longer than the one before it, if that would overtake it.)
    ///
    /// # Panics
    /// When the range is empty.
    #[track_caller]
    pub fn with_delay(self, delay: RangeInclusive<Duration>) -> Link<T> {
        self.set_delay(delay);
        self
    }

    /// Each message is lost with this probability.
    ///
    /// # Panics
    /// When it is not between 0 and 1.
    #[track_caller]
    pub fn with_loss(self, probability: f64) -> Link<T> {
        self.set_loss(probability);
        self
    }

    /// Messages overtake each other, as their delays will have it.
    pub fn with_reordering(self) -> Link<T> {
        self.set_reordering(true);
        self
    }

    /// [`with_delay`](Self::with_delay), later.
    ///
    /// # Panics
    /// When the range is empty.
    #[track_caller]
    pub fn set_delay(&self, delay: RangeInclusive<Duration>) {
        assert!(!delay.is_empty(), "pollmux: the range of a link's delay is empty: {delay:?}");
        self.wire(|wire| wire.delay = delay);
    }

    /// [`with_loss`](Self::with_loss), later.
    ///
    /// # Panics
    /// When it is not between 0 and 1.
    #[track_caller]
    pub fn set_loss(&self, probability: f64) {
        assert!((0.0..=1.0).contains(&probability), "pollmux: a loss of {probability} is no probability");
        self.wire(|wire| wire.loss = probability);
    }

    /// Whether messages may overtake each other.
    pub fn set_reordering(&self, reordering: bool) {
        self.wire(|wire| wire.reordering = reordering);
    }

    /// Sends. Never waits, and does not say what becomes of the message: the sender of a datagram does not know either. [`stats`](Self::stats) does.
    pub fn send(&self, message: T) {
        let baton = &self.shared.baton;
        let arrival = {
            let network = &mut *self.shared.network();
            let open = {
                let wire = &network.links[self.number];
                network.is_open(&wire.from, &wire.to)
            };
            let wire = &mut network.links[self.number];
            wire.counts.sent += 1;
            if !open || happens(wire.loss, baton) {
                wire.counts.lost += 1;
                None
            } else {
                let mut arrival = baton.clock().now() + pick(&wire.delay, baton);
                if !wire.reordering {
                    arrival = arrival.max(wire.last);
                    wire.last = arrival;
                }
                Some(arrival)
            }
        };
        if let Some(arrival) = arrival {
            let link = self.clone();
            baton.post(arrival, Box::new(move || link.deliver(message)));
        }
    }

    /// Puts another channel at the far end, for instance that of a member that has been restarted. What is on the way goes there, too.
    pub fn reconnect(&self, to_channel: Sender<T>) {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *channel, to_channel);
        drop(channel);
        drop(before);
    }

    fn deliver(&self, message: T) {
        let open = {
            let network = self.shared.network();
            let wire = &network.links[self.number];
            network.is_open(&wire.from, &wire.to)
        };
        // Neither the message's drop nor the channel's is any business of a lock.
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let delivered = open && channel.try_send(message).is_ok();
        drop(channel);
        self.wire(|wire| {
            wire.counts.delivered += u64::from(delivered);
            wire.counts.lost += u64::from(!delivered);
        });
    }

    fn wire(&self, change: impl FnOnce(&mut Wire)) {
        change(&mut self.shared.network().links[self.number]);
    }
}

impl<T> Link<T> {
    /// What became of the messages so far.
    pub fn stats(&self) -> LinkStats {
        self.shared.network().links[self.number].counts
    }
}

/// Chance: an event of this probability.
fn happens(probability: f64, baton: &Baton) -> bool {
    // 53 bits are what a float holds exactly.
    probability > 0.0 && ((baton.random() >> 11) as f64) < probability * (1u64 << 53) as f64
}

fn pick(range: &RangeInclusive<Duration>, baton: &Baton) -> Duration {
    let (least, most) = (nanos(*range.start()), nanos(*range.end()));
    if least == most {
        return *range.start();
    }
    let width = u128::from(most - least) + 1;
    Duration::from_nanos(least + ((u128::from(baton.random()) * width) >> 64) as u64)
}

impl<T> Clone for Link<T> {
    fn clone(&self) -> Link<T> {
        Link { shared: self.shared.clone(), number: self.number, channel: self.channel.clone() }
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
            .finish()
    }
}

/// Nothing is due anywhere in a [`SimWorld`]: no deadline, no message on its way; and these members wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// When.
    pub at: Time,
    /// Who waits, in the order in which they were spawned.
    pub waiting: Vec<WaitingMember>,
}

/// A member of a world that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingMember {
    /// Its name.
    pub member: String,
    /// What its reactor has armed: never, or it would be due.
    pub deadline: Option<Time>,
    /// The links that end at it: from where, and what became of the messages.
    pub links: Vec<(String, LinkStats)>,
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.at - Time::ZERO;
        write!(f, "deadlock in virtual time, at {since:?}: nothing is due anywhere")?;
        for WaitingMember { member, deadline, links } in &self.waiting {
            write!(f, "\n  {member} waits for a wake-up")?;
            match deadline {
                Some(deadline) => write!(f, ", or {deadline:?}")?,
                None => write!(f, ", without a deadline")?,
            }
            for (from, LinkStats { sent, delivered, lost }) in links {
                write!(f, "; from {from}: {sent} sent, {delivered} delivered, {lost} lost")?;
            }
        }
        Ok(())
    }
}

impl Error for Deadlock {}

impl From<Deadlock> for io::Error {
    /// Of the kind [`Deadlock`](io::ErrorKind::Deadlock).
    fn from(deadlock: Deadlock) -> io::Error {
        io::Error::new(io::ErrorKind::Deadlock, deadlock)
    }
}
