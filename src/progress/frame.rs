//! The frame in the commit metadata: which consumers read a partition, and how far each has come.
//!
//! `crm/1;currency=120,tier=118;3cf3d809`: version, watermarks by name, and the CRC-32 (IEEE) of everything before the
//! last semicolon, in hexadecimal. The shape is fixed for ever, whatever a later version puts between the semicolons: an
//! older worker has to recognise it (docs/adr/0005-progress-in-commit-metadata.md). A broker takes 4096 bytes of metadata
//! by default; the limits below keep a frame under 1 kB.

use std::collections::BTreeMap;

const MAGIC: &str = "crm/";
const VERSION: u32 = 1;
/// The most consumers of one frame, and the longest name of one, in bytes.
const MAX_NAMES: usize = 16;
const MAX_NAME_BYTES: usize = 32;

/// For each consumer the next offset it needs.
pub type Watermarks = BTreeMap<Box<str>, i64>;

/// What the metadata of a commitment turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// There is none: another tool committed, or a worker that wrote none.
    Absent,
    /// Not ours, or not as we wrote it.
    Damaged,
    /// Ours, undamaged, and of a later version: what it says must not be ignored, and we cannot read it.
    Newer {
        version: u32,
    },
    Frame(Watermarks),
}

/// Writes a frame.
#[must_use]
pub fn write(watermarks: &Watermarks) -> String {
    let entries: Vec<String> = watermarks
        .iter()
        .map(|(name, watermark)| format!("{name}={watermark}"))
        .collect();
    let body = format!("{MAGIC}{VERSION};{}", entries.join(","));
    let checksum = crc32fast::hash(body.as_bytes());
    format!("{body};{checksum:08x}")
}

/// Reads what the metadata says. On any doubt it says nothing.
#[must_use]
pub fn read(metadata: &str) -> Reading {
    if metadata.is_empty() {
        return Reading::Absent;
    }
    match checked(metadata) {
        Some((VERSION, entries)) => watermarks(entries).map_or(Reading::Damaged, Reading::Frame),
        Some((version, _)) if version > VERSION => Reading::Newer { version },
        _ => Reading::Damaged,
    }
}

/// Version and entries of a frame whose checksum is right.
fn checked(metadata: &str) -> Option<(u32, &str)> {
    let (body, checksum) = metadata.rsplit_once(';')?;
    if checksum != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
        return None;
    }
    let (version, entries) = body.strip_prefix(MAGIC)?.split_once(';')?;
    Some((version.parse().ok()?, entries))
}

fn watermarks(entries: &str) -> Option<Watermarks> {
    let mut watermarks = Watermarks::new();
    for entry in entries.split(',').filter(|_| !entries.is_empty()) {
        let (name, watermark) = entry.split_once('=')?;
        let watermark = watermark.parse().ok().filter(|watermark| *watermark >= 0)?;
        let known_before = watermarks.insert(name.into(), watermark).is_some();
        if !is_name(name) || known_before || watermarks.len() > MAX_NAMES {
            return None;
        }
    }
    Some(watermarks)
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks(entries: &[(&str, i64)]) -> Watermarks {
        entries
            .iter()
            .map(|(name, watermark)| ((*name).into(), *watermark))
            .collect()
    }

    /// With a right checksum.
    fn sealed(body: &str) -> String {
        format!("{body};{:08x}", crc32fast::hash(body.as_bytes()))
    }

    #[test]
    fn the_frame_is_fixed_for_ever() {
        // A worker of any version must read this. Never change it.
        let frame = "crm/1;currency=120,mission=7,tier=118;4cbbe116";
        assert_eq!(
            write(&marks(&[("tier", 118), ("currency", 120), ("mission", 7)])),
            frame
        );
        assert_eq!(
            read(frame),
            Reading::Frame(marks(&[("currency", 120), ("mission", 7), ("tier", 118)]))
        );
    }

    #[test]
    fn what_is_not_a_frame_says_nothing() {
        assert_eq!(read(""), Reading::Absent);
        let many = (0..17).map(|n| format!("c{n}=1")).collect::<Vec<_>>().join(",");
        let cases = [
            "hello".to_owned(),
            "crm/1;currency=120".to_owned(),
            "crm/1;currency=121,mission=7,tier=118;4cbbe116".to_owned(),
            sealed("crm/0;currency=1"),
            sealed("crm/x;currency=1"),
            sealed("crm/1;,"),
            sealed("crm/1;currency"),
            sealed("crm/1;currency=-1"),
            sealed("crm/1;currency=99999999999999999999"),
            sealed("crm/1;currency=1,currency=2"),
            sealed("crm/1;Currency=1"),
            sealed(&format!("crm/1;{}=1", "x".repeat(33))),
            sealed(&format!("crm/1;{many}")),
        ];
        for case in cases {
            assert_eq!(read(&case), Reading::Damaged, "{case}");
        }
    }

    #[test]
    fn a_later_version_is_recognised_whatever_it_carries() {
        assert_eq!(read(&sealed("crm/2;anything;at|all")), Reading::Newer { version: 2 });
        assert_eq!(read("crm/2;anything;00000000"), Reading::Damaged);
    }

    #[test]
    fn a_frame_of_all_consumers_far_into_a_log_stays_small() {
        let entries: Watermarks = crate::consumers::Consumer::ALL
            .map(|consumer| (consumer.name().into(), 1_000_000_000))
            .into();
        assert_eq!(write(&entries).len(), 110);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_stays_small(
            entries in proptest::collection::btree_map("[a-z_0-9]{1,32}", 0i64.., 0..=16)
        ) {
            let entries: Watermarks = entries.into_iter().map(|(name, mark)| (name.into(), mark)).collect();
            let frame = write(&entries);
            prop_assert!(frame.len() < 1024, "{} bytes", frame.len());
            prop_assert_eq!(read(&frame), Reading::Frame(entries));
        }

        #[test]
        fn a_damaged_frame_is_never_believed(at in 0usize..40, bit in 0u8..7) {
            let frame = write(&marks(&[("currency", 120), ("mission", 7), ("tier", 118)]));
            let mut bytes = frame.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let damaged = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(read(&damaged), Reading::Damaged);
        }

        #[test]
        fn arbitrary_metadata_never_panics(text in ".*") {
            let _reading = read(&text);
        }
    }
}
