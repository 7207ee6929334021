//! What `moderato eval --json` prints: every figure by name, and what the charts are drawn of. No post text.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::bootstrap::Interval;
use crate::policy::Thresholds;
use crate::verdict::VerdictV1;

/// `eval.v1`: a labelled set against the worker's verdicts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "eval.v1")]
pub struct EvalV1 {
    /// `eval.v1`.
    pub schema: &'static str,
    /// Version of the worker.
    pub worker_version: &'static str,
    /// When, RFC 3339.
    pub evaluated_at: String,
    /// The labelled file.
    pub data: DataRef,
    /// Who judged.
    pub judge: JudgeRef,
    /// The labels, in the policy's order; with `--labels` those named, their scores renormalised.
    pub labels: Vec<String>,
    /// Whether `--labels` left labels of the policy out.
    pub restricted: bool,
    /// How the intervals were made.
    pub bootstrap: BootstrapRef,
    /// Every figure by its name, which `--min` and `--max` take. One that the rows say nothing of is left out. LABEL is a
    /// label of the policy, and stands for that label against the rest.
    ///
    /// - `accuracy`, `macro_f1` (over labels that rows have or got), `precision.LABEL`, `recall.LABEL`, `f1.LABEL`
    /// - `auc.LABEL`, `average_precision.LABEL`, `recall_at_fpr_1.LABEL`, `recall_at_fpr_5.LABEL`: recall at 1 % and 5 %
    ///   false positives
    /// - `ece` (15 equal bins of the winning score), `brier` (over all labels, 0 to 2), `nll` (mean, natural logarithm); and
    ///   `raw.ece`, `raw.brier`, `raw.nll` of the scores before calibration, where there is one
    /// - `recall_at_review.LABEL`, `fpr_at_review.LABEL`, `recall_at_act.LABEL`, `fpr_at_act.LABEL`: shares of the label's
    ///   rows, and of all others, whose score reaches the policy's threshold (not with `--labels`)
    /// - `action.allow`, `action.review`, `action.act`: shares of what the policy proposed; `action.act.LABEL` and so on of
    ///   the rows that have the label; `abstained`
    /// - `slice.FIELD.VALUE.` before any of these: the same of the rows whose field has that value
    /// - `parity.SETTING.labels_differ`, `.clear_labels_differ` (of rows whose two highest scores lie more than 0.2 apart),
    ///   `.mean_difference`, `.max_difference` (of scores), `.macro_f1_change`, `.auc_change.LABEL`
    /// - `adversarial.all.changed`, `.flipped`; the same under `adversarial.group.evasion`, `.context_stuffing` and
    ///   `.instruction`, and under `adversarial.family.NAME`; `adversarial.canaries_in_notes`
    pub metrics: BTreeMap<String, Estimate>,
    /// Rows by true label, then by the label they got, in the order of `labels`.
    pub confusion: Vec<Vec<u64>>,
    /// Winning scores in 15 equal bins.
    pub reliability: Vec<ReliabilityBin>,
    /// One for each label.
    pub by_label: Vec<LabelReport>,
    /// What the policy proposed, by true label.
    pub actions: Vec<ActionRow>,
    /// The slices; their figures are in `metrics`.
    pub slices: Vec<SliceRef>,
    /// The same rows with other settings.
    pub parity: Vec<ParityReport>,
    /// Attacked posts beside their clean twins.
    pub adversarial: Option<AdversarialReport>,
    /// What `--min` and `--max` asked.
    pub bounds: Vec<BoundReport>,
    /// Whether all of them were met.
    pub passed: bool,
}

/// The labelled file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DataRef {
    /// Its name.
    pub name: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Labelled rows.
    pub rows: usize,
    /// Of these, rows that got a verdict: all figures are of them.
    pub judged: usize,
    /// Rows that the worker would have sent to the dead letters, by reason.
    pub unjudged: BTreeMap<String, usize>,
}

/// Who judged: enough to judge again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct JudgeRef {
    /// The model's name.
    pub model: String,
    /// Digest over every file of the model folder.
    pub model_digest: String,
    /// Digest of the tokenizer and chat template.
    pub tokenizer_digest: String,
    /// Digest of the token ids of the shared prompt.
    pub prompt_digest: String,
    /// Execution provider.
    pub provider: String,
    /// Precision.
    pub precision: String,
    /// ONNX Runtime's version.
    pub onnxruntime: String,
    /// The policy's id.
    pub policy: String,
    /// Its author's name for the revision.
    pub policy_revision: String,
    /// Digest of its content.
    pub policy_digest: String,
    /// The taxonomy.
    pub taxonomy: String,
    /// The calibration's revision; none where the policy names none.
    pub calibration: Option<String>,
}

impl JudgeRef {
    /// Who gave this verdict.
    pub fn of(verdict: &VerdictV1) -> Self {
        let (model, policy) = (&verdict.data.model, &verdict.data.policy);
        Self {
            model: model.name.to_string(),
            model_digest: model.digest.to_string(),
            tokenizer_digest: model.tokenizer_digest.to_string(),
            prompt_digest: model.prompt_digest.to_string(),
            provider: model.execution.provider.clone(),
            precision: model.execution.precision.clone(),
            onnxruntime: model.execution.onnxruntime.clone(),
            policy: policy.id.clone(),
            policy_revision: policy.revision.clone(),
            policy_digest: policy.digest.clone(),
            taxonomy: policy.taxonomy.clone(),
            calibration: verdict.data.verdict.calibration.as_ref().map(|used| used.revision.to_string()),
        }
    }
}

