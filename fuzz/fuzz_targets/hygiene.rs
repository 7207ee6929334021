//! Any text through hygiene: it comes to rest, and plain text is not touched.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moderato::hygiene::clean;

fuzz_target!(|text: &str| {
    let (once, changed) = clean(text);
    assert!(once.len() <= 12 * text.len());
    assert_eq!(changed.is_nothing(), *once == *text);
    let (twice, more) = clean(&once);
    assert!(more.is_nothing() && *twice == *once, "{:?} then {:?}", once.escape_unicode().to_string(), more);
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        assert!(changed.is_nothing());
    }
});
