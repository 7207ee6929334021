//! A shadow: another policy, or another model, judges a share of the posts beside the road. Its verdicts go to a topic of
//! their own and decide nothing; how they compare is counted. It has a road and a model of its own, takes what it has room
//! for, and holds nobody up: what comes while it is busy is skipped and counted.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::Receiver;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tracing::warn;

use crate::error::Fatal;
use crate::kafka::aside::Aside;
use crate::kafka::ledger::Ledger;
use crate::kafka::publisher::Outgoing;
use crate::pipeline::Road;
use crate::policy::Action;
use crate::receipt::{Envelope, Offset, Original, RawMessage, Receipt};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::PostSpan;

/// Posts that may wait for the shadow, and as many that may be on its road.
const WAITING: usize = 256;
/// Larger records are skipped: with them, those that wait take 32 MiB at most.
const LARGEST: usize = 64 << 10;

/// A post as the policy in force judged it, on its way to the shadow.
pub struct Tapped {
    original: Arc<Original>,
    label: String,
    action: Action,
}

/// Where the road lets the shadow have its share.
pub struct Tap {
    share: f64,
    to: mpsc::Sender<Tapped>,
    metrics: Metrics,
}

impl Tap {
    /// A tap for this share of the posts, 0 to 1, and what comes out of it.
    pub fn new(share: f64, metrics: Metrics) -> (Self, mpsc::Receiver<Tapped>) {
        let (to, tapped) = mpsc::channel(WAITING);
        (Self { share, to, metrics }, tapped)
    }

    /// Lets the post through if it belongs to the share.
    pub fn offer(&self, post_id: &str, original: &Original, label: &str, action: Action) {
        if !sampled(post_id, self.share) {
            return;
        }
        let small = original.value.as_ref().is_some_and(|value| value.len() <= LARGEST);
        match self.to.try_reserve() {
            Ok(place) if small => {
                let original = Arc::new(Original { span: PostSpan::default(), ..original.clone() });
                place.send(Tapped { original, label: label.to_owned(), action });
            }
            _ => self.metrics.shadow("skipped"),
        }
    }
}

/// Whether a post belongs to a share, by its id alone: the same posts every time, and those of a smaller share belong to
/// every larger one.
fn sampled(post_id: &str, share: f64) -> bool {
    let digest = Sha256::digest(post_id);
    let first = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    // 2^64 places: a share of 1 takes them all.
    (first as f64) < share * 18_446_744_073_709_551_616.0
}

/// The end of the shadow's road: compares, counts, and publishes aside.
pub struct Comparison {
    producer: Aside,
    live: Receiver<(String, Action)>,
    metrics: Metrics,
}

/// What of a verdict is compared.
#[derive(Deserialize)]
struct Verdict {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    verdict: Judged,
}

#[derive(Deserialize)]
struct Judged {
    label: String,
    action: Action,
}

impl Comparison {
    /// A comparison, and where the live verdicts go that it compares with: in the order of the posts.
    pub fn new(producer: Aside, metrics: Metrics) -> (Self, crossbeam_channel::Sender<(String, Action)>) {
        let (to, live) = crossbeam_channel::unbounded();
        (Self { producer, live, metrics }, to)
    }

    /// One post has come to the end; they come in the order in which they went in.
    pub(super) fn take(&self, original: &Original, outgoing: &Outgoing) {
        let Ok((label, action)) = self.live.try_recv() else { return };
        let outcome = match outgoing {
            Outgoing::Verdict { event, .. } => match serde_json::from_slice::<Verdict>(event.json()) {
                Ok(Verdict { data: Data { verdict } }) if verdict.action != action => "action_differs",
                Ok(Verdict { data: Data { verdict } }) if verdict.label != label => "label_differs",
                Ok(_) => "agreed",
                Err(_) => "rejected",
            },
            _ => "rejected",
        };
        self.metrics.shadow(outcome);
        if outcome != "rejected" {
            self.producer.send(original, outgoing);
        }
    }
}

/// Feeds the shadow's road until the tap closes; a shadow that breaks is told and missed by nobody.
pub fn run(
    road: Road,
    mut tapped: mpsc::Receiver<Tapped>,
    live: crossbeam_channel::Sender<(String, Action)>,
    permits: usize,
) -> Result<(), Fatal> {
    let Road { intake, settled, mut stages, .. } = road;
    let permits = permits.min(WAITING);
    tokio::spawn(async move {
        while let Some(ended) = stages.join_next().await {
            if let Ok(Err(error)) = ended {
                warn!(error.type = error.code(), %error, "the shadow has ended; posts are judged as before");
                stages.abort_all();
            }
        }
    });
    let feed = move || {
        let mut ledger = Ledger::default();
        ledger.assign([0], Instant::now());
        let settle = |ledger: &mut Ledger, receipt: Receipt| {
            let _ = ledger.settle(receipt, Instant::now());
        };
        for number in 0.. {
            let Some(Tapped { original, label, action }) = tapped.blocking_recv() else { return };
            settled.try_iter().for_each(|receipt| settle(&mut ledger, receipt));
            while ledger.in_flight(&[0]) >= permits {
                let Ok(receipt) = settled.recv() else { return };
                settle(&mut ledger, receipt);
            }
            let received = Instant::now();
            let Some(receipt) = ledger.deliver(0, Offset(number), received) else { return };
            let _ = live.send((label, action));
            let envelope = Envelope { body: RawMessage, receipt, original, received };
            if intake.blocking_send(envelope).is_err() {
                return;
            }
        }
    };
    let spawned = thread::Builder::new().name("shadow".to_owned()).spawn(feed);
    spawned.map(drop).map_err(|error| Fatal::Internal { part: "shadow", cause: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_about_that_many_posts_the_same_each_time_and_a_larger_one_takes_them_too() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("post-{n}")).collect();
        let taken = |share| ids.iter().filter(|id| sampled(id, share)).collect::<Vec<_>>();
        let (tenth, half) = (taken(0.1), taken(0.5));
        assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, taken(0.1));
        assert!(tenth.iter().all(|id| half.contains(id)));
        assert_eq!((taken(0.0).len(), taken(1.0).len()), (0, ids.len()));
    }
}
