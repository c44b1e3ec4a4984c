//! Timers and tickers made in every turn of a loop: what they cost in Go, and the repair.

use std::io;

use pollmux::{Reactor, Sim, Time, select};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "loops",
    text: include_str!("loops.rs"),
    sections: &[
        Section {
            title: "time.After in a loop",
            go: r#"
for {
	select {
	case <-ch: // always something to receive
	case <-time.After(time.Second):
		fmt.Println("timed out")
	}
}"#,
            meaning: "
Every turn makes a timer, and none is stopped: until Go 1.23 each lived for its second, and a busy
channel had hundreds of thousands of them alive. Since then those that nobody can reach are
collected, later.

Here the timer of a turn is dropped, and so freed, at the end of that turn: the next one takes its
place, and nothing is allocated. What Go's loop held on to is made here on purpose, for
comparison.",
            code: code!(after_in_loop),
        },
        Section {
            title: "time.After in a loop, repaired",
            go: r#"
timer := time.NewTimer(time.Second)
for {
	timer.Reset(time.Second)
	select {
	case <-ch:
	case <-timer.C:
		fmt.Println("timed out")
	}
}"#,
            meaning: "
One timer, started anew in each turn. (Until Go 1.23 this asked for the drain idiom as well: the
timer may expire between the select and the Reset.)

The same here, without the idiom: `reset` to a later time is two stores, in no heap and with no
syscall.",
            code: code!(after_in_loop_repaired),
        },
        Section {
            title: "time.Tick in a loop: the leak that began it all",
            go: r#"
for {
	heartbeat := time.Tick(5 * time.Millisecond)
	select {
	case <-c:
	case <-heartbeat:
	}
}"#,
            meaning: "
Until Go 1.23 a ticker that nobody stopped went on for ever, and Tick gives nothing to stop it by.
Each turn left one behind that fired every 5 ms: the longer the program ran, the more of its CPU
went into epollwait and sendTime.

Here a ticker is dropped at the end of the turn that made it. A million turns leave nothing
behind. (It still is the wrong loop: make the ticker once, and `restart` it.)",
            code: code!(tick_in_loop),
        },
        Section {
            title: "a ticker that nobody stops",
            go: r#"
go func() {
	ticker := time.NewTicker(5 * time.Millisecond) // and no defer ticker.Stop()
	for val := range c {
		if !val { return } // the consumer is gone, its ticker is not
	}
}()"#,
            meaning: "
Until Go 1.23 every ticker had to be stopped by hand on every way out.

Here the way out does it, be it `return`, `?` or a panic: the ticker is a value of the function.",
            code: code!(ticker_of_consumer),
        },
        Section {
            title: "finding a leak",
            go: r#"
import _ "net/http/pprof"
go http.ListenAndServe("0.0.0.0:6060", nil)
// go tool pprof http://localhost:6060/debug/pprof/profile?seconds=10"#,
            meaning: "
The profile shows where the CPU goes, not who made the tickers that take it.

Here a leak needs a hand: `mem::forget`, or a list that only grows. Then `sources()` names the
line that made what is live, the line that made most first, and `stats().live` is the number to
watch.",
            code: code!(find_a_leak),
        },
    ],
};

fn after_in_loop() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (tx, ch) = reactor.channel(1)?;
    let mut most = 0;
    for n in 0..100_000 {
        tx.send(n).unwrap();
        select! { reactor;
            recv(ch) -> got => assert_eq!(got, Ok(n)),
            recv(reactor.after(secs(1))) -> _ => panic!("timed out"),
        }
        most = most.max(reactor.stats().live);
    }
    say!("after each of 100,000 turns, sources alive: {most} (the channel)");
    assert_eq!(most, 1);

    let kept: Vec<_> = (0..100_000).map(|_| reactor.after(secs(1))).collect();
    say!("kept on purpose, as Go had them: {}", reactor.stats().live);
    assert_eq!(reactor.stats().live, 1 + kept.len());
    Ok(())
}

fn after_in_loop_repaired() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let (tx, ch) = reactor.channel(1)?;
    let timer = reactor.timer(); // not armed yet
    let mut turns = 0;
    loop {
        timer.reset(secs(1));
        if turns < 100_000 {
            sim.advance(ms(1));
            tx.send(turns).unwrap();
        }
        select! { reactor;
            recv(ch) -> got => assert_eq!(got, Ok(turns)),
            recv(timer) -> due => {
                say!("{turns} messages, then silence: timed out at {:?}", due - Time::ZERO);
                assert_eq!(due, Time::ZERO + ms(100_000) + secs(1));
                break;
            }
        }
        turns += 1;
    }
    assert_eq!((turns, reactor.stats().expired), (100_000, 1));
    Ok(())
}

fn tick_in_loop() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (tx, c) = reactor.channel(1)?;
    for _ in 0..1_000_000 {
        tx.send(true).unwrap();
        let heartbeat = reactor.every(ms(5))?;
        select! { reactor;
            recv(c) -> val => assert_eq!(val, Ok(true)),
            recv(heartbeat) -> _ => panic!("nothing is late in virtual time"),
        }
    }
    reactor.sleep_blocking(secs(1))?; // what was left would tick now
    let stats = reactor.stats();
    say!("1,000,000 tickers made, {} alive, {} ticks", stats.live - 1, stats.expired);
    assert_eq!((stats.live, stats.expired), (1, 0));
    Ok(())
}

fn ticker_of_consumer() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (tx, c) = reactor.channel(4)?;
    for val in [true, true, false] {
        tx.send(val).unwrap();
    }

    let consumer = || -> io::Result<u32> {
        let ticker = reactor.every(ms(5))?;
        let mut received = 0;
        loop {
            select! { reactor;
                recv(c) -> val => {
                    received += 1;
                    if val != Ok(true) {
                        return Ok(received);
                    }
                }
                recv(ticker) -> _ => {}
            }
        }
    };
    let received = consumer()?;
    say!("the consumer has received {received}; alive: {}, the channel", reactor.stats().live);
    assert_eq!((received, reactor.stats().live), (3, 1));
    Ok(())
}

fn find_a_leak() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timeout = reactor.after(secs(30));
    for _ in 0..100 {
        std::mem::forget(reactor.every(ms(5))?); // the leak, on purpose
    }
    let sources = reactor.sources();
    say!("{sources}");
    assert_eq!((sources.len(), sources.by_origin()[0].sources.len()), (101, 100));
    drop(timeout);
    Ok(())
}
