//! Stopping a timer or a loop from elsewhere: `Stop` closes no channel and wakes nobody.

use std::io;
use std::thread;

use pollmux::{Reactor, Sim, Time, channel, select};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "stopping",
    text: include_str!("stopping.rs"),
    sections: &[
        Section {
            title: "Stop wakes nobody",
            go: r#"
timer := time.NewTimer(5 * time.Second)
go func() {
	time.Sleep(2 * time.Second)
	timer.Stop()
}()
<-timer.C // blocks for ever; so does a range over the C of a stopped ticker"#,
            meaning: "
Stop takes the timer off the heap, and that is all. It must not close C: the runtime, about to
send, would panic.

Here, too, a stopped timer is merely never ready. There is no channel to close, and a loop that
waits for something else besides is not hindered. That nothing at all can come virtual time knows,
and says.",
            code: code!(stop_wakes_nobody),
        },
        Section {
            title: "stopping a timer from another thread, and saying so",
            go: r#"
ctx, cancel := context.WithCancel(context.Background())
timer := time.NewTimer(5 * time.Minute)
go func() {
	timer.Stop()
	cancel()
}()
select {
case <-timer.C:
	fmt.Println("expired")
case <-ctx.Done():
	fmt.Println("stopped")
}"#,
            meaning: "
The first repair: something besides the timer to wait for.

Here a timer stays on its thread; a `Remote` asks that thread to stop it, by its id, and the loop
does so at the beginning of a turn: never while you look at the timer. The news is a channel whose
last sender is dropped, which is what close(done) is in Go. This section runs in real time, with a
real thread.",
            code: code!(stop_and_say_so),
        },
        Section {
            title: "a stop channel",
            go: r#"
func startTicker(f func()) chan struct{} {
	done := make(chan struct{}, 1)
	go func() {
		ticker := time.NewTicker(5 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C: f()
			case <-done: return
			}
		}
	}()
	return done
}
done := startTicker(func() { fmt.Println("hello") })
time.Sleep(12 * time.Second)
close(done)"#,
            meaning: "
The second repair: close(done) ends the goroutine, and its defer the ticker.

Here dropping the sender does what close does. It cannot be done twice, which panics in Go, and
cannot be forgotten: it happens at the latest when whoever holds the sender goes. (A callback may
be called again, so what it gives away it takes out of an Option.)",
            code: code!(stop_channel),
        },
    ],
};

fn stop_wakes_nobody() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(5));
    let id = timer.id();
    reactor.call_after(secs(2), move |cx| assert_eq!(cx.stop_timer(id), Ok(true))).detach();
    let error = select! { reactor;
        recv(timer) -> due => panic!("stopped, and fired {due:?}"),
        error -> error => error,
    };
    say!("{error}");
    assert_eq!((error.kind(), reactor.now()), (io::ErrorKind::Deadlock, Time::ZERO + secs(2)));
    Ok(())
}

fn stop_and_say_so() -> io::Result<()> {
    let reactor = Reactor::new()?;
    let (cancel, done) = reactor.channel::<()>(1)?;
    let timer = reactor.after(secs(5 * 60));
    let (remote, id) = (reactor.remote(), timer.id());
    let other = thread::spawn(move || {
        thread::sleep(ms(20));
        remote.stop(id).unwrap();
        drop(cancel);
    });
    select! { reactor;
        recv(timer) -> _ => panic!("it was stopped"),
        recv(done) -> end => {
            say!("stopped; the channel says: {}", end.unwrap_err());
            assert_eq!(end, Err(channel::RecvError));
        }
    }
    other.join().unwrap();
    reactor.sleep_blocking(ms(0))?; // a turn: the news may have come in the one before the stop
    assert_eq!(timer.deadline(), None);
    Ok(())
}

fn stop_channel() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let (close, done) = reactor.channel::<()>(1)?;
    let mut close = Some(close);
    reactor.call_after(secs(12), move |_| drop(close.take())).detach();

    let ticker = reactor.every(secs(5))?;
    let mut hellos = Vec::new();
    loop {
        select! { reactor;
            recv(ticker) -> tick => {
                say!("{:>3?} hello", tick.scheduled - Time::ZERO);
                hellos.push(tick.scheduled - Time::ZERO);
            }
            recv(done) -> _ => break,
        }
    }
    say!("{:?} done", reactor.now() - Time::ZERO);
    assert_eq!((hellos, reactor.now()), (vec![secs(5), secs(10)], Time::ZERO + secs(12)));
    Ok(())
}
