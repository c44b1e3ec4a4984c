//! The marks of senders, collected by a turn.

use super::core::Core;
use super::parts::channels::Channels;
use super::parts::slots::NONE;
use crate::wake::Request;

impl Core {
    /// Brings the ready list up to date with the senders' marks, for a wait (`Mark`) or for a
    /// `select!` (`Wake`).
    #[inline]
    pub(crate) fn collect(&self, request: Request) {
        let marking = request == Request::Mark;
        self.marking.set(marking);
        if marking || self.notify.is_marked() {
            self.collect_marks(marking);
        }
    }

    fn collect_marks(&self, marking: bool) {
        let channels = &mut *self.channels.borrow_mut();
        let Channels { unasked, unsure, once, .. } = &*channels;
        if marking && !(unasked.is_empty() && unsure.is_empty() && once.is_empty()) {
            let table = &mut *self.table.borrow_mut();
            channels.take_out_told(table);
            channels.look_again(table);
            channels.ask_all(table);
        }
        if !self.notify.is_marked() {
            return;
        }
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

    /// Returns true if a source, or a registered channel, has to be looked at again in a moment.
    pub(super) fn is_unsure(&self) -> bool {
        self.sleep.napping.get() || self.marking.get() && !self.channels.borrow().unsure.is_empty()
    }
}
