//! Everything that speaks the Kafka protocol: the consumer thread with its ledger, the publisher, and what reads topics
//! and puts dead letters back for the verbs that look after them.

mod bounded;
pub mod cleanup;
pub mod consumer;
pub mod dead_letter;
mod headers;
pub mod ledger;
mod membership;
mod permits;
pub mod probe;
pub mod publisher;
pub mod range;
mod record;
pub mod redrive;
pub mod settings;
mod transaction;
mod transactor;

pub use headers::{verdict_header, with_verdict};
