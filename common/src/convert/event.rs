//! Conversions of the events that the log keeps.

use super::{DecodeError, required};
use crate::event::{Created, Event, Fact};
use crate::id::{ArtifactHash, Attempt, SlotNumber, TrialId, WorkerId};
use crate::proto as pb;
use crate::time::Timestamp;
use crate::trial::Failure;
use crate::work::Holder;

impl From<&Holder> for pb::Holder {
    fn from(it: &Holder) -> Self {
        Self { worker_id: it.worker.to_wire(), worker_name: it.name.to_string(), slot: it.slot.get() }
    }
}

impl TryFrom<pb::Holder> for Holder {
    type Error = DecodeError;

    fn try_from(it: pb::Holder) -> Result<Self, DecodeError> {
        Ok(Self {
            worker: WorkerId::from_wire(&it.worker_id)?,
            name: it.worker_name.parse()?,
            slot: SlotNumber::new(it.slot),
        })
    }
}

impl From<&Created> for pb::SearchCreated {
    fn from(it: &Created) -> Self {
        Self {
            name: it.name.to_string(),
            spec: Some((&it.spec).into()),
            dataset: Some((&it.dataset).into()),
            defaults: Some((&it.defaults).into()),
        }
    }
}

impl TryFrom<pb::SearchCreated> for Created {
    type Error = DecodeError;

    fn try_from(it: pb::SearchCreated) -> Result<Self, DecodeError> {
        Ok(Self {
            name: it.name.parse()?,
            spec: required("spec", it.spec)?.try_into()?,
            dataset: required("dataset", it.dataset)?.try_into()?,
            defaults: required("defaults", it.defaults)?.try_into()?,
        })
    }
}

