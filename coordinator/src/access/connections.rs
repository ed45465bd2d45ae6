//! Connections, before anything is known of who is at their other end: how many there may be, and how
//! long they may take to begin.
//!
//! Whoever has got in is bounded further by the services' limits: calls at a time, the size of headers
//! and messages, and pings that must be answered.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use super::tls::Tls;
use crate::metrics::{Connected as Counted, Metrics, RefusedConnection};

/// The most connections at a time, if nothing else is said. A worker has two.
pub const MOST_CONNECTIONS: usize = 16_384;
/// The most connections at a time from one address (of IPv6: from one network of 64 bits), which may
/// stand for many machines behind it. This machine itself has no such limit: tunnels end there.
const MOST_PER_ADDRESS: u32 = 512;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the first bytes of HTTP/2 may take to come.
const PREFACE: Duration = Duration::from_secs(10);
/// How many bytes those are.
const PREFACE_BYTES: usize = 24;
/// How long to wait before the next connection when one could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most connections that wait to be served.
const WAITING: usize = 64;
/// The shortest time between two lines of the log about refused connections.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Connections that have begun as they should, one after the other, until the stream is dropped. One
/// that cannot be accepted (too many open files, say) is no reason to stop.
pub(crate) fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    most: usize,
    metrics: Metrics,
) -> impl Stream<Item = io::Result<Connection>> {
    let (begun, waiting) = mpsc::channel(WAITING);
    tokio::spawn(accept(listener, tls, most, metrics, begun));
    ReceiverStream::new(waiting)
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    most: usize,
    metrics: Metrics,
    begun: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Places::new(most, MOST_PER_ADDRESS);
    let mut complained: Option<tokio::time::Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = begun.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.take(address.ip()) {
            Ok(place) => place,
            Err(full) => {
                metrics.connection_refused(full.into());
                // Whoever comes too often must not fill the log.
                if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
                    complained = Some(tokio::time::Instant::now());
                    warn!(%address, %full, "connection refused");
                }
                continue;
            }
        };
        // Small messages that wait for company would be late.
        let _ = stream.set_nodelay(true);
        let tls = tls.clone();
        let (begun, metrics) = (begun.clone(), metrics.clone());
        tokio::spawn(async move {
            let io = match tls {
                None => Io::Plain(stream),
                Some(tls) => {
                    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
                    match tokio::time::timeout(HANDSHAKE, handshake).await {
                        Ok(Ok(stream)) => Io::Encrypted(Box::new(stream)),
                        Ok(Err(error)) => {
                            metrics.connection_refused(RefusedConnection::NoTls);
                            debug!(%address, %error, "no TLS");
                            return;
                        }
                        Err(_) => {
                            metrics.connection_refused(RefusedConnection::NoTls);
                            debug!(%address, "the TLS handshake took too long");
                            return;
                        }
                    }
                }
            };
            // The server may be stopping.
            let _ = begun.send(Ok(Connection::new(io, address, place, metrics.connected()))).await;
        });
    }
}

enum Io {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// A connection that is being served.
pub(crate) struct Connection {
    io: Io,
    address: SocketAddr,
    /// Until the first bytes have come.
    begin: Option<Begin>,
    _place: Place,
    _counted: Counted,
}

struct Begin {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(io: Io, address: SocketAddr, place: Place, counted: Counted) -> Self {
        let begin = Begin { missing: PREFACE_BYTES, deadline: Box::pin(tokio::time::sleep(PREFACE)) };
        Self { io, address, begin: Some(begin), _place: place, _counted: counted }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: Some(self.address) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Io::Encrypted(io) => Pin::new(io.as_mut()).poll_read(context, buffer),
        };
        let Some(begin) = &mut self.begin else {
            return read;
        };
        begin.missing = begin.missing.saturating_sub(buffer.filled().len() - before);
        if begin.missing == 0 {
            self.begin = None;
        } else if read.is_pending() {
            ready!(begin.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Io::Encrypted(io) => Pin::new(io.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(context, slices),
            Io::Encrypted(io) => Pin::new(io.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Encrypted(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(context),
            Io::Encrypted(io) => Pin::new(io.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(context),
            Io::Encrypted(io) => Pin::new(io.as_mut()).poll_shutdown(context),
        }
    }
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("there are as many connections as --max-connections allows")]
    InAll,
    #[error("there are {MOST_PER_ADDRESS} connections from there")]
    OfAddress,
}

impl From<Full> for RefusedConnection {
    fn from(full: Full) -> Self {
        match full {
            Full::InAll => Self::TooMany,
            Full::OfAddress => Self::TooManyFromAddress,
        }
    }
}

/// The places for connections, in all and of each address.
struct Places {
    in_all: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, u32>>>,
    most_per_address: u32,
}

/// One place, free again when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    taken: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Places {
    fn new(most: usize, most_per_address: u32) -> Self {
        let in_all = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { in_all, taken: Arc::default(), most_per_address }
    }

    fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let permit = Arc::clone(&self.in_all).try_acquire_owned().map_err(|_| Full::InAll)?;
        let address = counted(address);
        if let Some(address) = address {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let count = taken.entry(address).or_default();
            if *count >= self.most_per_address {
                return Err(Full::OfAddress);
            }
            *count += 1;
        }
        Ok(Place { _permit: permit, address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&address);
            }
        }
    }
}

/// What an address is counted as; `None` for this machine itself.
fn counted(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let places = Places::new(5, 2);
        let (a, b) = (address("10.0.0.1"), address("::ffff:10.0.0.1"));
        let first = places.take(a).expect("a place");
        let _second = places.take(b).expect("a place");
        assert_eq!(places.take(a).err(), Some(Full::OfAddress), "the same address in two forms");
        let _network = [places.take(address("fd00::1")), places.take(address("fd00::ffff:2"))];
        assert_eq!(places.take(address("fd00::3")).err(), Some(Full::OfAddress));
        drop(first);
        let _again = places.take(a).expect("a place");
        let _local = places.take(address("127.0.0.1")).expect("a place");
        assert_eq!(places.take(address("::1")).err(), Some(Full::InAll));
    }
}
