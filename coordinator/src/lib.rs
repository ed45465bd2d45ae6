//! Fitting Room's coordinator: searches, trials, leases, ranking, and the operator's command line.
//!
//! The core decides and the shell acts: [`search`], [`method`], [`leaderboard`] and [`history`] are
//! pure; [`runner`] owns one search each, [`log`] makes what it decides durable, [`cluster`] holds
//! all of them, and [`service`] speaks gRPC to those whom [`access`] lets in. [`cli`] is the program's other half: the operator's commands.

pub mod access;
pub mod artifacts;
pub mod audit;
pub mod backup;
pub mod check;
pub mod checkpoints;
mod chronicle;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod datasets;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod history;
pub mod leaderboard;
pub mod log;
pub mod method;
mod metrics;
mod owner;
pub mod runner;
pub mod search;
pub mod serve;
pub mod service;
mod vitals;
pub mod workers;
