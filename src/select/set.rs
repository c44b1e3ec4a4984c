//! `Select`: a set of cases built at run time, once, and waited for as often as you like.
//!
//! The sources of this crate are found through the reactor's ready list, so that a turn costs what
//! is ready and not what is in the set. Send cases, rendezvous and sources of the user's own are
//! asked one by one.
//!
//! Longer than 500 lines: nearly all of it is `Select`, with the docs and examples
//! of its methods.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::channel::{Permit, SendError};
use crate::reactor::{AsHandle, BeforeSleep, Blocked, Core, Handle, Patience};
use crate::sources::{Outbox, Sending, Source};
use crate::wake::Request;

/// A reusable set of receive and send cases, of any size.
///
/// The end of a channel or of a context is given for ever, as in a `select!`, whoever took the end
/// before. [`Handle::wait`] reports an end only until it was taken once.
///
/// Adding and removing cases costs an allocation now and then; waiting costs none, and O(ready), of
/// the sources in the reactor or of those in the set, whichever are fewer. (Send cases, rendezvous
/// channels and sources of your own are asked one by one.)
///
/// ```
/// use pollmux::{Reactor, Select};
///
/// let reactor = Reactor::new()?;
/// let channels: Vec<_> = (0..1_000).map(|_| reactor.channel::<u32>(4)).collect::<Result<_, _>>()?;
/// let mut select = Select::new(&reactor);
/// for (_, inbox) in &channels {
///     select.recv(inbox); // the n-th case added has index n
/// }
/// channels[700].0.send(7).unwrap();
///
/// let chosen = select.wait()?;
/// let (_, inbox) = &channels[chosen.index()];
/// assert_eq!(chosen.recv(inbox), Some(Ok(7)));
/// # std::io::Result::Ok(())
/// ```
pub struct Select<'a> {
    handle: Handle,
    cases: Vec<Option<Case<'a>>>,
    /// Indices that were removed.
    free: Vec<usize>,
    /// The first case of each source that is found through the ready list, by token.
    listed: HashMap<u64, usize, BuildHasherDefault<TokenHasher>>,
    /// The cases that are asked one by one.
    asked: Vec<usize>,
    biased: bool,
    /// The number of cases that need a look at the fds.
    look_for: usize,
    /// The cases that belong to other reactors, which are in none of the lists: their tokens mean
    /// other sources here.
    foreign: Vec<usize>,
    /// The case that was chosen last, and may have been forgotten.
    chosen: Cell<Option<usize>>,
}

struct Case<'a> {
    source: Erased<'a>,
    token: Option<u64>,
    /// Another case of the same source.
    next_same: Option<usize>,
    looked_for: bool,
}

enum Erased<'a> {
    Recv(&'a dyn Receiving),
    Send(Box<dyn Receiving + 'a>),
}

/// A case with items or messages of any type. Choosing a send case takes a permit, which stays with
/// the case until it is used or given back.
trait Receiving {
    fn is_ready(&self) -> bool;
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()>;
    fn after_sleep(&self) -> bool;
    fn hold(&self) -> bool;
    /// The token of an end of a channel, which posts may hold.
    fn channel(&self) -> Option<u64> {
        None
    }
    /// Gives back the permit, if the other end has chosen this case and the set another one.
    fn give_up(&self) {}
    /// Gives back the permit that the case has kept.
    fn unreserve(&self) {}
    /// Takes the permit out, if this is a send case of this outbox. Returns true if the permit is
    /// one of a channel whose receiver is gone.
    fn take_out(&self, _outbox: *const ()) -> Option<bool> {
        None
    }
}

impl<S: Source> Receiving for S {
    fn is_ready(&self) -> bool {
        Source::is_ready(self)
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        Source::before_sleep(self, blocking)
    }
    fn after_sleep(&self) -> bool {
        Source::after_sleep(self);
        self.internals().is_chosen()
    }
    fn hold(&self) -> bool {
        self.internals().hold()
    }
    fn channel(&self) -> Option<u64> {
        self.internals().channel()
    }
}

struct SendCase<'a, T> {
    outbox: &'a Outbox<T>,
    sending: Sending<'a, T>,
    reserved: Cell<Reserved>,
}

