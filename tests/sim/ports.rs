//! What stands behind a member's ports: takes its calls, gives the shared targets' answers, after the world has had its say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crm_event_processors::consumers::{Consumer, Effect, EffectKey, Rules};
use crm_event_processors::dead_letters::{DeadLetters, Letter, WriteError};
use crm_event_processors::dedupe::memory::MemoryDedupe;
use crm_event_processors::dedupe::{Claim, ClaimKey, Dedupe, DedupeError};
use crm_event_processors::inngest::{Answer, Deliver, EventBatch, EventData, Limits};
use crm_event_processors::pipeline::ReadRules;
use crm_event_processors::postgres::{
    Announcement, Heal, Ledger, LedgerError, LedgerRow, Notes, Place, Standing, Suspect, Told,
};
use crm_event_processors::reconcile::Progress;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::rows::{Row, Table};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::database::{Database, burials};
use super::executor::Executor;
use super::log::Log;
use super::oracle::Oracle;
use super::world::{
    ANNOUNCED, BURY, CLAIM, COMPARE, CONFIRM, DELIVER, EVALUATE, LEASE, LETTER, Life, NOTE, PAGE, PLAN, PROGRESS, Port,
    RULES, Trouble, World,
};

/// What a member's calls need: its life, and everything that outlives it.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) log: Arc<Log>,
    pub(super) executor: Arc<Executor>,
    pub(super) truth: Arc<Mutex<Arc<Rules>>>,
    pub(super) dedupe: Arc<MemoryDedupe>,
    /// The schedule has not calmed down yet.
    pub(super) chaos: Arc<std::sync::atomic::AtomicBool>,
}

impl Outside {
    fn database<T>(&self, work: impl FnOnce(&mut Database) -> T) -> T {
        let mut database = self.executor.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.now_ms = self.world.now_ms();
        work(&mut database)
    }

    async fn call<T>(&self, port: &Port, work: impl FnOnce(&mut Database) -> T) -> Result<T, LedgerError> {
        let answer = self.world.around(&self.life, port, || self.database(work)).await;
        answer.map_err(|trouble| LedgerError::Unavailable(format!("{trouble:?}")))
    }

    fn chaos(&self) -> bool {
        self.chaos.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// What an evaluation led to is owed until it is accepted, by whoever's fact it tells of.
    fn evaluated(&self, effects: &[&Effect], before: usize, database: &Database) {
        for effect in effects {
            let keys: Vec<&str> = match &effect.event.data {
                EventData::MissionEvaluationRequested(data) => {
                    data.missions.iter().map(|share| share.effect_key.as_str()).collect()
                }
                _ => vec![effect.key.as_str()],
            };
            let wrote = database
                .announcements
                .iter()
                .skip(before)
                .map(|noted| &noted.announcement);
            let wrote = wrote.filter(|announcement| keys.contains(&&*announcement.effect_key));
            let wrote: Vec<String> = wrote.map(|announcement| announcement.id.to_string()).collect();
            self.oracle.evaluated(&claims_of(effect), &wrote);
        }
    }
}

/// A tier evaluation covers the claims of all its triggers.
fn claims_of(effect: &Effect) -> Vec<String> {
    let mut claims = vec![effect.claim.as_str().to_owned()];
    if let EventData::TierEvaluationRequested(data) = &effect.event.data {
        for change in data.triggers.iter().map(|trigger| &trigger.change) {
            let claim = ClaimKey::new("tier", "evaluation", change.table, &change.row_id, change.version);
            claims.push(claim.as_str().to_owned());
        }
    }
    claims
}

impl Ledger for Outside {
    fn compare<'a>(&'a self, effects: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Standing>, LedgerError>> {
        async move {
            let standings = self.call(&COMPARE, |database| database.compare(effects)).await?;
            for (effect, standing) in effects.iter().zip(&standings) {
                let is_settled = match standing {
                    Standing::Equal => true,
                    Standing::Absent | Standing::Zero => effect.fact().target == 0,
                    Standing::Differs => false,
                };
                // Asked of the oracle's own: what is there is there, whatever the answer says.
                if is_settled && self.database(|database| is_in_effects(database, effect)) {
                    self.oracle.settled(effect.claim.as_str());
                }
            }
            Ok(standings)
        }
        .boxed()
    }

    fn evaluate_tiers<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        self.call(&EVALUATE, |database| {
            let before = database.announcements.len();
            let answer = database.evaluate_tiers(effects);
            self.evaluated(effects, before, database);
            answer
        })
        .boxed()
    }

