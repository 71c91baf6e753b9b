//! Dead letters in Kafka: whole, with the reason behind them, and only then is the record done.

use std::sync::Arc;

use crm_event_processors::clock::TokioClock;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::dead_letters::{DeadLetters as _, KafkaDeadLetters, Letter, Queue};
use crm_event_processors::pipeline::Exit;
use crm_event_processors::pipeline::source::Failure;
use crm_event_processors::record::{BatchBuilder, Budget, Headers, RecordView};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::cluster::{NOW_MS, OwnHeader, Raw, TOPICS, award_id, purchase, purchases};
use super::raw;
use super::worker::World;

const DRAINED: Exit = Exit::Drained { unfinished: 0 };

fn header(name: &str, value: &[u8]) -> OwnHeader {
    (name.to_owned(), Some(value.to_vec()))
}

/// Every kind of header that Kafka carries.
fn headers() -> Vec<OwnHeader> {
    vec![
        header("trace", b"\x00\xff"),
        header("trace", b"again"),
        header("empty", b""),
        ("null".to_owned(), None),
        header("", b"no name"),
    ]
}

fn text(headers: &[OwnHeader], name: &str) -> String {
    let found = headers.iter().find(|(known, _)| known == name);
    let value = found.and_then(|(_, value)| value.clone()).expect(name);
    String::from_utf8(value).expect("text")
}

