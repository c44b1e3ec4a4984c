//! The drain idiom `if !t.Stop() { <-t.C }` and its two failures. pollmux does not need this idiom.

use std::io;

use pollmux::{Events, Reactor, Sim, Time, select};

use super::{Chapter, Section, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "draining",
    text: include_str!("draining.rs"),
    sections: &[
        Section {
            title: "the drain that blocks",
            go: r#"
<-t.C // received
// ... later, by the documentation:
if !t.Stop() {
	<-t.C // blocks for ever: the value was already received
}
t.Reset(time.Second)"#,
            meaning: "
Stop returns false if a value waits in C, and also if the value was received. The program must know
the case before it drains.

Here both cases are the same: call `reset`.",
            code: code!(drain_blocks),
        },
        Section {
            title: "the race of the drain that does not block",
            go: r#"
if !t.Stop() {
	select {
	case <-t.C: // drain, if C has a value
	default:
	}
}
t.Reset(time.Second)
<-t.C // sometimes at once: the old value"#,
            meaning: "
Until Go 1.23 this order was possible. The runtime, on its thread, finds that t has expired and
removes t from its heap. The program calls Stop, which returns false. The drain finds C empty. The
runtime sends the old value. Reset starts a timer whose channel is already full.

Here this order is impossible. The loop's thread reads the clock at the beginning of a turn, never
between two statements of yours. An expiry is a mark in the timer, not a message on its way. So a
timer is armed, or expired and not received, or neither, and `stop` knows the state. The table has
all points at which a program can stop and reset a timer of one second. After each point only the
new deadline fires.",
            code: code!(drain_race, with waiting),
        },
        Section {
            title: "two timers that expire together",
            go: r#"
select {
case <-a.C:
	b.Stop() // b expires in the same instant
case <-b.C:
}
<-b.C // until Go 1.23: sometimes b's value"#,
            meaning: "
The runtime had put both values into their channels before the select.

Here both timers expire in one turn, too. But the arm of `a` stops `b`, and a stopped timer cannot
fire.",
            code: code!(one_batch),
        },
    ],
};

fn drain_blocks() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(1));
    select! { reactor; recv(timer) -> _ => {} }
    say!("stop: {}", timer.stop());

    // Go's drain idiom, with a timeout.
    let drained = select! { reactor; recv(timer) -> _ => true, default(secs(3600)) => false };
    say!("a value to drain within an hour: {drained}");
    timer.reset(secs(1));
    let due = select! { reactor; recv(timer) -> due => due };
    say!("after a reset: {:?}", due - Time::ZERO);
    assert_eq!((drained, due), (false, Time::ZERO + secs(1 + 3600 + 1)));
    Ok(())
}

/// Returns the number of ready sources after a turn.
fn waiting(reactor: &Reactor) -> usize {
    let mut events = Events::with_capacity(8);
    reactor.try_wait(&mut events).unwrap();
    events.len()
}

fn drain_race() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let timer = reactor.timer();
    // Each row has the events between the arming and the stop, and the result of the stop.
    let before = || assert_eq!(waiting(&reactor), 0);
    let overdue = || sim.advance(secs(2));
    let noticed = || {
        sim.advance(secs(2));
        assert_eq!(waiting(&reactor), 1); // a turn finds the expiry, which remains unreceived
    };
    let received = || select! { reactor; recv(timer) -> _ => {} };
    let points: [(&str, &dyn Fn(), bool); 4] = [
        ("before its deadline", &before, true),
        ("after its deadline, before a turn", &overdue, true),
        ("after a turn, not received", &noticed, true),
        ("received", &received, false),
    ];
    say!("{:<46}stop   left  then received", "");
    for (place, happens, expected) in points {
        timer.reset(secs(1));
        happens();
        let stopped = timer.stop();
        let left = waiting(&reactor);
        timer.reset(secs(1));
        let new = reactor.now() + secs(1);
        let due = select! { reactor; recv(timer) -> due => due };
        let which = if due == new { "the new deadline" } else { "an old deadline" };
        say!("{place:<46}{stopped:<7}{left:<6}{which}");
        assert_eq!((stopped, left, due), (expected, 0, new));
    }
    Ok(())
}

fn one_batch() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (a, b) = (reactor.after(secs(1)), reactor.after(secs(1)));
    select! { reactor;
        biased;
        recv(a) -> _ => say!("a fires and stops b: {}", b.stop()),
        recv(b) -> _ => panic!("b came before a"),
    }
    let fired = select! { reactor; recv(b) -> _ => true, default(secs(60)) => false };
    say!("b fires within a minute: {fired}");
    assert!(!fired);
    Ok(())
}
