//! What `moderato diff --json` prints. No post text unless texts were given.

use schemars::JsonSchema;
use serde::Serialize;

use crate::app::Spent;
use crate::calibration::BASELINE_BINS;
use crate::eval::report::{Estimate, JudgeRef};
use crate::policy::Action;
use crate::reconcile::Findings;
use crate::verdict::ActionReason;

/// `diff.v1`: the verdicts of two sides on the same posts. `a` is the first side, `b` the second: another place of verdicts,
/// a candidate policy on the raw scores of `a`, or a candidate that judged the posts beside `a`. In pairs of numbers the first is of `a`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "diff.v1")]
pub struct DiffV1 {
    /// `diff.v1`.
    pub schema: &'static str,
    /// Version of the worker.
    pub worker_version: &'static str,
    /// When, RFC 3339.
    pub compared_at: String,
    /// No label, action or score differs, nothing is on one side only, and no quota would be used up.
    pub same: bool,
    /// The first side.
    pub a: SideReport,
    /// The second side.
    pub b: SideReport,
    /// Whether the second side is a candidate: a policy on the raw scores of the first, or judged beside it in one run.
    pub candidate: bool,
    /// Verdicts of policies that were not at hand, where the second side is a policy on raw scores that masks nothing: that
    /// nothing was masked from the model that gave them is taken for granted.
    pub masks_unknown: u64,
    /// What the judging cost, where both sides were judged in one run.
    pub judged: Option<JudgedReport>,
    /// What verdicts were joined by: `coordinates` or `post`.
    pub joined_by: &'static str,
    /// Records whose two verdicts are about different posts, although they stand at one place: look at what is compared.
    pub other_posts: u64,
    /// Changes of a score up to this are none.
    pub tolerance: f64,
    /// All pairs.
    pub all: Changes,
    /// The greatest change of any label's score.
    pub greatest_score_change: f64,
    /// The labels; the candidate's order, or that of the alphabet.
    pub labels: Vec<String>,
    /// Pairs by the label in `a`, then by the label in `b`, in the order of `labels`.
    pub label_matrix: Vec<Vec<u64>>,
    /// Pairs by the action in `a`, then by the action in `b`: allow, review, act.
    pub action_matrix: [[u64; 3]; 3],
    /// One for each label.
    pub by_label: Vec<LabelDiff>,
    /// By language, and by the fields that were asked for.
    pub slices: Vec<SliceDiff>,
    /// What each label acts on by itself, against its quota.
    pub blast_radius: Vec<Radius>,
    /// Labels flipped or actions changed: the worst first, allow to act and back before all others, then what begins or
    /// ceases to act, then by the greatest change of a score.
    pub flips: Findings<Flip>,
    /// Which side was right, where labels were given.
    pub truth: Option<TruthReport>,
}

/// One side.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SideReport {
    /// Where it was read.
    pub name: String,
    /// Verdicts in the range, each once.
    pub verdicts: u64,
    /// Verdicts that came again with the same id.
    pub repeats: u64,
    /// Verdicts in whose place a later one for the same post came.
    pub superseded: u64,
    /// Verdicts on posts outside of the range.
    pub outside: u64,
    /// Posts that were rejected, and tombstones: records that hold no verdict.
    pub without_verdict: u64,
    /// Verdicts of other replays than the one that was asked for.
    pub other_replays: u64,
    /// What could not be read as a verdict, with where the first stood.
    pub unread: Findings<String>,
    /// Verdicts without a counterpart on the other side, and the first of them.
    pub only_here: Findings<PostRef>,
    /// Who judged, and how many verdicts.
    pub judges: Vec<JudgeCount>,
}

/// Posts that were judged under both policies in one run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct JudgedReport {
    /// Where the posts were read, once for both sides.
    pub posts: String,
    /// Whether one copy of the model's weights answered for both sides.
    pub weights_shared: bool,
    /// What the first side's verdicts cost.
    pub a: Spent,
    /// What the second side's cost.
    pub b: Spent,
}

