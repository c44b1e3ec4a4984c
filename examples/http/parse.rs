//! Parses requests: the part of RFC 9112 that a small server needs. This file uses no I/O.
//!
//! Bodies have a `Content-Length`. A `Transfer-Encoding` is refused with 501.

/// The most bytes in the head of a request: its first line and its fields.
pub const MAX_HEAD: usize = 8 << 10;
/// The most bytes in a body.
pub const MAX_BODY: usize = 64 << 10;

/// A complete request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub body: &'a [u8],
    /// The client may send another request over the connection.
    pub keep_alive: bool,
}

/// The reason why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// There are not enough bytes yet.
    Incomplete,
    /// The request is bad, and gets this status. The parser cannot read on after a bad request.
    Bad(&'static str),
}

const BAD: Stop = Stop::Bad("400 Bad Request");

/// Returns the request at the beginning of `bytes`, and the length of the request.
pub fn parse(bytes: &[u8]) -> Result<(Request<'_>, usize), Stop> {
    let head = &bytes[..bytes.len().min(MAX_HEAD)];
    let (mut request, head_length, body_length) = match parse_head(head) {
        Err(Stop::Incomplete) if head.len() == MAX_HEAD => {
            return Err(Stop::Bad("431 Request Header Fields Too Large"));
        }
        parsed => parsed?,
    };
    let length = head_length + body_length;
    request.body = bytes.get(head_length..length).ok_or(Stop::Incomplete)?;
    Ok((request, length))
}

/// Returns a request without its body, the length of the head, and the length of the body.
fn parse_head(bytes: &[u8]) -> Result<(Request<'_>, usize, usize), Stop> {
    let mut rest = bytes;
    let mut words = line(&mut rest)?.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !is_token(method) || target.is_empty() {
        return Err(BAD);
    }
    let mut keep_alive = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false, // a server may ignore "Connection: keep-alive"
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Stop::Bad("505 HTTP Version Not Supported"));
        }
        _ => return Err(BAD),
    };
    let (mut hosts, mut length) = (0, None);
    loop {
        let field = line(&mut rest)?;
        if field.is_empty() {
            break;
        }
        // A space before the name or before the colon is refused: proxies read such fields in
        // different ways, which attacks exploit.
        let colon = field.iter().position(|&byte| byte == b':').ok_or(BAD)?;
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(BAD);
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // Two lengths are an attack or a mistake.
            if length.replace(number(value)?).is_some() {
                return Err(BAD);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(Stop::Bad("501 Not Implemented"));
        } else if name.eq_ignore_ascii_case(b"expect") {
            return Err(Stop::Bad("417 Expectation Failed"));
        } else if name.eq_ignore_ascii_case(b"connection") {
            let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            keep_alive &= !options.any(|option| option.eq_ignore_ascii_case(b"close"));
        }
    }
    if hosts > 1 || hosts == 0 && version == b"HTTP/1.1" {
        return Err(BAD);
    }
    let length = length.unwrap_or(0);
    if length > MAX_BODY {
        return Err(Stop::Bad("413 Content Too Large"));
    }
    let request = Request { method, target, body: &[], keep_alive };
    Ok((request, bytes.len() - rest.len(), length))
}

/// Removes the next line from `rest`, and returns the line without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Stop> {
    let end = rest.iter().position(|&byte| byte == b'\n').ok_or(Stop::Incomplete)?;
    let line = rest[..end].strip_suffix(b"\r").ok_or(BAD)?;
    if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(BAD);
    }
    *rest = &rest[end + 1..];
    Ok(line)
}

fn is_token(bytes: &[u8]) -> bool {
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_fine)
}

/// Parses a length. A number that overflows becomes `usize::MAX`, which is too large as well.
fn number(digits: &[u8]) -> Result<usize, Stop> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let digits = digits.iter().map(|&digit| usize::from(digit - b'0'));
    Ok(digits.fold(0, |n: usize, digit| n.saturating_mul(10).saturating_add(digit)))
}
