//! Fitting Room's coordinator: searches, trials, leases, ranking, and the operator's command line.

pub mod method;
