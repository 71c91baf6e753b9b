//! Records as received: positions and bytes, nothing understood yet.
//!
//! A [`Record`] owns its bytes and its share of the memory [`Budget`]; both go when it is dropped, whatever was fetched
//! with it. So a record that is held costs its own room and nobody else's. A [`Batch`] is a list of records; a
//! [`RecordView`] borrows one. It never interprets a byte.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A borrowed view of one record.
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
pub struct Batch(Vec<Record>);

/// One record, kept for as long as somebody may have to dead-letter it untouched.
#[derive(Debug)]
pub struct Record {
    origin: Arc<Origin>,
    place: TopicPartition,
    offset: i64,
    timestamp_ms: Option<i64>,
    /// Key, value, names and values of the headers, end to end: one allocation.
    bytes: Box<[u8]>,
    key: Option<Span>,
    value: Option<Span>,
    headers: Box<[HeaderSpan]>,
}

/// What the records of a batch have in common.
#[derive(Debug)]
struct Origin {
    topics: Topics,
    budget: Budget,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Debug)]
struct HeaderSpan {
    name: Span,
    value: Option<Span>,
}

impl Batch {
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where its records stand in Kafka, in the order of receipt.
    pub fn places(&self) -> impl Iterator<Item = (TopicPartition, i64)> {
        self.0.iter().map(Record::place)
    }
}

impl IntoIterator for Batch {
    type Item = Record;
    type IntoIter = std::vec::IntoIter<Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Record {
    /// Where it stands in Kafka.
    #[must_use]
    pub const fn place(&self) -> (TopicPartition, i64) {
        (self.place, self.offset)
    }

    /// What it takes of the budget.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + size_of_val(&*self.headers)
    }

    /// Calls `use_it` with a view of the record.
    pub fn with<R>(&self, use_it: impl FnOnce(RecordView<'_>) -> R) -> R {
        let headers: Vec<Header<'_>> = self.headers.iter().map(|header| header.of(&self.bytes)).collect();
        let topic = self.origin.topics.get(usize::from(self.place.topic));
        use_it(RecordView {
            topic: topic.map_or("", AsRef::as_ref),
            partition: self.place.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(|span| span.of(&self.bytes)),
            value: self.value.map(|span| span.of(&self.bytes)),
            headers: Headers(&headers),
        })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.origin.budget.give_back(self.bytes());
    }
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl HeaderSpan {
    fn of<'a>(&self, bytes: &'a [u8]) -> Header<'a> {
        Header {
            // It was a text when it was copied.
            name: std::str::from_utf8(self.name.of(bytes)).unwrap_or_default(),
            value: self.value.map(|span| span.of(bytes)),
        }
    }
}

/// Copies what is fetched, record by record, each with its share of the budget.
#[derive(Debug)]
pub struct BatchBuilder {
    origin: Arc<Origin>,
    records: Vec<Record>,
    bytes: usize,
}

impl BatchBuilder {
    #[must_use]
    pub fn new(topics: Topics, budget: Budget) -> Self {
        Self {
            origin: Arc::new(Origin { topics, budget }),
            records: Vec::new(),
            bytes: 0,
        }
    }

    /// Copies one record.
    pub fn push(&mut self, place: TopicPartition, view: &RecordView<'_>) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = view.headers.0.iter();
        let in_headers: usize = headers.map(|header| header.name.len() + length(header.value)).sum();
        // As long as it will be: nothing is allocated twice, nothing is left over.
        let mut bytes = Vec::with_capacity(length(view.key) + length(view.value) + in_headers);
        let mut copy = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            Span {
                start,
                end: bytes.len(),
            }
        };
        let key = view.key.map(&mut copy);
        let value = view.value.map(&mut copy);
        let headers = view.headers.0.iter().map(|header| HeaderSpan {
            name: copy(header.name.as_bytes()),
            value: header.value.map(&mut copy),
        });
        let headers = headers.collect();
        let record = Record {
            origin: Arc::clone(&self.origin),
            place,
            offset: view.offset,
            timestamp_ms: view.timestamp_ms,
            bytes: bytes.into_boxed_slice(),
            key,
            value,
            headers,
        };
        self.origin.budget.take(record.bytes());
        self.bytes += record.bytes();
        self.records.push(record);
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Memory taken so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub fn finish(self) -> Batch {
        Batch(self.records)
    }
}

/// How much may be in memory between fetch and finish: records and bytes. The source asks for room before it drains
/// more, so that memory stays bounded whatever the targets do. One record may overshoot, so that one larger than all
/// the room still passes.
///
/// While records flow, less is enough: what waits longer has left the processor's caches when its turn comes. When no room
/// comes back in time something is far away or does not flow at all, and must not stop what does: then all may be used, until
/// half of what flows is free again.
#[derive(Debug, Clone)]
pub struct Budget(Arc<BudgetState>);

/// A number of records, and of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount {
    records: usize,
    bytes: usize,
}

