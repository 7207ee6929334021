//! A labelled set against the worker's own verdicts: figures with intervals, and what a person looks at.
//!
//! Everything here is pure. `cli/eval.rs` reads the files, puts the posts on the road of `moderato classify` and hands
//! over the verdicts; this turns rows and verdicts into an [`report::EvalV1`], and that into a page.

pub mod adversarial;
pub mod assemble;
pub mod bootstrap;
pub mod bounds;
pub mod dataset;
pub mod evaluate;
pub mod fit;
pub mod html;
pub mod parity;
pub mod ranking;
pub mod report;
pub mod sample;
pub mod verdicts;
