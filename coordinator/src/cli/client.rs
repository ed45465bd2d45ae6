//! The coordinator as a command sees it: calls that take and give domain types, and the one place
//! where what goes wrong on the way becomes a message.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fittingroom_common::access::{Access, Channel};
use fittingroom_common::convert::DecodeError;
use fittingroom_common::dataset::Manifest;
use fittingroom_common::id::{Name, TrialId};
use fittingroom_common::operator::{Action, AddDataset, Artifacts, BackupPart, FetchStep, Launch};
use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_client::ArtifactServiceClient;
use fittingroom_common::proto::operator_service_client::OperatorServiceClient;
use fittingroom_common::view::{
    Best, EpochRow, LeaderboardView, SearchState, SearchSummary, TrialHistory, TrialRow, WorkerRow,
};
use tonic::transport::{Endpoint, Uri};
use tonic::{Code, Status, Streaming};

use super::error::CliError;
use super::output::notice;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes: a trial may have 100,000 epochs.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How long a call may take until its answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a coordinator listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorUrl(Uri);

/// What made an address unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is not an address at all, or says more than an address.
    #[error("a coordinator's address looks like http://127.0.0.1:7733 or https://node-1:7733")]
    Shape,
    /// It asks for another protocol.
    #[error(
        "{scheme}:// is not spoken by this version; a coordinator's address looks like http://127.0.0.1:7733 or https://node-1:7733"
    )]
    Scheme {
        /// The protocol that it asks for.
        scheme: String,
    },
}

impl FromStr for CoordinatorUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|_| UrlError::Shape)?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(scheme) => {
                return Err(UrlError::Scheme { scheme: scheme.to_owned() });
            }
            None => return Err(UrlError::Shape),
        }
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if has_host && uri.path() == "/" && uri.query().is_none() {
            Ok(Self(uri))
        } else {
            Err(UrlError::Shape)
        }
    }
}

impl fmt::Display for CoordinatorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

/// A coordinator, and how it is called.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    /// Where it listens.
    pub(crate) url: CoordinatorUrl,
    /// What it is shown, and how it is known.
    pub(crate) access: Access,
}

/// A connection to a coordinator.
#[derive(Clone)]
pub(crate) struct Client {
    coordinator: Coordinator,
    operator: OperatorServiceClient<Channel>,
}

/// Answers that come one after the other.
pub(crate) struct Answers<M, T> {
    stream: Streaming<M>,
    url: CoordinatorUrl,
    decode: fn(M) -> Result<T, DecodeError>,
}

impl<M, T> Answers<M, T> {
    /// The next answer; `None` when the coordinator has said all.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, CliError> {
        match self.stream.message().await {
            Ok(Some(message)) => Ok(Some((self.decode)(message)?)),
            Ok(None) => Ok(None),
            Err(status) => Err(explain(&self.url, &status)),
        }
    }
}

