//! The syntax of `select!`: crossbeam-channel's tests/select_macro.rs.

// The tests here spell types, cases and arms in more ways than a program would.
#![allow(clippy::deref_addrof, clippy::needless_borrow, clippy::borrow_deref_ref)]

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{self, RecvError, SendError, Sender, TrySendError};
use pollmux::{Handle, Inbox, Outbox, Reactor, Source, Tick, Time, Timer, never, select};
use support::thread;

use crate::common::{Drops, LONG, ms, reactor, sim};
use crate::support::{inbox, outbox, watched};

/// Makes an inbox with `values` in it and no senders.
fn filled<T>(reactor: &Reactor, values: impl IntoIterator<Item = T>) -> Inbox<T> {
    let (tx, rx) = channel::unbounded();
    values.into_iter().for_each(|value| tx.send(value).unwrap_or_else(|_| unreachable!()));
    reactor.register(rx).unwrap()
}

/// crossbeam-channel tests/select_macro.rs: references
#[test]
fn a_source_may_be_a_reference_or_pointer() {
    watched(|| {
        let reactor = reactor();
        let mut source = filled(&reactor, 0..5);
        select! { reactor; recv(source) -> n => assert_eq!(n, Ok(0)) }
        select! { reactor; recv(&source) -> n => assert_eq!(n, Ok(1)) }
        select! { reactor; recv(&&&source) -> n => assert_eq!(n, Ok(2)) }
        select! { reactor; recv(&mut source) -> n => assert_eq!(n, Ok(3)) }
        let boxed = Box::new(Rc::new(source));
        select! { reactor; recv(boxed) -> n => assert_eq!(n, Ok(4)) }
        select! { reactor; recv(Some(&boxed)) -> n => assert_eq!(n, Err(RecvError)) }
    });
}

/// crossbeam-channel tests/select_macro.rs: references, sending
#[test]
fn an_outbox_may_be_a_reference_or_pointer() {
    watched(|| {
        let reactor = reactor();
        let (mut to, rx) = outbox(&reactor, 8);
        let by_ref = &to;
        select! { reactor; send(by_ref, 0) -> sent => sent.unwrap() }
        let by_mut = &mut to;
        select! { reactor; send(by_mut, 1) -> sent => sent.unwrap() }
        let boxed = Box::new(Rc::new(to));
        select! { reactor; send(boxed, 2) -> sent => sent.unwrap() }
        let some = Some(&boxed);
        select! { reactor; send(some, 3) -> sent => sent.unwrap() }
        assert!(rx.try_iter().eq(0..4));
    });
}

/// crossbeam-channel tests/select_macro.rs: references, sending (the case makes the reference)
#[test]
fn a_send_case_may_make_its_reference() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 8);
        select! { reactor; send(&to, 0) -> sent => sent.unwrap() }
        select! { reactor; send(&&to, 1) -> sent => sent.unwrap() }
        select! { reactor; send(Some(&to), 2) -> sent => sent.unwrap() }
        fn choose<T>(outboxes: &[Outbox<T>], n: usize) -> &Outbox<T> {
            &outboxes[n]
        }
        let outboxes = [to];
        select! { reactor; send(choose(&outboxes, 0), 3) -> sent => sent.unwrap() }
        assert!(rx.try_iter().eq(0..4));
    });
}

/// crossbeam-channel tests/select_macro.rs: blocks
#[test]
fn arms_may_be_blocks_without_commas() {
    watched(|| {
        let reactor = reactor();
        let (to, _rx) = outbox(&reactor, 0);
        let source = filled(&reactor, 0..3);
        let got = select! { reactor;
            recv(source) -> n => { let n = n.unwrap(); n + 10 }
            send(to, 1) -> _ => { 1 }
            default => { 2 }
        };
        assert_eq!(got, 10);
        let got = select! { reactor;
            send(to, 1) -> _ => { 1 },
            recv(source) -> n => { n.unwrap() + 20 },
            default(ms(1)) => { 2 },
        };
        assert_eq!(got, 21);
        let got = select! { reactor;
            recv(source) -> n => if n == Ok(2) { 30 } else { 31 },
            error -> _ => { 3 }
        };
        assert_eq!(got, 30);
    });
}

