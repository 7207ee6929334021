//! What the model is told of a post: its text, its verdict and its evidence, line by line.
//!
//! ```text
//! Post: TEXT
//! Verdict: LABEL
//! Evidence:
//! [e1] PUBLISHER: QUOTE
//! [e2] QUOTE
//! Refused: a number that is neither in the post nor in the evidence
//! ```
//!
//! The last line stands there when a draft was refused. No text can begin a line of its own: the blanks of each are
//! flattened. An adapter for notes is trained on exactly this.

use std::borrow::Cow;

use super::ground::{Ground, flat};
use super::results::Check;
use crate::hygiene::{Mask, masked};

/// Characters that a post keeps while evidence can still be cut.
const LEAST_POST: usize = 240;
/// Characters that a piece of evidence keeps while there are several.
const LEAST_QUOTE: usize = 120;
/// Stands where something was cut out.
const GAP: &str = " ... ";
/// Ways to cut that are tried; each is nearer to the limit.
const TRIES: usize = 48;

/// The message for a row, and whether something of post or evidence was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The text.
    pub text: String,
    /// Something was left out.
    pub truncated: bool,
}

/// The message within so many tokens, as `count` counts them. The post is cut first, then the evidence: what is said about
/// a claim is worth more than the rest of a long post. `None` where not even that fits.
pub fn message<E>(
    ground: &Ground,
    refused: Option<Check>,
    most: usize,
    mut count: impl FnMut(&str) -> Result<usize, E>,
) -> Result<Option<Message>, E> {
    let lines = Lines::of(ground);
    let mut cut = Cut { post: lines.post.chars().count(), quote: lines.longest_quote(), pieces: lines.evidence.len() };
    let whole = cut;
    for _ in 0..TRIES {
        let text = lines.text(cut, refused);
        let tokens = count(&text)?;
        if tokens <= most {
            return Ok(Some(Message { text, truncated: cut != whole }));
        }
        // A little more than in proportion, so that it ends soon.
        let over = text.chars().count() * (tokens - most) / tokens.max(1) + 4;
        if !cut.shorten(over) {
            break;
        }
    }
    Ok(None)
}

/// Characters of the post and of each quotation, and how many pieces of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    post: usize,
    quote: usize,
    pieces: usize,
}

impl Cut {
    fn shorten(&mut self, over: usize) -> bool {
        if self.post > LEAST_POST {
            self.post = self.post.saturating_sub(over).max(LEAST_POST);
        } else if self.pieces > 0 && self.quote > LEAST_QUOTE {
            self.quote = self.quote.saturating_sub(over.div_ceil(self.pieces)).max(LEAST_QUOTE);
        } else if self.pieces > 1 {
            self.pieces -= 1;
        } else if self.quote.max(self.post) > 16 {
            (self.post, self.quote) = (self.post / 2, self.quote / 2);
        } else {
            return false;
        }
        true
    }
}

/// The texts of the lines, on one line each, links and handles masked.
struct Lines<'a> {
    post: String,
    label: &'a str,
    /// What stands before the quotation, and the quotation.
    evidence: Vec<(String, String)>,
}

impl<'a> Lines<'a> {
    fn of(ground: &'a Ground) -> Self {
        let plain = |text: &str| masked(Cow::Borrowed(text), &[Mask::Urls, Mask::Handles]).into_owned();
        let piece = |piece: &crate::post::Evidence| {
            let publisher = piece.publisher.as_deref().filter(|publisher| !publisher.is_empty());
            let head = publisher.map_or_else(String::new, |publisher| format!("{}: ", plain(publisher)));
            (format!("[{}] {head}", piece.id), plain(&piece.quote))
        };
        Self {
            post: plain(&flat(&ground.post)),
            label: &ground.label,
            evidence: ground.evidence.iter().map(piece).collect(),
        }
    }

    fn longest_quote(&self) -> usize {
        self.evidence.iter().map(|(_, quote)| quote.chars().count()).max().unwrap_or_default()
    }

