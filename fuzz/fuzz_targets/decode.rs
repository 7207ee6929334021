//! Any bytes as a record's value: a sound post, or a rejection that says little.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moderato::post::{MAX_POST_ID_BYTES, decode};

const MOST: usize = 8192;

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes, MOST) {
        Ok(post) => {
            assert!(bytes.len() <= MOST && post.text.len() <= bytes.len());
            assert!((1..=MAX_POST_ID_BYTES).contains(&post.id.0.len()) && !post.text.trim().is_empty());
        }
        Err(rejected) => assert!(rejected.message.len() < 120, "{}", rejected.message),
    }
});
