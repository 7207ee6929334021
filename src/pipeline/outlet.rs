//! Where finished posts go: the verdict and dead-letter topics, lines on standard output or in a file, or nowhere.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use crate::error::Fatal;
use crate::kafka::publisher::{Outgoing, Publisher, Report};
use crate::pipeline::filed::Filed;
use crate::pipeline::shadow::Comparison;
use crate::receipt::{Original, Receipt};

/// The end of the road.
pub enum Outlet {
    /// Kafka topics.
    Kafka(Publisher),
    /// One line of JSON each.
    Lines(Lines),
    /// The same, durable before it is settled.
    File(Filed),
    /// Beside the road: compared, and published without waiting.
    Shadow(Comparison),
    /// Nowhere: looked at, in the order of calls.
    Look(Look),
}

/// Is shown each post and what it has become.
pub type Look = Box<dyn FnMut(&Original, &Outgoing) + Send>;

impl Outlet {
    /// Hands the record over, in the order of calls. The receipt comes back at once if the record is durable by now,
    /// and otherwise by [`Outlet::reports`].
    pub async fn publish(
        &mut self,
        original: Arc<Original>,
        outgoing: Outgoing,
        receipt: Receipt,
    ) -> Result<Option<Receipt>, Fatal> {
        match self {
            Outlet::Kafka(publisher) => publisher.publish(original, outgoing, receipt).await.map(|()| None),
            Outlet::Lines(lines) => match lines.write(&original, &outgoing) {
                Ok(()) => Ok(Some(receipt)),
                Err(error) => Err(Fatal::Output { to: "standard output".to_owned(), cause: error.to_string() }),
            },
            Outlet::File(filed) => filed.write(&original, &outgoing, receipt).map(|()| None),
            Outlet::Shadow(comparison) => {
                comparison.take(&original, &outgoing);
                Ok(Some(receipt))
            }
            Outlet::Look(look) => {
                look(&original, &outgoing);
                Ok(Some(receipt))
            }
        }
    }

    /// Nothing more comes, and all that came has been reported.
    pub fn close(&mut self) -> Result<(), Fatal> {
        match self {
            Outlet::File(filed) => tokio::task::block_in_place(|| filed.close()),
            Outlet::Kafka(_) | Outlet::Lines(_) | Outlet::Shadow(_) | Outlet::Look(_) => Ok(()),
        }
    }

    /// Waits until records that were handed over have ended, and adds how: how many.
    pub async fn reports(&mut self, reports: &mut Vec<Report>) -> usize {
        match self {
            Outlet::Kafka(publisher) => publisher.reports(reports).await,
            Outlet::File(filed) => filed.reports(reports).await,
            Outlet::Lines(_) | Outlet::Shadow(_) | Outlet::Look(_) => std::future::pending().await,
        }
    }
}

/// Lines of JSON: verdicts as they would be published, and what cannot be judged as an `error`.
pub struct Lines(Box<dyn Write + Send>);

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    line: i64,
    reason: &'a str,
    stage: &'a str,
    message: &'a str,
}

impl Lines {
    /// Lines to any writer; each is flushed, so that a pipe sees it at once.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Box::new(writer))
    }

    fn write(&mut self, original: &Original, outgoing: &Outgoing) -> io::Result<()> {
        let out = &mut self.0;
        match outgoing {
            Outgoing::Verdict { event, .. } | Outgoing::Note { event, .. } => out.write_all(event.json())?,
            Outgoing::Tombstone => out.write_all(b"null")?,
            Outgoing::DeadLetter(rejected) => serde_json::to_writer(
                &mut *out,
                &ErrorLine {
                    error: ErrorBody {
                        line: original.offset.0 + 1,
                        reason: rejected.reason.code(),
                        stage: rejected.stage.code(),
                        message: &rejected.message,
                    },
                },
            )?,
        }
        out.write_all(b"\n")?;
        out.flush()
    }
}
