//! What lies in a dead-letter topic, read back: letters, and marks that say what became of them. Pure.
//!
//! Kafka can delete no single record, so a letter that is done is marked by a second record in the same partition: without
//! key and value, it names the letter's offset and says what became of it, why and by whom. It needs no other topic and no
//! grant that the worker has not, it outlives its letter under every retention, and one that was never written costs a
//! repetition of what is harmless to repeat. A committed offset could not do it: it skips no single record.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Queue;
use crate::record::{Header, Headers, RecordView};

/// All that a worker writes behind a record's own headers begins so.
const OURS: &str = "crm.dlq.";

/// Where a letter lies. Written `currency/0/17`; the topic's whole name is understood as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub queue: Queue,
    pub partition: i32,
    pub offset: i64,
}

/// Where a letter comes from, and why it is one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Provenance {
    pub consumer: String,
    pub reason: String,
    pub detail: String,
    pub policy: bool,
    /// The record's own place.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub written_at_ms: i64,
    pub version: String,
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It took the normal way again and was finished.
    Replayed,
    /// The same, under an id of its own.
    Forced,
    /// Somebody decided that nothing is to be done about it.
    Dropped,
}

/// Says what became of the letter at this offset of its own partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mark {
    pub offset: i64,
    pub fate: Fate,
    pub because: String,
    pub by: String,
    pub at_ms: i64,
}

/// One record of a dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filed {
    Letter(Provenance),
    Mark(Mark),
    /// Neither, and why: nobody of ours wrote it.
    Foreign(&'static str),
}

/// The letters of all queues, and what became of each. Takes records in the order of their partitions.
#[derive(Debug, Default)]
pub struct Drawer {
    pub open: BTreeMap<Place, Provenance>,
    pub handled: BTreeMap<Place, (Provenance, Mark)>,
    /// Records that are neither letters nor marks.
    pub foreign: BTreeMap<Place, &'static str>,
}

/// Which letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// These; none: any.
    pub places: Vec<Place>,
    pub queue: Option<Queue>,
    pub reason: Option<String>,
    /// Of the record: its whole name, or the table at its end.
    pub topic: Option<String>,
    /// Written at this time or later, before that one.
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    pub limit: Option<usize>,
}

impl Filed {
    /// Whatever a producer wrote into the headers of his record, ours are behind them: the last of a name counts.
    #[must_use]
    pub fn read(record: &RecordView<'_>) -> Self {
        let headers = Ours(record.headers);
        if headers.0.get("crm.dlq.reason").is_some() {
            return headers
                .provenance()
                .map_or(Self::Foreign("its crm.dlq headers are not whole"), Self::Letter);
        }
        if record.key.is_some() || record.value.is_some() {
            return Self::Foreign("it has no crm.dlq.reason");
        }
        match headers.mark() {
            // What it says of itself or of what is to come is no mark of ours.
            Some(mark) if mark.offset >= 0 && mark.offset < record.offset => Self::Mark(mark),
            _ => Self::Foreign("it is empty, and no mark of a letter before it"),
        }
    }
}

/// The record as it was before it became a letter, but for its place: what we wrote behind its headers is left out.
#[must_use]
pub fn original<'a>(letter: &RecordView<'a>, provenance: &Provenance) -> RecordView<'a> {
    let all = letter.headers.0;
    let own = all.iter().rposition(|header| !header.name.starts_with(OURS));
    let count = own.map_or(0, |last| last + 1);
    RecordView {
        timestamp_ms: provenance.timestamp_ms,
        headers: Headers(all.get(..count).unwrap_or_default()),
        ..*letter
    }
}

impl Mark {
    /// In the order in which they are written.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        vec![
            ("crm.dlq.mark.offset", self.offset.to_string()),
            ("crm.dlq.mark.fate", self.fate.name().to_owned()),
            ("crm.dlq.mark.because", self.because.clone()),
            ("crm.dlq.mark.by", self.by.clone()),
            ("crm.dlq.mark.at_ms", self.at_ms.to_string()),
            ("crm.dlq.mark.version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }
}

impl Fate {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Forced => "forced",
            Self::Dropped => "dropped",
        }
    }
}

