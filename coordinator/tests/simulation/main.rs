//! Deterministic simulation: the real state machine of a search, with simulated workers, operators,
//! disk, clock and network, whose every fault is drawn from one seed. Time is a number, so that
//! a search of minutes takes less than a millisecond.
//!
//! After every append the log is audited and held against the state; every answer is held against
//! the log; and when the faults have ended, the search must end too, with the leaderboard of a
//! search that nothing disturbed.
//!
//! A failure prints its seed. `FITTINGROOM_SIMULATION_SEED=N` replays that one with its trace,
//! `FITTINGROOM_SIMULATIONS=N` runs so many, and `FITTINGROOM_SIMULATION_FIRST=N` begins at a seed.

mod coordinator;
mod disk;
mod machine;
mod message;
mod runner;
mod scenario;
mod store;
mod tally;
mod trainer;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use scenario::{Template, templates};
use tally::Tally;
use world::World;

/// How many searches are simulated where nothing else is said.
const SIMULATIONS: u64 = 100_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is not a number")))
}

/// Simulates what a seed says. A panic of the state machine is a failure like any other.
fn simulate(templates: &[Template], seed: u64) -> Result<Tally, String> {
    let simulated = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(templates, seed, None);
        world.run().map(|()| world.tally)
    }));
    simulated.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// The same again, told step by step.
fn trace(templates: &[Template], seed: u64) -> String {
    let mut world = World::new(templates, seed, Some(String::new()));
    let ran =
        catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|_| Err("it panicked".to_owned()));
    let told = world.trace.unwrap_or_default();
    format!(
        "{told}{}",
        ran.map_or_else(|problem| format!("BROKEN: {problem}"), |()| "all is well".to_owned())
    )
}

#[test]
fn whatever_befalls_a_search_it_keeps_its_promises_and_ends() {
    let templates = templates();
    if let Some(seed) = number("FITTINGROOM_SIMULATION_SEED") {
        eprintln!("{}", trace(&templates, seed));
        simulate(&templates, seed).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        return;
    }
    let first = number("FITTINGROOM_SIMULATION_FIRST").unwrap_or(0);
    let end = first + number("FITTINGROOM_SIMULATIONS").unwrap_or(SIMULATIONS);
    let (next, started) = (AtomicU64::new(first), Instant::now());
    let (all, failure) = (Mutex::new(Tally::default()), Mutex::new(None::<(u64, String)>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    match simulate(&templates, seed) {
                        Ok(tally) => mine.add(&tally),
                        Err(problem) => {
                            next.store(end, Ordering::Relaxed);
                            let mut failure = failure.lock().expect("not poisoned");
                            // The first seed that fails, whichever thread had it.
                            if failure.as_ref().is_none_or(|(before, _)| seed < *before) {
                                *failure = Some((seed, problem));
                            }
                        }
                    }
                }
                all.lock().expect("not poisoned").add(&mine);
            });
        }
    });
    if let Some((seed, problem)) = failure.into_inner().expect("not poisoned") {
        let told = trace(&templates, seed);
        let tail = told.lines().count().saturating_sub(60);
        let tail: Vec<&str> = told.lines().skip(tail).collect();
        panic!(
            "seed {seed}: {problem}\nits last steps:\n{}\nFITTINGROOM_SIMULATION_SEED={seed} replays it from its beginning",
            tail.join("\n")
        );
    }
    let all = all.into_inner().expect("not poisoned");
    eprintln!("{all}; in {:.1} s", started.elapsed().as_secs_f64());
    if all.searches >= 1_000 {
        assert_eq!(all.missing(), [""; 0], "faults that never struck: {all}");
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let templates = templates();
    for seed in 0..50 {
        assert_eq!(trace(&templates, seed), trace(&templates, seed), "seed {seed}");
    }
}
