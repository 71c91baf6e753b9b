//! What is written is read back, and nobody's headers pass for ours.

use std::collections::BTreeMap;

use super::Queue;
use super::filed::{Drawer, Fate, Filed, Filter, Mark, Place, Provenance, original};
use crate::consumers::Consumer;
use crate::record::{Header, Headers, RecordView};

const CURRENCY: Queue = Queue::Consumer(Consumer::Currency);

fn provenance(reason: &str, written_at_ms: i64) -> Provenance {
    Provenance {
        consumer: "currency".to_owned(),
        reason: reason.to_owned(),
        detail: "why".to_owned(),
        policy: false,
        topic: "crm.public.purchase_ledger".to_owned(),
        partition: 2,
        offset: 40,
        timestamp_ms: None,
        written_at_ms,
        version: "0.1.0".to_owned(),
    }
}

/// As a worker writes it behind `own`.
fn letter(own: &[(&str, &str)], letter: &Provenance) -> Vec<(String, String)> {
    let ours = [
        ("crm.dlq.consumer", letter.consumer.clone()),
        ("crm.dlq.reason", letter.reason.clone()),
        ("crm.dlq.detail", letter.detail.clone()),
        ("crm.dlq.policy", letter.policy.to_string()),
        ("crm.dlq.topic", letter.topic.clone()),
        ("crm.dlq.partition", letter.partition.to_string()),
        ("crm.dlq.offset", letter.offset.to_string()),
        ("crm.dlq.timestamp_ms", String::new()),
        ("crm.dlq.written_at_ms", letter.written_at_ms.to_string()),
        ("crm.dlq.version", letter.version.clone()),
    ];
    let own = own
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    own.chain(ours.map(|(name, value)| (name.to_owned(), value))).collect()
}

fn mark(offset: i64, fate: Fate) -> Mark {
    Mark {
        offset,
        fate,
        because: "it was a test".to_owned(),
        by: "somebody".to_owned(),
        at_ms: 7,
    }
}

