//! Events of one delivery, serialised once, end to end: a request is a slice of them. Pure.

use std::ops::Range;

use bytes::Bytes;

use super::event::Event;
use crate::traceparent::{self, TraceParent};

/// Most events are shorter, so that most batches are written without moving what is there.
const USUAL_BYTES: usize = 768;

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
    /// `[{..},{..},{..}`; empty once it is closed.
    json: Vec<u8>,
    /// `[{..},{..},{..}]`, once nothing more will come: the body of a request for all of them, which is not copied.
    closed: Bytes,
    spans: Vec<Range<usize>>,
    /// What ends an event in a trace: one key more in its data, which are its last part.
    in_trace: Option<String>,
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
            in_trace: trace.map(|trace| format!("\"{}\":\"{trace}\"}}}}", traceparent::KEY)),
            ..Self::default()
        }
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, events: usize) {
        self.spans.reserve(events);
        self.json.reserve(events.saturating_mul(USUAL_BYTES));
    }

    /// Serialises one event behind the last.
    pub fn push(&mut self, event: &Event, now_ms: i64) {
        self.append(|json| event.write_json(now_ms, json));
        self.note();
    }

    /// Puts an event behind the last that is serialised already, as [`EventBatch::event`] gave it.
    pub fn push_json(&mut self, event: &[u8]) {
        self.append(|json| json.extend_from_slice(event));
    }

    /// Serialises an event that the database wrote down.
    #[cfg(feature = "io")]
    pub fn push_announcement(&mut self, announcement: &crate::postgres::Announcement, now_ms: i64) {
        self.append(|json| announcement.write_json(now_ms, json));
        self.note();
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.closed.is_empty() {
            self.json = std::mem::take(&mut self.closed).into();
            self.json.pop();
        }
        self.json.push(if self.json.is_empty() { b'[' } else { b',' });
        let start = self.json.len();
        write(&mut self.json);
        self.spans.push(start..self.json.len());
    }

    /// Says in the last event which trace it is of.
    fn note(&mut self) {
        if let (Some(end), Some(span)) = (&self.in_trace, self.spans.last_mut())
            && self.json.ends_with(b"}}")
        {
            self.json.truncate(self.json.len() - 2);
            if !self.json.ends_with(b"{") {
                self.json.push(b',');
            }
            self.json.extend_from_slice(end.as_bytes());
            span.end = self.json.len();
        }
    }

    /// Nothing more will come: a request for all events takes the text as it is. (Whatever comes all the same opens it again.)
    pub fn close(&mut self) {
        if !self.json.is_empty() {
            self.json.push(b']');
            self.closed = std::mem::take(&mut self.json).into();
        }
    }

    fn text(&self) -> &[u8] {
        if self.closed.is_empty() {
            &self.json
        } else {
            &self.closed
        }
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
            .and_then(|span| self.text().get(span.clone()))
            .unwrap_or_default()
    }

    /// The body of a request: a JSON array of these events.
    #[must_use]
    pub fn body(&self, events: Range<usize>) -> Bytes {
        if events == (0..self.spans.len()) && !self.closed.is_empty() {
            return self.closed.clone();
        }
        let spans = self.spans.get(events).unwrap_or_default();
        let json = spans
            .first()
            .zip(spans.last())
            .and_then(|(first, last)| self.text().get(first.start..last.end));
        let json = json.unwrap_or_default();
        let mut body = Vec::with_capacity(json.len().saturating_add(2));
        body.push(b'[');
        body.extend_from_slice(json);
        body.push(b']');
        body.into()
    }

    /// Of how many records the events would fill one request, if these are those of so many.
    #[must_use]
    pub fn room(&self, records: usize, limits: Limits) -> usize {
        let by_bytes = records.saturating_mul(limits.max_bytes) / self.text().len().max(1);
        let by_events = records.saturating_mul(limits.max_events) / self.len().max(1);
        by_bytes.min(by_events)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inngest::samples;

    /// A batch of events of these sizes; what is in them does not matter here.
    fn batch(sizes: &[usize]) -> EventBatch {
        let mut batch = EventBatch::default();
        for size in sizes {
            batch.append(|json| json.resize(json.len() + size, b'x'));
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
    fn room_is_what_would_fill_a_request_with_events_of_this_size() {
        // [aaa,bbb] and its like: 9 bytes for two events, of four records.
        let mut two = batch(&[3, 3]);
        two.close();
        assert_eq!(two.room(4, limits(100, 90)), 40);
        assert_eq!(two.room(4, limits(3, 90)), 6);
        assert_eq!(batch(&[]).room(0, limits(10, 90)), 0);
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
        assert_eq!(batch.body(0..0), b"[]".as_slice());
    }

    #[test]
    fn a_closed_batch_gives_the_same_bodies_and_all_of_it_without_a_copy() {
        let mut batch = EventBatch::of(&samples::events(&["a", "b"]), i64::MAX);
        let open: Vec<Bytes> = [0..2, 0..1, 1..2, 0..0].map(|range| batch.body(range)).into();
        batch.close();
        let closed: Vec<Bytes> = [0..2, 0..1, 1..2, 0..0].map(|range| batch.body(range)).into();
        assert_eq!(closed, open);
        assert_eq!(batch.body(0..2).as_ptr(), batch.body(0..2).as_ptr(), "one text");
        batch.push_json(b"{}");
        assert_eq!(
            (batch.event(0), batch.event(2)),
            (&open[1][1..open[1].len() - 1], b"{}".as_slice())
        );
        let mut nothing = EventBatch::default();
        nothing.close();
        assert_eq!(nothing.body(0..0), b"[]".as_slice());
    }
}
