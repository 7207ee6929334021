//! Which posts are looked at again: by a hash of their ids, so that the same are drawn every time.

use std::collections::BTreeMap;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Places of a hash.
const PLACES: f64 = 18_446_744_073_709_551_616.0;

/// How many posts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// So many of them.
    Posts(usize),
    /// This share, 0 to 1.
    Share(f64),
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sample = match text.strip_suffix('%') {
            Some(share) => {
                let share = share.trim().parse().ok().filter(|share| (0.0..=100.0).contains(share) && *share > 0.0);
                share.map(|share: f64| Self::Share(share / 100.0))
            }
            None => text.parse().ok().filter(|posts| *posts > 0).map(Self::Posts),
        };
        sample.ok_or_else(|| {
            format!("`{text}` is no sample: write a number of posts such as 1000, or a share such as 5%")
        })
    }
}

/// What belongs to the posts that are drawn so far.
#[derive(Debug)]
pub struct Drawn<T> {
    sample: Sample,
    posts: BTreeMap<(u64, Box<str>), Vec<T>>,
}

impl<T> Drawn<T> {
    /// Nothing so far.
    pub fn new(sample: Sample) -> Self {
        Self { sample, posts: BTreeMap::new() }
    }

    /// What is kept of this post, if it is drawn; another that was drawn may give way to it.
    pub fn of(&mut self, post: &str) -> Option<&mut Vec<T>> {
        let place = place(post);
        if let Sample::Share(share) = self.sample
            && (place as f64) >= share * PLACES
        {
            return None;
        }
        let key = (place, post.into());
        if let Sample::Posts(most) = self.sample
            && self.posts.len() >= most
            && !self.posts.contains_key(&key)
        {
            let last = self.posts.last_entry()?;
            if *last.key() < key {
                return None;
            }
            last.remove();
        }
        Some(self.posts.entry(key).or_default())
    }

    /// How many posts.
    pub fn posts(&self) -> usize {
        self.posts.len()
    }

    /// All that is kept.
    pub fn all(self) -> impl Iterator<Item = T> {
        self.posts.into_values().flatten()
    }
}

fn place(post: &str) -> u64 {
    Sha256::digest(post).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sample: Sample, ids: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut drawn = Drawn::new(sample);
        for n in ids {
            if let Some(kept) = drawn.of(&format!("post-{n}")) {
                kept.push(n);
            }
        }
        let mut all: Vec<usize> = drawn.all().collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_same_posts_are_drawn_in_any_order_and_as_many_as_were_asked_for() {
        for (sample, about) in
            [(Sample::Posts(50), 50..51), (Sample::Share(0.1), 80..120), (Sample::Share(1.0), 1000..1001)]
        {
            let forwards = drawn(sample, 0..1000);
            assert!(about.contains(&forwards.len()), "{sample:?}: {}", forwards.len());
            assert_eq!(forwards, drawn(sample, (0..1000).rev()));
        }
        let (few, many) = (drawn(Sample::Posts(10), 0..1000), drawn(Sample::Posts(50), 0..1000));
        assert!(few.iter().all(|n| many.contains(n)));
    }

    #[test]
    fn all_that_belongs_to_a_drawn_post_is_kept() {
        let twice = drawn(Sample::Posts(10), (0..100).chain(0..100));
        assert_eq!(twice.len(), 20);
        assert!(twice.chunks(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_sample_is_a_number_of_posts_or_a_share() {
        assert_eq!(("10".parse(), "5%".parse()), (Ok(Sample::Posts(10)), Ok(Sample::Share(0.05))));
        for wrong in ["", "0", "-1", "0%", "101%", "nan%", "0.5", "all"] {
            assert!(wrong.parse::<Sample>().is_err(), "{wrong}");
        }
    }
}
