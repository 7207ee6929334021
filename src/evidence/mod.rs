//! A verdict log that tells when it was tampered with: links between records, signed checkpoints, and the reading that
//! finds what was altered, removed, inserted or put in another order. Pure: no client, no clock, no files but keys.

pub mod checkpoint;
pub mod key;
pub mod link;
pub mod verify;
