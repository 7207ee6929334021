//! moderato: posts in from Kafka, verdicts out, judged by a Llama-architecture model in ONNX Runtime.
//!
//! The road: the consumer thread polls a record and enters its offset in the ledger; prepare decodes it, tokenises it
//! and asks twins and cache; the batcher gathers like lengths; the model's thread scores them over the shared prompt;
//! conclude applies the policy, publishes in order and settles; the ledger moves; the next offset is committed.
//! Nothing travels backwards but the receipt that says "this offset is finished".
//!
//! Direction of use, one way only: `main`, `cli` → `diff` → `app`, `eval`, `reconcile`, `dead_letters`, `export` → `pipeline` → `kafka` | `cache` | `model` → the rest.

pub mod admin;
pub mod app;
pub mod archive;
pub mod audit;
pub mod cache;
pub mod calibration;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod diff;
pub mod error;
pub mod eval;
pub mod event;
pub mod evidence;
pub mod explain;
pub mod export;
pub mod fault;
pub mod files;
pub mod html;
pub mod hygiene;
pub mod kafka;
pub mod language;
pub mod model;
pub mod note;
pub mod pipeline;
pub mod policy;
pub mod post;
pub mod receipt;
pub mod reconcile;
pub mod registry;
pub mod rejection;
pub mod replay;
pub mod reply;
pub mod samples;
pub mod shape;
pub mod suspects;
pub mod telemetry;
pub mod verdict;
