//! Floods of combining marks ("Zalgo"), which hide letters from a model and cost a token or more for each mark.

use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

use super::TextNormalised;

pub(super) const CATEGORY: CodePointMapDataBorrowed<'_, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();

/// Marks in a row that some language writes: Hebrew with points and accents, Tibetan and Burmese stacks come to five.
const LONGEST: u32 = 6;

/// Drops runs of more marks than [`LONGEST`], whole: such a run says nothing. `None` where there is none.
pub(super) fn thinned(text: &str, changed: &mut TextNormalised) -> Option<String> {
    let mut kept = String::new();
    let mut copied = 0;
    let mut run = Run::default();
    // A character that is no mark, past the end, closes the last run.
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if is_mark(c) {
            run.start = if run.marks == 0 { at } else { run.start };
            run.marks += 1;
            continue;
        }
        if run.marks > LONGEST {
            kept.push_str(&text[copied..run.start]);
            copied = at;
            changed.marks_dropped += run.marks;
        }
        run.marks = 0;
    }
    if copied == 0 {
        return None;
    }
    kept.push_str(&text[copied..]);
    Some(kept)
}

/// Marks one after the other.
#[derive(Default)]
struct Run {
    start: usize,
    marks: u32,
}

pub(super) fn is_mark(c: char) -> bool {
    c >= '\u{300}' && GeneralCategoryGroup::Mark.contains(CATEGORY.get(c))
}
