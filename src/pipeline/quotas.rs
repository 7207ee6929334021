//! How often a label may act by itself: beyond its quota, `act` becomes `review` until the window is over. Pure: time is
//! passed in. Each worker counts for itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::Policy;

/// What each label has used of its quota.
#[derive(Debug, Default)]
pub struct Quotas(BTreeMap<Arc<str>, Used>);

#[derive(Debug)]
struct Used {
    most: u64,
    window: Duration,
    since: Instant,
    count: u64,
}

impl Quotas {
    /// The policy's quotas. What was used of one that stays as it was stays used: a reload gives no new room.
    #[must_use]
    pub fn renewed(mut self, policy: &Policy, now: Instant) -> Self {
        let quotas = policy.labels.iter().filter_map(|label| Some((label.id.clone(), label.act_quota?)));
        Self(
            quotas
                .map(|(id, quota)| {
                    let same = |used: &Used| used.most == quota.most && used.window == quota.window;
                    let fresh = Used { most: quota.most, window: quota.window, since: now, count: 0 };
                    let used = self.0.remove(&id).filter(same).unwrap_or(fresh);
                    (id, used)
                })
                .collect(),
        )
    }

    /// Whether one more verdict may act for this label; if so, it is counted.
    pub fn allow(&mut self, label: &str, now: Instant) -> bool {
        let Some(used) = self.0.get_mut(label) else { return true };
        if now.saturating_duration_since(used.since) >= used.window {
            (used.since, used.count) = (now, 0);
        }
        let room = used.count < used.most;
        used.count += u64::from(room);
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyFormat;

    fn policy(most: u64) -> Policy {
        let text = format!(
            "id: p\nrevision: r\ntaxonomy: t/1\nprompt: Judge.\nlabels:\n\
             - {{id: bad, description: d, answer: a, thresholds: {{review: 0.4, act: 0.9}}, act_quota: {{most: {most}, window: 1h}}}}\n\
             - {{id: fine, description: d, answer: c}}\n"
        );
        Policy::parse(&text, PolicyFormat::Yaml).unwrap()
    }

    #[test]
    fn a_label_acts_as_often_as_its_quota_says_and_again_in_the_next_window() {
        let start = Instant::now();
        let mut quotas = Quotas::default().renewed(&policy(2), start);
        let hour = Duration::from_secs(3600);
        let allowed: Vec<bool> = [0, 1, 2, 3_599, 3_600, 3_601, 3_602]
            .map(|second| quotas.allow("bad", start + Duration::from_secs(second)))
            .into();
        assert_eq!(allowed, [true, true, false, false, true, true, false]);
        assert!((0..100).all(|_| quotas.allow("fine", start + hour)), "without a quota there is no end");
    }

    #[test]
    fn a_reload_gives_no_new_room_unless_the_quota_is_another() {
        let start = Instant::now();
        let mut quotas = Quotas::default().renewed(&policy(1), start);
        assert!(quotas.allow("bad", start));
        let mut same = quotas.renewed(&policy(1), start);
        assert!(!same.allow("bad", start));
        assert!(same.renewed(&policy(2), start).allow("bad", start));
    }
}
