//! Claims: of several workers that have one question, who answers it.
//!
//! A claim is a key that is made where there is none and lapses soon unless its holder renews it. So whoever dies or
//! hangs is waited for no longer than a lease, and a question changes hands in one atomic step: the next one to ask
//! makes the key anew. That is why holders renew their claims themselves and do not show by one key each that they
//! live: to take a dead holder's claim, and not that of somebody who took it a moment before, would need a script.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::Cmd;
use tokio::time::MissedTickBehavior;

use super::link::Link;

/// How long a claim lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(3);
/// How often claims are renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// This worker's claims.
pub(super) struct Claims {
    link: Arc<Link>,
    /// Host and process, for whoever looks into Redis; nothing rests on it.
    holder: String,
    held: Mutex<HashSet<String>>,
}

impl Claims {
    /// Renews what is held for as long as somebody has use for it. Must be called on the runtime.
    pub(super) fn open(link: Arc<Link>) -> Arc<Self> {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let claims = Arc::new(Self { link, holder: format!("{node}/{}", std::process::id()), held: Mutex::default() });
        tokio::spawn(renew(Arc::downgrade(&claims)));
        claims
    }

    /// The command that claims; it is answered with `OK` if nobody held the claim.
    pub(super) fn claim(&self, name: &str) -> Cmd {
        self.set(name, "NX")
    }

    /// The claim was granted.
    pub(super) fn hold(&self, name: String) {
        self.held().insert(name);
    }

    /// The command that ends a claim, if there is one to end.
    pub(super) fn release(&self, name: &str) -> Option<Cmd> {
        let held = self.held().remove(name);
        held.then(|| {
            let mut command = redis::cmd("DEL");
            command.arg(name);
            command
        })
    }

    /// Only where the key still is: a claim that was released meanwhile must not come back.
    fn renewals(&self) -> Vec<Vec<Cmd>> {
        self.held().iter().map(|name| vec![self.set(name, "XX")]).collect()
    }

    fn set(&self, name: &str, condition: &str) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(name).arg(&self.holder).arg(condition).arg("PX").arg(LEASE.as_millis() as u64);
        command
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn renew(claims: Weak<Claims>) {
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(claims) = claims.upgrade() else { return };
        // One that could not be renewed lapses: somebody else may then answer the question too, which costs a run.
        let _ = claims.link.groups(claims.renewals()).await;
    }
}
