//! Events of one delivery, serialised once, end to end: a request is a slice of them. Pure.

use std::ops::Range;

use super::event::Event;

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
        Self { max_events: 400, max_bytes: 200 * 1024 }
    }
}

impl EventBatch {
    /// Serialises one event behind the last.
    pub fn push(&mut self, event: &Event, now_ms: i64) {
        if !self.json.is_empty() {
            self.json.push(b',');
        }
        let start = self.json.len();
        event.write_json(now_ms, &mut self.json);
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
        self.spans.get(index).and_then(|span| self.json.get(span.clone())).unwrap_or_default()
    }

    /// The body of a request: a JSON array of these events.
    #[must_use]
    pub fn body(&self, events: Range<usize>) -> Vec<u8> {
        let spans = self.spans.get(events).unwrap_or_default();
        let json = spans.first().zip(spans.last()).and_then(|(first, last)| self.json.get(first.start..last.end));
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
        // The brackets; each event adds itself and a comma.
        let mut bytes = 2_usize;
        for (index, span) in self.spans.iter().enumerate() {
            let size = span.len().saturating_add(1);
            let alone = size.saturating_add(2) > limits.max_bytes;
            let full = index.saturating_sub(start) >= limits.max_events || bytes.saturating_add(size) > limits.max_bytes;
            if (alone || full) && start < index {
                split.requests.push(start..index);
            }
            if alone {
                split.oversize.push(index);
                start = index.saturating_add(1);
                bytes = 2;
            } else if full {
                start = index;
                bytes = size.saturating_add(2);
            } else {
                bytes = bytes.saturating_add(size);
            }
        }
        if start < self.spans.len() {
            split.requests.push(start..self.spans.len());
        }
        split
    }
}