/// crossbeam-channel tests/select_macro.rs: move_handles
#[test]
fn an_arm_may_move_the_sources() {
    watched(|| {
        let reactor = reactor();
        let first = filled(&reactor, [1]);
        let (tx, second) = inbox::<i32>(&reactor, 1);
        let rest = select! { reactor;
            recv(first) -> n => { drop((first, tx)); (n, second) }
            recv(second) -> n => { drop((second, tx)); (n, first) }
        };
        assert_eq!(rest.0, Ok(1));
        select! { reactor; recv(rest.1) -> n => assert_eq!(n, Err(RecvError)) }
    });
}

/// crossbeam-channel tests/select_macro.rs: move_handles, sending
#[test]
fn an_arm_may_move_the_outboxes() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let (other, _rx) = outbox(&reactor, 0);
        let source = filled::<i32>(&reactor, []);
        select! { reactor;
            biased;
            send(to, 1) -> sent => { sent.unwrap(); drop(to); drop(other); drop(source) }
            send(other, 2) -> _ => { drop(other); drop(to); drop(source) }
            recv(source) -> _ => { drop(source); drop(to); drop(other) }
        }
        assert_eq!([rx.recv(), rx.recv()], [Ok(1), Err(RecvError)]);
    });
}

/// crossbeam-channel tests/select_macro.rs: move_handles (a receiving arm beside a send case)
#[test]
fn a_receiving_arm_may_replace_an_outbox() {
    watched(|| {
        let reactor = reactor();
        let (mut to, _rx) = outbox(&reactor, 0);
        let (next, rx) = outbox(&reactor, 1);
        let mut source = filled(&reactor, [next]);
        select! { reactor;
            recv(source) -> next => {
                to = next.unwrap();
                source = filled(&reactor, []);
            }
            send(to, 1) -> _ => panic!("sent without a receiver"),
        }
        select! { reactor; send(to, 2) -> sent => sent.unwrap() }
        assert_eq!(rx.try_recv(), Ok(2));
        drop(source);
    });
}

/// crossbeam-channel tests/select_macro.rs: move_handles (a source is replaced)
#[test]
fn an_arm_may_replace_its_own_source() {
    watched(|| {
        let reactor = reactor();
        let mut source = filled(&reactor, [1, 2]);
        let mut timer = Some(reactor.after(LONG));
        let mut got = Vec::new();
        while got.len() < 4 {
            select! { reactor;
                recv(source) -> n => {
                    got.push(n.unwrap());
                    source = filled(&reactor, [n.unwrap() * 10]);
                    timer = None;
                }
                recv(timer) -> _ => panic!(),
            }
        }
        assert_eq!(got, [1, 10, 100, 1_000]);
        assert!(timer.is_none());
    });
}

/// crossbeam-channel tests/select_macro.rs: move_handles (the operands of a value expression)
#[test]
fn a_value_may_be_moved_into_its_case() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox::<String>(&reactor, 1);
        let (full, _rx) = outbox::<String>(&reactor, 0);
        let text = String::from("moved");
        // Two cases move the same string; only the chosen case evaluates its value.
        select! { reactor;
            send(full, text) -> _ => panic!("sent without a receiver"),
            send(to, text) -> sent => sent.unwrap(),
        }
        assert_eq!(rx.recv().as_deref(), Ok("moved"));
    });
}

/// crossbeam-channel tests/select_macro.rs: infer_types
#[test]
fn message_types_are_inferred_from_the_cases() {
    watched(|| {
        let reactor = reactor();
        let (tx, source) = inbox(&reactor, 1);
        let (to, rx) = outbox(&reactor, 1);
        select! { reactor;
            recv(source) -> word => { let _: Result<&str, RecvError> = word; }
            send(to, 5_u16) -> _ => {}
        }
        drop(tx);
        assert_eq!(rx.recv().map(u16::swap_bytes), Ok(5 << 8));
        let (_tx, source) = inbox(&reactor, 1);
        select! { reactor; recv(source) -> _ => {} default => {} }
        let _: Inbox<Vec<i8>> = source;
    });
}

