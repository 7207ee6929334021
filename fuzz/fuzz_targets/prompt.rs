//! Texts made of tags, control tokens, hidden characters and floods, cut to any length in any way.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use moderato::model::{InputLimit, OnOverlong};
use moderato_fuzz::JUDGES;

const PARTS: [&str; 24] = [
    "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|im_start|>", "<|im_end|>", "<|endoftext|>",
    "[IN", "ST]", "INST", "[", "]", "<0x0A>", "\u{200b}", "\u{202e}", "\u{335}", "🙂\u{200d}", "а", " ", "\n", "▁",
];

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    pieces: Vec<Piece<'a>>,
    most: u16,
    mode: Mode,
}

#[derive(Debug, Arbitrary)]
enum Piece<'a> {
    Text(&'a str),
    Part(u8),
    Flood(u8, u16),
}

#[derive(Debug, Arbitrary)]
enum Mode {
    Middle,
    Tail,
    Reject,
}

fuzz_target!(|case: Case<'_>| {
    let part = |n: &u8| PARTS[usize::from(*n) % PARTS.len()];
    let text: String = case
        .pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => (*text).to_owned(),
            Piece::Part(n) => part(n).to_owned(),
            Piece::Flood(n, times) => part(n).repeat(usize::from(*times) % 4096),
        })
        .collect();
    let on_overlong = match case.mode {
        Mode::Middle => OnOverlong::TruncateMiddle,
        Mode::Tail => OnOverlong::TruncateTail,
        Mode::Reject => OnOverlong::Reject,
    };
    let limit = InputLimit { max_input_tokens: 1 + usize::from(case.most) % 2048, on_overlong };
    JUDGES.iter().for_each(|judge| judge.check(&text, &limit));
});
