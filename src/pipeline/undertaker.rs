//! Buries records that failed before the fan-out, and reports each finished for every consumer that runs.
//!
//! Several at once: a letter that its topic does not take holds its own partition, not the letters of others.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::intake::Dead;
use super::item::Finished;
use super::lane::bury;
use super::outcome::Outcome;
use super::shared::Shared;
use crate::progress::ConsumerSet;

/// How many letters may wait for their delivery reports at once.
const AT_ONCE: usize = 64;

pub(super) async fn run(
    mut dead: mpsc::Receiver<Dead>,
    finished: mpsc::Sender<Vec<Finished>>,
    shared: Arc<Shared>,
    consumers: ConsumerSet,
) {
    let mut burials = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = burials.next(), if !burials.is_empty() => {}
            Some(next) = dead.recv(), if burials.len() < AT_ONCE => {
                burials.push(bury_one(next, &finished, &shared, consumers));
            }
            else => return,
        }
    }
}

async fn bury_one(dead: Dead, finished: &mpsc::Sender<Vec<Finished>>, shared: &Shared, consumers: ConsumerSet) {
    let Dead { letter, ticket } = dead;
    if bury(shared, &ticket, &letter).await {
        let outcome = Outcome::DeadLettered(letter.reason);
        let done = Finished {
            ticket,
            consumers,
            outcome,
        };
        // The pipeline is gone only when the process is going: nothing is committed then.
        let _gone = finished.send(vec![done]).await;
    }
}
