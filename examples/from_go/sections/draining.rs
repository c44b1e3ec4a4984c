//! `if !t.Stop() { <-t.C }`, its two failures, and why there is nothing to drain here.

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
// ... later, by the book:
if !t.Stop() {
	<-t.C // blocks for ever: the value was received already
}
t.Reset(time.Second)"#,
            meaning: "
Stop returns false in both cases: a value waits in C, or it was received. Who drains must know
which.

Here there is nothing to know, and no idiom: call `reset`.",
            code: code!(drain_blocks),
        },
        Section {
            title: "the race of the drain that does not block",
            go: r#"
if !t.Stop() {
	select {
	case <-t.C: // drain, if there is something
	default:
	}
}
t.Reset(time.Second)
<-t.C // now and then at once: the old value"#,
            meaning: "
Until Go 1.23 it could happen in this order. The runtime, on its thread, finds that t has expired
and takes it off its heap. The program calls Stop: false. It drains: nothing there yet. The
runtime sends the old value. Reset starts a timer whose channel is full already.

Here that order does not exist. The loop's own thread looks at the clock, at the beginning of a
turn, and never between two statements of yours; and an expiry is a mark in the timer, not a
message on its way. So a timer is armed, or expired and not received, or neither, and `stop` sees
which. These are all the places at which a program can stop and reset a timer of one second; after
each of them exactly the new deadline comes.",
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
<-b.C // until Go 1.23: perhaps b's value after all"#,
            meaning: "
The runtime had put both values into their channels before the select looked.

Here both expire in one turn too, but what the arm of a stops cannot fire any more.",
            code: code!(one_batch),
        },
    ],
};

fn drain_blocks() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(1));
    select! { reactor; recv(timer) -> _ => {} }
    say!("stop: {}", timer.stop());

    // What Go's idiom would do now, with a limit to its patience.
    let drained = select! { reactor; recv(timer) -> _ => true, default(secs(3600)) => false };
    say!("something to drain within an hour: {drained}");
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
    // What happens between the arming and the stop, and what the stop returns.
    let before = || assert_eq!(waiting(&reactor), 0);
    let overdue = || sim.advance(secs(2));
    let noticed = || {
        sim.advance(secs(2));
        assert_eq!(waiting(&reactor), 1); // the turn that finds it expired; nobody receives it
    };
    let received = || select! { reactor; recv(timer) -> _ => {} };
    let places: [(&str, &dyn Fn(), bool); 4] = [
        ("before its deadline", &before, true),
        ("past it, before the loop looks", &overdue, true),
        ("the loop has seen it, nobody has received it", &noticed, true),
        ("received", &received, false),
    ];
    say!("{:<46}stop   left  then received", "");
    for (place, happens, expected) in places {
        timer.reset(secs(1));
        happens();
        let stopped = timer.stop();
        let left = waiting(&reactor);
        timer.reset(secs(1));
        let new = reactor.now() + secs(1);
        let due = select! { reactor; recv(timer) -> due => due };
        let which = if due == new { "the new deadline" } else { "an old one" };
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
        recv(b) -> _ => panic!("a comes first"),
    }
    let fired = select! { reactor; recv(b) -> _ => true, default(secs(60)) => false };
    say!("b fires within a minute: {fired}");
    assert!(!fired);
    Ok(())
}
