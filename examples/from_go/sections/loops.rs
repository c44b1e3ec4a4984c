//! Timers and tickers made in every turn of a loop: their costs in Go, and the repair.

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
	case <-ch: // always has a value
	case <-time.After(time.Second):
		fmt.Println("timed out")
	}
}"#,
            meaning: "
Every turn makes a timer, and the program stops no timer. Until Go 1.23 each timer lived for its
second, so a busy channel kept hundreds of thousands of timers alive. Since Go 1.23 the garbage
collector frees unreachable timers later.

Here the end of a turn drops and frees the timer of the turn. The next timer uses the same place,
so a turn allocates nothing. For comparison, the code also keeps 100,000 timers, as Go did.",
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
Each turn restarts one timer. Until Go 1.23 this loop also needed the drain idiom, because the
timer may expire between the select and the Reset.

Here the loop is the same, without the idiom. `reset` to a later time costs two stores, and needs
no heap operation and no syscall.",
            code: code!(after_in_loop_repaired),
        },
        Section {
            title: "time.Tick in a loop: the well-known leak",
            go: r#"
for {
	heartbeat := time.Tick(5 * time.Millisecond)
	select {
	case <-c:
	case <-heartbeat:
	}
}"#,
            meaning: "
Until Go 1.23 a ticker without a Stop ticked for ever, and Tick returns no handle for a Stop. Each
turn left a ticker behind, which fired every 5 ms. So epollwait and sendTime took more and more CPU
time.

Here the end of a turn drops the ticker of the turn. A million turns leave no ticker behind. A
better loop makes the ticker once, and calls `restart` in each turn.",
            code: code!(tick_in_loop),
        },
        Section {
            title: "a ticker without a Stop",
            go: r#"
go func() {
	ticker := time.NewTicker(5 * time.Millisecond) // and no defer ticker.Stop()
	for val := range c {
		if !val { return } // the consumer ends, and its ticker does not
	}
}()"#,
            meaning: "
Until Go 1.23 the program had to stop every ticker at every return.

Here `return`, `?` and a panic all drop the ticker, because the ticker is a local value of the
function.",
            code: code!(ticker_of_consumer),
        },
        Section {
            title: "finding a leak",
            go: r#"
import _ "net/http/pprof"
go http.ListenAndServe("0.0.0.0:6060", nil)
// go tool pprof http://localhost:6060/debug/pprof/profile?seconds=10"#,
            meaning: "
The profile shows the functions that use the CPU, but not the code that made the tickers.

Here a leak needs `mem::forget`, or a list that only grows. `stats().live` is the number of live
sources. `sources()` lists them by the line that made them, and the line with the most sources is
first.",
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
    say!("with 100,000 timers kept, as in Go: {}", reactor.stats().live);
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
            recv(heartbeat) -> _ => panic!("the ticker fired before the message"),
        }
    }
    reactor.sleep_blocking(secs(1))?; // a remaining ticker would tick now
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
