//! The messages for cases that `select!` has no form for.
//!
//! The compiler shows the beginning of the whole `select!`, so each message names the case.

/// Says what is wrong with the first case of `$rest`, and what to write: `{ the default before }
/// { the error before } $rest`.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_wrong {
    // The texts that several forms share. First, so that no form below takes their names for lists.
    (@say $($text:tt)+) => {
        $crate::__private::compile_error!($crate::__private::concat!($($text)+))
    };
    (@if_let) => {
        $crate::__select_wrong!(@say
            "the condition of a case is an expression of type bool, such as `if matches!(value, \
             pattern)`: `if let` binds names that the case could not use when it is off"
        )
    };
    // The rest behind `default =>` and `error -> e =>`.
    (@arm) => {
        $crate::__select_wrong!(@say
            "a case without an arm: write `=> {}` if there is nothing to do"
        )
    };
    (@arm , $($rest:tt)*) => { $crate::__select_wrong!(@arm) };
    (@arm $arm:expr ; $($rest:tt)*) => { $crate::__select_wrong!({} {} ;) };
    (@arm $($wrong:tt)*) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: separate cases by commas: a comma stands behind an arm \
             without braces"
        )
    };
    (@guard $how:ident $case:tt) => {
        $crate::__select_wrong!(@say
            "in `", $crate::__private::stringify!($how $case), "`: a case has no `if` here: write \
             recv(source, if condition) -> item => .. or \
             send(outbox, value, if condition) -> result => .."
        )
    };
    (@semicolon $how:ident $case:tt) => {
        $crate::__select_wrong!(@say
            "in `", $crate::__private::stringify!($how $case), "`: separate cases by commas: no \
             semicolon stands behind an arm"
        )
    };
    (@timeout $word:ident) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `", $crate::__private::stringify!($word), "`: a timeout is \
             the case default(timeout) => .., or a timer: recv(timer) -> _ => .."
        )
    };
    (@otherwise $word:tt) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `", $crate::__private::stringify!($word), "`: default => .. \
             is the case for when nothing is ready"
        )
    };
    (@item_first $($pattern:tt)+) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `", $crate::__private::stringify!($($pattern)+), "`: the \
             source comes first, and is no future: recv(source) -> ",
            $crate::__private::stringify!($($pattern)+), " => .."
        )
    };

    // Between the cases.
    ($d:tt $e:tt ; $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `;`: separate cases by commas; a semicolon stands behind the \
             reactor and behind `biased` only"
        )
    };
    ($d:tt $e:tt , $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `,`: one comma separates two cases, and none stands before \
             the first"
        )
    };

    // Conditions in the wrong place. `$case` has the parentheses.
    ($d:tt $e:tt $how:ident $case:tt -> $pat:pat if $($rest:tt)*) => {
        $crate::__select_wrong!(@guard $how $case)
    };
    ($d:tt $e:tt $how:ident $case:tt $(,)? if $($rest:tt)*) => {
        $crate::__select_wrong!(@guard $how $case)
    };
    ($d:tt $e:tt recv($source:tt if $($if:tt)*) $($rest:tt)*) => {
        $crate::__select_wrong!(@guard recv ($source if $($if)*))
    };
    ($d:tt $e:tt send($outbox:expr, $value:tt if $($if:tt)*) $($rest:tt)*) => {
        $crate::__select_wrong!(@guard send ($outbox, $value if $($if)*))
    };

    // A receive case.
    ($d:tt $e:tt recv $case:tt -> $pat:pat => $arm:expr ; $($rest:tt)*) => {
        $crate::__select_wrong!(@semicolon recv $case)
    };
    ($d:tt $e:tt recv() $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "a recv case has a source: recv(source) -> item => .."
        )
    };
    ($d:tt $e:tt recv($($source:tt)*) -> => $($rest:tt)*) => {
        $crate::__select_wrong!($d $e recv($($source)*) => $($rest)*)
    };
    ($d:tt $e:tt recv($($source:tt)*) => $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "a recv case names what it receives, between `->` and `=>`: recv(",
            $crate::__private::stringify!($($source)*), ") -> item => .."
        )
    };
    ($d:tt $e:tt recv($source:expr, $next:expr $(, $($more:tt)*)?) $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "a recv case has one source, and perhaps a condition: recv(",
            $crate::__private::stringify!($source), ") -> item => .., or recv(",
            $crate::__private::stringify!($source), ", if condition) -> item => .."
        )
    };
    ($d:tt $e:tt recv($($source:tt)*) -> $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "in `recv(", $crate::__private::stringify!($($source)*), ")`: a recv case is \
             recv(source) -> pattern => arm; separate cases by commas: a comma stands behind an \
             arm without braces"
        )
    };
    ($d:tt $e:tt recv($($source:tt)*) $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "in `recv(", $crate::__private::stringify!($($source)*), ")`: an arrow stands between \
             the source and the item: recv(source) -> item => .."
        )
    };
    ($d:tt $e:tt recv $source:tt $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "a recv case has its source in parentheses: recv(",
            $crate::__private::stringify!($source), ") -> item => .."
        )
    };

    // A send case.
    ($d:tt $e:tt send $case:tt -> $pat:pat => $arm:expr ; $($rest:tt)*) => {
        $crate::__select_wrong!(@semicolon send $case)
    };
    ($d:tt $e:tt send($outbox:expr, $value:expr $(,)?) -> $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "in `send(", $crate::__private::stringify!($outbox, $value), ")`: a send case is \
             send(outbox, value) -> pattern => arm; separate cases by commas: a comma stands \
             behind an arm without braces"
        )
    };
    ($d:tt $e:tt send $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "a send case has an outbox, a value and a result: send(outbox, value) -> result => .."
        )
    };

    // The cases that there is one of.
    ({ $($d:tt)+ } $e:tt default $($rest:tt)*) => {
        $crate::__select_wrong!(@say "a select! has at most one default case")
    };
    ({} $e:tt default $(($($timeout:tt)*))? =>) => { $crate::__select_wrong!(@arm) };
    ($d:tt $e:tt default $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "a default case receives nothing, and has no condition: default => .., or \
             default(timeout) => .. with one duration"
        )
    };
    ($d:tt { $($e:tt)+ } error $($rest:tt)*) => {
        $crate::__select_wrong!(@say "a select! has at most one error case")
    };
    ($d:tt $e:tt error $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "an error case names the error of the driver: error -> e => .."
        )
    };
    ($d:tt $e:tt biased $($rest:tt)*) => {
        $crate::__select_wrong!(@say "`biased;` comes first in a select!, right behind the reactor")
    };

    // The words of other libraries and languages.
    ($d:tt $e:tt timeout $($rest:tt)*) => { $crate::__select_wrong!(@timeout timeout) };
    ($d:tt $e:tt after $($rest:tt)*) => { $crate::__select_wrong!(@timeout after) };
    ($d:tt $e:tt sleep $($rest:tt)*) => { $crate::__select_wrong!(@timeout sleep) };
    ($d:tt $e:tt else $($rest:tt)*) => { $crate::__select_wrong!(@otherwise else) };
    ($d:tt $e:tt _ => $($rest:tt)*) => { $crate::__select_wrong!(@otherwise _) };
    ($d:tt $e:tt complete $($rest:tt)*) => { $crate::__select_wrong!(@otherwise complete) };
    ($d:tt $e:tt case $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `case`: leave the word out: recv(source) -> item => .."
        )
    };
    ($d:tt $e:tt $pattern:tt = $($rest:tt)*) => {
        $crate::__select_wrong!(@item_first $pattern)
    };
    ($d:tt $e:tt $pattern:ident($($inside:tt)*) = $($rest:tt)*) => {
        $crate::__select_wrong!(@item_first $pattern($($inside)*))
    };
    ($d:tt $e:tt $wrong:tt $($rest:tt)*) => {
        $crate::__select_wrong!(@say
            "not a case of a select!: `", $crate::__private::stringify!($wrong), "`; there are \
             recv(source) -> item => .. for everything that gives items (inboxes, timers, tickers, \
             fds, ..), send(outbox, value) -> result => .., default => .., default(timeout) => .. \
             and error -> e => .., each behind a comma or a block"
        )
    };
}
