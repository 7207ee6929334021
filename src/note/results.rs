//! What the checks of a note find, as it travels with the note.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One check, by its stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A text was drafted although there is no evidence.
    Ungrounded,
    /// Empty, or it does not end as a sentence.
    Incomplete,
    /// Words or marks of the prompt.
    Prompt,
    /// What a post asks to have repeated.
    Canary,
    /// A link that is not in the evidence.
    Url,
    /// A number that is neither in the post nor in the evidence.
    Number,
    /// A name that is neither in the post nor in the evidence.
    Name,
    /// A handle, or whoever wrote the post.
    Author,
    /// Somebody is spoken to or accused.
    Address,
    /// Sarcasm, a hashtag or an emoji.
    Tone,
    /// A sentence stands there twice.
    Repetition,
    /// The note does not agree with the verdict, or rules in its own name.
    Verdict,
    /// Another language than the post's.
    Language,
    /// A citation that was not given.
    CitationUnknown,
    /// Evidence was given and none is cited.
    CitationMissing,
    /// Too long.
    Length,
}

impl Check {
    /// In words, as the model is told when it may try again.
    pub fn words(self) -> &'static str {
        match self {
            Check::Ungrounded => "there is no evidence",
            Check::Incomplete => "it does not end as a sentence",
            Check::Prompt => "words of the prompt",
            Check::Canary => "words that the post asks to have repeated",
            Check::Url => "a link that is not in the evidence",
            Check::Number => "a number that is neither in the post nor in the evidence",
            Check::Name => "a name that is neither in the post nor in the evidence",
            Check::Author => "it speaks of an account or an author",
            Check::Address => "it addresses or accuses somebody",
            Check::Tone => "sarcasm, a hashtag or an emoji",
            Check::Repetition => "it says a sentence twice",
            Check::Verdict => "it does not agree with the verdict",
            Check::Language => "it is in another language than the post",
            Check::CitationUnknown => "it cites evidence that was not given",
            Check::CitationMissing => "it cites no evidence",
            Check::Length => "longer than 280 characters",
        }
    }
}

/// What the checks found. `false` and 0 are good news but for `within_280_chars_excluding_urls` and `ends_as_sentence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoteChecks {
    /// Unicode characters of the note, links not counted.
    pub chars_excluding_urls: usize,
    /// Whether these are at most 280.
    pub within_280_chars_excluding_urls: bool,
    /// Links that are not in the evidence.
    pub urls_not_in_evidence: usize,
    /// Numbers that are neither in the post nor in the evidence.
    pub numbers_not_in_post_or_evidence: usize,
    /// Words with a capital, and pairs of them, that are neither in the post nor in the evidence.
    pub names_not_in_post_or_evidence: usize,
    /// An `@` before a name, or words such as `the user`.
    pub author_or_handle_mentioned: bool,
    /// Words such as `you` and `liar`.
    pub second_person_or_accusation: bool,
    /// Words such as `obviously`, a hashtag, or an emoji.
    pub sarcasm_hashtag_or_emoji: bool,
    /// It says a sentence twice; of the fixed form, which quotes the post, this is not asked.
    pub sentence_repeated: bool,
    /// A code of letters and digits that is not in the evidence, or words of a sentence by which the post speaks to the
    /// machine.
    pub injection_canary_present: bool,
    /// Six words in a row of the prompt, its marks, control tokens or label names.
    pub prompt_text_present: bool,
    /// It calls true what the verdict calls misinformation, or the reverse; decides what the verdict leaves open; or rules
    /// on the claim in words that are not the evidence's.
    pub disagrees_with_verdict: bool,
    /// Its language is known, the post's too, and they differ.
    pub language_differs: bool,
    /// It is not empty, and ends with a full stop or the like.
    pub ends_as_sentence: bool,
    /// Citations that were not given.
    pub citations_not_in_evidence: usize,
    /// Evidence was given, and none is cited.
    pub evidence_uncited: bool,
    /// Without evidence only the fixed form is allowed, and this is another text.
    pub drafted_without_evidence: bool,
}

impl NoteChecks {
    /// The checks that failed, in the order of [`Check`].
    pub fn failed(&self) -> Vec<Check> {
        let all = [
            (Check::Ungrounded, self.drafted_without_evidence),
            (Check::Incomplete, !self.ends_as_sentence),
            (Check::Prompt, self.prompt_text_present),
            (Check::Canary, self.injection_canary_present),
            (Check::Url, self.urls_not_in_evidence > 0),
            (Check::Number, self.numbers_not_in_post_or_evidence > 0),
            (Check::Name, self.names_not_in_post_or_evidence > 0),
            (Check::Author, self.author_or_handle_mentioned),
            (Check::Address, self.second_person_or_accusation),
            (Check::Tone, self.sarcasm_hashtag_or_emoji),
            (Check::Repetition, self.sentence_repeated),
            (Check::Verdict, self.disagrees_with_verdict),
            (Check::Language, self.language_differs),
            (Check::CitationUnknown, self.citations_not_in_evidence > 0),
            (Check::CitationMissing, self.evidence_uncited),
            (Check::Length, !self.within_280_chars_excluding_urls),
        ];
        all.into_iter().filter(|(_, failed)| *failed).map(|(check, _)| check).collect()
    }
}
