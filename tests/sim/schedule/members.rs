//! Members of the group: how they start, die, are stopped, win and lose partitions, and run the reconciler.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::debezium::DecimalMode;
use crm_event_processors::dedupe::memory::MemoryDedupe;
use crm_event_processors::pipeline::{self, Exit, OldRecords, Options, Ports, Randomness, RuleBook};
use crm_event_processors::progress::ConsumerSet;
use crm_event_processors::reconcile::Reconciler;
use crm_event_processors::rows::Table;
use crm_event_processors::telemetry::Telemetry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::log::{Membership, Revocation};
use super::super::ports::Outside;
use super::super::world::Life;
use super::Schedule;

pub(super) struct Member {
    pub(super) membership: Membership,
    outside: Outside,
    ports: Ports,
    pub(super) consumers: Vec<Consumer>,
    shutdown: CancellationToken,
    task: JoinHandle<Exit>,
}

impl Schedule {
    pub(super) fn start(&mut self, consumers: Vec<Consumer>) {
        self.started += 1;
        let life = Life::new(format!("m{}", self.started));
        let owner = life.name.clone();
        let outside = Outside {
            world: Arc::clone(&self.world),
            life: Arc::clone(&life),
            oracle: Arc::clone(&self.oracle),
            log: Arc::clone(&self.log),
            executor: Arc::clone(&self.executor),
            truth: Arc::clone(&self.truth),
            dedupe: Arc::new(MemoryDedupe::shared(self.store.clone(), &owner)),
            chaos: Arc::clone(&self.chaos),
        };
        let shared = Arc::new(outside.clone());
        // The last good snapshot: it may be older than the truth.
        let rules = Arc::clone(&self.truths.first);
        let ports = Ports {
            dedupe: shared.clone(),
            deliver: shared.clone(),
            ledger: Some(shared.clone()),
            dead_letters: shared,
            clock: Arc::new(self.world.clock()),
            randomness: Arc::new(Randomness::seeded(self.world.seed())),
            rules: RuleBook::refreshed(rules, None, Box::new(outside.clone())),
            old_records: OldRecords::Deliver,
            decisions: None,
            telemetry: Telemetry::new().map(Arc::new).expect("instruments"),
        };
        let set: ConsumerSet = consumers.iter().copied().collect();
        let (handle, membership) = self.log.join(&life, set);
        let options = Options {
            consumers: consumers
                .iter()
                .map(|consumer| (*consumer, 1 + self.world.die(2)))
                .collect(),
            decimals: DecimalMode::Text,
            commit_interval: Duration::from_millis(250),
            revoke_deadline: Duration::from_secs(8),
            drain_deadline: Duration::from_secs(25),
            max_records: 1000,
            max_bytes: 10_000_000,
            accept_dead_letters: false,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(pipeline::run(options, handle, ports.clone(), shutdown.clone()));
        self.world.tell(format_args!("{owner} starts with {consumers:?}"));
        self.members.push(Member {
            membership,
            outside,
            ports,
            consumers,
            shutdown,
            task,
        });
    }

    pub(super) fn consumers(&self) -> Vec<Consumer> {
        if self.world.chance(15) {
            self.world.fault("member:uneven");
            let left_out = self.world.die(Consumer::ALL.len());
            return Consumer::ALL
                .into_iter()
                .filter(|consumer| consumer.index() != left_out)
                .collect();
        }
        Consumer::ALL.to_vec()
    }

    pub(super) fn start_missing(&mut self) {
        if self.members.len() < self.most {
            let consumers = self.consumers();
            self.start(consumers);
        }
        self.share_out();
    }

    /// Partitions that nobody has go to members, evenly as the dice fall.
    pub(super) fn share_out(&self) {
        let mut given: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        if self.members.is_empty() {
            return;
        }
        for place in self.log.orphans() {
            given.entry(self.world.die(self.members.len())).or_default().push(place);
        }
        for (index, places) in given {
            if let Some(member) = self.members.get(index) {
                self.log.assign(&member.membership, &places);
            }
        }
    }

    pub(super) async fn rebalance(&mut self) {
        let Some(member) = self.members.get(self.world.die(self.members.len())) else {
            return self.start_missing();
        };
        let owned = self.log.owned(&member.membership.life.name);
        let leaving: Vec<_> = owned.into_keys().filter(|_| self.world.chance(50)).collect();
        if !leaving.is_empty() {
            let (site, how) = [
                ("revoke:patient", Revocation::Patient),
                ("revoke:patient", Revocation::Patient),
                ("revoke:impatient", Revocation::Impatient),
                ("revoke:lost", Revocation::Lost),
            ][self.world.die(4)];
            self.world.fault(site);
            let life = Arc::clone(&member.membership.life);
            tokio::select! {
                biased;
                () = life.died() => self.world.fault("member:killed_in_revocation"),
                () = self.log.revoke(&member.membership, &leaving, how) => {}
            }
            self.bury().await;
        }
        self.share_out();
    }

    /// A member loses partitions in the middle of its work and has them back at once.
    pub(super) async fn bounce(&mut self) {
        for _ in 0..6 {
            self.application.write(Table::PurchaseLedger);
        }
        self.application.connect(usize::MAX);
        let Some(member) = self.members.get(self.world.die(self.members.len())) else {
            return;
        };
        let life = Arc::clone(&member.membership.life);
        let owned: Vec<_> = self.log.owned(&life.name).into_keys().collect();
        self.world.fault("revoke:bounced");
        let how = *self
            .world
            .pick(&[Revocation::Impatient, Revocation::Lost])
            .unwrap_or(&Revocation::Lost);
        // What was done and committed of this assignment before; then what is under way when it ends.
        self.log.fetch(&member.membership, 1 + self.world.die(4));
        let ms = u64::try_from(self.world.die(1200)).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if self.world.chance(70) {
            self.slow_down();
        }
        self.log.fetch(&member.membership, 1 + self.world.die(3));
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::select! {
            biased;
            () = life.died() => self.world.fault("member:killed_in_revocation"),
            () = self.log.revoke(&member.membership, &owned, how) => {
                self.log.assign(&member.membership, &owned);
                self.log.fetch(&member.membership, 200);
            }
        }
    }

    pub(super) fn crash(&self) {
        if let Some(member) = self.members.get(self.world.die(self.members.len())) {
            self.world.fault("member:killed");
            member.membership.life.kill();
        }
    }

    pub(super) async fn stop_one(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let member = self.members.swap_remove(self.world.die(self.members.len()));
        self.world.fault("member:stopped");
        self.stop(member).await;
    }

    pub(super) async fn stop(&self, mut member: Member) {
        member.shutdown.cancel();
        let life = &member.membership.life;
        tokio::select! {
            biased;
            () = life.died() => {}
            exit = &mut member.task => match exit {
                Ok(Exit::Drained { .. }) => {}
                other => self.world.violated(format!("{} ended: {other:?}", life.name)),
            }
        }
        life.kill();
        member.task.abort();
        self.log.forget(&life.name);
    }

    /// Dead members are gone; their partitions are orphans.
    pub(super) async fn bury(&mut self) {
        let (dead, living): (Vec<_>, Vec<_>) = std::mem::take(&mut self.members)
            .into_iter()
            .partition(|member| member.membership.life.is_dead());
        self.members = living;
        for member in dead {
            member.task.abort();
            let _aborted = member.task.await;
            self.log.forget(&member.membership.life.name);
        }
        for member in &self.members {
            if member.task.is_finished() {
                self.world
                    .violated(format!("{} ended by itself", member.membership.life.name));
            }
        }
    }

    pub(super) async fn reconcile(&self) {
        let Some(member) = self.members.get(self.world.die(self.members.len())) else {
            return;
        };
        let reconciler = Reconciler {
            ports: member.ports.clone(),
            ledger: Arc::new(member.outside.clone()),
            books: Arc::new(member.outside.clone()),
            progress: Arc::new(member.outside.clone()),
            consumers: member.consumers.clone(),
            group: "simulated".to_owned(),
            owner: member.membership.life.name.clone(),
            shutdown: CancellationToken::new(),
        };
        let life = &member.membership.life;
        tokio::select! {
            biased;
            () = life.died() => {}
            ended = tokio::time::timeout(Duration::from_secs(60), reconciler.pass()) => {
                self.world.tell(format_args!("{} reconciles: {ended:?}", life.name));
            }
        }
    }

    pub(super) async fn end(&mut self) {
        for member in std::mem::take(&mut self.members) {
            member.membership.life.kill();
            member.task.abort();
            let _aborted = member.task.await;
        }
    }
}
