//! Loops with heartbeats: a heartbeat comes when no event has come for a while.

use std::io;

use pollmux::{Reactor, Sim, Time, select};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "heartbeats",
    text: include_str!("heartbeats.rs"),
    sections: &[
        Section {
            title: "a heartbeat every second, postponed by every event",
            go: r#"
ticker := time.NewTicker(time.Second)
defer ticker.Stop()
for {
	select {
	case <-events: // at 200 and at 600 ms
		fmt.Println("event")
		ticker.Reset(time.Second)
	case <-ticker.C:
		fmt.Println("heartbeat")
	}
}"#,
            meaning: "
The program makes one ticker before the loop, and stops the ticker after the loop. Every event
restarts the ticker. So there is a heartbeat one second after the last event, at 1600 ms, and then
every second.

Here the loop is the same. `restart` needs no allocation and no syscall, and cancels a pending
tick. There is no defer: dropping the ticker stops the ticker.

The clock of most sections is virtual: instead of sleeping, the loop moves the clock to the next
deadline. With `Reactor::new()` the same code takes real time.",
            code: code!(heartbeat),
        },
        Section {
            title: "the program around it: a producer, and a consumer that ends",
            go: r#"
go func() { // consumer
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case val := <-c:
			ticker.Reset(5 * time.Millisecond)
			if !val { return }
		case <-ticker.C:
			// send a heartbeat
		}
	}
}()
// the producer sends true after 1500 ms, then 50, 300 and 900 ms later, and false after 5 s
select {} // keep main alive"#,
            meaning: "
The right use: one ticker serves all turns of the loop, and ends with the consumer. Each pause of
n ms has n / 5 - 1 heartbeats. The last heartbeat would be due together with the message, which
postpones this heartbeat.

`biased;` decides this tie: the first ready case wins. Without `biased;`, as in Go's select, each
ready case has the same chance.",
            code: code!(consumer),
        },
    ],
};

fn heartbeat() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let (events, inbox) = reactor.channel::<()>(8)?;
    for at in [200, 600] {
        let events = events.clone();
        reactor.call_at(Time::ZERO + ms(at), move |_| events.send(()).unwrap()).detach();
    }

    let mut log = Vec::new();
    let ticker = reactor.every(secs(1))?;
    while log.len() < 4 {
        select! { reactor;
            recv(inbox) -> _ => {
                ticker.restart();
                log.push((sim.now() - Time::ZERO, "event"));
            }
            recv(ticker) -> tick => log.push((tick.scheduled - Time::ZERO, "heartbeat")),
        }
    }
    log.iter().for_each(|(at, name)| say!("{:>6} ms  {name}", at.as_millis()));
    let expected = [(200, "event"), (600, "event"), (1600, "heartbeat"), (2600, "heartbeat")];
    assert_eq!(log, expected.map(|(at, name)| (ms(at), name)));
    Ok(())
}

fn consumer() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (c, inbox) = reactor.channel(1)?;
    let mut at = Time::ZERO;
    for (pause, val) in [(1500, true), (50, true), (300, true), (900, true), (5000, false)] {
        at += ms(pause);
        let c = c.clone();
        reactor.call_at(at, move |_| c.send(val).unwrap()).detach();
    }

    let ticker = reactor.every(ms(5))?;
    let mut beats = vec![0];
    loop {
        select! { reactor;
            biased;
            recv(inbox) -> val => {
                ticker.restart();
                let (now, quiet) = (reactor.now() - Time::ZERO, beats[beats.len() - 1]);
                say!("received {val:?} at {now:?}, after {quiet} heartbeats");
                if val == Ok(false) {
                    break;
                }
                beats.push(0);
            }
            recv(ticker) -> _ => *beats.last_mut().unwrap() += 1,
        }
    }
    assert_eq!(beats, [299, 9, 59, 179, 999]);
    Ok(())
}
