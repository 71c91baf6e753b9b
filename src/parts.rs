//! Texts that share one piece of memory: what is named together is allocated together.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// Of the buffer in which texts are put together; longer ones are rare.
const KEPT: usize = 1024;

/// A part of a text that others may share.
#[derive(Clone)]
pub(crate) struct Part {
    whole: Arc<str>,
    start: u32,
    end: u32,
}

impl Part {
    /// These texts, in one piece of memory.
    pub(crate) fn of<const N: usize>(texts: &[&str; N]) -> [Self; N] {
        let writers = texts.map(|text| move |buffer: &mut String| buffer.push_str(text));
        Self::written(writers.each_ref().map(|write| write as _))
    }

    /// The texts that these write, one behind the other, in one allocation: they are put together in a buffer that the thread
    /// keeps. `writers` must not come here themselves.
    pub(crate) fn written<const N: usize>(writers: [&dyn Fn(&mut String); N]) -> [Self; N] {
        thread_local! {
            static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            let mut start = 0;
            let ranges = writers.map(|write| {
                write(buffer);
                // No record has four gigabytes; a text that had would be empty, never out of bounds.
                let end = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
                std::mem::replace(&mut start, end)..end
            });
            let whole: Arc<str> = buffer.as_str().into();
            buffer.clear();
            buffer.shrink_to(KEPT);
            ranges.map(|Range { start, end }| Self {
                whole: Arc::clone(&whole),
                start,
                end,
            })
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        let range = self.start as usize..self.end as usize;
        self.whole.get(range).unwrap_or_default()
    }
}

// What a text is, not where it stands.

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Part {}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_was_written_wherever_they_stand() {
        let long = "x".repeat(5000);
        let parts = Part::of(&["ü-1", "", &long, "b"]);
        assert_eq!(parts.each_ref().map(Part::as_str), ["ü-1", "", &long, "b"]);
        let [alone] = Part::of(&["b"]);
        let [first, .., last] = &parts;
        assert_eq!((last == &alone, first > last), (true, true));
        assert_eq!(format!("{alone:?}"), r#""b""#);
    }
}
