//! The macro's grammar.
//!
//! `@case` takes one case after the other off the input and sorts it into lists: sources, arms, the
//! default and the error. `@arms` turns the arms into nested matches. Nothing else is generated.

/// Waits for several sources at once and runs the arm of one that is ready.
///
/// ```text
/// select! { reactor;            // a Reactor or a Handle
///     biased;                   // optional: the first ready case wins; otherwise each ready case
///                               // has the same chance
///     recv(source) -> pattern => expression,
///     // the result: Ok(()), or the value when the receiver is gone
///     send(outbox, value) -> pattern => expression,
///     recv(source, if condition) -> pattern => expression, // also send(outbox, value, if ..)
///     default => expression,    // optional: runs when nothing is ready; or
///     default(timeout) => expression,   // when nothing was ready for so long
///     error -> pattern => expression,   // optional: the driver failed; without it that is a panic
/// }
/// ```
///
/// A source is any value that implements [`Source`](crate::Source), or a reference to one:
/// - a [`Timer`](crate::Timer) gives the [`Time`](crate::Time) it was due at,
/// - a [`Ticker`](crate::Ticker) gives a [`Tick`](crate::Tick),
/// - an [`Inbox`](crate::Inbox) gives a `Result<T, RecvError>`,
/// - an `Option` gives the item of its source, and `None` is never ready.
///
/// An outbox is a registered [`Sender`](crate::channel::Sender), an [`Outbox`](crate::Outbox). Its
/// value is evaluated only when the case has been chosen and there is room for the value. A panic,
/// `?`, `break` or `return` in the value gives the room back.
///
/// Source expressions, conditions and the timeout are evaluated once, in order, before the wait.
/// There may be up to 32 sources and outboxes. A case takes part if its condition is true.
/// Otherwise its source is left alone, though the expression of the source is evaluated, as in
/// tokio. For a source that may be absent take an `Option`.
///
/// The value of the `select!` is the value of the arm. Arms are ordinary code of the function:
/// `break`, `continue`, `return` and `?` work. An arm may use the reactor, reset the ticker that
/// fired, or replace a source. A case that is not chosen consumes nothing. `default` never runs
/// while a case is ready or due, and a timeout never ends a `select!` with such a case.
///
/// # Panics
/// Without an `error` case: when the driver fails, when the reactor has been dropped, and when a
/// source belongs to another reactor.
///
/// # Cost
/// No allocation. No syscall when a case is ready. Otherwise those of one sleep, and before
/// `default` one look at the fds, if a case is an fd. [`try_wait`](crate::Handle::try_wait) says
/// what `default` costs after thousands of timers were put off.
///
/// ```
/// use pollmux::{Reactor, select};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let (tx, inbox) = reactor.channel(4)?;
/// let mut deadline = Some(reactor.after(Duration::from_secs(10)));
///
/// tx.send(1).unwrap();
/// let got = select! { reactor;
///     biased;
///     recv(deadline) -> _ => None,
///     recv(inbox) -> message => message.ok(),
/// };
/// assert_eq!(got, Some(1));
///
/// deadline = None; // never ready now
/// select! { reactor;
///     recv(deadline) -> _ => unreachable!(),
///     recv(inbox) -> _ => unreachable!(),
///     default(Duration::from_millis(1)) => println!("quiet"),
/// }
/// # std::io::Result::Ok(())
/// ```
#[macro_export]
macro_rules! select {
    (biased; $($other:tt)*) => {
        $crate::__private::compile_error!(
            "a select! begins with the reactor, and `biased;` follows: \
             select! { reactor; biased; recv(source) -> item => .., .. }"
        )
    };
    ($reactor:expr; biased; $($cases:tt)*) => {
        $crate::__select!(@case ($reactor, true) [] [] {} {} $($cases)*)
    };
    ($reactor:expr; $($cases:tt)*) => {
        $crate::__select!(@case ($reactor, false) [] [] {} {} $($cases)*)
    };
    ($($other:tt)*) => {
        $crate::__private::compile_error!(
            "a select! begins with the reactor and a semicolon: \
             select! { reactor; recv(source) -> item => .., .. }"
        )
    };
}

