//! Everything that speaks the Kafka protocol: the consumer thread with its ledger, and the publisher.

pub mod consumer;
pub mod ledger;
mod membership;
pub mod probe;
pub mod publisher;
mod record;
pub mod settings;
mod transactor;