/// The permit of a chosen case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reserved {
    #[default]
    Nothing,
    Permit,
    /// The receiver is gone: there is nothing to hold.
    Void,
}

impl<T> Receiving for SendCase<'_, T> {
    fn is_ready(&self) -> bool {
        Source::is_ready(&self.sending)
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        Source::before_sleep(&self.sending, blocking)
    }
    fn after_sleep(&self) -> bool {
        Source::after_sleep(&self.sending);
        self.sending.internals().is_chosen()
    }
    /// Takes the permit.
    fn hold(&self) -> bool {
        let Some(permit) = self.sending.try_take() else { return false };
        let void = permit.redeem().keep();
        self.reserved.set(if void { Reserved::Void } else { Reserved::Permit });
        true
    }
    fn give_up(&self) {
        self.sending.give_up();
    }
    fn unreserve(&self) {
        if self.reserved.take() == Reserved::Permit {
            drop(Permit::kept(self.outbox.sender(), false));
        }
    }
    fn take_out(&self, outbox: *const ()) -> Option<bool> {
        let same = std::ptr::addr_eq(&raw const *self.outbox, outbox);
        same.then(|| self.reserved.take() == Reserved::Void)
    }
}

impl<T> Drop for SendCase<'_, T> {
    /// A forgotten [`Selected`] has left its permit behind.
    fn drop(&mut self) {
        self.unreserve();
    }
}

impl Erased<'_> {
    fn source(&self) -> &dyn Receiving {
        match self {
            Erased::Recv(source) => *source,
            Erased::Send(case) => &**case,
        }
    }
}

