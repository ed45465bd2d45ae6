//! A network between worker and coordinator that can be cut, slowed and reset while it is used.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the network does with what is sent through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Passes it on.
    Clear,
    /// Keeps it back, both ways, until the weather clears.
    Cut,
    /// Keeps back what the worker sends.
    CutToCoordinator,
    /// Keeps back what the coordinator sends.
    CutToWorker,
    /// Passes it on late, a piece at a time.
    Slow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToCoordinator,
    ToWorker,
}

/// How long a piece is kept when the network is slow.
const DELAY: Duration = Duration::from_millis(150);
/// How often a thread looks at the weather.
const LOOK: Duration = Duration::from_millis(10);

struct Network {
    weather: Mutex<Weather>,
    connections: Mutex<Vec<TcpStream>>,
}

/// Listens for workers, and connects each to the coordinator.
pub(crate) struct Proxy {
    pub(crate) url: String,
    network: Arc<Network>,
}

impl Proxy {
    pub(crate) fn before(coordinator: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let network =
            Arc::new(Network { weather: Mutex::new(Weather::Clear), connections: Mutex::default() });
        let (coordinator, shared) = (coordinator.trim_start_matches("http://").to_owned(), network.clone());
        // These threads end with the test's process.
        std::thread::spawn(move || {
            for worker in listener.incoming().flatten() {
                let Ok(coordinator) = TcpStream::connect(&coordinator) else { continue };
                let pairs = [
                    (&worker, &coordinator, Direction::ToCoordinator),
                    (&coordinator, &worker, Direction::ToWorker),
                ];
                for (from, to, direction) in pairs {
                    let (from, to) = (from.try_clone().expect("clones"), to.try_clone().expect("clones"));
                    let network = shared.clone();
                    std::thread::spawn(move || network.carry(from, to, direction));
                }
                shared.connections.lock().expect("not poisoned").extend([worker, coordinator]);
            }
        });
        Self { url, network }
    }

    pub(crate) fn weather(&self, weather: Weather) {
        *self.network.weather.lock().expect("not poisoned") = weather;
    }

    /// Breaks every connection.
    pub(crate) fn reset(&self) {
        for connection in self.network.connections.lock().expect("not poisoned").drain(..) {
            // It may be broken already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Network {
    fn holds_back(&self, direction: Direction) -> bool {
        match *self.weather.lock().expect("not poisoned") {
            Weather::Clear | Weather::Slow => false,
            Weather::Cut => true,
            Weather::CutToCoordinator => direction == Direction::ToCoordinator,
            Weather::CutToWorker => direction == Direction::ToWorker,
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        from.set_read_timeout(Some(LOOK)).expect("sets");
        let mut piece = [0; 16 * 1024];
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if *self.weather.lock().expect("not poisoned") == Weather::Slow {
                std::thread::sleep(DELAY);
            }
            while self.holds_back(direction) {
                std::thread::sleep(LOOK);
            }
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        // The other side is told, whichever way it is still open.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
