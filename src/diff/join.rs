//! Which verdict of one side belongs to which of the other.

use std::cmp::Ordering;

use super::names::Name;
use super::side::{Row, Side};

/// What two verdicts are joined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Topic, partition and offset of the post.
    Coordinates,
    /// The post's id and version.
    Post,
}

/// A verdict of each side, as places in their rows.
pub type Pair = (usize, usize);

/// What belongs together, and what has no counterpart.
#[derive(Debug, Default)]
pub struct Joined {
    /// In the order of what they are joined by.
    pub pairs: Vec<Pair>,
    /// On the first side only.
    pub only_a: Vec<usize>,
    /// On the second side only.
    pub only_b: Vec<usize>,
    /// Verdicts of each side in whose place a later one came.
    pub superseded: [u64; 2],
    /// Records whose two verdicts are about different posts; both count as without counterpart.
    pub other_posts: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    At(Name, i32, i64),
    Post(&'a str, Option<u64>),
}

impl By {
    /// Coordinates where any topic is on both sides.
    pub fn usual(a: &Side, b: &Side) -> Self {
        let topics = |side: &Side| side.rows.iter().map(|row| row.topic).collect::<std::collections::HashSet<_>>();
        if topics(a).is_disjoint(&topics(b)) { By::Post } else { By::Coordinates }
    }

    fn key(self, row: &Row) -> Key<'_> {
        match self {
            By::Coordinates => Key::At(row.topic, row.partition, row.offset),
            By::Post => Key::Post(&row.post, row.version),
        }
    }

    /// The rows in order, of equals the last one that was read, and how many others there were.
    fn sorted(self, side: &Side) -> (Vec<usize>, u64) {
        let mut order: Vec<usize> = (0..side.rows.len()).collect();
        order.sort_by(|one, other| self.key(&side.rows[*one]).cmp(&self.key(&side.rows[*other])));
        let mut kept: Vec<usize> = Vec::with_capacity(order.len());
        for at in order {
            match kept.last_mut() {
                Some(last) if self.key(&side.rows[*last]) == self.key(&side.rows[at]) => *last = at,
                _ => kept.push(at),
            }
        }
        let superseded = side.rows.len() - kept.len();
        (kept, superseded as u64)
    }

    /// Joins the sides.
    pub fn join(self, a: &Side, b: &Side) -> Joined {
        let ((left, superseded_a), (right, superseded_b)) = (self.sorted(a), self.sorted(b));
        let mut joined = Joined { superseded: [superseded_a, superseded_b], ..Joined::default() };
        let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some(one), Some(other)) => self.key(&a.rows[*one]).cmp(&self.key(&b.rows[*other])),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return joined,
            };
            let one = if order.is_le() { left.next() } else { None };
            let other = if order.is_ge() { right.next() } else { None };
            match (one, other) {
                (Some(one), Some(other)) if a.rows[one].post == b.rows[other].post => joined.pairs.push((one, other)),
                (one, other) => {
                    joined.other_posts += u64::from(one.is_some() && other.is_some());
                    joined.only_a.extend(one);
                    joined.only_b.extend(other);
                }
            }
        }
    }
}
