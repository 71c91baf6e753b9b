//! What fits into one request. Pure.
//!
//! Takes the sizes of serialised events, gives ranges of them to send together, and which event is too large to be sent
//! at all. It never reorders: the events of a row leave in the order they came.

use std::ops::Range;

use super::Event;

/// How much one request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_events: usize,
    /// Of the whole body, brackets and commas included.
    pub max_bytes: usize,
}

/// The reason of an event that is larger than any request may be. It is rejected here, not by Inngest.
pub const EVENT_TOO_LARGE: &str = "event_too_large";

/// How a list of events is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    /// Indexes of the events of each request, in order.
    pub requests: Vec<Range<usize>>,
    /// Indexes of events that exceed the limits alone.
    pub too_large: Vec<usize>,
}

const BRACKETS: usize = 2;
const COMMA: usize = 1;

impl Default for Limits {
    /// The smallest plan takes 256 KiB a body; the rest is for headers and for what a proxy adds.
    fn default() -> Self {
        Self {
            max_events: 400,
            max_bytes: 200 * 1024,
        }
    }
}

/// Splits events of these sizes greedily: as few requests as order allows. An event that is too large also ends the
/// request before it.
#[must_use]
pub fn split(sizes: &[usize], limits: Limits) -> Split {
    let mut split = Split::default();
    let mut start = 0;
    let mut bytes = BRACKETS;
    for (index, &size) in sizes.iter().enumerate() {
        if size.saturating_add(BRACKETS) > limits.max_bytes {
            split.close(start..index);
            split.too_large.push(index);
            (start, bytes) = (index + 1, BRACKETS);
            continue;
        }
        let grown = bytes + size + if index == start { 0 } else { COMMA };
        if index > start && (grown > limits.max_bytes || index - start >= limits.max_events) {
            split.close(start..index);
            (start, bytes) = (index, BRACKETS + size);
        } else {
            bytes = grown;
        }
    }
    split.close(start..sizes.len());
    split
}

/// The size of each event as it is sent at that time.
#[must_use]
pub fn sizes(events: &[Event], now_ms: i64) -> Vec<usize> {
    let mut scratch = Vec::with_capacity(1024);
    let size = |event: &Event| {
        scratch.clear();
        event.write_json(now_ms, &mut scratch);
        scratch.len()
    };
    events.iter().map(size).collect()
}

/// Writes the body of one request.
pub fn write_body(events: &[Event], now_ms: i64, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        event.write_json(now_ms, out);
    }
    out.push(b']');
}

impl Split {
    fn close(&mut self, request: Range<usize>) {
        if !request.is_empty() {
            self.requests.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inngest::samples;

    fn limits(max_events: usize, max_bytes: usize) -> Limits {
        Limits { max_events, max_bytes }
    }

    #[test]
    fn what_fits_goes_out_together() {
        // [aaa,bbb] is 9 bytes.
        assert_eq!(split(&[3, 3, 3], limits(10, 9)).requests, [0..2, 2..3]);
        assert_eq!(split(&[3, 3], limits(10, 8)).requests, [0..1, 1..2]);
        assert_eq!(split(&[1; 5], limits(2, 100)).requests, [0..2, 2..4, 4..5]);
        assert_eq!(split(&[], limits(2, 100)), Split::default());
    }

    #[test]
    fn an_event_that_fits_nowhere_is_named_and_the_others_go_out() {
        let split = split(&[3, 99, 3, 3, 98], limits(10, 100));
        assert_eq!(split.too_large, [1]);
        assert_eq!(split.requests, [0..1, 2..4, 4..5]);
    }

    proptest::proptest! {
        #[test]
        fn no_request_exceeds_the_limits_and_no_event_is_forgotten(
            sizes in proptest::collection::vec(1_usize..40, 0..20),
            max_events in 1_usize..6,
            max_bytes in 3_usize..60,
        ) {
            let split = split(&sizes, limits(max_events, max_bytes));
            let mut seen: Vec<usize> = split.requests.iter().cloned().flatten().collect();
            for request in &split.requests {
                let body = BRACKETS + sizes[request.clone()].iter().sum::<usize>() + request.len() - 1;
                assert!(body <= max_bytes && request.len() <= max_events);
            }
            assert!(split.too_large.iter().all(|&index| sizes[index] + BRACKETS > max_bytes));
            assert!(seen.is_sorted());
            seen.extend(&split.too_large);
            seen.sort_unstable();
            assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_body_is_as_long_as_its_parts_say() {
        let events = samples::events(&["a", "b", "c"]);
        let sizes = sizes(&events, i64::MAX);
        let mut body = Vec::new();
        write_body(&events, i64::MAX, &mut body);
        assert_eq!(body.len(), BRACKETS + sizes.iter().sum::<usize>() + 2 * COMMA);
        let parsed: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(parsed[2]["id"], samples::id("c"));
    }
}
