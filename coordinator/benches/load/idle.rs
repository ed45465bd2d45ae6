//! What workers cost that wait for work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use crate::server::Server;
use crate::worker::{Crew, Worker};
use crate::{Crowd, Failure, say};

/// What is not measured at the beginning: the first heartbeats.
const WARM_UP: Duration = Duration::from_secs(5);

/// What is measured, and for how long.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Workers that wait, of one connection each
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    workers: u32,
    /// How long it is measured
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    seconds: u64,
}

/// Heartbeats, and nothing else.
pub(crate) async fn run(Options { workers, seconds }: Options) -> Result<(), Failure> {
    say(&format!("\n{workers} workers that wait for work, {seconds} s:"));
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path())?;
    let crew = Crew::new();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in Worker::join_all(&server, Crowd { workers, share: 1 }).await? {
        tasks.spawn(worker.wait(Arc::clone(&crew)));
    }
    tokio::time::sleep(WARM_UP).await;
    crew.measured.clear();
    let (before, begin) = (server.usage()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, took) = (server.usage()?, begin.elapsed().as_secs_f64());
    let heartbeats = crew.measured.heartbeat.count();
    let table = crew.measured.table();
    crew.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    say(&format!(
        "  {:.0} heartbeats/s; the coordinator used {:.3} cores, {:.0} MiB",
        heartbeats as f64 / took,
        cpu / took,
        after.resident,
    ));
    say(&table);
    Ok(())
}
