//! The gate before the services: who calls, and whether the call is theirs to make. A call that is not
//! let in is answered from its headers alone; nothing of its body is read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;
use tracing::debug;

use super::body::{Incoming, UntilRevoked};
use super::keys::{Keys, revoked};
use super::methods::{self, MOST_MESSAGE_BYTES};
use crate::metrics::Metrics;

/// Puts the gate before services.
#[derive(Clone, Debug)]
pub(crate) struct GateLayer {
    keys: Arc<Keys>,
    metrics: Metrics,
}

impl GateLayer {
    pub(crate) const fn new(keys: Arc<Keys>, metrics: Metrics) -> Self {
        Self { keys, metrics }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, keys: Arc::clone(&self.keys), metrics: self.metrics.clone() }
    }
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate<S> {
    inner: S,
    keys: Arc<Keys>,
    metrics: Metrics,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = methods::find(path);
        let key = match self.keys.admit(path, method, request.headers()) {
            Ok(key) => key,
            Err(denial) => {
                debug!(path, %denial, "call denied");
                self.metrics.call_refused(denial.refused());
                let answer = denial.status().into_http();
                return Box::pin(std::future::ready(Ok(answer)));
            }
        };
        if let Some(method) = method {
            self.metrics.called(method.path);
        }
        if let Some(key) = &key {
            request.extensions_mut().insert(key.caller());
        }
        let most_bytes = method.map_or(MOST_MESSAGE_BYTES, |method| method.most_bytes);
        let answer = self.inner.call(request.map(|body| Body::new(Incoming::new(body, most_bytes))));
        let Some(key) = key else {
            return Box::pin(answer);
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = key.revoked.cancelled() => Ok(revoked().into_http()),
                answered = answer => answered.map(|answer| {
                    answer.map(|body| {
                        Body::new(UntilRevoked::new(body, key.revoked.clone().cancelled_owned()))
                    })
                }),
            }
        })
    }
}
