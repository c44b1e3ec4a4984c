//! Stopping a timer or a loop from another thread: `Stop` closes no channel and wakes no receiver.

use std::io;
use std::thread;

use pollmux::{Reactor, Sim, Time, channel, select};

use super::{Chapter, Section, ms, secs};

pub const CHAPTER: Chapter = Chapter {
    name: "stopping",
    text: include_str!("stopping.rs"),
    sections: &[
        Section {
            title: "Stop wakes no receiver",
            go: r#"
timer := time.NewTimer(5 * time.Second)
go func() {
	time.Sleep(2 * time.Second)
	timer.Stop()
}()
<-timer.C // blocks for ever; so does a range over the C of a stopped ticker"#,
            meaning: "
Stop only removes the timer from the heap. Stop must not close C, because the runtime may be about
to send and would panic.

Here, too, a stopped timer is never ready. There is no channel to close. A loop with other sources
continues. With virtual time, a wait that no source can end is an error.",
            code: code!(stop_wakes_no_receiver),
        },
        Section {
            title: "stopping a timer from another thread with a signal",
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
The first repair: the loop waits for a second source, which signals the stop.

Here a timer stays on its thread. A `Remote` requests the stop by the timer's id, and the loop stops
the timer at the beginning of a turn. So a timer never changes during your code. The signal is a
channel whose last sender is dropped, like close(done) in Go. This section runs in real time, with
a real thread.",
            code: code!(stop_and_signal),
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
The second repair: close(done) ends the goroutine, and its defer stops the ticker.

Here dropping the sender has the effect of close. A second close, which panics in Go, does not
compile. A forgotten close is impossible, because the owner of the sender drops the sender at its
end. The callback below takes the sender out of an Option, because a callback may run again.",
            code: code!(stop_channel),
        },
    ],
};

fn stop_wakes_no_receiver() -> io::Result<()> {
    let reactor = Reactor::with_driver(Sim::new())?;
    let timer = reactor.after(secs(5));
    let id = timer.id();
    reactor.call_after(secs(2), move |cx| assert_eq!(cx.stop_timer(id), Ok(true))).detach();
    let error = select! { reactor;
        recv(timer) -> due => panic!("the stopped timer fired at {due:?}"),
        error -> error => error,
    };
    say!("{error}");
    assert_eq!((error.kind(), reactor.now()), (io::ErrorKind::Deadlock, Time::ZERO + secs(2)));
    Ok(())
}

fn stop_and_signal() -> io::Result<()> {
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
        recv(timer) -> _ => panic!("the stopped timer fired"),
        recv(done) -> end => {
            say!("stopped; the channel says: {}", end.unwrap_err());
            assert_eq!(end, Err(channel::RecvError));
        }
    }
    other.join().unwrap();
    reactor.sleep_blocking(ms(0))?; // one more turn, because the signal may come before the stop
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
