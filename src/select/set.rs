//! `Select`: a set of cases that may change, waited for as often as you like.
//!
//! Up to [`FEW`] cases are asked one by one, as a `select!` asks its own. Of more cases those that
//! are ready are found through the reactor's ready list (`many.rs`).
//!
//! Longer than 500 lines: more than a hundred of them are docs with examples.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::case::{Case, Receiving, SendCase, Taken};
use super::many::{Found, Published};
use super::{AnyCases, Cases};
use crate::channel::{self, Glance, Permit, SendError};
use crate::reactor::{AsHandle, BeforeSleep, Handle, Listed, Patience};
use crate::sources::{Internals, Outbox, OutboxPointer, Source};
use crate::wake::Look;

/// The most cases that are asked one by one: as many as a word has bits.
const FEW: usize = u32::BITS as usize;

/// A reusable set of receive and send cases, of any size, which may change between two waits.
///
/// A case owns its source or borrows it: pass `&inbox`, or an `Rc` of it, and keep the other one.
/// A [`Selected`] borrows nothing from the set, so cases come and go while you handle it.
///
/// The set gives the end of a channel or of a context for ever, as a `select!` does.
/// [`Handle::wait`] reports an end only until it was taken once.
///
/// # Cost
/// To add a case costs an allocation or two. A wait costs none. The set asks up to 32 cases one by
/// one. Of more cases it finds the ready ones through the reactor. A choice among n ready cases is
/// O(1), so a burst of n costs O(n). (The set asks send cases, rendezvous channels and sources of
/// your own one by one.) A [`biased`](Self::biased) set looks at all ready cases.
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
///
/// A set that changes, with cases that it shares:
///
/// ```
/// use pollmux::{Reactor, Select};
/// use std::rc::Rc;
///
/// let reactor = Reactor::new()?;
/// let mut select = Select::new(&reactor);
/// let mut inboxes = Vec::new(); // by index
/// for n in 0..3 {
///     let (sender, inbox) = reactor.channel(1)?;
///     let inbox = Rc::new(inbox);
///     assert_eq!(select.recv(inbox.clone()), n);
///     inboxes.push(inbox);
///     sender.send(n).unwrap();
/// }
/// let mut sum = 0;
/// while !select.is_empty() {
///     let chosen = select.wait()?;
///     let index = chosen.index();
///     match chosen.recv(&inboxes[index]) {
///         Some(Ok(n)) => sum += n,
///         _ => assert!(select.remove(index)), // its sender is gone
///     }
/// }
/// assert_eq!(sum, 3);
/// # std::io::Result::Ok(())
/// ```
pub struct Select<'a> {
    pub(super) handle: Handle,
    pub(super) cases: Vec<Option<Case<'a>>>,
    /// By index: the state of the channel that a case receives from, if that channel has a buffer.
    /// The case keeps the receiver where it is.
    buffers: Vec<Option<Arc<channel::State>>>,
    /// Indices that were removed.
    free: Vec<usize>,
    /// The first case of each source that is found through the ready list, by token.
    pub(super) listed: HashMap<u64, usize, BuildHasherDefault<TokenHasher>>,
    /// The cases that are asked one by one.
    pub(super) asked: Vec<usize>,
    pub(super) biased: bool,
    /// The number of cases that need a look at the fds.
    pub(super) look_for: usize,
    /// The cases that belong to other reactors, which are in none of the lists: their tokens mean
    /// other sources here.
    foreign: Vec<usize>,
    /// The cases that were found ready.
    pub(super) found: RefCell<Found>,
    /// The send case that was chosen last, and may have been forgotten.
    chosen: RefCell<Option<Rc<dyn Receiving + 'a>>>,
    /// The number of choices.
    choices: Cell<u64>,
}

