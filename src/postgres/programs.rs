//! The programs in the database: takes one document a merchant, gives the rules of all.
//!
//! A merchant whose document is bad keeps its last good program and is named; the others go on. What did not change since
//! the last time is not read again. It never decides when to refresh: the rule book does.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::cache::Snapshot;
use super::{Client, LedgerError, RulesCache, field};
use crate::consumers::Rules;
use crate::loyalty::Programs;
use crate::pipeline::ReadRules;

/// One document a merchant, as text.
pub(super) type Documents = BTreeMap<Box<str>, Box<str>>;

/// Reads all programs at every call.
#[derive(Debug)]
pub(super) struct ProgramReader {
    client: Arc<Client>,
    cache: Option<RulesCache>,
    effective_from: Timestamp,
    /// As last read, good or bad.
    seen: Documents,
    /// What the rules were made of.
    good: Documents,
    rules: Arc<Rules>,
    /// Whether the cache holds less than `good`.
    unsaved: bool,
}

impl ProgramReader {
    pub(super) fn new(client: Arc<Client>, cache: Option<RulesCache>, effective_from: Timestamp) -> Self {
        Self {
            client,
            cache,
            effective_from,
            seen: Documents::new(),
            good: Documents::new(),
            rules: Arc::new(known_rules(Arc::default(), effective_from)),
            unsaved: false,
        }
    }

    pub(super) fn into_cache(self) -> Option<RulesCache> {
        self.cache
    }

    /// Begins with the rules of a snapshot, which the database may replace.
    pub(super) fn resume(&mut self, snapshot: &Snapshot) -> Arc<Rules> {
        self.take(documents_of(snapshot));
        self.unsaved = false;
        // A document that was good to an earlier release and is bad now is told again by the first refresh.
        self.seen.clear();
        Arc::clone(&self.rules)
    }

    /// The rules of these documents, and a warning for each that is newly bad.
    fn take(&mut self, read: Documents) {
        let mut programs = Programs::default();
        let mut good = Documents::new();
        for (merchant, text) in &read {
            let kept = match programs.put_json(merchant, text) {
                Ok(()) => Some(text.clone()),
                Err(problems) => {
                    let last_good = self.good.get(merchant);
                    let last_good = last_good.filter(|text| programs.put_json(merchant, text).is_ok());
                    if self.seen.get(merchant) != Some(text) {
                        let keeps_its_last_good_one = last_good.is_some();
                        tracing::warn!(%merchant, %problems, keeps_its_last_good_one, "a program cannot be read");
                    }
                    last_good.cloned()
                }
            };
            good.extend(kept.map(|text| (merchant.clone(), text)));
        }
        self.rules = Arc::new(known_rules(Arc::new(programs), self.effective_from));
        self.unsaved |= good != self.good;
        (self.seen, self.good) = (read, good);
    }

    async fn save(&mut self) {
        let Some(cache) = self.cache.as_ref().filter(|_| self.unsaved) else {
            return;
        };
        let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
        let snapshot = Snapshot {
            effective_from: self.effective_from,
            programs: self.good.values().filter_map(|text| raw(text)).collect(),
        };
        match cache.save(&snapshot).await {
            Ok(()) => self.unsaved = false,
            // Tried again by the next refresh. Only a start without the database would miss it.
            Err(error) => tracing::warn!(error, "the programs could not be kept in CRM_CACHE_REDIS_URL"),
        }
    }
}

impl ReadRules for ProgramReader {
    fn read(&mut self) -> BoxFuture<'_, Result<Arc<Rules>, LedgerError>> {
        async move {
            let read = read_documents(&self.client).await?;
            if read != self.seen {
                self.take(read);
                tracing::info!(programs = self.good.len(), "programs");
            }
            self.save().await;
            Ok(Arc::clone(&self.rules))
        }
        .boxed()
    }
}

/// Rules beside a database, which knows what was settled.
pub(super) fn known_rules(programs: Arc<Programs>, effective_from: Timestamp) -> Rules {
    Rules {
        database: true,
        ..Rules::new(programs, Some(effective_from))
    }
}

