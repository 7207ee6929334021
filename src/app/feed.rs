//! A source that is no topic: records one after the other, as if they were one partition's.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::Receiver;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::Fatal;
use crate::kafka::bounds::Pace;
use crate::kafka::ledger::Ledger;
use crate::receipt::{Envelope, Offset, Original, RawMessage, Receipt};

/// What a source of records needs.
pub struct Feed<R> {
    /// The records, in their order.
    pub records: R,
    /// Permits: how many posts may be in flight.
    pub permits: usize,
    /// How fast it may go.
    pub pace: Option<Pace>,
    /// To prepare.
    pub intake: mpsc::Sender<Envelope<RawMessage>>,
    /// From conclude: finished receipts.
    pub settled: Receiver<Receipt>,
    /// Cancelled when no more is to be read.
    pub stop: CancellationToken,
}

impl<R: Iterator<Item = Result<Original, Fatal>> + Send + 'static> Feed<R> {
    /// Starts the thread; it ends when all records are settled, or those that were read when it was told to stop.
    pub fn spawn(self) -> Result<JoinHandle<Result<(), Fatal>>, Fatal> {
        let spawned = thread::Builder::new().name("source".to_owned()).spawn(move || self.run());
        spawned.map_err(|error| Fatal::Internal { part: "source", cause: error.to_string() })
    }

    fn run(mut self) -> Result<(), Fatal> {
        let mut ledger = Ledger::default();
        ledger.assign([0], Instant::now());
        for number in 0.. {
            if self.stop.is_cancelled() {
                break;
            }
            let Some(original) = self.records.next() else { break };
            let original = Arc::new(original?);
            while ledger.in_flight(&[0]) >= self.permits {
                settle(&self.settled, &mut ledger)?;
            }
            self.keep_pace();
            let received = Instant::now();
            let Some(receipt) = ledger.deliver(0, Offset(number), received) else { break };
            let envelope = Envelope { body: RawMessage, receipt, original, received };
            if self.intake.blocking_send(envelope).is_err() {
                return Ok(()); // The road is broken; the stage that broke says why.
            }
        }
        while ledger.in_flight(&[0]) > 0 {
            settle(&self.settled, &mut ledger)?;
        }
        Ok(())
    }

    fn keep_pace(&mut self) {
        let Some(pace) = &mut self.pace else { return };
        while pace.room(Instant::now()) == 0 && !self.stop.is_cancelled() {
            thread::sleep(pace.due().saturating_duration_since(Instant::now()));
        }
        pace.took(1);
    }
}

fn settle(settled: &Receiver<Receipt>, ledger: &mut Ledger) -> Result<(), Fatal> {
    let receipt = settled.recv();
    let receipt = receipt.map_err(|_| Fatal::Internal { part: "conclude", cause: "it ended early".to_owned() })?;
    let _ = ledger.settle(receipt, Instant::now());
    Ok(())
}
