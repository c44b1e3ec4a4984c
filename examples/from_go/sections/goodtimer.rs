//! The four methods of the library goodtimer, which wraps Go's timer and remembers each read of C.

use std::io;
use std::time::Duration;

use pollmux::{Handle, Reactor, Sim, Time, Timer, select};

use super::{Chapter, Section, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "goodtimer",
    text: include_str!("goodtimer.rs"),
    sections: &[
        Section {
            title: "goodtimer's ReadC",
            go: r#"
gt := goodtimer.NewGoodTimer(time.NewTimer(2 * time.Second))
if tv := gt.ReadC(); !tv.IsZero() {
	fmt.Println("the timer fires")
}
gt.ReadC() // the zero time, at once: C was already read"#,
            meaning: "
ReadC receives from C, and a second ReadC does not block: the library keeps a flag, `read`. After a
Stop the flag is unset and C stays empty, so ReadC then blocks for ever.

Here the timer itself has this flag: `deadline` returns None if the timer is stopped or was
received.",
            code: code!(read_c, with read),
        },
        Section {
            title: "goodtimer's TryReadC",
            go: r#"
gt := goodtimer.NewGoodTimer(time.NewTimer(2 * time.Second))
if tv := gt.TryReadC(time.Second); tv.IsZero() {
	fmt.Println("no expiry within a second")
}"#,
            meaning: "
TryReadC waits with a timeout. Go selects on C and on time.After, so each try makes another timer.

Here a `default` with a timeout makes no timer.",
            code: code!(try_read_c, with try_read),
        },
        Section {
            title: "goodtimer's Stop",
            go: r#"
gt := goodtimer.NewGoodTimer(time.NewTimer(2 * time.Second))
if gt.Stop() {
	fmt.Println("stopped before it fired")
}
gt.Stop() // blocks for ever: not running and not read, so Stop drains an empty C"#,
            meaning: "
Stop stops the timer, and drains C if necessary. But the flag means \"read\", not \"empty\". So a
second Stop, or a Reset after a Stop, waits for a value that never comes.

Here `stop` is enough, and may be called several times.",
            code: code!(good_stop),
        },
        Section {
            title: "goodtimer's Reset",
            go: r#"
gt := goodtimer.NewGoodTimer(time.NewTimer(2 * time.Second))
// any operations of this goroutine
gt.Reset(2 * time.Second)
// the timer can be used again"#,
            meaning: "
Reset stops, drains and resets the timer, and clears the flag. The documentation demands that all
calls are in one goroutine.

Here the compiler checks this rule: a `Timer` cannot be sent to another thread. After a reset, a
timer behaves like a new timer, with any history.",
            code: code!(good_reset, with read),
        },
    ],
};

/// Waits for the expiry. Returns `None` at once if the timer is stopped or was received.
fn read(reactor: &Handle, timer: &Timer) -> Option<Time> {
    timer.deadline()?;
    select! { reactor; recv(timer) -> due => Some(due) }
}

/// Waits for the expiry, but at most for `timeout`.
fn try_read(reactor: &Handle, timer: &Timer, timeout: Duration) -> Option<Time> {
    timer.deadline()?;
    select! { reactor; recv(timer) -> due => Some(due), default(timeout) => None }
}

fn read_c() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(2));
    let (first, second) = (read(&reactor, &timer), read(&reactor, &timer));
    timer.reset(secs(2));
    timer.stop();
    let stopped = read(&reactor, &timer);
    say!("first    {first:?}");
    say!("second   {second:?}");
    say!("stopped  {stopped:?}");
    assert_eq!([first, second, stopped], [Some(Time::ZERO + secs(2)), None, None]);
    Ok(())
}

fn try_read_c() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(2));
    let tries = [(); 3].map(|()| {
        let read = try_read(&reactor, &timer, secs(1));
        say!("at {:?}: {read:?}", reactor.now() - Time::ZERO);
        read
    });
    // The second timeout and the expiry come together. A ready case wins over the default.
    assert_eq!(tries, [None, Some(Time::ZERO + secs(2)), None]);
    assert_eq!(reactor.stats().live, 1);
    Ok(())
}

fn good_stop() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(2));
    let stops = [timer.stop(), timer.stop(), timer.stop()];
    say!("{stops:?}");
    assert_eq!(stops, [true, false, false]);
    Ok(())
}

fn good_reset() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let timer = reactor.after(secs(2));
    let histories: [(&str, &dyn Fn()); 4] = [
        ("running", &|| {}),
        ("stopped", &|| assert!(timer.stop())),
        ("expired", &|| sim.advance(secs(5))),
        ("received", &|| assert!(read(&reactor, &timer).is_some())),
    ];
    for (name, happens) in histories {
        happens();
        timer.reset(secs(2));
        let start = sim.now();
        let due = read(&reactor, &timer).unwrap();
        say!("{name:<9} then reset: fires once, after {:?}", due - start);
        assert_eq!((due - start, read(&reactor, &timer)), (secs(2), None));
        timer.reset(secs(2));
    }
    Ok(())
}
