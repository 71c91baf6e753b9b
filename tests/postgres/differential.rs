//! The simulated Postgres of `tests/sim` held to the real one: the same random operations on both, the same answers and tables.
//!
//! What events say is decided by the consumers, of the rows as they are and as they were, by two versions of the rules.

use std::sync::Arc;

use crm_event_processors::consumers::{self, Consumer, Decision, Effect, Rules};
use crm_event_processors::loyalty::Programs;
use crm_event_processors::postgres::{Books, Client, DatabaseUrl, Ledger as _, LedgerRow, PostgresLedger};
use crm_event_processors::reconcile::state;
use crm_event_processors::rows::{RowChange, Table};
use serde_json::{Value, json};

use super::Database;
use crate::sim::database::{Database as Simulated, burials};

const OPERATIONS: usize = 120;
const SEEDS: u64 = 12;

struct Both {
    real: Database,
    ledger: PostgresLedger,
    books: Books,
    simulated: Simulated,
    dice: fastrand::Rng,
    /// Every image that a row ever had.
    images: Vec<(Table, String)>,
    rules: Vec<Rules>,
    minutes: u64,
}

/// Two merchants: one by what is spent, one by points.
fn rules(rate: &str, rev: u32) -> Rules {
    let version = |metric: &str, policy: &str, missions: Value| {
        json!({"rev": rev, "effective_from": "2020-01-01",
            "currency": {"rate": rate, "rounding": "floor", "minimum": "0",
                "activation": {"kind": "rolling_days", "days": 1}},
            "tiers": {"ladder": [{"name": "silver", "threshold": "100"}, {"name": "gold", "threshold": "300"}],
                "metric": metric, "window": {"kind": "lifetime"}, "timing": "immediate"},
            "missions": missions, "refund_policy": policy})
    };
    let visits = json!([{"id": "visits", "trigger": {"kind": "purchase_count"}, "target": 2, "period": "lifetime"}]);
    let others = json!([
        {"id": "total", "trigger": {"kind": "purchase_total"}, "target": "150.50", "period": "calendar_month"},
        {"id": "welcome", "trigger": {"kind": "form", "form_id": "welcome"}, "target": 1, "period": "lifetime"}]);
    let document = json!({"programs": [
        {"merchant_id": "m-1", "time_zone": "UTC", "versions": [version("spend", "within_balance", visits)]},
        {"merchant_id": "m-2", "time_zone": "UTC", "versions": [version("points", "unlimited", others)]}]});
    let programs = Programs::from_json(&document.to_string()).expect("valid");
    Rules {
        database: true,
        ..Rules::new(Arc::new(programs), None)
    }
}

impl Both {
    async fn new(seed: u64) -> Self {
        let real = Database::new().await;
        let client = Arc::new(Client::new(&DatabaseUrl::parse(&real.url()).expect("an address")).expect("a client"));
        Self {
            ledger: PostgresLedger::new(Arc::clone(&client)),
            books: Books::new(client),
            real,
            simulated: Simulated::default(),
            dice: fastrand::Rng::with_seed(seed),
            images: Vec::new(),
            rules: vec![rules("1", 1), rules("2", 2)],
            minutes: 0,
        }
    }

    /// Both clocks say the same.
    async fn synchronise(&mut self) {
        let now = self
            .real
            .own
            .text("select crm_events.ms(crm_events.clock())::text")
            .await;
        self.simulated.now_ms = now.parse().expect("a number");
    }

