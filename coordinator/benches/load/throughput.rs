//! How many trials and reports a coordinator takes, and how long each call takes at a steady rate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use fittingroom_common::proto as pb;
use tokio::time::Instant;

use crate::server::{SEARCH, Server};
use crate::worker::{Crew, Pace, Worker};
use crate::{Crowd, Failure, Load, say};

/// More trials than any run gets through.
const ENDLESS: u64 = 1_000_000_000;
/// What is not measured at the beginning.
const WARM_UP: Duration = Duration::from_secs(3);

/// What is measured, and for how long.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
    /// How long each of the two parts is measured
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    seconds: u64,
    /// Trials a second in the second part
    #[arg(long, default_value_t = 1000, value_name = "TRIALS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

/// Both parts, each on a coordinator of its own.
pub(crate) async fn run(Options { load, seconds, rate }: Options) -> Result<(), Failure> {
    let Load { crowd: Crowd { workers, .. }, epochs } = load;
    say(&format!("{workers} workers, each call after the answer to the one before, {seconds} s:"));
    measure(load, Pace::Flat, seconds).await?;
    say(&format!("\n{workers} workers, together {rate} trials/s of {epochs} reports each, {seconds} s:"));
    let pause = Duration::from_secs(workers.into()) / rate / (epochs + 2);
    measure(load, Pace::Every(pause), seconds).await
}

async fn measure(load: Load, pace: Pace, seconds: u64) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path())?;
    server.launch(load, ENDLESS).await?;
    let crew = Crew::new();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in Worker::join_all(&server, load.crowd).await? {
        tasks.spawn(worker.work(load, pace, Arc::clone(&crew)));
    }
    let watcher = tokio::spawn(watch(server.operator().await?, Arc::clone(&crew)));
    tokio::time::sleep(WARM_UP).await;
    crew.measured.clear();
    let (before, begin) = (server.usage()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, took) = (server.usage()?, begin.elapsed().as_secs_f64());
    let trials = crew.measured.trials.load(Ordering::Relaxed);
    let reports = crew.measured.report.count();
    let table = crew.measured.table();
    crew.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    watcher.abort();
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    say(&format!(
        "  {:.0} trials/s, {:.0} durable reports/s; the coordinator used {:.2} cores, {:.0} µs a trial, {:.0} MiB",
        trials as f64 / took,
        reports as f64 / took,
        cpu / took,
        cpu / trials as f64 * 1e6,
        after.resident,
    ));
    say(&table);
    Ok(())
}

/// Watches the leaderboard as `leaderboard --follow` does, and notes when a report of the first worker
/// is first seen: its trial runs with that epoch, or has ended.
async fn watch(
    mut operator: pb::operator_service_client::OperatorServiceClient<tonic::transport::Channel>,
    crew: Arc<Crew>,
) -> Result<(), Failure> {
    let request = pb::WatchLeaderboardRequest { name: SEARCH.to_owned(), top: 100 };
    let mut views = operator.watch_leaderboard(request).await?.into_inner();
    while let Some(view) = views.message().await? {
        let now = Instant::now();
        let newest = |trial| {
            let row = view.running.iter().find(|row| row.trial == trial);
            row.map_or(u32::MAX, |row| row.report.map_or(0, |report| report.epoch))
        };
        crew.unseen().retain(|(trial, epoch, answered)| {
            let is_seen = newest(*trial) >= *epoch;
            if is_seen {
                crew.measured.watch.add(now - *answered);
            }
            !is_seen
        });
    }
    Ok(())
}
