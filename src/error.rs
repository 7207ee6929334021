//! The ways the whole worker can end, each with a stable code, and the process exit codes.

use thiserror::Error;

/// The worker can no longer keep its promise: it drains shortly, logs this once and exits with 1, and a replica
/// redelivers what was not finished.
#[derive(Debug, Clone, Error)]
pub enum Fatal {
    /// A verdict could not be delivered within `kafka.delivery_timeout`.
    #[error(
        "a verdict for {topic} could not be delivered: {cause}. Check that the topic exists, that its max.message.bytes fits a verdict, and that this worker may write to it"
    )]
    VerdictUndeliverable {
        /// Destination topic.
        topic: String,
        /// What the broker or client said.
        cause: String,
    },
    /// A note could not be delivered within `kafka.delivery_timeout`.
    #[error(
        "a note for {topic} could not be delivered: {cause}. Check that the topic exists, that its max.message.bytes fits a note, and that this worker may write to it"
    )]
    NoteUndeliverable {
        /// Destination topic.
        topic: String,
        /// What the broker or client said.
        cause: String,
    },
    /// A dead letter could not be delivered.
    #[error(
        "a dead letter for {topic} could not be delivered: {cause}. Check that the topic exists, that its max.message.bytes is at least the input topic's, and that this worker may write to it"
    )]
    DeadLetterUndeliverable {
        /// Destination topic.
        topic: String,
        /// What the broker or client said.
        cause: String,
    },
    /// A flagged post could not be passed on.
    #[error(
        "a flagged post for {topic} could not be delivered: {cause}. Check that the topic exists, that its max.message.bytes is at least the input topic's and a verdict's together, and that this worker may write to it"
    )]
    FlaggedUndeliverable {
        /// Destination topic.
        topic: String,
        /// What the broker or client said.
        cause: String,
    },
    /// Another producer took this worker's `transactional.id`.
    #[error(
        "another worker uses the transactional.id {transactional_id} and this one was fenced, or the brokers gave up a transaction that was open for longer than kafka.delivery_timeout; give each worker of the group a kafka.worker_id of its own (in Kubernetes, leave it unset: it is the pod's name)"
    )]
    Fenced {
        /// The name that both use.
        transactional_id: String,
    },
    /// Too many posts of a partition were rejected: most likely somebody broke a schema.
    #[error(
        "partition {partition}: {count} were rejected, the last as {reason}; look at the dead-letter topic before restarting"
    )]
    TooManyRejections {
        /// The partition.
        partition: i32,
        /// How many of how many, and by which limit that is too many.
        count: String,
        /// The last one's reason.
        reason: &'static str,
    },
    /// Work was in flight and the next offset did not move for `stall_timeout`.
    #[error("partition {partition}: {in_flight} posts in flight and no progress for {seconds} s (stall_timeout)")]
    Stalled {
        /// The partition.
        partition: i32,
        /// How many of its posts are in flight.
        in_flight: usize,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The Kafka client says it cannot go on (fenced, unauthorised, fatal client error).
    #[error("the Kafka client cannot go on: {cause}")]
    Kafka {
        /// What it said.
        cause: String,
    },
    /// The model fails on everything: the device or the session is lost.
    #[error("the model failed on every row of a batch of {rows}: {cause}")]
    ModelLost {
        /// Rows in the batch.
        rows: usize,
        /// What ONNX Runtime said.
        cause: String,
    },
    /// Standard output (`moderato classify`, `moderato draft`) or a file (`moderato replay`) could not be written.
    #[error("cannot write to {to}: {cause}")]
    Output {
        /// Standard output, or the file.
        to: String,
        /// What the operating system said.
        cause: String,
    },
    /// A file of posts could not be read to its end (`moderato replay --input`).
    #[error("{cause}")]
    Input {
        /// Which file, where, and what is wrong.
        cause: String,
    },
    /// A part found the one behind it gone: an echo, for that one says why it ended.
    #[error("{part} has nobody to hand its work to")]
    Abandoned {
        /// Which part.
        part: &'static str,
    },
    /// A part of the worker ended although its input was still open: a defect.
    #[error("{part} ended unexpectedly: {cause}")]
    Internal {
        /// Which part.
        part: &'static str,
        /// What it said.
        cause: String,
    },
}

impl Fatal {
    /// Whether what the model was running may have brought it about: then those posts are suspected.
    pub fn is_of_a_run(&self) -> bool {
        matches!(self, Fatal::Stalled { .. } | Fatal::ModelLost { .. } | Fatal::Internal { part: "model", .. })
    }

    /// The stable code, for logs and the README's table.
    pub fn code(&self) -> &'static str {
        match self {
            Fatal::VerdictUndeliverable { .. } => "verdict_undeliverable",
            Fatal::NoteUndeliverable { .. } => "note_undeliverable",
            Fatal::DeadLetterUndeliverable { .. } => "dead_letter_undeliverable",
            Fatal::FlaggedUndeliverable { .. } => "flagged_undeliverable",
            Fatal::Fenced { .. } => "fenced",
            Fatal::TooManyRejections { .. } => "too_many_rejections",
            Fatal::Stalled { .. } => "stalled",
            Fatal::Kafka { .. } => "kafka_lost",
            Fatal::ModelLost { .. } => "model_lost",
            Fatal::Input { .. } => "input",
            Fatal::Output { .. } => "output",
            Fatal::Abandoned { .. } | Fatal::Internal { .. } => "internal",
        }
    }
}

/// What the process says when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or told to stop and drained.
    Ok,
    /// The worker could not keep its promise, or a check found a fault outside the configuration.
    Failed,
    /// The operator must fix the command line, the configuration, the policy or the model folder.
    Config,
    /// Done, and what was compared differs.
    Differs,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> i32 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Config => 2,
            Exit::Differs => 3,
        }
    }
}