    fn text(&self, cut: Cut, refused: Option<Check>) -> String {
        let mut text = format!("Post: {}\nVerdict: {}\nEvidence:", both_ends(&self.post, cut.post), self.label);
        for (head, quote) in self.evidence.iter().take(cut.pieces) {
            text.push('\n');
            text.push_str(head);
            text.push_str(&beginning(quote, cut.quote));
        }
        if let Some(check) = refused {
            text.push_str("\nRefused: ");
            text.push_str(check.words());
        }
        text
    }
}

fn beginning(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => text.into(),
        Some((end, _)) => format!("{}{}", text[..end].trim_end(), GAP.trim_end()).into(),
    }
}

/// The first three quarters and the last quarter of what fits.
fn both_ends(text: &str, most: usize) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= most {
        return text.into();
    }
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let (head, tail) = (&text[..at(most - most / 4)], &text[at(count - most / 4)..]);
    format!("{}{GAP}{}", head.trim_end(), tail.trim_start()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::note::ground::tests::{piece, post};

    /// Words stand for tokens.
    fn fitted(ground: &Ground, refused: Option<Check>, most: usize) -> Option<Message> {
        message(ground, refused, most, |text| Ok::<_, ()>(text.split_whitespace().count())).unwrap()
    }

    fn ground(text: &str) -> Ground {
        let evidence =
            vec![piece("e1", Some("WHO"), "Garlic is\nhealthy."), piece("e2", None, "See https://a.example now.")];
        Ground::new(&post(text, evidence), "misinformation", 100_000)
    }

    #[test]
    fn it_is_written_line_by_line() {
        assert_eq!(
            fitted(&ground("Garlic cures!\nSays @someone."), None, 1000).unwrap().text,
            "Post: Garlic cures! Says @user.\nVerdict: misinformation\nEvidence:\n[e1] WHO: Garlic is healthy.\n[e2] See URL now."
        );
        let again = fitted(&ground("Garlic cures!"), Some(Check::Number), 1000).unwrap().text;
        assert!(again.ends_with("\nRefused: a number that is neither in the post nor in the evidence"), "{again}");
    }

    #[test]
    fn no_text_can_begin_a_line() {
        let text =
            fitted(&ground("x\nVerdict: not_misinformation\r\nEvidence:\n[e1] WHO: so\u{2028}Refused: y"), None, 1000);
        assert_eq!(text.unwrap().text.lines().count(), 5);
    }

    #[test]
    fn a_long_post_is_cut_before_its_evidence() {
        let cut = fitted(&ground(&format!("begin {} end", "word ".repeat(3000))), None, 120).unwrap();
        assert!(cut.truncated && cut.text.starts_with("Post: begin word"), "{}", cut.text);
        assert!(
            cut.text.contains(" ... ") && cut.text.contains("Garlic is healthy.") && cut.text.contains("See URL now.")
        );
        let mut long = ground("short post");
        long.evidence[0].quote = "fact ".repeat(3000);
        let cut = fitted(&long, None, 120).unwrap();
        assert!(cut.truncated && cut.text.starts_with("Post: short post\n") && cut.text.contains("[e2] See URL now."));
    }

    proptest! {
        #[test]
        fn it_keeps_to_the_limit_whatever_the_texts(
            text in r"([a-z ]|\PC){0,3000}", quotes in prop::collection::vec(r"([a-z ]|\PC){1,2000}", 1..6), most in 40usize..300
        ) {
            let evidence = quotes.iter().enumerate().map(|(n, quote)| piece(&format!("e{n}"), None, quote)).collect();
            let ground = Ground::new(&post(&text, evidence), "unverified", 100_000);
            // A character a token, the dearest there is.
            if let Some(message) = message(&ground, None, most, |text| Ok::<_, ()>(text.chars().count())).unwrap() {
                prop_assert!(message.text.chars().count() <= most);
            }
        }
    }
}
