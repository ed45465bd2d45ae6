//! Conversions of what passes between the coordinator and its workers.

use super::{DecodeError, exactly, required};
use crate::checkpoint::{Checkpoint, CheckpointRule};
use crate::dataset::{FileRole, Idx, Manifest, Shape};
use crate::hyperparameter::{Hyperparameters, Parameter};
use crate::id::{ArtifactHash, Attempt, Name, SearchId, WorkerId};
use crate::proto as pb;
use crate::trial::{Failure, Score};
use crate::view::Progress;
use crate::work::{Assignment, Directive, Held, Outcome, SearchAttempt, Work, WorkerInfo};

/// The most slots of one worker.
pub const MAX_SLOTS: u32 = 1024;

/// The longest description of a device or a program's version, in bytes.
pub const MAX_DESCRIPTION: usize = 200;

/// The most checkpoints of a trial that a worker is offered.
const MAX_CHECKPOINTS: usize = 16;

/// The most classes of a dataset: labels are single bytes.
const MAX_CLASSES: u32 = 256;

/// The number, if it lies within the bounds.
fn within(
    field: &'static str,
    value: u64,
    bounds: std::ops::RangeInclusive<u64>,
    allowed: &'static str,
) -> Result<usize, DecodeError> {
    let outside = || DecodeError::Outside { field, value: value.to_string(), allowed };
    if !bounds.contains(&value) {
        return Err(outside());
    }
    usize::try_from(value).map_err(|_| outside())
}

fn description(field: &'static str, text: String) -> Result<String, DecodeError> {
    if text.len() > MAX_DESCRIPTION {
        return Err(DecodeError::Outside {
            field,
            value: format!("{} bytes", text.len()),
            allowed: "at most 200 bytes",
        });
    }
    Ok(text)
}

impl From<&WorkerInfo> for pb::RegisterRequest {
    /// The registration of a worker that speaks this version of the messages.
    fn from(it: &WorkerInfo) -> Self {
        Self {
            protocol_version: pb::PROTOCOL_VERSION,
            worker_id: it.id.to_wire(),
            name: it.name.to_string(),
            slots: it.slots,
            device: it.device.clone(),
            program_version: it.program_version.clone(),
        }
    }
}

impl TryFrom<pb::RegisterRequest> for WorkerInfo {
    type Error = DecodeError;

    /// The protocol's version is left to whoever answers the call, who must say more than that it is wrong.
    fn try_from(it: pb::RegisterRequest) -> Result<Self, DecodeError> {
        within("slots", it.slots.into(), 1..=MAX_SLOTS.into(), "1 to 1024")?;
        Ok(Self {
            id: WorkerId::from_wire(&it.worker_id)?,
            name: it.name.parse()?,
            slots: it.slots,
            device: description("device", it.device)?,
            program_version: description("program_version", it.program_version)?,
        })
    }
}

impl SearchAttempt {
    /// The attempt that the two fields of a request name.
    pub fn from_wire(search: u64, attempt: Option<pb::Attempt>) -> Result<Self, DecodeError> {
        Ok(Self { search: SearchId::new(search), attempt: Attempt::try_from(required("attempt", attempt)?)? })
    }
}

impl From<&Manifest> for pb::Dataset {
    fn from(it: &Manifest) -> Self {
        // Decoding bounds every size far below the wire's width, and a file's header has 32 bits for each.
        let narrow = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Self {
            name: it.name.to_string(),
            height: narrow(it.shape.height),
            width: narrow(it.shape.width),
            classes: narrow(it.shape.classes),
            train_images: it.shape.train_images as u64,
            test_images: it.shape.test_images as u64,
            files: it.files.iter().map(|hash| hash.to_wire()).collect(),
        }
    }
}

impl TryFrom<pb::Dataset> for Manifest {
    type Error = DecodeError;