    async fn write(&mut self) {
        let n = self.dice.u32(0..4);
        let user = format!("u{}", self.dice.u32(0..2));
        let pick = |dice: &mut fastrand::Rng, of: &[&'static str]| dice.choice(of).copied().expect("not empty");
        let (created, dice) = ("2026-01-15T10:00:00Z", &mut self.dice);
        let merchant = pick(dice, &["m-1", "m-1", "m-2"]);
        let (table, image) = match dice.u32(0..8) {
            0..3 => {
                let status = pick(
                    dice,
                    &["pending", "completed", "partially_refunded", "refunded", "cancelled"],
                );
                let refunded = if status == "partially_refunded" { "5.00" } else { "0.00" };
                let image = json!({"id": format!("p{n}"), "user_id": user, "merchant_id": merchant, "final_amount": "100.00",
                    "refunded_amount": refunded, "status": status, "earn_currency": true, "created_at": created,
                    "completed_at": null});
                (Table::PurchaseLedger, image)
            }
            3 => {
                let status = pick(dice, &["claimed", "revoked"]);
                let image = json!({"id": format!("c{n}"), "user_id": user, "merchant_id": merchant, "mission_id": "visits",
                    "status": status, "period": null, "claimed_at": created});
                (Table::MissionClaims, image)
            }
            4 => {
                let status = pick(dice, &["pending", "qualified", "cancelled"]);
                let referee = format!("u{}", dice.u32(0..3));
                let image = json!({"id": format!("r{n}"), "referrer_user_id": user, "referee_user_id": referee,
                    "merchant_id": merchant, "status": status, "created_at": created});
                (Table::ReferralLedger, image)
            }
            5 => {
                let amount = dice.i64(-20..150);
                let image = json!({"id": format!("a{}", self.images.len()), "user_id": user, "merchant_id": merchant,
                    "amount": amount, "kind": pick(dice, &["adjust", "spend"]), "source_type": null, "source_id": null,
                    "created_at": created});
                (Table::WalletLedger, image)
            }
            6 => {
                let image = json!({"id": format!("f{n}"), "form_id": pick(dice, &["welcome", "other"]), "user_id": user,
                    "merchant_id": merchant, "submitted_at": created});
                (Table::FormSubmissions, image)
            }
            _ => {
                let status = pick(dice, &["issued", "redeemed", "void"]);
                let image = json!({"id": format!("k{n}"), "code": "-", "merchant_id": merchant, "user_id": user,
                    "status": status, "redeemed_at": created});
                (Table::Codes, image)
            }
        };
        let (name, id) = (table.name(), image["id"].as_str().expect("an id").to_owned());
        self.real
            .own
            .run(&format!(
                "delete from public.{name} where id = '{id}'; \
                 insert into public.{name} select * from jsonb_populate_record(null::public.{name}, '{image}')"
            ))
            .await;
        self.simulated.write(table, image.to_string());
        self.images.push((table, image.to_string()));
    }

    /// What a consumer says of some image, new or old.
    fn decide(&mut self, consumers: &[Consumer]) -> Option<(Consumer, RowChange, Vec<Effect>)> {
        let consumer = self.dice.choice(consumers).copied()?;
        let readable: Vec<_> = self.images.iter().filter(|(table, _)| consumer.reads(*table)).collect();
        let (table, image) = self.dice.choice(readable)?;
        let row = LedgerRow {
            id: String::new(),
            image: image.clone(),
            read_at_ms: 1_795_000_000_000 + self.dice.i64(0..1000),
        };
        let change = state::read(*table, &row).expect("a row");
        let rules = self.dice.choice(&self.rules)?;
        match consumers::decide(consumer, &change, rules, jiff::Timestamp::UNIX_EPOCH) {
            Decision::Deliver(effects) => Some((consumer, change, effects.into_iter().collect())),
            Decision::Ignore(_) | Decision::Refuse(_) | Decision::RefuseIfKnown(..) => None,
        }
    }

    async fn operate(&mut self) {
        self.synchronise().await;
        match self.dice.u32(0..20) {
            0..5 => self.write().await,
            5..9 => self.execute().await,
            9..11 => self.settle().await,
            11..13 => self.progress().await,
            13 => self.tiers().await,
            14 => self.compare().await,
            15 => self.heal().await,
            16 => self.bury().await,
            17 if self.dice.bool() => self.announce().await,
            17 => self.look().await,
            18 => self.sweep().await,
            _ => {
                self.minutes += [7, 23, 95, 1441][self.dice.usize(0..4)];
                self.real.own.wait(&format!("{} minutes", self.minutes)).await;
            }
        }
    }

    /// An event is executed.
    async fn execute(&mut self) {
        let events = [Consumer::Currency, Consumer::Reward, Consumer::Marketplace];
        let Some((consumer, _, effects)) = self.decide(&events) else {
            return;
        };
        for effect in effects {
            let data = serde_json::to_value(&effect.event.data).expect("JSON");
            let (function, simulated) = match consumer {
                Consumer::Currency => ("apply_award", self.simulated.apply_award(&data)),
                Consumer::Reward => ("settle_grant", self.simulated.settle_grant(&data)),
                _ => ("settle_code", self.simulated.settle_code(&data)),
            };
            let real = self.real.own.call(function, &data).await;
            for field in ["outcome", "target", "booked"] {
                assert_eq!(simulated.get(field), real.get(field), "{function} {data}");
            }
        }
    }

    async fn settle(&mut self) {
        let keys: Vec<String> = self
            .simulated
            .effects
            .keys()
            .filter(|key| key.starts_with("award:"))
            .cloned()
            .collect();
        let Some(key) = self.dice.choice(keys) else { return };
        let simulated = self.simulated.settle_award(&key);
        let real = self.real.own.settle("settle_award", &key).await;
        for field in ["outcome", "booked_now"] {
            assert_eq!(simulated.get(field), real.get(field), "settle_award {key}");
        }
    }

    async fn progress(&mut self) {
        let mut effects = Vec::new();
        for _ in 0..self.dice.usize(1..4) {
            effects.extend(
                self.decide(&[Consumer::Mission])
                    .into_iter()
                    .flat_map(|(.., effects)| effects),
            );
        }
        let effects: Vec<&Effect> = effects.iter().collect();
        let real = self.ledger.record_progress(&effects).await.expect("recorded");
        let simulated = self.simulated.record_progress(&effects);
        assert_eq!(ids(&simulated), ids(&real));
    }

    async fn tiers(&mut self) {
        let Some((.., effects)) = self.decide(&[Consumer::Tier]) else {
            return;
        };
        let effects: Vec<&Effect> = effects.iter().collect();
        let real = self.ledger.evaluate_tiers(&effects).await.expect("evaluated");
        let simulated = self.simulated.evaluate_tiers(&effects);
        assert_eq!(ids(&simulated), ids(&real));
    }

    async fn compare(&mut self) {
        let compared = [
            Consumer::Currency,
            Consumer::Mission,
            Consumer::Reward,
            Consumer::Marketplace,
        ];
        let Some((.., effects)) = self.decide(&compared) else {
            return;
        };
        let effects: Vec<&Effect> = effects.iter().collect();
        let real = self.ledger.compare(&effects).await.expect("compared");
        assert_eq!(self.simulated.compare(&effects), real, "{effects:?}");
    }

    async fn heal(&mut self) {
        let healed = [Consumer::Currency, Consumer::Reward, Consumer::Marketplace];
        let Some((.., effects)) = self.decide(&healed) else {
            return;
        };
        let effects: Vec<&Effect> = effects.iter().collect();
        let numbers =
            |heals: Vec<crm_event_processors::postgres::Heal>| heals.iter().map(|heal| heal.number).collect::<Vec<_>>();
        let real = numbers(self.books.plan_heals(&effects).await.expect("planned"));
        assert_eq!(numbers(self.simulated.plan_heals(&effects)), real);
        let dead = self.books.still_dead(&effects).await.expect("known");
        assert_eq!(self.simulated.still_dead(&effects), dead);
        if self.dice.bool() {
            let keys: Vec<&str> = effects.iter().map(|effect| effect.key.as_str()).collect();
            self.books.not_healed(&keys).await.expect("noted");
            self.simulated.not_healed(&keys);
        }
    }

    async fn bury(&mut self) {
        let buried = [Consumer::Currency, Consumer::Mission, Consumer::Reward];
        let Some((consumer, change, _)) = self.decide(&buried) else {
            return;
        };
        self.ledger
            .bury(consumer, &change.row, "of a test")
            .await
            .expect("noted");
        let (keys, merchant) = burials(consumer, &change.row).expect("of one row");
        self.simulated.mark_dead(&keys, &change.row, &merchant);
        if self.dice.bool() {
            self.ledger.lift(consumer, &change.row).await.expect("noted");
            self.simulated.lift_dead(&keys, &change.row);
        }
    }

    async fn announce(&mut self) {
        let waiting = self.simulated.unsent(0);
        let Some(one) = self.dice.choice(&waiting) else { return };
        self.ledger.announced(&[&*one.id]).await.expect("noted");
        self.simulated.announced(&[&*one.id]);
    }

    /// What a pass of the reconciler asks, and that it found some effects settled.
    async fn look(&mut self) {
        let told = |mut suspects: Vec<crm_event_processors::postgres::Suspect>| {
            suspects.sort_by(|one, other| one.effect_key.cmp(&other.effect_key));
            let suspects = suspects.into_iter();
            suspects
                .map(|one| (one.effect_key, one.table, one.row_id))
                .collect::<Vec<_>>()
        };
        let real = self.books.suspects(1000).await.expect("told");
        assert_eq!(told(self.simulated.suspects()), told(real));
        assert_eq!(self.simulated.overdue(), self.books.overdue().await.expect("told"));
        let real = self.books.unsent(60, 1000).await.expect("told");
        assert_eq!(ids(&self.simulated.unsent(60)), ids(&real));
        let keys: Vec<String> = self.simulated.effects.keys().cloned().collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).filter(|_| self.dice.bool()).collect();
        let real = self.books.evaluated_at(&keys).await.expect("told");
        let simulated = self.simulated.evaluated_at(&keys);
        assert!(real.keys().eq(simulated.keys()), "{real:?} {simulated:?}");
        let as_of_ms = self.simulated.now_ms - [0, 500_000][self.dice.usize(0..2)];
        self.books.found_settled(&keys, as_of_ms).await.expect("noted");
        self.simulated.found_settled(&keys, as_of_ms);
    }