impl Client {
    /// Connects to the coordinator, or says that it is not there.
    pub(crate) async fn connect(coordinator: &Coordinator) -> Result<Self, CliError> {
        if coordinator.access.exposes_token(&coordinator.url.0) {
            notice("note: the token goes to the coordinator unencrypted; https:// would keep it from others");
        }
        let endpoint = endpoint(coordinator)?.timeout(ANSWER_TIMEOUT);
        let operator = OperatorServiceClient::new(open(coordinator, &endpoint).await?);
        let operator = operator.max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { coordinator: coordinator.clone(), operator })
    }

    /// A second connection for artifacts, whose transfers may take any time and stall nothing.
    pub(crate) async fn artifacts(&self) -> Result<ArtifactServiceClient<Channel>, CliError> {
        let endpoint = endpoint(&self.coordinator)?.http2_adaptive_window(true);
        Ok(ArtifactServiceClient::new(open(&self.coordinator, &endpoint).await?))
    }

    /// What a failed call on any of this client's connections means.
    pub(crate) fn explain(&self, status: &Status) -> CliError {
        explain(&self.coordinator.url, status)
    }

    /// Creates a search and starts it.
    pub(crate) async fn launch(&mut self, launch: Launch) -> Result<SearchSummary, CliError> {
        let answer = self.operator.launch(pb::LaunchRequest::from(launch)).await;
        let answer = answer.map_err(|status| self.explain(&status))?.into_inner();
        decode("launch.search", answer.search)
    }

    /// Every search, the newest one last.
    pub(crate) async fn searches(&mut self) -> Result<Vec<SearchSummary>, CliError> {
        let answer = self.operator.list_searches(pb::ListSearchesRequest {}).await;
        let answer = answer.map_err(|status| self.explain(&status))?.into_inner();
        decode_all(answer.searches)
    }

    /// Changes the state of a search, and gives the new one.
    pub(crate) async fn control(&mut self, name: &Name, action: Action) -> Result<SearchState, CliError> {
        let request = pb::ControlRequest { name: name.to_string(), action: pb::Action::from(action).into() };
        match self.operator.control(request).await {
            Ok(answer) => Ok(answer.into_inner().state().try_into()?),
            Err(status) => Err(self.explain_about(name, &status).await),
        }
    }

    /// A search and its trials in the order of the leaderboard.
    pub(crate) async fn leaderboard(
        &mut self,
        name: &Name,
        top: Option<u64>,
    ) -> Result<(SearchSummary, Vec<TrialRow>), CliError> {
        let request = pb::GetLeaderboardRequest { name: name.to_string(), top: top.unwrap_or(0) };
        let mut parts = match self.operator.get_leaderboard(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Err(self.explain_about(name, &status).await),
        };
        let (mut search, mut trials) = (None, Vec::new());
        loop {
            match parts.message().await {
                Ok(Some(part)) => {
                    search = search.or(part.search);
                    trials.extend(decode_all::<_, TrialRow>(part.trials)?);
                }
                Ok(None) => return Ok((decode("leaderboard.search", search)?, trials)),
                Err(status) => return Err(self.explain_about(name, &status).await),
            }
        }
    }

    /// The top of a leaderboard now, and again whenever it has changed, until the search ends.
    pub(crate) async fn watch(
        &mut self,
        name: &Name,
        top: u32,
    ) -> Result<Answers<pb::LeaderboardView, LeaderboardView>, CliError> {
        let request = pb::WatchLeaderboardRequest { name: name.to_string(), top };
        match self.operator.watch_leaderboard(request).await {
            Ok(answer) => Ok(self.answers(answer.into_inner(), LeaderboardView::try_from)),
            Err(status) => Err(self.explain_about(name, &status).await),
        }
    }

    /// One trial with every epoch of its attempts.
    pub(crate) async fn trial(&mut self, name: &Name, trial: TrialId) -> Result<TrialHistory, CliError> {
        let request = pb::GetTrialRequest { name: name.to_string(), trial: trial.get() };
        match self.operator.get_trial(request).await {
            Ok(answer) => Ok(answer.into_inner().try_into()?),
            Err(status) => Err(self.explain_about(name, &status).await),
        }
    }

    /// Every epoch of every trial.
    pub(crate) async fn epochs(&mut self, name: &Name) -> Result<Answers<pb::EpochRow, EpochRow>, CliError> {
        let request = pb::GetEpochsRequest { name: name.to_string() };
        match self.operator.get_epochs(request).await {
            Ok(answer) => Ok(self.answers(answer.into_inner(), EpochRow::try_from)),
            Err(status) => Err(self.explain_about(name, &status).await),
        }
    }

    /// The workers that are connected.
    pub(crate) async fn workers(&mut self) -> Result<Vec<WorkerRow>, CliError> {
        let answer = self.operator.list_workers(pb::ListWorkersRequest {}).await;
        let answer = answer.map_err(|status| self.explain(&status))?.into_inner();
        decode_all(answer.workers)
    }

    /// The best complete trial of a search.
    pub(crate) async fn best(&mut self, name: &Name) -> Result<Best, CliError> {
        let request = pb::GetBestRequest { name: name.to_string() };
        match self.operator.get_best(request).await {
            Ok(answer) => Ok(answer.into_inner().try_into()?),
            Err(status) => Err(self.explain_about(name, &status).await),
        }
    }

    /// The datasets that the coordinator holds.
    pub(crate) async fn datasets(&mut self) -> Result<Vec<Manifest>, CliError> {
        let answer = self.operator.list_datasets(pb::ListDatasetsRequest {}).await;
        let answer = answer.map_err(|status| self.explain(&status))?.into_inner();
        decode_all(answer.datasets)
    }

    /// Has the coordinator obtain a dataset by its name.
    pub(crate) async fn fetch_dataset(
        &mut self,
        name: &Name,
    ) -> Result<Answers<pb::FetchDatasetResponse, FetchStep>, CliError> {
        let request = pb::FetchDatasetRequest { name: name.to_string() };
        let answer = self.operator.fetch_dataset(request).await;
        let stream = answer.map_err(|status| self.explain(&status))?.into_inner();
        Ok(self.answers(stream, FetchStep::try_from))
    }

    /// Gives a name to four uploaded files.
    pub(crate) async fn add_dataset(&mut self, dataset: AddDataset) -> Result<Manifest, CliError> {
        let answer = self.operator.add_dataset(pb::AddDatasetRequest::from(dataset)).await;
        let answer = answer.map_err(|status| self.explain(&status))?.into_inner();
        decode("dataset", answer.dataset)
    }

    /// Has a backup made, and sent on a connection of its own.
    pub(crate) async fn backup(
        &self,
        artifacts: Artifacts,
    ) -> Result<Answers<pb::BackupResponse, BackupPart>, CliError> {
        let endpoint = endpoint(&self.coordinator)?.http2_adaptive_window(true);
        let operator = OperatorServiceClient::new(open(&self.coordinator, &endpoint).await?);
        let mut operator = operator.max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = operator.backup(pb::BackupRequest::from(artifacts)).await;
        let stream = answer.map_err(|status| self.explain(&status))?.into_inner();
        Ok(self.answers(stream, BackupPart::try_from))
    }

    fn answers<M, T>(&self, stream: Streaming<M>, decode: fn(M) -> Result<T, DecodeError>) -> Answers<M, T> {
        Answers { stream, url: self.coordinator.url.clone(), decode }
    }

    /// What a failed call about a search means: if there is no such search, which ones are like it.
    async fn explain_about(&mut self, name: &Name, status: &Status) -> CliError {
        let refusal = self.explain(status);
        if status.code() != Code::NotFound {
            return refusal;
        }
        let Ok(searches) = self.searches().await else {
            return refusal;
        };
        let known: Vec<Name> = searches.into_iter().map(|search| search.name).collect();
        if known.contains(name) {
            return refusal;
        }
        CliError::UnknownSearch { name: name.clone(), nearest: nearest(name, known) }
    }
}

