//! Conversions of what the coordinator shows: searches, trials, workers.

use std::time::Duration;

use super::{DecodeError, required};
use crate::checkpoint::Checkpoint;
use crate::gpu::GpuLoad;
use crate::id::{ArtifactHash, AttemptNumber, Name, SlotNumber, TrialId, WorkerId};
use crate::proto as pb;
use crate::space::MAX_TRIALS;
use crate::time::Timestamp;
use crate::trial::{Failure, Report, Score};
use crate::view::{
    AttemptHistory, Best, EpochRow, LeaderboardView, Progress, SearchState, SearchSummary, TrialCounts,
    TrialHistory, TrialRow, TrialState, WorkerRow,
};

impl From<SearchState> for pb::SearchState {
    fn from(it: SearchState) -> Self {
        match it {
            SearchState::Running => Self::Running,
            SearchState::Paused => Self::Paused,
            SearchState::Stopping => Self::Stopping,
            SearchState::Complete => Self::Complete,
            SearchState::Cancelled => Self::Cancelled,
            SearchState::Failed => Self::Failed,
        }
    }
}

impl TryFrom<pb::SearchState> for SearchState {
    type Error = DecodeError;

    fn try_from(it: pb::SearchState) -> Result<Self, DecodeError> {
        match it {
            pb::SearchState::Unspecified => Err(DecodeError::Missing("search.state")),
            pb::SearchState::Running => Ok(Self::Running),
            pb::SearchState::Paused => Ok(Self::Paused),
            pb::SearchState::Stopping => Ok(Self::Stopping),
            pb::SearchState::Complete => Ok(Self::Complete),
            pb::SearchState::Cancelled => Ok(Self::Cancelled),
            pb::SearchState::Failed => Ok(Self::Failed),
        }
    }
}

impl From<TrialState> for pb::TrialState {
    fn from(it: TrialState) -> Self {
        match it {
            TrialState::Waiting => Self::Waiting,
            TrialState::Running => Self::Running,
            TrialState::Complete => Self::Complete,
            TrialState::Pruned => Self::Pruned,
            TrialState::Failed => Self::Failed,
            TrialState::Cancelled => Self::Cancelled,
        }
    }
}

impl TryFrom<pb::TrialState> for TrialState {
    type Error = DecodeError;

