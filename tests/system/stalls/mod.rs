//! A loop never waits for a sender that does not run (rule 22 of the design).
//!
//! A sender may stand still between any two of its instructions: another thread has its core, or a
//! debugger stops the thread. Then only the messages behind that sender in its channel may wait.
//! The receiver's loop keeps its ticks, gets the messages of other channels, and burns no CPU time.
//!
//! # One core
//!
//! `one_core` runs a loop under `SCHED_FIFO` and two normal senders on one core. Each tick stops a
//! sender at a random instruction, and the sender continues only when the loop sleeps. A loop that
//! spins for the sender never sleeps: the kernel ends that after 950 ms. The worst receive, the
//! worst tick and the worst turn must stay below 10 ms in one of five runs. Without the right to
//! `SCHED_FIFO` these tests are skipped.
//!
//! # Stopped senders
//!
//! The other tests trace a child process by ptrace. In the child a loop has a ticker of 1 ms and
//! three senders. The first sender sends nearly all the time, and is stopped. The second sender
//! uses the same channel, the third sender a channel of its own. A round interrupts the first
//! sender and lets it run to its next send. Then the round steps the sender by a random number of
//! instructions, holds it, and resumes it. A breakpoint of the processor, which no other thread
//! sees, marks the begin of the send. The child logs each tick: its deadline, its arrival, the
//! loop's CPU time, and the time the loop was ready but had no core. A run of some rounds fails for
//! one of these reasons:
//!
//! - More ticks are late by 5 ms or more during a stop than in a run without stops.
//! - The third sender's messages do not come during more stops than in a run without stops.
//! - The loop takes more than half of a core during one stop.
//! - The loop takes 10 % of a core or more during all stops together (20 % without optimisation).
//!
//! Time in which the loop was ready but had no core is no lateness. The remaining cause is a stall
//! of the whole machine, which does not repeat at will. A fault shows in a fraction of all stops.
//! So a failed run is repeated, and a test fails only if each of its runs fails. After each run the
//! child checks that no message was lost or out of order. Where ptrace is refused these tests are
//! skipped.
//!
//! # Run only these tests
//! `cargo test --test system stalls` takes about ten seconds. With `-- --nocapture` it also prints
//! the numbers. After a failed run it prints the code places of the stopped sender, if `addr2line`
//! is installed. These variables change a run:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `POLLMUX_STALL_ROUNDS` | stops in one run | 1; `.ci/run` takes 10, `.ci/nightly` 200 |
//! | `POLLMUX_STALL_MS` | length of one stop in ms | 30; the nightly check takes 100 |
//! | `POLLMUX_STALL_RUNS` | runs before a test fails | 5; `.ci/run` takes 10 |
//! | `POLLMUX_STALL_REQUIRE` | if set, a test that would be skipped fails | |
//!
//! The tests run on epoll only: the kqueue stand-in on Linux has locks of its own.
#![cfg(all(target_os = "linux", epoll))]

mod child;
mod one_core;
mod places;
mod program;
mod tracer;
mod verdict;

/// Makes a module of tests for each loop, with a test for each flavour of sender.
macro_rules! stopped {
    ($($module:ident by $loops:ident: $($flavour:ident as $name:ident),+;)+) => {$(
        mod $module {
            use crate::stalls::program::{Flavour, Loop};
            $(
                #[test]
                fn $name() {
                    let name = concat!(stringify!($module), "::", stringify!($name));
                    crate::stalls::verdict::judge(name, Flavour::$flavour, Loop::$loops);
                }
            )+
        }
    )+};
}

/// [`stopped`] with every way to send, for loops that have a reactor.
macro_rules! stopped_everywhere {
    ($($module:ident by $loops:ident;)+) => {
        stopped! {$(
            $module by $loops:
                Bounded1 as beside_stopped_sender_of_bounded_1,
                Bounded16 as beside_stopped_sender_of_bounded_16,
                Large as beside_stopped_sender_of_large_messages,
                Unbounded as beside_stopped_sender_of_unbounded,
                Rendezvous as beside_stopped_rendezvous_sender,
                SendCase as beside_stopped_send_case,
                SendCaseRendezvous as beside_stopped_rendezvous_send_case,
                Post as beside_stopped_poster,
                Notify as beside_stopped_notifier,
                Attached as beside_stopped_attached_sender,
                Timers as beside_stopped_resetter_of_timers,
                Cancel as beside_stopped_canceller;
        )+}
    };
}

stopped_everywhere! {
    select_macro_is_prompt by SelectMacro;
    wait_is_prompt by Wait;
    select_set_is_prompt by SelectSet;
    embedded_reactor_is_prompt by Embedded;
}

stopped! {
    bare_recv_timeout_is_prompt by Bare:
        Bounded1 as beside_stopped_sender_of_bounded_1,
        Bounded16 as beside_stopped_sender_of_bounded_16,
        Large as beside_stopped_sender_of_large_messages,
        Unbounded as beside_stopped_sender_of_unbounded,
        Rendezvous as beside_stopped_rendezvous_sender,
        SendCase as beside_stopped_send_case,
        SendCaseRendezvous as beside_stopped_rendezvous_send_case;
}
