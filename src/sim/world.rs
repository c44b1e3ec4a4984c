//! The public methods of a world for members, restarts and runs.
//!
//! Longer than 500 lines: more than a hundred of them are docs with examples.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::deadlock::{Deadlock, WaitingMember};
use super::history::History;
use super::member::{Life, MemberDriver, misuse, set_reactor};
use super::network::{LinkStats, Network};
use super::scheduler::{End, Fate, Scheduler, Stuck, quietly};
use crate::driver::Clock;
use crate::reactor::Reactor;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::Time;

/// Several reactors in one virtual time: a week of heartbeats, retries, losses and partitions in
/// milliseconds, and for one seed always the same.
///
/// Each member is a thread with a [`Reactor`] of its own, and runs the same `select!` loop as
/// outside. One member runs at a time. When its reactor blocks the next member runs. When no member
/// can go on, their common clock jumps to the next deadline or message. Channels, notifiers and
/// contexts between members work as ever, and at once. [`link`](WorldHandle::link) puts a network
/// with delays and losses before a channel.
///
/// The world derefs to [`WorldHandle`], which has everything but the runs. Dropping it kills its
/// members.
///
/// ```
/// use pollmux::{SimWorld, channel, select};
/// use std::time::Duration;
///
/// let mut world = SimWorld::new(1);
/// let (to_server, requests) = channel::unbounded();
/// let (to_client, replies) = channel::unbounded();
/// let ms = Duration::from_millis;
/// let delay = ms(5)..=ms(50);
/// let to_server =
///     world.link("client", "server", to_server).with_delay(delay.clone()).with_loss(0.3);
/// let to_client = world.link("server", "client", to_client).with_delay(delay).with_loss(0.3);
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
/// # Ok::<(), pollmux::sim::Deadlock>(())
/// ```
///
/// # What a seed decides
/// - The order of the members that can go on at one instant, and of a message that arrives at that
///   instant among them.
/// - The order of messages that arrive at one instant. A link keeps the order of its own messages.
/// - The losses, delays and duplicates of messages.
/// - The choices among ready cases in the reactors of [`spawn`](WorldHandle::spawn).
///
/// One seed makes one history, also when members panic, are killed, or have thread-locals whose
/// drops send. Three things break this rule: a real clock (`Instant::now`), other randomness (the
/// order of a `HashMap`), and other threads. That includes threads that call the world during a
/// run.
///
/// # What a member may not do
/// - **Block outside of its reactor.** A bare end of a channel panics where it would block (`send`,
///   `recv` and their kin). A second reactor on real time fails where it would sleep. Both errors
///   name the member and the line. The world does not see a lock, a `std` channel or
///   `thread::sleep`.
/// - **Spin.** A loop that never calls its reactor keeps the turn for ever. A loop of polls
///   (`default`, waits of zero) lets others run, but no time passes meanwhile. After a million
///   polls at one instant it panics.
///
/// # Kills
/// A killed member unwinds where it waits. So do the members that are left when the world is
/// dropped. Where a panic aborts, so does a kill. While a member unwinds, its drops may do
/// everything but wait:
/// - `wait`, `sleep_blocking` and a `select!` with an `error` case get an error at once.
/// - A bare `send` or `recv` that would block fails at once. `spawn` of a name in use does nothing.
/// - A `select!` without an `error` case cannot go on, and a panic would abort the process. So its
///   thread sleeps for ever with all that it holds. For the world the member has ended.
///
/// A member that catches its unwinding unwinds again where it waits next. After a hundred times its
/// thread is left asleep, and the run (or the `kill`) panics with a text that names the member.
///
/// # Cost
/// A thread for each member that has begun. Two context switches when the turn goes to another
/// member, and some 130 ns when it stays. Members that have ended cost nothing but their names.
#[must_use = "dropping the world kills its members"]
pub struct SimWorld {
    handle: WorldHandle,
}

