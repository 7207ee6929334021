//! Words that occur again and again (labels, languages, topics), each kept once: a row holds a number.

use std::collections::HashMap;
use std::sync::Arc;

/// The number of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

/// The words.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<Arc<str>, Name>,
    words: Vec<Arc<str>>,
}

impl Names {
    /// The number of this word, a new one if need be.
    pub fn number(&mut self, word: &str) -> Name {
        if let Some(name) = self.numbers.get(word) {
            return *name;
        }
        let name = Name(u32::try_from(self.words.len()).unwrap_or(u32::MAX));
        let word: Arc<str> = word.into();
        self.words.push(word.clone());
        self.numbers.insert(word, name);
        name
    }

    /// The word of a number.
    pub fn word(&self, name: Name) -> &str {
        self.words.get(name.0 as usize).map_or("", |word| word)
    }
}
