//! What can go wrong with a model, sorted at birth: by the operator's folder, by the device, or while running.
//!
//! Every message says what, where and how to mend it. All but [`ModelError::Run`] happen before the first post
//! is read, so they are the operator's to mend.

use std::{fmt, path::PathBuf};

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model folder is incomplete, altered or unsafe; every problem found is listed.
    #[error("model folder {}: {}", path.display(), Lines(problems))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// One line a problem.
        problems: Vec<String>,
    },
    /// The graph follows a convention that moderato does not speak.
    #[error("{0}")]
    Contract(String),
    /// The tokenizer cannot be read or cannot do what is asked of it.
    #[error("{0}")]
    Tokenizer(String),
    /// The chat template and the policy do not make a prompt.
    #[error("{0}")]
    Prompt(String),
    /// ONNX Runtime's library is missing, too old, or another one is loaded already.
    #[error("{0}")]
    Library(String),
    /// The device that was asked for is not there. The CPU is never used in its place.
    #[error("{0}")]
    Device(String),
    /// ONNX Runtime refused the graph.
    #[error("{0}")]
    Session(String),
    /// The weights' licence has conditions that nobody has accepted.
    #[error("{0}")]
    License(String),
    /// A run failed.
    #[error("{message}")]
    Run {
        /// What ONNX Runtime said.
        message: String,
        /// The device is gone: no later run can succeed.
        device_lost: bool,
    },
}

impl ModelError {
    /// The stable name of this kind of fault.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "model_folder_invalid",
            Self::Contract(_) => "model_contract_unknown",
            Self::Tokenizer(_) => "tokenizer_invalid",
            Self::Prompt(_) => "prompt_invalid",
            Self::Library(_) => "onnxruntime_missing",
            Self::Device(_) => "device_unavailable",
            Self::License(_) => "license_not_accepted",
            Self::Session(_) => "model_session_failed",
            Self::Run { device_lost: true, .. } => "device_lost",
            Self::Run { .. } => "model_run_failed",
        }
    }

    /// Whether the device is gone, so that no later run can succeed.
    pub fn device_lost(&self) -> bool {
        matches!(self, Self::Run { device_lost: true, .. })
    }

    /// A fault of one run that leaves the device usable.
    pub(crate) fn run(message: impl Into<String>) -> Self {
        Self::Run { message: message.into(), device_lost: false }
    }
}

/// A post that cannot become token ids. The post is at fault, never the worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// Longer than allowed, and the policy for long posts is `reject`.
    #[error(
        "the post has at least {total} tokens and the limit is {limit}: raise max_input_tokens or choose a truncating on_overlong"
    )]
    TooLong {
        /// Tokens of the post; a lower bound where the byte cap cut it first.
        total: usize,
        /// The limit in force.
        limit: usize,
    },
    /// A control token came out of plain text. The tokenizer should make this impossible; it is checked all the same.
    #[error(
        "the post's text became control token {id}: the tokenizer turns plain text into control tokens, so this post is not judged"
    )]
    ControlToken {
        /// The token id.
        id: u32,
    },
    /// Nothing is left of the post once blanks around it are taken away.
    #[error("the post has no text")]
    Empty,
    /// The tokenizer itself failed.
    #[error("the tokenizer failed on the post: {0}")]
    Tokenizer(String),
}

/// A failed run, with what it means for the device.
pub(super) fn run_failed(error: ort::Error) -> ModelError {
    let message = error.to_string();
    // CUDA reports a lost device as an ordinary failure whose text names it.
    let lost = ["device lost", "cudaErrorDevicesUnavailable", "unspecified launch failure", "illegal memory access"];
    let device_lost = error.code() == ort::ErrorCode::DeviceReset || lost.iter().any(|sign| message.contains(sign));
    ModelError::Run { message: format!("the model run failed: {message}"), device_lost }
}

/// Prints a list one item a line, or in the same line if there is only one.
pub(crate) struct Lines<'a>(pub &'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => f.write_str(only),
            many => many.iter().try_for_each(|line| write!(f, "\n  - {line}")),
        }
    }
}
