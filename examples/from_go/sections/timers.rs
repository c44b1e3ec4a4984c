//! Go's `time.Timer`, `After`, `AfterFunc` and `Sleep`.

use std::io;

use pollmux::{Events, Reactor, Sim, Time, select};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "timers",
    text: include_str!("timers.rs"),
    sections: &[
        Section {
            title: "time.NewTimer",
            go: r#"
t := time.NewTimer(3 * time.Second)
fmt.Println("now    ", time.Now())
fmt.Println("expired", <-t.C)"#,
            meaning: "
When the timer expires, the runtime sends the time on the timer's channel C. The receive waits for
this value.

Here a select waits for the timer itself, and receives the time at which the timer was due. There
is no channel between the clock and the loop. So most of Go's rules for timers are not needed.",
            code: code!(new_timer),
        },
        Section {
            title: "Timer.Stop and its result",
            go: r#"
t := time.NewTimer(3*time.Hour + 30*time.Minute)
fmt.Println(t.Stop()) // true: t was running
fmt.Println(t.Stop()) // false: t was not running"#,
            meaning: "
Stop returns false for a stopped or expired timer. Until Go 1.23, C could still hold the value of
an expired timer. This is the reason for the drain idiom, see `draining`.

Here `stop` returns true exactly when it cancels a deadline or an expiry that was not received.",
            code: code!(stop),
        },
        Section {
            title: "Timer.Reset and its result",
            go: r#"
t := time.NewTimer(time.Second)
fmt.Println(t.Reset(time.Second)) // true: t was running
<-t.C
fmt.Println(t.Reset(time.Second)) // false: t was not running"#,
            meaning: "
Reset restarts the timer. Until Go 1.23 the result of Reset was of no use. The result could be out
of date when the program read it, and did not tell the state of C.

Here `reset` returns true in the same cases as `stop`. `deadline` returns the deadline or the
expiry that was not received, and does not change the timer.",
            code: code!(reset),
        },
        Section {
            title: "Timer.Reset with the old value still in C",
            go: r#"
t := time.NewTimer(time.Second)
time.Sleep(2 * time.Second) // expires; the value waits in C
t.Reset(10 * time.Second)
fmt.Println(<-t.C) // until Go 1.23: at once, the value of the first second"#,
            meaning: "
C has room for one value. With the old value in C, the receive returned at once, as if the ten
seconds had passed. A new expiry found C full, and was lost.

Here `reset` cancels an expiry that was not received. So the timer fires once, at the new
deadline.",
            code: code!(reset_cancels_expiry),
        },
        Section {
            title: "time.After as a timeout",
            go: r#"
select {
case e1 := <-ch1:
	fmt.Println(e1)
case e2 := <-ch2:
	fmt.Println(e2)
case <-time.After(2 * time.Second):
	fmt.Println("timed out")
}"#,
            meaning: "
After(d) is NewTimer(d).C: no variable holds the timer, so the program cannot stop the timer. Until
Go 1.23 such a timer lived until its expiry, even if the select chose another case.

Here `after` returns the timer itself. A timer that is made in a case is dropped, and so stopped, at
the end of the select. `default(d)` is a timeout without a timer.

A channel without senders is ready with an error. So keep the sender: bind it to `_tx1`, not to
`_`.",
            code: code!(after),
        },
        Section {
            title: "time.Sleep",
            go: r#"
time.Sleep(2 * time.Second)"#,
            meaning: "
Sleep blocks the goroutine, and other goroutines continue.

Here `sleep_blocking` blocks the loop's thread, as its name says. Callbacks and posted closures run
meanwhile. Sources that become ready stay ready.",
            code: code!(sleep),
        },
        Section {
            title: "time.AfterFunc and the length of its C",
            go: r#"
var t *time.Timer
t = time.AfterFunc(time.Second, func() {
	fmt.Println("expired at", time.Now())
	fmt.Println("len(C) is", len(t.C)) // 0
})
time.Sleep(2 * time.Second) // AfterFunc itself does not wait"#,
            meaning: "
The function runs in a goroutine of its own. C is nil, so its len is 0, and no value comes.

Here the closure runs on the loop's thread, during a wait. So the closure needs no lock, and must
not block. A `Callback` is no source, so a select on a `Callback` does not compile.",
            code: code!(after_func),
        },
        Section {
            title: "time.AfterFunc: stopped, dropped, restarted",
            go: r#"
t := time.AfterFunc(time.Second, f)
t.Stop() // true: f will not run
time.AfterFunc(time.Second, f) // runs, though no variable holds the timer
var again *time.Timer
again = time.AfterFunc(time.Second, func() { again.Reset(time.Second) }) // every second"#,
            meaning: "
Stop returns false if f has already started, and does not wait for the end of f. So f may still run
in its goroutine.

Here `stop` returns false only after the closure has run. Dropping a `Callback` cancels the call.
`.detach()` leaves the call to the reactor, as Go does. The compiler warns about an ignored
`Callback`. The closure gets a context that restarts its timer, so the program needs no variable
for the timer.",
            code: code!(after_func_stop),
        },
    ],
};

