//! A look at what a worker needs of Kafka, for somebody who stands by: takes names, gives what the brokers say about them.
//!
//! It joins nothing, writes nothing and judges nothing. It ends when its patience does: what was not answered by then is
//! told as such, beside what was.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::bounded::Hearing;
use super::client::{Connection, Logging, fetch_probe_config};
use super::lookup::{look_up, positions};
use super::preflight::{Distrust, LOOK, Right, Told, fetch_end, may_write, told};
use super::seeding::{Group, client as group_client, commitments, is_any_committed};
use crate::progress::Found;

/// What to look at.
#[derive(Debug, Clone)]
pub struct Survey {
    pub connection: Connection,
    pub group: Group,
    /// Topics that are read.
    pub sources: Vec<String>,
    /// Topics that are written.
    pub dead_letters: Vec<String>,
    /// Whether it is tried out what may be read and written.
    pub tries_rights: bool,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub brokers: usize,
    /// The sources, then the dead letters.
    pub topics: Vec<Topic>,
    pub members: Look<Members>,
    /// Of every partition of the sources that were seen.
    pub committed: Look<Vec<Committed>>,
    /// Groups in which one of these consumers has its progress: `run` refuses to start beside them.
    pub elsewhere: Look<Vec<String>>,
}

/// Why nothing could be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No name of a broker leads anywhere.
    Name(String),
    /// Certificate or protocol; and what mends it.
    Tls {
        cause: String,
        mend: String,
    },
    /// Key or secret; and what mends it.
    Key {
        cause: String,
        mend: String,
    },
    Silent(String),
    /// No client can be made of these settings.
    Settings(String),
}

/// The answer to one question.
pub type Look<T> = Result<T, Unseen>;

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// The account may not ask.
    Refused,
    /// Nothing that would tell; why.
    Unknown(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Source,
    DeadLetters,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub role: Role,
    pub visible: Look<Visible>,
    /// `None`: not asked, because it is not visible or no account could lack a grant.
    pub right: Option<Right>,
    pub settings: Look<Settings>,
}

/// What metadata says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    Missing,
    There {
        partitions: usize,
        /// Partitions without a leader.
        offline: Vec<i32>,
    },
}

/// Settings of a topic, as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Negative: for ever.
    pub retention_ms: Option<i64>,
    /// Of a partition. Negative: without limit.
    pub retention_bytes: Option<i64>,
    pub cleanup_policy: Option<String>,
    pub max_message_bytes: Option<i64>,
}

/// Who is in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Kafka's word; empty if it knows no such group.
    pub state: String,
    /// Client id and host of each.
    pub members: Vec<String>,
}

/// How far the group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub topic: String,
    pub partition: i32,
    pub found: Found,
    /// The first record that retention spares for another fifth of its time. `None`: not known, or nothing is that young.
    pub safe_from: Option<i64>,
}

/// How late the client library may notice that a time is over.
const SECOND: Duration = Duration::from_millis(1_100);

/// The share of a topic's retention after which what is not read yet is in danger.
const DANGER: f64 = 0.8;

