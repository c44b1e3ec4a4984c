//! The receiver's memory of messages that it has taken out of turn (`state.rs`).

use super::head::{Reader, Span};
use super::ring::Stamp;
use super::state::{POSITION, behind};

/// The most unwritten positions that a detour remembers: one for each stalled sender. With more
/// stalled senders each receive looks at every position behind the last remembered one.
const HOLES: usize = 32;

/// Remembers which positions behind the head were taken, and which were found unwritten.
#[derive(Default)]
pub(super) struct Detour {
    /// Messages that were taken out of turn.
    pub(super) taken: usize,
    /// The word of the tail when the receiver last looked at it.
    pub(super) word: u64,
    /// The positions before this one are taken, or are holes.
    pub(super) ahead: u64,
    /// Positions that were found unwritten, the lowest first.
    holes: [u64; HOLES],
    pub(super) len: usize,
    /// A message not before `ahead` that was found: the search goes on in its ring.
    last: Option<Place>,
}

/// The ring of a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) ring: usize,
}

impl Detour {
    /// Begins a detour at this head.
    pub(super) fn begin(&mut self, head: u64) {
        (self.ahead, self.len, self.last) = (head, 0, None);
    }

    /// Returns the first written message of the span, and its ring.
    pub(super) fn first_written(
        &mut self,
        reader: &Reader<'_>,
        span: &Span,
    ) -> Option<(u64, usize)> {
        let (head, end) = (span.head, behind(span.head, span.tail));
        let holes = self.holes[..self.len].iter().take_while(|&&hole| behind(head, hole) < end);
        let mut written = holes.filter_map(|&hole| reader.written(span, hole));
        if let Some(first) = written.next() {
            return Some(first);
        }
        let mut position = self.ahead;
        while behind(head, position) < end {
            let (stamp, ring) = reader.stamp_behind(span, self.last, position);
            if stamp == Stamp::Written {
                self.last = Some(Place { position, ring });
                return Some((position, ring));
            }
            if position == self.ahead {
                if stamp == Stamp::Taken {
                    self.ahead = (position + 1) & POSITION;
                } else if self.len < HOLES {
                    self.holes[self.len] = position;
                    self.len += 1;
                    self.ahead = (position + 1) & POSITION;
                }
            }
            position = (position + 1) & POSITION;
        }
        None
    }

    /// Notes that the message at this position was taken: the position is no hole any more.
    pub(super) fn fill(&mut self, position: u64) {
        if let Some(at) = self.holes[..self.len].iter().position(|&hole| hole == position) {
            self.holes.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
    }

    /// Notes that the head goes from one position to another.
    pub(super) fn pass(&mut self, from: u64, to: u64) {
        self.last = None; // its ring may have been freed
        let passed = behind(from, to);
        let left =
            self.holes[..self.len].iter().take_while(|&&hole| behind(from, hole) < passed).count();
        self.holes.copy_within(left..self.len, 0);
        self.len -= left;
        if behind(from, self.ahead) < passed {
            self.ahead = to;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::HOLES;
    use crate::channel::TryRecvError;

    #[test]
    fn a_detour_passes_many_stalled_senders() {
        for capacity in [Some(256), None] {
            let (tail, head) = crate::channel::ends(capacity);
            let mut stalled = Vec::new();
            for n in 0..HOLES as u64 {
                stalled.push((n, tail.begin()));
                tail.try_send(n).unwrap();
                assert_eq!(head.try_recv(), Ok(n));
            }
            let detour = || {
                let detour = head.state().detour.lock();
                (detour.len, detour.ahead)
            };
            // The last message is behind `ahead` until the next search.
            assert_eq!(detour(), (HOLES, 2 * HOLES as u64 - 1));
            stalled.into_iter().rev().for_each(|(n, send)| send.finish(100 + n));
            (0..HOLES as u64).for_each(|n| assert_eq!(head.try_recv(), Ok(100 + n)));
            assert_eq!(head.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(detour().0, 0);
        }
    }

    #[test]
    fn a_detour_remembers_only_holes() {
        let (tail, head) = crate::channel::ends(Some(200));
        let mut standing: Vec<_> = (0..3).map(|_| tail.begin()).collect();
        for n in 0..100 {
            tail.try_send(n).unwrap();
            assert_eq!(head.try_recv(), Ok(n));
        }
        standing.remove(1).finish(100);
        assert_eq!(head.try_recv(), Ok(100));
        assert_eq!(head.try_recv(), Err(TryRecvError::Empty));
        let detour = head.state().detour.lock();
        assert_eq!((&detour.holes[..detour.len], detour.ahead), (&[0, 2][..], 103));
    }
}