impl From<&Event> for pb::Event {
    fn from(it: &Event) -> Self {
        use pb::event::Kind;
        let kind = match &it.fact {
            Fact::SearchCreated(created) => Kind::SearchCreated(created.as_ref().into()),
            Fact::TrialPlanned { trial, replicate, hyperparameters, seeds } => {
                Kind::TrialPlanned(pb::TrialPlanned {
                    trial: trial.get(),
                    replicate: *replicate,
                    hyperparameters: Some(hyperparameters.into()),
                    seeds: Some((*seeds).into()),
                })
            }
            Fact::AttemptStarted { attempt, holder } => Kind::AttemptStarted(pb::AttemptStarted {
                attempt: Some((*attempt).into()),
                holder: Some(holder.into()),
            }),
            Fact::EpochReported { attempt, report } => Kind::EpochReported(pb::EpochReported {
                attempt: Some((*attempt).into()),
                report: Some((*report).into()),
            }),
            Fact::TrialCompleted { attempt, model } => Kind::TrialCompleted(pb::TrialCompleted {
                attempt: Some((*attempt).into()),
                model_hash: model.map(ArtifactHash::to_wire).unwrap_or_default(),
            }),
            Fact::AttemptFailed { attempt, failure } => Kind::AttemptFailed(pb::AttemptFailed {
                attempt: Some((*attempt).into()),
                failure: Some(failure.into()),
            }),
            Fact::AttemptReleased { attempt } => {
                Kind::AttemptReleased(pb::AttemptReleased { attempt: Some((*attempt).into()) })
            }
            Fact::TrialFailed { trial, failure } => {
                Kind::TrialFailed(pb::TrialFailed { trial: trial.get(), failure: Some(failure.into()) })
            }
            Fact::TrialCancelled { trial } => Kind::TrialCancelled(pb::TrialCancelled { trial: trial.get() }),
            Fact::EvaluationStarted { attempt, holder } => Kind::EvaluationStarted(pb::EvaluationStarted {
                attempt: Some((*attempt).into()),
                holder: Some(holder.into()),
            }),
            Fact::EvaluationFailed { attempt, failure } => Kind::EvaluationFailed(pb::EvaluationFailed {
                attempt: Some((*attempt).into()),
                failure: Some(failure.into()),
            }),
            Fact::BestEvaluated { trial, test } => {
                Kind::BestEvaluated(pb::BestEvaluated { trial: trial.get(), test: Some((*test).into()) })
            }
            Fact::CheckpointKept { attempt, checkpoint } => Kind::CheckpointKept(pb::CheckpointKept {
                attempt: Some((*attempt).into()),
                checkpoint: Some((*checkpoint).into()),
            }),
            Fact::CheckpointLost { attempt, hash, problem } => Kind::CheckpointLost(pb::CheckpointLost {
                attempt: Some((*attempt).into()),
                hash: hash.to_wire(),
                problem: problem.clone(),
            }),
            Fact::SearchPaused => Kind::SearchPaused(pb::SearchPaused {}),
            Fact::SearchResumed => Kind::SearchResumed(pb::SearchResumed {}),
            Fact::SearchStopping { reason } => {
                Kind::SearchStopping(pb::SearchStopping { reason: reason.clone() })
            }
            Fact::SearchCancelled => Kind::SearchCancelled(pb::SearchCancelled {}),
            Fact::SearchCompleted => Kind::SearchCompleted(pb::SearchCompleted {}),
            Fact::SearchFailed { reason } => Kind::SearchFailed(pb::SearchFailed { reason: reason.clone() }),
        };
        Self { at_ms: it.at.as_millis(), kind: Some(kind) }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = DecodeError;

    fn try_from(it: pb::Event) -> Result<Self, DecodeError> {
        use pb::event::Kind;
        let attempt = |it: Option<pb::Attempt>| Attempt::try_from(required("attempt", it)?);
        let failure = |it: Option<pb::Failure>| Failure::try_from(required("failure", it)?);
        let holder = |it: Option<pb::Holder>| Holder::try_from(required("holder", it)?);
        let fact = match required("event.kind", it.kind)? {
            Kind::SearchCreated(it) => Fact::SearchCreated(Box::new(it.try_into()?)),
            Kind::TrialPlanned(it) => Fact::TrialPlanned {
                trial: TrialId::new(it.trial),
                replicate: it.replicate,
                hyperparameters: required("hyperparameters", it.hyperparameters)?.try_into()?,
                seeds: required("seeds", it.seeds)?.into(),
            },
            Kind::AttemptStarted(it) => {
                Fact::AttemptStarted { attempt: attempt(it.attempt)?, holder: holder(it.holder)? }
            }
            Kind::EpochReported(it) => Fact::EpochReported {
                attempt: attempt(it.attempt)?,
                report: required("report", it.report)?.try_into()?,
            },
            Kind::TrialCompleted(it) => Fact::TrialCompleted {
                attempt: attempt(it.attempt)?,
                model: ArtifactHash::from_wire_optional(&it.model_hash)?,
            },
            Kind::AttemptFailed(it) => {
                Fact::AttemptFailed { attempt: attempt(it.attempt)?, failure: failure(it.failure)? }
            }
            Kind::AttemptReleased(it) => Fact::AttemptReleased { attempt: attempt(it.attempt)? },
            Kind::TrialFailed(it) => {
                Fact::TrialFailed { trial: TrialId::new(it.trial), failure: failure(it.failure)? }
            }
            Kind::TrialCancelled(it) => Fact::TrialCancelled { trial: TrialId::new(it.trial) },
            Kind::EvaluationStarted(it) => {
                Fact::EvaluationStarted { attempt: attempt(it.attempt)?, holder: holder(it.holder)? }
            }
            Kind::EvaluationFailed(it) => {
                Fact::EvaluationFailed { attempt: attempt(it.attempt)?, failure: failure(it.failure)? }
            }
            Kind::BestEvaluated(it) => Fact::BestEvaluated {
                trial: TrialId::new(it.trial),
                test: required("test", it.test)?.try_into()?,
            },
            Kind::CheckpointKept(it) => Fact::CheckpointKept {
                attempt: attempt(it.attempt)?,
                checkpoint: required("checkpoint", it.checkpoint)?.try_into()?,
            },
            Kind::CheckpointLost(it) => Fact::CheckpointLost {
                attempt: attempt(it.attempt)?,
                hash: ArtifactHash::from_wire(&it.hash)?,
                problem: it.problem,
            },
            Kind::SearchPaused(_) => Fact::SearchPaused,
            Kind::SearchResumed(_) => Fact::SearchResumed,
            Kind::SearchStopping(it) => Fact::SearchStopping { reason: it.reason },
            Kind::SearchCancelled(_) => Fact::SearchCancelled,
            Kind::SearchCompleted(_) => Fact::SearchCompleted,
            Kind::SearchFailed(it) => Fact::SearchFailed { reason: it.reason },
        };
        Ok(Self { at: Timestamp::from_millis(it.at_ms), fact })
    }
}
