//! What flows through a call, watched on the way: a request must keep coming and may not claim more
//! than its call takes; an answer ends when the token that opened it is revoked.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;

use super::keys::revoked;

/// How long a caller may pause in the middle of a request.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before each message of a stream: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A request on its way in. The decoder behind it makes room for a message as soon as it has read how
/// long the message claims to be; this looks first.
pub(super) struct Incoming {
    body: Body,
    lengths: Lengths,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(super) fn new(body: Body, most_bytes: usize) -> Self {
        Self { body, lengths: Lengths { most_bytes, prefix: Vec::new(), rest: 0 }, wait: None }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.wait = None;
                let checked = frame.data_ref().map_or(Ok(()), |data| this.lengths.check(data));
                Poll::Ready(Some(checked.map(|()| frame)))
            }
            Poll::Ready(other) => Poll::Ready(other),
            Poll::Pending => {
                let wait = this.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
                wait.as_mut().poll(context).map(|()| {
                    Some(Err(Status::deadline_exceeded(format!(
                        "the request paused for more than {} s",
                        PATIENCE.as_secs()
                    ))))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Follows the messages of a stream by their claimed lengths.
struct Lengths {
    most_bytes: usize,
    /// As much of a message's prefix as has come.
    prefix: Vec<u8>,
    /// How much of the message is still to come.
    rest: usize,
}

impl Lengths {
    fn check(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let skipped = self.rest.min(data.len());
            self.rest -= skipped;
            data = &data[skipped..];
            let taken = (PREFIX_BYTES - self.prefix.len()).min(data.len());
            self.prefix.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if let [_, a, b, c, d] = *self.prefix.as_slice() {
                let claimed = u32::from_be_bytes([a, b, c, d]) as usize;
                if claimed > self.most_bytes {
                    return Err(Status::out_of_range(format!(
                        "a message of {claimed} bytes is too large: this call takes {} at most",
                        self.most_bytes
                    )));
                }
                self.rest = claimed;
                self.prefix.clear();
            }
        }
        Ok(())
    }
}

/// An answer on its way out, until the token of its caller is revoked.
pub(super) struct UntilRevoked {
    body: Body,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl UntilRevoked {
    pub(super) fn new(body: Body, revoked: WaitForCancellationFutureOwned) -> Self {
        Self { body, revoked: Box::pin(revoked), ended: false }
    }
}

impl http_body::Body for UntilRevoked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.revoked.as_mut().poll(context).is_ready() {
            this.ended = true;
            let mut trailers = HeaderMap::new();
            let said = revoked().add_header(&mut trailers);
            return Poll::Ready(Some(said.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // An answer that is cut short must not have promised its length.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> Lengths {
        Lengths { most_bytes: 100, prefix: Vec::new(), rest: 0 }
    }

    fn message(length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, length];
        bytes.resize(PREFIX_BYTES + usize::from(length), 0xff);
        bytes
    }

    #[test]
    fn a_claim_is_found_wherever_the_pieces_are_cut() {
        let good = [message(100), message(0), message(7)].concat();
        let bad = [message(3), message(101)].concat();
        for piece in 1..=good.len() {
            let mut followed = lengths();
            assert!(good.chunks(piece).all(|it| followed.check(it).is_ok()), "pieces of {piece}");
            let mut followed = lengths();
            assert!(bad.chunks(piece).any(|it| followed.check(it).is_err()), "pieces of {piece}");
        }
        let four_gigabytes = lengths().check(&[0, 0xff, 0xff, 0xff, 0xff]).expect_err("too large");
        assert_eq!(four_gigabytes.code(), tonic::Code::OutOfRange);
    }
}
