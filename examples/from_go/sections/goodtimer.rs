//! The library goodtimer, which wraps Go's timer and remembers whether C was read: its four
//! methods.

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
gt.ReadC() // the zero time, at once: C was read already"#,
            meaning: "
A receive from C that does not hang when it comes twice: the library keeps a flag, `read`. After a
Stop the flag is unset and C stays empty, so then ReadC does hang.

Here `deadline` is that flag, kept by the timer itself: None when there is nothing to come,
stopped or read.",
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
Waits, but not for long. Go selects on C and on time.After: one more timer for each try.

Here a `default` with a timeout, which makes none.",
            code: code!(try_read_c, with try_read),
        },
        Section {
            title: "goodtimer's Stop",
            go: r#"
gt := goodtimer.NewGoodTimer(time.NewTimer(2 * time.Second))
if gt.Stop() {
	fmt.Println("stopped before it fired")
}
gt.Stop() // hangs: not running, not read, so it drains a C that stays empty"#,
            meaning: "
Stop, and the drain if it is needed. But the flag says \"read\", not \"empty\": a second Stop, or
a Reset after a Stop, waits for a value that never comes.

Here `stop` as it is, as often as you like.",
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
Stops, drains, resets, and clears the flag. All of it must happen in one goroutine, says its
documentation.

Here the compiler says so: a `Timer` cannot be sent to another thread. Whatever happened to it
before, a reset timer is as good as a new one.",
            code: code!(good_reset, with read),
        },
    ],
};

/// Waits for the expiry. `None` at once when none is to come: it was received, or the timer is
/// stopped.
fn read(reactor: &Handle, timer: &Timer) -> Option<Time> {
    timer.deadline()?;
    select! { reactor; recv(timer) -> due => Some(due) }
}

/// Waits for the expiry, for `timeout` at the most.
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
    // The second try's timeout and the expiry come together: no default while a case is ready.
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
