//! What both programs are to the machine that they run on: a log on stderr, and a service of systemd.
//!
//! The only part of this crate that speaks to anything outside of the program.

mod log;
mod service_manager;

pub use log::{LogFilter, LogFilterError, LogFormat, LogFormatError, start_log};
pub use service_manager::ServiceManager;
