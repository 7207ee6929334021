//! Blast radius: how much each label acts on by itself, against its quota.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::{Name, Names};
use super::report::Radius;
use super::side::Row;
use crate::policy::Policy;
use crate::verdict::ActionReason;

/// The most that may be acted on in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// By which label; each of them where there is none.
    pub label: Option<String>,
    /// How many.
    pub most: u64,
    /// In how long.
    pub window: Duration,
}

/// What the labels are held to.
#[derive(Debug)]
pub struct Caps<'a> {
    /// Asked for.
    pub asked: &'a [Cap],
    /// Has quotas of its own, where nothing is asked for a label.
    pub policy: Option<&'a Policy>,
    /// The window of a label that nothing holds.
    pub window: Duration,
}

impl Caps<'_> {
    fn of(&self, label: &str) -> (Option<u64>, Duration) {
        let named = self.asked.iter().rev().find(|cap| cap.label.as_deref() == Some(label));
        if let Some(cap) = named.or_else(|| self.asked.iter().rev().find(|cap| cap.label.is_none())) {
            return (Some(cap.most), cap.window);
        }
        let own = self.policy.and_then(|policy| policy.labels.iter().find(|one| &*one.id == label)?.act_quota);
        own.map_or((None, self.window), |quota| (Some(quota.most), quota.window))
    }

    /// One for each label, in their order.
    pub fn radius(&self, labels: &[Name], names: &Names, sides: [&mut dyn Iterator<Item = &Row>; 2]) -> Vec<Radius> {
        let [mut a, mut b] = sides.map(acts);
        let radius = |label: &Name| {
            let word = names.word(*label);
            let (quota, window) = self.of(word);
            let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            let (a, b) = (a.remove(label).unwrap_or_default(), b.remove(label).unwrap_or_default());
            let [(peak_a, _), (peak_b, from)] = [&a, &b].map(|acts| peak(&acts.times, window_ms));
            let from = from.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            Radius {
                label: word.to_owned(),
                acts: [a.times.len() as u64, b.times.len() as u64],
                peak: [peak_a, peak_b],
                peak_from: from.map(|time| time.to_string()),
                window_ms,
                quota,
                held: b.held,
                exceeded: quota.is_some_and(|most| peak_b > most),
            }
        };
        labels.iter().map(radius).collect()
    }
}

#[derive(Default)]
struct Acts {
    times: Vec<i64>,
    held: u64,
}

fn acts(rows: &mut dyn Iterator<Item = &Row>) -> BTreeMap<Name, Acts> {
    let mut by_label: BTreeMap<Name, Acts> = BTreeMap::new();
    for row in rows.filter(|row| row.calls_for_act()) {
        let acts = by_label.entry(row.action_label).or_default();
        acts.times.push(row.time_ms);
        acts.held += u64::from(row.reason == ActionReason::Quota);
    }
    by_label.values_mut().for_each(|acts| acts.times.sort_unstable());
    by_label
}

/// The most of these times, which are in order, in any window of that length, and when the first such window begins.
fn peak(times: &[i64], window_ms: u64) -> (u64, Option<i64>) {
    let (mut first, mut most, mut from) = (0, 0, None);
    for (last, time) in times.iter().enumerate() {
        while time.abs_diff(times[first]) >= window_ms {
            first += 1;
        }
        if last + 1 - first > most {
            (most, from) = (last + 1 - first, Some(times[first]));
        }
    }
    (most as u64, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_window_is_found_wherever_it_begins() {
        let times = [0, 900, 950, 1_000, 1_899, 1_900, 5_000];
        assert_eq!(peak(&times, 1_000), (4, Some(900)));
        assert_eq!(peak(&times, 1), (1, Some(0)));
        assert_eq!(peak(&times, 10_000), (7, Some(0)));
        assert_eq!(peak(&[], 1_000), (0, None));
    }

    #[test]
    fn what_is_asked_for_a_label_goes_before_what_is_asked_for_all_and_that_before_the_policy() {
        let text = "id: p\nrevision: r\ntaxonomy: t/1\nprompt: Judge.\nlabels:\n\
             - {id: bad, description: d, answer: a, thresholds: {review: 0.4, act: 0.9}, act_quota: {most: 2, window: 1h}}\n\
             - {id: fine, description: d, answer: c}\n";
        let policy = Policy::parse(text, crate::policy::PolicyFormat::Yaml).unwrap();
        let cap =
            |label: Option<&str>, most| Cap { label: label.map(str::to_owned), most, window: Duration::from_secs(1) };
        let of = |asked: &[Cap], label| {
            let caps = Caps { asked, policy: Some(&policy), window: Duration::from_secs(60) };
            let (most, window) = caps.of(label);
            (most, window.as_secs())
        };
        assert_eq!(of(&[], "bad"), (Some(2), 3_600));
        assert_eq!(of(&[], "fine"), (None, 60));
        assert_eq!(of(&[cap(Some("bad"), 7), cap(None, 9)], "bad"), (Some(7), 1));
        assert_eq!(of(&[cap(Some("bad"), 7), cap(None, 9)], "fine"), (Some(9), 1));
    }
}