/// crossbeam-channel tests/select_macro.rs: variables with the macro's internal names
#[test]
fn names_inside_the_macro_are_hygienic() {
    watched(|| {
        let picked = reactor();
        let cases = filled(&picked, [10]);
        let reactor = filled(&picked, [20]);
        let (permit, item) = outbox(&picked, 1);
        let (error, this, rest) = (100, 1_000, 10_000);
        select! { picked;
            biased;
            recv(cases) -> picked => assert_eq!(picked.unwrap() + error, 110),
            recv(reactor) -> cases => assert_eq!(cases.unwrap() + this, 1_020),
        }
        select! { picked;
            biased;
            recv(reactor) -> permit => assert_eq!(permit.unwrap() + this, 1_020),
            send(permit, rest) -> reactor => assert_eq!((reactor, error), (Ok(()), 100)),
            error -> this => panic!("{this}"),
        }
        select! { picked;
            send(permit, rest + error) -> reactor => assert_eq!((reactor, error), (Ok(()), 100)),
        }
        assert_eq!(item.try_recv(), Ok(10_100));
    });
}

/// crossbeam-channel tests/select_macro.rs: one variable name in every arm
#[test]
fn every_arm_may_use_the_same_name() {
    watched(|| {
        let reactor = reactor();
        let x = filled(&reactor, [1_u8]);
        let (_tx, y) = inbox::<String>(&reactor, 1);
        let (z, _rx) = outbox(&reactor, 0);
        let n = select! { reactor;
            recv(x) -> x => u64::from(x.unwrap()),
            recv(y) -> x => x.unwrap().len() as u64,
            send(z, 'z') -> x => x.map_or(8, |()| 9),
        };
        assert_eq!((n, x.len()), (1, 0), "outside the arm the name must be unchanged");
    });
}

/// crossbeam-channel tests/select_macro.rs: evaluate; Go fixedbugs/issue4313
#[test]
fn expressions_are_evaluated_once_in_order() {
    watched(|| {
        let reactor = reactor();
        let log = RefCell::new(Vec::new());
        let note = |what| log.borrow_mut().push(what);
        let (a, b) = (filled(&reactor, [7]), filled::<i32>(&reactor, []));
        let (to, _rx) = outbox(&reactor, 0);
        select! { *{ note("reactor"); &reactor };
            biased;
            recv({ note("first"); &a }) -> n => { note("arm"); assert_eq!(n, Ok(7)) }
            send(*{ note("second"); &to }, { note("value"); 0 }) -> _ => note("sent"),
            default({ note("timeout"); ms(1) }) => note("default"),
            recv({ note("third"); &b }) -> _ => note("other arm"),
        }
        // The value is evaluated after its case was chosen, the timeout after all sources.
        assert_eq!(log.take(), ["reactor", "first", "second", "third", "timeout", "arm"]);
        let (free, rx) = outbox(&reactor, 1);
        select! { *{ note("reactor"); &reactor };
            send(*{ note("outbox"); &free }, { note("value"); 1 }) -> sent => {
                note("arm");
                sent.unwrap()
            }
        }
        assert_eq!(log.take(), ["reactor", "outbox", "value", "arm"]);
        assert_eq!(rx.try_recv(), Ok(1));
    });
}

/// crossbeam-channel tests/select_macro.rs: evaluate, for a select that blocks
#[test]
fn a_sleep_does_not_reevaluate_sources() {
    watched(|| {
        let reactor = reactor();
        let (tx, source) = inbox(&reactor, 1);
        let asked = Cell::new(0);
        let _sender = ::support::later(ms(10), move || tx.send(1).unwrap());
        select! { reactor;
            recv({ asked.set(asked.get() + 1); &source }) -> n => assert_eq!(n, Ok(1)),
            default({ asked.set(asked.get() + 10); LONG }) => panic!("the select was not woken"),
        }
        assert_eq!(asked.get(), 11);
    });
}

/// crossbeam-channel tests/select_macro.rs: nesting
#[test]
fn a_select_may_be_any_subexpression() {
    watched(|| {
        let reactor = reactor();
        let numbers = filled(&reactor, 0..10);
        let next = || select! { reactor; recv(numbers) -> n => n.unwrap() };
        let sources = [filled(&reactor, ["zero"]), filled(&reactor, ["one"])];
        let (to, rx) = outbox(&reactor, 1);
        // As a source, a value, a timeout, an arm and a default.
        select! { reactor;
            recv(
                sources[select! { reactor; recv(numbers) -> n => n.unwrap() }]
            ) -> word => assert_eq!(word, Ok("zero")),
        }
        select! { reactor;
            send(
                to,
                select! { reactor; recv(numbers) -> n => n.unwrap() + 10 }
            ) -> sent => sent.unwrap(),
        }
        assert_eq!(rx.try_recv(), Ok(11));
        select! { reactor;
            default(ms(select! { reactor; recv(numbers) -> n => n.unwrap() as u64 })) => {
                select! { reactor; default => assert_eq!(next(), 3) }
            }
        }
        let sum = next()
            + select! { reactor;
                recv(numbers) -> n => {
                    n.unwrap() + select! { reactor; recv(numbers) -> n => n.unwrap() }
                },
            };
        assert_eq!(sum, 4 + 5 + 6);
    });
}

