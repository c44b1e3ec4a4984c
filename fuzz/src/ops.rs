//! The operations, and their decoding from bytes.
//!
//! Each operation has [`CHUNK`] bytes of its own. So the other operations stay the same when a
//! fuzzer or the shrinking removes or repeats a chunk.

use std::fmt;

use arbitrary::{Result, Unstructured};
use pollmux::MissedTickBehavior;

/// The bytes of one operation.
pub const CHUNK: usize = 40;
/// The bytes of the driver's faults during one operation, after the operation's own bytes.
pub const FAULTS: usize = 8;
/// The bytes before the first operation.
pub const HEADER: usize = 4;

pub const TIMERS: usize = 6;
pub const TICKERS: usize = 3;
pub const CALLBACKS: usize = 3;
/// The number of timers, tickers and callbacks, in this order.
pub const ALARMS: usize = TIMERS + TICKERS + CALLBACKS;
pub const CHANNELS: usize = 3;
pub const CONTEXTS: usize = 3;
pub const DONES: usize = 3;

/// The time in ns that stands for "never".
pub const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A time from now on.
    In(u64),
    /// A time since the origin, which usually has passed.
    At(u64),
    /// A time after the deadline of this alarm, or from now on without a deadline.
    With(usize, u64),
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Endless,
    Now,
    For(u64),
}

/// A case of a `select!` or a `Select`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    Timer(usize),
    Ticker(usize),
    Inbox(usize),
    Done(usize),
    Send(usize),
}

/// The handling of a chosen case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Complete,
    /// Drops the `Selected`. In a `select!` the value returns from the function.
    Abandon,
    /// Forgets the `Selected`. In a `select!` the value panics.
    Forget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Choose(Mode, Finish),
    Add(usize),
    Remove(usize),
    Do(Op),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    MakeTimer(usize, When),
    MakeUnarmed(usize),
    MakeTicker(usize, When, u64, MissedTickBehavior),
    MakeCallback(usize, When, Vec<Op>, bool),
    Reset(usize, u64),
    ResetAt(usize, When),
    Stop(usize),
    Resume(usize),
    Restart(usize),
    Behavior(usize, MissedTickBehavior),
    Drop(usize),
    Detach(usize),
    StopById(usize),
    ResetById(usize, u64),
    ResetAtById(usize, When),
    AskStop(usize, bool),
    AskReset(usize, u64, bool),
    Take(usize),

    /// Makes a channel, unbounded if the capacity is `None`.
    MakeChannel(usize, Option<usize>),
    TrySend(usize, bool),
    SendThroughOutbox(usize),
    CloneSender(usize),
    DropSender(usize),
    RegisterSender(usize),
    UnregisterSender(usize),
    DropOutbox(usize),
    RegisterReceiver(usize),
    UnregisterReceiver(usize),
    DropReceiver(usize),
    TryRecv(usize),
    Drain(usize, usize),

    MakeContext(usize, Option<usize>, Option<When>),
    Cancel(usize, bool),
    DropContext(usize),
    MakeDone(usize, usize),
    DropDone(usize),

    Post(Vec<Op>, bool),
    Wake(bool),
    Advance(u64),

    // Turns.
    Select {
        cases: Vec<Case>,
        mode: Mode,
        biased: bool,
        reversed: bool,
        finish: Finish,
    },
    Receive(Case, Mode),
    Wait {
        capacity: usize,
        mode: Mode,
        take: u8,
        meanwhile: Option<Box<Op>>,
    },
    Sleep(u64),
    Session {
        biased: bool,
        cases: Vec<usize>,
        steps: Vec<Step>,
    },
    /// Panics. Only closures do.
    Panic,
}

