//! The Kafka source on librdkafka's mock cluster. Joining a group takes it three seconds.

mod commits;
