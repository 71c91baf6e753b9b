//! Commit metadata: a frame that is believed, or a doubt; and where a partition goes on with it. Inputs: committed offset,
//! begin and end of the log separated by blanks, and the metadata, which is also tried with a right checksum.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::progress::frame::{self, Reading};
use crm_event_processors::progress::{Committed, ConsumerSet, Found, Halt, Notice, Orders, Partition, Start};

use super::{assert_inert, parts};

pub(super) fn run(data: &[u8]) {
    let [numbers, metadata] = parts(data);
    let numbers = String::from_utf8_lossy(numbers);
    let mut numbers = numbers.split(' ').map(|number| number.parse::<i64>().unwrap_or(7));
    let mut next = || numbers.next().unwrap_or(7).checked_abs().unwrap_or(7);
    let (offset, begin, end) = (next(), next(), next());
    let metadata = String::from_utf8_lossy(metadata);
    let sealed = format!("{metadata};{:08x}", crc32fast::hash(metadata.as_bytes()));
    for metadata in [&*metadata, &sealed] {
        if let Reading::Frame(marks) = frame::read(metadata) {
            let again = frame::read(&frame::write(&marks));
            assert_eq!(again, Reading::Frame(marks), "{metadata}");
        }
        let committed = Some(Committed {
            offset,
            metadata: metadata.to_owned(),
        });
        let found = Found {
            committed,
            begin: begin.min(end),
            end: begin.max(end),
        };
        for readers in [Consumer::ALL.into_iter().collect(), ConsumerSet::only(Consumer::Tier)] {
            for accept_gap in [false, true] {
                let orders = Orders {
                    accept_gap,
                    dropped: vec!["mission".to_owned()],
                };
                starts_soundly(&found, readers, &orders);
            }
            if let Ok(Some(start)) = Start::seeded(&found, readers) {
                assert!(
                    start.position >= offset,
                    "what the main group has not committed is passed"
                );
            }
        }
    }
}

fn starts_soundly(found: &Found, readers: ConsumerSet, orders: &Orders) {
    let committed = found.committed.clone().unwrap_or_default();
    let gap = !(found.begin..=found.end).contains(&committed.offset);
    let (start, notices) = match Start::decide(found, readers, orders) {
        Ok(started) => started,
        Err(halt) => {
            assert_inert(&halt.to_string());
            match halt {
                Halt::OutsideTheLog { .. } => assert!(gap && !orders.accept_gap),
                Halt::NewerFrame { version } => assert!(version > 1),
            }
            return;
        }
    };
    assert!(!gap || orders.accept_gap, "a gap is passed over in silence");
    let least = if gap { found.begin } else { committed.offset };
    assert!(start.watermarks.keys().copied().eq(readers.iter()));
    let marks = start.watermarks.values().chain(start.absent.values());
    for mark in marks {
        assert!((least..=found.end).contains(mark), "{mark} of {found:?}");
    }
    assert_eq!(Some(start.position), start.watermarks.values().copied().min());
    let is_doubtful = notices.iter().any(|notice| matches!(notice, Notice::Ignored(_)));
    if is_doubtful {
        assert_eq!(start.position, least, "doubtful watermarks skip something");
    }
    for notice in &notices {
        assert_inert(&notice.to_string());
    }
    assert!(
        !start
            .absent
            .keys()
            .any(|name| readers.iter().any(|reader| reader.name() == &**name))
    );
    // What is committed next is not below what is known, and can be read by whoever comes next.
    let partition = Partition::starting(&start);
    assert!((least..=start.position).contains(&partition.committable()));
    let watermarks = partition.watermarks();
    // More names than a frame holds are of no version that there will be.
    if watermarks.len() <= 16 {
        assert_eq!(frame::read(&frame::write(&watermarks)), Reading::Frame(watermarks));
    }
}
