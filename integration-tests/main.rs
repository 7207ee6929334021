//! The integration tests: the real program between a real Apache Kafka, a real Redis and a real (tiny) model.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_input;
mod calibration;
mod classify;
mod command_line;
mod dead_letters;
mod delivery;
mod devices;
mod draft;
mod edits;
mod eval;
mod exactly_once;
mod explain;
mod export;
mod faults_broker;
mod faults_circuit;
mod faults_errors;
mod faults_group;
mod faults_killed;
mod faults_model;
mod faults_poison;
mod gpu;
mod harness;
mod headers;
mod hygiene;
mod instances;
mod model;
mod naughty;
mod notes;
mod operate;
mod outside;
mod rebalance;
mod reconcile;
mod redis_cache;
mod redis_crowd;
mod redis_faults;
mod reload;
mod road;
mod secured;
mod shadow;
mod soak;
mod structure;
mod support;
mod telemetry;
mod tokens;
