//! Channels: many senders on any threads, one receiver, registered with a reactor or used bare.
//!
//! ```
//! use pollmux::channel;
//!
//! let (tx, rx) = channel::bounded(2);
//! std::thread::spawn(move || (0..5).for_each(|i| tx.send(i).unwrap()));
//! assert_eq!(rx.iter().sum::<i32>(), 10);
//! ```
//!
//! When every sender is gone the receiver still gets the messages in the buffer, and then an error
//! for ever. When the receiver is gone a send gives its value back. The guide has [a
//! page](crate::guide::channels).
//!
//! # Many receivers
//! A channel has one receiver. Loops that share their jobs bring a queue of their own: the channel
//! of another crate, or a list behind a lock. Each loop has a [bell](crate::Notifier) for the
//! queue. A thread that sends a job rings all bells afterwards. The loops that sleep wake up, and
//! the first one takes the job. A ring costs no syscall if that loop is awake or was rung before.
//!
//! ```
//! use pollmux::{Notifier, Reactor, channel, select};
//! use std::collections::VecDeque;
//! use std::sync::{Arc, Mutex};
//! use std::{io, thread};
//!
//! let jobs = Arc::new(Mutex::new(VecDeque::new())); // or a crossbeam receiver, cloned
//! let (to_us, bells) = channel::bounded(2);
//! let worker = |_| {
//!     let (jobs, to_us) = (jobs.clone(), to_us.clone());
//!     thread::spawn(move || {
//!         let reactor = Reactor::new()?;
//!         let (bell, notified) = reactor.notifier();
//!         let source = notified.receiving(|| jobs.lock().unwrap().pop_front());
//!         to_us.send(bell).unwrap();
//!         let mut sum = 0;
//!         loop {
//!             select! { reactor;
//!                 recv(source) -> job => match job {
//!                     Some(n) => sum += n,
//!                     None => return io::Result::Ok(sum),
//!                 },
//!             }
//!         }
//!     })
//! };
//! let workers: Vec<_> = (0..2).map(worker).collect();
//! let bells: Vec<Notifier> = bells.iter().take(2).collect();
//! for job in [Some(1), Some(2), Some(3), None, None] {
//!     jobs.lock().unwrap().push_back(job);
//!     bells.iter().for_each(Notifier::notify);
//! }
//! let mut sum = 0;
//! for worker in workers {
//!     sum += worker.join().unwrap()?;
//! }
//! assert_eq!(sum, 6);
//! # io::Result::Ok(())
//! ```
//!
//! `examples/more/worker_pool.rs` shows this with crossbeam's channel. There a window bounds the
//! queue, and the workers are told when the senders are gone.
//!
//! # Order
//! A send that has returned before another send begins is received first. So the messages of one
//! thread keep their order. Of two sends that overlap in time either may be received first.
//!
//! # A sender that does not run
//! The scheduler may stop a sender in the middle of a send. Its message is then *coming*. The
//! receiver does not wait for that sender. The receiver takes the messages behind, sleeps, and
//! meets its deadlines.
//! - `try_recv`, `default` and the other waits without time never miss a message whose send has
//!   returned.
//! - The slots behind the stopped send are not free before that send goes on. So `len()` may be
//!   more than zero although `try_recv` finds no message. `is_full()` may be true although messages
//!   were taken.
//! - A message that is still being written when the receiver goes is dropped by its sender.
//!
//! | file | |
//! |---|---|
//! | `sender.rs`, `receiver.rs` | the two ends, blocking and timing out |
//! | `tail.rs` | the senders' side of a channel with a buffer: claim a position, write its slot |
//! | `head.rs` | the receiver's side of it: find a message, take it out |
//! | `glance.rs` | the outcome of a look that reads nothing that senders write often |
//! | `state.rs` | the words that both sides share whatever `T` is: positions, detours |
//! | `ring.rs` | the slots of a bounded or unbounded channel |
//! | `shared.rs` | the values in the slots, and who drops those that nobody receives |
//! | `usage.rs` | how full the ring of an unbounded channel is: when it shrinks |
//! | `target.rs` | who is told of the next message |
//! | `room.rs` | who waits for room |
//! | `room_request.rs` | an outbox that asks to be told of room |
//! | `rendezvous.rs` | channels of capacity zero |
//! | `meeting.rs` | the part of a rendezvous that both ends share whatever `T` is |
//! | `registry.rs` | the children of a context: a list that any thread changes without waiting |
//! | `permit.rs` | send cases: room that is taken before the value exists |
//! | `models.rs`, `*_models.rs` | the loom models |

mod detour;
mod errors;
#[cfg(all(loom, test))]
mod fence_models;
mod glance;
mod head;
#[cfg(all(loom, test))]
mod late_models;
mod meeting;
#[cfg(all(loom, test))]
pub(crate) mod models;
mod pace;
mod permit;
mod receiver;
pub(crate) mod registry;
mod rendezvous;
#[cfg(all(loom, test))]
mod rendezvous_models;
mod ring;
mod room;
mod room_request;
mod sender;
mod shared;
mod state;
mod tail;
mod target;
#[cfg(all(test, not(loom)))]
mod tests;
pub(crate) mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::errors::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
#[doc(hidden)]
pub use self::glance::Glance;
use self::head::Head;
pub(crate) use self::permit::Waiting;
pub use self::permit::{Chosen, Permit};
pub use self::receiver::{IntoIter, Iter, Receiver, TryIter};
pub(crate) use self::registry::{Entry, Once, Registry};
use self::rendezvous::Rendezvous;
pub(crate) use self::room_request::RoomRequest;
pub use self::sender::Sender;
use self::shared::Shared;
pub(crate) use self::state::{Refused, State};
use self::tail::Tail;
pub(crate) use self::target::Target;