/// Who gave how many verdicts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JudgeCount {
    /// Who.
    #[serde(flatten)]
    pub judge: JudgeRef,
    /// How many.
    pub verdicts: u64,
}

/// A post and where it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PostRef {
    /// The post's id.
    pub post_id: String,
    /// Its version, if it has one.
    pub version: Option<u64>,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// How many pairs differ, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Changes {
    /// Pairs.
    pub pairs: u64,
    /// Of them with another label.
    pub labels: u64,
    /// With another action.
    pub actions: u64,
    /// With another score of any label, beyond the tolerance.
    pub scores: u64,
    /// Acted on in `b` and not in `a`.
    pub acts_gained: u64,
    /// Acted on in `a` and not in `b`.
    pub acts_lost: u64,
    /// From allow to act, or back.
    pub allow_and_act: u64,
}

/// One label.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LabelDiff {
    /// The label.
    pub label: String,
    /// Pairs that have it.
    pub got: [u64; 2],
    /// Mean of its score.
    pub mean_score: [f64; 2],
    /// Mean change of its score, without sign.
    pub mean_change: f64,
    /// Pairs by its score, in 20 equal bins from 0 to 1.
    pub histogram: [[u64; BASELINE_BINS]; 2],
    /// Total variation distance of the two histograms, 0 to 1.
    pub drift: f64,
}

/// The pairs whose posts have one value of a field.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SliceDiff {
    /// `language`, or a field of `--slice`.
    pub field: String,
    /// Its value.
    pub value: String,
    /// How they differ.
    #[serde(flatten)]
    pub changes: Changes,
}

/// What one label acts on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Radius {
    /// The label.
    pub label: String,
    /// Verdicts whose scores call for acting by it, those that a used-up quota turned to review included; all verdicts of a
    /// side, with a counterpart or without.
    pub acts: [u64; 2],
    /// The most in any window of that length, by the times of the posts.
    pub peak: [u64; 2],
    /// When the fullest window of `b` begins, RFC 3339.
    pub peak_from: Option<String>,
    /// Length of the window in milliseconds: the quota's, or `--window`.
    pub window_ms: u64,
    /// The quota: `--max-acts`, or the candidate's own.
    pub quota: Option<u64>,
    /// Verdicts of `b` that a used-up quota turned to review, as counted by one worker.
    pub held: u64,
    /// Whether the fullest window of `b` holds more than the quota.
    pub exceeded: bool,
}

/// A verdict that is another one.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Flip {
    /// The post.
    #[serde(flatten)]
    pub post: PostRef,
    /// Its language.
    pub language: String,
    /// The verdict in `a`.
    pub a: Side,
    /// The verdict in `b`.
    pub b: Side,
    /// The greatest change of a label's score.
    pub score_change: f64,
    /// The post's text, where `--posts` has the one that was judged.
    pub text: Option<String>,
}

/// One side of a flip.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Side {
    /// Label.
    pub label: String,
    /// Its score.
    pub score: f64,
    /// Action.
    pub action: Action,
    /// Its reason.
    pub reason: ActionReason,
    /// The label whose score called for it.
    pub action_label: String,
}

/// Which side was right. Figures are of the pairs whose post has a label in the file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TruthReport {
    /// The labelled file.
    pub name: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Labelled posts that are in no pair.
    pub unused: u64,
    /// Pairs that are labelled.
    pub pairs: u64,
    /// Both labels right.
    pub both: u64,
    /// Only that of `a`.
    pub only_a: u64,
    /// Only that of `b`.
    pub only_b: u64,
    /// Neither.
    pub neither: u64,
    /// Share of right labels, with 95 % intervals from drawing the pairs again.
    pub accuracy: [Estimate; 2],
    /// By how much that of `b` is greater.
    pub accuracy_change: Estimate,
    /// McNemar's test, exact and two-sided: how likely so uneven a split of `only_a` and `only_b` is if neither side is
    /// better.
    pub mcnemar_p: f64,
    /// How the intervals were made: resamples and seed.
    pub bootstrap: [u64; 2],
}
