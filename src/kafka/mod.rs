//! Everything that speaks the Kafka protocol: the consumer thread with its ledger, and the publisher.

pub mod consumer;
mod headers;
pub mod ledger;
mod permits;
pub mod probe;
pub mod publisher;
pub mod settings;
