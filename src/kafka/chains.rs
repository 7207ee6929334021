//! Links every record that goes to the output topic to the one before, in the order in which they leave: for each
//! partition of the input topic a chain.

use std::collections::HashMap;

use super::record::Outgoing;
use crate::error::Fatal;
use crate::event::NoEvent;
use crate::evidence::key::draw;
use crate::evidence::link::{Content, Head};
use crate::receipt::{Epoch, Original, Partition, Receipt, Sequence};

/// Assignments after which nothing of an older one is still on the road.
const OLD: u64 = 64;

/// The chains of the partitions that this worker owns, or owned a moment ago.
#[derive(Default)]
pub(super) struct Chains {
    heads: HashMap<(Partition, Epoch), Head>,
}

impl Chains {
    /// The header of a record that is about to leave, if it goes to the output topic, and its receipt with the chain's
    /// head behind it.
    pub(super) fn link(
        &mut self,
        original: &Original,
        outgoing: &Outgoing,
        receipt: Receipt,
    ) -> Result<(Option<String>, Receipt), Fatal> {
        let (partition, epoch, sequence) = receipt.place();
        if sequence == Sequence(0) {
            let found = receipt.head().map_or_else(|| begin(original), Ok)?;
            self.heads.retain(|(own, old), _| *own != partition || old.0 + OLD > epoch.0);
            self.heads.insert((partition, epoch), found);
        }
        let gone = || Fatal::Internal { part: "publisher", cause: "a chain that never began".to_owned() };
        let head = self.heads.get_mut(&(partition, epoch)).ok_or_else(gone)?;
        let value = match outgoing {
            Outgoing::Verdict { event, .. } | Outgoing::Note { event, .. } => Some(event.sealed().map_err(no_event)?),
            Outgoing::Tombstone => None,
            Outgoing::DeadLetter(_) => return Ok((None, receipt.with_head(Some(*head)))),
        };
        let Original { topic, offset, key, .. } = original;
        let (link, next) =
            head.next(&Content { topic, partition, offset: offset.0, key: key.as_deref(), value: value.as_deref() });
        *head = next;
        Ok((Some(link.to_string()), receipt.with_head(Some(next))))
    }
}

fn no_event(error: NoEvent) -> Fatal {
    Fatal::Internal { part: "publisher", cause: error.to_string() }
}

fn begin(original: &Original) -> Result<Head, Fatal> {
    let failed = || Fatal::Internal { part: "publisher", cause: "the system gives no random numbers".to_owned() };
    Ok(Head::begin(draw().ok_or_else(failed)?, &original.topic, original.partition))
}
