//! The breaker: carries out the plan on the real parts, and starts again what ended by itself.
//!
//! Takes a plan; gives what was broken, from when until when. A fault has ended when its part was told to go on.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crm_event_processors::inngest::receiver::{Fault as Answer, Receiver};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::World;
use super::parts::{Process, listens};
use super::plan::{Fault, Kind, Part};
use super::verdict::Broken;
use crate::rig::PATIENCE;

/// All that can be broken.
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) processes: BTreeMap<Part, Mutex<Process>>,
    pub(crate) receiver: Receiver,
    /// Held while the receiver has a fault.
    pub(crate) receiving: Mutex<()>,
}

const LOOK: Duration = Duration::from_millis(50);
/// Requests that a fault of the receiver is for may not come, while other parts are away.
const MEETS: Duration = Duration::from_secs(15);
/// The exit code of a start without a broker.
const UNAVAILABLE: i32 = 69;
/// Between the two workers of a rolling restart.
const APART: Duration = Duration::from_secs(2);

/// Starts every fault at its time. Faults of different parts overlap.
pub(crate) async fn carry_out(stage: Arc<Stage>, plan: Vec<Fault>) -> anyhow::Result<()> {
    let mut under_way = JoinSet::new();
    for fault in plan {
        sleep(fault.at.saturating_sub(stage.world.since())).await;
        let stage = Arc::clone(&stage);
        under_way.spawn(async move { stage.one(fault).await });
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(())
}

impl Stage {
    async fn one(&self, fault: Fault) -> anyhow::Result<()> {
        let Fault { kind, part, .. } = fault;
        let (begun, ended) = self.break_it(fault).await.with_context(|| kind.name())?;
        let broken = Broken {
            kind,
            part,
            begun,
            ended,
        };
        self.world
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(broken);
        Ok(())
    }

    async fn break_it(&self, fault: Fault) -> anyhow::Result<(Duration, Duration)> {
        if fault.part == Part::Receiver {
            return self.twist(fault).await;
        }
        let mut process = self.process(fault.part)?.lock().await;
        self.revive(fault.part, &mut process)?;
        let begun = self.world.since();
        match fault.kind {
            Kind::Stop => {
                process.signal("STOP")?;
                sleep(fault.lasts).await;
                process.signal("CONT")?;
            }
            Kind::Flush => flush(self.world.ground.redis).await?,
            Kind::Rolling => {
                self.redeploy(fault.part, &mut process).await?;
                drop(process);
                sleep(APART).await;
                let other = if fault.part == Part::First {
                    Part::Second
                } else {
                    Part::First
                };
                let mut process = self.process(other)?.lock().await;
                self.revive(other, &mut process)?;
                self.redeploy(other, &mut process).await?;
            }
            Kind::Postgres => {
                process.end(if fault.hard { "QUIT" } else { "INT" }).await?;
                sleep(fault.lasts).await;
                process.start()?;
            }
            _ => {
                process.end("KILL").await?;
                sleep(fault.lasts).await;
                process.start()?;
            }
        }
        Ok((begun, self.world.since()))
    }

    /// SIGTERM has to end in order, with all that it had in hand.
    async fn redeploy(&self, part: Part, process: &mut Process) -> anyhow::Result<()> {
        process.heeds_term().await?;
        let status = process.end("TERM").await?;
        if !status.success() {
            self.judge(part, status);
        }
        process.start()
    }

    async fn twist(&self, fault: Fault) -> anyhow::Result<(Duration, Duration)> {
        let _alone = self.receiving.lock().await;
        let begun = self.world.since();
        let script = self.receiver.faults();
        let requests = if fault.kind == Kind::Hanging {
            fault.requests / 4 + 1
        } else {
            fault.requests
        };
        for _ in 0..requests {
            script.push(match fault.kind {
                Kind::Limited => Answer::too_many_requests(Some("1")),
                Kind::Hanging => Answer::Hang,
                Kind::LostAnswer if fault.hard => Answer::TooFewIds { missing: 1 },
                Kind::LostAnswer => Answer::AcceptThenDrop,
                _ => Answer::status(500, "no"),
            });
        }
        let met = async {
            while script.remaining() > 0 {
                sleep(LOOK).await;
            }
        };
        if timeout(MEETS, met).await.is_err() {
            while script.next().is_some() {}
        }
        Ok((begun, self.world.since()))
    }

    /// Looks after the workers: a platform starts again what has ended.
    pub(crate) fn look_after(&self) -> anyhow::Result<()> {
        for (part, process) in &self.processes {
            // One that is being broken is looked after by whoever breaks it.
            if let Ok(mut process) = process.try_lock() {
                self.revive(*part, &mut process)?;
            }
        }
        Ok(())
    }

    /// Without a broker there is no start, and the platform makes another: that is promised. Any other end is noted, and speaks
    /// against the worker.
    fn judge(&self, part: Part, status: ExitStatus) {
        if status.code() == Some(UNAVAILABLE) {
            self.world.restarted.fetch_add(1, Ordering::AcqRel);
        } else {
            self.world.note(format!("{part} ended with {status}"));
        }
    }

    fn revive(&self, part: Part, process: &mut Process) -> anyhow::Result<()> {
        if let Some(status) = process.ended()? {
            self.judge(part, status);
            process.start()?;
        }
        Ok(())
    }

    pub(crate) fn process(&self, part: Part) -> anyhow::Result<&Mutex<Process>> {
        self.processes
            .get(&part)
            .with_context(|| format!("{part} is no process"))
    }
}

async fn flush(port: u16) -> anyhow::Result<()> {
    listens(port).await?;
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.write_all(b"FLUSHALL SYNC\r\n").await?;
    let mut answer = [0; 5];
    timeout(PATIENCE, connection.read_exact(&mut answer)).await??;
    ensure!(&answer == b"+OK\r\n", "redis-server does not forget");
    Ok(())
}