    fn record_progress<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        self.call(&PROGRESS, |database| {
            let before = database.announcements.len();
            let answer = database.record_progress(effects);
            self.evaluated(effects, before, database);
            answer
        })
        .boxed()
    }

    fn announced<'a>(&'a self, ids: &'a [&'a str]) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.call(&ANNOUNCED, |database| database.announced(ids)).boxed()
    }

    fn announcement_rejected<'a>(&'a self, id: &'a str, _reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.call(&ANNOUNCED, |database| database.reject(id)).boxed()
    }

    fn knows<'a>(&'a self, key: &'a EffectKey) -> BoxFuture<'a, Result<bool, LedgerError>> {
        self.call(&COMPARE, |database| database.effects.contains_key(key.as_str()))
            .boxed()
    }

    fn lift<'a>(&'a self, consumer: Consumer, row: &'a Row) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.call(&BURY, move |database| {
            if let Some((keys, _)) = burials(consumer, row) {
                database.lift_dead(&keys, row);
            }
        })
        .boxed()
    }

    fn bury<'a>(
        &'a self,
        consumer: Consumer,
        row: &'a Row,
        _reason: &'a str,
    ) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.call(&BURY, move |database| {
            if let Some((keys, merchant)) = burials(consumer, row) {
                database.mark_dead(&keys, row, &merchant);
            }
        })
        .boxed()
    }
}

/// Whether the table `effects` shows that nothing is owed: this very basis is there, decided by these rules, by newer ones or
/// to the same end; or nothing, where nothing is due (SPEC section 4, old-record check).
fn is_in_effects(database: &Database, decided: &Effect) -> bool {
    let fact = decided.fact();
    match database.effects.get(fact.effect_key.as_str()) {
        None => fact.target == 0,
        Some(effect) if effect.target == 0 && effect.booked == 0 && fact.target == 0 => true,
        Some(effect) => {
            let is_decided = effect.rev >= i64::from(fact.program_rev) || effect.target == fact.target;
            effect.state != "dead" && is_decided && effect.basis == super::database::basis_of_fact(&fact)
        }
    }
}

impl Notes for Outside {
    fn take_lease<'a>(&'a self, name: &'a str, owner: &'a str, seconds: i32) -> Told<'a, bool> {
        self.call(&LEASE, move |database| database.take_lease(name, owner, seconds))
            .boxed()
    }

    fn drop_lease<'a>(&'a self, name: &'a str, owner: &'a str) -> Told<'a, ()> {
        self.call(&LEASE, move |database| database.drop_lease(name, owner))
            .boxed()
    }

    fn page<'a>(&'a self, table: Table, after: Option<&'a str>, max: i32) -> Told<'a, Vec<LedgerRow>> {
        self.call(&PAGE, move |database| database.page(table, after, None, max))
            .boxed()
    }

    fn recent<'a>(
        &'a self,
        table: Table,
        since_ms: i64,
        after: Option<&'a Place>,
        _max: i32,
    ) -> Told<'a, (Vec<LedgerRow>, Option<Place>)> {
        self.call(&PAGE, move |database| {
            // The first page has everything.
            let max = if after.is_none() { i32::MAX } else { 0 };
            let rows = database.page(table, None, Some(since_ms), max);
            let ended = rows.last().map(|row| Place {
                time: String::new(),
                id: row.id.clone(),
            });
            (rows, ended)
        })
        .boxed()
    }

    fn rows_of<'a>(&'a self, table: Table, ids: &'a [&'a str]) -> Told<'a, Vec<LedgerRow>> {
        self.call(&PAGE, move |database| database.rows_of(table, ids)).boxed()
    }

    fn suspects(&self, _max: i32) -> Told<'_, Vec<Suspect>> {
        self.call(&PAGE, Database::suspects).boxed()
    }

    fn plan_heals<'a>(&'a self, effects: &'a [&'a Effect]) -> Told<'a, Vec<Heal>> {
        self.call(&PLAN, |database| database.plan_heals(effects)).boxed()
    }

    fn still_dead<'a>(&'a self, effects: &'a [&'a Effect]) -> Told<'a, Vec<bool>> {
        self.call(&PAGE, |database| database.still_dead(effects)).boxed()
    }

    fn not_healed<'a>(&'a self, keys: &'a [&'a str]) -> Told<'a, ()> {
        self.call(&NOTE, |database| database.not_healed(keys)).boxed()
    }

    fn found_settled<'a>(&'a self, keys: &'a [&'a str], as_of_ms: i64) -> Told<'a, ()> {
        self.call(&NOTE, move |database| database.found_settled(keys, as_of_ms))
            .boxed()
    }

    fn unsent(&self, older_than_s: i32, _max: i32) -> Told<'_, Vec<Announcement>> {
        self.call(&PAGE, move |database| database.unsent(older_than_s)).boxed()
    }

    fn bookmark<'a>(&'a self, name: &'a str) -> Told<'a, Option<String>> {
        self.call(&PAGE, |database| database.bookmark(name)).boxed()
    }

    fn turn_page<'a>(&'a self, name: &'a str, after: Option<&'a str>) -> Told<'a, ()> {
        self.call(&NOTE, move |database| database.turn_page(name, after))
            .boxed()
    }

    fn overdue(&self) -> Told<'_, i64> {
        self.call(&PAGE, |database| database.overdue()).boxed()
    }

    fn evaluated_at<'a>(&'a self, keys: &'a [&'a str]) -> Told<'a, BTreeMap<String, i64>> {
        self.call(&PAGE, |database| database.evaluated_at(keys)).boxed()
    }
}

