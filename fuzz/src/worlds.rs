//! Members of a `SimWorld` that send, wait and set timers, beside a controller that partitions,
//! kills and pauses.
//!
//! The checks:
//!
//! - No timeout, timer, tick or message is early.
//! - No message is invented, comes over another link, or comes more often than duplicates allow.
//! - A link keeps its order without duplicates and overtaking.
//! - Each message is dropped once, and the counts of the links agree.
//! - A run ends, and one seed gives one history.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use pollmux::channel::{Sender, unbounded};
use pollmux::driver::Clock;
use pollmux::sim::{History, Link, WorldHandle, WorldStats};
use pollmux::{Events, Inbox, Reactor, Select, SimWorld, Source, Time, select};

use crate::Coverage;
use crate::model::{Checked, ensure, fail};
use crate::ops::HEADER;

/// The bytes of one operation.
pub const CHUNK: usize = 6;
/// The number of members, which are the ends of the links.
const MEMBERS: usize = 3;
const NAMES: [&str; MEMBERS] = ["a", "b", "c"];
/// The silence in ms after which a member ends.
const LAST: u64 = 20;

/// An operation of a member. Times are in ms.
#[derive(Clone, Copy, Debug)]
enum Act {
    Send(usize, u8),
    /// Receives by `select!`, `recv_timeout`, `wait_timeout` or a `Select`.
    Receive(u8, u64),
    Sleep(u64),
    /// Waits for a timer that is reset once.
    Timer(u64, u64),
    Ticks(u64, u8),
    Panic,
}

/// An operation of the controller.
#[derive(Clone, Copy, Debug)]
enum Control {
    Sleep(u64),
    Partition(u8),
    Heal,
    Cut(usize, usize),
    Mend(usize, usize),
    Hold(usize, usize),
    Release(usize, usize),
    Kill(usize),
    Restart(usize),
    Pause(usize),
    Resume(usize),
    Delay(usize, usize, u64),
    Lossy(usize, usize, u8),
}

/// The settings of all links, from the header of the input.
#[derive(Clone, Copy, Debug)]
struct Net {
    delay: u64,
    spread: u64,
    loss: bool,
    duplicates: bool,
    /// True if messages may overtake each other.
    overtakes: bool,
}

/// The operations of an input.
#[derive(Debug)]
pub struct Program {
    seed: u64,
    net: Net,
    members: [Vec<Act>; MEMBERS],
    controls: Vec<Control>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  seed {}, {:?}", self.seed, self.net)?;
        for (name, acts) in NAMES.iter().zip(&self.members) {
            writeln!(f, "  {name}: {acts:?}")?;
        }
        writeln!(f, "  controller: {:?}", self.controls)
    }
}

pub fn decode(bytes: &[u8]) -> Program {
    let mut header = [0; HEADER];
    let (first, rest) = bytes.split_at(bytes.len().min(HEADER));
    header[..first.len()].copy_from_slice(first);
    let net = Net {
        delay: u64::from(header[1] % 4),
        spread: u64::from(header[1] / 4 % 4),
        loss: header[2] % 4 == 3,
        duplicates: header[2] / 4 % 4 == 3,
        overtakes: header[2] / 16 % 4 == 3,
    };
    let mut program = Program {
        seed: u64::from(header[0]),
        net,
        members: Default::default(),
        controls: Vec::new(),
    };
    for chunk in rest.chunks(CHUNK).take(120) {
        let _ = program.add(&mut Unstructured::new(chunk));
    }
    program
}

impl Program {
    fn add(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut below =
            |n: usize| -> Result<usize> { Ok(usize::from(input.arbitrary::<u8>()?) % n) };
        let who = below(MEMBERS + 1)?;
        let what = below(16)?;
        let (i, j) = (below(MEMBERS)?, below(MEMBERS)?);
        let ms = below(12)? as u64;
        if who < MEMBERS {
            let other = (who + 1 + i % (MEMBERS - 1)) % MEMBERS;
            self.members[who].push(match what {
                0..=5 => Act::Send(other, 1 + j as u8),
                6..=10 => Act::Receive((i + j) as u8, ms),
                11 | 12 => Act::Sleep(ms),
                13 => Act::Timer(ms, i as u64 * 4),
                14 => Act::Ticks(1 + ms % 4, 1 + j as u8),
                _ if i == 2 && j == 2 => Act::Panic,
                _ => Act::Sleep(0),
            });
            return Ok(());
        }
        self.controls.push(match what {
            0..=3 => Control::Sleep(ms),
            4 => Control::Partition(ms as u8 % 8),
            5 => Control::Heal,
            6 => Control::Cut(i, j),
            7 => Control::Mend(i, j),
            8 => Control::Hold(i, j),
            9 => Control::Release(i, j),
            10 => Control::Kill(i),
            11 | 12 => Control::Restart(i),
            13 => Control::Pause(i),
            14 => Control::Resume(i),
            _ if ms < 6 => Control::Delay(i, j, ms % 4),
            _ => Control::Lossy(i, j, ms as u8 % 3),
        });
        Ok(())
    }
}

