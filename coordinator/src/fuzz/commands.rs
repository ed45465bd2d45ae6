//! Commands to the state machine of a search, in any order, from whoever calls.

use std::sync::LazyLock;
use std::time::Duration;

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::event::{Created, Event, Fact};
use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, Name, SlotNumber, TrialId, WorkerId};
use fittingroom_common::space::SearchSpec;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason, Finite, Report, Score};
use fittingroom_common::work::{Holder, Outcome};

use super::kept::{Kept, shown};
use super::{LEASE, SEARCH, created, must_agree};
use crate::audit::Audit;
use crate::search::{Command, KEPT_CHECKPOINTS, Search};

/// The most commands of one input.
const MOST_COMMANDS: usize = 400;

/// The searches that an input may choose from.
static SEARCHES: LazyLock<Vec<Created>> = LazyLock::new(|| {
    let searches = [
        "epochs: 3\ncheckpoint: {every_epochs: 1}",
        "epochs: 1\nmax_attempts: 1\nmax_failed_trials: 1",
        "epochs: 2\nreplicates: 2\ntrack_test: true",
        "epochs: 2\nmetric: validation_loss\nbudget: 40s\nmax_attempts: 2\ncheckpoint: {every_seconds: 1}",
    ];
    let parameters = "parameters: {learning_rate: {values: [0.1, 0.01]}}";
    let parse =
        |search: &str| SearchSpec::parse("search.yaml", &format!("method: grid\n{search}\n{parameters}"));
    searches.iter().map(|search| created(parse(search).expect("parses").spec)).collect()
});

/// The first byte chooses a search; of each three after it, the first chooses what is done.
pub fn commands(bytes: &[u8]) {
    let Some((choice, steps)) = bytes.split_first() else { return };
    let mut bench = Bench::new(&SEARCHES[usize::from(*choice) % SEARCHES.len()]);
    for [what, a, b] in steps.as_chunks().0.iter().take(MOST_COMMANDS) {
        bench.step(*what, *a, *b);
    }
    bench.restart();
}

struct Bench<'a> {
    created: &'a Created,
    search: Search,
    log: Vec<Event>,
    audit: Audit,
    kept: Kept,
    now: Timestamp,
}

impl<'a> Bench<'a> {
    fn new(created: &'a Created) -> Self {
        let now = Timestamp::from_millis(1_000);
        let first = Event { at: now, fact: Fact::SearchCreated(Box::new(created.clone())) };
        let audit = Audit::of([&first]);
        let search = Search::new(SEARCH, created.clone(), now, LEASE);
        Self { created, search, log: vec![first], audit, kept: Kept::default(), now }
    }

    fn step(&mut self, what: u8, a: u8, b: u8) {
        let worker = WorkerId::new((b & 3).into());
        // What the worker holds, or anything.
        let held = self.search.held_by(worker);
        let attempt = match held.get(usize::from(a & 1)) {
            Some(held) if a & 0x80 == 0 => *held,
            _ => Attempt {
                trial: TrialId::new((a & 7).into()),
                number: AttemptNumber::new(u32::from(a >> 3 & 7) + 1),
            },
        };
        let number = u32::from(b >> 2 & 7);
        let complete = |outcome| Command::Complete { attempt, worker, outcome };
        let checkpoint = Checkpoint {
            place: CheckpointPlace { epoch: number, step: u32::from(b >> 5) },
            hash: ArtifactHash::of(&[attempt.trial.get() as u8, b >> 2]),
        };
        let command = match what % 16 {
            0 | 1 => {
                let slot = SlotNumber::new((a & 1).into());
                Command::Lease { holder: Holder { worker, name: Name::sanitised("worker"), slot } }
            }
            2 | 3 => Command::Report { attempt, worker, report: report(number, a) },
            4 => complete(Outcome::Trained { model: None }),
            5 => complete(Outcome::Trained { model: Some(ArtifactHash::of(&[a])) }),
            6 => complete(Outcome::Evaluated(report(1, a).validation)),
            7 => {
                let reason = FailureReason::ALL[number as usize % FailureReason::ALL.len()];
                complete(Outcome::Failed(Failure::new(reason, "")))
            }
            8 => complete(Outcome::Released),
            9 => Command::KeepCheckpoint { attempt, worker, checkpoint },
            10 => {
                let newest = self.search.checkpoints().filter(|(trial, _)| *trial == attempt.trial).last();
                let hash = newest.map_or(checkpoint.hash, |(_, hash)| hash);
                Command::LoseCheckpoint { attempt, worker, hash, problem: String::new() }
            }
            11 => {
                self.now = self.now.after(Duration::from_millis(100 * u64::from(a)));
                Command::Tick
            }
            12 => {
                [Command::Pause, Command::Resume, Command::Stop, Command::Cancel][usize::from(a & 3)].clone()
            }
            13 => {
                self.search.renew(attempt, worker, None, self.now);
                return;
            }
            14 => {
                self.kept.keep(self.search.take_snapshot(usize::from(a & 3) + 1));
                return;
            }
            _ => return self.restart(),
        };
        self.give(command);
    }

    fn give(&mut self, command: Command) {
        let Ok(new) = self.search.handle(command.clone(), self.now) else { return };
        for event in new {
            self.audit.take(self.log.len() as u64 + 1, &event);
            self.log.push(event);
        }
        assert_eq!(self.audit.findings(), [], "after {command:?}");
        must_agree(&self.search, &self.audit);
        let again = self.search.decide(command.clone(), self.now);
        assert!(again.is_err() || again == Ok(Vec::new()), "{command:?} again gives {again:?}");
        let open = self.search.summary().counts;
        let most = (open.waiting + open.running) as usize * KEPT_CHECKPOINTS;
        assert!(self.search.checkpoints().count() <= most, "checkpoints of trials that are over");
    }

    /// The process ends, and another one begins with what the log has.
    fn restart(&mut self) {
        let replayed = Search::replay(SEARCH, self.log.iter().cloned(), LEASE).expect("it is created");
        let at = self.log[0].at;
        if let Some(mut restored) = self.kept.restored(Search::new(SEARCH, self.created.clone(), at, LEASE)) {
            let version = usize::try_from(restored.version()).expect("it fits");
            self.log[version..].iter().for_each(|event| restored.apply(event));
            assert_eq!(shown(&restored), shown(&replayed));
        }
        assert_eq!(shown(&replayed), shown(&self.search));
        // What was touched since the last snapshot is touched again.
        self.kept = Kept::default();
        self.search = replayed;
        self.search.grant_grace(self.now);
    }
}

fn report(epoch: u32, drawn: u8) -> Report {
    let eighths = |bits: u8| Finite::new(f64::from(bits & 7) / 8.0).unwrap_or_else(|| unreachable!("finite"));
    let score = Score { loss: eighths(drawn), accuracy: eighths(drawn >> 3) };
    let test = (drawn & 0x40 != 0).then_some(score);
    Report { epoch, train: score, validation: score, test, seconds: 1.0, images_per_second: 1.0 }
}
