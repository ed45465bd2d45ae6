//! What operators call.

use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::id::{Name, TrialId};
use fittingroom_common::operator::{Action, AddDataset, Artifacts, FetchStep, Launch};
use fittingroom_common::proto as pb;
use fittingroom_common::view::{EpochRow, TrialHistory, TrialRow, TrialState};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::backup;
use super::status::{of_cluster, of_log, of_obtain, of_refusal, undecodable};
use crate::cluster::Cluster;
use crate::history;
use crate::runner::SearchHandle;
use crate::search::{Command, Listed, Listing, Search};

/// The most trials of one part of a streamed leaderboard.
const ROWS_PER_PART: usize = 500;
/// The most ranked trials of a watched view.
const MAX_TOP: u32 = 1000;
/// The shortest time between two pushes to one watcher.
const PUSH_PAUSE: Duration = Duration::from_millis(100);
/// The most watchers at a time. Each costs a view of the leaderboard every [`PUSH_PAUSE`] while trials report.
const MOST_WATCHERS: usize = 256;
/// The most messages that wait for a slow reader before its stream waits for it.
const STREAM_BUFFER: usize = 8;

pub(super) struct Operator {
    cluster: Arc<Cluster>,
    watchers: Arc<Semaphore>,
    /// One backup at a time: each needs room for a copy of the log, and keeps what it reads from being deleted.
    backups: Arc<Semaphore>,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl Operator {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let (watchers, backups) = (Semaphore::new(MOST_WATCHERS), Semaphore::new(1));
        Self { cluster, watchers: Arc::new(watchers), backups: Arc::new(backups) }
    }

    fn find(&self, name: &str) -> Result<SearchHandle, Status> {
        let name: Name = name
            .parse()
            .map_err(|error: fittingroom_common::id::IdError| Status::invalid_argument(error.to_string()))?;
        self.cluster.find(&name).map_err(|error| of_cluster(&error))
    }
}

/// A stream that a task of its own fills, until it is done or the reader has gone.
fn streamed<T, F>(fill: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (answers, stream) = mpsc::channel(STREAM_BUFFER);
    tokio::spawn(fill(answers));
    ReceiverStream::new(stream).boxed()
}

#[tonic::async_trait]
impl pb::operator_service_server::OperatorService for Operator {
    type GetLeaderboardStream = Answers<pb::LeaderboardPart>;
    type WatchLeaderboardStream = Answers<pb::LeaderboardView>;
    type GetEpochsStream = Answers<pb::EpochRow>;
    type FetchDatasetStream = Answers<pb::FetchDatasetResponse>;
    type BackupStream = Answers<pb::BackupResponse>;

    async fn launch(
        &self,
        request: Request<pb::LaunchRequest>,
    ) -> Result<Response<pb::LaunchResponse>, Status> {
        let launch = Launch::try_from(request.into_inner()).map_err(|error| undecodable(&error))?;
        let search = self.cluster.launch(launch).await.map_err(|error| of_cluster(&error))?;
        let summary = search.query(|search| search.summary()).await.map_err(|error| of_refusal(&error))?;
        Ok(Response::new(pb::LaunchResponse { search: Some(summary.into()) }))
    }

    async fn list_searches(
        &self,
        _: Request<pb::ListSearchesRequest>,
    ) -> Result<Response<pb::ListSearchesResponse>, Status> {
        let mut searches = Vec::new();
        for search in self.cluster.searches() {
            let summary = search.summary().await.map_err(|error| of_refusal(&error))?;
            searches.push(summary.into());
        }
        Ok(Response::new(pb::ListSearchesResponse { searches }))
    }

    async fn control(
        &self,
        request: Request<pb::ControlRequest>,
    ) -> Result<Response<pb::ControlResponse>, Status> {
        let request = request.into_inner();
        let action = Action::try_from(request.action()).map_err(|error| undecodable(&error))?;
        let command = match action {
            Action::Pause => Command::Pause,
            Action::Resume => Command::Resume,
            Action::Stop => Command::Stop,
            Action::Cancel => Command::Cancel,
        };
        let state = self.find(&request.name)?.command(command, |search| search.state()).await;
        let state = pb::SearchState::from(state.map_err(|error| of_refusal(&error))?);
        Ok(Response::new(pb::ControlResponse { state: state.into() }))
    }

    async fn get_leaderboard(
        &self,
        request: Request<pb::GetLeaderboardRequest>,
    ) -> Result<Response<Self::GetLeaderboardStream>, Status> {
        let request = request.into_inner();
        let top =
            if request.top == 0 { usize::MAX } else { usize::try_from(request.top).unwrap_or(usize::MAX) };
        let search = self.find(&request.name)?;
        let listing = search.query(move |search| search.listing(top, ROWS_PER_PART)).await;
        let listing = listing.map_err(|error| of_refusal(&error))?;
        Ok(Response::new(streamed(|parts| leaderboard(search, listing, parts))))
    }

