//! Conversions of what people ask of the coordinator.

use super::{DecodeError, exactly, required};
use crate::id::{ArtifactHash, Name};
use crate::operator::{Action, AddDataset, Artifacts, BackupPart, FetchStep, Launch};
use crate::proto as pb;

impl From<Launch> for pb::LaunchRequest {
    fn from(it: Launch) -> Self {
        Self {
            name: it.name.map(|name| name.to_string()).unwrap_or_default(),
            spec: Some((&it.spec).into()),
            dataset: it.dataset.to_string(),
        }
    }
}

impl TryFrom<pb::LaunchRequest> for Launch {
    type Error = DecodeError;

    fn try_from(it: pb::LaunchRequest) -> Result<Self, DecodeError> {
        let name = if it.name.is_empty() { None } else { Some(it.name.parse()?) };
        Ok(Self { name, spec: required("launch.spec", it.spec)?.try_into()?, dataset: it.dataset.parse()? })
    }
}

impl From<Action> for pb::Action {
    fn from(it: Action) -> Self {
        match it {
            Action::Pause => Self::Pause,
            Action::Resume => Self::Resume,
            Action::Stop => Self::Stop,
            Action::Cancel => Self::Cancel,
        }
    }
}

impl TryFrom<pb::Action> for Action {
    type Error = DecodeError;

    fn try_from(it: pb::Action) -> Result<Self, DecodeError> {
        match it {
            pb::Action::Unspecified => Err(DecodeError::Missing("action")),
            pb::Action::Pause => Ok(Self::Pause),
            pb::Action::Resume => Ok(Self::Resume),
            pb::Action::Stop => Ok(Self::Stop),
            pb::Action::Cancel => Ok(Self::Cancel),
        }
    }
}

impl From<AddDataset> for pb::AddDatasetRequest {
    fn from(it: AddDataset) -> Self {
        Self { name: it.name.to_string(), files: it.files.map(ArtifactHash::to_wire).to_vec() }
    }
}

impl TryFrom<pb::AddDatasetRequest> for AddDataset {
    type Error = DecodeError;

    fn try_from(it: pb::AddDatasetRequest) -> Result<Self, DecodeError> {
        let name: Name = it.name.parse()?;
        let [a, b, c, d] = it.files.as_slice() else {
            return Err(DecodeError::Length { field: "files", found: it.files.len(), needed: 4 });
        };
        let hash = |bytes: &[u8]| exactly("files", bytes).map(ArtifactHash::new);
        Ok(Self { name, files: [hash(a)?, hash(b)?, hash(c)?, hash(d)?] })
    }
}

impl From<FetchStep> for pb::FetchDatasetResponse {
    fn from(it: FetchStep) -> Self {
        use pb::fetch_dataset_response::Kind;
        let kind = match it {
            FetchStep::Progress(text) => Kind::Progress(text),
            FetchStep::Done(manifest) => Kind::Dataset((&manifest).into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::FetchDatasetResponse> for FetchStep {
    type Error = DecodeError;

    fn try_from(it: pb::FetchDatasetResponse) -> Result<Self, DecodeError> {
        use pb::fetch_dataset_response::Kind;
        Ok(match required("fetch.kind", it.kind)? {
            Kind::Progress(text) => Self::Progress(text),
            Kind::Dataset(dataset) => Self::Done(dataset.try_into()?),
        })
    }
}

impl From<Artifacts> for pb::BackupRequest {
    fn from(it: Artifacts) -> Self {
        Self { without_artifacts: it == Artifacts::LeftOut }
    }
}

impl From<pb::BackupRequest> for Artifacts {
    fn from(it: pb::BackupRequest) -> Self {
        if it.without_artifacts { Self::LeftOut } else { Self::Included }
    }
}

impl From<BackupPart> for pb::BackupResponse {
    fn from(it: BackupPart) -> Self {
        use pb::backup_response::Kind;
        let kind = match it {
            BackupPart::Total(bytes) => Kind::TotalBytes(bytes),
            BackupPart::Bytes(bytes) => Kind::Data(bytes),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::BackupResponse> for BackupPart {
    type Error = DecodeError;

    fn try_from(it: pb::BackupResponse) -> Result<Self, DecodeError> {
        use pb::backup_response::Kind;
        Ok(match required("backup.kind", it.kind)? {
            Kind::TotalBytes(bytes) => Self::Total(bytes),
            Kind::Data(bytes) => Self::Bytes(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_survive_the_wire_and_no_action_is_refused() {
        for action in Action::ALL {
            assert_eq!(Action::try_from(pb::Action::from(action)), Ok(action));
        }
        assert_eq!(Action::try_from(pb::Action::Unspecified), Err(DecodeError::Missing("action")));
    }

    #[test]
    fn a_dataset_is_four_hashes_under_a_usable_name() {
        let good = AddDataset {
            name: Name::sanitised("digits"),
            files: [b"a", b"b", b"c", b"d"].map(|bytes| ArtifactHash::of(bytes)),
        };
        let message = pb::AddDatasetRequest::from(good.clone());
        assert_eq!(AddDataset::try_from(message.clone()), Ok(good));

        type Spoil = fn(&mut pb::AddDatasetRequest);
        let rows: [(&str, Spoil); 4] = [
            ("no name", |it| it.name.clear()),
            ("a name that leaves the folder", |it| it.name = "../x".to_owned()),
            ("three files", |it| it.files.truncate(3)),
            ("a short hash", |it| it.files[2].truncate(31)),
        ];
        for (row, spoil) in rows {
            let mut spoilt = message.clone();
            spoil(&mut spoilt);
            assert!(AddDataset::try_from(spoilt).is_err(), "{row} was accepted");
        }
    }
}
