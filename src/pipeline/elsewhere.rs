//! Posts whose question another worker is answering: they wait for its answer, and lead to a run of their own when that
//! worker gives up or is gone.
//!
//! No two workers wait for each other for ever. A question that a worker has claimed is already with its batcher when
//! the worker begins to wait for others; waiting takes neither the model nor a chunk's place in prepare; answers are
//! kept, and claims let go, before conclude puts posts back in order. So the end of a claim depends on its holder's
//! model alone, never on what its holder waits for. A holder that dies or hangs loses its claims within seconds, and
//! whatever else may go wrong, a wait ends with [`Cache::patience`](crate::cache::Cache::patience).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::cache::Question;
use crate::error::Fatal;
use crate::pipeline::TokenizedPost;
use crate::pipeline::prepare::{Onward, Parts, sort};
use crate::receipt::Envelope;

/// How soon to ask again; each time twice as late as before.
const FIRST: Duration = Duration::from_millis(20);
/// How late at most: what a post may wait beyond the moment that its answer was there.
const LATEST: Duration = Duration::from_millis(200);

/// Waits until each of these posts has gone on. After the last call nothing more comes, and what is left is not to hold
/// up the end: it is run here.
pub async fn wait(
    parts: Arc<Parts>,
    mut posts: Vec<Envelope<TokenizedPost>>,
    onward: Onward,
    last_call: CancellationToken,
) -> Result<(), Fatal> {
    let deadline = Instant::now() + parts.cache.patience();
    let mut pause = FIRST;
    while !posts.is_empty() {
        debug!(posts = posts.len(), "waiting for another worker's answers");
        let in_time = tokio::select! {
            () = sleep(pause) => Instant::now() < deadline,
            () = last_call.cancelled() => false,
        };
        pause = LATEST.min(2 * pause);
        let questions = if in_time {
            let keys: Vec<_> = posts.iter().map(|post| post.body.key).collect();
            parts.cache.ask_again(&keys, parts.kind).await
        } else {
            vec![Question::Open; posts.len()]
        };
        posts = sort(&parts, posts, questions, &onward).await?;
    }
    Ok(())
}
