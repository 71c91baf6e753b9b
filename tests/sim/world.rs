//! What decides: the dice of one seed, the faults in force, the story. Takes calls on their way to a target, says what they meet.
//!
//! Every call of a port asks before and after its effect ([`World::around`]); the world may let it pass, slow it down, refuse
//! it, lose its answer, or have the member die there. A dead member's calls never return and have no effect any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crm_event_processors::clock::{Clock as _, TokioClock};
use tokio::sync::Notify;

/// One incarnation of a member.
pub(super) struct Life {
    pub(super) name: String,
    dead: AtomicBool,
    died: Notify,
}

impl Life {
    pub(super) fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            dead: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Returns when it has died; once.
    pub(super) async fn died(&self) {
        self.died.notified().await;
    }
}

/// What is called, and the names of what may happen there.
pub(super) struct Port {
    pub(super) target: Target,
    sites: [&'static str; 5],
}

macro_rules! ports {
    ($($name:ident = $target:ident, $text:literal;)*) => {
        $(pub(super) const $name: Port = Port {
            target: Target::$target,
            sites: [
                concat!($text, ":before"), concat!($text, ":after"), concat!($text, ":refused"),
                concat!($text, ":lost"), concat!($text, ":slow"),
            ],
        };)*
        const PORTS: &[Port] = &[$($name,)*];
    };
}

ports! {
    CLAIM = Redis, "claim";
    CONFIRM = Redis, "confirm";
    DELIVER = Inngest, "deliver";
    LETTER = Kafka, "letter";
    COMMIT = Kafka, "commit";
    LAST_COMMIT = Kafka, "last_commit";
    COMPARE = Postgres, "compare";
    EVALUATE = Postgres, "evaluate_tiers";
    PROGRESS = Postgres, "record_progress";
    ANNOUNCED = Postgres, "announced";
    BURY = Postgres, "mark_dead";
    RULES = Postgres, "rules";
    LEASE = Postgres, "lease";
    PAGE = Postgres, "page";
    PLAN = Postgres, "plan_heals";
    NOTE = Postgres, "note";
    STEP = Postgres, "workflow_step";
}

/// Faults of the schedule rather than of a call.
pub(super) const EVENTS: [&str; 32] = [
    "member:killed",
    "member:stopped",
    "member:uneven",
    "member:killed_in_revocation",
    "revoke:patient",
    "revoke:impatient",
    "revoke:lost",
    "revoke:bounced",
    "redis:flushed",
    "redis:forgot",
    "clock:minutes",
    "clock:days",
    "connector:repeats",
    "connector:snapshot",
    "connector:slot_lost",
    "connector:no_before",
    "log:gap",
    "log:poison",
    "program:new",
    "program:revised",
    "inngest:throttled",
    "inngest:puzzled",
    "inngest:prefix",
    "run:never",
    "run:twice",
    "run:cancelled",
    "outage:redis",
    "outage:postgres",
    "outage:inngest",
    "slow:redis",
    "slow:postgres",
    "slow:inngest",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Redis,
    Inngest,
    Postgres,
    Kafka,
}

/// Every place at which something can go wrong.
pub(super) fn all_sites() -> impl Iterator<Item = &'static str> {
    let of_calls = PORTS.iter().flat_map(|port| {
        // Nobody refuses to die: a workflow's step has no member, and what cannot be lost is not.
        port.sites.into_iter().filter(|site| !IMPOSSIBLE.contains(site))
    });
    of_calls.chain(EVENTS)
}

/// A workflow step belongs to no member.
const IMPOSSIBLE: [&str; 2] = ["workflow_step:after", "workflow_step:slow"];

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Refused,
    /// Done, but nobody was told.
    Lost,
}

/// How often calls meet what, in millionths.
#[derive(Debug, Clone, Copy, Default)]
struct Mood {
    crash: u32,
    refuse: u32,
    lose: u32,
    slow: u32,
}

pub(super) struct World {
    clock: TokioClock,
    state: Mutex<State>,
}