impl Survey {
    /// # Errors
    /// When nothing could be asked: see [`Trouble`].
    pub async fn look(self, now_ms: i64, patience: Duration) -> Result<Seen, Trouble> {
        let runtime = tokio::runtime::Handle::current();
        let looking = tokio::task::spawn_blocking(move || self.look_now(&runtime, now_ms, Instant::now() + patience));
        // The client library looks once a second whether a time is over: whoever waits no longer than that loses everything.
        match tokio::time::timeout(patience + SECOND, looking).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => Err(Trouble::Silent(error.to_string())),
            Err(_elapsed) => Err(Trouble::Silent("no answer in time".to_owned())),
        }
    }

    fn look_now(&self, runtime: &tokio::runtime::Handle, now_ms: i64, until: Instant) -> Result<Seen, Trouble> {
        let unusable = |error: KafkaError| Trouble::Settings(error.to_string());
        let mut config = self.connection.config();
        let group = self.group.name();
        config.set("group.id", &group).set("enable.auto.commit", "false");
        let client: BaseConsumer<Hearing> = config.create_with_context(Hearing::default()).map_err(unusable)?;
        let metadata = self.reach(&client, until)?;
        let names = self.sources.iter().map(|name| (name, Role::Source));
        let names = names.chain(self.dead_letters.iter().map(|name| (name, Role::DeadLetters)));
        let mut topics: Vec<Topic> = names
            .map(|(name, role)| Topic {
                name: name.clone(),
                role,
                visible: visible(&client, &metadata, name, until),
                right: None,
                settings: Err(Unseen::Unknown("not there".to_owned())),
            })
            .collect();
        let there = |role: Role| -> Vec<String> {
            let there = |topic: &&Topic| matches!(topic.visible, Ok(Visible::There { .. })) && topic.role == role;
            topics.iter().filter(there).map(|topic| topic.name.clone()).collect()
        };
        let (sources, letters) = (there(Role::Source), there(Role::DeadLetters));
        // Whoever has no account cannot lack a grant.
        let asks_rights = self.connection.api_key.is_some();
        let partitions = partitions_of(&metadata, &sources);
        let (rights, settings, members, elsewhere, found) = std::thread::scope(|scope| {
            let reads = scope.spawn(|| match asks_rights {
                true => self.may_read(&sources, until),
                false => Vec::new(),
            });
            let writes = scope.spawn(|| match asks_rights {
                true => self.may_write(runtime, &letters, until),
                false => Vec::new(),
            });
            let settings = scope.spawn(|| self.settings(runtime, &sources, &letters, until));
            // It asks every broker, and waits for the slowest.
            let members = scope.spawn(|| members(&client, &group, until));
            let elsewhere = scope.spawn(|| self.elsewhere(&client, &partitions, until));
            let found = far(&client, &partitions, until);
            let gone = || Unseen::Unknown("nobody asked".to_owned());
            let members = members.join().unwrap_or_else(|_panic| Err(gone()));
            let elsewhere = elsewhere.join().unwrap_or_else(|_panic| Err(gone()));
            let mut rights = reads.join().unwrap_or_default();
            rights.extend(writes.join().unwrap_or_default());
            (rights, settings.join().unwrap_or_default(), members, elsewhere, found)
        });
        for topic in &mut topics {
            let named = |(name, _): &&(String, Right)| *name == topic.name;
            topic.right = rights.iter().find(named).map(|(_, right)| right.clone());
            if let Some((_, known)) = settings.iter().find(|(name, _)| *name == topic.name) {
                topic.settings = known.clone();
            }
        }
        let committed = found.map(|found| with_safety(&client, &topics, found, now_ms, until));
        Ok(Seen {
            brokers: metadata.brokers().len(),
            topics,
            members,
            committed,
            elsewhere,
        })
    }

    /// Of the groups that Kafka knows. One that this key may not see is none that it has used.
    fn elsewhere(
        &self,
        client: &BaseConsumer<Hearing>,
        partitions: &TopicPartitionList,
        until: Instant,
    ) -> Look<Vec<String>> {
        let unknown = |error: &dyn std::fmt::Display| Unseen::Unknown(error.to_string());
        let known = client
            .fetch_group_list(None, left(until))
            .map_err(|error| unknown(&error))?;
        let rivals = self.group.rivals();
        let rivals = rivals
            .into_iter()
            .filter(|rival| known.groups().iter().any(|group| group.name() == rival));
        let mut found = Vec::new();
        for rival in rivals {
            let asks = group_client(&self.connection, &rival).map_err(|error| unknown(&error))?;
            let committed = commitments(&asks, partitions, left(until)).map_err(|error| unknown(&error))?;
            if committed.is_some_and(|committed| is_any_committed(&committed)) {
                found.push(rival);
            }
        }
        Ok(found)
    }

    /// Asks until somebody answers, or it is clear why nobody will.
    fn reach(&self, client: &BaseConsumer<Hearing>, until: Instant) -> Result<Metadata, Trouble> {
        let mut all_told: Vec<Told> = Vec::new();
        loop {
            let error = match client.fetch_metadata(None, LOOK.min(left(until))) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            all_told.extend(told(client));
            if let Some(distrust) = all_told.iter().find_map(Distrust::of) {
                let mend = distrust.mend(&self.connection);
                return Err(match distrust {
                    Distrust::Key(cause) => Trouble::Key { cause, mend },
                    Distrust::Certificate(cause) => Trouble::Tls { cause, mend },
                });
            }
            if Instant::now() >= until {
                return Err(trouble(&self.connection, &all_told, &error.to_string()));
            }
        }
    }

    fn may_read(&self, topics: &[String], until: Instant) -> Vec<(String, Right)> {
        if !self.tries_rights {
            return untried(topics);
        }
        let config = fetch_probe_config(&self.connection, &self.group.name());
        let consumer = BaseConsumer::from_config_and_context(&config, Logging);
        let read = |topic: &String| {
            let right = match &consumer {
                Ok(_) if Instant::now() >= until => Ok(Right::Unknown("no answer in time".to_owned())),
                Ok(consumer) => fetch_end(consumer, topic, left(until)),
                Err(error) => Err(error.clone()),
            };
            let right = right.unwrap_or_else(|error| Right::Unknown(error.to_string()));
            (topic.clone(), right)
        };
        topics.iter().map(read).collect()
    }

    fn may_write(&self, runtime: &tokio::runtime::Handle, topics: &[String], until: Instant) -> Vec<(String, Right)> {
        if !self.tries_rights {
            return untried(topics);
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let rights = match may_write(runtime, &self.connection, &names, left(until)) {
            Ok(rights) => rights.into_iter().map(|(_grant, right)| right).collect(),
            Err(error) => vec![Right::Unknown(error.to_string()); topics.len()],
        };
        topics.iter().cloned().zip(rights).collect()
    }

    fn settings(
        &self,
        runtime: &tokio::runtime::Handle,
        sources: &[String],
        letters: &[String],
        until: Instant,
    ) -> Vec<(String, Look<Settings>)> {
        let topics: Vec<&String> = sources.iter().chain(letters).collect();
        if topics.is_empty() {
            return Vec::new();
        }
        let all = |why: &str| {
            let why = Unseen::Unknown(why.to_owned());
            topics.iter().map(|name| ((*name).clone(), Err(why.clone()))).collect()
        };
        let admin = AdminClient::from_config_and_context(&self.connection.config(), Logging);
        let admin: AdminClient<Logging> = match admin {
            Ok(admin) => admin,
            Err(error) => return all(&error.to_string()),
        };
        let wanted: Vec<ResourceSpecifier<'_>> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(left(until)));
        let asking = admin.describe_configs(&wanted, &options);
        let answered = runtime.block_on(async { tokio::time::timeout(left(until), asking).await });
        let answers = match answered {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return all(&error.to_string()),
            Err(_elapsed) => return all("no answer in time"),
        };
        // In the order of the question.
        let read = |(name, answer): (&&String, rdkafka::admin::ConfigResourceResult)| {
            let settings = match answer {
                Ok(resource) => {
                    let value = |key: &str| resource.get(key).and_then(|entry| entry.value.clone());
                    Ok(Settings {
                        retention_ms: value("retention.ms").and_then(|value| value.parse().ok()),
                        retention_bytes: value("retention.bytes").and_then(|value| value.parse().ok()),
                        cleanup_policy: value("cleanup.policy"),
                        max_message_bytes: value("max.message.bytes").and_then(|value| value.parse().ok()),
                    })
                }
                Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                    Err(Unseen::Refused)
                }
                Err(code) => Err(Unseen::Unknown(code.to_string())),
            };
            ((*name).clone(), settings)
        };
        topics.iter().zip(answers).map(read).collect()
    }
}

