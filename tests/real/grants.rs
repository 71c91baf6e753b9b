//! What an account may do: Kafka's ACLs, set over the listener that lets everybody do everything. The client library has
//! no call for them, so this speaks the three requests itself (`CreateAcls`, `DescribeAcls`, `DeleteAcls`, version 1).

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stack;
use super::worker::PATIENCE;

const DESCRIBE_ACLS: i16 = 29;
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;

/// An operation on a resource.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right<'a> {
    Read(&'a str),
    Write(&'a str),
    Describe(&'a str),
    Join(&'a str),
    DescribeGroup(&'a str),
}

impl Right<'_> {
    /// Kafka's numbers: resource type, name, operation.
    const fn parts(&self) -> (u8, &str, u8) {
        const TOPIC: u8 = 2;
        const GROUP: u8 = 3;
        const READ: u8 = 3;
        const WRITE: u8 = 4;
        const DESCRIBE: u8 = 8;
        match self {
            Self::Read(topic) => (TOPIC, topic, READ),
            Self::Write(topic) => (TOPIC, topic, WRITE),
            Self::Describe(topic) => (TOPIC, topic, DESCRIBE),
            Self::Join(group) => (GROUP, group, READ),
            Self::DescribeGroup(group) => (GROUP, group, DESCRIBE),
        }
    }
}

/// From now on the user may do this and nothing else. Returns when the broker goes by it.
pub(super) async fn may_only(user: &str, rights: &[Right<'_>]) {
    let principal = format!("User:{user}");
    let mut everything = count(1);
    everything.extend(filter(&principal));
    request(DELETE_ACLS, &everything).await;
    let mut wanted = count(rights.len());
    for right in rights {
        let (kind, name, operation) = right.parts();
        wanted.push(kind);
        string(&mut wanted, Some(name));
        // This very name, from every host, allowed.
        wanted.push(3);
        string(&mut wanted, Some(&principal));
        string(&mut wanted, Some("*"));
        wanted.extend([operation, 3]);
    }
    let answer = request(CREATE_ACLS, &wanted).await;
    // Throttle time, the number of results, and of each an error and its message, which has nothing to say.
    let results = answer[8..].chunks_exact(4);
    assert_eq!(results.len(), rights.len());
    assert!(
        results.into_iter().all(|result| result.starts_with(&[0, 0])),
        "{answer:?}"
    );
    wait_known(&principal, rights.len()).await;
}

/// Takes these away and leaves the others as they are. Returns when the broker goes by it.
pub(super) async fn may_no_longer(user: &str, rights: &[Right<'_>]) {
    let principal = format!("User:{user}");
    let left = known(&principal)
        .await
        .checked_sub(rights.len())
        .expect("granted before");
    let mut filters = count(rights.len());
    for right in rights {
        let (kind, name, operation) = right.parts();
        filters.push(kind);
        string(&mut filters, Some(name));
        filters.push(3);
        string(&mut filters, Some(&principal));
        string(&mut filters, None);
        filters.extend([operation, 1]);
    }
    request(DELETE_ACLS, &filters).await;
    wait_known(&principal, left).await;
}

/// Written by the controller, known to the broker a moment later.
async fn wait_known(principal: &str, acls: usize) {
    let started = Instant::now();
    while known(principal).await != acls {
        assert!(
            started.elapsed() < PATIENCE,
            "the broker never knew {acls} of {principal}"
        );
    }
}

/// How many ACLs of this principal the broker knows.
async fn known(principal: &str) -> usize {
    let answer = request(DESCRIBE_ACLS, &filter(principal)).await;
    // The principal stands once in each ACL.
    let name = principal.as_bytes();
    answer.windows(name.len()).filter(|window| *window == name).count()
}

/// Everything about one principal: any type, name, pattern, host, operation, permission.
fn filter(principal: &str) -> Vec<u8> {
    let mut filter = vec![1];
    string(&mut filter, None);
    filter.push(1);
    string(&mut filter, Some(principal));
    string(&mut filter, None);
    filter.extend([1, 1]);
    filter
}

fn count(items: usize) -> Vec<u8> {
    i32::try_from(items).expect("few").to_be_bytes().to_vec()
}

fn string(bytes: &mut Vec<u8>, text: Option<&str>) {
    let length = text.map_or(-1, |text| i16::try_from(text.len()).expect("short"));
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.unwrap_or_default().as_bytes());
}

/// Sends a request and gives the answer behind its correlation id.
async fn request(key: i16, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(1_i16.to_be_bytes());
    request.extend(0_i32.to_be_bytes());
    string(&mut request, Some("grants"));
    request.extend_from_slice(body);
    let address = stack("KAFKA_BOOTSTRAP_SERVERS");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let mut framed = count(request.len());
    framed.extend(request);
    stream.write_all(&framed).await.expect("sent");
    let size = stream.read_i32().await.expect("answered");
    let mut answer = vec![0; size.try_into().expect("a size")];
    stream.read_exact(&mut answer).await.expect("answered");
    answer.split_off(4)
}