/// The inside of [`select!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    // More cases than a mask has bits.
    (@case $head:tt [
        $a1:tt $a2:tt $a3:tt $a4:tt $a5:tt $a6:tt $a7:tt $a8:tt
        $b1:tt $b2:tt $b3:tt $b4:tt $b5:tt $b6:tt $b7:tt $b8:tt
        $c1:tt $c2:tt $c3:tt $c4:tt $c5:tt $c6:tt $c7:tt $c8:tt
        $d1:tt $d2:tt $d3:tt $d4:tt $d5:tt $d6:tt $d7:tt $d8:tt
        $one_too_many:tt
    ] $($rest:tt)*) => {
        $crate::__private::compile_error!(
            "a select! has at most 32 recv and send cases; use several, a Select, \
             or wait(&mut events)"
        )
    };

    // The end of the input: emit.
    (@case $head:tt [] [] {} $error:tt) => {
        $crate::__private::compile_error!(
            "a select! needs at least one case: recv(source) -> item => .. or default => .."
        )
    };
    (@case ($reactor:expr, $biased:expr) $sources:tt $arms:tt {} $error:tt) => {
        match $crate::__select!(@run ($reactor, $biased) $sources wait ()) {
            $crate::__private::Ok(picked) => $crate::__select!(@arms picked $arms),
            $crate::__private::Err(error) => $crate::__select!(@error error $error),
        }
    };
    (
        @case ($reactor:expr, $biased:expr) $sources:tt $arms:tt
        { $how:ident $args:tt $default:expr } $error:tt
    ) => {
        match $crate::__select!(@run ($reactor, $biased) $sources $how $args) {
            $crate::__private::Ok($crate::__private::Some(picked)) => {
                $crate::__select!(@arms picked $arms)
            }
            $crate::__private::Ok($crate::__private::None) => $default,
            $crate::__private::Err(error) => $crate::__select!(@error error $error),
        }
    };

    // An expression cannot begin with `let`, and the forms below would stop at it.
    (@case $head:tt $s:tt $a:tt $d:tt $e:tt recv($source:expr, if let $($_:tt)*) $($rest:tt)*) => {
        $crate::__select_wrong!(@if_let)
    };
    (
        @case $head:tt $s:tt $a:tt $d:tt $e:tt
        send($outbox:expr, $value:expr, if let $($_:tt)*) $($rest:tt)*
    ) => {
        $crate::__select_wrong!(@if_let)
    };

    // A case. An arm in braces is taken as tokens: `block` would also begin with, and then refuse,
    // an expression that is a fragment of another macro. A comma may follow; behind an arm that is
    // no block it must. The last form is for a block that is a fragment of another macro.
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        recv($source:expr $(, if $if:expr)? $(,)?) -> $pat:pat => { $($arm:tt)* } $(, $($rest:tt)*)?
    ) => {
        $crate::__select!(
            @case $head [$($s)* (recv $source $(, $if)?)] [$($a)* (recv $pat => { $($arm)* })] $d $e
            $($($rest)*)?
        )
    };
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        recv($source:expr $(, if $if:expr)? $(,)?) -> $pat:pat => { $($arm:tt)* } $($rest:tt)+
    ) => {
        $crate::__select!(
            @case $head [$($s)* (recv $source $(, $if)?)] [$($a)* (recv $pat => { $($arm)* })] $d $e
            $($rest)+
        )
    };
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        recv($source:expr $(, if $if:expr)? $(,)?) -> $pat:pat => $arm:expr $(, $($rest:tt)*)?
    ) => {
        $crate::__select!(
            @case $head [$($s)* (recv $source $(, $if)?)] [$($a)* (recv $pat => $arm)] $d $e
            $($($rest)*)?
        )
    };
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        recv($source:expr $(, if $if:expr)? $(,)?) -> $pat:pat => $arm:block $($rest:tt)+
    ) => {
        $crate::__select!(
            @case $head [$($s)* (recv $source $(, $if)?)] [$($a)* (recv $pat => $arm)] $d $e
            $($rest)+
        )
    };

    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        send($outbox:expr, $value:expr $(, if $if:expr)? $(,)?) -> $pat:pat =>
        { $($arm:tt)* } $(, $($rest:tt)*)?
    ) => {
        $crate::__select!(
            @case $head [$($s)* (send $outbox $(, $if)?)]
            [$($a)* (send ($value) $pat => { $($arm)* })] $d $e
            $($($rest)*)?
        )
    };
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        send($outbox:expr, $value:expr $(, if $if:expr)? $(,)?) -> $pat:pat =>
        { $($arm:tt)* } $($rest:tt)+
    ) => {
        $crate::__select!(
            @case $head [$($s)* (send $outbox $(, $if)?)]
            [$($a)* (send ($value) $pat => { $($arm)* })] $d $e
            $($rest)+
        )
    };
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        send($outbox:expr, $value:expr $(, if $if:expr)? $(,)?) -> $pat:pat =>
        $arm:expr $(, $($rest:tt)*)?
    ) => {
        $crate::__select!(
            @case $head [$($s)* (send $outbox $(, $if)?)]
            [$($a)* (send ($value) $pat => $arm)] $d $e
            $($($rest)*)?
        )
    };
    (
        @case $head:tt [$($s:tt)*] [$($a:tt)*] $d:tt $e:tt
        send($outbox:expr, $value:expr $(, if $if:expr)? $(,)?) -> $pat:pat =>
        $arm:block $($rest:tt)+
    ) => {
        $crate::__select!(
            @case $head [$($s)* (send $outbox $(, $if)?)]
            [$($a)* (send ($value) $pat => $arm)] $d $e
            $($rest)+
        )
    };

    // The cases that there is one of: `@arm` finds the end of the arm and fills the open list.
    (@case $head:tt $s:tt $a:tt {} $e:tt default $(())? => $($rest:tt)+) => {
        $crate::__select!(@arm [$head $s $a] { now () } [$e] $($rest)+)
    };
    (@case $head:tt $s:tt $a:tt {} $e:tt default($timeout:expr $(,)?) => $($rest:tt)+) => {
        $crate::__select!(@arm [$head $s $a] { until ($timeout) } [$e] $($rest)+)
    };
    (@case $head:tt $s:tt $a:tt $d:tt {} error -> $pat:pat => $($rest:tt)+) => {
        $crate::__select!(@arm [$head $s $a $d] { $pat => } [] $($rest)+)
    };
    (@arm [$($b:tt)*] { $($o:tt)* } [$($e:tt)*] { $($arm:tt)* } $(, $($rest:tt)*)?) => {
        $crate::__select!(@case $($b)* { $($o)* { $($arm)* } } $($e)* $($($rest)*)?)
    };
    (@arm [$($b:tt)*] { $($o:tt)* } [$($e:tt)*] { $($arm:tt)* } $($rest:tt)+) => {
        $crate::__select!(@case $($b)* { $($o)* { $($arm)* } } $($e)* $($rest)+)
    };
    (@arm [$($b:tt)*] { $($o:tt)* } [$($e:tt)*] $arm:expr $(, $($rest:tt)*)?) => {
        $crate::__select!(@case $($b)* { $($o)* $arm } $($e)* $($($rest)*)?)
    };
    (@arm [$($b:tt)*] { $($o:tt)* } [$($e:tt)*] $arm:block $($rest:tt)+) => {
        $crate::__select!(@case $($b)* { $($o)* $arm } $($e)* $($rest)+)
    };
    (@arm $before:tt $open:tt $after:tt $($wrong:tt)*) => {
        $crate::__select_wrong!(@arm $($wrong)*)
    };

    // None of these forms: `wrong.rs` says what is wrong.
    (@case $head:tt $s:tt $a:tt $d:tt $e:tt $($wrong:tt)+) => {
        $crate::__select_wrong!($d $e $($wrong)+)
    };

    // The wait, in a block of its own: the sources are not borrowed any more when the arm runs.
    (@run ($reactor:expr, $biased:expr) $sources:tt $how:ident ($($arg:expr)?)) => {{
        let reactor = &$reactor;
        let handle = $crate::__private::handle(reactor);
        // A `match`, so that a source that is made in its case lives as long as the wait.
        let picked = match $crate::__select!(@tuple $sources) {
            cases => $crate::__private::$how(handle, &cases, $biased $(, $arg)?),
        };
        picked
    }};
    (@tuple []) => { () };
    (@tuple [(recv $source:expr) $($rest:tt)*]) => {
        ($crate::__private::recv(&$source), $crate::__select!(@tuple [$($rest)*]))
    };
    (@tuple [(send $outbox:expr) $($rest:tt)*]) => {
        ($crate::__private::send(&$outbox), $crate::__select!(@tuple [$($rest)*]))
    };
    (@tuple [($how:ident $source:expr, $if:expr) $($rest:tt)*]) => {
        (
            $crate::__private::only_if($crate::__private::$how(&$source), $if),
            $crate::__select!(@tuple [$($rest)*]),
        )
    };

    (@arms $picked:ident []) => { match $picked {} };
    (@arms $picked:ident [(send ($value:expr) $pat:pat => $arm:expr) $($rest:tt)*]) => {
        match $picked {
            #[allow(unreachable_code)] // a value may diverge
            $crate::__private::Pick::This(permit) => {
                // The borrows of the value are over when the arm runs.
                let result = permit.redeem().send($value);
                match result { $pat => $arm }
            }
            $crate::__private::Pick::Rest(picked) => $crate::__select!(@arms picked [$($rest)*]),
        }
    };
    (@arms $picked:ident [(recv $pat:pat => $arm:expr) $($rest:tt)*]) => {
        match $picked {
            $crate::__private::Pick::This(item) => match item { $pat => $arm },
            $crate::__private::Pick::Rest(picked) => $crate::__select!(@arms picked [$($rest)*]),
        }
    };

    (@error $error:ident {}) => { $crate::__private::fail($error) };
    (@error $error:ident { $pat:pat => $arm:expr }) => {
        match $error { $pat => $arm }
    };
}
