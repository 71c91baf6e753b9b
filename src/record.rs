//! One Kafka record as received: positions and bytes, nothing understood yet.
//!
//! Takes nothing, gives views. It never copies and never interprets.

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
