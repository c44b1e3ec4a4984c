//! A closure that can be called again and again, stored in place if it is small.
//!
//! A `Box<dyn FnMut>` costs a call of the allocator, one more to free it, and 32 bytes of heap for
//! one captured pointer. Many callbacks capture one `Rc` and nothing else. A [`Closure`] has room
//! for one word, and a larger closure is boxed. A second word would cost each callback 8 bytes, and
//! the first touch of so much memory 3 ns.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// The type of a closure's argument. It may hold references.
pub(crate) trait Argument: 'static {
    type With<'a>;
}

/// The storage of a closure. The word is a pointer, so that a pointer of the closure stays valid
/// when the storage moves.
type Place = MaybeUninit<*mut ()>;

/// A closure. Its place holds a valid value of the type that `methods` is made for.
pub(crate) struct Closure<A: Argument> {
    place: Place,
    methods: &'static Methods<A>,
}

/// The functions for one type of closure. Each takes the place of a value of this type.
struct Methods<A: Argument> {
    call: unsafe fn(&mut Place, &A::With<'_>),
    drop: unsafe fn(&mut Place),
}

/// A type of closure, as its functions see it.
trait Kind<A: Argument> {
    const METHODS: &'static Methods<A>;
}

impl<A: Argument, F: FnMut(&A::With<'_>) + 'static> Kind<A> for F {
    const METHODS: &'static Methods<A> = &Methods {
        call: |place, argument| {
            // SAFETY: the caller has a place that holds an `F`. `store` has checked that an `F`
            // fits there and is aligned.
            let f = unsafe { &mut *place.as_mut_ptr().cast::<F>() };
            f(argument);
        },
        drop: |place| {
            // SAFETY: as in `call`. The caller does not use the place again.
            unsafe { place.as_mut_ptr().cast::<F>().drop_in_place() };
        },
    };
}

impl<A: Argument> Closure<A> {
    /// Stores a closure. Allocates if it is larger than a word, or has a larger alignment.
    #[inline]
    pub(crate) fn new<F: FnMut(&A::With<'_>) + 'static>(f: F) -> Closure<A> {
        if fits::<F>() { Closure::store(f) } else { Closure::store(Box::new(f)) }
    }

    #[inline]
    fn store<F: FnMut(&A::With<'_>) + 'static>(f: F) -> Closure<A> {
        assert!(fits::<F>());
        let mut place = Place::uninit();
        // SAFETY: an `F` fits into the place and is aligned there: the line above. Nobody else uses
        // the place.
        unsafe { place.as_mut_ptr().cast::<F>().write(f) };
        Closure { place, methods: F::METHODS }
    }

    #[inline]
    pub(crate) fn call(&mut self, argument: &A::With<'_>) {
        // SAFETY: the place holds a value of the type that the methods are made for.
        unsafe { (self.methods.call)(&mut self.place, argument) }
    }
}

/// Returns true if an `F` can be stored in a [`Place`].
const fn fits<F>() -> bool {
    size_of::<F>() <= size_of::<Place>() && align_of::<F>() <= align_of::<Place>()
}

impl<A: Argument> Drop for Closure<A> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the place holds a value of the type that the methods are made for, and nobody
        // uses it after the drop.
        unsafe { (self.methods.drop)(&mut self.place) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Counts the calls, and its drops.
    struct Counted(Rc<Cell<(u32, u32)>>);

    impl Counted {
        fn call(&self) {
            self.0.set((self.0.get().0 + 1, self.0.get().1));
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set((self.0.get().0, self.0.get().1 + 1));
        }
    }

    struct Number;

    impl Argument for Number {
        type With<'a> = Cell<&'a u32>;
    }

    fn counted() -> (Rc<Cell<(u32, u32)>>, Counted) {
        let counts = Rc::new(Cell::new((0, 0)));
        (counts.clone(), Counted(counts))
    }

    /// Moves a closure that holds `more`, calls it three times, and drops it.
    fn runs_with<T: 'static>(more: T, is_boxed: bool) {
        let (counts, counted) = counted();
        let f = move |n: &Cell<&u32>| {
            _ = &more;
            counted.call();
            assert_eq!(*n.get(), 2);
        };
        assert_eq!(fits_of(&f), !is_boxed);
        let closure: Closure<Number> = Closure::new(f);
        let mut moved = Box::new(closure);
        let argument = 2;
        (0..3).for_each(|_| moved.call(&Cell::new(&argument)));
        assert_eq!(counts.get(), (3, 0));
        drop(moved);
        assert_eq!(counts.get(), (3, 1));
    }

    fn fits_of<F>(_: &F) -> bool {
        fits::<F>()
    }

    #[test]
    fn closures_of_each_size_are_dropped_once() {
        #[derive(Clone, Copy)]
        #[repr(align(64))]
        struct Aligned;
        runs_with((), false);
        runs_with([1u8; 4], true);
        runs_with([1u64; 2], true);
        runs_with(Aligned, true);
        runs_with(vec![1; 100], true);
    }

    #[test]
    fn a_closure_is_two_words() {
        let mut closure: Closure<Number> = Closure::new(|n: &Cell<&u32>| assert_eq!(*n.get(), 7));
        closure.call(&Cell::new(&7));
        assert_eq!(size_of_val(&closure), size_of::<[usize; 2]>());
        assert_eq!(size_of::<Option<Closure<Number>>>(), size_of::<[usize; 2]>());
    }

    #[test]
    fn a_panic_leaves_the_closure_whole() {
        let (counts, counted) = counted();
        let mut closure: Closure<Number> = Closure::new(move |n: &Cell<&u32>| {
            counted.call();
            assert_ne!(*n.get(), 1);
        });
        let mut call = |n: u32| {
            let call = std::panic::AssertUnwindSafe(|| closure.call(&Cell::new(&n)));
            std::panic::catch_unwind(call).is_ok()
        };
        assert_eq!([call(0), call(1), call(2)], [true, false, true]);
        drop(closure);
        assert_eq!(counts.get(), (3, 1));
    }
}
