//! `time.Timer`, `After`, `AfterFunc` and `Sleep`.

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
When the timer expires the runtime sends the time on its channel C; the receive waits for that.

Here the timer is itself what a select waits for, and gives the time it was due at. No channel
stands between the clock and the loop, which is why most of Go's rules for timers have nothing to
rule here.",
            code: code!(new_timer),
        },
        Section {
            title: "Timer.Stop, and what it returns",
            go: r#"
t := time.NewTimer(3*time.Hour + 30*time.Minute)
fmt.Println(t.Stop()) // true: it was running
fmt.Println(t.Stop()) // false: it was not"#,
            meaning: "
Stop returns false for a timer that was stopped or has expired. Until Go 1.23 an expired one could
still have its value in C, received or not: hence the drain idiom, see `draining`.

Here it returns true exactly when it took something away: a deadline, or an expiry that nobody has
received.",
            code: code!(stop),
        },
        Section {
            title: "Timer.Reset, and what it returns",
            go: r#"
t := time.NewTimer(time.Second)
fmt.Println(t.Reset(time.Second)) // true: it was running
<-t.C
fmt.Println(t.Reset(time.Second)) // false: it was not"#,
            meaning: "
Reset starts the timer anew. Its result, until Go 1.23, was of no use: what it said could be out
of date when it was read, and did not say whether C held a value.

Here it is the same true as that of `stop`. `deadline` says what there is to take, and takes
nothing.",
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
C had room for one value. With the old one in it the receive came at once, as if the ten seconds had
passed, and the new expiry found no room and was lost: \"set\", but not set.

Here `reset` takes an expiry back that nobody has received: what comes is the new deadline, and
once.",
            code: code!(reset_takes_back),
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
After(d) is NewTimer(d).C: nobody holds the timer, so nobody can stop it. Until Go 1.23 it lived
until it expired, whichever case was chosen.

Here `after` gives the timer itself. Made in the case it is dropped with the select, and so is
stopped. When only the timeout matters, and not what it was due at, `default(d)` needs no timer at
all.

A channel whose senders are all dropped is ready, with an error: keep the sender, as a `_tx1` and
not a `_`.",
            code: code!(after),
        },
        Section {
            title: "time.Sleep",
            go: r#"
time.Sleep(2 * time.Second)"#,
            meaning: "
Stops the goroutine; others go on.

On the loop's thread there are no others, so the name says that it blocks. Callbacks, and what
other threads have posted, run meanwhile; sources that become ready stay so.",
            code: code!(sleep),
        },
        Section {
            title: "time.AfterFunc, and the len of its C",
            go: r#"
var t *time.Timer
t = time.AfterFunc(time.Second, func() {
	fmt.Println("expired at", time.Now())
	fmt.Println("len(C) is", len(t.C)) // 0
})
time.Sleep(2 * time.Second) // AfterFunc itself does not wait"#,
            meaning: "
The function runs in a goroutine of its own, and C stays nil: its len is 0, nothing is ever sent
on it.

Here the closure runs on the loop's thread, inside whatever waits there: so it needs no lock, and
must not block. A `Callback` is no source and has nothing to receive; selecting on one does not
compile.",
            code: code!(after_func),
        },
        Section {
            title: "time.AfterFunc: stopped, dropped, run again",
            go: r#"
t := time.AfterFunc(time.Second, f)
t.Stop() // true: f will not run
time.AfterFunc(time.Second, f) // runs, though nobody holds it
var again *time.Timer
again = time.AfterFunc(time.Second, func() { again.Reset(time.Second) }) // every second"#,
            meaning: "
Stop returns false when f has started already, and then does not wait for its end: f may be
running in its goroutine still.

Here a closure that `stop` was too late for has run. Dropping a `Callback` cancels the call; to
leave it to the reactor, as Go does, say `.detach()` (the compiler warns when the result is
ignored). The closure gets its own timer, to start it anew: no variable that is assigned after its
use.",
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
    sim.advance(secs(2)); // the loop was busy: the timer has expired, and nobody has received that
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
    let nothing = timer.deadline();
    let received = timer.reset(secs(1));

    say!("running   {running}, {deadline:?}, which gave {:?}", due - Time::ZERO);
    say!("received  {received}, {nothing:?}");
    assert_eq!((running, deadline), (true, Some(Time::ZERO + secs(1))));
    assert_eq!((received, nothing), (false, None));
    Ok(())
}

fn reset_takes_back() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let timer = reactor.after(secs(1));
    sim.advance(secs(2)); // expires
    let took_back = timer.reset(secs(10));
    let due = select! { reactor; recv(timer) -> due => due };
    say!("took the expiry back: {took_back}; received {:?}", due - Time::ZERO);
    assert_eq!((took_back, due), (true, Time::ZERO + secs(12)));

    let more = select! { reactor; recv(timer) -> _ => true, default(secs(60)) => false };
    assert!(!more, "one arm gives one value");
    Ok(())
}

fn after() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (_tx1, ch1) = reactor.channel::<u32>(1)?;
    let (_tx2, ch2) = reactor.channel::<u32>(1)?;
    select! { reactor;
        recv(ch1) -> e1 => panic!("nobody has sent {e1:?}"),
        recv(ch2) -> e2 => panic!("nobody has sent {e2:?}"),
        recv(reactor.after(secs(2))) -> due => say!("timed out at {:?}", due - Time::ZERO),
    }
    assert_eq!(reactor.stats().live, 2); // the two channels: the timer is gone

    select! { reactor;
        recv(ch1) -> e1 => panic!("nobody has sent {e1:?}"),
        recv(ch2) -> e2 => panic!("nobody has sent {e2:?}"),
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
        default => panic!("a sleep takes nothing"),
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
    reactor.try_wait(&mut events)?; // everything that could be received now
    say!("left to receive: {}", events.len());
    assert_eq!((reactor.stats().called, events.len(), callback.deadline()), (1, 0, None));
    Ok(())
}

fn after_func_stop() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let stopped = reactor.call_after(secs(1), |_| panic!("stopped"));
    assert!(stopped.stop());
    drop(reactor.call_after(secs(1), |_| panic!("dropped")));
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
