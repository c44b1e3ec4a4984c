//! The pause of a receiver that has caught up with a stream of messages.
//!
//! A receiver that looks for the next message at once reads the lines that the senders write. It
//! takes these lines away from the senders for each message, and both sides become slow. After a
//! pause there are many messages, and one look finds all of them. A receiver that has caught up is
//! faster than its senders, so the pause costs no throughput. It delays the first of these messages
//! by at most the length of the pause.
//!
//! A pause does not pay when the receiver's own thread is the sender, or when no more messages
//! come. So a receiver whose pauses bring few messages pauses less and less often.

use std::sync::atomic::{AtomicU64, Ordering};

/// Messages without an empty look that make a stream. A party that answers one question, or some
/// dozen at a time, sends no stream: its peer would pay for the pause with latency.
const STREAM: u64 = 32;
/// The number of spin hints in a pause: 0.3 to 1.5 µs. In that time a sender makes more messages
/// than [`STREAM`], so the next stream is one, too.
const PAUSE: u32 = 32;
/// Messages that must come during a pause. With fewer messages the pause does not pay.
const PAYS: u64 = 4;
/// Streams that end without a pause, at most, before one is tried again.
const MOST_SKIPPED: u64 = 1 << 12;

/// The receiver's memory of streams. Only the receiver uses these atomics, so no model sees them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The head at the last look that found nothing.
    caught_up: AtomicU64,
    /// Streams that end without a pause before the next try.
    skip: AtomicU64,
    /// The last value of `skip`.
    skipped: AtomicU64,
}

impl Pace {
    /// Notes that the receiver finds no message at `head`. Returns true at the end of a stream.
    #[inline(always)]
    pub(super) fn ends_stream(&self, head: u64) -> bool {
        let stream = head.wrapping_sub(self.caught_up.load(Ordering::Relaxed));
        self.caught_up.store(head, Ordering::Relaxed);
        stream >= STREAM
    }

    /// Calls `pause` with its length, if pauses have paid lately. `pause` returns the number of
    /// messages that came meanwhile. Returns true if there are some.
    pub(super) fn pause(&self, pause: impl FnOnce(u32) -> u64) -> bool {
        self.tries() && self.learns(pause(PAUSE))
    }

    fn tries(&self) -> bool {
        let skip = self.skip.load(Ordering::Relaxed);
        self.skip.store(skip.saturating_sub(1), Ordering::Relaxed);
        skip == 0
    }

    fn learns(&self, came: u64) -> bool {
        let skipped = match self.skipped.load(Ordering::Relaxed) {
            _ if came >= PAYS => 0,
            skipped => (skipped * 2).clamp(1, MOST_SKIPPED),
        };
        self.skipped.store(skipped, Ordering::Relaxed);
        self.skip.store(skipped, Ordering::Relaxed);
        came > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The number of pauses of a receiver that finds nothing after each `stream` messages, if each
    /// pause brings `came`.
    fn pauses(pace: &Pace, streams: u64, stream: u64, came: u64) -> u64 {
        let begin = pace.caught_up.load(Ordering::Relaxed);
        let mut pauses = 0;
        for n in 1..=streams {
            let count = |_| {
                pauses += 1;
                came
            };
            let _ = pace.ends_stream(begin + n * stream) && pace.pause(count);
        }
        pauses
    }

    #[test]
    fn only_a_stream_is_followed_by_a_pause() {
        let pace = Pace::default();
        assert_eq!(pauses(&pace, 1_000, 1, 1), 0);
        assert_eq!(pauses(&pace, 1_000, STREAM - 1, PAYS), 0);
        assert_eq!(pauses(&pace, 1_000, STREAM, PAYS), 1_000);
    }

    #[test]
    fn pauses_that_bring_nothing_become_rare() {
        let pace = Pace::default();
        let first = pauses(&pace, 1_000, STREAM, 0);
        assert!((5..=10).contains(&first), "{first} pauses");
        let rare = pauses(&pace, 1_000_000, STREAM, 1);
        assert!(rare <= 2 + 1_000_000 / MOST_SKIPPED, "{rare} pauses");
        // A stream from another thread brings the pauses back.
        assert!(pauses(&pace, 2 * MOST_SKIPPED, STREAM, PAYS) > MOST_SKIPPED / 2);
        assert_eq!(pauses(&pace, 100, STREAM, PAYS), 100);
    }
}
