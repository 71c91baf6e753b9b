//! Events of one delivery, serialised once, end to end: a request is a slice of them. Pure.

use std::ops::Range;

use super::event::Event;
use crate::traceparent::{self, TraceParent};

/// How much one request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_events: usize,
    /// The whole body.
    pub max_bytes: usize,
}

/// Serialised events in the order of delivery.
#[derive(Debug, Default)]
pub struct EventBatch {
    /// `{..},{..},{..}`
    json: Vec<u8>,
    spans: Vec<Range<usize>>,
    trace: Option<TraceParent>,
}

/// How a batch is cut into requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub requests: Vec<Range<usize>>,
    /// Events too large for any request.
    pub oversize: Vec<usize>,
}

impl Default for Limits {
    /// The whole body stays under the smallest plan's 256 KiB.
    fn default() -> Self {
        Self {
            max_events: 400,
            max_bytes: 200 * 1024,
        }
    }
}

impl EventBatch {
    /// These events.
    #[must_use]
    pub fn of(events: &[Event], now_ms: i64) -> Self {
        let mut batch = Self::default();
        for event in events {
            batch.push(event, now_ms);
        }
        batch
    }

    /// For events whose data say in which trace they were sent, under a reserved key. Nothing else of them depends on it.
    #[must_use]
    pub fn in_trace(trace: Option<TraceParent>) -> Self {
        Self {
            trace,
            ..Self::default()
        }
    }

    /// Serialises one event behind the last.
    pub fn push(&mut self, event: &Event, now_ms: i64) {
        let trace = self.trace;
        self.append(|json| {
            event.write_json(now_ms, json);
            note(json, trace);
        });
    }

    /// Puts an event behind the last that is serialised already, as [`EventBatch::event`] gave it.
    pub fn push_json(&mut self, event: &[u8]) {
        self.append(|json| json.extend_from_slice(event));
    }