#[derive(Debug)]
struct BudgetState {
    /// Records and bytes in one, so that a record takes and gives back in one step: see [`Used`].
    used: AtomicU64,
    flowing: Amount,
    most: Amount,
    /// All may be used. Only who waits for room changes it.
    wide: AtomicBool,
    /// Somebody waits for room: only then is giving back more than a counter.
    awaited: AtomicBool,
    gate: Mutex<()>,
    freed: Condvar,
}

/// Records in the upper 24 bits, bytes in the lower 40: 16 million records and a terabyte, which no memory holds.
struct Used;

impl Used {
    const BYTES: u32 = 40;

    const fn of(bytes: usize) -> u64 {
        (1 << Self::BYTES) + bytes as u64
    }

    const fn parts(used: u64) -> (usize, usize) {
        (
            (used >> Self::BYTES) as usize,
            (used & ((1 << Self::BYTES) - 1)) as usize,
        )
    }
}

/// There is room only when this part of everything is free. A source that waited for the first record to be given back
/// would fetch record by record from then on, each in a batch of its own.
const GRAIN: usize = 32;

/// Records that flow make room more often than this, as long as it is our own work that takes the time, not an answer of
/// somebody far away: lanes that wait for him need two batches and more, lest the one that is served has none.
const FLOWING_WAIT: Duration = Duration::from_millis(50);

impl Budget {
    #[must_use]
    pub fn new(max_records: usize, max_bytes: usize) -> Self {
        Self::flowing(max_records, max_bytes, max_records, max_bytes)
    }

    /// `records` and `bytes` while records flow, `max_records` and `max_bytes` while something does not.
    #[must_use]
    pub fn flowing(records: usize, bytes: usize, max_records: usize, max_bytes: usize) -> Self {
        Self(Arc::new(BudgetState {
            used: AtomicU64::new(0),
            flowing: Amount { records, bytes },
            most: Amount {
                records: max_records,
                bytes: max_bytes,
            },
            wide: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            gate: Mutex::new(()),
            freed: Condvar::new(),
        }))
    }

    /// However few flow.
    #[must_use]
    pub fn max_records(&self) -> usize {
        self.0.most.records
    }