fn written(mark: &Mark) -> Vec<(String, String)> {
    mark.headers()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn with<R>(
    offset: i64,
    value: Option<&[u8]>,
    headers: &[(String, String)],
    use_it: impl FnOnce(&RecordView<'_>) -> R,
) -> R {
    let headers: Vec<Header<'_>> = headers
        .iter()
        .map(|(name, value)| Header {
            name,
            value: Some(value.as_bytes()),
        })
        .collect();
    use_it(&RecordView {
        topic: "crm.dlq.currency",
        partition: 0,
        offset,
        timestamp_ms: Some(1),
        key: None,
        value,
        headers: Headers(&headers),
    })
}

fn place(offset: i64) -> Place {
    Place {
        queue: CURRENCY,
        partition: 0,
        offset,
    }
}

#[test]
fn a_letter_is_read_back_with_its_provenance_and_becomes_the_record_it_was() {
    let said = provenance("amount_overflow", 5);
    // The producer of the record wrote what looks like ours, in front of it and behind a header of his own.
    let own = [
        ("crm.dlq.reason", "forged"),
        ("crm.dlq.mark.fate", "dropped"),
        ("trace", "1"),
    ];
    let headers = letter(&own, &said);
    with(3, None, &headers, |record| {
        assert_eq!(Filed::read(record), Filed::Letter(said.clone()));
        let names: Vec<&str> = original(record, &said)
            .headers
            .0
            .iter()
            .map(|header| header.name)
            .collect();
        assert_eq!(names, ["crm.dlq.reason", "crm.dlq.mark.fate", "trace"]);
        assert_eq!(original(record, &said).timestamp_ms, None);
    });
    with(3, None, &letter(&[], &said), |record| {
        assert_eq!(original(record, &said).headers.0, []);
    });
}

#[test]
fn a_marked_letter_is_open_no_more_and_the_first_mark_counts() {
    let mut drawer = Drawer::default();
    let said = provenance("event_too_large", 5);
    for offset in 0..3 {
        with(offset, Some(b"{}"), &letter(&[], &said), |record| {
            drawer.file(CURRENCY, record);
        });
    }
    for (offset, mark) in [
        (3, mark(1, Fate::Replayed)),
        (4, mark(1, Fate::Dropped)),
        (5, mark(9, Fate::Dropped)),
    ] {
        with(offset, None, &written(&mark), |record| drawer.file(CURRENCY, record));
    }
    let open: Vec<Place> = drawer.open.keys().copied().collect();
    assert_eq!(open, [place(0), place(2)]);
    assert_eq!(
        drawer.handled,
        BTreeMap::from([(place(1), (said, mark(1, Fate::Replayed)))])
    );
    assert_eq!(
        drawer.foreign.keys().copied().collect::<Vec<_>>(),
        [place(5)],
        "a mark of what is to come"
    );
}

#[test]
fn what_nobody_of_ours_wrote_is_neither_letter_nor_mark() {
    let whole = letter(&[], &provenance("x", 5));
    let mut damaged = Vec::new();
    for name in [
        "crm.dlq.topic",
        "crm.dlq.offset",
        "crm.dlq.policy",
        "crm.dlq.written_at_ms",
    ] {
        damaged.push(
            whole
                .iter()
                .filter(|(known, _)| known != name)
                .cloned()
                .collect::<Vec<_>>(),
        );
        let broken = whole.iter().map(|(known, value)| {
            let value = if known == name && name != "crm.dlq.topic" {
                "-"
            } else {
                value
            };
            (known.clone(), value.to_owned())
        });
        if name != "crm.dlq.topic" {
            damaged.push(broken.collect());
        }
    }
    damaged.push(Vec::new());
    for headers in &damaged {
        let filed = with(3, Some(b"{}"), headers, Filed::read);
        assert!(matches!(filed, Filed::Foreign(_)), "{filed:?} of {headers:?}");
    }
    // A mark has neither key nor value, a fate that is known, and an offset before its own.
    let said = written(&mark(1, Fate::Replayed));
    assert!(matches!(with(3, None, &said, Filed::read), Filed::Mark(_)));
    assert!(matches!(with(3, Some(b""), &said, Filed::read), Filed::Foreign(_)));
    assert!(matches!(with(1, None, &said, Filed::read), Filed::Foreign(_)));
    let unknown = said
        .iter()
        .map(|(name, value)| (name.clone(), value.replace("replayed", "burnt")));
    let unknown: Vec<_> = unknown.collect();
    assert!(matches!(with(3, None, &unknown, Filed::read), Filed::Foreign(_)));
}

#[test]
fn a_filter_wants_what_agrees_with_all_it_says() {
    let said = provenance("event_too_large", 100);
    let text = |text: &str| Some(text.to_owned());
    let of = |change: &dyn Fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    let filters = [
        (of(&|_| {}), true),
        (of(&|filter| filter.places = vec![place(1), place(4)]), true),
        (of(&|filter| filter.places = vec![place(1)]), false),
        (of(&|filter| filter.queue = Some(CURRENCY)), true),
        (of(&|filter| filter.queue = Some(Queue::Decode)), false),
        (of(&|filter| filter.reason = text("event_too_large")), true),
        (of(&|filter| filter.reason = text("event")), false),
        (of(&|filter| filter.topic = text("crm.public.purchase_ledger")), true),
        (of(&|filter| filter.topic = text("purchase_ledger")), true),
        (of(&|filter| filter.topic = text("ledger")), false),
        (
            of(&|filter| (filter.since_ms, filter.until_ms) = (Some(100), Some(101))),
            true,
        ),
        (of(&|filter| filter.since_ms = Some(101)), false),
        (of(&|filter| filter.until_ms = Some(100)), false),
        (
            of(&|filter| (filter.queue, filter.reason) = (Some(CURRENCY), text("other"))),
            false,
        ),
    ];
    for (filter, wanted) in filters {
        assert_eq!(filter.wants(&place(4), &said), wanted, "{filter:?}");
    }
}

#[test]
fn a_limit_takes_what_was_written_first() {
    let mut drawer = Drawer::default();
    for (offset, written_at_ms) in [(0, 30), (1, 10), (2, 20)] {
        let headers = letter(&[], &provenance("x", written_at_ms));
        with(offset, Some(b"{}"), &headers, |record| drawer.file(CURRENCY, record));
    }
    let filter = Filter {
        limit: Some(2),
        ..Filter::default()
    };
    assert!(filter.is_none());
    let wanted: Vec<Place> = drawer.wanted(&filter).into_keys().collect();
    assert_eq!(wanted, [place(1), place(2)]);
}

#[test]
fn a_place_is_read_as_it_is_written_and_with_its_whole_topic() {
    assert_eq!(place(17).to_string(), "currency/0/17");
    assert_eq!("currency/0/17".parse(), Ok(place(17)));
    assert_eq!("crm.dlq.currency/0/17".parse(), Ok(place(17)));
    assert_eq!(
        "my.crm.dlq.decode/1/2".parse::<Place>().map(|place| place.queue),
        Ok(Queue::Decode)
    );
    for bad in [
        "",
        "currency",
        "currency/0",
        "nobody/0/1",
        "currency/-1/1",
        "currency/0/-1",
        "currency/0/x",
    ] {
        assert!(bad.parse::<Place>().is_err(), "{bad}");
    }
}
