//! What a coordinator counts of itself, for Prometheus: `serve --metrics-listen`.
//!
//! Counters and histograms are noted where things happen, each by an atomic addition or a lock that is
//! held for one. What there is at a moment (trials, workers, slots) is looked up when it is asked for,
//! from what searches show without being asked: a scrape waits for no search.
//!
//! No metric tells searches or trials apart, and those of GPUs alone tell workers apart. There may be
//! many thousands of them, and whoever reads these numbers need not know their names.

mod gpus;
mod server;

use std::fmt;

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::trial::FailureReason;
use fittingroom_common::view::{SearchState, TrialState};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::cluster::{Cluster, Tally};
use crate::log::LogState;
pub(crate) use server::{Door, serve};

/// The word before the names of all metrics.
const PREFIX: &str = "fittingroom";

/// How long an append may take to be counted among those of its kind, in seconds.
const APPEND_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// How many events an append may have to be counted among those of its kind.
const APPEND_EVENTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// One label with one of a few values, which are all known beforehand.
type Label = [(&'static str, &'static str); 1];
type Counters = Family<Label, Counter>;

/// What is counted while a coordinator runs. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reports: Counter,
    attempts: Counter,
    attempts_failed: Counters,
    trials_ended: Counters,
    append_seconds: Histogram,
    append_events: Histogram,
    appends_failed: Counter,
    connections: Gauge,
    connections_refused: Counters,
    calls: Counters,
    calls_refused: Counters,
}

/// Why a connection is closed before its first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedConnection {
    /// There are as many as there may be.
    TooMany,
    /// There are as many from its address as there may be.
    TooManyFromAddress,
    /// It could not agree on TLS, or not in time.
    NoTls,
}

impl RefusedConnection {
    const ALL: [Self; 3] = [Self::TooMany, Self::TooManyFromAddress, Self::NoTls];

    const fn label(self) -> Label {
        let reason = match self {
            Self::TooMany => "too_many",
            Self::TooManyFromAddress => "too_many_from_address",
            Self::NoTls => "no_tls",
        };
        [("reason", reason)]
    }
}

/// Why a call is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedCall {
    /// It showed no token that is known.
    Unauthenticated,
    /// It showed a token that is for something else.
    PermissionDenied,
}

impl RefusedCall {
    const ALL: [Self; 2] = [Self::Unauthenticated, Self::PermissionDenied];

    const fn label(self) -> Label {
        let reason = match self {
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
        };
        [("reason", reason)]
    }
}

/// A family that shows all its values from the beginning: what appears with its first increase has none
/// that a rate could be made of.
fn counters(labels: impl IntoIterator<Item = Label>) -> Counters {
    let family = Counters::default();
    labels.into_iter().for_each(|label| drop(family.get_or_create(&label)));
    family
}

const fn of_state(state: TrialState) -> Label {
    [("state", state.name())]
}