/// What a letter must say, in this order. The two times are checked apart.
fn provenance(letter: &Raw, expected: [&str; 6]) -> Vec<OwnHeader> {
    let [queue, reason, detail, partition, offset, policy] = expected;
    let written_at = text(&letter.headers, "crm.dlq.written_at_ms");
    assert!(written_at.parse::<i64>().expect("a number") >= NOW_MS, "{written_at}");
    let produced_at = text(&letter.headers, "crm.dlq.timestamp_ms");
    assert!(produced_at.parse::<i64>().expect("a number") > 0, "{produced_at}");
    [
        ("crm.dlq.consumer", queue),
        ("crm.dlq.reason", reason),
        ("crm.dlq.detail", detail),
        ("crm.dlq.policy", policy),
        ("crm.dlq.topic", TOPICS[0]),
        ("crm.dlq.partition", partition),
        ("crm.dlq.offset", offset),
        ("crm.dlq.timestamp_ms", &produced_at),
        ("crm.dlq.written_at_ms", &written_at),
        ("crm.dlq.version", env!("CARGO_PKG_VERSION")),
    ]
    .map(|(name, value)| header(name, value.as_bytes()))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_the_record_untouched_with_its_provenance_behind_it() {
    let world = World::new(2);
    let undecodable = [
        (Some(b"\xfe\x00key".as_slice()), Some(b"\xffnot json".as_slice())),
        (Some(b""), Some(b" ")),
        (None, Some(b"{}")),
    ]
    .map(|(key, value)| Raw {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: headers(),
    });
    for record in &undecodable {
        world.produce(purchases(1), record).await;
    }
    let poisoned = Raw {
        headers: headers(),
        ..purchase("poisoned", 7)
    };
    world.inngest.poison("currency:award:purchase_ledger:poisoned");
    world.produce(purchases(0), &poisoned).await;

    let worker = world.worker().await;
    world.wait_all_committed(&[purchases(0), purchases(1)]).await;
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "dead_lettered"), 4);
    assert_eq!(worker.stop().await, DRAINED);

    let mut decode = world.read("crm.dlq.decode", 3);
    // Written side by side.
    decode.sort_by_key(|letter| text(&letter.headers, "crm.dlq.offset"));
    for (letter, (record, offset)) in decode.iter().zip(undecodable.iter().zip(["0", "1", "2"])) {
        let reason = text(&letter.headers, "crm.dlq.reason");
        let detail = text(&letter.headers, "crm.dlq.detail");
        let ours = provenance(letter, ["decode", &reason, &detail, "1", offset, "false"]);
        let expected = Raw {
            headers: [record.headers.clone(), ours].concat(),
            ..record.clone()
        };
        assert_eq!(*letter, expected);
    }
    let currency = world.read("crm.dlq.currency", 1).remove(0);
    let ours = provenance(
        &currency,
        ["currency", "inngest_rejected", "poisoned", "0", "0", "false"],
    );
    let expected = Raw {
        headers: [poisoned.headers.clone(), ours].concat(),
        ..poisoned
    };
    assert_eq!(currency, expected);
    let counts = ["decode", "currency", "tier", "mission"].map(|queue| world.len(&format!("crm.dlq.{queue}")));
    assert_eq!(counts, [3, 1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_held_until_its_dead_letter_topic_can_be_written() {
    let world = World::new(2);
    let bad = Raw {
        value: Some(b"bad".to_vec()),
        ..Raw::default()
    };
    world.produce(purchases(0), &bad).await;
    for (id, lsn) in [("one", 1), ("two", 2)] {
        world.purchase(1, id, lsn).await;
    }
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 500];
    world.mock().request_errors(RDKafkaApiKey::Produce, &refused);
    let worker = world.worker().await;
    world.wait_committed(purchases(1), 2).await;
    worker
        .wait_until("the letter waits", |status| {
            let mut partitions = status.partitions.iter();
            partitions.any(|partition| partition.place == purchases(0) && partition.outstanding == 1)
        })
        .await;
    assert_eq!(world.committed(purchases(0)), Some(0), "its record is held");
    assert_eq!(world.len("crm.dlq.decode"), 0);

    world.mock().clear_request_errors(RDKafkaApiKey::Produce);
    world.wait_committed(purchases(0), 1).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.read("crm.dlq.decode", 1)[0].value, bad.value);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_too_large_for_its_topic_says_so_and_is_held_until_it_is_taken() {
    let world = World::new(2);
    let too_large = |times: usize| vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; times];
    let clock = Arc::new(TokioClock::starting_at(jiff::Timestamp::UNIX_EPOCH));
    let adapter = KafkaDeadLetters::new(&world.connection(), "crm", clock);
    let mut batch = BatchBuilder::new(TOPICS.map(Box::from).into(), Budget::new(1, 1));
    let record = RecordView {
        topic: TOPICS[0],
        partition: 0,
        offset: 7,
        timestamp_ms: None,
        key: None,
        value: Some(b"bad"),
        headers: Headers::default(),
    };
    batch.push(purchases(0), &record);
    let record = batch.finish().into_iter().next().expect("one was put in");
    let letter = Letter {
        queue: Queue::Decode,
        record: &record,
        reason: "not_json",
        detail: "",
        policy: false,
    };
    world.mock().request_errors(RDKafkaApiKey::Produce, &too_large(1));
    let refused = adapter.write(&letter).await.expect_err("too large").to_string();
    assert!(
        refused.contains("topic crm.dlq.decode takes: raise its max.message.bytes"),
        "{refused}"
    );
    adapter.write(&letter).await.expect("taken now");

    // In the worker: held, other partitions go on, and written as soon as the topic takes it.
    let bad = Raw {
        value: Some(b"bad".to_vec()),
        ..Raw::default()
    };
    world.produce(purchases(0), &bad).await;
    world.purchase(1, "one", 1).await;
    world.mock().request_errors(RDKafkaApiKey::Produce, &too_large(500));
    let worker = world.worker().await;
    world.wait_committed(purchases(1), 1).await;
    assert_eq!(world.committed(purchases(0)).unwrap_or(0), 0, "its record is held");
    world.mock().clear_request_errors(RDKafkaApiKey::Produce);
    world.wait_committed(purchases(0), 1).await;
    assert_eq!(worker.stop().await, DRAINED);
    let letters = world.read("crm.dlq.decode", 2);
    assert!(letters.iter().all(|letter| letter.value == bad.value), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_cannot_be_used_any_more_is_replaced() {
    let world = World::new(1);
    let bad = Raw {
        value: Some(b"bad".to_vec()),
        ..Raw::default()
    };
    // To an idempotent producer this is fatal: what is mended later comes too late for it.
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT];
    world.mock().request_errors(RDKafkaApiKey::InitProducerId, &refused);
    world.produce(purchases(0), &bad).await;
    let worker = world.worker().await;
    world.wait_committed(purchases(0), 1).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.read("crm.dlq.decode", 1)[0].value, bad.value);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_to_write_dead_letters_ends_the_worker_and_commits_nothing() {
    let (write, idempotently) = (
        (
            RDKafkaApiKey::Produce,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        ),
        (
            RDKafkaApiKey::InitProducerId,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        ),
    );
    for ((request, refused), grant) in [
        (write, "WRITE on topic crm.dlq.decode"),
        (idempotently, "IDEMPOTENT_WRITE on the cluster"),
    ] {
        let world = World::new(1);
        let bad = Raw {
            value: Some(b"bad".to_vec()),
            ..Raw::default()
        };
        world.produce(purchases(0), &bad).await;
        world.mock().request_errors(request, &[refused]);
        let worker = world.worker().await;
        let exit = worker.ended().await;
        let Exit::Failed(Failure::Configuration(message)) = &exit else {
            panic!("{exit:?}");
        };
        assert!(message.contains(grant), "{message}");
        assert_eq!(world.len("crm.dlq.decode"), 0);
        assert_ne!(world.committed(purchases(0)), Some(1), "its record is read again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_name_that_is_no_text_costs_the_headers_and_nothing_else() {
    let world = World::new(1);
    let servers = world.mock().bootstrap_servers();
    raw::produce(&servers, TOPICS[0], b"key", b"value", (b"\xff\xfe", b"header")).await;
    world.purchase(0, "behind-it", 1).await;
    let worker = world.worker().await;
    world.wait_committed(purchases(0), 2).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.awards(), [award_id("behind-it", 1)]);

    let letter = world.read("crm.dlq.decode", 1).remove(0);
    assert_eq!(
        (letter.key.as_deref(), letter.value.as_deref()),
        (Some(b"key".as_slice()), Some(b"value".as_slice()))
    );
    let detail = "a header's name is not UTF-8; the headers are lost";
    let ours = provenance(&letter, ["decode", "unreadable_headers", detail, "0", "0", "false"]);
    let lost = ("crm.unreadable_headers".to_owned(), None);
    assert_eq!(letter.headers, [vec![lost], ours].concat());
}
