//! Protobuf messages: what workers and operators send, what they are answered, and what the log keeps.

use std::fmt::Debug;

use prost::Message;

use super::MOST_WORDS;
use crate::checkpoint::{Checkpoint, CheckpointRule};
use crate::convert::DecodeError;
use crate::dataset::Manifest;
use crate::event::{Created, Event};
use crate::gpu::GpuLoad;
use crate::hyperparameter::Hyperparameters;
use crate::id::{ArtifactHash, Name, WorkerId};
use crate::operator::{Action, AddDataset, FetchStep, Launch};
use crate::proto as pb;
use crate::space::SearchSpec;
use crate::trial::Report;
use crate::view::{Best, EpochRow, LeaderboardView, SearchSummary, TrialHistory, TrialRow, WorkerRow};
use crate::work::{Assignment, Directive, Held, Outcome, SearchAttempt, WorkerInfo};

/// What an input may be a message of, by its first byte. New ones go to the end: inputs name them by number.
const KINDS: &[fn(&[u8])] = &[
    // Requests.
    |bytes| round_trip::<pb::RegisterRequest, WorkerInfo>(bytes, |it| it.into()),
    |bytes| round_trip::<pb::LaunchRequest, Launch>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::AddDatasetRequest, AddDataset>(bytes, |it| it.clone().into()),
    |bytes| request(bytes, |it: pb::LeaseRequest| WorkerId::from_wire(&it.worker_id)),
    |bytes| request(bytes, heartbeat),
    |bytes| request(bytes, report),
    |bytes| request(bytes, complete),
    |bytes| request(bytes, keep_checkpoint),
    |bytes| request(bytes, lose_checkpoint),
    |bytes| request(bytes, |it: pb::CheckpointChunk| it.holder.map(holder).transpose()),
    |bytes| request(bytes, |it: pb::DownloadRequest| ArtifactHash::from_wire(&it.hash)),
    |bytes| request(bytes, |it: pb::ControlRequest| Ok((named(&it.name)?, Action::try_from(it.action())?))),
    |bytes| request(bytes, |it: pb::WatchLeaderboardRequest| named(&it.name)),
    // Answers.
    |bytes| round_trip::<pb::Assignment, Assignment>(bytes, |it| it.into()),
    |bytes| request(bytes, directives),
    |bytes| round_trip::<pb::SearchSummary, SearchSummary>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::TrialRow, TrialRow>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::LeaderboardView, LeaderboardView>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::TrialHistory, TrialHistory>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::EpochRow, EpochRow>(bytes, |it| (*it).into()),
    |bytes| round_trip::<pb::WorkerRow, WorkerRow>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::Best, Best>(bytes, |it| it.clone().into()),
    |bytes| round_trip::<pb::FetchDatasetResponse, FetchStep>(bytes, |it| it.clone().into()),
    // What the log keeps, and parts of it by themselves.
    |bytes| round_trip::<pb::Event, Event>(bytes, |it| it.into()),
    |bytes| round_trip::<pb::SearchCreated, Created>(bytes, |it| it.into()),
    |bytes| round_trip::<pb::SearchSpec, SearchSpec>(bytes, |it| it.into()),
    |bytes| round_trip::<pb::Dataset, Manifest>(bytes, |it| it.into()),
    |bytes| round_trip::<pb::Hyperparameters, Hyperparameters>(bytes, |it| it.into()),
    |bytes| round_trip::<pb::Report, Report>(bytes, |it| (*it).into()),
    |bytes| round_trip::<pb::CheckpointRule, CheckpointRule>(bytes, |it| (*it).into()),
];

/// A message of the kind that its first byte says.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if let Some(check) = KINDS.get(usize::from(*kind)) {
        check(bytes);
    }
}

/// What is decoded from a message is the same after another way over the wire.
fn round_trip<M, D>(bytes: &[u8], encode: fn(&D) -> M)
where
    M: Message + Default,
    D: TryFrom<M, Error = DecodeError> + PartialEq + Debug,
{
    let again = |value: &D| {
        let sent = encode(value).encode_to_vec();
        D::try_from(M::decode(sent.as_slice()).expect("what was encoded"))
    };
    request(bytes, |it: M| {
        let value = D::try_from(it)?;
        assert_eq!(again(&value).as_ref(), Ok(&value));
        Ok(value)
    });
}

/// What a service does with a message before it asks anybody.
fn request<M: Message + Default, T>(bytes: &[u8], decode: impl FnOnce(M) -> Result<T, DecodeError>) {
    let Ok(message) = M::decode(bytes) else { return };
    if let Err(error) = decode(message) {
        let words = error.to_string();
        assert!(words.len() < MOST_WORDS, "{words}");
    }
}

fn named(name: &str) -> Result<Name, DecodeError> {
    let parsed: Name = name.parse()?;
    assert_eq!(parsed.as_str(), name);
    Ok(parsed)
}

fn holder(it: pb::AttemptHolder) -> Result<(WorkerId, SearchAttempt), DecodeError> {
    Ok((WorkerId::from_wire(&it.worker_id)?, SearchAttempt::from_wire(it.search, it.attempt)?))
}

fn heartbeat(it: pb::HeartbeatRequest) -> Result<Vec<Held>, DecodeError> {
    WorkerId::from_wire(&it.worker_id)?;
    let held = it.held.into_iter().map(Held::try_from).collect::<Result<Vec<_>, _>>()?;
    for one in &held {
        assert_eq!(Held::try_from(pb::Held::from(one)).as_ref(), Ok(one));
    }
    for one in GpuLoad::all_from_wire(it.gpus)? {
        assert_eq!(GpuLoad::try_from(pb::Gpu::from(&one)).as_ref(), Ok(&one));
    }
    Ok(held)
}

fn report(it: pb::ReportRequest) -> Result<Report, DecodeError> {
    WorkerId::from_wire(&it.worker_id)?;
    SearchAttempt::from_wire(it.search, it.attempt)?;
    Report::try_from(it.report.ok_or(DecodeError::Missing("report"))?)
}

fn complete(it: pb::CompleteRequest) -> Result<Outcome, DecodeError> {
    WorkerId::from_wire(&it.worker_id)?;
    SearchAttempt::from_wire(it.search, it.attempt)?;
    let outcome = Outcome::try_from(it.outcome.ok_or(DecodeError::Missing("outcome"))?)?;
    let again = Outcome::try_from(pb::complete_request::Outcome::from(&outcome));
    assert_eq!(again.as_ref(), Ok(&outcome));
    Ok(outcome)
}

fn keep_checkpoint(it: pb::KeepCheckpointRequest) -> Result<Checkpoint, DecodeError> {
    WorkerId::from_wire(&it.worker_id)?;
    SearchAttempt::from_wire(it.search, it.attempt)?;
    let checkpoint = Checkpoint::try_from(it.checkpoint.ok_or(DecodeError::Missing("checkpoint"))?)?;
    assert_eq!(Checkpoint::try_from(pb::Checkpoint::from(checkpoint)), Ok(checkpoint));
    Ok(checkpoint)
}

fn lose_checkpoint(it: pb::LoseCheckpointRequest) -> Result<ArtifactHash, DecodeError> {
    WorkerId::from_wire(&it.worker_id)?;
    SearchAttempt::from_wire(it.search, it.attempt)?;
    ArtifactHash::from_wire(&it.hash)
}

fn directives(it: pb::HeartbeatResponse) -> Result<Vec<Directive>, DecodeError> {
    it.directives.into_iter().map(Directive::from_wire).collect()
}
