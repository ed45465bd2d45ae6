//! Calls that are lost, doubled, late and out of order: a carrier between workers and coordinator that knows
//! calls from one another, and mistreats those of workers one after the other.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use crate::digits;
use crate::faults::{attempts, must_find_the_same, wait_for};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It comes, and so does its answer.
    Carried,
    /// It does not come, and its worker makes another.
    Lost,
    /// It comes, but its answer does not, so that its worker makes it again.
    Unanswered,
    /// It comes twice at the same time.
    Doubled,
    /// Its worker makes it again, and goes on, before it comes.
    Late(Duration),
}

/// What becomes of the calls of a method, in turn.
const FATES: [Fate; 6] = [
    Fate::Late(Duration::from_millis(2500)),
    Fate::Carried,
    Fate::Unanswered,
    Fate::Doubled,
    Fate::Lost,
    Fate::Late(Duration::from_millis(300)),
];
/// Calls that are made so often that most are carried, lest the search takes minutes.
const FREQUENT: [&str; 2] = ["Report", "Heartbeat"];

/// How many calls of a method had which fate.
type Told = BTreeMap<(String, Fate), usize>;

/// Carries the calls of a service: those about artifacts as they are.
#[derive(Clone)]
struct Carrier<const ARTIFACTS: bool> {
    coordinator: Channel,
    told: Arc<Mutex<Told>>,
}

impl NamedService for Carrier<false> {
    const NAME: &'static str = "fittingroom.v1.WorkerService";
}

impl NamedService for Carrier<true> {
    const NAME: &'static str = "fittingroom.v1.ArtifactService";
}

impl<const ARTIFACTS: bool> Carrier<ARTIFACTS> {
    /// What becomes of this method's next call.
    fn fate(&self, method: &str) -> Fate {
        let mut told = self.told.lock().expect("not poisoned");
        let of_method = told.iter().filter(|((of, _), _)| of == method);
        let before = of_method.map(|(_, count)| *count).sum::<usize>();
        let fate = match FREQUENT.contains(&method) {
            true if before % 3 > 0 => Fate::Carried,
            true => FATES[before / 3 % FATES.len()],
            false => FATES[before % FATES.len()],
        };
        *told.entry((method.to_owned(), fate)).or_default() += 1;
        fate
    }

    async fn make(mut self, call: http::Request<Body>) -> http::Response<Body> {
        let ready = std::future::poll_fn(|context| self.coordinator.poll_ready(context)).await;
        let answer = match ready {
            Ok(()) => self.coordinator.call(call).await,
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| Status::unavailable(error.to_string()).into_http())
    }

    async fn carry(self, call: http::Request<Body>) -> http::Response<Body> {
        if ARTIFACTS {
            return self.make(call).await;
        }
        let (head, body) = call.into_parts();
        let method = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let Ok(body) = body.collect().await else {
            return Status::unavailable("the call broke off").into_http();
        };
        let body = body.to_bytes();
        let call = || http::Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
        match self.fate(&method) {
            Fate::Carried => return self.make(call()).await,
            Fate::Doubled => return tokio::join!(self.clone().make(call()), self.make(call())).1,
            Fate::Lost => {}
            Fate::Unanswered => drop(self.make(call()).await),
            Fate::Late(delay) => {
                let call = call();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    self.make(call).await
                });
            }
        }
        Status::unavailable("the carrier lost it").into_http()
    }
}

impl<const ARTIFACTS: bool> Service<http::Request<Body>> for Carrier<ARTIFACTS> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        let carrier = self.clone();
        Box::pin(async move { Ok(carrier.carry(call).await) })
    }
}

#[test]
fn calls_that_are_lost_doubled_late_or_out_of_order_change_nothing_that_is_found() {
    let mut cluster = digits::start();
    let runtime = Runtime::new().expect("starts");
    let told = Arc::<Mutex<Told>>::default();
    let url = {
        let _entered = runtime.enter();
        let coordinator = Endpoint::from_shared(cluster.url.clone()).expect("a URL").connect_lazy();
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("listens");
        let url = format!("http://{}", incoming.local_addr().expect("an address"));
        let calls = Carrier::<false> { coordinator: coordinator.clone(), told: told.clone() };
        let artifacts = Carrier::<true> { coordinator, told: told.clone() };
        let server = Server::builder().add_service(calls).add_service(artifacts);
        runtime.spawn(server.serve_with_incoming(incoming));
        url
    };
    let workers = ["one", "two"].map(|name| cluster.worker_given(&url, name, name, &[]));
    digits::launch_with(&cluster, "mistreated", "checkpoint: {every_epochs: 20}");
    let board = must_find_the_same(&cluster, "mistreated");
    assert_eq!(attempts(&board), digits::TRIALS as u64, "none is given up: {board:#}");
    // Some calls come to a search that has ended.
    wait_for("a heartbeat of each fate", || has_all(&told, "Heartbeat"));
    for method in ["Lease", "Report", "KeepCheckpoint", "Complete"] {
        assert!(has_all(&told, method), "{method}: {:?}", told.lock());
    }
    drop(workers);
    cluster.check();
}

/// Whether calls of this method had each fate.
fn has_all(told: &Mutex<Told>, method: &str) -> bool {
    let told = told.lock().expect("not poisoned");
    FATES.iter().all(|fate| told.contains_key(&(method.to_owned(), *fate)))
}
