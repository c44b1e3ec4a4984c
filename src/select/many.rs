//! A `Select` of many cases: those that are ready are found through the reactor's lists.
//!
//! The set keeps the indexes of the cases that it has found ready, in any order. Before a choice it
//! looks only at the sources that have entered the reactor's lists since the last choice. Then it
//! draws an index, and forgets drawn cases that are ready no more. So a choice among n ready cases
//! is uniform and O(1).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::case::Case;
use super::set::Select;
use crate::reactor::{AsksNear, BeforeSleep, Blocked, Core, Listed, Next, Patience};
use crate::sys::Time;
use crate::wake::Request;

/// The cases that were found ready. Some of them may not be ready any more.
#[derive(Debug, Default)]
pub(super) struct Found {
    cases: Vec<usize>,
    /// The cases that are asked one by one and have answered "ready". They are kept for one choice.
    answered: Vec<usize>,
    /// The numbers of sources that had entered the reactor's lists by the last look.
    seen: [u64; 2],
    /// The case that was drawn last, which is often not ready any more.
    drawn: Option<usize>,
}

impl Found {
    /// Adds a case that may be ready.
    fn add(&mut self, index: usize, case: &Case<'_>) {
        if case.found_at.get().is_none() {
            case.found_at.set(Some(self.cases.len()));
            self.cases.push(index);
        }
    }

    /// Takes a case out that belongs to no set any more.
    pub(super) fn forget(&mut self, cases: &[Option<Case<'_>>], case: &Case<'_>) {
        if let Some(at) = case.found_at.take() {
            self.take_out(cases, at);
        }
    }

    /// Takes out the case at this place. The last case moves to the place.
    fn take_out(&mut self, cases: &[Option<Case<'_>>], at: usize) {
        let found_at = |index: usize| cases[index].as_ref().map(|case| &case.found_at);
        let gone = self.cases.swap_remove(at);
        found_at(gone).inspect(|place| place.set(None));
        if let Some(&moved) = self.cases.get(at) {
            found_at(moved).inspect(|place| place.set(Some(at)));
        }
    }
}

impl Select<'_> {
    /// Notes that a case was added, whose source may be ready already. Makes room, so that no wait
    /// allocates.
    pub(super) fn may_be_ready(&mut self, index: usize) {
        let found = self.found.get_mut();
        found.cases.reserve(self.cases.len() - found.cases.len());
        found.answered.reserve(self.asked.len());
        if let Some(case) = self.cases[index].as_ref().filter(|case| case.listed.is_some()) {
            found.add(index, case);
        }
    }

    pub(super) fn run_many(&self, mut patience: Patience) -> io::Result<Option<usize>> {
        let core = &self.handle.core;
        if self.handle.is_closed() {
            return Err(core.gone());
        }
        core.begin_turn();
        core.take_out_told();
        let mut caught_up = false;
        loop {
            core.collect(Request::Mark);
            let pressed = core.is_pressed();
            if pressed {
                // These cases may have been asked before the collected messages were sent.
                let ready = self.asked().filter(|(_, source)| source.is_ready());
                core.run_posts_and_collect(
                    ready.filter_map(|(_, source)| source.internals().channel()),
                );
            }
            if let Some(index) = self.choose(pressed) {
                return Ok(Some(index));
            }
            if self.handle.is_closed() {
                return Err(core.gone());
            }
            let until = match core.after_nothing(patience, &mut caught_up, || self.catches_up()) {
                Next::Look => continue,
                Next::End => return Ok(None),
                Next::Sleep(until) => until,
            };
            let (chosen, blocked) = self.sleep(until);
            if chosen.is_some() {
                return Ok(chosen);
            }
            if blocked? == Blocked::TimedOut || core.looks_for_the_last_time(until) {
                patience = Patience::None;
            }
        }
    }

    /// Sleeps. Returns a case that another end has chosen meanwhile, and the outcome of the sleep.
    fn sleep(&self, until: Option<Time>) -> (Option<usize>, io::Result<Blocked>) {
        let core = &self.handle.core;
        let asks = core.asks_near();
        let publish = |blocking: &mut BeforeSleep<'_>| {
            asks.ask();
            self.asked().try_for_each(|(_, source)| source.before_sleep(blocking))
        };
        let left = self.asked.iter().copied();
        let mut published = Published { select: self, left, with: Some(&asks) };
        let blocked = core.block(until, publish, || core.has_near_news() | self.has_ready());
        // One end deals with a party that sleeps (`wake/ticket.rs`), so at most one case is chosen.
        let mut chosen = None;
        while let Some((index, is_chosen)) = published.withdraw_next() {
            chosen = if is_chosen { Some(index) } else { chosen };
        }
        if chosen.is_some() && core.is_pressed() {
            core.run_posts_before_chosen();
        }
        (chosen.filter(|&index| self.reserve(index)), blocked)
    }

    /// Does the work that the turn has left undone. Returns true if there was some.
    #[cold]
    #[inline(never)]
    fn catches_up(&self) -> bool {
        let core = &self.handle.core;
        core.catches_up(false) | core.looks_at_last(self.look_for > 0)
    }

    /// Finds the cases whose sources have entered the reactor's lists since the last look.
    #[inline(always)]
    fn look_for_news(&self, found: &mut Found) {
        let entered = self.handle.core.entered();
        if entered != found.seen {
            self.find_news(found, entered);
        }
    }

