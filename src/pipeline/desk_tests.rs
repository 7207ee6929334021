//! Who gets rows, and when.

use super::*;
use crate::pipeline::batcher::tests::{key, row};

struct Threads {
    asks: mpsc::Sender<Ask>,
    misses: Option<mpsc::Sender<Envelope<TokenizedPost>>>,
    desk: tokio::task::JoinHandle<()>,
}

impl Threads {
    fn new(writers: usize, suspects: Suspects) -> Self {
        let (misses, misses_rx) = mpsc::channel(16);
        let (asks, asks_rx) = mpsc::channel(writers);
        let parts = Parts { writers, suspects: Arc::new(suspects), asks: asks_rx };
        Self { asks, misses: Some(misses), desk: tokio::spawn(parts.run(misses_rx)) }
    }

    async fn posts(&self, numbers: impl IntoIterator<Item = u32>) {
        for n in numbers {
            self.misses.as_ref().unwrap().send(row(n)).await.unwrap();
        }
    }

    async fn ask(&self, room: usize, writing: usize) -> oneshot::Receiver<Vec<Waiting>> {
        let (rows, asked) = oneshot::channel();
        self.asks.send(Ask { room, writing, rows }).await.ok().unwrap();
        asked
    }
}

fn numbers(rows: Vec<Waiting>) -> Vec<i64> {
    rows.iter().map(|row| row.post.receipt.offset().0).collect()
}

#[tokio::test]
async fn a_thread_that_writes_is_answered_at_once_and_one_that_does_not_waits_for_rows() {
    let mut threads = Threads::new(2, Suspects::none());

    let idle = threads.ask(8, 0).await;
    assert_eq!(numbers(threads.ask(8, 3).await.await.unwrap()), [0; 0]);
    threads.posts(0..1).await;
    assert_eq!(numbers(idle.await.unwrap()), [0]);
    threads.posts(1..6).await;
    assert_eq!(numbers(threads.ask(3, 5).await.await.unwrap()), [1, 2, 3]);
    threads.misses = None;
    assert_eq!(numbers(threads.ask(8, 0).await.await.unwrap()), [4, 5]);
    threads.desk.await.unwrap();
}

#[tokio::test]
async fn a_suspect_is_written_alone_and_while_no_other_is() {
    let state = tempfile::tempdir().unwrap();
    let open = || Suspects::open(state.path(), "pool", 3).unwrap();
    open().journal().unwrap().unwrap().enter([key(1)].iter());
    let mut threads = Threads::new(2, open());
    threads.posts(0..3).await;

    assert_eq!(numbers(threads.ask(8, 2).await.await.unwrap()), [0; 0], "nobody joins others while a suspect waits");
    let mut first = threads.ask(8, 0).await;
    let second = threads.ask(8, 0).await;
    assert_eq!(numbers(second.await.unwrap()), [1]);
    assert_eq!(numbers(threads.ask(8, 1).await.await.unwrap()), [0; 0], "nobody joins the suspect");
    assert!(first.try_recv().is_err(), "rows beside a suspect");
    threads.misses = None;
    let second = threads.ask(8, 0).await;
    assert_eq!([numbers(second.await.unwrap()), numbers(first.await.unwrap())], [[0], [2]]);
    threads.desk.await.unwrap();
}
