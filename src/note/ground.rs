//! What a note may draw on: the post and its evidence, cleaned as the model reads them.

use sha2::{Digest as _, Sha256};

use crate::hygiene;
use crate::language;
use crate::post::{Evidence, Post};

/// Stands where the middle of a post was cut out.
const GAP: &str = "\n…\n";

/// A post with its evidence and its verdict's label, before the prompt is put around it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ground {
    /// The post's text, cleaned; its lines are kept.
    pub post: String,
    /// The evidence, cleaned, one line each.
    pub evidence: Vec<Evidence>,
    /// The label of the verdict.
    pub label: String,
    /// The language of the post, as a primary subtag such as `en`, where it is known.
    pub lang: Option<String>,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("label", &self.label).field("lang", &self.lang).finish_non_exhaustive()
    }
}

impl Ground {
    /// Of a text, and of each quotation, no more than `most` bytes count: what is past them no model reads.
    pub fn new(post: &Post, label: &str, most: usize) -> Self {
        let evidence = post.evidence.iter().map(|piece| Evidence {
            id: piece.id.clone(),
            url: piece.url.as_deref().map(|url| one_line(url, most)),
            publisher: piece.publisher.as_deref().map(|publisher| one_line(publisher, most)),
            quote: one_line(&piece.quote, most),
            retrieved_at: None,
        });
        let text = clean(&cut(&post.text, most));
        let lang = language::of_post(post.lang.as_deref(), Some(&language::detect(&text)));
        Self { evidence: evidence.collect(), label: label.to_owned(), lang, post: text }
    }

    /// Identifies all of it, so that no two posts share a note unless everything that shapes it is the same.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(b"moderato/ground/1");
        let mut part = |text: Option<&str>| {
            hasher.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
            hasher.update(text.unwrap_or_default());
        };
        part(Some(&self.post));
        part(Some(&self.label));
        part(self.lang.as_deref());
        for Evidence { id, url, publisher, quote, .. } in &self.evidence {
            part(Some(id));
            part(url.as_deref());
            part(publisher.as_deref());
            part(Some(quote));
        }
        hasher.finalize().into()
    }
}

fn clean(text: &str) -> String {
    hygiene::clean(text).0.replace("\r\n", "\n").replace('\r', "\n").trim().to_owned()
}

/// All blanks, line breaks too, become one: no text can begin a line of the prompt.
pub(super) fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn one_line(text: &str, most: usize) -> String {
    flat(&clean(&cut(text, most)))
}

/// The first three quarters and the last quarter of what fits.
fn cut(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let head = &text[..text.floor_char_boundary(most - most / 4)];
    let tail = &text[text.ceil_char_boundary(text.len() - most / 4)..];
    format!("{head}{GAP}{tail}").into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::post::PostId;

    pub(in crate::note) fn piece(id: &str, publisher: Option<&str>, quote: &str) -> Evidence {
        let (id, publisher, quote) = (id.to_owned(), publisher.map(str::to_owned), quote.to_owned());
        Evidence { id, url: None, publisher, quote, retrieved_at: None }
    }

    pub(in crate::note) fn post(text: &str, evidence: Vec<Evidence>) -> Post {
        Post { id: PostId("p".into()), text: text.to_owned(), lang: None, version: None, evidence }
    }

    #[test]
    fn what_is_not_seen_is_cleaned_away_and_evidence_is_one_line() {
        let ground = Ground::new(&post(" A\u{200b} b\r\nc ", vec![piece("e1", None, "x\ny\t z")]), "unverified", 1000);
        assert_eq!((&*ground.post, &*ground.evidence[0].quote), ("A b\nc", "x y z"));
    }

    #[test]
    fn of_a_long_text_both_ends_are_kept() {
        let ground = Ground::new(&post(&format!("begin {} end", "é".repeat(4000)), vec![]), "unverified", 400);
        assert!(ground.post.starts_with("begin é") && ground.post.ends_with("é end") && ground.post.len() < 420);
    }

    #[test]
    fn everything_that_shapes_a_note_is_part_of_the_digest() {
        let base = Ground::new(&post("a", vec![piece("e1", Some("p"), "q")]), "l", 100);
        let changes: [fn(&mut Ground); 6] = [
            |ground| ground.post.push('b'),
            |ground| ground.label.push('b'),
            |ground| ground.lang = Some("en".to_owned()),
            |ground| ground.evidence[0].id.push('b'),
            |ground| ground.evidence[0].publisher = None,
            |ground| ground.evidence[0].url = Some(String::new()),
        ];
        assert_eq!(base.digest(), base.clone().digest());
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = base.clone();
            change(&mut other);
            assert_ne!(base.digest(), other.digest(), "change {at}");
        }
    }

    #[test]
    fn the_language_is_the_producers_unless_the_text_is_surely_in_another() {
        let lang = |tag: Option<&str>, text: &str| {
            let tagged = Post { lang: tag.map(str::to_owned), ..post(text, vec![]) };
            Ground::new(&tagged, "unverified", 1000).lang
        };
        assert_eq!(lang(Some("en-GB"), "ok").as_deref(), Some("en"));
        assert_eq!(lang(Some("en"), "Die alte Brücke bleibt den ganzen Sommer gesperrt.").as_deref(), Some("de"));
        assert_eq!(lang(None, "ok"), None);
    }
}