/// crossbeam-channel tests/select_macro.rs: parse (conditions, indices, fields, calls and blocks as
/// sources)
#[test]
fn a_source_may_be_any_expression() {
    struct State {
        inboxes: Vec<Inbox<i32>>,
        pair: (Outbox<i32>, Timer),
    }
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 4);
        let state = State {
            inboxes: vec![filled(&reactor, [1]), filled(&reactor, [2, 3, 4, 5])],
            pair: (to, reactor.timer()),
        };
        let pick = |n: usize| &state.inboxes[n];
        let flag = state.inboxes.len() == 2;
        select! { reactor; recv(state.inboxes[1]) -> n => assert_eq!(n, Ok(2)) }
        select! { reactor; recv(pick(1)) -> n => assert_eq!(n, Ok(3)) }
        select! { reactor; recv(if flag { pick(1) } else { pick(0) }) -> n => assert_eq!(n, Ok(4)) }
        select! { reactor;
            recv(match flag { true => pick(1), false => pick(0) }) -> n => assert_eq!(n, Ok(5)),
        }
        select! { reactor; recv({ let n = 0; &state.inboxes[n] }) -> n => assert_eq!(n, Ok(1)) }
        select! { reactor;
            recv(state.inboxes.first().filter(|_| false)) -> _ => panic!(),
            default => {}
        }
        select! { reactor; recv(filled(&reactor, [9])) -> n => assert_eq!(n, Ok(9)) }
        state.pair.1.reset(Duration::ZERO);
        select! { reactor; recv(state.pair.1) -> _ => {} }
        select! { reactor; send(state.pair.0, 1 + 2 * 3) -> sent => sent.unwrap() }
        assert_eq!(rx.try_recv(), Ok(7));
    });
}

/// crossbeam-channel tests/select_macro.rs: parse (patterns)
#[test]
fn an_arm_may_destructure_its_item() {
    struct Point {
        x: i32,
        y: i32,
    }
    watched(|| {
        let (reactor, clock) = sim();
        let ticker = reactor.every(ms(10)).unwrap();
        clock.advance(ms(35));
        select! { reactor;
            recv(ticker) -> Tick { scheduled, missed } => {
                assert_eq!((scheduled, missed), (Time::ZERO + ms(10), 2));
            }
        }
        let points = Own(RefCell::new(vec![
            Point { x: 1, y: 2 },
            Point { x: 3, y: 4 },
            Point { x: 5, y: 6 },
        ]));
        select! { reactor; recv(points) -> Point { x, .. } => assert_eq!(x, 5) }
        select! { reactor;
            recv(points) -> mut point => { point.x += point.y; assert_eq!(point.x, 7) }
        }
        select! { reactor;
            recv(points) -> ref point @ Point { x: _, ref y } => assert_eq!((point.x, *y), (1, 2)),
        }
        let (to, _) = outbox(&reactor, 1);
        select! { reactor; send(to, 6) -> Ok(()) | Err(SendError(_)) => {} }
    });
}

/// A user-defined source that gives its values, the last value first.
struct Own<T>(RefCell<Vec<T>>);

impl<T> Source for Own<T> {
    type Item = T;
    fn is_ready(&self) -> bool {
        !self.0.borrow().is_empty()
    }
    fn try_take(&self) -> Option<T> {
        self.0.borrow_mut().pop()
    }
}