/// What is left, and never nothing: a client asked to wait for nothing may not even send.
fn left(until: Instant) -> Duration {
    until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(50))
}

/// Of everything that the client told until the patience was over, what explains it best.
fn trouble(connection: &Connection, told: &[Told], error: &str) -> Trouble {
    let reason = |wanted: fn(&Told) -> bool| told.iter().rfind(|told| wanted(told)).map(|(_, reason)| reason.clone());
    // What TLS itself says. A connection that broke meanwhile says nothing about it: the other end may just be away.
    let protocol = |(code, reason): &Told| {
        *code == Some(RDKafkaErrorCode::SSL)
            && (reason.contains("SSL handshake failed") || reason.contains("wrong version number"))
    };
    let name = |(code, _): &Told| *code == Some(RDKafkaErrorCode::Resolve);
    let other = |(code, _): &Told| *code != Some(RDKafkaErrorCode::AllBrokersDown);
    let (servers, speaks) = (&connection.bootstrap_servers, &connection.security_protocol);
    if let Some(cause) = reason(protocol) {
        let mend = format!("Check whether {servers} speaks {speaks} (KAFKA_SECURITY_PROTOCOL), and the port");
        return Trouble::Tls { cause, mend };
    }
    match (reason(name), reason(other)) {
        (Some(cause), _) => Trouble::Name(cause),
        (None, Some(cause)) => Trouble::Silent(cause),
        (None, None) => Trouble::Silent(error.to_owned()),
    }
}

fn untried(topics: &[String]) -> Vec<(String, Right)> {
    let why = || Right::Unknown("not tried by a worker that runs".to_owned());
    topics.iter().map(|topic| (topic.clone(), why())).collect()
}

