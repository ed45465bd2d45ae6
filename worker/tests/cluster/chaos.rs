//! A longer run in which something is killed or stopped every second or so: `deploy/chaos`. What is
//! hit, and when, is drawn from a seed; what that leads to is up to the machine.
//!
//! `FITTINGROOM_CHAOS_SECONDS` and `FITTINGROOM_CHAOS_SEED` say how long and from which seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use fittingroom_common::rng::Stream;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;

use crate::digits::{self, EPOCHS, TRIALS, undisturbed};
use crate::harness::{Cluster, Running, children_of, results, signal, trials};

/// How long it takes where nothing else is said.
const SECONDS: u64 = 12;
const WORKERS: usize = 3;
/// How many searches run at a time, so that there is always something to disturb.
const AT_ONCE: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    KillTrainer,
    KillAgent,
    KillCoordinator,
    KillAll,
    /// SIGSTOP to an agent for a while, and SIGCONT.
    StopAgent,
    /// The same to the coordinator.
    StopCoordinator,
}

impl Blow {
    const ALL: [Self; 6] = [
        Self::KillTrainer,
        Self::KillAgent,
        Self::KillCoordinator,
        Self::KillAll,
        Self::StopAgent,
        Self::StopCoordinator,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::KillTrainer => "trainer killed",
            Self::KillAgent => "agent killed",
            Self::KillCoordinator => "coordinator killed",
            Self::KillAll => "all killed at once",
            Self::StopAgent => "agent stopped and continued",
            Self::StopCoordinator => "coordinator stopped and continued",
        }
    }
}

/// What happened, and what came of it.
#[derive(Default)]
struct Summary {
    seed: u64,
    seconds: f64,
    blows: BTreeMap<Blow, u64>,
    searches: u64,
    trials: u64,
    attempts: u64,
    epochs: u64,
    repeated_epochs: u64,
    /// Trials, epochs and outcomes that were shown or expected, and are not there or are others.
    lost: u64,
    /// Trials, epochs or outcomes that are there more than once.
    doubled: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seconds, searches, trials, attempts, epochs, repeated_epochs, .. } = self;
        writeln!(f, "chaos from seed {seed} for {seconds:.0} s: {searches} searches of {TRIALS} trials")?;
        for (blow, count) in &self.blows {
            writeln!(f, "  {count:>5} times {}", blow.name())?;
        }
        writeln!(f, "{attempts} attempts at {trials} trials")?;
        writeln!(f, "{epochs} epochs reported, {repeated_epochs} of them again by a later attempt")?;
        write!(f, "lost {}, doubled {}", self.lost, self.doubled)
    }
}

struct Chaos {
    cluster: Cluster,
    workers: Vec<Running>,
    chance: ChaCha8Rng,
    /// Agents that are stopped, and until when.
    stopped: Vec<(usize, Instant)>,
    summary: Summary,
    /// Trials that were shown as complete, by search: they must stay as they are.
    shown: BTreeMap<String, Vec<Json>>,
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn chaos_loses_nothing_and_doubles_nothing() {
    let seconds = number("FITTINGROOM_CHAOS_SECONDS", SECONDS);
    let seed = number("FITTINGROOM_CHAOS_SEED", 1);
    undisturbed();
    let cluster = digits::start();
    let workers = (0..WORKERS).map(|number| cluster.worker(&name(number))).collect();
    let mut chaos = Chaos {
        cluster,
        workers,
        chance: Stream::new(seed).named("chaos").generator(),
        stopped: Vec::new(),
        summary: Summary { seed, ..Summary::default() },
        shown: BTreeMap::new(),
    };
    let started = Instant::now();
    chaos.rage(started + Duration::from_secs(seconds));
    chaos.settle();
    chaos.summary.seconds = started.elapsed().as_secs_f64();
    let summary = chaos.account();
    eprintln!("{summary}");
    assert_eq!((summary.lost, summary.doubled), (0, 0), "{summary}");
}

fn name(worker: usize) -> String {
    format!("worker-{worker}")
}

fn search(number: u64) -> String {
    format!("chaos-{number}")
}

impl Chaos {
    /// Keeps some searches running, and hits something every second or so.
    fn rage(&mut self, end: Instant) {
        let mut open: Vec<u64> = (0..AT_ONCE).map(|_| self.launch()).collect();
        while Instant::now() < end {
            let pause = Duration::from_millis(self.chance.random_range(300..1_500));
            std::thread::sleep(pause);
            self.wake(Instant::now());
            let blow = Blow::ALL[self.chance.random_range(0..Blow::ALL.len())];
            *self.summary.blows.entry(blow).or_default() += 1;
            self.strike(blow);
            for number in &mut open {
                if self.look(*number) {
                    *number = self.launch();
                }
            }
        }
    }

