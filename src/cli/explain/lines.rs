//! One line at a time from a stream of any length: takes bytes, gives lines without their end, blank ones left out.
//! It holds one line and no more, and never interprets one.

use std::io::{self, BufRead as _, BufReader, Read};

/// Far beyond what a broker takes for one message, and still bounded: a stream without line ends must not fill the memory.
pub(super) const LONGEST: usize = 256 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Text(&'a [u8]),
    /// Read to its end and forgotten.
    TooLong,
}

#[derive(Debug)]
pub(super) struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    number: u64,
    longest: usize,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R, longest: usize) -> Self {
        Self {
            input: BufReader::with_capacity(64 * 1024, input),
            line: Vec::new(),
            number: 0,
            longest,
        }
    }

    /// The number of the line given last, from 1; 0 before the first.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether the next line is not in memory yet.
    pub(super) fn may_wait(&self) -> bool {
        !self.input.buffer().contains(&b'\n')
    }

    /// The next line that is not blank; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            let Some(fits) = self.read()? else {
                return Ok(None);
            };
            if !fits {
                return Ok(Some(Line::TooLong));
            }
            if !self.text().trim_ascii().is_empty() {
                return Ok(Some(Line::Text(self.text())));
            }
        }
    }

    fn text(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        // Some editors and shells put one in front of a file.
        match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if self.number == 1 => rest,
            _ => line,
        }
    }

    /// Whether the next line fitted; `None` at the end.
    fn read(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let (mut began, mut fits) = (false, true);
        loop {
            let read = match self.input.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if read.is_empty() && !began {
                return Ok(None);
            }
            if !began {
                began = true;
                self.number = self.number.saturating_add(1);
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let part = read.get(..end.unwrap_or(read.len())).unwrap_or_default();
            let (used, ended) = (part.len(), end.is_some() || read.is_empty());
            if fits && part.len() <= self.longest.saturating_sub(self.line.len()) {
                self.line.extend_from_slice(part);
            } else {
                fits = false;
                self.line = Vec::new();
            }
            self.input.consume(used.saturating_add(usize::from(end.is_some())));
            if ended {
                return Ok(Some(fits));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], longest: usize) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::new(bytes, longest);
        let mut seen = Vec::new();
        loop {
            let text = match lines.next().expect("memory can be read") {
                None => return seen,
                Some(Line::Text(text)) => Some(String::from_utf8(text.to_vec()).expect("text")),
                Some(Line::TooLong) => None,
            };
            seen.push((lines.number(), text));
        }
    }

    #[test]
    fn blank_lines_count_but_do_not_come_and_any_line_end_will_do() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            all(b"\xef\xbb\xbfa\r\n\r\n  \n\nb\nc", 9),
            [(1, some("a")), (5, some("b")), (6, some("c"))]
        );
        assert_eq!(all(b"", 9), []);
        assert_eq!(all(b"\n", 9), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_one_comes() {
        let some = |text: &str| Some(text.to_owned());
        let input = [b"x".repeat(200_000).as_slice(), b"\nnext\n", &b"y".repeat(6)].concat();
        assert_eq!(all(&input, 5), [(1, None), (2, some("next")), (3, None)]);
    }
}
