//! Which trace something belongs to, as W3C writes it: `00-<trace>-<span>-<flags>`. Takes the bytes of a header, gives ids,
//! and back. Pure.
//!
//! A header is somebody else's word. What is not exactly of that form is none, and what is one is linked to and no more: it
//! never decides whether or under what name we trace.

use std::fmt;

/// The header of a record, and the reserved key in the data of an event.
pub const KEY: &str = "traceparent";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// `None` without a trace or a span: zeros stand for none.
    #[must_use]
    pub const fn new(trace: u128, span: u64, flags: u8) -> Option<Self> {
        if trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace, span, flags })
    }

    /// Version 00 alone: what a later one means is not known.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            parts
                .next()
                .filter(|part| part.len() == digits && part.bytes().all(is_hex))
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        if version != "00" || parts.next().is_some() {
            return None;
        }
        let (trace, span) = (
            u128::from_str_radix(trace, 16).ok()?,
            u64::from_str_radix(span, 16).ok()?,
        );
        Self::new(trace, span, u8::from_str_radix(flags, 16).ok()?)
    }

    #[must_use]
    pub const fn trace(self) -> u128 {
        self.trace
    }

    #[must_use]
    pub const fn span(self) -> u64 {
        self.span
    }

    #[must_use]
    pub const fn flags(self) -> u8 {
        self.flags
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, flags } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_exactly_of_the_form_is_read_and_written_again() {
        let parsed = TraceParent::parse(GIVEN.as_bytes()).expect("of the form");
        assert_eq!(parsed.to_string(), GIVEN);
        assert_eq!((parsed.span(), parsed.flags()), (0x00f0_67aa_0ba9_02b7, 1));
    }

    #[test]
    fn what_is_not_is_none() {
        for wrong in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902\u{e9}-01",
        ] {
            assert_eq!(TraceParent::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(TraceParent::parse(b"\xff\xfe"), None);
    }

    proptest::proptest! {
        #[test]
        fn every_context_is_read_as_it_was_written(trace: u128, span: u64, flags: u8) {
            let context = TraceParent::new(trace, span, flags);
            let read = context.and_then(|context| TraceParent::parse(context.to_string().as_bytes()));
            assert_eq!(read, context);
        }
    }
}
