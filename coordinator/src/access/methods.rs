//! Every call, who may make it, and how large its messages may be.
//!
//! What is not in the table is denied to everybody who has to show a token, so that a new call is
//! closed until somebody decides who may make it.

use super::role::Role;

/// The largest message of a launch, in bytes: a search may list many points.
pub(crate) const MOST_LAUNCH_BYTES: usize = 64 << 20;
/// The largest other message, in bytes.
pub(crate) const MOST_MESSAGE_BYTES: usize = 256 << 10;
/// The largest message of an artifact's transfer, in bytes: a chunk and its envelope.
pub(crate) const MOST_CHUNK_BYTES: usize = crate::artifacts::CHUNK_BYTES + 1024;
/// The largest question about health, in bytes: a service's name.
const MOST_HEALTH_BYTES: usize = 1024;

/// A call of the coordinator's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// Its path in a request: `/package.Service/Method`.
    pub(crate) path: &'static str,
    /// Who may make it.
    pub(crate) roles: &'static [Role],
    /// The largest message that it takes, in bytes.
    pub(crate) most_bytes: usize,
}

const OPERATORS: &[Role] = &[Role::Operator];
const WORKERS: &[Role] = &[Role::Worker, Role::Operator];
const READERS: &[Role] = &[Role::Viewer, Role::Operator];
const EVERYBODY: &[Role] = &[Role::Viewer, Role::Worker, Role::Operator];

const fn method(path: &'static str, roles: &'static [Role]) -> Method {
    Method { path, roles, most_bytes: MOST_MESSAGE_BYTES }
}

const fn sized(path: &'static str, roles: &'static [Role], most_bytes: usize) -> Method {
    Method { path, roles, most_bytes }
}

/// Probes of health have no token to show, and learn no more than whether the coordinator works. To be kept
/// up to date takes a stream, and a token.
const OPEN: &str = "/grpc.health.v1.Health/Check";

/// What monitoring reads, at another port.
pub(super) const METRICS: Method = method("/metrics", READERS);

const METHODS: &[Method] = &[
    sized("/fittingroom.v1.OperatorService/Launch", OPERATORS, MOST_LAUNCH_BYTES),
    method("/fittingroom.v1.OperatorService/Control", OPERATORS),
    method("/fittingroom.v1.OperatorService/FetchDataset", OPERATORS),
    method("/fittingroom.v1.OperatorService/AddDataset", OPERATORS),
    method("/fittingroom.v1.OperatorService/Backup", OPERATORS),
    method("/fittingroom.v1.OperatorService/ListSearches", READERS),
    method("/fittingroom.v1.OperatorService/GetLeaderboard", READERS),
    method("/fittingroom.v1.OperatorService/WatchLeaderboard", READERS),
    method("/fittingroom.v1.OperatorService/GetTrial", READERS),
    method("/fittingroom.v1.OperatorService/GetEpochs", READERS),
    method("/fittingroom.v1.OperatorService/ListWorkers", READERS),
    method("/fittingroom.v1.OperatorService/GetBest", READERS),
    method("/fittingroom.v1.OperatorService/ListDatasets", READERS),
    method("/fittingroom.v1.WorkerService/Register", WORKERS),
    method("/fittingroom.v1.WorkerService/Lease", WORKERS),
    method("/fittingroom.v1.WorkerService/Heartbeat", WORKERS),
    method("/fittingroom.v1.WorkerService/Report", WORKERS),
    method("/fittingroom.v1.WorkerService/Complete", WORKERS),
    method("/fittingroom.v1.WorkerService/KeepCheckpoint", WORKERS),
    method("/fittingroom.v1.WorkerService/LoseCheckpoint", WORKERS),
    method("/fittingroom.v1.ArtifactService/Download", EVERYBODY),
    sized("/fittingroom.v1.ArtifactService/Upload", WORKERS, MOST_CHUNK_BYTES),
    method("/fittingroom.v1.ArtifactService/DownloadCheckpoint", WORKERS),
    sized("/fittingroom.v1.ArtifactService/UploadCheckpoint", WORKERS, MOST_CHUNK_BYTES),
    sized(OPEN, EVERYBODY, MOST_HEALTH_BYTES),
    sized("/grpc.health.v1.Health/Watch", EVERYBODY, MOST_HEALTH_BYTES),
];

impl Method {
    /// Whether it may be called without a token, whoever needs one for other calls.
    pub(super) fn is_open(&self) -> bool {
        self.path == OPEN
    }
}

/// The path of every call.
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.path)
}

/// The call at a path.
pub(crate) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The path of every call that the messages' files declare.
    fn declared() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/fittingroom/v1");
        // What is declared elsewhere.
        let health = ["Check", "Watch"].map(|call| format!("/grpc.health.v1.Health/{call}"));
        let mut paths = BTreeSet::from(health);
        for entry in std::fs::read_dir(folder).expect("lists") {
            let text = std::fs::read_to_string(entry.expect("lists").path()).expect("reads");
            let mut service = String::new();
            for line in text.lines().map(str::trim) {
                let word = |line: &str| -> String {
                    line.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
                };
                if let Some(rest) = line.strip_prefix("service ") {
                    service = word(rest);
                } else if let Some(rest) = line.strip_prefix("rpc ") {
                    paths.insert(format!("/fittingroom.v1.{service}/{}", word(rest)));
                }
            }
        }
        paths
    }

    #[test]
    fn every_call_that_is_declared_says_who_may_make_it_and_no_other_does() {
        let listed: BTreeSet<String> = METHODS.iter().map(|method| method.path.to_owned()).collect();
        assert_eq!(listed.len(), METHODS.len(), "a call is listed twice");
        assert_eq!(listed, declared(), "add the new call and its roles to METHODS");
    }

    #[test]
    fn an_operator_may_do_everything_and_a_viewer_changes_nothing() {
        for method in METHODS {
            assert!(method.roles.contains(&Role::Operator), "{}", method.path);
            let name = method.path.rsplit('/').next().expect("has a name");
            let is_reading = ["Download", "Check"].contains(&name)
                || ["Get", "List", "Watch"].iter().any(|verb| name.starts_with(verb));
            assert_eq!(method.roles.contains(&Role::Viewer), is_reading, "{}", method.path);
        }
        assert_eq!(find("/fittingroom.v1.WorkerService/Lease").map(|it| it.roles), Some(WORKERS));
        assert_eq!(find("/fittingroom.v1.WorkerService/lease"), None);
    }
}