impl Deliver for Outside {
    fn send<'a>(&'a self, batch: &'a EventBatch, events: Range<usize>) -> BoxFuture<'a, Answer> {
        async move {
            let lost = |detail: &str| Answer::Unavailable {
                detail: detail.to_owned(),
                retry_after: None,
            };
            let had = self.log.owned(&self.life.name);
            let answer = self
                .world
                .around(&self.life, &DELIVER, || self.accept(batch, events, &had));
            match answer.await {
                Ok(answer) => answer,
                Err(Trouble::Refused) => lost("refused"),
                Err(Trouble::Lost) => lost("lost"),
            }
        }
        .boxed()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}

impl Outside {
    fn accept(&self, batch: &EventBatch, events: Range<usize>, had: &BTreeMap<TopicPartition, u64>) -> Answer {
        if self.chaos() && self.world.die(200) == 0 {
            self.world.fault("inngest:throttled");
            return Answer::Unavailable {
                detail: "429".to_owned(),
                retry_after: Some(std::time::Duration::from_secs(2)),
            };
        }
        if self.chaos() && self.world.die(200) == 0 {
            self.world.fault("inngest:puzzled");
            if events.len() == 1 {
                self.oracle.left_to_the_reconciler(batch.event(events.start));
            }
            return Answer::Unknown {
                status: 418,
                detail: "puzzled".to_owned(),
            };
        }
        // A request that outlives its assignment comes when it comes: the next owner may be further, or read again. SPEC section
        // 3, rebalance, ignores its end; section 5 has the effects converge in any order.
        let mut owned = self.log.owned(&self.life.name);
        owned.retain(|place, assignment| had.get(place) == Some(assignment));
        let owned: BTreeSet<TopicPartition> = owned.into_keys().collect();
        let rejects_at = (self.chaos() && self.world.die(200) == 0).then(|| self.world.die(events.len()));
        let rejected = |detail: &str| Answer::Rejected {
            status: 400,
            detail: detail.to_owned(),
        };
        for (place, index) in events.clone().enumerate() {
            // Rejected as a whole once, what stands before is accepted; alone it is taken.
            if events.len() > 1 && rejects_at == Some(place) {
                self.world.fault("inngest:prefix");
                return rejected("for now");
            }
            match self.executor.accept(batch.event(index), self.chaos()) {
                Some(id) => self.oracle.accepted(&id, Some((&self.life.name, &owned))),
                None => return rejected("wrong for ever"),
            }
        }
        Answer::Accepted
    }
}

impl Dedupe for Outside {
    fn claim<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<Vec<Claim>, DedupeError>> {
        async move {
            let inner = self
                .world
                .around(&self.life, &CLAIM, || self.dedupe.claim(keys).now_or_never())
                .await;
            let claims = answered(inner)?;
            for (key, claim) in keys.iter().zip(&claims) {
                self.world
                    .tell(format_args!("{} claims {key}: {claim:?}", self.life.name));
            }
            Ok(claims)
        }
        .boxed()
    }

    fn confirm<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<(), DedupeError>> {
        async move {
            let inner = self
                .world
                .around(&self.life, &CONFIRM, || self.dedupe.confirm(keys).now_or_never())
                .await;
            if inner.is_ok() {
                for key in keys {
                    self.world.tell(format_args!("{} confirms {key}", self.life.name));
                }
            }
            answered(inner)
        }
        .boxed()
    }

    fn lease(&self) -> std::time::Duration {
        self.dedupe.lease()
    }
}

fn answered<T>(inner: Result<Option<Result<T, DedupeError>>, Trouble>) -> Result<T, DedupeError> {
    match inner {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(DedupeError::Unavailable("busy".to_owned())),
        Err(trouble) => Err(DedupeError::Unavailable(format!("{trouble:?}"))),
    }
}

impl DeadLetters for Outside {
    fn write<'a>(&'a self, letter: &'a Letter<'a>) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let written = self.world.around(&self.life, &LETTER, || {
                letter.record.with(|record| {
                    self.oracle
                        .buried(letter.queue, record.topic, record.partition, record.offset);
                    let (topic, offset, reason) = (record.topic, record.offset, letter.reason);
                    self.world.tell(format_args!("letter of {topic}@{offset}: {reason}"));
                });
            });
            written.await.map_err(|trouble| WriteError::Unavailable {
                topic: letter.queue.name().to_owned(),
                cause: format!("{trouble:?}"),
            })
        }
        .boxed()
    }
}

impl ReadRules for Outside {
    fn read(&mut self) -> BoxFuture<'_, Result<Arc<Rules>, LedgerError>> {
        async move {
            let truth = Arc::clone(&self.truth);
            let read = self.world.around(&self.life, &RULES, || {
                Arc::clone(&truth.lock().unwrap_or_else(PoisonError::into_inner))
            });
            read.await
                .map_err(|trouble| LedgerError::Unavailable(format!("{trouble:?}")))
        }
        .boxed()
    }
}

impl Progress for Outside {
    fn behind(&self, time_ms: i64) -> BoxFuture<'_, Result<Option<String>, String>> {
        async move { Ok(self.log.behind_time(time_ms)) }.boxed()
    }
}
