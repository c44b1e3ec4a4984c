//! The history of a world: the turns of its members, and the fates of its messages.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::Time;

/// The happenings in a world since it began to [record](crate::sim::WorldHandle::record), in
/// virtual time: turns of members, and messages that were sent, lost and delivered.
///
/// `Display` prints a line for each happening. One seed always makes the same history.
///
/// ```
/// use pollmux::{SimWorld, sim::History};
///
/// let run = || -> Result<History, pollmux::sim::Deadlock> {
///     let mut world = SimWorld::new(3);
///     world.record();
///     ["a", "b"].map(|name| world.spawn(name, |_| ()));
///     world.run()?;
///     Ok(world.history())
/// };
/// let history = run()?;
/// assert!(history.len() >= 2 && !history.is_empty());
/// assert_eq!(history.to_string(), run()?.to_string());
/// assert!(history.to_chrome_trace().starts_with('{'));
/// # Ok::<(), pollmux::sim::Deadlock>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    list: Vec<(Time, Happening)>,
}

/// The ends of a link, and the number of a message among those sent through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) from: Arc<str>,
    pub(super) to: Arc<str>,
    pub(super) link: usize,
    pub(super) number: u64,
    /// The message as text, if the link shows its messages.
    pub(super) text: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// The name of a member, and the verb of its action.
    Member(Arc<str>, &'static str),
    Sent(Parcel),
    Delivered(Parcel),
    Lost(Parcel, &'static str),
    Network(String),
}

impl History {
    pub(super) fn new(list: Vec<(Time, Happening)>) -> History {
        History { list }
    }

    /// The number of happenings.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if nothing happened, or nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the history as a trace for `chrome://tracing` or Perfetto: JSON, with virtual time.
    ///
    /// A member is a thread with an instant for each of its turns. A link is a thread, too, with a
    /// slice for each message, from the send to the delivery or the loss.
    pub fn to_chrome_trace(&self) -> String {
        let mut trace = Trace { out: String::from("{\"traceEvents\":[\n"), names: BTreeMap::new() };
        let mut sent: BTreeMap<(usize, u64), Time> = BTreeMap::new();
        for &(at, ref what) in &self.list {
            let mut begin = |of: &Parcel| sent.remove(&(of.link, of.number)).unwrap_or(at);
            match what {
                Happening::Sent(parcel) => {
                    sent.insert((parcel.link, parcel.number), at);
                }
                Happening::Delivered(of) => trace.message(of, begin(of), at, "delivered"),
                Happening::Lost(of, why) => trace.message(of, begin(of), at, why),
                Happening::Network(text) => trace.instant(at, "network", text),
                Happening::Member(name, verb) => trace.instant(at, name, verb),
            }
        }
        let Trace { mut out, names } = trace;
        for (name, (process, thread)) in names {
            let _ = writeln!(
                out,
                "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{process},\"tid\":{thread},\
                 \"args\":{{\"name\":{}}}}},",
                json(&name)
            );
        }
        out.push_str(
            "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"members\"}},\n",
        );
        out.push_str(
            "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":2,\"args\":{\"name\":\"links\"}}\n\
             ]}\n",
        );
        out
    }
}

struct Trace {
    out: String,
    /// The process and the thread of each row.
    names: BTreeMap<String, (u32, usize)>,
}

impl Trace {
    fn row(&mut self, process: u32, name: &str) -> usize {
        let next = self.names.len() + 1;
        self.names.entry(name.to_owned()).or_insert((process, next)).1
    }

    fn instant(&mut self, at: Time, who: &str, what: &str) {
        let row = self.row(1, who);
        let _ = writeln!(
            self.out,
            "{{\"name\":{},\"ph\":\"i\",\"s\":\"t\",\"pid\":1,\"tid\":{row},\"ts\":{}}},",
            json(what),
            micros(at)
        );
    }

    fn message(&mut self, parcel: &Parcel, begin: Time, end: Time, what: &str) {
        let row = self.row(2, &format!("{} -> {} (link {})", parcel.from, parcel.to, parcel.link));
        let text = parcel.text.as_deref().unwrap_or("message");
        let _ = writeln!(
            self.out,
            "{{\"name\":{},\"ph\":\"X\",\"pid\":2,\"tid\":{row},\"ts\":{},\"dur\":{},\
             \"args\":{{\"number\":{},\"end\":{}}}}},",
            json(text),
            micros(begin),
            micros(Time::ZERO + (end - begin)),
            parcel.number,
            json(what)
        );
    }
}

fn micros(t: Time) -> String {
    let nanos = t.as_nanos();
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}

fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)?;
        if self.number > 0 {
            write!(f, "  message {} of link {}", self.number, self.link)?;
        }
        match &self.text {
            Some(text) => write!(f, "  {text}"),
            None => Ok(()),
        }
    }
}

impl_fmt!(Display, [] Happening, |it, f| match it {
    Happening::Sent(parcel) => write!(f, "sent       {parcel}"),
    Happening::Delivered(parcel) => write!(f, "delivered  {parcel}"),
    Happening::Lost(parcel, why) => write!(f, "lost       {parcel}  ({why})"),
    Happening::Network(text) => write!(f, "network    {text}"),
    Happening::Member(name, verb) => write!(f, "{name} {verb}"),
});

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, what) in &self.list {
            let since: Duration = *at - Time::ZERO;
            writeln!(f, "{:>16}  {what}", format!("{:.6} s", since.as_secs_f64()))?;
        }
        Ok(())
    }
}
