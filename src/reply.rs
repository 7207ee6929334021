//! What is kept of a question that was answered: scores that a policy makes a verdict of, or a finished note.

use crate::note::Draft;
use crate::verdict::Answer;

/// What was said to one question.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// By the model: scores.
    Scores(Answer),
    /// By the model and the checks: a note.
    Note(Box<Draft>),
}

/// What is said to the questions of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Scores, one for each of so many labels.
    Scores {
        /// How many.
        labels: usize,
    },
    /// Notes.
    Note,
}