async fn read_documents(client: &Client) -> Result<Documents, LedgerError> {
    let statement = "select merchant_id::text, document::text from crm_events.programs_documents()";
    let rows = client.query(statement, &[]).await?;
    rows.iter().map(|row| Ok((field(row, 0)?, field(row, 1)?))).collect()
}

/// By the merchant that each names; what names none is bad anyway.
fn documents_of(snapshot: &Snapshot) -> Documents {
    #[derive(serde::Deserialize)]
    struct Named {
        merchant_id: Box<str>,
    }
    let named = |raw: &RawValue| {
        Some((
            serde_json::from_str::<Named>(raw.get()).ok()?.merchant_id,
            raw.get().into(),
        ))
    };
    snapshot.programs.iter().filter_map(|raw| named(raw)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loyalty::Lookup;
    use crate::postgres::DatabaseUrl;
    use crate::rows::MerchantId;

    fn reader() -> ProgramReader {
        let url = DatabaseUrl::parse("postgres://u@127.0.0.1:1/x").expect("valid");
        let client = Arc::new(Client::new(&url).expect("no file"));
        ProgramReader::new(client, None, Timestamp::UNIX_EPOCH)
    }

    fn document(merchant: &str, rev: u32) -> (Box<str>, Box<str>) {
        let text = format!(
            r#"{{"merchant_id": "{merchant}", "time_zone": "UTC",
                "versions": [{{"rev": {rev}, "effective_from": "2020-01-01", "refund_policy": "unlimited"}}]}}"#
        );
        (merchant.into(), text.into())
    }

    fn rev(reader: &ProgramReader, merchant: &str) -> Option<u32> {
        let at = "2026-01-01T00:00:00Z".parse().expect("a time");
        let merchant = MerchantId::new(merchant).expect("not empty");
        match reader.rules.programs.version_at(&merchant, at) {
            Lookup::Found(version, _) => Some(version.rev),
            Lookup::NoProgram | Lookup::NoVersionYet => None,
        }
    }

    #[test]
    fn a_merchant_whose_document_is_bad_keeps_its_last_good_program_and_the_others_go_on() {
        let mut reader = reader();
        reader.take(Documents::from([document("a", 1), document("b", 1), document("c", 1)]));
        assert_eq!([rev(&reader, "a"), rev(&reader, "b"), rev(&reader, "c")], [Some(1); 3]);
        // Revision 0 is none. A merchant that is bad from the beginning has no program; one that went has none any more.
        reader.take(Documents::from([document("a", 2), document("b", 0), document("d", 0)]));
        let revs = ["a", "b", "c", "d"].map(|merchant| rev(&reader, merchant));
        assert_eq!(revs, [Some(2), Some(1), None, None]);
        // It is kept however often it is read again, and replaced when it is mended.
        reader.take(Documents::from([document("a", 2), document("b", 0)]));
        assert_eq!(rev(&reader, "b"), Some(1));
        reader.take(Documents::from([document("a", 2), document("b", 3)]));
        assert_eq!(rev(&reader, "b"), Some(3));
    }

    #[test]
    fn a_document_that_names_another_merchant_is_bad() {
        let mut reader = reader();
        let (_, others) = document("b", 7);
        reader.take(Documents::from([("a".into(), others), document("b", 1)]));
        assert_eq!([rev(&reader, "a"), rev(&reader, "b")], [None, Some(1)]);
    }

    #[test]
    fn a_snapshot_is_resumed_and_outlives_a_bad_document() {
        let mut reader = reader();
        let programs = [document("a", 4), document("*", 5)].map(|(_, text)| RawValue::from_string(text.into()));
        let snapshot = Snapshot {
            effective_from: Timestamp::UNIX_EPOCH,
            programs: programs.into_iter().collect::<Result<_, _>>().expect("JSON"),
        };
        let text = serde_json::to_string(&snapshot).expect("JSON");
        let snapshot = serde_json::from_str(&text).expect("the same");
        reader.resume(&snapshot);
        assert_eq!([rev(&reader, "a"), rev(&reader, "other")], [Some(4), Some(5)]);
        assert!(!reader.unsaved);
        reader.take(Documents::from([document("a", 0), document("*", 5)]));
        assert_eq!(rev(&reader, "a"), Some(4));
    }
}
