//! Whether the coordinator works: proved again and again, and told to whoever relies on it.
//!
//! - systemd's watchdog gets a sign of life after each proof: the log's writer has answered, and so has every
//!   search that goes on. What hangs gives no sign, and the coordinator is started anew. That an answer says
//!   that the disk is full is a sign of life all the same: a restart would not mend it.
//! - The gRPC health service says `NOT_SERVING` of the workers' service while the log cannot be written:
//!   no trial is leased and no report taken then, but everything can still be looked at. Of all services it
//!   says so once the coordinator is told to end.

use std::sync::Arc;

use fittingroom_common::process::ServiceManager;
use fittingroom_common::proto::artifact_service_server::SERVICE_NAME as ARTIFACTS;
use fittingroom_common::proto::operator_service_server::SERVICE_NAME as OPERATORS;
use fittingroom_common::proto::worker_service_server::SERVICE_NAME as WORKERS;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::error;

use crate::cluster::Cluster;
use crate::log::LogState;

/// What the health service calls all services together.
const ALL: &str = "";

/// Watches until the coordinator is told to end.
pub(crate) async fn watch(
    cluster: Arc<Cluster>,
    log: watch::Receiver<LogState>,
    health: HealthReporter,
    service_manager: ServiceManager,
) {
    let shutdown = cluster.shutdown().clone();
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = async { tokio::join!(prove(&cluster, service_manager), tell_health(log, &health)); } => {}
    }
    for service in [ALL, OPERATORS, WORKERS, ARTIFACTS] {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
    // Whoever watches them has been told, and need not be waited for.
    let mut health = health;
    for service in [ALL, OPERATORS, WORKERS, ARTIFACTS] {
        health.clear_service_status(service).await;
    }
}

/// Gives a sign of life after each proof, for ever.
async fn prove(cluster: &Cluster, service_manager: ServiceManager) {
    loop {
        // An error is an answer, and is told by whoever cannot go on for it.
        let _ = cluster.log().probe().await;
        if searches_answer(cluster).await {
            service_manager.alive();
        }
        tokio::time::sleep(service_manager.interval()).await;
    }
}

/// Whether every search that goes on has somebody who answers for it.
async fn searches_answer(cluster: &Cluster) -> bool {
    for search in cluster.open_searches() {
        if search.summary().await.is_err() && !cluster.shutdown().is_cancelled() {
            error!(search = %search.name(), "nobody answers for a search that goes on");
            return false;
        }
    }
    true
}

/// Says what can be served, whenever that changes.
async fn tell_health(mut log: watch::Receiver<LogState>, health: &HealthReporter) {
    for service in [OPERATORS, ARTIFACTS] {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    loop {
        let status = match *log.borrow_and_update() {
            LogState::Writable => ServingStatus::Serving,
            LogState::Failing => ServingStatus::NotServing,
        };
        health.set_service_status(WORKERS, status).await;
        if log.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    use tonic_health::pb::health_server::Health;
    use tonic_health::server::HealthService;

    use super::*;

    #[tokio::test]
    async fn workers_are_not_served_while_the_log_cannot_be_written_and_everything_else_is() {
        let (log, state) = watch::channel(LogState::Writable);
        let health = HealthReporter::new();
        let service = HealthService::from_health_reporter(health.clone());
        let told = tokio::spawn(async move { tell_health(state, &health).await });
        for (now, workers) in
            [(LogState::Writable, Serving), (LogState::Failing, NotServing), (LogState::Writable, Serving)]
        {
            log.send_replace(now);
            for (name, expected) in
                [(ALL, Serving), (OPERATORS, Serving), (ARTIFACTS, Serving), (WORKERS, workers)]
            {
                let ask = || Request::new(HealthCheckRequest { service: name.to_owned() });
                let end = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
                // It is told by another task, a moment later.
                while service.check(ask()).await.map(|it| it.into_inner().status()).ok() != Some(expected) {
                    assert!(tokio::time::Instant::now() < end, "{name:?} is not {expected:?} while {now:?}");
                    tokio::task::yield_now().await;
                }
            }
        }
        told.abort();
    }
}