impl<'a> Select<'a> {
    /// Makes an empty set, which chooses at random among the ready cases.
    pub fn new(reactor: &(impl AsHandle + ?Sized)) -> Select<'a> {
        Select {
            handle: reactor.as_ref().clone(),
            cases: Vec::new(),
            buffers: Vec::new(),
            free: Vec::new(),
            listed: HashMap::default(),
            asked: Vec::new(),
            biased: false,
            look_for: 0,
            foreign: Vec::new(),
            found: RefCell::default(),
            chosen: RefCell::default(),
            choices: Cell::default(),
        }
    }

    /// Makes an empty set, which chooses the ready case with the lowest index. O(ready).
    ///
    /// ```
    /// use pollmux::{Reactor, Select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let [first, second] = [(); 2].map(|()| reactor.after(Duration::ZERO));
    /// let mut select = Select::biased(&reactor);
    /// select.recv(&first);
    /// select.recv(&second);
    /// assert_eq!((select.len(), select.wait()?.index()), (2, 0));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn biased(reactor: &(impl AsHandle + ?Sized)) -> Select<'a> {
        let mut select = Select::new(reactor);
        select.biased = true;
        select
    }

    /// Adds a case that receives from `source`. Returns its index: the next number, or the number
    /// of a removed case.
    ///
    /// The source is a reference, an `Rc`, or the source itself. Several cases may have the same
    /// source.
    pub fn recv<S: Source + 'a>(&mut self, source: S) -> usize {
        let (belongs, internals) = (source.belongs_to(&self.handle), source.internals());
        let (listed, looked_for) = (internals.listed(), !internals.needs_no_look());
        let buffer = internals.buffer();
        self.add(Rc::new(source), buffer, listed, belongs, looked_for)
    }

    /// Adds a case that sends through `outbox`, which is a reference or an `Rc`. Returns its index.
    /// [`Selected`] has an example.
    pub fn send<T: 'a>(&mut self, outbox: impl OutboxPointer<T> + 'a) -> usize {
        let case = SendCase::new(outbox);
        let belongs = case.internals().belongs_to(&self.handle);
        self.add(Rc::new(case), None, None, belongs, false)
    }

    fn add(
        &mut self,
        source: Rc<dyn Receiving + 'a>,
        buffer: Option<Arc<channel::State>>,
        listed: Option<Listed>,
        belongs: bool,
        looked_for: bool,
    ) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.cases.push(None);
            self.buffers.push(None);
            self.cases.len() - 1
        });
        let next_same = match listed.as_ref().map(Listed::token) {
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
        let found_at = Cell::new(None);
        self.cases[index] = Some(Case { source, listed, next_same, looked_for, found_at });
        self.buffers[index] = buffer;
        if belongs {
            self.may_be_ready(index);
        }
        index
    }

    /// Takes the case with this index out. Returns true if there was such a case.
    ///
    /// # Cost
    /// O(1). O(n) if the source is in several of n cases, and for one of n cases that the set asks
    /// one by one.
    pub fn remove(&mut self, index: usize) -> bool {
        let Some(case) = self.cases.get_mut(index).and_then(Option::take) else { return false };
        self.buffers[index] = None;
        self.look_for -= usize::from(case.looked_for);
        self.found.get_mut().forget(&self.cases, &case);
        match case.listed.as_ref().map(Listed::token) {
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
    /// # Errors
    /// When there is no case, when one belongs to another reactor, when the reactor has been
    /// dropped, and when its driver fails.
    pub fn wait(&mut self) -> io::Result<Selected<'a>> {
        match self.run(Patience::Endless)? {
            Some(selected) => Ok(selected),
            None => unreachable!("an endless wait does not time out"),
        }
    }

    /// Chooses a case that is ready or due now. Returns `None` if there is none.
    ///
    /// # Errors
    /// The errors of [`wait`](Self::wait).
    ///
    /// # Cost
    /// While stale entries stand before due timers, the set asks every case. `None` then costs as
    /// much as [`Handle::try_wait`] for stale entries.
    ///
    /// ```
    /// use pollmux::{Reactor, Select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, inbox) = reactor.channel(1)?;
    /// let mut select = Select::new(&reactor);
    /// select.recv(&inbox);
    /// assert!(select.try_wait()?.is_none());
    /// assert!(select.wait_timeout(Duration::from_millis(1))?.is_none());
    /// tx.send(7).unwrap();
    /// let chosen = select.try_wait()?.unwrap();
    /// assert_eq!(chosen.recv(&inbox), Some(Ok(7)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_wait(&mut self) -> io::Result<Option<Selected<'a>>> {
        self.run(Patience::None)
    }

    /// Waits for a case for at most `timeout`. Returns `None` when that is over.
    ///
    /// # Errors
    /// The errors of [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<Selected<'a>>> {
        self.run(Patience::of(&self.handle, timeout))
    }

    fn run(&mut self, patience: Patience) -> io::Result<Option<Selected<'a>>> {
        self.give_back_forgotten();
        if self.is_empty() || !self.foreign.is_empty() {
            return Err(self.cannot_wait());
        }
        let index =
            if self.cases.len() <= FEW { self.run_few(patience) } else { self.run_many(patience) };
        Ok(index?.and_then(|index| self.selected(index)))
    }

    /// Returns the error of a set without a case, or with a case of another reactor.
    #[cold]
    fn cannot_wait(&self) -> io::Error {
        let text = match self.foreign.iter().min() {
            Some(index) => format!("case {index} of the Select is a source of another reactor"),
            None => String::from("the Select has no cases"),
        };
        io::Error::new(io::ErrorKind::InvalidInput, text)
    }

    /// The turns of a `select!`, with these cases. The first look finds candidates. Only the chosen
    /// one is looked at closely.
    fn run_few(&self, patience: Patience) -> io::Result<Option<usize>> {
        let (handle, few) = (&self.handle, Few(self));
        handle.core.take_out_told();
        handle.core.begin_turn();
        let mut mask = if handle.is_closed() {
            0
        } else {
            super::may_be_taken(handle, few.candidates(), &few)
        };
        while mask != 0 {
            let index = super::choose(handle, mask, self.biased);
            if few.confirms(index) {
                if let Some(index) = few.take(index) {
                    return Ok(Some(index));
                }
                super::picked_nothing(handle, &few, index);
            }
            mask &= !(1 << index);
        }
        super::search(handle, &few, self.biased, patience)
    }

    pub(super) fn asked(&self) -> impl Iterator<Item = (usize, &(dyn Receiving + 'a))> {
        self.asked.iter().filter_map(|&index| Some((index, &*self.cases[index].as_ref()?.source)))
    }

    /// Makes sure that the case can be completed. A permit or an item stays with the case.
    #[inline(always)]
    pub(super) fn reserve(&self, index: usize) -> bool {
        let choice = self.choices.get() + 1;
        self.choices.set(choice);
        let Some(case) = &self.cases[index] else { return false };
        if case.listed.is_some() {
            return true; // a source that is listed keeps nothing for a choice
        }
        *self.chosen.borrow_mut() = Some(case.source.clone());
        case.source.hold(choice)
    }

    fn selected(&self, index: usize) -> Option<Selected<'a>> {
        let source = self.cases[index].as_ref()?.source.clone();
        Some(Selected { source, index, choice: self.choices.get(), completed: false })
    }

    /// Gives back the permit that a forgotten [`Selected`] has kept.
    fn give_back_forgotten(&mut self) {
        if let Some(source) = self.chosen.get_mut().take() {
            source.unreserve(self.choices.get());
        }
    }
}