/// A message, which is counted while it lives.
struct Message {
    from: usize,
    to: usize,
    number: u64,
    sent: Time,
    life: u64,
    alive: Arc<AtomicI64>,
}

impl Message {
    fn new(
        from: usize,
        to: usize,
        number: u64,
        sent: Time,
        life: u64,
        alive: &Arc<AtomicI64>,
    ) -> Message {
        alive.fetch_add(1, SeqCst);
        Message { from, to, number, sent, life, alive: alive.clone() }
    }
}

impl Clone for Message {
    fn clone(&self) -> Message {
        Message::new(self.from, self.to, self.number, self.sent, self.life, &self.alive)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

type Links = BTreeMap<(usize, usize), Link<Message>>;

/// The state that all members share. Only one member runs at a time.
struct Shared {
    clock: Clock,
    net: Net,
    acts: [Vec<Act>; MEMBERS],
    links: Links,
    lives: [AtomicU64; MEMBERS],
    numbers: [AtomicU64; MEMBERS],
    alive: Arc<AtomicI64>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    lines: Vec<(Time, usize, String)>,
    /// The number of times that each message was received.
    received: BTreeMap<(usize, usize, u64), u32>,
    wrong: Option<String>,
    coverage: Coverage,
}

/// A member between a start or restart and its end.
struct Life<'a> {
    me: usize,
    life: u64,
    reactor: &'a Reactor,
    shared: &'a Shared,
    inbox: Inbox<Message>,
    /// The number of the last message from each life of each sender.
    last: BTreeMap<(usize, u64), u64>,
}

impl Shared {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, at: Time, who: usize, kind: &'static str, text: impl FnOnce() -> String) {
        let mut log = self.log();
        *log.coverage.entry(kind).or_default() += 1;
        log.lines.push((at, who, text()));
    }

