//! Conversions of what is known of a trial: ids, values, reports, failures.

use super::{DecodeError, exactly, required};
use crate::checkpoint::{Checkpoint, CheckpointPlace};
use crate::hyperparameter::{CATALOGUE, Hyperparameters, Parameter, Value};
use crate::id::{ArtifactHash, Attempt, AttemptNumber, TrialId, WorkerId};
use crate::proto as pb;
use crate::trial::{Failure, FailureReason, Finite, Metric, Report, Score, Seeds};

impl From<Attempt> for pb::Attempt {
    fn from(it: Attempt) -> Self {
        Self { trial: it.trial.get(), number: it.number.get() }
    }
}

impl TryFrom<pb::Attempt> for Attempt {
    type Error = DecodeError;

    fn try_from(it: pb::Attempt) -> Result<Self, DecodeError> {
        if it.number == 0 {
            let value = it.number.to_string();
            return Err(DecodeError::Outside { field: "attempt.number", value, allowed: "numbers from 1" });
        }
        Ok(Self { trial: TrialId::new(it.trial), number: AttemptNumber::new(it.number) })
    }
}

impl WorkerId {
    /// The id as it travels.
    pub fn to_wire(self) -> Vec<u8> {
        self.bits().to_be_bytes().to_vec()
    }

    /// The id that 16 bytes are.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly("worker_id", bytes).map(|bytes| Self::new(u128::from_be_bytes(bytes)))
    }
}

impl ArtifactHash {
    /// The hash as it travels.
    pub fn to_wire(self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    /// The hash that 32 bytes are.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly("hash", bytes).map(Self::new)
    }

    /// The hash that 32 bytes are, or `None` if there are no bytes at all.
    pub fn from_wire_optional(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        if bytes.is_empty() { Ok(None) } else { Self::from_wire(bytes).map(Some) }
    }
}

impl From<&Value> for pb::Value {
    fn from(it: &Value) -> Self {
        use pb::value::Kind;
        let kind = match it {
            Value::Choice(word) => Kind::Choice((*word).to_owned()),
            Value::Number(number) => Kind::Number(*number),
            Value::Integer(number) => Kind::Integer(*number),
            Value::Flag(flag) => Kind::Flag(*flag),
            Value::Sizes(sizes) => Kind::Sizes(pb::Sizes { sizes: sizes.to_vec() }),
        };
        Self { kind: Some(kind) }
    }
}

impl pb::Value {
    /// The value that this is of the given hyperparameter.
    pub fn decode(&self, parameter: Parameter) -> Result<Value, DecodeError> {
        use pb::value::Kind;
        let value = match self.kind.as_ref() {
            None => return Err(DecodeError::Missing("value.kind")),
            Some(Kind::Choice(word)) => parameter.choice(word)?,
            Some(Kind::Number(number)) => parameter.number(*number)?,
            Some(Kind::Integer(number)) => parameter.integer(*number)?,
            Some(Kind::Flag(flag)) => parameter.flag(*flag)?,
            Some(Kind::Sizes(sizes)) => parameter.sizes(&sizes.sizes)?,
        };
        Ok(value)
    }
}

impl From<&Hyperparameters> for pb::Hyperparameters {
    fn from(it: &Hyperparameters) -> Self {
        let entries = it
            .iter()
            .map(|(parameter, value)| pb::Hyperparameter {
                name: parameter.name().to_owned(),
                value: Some(value.into()),
            })
            .collect();
        Self { entries }
    }
}

impl TryFrom<pb::Hyperparameters> for Hyperparameters {
    type Error = DecodeError;

    fn try_from(it: pb::Hyperparameters) -> Result<Self, DecodeError> {
        if it.entries.len() > CATALOGUE.len() {
            let (found, most) = (it.entries.len(), CATALOGUE.len());
            return Err(DecodeError::TooMany { field: "hyperparameters.entries", found, most });
        }
        let mut all = Self::new();
        for entry in it.entries {
            let parameter = Parameter::find(&entry.name)?;
            let value = required("hyperparameter.value", entry.value)?.decode(parameter)?;
            all.set(parameter, &value)?;
        }
        Ok(all)
    }
}

impl From<Score> for pb::Score {
    fn from(it: Score) -> Self {
        Self { loss: it.loss.get(), accuracy: it.accuracy.get() }
    }
}

impl TryFrom<pb::Score> for Score {
    type Error = DecodeError;

    fn try_from(it: pb::Score) -> Result<Self, DecodeError> {
        if !(0.0..=1.0).contains(&it.accuracy) {
            let value = it.accuracy.to_string();
            return Err(DecodeError::Outside { field: "score.accuracy", value, allowed: "0 to 1" });
        }
        Ok(Self {
            loss: Finite::new(it.loss).ok_or(DecodeError::NotFinite("score.loss"))?,
            accuracy: Finite::new(it.accuracy).ok_or(DecodeError::NotFinite("score.accuracy"))?,
        })
    }
}

