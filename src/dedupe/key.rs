//! The claim key: consumer, effect, table, row and change, components escaped. Pure.
//!
//! Never the Kafka offset, `sequence` or the envelope's time: those change when a connector repeats itself.
//! Never the row alone: two changes of one row are not duplicates.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::parts::Part;
use crate::rows::{ChangeVersion, RowId, Table};

/// `<consumer>:<effect>:<table>:<row>:<version>`; also the `id` of the Inngest event. Cheap to clone: it goes to the store
/// twice and into the event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey(Part);

impl ClaimKey {
    #[must_use]
    pub fn new(consumer: &str, effect: &str, table: Table, row: &RowId, version: ChangeVersion) -> Self {
        let [key] = Part::written([&|text| Self::write(text, [consumer, effect], table, row, version)]);
        Self(key)
    }

    /// Of a text that [`Self::write`] wrote.
    pub(crate) const fn of(text: Part) -> Self {
        Self(text)
    }

    pub(crate) fn write(
        text: &mut String,
        [consumer, effect]: [&str; 2],
        table: Table,
        row: &RowId,
        version: ChangeVersion,
    ) {
        for part in [consumer, effect, table.name(), &escape(row.as_str())] {
            text.push_str(part);
            text.push(':');
        }
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{version}");
    }

    /// The same effect of the same row, of another version: the version is the last component.
    #[must_use]
    pub fn at(&self, version: ChangeVersion) -> Self {
        let effect = self.as_str().rsplit_once(':').map_or("", |(effect, _)| effect);
        Self::text(&format!("{effect}:{version}"))
    }

    /// Sent once more on purpose: `#h2` is the second time that the reconciler heals.
    #[must_use]
    pub fn marked(&self, mark: &str) -> Self {
        Self::text(&format!("{self}#{mark}"))
    }

    fn text(text: &str) -> Self {
        let [key] = Part::of(&[text]);
        Self(key)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl serde::Serialize for ClaimKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl std::fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Escapes `:` and `%`, so that no row id can imitate another key.
#[must_use]
pub fn escape(component: &str) -> Cow<'_, str> {
    if component.contains([':', '%']) {
        Cow::Owned(component.replace('%', "%25").replace(':', "%3A"))
    } else {
        Cow::Borrowed(component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_consumer_effect_table_row_and_change() {
        let row = RowId::new("p-1").expect("not empty");
        let key = ClaimKey::new("currency", "award", Table::PurchaseLedger, &row, ChangeVersion::Lsn(42));
        assert_eq!(key.as_str(), "currency:award:purchase_ledger:p-1:42");
        let key = ClaimKey::new(
            "tier",
            "evaluation",
            Table::WalletLedger,
            &row,
            ChangeVersion::Snapshot(7),
        );
        assert_eq!(key.as_str(), "tier:evaluation:wallet_ledger:p-1:r7");
    }

    #[test]
    fn a_state_without_a_change_has_its_own_version_and_a_mark_for_every_time_it_is_sent() {
        let row = RowId::new("p:1#h1").expect("not empty");
        let key = ClaimKey::new(
            "currency",
            "award",
            Table::PurchaseLedger,
            &row,
            ChangeVersion::Snapshot(7),
        );
        let healed = key.at(ChangeVersion::State(0xa0b)).marked("h2");
        assert_eq!(
            healed.as_str(),
            "currency:award:purchase_ledger:p%3A1#h1:s0000000000000a0b#h2"
        );
    }

    #[test]
    fn a_row_id_cannot_imitate_another_key() {
        let key = |id: &str, lsn| {
            let row = RowId::new(id).expect("not empty");
            ClaimKey::new(
                "currency",
                "award",
                Table::PurchaseLedger,
                &row,
                ChangeVersion::Lsn(lsn),
            )
        };
        assert_ne!(key("a:1", 2), key("a", 1));
        assert_ne!(key("a%3A1", 2), key("a:1", 2));
        assert_eq!(key("a:1", 2).as_str(), "currency:award:purchase_ledger:a%3A1:2");
    }
}