/// A handle of a [`SimWorld`], which has all methods but the runs. It is cheap to clone, and for
/// any thread: for instance for a member that injects faults.
///
/// ```
/// use pollmux::{SimWorld, channel, select};
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let mut world = SimWorld::new(7);
/// world.record(); // for the history
/// let (tx, rx) = channel::unbounded();
/// let link = world.link("client", "server", tx).with_delay(ms(1)..=ms(9));
/// world.spawn("client", move |reactor| {
///     for n in 0..10 {
///         link.send(n);
///         reactor.sleep_blocking(ms(100)).unwrap();
///     }
/// });
/// let server = world.spawn("server", move |reactor| {
///     let inbox = reactor.register(rx).unwrap();
///     let mut got = 0;
///     loop {
///         select! { reactor; recv(inbox) -> n => match n {
///             Ok(_) => got += 1,
///             Err(_) => return got, // the client has gone
///         }}
///     }
/// });
/// let handle = world.handle();
/// world.spawn("fault", move |reactor| {
///     reactor.sleep_blocking(ms(250)).unwrap();
///     handle.cut("client", "server"); // loses what is sent meanwhile
///     handle.pause("server");
///     reactor.sleep_blocking(ms(300)).unwrap();
///     handle.resume("server");
///     handle.mend("client", "server");
/// });
/// world.run_for(ms(2_000))?;
/// assert_eq!(server.take(), Some(7));
/// assert_eq!((world.stats().links.lost, world.seed()), (3, 7));
/// assert!(world.history().to_string().contains("server"));
/// # Ok::<(), pollmux::sim::Deadlock>(())
/// ```
#[derive(Clone)]
pub struct WorldHandle {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) scheduler: Arc<Scheduler>,
    seed: u64,
    network: Mutex<Network>,
    hosts: Mutex<BTreeMap<Arc<str>, Host>>,
}