/// crossbeam-channel tests/select_macro.rs: parse (arms)
#[test]
fn an_arm_may_be_any_expression() {
    watched(|| {
        let reactor = reactor();
        let source = filled(&reactor, 0..9);
        let mut n = 5;
        select! { reactor; recv(source) -> _ => n += 1 }
        select! { reactor; recv(source) -> k => n -= k.unwrap(), default => n = 9, }
        assert_eq!(n, 5);
        let f = select! { reactor;
            recv(source) -> k => move |m: i32| m + k.unwrap(),
            default => unreachable!(),
        };
        assert_eq!(f(1), 3);
        let range = select! { reactor; recv(source) -> k => 0..k.unwrap() };
        assert_eq!(range, 0..3);
        let labelled =
            select! { reactor; recv(source) -> k => 'arm: { if k == Ok(4) { break 'arm 4 } 0 } };
        assert_eq!(labelled, 4);
        let unsized_ref: &[i32] = select! { reactor; recv(source) -> _ => &[5], default => &[] };
        assert_eq!(unsized_ref, [5]);
        let tuple = select! { reactor; recv(source) -> k => (k.unwrap(), "six") };
        assert_eq!(tuple, (6, "six"));
        select! { reactor; recv(source) -> _ => () }
    });
}

/// crossbeam-channel tests/select_macro.rs: result_types
#[test]
fn arms_have_one_type_or_diverge() {
    fn first_word(reactor: &Reactor, source: &Inbox<&str>) -> Result<usize, RecvError> {
        let length = select! { reactor;
            recv(source) -> word => word?.len(),
            default => return Ok(0),
        };
        Ok(length)
    }
    watched(|| {
        let reactor = reactor();
        let (_tx, quiet) = inbox(&reactor, 1);
        assert_eq!(first_word(&reactor, &filled(&reactor, ["four"])), Ok(4));
        assert_eq!(first_word(&reactor, &filled(&reactor, [])), Err(RecvError));
        assert_eq!(first_word(&reactor, &quiet), Ok(0));
        let source = filled(&reactor, 0..100);
        let mut odd = Vec::new();
        let end = 'outer: loop {
            loop {
                odd.push(select! { reactor;
                    recv(source) -> n => match n.unwrap() {
                        n if n % 2 == 0 => continue,
                        n if n > 8 => break 'outer n,
                        5 => break,
                        n => n,
                    },
                    default => panic!(),
                });
            }
            odd.push(500);
        };
        assert_eq!((odd, end), (vec![1, 3, 500, 7], 9));
        let _: Option<Box<dyn Fn()>> = select! { reactor;
            recv(quiet) -> _ => None,
            default => Some(Box::new(|| ())),
        };
    });
}

/// crossbeam-channel tests/select_macro.rs: result_types (the value of the select! is the value of
/// a function)
#[test]
fn a_select_may_be_a_functions_tail() {
    fn next<S: Source>(handle: &Handle, source: S) -> Option<S::Item> {
        select! { handle;
            recv(source) -> item => Some(item),
            default => None
        }
    }
    fn next_of_dyn(handle: &Handle, source: &dyn Source<Item = i32>) -> i32 {
        select! { handle; recv(source) -> item => item }
    }
    watched(|| {
        let reactor = reactor();
        let own = Own(RefCell::new(vec![1, 2]));
        assert_eq!(next(&reactor, &own), Some(2));
        assert_eq!(next_of_dyn(&reactor, &own), 1);
        assert_eq!(next(&reactor, &own), None);
        assert!(next(&reactor, reactor.after(Duration::ZERO)).is_some());
        assert!(next(&reactor, never::<()>()).is_none());
    });
}

/// crossbeam-channel tests/select_macro.rs: trailing_comma
#[test]
fn commas_may_trail_or_be_left_out() {
    watched(|| {
        let reactor = reactor();
        let source = filled(&reactor, 0..3);
        let (to, rx) = outbox(&reactor, 1);
        select! { reactor; recv(source,) -> n => assert_eq!(n, Ok(0)), default() => panic!(), }
        select! { reactor;
            recv(source) -> n => assert_eq!(n, Ok(1)),
            default(LONG,) => panic!(),
            error -> _ => panic!(),
        }
        select! { reactor; recv(source) -> n => assert_eq!(n, Ok(2)), default => { panic!() }, }
        select! { reactor; send(to, 1,) -> sent => sent.unwrap(), }
        select! { reactor; biased; send(to, 2) -> _ => panic!(), default => {} }
        assert_eq!(rx.try_recv(), Ok(1));
    });
}

