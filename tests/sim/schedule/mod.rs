//! One schedule: from a seed to a verdict. Members come, die and come back; rows are written; partitions move; time jumps.
//!
//! First the faults, at least three of them over at least fifty records; then calm, until nothing is left to be done; then
//! the books.

mod members;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dedupe::memory::MemoryStore;
use crm_event_processors::rows::Table;

use super::application::{Application, PARTITIONS, topic_of};
use super::books;
use super::database::Database;
use super::executor::Executor;
use super::log::Log;
use super::oracle::Oracle;
use super::truths::Truths;
use super::world::{Target, World};
use members::Member;

/// What came of a schedule.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) violations: Vec<String>,
    /// Of everything that happened, in its order.
    pub(super) hash: u64,
    pub(super) sites: BTreeMap<&'static str, u64>,
    pub(super) faults: u64,
    pub(super) records: usize,
    pub(super) story: Vec<String>,
}

/// What a schedule has at least, unless a violation cuts it short.
pub(super) const RECORDS: usize = 50;
pub(super) const FAULTS: u64 = 3;
/// 2026-11-20T12:00:00Z.
const START_MS: i64 = 1_795_176_000_000;

struct Schedule {
    world: Arc<World>,
    log: Arc<Log>,
    oracle: Arc<Oracle>,
    executor: Arc<Executor>,
    database: Arc<Mutex<Database>>,
    truth: Arc<Mutex<Arc<Rules>>>,
    truths: Arc<Truths>,
    application: Application,
    store: MemoryStore,
    chaos: Arc<AtomicBool>,
    members: Vec<Member>,
    most: usize,
    started: usize,
}

/// Runs one schedule on a runtime of its own.
pub(super) fn simulate(seed: u64, truths: &Arc<Truths>, with_story: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime");
    let truths = Arc::clone(truths);
    runtime.block_on(async move {
        let mut schedule = Schedule::new(seed, truths, with_story);
        schedule.disturb().await;
        if !schedule.world.is_violated() {
            schedule.calm_down().await;
        }
        let records = schedule.oracle.records();
        schedule.end().await;
        let (violations, hash, sites, faults, story) = schedule.world.verdict();
        Report {
            seed,
            violations,
            hash,
            sites,
            faults,
            records,
            story,
        }
    })
}

impl Schedule {
    fn new(seed: u64, truths: Arc<Truths>, with_story: bool) -> Self {
        let start = jiff::Timestamp::from_millisecond(START_MS).expect("in range");
        let world = Arc::new(World::new(seed, start, with_story));
        let topics: Vec<String> = Table::ALL.into_iter().map(topic_of).collect();
        let oracle = Arc::new(Oracle::new(Arc::clone(&world), topics.clone()));
        let log = Arc::new(Log::new(Arc::clone(&world), Arc::clone(&oracle), &topics, PARTITIONS));
        let database = Arc::new(Mutex::new(Database::default()));
        let truth = Arc::new(Mutex::new(Arc::clone(&truths.first)));
        Self {
            application: Application::new(&world, &log, &oracle, &database, &truth),
            executor: Arc::new(Executor::new(Arc::clone(&world), Arc::clone(&database))),
            most: 2 + world.die(2),
            world,
            log,
            oracle,
            database,
            truth,
            truths,
            store: MemoryStore::default(),
            chaos: Arc::new(AtomicBool::new(true)),
            members: Vec::new(),
            started: 0,
        }
    }

    async fn disturb(&mut self) {
        for _ in 0..self.most {
            let consumers = self.consumers();
            self.start(consumers);
        }
        self.share_out();
        let steps = 25 + self.world.die(15);
        let mut done = 0;
        while (done < steps || self.world.faults() < FAULTS) && !self.world.is_violated() {
            done += 1;
            self.act().await;
            let most = [1, 4, 20, 200].get(self.world.die(4)).copied().unwrap_or(1);
            for member in self.members.iter().filter(|_| self.world.chance(70)) {
                self.log.fetch(&member.membership, most);
            }
            for _ in 0..self.world.die(4) {
                self.executor.step();
            }
            self.pass_time().await;
            self.bury().await;
        }
    }

    async fn act(&mut self) {
        match self.world.die(100) {
            0..40 => {
                let tables = [
                    Table::PurchaseLedger,
                    Table::PurchaseLedger,
                    Table::PurchaseLedger,
                    Table::PurchaseLedger,
                    Table::WalletLedger,
                    Table::FormSubmissions,
                    Table::MissionClaims,
                    Table::ReferralLedger,
                    Table::Codes,
                ];
                for _ in 0..=self.world.die(6) {
                    let table = *self.world.pick(&tables).unwrap_or(&Table::Codes);
                    self.application.write(table);
                }
                self.application.connect(1 + self.world.die(10));
            }
            40..45 => self.rebalance().await,
            45..52 => self.bounce().await,
            52..57 => self.crash(),
            57..60 => self.stop_one().await,
            60..64 => self.application.repeat(),
            64..66 => self.application.snapshot(self.world.chance(50)),
            66..70 => {
                self.world.fault("redis:flushed");
                self.store.flush_all();
            }
            70..74 => {
                self.world.fault("redis:forgot");
                let odd = self.world.seed() | 1;
                self.store
                    .retain(|key| (key.as_str().len() as u64).wrapping_mul(odd) & 4 == 0);
            }
            74..78 => self.outage(),
            78..80 => self.slow_down(),
            80..83 => self.new_program(),
            83..87 => self.executor.sweep(),
            87..93 => self.reconcile().await,
            _ => self.start_missing(),
        }
    }