impl Op {
    /// Returns the kind of the operation, for the coverage counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::MakeTimer(..) => "make timer",
            Op::MakeUnarmed(_) => "make timer, unarmed",
            Op::MakeTicker(..) => "make ticker",
            Op::MakeCallback(..) => "make callback",
            Op::Reset(..) => "reset",
            Op::ResetAt(..) => "reset_at",
            Op::Stop(_) => "stop",
            Op::Resume(_) => "resume",
            Op::Restart(_) => "restart",
            Op::Behavior(..) => "set_missed_tick_behavior",
            Op::Drop(_) => "drop timer, ticker, callback",
            Op::Detach(_) => "detach",
            Op::StopById(_) => "stop_timer",
            Op::ResetById(..) => "reset_timer",
            Op::ResetAtById(..) => "reset_timer_at",
            Op::AskStop(..) => "Remote::stop",
            Op::AskReset(..) => "Remote::reset",
            Op::Take(_) => "try_take",
            Op::MakeChannel(..) => "make channel",
            Op::TrySend(..) => "try_send",
            Op::SendThroughOutbox(_) => "try_send, outbox",
            Op::CloneSender(_) => "clone sender",
            Op::DropSender(_) => "drop sender",
            Op::RegisterSender(_) => "register sender",
            Op::UnregisterSender(_) => "into_inner, outbox",
            Op::DropOutbox(_) => "drop outbox",
            Op::RegisterReceiver(_) => "register receiver",
            Op::UnregisterReceiver(_) => "into_inner, inbox",
            Op::DropReceiver(_) => "drop receiver or inbox",
            Op::TryRecv(_) => "try_recv",
            Op::Drain(..) => "drain",
            Op::MakeContext(..) => "make context",
            Op::Cancel(..) => "cancel",
            Op::DropContext(_) => "drop context",
            Op::MakeDone(..) => "make done",
            Op::DropDone(_) => "drop done",
            Op::Post(..) => "post",
            Op::Wake(_) => "wake",
            Op::Advance(_) => "advance",
            Op::Select { mode: Mode::Endless, .. } => "select!",
            Op::Select { mode: Mode::Now, .. } => "select!, default",
            Op::Select { mode: Mode::For(_), .. } => "select!, default(timeout)",
            Op::Receive(_, Mode::Endless) => "Handle::recv",
            Op::Receive(_, Mode::Now) => "Handle::try_recv",
            Op::Receive(_, Mode::For(_)) => "Handle::recv_timeout",
            Op::Wait { mode: Mode::Endless, .. } => "wait",
            Op::Wait { mode: Mode::Now, .. } => "try_wait",
            Op::Wait { mode: Mode::For(_), .. } => "wait_timeout",
            Op::Sleep(_) => "sleep_blocking",
            Op::Session { .. } => "Select",
            Op::Panic => "panic in a closure",
        }
    }
}

/// The operations of an input, and the settings of its header.
#[derive(Clone, Debug)]
pub struct Program {
    pub ops: Vec<Op>,
    /// The seed of the choices among ready cases.
    pub seed: u64,
    /// The number of the drop order at the end.
    pub ending: u8,
    /// The faults of the driver, if it has any.
    pub faults: Option<Faults>,
}

/// The faults of a driver.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The choices of faults during each operation.
    pub choices: Vec<Vec<u8>>,
    /// The bound of the lateness of waits, in ns.
    pub late: u64,
    /// True if waits fail with errors other than interruptions.
    pub fails: bool,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  choices by seed {}, ending {}", self.seed, self.ending)?;
        if let Some(Faults { late, fails, .. }) = self.faults {
            writeln!(f, "  late by less than {late}, fails: {fails}")?;
        }
        for (n, op) in self.ops.iter().enumerate() {
            writeln!(f, "  {n:>3}: {op:?}")?;
            if let Some(faults) = &self.faults {
                writeln!(f, "       faults {:?}", faults.choices[n])?;
            }
        }
        Ok(())
    }
}

/// Decodes an input. If `faulty` is true, each operation has [`FAULTS`] bytes more.
pub fn decode(bytes: &[u8], faulty: bool) -> Program {
    let mut header = [0; HEADER];
    let (first, rest) = bytes.split_at(bytes.len().min(HEADER));
    header[..first.len()].copy_from_slice(first);
    let late = [0, 0, 2, 5][usize::from(header[2] % 4)];
    let mut faults = Faults { late, fails: header[3] % 2 == 1, ..Faults::default() };
    let mut ops = Vec::new();
    for chunk in rest.chunks(CHUNK + if faulty { FAULTS } else { 0 }).take(400) {
        let (op, choices) = chunk.split_at(chunk.len().min(CHUNK));
        if let Ok(op) = Input(Unstructured::new(op)).op(0) {
            ops.push(op);
            faults.choices.push(choices.to_vec());
        }
    }
    let (seed, ending) = (u64::from(header[0]), header[1]);
    Program { ops, seed, ending, faults: faulty.then_some(faults) }
}