/// crossbeam-channel tests/select_macro.rs: parse (default and error at any place)
#[test]
fn default_and_error_may_come_first() {
    watched(|| {
        let reactor = reactor();
        let source = filled(&reactor, [1]);
        let (_tx, quiet) = inbox::<i32>(&reactor, 1);
        select! { reactor; default => panic!(), recv(source) -> n => assert_eq!(n, Ok(1)) }
        let n = select! { reactor; error -> _ => 0, default(ms(1)) => 1, recv(quiet) -> _ => 2 };
        assert_eq!(n, 1);
        let n = select! { reactor; biased; default => 1, error -> _ => 0, recv(source) -> _ => 2 };
        assert_eq!(n, 2, "default must lose to a ready case, even with biased");
    });
}

/// crossbeam-channel tests/select_macro.rs: the macro by its path
#[test]
fn the_macro_needs_nothing_in_scope() {
    /// Shadows names of the prelude.
    mod strange {
        #[allow(dead_code)]
        pub enum Option {
            Some,
            None,
        }
        #[allow(non_snake_case, dead_code)]
        pub fn Ok() {}
        #[allow(non_snake_case, dead_code)]
        pub fn Err() {}
        pub mod core {}
        pub mod std {}

        pub fn run(reactor: &pollmux::Reactor, source: &pollmux::Inbox<i32>) -> i32 {
            #[allow(unused_imports)]
            use self::Option::{None, Some};
            pollmux::select! { reactor;
                recv(source) -> n => n.unwrap_or(-1),
                default => 0,
                error -> _ => 1,
            }
        }
    }
    watched(|| {
        let reactor = reactor();
        assert_eq!(strange::run(&reactor, &filled(&reactor, [5])), 5);
        assert_eq!(strange::run(&reactor, &filled(&reactor, [])), -1);
        assert_eq!(
            strange::run(&reactor, &inbox(&reactor, 1).1),
            0,
            "the sender must live until the select ends"
        );
    });
}

/// crossbeam-channel tests/select_macro.rs: deref
#[test]
fn a_source_may_be_dereferenced() {
    struct Wrapper<T>(T);
    impl<T> Deref for Wrapper<T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }
    watched(|| {
        let reactor = Wrapper(reactor());
        let source = Wrapper(filled(&reactor, [1]));
        let (to, rx) = outbox(&reactor, 1);
        let to = Wrapper(Box::new(to));
        select! { *reactor; recv(*source) -> n => assert_eq!(n, Ok(1)) }
        select! { *reactor; send(*to, 2) -> sent => sent.unwrap() }
        assert_eq!(rx.try_recv(), Ok(2));
        select! { reactor.0; send(**to, 3) -> sent => sent.unwrap() }
        assert_eq!(rx.try_recv(), Ok(3));
    });
}

/// crossbeam-channel tests/select_macro.rs: the reactor may be any expression
#[test]
fn the_reactor_may_be_any_expression() {
    struct Server {
        reactor: Reactor,
        source: Inbox<i32>,
    }
    watched(|| {
        let reactor = reactor();
        let source = filled(&reactor, 0..4);
        let server = Server { reactor, source };
        let handle = server.reactor.handle();
        select! { handle; recv(server.source) -> n => assert_eq!(n, Ok(0)) }
        select! { &handle; recv(server.source) -> n => assert_eq!(n, Ok(1)) }
        select! { server.reactor; recv(server.source) -> n => assert_eq!(n, Ok(2)) }
        select! { server.reactor.handle(); recv(server.source) -> n => assert_eq!(n, Ok(3)) }
    });
}

/// crossbeam-channel tests/select_macro.rs: panic_receiver
#[test]
fn a_panicking_source_expression_changes_nothing() {
    fn broken() -> Inbox<i32> {
        panic!("no source")
    }
    watched(|| {
        let reactor = reactor();
        let source = filled(&reactor, [1]);
        let (to, rx) = outbox(&reactor, 1);
        for _ in 0..3 {
            ::support::panic_text(|| {
                select! { reactor;
                    recv(source) -> _ => {}
                    send(to, 0) -> _ => {}
                    recv(broken()) -> _ => {}
                }
            });
        }
        assert_eq!((source.len(), rx.len()), (1, 0));
        select! { reactor; recv(source) -> n => assert_eq!(n, Ok(1)) }
        select! { reactor; send(to, 2) -> sent => assert_eq!(sent, Ok(())) }
    });
}

