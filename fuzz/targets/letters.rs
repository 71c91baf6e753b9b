//! Dead letters and marks read back: whatever a record carried, what we wrote behind it is what is read, and the record is
//! what it was. Inputs: a place, key, value, then names and values of headers in turn.

use std::sync::Arc;

use crm_event_processors::dead_letters::filed::{Drawer, Fate, Filed, Filter, Mark, Place, Provenance, original};
use crm_event_processors::dead_letters::{Letter, Queue, provenance};
use crm_event_processors::record::{BatchBuilder, Budget, Header, Headers, RecordView, TopicPartition};

const TOPIC: &str = "crm.public.purchase_ledger";

pub(super) fn run(data: &[u8]) {
    let parts: Vec<&[u8]> = data.split(|byte| *byte == 0x1e).collect();
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    let text = String::from_utf8_lossy(part(0));
    if let Ok(place) = text.parse::<Place>() {
        assert_eq!(place.to_string().parse::<Place>(), Ok(place));
        assert!(place.partition >= 0 && place.offset >= 0);
    }
    let names: Vec<String> = parts
        .iter()
        .skip(3)
        .step_by(2)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let headers: Vec<Header<'_>> = names
        .iter()
        .enumerate()
        .map(|(at, name)| Header {
            name,
            value: parts.get(4 + 2 * at).copied().filter(|value| *value != b"\x00null"),
        })
        .collect();
    let some = |bytes: &'static [u8], part: &[u8]| (part != bytes).then(|| part.to_vec());
    let (key, value) = (some(b"\x00null", part(1)), some(b"\x00null", part(2)));
    let record = RecordView {
        topic: TOPIC,
        partition: 3,
        offset: 17,
        timestamp_ms: (value.is_some()).then_some(1_795_168_800_000),
        key: key.as_deref(),
        value: value.as_deref(),
        headers: Headers(&headers),
    };
    is_filed(&record);
    comes_back(&record, &text);
    is_marked(&text);
}

/// As if it lay in a dead-letter topic as it is.
fn is_filed(record: &RecordView<'_>) {
    let filed = Filed::read(record);
    assert_eq!(filed, Filed::read(record));
    let mut drawer = Drawer::default();
    drawer.file(Queue::Decode, record);
    let wanted = drawer.wanted(&Filter::default());
    match filed {
        Filed::Letter(provenance) => {
            assert_eq!(wanted.values().collect::<Vec<_>>(), [&provenance]);
            let as_it_was = original(record, &provenance);
            assert_eq!((as_it_was.key, as_it_was.value), (record.key, record.value));
            let own = as_it_was.headers.0;
            assert!(record.headers.0.starts_with(own));
            assert!(own.last().is_none_or(|last| !last.name.starts_with("crm.dlq.")));
        }
        Filed::Mark(mark) => {
            assert!(wanted.is_empty() && drawer.foreign.is_empty());
            assert!((0..record.offset).contains(&mark.offset));
            assert!(record.key.is_none() && record.value.is_none());
        }
        Filed::Foreign(why) => {
            assert!(wanted.is_empty() && !why.is_empty());
            assert_eq!(drawer.foreign.len(), 1);
        }
    }
}

/// Written as a letter and read back, whatever headers of ours it had imitated.
fn comes_back(record: &RecordView<'_>, detail: &str) {
    let place = TopicPartition { topic: 0, partition: 3 };
    let mut builder = BatchBuilder::new(Arc::new([Box::from(TOPIC)]), Budget::new(10, 1 << 20));
    builder.push(place, record);
    let kept = builder.finish().into_iter().next().expect("a record");
    let queue = Queue::ALL[detail.len() % Queue::ALL.len()];
    let letter = Letter {
        queue,
        record: &kept,
        reason: "not_json",
        detail,
        policy: detail.len().is_multiple_of(2),
    };
    let ours = provenance(&letter, 1_795_176_000_000);
    let ours = ours.iter().map(|(name, value)| Header {
        name,
        value: Some(value.as_bytes()),
    });
    let all: Vec<Header<'_>> = record.headers.0.iter().copied().chain(ours).collect();
    let written = RecordView {
        topic: "crm.dlq.decode",
        partition: 0,
        offset: 5,
        timestamp_ms: Some(1),
        headers: Headers(&all),
        ..*record
    };
    let expected = Provenance {
        consumer: queue.name().to_owned(),
        reason: "not_json".to_owned(),
        detail: detail.to_owned(),
        policy: letter.policy,
        topic: TOPIC.to_owned(),
        partition: 3,
        offset: 17,
        timestamp_ms: record.timestamp_ms,
        written_at_ms: 1_795_176_000_000,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let read = match Filed::read(&written) {
        Filed::Letter(read) => read,
        other => panic!("no letter: {other:?}"),
    };
    // The version is that of the worker, not of whoever compiled this.
    let expected = Provenance {
        version: read.version.clone(),
        ..expected
    };
    assert_eq!(read, expected);
    let again = original(&written, &read);
    assert_eq!(
        (again.key, again.value, again.timestamp_ms),
        (record.key, record.value, record.timestamp_ms)
    );
    let own = record
        .headers
        .0
        .iter()
        .rposition(|header| !header.name.starts_with("crm.dlq."));
    assert_eq!(again.headers.0, &record.headers.0[..own.map_or(0, |last| last + 1)]);
}

fn is_marked(because: &str) {
    let mark = Mark {
        offset: 4,
        fate: Fate::Dropped,
        because: because.to_owned(),
        by: because.chars().rev().collect(),
        at_ms: 1_795_176_000_000,
    };
    let headers = mark.headers();
    let headers: Vec<Header<'_>> = headers
        .iter()
        .map(|(name, value)| Header {
            name,
            value: Some(value.as_bytes()),
        })
        .collect();
    let written = |offset| RecordView {
        topic: "crm.dlq.decode",
        partition: 0,
        offset,
        timestamp_ms: None,
        key: None,
        value: None,
        headers: Headers(&headers),
    };
    assert_eq!(Filed::read(&written(5)), Filed::Mark(mark));
    assert!(matches!(Filed::read(&written(4)), Filed::Foreign(_)), "of itself");
}