    fn try_from(it: pb::Dataset) -> Result<Self, DecodeError> {
        const SIDE: u64 = Idx::MAX_SIDE as u64;
        let images = 1..=u64::from(u32::MAX);
        let shape = Shape {
            height: within("dataset.height", it.height.into(), 1..=SIDE, "1 to 1024")?,
            width: within("dataset.width", it.width.into(), 1..=SIDE, "1 to 1024")?,
            classes: within("dataset.classes", it.classes.into(), 2..=MAX_CLASSES.into(), "2 to 256")?,
            train_images: within("dataset.train_images", it.train_images, images.clone(), "1 to 2^32 - 1")?,
            test_images: within("dataset.test_images", it.test_images, images, "1 to 2^32 - 1")?,
        };
        let wrong_number = DecodeError::Outside {
            field: "dataset.files",
            value: format!("{} hashes", it.files.len()),
            allowed: "the hashes of 4 files",
        };
        let files: [Vec<u8>; FileRole::ALL.len()] = it.files.try_into().map_err(|_| wrong_number)?;
        let [a, b, c, d] = &files;
        let hash = |bytes: &Vec<u8>| exactly("dataset.files", bytes).map(ArtifactHash::new);
        Ok(Self { name: it.name.parse()?, shape, files: [hash(a)?, hash(b)?, hash(c)?, hash(d)?] })
    }
}

impl From<&Assignment> for pb::Assignment {
    fn from(it: &Assignment) -> Self {
        Self {
            search: it.id.search.get(),
            search_name: it.search_name.to_string(),
            attempt: Some(it.id.attempt.into()),
            dataset: Some((&it.dataset).into()),
            work: Some((&it.work).into()),
        }
    }
}

impl TryFrom<pb::Assignment> for Assignment {
    type Error = DecodeError;

    fn try_from(it: pb::Assignment) -> Result<Self, DecodeError> {
        Ok(Self {
            id: SearchAttempt::from_wire(it.search, it.attempt)?,
            search_name: it.search_name.parse::<Name>()?,
            dataset: required("dataset", it.dataset)?.try_into()?,
            work: required("work", it.work)?.try_into()?,
        })
    }
}

impl From<&Work> for pb::assignment::Work {
    fn from(it: &Work) -> Self {
        match it {
            Work::Train { hyperparameters, seeds, track_test, checkpoint, resume_from } => {
                Self::Train(pb::TrainWork {
                    hyperparameters: Some(hyperparameters.into()),
                    seeds: Some((*seeds).into()),
                    track_test: *track_test,
                    checkpoint: Some((*checkpoint).into()),
                    resume_from: resume_from.iter().map(|&it| it.into()).collect(),
                })
            }
            Work::Evaluate { model } => Self::Evaluate(pb::EvaluateWork { model_hash: model.to_wire() }),
        }
    }
}

impl TryFrom<pb::assignment::Work> for Work {
    type Error = DecodeError;

    fn try_from(it: pb::assignment::Work) -> Result<Self, DecodeError> {
        use pb::assignment::Work as Wire;
        match it {
            Wire::Train(train) => {
                let given = required("train.hyperparameters", train.hyperparameters)?;
                let hyperparameters = Hyperparameters::try_from(given)?;
                if let Some(missing) = Parameter::all().find(|&p| hyperparameters.get(p).is_none()) {
                    return Err(DecodeError::Missing(missing.name()));
                }
                let most = MAX_CHECKPOINTS;
                if train.resume_from.len() > most {
                    let found = train.resume_from.len();
                    return Err(DecodeError::TooMany { field: "train.resume_from", found, most });
                }
                let rule = train.checkpoint.map(CheckpointRule::try_from).transpose()?;
                Ok(Self::Train {
                    hyperparameters,
                    seeds: required("train.seeds", train.seeds)?.into(),
                    track_test: train.track_test,
                    checkpoint: rule.unwrap_or(CheckpointRule::NEVER),
                    resume_from: train
                        .resume_from
                        .into_iter()
                        .map(Checkpoint::try_from)
                        .collect::<Result<_, _>>()?,
                })
            }
            Wire::Evaluate(evaluate) => {
                Ok(Self::Evaluate { model: ArtifactHash::from_wire(&evaluate.model_hash)? })
            }
        }
    }
}

impl From<&Held> for pb::Held {
    fn from(it: &Held) -> Self {
        let progress = it.progress.unwrap_or(Progress { epoch: 0, step: 0, steps: 0 });
        Self {
            search: it.id.search.get(),
            attempt: Some(it.id.attempt.into()),
            epoch: progress.epoch,
            step: progress.step,
            steps: progress.steps,
        }
    }
}

impl TryFrom<pb::Held> for Held {
    type Error = DecodeError;