/// crossbeam-channel tests/select_macro.rs: panic_sender
#[test]
fn a_panicking_outbox_expression_takes_no_room() {
    fn broken<T>() -> T {
        panic!("a broken expression")
    }
    watched(|| {
        let reactor = reactor();
        let (to, _rx) = outbox(&reactor, 1);
        let outboxes = [to];
        for _ in 0..3 {
            ::support::panic_text(|| {
                select! { reactor;
                    send(outboxes[0], 1) -> _ => {}
                    send(outboxes[broken::<usize>()], 1) -> _ => {}
                }
            });
            ::support::panic_text(|| {
                select! { reactor; send(outboxes[0], 1) -> _ => {}, default(broken()) => {} }
            });
        }
        assert_eq!(outboxes[0].try_send(2), Ok(()));
        assert_eq!(outboxes[0].try_send(3), Err(TrySendError::Full(3)));
    });
}

/// crossbeam-channel tests/select_macro.rs: panic in an arm (DESIGN 3.17)
#[test]
fn a_panicking_arm_has_received_its_item() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let source = filled(&reactor, [drops.message(), drops.message()]);
        let timer = reactor.after(LONG);
        ::support::panic_text(|| {
            select! { reactor;
                recv(source) -> message => { let _message = message; panic!("in the arm") }
                recv(timer) -> _ => {}
            }
        });
        assert_eq!((drops.count(), source.len()), (1, 1));
        timer.reset(ms(1));
        select! { reactor; biased;
            recv(timer) -> _ => {},
            default(LONG) => panic!("the reactor did not work after the panic"),
        }
        select! { reactor; recv(source) -> message => assert!(message.is_ok()) }
    });
}

/// crossbeam-channel tests/select_macro.rs: a select! of 32 cases
#[test]
fn thirty_two_cases_are_distinguished() {
    watched(|| {
        let reactor = reactor();
        let (tx, s): (Vec<Sender<usize>>, Vec<_>) = (0..28).map(|_| inbox(&reactor, 1)).unzip();
        let (o, rx): (Vec<_>, Vec<_>) = (0..4).map(|_| outbox(&reactor, 1)).unzip();
        (0..4).for_each(|n| o[n].try_send(n).unwrap());
        let turn = || {
            select! { reactor;
                recv(s[0]) -> n => (0, n.unwrap()), recv(s[1]) -> n => (1, n.unwrap()),
                recv(s[2]) -> n => (2, n.unwrap()), recv(s[3]) -> n => (3, n.unwrap()),
                recv(s[4]) -> n => (4, n.unwrap()), recv(s[5]) -> n => (5, n.unwrap()),
                recv(s[6]) -> n => (6, n.unwrap()), recv(s[7]) -> n => (7, n.unwrap()),
                recv(s[8]) -> n => (8, n.unwrap()), recv(s[9]) -> n => (9, n.unwrap()),
                recv(s[10]) -> n => (10, n.unwrap()), recv(s[11]) -> n => (11, n.unwrap()),
                recv(s[12]) -> n => (12, n.unwrap()), recv(s[13]) -> n => (13, n.unwrap()),
                recv(s[14]) -> n => (14, n.unwrap()), recv(s[15]) -> n => (15, n.unwrap()),
                recv(s[16]) -> n => (16, n.unwrap()), recv(s[17]) -> n => (17, n.unwrap()),
                recv(s[18]) -> n => (18, n.unwrap()), recv(s[19]) -> n => (19, n.unwrap()),
                recv(s[20]) -> n => (20, n.unwrap()), recv(s[21]) -> n => (21, n.unwrap()),
                recv(s[22]) -> n => (22, n.unwrap()), recv(s[23]) -> n => (23, n.unwrap()),
                recv(s[24]) -> n => (24, n.unwrap()), recv(s[25]) -> n => (25, n.unwrap()),
                recv(s[26]) -> n => (26, n.unwrap()), recv(s[27]) -> n => (27, n.unwrap()),
                send(o[0], 128) -> sent => (28, sent.map(|()| 28).unwrap()),
                send(o[1], 129) -> sent => (29, sent.map(|()| 29).unwrap()),
                send(o[2], 130) -> sent => (30, sent.map(|()| 30).unwrap()),
                send(o[3], 131) -> sent => (31, sent.map(|()| 31).unwrap()),
                default => (99, 99),
            }
        };
        assert_eq!(turn(), (99, 99));
        for (n, tx) in tx.iter().enumerate() {
            tx.send(n).unwrap();
            assert_eq!(turn(), (n, n));
        }
        for (n, rx) in rx.iter().enumerate() {
            assert_eq!(rx.try_recv(), Ok(n));
            assert_eq!(turn(), (28 + n, 28 + n));
            assert_eq!(rx.len(), 1);
        }
        assert_eq!(turn(), (99, 99));
        // All cases are ready at once: each is received, in some order.
        (0..28).for_each(|n| tx[n].send(n).unwrap());
        (0..4).for_each(|n| assert_eq!(rx[n].try_recv(), Ok(128 + n)));
        let mut all: Vec<_> = (0..32).map(|_| turn().0).collect();
        assert!(!all.is_sorted(), "the order was not random");
        all.sort_unstable();
        assert!(all.into_iter().eq(0..32));
    });
}

