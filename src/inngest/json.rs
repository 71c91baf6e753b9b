//! Compact JSON into memory: byte for byte what `serde_json` writes, at a fraction of its instructions. Pure.
//!
//! Takes what our events are made of: structs, lists, texts, integers, booleans and what is there or not. Names of fields are
//! copied as they are, and a text is copied whole when nothing in it is to be escaped. All else is `serde_json`'s.

use std::fmt::{self, Write as _};

use serde::ser::{self, Impossible, Serialize};

/// Appends a value.
pub(super) fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    if value.serialize(Json { out }).is_err() {
        out.truncate(start);
        by_serde(value, out);
    }
}

fn by_serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Writing texts, numbers and booleans into memory cannot fail.
    let _infallible = serde_json::to_writer(out, value);
}

struct Json<'a> {
    out: &'a mut Vec<u8>,
}

/// A struct or a list whose begin is written with its first part.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

/// Something that is not written here.
#[derive(Debug)]
struct NotOurs;

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("events are not made of this")
    }
}

impl std::error::Error for NotOurs {}

impl ser::Error for NotOurs {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

/// No early end, so that the compiler looks at many bytes at once.
fn must_be_escaped(text: &[u8]) -> bool {
    let must = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    text.iter().fold(false, |found, byte| found | must(*byte))
}

/// Formats into memory.
struct Formatted<'a>(&'a mut Vec<u8>);

impl fmt::Write for Formatted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Types that `serde_json` writes, one call each.
macro_rules! leave_to_serde {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<(), NotOurs> {
            by_serde(&value, self.out);
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for Json<'a> {
    type Ok = ();
    type Error = NotOurs;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Impossible<(), NotOurs>;
    type SerializeTupleStruct = Impossible<(), NotOurs>;
    type SerializeTupleVariant = Impossible<(), NotOurs>;
    type SerializeMap = Impossible<(), NotOurs>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Impossible<(), NotOurs>;

    leave_to_serde! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_bytes: &[u8],
    }

    fn serialize_str(self, text: &str) -> Result<(), NotOurs> {
        if must_be_escaped(text.as_bytes()) {
            by_serde(text, self.out);
        } else {
            self.out.push(b'"');
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        }
        Ok(())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), NotOurs> {
        self.out.push(b'"');
        let start = self.out.len();
        write!(Formatted(self.out), "{value}").map_err(ser::Error::custom)?;
        if self.out.get(start..).is_some_and(must_be_escaped) {
            return Err(NotOurs);
        }
        self.out.push(b'"');
        Ok(())
    }

    fn serialize_none(self) -> Result<(), NotOurs> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotOurs> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotOurs> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), NotOurs> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<(), NotOurs> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Result<(), NotOurs> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), NotOurs> {
        Err(NotOurs)
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Parts<'a>, NotOurs> {
        Ok(self.parts())
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self::SerializeTuple, NotOurs> {
        Err(NotOurs)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleStruct, NotOurs> {
        Err(NotOurs)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, NotOurs> {
        Err(NotOurs)
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Self::SerializeMap, NotOurs> {
        Err(NotOurs)
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Parts<'a>, NotOurs> {
        Ok(self.parts())
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, NotOurs> {
        Err(NotOurs)
    }
}

impl<'a> Json<'a> {
    const fn parts(self) -> Parts<'a> {
        Parts {
            out: self.out,
            is_empty: true,
        }
    }
}

impl Parts<'_> {
    fn begin(&mut self, open: u8) {
        self.out.push(if self.is_empty { open } else { b',' });
        self.is_empty = false;
    }

    fn close(self, open: u8, close: u8) {
        if self.is_empty {
            self.out.push(open);
        }
        self.out.push(close);
    }
}

impl ser::SerializeStruct for Parts<'_> {
    type Ok = ();
    type Error = NotOurs;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), NotOurs> {
        debug_assert!(!must_be_escaped(name.as_bytes()), "{name}: a field of ours");
        self.begin(b'{');
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.serialize(Json { out: self.out })
    }

    fn end(self) -> Result<(), NotOurs> {
        self.close(b'{', b'}');
        Ok(())
    }
}

impl ser::SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = NotOurs;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotOurs> {
        self.begin(b'[');
        value.serialize(Json { out: self.out })
    }

    fn end(self) -> Result<(), NotOurs> {
        self.close(b'[', b']');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Serialize)]
    struct Empty {}

    #[derive(serde::Serialize)]
    enum Kind {
        Unit,
        Of(u8),
    }

    #[derive(serde::Serialize)]
    struct Ours<'a> {
        text: &'a str,
        shown: Shown<'a>,
        texts: Vec<&'a str>,
        number: i64,
        small: u32,
        is: bool,
        share: f64,
        some: Option<&'a str>,
        none: Option<&'a str>,
        unit: (),
        empty: Empty,
        nothing: Vec<u8>,
        kind: Kind,
    }

    struct Shown<'a>(&'a str);

    impl Serialize for Shown<'_> {
        fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self.0)
        }
    }

    fn assert_same<T: Serialize>(value: &T) {
        let mut ours = b"before".to_vec();
        write(value, &mut ours);
        let theirs = format!("before{}", serde_json::to_string(value).expect("JSON"));
        assert_eq!(String::from_utf8(ours).expect("UTF-8"), theirs);
    }

    proptest::proptest! {
        #[test]
        fn it_writes_what_serde_json_writes(text: String, number: i64, small: u32, is: bool) {
            let text = text.as_str();
            assert_same(&text);
            assert_same(&Shown(text));
            assert_same(&Some(text));
            let ours = || Ours {
                text,
                shown: Shown(if must_be_escaped(text.as_bytes()) { "plain" } else { text }),
                texts: vec![text, "", text],
                number,
                small,
                is,
                share: 0.5,
                some: Some(text),
                none: None,
                unit: (),
                empty: Empty {},
                nothing: Vec::new(),
                kind: Kind::Unit,
            };
            assert!(ours().serialize(Json { out: &mut Vec::new() }).is_ok(), "written here");
            assert_same(&ours());
            // What is not written here, behind something that is.
            assert_same(&vec![(number, text)]);
            assert_same(&(ours(), Kind::Of(1)));
            assert_same(&BTreeMap::from([(text, ours())]));
        }
    }

    #[test]
    fn every_byte_that_must_be_escaped_is_seen_wherever_it_stands() {
        for byte in 0..=0x7f_u8 {
            for before in 0..40 {
                let text = format!("{}{}{}", "x".repeat(before), char::from(byte), "x".repeat(40 - before));
                assert_same(&text.as_str());
                let escaped = serde_json::to_string(&text).expect("JSON").len() != text.len() + 2;
                assert_eq!(must_be_escaped(text.as_bytes()), escaped, "{byte}");
            }
        }
    }
}
