// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer to an HTTP/1.0 request (RFC 1945): status line, header lines, body.
//!
//! It comes from the network, so everything in it is checked; a body of another length than
//! announced is an error.

/// Longest header.
const HEAD_BYTES: usize = 2048;

/// The request for the one file there is.
pub const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: 10.0.2.100\r\n\r\n";

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// The header is longer than anybody needs.
    LongHeader,
    /// The status line is none.
    StatusLine,
    /// A status other than 200.
    Status(u16),
    /// No length, or one that is no number.
    ContentLength,
    /// More bytes than announced.
    TooLong,
    /// The connection ended before the announced length.
    TooShort,
}

/// An answer that is being received.
#[derive(Debug, Clone)]
pub struct Response {
    head: [u8; HEAD_BYTES],
    used: usize,
    /// Bytes of the body still to come, once the header is known.
    left: Option<u64>,
}

impl Response {
    /// Nothing received yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            used: 0,
            left: None,
        }
    }

    /// Takes received bytes in and returns those that belong to the body.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn feed<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], HttpError> {
        let mut rest = bytes;
        while self.left.is_none() {
            let Some((byte, behind)) = rest.split_first() else {
                return Ok(&[]);
            };
            rest = behind;
            let slot = self.head.get_mut(self.used);
            *slot.ok_or(HttpError::LongHeader)? = *byte;
            self.used += 1;
            let head = self.head.get(..self.used).unwrap_or(&[]);
            if head.ends_with(b"\r\n\r\n") {
                self.left = Some(content_length(head)?);
            }
        }
        let left = self.left.unwrap_or(0);
        self.left = Some(
            left.checked_sub(rest.len() as u64)
                .ok_or(HttpError::TooLong)?,
        );
        Ok(rest)
    }

    /// Every byte has come.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self.left, Some(0))
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`HttpError::TooShort`] before the body was complete.
    pub const fn end(&self) -> Result<(), HttpError> {
        if self.is_complete() {
            Ok(())
        } else {
            Err(HttpError::TooShort)
        }
    }
}

impl Default for Response {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks the header, the empty line included, and returns the length it announces.
fn content_length(head: &[u8]) -> Result<u64, HttpError> {
    let text = core::str::from_utf8(head).map_err(|_| HttpError::StatusLine)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let version = words.next().unwrap_or("");
    let status = words.next().and_then(|word| word.parse().ok());
    match status {
        _ if !version.starts_with("HTTP/1.") => return Err(HttpError::StatusLine),
        None => return Err(HttpError::StatusLine),
        Some(200) => {}
        Some(other) => return Err(HttpError::Status(other)),
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or(HttpError::ContentLength)
}

#[cfg(test)]
mod tests {
    use super::{HEAD_BYTES, HttpError, Response};
    use std::vec;
    use std::vec::Vec;

    const ANSWER: &[u8] =
        b"HTTP/1.0 200 OK\r\nServer: x\r\ncontent-length:  11\r\n\r\nhello\r\n\r\nxx";

    /// The body, received in pieces of `step` bytes.
    fn receive(answer: &[u8], step: usize) -> Result<Vec<u8>, HttpError> {
        let mut response = Response::new();
        let mut body = vec![];
        for part in answer.chunks(step) {
            body.extend_from_slice(response.feed(part)?);
        }
        response.end().map(|()| body)
    }

    #[test]
    fn a_body_is_received_in_pieces_of_any_size() {
        for step in 1..=ANSWER.len() {
            assert_eq!(receive(ANSWER, step), Ok(b"hello\r\n\r\nxx".to_vec()));
        }
        let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(receive(empty, 7), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = |answer: &[u8]| receive(answer, answer.len()).err();
        assert_eq!(
            whole(&ANSWER[..ANSWER.len() - 1]),
            Some(HttpError::TooShort)
        );
        let longer = [ANSWER, b"y"].concat();
        assert_eq!(whole(&longer), Some(HttpError::TooLong));
        assert_eq!(receive(&longer, 1), Err(HttpError::TooLong));
        assert_eq!(
            whole(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            Some(HttpError::Status(404))
        );
        assert_eq!(whole(b"HTTP/1.0 \r\n\r\n"), Some(HttpError::StatusLine));
        assert_eq!(whole(b"220 mail\r\n\r\n"), Some(HttpError::StatusLine));
        assert_eq!(
            whole(b"HTTP/1.0 200 OK\r\n\r\n"),
            Some(HttpError::ContentLength)
        );
        assert_eq!(
            whole(b"HTTP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n"),
            Some(HttpError::ContentLength)
        );
        assert_eq!(whole(b"HTTP/1.0 200 OK\r\n"), Some(HttpError::TooShort));
        assert_eq!(
            whole(&vec![b'a'; HEAD_BYTES + 1]),
            Some(HttpError::LongHeader)
        );
    }
}
