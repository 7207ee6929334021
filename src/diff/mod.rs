//! What changes: two verdicts on the same posts, beside each other. Of two topics or files, or of one and a candidate policy.
//!
//! Everything here is pure. `cli/diff` reads verdicts into [`Side`]s; [`compare`] joins and counts them and makes the
//! [`report::DiffV1`]; that is shown as text, as a page, or line by line.

pub mod candidate;
mod count;
pub mod html;
mod join;
mod names;
mod radius;
mod range;
pub mod report;
mod side;
mod truth;
pub mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use self::candidate::hold_to_quotas;
pub use self::count::Fields;
use self::count::{Counter, score_change, severity};
pub use self::join::{By, Joined, Pair};
use self::names::Name;
pub use self::names::Names;
pub use self::radius::Cap;
use self::radius::Caps;
pub use self::range::{Range, place};
use self::report::{DiffV1, Flip, JudgeCount, PostRef, SideReport, TruthReport};
pub use self::side::{Row, Side, head};
use self::truth::Marks;
use crate::eval::bootstrap::Resampling;
use crate::eval::dataset::Dataset;
use crate::policy::{Action, Policy};
use crate::reconcile::Findings;

/// What was read.
#[derive(Debug, Default)]
pub struct Books {
    /// The words of both sides.
    pub names: Names,
    /// The first side.
    pub a: Side,
    /// The second side.
    pub b: Side,
}

/// What is asked of them.
pub struct Asked<'a> {
    /// What to join by; the usual where nothing is said.
    pub by: Option<By>,
    /// Changes of a score up to this are none.
    pub tolerance: f64,
    /// How many flips, and verdicts without a counterpart, are listed.
    pub list: usize,
    /// The most that labels may act.
    pub caps: &'a [Cap],
    /// The window in which acts are counted where nothing else names one.
    pub window: Duration,
    /// The policies of sides whose verdicts nobody has held to their quotas yet; that of the second is a candidate.
    pub policies: [Option<&'a Policy>; 2],
    /// What the posts truly are, and the labels that it was read for.
    pub truth: Option<(&'a Dataset, &'a [String])>,
    /// What else posts are sliced by.
    pub fields: &'a Fields,
    /// How intervals are made.
    pub resampling: Resampling,
}

/// The report, and every flip, the worst first.
pub struct Compared {
    /// The report; names and counts of the reading are still to be filled in by who read.
    pub report: DiffV1,
    /// All flips.
    pub flips: Vec<Pair>,
}

/// Joins and counts.
pub fn compare(books: &mut Books, asked: &Asked<'_>) -> Compared {
    let by = asked.by.unwrap_or_else(|| By::usual(&books.a, &books.b));
    let joined = by.join(&books.a, &books.b);
    let [in_force, candidate] = asked.policies;
    if let Some(policy) = in_force {
        let kept = joined.pairs.iter().map(|(a, _)| *a).chain(joined.only_a.iter().copied());
        hold_to_quotas(policy, &mut books.a, kept, &books.names);
    }
    if let Some(policy) = candidate {
        let kept = joined.pairs.iter().map(|(_, b)| *b).chain(joined.only_b.iter().copied());
        hold_to_quotas(policy, &mut books.b, kept, &books.names);
    }
    let labels = books.labels(candidate);
    let Books { names, a, b } = &*books;
    let mut counter = Counter::new((a, b), &labels, asked.tolerance);
    let mut flips: Vec<Pair> =
        joined.pairs.iter().copied().filter(|pair| counter.add(*pair, names, asked.fields)).collect();
    let change = |(one, other): &Pair| score_change((a, &a.rows[*one]), (b, &b.rows[*other]));
    let mut ranked: Vec<_> = flips.drain(..).map(|pair| (badness(books, &pair), change(&pair), pair)).collect();
    ranked.sort_by(|one, other| (other.0.cmp(&one.0)).then(other.1.total_cmp(&one.1)).then(one.2.cmp(&other.2)));
    flips.extend(ranked.into_iter().map(|(_, _, pair)| pair));

    let caps = Caps { asked: asked.caps, policy: candidate, window: asked.window };
    let mut of_a = joined.pairs.iter().map(|(at, _)| at).chain(&joined.only_a).map(|at| &a.rows[*at]);
    let mut of_b = joined.pairs.iter().map(|(_, at)| at).chain(&joined.only_b).map(|at| &b.rows[*at]);
    let blast_radius = caps.radius(&labels, names, [&mut of_a, &mut of_b]);
    let all = counter.all;
    let same = all.labels + all.actions + all.scores == 0
        && joined.only_a.is_empty()
        && joined.only_b.is_empty()
        && blast_radius.iter().all(|radius| !radius.exceeded);
    let report = DiffV1 {
        schema: "diff.v1",
        worker_version: env!("CARGO_PKG_VERSION"),
        compared_at: jiff::Timestamp::now().to_string(),
        same,
        a: side(books, 0, &joined, asked.list),
        b: side(books, 1, &joined, asked.list),
        candidate: candidate.is_some(),
        masks_unknown: 0,
        judged: None,
        joined_by: match by {
            By::Coordinates => "coordinates",
            By::Post => "post",
        },
        other_posts: joined.other_posts,
        tolerance: asked.tolerance,
        all,
        greatest_score_change: counter.greatest,
        labels: labels.iter().map(|label| names.word(*label).to_owned()).collect(),
        by_label: counter.by_label(names),
        slices: counter.slices(asked.fields),
        label_matrix: counter.label_matrix,
        action_matrix: counter.action_matrix,
        blast_radius,
        flips: Findings {
            count: flips.len() as u64,
            first: flips.iter().take(asked.list).map(|pair| books.flip(pair)).collect(),
        },
        truth: asked.truth.map(|truth| judged(books, &joined, truth, asked.resampling)),
    };
    Compared { report, flips }
}