impl Metrics {
    /// Nothing was counted yet. `calls`: the paths of all calls that there are.
    pub(crate) fn new(calls: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            reports: Counter::default(),
            attempts: Counter::default(),
            attempts_failed: counters(FailureReason::ALL.map(|reason| [("reason", reason.name())])),
            trials_ended: counters([TrialState::Complete, TrialState::Failed].map(of_state)),
            append_seconds: Histogram::new(APPEND_SECONDS),
            append_events: Histogram::new(APPEND_EVENTS),
            appends_failed: Counter::default(),
            connections: Gauge::default(),
            connections_refused: counters(RefusedConnection::ALL.map(RefusedConnection::label)),
            calls: counters(calls.into_iter().map(|path| [("method", path)])),
            calls_refused: counters(RefusedCall::ALL.map(RefusedCall::label)),
        }
    }

    /// Notes events that were appended together, and have become facts.
    pub(crate) fn appended(&self, seconds: f64, appended: &Appended) {
        self.append_seconds.observe(seconds);
        self.append_events.observe(appended.events as f64);
        self.reports.inc_by(appended.reports);
        self.attempts.inc_by(appended.attempts);
        for reason in &appended.attempts_failed {
            self.attempts_failed.get_or_create(&[("reason", reason.name())]).inc();
        }
        for (ended, count) in appended.trials_ended {
            if count > 0 {
                self.trials_ended.get_or_create(&of_state(ended)).inc_by(count);
            }
        }
    }

    /// Notes an append that failed.
    pub(crate) fn append_failed(&self) {
        self.appends_failed.inc();
    }

    /// Counts a connection until the answer is dropped.
    pub(crate) fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    /// Notes a connection that is refused.
    pub(crate) fn connection_refused(&self, why: RefusedConnection) {
        self.connections_refused.get_or_create(&why.label()).inc();
    }

    /// Notes a call that is let in.
    pub(crate) fn called(&self, path: &'static str) {
        self.calls.get_or_create(&[("method", path)]).inc();
    }

    /// Notes a call that is refused.
    pub(crate) fn call_refused(&self, why: RefusedCall) {
        self.calls_refused.get_or_create(&why.label()).inc();
    }

    /// Everything that is known at this moment, in the text format of OpenMetrics.
    pub(crate) fn scrape(&self, cluster: &Cluster, log: LogState) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        encode_registry(&mut text, &self.counted())?;
        encode_registry(&mut text, &looked_up(&cluster.tally(), log))?;
        encode_registry(&mut text, &gpus::looked_up(&cluster.workers().gpus(cluster.now())))?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn counted(&self) -> Registry {
        let mut it = Registry::with_prefix(PREFIX);
        it.register("reports", "Epoch reports of workers that are durable", self.reports.clone());
        it.register("attempts", "Attempts that workers were given", self.attempts.clone());
        it.register("attempts_failed", "Attempts that failed", self.attempts_failed.clone());
        it.register(
            "trials_ended",
            "Trials that were trained to their end, or failed, while this coordinator ran",
            self.trials_ended.clone(),
        );
        it.register_with_unit(
            "log_append",
            "How long an append to the event log took to be durable",
            Unit::Seconds,
            self.append_seconds.clone(),
        );
        it.register("log_append_events", "How many events an append had", self.append_events.clone());
        it.register("log_appends_failed", "Appends that were not made durable", self.appends_failed.clone());
        it.register("connections", "Connections to the gRPC port", self.connections.clone());
        it.register(
            "connections_refused",
            "Connections that were closed before their first call",
            self.connections_refused.clone(),
        );
        it.register("calls", "Calls that were let in", self.calls.clone());
        it.register(
            "calls_refused",
            "Calls whose token was missing, unknown or for something else",
            self.calls_refused.clone(),
        );
        it
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is counted of events before it is known whether they become facts.
#[derive(Debug)]
pub(crate) struct Appended {
    events: usize,
    reports: u64,
    attempts: u64,
    attempts_failed: Vec<FailureReason>,
    trials_ended: [(TrialState, u64); 2],
}

impl Appended {
    /// Counts these.
    pub(crate) fn count(events: &[Event]) -> Self {
        let (mut reports, mut attempts, mut complete, mut failed) = (0, 0, 0, 0);
        let mut attempts_failed = Vec::new();
        for event in events {
            match &event.fact {
                Fact::EpochReported { .. } => reports += 1,
                Fact::AttemptStarted { .. } | Fact::EvaluationStarted { .. } => attempts += 1,
                Fact::AttemptFailed { failure, .. } | Fact::EvaluationFailed { failure, .. } => {
                    attempts_failed.push(failure.reason);
                }
                Fact::TrialCompleted { .. } => complete += 1,
                Fact::TrialFailed { .. } => failed += 1,
                Fact::SearchCreated(_)
                | Fact::TrialPlanned { .. }
                | Fact::TrialCancelled { .. }
                | Fact::AttemptReleased { .. }
                | Fact::BestEvaluated { .. }
                | Fact::CheckpointKept { .. }
                | Fact::CheckpointLost { .. }
                | Fact::SearchPaused
                | Fact::SearchResumed
                | Fact::SearchStopping { .. }
                | Fact::SearchCancelled
                | Fact::SearchCompleted
                | Fact::SearchFailed { .. } => {}
            }
        }
        let trials_ended = [(TrialState::Complete, complete), (TrialState::Failed, failed)];
        Self { events: events.len(), reports, attempts, attempts_failed, trials_ended }
    }
}

fn gauges(values: impl IntoIterator<Item = (Label, u64)>) -> Family<Label, Gauge> {
    let family = Family::<Label, Gauge>::default();
    for (label, value) in values {
        family.get_or_create(&label).set(value.cast_signed());
    }
    family
}

fn looked_up(tally: &Tally, log: LogState) -> Registry {
    let mut it = Registry::with_prefix(PREFIX);
    // A gauge, since readers of the older format know of nothing of the kind of an information.
    let version = gauges([([("version", env!("CARGO_PKG_VERSION"))], 1)]);
    it.register("build_info", "The version of this program", version);
    let searches = SearchState::ALL.map(|state| ([("state", state.name())], tally.searches(state)));
    it.register("searches", "Searches by their state", gauges(searches));
    let trials = TrialState::ALL.map(|it| (of_state(it), tally.trials(it)));
    it.register("trials", "Trials that were drawn, of all searches, by their state", gauges(trials));
    for (name, help, value) in [
        ("leases", "Attempts that are out on workers", tally.leases),
        ("workers", "Workers that are connected", tally.workers.workers),
        ("workers_draining", "Connected workers that take no new work", tally.workers.draining),
        ("slots", "Slots of the connected workers", tally.workers.slots),
        ("slots_busy", "Slots of the connected workers that have work", tally.workers.busy),
        (
            "log_writable",
            "Whether the event log can be written: 1, or 0",
            u64::from(log == LogState::Writable),
        ),
    ] {
        it.register(name, help, ConstGauge::new(value));
    }
    it
}

#[cfg(test)]
mod tests;