/// A function that begins a member that can be restarted.
type Host = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The counts of a [`SimWorld`] so far. [`WorldHandle`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorldStats {
    /// The number of times that the turn went to another thread.
    pub handovers: u64,
    /// The messages of all links together.
    pub links: LinkStats,
}

impl SimWorld {
    /// Makes an empty world whose clock says [`Time::ZERO`].
    pub fn new(seed: u64) -> SimWorld {
        SimWorld::starting_at(seed, Time::ZERO)
    }

    /// Makes an empty world whose clock says `t`.
    pub fn starting_at(seed: u64, t: Time) -> SimWorld {
        SimWorld::with_budget(seed, t, u64::MAX)
    }

    /// Makes an empty world in which the seed makes only the first `choices` choices. After them
    /// the first member that can go on runs, nothing is lost by chance, and delays are the least.
    ///
    /// For a shorter history that [`search`](Self::search) has found.
    ///
    /// ```
    /// use pollmux::SimWorld;
    ///
    /// let mut world = SimWorld::with_choices(7, 3);
    /// world.spawn("member", |_| ());
    /// world.run()?;
    /// assert!(world.choices() <= 3);
    /// # Ok::<(), pollmux::sim::Deadlock>(())
    /// ```
    pub fn with_choices(seed: u64, choices: u64) -> SimWorld {
        SimWorld::with_budget(seed, Time::ZERO, choices)
    }

    fn with_budget(seed: u64, t: Time, budget: u64) -> SimWorld {
        let shared = Shared {
            scheduler: Arc::new(Scheduler::new(seed, t, budget)),
            seed,
            network: Mutex::default(),
            hosts: Mutex::default(),
        };
        SimWorld { handle: WorldHandle { shared: Arc::new(shared) } }
    }

    /// Returns a handle, for a member that injects faults.
    pub fn handle(&self) -> WorldHandle {
        self.handle.clone()
    }

    /// Runs until every member has returned.
    ///
    /// # Errors
    /// A [`Deadlock`] when members wait and nothing is due anywhere. Afterwards you may send
    /// messages, mend links, kill members, and run the world on.
    ///
    /// # Panics
    /// When a member panics, with the same payload.
    pub fn run(&mut self) -> Result<(), Deadlock> {
        self.run_until(Time::MAX)
    }

    /// Runs for `d` of virtual time, and leaves the members where they are then. As
    /// [`run`](Self::run) it ends earlier when every member has returned.
    ///
    /// # Errors
    /// A [`Deadlock`], as for [`run`](Self::run).
    pub fn run_for(&mut self, d: Duration) -> Result<(), Deadlock> {
        self.run_until(self.now() + d)
    }

    /// Runs until the clock says `t`, as [`run_for`](Self::run_for) does. Members that are due at
    /// `t` run.
    ///
    /// # Errors
    /// A [`Deadlock`], as for [`run`](Self::run).
    pub fn run_until(&mut self, t: Time) -> Result<(), Deadlock> {
        match self.shared.scheduler.run(t) {
            End::Over | End::Limit => Ok(()),
            End::Deadlock(stuck) => Err(self.deadlock(stuck)),
            End::Panic(cause) => std::panic::resume_unwind(cause),
        }
    }

    fn deadlock(&self, stuck: Vec<Stuck>) -> Deadlock {
        let network = self.shared.network();
        let waiting = |Stuck { name, until, paused, waits_for }| WaitingMember {
            deadline: (until < Time::MAX).then_some(until),
            links: network
                .links
                .iter()
                .filter(|wire| wire.to == name)
                .map(|wire| (wire.from.to_string(), wire.counts))
                .collect(),
            member: name.to_string(),
            paused,
            waits_for,
        };
        Deadlock { at: self.now(), waiting: stuck.into_iter().map(waiting).collect() }
    }
}

impl Drop for SimWorld {
    fn drop(&mut self) {
        self.shared.scheduler.close();
        let held = self.shared.network().take_held();
        held.into_iter().for_each(|delivery| delivery.settle(Fate::Lost));
        let hosts = std::mem::take(&mut *self.shared.hosts());
        quietly(|| drop(hosts));
    }
}

impl Deref for SimWorld {
    type Target = WorldHandle;
    fn deref(&self) -> &WorldHandle {
        &self.handle
    }
}

impl_debug!([] SimWorld, |it| now: it.now(), stats: it.stats());
impl_debug!([] WorldHandle, |it| seed: it.seed(), now: it.now());

impl Shared {
    pub(super) fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock()
    }

    /// Delivers the first message that a link has held, if the link is no longer held.
    pub(super) fn deliver_released(&self, link: usize) {
        let first = self.network().next_released(link);
        if let Some(first) = first {
            first.settle(Fate::IsNext);
        }
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Host>> {
        self.hosts.lock()
    }
}

impl WorldHandle {
    /// The virtual time, the same for all members.
    pub fn now(&self) -> Time {
        self.shared.scheduler.clock().now()
    }

    /// Sets the wall clock of all members, as [`Sim::set_wall_clock`](crate::Sim::set_wall_clock)
    /// does. (A member with drift has a wall clock of its own, which this call does not set.)
    pub fn set_wall_clock(&self, t: SystemTime) {
        self.shared.scheduler.clock().set_wall(t);
    }

    /// The seed that the world was made with.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The clock, for instance for a [`Context`](crate::Context) made outside of the members.
    pub fn clock(&self) -> Clock {
        Clock::Virtual(self.shared.scheduler.clock().clone())
    }

    /// The counts of the world and its links.
    pub fn stats(&self) -> WorldStats {
        let mut links = LinkStats::default();
        for wire in &self.shared.network().links {
            links.sent += wire.counts.sent;
            links.delivered += wire.counts.delivered;
            links.lost += wire.counts.lost;
        }
        WorldStats { handovers: self.shared.scheduler.handovers(), links }
    }

    /// Keeps a [`history`](Self::history) from now on. The history grows by some 100 bytes for each
    /// happening.
    pub fn record(&self) {
        self.shared.scheduler.record();
    }

    /// Returns a copy of the history since [`record`](Self::record).
    pub fn history(&self) -> History {
        self.shared.scheduler.history()
    }

    /// The number of choices that the seed has made so far: see [`SimWorld::with_choices`].
    pub fn choices(&self) -> u64 {
        self.shared.scheduler.choices()
    }

    /// Adds a member: `body` runs on a thread of its own, with a reactor in this world's time, when
    /// its turn comes in a run.
    ///
    /// # Panics
    /// When a member of this name is still running and has not been killed, or the world has been
    /// dropped. After the member's end, or a kill, the name may be used again: a restart. In a
    /// thread that unwinds this does not panic: the member never begins.
    #[track_caller]
    pub fn spawn<R: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce(Reactor) -> R + Send + 'static,
    ) -> Member<R> {
        self.spawn_with_drift(name, 0, body)
    }

    /// [Spawns](Self::spawn) a member whose clock drifts. The clock gains `ppm` microseconds a
    /// second on the world's clock, or loses them if `ppm` is negative.
    ///
    /// The clock begins at the world's time. It is another clock, so the member's reactor cannot
    /// wait for a [`Context`](crate::Context) with a deadline on the world's clock.
    ///
    /// ```
    /// use pollmux::{SimWorld, Time};
    /// use std::time::Duration;
    ///
    /// let mut world = SimWorld::new(1);
    /// world.spawn_with_drift("fast", 100, |reactor| { // 100 µs a second
    ///     reactor.sleep_blocking(Duration::from_secs(3_600)).unwrap();
    /// });
    /// world.run()?;
    /// assert!(world.now() < Time::ZERO + Duration::from_secs(3_600)); // an hour on its clock
    /// # Ok::<(), pollmux::sim::Deadlock>(())
    /// ```
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn) does, and when `ppm` is not between -900,000 and 1,000,000.
    #[track_caller]
    pub fn spawn_with_drift<R: Send + 'static>(
        &self,
        name: &str,
        ppm: i64,
        body: impl FnOnce(Reactor) -> R + Send + 'static,
    ) -> Member<R> {
        let in_range = (-900_000..=1_000_000).contains(&ppm);
        if !in_range {
            misuse(&format!("a clock that drifts by {ppm} ppm is out of range"));
        }
        let seed = self.shared.scheduler.random();
        self.begin(name, if in_range { ppm } else { 0 }, move |driver| body(reactor(driver, seed)))
    }

    /// [Spawns](Self::spawn) a member that makes its reactor itself. Give the reactor a
    /// [`seed`](crate::Handle::seed), too. [`MemberDriver`] has an example.
    ///
    /// The report of a [`Deadlock`] does not list the sources of such a reactor.
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn) does.
    #[track_caller]
    pub fn spawn_with_driver<R: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce(MemberDriver) -> R + Send + 'static,
    ) -> Member<R> {
        self.begin(name, 0, body)
    }

    #[track_caller]
    fn begin<R: Send + 'static>(
        &self,
        name: &str,
        ppm: i64,
        body: impl FnOnce(MemberDriver) -> R + Send + 'static,
    ) -> Member<R> {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let life = move |driver| {
            let value = body(driver);
            *slot.lock() = Some(value);
        };
        if let Err(why) = spawn(&self.shared.scheduler, name, ppm, Box::new(life)) {
            misuse(&why);
        }
        Member { result }
    }

    /// [Spawns](Self::spawn) a member that can be [restarted](Self::restart). Each of its lives is
    /// a call of `body`. [`Member::take`] gives the result of the last life.
    ///
    /// ```
    /// use pollmux::{SimWorld, Time};
    /// use std::time::Duration;
    ///
    /// let second = Duration::from_secs(1);
    /// let mut world = SimWorld::starting_at(7, Time::ZERO + second);
    /// let host = world.spawn_host("host", move |reactor| {
    ///     let begun = reactor.now();
    ///     reactor.sleep_blocking(2 * second).unwrap();
    ///     begun
    /// });
    /// world.run_for(second)?;
    /// assert!(world.restart("host")); // kills the first life
    /// world.run_until(Time::ZERO + 3 * second)?;
    /// assert_eq!(host.take(), None); // it still sleeps
    /// world.run()?;
    /// assert_eq!(host.take(), Some(Time::ZERO + 2 * second));
    /// assert!(!world.kill("host")); // it has ended
    /// # Ok::<(), pollmux::sim::Deadlock>(())
    /// ```
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn) does.
    #[track_caller]
    pub fn spawn_host<R: Send + 'static>(
        &self,
        name: &str,
        body: impl Fn(Reactor) -> R + Send + Sync + 'static,
    ) -> Member<R> {
        let result = Arc::new(Mutex::new(None));
        let (slot, body) = (result.clone(), Arc::new(body));
        // A handle of the world here would keep the world alive.
        let (scheduler, called) = (Arc::downgrade(&self.shared.scheduler), name.to_owned());
        let host: Host = Arc::new(move || {
            let Some(scheduler) = scheduler.upgrade() else { return Ok(()) };
            let (slot, body, seed) = (slot.clone(), body.clone(), scheduler.random());
            let life = move |driver| {
                let value = body(reactor(driver, seed));
                *slot.lock() = Some(value);
            };
            spawn(&scheduler, &called, 0, Box::new(life))
        });
        match host() {
            Ok(()) => {
                let before = self.shared.hosts().insert(name.into(), host);
                quietly(|| drop(before));
            }
            Err(why) => misuse(&why),
        }
        Member { result }
    }

    /// Begins another life of a member made by [`spawn_host`](Self::spawn_host). Kills the member
    /// first if it runs. Returns false if there is no such member.
    ///
    /// turmoil calls this `bounce`, madsim `restart`. Give the links to the member another channel
    /// with [`Link::reconnect`](super::Link::reconnect), or make the channel in `body`.
    pub fn restart(&self, name: &str) -> bool {
        let host = self.shared.hosts().get(name).cloned();
        let Some(host) = host else { return false };
        self.kill(name);
        host().is_ok()
    }

    /// Ends a member as a crash would: it unwinds where it waits, and drops all that it holds.
    /// Nothing is printed. Returns true if a member of this name was running.
    ///
    /// If a member makes the call, the other one ends as soon as the caller blocks. Otherwise it
    /// has ended when the call returns. During a run on another thread the call waits until the
    /// running member blocks.
    ///
    /// # Panics
    /// Between runs, when the member panics while it unwinds, with the same payload.
    pub fn kill(&self, name: &str) -> bool {
        self.shared.scheduler.kill(|member| member == name) > 0
    }

    /// Takes the turns away from a member, from its next wait on: a long garbage collection, or a
    /// stopped process. Its deadlines pass. Returns false if no member of this name runs, or it is
    /// paused already.
    pub fn pause(&self, name: &str) -> bool {
        self.shared.scheduler.pause(name, true)
    }

    /// Lets a [paused](Self::pause) member go on. Returns false if it is not paused.
    pub fn resume(&self, name: &str) -> bool {
        self.shared.scheduler.pause(name, false)
    }
}

