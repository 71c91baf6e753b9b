//! `console`: the console of a worker elsewhere. It asks the worker for what it says of itself, and the brokers for dead letters
//! when somebody wants to see them; the page is served on this machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::asking::{Silence, Worker, WorkerFlags};
use super::replay::flags::KafkaFlags;
use super::run::stop_on_signal;
use super::{Code, Usage, dlq};
use crate::config::Letters;
use crate::console::{Reach, Tells, is_this_machine, routes};
use crate::dead_letters::filed::{Filter, Place};
use crate::inert::chain;
use crate::telemetry::http;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    worker: WorkerFlags,
    /// Where the page is served; with port 0 on a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve it on another address than this machine's own, to whoever reaches it: there is no login.
    #[arg(long)]
    exposed: bool,
    #[command(flatten)]
    how: dlq::How,
    #[command(flatten)]
    kafka: KafkaFlags,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let is_here = is_this_machine(options.listen);
    if !is_here && !options.exposed {
        let problem = format!(
            "{} can be reached from elsewhere, and there is no login: --exposed serves it there all the same",
            options.listen
        );
        return Err(Usage(problem).into());
    }
    let worker = options.worker.open()?;
    let letters = options.letters()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let reach = if is_here { Reach::ThisMachine } else { Reach::Everybody };
    let ended = runtime.block_on(serve(options.listen, reach, worker, letters));
    // Brokers that are away are not waited for.
    runtime.shutdown_background();
    ended
}

impl Options {
    /// `None`: nobody said where the brokers are.
    fn letters(&self) -> anyhow::Result<Option<Shelf>> {
        let flags = self.kafka.flags();
        if flags
            .kafka_bootstrap_servers
            .as_deref()
            .is_none_or(|hosts| hosts.trim().is_empty())
        {
            return Ok(None);
        }
        let letters = Letters::from_flags(&flags)?;
        // What is wrong with the program file is said now, not when the first letter is opened.
        let _explainer = self.how.explainer(&flags)?;
        Ok(Some(Shelf {
            letters,
            how: self.how.clone(),
            kafka: self.kafka.clone(),
        }))
    }
}

async fn serve(listen: SocketAddr, reach: Reach, worker: Worker, shelf: Option<Shelf>) -> anyhow::Result<Code> {
    let elsewhere = Elsewhere {
        worker,
        tells_no_settings: AtomicBool::new(false),
        shelf: shelf.map(Arc::new),
        turn: Semaphore::new(1),
    };
    // Better now than on a page that stays empty.
    let _told = elsewhere.told().await?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;
    let worker = elsewhere.worker.address().to_owned();
    let served = http::serve(listen, routes(Arc::new(elsewhere), reach), shutdown.clone()).await;
    let (address, task) = served.with_context(|| format!("{listen} cannot be bound"))?;
    println!("the console of {worker} is at http://{address}/console until Ctrl-C");
    shutdown.cancelled().await;
    // A browser that keeps its connection is not waited for.
    task.abort();
    Ok(Code::Ok)
}

/// How dead letters are read and explained.
struct Shelf {
    letters: Letters,
    how: dlq::How,
    kafka: KafkaFlags,
}

/// A worker that is asked.
struct Elsewhere {
    worker: Worker,
    /// It serves no console of its own, so its settings are not to be had.
    tells_no_settings: AtomicBool,
    shelf: Option<Arc<Shelf>>,
    /// One look at the brokers at a time.
    turn: Semaphore,
}

impl Elsewhere {
    async fn told(&self) -> Result<Value, Silence> {
        if !self.tells_no_settings.load(Ordering::Relaxed) {
            match self.worker.get("console/data.json").await {
                Err(Silence::Refused { status, .. }) => {
                    let is_for_good = matches!(status.as_u16(), 404 | 421);
                    self.tells_no_settings.store(is_for_good, Ordering::Relaxed);
                }
                told => return told,
            }
        }
        self.worker.get("statusz").await
    }

    async fn read(&self, look: impl FnOnce(&Shelf) -> anyhow::Result<Value> + Send + 'static) -> Result<Value, String> {
        let shelf = self
            .shelf
            .clone()
            .ok_or("say with KAFKA_BOOTSTRAP_SERVERS where the brokers are")?;
        let _turn = self.turn.acquire().await.map_err(|closed| closed.to_string())?;
        let looking = tokio::task::spawn_blocking(move || look(&shelf));
        let read = looking.await.map_err(|ended| ended.to_string())?;
        read.map_err(|error| format!("{error:#}"))
    }
}

impl Tells for Elsewhere {
    fn data(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { self.told().await.map_err(|silence| chain(&silence)) })
    }

    fn has_letters(&self) -> bool {
        self.shelf.is_some()
    }

    fn letters(&self, filter: Filter) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(self.read(move |shelf| dlq::told(&shelf.letters, filter)))
    }

    fn letter(&self, place: Place) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(self.read(move |shelf| dlq::told_one(&shelf.letters, place, &shelf.how, &shelf.kafka.flags())))
    }
}
