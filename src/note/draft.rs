//! What comes of one post: a finished text with the results of its checks, as it is cached and published.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checks::{Checker, Form, tidy};
use super::fixed_form::fixed_form;
use super::ground::Ground;
use super::results::{Check, NoteChecks};
use crate::verdict::Execution;

/// Drafts of a model for one post; after these the fixed form stands in.
pub const MAX_DRAFTS: usize = 2;

/// A text that passed every check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The text.
    pub summary: String,
    /// Ids of the evidence it cites.
    pub citations: Vec<String>,
    /// Whether it is the fixed form.
    pub fixed_form: bool,
    /// Texts that a model wrote for it, refused ones too.
    pub attempts: usize,
    /// Results of the checks of this text.
    pub checks: NoteChecks,
    /// The checks that failed on refused drafts, draft by draft.
    pub refused: Vec<Vec<Check>>,
    /// Why no model was asked, where evidence was there.
    pub unasked: Option<Unasked>,
    /// Language of the post, as far as it is known.
    pub lang: Option<String>,
    /// What wrote the drafts; nothing where no model was asked.
    pub written: Option<Written>,
}

/// Why no model was asked although there is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unasked {
    /// The note policy does not name the post's language.
    UnsupportedLanguage,
}

/// What wrote a draft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// What computed it.
    pub execution: Arc<Execution>,
    /// When, RFC 3339.
    pub computed_at: String,
    /// Tokens that were written, for refused drafts too.
    pub tokens: usize,
}

impl Draft {
    /// The fixed form, where no model is asked.
    pub fn unwritten(checker: &Checker<'_>, ground: &Ground, unasked: Option<Unasked>) -> Self {
        let (summary, checks) = fixed_form(checker, &ground.post, &ids(ground));
        Self {
            citations: checker.citations(&summary),
            summary,
            fixed_form: true,
            attempts: 0,
            checks,
            refused: Vec::new(),
            unasked: unasked.filter(|_| !ground.evidence.is_empty()),
            lang: ground.lang.clone(),
            written: None,
        }
    }

    /// The text that a model wrote after `refused` ones, if it passes every check; otherwise the checks that failed.
    pub fn accept(
        checker: &Checker<'_>,
        text: &str,
        refused: &[Vec<Check>],
        lang: Option<&str>,
    ) -> Result<Self, Vec<Check>> {
        let summary = tidy(text);
        let checks = checker.run(&summary, Form::Drafted);
        let failed = checks.failed();
        if !failed.is_empty() {
            return Err(failed);
        }
        Ok(Self {
            citations: checker.citations(&summary),
            summary,
            fixed_form: false,
            attempts: refused.len() + 1,
            checks,
            refused: refused.to_vec(),
            unasked: None,
            lang: lang.map(str::to_owned),
            written: None,
        })
    }

    /// Whether a kept note is what would be given now: the fixed form word for word, any other text by passing every check.
    pub fn stands(&self, checker: &Checker<'_>, ground: &Ground) -> bool {
        if self.fixed_form {
            return self.summary == fixed_form(checker, &ground.post, &ids(ground)).0;
        }
        checker.run(&self.summary, Form::Drafted) == self.checks && self.checks.failed().is_empty()
    }

    /// The fixed form, where the model's drafts were all refused.
    pub fn given_up(checker: &Checker<'_>, ground: &Ground, refused: Vec<Vec<Check>>) -> Self {
        Self { attempts: refused.len(), refused, ..Self::unwritten(checker, ground, None) }
    }
}

/// The ids of a post's evidence.
fn ids(ground: &Ground) -> Vec<&str> {
    ground.evidence.iter().map(|piece| &*piece.id).collect()
}
