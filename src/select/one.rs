//! One source without the macro: a `select!` of one case.

use std::io;
use std::time::Duration;

use super::{Impossible, Pick, now, until, wait};
use crate::reactor::Handle;
use crate::sources::Source;

impl Handle {
    /// Waits for one source as long as it takes: a `select!` of one case. Go's `<-timer.C`.
    ///
    /// # Errors
    /// When the source belongs to another reactor, when the reactor has been dropped, and when its
    /// driver fails.
    ///
    /// ```
    /// use pollmux::Reactor;
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let timer = reactor.after(Duration::from_millis(2));
    /// let due = reactor.recv(&timer)?;
    /// assert!(reactor.now() >= due);
    /// assert!(reactor.recv_timeout(&timer, Duration::from_millis(2))?.is_none());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv<S: Source>(&self, source: &S) -> io::Result<S::Item> {
        self.check_source(source)?;
        wait(self, &(source, ()), true).map(only)
    }

    /// Waits for one source for at most `timeout`. Returns `None` when that is over.
    ///
    /// # Errors
    /// The errors of [`recv`](Self::recv).
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let second = Duration::from_secs(1);
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let timer = reactor.after(2 * second);
    /// assert!(reactor.recv_timeout(&timer, second)?.is_none());
    /// assert!(reactor.recv_timeout(&timer, second)?.is_some());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_timeout<S: Source>(
        &self,
        source: &S,
        timeout: Duration,
    ) -> io::Result<Option<S::Item>> {
        self.check_source(source)?;
        Ok(until(self, &(source, ()), true, timeout)?.map(only))
    }

    /// Receives if the source is ready now. The call is a turn, so it finds a timer that has become
    /// due. The source's own [`try_take`](Source::try_take) does not.
    ///
    /// # Errors
    /// The errors of [`recv`](Self::recv).
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, Source};
    /// use std::time::Duration;
    ///
    /// let sim = Sim::new();
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// let timer = reactor.after(Duration::from_secs(1));
    /// assert!(reactor.try_recv(&timer)?.is_none());
    /// sim.advance(Duration::from_secs(1));
    /// assert!(timer.try_take().is_none()); // no turn has been
    /// assert!(reactor.try_recv(&timer)?.is_some());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_recv<S: Source>(&self, source: &S) -> io::Result<Option<S::Item>> {
        self.check_source(source)?;
        Ok(now(self, &(source, ()), true)?.map(only))
    }

    /// Fails here, with the caller's line, and not in the `select!` behind this call, which the
    /// caller has not written.
    #[inline]
    fn check_source<S: Source>(&self, source: &S) -> io::Result<()> {
        if source.belongs_to(self) || self.is_closed() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the source is one of another reactor: receive through the handle of that one",
        ))
    }
}

fn only<T>(picked: Pick<T, Impossible>) -> T {
    match picked {
        Pick::This(item) => item,
        Pick::Rest(impossible) => match impossible {},
    }
}
