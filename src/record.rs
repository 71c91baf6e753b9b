//! Records as received: positions and bytes, nothing understood yet.
//!
//! A [`Batch`] owns the bytes of everything fetched together, end to end; a [`RecordView`] borrows one record of it.
//! A batch is dropped, and its memory budget given back, when the last record of it is finished by everybody.
//! It never interprets a byte.

use std::sync::Arc;

/// A borrowed view of one record. The bytes belong to the batch it was fetched with.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Kafka's own timestamp (create or append time), if the record has one.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// Stands in for headers that the client library cannot read. Such a record is dead-lettered: what its headers would have
/// said about it is not known.
pub const UNREADABLE_HEADERS: &str = "crm.unreadable_headers";

/// The record's headers, in order. Names may repeat; a value may be null.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a>(pub &'a [Header<'a>]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub name: &'a str,
    pub value: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// The first header of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Header<'a>> {
        self.0.iter().find(|header| header.name == name)
    }
}

/// The subscribed topics; a [`TopicPartition`] names one by its place here.
pub type Topics = Arc<[Box<str>]>;

/// One partition of a subscribed topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's place in the subscription.
    pub topic: u16,
    pub partition: i32,
}

/// Records fetched together.
#[derive(Debug)]
pub struct Batch {
    topics: Topics,
    bytes: Vec<u8>,
    headers: Vec<HeaderSpan>,
    records: Vec<RecordSpan>,
    /// Gives the room back when the batch is dropped.
    _share: Option<BudgetShare>,
}

/// One record of a shared batch, kept for as long as somebody may have to dead-letter it untouched.
#[derive(Debug, Clone)]
pub struct Record {
    batch: Arc<Batch>,
    index: usize,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Debug)]
struct HeaderSpan {
    name: Box<str>,
    value: Option<Span>,
}

#[derive(Debug)]
struct RecordSpan {
    place: TopicPartition,
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Span>,
    value: Option<Span>,
    headers: Span,
}

impl Batch {
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The headers of all records, end to end; [`Batch::view`] takes its record's part of them.
    #[must_use]
    pub fn headers(&self) -> Vec<Header<'_>> {
        self.headers_in(Span {
            start: 0,
            end: self.headers.len(),
        })
    }

    /// Where a record stands in Kafka.
    #[must_use]
    pub fn place(&self, index: usize) -> Option<(TopicPartition, i64)> {
        self.records.get(index).map(|record| (record.place, record.offset))
    }

    /// One record; `headers` is what [`Batch::headers`] gave.
    #[must_use]
    pub fn view<'a>(&'a self, index: usize, headers: &'a [Header<'a>]) -> Option<RecordView<'a>> {
        let record = self.records.get(index)?;
        let headers = headers
            .get(record.headers.start..record.headers.end)
            .unwrap_or_default();
        Some(self.assemble(record, Headers(headers)))
    }

    fn headers_in(&self, span: Span) -> Vec<Header<'_>> {
        let value = |header: &HeaderSpan| header.value.map(|span| span.of(&self.bytes));
        let headers = self.headers.get(span.start..span.end).unwrap_or_default();
        headers
            .iter()
            .map(|header| Header {
                name: &header.name,
                value: value(header),
            })
            .collect()
    }

    fn assemble<'a>(&'a self, record: &RecordSpan, headers: Headers<'a>) -> RecordView<'a> {
        RecordView {
            topic: self
                .topics
                .get(usize::from(record.place.topic))
                .map_or("", AsRef::as_ref),
            partition: record.place.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(|span| span.of(&self.bytes)),
            value: record.value.map(|span| span.of(&self.bytes)),
            headers,
        }
    }
}

impl Record {
    #[must_use]
    pub fn new(batch: &Arc<Batch>, index: usize) -> Self {
        Self {
            batch: Arc::clone(batch),
            index,
        }
    }

    /// Calls `use_it` with a view of the record; `None` only if the index lies outside the batch.
    pub fn with<R>(&self, use_it: impl FnOnce(RecordView<'_>) -> R) -> Option<R> {
        let span = self.batch.records.get(self.index)?;
        let headers = self.batch.headers_in(span.headers);
        Some(use_it(self.batch.assemble(span, Headers(&headers))))
    }
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }
}

/// Fills a batch, copying each record's bytes behind the last.
#[derive(Debug)]
pub struct BatchBuilder {
    batch: Batch,
    /// What the records take besides their bytes: spans and header names.
    overhead: usize,
}

impl BatchBuilder {
    #[must_use]
    pub fn new(topics: Topics) -> Self {
        Self {
            overhead: 0,
            batch: Batch {
                topics,
                bytes: Vec::new(),
                headers: Vec::new(),
                records: Vec::new(),
                _share: None,
            },
        }
    }

    /// Copies one record.
    pub fn push(&mut self, place: TopicPartition, record: &RecordView<'_>) {
        let key = record.key.map(|bytes| self.copy(bytes));
        let value = record.value.map(|bytes| self.copy(bytes));
        let start = self.batch.headers.len();
        self.overhead += std::mem::size_of::<RecordSpan>();
        for header in record.headers.0 {
            self.overhead += std::mem::size_of::<HeaderSpan>() + header.name.len();
            let value = header.value.map(|bytes| self.copy(bytes));
            self.batch.headers.push(HeaderSpan {
                name: header.name.into(),
                value,
            });
        }
        let headers = Span {
            start,
            end: self.batch.headers.len(),
        };
        self.batch.records.push(RecordSpan {
            place,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key,
            value,
            headers,
        });
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.records.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.records.is_empty()
    }

