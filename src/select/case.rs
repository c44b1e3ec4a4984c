//! A case of a [`Select`](super::Select): a source, or an outbox to send through, of any type.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::rc::Rc;

use crate::channel::Permit;
use crate::reactor::{BeforeSleep, Listed};
use crate::sources::{Internals, Offer, Outbox, Source};

/// A case in its set.
pub(super) struct Case<'a> {
    pub(super) source: Rc<dyn Receiving + 'a>,
    /// The source's place in the reactor's lists, if the source is found there.
    pub(super) listed: Option<Listed>,
    /// Another case of the same source.
    pub(super) next_same: Option<usize>,
    /// The source needs a look at the fds.
    pub(super) looked_for: bool,
    /// The place among the cases that were found ready (`many.rs`).
    pub(super) found_at: Cell<Option<usize>>,
}

/// A case with items or messages of any type. Choosing a send case takes a permit. The permit stays
/// with the case until it is used or given back.
pub(super) trait Receiving {
    fn is_ready(&self) -> bool;
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()>;
    fn after_sleep(&self) -> bool;
    /// Holds a value or a permit for the choice with this number. Returns false if there is none.
    fn hold(&self, choice: u64) -> bool;
    fn internals(&self) -> Internals<'_>;
    /// Returns true if this is a receive case of the source at this address.
    fn receives(&self, _source: *const ()) -> bool {
        false
    }
    /// Gives back the permit that the case has kept for this choice.
    fn unreserve(&self, _choice: u64) {}
    /// Takes the permit of this choice out.
    fn take_out(&self, _outbox: *const (), _choice: u64) -> Taken {
        Taken::NotThisOutbox
    }
}

/// The permit of a choice, as it is taken out of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Permit,
    /// The receiver is gone, so the permit holds no room.
    Void,
    /// A later wait has given the permit back.
    GivenBack,
    NotThisOutbox,
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
        Source::internals(self).is_chosen()
    }
    fn hold(&self, _: u64) -> bool {
        Source::internals(self).hold()
    }
    fn internals(&self) -> Internals<'_> {
        Source::internals(self)
    }
    fn receives(&self, source: *const ()) -> bool {
        self.address() == source
    }
}

/// A send case. `P` points to the outbox.
pub(super) struct SendCase<T, P: Deref<Target = Outbox<T>>> {
    outbox: P,
    offer: Offer,
    reserved: Cell<Option<Reserved>>,
    messages: PhantomData<fn(T)>,
}

/// The permit of a chosen case.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    choice: u64,
    /// The receiver is gone, so the permit holds no room.
    void: bool,
}

impl<T, P: Deref<Target = Outbox<T>>> SendCase<T, P> {
    pub(super) fn new(outbox: P) -> SendCase<T, P> {
        let (offer, reserved, messages) = Default::default();
        SendCase { outbox, offer, reserved, messages }
    }
}

impl<T, P: Deref<Target = Outbox<T>>> Receiving for SendCase<T, P> {
    fn is_ready(&self) -> bool {
        self.offer.is_ready(&self.outbox)
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.offer.before_sleep(&self.outbox, blocking);
        Ok(())
    }
    fn after_sleep(&self) -> bool {
        self.offer.after_sleep(&self.outbox);
        self.internals().is_chosen()
    }
    /// Takes the permit.
    fn hold(&self, choice: u64) -> bool {
        let Some(permit) = self.offer.try_take(&self.outbox) else { return false };
        let void = permit.redeem().keep();
        self.reserved.set(Some(Reserved { choice, void }));
        true
    }
    fn internals(&self) -> Internals<'_> {
        self.offer.internals(&self.outbox)
    }
    fn unreserve(&self, choice: u64) {
        match self.reserved.get() {
            Some(Reserved { choice: of, void }) if of == choice => {
                self.reserved.set(None);
                if !void {
                    drop(Permit::kept(self.outbox.sender(), false));
                }
            }
            _ => {}
        }
    }
    fn take_out(&self, outbox: *const (), choice: u64) -> Taken {
        if ptr::from_ref(&*self.outbox).cast() != outbox {
            return Taken::NotThisOutbox;
        }
        match self.reserved.get() {
            Some(Reserved { choice: of, void }) if of == choice => {
                self.reserved.set(None);
                if void { Taken::Void } else { Taken::Permit }
            }
            _ => Taken::GivenBack,
        }
    }
}

impl<T, P: Deref<Target = Outbox<T>>> Drop for SendCase<T, P> {
    fn drop(&mut self) {
        self.offer.give_up(&self.outbox);
    }
}
