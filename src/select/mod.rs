//! `select!`: several sources, one turn.
//!
//! The macro turns its cases into a nested tuple of references, `(&a, (&b, (&c, ())))`, and the
//! other steps are here. [`Cases`] asks all cases which of them are ready, and takes from one of
//! these. The item comes as nested [`Pick`]s, which the macro takes apart with a `match`. There is
//! no closure for an arm, so arms may `break`, `return` and use `?`, and no source is borrowed
//! while an arm runs.

#![allow(clippy::missing_errors_doc)] // for the macro only, and hidden

mod case;
mod macros;
mod many;
mod one;
mod published;
mod set;
mod wrong;

use std::io;
use std::time::Duration;

pub use self::set::{Select, Selected};

use self::published::Published;
use crate::channel::{Chosen, Glance};
use crate::reactor::{AsHandle, BeforeSleep, Blocked, Handle, Patience};
use crate::sources::{Internals, Outgoing, Sending, Source};
use crate::sys::Time;
use crate::wake::Request;

/// The names in the macro's expansion. Not for use by hand.
#[doc(hidden)]
pub mod private {
    pub use super::{
        AnyCases, Cases, Impossible, Pick, fail, handle, now, only_if, recv, send, until, wait,
    };
    pub use core::option::Option::{None, Some};
    pub use core::result::Result::{Err, Ok};
    pub use core::{compile_error, concat, stringify};
}

/// The item of the first case, or of one of the rest.
#[derive(Debug)]
pub enum Pick<A, B> {
    /// The item of the first case.
    This(A),
    /// The pick among the cases behind the first.
    Rest(B),
}

/// Returns the reactor of a `select!`.
#[inline(always)]
pub fn handle(reactor: &(impl AsHandle + ?Sized)) -> &Handle {
    reactor.as_ref()
}

/// Makes a receive case. Its type is opaque, so that the compiler's error about a value that is no
/// source names no private type.
#[inline(always)]
pub fn recv<T, S: Source<Item = T>>(source: &S) -> impl Source<Item = T> {
    source
}

/// Makes a send case.
#[inline(always)]
pub fn send<'a, T: 'a>(
    outbox: impl Outgoing<'a, Message = T>,
) -> impl Source<Item = Chosen<'a, T>> {
    Sending::new(outbox)
}

/// Makes a case with a condition: the case has no source if the condition is false.
#[inline(always)]
pub fn only_if<S: Source>(source: S, condition: bool) -> Option<S> {
    condition.then_some(source)
}

/// The end of the nested cases, behind the last one.
#[derive(Debug)]
pub enum Impossible {}

/// The cases of one `select!`, as a nested tuple.
pub trait Cases: AnyCases {
    /// The item of one of the cases.
    type Item;

    /// Takes from the case with this index.
    fn take(&self, index: u32) -> Option<Self::Item>;
    /// Returns true if the case with this index belongs to the reactor of `handle`.
    fn belongs(&self, index: u32, handle: &Handle) -> bool;
}

/// The part of [`Cases`] that the slow path needs. No method names an item: the slow path is
/// compiled once, and not for each `select!`.
pub trait AnyCases {
    /// Returns a bit for each case that is ready. The first case has the lowest bit.
    fn ready(&self) -> u32;
    /// [`ready`](AnyCases::ready), with some cases left in doubt.
    fn glance(&self) -> Glance;
    /// Calls [`Source::before_sleep`] of each case.
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()>;
    /// Calls [`Source::after_sleep`] of each case. Returns a bit for each case that was chosen.
    fn after_sleep(&self) -> u32;
    /// Returns the index of the first case that belongs to another reactor.
    fn foreign(&self, handle: &Handle) -> Option<u32>;
    /// Returns facts about the case with this index, or `None` behind the last case.
    fn internals(&self, index: u32) -> Option<Internals<'_>>;
}

impl Cases for () {
    type Item = Impossible;