    fn launch(&mut self) -> u64 {
        self.summary.searches += 1;
        digits::launch(&self.cluster, &search(self.summary.searches));
        self.summary.searches
    }

    fn strike(&mut self, blow: Blow) {
        let victim = self.chance.random_range(0..WORKERS);
        match blow {
            Blow::KillTrainer if self.workers[victim].runs() => {
                children_of(self.workers[victim].id()).into_iter().for_each(|id| signal(id, "KILL"));
            }
            Blow::KillTrainer => {}
            Blow::KillAgent => self.restart(victim),
            Blow::KillCoordinator => {
                self.cluster.kill_coordinator();
                self.pause(2_500);
                self.cluster.serve();
            }
            Blow::KillAll => {
                self.workers.iter().for_each(|worker| worker.signal("KILL"));
                self.cluster.kill_coordinator();
                self.cluster.serve();
                (0..WORKERS).for_each(|number| self.restart(number));
            }
            Blow::StopAgent => {
                self.workers[victim].signal("STOP");
                let until = Instant::now() + Duration::from_millis(self.chance.random_range(500..5_000));
                self.stopped.push((victim, until));
            }
            Blow::StopCoordinator => {
                let coordinator = self.cluster.coordinator_id();
                signal(coordinator, "STOP");
                self.pause(4_000);
                signal(coordinator, "CONT");
            }
        }
    }

    fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.chance.random_range(0..most)));
    }

    fn restart(&mut self, worker: usize) {
        self.workers[worker].signal("KILL");
        self.workers[worker] = self.cluster.worker(&name(worker));
        self.stopped.retain(|(stopped, _)| *stopped != worker);
    }

    /// Lets stopped agents go on whose time has come.
    fn wake(&mut self, now: Instant) {
        let workers = &self.workers;
        self.stopped.retain(|(worker, until)| {
            let is_over = *until <= now;
            if is_over {
                workers[*worker].signal("CONT");
            }
            !is_over
        });
    }

    /// Looks at a search's leaderboard, notes what it shows as done, and answers whether the search is complete.
    fn look(&mut self, number: u64) -> bool {
        let name = search(number);
        let board = self.cluster.leaderboard(&name);
        let complete = trials(&board).iter().filter(|trial| trial["state"] == "COMPLETE").cloned();
        let complete: Vec<Json> = complete.collect();
        let shown = self.shown.entry(name).or_default();
        let gone = shown.iter().filter(|before| !complete.iter().any(|now| is_same(before, now)));
        self.summary.lost += gone.count() as u64;
        *shown = complete;
        board["state"] == "COMPLETE"
    }

    /// Ends the faults, and waits for every search.
    fn settle(&mut self) {
        self.wake(Instant::now() + Duration::from_secs(3_600));
        for number in 1..=self.summary.searches {
            self.cluster.wait_until_complete(&search(number));
        }
    }

    /// Holds every search against an undisturbed one, and counts what its log says.
    fn account(mut self) -> Summary {
        for number in 1..=self.summary.searches {
            self.look(number);
            let found = results(&self.cluster.leaderboard(&search(number)));
            let numbers: BTreeSet<u64> = found.iter().filter_map(|trial| trial["trial"].as_u64()).collect();
            let points: BTreeSet<String> =
                found.iter().map(|trial| trial["hyperparameters"].to_string()).collect();
            self.summary.doubled += (2 * found.len() - numbers.len() - points.len()) as u64;
            let missing = undisturbed().iter().filter(|trial| !found.contains(trial));
            for trial in missing {
                eprintln!("{} has another result than undisturbed: {trial:#}", search(number));
                self.summary.lost += 1;
            }
        }
        self.workers.clear();
        let checked = self.cluster.check();
        for searched in checked["searches"].as_array().expect("a list") {
            let count = |field: &str| searched[field].as_u64().expect("a number");
            self.summary.trials += count("trials");
            self.summary.attempts += count("attempts");
            self.summary.epochs += count("epochs");
            self.summary.repeated_epochs += count("repeated_epochs");
        }
        // Every epoch of every trial once, whatever was done again.
        let expected = self.summary.searches * TRIALS as u64 * EPOCHS;
        let distinct = self.summary.epochs - self.summary.repeated_epochs;
        self.summary.lost += expected.saturating_sub(distinct);
        self.summary.doubled += distinct.saturating_sub(expected);
        self.summary
    }
}

/// Whether a trial that was shown as complete is still shown so. Its rank may change, and the best
/// is evaluated later.
fn is_same(before: &Json, now: &Json) -> bool {
    let lasting =
        ["trial", "attempts", "worker", "epoch", "train_loss", "validation_loss", "validation_accuracy"];
    lasting.iter().all(|field| before[field] == now[field])
}