    /// A target is away for a while.
    fn outage(&self) {
        let (site, target) = [
            ("outage:redis", Target::Redis),
            ("outage:postgres", Target::Postgres),
            ("outage:inngest", Target::Inngest),
        ][self.world.die(3)];
        self.world.fault(site);
        self.world
            .outage(target, 1000 + i64::try_from(self.world.die(20_000)).unwrap_or(0));
    }

    /// A target takes its time for a while.
    fn slow_down(&self) {
        let (site, target) = [
            ("slow:redis", Target::Redis),
            ("slow:postgres", Target::Postgres),
            ("slow:inngest", Target::Inngest),
        ][self.world.die(3)];
        self.world.fault(site);
        self.world
            .slow_down(target, 1000 + i64::try_from(self.world.die(10_000)).unwrap_or(0));
    }

    fn new_program(&mut self) {
        let truth = &mut *self.truth.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(truth, &self.truths.first) {
            self.world.fault("program:new");
            *truth = Arc::clone(&self.truths.with_late);
            self.application.merchants.extend(["m-late", "m-late", "m-none"]);
        } else if Arc::ptr_eq(truth, &self.truths.with_late) {
            self.world.fault("program:revised");
            *truth = Arc::clone(&self.truths.revised);
        }
    }

    async fn pass_time(&self) {
        let ms =
            |from: u64, below: usize| Duration::from_millis(from + u64::try_from(self.world.die(below)).unwrap_or(0));
        match self.world.die(100) {
            0..10 => {}
            10..70 => tokio::time::sleep(ms(1, 300)).await,
            70..90 => tokio::time::sleep(ms(300, 3000)).await,
            90..95 => tokio::time::sleep(ms(9_000, 3000)).await,
            95..99 => {
                self.world.fault("clock:minutes");
                tokio::time::advance(ms(60_000, 1_800_000)).await;
            }
            _ => {
                self.world.fault("clock:days");
                tokio::time::advance(ms(86_400_000, 200_000_000)).await;
            }
        }
    }

    /// No more faults: everything comes to its end, or it is a violation.
    async fn calm_down(&mut self) {
        self.world.calm();
        self.chaos.store(false, Ordering::SeqCst);
        self.world.tell(format_args!("calm"));
        self.application.is_calm = true;
        self.bury().await;
        let (uneven, full): (Vec<_>, Vec<_>) = std::mem::take(&mut self.members)
            .into_iter()
            .partition(|member| member.consumers.len() < Consumer::ALL.len());
        self.members = full;
        for member in uneven {
            self.stop(member).await;
        }
        if self.members.is_empty() {
            self.start(Consumer::ALL.to_vec());
        }
        self.share_out();
        self.application.connect(usize::MAX);
        while self.oracle.records() < RECORDS {
            self.application
                .write(*self.world.pick(&Table::ALL).unwrap_or(&Table::Codes));
            self.application.connect(usize::MAX);
        }
        let mut open = Vec::new();
        for round in 0..14 {
            self.work_off().await;
            self.executor.sweep();
            self.reconcile().await;
            self.work_off().await;
            if self.world.is_violated() {
                return;
            }
            open = self.open();
            if round > 0 && open.is_empty() {
                return;
            }
            let quarter = 16 * 60_000;
            let longer = [quarter, quarter, quarter, 3_600_000, 6 * 3_600_000, 24 * 3_600_000];
            let wait = longer.get(round).copied().unwrap_or(quarter);
            let next = self
                .executor
                .next_wake_ms()
                .map_or(0, |wake| wake - self.world.now_ms());
            let wait = u64::try_from(wait.max(next)).unwrap_or(0);
            tokio::time::advance(Duration::from_millis(wait)).await;
        }
        for what in open.into_iter().take(5) {
            self.world.violated(format!("for ever: {what}"));
        }
    }

    /// Until nothing moves any more.
    async fn work_off(&mut self) {
        for turn in 0..80 {
            self.application.connect(usize::MAX);
            for member in &self.members {
                self.log.fetch(&member.membership, 1000);
            }
            while self.executor.step() {}
            if turn > 0 && self.log.behind().is_empty() && self.application.is_connected() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(if turn < 12 { 260 } else { 5_000 })).await;
            self.bury().await;
        }
    }

    /// What is still to be done, or will never be.
    fn open(&self) -> Vec<String> {
        let mut open: Vec<String> = self
            .log
            .behind()
            .iter()
            .map(|place| format!("{place:?} is not committed"))
            .collect();
        open.extend(self.oracle.unfinished());
        let rules = Arc::clone(&self.truth.lock().unwrap_or_else(PoisonError::into_inner));
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend(books::differences(&database, &rules));
        open
    }
}