    /// Memory taken so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batch.bytes.len() + self.overhead
    }

    /// The batch, holding its part of the budget until it is dropped.
    #[must_use]
    pub fn finish(mut self, budget: &Budget) -> Batch {
        self.batch._share = Some(budget.take(self.batch.records.len(), self.bytes()));
        self.batch
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        Span {
            start,
            end: self.batch.bytes.len(),
        }
    }
}

/// How much may be in memory between fetch and finish: records and bytes. The source asks for room before it drains
/// more, so that memory stays bounded whatever the targets do. One record may overshoot, so that one larger than all
/// the room still passes.
#[derive(Debug, Clone)]
pub struct Budget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    used: std::sync::Mutex<Used>,
    freed: std::sync::Condvar,
    max_records: usize,
    max_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    records: usize,
    bytes: usize,
}

/// A batch's part of the budget.
#[derive(Debug)]
struct BudgetShare {
    budget: Budget,
    records: usize,
    bytes: usize,
}

impl Budget {
    #[must_use]
    pub fn new(max_records: usize, max_bytes: usize) -> Self {
        let used = std::sync::Mutex::new(Used::default());
        Self(Arc::new(BudgetState {
            used,
            freed: std::sync::Condvar::new(),
            max_records,
            max_bytes,
        }))
    }

    /// How many more records fit, 0 when the bytes are used up.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.room(*self.used())
    }

    /// Whether less than half is used: the mark at which a paused source goes on.
    #[must_use]
    pub fn is_relaxed(&self) -> bool {
        let used = *self.used();
        used.records <= self.0.max_records / 2 && used.bytes <= self.0.max_bytes / 2
    }

    /// Records and bytes in use.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        let used = *self.used();
        (used.records, used.bytes)
    }

    /// Blocks until there is room, at most `limit`. For the polling thread only.
    pub fn wait_for_room(&self, limit: std::time::Duration) -> usize {
        let full = |used: &mut Used| self.0.room(*used) == 0;
        match self.0.freed.wait_timeout_while(self.used(), limit, full) {
            Ok((used, _timed_out)) => self.0.room(*used),
            Err(poisoned) => self.0.room(*poisoned.into_inner().0),
        }
    }

    fn take(&self, records: usize, bytes: usize) -> BudgetShare {
        let mut used = self.used();
        used.records = used.records.saturating_add(records);
        used.bytes = used.bytes.saturating_add(bytes);
        BudgetShare {
            budget: self.clone(),
            records,
            bytes,
        }
    }

    /// The counters stay true if a holder panicked: every change of them is one assignment.
    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl BudgetState {
    fn room(&self, used: Used) -> usize {
        if used.bytes >= self.max_bytes {
            0
        } else {
            self.max_records.saturating_sub(used.records)
        }
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        used.records = used.records.saturating_sub(self.records);
        used.bytes = used.bytes.saturating_sub(self.bytes);
        drop(used);
        self.budget.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        ["crm.public.purchase_ledger".into()].into()
    }

    fn view(headers: Headers<'_>) -> RecordView<'_> {
        let topic = "crm.public.purchase_ledger";
        let (key, value) = (Some(b"k".as_slice()), Some(b"value".as_slice()));
        RecordView {
            topic,
            partition: 3,
            offset: 7,
            timestamp_ms: Some(9),
            key,
            value,
            headers,
        }
    }

    #[test]
    fn a_batch_gives_back_exactly_what_was_put_in() {
        let headers = [
            Header {
                name: "a",
                value: Some(b"1"),
            },
            Header { name: "a", value: None },
        ];
        let place = TopicPartition { topic: 0, partition: 3 };
        let mut builder = BatchBuilder::new(topics());
        builder.push(place, &view(Headers::default()));
        builder.push(place, &view(Headers(&headers)));
        let batch = Arc::new(builder.finish(&Budget::new(10, 100)));
        let record = Record::new(&batch, 1);
        record
            .with(|seen| {
                assert_eq!(
                    (seen.topic, seen.partition, seen.offset),
                    ("crm.public.purchase_ledger", 3, 7)
                );
                assert_eq!(
                    (seen.key, seen.value),
                    (Some(b"k".as_slice()), Some(b"value".as_slice()))
                );
                assert_eq!(seen.headers.0, headers);
            })
            .expect("inside the batch");
        assert_eq!(Record::new(&batch, 2).with(|_| ()), None);
    }

    #[test]
    fn room_comes_back_only_when_the_last_holder_of_a_batch_lets_go() {
        let budget = Budget::new(2, 1000);
        let mut builder = BatchBuilder::new(topics());
        let place = TopicPartition { topic: 0, partition: 3 };
        builder.push(place, &view(Headers::default()));
        builder.push(place, &view(Headers::default()));
        let batch = Arc::new(builder.finish(&budget));
        let record = Record::new(&batch, 0);
        assert_eq!(budget.room(), 0);
        drop(batch);
        assert_eq!(budget.room(), 0, "a record still needs its bytes");
        drop(record);
        assert_eq!(budget.room(), 2);
        assert_eq!(budget.in_use(), (0, 0));
    }
}
