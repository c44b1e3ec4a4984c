//! Splits bytes that come in pieces into lines.

#![allow(dead_code)] // each example uses a part

/// Keeps the beginning of a line until its end comes.
pub struct Lines {
    begun: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// Makes an empty buffer. A line that is longer than `limit` is split into pieces of that
    /// length, so memory is bounded.
    pub fn new(limit: usize) -> Lines {
        Lines { begun: Vec::new(), limit }
    }

    /// Adds `bytes`, and calls `f` with each complete line, without its end.
    pub fn push(&mut self, bytes: &[u8], mut f: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (mut text, is_complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
                None => (piece, false),
            };
            while self.begun.len() + text.len() > self.limit {
                let (fits, rest) = text.split_at(self.limit - self.begun.len());
                self.begun.extend_from_slice(fits);
                f(&self.begun);
                self.begun.clear();
                text = rest;
            }
            self.begun.extend_from_slice(text);
            if is_complete {
                f(&self.begun);
                self.begun.clear();
            }
        }
    }

    /// Calls `f` with the unfinished line, if there is one.
    pub fn finish(&mut self, f: impl FnOnce(&[u8])) {
        if !self.begun.is_empty() {
            f(&self.begun);
            self.begun.clear();
        }
    }
}