    #[inline(always)]
    fn take(&self, _: u32) -> Option<Impossible> {
        None
    }
    #[inline(always)]
    fn belongs(&self, _: u32, _: &Handle) -> bool {
        true
    }
}

impl AnyCases for () {
    #[inline(always)]
    fn ready(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn glance(&self) -> Glance {
        Glance::default()
    }
    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        Ok(())
    }
    fn after_sleep(&self) -> u32 {
        0
    }
    fn foreign(&self, _: &Handle) -> Option<u32> {
        None
    }
    fn internals(&self, _: u32) -> Option<Internals<'_>> {
        None
    }
}

impl<S: Source, R: Cases> Cases for (S, R) {
    type Item = Pick<S::Item, R::Item>;

    #[inline(always)]
    fn take(&self, index: u32) -> Option<Self::Item> {
        if index == 0 {
            self.0.try_take().map(Pick::This)
        } else {
            self.1.take(index - 1).map(Pick::Rest)
        }
    }
    #[inline(always)]
    fn belongs(&self, index: u32, handle: &Handle) -> bool {
        if index == 0 { self.0.belongs_to(handle) } else { self.1.belongs(index - 1, handle) }
    }
}

impl<S: Source, R: AnyCases> AnyCases for (S, R) {
    #[inline(always)]
    fn ready(&self) -> u32 {
        u32::from(self.0.is_ready()) | self.1.ready() << 1
    }
    #[inline(always)]
    fn glance(&self) -> Glance {
        self.0.glance().before(self.1.glance())
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.0.before_sleep(blocking)?;
        self.1.before_sleep(blocking)
    }
    fn after_sleep(&self) -> u32 {
        // The rest is withdrawn also when this case panics.
        let rest = Published::new(&self.1, true);
        self.0.after_sleep();
        u32::from(self.0.internals().is_chosen()) | rest.withdraw() << 1
    }
    fn foreign(&self, handle: &Handle) -> Option<u32> {
        if !self.0.belongs_to(handle) {
            return Some(0);
        }
        self.1.foreign(handle).map(|index| index + 1)
    }
    fn internals(&self, index: u32) -> Option<Internals<'_>> {
        if index == 0 { Some(self.0.internals()) } else { self.1.internals(index - 1) }
    }
}

/// Waits for one of the cases, as long as it takes.
#[inline(always)]
pub fn wait<C: Cases>(handle: &Handle, cases: &C, biased: bool) -> io::Result<C::Item> {
    match run(handle, cases, biased, Patience::Endless) {
        Ok(Some(item)) => Ok(item),
        Ok(None) => unreachable!("an endless wait does not time out"),
        Err(error) => Err(error),
    }
}

/// Takes from one of the cases if one is ready.
#[inline]
pub fn now<C: Cases>(handle: &Handle, cases: &C, biased: bool) -> io::Result<Option<C::Item>> {
    run(handle, cases, biased, Patience::None)
}

/// Waits for one of the cases for at most `timeout`.
#[inline]
pub fn until<C: Cases>(
    handle: &Handle,
    cases: &C,
    biased: bool,
    timeout: Duration,
) -> io::Result<Option<C::Item>> {
    run(handle, cases, biased, Patience::of(handle, timeout))
}

/// Panics: the driver of a `select!` without an `error` case has failed.
#[cold]
#[track_caller]
pub fn fail(error: io::Error) -> ! {
    crate::reactor::strand();
    panic!("pollmux: select! failed: {error} (an `error -> e` case would receive this)")
}

