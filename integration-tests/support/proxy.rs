//! A TCP proxy on loopback between the worker and a server, whose connections a test cuts, refuses, delays or starves.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It goes on at once.
    Open,
    /// It goes on so much later.
    Slow(Duration),
    /// Connections stay up, and nothing goes on until the way changes.
    Black,
    /// Every connection is closed as soon as it is made.
    Refused,
}

struct State {
    way: Way,
    open: Vec<TcpStream>,
    /// Connections made so far.
    made: usize,
    /// The next request of this kind is kept back.
    wanted: Option<Wanted>,
    /// Requests kept back so far, and how many of them may go on.
    kept: usize,
    released: usize,
    /// Answers that nobody was there to take.
    unheard: usize,
    ended: bool,
}

/// A request of Kafka's protocol to keep back.
struct Wanted {
    api_key: i16,
    /// Whether its connection is closed to the client, who will think it lost.
    cut: bool,
}

/// The proxy; it ends when it is dropped.
pub struct Proxy {
    pub port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    /// Listens on `port` and passes on to `target`, both on 127.0.0.1.
    pub fn start(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port was free a moment ago");
        let state = State {
            way: Way::Open,
            open: Vec::new(),
            made: 0,
            wanted: None,
            kept: 0,
            released: 0,
            unheard: 0,
            ended: false,
        };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !accept(&shared, client, target) {
                    return;
                }
            }
        });
        Self { port, state }
    }

    /// What is to happen from now on.
    pub fn turn(&self, way: Way) {
        lock(&self.state.0).way = way;
        self.state.1.notify_all();
        if way == Way::Refused {
            self.cut();
        }
    }

    /// Closes every connection that stands; new ones may be made.
    pub fn cut(&self) {
        close_all(&mut lock(&self.state.0));
    }

    /// Keeps back the next request with this API key; `cut` closes its connection to the client.
    pub fn keep_back(&self, api_key: i16, cut: bool) {
        lock(&self.state.0).wanted = Some(Wanted { api_key, cut });
    }

    /// Requests kept back so far.
    pub fn kept(&self) -> usize {
        lock(&self.state.0).kept
    }

    /// Lets the one that has been kept back longest go on.
    pub fn release(&self) {
        lock(&self.state.0).released += 1;
        self.state.1.notify_all();
    }

    /// Answers that came when their client was gone.
    pub fn unheard(&self) -> usize {
        lock(&self.state.0).unheard
    }

    /// Connections made so far.
    pub fn made(&self) -> usize {
        lock(&self.state.0).made
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = lock(&self.state.0);
        state.ended = true;
        close_all(&mut state);
        drop(state);
        self.state.1.notify_all();
        // Wakes the listener, which then sees that it has ended.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close_all(state: &mut State) {
    for stream in state.open.drain(..) {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Starts a connection's two directions; `false` once the proxy has ended.
fn accept(shared: &Arc<(Mutex<State>, Condvar)>, client: TcpStream, target: u16) -> bool {
    let mut state = lock(&shared.0);
    if state.ended {
        return false;
    }
    let server = TcpStream::connect(("127.0.0.1", target));
    let (Way::Open | Way::Slow(_) | Way::Black, Ok(server)) = (state.way, server) else {
        return true;
    };
    state.made += 1;
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
        state.open.push(from.try_clone().expect("a handle"));
        let shared = shared.clone();
        thread::spawn(move || pass(&shared, from, to));
    }
    true
}

/// Passes bytes one way until either end closes.
fn pass(shared: &(Mutex<State>, Condvar), mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let way = {
            let held = |state: &mut State| state.way == Way::Black && !state.ended;
            let state = shared.1.wait_while(lock(&shared.0), held).unwrap_or_else(PoisonError::into_inner);
            state.way
        };
        if let Way::Slow(delay) = way {
            // The delay is what the test asked for.
            thread::sleep(delay);
        }
        if was_cut_off(shared, &bytes[..count], &from) {
            // The answer closes what is left of the connection.
            let _ = to.write_all(&bytes[..count]);
            return;
        }
        if to.write_all(&bytes[..count]).is_err() {
            lock(&shared.0).unheard += 1;
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Keeps what is wanted until it may go on; whether its client was cut off meanwhile. A request begins with its length in
/// four bytes and its API key in two; librdkafka sends a small one in one piece.
fn was_cut_off(shared: &(Mutex<State>, Condvar), bytes: &[u8], client: &TcpStream) -> bool {
    let mut state = lock(&shared.0);
    let api_key = bytes.get(4..6).map(|key| i16::from_be_bytes([key[0], key[1]]));
    let Some(wanted) = state.wanted.take_if(|wanted| Some(wanted.api_key) == api_key) else { return false };
    if wanted.cut {
        let _ = client.shutdown(Shutdown::Both);
    }
    let number = state.kept;
    state.kept += 1;
    let held = |state: &mut State| state.released <= number && !state.ended;
    drop(shared.1.wait_while(state, held));
    wanted.cut
}