    async fn watch_leaderboard(
        &self,
        request: Request<pb::WatchLeaderboardRequest>,
    ) -> Result<Response<Self::WatchLeaderboardStream>, Status> {
        let request = request.into_inner();
        let top = request.top.clamp(1, MAX_TOP) as usize;
        let search = self.find(&request.name)?;
        let Ok(place) = Arc::clone(&self.watchers).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{MOST_WATCHERS} leaderboards are watched already; ask for it without --follow, or later"
            )));
        };
        let cluster = Arc::clone(&self.cluster);
        Ok(Response::new(streamed(async move |views| {
            watch(cluster, search, top, views).await;
            drop(place);
        })))
    }

    async fn get_trial(
        &self,
        request: Request<pb::GetTrialRequest>,
    ) -> Result<Response<pb::TrialHistory>, Status> {
        let request = request.into_inner();
        let search = self.find(&request.name)?;
        let trial = TrialId::new(request.trial);
        let known = search
            .query(move |search| Some((search.row(trial)?, search.origin(trial)?, search.summary().ended)))
            .await;
        let Some((row, (replicate, seeds), search_ended)) = known.map_err(|error| of_refusal(&error))? else {
            let name = search.name();
            return Err(Status::not_found(format!("search {name} has no trial {trial} (yet)")));
        };
        let events = self.cluster.log().events_of_trial(search.id(), trial).await;
        let mut attempts = history::attempts(&events.map_err(|error| of_log(&error))?);
        if let Some(last) = attempts.last_mut().filter(|_| row.state == TrialState::Cancelled) {
            // What runs when a search is cancelled ends with it.
            last.ended = last.ended.or(search_ended);
        }
        Ok(Response::new(TrialHistory { row, seeds, replicate, attempts }.into()))
    }

    async fn get_epochs(
        &self,
        request: Request<pb::GetEpochsRequest>,
    ) -> Result<Response<Self::GetEpochsStream>, Status> {
        let search = self.find(&request.into_inner().name)?;
        let cluster = Arc::clone(&self.cluster);
        Ok(Response::new(streamed(|rows| epochs(cluster, search, rows))))
    }

    async fn list_workers(
        &self,
        _: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersResponse>, Status> {
        let workers = self.cluster.workers().rows(self.cluster.now()).into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListWorkersResponse { workers }))
    }

    async fn get_best(&self, request: Request<pb::GetBestRequest>) -> Result<Response<pb::Best>, Status> {
        let search = self.find(&request.into_inner().name)?;
        let best = search.query(|search| search.best()).await.map_err(|error| of_refusal(&error))?;
        match best {
            Some(best) => Ok(Response::new(best.into())),
            None => Err(Status::failed_precondition(format!(
                "search {} has no complete trial yet, so it has no best model",
                search.name()
            ))),
        }
    }

    async fn list_datasets(
        &self,
        _: Request<pb::ListDatasetsRequest>,
    ) -> Result<Response<pb::ListDatasetsResponse>, Status> {
        let datasets = self.cluster.datasets().list().await.map_err(|error| of_log(&error))?;
        Ok(Response::new(pb::ListDatasetsResponse { datasets: datasets.iter().map(Into::into).collect() }))
    }

    async fn fetch_dataset(
        &self,
        request: Request<pb::FetchDatasetRequest>,
    ) -> Result<Response<Self::FetchDatasetStream>, Status> {
        let name: Name =
            request.into_inner().name.parse().map_err(|error: fittingroom_common::id::IdError| {
                Status::invalid_argument(error.to_string())
            })?;
        let cluster = Arc::clone(&self.cluster);
        Ok(Response::new(streamed(|steps| fetch(cluster, name, steps))))
    }

    async fn add_dataset(
        &self,
        request: Request<pb::AddDatasetRequest>,
    ) -> Result<Response<pb::AddDatasetResponse>, Status> {
        let AddDataset { name, files } =
            AddDataset::try_from(request.into_inner()).map_err(|error| undecodable(&error))?;
        let manifest = self.cluster.datasets().add(name, files).await.map_err(|error| of_obtain(&error))?;
        Ok(Response::new(pb::AddDatasetResponse { dataset: Some((&manifest).into()) }))
    }

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let artifacts = Artifacts::from(request.into_inner());
        let Ok(place) = Arc::clone(&self.backups).try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "another backup is being made; try again when it is done",
            ));
        };
        let cluster = Arc::clone(&self.cluster);
        Ok(Response::new(streamed(async move |parts| {
            backup::send(&cluster, artifacts, parts).await;
            drop(place);
        })))
    }
}