/// Adds a member. Drops `life` if the member cannot begin.
fn spawn(scheduler: &Arc<Scheduler>, name: &str, ppm: i64, life: Life) -> Result<(), String> {
    scheduler.spawn(name, ppm, life).map_err(|(why, life)| {
        quietly(|| drop(life));
        why
    })
}

fn reactor(driver: MemberDriver, seed: u64) -> Reactor {
    let reactor = Reactor::with_driver(driver).expect("a reactor on a virtual clock has no fds");
    reactor.seed(seed);
    set_reactor(reactor.handle());
    reactor
}

/// The result of a member. Made by [`WorldHandle::spawn`].
///
/// ```
/// use pollmux::SimWorld;
///
/// let mut world = SimWorld::new(1);
/// let member = world.spawn("member", |_| 42);
/// assert_eq!(member.take(), None); // it has not run
/// world.run()?;
/// assert_eq!((member.take(), member.take()), (Some(42), None));
/// # Ok::<(), pollmux::sim::Deadlock>(())
/// ```
pub struct Member<R> {
    result: Arc<Mutex<Option<R>>>,
}

impl<R> Member<R> {
    /// Takes the value that the member has returned. Returns `None` while the member runs, after a
    /// kill, and the second time.
    pub fn take(&self) -> Option<R> {
        self.result.lock().take()
    }
}

impl_debug!([R] Member<R>, |it| returned: it.result.lock().is_some());