    fn try_from(it: pb::Held) -> Result<Self, DecodeError> {
        let progress = Progress { epoch: it.epoch, step: it.step, steps: it.steps };
        Ok(Self {
            id: SearchAttempt::from_wire(it.search, it.attempt)?,
            progress: (it.epoch > 0).then_some(progress),
        })
    }
}

impl From<Directive> for pb::Directive {
    fn from(it: Directive) -> Self {
        match it {
            Directive::Continue => Self::Continue,
            Directive::Drop => Self::Drop,
        }
    }
}

impl Directive {
    /// The directive that a message's number stands for.
    pub fn from_wire(number: i32) -> Result<Self, DecodeError> {
        match pb::Directive::try_from(number) {
            Ok(pb::Directive::Continue) => Ok(Self::Continue),
            Ok(pb::Directive::Drop) => Ok(Self::Drop),
            Ok(pb::Directive::Unspecified) | Err(_) => {
                Err(DecodeError::UnknownEnum { field: "directive", value: number })
            }
        }
    }
}

impl From<&Outcome> for pb::complete_request::Outcome {
    fn from(it: &Outcome) -> Self {
        match it {
            Outcome::Trained { model } => Self::Trained(pb::Trained {
                model_hash: model.map(ArtifactHash::to_wire).unwrap_or_default(),
            }),
            Outcome::Evaluated(score) => Self::Evaluated((*score).into()),
            Outcome::Failed(failure) => Self::Failed(failure.into()),
            Outcome::Released => Self::Released(pb::Released {}),
        }
    }
}

impl TryFrom<pb::complete_request::Outcome> for Outcome {
    type Error = DecodeError;