    fn try_from(it: pb::TrialState) -> Result<Self, DecodeError> {
        match it {
            pb::TrialState::Unspecified => Err(DecodeError::Missing("trial.state")),
            pb::TrialState::Waiting => Ok(Self::Waiting),
            pb::TrialState::Running => Ok(Self::Running),
            pb::TrialState::Complete => Ok(Self::Complete),
            pb::TrialState::Pruned => Ok(Self::Pruned),
            pb::TrialState::Failed => Ok(Self::Failed),
            pb::TrialState::Cancelled => Ok(Self::Cancelled),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time that is 0 on the wire while the thing has not happened.
fn happened(millis: i64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp::from_millis(millis))
}

impl From<SearchSummary> for pb::SearchSummary {
    fn from(it: SearchSummary) -> Self {
        Self {
            name: it.name.to_string(),
            state: pb::SearchState::from(it.state).into(),
            metric: pb::Metric::from(it.metric).into(),
            method: pb::Method::from(it.method).into(),
            dataset: it.dataset.to_string(),
            trial_count: it.trial_count,
            waiting: it.counts.waiting,
            running: it.counts.running,
            complete: it.counts.complete,
            pruned: it.counts.pruned,
            failed: it.counts.failed,
            cancelled: it.counts.cancelled,
            created_ms: it.created.as_millis(),
            ended_ms: it.ended.map_or(0, Timestamp::as_millis),
            best: it.best.map(Into::into),
            reason: it.reason,
            attempt_ms: millis(it.attempt_time),
            attempts_ended: it.attempts_ended,
        }
    }
}

impl TryFrom<pb::SearchSummary> for SearchSummary {
    type Error = DecodeError;

    fn try_from(it: pb::SearchSummary) -> Result<Self, DecodeError> {
        let (state, metric, method) = (it.state(), it.metric(), it.method());
        let counts = TrialCounts {
            waiting: it.waiting,
            running: it.running,
            complete: it.complete,
            pruned: it.pruned,
            failed: it.failed,
            cancelled: it.cancelled,
        };
        // So that whoever adds them up cannot overflow.
        for count in [it.waiting, it.running, it.complete, it.pruned, it.failed, it.cancelled] {
            if count > it.trial_count {
                return Err(DecodeError::Outside {
                    field: "search.trials by state",
                    value: count.to_string(),
                    allowed: "at most as many as there are trials",
                });
            }
        }
        if it.trial_count > MAX_TRIALS {
            return Err(DecodeError::Outside {
                field: "search.trial_count",
                value: it.trial_count.to_string(),
                allowed: "numbers below 2^61",
            });
        }
        Ok(Self {
            name: it.name.parse()?,
            state: state.try_into()?,
            metric: metric.try_into()?,
            method: method.try_into()?,
            dataset: it.dataset.parse()?,
            trial_count: it.trial_count,
            counts,
            created: Timestamp::from_millis(it.created_ms),
            ended: happened(it.ended_ms),
            best: it.best.map(TrialRow::try_from).transpose()?,
            reason: it.reason,
            attempt_time: Duration::from_millis(it.attempt_ms),
            attempts_ended: it.attempts_ended,
        })
    }
}

impl From<TrialRow> for pb::TrialRow {
    fn from(it: TrialRow) -> Self {
        let (worker, slot) = match it.place {
            Some((name, slot)) => (name.to_string(), slot.get()),
            None => (String::new(), 0),
        };
        Self {
            trial: it.trial.get(),
            rank: it.rank.unwrap_or(0),
            state: pb::TrialState::from(it.state).into(),
            attempts: it.attempts,
            worker,
            slot,
            hyperparameters: Some((&it.hyperparameters).into()),
            report: it.report.map(Into::into),
            failure: it.failure.as_ref().map(Into::into),
            test: it.test.map(Into::into),
            epochs: it.epochs,
            progress_epoch: it.progress.map_or(0, |progress| progress.epoch),
            progress_step: it.progress.map_or(0, |progress| progress.step),
            progress_steps: it.progress.map_or(0, |progress| progress.steps),
        }
    }
}

impl TryFrom<pb::TrialRow> for TrialRow {
    type Error = DecodeError;

    fn try_from(it: pb::TrialRow) -> Result<Self, DecodeError> {
        let state = it.state().try_into()?;
        let place = if it.worker.is_empty() { None } else { Some(place(&it.worker, it.slot)?) };
        let progress =
            Progress { epoch: it.progress_epoch, step: it.progress_step, steps: it.progress_steps };
        Ok(Self {
            trial: TrialId::new(it.trial),
            rank: (it.rank != 0).then_some(it.rank),
            state,
            attempts: it.attempts,
            place,
            hyperparameters: required("trial.hyperparameters", it.hyperparameters)?.try_into()?,
            report: it.report.map(Report::try_from).transpose()?,
            failure: it.failure.map(Failure::try_from).transpose()?,
            test: it.test.map(Score::try_from).transpose()?,
            epochs: it.epochs,
            progress: (progress.epoch != 0).then_some(progress),
        })
    }
}

fn place(worker: &str, slot: u32) -> Result<(Name, SlotNumber), DecodeError> {
    Ok((worker.parse()?, SlotNumber::new(slot)))
}

impl From<LeaderboardView> for pb::LeaderboardView {
    fn from(it: LeaderboardView) -> Self {
        Self {
            search: Some(it.search.into()),
            ranked: it.ranked.into_iter().map(Into::into).collect(),
            running: it.running.into_iter().map(Into::into).collect(),
            workers: it.workers,
            slots: it.slots,
        }
    }
}

impl TryFrom<pb::LeaderboardView> for LeaderboardView {
    type Error = DecodeError;

    fn try_from(it: pb::LeaderboardView) -> Result<Self, DecodeError> {
        let rows = |rows: Vec<pb::TrialRow>| {
            let rows: Result<Vec<_>, _> = rows.into_iter().map(TrialRow::try_from).collect();
            rows
        };
        Ok(Self {
            search: required("leaderboard.search", it.search)?.try_into()?,
            ranked: rows(it.ranked)?,
            running: rows(it.running)?,
            workers: it.workers,
            slots: it.slots,
        })
    }
}

impl From<TrialHistory> for pb::TrialHistory {
    fn from(it: TrialHistory) -> Self {
        Self {
            row: Some(it.row.into()),
            seeds: Some(it.seeds.into()),
            replicate: it.replicate,
            attempts: it.attempts.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::TrialHistory> for TrialHistory {
    type Error = DecodeError;

    fn try_from(it: pb::TrialHistory) -> Result<Self, DecodeError> {
        Ok(Self {
            row: required("history.row", it.row)?.try_into()?,
            seeds: required("history.seeds", it.seeds)?.into(),
            replicate: it.replicate,
            attempts: it.attempts.into_iter().map(AttemptHistory::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<AttemptHistory> for pb::AttemptHistory {
    fn from(it: AttemptHistory) -> Self {
        Self {
            number: it.number.get(),
            worker: it.place.0.to_string(),
            slot: it.place.1.get(),
            started_ms: it.started.as_millis(),
            ended_ms: it.ended.map_or(0, Timestamp::as_millis),
            epochs: it.epochs.into_iter().map(Into::into).collect(),
            failure: it.failure.as_ref().map(Into::into),
            resumed_from: it.resumed_from.map(Into::into),
        }
    }
}

impl TryFrom<pb::AttemptHistory> for AttemptHistory {
    type Error = DecodeError;

    fn try_from(it: pb::AttemptHistory) -> Result<Self, DecodeError> {
        Ok(Self {
            number: AttemptNumber::new(it.number),
            place: place(&it.worker, it.slot)?,
            started: Timestamp::from_millis(it.started_ms),
            ended: happened(it.ended_ms),
            epochs: it.epochs.into_iter().map(Report::try_from).collect::<Result<_, _>>()?,
            failure: it.failure.map(Failure::try_from).transpose()?,
            resumed_from: it.resumed_from.map(Checkpoint::try_from).transpose()?,
        })
    }
}

impl From<EpochRow> for pb::EpochRow {
    fn from(it: EpochRow) -> Self {
        Self { trial: it.trial.get(), attempt: it.attempt.get(), report: Some(it.report.into()) }
    }
}

impl TryFrom<pb::EpochRow> for EpochRow {
    type Error = DecodeError;

    fn try_from(it: pb::EpochRow) -> Result<Self, DecodeError> {
        Ok(Self {
            trial: TrialId::new(it.trial),
            attempt: AttemptNumber::new(it.attempt),
            report: required("epoch.report", it.report)?.try_into()?,
        })
    }
}

impl From<WorkerRow> for pb::WorkerRow {
    fn from(it: WorkerRow) -> Self {
        Self {
            name: it.name.to_string(),
            id: it.id.to_wire(),
            device: it.device,
            slots: it.slots,
            busy: it.busy,
            program_version: it.program_version,
            silent_ms: millis(it.silent),
            draining: it.draining,
            gpus: it.gpus.iter().map(pb::Gpu::from).collect(),
        }
    }
}

impl TryFrom<pb::WorkerRow> for WorkerRow {
    type Error = DecodeError;

    fn try_from(it: pb::WorkerRow) -> Result<Self, DecodeError> {
        Ok(Self {
            name: it.name.parse()?,
            id: WorkerId::from_wire(&it.id)?,
            device: it.device,
            slots: it.slots,
            busy: it.busy,
            program_version: it.program_version,
            silent: Duration::from_millis(it.silent_ms),
            draining: it.draining,
            gpus: GpuLoad::all_from_wire(it.gpus)?,
        })
    }
}

impl From<Best> for pb::Best {
    fn from(it: Best) -> Self {
        Self {
            row: Some(it.row.into()),
            seeds: Some(it.seeds.into()),
            attempt: it.attempt.get(),
            hyperparameters: Some((&it.hyperparameters).into()),
            model_hash: it.model.to_wire(),
            dataset: Some((&it.dataset).into()),
            search: Some(it.search.into()),
        }
    }
}

impl TryFrom<pb::Best> for Best {
    type Error = DecodeError;

    fn try_from(it: pb::Best) -> Result<Self, DecodeError> {
        Ok(Self {
            row: required("best.row", it.row)?.try_into()?,
            seeds: required("best.seeds", it.seeds)?.into(),
            attempt: AttemptNumber::new(it.attempt),
            hyperparameters: required("best.hyperparameters", it.hyperparameters)?.try_into()?,
            model: ArtifactHash::from_wire(&it.model_hash)?,
            dataset: required("best.dataset", it.dataset)?.try_into()?,
            search: required("best.search", it.search)?.try_into()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointPlace;
    use crate::dataset::{Manifest, Shape};
    use crate::gpu::{GpuMemory, GpuWords};
    use crate::hyperparameter::Hyperparameters;
    use crate::space::Method;
    use crate::trial::{FailureReason, Finite, Metric, Seeds};

    fn score(loss: f64, accuracy: f64) -> Score {
        Score { loss: Finite::new(loss).expect("finite"), accuracy: Finite::new(accuracy).expect("finite") }
    }

    fn report() -> Report {
        Report {
            epoch: 3,
            train: score(0.4, 0.9),
            validation: score(0.5, 0.85),
            test: None,
            seconds: 12.5,
            images_per_second: 9000.0,
        }
    }

    fn row() -> TrialRow {
        TrialRow {
            trial: TrialId::new(4),
            rank: Some(1),
            state: TrialState::Running,
            attempts: 2,
            place: Some((Name::sanitised("box"), SlotNumber::new(1))),
            hyperparameters: Hyperparameters::defaults(),
            report: Some(report()),
            failure: Some(Failure::new(FailureReason::Diverged, "the loss became NaN")),
            test: Some(score(0.3, 0.9)),
            epochs: 10,
            progress: Some(Progress { epoch: 4, step: 0, steps: 422 }),
        }
    }

    fn summary() -> SearchSummary {
        SearchSummary {
            name: Name::sanitised("first"),
            state: SearchState::Stopping,
            metric: Metric::ValidationLoss,
            method: Method::Points,
            dataset: Name::sanitised("fashion-mnist"),
            trial_count: 10,
            counts: TrialCounts { waiting: 1, running: 2, complete: 3, ..TrialCounts::default() },
            created: Timestamp::from_millis(1_000),
            ended: None,
            best: Some(row()),
            reason: "asked to".to_owned(),
            attempt_time: Duration::from_millis(1234),
            attempts_ended: 3,
        }
    }

    fn there_and_back<T, M>(it: T)
    where
        T: Clone + PartialEq + std::fmt::Debug + TryFrom<M, Error = DecodeError>,
        M: From<T>,
    {
        assert_eq!(T::try_from(M::from(it.clone())), Ok(it));
    }

    #[test]
    fn every_view_survives_the_wire() {
        for state in SearchState::ALL {
            there_and_back::<_, pb::SearchState>(state);
        }
        for state in TrialState::ALL {
            there_and_back::<_, pb::TrialState>(state);
        }
        let bare = TrialRow {
            rank: None,
            place: None,
            report: None,
            failure: None,
            test: None,
            progress: None,
            ..row()
        };
        there_and_back::<_, pb::TrialRow>(row());
        there_and_back::<_, pb::TrialRow>(bare.clone());
        there_and_back::<_, pb::SearchSummary>(summary());
        there_and_back::<_, pb::LeaderboardView>(LeaderboardView {
            search: summary(),
            ranked: vec![row()],
            running: vec![bare],
            workers: 2,
            slots: 4,
        });
        let seeds = Seeds::derive(1, 0, TrialId::new(4));
        there_and_back::<_, pb::TrialHistory>(TrialHistory {
            row: row(),
            seeds,
            replicate: 1,
            attempts: vec![AttemptHistory {
                number: AttemptNumber::FIRST,
                place: (Name::sanitised("box"), SlotNumber::new(0)),
                started: Timestamp::from_millis(5),
                ended: Some(Timestamp::from_millis(9)),
                epochs: vec![report()],
                failure: None,
                resumed_from: Some(Checkpoint {
                    place: CheckpointPlace { epoch: 2, step: 5 },
                    hash: ArtifactHash::of(b"checkpoint"),
                }),
            }],
        });
        there_and_back::<_, pb::EpochRow>(EpochRow {
            trial: TrialId::new(4),
            attempt: AttemptNumber::FIRST,
            report: report(),
        });
        there_and_back::<_, pb::WorkerRow>(WorkerRow {
            name: Name::sanitised("box"),
            id: WorkerId::new(7),
            device: "cpu".to_owned(),
            slots: 2,
            busy: 1,
            program_version: "0.1.0".to_owned(),
            silent: Duration::from_millis(300),
            draining: true,
            gpus: vec![GpuLoad {
                number: 3,
                uuid: GpuWords::sanitised("GPU-815"),
                name: GpuWords::sanitised("NVIDIA H100"),
                utilization: None,
                memory: GpuMemory::new(5, 80 << 30),
            }],
        });
        there_and_back::<_, pb::Best>(Best {
            row: row(),
            seeds,
            attempt: AttemptNumber::FIRST,
            hyperparameters: Hyperparameters::defaults(),
            model: ArtifactHash::of(b"model"),
            dataset: Manifest {
                name: Name::sanitised("fashion-mnist"),
                shape: Shape {
                    height: 28,
                    width: 28,
                    classes: 10,
                    train_images: 60_000,
                    test_images: 10_000,
                },
                files: [b"a", b"b", b"c", b"d"].map(|bytes| ArtifactHash::of(bytes)),
            },
            search: summary(),
        });
    }

    #[test]
    fn a_summary_that_cannot_be_is_refused() {
        type Spoil = fn(&mut pb::SearchSummary);
        let rows: [(&str, Spoil); 6] = [
            ("no state", |it| it.state = 0),
            ("a state of a later version", |it| it.state = 99),
            ("an unusable name", |it| it.name = "\u{1b}[2J".to_owned()),
            ("more failed trials than trials", |it| it.failed = 11),
            ("counts that would overflow", |it| {
                (it.trial_count, it.failed, it.pruned) = (u64::MAX, u64::MAX, u64::MAX);
            }),
            ("a best trial of no state", |it| {
                it.best.get_or_insert_default().state = 0;
            }),
        ];
        for (row, spoil) in rows {
            let mut message = pb::SearchSummary::from(summary());
            spoil(&mut message);
            assert!(SearchSummary::try_from(message).is_err(), "{row} was accepted");
        }
    }
}
