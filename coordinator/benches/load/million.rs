//! One search of very many trials: what each costs from the first to the last, and a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use fittingroom_common::proto as pb;
use tokio::time::Instant;

use crate::measure::Latencies;
use crate::server::{SEARCH, Server};
use crate::worker::{Crew, Pace, Worker};
use crate::{Crowd, Failure, Load, say};

/// Lines of the table.
const LINES: u64 = 20;
/// How often the top of the leaderboard is asked for.
const QUESTIONS: u32 = 200;
/// How often it is looked whether a line is due.
const LOOK: Duration = Duration::from_millis(20);

/// How large the search is.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
    /// Trials that are completed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(20..))]
    trials: u64,
}

/// Fills a search, kills the coordinator, starts it again.
pub(crate) async fn run(Options { load, trials }: Options) -> Result<(), Failure> {
    let Load { crowd: Crowd { workers, .. }, epochs } = load;
    say(&format!("a search of {trials} trials of {epochs} reports each, {workers} workers:"));
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path())?;
    // More than are completed, so that the search still runs when the coordinator is killed.
    server.launch(load, trials + 2 * u64::from(workers)).await?;
    fill(&server, load, trials).await?;
    ask(&server, "before the kill").await?;
    server.kill()?;
    let server = Server::start(folder.path())?;
    let cpu = server.usage()?.cpu;
    say(&format!(
        "  restarted: serving after {:.2} s, {:.2} s of a core",
        server.start.as_secs_f64(),
        cpu.as_secs_f64()
    ));
    ask(&server, "after the restart").await?;
    server.cancel().await
}

async fn fill(server: &Server, load: Load, trials: u64) -> Result<(), Failure> {
    let crew = Crew::new();
    crew.enough.store(trials, Ordering::Relaxed);
    let measured = &crew.measured;
    let empty = server.usage()?;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in Worker::join_all(server, load.crowd).await? {
        tasks.spawn(worker.work(load, Pace::Flat, Arc::clone(&crew)));
    }
    say("     trials  trials/s   cpu µs   lease p99  report p99       MiB  bytes per  log MiB");
    say("                        a trial          ms          ms  resident      trial");
    let (mut before, mut done, mut begin) = (empty, 0, Instant::now());
    for line in 1..=LINES {
        while measured.trials.load(Ordering::Relaxed) < trials * line / LINES {
            if let Some(ended) = tasks.try_join_next() {
                ended??;
            }
            tokio::time::sleep(LOOK).await;
        }
        let (now, completed) = (server.usage()?, measured.trials.load(Ordering::Relaxed));
        let new = (completed - done) as f64;
        say(&format!(
            "  {completed:>9}{:>10.0}{:>9.0}{:>12.1}{:>12.1}{:>10.0}{:>11.0}{:>9.0}",
            new / begin.elapsed().as_secs_f64(),
            (now.cpu - before.cpu).as_secs_f64() / new * 1e6,
            measured.lease.quantile(0.99),
            measured.report.quantile(0.99),
            now.resident,
            (now.resident - empty.resident) * f64::from(1 << 20) / completed as f64,
            server.log_size()?,
        ));
        measured.lease.clear();
        measured.report.clear();
        (before, done, begin) = (now, completed, Instant::now());
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn ask(server: &Server, when: &str) -> Result<(), Failure> {
    let mut operator = server.operator().await?;
    let (latencies, mut shown) = (Latencies::default(), 0);
    for _ in 0..QUESTIONS {
        let begin = Instant::now();
        let request = pb::GetLeaderboardRequest { name: SEARCH.to_owned(), top: 100 };
        let mut parts = operator.get_leaderboard(request).await?.into_inner();
        shown = 0;
        while let Some(part) = parts.message().await? {
            shown += part.trials.len();
        }
        latencies.add(begin.elapsed());
    }
    let usage = server.usage()?;
    say(&format!(
        "  {when}: the top {shown} in {:.1} ms (p50), {:.1} ms (p99); {:.0} MiB resident, {:.0} MiB at most",
        latencies.quantile(0.5),
        latencies.quantile(0.99),
        usage.resident,
        usage.peak,
    ));
    Ok(())
}