impl Drop for Select<'_> {
    fn drop(&mut self) {
        self.give_back_forgotten();
    }
}

/// A set of at most [`FEW`] cases, as a `select!` has them. An item is the index of a case that can
/// be completed.
struct Few<'s, 'a>(&'s Select<'a>);

impl Few<'_, '_> {
    fn cases(&self) -> impl Iterator<Item = (u32, &Case<'_>)> {
        (0..).zip(&self.0.cases).filter_map(|(index, case)| Some((index, case.as_ref()?)))
    }

    /// Returns a bit for each case that is ready, and for some that are not:
    /// [`confirms`](Self::confirms) tells.
    #[inline(always)]
    fn candidates(&self) -> u32 {
        let mut mask = 0;
        for (index, (buffer, case)) in self.0.buffers.iter().zip(&self.0.cases).enumerate() {
            let is_candidate = match buffer {
                Some(buffer) => !buffer.is_quiet(),
                None => case.as_ref().is_some_and(|case| case.source.is_ready()),
            };
            // No branch: which channel has a message is hard to predict.
            mask |= u32::from(is_candidate) << index;
        }
        mask
    }

    /// Returns true if this candidate is ready.
    #[inline(always)]
    fn confirms(&self, index: u32) -> bool {
        let buffer = self.0.buffers[index as usize].as_ref();
        buffer.is_none_or(|buffer| buffer.look_at_news() == Look::Ready)
    }
}

impl Cases for Few<'_, '_> {
    type Item = usize;

    #[inline(always)]
    fn take(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        self.0.reserve(index).then_some(index)
    }
    fn belongs(&self, _: u32, _: &Handle) -> bool {
        true
    }
}

