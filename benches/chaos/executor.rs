//! The workflows: takes every accepted event, executes the database's functions for it as those of `workflows` do.
//!
//! At least once, in any order, now and then twice; some runs are lost between applying and settling, which is the sweeper's.
//! What it cannot reach it tries again; what the database refuses is a finding.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use crm_event_processors::inngest::receiver::{AcceptedEvent, Sink};
use futures::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_postgres::Row;

use super::World;
use super::database::{Session, passes, query, told};

/// One call of one run.
#[derive(Debug, Clone)]
struct Run {
    call: Call,
    /// An event's data, or an effect key.
    argument: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Apply,
    Settle,
    Grant,
    Code,
}

/// What the receiver tells: enters each event into the books, and starts its run on one of the sessions.
#[derive(Debug)]
pub(crate) struct Starter {
    world: Arc<World>,
    sessions: Vec<UnboundedSender<Run>>,
}

const SESSIONS: usize = 4;
/// On their way to the database at a time, of one session.
const BATCH: usize = 64;
/// One run in so many is executed twice, or lost before it settles; of repeated ids one in a few.
const TWICE_IN: u32 = 40;
const LOST_IN: u32 = 200;
const REPEATED_IN: u32 = 4;

impl Call {
    const fn statement(self) -> &'static str {
        match self {
            Self::Apply => {
                "select r->>'outcome', r->>'due_at', $1::jsonb->>'effect_key' from crm_events.apply_award($1::jsonb) r"
            }
            Self::Settle => "select r->>'outcome', null::text, null::text from crm_events.settle_award($1) r",
            Self::Grant => "select r->>'outcome', null::text, null::text from crm_events.settle_grant($1::jsonb) r",
            Self::Code => "select r->>'outcome', null::text, null::text from crm_events.settle_code($1::jsonb) r",
        }
    }
}

impl Sink for Starter {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        self.world.accept(event.id);
        let call = match event.name {
            "loyalty/award.scheduled" | "loyalty/award.cancelled" => Call::Apply,
            "loyalty/reward.granted" | "loyalty/reward.revoked" => Call::Grant,
            "loyalty/code.redeemed" => Call::Code,
            // Scheduled upgrades are due in weeks: the sweeper's. The others only tell.
            _ => return,
        };
        // Inngest knows an id for a day; a run is repeated for other reasons.
        if event.resent && fastrand::u32(..REPEATED_IN) > 0 {
            return;
        }
        let run = Run {
            call,
            argument: event.data.to_owned(),
        };
        for _ in 0..1 + usize::from(fastrand::u32(..TWICE_IN) == 0) {
            self.world.runs.fetch_add(1, Ordering::AcqRel);
            let session = fastrand::choice(&self.sessions);
            // Nobody listens only when everything has failed already.
            let _gone = session.map(|session| session.send(run.clone()));
        }
    }
}

/// Starts the sessions; gives what the receiver tells.
pub(crate) fn start(world: &Arc<World>, tasks: &mut tokio::task::JoinSet<anyhow::Result<()>>) -> Starter {
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let (sender, runs) = unbounded_channel();
        sessions.push(sender);
        tasks.spawn(work(Arc::clone(world), runs));
    }
    Starter {
        world: Arc::clone(world),
        sessions,
    }
}

async fn work(world: Arc<World>, mut runs: UnboundedReceiver<Run>) -> anyhow::Result<()> {
    let mut session = Session::new(world.ground.database_url("chaos_workflows"));
    let mut waiting: Vec<Run> = Vec::new();
    loop {
        if waiting.is_empty() {
            let Some(run) = runs.recv().await else { return Ok(()) };
            waiting.push(run);
        }
        while waiting.len() < BATCH
            && let Ok(run) = runs.try_recv()
        {
            waiting.push(run);
        }
        fastrand::shuffle(&mut waiting);
        // Some are held back to the next round, behind what comes meanwhile.
        let batch = waiting.split_off(waiting.len() / 8);
        let client = session.client().await?;
        let asked = batch
            .iter()
            .map(async |run| query(client, run.call.statement(), &[&run.argument]).await);
        let answers = join_all(asked).await;
        for (run, answer) in batch.into_iter().zip(answers) {
            match answer {
                Ok(rows) => match next(run.call, rows.first().context("an outcome")?)? {
                    Some(run) => waiting.push(run),
                    None => world.run_ended(None),
                },
                Err(error) if passes(&error) => waiting.push(run),
                Err(error) => world.run_ended(Some(format!("{:?}: {}", run.call, told(&error)))),
            }
        }
    }
}

/// What an award goes on with: it is settled at once, if it is due.
fn next(call: Call, row: &Row) -> anyhow::Result<Option<Run>> {
    let outcome: &str = row.try_get(0)?;
    if call != Call::Apply || !matches!(outcome, "applied" | "unchanged") || fastrand::u32(..LOST_IN) == 0 {
        return Ok(None);
    }
    let key: String = row.try_get(2)?;
    Ok(Some(Run {
        call: Call::Settle,
        argument: key,
    }))
}

/// What is overdue, as the sweeper does it; gives how much it was. Announcements are sent, then marked.
pub(crate) async fn sweep(world: &World) -> anyhow::Result<u64> {
    let mut session = Session::new(world.ground.database_url("chaos_workflows"));
    let mut swept = 0;
    loop {
        let due = session.ask("select crm_events.due_effects(500)", &[]).await?;
        if due.is_empty() {
            return Ok(swept);
        }
        for row in due {
            let key: String = row.try_get(0)?;
            let settled = "select a->>'id' from jsonb_array_elements(crm_events.settle($1)->'announcements') a";
            for announced in session.ask(settled, &[&key]).await? {
                let id: &str = announced.try_get(0)?;
                world.accept(id);
                session.ask("select crm_events.announced(array[$1])", &[id]).await?;
            }
            swept += 1;
        }
    }
}
