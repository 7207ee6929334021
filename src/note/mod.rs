//! Notes: short drafts for moderators, grounded in a post and its evidence, and what keeps them so.
//!
//! A model writes, `checks` refuse, `fixed_form` stands in. Nothing here decides or publishes: a note is a draft until a
//! person approves it.

pub mod checks;
pub mod draft;
mod fixed_form;
mod ground;
mod lexicon;
mod message;
mod policy;
mod results;
pub mod v1;
mod words;

pub use checks::{Checker, Form, PromptWords};
pub use draft::{Draft, MAX_DRAFTS, Unasked, Written};
pub use ground::Ground;
pub use message::{Message, message};
pub use policy::NotePolicy;
pub use results::{Check, NoteChecks};
pub use v1::{NoteData, NoteV1, VerdictRef};