/// Steps between the actions, then whether one of them acts and the other does not, then whether the label differs.
fn badness(books: &Books, (one, other): &Pair) -> (u8, bool, bool) {
    let (a, b) = (&books.a.rows[*one], &books.b.rows[*other]);
    let acts = [a, b].map(|row| row.action == Action::Act);
    (severity(a, b), acts[0] != acts[1], a.label != b.label)
}

fn side(books: &Books, which: usize, joined: &Joined, list: usize) -> SideReport {
    let (side, only) = if which == 0 { (&books.a, &joined.only_a) } else { (&books.b, &joined.only_b) };
    let superseded = joined.superseded[which];
    SideReport {
        name: String::new(),
        verdicts: side.rows.len() as u64 - superseded,
        repeats: side.repeats,
        superseded,
        outside: 0,
        without_verdict: 0,
        other_replays: 0,
        unread: Findings::default(),
        only_here: Findings {
            count: only.len() as u64,
            first: only.iter().take(list).map(|at| books.post(&side.rows[*at])).collect(),
        },
        judges: side
            .judges
            .iter()
            .map(|(judge, verdicts)| JudgeCount { judge: judge.clone(), verdicts: *verdicts })
            .collect(),
    }
}

fn judged(
    books: &Books,
    joined: &Joined,
    (truth, known): (&Dataset, &[String]),
    resampling: Resampling,
) -> TruthReport {
    let Books { names, a, b } = books;
    let labels: std::collections::HashMap<&str, &str> =
        truth.rows.iter().map(|row| (row.id.as_str(), known[row.truth].as_str())).collect();
    let mut marks = Marks::default();
    let mut used = BTreeSet::new();
    for (one, other) in &joined.pairs {
        let (one, other) = (&a.rows[*one], &b.rows[*other]);
        if let Some(label) = labels.get(&*one.post) {
            marks.add([one, other].map(|row| names.word(row.label) == *label));
            used.insert(&*one.post);
        }
    }
    marks.report((&truth.name, &truth.sha256, (labels.len() - used.len()) as u64), resampling)
}

impl Books {
    /// Every label: the candidate's in their order, then the others in the alphabet's.
    fn labels(&mut self, candidate: Option<&Policy>) -> Vec<Name> {
        let mut labels: Vec<Name> = match candidate {
            Some(policy) => policy.labels.iter().map(|label| self.names.number(&label.id)).collect(),
            None => Vec::new(),
        };
        let others: BTreeSet<Name> = self.a.labels().chain(self.b.labels()).filter(|it| !labels.contains(it)).collect();
        let mut others: Vec<Name> = others.into_iter().collect();
        others.sort_by(|one, other| self.names.word(*one).cmp(self.names.word(*other)));
        labels.extend(others);
        labels
    }

    /// Their words.
    pub fn label_words(&mut self, candidate: Option<&Policy>) -> Vec<String> {
        self.labels(candidate).iter().map(|label| self.names.word(*label).to_owned()).collect()
    }

    fn post(&self, row: &Row) -> PostRef {
        PostRef {
            post_id: row.post.to_string(),
            version: row.version,
            topic: self.names.word(row.topic).to_owned(),
            partition: row.partition,
            offset: row.offset,
        }
    }

    /// A pair as it stands in reports, without text.
    pub fn flip(&self, (one, other): &Pair) -> Flip {
        let (a, b) = (&self.a.rows[*one], &self.b.rows[*other]);
        let side = |row: &Row| report::Side {
            label: self.names.word(row.label).to_owned(),
            score: row.score,
            action: row.action,
            reason: row.reason,
            action_label: self.names.word(row.action_label).to_owned(),
        };
        Flip {
            post: self.post(a),
            language: self.names.word(a.lang).to_owned(),
            a: side(a),
            b: side(b),
            score_change: score_change((&self.a, a), (&self.b, b)),
            text: None,
        }
    }
}

#[cfg(test)]
mod tests;
