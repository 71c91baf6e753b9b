//! A record that the client library would not write: a header name that is not UTF-8.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PRODUCE: i16 = 0;
const VERSION: i16 = 3;

/// Kafka's variable-length integers.
fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn sized(bytes: &mut Vec<u8>, part: &[u8]) {
    varint(bytes, part.len().try_into().expect("small"));
    bytes.extend_from_slice(part);
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(i16::try_from(text.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn long(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend(i32::try_from(part.len()).expect("small").to_be_bytes());
    bytes.extend_from_slice(part);
}

/// One record in a batch of its own, format 2. The checksum is not looked at: neither by the mock nor by a consumer that
/// was not told to.
fn batch(key: &[u8], value: &[u8], (name, header): (&[u8], &[u8])) -> Vec<u8> {
    // Attributes, and no distance from the batch's time and offset.
    let mut record = vec![0, 0, 0];
    for part in [key, value] {
        sized(&mut record, part);
    }
    varint(&mut record, 1);
    for part in [name, header] {
        sized(&mut record, part);
    }
    let mut body = Vec::new();
    // Leader epoch, format, checksum, attributes, last offset's distance.
    body.extend(0_i32.to_be_bytes());
    body.push(2);
    body.extend(0_i32.to_be_bytes());
    body.extend(0_i16.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    for time_ms in [super::cluster::NOW_MS; 2] {
        body.extend(time_ms.to_be_bytes());
    }
    // No producer id, epoch and sequence; one record.
    body.extend((-1_i64).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    sized(&mut body, &record);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    long(&mut batch, &body);
    batch
}

/// Writes one record to partition 0 and waits for the answer.
pub(super) async fn produce(servers: &str, topic: &str, key: &[u8], value: &[u8], header: (&[u8], &[u8])) {
    let mut request = Vec::new();
    request.extend(PRODUCE.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    string(&mut request, "raw");
    // No transaction, all replicas, ten seconds, one topic, one partition.
    request.extend((-1_i16).to_be_bytes());
    request.extend((-1_i16).to_be_bytes());
    request.extend(10_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    string(&mut request, topic);
    request.extend(1_i32.to_be_bytes());
    request.extend(0_i32.to_be_bytes());
    long(&mut request, &batch(key, value, header));

    let mut framed = Vec::new();
    long(&mut framed, &request);
    let mut stream = TcpStream::connect(servers).await.expect("connected");
    stream.write_all(&framed).await.expect("sent");
    let size = stream.read_i32().await.expect("answered");
    let mut answer = vec![0; size.try_into().expect("a size")];
    stream.read_exact(&mut answer).await.expect("answered");
    // Correlation, one topic and its name, one partition and its number; then the error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer.get(at..at + 2), Some([0, 0].as_slice()), "{answer:?}");
}