    /// Serialises an event that the database wrote down.
    #[cfg(feature = "io")]
    pub fn push_announcement(&mut self, announcement: &crate::postgres::Announcement, now_ms: i64) {
        let trace = self.trace;
        self.append(|json| {
            announcement.write_json(now_ms, json);
            note(json, trace);
        });
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.json.is_empty() {
            self.json.push(b',');
        }
        let start = self.json.len();
        write(&mut self.json);
        self.spans.push(start..self.json.len());
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// One event's JSON.
    #[must_use]
    pub fn event(&self, index: usize) -> &[u8] {
        self.spans
            .get(index)
            .and_then(|span| self.json.get(span.clone()))
            .unwrap_or_default()
    }

    /// The body of a request: a JSON array of these events.
    #[must_use]
    pub fn body(&self, events: Range<usize>) -> Vec<u8> {
        let spans = self.spans.get(events).unwrap_or_default();
        let json = spans
            .first()
            .zip(spans.last())
            .and_then(|(first, last)| self.json.get(first.start..last.end));
        let json = json.unwrap_or_default();
        let mut body = Vec::with_capacity(json.len().saturating_add(2));
        body.push(b'[');
        body.extend_from_slice(json);
        body.push(b']');
        body
    }

    /// Cuts the batch into as few requests as the limits allow, in order.
    #[must_use]
    pub fn split(&self, limits: Limits) -> Split {
        let mut split = Split::default();
        let mut start = 0;
        // The brackets of the array.
        let mut bytes = 2_usize;
        for (index, span) in self.spans.iter().enumerate() {
            let comma = usize::from(index > start);
            let oversize = span.len().saturating_add(2) > limits.max_bytes;
            let grown = bytes.saturating_add(comma).saturating_add(span.len());
            if !oversize && index.saturating_sub(start) < limits.max_events && grown <= limits.max_bytes {
                bytes = grown;
                continue;
            }
            if start < index {
                split.requests.push(start..index);
            }
            start = index;
            bytes = span.len().saturating_add(2);
            if oversize {
                split.oversize.push(index);
                start = index.saturating_add(1);
                bytes = 2;
            }
        }
        if start < self.spans.len() {
            split.requests.push(start..self.spans.len());
        }
        split
    }
}

/// Puts one key more into the data, which is the last part of an event.
fn note(json: &mut Vec<u8>, trace: Option<TraceParent>) {
    if let Some(trace) = trace
        && json.ends_with(b"}}")
    {
        json.truncate(json.len() - 2);
        let comma = if json.ends_with(b"{") { "" } else { "," };
        json.extend_from_slice(format!("{comma}\"{}\":\"{trace}\"}}}}", traceparent::KEY).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inngest::samples;

    /// A batch of events of these sizes; what is in them does not matter here.
    fn batch(sizes: &[usize]) -> EventBatch {
        let mut batch = EventBatch::default();
        for size in sizes {
            if !batch.json.is_empty() {
                batch.json.push(b',');
            }
            let start = batch.json.len();
            batch.json.resize(start + size, b'x');
            batch.spans.push(start..start + size);
        }
        batch
    }

    fn limits(max_events: usize, max_bytes: usize) -> Limits {
        Limits { max_events, max_bytes }
    }

    #[test]
    fn what_fits_goes_out_together() {
        // [aaa,bbb] is 9 bytes.
        assert_eq!(batch(&[3, 3, 3]).split(limits(10, 9)).requests, [0..2, 2..3]);
        assert_eq!(batch(&[3, 3]).split(limits(10, 8)).requests, [0..1, 1..2]);
        assert_eq!(batch(&[1; 5]).split(limits(2, 100)).requests, [0..2, 2..4, 4..5]);
        assert_eq!(batch(&[]).split(limits(2, 100)), Split::default());
    }

    #[test]
    fn an_event_that_fits_nowhere_is_named_and_the_others_go_out() {
        let split = batch(&[3, 99, 3, 3, 98]).split(limits(10, 100));
        assert_eq!(split.oversize, [1]);
        assert_eq!(split.requests, [0..1, 2..4, 4..5]);
    }

    proptest::proptest! {
        #[test]
        fn no_request_exceeds_the_limits_and_no_event_is_forgotten(
            sizes in proptest::collection::vec(1_usize..40, 0..20),
            max_events in 1_usize..6,
            max_bytes in 3_usize..60,
        ) {
            let batch = batch(&sizes);
            let split = batch.split(limits(max_events, max_bytes));
            let mut seen: Vec<usize> = split.requests.iter().cloned().flatten().collect();
            for request in &split.requests {
                assert!(batch.body(request.clone()).len() <= max_bytes && request.len() <= max_events);
            }
            assert!(split.oversize.iter().all(|&index| sizes[index] + 2 > max_bytes));
            assert!(seen.is_sorted());
            seen.extend(&split.oversize);
            seen.sort_unstable();
            assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_trace_is_one_key_more_in_the_data_and_changes_nothing_else() {
        let trace = TraceParent::new(0xabc, 0x12, 1);
        let mut traced = EventBatch::in_trace(trace);
        for event in samples::events(&["a", "b"]) {
            traced.push(&event, i64::MAX);
        }
        let plain = EventBatch::of(&samples::events(&["a", "b"]), i64::MAX);
        for index in 0..2 {
            let mut event: serde_json::Value = serde_json::from_slice(traced.event(index)).expect("JSON");
            let data = event["data"].as_object_mut().expect("an object");
            let said = data.remove("traceparent").expect("a trace");
            assert_eq!(said, "00-00000000000000000000000000000abc-0000000000000012-01");
            let untraced: serde_json::Value = serde_json::from_slice(plain.event(index)).expect("JSON");
            assert_eq!(event, untraced);
        }
        assert!(serde_json::from_slice::<serde_json::Value>(&traced.body(0..2)).is_ok());
    }

    #[test]
    fn a_body_is_a_json_array_of_its_events() {
        let batch = EventBatch::of(&samples::events(&["a", "b", "c"]), i64::MAX);
        let parsed: Vec<serde_json::Value> = serde_json::from_slice(&batch.body(1..3)).expect("JSON");
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[1]["id"], samples::id("c"));
        assert_eq!(batch.body(0..0), b"[]");
    }
}
