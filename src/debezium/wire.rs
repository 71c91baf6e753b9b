//! What the bytes are, before anybody parses them. Takes a record, gives its value or the control record it is.
//! Never looks into the JSON.

use super::{Control, DecodeError, shown};
use crate::record::{Header, RecordView};

/// Confluent's registry format: this byte, then the schema id in four bytes, big-endian.
const REGISTRY_MAGIC: u8 = 0;
/// The same in headers may carry a 16-byte GUID instead of an id.
const GUID_MAGIC: u8 = 1;
/// `topic.heartbeat.prefix` is this by default.
const HEARTBEAT_TOPIC: &str = "__debezium-heartbeat";

#[derive(Debug)]
pub(super) enum Wire<'a> {
    Control(Control),
    Value(&'a [u8]),
}

pub(super) fn sniff<'a>(record: &RecordView<'a>) -> Result<Wire<'a>, DecodeError> {
    // Some clients deliver a null value as an empty one; no JSON is empty.
    let value = match record.value {
        None | Some([]) => return Ok(Wire::Control(Control::Tombstone)),
        Some(value) => value,
    };
    if record
        .topic
        .strip_prefix(HEARTBEAT_TOPIC)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    {
        return Ok(Wire::Control(Control::Heartbeat));
    }
    for name in ["__value_schema_id", "__key_schema_id"] {
        if let Some(header) = record.headers.get(name) {
            return Err(DecodeError::RegistryHeader {
                header: name,
                schema: schema_name(header),
            });
        }
    }
    if let Some((&REGISTRY_MAGIC, rest)) = value.split_first() {
        let schema_id = rest.first_chunk().copied().map(u32::from_be_bytes);
        return Err(DecodeError::RegistryFormat { schema_id });
    }
    Ok(Wire::Value(value))
}

/// The value as JSON text.
pub(super) fn text(value: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(value).map_err(|error| DecodeError::NotUtf8 {
        at: error.valid_up_to(),
    })
}

/// The schema a header names: a GUID in hex, an id, or whatever stands there, escaped.
fn schema_name(header: &Header<'_>) -> Box<str> {
    use std::fmt::Write;
    match header.value {
        Some([GUID_MAGIC, guid @ ..]) if guid.len() == 16 => {
            let mut text = String::with_capacity(32);
            for byte in guid {
                // Writing into a String cannot fail.
                let _ok = write!(text, "{byte:02x}");
            }
            text.into()
        }
        Some([REGISTRY_MAGIC, id @ ..]) if id.len() == 4 => match id.first_chunk().copied().map(u32::from_be_bytes) {
            Some(id) => format!("id {id}").into(),
            None => "unknown".into(),
        },
        Some(other) => shown(&String::from_utf8_lossy(other)),
        None => "unknown".into(),
    }
}