    /// However few flow.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.0.most.bytes
    }

    /// How many more records fit; 0 until it is worth while to fetch.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.0.wide.load(Ordering::Relaxed) && self.is_half_free(self.0.flowing) {
            self.0.wide.store(false, Ordering::Relaxed);
        }
        self.free()
    }

    fn free(&self) -> usize {
        let free = |max: usize, used: usize| {
            let free = max.saturating_sub(used);
            if free < (max / GRAIN).max(1) { 0 } else { free }
        };
        let (records, bytes) = self.in_use();
        let limit = self.limit();
        if free(limit.bytes, bytes) == 0 {
            0
        } else {
            free(limit.records, records)
        }
    }

    /// Whether nothing more may be added to what is being fetched.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (records, bytes) = self.in_use();
        let limit = self.limit();
        records >= limit.records || bytes >= limit.bytes
    }

    /// Whether less than half is used: the mark at which a paused source goes on.
    #[must_use]
    pub fn is_relaxed(&self) -> bool {
        self.is_half_free(self.limit())
    }

    fn is_half_free(&self, limit: Amount) -> bool {
        let (records, bytes) = self.in_use();
        records <= limit.records / 2 && bytes <= limit.bytes / 2
    }

    fn limit(&self) -> Amount {
        if self.0.wide.load(Ordering::Relaxed) {
            self.0.most
        } else {
            self.0.flowing
        }
    }

    /// Records and bytes in use.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        // Sequentially consistent, here and where it is given back: either the waiting thread sees the room, or whoever
        // made it sees that somebody waits.
        Used::parts(self.0.used.load(Ordering::SeqCst))
    }

    /// Blocks until there is room, at most `limit`. If none comes for a moment, all may be used from then on. For the polling
    /// thread only.
    pub fn wait_for_room(&self, limit: Duration) -> usize {
        self.wait(limit.min(FLOWING_WAIT));
        self.none_came();
        self.wait(limit);
        self.free()
    }

    fn wait(&self, limit: Duration) {
        let gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.freed.wait_timeout_while(gate, limit, |()| {
            self.0.awaited.store(true, Ordering::SeqCst);
            self.free() == 0
        });
        self.0.awaited.store(false, Ordering::SeqCst);
        drop(waited);
    }

    /// Whoever waited for room says that it is over. If there is none, all may be used from now on.
    pub fn none_came(&self) {
        if self.free() == 0 {
            self.0.wide.store(true, Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: usize) {
        self.0.used.fetch_add(Used::of(bytes), Ordering::SeqCst);
    }

    fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(Used::of(bytes), Ordering::SeqCst);
        // A record that is no room worth waking up for yet costs nobody a lock. Room only grows while it is waited for.
        let is_awaited = self.0.awaited.load(Ordering::SeqCst) && self.free() > 0;
        if is_awaited && self.0.awaited.swap(false, Ordering::SeqCst) {
            // Whoever waits holds the gate until it sleeps, so this does not come too early.
            drop(self.0.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: TopicPartition = TopicPartition { topic: 0, partition: 3 };

    fn builder(budget: &Budget) -> BatchBuilder {
        let topics: Topics = ["crm.public.purchase_ledger".into()].into();
        BatchBuilder::new(topics, budget.clone())
    }

    fn view<'a>(value: &'a [u8], headers: Headers<'a>) -> RecordView<'a> {
        RecordView {
            topic: "crm.public.purchase_ledger",
            partition: 3,
            offset: 7,
            timestamp_ms: Some(9),
            key: Some(b"k"),
            value: Some(value),
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
            Header {
                name: "",
                value: Some(b""),
            },
        ];
        let mut builder = builder(&Budget::new(10, 1000));
        builder.push(PLACE, &view(b"other", Headers::default()));
        builder.push(PLACE, &view(b"value", Headers(&headers)));
        let batch = builder.finish();
        assert_eq!(batch.places().collect::<Vec<_>>(), [(PLACE, 7), (PLACE, 7)]);
        let record = batch.into_iter().nth(1).expect("two were put in");
        record.with(|seen| {
            assert_eq!(
                (seen.topic, seen.partition, seen.offset, seen.timestamp_ms),
                ("crm.public.purchase_ledger", 3, 7, Some(9))
            );
            assert_eq!(
                (seen.key, seen.value),
                (Some(b"k".as_slice()), Some(b"value".as_slice()))
            );
            assert_eq!(seen.headers.0, headers);
        });
    }

    #[test]
    fn a_tombstone_and_a_record_without_a_key_stay_what_they_are() {
        let mut builder = builder(&Budget::new(10, 1000));
        let tombstone = RecordView {
            key: Some(b""),
            value: None,
            ..view(b"", Headers::default())
        };
        builder.push(PLACE, &tombstone);
        builder.push(
            PLACE,
            &RecordView {
                key: None,
                ..view(b"", Headers::default())
            },
        );
        let seen: Vec<_> = builder
            .finish()
            .into_iter()
            .map(|record| record.with(|seen| (seen.key.map(<[u8]>::len), seen.value.map(<[u8]>::len))))
            .collect();
        assert_eq!(seen, [(Some(0), None), (None, Some(0))]);
    }

    #[test]
    fn room_comes_back_record_by_record_whoever_was_fetched_with_it() {
        let budget = Budget::new(2, 100_000);
        let mut builder = builder(&budget);
        builder.push(PLACE, &view(b"held", Headers::default()));
        builder.push(PLACE, &view(&[0; 9000], Headers::default()));
        assert_eq!(budget.room(), 0, "counted as soon as it is copied");
        let mut records = builder.finish().into_iter();
        let (held, large) = (records.next(), records.next());
        drop(records);
        let (_, both) = budget.in_use();
        drop(large);
        let (records, bytes) = budget.in_use();
        assert!(records == 1 && bytes + 9000 < both, "{bytes} of {both}");
        assert_eq!(budget.room(), 1);
        drop(held);
        assert_eq!(budget.in_use(), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_as_records_are() {
        let budget = Budget::new(1000, 10_000);
        let mut builder = builder(&budget);
        while !budget.is_full() {
            builder.push(PLACE, &view(&[0; 1000], Headers::default()));
        }
        assert_eq!((builder.len(), budget.room()), (9, 0));
        assert_eq!(budget.in_use(), (9, builder.bytes()));
        drop(builder);
        assert_eq!(budget.in_use(), (0, 0));
    }

    #[test]
    fn whoever_waits_for_room_is_woken_by_the_record_that_makes_it() {
        let budget = Budget::new(64, 100_000);
        let mut builder = builder(&budget);
        for _ in 0..64 {
            builder.push(PLACE, &view(b"", Headers::default()));
        }
        let mut records = builder.finish().into_iter();
        assert_eq!(budget.wait_for_room(Duration::from_millis(1)), 0);
        drop(records.next());
        assert_eq!(budget.room(), 0, "one record is not worth a batch of its own");
        let waiting = budget.clone();
        // The limit is a night: only a wake-up ends the test.
        let waiter = std::thread::spawn(move || waiting.wait_for_room(Duration::from_secs(30_000)));
        drop(records.next());
        assert!(waiter.join().expect("no panic") >= 2);
    }

    #[test]
    fn what_does_not_flow_leaves_the_rest_to_what_does() {
        let budget = Budget::flowing(64, 100_000, 1000, 200_000);
        let fill = |records: usize| {
            let mut builder = builder(&budget);
            (0..records).for_each(|_| builder.push(PLACE, &view(b"", Headers::default())));
            builder.finish()
        };
        let stuck = fill(64);
        assert_eq!((budget.room(), budget.is_full()), (0, true));
        assert_eq!(
            budget.wait_for_room(Duration::from_millis(1)),
            1000 - 64,
            "nothing came back in time"
        );
        let more = fill(100);
        assert_eq!((budget.room(), budget.is_full()), (1000 - 164, false));
        drop(more);
        assert_eq!(budget.room(), 1000 - 64, "it is still stuck");
        let mut stuck = stuck.into_iter();
        stuck.by_ref().take(32).for_each(drop);
        assert_eq!(budget.room(), 32, "it flows again");
        drop(stuck);
        assert_eq!((budget.room(), budget.in_use()), (64, (0, 0)));
    }
}