fn endpoint(coordinator: &Coordinator) -> Result<Endpoint, CliError> {
    Ok(coordinator
        .access
        .endpoint(&coordinator.url.0)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

async fn open(coordinator: &Coordinator, endpoint: &Endpoint) -> Result<Channel, CliError> {
    let channel = endpoint.connect().await.map_err(|error| CliError::Unreachable {
        url: coordinator.url.to_string(),
        why: root_cause(&error),
    })?;
    Ok(coordinator.access.show(channel))
}

/// The innermost reason of an error: "Connection refused" rather than "transport error".
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn explain(url: &CoordinatorUrl, status: &Status) -> CliError {
    let url = url.to_string();
    let local = status.source().map(root_cause);
    match (status.code(), local) {
        (Code::DeadlineExceeded, _) => CliError::Slow { url },
        (Code::Cancelled, _) if status.message() == tonic::TimeoutExpired(()).to_string() => {
            CliError::Slow { url }
        }
        (Code::Unimplemented, _) => CliError::OtherVersion { url },
        (Code::Unavailable, Some(why)) => CliError::Unreachable { url, why },
        (_, Some(why)) => CliError::Broken { url, why },
        (Code::Unavailable | Code::ResourceExhausted | Code::Aborted, None) => {
            CliError::Busy { message: status.message().to_owned() }
        }
        (code, None) => CliError::Refused {
            message: if status.message().is_empty() {
                format!("the coordinator refused: {}", code.description())
            } else {
                status.message().to_owned()
            },
        },
    }
}

fn decode<M, T: TryFrom<M, Error = DecodeError>>(
    field: &'static str,
    message: Option<M>,
) -> Result<T, CliError> {
    Ok(message.ok_or(DecodeError::Missing(field))?.try_into()?)
}

fn decode_all<M, T: TryFrom<M, Error = DecodeError>>(messages: Vec<M>) -> Result<Vec<T>, CliError> {
    let all: Result<Vec<T>, DecodeError> = messages.into_iter().map(T::try_from).collect();
    Ok(all?)
}

/// Up to three of the names that are most like one, the likest first.
fn nearest(name: &Name, known: Vec<Name>) -> Vec<Name> {
    let given = name.as_str().to_lowercase();
    let mut likely: Vec<(f64, Name)> = known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&given, &known.as_str().to_lowercase()), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    likely.into_iter().take(3).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (given, shown) in [
            ("http://127.0.0.1:7733", "http://127.0.0.1:7733"),
            ("http://node-1:7733/", "http://node-1:7733"),
            ("node-1:7733", "http://node-1:7733"),
            ("https://node-1:7733", "https://node-1:7733"),
            ("[::1]:7733", "http://[::1]:7733"),
        ] {
            assert_eq!(
                given.parse::<CoordinatorUrl>().map(|url| url.to_string()),
                Ok(shown.to_owned()),
                "for {given:?}"
            );
        }
        for (row, given) in [
            ("nothing", ""),
            ("another protocol", "ftp://node-1:7733"),
            ("a path", "http://node-1:7733/api"),
            ("a query", "http://node-1:7733/?x"),
            ("no host", "http://"),
            ("a space", "node 1:7733"),
        ] {
            assert!(given.parse::<CoordinatorUrl>().is_err(), "{row} was accepted");
        }
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_is_said_in_one_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let url: CoordinatorUrl = format!("http://{address}").parse().expect("good");
        let coordinator = Coordinator { url, access: Access::default() };
        let error = Client::connect(&coordinator).await.err().expect("nothing listens");
        let message = error.to_string();
        assert_eq!(error.exit_code(), 1);
        assert!(!message.contains('\n'), "{message}");
        for said in [
            &format!("no coordinator answers at http://{address}: Connection refused"),
            "fittingroom serve --data DIR",
            "--coordinator",
        ] {
            assert!(message.contains(said), "{message:?} does not say {said:?}");
        }
    }

    #[test]
    fn each_refusal_has_its_message() {
        let url: CoordinatorUrl = "http://127.0.0.1:7733".parse().expect("good");
        for (status, said) in [
            (Status::not_found("there is no trial 9"), "there is no trial 9"),
            (Status::internal(""), "the coordinator refused"),
            (Status::unimplemented("x"), "of another version"),
            (Status::deadline_exceeded("x"), "did not answer in time"),
            (Status::cancelled("Timeout expired"), "did not answer in time"),
            (Status::unavailable("the coordinator is stopping"), "the coordinator is stopping"),
        ] {
            let message = explain(&url, &status).to_string();
            assert!(message.contains(said), "{message:?} does not say {said:?}");
        }
    }

    #[test]
    fn the_nearest_names_come_first() {
        let known = ["quickstart", "quickstart-2", "baseline-cnn", "other"];
        let known = known.iter().map(|name| Name::sanitised(name)).collect();
        let found = nearest(&Name::sanitised("QuikStart"), known);
        let found: Vec<&str> = found.iter().map(Name::as_str).collect();
        assert_eq!(found, ["quickstart", "quickstart-2"]);
    }
}