/// Makes a channel that holds at most `capacity` messages. With a capacity of zero it is a
/// rendezvous: a message goes over when both ends are there.
///
/// ```
/// use pollmux::channel::{self, TrySendError};
/// use std::thread;
///
/// let (tx, rx) = channel::bounded(1);
/// assert_eq!(tx.try_send(1), Ok(()));
/// assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
/// assert_eq!(rx.recv(), Ok(1));
///
/// let (tx, rx) = channel::bounded(0); // a rendezvous
/// let sender = thread::spawn(move || tx.send("hello"));
/// assert_eq!(rx.recv(), Ok("hello"));
/// assert!(sender.join().unwrap().is_ok());
/// ```
///
/// # A rendezvous
/// An end of a rendezvous is there while it blocks: in `send`, in `recv`, in a `select!` or in
/// [`Handle::wait`](crate::Handle::wait). An embedded reactor blocks between its turns. `try_send`
/// succeeds only while the receiver blocks, and `try_recv` only while a sender does. `send` returns
/// when the receiver has taken the value.
///
/// **Neither end is bound.** A send case is chosen before its value exists, and the evaluation may
/// take long or fail. Meanwhile the receiver's timeouts and other cases go on. So for a send *case*
/// `Ok` means that the next receive gets the value. It does not mean that a receive has returned.
/// `Err` comes only when the receiver is gone. The first `try_recv` that meets a send case is
/// `Empty`, and asks for the value.
///
/// # Panics
/// When `capacity` is 2^47 or more (on 32-bit systems 2^31 or more), or when so many slots are more
/// than `isize::MAX` bytes.
///
/// # Cost
/// Allocates its slots at once, and nothing afterwards.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    if capacity == 0 {
        return rendezvous();
    }
    buffered(Some(capacity))
}

/// Makes a channel without a limit: a send never waits. Prefer [`bounded`], whose limit protects
/// the memory of a loop that is slower than its senders.
///
/// ```
/// use pollmux::channel;
///
/// let (tx, rx) = channel::unbounded();
/// (0..1_000).for_each(|n| tx.send(n).unwrap());
/// assert_eq!((rx.len(), rx.capacity()), (1_000, None));
/// ```
///
/// # Memory
/// A full channel grows to twice its slots. So the slots take at most twice the memory of the
/// messages that were in the channel at once.
///
/// **The channel shrinks** above 64 KiB of slots, when less than an eighth of the slots were used
/// for a second. A smaller ring then replaces the slots. It has about four times the used part, and
/// at least 32 to 64 KiB. Below 64 KiB nothing shrinks. So a channel that stays below 64 KiB
/// allocates only when it is fuller than ever before.
///
/// The channel checks the time when the receiver finds it empty, and when its reactor sleeps. While
/// there are always messages, it checks about once for as many messages as there are slots. So an
/// end that nobody uses keeps its memory. In a reactor in virtual time the second is virtual. A
/// message that is being written keeps the slots before it until it was received.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    buffered(None)
}

/// Allocates a rendezvous. Not a part of [`bounded`]: this function has a message on its stack,
/// however large.
#[inline(never)]
fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    let meeting = Arc::new(Rendezvous::new());
    (Sender::of_rendezvous(meeting.clone()), Receiver::of_rendezvous(meeting))
}

fn buffered<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let (tail, head) = ends(capacity);
    (Sender::of_buffer(tail), Receiver::of_buffer(head))
}

/// Makes the two ends of a channel with a buffer.
fn ends<T>(capacity: Option<usize>) -> (Tail<T>, Head<T>) {
    let shared = Arc::new(Shared::new(capacity));
    (Tail::new(shared.clone()), Head::new(shared))
}

/// The measures that both ends give of a channel. `buffer` of an end is `None` at a rendezvous.
macro_rules! measures {
    ($end:ident) => {
        impl<T> $end<T> {
            /// The number of messages in the channel. Messages that a sender is writing count.
            pub fn len(&self) -> usize {
                self.buffer().map_or(0, |state| state.len())
            }

            /// Returns true if a `try_send` would find no room. A rendezvous is always full, and
            /// always empty.
            pub fn is_full(&self) -> bool {
                self.buffer().is_none_or(|state| state.is_full())
            }

            /// The most messages that the channel holds; `None` means that there is no limit.
            pub fn capacity(&self) -> Option<usize> {
                self.buffer().map_or(Some(0), |state| state.capacity())
            }
        }

        impl_debug!([T] $end<T>, |it| len: it.len(), capacity: it.capacity());
    };
}
use measures;

/// The length of a sleep whose wake-up is not sure: 50 µs, then twice as long each time, up to
/// 1 ms.
#[derive(Debug)]
pub(crate) struct Nap(Duration);

impl Default for Nap {
    fn default() -> Nap {
        Nap(Duration::from_micros(50))
    }
}

impl Nap {
    const LONGEST: Duration = Duration::from_millis(1);

    pub(crate) fn next(&mut self) -> Duration {
        let nap = self.0;
        self.0 = (nap * 2).min(Nap::LONGEST);
        nap
    }
}

/// Returns `None`, for ever, when the deadline is further away than an `Instant` reaches.
fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
