//! One loaded graph that several threads run at the same time: one copy of the weights, packed once, whatever the
//! number of instances.
//!
//! ONNX Runtime's `Run` may be called from many threads on one session; `ort` takes the session exclusively because
//! not every provider keeps that promise. Those that moderato offers do. With one intra-op thread a run stays on the
//! thread that asked for it.

#![expect(unsafe_code, reason = "ort has no call that runs a shared session")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use ort::{
    AsPointer,
    session::{IoBinding, Session},
};

use super::error::{ModelError, run_failed};

/// A handle to the session; cloning it copies nothing else.
#[derive(Clone)]
pub(super) struct SharedSession(Arc<Session>);

/// Sessions that are open, by their graph and the shapes they are compiled for; nothing is kept open for it.
#[derive(Default)]
pub(super) struct Sessions(RefCell<BTreeMap<(PathBuf, String), Weak<Session>>>);

impl Sessions {
    /// The session that is open, or a new one.
    pub(super) fn opened(
        &self,
        graph: &Path,
        shapes: String,
        open: impl FnOnce() -> Result<Session, ModelError>,
    ) -> Result<SharedSession, ModelError> {
        let key = (graph.to_owned(), shapes);
        if let Some(session) = self.0.borrow().get(&key).and_then(Weak::upgrade) {
            return Ok(SharedSession(session));
        }
        let session = SharedSession::new(open()?);
        self.0.borrow_mut().insert(key, Arc::downgrade(&session.0));
        Ok(session)
    }
}

impl SharedSession {
    pub(super) fn new(session: Session) -> Self {
        Self(Arc::new(session))
    }

    /// Whether both are handles to one session.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
