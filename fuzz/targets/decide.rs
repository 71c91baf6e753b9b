//! A record decoded, routed and decided by every consumer: never a panic, always the same, keys that no id can imitate, and
//! points that are exact. Inputs: a table, and the value.

use std::sync::{Arc, LazyLock};

use crm_event_processors::consumers::{Consumer, Decision, Effect, Rules, decide};
use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::inngest::{EventBatch, EventData};
use crm_event_processors::loyalty::{DEMO_PROGRAM, Lookup, Programs};
use crm_event_processors::record::{Headers, RecordView};
use crm_event_processors::rows::{PurchaseStatus, Routed, RowChange, route};
use jiff::Timestamp;

use super::{assert_inert, assert_word, money, parts};

/// 2026-11-20T12:00:00Z
const NOW_MS: i64 = 1_795_176_000_000;

static PROGRAMS: LazyLock<Arc<Programs>> =
    LazyLock::new(|| Arc::new(Programs::from_json(DEMO_PROGRAM).expect("the demo's program")));

pub(super) fn run(data: &[u8]) {
    let [table, value] = parts(data);
    let table = String::from_utf8_lossy(table);
    let table = if table.is_empty() { "purchase_ledger" } else { &table };
    let topic = format!("crm.public.{table}");
    let record = RecordView {
        topic: &topic,
        partition: 0,
        offset: 1,
        timestamp_ms: None,
        key: None,
        value: Some(value),
        headers: Headers::default(),
    };
    let mut decoder = Decoder::default();
    let Ok(Decoded::Change(change)) = decoder.decode(&record) else {
        return;
    };
    for mode in [DecimalMode::Text, DecimalMode::Precise { scale: 2 }] {
        match route(&topic, &change, mode) {
            Ok(Routed::Row(change)) => by_everybody(&change, &PROGRAMS),
            Ok(Routed::Unread { table }) => assert_eq!(*table, *change.table),
            Err(error) => {
                assert_inert(&error.to_string());
                assert_word(error.reason());
            }
        }
    }
}

/// Every consumer decides, with and without a cut-off and a database.
pub(super) fn by_everybody(change: &RowChange, programs: &Arc<Programs>) {
    let now = Timestamp::from_millisecond(NOW_MS).expect("a time");
    let plain = Rules::new(Arc::clone(programs), None);
    let cut_off = Rules::new(Arc::clone(programs), Some(now));
    let with_database = Rules {
        database: true,
        ..cut_off.clone()
    };
    for consumer in Consumer::ALL {
        assert_eq!(consumer.lane_key(change), consumer.lane_key(&change.clone()));
        for rules in [&plain, &cut_off, &with_database] {
            let decision = decide(consumer, change, rules, now);
            assert_eq!(decision, decide(consumer, &change.clone(), rules, now));
            match &decision {
                Decision::Ignore(reason) => assert_word(reason.as_str()),
                Decision::Refuse(refusal) | Decision::RefuseIfKnown(refusal, _) => {
                    assert_inert(&refusal.to_string());
                    assert_word(refusal.reason());
                }
                Decision::Deliver(effects) => {
                    for effect in effects.iter() {
                        is_sound(effect, consumer, change);
                        is_exact(effect, programs);
                    }
                }
            }
        }
    }
}

fn is_sound(effect: &Effect, consumer: Consumer, change: &RowChange) {
    // Whatever stands in the ids, a key has as many components as its kind.
    let claim = effect.claim.as_str();
    assert_eq!(claim.split(':').count(), 5, "{claim}");
    assert!(claim.starts_with(&format!("{}:", consumer.name())), "{claim}");
    assert!(claim.ends_with(&format!(":{}", change.version)), "{claim}");
    assert_eq!(effect.event.id, effect.claim);
    let key = effect.key.as_str();
    let components = match key.split(':').next() {
        Some("award" | "grant" | "code") => 2,
        Some("tier" | "referral") => 3,
        Some("mission") => 5,
        Some("mission_source") => 5,
        _ => panic!("no key of ours: {key}"),
    };
    assert_eq!(key.split(':').count(), components, "{key}");

    let events = [effect.event.clone()];
    let batch = EventBatch::of(&events, NOW_MS);
    assert_eq!(batch.event(0), EventBatch::of(&events, NOW_MS).event(0));
    let sent: serde_json::Value = serde_json::from_slice(batch.event(0)).expect("an event is JSON");
    assert_eq!(sent["id"], claim);
    assert_eq!(sent["name"], effect.event.data.name());
    assert_eq!(sent["data"]["effect_key"], key);
    assert!(
        sent["ts"]
            .as_i64()
            .is_some_and(|ts| ts <= NOW_MS && ts <= change.commit_ms)
    );
    assert_eq!(sent["data"]["reason"], effect.reason.as_str());
    // What a comparison and a dead letter take of it.
    let fact = serde_json::to_value(effect.fact()).expect("a fact is JSON");
    assert_eq!(fact["effect_key"], key);
    assert_eq!(fact["source_id"], change.row.id().as_str());
}

/// Points are only for what may earn, and they are what arithmetic at school gives.
fn is_exact(effect: &Effect, programs: &Programs) {
    let EventData::AwardScheduled {
        award, target_points, ..
    } = &effect.event.data
    else {
        return;
    };
    let row = &award.purchase;
    assert!(matches!(
        row.status,
        PurchaseStatus::Completed | PurchaseStatus::PartiallyRefunded
    ));
    assert!(row.earn_currency && target_points.get() > 0);
    let earned = row.completed_at.unwrap_or(row.created_at);
    let Lookup::Found(version, _zone) = programs.version_at(&row.merchant_id, earned) else {
        panic!("points without a rule");
    };
    assert_eq!(award.program_rev, version.rev);
    let rule = version.currency.as_ref().expect("points without a rule");
    let points = money::points(row.final_amount, row.refunded_amount, rule.rate, rule.rounding);
    assert_eq!(points, Some(target_points.to_string()), "{row:?} {rule:?}");
}