impl From<Report> for pb::Report {
    fn from(it: Report) -> Self {
        Self {
            epoch: it.epoch,
            train: Some(it.train.into()),
            validation: Some(it.validation.into()),
            test: it.test.map(Into::into),
            seconds: it.seconds,
            images_per_second: it.images_per_second,
        }
    }
}

impl TryFrom<pb::Report> for Report {
    type Error = DecodeError;

    fn try_from(it: pb::Report) -> Result<Self, DecodeError> {
        let duration = |field, number: f64| {
            Finite::new(number)
                .filter(|n| n.get() >= 0.0)
                .map(Finite::get)
                .ok_or(DecodeError::NotFinite(field))
        };
        if it.epoch == 0 {
            let value = it.epoch.to_string();
            return Err(DecodeError::Outside { field: "report.epoch", value, allowed: "numbers from 1" });
        }
        Ok(Self {
            epoch: it.epoch,
            train: required("report.train", it.train)?.try_into()?,
            validation: required("report.validation", it.validation)?.try_into()?,
            test: it.test.map(Score::try_from).transpose()?,
            seconds: duration("report.seconds", it.seconds)?,
            images_per_second: duration("report.images_per_second", it.images_per_second)?,
        })
    }
}

impl From<FailureReason> for pb::FailureReason {
    fn from(it: FailureReason) -> Self {
        match it {
            FailureReason::Diverged => Self::Diverged,
            FailureReason::OutOfMemory => Self::OutOfMemory,
            FailureReason::TrainerCrashed => Self::TrainerCrashed,
            FailureReason::WorkerLost => Self::WorkerLost,
            FailureReason::BadData => Self::BadData,
            FailureReason::Timeout => Self::Timeout,
        }
    }
}

impl From<&Failure> for pb::Failure {
    fn from(it: &Failure) -> Self {
        Self { reason: pb::FailureReason::from(it.reason).into(), detail: it.detail.clone() }
    }
}

impl TryFrom<pb::Failure> for Failure {
    type Error = DecodeError;

    fn try_from(it: pb::Failure) -> Result<Self, DecodeError> {
        let unknown = DecodeError::UnknownEnum { field: "failure.reason", value: it.reason };
        let reason = match it.reason() {
            pb::FailureReason::Unspecified => return Err(unknown),
            pb::FailureReason::Diverged => FailureReason::Diverged,
            pb::FailureReason::OutOfMemory => FailureReason::OutOfMemory,
            pb::FailureReason::TrainerCrashed => FailureReason::TrainerCrashed,
            pb::FailureReason::WorkerLost => FailureReason::WorkerLost,
            pb::FailureReason::BadData => FailureReason::BadData,
            pb::FailureReason::Timeout => FailureReason::Timeout,
        };
        Ok(Self::new(reason, it.detail))
    }
}

impl From<Checkpoint> for pb::Checkpoint {
    fn from(it: Checkpoint) -> Self {
        Self { epoch: it.place.epoch, step: it.place.step, hash: it.hash.to_wire() }
    }
}

impl TryFrom<pb::Checkpoint> for Checkpoint {
    type Error = DecodeError;

    fn try_from(it: pb::Checkpoint) -> Result<Self, DecodeError> {
        let place = CheckpointPlace { epoch: it.epoch, step: it.step };
        Ok(Self { place, hash: ArtifactHash::from_wire(&it.hash)? })
    }
}

impl From<Seeds> for pb::Seeds {
    fn from(it: Seeds) -> Self {
        Self { split: it.split, order: it.order, trial: it.trial }
    }
}

impl From<pb::Seeds> for Seeds {
    fn from(it: pb::Seeds) -> Self {
        Self { split: it.split, order: it.order, trial: it.trial }
    }
}

impl From<Metric> for pb::Metric {
    fn from(it: Metric) -> Self {
        match it {
            Metric::ValidationAccuracy => Self::ValidationAccuracy,
            Metric::ValidationLoss => Self::ValidationLoss,
        }
    }
}

impl TryFrom<pb::Metric> for Metric {
    type Error = DecodeError;

    fn try_from(it: pb::Metric) -> Result<Self, DecodeError> {
        match it {
            pb::Metric::Unspecified => Err(DecodeError::Missing("metric")),
            pb::Metric::ValidationAccuracy => Ok(Self::ValidationAccuracy),
            pb::Metric::ValidationLoss => Ok(Self::ValidationLoss),
        }
    }
}
