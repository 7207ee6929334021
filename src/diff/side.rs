//! The verdicts of one side, a compact row each: a million pairs fit well below a gigabyte.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::names::{Name, Names};
use crate::eval::report::JudgeRef;
use crate::language::of_post;
use crate::policy::Action;
use crate::verdict::{ActionReason, InputRef, Judgement, PolicyRef, VerdictV1};

/// What the language of a post is called that nobody knows.
pub const UNKNOWN: &str = "(unknown)";

/// One verdict.
#[derive(Debug)]
pub struct Row {
    /// The post's id.
    pub post: Box<str>,
    /// Its version, if it has one.
    pub version: Option<u64>,
    /// Where it stood.
    pub topic: Name,
    /// Where it stood.
    pub partition: i32,
    /// Where it stood.
    pub offset: i64,
    /// When the post was made: its record's timestamp, or where it has none, when it was judged.
    pub time_ms: i64,
    /// The post's language.
    pub lang: Name,
    /// The beginning of its text's SHA-256: tells whether a text at hand is the one that was judged.
    pub text: u128,
    /// The label.
    pub label: Name,
    /// Its score.
    pub score: f64,
    /// What was proposed.
    pub action: Action,
    /// Why.
    pub reason: ActionReason,
    /// The label that called for it.
    pub action_label: Name,
    shape: u32,
    at: usize,
}

impl Row {
    /// Whether the scores call for acting, a used-up quota or not.
    pub fn calls_for_act(&self) -> bool {
        self.action == Action::Act || self.reason == ActionReason::Quota
    }
}

/// Everything that was read for one side.
#[derive(Debug, Default)]
pub struct Side {
    /// One for each verdict, in the order of reading, without repeats.
    pub rows: Vec<Row>,
    /// Verdicts whose id had come before.
    pub repeats: u64,
    /// Who judged, and how often.
    pub judges: Vec<(JudgeRef, u64)>,
    scores: Vec<f64>,
    shapes: Vec<Box<[Name]>>,
    known_shapes: HashMap<Box<[Name]>, u32>,
    seen: HashSet<u128>,
}

impl Side {
    /// Enters a verdict: `judged` under `policy`, its own or a candidate's. False for a repeat, which is only counted.
    pub fn take(
        &mut self,
        names: &mut Names,
        verdict: &VerdictV1<'_>,
        (judged, policy): (&Judgement<'_>, &PolicyRef),
    ) -> bool {
        if !self.seen.insert(head(&Sha256::digest(verdict.id.as_bytes()))) {
            self.repeats += 1;
            return false;
        }
        let input = &verdict.data.input;
        let mut text = [0; 16];
        // What is no digest fits no text.
        let _ = hex::decode_to_slice(input.text_sha256.get(..32).unwrap_or_default(), &mut text);
        let judged_at = || verdict.time.parse::<jiff::Timestamp>().map_or(0, |time| time.as_millisecond());
        let shape: Box<[Name]> = judged.scores.keys().map(|label| names.number(label)).collect();
        let row = Row {
            post: (&*input.post_id).into(),
            version: input.version,
            topic: names.number(&input.kafka.topic),
            partition: input.kafka.partition,
            offset: input.kafka.offset,
            time_ms: input.kafka.timestamp_ms.unwrap_or_else(judged_at),
            lang: names.number(language(input).as_deref().unwrap_or(UNKNOWN)),
            text: u128::from_be_bytes(text),
            label: names.number(&judged.label),
            score: judged.score,
            action: judged.action,
            reason: judged.action_reason,
            action_label: names.number(&judged.action_label),
            shape: self.shape(shape),
            at: self.scores.len(),
        };
        self.scores.extend(judged.scores.values());
        self.rows.push(row);
        self.count(verdict, judged, policy);
        true
    }

    fn shape(&mut self, labels: Box<[Name]>) -> u32 {
        if let Some(known) = self.known_shapes.get(&labels) {
            return *known;
        }
        let number = u32::try_from(self.shapes.len()).unwrap_or(u32::MAX);
        self.shapes.push(labels.clone());
        self.known_shapes.insert(labels, number);
        number
    }

    fn count(&mut self, verdict: &VerdictV1<'_>, judged: &Judgement<'_>, policy: &PolicyRef) {
        let (model, execution) = (&verdict.data.model, &verdict.data.model.execution);
        let same = |judge: &JudgeRef| {
            judge.policy_digest == policy.digest
                && judge.model_digest == model.digest
                && judge.prompt_digest == model.prompt_digest
                && judge.precision == execution.precision
                && judge.provider == execution.provider
                && judge.onnxruntime == execution.onnxruntime
        };
        match self.judges.iter_mut().find(|(judge, _)| same(judge)) {
            Some((_, count)) => *count += 1,
            None => {
                let PolicyRef { id, revision, digest, taxonomy } = policy.clone();
                let judge = JudgeRef {
                    policy: id,
                    policy_revision: revision,
                    policy_digest: digest,
                    taxonomy,
                    calibration: judged.calibration.as_ref().map(|calibration| calibration.revision.to_string()),
                    ..JudgeRef::of(verdict)
                };
                self.judges.push((judge, 1));
            }
        }
    }

    /// Every label's score in a row, exactly as it was given.
    pub fn scores(&self, row: &Row) -> impl Iterator<Item = (Name, f64)> {
        let labels = self.shapes.get(row.shape as usize).map_or(&[][..], |labels| labels);
        labels.iter().copied().zip(self.scores[row.at..].iter().copied())
    }

    /// Every label that any row has a score of.
    pub fn labels(&self) -> impl Iterator<Item = Name> {
        self.shapes.iter().flat_map(|labels| labels.iter().copied())
    }
}

/// The first half of a digest, as a number.
pub fn head(digest: &[u8]) -> u128 {
    digest.iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// The language of a post as its verdict tells it: what the text was found to be in, or else what its producer said.
pub fn language(input: &InputRef<'_>) -> Option<String> {
    let detected = input.lang_detected.as_deref().map(str::to_owned);
    detected.or_else(|| of_post(input.lang.as_deref(), None))
}