    async fn sweep(&mut self) {
        let mut real = self
            .real
            .own
            .rows("select due_effects as key from crm_events.due_effects(50)")
            .await;
        let mut simulated: Vec<Value> = self
            .simulated
            .due_effects()
            .into_iter()
            .map(|key| json!({ "key": key }))
            .collect();
        real.sort_by_key(Value::to_string);
        simulated.sort_by_key(Value::to_string);
        assert_eq!(simulated, real);
        for key in real {
            let key = key["key"].as_str().expect("a key");
            let answer = self.real.own.settle("settle", key).await;
            assert_eq!(
                self.simulated.settle(key).get("outcome"),
                answer.get("outcome"),
                "{key}"
            );
        }
    }

    /// Both hold the same.
    async fn check(&self) {
        let real = self
            .real
            .own
            .rows(
                "select effect_key, state, target, booked, booked_user_id, program_rev, heals, basis is not null as has_basis, \
                 stale_at is not null as is_stale, settled_at is not null as is_settled, dead_basis is not null as is_dead, \
                 missed_since is not null as is_missed, \
                 case when kind = 'mission' then trim_scale((detail->>'progress')::numeric)::text end as progress \
                 from crm_events.effects order by effect_key",
            )
            .await;
        let simulated: Vec<Value> = self
            .simulated
            .effects
            .iter()
            .map(|(key, effect)| effect.described(key))
            .collect();
        for (simulated, real) in simulated.iter().zip(&real) {
            assert_eq!(simulated, real);
        }
        assert_eq!(simulated.len(), real.len());
        let real = self
            .real
            .own
            .rows("select id, announced_at is not null as announced from crm_events.announcements")
            .await;
        let mut real: Vec<String> = real.iter().map(Value::to_string).collect();
        let noted = self.simulated.announcements.iter();
        let mut simulated: Vec<String> = noted
            .map(|noted| json!({"id": &*noted.announcement.id, "announced": noted.announced}).to_string())
            .collect();
        real.sort();
        simulated.sort();
        assert_eq!(simulated, real);
        let wallet = "select user_id, amount, kind, source_id from public.wallet_ledger";
        let mut real: Vec<String> = self.real.own.rows(wallet).await.iter().map(Value::to_string).collect();
        let entries = self
            .simulated
            .rows
            .iter()
            .filter(|((table, _), _)| *table == Table::WalletLedger);
        let entry = |stored: &crate::sim::database::Stored| {
            let image: Value = serde_json::from_str(&stored.image).expect("JSON");
            json!({"user_id": image["user_id"], "amount": image["amount"], "kind": image["kind"], "source_id": image["source_id"]})
                .to_string()
        };
        let mut simulated: Vec<String> = entries.map(|(_, stored)| entry(stored)).collect();
        real.sort();
        simulated.sort();
        assert_eq!(simulated, real);
    }
}

fn ids(announcements: &[crm_event_processors::postgres::Announcement]) -> Vec<String> {
    let mut ids: Vec<String> = announcements
        .iter()
        .map(|one| format!("{} {}", one.id, one.name))
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn the_simulated_database_does_what_the_real_one_does() {
    for seed in 1..=SEEDS {
        println!("seed {seed}");
        let mut both = Both::new(seed).await;
        for _ in 0..OPERATIONS {
            both.operate().await;
            both.check().await;
        }
        both.real.done().await;
    }
}
