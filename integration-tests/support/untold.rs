//! What the program must keep to itself: the text of posts, and the secrets that the tests give it.
//!
//! Everything that any test makes the program say passes here: each worker's log when the worker is dropped, each
//! output, and the program's own headers on every record read back.

/// Part of every post's text that [`super::pool::post`] makes.
pub const OVERHEARD: &str = "overheard";

/// Words of the tests' secrets, none of which the program has another use for.
const SECRETS: [&str; 10] = [
    "battery",
    "staple",
    "monkey",
    "dishwasher",
    "rosebud",
    "xyzzy",
    "reader's",
    "hunter2",
    "environment-4711",
    "file-4711",
];

/// Panics if `said` repeats a post or a secret.
pub fn assert_untold(said: &[u8], who: &str) {
    let said = String::from_utf8_lossy(said);
    for word in SECRETS.iter().chain([&OVERHEARD]) {
        if let Some(at) = said.find(word) {
            let line = said[..at].lines().count();
            panic!("{who} tells `{word}`, of a post's text or of a secret, in line {line}");
        }
    }
}