impl AnyCases for Few<'_, '_> {
    fn ready(&self) -> u32 {
        self.cases()
            .fold(0, |mask, (index, case)| mask | u32::from(case.source.is_ready()) << index)
    }
    fn glance(&self) -> Glance {
        Glance::all_sure(self.ready())
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.cases().try_for_each(|(_, case)| case.source.before_sleep(blocking))
    }
    fn after_sleep(&self) -> u32 {
        let left = 0..self.0.cases.len();
        let mut published = Published { select: self.0, left, with: None };
        let mut chosen = 0;
        while let Some((index, is_chosen)) = published.withdraw_next() {
            chosen |= u32::from(is_chosen) << index;
        }
        chosen
    }
    fn foreign(&self, _: &Handle) -> Option<u32> {
        None
    }
    fn internals(&self, index: u32) -> Option<Internals<'_>> {
        let case = self.0.cases.get(index as usize)?;
        let removed = || Internals::default().without_look();
        Some(case.as_ref().map_or_else(removed, |case| case.source.internals()))
    }
}

impl_debug!([] Select<'_>, |it| cases: it.len(), biased: it.biased);

/// The case that a [`Select`] has chosen: complete it with [`recv`](Self::recv) or
/// [`send`](Self::send), before the next wait of the set.
///
/// A send case that is not completed gives its room back. A receive case that is not completed
/// leaves the item in its source. After `mem::forget` the next wait gives the room back, or the
/// drop of the `Select`. The case itself is a leak then, with the source if the case owns it.
///
/// ```
/// use pollmux::{Reactor, Select};
///
/// let reactor = Reactor::new()?;
/// let (tx, inbox) = reactor.channel(1)?;
/// let outbox = reactor.register(tx)?;
/// let mut select = Select::new(&reactor);
/// let (receive, send) = (select.recv(&inbox), select.send(&outbox));
/// for n in 0..4 {
///     let chosen = select.wait()?; // a send, then a receive, and so on
///     match chosen.index() {
///         index if index == send => chosen.send(&outbox, n).unwrap(),
///         index if index == receive => assert_eq!(chosen.recv(&inbox), Some(Ok(n - 1))),
///         _ => unreachable!(),
///     }
/// }
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the chosen case gives it up: complete it by `recv` or `send`"]
pub struct Selected<'a> {
    source: Rc<dyn Receiving + 'a>,
    index: usize,
    choice: u64,
    completed: bool,
}

impl Selected<'_> {
    /// The index of the case.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Receives from the source of the case. Returns `None` if a source of your own was not ready
    /// after all. A channel always has its message, and so has a rendezvous.
    ///
    /// # Panics
    /// When the chosen case is not a receive case of this source.
    pub fn recv<S: Source>(mut self, source: &S) -> Option<S::Item> {
        assert!(
            self.source.receives(source.address()),
            "pollmux: case {} of the Select is not a receive case of this source",
            self.index
        );
        let item = source.try_take();
        self.completed = item.is_some();
        item
    }

    /// Sends through the outbox of the case. Never waits.
    ///
    /// # Errors
    /// When the receiver is gone. The error gives the value back.
    ///
    /// # Panics
    /// When the chosen case is not a send case of this outbox. When the set has waited again, or
    /// was dropped, since it chose the case: the room was given back then.
    pub fn send<T>(mut self, outbox: &Outbox<T>, value: T) -> Result<(), SendError<T>> {
        let taken = self.source.take_out(ptr::from_ref(outbox).cast(), self.choice);
        let void = match taken {
            Taken::Permit => false,
            Taken::Void => true,
            Taken::GivenBack => panic!(
                "pollmux: case {} of the Select was chosen before its last wait, or the Select is \
                 gone: complete a case before the next one is chosen",
                self.index
            ),
            Taken::NotThisOutbox => panic!(
                "pollmux: case {} of the Select is not a send case of this outbox",
                self.index
            ),
        };
        self.completed = true;
        Permit::kept(outbox.sender(), void).send(value)
    }
}

impl Drop for Selected<'_> {
    fn drop(&mut self) {
        if !self.completed {
            self.source.unreserve(self.choice);
            // The source was ready and nothing was taken: it spins if that goes on.
            self.source.internals().picked_nothing();
        }
    }
}

impl_debug!([] Selected<'_>, |it| index: it.index);

/// Tokens are numbers that we have given out ourselves: one multiplication spreads them.
#[derive(Default)]
pub(super) struct TokenHasher(u64);

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
