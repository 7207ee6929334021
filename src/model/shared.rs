//! One loaded graph that several threads run at the same time: one copy of the weights, packed once, whatever the
//! number of instances.
//!
//! ONNX Runtime's `Run` may be called from many threads on one session; `ort` takes the session exclusively because
//! not every provider keeps that promise. Those that moderato offers do. With one intra-op thread a run stays on the
//! thread that asked for it.

#![expect(unsafe_code, reason = "ort has no call that runs a shared session")]

use std::sync::Arc;

use ort::{
    AsPointer,
    session::{IoBinding, Session},
};

use super::error::{ModelError, run_failed};

/// A handle to the session; cloning it copies nothing else.
#[derive(Clone)]
pub(super) struct SharedSession(Arc<Session>);

impl SharedSession {
    pub(super) fn new(session: Session) -> Self {
        Self(Arc::new(session))
    }

    pub(super) fn session(&self) -> &Session {
        &self.0
    }

    /// Inputs and outputs of one thread's runs.
    pub(super) fn binding(&self) -> Result<IoBinding, ModelError> {
        self.0.create_binding().map_err(run_failed)
    }

    /// Runs with what is bound, outputs included. The binding must be of this session.
    pub(super) fn run(&self, binding: &mut IoBinding) -> Result<(), ModelError> {
        // SAFETY: both pointers are valid for as long as their owners, which outlive the call. `Run` is thread safe on
        // one session; the binding is exclusively ours. A binding holds its own session, so a foreign one is an error
        // that ONNX Runtime reports, not undefined behaviour. The status is consumed exactly once. Kernels of our own
        // operators get `&mut self` from each thread and hold nothing that changes (see `operators`).
        let outcome = unsafe {
            let status = (ort::api().RunWithBinding)(self.0.ptr().cast_mut(), std::ptr::null(), binding.ptr());
            ort::Error::result_from_status(status)
        };
        outcome.map_err(run_failed)
    }
}
