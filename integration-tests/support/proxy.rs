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
    ended: bool,
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
        let state = State { way: Way::Open, open: Vec::new(), made: 0, ended: false };
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
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