    /// Runs a member from its start to its end.
    fn live(&self, me: usize, reactor: &Reactor) {
        let (tx, rx) = unbounded();
        for (_, link) in self.links.iter().filter(|((_, to), _)| *to == me) {
            link.reconnect(tx.clone());
        }
        drop(tx);
        let Ok(inbox) = reactor.register(rx) else { return };
        let life = self.lives[me].fetch_add(1, SeqCst);
        let mut life = Life { me, life, reactor, shared: self, inbox, last: BTreeMap::new() };
        let lived = self.acts[me].iter().try_for_each(|act| life.act(*act));
        let lived = lived.and_then(|()| life.listen());
        if let Err(text) = lived {
            self.log().wrong.get_or_insert(format!("{}: {text}", NAMES[me]));
        }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Life<'_> {
    fn now(&self) -> Time {
        self.shared.clock.now()
    }

    fn note(&self, kind: &'static str, text: impl FnOnce() -> String) {
        self.shared.note(self.now(), self.me, kind, text);
    }

    fn act(&mut self, act: Act) -> Checked {
        match act {
            Act::Send(to, n) => {
                for _ in 0..n {
                    let number = self.shared.numbers[self.me].fetch_add(1, SeqCst);
                    let (now, alive) = (self.now(), &self.shared.alive);
                    let message = Message::new(self.me, to, number, now, self.life, alive);
                    self.shared.links[&(self.me, to)].send(message);
                }
                self.note("send", || format!("sends {n} to {to}"));
                Ok(())
            }
            Act::Receive(way, d) => self.receive(way, d).map(drop),
            Act::Sleep(d) => {
                let begin = self.now();
                let slept = self.reactor.sleep_blocking(ms(d)).is_ok();
                ensure!(!slept || self.now() >= begin + ms(d), "a sleep of {d} ms ended early");
                self.note("sleep", || format!("slept {d}"));
                Ok(())
            }
            Act::Timer(first, then) => {
                let timer = self.reactor.after(ms(first));
                timer.reset(ms(then));
                let due = self.reactor.now() + ms(then);
                let Ok(fired) = self.reactor.recv(&timer) else { return Ok(()) };
                ensure!(fired <= due && self.now() >= fired, "a timer of {due:?} at {fired:?}");
                ensure!(timer.try_take().is_none(), "a timer fired twice");
                self.note("timer", || format!("fired at {fired:?}"));
                Ok(())
            }
            Act::Ticks(period, n) => {
                let Ok(ticker) = self.reactor.every(ms(period)) else { fail!("no ticker") };
                let mut grid = self.now();
                for _ in 0..n {
                    let Ok(tick) = self.reactor.recv(&ticker) else { return Ok(()) };
                    ensure!(tick.scheduled == grid + ms(period), "{tick:?} after {grid:?}");
                    ensure!(self.now() >= tick.scheduled, "{tick:?} at {:?}", self.now());
                    grid = tick.scheduled + ms(period) * tick.missed as u32;
                }
                self.note("ticks", || format!("ticks until {grid:?}"));
                Ok(())
            }
            Act::Panic => {
                self.note("panic", || "panics".into());
                std::panic::panic_any(Planned);
            }
        }
    }

    /// Receives with a timeout. Returns true if a message came.
    fn receive(&mut self, way: u8, d: u64) -> Checked<bool> {
        let (reactor, inbox, begin) = (self.reactor, &self.inbox, self.now());
        let got = match way % 4 {
            0 => select! { reactor;
                recv(inbox) -> message => message.ok(),
                default(ms(d)) => None,
                error -> _ => return Ok(false),
            },
            1 => match reactor.recv_timeout(inbox, ms(d)) {
                Ok(message) => message.and_then(|message| message.ok()),
                Err(_) => return Ok(false),
            },
            2 => {
                let mut events = Events::with_capacity(1);
                if reactor.wait_timeout(&mut events, ms(d)).is_err() {
                    return Ok(false);
                }
                let got = inbox.try_recv().ok();
                ensure!(got.is_some() != events.is_empty(), "wait says {events:?}");
                got
            }
            _ => {
                let mut select = Select::new(reactor);
                select.recv(inbox);
                match select.wait_timeout(ms(d)) {
                    Ok(Some(selected)) => selected.recv(inbox).and_then(|message| message.ok()),
                    Ok(None) => None,
                    Err(_) => return Ok(false),
                }
            }
        };
        let Some(message) = got else {
            ensure!(self.now() >= begin + ms(d), "a timeout of {d} ms after {begin:?} is early");
            self.note("timeout", || format!("nothing for {d}"));
            return Ok(false);
        };
        self.check(&message)?;
        let (from, number) = (message.from, message.number);
        self.note("receive", || format!("has {number} of {from}"));
        Ok(true)
    }

    fn check(&mut self, message: &Message) -> Checked {
        let net = self.shared.net;
        let Message { from, to, number, sent, life, .. } = *message;
        ensure!(to == self.me, "a message for {to} came to {}", self.me);
        ensure!(number < self.shared.numbers[from].load(SeqCst), "message {number} was invented");
        ensure!(self.now() >= sent + ms(net.delay), "a message of {sent:?} at {:?}", self.now());
        let times = {
            let mut log = self.shared.log();
            let times = log.received.entry((from, to, number)).or_default();
            *times += 1;
            *times
        };
        ensure!(times <= 1 + u32::from(net.duplicates), "message {number} of {from} came again");
        let last = self.last.insert((from, life), number);
        ensure!(
            net.overtakes || net.duplicates || last.is_none_or(|last| last < number),
            "message {number} came after {last:?}"
        );
        Ok(())
    }

    /// Receives until no message comes for [`LAST`] ms.
    fn listen(&mut self) -> Checked {
        while self.receive(0, LAST)? {}
        self.note("end", || "ends".into());
        Ok(())
    }
}

/// The payload of a panic that an operation causes.
struct Planned;

fn control(world: &WorldHandle, reactor: &Reactor, shared: &Shared, controls: &[Control]) {
    let link = |i: usize, j: usize| shared.links.get(&(i, j));
    for control in controls {
        let now = shared.clock.now();
        shared.note(now, MEMBERS, "control", || format!("{control:?}"));
        match *control {
            Control::Sleep(d) => _ = reactor.sleep_blocking(ms(d)),
            Control::Partition(mask) => {
                let alone: Vec<&str> =
                    (0..MEMBERS).filter(|i| mask & 1 << i != 0).map(|i| NAMES[i]).collect();
                world.partition(&[&alone]);
            }
            Control::Heal => world.heal(),
            Control::Cut(i, j) => world.cut(NAMES[i], NAMES[j]),
            Control::Mend(i, j) => world.mend(NAMES[i], NAMES[j]),
            Control::Hold(i, j) => world.hold(NAMES[i], NAMES[j]),
            Control::Release(i, j) => world.release(NAMES[i], NAMES[j]),
            Control::Kill(i) => _ = world.kill(NAMES[i]),
            Control::Restart(i) => _ = world.restart(NAMES[i]),
            Control::Pause(i) => _ = world.pause(NAMES[i]),
            Control::Resume(i) => _ = world.resume(NAMES[i]),
            Control::Delay(i, j, d) => {
                let least = shared.net.delay;
                link(i, j).into_iter().for_each(|l| l.set_delay(ms(least)..=ms(least + d)));
            }
            Control::Lossy(i, j, n) => {
                link(i, j).into_iter().for_each(|l| l.set_loss(f64::from(n) / 2.0));
            }
        }
    }
    world.heal();
    for name in NAMES {
        NAMES.iter().for_each(|to| world.release(name, to));
        world.resume(name);
    }
}

/// The results of a run, all of which depend only on its seed.
#[derive(PartialEq, Eq)]
struct Outcome {
    lines: Vec<(Time, usize, String)>,
    history: History,
    stats: WorldStats,
    panicked: bool,
}

fn run_once(program: &Program) -> Checked<(Outcome, Coverage)> {
    let mut world = SimWorld::new(program.seed);
    world.record();
    let net = program.net;
    let mut links = Links::new();
    for (i, j) in (0..MEMBERS).flat_map(|i| (0..MEMBERS).map(move |j| (i, j))) {
        if i == j {
            continue;
        }
        let (nowhere, _): (Sender<Message>, _) = unbounded();
        let link = world.link(NAMES[i], NAMES[j], nowhere);
        link.set_delay(ms(net.delay)..=ms(net.delay + net.spread));
        link.set_loss(if net.loss { 0.3 } else { 0.0 });
        link.set_duplicates(if net.duplicates { 0.3 } else { 0.0 });
        link.set_reordering(net.overtakes);
        links.insert((i, j), link);
    }
    let shared = Arc::new(Shared {
        clock: world.clock(),
        net,
        acts: program.members.clone(),
        links,
        lives: Default::default(),
        numbers: Default::default(),
        alive: Arc::default(),
        log: Mutex::default(),
    });
    for (me, name) in NAMES.iter().enumerate() {
        let shared = shared.clone();
        world.spawn_host(name, move |reactor| shared.live(me, &reactor));
    }
    let (handle, controlled) = (world.handle(), shared.clone());
    let controls = program.controls.clone();
    world.spawn("controller", move |reactor| control(&handle, &reactor, &controlled, &controls));
    let mut panicked = false;
    // The panic of a member ends a run of the world, and the next run goes on.
    let mut left = 100;
    loop {
        match catch_unwind(AssertUnwindSafe(|| world.run())) {
            Ok(Ok(())) => break,
            Ok(Err(deadlock)) => fail!("a deadlock: {deadlock}"),
            Err(payload) if payload.is::<Planned>() && left > 0 => panicked = true,
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map_or("of another type", |t| t);
                fail!("a run panics: {text}");
            }
        }
        left -= 1;
    }
    let (history, stats, now) = (world.history(), world.stats(), world.now());
    drop(world);
    let sent: u64 = shared.numbers.iter().map(|number| number.load(SeqCst)).sum();
    let mut log = std::mem::take(&mut *shared.log());
    let received: u32 = log.received.values().sum();
    if let Some(text) = log.wrong {
        return Err(text);
    }
    let counts = stats.links;
    ensure!(counts.sent >= sent, "{sent} were sent, and {counts:?}");
    ensure!(net.duplicates || counts.sent == sent, "{sent} were sent, and {counts:?}");
    ensure!(counts.delivered + counts.lost <= counts.sent, "{counts:?}");
    ensure!(counts.delivered >= u64::from(received), "{received} were received, and {counts:?}");
    let times = log.lines.windows(2).all(|pair| pair[0].0 <= pair[1].0);
    ensure!(times && log.lines.last().is_none_or(|line| line.0 <= now), "time went back");
    let lives = shared.lives.iter().map(|lives| lives.load(SeqCst)).max();
    *log.coverage.entry("lives of a member, at most").or_default() += lives.unwrap_or(0);
    *log.coverage.entry("lost").or_default() += counts.lost;
    let alive = shared.alive.clone();
    drop(shared);
    ensure!(alive.load(SeqCst) == 0, "{} messages were not dropped once", alive.load(SeqCst));
    Ok((Outcome { lines: log.lines, history, stats, panicked }, log.coverage))
}

/// Runs a program twice. The error names the violated check.
pub fn run(program: &Program) -> (Checked, Coverage) {
    let twice = || {
        let (first, coverage) = run_once(program)?;
        let (second, _) = run_once(program)?;
        ensure!(first.lines == second.lines, "the logs of one seed differ");
        ensure!(
            first.stats == second.stats,
            "the counts of one seed differ: {:?}, {:?}",
            first.stats,
            second.stats
        );
        ensure!(first == second, "the histories of one seed differ");
        Ok(coverage)
    };
    match twice() {
        Ok(coverage) => (Ok(()), coverage),
        Err(text) => (Err(text), Coverage::new()),
    }
}