fn visible(client: &BaseConsumer<Hearing>, all: &Metadata, name: &str, until: Instant) -> Look<Visible> {
    if let Some(topic) = named(all, name) {
        return there(topic);
    }
    // Not among those that the account may see: asked by its name, Kafka says whether it is hidden.
    let metadata = client.fetch_metadata(Some(name), left(until));
    let metadata = metadata.map_err(|error| Unseen::Unknown(error.to_string()))?;
    named(&metadata, name).map_or(Ok(Visible::Missing), there)
}

fn named<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a MetadataTopic> {
    metadata.topics().iter().find(|topic| topic.name() == name)
}

fn there(topic: &MetadataTopic) -> Look<Visible> {
    match topic.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => return Err(Unseen::Refused),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Ok(Visible::Missing);
        }
        Some(other) => return Err(Unseen::Unknown(other.to_string())),
        None => {}
    }
    let partitions = topic.partitions();
    if partitions.is_empty() {
        return Ok(Visible::Missing);
    }
    let offline = partitions.iter().filter(|partition| partition.leader() < 0);
    Ok(Visible::There {
        partitions: partitions.len(),
        offline: offline.map(|partition| partition.id()).collect(),
    })
}

fn members(client: &BaseConsumer<Hearing>, group: &str, until: Instant) -> Look<Members> {
    let listed = client.fetch_group_list(Some(group), left(until));
    let listed = listed.map_err(|error| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Unseen::Refused,
        _ => Unseen::Unknown(error.to_string()),
    })?;
    let found = listed.groups().iter().find(|found| found.name() == group);
    Ok(Members {
        state: found.map(|found| found.state().to_owned()).unwrap_or_default(),
        members: found.map_or_else(Vec::new, |found| {
            let member = |member: &rdkafka::groups::GroupMemberInfo| {
                format!(
                    "{} at {}",
                    member.client_id(),
                    member.client_host().trim_start_matches('/')
                )
            };
            found.members().iter().map(member).collect()
        }),
    })
}

fn partitions_of(all: &Metadata, topics: &[String]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for topic in topics.iter().filter_map(|name| named(all, name)) {
        for partition in topic.partitions() {
            list.add_partition(topic.name(), partition.id());
        }
    }
    list
}

/// How far the group is, and where the logs begin and end.
fn far(client: &BaseConsumer<Hearing>, list: &TopicPartitionList, until: Instant) -> Look<Vec<Committed>> {
    if list.count() == 0 {
        return Err(Unseen::Unknown(
            "no topic is there that it could be asked about".to_owned(),
        ));
    }
    let unknown = |error: String| Unseen::Unknown(error);
    match commitments(client, list, left(until)) {
        Ok(Some(_committed)) => {}
        Ok(None) => return Err(Unseen::Refused),
        Err(error) => return Err(unknown(error.to_string())),
    }
    let found = look_up(client, list, left(until)).map_err(|error| unknown(error.to_string()))?;
    let committed = found.into_iter().map(|one| Committed {
        topic: one.topic,
        partition: one.partition,
        found: one.found,
        safe_from: None,
    });
    Ok(committed.collect())
}

/// Looks for the records that retention spares for a while: what is not read yet and lies before them is in danger.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a share of a time; no milliseconds matter"
)]
fn with_safety(
    client: &BaseConsumer<Hearing>,
    topics: &[Topic],
    mut committed: Vec<Committed>,
    now_ms: i64,
    until: Instant,
) -> Vec<Committed> {
    let retention = |topic: &Topic| topic.settings.as_ref().ok().and_then(|settings| settings.retention_ms);
    for (topic, retention_ms) in topics.iter().filter_map(|topic| Some((topic, retention(topic)?))) {
        let mut list = TopicPartitionList::new();
        for one in committed.iter().filter(|one| one.topic == topic.name) {
            list.add_partition(&one.topic, one.partition);
        }
        if retention_ms <= 0 || list.count() == 0 || Instant::now() >= until {
            continue;
        }
        let oldest_safe_ms = now_ms - (retention_ms as f64 * DANGER) as i64;
        let Ok(safe) = positions(client, &list, Offset::Offset(oldest_safe_ms.max(0)), left(until)) else {
            continue;
        };
        for one in committed.iter_mut().filter(|one| one.topic == topic.name) {
            let offset = safe
                .find_partition(&one.topic, one.partition)
                .map(|found| found.offset());
            one.safe_from = match offset {
                Some(Offset::Offset(offset)) => Some(offset),
                // Nothing is that young: all of it is in danger.
                Some(Offset::End) => Some(one.found.end),
                _ => None,
            };
        }
    }
    committed
}