struct Input<'a>(Unstructured<'a>);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8> {
        self.0.arbitrary()
    }

    fn below(&mut self, n: usize) -> Result<usize> {
        Ok(usize::from(self.byte()?) % n)
    }

    fn flag(&mut self, one_of: usize) -> Result<bool> {
        // Zero decodes to false. An input that is too short gives zero.
        Ok(self.below(one_of)? == one_of - 1)
    }

    /// Returns one of few distinct values, so that ties are common.
    fn duration(&mut self) -> Result<u64> {
        let byte = u64::from(self.byte()?);
        Ok(match byte % 16 {
            0..=10 => byte / 16 % 8,
            11 => 0,
            12 => 4_999_992 + byte / 16,
            13 => 1_000 * (byte / 16),
            14 if byte / 16 > 11 => NEVER,
            _ => 5 + byte / 16,
        })
    }

    fn when(&mut self) -> Result<When> {
        let d = self.duration()?;
        Ok(match self.below(16)? {
            0..=7 => When::In(d),
            8..=9 => When::At(d),
            10..=14 => When::With(self.alarm()?, d % 4),
            _ => When::Never,
        })
    }

    fn alarm(&mut self) -> Result<usize> {
        self.below(ALARMS)
    }

    fn behavior(&mut self) -> Result<MissedTickBehavior> {
        use MissedTickBehavior::{Burst, Delay, Skip};
        Ok([Skip, Burst, Delay][self.below(3)?])
    }

    fn mode(&mut self) -> Result<Mode> {
        Ok(match self.below(3)? {
            0 => Mode::Now,
            1 => Mode::For(self.duration()?),
            _ => Mode::Endless,
        })
    }

    fn finish(&mut self) -> Result<Finish> {
        Ok(match self.below(8)? {
            0..=4 => Finish::Complete,
            5 | 6 => Finish::Abandon,
            _ => Finish::Forget,
        })
    }

    fn case(&mut self) -> Result<Case> {
        Ok(match self.below(12)? {
            0..=2 => Case::Timer(self.below(TIMERS)?),
            3 | 4 => Case::Ticker(self.below(TICKERS)?),
            5..=7 => Case::Inbox(self.below(CHANNELS)?),
            8 => Case::Done(self.below(DONES)?),
            _ => Case::Send(self.below(CHANNELS)?),
        })
    }

    fn several(&mut self, most: usize, depth: u32) -> Result<Vec<Op>> {
        (0..self.below(most + 1)?).map(|_| self.op(depth + 1)).collect()
    }

    /// Decodes an operation. In closures `depth` is above zero.
    fn op(&mut self, depth: u32) -> Result<Op> {
        let (alarm, channel, context) = (Input::alarm, CHANNELS, CONTEXTS);
        Ok(match self.below(100)? {
            0..=4 => Op::MakeTimer(self.below(TIMERS)?, self.when()?),
            5 => Op::MakeUnarmed(self.below(TIMERS)?),
            6 | 7 => {
                let (i, when) = (self.below(TICKERS)?, self.when()?);
                Op::MakeTicker(i, when, self.duration()?, self.behavior()?)
            }
            8..=12 if depth == 0 => {
                let (i, when) = (self.below(CALLBACKS)?, self.when()?);
                let detached = self.flag(6)?;
                Op::MakeCallback(i, when, self.several(4, depth)?, detached)
            }
            8..=15 => Op::Reset(alarm(self)?, self.duration()?),
            16..=20 => Op::ResetAt(alarm(self)?, self.when()?),
            21..=23 => Op::Stop(alarm(self)?),
            24 => Op::Resume(alarm(self)?),
            25 => Op::Restart(alarm(self)?),
            26 => Op::Behavior(alarm(self)?, self.behavior()?),
            27 => Op::Drop(alarm(self)?),
            28 => match self.below(3)? {
                0 => Op::Detach(alarm(self)?),
                1 => Op::StopById(alarm(self)?),
                _ => Op::ResetById(alarm(self)?, self.duration()?),
            },
            29 => Op::ResetAtById(alarm(self)?, self.when()?),
            30 if depth == 0 => Op::AskStop(alarm(self)?, self.flag(8)?),
            31 if depth == 0 => Op::AskReset(alarm(self)?, self.duration()?, self.flag(8)?),
            30 | 31 if depth > 0 && self.flag(4)? => Op::Panic,
            30..=32 => Op::Take(alarm(self)?),
            33..=35 => {
                let c = self.below(channel)?;
                let cap = [Some(1), Some(2), Some(1), Some(4), Some(0), None, Some(3), Some(2)];
                Op::MakeChannel(c, cap[self.below(cap.len())?])
            }
            36..=45 => Op::TrySend(self.below(channel)?, self.flag(24)?),
            46..=48 => Op::SendThroughOutbox(self.below(channel)?),
            49 => Op::CloneSender(self.below(channel)?),
            50 => Op::DropSender(self.below(channel)?),
            51 => Op::RegisterSender(self.below(channel)?),
            52 => Op::UnregisterSender(self.below(channel)?),
            53 => Op::DropOutbox(self.below(channel)?),
            54 => Op::RegisterReceiver(self.below(channel)?),
            55 => Op::UnregisterReceiver(self.below(channel)?),
            56 => Op::DropReceiver(self.below(channel)?),
            57..=59 => Op::TryRecv(self.below(channel)?),
            60 => Op::Drain(self.below(channel)?, self.below(4)?),
            61 | 62 => {
                let x = self.below(context)?;
                let parent = if self.flag(2)? { Some(self.below(context)?) } else { None };
                Op::MakeContext(x, parent, if self.flag(3)? { Some(self.when()?) } else { None })
            }
            63 => Op::Cancel(self.below(context)?, self.flag(8)?),
            64 if self.flag(4)? => Op::DropContext(self.below(context)?),
            64 | 65 => Op::MakeDone(self.below(DONES)?, self.below(context)?),
            66 if self.flag(4)? => Op::DropDone(self.below(DONES)?),
            66 | 67 => Op::Post(self.several(2, depth)?, depth == 0 && self.flag(8)?),
            68 if self.flag(4)? => Op::Wake(depth == 0 && self.flag(8)?),
            68..=71 if depth == 0 => {
                let d = self.duration()?;
                Op::Advance(if d == NEVER { 3 } else { d })
            }
            72..=82 => self.select(depth)?,
            83 | 84 => Op::Receive(self.case()?, self.inner_mode(depth)?),
            85..=93 => {
                let capacity = [8, 1, 2, 3, 32, 32, 32, 32][self.below(8)?];
                let (mode, take) = (self.inner_mode(depth)?, self.byte()?);
                let meanwhile =
                    if self.flag(4)? { Some(Box::new(self.op(depth + 2)?)) } else { None };
                Op::Wait { capacity, mode, take, meanwhile }
            }
            94 | 95 if depth == 0 => Op::Sleep(self.duration()?.min(10_000_000)),
            96.. if depth == 0 => self.session()?,
            _ => Op::Reset(alarm(self)?, self.duration()?),
        })
    }

    /// Returns the mode of a wait. In a closure no wait is endless, and half of the waits do not
    /// sleep.
    fn inner_mode(&mut self, depth: u32) -> Result<Mode> {
        Ok(match self.mode()? {
            Mode::Endless if depth > 0 => Mode::Now,
            Mode::For(d) if depth > 0 => Mode::For(d % 4),
            mode => mode,
        })
    }

    fn select(&mut self, depth: u32) -> Result<Op> {
        let (mode, finish) = (self.inner_mode(depth)?, self.finish()?);
        let (biased, reversed) = (self.flag(2)?, self.flag(2)?);
        let cases = (0..1 + self.below(6)?).map(|_| self.case()).collect::<Result<_>>()?;
        Ok(Op::Select { cases, mode, biased, reversed, finish })
    }

    fn session(&mut self) -> Result<Op> {
        let biased = self.flag(3)?;
        let cases =
            (0..self.below(6)?).map(|_| Ok(usize::from(self.byte()?))).collect::<Result<_>>()?;
        let steps = (0..1 + self.below(5)?)
            .map(|_| {
                Ok(match self.below(8)? {
                    0..=3 => Step::Choose(self.mode()?, self.finish()?),
                    4 => Step::Add(usize::from(self.byte()?)),
                    5 => Step::Remove(self.below(6)?),
                    _ => Step::Do(self.op(2)?),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Op::Session { biased, cases, steps })
    }
}