impl<'a> Select<'a> {
    /// An empty set: uniform among what is ready.
    pub fn new(reactor: &(impl AsHandle + ?Sized)) -> Select<'a> {
        Select {
            handle: reactor.as_ref().clone(),
            cases: Vec::new(),
            free: Vec::new(),
            listed: HashMap::default(),
            asked: Vec::new(),
            biased: false,
            look_for: 0,
            foreign: Vec::new(),
            chosen: Cell::new(None),
        }
    }

    /// An empty set in which the ready case with the lowest index is chosen.
    pub fn biased(reactor: &(impl AsHandle + ?Sized)) -> Select<'a> {
        Select { biased: true, ..Select::new(reactor) }
    }

    /// Adds a case that receives from `source`; gives its index: the next number, or that of a
    /// removed case.
    ///
    /// The same source may be in several cases.
    pub fn recv<S: Source>(&mut self, source: &'a S) -> usize {
        let (belongs, internals) = (source.belongs_to(&self.handle), source.internals());
        self.add(Erased::Recv(source), internals.token(), belongs, !internals.needs_no_look())
    }

    /// Adds a case that sends through `outbox`; gives its index.
    pub fn send<T>(&mut self, outbox: &'a Outbox<T>) -> usize {
        let sending = Sending::new(outbox);
        let belongs = sending.belongs_to(&self.handle);
        self.add(
            Erased::Send(Box::new(SendCase { outbox, sending, reserved: Cell::default() })),
            None,
            belongs,
            false,
        )
    }

    fn add(
        &mut self,
        source: Erased<'a>,
        token: Option<u64>,
        belongs: bool,
        looked_for: bool,
    ) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.cases.push(None);
            self.cases.len() - 1
        });
        let next_same = match token {
            _ if !belongs => {
                self.foreign.push(index);
                None
            }
            Some(token) => self.listed.insert(token, index),
            None => {
                self.asked.push(index);
                None
            }
        };
        self.look_for += usize::from(looked_for);
        self.cases[index] = Some(Case { source, token, next_same, looked_for });
        index
    }

    /// Takes the case with this index out. Returns true if there was one. O(1) for a source that is
    /// in one case.
    pub fn remove(&mut self, index: usize) -> bool {
        let Some(case) = self.cases.get_mut(index).and_then(Option::take) else { return false };
        self.look_for -= usize::from(case.looked_for);
        match case.token {
            _ if self.foreign.contains(&index) => self.foreign.retain(|&other| other != index),
            Some(token) => self.unlink(token, index, case.next_same),
            None => self.asked.retain(|&other| other != index),
        }
        self.free.push(index);
        true
    }

    fn unlink(&mut self, token: u64, index: usize, next: Option<usize>) {
        if self.listed.get(&token) == Some(&index) {
            match next {
                Some(next) => self.listed.insert(token, next),
                None => self.listed.remove(&token),
            };
            return;
        }
        for case in self.cases.iter_mut().flatten() {
            if case.next_same == Some(index) {
                case.next_same = next;
            }
        }
    }

    /// The number of cases.
    pub fn len(&self) -> usize {
        self.cases.len() - self.free.len()
    }

    /// Returns true if there is no case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a case as long as it takes.
    ///
    /// Fails when there is no case, when one belongs to another reactor, when the reactor has been
    /// dropped, and when its driver fails.
    pub fn wait(&mut self) -> io::Result<Selected<'_, 'a>> {
        match self.run(Patience::Endless)? {
            Some(index) => Ok(Selected::new(self, index)),
            None => unreachable!("an endless wait does not time out"),
        }
    }

    /// A case that is ready or due now, if one is. Fails as [`wait`](Self::wait) does. While stale
    /// entries stand before due timers every case is asked; `None` then costs what
    /// [`Handle::try_wait`] says.
    pub fn try_wait(&mut self) -> io::Result<Option<Selected<'_, 'a>>> {
        Ok(self.run(Patience::None)?.map(|index| Selected::new(self, index)))
    }

    /// Waits for a case for at most `timeout`. Fails as [`wait`](Self::wait) does.
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<Selected<'_, 'a>>> {
        Ok(self.run(Patience::of(&self.handle, timeout))?.map(|index| Selected::new(self, index)))
    }

    fn run(&self, mut patience: Patience) -> io::Result<Option<usize>> {
        let core = &self.handle.core;
        if self.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the Select has no cases"));
        }
        if let Some(index) = self.foreign.iter().min() {
            let text = format!("case {index} of the Select is a source of another reactor");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.handle.is_closed() {
            return Err(core.gone());
        }
        self.give_back_forgotten();
        core.begin_turn();
        core.take_out_told();
        let mut caught_up = false;
        loop {
            core.collect(Request::Mark);
            let pressed = core.is_pressed();
            if pressed {
                // Asked for before what was collected was sent, perhaps.
                let ready = self.asked().filter(|(_, case)| case.source().is_ready());
                core.run_posts_and_collect(ready.filter_map(|(_, case)| case.source().channel()));
            }
            if let Some(index) = self.choose(core, pressed) {
                return Ok(Some(index));
            }
            if self.handle.is_closed() {
                return Err(core.gone());
            }
            let until = match patience {
                Patience::None if core.take_held() => {
                    core.look_behind_posts();
                    continue;
                }
                // Takes one more look before the `Select` gives up.
                Patience::None if !caught_up && self.catches_up() => {
                    caught_up = true;
                    continue;
                }
                Patience::None => return Ok(None),
                Patience::Until(until) => Some(until),
                Patience::Endless => None,
            };
            let publish = |blocking: &mut BeforeSleep<'_>| {
                self.asked().try_for_each(|(_, case)| case.source().before_sleep(blocking))
            };
            let mut published = Published { select: self, next: 0 };
            let blocked = core.block(until, publish, || self.candidates(core).next().is_some());
            let (mut seen, mut chosen) = (0, None);
            while let Some((index, is_chosen)) = published.withdraw_next() {
                if is_chosen {
                    seen += 1;
                    chosen = self.better(core, seen, chosen, index);
                }
            }
            if chosen.is_some() && core.is_pressed() {
                core.run_posts_before_chosen();
            }
            let chosen = chosen.filter(|&index| self.reserve(index));
            if seen > 1 {
                self.asked().for_each(|(_, case)| case.source().give_up());
            }
            if chosen.is_some() {
                return Ok(chosen);
            }
            if blocked? == Blocked::TimedOut || core.looks_for_the_last_time(until) {
                patience = Patience::None;
            }
        }
    }

    /// Does the work that the turn has left undone. Returns true if there was any.
    #[cold]
    #[inline(never)]
    fn catches_up(&self) -> bool {
        let core = &self.handle.core;
        core.catches_up(false) | core.looks_at_last(self.look_for > 0)
    }

    fn asked(&self) -> impl Iterator<Item = (usize, &Erased<'a>)> {
        self.asked.iter().filter_map(|&index| Some((index, &self.cases[index].as_ref()?.source)))
    }

    /// The cases that are ready, found through the ready list, or, when that has more in it than
    /// the set, by asking the set.
    fn candidates<'s>(&'s self, core: &'s Core) -> impl Iterator<Item = usize> + 's {
        let few =
            core.ready_len() <= self.len() && (!core.has_unlisted() || self.goes_by_lists(core));
        let listed = self.listed(core.ready_tokens().take(if few { usize::MAX } else { 0 }));
        let asked = self.asked.iter().copied().take(if few { usize::MAX } else { 0 });
        let every = 0..if few { 0 } else { self.cases.len() };
        let is_ready = |index: &usize| match &self.cases[*index] {
            Some(Case { token: Some(token), .. }) => core.is_listed(*token),
            case => case.as_ref().is_some_and(|case| case.source.source().is_ready()),
        };
        listed.chain(asked.chain(every).filter(is_ready))
    }

    /// Returns true if the lists are asked, and not every case.
    #[cold]
    #[inline(never)]
    fn goes_by_lists(&self, core: &Core) -> bool {
        core.ready_len() + core.ended_len() <= self.len() && !core.is_behind()
    }

    /// The cases at an end that has been taken before, unless [`candidates`](Self::candidates) has
    /// asked every case.
    #[cold]
    fn ended<'s>(&'s self, core: &'s Core) -> impl Iterator<Item = usize> + 's {
        let all = if self.goes_by_lists(core) { usize::MAX } else { 0 };
        self.listed(core.ended_tokens().take(all))
    }

    /// The cases of these tokens.
    #[inline]
    fn listed<'s>(
        &'s self,
        tokens: impl Iterator<Item = u64> + 's,
    ) -> impl Iterator<Item = usize> + 's {
        let same = |index: &usize| self.cases[*index].as_ref()?.next_same;
        tokens
            .filter_map(|token| self.listed.get(&token).copied())
            .flat_map(move |first| std::iter::successors(Some(first), same))
    }

    /// Chooses one of the cases that are ready, and reserves what it needs. If `pressed`, messages
    /// that wait for posts are left out.
    fn choose(&self, core: &Core, pressed: bool) -> Option<usize> {
        loop {
            let (mut seen, mut chosen) = (0u32, None);
            for index in self.candidates(core) {
                let channel = || self.cases[index].as_ref()?.source.source().channel();
                if pressed && channel().is_some_and(|token| core.is_held(token)) {
                    continue;
                }
                seen += 1;
                chosen = self.better(core, seen, chosen, index);
            }
            if core.has_unlisted() {
                for index in self.ended(core) {
                    seen += 1;
                    chosen = self.better(core, seen, chosen, index);
                }
            }
            // Another sender may have taken the room meanwhile: then the others are asked again.
            match chosen {
                Some(index) if !self.reserve(index) => {}
                chosen => return chosen,
            }
        }
    }

    /// The choice after the n-th candidate has come. The candidate replaces the choice before with
    /// probability 1/n: uniform in one pass.
    fn better(&self, core: &Core, n: u32, chosen: Option<usize>, index: usize) -> Option<usize> {
        match chosen {
            Some(other) if self.biased => Some(other.min(index)),
            Some(other) if core.random_below(n) != 0 => Some(other),
            _ => Some(index),
        }
    }

    /// Makes sure that the case can be completed. A permit or an item stays with the case.
    fn reserve(&self, index: usize) -> bool {
        self.chosen.set(Some(index));
        self.cases[index].as_ref().is_some_and(|case| case.source.source().hold())
    }

    /// Gives back the permit that a forgotten [`Selected`] has kept.
    fn give_back_forgotten(&self) {
        if let Some(Some(case)) = self.chosen.take().and_then(|index| self.cases.get(index)) {
            case.source.source().unreserve();
        }
    }
}

