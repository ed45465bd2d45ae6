//! How errors become gRPC statuses: here and nowhere else.

use fittingroom_common::convert::DecodeError;
use tonic::Status;

use crate::artifacts::ArtifactError;
use crate::backup::BackupError;
use crate::cluster::ClusterError;
use crate::datasets::ObtainError;
use crate::log::LogError;
use crate::runner::Refusal;
use crate::search::Rejection;
use crate::workers::WorkerError;

/// A message that is not what it should be.
pub(super) fn undecodable(error: &DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn of_cluster(error: &ClusterError) -> Status {
    let message = error.to_string();
    match error {
        ClusterError::NoSuchSearch { .. }
        | ClusterError::NoSuchSearchId(_)
        | ClusterError::NoSuchDataset { .. } => Status::not_found(message),
        ClusterError::NoSuchModel { .. } => Status::failed_precondition(message),
        ClusterError::NoSuchCheckpoint { .. } => Status::invalid_argument(message),
        ClusterError::Refused(refusal) => of_refusal(refusal),
        ClusterError::Worker(WorkerError::Unknown) => Status::not_found(message),
        ClusterError::Worker(WorkerError::NoSuchSlot { .. }) => Status::invalid_argument(message),
        ClusterError::Worker(WorkerError::NotYours { .. }) => Status::permission_denied(message),
        ClusterError::Worker(WorkerError::TooMany) => Status::resource_exhausted(message),
        ClusterError::Log(error) => of_log(error),
        ClusterError::Artifact(error) => of_artifact(error),
        ClusterError::Damaged { .. } => Status::data_loss(message),
    }
}

pub(super) fn of_refusal(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Rejected(rejection) => match rejection {
            Rejection::Superseded { .. } | Rejection::WrongState { .. } | Rejection::WrongOutcome { .. } => {
                Status::failed_precondition(rejection.to_string())
            }
            Rejection::UnknownTrial { .. } => Status::not_found(rejection.to_string()),
            Rejection::EpochGap { .. } => Status::out_of_range(rejection.to_string()),
            Rejection::CheckpointAhead { .. } => Status::invalid_argument(rejection.to_string()),
        },
        Refusal::NotDurable(error) => of_log(error),
        Refusal::Stopping => Status::unavailable(refusal.to_string()),
    }
}

pub(super) fn of_log(error: &LogError) -> Status {
    let message = error.to_string();
    match error {
        LogError::NameTaken { .. } => Status::already_exists(message),
        LogError::DiskFull => Status::resource_exhausted(message),
        LogError::Conflict { .. } => Status::aborted(message),
        LogError::Closed => Status::unavailable(message),
        LogError::Database(_)
        | LogError::Commit(_)
        | LogError::Unsynced(_)
        | LogError::OldSqlite { .. }
        | LogError::Foreign { .. } => Status::unavailable(message),
        LogError::Undecodable { .. }
        | LogError::DamagedSnapshot { .. }
        | LogError::UndecodableDataset { .. } => Status::data_loss(message),
    }
}

pub(super) fn of_artifact(error: &ArtifactError) -> Status {
    let message = error.to_string();
    match error {
        ArtifactError::Missing { .. } => Status::not_found(message),
        ArtifactError::TooLarge => Status::out_of_range(message),
        ArtifactError::Collect(source) if source.kind() == std::io::ErrorKind::StorageFull => {
            Status::resource_exhausted(message)
        }
        ArtifactError::Store(_) | ArtifactError::Collect(_) => Status::unavailable(message),
        ArtifactError::BrokenOff(_) => Status::cancelled(message),
        ArtifactError::Address { .. } | ArtifactError::Name(_) => Status::invalid_argument(message),
    }
}

pub(super) fn of_backup(error: &BackupError) -> Status {
    match error {
        BackupError::Log(error) => of_log(error),
        BackupError::Room(error) => of_artifact(error),
        BackupError::Artifact { .. } | BackupError::Damaged { .. } => Status::data_loss(error.to_string()),
        BackupError::Archive(_) => Status::unavailable(error.to_string()),
    }
}

pub(super) fn of_obtain(error: &ObtainError) -> Status {
    let message = error.to_string();
    match error {
        ObtainError::Unknown { .. } => Status::not_found(message),
        ObtainError::Nowhere { .. } => Status::failed_precondition(message),
        ObtainError::Dataset(_) | ObtainError::TooLarge { .. } => Status::invalid_argument(message),
        ObtainError::Artifact(error) => of_artifact(error),
        ObtainError::Log(error) => of_log(error),
        ObtainError::Stopping => Status::unavailable(message),
    }
}
