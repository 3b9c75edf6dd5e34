// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner serve`: one file over HTTP/1.0, on standard input and output.
//!
//! QEMU's user network starts one such process for each connection of the guest to its address, so
//! no port of this computer is opened.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use clap::Args;

use crate::Failure;

/// A request longer than this is none of ours.
const LONGEST_REQUEST: u64 = 16 << 10;

/// What to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeOptions {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Answers one request.
///
/// # Errors
/// Bad input when the file cannot be read, [`Failure::Died`] when the client went away.
pub fn serve(options: &ServeOptions) -> Result<(), Failure> {
    let name = options.file.display();
    let unreadable = |error| Failure::bad_input(format!("{name} cannot be read: {error}"));
    let file = File::open(&options.file).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    answer(input, output, file, bytes)
        .map_err(|error| Failure::Died(format!("the client of {name} went away: {error}")))
}

/// Reads a request from `input` and writes the answer, with `bytes` of `file`, to `output`.
fn answer(
    input: impl Read,
    mut output: impl Write,
    file: impl Read,
    bytes: u64,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(input.take(LONGEST_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The header ends with an empty line; to answer earlier would look like an answer to nothing.
    while let Some(line) = lines.next().transpose()? {
        if line.trim_end().is_empty() {
            break;
        }
    }
    let mut words = request.split_whitespace();
    let path = match (words.next(), words.next(), words.next()) {
        (Some("GET"), Some(path), Some(version)) if version.starts_with("HTTP/1.") => path,
        _ => return status(&mut output, "400 Bad Request"),
    };
    if path != "/" {
        return status(&mut output, "404 Not Found");
    }
    write!(
        output,
        "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n"
    )?;
    std::io::copy(&mut file.take(bytes), &mut output)?;
    output.flush()
}

fn status(output: &mut impl Write, status: &str) -> std::io::Result<()> {
    write!(
        output,
        "HTTP/1.0 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::answer;

    fn answered(request: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        answer(request, &mut output, &b"the file"[..], 8).expect("memory does not fail");
        output
    }

    #[test]
    fn the_file_is_served_with_its_length() {
        for request in [
            &b"GET / HTTP/1.1\r\nHost: 10.0.2.100\r\nUser-Agent: Wget\r\n\r\n"[..],
            b"GET / HTTP/1.0\n\n",
        ] {
            let answer = answered(request);
            let text = String::from_utf8(answer).expect("text");
            assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
            assert!(text.contains("Content-Length: 8\r\n"), "{text}");
            assert!(text.ends_with("\r\n\r\nthe file"), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = [b'a'; 100_000];
        for (request, status) in [
            (&b"GET /other HTTP/1.0\r\n\r\n"[..], "404"),
            (b"POST / HTTP/1.0\r\n\r\n", "400"),
            (b"GET /\r\n\r\n", "400"),
            (b"hello\r\n\r\n", "400"),
            (b"", "400"),
            (&long, "400"),
        ] {
            let answer = String::from_utf8(answered(request)).expect("text");
            assert!(
                answer.starts_with(&format!("HTTP/1.0 {status} ")),
                "{answer}"
            );
            assert!(!answer.contains("the file"));
        }
    }
}
