//! Buries records that failed before the fan-out: takes them in order, reports each finished for everybody.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::intake::Dead;
use super::lane::{Finished, bury};
use super::outcome::Outcome;
use super::shared::Shared;
use crate::consumers::Consumer;

pub(super) async fn run(mut dead: mpsc::Receiver<Dead>, finished: mpsc::Sender<Vec<Finished>>, shared: Arc<Shared>) {
    while let Some(Dead { letter, ticket }) = dead.recv().await {
        if bury(&shared, &ticket, &letter).await {
            let consumers = Consumer::ALL.into_iter().collect();
            let outcome = Outcome::DeadLettered(letter.reason);
            // The pipeline is gone only when the process is going: nothing is committed then.
            let _gone = finished
                .send(vec![Finished {
                    ticket,
                    consumers,
                    outcome,
                }])
                .await;
        }
    }
}