    fn try_from(it: pb::complete_request::Outcome) -> Result<Self, DecodeError> {
        use pb::complete_request::Outcome as Wire;
        match it {
            Wire::Trained(trained) => {
                Ok(Self::Trained { model: ArtifactHash::from_wire_optional(&trained.model_hash)? })
            }
            Wire::Evaluated(score) => Score::try_from(score).map(Self::Evaluated),
            Wire::Failed(failure) => Failure::try_from(failure).map(Self::Failed),
            Wire::Released(pb::Released {}) => Ok(Self::Released),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointPlace;
    use crate::id::{AttemptNumber, TrialId};
    use crate::trial::{FailureReason, Finite, Seeds};

    fn attempt() -> SearchAttempt {
        SearchAttempt {
            search: SearchId::new(3),
            attempt: Attempt { trial: TrialId::new(12), number: AttemptNumber::new(2) },
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            name: Name::sanitised("fashion-mnist"),
            shape: Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 },
            files: [b"a", b"b", b"c", b"d"].map(|bytes| ArtifactHash::of(bytes)),
        }
    }

    fn assignment(work: Work) -> Assignment {
        Assignment { id: attempt(), search_name: Name::sanitised("quickstart"), dataset: manifest(), work }
    }

    fn training() -> Assignment {
        assignment(Work::Train {
            hyperparameters: Hyperparameters::defaults(),
            seeds: Seeds::derive(1, 0, TrialId::new(12)),
            track_test: true,
            checkpoint: CheckpointRule::default(),
            resume_from: vec![Checkpoint {
                place: CheckpointPlace { epoch: 3, step: 7 },
                hash: ArtifactHash::of(b"checkpoint"),
            }],
        })
    }

    fn worker() -> WorkerInfo {
        WorkerInfo {
            id: WorkerId::new(u128::MAX - 5),
            name: Name::sanitised("node-1"),
            slots: 2,
            device: "cpu (2 cores)".to_owned(),
            program_version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        let info = worker();
        assert_eq!(WorkerInfo::try_from(pb::RegisterRequest::from(&info)), Ok(info.clone()));
        for sent in [training(), assignment(Work::Evaluate { model: ArtifactHash::of(b"model") })] {
            assert_eq!(Assignment::try_from(pb::Assignment::from(&sent)), Ok(sent));
        }
        let progress = Progress { epoch: 2, step: 7, steps: 422 };
        for progress in [None, Some(progress)] {
            let held = Held { id: attempt(), progress };
            assert_eq!(Held::try_from(pb::Held::from(&held)), Ok(held));
        }
        for directive in [Directive::Continue, Directive::Drop] {
            assert_eq!(Directive::from_wire(pb::Directive::from(directive).into()), Ok(directive));
        }
        let score =
            Score { loss: Finite::new(0.3).expect("finite"), accuracy: Finite::new(0.9).expect("finite") };
        let failures =
            FailureReason::ALL.map(|reason| Outcome::Failed(Failure::new(reason, "what happened")));
        for outcome in [
            Outcome::Trained { model: None },
            Outcome::Trained { model: Some(ArtifactHash::of(b"model")) },
            Outcome::Evaluated(score),
            Outcome::Released,
        ]
        .into_iter()
        .chain(failures)
        {
            let wire = pb::complete_request::Outcome::from(&outcome);
            assert_eq!(Outcome::try_from(wire), Ok(outcome));
        }
    }

    #[test]
    fn an_unusable_registration_is_refused_with_the_field_named() {
        let changed = |change: fn(&mut pb::RegisterRequest)| {
            let mut wire = pb::RegisterRequest::from(&worker());
            change(&mut wire);
            WorkerInfo::try_from(wire).expect_err("must be refused").to_string()
        };
        for (message, said) in [
            (changed(|it| it.worker_id.truncate(15)), "worker_id has 15 bytes"),
            (changed(|it| it.name = "a b".to_owned()), "\"a b\" is not a usable"),
            (changed(|it| it.slots = 0), "slots cannot be 0"),
            (changed(|it| it.slots = 5000), "slots cannot be 5000"),
            (changed(|it| it.device = "x".repeat(201)), "device cannot be 201 bytes"),
        ] {
            assert!(message.contains(said), "{message:?} does not say {said:?}");
        }
    }

    #[test]
    fn an_unusable_assignment_is_refused_with_the_field_named() {
        fn dataset(it: &mut pb::Assignment) -> &mut pb::Dataset {
            it.dataset.as_mut().expect("set")
        }
        fn train(it: &mut pb::Assignment) -> &mut pb::TrainWork {
            match it.work.as_mut().expect("set") {
                pb::assignment::Work::Train(train) => train,
                pb::assignment::Work::Evaluate(_) => panic!("not training"),
            }
        }
        fn hyperparameters(it: &mut pb::Assignment) -> &mut Vec<pb::Hyperparameter> {
            &mut train(it).hyperparameters.as_mut().expect("set").entries
        }
        let changed = |change: fn(&mut pb::Assignment)| {
            let mut wire = pb::Assignment::from(&training());
            change(&mut wire);
            Assignment::try_from(wire).expect_err("must be refused").to_string()
        };
        for (message, said) in [
            (changed(|it| it.attempt = None), "attempt is missing"),
            (changed(|it| it.work = None), "work is missing"),
            (changed(|it| it.search_name.clear()), "\"\" is not a usable name"),
            (changed(|it| dataset(it).height = 0), "dataset.height cannot be 0"),
            (changed(|it| dataset(it).width = 1025), "dataset.width cannot be 1025"),
            (changed(|it| dataset(it).classes = 1), "dataset.classes cannot be 1"),
            (changed(|it| dataset(it).train_images = 0), "dataset.train_images cannot be 0"),
            (changed(|it| dataset(it).files.truncate(3)), "dataset.files cannot be 3 hashes"),
            (changed(|it| dataset(it).files[1].truncate(31)), "dataset.files has 31 bytes"),
            (
                changed(|it| hyperparameters(it).retain(|entry| entry.name != "learning_rate")),
                "learning_rate is missing",
            ),
            (
                changed(|it| train(it).checkpoint.as_mut().expect("set").every_epochs = Some(0)),
                "checkpoint.every_epochs cannot be 0",
            ),
            (changed(|it| train(it).resume_from[0].hash.truncate(31)), "hash has 31 bytes"),
            (
                changed(|it| train(it).resume_from = vec![train(it).resume_from[0].clone(); 17]),
                "train.resume_from has 17 entries",
            ),
        ] {
            assert!(message.contains(said), "{message:?} does not say {said:?}");
        }
    }

    #[test]
    fn an_unknown_directive_is_refused() {
        for number in [0, 3, -1] {
            assert!(Directive::from_wire(number).is_err(), "{number} was accepted");
        }
    }
}