fn new_timer() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(3));
    say!("now      {:?}", reactor.now() - Time::ZERO);
    let due = select! { reactor; recv(timer) -> due => due };
    say!("expired  {:?}", due - Time::ZERO);
    assert_eq!(due, Time::ZERO + secs(3));
    Ok(())
}

fn stop() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let timer = reactor.after(secs(3 * 3600 + 30 * 60));
    let running = timer.stop();
    let stopped = timer.stop();

    timer.reset(secs(1));
    sim.advance(secs(2)); // the loop was busy: the timer has expired and was not received
    let expired = timer.stop();

    timer.reset(secs(1));
    select! { reactor; recv(timer) -> _ => {} }
    let received = timer.stop();

    say!("running                {running}");
    say!("stopped                {stopped}");
    say!("expired, not received  {expired}");
    say!("expired and received   {received}");
    assert_eq!([running, stopped, expired, received], [true, false, true, false]);
    Ok(())
}

fn reset() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(1));
    let running = timer.reset(secs(1));
    let deadline = timer.deadline();
    let due = select! { reactor; recv(timer) -> due => due };
    let no_deadline = timer.deadline();
    let received = timer.reset(secs(1));

    say!("running   {running}, {deadline:?}, which gave {:?}", due - Time::ZERO);
    say!("received  {received}, {no_deadline:?}");
    assert_eq!((running, deadline), (true, Some(Time::ZERO + secs(1))));
    assert_eq!((received, no_deadline), (false, None));
    Ok(())
}

fn reset_cancels_expiry() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let timer = reactor.after(secs(1));
    sim.advance(secs(2)); // expires
    let cancelled = timer.reset(secs(10));
    let due = select! { reactor; recv(timer) -> due => due };
    say!("cancelled the expiry: {cancelled}; received {:?}", due - Time::ZERO);
    assert_eq!((cancelled, due), (true, Time::ZERO + secs(12)));

    let more = select! { reactor; recv(timer) -> _ => true, default(secs(60)) => false };
    assert!(!more, "the timer fired twice after one arm");
    Ok(())
}

fn after() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (_tx1, ch1) = reactor.channel::<u32>(1)?;
    let (_tx2, ch2) = reactor.channel::<u32>(1)?;
    select! { reactor;
        recv(ch1) -> e1 => panic!("a message came without a send: {e1:?}"),
        recv(ch2) -> e2 => panic!("a message came without a send: {e2:?}"),
        recv(reactor.after(secs(2))) -> due => say!("timed out at {:?}", due - Time::ZERO),
    }
    assert_eq!(reactor.stats().live, 2); // the two channels, without the timer

    select! { reactor;
        recv(ch1) -> e1 => panic!("a message came without a send: {e1:?}"),
        recv(ch2) -> e2 => panic!("a message came without a send: {e2:?}"),
        default(secs(2)) => say!("timed out at {:?}", reactor.now() - Time::ZERO),
    }
    assert_eq!(reactor.now(), Time::ZERO + secs(4));
    Ok(())
}

fn sleep() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let timer = reactor.after(secs(1));
    reactor.sleep_blocking(secs(2))?;
    say!("slept until {:?}", sim.now() - Time::ZERO);
    select! { reactor;
        recv(timer) -> due => say!("the timer of {:?} is still there", due - Time::ZERO),
        default => panic!("the sleep received the timer"),
    }
    assert_eq!(sim.now(), Time::ZERO + secs(2));
    Ok(())
}

fn after_func() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let callback = reactor.call_after(secs(1), |cx| {
        say!("expired at {:?}", cx.scheduled() - Time::ZERO);
    });
    reactor.sleep_blocking(secs(2))?;

    let mut events = Events::with_capacity(8);
    reactor.try_wait(&mut events)?; // reports all ready sources
    say!("ready sources: {}", events.len());
    assert_eq!((reactor.stats().called, events.len(), callback.deadline()), (1, 0, None));
    Ok(())
}

fn after_func_stop() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let stopped = reactor.call_after(secs(1), |_| panic!("the stopped callback ran"));
    assert!(stopped.stop());
    drop(reactor.call_after(secs(1), |_| panic!("the dropped callback ran")));
    reactor.call_after(secs(1), |_| say!("detached: called at 1s")).detach();

    let again = reactor.call_after(secs(1), |cx| {
        say!("again: called at {:?}", cx.scheduled() - Time::ZERO);
        cx.reset(ms(700));
    });
    reactor.sleep_blocking(secs(3))?;
    say!("again: stopped, {}", again.stop());
    assert_eq!(reactor.stats().called, 1 + 3);
    Ok(())
}
