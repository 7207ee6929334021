//! Everything that speaks the Kafka protocol: the consumer thread with its ledger, the publisher, and what reads topics
//! and puts dead letters back for the verbs that look after them.

pub mod aside;
mod bounded;
pub mod bounds;
mod chains;
mod checkpoints;
pub mod cleanup;
mod commits;
pub mod consumer;
pub mod dead_letter;
mod events;
mod headers;
mod heads;
mod intake;
mod lag;
pub mod ledger;
pub mod mark;
mod membership;
mod permits;
pub mod place;
pub mod probe;
pub mod publisher;
pub mod range;
mod record;
pub mod redrive;
mod reports;
pub mod settings;
mod trace;
mod transaction;
mod transactor;

/// The version of librdkafka.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

pub use headers::{verdict_header, with_verdict};
