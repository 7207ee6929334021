//! Where finished posts go: the verdict and dead-letter topics, or lines on standard output.

use std::future::Future;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use futures_util::future::Either;
use serde::Serialize;

use crate::error::Fatal;
use crate::kafka::publisher::{Outgoing, Publisher};
use crate::receipt::Original;

/// The end of the road.
pub enum Outlet {
    /// Kafka topics.
    Kafka(Publisher),
    /// One line of JSON each.
    Lines(Lines),
}

impl Outlet {
    /// Hands the record over, in the order of calls; the returned future ends when it is durable.
    pub async fn publish(
        &self,
        original: &Original,
        outgoing: &Outgoing,
    ) -> Result<impl Future<Output = Result<(), Fatal>> + Send + use<>, Fatal> {
        match self {
            Outlet::Kafka(publisher) => Ok(Either::Left(publisher.publish(original, outgoing).await?)),
            Outlet::Lines(lines) => {
                let written = lines.write(original, outgoing);
                written.map_err(|error| Fatal::Output { cause: error.to_string() })?;
                Ok(Either::Right(std::future::ready(Ok(()))))
            }
        }
    }
}

/// Lines of JSON: verdicts as they would be published, and what cannot be judged as an `error`.
pub struct Lines(Mutex<Box<dyn Write + Send>>);

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
        Self(Mutex::new(Box::new(writer)))
    }

    fn write(&self, original: &Original, outgoing: &Outgoing) -> io::Result<()> {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outgoing {
            Outgoing::Verdict { value, .. } => out.write_all(value)?,
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
