//! The end of a run in which every member waits.

use std::error::Error;
use std::fmt;
use std::io;

use super::member::WaitsFor;
use super::network::LinkStats;
use crate::sys::Time;

/// The error of a run in which members wait and nothing is due anywhere: no deadline, and no
/// message on its way. `Display` prints a report.
///
/// ```
/// use pollmux::{SimWorld, channel, sim::Deadlock};
///
/// let mut world = SimWorld::new(1);
/// let (_tx, rx) = channel::bounded::<u32>(1);
/// world.spawn("member", move |reactor| {
///     let inbox = reactor.register(rx).unwrap();
///     reactor.recv(&inbox).map(drop)
/// });
/// let deadlock: Deadlock = world.run().unwrap_err();
/// assert_eq!(deadlock.waiting[0].member, "member");
/// assert_eq!(deadlock.waiting[0].waits_for[0].count, 1); // the inbox, with its line
/// println!("{deadlock}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlock {
    /// The virtual time.
    pub at: Time,
    /// The members that wait, in the order in which they were spawned.
    pub waiting: Vec<WaitingMember>,
}

/// A member that waits, in the report of a [`Deadlock`], which has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingMember {
    /// The name of the member.
    pub member: String,
    /// The deadline of the reactor of a paused member. `None` for the others, whose deadline would
    /// be due.
    pub deadline: Option<Time>,
    /// The links that end at the member: their other ends, and the counts of their messages.
    pub links: Vec<(String, LinkStats)>,
    /// The member is paused, and nobody has resumed it.
    pub paused: bool,
    /// The live sources of the reactor, by the line that made them, most first.
    pub waits_for: Vec<WaitsFor>,
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.at - Time::ZERO;
        write!(f, "deadlock in virtual time, at {since:?}: nothing is due anywhere")?;
        for WaitingMember { member, deadline, links, paused, waits_for } in &self.waiting {
            write!(f, "\n  {member} waits for a wake-up")?;
            match deadline {
                Some(deadline) => write!(f, ", or {deadline:?}")?,
                None => write!(f, ", without a deadline")?,
            }
            if *paused {
                f.write_str(", and is paused")?;
            }
            for (from, LinkStats { sent, delivered, lost }) in links {
                write!(f, "; from {from}: {sent} sent, {delivered} delivered, {lost} lost")?;
            }
            for source in waits_for {
                write!(f, "\n    {source}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WaitsFor { kind, location, count } = self;
        let kind = kind.map_or_else(|| "source".to_owned(), |kind| kind.to_string());
        write!(f, "{count} x {kind}")?;
        match location {
            Some(at) => write!(f, " made at {at}"),
            None => Ok(()),
        }
    }
}

impl Error for Deadlock {}

impl From<Deadlock> for io::Error {
    /// Of the kind [`Deadlock`](io::ErrorKind::Deadlock).
    fn from(deadlock: Deadlock) -> io::Error {
        io::Error::new(io::ErrorKind::Deadlock, deadlock)
    }
}
