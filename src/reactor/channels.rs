//! The ways in which a turn finds the channels that have messages: a look, or the marks of senders.

use std::cell::Cell;

use super::core::Core;
use super::parts::channels::Channels;
use super::parts::slots::NONE;
use crate::wake::{Look, Request};

impl Core {
    /// Brings the ready list up to date with the senders' marks, for a wait (`Mark`) or for a
    /// `select!` (`Wake`). A wait also looks at the channels that are near.
    #[inline(always)]
    pub(crate) fn collect(&self, request: Request) {
        let marking = request == Request::Mark;
        self.marking.set(marking);
        if self.notify.is_marked() || (marking && self.channels.borrow().has_listed()) {
            self.collect_marks(marking);
        }
    }

    #[inline(never)]
    fn collect_marks(&self, marking: bool) {
        let channels = &mut *self.channels.borrow_mut();
        if marking {
            let news = channels.near_news();
            if news != 0 {
                channels.take_near(&mut self.table.borrow_mut(), news);
            }
            if !(channels.unasked.is_empty() && channels.unsure.is_empty()) {
                let table = &mut *self.table.borrow_mut();
                channels.look_again(table);
                channels.ask_all(table);
            }
        }
        if self.notify.is_marked() {
            self.take_marks(channels, marking);
        }
    }

    fn take_marks(&self, channels: &mut Channels, marking: bool) {
        let table = &mut *self.table.borrow_mut();
        // Most often there is one mark.
        let (mut only, mut several) = (NONE, false);
        let marked = &mut channels.marked;
        self.notify.take_marks(|slot| {
            if only == NONE {
                only = slot;
                return;
            }
            if !several {
                several = true;
                marked.push((0, only));
            }
            marked.push((0, slot));
        });
        if several {
            channels.look_at_several(table, marking);
        } else if only != NONE {
            channels.look_at_marked(table, only, marking);
        }
    }

    /// Returns the requests of a sleep at the channels that are near. No request is made yet.
    pub(crate) fn asks_near(&self) -> AsksNear<'_> {
        AsksNear { core: self, asked: Cell::new(false) }
    }

    /// Returns true if a channel that is near has a message or its end, and is not ready yet. Notes
    /// a message that is coming.
    #[inline(always)]
    pub(crate) fn has_near_news(&self) -> bool {
        self.channels.borrow().has_near() && self.looks_near()
    }

    #[inline(never)]
    fn looks_near(&self) -> bool {
        let mut is_ready = false;
        for look in self.channels.borrow().looks_near(&self.table.borrow()) {
            match look {
                Look::Ready => is_ready = true,
                Look::Coming => self.note_coming(),
                Look::Quiet => {}
            }
        }
        is_ready
    }

    /// Notes that an outer loop sleeps for the reactor, or (`false`) does so no more.
    pub(super) fn keep_channels_apart(&self, apart: bool) {
        self.channels.borrow_mut().keep_apart(&mut self.table.borrow_mut(), apart);
    }

    /// Returns true if a source, or a registered channel, has to be looked at again in a moment.
    pub(super) fn is_unsure(&self) -> bool {
        self.sleep.napping.get() || self.marking.get() && !self.channels.borrow().unsure.is_empty()
    }
}

/// The requests of a sleep at the channels that are near. The drop withdraws them if they were
/// made. The requests of an outer wait, whose driver has called us, stay.
pub(crate) struct AsksNear<'a> {
    core: &'a Core,
    asked: Cell<bool>,
}

impl AsksNear<'_> {
    /// Asks for a wake-up. A fence and a look must follow.
    #[inline]
    pub(crate) fn ask(&self) {
        self.asked.set(true);
        let channels = self.core.channels.borrow();
        channels.begin_asking();
        if channels.has_near() {
            channels.ask_near(&self.core.table.borrow());
        }
    }

    pub(crate) fn are_made(&self) -> bool {
        self.asked.get()
    }
}

impl Drop for AsksNear<'_> {
    fn drop(&mut self) {
        if self.asked.get() {
            self.core.channels.borrow().unask_near();
        }
    }
}
