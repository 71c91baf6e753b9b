//! The bare client: polls a log from its begin, alone or with our decoder. Says `first` at the first record, then how long
//! it took from there.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::kafka::{Connection, consumer_config};
use crm_event_processors::record::{Headers, RecordView};
use crm_event_processors::rows::{Routed, route};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

#[derive(Debug, Args)]
pub(crate) struct Reader {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
    #[arg(long)]
    records: u64,
    /// How often the log is read: fast cases would be over before they are measured.
    #[arg(long)]
    passes: u32,
    /// Decode and route on the polling thread.
    #[arg(long)]
    decode: bool,
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Logs go nowhere here; errors of the client come out of `poll`.
struct Quiet;

impl rdkafka::client::ClientContext for Quiet {}
impl ConsumerContext for Quiet {}

impl Reader {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut took = Duration::ZERO;
        for pass in 0..self.passes {
            took += self.read(pass == 0)?;
        }
        println!("done {} {}", took.as_secs_f64(), self.records * u64::from(self.passes));
        // Its peak of memory is read before it ends.
        std::io::stdin().read_line(&mut String::new())?;
        Ok(())
    }

    /// Once from begin to end, with a client of its own.
    fn read(&self, first: bool) -> anyhow::Result<Duration> {
        let connection = Connection {
            bootstrap_servers: self.brokers.clone(),
            security_protocol: "PLAINTEXT".to_owned(),
            api_key: None,
            api_secret: None,
            ca_file: None,
        };
        let mut config = consumer_config(&connection, "reader", 6000);
        // The worker bounds its memory; who only reads need not, and is as fast as the client can be.
        config
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.max.bytes", "52428800");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(0))?;
        }
        consumer.assign(&list)?;
        let mut decoder = Decoder::default();
        let mut begun = None;
        for _ in 0..self.records {
            let message = consumer.poll(PATIENCE).context("no record comes any more")??;
            if begun.is_none() {
                if first {
                    println!("first");
                }
                begun = Some(Instant::now());
            }
            if self.decode {
                decode(&mut decoder, &message)?;
            } else {
                black_box(message.payload());
            }
        }
        Ok(begun.context("an empty log")?.elapsed())
    }
}

fn decode(decoder: &mut Decoder, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
    let record = RecordView {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        headers: Headers(&[]),
    };
    let Decoded::Change(change) = decoder.decode(&record)? else {
        anyhow::bail!("not a change");
    };
    let routed = route(record.topic, &change, DecimalMode::Text)?;
    ensure!(matches!(routed, Routed::Row(_)), "not a row");
    black_box(routed);
    Ok(())
}