    #[inline(never)]
    fn find_news(&self, found: &mut Found, entered: [u64; 2]) {
        let core = &self.handle.core;
        let news = [0, 1].map(|list| entered[list].wrapping_sub(found.seen[list]));
        found.seen = entered;
        if news.iter().any(|&news| news > self.len() as u64) {
            for (index, case) in self.cases.iter().enumerate() {
                let is_ready =
                    |case: &&Case<'_>| case.listed.as_ref().is_some_and(Listed::is_ready);
                if let Some(case) = case.as_ref().filter(is_ready) {
                    found.add(index, case);
                }
            }
            return;
        }
        core.for_newest(news, |token| {
            let mut next = self.listed.get(&token).copied();
            while let Some((index, case)) = next.and_then(|i| Some((i, self.cases[i].as_ref()?))) {
                found.add(index, case);
                next = case.next_same;
            }
        });
    }

    /// Returns true if the case is ready.
    fn is_ready(&self, index: usize) -> bool {
        match &self.cases[index] {
            Some(Case { listed: Some(listed), .. }) => listed.is_ready(),
            case => case.as_ref().is_some_and(|case| case.source.is_ready()),
        }
    }

    /// Returns true if some case is ready.
    fn has_ready(&self) -> bool {
        if self.handle.core.is_behind() {
            return (0..self.cases.len()).any(|index| self.is_ready(index));
        }
        let found = &mut *self.found.borrow_mut();
        self.look_for_news(found);
        while let Some(&last) = found.cases.last() {
            if self.is_ready(last) {
                return true;
            }
            found.take_out(&self.cases, found.cases.len() - 1);
        }
        self.asked().any(|(_, source)| source.is_ready())
    }

    /// Chooses one of the ready cases, and reserves the room or the value that it needs. If
    /// `pressed`, messages that wait for posts are left out.
    fn choose(&self, pressed: bool) -> Option<usize> {
        loop {
            let chosen = if pressed || self.biased || self.handle.core.is_behind() {
                self.choose_by_looking(pressed)
            } else {
                self.draw()
            };
            // Another sender may have taken the room meanwhile. Then the other cases are asked
            // again.
            match chosen {
                Some(index) if !self.reserve(index) => {}
                chosen => return chosen,
            }
        }
    }

    /// Draws one of the cases that are ready.
    fn draw(&self) -> Option<usize> {
        let found = &mut *self.found.borrow_mut();
        found.answered.clear();
        if !self.asked.is_empty() {
            let ready = self.asked().filter(|(_, source)| source.is_ready());
            found.answered.extend(ready.map(|(index, _)| index));
        }
        if let Some(drawn) = found.drawn.take() {
            let at = self.cases[drawn].as_ref().and_then(|case| case.found_at.get());
            if let (Some(at), false) = (at, self.is_ready(drawn)) {
                found.take_out(&self.cases, at);
            }
        }
        self.look_for_news(found);
        loop {
            let at = match found.cases.len() + found.answered.len() {
                0 => return None,
                1 => 0,
                all => self.handle.core.random_below(all as u32) as usize,
            };
            let Some(&index) = found.cases.get(at) else {
                return Some(found.answered[at - found.cases.len()]);
            };
            if self.is_ready(index) {
                found.drawn = Some(index);
                return Some(index);
            }
            found.take_out(&self.cases, at);
        }
    }

    /// Looks at each case that may be ready.
    #[cold]
    #[inline(never)]
    fn choose_by_looking(&self, pressed: bool) -> Option<usize> {
        let core = &self.handle.core;
        let found = &mut *self.found.borrow_mut();
        self.look_for_news(found);
        let (mut seen, mut chosen) = (0, None);
        let mut look_at = |index: usize| {
            let Some(case) = self.cases[index].as_ref().filter(|_| self.is_ready(index)) else {
                return;
            };
            let channel = || case.source.internals().channel();
            if !(pressed && channel().is_some_and(|token| core.is_held(token))) {
                seen += 1;
                chosen = self.better(core, seen, chosen, index);
            }
        };
        if core.is_behind() {
            // Due timers may be missing in the lists.
            (0..self.cases.len()).for_each(&mut look_at);
        } else {
            found.cases.iter().chain(&self.asked).copied().for_each(&mut look_at);
        }
        chosen
    }

    /// Returns the choice after the n-th candidate has come. The candidate replaces the choice
    /// before with probability 1/n: uniform in one pass.
    fn better(&self, core: &Core, n: u32, chosen: Option<usize>, index: usize) -> Option<usize> {
        match chosen {
            Some(other) if self.biased => Some(other.min(index)),
            Some(other) if core.random_below(n) != 0 => Some(other),
            _ => Some(index),
        }
    }
}

/// Cases that have published their requests. The drop withdraws the requests.
pub(super) struct Published<'s, 'a, I: Iterator<Item = usize>> {
    pub(super) select: &'s Select<'a>,
    pub(super) left: I,
    /// `Some` if the requests of this wait are published. If not, the requests that exist are those
    /// of an outer wait, whose driver has called us. They stay.
    pub(super) with: Option<&'s AsksNear<'s>>,
}

impl<I: Iterator<Item = usize>> Published<'_, '_, I> {
    /// Withdraws the next case. Returns the case, and true if the other end has chosen it.
    pub(super) fn withdraw_next(&mut self) -> Option<(usize, bool)> {
        if self.with.is_some_and(|asks| !asks.are_made()) {
            return None;
        }
        self.left.find_map(|index| {
            self.select.cases[index].as_ref().map(|case| (index, case.source.after_sleep()))
        })
    }
}

impl<I: Iterator<Item = usize>> Drop for Published<'_, '_, I> {
    fn drop(&mut self) {
        // The thread may unwind already: a second panic would abort the process.
        while let Ok(Some(_)) | Err(_) = catch_unwind(AssertUnwindSafe(|| self.withdraw_next())) {}
    }
}