impl Drawer {
    /// One more record. `queue` is the one whose topic it lies in.
    pub fn file(&mut self, queue: Queue, record: &RecordView<'_>) {
        let (partition, offset) = (record.partition, record.offset);
        let place = Place {
            queue,
            partition,
            offset,
        };
        match Filed::read(record) {
            Filed::Letter(provenance) => {
                self.open.insert(place, provenance);
            }
            Filed::Mark(mark) => {
                let marked = Place {
                    offset: mark.offset,
                    ..place
                };
                // Its letter may be forgotten already. Of two marks the first says what became of it.
                if let Some(provenance) = self.open.remove(&marked) {
                    self.handled.insert(marked, (provenance, mark));
                }
            }
            Filed::Foreign(why) => {
                self.foreign.insert(place, why);
            }
        }
    }

    /// The open letters that are wanted; where a limit leaves some out, those that were written first are taken.
    #[must_use]
    pub fn wanted(&self, filter: &Filter) -> BTreeMap<Place, Provenance> {
        let wanted = self.open.iter().filter(|(place, letter)| filter.wants(place, letter));
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_by_key(|(place, letter)| (letter.written_at_ms, **place));
        wanted.truncate(filter.limit.unwrap_or(usize::MAX));
        wanted
            .into_iter()
            .map(|(place, letter)| (*place, letter.clone()))
            .collect()
    }
}

impl Filter {
    /// Whether it would leave anything out; a limit alone says only how many.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let all = Self {
            limit: self.limit,
            ..Self::default()
        };
        *self == all
    }

    #[must_use]
    pub fn wants(&self, place: &Place, letter: &Provenance) -> bool {
        let is_topic =
            |topic: &String| letter.topic == *topic || letter.topic.rsplit('.').next() == Some(topic.as_str());
        (self.places.is_empty() || self.places.contains(place))
            && self.queue.is_none_or(|queue| queue == place.queue)
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && self.topic.as_ref().is_none_or(is_topic)
            && self.since_ms.is_none_or(|since| letter.written_at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.written_at_ms < until)
    }
}

struct Ours<'a>(Headers<'a>);

impl<'a> Ours<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        let last = self.0.0.iter().rfind(|header: &&Header<'_>| header.name == name)?;
        std::str::from_utf8(last.value?).ok()
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn provenance(&self) -> Option<Provenance> {
        let own = |name| self.text(name).map(ToOwned::to_owned);
        Some(Provenance {
            consumer: own("crm.dlq.consumer")?,
            reason: own("crm.dlq.reason")?,
            detail: own("crm.dlq.detail")?,
            policy: self.number("crm.dlq.policy")?,
            topic: own("crm.dlq.topic")?,
            partition: self.number("crm.dlq.partition")?,
            offset: self.number("crm.dlq.offset")?,
            // Empty where the record had none.
            timestamp_ms: self.number("crm.dlq.timestamp_ms"),
            written_at_ms: self.number("crm.dlq.written_at_ms")?,
            version: own("crm.dlq.version")?,
        })
    }

    fn mark(&self) -> Option<Mark> {
        let fate = match self.text("crm.dlq.mark.fate")? {
            "replayed" => Fate::Replayed,
            "forced" => Fate::Forced,
            "dropped" => Fate::Dropped,
            _ => return None,
        };
        Some(Mark {
            offset: self.number("crm.dlq.mark.offset")?,
            fate,
            because: self.text("crm.dlq.mark.because")?.to_owned(),
            by: self.text("crm.dlq.mark.by")?.to_owned(),
            at_ms: self.number("crm.dlq.mark.at_ms")?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.queue.name(), self.partition, self.offset)
    }
}

impl serde::Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.rsplitn(3, '/');
            let (offset, partition, queue) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Self {
                queue: queue.parse().ok()?,
                partition: partition.parse().ok().filter(|partition| *partition >= 0)?,
                offset: offset.parse().ok().filter(|offset| *offset >= 0)?,
            })
        };
        parse().ok_or_else(|| "a letter's place is QUEUE/PARTITION/OFFSET, like currency/0/17".to_owned())
    }
}

impl FromStr for Queue {
    type Err = String;

    /// `currency`, or the topic's name, whatever its prefix.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.rsplit_once(".dlq.").map_or(text, |(_prefix, name)| name);
        let found = Self::ALL.into_iter().find(|queue| queue.name() == name);
        found.ok_or_else(|| format!("known are {}", Self::ALL.map(Self::name).join(", ")))
    }
}
