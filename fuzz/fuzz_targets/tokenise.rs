//! Any text, whole, through hygiene and tokenising, in every vocabulary at hand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moderato::model::{InputLimit, OnOverlong};
use moderato_fuzz::JUDGES;

const LIMIT: InputLimit = InputLimit { max_input_tokens: 1 << 20, on_overlong: OnOverlong::Reject };

fuzz_target!(|text: &str| JUDGES.iter().for_each(|judge| judge.check(text, &LIMIT)));
