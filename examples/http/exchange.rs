//! A connection without its socket: bytes come in, requests are handled in order, and answers go
//! out. This file uses no I/O and no clock.

use std::borrow::Cow;
use std::io::Write;

use super::parse::{Request, Stop, parse};

/// The bytes of unsent answers at which the exchange stops handling requests.
const MAX_OUTPUT: usize = 64 << 10;

/// An answer: a status, further header fields, and a body.
pub struct Answer<'a> {
    pub status: &'static str,
    pub fields: &'static str,
    pub body: Cow<'a, [u8]>,
}

impl<'a> Answer<'a> {
    fn new(status: &'static str, fields: &'static str, body: &'a [u8]) -> Answer<'a> {
        Answer { status, fields, body: body.into() }
    }
}

/// Returns the answer to a request. Replace this function with your program.
pub fn handle<'a>(request: &Request<'a>) -> Answer<'a> {
    let path = request.target.split(|&byte| byte == b'?').next().unwrap_or_default();
    match (request.method, path) {
        (b"GET" | b"HEAD", b"/") => Answer::new("200 OK", "", b"hello\n"),
        (b"POST", b"/echo") => Answer::new("200 OK", "", request.body),
        (_, b"/") => Answer::new("405 Method Not Allowed", "Allow: GET, HEAD\r\n", b""),
        (_, b"/echo") => Answer::new("405 Method Not Allowed", "Allow: POST\r\n", b""),
        _ => Answer::new("404 Not Found", "", b"this path does not exist\n"),
    }
}

/// The state of a connection: unhandled bytes of the client, and unsent answers.
#[derive(Default)]
pub struct Exchange {
    /// An incomplete request, or requests that wait until earlier answers are sent.
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    answered: u64,
    /// The next answer is the last one.
    is_last: bool,
    /// The last answer is in the output. Bytes that come in now are ignored.
    is_closing: bool,
}

impl Exchange {
    /// Handles bytes that the client sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.is_closing {
            self.input.extend_from_slice(bytes);
            self.answer_requests();
        }
    }

    /// Returns the bytes to send.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Notes that `n` bytes of the output have been sent.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            self.answer_requests(); // some requests may have waited
        }
    }

    /// Returns true if a request has begun and is not complete.
    pub fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }

    /// Returns true if the last answer has been sent.
    pub fn is_over(&self) -> bool {
        self.is_closing && self.output.is_empty()
    }

    /// Returns the number of answers so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Closes the connection after the next answer.
    pub fn finish(&mut self) {
        self.is_last = true;
    }

    /// Answers a bad or incomplete request with an error status, and closes the connection.
    pub fn fail(&mut self, status: &'static str) {
        let (answer, is_last) = (Answer::new(status, "", b""), true);
        self.write(&answer, true, is_last);
    }

    fn answer_requests(&mut self) {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while !self.is_closing && self.output.len() < MAX_OUTPUT {
            // Some old clients send an empty line after a body, which belongs to no request.
            rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
            match parse(rest) {
                Ok((request, length)) => {
                    let is_last = self.is_last || !request.keep_alive;
                    self.write(&handle(&request), request.method != b"HEAD", is_last);
                    rest = &rest[length..];
                }
                Err(Stop::Incomplete) => break,
                Err(Stop::Bad(status)) => self.fail(status),
            }
        }
        let used = input.len() - rest.len();
        self.input = input;
        self.input.drain(..used);
    }

    fn write(&mut self, answer: &Answer<'_>, has_body: bool, is_last: bool) {
        let Answer { status, fields, body } = answer;
        let close = if is_last { "Connection: close\r\n" } else { "" };
        let length = body.len();
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.output,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}{close}\r\n"
        );
        if has_body {
            self.output.extend_from_slice(body);
        }
        self.answered += 1;
        self.is_closing |= is_last;
    }
}
