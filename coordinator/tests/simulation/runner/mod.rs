//! The real task that owns a search, with its mailbox and its answers, on a log whose appends fail before
//! or after they are durable, take long, or never end because the process dies. Sometimes an earlier owner
//! of the search is still there, and must get nothing in.
//!
//! One thread runs the task and all who call it, and what an append meets is drawn from the seed, so that
//! a seed tells the same story each time. No time passes: whoever waits gives way to others so many times.

mod answers;
mod clients;
mod log;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fittingroom_coordinator::artifacts::ArtifactStore;
use fittingroom_coordinator::checkpoints::Checkpoints;
use fittingroom_coordinator::search::Search;

use crate::number;
use crate::scenario::{Chance, Template, templates};
use crate::world::ending::is_whole;
use clients::{Clients, Life};
use log::{FaultyLog, Rates};

/// How many seeds there are where nothing else is said.
const SEEDS: u64 = 1_000;
/// How many rounds of calls meet faults, and how many more a search may take after that.
const FAULTY: u64 = 60;
const BOUND: u64 = 3_000;

/// What happened, so that a fault that never struck is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    seeds: u64,
    whole: u64,
    lives: u64,
    appends: u64,
    failed_before: u64,
    failed_after: u64,
    slow: u64,
    died_before: u64,
    died_after: u64,
    conflicts: u64,
    answered: u64,
    refused: u64,
    not_durable: u64,
    late_lookers: u64,
}

impl Tally {
    fn numbers(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("searches", &mut self.seeds),
            ("whole", &mut self.whole),
            ("processes", &mut self.lives),
            ("appends", &mut self.appends),
            ("that failed before they were durable", &mut self.failed_before),
            ("that failed after", &mut self.failed_after),
            ("that took long", &mut self.slow),
            ("deaths before an append", &mut self.died_before),
            ("deaths after one", &mut self.died_after),
            ("appends behind another owner's", &mut self.conflicts),
            ("calls answered", &mut self.answered),
            ("refused", &mut self.refused),
            ("not durable", &mut self.not_durable),
            ("searches with two owners", &mut self.late_lookers),
        ]
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.numbers().into_iter().zip(other.clone().numbers()) {
            *mine.1 += *theirs.1;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mine = self.clone();
        let numbers = mine.numbers().map(|(name, number)| format!("{number} {name}"));
        f.write_str(&numbers.join(", "))
    }
}

/// Runs the search that a seed draws to its end. The error says which promise was broken.
fn simulate(
    templates: &[Template],
    checkpoints: &Arc<Checkpoints>,
    seed: u64,
    trace: Option<String>,
) -> (Result<(), String>, Tally, Option<String>) {
    let mut chance = Chance::new(seed);
    let steadfast: Vec<&Template> = templates.iter().filter(|template| template.is_steadfast).collect();
    let template = chance.one_of(&steadfast);
    let log = FaultyLog::create(template, Rates::draw(&mut chance), chance.within(0, u64::MAX), trace);
    let mut clients = Clients::new(template, log.clone(), Arc::clone(checkpoints), chance);
    let mut run = || -> Result<(), String> {
        loop {
            // A process: what it knows in memory ends with it.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(|error| error.to_string())?;
            match runtime.block_on(clients.live())? {
                Life::Died => {}
                Life::Ended => break,
            }
        }
        let (search, is_restored) = log.load()?;
        if !is_restored {
            return Err("a search that has ended has no snapshot".to_owned());
        }
        let search: Search = search;
        let whole = log.events(|events| is_whole(template, &search, events))?;
        clients.tally.whole += u64::from(whole);
        if whole { Ok(()) } else { Err("the search did not run to its end".to_owned()) }
    };
    let ran = run();
    let mut tally = clients.tally.clone();
    tally.add(&log.tally());
    tally.seeds = 1;
    (ran, tally, log.trace())
}

fn checkpoints() -> (tempfile::TempDir, Arc<Checkpoints>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let incoming = folder.path().join("incoming");
    let artifacts = ArtifactStore::in_folder(folder.path(), incoming).expect("opens");
    (folder, Arc::new(Checkpoints::new(artifacts)))
}

#[test]
fn the_task_of_a_search_answers_what_is_durable_and_nothing_else() {
    let (templates, (_folder, checkpoints)) = (templates(), checkpoints());
    let traced = |seed| simulate(&templates, &checkpoints, seed, Some(String::new()));
    if let Some(seed) = number("FITTINGROOM_SIMULATION_SEED") {
        let (ran, _, trace) = traced(seed);
        eprintln!("{}", trace.unwrap_or_default());
        return ran.unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
    }
    let first = number("FITTINGROOM_SIMULATION_FIRST").unwrap_or(0);
    let end = first + number("FITTINGROOM_SIMULATIONS").unwrap_or(SEEDS).min(SEEDS);
    let (next, started) = (AtomicU64::new(first), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut all = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(all);
            }
            let (ran, tally, _) = simulate(&templates, &checkpoints, seed, None);
            ran.map_err(|problem| (seed, problem))?;
            all.add(&tally);
        }
    };
    let mut all = Tally::default();
    let results: Vec<Result<Tally, (u64, String)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for result in results {
        match result {
            Ok(tally) => all.add(&tally),
            Err((seed, problem)) => {
                let told = traced(seed).2.unwrap_or_default();
                let tail: Vec<&str> = told.lines().rev().take(60).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!(
                    "seed {seed}: {problem}\nits last steps:\n{}\nFITTINGROOM_SIMULATION_SEED={seed} replays it from its beginning",
                    tail.join("\n")
                );
            }
        }
    }
    eprintln!("{all}; in {:.1} s", started.elapsed().as_secs_f64());
    if all.seeds >= 500 {
        let missing: Vec<_> = all.numbers().into_iter().filter(|(_, number)| **number == 0).collect();
        assert!(missing.is_empty(), "faults that never struck: {missing:?}");
    }
}

#[test]
fn a_seed_of_the_task_tells_the_same_story_each_time() {
    let (templates, (_folder, checkpoints)) = (templates(), checkpoints());
    for seed in 0..20 {
        let story = || simulate(&templates, &checkpoints, seed, Some(String::new())).2;
        assert_eq!(story(), story(), "seed {seed}");
    }
}