/// Sends a leaderboard part by part. Rows are made as they are sent: a million of them are never there at once.
async fn leaderboard(
    search: SearchHandle,
    listing: Listing,
    parts: mpsc::Sender<Result<pb::LeaderboardPart, Status>>,
) {
    let Listing { summary, first, rest } = listing;
    let part = |rows: Vec<TrialRow>| pb::LeaderboardPart {
        search: None,
        trials: rows.into_iter().map(pb::TrialRow::from).collect(),
    };
    let head = pb::LeaderboardPart { search: Some(summary.into()), ..part(first) };
    if parts.send(Ok(head)).await.is_err() {
        return;
    }
    let mut rest = rest.into_iter().peekable();
    while rest.peek().is_some() {
        let listed: Vec<Listed> = rest.by_ref().take(ROWS_PER_PART).collect();
        let row = |search: &Search, listed| match listed {
            Listed::Row(row) => Some(*row),
            Listed::Later(later) => search.listed_row(later),
        };
        let rows = search
            .query(move |search| listed.into_iter().filter_map(|it| row(search, it)).collect::<Vec<_>>())
            .await;
        let next = rows.map(part).map_err(|error| of_refusal(&error));
        let has_failed = next.is_err();
        if parts.send(next).await.is_err() || has_failed {
            return;
        }
    }
}

/// Pushes the view now and after every change, at most one each [`PUSH_PAUSE`], until the search ends.
async fn watch(
    cluster: Arc<Cluster>,
    search: SearchHandle,
    top: usize,
    views: mpsc::Sender<Result<pb::LeaderboardView, Status>>,
) {
    let mut pulse = search.pulse();
    loop {
        let has_ended = pulse.borrow_and_update().state.has_ended();
        let view = cluster.view(&search, top).await.map(Into::into).map_err(|error| of_cluster(&error));
        let has_failed = view.is_err();
        if views.send(view).await.is_err() || has_failed || has_ended {
            return;
        }
        let next_change = async {
            tokio::time::sleep(PUSH_PAUSE).await;
            pulse.changed().await
        };
        tokio::select! {
            changed = next_change => if changed.is_err() { return },
            () = views.closed() => return,
            () = cluster.shutdown().cancelled() => {
                // The reader may have gone too.
                let _ = views.send(Err(Status::unavailable("the coordinator is stopping"))).await;
                return;
            }
        }
    }
}

async fn epochs(
    cluster: Arc<Cluster>,
    search: SearchHandle,
    rows: mpsc::Sender<Result<pb::EpochRow, Status>>,
) {
    for number in 0.. {
        let trial = TrialId::new(number);
        let counted =
            search.query(move |search| search.origin(trial).map(|_| search.counted_attempt(trial))).await;
        match counted {
            Ok(Some(Some(_))) => {}
            Ok(Some(None)) => continue,
            Ok(None) => return,
            Err(error) => {
                // The reader may have gone.
                let _ = rows.send(Err(of_refusal(&error))).await;
                return;
            }
        }
        let events = match cluster.log().events_of_trial(search.id(), trial).await {
            Ok(events) => events,
            Err(error) => {
                // The reader may have gone.
                let _ = rows.send(Err(of_log(&error))).await;
                return;
            }
        };
        for (attempt, report) in history::epochs(history::attempts(&events)) {
            if rows.send(Ok(EpochRow { trial, attempt, report }.into())).await.is_err() {
                return;
            }
        }
    }
}

async fn fetch(
    cluster: Arc<Cluster>,
    name: Name,
    steps: mpsc::Sender<Result<pb::FetchDatasetResponse, Status>>,
) {
    let (progress, mut told) = mpsc::channel(STREAM_BUFFER);
    let obtain = cluster.datasets().obtain(&name, &progress);
    tokio::pin!(obtain);
    // The reader may go at any moment; the dataset is obtained all the same.
    let obtained = loop {
        tokio::select! {
            biased;
            Some(text) = told.recv() => drop(steps.send(Ok(FetchStep::Progress(text).into())).await),
            obtained = &mut obtain => break obtained,
        }
    };
    while let Ok(text) = told.try_recv() {
        drop(steps.send(Ok(FetchStep::Progress(text).into())).await);
    }
    let last = obtained.map(|manifest| FetchStep::Done(manifest).into()).map_err(|error| of_obtain(&error));
    drop(steps.send(last).await);
}
