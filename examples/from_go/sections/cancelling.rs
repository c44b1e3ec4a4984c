//! Cancelling other loops: by a context, by a done channel, and several loops at once.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::thread;

use pollmux::{Context, Inbox, Reactor, Sim, Time, channel, context::ContextError, select};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "cancelling",
    text: include_str!("cancelling.rs"),
    sections: &[
        Section {
            title: "cancelling by a context",
            go: r#"
func watch(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C: fmt.Println("tick")
		case <-ctx.Done(): return context.Cause(ctx)
		}
	}
}
ctx, cancel := context.WithTimeout(context.Background(), 3500*time.Millisecond)
defer cancel()
err := watch(ctx)"#,
            meaning: "
Done returns a channel, which is closed when the context is cancelled or its deadline has passed. A
context with a deadline holds a timer until then, so `go vet` demands the cancel.

Here `done` makes a source, which gives the cause. A deadline is a number in the context, and the
waiting reactor arms a timer. So a forgotten context holds no timer.",
            code: code!(by_context, with watch),
        },
        Section {
            title: "cancelling by a done channel",
            go: r#"
func count(done <-chan struct{}) (ticks int) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C: ticks++
		case <-done: return
		}
	}
}
done := make(chan struct{})
time.AfterFunc(2500*time.Millisecond, func() { close(done) })
ticks := count(done)"#,
            meaning: "
No value is ever sent: closing the channel is the signal.

Here dropping the last sender closes the channel, and `recv` then gives an error in every turn. A
channel has one receiver, which is enough for one loop. For several loops see the next section.",
            code: code!(by_done_channel, with count),
        },
        Section {
            title: "close(done) as a broadcast",
            go: r#"
done := make(chan struct{})
var wg sync.WaitGroup
for i := 0; i < 3; i++ {
	wg.Add(1)
	go func() {
		defer wg.Done()
		<-done
	}()
}
close(done) // all three; a second close would panic
wg.Wait()"#,
            meaning: "
A closed channel is ready for all receivers, and a sent value is ready for one receiver only. So
close is Go's idiom for a broadcast.

Here a context does this. Any number of threads can have clones of a context. One `cancel` ends
the context for all threads, and wakes each sleeping loop once. A second `cancel` is no error, and
returns false. This section runs in real time, with real threads.",
            code: code!(close_as_broadcast),
        },
        Section {
            title: "a function that runs after the cancel",
            go: r#"
ctx, cancel := context.WithCancel(context.Background())
stop := context.AfterFunc(ctx, func() { conn.Close() })
cancel() // another goroutine closes conn later
stopped := stop() // false: too late"#,
            meaning: "
AfterFunc runs f in a goroutine of its own, so f and its caller need a lock for shared data.

Here `after_cancel` runs the closure on the reactor's thread, inside the next turn. The closure may
hold an Rc, because no other code of yours runs at the same time. `stop` returns true exactly when
the closure will not run. Dropping the result of `after_cancel` is a `stop`, too.",
            code: code!(run_after_cancel),
        },
    ],
};

fn watch(reactor: &Reactor, context: &Context) -> io::Result<ContextError> {
    let ticker = reactor.every(secs(1))?;
    let done = reactor.done(context);
    loop {
        select! { reactor;
            recv(ticker) -> tick => say!("{:?} tick", tick.scheduled - Time::ZERO),
            recv(done) -> cause => return Ok(cause.error()),
        }
    }
}

fn by_context() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (context, _canceller) = reactor.context().with_timeout(ms(3500));
    let end = watch(&reactor, &context)?;
    say!("{:?} {end}", reactor.now() - Time::ZERO);
    assert_eq!((end, reactor.now()), (ContextError::DeadlineExceeded, Time::ZERO + ms(3500)));

    let (context, canceller) = reactor.context().with_timeout(secs(60));
    reactor.call_after(ms(1500), move |_| assert!(canceller.cancel())).detach();
    let end = watch(&reactor, &context)?;
    say!("{:?} {end}", reactor.now() - Time::ZERO);
    assert_eq!((end, reactor.now()), (ContextError::Cancelled, Time::ZERO + secs(5)));
    assert_eq!(reactor.stats().live, 0);
    Ok(())
}

fn count(reactor: &Reactor, done: &Inbox<()>) -> io::Result<u32> {
    let ticker = reactor.every(secs(1))?;
    let mut ticks = 0;
    loop {
        select! { reactor;
            recv(ticker) -> _ => ticks += 1,
            recv(done) -> end => {
                assert_eq!(end, Err(channel::RecvError)); // the channel is closed
                return Ok(ticks);
            }
        }
    }
}

fn by_done_channel() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (close, done) = reactor.channel::<()>(1)?;
    let mut close = Some(close);
    reactor.call_after(ms(2500), move |_| drop(close.take())).detach();
    let ticks = count(&reactor, &done)?;
    say!("{ticks} ticks until {:?}", reactor.now() - Time::ZERO);
    assert_eq!((ticks, reactor.now()), (2, Time::ZERO + ms(2500)));
    assert_eq!(count(&reactor, &done)?, 0); // the channel stays closed
    Ok(())
}

fn close_as_broadcast() -> io::Result<()> {
    let (context, canceller) = Context::background().with_cancel();
    let loops = [(); 3].map(|()| {
        let context = context.clone();
        thread::spawn(move || -> io::Result<ContextError> {
            let reactor = Reactor::new()?;
            let done = reactor.done(&context);
            select! { reactor; recv(done) -> cause => Ok(cause.error()) }
        })
    });
    assert!(canceller.cancel()); // ends all three loops
    assert!(!canceller.cancel()); // a second cancel does not panic
    for (n, thread) in loops.into_iter().enumerate() {
        let end = thread.join().unwrap()?;
        say!("loop {n}: {end}");
        assert_eq!(end, ContextError::Cancelled);
    }
    Ok(())
}

fn run_after_cancel() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (context, canceller) = reactor.context().with_cancel();
    let open = Rc::new(Cell::new(true)); // stands for conn
    let conn = open.clone();
    let closing = reactor.after_cancel(&context, move |_| conn.set(false));
    let other = reactor.after_cancel(&context, |_| panic!("the stopped closure ran"));
    assert!(other.stop());
    canceller.cancel();
    assert!(open.get()); // the closure runs in the next turn
    reactor.sleep_blocking(ms(0))?;
    say!("open: {}; stopped: {}", open.get(), closing.stop());
    assert!(!open.get() && !closing.stop());
    Ok(())
}
