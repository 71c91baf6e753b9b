//! Ids of the source database: opaque, non-empty texts, one type a kind, so that they cannot be mixed up.
//!
//! Every consumer's effect carries the ids of its row on, so they are shared; and the ids of one row share their memory, so
//! that a row asks for it once.

use std::fmt;

use crate::parts::Part;

macro_rules! id {
    ($($name:ident),*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Part);

        impl $name {
            /// `None` for an empty text.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                let [part] = Part::of(&[text]);
                (!text.is_empty()).then_some(Self(part))
            }

            /// Of a text that was seen not to be empty.
            pub(super) const fn of(part: Part) -> Self {
                Self(part)
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )*};
}

id!(RowId, UserId, MerchantId, FormId, MissionId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_they_say_wherever_they_stand() {
        let [row, user] = Part::of(&["ü-1", "u-1"]);
        let (row, user) = (RowId::of(row), UserId::of(user));
        assert_eq!((row.as_str(), user.as_str()), ("ü-1", "u-1"));
        assert_eq!(Some(&row), RowId::new("ü-1").as_ref());
        assert!(row > RowId::new("u-9").expect("not empty"));
        assert_eq!(format!("{user:?}"), r#"UserId("u-1")"#);
        assert_eq!(MerchantId::new(""), None);
    }
}