struct State {
    dice: fastrand::Rng,
    mood: Mood,
    /// Until when a target is away, ms; or takes its time.
    away: BTreeMap<Target, i64>,
    slow: BTreeMap<Target, i64>,
    sites: BTreeMap<&'static str, u64>,
    faults: u64,
    hash: u64,
    story: Option<Vec<String>>,
    violations: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, start: jiff::Timestamp, with_story: bool) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        // Some schedules are rough, some meet one kind of fault often and no other.
        let mut rate = |often: u32| if dice.u8(0..3) == 0 { 0 } else { dice.u32(0..often) };
        let mood = Mood {
            crash: rate(8_000),
            refuse: rate(40_000),
            lose: rate(40_000),
            slow: rate(60_000),
        };
        Self {
            clock: TokioClock::starting_at(start),
            state: Mutex::new(State {
                dice,
                mood,
                away: BTreeMap::new(),
                slow: BTreeMap::new(),
                sites: BTreeMap::new(),
                faults: 0,
                hash: 0xcbf2_9ce4_8422_2325,
                story: with_story.then(Vec::new),
                violations: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> TokioClock {
        self.clock
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// From 0 up to `below`.
    pub(super) fn die(&self, below: usize) -> usize {
        self.state().dice.usize(0..below.max(1))
    }

    pub(super) fn chance(&self, percent: u32) -> bool {
        self.state().dice.u32(0..100) < percent
    }

    pub(super) fn seed(&self) -> u64 {
        self.state().dice.u64(..)
    }

    pub(super) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.die(of.len()))
    }

    /// Something happened. Two runs of one seed tell the same story.
    pub(super) fn tell(&self, what: std::fmt::Arguments<'_>) {
        struct Hashed(u64);
        impl std::fmt::Write for Hashed {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                Ok(())
            }
        }
        let now_ms = self.now_ms();
        let state = &mut *self.state();
        let mut hashed = Hashed(state.hash);
        let _infallible = std::fmt::write(&mut hashed, format_args!("{now_ms} {what}\n"));
        state.hash = hashed.0;
        if let Some(story) = &mut state.story {
            story.push(format!("{now_ms} {what}"));
        }
    }

    pub(super) fn fault(&self, site: &'static str) {
        self.tell(format_args!("fault {site}"));
        let mut state = self.state();
        *state.sites.entry(site).or_default() += 1;
        state.faults += 1;
    }

    pub(super) fn violated(&self, what: String) {
        self.tell(format_args!("VIOLATED {what}"));
        self.state().violations.push(what);
    }

    pub(super) fn is_violated(&self) -> bool {
        !self.state().violations.is_empty()
    }

    pub(super) fn faults(&self) -> u64 {
        self.state().faults
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn calm(&self) {
        let mut state = self.state();
        state.mood = Mood::default();
        state.away.clear();
        state.slow.clear();
    }

    pub(super) fn outage(&self, target: Target, lasts_ms: i64) {
        let until = self.now_ms() + lasts_ms;
        self.state().away.insert(target, until);
    }

    pub(super) fn slow_down(&self, target: Target, lasts_ms: i64) {
        let until = self.now_ms() + lasts_ms;
        self.state().slow.insert(target, until);
    }

    fn is_slow(&self, target: Target) -> bool {
        let now_ms = self.now_ms();
        self.state().slow.get(&target).is_some_and(|until| *until > now_ms)
    }

    pub(super) fn verdict(&self) -> (Vec<String>, u64, BTreeMap<&'static str, u64>, u64, Vec<String>) {
        let mut state = self.state();
        let violations = std::mem::take(&mut state.violations);
        let sites = std::mem::take(&mut state.sites);
        let story = state.story.take().unwrap_or_default();
        (violations, state.hash, sites, state.faults, story)
    }

    fn rolls(&self, rate: impl Fn(&Mood) -> u32) -> bool {
        let state = &mut *self.state();
        let rate = rate(&state.mood);
        rate > 0 && state.dice.u32(0..1_000_000) < rate
    }

    fn is_away(&self, target: Target) -> bool {
        let now_ms = self.now_ms();
        self.state().away.get(&target).is_some_and(|until| *until > now_ms)
    }

    async fn die_at(&self, life: &Life, site: &'static str) {
        if !life.is_dead() {
            self.tell(format_args!("{} dies", life.name));
            self.fault(site);
            life.kill();
        }
        std::future::pending::<()>().await;
    }

    /// A call on behalf of a member, with all that may happen to it.
    pub(super) async fn around<T>(&self, life: &Life, port: &Port, work: impl FnOnce() -> T) -> Result<T, Trouble> {
        let [before, after, refused, lost, slow] = port.sites;
        if life.is_dead() || self.rolls(|mood| mood.crash) {
            self.die_at(life, before).await;
        }
        let mut waits_ms = 0;
        if self.rolls(|mood| mood.slow) {
            self.fault(slow);
            waits_ms = [3, 40, 700, 4_000, 11_000].get(self.die(5)).copied().unwrap_or(1);
        } else if self.is_slow(port.target) {
            waits_ms = 50 + u64::try_from(self.die(900)).unwrap_or(0);
        }
        if waits_ms > 0 {
            tokio::time::sleep(Duration::from_millis(waits_ms)).await;
            if life.is_dead() {
                std::future::pending::<()>().await;
            }
        }
        if self.is_away(port.target) {
            return Err(Trouble::Refused);
        }
        if self.rolls(|mood| mood.refuse) {
            self.fault(refused);
            return Err(Trouble::Refused);
        }
        let done = work();
        self.tell(format_args!("{} did {after}", life.name));
        if self.rolls(|mood| mood.crash) {
            self.die_at(life, after).await;
        }
        if self.rolls(|mood| mood.lose) {
            self.fault(lost);
            return Err(Trouble::Lost);
        }
        Ok(done)
    }

    /// A step of a workflow: no member, but whoever executes it may fail before, or lose the answer.
    pub(super) fn step<T>(&self, work: impl FnOnce() -> T) -> Result<T, Trouble> {
        let [before, _, refused, lost, _] = STEP.sites;
        if self.rolls(|mood| mood.crash) {
            self.fault(before);
            return Err(Trouble::Refused);
        }
        if self.is_away(Target::Postgres) {
            return Err(Trouble::Refused);
        }
        if self.rolls(|mood| mood.refuse) {
            self.fault(refused);
            return Err(Trouble::Refused);
        }
        let done = work();
        if self.rolls(|mood| mood.lose) {
            self.fault(lost);
            return Err(Trouble::Lost);
        }
        Ok(done)
    }
}