/// crossbeam-channel tests/select_macro.rs: select_biased
#[test]
fn biased_takes_the_first_ready_case() {
    watched(|| {
        let reactor = reactor();
        let (first, second) = (filled(&reactor, 0..50), filled(&reactor, 50..100));
        let (to, rx) = outbox(&reactor, 50);
        let (mut got, mut sent) = (Vec::new(), 0);
        while sent < 50 {
            select! { reactor;
                biased;
                recv(never::<()>()) -> () => panic!(),
                recv((!first.is_empty()).then_some(&first)) -> n => got.push(n.unwrap()),
                recv((!second.is_empty()).then_some(&second)) -> n => got.push(n.unwrap()),
                send(to, 100 + sent) -> result => { result.unwrap(); sent += 1 }
                default => panic!("a ready case was missed"),
            }
        }
        got.extend(rx.try_iter());
        assert!(got.into_iter().eq(0..150));
    });
}

/// crossbeam-channel tests/select_macro.rs: select_biased, blocking
#[test]
fn biased_serves_the_only_ready_case() {
    watched(|| {
        let reactor = reactor();
        let (_tx, quiet) = inbox::<i32>(&reactor, 1);
        let (tx, messages) = inbox(&reactor, 0);
        let sender = thread::spawn(move || (0..50).for_each(|n| tx.send(n).unwrap()));
        for n in 0..50 {
            select! { reactor;
                biased;
                recv(quiet) -> _ => panic!(),
                recv(messages) -> got => assert_eq!(got, Ok(n)),
            }
        }
        sender.join().unwrap();
    });
}

/// DESIGN 2: the `error` case
#[test]
fn the_error_case_prevents_a_panic() {
    watched(|| {
        let (sim_reactor, _) = sim();
        let quiet = inbox::<i32>(&sim_reactor, 1);
        let kind = select! { sim_reactor; recv(quiet.1) -> _ => panic!(), error -> e => e.kind() };
        assert_eq!(kind, ErrorKind::Deadlock, "in virtual time no event can come");
        ::support::panic_text(|| select! { sim_reactor; recv(quiet.1) -> _ => {} });

        let (mine, other) = (reactor(), reactor());
        let foreign = other.timer();
        let error: io::Error = select! { mine;
            default(LONG) => panic!(),
            recv(mine.timer()) -> _ => panic!(),
            recv(foreign) -> _ => panic!(),
            error -> e => e,
        };
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("case 2"), "{error}");
        let (foreign, _rx) = outbox::<i32>(&other, 0);
        let kind = select! { mine; send(foreign, 1) -> _ => panic!(), error -> e => e.kind() };
        assert_eq!(kind, ErrorKind::InvalidInput);
    });
}

/// DESIGN 3.20
#[test]
fn select_on_a_dropped_reactor_is_an_error() {
    watched(|| {
        let reactor = reactor();
        let handle = reactor.handle();
        let timer = handle.after(Duration::ZERO);
        drop(reactor);
        let kind = select! { handle; recv(timer) -> _ => panic!(), error -> e => e.kind() };
        assert_eq!(kind, ErrorKind::NotConnected);
        ::support::panic_text(|| select! { handle; recv(timer) -> _ => {}, default => {} });
    });
}
