//! A candidate policy on the raw scores of old verdicts: what it would have made of them, without running a model. By the
//! code that judges (`pipeline::judgement`, `pipeline::quotas`), not by a copy of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::names::Names;
use super::side::{Side, language};
use crate::calibration::CalibrationV1;
use crate::hygiene::Mask;
use crate::model::Prompt;
use crate::pipeline::judge::reference;
use crate::pipeline::judgement::{Circumstances, judgement};
use crate::pipeline::quotas::Quotas;
use crate::policy::{Action, Policy};
use crate::verdict::{ActionReason, Answer, Execution, Judgement, PolicyRef, VerdictV1};

/// A policy, and what its prompt is to the model that judged.
pub struct Candidate {
    /// The policy.
    pub policy: Policy,
    /// Its name in reports.
    pub reference: PolicyRef,
    /// Its file, for messages.
    pub file: PathBuf,
    prompt_digest: String,
    in_force: Option<Policy>,
    labels: BTreeSet<Arc<str>>,
    execution: Arc<Execution>,
}

impl Candidate {
    /// A policy and its prompt in the words of the model that judged. What `in_force` masks, if it is the policy of the
    /// verdicts, is what was masked.
    pub fn new(policy: Policy, file: PathBuf, prompt: &Prompt, in_force: Option<Policy>) -> Self {
        // Told nowhere: a judgement does not hang on it.
        let execution = Execution {
            provider: String::new(),
            nodes: BTreeMap::new(),
            precision: String::new(),
            onnxruntime: String::new(),
        };
        Self {
            reference: reference(&policy),
            labels: policy.labels.iter().map(|label| label.id.clone()).collect(),
            prompt_digest: prompt.digest().to_owned(),
            execution: Arc::new(execution),
            in_force,
            policy,
            file,
        }
    }

    /// What was masked from the model that judged; none where the policy of that verdict is not at hand.
    fn masked(&self, verdict: &VerdictV1<'_>) -> Option<&[Mask]> {
        let known = [self.in_force.as_ref(), Some(&self.policy)].into_iter().flatten();
        let mut of_it = known.filter(|policy| policy.digest() == verdict.data.policy.digest);
        of_it.next().map(|policy| &policy.mask[..])
    }

    /// Whether it is known what was masked from the model that judged.
    pub fn knows_masks(&self, verdict: &VerdictV1<'_>) -> bool {
        self.masked(verdict).is_some()
    }

    /// What it makes of the raw scores of this verdict; or why it cannot tell.
    pub fn judge(&self, verdict: &VerdictV1<'_>) -> Result<Judgement<'_>, String> {
        let (judged, model, input) = (&verdict.data.verdict, &verdict.data.model, &verdict.data.input);
        let replay = "judge the range with it first (`moderato replay`), and compare the two";
        if model.prompt_digest != self.prompt_digest {
            return Err(format!(
                "its prompt, labels or answers ({}) are not those that were judged with ({}): {replay}",
                self.prompt_digest, model.prompt_digest
            ));
        }
        if !judged.raw_scores.keys().map(|label| &**label).eq(self.labels.iter().map(|label| &**label)) {
            return Err(format!("the verdict has not the raw scores of exactly its labels: {replay}"));
        }
        // Where it is not known and the candidate masks nothing, that is told: see `knows_masks`.
        if self.masked(verdict).unwrap_or_default() != self.policy.mask {
            return Err(format!(
                "verdicts do not tell what was masked: name the policy that they were judged by, which must mask the same \
                 (`policy` in the configuration, or --set policy=FILE); or {replay}"
            ));
        }
        let mismatch = |fit: &Arc<CalibrationV1>| fit.mismatch(&model.digest, &model.prompt_digest);
        let mismatch = self.policy.calibration.as_ref().and_then(mismatch);
        if let Some(mismatch) = mismatch.as_ref().filter(|_| !self.policy.calibration_for_other_model) {
            return Err(format!("its calibration: {mismatch}"));
        }
        let language = language(input);
        let seen = Circumstances {
            truncated: input.truncated,
            language: language.as_deref(),
            matches_model: mismatch.is_none(),
        };
        let answer = Answer {
            scores: self.policy.labels.iter().filter_map(|label| judged.raw_scores.get(&*label.id).copied()).collect(),
            outside_labels: judged.outside_labels,
            execution: self.execution.clone(),
            conditions: None,
            computed_at: String::new(),
            language: None,
        };
        Ok(judgement(&self.policy, &answer, seen))
    }
}

/// Holds a side's verdicts to a policy's quotas, in the order in which the posts were made, as one worker would that began
/// with the first of them. How often each label was held back is told by the rows' reasons.
pub fn hold_to_quotas(policy: &Policy, side: &mut Side, rows: impl Iterator<Item = usize>, names: &Names) {
    let mut order: Vec<usize> = rows.collect();
    order.sort_by_key(|at| side.rows[*at].time_ms);
    let Some(first) = order.first().map(|at| side.rows[*at].time_ms) else { return };
    let start = Instant::now();
    let mut quotas = Quotas::default().renewed(policy, start);
    for at in order {
        let row = &mut side.rows[at];
        let after = Duration::from_millis(u64::try_from(row.time_ms.saturating_sub(first)).unwrap_or(0));
        let now = start.checked_add(after).unwrap_or(start);
        if row.action == Action::Act && !quotas.allow(names.word(row.action_label), now) {
            (row.action, row.reason) = (Action::Review, ActionReason::Quota);
        }
    }
}
