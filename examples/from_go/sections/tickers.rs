//! Go's `time.Ticker` and `time.Tick`.

use std::io;

use pollmux::{MissedTickBehavior, Reactor, Sim, Time, select, sources::ZeroPeriod};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "tickers",
    text: include_str!("tickers.rs"),
    sections: &[
        Section {
            title: "time.NewTicker, Stop and Reset",
            go: r#"
ticker := time.NewTicker(time.Second)
<-ticker.C
ticker.Stop()             // no more ticks
ticker.Reset(time.Second) // ticks again"#,
            meaning: "
Stop ends the ticks and leaves C open. Reset restarts the ticker, also after a Stop.

Here two methods continue after a `stop`. `restart` counts from now, and `resume` continues the
old grid.",
            code: code!(new_ticker),
        },
        Section {
            title: "time.Tick",
            go: r#"
for t := range time.Tick(2 * time.Second) {
	fmt.Println(t, "hello")
}"#,
            meaning: "
Tick is a ticker without a handle, so the program cannot stop this ticker.

Here the loop uses an ordinary ticker. The end of the loop's function drops and stops the ticker.",
            code: code!(tick),
        },
        Section {
            title: "a receiver slower than its ticker",
            go: r#"
ticker := time.NewTicker(100 * time.Millisecond)
time.Sleep(350 * time.Millisecond)
<-ticker.C // at once: the tick of 100 ms; the ticks of 200 and 300 ms were dropped
<-ticker.C // at 400 ms"#,
            meaning: "
C has room for one tick, and the runtime drops ticks while C is full. Go does not report the number
of dropped ticks.

Here the tick has the number of missed ticks, and the ticker has a setting for missed ticks. `Skip`
drops them as in Go, and is the default. `Burst` delivers them late. `Delay` starts a new grid.",
            code: code!(slow_receiver),
        },
        Section {
            title: "a period of zero",
            go: r#"
time.NewTicker(0) // panics
ticker.Reset(0)   // panics
time.Tick(0)      // nil: blocks for ever"#,
            meaning: "
Go has three results for one mistake, and two of these results are panics.

Here a period of zero is an error, and the ticker keeps its old period.",
            code: code!(zero_period),
        },
    ],
};

fn new_ticker() -> io::Result<()> {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone())?;
    let ticker = reactor.every(secs(1))?;
    let next = || select! { reactor; recv(ticker) -> tick => tick.scheduled - Time::ZERO };
    let first = next();
    ticker.stop();
    let stopped = select! { reactor; recv(ticker) -> _ => false, default(ms(2300)) => true };
    say!("tick at {first:?}; no tick after stop until {:?}: {stopped}", sim.now() - Time::ZERO);

    ticker.resume();
    let resumed = [next(), next()];
    ticker.stop();
    sim.advance(ms(300));
    ticker.restart();
    let restarted = [next(), next()];
    say!("resumed at 3.3s:    {resumed:?}");
    say!("restarted at 5.3s:  {restarted:?}");
    assert_eq!((first, stopped), (secs(1), true));
    assert_eq!((resumed, restarted), ([secs(4), secs(5)], [ms(6300), ms(7300)]));
    Ok(())
}

fn tick() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let ticker = reactor.every(secs(2))?;
    let mut ticks = Vec::new();
    while ticks.len() < 3 {
        select! { reactor; recv(ticker) -> tick => {
            say!("{:?} hello", tick.scheduled - Time::ZERO);
            ticks.push(tick.scheduled - Time::ZERO);
        }}
    }
    assert_eq!(ticks, [secs(2), secs(4), secs(6)]);
    Ok(())
}

fn slow_receiver() -> io::Result<()> {
    use MissedTickBehavior::{Burst, Delay, Skip};
    let mut all = Vec::new();
    for behavior in [Skip, Burst, Delay] {
        let sim = Sim::new();
        let reactor = Reactor::with_driver(sim.clone())?;
        let ticker = reactor.every(ms(100))?.missed_tick_behavior(behavior);
        sim.advance(ms(350)); // the loop is busy
        let ticks = [(); 4].map(|()| select! { reactor; recv(ticker) -> tick => tick });
        let at = ticks.map(|tick| (tick.scheduled - Time::ZERO).as_millis());
        say!("{:<6} ticks of {at:?} ms, {} missed", format!("{behavior:?}"), ticks[0].missed);
        all.push((at, ticks[0].missed));
    }
    assert_eq!(all[0], ([100, 400, 500, 600], 2));
    assert_eq!(all[1], ([100, 200, 300, 400], 0));
    assert_eq!(all[2], ([100, 450, 550, 650], 2));
    Ok(())
}

fn zero_period() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let refused = reactor.every(secs(0));
    say!("{}", refused.as_ref().unwrap_err());
    assert!(matches!(refused, Err(ZeroPeriod)));

    let ticker = reactor.every(secs(1))?;
    assert_eq!(ticker.reset(secs(0)), Err(ZeroPeriod));
    select! { reactor; recv(ticker) -> tick => {
        say!("the ticker continues: {:?}", tick.scheduled - Time::ZERO);
        assert_eq!(tick.scheduled, Time::ZERO + secs(1));
    }}
    Ok(())
}