/// Cases that have published their requests: withdrawn in any case.
struct Published<'s, 'a> {
    select: &'s Select<'a>,
    next: usize,
}

impl Published<'_, '_> {
    /// The next case that is asked, and true if the other end has chosen the case.
    fn withdraw_next(&mut self) -> Option<(usize, bool)> {
        loop {
            let index = *self.select.asked.get(self.next)?;
            self.next += 1;
            if let Some(case) = &self.select.cases[index] {
                return Some((index, case.source.source().after_sleep()));
            }
        }
    }
}

impl Drop for Published<'_, '_> {
    fn drop(&mut self) {
        // A panic may be on its way already: a second one would abort the process.
        while let Ok(Some(_)) | Err(_) = catch_unwind(AssertUnwindSafe(|| self.withdraw_next())) {}
    }
}

impl_debug!([] Select<'_>, |it| cases: it.len(), biased: it.biased);

/// The case that a [`Select`] has chosen: complete it with [`recv`](Self::recv) or
/// [`send`](Self::send).
///
/// A send case that is not completed gives its room back. After `mem::forget` the next wait gives
/// it back, or the drop of the `Select`. A receive case that is not completed leaves the item where
/// it is.
#[must_use = "dropping the chosen case gives it up: complete it by `recv` or `send`"]
pub struct Selected<'s, 'a> {
    select: &'s Select<'a>,
    index: usize,
    completed: bool,
}

impl<'s, 'a> Selected<'s, 'a> {
    fn new(select: &'s Select<'a>, index: usize) -> Selected<'s, 'a> {
        Selected { select, index, completed: false }
    }

    /// The index of the case.
    pub fn index(&self) -> usize {
        self.index
    }

    /// A ready case was chosen and nothing was taken: its source spins if that goes on. (Send cases
    /// have no token.)
    #[cold]
    fn took_nothing(&self) {
        let case = self.select.cases[self.index].as_ref();
        if let Some(token) = case.and_then(|case| case.token) {
            self.select.handle.core.picked_nothing(token);
        }
    }

    fn case(&self) -> &Erased<'a> {
        match &self.select.cases[self.index] {
            Some(case) => &case.source,
            None => unreachable!("a set does not change while a case of it is chosen"),
        }
    }

    /// Receives from the source of the case. Gives `None` if the source was not ready after all,
    /// which happens to sources of your own. A channel has its message, and so has a rendezvous.
    ///
    /// # Panics
    /// When the chosen case is not a receive case of this source.
    pub fn recv<S: Source>(mut self, source: &S) -> Option<S::Item> {
        let same = match self.case() {
            Erased::Recv(case) => std::ptr::addr_eq(&raw const **case, &raw const *source),
            Erased::Send(_) => false,
        };
        assert!(
            same,
            "pollmux: case {} of the Select is not a receive case of this source",
            self.index
        );
        let item = source.try_take();
        self.completed = item.is_some();
        item
    }

    /// Sends through the outbox of the case. Never waits; the value comes back when the receiver is
    /// gone.
    ///
    /// # Panics
    /// When the chosen case is not a send case of this outbox.
    pub fn send<T>(mut self, outbox: &Outbox<T>, value: T) -> Result<(), SendError<T>> {
        let Some(void) = self.case().source().take_out((&raw const *outbox).cast()) else {
            panic!("pollmux: case {} of the Select is not a send case of this outbox", self.index);
        };
        self.completed = true;
        Permit::kept(outbox.sender(), void).send(value)
    }
}

impl Drop for Selected<'_, '_> {
    fn drop(&mut self) {
        if !self.completed {
            self.case().source().unreserve();
            self.took_nothing();
        }
    }
}

impl_debug!([] Selected<'_, '_>, |it| index: it.index);

/// Tokens are numbers that we have given out ourselves: one multiplication spreads them.
#[derive(Default)]
struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("tokens are u64");
    }
    fn write_u64(&mut self, token: u64) {
        self.0 = token.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
