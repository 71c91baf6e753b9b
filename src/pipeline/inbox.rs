//! What waits before a lane, in the order of receipt. It forgets what is not ours any more even while the lane is stuck:
//! records of partitions that went must not keep the memory that those that came need.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::item::Item;
use super::signal::Watcher;

pub(super) struct Inbox {
    parcels: mpsc::Receiver<Vec<Item>>,
    backlog: VecDeque<Item>,
    fence: Watcher<u64>,
    /// Partitions went while the lane was busy: it has not looked at what it has set aside of them.
    went: bool,
}

impl Inbox {
    pub(super) fn new(parcels: mpsc::Receiver<Vec<Item>>, fence: Watcher<u64>) -> Self {
        Self {
            parcels,
            backlog: VecDeque::new(),
            fence,
            went: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Whether partitions went while the lane was busy, since it was last asked.
    pub(super) fn take_went(&mut self) -> bool {
        std::mem::take(&mut self.went)
    }

    /// Waits for records, if they are wanted, or until partitions go. False when nothing will come any more.
    pub(super) async fn wait(&mut self, wanted: bool) -> bool {
        tokio::select! {
            biased;
            () = self.fence.changed() => self.drop_gone(),
            received = self.parcels.recv(), if wanted => match received {
                Some(items) => self.backlog.extend(items),
                None => return false,
            },
        }
        true
    }

    /// At most so many records of what is there.
    pub(super) fn take(&mut self, most: usize) -> Vec<Item> {
        while self.backlog.len() < most
            && let Ok(items) = self.parcels.try_recv()
        {
            self.backlog.extend(items);
        }
        self.backlog.drain(..most.min(self.backlog.len())).collect()
    }

    /// Drops what is not ours any more, whenever partitions go. Never ends.
    pub(super) async fn keep_clean(&mut self) {
        loop {
            self.fence.changed().await;
            self.drop_gone();
            self.went = true;
        }
    }

    fn drop_gone(&mut self) {
        while let Ok(items) = self.parcels.try_recv() {
            self.backlog.extend(items);
        }
        self.backlog.retain(|item| item.ticket.epoch.is_live());
    }
}
