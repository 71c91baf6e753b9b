//! `console`: the console of a worker elsewhere. It asks the worker for what it says of itself, and the brokers for dead letters
//! when somebody wants to see them; the page is served on this machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asking::{Silence, Worker, WorkerFlags};
use super::replay::flags::KafkaFlags;
use super::run::stop_on_signal;
use super::{Code, Usage, dlq};
use crate::config::Letters;
use crate::console::{Tells, routes};
use crate::dead_letters::filed::{Filter, Place};
use crate::inert::chain;
use crate::telemetry::http;
use crate::telemetry::reach::Reach;

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
    let reach = Reach::of(options.listen);
    if reach == Reach::Everybody && !options.exposed {
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
        told_no_settings: Mutex::default(),
        shelf: shelf.map(Arc::new),
        turn: Arc::new(Semaphore::new(1)),
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
    /// When it served no console of its own, so that its settings were not to be had. Another worker may answer by now.
    told_no_settings: Mutex<Option<Instant>>,
    shelf: Option<Arc<Shelf>>,
    /// One look at the brokers at a time, for as long as it takes: whoever asked may have gone.
    turn: Arc<Semaphore>,
}

/// How long nobody asks for settings that were not told.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl Elsewhere {
    async fn told(&self) -> Result<Value, Silence> {
        let refused = *self.told_no_settings();
        if refused.is_none_or(|refused| refused.elapsed() > ASK_AGAIN) {
            match self.worker.get("console/data.json").await {
                Err(Silence::Refused { .. }) => *self.told_no_settings() = Some(Instant::now()),
                told => return told,
            }
        }
        let told = self.worker.get("statusz").await;
        if told.is_err() {
            *self.told_no_settings() = None;
        }
        told
    }

    fn told_no_settings(&self) -> MutexGuard<'_, Option<Instant>> {
        self.told_no_settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, look: impl FnOnce(&Shelf) -> anyhow::Result<Value> + Send + 'static) -> Result<Value, String> {
        let shelf = self
            .shelf
            .clone()
            .ok_or("say with KAFKA_BOOTSTRAP_SERVERS where the brokers are")?;
        let read = in_turn(&self.turn, move || look(&shelf)).await?;
        read.map_err(|error| format!("{error:#}"))
    }
}

/// Looks when nobody else does. The turn goes with the look: dropped, this stops waiting, and the look goes on to its end.
async fn in_turn<T: Send + 'static>(
    turn: &Arc<Semaphore>,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let turn = Arc::clone(turn).acquire_owned().await;
    let turn = turn.map_err(|closed| closed.to_string())?;
    let looking = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        look()
    });
    looking.await.map_err(|ended| ended.to_string())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        worker: WorkerFlags,
    }

    /// One that has settings to tell once it `has_console`, and before says nothing else while `is_away`.
    struct Played {
        has_console: AtomicBool,
        is_away: AtomicBool,
    }

    impl Played {
        fn answer(&self, path: &str) -> axum::response::Response {
            let (has_console, is_away) = (&self.has_console, &self.is_away);
            match path {
                "console" if has_console.load(Ordering::Relaxed) => r#"{"consumers":[],"config":"c"}"#.into_response(),
                "statusz" if !is_away.load(Ordering::Relaxed) => r#"{"consumers":[]}"#.into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
    }

    #[tokio::test]
    async fn settings_that_were_not_told_are_asked_for_again_when_another_worker_may_answer() {
        crate::tls::install_provider();
        let played = Arc::new(Played {
            has_console: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
        });
        let (of_console, of_statusz) = (Arc::clone(&played), Arc::clone(&played));
        let app = Router::new()
            .route("/console/data.json", get(async move || of_console.answer("console")))
            .route("/statusz", get(async move || of_statusz.answer("statusz")));
        let stop = CancellationToken::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, _task) = http::serve(any, app, stop.clone()).await.expect("bound");
        let flags = ["test", "--worker", &format!("http://{address}")];
        let worker = Arguments::try_parse_from(flags).expect("parsed").worker.open();
        let elsewhere = Elsewhere {
            worker: worker.expect("a client"),
            told_no_settings: Mutex::default(),
            shelf: None,
            turn: Arc::new(Semaphore::new(1)),
        };
        let config = async || elsewhere.told().await.map(|told| told["config"].clone()).ok();
        assert_eq!(config().await, Some(Value::Null));
        // It restarts, with a console.
        played.has_console.store(true, Ordering::Relaxed);
        assert_eq!(config().await, Some(Value::Null), "not asked each second");
        played.is_away.store(true, Ordering::Relaxed);
        assert_eq!(config().await, None);
        assert_eq!(config().await, Some(Value::from("c")));
        // Nobody saw that it was away: after a minute.
        let long_ago = Instant::now().checked_sub(ASK_AGAIN * 2).expect("a time");
        *elsewhere.told_no_settings() = Some(long_ago);
        assert_eq!(config().await, Some(Value::from("c")));
        stop.cancel();
    }

    #[tokio::test]
    async fn whoever_stops_waiting_for_a_look_lets_nobody_look_beside_it() {
        let turn = Arc::new(Semaphore::new(1));
        let (begun_tx, begun) = tokio::sync::oneshot::channel();
        let (goes_on, waits) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let turn = Arc::clone(&turn);
            async move {
                in_turn(&turn, move || {
                    let _told = begun_tx.send(());
                    waits.recv()
                })
                .await
            }
        });
        begun.await.expect("it looks");
        first.abort();
        let _aborted = first.await;
        assert_eq!(turn.available_permits(), 0, "it still looks");
        goes_on.send(()).expect("it waits");
        assert_eq!(in_turn(&turn, || 7).await, Ok(7));
    }
}