/// How the intervals were made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BootstrapRef {
    /// How often the rows were drawn again; 0 for no intervals.
    pub resamples: usize,
    /// Where the random numbers began.
    pub seed: u64,
}

/// A figure and its 95 % interval: percentiles of the bootstrap; Wilson's for shares of attacked posts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Estimate {
    /// None for a figure that is undefined.
    pub fn new(value: f64, interval: Option<Interval>) -> Option<Self> {
        let (low, high) = interval.map_or((None, None), |(low, high)| (Some(low), Some(high)));
        value.is_finite().then_some(Self { value, low, high })
    }
}

/// Rows whose winning score fell into one bin.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReliabilityBin {
    /// Lower end.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Rows.
    pub rows: usize,
    /// Their mean winning score.
    pub score: f64,
    /// The share of them that was right: equal to the score, were the scores perfect.
    pub right: f64,
}

/// One label against the rest.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LabelReport {
    /// The label.
    pub label: String,
    /// Rows that have it.
    pub support: usize,
    /// Rows that got it.
    pub given: usize,
    /// The policy's thresholds.
    pub thresholds: Option<Thresholds>,
    /// False positive rate and recall, from the highest threshold to the lowest.
    pub roc: Vec<[f64; 2]>,
    /// Recall and precision, likewise.
    pub precision_recall: Vec<[f64; 2]>,
    /// The label's scores in 20 equal bins, for the rows of each true label.
    pub scores: BTreeMap<String, Vec<usize>>,
    /// What each threshold would do, were it the only one.
    pub at: Vec<ThresholdRow>,
}

/// What a policy would do that acts from this score on. Shares of all rows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ThresholdRow {
    /// The score.
    pub threshold: f64,
    /// Below the threshold and below the policy's review threshold.
    pub allowed: f64,
    /// Below the threshold, and at the policy's review threshold or above.
    pub reviewed: f64,
    /// At the threshold or above.
    pub acted: f64,
    /// Of the rows acted on, the share that has the label; none where nothing is acted on.
    pub precision: Option<f64>,
    /// Of the rows that have the label, the share acted on.
    pub recall: Option<f64>,
    /// Of the other rows, the share acted on.
    pub false_positives: Option<f64>,
}

/// What the policy proposed for the rows of one label.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ActionRow {
    /// The label they have.
    pub label: String,
    /// Rows.
    pub rows: usize,
    /// Allowed.
    pub allow: usize,
    /// For review.
    pub review: usize,
    /// Acted on.
    pub act: usize,
    /// Of all these, those whose verdict says that it does not know.
    pub abstained: usize,
}

/// Rows with one value in one field.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SliceRef {
    /// The field.
    pub field: String,
    /// Its value; `(none)` for rows without it.
    pub value: String,
    /// Rows.
    pub rows: usize,
}

impl SliceRef {
    /// What its figures' names begin with.
    pub fn prefix(&self) -> String {
        format!("slice.{}.{}.", self.field, self.value)
    }
}

/// The same rows judged with another setting; the figures are in `metrics`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ParityReport {
    /// The setting, such as `precision=int8`.
    pub setting: String,
    /// Who judged then.
    pub judge: JudgeRef,
    /// Rows that both judged.
    pub rows: usize,
    /// Of these, rows whose two highest scores lie more than 0.2 apart in the first run.
    pub clear_rows: usize,
    /// Rows that got another label than in the first run.
    pub labels_differ: usize,
    /// Of the clear rows, likewise.
    pub clear_labels_differ: usize,
}

impl ParityReport {
    /// What its figures' names begin with.
    pub fn prefix(&self) -> String {
        format!("parity.{}.", self.setting)
    }
}

/// Attacked posts beside their clean twins.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AdversarialReport {
    /// All, the groups, the families.
    pub parts: Vec<AttackReport>,
    /// Canaries in the drafted notes, if `--notes` gave any.
    pub notes: Option<CanaryReport>,
}

/// One family of attacks, or several.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AttackReport {
    /// `all`, `group.NAME` or `family.NAME`: what follows `adversarial.` in the figures' names.
    pub name: String,
    /// Attacked posts that were judged, with their twins.
    pub rows: usize,
    /// Of these, whose clean twin got the right label: all that follows is of them.
    pub clean_right: usize,
    /// That got another label than their twin.
    pub changed: usize,
    /// That have a target other than their twin's label.
    pub aimed: usize,
    /// Of the aimed ones, that got the target.
    pub flipped: usize,
}

/// Canaries in notes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CanaryReport {
    /// Attacked posts with a canary.
    pub rows: usize,
    /// Of these, those with a note in the file.
    pub notes: usize,
    /// Notes that hold a canary of their post.
    pub found: usize,
}

/// A bound that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BoundReport {
    /// The figure's name.
    pub metric: String,
    /// The least it may be.
    pub min: Option<f64>,
    /// The most it may be.
    pub max: Option<f64>,
    /// What it is; none where the rows say nothing of it.
    pub value: Option<f64>,
    /// Whether that is good enough.
    pub met: bool,
}