#[inline(always)]
fn run<C: Cases>(
    handle: &Handle,
    cases: &C,
    biased: bool,
    patience: Patience,
) -> io::Result<Option<C::Item>> {
    handle.core.begin_turn();
    let glance = if handle.is_closed() {
        Glance::default()
    } else if matches!(patience, Patience::None) {
        Glance::all_sure(cases.ready())
    } else {
        cases.glance()
    };
    let mut ready = glance.ready();
    if ready != 0 && glance.is_in_doubt() {
        // Each of the ready cases has the same chance, also one that a glance does not see.
        ready = cases.ready();
    }
    let mut mask = may_be_taken(handle, ready, cases);
    while mask != 0 {
        let index = choose(handle, mask, biased);
        if !cases.belongs(index, handle) {
            return Err(foreign(index));
        }
        if let Some(item) = cases.take(index) {
            return Ok(Some(item));
        }
        picked_nothing(handle, cases, index);
        mask &= !(1 << index);
    }
    let mut search = Search::new(handle, cases, biased, patience)?;
    if glance.is_in_doubt() {
        search.resolves_doubt()?;
    }
    while let Some(index) = search.next()? {
        if let Some(item) = cases.take(index) {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

/// Searches for a case to take from, after no case was ready.
fn search<C: Cases>(
    handle: &Handle,
    cases: &C,
    biased: bool,
    patience: Patience,
) -> io::Result<Option<C::Item>> {
    let mut search = Search::new(handle, cases, biased, patience)?;
    while let Some(index) = search.next()? {
        if let Some(item) = cases.take(index) {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

/// Returns the cases that may be taken, if those of `ready` are ready.
#[inline(always)]
fn may_be_taken(handle: &Handle, ready: u32, cases: &dyn AnyCases) -> u32 {
    if ready != 0 && handle.core.is_pressed() {
        // Closures that were posted before the ready messages were sent have to run first.
        return run_posts_before(handle, cases, ready);
    }
    ready
}

/// Returns the index of one of these cases: the first one, or each with the same probability.
#[inline(always)]
fn choose(handle: &Handle, mask: u32, biased: bool) -> u32 {
    if biased { mask.trailing_zeros() } else { handle.core.choose(mask) }
}

/// Runs the closures posted before the cases of `seen` were ready. Returns the cases that may be
/// taken.
#[cold]
#[inline(never)]
fn run_posts_before(handle: &Handle, cases: &dyn AnyCases, seen: u32) -> u32 {
    let core = &handle.core;
    let channel = |index| cases.internals(index).and_then(|internals| internals.channel());
    core.run_posts_before(bits(seen).filter_map(channel));
    let may_be_taken = |index: &u32| !channel(*index).is_some_and(|token| core.is_held(token));
    bits(cases.ready()).filter(may_be_taken).fold(0, |mask, index| mask | 1 << index)
}

/// Returns the indexes of the bits that are set.
fn bits(mask: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).filter(move |index| mask >> index & 1 != 0)
}

/// Notes that a case was ready and gave no item: its source spins if that goes on.
#[cold]
#[inline(never)]
fn picked_nothing(handle: &Handle, cases: &dyn AnyCases, index: u32) {
    if let Some(token) = cases.internals(index).and_then(|internals| internals.token()) {
        handle.core.picked_nothing(token);
    }
}

#[cold]
fn foreign(index: u32) -> io::Error {
    let text = format!("case {} of the select! is a source of another reactor", index + 1);
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The index of no case, which gives no item. Shortly before a deadline that is met by spinning,
/// this index takes the CPU through the caller's code, which is in no cache after a long sleep.
const NO_CASE: u32 = u32::MAX;

/// The slow path of a `select!`, when no case was ready at first. It gives the indexes of the cases
/// to take from, one after another, until one of them gives an item.
struct Search<'a> {
    handle: &'a Handle,
    cases: &'a dyn AnyCases,
    biased: bool,
    patience: Patience,
    /// Cases that are ready and were not tried.
    mask: u32,
    /// The case that was tried last, if it was in `mask`.
    tried: Option<u32>,
    /// The outcome of the sleep, until a case that was chosen during the sleep has been tried.
    slept: Option<io::Result<Blocked>>,
    /// The last look has begun: the answer is `None` unless that look finds a ready case.
    is_last: bool,
}

impl<'a> Search<'a> {
    #[inline(never)]
    fn new(
        handle: &'a Handle,
        cases: &'a dyn AnyCases,
        biased: bool,
        patience: Patience,
    ) -> io::Result<Search<'a>> {
        if handle.is_closed() {
            return Err(handle.core.gone());
        }
        if let Some(index) = cases.foreign(handle) {
            return Err(foreign(index));
        }
        let (mask, tried, slept, is_last) = (0, None, None, false);
        Ok(Search { handle, cases, biased, patience, mask, tried, slept, is_last })
    }

    /// Looks closely at the cases after a glance, unless a spin begins with glances, too.
    #[inline(never)]
    fn resolves_doubt(&mut self) -> io::Result<()> {
        if self.handle.core.spinner.spins_soon() { Ok(()) } else { self.look() }
    }

    /// Returns the index of the next case to take from, or [`NO_CASE`]. `None` if no case is ready
    /// within the patience.
    #[inline(never)]
    fn next(&mut self) -> io::Result<Option<u32>> {
        if let Some(index) = self.tried.take() {
            picked_nothing(self.handle, self.cases, index);
        }
        loop {
            if let Some(slept) = self.slept.take() {
                self.after_sleep(slept?)?;
                if self.mask == 0 && self.handle.core.takes_rehearsal() {
                    return Ok(Some(NO_CASE));
                }
            }
            if self.mask != 0 {
                let index = choose(self.handle, self.mask, self.biased);
                self.mask &= !(1 << index);
                self.tried = Some(index);
                return Ok(Some(index));
            }
            let until = match self.patience {
                Patience::None => {
                    if !self.looks_at_last()? {
                        return Ok(None);
                    }
                    continue;
                }
                Patience::Until(until) => Some(until),
                Patience::Endless => None,
            };
            let chosen = self.sleep(until);
            if chosen != 0 {
                return Ok(Some(choose(self.handle, chosen, self.biased)));
            }
        }
    }

    /// Sets `mask` to the cases that are ready and may be taken.
    fn look(&mut self) -> io::Result<()> {
        if self.handle.is_closed() {
            return Err(self.handle.core.gone());
        }
        self.mask = may_be_taken(self.handle, self.cases.ready(), self.cases);
        Ok(())
    }

    /// Sleeps. Returns a bit for each case that was chosen meanwhile.
    #[inline(always)] // see Notify::answer
    fn sleep(&mut self, until: Option<Time>) -> u32 {
        let (core, cases) = (&self.handle.core, self.cases);
        let published = Published::new(cases, false);
        let publish = |blocking: &mut BeforeSleep<'_>| published.publish(blocking);
        self.slept = Some(core.block(until, publish, cases));
        // A permit that is chosen and not taken goes back when the case is dropped.
        let chosen = published.withdraw();
        if chosen != 0 && core.is_pressed() {
            core.run_posts_before_chosen();
        }
        chosen
    }

    /// Looks after a sleep that had this outcome.
    fn after_sleep(&mut self, slept: Blocked) -> io::Result<()> {
        let core = &self.handle.core;
        if slept == Blocked::TimedOut {
            self.patience = Patience::None;
        } else {
            core.collect(Request::Wake);
            let until = if let Patience::Until(until) = self.patience { Some(until) } else { None };
            if core.looks_for_the_last_time(until) {
                self.patience = Patience::None;
            }
        }
        self.look()
    }

    /// Looks once more before `default` runs. Returns false if there is no case to look at.
    #[inline]
    fn looks_at_last(&mut self) -> io::Result<bool> {
        let core = &self.handle.core;
        if self.is_last {
            if !core.take_held() {
                return Ok(false);
            }
            // A message waits for posts, so the answer "nothing" would be wrong.
            core.look_behind_posts();
        } else {
            self.is_last = true;
            if !(core.is_any_held() | core.catches_up(false) | core.has_registered_fds()) {
                return Ok(false);
            }
            let cases = self.cases;
            let mut sources = (0..).map_while(|index| cases.internals(index));
            core.looks_at_last(!sources.all(|internals| internals.needs_no_look()));
        }
        self.look()?;
        Ok(true)
    }
}
