//! `precision: auto`: the fastest of a folder's graphs that still says what fp32 says.
//!
//! Both graphs judge the calibration posts at start, one instance each, in runs of like length. A precision is taken if
//! it gives the same label as fp32 to at least 99 % of them and is faster on this machine.

use std::time::{Duration, Instant};

use tracing::info;

use super::{
    builder::{Builder, EXACT, Ready},
    error::ModelError,
    instance::Instance,
};
use crate::{
    config::{InputLimit, OnOverlong},
    samples,
};

/// Share of the calibration posts to which a precision must give fp32's label.
const AGREEMENT: f64 = 0.99;
/// Padded tokens of a run while measuring; enough for any precision to reach its speed.
const RUN_TOKENS: usize = 512;

/// The fastest graph that agrees, and the reason logged.
pub(super) fn fastest_that_agrees(builder: &Builder<'_>) -> Result<Ready, ModelError> {
    let mut taken = builder.ready(None)?;
    let further = builder.folder.further_precisions("classify");
    if taken.graph.precision != EXACT || further.is_empty() {
        let reason = "the folder has no other precision beside fp32 to compare with";
        info!(precision = %taken.precision, reason, "precision chosen");
        return Ok(taken);
    }
    let rows = calibration_rows(builder)?;
    let exact = judge(&mut taken.instances[0], &rows)?;
    let mut fastest = exact.took;
    for name in further {
        let mut candidate = builder.ready(Some(&name))?;
        let judged = judge(&mut candidate.instances[0], &rows)?;
        let agreement = agreement(&exact.labels, &judged.labels);
        let speed = exact.took.as_secs_f64() / judged.took.as_secs_f64();
        let take = agreement >= AGREEMENT && judged.took < fastest;
        info!(
            precision = %candidate.precision, taken = take, posts = rows.len(),
            agreement = format!("{:.1} % (at least {:.1} % is asked for)", 100.0 * agreement, 100.0 * AGREEMENT),
            speed = format!("{speed:.2} times fp32"), "precision measured"
        );
        if take {
            (taken, fastest) = (candidate, judged.took);
        }
    }
    info!(precision = %taken.precision, "precision chosen");
    Ok(taken)
}

/// What one graph said, and how long it took.
struct Judged {
    labels: Vec<usize>,
    took: Duration,
}

fn calibration_rows(builder: &Builder<'_>) -> Result<Vec<Vec<u32>>, ModelError> {
    let most = builder.config.max_positions.map_or(RUN_TOKENS, |most| most - builder.prompt.prefix_ids().len());
    let max_input_tokens = most.min(RUN_TOKENS).saturating_sub(builder.prompt.tail_ids().len()).max(1);
    let limit = InputLimit { max_input_tokens, on_overlong: OnOverlong::TruncateMiddle };
    let rows = samples::texts().map(|text| builder.prompt.tokenize(&text, &limit).map(|tokens| tokens.ids));
    let mut rows: Vec<_> = rows.collect::<Result<_, _>>().map_err(|error| ModelError::Tokenizer(error.to_string()))?;
    rows.sort_by_key(Vec::len);
    Ok(rows)
}

/// Judges rows, sorted by length, in runs of at most [`RUN_TOKENS`].
fn judge(instance: &mut Instance, rows: &[Vec<u32>]) -> Result<Judged, ModelError> {
    let started = Instant::now();
    let mut labels = Vec::with_capacity(rows.len());
    let mut left = rows;
    while !left.is_empty() {
        // The longest of a run is its last, so this many rows of its length fit.
        let fits = (1..=left.len()).take_while(|count| left[count - 1].len() * count <= RUN_TOKENS).count().max(1);
        let (run, rest) = left.split_at(fits);
        let run: Vec<&[u32]> = run.iter().map(Vec::as_slice).collect();
        labels.extend(instance.classify(&run)?.iter().map(|scores| greatest(&scores.logits)));
        left = rest;
    }
    Ok(Judged { labels, took: started.elapsed() })
}

/// The index of the greatest logit.
fn greatest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or_default()
}

fn agreement(a: &[usize], b: &[usize]) -> f64 {
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    same as f64 / a.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_the_share_of_equal_labels() {
        assert_eq!(agreement(&[0, 1, 2, 3], &[0, 1, 2, 0]), 0.75);
        assert_eq!(greatest(&[-1.0, 3.0, 2.0]), 1);
    }
}
